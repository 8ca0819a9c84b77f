/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the journal room share and nobody else sees.
 *
 * The ordering rules. Each is asserted or implemented where its name stands in the code, and the
 * unit and crash tests cite them.
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
 *             running or closing transaction or that one of these has forgotten. They are
 *             copies, so handles need not wait.
 * JOURNAL-7   The tail moves: home writes complete, then flush, then journal superblock with
 *             FUA, and only then is the log space used again.
 * JOURNAL-8   A forgotten block is revoked in the transaction that frees it and leaves that
 *             transaction's images; once it is durable, the block has left every checkpoint
 *             list and no home write of it is in flight, and only then the commit callbacks run
 *             (which let the block be used again).
 * JOURNAL-9   Transaction ids in the log are consecutive; commit times never decrease; at start
 *             the id jumps by the log's length so that no stale block can carry an expected id.
 * JOURNAL-10  After an abort nothing is written but the error in the journal superblock, and
 *             nobody who waits is told before the owner's aborted callback has returned.
 * JOURNAL-11  A clean stop: everything home, flush, then s_start = 0 with FUA.
 * JOURNAL-12  Replay writes nothing before the whole log has been scanned and verified, writes
 *             home, flushes, and only then empties the log; doing it twice does the same.
 *
 * Locks, outermost first: handle_lock (RANK_JOURNAL_HANDLE), state (RANK_JOURNAL_STATE), then one
 * of a cache shard's lock or jsb_lock (RANK_JOURNAL_BUF), then the slabs' (RANK_LEAF).
 */
#ifndef FDIO_JOURNAL_JOURNAL_TYPES_H
#define FDIO_JOURNAL_JOURNAL_TYPES_H

#include "base/list.h"
#include "base/lock.h"
#include "base/magic.h"
#include "base/nowait.h"
#include "base/reason.h"
#include "journal/journal.h"
#include "journal/format.h"

/* ---- slab.c ---- */

/*
 * Fixed-size objects out of big chunks; freed objects are kept for the next, chunks until the end.
 * Any thread.
 */
struct journal_slab {
	struct fdio_mutex lock;
	size_t size, align;
	unsigned per_chunk;
	void *free;      /* linked through the first word of each object */
	void **chunks;
	unsigned nr_chunks, cap_chunks;
};

void journal_slab_init(struct journal_slab *slab, size_t size, size_t align, unsigned per_chunk);
void journal_slab_fini(struct journal_slab *slab);
/* NULL when there is no memory; content undefined. */
void *journal_slab_alloc(struct journal_slab *slab);
void journal_slab_free(struct journal_slab *slab, void *p); /* NULL is allowed */
/* At least n objects, in use or not, are there from now on. -ENOMEM. */
int journal_slab_reserve(struct journal_slab *slab, unsigned n);

/* ---- block_set.c ---- */

/* Set of block numbers, open addressing; the owner's lock guards it. */
struct journal_block_set {
	uint64_t *slot; /* block + 1; 0 is empty */
	unsigned cap, nr;
};

/*
 * 1 added, 0 was there, -ENOMEM. Adding what was deleted before never fails: the table does not
 * shrink.
 */
int journal_block_set_add(struct journal_block_set *set, uint64_t blk);
/* The next n are added without memory. -ENOMEM. */
int journal_block_set_reserve(struct journal_block_set *set, unsigned n);
bool journal_block_set_remove(struct journal_block_set *set, uint64_t blk);
bool journal_block_set_has(const struct journal_block_set *set, uint64_t blk);
void journal_block_set_clear(struct journal_block_set *set);
void journal_block_set_fini(struct journal_block_set *set);

/* ---- arena.c ---- */

/*
 * Records that end together: in one chunk that is kept, and in more when that is full. The owner
 * guards it.
 */
struct journal_arena { struct journal_arena_chunk *top; size_t more; };
struct journal_arena_mark { struct journal_arena_chunk *chunk; size_t used; };

/* -ENOMEM; size: of the chunk that is kept. */
int journal_arena_init(struct journal_arena *arena, size_t size);
void journal_arena_fini(struct journal_arena *arena); /* also of what is all zeroes */
/* Aligned for anything, content undefined; NULL when there is no memory. */
void *journal_arena_alloc(struct journal_arena *arena, size_t size);
/* So many bytes are there, each record rounded up to the alignment. -ENOMEM. */
int journal_arena_ensure(struct journal_arena *arena, size_t size);
/* What was allocated since the mark is gone; journal_arena_clear: everything. */
struct journal_arena_mark journal_arena_mark(const struct journal_arena *arena);
void journal_arena_cut(struct journal_arena *arena, struct journal_arena_mark to);
void journal_arena_clear(struct journal_arena *arena);

/* ---- the cache ---- */

enum { JOURNAL_BUFFER_READING, JOURNAL_BUFFER_VALID, JOURNAL_BUFFER_ERROR };

#define JOURNAL_BUFFER_DEAD 0x80000000u /* in refs: out of the hash; the last reference frees it */

struct journal_transaction;

struct journal_cache_buffer {
	struct journal_buffer public;
	FDIO_MAGIC_FIELD;
	struct journal *journal;
	uint32_t refs;      /* atomic; JOURNAL_BUFFER_DEAD above */
	uint8_t state;      /* atomic; leaves JOURNAL_BUFFER_READING once */
	uint8_t recent;     /* atomic, relaxed: used since the clock hand passed */
	struct journal_cache_buffer *hash_next; /* shard lock */
	struct list clock;  /* shard lock */

	/* handle lock */
	uint64_t handle_sequence; /* handle that has its before image */

	/* state lock (txn, idx: written under both, so either suffices to read) */
	struct journal_transaction *running;        /* running transaction that holds it */
	struct journal_transaction *committing; /* closed transaction that holds it */
	/* last transaction that forgot it; valid while that one is running */
	struct journal_transaction *forgotten_by;
	/* committed transaction whose home write is due */
	struct journal_transaction *checkpoint;
	struct list checkpoint_node;
	/* the image for the committer, when a handle needed the block first (JOURNAL-2) */
	uint8_t *frozen;
	unsigned index, forget_index;
	unsigned forget_count;     /* transactions not yet durable that forgot it */
	bool copied;             /* the committer has its image */
	bool home_write_in_flight;         /* a home write is in flight */
};

static inline struct journal_cache_buffer *to_cache_buffer(struct journal_buffer *public)
{
	struct journal_cache_buffer *buffer =
			container_of(public, struct journal_cache_buffer, public);

	fdio_magic_check(buffer, MAGIC_JOURNAL_BUFFER);
	return buffer;
}

struct journal_cache_shard {
	struct fdio_mutex lock;
	pthread_cond_t read_done;
	struct journal_cache_buffer **bucket;
	unsigned mask;
	struct list clock;
	unsigned nr_buffers;
} fdio_cacheline_aligned;

#define JOURNAL_CACHE_SHARDS 64

int journal_cache_init(struct journal *journal);
void journal_cache_fini(struct journal *journal);
/* A reference to the buffer if the block is cached in any state, else NULL; never reads. */
struct journal_cache_buffer *journal_cache_peek(struct journal *journal, uint64_t blk);
/*
 * The buffer, inserted with undefined content in JOURNAL_BUFFER_READING when absent (*ret_created).
 * -ENOMEM, -EUCLEAN.
 */
int journal_cache_get(struct journal *journal, uint64_t blk, struct journal_cache_buffer **ret,
		      bool *ret_created);
/* Ends JOURNAL_BUFFER_READING and wakes who waits. */
void journal_cache_set_state(struct journal_cache_buffer *buffer, int state);
/* Waits until it is read: 0 or -EIO. */
int journal_cache_wait(struct journal_cache_buffer *buffer) FDIO_MAY_MISS;
/* Takes it out of the hash: the next reader goes to the device. The caller holds a reference. */
void journal_cache_unhash(struct journal_cache_buffer *buffer);
/* Drops everything that is not referenced. */
void journal_cache_drop_all(struct journal *journal);
/*
 * A sixteenth of the cache is there from now on, for what cannot be given up because it is still to
 * go home. -ENOMEM.
 */
int journal_cache_reserve(struct journal *journal);
/*
 * There was no memory: gives up a block that nobody uses. False: found none. No shard's lock held.
 */
bool journal_cache_shed(struct journal *journal);
void journal_cache_ref(struct journal_cache_buffer *buffer);
void journal_cache_put(struct journal_cache_buffer *buffer);

/* ---- transactions and handles ---- */

/*
 * What a transaction needs until it is durable and its callbacks have run. There are two, for the
 * running transaction and the one that is being committed, and they take turns: so a transaction
 * costs no memory.
 */
struct journal_kit {
	struct journal_cache_buffer **buffers;     /* j->limit */
	struct journal_block_set revokes;
	struct journal_cache_buffer **forgets;
	unsigned cap_forgets;
	struct journal_arena arena;        /* journal_transaction_alloc */
};

/* The states of a transaction; transaction.c has the diagram and the function that changes them. */
enum journal_transaction_state {
	JOURNAL_TRANSACTION_NONE,
	JOURNAL_TRANSACTION_RUNNING,
	JOURNAL_TRANSACTION_WRITING,
	JOURNAL_TRANSACTION_FLUSHING,
	JOURNAL_TRANSACTION_COMMITTED,
	JOURNAL_TRANSACTION_HOME
};

struct journal_transaction {
	FDIO_MAGIC_FIELD;
	/* state lock; leaves JOURNAL_TRANSACTION_RUNNING under the handle lock, too */
	enum journal_transaction_state state;
	struct list node;       /* j->committed, oldest first */
	journal_tid tid;
	struct journal_kit *kit;       /* NULL once it is committed */
	unsigned nr_buffers, nr_forgets; /* in kit->bufs and kit->forgets; one reference each */
	struct journal_callback *callbacks, **callbacks_tail;
	uint32_t log_start, log_len;
	/* buffers whose home write is due; one reference each */
	struct list checkpoint_list;
	uint64_t dirty_ns;      /* atomic: when the first change came; 0: empty */
	uint64_t commit_ns;
};

enum journal_undo_kind {
	JOURNAL_UNDO_IMAGE,
	JOURNAL_UNDO_JOIN,
	JOURNAL_UNDO_NEW,
	JOURNAL_UNDO_FORGET
};

/* What journal_cancel takes back, newest first. */
struct journal_undo {
	enum journal_undo_kind kind;
	/* JOURNAL_UNDO_FORGET: a reference, or NULL when the block was not cached */
	struct journal_cache_buffer *buffer;
	uint8_t *before;      /* JOURNAL_UNDO_IMAGE */
	uint32_t verified;    /* JOURNAL_UNDO_IMAGE */
	uint64_t blk;
	bool was_running;     /* JOURNAL_UNDO_FORGET: left the running transaction */
	bool was_revoked;     /* JOURNAL_UNDO_JOIN: the revocation was cancelled */
	/* JOURNAL_UNDO_FORGET: entered the forget list; JOURNAL_UNDO_JOIN: left it */
	bool forgot;
	bool revoked;         /* JOURNAL_UNDO_FORGET: the revocation is new */
};

struct journal_handle {
	FDIO_MAGIC_FIELD;     /* only between begin and end */
	struct journal *journal;
	struct journal_transaction *transaction;
	uint64_t sequence;
	unsigned credits;
	struct journal_undo *undo;
	unsigned nr_undo, cap_undo;
	uint8_t **images;     /* before images, kept from handle to handle */
	unsigned nr_images, cap_images;
	struct journal_arena arena;      /* journal_handle_alloc */
	/* in the transaction's memory, where the handle began */
	struct journal_arena_mark arena_mark;
	struct journal_callback *callbacks, **callbacks_tail;
	struct journal_callback *undo_callbacks; /* newest first */
};

/* ---- the log ---- */

struct journal_log_extent { uint32_t lblk, len; uint64_t pblk; };

struct journal_log {
	struct journal_log_extent *extents; /* logical order, no holes */
	struct journal_extent *places; /* the same in the order of their places; disjoint */
	unsigned nr_extents;
	uint8_t *superblock;             /* one block; jsb_lock */
	struct fdio_mutex superblock_lock;
	uint32_t first, end;  /* log blocks are first .. maxlen - 1 */
	uint32_t len;
	/* behind maxlen, while there is a log to replay that may go on in them; else 0 */
	uint32_t fast_commit_blocks;
	uint32_t incompat;
	uint32_t checksum_seed;
	unsigned tags_per_descriptor, tag_bytes;
	unsigned revokes_per_block;
	uint32_t head;           /* who commits: next log block */
	uint32_t free;           /* atomic; grows under the state lock, shrinks at close */
	bool active;             /* s_start is set: state lock */
	uint8_t *stage;          /* who commits: log blocks on their way out */
	unsigned stage_blocks;
};

int journal_log_open(struct journal *journal, struct fdio_reason *reason) FDIO_BLOCKS;
void journal_log_close(struct journal *journal);
/* Device byte address of a log block and how many follow contiguously (itself included). */
uint64_t journal_log_map(const struct journal *journal, uint32_t lblk, uint32_t *ret_run);
static inline uint32_t journal_log_wrap(const struct journal_log *log, uint64_t pos)
{
	return pos >= log->end ? (uint32_t)(pos - log->len) : (uint32_t)pos;
}
/*
 * Where the log ends: before the area of fast commits, if the log that is to be replayed has one.
 * False: impossible.
 */
bool journal_log_set_end(struct journal *journal);
/* Sets the geometry of tags for the features in l->incompat. */
void journal_log_set_format(struct journal *journal);
bool journal_log_superblock_checksum_ok(const uint8_t *sb);
/* Writes the journal superblock with these values; flags for dev_write. */
int journal_log_write_superblock(struct journal *journal, uint32_t sequence, uint32_t start,
				 unsigned flags) FDIO_BLOCKS;
/* The error of an abort, best effort. */
void journal_log_write_error(struct journal *journal, int err) FDIO_BLOCKS;
/* Reads n log blocks from lblk on (wrapping) into buf. */
int journal_log_read(struct journal *journal, uint32_t lblk, unsigned n, uint8_t *buf) FDIO_BLOCKS;
/* Writes n log blocks (wrapping) at once. */
int journal_log_write(struct journal *journal, uint32_t lblk, unsigned n, uint8_t *buf) FDIO_BLOCKS;
/*
 * crc32c of a whole block with its last four bytes, or the commit block's checksum, taken as zero.
 */
uint32_t journal_log_tail_checksum(const struct journal *journal, const uint8_t *blk);
uint32_t journal_log_commit_checksum(const struct journal *journal, const uint8_t *blk,
				     size_t meaningful);
uint32_t journal_log_tag_checksum(const struct journal *journal, uint32_t tid,
				  const uint8_t *image);
/* Log blocks that a transaction needs. */
static inline uint32_t journal_log_blocks_needed(const struct journal_log *log, uint32_t images,
						 uint32_t revoke_blocks)
{
	return images + (uint32_t)fdio_div_up(images, log->tags_per_descriptor) + revoke_blocks + 1;
}

/* ---- the journal ---- */

/* What whoever commits is at; commit.c has the diagram and the function that changes it. */
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
	int error;                 /* atomic: 0 or the error of the abort */
	bool abort_told;         /* state lock: the owner knows of the abort */
	bool started;

	struct journal_slab buffer_slab, data_slab, transaction_slab;
	struct journal_cache_shard *shards;
	uint32_t nr_buffers;        /* atomic */
	uint32_t max_buffers;
	uint32_t shed_at;        /* atomic: the shard that journal_cache_shed looks at next */

	struct journal_log log;

	/* the handle */
	struct fdio_mutex handle_lock;
	pthread_cond_t handle_cv;
	uint8_t close_pending;   /* atomic: the committer waits for handle_lock; others step back */
	struct journal_handle handle;
	unsigned image_limit;          /* most images of one transaction */
	/* of these, what handles may take; the rest is the seal callback's */
	unsigned credit_limit;
	unsigned seal_reserve;
	unsigned revoke_slack;   /* most revoke blocks */

	/* state lock */
	struct fdio_mutex state_lock;
	pthread_cond_t commit_cv, done_cv, checkpoint_cv, space_cv;
	struct journal_transaction *running;    /* written under handle and state lock */
	struct journal_transaction *committing;
	struct list committed;
	journal_tid head_tid;        /* of the running transaction, or the one that will be */
	journal_tid durable_tid;     /* atomic: newest durable */
	journal_tid done_tid;        /* newest durable whose callbacks have run */
	/*
	 * Not JOURNAL_COMMIT_IDLE: somebody commits, and owns log.head, log.stage and last_commit.
	 */
	enum journal_commit_state commit_state;
	bool commit_requested;
	journal_tid commit_request;
	unsigned space_waiters;
	unsigned nr_checkpoint;          /* buffers on checkpoint lists */
	struct journal_kit kits[2], *kits_free[2];
	bool stop_commit, stop_checkpoint;
	struct timespec last_commit; /* who commits */
	/* state lock: commits that found nothing and only flushed */
	uint64_t empty_started, empty_done;
	struct journal_checkpoint_item *checkpoint_items;   /* checkpoint thread */
	uint8_t *checkpoint_stage;
	pthread_t commit_thread, checkpoint_thread;
};

static inline int journal_abort_error(const struct journal *journal)
{
	return __atomic_load_n(&journal->error, __ATOMIC_ACQUIRE);
}

/* State lock held, after an abort: waits until the owner has been told. */
void journal_abort_wait_told(struct journal *journal) FDIO_BLOCKS;
/*
 * 0, or the error of the abort, once the owner has been told. No journal lock held but the handle
 * lock.
 */
int journal_abort_error_told(struct journal *journal) FDIO_MAY_MISS;

/*
 * handle.c: a handle of the transaction about to close, for the seal callback; caller holds
 * handle_lock.
 */
void journal_handle_open(struct journal *journal, unsigned credits);
journal_tid journal_handle_close(struct journal *journal);
/* After its callbacks: gives up its memory. */
void journal_handle_done(struct journal *journal);
/*
 * Calls fn(callback, err) for each of the list; a callback's record may be gone once it was called.
 */
void journal_run_callbacks(struct journal_callback *callback, int err);

/* undo.c */
/* The handle has ended, well or not: gives up what its undo records hold. */
void journal_undo_end(struct journal_handle *handle);
/* -ENOMEM; journal_handle_fini in any case. */
int journal_handle_init(struct journal *journal);
void journal_handle_fini(struct journal *journal);
/* Memory for an image of a block; one that is cached and not used goes for it. NULL. */
uint8_t *journal_image_alloc(struct journal *journal);
static inline bool journal_transaction_is_empty(const struct journal_transaction *transaction)
{
	return !transaction->nr_buffers && !transaction->kit->revokes.nr && !transaction->callbacks;
}

/* transaction.c */
/* -ENOMEM; journal_transaction_fini_kits in any case. */
int journal_transaction_init_kits(struct journal *journal);
void journal_transaction_fini_kits(struct journal *journal);
/*
 * State lock held. NULL when there is no memory, or no kit because an aborted transaction keeps it.
 */
struct journal_transaction *journal_transaction_new(struct journal *journal);
void journal_transaction_free(struct journal *journal, struct journal_transaction *transaction);
/*
 * The kit of a transaction that is durable and told so serves the next. No lock: nobody else knows
 * it.
 */
void journal_transaction_clear_kit(struct journal_kit *kit);
/* State lock held. */
void journal_transaction_return_kit(struct journal *journal, struct journal_kit *kit);
/* Handle lock held: room for what a handle of the write-out path records in its transaction. */
bool journal_transaction_has_room(struct journal_transaction *transaction);
/*
 * State lock held: moves transaction to the next state, which the diagram in transaction.c must
 * allow.
 */
void journal_transaction_set_state(struct journal_transaction *transaction,
				   enum journal_transaction_state next);
/* State lock held. */
void journal_transaction_add(struct journal_transaction *transaction,
			     struct journal_cache_buffer *buffer);
void journal_transaction_remove(struct journal_transaction *transaction,
				struct journal_cache_buffer *buffer);
/* State lock held; -ENOMEM. */
int journal_transaction_forget(struct journal_transaction *transaction,
			       struct journal_cache_buffer *buffer);
void journal_transaction_unforget(struct journal_transaction *transaction,
				  struct journal_cache_buffer *buffer);
unsigned journal_transaction_revoke_blocks(const struct journal *journal,
					   const struct journal_transaction *transaction);

/* commit.c */
void *journal_commit_thread(void *arg) FDIO_BLOCKS;
/*
 * Commits what is running, on this thread. State lock held, dropped meanwhile; nobody else commits.
 */
void journal_commit_now(struct journal *journal) FDIO_BLOCKS;
/* commit_write.c: writes the closed transaction to the log, commit block included. No lock held. */
int journal_commit_write(struct journal *journal,
			 struct journal_transaction *transaction) FDIO_BLOCKS;
/* checkpoint.c */
int journal_checkpoint_init(struct journal *journal);
void journal_checkpoint_fini(struct journal *journal);
void *journal_checkpoint_thread(void *arg) FDIO_BLOCKS;
/* Everything committed goes home and the tail follows. No transaction may be open. */
int journal_checkpoint_all(struct journal *journal) FDIO_BLOCKS;
/* State lock held: there is work for the checkpoint thread. */
bool journal_checkpoint_due(const struct journal *journal);
/*
 * State lock held: takes the block off its checkpoint list, if it is on one; drops the list's
 * reference.
 */
void journal_checkpoint_drop(struct journal *journal, struct journal_cache_buffer *buffer);
/*
 * State lock held: puts it on transaction's list, which takes over one reference of the caller's.
 */
void journal_checkpoint_add(struct journal *journal, struct journal_transaction *transaction,
			    struct journal_cache_buffer *buffer);

/*
 * Deliberate mistakes for the tests that must notice them. Only the copy of this room that the
 * crash tests link is compiled with them; elsewhere JOURNAL_MUTATED is a constant false.
 */
enum journal_mutation {
	JOURNAL_MUTATION_NONE,
	JOURNAL_MUTATION_NO_PREFLUSH,
	JOURNAL_MUTATION_NO_FUA,
	JOURNAL_MUTATION_NO_REVOKE,
	JOURNAL_MUTATION_NO_ESCAPE,
	JOURNAL_MUTATION_NO_TAIL_FLUSH,
	JOURNAL_MUTATION_NO_FREEZE,
	JOURNAL_MUTATION_NO_ROLLBACK,
	JOURNAL_MUTATION_EARLY_REUSE,
	JOURNAL_MUTATION_NO_TAIL_FUA,
	JOURNAL_MUTATION_LATE_START,
	JOURNAL_MUTATION_NO_REPLAY_FLUSH,
	JOURNAL_MUTATION_COUNT
};
#ifdef FDIO_JOURNAL_MUTATE
extern enum journal_mutation journal_mutation;
/*
 * The log is emptied only when somebody waits for its space, so that what is freed is written over
 * at once (JOURNAL-7).
 */
extern bool journal_test_lazy;
#define JOURNAL_LAZY journal_test_lazy
#define JOURNAL_MUTATED(m) (journal_mutation == (m))
/*
 * Widens the moment between closing a transaction and copying its images, in which handles change
 * them (JOURNAL-2).
 */
void journal_test_pause(void);
#else
#define JOURNAL_MUTATED(m) false
#define JOURNAL_LAZY false
static inline void journal_test_pause(void) { }
#endif

#endif
