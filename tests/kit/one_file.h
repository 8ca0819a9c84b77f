/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One file on a volume, for the tests of the extents part. Two makers: kit/one_file_miniature.c replaces the journal, the allocator
 * and the inode cache by a few arrays that check every credit and can fail on command; kit/one_file_volume.c opens a volume.
 */
#ifndef FDIO_TESTS_X4_TESTVOL_H
#define FDIO_TESTS_X4_TESTVOL_H

#include "ext4/data/extent.h"
#include "kit/device.h"
#include "kit/runner.h"

struct testvol {
	struct x4_vol *v;
	struct x4_inode *i;      /* the file /f, empty at first */
	struct fake_dev *fake;
	struct dev *dev;
	uint32_t ino;
	void *priv;
};

/* mkfs_args for mke2fs; setup: debugfs commands that make /f, NULL: an empty regular file. */
void testvol_open(struct testvol *t, uint64_t size, const char *mkfs_args, const char *setup);
/* Everything to the device, e2fsck -fn (fails the test when it finds anything), and the file opened anew. */
void testvol_recheck(struct testvol *t);
void testvol_close(struct testvol *t);
/* Only the real volume. */
void testvol_power_cut(struct testvol *t, uint64_t seed);
/* Opens the volume of t->fake with the file t->ino. */
void testvol_attach(struct testvol *t);

#ifdef TESTVOL_MINI
/* The k-th call from now on that may fail does, with -EIO; 0: none. */
extern unsigned mini_fail_in;
/* Allocations come in runs of at most this many blocks, from random places; 0: contiguous. */
extern unsigned mini_fragment;
uint64_t mini_free_blocks(void);
extern uint64_t mini_limit_free; /* blocks beyond this are hidden from the allocator; UINT64_MAX: none */
#endif

/* The formatted image with /f: shared by the makers. */
struct fake_dev *testvol_image(uint64_t size, const char *mkfs_args, const char *setup, uint32_t *ret_ino);

#endif
