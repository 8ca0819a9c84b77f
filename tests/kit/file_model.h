/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A file as it should be, byte by byte, beside the file on the test volume. Operations are done to
 * both; then contents, the state of each block, and the map with one loaded anew from the tree are
 * compared. One thread.
 */
#ifndef FDIO_KIT_FILE_MODEL_H
#define FDIO_KIT_FILE_MODEL_H

#include "kit/one_file.h"

struct model {
	struct onefile *t;
	uint8_t *byte;           /* contents; zero in holes, unwritten blocks, behind the end */
	uint8_t *mapped;         /* by block: 0 hole, 1 written, 2 unwritten */
	uint32_t blocks;         /* operations stay within so many */
	uint64_t size, seed;
	unsigned stamp;          /* the byte that the next write writes */
};

void model_init(struct model *model, struct onefile *t, uint32_t blocks, uint64_t seed);
void model_fini(struct model *model);
uint64_t model_random(struct model *model, uint64_t below);
/* Return what the call on the volume returned. The model changes only if that was 0. */
int model_write(struct model *model, uint64_t off, uint64_t len);
int model_truncate(struct model *model, uint64_t size);
int model_fallocate(struct model *model, int mode, uint64_t off, uint64_t len);
int model_random_op(struct model *model);
void model_compare(struct model *model);
/* Requires that a map loaded anew from the tree has the same runs. */
void model_compare_reloaded(struct model *model);
/* The runs of the file's map, contiguous ones joined. The caller frees it. */
struct ext4_extent *model_runs(struct ext4_inode *inode, unsigned *ret_n);

#endif
