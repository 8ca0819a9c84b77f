/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Transactions as containers: which blocks they hold, which they have forgotten and revoked. Called by
 * handle.c (running transaction, handle lock and state lock held) and commit.c (closed one). The image
 * list has a fixed size given by the log (J3), so adding to it cannot fail; there are two lists, for the
 * running and the closed transaction, and they take turns.
 */
#include "journal/jnl_types.h"

#include <errno.h>
#include <stdlib.h>

struct jtxn *jtxn_new(struct jnl *j)
{
	struct jtxn *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	list_init(&t->node);
	list_init(&t->cp);
	t->cbs_tail = &t->cbs;
	for (unsigned i = 0; i < ARRAY_SIZE(j->arrays) && !t->bufs; i++) {
		t->bufs = j->arrays[i];
		j->arrays[i] = NULL;
	}
	FDIO_ASSERT(t->bufs);
	return t;
}

static void return_array(struct jnl *j, struct jtxn *t)
{
	if (!t->bufs)
		return;
	for (unsigned i = 0; i < ARRAY_SIZE(j->arrays); i++) {
		if (!j->arrays[i]) {
			j->arrays[i] = t->bufs;
			t->bufs = NULL;
			return;
		}
	}
	FDIO_ASSERT(!"more image lists than transactions");
}

void jtxn_free(struct jnl *j, struct jtxn *t)
{
	FDIO_ASSERT(list_empty(&t->cp));
	return_array(j, t);
	jset_fini(&t->revokes);
	free(t->forgets);
	free(t);
}

void jtxn_add(struct jtxn *t, struct jbuf *b)
{
	FDIO_ASSERT(!b->txn && t->nr < b->j->limit);
	jbuf_ref(b);
	b->txn = t;
	b->idx = t->nr;
	t->bufs[t->nr++] = b;
}

void jtxn_remove(struct jtxn *t, struct jbuf *b)
{
	struct jbuf *last = t->bufs[t->nr - 1];

	FDIO_ASSERT(b->txn == t && t->bufs[b->idx] == b);
	t->bufs[b->idx] = last;
	last->idx = b->idx;
	t->nr--;
	b->txn = NULL;
	jbuf_put(b);
}

int jtxn_forget(struct jtxn *t, struct jbuf *b)
{
	if (t->nr_forgets == t->cap_forgets) {
		unsigned cap = t->cap_forgets ? t->cap_forgets * 2 : 32;
		struct jbuf **bigger = realloc(t->forgets, cap * sizeof(*bigger));

		if (!bigger)
			return -ENOMEM;
		t->forgets = bigger;
		t->cap_forgets = cap;
	}
	jbuf_ref(b);
	b->forget_txn = t;
	b->forget_idx = t->nr_forgets;
	b->forget_cnt++;
	t->forgets[t->nr_forgets++] = b;
	return 0;
}

void jtxn_unforget(struct jtxn *t, struct jbuf *b)
{
	struct jbuf *last = t->forgets[t->nr_forgets - 1];

	FDIO_ASSERT(b->forget_txn == t && t->forgets[b->forget_idx] == b);
	t->forgets[b->forget_idx] = last;
	last->forget_idx = b->forget_idx;
	t->nr_forgets--;
	b->forget_txn = NULL;
	b->forget_cnt--;
	jbuf_put(b);
}

unsigned jtxn_revoke_blocks(const struct jnl *j, const struct jtxn *t)
{
	return (unsigned)fdio_div_up(t->revokes.nr, j->log.revokes_per_block);
}
