/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files mapped by indirect blocks, as older file systems have them: their map is loaded into the
 * same snapshot as that of an extent tree, and their blocks can be freed. They are never allocated
 * to: what needs a block gets extents first (data/block_map_convert.c). Called by ext4_map_load and
 * ext4_remove_step, with what guards the inode's tree held.
 *
 * A pointer that leads outside the data area is damage (-EUCLEAN). Indirect blocks carry no
 * checksum and no sign of what they are, so an image can make them refer to each other; the walk
 * is at most three levels deep, and gives up when it has seen more blocks than the file system
 * has, or has collected one indirect block twice (data/map_twice.c).
 *
 * Freeing goes from the end downwards, like the removal of extents. Every freed pointer is zeroed
 * in the same transaction, so a removal that runs out of credits continues with the next handle.
 * Indirect blocks are freed as metadata: revoked.
 */
#include "ext4/data/extent.h"

#include <errno.h>

#define LEVELS 3

/* First logical block and reach of one i_block slot. */
static uint64_t slot_start(uint64_t per, unsigned slot)
{
	if (slot <= EXT2_IND_BLOCK)
		return slot;
	return EXT2_NDIR_BLOCKS + per + (slot > EXT2_DIND_BLOCK ? per * per : 0);
}

/*
 * Blocks that one pointer of this level reaches: 0 a data block, 1..3 an indirect block of that
 * height.
 */
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

/* At most LEVELS deep. */
static int load_pointer(struct load *load, uint32_t blk, unsigned level, uint64_t lblk)
{
	uint64_t span = level_span(load->per, level ? level - 1 : 0);
	struct journal_buffer *buffer;
	const uint32_t *p;
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
	p = (const uint32_t *)buffer->data;
	for (uint64_t k = 0; k < load->per && !err; k++)
		err = load_pointer(load, le32toh(p[k]), level - 1, lblk + k * span);
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
		err = load_pointer(&load, le32toh(inode->raw->i_block[s]), slot_level(s),
				   slot_start(load.per, s));
	return err;
}

/* ---- freeing ---- */

struct unmap {
	struct journal_handle *handle;
	struct ext4_inode *inode;
	uint64_t per, from, to;
	uint64_t run;    /* data blocks [run, run + n) wait to be freed in one go */
	uint32_t n;
	bool metadata, more;
};

/*
 * A step may touch one bitmap for the waiting run, one for an indirect block, an indirect block per
 * level, inode, orphans.
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

/* The pointers of one indirect block, last first. */
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
 * What the pointer reaches in [from, to), and itself when all of that is gone. At most LEVELS deep.
 */
static int pointer_free(struct unmap *unmap, uint32_t *slot, unsigned level, uint64_t lblk,
			struct journal_buffer *holder)
{
	uint32_t blk = le32toh(*slot);
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
		/* Another inode may have it too, and as something that it is checked to be once. */
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

	/*
	 * To the end of the file means all that the pointers can reach, also beyond what a size can
	 * say.
	 */
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
