/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a handle changes, and how that is undone. journal_get_write and journal_new_block declare
 * blocks that will change, journal_forget declares blocks that are freed. Each leaves records in
 * the handle's undo log, which journal_undo_all walks backwards (JOURNAL-1).
 *
 * Runs on the thread that has the handle: workers, the committing thread (seal callback), and loop
 * threads in the mode of base/nowait.h. handle_lock guards the undo log and the before images. The
 * state lock guards the transaction's tables, and the fields of a buffer that name transactions; it
 * is taken for a moment each time. Undo log and images are set aside when the journal starts. Both
 * grow for an exceptionally large handle; afterwards the log keeps its size, and most of the images
 * are given back.
 *
 * Failure: -EROFS after an abort, -ENOSPC for more blocks than the handle has credits, -ENOMEM,
 * -EUCLEAN for a block outside the file system; then the handle can go on or be cancelled. Undoing
 * cannot fail.
 */
#include "base/counters.h"
#include "base/log.h"
#include "base/nowait.h"
#include "journal/journal_types.h"

#include <errno.h>
#include <stdlib.h>

enum {
	IMAGES_READY = 64, /* before images that are allocated when the journal starts */
	IMAGES_KEPT = 256, /* how many images of a larger handle are kept for the next handle */
	UNDO_READY = 512,  /* records in the first undo log */
	HANDLE_ARENA_BYTES = 64 << 10 /* for journal_handle_alloc */
};

/* ---- the undo log and the before images ---- */

static void trim_images(struct journal_handle *handle)
{
	for (unsigned i = IMAGES_KEPT; i < handle->nr_images; i++) {
		journal_slab_free(&handle->journal->data_slab, handle->images[i]);
		handle->images[i] = NULL;
	}
}

void journal_undo_end(struct journal_handle *handle)
{
	/* Records of these two kinds hold a reference. */
	for (unsigned i = 0; i < handle->nr_undo; i++)
		if (handle->undo[i].kind == JOURNAL_UNDO_NEW ||
		    (handle->undo[i].kind == JOURNAL_UNDO_FORGET && handle->undo[i].buffer))
			journal_cache_put(handle->undo[i].buffer);
	trim_images(handle);
}

static int undo_grow(struct journal_handle *handle, unsigned cap)
{
	struct journal_undo *bigger = realloc(handle->undo, cap * sizeof(*bigger));

	if (!bigger)
		return -ENOMEM;
	handle->undo = bigger;
	handle->cap_undo = cap;
	return 0;
}

/*
 * Room for one more undo record, all zeroes; NULL: no memory. The caller fills it, and counts it in
 * nr_undo once nothing can fail any more.
 */
static struct journal_undo *undo_slot(struct journal_handle *handle)
{
	if (unlikely(handle->nr_undo == handle->cap_undo) &&
	    undo_grow(handle, handle->cap_undo * 2))
		return NULL;
	memset(&handle->undo[handle->nr_undo], 0, sizeof(handle->undo[0]));
	return &handle->undo[handle->nr_undo];
}

static int images_grow(struct journal_handle *handle, unsigned cap)
{
	uint8_t **bigger = realloc(handle->images, cap * sizeof(*bigger));

	if (!bigger)
		return -ENOMEM;
	memset(bigger + handle->cap_images, 0, (cap - handle->cap_images) * sizeof(*bigger));
	handle->images = bigger;
	handle->cap_images = cap;
	return 0;
}

/* Memory for an image of a block; if there is none, an unused block of the cache gives way. */
static uint8_t *image_alloc(struct journal *journal)
{
	uint8_t *image = journal_slab_alloc(&journal->data_slab);

	if (likely(image) || !journal_cache_shed(journal))
		return image;
	return journal_slab_alloc(&journal->data_slab);
}

static uint8_t *next_image(struct journal_handle *handle)
{
	if (unlikely(handle->nr_images == handle->cap_images) &&
	    images_grow(handle, handle->cap_images * 2))
		return NULL;
	if (unlikely(!handle->images[handle->nr_images]))
		handle->images[handle->nr_images] = image_alloc(handle->journal);
	return handle->images[handle->nr_images];
}

int journal_undo_init(struct journal *journal)
{
	struct journal_handle *handle = &journal->handle;

	if (undo_grow(handle, UNDO_READY) || images_grow(handle, IMAGES_KEPT) ||
	    journal_arena_init(&handle->arena, HANDLE_ARENA_BYTES))
		return -ENOMEM;
	for (unsigned i = 0; i < IMAGES_READY; i++) {
		handle->images[i] = journal_slab_alloc(&journal->data_slab);
		if (!handle->images[i])
			return -ENOMEM;
	}
	return 0;
}

/* ---- changing blocks ---- */

/* JOURNAL-1: keeps the before image of the block, which costs a credit. */
static int take_image(struct journal_handle *handle, struct journal_cache_buffer *buffer)
{
	struct journal_undo *undo;
	uint8_t *image;

	if (!handle->credits) {
		log_ratelimited(FDIO_LOG_ERR, "a metadata operation changes more blocks than it "
					      "reserved");
		return -ENOSPC;
	}
	undo = undo_slot(handle);
	image = next_image(handle);
	if (!undo || !image)
		return -ENOMEM;
	memcpy(image, buffer->public.data, handle->journal->block_size);
	*undo = (struct journal_undo){ .kind = JOURNAL_UNDO_IMAGE,
				       .buffer = buffer,
				       .before = image,
				       .verified = __atomic_load_n(&buffer->public.verified,
								   __ATOMIC_RELAXED) };
	handle->nr_undo++;
	handle->nr_images++;
	handle->credits--;
	buffer->handle_sequence = handle->sequence;
	return 0;
}

/* State lock held. JOURNAL-2: copies the block if its present content is still to be logged. */
static int freeze(struct journal_cache_buffer *buffer)
{
	if (!buffer->committing || buffer->copied || buffer->frozen ||
	    JOURNAL_MUTATED(JOURNAL_MUTATION_NO_FREEZE))
		return 0;
	buffer->frozen = image_alloc(buffer->journal);
	if (!buffer->frozen)
		return -ENOMEM;
	memcpy(buffer->frozen, buffer->public.data, buffer->journal->block_size);
	fdio_count(COUNTER_journal_frozen);
	return 0;
}

/*
 * The block joins the running transaction. If the same transaction has revoked it before, the
 * revocation is removed, because with it replay would not write the new image (JOURNAL-8).
 */
static int join(struct journal_handle *handle, struct journal_cache_buffer *buffer)
{
	struct journal *journal = handle->journal;
	struct journal_transaction *transaction = handle->transaction;
	struct journal_undo *undo = undo_slot(handle);
	int err;

	if (!undo)
		return -ENOMEM;
	undo->kind = JOURNAL_UNDO_JOIN;
	undo->buffer = buffer;
	undo->blk = buffer->public.blk;
	fdio_mutex_lock(&journal->state_lock);
	err = freeze(buffer);
	if (!err) {
		journal_transaction_add(transaction, buffer);
		undo->was_revoked = journal_block_set_remove(&transaction->kit->revokes,
							     buffer->public.blk);
		undo->forgot = buffer->forgotten_by == transaction;
		if (undo->forgot)
			journal_transaction_unforget(transaction, buffer);
		handle->nr_undo++;
	}
	fdio_mutex_unlock(&journal->state_lock);
	return err;
}

/*
 * Takes back take_image for a block that could not join: the handle must not keep a record of a
 * buffer to which it has no reference.
 */
static void drop_image(struct journal_handle *handle, struct journal_cache_buffer *buffer)
{
	handle->nr_undo--;
	handle->nr_images--;
	handle->credits++;
	buffer->handle_sequence = 0;
}

int journal_get_write(struct journal_handle *handle, struct journal_buffer *public)
{
	struct journal_cache_buffer *buffer = to_cache_buffer(public);
	bool first;
	int err;

	fdio_magic_check(handle, MAGIC_JOURNAL_HANDLE);
	if (likely(buffer->handle_sequence == handle->sequence &&
		   buffer->running == handle->transaction))
		return 0;
	if (unlikely(journal_abort_error_told(handle->journal)))
		return -EROFS;
	first = buffer->handle_sequence != handle->sequence;
	if (first) {
		err = take_image(handle, buffer);
		if (err)
			return err;
	}
	err = buffer->running == handle->transaction ? 0 : join(handle, buffer);
	if (err && first)
		drop_image(handle, buffer);
	return err;
}

/*
 * A reference to the block's buffer, whose content does not matter: made without reading the block,
 * or as it is in the cache. Another thread may have failed to read the block meanwhile: its buffer
 * has left the cache, and the second try makes one.
 */
static int get_unread(struct journal *journal, uint64_t blk, struct journal_cache_buffer **ret,
		      bool *ret_created)
{
	for (unsigned tries = 0; tries < 2; tries++) {
		int err = journal_cache_get(journal, blk, ret, ret_created);

		if (err || *ret_created || !journal_cache_wait(*ret))
			return err;
		journal_cache_put(*ret);
	}
	return -EIO;
}

/* Records a buffer that this handle has made, and ends its JOURNAL_BUFFER_READING. */
static int record_new(struct journal_handle *handle, struct journal_cache_buffer *buffer)
{
	struct journal_undo *undo = undo_slot(handle);

	memset(buffer->public.data, 0, handle->journal->block_size);
	journal_cache_set_state(buffer, undo ? JOURNAL_BUFFER_VALID : JOURNAL_BUFFER_ERROR);
	if (!undo)
		return -ENOMEM;
	undo->kind = JOURNAL_UNDO_NEW;
	undo->buffer = buffer;
	journal_cache_ref(buffer);
	handle->nr_undo++;
	return 0;
}

int journal_new_block(struct journal_handle *handle, uint64_t blk, struct journal_buffer **ret)
{
	struct journal_cache_buffer *buffer;
	bool created;
	int err;

	*ret = NULL;
	err = get_unread(handle->journal, blk, &buffer, &created);
	if (err)
		return err;
	if (created)
		err = record_new(handle, buffer);
	if (!err)
		err = journal_get_write(handle, &buffer->public);
	if (err) {
		journal_cache_put(buffer);
		return err;
	}
	memset(buffer->public.data, 0, handle->journal->block_size);
	__atomic_store_n(&buffer->public.verified, 0, __ATOMIC_RELAXED);
	*ret = &buffer->public;
	return 0;
}

/* ---- forgetting ---- */

/*
 * State lock held. 1: revoked now; 0: was revoked before; -ENOSPC: no log space for more; -ENOMEM.
 */
static int revoke_block(struct journal *journal, struct journal_transaction *transaction,
			uint64_t blk)
{
	struct journal_block_set *revokes = &transaction->kit->revokes;
	int ret = journal_block_set_add(revokes, blk);

	if (ret > 0 &&
	    journal_transaction_revoke_blocks(journal, transaction) > journal->revoke_slack) {
		journal_block_set_remove(revokes, blk);
		return -ENOSPC;
	}
	return ret;
}

/* State lock held: a cached block enters kit->forgets and leaves the running transaction. */
static int forget_cached(struct journal_transaction *transaction,
			 struct journal_cache_buffer *buffer, struct journal_undo *undo)
{
	if (buffer->forgotten_by != transaction) {
		int err = journal_transaction_forget(transaction, buffer);

		if (err)
			return err;
		undo->forgot = true;
	}
	if (buffer->running == transaction) {
		journal_transaction_remove(transaction, buffer);
		undo->was_running = true;
	}
	__atomic_store_n(&buffer->public.verified, 0, __ATOMIC_RELAXED);
	undo->buffer = buffer;
	return 0;
}

/* State lock held. */
static int forget_locked(struct journal_handle *handle, struct journal_undo *undo, uint64_t blk)
{
	struct journal_transaction *transaction = handle->transaction;
	struct journal_cache_buffer *buffer;
	int err, ret = revoke_block(handle->journal, transaction, blk);

	if (ret < 0)
		return ret;
	*undo = (struct journal_undo){ .kind = JOURNAL_UNDO_FORGET,
				       .blk = blk,
				       .revoked = ret > 0 };
	buffer = journal_cache_peek(handle->journal, blk);
	err = buffer ? forget_cached(transaction, buffer, undo) : 0;
	if (err) {
		if (undo->revoked)
			journal_block_set_remove(&transaction->kit->revokes, blk);
		journal_cache_put(buffer);
		return err;
	}
	handle->nr_undo++;
	return 0;
}

static int forget_one(struct journal_handle *handle, uint64_t blk)
{
	struct journal_undo *undo = undo_slot(handle);
	int err;

	if (!undo)
		return -ENOMEM;
	fdio_mutex_lock(&handle->journal->state_lock);
	err = forget_locked(handle, undo, blk);
	fdio_mutex_unlock(&handle->journal->state_lock);
	return err;
}

int journal_forget(struct journal_handle *handle, uint64_t blk, uint64_t n)
{
	fdio_magic_check(handle, MAGIC_JOURNAL_HANDLE);
	if (blk >= handle->journal->params.nr_blocks || n > handle->journal->params.nr_blocks - blk)
		return -EUCLEAN;
	if (unlikely(journal_abort_error_told(handle->journal)))
		return -EROFS;
	for (; n > 0; n--, blk++) {
		int err = forget_one(handle, blk);

		if (err)
			return err;
	}
	return 0;
}

/* The caller's handle keeps revokes from changing, so no lock is needed. */
uint64_t journal_forgets_left(struct journal_handle *handle)
{
	const struct journal *journal = handle->journal;
	uint64_t most = (uint64_t)journal->revoke_slack * journal->log.revokes_per_block;

	unsigned nr = handle->transaction->kit->revokes.nr;

	return most > nr ? most - nr : 0;
}

/* ---- undoing ---- */

/*
 * Writes only the cache lines that differ: the other lines may be read meanwhile for other inodes
 * in the block, whose locks the thread of this handle does not hold.
 */
static void restore_image(struct journal *journal, struct journal_undo *undo)
{
	for (unsigned off = 0; off < journal->block_size; off += 64)
		if (memcmp(undo->buffer->public.data + off, undo->before + off, 64))
			memcpy(undo->buffer->public.data + off, undo->before + off, 64);
	__atomic_store_n(&undo->buffer->public.verified, undo->verified, __ATOMIC_RELAXED);
}

/*
 * State lock held. Both tables had the entry before this handle removed it, so they have room.
 */
static void undo_join(struct journal_transaction *transaction, struct journal_undo *undo)
{
	int err;

	if (undo->forgot) {
		err = journal_transaction_forget(transaction, undo->buffer);
		FDIO_ASSERT(!err);
	}
	if (undo->was_revoked) {
		err = journal_block_set_add(&transaction->kit->revokes, undo->blk);
		FDIO_ASSERT(err == 1);
	}
	journal_transaction_remove(transaction, undo->buffer);
}

/* State lock held. */
static void undo_forget(struct journal_transaction *transaction, struct journal_undo *undo)
{
	if (undo->was_running)
		journal_transaction_add(transaction, undo->buffer);
	if (undo->forgot)
		journal_transaction_unforget(transaction, undo->buffer);
	if (undo->revoked)
		journal_block_set_remove(&transaction->kit->revokes, undo->blk);
}

/*
 * Comes before any block leaves the transaction: until then the transaction keeps the block's
 * content from being written home (JOURNAL-6) and its buffer from being evicted. For a block that
 * this handle has forgotten, the entry in kit->forgets does the same.
 */
static void restore_images(struct journal_handle *handle)
{
	for (unsigned i = handle->nr_undo; i-- > 0;)
		if (handle->undo[i].kind == JOURNAL_UNDO_IMAGE &&
		    !JOURNAL_MUTATED(JOURNAL_MUTATION_NO_ROLLBACK))
			restore_image(handle->journal, &handle->undo[i]);
}

static void undo_one(struct journal *journal, struct journal_transaction *transaction,
		     struct journal_undo *undo)
{
	if (undo->kind == JOURNAL_UNDO_IMAGE)
		return;
	fdio_mutex_lock(&journal->state_lock);
	if (undo->kind == JOURNAL_UNDO_JOIN)
		undo_join(transaction, undo);
	else if (undo->kind == JOURNAL_UNDO_FORGET)
		undo_forget(transaction, undo);
	fdio_mutex_unlock(&journal->state_lock);
	if (undo->kind == JOURNAL_UNDO_NEW)
		journal_cache_unhash(undo->buffer);
}

void journal_undo_all(struct journal_handle *handle)
{
	restore_images(handle);
	for (unsigned i = handle->nr_undo; i-- > 0;)
		undo_one(handle->journal, handle->transaction, &handle->undo[i]);
}

void journal_undo_fini(struct journal *journal)
{
	free(journal->handle.undo);
	free(journal->handle.images); /* the images themselves belong to the slab */
	journal_arena_fini(&journal->handle.arena);
}
