/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The checkpoint lists: each committed transaction has the blocks whose newest committed image is
 * its own and not yet written home. A block is on one list at most. The committing thread adds
 * blocks and takes freed ones off; the checkpoint thread takes off the blocks that it has written
 * home. All functions need the state lock; none waits, none can fail.
 */
#include "journal/journal_types.h"

void journal_checkpoint_add(struct journal *journal, struct journal_transaction *transaction,
			    struct journal_cache_buffer *buffer)
{
	FDIO_ASSERT(!buffer->checkpoint);
	buffer->checkpoint = transaction;
	list_add_tail(&transaction->checkpoint_list, &buffer->checkpoint_node);
	journal->nr_checkpoint++;
}

void journal_checkpoint_drop(struct journal *journal, struct journal_cache_buffer *buffer)
{
	if (!buffer->checkpoint)
		return;
	buffer->checkpoint = NULL;
	list_del(&buffer->checkpoint_node);
	journal->nr_checkpoint--;
	journal_cache_put(buffer);
}

bool journal_checkpoint_due(const struct journal *journal)
{
	uint32_t avail = __atomic_load_n(&journal->log.free, __ATOMIC_RELAXED);

	if (list_empty(&journal->committed))
		return false;
	if (JOURNAL_LAZY)
		return journal->space_waiters;
	return journal->space_waiters || avail < journal->log.len / 2 ||
	       journal->nr_checkpoint > journal->max_buffers / 2;
}
