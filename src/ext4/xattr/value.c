/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Values of extended attributes that lie in inodes of their own (feature ea_inode): made, read,
 * shared and given up. Called by xattr/disk.c, xattr/xattr.c and xattr/acl.c; reading on workers
 * with the owner locked in any mode, changing inside their handles.
 *
 * Such an inode is a regular file without a name. Its blocks are metadata: they go through the log,
 * and are revoked when they are freed. Where other inodes have times it keeps a checksum of the
 * value (atime) and the number of its owners (ctime and version). An owner is an inode's own space
 * or an attribute block, however many inodes share that block. The last owner gone, it is an
 * orphan, and deleted like any file whose last name is gone.
 *
 * VALUE-1 The content of such an inode never changes: a new value is a new inode. So it is read
 * without a lock of its own. VALUE-2 References that a handle takes are kept until it has ended, by
 * v->ea_refs: dropping the last one deletes, which takes
 *    handles of its own, and must not happen to what the handle may still take back. The list is
 *    changed inside handles only.
 *    Whoever has a handle finds on it only what ended handles have left.
 * VALUE-3 Such an inode has no attributes itself. One that has is damage, so what an image makes of
 *    values never leads further than from an inode to its values.
 * VALUE-4 What turns out to be no such inode is let go inside a handle, so it must not be one that
 * is
 *    deleted then (ext4_inode_get_value).
 */
#include "ext4/xattr/set.h"

#include "base/crc32c.h"
#include "base/nowait.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Outlives the handle (VALUE-2), so it is allocated. Write-out takes none: it changes no
 * attributes.
 */
struct ea_ref { struct list link; struct ext4_inode *ea; };

unsigned ext4_ea_blocks(const struct ext4_vol *vol, size_t len)
{
	/* The tree of a value in many pieces has one node. */
	return vol->has_ea_inode && len ? (unsigned)fdio_blocks(len, vol->block_bits) + 1 : 0;
}

unsigned ext4_ea_credits_new(const struct ext4_vol *vol, size_t len)
{
	/* Each block may be in a group of its own. */
	return vol->has_ea_inode && len
			       ? EXT4_CREDITS_INODE_NEW + EXT4_CREDITS_INODE +
						 (1 + EXT4_CREDITS_ALLOC) * ext4_ea_blocks(vol, len)
			       : 0;
}

/* ------------------------------------------------------------------ references */

/* VALUE-2 */
static void keep(struct ea_ref *ref, struct ext4_inode *ea)
{
	ref->ea = ea;
	list_add_tail(&ea->vol->xattr.ea_refs, &ref->link);
	__atomic_store_n(&ea->vol->xattr.ea_refs_kept, true, __ATOMIC_RELEASE);
}

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
		if (ext4_inode_is_bad(ref->ea)) /* in no hash: nobody else finds it */
			ext4_inode_free(ref->ea);
		free(ref);
	}
}

/* VALUE-3 */
static bool holds_value(struct ext4_inode *ea)
{
	return S_ISREG(ext4_inode_mode(ea)) && (ext4_inode_flags(ea) & EXT4_EA_INODE_FL) &&
	       ea->raw->i_links_count && !ext4_xattr_any(ea);
}

/* The inode that holds xattr, an attribute of inode. */
static int get(struct ext4_inode *inode, const struct ext4_xattr *xattr, struct ext4_inode **ret)
{
	int err = xattr->inum == inode->ino ? -ENOENT
					    : ext4_inode_get_value(inode->vol, xattr->inum, ret);

	if (!err && !holds_value(*ret)) {
		ext4_inode_put(*ret); /* VALUE-4 */
		err = -ENOENT;
	}
	return err == -ENOENT ? EXT4_CORRUPT(inode->vol, inode->ino, 0,
					     "inode %u does not hold an attribute value",
					     xattr->inum)
			      : err;
}

/*
 * An older kind has one owner and says so with its number in place of a time: neither count nor
 * checksum are kept.
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

/* The inode that holds xattr, open for change in handle, which keeps the reference. */
static int begin(struct journal_handle *handle, struct ext4_inode *inode,
		 const struct ext4_xattr *xattr, struct ext4_inode **ret)
{
	struct ea_ref *ref = malloc(sizeof(*ref));
	int err = ref ? get(inode, xattr, ret) : -ENOMEM;

	if (err) {
		free(ref);
		return err;
	}
	keep(ref, *ret);
	return ext4_inode_begin(handle, *ret);
}

int ext4_ea_ref(struct journal_handle *handle, struct ext4_inode *inode,
		const struct ext4_xattr *xattr)
{
	struct ext4_inode *ea;
	int err = begin(handle, inode, xattr, &ea);

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
	int err = begin(handle, inode, xattr, &ea);

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

/* ------------------------------------------------------------------ content */

static uint32_t checksum(const struct ext4_vol *vol, const void *value, uint32_t len)
{
	return fdio_crc32c(vol->checksum_seed, value, len);
}

int ext4_ea_read(struct ext4_inode *inode, const struct ext4_xattr *xattr, uint8_t *buf)
{
	struct ext4_vol *vol = inode->vol;
	struct ext4_inode *ea;
	/* Up to 64 KiB, and buf must not be half an answer. */
	int err = nowait_on() ? nowait_miss() : get(inode, xattr, &ea);

	if (err)
		return err;
	if (ext4_inode_size(ea) != xattr->size)
		err = EXT4_CORRUPT(vol, inode->ino, 0,
				   "inode %u does not hold an attribute value of %u bytes",
				   xattr->inum, xattr->size);
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
				   xattr->inum);
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
	raw->i_flags = EXT4_EXTENTS_FL | EXT4_EA_INODE_FL; /* nothing of the directory's */
	raw->i_atime = sum;
	if (ea->vol->inode_size > 128)
		raw->i_atime_extra = raw->i_ctime_extra = raw->i_version_hi = 0;
	ext4_raw_set_size(ea, len);
	fdio_mutex_unlock(&ea->attr);
	set_owners(ea, 1);
}

/* The hash of an entry covers the name and, for such values, their checksum. */
static uint32_t entry_hash(const struct ext4_xattr *xattr, uint32_t sum)
{
	struct {
		struct ext2_ext_attr_entry entry;
		char name[256];
	} n = { .entry = { .e_name_len = xattr->name_len, .e_value_size = sizeof(sum) } };

	memcpy(n.name, xattr->name, xattr->name_len);
	return ext2fs_ext_attr_hash_entry(&n.entry, &sum);
}

int ext4_ea_new(struct journal_handle *handle, struct ext4_inode *inode, struct ext4_xattr *xattr)
{
	const struct ext2_inode_large *raw = inode->raw;
	struct ext4_credentials credentials = {
		.uid = raw->i_uid | (uint32_t)raw->osd2.linux2.l_i_uid_high << 16,
		.gid = raw->i_gid | (uint32_t)raw->osd2.linux2.l_i_gid_high << 16,
	};
	uint32_t sum = checksum(inode->vol, xattr->value, xattr->size);
	struct ea_ref *ref = malloc(sizeof(*ref));
	struct ext4_inode *ea;
	int err = ref ? ext4_inode_new(handle, inode, S_IFREG | 0600, &credentials, &ea) : -ENOMEM;

	if (err) {
		free(ref);
		return err;
	}
	keep(ref, ea);
	init_raw(ea, xattr->size, sum);
	err = write_value(handle, ea, xattr->value, xattr->size);
	if (!err)
		err = ext4_inode_dirty(handle, ea, true);
	if (err)
		return err;
	xattr->inum = ea->ino;
	xattr->hash = entry_hash(xattr, sum);
	xattr->value = NULL;
	/* Each owner has the blocks of the value on its account. */
	return ext4_raw_add_blocks(inode,
				   (int64_t)fdio_blocks(xattr->size, inode->vol->block_bits));
}

void ext4_ea_init(struct ext4_vol *vol) { list_init(&vol->xattr.ea_refs); }
