/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Calls among the files of the volume part and the inode part of the ext4 room; nobody else includes it.
 */
#ifndef FDIO_EXT4_X4_VOLUME_H
#define FDIO_EXT4_X4_VOLUME_H

#include "ext4/ext4_types.h"

/* core/io.c: the manager through which libext2fs reads; x4_io_open_fs sets the device for the time of the call. */
long x4_io_open_fs(struct dev *dev, ext2_filsys *ret);

/* volume/features.c */
enum x4_verdict { X4_SERVE_RW, X4_SERVE_RO, X4_REFUSE };
/* What the features of sb (disk order) allow. *ret_why: static string for RO, else NULL; errbuf for a refusal. */
enum x4_verdict x4_features_check(const struct ext2_super_block *sb, const char *devname, const char **ret_why, char *errbuf,
				  size_t errlen);

/* core/superblock.c */
/* The superblock straight from the device, 1024 bytes; checks magic and checksum. */
int x4_super_read(struct dev *dev, struct ext2_super_block *ret, char *errbuf, size_t errlen);
/* Changes it straight on the device, with its checksum, and flushes: only while no journal runs. */
int x4_super_update_raw(struct dev *dev, void (*change)(struct ext2_super_block *sb, void *arg), void *arg);
int x4_super_write_raw(struct dev *dev, const struct ext2_super_block *torn, void (*change)(struct ext2_super_block *sb, void *arg),
		       void *arg);
/* core/superblock_torn.c: sb, as x4_super_read has left it, fails by its checksum: completed on the device if it was torn. */
int x4_super_complete_torn(struct dev *dev, const struct ext2_super_block *sb);
void x4_super_csum_set(struct ext2_super_block *sb);
bool x4_super_csum_ok(const struct ext2_super_block *sb);
/* What no file may own: what the groups say, then the log. -ENOMEM. */
int x4_zones_init(struct x4_vol *v);
int x4_zones_add_log(struct x4_vol *v, const struct jnl_extent *log, unsigned nr_log);
/* The bitmap map of nbits blocks from start marks all that must never be given to a file: bitmaps, tables, descriptors, the log. */
bool x4_zones_marked(struct x4_vol *v, uint64_t start, uint32_t nbits, const uint8_t *map);
uint64_t x4_overhead(struct x4_vol *v);
/* Blocks of group g that its own static metadata takes: super, descriptors and reserved descriptors: [start, start+n). */
unsigned x4_group_base_ranges(struct x4_vol *v, uint32_t g, struct jnl_extent ret[3]);
static inline uint64_t x4_sb_r_blocks(const struct ext2_super_block *sb)
{
	return sb->s_r_blocks_count | ((sb->s_feature_incompat & EXT4_FEATURE_INCOMPAT_64BIT) ?
				       (uint64_t)sb->s_r_blocks_count_hi << 32 : 0);
}

/* core/errors.c */
void x4_error_init(struct x4_vol *v);
/* Writes noted errors into the superblock: through a handle if the journal lives, else straight. May block. */
void x4_error_write(struct x4_vol *v);
/* The same at unmount: what could not be written before, too. */
void x4_error_write_last(struct x4_vol *v);
/* The journal aborts with err: noted for the superblock, and read-only from now on. Any thread, no lock of rank leaf. */
void x4_error_aborted(struct x4_vol *v, int err);

/* volume/mmp.c */
/* Takes the file system for this host, which can take seconds; afterwards a thread renews the mark. No-op without the feature, or if it
 * runs already. 0 or -errno (-EBUSY: another host has it) with one line in errbuf. Main thread, before anything is written. */
int x4_mmp_start(struct x4_vol *v, char *errbuf, size_t errlen);
/* Gives it back, when everything is on the device. No-op if not started. */
void x4_mmp_stop(struct x4_vol *v);
/* Another host has it: stops writing at once. */
void x4_mmp_lost(struct x4_vol *v);

/* volume/ticker.c: once everything is open. 0 or -errno. */
int x4_ticker_start(struct x4_vol *v);
void x4_ticker_end(struct x4_vol *v); /* nothing to do if it does not run */

/* alloc/groups.c */
uint64_t x4_groups_free_on_disk(struct x4_vol *v); /* as the descriptors count */

/* inode/cache.c */
int x4_icache_init(struct x4_vol *v);
/* The rooms above the cache tell it what they do to an inode. First of all. */
void x4_data_init(struct x4_vol *v);
void x4_life_init(struct x4_vol *v);
void x4_dir_init(struct x4_vol *v);
/* Frees every inode whatever its references. */
void x4_icache_fini(struct x4_vol *v);
/* Deletes every cached inode without a name, whatever its references (unmount). */
void x4_icache_evict_unlinked(struct x4_vol *v);
/* inode/table.c: reads the disk inode of i into raw, verified. special: reserved inodes and nlink 0 too. */
int x4_inode_read(struct x4_inode *i, bool special);
bool x4_above_mark(struct x4_vol *v, uint32_t ino); /* in a part of the table that the descriptor calls unused */
void x4_inode_set_seed(struct x4_inode *i);
void x4_inode_sync_copies(struct x4_inode *i); /* the atomic copies from raw */
struct x4_inode *x4_inode_alloc(struct x4_vol *v, uint32_t ino);
void x4_inode_free(struct x4_inode *i);
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
unsigned x4_icache_walk(struct x4_vol *v, const struct x4_walk *w, uint32_t *left,
			struct x4_inode **ret, unsigned max);
uint32_t x4_icache_walk_length(const struct x4_vol *v); /* buckets of all of it */
/* Takes i from the hash, inside the handle that frees its number. */
void x4_inode_unhash(struct x4_inode *i);
/* Puts a fresh inode into the hash with one reference; waits for a reader of that number to leave. -EUCLEAN: it is in use. */
int x4_inode_hash_new(struct x4_inode *i);
/* Deletes i: blocks, attributes, number. i->evicting is set, nobody else has it. 0 if it is unhashed now. */
int x4_evict(struct x4_inode *i);

/* inode/times.c */
/* For comparing only: what 64 bits of nanoseconds cannot hold is the end of the scale. */
static inline int64_t x4_time_ns(struct timespec ts)
{
	if (ts.tv_sec >= INT64_MAX / 1000000000 - 1)
		return INT64_MAX;
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}
static inline struct timespec x4_time_from_ns(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / 1000000000), (long)(ns % 1000000000) };
}
struct timespec x4_raw_get_time(const struct x4_inode *i, unsigned which);
/* Moves lazily noted times into raw; true if there were any. attr held. */
bool x4_fold_lazy(struct x4_inode *i);
bool x4_has_lazy(const struct x4_inode *i);

/* life/orphans.c */
int x4_orphans_process(struct x4_vol *v);
/* life/orphan_file.c: what a kernel mount left in the orphan file. */
int x4_orphan_file_process(struct x4_vol *v);
void x4_orphan_finish(struct x4_vol *v, struct x4_inode *i); /* delete or truncate one; drops the reference */

/*
 * Around the journal's life: the thread of the option discard (alloc/discard.c). Stopping does what is
 * queued.
 */
int x4_discard_start(struct x4_vol *v);
void x4_discard_stop(struct x4_vol *v);

#endif
