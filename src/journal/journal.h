/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The journal room: a cache of metadata blocks, handles that change them atomically, and the jbd2
 * log that makes handles durable. It knows blocks and transactions, nothing of ext4's structures.
 *
 * Handles are serial: jnl_begin takes the handle lock, jnl_end or jnl_cancel drops it. A handle is
 * short (memory operations, plus reads of metadata that is not cached), so one lock is cheaper than
 * per-block ownership and makes rollback exact: nobody else can have changed a block since its
 * before image was taken. Data I/O never runs inside a handle. Commit runs beside handles (it
 * copies blocks).
 *
 * Content of a cached block: a reader holds whatever lock of its own excludes the handle that
 * changes the block (a directory's inode lock, for a directory block). Different inodes in one
 * inode-table block are different bytes, so they do not conflict.
 *
 * Threads: calls block on the device and on other threads unless they say otherwise. Loop threads
 * use jnl_bread_cached and what never blocks, and the rest in the mode of nowait.h. No lock of the
 * journal is held when a callback runs, but for the handle lock in seal and in undo callbacks.
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

struct jnl;
struct jnl_handle;

typedef uint32_t jnl_tid; /* modular; compare with jnl_tid_geq */
static inline bool jnl_tid_geq(jnl_tid a, jnl_tid b) { return (int32_t)(a - b) >= 0; }

/* A cached metadata block. Callers use blk, data and the x4-owned fields; the rest is in journal_types.h. */
struct jnl_buf {
	uint64_t blk;
	uint8_t *data;      /* block_size bytes, page-aligned (block-aligned below 4 KiB) */
	uint32_t verified;  /* owned by ext4: which checks this content has passed (atomic, relaxed); 0 after a read */
};

struct jnl_extent { uint64_t pblk; uint32_t len; }; /* log blocks in logical order, in fs blocks */

struct jnl_params {
	struct dev *dev;
	uint32_t block_size;
	uint64_t nr_blocks;         /* of the file system: bounds of every block number */
	const struct jnl_extent *log; /* copied; NULL with nr_log 0: no journal (read-only service) */
	unsigned nr_log;
	bool metadata_csum;         /* csum v3 in the log */
	bool has_64bit;             /* 64-bit tags */
	bool read_only;
	unsigned commit_interval_s; /* 0: default 5 */
	size_t cache_bytes;         /* 0: default 64 MiB; soft limit */
	/*
	 * Called on the committing thread inside a handle of the transaction that is about to close, so that
	 * the owner can bring what it derives at commit time (group descriptors, checksums of bitmaps) into
	 * it. May use jnl_get_write; must not fail. Changes at most one block for each that handles changed, and no more than
	 * seal_blocks.
	 */
	void (*seal)(void *arg, struct jnl_handle *h);
	unsigned seal_blocks;       /* 0: a few */
	/*
	 * Called once, on the thread that aborts, when the journal has: from now on everything is read-only. No waiter is woken and
	 * no callback hears of the error before it returns, so it must not wait for the journal.
	 */
	void (*aborted)(void *arg, int err);
	void *arg;
};

/* ---- life ---- */
/* Cache and, if there is a log, its superblock (validated even when clean). Does not replay. reason: one line. */
int jnl_open(const struct jnl_params *params, struct jnl **ret, struct fdio_reason *reason) FDIO_BLOCKS;
/* s_start != 0: the log holds transactions to replay. */
bool jnl_needs_replay(struct jnl *journal);
/* Features that fusedio does not replay alone (csum v1, async commit): reason, or NULL. */
const char *jnl_replay_obstacle(struct jnl *journal);
/* The error (negative) with which an earlier journal aborted, as its superblock has it; 0: none. jnl_start forgets it. */
int jnl_past_error(struct jnl *journal);
/* There may be fast commits: only a replay finds out whether there are. */
bool jnl_may_have_fast_commits(struct jnl *journal);
struct jnl_replay_stats { uint32_t transactions, blocks, revoked; bool fast_commits; };
/* Three passes, checksums verified, revokes honoured; writes home, flushes, empties the log. -EOPNOTSUPP, with nothing written:
 * an obstacle, or (fast_commits) the log goes on in fast commits. */
int jnl_replay(struct jnl *journal, struct jnl_replay_stats *ret, struct fdio_reason *reason) FDIO_BLOCKS;
/* Ready for handles: features set on the (empty) log, tid jumped by the log's length, commit and checkpoint
 * threads started. The caller has set needs_recovery and flushed before (see ext4/volume/volume.c). */
int jnl_start(struct jnl *journal) FDIO_BLOCKS;
/* Commit, checkpoint all, flush, s_start = 0, flush; stops the threads. Then jnl_close frees. 0 or the abort error. */
int jnl_stop(struct jnl *journal) FDIO_BLOCKS;
/* Frees everything without writing. */
void jnl_close(struct jnl *journal);

/* ---- cached blocks ---- */
/* Blocking (nowait.h: only from the cache). A reference to the block's current content; -EIO, -ENOMEM, -EUCLEAN for a block number
 * out of range. */
int jnl_bread(struct jnl *journal, uint64_t blk, struct jnl_buf **ret) FDIO_MAY_MISS;
/* Only from the cache: -EAGAIN when it would block. For loop threads. */
int jnl_bread_cached(struct jnl *journal, uint64_t blk, struct jnl_buf **ret);
/* Hint: n blocks from blk will be read soon; one device read where contiguous. Blocking. Best effort. */
void jnl_readahead(struct jnl *journal, uint64_t blk, unsigned n) FDIO_MAY_WAIT;
/* A block just allocated by this handle: zeroed, never read from the device, already open for writing in handle. */
int jnl_bnew(struct jnl_handle *handle, uint64_t blk, struct jnl_buf **ret) FDIO_MAY_MISS;
/* Whether one of n blocks is in the cache with content that has passed a check: so it is in use.
 * Any thread, never blocks. */
bool jnl_verified(struct jnl *journal, uint64_t blk, uint64_t n);
void jnl_brelse(struct jnl_buf *buffer); /* NULL is allowed */
struct jnl_buf *jnl_bref(struct jnl_buf *buffer);

/* ---- handles ---- */
/*
 * Credits: the most blocks the handle may change (a block changed twice counts once; seal's blocks are
 * accounted by the journal itself). Waits for log space. -EROFS when read-only or aborted, -ENOSPC if
 * credits exceed what one transaction may hold. A thread has at most one handle. In the mode of nowait.h: -EAGAIN where it would
 * wait, and jnl_end is only for what has not missed.
 */
int jnl_begin(struct jnl *journal, unsigned credits, struct jnl_handle **ret) FDIO_MAY_MISS;
/* Largest credits jnl_begin takes. Long operations (truncate) split at a fraction of it. */
unsigned jnl_max_credits(struct jnl *journal);
unsigned jnl_credits_left(struct jnl_handle *handle);
/* Declares that handle will change buffer: takes the before image on the first call, joins the running transaction. */
int jnl_get_write(struct jnl_handle *handle, struct jnl_buf *buffer) FDIO_MAY_MISS;
/* The metadata block blk (n blocks from it) is being freed: revoked in this transaction if its images may be in
 * the log, dropped from the running one. Undone by jnl_cancel, but for verified, which is 0 from
 * now on. */
int jnl_forget(struct jnl_handle *handle, uint64_t blk, uint64_t n) FDIO_MAY_MISS;
/* So many blocks handle may still forget; some hundred at its beginning. Whoever may have more splits at it. */
uint64_t jnl_forgets_left(struct jnl_handle *handle);
/* Ends the handle; its changes belong to the returned tid. */
jnl_tid jnl_end(struct jnl_handle *handle);
/* Puts every block back as it was at jnl_begin, runs the undo callbacks newest first, ends the handle. */
void jnl_cancel(struct jnl_handle *handle) FDIO_MAY_WAIT;
jnl_tid jnl_handle_tid(struct jnl_handle *handle);

/*
 * Memory for the records of the callbacks below, aligned for anything, content undefined. The handle's is gone once the undo
 * callbacks have run, the transaction's once the commit callbacks have run, or the undo callbacks if the handle is cancelled. What
 * is usual is set aside, and jnl_begin sees to it that a transaction has room: NULL (no memory) only in handles that are exceptionally
 * large.
 */
void *jnl_handle_mem(struct jnl_handle *handle, size_t size);
void *jnl_txn_mem(struct jnl_handle *handle, size_t size);

struct jnl_callback {
	struct jnl_callback *next;
	void (*fn)(struct jnl_callback *cb, int err);
};
/* fn(callback, 0) once the transaction of handle is durable, fn(callback, -EIO) if the journal aborts first. On the thread that commits,
 * outside all journal locks. Not called if handle is cancelled. The record lies in jnl_txn_mem. */
void jnl_on_commit(struct jnl_handle *handle, struct jnl_callback *callback);
/* fn(callback, 0) inside jnl_cancel; fn(callback, 1) in jnl_end (nothing to undo). The record lies in jnl_handle_mem. */
void jnl_on_undo(struct jnl_handle *handle, struct jnl_callback *callback);

/* ---- durability ---- */
/* Waits until tid is durable; commits it on this thread if it is running and nobody else is at it. Everything completed on the device before the
 * call is durable too if a commit was started. *ret_flushed (may be NULL): a preflush issued after the call's start
 * covered it. -EIO if the journal aborted. */
int jnl_commit_wait(struct jnl *journal, jnl_tid tid, bool *ret_flushed) FDIO_BLOCKS;
/* Waits while another transaction than tid is being committed, so that what comes meanwhile can still join tid. */
void jnl_commit_turn(struct jnl *journal, jnl_tid tid) FDIO_BLOCKS;
/* Starts a commit of tid without waiting. */
void jnl_commit_start(struct jnl *journal, jnl_tid tid);
/* Commits whatever is running and waits; a flush if nothing is. syncfs. */
int jnl_sync(struct jnl *journal) FDIO_BLOCKS;
/* Any thread, no lock: durable overwrites ask on loop threads. False may be old at once. */
bool jnl_tid_durable(struct jnl *journal, jnl_tid tid);
/* Stops everything with err: read-only from now on. Idempotent. -ESHUTDOWN: as if the power went, so not even the error
 * is written to the log. */
void jnl_abort(struct jnl *journal, int err) FDIO_BLOCKS;
/* 0, or the error that aborted it. */
int jnl_error(struct jnl *journal);
/* A block of the journal file itself was found inside the file system's structures: for hostile images. */
bool jnl_is_log_block(struct jnl *journal, uint64_t blk);

#endif
