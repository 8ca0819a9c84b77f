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

int jtxn_init_kits(struct jnl *j)
{
	if (jslab_reserve(&j->txn_slab, FDIO_MIN(j->log.len / 6, (unsigned)TXNS_READY) + 4))
		return -ENOMEM;
	for (unsigned i = 0; i < ARRAY_SIZE(j->kits); i++) {
		struct jkit *k = &j->kits[i];

		k->bufs = calloc(j->limit, sizeof(*k->bufs));
		k->forgets = calloc(FREES_READY, sizeof(*k->forgets));
		k->cap_forgets = FREES_READY;
		if (!k->bufs || !k->forgets || jset_reserve(&k->revokes, FREES_READY) || jmem_init(&k->mem, KIT_MEM))
			return -ENOMEM;
		j->kits_free[i] = k;
	}
	return 0;
}

void jtxn_fini_kits(struct jnl *j)
{
	for (unsigned i = 0; i < ARRAY_SIZE(j->kits); i++) {
		struct jkit *k = &j->kits[i];

		free(k->bufs);
		free(k->forgets);
		jset_fini(&k->revokes);
		jmem_fini(&k->mem);
	}
}

struct jtxn *jtxn_new(struct jnl *j)
{
	struct jkit *k = j->kits_free[0] ? j->kits_free[0] : j->kits_free[1];
	struct jtxn *t = k ? jslab_alloc(&j->txn_slab) : NULL;

	if (!t)
		return NULL;
	memset(t, 0, sizeof(*t));
	fdio_magic_set(t, MAGIC_JOURNAL_TRANSACTION);
	list_init(&t->node);
	list_init(&t->cp);
	t->cbs_tail = &t->cbs;
	t->kit = k;
	t->state = JT_NONE;
	j->kits_free[k == &j->kits[1]] = NULL;
	return t;
}

/* What a large truncation needed is given back, unless there is no memory for smaller tables. */
static void shrink_kit(struct jkit *k)
{
	struct jset small = { 0 };
	struct jbuf **f;

	if (k->revokes.cap > FREES_KEPT && !jset_reserve(&small, FREES_READY)) {
		jset_fini(&k->revokes);
		k->revokes = small;
	}
	if (k->cap_forgets > FREES_KEPT && (f = realloc(k->forgets, FREES_READY * sizeof(*f)))) {
		k->forgets = f;
		k->cap_forgets = FREES_READY;
	}
}

void jtxn_clear_kit(struct jkit *k)
{
	jset_clear(&k->revokes);
	jmem_clear(&k->mem);
	shrink_kit(k);
}

void jtxn_return_kit(struct jnl *j, struct jkit *k) { j->kits_free[k == &j->kits[1]] = k; }

static int forgets_reserve(struct jtxn *t, unsigned n)
{
	struct jkit *k = t->kit;
	unsigned cap = k->cap_forgets;
	struct jbuf **bigger;

	if (t->nr_forgets + n <= cap)
		return 0;
	while (t->nr_forgets + n > cap)
		cap *= 2;
	bigger = realloc(k->forgets, cap * sizeof(*bigger));
	if (!bigger)
		return -ENOMEM;
	k->forgets = bigger;
	k->cap_forgets = cap;
	return 0;
}

bool jtxn_has_room(struct jtxn *t)
{
	struct jkit *k = t->kit;

	return !jmem_ensure(&k->mem, ROOM_MEM) && !jset_reserve(&k->revokes, FREES) && !forgets_reserve(t, FREES);
}

void jtxn_set_state(struct jtxn *t, enum jtxn_state next)
{
	fdio_magic_check(t, MAGIC_JOURNAL_TRANSACTION);
	/* There is one way through the states, and no way back. */
	FDIO_ASSERT(next == t->state + 1 && next <= JT_HOME);
	t->state = next;
}

void jtxn_free(struct jnl *j, struct jtxn *t)
{
	FDIO_ASSERT(t->state == JT_HOME && list_empty(&t->cp) && !t->kit);
	fdio_magic_clear(t, MAGIC_JOURNAL_TRANSACTION);
	jslab_free(&j->txn_slab, t);
}

void jtxn_add(struct jtxn *t, struct jbuf *b)
{
	FDIO_ASSERT(!b->txn && t->nr < b->j->limit);
	jbuf_ref(b);
	b->txn = t;
	b->idx = t->nr;
	t->kit->bufs[t->nr++] = b;
}

void jtxn_remove(struct jtxn *t, struct jbuf *b)
{
	struct jbuf **bufs = t->kit->bufs, *last = bufs[t->nr - 1];

	FDIO_ASSERT(b->txn == t && bufs[b->idx] == b);
	bufs[b->idx] = last;
	last->idx = b->idx;
	t->nr--;
	b->txn = NULL;
	jbuf_put(b);
}

int jtxn_forget(struct jtxn *t, struct jbuf *b)
{
	if (forgets_reserve(t, 1))
		return -ENOMEM;
	jbuf_ref(b);
	b->forget_txn = t;
	b->forget_idx = t->nr_forgets;
	b->forget_cnt++;
	t->kit->forgets[t->nr_forgets++] = b;
	return 0;
}

void jtxn_unforget(struct jtxn *t, struct jbuf *b)
{
	struct jbuf *last = t->kit->forgets[t->nr_forgets - 1];

	FDIO_ASSERT(b->forget_txn == t && t->kit->forgets[b->forget_idx] == b);
	t->kit->forgets[b->forget_idx] = last;
	last->forget_idx = b->forget_idx;
	t->nr_forgets--;
	b->forget_txn = NULL;
	b->forget_cnt--;
	jbuf_put(b);
}

unsigned jtxn_revoke_blocks(const struct jnl *j, const struct jtxn *t)
{
	return (unsigned)fdio_div_up(t->kit->revokes.nr, j->log.revokes_per_block);
}
