/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The checkpoint thread writes committed blocks home and moves the tail of the log behind them:
 * when half the log is used or half the cache is on checkpoint lists, when a transaction has waited
 * for AGE_NS, and at once when a handle waits for log space. While the journal runs it is the only
 * writer of home locations, so two home writes of one block cannot overtake each other. When it has
 * ended, journal_checkpoint_all does the same on the thread that stops the journal.
 *
 * The state lock guards the checkpoint lists. It is held to choose blocks and to copy each of them,
 * never across I/O. The items and the stage belong to the thread.
 *
 * A buffer on a checkpoint list has the newest committed content of its block. A block that is also
 * in the running or the closing transaction, or forgotten by one of them, must not be written
 * (JOURNAL-6); when that transaction commits, the block moves to its list or leaves the lists. If
 * the oldest transaction has only such blocks left, a commit is forced.
 *
 * Implements JOURNAL-6, JOURNAL-7 and the first half of JOURNAL-11. Failure: a failed home write
 * aborts the journal. The log still holds the images, so the next mount replays them.
 */
#include "base/counters.h"
#include "journal/journal_types.h"

#include <errno.h>
#include <stdlib.h>

enum { BATCH = 256, BATCH_SCAN = 4096 };

/*
 * An older committed transaction is written home even if no space is needed: a replay stays short.
 */
#define AGE_NS (30ull * 1000000000ull)

struct journal_checkpoint_item {
	struct journal_cache_buffer *buffer;
	struct journal_transaction *transaction;
	uint64_t blk;
};

int journal_checkpoint_init(struct journal *journal)
{
	journal->checkpoint_items = calloc(BATCH, sizeof(*journal->checkpoint_items));
	journal->checkpoint_stage = fdio_alloc_aligned(4096, (size_t)BATCH * journal->block_size);
	return journal->checkpoint_items && journal->checkpoint_stage ? 0 : -ENOMEM;
}

void journal_checkpoint_fini(struct journal *journal)
{
	free(journal->checkpoint_items);
	free(journal->checkpoint_stage);
}

/* State lock held (JOURNAL-6). */
static bool may_go_home(const struct journal_cache_buffer *buffer)
{
	return !buffer->running && !buffer->committing && !buffer->forget_count;
}

static int by_block(const void *a, const void *b)
{
	uint64_t x = ((const struct journal_checkpoint_item *)a)->blk,
		 y = ((const struct journal_checkpoint_item *)b)->blk;

	return x < y ? -1 : x > y;
}

/* State lock held: makes items of the oldest blocks that may go home, sorted, with references. */
static unsigned gather(struct journal *journal)
{
	unsigned n = 0, scanned = 0;
	struct journal_transaction *transaction;
	struct journal_cache_buffer *buffer;

	list_for_each(transaction, &journal->committed, node) {
		list_for_each(buffer, &transaction->checkpoint_list, checkpoint_node) {
			if (n == BATCH || scanned++ == BATCH_SCAN)
				goto out;
			if (!may_go_home(buffer))
				continue;
			journal_cache_ref(buffer);
			journal->checkpoint_items[n++] = (struct journal_checkpoint_item){
				.buffer = buffer,
				.transaction = transaction,
				.blk = buffer->public.blk
			};
		}
	}
out:
	qsort(journal->checkpoint_items, n, sizeof(*journal->checkpoint_items), by_block);
	return n;
}

/*
 * Copies to the stage each block that may still go home, and drops the other items. Takes the state
 * lock anew for each block, so that no thread waits long for it. Returns how many items are left.
 */
static unsigned copy_items(struct journal *journal, unsigned n)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < n; i++) {
		struct journal_checkpoint_item *item = &journal->checkpoint_items[i];
		bool ok;

		fdio_mutex_lock(&journal->state_lock);
		ok = item->buffer->checkpoint == item->transaction && may_go_home(item->buffer);
		if (ok) {
			memcpy(journal->checkpoint_stage + (size_t)kept * journal->block_size,
			       item->buffer->public.data, journal->block_size);
			item->buffer->home_write_in_flight = true;
		}
		fdio_mutex_unlock(&journal->state_lock);
		if (ok)
			journal->checkpoint_items[kept++] = *item;
		else
			journal_cache_put(item->buffer);
	}
	return kept;
}

/* How many items from i on, of n, are neighbours on the device and fit in one request. */
static unsigned run_length(const struct journal *journal, unsigned i, unsigned n)
{
	uint32_t most = FDIO_MAX(journal->dev->caps.max_io_bytes / journal->block_size, 1u);
	const struct journal_checkpoint_item *item = &journal->checkpoint_items[i];
	unsigned run = 1;

	while (i + run < n && run < most && item[run].blk == item->blk + run)
		run++;
	return run;
}

static int write_items(struct journal *journal, unsigned n)
{
	enum { MAX_VEC = 32 };
	struct dev_vec vec[MAX_VEC];
	unsigned i = 0;
	int err = 0;

	while (i < n && !err) {
		unsigned nr = 0;

		for (; i < n && nr < MAX_VEC; nr++) {
			unsigned run = run_length(journal, i, n);

			vec[nr] = (struct dev_vec){
				.off = journal->checkpoint_items[i].blk * journal->block_size,
				.buf = journal->checkpoint_stage + (size_t)i * journal->block_size,
				.len = run * journal->block_size
			};
			i += run;
		}
		err = dev_write_many(journal->dev, vec, nr);
	}
	fdio_count_add(COUNTER_journal_checkpoint, n);
	return err;
}

static void items_done(struct journal *journal, unsigned n, bool written)
{
	fdio_mutex_lock(&journal->state_lock);
	for (unsigned i = 0; i < n; i++) {
		struct journal_checkpoint_item *item = &journal->checkpoint_items[i];

		item->buffer->home_write_in_flight = false;
		/*
		 * If a later commit has moved the block to its own list, the newest image is not
		 * home yet.
		 */
		if (written && item->buffer->checkpoint == item->transaction)
			journal_checkpoint_drop(journal, item->buffer);
		journal_cache_put(item->buffer);
	}
	pthread_cond_broadcast(&journal->done_cv);
	fdio_mutex_unlock(&journal->state_lock);
}

/*
 * JOURNAL-7. Frees the log space of the oldest transactions that are completely home. Returns their
 * number, or -errno.
 */
static int move_tail(struct journal *journal)
{
	struct journal_transaction *transaction, *tmp, *last = NULL;
	struct list gone = LIST_INIT(gone);
	uint32_t freed = 0, tail;
	int err, n = 0;

	fdio_mutex_lock(&journal->state_lock);
	list_for_each_safe(transaction, tmp, &journal->committed, node) {
		if (!list_empty(&transaction->checkpoint_list))
			break;
		journal_transaction_set_state(transaction, JOURNAL_TRANSACTION_HOME);
		list_move_tail(&gone, &transaction->node);
		freed += transaction->log_len;
		last = transaction;
		n++;
	}
	fdio_mutex_unlock(&journal->state_lock);
	if (!last)
		return 0;
	tail = journal_log_wrap(&journal->log, (uint64_t)last->log_start + last->log_len);
	err = JOURNAL_MUTATED(JOURNAL_MUTATION_NO_TAIL_FLUSH) ? 0 : dev_flush(journal->dev);
	if (!err)
		err = journal_log_write_superblock(
				journal, last->tid + 1, tail,
				JOURNAL_MUTATED(JOURNAL_MUTATION_NO_TAIL_FUA) ? 0 : DEV_FUA);
	fdio_mutex_lock(&journal->state_lock);
	if (!err) {
		__atomic_add_fetch(&journal->log.free, freed, __ATOMIC_RELAXED);
		pthread_cond_broadcast(&journal->space_cv);
	}
	list_for_each_safe(transaction, tmp, &gone, node) {
		list_del(&transaction->node);
		journal_transaction_free(journal, transaction);
	}
	fdio_mutex_unlock(&journal->state_lock);
	fdio_count(COUNTER_journal_tail);
	return err ? err : n;
}

/*
 * No block of the oldest transaction may go home, because each is in the running transaction or
 * forgotten by it. A commit takes these blocks off the oldest list.
 */
static void force_commit(struct journal *journal)
{
	journal_tid tid;

	fdio_count(COUNTER_journal_cp_forced);
	fdio_mutex_lock(&journal->state_lock);
	tid = journal->head_tid;
	fdio_mutex_unlock(&journal->state_lock);
	journal_commit_wait(journal, tid, NULL);
}

/* Writes one batch home. Returns the number of blocks, or -errno. */
static int one_batch(struct journal *journal)
{
	unsigned n;
	int err;

	fdio_mutex_lock(&journal->state_lock);
	n = gather(journal);
	fdio_mutex_unlock(&journal->state_lock);
	n = copy_items(journal, n);
	if (!n)
		return 0;
	err = journal_abort_error(journal) ? -EIO : write_items(journal, n);
	items_done(journal, n, !err);
	return err ? err : (int)n;
}

int journal_checkpoint_all(struct journal *journal)
{
	int err;

	do {
		err = one_batch(journal);
	} while (err > 0);
	if (!err)
		err = move_tail(journal);
	if (err < 0) {
		journal_abort(journal, err);
		return err;
	}
	FDIO_ASSERT(list_empty(&journal->committed));
	return 0;
}

/* State lock held: a quarter of the log or of the cache is still taken, or a handle waits. */
static bool wants_relief(const struct journal *journal)
{
	if (list_empty(&journal->committed))
		return false;
	if (journal->space_waiters)
		return true;
	return !JOURNAL_LAZY && (journal->log.free < journal->log.len / 4 * 3 ||
				 journal->nr_checkpoint > journal->max_buffers / 4);
}

/* Writes batches home, and moves the tail after each, until enough of the log is free again. */
static void relieve(struct journal *journal)
{
	bool more = true;

	while (more && !journal_abort_error(journal)) {
		int written = one_batch(journal), moved = written < 0 ? 0 : move_tail(journal);
		bool stuck;

		if (written < 0 || moved < 0) {
			journal_abort(journal, written < 0 ? written : moved);
			return;
		}
		fdio_mutex_lock(&journal->state_lock);
		stuck = !written && !moved && !list_empty(&journal->committed);
		more = !journal->stop_checkpoint && wants_relief(journal);
		fdio_mutex_unlock(&journal->state_lock);
		if (stuck && more)
			force_commit(journal);
	}
}

/* State lock held. */
static bool aged(struct journal *journal)
{
	struct journal_transaction *oldest;

	if (list_empty(&journal->committed))
		return false;
	oldest = list_first(&journal->committed, struct journal_transaction, node);
	return fdio_now_ns() - oldest->commit_ns > AGE_NS;
}

static void write_aged(struct journal *journal)
{
	int err = one_batch(journal);

	while (err > 0)
		err = one_batch(journal);
	if (!err)
		err = move_tail(journal);
	if (err < 0)
		journal_abort(journal, err);
}

void *journal_checkpoint_thread(void *arg)
{
	struct journal *journal = arg;

	fdio_magic_check(journal, MAGIC_JOURNAL);
	fdio_mutex_lock(&journal->state_lock);
	while (!journal->stop_checkpoint && !journal_abort_error(journal)) {
		void (*work)(struct journal *) = NULL;

		if (journal_checkpoint_due(journal)) {
			work = relieve;
		} else if (aged(journal)) {
			work = write_aged;
		} else {
			fdio_cond_timedwait(&journal->checkpoint_cv, &journal->state_lock,
					    fdio_now_ns() + AGE_NS / 3);
			continue;
		}
		fdio_mutex_unlock(&journal->state_lock);
		work(journal);
		fdio_mutex_lock(&journal->state_lock);
	}
	fdio_mutex_unlock(&journal->state_lock);
	return NULL;
}
