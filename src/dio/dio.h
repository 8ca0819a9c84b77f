/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The direct-I/O engine. A request is one read or write of a file: split by extent, sent to the
 * device, answered exactly once. Simple requests (one mapped, written extent, one device request)
 * run from submission to answer on the loop thread with nothing allocated and nothing shared;
 * several extents add a count; appends that need not wait stay on the loop thread as well
 * (append.c); everything else that allocates, converts, extends, or touches part of a sector runs
 * on a worker.
 *
 * Errors are -errno. Where no thread is named, any thread may call, and the call does not block.
 */
#ifndef FDIO_DIO_DIO_H
#define FDIO_DIO_DIO_H

#include "base/nowait.h"
#include "base/work.h"
#include "dev/dev.h"
#include "ext4/ext4.h"

struct dio;       /* the engine: one a mount */
struct dio_req;

enum {
	DIO_WRITE = 1 << 0,
	/* O_DIRECT by the application: strict alignment, page-cache invalidation after writes */
	DIO_DIRECT = 1 << 1,
	DIO_DSYNC = 1 << 2,    /* data, and what is needed to read it back, durable before done */
	DIO_SYNC = 1 << 3,     /* and all other metadata (implies DSYNC) */
	DIO_KILLPRIV = 1 << 4, /* clear suid/sgid/capabilities in the same step */
	DIO_ROOT = 1 << 5,     /* may use the reserved blocks */
	DIO_NOATIME = 1 << 6,  /* a read that leaves no access time (O_NOATIME) */
	DIO_KILLCAPS = 1 << 7, /* clear capabilities only */
	DIO_WRITEBACK = 1 << 8, /* pages of the kernel's cache */
};

/* What an open file keeps, with the reserved segment that guarantees progress of its requests. */
struct dio_file;

struct dio_config {
	struct dev *dev;
	struct ext4_vol *vol;
	/* NULL in tests: requests are submitted from the test's thread as if it were loop 0. */
	struct loop_set *loops;
	unsigned nr_cpus;          /* loops, >= 1 */
	struct work_queue *workers;        /* slow paths */
	struct work_queue *syncers;        /* the sync queue: commit and flush for whole batches */
	/* extra segments for multi-extent requests, at least 1; preallocated */
	unsigned segs_per_loop;
	bool strict;               /* dio=strict: EINVAL for unaligned DIO_DIRECT */
	/*
	 * EXT4_KILL_SGID if who writes is not of the file's group, else 0: asked on a worker for
	 * requests with DIO_KILLPRIV on files that may have privileges. NULL: 0.
	 */
	unsigned (*kill_sgid)(const struct dio_req *r);
	/*
	 * Invalidate the kernel's page cache of a byte range, then call done(done_work) on any
	 * thread. Workers, never blocks. NULL: no page cache above.
	 */
	void (*inval)(void *arg, struct ext4_inode *i, uint64_t off, uint64_t len,
		      struct work *done_work, void (*done)(struct work *));
	/*
	 * Have the kernel write back and forget its pages of a byte range, then call
	 * done(done_work), at the latest after ms milliseconds (late). Any thread, never blocks.
	 * NULL: no page cache above.
	 */
	void (*launder)(void *arg, struct ext4_inode *i, uint64_t off, uint64_t len, unsigned ms,
			struct work *done_work, void (*done)(struct work *, bool late));
	void *inval_arg;      /* of both */
};

/* For inval: the request that done_work belongs to. */
struct dio_req *dio_inval_req(struct work *done_work);
/* For inval: done will be called before the pages are gone. Before done. */
void dio_inval_late(struct work *done_work);

/*
 * -EINVAL for what cannot work, -ENOMEM. config is copied; what it points to outlives the engine.
 */
int dio_new(const struct dio_config *config, struct dio **ret) FDIO_BLOCKS;
/* Waits for everything in flight. */
void dio_drain(struct dio *dio) FDIO_BLOCKS;
/* Nothing is in flight and no file is open. NULL is allowed. */
void dio_free(struct dio *dio) FDIO_BLOCKS;

/*
 * Open and close of a file for I/O: prepares the inode (per-CPU counts) and the reserve. -ENOMEM.
 * The file takes a reference of inode of its own. Workers; opening, and closing what does not wait,
 * also on loop threads in the mode of nowait.h.
 */
int dio_file_open(struct dio *dio, struct ext4_inode *inode, struct dio_file **ret) FDIO_MAY_WAIT;
bool dio_file_close_waits(const struct dio_file *file); /* any thread */
void dio_file_close(struct dio_file *file) FDIO_MAY_WAIT; /* no request of file is in flight */
struct ext4_inode *dio_file_inode(struct dio_file *file);

/* The file is open for reading and writing: stores through mappings may come, untold. */
void dio_file_may_map(struct dio_file *file);

/*
 * Pages that the kernel may hold with stores that it has not told of (pagecache.c). Who takes them
 * then has the bytes [off, end) written back and forgotten, with no lock held that a request may
 * wait for; dio_cached_done tells how that ended. TAIL: the page of the end of the file, which was
 * at size before the file grew; taken once that is done and before it is answered.
 */
enum dio_cached_what { DIO_CACHED_TAIL, DIO_CACHED_HOLES, DIO_CACHED_ALL };
struct dio_cached {
	enum dio_cached_what what;
	uint64_t off, end;
};
bool dio_cached_maybe(struct ext4_inode *inode, enum dio_cached_what what, uint64_t size);
bool dio_cached_take(struct ext4_inode *inode, enum dio_cached_what what, uint64_t size,
		     struct dio_cached *ret);
void dio_cached_done(struct ext4_inode *inode, const struct dio_cached *cached, bool late);
/*
 * Truncate is about to change the size: what pages hold behind the old end is not written back any
 * more. True if that makes a difference: then dio_mask_undo must follow if truncate fails and
 * leaves the old size. The inode is locked.
 */
bool dio_mask_set(struct ext4_inode *inode, uint64_t old, uint64_t size);
void dio_mask_undo(struct ext4_inode *inode, uint64_t old);

/*
 * Bytes that the engine needs in a request and in a sync for itself; what is there is in types.h.
 */
#define DIO_REQ_OWN 432
#define DIO_SYNC_OWN 24

/*
 * One request, embedded by its owner (the FUSE slot). The first segment is in it. All fields but
 * own are the caller's and stay untouched (but for len of a buffered write that reaches over the
 * largest size a file can have, and of pages written back with what is no part of the file at their
 * end: it is cut there); done runs exactly once, on any thread, and may free or reuse the request.
 * result: bytes (writes: all of len; reads: less only at end of file) or -errno.
 */
struct dio_req {
	struct dio_file *file;
	uint64_t pos;              /* bytes */
	uint32_t len;              /* bytes */
	unsigned flags;            /* DIO_ */
	/* at least len bytes, page-aligned when the direct way is to be taken */
	void *buf;
	int buf_index;             /* registered buffer that holds buf, or -1 */
	/*
	 * Writes: bytes that the engine may use of buf, and change behind len; 0: no more than len.
	 */
	uint32_t buf_cap;
	void (*done)(struct dio_req *r, ssize_t result);
	_Alignas(8) unsigned char own[DIO_REQ_OWN]; /* the engine's */
};

/*
 * On a loop thread (or the test's). Never blocks.
 *
 * What done and inval do must not wait for the two queues of the configuration. Requests of one
 * inode may be submitted on several loops, and one thread at a time submits for a loop. On the
 * product's loops a request completes on the loop that submitted it; the engine also allows
 * completions from any other thread (tests): counts are atomic.
 */
void dio_submit(struct dio *dio, struct dio_req *req);

/*
 * The gate of an inode: closed, no new request goes the direct way (they go to workers, which take
 * the inode lock), and those in flight have ended. truncate, punch, fallocate, O_TRUNC and
 * sub-sector writes close it. Workers: blocks; not with the inode lock held; nests by counting.
 * -ENOMEM.
 */
enum dio_gate_kind { DIO_GATE_WRITES = 1, DIO_GATE_ALL = 2 };
int dio_gate_close(struct dio *dio, struct ext4_inode *inode, enum dio_gate_kind kind) FDIO_BLOCKS;
void dio_gate_open(struct dio *dio, struct ext4_inode *inode, enum dio_gate_kind kind);

/*
 * fsync and fdatasync: done once everything written to i before the call is durable (whole batches
 * share one commit or one flush). i NULL: the whole volume (syncfs). req is embedded by the caller.
 * Any thread.
 */
struct dio_sync {
	struct ext4_inode *inode;
	/* Of inode, or NULL: an error is told once for each file, and once for those without. */
	struct dio_file *file;
	bool datasync;
	void (*done)(struct dio_sync *s, int err);
	_Alignas(8) unsigned char own[DIO_SYNC_OWN]; /* the engine's */
};
void dio_fsync(struct dio *dio, struct dio_sync *sync); /* done may run inside */

#endif
