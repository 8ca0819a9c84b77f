/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inode: the inodes in memory and on disk. This header is for everybody; inode_change.h (changing
 * an inode in a handle) and inode_cache.h (the cache and the orphan list as a whole) are for the
 * rooms of ext4 alone.
 *
 *   cache.c, get.c, put.c   one struct for each inode in use, with references; put.c begins the
 *                           deletion of an inode without a name
 *   table.c                 the disk inode: read, verified, opened for change in a handle, written
 *   inode_change.c          a handle for the change of one inode
 *   fields.c                fields whose halves lie apart or that have a copy in memory
 *   times.c, lazy_times.c   times, also those noted without a handle; what fsync waits for
 *   new.c                   a new inode, inside the handle of the operation that creates a file
 *   orphan_list.c           the orphan list: its changes, and reading it at mount
 *   access.c                plain access to this state
 *
 * Unless a comment says otherwise: any thread, never blocks, cannot fail. Loading and what takes a
 * handle: workers, and loop threads in the mode of base/nowait.h. State: inode_state.h.
 */
#ifndef FDIO_EXT4_INODE_INODE_H
#define FDIO_EXT4_INODE_INODE_H

#include "base/nowait.h"
#include "ext4/alloc/alloc.h"

/*
 * A reference to the inode ino, which keeps its struct in memory; the caller drops it with
 * ext4_inode_put. gen, if not NULL, must match the inode's generation, else -ESTALE. -ENOENT: the
 * number is not in use or out of range.
 */
int ext4_inode_get(struct ext4_vol *vol, uint32_t ino, const uint32_t *gen, struct ext4_inode **ret)
	FDIO_MAY_MISS;
/* As ext4_inode_get, but only from memory: never blocks, NULL if the inode is not there. */
struct ext4_inode *ext4_inode_get_cached(struct ext4_vol *vol, uint32_t ino);
/* One more reference, for a caller that has one. */
struct ext4_inode *ext4_inode_ref(struct ext4_inode *inode);
/*
 * Drops n references. The last one of an inode without a name deletes it, which may block; a loop
 * thread leaves a deletion that would wait to ext4_vol_reap. No lock may be held.
 */
void ext4_inode_put_many(struct ext4_inode *inode, uint64_t n) FDIO_MAY_WAIT;
static inline FDIO_MAY_WAIT void ext4_inode_put(struct ext4_inode *inode)
{
	if (inode)
		ext4_inode_put_many(inode, 1);
}
/*
 * fn is called when a loop thread has left deletions behind, on that thread, and must not block: it
 * has a worker call ext4_vol_reap, which does them. Set before requests arrive.
 */
void ext4_vol_set_reaper(struct ext4_vol *vol, void (*fn)(void *arg), void *arg);
void ext4_vol_reap(struct ext4_vol *vol) FDIO_MAY_WAIT;
/*
 * The number of references that the kernel has (FUSE lookups), which the caller takes and drops
 * beside. sub returns how many of n there were.
 */
void ext4_lookups_add(struct ext4_inode *inode, uint64_t n);
uint64_t ext4_lookups_sub(struct ext4_inode *inode, uint64_t n);
/* Notes that a file or directory is opened (n is 1) or closed (-1). */
void ext4_opened(struct ext4_inode *inode, int n);
/* The number of deletions that have ended: see ext4_space_has_come. */
uint64_t ext4_evictions(const struct ext4_vol *vol);

uint32_t ext4_inode_ino(const struct ext4_inode *inode);
uint32_t ext4_inode_gen(const struct ext4_inode *inode);
uint32_t ext4_inode_mode(const struct ext4_inode *inode); /* type and permissions */
uint64_t ext4_inode_size(const struct ext4_inode *inode); /* bytes */
uint32_t ext4_inode_flags(struct ext4_inode *inode);      /* EXT4_*_FL; takes attr */
/* The flags that every write looks at, without a lock; values as on disk. */
enum {
	EXT4_LIVE_SYNC = 0x8,
	EXT4_LIVE_IMMUTABLE = 0x10,
	EXT4_LIVE_FLAGS = EXT4_LIVE_SYNC | EXT4_LIVE_IMMUTABLE
};
uint32_t ext4_inode_live_flags(const struct ext4_inode *inode);
struct ext4_vol *ext4_inode_vol(struct ext4_inode *inode);
/* The content lies in the inode (inline_data): it has no map; ext4_inline_read reads it. */
bool ext4_inode_inline(const struct ext4_inode *inode);
/*
 * A pointer for a room above ext4 (dio's state of the file). It is set once: if another thread was
 * faster, set_upper returns that one's pointer and p is still the caller's. dtor(p) runs when the
 * inode is freed, with no lock held.
 */
void *ext4_inode_upper(struct ext4_inode *inode);
void *ext4_inode_set_upper(struct ext4_inode *inode, void *p, void (*dtor)(void *));

/*
 * The lock of one inode: shared for I/O inside the size; exclusive for everything that moves the
 * size, frees blocks or changes a directory. lock: waits, workers only. enter: in the mode of
 * base/nowait.h -EAGAIN instead of waiting; elsewhere it waits and returns 0.
 */
void ext4_inode_lock_shared(struct ext4_inode *inode) FDIO_BLOCKS;
void ext4_inode_lock_exclusive(struct ext4_inode *inode) FDIO_BLOCKS;
void ext4_inode_unlock(struct ext4_inode *inode);
int ext4_inode_enter_shared(struct ext4_inode *inode) FDIO_MAY_MISS;
int ext4_inode_enter_exclusive(struct ext4_inode *inode) FDIO_MAY_MISS;

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
	/* Clear suid, and sgid where group-executable; drop security.capability. */
	EXT4_KILL_SUIDGID = 1 << 9,
	EXT4_TOUCH_CTIME = 1 << 10, /* ctime becomes now, even if nothing else is to be done */
	/* With EXT4_KILL_SUIDGID: clear sgid in any case; the caller is not of the file's group. */
	EXT4_KILL_SGID = 1 << 11,
	/* Drop security.capability alone: a write of a process that may keep set-ID bits. */
	EXT4_KILL_CAPS = 1 << 12,
	EXT4_BY_ROOT = 1 << 13, /* an ACL that follows the mode may use the reserved blocks */
};
/* After a write: mtime and ctime become now; after a read: atime, by the mount's policy. Both are
 * noted in memory and written later (ext4_vol_write_times). */
void ext4_touch_write(struct ext4_inode *inode);
void ext4_touch_read(struct ext4_inode *inode);
/*
 * The transaction that fsync (datasync: fdatasync, O_DSYNC) of this inode has to wait for; false if
 * there is none. Unless datasync, noted times are written into a transaction first. _noted does not
 * write them, and never blocks; ext4_times_pending says whether there are any.
 */
bool ext4_sync_tid(struct ext4_inode *inode, bool datasync, journal_tid *ret) FDIO_MAY_WAIT;
bool ext4_sync_tid_noted(struct ext4_inode *inode, bool datasync, journal_tid *ret);
bool ext4_times_pending(struct ext4_inode *inode);

/* The process that creates a file. The new inode's owner also depends on its directory (setgid). */
struct ext4_credentials {
	uint32_t uid, gid, umask;
	bool cap_fsetid;
	bool root;                    /* may use the reserved blocks */
	const uint32_t *groups;
	unsigned nr_groups;
};

#endif
