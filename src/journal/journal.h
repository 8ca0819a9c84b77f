/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The journal room: a cache of metadata blocks, handles that change them atomically, and the jbd2
 * log that makes handles durable. It knows blocks and transactions, nothing of ext4's structures.
 *
 * Handles are serial: journal_begin takes the handle lock, journal_end or journal_cancel drops it.
 * A handle is short (memory operations, plus reads of metadata that is not cached), so one lock is
 * cheaper than per-block ownership and makes rollback exact: nobody else can have changed a block
 * since its before image was taken. Data I/O never runs inside a handle. Commit runs beside handles
 * (it copies blocks).
 *
 * Content of a cached block: a reader holds whatever lock of its own excludes the handle that
 * changes the block (a directory's inode lock, for a directory block). Different inodes in one
 * inode-table block are different bytes, so they do not conflict.
 *
 * Threads: calls block on the device and on other threads unless they say otherwise. Loop threads
 * use journal_read_cached and what never blocks, and the rest in the mode of nowait.h. No lock of
 * the journal is held when a callback runs, but for the handle lock in seal and in undo callbacks.
 *
 * Failure: a failed write or flush of the log or of a home location aborts the journal. From then
 * on changes are refused with -EROFS and waiting for durability with -EIO; what is cached can be
 * read.
 */
#ifndef FDIO_JOURNAL_JOURNAL_H
#define FDIO_JOURNAL_JOURNAL_H

#include "base/nowait.h"
#include "base/reason.h"
#include "base/util.h"
#include "dev/dev.h"

struct journal;
struct journal_handle;

typedef uint32_t journal_tid; /* modular; compare with journal_tid_geq */
static inline bool journal_tid_geq(journal_tid a, journal_tid b) { return (int32_t)(a - b) >= 0; }

/*
 * A cached metadata block. Callers use blk, data and the x4-owned fields; the rest is in
 * journal_types.h.
 */
struct journal_buffer {
	uint64_t blk;
	uint8_t *data;      /* block_size bytes, page-aligned (block-aligned below 4 KiB) */
	/* owned by ext4: which checks this content has passed (atomic, relaxed); 0 after a read */
	uint32_t verified;
};

/* log blocks in logical order, in fs blocks */
struct journal_extent { uint64_t pblk; uint32_t len; };

struct journal_params {
	struct dev *dev;
	uint32_t block_size;
	uint64_t nr_blocks;         /* of the file system: bounds of every block number */
	/* copied; NULL with nr_log 0: no journal (read-only service) */
	const struct journal_extent *log;
	unsigned nr_log;
	bool metadata_csum;         /* csum v3 in the log */
	bool has_64bit;             /* 64-bit tags */
	bool read_only;
	unsigned commit_interval_s; /* 0: default 5 */
	size_t cache_bytes;         /* 0: default 64 MiB; soft limit */
	/*
	 * Called on the committing thread inside a handle of the transaction that is about to
	 * close, so that the owner can bring what it derives at commit time (group descriptors,
	 * checksums of bitmaps) into it. May use journal_get_write; must not fail. Changes at most
	 * one block for each that handles changed, and no more than seal_blocks.
	 */
	void (*seal)(void *arg, struct journal_handle *h);
	unsigned seal_blocks;       /* 0: a few */
	/*
	 * Called once, on the thread that aborts, when the journal has: from now on everything is
	 * read-only. No waiter is woken and no callback hears of the error before it returns, so it
	 * must not wait for the journal.
	 */
	void (*aborted)(void *arg, int err);
	void *arg;
};

/* ---- life ---- */
/*
 * Cache and, if there is a log, its superblock (validated even when clean). Does not replay.
 * reason: one line.
 */
int journal_open(const struct journal_params *params, struct journal **ret,
		 struct fdio_reason *reason) FDIO_BLOCKS;
/* s_start != 0: the log holds transactions to replay. */
bool journal_needs_replay(struct journal *journal);
/* Features that fusedio does not replay alone (csum v1, async commit): reason, or NULL. */
const char *journal_replay_obstacle(struct journal *journal);
/*
 * The error (negative) with which an earlier journal aborted, as its superblock has it; 0: none.
 * journal_start forgets it.
 */
int journal_past_error(struct journal *journal);
/* There may be fast commits: only a replay finds out whether there are. */
bool journal_may_have_fast_commits(struct journal *journal);
struct journal_replay_stats { uint32_t transactions, blocks, revoked; bool fast_commits; };
/*
 * Three passes, checksums verified, revokes honoured; writes home, flushes, empties the log.
 * -EOPNOTSUPP, with nothing written: an obstacle, or (fast_commits) the log goes on in fast
 * commits.
 */
int journal_replay(struct journal *journal, struct journal_replay_stats *ret,
		   struct fdio_reason *reason) FDIO_BLOCKS;
/*
 * Ready for handles: features set on the (empty) log, tid jumped by the log's length, commit and
 * checkpoint threads started. The caller has set needs_recovery and flushed before (see
 * ext4/volume/volume.c).
 */
int journal_start(struct journal *journal) FDIO_BLOCKS;
/*
 * Commit, checkpoint all, flush, s_start = 0, flush; stops the threads. Then journal_close frees. 0
 * or the abort error.
 */
int journal_stop(struct journal *journal) FDIO_BLOCKS;
/* Frees everything without writing. */
void journal_close(struct journal *journal);

/* ---- cached blocks ---- */
/*
 * Blocking (nowait.h: only from the cache). A reference to the block's current content; -EIO,
 * -ENOMEM, -EUCLEAN for a block number out of range.
 */
int journal_read_block(struct journal *journal, uint64_t blk,
		       struct journal_buffer **ret) FDIO_MAY_MISS;
/* Only from the cache: -EAGAIN when it would block. For loop threads. */
int journal_read_cached(struct journal *journal, uint64_t blk, struct journal_buffer **ret);
/*
 * Hint: n blocks from blk will be read soon; one device read where contiguous. Blocking. Best
 * effort.
 */
void journal_readahead(struct journal *journal, uint64_t blk, unsigned n) FDIO_MAY_WAIT;
/*
 * A block just allocated by this handle: zeroed, never read from the device, already open for
 * writing in handle.
 */
int journal_new_block(struct journal_handle *handle, uint64_t blk,
		      struct journal_buffer **ret) FDIO_MAY_MISS;
/* Whether one of n blocks is in the cache with content that has passed a check: so it is in use.
 * Any thread, never blocks. */
bool journal_any_verified(struct journal *journal, uint64_t blk, uint64_t n);
void journal_buffer_release(struct journal_buffer *buffer); /* NULL is allowed */
struct journal_buffer *journal_buffer_ref(struct journal_buffer *buffer);

/* ---- handles ---- */
/*
 * Credits: the most blocks the handle may change (a block changed twice counts once; seal's blocks
 * are accounted by the journal itself). Waits for log space. -EROFS when read-only or aborted,
 * -ENOSPC if credits exceed what one transaction may hold. A thread has at most one handle. In the
 * mode of nowait.h: -EAGAIN where it would wait, and journal_end is only for what has not missed.
 */
int journal_begin(struct journal *journal, unsigned credits,
		  struct journal_handle **ret) FDIO_MAY_MISS;
/* Largest credits journal_begin takes. Long operations (truncate) split at a fraction of it. */
unsigned journal_max_credits(struct journal *journal);
unsigned journal_credits_left(struct journal_handle *handle);
/*
 * Declares that handle will change buffer: takes the before image on the first call, joins the
 * running transaction.
 */
int journal_get_write(struct journal_handle *handle, struct journal_buffer *buffer) FDIO_MAY_MISS;
/*
 * The metadata block blk (n blocks from it) is being freed: revoked in this transaction if its
 * images may be in the log, dropped from the running one. Undone by journal_cancel, but for
 * verified, which is 0 from now on.
 */
int journal_forget(struct journal_handle *handle, uint64_t blk, uint64_t n) FDIO_MAY_MISS;
/*
 * So many blocks handle may still forget; some hundred at its beginning. Whoever may have more
 * splits at it.
 */
uint64_t journal_forgets_left(struct journal_handle *handle);
/* Ends the handle; its changes belong to the returned tid. */
journal_tid journal_end(struct journal_handle *handle);
/*
 * Puts every block back as it was at journal_begin, runs the undo callbacks newest first, ends the
 * handle.
 */
void journal_cancel(struct journal_handle *handle) FDIO_MAY_WAIT;
journal_tid journal_handle_tid(struct journal_handle *handle);

/*
 * Memory for the records of the callbacks below, aligned for anything, content undefined. The
 * handle's is gone once the undo callbacks have run, the transaction's once the commit callbacks
 * have run, or the undo callbacks if the handle is cancelled. What is usual is set aside, and
 * journal_begin sees to it that a transaction has room: NULL (no memory) only in handles that are
 * exceptionally large.
 */
void *journal_handle_alloc(struct journal_handle *handle, size_t size);
void *journal_transaction_alloc(struct journal_handle *handle, size_t size);

struct journal_callback {
	struct journal_callback *next;
	void (*fn)(struct journal_callback *cb, int err);
};
/*
 * fn(callback, 0) once the transaction of handle is durable, fn(callback, -EIO) if the journal
 * aborts first. On the thread that commits, outside all journal locks. Not called if handle is
 * cancelled. The record lies in journal_transaction_alloc.
 */
void journal_on_commit(struct journal_handle *handle, struct journal_callback *callback);
/*
 * fn(callback, 0) inside journal_cancel; fn(callback, 1) in journal_end (nothing to undo). The
 * record lies in journal_handle_alloc.
 */
void journal_on_undo(struct journal_handle *handle, struct journal_callback *callback);

/* ---- durability ---- */
/*
 * Waits until tid is durable; commits it on this thread if it is running and nobody else is at it.
 * Everything completed on the device before the call is durable too if a commit was started.
 * *ret_flushed (may be NULL): a preflush issued after the call's start covered it. -EIO if the
 * journal aborted.
 */
int journal_commit_wait(struct journal *journal, journal_tid tid, bool *ret_flushed) FDIO_BLOCKS;
/*
 * Waits while another transaction than tid is being committed, so that what comes meanwhile can
 * still join tid.
 */
void journal_commit_wait_turn(struct journal *journal, journal_tid tid) FDIO_BLOCKS;
/* Starts a commit of tid without waiting. */
void journal_commit_start(struct journal *journal, journal_tid tid);
/* Commits whatever is running and waits; a flush if nothing is. syncfs. */
int journal_sync(struct journal *journal) FDIO_BLOCKS;
/* Any thread, no lock: durable overwrites ask on loop threads. False may be old at once. */
bool journal_tid_durable(struct journal *journal, journal_tid tid);
/*
 * Stops everything with err: read-only from now on. Idempotent. -ESHUTDOWN: as if the power went,
 * so not even the error is written to the log.
 */
void journal_abort(struct journal *journal, int err) FDIO_BLOCKS;
/* 0, or the error that aborted it. */
int journal_error(struct journal *journal);
/*
 * A block of the journal file itself was found inside the file system's structures: for hostile
 * images.
 */
bool journal_is_log_block(struct journal *journal, uint64_t blk);

#endif
