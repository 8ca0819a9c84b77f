/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See kit/names.h. */
#include "kit/names.h"

#include <string.h>

const struct x4_cred names_cred = { .umask = 022, .cap_fsetid = true };

int n_create(struct x4_inode *dir, const char *name, uint32_t mode)
{
	struct x4_inode *i = NULL;
	int r = x4_create(dir, name, (unsigned)strlen(name), mode, 0, &names_cred, &i);

	if (r == 0)
		x4_iput(i);
	return r;
}

int n_unlink(struct x4_inode *dir, const char *name) { return x4_unlink(dir, name, (unsigned)strlen(name)); }
int n_rmdir(struct x4_inode *dir, const char *name) { return x4_rmdir(dir, name, (unsigned)strlen(name)); }

int n_link(struct x4_inode *dir, const char *name, struct x4_inode *target)
{
	return x4_link(dir, name, (unsigned)strlen(name), target, false);
}

int n_rename(struct x4_inode *od, const char *on, struct x4_inode *nd, const char *nn, unsigned flags)
{
	return x4_rename(od, on, (unsigned)strlen(on), nd, nn, (unsigned)strlen(nn), flags, &names_cred);
}

int n_ino(struct x4_inode *dir, const char *name)
{
	struct x4_inode *i;
	int r = x4_lookup(dir, name, (unsigned)strlen(name), &i);

	if (r)
		return r;
	r = (int)x4_inode_ino(i);
	x4_iput(i);
	return r;
}

struct x4_inode *n_get(struct x4_inode *dir, const char *name)
{
	struct x4_inode *i;

	must_eq(x4_lookup(dir, name, (unsigned)strlen(name), &i), 0);
	return i;
}

unsigned n_nlink(struct x4_inode *i)
{
	struct x4_attr a;

	x4_getattr(i, &a);
	return a.nlink;
}

uint32_t n_rand(uint64_t *state)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(*state >> 33);
}
