/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See kit/names.h. */
#include "kit/names.h"

#include <string.h>

const struct x4_cred names_cred = { .umask = 022, .cap_fsetid = true };

int n_create(struct x4_inode *dir, const char *name, uint32_t mode)
{
	struct x4_inode *inode = NULL;
	int err = x4_create(dir, name, (unsigned)strlen(name), mode, 0, &names_cred, &inode);

	if (err == 0)
		x4_iput(inode);
	return err;
}

int n_unlink(struct x4_inode *dir, const char *name) { return x4_unlink(dir, name, (unsigned)strlen(name)); }
int n_rmdir(struct x4_inode *dir, const char *name) { return x4_rmdir(dir, name, (unsigned)strlen(name)); }

int n_link(struct x4_inode *dir, const char *name, struct x4_inode *target)
{
	return x4_link(dir, name, (unsigned)strlen(name), target, false);
}

int n_rename(struct x4_inode *old_dir, const char *on, struct x4_inode *new_dir, const char *nn, unsigned flags)
{
	return x4_rename(old_dir, on, (unsigned)strlen(on), new_dir, nn, (unsigned)strlen(nn), flags, &names_cred);
}

int n_ino(struct x4_inode *dir, const char *name)
{
	struct x4_inode *inode;
	int err = x4_lookup(dir, name, (unsigned)strlen(name), &inode);

	if (err)
		return err;
	err = (int)x4_inode_ino(inode);
	x4_iput(inode);
	return err;
}

struct x4_inode *n_get(struct x4_inode *dir, const char *name)
{
	struct x4_inode *inode;

	must_eq(x4_lookup(dir, name, (unsigned)strlen(name), &inode), 0);
	return inode;
}

unsigned n_nlink(struct x4_inode *inode)
{
	struct x4_attr attr;

	x4_getattr(inode, &attr);
	return attr.nlink;
}

uint32_t n_rand(uint64_t *state)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(*state >> 33);
}
