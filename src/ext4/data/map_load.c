/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loading an extent map: the whole tree, or all indirect blocks, becomes a map in memory. The map
 * of an inode has these states; only in "loaded" is there one for ext4_map_lookup to find.
 *
 *   state        event                              next state   function
 *   not loaded   a caller needs the map             loading      ext4_map_load_locked
 *   loading      tree read, no block there twice    loaded       ext4_map_builder_publish
 *   loading      damage, read error, no memory      not loaded   ext4_map_builder_free
 *   loaded       the tree is edited                 loaded       ext4_map_apply
 *   loaded       an edit finds no memory            evicted      ext4_map_drop
 *   loaded       a handle that edited is cancelled  evicted      ext4_map_drop (inode/table.c)
 *   loaded       maps take more than their budget   evicted      ext4_maps_shrink
 *   loaded       the inode leaves memory            evicted      ext4_map_drop
 *   evicted      the next caller needs the map      loading      ext4_map_load_locked
 *
 * An evicted map is freed when the last reader has left its epoch (ext4_map_retire).
 *
 * Workers; loop threads in the mode of base/nowait.h, where only the map of a tree that lies in the
 * inode is loaded, and anything larger is a miss. The caller holds the lock that guards the tree
 * (map.h); ext4_map_load takes map_lock itself. Damage is recorded (EXT4_CORRUPT) and is -EUCLEAN.
 * An inode without a map is -EINVAL, or -EOPNOTSUPP when its data is inline.
 */
#include "ext4/data/extent.h"

#include <errno.h>
#include <sys/stat.h>

/*
 * No block may be there twice. One exception: on a file system with shared_blocks, which is mounted
 * read-only, regular files may have blocks in common.
 */
static int check_twice(struct ext4_inode *inode, struct ext4_map_builder *builder)
{
	uint64_t blk = 0;
	int err;

	if (ext2fs_has_feature_shared_blocks(inode->vol->fs->super) && ext4_is_regular(inode))
		return 0;
	err = ext4_map_builder_check(builder, &blk);
	if (err == -EUCLEAN)
		err = EXT4_CORRUPT(inode->vol, inode->ino, blk, "it has the block twice");
	return err;
}

static int no_map(struct ext4_inode *inode)
{
	if (!ext4_inode_inline(inode))
		return -EINVAL;
	if (ext2fs_has_feature_inline_data(inode->vol->fs->super))
		return -EOPNOTSUPP; /* ext4_inline_read reads it */
	return EXT4_CORRUPT(inode->vol, inode->ino, 0,
			    "inline data, which the file system does not have");
}

/* An open append window lies behind everything that is in the tree: WINDOW-1, WINDOW-3. */
static int add_window(struct ext4_inode *inode, struct ext4_map_builder *builder)
{
	const struct ext4_window *window = &inode->data.window;
	struct ext4_extent extent = { window->lblk, window->len, window->pblk,
				      EXT4_EXTENT_WRITTEN };

	return window->len ? ext4_map_builder_add(builder, &extent) : 0;
}

static int collect(struct ext4_inode *inode, struct ext4_map_builder *builder)
{
	switch (ext4_map_kind(inode)) {
	case EXT4_MAPPED_EXTENTS:
		return ext4_extent_load(inode, builder);
	case EXT4_MAPPED_INDIRECT:
		return ext4_indirect_load(inode, builder);
	case EXT4_MAPPED_NOT:
		break;
	}
	return no_map(inode);
}

int ext4_map_load_locked(struct ext4_inode *inode)
{
	struct ext4_map_builder builder = { 0 };
	int err;

	if (__atomic_load_n(&inode->data.map, __ATOMIC_ACQUIRE))
		return 0;
	/* A loop thread loads only a tree that lies in the inode itself. */
	if (nowait_on() && (ext4_map_kind(inode) != EXT4_MAPPED_EXTENTS ||
			    ext4_extent_node_depth(ext4_extent_root(inode))))
		return nowait_miss();
	err = collect(inode, &builder);
	if (!err)
		err = check_twice(inode, &builder);
	if (!err)
		err = add_window(inode, &builder);
	if (err) {
		ext4_map_builder_free(&builder);
		return err;
	}
	err = ext4_map_builder_publish(&builder, inode);
	__atomic_store_n(&inode->vol->data.map_newest, inode->ino, __ATOMIC_RELAXED);
	ext4_map_mem_check(inode->vol);
	return err;
}

int ext4_map_load(struct ext4_inode *inode)
{
	int err = fdio_mutex_enter(&inode->map_lock);

	if (err)
		return err;
	err = ext4_map_load_locked(inode);
	fdio_mutex_unlock(&inode->map_lock);
	return err;
}

int ext4_map_lookup_load(struct ext4_inode *inode, uint32_t lblk, struct ext4_extent *ret)
{
	int err;

	while ((err = ext4_map_lookup(inode, lblk, ret)) == -EAGAIN) {
		err = ext4_map_load(inode);
		if (err)
			break;
	}
	return err;
}
