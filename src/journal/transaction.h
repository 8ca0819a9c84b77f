/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Transactions and the one handle: what they hold (transaction.c), how a handle starts and ends
 * (handle.c), and what it takes to undo one (undo.c). No function here waits unless it is marked.
 */
#ifndef FDIO_JOURNAL_TRANSACTION_H
#define FDIO_JOURNAL_TRANSACTION_H

#include "base/list.h"
#include "base/magic.h"
#include "base/nowait.h"
#include "journal/cache.h"
#include "journal/journal.h"
#include "journal/memory.h"

/*
 * The tables that a transaction needs until it is durable and its callbacks have run. The running
 * transaction and the committing one have the journal's two kits in turn, so a new transaction
 * allocates nothing.
 */
struct journal_kit {
	struct journal_cache_buffer **buffers; /* journal->image_limit of them */
	struct journal_block_set revokes;
	struct journal_cache_buffer **forgets;
	unsigned cap_forgets;
	struct journal_arena arena;            /* journal_transaction_alloc */
};

/* The states of a transaction. transaction.c has the diagram and the function that changes them. */
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
	/* state lock; RUNNING is left with the handle lock held too */
	enum journal_transaction_state state;
	struct list node;                /* in journal->committed, oldest first */
	journal_tid tid;
	struct journal_kit *kit;         /* NULL once it is committed */
	/* in kit->buffers and kit->forgets; each entry holds a reference */
	unsigned nr_buffers, nr_forgets;
	struct journal_callback *callbacks, **callbacks_tail;
	uint32_t log_start, log_len;     /* its place in the log, in log blocks */
	struct list checkpoint_list;     /* buffers still to go home; each holds a reference */
	uint64_t dirty_ns;               /* atomic: time of the first change; 0: empty */
	uint64_t commit_ns;              /* when it became durable */
};

static inline bool journal_transaction_is_empty(const struct journal_transaction *transaction)
{
	return !transaction->nr_buffers && !transaction->kit->revokes.nr && !transaction->callbacks;
}

int journal_transaction_init_kits(struct journal *journal); /* -ENOMEM; then fini_kits too */
void journal_transaction_fini_kits(struct journal *journal);
/* State lock held. NULL: no memory, or an aborted transaction has kept its kit. */
struct journal_transaction *journal_transaction_new(struct journal *journal);
void journal_transaction_free(struct journal *journal, struct journal_transaction *transaction);
/*
 * Empties the kit of a finished transaction for the next one. Needs no lock: no other thread has a
 * pointer to it.
 */
void journal_transaction_clear_kit(struct journal_kit *kit);
/* State lock held. */
void journal_transaction_return_kit(struct journal *journal, struct journal_kit *kit);
/* Handle lock held. True: there is memory for what a handle of the write-out path records. */
bool journal_transaction_has_room(struct journal_transaction *transaction);
/* State lock held. next must be the next state of the diagram in transaction.c. */
void journal_transaction_set_state(struct journal_transaction *transaction,
				   enum journal_transaction_state next);
/* These four need the handle lock and the state lock. */
void journal_transaction_add(struct journal_transaction *transaction,
			     struct journal_cache_buffer *buffer);
void journal_transaction_remove(struct journal_transaction *transaction,
				struct journal_cache_buffer *buffer);
int journal_transaction_forget(struct journal_transaction *transaction,
			       struct journal_cache_buffer *buffer); /* -ENOMEM */
void journal_transaction_unforget(struct journal_transaction *transaction,
				  struct journal_cache_buffer *buffer);
/* Log blocks that the transaction's revocations fill. */
unsigned journal_transaction_revoke_blocks(const struct journal *journal,
					   const struct journal_transaction *transaction);

/* ---- the handle ---- */

enum journal_undo_kind {
	JOURNAL_UNDO_IMAGE,  /* the block had this content */
	JOURNAL_UNDO_JOIN,   /* the block joined the transaction */
	JOURNAL_UNDO_NEW,    /* the buffer was made, without reading the block */
	JOURNAL_UNDO_FORGET  /* the block was forgotten and revoked */
};

/* One step that journal_cancel takes back, newest first. */
struct journal_undo {
	enum journal_undo_kind kind;
	struct journal_cache_buffer *buffer; /* NEW: a reference; FORGET: one, or NULL */
	uint8_t *before;                     /* IMAGE */
	uint32_t verified;                   /* IMAGE */
	uint64_t blk;                        /* JOIN, FORGET */
	bool was_running;                    /* FORGET: it left the running transaction */
	bool was_revoked;                    /* JOIN: its revocation was dropped */
	bool forgot;                         /* FORGET: entered kit->forgets; JOIN: left it */
	bool revoked;                        /* FORGET: the revocation is new */
};

struct journal_handle {
	FDIO_MAGIC_FIELD;                    /* set only while the handle is open */
	struct journal *journal;
	struct journal_transaction *transaction;
	uint64_t sequence; /* counts handles; compared with handle_sequence of a buffer */
	unsigned credits;                    /* blocks that it may still change */
	struct journal_undo *undo;
	unsigned nr_undo, cap_undo;
	uint8_t **images;                    /* before images, kept from handle to handle */
	unsigned nr_images, cap_images;
	struct journal_arena arena;          /* journal_handle_alloc */
	struct journal_arena_mark arena_mark; /* of the kit's arena when the handle began */
	struct journal_callback *callbacks, **callbacks_tail;
	struct journal_callback *undo_callbacks; /* newest first */
};

/*
 * Handle lock held, for these three: opens the handle on the running transaction, closes it (its
 * changes belong to the returned transaction), and frees its records after its callbacks have run.
 */
void journal_handle_open(struct journal *journal, unsigned credits);
journal_tid journal_handle_close(struct journal *journal);
void journal_handle_done(struct journal *journal);
/* Calls fn(callback, err) for each in the list; a call may free its callback. */
void journal_run_callbacks(struct journal_callback *callback, int err);

int journal_undo_init(struct journal *journal); /* -ENOMEM; then journal_undo_fini too */
void journal_undo_fini(struct journal *journal);
/* Puts every block back as it was before the handle; the undo log stays. */
void journal_undo_all(struct journal_handle *handle);
/* The handle has ended, well or not: gives up the references and images of its undo log. */
void journal_undo_end(struct journal_handle *handle);

#endif
