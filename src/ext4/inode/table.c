/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inodes on disk: reading and verifying them, opening one for change in a handle, writing it into its
 * inode table block, and the fields whose halves lie apart. Called on workers, changes only in handles.
 *
 * x4_inode_begin takes a copy of the whole disk inode, which is what a cancelled handle puts back: callers
 * may then change raw as they like and return at the first error.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/disk_inode.h"

#include "base/crc32c.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

#define OLD_SIZE 128U /* of an inode without the large part */

static uint16_t *csum_lo(struct ext2_inode_large *raw) { return &raw->osd2.linux2.l_i_checksum_lo; }

/* The high half is there if the large part reaches that far. */
static bool has_csum_hi(const struct x4_vol *v, const struct ext2_inode_large *raw)
{
	return v->inode_size > OLD_SIZE &&
	       raw->i_extra_isize >= offsetof(struct ext2_inode_large, i_checksum_hi) + sizeof(raw->i_checksum_hi) - OLD_SIZE;
}

/* The sum runs over the inode with its checksum fields zero. */
static uint32_t csum(const struct x4_vol *v, uint32_t seed, const struct ext2_inode_large *raw)
{
	static const uint8_t zero[2];
	const uint8_t *p = (const uint8_t *)raw;
	size_t lo = offsetof(struct ext2_inode_large, osd2.linux2.l_i_checksum_lo);
	size_t hi = offsetof(struct ext2_inode_large, i_checksum_hi), at;
	uint32_t c = fdio_crc32c(seed, p, lo);

	c = fdio_crc32c(c, zero, 2);
	at = lo + 2;
	if (has_csum_hi(v, raw)) {
		c = fdio_crc32c(c, p + at, hi - at);
		c = fdio_crc32c(c, zero, 2);
		at = hi + 2;
	}
	return fdio_crc32c(c, p + at, v->inode_size - at);
}

bool x4_inode_csum_ok(struct x4_vol *v, uint32_t seed, const struct ext2_inode_large *raw)
{
	uint32_t c;

	if (!v->has_csum)
		return true;
	c = csum(v, seed, raw);
	if ((uint16_t)c != raw->osd2.linux2.l_i_checksum_lo)
		return false;
	return !has_csum_hi(v, raw) || (uint16_t)(c >> 16) == raw->i_checksum_hi;
}

void x4_inode_csum_set(struct x4_vol *v, uint32_t seed, struct ext2_inode_large *raw)
{
	uint32_t c;

	if (!v->has_csum)
		return;
	c = csum(v, seed, raw);
	*csum_lo(raw) = (uint16_t)c;
	if (has_csum_hi(v, raw))
		raw->i_checksum_hi = (uint16_t)(c >> 16);
}

void x4_inode_set_seed(struct x4_inode *i)
{
	uint32_t ino = i->ino;

	i->gen = i->raw->i_generation;
	i->csum_seed = fdio_crc32c(fdio_crc32c(i->vol->csum_seed, &ino, 4), &i->gen, 4);
}

void x4_inode_sync_copies(struct x4_inode *i)
{
	x4_size_store(i, x4_raw_size(i));
	__atomic_store_n(&i->mode, i->raw->i_mode, __ATOMIC_RELAXED);
	__atomic_store_n(&i->live_flags, i->raw->i_flags & X4_LIVE_FLAGS, __ATOMIC_RELAXED);
	__atomic_store_n(&i->nlink, i->raw->i_links_count, __ATOMIC_RELAXED);
	__atomic_store_n(&i->inode.atime_ns, x4_time_ns(x4_raw_get_time(i, X4_SET_ATIME)), __ATOMIC_RELAXED);
	__atomic_store_n(&i->inode.mtime_ns, x4_time_ns(x4_raw_get_time(i, X4_SET_MTIME)), __ATOMIC_RELAXED);
	__atomic_store_n(&i->inode.ctime_ns, x4_time_ns(x4_raw_get_time(i, X4_SET_CTIME)), __ATOMIC_RELAXED);
}

/* ------------------------------------------------------------------ reading */

/*
 * The table above the high-water mark is not initialised, unless the mark is wrong, as old tools
 * left it: then an inode there is told by its checksum, or by the bitmap, where something could be
 * lost. The group gets no new ones, which would be given table blocks without looking at what is
 * there.
 */
static bool used_above_mark(struct x4_inode *i)
{
	struct x4_vol *v = i->vol;

	if (!i->raw->i_mode || !i->raw->i_links_count)
		return false;
	if (v->has_csum ? !x4_inode_csum_ok(v, i->csum_seed, i->raw)
			: !x4_vol_read_only(v) && x4_inode_in_use(v, i->ino) != 1)
		return false;
	log_ratelimited(FDIO_LOG_WARN,
			"%s: inode %u is in use above the mark of its group's table: run e2fsck",
			v->dev->name, i->ino);
	x4_ialloc_distrust(v, i->ino);
	return true;
}

/* What every later reader relies on. */
/* As the kernel: 2^32 - 1 blocks; without huge_file no more than i_blocks can count in sectors. */
static uint64_t largest_size(const struct x4_vol *v)
{
	uint64_t blocks = UINT32_MAX;

	if (!ext2fs_has_feature_huge_file(v->fs->super))
		blocks >>= v->block_bits - 9;
	return blocks << v->block_bits;
}

static int check_raw(struct x4_inode *i, bool special)
{
	struct x4_vol *v = i->vol;
	const struct ext2_inode_large *raw = i->raw;
	uint64_t size = x4_raw_size(i);

	if (!x4_inode_csum_ok(v, i->csum_seed, raw))
		return X4_CORRUPT(v, i->ino, 0, "wrong checksum of the inode");
	if (v->inode_size > OLD_SIZE && raw->i_extra_isize &&
	    (raw->i_extra_isize > v->inode_size - OLD_SIZE || (raw->i_extra_isize & 3)))
		return X4_CORRUPT(v, i->ino, 0, "impossible i_extra_isize %u", raw->i_extra_isize);
	if (special)
		return 0;
	switch (raw->i_mode & S_IFMT) {
	case S_IFREG: case S_IFDIR: case S_IFLNK: case S_IFCHR: case S_IFBLK: case S_IFIFO: case S_IFSOCK: break;
	default: return X4_CORRUPT(v, i->ino, 0, "impossible file type %#o", raw->i_mode);
	}
	if (size > largest_size(v) || (S_ISDIR(raw->i_mode) && (size & (v->block_size - 1)) &&
				       !(raw->i_flags & EXT4_INLINE_DATA_FL)))
		return X4_CORRUPT(v, i->ino, 0, "impossible size %llu", (unsigned long long)size);
	if (i->ino == X4_ROOT_INO && !S_ISDIR(raw->i_mode))
		return X4_CORRUPT(v, i->ino, 0, "the root is not a directory");
	return 0;
}

int x4_inode_read(struct x4_inode *i, bool special)
{
	struct x4_vol *v = i->vol;
	struct jnl_buf *b;
	uint32_t off;
	uint64_t blk;
	int err;

	bool above = x4_above_mark(v, i->ino);

	blk = x4_itable_place(v, i->ino, &off);
	if (!blk)
		return X4_CORRUPT(v, i->ino, 0,
				  "the descriptor of its group does not say where it is");
	err = X4_BREAD(v, i->ino, blk, &b);
	if (err)
		return err;
	memcpy(i->raw, b->data + off, v->inode_size);
	jnl_brelse(b);
	x4_inode_set_seed(i);
	if (above && !used_above_mark(i))
		return -ENOENT;
	if (!special && i->raw->i_links_count == 0)
		return -ENOENT;
	err = check_raw(i, special);
	if (!err)
		x4_inode_sync_copies(i);
	return err;
}

/* ------------------------------------------------------------------ changing */
struct inode_undo {
	struct jnl_callback cb;
	struct x4_inode *i;
	uint64_t lazy_wtime_ns, lazy_atime_ns;
	uint32_t map_edits;
	uint8_t raw[];
};

static void put_back_lazy(uint64_t *to, uint64_t ns)
{
	uint64_t none = 0;

	if (ns)
		(void)__atomic_compare_exchange_n(to, &none, ns, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

static void inode_undo(struct jnl_callback *cb, int ended)
{
	struct inode_undo *u = container_of(cb, struct inode_undo, cb);
	struct x4_inode *i = u->i;

	__atomic_store_n(&i->inode.begun, NULL, __ATOMIC_RELEASE);
	if (!ended) {
		fdio_mutex_lock(&i->attr);
		memcpy(i->raw, u->raw, i->vol->inode_size);
		x4_inode_sync_copies(i);
		fdio_mutex_unlock(&i->attr);
		put_back_lazy(&i->inode.lazy_wtime_ns, u->lazy_wtime_ns);
		put_back_lazy(&i->inode.lazy_atime_ns, u->lazy_atime_ns);
		/* A handle that only tried to change names or times costs the next direct write no detour. */
		if (__atomic_load_n(&i->inode.map_edits, __ATOMIC_RELAXED) != u->map_edits)
			i->vol->inode.forget_map(i);
	}
}

int x4_inode_begin(struct jnl_handle *h, struct x4_inode *i)
{
	struct inode_undo *u;

	if (i->inode.begun == h)
		return 0;
	FDIO_ASSERT(!i->inode.begun);
	u = jnl_handle_mem(h, sizeof(*u) + i->vol->inode_size);
	if (!u)
		return -ENOMEM;
	u->i = i;
	u->cb.fn = inode_undo;
	u->map_edits = __atomic_load_n(&i->inode.map_edits, __ATOMIC_RELAXED); /* those of this handle come after */
	fdio_mutex_lock(&i->attr);
	memcpy(u->raw, i->raw, i->vol->inode_size);
	u->lazy_wtime_ns = __atomic_load_n(&i->inode.lazy_wtime_ns, __ATOMIC_RELAXED);
	u->lazy_atime_ns = __atomic_load_n(&i->inode.lazy_atime_ns, __ATOMIC_RELAXED);
	x4_fold_lazy(i);
	fdio_mutex_unlock(&i->attr);
	__atomic_store_n(&i->inode.begun, h, __ATOMIC_RELEASE); /* maps of what a handle has open are not given up */
	jnl_on_undo(h, &u->cb);
	return 0;
}

int x4_inode_dirty(struct jnl_handle *h, struct x4_inode *i, bool data_needed)
{
	struct x4_vol *v = i->vol;
	struct jnl_buf *b;
	uint32_t off;
	uint64_t blk = x4_itable_place(v, i->ino, &off);
	int err;

	FDIO_ASSERT(i->inode.begun == h);
	err = X4_BREAD(v, i->ino, blk, &b);
	if (err)
		return err;
	err = jnl_get_write(h, b);
	if (!err) {
		x4_inode_csum_set(v, i->csum_seed, i->raw);
		memcpy(b->data + off, i->raw, v->inode_size);
	}
	jnl_brelse(b);
	if (err)
		return err;
	x4_inode_note_tid(h, i, data_needed);
	return 0;
}
