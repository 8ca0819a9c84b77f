/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inode, a part of inode.h: the words in which a request says which attributes it changes, and on
 * whose behalf it creates a file. Types only.
 */
#ifndef FDIO_EXT4_INODE_INODE_ATTRIBUTES_H
#define FDIO_EXT4_INODE_INODE_ATTRIBUTES_H

#include <stdbool.h>
#include <stdint.h>

/* What ext4_setattr changes: any of these together. */
enum {
	EXT4_SET_MODE = 1 << 0,
	EXT4_SET_UID = 1 << 1,
	EXT4_SET_GID = 1 << 2,
	EXT4_SET_ATIME = 1 << 3,
	EXT4_SET_MTIME = 1 << 4,
	EXT4_SET_CTIME = 1 << 5,
	EXT4_SET_FLAGS = 1 << 6,
	EXT4_SET_ATIME_NOW = 1 << 7,
	EXT4_SET_MTIME_NOW = 1 << 8,
	/* Clear setuid, and setgid where the group may execute; drop security.capability. */
	EXT4_KILL_SUIDGID = 1 << 9,
	EXT4_TOUCH_CTIME = 1 << 10, /* ctime becomes now, even if nothing else changes */
	/* With EXT4_KILL_SUIDGID: clear setgid always; the caller is not in the file's group. */
	EXT4_KILL_SGID = 1 << 11,
	/* Drop security.capability alone: the writer may keep the set-ID bits. */
	EXT4_KILL_CAPS = 1 << 12,
	EXT4_BY_ROOT = 1 << 13, /* an ACL that follows the mode may use the reserved blocks */
};

/* The process that creates a file. The new inode's owner also depends on its directory (setgid). */
struct ext4_credentials {
	uint32_t uid, gid, umask;
	bool cap_fsetid;        /* keeps setgid on files of a group that is not its own */
	bool root;              /* may use the reserved blocks */
	const uint32_t *groups; /* its supplementary groups, nr_groups of them */
	unsigned nr_groups;
};

#endif
