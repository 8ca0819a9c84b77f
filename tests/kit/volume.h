/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the tests of volumes, allocators and inodes share: file systems of every shape made by mke2fs in
 * the device in memory, opened by the code under test, and checked by e2fsck afterwards. One thread.
 */
#ifndef FDIO_CHECK_X4_ENV_H
#define FDIO_CHECK_X4_ENV_H

#include "ext4/alloc/groups.h"
#include "ext4/volume/volume.h"
#include "kit/device.h"
#include "kit/runner.h"

/* Shapes: block size, checksums, width of descriptors, place of descriptors, size of inodes. */
extern const char *const env_mkfs[];
extern const unsigned nr_env_mkfs;

/* A device of 32 MiB formatted as env_mkfs[n]. */
struct fake_dev *env_new(unsigned n);
/* Opens read-write; fails the test with the message otherwise. */
struct x4_vol *env_open(struct fake_dev *f);
struct x4_options env_options(void);
/* Closes, and e2fsck -fn must find nothing. */
void env_close_check(struct x4_vol *v, struct fake_dev *f);
void env_super(struct fake_dev *f, struct ext2_super_block *sb);
void env_poke_super(struct fake_dev *f, struct ext2_super_block *sb); /* with its checksum */

/* A regular file without a name, on the orphan list, referenced. */
struct x4_inode *env_tmpfile(struct x4_vol *v, uint32_t mode);
/* Reserves, claims and maps blocks [lblk, lblk+n) of i. 0 or -errno. */
int env_fill(struct x4_inode *i, uint32_t lblk, uint32_t n);
struct x4_inode *env_root(struct x4_vol *v);
/* Fails the test if free counts in memory, in descriptors and in bitmaps differ anywhere. */
void env_check_groups(struct x4_vol *v);

#endif
