/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Changes of groups in handles: undo records, and the block bitmap on disk. Each record holds the
 * descriptor as it was. A cancelled handle runs its records from the newest to the oldest, so the
 * group becomes again as the handle has found it. Freed blocks are given back to the allocator when
 * the transaction is durable (JOURNAL-8), through discard.c if they are to be discarded first.
 *
 * Inside a handle: workers, loop threads in the mode of base/nowait.h, the ticker, and the thread
 * that opens or closes the volume; op_committed on the thread that commits. alloc.lock guards the
 * image and the descriptor. An error leaves its repair to the undo when the handle is cancelled.
 */
#include "ext4/alloc/groups.h"

#include <errno.h>
#include <string.h>

/* One change of a group in a handle; lives as long as the handle, for a free the transaction. */
struct group_op {
	struct journal_callback undo, commit;
	struct ext4_vol *vol;
	struct ext4_descriptor before;
	enum ext4_group_op_kind kind;
	uint32_t group, bit, n;
};

static void unpin(struct group_op *op)
{
	if (op->kind != EXT4_GROUP_OP_DESC)
		__atomic_sub_fetch(&op->vol->alloc.groups[op->group].pins, 1, __ATOMIC_RELEASE);
}

/*
 * The transaction that freed the blocks is durable or, if err is not 0, has failed: then the
 * journal has aborted, and the blocks are not reused during this mount.
 */
static void op_committed(struct journal_callback *callback, int err)
{
	struct group_op *op = container_of(callback, struct group_op, commit);

	if (err)
		unpin(op);
	else if (!ext4_discard_later(op->vol, op->group, op->bit, op->n))
		ext4_group_give_freed(op->vol, op->group, op->bit, op->n);
}

/* ended: the handle has ended well, and there is nothing to undo. */
static void op_undo(struct journal_callback *callback, int ended)
{
	struct group_op *op = container_of(callback, struct group_op, undo);
	struct ext4_vol *vol = op->vol;

	if (ended) {
		if (op->kind != EXT4_GROUP_OP_FREE) /* op_committed ends a free */
			unpin(op);
		return;
	}
	fdio_mutex_lock(&vol->alloc.lock);
	ext4_group_set_desc(vol, op->group, &op->before);
	if (op->kind == EXT4_GROUP_OP_ALLOC)
		ext4_image_give(vol, op->group, op->bit, op->n);
	else if (op->kind == EXT4_GROUP_OP_FREE)
		vol->alloc.pending_free -= op->n;
	fdio_mutex_unlock(&vol->alloc.lock);
	unpin(op);
}

/* Pins the image of the group. A free loads it as well, since its blocks go back there later. */
static int pin(struct group_op *op, journal_tid tid)
{
	struct ext4_vol *vol = op->vol;
	int err = 0;

	fdio_mutex_lock(&vol->alloc.lock);
	if (op->kind == EXT4_GROUP_OP_FREE) {
		err = ext4_group_load(vol, op->group);
		if (!err) {
			vol->alloc.pending_free += op->n;
			vol->alloc.last_free_tid = tid;
		}
	}
	if (!err)
		__atomic_add_fetch(&vol->alloc.groups[op->group].pins, 1, __ATOMIC_RELAXED);
	fdio_mutex_unlock(&vol->alloc.lock);
	return err;
}

int ext4_group_op_begin(struct journal_handle *handle, struct ext4_vol *vol, uint32_t group,
			enum ext4_group_op_kind kind, uint32_t bit, uint32_t n)
{
	struct group_op *op;
	int err;

	/* The record of a free is used until the transaction is durable. */
	op = kind == EXT4_GROUP_OP_FREE ? journal_transaction_alloc(handle, sizeof(*op))
					: journal_handle_alloc(handle, sizeof(*op));
	if (!op)
		return -ENOMEM;
	*op = (struct group_op){ .vol = vol,
			    .before = vol->alloc.groups[group].desc,
			    .kind = kind,
			    .group = group,
			    .bit = bit,
			    .n = n };
	op->undo.fn = op_undo;
	op->commit.fn = op_committed;
	err = kind == EXT4_GROUP_OP_DESC ? 0 : pin(op, journal_handle_tid(handle));
	if (err)
		return err;
	journal_on_undo(handle, &op->undo);
	if (kind == EXT4_GROUP_OP_FREE)
		journal_on_commit(handle, &op->commit);
	return 0;
}

/* ------------------------------------------------------------------ bitmap on disk */
int ext4_group_init_disk(struct journal_handle *handle, struct ext4_vol *vol, uint32_t group)
{
	struct ext4_group *grp = &vol->alloc.groups[group];
	struct ext4_descriptor desc = grp->desc;
	struct journal_buffer *buffer;
	int err;

	if (!(desc.flags & EXT2_BG_BLOCK_UNINIT))
		return 0;
	err = journal_new_block(handle, grp->block_bitmap, &buffer);
	if (err)
		return err;
	/* Not a copy of the image, in which reserved blocks are marked, too. */
	ext4_group_synthesize_blocks(vol, group, buffer->data);
	journal_buffer_release(buffer);
	desc.flags &= (uint16_t)~EXT2_BG_BLOCK_UNINIT;
	fdio_mutex_lock(&vol->alloc.lock);
	ext4_group_set_desc(vol, group, &desc);
	grp->block_bitmap_dirty = true;
	fdio_mutex_unlock(&vol->alloc.lock);
	return 0;
}

int ext4_group_disk_bits(struct journal_handle *handle, struct ext4_vol *vol, uint32_t group,
			 uint32_t bit, uint32_t n, bool set)
{
	struct ext4_group *grp = &vol->alloc.groups[group];
	struct ext4_descriptor desc;
	struct journal_buffer *buffer;
	int err = ext4_group_init_disk(handle, vol, group);

	if (err)
		return err;
	err = EXT4_READ_BLOCK(vol, 0, grp->block_bitmap, &buffer);
	if (err)
		return err;
	err = journal_get_write(handle, buffer);
	if (err)
		goto out;
	if (!ext4_bits_all(buffer->data, bit, n, !set)) {
		err = EXT4_CORRUPT(vol, 0, ext4_group_start(vol, group) + bit,
				   "%u blocks are %s already", n, set ? "in use" : "free");
		goto out;
	}
	ext4_bits_fill(buffer->data, bit, n, set);
	fdio_mutex_lock(&vol->alloc.lock);
	desc = grp->desc;
	desc.free_blocks = set ? desc.free_blocks - n : desc.free_blocks + n;
	ext4_group_set_desc(vol, group, &desc);
	grp->block_bitmap_dirty = true;
	fdio_mutex_unlock(&vol->alloc.lock);
out:
	journal_buffer_release(buffer);
	return err;
}
