/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files mapped by indirect blocks, as older file systems have them: collecting their map, and
 * freeing their blocks. Nothing is allocated here: an inode that needs a block gets extents first
 * (block_map_convert.c). Called by map_load.c and truncate.c with the lock that guards the tree
 * held. Workers; loop threads free in the mode of base/nowait.h, but do not load.
 *
 * Indirect blocks carry neither a checksum nor a magic number, so a damaged image can make them
 * refer to each other. Therefore a walk is at most three levels deep, and loading gives up when it
 * has seen more blocks than the file system has or one indirect block twice (map_twice.c). A
 * pointer that leads outside the data area is damage: recorded, -EUCLEAN.
 *
 * Freeing goes from the end downwards, as in extent.c. Each freed pointer is zeroed in the same
 * transaction, so a removal that runs out of credits continues in the next handle. Indirect blocks
 * are freed as metadata: revoked.
 */
#include "ext4/data/extent.h"

#include <errno.h>

#define LEVELS 3

/* First logical block that a slot of i_block reaches; per: pointers in an indirect block. */
static uint64_t slot_start(uint64_t per, unsigned slot)
{
	if (slot <= EXT2_IND_BLOCK)
		return slot;
	return EXT2_NDIR_BLOCKS + per + (slot > EXT2_DIND_BLOCK ? per * per : 0);
}

/* Blocks that one pointer reaches; level 0 points at data, 1 to 3 at an indirect block. */
static uint64_t level_span(uint64_t per, unsigned level)
{
	uint64_t n = 1;

	while (level--)
		n *= per;
	return n;
}

static unsigned slot_level(unsigned slot)
{
	return slot < EXT2_NDIR_BLOCKS ? 0 : slot - EXT2_NDIR_BLOCKS + 1;
}

/* ---- loading ---- */

struct load {
	struct ext4_inode *inode;
	struct ext4_map_builder *builder;
	uint64_t per, seen;
};

static int load_data(struct load *load, uint32_t blk, uint64_t lblk)
{
	struct ext4_extent extent = { lblk, 1, blk, EXT4_EXTENT_WRITTEN };

	return ext4_map_builder_add(load->builder, &extent);
}

static int load_check(struct load *load, uint32_t blk, uint64_t lblk)
{
	struct ext4_vol *vol = load->inode->vol;

	if (lblk >= EXT4_LBLK_END || !ext4_blocks_valid(vol, blk, 1))
		return EXT4_CORRUPT(vol, load->inode->ino, blk,
				    "block pointer of block %llu outside the data area",
				    (unsigned long long)lblk);
	if (++load->seen > vol->nr_blocks)
		return EXT4_CORRUPT(vol, load->inode->ino, blk,
				    "indirect blocks map more than the file system holds");
	return 0;
}

/*
 * Collects the blocks that one pointer reaches. At most LEVELS deep: each level calls the one
 * below.
 */
static int load_pointer(struct load *load, uint32_t blk, unsigned level, uint64_t lblk)
{
	uint64_t span = level_span(load->per, level ? level - 1 : 0);
	struct journal_buffer *buffer;
	int err;

	if (!blk)
		return 0;
	err = load_check(load, blk, lblk);
	if (err || !level)
		return err ? err : load_data(load, blk, lblk);
	err = ext4_map_builder_node(load->builder, blk);
	if (err == -EUCLEAN)
		err = EXT4_CORRUPT(load->inode->vol, load->inode->ino, blk,
				   "an indirect block is there twice");
	if (!err)
		err = journal_read_block(load->inode->vol->journal, blk, &buffer);
	if (err)
		return err;
	for (uint64_t k = 0; k < load->per && !err; k++)
		err = load_pointer(load, fdio_get_le32(buffer->data, 4 * k), level - 1,
				   lblk + k * span);
	journal_buffer_release(buffer);
	return err;
}

int ext4_indirect_load(struct ext4_inode *inode, struct ext4_map_builder *builder)
{
	struct load load = { .inode = inode,
			     .builder = builder,
			     .per = inode->vol->block_size / 4 };
	int err = 0;

	for (unsigned s = 0; s < EXT2_N_BLOCKS && !err; s++)
		err = load_pointer(&load, fdio_get_le32(inode->raw->i_block, 4 * s), slot_level(s),
				   slot_start(load.per, s));
	return err;
}

/* ---- freeing ---- */

struct unmap {
	struct journal_handle *handle;
	struct ext4_inode *inode;
	uint64_t per, from, to;
	uint64_t run;    /* data blocks [run, run + n) are freed in one go, later */
	uint32_t n;
	bool metadata;
	bool more;       /* out: credits ran low before the end */
};

/*
 * One step may change the bitmap of the waiting run, that of an indirect block, one indirect block
 * of each level, the inode and the orphan list.
 */
static bool credits_low(struct unmap *unmap)
{
	return journal_credits_left(unmap->handle) <
			       4 + LEVELS + EXT4_CREDITS_INODE + EXT4_CREDITS_ORPHAN ||
	       ext4_metadata_frees_left(unmap->handle) <= (unmap->metadata ? unmap->n : 0);
}

static int run_free(struct unmap *unmap)
{
	uint32_t n = unmap->n;

	unmap->n = 0;
	if (!n)
		return 0;
	int err = ext4_blocks_free(unmap->handle, unmap->inode, unmap->run, n, unmap->metadata);
	return err ? err : ext4_raw_add_blocks(unmap->inode, -(int64_t)n);
}

/* Adds a data block to the waiting run, or frees that run and begins a new one. */
static int data_free(struct unmap *unmap, uint32_t blk)
{
	int err = 0;

	if (!ext4_blocks_valid(unmap->inode->vol, blk, 1))
		return EXT4_CORRUPT(unmap->inode->vol, unmap->inode->ino, blk,
				    "block pointer outside the data area");
	if (unmap->n && (uint64_t)blk + 1 == unmap->run &&
	    blk % unmap->inode->vol->blocks_per_group) {
		unmap->run--;
		unmap->n++;
		return 0;
	}
	err = run_free(unmap);
	unmap->run = blk;
	unmap->n = 1;
	return err;
}

static int pointer_free(struct unmap *unmap, uint32_t *slot, unsigned level, uint64_t lblk,
			struct journal_buffer *holder);

/* Frees the blocks that the pointers of one indirect block reach in [from, to), last first. */
static int children_free(struct unmap *unmap, uint32_t blk, unsigned level, uint64_t lblk)
{
	uint64_t span = level_span(unmap->per, level - 1);
	struct journal_buffer *buffer;
	int err;

	if (!ext4_blocks_valid(unmap->inode->vol, blk, 1))
		return EXT4_CORRUPT(unmap->inode->vol, unmap->inode->ino, blk,
				    "indirect block outside the data area");
	err = journal_read_block(unmap->inode->vol->journal, blk, &buffer);
	if (err)
		return err;
	for (uint64_t k = unmap->per; k-- > 0 && !err && !unmap->more;) {
		uint64_t at = lblk + k * span;

		if (at >= unmap->to)
			continue;
		if (at + span <= unmap->from)
			break;
		err = pointer_free(unmap, (uint32_t *)buffer->data + k, level - 1, at, buffer);
	}
	journal_buffer_release(buffer);
	return err;
}

/*
 * Frees the blocks that the pointer reaches in [from, to), and its indirect block if all that it
 * can reach lies in there. At most LEVELS deep: each level calls the one below.
 */
static int pointer_free(struct unmap *unmap, uint32_t *slot, unsigned level, uint64_t lblk,
			struct journal_buffer *holder)
{
	uint32_t blk = fdio_get_le32(slot, 0);
	int err = 0;

	if (!blk)
		return 0;
	if (credits_low(unmap)) {
		unmap->more = true;
		return 0;
	}
	if (level) {
		err = children_free(unmap, blk, level, lblk);
		if (err || unmap->more || lblk < unmap->from ||
		    lblk + level_span(unmap->per, level) > unmap->to)
			return err;
		err = run_free(unmap);
		if (!err)
			err = ext4_blocks_free(unmap->handle, unmap->inode, blk, 1, true);
		if (!err)
			err = ext4_raw_add_blocks(unmap->inode, -1);
	} else {
		err = data_free(unmap, blk);
	}
	if (!err && holder) {
		err = journal_get_write(unmap->handle, holder);
		/*
		 * In a damaged image another inode may use this block as something that is checked
		 * once for each read: it has to be checked again.
		 */
		__atomic_store_n(&holder->verified, 0, __ATOMIC_RELAXED);
	}
	if (!err)
		*slot = 0;
	return err;
}

int ext4_indirect_remove(struct journal_handle *handle, struct ext4_inode *inode, uint32_t from,
			 uint32_t to, bool metadata, bool *ret_more)
{
	struct unmap unmap = { .handle = handle,
			       .inode = inode,
			       .per = inode->vol->block_size / 4,
			       .from = from,
			       .to = to,
			       .metadata = metadata };
	int err = 0;

	/* Up to the end of the file means all that pointers reach, also beyond the last block. */
	if (to == EXT4_LBLK_END)
		unmap.to = UINT64_MAX;
	for (unsigned s = EXT2_N_BLOCKS; s-- > 0 && !err && !unmap.more;) {
		uint64_t start = slot_start(unmap.per, s);

		if (start < unmap.to && start + level_span(unmap.per, slot_level(s)) > unmap.from)
			err = pointer_free(&unmap, &inode->raw->i_block[s], slot_level(s), start,
					   NULL);
	}
	if (!err)
		err = run_free(&unmap);
	*ret_more = unmap.more;
	return err;
}
