/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A file with a block map that needs a block becomes a file with extents first. Only a file that
 * fits into the inode is converted: at most EXT4_EXTENT_ROOT_MAX runs and INDIRECT_MOST indirect
 * blocks, so that one handle does it. An inode without any blocks always fits. The map in memory
 * stays as it is, so readers notice nothing. A file that does not fit is refused with -EOPNOTSUPP
 * before anything has changed, and the log names the way out.
 *
 * Called with the lock that guards the tree held: for directories inside the handle that makes them
 * grow (workers, and loop threads in the mode of base/nowait.h), for files by
 * ext4_indirect_convert_file, which opens a handle (workers; it misses on a loop thread). Indirect
 * blocks that lead outside the data area are damage: recorded, -EUCLEAN.
 */
#include "ext4/data/extent.h"

#include "base/counters.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

#define LEVELS 3
/* Freeing each of them takes one credit. */
#define INDIRECT_MOST EXT4_INDIRECT_CREDITS

struct convert {
	struct ext4_inode *inode;
	struct ext4_extent run[EXT4_EXTENT_ROOT_MAX];
	unsigned nr_runs;
	uint32_t indirect[INDIRECT_MOST]; /* indirect blocks, to be freed */
	unsigned nr_indirect;
};

static bool has_extents(const struct ext4_vol *vol)
{
	return ext2fs_has_feature_extents(vol->fs->super);
}

static int add_run(struct convert *convert, const struct ext4_extent *extent)
{
	for (uint32_t done = 0; done < extent->len;) {
		uint32_t n = FDIO_MIN(extent->len - done, EXT4_EXTENT_WRITTEN_MAX);

		if (convert->nr_runs == EXT4_EXTENT_ROOT_MAX)
			return -EOPNOTSUPP;
		convert->run[convert->nr_runs++] =
				(struct ext4_extent){ extent->lblk + done, n, extent->pblk + done,
						      extent->state };
		done += n;
	}
	return 0;
}

static int collect_runs(struct convert *convert)
{
	uint64_t at = 0;
	struct ext4_extent extent;
	int err = ext4_map_load_locked(convert->inode);

	while (!err && at < EXT4_LBLK_END) {
		err = ext4_map_lookup(convert->inode, (uint32_t)at, &extent);
		if (!err && extent.state != EXT4_EXTENT_HOLE)
			err = add_run(convert, &extent);
		at = ext4_extent_end(&extent);
	}
	return err;
}

/*
 * Collects an indirect block and the indirect blocks below it. At most LEVELS deep: each level
 * calls the one below; and it stops after INDIRECT_MOST blocks.
 */
static int collect_indirect(struct convert *convert, uint32_t blk, unsigned level)
{
	struct ext4_vol *vol = convert->inode->vol;
	struct journal_buffer *buffer;
	int err = 0;

	if (!blk)
		return 0;
	if (!ext4_blocks_valid(vol, blk, 1))
		return EXT4_CORRUPT(vol, convert->inode->ino, blk,
				    "indirect block outside the data area");
	if (convert->nr_indirect == ARRAY_SIZE(convert->indirect))
		return -EOPNOTSUPP;
	convert->indirect[convert->nr_indirect++] = blk;
	if (level == 1)
		return 0;
	err = journal_read_block(vol->journal, blk, &buffer);
	if (err)
		return err;
	for (uint32_t k = 0; k < vol->block_size / 4 && !err; k++)
		err = collect_indirect(convert, fdio_get_le32(buffer->data, 4 * k), level - 1);
	journal_buffer_release(buffer);
	return err;
}

static int collect(struct convert *convert)
{
	const uint32_t *slot = &convert->inode->raw->i_block[EXT2_IND_BLOCK];
	int err = has_extents(convert->inode->vol) ? collect_runs(convert) : -EOPNOTSUPP;

	for (unsigned level = 1; level <= LEVELS && !err; level++)
		err = collect_indirect(convert, fdio_get_le32(&slot[level - 1], 0), level);
	return err;
}

/* In the handle: frees the indirect blocks and writes the runs into the inode. */
static int apply(struct journal_handle *handle, struct convert *convert)
{
	struct ext3_extent_header *root;
	int err = 0;

	for (unsigned k = 0; k < convert->nr_indirect && !err; k++)
		err = ext4_blocks_free(handle, convert->inode, convert->indirect[k], 1, true);
	if (!err && convert->nr_indirect)
		err = ext4_raw_add_blocks(convert->inode, -(int64_t)convert->nr_indirect);
	if (err)
		return err;
	ext4_extent_init(convert->inode);
	root = ext4_extent_root(convert->inode);
	fdio_put_le16(&root->eh_entries, 0, convert->nr_runs);
	for (unsigned k = 0; k < convert->nr_runs; k++)
		ext4_extent_encode(&ext4_extent_node_extents(root)[k], &convert->run[k]);
	fdio_count(COUNTER_ext4_indirect_convert);
	return 0;
}

int ext4_indirect_convert(struct journal_handle *handle, struct ext4_inode *inode)
{
	struct convert convert = { .inode = inode };
	int err;

	if (ext4_map_kind(inode) != EXT4_MAPPED_INDIRECT)
		return ext4_map_kind(inode) == EXT4_MAPPED_EXTENTS ? 0 : -EOPNOTSUPP;
	err = collect(&convert);
	if (!err)
		return apply(handle, &convert);
	if (err == -EOPNOTSUPP && !nowait_on())
		log_ratelimited(FDIO_LOG_WARN,
				"inode %u has a block map and cannot get new blocks: unmount, then "
				"run e2fsck -f -E bmap2extent %s",
				inode->ino, inode->vol->dev->name);
	return err;
}

int ext4_indirect_convert_file(struct ext4_inode *inode)
{
	struct journal_handle *handle;
	int err;

	if (ext4_map_kind(inode) != EXT4_MAPPED_INDIRECT)
		return 0;
	if (nowait_on())
		return nowait_miss();
	fdio_mutex_lock(&inode->map_lock);
	err = ext4_inode_change_begin(inode, EXT4_INDIRECT_CREDITS + EXT4_CREDITS_INODE, &handle);
	if (!err) {
		err = ext4_indirect_convert(handle, inode);
		err = ext4_inode_change_end(handle, inode, err, true);
	}
	fdio_mutex_unlock(&inode->map_lock);
	return err;
}

void ext4_indirect_emptied(struct ext4_inode *inode)
{
	if (ext4_map_kind(inode) != EXT4_MAPPED_INDIRECT || !has_extents(inode->vol))
		return;
	for (unsigned k = 0; k < EXT2_N_BLOCKS; k++)
		if (inode->raw->i_block[k])
			return;
	ext4_extent_init(inode);
}
