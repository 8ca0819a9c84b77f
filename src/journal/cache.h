/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The cache of metadata blocks (cache.c): the buffer behind each struct journal_buffer, and the
 * shards of the hash table. Any thread; a function without a mark of base/nowait.h never waits for
 * I/O. Each group of fields names the lock that guards it.
 */
#ifndef FDIO_JOURNAL_CACHE_H
#define FDIO_JOURNAL_CACHE_H

#include "base/list.h"
#include "base/lock.h"
#include "base/magic.h"
#include "base/nowait.h"
#include "journal/journal.h"

struct journal_transaction;

enum { JOURNAL_BUFFER_READING, JOURNAL_BUFFER_VALID, JOURNAL_BUFFER_ERROR };

/* A bit of refs: the buffer is out of the hash table, and the last reference frees it. */
#define JOURNAL_BUFFER_DEAD 0x80000000u

struct journal_cache_buffer {
	struct journal_buffer public;
	FDIO_MAGIC_FIELD;
	struct journal *journal;
	uint32_t refs;  /* atomic; JOURNAL_BUFFER_DEAD above the count */
	uint8_t state;  /* atomic; leaves JOURNAL_BUFFER_READING once */
	uint8_t recent; /* atomic, relaxed: used since the clock hand passed */

	/* the shard's lock */
	struct journal_cache_buffer *hash_next;
	struct list clock;

	/* handle lock */
	uint64_t handle_sequence; /* sequence of the handle that has its before image */

	/*
	 * state lock. running and index change with the handle lock held too, so a thread that
	 * holds either lock may read them.
	 */
	struct journal_transaction *running;    /* the running transaction, if the block is in it */
	unsigned index;                         /* in running->kit->buffers */
	struct journal_transaction *committing; /* the closed transaction, if the block is in it */
	bool copied;                            /* the image for committing has been taken */
	uint8_t *frozen;                        /* copy for the log (JOURNAL-2), or NULL */
	/* the last transaction that forgot the block; valid only while that one is running */
	struct journal_transaction *forgotten_by;
	unsigned forget_index;                  /* in forgotten_by->kit->forgets */
	unsigned forget_count;                  /* transactions not yet durable that forgot it */
	/* the committed transaction whose image of the block is not yet written home */
	struct journal_transaction *checkpoint;
	struct list checkpoint_node;            /* in checkpoint->checkpoint_list */
	bool home_write_in_flight;
};

static inline struct journal_cache_buffer *to_cache_buffer(struct journal_buffer *public)
{
	struct journal_cache_buffer *buffer =
			container_of(public, struct journal_cache_buffer, public);

	fdio_magic_check(buffer, MAGIC_JOURNAL_BUFFER);
	return buffer;
}

#define JOURNAL_CACHE_SHARDS 64

struct journal_cache_shard {
	struct fdio_mutex lock; /* guards all below */
	pthread_cond_t read_done;
	struct journal_cache_buffer **bucket;
	unsigned mask;
	struct list clock;
	unsigned nr_buffers;
} fdio_cacheline_aligned;

int journal_cache_init(struct journal *journal);
void journal_cache_fini(struct journal *journal);
/* A reference to the block's buffer in any state, or NULL if it is not cached. Never reads. */
struct journal_cache_buffer *journal_cache_peek(struct journal *journal, uint64_t blk);
/*
 * A reference to the block's buffer. If the block is not cached it is added in
 * JOURNAL_BUFFER_READING (*ret_created), and the caller must fill it and set its state. -ENOMEM,
 * -EUCLEAN.
 */
int journal_cache_get(struct journal *journal, uint64_t blk, struct journal_cache_buffer **ret,
		      bool *ret_created);
/* Ends JOURNAL_BUFFER_READING and wakes the waiters. On error the buffer leaves the hash table. */
void journal_cache_set_state(struct journal_cache_buffer *buffer, int state);
/* Waits until the buffer is read: 0 or -EIO. */
int journal_cache_wait(struct journal_cache_buffer *buffer) FDIO_MAY_MISS;
/*
 * Removes the buffer, to which the caller has a reference, from the hash table, so that the next
 * reader of the block reads it from the device.
 */
void journal_cache_unhash(struct journal_cache_buffer *buffer);
/* Frees all buffers without references. */
void journal_cache_drop_all(struct journal *journal);
/*
 * Sets memory aside for a sixteenth of the cache, because blocks that are still to be written home
 * cannot be evicted. -ENOMEM.
 */
int journal_cache_reserve(struct journal *journal);
/*
 * To be called, without any shard's lock, when an allocation has failed: evicts one unused block.
 * False: every block is in use.
 */
bool journal_cache_shed(struct journal *journal);
void journal_cache_ref(struct journal_cache_buffer *buffer);
void journal_cache_put(struct journal_cache_buffer *buffer);

#endif
