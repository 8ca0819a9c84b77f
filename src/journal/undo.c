/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a handle changes, and how it is taken back. jnl_get_write and jnl_bnew declare blocks that will
 * change, jnl_forget those that are freed; each leaves a record in the handle's undo log, and
 * jnl_cancel walks the log backwards (JOURNAL-1).
 *
 * Threads: whoever has the handle. Locks: the undo log and the before images are guarded by
 * handle_lock; the transaction's lists, and the fields of blocks that say which transaction has them,
 * by the state lock, which is taken here for a moment each time. Undo log and images are there from the
 * journal's start and grow when a handle is exceptionally large; the log stays as large, most of the
 * images are given back.
 *
 * Failure: -EROFS after an abort, -ENOSPC for more blocks than asked for, -ENOMEM, -EUCLEAN for a block
 * outside the file system. A failed call has changed nothing: the handle can go on or be cancelled.
 * Taking back cannot fail.
 */
#include "base/counters.h"
#include "base/log.h"
#include "base/nowait.h"
#include "journal/journal_types.h"

#include <errno.h>
#include <stdlib.h>

/*
 * IMAGES_KEPT: before images kept for the next handle; what a larger handle needed beyond that is given
 * back. The others are there from the start: images, undo records, bytes for the records of callers.
 */
enum { IMAGES_KEPT = 256, IMAGES_READY = 64, UNDO_READY = 512, HANDLE_MEM = 64 << 10 };

/* ---- the undo log and the before images ---- */

static void trim_images(struct jnl_handle *h)
{
	for (unsigned i = IMAGES_KEPT; i < h->nr_images; i++) {
		jslab_free(&h->j->data_slab, h->images[i]);
		h->images[i] = NULL;
	}
}

void jundo_end(struct jnl_handle *h)
{
	/* The references that undo records hold. */
	for (unsigned i = 0; i < h->nr_undo; i++)
		if (h->undo[i].kind == JU_NEW || (h->undo[i].kind == JU_FORGET && h->undo[i].b))
			jbuf_put(h->undo[i].b);
	trim_images(h);
}

static int undo_grow(struct jnl_handle *h, unsigned cap)
{
	struct jundo *bigger = realloc(h->undo, cap * sizeof(*bigger));

	if (!bigger)
		return -ENOMEM;
	h->undo = bigger;
	h->cap_undo = cap;
	return 0;
}

/* Room for one more undo record; the caller fills it and counts it once nothing can fail any more. */
static struct jundo *undo_slot(struct jnl_handle *h)
{
	if (unlikely(h->nr_undo == h->cap_undo) && undo_grow(h, h->cap_undo * 2))
		return NULL;
	memset(&h->undo[h->nr_undo], 0, sizeof(h->undo[0]));
	return &h->undo[h->nr_undo];
}

static int images_grow(struct jnl_handle *h, unsigned cap)
{
	uint8_t **bigger = realloc(h->images, cap * sizeof(*bigger));

	if (!bigger)
		return -ENOMEM;
	memset(bigger + h->cap_images, 0, (cap - h->cap_images) * sizeof(*bigger));
	h->images = bigger;
	h->cap_images = cap;
	return 0;
}

uint8_t *jimage_alloc(struct jnl *j)
{
	uint8_t *image = jslab_alloc(&j->data_slab);

	return likely(image) || !jcache_shed(j) ? image : jslab_alloc(&j->data_slab);
}

static uint8_t *next_image(struct jnl_handle *h)
{
	if (unlikely(h->nr_images == h->cap_images) && images_grow(h, h->cap_images * 2))
		return NULL;
	if (unlikely(!h->images[h->nr_images]))
		h->images[h->nr_images] = jimage_alloc(h->j);
	return h->images[h->nr_images];
}

/* What a handle of usual size needs is there from the start. */
int jhandle_init(struct jnl *j)
{
	struct jnl_handle *h = &j->handle;

	if (undo_grow(h, UNDO_READY) || images_grow(h, IMAGES_KEPT) || jmem_init(&h->mem, HANDLE_MEM))
		return -ENOMEM;
	for (unsigned i = 0; i < IMAGES_READY; i++) {
		h->images[i] = jslab_alloc(&j->data_slab);
		if (!h->images[i])
			return -ENOMEM;
	}
	return 0;
}

/* ---- changing blocks ---- */

/* JOURNAL-1: the before image. */
static int take_image(struct jnl_handle *h, struct jbuf *b)
{
	struct jundo *u;
	uint8_t *image;

	if (!h->credits) {
		log_ratelimited(FDIO_LOG_ERR, "a metadata operation changes more blocks than it reserved");
		return -ENOSPC;
	}
	u = undo_slot(h);
	image = next_image(h);
	if (!u || !image)
		return -ENOMEM;
	memcpy(image, b->pub.data, h->j->bs);
	*u = (struct jundo){ .kind = JU_IMAGE, .b = b, .before = image,
		.verified = __atomic_load_n(&b->pub.verified, __ATOMIC_RELAXED) };
	h->nr_undo++;
	h->nr_images++;
	h->credits--;
	b->handle_seq = h->seq;
	return 0;
}

/* State lock held. JOURNAL-2: the committer still needs the block as it is. */
static int freeze(struct jbuf *b)
{
	if (!b->committing || b->copied || b->frozen || JNL_MUTATED(JM_NO_FREEZE))
		return 0;
	b->frozen = jimage_alloc(b->j);
	if (!b->frozen)
		return -ENOMEM;
	memcpy(b->frozen, b->pub.data, b->j->bs);
	fdio_count(CTR_jnl_frozen);
	return 0;
}

/* Into the running transaction. A revocation made earlier in the same transaction must not kill the new image (JOURNAL-8). */
static int join(struct jnl_handle *h, struct jbuf *b)
{
	struct jnl *j = h->j;
	struct jtxn *t = h->txn;
	struct jundo *u = undo_slot(h);
	int r;

	if (!u)
		return -ENOMEM;
	u->kind = JU_JOIN;
	u->b = b;
	u->blk = b->pub.blk;
	fdio_mutex_lock(&j->state);
	r = freeze(b);
	if (!r) {
		jtxn_add(t, b);
		u->was_revoked = jset_del(&t->kit->revokes, b->pub.blk);
		u->forgot = b->forget_txn == t;
		if (u->forgot)
			jtxn_unforget(t, b);
		h->nr_undo++;
	}
	fdio_mutex_unlock(&j->state);
	return r;
}

/* The image just taken of a block that could not join: nothing changes it, and the handle has no reference. */
static void drop_image(struct jnl_handle *h, struct jbuf *b)
{
	h->nr_undo--;
	h->nr_images--;
	h->credits++;
	b->handle_seq = 0;
}

int jnl_get_write(struct jnl_handle *h, struct jnl_buf *pub)
{
	struct jbuf *b = to_jbuf(pub);
	bool first;
	int r;

	fdio_magic_check(h, MAGIC_JOURNAL_HANDLE);
	if (likely(b->handle_seq == h->seq && b->txn == h->txn))
		return 0;
	if (unlikely(jabort_error(h->j)))
		return -EROFS;
	first = b->handle_seq != h->seq;
	if (first) {
		r = take_image(h, b);
		if (r)
			return r;
	}
	r = b->txn == h->txn ? 0 : join(h, b);
	if (r && first)
		drop_image(h, b);
	return r;
}

int jnl_bnew(struct jnl_handle *h, uint64_t blk, struct jnl_buf **ret)
{
	struct jbuf *b;
	bool created;
	int r;

	*ret = NULL;
	r = jcache_get(h->j, blk, &b, &created);
	if (r)
		return r;
	if (!created && jcache_wait(b)) {
		/* Another thread failed to read it: what was there does not matter. */
		jbuf_put(b);
		r = jcache_get(h->j, blk, &b, &created);
		if (r)
			return r;
		if (!created && jcache_wait(b)) {
			jbuf_put(b);
			return -EIO;
		}
	}
	if (created) {
		struct jundo *u = undo_slot(h);

		memset(b->pub.data, 0, h->j->bs);
		jcache_set_state(b, u ? JB_VALID : JB_ERROR);
		if (!u) {
			jbuf_put(b);
			return -ENOMEM;
		}
		u->kind = JU_NEW;
		u->b = b;
		jbuf_ref(b);
		h->nr_undo++;
	}
	r = jnl_get_write(h, &b->pub);
	if (r) {
		jbuf_put(b);
		return r;
	}
	memset(b->pub.data, 0, h->j->bs);
	__atomic_store_n(&b->pub.verified, 0, __ATOMIC_RELAXED);
	*ret = &b->pub;
	return 0;
}

/* ---- forgetting ---- */

static int forget_one(struct jnl_handle *h, uint64_t blk)
{
	struct jnl *j = h->j;
	struct jtxn *t = h->txn;
	struct jundo *u = undo_slot(h);
	struct jbuf *b;
	int r;

	if (!u)
		return -ENOMEM;
	fdio_mutex_lock(&j->state);
	r = jset_add(&t->kit->revokes, blk);
	if (r > 0 && jtxn_revoke_blocks(j, t) > j->revoke_slack) {
		jset_del(&t->kit->revokes, blk);
		r = -ENOSPC;
	}
	if (r < 0)
		goto out;
	*u = (struct jundo){ .kind = JU_FORGET, .blk = blk, .revoked = r > 0 };
	r = 0;
	b = jcache_peek(j, blk);
	if (b && b->forget_txn != t) {
		r = jtxn_forget(t, b);
		if (r) {
			if (u->revoked)
				jset_del(&t->kit->revokes, blk);
			jbuf_put(b);
			goto out;
		}
		u->forgot = true;
	}
	if (b && b->txn == t) {
		jtxn_remove(t, b);
		u->was_running = true;
	}
	if (b)
		__atomic_store_n(&b->pub.verified, 0, __ATOMIC_RELAXED);
	u->b = b;
	h->nr_undo++;
out:
	fdio_mutex_unlock(&j->state);
	return r;
}

int jnl_forget(struct jnl_handle *h, uint64_t blk, uint64_t n)
{
	fdio_magic_check(h, MAGIC_JOURNAL_HANDLE);
	if (blk >= h->j->p.nr_blocks || n > h->j->p.nr_blocks - blk)
		return -EUCLEAN;
	if (unlikely(jabort_error(h->j)))
		return -EROFS;
	for (; n > 0; n--, blk++) {
		int r = forget_one(h, blk);

		if (r)
			return r;
	}
	return 0;
}

/* What is revoked changes only inside handles. */
uint64_t jnl_forgets_left(struct jnl_handle *h)
{
	const struct jnl *j = h->j;
	uint64_t most = (uint64_t)j->revoke_slack * j->log.revokes_per_block;

	return most > h->txn->kit->revokes.nr ? most - h->txn->kit->revokes.nr : 0;
}

/* ---- taking it back ---- */

/* Only lines that differ are written: readers of neighbouring inodes in the block hold no lock of ours. */
static void restore_image(struct jnl *j, struct jundo *u)
{
	for (unsigned off = 0; off < j->bs; off += 64)
		if (memcmp(u->b->pub.data + off, u->before + off, 64))
			memcpy(u->b->pub.data + off, u->before + off, 64);
	__atomic_store_n(&u->b->pub.verified, u->verified, __ATOMIC_RELAXED);
}

/* State lock held. The set had the block before, and the list the entry, so neither grows. */
static void undo_join(struct jtxn *t, struct jundo *u)
{
	int r;

	if (u->forgot) {
		r = jtxn_forget(t, u->b);
		FDIO_ASSERT(!r);
	}
	if (u->was_revoked) {
		r = jset_add(&t->kit->revokes, u->blk);
		FDIO_ASSERT(r == 1);
	}
	jtxn_remove(t, u->b);
}

/* State lock held. */
static void undo_forget(struct jtxn *t, struct jundo *u)
{
	if (u->was_running)
		jtxn_add(t, u->b);
	if (u->forgot)
		jtxn_unforget(t, u->b);
	if (u->revoked)
		jset_del(&t->kit->revokes, u->blk);
}

/*
 * Before any block leaves the transaction, which is what keeps its content from being written home (JOURNAL-6) and its buffer from being
 * evicted. A block that was forgotten in the handle is kept by that.
 */
static void restore_images(struct jnl_handle *h)
{
	for (unsigned i = h->nr_undo; i-- > 0;)
		if (h->undo[i].kind == JU_IMAGE && !JNL_MUTATED(JM_NO_ROLLBACK))
			restore_image(h->j, &h->undo[i]);
}

static void undo_one(struct jnl *j, struct jtxn *t, struct jundo *u)
{
	if (u->kind == JU_IMAGE)
		return;
	fdio_mutex_lock(&j->state);
	if (u->kind == JU_JOIN)
		undo_join(t, u);
	else if (u->kind == JU_FORGET)
		undo_forget(t, u);
	fdio_mutex_unlock(&j->state);
	if (u->kind == JU_NEW)
		jcache_unhash(u->b);
}

void jnl_cancel(struct jnl_handle *h)
{
	struct jnl *j = h->j;

	fdio_magic_check(h, MAGIC_JOURNAL_HANDLE);
	fdio_count(CTR_jnl_rollback);
	restore_images(h);
	for (unsigned i = h->nr_undo; i-- > 0;)
		undo_one(j, h->txn, &h->undo[i]);
	jnl_run_callbacks(h->undo_cbs, 0);
	h->cbs = NULL;
	jmem_cut(&h->txn->kit->mem, h->txn_mark);
	jhandle_close(j);
	jhandle_done(j);
	fdio_mutex_unlock(&j->handle_lock);
	/* Perhaps it is cancelled because jnl_get_write met an abort that is under way: its caller must find the owner told. JOURNAL-10 */
	if (!nowait_on())
		nowait_ignore(jabort_error(j));
}

void jhandle_fini(struct jnl *j)
{
	free(j->handle.undo);
	free(j->handle.images); /* the images themselves belong to the slab */
	jmem_fini(&j->handle.mem);
}
