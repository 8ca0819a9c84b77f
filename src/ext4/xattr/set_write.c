/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writing a changed set back into the places that set_layout.c has chosen: the inode's own space
 * and the attribute block, both written anew, and values that go to inodes of their own.
 *
 * In the caller's handle, with the inode locked exclusively or alone: workers, and loop threads in
 * the mode of base/nowait.h; for a deleted inode also the ticker and the thread that mounts or
 * unmounts. After an error the caller cancels the handle.
 */
#include "ext4/core/superblock.h"
#include "ext4/inode/inode_change.h"
#include "ext4/xattr/places.h"
#include "ext4/xattr/set.h"
#include "ext4/xattr/value.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void put_entry(uint8_t *at, const struct ext4_xattr *xattr, uint32_t value_off,
		      uint32_t hash)
{
	struct ext2_ext_attr_entry entry = {
		.e_name_len = xattr->name_len,
		.e_name_index = xattr->index,
		.e_value_offs = (uint16_t)value_off,
		.e_value_inum = xattr->value_ino,
		.e_value_size = xattr->size,
		.e_hash = hash,
	};

	memcpy(at, &entry, EXT4_XATTR_ENTRY_HEAD);
	memcpy(at + EXT4_XATTR_ENTRY_HEAD, xattr->name, xattr->name_len);
}

/*
 * Copies the value below *end, which moves down to it. Returns its offset from base; 0 for a value
 * that is empty or in an inode of its own.
 */
static uint32_t put_value(uint8_t *base, uint8_t **end, const struct ext4_xattr *xattr)
{
	if (xattr->value_ino || !xattr->size)
		return 0;
	*end -= ext4_xattr_round(xattr->size);
	memcpy(*end, xattr->value, xattr->size);
	return (uint32_t)(*end - base);
}

static void fill_inode_space(struct ext4_inode *inode, const struct ext4_xattr_set *set)
{
	uint32_t len, *magic;
	uint8_t *space = ext4_xattr_inode_space(inode, &len, &magic), *at = space, *end;
	bool any = false;

	if (!space)
		return;
	memset(space, 0, len);
	end = space + len;
	for (unsigned k = 0; k < set->nr; k++) {
		const struct ext4_xattr *xattr = &set->xattr[k];

		if (xattr->in_block)
			continue;
		uint32_t off = put_value(space, &end, xattr);
		/* Here the hash is checked only for values in inodes of their own. */
		put_entry(at, xattr, off, xattr->value_ino ? xattr->hash : 0);
		at += ext4_xattr_entry_len(xattr->name_len);
		any = true;
	}
	*magic = any ? EXT2_EXT_ATTR_MAGIC : 0;
}

/* The order in which the kernel searches the entries of a block. */
static int by_kernel_order(const void *pa, const void *pb)
{
	const struct ext4_xattr *a = pa, *b = pb;

	if (a->index != b->index)
		return a->index - b->index;
	if (a->name_len != b->name_len)
		return a->name_len - b->name_len;
	return memcmp(a->name, b->name, a->name_len);
}

static void fill_block(struct ext4_vol *vol, struct journal_buffer *buffer,
		       const struct ext4_xattr_set *set)
{
	struct ext2_ext_attr_header *header = ext4_xattr_header(buffer);
	uint8_t *data = buffer->data, *at = data + EXT4_XATTR_BLOCK_HEAD,
		*end = data + vol->block_size;

	memset(data, 0, vol->block_size);
	header->h_magic = EXT2_EXT_ATTR_MAGIC;
	header->h_refcount = 1;
	header->h_blocks = 1;
	for (unsigned k = 0; k < set->nr; k++) {
		const struct ext4_xattr *xattr = &set->xattr[k];

		if (!xattr->in_block)
			continue;
		uint32_t off = put_value(data, &end, xattr);
		put_entry(at, xattr, off, xattr->hash);
		if (!xattr->value_ino) {
			struct ext2_ext_attr_entry *entry = (void *)at;

			entry->e_hash = ext2fs_ext_attr_hash_entry(entry, data + off);
		}
		at += ext4_xattr_entry_len(xattr->name_len);
	}
	ext2fs_ext_attr_block_rehash(header, (struct ext2_ext_attr_entry *)at);
	ext4_xattr_block_seal(vol, buffer);
}

/*
 * Makes the inodes of values that need one. If the set leaves a shared block, its own copy becomes
 * another owner of the values that its entries name (XATTR-3).
 */
static int write_values(struct journal_handle *handle, struct ext4_inode *inode,
			struct ext4_xattr_set *set)
{
	int err = 0;

	for (unsigned k = 0; k < set->nr && !err; k++) {
		struct ext4_xattr *xattr = &set->xattr[k];

		if (xattr->needs_inode)
			err = ext4_ea_new(handle, inode, xattr);
		else if (set->block_shared && xattr->was_in_block && xattr->value_ino)
			err = ext4_ea_ref(handle, inode, xattr);
		xattr->needs_inode = false;
	}
	return err;
}

/* ---- the feature ext_attr ---- */

struct feature_undo { struct journal_callback callback; struct ext4_vol *vol; };

static void feature_undo(struct journal_callback *callback, int ended)
{
	if (!ended)
		container_of(callback, struct feature_undo, callback)->vol->has_ext_attr = false;
}

/* With the first attribute of a file system the superblock gets the feature, as with the kernel. */
static int set_feature(struct journal_handle *handle, struct ext4_vol *vol)
{
	struct feature_undo *undo;
	struct ext2_super_block *sb;
	int err;

	if (vol->has_ext_attr)
		return 0;
	err = ext4_super_begin(vol, handle, &sb);
	if (err)
		return err;
	undo = journal_handle_alloc(handle, sizeof(*undo));
	if (!undo)
		return -ENOMEM;
	*undo = (struct feature_undo){ .callback = { .fn = feature_undo }, .vol = vol };
	journal_on_undo(handle, &undo->callback);
	ext2fs_set_feature_xattr(sb);
	ext4_super_end(vol, handle);
	vol->has_ext_attr = true;
	return 0;
}

/* ---- the whole set ---- */

static int write_block(struct journal_handle *handle, struct ext4_inode *inode,
		       struct ext4_xattr_set *set)
{
	struct journal_buffer *buffer;
	int err;

	qsort(set->xattr, set->nr, sizeof(*set->xattr), by_kernel_order);
	err = ext4_xattr_block_begin(handle, inode, &buffer);
	if (err)
		return err;
	fill_block(inode->vol, buffer, set);
	journal_buffer_release(buffer);
	return 0;
}

int ext4_xattr_store(struct journal_handle *handle, struct ext4_inode *inode,
		     struct ext4_xattr_set *set)
{
	bool block;
	int err = ext4_xattr_layout(inode, set, &block);

	if (!err)
		err = ext4_inode_begin(handle, inode);
	if (!err && set->nr)
		err = set_feature(handle, inode->vol);
	if (!err && inode->vol->has_ea_inode)
		err = write_values(handle, inode, set);
	if (!err)
		err = block ? write_block(handle, inode, set)
			    : ext4_xattr_drop_block(handle, inode);
	if (err)
		return err;
	fill_inode_space(inode, set);
	return ext4_inode_dirty(handle, inode, false);
}
