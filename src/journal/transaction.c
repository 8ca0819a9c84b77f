/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Transactions as containers: which blocks they hold, which they have forgotten and revoked.
 * Handles change the running one with handle lock and state lock held; whoever commits has the
 * closed one to itself. The list of images has a fixed size given by the log (JOURNAL-3), so adding
 * to it cannot fail; forgetting can, with -ENOMEM and nothing changed. Lists and tables are those
 * of a kit (struct journal_kit).
 *
 * The states of a transaction (enum journal_transaction_state), changed by
 * journal_transaction_set_state under the state lock:
 *
 *   state      event                                        next       function
 *   NONE       a handle begins and none is running          RUNNING    get_running (handle.c)
 *   RUNNING    it is closed: it has its place in the log    WRITING    make_committing (commit.c)
 *   WRITING    its log blocks have completed                FLUSHING   journal_commit_write
 *   (commit_write.c)
 *   FLUSHING   its commit block is durable                  COMMITTED  finish (commit.c)
 *   COMMITTED  all blocks are home, the tail moves over it  HOME       move_tail (checkpoint.c)
 *
 * A transaction in RUNNING is j->running, one in WRITING or FLUSHING is j->committing, one in
 * COMMITTED is on j->committed; there is at most one of each of the first two kinds. One in HOME is
 * freed. After an abort the transactions that are not committed stay in their state until the
 * journal is closed.
 */
#include "journal/journal_types.h"

#include <errno.h>
#include <stdlib.h>

/*
 * KIT_ARENA_BYTES: records of freed blocks (journal_transaction_alloc), some 600 of them.
 * ROOM_ARENA_BYTES, FREES: what a handle of the write-out path may free at most, nodes of an extent
 * tree, with room to spare. FREES_READY: what the tables are made for; beyond FREES_KEPT they are
 * not kept. TRANSACTIONS_READY: transactions whose blocks are still to be written home.
 */
enum {
	KIT_ARENA_BYTES = 64 << 10,
	ROOM_ARENA_BYTES = 8 << 10,
	FREES = 64,
	FREES_READY = 512,
	FREES_KEPT = 8192,
	TRANSACTIONS_READY = 2048
};

int journal_transaction_init_kits(struct journal *journal)
{
	if (journal_slab_reserve(&journal->transaction_slab,
				 FDIO_MIN(journal->log.len / 6, (unsigned)TRANSACTIONS_READY) + 4))
		return -ENOMEM;
	for (unsigned i = 0; i < ARRAY_SIZE(journal->kits); i++) {
		struct journal_kit *kit = &journal->kits[i];

		kit->buffers = calloc(journal->image_limit, sizeof(*kit->buffers));
		kit->forgets = calloc(FREES_READY, sizeof(*kit->forgets));
		kit->cap_forgets = FREES_READY;
		if (!kit->buffers || !kit->forgets ||
		    journal_block_set_reserve(&kit->revokes, FREES_READY) ||
		    journal_arena_init(&kit->arena, KIT_ARENA_BYTES))
			return -ENOMEM;
		journal->kits_free[i] = kit;
	}
	return 0;
}

void journal_transaction_fini_kits(struct journal *journal)
{
	for (unsigned i = 0; i < ARRAY_SIZE(journal->kits); i++) {
		struct journal_kit *kit = &journal->kits[i];

		free(kit->buffers);
		free(kit->forgets);
		journal_block_set_fini(&kit->revokes);
		journal_arena_fini(&kit->arena);
	}
}

struct journal_transaction *journal_transaction_new(struct journal *journal)
{
	struct journal_kit *kit =
			journal->kits_free[0] ? journal->kits_free[0] : journal->kits_free[1];
	struct journal_transaction *transaction =
			kit ? journal_slab_alloc(&journal->transaction_slab) : NULL;

	if (!transaction)
		return NULL;
	memset(transaction, 0, sizeof(*transaction));
	fdio_magic_set(transaction, MAGIC_JOURNAL_TRANSACTION);
	list_init(&transaction->node);
	list_init(&transaction->checkpoint_list);
	transaction->callbacks_tail = &transaction->callbacks;
	transaction->kit = kit;
	transaction->state = JOURNAL_TRANSACTION_NONE;
	journal->kits_free[kit == &journal->kits[1]] = NULL;
	return transaction;
}

/* What a large truncation needed is given back, unless there is no memory for smaller tables. */
static void shrink_kit(struct journal_kit *kit)
{
	struct journal_block_set small = { 0 };
	struct journal_cache_buffer **smaller;

	if (kit->revokes.cap > FREES_KEPT && !journal_block_set_reserve(&small, FREES_READY)) {
		journal_block_set_fini(&kit->revokes);
		kit->revokes = small;
	}
	if (kit->cap_forgets > FREES_KEPT &&
	    (smaller = realloc(kit->forgets, FREES_READY * sizeof(*smaller)))) {
		kit->forgets = smaller;
		kit->cap_forgets = FREES_READY;
	}
}

void journal_transaction_clear_kit(struct journal_kit *kit)
{
	journal_block_set_clear(&kit->revokes);
	journal_arena_clear(&kit->arena);
	shrink_kit(kit);
}

void journal_transaction_return_kit(struct journal *journal, struct journal_kit *kit)
{
	journal->kits_free[kit == &journal->kits[1]] = kit;
}

static int forgets_reserve(struct journal_transaction *transaction, unsigned n)
{
	struct journal_kit *kit = transaction->kit;
	unsigned cap = kit->cap_forgets;
	struct journal_cache_buffer **bigger;

	if (transaction->nr_forgets + n <= cap)
		return 0;
	while (transaction->nr_forgets + n > cap)
		cap *= 2;
	bigger = realloc(kit->forgets, cap * sizeof(*bigger));
	if (!bigger)
		return -ENOMEM;
	kit->forgets = bigger;
	kit->cap_forgets = cap;
	return 0;
}

bool journal_transaction_has_room(struct journal_transaction *transaction)
{
	struct journal_kit *kit = transaction->kit;

	return !journal_arena_ensure(&kit->arena, ROOM_ARENA_BYTES) &&
	       !journal_block_set_reserve(&kit->revokes, FREES) &&
	       !forgets_reserve(transaction, FREES);
}

void journal_transaction_set_state(struct journal_transaction *transaction,
				   enum journal_transaction_state next)
{
	fdio_magic_check(transaction, MAGIC_JOURNAL_TRANSACTION);
	/* There is one way through the states, and no way back. */
	FDIO_ASSERT(next == transaction->state + 1 && next <= JOURNAL_TRANSACTION_HOME);
	transaction->state = next;
}

void journal_transaction_free(struct journal *journal, struct journal_transaction *transaction)
{
	FDIO_ASSERT(transaction->state == JOURNAL_TRANSACTION_HOME &&
		    list_empty(&transaction->checkpoint_list) && !transaction->kit);
	fdio_magic_clear(transaction, MAGIC_JOURNAL_TRANSACTION);
	journal_slab_free(&journal->transaction_slab, transaction);
}

void journal_transaction_add(struct journal_transaction *transaction,
			     struct journal_cache_buffer *buffer)
{
	FDIO_ASSERT(!buffer->running && transaction->nr_buffers < buffer->journal->image_limit);
	journal_cache_ref(buffer);
	buffer->running = transaction;
	buffer->index = transaction->nr_buffers;
	transaction->kit->buffers[transaction->nr_buffers++] = buffer;
}

void journal_transaction_remove(struct journal_transaction *transaction,
				struct journal_cache_buffer *buffer)
{
	struct journal_cache_buffer **buffers = transaction->kit->buffers,
				    *last = buffers[transaction->nr_buffers - 1];

	FDIO_ASSERT(buffer->running == transaction && buffers[buffer->index] == buffer);
	buffers[buffer->index] = last;
	last->index = buffer->index;
	transaction->nr_buffers--;
	buffer->running = NULL;
	journal_cache_put(buffer);
}

int journal_transaction_forget(struct journal_transaction *transaction,
			       struct journal_cache_buffer *buffer)
{
	if (forgets_reserve(transaction, 1))
		return -ENOMEM;
	journal_cache_ref(buffer);
	buffer->forgotten_by = transaction;
	buffer->forget_index = transaction->nr_forgets;
	buffer->forget_count++;
	transaction->kit->forgets[transaction->nr_forgets++] = buffer;
	return 0;
}

void journal_transaction_unforget(struct journal_transaction *transaction,
				  struct journal_cache_buffer *buffer)
{
	struct journal_cache_buffer *last = transaction->kit->forgets[transaction->nr_forgets - 1];

	FDIO_ASSERT(buffer->forgotten_by == transaction &&
		    transaction->kit->forgets[buffer->forget_index] == buffer);
	transaction->kit->forgets[buffer->forget_index] = last;
	last->forget_index = buffer->forget_index;
	transaction->nr_forgets--;
	buffer->forgotten_by = NULL;
	buffer->forget_count--;
	journal_cache_put(buffer);
}

unsigned journal_transaction_revoke_blocks(const struct journal *journal,
					   const struct journal_transaction *transaction)
{
	return (unsigned)fdio_div_up(transaction->kit->revokes.nr, journal->log.revokes_per_block);
}
