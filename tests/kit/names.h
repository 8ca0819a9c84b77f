/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A volume on the device in memory, for the tests of names. One volume at a time; all functions fail the test on errors. */
#ifndef FDIO_TESTS_CHECK_X4_NAMES_H
#define FDIO_TESTS_CHECK_X4_NAMES_H

#include "ext4/ext4_types.h"
#include "kit/device.h"
#include "kit/runner.h"

struct nvol {
	struct fake_dev *fake;
	struct x4_vol *v;
	struct x4_inode *root;
	bool may_be_ro; /* such a volume is not necessarily served for writing */
};

extern const struct x4_cred nvol_root_cred;

void nvol_make(struct nvol *t, uint64_t size, const char *mkfs_args);
void nvol_open(struct nvol *t);       /* of t->fake */
void nvol_close(struct nvol *t);      /* clean; the device stays */
void nvol_check(struct nvol *t);      /* close and e2fsck -fn, which must find nothing */
void nvol_done(struct nvol *t);       /* nvol_check and the end of it */
/* By name in dir; results of x4_*, references dropped. */
int n_create(struct x4_inode *dir, const char *name, uint32_t mode);
int n_unlink(struct x4_inode *dir, const char *name);
int n_rmdir(struct x4_inode *dir, const char *name);
int n_link(struct x4_inode *dir, const char *name, struct x4_inode *target);
int n_rename(struct x4_inode *od, const char *on, struct x4_inode *nd, const char *nn, unsigned flags);
int n_ino(struct x4_inode *dir, const char *name); /* or -errno */
struct x4_inode *n_get(struct x4_inode *dir, const char *name); /* a reference */
unsigned n_nlink(struct x4_inode *i);
/* Deterministic numbers. */
uint32_t n_rand(uint64_t *state);

#endif
