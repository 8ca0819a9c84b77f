/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The volume and the inode, whose parts belong to the rooms of ext4. Included only inside src/ext4 and by
 * its unit tests.
 */
#ifndef FDIO_EXT4_CORE_STRUCTS_H
#define FDIO_EXT4_CORE_STRUCTS_H

#include "base/list.h"
#include "base/lock.h"
#include "ext4/core/core.h"

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

#endif
