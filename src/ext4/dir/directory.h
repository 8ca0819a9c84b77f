/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One directory, and what the operations on names share: private to the room. From the bottom:
 *   block.c       one directory block: read, verify, search, insert, delete, checksum
 *   growth.c      one more block at the end
 *   inline_dir.c  a directory inside its inode
 *   linear.c      a large directory without an index: a table of its names in memory
 *   seen.c        the blocks that a walk through an index has been to
 *   index.c, index_add.c   the hash index (index.h)
 *   dir.c         one directory, whatever its form: find, plan, insert, remove, replace
 *   listing.c     readdir
 *   names.c       what the operations share: handle, checks, fields
 *   lookup.c, create.c, symlink.c, links.c, rename.c   the operations of dir.h
 *
 * Locks: everything here is called with dir->rw held, exclusively where a handle is passed. The
 * blocks of a directory change only in a handle of the thread that holds dir->rw exclusively, so
 * readers under dir->rw see whole blocks.
 *
 * A block is verified once after it came from the device (journal_buffer.verified). Each step
 * through a block checks bounds nevertheless, because a hostile image can make two directories
 * share a block.
 */
#ifndef FDIO_EXT4_DIR_DIRECTORY_H
#define FDIO_EXT4_DIR_DIRECTORY_H

#include "base/bytes.h"
#include "base/nowait.h"
#include "ext4/core/structs.h"
#include "ext4/inode/inode_cache.h"
#include "ext4/inode/inode_change.h"
#include "ext4/dir/dir.h"

#define DIR_ENT_HEAD 8u  /* bytes of an entry before its name */
#define DIR_ENT_MIN 12u  /* length of an entry with a name of one letter */
#define DIR_TAIL_LEN 12u /* the tail of a leaf, which holds the checksum */
#define DIR_LINK_MAX 65000u
/*
 * The largest directory, in blocks, that a loop thread goes through, and the largest in which it
 * looks for a gap, usually in the table of linear.c; a larger one is a miss.
 */
#define DIR_NOWAIT_BLOCKS 4u
#define DIR_NOWAIT_SCAN 1024u

/* Bytes that an entry with such a name takes: a multiple of 4. */
static inline unsigned dir_rec_len(unsigned name_len)
{
	return (name_len + DIR_ENT_HEAD + 3u) & ~3u;
}

static inline uint32_t dir_inode_flags(const struct ext4_inode *inode)
{
	return fdio_get_le32(&inode->raw->i_flags, 0);
}

static inline unsigned dir_nlink(const struct ext4_inode *inode)
{
	return fdio_get_le16(&inode->raw->i_links_count, 0);
}

/* ---- one block (block.c) ---- */
/* An entry, decoded; name points into the block. ino 0: free space. */
struct dir_block_ent {
	unsigned off, rec_len; /* bytes */
	uint32_t ino;
	uint8_t name_len, file_type; /* EXT2_FT_* */
	const char *name;
};

enum dir_block_kind { DIR_BLOCK_LEAF, DIR_BLOCK_INDEX, DIR_BLOCK_ANY };

/* Bytes of a leaf that hold entries. */
unsigned dir_block_limit(const struct ext4_vol *vol);
/*
 * Block lblk of dir, verified as kind; DIR_BLOCK_ANY finds the kind out by the content. The caller
 * releases the buffer. -EUCLEAN, -EIO; -EOPNOTSUPP for an inline directory.
 */
int dir_block_read(struct ext4_inode *dir, uint32_t lblk, enum dir_block_kind kind,
		   struct journal_buffer **ret) FDIO_MAY_MISS;
/*
 * For a walk over blocks, to be called with the result r of each block: turns damage (-EUCLEAN)
 * into 0 and counts it in *bad, at most DIR_BAD_MAX times in one walk, because a directory can
 * consist of damaged blocks alone. After a walk with *bad set, a name that was not found may have
 * been there.
 */
#define DIR_BAD_MAX 256u
int dir_block_pass_over(int r, unsigned *bad);
/* True: the block's content is that of an index root or node; for blocks read as DIR_BLOCK_ANY. */
bool dir_block_is_index(struct ext4_inode *dir, uint32_t lblk, const uint8_t *data);
/* Decodes the entry at off. False if no sound entry lies between off and limit. */
bool dir_block_get(const struct ext4_vol *vol, const uint8_t *data, unsigned limit, unsigned off,
		   struct dir_block_ent *ret);
/*
 * True if the leaf has the name: *ret is its entry, *ret_prev the offset of the entry before it, or
 * UINT_MAX if it is the first.
 */
bool dir_block_find(const struct ext4_vol *vol, const uint8_t *data, const char *name, unsigned len,
		    struct dir_block_ent *ret, unsigned *ret_prev);
/* Offset of the first entry that has need bytes to give, or UINT_MAX. */
unsigned dir_block_find_gap(const struct ext4_vol *vol, const uint8_t *data, unsigned need);
/* The largest need for which dir_block_find_gap finds a place. */
unsigned dir_block_max_gap(const struct ext4_vol *vol, const uint8_t *data);
/* The changes below are for blocks open in the caller's handle; dir_block_seal afterwards. */
void dir_block_init(const struct ext4_vol *vol, uint8_t *data);
void dir_block_put(const struct ext4_vol *vol, uint8_t *data, unsigned off, unsigned rec_len,
		   uint32_t ino, uint8_t file_type, const char *name, unsigned len);
/*
 * Inserts at off, which dir_block_find_gap has returned. Returns the offset of the new entry:
 * behind the name of the used entry that gave the space, or off itself.
 */
unsigned dir_block_insert(const struct ext4_vol *vol, uint8_t *data, unsigned off, uint32_t ino,
			  uint8_t file_type, const char *name, unsigned len);
/* Sets the length of the entry at off, and nothing else. */
void dir_block_stretch(const struct ext4_vol *vol, uint8_t *data, unsigned off, unsigned rec_len);
/* off and prev as dir_block_find has returned them. */
void dir_block_delete(const struct ext4_vol *vol, uint8_t *data, unsigned off, unsigned prev);
/* Puts another inode behind the name of the entry at off. */
void dir_block_set(const struct ext4_vol *vol, uint8_t *data, unsigned off, uint32_t ino,
		   uint8_t file_type);
/* Writes the checksum of a leaf; from then on the block counts as verified, as a leaf only. */
void dir_block_seal(struct ext4_inode *dir, struct journal_buffer *buffer);

/*
 * Checks that sound entries fill data from byte from to byte to. lblk and blk are for the message
 * about damage.
 */
int dir_block_check_entries(struct ext4_inode *dir, uint32_t lblk, uint64_t blk,
			    const uint8_t *data, unsigned from, unsigned to) FDIO_MAY_MISS;

/* ---- a directory inside its inode (inline_dir.c) ---- */
/* Its content, with entries that have been checked. The caller frees *ret. */
int dir_inline_load(struct ext4_inode *dir, uint8_t **ret, uint32_t *ret_len) FDIO_MAY_MISS;
/* The entry at *off (0: the first); *off moves behind it. False at the end. */
bool dir_inline_next(const struct ext4_vol *vol, const uint8_t *data, uint32_t len, uint32_t *off,
		     struct dir_block_ent *ret);
struct dir_pos;
int dir_inline_find(struct ext4_inode *dir, const char *name, unsigned len, struct dir_pos *ret)
	FDIO_MAY_MISS;

/* ---- a directory (dir.c) ---- */
/* Where a name is, and the inode behind it. */
struct dir_pos { uint32_t lblk, off, ino; uint8_t file_type; };

/*
 * For a walk in the order of blocks: at every 32nd block reads the blocks that follow it on disk,
 * in one device read. nr: blocks of the directory.
 */
void dir_readahead(struct ext4_inode *dir, uint32_t lblk, uint32_t nr) FDIO_MAY_WAIT;
/* True: the directory has a hash index that this volume uses. */
bool dir_is_indexed(const struct ext4_inode *dir);
/* For a directory with an index. True: the root block of the index is damaged. */
bool dir_index_lost(struct ext4_inode *dir) FDIO_MAY_WAIT;
uint32_t dir_nr_blocks(const struct ext4_inode *dir);
/* EXT2_FT_* of a mode. */
uint8_t dir_file_type(uint32_t mode);
/*
 * Finds any name, "." and ".." too. -ENOENT; -EUCLEAN also for an inode number that no name may
 * have.
 */
int dir_find(struct ext4_inode *dir, const char *name, unsigned len, struct dir_pos *ret)
	FDIO_MAY_MISS;
/* 1 if the directory has only "." and "..", else 0. */
int dir_is_empty(struct ext4_inode *dir) FDIO_MAY_MISS;

/*
 * A planned insertion. The plan is made before the handle begins, so that the handle can be given
 * what the insertion needs; dir->rw is held exclusively from the plan to the end of the handle.
 */
struct dir_add {
	/* into a gap; into a new block; the directory gets an index; an index leaf is split */
	enum { DIR_ADD_SLOT, DIR_ADD_APPEND, DIR_ADD_CONVERT, DIR_ADD_INDEX } how;
	const char *name;
	unsigned len;
	uint32_t lblk, off;     /* DIR_ADD_SLOT */
	uint32_t hash;          /* DIR_ADD_INDEX, DIR_ADD_CONVERT */
	unsigned credits;       /* blocks of the log, without the directory's inode */
	unsigned blocks;        /* for ext4_metadata_reserve */
};
/* -ENOSPC when the directory is full. */
int dir_plan_add(struct ext4_inode *dir, const char *name, unsigned len, struct dir_add *add)
	FDIO_MAY_MISS;
/* In handle, after ext4_inode_begin(dir); the caller calls ext4_inode_dirty(dir) afterwards. */
int dir_do_add(struct journal_handle *handle, struct ext4_inode *dir, const struct dir_add *add,
	       uint32_t ino, uint8_t file_type) FDIO_MAY_MISS;
/* Credits of each of the two below. */
#define DIR_CREDITS_CHANGE 1
int dir_do_remove(struct journal_handle *handle, struct ext4_inode *dir, const char *name,
		  unsigned len) FDIO_MAY_MISS;
/* Puts another inode behind a name, "." and ".." too. */
int dir_do_set(struct journal_handle *handle, struct ext4_inode *dir, const char *name,
	       unsigned len, uint32_t ino, uint8_t file_type) FDIO_MAY_MISS;
/*
 * Makes the first block of a new directory, with "." and "..". Needs the credits and blocks of one
 * dir_append.
 */
int dir_do_init(struct journal_handle *handle, struct ext4_inode *dir,
		uint32_t parent) FDIO_MAY_MISS;
/*
 * A handle that changed dir was cancelled: drops the table of its names, which may be ahead of the
 * blocks.
 */
void dir_cancelled(struct ext4_inode *dir);

/* ---- one more block at the end (growth.c) ---- */
/* True: the directory may grow by this many blocks. */
bool dir_can_grow(const struct ext4_inode *dir, unsigned blocks);
/* What one more block costs: log credits, and blocks to reserve. */
unsigned dir_append_credits(struct ext4_inode *dir);
unsigned dir_append_blocks(struct ext4_inode *dir);
/*
 * Adds a block at the end and moves the size. The block is open in handle, its content is
 * undefined; the caller releases the buffer.
 */
int dir_append(struct journal_handle *handle, struct ext4_inode *dir, uint32_t *ret_lblk,
	       struct journal_buffer **ret) FDIO_MAY_MISS;

/* ---- the blocks that a walk has been to (seen.c) ---- */
#define DIR_SEEN_FEW 16u
struct dir_seen { /* all zeroes: none */
	uint32_t *slot;
	unsigned cap, nr;
	uint32_t few[DIR_SEEN_FEW];
};
/* 1: the block is new; 0: the walk has been there; -ENOMEM. */
int dir_seen_add(struct dir_seen *seen, uint32_t lblk);
void dir_seen_clear(struct dir_seen *seen);

/* ---- the table of a linear directory (linear.c) ---- */
/*
 * The table of dir, made if need be. NULL if there is none: the directory is small, there is no
 * memory, or *ret_err is set.
 */
struct ext4_dir_table *dir_table_get(struct ext4_inode *dir, int *ret_err) FDIO_MAY_WAIT;
int dir_table_find(struct ext4_inode *dir, struct ext4_dir_table *table, const char *name,
		   unsigned len, struct dir_pos *ret) FDIO_MAY_MISS;
/* First block with a gap of need bytes, or UINT32_MAX. */
uint32_t dir_table_find_gap(const struct ext4_dir_table *table, unsigned need);
/*
 * A name was added or removed: brings the table up to date, or drops it when there is no memory.
 * data is the content of block lblk after the change.
 */
void dir_table_added(struct ext4_inode *dir, uint32_t lblk, const uint8_t *data, uint32_t off,
		     const char *name, unsigned len);
void dir_table_removed(struct ext4_inode *dir, uint32_t lblk, const uint8_t *data, uint32_t off,
		       const char *name, unsigned len);
void dir_table_drop(struct ext4_inode *dir);

/* ---- what the operations share (names.c) ---- */
/*
 * ext4_change_end of a change that was begun with ext4_change_begin. a and b are the directories
 * that it has changed, or NULL: if it is cancelled, the tables of their names in memory, which may
 * be ahead of the blocks, are dropped first.
 */
int dir_change_end(struct ext4_change *change, int err, struct ext4_inode *a,
		   struct ext4_inode *b) FDIO_MAY_WAIT;
/* -ENAMETOOLONG, -ENOENT (empty). */
int dir_check_name(const char *name, unsigned len);
/* dir can be searched: it is a directory (-ENOTDIR) that was not deleted (-ENOENT). */
int dir_check_search(struct ext4_inode *dir);
/* dir can be changed: the volume is writable (-EROFS), dir is not immutable (-EPERM). */
int dir_check_change(struct ext4_inode *dir);
/* The flags of dir and of child allow that child's entry in dir is removed or replaced. */
int dir_check_remove(struct ext4_inode *dir, struct ext4_inode *child);
/* A name can be added to dir: both checks of dir, and the name is free (-EEXIST). */
int dir_check_add(struct ext4_inode *dir, const char *name, unsigned len) FDIO_MAY_MISS;
/* The inode behind an entry; -EUCLEAN for a number that no entry may have. */
int dir_iget(struct ext4_inode *dir, const struct dir_pos *pos,
	     struct ext4_inode **ret) FDIO_MAY_MISS;
/* Sets times; what: EXT4_SET_ATIME, EXT4_SET_MTIME, EXT4_SET_CTIME. */
void dir_touch(struct ext4_inode *inode, unsigned what, struct timespec now);
/* The link count of dir when it gains or loses a subdirectory; names.c has the dir_nlink rule. */
bool dir_nlink_full(const struct ext4_inode *dir);
void dir_nlink_inc(struct ext4_inode *dir);
void dir_nlink_dec(struct ext4_inode *dir);
/*
 * A name of inode is gone: link count, ctime, and the orphan list when it was the last one. In
 * handle after ext4_inode_begin(inode); marks inode dirty.
 */
int dir_drop_link(struct journal_handle *handle, struct ext4_inode *inode,
		  struct timespec now) FDIO_MAY_MISS;

/* ---- creation (create.c) ---- */
/* An inode to be made. fill (may be NULL) makes its content in handle. */
struct dir_new {
	uint32_t mode, rdev;
	const struct ext4_credentials *credentials;
	unsigned credits, blocks; /* for fill */
	int (*fill)(struct journal_handle *handle, struct ext4_inode *inode, void *arg);
	void *arg;
};
/*
 * Makes the inode, complete but for its name: owner, mode by the umask or a default ACL, content.
 * *ret is NULL if no inode was made; else the caller drops its reference, also after an error.
 */
int dir_new_inode(struct journal_handle *handle, struct ext4_inode *dir,
		  const struct dir_new *fresh, struct timespec now,
		  struct ext4_inode **ret) FDIO_MAY_MISS;
/* The body of create, mkdir, mknod and symlink; locks dir exclusively inside. */
int dir_create(struct ext4_inode *dir, const char *name, unsigned len, const struct dir_new *fresh,
	       struct ext4_inode **ret) FDIO_MAY_MISS;

#endif
