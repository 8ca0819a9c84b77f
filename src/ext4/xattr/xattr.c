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

static bool index_served(const struct x4_vol *vol, uint8_t index)
{
	if (is_acl(index))
		return vol->options.acl;
	return index != X4_XI_USER || vol->options.user_xattr;
}

/* Splits a full name. -EOPNOTSUPP for a prefix that this mount does not serve. */
static int split_name(const struct x4_vol *vol, const char *name, uint8_t *ret_index, const char **ret_rest, unsigned *ret_len)
{
	for (size_t k = 0; k < ARRAY_SIZE(prefixes); k++) {
		const struct prefix *prefix = &prefixes[k];
		size_t len = strlen(name);

		if (prefix->whole ? strcmp(name, prefix->text) != 0 : strncmp(name, prefix->text, prefix->len) != 0)
			continue;
		if (!index_served(vol, prefix->index))
			return -EOPNOTSUPP;
		len -= prefix->len;
		if (!prefix->whole && !len)
			return -EINVAL;
		if (len > 255)
			return -ERANGE;
		*ret_index = prefix->index;
		*ret_rest = name + prefix->len;
		*ret_len = (unsigned)len;
		return 0;
	}
	return -EOPNOTSUPP;
}

/* ------------------------------------------------------------------ reading */

static int copy_acl(struct x4_inode *inode, const struct x4_xattr *xattr, void *buf, size_t size, size_t *ret_len)
{
	uint8_t *value = NULL;
	int err = xattr->inum ? x4_ea_copy(inode, xattr, &value) : 0;

	if (!err)
		err = x4_acl_to_user(inode, xattr->inum ? value : xattr->value, xattr->size, buf, size, ret_len);
	free(value);
	return err;
}

static int copy_value(struct x4_inode *inode, const struct x4_xattr *xattr, void *buf, size_t size, size_t *ret_len)
{
	if (is_acl(xattr->index))
		return copy_acl(inode, xattr, buf, size, ret_len);
	*ret_len = xattr->size;
	if (!size)
		return 0;
	if (size < xattr->size)
		return -ERANGE;
	if (xattr->inum)
		return x4_ea_read(inode, xattr, buf);
	if (xattr->size)
		memcpy(buf, xattr->value, xattr->size);
	return 0;
}

#define CAPS "capability"

static bool is_caps(uint8_t index, const char *rest, unsigned len)
{
	return index == X4_XI_SECURITY && len == sizeof(CAPS) - 1 && !memcmp(rest, CAPS, len);
}

int x4_xattr_get(struct x4_inode *inode, const char *name, void *buf, size_t size, size_t *ret_len)
{
	struct x4_xattr_set set;
	struct x4_xattr *xattr;
	const char *rest;
	unsigned len;
	uint8_t index;
	int err = split_name(inode->vol, name, &index, &rest, &len);

	if (err)
		return err;
	/* The kernel asks before each write of a file that may have capabilities: nothing to kill means there are none. */
	if (is_caps(index, rest, len) && x4_killpriv_none(inode))
		return -ENODATA;
	err = x4_inode_enter_shared(inode);
	if (err)
		return err;
	err = x4_xattr_load(inode, &set);
	if (!err) {
		xattr = x4_xattr_find(&set, index, rest, len);
		err = xattr ? copy_value(inode, xattr, buf, size, ret_len) : -ENODATA;
		x4_xattr_set_fini(&set);
	}
	x4_inode_unlock(inode);
	return err;
}

static const struct prefix *prefix_of(uint8_t index)
{
	for (size_t k = 0; k < ARRAY_SIZE(prefixes); k++)
		if (prefixes[k].index == index)
			return &prefixes[k];
	return NULL; /* not for user space: system.data, encryption, or unknown */
}

static int list_set(struct x4_inode *inode, const struct x4_xattr_set *set, bool trusted, char *buf, size_t size, size_t *ret_len)
{
	size_t n = 0;

	for (unsigned k = 0; k < set->nr; k++) {
		const struct x4_xattr *xattr = &set->xattr[k];
		const struct prefix *prefix = prefix_of(xattr->index);

		if (!prefix || !index_served(inode->vol, xattr->index) || (prefix->whole && xattr->name_len) ||
		    (xattr->index == X4_XI_TRUSTED && !trusted))
			continue;
		size_t need = (size_t)prefix->len + xattr->name_len + 1;
		if (size) {
			if (need > size - n)
				return -ERANGE;
			memcpy(buf + n, prefix->text, prefix->len);
			memcpy(buf + n + prefix->len, xattr->name, xattr->name_len);
			buf[n + need - 1] = '\0';
		}
		n += need;
	}
	*ret_len = n;
	return 0;
}

int x4_xattr_list(struct x4_inode *inode, bool trusted, char *buf, size_t size, size_t *ret_len)
{
	struct x4_xattr_set set;
	int err = x4_inode_enter_shared(inode);

	if (err)
		return err;
	err = x4_xattr_load(inode, &set);
	if (!err) {
		err = list_set(inode, &set, trusted, buf, size, ret_len);
		x4_xattr_set_fini(&set);
	}
	x4_inode_unlock(inode);
	return err;
}

/* ------------------------------------------------------------------ changing */

/* Gives up the value of xattr if it lies in an inode of its own. inode has been begun in handle. */
static int leave_value(struct journal_handle *handle, struct x4_inode *inode, const struct x4_xattr_set *set, const struct x4_xattr *xattr)
{
	int err = 0;

	if (!xattr->inum)
		return 0;
	if (!(xattr->was_in_block && set->block_shared)) /* XATTR-3 */
		err = x4_ea_unref(handle, inode, xattr);
	return err ? err : x4_raw_add_blocks(inode, -(int64_t)fdio_blocks(xattr->size, inode->vol->block_bits));
}

static int change_set(struct journal_handle *handle, struct x4_inode *inode, struct x4_xattr_set *set, const struct x4_xattr *fresh, bool remove)
{
	struct x4_xattr *xattr = x4_xattr_find(set, fresh->index, fresh->name, fresh->name_len);
	int err = 0;

	if (remove && !xattr)
		return -ENODATA;
	if (!remove && xattr && !xattr->inum && xattr->size == fresh->size && (!xattr->size || !memcmp(xattr->value, fresh->value, xattr->size)))
		return X4_XATTR_SAME;
	if (xattr)
		err = leave_value(handle, inode, set, xattr);
	if (err)
		return err;
	if (remove) {
		*xattr = set->xattr[--set->nr];
	} else {
		if (!xattr)
			xattr = &set->xattr[set->nr++];
		*xattr = *fresh;
	}
	return x4_xattr_store(handle, inode, set);
}

int x4_xattr_change(struct journal_handle *handle, struct x4_inode *inode, uint8_t index, const char *name, unsigned name_len, const void *value,
		    size_t len)
{
	struct x4_xattr fresh = { .index = index, .name_len = (uint8_t)name_len, .name = name, .value = value, .size = (uint32_t)len,
				  .fresh = true };
	struct x4_xattr_set set;
	int err = x4_xattr_load(inode, &set);

	if (err)
		return err;
	err = x4_inode_begin(handle, inode);
	if (!err)
		err = change_set(handle, inode, &set, &fresh, !value);
	x4_xattr_set_fini(&set);
	x4_killpriv_forget(inode);
	return err;
}

/* Values of the set that a copy of the block would own. */
static unsigned shared_values(const struct x4_xattr_set *set)
{
	unsigned n = 0;

	for (unsigned k = 0; k < set->nr; k++)
		n += set->block_shared && set->xattr[k].was_in_block && set->xattr[k].inum;
	return n;
}

unsigned x4_xattr_credits(struct x4_inode *inode, size_t len)
{
	struct x4_xattr_set set;
	unsigned n;

	if (!inode->vol->has_ea_inode || x4_xattr_load(inode, &set)) /* the change will find the error */
		return 0;
	n = x4_ea_credits_new(inode->vol, len) + X4_CREDITS_EA_UNREF + shared_values(&set) * X4_CREDITS_INODE;
	x4_xattr_set_fini(&set);
	return n;
}

unsigned x4_xattr_remove_blocks(struct x4_inode *inode)
{
	struct x4_xattr_set set;
	unsigned n;

	if (!x4_raw_file_acl(inode) || x4_xattr_load(inode, &set))
		return 0;
	n = set.block_shared;
	x4_xattr_set_fini(&set);
	return n;
}

/* XATTR_CREATE and XATTR_REPLACE are judged before a transaction is opened. */
static int check_flags(struct x4_inode *inode, uint8_t index, const char *rest, unsigned len, int flags)
{
	struct x4_xattr_set set;
	int err;

	if (!flags)
		return 0;
	err = x4_xattr_load(inode, &set);
	if (err)
		return err;
	bool there = x4_xattr_find(&set, index, rest, len);
	x4_xattr_set_fini(&set);
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

static int change_in_handle(struct journal_handle *handle, struct x4_inode *inode, const struct change *change)
{
	int err = x4_inode_begin(handle, inode);

	if (err)
		return err;
	if (is_acl(change->index))
		err = x4_acl_store(handle, inode, change->index, change->value, change->len, change->how & X4_XATTR_KILL_SGID);
	else
		err = x4_xattr_change(handle, inode, change->index, change->rest, change->rest_len, change->value, change->len);
	if (err)
		return err == X4_XATTR_SAME ? 0 : err; /* and no time changes either */
	fdio_mutex_lock(&inode->attr);
	x4_raw_set_time(inode, X4_SET_CTIME, x4_now(inode->vol));
	fdio_mutex_unlock(&inode->attr);
	return x4_inode_dirty(handle, inode, false);
}

/* Whether setting it takes no new block. (An ACL is shorter on disk than as it was handed in.) */
static bool fits_as_it_is(struct x4_inode *inode, const struct change *change)
{
	struct x4_xattr fresh = { .index = change->index, .name_len = (uint8_t)change->rest_len, .name = change->rest, .value = change->value,
				  .size = (uint32_t)change->len, .fresh = true };
	struct x4_xattr_set set;
	struct x4_xattr *xattr;
	bool fits;

	if (x4_xattr_load(inode, &set))
		return false;
	xattr = x4_xattr_find(&set, change->index, change->rest, change->rest_len);
	*(xattr ? xattr : &set.xattr[set.nr++]) = fresh;
	fits = x4_xattr_fits(inode, &set);
	x4_xattr_set_fini(&set);
	return fits;
}

/* The inode is locked exclusively. */
static int change_locked(struct x4_inode *inode, const struct change *change)
{
	unsigned blocks = change->value ? 1 + x4_ea_blocks(inode->vol, change->len) : x4_xattr_remove_blocks(inode);
	struct journal_handle *handle;
	int err = 0;

	if (blocks)
		err = x4_meta_reserve(inode->vol, blocks, change->value ? x4_asks(change->how & X4_XATTR_ROOT) : X4_ASKS_SYSTEM);
	if (err == -ENOSPC && change->value && fits_as_it_is(inode, change)) {
		blocks = 0;
		err = 0;
	}
	if (err)
		return err;
	err = journal_begin(inode->vol->journal, X4_CREDITS_XATTR + x4_xattr_credits(inode, change->value ? change->len : 0), &handle);
	if (!err) {
		err = change_in_handle(handle, inode, change);
		if (err)
			journal_cancel(handle);
		else
			journal_end(handle);
	}
	if (blocks)
		x4_meta_unreserve(inode->vol, blocks);
	return err;
}

static int may_change(struct x4_inode *inode)
{
	if (x4_vol_read_only(inode->vol))
		return -EROFS;
	if (x4_inode_flags(inode) & (EXT2_IMMUTABLE_FL | EXT2_APPEND_FL))
		return -EPERM;
	return 0;
}

int x4_xattr_set(struct x4_inode *inode, const char *name, const void *value, size_t len, int flags, unsigned how)
{
	struct change change = { .value = value ? value : "", .len = len, .how = how };
	int err;

	x4_inode_lock_excl(inode);
	err = may_change(inode);
	if (!err)
		err = split_name(inode->vol, name, &change.index, &change.rest, &change.rest_len);
	if (!err && len > X4_XATTR_VALUE_MAX)
		err = -E2BIG;
	if (!err)
		err = check_flags(inode, change.index, change.rest, change.rest_len, flags);
	if (!err)
		err = change_locked(inode, &change);
	x4_inode_unlock(inode);
	x4_ea_settle(inode->vol);
	return err;
}

int x4_xattr_remove(struct x4_inode *inode, const char *name)
{
	struct change change = { .value = NULL };
	int err;

	x4_inode_lock_excl(inode);
	err = may_change(inode);
	if (!err)
		err = split_name(inode->vol, name, &change.index, &change.rest, &change.rest_len);
	if (!err)
		err = change_locked(inode, &change);
	x4_inode_unlock(inode);
	x4_ea_settle(inode->vol);
	return err;
}

/* ------------------------------------------------------------------ for the other parts */

bool x4_xattr_has_caps(struct x4_inode *inode)
{
	struct x4_xattr_set set;

	/* What cannot be read may hold capabilities: say so, and the write that asks will find the error. */
	if (x4_xattr_load(inode, &set))
		return true;
	bool has = x4_xattr_find(&set, X4_XI_SECURITY, CAPS, sizeof(CAPS) - 1);
	x4_xattr_set_fini(&set);
	return has;
}

int x4_xattr_kill_caps(struct journal_handle *handle, struct x4_inode *inode)
{
	int err = x4_xattr_change(handle, inode, X4_XI_SECURITY, CAPS, sizeof(CAPS) - 1, NULL, 0);

	return err == -ENODATA ? 0 : err;
}

/* The first attribute of set whose value i has to give up itself: not those of a shared block. */
static struct x4_xattr *next_value(struct x4_xattr_set *set)
{
	for (unsigned k = 0; k < set->nr; k++)
		if (set->xattr[k].inum && !(set->xattr[k].was_in_block && set->block_shared))
			return &set->xattr[k];
	return NULL;
}

static void forget_block(struct x4_xattr_set *set)
{
	unsigned n = 0;

	for (unsigned k = 0; k < set->nr; k++)
		if (!set->xattr[k].was_in_block)
			set->xattr[n++] = set->xattr[k];
	set->nr = n;
	set->block_shared = false;
}

/* An inode that holds a value has none itself (VALUE-3): on an image that says otherwise nothing
 * descends. */
static bool may_own_values(struct x4_inode *inode)
{
	return inode->vol->has_ea_inode && !(x4_inode_flags(inode) & EXT4_EA_INODE_FL);
}

/* One value, or, when there is none left, the block. */
static int free_step(struct journal_handle *handle, struct x4_inode *inode, bool *ret_more)
{
	struct x4_xattr_set set = { 0 };
	struct x4_xattr *xattr = NULL;
	int err = x4_inode_begin(handle, inode);

	if (!err && may_own_values(inode))
		err = x4_xattr_load(inode, &set);
	if (err)
		return err;
	xattr = next_value(&set);
	*ret_more = xattr;
	if (xattr) {
		err = leave_value(handle, inode, &set, xattr);
		*xattr = set.xattr[--set.nr];
		/* What is in a shared block is not copied, but left to the others. */
		if (!err && set.block_shared)
			err = x4_xattr_drop_block(handle, inode);
		if (set.block_shared)
			forget_block(&set);
		if (!err)
			err = x4_xattr_store(handle, inode, &set);
	} else {
		err = x4_xattr_drop_block(handle, inode);
	}
	x4_xattr_set_fini(&set);
	return err ? err : x4_inode_dirty(handle, inode, false);
}

int x4_xattr_free_all(struct x4_inode *inode)
{
	bool values = may_own_values(inode), more = true;
	struct journal_handle *handle;
	int err = 0;

	if (!x4_raw_file_acl(inode) && !values)
		return 0;
	while (more && !err) {
		more = false;
		err = journal_begin(inode->vol->journal, X4_CREDITS_XATTR + (values ? X4_CREDITS_EA_UNREF : 0), &handle);
		if (err)
			break;
		err = free_step(handle, inode, &more);
		if (err)
			journal_cancel(handle);
		else
			journal_end(handle);
	}
	if (values) /* deletes inodes that hold values: they come here, too, but no further */
		x4_ea_settle(inode->vol);
	return err;
}
