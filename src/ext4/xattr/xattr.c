/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extended attributes: get, list, set, remove, and what other operations need of them (capabilities, eviction).
 * Workers only. Reading takes the inode lock shared, changing takes it exclusively; one transaction a change.
 *
 * The VFS has checked permissions and the syntax of names before a call arrives; what a name's prefix allows on this
 * mount is decided here.
 */
#include "ext4/xattr/set.h"

#include "base/nowait.h"

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

static int copy_acl(struct x4_inode *i, const struct x4_xattr *x, void *buf, size_t size, size_t *ret_len)
{
	uint8_t *value = NULL;
	int err = x->inum ? x4_ea_copy(i, x, &value) : 0;

	if (!err)
		err = x4_acl_to_user(i, x->inum ? value : x->value, x->size, buf, size, ret_len);
	free(value);
	return err;
}

static int copy_value(struct x4_inode *i, const struct x4_xattr *x, void *buf, size_t size, size_t *ret_len)
{
	if (is_acl(x->index))
		return copy_acl(i, x, buf, size, ret_len);
	*ret_len = x->size;
	if (!size)
		return 0;
	if (size < x->size)
		return -ERANGE;
	if (x->inum)
		return x4_ea_read(i, x, buf);
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
	if (is_caps(index, rest, len) && x4_killpriv_none(i))
		return -ENODATA;
	err = x4_inode_enter_shared(i);
	if (err)
		return err;
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
	int err = x4_inode_enter_shared(i);

	if (err)
		return err;
	err = x4_xattr_load(i, &s);
	if (!err) {
		err = list_set(i, &s, trusted, buf, size, ret_len);
		x4_xattr_set_fini(&s);
	}
	x4_inode_unlock(i);
	return err;
}

/* ------------------------------------------------------------------ changing */

/* Gives up the value of x if it lies in an inode of its own. i has been begun in h. */
static int leave_value(struct jnl_handle *h, struct x4_inode *i, const struct x4_xattr_set *s, const struct x4_xattr *x)
{
	int err = 0;

	if (!x->inum)
		return 0;
	if (!(x->was_in_block && s->block_shared)) /* XATTR-3 */
		err = x4_ea_unref(h, i, x);
	return err ? err : x4_raw_add_blocks(i, -(int64_t)fdio_blocks(x->size, i->vol->block_bits));
}

static int change_set(struct jnl_handle *h, struct x4_inode *i, struct x4_xattr_set *s, const struct x4_xattr *fresh, bool remove)
{
	struct x4_xattr *x = x4_xattr_find(s, fresh->index, fresh->name, fresh->name_len);
	int err = 0;

	if (remove && !x)
		return -ENODATA;
	if (!remove && x && !x->inum && x->size == fresh->size && (!x->size || !memcmp(x->value, fresh->value, x->size)))
		return X4_XATTR_SAME;
	if (x)
		err = leave_value(h, i, s, x);
	if (err)
		return err;
	if (remove) {
		*x = s->e[--s->nr];
	} else {
		if (!x)
			x = &s->e[s->nr++];
		*x = *fresh;
	}
	return x4_xattr_store(h, i, s);
}

int x4_xattr_change(struct jnl_handle *h, struct x4_inode *i, uint8_t index, const char *name, unsigned name_len, const void *value,
		    size_t len)
{
	struct x4_xattr fresh = { .index = index, .name_len = (uint8_t)name_len, .name = name, .value = value, .size = (uint32_t)len,
				  .fresh = true };
	struct x4_xattr_set s;
	int err = x4_xattr_load(i, &s);

	if (err)
		return err;
	err = x4_inode_begin(h, i);
	if (!err)
		err = change_set(h, i, &s, &fresh, !value);
	x4_xattr_set_fini(&s);
	x4_killpriv_forget(i);
	return err;
}

/* Values of the set that a copy of the block would own. */
static unsigned shared_values(const struct x4_xattr_set *s)
{
	unsigned n = 0;

	for (unsigned k = 0; k < s->nr; k++)
		n += s->block_shared && s->e[k].was_in_block && s->e[k].inum;
	return n;
}

unsigned x4_xattr_credits(struct x4_inode *i, size_t len)
{
	struct x4_xattr_set s;
	unsigned n;

	if (!i->vol->has_ea_inode || x4_xattr_load(i, &s)) /* the change will find the error */
		return 0;
	n = x4_ea_credits_new(i->vol, len) + X4_CREDITS_EA_UNREF + shared_values(&s) * X4_CREDITS_INODE;
	x4_xattr_set_fini(&s);
	return n;
}

unsigned x4_xattr_remove_blocks(struct x4_inode *i)
{
	struct x4_xattr_set s;
	unsigned n;

	if (!x4_raw_file_acl(i) || x4_xattr_load(i, &s))
		return 0;
	n = s.block_shared;
	x4_xattr_set_fini(&s);
	return n;
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
	unsigned how; /* X4_XATTR_* */
};

static int change_in_handle(struct jnl_handle *h, struct x4_inode *i, const struct change *c)
{
	int err = x4_inode_begin(h, i);

	if (err)
		return err;
	if (is_acl(c->index))
		err = x4_acl_store(h, i, c->index, c->value, c->len, c->how & X4_XATTR_KILL_SGID);
	else
		err = x4_xattr_change(h, i, c->index, c->rest, c->rest_len, c->value, c->len);
	if (err)
		return err == X4_XATTR_SAME ? 0 : err; /* and no time changes either */
	fdio_mutex_lock(&i->attr);
	x4_raw_set_time(i, X4_SET_CTIME, x4_now(i->vol));
	fdio_mutex_unlock(&i->attr);
	return x4_inode_dirty(h, i, false);
}

/* Whether setting it takes no new block. (An ACL is shorter on disk than as it was handed in.) */
static bool fits_as_it_is(struct x4_inode *i, const struct change *c)
{
	struct x4_xattr fresh = { .index = c->index, .name_len = (uint8_t)c->rest_len, .name = c->rest, .value = c->value,
				  .size = (uint32_t)c->len, .fresh = true };
	struct x4_xattr_set s;
	struct x4_xattr *x;
	bool fits;

	if (x4_xattr_load(i, &s))
		return false;
	x = x4_xattr_find(&s, c->index, c->rest, c->rest_len);
	*(x ? x : &s.e[s.nr++]) = fresh;
	fits = x4_xattr_fits(i, &s);
	x4_xattr_set_fini(&s);
	return fits;
}

/* The inode is locked exclusively. */
static int change_locked(struct x4_inode *i, const struct change *c)
{
	unsigned blocks = c->value ? 1 + x4_ea_blocks(i->vol, c->len) : x4_xattr_remove_blocks(i);
	struct jnl_handle *h;
	int err = 0;

	if (blocks)
		err = x4_meta_reserve(i->vol, blocks, c->value ? x4_asks(c->how & X4_XATTR_ROOT) : X4_ASKS_SYSTEM);
	if (err == -ENOSPC && c->value && fits_as_it_is(i, c)) {
		blocks = 0;
		err = 0;
	}
	if (err)
		return err;
	err = jnl_begin(i->vol->jnl, X4_CREDITS_XATTR + x4_xattr_credits(i, c->value ? c->len : 0), &h);
	if (!err) {
		err = change_in_handle(h, i, c);
		if (err)
			jnl_cancel(h);
		else
			jnl_end(h);
	}
	if (blocks)
		x4_meta_unreserve(i->vol, blocks);
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

int x4_xattr_set(struct x4_inode *i, const char *name, const void *value, size_t len, int flags, unsigned how)
{
	struct change c = { .value = value ? value : "", .len = len, .how = how };
	int err;

	x4_inode_lock_excl(i);
	err = may_change(i);
	if (!err)
		err = split_name(i->vol, name, &c.index, &c.rest, &c.rest_len);
	if (!err && len > X4_XATTR_VALUE_MAX)
		err = -E2BIG;
	if (!err)
		err = check_flags(i, c.index, c.rest, c.rest_len, flags);
	if (!err)
		err = change_locked(i, &c);
	x4_inode_unlock(i);
	x4_ea_settle(i->vol);
	return err;
}

int x4_xattr_remove(struct x4_inode *i, const char *name)
{
	struct change c = { .value = NULL };
	int err;

	x4_inode_lock_excl(i);
	err = may_change(i);
	if (!err)
		err = split_name(i->vol, name, &c.index, &c.rest, &c.rest_len);
	if (!err)
		err = change_locked(i, &c);
	x4_inode_unlock(i);
	x4_ea_settle(i->vol);
	return err;
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

/* The first attribute of s whose value i has to give up itself: not those of a shared block. */
static struct x4_xattr *next_value(struct x4_xattr_set *s)
{
	for (unsigned k = 0; k < s->nr; k++)
		if (s->e[k].inum && !(s->e[k].was_in_block && s->block_shared))
			return &s->e[k];
	return NULL;
}

static void forget_block(struct x4_xattr_set *s)
{
	unsigned n = 0;

	for (unsigned k = 0; k < s->nr; k++)
		if (!s->e[k].was_in_block)
			s->e[n++] = s->e[k];
	s->nr = n;
	s->block_shared = false;
}

/* An inode that holds a value has none itself (VALUE-3): on an image that says otherwise nothing
 * descends. */
static bool may_own_values(struct x4_inode *i)
{
	return i->vol->has_ea_inode && !(x4_inode_flags(i) & EXT4_EA_INODE_FL);
}

/* One value, or, when there is none left, the block. */
static int free_step(struct jnl_handle *h, struct x4_inode *i, bool *ret_more)
{
	struct x4_xattr_set s = { 0 };
	struct x4_xattr *x = NULL;
	int err = x4_inode_begin(h, i);

	if (!err && may_own_values(i))
		err = x4_xattr_load(i, &s);
	if (err)
		return err;
	x = next_value(&s);
	*ret_more = x;
	if (x) {
		err = leave_value(h, i, &s, x);
		*x = s.e[--s.nr];
		/* What is in a shared block is not copied, but left to the others. */
		if (!err && s.block_shared)
			err = x4_xattr_drop_block(h, i);
		if (s.block_shared)
			forget_block(&s);
		if (!err)
			err = x4_xattr_store(h, i, &s);
	} else {
		err = x4_xattr_drop_block(h, i);
	}
	x4_xattr_set_fini(&s);
	return err ? err : x4_inode_dirty(h, i, false);
}

int x4_xattr_free_all(struct x4_inode *i)
{
	bool values = may_own_values(i), more = true;
	struct jnl_handle *h;
	int err = 0;

	if (!x4_raw_file_acl(i) && !values)
		return 0;
	while (more && !err) {
		more = false;
		err = jnl_begin(i->vol->jnl, X4_CREDITS_XATTR + (values ? X4_CREDITS_EA_UNREF : 0), &h);
		if (err)
			break;
		err = free_step(h, i, &more);
		if (err)
			jnl_cancel(h);
		else
			jnl_end(h);
	}
	if (values) /* deletes inodes that hold values: they come here, too, but no further */
		x4_ea_settle(i->vol);
	return err;
}
