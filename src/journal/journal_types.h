/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the journal room share and nobody else sees.
 *
 * The ordering rules. Each is asserted or implemented where its name stands in the code, and the unit
 * and crash tests cite them.
 *
 * JOURNAL-1   A block changes only inside a handle, after jnl_get_write has taken its before
 *             image; jnl_cancel restores exactly that image, the block's membership in the
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
 * Locks, outermost first: handle_lock (RANK_JNL_HANDLE), state (RANK_JNL_STATE), then one of a cache
 * shard's lock or jsb_lock (RANK_JNL_BUF), then the slabs' (RANK_LEAF).
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

/* Fixed-size objects out of big chunks; freed objects are kept for the next, chunks until the end. Any thread. */
struct jslab {
	struct fdio_mutex lock;
	size_t size, align;
	unsigned per_chunk;
	void *free;      /* linked through the first word of each object */
	void **chunks;
	unsigned nr_chunks, cap_chunks;
};

void jslab_init(struct jslab *slab, size_t size, size_t align, unsigned per_chunk);
void jslab_fini(struct jslab *slab);
/* NULL when there is no memory; content undefined. */
void *jslab_alloc(struct jslab *slab);
void jslab_free(struct jslab *slab, void *p); /* NULL is allowed */
/* At least n objects, in use or not, are there from now on. -ENOMEM. */
int jslab_reserve(struct jslab *slab, unsigned n);

/* ---- block_set.c ---- */

/* Set of block numbers, open addressing; the owner's lock guards it. */
struct jset {
	uint64_t *slot; /* block + 1; 0 is empty */
	unsigned cap, nr;
};

/* 1 added, 0 was there, -ENOMEM. Adding what was deleted before never fails: the table does not shrink. */
int jset_add(struct jset *set, uint64_t blk);
/* The next n are added without memory. -ENOMEM. */
int jset_reserve(struct jset *set, unsigned n);
bool jset_del(struct jset *set, uint64_t blk);
bool jset_has(const struct jset *set, uint64_t blk);
void jset_clear(struct jset *set);
void jset_fini(struct jset *set);

/* ---- arena.c ---- */

/* Records that end together: in one chunk that is kept, and in more when that is full. The owner guards it. */
struct jmem { struct jmem_chunk *top; size_t more; };
struct jmem_mark { struct jmem_chunk *chunk; size_t used; };

/* -ENOMEM; size: of the chunk that is kept. */
int jmem_init(struct jmem *arena, size_t size);
void jmem_fini(struct jmem *arena); /* also of what is all zeroes */
/* Aligned for anything, content undefined; NULL when there is no memory. */
void *jmem_alloc(struct jmem *arena, size_t size);
/* So many bytes are there, each record rounded up to the alignment. -ENOMEM. */
int jmem_ensure(struct jmem *arena, size_t size);
/* What was allocated since the mark is gone; jmem_clear: everything. */
struct jmem_mark jmem_mark(const struct jmem *arena);
void jmem_cut(struct jmem *arena, struct jmem_mark to);
void jmem_clear(struct jmem *arena);

/* ---- the cache ---- */

enum { JB_READING, JB_VALID, JB_ERROR };

#define JB_DEAD 0x80000000u /* in refs: out of the hash; the last reference frees it */

struct jtxn;

struct jbuf {
	struct jnl_buf public;
	FDIO_MAGIC_FIELD;
	struct jnl *journal;
	uint32_t refs;      /* atomic; JB_DEAD above */
	uint8_t state;      /* atomic; leaves JB_READING once */
	uint8_t recent;     /* atomic, relaxed: used since the clock hand passed */
	struct jbuf *hash_next; /* shard lock */
	struct list clock;  /* shard lock */

	/* handle lock */
	uint64_t handle_sequence; /* handle that has its before image */

	/* state lock (txn, idx: written under both, so either suffices to read) */
	struct jtxn *running;        /* running transaction that holds it */
	struct jtxn *committing; /* closed transaction that holds it */
	struct jtxn *forgotten_by; /* last transaction that forgot it; valid while that one is running */
	struct jtxn *checkpoint;         /* committed transaction whose home write is due */
	struct list checkpoint_node;
	uint8_t *frozen;         /* the image for the committer, when a handle needed the block first (JOURNAL-2) */
	unsigned index, forget_index;
	unsigned forget_count;     /* transactions not yet durable that forgot it */
	bool copied;             /* the committer has its image */
	bool home_write_in_flight;         /* a home write is in flight */
};

static inline struct jbuf *to_jbuf(struct jnl_buf *public)
{
	struct jbuf *buffer = container_of(public, struct jbuf, public);

	fdio_magic_check(buffer, MAGIC_JOURNAL_BUFFER);
	return buffer;
}

struct jshard {
	struct fdio_mutex lock;
	pthread_cond_t read_done;
	struct jbuf **bucket;
	unsigned mask;
	struct list clock;
	unsigned nr_buffers;
} fdio_cacheline_aligned;

#define JNL_SHARDS 64

int jcache_init(struct jnl *journal);
void jcache_fini(struct jnl *journal);
/* A reference to the buffer if the block is cached in any state, else NULL; never reads. */
struct jbuf *jcache_peek(struct jnl *journal, uint64_t blk);
/* The buffer, inserted with undefined content in JB_READING when absent (*ret_created). -ENOMEM, -EUCLEAN. */
int jcache_get(struct jnl *journal, uint64_t blk, struct jbuf **ret, bool *ret_created);
/* Ends JB_READING and wakes who waits. */
void jcache_set_state(struct jbuf *buffer, int state);
/* Waits until it is read: 0 or -EIO. */
int jcache_wait(struct jbuf *buffer) FDIO_MAY_MISS;
/* Takes it out of the hash: the next reader goes to the device. The caller holds a reference. */
void jcache_unhash(struct jbuf *buffer);
/* Drops everything that is not referenced. */
void jcache_drop_all(struct jnl *journal);
/* A sixteenth of the cache is there from now on, for what cannot be given up because it is still to go home. -ENOMEM. */
int jcache_reserve(struct jnl *journal);
/* There was no memory: gives up a block that nobody uses. False: found none. No shard's lock held. */
bool jcache_shed(struct jnl *journal);
void jbuf_ref(struct jbuf *buffer);
void jbuf_put(struct jbuf *buffer);

/* ---- transactions and handles ---- */

/*
 * What a transaction needs until it is durable and its callbacks have run. There are two, for the running transaction and the one
 * that is being committed, and they take turns: so a transaction costs no memory.
 */
struct jkit {
	struct jbuf **buffers;     /* j->limit */
	struct jset revokes;
	struct jbuf **forgets;
	unsigned cap_forgets;
	struct jmem arena;        /* jnl_txn_mem */
};

/* The states of a transaction; transaction.c has the diagram and the function that changes them. */
enum jtxn_state { JT_NONE, JT_RUNNING, JT_WRITING, JT_FLUSHING, JT_COMMITTED, JT_HOME };

struct jtxn {
	FDIO_MAGIC_FIELD;
	enum jtxn_state state;  /* state lock; leaves JT_RUNNING under the handle lock, too */
	struct list node;       /* j->committed, oldest first */
	jnl_tid tid;
	struct jkit *kit;       /* NULL once it is committed */
	unsigned nr_buffers, nr_forgets; /* in kit->bufs and kit->forgets; one reference each */
	struct jnl_callback *callbacks, **callbacks_tail;
	uint32_t log_start, log_len;
	struct list checkpoint_list;         /* buffers whose home write is due; one reference each */
	uint64_t dirty_ns;      /* atomic: when the first change came; 0: empty */
	uint64_t commit_ns;
};

enum jundo_kind { JU_IMAGE, JU_JOIN, JU_NEW, JU_FORGET };

/* What jnl_cancel takes back, newest first. */
struct jundo {
	enum jundo_kind kind;
	struct jbuf *buffer;       /* JU_FORGET: a reference, or NULL when the block was not cached */
	uint8_t *before;      /* JU_IMAGE */
	uint32_t verified;    /* JU_IMAGE */
	uint64_t blk;
	bool was_running;     /* JU_FORGET: left the running transaction */
	bool was_revoked;     /* JU_JOIN: the revocation was cancelled */
	bool forgot;          /* JU_FORGET: entered the forget list; JU_JOIN: left it */
	bool revoked;         /* JU_FORGET: the revocation is new */
};

struct jnl_handle {
	FDIO_MAGIC_FIELD;     /* only between begin and end */
	struct jnl *journal;
	struct jtxn *transaction;
	uint64_t sequence;
	unsigned credits;
	struct jundo *undo;
	unsigned nr_undo, cap_undo;
	uint8_t **images;     /* before images, kept from handle to handle */
	unsigned nr_images, cap_images;
	struct jmem arena;      /* jnl_handle_mem */
	struct jmem_mark arena_mark; /* in the transaction's memory, where the handle began */
	struct jnl_callback *callbacks, **callbacks_tail;
	struct jnl_callback *undo_callbacks; /* newest first */
};

/* ---- the log ---- */

struct jlog_extent { uint32_t lblk, len; uint64_t pblk; };

struct jlog {
	struct jlog_extent *extents; /* logical order, no holes */
	struct jnl_extent *places; /* the same in the order of their places; disjoint */
	unsigned nr_extents;
	uint8_t *superblock;             /* one block; jsb_lock */
	struct fdio_mutex superblock_lock;
	uint32_t first, end;  /* log blocks are first .. maxlen - 1 */
	uint32_t len;
	uint32_t fast_commit_blocks;      /* behind maxlen, while there is a log to replay that may go on in them; else 0 */
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

int jlog_open(struct jnl *journal, struct fdio_reason *reason) FDIO_BLOCKS;
void jlog_close(struct jnl *journal);
/* Device byte address of a log block and how many follow contiguously (itself included). */
uint64_t jlog_map(const struct jnl *journal, uint32_t lblk, uint32_t *ret_run);
static inline uint32_t jlog_wrap(const struct jlog *log, uint64_t pos)
{
	return pos >= log->end ? (uint32_t)(pos - log->len) : (uint32_t)pos;
}
/* Where the log ends: before the area of fast commits, if the log that is to be replayed has one. False: impossible. */
bool jlog_set_end(struct jnl *journal);
/* Sets the geometry of tags for the features in l->incompat. */
void jlog_set_format(struct jnl *journal);
bool jlog_sb_csum_ok(const uint8_t *sb);
/* Writes the journal superblock with these values; flags for dev_write. */
int jlog_write_sb(struct jnl *journal, uint32_t sequence, uint32_t start, unsigned flags) FDIO_BLOCKS;
/* The error of an abort, best effort. */
void jlog_write_errno(struct jnl *journal, int err) FDIO_BLOCKS;
/* Reads n log blocks from lblk on (wrapping) into buf. */
int jlog_read(struct jnl *journal, uint32_t lblk, unsigned n, uint8_t *buf) FDIO_BLOCKS;
/* Writes n log blocks (wrapping) at once. */
int jlog_write(struct jnl *journal, uint32_t lblk, unsigned n, uint8_t *buf) FDIO_BLOCKS;
/* crc32c of a whole block with its last four bytes, or the commit block's checksum, taken as zero. */
uint32_t jlog_tail_csum(const struct jnl *journal, const uint8_t *blk);
uint32_t jlog_commit_csum(const struct jnl *journal, const uint8_t *blk, size_t meaningful);
uint32_t jlog_tag_csum(const struct jnl *journal, uint32_t tid, const uint8_t *image);
/* Log blocks that a transaction needs. */
static inline uint32_t jlog_need(const struct jlog *log, uint32_t images, uint32_t revoke_blocks)
{
	return images + (uint32_t)fdio_div_up(images, log->tags_per_descriptor) + revoke_blocks + 1;
}

/* ---- the journal ---- */

/* What whoever commits is at; commit.c has the diagram and the function that changes it. */
enum jcommit_state { JC_IDLE, JC_CLOSING, JC_WRITING, JC_ONLY_FLUSH, JC_CALLBACKS };

struct jnl {
	FDIO_MAGIC_FIELD;
	struct jnl_params params;
	struct dev *dev;
	unsigned block_size;
	int error;                 /* atomic: 0 or the error of the abort */
	bool abort_told;         /* state lock: the owner knows of the abort */
	bool started;

	struct jslab buffer_slab, data_slab, transaction_slab;
	struct jshard *shards;
	uint32_t nr_buffers;        /* atomic */
	uint32_t max_buffers;
	uint32_t shed_at;        /* atomic: the shard that jcache_shed looks at next */

	struct jlog log;

	/* the handle */
	struct fdio_mutex handle_lock;
	pthread_cond_t handle_cv;
	uint8_t close_pending;   /* atomic: the committer waits for handle_lock; others step back */
	struct jnl_handle handle;
	unsigned image_limit;          /* most images of one transaction */
	unsigned credit_limit;         /* of these, what handles may take; the rest is the seal callback's */
	unsigned seal_reserve;
	unsigned revoke_slack;   /* most revoke blocks */

	/* state lock */
	struct fdio_mutex state_lock;
	pthread_cond_t commit_cv, done_cv, checkpoint_cv, space_cv;
	struct jtxn *running;    /* written under handle and state lock */
	struct jtxn *committing;
	struct list committed;
	jnl_tid head_tid;        /* of the running transaction, or the one that will be */
	jnl_tid durable_tid;     /* atomic: newest durable */
	jnl_tid done_tid;        /* newest durable whose callbacks have run */
	/* Not JC_IDLE: somebody commits, and owns log.head, log.stage and last_commit. */
	enum jcommit_state commit_state;
	bool commit_requested;
	jnl_tid commit_request;
	unsigned space_waiters;
	unsigned nr_checkpoint;          /* buffers on checkpoint lists */
	struct jkit kits[2], *kits_free[2];
	bool stop_commit, stop_checkpoint;
	struct timespec last_commit; /* who commits */
	uint64_t empty_started, empty_done; /* state lock: commits that found nothing and only flushed */
	struct jcp_item *checkpoint_items;   /* checkpoint thread */
	uint8_t *checkpoint_stage;
	pthread_t commit_thread, checkpoint_thread;
};

static inline int jnl_err(const struct jnl *journal) { return __atomic_load_n(&journal->error, __ATOMIC_ACQUIRE); }

/* State lock held, after an abort: waits until the owner has been told. */
void jabort_wait_told(struct jnl *journal) FDIO_BLOCKS;
/* 0, or the error of the abort, once the owner has been told. No journal lock held but the handle lock. */
int jabort_error(struct jnl *journal) FDIO_MAY_MISS;

/* handle.c: a handle of the transaction about to close, for the seal callback; caller holds handle_lock. */
void jhandle_open(struct jnl *journal, unsigned credits);
jnl_tid jhandle_close(struct jnl *journal);
/* After its callbacks: gives up its memory. */
void jhandle_done(struct jnl *journal);
/* Calls fn(callback, err) for each of the list; a callback's record may be gone once it was called. */
void jnl_run_callbacks(struct jnl_callback *callback, int err);

/* undo.c */
/* The handle has ended, well or not: gives up what its undo records hold. */
void jundo_end(struct jnl_handle *handle);
/* -ENOMEM; jhandle_fini in any case. */
int jhandle_init(struct jnl *journal);
void jhandle_fini(struct jnl *journal);
/* Memory for an image of a block; one that is cached and not used goes for it. NULL. */
uint8_t *jimage_alloc(struct jnl *journal);
static inline bool jtxn_empty(const struct jtxn *transaction) { return !transaction->nr_buffers && !transaction->kit->revokes.nr && !transaction->callbacks; }

/* transaction.c */
/* -ENOMEM; jtxn_fini_kits in any case. */
int jtxn_init_kits(struct jnl *journal);
void jtxn_fini_kits(struct jnl *journal);
/* State lock held. NULL when there is no memory, or no kit because an aborted transaction keeps it. */
struct jtxn *jtxn_new(struct jnl *journal);
void jtxn_free(struct jnl *journal, struct jtxn *transaction);
/* The kit of a transaction that is durable and told so serves the next. No lock: nobody else knows it. */
void jtxn_clear_kit(struct jkit *kit);
/* State lock held. */
void jtxn_return_kit(struct jnl *journal, struct jkit *kit);
/* Handle lock held: room for what a handle of the write-out path records in its transaction. */
bool jtxn_has_room(struct jtxn *transaction);
/* State lock held: moves transaction to the next state, which the diagram in transaction.c must allow. */
void jtxn_set_state(struct jtxn *transaction, enum jtxn_state next);
/* State lock held. */
void jtxn_add(struct jtxn *transaction, struct jbuf *buffer);
void jtxn_remove(struct jtxn *transaction, struct jbuf *buffer);
/* State lock held; -ENOMEM. */
int jtxn_forget(struct jtxn *transaction, struct jbuf *buffer);
void jtxn_unforget(struct jtxn *transaction, struct jbuf *buffer);
unsigned jtxn_revoke_blocks(const struct jnl *journal, const struct jtxn *transaction);

/* commit.c */
void *jcommit_thread(void *arg) FDIO_BLOCKS;
/* Commits what is running, on this thread. State lock held, dropped meanwhile; nobody else commits. */
void jcommit_now(struct jnl *journal) FDIO_BLOCKS;
/* commit_write.c: writes the closed transaction to the log, commit block included. No lock held. */
int jcommit_write(struct jnl *journal, struct jtxn *transaction) FDIO_BLOCKS;
/* checkpoint.c */
int jcheckpoint_init(struct jnl *journal);
void jcheckpoint_fini(struct jnl *journal);
void *jcheckpoint_thread(void *arg) FDIO_BLOCKS;
/* Everything committed goes home and the tail follows. No transaction may be open. */
int jcheckpoint_all(struct jnl *journal) FDIO_BLOCKS;
/* State lock held: there is work for the checkpoint thread. */
bool jcheckpoint_due(const struct jnl *journal);
/* State lock held: takes the block off its checkpoint list, if it is on one; drops the list's reference. */
void jcheckpoint_drop(struct jnl *journal, struct jbuf *buffer);
/* State lock held: puts it on transaction's list, which takes over one reference of the caller's. */
void jcheckpoint_add(struct jnl *journal, struct jtxn *transaction, struct jbuf *buffer);

/*
 * Deliberate mistakes for the tests that must notice them. Only the copy of this room that the crash
 * tests link is compiled with them; elsewhere JNL_MUTATED is a constant false.
 */
enum jnl_mutation {
	JM_NONE, JM_NO_PREFLUSH, JM_NO_FUA, JM_NO_REVOKE, JM_NO_ESCAPE, JM_NO_TAIL_FLUSH, JM_NO_FREEZE, JM_NO_ROLLBACK,
	JM_EARLY_REUSE, JM_NO_TAIL_FUA, JM_LATE_START, JM_NO_REPLAY_FLUSH, JM_NR
};
#ifdef FDIO_JNL_MUTATE
extern enum jnl_mutation jnl_mutation;
/* The log is emptied only when somebody waits for its space, so that what is freed is written over at once (JOURNAL-7). */
extern bool jnl_test_lazy;
#define JNL_LAZY jnl_test_lazy
#define JNL_MUTATED(m) (jnl_mutation == (m))
/* Widens the moment between closing a transaction and copying its images, in which handles change them (JOURNAL-2). */
void jnl_test_pause(void);
#else
#define JNL_MUTATED(m) false
#define JNL_LAZY false
static inline void jnl_test_pause(void) { }
#endif

#endif
