/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a handle changes, and how it is taken back. journal_get_write and journal_new_block declare
 * blocks that will change, journal_forget those that are freed; each leaves a record in the
 * handle's undo log, and journal_cancel walks the log backwards (JOURNAL-1).
 *
 * Threads: whoever has the handle. Locks: the undo log and the before images are guarded by
 * handle_lock; the transaction's lists, and the fields of blocks that say which transaction has
 * them, by the state lock, which is taken here for a moment each time. Undo log and images are
 * there from the journal's start and grow when a handle is exceptionally large; the log stays as
 * large, most of the images are given back.
 *
 * Failure: -EROFS after an abort, -ENOSPC for more blocks than asked for, -ENOMEM, -EUCLEAN for a
 * block outside the file system. A failed call has changed nothing: the handle can go on or be
 * cancelled. Taking back cannot fail.
 */
#include "base/counters.h"
#include "base/log.h"
#include "base/nowait.h"
#include "journal/journal_types.h"

#include <errno.h>
#include <stdlib.h>

/*
 * IMAGES_KEPT: before images kept for the next handle; what a larger handle needed beyond that is
 * given back. The others are there from the start: images, undo records, bytes for the records of
 * callers.
 */
enum { IMAGES_KEPT = 256, IMAGES_READY = 64, UNDO_READY = 512, HANDLE_ARENA_BYTES = 64 << 10 };

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
	/* The references that undo records hold. */
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
 * Room for one more undo record; the caller fills it and counts it once nothing can fail any more.
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

uint8_t *journal_image_alloc(struct journal *journal)
{
	uint8_t *image = journal_slab_alloc(&journal->data_slab);

	return likely(image) || !journal_cache_shed(journal)
			       ? image
			       : journal_slab_alloc(&journal->data_slab);
}

static uint8_t *next_image(struct journal_handle *handle)
{
	if (unlikely(handle->nr_images == handle->cap_images) &&
	    images_grow(handle, handle->cap_images * 2))
		return NULL;
	if (unlikely(!handle->images[handle->nr_images]))
		handle->images[handle->nr_images] = journal_image_alloc(handle->journal);
	return handle->images[handle->nr_images];
}

/* What a handle of usual size needs is there from the start. */
int journal_handle_init(struct journal *journal)
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

/* JOURNAL-1: the before image. */
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

/* State lock held. JOURNAL-2: the committer still needs the block as it is. */
static int freeze(struct journal_cache_buffer *buffer)
{
	if (!buffer->committing || buffer->copied || buffer->frozen ||
	    JOURNAL_MUTATED(JOURNAL_MUTATION_NO_FREEZE))
		return 0;
	buffer->frozen = journal_image_alloc(buffer->journal);
	if (!buffer->frozen)
		return -ENOMEM;
	memcpy(buffer->frozen, buffer->public.data, buffer->journal->block_size);
	fdio_count(COUNTER_journal_frozen);
	return 0;
}

/*
 * Into the running transaction. A revocation made earlier in the same transaction must not kill the
 * new image (JOURNAL-8).
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
 * The image just taken of a block that could not join: nothing changes it, and the handle has no
 * reference.
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

int journal_new_block(struct journal_handle *handle, uint64_t blk, struct journal_buffer **ret)
{
	struct journal_cache_buffer *buffer;
	bool created;
	int err;

	*ret = NULL;
	err = journal_cache_get(handle->journal, blk, &buffer, &created);
	if (err)
		return err;
	if (!created && journal_cache_wait(buffer)) {
		/* Another thread failed to read it: what was there does not matter. */
		journal_cache_put(buffer);
		err = journal_cache_get(handle->journal, blk, &buffer, &created);
		if (err)
			return err;
		if (!created && journal_cache_wait(buffer)) {
			journal_cache_put(buffer);
			return -EIO;
		}
	}
	if (created) {
		struct journal_undo *undo = undo_slot(handle);

		memset(buffer->public.data, 0, handle->journal->block_size);
		journal_cache_set_state(buffer, undo ? JOURNAL_BUFFER_VALID : JOURNAL_BUFFER_ERROR);
		if (!undo) {
			journal_cache_put(buffer);
			return -ENOMEM;
		}
		undo->kind = JOURNAL_UNDO_NEW;
		undo->buffer = buffer;
		journal_cache_ref(buffer);
		handle->nr_undo++;
	}
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

static int forget_one(struct journal_handle *handle, uint64_t blk)
{
	struct journal *journal = handle->journal;
	struct journal_transaction *transaction = handle->transaction;
	struct journal_undo *undo = undo_slot(handle);
	struct journal_cache_buffer *buffer;
	int err;

	if (!undo)
		return -ENOMEM;
	fdio_mutex_lock(&journal->state_lock);
	err = journal_block_set_add(&transaction->kit->revokes, blk);
	if (err > 0 &&
	    journal_transaction_revoke_blocks(journal, transaction) > journal->revoke_slack) {
		journal_block_set_remove(&transaction->kit->revokes, blk);
		err = -ENOSPC;
	}
	if (err < 0)
		goto out;
	*undo = (struct journal_undo){ .kind = JOURNAL_UNDO_FORGET,
				       .blk = blk,
				       .revoked = err > 0 };
	err = 0;
	buffer = journal_cache_peek(journal, blk);
	if (buffer && buffer->forgotten_by != transaction) {
		err = journal_transaction_forget(transaction, buffer);
		if (err) {
			if (undo->revoked)
				journal_block_set_remove(&transaction->kit->revokes, blk);
			journal_cache_put(buffer);
			goto out;
		}
		undo->forgot = true;
	}
	if (buffer && buffer->running == transaction) {
		journal_transaction_remove(transaction, buffer);
		undo->was_running = true;
	}
	if (buffer)
		__atomic_store_n(&buffer->public.verified, 0, __ATOMIC_RELAXED);
	undo->buffer = buffer;
	handle->nr_undo++;
out:
	fdio_mutex_unlock(&journal->state_lock);
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

/* What is revoked changes only inside handles. */
uint64_t journal_forgets_left(struct journal_handle *handle)
{
	const struct journal *journal = handle->journal;
	uint64_t most = (uint64_t)journal->revoke_slack * journal->log.revokes_per_block;

	return most > handle->transaction->kit->revokes.nr
			       ? most - handle->transaction->kit->revokes.nr
			       : 0;
}

/* ---- taking it back ---- */

/*
 * Only lines that differ are written: readers of neighbouring inodes in the block hold no lock of
 * ours.
 */
static void restore_image(struct journal *journal, struct journal_undo *undo)
{
	for (unsigned off = 0; off < journal->block_size; off += 64)
		if (memcmp(undo->buffer->public.data + off, undo->before + off, 64))
			memcpy(undo->buffer->public.data + off, undo->before + off, 64);
	__atomic_store_n(&undo->buffer->public.verified, undo->verified, __ATOMIC_RELAXED);
}

/* State lock held. The set had the block before, and the list the entry, so neither grows. */
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
 * Before any block leaves the transaction, which is what keeps its content from being written home
 * (JOURNAL-6) and its buffer from being evicted. A block that was forgotten in the handle is kept
 * by that.
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

void journal_cancel(struct journal_handle *handle)
{
	struct journal *journal = handle->journal;

	fdio_magic_check(handle, MAGIC_JOURNAL_HANDLE);
	fdio_count(COUNTER_journal_rollback);
	restore_images(handle);
	for (unsigned i = handle->nr_undo; i-- > 0;)
		undo_one(journal, handle->transaction, &handle->undo[i]);
	journal_run_callbacks(handle->undo_callbacks, 0);
	handle->callbacks = NULL;
	journal_arena_cut(&handle->transaction->kit->arena, handle->arena_mark);
	journal_handle_close(journal);
	journal_handle_done(journal);
	fdio_mutex_unlock(&journal->handle_lock);
	/*
	 * Perhaps it is cancelled because journal_get_write met an abort that is under way: its
	 * caller must find the owner told. JOURNAL-10
	 */
	if (!nowait_on())
		nowait_ignore(journal_abort_error_told(journal));
}

void journal_handle_fini(struct journal *journal)
{
	free(journal->handle.undo);
	free(journal->handle.images); /* the images themselves belong to the slab */
	journal_arena_fini(&journal->handle.arena);
}
