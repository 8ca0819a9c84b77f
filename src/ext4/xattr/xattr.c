/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extended attributes as the system calls see them: get, list, set, remove; and capabilities, which
 * other changes remove. The VFS has checked permissions and the syntax of names before a call
 * arrives; which prefixes this mount serves is decided here.
 *
 * Reading: workers, and loop threads in the mode of base/nowait.h, with the inode locked shared.
 * Changing: workers only, with the inode locked exclusively, one transaction a change. Errors leave
 * everything as it was.
 */
#include "ext4/xattr/set.h"

#include "ext4/inode/inode_change.h"
#include "ext4/xattr/acl.h"
#include "ext4/xattr/value.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

static const struct prefix {
	const char *text;
	uint8_t len, index;
	bool whole; /* text is the whole name */
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

/*
 * Splits a full name into prefix and rest. -EOPNOTSUPP for a prefix that this mount does not serve;
 * -EINVAL without a rest; -ERANGE if the rest is too long.
 */
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

/* ---- reading ---- */

static int copy_acl(struct ext4_inode *inode, const struct ext4_xattr *xattr, void *buf,
		    size_t size, size_t *ret_len)
{
	uint8_t *value = NULL;
	int err = xattr->value_ino ? ext4_ea_copy(inode, xattr, &value) : 0;

	if (!err)
		err = ext4_acl_to_user(inode, value ? value : xattr->value, xattr->size, buf, size,
				       ret_len);
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
	if (xattr->value_ino)
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
	 * The kernel asks for capabilities before each write, so this must not load the set. A file
	 * that is known to have nothing to kill has none.
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
	return NULL; /* user space does not see it: system.data, encryption, unknown */
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

/* ---- changing ---- */

/* Tests XATTR_CREATE and XATTR_REPLACE, before a transaction is opened. */
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
		return err == EXT4_XATTR_SAME ? 0 : err; /* then ctime stays, too */
	fdio_mutex_lock(&inode->attr);
	ext4_raw_set_time(inode, EXT4_SET_CTIME, ext4_now(inode->vol));
	fdio_mutex_unlock(&inode->attr);
	return ext4_inode_dirty(handle, inode, false);
}

/*
 * Setting the attribute takes no new block. For an ACL this may be false needlessly, because it is
 * shorter on disk than as it was handed in.
 */
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
	if (!xattr)
		xattr = &set.xattr[set.nr++];
	*xattr = fresh;
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

	/* The blocks are an upper bound: without any the attribute may still fit where it is. */
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

/* ---- capabilities, for other changes ---- */

bool ext4_xattr_has_caps(struct ext4_inode *inode)
{
	struct ext4_xattr_set set;

	/* If the set cannot be read, it may hold some; the change that removes them will fail. */
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
