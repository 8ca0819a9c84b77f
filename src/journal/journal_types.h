/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * struct journal, and the functions of abort, commit and checkpoint that several files of the room
 * call. Private to the room and its tests.
 *
 * The rules of ordering follow. Each is asserted or implemented where its name stands in the code,
 * and unit and crash tests cite them.
 *
 * JOURNAL-1   A block changes only inside a handle, after journal_get_write has taken its before
 *             image; journal_cancel restores exactly that image, the block's membership in the
 *             transaction and its revocation.
 * JOURNAL-2   What reaches the log is each block as it was when its transaction closed: either
 *             the committer has copied it, or the handle that wants to change it copies it
 *             first ("frozen").
 * JOURNAL-3   Log space is reserved before a handle starts: closing a transaction never waits
 *             for space.
 * JOURNAL-4   Log blocks complete, then flush, then the commit block with FUA; only then is it
 *             durable.
 * JOURNAL-5   The journal superblock points at the log's first transaction before that
 *             transaction's flush.
 * JOURNAL-6   Home writes come from committed images only: never of a block that is in the
 *             running or closing transaction or that one of these has forgotten. Home writes
 *             are copies, so handles need not wait for them.
 * JOURNAL-7   The tail moves: home writes complete, then flush, then journal superblock with
 *             FUA, and only then is the log space used again.
 * JOURNAL-8   A forgotten block is revoked in the transaction that frees it and leaves that
 *             transaction's images. Once that transaction is durable, the block leaves its
 *             checkpoint list and any home write of it ends; only then the commit callbacks
 *             run, which let the block be used again.
 * JOURNAL-9   Transaction ids in the log are consecutive; commit times never decrease; at start
 *             the id jumps by the log's length so that no stale block can carry an expected id.
 * JOURNAL-10  After an abort nothing is written but the error in the journal superblock, and
 *             no waiter hears of it before the owner's aborted callback has returned.
 * JOURNAL-11  A clean stop: everything home, flush, then s_start = 0 with FUA.
 * JOURNAL-12  Replay writes nothing before the whole log has been scanned and verified, writes
 *             home, flushes, and only then empties the log. Running it twice does the same.
 *
 * Locks, outermost first: handle_lock (RANK_JOURNAL_HANDLE), state_lock (RANK_JOURNAL_STATE), then
 * a cache shard's lock or log.superblock_lock (RANK_JOURNAL_INNER), then a slab's (RANK_LEAF).
 *
 * Files, from the bottom; each calls only those before it: slab, block_set, arena, cache, log,
 * abort, transaction, commit_request, checkpoint_list, undo, handle, commit_write, commit, sync,
 * checkpoint, replay_log, replay, journal.
 */
#ifndef FDIO_JOURNAL_JOURNAL_TYPES_H
#define FDIO_JOURNAL_JOURNAL_TYPES_H

#include "base/list.h"
#include "base/lock.h"
#include "base/magic.h"
#include "base/nowait.h"
#include "base/reason.h"
#include "journal/cache.h"
#include "journal/format.h"
#include "journal/journal.h"
#include "journal/log.h"
#include "journal/memory.h"
#include "journal/mutation.h"
#include "journal/transaction.h"

/* What the committing thread is doing; commit.c has the diagram. */
enum journal_commit_state {
	JOURNAL_COMMIT_IDLE,
	JOURNAL_COMMIT_CLOSING,
	JOURNAL_COMMIT_WRITING,
	JOURNAL_COMMIT_ONLY_FLUSH,
	JOURNAL_COMMIT_CALLBACKS
};

struct journal {
	FDIO_MAGIC_FIELD;
	struct journal_params params;
	struct dev *dev;
	unsigned block_size;
	int error;              /* atomic: 0, or the error of the abort */
	bool abort_told;        /* state lock: the aborted callback has returned */
	bool started;

	struct journal_slab buffer_slab, data_slab, transaction_slab;
	struct journal_cache_shard *shards;
	uint32_t nr_buffers;    /* atomic */
	uint32_t max_buffers;
	uint32_t shed_at;       /* atomic: the shard that journal_cache_shed looks at next */

	struct journal_log log;

	/* handle lock */
	struct fdio_mutex handle_lock;
	pthread_cond_t handle_cv;
	uint8_t close_pending;  /* atomic: a committer wants handle_lock, so new handles wait */
	struct journal_handle handle;

	/* limits of one transaction, set by journal_start */
	unsigned image_limit;   /* images */
	unsigned credit_limit;  /* of these, for handles; the rest is for the seal callback */
	unsigned seal_reserve;  /* of these, for the seal callback */
	unsigned revoke_slack;  /* log blocks kept for revocations */

	/* state lock */
	struct fdio_mutex state_lock;
	pthread_cond_t commit_cv, done_cv, checkpoint_cv, space_cv;
	struct journal_transaction *running; /* changes under the handle lock too */
	struct journal_transaction *committing;
	struct list committed;               /* transactions with blocks still to go home */
	journal_tid head_tid;                /* of the running transaction, or of the next one */
	journal_tid durable_tid;             /* atomic: newest durable */
	journal_tid done_tid;                /* newest durable whose callbacks have run */
	/* unless this is IDLE, one thread commits and owns log.head, log.stage and last_commit */
	enum journal_commit_state commit_state;
	bool commit_requested;
	journal_tid commit_request;
	unsigned space_waiters;              /* handles that wait for log space */
	unsigned nr_checkpoint;              /* buffers on checkpoint lists */
	struct journal_kit kits[2], *kits_free[2];
	bool stop_commit, stop_checkpoint;
	uint64_t empty_started, empty_done;  /* commits that found nothing and only flushed */

	struct timespec last_commit;         /* the committing thread: time of its last commit */
	struct journal_checkpoint_item *checkpoint_items; /* the checkpoint thread */
	uint8_t *checkpoint_stage;                        /* the checkpoint thread */
	pthread_t commit_thread, checkpoint_thread;
};

/* ---- abort.c ---- */

static inline int journal_abort_error(const struct journal *journal)
{
	return __atomic_load_n(&journal->error, __ATOMIC_ACQUIRE);
}

/* State lock held, after an abort: waits until the aborted callback has returned. */
void journal_abort_wait_told(struct journal *journal) FDIO_BLOCKS;
/*
 * 0, or the error of the abort once the aborted callback has returned. The caller holds no lock of
 * the journal but the handle lock.
 */
int journal_abort_error_told(struct journal *journal) FDIO_MAY_MISS;

/* ---- commit_request.c, commit.c, commit_write.c ---- */

/* Requests a commit of tid, and does not wait for it. */
void journal_commit_start(struct journal *journal, journal_tid tid);
void *journal_commit_thread(void *arg) FDIO_BLOCKS;
/*
 * Commits the running transaction on this thread. State lock held, but dropped meanwhile; the state
 * must be JOURNAL_COMMIT_IDLE.
 */
void journal_commit_now(struct journal *journal) FDIO_BLOCKS;
/* Writes the closed transaction to the log, commit block included. No lock held. */
int journal_commit_write(struct journal *journal,
			 struct journal_transaction *transaction) FDIO_BLOCKS;

/* ---- checkpoint_list.c, checkpoint.c ---- */

/* State lock held: the list takes over one reference of the caller's. */
void journal_checkpoint_add(struct journal *journal, struct journal_transaction *transaction,
			    struct journal_cache_buffer *buffer);
/*
 * State lock held: takes the block off its list, if it is on one, and drops the list's reference.
 */
void journal_checkpoint_drop(struct journal *journal, struct journal_cache_buffer *buffer);
/* State lock held. True: the checkpoint thread has to write blocks home now. */
bool journal_checkpoint_due(const struct journal *journal);
int journal_checkpoint_init(struct journal *journal);
void journal_checkpoint_fini(struct journal *journal);
void *journal_checkpoint_thread(void *arg) FDIO_BLOCKS;
/* Writes everything committed home and moves the tail. No transaction may be open. */
int journal_checkpoint_all(struct journal *journal) FDIO_BLOCKS;

#endif
