/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One file on a volume, for the tests of extents. There are two implementations, of which a program
 * links one. one_file_volume.c opens the volume with kit/volume.h. one_file_miniature.c replaces
 * the journal, the allocator and the inode cache by arrays: these check what the real rooms cannot,
 * such as every credit of a handle, and make any call fail. One thread.
 */
#ifndef FDIO_KIT_ONE_FILE_H
#define FDIO_KIT_ONE_FILE_H

#include "ext4/data/extent.h"
#include "ext4/ext4.h"
#include "kit/device.h"
#include "kit/runner.h"

struct onefile {
	struct ext4_vol *vol;
	struct ext4_inode *inode;      /* the file /f, empty at first */
	struct fake_dev *fake;
	struct dev *dev;
	uint32_t ino;
	void *priv;
};

/*
 * mkfs_args are those of mke2fs. setup is a shell command that makes /f on $IMG; NULL: an empty
 * regular file.
 */
void onefile_open(struct onefile *t, uint64_t size, const char *mkfs_args, const char *setup);
/*
 * Writes everything to the device, requires that e2fsck -fn finds nothing, and opens the file anew.
 */
void onefile_recheck(struct onefile *t);
void onefile_close(struct onefile *t);
/* Only with the real volume: onto what a power cut leaves, after e2fsck has found it sound. */
void onefile_power_cut(struct onefile *t, uint64_t seed);
/* Opens the volume of t->fake with the file t->ino. */
void onefile_attach(struct onefile *t);

#ifdef ONEFILE_MINIATURE
/* The k-th call from now on that can fail does; 0: none. It counts down. */
extern unsigned mini_fail_in;
/* Allocations get runs of at most this many blocks from random places; 0: contiguous ones. */
extern unsigned mini_fragment;
uint64_t mini_free_blocks(void);
/* The allocator finds no space when the file would use more blocks; UINT64_MAX: no limit. */
extern uint64_t mini_limit_free;
#endif

/* The formatted image with /f, for both implementations. */
struct fake_dev *onefile_image(uint64_t size, const char *mkfs_args, const char *setup,
			       uint32_t *ret_ino);

#endif
