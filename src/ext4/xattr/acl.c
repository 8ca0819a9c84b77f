/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * POSIX ACLs: the compact form that ext4 keeps on disk, the form that user space hands in as an
 * extended attribute, and their interplay with the mode bits (set, chmod, inheritance). The kernel
 * checks access; this file keeps the two views of the same permissions equal. Workers, inside the
 * callers' handles and locks.
 */
#include "ext4/xattr/set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Tags, the same on disk and in user space. */
enum {
	TAG_USER_OBJ = 1,
	TAG_USER = 2,
	TAG_GROUP_OBJ = 4,
	TAG_GROUP = 8,
	TAG_MASK = 0x10,
	TAG_OTHER = 0x20
};

#define DISK_VERSION 1u
#define USER_VERSION 2u
#define USER_HDR 4u
#define USER_ENTRY 8u
#define DISK_SHORT 4u
#define DISK_LONG 8u
#define ACL_MAX_ENTRIES 4096u /* more than fits a 64 KiB value */

struct acl_entry { uint16_t tag, perm; uint32_t id; };
struct acl { unsigned nr; struct acl_entry entry[]; };

static bool has_id(uint16_t tag) { return tag == TAG_USER || tag == TAG_GROUP; }

static struct acl *acl_alloc(unsigned nr)
{
	struct acl *acl = calloc(1, sizeof(*acl) + nr * sizeof(acl->entry[0]));

	if (acl)
		acl->nr = nr;
	return acl;
}

/*
 * Order, counts and permissions as POSIX.1e wants them: one owner, group and other; a mask where
 * there are named entries.
 */
static bool acl_valid(const struct acl *acl)
{
	unsigned state = TAG_USER_OBJ;
	bool named = false;

	for (unsigned k = 0; k < acl->nr; k++) {
		uint16_t tag = acl->entry[k].tag;

		if (acl->entry[k].perm & ~7u)
			return false;
		switch (tag) {
		case TAG_USER_OBJ:
			if (state != TAG_USER_OBJ)
				return false;
			state = TAG_USER;
			break;
		case TAG_USER:
			if (state != TAG_USER)
				return false;
			named = true;
			break;
		case TAG_GROUP_OBJ:
			if (state != TAG_USER)
				return false;
			state = TAG_GROUP;
			break;
		case TAG_GROUP:
			if (state != TAG_GROUP)
				return false;
			named = true;
			break;
		case TAG_MASK:
			if (state != TAG_GROUP)
				return false;
			state = TAG_OTHER;
			break;
		case TAG_OTHER:
			if (state != TAG_OTHER && (state != TAG_GROUP || named))
				return false;
			state = 0;
			break;
		default:
			return false;
		}
	}
	return state == 0;
}

/* ------------------------------------------------------------------ forms */

static int from_disk(struct ext4_inode *inode, const uint8_t *p, size_t len, struct acl **ret)
{
	uint32_t version;
	struct acl *acl;
	unsigned n = 0;

	if (len >= 4)
		memcpy(&version, p, 4);
	if (len < 4 || version != DISK_VERSION)
		return EXT4_CORRUPT(inode->vol, inode->ino, 0, "an ACL of unknown form");
	p += 4;
	len -= 4;
	acl = acl_alloc((unsigned)(len / DISK_SHORT));
	if (!acl)
		return -ENOMEM;
	while (len) {
		struct acl_entry entry = { 0 };

		if (len < DISK_SHORT)
			break;
		memcpy(&entry.tag, p, 2);
		memcpy(&entry.perm, p + 2, 2);
		uint32_t step = has_id(entry.tag) ? DISK_LONG : DISK_SHORT;
		if (len < step)
			break;
		if (has_id(entry.tag))
			memcpy(&entry.id, p + DISK_SHORT, 4);
		acl->entry[n++] = entry;
		p += step;
		len -= step;
	}
	acl->nr = n;
	if (len || !acl_valid(acl)) {
		free(acl);
		return EXT4_CORRUPT(inode->vol, inode->ino, 0, "a malformed ACL");
	}
	*ret = acl;
	return 0;
}

static int to_disk(const struct acl *acl, uint8_t **ret, size_t *ret_len)
{
	uint32_t version = DISK_VERSION;
	uint8_t *buf = malloc(4 + acl->nr * DISK_LONG), *p = buf + 4;

	if (!buf)
		return -ENOMEM;
	memcpy(buf, &version, 4);
	for (unsigned k = 0; k < acl->nr; k++) {
		memcpy(p, &acl->entry[k].tag, 2);
		memcpy(p + 2, &acl->entry[k].perm, 2);
		if (has_id(acl->entry[k].tag))
			memcpy(p + DISK_SHORT, &acl->entry[k].id, 4);
		p += has_id(acl->entry[k].tag) ? DISK_LONG : DISK_SHORT;
	}
	*ret = buf;
	*ret_len = (size_t)(p - buf);
	return 0;
}

/* What setxattr(2) brought. An empty ACL (header only) means removal: *ret NULL. */
static int from_user(const uint8_t *p, size_t len, struct acl **ret)
{
	uint32_t version;
	struct acl *acl;

	*ret = NULL;
	if (!len)
		return 0;
	if (len < USER_HDR || (len - USER_HDR) % USER_ENTRY)
		return -EINVAL;
	memcpy(&version, p, 4);
	if (version != USER_VERSION)
		return -EOPNOTSUPP;
	unsigned nr = (unsigned)((len - USER_HDR) / USER_ENTRY);
	if (!nr)
		return 0;
	if (nr > ACL_MAX_ENTRIES)
		return -EINVAL;
	acl = acl_alloc(nr);
	if (!acl)
		return -ENOMEM;
	for (unsigned k = 0; k < nr; k++) {
		const uint8_t *q = p + USER_HDR + (size_t)k * USER_ENTRY;
		memcpy(&acl->entry[k].tag, q, 2);
		memcpy(&acl->entry[k].perm, q + 2, 2);
		if (has_id(acl->entry[k].tag))
			memcpy(&acl->entry[k].id, q + 4, 4);
	}
	if (!acl_valid(acl)) {
		free(acl);
		return -EINVAL;
	}
	*ret = acl;
	return 0;
}

int ext4_acl_to_user(struct ext4_inode *inode, const uint8_t *disk, size_t len, void *buf,
		     size_t cap, size_t *ret_len)
{
	uint32_t version = USER_VERSION, no_id = UINT32_MAX;
	struct acl *acl;
	int err = from_disk(inode, disk, len, &acl);

	if (err)
		return err;
	*ret_len = USER_HDR + (size_t)acl->nr * USER_ENTRY;
	if (cap && cap < *ret_len)
		err = -ERANGE;
	if (cap && !err) {
		uint8_t *p = buf;

		memcpy(p, &version, 4);
		for (unsigned k = 0; k < acl->nr; k++) {
			uint8_t *q = p + USER_HDR + (size_t)k * USER_ENTRY;
			memcpy(q, &acl->entry[k].tag, 2);
			memcpy(q + 2, &acl->entry[k].perm, 2);
			memcpy(q + 4, has_id(acl->entry[k].tag) ? &acl->entry[k].id : &no_id, 4);
		}
	}
	free(acl);
	return err;
}

/* ------------------------------------------------------------------ mode bits */

static struct acl_entry *find(struct acl *acl, uint16_t tag)
{
	for (unsigned k = 0; k < acl->nr; k++)
		if (acl->entry[k].tag == tag)
			return &acl->entry[k];
	return NULL;
}

/* The entry that the group bits of the mode stand for. acl_valid has seen that there is one. */
static struct acl_entry *group_class(struct acl *acl)
{
	struct acl_entry *entry = find(acl, TAG_MASK);

	return entry ? entry : find(acl, TAG_GROUP_OBJ);
}

static uint32_t mode_of(struct acl *acl)
{
	return (uint32_t)find(acl, TAG_USER_OBJ)->perm << 6 |
	       (uint32_t)group_class(acl)->perm << 3 | find(acl, TAG_OTHER)->perm;
}

static void set_mode(struct acl *acl, uint32_t mode)
{
	find(acl, TAG_USER_OBJ)->perm = mode >> 6 & 7;
	group_class(acl)->perm = mode >> 3 & 7;
	find(acl, TAG_OTHER)->perm = mode & 7;
}

/* The mode bits say it all. */
static bool is_plain(const struct acl *acl) { return acl->nr == 3; }

static int write_acl(struct journal_handle *handle, struct ext4_inode *inode, uint8_t index,
		     const struct acl *acl)
{
	uint8_t *disk = NULL;
	size_t len = 0;
	int err = 0;

	if (acl)
		err = to_disk(acl, &disk, &len);
	if (err)
		return err;
	err = ext4_xattr_change(handle, inode, index, "", 0, disk, len);
	free(disk);
	return err == -ENODATA && !acl ? EXT4_XATTR_SAME : err;
}

int ext4_acl_store(struct journal_handle *handle, struct ext4_inode *inode, uint8_t index,
		   const void *value, size_t len, bool kill_sgid)
{
	uint32_t mode = inode->raw->i_mode, old = mode;
	struct acl *acl = NULL;
	int err;

	if (S_ISLNK(mode))
		return -EOPNOTSUPP;
	err = value ? from_user(value, len, &acl) : 0;
	if (err)
		return err;
	if (index == EXT4_XATTR_INDEX_ACL_DEFAULT && !S_ISDIR(mode)) {
		bool any = acl;
		free(acl);
		return any ? -EACCES : EXT4_XATTR_SAME;
	}
	bool plain = acl && is_plain(acl);
	if (acl && index == EXT4_XATTR_INDEX_ACL_ACCESS) {
		mode = (mode & ~0777u) | mode_of(acl);
		if (kill_sgid)
			mode &= ~(uint32_t)S_ISGID;
		fdio_mutex_lock(&inode->attr);
		ext4_raw_set_mode(inode, mode);
		fdio_mutex_unlock(&inode->attr);
	}
	/* An access ACL that the mode expresses is not kept. */
	err = write_acl(handle, inode, index,
			plain && index == EXT4_XATTR_INDEX_ACL_ACCESS ? NULL : acl);
	free(acl);
	return err == EXT4_XATTR_SAME && mode != old ? 0 : err;
}

/* *ret NULL if there is none. */
static int read_acl(struct ext4_inode *inode, uint8_t index, struct acl **ret)
{
	struct ext4_xattr_set set;
	struct ext4_xattr *xattr;
	uint8_t *copy = NULL;
	int err = ext4_xattr_load(inode, &set);

	*ret = NULL;
	if (err)
		return err;
	xattr = ext4_xattr_find(&set, index, "", 0);
	if (xattr && xattr->inum)
		err = ext4_ea_copy(inode, xattr, &copy);
	if (!err && xattr)
		err = from_disk(inode, copy ? copy : xattr->value, xattr->size, ret);
	free(copy);
	ext4_xattr_set_fini(&set);
	return err;
}

/* Bytes of the ACL on disk; 0 if there is none. */
static uint32_t acl_size(struct ext4_inode *inode, uint8_t index)
{
	struct ext4_xattr_set set;
	struct ext4_xattr *xattr;
	uint32_t size;

	if (!inode->vol->options.acl || ext4_xattr_load(inode, &set))
		return 0;
	xattr = ext4_xattr_find(&set, index, "", 0);
	size = xattr ? xattr->size : 0;
	ext4_xattr_set_fini(&set);
	return size;
}

unsigned ext4_acl_chmod_credits(struct ext4_inode *inode)
{
	return inode->vol->has_ea_inode
			       ? ext4_xattr_credits(inode,
						    acl_size(inode, EXT4_XATTR_INDEX_ACL_ACCESS)) +
						 EXT4_CREDITS_EA_UNREF
			       : 0;
}

unsigned ext4_acl_inherit_credits(struct ext4_inode *dir)
{
	return dir->vol->has_ea_inode
			       ? 2 * ext4_ea_credits_new(dir->vol,
							 acl_size(dir,
								  EXT4_XATTR_INDEX_ACL_DEFAULT))
			       : 0;
}

unsigned ext4_acl_chmod_blocks(struct ext4_inode *inode)
{
	struct ext4_xattr_set set;
	struct ext4_xattr *xattr;
	unsigned n = 0;

	if (!inode->vol->options.acl || (!ext4_raw_file_acl(inode) && !inode->vol->has_ea_inode) ||
	    ext4_xattr_load(inode, &set))
		return 0; /* in its own space it stays, and the change will find the error */
	xattr = ext4_xattr_find(&set, EXT4_XATTR_INDEX_ACL_ACCESS, "", 0);
	if (xattr) {
		n = 1 + ext4_ea_blocks(inode->vol, xattr->size);
		xattr->inum = 0;
		xattr->fresh = true;
		if (ext4_xattr_fits(inode, &set))
			n = 0;
	}
	ext4_xattr_set_fini(&set);
	return n;
}

unsigned ext4_acl_inherit_blocks(struct ext4_inode *dir, uint32_t mode)
{
	uint32_t size = S_ISLNK(mode) ? 0 : acl_size(dir, EXT4_XATTR_INDEX_ACL_DEFAULT),
		 nr = S_ISDIR(mode) ? 2 : 1;

	if (!size || ext4_xattr_fresh_fits(dir->vol, nr, size))
		return 0;
	return 1 + nr * ext4_ea_blocks(dir->vol, size);
}

int ext4_acl_chmod(struct journal_handle *handle, struct ext4_inode *inode, uint32_t mode)
{
	struct acl *acl;
	int err = read_acl(inode, EXT4_XATTR_INDEX_ACL_ACCESS, &acl);

	if (err || !acl)
		return err;
	set_mode(acl, mode);
	err = write_acl(handle, inode, EXT4_XATTR_INDEX_ACL_ACCESS, acl);
	free(acl);
	return err == EXT4_XATTR_SAME ? 0 : err;
}

int ext4_acl_inherit(struct journal_handle *handle, struct ext4_inode *dir,
		     struct ext4_inode *inode, uint32_t *mode, bool *ret_had_default)
{
	struct acl *acl = NULL;
	int err = 0;

	*ret_had_default = false;
	if (!inode->vol->options.acl || S_ISLNK(*mode))
		return 0;
	err = read_acl(dir, EXT4_XATTR_INDEX_ACL_DEFAULT, &acl);
	if (err || !acl)
		return err;
	*ret_had_default = true;
	if (S_ISDIR(*mode))
		err = write_acl(handle, inode, EXT4_XATTR_INDEX_ACL_DEFAULT, acl);
	if (!err) {
		/* The new file gets what the ACL and the creator's mode both allow. */
		uint32_t both = mode_of(acl) & *mode & 0777;
		set_mode(acl, both);
		*mode = (*mode & ~0777u) | both;
		if (!is_plain(acl))
			err = write_acl(handle, inode, EXT4_XATTR_INDEX_ACL_ACCESS, acl);
	}
	free(acl);
	return err;
}
