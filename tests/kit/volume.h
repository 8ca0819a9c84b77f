/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The volume layer of the kit: a file system made by mke2fs in a device in memory, opened by the
 * code under test, and checked by e2fsck afterwards. Every test above the journal opens its volume
 * here, but for two: kit/one_file_miniature.c replaces all below the extents by arrays, and the
 * tests of opening itself call ext4_vol_open. One thread of the test calls these functions; all
 * fail the test on errors.
 */
#ifndef FDIO_KIT_VOLUME_H
#define FDIO_KIT_VOLUME_H

#include "ext4/alloc/groups.h"
#include "ext4/core/superblock.h"
#include "ext4/volume/volume.h"
#include "kit/device.h"
#include "kit/runner.h"

/* ---- formatting ---- */

/* Arguments of mke2fs: block size, checksums, width and place of descriptors, size of inodes. */
extern const char *const testvol_shapes[];
extern const unsigned nr_testvol_shapes;
/* A device of 32 MiB formatted as testvol_shapes[n]. */
struct fake_dev *testvol_shape(unsigned n);

/*
 * Formatting is most of the cost of many tests. This does it once for the case, and testvol_copy
 * gives each test a new device with that content. setup: a shell command that changes $IMG; NULL:
 * none.
 */
void testvol_use_template(TCase *t, uint64_t size, const char *mkfs_args, const char *setup);
struct fake_dev *testvol_copy(void);

/* The superblock on the device; poke writes it, with its checksum. */
void testvol_super(struct fake_dev *fake, struct ext2_super_block *sb);
void testvol_poke_super(struct fake_dev *fake, struct ext2_super_block *sb);

/* ---- opening and closing ---- */

/* ACLs, user attributes, and no commit that the test has not asked for. */
struct ext4_options testvol_options(void);
/* Opens it, for writing; the first with testvol_options. */
struct ext4_vol *testvol_mount(struct fake_dev *fake);
struct ext4_vol *testvol_mount_with(struct fake_dev *fake, const struct ext4_options *options);
/* The same, but *why says so where it can only be read; NULL otherwise. */
struct ext4_vol *testvol_mount_any(struct fake_dev *fake, const struct ext4_options *options,
				   const char **why);
/* Closes, and e2fsck -fn must find nothing. */
void testvol_unmount_check(struct ext4_vol *vol, struct fake_dev *fake);
/* Both, one after the other, for the last look at what a test has left; frees fake. */
void testvol_mounts_clean(struct fake_dev *fake);

/* The same as one thing, with the root directory, for tests that have one volume. */
struct testvol {
	struct fake_dev *fake;
	struct ext4_vol *vol;
	struct ext4_inode *root;
	bool may_be_ro; /* such a volume is not necessarily served for writing */
};

void testvol_make(struct testvol *volume, uint64_t size, const char *mkfs_args);
void testvol_open(struct testvol *volume);       /* of volume->fake */
/* clean, nothing found damaged; the device stays */
void testvol_close(struct testvol *volume);
void testvol_check(struct testvol *volume);      /* close and e2fsck -fn, which must find nothing */
void testvol_done(struct testvol *volume);       /* testvol_check and the end of it */

/* ---- inodes and blocks ---- */

struct ext4_inode *testvol_root(struct ext4_vol *vol); /* a reference */
/* A regular file without a name, on the orphan list, referenced. */
struct ext4_inode *testvol_tmpfile(struct ext4_vol *vol, uint32_t mode);
/* Reserves, claims and maps blocks [lblk, lblk+n) of inode. 0 or -errno. */
int testvol_fill(struct ext4_inode *inode, uint32_t lblk, uint32_t n);
/* Fails the test if free counts in memory, in descriptors and in bitmaps differ anywhere. */
void testvol_check_groups(struct ext4_vol *vol);

#endif
