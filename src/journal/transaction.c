/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Transactions as containers: which blocks they hold, which they have forgotten and revoked. Handles
 * change the running one with handle lock and state lock held; whoever commits has the closed one to
 * itself. The list of images has a fixed size given by the log (JOURNAL-3), so adding to it cannot fail;
 * forgetting can, with -ENOMEM and nothing changed. Lists and tables are those of a kit (struct jkit).
 *
 * The states of a transaction (enum jtxn_state), changed by jtxn_set_state under the state lock:
 *
 *   state      event                                        next       function
 *   NONE       a handle begins and none is running          RUNNING    get_running (handle.c)
 *   RUNNING    it is closed: it has its place in the log    WRITING    make_committing (commit.c)
 *   WRITING    its log blocks have completed                FLUSHING   jcommit_write (commit_write.c)
 *   FLUSHING   its commit block is durable                  COMMITTED  finish (commit.c)
 *   COMMITTED  all blocks are home, the tail moves over it  HOME       move_tail (checkpoint.c)
 *
 * A transaction in RUNNING is j->running, one in WRITING or FLUSHING is j->committing, one in COMMITTED
 * is on j->committed; there is at most one of each of the first two kinds. One in HOME is freed. After
 * an abort the transactions that are not committed stay in their state until the journal is closed.
 */
#include "journal/journal_types.h"

#include <errno.h>
#include <stdlib.h>

/*
 * KIT_MEM: records of freed blocks (jnl_txn_mem), some 600 of them. ROOM_MEM, FREES: what a handle of
 * the write-out path may free at most, nodes of an extent tree, with room to spare. FREES_READY: what
 * the tables are made for; beyond FREES_KEPT they are not kept. TXNS_READY: transactions whose blocks
 * are still to be written home.
 */
enum { KIT_MEM = 64 << 10, ROOM_MEM = 8 << 10, FREES = 64, FREES_READY = 512, FREES_KEPT = 8192, TXNS_READY = 2048 };

int jtxn_init_kits(struct jnl *journal)
{
	if (jslab_reserve(&journal->transaction_slab, FDIO_MIN(journal->log.len / 6, (unsigned)TXNS_READY) + 4))
		return -ENOMEM;
	for (unsigned i = 0; i < ARRAY_SIZE(journal->kits); i++) {
		struct jkit *kit = &journal->kits[i];

		kit->buffers = calloc(journal->image_limit, sizeof(*kit->buffers));
		kit->forgets = calloc(FREES_READY, sizeof(*kit->forgets));
		kit->cap_forgets = FREES_READY;
		if (!kit->buffers || !kit->forgets || jset_reserve(&kit->revokes, FREES_READY) || jmem_init(&kit->arena, KIT_MEM))
			return -ENOMEM;
		journal->kits_free[i] = kit;
	}
	return 0;
}

void jtxn_fini_kits(struct jnl *journal)
{
	for (unsigned i = 0; i < ARRAY_SIZE(journal->kits); i++) {
		struct jkit *kit = &journal->kits[i];

		free(kit->buffers);
		free(kit->forgets);
		jset_fini(&kit->revokes);
		jmem_fini(&kit->arena);
	}
}

struct jtxn *jtxn_new(struct jnl *journal)
{
	struct jkit *kit = journal->kits_free[0] ? journal->kits_free[0] : journal->kits_free[1];
	struct jtxn *transaction = kit ? jslab_alloc(&journal->transaction_slab) : NULL;

	if (!transaction)
		return NULL;
	memset(transaction, 0, sizeof(*transaction));
	fdio_magic_set(transaction, MAGIC_JOURNAL_TRANSACTION);
	list_init(&transaction->node);
	list_init(&transaction->checkpoint_list);
	transaction->callbacks_tail = &transaction->callbacks;
	transaction->kit = kit;
	transaction->state = JT_NONE;
	journal->kits_free[kit == &journal->kits[1]] = NULL;
	return transaction;
}

/* What a large truncation needed is given back, unless there is no memory for smaller tables. */
static void shrink_kit(struct jkit *kit)
{
	struct jset small = { 0 };
	struct jbuf **smaller;

	if (kit->revokes.cap > FREES_KEPT && !jset_reserve(&small, FREES_READY)) {
		jset_fini(&kit->revokes);
		kit->revokes = small;
	}
	if (kit->cap_forgets > FREES_KEPT && (smaller = realloc(kit->forgets, FREES_READY * sizeof(*smaller)))) {
		kit->forgets = smaller;
		kit->cap_forgets = FREES_READY;
	}
}

void jtxn_clear_kit(struct jkit *kit)
{
	jset_clear(&kit->revokes);
	jmem_clear(&kit->arena);
	shrink_kit(kit);
}

void jtxn_return_kit(struct jnl *journal, struct jkit *kit) { journal->kits_free[kit == &journal->kits[1]] = kit; }

static int forgets_reserve(struct jtxn *transaction, unsigned n)
{
	struct jkit *kit = transaction->kit;
	unsigned cap = kit->cap_forgets;
	struct jbuf **bigger;

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

bool jtxn_has_room(struct jtxn *transaction)
{
	struct jkit *kit = transaction->kit;

	return !jmem_ensure(&kit->arena, ROOM_MEM) && !jset_reserve(&kit->revokes, FREES) && !forgets_reserve(transaction, FREES);
}

void jtxn_set_state(struct jtxn *transaction, enum jtxn_state next)
{
	fdio_magic_check(transaction, MAGIC_JOURNAL_TRANSACTION);
	/* There is one way through the states, and no way back. */
	FDIO_ASSERT(next == transaction->state + 1 && next <= JT_HOME);
	transaction->state = next;
}

void jtxn_free(struct jnl *journal, struct jtxn *transaction)
{
	FDIO_ASSERT(transaction->state == JT_HOME && list_empty(&transaction->checkpoint_list) && !transaction->kit);
	fdio_magic_clear(transaction, MAGIC_JOURNAL_TRANSACTION);
	jslab_free(&journal->transaction_slab, transaction);
}

void jtxn_add(struct jtxn *transaction, struct jbuf *buffer)
{
	FDIO_ASSERT(!buffer->running && transaction->nr_buffers < buffer->journal->image_limit);
	jbuf_ref(buffer);
	buffer->running = transaction;
	buffer->index = transaction->nr_buffers;
	transaction->kit->buffers[transaction->nr_buffers++] = buffer;
}

void jtxn_remove(struct jtxn *transaction, struct jbuf *buffer)
{
	struct jbuf **buffers = transaction->kit->buffers, *last = buffers[transaction->nr_buffers - 1];

	FDIO_ASSERT(buffer->running == transaction && buffers[buffer->index] == buffer);
	buffers[buffer->index] = last;
	last->index = buffer->index;
	transaction->nr_buffers--;
	buffer->running = NULL;
	jbuf_put(buffer);
}

int jtxn_forget(struct jtxn *transaction, struct jbuf *buffer)
{
	if (forgets_reserve(transaction, 1))
		return -ENOMEM;
	jbuf_ref(buffer);
	buffer->forgotten_by = transaction;
	buffer->forget_index = transaction->nr_forgets;
	buffer->forget_count++;
	transaction->kit->forgets[transaction->nr_forgets++] = buffer;
	return 0;
}

void jtxn_unforget(struct jtxn *transaction, struct jbuf *buffer)
{
	struct jbuf *last = transaction->kit->forgets[transaction->nr_forgets - 1];

	FDIO_ASSERT(buffer->forgotten_by == transaction && transaction->kit->forgets[buffer->forget_index] == buffer);
	transaction->kit->forgets[buffer->forget_index] = last;
	last->forget_index = buffer->forget_index;
	transaction->nr_forgets--;
	buffer->forgotten_by = NULL;
	buffer->forget_count--;
	jbuf_put(buffer);
}

unsigned jtxn_revoke_blocks(const struct jnl *journal, const struct jtxn *transaction)
{
	return (unsigned)fdio_div_up(transaction->kit->revokes.nr, journal->log.revokes_per_block);
}
