/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The engine layer of the kit: a direct-I/O engine over a real ext4 volume on the fake device, one
 * file, and requests that count their answers. With threads = 0 the work queues are manual: nothing
 * runs but on the test's thread, so the test chooses every interleaving. All functions fail the
 * test on errors.
 */
#ifndef FDIO_KIT_ENGINE_H
#define FDIO_KIT_ENGINE_H

#include "base/counters.h"
#include "dio/engine.h"
#include "kit/volume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 4096u
#define ENGINE_IMAGE_SIZE (16u << 20)

struct engine_options {
	uint32_t sector_bytes; /* of the device; 0: 512 */
	bool relaxed;        /* takes requests that are not aligned */
	bool no_fua;         /* a device without FUA */
	bool stale;          /* free blocks hold 0xa5, so that a test sees stale data */
	unsigned threads;    /* workers, and syncers; 0: manual */
	unsigned segs;       /* segments of the engine's pool; 0: 8 */
	uint32_t page_size;  /* of the kernel's page cache; 0: 4096 */
	void (*inval)(void *arg, struct ext4_inode *i, uint64_t off, uint64_t len, struct work *w,
		      void (*done)(struct work *));
	void *inval_arg;
};

struct engine {
	struct engine_options opt;
	struct fake_dev *fake;
	struct ext4_vol *vol;
	struct work_queue *workers, *syncers;
	struct dio *dio;
	struct ext4_inode *inode;   /* the file "f", and file, which is open on it */
	struct dio_file *file;
};

/* A request and its answer; done counts answers. */
struct test_request {
	struct dio_req req;
	ssize_t res;
	unsigned done;        /* atomic */
};

/* As test_request, for fsync. */
struct test_sync {
	struct dio_sync sync;
	int err;
	unsigned done;        /* atomic */
};

/* Formats once, for all tests of the case, the volume that engine_new copies. */
void engine_use_template(TCase *t);
struct engine *engine_new(const struct engine_options *opt);       /* opt NULL: all defaults */
/* As engine_new over a device that holds such a volume already, whose ownership it takes. */
struct engine *engine_on(struct fake_dev *fake, const struct engine_options *opt);
/* A new engine whose file holds n >= 2 blocks of pattern 1 and has an append window behind them. */
struct engine *engine_with_window(const struct engine_options *opt, unsigned n);
/* An engine over what a power cut now leaves. e stays open. */
struct engine *engine_cut(struct engine *e, enum fake_cut mode, uint64_t seed);
/*
 * Closes everything. All requests to the device were within its contract, and e2fsck finds nothing.
 */
void engine_close(struct engine *e);
void engine_close_nocheck(struct engine *e); /* without these checks */

/* A reference on the file "f", "g" or "h"; all are empty at first. */
struct ext4_inode *engine_file(struct engine *e, const char *name);
/* As the room ops does it: the gate closed, the inode locked. */
void engine_truncate(struct engine *e, struct ext4_inode *inode, uint64_t size);
void engine_fallocate(struct engine *e, int mode, uint64_t off, uint64_t len);

void *buffer_new(size_t len);
/* Bytes that depend on seed and position, never 0 and never 0xa5. */
void fill_pattern(void *buf, unsigned seed, uint64_t pos, size_t len);
bool all_bytes(const void *buf, int byte, size_t len);
bool no_byte(const void *buf, int byte, size_t len);

void engine_submit(struct engine *e, struct dio_file *file, struct test_request *req,
		   unsigned flags, uint64_t pos, void *buf, uint32_t len);
/* As engine_submit, with buf_cap bytes at buf of which those behind the data may be overwritten. */
void engine_submit_with_room(struct engine *e, struct dio_file *file, struct test_request *req,
			     unsigned flags, uint64_t pos, void *buf, uint32_t len,
			     uint32_t buf_cap);
/* Manual: runs all queued work; false if there was none. */
bool engine_pump(struct engine *e);
ssize_t engine_wait(struct engine *e, struct test_request *req);
/* A direct write of one block at pos; the test fails if the answer is not BLOCK. */
void engine_write_block(struct engine *e, struct dio_file *file, uint64_t pos);
bool request_is_done(struct test_request *req);
/* Submits and waits. */
ssize_t engine_io(struct engine *e, unsigned flags, uint64_t pos, void *buf, uint32_t len);
/* Writes fill_pattern(seed); expect_pattern reads and compares it. */
void write_pattern(struct engine *e, unsigned flags, uint64_t pos, unsigned seed, uint32_t len);
void expect_pattern(struct engine *e, uint64_t pos, unsigned seed,
		    uint32_t len);
void sync_start(struct engine *e, struct test_sync *test_sync, struct ext4_inode *inode,
		struct dio_file *file, bool datasync);
/* inode NULL: syncfs */
int engine_fsync(struct engine *e, struct ext4_inode *inode, bool datasync);
/* fdatasync through this open file */
int engine_fsync_file(struct engine *e, struct dio_file *file);

/* Writes blocks 0 to n - 1 with fill_pattern(1) as n extents of one block; syncs the volume. */
void make_extents(struct engine *e, unsigned n);
uint64_t device_offset(struct engine *e, uint64_t pos); /* of a mapped byte */
uint64_t counter(enum fdio_counter c);
void wait_counter(enum fdio_counter c, uint64_t at_least);

#endif
