/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inode, for the rooms of ext4: the cache and the orphan list as a whole. The rooms above say here
 * how an inode is deleted and its map dropped; volume opens and closes.
 */
#ifndef FDIO_EXT4_INODE_INODE_CACHE_H
#define FDIO_EXT4_INODE_INODE_CACHE_H

#include "ext4/inode/inode.h"

/* ---- cache.c ---- */
/* Locks and lists, before and after everything else of the room. */
void ext4_inodes_init(struct ext4_vol *vol);
void ext4_inodes_fini(struct ext4_vol *vol);
/* The hash: -ENOMEM. fini frees every inode whatever its references; nobody else uses vol. */
int ext4_inode_cache_init(struct ext4_vol *vol);
void ext4_inode_cache_fini(struct ext4_vol *vol);
/* Before that: deletes every inode in memory that has no name, whatever its references. */
void ext4_inode_cache_evict_unlinked(struct ext4_vol *vol) FDIO_MAY_WAIT;
/*
 * What the rooms above do to an inode; each sets its own while the volume opens. evict (life)
 * deletes it, forget_map (data) drops its extent map, forget_names (dir) drops what is remembered
 * of a directory.
 */
void ext4_inode_cache_set_evict(struct ext4_vol *vol, int (*fn)(struct ext4_inode *inode));
void ext4_inode_cache_set_forget_map(struct ext4_vol *vol, void (*fn)(struct ext4_inode *inode));
void ext4_inode_cache_set_forget_names(struct ext4_vol *vol, void (*fn)(struct ext4_inode *inode));
/*
 * The cache's lock, which also guards data's list of append windows. iref_locked: one more
 * reference of an inode that has one, for a caller that holds the lock.
 */
void ext4_inode_cache_lock(struct ext4_vol *vol);
void ext4_inode_cache_unlock(struct ext4_vol *vol);
void ext4_iref_locked(struct ext4_inode *inode);
/*
 * A walk through the inodes in memory, in parts: it goes on in the bucket where the last call
 * ended. *left is how many buckets to go through at most, and is counted down; the walk ends early
 * when it has found max inodes. It leaves out inodes that are being loaded, deleted or changed.
 * wanted and unreferenced run under the cache's lock and must not block. ret gets the wanted inodes
 * that are referenced, each with one more reference; for the others unreferenced is called.
 */
struct ext4_walk {
	bool (*wanted)(struct ext4_inode *inode, bool referenced, void *arg);
	void (*unreferenced)(struct ext4_inode *inode, void *arg);
	void *arg;
};
unsigned ext4_inode_cache_walk(struct ext4_vol *vol, const struct ext4_walk *walk, uint32_t *left,
			       struct ext4_inode **ret, unsigned max);
uint32_t ext4_inode_cache_walk_length(const struct ext4_vol *vol); /* buckets of all of it */
/* Takes inode from the hash, inside the handle that frees its number. */
void ext4_inode_unhash(struct ext4_inode *inode);
/* Frees a struct that is in no hash and that nobody else has. */
void ext4_inode_free(struct ext4_inode *inode);

/* ---- get.c ---- */
/* ext4_inode_get also for reserved inodes (journal, orphan file) and without a name (orphans). */
int ext4_inode_get_special(struct ext4_vol *vol, uint32_t ino,
			   struct ext4_inode **ret) FDIO_MAY_MISS;
/*
 * ext4_inode_get for the inode that an attribute says its value is in. The inode has a name, so
 * dropping the reference in the same handle deletes nothing; else -ENOENT. The caller checks that
 * it holds a value.
 */
int ext4_inode_get_value(struct ext4_vol *vol, uint32_t ino, struct ext4_inode **ret) FDIO_MAY_MISS;

/* ---- access.c ---- */
/* A bad inode is found by nobody, and is freed, not deleted, on its last reference. */
bool ext4_inode_is_bad(const struct ext4_inode *inode);
void ext4_inode_set_bad(struct ext4_inode *inode); /* the caller alone has it */
uint32_t ext4_inode_nr_open(const struct ext4_inode *inode);
/* When it was closed last, or lost its last name while it was open (fdio_now_ns); 0: never. */
uint64_t ext4_inode_left_ns(const struct ext4_inode *inode);
uint64_t ext4_lookups(const struct ext4_inode *inode);
bool ext4_evictions_running(const struct ext4_vol *vol);

/* ---- lazy_times.c ---- */
/*
 * Writes the times of all inodes that were noted without a handle: for sync, and each commit
 * interval. The first error; times that were not written are noted again.
 */
int ext4_vol_write_times(struct ext4_vol *vol) FDIO_MAY_MISS;

/* ---- orphan_list.c ---- */
uint32_t ext4_orphans_count(const struct ext4_vol *vol); /* any thread */
/*
 * At mount: the list on disk begins with inode head. collect reads the next part of it into memory,
 * each inode with a reference that is the caller's; left says whether there is more. *ret_cut: what
 * follows is damaged, and the caller ends the list on disk before it with cut. -ENOMEM, -EIO.
 */
void ext4_orphans_begin(struct ext4_vol *vol, uint32_t head);
int ext4_orphans_collect(struct ext4_vol *vol, bool *ret_cut) FDIO_MAY_MISS;
int ext4_orphans_cut(struct ext4_vol *vol) FDIO_MAY_MISS;
bool ext4_orphans_left(const struct ext4_vol *vol);
struct ext4_inode *ext4_orphans_first(struct ext4_vol *vol); /* NULL: none in memory */
/* Calls fn for each inode on the list in memory. Inside a handle, which guards the list. */
void ext4_orphans_each(struct ext4_vol *vol, void (*fn)(struct ext4_inode *inode, void *arg),
		       void *arg);

#endif
