/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See kit/names.h. */
#include "kit/names.h"

#include "base/counters.h"

#include <stdio.h>
#include <string.h>

const struct x4_cred nvol_root_cred = { .umask = 022, .cap_fsetid = true };

void nvol_open(struct nvol *t)
{
	struct x4_options opt = { .acl = true, .user_xattr = true, .cache_bytes = 64 << 20 };
	const char *why = NULL;
	char err[256] = "";
	int r = x4_vol_open(fake_dev(t->fake), &opt, &t->v, &why, err, sizeof err);

	if (r || (why && !t->may_be_ro))
		ck_abort_msg("open: %d %s %s", r, err, why ? why : "");
	must_eq(x4_iget(t->v, X4_ROOT_INO, NULL, &t->root), 0);
}

void nvol_make(struct nvol *t, uint64_t size, const char *mkfs_args)
{
	char args[256];

	snprintf(args, sizeof args, "-t ext4 -E lazy_itable_init=0,hash_seed=0e1bbe08-5a3c-4ef0-9f0f-1c1a7e0d2a31 %s", mkfs_args);
	t->fake = fake_mkfs(size, args);
	must(t->fake);
	nvol_open(t);
}

void nvol_close(struct nvol *t)
{
	x4_iput(t->root);
	must_eq(fdio_counter_read(CTR_x4_corrupt), 0); /* what we wrote ourselves is never damaged */
	must_eq(x4_vol_close(t->v), 0);
	t->v = NULL;
}

void nvol_check(struct nvol *t)
{
	nvol_close(t);
	must_eq(fake_e2fsck(t->fake), 0);
}

void nvol_done(struct nvol *t)
{
	nvol_check(t);
	fake_free(t->fake);
}

int n_create(struct x4_inode *dir, const char *name, uint32_t mode)
{
	struct x4_inode *i = NULL;
	int r = x4_create(dir, name, (unsigned)strlen(name), mode, 0, &nvol_root_cred, &i);

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
	return x4_rename(od, on, (unsigned)strlen(on), nd, nn, (unsigned)strlen(nn), flags, &nvol_root_cred);
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
