/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The journal room: a cache of metadata blocks, handles that change blocks atomically, and the jbd2
 * log that makes handles durable. It knows blocks and transactions, nothing of ext4's structures.
 *
 * Handles are serial: journal_begin takes the handle lock, journal_end or journal_cancel drops it.
 * A handle is short (memory operations, and reads of metadata that is not cached), so one lock is
 * cheaper than an owner for each block, and rollback is exact: no other handle can have changed a
 * block since its before image was taken. Data I/O never runs inside a handle. A commit runs beside
 * handles, because it writes copies of the blocks.
 *
 * Content of a cached block: a reader holds a lock of the room above that excludes the handle which
 * changes the block (the directory's inode lock, for a directory block). Different inodes in one
 * block of an inode table are different bytes, so they do not conflict.
 *
 * Threads: the marks of base/nowait.h say which calls wait; a call without a mark never waits and
 * is for loop threads too. While a callback runs, its thread holds no lock of the journal, except
 * the handle lock in seal and in undo callbacks.
 *
 * Failure: a failed write or flush, of the log or of a block's home location, aborts the journal.
 * From then on changes are refused with -EROFS and waiting for durability fails with -EIO; cached
 * blocks can still be read. Errors that no comment names: -ENOMEM, -EIO, and -EUCLEAN for a block
 * number outside the file system. After a failed call a handle can go on or be cancelled.
 */
#ifndef FDIO_JOURNAL_JOURNAL_H
#define FDIO_JOURNAL_JOURNAL_H

#include "base/nowait.h"
#include "base/reason.h"
#include "base/util.h"
#include "dev/dev.h"

struct journal;
struct journal_handle;

typedef uint32_t journal_tid; /* wraps around: compare with journal_tid_geq */
static inline bool journal_tid_geq(journal_tid a, journal_tid b) { return (int32_t)(a - b) >= 0; }

/* A cached metadata block. The room's own fields follow it in journal/cache.h. */
struct journal_buffer {
	uint64_t blk;
	uint8_t *data;     /* block_size bytes, page-aligned (below 4 KiB: block-aligned) */
	/* bits of ext4: checks that data has passed; atomic, relaxed; 0 after a read */
	uint32_t verified;
};

struct journal_extent { uint64_t pblk; uint32_t len; }; /* part of the log, in fs blocks */

struct journal_params {
	struct dev *dev;
	uint32_t block_size;        /* bytes */
	uint64_t nr_blocks;         /* of the file system: no block number may reach it */
	const struct journal_extent *log; /* in logical order; copied */
	unsigned nr_log;            /* 0: no log, so read_only must be set */
	bool metadata_csum;         /* the log gets checksums (csum v3) */
	bool has_64bit;             /* the log's tags get 64-bit block numbers */
	bool read_only;
	unsigned commit_interval_s; /* 0: 5 */
	size_t cache_bytes;         /* soft limit; 0: 64 MiB */
	/*
	 * Runs on the committing thread, in a last handle of the transaction that is about to
	 * close, and adds the data that is derived at commit time (group descriptors, checksums of
	 * bitmaps). Must not fail. May change one block for each block that handles changed, at
	 * most seal_blocks (0: a few).
	 */
	void (*seal)(void *arg, struct journal_handle *h);
	unsigned seal_blocks;
	/*
	 * Runs once, on the thread that aborts the journal. Waiters are woken and callbacks hear of
	 * the error only after it has returned, so it must not wait for the journal.
	 */
	void (*aborted)(void *arg, int err);
	void *arg;
};

/* ---- life: one thread, in this order ---- */
/* Opens the cache and reads the log's superblock; damage is -EUCLEAN with a reason of one line. */
int journal_open(const struct journal_params *params, struct journal **ret,
		 struct fdio_reason *reason) FDIO_BLOCKS;
bool journal_needs_replay(struct journal *journal); /* the log holds transactions */
/* Why this log cannot be replayed here (csum v1, async commit), or NULL. */
const char *journal_replay_obstacle(struct journal *journal);
/* The log may end in fast commits, which only journal_replay finds out. */
bool journal_may_have_fast_commits(struct journal *journal);
/* The error (negative) with which an earlier journal aborted; 0: none. journal_start clears it. */
int journal_past_error(struct journal *journal);
struct journal_replay_stats { uint32_t transactions, blocks, revoked; bool fast_commits; };
/*
 * Verifies the whole log, writes its blocks home, flushes, empties it. -EOPNOTSUPP, with nothing
 * written: there is an obstacle, or the log goes on in fast commits (ret->fast_commits).
 */
int journal_replay(struct journal *journal, struct journal_replay_stats *ret,
		   struct fdio_reason *reason) FDIO_BLOCKS;
/* Takes handles from now on. Before it the caller sets needs_recovery on disk and flushes. */
int journal_start(struct journal *journal) FDIO_BLOCKS;
/* Commits, writes everything home, empties the log, ends the threads. 0, or the abort's error. */
int journal_stop(struct journal *journal) FDIO_BLOCKS;
void journal_close(struct journal *journal); /* frees everything, writes nothing */

/* ---- cached blocks: each *ret is a reference that journal_buffer_release gives back ---- */
int journal_read_block(struct journal *journal, uint64_t blk,
		       struct journal_buffer **ret) FDIO_MAY_MISS;
/* As journal_read_block, but never waits: -EAGAIN if the block is not in the cache. */
int journal_read_cached(struct journal *journal, uint64_t blk, struct journal_buffer **ret);
/* Best effort: reads n blocks from blk into the cache, neighbours with one device request. */
void journal_readahead(struct journal *journal, uint64_t blk, unsigned n) FDIO_MAY_WAIT;
/* A block that this handle has allocated: zeroed, not read, journal_get_write already done. */
int journal_new_block(struct journal_handle *handle, uint64_t blk,
		      struct journal_buffer **ret) FDIO_MAY_MISS;
/* True: one of n blocks from blk on is cached with verified set, so it is metadata in use. */
bool journal_any_verified(struct journal *journal, uint64_t blk, uint64_t n);
void journal_buffer_release(struct journal_buffer *buffer); /* NULL is allowed */

/* ---- handles: a thread has at most one ---- */
/*
 * credits: the most blocks the handle may change, each counted once. Waits for log space. -EROFS:
 * read-only or aborted; -ENOSPC: credits exceed journal_max_credits. In the mode of base/nowait.h
 * it returns -EAGAIN where it would wait, and an operation that has missed must not call
 * journal_end, only journal_cancel.
 */
int journal_begin(struct journal *journal, unsigned credits,
		  struct journal_handle **ret) FDIO_MAY_MISS;
/* Ends the handle. Its changes are durable once the returned transaction is. */
journal_tid journal_end(struct journal_handle *handle);
/* Restores every block, runs the undo callbacks newest first, ends the handle. Cannot fail. */
void journal_cancel(struct journal_handle *handle) FDIO_MAY_WAIT;
journal_tid journal_handle_tid(struct journal_handle *handle);
unsigned journal_max_credits(struct journal *journal);
unsigned journal_credits_left(struct journal_handle *handle);
/* Before changing buffer->data: takes the before image. -EROFS; -ENOSPC: no credits left. */
int journal_get_write(struct journal_handle *handle, struct journal_buffer *buffer) FDIO_MAY_MISS;
/*
 * n metadata blocks from blk are being freed: they leave the transaction and are revoked, so that
 * replay does not write their old images. journal_cancel undoes this, but verified stays 0.
 */
int journal_forget(struct journal_handle *handle, uint64_t blk, uint64_t n) FDIO_MAY_MISS;
/* Blocks that this handle may still forget: a few hundred at its beginning. */
uint64_t journal_forgets_left(struct journal_handle *handle);

/*
 * Memory for callback records, aligned for anything, content undefined. Memory of the handle lives
 * until the undo callbacks have run; memory of the transaction until the commit callbacks have run,
 * or until the handle is cancelled. NULL (no memory) only in handles that are exceptionally large.
 */
void *journal_handle_alloc(struct journal_handle *handle, size_t size);
void *journal_transaction_alloc(struct journal_handle *handle, size_t size);
struct journal_callback {
	struct journal_callback *next;
	void (*fn)(struct journal_callback *cb, int err);
};
/*
 * Runs fn on the committing thread: err is 0 once the transaction is durable, -EIO if the journal
 * aborts first. Dropped by journal_cancel. The record is from journal_transaction_alloc.
 */
void journal_on_commit(struct journal_handle *handle, struct journal_callback *callback);
/* Runs fn(cb, 0) in journal_cancel, fn(cb, 1) in journal_end. From journal_handle_alloc. */
void journal_on_undo(struct journal_handle *handle, struct journal_callback *callback);

/* ---- durability ---- */
/*
 * Waits until tid is durable; if no thread is committing it yet, this thread does. -EIO after an
 * abort. *ret_flushed (NULL allowed) is true if a device flush began after this call, so that
 * writes completed before the call are durable too.
 */
int journal_commit_wait(struct journal *journal, journal_tid tid, bool *ret_flushed) FDIO_BLOCKS;
/* Waits while a transaction before tid is being committed, so that more changes can join tid. */
void journal_commit_wait_turn(struct journal *journal, journal_tid tid) FDIO_BLOCKS;
/* For syncfs: commits the running transaction and waits; only flushes if there is none. */
int journal_sync(struct journal *journal) FDIO_BLOCKS;
/* Takes no lock. False may be out of date at once. */
bool journal_tid_durable(struct journal *journal, journal_tid tid);
/*
 * Aborts the journal with this error: it is read-only from now on. Only the first call counts.
 * -ESHUTDOWN: as if the power had failed, so not even the error is written to the log.
 */
void journal_abort(struct journal *journal, int err) FDIO_BLOCKS;
int journal_error(struct journal *journal); /* the abort's error, or 0 */

#endif
