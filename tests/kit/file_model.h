/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A file as it should be, byte for byte, beside the file on the test volume: operations are done to
 * both, then compared. The state of each block is compared with the map, the map with one loaded
 * anew from the tree on the device.
 */
#ifndef FDIO_KIT_FILE_MODEL_H
#define FDIO_KIT_FILE_MODEL_H

#include "kit/one_file.h"

struct model {
	struct onefile *t;
	/* content; zero in holes and unwritten blocks and behind the end */
	uint8_t *byte;
	uint8_t *mapped;         /* by block: 0 hole, 1 written, 2 unwritten */
	uint32_t blocks;         /* the space that operations stay in */
	uint64_t size, seed;
	unsigned stamp;          /* what the next write writes */
};

void model_init(struct model *model, struct onefile *t, uint32_t blocks, uint64_t seed);
void model_fini(struct model *model);
uint64_t model_random(struct model *model, uint64_t below);
/* Each returns what the call on the volume returned; the model follows only when that was 0. */
int model_write(struct model *model, uint64_t off, uint64_t len);
int model_truncate(struct model *model, uint64_t size);
int model_fallocate(struct model *model, int mode, uint64_t off, uint64_t len);
int model_random_op(struct model *model);
void model_compare(struct model *model);
/* Loads the map again from the tree and requires the same runs. */
void model_compare_reloaded(struct model *model);
/* Runs of the file's map, contiguous ones joined; malloc'd. */
struct ext4_extent *model_runs(struct ext4_inode *inode, unsigned *ret_n);

#endif
