/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One file on a volume, for the tests of extents. Two makers, of which a program links one. The
 * real one (one_file_volume.c) opens the volume with kit/volume.h. The miniature
 * (one_file_miniature.c) replaces the journal, the allocator and the inode cache by a few arrays;
 * these check what the real rooms cannot, such as every credit of a handle, and can be told to
 * fail. One thread.
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

/* mkfs_args for mke2fs; setup: debugfs commands that make /f, NULL: an empty regular file. */
void onefile_open(struct onefile *t, uint64_t size, const char *mkfs_args, const char *setup);
/*
 * Everything to the device, e2fsck -fn (fails the test when it finds anything), and the file opened
 * anew.
 */
void onefile_recheck(struct onefile *t);
void onefile_close(struct onefile *t);
/* Only the real volume. */
void onefile_power_cut(struct onefile *t, uint64_t seed);
/* Opens the volume of t->fake with the file t->ino. */
void onefile_attach(struct onefile *t);

#ifdef ONEFILE_MINIATURE
/* The k-th call from now on that may fail does, with -EIO; 0: none. */
extern unsigned mini_fail_in;
/* Allocations come in runs of at most this many blocks, from random places; 0: contiguous. */
extern unsigned mini_fragment;
uint64_t mini_free_blocks(void);
/* blocks beyond this are hidden from the allocator; UINT64_MAX: none */
extern uint64_t mini_limit_free;
#endif

/* The formatted image with /f: shared by the makers. */
struct fake_dev *onefile_image(uint64_t size, const char *mkfs_args, const char *setup,
			       uint32_t *ret_ino);

#endif
