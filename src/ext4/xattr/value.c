/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Values of extended attributes that lie in inodes of their own (feature ea_inode): made, read,
 * shared and given up. Workers, and loop threads in the mode of base/nowait.h, where a read always
 * misses. Reading with the owner locked in any mode, changing in the handle of whoever changes the
 * owner. ext4_ea_settle also on the ticker and on the thread that unmounts. Damage is -EUCLEAN.
 *
 * Such an inode is a regular file without a name. Its blocks are metadata: they go through the log,
 * and are revoked when they are freed. Where other inodes have times it keeps a checksum of the
 * value (atime) and the number of its owners (ctime and version). An owner is an inode's own space
 * or an attribute block, however many inodes share that block. When the last owner is gone, the
 * inode is put on the orphan list and deleted like any file whose last name is gone.
 *
 * VALUE-1 The content of such an inode never changes: a new value is a new inode. So it is read
 *         without taking its lock.
 * VALUE-2 A reference that a handle takes is kept on vol->xattr.ea_refs until the handle has ended:
 *         dropping the last one deletes the inode, which takes handles of its own, and a cancelled
 *         handle may still take back what it did. The list is changed only inside handles, which
 *         run one at a time; so whoever has a handle finds on it only what ended handles have left.
 * VALUE-3 Such an inode has no attributes itself. One that has any is damage, so an image can never
 *         lead further than from an inode to its values.
 * VALUE-4 An inode that turns out not to hold a value is put inside the handle. That must not
 *         delete it, so ext4_inode_get_value returns none without a name.
 */
#include "ext4/xattr/value.h"

#include "base/crc32c.h"
#include "base/nowait.h"
#include "ext4/inode/inode_cache.h"
#include "ext4/xattr/places.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A kept reference. It outlives the handle (VALUE-2), so it is not the handle's memory. */
struct ea_ref { struct list link; struct ext4_inode *ea; };

unsigned ext4_ea_blocks(const struct ext4_vol *vol, size_t len)
{
	/* The extent tree of a value in many pieces has one node. */
	return vol->has_ea_inode && len ? (unsigned)fdio_blocks(len, vol->block_bits) + 1 : 0;
}

unsigned ext4_ea_credits_new(const struct ext4_vol *vol, size_t len)
{
	/* Each block may lie in another group. */
	const unsigned each = 1 + EXT4_CREDITS_ALLOC;

	if (!vol->has_ea_inode || !len)
		return 0;
	return EXT4_CREDITS_INODE_NEW + EXT4_CREDITS_INODE + each * ext4_ea_blocks(vol, len);
}

/* ---- kept references ---- */

/* VALUE-2 */
static void keep_reference(struct ea_ref *ref, struct ext4_inode *ea)
{
	ref->ea = ea;
	list_add_tail(&ea->vol->xattr.ea_refs, &ref->link);
	__atomic_store_n(&ea->vol->xattr.ea_refs_kept, true, __ATOMIC_RELEASE);
}

void ext4_ea_init(struct ext4_vol *vol) { list_init(&vol->xattr.ea_refs); }

void ext4_ea_settle(struct ext4_vol *vol)
{
	struct journal_handle *handle;
	struct list mine;

	if (!__atomic_load_n(&vol->xattr.ea_refs_kept, __ATOMIC_ACQUIRE) ||
	    journal_begin(vol->journal, 0, &handle))
		return;
	list_init(&mine);
	list_splice_tail(&mine, &vol->xattr.ea_refs);
	__atomic_store_n(&vol->xattr.ea_refs_kept, false, __ATOMIC_RELEASE);
	journal_end(handle);
	while (!list_empty(&mine)) {
		struct ea_ref *ref = list_first(&mine, struct ea_ref, link);

		list_del(&ref->link);
		ext4_inode_put(ref->ea);
		free(ref);
	}
}

void ext4_ea_fini(struct ext4_vol *vol)
{
	while (!list_empty(&vol->xattr.ea_refs)) {
		struct ea_ref *ref = list_first(&vol->xattr.ea_refs, struct ea_ref, link);

		list_del(&ref->link);
		/* The cache frees all others: a bad inode is not in its hash. */
		if (ext4_inode_is_bad(ref->ea))
			ext4_inode_free(ref->ea);
		free(ref);
	}
}

/* ---- owners ---- */

/* VALUE-3 */
static bool holds_value(struct ext4_inode *ea)
{
	return S_ISREG(ext4_inode_mode(ea)) && (ext4_inode_flags(ea) & EXT4_EA_INODE_FL) &&
	       ea->raw->i_links_count && !ext4_xattr_present(ea);
}

/* The inode that holds the value of xattr, an attribute of inode; the caller puts it. */
static int get_value_inode(struct ext4_inode *inode, const struct ext4_xattr *xattr,
			   struct ext4_inode **ret)
{
	int err = -ENOENT;

	if (xattr->value_ino != inode->ino)
		err = ext4_inode_get_value(inode->vol, xattr->value_ino, ret);
	if (!err && !holds_value(*ret)) {
		ext4_inode_put(*ret); /* VALUE-4 */
		err = -ENOENT;
	}
	if (err != -ENOENT)
		return err;
	return EXT4_CORRUPT(inode->vol, inode->ino, 0, "inode %u does not hold an attribute value",
			    xattr->value_ino);
}

/*
 * Lustre made such inodes before ext4 had them. One of these belongs to one inode, whose number it
 * has in place of the mtime; it has neither a count of owners nor a checksum.
 */
static bool is_lustre(const struct ext4_inode *inode, const struct ext4_inode *ea)
{
	return ea->raw->i_mtime == inode->ino && ea->raw->i_generation == inode->raw->i_generation;
}

static uint64_t owners(const struct ext2_inode_large *raw)
{
	return (uint64_t)raw->i_ctime << 32 | raw->osd1.linux1.l_i_version;
}

static void set_owners(struct ext4_inode *ea, uint64_t n)
{
	fdio_mutex_lock(&ea->attr);
	ea->raw->i_ctime = (uint32_t)(n >> 32);
	ea->raw->osd1.linux1.l_i_version = (uint32_t)n;
	fdio_mutex_unlock(&ea->attr);
}

/* Opens the inode of xattr's value for change in handle, which keeps the reference (VALUE-2). */
static int begin_value_inode(struct journal_handle *handle, struct ext4_inode *inode,
			     const struct ext4_xattr *xattr, struct ext4_inode **ret)
{
	struct ea_ref *ref = malloc(sizeof(*ref));
	int err = ref ? get_value_inode(inode, xattr, ret) : -ENOMEM;

	if (err) {
		free(ref);
		return err;
	}
	keep_reference(ref, *ret);
	return ext4_inode_begin(handle, *ret);
}

int ext4_ea_ref(struct journal_handle *handle, struct ext4_inode *inode,
		const struct ext4_xattr *xattr)
{
	struct ext4_inode *ea;
	int err = begin_value_inode(handle, inode, xattr, &ea);

	if (err)
		return err;
	if (is_lustre(inode, ea) || owners(ea->raw) == UINT64_MAX)
		return EXT4_CORRUPT(inode->vol, inode->ino, 0,
				    "the attribute value in inode %u cannot be shared", ea->ino);
	set_owners(ea, owners(ea->raw) + 1);
	return ext4_inode_dirty(handle, ea, false);
}

int ext4_ea_unref(struct journal_handle *handle, struct ext4_inode *inode,
		  const struct ext4_xattr *xattr)
{
	struct ext4_inode *ea;
	uint64_t n;
	int err = begin_value_inode(handle, inode, xattr, &ea);

	if (err)
		return err;
	n = is_lustre(inode, ea) ? 1 : owners(ea->raw);
	n -= n > 0;
	set_owners(ea, n);
	if (!n) {
		ext4_raw_set_nlink(ea, 0);
		err = ext4_orphan_add(handle, ea);
	}
	return err ? err : ext4_inode_dirty(handle, ea, false);
}

/* ---- content ---- */

static uint32_t checksum(const struct ext4_vol *vol, const void *value, uint32_t len)
{
	return fdio_crc32c(vol->checksum_seed, value, len);
}

int ext4_ea_read(struct ext4_inode *inode, const struct ext4_xattr *xattr, uint8_t *buf)
{
	struct ext4_vol *vol = inode->vol;
	struct ext4_inode *ea;
	/* A value has up to 64 KiB: too much for a loop thread, even if no block has to be read. */
	int err = nowait_on() ? nowait_miss() : get_value_inode(inode, xattr, &ea);

	if (err)
		return err;
	if (ext4_inode_size(ea) != xattr->size)
		err = EXT4_CORRUPT(vol, inode->ino, 0,
				   "inode %u does not hold an attribute value of %u bytes",
				   xattr->value_ino, xattr->size);
	for (uint32_t at = 0; at < xattr->size && !err; at += vol->block_size) {
		struct journal_buffer *buffer;
		uint64_t pblk;

		err = ext4_bmap(ea, at >> vol->block_bits, &pblk); /* VALUE-1 */
		if (!err)
			err = journal_read_block(vol->journal, pblk, &buffer);
		if (err)
			break;
		memcpy(buf + at, buffer->data, FDIO_MIN(vol->block_size, xattr->size - at));
		journal_buffer_release(buffer);
	}
	if (!err && !is_lustre(inode, ea) && ea->raw->i_atime != checksum(vol, buf, xattr->size))
		err = EXT4_CORRUPT(vol, inode->ino, 0,
				   "the attribute value in inode %u has a wrong checksum",
				   xattr->value_ino);
	ext4_inode_put(ea);
	return err;
}

int ext4_ea_copy(struct ext4_inode *inode, const struct ext4_xattr *xattr, uint8_t **ret)
{
	int err;

	*ret = malloc(FDIO_MAX(xattr->size, 1u));
	if (!*ret)
		return -ENOMEM;
	err = ext4_ea_read(inode, xattr, *ret);
	if (err) {
		free(*ret);
		*ret = NULL;
	}
	return err;
}

static int write_value(struct journal_handle *handle, struct ext4_inode *ea, const uint8_t *value,
		       uint32_t len)
{
	uint32_t bs = ea->vol->block_size;

	for (uint32_t at = 0; at < len; at += bs) {
		struct journal_buffer *buffer;
		int err = ext4_append_metadata_block(handle, ea, at >> ea->vol->block_bits,
						     &buffer);

		if (err)
			return err;
		memcpy(buffer->data, value + at, FDIO_MIN(bs, len - at));
		journal_buffer_release(buffer);
	}
	return 0;
}

static void init_raw(struct ext4_inode *ea, uint32_t len, uint32_t sum)
{
	struct ext2_inode_large *raw = ea->raw;

	fdio_mutex_lock(&ea->attr);
	/* Drops the flags that ext4_inode_new has given it as to a file in a directory. */
	raw->i_flags = EXT4_EXTENTS_FL | EXT4_EA_INODE_FL;
	raw->i_atime = sum;
	if (ea->vol->inode_size > EXT4_XATTR_OLD_INODE)
		raw->i_atime_extra = raw->i_ctime_extra = raw->i_version_hi = 0;
	ext4_raw_set_size(ea, len);
	fdio_mutex_unlock(&ea->attr);
	set_owners(ea, 1);
}

/* The hash of an entry covers the name and, for a value in an inode, the checksum of the value. */
static uint32_t entry_hash(const struct ext4_xattr *xattr, uint32_t sum)
{
	struct {
		struct ext2_ext_attr_entry entry;
		char name[256];
	} named = { .entry = { .e_name_len = xattr->name_len, .e_value_size = sizeof(sum) } };

	memcpy(named.name, xattr->name, xattr->name_len);
	return ext2fs_ext_attr_hash_entry(&named.entry, &sum);
}

/* Writes the value into ea, which is new and open in handle. */
static int fill_value_inode(struct journal_handle *handle, struct ext4_inode *ea,
			    const struct ext4_xattr *xattr, uint32_t sum)
{
	int err;

	init_raw(ea, xattr->size, sum);
	err = write_value(handle, ea, xattr->value, xattr->size);
	return err ? err : ext4_inode_dirty(handle, ea, true);
}

int ext4_ea_new(struct journal_handle *handle, struct ext4_inode *inode, struct ext4_xattr *xattr)
{
	const struct ext2_inode_large *raw = inode->raw;
	struct ext4_credentials credentials = {
		.uid = raw->i_uid | (uint32_t)raw->osd2.linux2.l_i_uid_high << 16,
		.gid = raw->i_gid | (uint32_t)raw->osd2.linux2.l_i_gid_high << 16,
	};
	uint32_t sum = checksum(inode->vol, xattr->value, xattr->size);
	int64_t blocks = (int64_t)fdio_blocks(xattr->size, inode->vol->block_bits);
	struct ea_ref *ref = malloc(sizeof(*ref));
	struct ext4_inode *ea;
	int err = ref ? ext4_inode_new(handle, inode, S_IFREG | 0600, &credentials, &ea) : -ENOMEM;

	if (err) {
		free(ref);
		return err;
	}
	keep_reference(ref, ea);
	err = fill_value_inode(handle, ea, xattr, sum);
	if (err)
		return err;
	xattr->value_ino = ea->ino;
	xattr->hash = entry_hash(xattr, sum);
	xattr->value = NULL;
	/* The blocks of a value are counted in i_blocks of each inode that has the attribute. */
	return ext4_raw_add_blocks(inode, blocks);
}
