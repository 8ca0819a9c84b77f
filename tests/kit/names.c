/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See kit/names.h. */
#include "kit/names.h"

#include <string.h>

const struct ext4_credentials names_cred = { .umask = 022, .cap_fsetid = true };

int n_create(struct ext4_inode *dir, const char *name, uint32_t mode)
{
	struct ext4_inode *inode = NULL;
	int err = ext4_create(dir, name, (unsigned)strlen(name), mode, 0, &names_cred, &inode);

	if (err == 0)
		ext4_inode_put(inode);
	return err;
}

int n_unlink(struct ext4_inode *dir, const char *name)
{
	return ext4_unlink(dir, name, (unsigned)strlen(name));
}
int n_rmdir(struct ext4_inode *dir, const char *name)
{
	return ext4_rmdir(dir, name, (unsigned)strlen(name));
}

int n_link(struct ext4_inode *dir, const char *name, struct ext4_inode *target)
{
	return ext4_link(dir, name, (unsigned)strlen(name), target, false);
}

int n_rename(struct ext4_inode *old_dir, const char *on, struct ext4_inode *new_dir, const char *nn,
	     unsigned flags)
{
	return ext4_rename(old_dir, on, (unsigned)strlen(on), new_dir, nn, (unsigned)strlen(nn),
			   flags, &names_cred);
}

int n_ino(struct ext4_inode *dir, const char *name)
{
	struct ext4_inode *inode;
	int err = ext4_lookup(dir, name, (unsigned)strlen(name), &inode);

	if (err)
		return err;
	err = (int)ext4_inode_ino(inode);
	ext4_inode_put(inode);
	return err;
}

struct ext4_inode *n_get(struct ext4_inode *dir, const char *name)
{
	struct ext4_inode *inode;

	must_eq(ext4_lookup(dir, name, (unsigned)strlen(name), &inode), 0);
	return inode;
}

unsigned n_nlink(struct ext4_inode *inode)
{
	struct ext4_attr attr;

	ext4_getattr(inode, &attr);
	return attr.nlink;
}

uint32_t n_rand(uint64_t *state)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(*state >> 33);
}
