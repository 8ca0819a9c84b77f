/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the tests of the direct-I/O engine share: an engine over a real ext4 volume on a device in
 * memory, one file, and requests that count their answers. With threads 0 nothing runs but on the
 * test's thread (manual work queues), so every interleaving is chosen by the test.
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
	uint32_t lbs;        /* 0: 512 */
	bool relaxed, no_fua, stale;
	unsigned threads;    /* workers and syncers each; 0: manual */
	unsigned segs;       /* 0: 8 */
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
	struct ext4_inode *inode;   /* the file "f" */
	struct dio_file *file;
};

struct test_request {
	struct dio_req req;
	ssize_t res;
	unsigned done;        /* atomic */
};

struct test_sync {
	struct dio_sync sync;
	int err;
	unsigned done;        /* atomic */
};

/* For each case: formats once what engine_new copies. */
void engine_use_template(TCase *t);
struct engine *engine_new(const struct engine_options *opt);       /* opt NULL: all defaults */
/* The same over a device that holds a volume already; takes fake. */
struct engine *engine_on(struct fake_dev *fake, const struct engine_options *opt);
/* A power cut now, and a new environment on what is left. e is still to be closed. */
struct engine *engine_cut(struct engine *e, enum fake_cut mode, uint64_t seed);
/* Closes everything; nothing outside the contract was sent, and e2fsck finds nothing. */
void engine_close(struct engine *e);
void engine_close_nocheck(struct engine *e);

/* "f", "g" or "h": empty at first. A reference. */
struct ext4_inode *engine_file(struct engine *e, const char *name);
/* As ops does it: gate, drain, lock. */
void engine_truncate(struct engine *e, struct ext4_inode *inode, uint64_t size);
void engine_fallocate(struct engine *e, int mode, uint64_t off, uint64_t len);

void *buffer_new(size_t len);
void fill_pattern(void *buf, unsigned seed, uint64_t pos, size_t len); /* never 0 and never 0xa5 */
bool all_bytes(const void *buf, int byte, size_t len);
bool no_byte(const void *buf, int byte, size_t len);

void engine_submit(struct engine *e, struct dio_file *file, struct test_request *req,
		   unsigned flags, uint64_t pos, void *buf, uint32_t len);
bool engine_pump(struct engine *e); /* manual: everything queued; false if there was nothing */
ssize_t engine_wait(struct engine *e, struct test_request *req);
bool request_is_done(struct test_request *req);
/* Submit and wait. */
ssize_t engine_io(struct engine *e, unsigned flags, uint64_t pos, void *buf, uint32_t len);
/* fill_pattern(seed) */
void write_pattern(struct engine *e, unsigned flags, uint64_t pos, unsigned seed, uint32_t len);
void expect_pattern(struct engine *e, uint64_t pos, unsigned seed,
		    uint32_t len); /* reads and compares */
void sync_start(struct engine *e, struct test_sync *test_sync, struct ext4_inode *inode,
		struct dio_file *file, bool datasync);
/* inode NULL: syncfs */
int engine_fsync(struct engine *e, struct ext4_inode *inode, bool datasync);
/* fdatasync of who has file */
int engine_fsync_file(struct engine *e, struct dio_file *file);

/*
 * Blocks 0..n-1 of the file written with fill_pattern(1) as n extents of one block. The volume is
 * synced.
 */
void make_extents(struct engine *e, unsigned n);
uint64_t device_offset(struct engine *e, uint64_t pos); /* of a mapped byte */
uint64_t counter(enum fdio_counter c);
void wait_counter(enum fdio_counter c, uint64_t at_least);

#endif
