/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extended attributes: get, list, set, remove, and what other operations need of them (capabilities, eviction).
 * Workers only. Reading takes the inode lock shared, changing takes it exclusively; one transaction a change.
 *
 * The VFS has checked permissions and the syntax of names before a call arrives; what a name's prefix allows on this
 * mount is decided here.
 */
#include "ext4/x4_xattr.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

static const struct prefix {
	const char *text;
	uint8_t len, index;
	bool whole; /* the text is the whole name */
} prefixes[] = {
	{ "user.", 5, X4_XI_USER, false },
	{ "trusted.", 8, X4_XI_TRUSTED, false },
	{ "security.", 9, X4_XI_SECURITY, false },
	{ "system.posix_acl_access", 23, X4_XI_ACL_ACCESS, true },
	{ "system.posix_acl_default", 24, X4_XI_ACL_DEFAULT, true },
};

static bool is_acl(uint8_t index) { return index == X4_XI_ACL_ACCESS || index == X4_XI_ACL_DEFAULT; }

static bool index_served(const struct x4_vol *v, uint8_t index)
{
	if (is_acl(index))
		return v->opt.acl;
	return index != X4_XI_USER || v->opt.user_xattr;
}

/* Splits a full name. -EOPNOTSUPP for a prefix that this mount does not serve. */
static int split_name(const struct x4_vol *v, const char *name, uint8_t *ret_index, const char **ret_rest, unsigned *ret_len)
{
	for (size_t k = 0; k < ARRAY_SIZE(prefixes); k++) {
		const struct prefix *p = &prefixes[k];
		size_t len = strlen(name);

		if (p->whole ? strcmp(name, p->text) != 0 : strncmp(name, p->text, p->len) != 0)
			continue;
		if (!index_served(v, p->index))
			return -EOPNOTSUPP;
		len -= p->len;
		if (!p->whole && !len)
			return -EINVAL;
		if (len > 255)
			return -ERANGE;
		*ret_index = p->index;
		*ret_rest = name + p->len;
		*ret_len = (unsigned)len;
		return 0;
	}
	return -EOPNOTSUPP;
}

/* ------------------------------------------------------------------ reading */

/* A value that lies in an inode of its own: checked, then read from the device. */
static int read_ea_inode(struct x4_inode *i, const struct x4_xattr *x, uint8_t *buf)
{
	struct x4_vol *v = i->vol;
	struct x4_inode *ea;
	uint8_t *blk = NULL;
	int err = x4_iget_special(v, x->inum, &ea);

	if (err)
		return err == -ENOENT ? X4_CORRUPT(v, i->ino, 0, "attribute value in unused inode %u", x->inum) : err;
	if (!(x4_inode_flags(ea) & EXT4_EA_INODE_FL) || x4_inode_size(ea) != x->size) {
		err = X4_CORRUPT(v, i->ino, 0, "inode %u does not hold an attribute value of %u bytes", x->inum, x->size);
		goto out;
	}
	err = x4_map_load(ea);
	blk = fdio_alloc_aligned(4096, v->block_size);
	if (!err && !blk)
		err = -ENOMEM;
	for (uint32_t at = 0; at < x->size && !err; at += v->block_size) {
		uint64_t pblk;

		x4_inode_lock_shared(ea);
		err = x4_bmap(ea, at >> v->block_bits, &pblk);
		x4_inode_unlock(ea);
		if (!err)
			err = dev_read(v->dev, blk, v->block_size, pblk << v->block_bits);
		if (!err)
			memcpy(buf + at, blk, FDIO_MIN(v->block_size, x->size - at));
	}
out:
	free(blk);
	x4_iput(ea);
	return err;
}

static int copy_value(struct x4_inode *i, const struct x4_xattr *x, void *buf, size_t size, size_t *ret_len)
{
	if (is_acl(x->index))
		return x4_acl_to_user(i, x->value, x->size, buf, size, ret_len);
	*ret_len = x->size;
	if (!size)
		return 0;
	if (size < x->size)
		return -ERANGE;
	if (x->inum)
		return read_ea_inode(i, x, buf);
	if (x->size)
		memcpy(buf, x->value, x->size);
	return 0;
}

#define CAPS "capability"

static bool is_caps(uint8_t index, const char *rest, unsigned len)
{
	return index == X4_XI_SECURITY && len == sizeof(CAPS) - 1 && !memcmp(rest, CAPS, len);
}

int x4_xattr_get(struct x4_inode *i, const char *name, void *buf, size_t size, size_t *ret_len)
{
	struct x4_xattr_set s;
	struct x4_xattr *x;
	const char *rest;
	unsigned len;
	uint8_t index;
	int err = split_name(i->vol, name, &index, &rest, &len);

	if (err)
		return err;
	/* The kernel asks before each write of a file that may have capabilities: nothing to kill means there are none. */
	if (is_caps(index, rest, len) && __atomic_load_n(&i->killpriv_cache, __ATOMIC_ACQUIRE) == 1)
		return -ENODATA;
	x4_inode_lock_shared(i);
	err = x4_xattr_load(i, &s);
	if (!err) {
		x = x4_xattr_find(&s, index, rest, len);
		err = x ? copy_value(i, x, buf, size, ret_len) : -ENODATA;
		x4_xattr_set_fini(&s);
	}
	x4_inode_unlock(i);
	return err;
}

static const struct prefix *prefix_of(uint8_t index)
{
	for (size_t k = 0; k < ARRAY_SIZE(prefixes); k++)
		if (prefixes[k].index == index)
			return &prefixes[k];
	return NULL; /* not for user space: system.data, encryption, or unknown */
}

static int list_set(struct x4_inode *i, const struct x4_xattr_set *s, bool trusted, char *buf, size_t size, size_t *ret_len)
{
	size_t n = 0;

	for (unsigned k = 0; k < s->nr; k++) {
		const struct x4_xattr *x = &s->e[k];
		const struct prefix *p = prefix_of(x->index);

		if (!p || !index_served(i->vol, x->index) || (p->whole && x->name_len) ||
		    (x->index == X4_XI_TRUSTED && !trusted))
			continue;
		size_t need = (size_t)p->len + x->name_len + 1;
		if (size) {
			if (need > size - n)
				return -ERANGE;
			memcpy(buf + n, p->text, p->len);
			memcpy(buf + n + p->len, x->name, x->name_len);
			buf[n + need - 1] = '\0';
		}
		n += need;
	}
	*ret_len = n;
	return 0;
}

int x4_xattr_list(struct x4_inode *i, bool trusted, char *buf, size_t size, size_t *ret_len)
{
	struct x4_xattr_set s;
	int err;

	x4_inode_lock_shared(i);
	err = x4_xattr_load(i, &s);
	if (!err) {
		err = list_set(i, &s, trusted, buf, size, ret_len);
		x4_xattr_set_fini(&s);
	}
	x4_inode_unlock(i);
	return err;
}

/* ------------------------------------------------------------------ changing */

int x4_xattr_change(struct jnl_handle *h, struct x4_inode *i, uint8_t index, const char *name, unsigned name_len, const void *value,
		    size_t len)
{
	struct x4_xattr_set s;
	struct x4_xattr *x;
	int err = x4_xattr_load(i, &s);

	if (err)
		return err;
	x = x4_xattr_find(&s, index, name, name_len);
	if (x && x->inum) {
		/* Counting the owners of a shared value inode is not offered; nothing is changed rather than half of it. */
		err = -EOPNOTSUPP;
	} else if (!value) {
		err = x ? 0 : -ENODATA;
		if (x)
			*x = s.e[--s.nr];
	} else if (x && x->size == len && (!len || !memcmp(x->value, value, len))) {
		err = X4_XATTR_SAME;
	} else {
		if (!x)
			x = &s.e[s.nr++];
		*x = (struct x4_xattr){ .index = index, .name_len = (uint8_t)name_len, .name = name, .value = value, .size = (uint32_t)len,
					.fresh = true };
	}
	if (!err)
		err = x4_xattr_store(h, i, &s);
	x4_xattr_set_fini(&s);
	__atomic_store_n(&i->killpriv_cache, 0, __ATOMIC_RELEASE);
	return err;
}

/* XATTR_CREATE and XATTR_REPLACE are judged before a transaction is opened. */
static int check_flags(struct x4_inode *i, uint8_t index, const char *rest, unsigned len, int flags)
{
	struct x4_xattr_set s;
	int err;

	if (!flags)
		return 0;
	err = x4_xattr_load(i, &s);
	if (err)
		return err;
	bool there = x4_xattr_find(&s, index, rest, len);
	x4_xattr_set_fini(&s);
	if (there && (flags & XATTR_CREATE))
		return -EEXIST;
	return !there && (flags & XATTR_REPLACE) ? -ENODATA : 0;
}

struct change {
	uint8_t index;
	const char *rest;
	unsigned rest_len;
	const void *value; /* NULL: remove */
	size_t len;
	bool kill_sgid;
};

static int change_in_handle(struct jnl_handle *h, struct x4_inode *i, const struct change *c)
{
	int err = x4_inode_begin(h, i);

	if (err)
		return err;
	if (is_acl(c->index))
		err = x4_acl_store(h, i, c->index, c->value, c->len, c->kill_sgid);
	else
		err = x4_xattr_change(h, i, c->index, c->rest, c->rest_len, c->value, c->len);
	if (err)
		return err == X4_XATTR_SAME ? 0 : err; /* and no time changes either */
	fdio_mutex_lock(&i->attr);
	x4_raw_set_time(i, X4_SET_CTIME, x4_now(i->vol));
	fdio_mutex_unlock(&i->attr);
	return x4_inode_dirty(h, i, false);
}

/* The inode is locked exclusively. */
static int change_locked(struct x4_inode *i, const struct change *c)
{
	struct jnl_handle *h;
	int err = 0;

	if (c->value)
		err = x4_meta_reserve(i->vol, 1, false);
	if (err)
		return err;
	err = jnl_begin(i->vol->jnl, X4_CREDITS_XATTR, &h);
	if (!err) {
		err = change_in_handle(h, i, c);
		if (err)
			jnl_cancel(h);
		else
			jnl_end(h);
	}
	if (c->value)
		x4_meta_unreserve(i->vol, 1);
	return err;
}

static int may_change(struct x4_inode *i)
{
	if (x4_vol_read_only(i->vol))
		return -EROFS;
	if (x4_inode_flags(i) & (EXT2_IMMUTABLE_FL | EXT2_APPEND_FL))
		return -EPERM;
	return 0;
}

int x4_xattr_set(struct x4_inode *i, const char *name, const void *value, size_t len, int flags, bool kill_sgid)
{
	struct change c = { .value = value ? value : "", .len = len, .kill_sgid = kill_sgid };
	int err = split_name(i->vol, name, &c.index, &c.rest, &c.rest_len);

	if (!err && len > X4_XATTR_VALUE_MAX)
		err = -E2BIG;
	if (err)
		return err;
	x4_inode_lock_excl(i);
	err = may_change(i);
	if (!err)
		err = check_flags(i, c.index, c.rest, c.rest_len, flags);
	if (!err)
		err = change_locked(i, &c);
	x4_inode_unlock(i);
	return err;
}

/* One owner less of a value that lies in an inode of its own; its last owner gone, it goes when ea is put. Inside h. */
static int unref_ea_inode(struct jnl_handle *h, struct x4_inode *ea)
{
	struct ext2_inode_large *raw = ea->raw;
	/* The count of owners is kept where other inodes have ctime and version. */
	uint64_t refs = (uint64_t)raw->i_ctime << 32 | raw->osd1.linux1.l_i_version;
	int err = x4_inode_begin(h, ea);

	if (err)
		return err;
	refs = refs ? refs - 1 : 0;
	fdio_mutex_lock(&ea->attr);
	raw->i_ctime = (uint32_t)(refs >> 32);
	raw->osd1.linux1.l_i_version = (uint32_t)refs;
	fdio_mutex_unlock(&ea->attr);
	if (!refs) {
		x4_raw_set_nlink(ea, 0);
		err = x4_orphan_add(h, ea);
	}
	return err ? err : x4_inode_dirty(h, ea, false);
}

/* Takes the attribute x of s away in a transaction of its own, with its claim on the inode that holds the value. */
static int drop_ea_value(struct x4_inode *i, struct x4_xattr_set *s, struct x4_xattr *x)
{
	uint32_t inum = x->inum, size = x->size;
	struct x4_inode *ea = NULL;
	struct jnl_handle *h;
	int err = inum == i->ino ? -ENOENT : x4_iget_special(i->vol, inum, &ea);

	if (!err && (!S_ISREG(x4_inode_mode(ea)) || !(x4_inode_flags(ea) & EXT4_EA_INODE_FL))) {
		x4_iput(ea);
		err = -ENOENT;
	}
	if (err == -ENOENT) /* whatever it is, it is not ours to free */
		return X4_CORRUPT(i->vol, i->ino, 0, "inode %u does not hold an attribute value", inum);
	if (!err)
		err = jnl_begin(i->vol->jnl, X4_CREDITS_XATTR + X4_CREDITS_INODE + X4_CREDITS_ORPHAN, &h);
	if (err) {
		x4_iput(ea);
		return err;
	}
	err = x4_inode_begin(h, i);
	if (!err)
		err = unref_ea_inode(h, ea);
	*x = s->e[--s->nr];
	if (!err) /* each owner has the blocks of the value on its account */
		err = x4_raw_add_blocks(i, -(int64_t)fdio_blocks(size, i->vol->block_bits));
	if (!err)
		err = x4_xattr_store(h, i, s);
	if (err)
		jnl_cancel(h);
	else
		jnl_end(h);
	x4_iput(ea);
	return err;
}

/* 1 if the attribute is such a one and is gone, 0 if it is not. */
static int remove_ea_value(struct x4_inode *i, const struct change *c)
{
	struct x4_xattr_set s;
	struct x4_xattr *x;
	int err = x4_xattr_load(i, &s);

	if (err)
		return err;
	x = x4_xattr_find(&s, c->index, c->rest, c->rest_len);
	if (x && x->inum)
		err = drop_ea_value(i, &s, x) ?: 1;
	x4_xattr_set_fini(&s);
	return err;
}

int x4_xattr_remove(struct x4_inode *i, const char *name)
{
	struct change c = { .value = NULL };
	int err = split_name(i->vol, name, &c.index, &c.rest, &c.rest_len);

	if (err)
		return err;
	x4_inode_lock_excl(i);
	err = may_change(i);
	if (!err)
		err = i->vol->has_ea_inode ? remove_ea_value(i, &c) : 0;
	if (!err)
		err = change_locked(i, &c);
	x4_inode_unlock(i);
	return err == 1 ? 0 : err;
}

/* ------------------------------------------------------------------ for the other parts */

bool x4_xattr_has_caps(struct x4_inode *i)
{
	struct x4_xattr_set s;

	/* What cannot be read may hold capabilities: say so, and the write that asks will find the error. */
	if (x4_xattr_load(i, &s))
		return true;
	bool has = x4_xattr_find(&s, X4_XI_SECURITY, CAPS, sizeof(CAPS) - 1);
	x4_xattr_set_fini(&s);
	return has;
}

int x4_xattr_kill_caps(struct jnl_handle *h, struct x4_inode *i)
{
	int err = x4_xattr_change(h, i, X4_XI_SECURITY, CAPS, sizeof(CAPS) - 1, NULL, 0);

	return err == -ENODATA ? 0 : err;
}

unsigned x4_xattr_free_credits(struct x4_inode *i)
{
	return x4_raw_file_acl(i) ? X4_CREDITS_XATTR : 0;
}

/* Values in inodes of their own, one transaction each: a crash in between leaves an orphan with the others. */
static int free_ea_values(struct x4_inode *i)
{
	struct x4_xattr_set s;
	int err = 0;

	/* Such an inode has no attributes: on an image that says otherwise this does not descend. */
	if (!i->vol->has_ea_inode || (x4_inode_flags(i) & EXT4_EA_INODE_FL))
		return 0;
	for (bool more = true; !err && more;) {
		more = false;
		err = x4_xattr_load(i, &s);
		if (err)
			return err;
		for (unsigned k = 0; k < s.nr && !more; k++)
			if (s.e[k].inum) {
				more = true;
				err = drop_ea_value(i, &s, &s.e[k]);
			}
		x4_xattr_set_fini(&s);
	}
	return err;
}

int x4_xattr_free_all(struct x4_inode *i)
{
	struct jnl_handle *h;
	int err = free_ea_values(i);

	if (err)
		return err;
	if (!x4_raw_file_acl(i))
		return 0;
	err = jnl_begin(i->vol->jnl, x4_xattr_free_credits(i), &h);
	if (err)
		return err;
	err = x4_inode_begin(h, i);
	if (!err)
		err = x4_xattr_drop_block(h, i);
	if (!err)
		err = x4_inode_dirty(h, i, false);
	if (err)
		jnl_cancel(h);
	else
		jnl_end(h);
	return err;
}
