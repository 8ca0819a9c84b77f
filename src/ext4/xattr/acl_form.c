/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The two forms of a POSIX ACL: the compact one that ext4 keeps on disk, and the one of the
 * extended attributes that user space reads and writes. Both are little-endian: a version, then
 * entries of tag, permissions and id. On disk only entries of named users and groups have an id.
 * Each ACL is checked when it is read from either form.
 *
 * Workers, and loop threads in the mode of base/nowait.h. No state, no locks. A malformed ACL is
 * -EINVAL from user space and damage (-EUCLEAN) on disk.
 */
#include "ext4/xattr/acl.h"

#include "base/bytes.h"

#include <errno.h>
#include <stdlib.h>

#define VERSION_LEN 4u
#define DISK_VERSION 1u
#define USER_VERSION 2u
#define USER_ENTRY 8u
#define DISK_SHORT 4u /* an entry without an id */
#define DISK_LONG 8u
#define MAX_ENTRIES 4096u /* more than fit into a value of 64 KiB on disk */

static bool has_id(uint16_t tag) { return tag == EXT4_ACL_USER || tag == EXT4_ACL_GROUP; }

static struct ext4_acl *acl_alloc(unsigned nr)
{
	struct ext4_acl *acl = calloc(1, sizeof(*acl) + nr * sizeof(acl->entry[0]));

	if (acl)
		acl->nr = nr;
	return acl;
}

/*
 * Order, counts and permissions as POSIX.1e wants them: the owner, named users, the owning group,
 * named groups, the mask, others; one each of owner, owning group and others, and a mask if there
 * are named entries. next is the first tag that may come next.
 */
static bool acl_valid(const struct ext4_acl *acl)
{
	unsigned next = EXT4_ACL_USER_OBJ;
	bool named = false;

	for (unsigned k = 0; k < acl->nr; k++) {
		uint16_t tag = acl->entry[k].tag;

		if (acl->entry[k].perm & ~7u)
			return false;
		switch (tag) {
		case EXT4_ACL_USER_OBJ:
			if (next != EXT4_ACL_USER_OBJ)
				return false;
			next = EXT4_ACL_USER;
			break;
		case EXT4_ACL_USER:
			if (next != EXT4_ACL_USER)
				return false;
			named = true;
			break;
		case EXT4_ACL_GROUP_OBJ:
			if (next != EXT4_ACL_USER)
				return false;
			next = EXT4_ACL_GROUP;
			break;
		case EXT4_ACL_GROUP:
			if (next != EXT4_ACL_GROUP)
				return false;
			named = true;
			break;
		case EXT4_ACL_MASK:
			if (next != EXT4_ACL_GROUP)
				return false;
			next = EXT4_ACL_OTHER;
			break;
		case EXT4_ACL_OTHER:
			if (next != EXT4_ACL_OTHER && (next != EXT4_ACL_GROUP || named))
				return false;
			next = 0;
			break;
		default:
			return false;
		}
	}
	return next == 0;
}

/* Reads entries until len bytes are used up. Returns how many bytes are left over. */
static size_t read_disk_entries(const uint8_t *p, size_t len, struct ext4_acl *acl)
{
	unsigned n = 0;

	while (len >= DISK_SHORT) {
		struct ext4_acl_entry entry = { .tag = fdio_get_le16(p, 0),
						.perm = fdio_get_le16(p, 2) };
		uint32_t step = has_id(entry.tag) ? DISK_LONG : DISK_SHORT;

		if (len < step)
			break;
		if (has_id(entry.tag))
			entry.id = fdio_get_le32(p, 4);
		acl->entry[n++] = entry;
		p += step;
		len -= step;
	}
	acl->nr = n;
	return len;
}

int ext4_acl_from_disk(struct ext4_inode *inode, const uint8_t *disk, size_t len,
		       struct ext4_acl **ret)
{
	struct ext4_acl *acl;

	if (len < VERSION_LEN || fdio_get_le32(disk, 0) != DISK_VERSION)
		return EXT4_CORRUPT(inode->vol, inode->ino, 0, "an ACL of unknown form");
	len -= VERSION_LEN;
	acl = acl_alloc((unsigned)(len / DISK_SHORT));
	if (!acl)
		return -ENOMEM;
	if (read_disk_entries(disk + VERSION_LEN, len, acl) || !acl_valid(acl)) {
		free(acl);
		return EXT4_CORRUPT(inode->vol, inode->ino, 0, "a malformed ACL");
	}
	*ret = acl;
	return 0;
}

int ext4_acl_to_disk(const struct ext4_acl *acl, uint8_t **ret, size_t *ret_len)
{
	uint8_t *buf = malloc(VERSION_LEN + acl->nr * DISK_LONG), *p;

	if (!buf)
		return -ENOMEM;
	fdio_put_le32(buf, 0, DISK_VERSION);
	p = buf + VERSION_LEN;
	for (unsigned k = 0; k < acl->nr; k++) {
		const struct ext4_acl_entry *entry = &acl->entry[k];

		fdio_put_le16(p, 0, entry->tag);
		fdio_put_le16(p, 2, entry->perm);
		if (has_id(entry->tag))
			fdio_put_le32(p, 4, entry->id);
		p += has_id(entry->tag) ? DISK_LONG : DISK_SHORT;
	}
	*ret = buf;
	*ret_len = (size_t)(p - buf);
	return 0;
}

int ext4_acl_from_user(const uint8_t *user, size_t len, struct ext4_acl **ret)
{
	struct ext4_acl *acl;

	*ret = NULL;
	if (!len)
		return 0;
	if (len < VERSION_LEN || (len - VERSION_LEN) % USER_ENTRY)
		return -EINVAL;
	if (fdio_get_le32(user, 0) != USER_VERSION)
		return -EOPNOTSUPP;
	unsigned nr = (unsigned)((len - VERSION_LEN) / USER_ENTRY);
	if (!nr)
		return 0;
	if (nr > MAX_ENTRIES)
		return -EINVAL;
	acl = acl_alloc(nr);
	if (!acl)
		return -ENOMEM;
	for (unsigned k = 0; k < nr; k++) {
		const uint8_t *p = user + VERSION_LEN + (size_t)k * USER_ENTRY;
		struct ext4_acl_entry *entry = &acl->entry[k];

		entry->tag = fdio_get_le16(p, 0);
		entry->perm = fdio_get_le16(p, 2);
		if (has_id(entry->tag))
			entry->id = fdio_get_le32(p, 4);
	}
	if (!acl_valid(acl)) {
		free(acl);
		return -EINVAL;
	}
	*ret = acl;
	return 0;
}

static void write_user(const struct ext4_acl *acl, uint8_t *buf)
{
	fdio_put_le32(buf, 0, USER_VERSION);
	for (unsigned k = 0; k < acl->nr; k++) {
		const struct ext4_acl_entry *entry = &acl->entry[k];
		uint8_t *p = buf + VERSION_LEN + (size_t)k * USER_ENTRY;

		fdio_put_le16(p, 0, entry->tag);
		fdio_put_le16(p, 2, entry->perm);
		fdio_put_le32(p, 4, has_id(entry->tag) ? entry->id : UINT32_MAX);
	}
}

int ext4_acl_to_user(struct ext4_inode *inode, const uint8_t *disk, size_t len, void *buf,
		     size_t cap, size_t *ret_len)
{
	struct ext4_acl *acl;
	int err = ext4_acl_from_disk(inode, disk, len, &acl);

	if (err)
		return err;
	*ret_len = VERSION_LEN + (size_t)acl->nr * USER_ENTRY;
	if (cap && cap < *ret_len)
		err = -ERANGE;
	if (cap && !err)
		write_user(acl, buf);
	free(acl);
	return err;
}
