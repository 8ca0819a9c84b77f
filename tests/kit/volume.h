/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The volume layer of the kit: a file system made by mke2fs on the fake device, opened by the code
 * under test, and checked by e2fsck afterwards. All tests above the journal open their volume here,
 * but for the tests of opening itself and those over kit/one_file_miniature.c. One thread of the
 * test calls these functions; all fail the test on errors.
 */
#ifndef FDIO_KIT_VOLUME_H
#define FDIO_KIT_VOLUME_H

#include "ext4/alloc/groups.h"
#include "ext4/core/superblock.h"
#include "ext4/volume/volume.h"
#include "kit/device.h"
#include "kit/runner.h"

/* ---- formatting ---- */

/*
 * Arguments of mke2fs that differ in block size, checksums, width and place of the descriptors, and
 * size of inodes.
 */
extern const char *const testvol_shapes[];
extern const unsigned nr_testvol_shapes;
/* A device of 32 MiB formatted as testvol_shapes[n]. */
struct fake_dev *testvol_shape(unsigned n);

/*
 * Formats once for the whole case, as that is most of the cost of many tests; testvol_copy gives
 * each test a new device with a copy. setup: a shell command that changes $IMG; NULL: none.
 */
void testvol_use_template(TCase *t, uint64_t size, const char *mkfs_args, const char *setup);
struct fake_dev *testvol_copy(void);

/* The superblock on the device; testvol_poke_super writes it, with its checksum. */
void testvol_super(struct fake_dev *fake, struct ext2_super_block *sb);
void testvol_poke_super(struct fake_dev *fake, struct ext2_super_block *sb);

/* ---- opening and closing ---- */

/* With ACLs and user attributes, and no commit unless the test asks for one. */
struct ext4_options testvol_options(void);
/* Open the volume for writing; testvol_mount with testvol_options. */
struct ext4_vol *testvol_mount(struct fake_dev *fake);
struct ext4_vol *testvol_mount_with(struct fake_dev *fake, const struct ext4_options *options);
/* As testvol_mount_with; if the volume can only be read, *why says why, otherwise it is NULL. */
struct ext4_vol *testvol_mount_any(struct fake_dev *fake, const struct ext4_options *options,
				   const char **why);
/* Closes the volume; e2fsck -fn must find nothing. */
void testvol_unmount_check(struct ext4_vol *vol, struct fake_dev *fake);
/* Mounts, unmounts and checks what a test has left; frees fake. */
void testvol_mounts_clean(struct fake_dev *fake);

/* A device, its volume and the root directory together, for tests that have one volume. */
struct testvol {
	struct fake_dev *fake;
	struct ext4_vol *vol;
	struct ext4_inode *root;
	bool may_be_ro; /* the volume may be opened read-only */
};

void testvol_make(struct testvol *volume, uint64_t size, const char *mkfs_args);
void testvol_open(struct testvol *volume);       /* of volume->fake */
/* Closes the volume, which must be clean and have met no damage; the device stays. */
void testvol_close(struct testvol *volume);
void testvol_check(struct testvol *volume);      /* testvol_close; e2fsck -fn finds nothing */
void testvol_done(struct testvol *volume);       /* testvol_check; frees the device */

/* ---- inodes and blocks ---- */

struct ext4_inode *testvol_root(struct ext4_vol *vol); /* a reference */
/* A regular file without a name, on the orphan list, referenced. */
struct ext4_inode *testvol_tmpfile(struct ext4_vol *vol, uint32_t mode);
/* Allocates and maps the holes in blocks [lblk, lblk + n) of inode. 0 or -errno. */
int testvol_fill(struct ext4_inode *inode, uint32_t lblk, uint32_t n);
/* Fails the test if free counts in memory, in descriptors and in bitmaps differ anywhere. */
void testvol_check_groups(struct ext4_vol *vol);

#endif
