/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inode: the inodes in memory and on disk. This header, with inode_attributes.h, is for all rooms
 * that include ext4.h; the other headers named inode_*.h are for the rooms of ext4 alone.
 *
 *   cache.c, get.c, put.c   one struct for each inode in use, with references (inode_cache.h);
 *                           put.c begins the deletion of an inode without a name
 *   table.c                 the disk inode: read, verified, opened for change, written
 *   inode_change.c          a handle for the change of one inode (inode_change.h)
 *   new.c, orphan_list.c    a new inode; the orphan list, and reading it at mount
 *   fields.c                fields of the disk inode with a copy in memory (inode_fields.h)
 *   times.c, lazy_times.c   times (inode_times.h), also those noted without a handle; what fsync
 *                           waits for
 *   access.c                plain access to this state
 *
 * No two .c files call each other in a circle. Unless a comment says otherwise, a function here
 * runs on any thread, never blocks, takes no lock that is held across I/O, and cannot fail.
 * Functions marked FDIO_MAY_MISS or FDIO_MAY_WAIT (base/nowait.h) read the disk or begin a handle:
 * workers, and loop threads in the mode of base/nowait.h. State: inode_state.h.
 */
#ifndef FDIO_EXT4_INODE_INODE_H
#define FDIO_EXT4_INODE_INODE_H

#include "base/nowait.h"
#include "ext4/alloc/alloc.h"
#include "ext4/inode/inode_attributes.h"

/* ---- references ---- */
/*
 * A reference to the inode ino, which keeps its struct in memory; the caller drops it with
 * ext4_inode_put. -ENOENT: ino is out of range, reserved, not in use or being deleted. -ESTALE: gen
 * is given and is not the inode's generation, or the inode holds the value of an attribute.
 * -EUCLEAN: the disk inode is damaged. -EIO, -ENOMEM.
 */
int ext4_inode_get(struct ext4_vol *vol, uint32_t ino, const uint32_t *gen, struct ext4_inode **ret)
	FDIO_MAY_MISS;
/* As ext4_inode_get, but only from memory; NULL if the inode is not there. */
struct ext4_inode *ext4_inode_get_cached(struct ext4_vol *vol, uint32_t ino);
/* One more reference to inode, of which the caller has one already. Returns inode. */
struct ext4_inode *ext4_inode_ref(struct ext4_inode *inode);
/*
 * Drops n references of the caller. Dropping the last one of an inode without a name deletes it,
 * which may block; a loop thread leaves a deletion that would wait to ext4_vol_reap. The caller
 * holds no lock. If the deletion fails, the inode stays on the orphan list for the next mount.
 */
void ext4_inode_put_many(struct ext4_inode *inode, uint64_t n) FDIO_MAY_WAIT;
static inline FDIO_MAY_WAIT void ext4_inode_put(struct ext4_inode *inode)
{
	if (inode)
		ext4_inode_put_many(inode, 1);
}
/*
 * The volume calls fn(arg) when a loop thread has left deletions behind, on that thread: fn must
 * not block, and has a worker call ext4_vol_reap, which does them. Set before requests arrive.
 */
void ext4_vol_set_reaper(struct ext4_vol *vol, void (*fn)(void *arg), void *arg);
void ext4_vol_reap(struct ext4_vol *vol) FDIO_MAY_WAIT;
/*
 * Counts the references that the kernel holds (FUSE lookups); the caller takes and drops the
 * references themselves. sub returns how many of the n there were to subtract.
 */
void ext4_lookups_add(struct ext4_inode *inode, uint64_t n);
uint64_t ext4_lookups_sub(struct ext4_inode *inode, uint64_t n);
/* A file or directory is opened (n is 1) or closed (n is -1). */
void ext4_open_count_add(struct ext4_inode *inode, int n);
/* The number of deletions that have ended since the volume was opened: ext4_space_has_come. */
uint64_t ext4_evictions(const struct ext4_vol *vol);

/* ---- the state of an inode ---- */
struct ext4_vol *ext4_inode_vol(struct ext4_inode *inode);
uint32_t ext4_inode_ino(const struct ext4_inode *inode);
uint32_t ext4_inode_gen(const struct ext4_inode *inode);
uint32_t ext4_inode_mode(const struct ext4_inode *inode); /* file type and permissions */
uint64_t ext4_inode_size(const struct ext4_inode *inode); /* bytes */
uint32_t ext4_inode_flags(struct ext4_inode *inode);      /* EXT4_*_FL; takes attr */
/* Those flags that reads and writes look at, without a lock; the values are as on disk. */
enum {
	EXT4_LIVE_SYNC = 0x8,
	EXT4_LIVE_IMMUTABLE = 0x10,
	EXT4_LIVE_NOATIME = 0x80,
	EXT4_LIVE_FLAGS = EXT4_LIVE_SYNC | EXT4_LIVE_IMMUTABLE | EXT4_LIVE_NOATIME
};
uint32_t ext4_inode_live_flags(const struct ext4_inode *inode);
/* The content lies in the inode (inline_data): it has no map; ext4_inline_read reads it. */
bool ext4_inode_inline(const struct ext4_inode *inode);
/*
 * A pointer of a room above ext4 (dio's state of the file). It is set once: set_upper returns what
 * is set now; if that is not p, another thread was faster and p is still the caller's. Otherwise
 * the inode owns p: dtor(p) runs when the inode is freed, with no lock held.
 */
void *ext4_inode_upper(struct ext4_inode *inode);
void *ext4_inode_set_upper(struct ext4_inode *inode, void *p, void (*dtor)(void *));

/* ---- the lock of an inode ---- */
/*
 * Shared for I/O inside the size; exclusive for everything that frees blocks, changes a directory
 * or moves the size, except ext4_window_publish, which the gate keeps out (dio/slow.c). lock waits:
 * workers only. enter returns -EAGAIN instead of waiting in the mode of base/nowait.h; elsewhere it
 * waits and returns 0.
 */
void ext4_inode_lock_shared(struct ext4_inode *inode) FDIO_BLOCKS;
void ext4_inode_lock_exclusive(struct ext4_inode *inode) FDIO_BLOCKS;
void ext4_inode_unlock(struct ext4_inode *inode);
int ext4_inode_enter_shared(struct ext4_inode *inode) FDIO_MAY_MISS;
int ext4_inode_enter_exclusive(struct ext4_inode *inode) FDIO_MAY_MISS;

/* ---- times of data I/O, and fsync ---- */
/*
 * After a write, mtime and ctime become now; after a read, atime becomes now if the mount's policy
 * wants it. Both are noted in memory and written later (ext4_vol_write_times).
 */
void ext4_touch_write(struct ext4_inode *inode);
void ext4_touch_read(struct ext4_inode *inode);
/*
 * The transaction that fsync (datasync: fdatasync, O_DSYNC) of this inode has to wait for; false if
 * there is none. Unless datasync, ext4_sync_tid first writes noted times into a transaction; an
 * error of that is ignored, the times stay noted. ext4_sync_tid_noted writes none and never blocks;
 * ext4_times_pending says whether there are any.
 */
bool ext4_sync_tid(struct ext4_inode *inode, bool datasync, journal_tid *ret) FDIO_MAY_WAIT;
bool ext4_sync_tid_noted(struct ext4_inode *inode, bool datasync, journal_tid *ret);
bool ext4_times_pending(struct ext4_inode *inode);

#endif
