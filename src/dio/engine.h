/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of the direct-I/O engine: made at mount, drained and freed at unmount, by the thread
 * that mounts or ends the mount (src/command). All other callers need dio.h only.
 */
#ifndef FDIO_DIO_ENGINE_H
#define FDIO_DIO_ENGINE_H

#include "base/nowait.h"
#include "base/work.h"
#include "dev/dev.h"
#include "dio/dio.h"

struct dio_config {
	struct dev *dev;
	struct ext4_vol *vol;
	/* NULL in tests: the test's thread submits as if it were loop 0. */
	struct loop_set *loops;
	unsigned nr_cpus;           /* number of loops, at least 1 */
	struct work_queue *workers; /* run what loop threads cannot do */
	struct work_queue *syncers; /* commit and flush for batches of fsyncs */
	/* Segments made for each loop, at least 1, for requests over several extents. */
	unsigned segs_per_loop;
	uint32_t page_size;         /* of the kernel's page cache; 0: as on this machine */
	bool strict;                /* dio=strict: unaligned DIO_DIRECT requests get -EINVAL */
	/*
	 * Called on a worker for a DIO_KILLPRIV write to a file that may have privileges: returns
	 * EXT4_KILL_SGID if the writer is not in the file's group, else 0. NULL: 0.
	 */
	unsigned (*kill_sgid)(const struct dio_req *req);
	/*
	 * Called on a worker for a write without DIO_ROOT for which there was no space: true if the
	 * writer may use the blocks reserved for root. NULL: false.
	 */
	bool (*may_use_reserved)(const struct dio_req *req);
	/*
	 * Invalidates the kernel's pages of len bytes at off, then calls done(done_work) on any
	 * thread. Called on workers; must not block, nor wait for the two queues above. NULL: there
	 * is no page cache above.
	 */
	void (*inval)(void *arg, struct ext4_inode *inode, uint64_t off, uint64_t len,
		      struct work *done_work, void (*done)(struct work *));
	/*
	 * Has the kernel write back and forget its pages of len bytes at off, then calls
	 * done(done_work, late), after ms milliseconds at the latest: late is true if the pages are
	 * not gone by then. Called on any thread; must not block. NULL: there is no page cache
	 * above.
	 */
	void (*launder)(void *arg, struct ext4_inode *inode, uint64_t off, uint64_t len,
			unsigned ms, struct work *done_work,
			void (*done)(struct work *, bool late));
	void *inval_arg;            /* arg of inval and launder */
};

/*
 * Copies config; the objects that it points to must outlive the engine. -EINVAL for a configuration
 * that cannot work, -ENOMEM.
 */
int dio_new(const struct dio_config *config, struct dio **ret) FDIO_BLOCKS;
/* Waits until no request and no fsync is in flight. */
void dio_drain(struct dio *dio) FDIO_BLOCKS;
/* Frees the engine (or NULL): nothing is in flight, no file is open. */
void dio_free(struct dio *dio) FDIO_BLOCKS;

#endif
