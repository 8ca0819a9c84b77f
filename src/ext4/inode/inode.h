/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inode: the inodes in memory and on disk.
 *
 *   cache.c        one struct for each inode in use, with references; the end of those without a
 *   name begins here
 *   table.c        the disk inode: read, verified, opened for change in a handle, written
 *   fields.c       fields whose halves lie apart or that have a copy in memory
 *   times.c        times, also those changed without a handle; what fsync waits for
 *   new.c          a new inode, inside the handle of whoever creates a file
 *   orphan_list.c  the orphan list: its changes, and reading it at mount
 *   access.c       plain access to this state, for the rooms above
 *
 * References and plain questions: any thread, never blocks. Loading and what takes a handle:
 * workers, and loop threads in the mode of nowait.h. State: inode_state.h; the cache's is guarded
 * by its lock.
 */
#ifndef FDIO_EXT4_INODE_INODE_H
#define FDIO_EXT4_INODE_INODE_H

#include "base/nowait.h"
#include "ext4/alloc/alloc.h"

/*
 * A reference to the inode ino; gen non-NULL: must match or -ESTALE. -ENOENT: not in use or out of
 * range. A reference keeps the struct alive; the last one of an unlinked inode deletes it
 * (ext4_inode_put may block).
 */
int ext4_inode_get(struct ext4_vol *vol, uint32_t ino, const uint32_t *gen, struct ext4_inode **ret)
	FDIO_MAY_MISS;
/* Only if it is in memory: never blocks, NULL otherwise. */
struct ext4_inode *ext4_inode_get_cached(struct ext4_vol *vol, uint32_t ino);
struct ext4_inode *ext4_inode_ref(struct ext4_inode *inode);
/*
 * Drops n references. May delete the file's blocks; a loop thread, in the mode of nowait.h, leaves
 * that to a worker if it is much.
 */
void ext4_inode_put_many(struct ext4_inode *inode, uint64_t n) FDIO_MAY_WAIT;
static inline FDIO_MAY_WAIT void ext4_inode_put(struct ext4_inode *inode)
{
	if (inode)
		ext4_inode_put_many(inode, 1);
}
/*
 * fn is called, on any thread, not blocking, when a loop thread has left deletions to others:
 * ext4_vol_reap on a worker does them.
 */
void ext4_vol_set_reaper(struct ext4_vol *vol, void (*fn)(void *arg), void *arg);
void ext4_vol_reap(struct ext4_vol *vol) FDIO_MAY_WAIT;
/*
 * References that somebody outside was told of are counted, too: sub says how many of n there were.
 * Any thread, never blocks.
 */
void ext4_lookups_add(struct ext4_inode *inode, uint64_t n);
uint64_t ext4_lookups_sub(struct ext4_inode *inode, uint64_t n);
/* A file or directory is opened (1) or closed (-1). Any thread. */
void ext4_opened(struct ext4_inode *inode, int n);
/* Deletions that have ended: see ext4_eviction_since. */
uint64_t ext4_evictions(const struct ext4_vol *vol);

uint32_t ext4_inode_ino(const struct ext4_inode *inode);
uint32_t ext4_inode_gen(const struct ext4_inode *inode);
uint32_t ext4_inode_mode(const struct ext4_inode *inode); /* type and permissions */
uint64_t ext4_inode_size(const struct ext4_inode *inode); /* any thread, never blocks; atomic */
uint32_t ext4_inode_flags(struct ext4_inode *inode);      /* EXT4_*_FL */
/* Of these flags alone; any thread, never blocks: what every write asks. Numbers as on disk. */
enum {
	EXT4_LIVE_SYNC = 0x8,
	EXT4_LIVE_IMMUTABLE = 0x10,
	EXT4_LIVE_FLAGS = EXT4_LIVE_SYNC | EXT4_LIVE_IMMUTABLE
};
uint32_t ext4_inode_live_flags(const struct ext4_inode *inode);
struct ext4_vol *ext4_inode_vol(struct ext4_inode *inode);
/*
 * The content lies in the inode (inline_data): it has no map, and ext4_inline_read is how it is
 * read: bytes, 0 at the end, or -errno. Such volumes are only read. Any thread, never block.
 */
bool ext4_inode_inline(const struct ext4_inode *inode);
/*
 * A slot for the rooms above (dio: gate, in-flight counts). Set once; dtor runs when the inode is
 * freed.
 */
void *ext4_inode_upper(struct ext4_inode *inode);         /* any thread, never blocks */
/* returns the winner if raced */
void *ext4_inode_set_upper(struct ext4_inode *inode, void *p, void (*dtor)(void *));

/*
 * Serialises changes of one file against each other: shared for I/O inside the size, exclusive for
 * everything that moves the size, frees blocks or changes a directory. Worker threads only (may
 * wait for I/O).
 */
void ext4_inode_lock_shared(struct ext4_inode *inode) FDIO_BLOCKS;
void ext4_inode_lock_exclusive(struct ext4_inode *inode) FDIO_BLOCKS;
void ext4_inode_unlock(struct ext4_inode *inode);
/*
 * The same for what may run in the mode of nowait.h: -EAGAIN there if somebody is in the way, else
 * 0.
 */
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
	/* clear suid, and sgid where group-executable; drop security.capability */
	EXT4_KILL_SUIDGID = 1 << 9,
	EXT4_TOUCH_CTIME = 1 << 10, /* ctime becomes now, even if nothing else is to be done */
	/*
	 * with EXT4_KILL_SUIDGID: sgid in any case, because who does it is not of the file's group
	 */
	EXT4_KILL_SGID = 1 << 11,
	EXT4_BY_ROOT = 1 << 13, /* an ACL that follows the mode may use the reserved blocks */
	/* drop security.capability alone: a write by somebody who may keep set-ID bits */
	EXT4_KILL_CAPS = 1 << 12,
};
/* A completed write: mtime and ctime now, lazily written. Any thread, never blocks. */
void ext4_touch_write(struct ext4_inode *inode);
/* A completed read: atime by the policy. Any thread, never blocks. */
void ext4_touch_read(struct ext4_inode *inode);
/*
 * Writes back times changed without a handle (mtime of overwrites). Called by sync and every commit
 * interval.
 */
int ext4_vol_write_times(struct ext4_vol *vol) FDIO_MAY_MISS;
/*
 * Transaction that fsync (datasync: fdatasync, O_DSYNC) of this inode has to wait for; false if
 * none. Writes lazily changed times into a transaction first unless datasync.
 */
bool ext4_sync_tid(struct ext4_inode *inode, bool datasync, journal_tid *ret) FDIO_MAY_WAIT;
/* The same without writing times (ext4_times_pending: there are some). Any thread, never block. */
bool ext4_sync_tid_noted(struct ext4_inode *inode, bool datasync, journal_tid *ret);
bool ext4_times_pending(struct ext4_inode *inode);

/* Who creates: for ownership of the new inode (setgid directories are handled inside). */
struct ext4_credentials {
	uint32_t uid, gid, umask;
	bool cap_fsetid;
	bool root;                    /* may use the reserved blocks */
	const uint32_t *groups;
	unsigned nr_groups;
};

/* ------------------------------------------------------------------ inside ext4 */
/* ---- cache.c ---- */
void ext4_inodes_init(struct ext4_vol *vol);
void ext4_inodes_fini(struct ext4_vol *vol);
/*
 * What the rooms above do to an inode; each sets its own while the volume opens: evict deletes it
 * (as ext4_evict), forget_map drops its extent map, forget_names what is remembered of a directory.
 */
void ext4_inode_cache_set_evict(struct ext4_vol *vol, int (*fn)(struct ext4_inode *inode));
void ext4_inode_cache_set_forget_map(struct ext4_vol *vol, void (*fn)(struct ext4_inode *inode));
void ext4_inode_cache_set_forget_names(struct ext4_vol *vol, void (*fn)(struct ext4_inode *inode));
/*
 * The cache's lock, which also guards the list of append windows; ext4_inode_ref for who holds it.
 */
void ext4_inode_cache_lock(struct ext4_vol *vol);
void ext4_inode_cache_unlock(struct ext4_vol *vol);
void ext4_iref_locked(struct ext4_inode *inode);
/* Nobody finds it any more, and nobody deletes it. Set by who alone has it. */
bool ext4_inode_is_bad(const struct ext4_inode *inode);
void ext4_inode_set_bad(struct ext4_inode *inode);
/*
 * Any thread: files that are open; when it was left (0: never); references that somebody outside
 * was told of.
 */
uint32_t ext4_inode_nr_open(const struct ext4_inode *inode);
uint64_t ext4_inode_left_ns(const struct ext4_inode *inode);
uint64_t ext4_lookups(const struct ext4_inode *inode);
bool ext4_evictions_running(const struct ext4_vol *vol);
/*
 * Its tree was edited and the map follows, or the map was dropped: a handle that is cancelled
 * forgets the map.
 */
void ext4_inode_map_edited(struct ext4_inode *inode);
/* inode/cache.c */
int ext4_inode_cache_init(struct ext4_vol *vol);
/* Frees every inode whatever its references. */
void ext4_inode_cache_fini(struct ext4_vol *vol);
/* Deletes every cached inode without a name, whatever its references (unmount). */
void ext4_inode_cache_evict_unlinked(struct ext4_vol *vol) FDIO_MAY_WAIT;
/*
 * ext4_inode_get for reserved inodes (journal, orphan file) and for inodes with nlink 0 (orphans).
 */
int ext4_inode_get_special(struct ext4_vol *vol, uint32_t ino,
			   struct ext4_inode **ret) FDIO_MAY_MISS;
/*
 * ext4_inode_get for what an attribute says its value is in: whatever that is, it has a name, so
 * that nothing is deleted when the reference goes, as long as the caller's handle runs. Else
 * -ENOENT.
 */
int ext4_inode_get_value(struct ext4_vol *vol, uint32_t ino, struct ext4_inode **ret) FDIO_MAY_MISS;
/* Takes inode from the hash, inside the handle that frees its number. */
void ext4_inode_unhash(struct ext4_inode *inode);
void ext4_inode_free(struct ext4_inode *inode);
/*
 * A walk through the inodes in memory, in parts: goes on where the last one ended, through *left
 * buckets at most, fewer from then on, and ends early when it has found max. Not those that are
 * being loaded, deleted or changed. Both functions run under the cache's lock and do not block.
 * Each inode in ret has one more reference.
 */
struct ext4_walk {
	bool (*wanted)(struct ext4_inode *i, bool referenced, void *arg);
	/* of those that are wanted: done here */
	void (*unreferenced)(struct ext4_inode *i, void *arg);
	void *arg;
};
unsigned ext4_inode_cache_walk(struct ext4_vol *vol, const struct ext4_walk *w, uint32_t *left,
			struct ext4_inode **ret, unsigned max);
uint32_t ext4_inode_cache_walk_length(const struct ext4_vol *vol); /* buckets of all of it */

/* ---- table.c ---- */
/*
 * Opens raw for change in handle: on cancel raw, size, mode are put back and map is dropped.
 * Idempotent within a handle.
 */
int ext4_inode_begin(struct journal_handle *handle, struct ext4_inode *inode);
/*
 * Copies raw with its checksum into the inode table block; sets sync_tid, and datasync_tid if
 * data_needed (size, extents).
 */
int ext4_inode_dirty(struct journal_handle *handle, struct ext4_inode *inode,
		     bool data_needed) FDIO_MAY_MISS;
#define EXT4_CREDITS_INODE 1
/*
 * fsync, and fdatasync if data_needed, wait for handle's transaction from now on. If handle is
 * cancelled, needlessly.
 */
void ext4_inode_note_tid(struct journal_handle *handle, struct ext4_inode *inode, bool data_needed);

/* ---- fields.c and times.c ---- */
/*
 * Whether a write has anything to kill (set-ID bits, capabilities): known to be nothing; noted so;
 * unknown again.
 */
bool ext4_killpriv_none(const struct ext4_inode *inode);
void ext4_killpriv_set_none(struct ext4_inode *inode);
void ext4_killpriv_forget(struct ext4_inode *inode);
/* Times that are noted but not written, in ns; 0: none. Any thread. */
void ext4_lazy_times(const struct ext4_inode *inode, uint64_t *ret_write, uint64_t *ret_access);
/*
 * Field access on raw with the high halves. Set size, mode and time: the caller holds attr. Add
 * blocks takes it inside.
 */
uint64_t ext4_raw_size(const struct ext4_inode *inode);
void ext4_raw_set_size(struct ext4_inode *inode, uint64_t size); /* also the atomic copy */
void ext4_raw_put_size(struct ext4_inode *inode, uint64_t size); /* without it */
/* The atomic copy alone, which an append window may keep above it. attr held. */
void ext4_size_store(struct ext4_inode *inode, uint64_t size);
void ext4_raw_set_mode(struct ext4_inode *inode, uint32_t mode);
uint64_t ext4_raw_blocks_512(const struct ext4_inode *inode);
/* i_blocks, huge_file aware */
int ext4_raw_add_blocks(struct ext4_inode *inode, int64_t fs_blocks) FDIO_MAY_MISS;
struct timespec ext4_raw_get_time(const struct ext4_inode *inode, unsigned which);
/* EXT4_SET_ATIME|MTIME|CTIME, clamped */
void ext4_raw_set_time(struct ext4_inode *inode, unsigned which, struct timespec ts);
/* all of them: one operation has one time. attr held */
void ext4_raw_set_born(struct ext4_inode *inode, struct timespec ts);
static inline struct timespec ext4_time_from_ns(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / 1000000000), (long)(ns % 1000000000) };
}
/*
 * These take attr inside. nlink: the caller applies the dir_nlink rule. rdev in Linux's 32-bit
 * encoding.
 */
void ext4_raw_set_nlink(struct ext4_inode *inode, uint32_t nlink);
void ext4_raw_set_rdev(struct ext4_inode *inode, uint32_t rdev);
uint32_t ext4_raw_rdev(const struct ext4_inode *inode);
void ext4_extent_init(struct ext4_inode *inode); /* empty root in raw, EXTENTS_FL */

/* ---- new.c ---- */
/*
 * A new inode in h: allocated near dir, raw initialised (mode as given, owner by c with setgid
 * rules, nlink 1, times, generation, extent header and EXTENTS_FL for regular files and
 * directories; a slow symlink calls ext4_extent_init itself; ext4_raw_set_rdev for devices), in the
 * cache with one reference. Not locked: nobody can reach it yet. Open for change (ext4_inode_begin)
 * but not yet written: the caller calls ext4_inode_dirty. On cancel it is freed and becomes bad;
 * the caller still drops its reference, after journal_cancel.
 */
uint16_t ext4_extra_isize(const struct ext4_vol *vol); /* its i_extra_isize */
int ext4_inode_new(struct journal_handle *handle, struct ext4_inode *dir, uint32_t mode,
		   const struct ext4_credentials *credentials,
		   struct ext4_inode **ret) FDIO_MAY_MISS;
#define EXT4_CREDITS_INODE_NEW 4 /* bitmap, descriptor (at seal), table block, superblock */

/* ---- orphan_list.c ---- */
/* nlink went to 0 or a truncate is pending. Idempotent. */
int ext4_orphan_add(struct journal_handle *handle, struct ext4_inode *inode) FDIO_MAY_MISS;
int ext4_orphan_del(struct journal_handle *handle, struct ext4_inode *inode) FDIO_MAY_MISS;
/* Any thread: it is on the list; how many are. */
bool ext4_orphan_listed(const struct ext4_inode *inode);
uint32_t ext4_orphans_count(const struct ext4_vol *vol);
/*
 * At mount: the list on disk begins with inode head. Part after part of it is read into memory,
 * each inode with a reference; ext4_orphans_left says whether there is more. *ret_cut: what follows
 * is damaged, and ext4_orphans_cut ends the list on disk before it.
 */
void ext4_orphans_begin(struct ext4_vol *vol, uint32_t head);
int ext4_orphans_collect(struct ext4_vol *vol, bool *ret_cut) FDIO_MAY_MISS;
int ext4_orphans_cut(struct ext4_vol *vol) FDIO_MAY_MISS;
bool ext4_orphans_left(const struct ext4_vol *vol);
struct ext4_inode *ext4_orphans_first(struct ext4_vol *vol); /* NULL: none in memory */
/* Inside a handle: fn for each in memory. */
void ext4_orphans_each(struct ext4_vol *vol, void (*fn)(struct ext4_inode *inode, void *arg),
		       void *arg);
#define EXT4_CREDITS_ORPHAN 3

#endif
