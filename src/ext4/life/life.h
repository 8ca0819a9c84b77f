/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Life: what happens to an inode as a whole.
 *
 *   getattr.c, setattr.c   what stat shows; changes of mode, owner, times, flags
 *   eviction.c             the end of an inode without a name
 *   orphans.c, orphan_file.c   what a crash left, at mount
 *   wait_space.c           waiting for deletions that are on their way
 *
 * Workers, and loop threads in the mode of nowait.h; what says so, any thread. State: life_state.h.
 */
#ifndef FDIO_EXT4_LIFE_LIFE_H
#define FDIO_EXT4_LIFE_LIFE_H

#include "base/nowait.h"
#include "ext4/xattr/xattr.h"

struct ext4_attr {
	uint32_t ino, gen, mode, nlink, uid, gid, rdev; /* rdev in Linux's 32-bit new encoding */
	uint64_t size, blocks_512;
	struct timespec atime, mtime, ctime, btime;
	uint32_t flags;                                  /* EXT4_*_FL */
};
/* any thread; takes only the attr mutex */
void ext4_getattr(struct ext4_inode *inode, struct ext4_attr *ret);
/*
 * Everything but size (ext4_truncate). ctime is set to now unless EXT4_SET_CTIME. One transaction.
 * Takes the inode lock exclusively: the caller holds it in no mode. KILL_SUIDGID alone with nothing
 * to kill changes nothing.
 */
int ext4_setattr(struct ext4_inode *inode, unsigned what,
		 const struct ext4_attr *attr) FDIO_MAY_MISS;
/*
 * suid/sgid/capabilities need killing before a write by an unprivileged process. Any thread; may
 * say true needlessly.
 */
bool ext4_needs_killpriv(struct ext4_inode *inode);
/*
 * Looks, and remembers for the above: true if there is nothing to kill, whoever writes. The inode
 * is locked, in either mode.
 */
bool ext4_nothing_to_kill(struct ext4_inode *inode) FDIO_MAY_WAIT;

/*
 * Whether an operation that ended with err is worth trying again: err is -ENOSPC, and space has
 * come since. A file without names is deleted when its last reference goes, and over FUSE the
 * kernel gives its own reference up some time after unlink(2) or close(2) has returned, so space
 * may still be on its way. Use:
 *   uint64_t since = ext4_evictions(vol);
 *   do err = ...; while (ext4_space_has_come(vol, err, &since));
 * The function has the append windows closed, once. Then it waits for deletions that have begun,
 * for those whose FORGET is on its way and, shortly after an unlink or a close, for files whose
 * RELEASE or its answer may be on its way; true if a deletion has ended since. Workers; on a loop
 * thread an ENOSPC misses (base/nowait.h) and the answer is false.
 */
bool ext4_space_has_come(struct ext4_vol *vol, int err, uint64_t *since) FDIO_MAY_WAIT;
/*
 * fn says whether the kernel still has the inode ino itself: no, and its FORGET is on its way. On a
 * worker that holds no lock. Set before anything runs.
 */
void ext4_vol_set_held(struct ext4_vol *vol, bool (*fn)(void *arg, uint32_t ino), void *arg);

/* ------------------------------------------------------------------ inside ext4 */
void ext4_life_init(struct ext4_vol *vol);
/* life/orphans.c */
int ext4_orphans_process(struct ext4_vol *vol) FDIO_BLOCKS;
/* life/orphan_file.c: what a kernel mount left in the orphan file. */
int ext4_orphan_file_process(struct ext4_vol *vol) FDIO_BLOCKS;
/* delete or truncate one; drops the reference */
void ext4_orphan_finish(struct ext4_vol *vol, struct ext4_inode *inode) FDIO_BLOCKS;

#endif
