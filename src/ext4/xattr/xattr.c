/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extended attributes: get, list, set, remove, and what other operations need of them
 * (capabilities, eviction). Workers only. Reading takes the inode lock shared, changing takes it
 * exclusively; one transaction a change.
 *
 * The VFS has checked permissions and the syntax of names before a call arrives; what a name's
 * prefix allows on this mount is decided here.
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
	{ "user.", 5, EXT4_XATTR_INDEX_USER, false },
	{ "trusted.", 8, EXT4_XATTR_INDEX_TRUSTED, false },
	{ "security.", 9, EXT4_XATTR_INDEX_SECURITY, false },
	{ "system.posix_acl_access", 23, EXT4_XATTR_INDEX_ACL_ACCESS, true },
	{ "system.posix_acl_default", 24, EXT4_XATTR_INDEX_ACL_DEFAULT, true },
};

static bool is_acl(uint8_t index)
{
	return index == EXT4_XATTR_INDEX_ACL_ACCESS || index == EXT4_XATTR_INDEX_ACL_DEFAULT;
}

static bool index_served(const struct ext4_vol *vol, uint8_t index)
{
	if (is_acl(index))
		return vol->options.acl;
	return index != EXT4_XATTR_INDEX_USER || vol->options.user_xattr;
}

/* Splits a full name. -EOPNOTSUPP for a prefix that this mount does not serve. */
static int split_name(const struct ext4_vol *vol, const char *name, uint8_t *ret_index,
		      const char **ret_rest, unsigned *ret_len)
{
	for (size_t k = 0; k < ARRAY_SIZE(prefixes); k++) {
		const struct prefix *prefix = &prefixes[k];
		size_t len = strlen(name);

		if (prefix->whole ? strcmp(name, prefix->text) != 0
				  : strncmp(name, prefix->text, prefix->len) != 0)
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

static int copy_acl(struct ext4_inode *inode, const struct ext4_xattr *xattr, void *buf,
		    size_t size, size_t *ret_len)
{
	uint8_t *value = NULL;
	int err = xattr->inum ? ext4_ea_copy(inode, xattr, &value) : 0;

	if (!err)
		err = ext4_acl_to_user(inode, xattr->inum ? value : xattr->value, xattr->size, buf,
				       size, ret_len);
	free(value);
	return err;
}

static int copy_value(struct ext4_inode *inode, const struct ext4_xattr *xattr, void *buf,
		      size_t size, size_t *ret_len)
{
	if (is_acl(xattr->index))
		return copy_acl(inode, xattr, buf, size, ret_len);
	*ret_len = xattr->size;
	if (!size)
		return 0;
	if (size < xattr->size)
		return -ERANGE;
	if (xattr->inum)
		return ext4_ea_read(inode, xattr, buf);
	if (xattr->size)
		memcpy(buf, xattr->value, xattr->size);
	return 0;
}

#define CAPS "capability"

static bool is_caps(uint8_t index, const char *rest, unsigned len)
{
	return index == EXT4_XATTR_INDEX_SECURITY && len == sizeof(CAPS) - 1 &&
	       !memcmp(rest, CAPS, len);
}

int ext4_xattr_get(struct ext4_inode *inode, const char *name, void *buf, size_t size,
		   size_t *ret_len)
{
	struct ext4_xattr_set set;
	struct ext4_xattr *xattr;
	const char *rest;
	unsigned len;
	uint8_t index;
	int err = split_name(inode->vol, name, &index, &rest, &len);

	if (err)
		return err;
	/*
	 * The kernel asks before each write of a file that may have capabilities: nothing to kill
	 * means there are none.
	 */
	if (is_caps(index, rest, len) && ext4_killpriv_none(inode))
		return -ENODATA;
	err = ext4_inode_enter_shared(inode);
	if (err)
		return err;
	err = ext4_xattr_load(inode, &set);
	if (!err) {
		xattr = ext4_xattr_find(&set, index, rest, len);
		err = xattr ? copy_value(inode, xattr, buf, size, ret_len) : -ENODATA;
		ext4_xattr_set_fini(&set);
	}
	ext4_inode_unlock(inode);
	return err;
}

static const struct prefix *prefix_of(uint8_t index)
{
	for (size_t k = 0; k < ARRAY_SIZE(prefixes); k++)
		if (prefixes[k].index == index)
			return &prefixes[k];
	return NULL; /* not for user space: system.data, encryption, or unknown */
}

static int list_set(struct ext4_inode *inode, const struct ext4_xattr_set *set, bool trusted,
		    char *buf, size_t size, size_t *ret_len)
{
	size_t n = 0;

	for (unsigned k = 0; k < set->nr; k++) {
		const struct ext4_xattr *xattr = &set->xattr[k];
		const struct prefix *prefix = prefix_of(xattr->index);

		if (!prefix || !index_served(inode->vol, xattr->index) ||
		    (prefix->whole && xattr->name_len) ||
		    (xattr->index == EXT4_XATTR_INDEX_TRUSTED && !trusted))
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

int ext4_xattr_list(struct ext4_inode *inode, bool trusted, char *buf, size_t size, size_t *ret_len)
{
	struct ext4_xattr_set set;
	int err = ext4_inode_enter_shared(inode);

	if (err)
		return err;
	err = ext4_xattr_load(inode, &set);
	if (!err) {
		err = list_set(inode, &set, trusted, buf, size, ret_len);
		ext4_xattr_set_fini(&set);
	}
	ext4_inode_unlock(inode);
	return err;
}

/* ------------------------------------------------------------------ changing */

/* Gives up the value of xattr if it lies in an inode of its own. inode has been begun in handle. */
static int leave_value(struct journal_handle *handle, struct ext4_inode *inode,
		       const struct ext4_xattr_set *set, const struct ext4_xattr *xattr)
{
	int err = 0;

	if (!xattr->inum)
		return 0;
	if (!(xattr->was_in_block && set->block_shared)) /* XATTR-3 */
		err = ext4_ea_unref(handle, inode, xattr);
	return err ? err
		   : ext4_raw_add_blocks(inode, -(int64_t)fdio_blocks(xattr->size,
								      inode->vol->block_bits));
}

static int change_set(struct journal_handle *handle, struct ext4_inode *inode,
		      struct ext4_xattr_set *set, const struct ext4_xattr *fresh, bool remove)
{
	struct ext4_xattr *xattr = ext4_xattr_find(set, fresh->index, fresh->name, fresh->name_len);
	int err = 0;

	if (remove && !xattr)
		return -ENODATA;
	if (!remove && xattr && !xattr->inum && xattr->size == fresh->size &&
	    (!xattr->size || !memcmp(xattr->value, fresh->value, xattr->size)))
		return EXT4_XATTR_SAME;
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
	return ext4_xattr_store(handle, inode, set);
}

int ext4_xattr_change(struct journal_handle *handle, struct ext4_inode *inode, uint8_t index,
		      const char *name, unsigned name_len, const void *value, size_t len)
{
	struct ext4_xattr fresh = { .index = index,
				    .name_len = (uint8_t)name_len,
				    .name = name,
				    .value = value,
				    .size = (uint32_t)len,
				    .fresh = true };
	struct ext4_xattr_set set;
	int err = ext4_xattr_load(inode, &set);

	if (err)
		return err;
	err = ext4_inode_begin(handle, inode);
	if (!err)
		err = change_set(handle, inode, &set, &fresh, !value);
	ext4_xattr_set_fini(&set);
	ext4_killpriv_forget(inode);
	return err;
}

/* Values of the set that a copy of the block would own. */
static unsigned shared_values(const struct ext4_xattr_set *set)
{
	unsigned n = 0;

	for (unsigned k = 0; k < set->nr; k++)
		n += set->block_shared && set->xattr[k].was_in_block && set->xattr[k].inum;
	return n;
}

unsigned ext4_xattr_credits(struct ext4_inode *inode, size_t len)
{
	struct ext4_xattr_set set;
	unsigned n;

	/* the change will find the error */
	if (!inode->vol->has_ea_inode || ext4_xattr_load(inode, &set))
		return 0;
	n = ext4_ea_credits_new(inode->vol, len) + EXT4_CREDITS_EA_UNREF +
	    shared_values(&set) * EXT4_CREDITS_INODE;
	ext4_xattr_set_fini(&set);
	return n;
}

unsigned ext4_xattr_remove_blocks(struct ext4_inode *inode)
{
	struct ext4_xattr_set set;
	unsigned n;

	if (!ext4_raw_file_acl(inode) || ext4_xattr_load(inode, &set))
		return 0;
	n = set.block_shared;
	ext4_xattr_set_fini(&set);
	return n;
}

/* XATTR_CREATE and XATTR_REPLACE are judged before a transaction is opened. */
static int check_flags(struct ext4_inode *inode, uint8_t index, const char *rest, unsigned len,
		       int flags)
{
	struct ext4_xattr_set set;
	int err;

	if (!flags)
		return 0;
	err = ext4_xattr_load(inode, &set);
	if (err)
		return err;
	bool there = ext4_xattr_find(&set, index, rest, len);
	ext4_xattr_set_fini(&set);
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
	unsigned how; /* EXT4_XATTR_* */
};

static int change_in_handle(struct journal_handle *handle, struct ext4_inode *inode,
			    const struct change *change)
{
	int err = ext4_inode_begin(handle, inode);

	if (err)
		return err;
	if (is_acl(change->index))
		err = ext4_acl_store(handle, inode, change->index, change->value, change->len,
				     change->how & EXT4_XATTR_KILL_SGID);
	else
		err = ext4_xattr_change(handle, inode, change->index, change->rest,
					change->rest_len, change->value, change->len);
	if (err)
		return err == EXT4_XATTR_SAME ? 0 : err; /* and no time changes either */
	fdio_mutex_lock(&inode->attr);
	ext4_raw_set_time(inode, EXT4_SET_CTIME, ext4_now(inode->vol));
	fdio_mutex_unlock(&inode->attr);
	return ext4_inode_dirty(handle, inode, false);
}

/* Whether setting it takes no new block. (An ACL is shorter on disk than as it was handed in.) */
static bool fits_as_it_is(struct ext4_inode *inode, const struct change *change)
{
	struct ext4_xattr fresh = { .index = change->index,
				    .name_len = (uint8_t)change->rest_len,
				    .name = change->rest,
				    .value = change->value,
				    .size = (uint32_t)change->len,
				    .fresh = true };
	struct ext4_xattr_set set;
	struct ext4_xattr *xattr;
	bool fits;

	if (ext4_xattr_load(inode, &set))
		return false;
	xattr = ext4_xattr_find(&set, change->index, change->rest, change->rest_len);
	*(xattr ? xattr : &set.xattr[set.nr++]) = fresh;
	fits = ext4_xattr_fits(inode, &set);
	ext4_xattr_set_fini(&set);
	return fits;
}

/* The inode is locked exclusively. */
static int change_locked(struct ext4_inode *inode, const struct change *change)
{
	unsigned blocks = change->value ? 1 + ext4_ea_blocks(inode->vol, change->len)
					: ext4_xattr_remove_blocks(inode);
	unsigned credits = EXT4_CREDITS_XATTR +
			   ext4_xattr_credits(inode, change->value ? change->len : 0);
	enum ext4_requester who = change->value ? ext4_requester(change->how & EXT4_XATTR_ROOT)
						: EXT4_REQUESTER_SYSTEM;
	struct ext4_change op;
	int err = ext4_change_begin(inode->vol, credits, blocks, who, &op);

	if (err == -ENOSPC && blocks && change->value && fits_as_it_is(inode, change))
		err = ext4_change_begin(inode->vol, credits, 0, who, &op);
	if (err)
		return err;
	return ext4_change_end(&op, change_in_handle(op.handle, inode, change));
}

static int may_change(struct ext4_inode *inode)
{
	if (ext4_vol_read_only(inode->vol))
		return -EROFS;
	if (ext4_inode_flags(inode) & (EXT2_IMMUTABLE_FL | EXT2_APPEND_FL))
		return -EPERM;
	return 0;
}

int ext4_xattr_set(struct ext4_inode *inode, const char *name, const void *value, size_t len,
		   int flags, unsigned how)
{
	struct change change = { .value = value ? value : "", .len = len, .how = how };
	int err;

	ext4_inode_lock_exclusive(inode);
	err = may_change(inode);
	if (!err)
		err = split_name(inode->vol, name, &change.index, &change.rest, &change.rest_len);
	if (!err && len > EXT4_XATTR_VALUE_MAX)
		err = -E2BIG;
	if (!err)
		err = check_flags(inode, change.index, change.rest, change.rest_len, flags);
	if (!err)
		err = change_locked(inode, &change);
	ext4_inode_unlock(inode);
	ext4_ea_settle(inode->vol);
	return err;
}

int ext4_xattr_remove(struct ext4_inode *inode, const char *name)
{
	struct change change = { .value = NULL };
	int err;

	ext4_inode_lock_exclusive(inode);
	err = may_change(inode);
	if (!err)
		err = split_name(inode->vol, name, &change.index, &change.rest, &change.rest_len);
	if (!err)
		err = change_locked(inode, &change);
	ext4_inode_unlock(inode);
	ext4_ea_settle(inode->vol);
	return err;
}

/* ------------------------------------------------------------------ for the other parts */

bool ext4_xattr_has_caps(struct ext4_inode *inode)
{
	struct ext4_xattr_set set;

	/*
	 * What cannot be read may hold capabilities: say so, and the write that asks will find the
	 * error.
	 */
	if (ext4_xattr_load(inode, &set))
		return true;
	bool has = ext4_xattr_find(&set, EXT4_XATTR_INDEX_SECURITY, CAPS, sizeof(CAPS) - 1);
	ext4_xattr_set_fini(&set);
	return has;
}

int ext4_xattr_kill_caps(struct journal_handle *handle, struct ext4_inode *inode)
{
	int err = ext4_xattr_change(handle, inode, EXT4_XATTR_INDEX_SECURITY, CAPS,
				    sizeof(CAPS) - 1, NULL, 0);

	return err == -ENODATA ? 0 : err;
}

/* The first attribute of set whose value i has to give up itself: not those of a shared block. */
static struct ext4_xattr *next_value(struct ext4_xattr_set *set)
{
	for (unsigned k = 0; k < set->nr; k++)
		if (set->xattr[k].inum && !(set->xattr[k].was_in_block && set->block_shared))
			return &set->xattr[k];
	return NULL;
}

static void forget_block(struct ext4_xattr_set *set)
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
static bool may_own_values(struct ext4_inode *inode)
{
	return inode->vol->has_ea_inode && !(ext4_inode_flags(inode) & EXT4_EA_INODE_FL);
}

/* One value, or, when there is none left, the block. */
static int free_step(struct journal_handle *handle, struct ext4_inode *inode, bool *ret_more)
{
	struct ext4_xattr_set set = { 0 };
	struct ext4_xattr *xattr = NULL;
	int err = ext4_inode_begin(handle, inode);

	if (!err && may_own_values(inode))
		err = ext4_xattr_load(inode, &set);
	if (err)
		return err;
	xattr = next_value(&set);
	*ret_more = xattr;
	if (xattr) {
		err = leave_value(handle, inode, &set, xattr);
		*xattr = set.xattr[--set.nr];
		/* What is in a shared block is not copied, but left to the others. */
		if (!err && set.block_shared)
			err = ext4_xattr_drop_block(handle, inode);
		if (set.block_shared)
			forget_block(&set);
		if (!err)
			err = ext4_xattr_store(handle, inode, &set);
	} else {
		err = ext4_xattr_drop_block(handle, inode);
	}
	ext4_xattr_set_fini(&set);
	return err ? err : ext4_inode_dirty(handle, inode, false);
}

int ext4_xattr_free_all(struct ext4_inode *inode)
{
	bool values = may_own_values(inode), more = true;
	struct journal_handle *handle;
	int err = 0;

	if (!ext4_raw_file_acl(inode) && !values)
		return 0;
	while (more && !err) {
		more = false;
		err = journal_begin(inode->vol->journal,
				    EXT4_CREDITS_XATTR + (values ? EXT4_CREDITS_EA_UNREF : 0),
				    &handle);
		if (err)
			break;
		err = ext4_handle_end(handle, free_step(handle, inode, &more));
	}
	if (values) /* deletes inodes that hold values: they come here, too, but no further */
		ext4_ea_settle(inode->vol);
	return err;
}
