/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Struct bodies of the direct-I/O engine and the calls between its files. Included only inside
 * src/dio.
 *
 * The files, in the order of their calls (each calls only files below its line):
 *
 *   submit.c                 checks a request and chooses its way
 *   segments.c  append.c      over several extents; which way an append goes
 *   complete.c               all pieces of the direct part are through
 *   append_small.c           a small append, from submission to the extent
 *   slow.c  slow_data.c      a worker does it, waiting for what it needs
 *   append_window.c          appends into the window, and windows opened and closed
 *   finish.c                 after a write: invalidation, durability; failures
 *   sync.c                   the sync queue
 *   request.c                the answer
 *   gate.c  range.c  pool.c  pagecache.c  piece.c  inode.c
 *                            what a request takes and looks at; they call none of the above
 *
 * engine.c (mount and unmount) and file.c (open and close) stand beside them.
 *
 * A request that is queued or submitted belongs to whoever completes it: nobody touches it after
 * handing it on. Where it is (enum dio_stage):
 *
 *   state           event                                   next            function
 *   SUBMITTED       refused, empty, at the end of the file  ENDED           dio_submit
 *   SUBMITTED       the gate was entered                    DIRECT          start_direct
 *   SUBMITTED       a small append has entered the gate     SMALL           dio_grow_start
 *   SUBMITTED       gate closed, or neither way             SLOW            dio_req_slow
 *   DIRECT          joins the appends of its inode          APPEND          dio_append_start
 *   DIRECT          no piece to send, or a remainder        SLOW            dio_direct_nothing,
 *                                                                           dio_direct_finished
 *   DIRECT          all pieces through: a write             FINISH          dio_direct_finished
 *   DIRECT          all pieces through: a read              ENDED           dio_direct_finished
 *   DIRECT          a piece failed                          FINISH          dio_req_fail
 *   APPEND          its data is through, well or not        APPEND_THROUGH  dio_append_done
 *   APPEND_THROUGH  those in front of it are through        DIRECT          dio_append_done
 *   SMALL           written, inserted                       FINISH          dio_write_finish
 *   SMALL           something would have waited             SLOW            dio_grow_start,
 *                                                                           again_slow
 *   SMALL           the device failed                       FINISH          dio_req_fail
 *   SLOW            done or failed: a write                 FINISH          slow_work
 *   SLOW            done or failed: a read                  ENDED           slow_work
 *   FINISH          invalidated and durable, or failed      ENDED           dio_req_end
 *
 * DIRECT, APPEND, APPEND_THROUGH and SMALL are counted in the gate of the inode.
 *
 * Invariants
 *   DIO-1  done runs exactly once, and the in-flight count of the gate is left before.
 *   DIO-2  the count of a request over several extents is set up before its first segment is
 *          submitted; the splitter holds one.
 *   DIO-3  no lock, gate count or range is held while done, the invalidation or the sync queue
 *          runs.
 *   DIO-4  extents and size are published after the data they cover completed (appends: in the
 *          order of the file).
 *   DIO-5  a byte is sent to the device at most once for one request (resent: what a short
 *          transfer left, an append behind one that failed, and GROW-2 in append_small.c).
 */
#ifndef FDIO_DIO_TYPES_H
#define FDIO_DIO_TYPES_H

#include "base/counters.h"
#include "base/lock.h"
#include "base/nowait.h"
#include "dio/dio.h"

/* Of one device request after EAGAIN or EINTR. */
#define DIO_RETRIES_MAX 16
/* The kernel splits a longer request into pieces that are no shorter, but for the last. */
#define DIO_SPLIT_MIN (255u * 4096u)
/* Direct writes with no other I/O between: then it pays to forget all pages of the file. */
#define DIO_INVAL_ALL_AFTER 32
/* Slow writes that can be in their data phase at once. */
#define DIO_NR_BOUNCE 32
/* Batches of the sync queue at work at once. */
#define DIO_NR_SYNC 2

/* The way that dio_submit chooses; submit.c and append.c say when. */
enum dio_way { DIO_WAY_DIRECT, DIO_WAY_WINDOW, DIO_WAY_SMALL, DIO_WAY_SLOW };

/*
 * Where a request is; the table is above. Stored by its owner; APPEND and what follows it under
 * app_lock.
 */
enum dio_stage {
	DIO_AT_SUBMITTED,
	DIO_AT_DIRECT,
	DIO_AT_APPEND,
	DIO_AT_APPEND_THROUGH,
	DIO_AT_SMALL,
	DIO_AT_SLOW,
	DIO_AT_FINISH,
	DIO_AT_ENDED,
};

/* dio_own.bits */
enum {
	/* every piece is written with FUA: durable without the sync queue */
	DIO_R_FUA = 1 << 0,
	DIO_R_NEED_COMMIT = 1 << 1, /* of the batch of the sync queue that it is in */
	DIO_R_NEED_FLUSH = 1 << 2,
	/* the whole file is being invalidated; cache_seq is that of its beginning */
	DIO_R_INVAL_ALL = 1 << 3,
};

struct dio_segment;

/* The engine's own part of a request: dio_req.own. */
struct dio_own {
	struct dev_io io;          /* the first segment */
	struct work work;          /* of the queue of workers, and of inval and launder */
	struct list link;          /* in dio_cpu.waiting or the sync queue */
	struct list app_link;      /* in dio_inode.app_reqs */
	struct dio *dio;
	enum dio_stage stage;
	uint32_t bits;             /* DIO_R_ */
	/* over several extents: atomic, pieces in flight and one for the splitter */
	uint32_t refs;
	int error;                 /* the first, -errno; atomic while pieces are in flight */
	uint32_t nr_done;          /* bytes split so far */
	/* prefix handled by segments; the remainder takes the slow path */
	uint32_t direct_len;
	/* result when all goes well: len, for reads clipped to the size */
	uint32_t want;
	uint32_t span;             /* want rounded up to device blocks; small appends: to blocks */
	uint32_t cpu;              /* index of the loop that submitted it */
	uint32_t retries;          /* of the first segment */
	/*
	 * A small append: bytes that go into a block that is there, at grow_off of the device;
	 * blocks for the others.
	 */
	uint32_t grow_head;
	uint64_t grow_off;
	struct ext4_reservation resv;
	uint64_t cache_seq;        /* of the file when its invalidation began */
	/* a write that began behind it: where the file ended, if inside a page; else 0 */
	uint64_t gap;
	void (*go_on)(struct dio_req *r, struct dio_segment *seg); /* while in dio_cpu.waiting */
};

/* Requests are what callers see, and dio_own is what lists, queues and the device hand back. */
static inline struct dio_own *dio_own(const struct dio_req *req)
{
	return (struct dio_own *)(uintptr_t)req->own;
}
static inline struct dio_req *dio_req_of(struct dio_own *o)
{
	return container_of((void *)o, struct dio_req, own);
}
static inline struct dio_req *dio_req_of_work(struct work *work)
{
	return dio_req_of(container_of(work, struct dio_own, work));
}
static inline struct dio_req *dio_req_of_io(struct dev_io *io)
{
	return dio_req_of(container_of(io, struct dio_own, io));
}

/* The same of a sync: dio_sync.own. */
struct dio_sync_own {
	struct list link;
	bool need_commit, need_flush;
	int err;
};
static inline struct dio_sync_own *dio_sync_own(const struct dio_sync *sync)
{
	return (struct dio_sync_own *)(uintptr_t)sync->own;
}
static inline struct dio_sync *dio_sync_of(struct dio_sync_own *o)
{
	return container_of((void *)o, struct dio_sync, own);
}

/*
 * A segment of a request over several extents. Owned by its pool or file, in use between
 * dio_segment_take and dio_segment_put.
 */
struct dio_segment {
	struct dev_io io;
	struct dio_req *req;
	struct list link;
	uint32_t retries;
	bool is_reserve;
	struct dio_file *file; /* of a reserve */
	struct dio_cpu *home;  /* of the others */
};

/*
 * What one loop has for itself. lock is only contended when completions come from foreign threads.
 */
struct dio_cpu {
	uint32_t inflight;      /* atomic: requests between submission and the return of done */
	struct fdio_mutex lock; /* guards the rest */
	struct list free;       /* segments */
	struct list waiting;    /* requests that need a segment, oldest first */
	bool resuming;          /* somebody is giving segments to waiting requests */
} fdio_cacheline_aligned;

struct dio_bounce {
	struct list link;
	uint8_t *buf[2];        /* a file system block each: head and tail of a write */
};

enum dio_sync_state { DIO_SYNC_IDLE, DIO_SYNC_QUEUED, DIO_SYNC_RUNNING };
struct dio_syncer {
	struct work work;
	struct dio *dio;
	enum dio_sync_state state;
};

struct dio {
	struct dio_config config;
	unsigned block_bits;
	uint32_t block_size, sector_bytes, max_io, mem_align;
	uint64_t page_size;     /* of the kernel's page cache */
	bool fua_ok;            /* FUA is no more work than a write and a flush */
	bool fua_multi;         /* also in several pieces */
	struct dio_cpu *cpus;
	struct dio_segment *segments;

	struct fdio_mutex gate_lock; /* for gate_cond only */
	pthread_cond_t gate_cond;

	struct fdio_mutex bounce_lock; /* guards bounce_free */
	pthread_cond_t bounce_cond;
	struct list bounce_free;
	struct dio_bounce bounce[DIO_NR_BOUNCE];
	uint8_t *bounce_mem;

	/*
	 * Sync queue. epoch counts batches: a write that completes notes the current one in its
	 * inode; a batch that flushes makes everything noted up to its own epoch durable.
	 */
	/* guards the lists, the states and the stores to durable_epoch */
	struct fdio_mutex sync_lock;
	struct list sync_reqs, sync_calls;
	struct dio_syncer syncer[DIO_NR_SYNC];
	uint64_t epoch, durable_epoch; /* atomic */

	struct fdio_mutex inodes_lock; /* guards the list, which is for flushes that fail: sync.c */
	struct list inodes;            /* dio_inode.link */
	/* atomic: flushes that failed, and up to where syncfs was told */
	uint32_t errors, errs_seen;
};

/* In-flight counts of one CPU. */
struct dio_count { uint32_t n[2]; } fdio_cacheline_aligned;
enum { DIO_COUNT_READ = 0, DIO_COUNT_WRITE = 1 };

/* What dio_inode.gate says; the table is in gate.c. */
enum dio_gate_state { DIO_GATE_OPEN, DIO_GATE_NO_WRITES, DIO_GATE_SHUT };
#define DIO_GATE_ALL_ONE 1u
#define DIO_GATE_ALL_MASK 0xffffu
#define DIO_GATE_WRITES_ONE 0x10000u

/* What the engine keeps for an inode: ext4_inode_upper. Lives as long as the inode is in memory. */
struct dio_inode {
	struct dio *dio;
	/* atomic: closers of all in the low half, of writes in the high half */
	uint32_t gate;
	uint32_t gate_waiters;  /* atomic */
	/*
	 * Atomic. Requests that go through the page cache, and how many of them had come when an
	 * invalidation of the whole file began that is over: equal, and the kernel holds no pages
	 * of it. Direct writes in a row with the same cache_seq.
	 */
	uint64_t cache_seq, cache_clean, cache_run_seq;
	uint32_t cache_run;
	/*
	 * Atomic, only grow: flushes that failed while it had unflushed writes or writes in flight;
	 * those that anybody was told of; and up to where callers without a file were told.
	 */
	uint32_t errors, errs_told, errs_seen;
	uint32_t slow_writes;   /* atomic: at work now; they are not counted below */
	struct list link;       /* d->inodes */
	/* pagecache.c. Atomic; mask_from and the stores to mask_to are guarded by app_lock. */
	/* 1 + number of the page that held the end of the file when it was read; 0: none */
	uint64_t tail_page;
	uint64_t hole_lo, hole_hi; /* holes that were read lie in it; UINT64_MAX, 0: none */
	/* bytes that are zeroed in pages written back; mask_to 0: none */
	uint64_t mask_from, mask_to;
	uint32_t nr_mappers;    /* files open for reading and writing */
	uint32_t laundering;    /* DIO_CACHED_HOLES taken and not done */
	bool has_pages;         /* the page cache was used */
	/* atomic, only grows: batch that makes the last completed write durable; 0 none */
	uint64_t dirty_epoch;
	struct fdio_mutex app_lock; /* guards the three below */
	struct list app_reqs;   /* appends in flight, ascending and without gaps */
	uint64_t app_end;       /* where the last of them ends */
	bool app_broken;        /* one of them failed */
	bool growing;           /* atomic: a request of append_small.c is under way */
	uint32_t nr_files;      /* atomic: dio_file_open without dio_file_close */
	/* a loop thread has left the window to a worker; queued with a reference of stop_inode */
	struct work stop_work;
	struct ext4_inode *stop_inode; /* atomic; NULL: not queued */
	unsigned app_streak;    /* inode lock exclusive: slow appends in a row */
	uint32_t app_window;    /* the same: bytes of the last window */
	struct fdio_mutex range_lock;
	pthread_cond_t range_cond;
	struct list ranges;     /* in order of arrival */
	struct dio_count counts[] ;
};

struct dio_file {
	struct dio *dio;
	struct ext4_inode *inode;
	struct dio_inode *dinode;
	struct dio_segment reserve;
	uint32_t reserve_busy;  /* atomic */
	uint32_t errs_seen;     /* atomic: of the inode's errs, up to where this file was told */
	bool may_map;
};

/* A block range of a writer; on the stack of its worker. */
struct dio_range {
	struct list link;
	uint64_t first, last;
};

/* A run of bytes in one state. */
struct dio_piece {
	uint64_t dev_off;
	uint32_t len;
	enum ext4_extent_state state;
};

/* ---- request.c ---- */
/* Calls done. error and want are set. Any thread; holds nothing. */
void dio_req_end(struct dio_req *req);

/* ---- inode.c ---- */
/* Any thread. -ENOMEM. */
int dio_inode_attach(struct dio *dio, struct ext4_inode *inode, struct dio_inode **ret);

/* ---- piece.c: any thread, never blocks ---- */
/*
 * The run of bytes at pos, at most max (and one device request if written). 0, -EAGAIN: map not in
 * memory, -EUCLEAN.
 */
int dio_piece_at(struct dio *dio, struct ext4_inode *inode, uint64_t pos, uint32_t max,
		 struct dio_piece *ret);
/* The device request for piece, whose first byte is byte at of req. */
void dio_io_fill(struct dio_req *req, struct dev_io *io, uint32_t at, const struct dio_piece *piece,
		 void (*done)(struct dev_io *));
/* A device request completed: true if it was sent again; else *ret_err says how it ended. */
bool dio_io_again(struct dio *dio, struct dev_io *io, uint32_t *retries, int *ret_err);

/* ---- gate.c ---- */
/* Loop threads; false: it is closed for such. */
bool dio_gate_enter(struct dio_inode *dinode, unsigned cpu, unsigned kind);
void dio_gate_leave(struct dio_inode *dinode, unsigned cpu, unsigned kind);
/* Workers: waits until those in flight have left. */
void dio_gate_shut(struct dio_inode *dinode, enum dio_gate_kind kind) FDIO_BLOCKS;
void dio_gate_unshut(struct dio_inode *dinode, enum dio_gate_kind kind);
/*
 * Waits until every request that is in flight now has ended; arg: the inode's. Also with the inode
 * lock held.
 */
void dio_gate_drain(void *arg) FDIO_BLOCKS;
static inline unsigned dio_count_kind(const struct dio_req *req)
{
	return req->flags & DIO_WRITE ? DIO_COUNT_WRITE : DIO_COUNT_READ;
}
/* req is counted in the gate and is no more; its owner hands it on. */
static inline void dio_leave(struct dio_req *req)
{
	dio_gate_leave(req->file->dinode, dio_own(req)->cpu, dio_count_kind(req));
}

/* ---- range.c: workers ---- */
void dio_range_lock(struct dio_inode *dinode, struct dio_range *range, uint64_t first,
		    uint64_t last) FDIO_BLOCKS;
void dio_range_unlock(struct dio_inode *dinode, struct dio_range *range);

/* ---- pool.c ---- */
int dio_pool_init(struct dio *dio);
void dio_pool_fini(struct dio *dio);
/* NULL: req is in the queue and will go on by go_on, on another thread perhaps: do not touch it. */
struct dio_segment *dio_segment_take(struct dio_req *req,
			     void (*go_on)(struct dio_req *req, struct dio_segment *seg));
void dio_segment_put(struct dio_segment *seg);
struct dio_bounce *dio_bounce_take(struct dio *dio) FDIO_BLOCKS; /* may wait */
void dio_bounce_put(struct dio *dio, struct dio_bounce *bounce);

/* ---- pagecache.c: any thread, never blocks ---- */
/* Before what comes from the page cache is served. */
void dio_cached_note(struct dio_req *req);
/* These pages begin to be forgotten. */
void dio_cached_forget(struct dio_inode *dinode, uint64_t off, uint64_t end);
/* For every request while mask_to is not 0. */
void dio_mask_req(struct dio_req *req);

/* ---- sync.c ---- */
void dio_sync_init(struct dio *dio);
/* Makes req durable and ends it. Any thread, never blocks. */
void dio_sync_req(struct dio_req *req);
/*
 * A write to dinode completed (not with FUA): a later fsync has to flush. Any thread, never blocks.
 */
void dio_mark_dirty(struct dio *dio, struct dio_inode *dinode);
/* A flush of the device failed (dev_on_flush_failure); arg: the engine. */
void dio_sync_flush_failed(void *arg);
/* dio_file.errs_seen of a file that is opened now. */
uint32_t dio_sync_errs_at_open(const struct dio_inode *dinode);

/* ---- finish.c: never blocks ---- */
/*
 * A write is through, good or bad, and holds nothing. on_loop: it may not call out on this thread.
 */
void dio_write_finish(struct dio_req *req, bool on_loop);
void dio_req_fail(struct dio_req *req, int err); /* through a worker: counted and logged */

/* ---- slow.c ---- */
/* Hand to a worker. req holds nothing. Any thread, never blocks. */
void dio_req_slow(struct dio_req *req);

/* ---- slow_data.c: the data phase of a slow write; workers ---- */
#define DIO_NR_VECS 16
struct dio_slow {
	struct dio_req *req;
	struct dio *dio;
	struct ext4_inode *inode;
	struct dio_inode *dinode;
	uint64_t pos, end;      /* bytes that are left to write */
	uint64_t size;          /* of the file under the lock */
	struct dio_bounce *bounce;
	unsigned nr_bounce;     /* of bounce->buf, in use */
	bool shut;              /* the gate is closed for writes */
	bool append;            /* into the append window */
	struct ext4_reservation reservation;
	bool has_resv;
	uint64_t conv_first, conv_end; /* blocks to convert; empty: first >= end */
	unsigned nv;
	struct dev_vec vec[DIO_NR_VECS];
};
int dio_slow_piece(struct dio_slow *slow, uint64_t pos, uint64_t end, struct dio_piece *ret)
	FDIO_MAY_MISS;
int dio_slow_data(struct dio_slow *slow) FDIO_BLOCKS;
int dio_slow_zero_gap(struct dio_slow *slow) FDIO_BLOCKS;

/* ---- append.c: loop threads ---- */
/*
 * The way of a write that ends behind the end of the file. direct: it could go to the device as it
 * is.
 */
enum dio_way dio_append_way(struct dio_req *req, bool direct);

/* ---- append_window.c ---- */
/* True if req, which has entered the gate, is an append into the window. Loop threads. */
bool dio_append_start(struct dio_req *req);
/*
 * The data of an append is through: done becomes the list of those that are not waiting for one in
 * front of them any more, well or not; dio_append_next takes the first of them off it, NULL: none.
 */
void dio_append_done(struct dio_req *req, struct list *done);
static inline struct dio_req *dio_append_next(struct list *done)
{
	struct dio_own *o;

	if (list_empty(done))
		return NULL;
	o = list_first(done, struct dio_own, app_link);
	list_del(&o->app_link);
	return dio_req_of(o);
}
/*
 * One append more, and whole blocks again, makes a stream: a window serves these better. Inode
 * lock, shared at least.
 */
bool dio_append_is_stream(const struct dio_inode *dinode);
/* An append was published: of whole blocks? Inode lock exclusive. */
void dio_append_count(struct dio_inode *dinode, bool whole);
/* Is a slow write one that goes into the window? Inode lock exclusive, gate closed for writes. */
bool dio_append_fits(const struct dio_slow *slow);
/*
 * After a slow write that moved the size, before the inode is unlocked: a window for those that
 * follow.
 */
void dio_append_refill(struct dio_slow *slow) FDIO_BLOCKS;
/*
 * The volume is full: blocks that were set aside for appends come back. True if there were any;
 * blocks, with no lock held. arg: the engine.
 */
bool dio_reclaim(void *arg) FDIO_BLOCKS;
/* Closes the window. Workers, no lock held. */
void dio_append_stop(struct dio_inode *dinode, struct ext4_inode *inode) FDIO_BLOCKS;
/* As dio_append_stop, but callable from a loop thread: a worker closes the window later. */
void dio_append_stop_later(struct dio_inode *dinode, struct ext4_inode *inode) FDIO_MAY_WAIT;

/* ---- append_small.c: loop threads ---- */
/*
 * By what needs no lock, of a file without a window: a write behind its end that needs no worker?
 */
bool dio_grow_fits(const struct dio_req *req);
/* True if req goes its way; false: it holds nothing and is for a worker. */
bool dio_grow_start(struct dio_req *req);

/* ---- complete.c: loop threads (tests: the device's) ---- */
/* All pieces have completed (or none was needed). */
void dio_direct_finished(struct dio_req *req);
/* No piece could be sent: req is in the gate, and for a worker. */
void dio_direct_nothing(struct dio_req *req);

/* ---- segments.c: loop threads ---- */
/* first is the piece at byte first_at; the next one is at byte at. */
void dio_multi_start(struct dio_req *req, const struct dio_piece *first, uint32_t first_at,
		     uint32_t at);

#endif
