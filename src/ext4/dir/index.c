/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The hash index of a directory, and searching it. Block 0 is the root: "." and "..", then pairs
 * (hash, block) in ascending order; a pair covers the hashes from its own to that of the next pair.
 * Below the root are up to two more levels of index nodes, then leaves, which are ordinary
 * directory blocks whose names are in no order. The lowest bit of a name's hash is 0. In a pair it
 * is the continuation bit: 1 when names with this very hash begin in the leaf before, so a search
 * that did not find its name goes on in the next leaf.
 *
 * index_add.c adds names. Threads: ops workers, and loop threads in the mode of base/nowait.h.
 * Called with dir->rw held. Damage is -EUCLEAN.
 */
#include "ext4/dir/index.h"

#include "base/crc32c.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* In positions of a listing this hash is the end, so no name may have it. */
#define DIR_INDEX_HASH_EOF 0xfffffffeu

void dir_set_indexed(struct ext4_inode *dir, bool indexed)
{
	uint32_t others = dir_inode_flags(dir) & ~(uint32_t)EXT2_INDEX_FL;

	fdio_mutex_lock(&dir->attr);
	fdio_put_le32(&dir->raw->i_flags, 0, others | (indexed ? EXT2_INDEX_FL : 0));
	fdio_mutex_unlock(&dir->attr);
}

uint8_t dir_index_default_version(const struct ext4_vol *vol)
{
	uint8_t def = vol->fs->super->s_def_hash_version;

	return def <= EXT2_HASH_TEA ? def : EXT2_HASH_HALF_MD4;
}

unsigned dir_index_max_levels(const struct ext4_vol *vol)
{
	return vol->has_large_dir ? DIR_INDEX_MAX_LEVELS : DIR_INDEX_MAX_LEVELS - 1;
}

void dir_index_hash(const struct ext4_vol *vol, uint8_t version, const char *name, unsigned len,
		    uint32_t *ret_hash, uint32_t *ret_minor)
{
	int how = version + (vol->fs->super->s_flags & EXT2_FLAGS_UNSIGNED_HASH ? 3 : 0);
	ext2_dirhash_t hash = 0, minor = 0;

	/* ext2fs_dirhash2 fails only for versions that verify_root has refused. */
	ext2fs_dirhash2(how, name, (int)len, NULL, 0, vol->fs->super->s_hash_seed, &hash, &minor);
	hash &= ~1u;
	*ret_hash = hash == DIR_INDEX_HASH_EOF ? DIR_INDEX_HASH_EOF - 2 : hash;
	/*
	 * The legacy hash has no minor half, and many names share a hash, so listing orders them by
	 * another hash of the name.
	 */
	*ret_minor = version == EXT2_HASH_LEGACY ? fdio_crc32c(~0u, name, len) : minor;
}

/* ---- search ---- */
void dir_index_release(struct dir_index_path *path)
{
	for (unsigned n = 0; n < DIR_INDEX_MAX_LEVELS; n++)
		journal_buffer_release(path->frame[n].buffer);
	memset(path->frame, 0, sizeof path->frame);
	dir_seen_clear(&path->seen);
}

uint32_t dir_index_leaf(const struct dir_index_path *path)
{
	const struct dir_index_frame *frame = &path->frame[path->levels - 1];

	return dir_index_block_block(frame->buffer->data, frame->ofs, frame->at);
}

static int frame_load(struct ext4_inode *dir, uint32_t lblk, struct dir_index_frame *frame)
{
	struct ext4_vol *vol = dir->vol;
	int err = dir_block_read(dir, lblk, DIR_BLOCK_INDEX, &frame->buffer);

	if (err) {
		frame->buffer = NULL;
		return err;
	}
	frame->ofs = dir_index_block_offset(vol, frame->buffer->data);
	frame->at = 0;
	frame->limit = frame->ofs ? dir_index_block_limit(vol, frame->ofs) : 0;
	frame->count = frame->ofs ? dir_index_block_count(frame->buffer->data, frame->ofs) : 0;
	if (frame->count < 1 || frame->count > frame->limit ||
	    (frame->ofs == DIR_INDEX_ROOT_OFS) != (lblk == 0))
		return EXT4_CORRUPT(vol, dir->ino, frame->buffer->blk,
				    "block %u is not a sound index block", lblk);
	return 0;
}

/* The last pair whose hash is not above the wanted one. */
static unsigned frame_search(const struct dir_index_frame *frame, uint32_t hash)
{
	unsigned lo = 1, hi = frame->count;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (dir_index_block_hash(frame->buffer->data, frame->ofs, mid) > hash)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo - 1;
}

static int verify_root(struct ext4_inode *dir, struct dir_index_path *path)
{
	const uint8_t *data = path->frame[0].buffer->data;

	path->version = data[DIR_INDEX_ROOT_VERSION];
	path->levels = data[DIR_INDEX_ROOT_LEVELS] + 1u;
	if (path->version > EXT2_HASH_TEA)
		return EXT4_CORRUPT(dir->vol, dir->ino, path->frame[0].buffer->blk,
				    "unknown directory hash %u", path->version);
	if (path->levels > dir_index_max_levels(dir->vol))
		return EXT4_CORRUPT(dir->vol, dir->ino, path->frame[0].buffer->blk,
				    "directory index is %u levels deep", path->levels);
	return 0;
}

int dir_index_probe(struct ext4_inode *dir, const char *name, unsigned len, uint32_t *hash,
		    struct dir_index_path *path)
{
	uint32_t lblk = 0, minor;
	int err;

	memset(path, 0, sizeof *path);
	err = frame_load(dir, 0, &path->frame[0]);
	if (err == 0)
		err = verify_root(dir, path);
	if (err)
		return err;
	if (name)
		dir_index_hash(dir->vol, path->version, name, len, hash, &minor);
	for (unsigned n = 0; n < path->levels; n++) {
		struct dir_index_frame *frame = &path->frame[n];

		if (n && (err = frame_load(dir, lblk, frame)))
			return err;
		frame->at = frame_search(frame, *hash);
		lblk = dir_index_block_block(frame->buffer->data, frame->ofs, frame->at);
		if (lblk == 0)
			return EXT4_CORRUPT(dir->vol, dir->ino, frame->buffer->blk,
					    "directory index points at its root");
	}
	return 0;
}

/*
 * Notes that the walk is done with the leaf where the path ends. Without this, a walk through an
 * index that leads back to a leaf would never end.
 */
static int leave_leaf(struct ext4_inode *dir, struct dir_index_path *path)
{
	int err = dir_seen_add(&path->seen, dir_index_leaf(path));

	if (err < 0)
		return err;
	return err ? 0
		   : EXT4_CORRUPT(dir->vol, dir->ino, 0, "directory index leads to block %u twice",
				  dir_index_leaf(path));
}

int dir_index_next(struct ext4_inode *dir, struct dir_index_path *path, uint32_t *ret_hash)
{
	unsigned n = path->levels;
	int err = leave_leaf(dir, path);

	*ret_hash = 0;
	if (err)
		return err;
	while (n > 0 && path->frame[n - 1].at + 1 >= path->frame[n - 1].count)
		n--;
	if (n == 0)
		return 0;
	path->frame[n - 1].at++;
	*ret_hash = dir_index_block_hash(path->frame[n - 1].buffer->data, path->frame[n - 1].ofs,
					 path->frame[n - 1].at);
	for (; n < path->levels; n++) {
		uint32_t lblk = dir_index_block_block(path->frame[n - 1].buffer->data,
						      path->frame[n - 1].ofs,
						      path->frame[n - 1].at);

		journal_buffer_release(path->frame[n].buffer);
		path->frame[n].buffer = NULL;
		err = frame_load(dir, lblk, &path->frame[n]);
		if (err)
			return err;
	}
	return 1;
}

int dir_index_find(struct ext4_inode *dir, const char *name, unsigned len, struct dir_pos *ret)
{
	uint32_t hash, next;
	struct dir_index_path path;
	struct dir_block_ent entry;
	struct journal_buffer *buffer;
	unsigned prev;
	int err = dir_index_probe(dir, name, len, &hash, &path);

	for (bool hit = false; err == 0 && !hit;) {
		uint32_t lblk = dir_index_leaf(&path);

		err = dir_block_read(dir, lblk, DIR_BLOCK_LEAF, &buffer);
		if (err)
			break;
		hit = dir_block_find(dir->vol, buffer->data, name, len, &entry, &prev);
		if (hit)
			*ret = (struct dir_pos){ lblk, entry.off, entry.ino, entry.file_type };
		journal_buffer_release(buffer);
		if (hit)
			break;
		err = dir_index_next(dir, &path, &next);
		if (err == 0 || (err == 1 && next != (hash | 1)))
			err = -ENOENT;
		else if (err == 1)
			err = 0;
	}
	dir_index_release(&path);
	return err;
}
