/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Values of extended attributes that lie in inodes of their own (feature ea_inode): made, read, shared and given up. Called by
 * xattr/disk.c, xattr/xattr.c and xattr/acl.c; reading on workers with the owner locked in any mode, changing inside their handles.
 *
 * Such an inode is a regular file without a name. Its blocks are metadata: they go through the log, and are revoked when they
 * are freed. Where other inodes have times it keeps a checksum of the value (atime) and the number of its owners (ctime and
 * version). An owner is an inode's own space or an attribute block, however many inodes share that block. The last owner
 * gone, it is an orphan, and deleted like any file whose last name is gone.
 *
 * VALUE-1 The content of such an inode never changes: a new value is a new inode. So it is read without a lock of its own.
 * VALUE-2 References that a handle takes are kept until it has ended, by v->ea_refs: dropping the last one deletes, which takes
 *    handles of its own, and must not happen to what the handle may still take back. The list is changed inside handles only.
 *    Whoever has a handle finds on it only what ended handles have left.
 * VALUE-3 Such an inode has no attributes itself. One that has is damage, so what an image makes of
 *    values never leads further than from an inode to its values.
 * VALUE-4 What turns out to be no such inode is let go inside a handle, so it must not be one that is
 *    deleted then (x4_iget_value).
 */
#include "ext4/xattr/set.h"

#include "base/crc32c.h"
#include "base/nowait.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Outlives the handle (VALUE-2), so it is allocated. Write-out takes none: it changes no attributes. */
struct ea_ref { struct list link; struct x4_inode *ea; };

unsigned x4_ea_blocks(const struct x4_vol *v, size_t len)
{
	/* The tree of a value in many pieces has one node. */
	return v->has_ea_inode && len ? (unsigned)fdio_blocks(len, v->block_bits) + 1 : 0;
}

unsigned x4_ea_credits_new(const struct x4_vol *v, size_t len)
{
	/* Each block may be in a group of its own. */
	return v->has_ea_inode && len ? X4_CREDITS_INODE_NEW + X4_CREDITS_INODE + (1 + X4_CREDITS_ALLOC) * x4_ea_blocks(v, len) : 0;
}

/* ------------------------------------------------------------------ references */

/* VALUE-2 */
static void keep(struct ea_ref *r, struct x4_inode *ea)
{
	r->ea = ea;
	list_add_tail(&ea->vol->xattr.ea_refs, &r->link);
	__atomic_store_n(&ea->vol->xattr.ea_refs_kept, true, __ATOMIC_RELEASE);
}

void x4_ea_settle(struct x4_vol *v)
{
	struct jnl_handle *h;
	struct list mine;

	if (!__atomic_load_n(&v->xattr.ea_refs_kept, __ATOMIC_ACQUIRE) || jnl_begin(v->jnl, 0, &h))
		return;
	list_init(&mine);
	list_splice_tail(&mine, &v->xattr.ea_refs);
	__atomic_store_n(&v->xattr.ea_refs_kept, false, __ATOMIC_RELEASE);
	jnl_end(h);
	while (!list_empty(&mine)) {
		struct ea_ref *r = list_first(&mine, struct ea_ref, link);

		list_del(&r->link);
		x4_iput(r->ea);
		free(r);
	}
}

void x4_ea_fini(struct x4_vol *v)
{
	while (!list_empty(&v->xattr.ea_refs)) {
		struct ea_ref *r = list_first(&v->xattr.ea_refs, struct ea_ref, link);

		list_del(&r->link);
		if (x4_inode_is_bad(r->ea)) /* in no hash: nobody else finds it */
			x4_inode_free(r->ea);
		free(r);
	}
}

/* VALUE-3 */
static bool holds_value(struct x4_inode *ea)
{
	return S_ISREG(x4_inode_mode(ea)) && (x4_inode_flags(ea) & EXT4_EA_INODE_FL) &&
	       ea->raw->i_links_count && !x4_xattr_any(ea);
}

/* The inode that holds x, an attribute of i. */
static int get(struct x4_inode *i, const struct x4_xattr *x, struct x4_inode **ret)
{
	int err = x->inum == i->ino ? -ENOENT : x4_iget_value(i->vol, x->inum, ret);

	if (!err && !holds_value(*ret)) {
		x4_iput(*ret); /* VALUE-4 */
		err = -ENOENT;
	}
	return err == -ENOENT ? X4_CORRUPT(i->vol, i->ino, 0, "inode %u does not hold an attribute value", x->inum) : err;
}

/* An older kind has one owner and says so with its number in place of a time: neither count nor checksum are kept. */
static bool is_lustre(const struct x4_inode *i, const struct x4_inode *ea)
{
	return ea->raw->i_mtime == i->ino && ea->raw->i_generation == i->raw->i_generation;
}

static uint64_t owners(const struct ext2_inode_large *raw)
{
	return (uint64_t)raw->i_ctime << 32 | raw->osd1.linux1.l_i_version;
}

static void set_owners(struct x4_inode *ea, uint64_t n)
{
	fdio_mutex_lock(&ea->attr);
	ea->raw->i_ctime = (uint32_t)(n >> 32);
	ea->raw->osd1.linux1.l_i_version = (uint32_t)n;
	fdio_mutex_unlock(&ea->attr);
}

/* The inode that holds x, open for change in h, which keeps the reference. */
static int begin(struct jnl_handle *h, struct x4_inode *i, const struct x4_xattr *x, struct x4_inode **ret)
{
	struct ea_ref *r = malloc(sizeof(*r));
	int err = r ? get(i, x, ret) : -ENOMEM;

	if (err) {
		free(r);
		return err;
	}
	keep(r, *ret);
	return x4_inode_begin(h, *ret);
}

int x4_ea_ref(struct jnl_handle *h, struct x4_inode *i, const struct x4_xattr *x)
{
	struct x4_inode *ea;
	int err = begin(h, i, x, &ea);

	if (err)
		return err;
	if (is_lustre(i, ea) || owners(ea->raw) == UINT64_MAX)
		return X4_CORRUPT(i->vol, i->ino, 0, "the attribute value in inode %u cannot be shared", ea->ino);
	set_owners(ea, owners(ea->raw) + 1);
	return x4_inode_dirty(h, ea, false);
}

int x4_ea_unref(struct jnl_handle *h, struct x4_inode *i, const struct x4_xattr *x)
{
	struct x4_inode *ea;
	uint64_t n;
	int err = begin(h, i, x, &ea);

	if (err)
		return err;
	n = is_lustre(i, ea) ? 1 : owners(ea->raw);
	n -= n > 0;
	set_owners(ea, n);
	if (!n) {
		x4_raw_set_nlink(ea, 0);
		err = x4_orphan_add(h, ea);
	}
	return err ? err : x4_inode_dirty(h, ea, false);
}

/* ------------------------------------------------------------------ content */

static uint32_t checksum(const struct x4_vol *v, const void *value, uint32_t len) { return fdio_crc32c(v->csum_seed, value, len); }

int x4_ea_read(struct x4_inode *i, const struct x4_xattr *x, uint8_t *buf)
{
	struct x4_vol *v = i->vol;
	struct x4_inode *ea;
	/* Up to 64 KiB, and buf must not be half an answer. */
	int err = nowait_on() ? nowait_miss() : get(i, x, &ea);

	if (err)
		return err;
	if (x4_inode_size(ea) != x->size)
		err = X4_CORRUPT(v, i->ino, 0, "inode %u does not hold an attribute value of %u bytes", x->inum, x->size);
	for (uint32_t at = 0; at < x->size && !err; at += v->block_size) {
		struct jnl_buf *b;
		uint64_t pblk;

		err = x4_bmap(ea, at >> v->block_bits, &pblk); /* VALUE-1 */
		if (!err)
			err = jnl_bread(v->jnl, pblk, &b);
		if (err)
			break;
		memcpy(buf + at, b->data, FDIO_MIN(v->block_size, x->size - at));
		jnl_brelse(b);
	}
	if (!err && !is_lustre(i, ea) && ea->raw->i_atime != checksum(v, buf, x->size))
		err = X4_CORRUPT(v, i->ino, 0, "the attribute value in inode %u has a wrong checksum", x->inum);
	x4_iput(ea);
	return err;
}

int x4_ea_copy(struct x4_inode *i, const struct x4_xattr *x, uint8_t **ret)
{
	int err;

	*ret = malloc(FDIO_MAX(x->size, 1u));
	if (!*ret)
		return -ENOMEM;
	err = x4_ea_read(i, x, *ret);
	if (err) {
		free(*ret);
		*ret = NULL;
	}
	return err;
}

static int write_value(struct jnl_handle *h, struct x4_inode *ea, const uint8_t *value, uint32_t len)
{
	uint32_t bs = ea->vol->block_size;

	for (uint32_t at = 0; at < len; at += bs) {
		struct jnl_buf *b;
		int err = x4_append_meta_block(h, ea, at >> ea->vol->block_bits, &b);

		if (err)
			return err;
		memcpy(b->data, value + at, FDIO_MIN(bs, len - at));
		jnl_brelse(b);
	}
	return 0;
}

static void init_raw(struct x4_inode *ea, uint32_t len, uint32_t sum)
{
	struct ext2_inode_large *raw = ea->raw;

	fdio_mutex_lock(&ea->attr);
	raw->i_flags = EXT4_EXTENTS_FL | EXT4_EA_INODE_FL; /* nothing of the directory's */
	raw->i_atime = sum;
	if (ea->vol->inode_size > 128)
		raw->i_atime_extra = raw->i_ctime_extra = raw->i_version_hi = 0;
	x4_raw_set_size(ea, len);
	fdio_mutex_unlock(&ea->attr);
	set_owners(ea, 1);
}

/* The hash of an entry covers the name and, for such values, their checksum. */
static uint32_t entry_hash(const struct x4_xattr *x, uint32_t sum)
{
	struct { struct ext2_ext_attr_entry e; char name[256]; } n = { .e = { .e_name_len = x->name_len, .e_value_size = sizeof(sum) } };

	memcpy(n.name, x->name, x->name_len);
	return ext2fs_ext_attr_hash_entry(&n.e, &sum);
}

int x4_ea_new(struct jnl_handle *h, struct x4_inode *i, struct x4_xattr *x)
{
	const struct ext2_inode_large *raw = i->raw;
	struct x4_cred c = {
		.uid = raw->i_uid | (uint32_t)raw->osd2.linux2.l_i_uid_high << 16,
		.gid = raw->i_gid | (uint32_t)raw->osd2.linux2.l_i_gid_high << 16,
	};
	uint32_t sum = checksum(i->vol, x->value, x->size);
	struct ea_ref *r = malloc(sizeof(*r));
	struct x4_inode *ea;
	int err = r ? x4_inode_new(h, i, S_IFREG | 0600, &c, &ea) : -ENOMEM;

	if (err) {
		free(r);
		return err;
	}
	keep(r, ea);
	init_raw(ea, x->size, sum);
	err = write_value(h, ea, x->value, x->size);
	if (!err)
		err = x4_inode_dirty(h, ea, true);
	if (err)
		return err;
	x->inum = ea->ino;
	x->hash = entry_hash(x, sum);
	x->value = NULL;
	/* Each owner has the blocks of the value on its account. */
	return x4_raw_add_blocks(i, (int64_t)fdio_blocks(x->size, i->vol->block_bits));
}

void x4_ea_init(struct x4_vol *v) { list_init(&v->xattr.ea_refs); }
