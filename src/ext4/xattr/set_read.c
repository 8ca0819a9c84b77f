/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading all attributes of an inode, from its own space and its attribute block, into a set. The
 * set points into copies of both, so it stays good when the caller changes the inode. What an image
 * can get wrong about entries is found here (XATTR-1) and is -EUCLEAN; the content of values is not
 * looked at.
 *
 * Workers, and loop threads in the mode of base/nowait.h; for a deleted inode also the ticker and
 * the thread that mounts or unmounts. The caller has the inode locked, in any mode, or alone.
 */
#include "ext4/xattr/places.h"
#include "ext4/xattr/set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int add_entry(struct ext4_xattr_set *set, const struct ext2_ext_attr_entry *entry,
		     const uint8_t *value, bool in_block)
{
	if (set->nr + 2 > set->cap) { /* one element stays free */
		unsigned cap = set->cap ? set->cap * 2 : 16;
		struct ext4_xattr *xattr = realloc(set->xattr, cap * sizeof(*xattr));

		if (!xattr)
			return -ENOMEM;
		set->xattr = xattr;
		set->cap = cap;
	}
	set->xattr[set->nr++] = (struct ext4_xattr){
		.index = entry->e_name_index,
		.name_len = entry->e_name_len,
		.name = (const char *)entry + EXT4_XATTR_ENTRY_HEAD,
		.value = value,
		.size = entry->e_value_size,
		.value_ino = entry->e_value_inum,
		.hash = entry->e_hash,
		.in_block = in_block,
		.was_in_block = in_block,
	};
	return 0;
}

/* One place: entries from first on, the end of the place, and where value offsets count from. */
struct area { const uint8_t *base, *first, *end; uint64_t blk; /* 0: the inode's own space */ };

/* Finds the byte behind the entries and the zero bytes that end them. */
static int find_stop(struct ext4_inode *inode, const struct area *area, const uint8_t **ret)
{
	const uint8_t *p = area->first, *end = area->end;
	struct ext2_ext_attr_entry entry;

	for (;;) {
		uint32_t word;

		if (end - p < (ptrdiff_t)EXT4_XATTR_END)
			return EXT4_CORRUPT(inode->vol, inode->ino, area->blk,
					    "extended attributes without an end");
		memcpy(&word, p, 4);
		if (!word)
			break;
		if (end - p < (ptrdiff_t)EXT4_XATTR_ENTRY_HEAD)
			return EXT4_CORRUPT(inode->vol, inode->ino, area->blk,
					    "an extended attribute entry is cut off");
		memcpy(&entry, p, EXT4_XATTR_ENTRY_HEAD);
		if (end - p < (ptrdiff_t)ext4_xattr_entry_len(entry.e_name_len))
			return EXT4_CORRUPT(inode->vol, inode->ino, area->blk,
					    "an extended attribute name is cut off");
		p += ext4_xattr_entry_len(entry.e_name_len);
	}
	*ret = p + EXT4_XATTR_END;
	return 0;
}

/* Where the value of entry lies; *ret is NULL if it is empty or in an inode of its own. */
static int find_value(struct ext4_inode *inode, const struct area *area, const uint8_t *stop,
		      const struct ext2_ext_attr_entry *entry, const uint8_t **ret)
{
	uint32_t avail = (uint32_t)(area->end - area->base);

	*ret = NULL;
	if (!entry->e_value_inum && entry->e_value_size) {
		if (entry->e_value_offs > avail ||
		    entry->e_value_size > avail - entry->e_value_offs ||
		    area->base + entry->e_value_offs < stop)
			return EXT4_CORRUPT(inode->vol, inode->ino, area->blk,
					    "an extended attribute value lies outside");
		*ret = area->base + entry->e_value_offs;
	}
	if (entry->e_value_inum &&
	    (!inode->vol->has_ea_inode || entry->e_value_size > EXT4_XATTR_VALUE_MAX))
		return EXT4_CORRUPT(inode->vol, inode->ino, area->blk,
				    "an extended attribute value in inode %u", entry->e_value_inum);
	return 0;
}

static int parse(struct ext4_inode *inode, struct ext4_xattr_set *set, const struct area *area)
{
	const uint8_t *stop = NULL;
	int err = find_stop(inode, area, &stop);

	if (err)
		return err;
	for (const uint8_t *p = area->first; p + EXT4_XATTR_END < stop;) {
		struct ext2_ext_attr_entry entry;
		const uint8_t *value;

		memcpy(&entry, p, EXT4_XATTR_ENTRY_HEAD);
		err = find_value(inode, area, stop, &entry, &value);
		if (!err)
			err = add_entry(set, (const struct ext2_ext_attr_entry *)p, value,
					area->blk != 0);
		if (err)
			return err;
		p += ext4_xattr_entry_len(entry.e_name_len);
	}
	return 0;
}

static void *copy_of(const void *p, size_t len)
{
	void *c = malloc(len);

	if (c)
		memcpy(c, p, len);
	return c;
}

static int load_inode_space(struct ext4_inode *inode, struct ext4_xattr_set *set)
{
	uint32_t len, *magic;
	uint8_t *space = ext4_xattr_inode_space(inode, &len, &magic);

	if (!space || *magic != EXT2_EXT_ATTR_MAGIC)
		return 0;
	set->inode_copy = copy_of(space, len);
	if (!set->inode_copy)
		return -ENOMEM;
	return parse(inode, set,
		     &(struct area){ .base = set->inode_copy,
				     .first = set->inode_copy,
				     .end = set->inode_copy + len });
}

static int load_block(struct ext4_inode *inode, struct ext4_xattr_set *set, uint64_t blk)
{
	struct journal_buffer *buffer;
	int err = ext4_xattr_block_read(inode, blk, &buffer);

	if (err)
		return err;
	set->block_copy = copy_of(buffer->data, inode->vol->block_size);
	set->block_shared = ext4_xattr_header(buffer)->h_refcount > 1;
	journal_buffer_release(buffer);
	if (!set->block_copy)
		return -ENOMEM;
	return parse(inode, set,
		     &(struct area){ .base = set->block_copy,
				     .first = set->block_copy + EXT4_XATTR_BLOCK_HEAD,
				     .end = set->block_copy + inode->vol->block_size,
				     .blk = blk });
}

static int set_init(struct ext4_xattr_set *set)
{
	*set = (struct ext4_xattr_set){ .cap = 8 };
	set->xattr = calloc(set->cap, sizeof(*set->xattr));
	return set->xattr ? 0 : -ENOMEM;
}

int ext4_xattr_load(struct ext4_inode *inode, struct ext4_xattr_set *ret)
{
	struct ext4_xattr_set set;
	uint64_t blk = ext4_raw_file_acl(inode);
	int err = set_init(&set);

	if (err)
		return err;
	err = load_inode_space(inode, &set);
	if (!err && blk)
		err = load_block(inode, &set, blk);
	if (err)
		ext4_xattr_set_fini(&set);
	else
		*ret = set;
	return err;
}

void ext4_xattr_set_fini(struct ext4_xattr_set *set)
{
	free(set->xattr);
	free(set->inode_copy);
	free(set->block_copy);
}

struct ext4_xattr *ext4_xattr_find(struct ext4_xattr_set *set, uint8_t index, const char *name,
				   unsigned name_len)
{
	for (unsigned k = 0; k < set->nr; k++)
		if (set->xattr[k].index == index && set->xattr[k].name_len == name_len &&
		    !memcmp(set->xattr[k].name, name, name_len))
			return &set->xattr[k];
	return NULL;
}

int ext4_xattr_system_data(struct ext4_inode *inode, uint8_t *buf, uint32_t cap, uint32_t *ret_len)
{
	struct ext4_xattr_set set;
	struct ext4_xattr *xattr;
	int err = set_init(&set);

	if (err)
		return err;
	err = load_inode_space(inode, &set);
	if (err)
		goto out;
	xattr = ext4_xattr_find(&set, EXT4_XATTR_INDEX_SYSTEM, "data", 4);
	if (!xattr || xattr->value_ino || xattr->size > cap) {
		err = EXT4_CORRUPT(inode->vol, inode->ino, 0,
				   "inline data without the attribute that holds the rest");
		goto out;
	}
	if (xattr->size)
		memcpy(buf, xattr->value, xattr->size);
	*ret_len = xattr->size;
out:
	ext4_xattr_set_fini(&set);
	return err;
}
