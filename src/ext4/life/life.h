/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Life: what happens to an inode as a whole.
 *
 *   getattr.c, setattr.c       what stat shows; changes of mode, owner, times, flags
 *   eviction.c                 deleting an inode without a name
 *   orphans.c, orphan_file.c   finishing at mount what a crash interrupted
 *   wait_space.c               waiting for deletions that are under way
 *
 * Workers, and loop threads in the mode of base/nowait.h, unless a comment says any thread. Errors
 * are -errno. State: life_state.h.
 */
#ifndef FDIO_EXT4_LIFE_LIFE_H
#define FDIO_EXT4_LIFE_LIFE_H

#include "base/nowait.h"
#include "ext4/xattr/xattr.h"

struct ext4_attr {
	uint32_t ino, gen, mode, nlink, uid, gid, rdev; /* rdev in Linux's 32-bit encoding */
	uint64_t size, blocks_512;                      /* bytes; sectors of 512 bytes */
	struct timespec atime, mtime, ctime, btime;
	uint32_t flags;                                 /* EXT4_*_FL */
};
/* Any thread; takes only the inode's attr mutex. */
void ext4_getattr(struct ext4_inode *inode, struct ext4_attr *ret);
/*
 * Changes everything but the size (ext4_truncate): what is EXT4_SET_*, EXT4_KILL_*. ctime becomes
 * now, unless EXT4_SET_CTIME is in what. If what only removes privileges and there are none,
 * nothing changes. One transaction. Takes the inode's lock exclusively; the caller must not hold
 * it.
 */
int ext4_setattr(struct ext4_inode *inode, unsigned what,
		 const struct ext4_attr *attr) FDIO_MAY_MISS;
/*
 * True if a write by an unprivileged process may have to remove privileges (set-ID bits,
 * capabilities) first. May be true although there are none. Any thread.
 */
bool ext4_needs_killpriv(struct ext4_inode *inode);
/*
 * Returns whether no write, by whatever process, has privileges to remove, and notes that for
 * ext4_needs_killpriv. The caller has the inode locked, in either mode.
 */
bool ext4_nothing_to_kill(struct ext4_inode *inode) FDIO_MAY_WAIT;

/*
 * Whether an operation that ended with err is worth trying again: err is -ENOSPC, and space has
 * come since. A file without names is deleted when its last reference goes, and over FUSE the
 * kernel gives up its own some time after unlink(2) or close(2) has returned, so space may still be
 * on its way. Use:
 *   uint64_t since = ext4_evictions(vol);
 *   do err = ...; while (ext4_space_has_come(vol, err, &since));
 * The first call with -ENOSPC closes the append windows. Then it waits: for deletions that have
 * begun, for inodes whose FORGET the kernel has queued, and, shortly after an unlink or a close,
 * for files whose RELEASE or its answer may be on its way. True if a deletion has ended since.
 * Workers, with no lock held; on a loop thread -ENOSPC misses (base/nowait.h), and it is false.
 */
bool ext4_space_has_come(struct ext4_vol *vol, int err, uint64_t *since) FDIO_MAY_WAIT;
/*
 * fn returns whether the kernel still has the inode ino; if not, its FORGET is queued. fn is called
 * on a worker that holds no lock, and may block. Set before requests arrive.
 */
void ext4_vol_set_held(struct ext4_vol *vol, bool (*fn)(void *arg, uint32_t ino), void *arg);

/* ------------------------------------------------------------------ inside ext4 */
/* Registers the deletion of inodes (eviction.c) with the inode cache. While the volume opens. */
void ext4_life_init(struct ext4_vol *vol);
/*
 * While the volume opens, after replay: finishes what is on the orphan list, then what a kernel
 * left in the orphan file. -EUCLEAN: some stay because of damage, and the volume can be served.
 * After any other error it must not be; -EINTR: the mount is to stop.
 */
int ext4_orphans_process(struct ext4_vol *vol) FDIO_BLOCKS;
int ext4_orphan_file_process(struct ext4_vol *vol) FDIO_BLOCKS;
/* Deletes an orphan, or finishes its truncate; drops the caller's reference. */
void ext4_orphan_finish(struct ext4_vol *vol, struct ext4_inode *inode) FDIO_BLOCKS;

#endif
