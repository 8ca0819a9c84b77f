/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Directory entries as READDIR and READDIRPLUS return them. Pure functions, any thread. Fails by
 * returning false if the entry does not fit.
 */
#include "message/message.h"

#include <string.h>

static void put_dirent(uint8_t *at, uint64_t ino, uint64_t next_off, uint32_t type,
		       const char *name, uint32_t name_len)
{
	struct fuse_dirent dirent = {
		.ino = ino, .off = next_off, .namelen = name_len, .type = type
	};
	size_t end = FUSE_NAME_OFFSET + name_len;

	memcpy(at, &dirent, FUSE_NAME_OFFSET);
	memcpy(at + FUSE_NAME_OFFSET, name, name_len);
	/* The padding is never read, but uninitialised memory must not go to the kernel. */
	memset(at + end, 0, FUSE_DIRENT_ALIGN(end) - end);
}

bool message_add_dirent(uint8_t *buf, uint32_t cap, uint32_t *off, uint64_t ino, uint64_t next_off,
			uint32_t type, const char *name, uint32_t name_len)
{
	size_t need = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + (size_t)name_len);

	if (*off > cap || need > cap - *off)
		return false;
	put_dirent(buf + *off, ino, next_off, type, name, name_len);
	*off += (uint32_t)need;
	return true;
}

bool message_add_direntplus(uint8_t *buf, uint32_t cap, uint32_t *off,
			    const struct fuse_entry_out *entry, uint64_t ino, uint64_t next_off,
			    uint32_t type, const char *name, uint32_t name_len)
{
	size_t need = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET_DIRENTPLUS + (size_t)name_len);

	if (*off > cap || need > cap - *off)
		return false;
	memcpy(buf + *off, entry, sizeof(*entry));
	put_dirent(buf + *off + sizeof(*entry), ino, next_off, type, name, name_len);
	*off += (uint32_t)need;
	return true;
}
