/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Transactions as containers: the blocks that one holds, and those that it has forgotten and
 * revoked. The tables are those of its kit (struct journal_kit).
 *
 * Runs on every thread that has a handle, loop threads included, on the committing thread and on
 * the checkpoint thread; never waits. Handles change the running transaction with handle lock and
 * state lock held; the closed one belongs to the committing thread. The table of blocks has a fixed
 * size that follows from the log (JOURNAL-3), so adding to it cannot fail; forgetting can fail,
 * with -ENOMEM and nothing changed.
 *
 * The states of a transaction (enum journal_transaction_state), changed by
 * journal_transaction_set_state under the state lock:
 *
 *   state      event                                      next       function
 *   NONE       a handle begins and none is running        RUNNING    get_running, handle.c
 *   RUNNING    it is closed and has its place in the log  WRITING    make_committing, commit.c
 *   WRITING    its log blocks have completed              FLUSHING   set_flushing, commit_write.c
 *   FLUSHING   its commit block is durable                COMMITTED  finish_commit
 *   COMMITTED  all its blocks are home                    HOME       move_tail, checkpoint.c
 *
 * journal->running is the transaction in RUNNING, journal->committing the one in WRITING or
 * FLUSHING; there is at most one of each. journal->committed lists those in COMMITTED. One in HOME
 * is freed once the tail of the log has moved over it. After an abort a transaction that is not
 * committed stays in its state until the journal is closed.
 */
#include "journal/journal_types.h"

#include <errno.h>
#include <stdlib.h>

enum {
	/* first chunk of a kit's arena: some 600 records of freed blocks */
	KIT_ARENA_BYTES = 64 << 10,
	/*
	 * More than a handle of the write-out path can need, which frees at most the nodes of one
	 * extent tree: bytes of records, and blocks that it forgets.
	 */
	ROOM_ARENA_BYTES = 8 << 10,
	ROOM_FREES = 64,
	FREES_READY = 512,  /* blocks that the tables of a new kit have room for */
	FREES_KEPT = 8192,  /* larger tables are given back after use */
	/* transactions set aside, because those whose blocks are not home cannot be reused */
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

/*
 * Gives back tables that a large truncation made large, unless there is no memory for smaller ones.
 */
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
	       !journal_block_set_reserve(&kit->revokes, ROOM_FREES) &&
	       !forgets_reserve(transaction, ROOM_FREES);
}

void journal_transaction_set_state(struct journal_transaction *transaction,
				   enum journal_transaction_state next)
{
	fdio_magic_check(transaction, MAGIC_JOURNAL_TRANSACTION);
	/* The states follow each other in the order of the enum. */
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
