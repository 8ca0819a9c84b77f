/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Struct bodies and calls between the parts of the ext4 room. Included only inside src/ext4 (and by its unit tests).
 *
 * Lock order inside the room: rename < inode.rw < inode.map_lock < journal handle < alloc < icache < attr.
 * So: lock inodes, then jnl_begin, then change. Nobody takes inode.rw or map_lock inside a handle.
 */
#ifndef FDIO_EXT4_X4_TYPES_H
#define FDIO_EXT4_X4_TYPES_H

#include "base/list.h"
#include "base/work.h"
#include "ext4/ext4.h"

#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>

struct x4_group; /* alloc/groups.c */
struct x4_region;
struct x4_map_note; /* data/extent.c */
struct x4_map;   /* data/map.c: immutable snapshot, published by pointer, retired through epochs */

struct x4_vol {
	struct dev *dev;
	struct jnl *jnl;
	ext2_filsys fs;             /* opened read-only through our io_manager bridge; used for super, group_desc, geometry, dirhash */
	struct x4_options opt;
	unsigned block_bits;        /* log2 of the block size */
	uint32_t block_size, inode_size;
	uint64_t nr_blocks;
	uint32_t nr_inodes, nr_groups, first_data_block, blocks_per_group, inodes_per_group, first_ino;
	bool has_csum;              /* metadata_csum */
	bool has_gdt_csum;          /* uninit_bg: crc16 of descriptors only */
	bool has_64bit, has_filetype, has_dir_index, has_large_dir, has_dir_nlink, has_extents, has_ea_inode;
	bool has_ext_attr;          /* attributes are there, says the superblock; changed and read inside handles only */
	uint32_t csum_seed;
	bool read_only;             /* atomic; set once by errors or abort */
	struct x4_discard *discard; /* alloc/discard.c's, NULL without the option */
	struct x4_mmp *mmp;         /* volume/mmp.c's, NULL without the feature or when nothing is written */
	bool mmp_lost;              /* atomic: another host has the file system, nothing may be written any more */
	bool shut_down;             /* atomic; set once by x4_vol_shutdown */
	bool mounting;              /* x4_vol_open runs: x4_iget serves the journal and other reserved inodes too */
	uint32_t desc_size, inodes_per_block, itable_blocks;
	uint64_t sb_blk;            /* the block that holds the primary superblock, and where in it */
	uint32_t sb_off;
	uint16_t mount_state;       /* s_state as found; error bits are added */
	char label[X4_LABEL_MAX]; /* alloc_lock */
	uint64_t static_blocks;     /* superblocks, descriptors, bitmaps, inode tables */
	uint64_t overhead;          /* blocks that statfs hides: metadata and the log */
	struct x4_zone *zones;      /* alloc/zones.c: ranges of blocks that no file may own; sorted, disjoint */
	unsigned nr_zones;

	struct fdio_mutex rename_lock;

	/* groups (alloc/groups.c): guarded by alloc_lock unless said otherwise there */
	struct fdio_mutex alloc_lock;
	struct x4_group *groups;
	struct x4_region *regions;  /* sums of neighbouring groups */
	uint32_t nr_regions;
	pthread_cond_t alloc_cond;  /* a group was loaded; freed blocks became reusable */
	struct list dirty_groups;   /* to be sealed */
	struct list images;         /* groups with an allocation image, oldest first */
	uint32_t nr_images, max_images;
	/* Clear bits of all allocation images; set aside by x4_meta_reserve; freed but not durable. See alloc/blocks.c. */
	uint64_t free_blocks, meta_held, pending_free;
	uint64_t nr_given_back;     /* of those that were freed: reusable, ever; only grows */
	uint64_t root_blocks, resv_blocks; /* only for root; only for metadata */
	jnl_tid last_free_tid;
	uint32_t free_inodes, nr_dirs;
	uint32_t nr_bad_groups, first_bad_group; /* of damaged descriptors: then the volume is only read; from mount on */

	/* inode cache (inode/cache.c): guarded by icache_lock */
	struct fdio_mutex icache_lock;
	struct list *ihash;
	unsigned ihash_bits, nr_inodes_cached, ilru_len, ilru_max;
	struct list ilru;           /* unreferenced inodes, oldest first */
	struct list windows;        /* inodes with an append window */
	struct list reap;           /* evicting, left to x4_vol_reap; through lru */
	unsigned nr_reap;           /* atomic: of these; grows and shrinks under the lock */
	void (*reaper)(void *arg);
	void *reaper_arg;
	pthread_cond_t icache_cond;
	/* What the rooms above do to an inode, each set by its room while the volume opens. */
	int (*evict)(struct x4_inode *i);        /* deletes it (life) */
	void (*forget_map)(struct x4_inode *i);  /* its extent map, which may be wrong or goes with it (data) */
	void (*forget_names)(struct x4_inode *i); /* what is remembered of a directory (dir) */
	jnl_tid gone_tid;           /* newest transaction that changed an inode which has left memory since */
	bool has_gone_tid;

	uint32_t dir_places;        /* atomic: names in the tables of dir/linear.c */
	uint32_t dir_budget;        /* as many as there may be */
#define X4_DIR_BUDGET (1u << 23)

	/* orphans (inode/orphan_list.c): head of the on-disk list and the in-memory list in the same order; guarded by the journal handle */
	struct list orphans;
	uint32_t orphan_rest;       /* where the list on disk goes on behind what is in memory */
	/* what x4_eviction_since looks at; atomic */
	uint32_t nr_orphans;        /* inodes on the list */
	uint32_t nr_evicting;       /* deletions under way */
	uint64_t nr_evicted;        /* deletions that have ended */
	bool (*held)(void *arg, uint32_t ino);
	void *held_arg;
	bool asking;                /* atomic: somebody asks held */
	bool (*reclaim)(void *arg); /* closes append windows */
	void *reclaim_arg;
	uint64_t win_blocks;        /* atomic: what append windows hold ahead of the tree */

	/* xattr/value.c: references to inodes that hold attribute values, to be dropped; changed inside handles only */
	struct list ea_refs;
	bool ea_refs_kept;          /* atomic: there are some */

	/* lazily changed times: inodes whose lazy_* differ from raw; lock-free stack, taken whole by x4_vol_write_times */
	struct x4_inode *lazy_head;

	/* data/map_evict.c */
	size_t map_budget;          /* bytes that extent maps may take */
	uint32_t map_newest;        /* atomic: the inode whose map was loaded last */
	uint32_t walk_hand;         /* bucket of ihash where x4_icache_walk goes on */
	uint64_t map_rest_ns;       /* atomic: all are in use, it does not look again before */
	bool map_wanted;            /* they take too much; ticker_lock */

	/* periodic work (lazy times, maps): volume/ticker.c */
	pthread_t ticker;
	bool ticker_on, ticker_stop;
	bool ticker_writes;         /* mounted read-write */
	struct fdio_mutex ticker_lock;
	pthread_cond_t ticker_cond;

	/* core/errors.c: errors noted but not yet in the superblock; guarded by err_lock */
	struct fdio_mutex err_lock;
	struct x4_error_note { uint64_t blk; uint32_t ino, count; uint32_t time; uint8_t code; char func[32]; } err_first, err_last;
	bool err_pending;           /* atomic: the ticker writes it down */
	bool err_damaged;           /* atomic: damage, noted already, makes the journal abort */
};

struct x4_inode {
	struct x4_vol *vol;
	uint32_t ino;
	uint32_t gen;
	uint32_t csum_seed;         /* crc32c(crc32c(fs seed, ino), gen): inode, extent block and dir block checksums */

	/* cache: guarded by vol->icache_lock */
	struct list hash, lru;
	uint64_t refs;
	uint64_t lookups;           /* atomic; of refs, those the kernel has to give back */
	bool loading, evicting, bad;
	bool zombie;                /* gone but for its place on vol->lazy_head: whoever takes it from there frees it */
	uint32_t nr_open;           /* atomic: open files, as x4_opened was told */
	uint64_t left_ns;           /* atomic: when it was closed, or lost its last name while it was open; 0: never */
	bool on_orphans;            /* atomic: on vol->orphans */
	struct jnl_handle *begun;   /* the handle that has raw open (x4_inode_begin) */

	struct fdio_rwlock rw;      /* RANK_X4_INODE, see x4_inode_lock_* */
	struct fdio_mutex map_lock; /* RANK_X4_MAP: changes of the extent tree and of map */
	struct fdio_mutex attr;     /* RANK_X4_ATTR: raw for reading by x4_getattr while it is changed; never across I/O */

	/*
	 * The disk inode, inode_size bytes (at least 256 allocated, zero beyond), little-endian as on disk. Changed only
	 * inside a handle, between x4_inode_begin and x4_inode_dirty, with rw held exclusively or map_lock held (extent root,
	 * i_blocks) or rw held and attr taken for the store (size, times).
	 */
	struct ext2_inode_large *raw;
	uint64_t size;              /* atomic copy of i_size: readers on loop threads */
	uint32_t mode;              /* atomic copy of i_mode */
	uint32_t live_flags;        /* atomic copy of X4_LIVE_FLAGS of i_flags */
	uint32_t nlink;             /* atomic copy of i_links_count (x4_raw_set_nlink) */
	int64_t atime_ns, mtime_ns, ctime_ns; /* atomic copies of the times in raw: for relatime without a lock */

	struct x4_map *map;         /* atomic; NULL: not in memory */
	bool map_used;              /* atomic: looked at since data/map_evict.c came by */
	uint32_t map_edits;         /* atomic; edits of the tree that map was told of, and drops */

	struct x4_map_note *map_note; /* what the handle that is open has mapped and readers must not see yet; map_lock */

	/* Times changed without a handle: CLOCK_REALTIME in ns, 0 = none; atomic. Stored only when the coarse clock moved, so
	 * that overwriting threads do not fight for the line. */
	uint64_t lazy_wtime_ns, lazy_atime_ns;
	uint32_t lazy_queued;       /* atomic: on vol->lazy_head */
	struct x4_inode *lazy_next;

	/* Transactions that fsync and fdatasync have to wait for; atomic; valid where the flag is set. */
	jnl_tid sync_tid, datasync_tid;
	bool has_sync_tid, has_datasync_tid;

	struct list orphan;         /* on vol->orphans while on the orphan list */
	bool trimmed;               /* no data lies behind the size: it was looked for; guarded by rw */
	bool untrimmed;             /* a truncate failed on the way: old blocks lie behind the size (x4_truncate_finish); guarded by rw */
	bool moved;                 /* atomic: a directory whose ".." has changed since x4_dir_moved was asked */
	uint32_t killpriv_cache;    /* atomic: 0 unknown, 1 nothing to kill, 2 something may be */
	void *upper;                /* atomic; rooms above */
	void (*upper_dtor)(void *);
	bool linkable;              /* names part: made by x4_tmpfile, so x4_link may give it a name; guarded by rw */
	struct x4_dirstate *dirstate; /* names part: cached facts of a directory (linear dirs: name hash; insertion hint) */
	uint32_t alloc_goal_group;  /* allocator hint */
	uint64_t alloc_next;        /* allocator hint: where the last allocation of this file ended */

	/* Append window, see data/append_window.c; win_end 0: none. */
	uint64_t win_end, win_pub;  /* atomic: byte where it ends; size published through it */
	uint32_t win_lblk, win_len; /* what of it is not in the tree; map_lock (win_lblk is read without it) */
	uint64_t win_pblk;
	unsigned win_meta;          /* set aside for the nodes that settling may need */
	int win_lost;               /* atomic: why appended data was given up, until an fsync has told it; 0: it was not */
	struct list win_link;       /* on vol->windows; icache_lock */
};

/* Bits of jnl_buf.verified: which kind of block its content has been checked as. */
enum {
	X4_VERIFIED_EXTENT = 1 << 0, X4_VERIFIED_DIR = 1 << 1, X4_VERIFIED_HTREE = 1 << 2, X4_VERIFIED_XATTR = 1 << 3,
	X4_VERIFIED_BITMAP = 1 << 4, X4_VERIFIED_ITABLE = 1 << 5,
};

/* ---- volume ---- */
/* Notes an inconsistency: log line, superblock error fields, errors= policy. Returns -EUCLEAN. Any thread, no locks needed. */
int x4_corrupt(struct x4_vol *v, uint32_t ino, uint64_t blk, const char *func, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
/* jnl_bread of what the whole file system rests on: inode tables, bitmaps, descriptors. An I/O error is noted and treated like damage,
 * as the kernel does; one in a single file's own blocks is that file's. */
int x4_bread(struct x4_vol *v, uint32_t ino, uint64_t blk, const char *func, struct jnl_buf **ret);
#define X4_BREAD(v, ino, blk, ret) x4_bread((v), (ino), (blk), __func__, (ret))
#define X4_CORRUPT(v, ino, blk, ...) x4_corrupt((v), (ino), (blk), __func__, __VA_ARGS__)
int x4_from_ext2_err(long err); /* libext2fs code -> -errno (core/errors.c) */
/* True if [blk, blk+n) lies in the file system, not in the superblock/descriptor/bitmap/inode-table areas and not in the log.
 * Every block number read from disk goes through it before it is used. */
bool x4_blk_valid(struct x4_vol *v, uint64_t blk, uint64_t n);
/* The superblock in a handle: returns the mapped 1024 bytes inside the cached block; call x4_super_end to set its checksum. */
int x4_super_begin(struct x4_vol *v, struct jnl_handle *h, struct ext2_super_block **ret);
void x4_super_end(struct x4_vol *v, struct jnl_handle *h);

/* ---- inodes ---- */
/* Opens raw for change in h: on cancel raw, size, mode are put back and map is dropped. Idempotent within a handle. */
int x4_inode_begin(struct jnl_handle *h, struct x4_inode *i);
/* Copies raw with its checksum into the inode table block; sets sync_tid, and datasync_tid if data_needed (size, extents). */
int x4_inode_dirty(struct jnl_handle *h, struct x4_inode *i, bool data_needed);
#define X4_CREDITS_INODE 1
/* fsync, and fdatasync if data_needed, wait for h's transaction from now on. If h is cancelled, needlessly. */
static inline void x4_inode_note_tid(struct jnl_handle *h, struct x4_inode *i, bool data_needed)
{
	jnl_tid tid = jnl_handle_tid(h);

	__atomic_store_n(&i->sync_tid, tid, __ATOMIC_RELAXED);
	__atomic_store_n(&i->has_sync_tid, true, __ATOMIC_RELEASE);
	if (data_needed) {
		__atomic_store_n(&i->datasync_tid, tid, __ATOMIC_RELAXED);
		__atomic_store_n(&i->has_datasync_tid, true, __ATOMIC_RELEASE);
	}
}
/* Field access on raw with the high halves. Set size, mode and time: the caller holds attr. Add blocks takes it inside. */
uint64_t x4_raw_size(const struct x4_inode *i);
void x4_raw_set_size(struct x4_inode *i, uint64_t size); /* also the atomic copy */
void x4_raw_put_size(struct x4_inode *i, uint64_t size); /* without it */
/* The atomic copy alone, which an append window may keep above it. attr held. */
void x4_size_store(struct x4_inode *i, uint64_t size);
void x4_raw_set_mode(struct x4_inode *i, uint32_t mode);
uint64_t x4_raw_blocks_512(const struct x4_inode *i);
int x4_raw_add_blocks(struct x4_inode *i, int64_t fs_blocks); /* i_blocks, huge_file aware */
void x4_raw_set_time(struct x4_inode *i, unsigned which_X4_SET, struct timespec ts); /* X4_SET_ATIME|MTIME|CTIME, clamped */
void x4_raw_set_born(struct x4_inode *i, struct timespec ts); /* all of them: one operation has one time. attr held */
struct timespec x4_now(struct x4_vol *v);
/* These take attr inside. nlink: the caller applies the dir_nlink rule. rdev in Linux's 32-bit encoding. */
void x4_raw_set_nlink(struct x4_inode *i, uint32_t nlink);
void x4_raw_set_rdev(struct x4_inode *i, uint32_t rdev);
uint32_t x4_raw_rdev(const struct x4_inode *i);
/* x4_iget for reserved inodes (journal, orphan file) and for inodes with nlink 0 (orphans). */
int x4_iget_special(struct x4_vol *v, uint32_t ino, struct x4_inode **ret);
/* x4_iget for what an attribute says its value is in: whatever that is, it has a name, so that
 * nothing is deleted when the reference goes, as long as the caller's handle runs. Else -ENOENT. */
int x4_iget_value(struct x4_vol *v, uint32_t ino, struct x4_inode **ret);
/* In memory only: the inode whose inode table block is valid to read; byte place of ino in the inode table. */
uint64_t x4_itable_place(struct x4_vol *v, uint32_t ino, uint32_t *ret_off);
/* Checksum of a disk inode (seed of x4_inode.csum_seed): verify, and store in raw. True without metadata_csum. */
bool x4_inode_csum_ok(struct x4_vol *v, uint32_t seed, const struct ext2_inode_large *raw);
void x4_inode_csum_set(struct x4_vol *v, uint32_t seed, struct ext2_inode_large *raw);
/*
 * A new inode in h: allocated near dir, raw initialised (mode as given, owner by c with setgid rules, nlink 1, times,
 * generation, extent header and EXTENTS_FL for regular files and directories; a slow symlink calls x4_extent_init itself;
 * x4_raw_set_rdev for devices), in the cache with one reference. Not locked: nobody can reach it yet. Open for change
 * (x4_inode_begin) but not yet written: the caller calls x4_inode_dirty. On cancel it is freed and becomes bad; the
 * caller still drops its reference, after jnl_cancel.
 */
uint16_t x4_extra_isize(const struct x4_vol *v); /* its i_extra_isize */
int x4_inode_new(struct jnl_handle *h, struct x4_inode *dir, uint32_t mode, const struct x4_cred *c, struct x4_inode **ret);
#define X4_CREDITS_INODE_NEW 4 /* bitmap, descriptor (at seal), table block, superblock */
/* nlink went to 0 or a truncate is pending. Idempotent. */
int x4_orphan_add(struct jnl_handle *h, struct x4_inode *i);
/* At mount: i is the next of the list on disk. */
void x4_orphan_found(struct x4_inode *i);
int x4_orphan_del(struct jnl_handle *h, struct x4_inode *i);
#define X4_CREDITS_ORPHAN 3

/* ---- groups ---- */
/*
 * Who asks for blocks. A user leaves what is kept for root and for metadata; root takes the former; the system takes
 * everything: conversion, insertion of data that is on the device, and what takes something away.
 */
enum x4_asks { X4_ASKS_USER, X4_ASKS_ROOT, X4_ASKS_SYSTEM };
static inline enum x4_asks x4_asks(bool root) { return root ? X4_ASKS_ROOT : X4_ASKS_USER; }
/* Blocks for metadata, or for data inside one handle: marked on disk in h. goal 0: near the inode. *ret_n <= n, >= 1. Who asks
 * was said to x4_meta_reserve; what has set nothing aside is metadata that must not fail (X4_ASKS_SYSTEM). */
int x4_balloc(struct jnl_handle *h, struct x4_inode *i, uint64_t goal, uint32_t n, uint64_t *ret_blk, uint32_t *ret_n);
/* Frees in h: bitmap in this transaction, reusable only once it is durable (JOURNAL-8), discarded then if discard is on.
 * metadata: the blocks were journalled, so jnl_forget is called for them. Undone on cancel. */
int x4_bfree(struct jnl_handle *h, struct x4_inode *i, uint64_t blk, uint32_t n, bool metadata);
/* Credits for freeing n extents (bitmap blocks touched). */
/* Reservation: only the in-memory image. No handle. Contiguous as possible; *ret_n <= n. -ENOSPC. May force a commit to get
 * freed blocks back, so not inside a handle and with no lock above RANK_X4_MAP held. */
int x4_balloc_reserve(struct x4_vol *v, struct x4_inode *i, uint64_t goal, uint32_t n, bool root, uint64_t *ret_blk, uint32_t *ret_n);
void x4_balloc_unreserve(struct x4_vol *v, uint64_t blk, uint32_t n);
/* Blocks that x4_balloc_reserve could still give. */
uint64_t x4_balloc_available(struct x4_vol *v, bool root);
/* Where the next allocation of i without a goal begins. */
void x4_balloc_next(struct x4_inode *i, uint64_t blk);
/* Reserved blocks become allocated on disk in h (undone to reserved on cancel). */
int x4_balloc_claim(struct jnl_handle *h, struct x4_inode *i, uint64_t blk, uint32_t n);
/* So that metadata allocation inside a handle cannot fail half-way: n blocks are set aside for the handle to come; x4_balloc
 * may take them. Given back, all n whatever was taken, by x4_meta_unreserve(n) after the handle has ended. -ENOSPC. Not
 * inside a handle. */
int x4_meta_reserve(struct x4_vol *v, unsigned n, enum x4_asks who);
void x4_meta_unreserve(struct x4_vol *v, unsigned n);
#define X4_CREDITS_ALLOC 1 /* bitmap block per allocation; descriptors join at seal */
/* seal: bitmap checksums and descriptors of dirty groups into h (journal callback). */
void x4_groups_seal(void *vol, struct jnl_handle *h);

/* Inodes, inside h (alloc/inodes.c): near dir; *ret_fresh: the table block was never used, do not read it. */
int x4_ialloc(struct jnl_handle *h, struct x4_inode *dir, uint32_t mode, uint32_t *ret_ino, bool *ret_fresh);
/* ino was given out although it was in use: its group's bitmap is wrong, and nothing more is taken from it. */
void x4_ialloc_distrust(struct x4_vol *v, uint32_t ino);
int x4_ifree(struct jnl_handle *h, struct x4_vol *v, uint32_t ino, bool is_dir);
/* 1 if the inode bitmap says in use, 0 if not, or an error. */
int x4_inode_in_use(struct x4_vol *v, uint32_t ino);
int x4_groups_init(struct x4_vol *v);
void x4_groups_fini(struct x4_vol *v);

/* ---- extents ---- */
void x4_extent_init(struct x4_inode *i); /* empty root in raw, EXTENTS_FL */
/* Content of an inode with inline data: malloc'd, checked as far as its place goes. And a link's
 * target of size bytes. */
int x4_inline_load(struct x4_inode *i, uint8_t **ret, uint32_t *ret_len);
int x4_inline_link(struct x4_inode *i, char *buf, uint64_t size);
/* i is a symbolic link whose target lies in the inode itself. */
bool x4_link_is_fast(const struct x4_inode *i);
/* For directories and symlinks: block lblk of i; loads the map if needed. -EUCLEAN for a hole. Blocks. The caller holds i.rw
 * (any mode), which is what guards the tree of a directory or symlink; so it may be called inside a handle. */
int x4_bmap(struct x4_inode *i, uint32_t lblk, uint64_t *ret_blk);
/* Inside h, map_lock held: inserts one mapped run, merging with neighbours; allocates tree nodes with x4_balloc; updates
 * i_blocks, raw and the map snapshot. The caller has called x4_inode_begin and calls x4_inode_dirty. */
int x4_extent_insert(struct jnl_handle *h, struct x4_inode *i, uint32_t lblk, uint32_t len, uint64_t pblk, bool unwritten);
/* Worst case credits and metadata blocks of one insert or convert: depth + splits. */
unsigned x4_extent_credits(struct x4_inode *i);
unsigned x4_extent_meta_blocks(struct x4_inode *i);
/* A directory or new symlink grows by one block in h: allocated, zeroed, mapped at lblk, open for writing; size not changed. The
 * caller holds i.rw exclusively (or i is new and nobody else can reach it), has called x4_inode_begin and calls x4_inode_dirty. */
int x4_append_meta_block(struct jnl_handle *h, struct x4_inode *i, uint32_t lblk, struct jnl_buf **ret);
/* Eviction: frees all blocks of an inode with nlink 0 in bounded transactions (metadata: directory or symlink blocks are revoked). */
int x4_free_all_blocks(struct x4_inode *i);
/* The same inside h if the inode itself says where they are (extents in its root); map_lock held. -ENOSPC: not in one handle. */
bool x4_blocks_in_root(struct x4_inode *i);
unsigned x4_free_root_credits(struct x4_inode *i);
int x4_free_root_blocks(struct jnl_handle *h, struct x4_inode *i);
void x4_map_drop(struct x4_inode *i); /* forgets the snapshot (retired) */
/* Reads data of an inode that has no direct I/O engine above it: slow symlinks, journal inode map. */
/* The log's blocks; the block cache is open without it. *ret is malloc'd. */
int x4_map_log_extents(struct x4_vol *v, uint32_t journal_ino, struct jnl_extent **ret,
		       unsigned *ret_n);

/* ---- names, xattrs ---- */
/* Most blocks that setting or removing one attribute changes (the inode, its own and a shared block, bitmaps): what a
 * handle needs for each call of x4_acl_chmod and x4_xattr_kill_caps. */
#define X4_CREDITS_XATTR 8
/* What such a call, and x4_acl_inherit from dir, may need besides where values lie in inodes of their own (ea_inode). Before the
 * handle; the inode is locked. */
unsigned x4_acl_chmod_credits(struct x4_inode *i);
unsigned x4_acl_inherit_credits(struct x4_inode *dir);
/* Blocks that they may need, to be set aside; and those of removing an attribute, which copies a shared block. */
unsigned x4_acl_chmod_blocks(struct x4_inode *i);
unsigned x4_acl_inherit_blocks(struct x4_inode *dir, uint32_t mode);
unsigned x4_xattr_remove_blocks(struct x4_inode *i);
/* Drops what handles have kept of such inodes, which may delete them. Outside handles, on a thread that may block. */
void x4_ea_settle(struct x4_vol *v);
void x4_ea_fini(struct x4_vol *v); /* at the end, alone: forgets them */
/* Eviction: drops the xattr block (refcount) and ea_inodes, in transactions of its own. */
int x4_xattr_free_all(struct x4_inode *i);
/* create: default ACL of dir to the new inode in h; *mode is adjusted. *ret_had_default: umask does not apply. */
int x4_acl_inherit(struct jnl_handle *h, struct x4_inode *dir, struct x4_inode *i, uint32_t *mode, bool *ret_had_default);
/* chmod: the access ACL follows the mode, inside h. */
int x4_acl_chmod(struct jnl_handle *h, struct x4_inode *i, uint32_t mode);
/* KILL_SUIDGID: removes security.capability in h if there is one. */
int x4_xattr_kill_caps(struct jnl_handle *h, struct x4_inode *i);
/* Blocks; the caller holds rw in any mode. */
bool x4_xattr_has_caps(struct x4_inode *i);

#endif
