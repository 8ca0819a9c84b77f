/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One directory block. A leaf holds entries of variable length that fill the block without gaps; on
 * a volume with metadata checksums a 12-byte tail holds the checksum. An index block looks like a
 * leaf with one empty entry, so that readers that know no index skip it.
 *
 * Threads: ops workers, and loop threads in the mode of base/nowait.h: reading a block misses where
 * the block is not in memory. Called with dir->rw held; blocks change only in a handle.
 *
 * Nothing here trusts the bytes: each step decodes an entry and checks its bounds. Damage is
 * reported to the volume (EXT4_CORRUPT) and is -EUCLEAN.
 */
#include "ext4/dir/index.h"

#include "base/bytes.h"
#include "base/crc32c.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

/*
 * The length of an entry is a multiple of 4 and has 16 bits on disk, which do not hold the 65,536
 * of an entry that fills a 64 KiB block. There the two low bits carry the two high bits.
 */
static unsigned decode_rec_len(const struct ext4_vol *vol, uint16_t raw)
{
	if (vol->block_size < 65536)
		return raw;
	if (raw == 65535 || raw == 0)
		return 65536;
	return (raw & 65532u) | ((raw & 3u) << 16);
}

static uint16_t encode_rec_len(const struct ext4_vol *vol, unsigned len)
{
	if (len < 65536)
		return (uint16_t)len;
	return vol->block_size == 65536 ? 65535 : (uint16_t)((len & 65532u) | ((len >> 16) & 3u));
}

unsigned dir_block_limit(const struct ext4_vol *vol)
{
	return vol->block_size - (vol->has_csum ? DIR_TAIL_LEN : 0);
}

bool dir_block_get(const struct ext4_vol *vol, const uint8_t *data, unsigned limit, unsigned off,
		   struct dir_block_ent *ret)
{
	if (off + DIR_ENT_MIN > limit)
		return false;
	ret->off = off;
	ret->ino = fdio_get_le32(data, off);
	ret->rec_len = decode_rec_len(vol, fdio_get_le16(data, off + 4));
	ret->name_len = data[off + 6];
	ret->file_type = vol->has_filetype ? data[off + 7] : 0;
	ret->name = (const char *)data + off + DIR_ENT_HEAD;
	return ret->rec_len >= DIR_ENT_MIN && ret->rec_len % 4 == 0 &&
	       ret->rec_len <= limit - off &&
	       (ret->ino == 0 || dir_rec_len(ret->name_len) <= ret->rec_len);
}

void dir_block_put(const struct ext4_vol *vol, uint8_t *data, unsigned off, unsigned rec_len,
		   uint32_t ino, uint8_t file_type, const char *name, unsigned len)
{
	fdio_put_le32(data, off, ino);
	fdio_put_le16(data, off + 4, encode_rec_len(vol, rec_len));
	data[off + 6] = (uint8_t)len;
	data[off + 7] = vol->has_filetype ? file_type : 0;
	memcpy(data + off + DIR_ENT_HEAD, name, len);
	/*
	 * The bytes between the name and the next multiple of 4 are on disk too: no old data there.
	 */
	memset(data + off + DIR_ENT_HEAD + len, 0, dir_rec_len(len) - DIR_ENT_HEAD - len);
}

void dir_block_stretch(const struct ext4_vol *vol, uint8_t *data, unsigned off, unsigned rec_len)
{
	fdio_put_le16(data, off + 4, encode_rec_len(vol, rec_len));
}

void dir_block_init(const struct ext4_vol *vol, uint8_t *data)
{
	memset(data, 0, vol->block_size);
	fdio_put_le16(data, 4, encode_rec_len(vol, dir_block_limit(vol)));
	if (vol->has_csum) {
		uint8_t *tail = data + vol->block_size - DIR_TAIL_LEN;

		fdio_put_le16(tail, 4, DIR_TAIL_LEN);
		tail[7] = EXT2_DIR_NAME_LEN_CSUM >> 8;
	}
}

static uint32_t leaf_csum(struct ext4_inode *dir, const uint8_t *data)
{
	return fdio_crc32c(dir->checksum_seed, data, dir->vol->block_size - DIR_TAIL_LEN);
}

void dir_block_seal(struct ext4_inode *dir, struct journal_buffer *buffer)
{
	if (dir->vol->has_csum)
		fdio_put_le32(buffer->data, dir->vol->block_size - 4, leaf_csum(dir, buffer->data));
	__atomic_store_n(&buffer->verified, EXT4_VERIFIED_DIR, __ATOMIC_RELAXED);
}

/* ---- index blocks ---- */
unsigned dir_index_block_offset(const struct ext4_vol *vol, const uint8_t *data)
{
	unsigned rec_len = decode_rec_len(vol, fdio_get_le16(data, 4));

	if (fdio_get_le32(data, 0) == 0 && data[6] == 0 && rec_len == vol->block_size)
		return DIR_INDEX_NODE_OFS;
	if (rec_len == DIR_ENT_MIN &&
	    decode_rec_len(vol, fdio_get_le16(data, DIR_ENT_MIN + 4)) ==
			    vol->block_size - DIR_ENT_MIN &&
	    fdio_get_le32(data, 24) == 0 && data[DIR_INDEX_ROOT_INFO] == 8)
		return DIR_INDEX_ROOT_OFS;
	return 0;
}

unsigned dir_index_block_limit(const struct ext4_vol *vol, unsigned ofs)
{
	return (vol->block_size - ofs - (vol->has_csum ? 8 : 0)) / 8;
}

unsigned dir_index_block_count(const uint8_t *data, unsigned ofs)
{
	return fdio_get_le16(data, ofs + 2);
}

void dir_index_block_set_count(const struct ext4_vol *vol, uint8_t *data, unsigned ofs,
			       unsigned count)
{
	fdio_put_le16(data, ofs, (uint16_t)dir_index_block_limit(vol, ofs));
	fdio_put_le16(data, ofs + 2, (uint16_t)count);
}

/* The first pair has no hash of its own: it covers all hashes below that of the second pair. */
uint32_t dir_index_block_hash(const uint8_t *data, unsigned ofs, unsigned n)
{
	return n ? fdio_get_le32(data, ofs + 8 * n) : 0;
}
uint32_t dir_index_block_block(const uint8_t *data, unsigned ofs, unsigned n)
{
	return fdio_get_le32(data, ofs + 8 * n + 4) & 0x0fffffff;
}

void dir_index_block_set(uint8_t *data, unsigned ofs, unsigned n, uint32_t hash, uint32_t block)
{
	if (n)
		fdio_put_le32(data, ofs + 8 * n, hash);
	fdio_put_le32(data, ofs + 8 * n + 4, block);
}

/*
 * The checksum covers the pairs in use, then the tail (behind the last possible pair) with its
 * checksum field as zero. The number of pairs is bounded here because it is read from the block,
 * which on a damaged image may belong to a second directory that changes it.
 */
static uint32_t index_csum(struct ext4_inode *dir, const uint8_t *data, unsigned ofs)
{
	static const uint8_t zero[4];
	unsigned count = FDIO_MIN(dir_index_block_count(data, ofs),
				  dir_index_block_limit(dir->vol, ofs));
	uint32_t c = fdio_crc32c(dir->checksum_seed, data, ofs + 8 * count);

	c = fdio_crc32c(c, data + ofs + 8 * dir_index_block_limit(dir->vol, ofs), 4);
	return fdio_crc32c(c, zero, 4);
}

/* Where the checksum of an index block stands. */
static unsigned index_csum_offset(const struct ext4_vol *vol, unsigned ofs)
{
	return ofs + 8 * dir_index_block_limit(vol, ofs) + 4;
}

void dir_index_block_seal(struct ext4_inode *dir, struct journal_buffer *buffer)
{
	unsigned ofs = dir_index_block_offset(dir->vol, buffer->data);

	if (dir->vol->has_csum)
		fdio_put_le32(buffer->data, index_csum_offset(dir->vol, ofs),
			      index_csum(dir, buffer->data, ofs));
	__atomic_store_n(&buffer->verified, EXT4_VERIFIED_HTREE, __ATOMIC_RELAXED);
}

/* ---- reading ---- */
int dir_block_check_entries(struct ext4_inode *dir, uint32_t lblk, uint64_t blk,
			    const uint8_t *data, unsigned from, unsigned to)
{
	struct ext4_vol *vol = dir->vol;
	struct dir_block_ent entry;

	for (unsigned off = from; off < to; off += entry.rec_len) {
		if (!dir_block_get(vol, data, to, off, &entry))
			return EXT4_CORRUPT(vol, dir->ino, blk,
					    "directory block %u: bad entry at %u", lblk, off);
		if (entry.ino == 0)
			continue;
		if (entry.ino > vol->nr_inodes)
			return EXT4_CORRUPT(vol, dir->ino, blk,
					  "directory block %u: inode %u at %u does not exist", lblk,
					  entry.ino, off);
		if (entry.name_len == 0 || memchr(entry.name, '/', entry.name_len) ||
		    memchr(entry.name, 0, entry.name_len))
			return EXT4_CORRUPT(vol, dir->ino, blk,
					  "directory block %u: impossible name at %u", lblk, off);
	}
	return 0;
}

static int verify_leaf(struct ext4_inode *dir, uint32_t lblk, const struct journal_buffer *buffer)
{
	struct ext4_vol *vol = dir->vol;

	if (vol->has_csum) {
		const uint8_t *tail = buffer->data + vol->block_size - DIR_TAIL_LEN;

		if (fdio_get_le32(tail, 0) || fdio_get_le16(tail, 4) != DIR_TAIL_LEN ||
		    fdio_get_le16(tail, 6) != EXT2_DIR_NAME_LEN_CSUM)
			return EXT4_CORRUPT(vol, dir->ino, buffer->blk,
					    "directory block %u has no checksum", lblk);
		if (fdio_get_le32(tail, 8) != leaf_csum(dir, buffer->data))
			return EXT4_CORRUPT(vol, dir->ino, buffer->blk,
					    "directory block %u: wrong checksum", lblk);
	}
	return dir_block_check_entries(dir, lblk, buffer->blk, buffer->data, 0,
				       dir_block_limit(vol));
}

static int verify_index(struct ext4_inode *dir, uint32_t lblk, const struct journal_buffer *buffer)
{
	struct ext4_vol *vol = dir->vol;
	unsigned ofs = dir_index_block_offset(vol, buffer->data), n, count;

	if (ofs == 0 || (ofs == DIR_INDEX_ROOT_OFS) != (lblk == 0))
		return EXT4_CORRUPT(vol, dir->ino, buffer->blk,
				    "directory block %u should be an index block", lblk);
	count = dir_index_block_count(buffer->data, ofs);
	if (fdio_get_le16(buffer->data, ofs) != dir_index_block_limit(vol, ofs) || count < 1 ||
	    count > dir_index_block_limit(vol, ofs))
		return EXT4_CORRUPT(vol, dir->ino, buffer->blk, "index block %u: %u entries of %u",
				    lblk, count, fdio_get_le16(buffer->data, ofs));
	if (vol->has_csum && fdio_get_le32(buffer->data, index_csum_offset(vol, ofs)) !=
					     index_csum(dir, buffer->data, ofs))
		return EXT4_CORRUPT(vol, dir->ino, buffer->blk, "index block %u: wrong checksum",
				    lblk);
	for (n = 2; n < count; n++)
		if (dir_index_block_hash(buffer->data, ofs, n) <
		    dir_index_block_hash(buffer->data, ofs, n - 1))
			return EXT4_CORRUPT(vol, dir->ino, buffer->blk,
					    "index block %u is out of order", lblk);
	return 0;
}

bool dir_block_is_index(struct ext4_inode *dir, uint32_t lblk, const uint8_t *data)
{
	if (!(dir_inode_flags(dir) & EXT2_INDEX_FL))
		return false;
	if (lblk == 0)
		return true;
	/*
	 * With checksums a leaf has a tail, so it never looks like an index node. Without checksums
	 * a block that looks like one is taken as an empty leaf.
	 */
	return dir->vol->has_csum && dir_index_block_offset(dir->vol, data) == DIR_INDEX_NODE_OFS;
}

int dir_block_read(struct ext4_inode *dir, uint32_t lblk, enum dir_block_kind kind,
		   struct journal_buffer **ret)
{
	struct ext4_vol *vol = dir->vol;
	struct journal_buffer *buffer;
	uint64_t blk;
	uint32_t bit;
	int err;

	if (ext4_inode_inline(dir))
		return -EOPNOTSUPP; /* no damage: an inline directory has no blocks */
	if (lblk >= dir_nr_blocks(dir))
		return EXT4_CORRUPT(vol, dir->ino, 0, "block %u is beyond the directory", lblk);
	err = ext4_bmap(dir, lblk, &blk);
	if (err == 0)
		err = journal_read_block(vol->journal, blk, &buffer);
	if (err)
		return err;
	if (kind == DIR_BLOCK_ANY)
		kind = dir_block_is_index(dir, lblk, buffer->data) ? DIR_BLOCK_INDEX
								   : DIR_BLOCK_LEAF;
	bit = kind == DIR_BLOCK_INDEX ? EXT4_VERIFIED_HTREE : EXT4_VERIFIED_DIR;
	if (!(__atomic_load_n(&buffer->verified, __ATOMIC_RELAXED) & bit)) {
		err = kind == DIR_BLOCK_INDEX ? verify_index(dir, lblk, buffer)
					      : verify_leaf(dir, lblk, buffer);
		if (err) {
			journal_buffer_release(buffer);
			return err;
		}
		__atomic_or_fetch(&buffer->verified, bit, __ATOMIC_RELAXED);
	}
	*ret = buffer;
	return 0;
}

int dir_block_pass_over(int r, unsigned *bad)
{
	return r == -EUCLEAN && (*bad)++ < DIR_BAD_MAX ? 0 : r;
}

/* ---- inside a leaf ---- */
bool dir_block_find(const struct ext4_vol *vol, const uint8_t *data, const char *name, unsigned len,
		    struct dir_block_ent *ret, unsigned *ret_prev)
{
	unsigned off = 0, limit = dir_block_limit(vol);

	*ret_prev = UINT_MAX;
	while (dir_block_get(vol, data, limit, off, ret)) {
		if (ret->ino && ret->name_len == len && memcmp(ret->name, name, len) == 0)
			return true;
		*ret_prev = off;
		off += ret->rec_len;
	}
	return false;
}

/* Free bytes of an entry: all of an unused entry, or the bytes behind the name of a used one. */
static unsigned slack(const struct dir_block_ent *entry)
{
	return entry->ino ? entry->rec_len - dir_rec_len(entry->name_len) : entry->rec_len;
}

unsigned dir_block_find_gap(const struct ext4_vol *vol, const uint8_t *data, unsigned need)
{
	unsigned off = 0, limit = dir_block_limit(vol);
	struct dir_block_ent entry;

	for (; dir_block_get(vol, data, limit, off, &entry); off += entry.rec_len)
		if (slack(&entry) >= need)
			return off;
	return UINT_MAX;
}

unsigned dir_block_max_gap(const struct ext4_vol *vol, const uint8_t *data)
{
	unsigned off = 0, limit = dir_block_limit(vol), max = 0;
	struct dir_block_ent entry;

	for (; dir_block_get(vol, data, limit, off, &entry); off += entry.rec_len)
		max = FDIO_MAX(max, slack(&entry));
	return max;
}

unsigned dir_block_insert(const struct ext4_vol *vol, uint8_t *data, unsigned off, uint32_t ino,
			  uint8_t file_type, const char *name, unsigned len)
{
	unsigned used, rec_len;
	struct dir_block_ent entry;

	FDIO_MUST(dir_block_get(vol, data, dir_block_limit(vol), off, &entry) &&
		  slack(&entry) >= dir_rec_len(len));
	rec_len = entry.rec_len;
	if (entry.ino) {
		used = dir_rec_len(entry.name_len);
		fdio_put_le16(data, off + 4, encode_rec_len(vol, used));
		off += used;
		rec_len -= used;
	}
	dir_block_put(vol, data, off, rec_len, ino, file_type, name, len);
	return off;
}

void dir_block_delete(const struct ext4_vol *vol, uint8_t *data, unsigned off, unsigned prev)
{
	unsigned limit = dir_block_limit(vol);
	struct dir_block_ent entry, before;

	FDIO_MUST(dir_block_get(vol, data, limit, off, &entry));
	/* The deleted name is overwritten too: later readers of the block must not see it. */
	if (prev == UINT_MAX) {
		fdio_put_le32(data, off, 0);
		memset(data + off + 6, 0, dir_rec_len(entry.name_len) - 6);
		return;
	}
	FDIO_MUST(dir_block_get(vol, data, limit, prev, &before) && prev + before.rec_len == off);
	fdio_put_le16(data, prev + 4, encode_rec_len(vol, before.rec_len + entry.rec_len));
	memset(data + off, 0, dir_rec_len(entry.name_len));
}

void dir_block_set(const struct ext4_vol *vol, uint8_t *data, unsigned off, uint32_t ino,
		   uint8_t file_type)
{
	fdio_put_le32(data, off, ino);
	if (vol->has_filetype)
		data[off + 7] = file_type;
}

uint32_t dir_nr_blocks(const struct ext4_inode *dir)
{
	uint64_t n = ext4_raw_size(dir) >> dir->vol->block_bits;

	return (uint32_t)FDIO_MIN(n, UINT32_MAX - 1);
}

void dir_readahead(struct ext4_inode *dir, uint32_t lblk, uint32_t nr)
{
	uint64_t first, next;
	unsigned n = 1;

	if (lblk % 32 || ext4_bmap(dir, lblk, &first))
		return;
	while (n < 32 && lblk + n < nr && ext4_bmap(dir, lblk + n, &next) == 0 && next == first + n)
		n++;
	if (n > 1)
		journal_readahead(dir->vol->journal, first, n);
}
