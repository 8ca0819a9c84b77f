/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inode, for the rooms of ext4: the cache and the orphan list as a whole. The rooms above register
 * functions here that delete an inode or drop their own state of it; volume opens and closes.
 *
 * Unless a comment says otherwise: any thread, never blocks, cannot fail. What is called while the
 * volume opens or closes runs on that one thread.
 */
#ifndef FDIO_EXT4_INODE_INODE_CACHE_H
#define FDIO_EXT4_INODE_INODE_CACHE_H

#include "ext4/inode/inode.h"

/* ---- cache.c ---- */
/* The room's locks and lists: init comes before and fini after every other call of the room. */
void ext4_inodes_init(struct ext4_vol *vol);
void ext4_inodes_fini(struct ext4_vol *vol);
/*
 * The hash: -ENOMEM. fini frees every inode, whatever references it has; no other thread uses vol
 * then. It does nothing if there is no hash.
 */
int ext4_inode_cache_init(struct ext4_vol *vol);
void ext4_inode_cache_fini(struct ext4_vol *vol);
/*
 * Called while the volume closes, before ext4_inode_cache_fini: deletes every inode in memory that
 * has no name, whatever references it has.
 */
void ext4_inode_cache_evict_unlinked(struct ext4_vol *vol) FDIO_MAY_WAIT;
/*
 * What the rooms above do to an inode; each sets its own function while the volume opens. evict
 * (life) deletes it, 0 or -errno; forget_map (data) drops its extent map; forget_names (dir) drops
 * what is remembered of a directory.
 */
void ext4_inode_cache_set_evict(struct ext4_vol *vol, int (*fn)(struct ext4_inode *inode));
void ext4_inode_cache_set_forget_map(struct ext4_vol *vol, void (*fn)(struct ext4_inode *inode));
void ext4_inode_cache_set_forget_names(struct ext4_vol *vol, void (*fn)(struct ext4_inode *inode));
/*
 * The cache's lock, which also guards data's list of append windows. ref_locked takes one more
 * reference to an inode that has one; the caller holds the lock.
 */
void ext4_inode_cache_lock(struct ext4_vol *vol);
void ext4_inode_cache_unlock(struct ext4_vol *vol);
void ext4_inode_ref_locked(struct ext4_inode *inode);
/*
 * A walk through the inodes in memory, in parts: each call goes on in the bucket of the hash where
 * the last one ended. *left is how many buckets to go through at most, and is counted down; a call
 * ends early when it has found max inodes or has held the lock long enough. It leaves out inodes
 * that are being loaded, deleted or changed. wanted and unreferenced run under the cache's lock and
 * must not block. ret gets the wanted inodes that are referenced, each with one more reference,
 * which the caller drops; for a wanted inode without references unreferenced is called instead.
 * Returns how many inodes ret got.
 */
struct ext4_walk {
	bool (*wanted)(struct ext4_inode *inode, bool referenced, void *arg);
	void (*unreferenced)(struct ext4_inode *inode, void *arg);
	void *arg;
};
unsigned ext4_inode_cache_walk(struct ext4_vol *vol, const struct ext4_walk *walk, uint32_t *left,
			       struct ext4_inode **ret, unsigned max);
uint32_t ext4_inode_cache_walk_length(const struct ext4_vol *vol); /* buckets in the whole hash */
/* Takes inode out of the hash, inside the handle that frees its number. */
void ext4_inode_unhash(struct ext4_inode *inode);
/* Frees a struct that is in no hash and to which nobody else has a pointer. No lock is held. */
void ext4_inode_free(struct ext4_inode *inode);

/* ---- get.c ---- */
/* As ext4_inode_get, but also reserved inodes (journal, orphan file) and those without a name. */
int ext4_inode_get_special(struct ext4_vol *vol, uint32_t ino,
			   struct ext4_inode **ret) FDIO_MAY_MISS;
/*
 * As ext4_inode_get, for the inode in which the value of an attribute is said to lie. -ENOENT also
 * if it has lost its name, so that dropping the reference inside the same handle never deletes it.
 * The caller checks that the inode does hold a value.
 */
int ext4_inode_get_value(struct ext4_vol *vol, uint32_t ino, struct ext4_inode **ret) FDIO_MAY_MISS;

/* ---- access.c ---- */
/* No lookup finds a bad inode; its last reference frees it instead of deleting it. */
bool ext4_inode_is_bad(const struct ext4_inode *inode);
void ext4_inode_set_bad(struct ext4_inode *inode); /* the caller has the only reference */
uint32_t ext4_inode_nr_open(const struct ext4_inode *inode);
/* The fdio_now_ns of its last close, or of the loss of its last name while open; 0: never. */
uint64_t ext4_inode_left_ns(const struct ext4_inode *inode);
uint64_t ext4_lookups(const struct ext4_inode *inode); /* references that the kernel holds */
bool ext4_evictions_running(const struct ext4_vol *vol);

/* ---- lazy_times.c ---- */
/*
 * Writes the times of all inodes that were noted without a handle; for sync, and once in each
 * commit interval. Returns the first error. Times that were not written are noted again.
 */
int ext4_vol_write_times(struct ext4_vol *vol) FDIO_MAY_MISS;

/* ---- orphan_list.c ---- */
uint32_t ext4_orphans_count(const struct ext4_vol *vol); /* inodes on the list in memory */
/*
 * At mount, on the thread that opens the volume. begin: the list on disk starts with the inode
 * head. collect reads the next part of it into memory; the caller owns one reference to each inode.
 * left says whether there is more. If *ret_cut, what follows on disk is damaged, and the caller
 * ends the list there with cut. collect: -ENOMEM or -EIO; cut: -errno of its handle.
 */
void ext4_orphans_begin(struct ext4_vol *vol, uint32_t head);
int ext4_orphans_collect(struct ext4_vol *vol, bool *ret_cut) FDIO_MAY_MISS;
int ext4_orphans_cut(struct ext4_vol *vol) FDIO_MAY_MISS;
bool ext4_orphans_left(const struct ext4_vol *vol);
struct ext4_inode *ext4_orphans_first(struct ext4_vol *vol); /* NULL: none in memory */
/* Calls fn for each inode of the list in memory. Inside a handle, which guards the list. */
void ext4_orphans_each(struct ext4_vol *vol, void (*fn)(struct ext4_inode *inode, void *arg),
		       void *arg);

#endif
