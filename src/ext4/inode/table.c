/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inodes on disk: reading and verifying them, opening one for change in a handle, and writing it
 * into its block of the inode table.
 *
 * Workers, loop threads in the mode of base/nowait.h (they miss if the block is not in memory), the
 * ticker, and the thread that opens or closes the volume. An inode is read before other threads can
 * reach its struct; it is changed only inside handles. Damage is recorded and -EUCLEAN.
 *
 * ext4_inode_begin keeps a copy of the whole disk inode, which a cancelled handle puts back: so
 * callers change raw as they like and return at the first error.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/disk_inode.h"

#include "base/crc32c.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

#define OLD_SIZE 128U /* bytes of an inode without the large part */

/* ------------------------------------------------------------------ checksum */
/* There is a high half of the checksum if the large part reaches that far. */
static bool has_csum_hi(const struct ext4_vol *vol, const struct ext2_inode_large *raw)
{
	const size_t end = offsetof(struct ext2_inode_large, i_checksum_hi) +
			   sizeof(raw->i_checksum_hi);

	return vol->inode_size > OLD_SIZE && OLD_SIZE + raw->i_extra_isize >= end;
}

/* The checksum of the inode with its checksum fields taken as zero. */
static uint32_t csum(const struct ext4_vol *vol, uint32_t seed, const struct ext2_inode_large *raw)
{
	static const uint8_t zero[2];
	const uint8_t *p = (const uint8_t *)raw;
	size_t lo = offsetof(struct ext2_inode_large, osd2.linux2.l_i_checksum_lo);
	size_t hi = offsetof(struct ext2_inode_large, i_checksum_hi), at;
	uint32_t c = fdio_crc32c(seed, p, lo);

	c = fdio_crc32c(c, zero, 2);
	at = lo + 2;
	if (has_csum_hi(vol, raw)) {
		c = fdio_crc32c(c, p + at, hi - at);
		c = fdio_crc32c(c, zero, 2);
		at = hi + 2;
	}
	return fdio_crc32c(c, p + at, vol->inode_size - at);
}

static bool checksum_ok(struct ext4_vol *vol, uint32_t seed, const struct ext2_inode_large *raw)
{
	uint32_t c;

	if (!vol->has_csum)
		return true;
	c = csum(vol, seed, raw);
	if ((uint16_t)c != raw->osd2.linux2.l_i_checksum_lo)
		return false;
	return !has_csum_hi(vol, raw) || (uint16_t)(c >> 16) == raw->i_checksum_hi;
}

static void checksum_set(struct ext4_vol *vol, uint32_t seed, struct ext2_inode_large *raw)
{
	uint32_t c;

	if (!vol->has_csum)
		return;
	c = csum(vol, seed, raw);
	raw->osd2.linux2.l_i_checksum_lo = (uint16_t)c;
	if (has_csum_hi(vol, raw))
		raw->i_checksum_hi = (uint16_t)(c >> 16);
}

void ext4_inode_set_seed(struct ext4_inode *inode)
{
	uint32_t ino = inode->ino;

	inode->gen = inode->raw->i_generation;
	inode->checksum_seed = fdio_crc32c(fdio_crc32c(inode->vol->checksum_seed, &ino, 4),
					   &inode->gen, 4);
}

void ext4_inode_sync_copies(struct ext4_inode *inode)
{
	ext4_size_store(inode, ext4_raw_size(inode));
	__atomic_store_n(&inode->mode, inode->raw->i_mode, __ATOMIC_RELAXED);
	__atomic_store_n(&inode->live_flags, inode->raw->i_flags & EXT4_LIVE_FLAGS,
			 __ATOMIC_RELAXED);
	__atomic_store_n(&inode->nlink, inode->raw->i_links_count, __ATOMIC_RELAXED);
	__atomic_store_n(&inode->inode.atime_ns,
			 ext4_time_ns(ext4_raw_get_time(inode, EXT4_SET_ATIME)), __ATOMIC_RELAXED);
	__atomic_store_n(&inode->inode.mtime_ns,
			 ext4_time_ns(ext4_raw_get_time(inode, EXT4_SET_MTIME)), __ATOMIC_RELAXED);
	__atomic_store_n(&inode->inode.ctime_ns,
			 ext4_time_ns(ext4_raw_get_time(inode, EXT4_SET_CTIME)), __ATOMIC_RELAXED);
}

/* ------------------------------------------------------------------ reading */
/*
 * Whether inode, whose number is above the high-water mark of its group's table, is in use. The
 * table there is not initialised and may hold anything, unless the mark is wrong, as old tools left
 * it. So the inode counts as in use if its checksum is right; without checksums, if the bitmap says
 * so, which is asked only where something could be lost: on a mount that writes. The group gets no
 * new inodes then, because a new one would overwrite its table block unread.
 */
static bool used_above_mark(struct ext4_inode *inode)
{
	struct ext4_vol *vol = inode->vol;

	if (!inode->raw->i_mode || !inode->raw->i_links_count)
		return false;
	if (vol->has_csum && !checksum_ok(vol, inode->checksum_seed, inode->raw))
		return false;
	if (!vol->has_csum && !ext4_vol_read_only(vol) && ext4_inode_in_use(vol, inode->ino) != 1)
		return false;
	log_ratelimited(FDIO_LOG_WARN,
			"%s: inode %u is in use above the mark of its group's table: run e2fsck",
			vol->dev->name, inode->ino);
	ext4_inode_number_distrust(vol, inode->ino);
	return true;
}

/*
 * Bytes of the largest file, as in the kernel: 2^32 - 1 blocks; without huge_file only what
 * i_blocks can count in sectors.
 */
static uint64_t largest_size(const struct ext4_vol *vol)
{
	uint64_t blocks = UINT32_MAX;

	if (!ext2fs_has_feature_huge_file(vol->fs->super))
		blocks >>= vol->block_bits - 9;
	return blocks << vol->block_bits;
}

/* Checks what every later reader of raw relies on. */
static int check_raw(struct ext4_inode *inode, bool special)
{
	struct ext4_vol *vol = inode->vol;
	const struct ext2_inode_large *raw = inode->raw;
	uint64_t size = ext4_raw_size(inode);

	if (!checksum_ok(vol, inode->checksum_seed, raw))
		return EXT4_CORRUPT(vol, inode->ino, 0, "wrong checksum of the inode");
	if (vol->inode_size > OLD_SIZE && raw->i_extra_isize &&
	    (raw->i_extra_isize > vol->inode_size - OLD_SIZE || (raw->i_extra_isize & 3)))
		return EXT4_CORRUPT(vol, inode->ino, 0, "impossible i_extra_isize %u",
				    raw->i_extra_isize);
	if (special)
		return 0;
	switch (raw->i_mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		break;
	default:
		return EXT4_CORRUPT(vol, inode->ino, 0, "impossible file type %#o", raw->i_mode);
	}
	if (size > largest_size(vol) || (S_ISDIR(raw->i_mode) && (size & (vol->block_size - 1)) &&
				       !(raw->i_flags & EXT4_INLINE_DATA_FL)))
		return EXT4_CORRUPT(vol, inode->ino, 0, "impossible size %llu",
				    (unsigned long long)size);
	if (inode->ino == EXT4_ROOT_INO && !S_ISDIR(raw->i_mode))
		return EXT4_CORRUPT(vol, inode->ino, 0, "the root is not a directory");
	return 0;
}

int ext4_inode_read(struct ext4_inode *inode, bool special)
{
	struct ext4_vol *vol = inode->vol;
	bool above = ext4_itable_never_used(vol, inode->ino);
	struct journal_buffer *buffer;
	uint32_t off;
	uint64_t blk = ext4_itable_place(vol, inode->ino, &off);
	int err;

	if (!blk)
		return EXT4_CORRUPT(vol, inode->ino, 0,
				    "the descriptor of its group does not say where it is");
	err = EXT4_READ_BLOCK(vol, inode->ino, blk, &buffer);
	if (err)
		return err;
	memcpy(inode->raw, buffer->data + off, vol->inode_size);
	journal_buffer_release(buffer);
	ext4_inode_set_seed(inode);
	if (above && !used_above_mark(inode))
		return -ENOENT;
	if (!special && inode->raw->i_links_count == 0)
		return -ENOENT;
	err = check_raw(inode, special);
	if (!err)
		ext4_inode_sync_copies(inode);
	return err;
}

/* ------------------------------------------------------------------ changing */
/* What a cancelled handle puts back: the state of the inode at ext4_inode_begin. */
struct inode_undo {
	struct journal_callback callback;
	struct ext4_inode *inode;
	uint64_t lazy_wtime_ns, lazy_atime_ns;
	uint32_t map_edits;
	uint8_t raw[]; /* inode_size bytes */
};

/* Notes the time ns again, unless a later one was noted meanwhile. */
static void put_back_lazy(uint64_t *to, uint64_t ns)
{
	uint64_t none = 0;

	if (ns)
		(void)__atomic_compare_exchange_n(to, &none, ns, false, __ATOMIC_RELAXED,
						  __ATOMIC_RELAXED);
}

static void inode_undo(struct journal_callback *callback, int ended)
{
	struct inode_undo *undo = container_of(callback, struct inode_undo, callback);
	struct ext4_inode *inode = undo->inode;

	__atomic_store_n(&inode->inode.begun, NULL, __ATOMIC_RELEASE);
	if (!ended) {
		fdio_mutex_lock(&inode->attr);
		memcpy(inode->raw, undo->raw, inode->vol->inode_size);
		ext4_inode_sync_copies(inode);
		fdio_mutex_unlock(&inode->attr);
		put_back_lazy(&inode->inode.lazy_wtime_ns, undo->lazy_wtime_ns);
		put_back_lazy(&inode->inode.lazy_atime_ns, undo->lazy_atime_ns);
		/*
		 * The map stays if the handle did not change it: without a map, the next direct
		 * write would have to take the slow path.
		 */
		if (__atomic_load_n(&inode->inode.map_edits, __ATOMIC_RELAXED) != undo->map_edits)
			inode->vol->inode.forget_map(inode);
	}
}

int ext4_inode_begin(struct journal_handle *handle, struct ext4_inode *inode)
{
	struct inode_undo *undo;

	if (inode->inode.begun == handle)
		return 0;
	FDIO_ASSERT(!inode->inode.begun);
	undo = journal_handle_alloc(handle, sizeof(*undo) + inode->vol->inode_size);
	if (!undo)
		return -ENOMEM;
	undo->inode = inode;
	undo->callback.fn = inode_undo;
	/* Read before this handle edits the map, so that inode_undo sees whether it did. */
	undo->map_edits = __atomic_load_n(&inode->inode.map_edits, __ATOMIC_RELAXED);
	fdio_mutex_lock(&inode->attr);
	memcpy(undo->raw, inode->raw, inode->vol->inode_size);
	undo->lazy_wtime_ns = __atomic_load_n(&inode->inode.lazy_wtime_ns, __ATOMIC_RELAXED);
	undo->lazy_atime_ns = __atomic_load_n(&inode->inode.lazy_atime_ns, __ATOMIC_RELAXED);
	ext4_fold_lazy(inode);
	fdio_mutex_unlock(&inode->attr);
	/* From here on map_evict.c does not evict this inode's map (walks_to in cache.c). */
	__atomic_store_n(&inode->inode.begun, handle, __ATOMIC_RELEASE);
	journal_on_undo(handle, &undo->callback);
	return 0;
}

int ext4_inode_dirty(struct journal_handle *handle, struct ext4_inode *inode, bool data_needed)
{
	struct ext4_vol *vol = inode->vol;
	struct journal_buffer *buffer;
	uint32_t off;
	uint64_t blk = ext4_itable_place(vol, inode->ino, &off);
	int err;

	FDIO_ASSERT(inode->inode.begun == handle);
	err = EXT4_READ_BLOCK(vol, inode->ino, blk, &buffer);
	if (err)
		return err;
	err = journal_get_write(handle, buffer);
	if (!err) {
		checksum_set(vol, inode->checksum_seed, inode->raw);
		memcpy(buffer->data + off, inode->raw, vol->inode_size);
	}
	journal_buffer_release(buffer);
	if (err)
		return err;
	ext4_inode_note_tid(handle, inode, data_needed);
	return 0;
}
