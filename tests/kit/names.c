/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operations on names in short form: see kit/names.h. */
#include "kit/names.h"

#include <string.h>

const struct ext4_credentials root_credentials = { .umask = 022, .cap_fsetid = true };

int name_create(struct ext4_inode *dir, const char *name, uint32_t mode)
{
	struct ext4_inode *inode = NULL;
	int err = ext4_create(dir, name, (unsigned)strlen(name), mode, 0, &root_credentials,
			      &inode);

	if (err == 0)
		ext4_inode_put(inode);
	return err;
}

int name_unlink(struct ext4_inode *dir, const char *name)
{
	return ext4_unlink(dir, name, (unsigned)strlen(name));
}
int name_rmdir(struct ext4_inode *dir, const char *name)
{
	return ext4_rmdir(dir, name, (unsigned)strlen(name));
}

int name_link(struct ext4_inode *dir, const char *name, struct ext4_inode *target)
{
	return ext4_link(dir, name, (unsigned)strlen(name), target, false);
}

int name_rename(struct ext4_inode *old_dir, const char *old_name, struct ext4_inode *new_dir,
		const char *new_name, unsigned flags)
{
	return ext4_rename(old_dir, old_name, (unsigned)strlen(old_name), new_dir, new_name,
			   (unsigned)strlen(new_name), flags, &root_credentials);
}

int name_ino(struct ext4_inode *dir, const char *name)
{
	struct ext4_inode *inode;
	int err = ext4_lookup(dir, name, (unsigned)strlen(name), &inode);

	if (err)
		return err;
	err = (int)ext4_inode_ino(inode);
	ext4_inode_put(inode);
	return err;
}

struct ext4_inode *name_lookup(struct ext4_inode *dir, const char *name)
{
	struct ext4_inode *inode;

	must_eq(ext4_lookup(dir, name, (unsigned)strlen(name), &inode), 0);
	return inode;
}

struct ext4_inode *name_make(struct ext4_inode *dir, const char *name, uint32_t mode)
{
	ck_assert_int_eq(name_create(dir, name, mode), 0);
	return name_lookup(dir, name);
}

uint64_t blocks_512(struct ext4_inode *inode)
{
	struct ext4_attr attr;

	ext4_getattr(inode, &attr);
	return attr.blocks_512;
}

unsigned link_count(struct ext4_inode *inode)
{
	struct ext4_attr attr;

	ext4_getattr(inode, &attr);
	return attr.nlink;
}

uint32_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(*state >> 33);
}
