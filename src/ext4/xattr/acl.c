/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * POSIX ACLs: the compact form that ext4 keeps on disk, the form that user space hands in as an extended attribute,
 * and their interplay with the mode bits (set, chmod, inheritance). The kernel checks access; this file keeps the
 * two views of the same permissions equal. Workers, inside the callers' handles and locks.
 */
#include "ext4/xattr/set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Tags, the same on disk and in user space. */
enum { TAG_USER_OBJ = 1, TAG_USER = 2, TAG_GROUP_OBJ = 4, TAG_GROUP = 8, TAG_MASK = 0x10, TAG_OTHER = 0x20 };

#define DISK_VERSION 1u
#define USER_VERSION 2u
#define USER_HDR 4u
#define USER_ENTRY 8u
#define DISK_SHORT 4u
#define DISK_LONG 8u
#define ACL_MAX_ENTRIES 4096u /* more than fits a 64 KiB value */

struct acl_entry { uint16_t tag, perm; uint32_t id; };
struct acl { unsigned nr; struct acl_entry e[]; };

static bool has_id(uint16_t tag) { return tag == TAG_USER || tag == TAG_GROUP; }

static struct acl *acl_alloc(unsigned nr)
{
	struct acl *a = calloc(1, sizeof(*a) + nr * sizeof(a->e[0]));

	if (a)
		a->nr = nr;
	return a;
}

/* Order, counts and permissions as POSIX.1e wants them: one owner, group and other; a mask where there are named entries. */
static bool acl_valid(const struct acl *a)
{
	unsigned state = TAG_USER_OBJ;
	bool named = false;

	for (unsigned k = 0; k < a->nr; k++) {
		uint16_t tag = a->e[k].tag;

		if (a->e[k].perm & ~7u)
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

static int from_disk(struct x4_inode *i, const uint8_t *p, size_t len, struct acl **ret)
{
	uint32_t version;
	struct acl *a;
	unsigned n = 0;

	if (len >= 4)
		memcpy(&version, p, 4);
	if (len < 4 || version != DISK_VERSION)
		return X4_CORRUPT(i->vol, i->ino, 0, "an ACL of unknown form");
	p += 4;
	len -= 4;
	a = acl_alloc((unsigned)(len / DISK_SHORT));
	if (!a)
		return -ENOMEM;
	while (len) {
		struct acl_entry e = { 0 };

		if (len < DISK_SHORT)
			break;
		memcpy(&e.tag, p, 2);
		memcpy(&e.perm, p + 2, 2);
		uint32_t step = has_id(e.tag) ? DISK_LONG : DISK_SHORT;
		if (len < step)
			break;
		if (has_id(e.tag))
			memcpy(&e.id, p + DISK_SHORT, 4);
		a->e[n++] = e;
		p += step;
		len -= step;
	}
	a->nr = n;
	if (len || !acl_valid(a)) {
		free(a);
		return X4_CORRUPT(i->vol, i->ino, 0, "a malformed ACL");
	}
	*ret = a;
	return 0;
}

static int to_disk(const struct acl *a, uint8_t **ret, size_t *ret_len)
{
	uint32_t version = DISK_VERSION;
	uint8_t *buf = malloc(4 + a->nr * DISK_LONG), *p = buf + 4;

	if (!buf)
		return -ENOMEM;
	memcpy(buf, &version, 4);
	for (unsigned k = 0; k < a->nr; k++) {
		memcpy(p, &a->e[k].tag, 2);
		memcpy(p + 2, &a->e[k].perm, 2);
		if (has_id(a->e[k].tag))
			memcpy(p + DISK_SHORT, &a->e[k].id, 4);
		p += has_id(a->e[k].tag) ? DISK_LONG : DISK_SHORT;
	}
	*ret = buf;
	*ret_len = (size_t)(p - buf);
	return 0;
}

/* What setxattr(2) brought. An empty ACL (header only) means removal: *ret NULL. */
static int from_user(const uint8_t *p, size_t len, struct acl **ret)
{
	uint32_t version;
	struct acl *a;

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
	a = acl_alloc(nr);
	if (!a)
		return -ENOMEM;
	for (unsigned k = 0; k < nr; k++) {
		const uint8_t *q = p + USER_HDR + (size_t)k * USER_ENTRY;
		memcpy(&a->e[k].tag, q, 2);
		memcpy(&a->e[k].perm, q + 2, 2);
		if (has_id(a->e[k].tag))
			memcpy(&a->e[k].id, q + 4, 4);
	}
	if (!acl_valid(a)) {
		free(a);
		return -EINVAL;
	}
	*ret = a;
	return 0;
}

int x4_acl_to_user(struct x4_inode *i, const uint8_t *disk, size_t len, void *buf, size_t cap, size_t *ret_len)
{
	uint32_t version = USER_VERSION, no_id = UINT32_MAX;
	struct acl *a;
	int err = from_disk(i, disk, len, &a);

	if (err)
		return err;
	*ret_len = USER_HDR + (size_t)a->nr * USER_ENTRY;
	if (cap && cap < *ret_len)
		err = -ERANGE;
	if (cap && !err) {
		uint8_t *p = buf;

		memcpy(p, &version, 4);
		for (unsigned k = 0; k < a->nr; k++) {
			uint8_t *q = p + USER_HDR + (size_t)k * USER_ENTRY;
			memcpy(q, &a->e[k].tag, 2);
			memcpy(q + 2, &a->e[k].perm, 2);
			memcpy(q + 4, has_id(a->e[k].tag) ? &a->e[k].id : &no_id, 4);
		}
	}
	free(a);
	return err;
}

/* ------------------------------------------------------------------ mode bits */

static struct acl_entry *find(struct acl *a, uint16_t tag)
{
	for (unsigned k = 0; k < a->nr; k++)
		if (a->e[k].tag == tag)
			return &a->e[k];
	return NULL;
}

/* The entry that the group bits of the mode stand for. acl_valid has seen that there is one. */
static struct acl_entry *group_class(struct acl *a)
{
	struct acl_entry *m = find(a, TAG_MASK);

	return m ? m : find(a, TAG_GROUP_OBJ);
}

static uint32_t mode_of(struct acl *a)
{
	return (uint32_t)find(a, TAG_USER_OBJ)->perm << 6 | (uint32_t)group_class(a)->perm << 3 | find(a, TAG_OTHER)->perm;
}

static void set_mode(struct acl *a, uint32_t mode)
{
	find(a, TAG_USER_OBJ)->perm = mode >> 6 & 7;
	group_class(a)->perm = mode >> 3 & 7;
	find(a, TAG_OTHER)->perm = mode & 7;
}

/* The mode bits say it all. */
static bool is_plain(const struct acl *a) { return a->nr == 3; }

static int write_acl(struct jnl_handle *h, struct x4_inode *i, uint8_t index, const struct acl *a)
{
	uint8_t *disk = NULL;
	size_t len = 0;
	int err = 0;

	if (a)
		err = to_disk(a, &disk, &len);
	if (err)
		return err;
	err = x4_xattr_change(h, i, index, "", 0, disk, len);
	free(disk);
	return err == -ENODATA && !a ? X4_XATTR_SAME : err;
}

int x4_acl_store(struct jnl_handle *h, struct x4_inode *i, uint8_t index, const void *value, size_t len, bool kill_sgid)
{
	uint32_t mode = i->raw->i_mode, old = mode;
	struct acl *a = NULL;
	int err;

	if (S_ISLNK(mode))
		return -EOPNOTSUPP;
	err = value ? from_user(value, len, &a) : 0;
	if (err)
		return err;
	if (index == X4_XI_ACL_DEFAULT && !S_ISDIR(mode)) {
		bool any = a;
		free(a);
		return any ? -EACCES : X4_XATTR_SAME;
	}
	bool plain = a && is_plain(a);
	if (a && index == X4_XI_ACL_ACCESS) {
		mode = (mode & ~0777u) | mode_of(a);
		if (kill_sgid)
			mode &= ~(uint32_t)S_ISGID;
		fdio_mutex_lock(&i->attr);
		x4_raw_set_mode(i, mode);
		fdio_mutex_unlock(&i->attr);
	}
	/* An access ACL that the mode expresses is not kept. */
	err = write_acl(h, i, index, plain && index == X4_XI_ACL_ACCESS ? NULL : a);
	free(a);
	return err == X4_XATTR_SAME && mode != old ? 0 : err;
}

/* *ret NULL if there is none. */
static int read_acl(struct x4_inode *i, uint8_t index, struct acl **ret)
{
	struct x4_xattr_set s;
	struct x4_xattr *x;
	uint8_t *copy = NULL;
	int err = x4_xattr_load(i, &s);

	*ret = NULL;
	if (err)
		return err;
	x = x4_xattr_find(&s, index, "", 0);
	if (x && x->inum)
		err = x4_ea_copy(i, x, &copy);
	if (!err && x)
		err = from_disk(i, copy ? copy : x->value, x->size, ret);
	free(copy);
	x4_xattr_set_fini(&s);
	return err;
}

/* Bytes of the ACL on disk; 0 if there is none. */
static uint32_t acl_size(struct x4_inode *i, uint8_t index)
{
	struct x4_xattr_set s;
	struct x4_xattr *x;
	uint32_t size;

	if (!i->vol->opt.acl || x4_xattr_load(i, &s))
		return 0;
	x = x4_xattr_find(&s, index, "", 0);
	size = x ? x->size : 0;
	x4_xattr_set_fini(&s);
	return size;
}

unsigned x4_acl_chmod_credits(struct x4_inode *i)
{
	return i->vol->has_ea_inode ? x4_xattr_credits(i, acl_size(i, X4_XI_ACL_ACCESS)) + X4_CREDITS_EA_UNREF : 0;
}

unsigned x4_acl_inherit_credits(struct x4_inode *dir)
{
	return dir->vol->has_ea_inode ? 2 * x4_ea_credits_new(dir->vol, acl_size(dir, X4_XI_ACL_DEFAULT)) : 0;
}

unsigned x4_acl_chmod_blocks(struct x4_inode *i)
{
	struct x4_xattr_set s;
	struct x4_xattr *x;
	unsigned n = 0;

	if (!i->vol->opt.acl || (!x4_raw_file_acl(i) && !i->vol->has_ea_inode) || x4_xattr_load(i, &s))
		return 0; /* in its own space it stays, and the change will find the error */
	x = x4_xattr_find(&s, X4_XI_ACL_ACCESS, "", 0);
	if (x) {
		n = 1 + x4_ea_blocks(i->vol, x->size);
		x->inum = 0;
		x->fresh = true;
		if (x4_xattr_fits(i, &s))
			n = 0;
	}
	x4_xattr_set_fini(&s);
	return n;
}

unsigned x4_acl_inherit_blocks(struct x4_inode *dir, uint32_t mode)
{
	uint32_t size = S_ISLNK(mode) ? 0 : acl_size(dir, X4_XI_ACL_DEFAULT), nr = S_ISDIR(mode) ? 2 : 1;

	if (!size || x4_xattr_fresh_fits(dir->vol, nr, size))
		return 0;
	return 1 + nr * x4_ea_blocks(dir->vol, size);
}

int x4_acl_chmod(struct jnl_handle *h, struct x4_inode *i, uint32_t mode)
{
	struct acl *a;
	int err = read_acl(i, X4_XI_ACL_ACCESS, &a);

	if (err || !a)
		return err;
	set_mode(a, mode);
	err = write_acl(h, i, X4_XI_ACL_ACCESS, a);
	free(a);
	return err == X4_XATTR_SAME ? 0 : err;
}

int x4_acl_inherit(struct jnl_handle *h, struct x4_inode *dir, struct x4_inode *i, uint32_t *mode, bool *ret_had_default)
{
	struct acl *a = NULL;
	int err = 0;

	*ret_had_default = false;
	if (!i->vol->opt.acl || S_ISLNK(*mode))
		return 0;
	err = read_acl(dir, X4_XI_ACL_DEFAULT, &a);
	if (err || !a)
		return err;
	*ret_had_default = true;
	if (S_ISDIR(*mode))
		err = write_acl(h, i, X4_XI_ACL_DEFAULT, a);
	if (!err) {
		/* The new file gets what the ACL and the creator's mode both allow. */
		uint32_t both = mode_of(a) & *mode & 0777;
		set_mode(a, both);
		*mode = (*mode & ~0777u) | both;
		if (!is_plain(a))
			err = write_acl(h, i, X4_XI_ACL_ACCESS, a);
	}
	free(a);
	return err;
}
