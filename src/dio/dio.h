/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The direct-I/O engine. A request is one read or write of a file: split by extent, sent to the device,
 * answered exactly once. Simple requests (one mapped, written extent, one device request) run from
 * submission to answer on the loop thread with nothing allocated and nothing shared; several extents add a
 * count; everything that allocates, converts, extends, or touches part of a sector runs on a worker.
 */
#ifndef FDIO_DIO_DIO_H
#define FDIO_DIO_DIO_H

#include "base/work.h"
#include "dev/dev.h"
#include "ext4/ext4.h"

struct dio;       /* the engine: one a mount */
struct dio_req;

enum {
	DIO_WRITE = 1 << 0,
	DIO_DIRECT = 1 << 1,   /* O_DIRECT by the application: strict alignment, page-cache invalidation after writes */
	DIO_DSYNC = 1 << 2,    /* data, and what is needed to read it back, durable before done */
	DIO_SYNC = 1 << 3,     /* and all other metadata (implies DSYNC) */
	DIO_KILLPRIV = 1 << 4, /* clear suid/sgid/capabilities in the same step */
	DIO_ROOT = 1 << 5,     /* may use the reserved blocks */
	DIO_NOATIME = 1 << 6,  /* a read that leaves no access time (O_NOATIME) */
	DIO_KILLCAPS = 1 << 7, /* clear capabilities only */
	DIO_WRITEBACK = 1 << 8, /* pages of the kernel's cache */
};

/* What an open file keeps: the reserved segment that guarantees progress (seed: one cached bio a dio, 2015). */
struct dio_file;

struct dio_config {
	struct dev *dev;
	struct x4_vol *vol;
	struct loop_set *loops;    /* NULL in tests: requests are submitted from the test's thread as if it were loop 0 */
	unsigned nr_cpus;          /* loops, >= 1 */
	struct wq *workers;        /* slow paths */
	struct wq *syncers;        /* the sync queue: commit and flush for whole batches */
	unsigned segs_per_loop;    /* extra segments for multi-extent requests, at least 1; preallocated */
	bool strict;               /* dio=strict: EINVAL for unaligned DIO_DIRECT */
	/* X4_KILL_SGID if who writes is not of the file's group, else 0: asked on a worker for requests with DIO_KILLPRIV on files
	 * that may have privileges. NULL: 0. */
	unsigned (*kill_sgid)(const struct dio_req *r);
	/* Invalidate the kernel's page cache of a byte range, then call done(arg2) on any thread. NULL: no page cache above. */
	void (*inval)(void *arg, struct x4_inode *i, uint64_t off, uint64_t len, struct work *done_work, void (*done)(struct work *));
	/*
	 * Have the kernel write back and forget its pages of a byte range, then call done, at the latest after so many
	 * milliseconds (late). Any thread, never blocks. NULL: no page cache above.
	 */
	void (*launder)(void *arg, struct x4_inode *i, uint64_t off, uint64_t len, unsigned ms, struct work *done_work,
			void (*done)(struct work *, bool late));
	void *inval_arg;      /* of both */
};

/* For inval: done will be called before the pages are gone. Before done. */
void dio_inval_late(struct work *done_work);

int dio_new(const struct dio_config *cfg, struct dio **ret);
/* Waits for everything in flight. */
void dio_drain(struct dio *d);
void dio_free(struct dio *d);

/* Open and close of a file for I/O: prepares the inode (per-CPU counts) and the reserve. Workers; opening, and closing what
 * does not wait, also on loop threads in the mode of nowait.h. */
int dio_file_open(struct dio *d, struct x4_inode *i, struct dio_file **ret);
bool dio_file_close_waits(const struct dio_file *f); /* any thread */
void dio_file_close(struct dio_file *f); /* no request of f is in flight */
struct x4_inode *dio_file_inode(struct dio_file *f);

/* The file is open for reading and writing: stores through mappings may come, untold. */
void dio_file_may_map(struct dio_file *f);
/*
 * Pages that the kernel may hold with stores that it has not told of (pagecache.c). Taken by who then has [off, end) written
 * back and forgotten, with no lock held that a request may wait for; done tells how that ended. Any thread, never block.
 * TAIL: the page of the end of the file, which was at size before the file grew; taken once that is done and before it is answered.
 */
enum dio_cached_what { DIO_CACHED_TAIL, DIO_CACHED_HOLES, DIO_CACHED_ALL };
struct dio_cached {
	enum dio_cached_what what;
	uint64_t off, end;
};
bool dio_cached_maybe(struct x4_inode *i, enum dio_cached_what what, uint64_t size);
bool dio_cached_take(struct x4_inode *i, enum dio_cached_what what, uint64_t size, struct dio_cached *ret);
void dio_cached_done(struct x4_inode *i, const struct dio_cached *c, bool late);
/*
 * Truncate is about to change the size: what pages hold behind the old end is not written back any more. True if that
 * makes a difference: it failed, and the old size is left: undo. The inode is locked.
 */
bool dio_mask_set(struct x4_inode *i, uint64_t old, uint64_t size);
void dio_mask_undo(struct x4_inode *i, uint64_t old);

/*
 * One request, embedded by its owner (the FUSE slot). The first segment is in it. Fields above the line are the caller's
 * and stay untouched (but for len of a buffered write that reaches over the largest size a file can have, and of pages written back
 * with what is no part of the file at their end: it is cut there); done
 * runs exactly once, on any thread, and may free or reuse the request. result: bytes (writes: all of len; reads: less only at
 * end of file) or -errno.
 */
struct dio_req {
	struct dio_file *file;
	uint64_t pos;
	uint32_t len;
	unsigned flags;
	void *buf;                 /* at least len bytes, page-aligned when the fast path is to be taken */
	int buf_index;             /* registered buffer that holds buf, or -1 */
	uint32_t buf_cap;          /* writes: bytes that the engine may use of buf, and change behind len; 0: no more than len */
	void (*done)(struct dio_req *r, ssize_t result);
	/* ---- engine's (types.h documents them) ---- */
	struct dev_io io;          /* first segment */
	struct work work;
	struct list link, app_link;
	struct dio *dio;
	struct loop *loop;
	uint32_t state;            /* DIO_R_ bits */
	uint32_t refs;             /* of several pieces: atomic, those in flight and one for the splitter */
	int error;                 /* the first, -errno; atomic while pieces are in flight */
	uint32_t nr_done;          /* bytes split so far */
	uint32_t direct_len;       /* prefix handled by segments; the remainder takes the slow path */
	uint32_t want;             /* result when all goes well: len, for reads clipped to the size */
	uint32_t span;             /* want rounded up to device blocks */
	uint32_t cpu;              /* index of the loop that submitted it */
	uint32_t retries;          /* of the first segment */
	uint32_t grow_head;        /* append_small.c: bytes that go into a block that is there, at grow_off of the device */
	uint64_t grow_off;
	struct x4_resv resv;       /* and blocks for the others */
	uint64_t cache_seq;        /* of the file when its invalidation began */
	uint64_t gap;              /* a write that began behind it: where the file ended, if inside a page; else 0 */
	jnl_tid tid;
};

/* On a loop thread (or the test's). Never blocks. */
void dio_submit(struct dio *d, struct dio_req *r);

/*
 * The two queues of the configuration must not be waited for by what done and inval do. Requests of one inode may be
 * submitted on several loops, and one thread at a time submits for a loop. On the product's loops a request completes on the
 * loop that submitted it; the engine also allows completions from any other thread (tests): counts are atomic.
 */

/*
 * The gate of an inode: closed, no new direct request starts on the fast path (they go to workers, which take the inode
 * lock), and those in flight have ended. truncate, punch, fallocate, O_TRUNC, eviction and sub-sector writes close it. Blocks;
 * not with the inode lock held; nests by counting.
 */
enum dio_gate_kind { DIO_GATE_WRITES = 1, DIO_GATE_ALL = 2 };
int dio_gate_close(struct dio *d, struct x4_inode *i, enum dio_gate_kind kind);
void dio_gate_open(struct dio *d, struct x4_inode *i, enum dio_gate_kind kind);

/*
 * fsync and fdatasync: done once everything written to i before the call is durable (whole batches share one commit or one
 * flush). i NULL: the whole volume (syncfs). req is embedded by the caller. Any thread.
 */
struct dio_sync {
	struct list link;
	struct x4_inode *inode;
	struct dio_file *file; /* of inode, or NULL: an error is told once for each file, and once for those without */
	bool datasync;
	void (*done)(struct dio_sync *s, int err);
	/* engine's */
	bool need_commit, need_flush;
	int err;
	jnl_tid tid;
};
void dio_fsync(struct dio *d, struct dio_sync *s); /* done may run inside */

#endif
