/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The engine's structures, the states of a request, and the calls between the engine's files.
 * Included only inside src/dio and its tests.
 *
 * The files, in the order of their calls (each calls only files below its line):
 *
 *   submit.c                 checks a request and chooses its way
 *   segments.c  append.c     a request over several extents; the way of an append
 *   complete.c               all pieces of the direct part have completed
 *   append_small.c           a small append, from submission to the extent
 *   slow.c  slow_data.c      a worker does the request
 *   append_window.c          appends into an append window; opening and closing windows
 *   finish.c                 the end of a write: invalidation, durability; failures
 *   sync.c                   the sync queue
 *   request.c                the answer
 *   gate.c  range.c  pool.c  pagecache.c  piece.c  inode.c
 *                            what a request takes and looks at; they call none of the above
 *
 * engine.c (mount and unmount) and file.c (open and close) stand beside them.
 *
 * A request that is queued or submitted belongs to the thread that completes it; no other thread
 * touches it. The states (enum dio_stage):
 *
 *   state           event                                   next            function
 *   SUBMITTED       refused, empty, at the end of the file  ENDED           dio_submit
 *   SUBMITTED       the gate was entered                    DIRECT          start_direct
 *   SUBMITTED       a small append has entered the gate     SMALL           dio_append_small_start
 *   SUBMITTED       gate closed, or neither way             SLOW            dio_hand_to_worker
 *   DIRECT          joins the appends of its inode          APPEND          dio_append_start
 *   DIRECT          no piece to send                        SLOW            dio_no_piece_sent
 *   DIRECT          all sent pieces completed, the          SLOW            hand_over_remainder
 *                   remainder begins at a hole
 *   DIRECT          all pieces completed: a write           FINISH          end_direct,
 *                                                                           dio_write_finish
 *   DIRECT          all pieces completed: a read            ENDED           end_direct, dio_req_end
 *   DIRECT          a piece failed                          FINISH          dio_fail
 *   APPEND          its pieces completed, or failed         APPEND_THROUGH  dio_append_done
 *   APPEND_THROUGH  those before it in the file have, too   DIRECT          dio_append_done
 *   SMALL           written, inserted                       FINISH          dio_write_finish
 *   SMALL           something would have waited             SLOW            dio_append_small_start,
 *                                                                           retry_on_worker
 *   SMALL           the device failed                       FINISH          dio_fail
 *   SLOW            done or failed: a write                 FINISH          slow_work
 *   SLOW            done or failed: a read                  ENDED           slow_work
 *   FINISH          invalidated and durable, or failed      ENDED           dio_req_end
 *
 * DIRECT, APPEND, APPEND_THROUGH and SMALL are counted in the gate of the inode.
 *
 * Invariants
 *   DIO-1  done runs exactly once, and the in-flight count of the gate is left before.
 *   DIO-2  the count of a request over several extents is set up before its first segment is
 *          submitted; the splitter holds one reference.
 *   DIO-3  no lock, gate count or range is held while done, the invalidation or the sync queue
 *          runs.
 *   DIO-4  extents and size are published after the data they cover completed (appends: in the
 *          order of the file).
 *   DIO-5  a byte is sent to the device at most once for one request. Exceptions: what a short
 *          transfer left, an append behind one that failed, and GROW-2 in append_small.c.
 */
#ifndef FDIO_DIO_TYPES_H
#define FDIO_DIO_TYPES_H

#include "base/counters.h"
#include "base/lock.h"
#include "base/nowait.h"
#include "dio/engine.h"
#include "dio/pagecache.h"

/* How often one device request is sent again after EAGAIN or EINTR. */
#define DIO_RETRIES_MAX 16
/*
 * The most bytes of a request. The kernel splits a longer one into pieces that are at most a page
 * shorter than this, but for the last.
 */
#define DIO_REQ_MAX (1u << 20)
/*
 * After this many direct writes with no other I/O between, all pages of the file are invalidated.
 */
#define DIO_INVAL_ALL_AFTER 32
/* Slow writes that can be in their data phase at once. */
#define DIO_NR_BOUNCE 32
/* Batches of the sync queue at work at once. */
#define DIO_NR_SYNC 2

/* The way that dio_submit chooses; submit.c and append.c say when. */
enum dio_way { DIO_WAY_DIRECT, DIO_WAY_WINDOW, DIO_WAY_SMALL, DIO_WAY_SLOW };

/*
 * The state of a request; the table is above. Stored by the thread to which the request belongs;
 * APPEND and APPEND_THROUGH under append_lock.
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
	/* Every piece is written with FUA: the write is durable without the sync queue. */
	DIO_R_FUA = 1 << 0,
	/* What the write needs from its batch of the sync queue. */
	DIO_R_NEED_COMMIT = 1 << 1,
	DIO_R_NEED_FLUSH = 1 << 2,
	/* The whole file is being invalidated; cache_seq was taken when that began. */
	DIO_R_INVAL_ALL = 1 << 3,
};

struct dio_segment;

/* The engine's own part of a request: dio_req.own. */
struct dio_own {
	struct dev_io io;        /* the first piece */
	struct work work;        /* for the workers, and done_work of inval and launder */
	struct list link;        /* in dio_cpu.waiting or the sync queue */
	struct list append_link; /* in dio_inode.appends */
	struct dio *dio;
	enum dio_stage stage;
	uint32_t bits;           /* DIO_R_ */
	/*
	 * Of a request over several extents; atomic: pieces in flight, plus one for the splitter
	 * (DIO-2).
	 */
	uint32_t refs;
	int error;               /* the first, -errno; atomic while pieces are in flight */
	uint32_t nr_sent;        /* bytes for which pieces were sent, or that were zeroed */
	/* Bytes that were transferred directly; the remainder, up to want, is for a worker. */
	uint32_t direct_len;
	uint32_t want;           /* result if all goes well: len, or up to the end of the file */
	uint32_t span;           /* want rounded up to sectors; small appends: to blocks */
	uint32_t cpu;            /* index of the loop that submitted it */
	uint32_t retries;        /* of the first piece */
	/*
	 * A small append: bytes at its beginning that go into a block that exists, at grow_off of
	 * the device; reservation has the blocks for the others.
	 */
	uint32_t grow_head;
	uint64_t grow_off;
	struct ext4_reservation reservation;
	uint64_t cache_seq;      /* dio_inode.cache_seq when the invalidation began */
	/* A write that began behind the end of the file: that end, if inside a page; else 0. */
	uint64_t gap;
	/* While in dio_cpu.waiting: called with the segment. */
	void (*resume)(struct dio_req *req, struct dio_segment *segment);
};

/* Callers see a dio_req; lists, queues and the device hand back parts of a dio_own. */
static inline struct dio_own *dio_own(const struct dio_req *req)
{
	return (struct dio_own *)(uintptr_t)req->own;
}
static inline struct dio_req *dio_req_of(struct dio_own *own)
{
	return container_of((void *)own, struct dio_req, own);
}
static inline struct dio_req *dio_req_of_work(struct work *work)
{
	return dio_req_of(container_of(work, struct dio_own, work));
}
static inline struct dio_req *dio_req_of_io(struct dev_io *io)
{
	return dio_req_of(container_of(io, struct dio_own, io));
}

/* The engine's own part of a sync: dio_sync.own. */
struct dio_sync_own {
	struct list link;
	bool need_commit, need_flush;
	int err;
};
static inline struct dio_sync_own *dio_sync_own(const struct dio_sync *sync)
{
	return (struct dio_sync_own *)(uintptr_t)sync->own;
}
static inline struct dio_sync *dio_sync_of(struct dio_sync_own *own)
{
	return container_of((void *)own, struct dio_sync, own);
}

/*
 * A further piece of a request over several extents. Owned by its pool or file, in use between
 * dio_segment_take and dio_segment_put.
 */
struct dio_segment {
	struct dev_io io;
	struct dio_req *req;
	struct list link;
	uint32_t retries;
	bool is_reserve;
	struct dio_file *file; /* if is_reserve: the file that owns it */
	struct dio_cpu *home;  /* else: the loop whose pool owns it */
};

/* The fields of one loop. lock is contended only where other threads complete requests. */
struct dio_cpu {
	uint32_t inflight;      /* atomic: requests between submission and the return of done */
	struct fdio_mutex lock; /* guards the rest */
	struct list free;       /* segments */
	struct list waiting;    /* requests that need a segment, oldest first */
	bool resuming;          /* a thread is giving segments to waiting requests */
} fdio_cacheline_aligned;

struct dio_bounce {
	struct list link;
	uint8_t *buf[2];        /* one file system block each: first and last block of a write */
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
	bool fua_ok;            /* one FUA write is no slower than a write and a flush */
	bool fua_multi;         /* several FUA writes are no slower than the writes and one flush */
	struct dio_cpu *cpus;
	struct dio_segment *segments;

	struct fdio_mutex gate_lock; /* for gate_cond only */
	pthread_cond_t gate_cond;

	struct fdio_mutex bounce_lock; /* guards bounce_free */
	pthread_cond_t bounce_cond;
	struct list bounce_free;
	struct dio_bounce bounce[DIO_NR_BOUNCE];
	uint8_t *bounce_mem;

	/* Sync queue. sync_lock guards the lists, the states and the stores to durable_epoch. */
	struct fdio_mutex sync_lock;
	struct list sync_reqs, sync_calls;
	struct dio_syncer syncer[DIO_NR_SYNC];
	/*
	 * Atomic. epoch counts batches. A write that completes notes the current epoch in its
	 * inode; a batch that flushes makes the writes durable that were noted up to its own epoch.
	 */
	uint64_t epoch, durable_epoch;

	struct fdio_mutex inodes_lock; /* guards inodes */
	struct list inodes;            /* dio_inode.link; for flushes that fail (sync.c) */
	/* Atomic: flushes that failed, and how many of them syncfs has reported. */
	uint32_t errors, errors_seen;
};

/* Requests in flight that one loop submitted. */
struct dio_count { uint32_t n[2]; } fdio_cacheline_aligned;
enum { DIO_COUNT_READ = 0, DIO_COUNT_WRITE = 1 };

/* What dio_inode.gate says; the table is in gate.c. */
enum dio_gate_state { DIO_GATE_OPEN, DIO_GATE_NO_WRITES, DIO_GATE_SHUT };
#define DIO_GATE_ALL_ONE 1u
#define DIO_GATE_ALL_MASK 0xffffu
#define DIO_GATE_WRITES_ONE 0x10000u

/*
 * The engine's part of an inode, which ext4_inode_upper returns. Lives as long as the inode is in
 * memory.
 */
struct dio_inode {
	struct dio *dio;
	/* Atomic: closers of the whole gate in the low half, of writes in the high half. */
	uint32_t gate;
	uint32_t gate_waiters;  /* atomic */
	/*
	 * Atomic. cache_seq counts requests that go through the page cache; cache_clean is the
	 * value of cache_seq at which the last invalidation of the whole file began: if both are
	 * equal, the kernel holds no pages. cache_run counts direct writes in a row at cache_seq ==
	 * cache_run_seq.
	 */
	uint64_t cache_seq, cache_clean, cache_run_seq;
	uint32_t cache_run;
	/*
	 * Atomic, only grow. errors: flushes that failed while the inode had unflushed writes or
	 * writes in flight; errors_told: how many of them were reported to any caller; errors_seen:
	 * to callers without a file.
	 */
	uint32_t errors, errors_told, errors_seen;
	uint32_t slow_writes; /* atomic: writes at work on workers; counts does not include them */
	struct list link;       /* dio.inodes */
	/* pagecache.c. Atomic; append_lock guards mask_from and the stores to mask_to. */
	/* 1 + number of the page that held the end of the file when it was read; 0: none. */
	uint64_t tail_page;
	uint64_t hole_lo, hole_hi; /* holes that were read lie in it; UINT64_MAX, 0: none */
	/* Bytes that are zeroed in pages written back; mask_to 0: none. */
	uint64_t mask_from, mask_to;
	uint32_t nr_mappers;    /* files open for reading and writing */
	uint32_t laundering;    /* DIO_CACHED_HOLES taken and not done */
	bool has_pages;         /* the page cache was used */
	/* Atomic, only grows: the batch that makes the last completed write durable; 0: none. */
	uint64_t dirty_epoch;
	struct fdio_mutex append_lock; /* guards the three below */
	struct list appends;    /* appends in flight, ascending and without gaps */
	uint64_t append_end;    /* where the last of them ends */
	bool append_broken;     /* one of them failed */
	bool growing;           /* atomic: a small append is under way (GROW-1) */
	uint32_t nr_files;      /* atomic: open files */
	/* Closes the window on a worker. Queued with a reference of stop_inode. */
	struct work stop_work;
	struct ext4_inode *stop_inode; /* atomic; NULL: not queued */
	unsigned append_streak; /* inode lock exclusive: slow appends of whole blocks in a row */
	uint32_t window_bytes;  /* the same lock: size of the last window */
	struct fdio_mutex range_lock; /* guards ranges */
	pthread_cond_t range_cond;
	struct list ranges;     /* in order of arrival */
	struct dio_count counts[]; /* atomic: of each loop */
};

struct dio_file {
	struct dio *dio;
	struct ext4_inode *inode;
	struct dio_inode *dinode;
	struct dio_segment reserve;
	uint32_t reserve_busy;  /* atomic */
	uint32_t errors_seen;   /* atomic: how many of dinode->errors were reported to this file */
	bool may_map;
};

/* A block range of a writer; on the stack of its worker. */
struct dio_range {
	struct list link;
	uint64_t first, last;
};

/* A run of bytes of a file in one state. dev_off is where it lies; holes have none. */
struct dio_piece {
	uint64_t dev_off;
	uint32_t len;
	enum ext4_extent_state state;
};

/* ---- request.c ---- */
/* Calls done with error or want, which are set. Any thread; req holds nothing. */
void dio_req_end(struct dio_req *req);

/* ---- inode.c ---- */
/* The engine's part of inode, made if it is not there. Any thread. -ENOMEM. */
int dio_inode_attach(struct dio *dio, struct ext4_inode *inode, struct dio_inode **ret);

/* ---- piece.c: any thread, never blocks ---- */
/*
 * The piece that begins at pos, of at most max bytes; a written one is at most one device request.
 * -EAGAIN: the map is not in memory; -EUCLEAN: the map is wrong.
 */
int dio_piece_at(struct dio *dio, struct ext4_inode *inode, uint64_t pos, uint32_t max,
		 struct dio_piece *ret);
/* Fills the device request for piece, whose first byte is byte at of req. */
void dio_io_fill(struct dio_req *req, struct dev_io *io, uint32_t at, const struct dio_piece *piece,
		 void (*done)(struct dev_io *));
/* After a completion: sends the rest again and returns true, or sets *ret_err: how it ended. */
bool dio_io_resubmit(struct dio *dio, struct dev_io *io, uint32_t *retries, int *ret_err);

/* ---- gate.c ---- */
/* Loop threads. False: the gate is closed for requests of this kind (DIO_COUNT_). */
bool dio_gate_enter(struct dio_inode *dinode, unsigned cpu, unsigned kind);
void dio_gate_leave(struct dio_inode *dinode, unsigned cpu, unsigned kind);
/* As dio_gate_close and dio_gate_open, for an inode that has its dio_inode: cannot fail. */
void dio_gate_close_attached(struct dio_inode *dinode, enum dio_gate_kind kind) FDIO_BLOCKS;
void dio_gate_open_attached(struct dio_inode *dinode, enum dio_gate_kind kind);
/*
 * Waits until every request that is in flight now has ended. arg: the dio_inode. The caller may
 * hold the inode lock.
 */
void dio_gate_drain(void *arg) FDIO_BLOCKS;
static inline unsigned dio_count_kind(const struct dio_req *req)
{
	return req->flags & DIO_WRITE ? DIO_COUNT_WRITE : DIO_COUNT_READ;
}
/* req, which is counted in the gate, leaves it. */
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
/*
 * NULL: req waits for a segment; resume gets it, perhaps on another thread already: do not touch
 * req.
 */
struct dio_segment *dio_segment_take(struct dio_req *req,
				     void (*resume)(struct dio_req *req, struct dio_segment *));
void dio_segment_put(struct dio_segment *segment);
struct dio_bounce *dio_bounce_take(struct dio *dio) FDIO_BLOCKS;
void dio_bounce_put(struct dio *dio, struct dio_bounce *bounce);

/* ---- pagecache.c: any thread, never blocks ---- */
/* To be called before a request that comes from the page cache is served. */
void dio_cached_note(struct dio_req *req);
/*
 * To be called when the kernel begins to forget the pages of [off, end). Returns the note of the
 * page at the end of the file (struct dio_inode, tail_page) if that was among them and is dropped;
 * else 0.
 */
uint64_t dio_cached_forget(struct dio_inode *dinode, uint64_t off, uint64_t end);
/* To be called for every request while mask_to is not 0. */
void dio_mask_req(struct dio_req *req);

/* ---- sync.c: any thread, never blocks ---- */
void dio_sync_init(struct dio *dio);
/* Puts a write into the sync queue, which makes it durable and ends it. */
void dio_sync_write(struct dio_req *req);
/* A write to dinode completed, without FUA: a later fsync has to flush. */
void dio_mark_dirty(struct dio *dio, struct dio_inode *dinode);
/* A flush of the device failed (dev_on_flush_failure). arg: the engine. */
void dio_sync_flush_failed(void *arg);
/* dio_file.errors_seen for a file that is opened now. */
uint32_t dio_sync_errors_at_open(const struct dio_inode *dinode);

/* ---- finish.c: never blocks ---- */
/* A write is done, well or not, and holds nothing. on_loop: a worker calls the invalidation. */
void dio_write_finish(struct dio_req *req, bool on_loop);
/* Ends req with err; a worker counts and logs it. */
void dio_fail(struct dio_req *req, int err);

/* ---- slow.c ---- */
/* A worker does the request, from direct_len on. req holds nothing. Any thread, never blocks. */
void dio_hand_to_worker(struct dio_req *req);

/* ---- slow_data.c: the data phase of a slow write; workers ---- */
#define DIO_NR_VEC 16
struct dio_slow {
	struct dio_req *req;
	struct dio *dio;
	struct ext4_inode *inode;
	struct dio_inode *dinode;
	uint64_t pos, end;      /* bytes [pos, end) are left to write */
	uint64_t size;          /* of the file under the lock */
	struct dio_bounce *bounce;
	unsigned nr_bounce;     /* buffers of bounce in use */
	bool shut;              /* the gate is closed for writes */
	bool append;            /* into the append window */
	struct ext4_reservation reservation;
	bool has_reservation;
	uint64_t convert_first, convert_end; /* unwritten blocks to convert; empty: first >= end */
	unsigned nr_vec;
	struct dev_vec vec[DIO_NR_VEC];
};
/* As dio_piece_at, but loads the map if need be. */
int dio_slow_piece(struct dio_slow *slow, uint64_t pos, uint64_t end, struct dio_piece *ret)
	FDIO_MAY_MISS;
int dio_slow_data(struct dio_slow *slow) FDIO_BLOCKS;
int dio_slow_zero_gap(struct dio_slow *slow) FDIO_BLOCKS;

/* ---- append.c: loop threads ---- */
/* The way of a write that ends behind the end of the file. direct: the device can take it as is. */
enum dio_way dio_append_way(struct dio_req *req, bool direct);

/* ---- append_window.c ---- */
/* True if req, which has entered the gate, is an append into the window. Loop threads. */
bool dio_append_start(struct dio_req *req);
/*
 * The pieces of an append have completed, or failed. Puts into done all appends that no longer wait
 * for one before them in the file. dio_append_next takes the first off that list; NULL: none.
 */
void dio_append_done(struct dio_req *req, struct list *done);
static inline struct dio_req *dio_append_next(struct list *done)
{
	struct dio_own *own;

	if (list_empty(done))
		return NULL;
	own = list_first(done, struct dio_own, append_link);
	list_del(&own->append_link);
	return dio_req_of(own);
}
/*
 * True if one more append of whole blocks makes a stream, for which a window is better. Inode lock,
 * shared at least.
 */
bool dio_append_is_stream(const struct dio_inode *dinode);
/* An append was published; whole: of whole blocks. Inode lock exclusive. */
void dio_append_count(struct dio_inode *dinode, bool whole);
/* True if a slow write goes into the window. Inode lock exclusive, gate closed for writes. */
bool dio_append_fits(const struct dio_slow *slow);
/* After a slow write that moved the size, inode still locked: opens a window for a stream. */
void dio_append_refill(struct dio_slow *slow) FDIO_BLOCKS;
/*
 * The volume is full: closes all windows, which gives their blocks back. True if there were any.
 * No lock held. arg: the engine.
 */
bool dio_reclaim(void *arg) FDIO_BLOCKS;
/* Closes the window. Workers, no lock held. */
void dio_append_stop(struct dio_inode *dinode, struct ext4_inode *inode) FDIO_BLOCKS;
/* As dio_append_stop, but callable from a loop thread: a worker closes the window later. */
void dio_append_stop_later(struct dio_inode *dinode, struct ext4_inode *inode) FDIO_MAY_WAIT;

/* ---- append_small.c: loop threads ---- */
/* True if a write at the end of a file without a window may go this way. Takes no lock. */
bool dio_append_small_fits(const struct dio_req *req);
/* False: req holds nothing and is for a worker. */
bool dio_append_small_start(struct dio_req *req);

/* ---- complete.c: loop threads (in tests any thread) ---- */
/* All pieces that were sent have completed, or the request needed none. */
void dio_pieces_done(struct dio_req *req);
/* No piece could be sent: req, which is in the gate, is for a worker. */
void dio_no_piece_sent(struct dio_req *req);

/* ---- segments.c: loop threads ---- */
/* first, at byte first_at of req, is the first piece to send; the next one begins at byte at. */
void dio_segments_start(struct dio_req *req, const struct dio_piece *first, uint32_t first_at,
			uint32_t at);

#endif
