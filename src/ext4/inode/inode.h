/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inode: the inodes in memory and on disk.
 *
 *   cache.c        one struct for each inode in use, with references; the end of those without a name begins here
 *   table.c        the disk inode: read, verified, opened for change in a handle, written
 *   fields.c       fields whose halves lie apart or that have a copy in memory
 *   times.c        times, also those changed without a handle; what fsync waits for
 *   new.c          a new inode, inside the handle of whoever creates a file
 *   orphan_list.c  the orphan list: its changes, and reading it at mount
 *   access.c       plain access to this state, for the rooms above
 *
 * References and plain questions: any thread, never blocks. Loading and what takes a handle: workers, and loop
 * threads in the mode of nowait.h. State: inode_state.h; the cache's is guarded by its lock.
 */
#ifndef FDIO_EXT4_INODE_INODE_H
#define FDIO_EXT4_INODE_INODE_H

#include "base/nowait.h"
#include "ext4/alloc/alloc.h"

/*
 * A reference to the inode ino; gen non-NULL: must match or -ESTALE. -ENOENT: not in use or out of range.
 * A reference keeps the struct alive; the last one of an unlinked inode deletes it (x4_iput may block).
 */
int x4_iget(struct x4_vol *vol, uint32_t ino, const uint32_t *gen, struct x4_inode **ret)
	FDIO_MAY_MISS;
/* Only if it is in memory: never blocks, NULL otherwise. */
struct x4_inode *x4_iget_cached(struct x4_vol *vol, uint32_t ino);
struct x4_inode *x4_iref(struct x4_inode *inode);
/* Drops n references. May delete the file's blocks; a loop thread, in the mode of nowait.h, leaves that to a worker if it is much. */
void x4_iput_n(struct x4_inode *inode, uint64_t n) FDIO_MAY_WAIT;
static inline FDIO_MAY_WAIT void x4_iput(struct x4_inode *inode) { if (inode) x4_iput_n(inode, 1); }
/* fn is called, on any thread, not blocking, when a loop thread has left deletions to others: x4_vol_reap on a worker does them. */
void x4_vol_set_reaper(struct x4_vol *vol, void (*fn)(void *arg), void *arg);
void x4_vol_reap(struct x4_vol *vol) FDIO_MAY_WAIT;
/* References that somebody outside was told of are counted, too: sub says how many of n there were. Any thread, never blocks. */
void x4_lookups_add(struct x4_inode *inode, uint64_t n);
uint64_t x4_lookups_sub(struct x4_inode *inode, uint64_t n);
/* A file or directory is opened (1) or closed (-1). Any thread. */
void x4_opened(struct x4_inode *inode, int n);
/* Deletions that have ended: see x4_eviction_since. */
uint64_t x4_evictions(const struct x4_vol *vol);

uint32_t x4_inode_ino(const struct x4_inode *inode);
uint32_t x4_inode_gen(const struct x4_inode *inode);
uint32_t x4_inode_mode(const struct x4_inode *inode); /* type and permissions */
uint64_t x4_inode_size(const struct x4_inode *inode); /* any thread, never blocks; atomic */
uint32_t x4_inode_flags(struct x4_inode *inode);      /* EXT4_*_FL */
/* Of these flags alone; any thread, never blocks: what every write asks. Numbers as on disk. */
enum { X4_LIVE_SYNC = 0x8, X4_LIVE_IMMUTABLE = 0x10, X4_LIVE_FLAGS = X4_LIVE_SYNC | X4_LIVE_IMMUTABLE };
uint32_t x4_inode_live_flags(const struct x4_inode *inode);
struct x4_vol *x4_inode_vol(struct x4_inode *inode);
/* The content lies in the inode (inline_data): it has no map, and x4_inline_read is how it is read:
 * bytes, 0 at the end, or -errno. Such volumes are only read. Any thread, never block. */
bool x4_inode_inline(const struct x4_inode *inode);
/* A slot for the rooms above (dio: gate, in-flight counts). Set once; dtor runs when the inode is freed. */
void *x4_inode_upper(struct x4_inode *inode);         /* any thread, never blocks */
void *x4_inode_set_upper(struct x4_inode *inode, void *p, void (*dtor)(void *)); /* returns the winner if raced */

/* Serialises changes of one file against each other: shared for I/O inside the size, exclusive for everything that
 * moves the size, frees blocks or changes a directory. Worker threads only (may wait for I/O). */
void x4_inode_lock_shared(struct x4_inode *inode) FDIO_BLOCKS;
void x4_inode_lock_excl(struct x4_inode *inode) FDIO_BLOCKS;
void x4_inode_unlock(struct x4_inode *inode);
/* The same for what may run in the mode of nowait.h: -EAGAIN there if somebody is in the way, else 0. */
int x4_inode_enter_shared(struct x4_inode *inode) FDIO_MAY_MISS;
int x4_inode_enter_excl(struct x4_inode *inode) FDIO_MAY_MISS;

enum {
	X4_SET_MODE = 1 << 0, X4_SET_UID = 1 << 1, X4_SET_GID = 1 << 2, X4_SET_ATIME = 1 << 3, X4_SET_MTIME = 1 << 4,
	X4_SET_CTIME = 1 << 5, X4_SET_FLAGS = 1 << 6, X4_SET_ATIME_NOW = 1 << 7, X4_SET_MTIME_NOW = 1 << 8,
	X4_KILL_SUIDGID = 1 << 9, /* clear suid, and sgid where group-executable; drop security.capability */
	X4_TOUCH_CTIME = 1 << 10, /* ctime becomes now, even if nothing else is to be done */
	X4_KILL_SGID = 1 << 11,   /* with X4_KILL_SUIDGID: sgid in any case, because who does it is not of the file's group */
	X4_BY_ROOT = 1 << 13,     /* an ACL that follows the mode may use the reserved blocks */
	X4_KILL_CAPS = 1 << 12,   /* drop security.capability alone: a write by somebody who may keep set-ID bits */
};
/* A completed write: mtime and ctime now, lazily written. Any thread, never blocks. */
void x4_touch_write(struct x4_inode *inode);
/* A completed read: atime by the policy. Any thread, never blocks. */
void x4_touch_read(struct x4_inode *inode);
/* Writes back times changed without a handle (mtime of overwrites). Called by sync and every commit interval. */
int x4_vol_write_times(struct x4_vol *vol) FDIO_MAY_MISS;
/* Transaction that fsync (datasync: fdatasync, O_DSYNC) of this inode has to wait for; false if none. Writes lazily
 * changed times into a transaction first unless datasync. */
bool x4_sync_tid(struct x4_inode *inode, bool datasync, journal_tid *ret) FDIO_MAY_WAIT;
/* The same without writing times (x4_times_pending: there are some). Any thread, never block. */
bool x4_sync_tid_noted(struct x4_inode *inode, bool datasync, journal_tid *ret);
bool x4_times_pending(struct x4_inode *inode);

/* Who creates: for ownership of the new inode (setgid directories are handled inside). */
struct x4_cred {
	uint32_t uid, gid, umask;
	bool cap_fsetid;
	bool root;                    /* may use the reserved blocks */
	const uint32_t *groups;
	unsigned nr_groups;
};

/* ------------------------------------------------------------------ inside ext4 */
/* ---- cache.c ---- */
void x4_inodes_init(struct x4_vol *vol);
void x4_inodes_fini(struct x4_vol *vol);
/*
 * What the rooms above do to an inode; each sets its own while the volume opens: evict deletes it
 * (as x4_evict), forget_map drops its extent map, forget_names what is remembered of a directory.
 */
void x4_icache_set_evict(struct x4_vol *vol, int (*fn)(struct x4_inode *inode));
void x4_icache_set_forget_map(struct x4_vol *vol, void (*fn)(struct x4_inode *inode));
void x4_icache_set_forget_names(struct x4_vol *vol, void (*fn)(struct x4_inode *inode));
/* The cache's lock, which also guards the list of append windows; x4_iref for who holds it. */
void x4_icache_lock(struct x4_vol *vol);
void x4_icache_unlock(struct x4_vol *vol);
void x4_iref_locked(struct x4_inode *inode);
/* Nobody finds it any more, and nobody deletes it. Set by who alone has it. */
bool x4_inode_is_bad(const struct x4_inode *inode);
void x4_inode_set_bad(struct x4_inode *inode);
/* Any thread: files that are open; when it was left (0: never); references that somebody outside was told of. */
uint32_t x4_inode_nr_open(const struct x4_inode *inode);
uint64_t x4_inode_left_ns(const struct x4_inode *inode);
uint64_t x4_lookups(const struct x4_inode *inode);
bool x4_evictions_running(const struct x4_vol *vol);
/* Its tree was edited and the map follows, or the map was dropped: a handle that is cancelled forgets the map. */
void x4_inode_map_edited(struct x4_inode *inode);
/* inode/cache.c */
int x4_icache_init(struct x4_vol *vol);
/* Frees every inode whatever its references. */
void x4_icache_fini(struct x4_vol *vol);
/* Deletes every cached inode without a name, whatever its references (unmount). */
void x4_icache_evict_unlinked(struct x4_vol *vol) FDIO_MAY_WAIT;
/* x4_iget for reserved inodes (journal, orphan file) and for inodes with nlink 0 (orphans). */
int x4_iget_special(struct x4_vol *vol, uint32_t ino, struct x4_inode **ret) FDIO_MAY_MISS;
/* x4_iget for what an attribute says its value is in: whatever that is, it has a name, so that
 * nothing is deleted when the reference goes, as long as the caller's handle runs. Else -ENOENT. */
int x4_iget_value(struct x4_vol *vol, uint32_t ino, struct x4_inode **ret) FDIO_MAY_MISS;
/* Takes inode from the hash, inside the handle that frees its number. */
void x4_inode_unhash(struct x4_inode *inode);
void x4_inode_free(struct x4_inode *inode);
/*
 * A walk through the inodes in memory, in parts: goes on where the last one ended, through *left
 * buckets at most, fewer from then on, and ends early when it has found max. Not those that are
 * being loaded, deleted or changed. Both functions run under the cache's lock and do not block.
 * Each inode in ret has one more reference.
 */
struct x4_walk {
	bool (*wanted)(struct x4_inode *i, bool referenced, void *arg);
	void (*unreferenced)(struct x4_inode *i, void *arg); /* of those that are wanted: done here */
	void *arg;
};
unsigned x4_icache_walk(struct x4_vol *vol, const struct x4_walk *w, uint32_t *left,
			struct x4_inode **ret, unsigned max);
uint32_t x4_icache_walk_length(const struct x4_vol *vol); /* buckets of all of it */

/* ---- table.c ---- */
/* Opens raw for change in handle: on cancel raw, size, mode are put back and map is dropped. Idempotent within a handle. */
int x4_inode_begin(struct journal_handle *handle, struct x4_inode *inode);
/* Copies raw with its checksum into the inode table block; sets sync_tid, and datasync_tid if data_needed (size, extents). */
int x4_inode_dirty(struct journal_handle *handle, struct x4_inode *inode, bool data_needed) FDIO_MAY_MISS;
#define X4_CREDITS_INODE 1
/* fsync, and fdatasync if data_needed, wait for handle's transaction from now on. If handle is cancelled, needlessly. */
void x4_inode_note_tid(struct journal_handle *handle, struct x4_inode *inode, bool data_needed);

/* ---- fields.c and times.c ---- */
/* Whether a write has anything to kill (set-ID bits, capabilities): known to be nothing; noted so; unknown again. */
bool x4_killpriv_none(const struct x4_inode *inode);
void x4_killpriv_set_none(struct x4_inode *inode);
void x4_killpriv_forget(struct x4_inode *inode);
/* Times that are noted but not written, in ns; 0: none. Any thread. */
void x4_lazy_times(const struct x4_inode *inode, uint64_t *ret_write, uint64_t *ret_access);
/* Field access on raw with the high halves. Set size, mode and time: the caller holds attr. Add blocks takes it inside. */
uint64_t x4_raw_size(const struct x4_inode *inode);
void x4_raw_set_size(struct x4_inode *inode, uint64_t size); /* also the atomic copy */
void x4_raw_put_size(struct x4_inode *inode, uint64_t size); /* without it */
/* The atomic copy alone, which an append window may keep above it. attr held. */
void x4_size_store(struct x4_inode *inode, uint64_t size);
void x4_raw_set_mode(struct x4_inode *inode, uint32_t mode);
uint64_t x4_raw_blocks_512(const struct x4_inode *inode);
int x4_raw_add_blocks(struct x4_inode *inode, int64_t fs_blocks) FDIO_MAY_MISS; /* i_blocks, huge_file aware */
struct timespec x4_raw_get_time(const struct x4_inode *inode, unsigned which);
void x4_raw_set_time(struct x4_inode *inode, unsigned which_X4_SET, struct timespec ts); /* X4_SET_ATIME|MTIME|CTIME, clamped */
void x4_raw_set_born(struct x4_inode *inode, struct timespec ts); /* all of them: one operation has one time. attr held */
static inline struct timespec x4_time_from_ns(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / 1000000000), (long)(ns % 1000000000) };
}
/* These take attr inside. nlink: the caller applies the dir_nlink rule. rdev in Linux's 32-bit encoding. */
void x4_raw_set_nlink(struct x4_inode *inode, uint32_t nlink);
void x4_raw_set_rdev(struct x4_inode *inode, uint32_t rdev);
uint32_t x4_raw_rdev(const struct x4_inode *inode);
void x4_extent_init(struct x4_inode *inode); /* empty root in raw, EXTENTS_FL */

/* ---- new.c ---- */
/*
 * A new inode in h: allocated near dir, raw initialised (mode as given, owner by c with setgid rules, nlink 1, times,
 * generation, extent header and EXTENTS_FL for regular files and directories; a slow symlink calls x4_extent_init itself;
 * x4_raw_set_rdev for devices), in the cache with one reference. Not locked: nobody can reach it yet. Open for change
 * (x4_inode_begin) but not yet written: the caller calls x4_inode_dirty. On cancel it is freed and becomes bad; the
 * caller still drops its reference, after journal_cancel.
 */
uint16_t x4_extra_isize(const struct x4_vol *vol); /* its i_extra_isize */
int x4_inode_new(struct journal_handle *handle, struct x4_inode *dir, uint32_t mode, const struct x4_cred *credentials, struct x4_inode **ret)
	FDIO_MAY_MISS;
#define X4_CREDITS_INODE_NEW 4 /* bitmap, descriptor (at seal), table block, superblock */

/* ---- orphan_list.c ---- */
/* nlink went to 0 or a truncate is pending. Idempotent. */
int x4_orphan_add(struct journal_handle *handle, struct x4_inode *inode) FDIO_MAY_MISS;
int x4_orphan_del(struct journal_handle *handle, struct x4_inode *inode) FDIO_MAY_MISS;
/* Any thread: it is on the list; how many are. */
bool x4_orphan_listed(const struct x4_inode *inode);
uint32_t x4_orphans_count(const struct x4_vol *vol);
/* At mount: the list on disk begins with inode head. Part after part of it is read into memory, each inode
 * with a reference; x4_orphans_left says whether there is more. *ret_cut: what follows is damaged, and x4_orphans_cut
 * ends the list on disk before it. */
void x4_orphans_begin(struct x4_vol *vol, uint32_t head);
int x4_orphans_collect(struct x4_vol *vol, bool *ret_cut) FDIO_MAY_MISS;
int x4_orphans_cut(struct x4_vol *vol) FDIO_MAY_MISS;
bool x4_orphans_left(const struct x4_vol *vol);
struct x4_inode *x4_orphans_first(struct x4_vol *vol); /* NULL: none in memory */
/* Inside a handle: fn for each in memory. */
void x4_orphans_each(struct x4_vol *vol, void (*fn)(struct x4_inode *inode, void *arg), void *arg);
#define X4_CREDITS_ORPHAN 3

#endif
