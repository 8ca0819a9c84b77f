/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The two places where an inode keeps attributes (places.h): where its own space lies; its
 * attribute block, read and verified, made, and given up. Other inodes may own the same block: its
 * header counts the owners.
 *
 * Workers, and loop threads in the mode of base/nowait.h; giving the block up also on the ticker
 * and on the thread that mounts or unmounts, for a deleted inode. The caller has the inode locked,
 * or alone. Changes run in its handle, which it cancels after an error. Damage is -EUCLEAN.
 */
#include "ext4/xattr/places.h"

#include "base/crc32c.h"
#include "ext4/inode/inode_change.h"
#include "ext4/xattr/xattr.h"

/* ---- the inode's own space ---- */

uint8_t *ext4_xattr_inode_space(const struct ext4_inode *inode, uint32_t *ret_len,
				uint32_t **ret_magic)
{
	const uint32_t magic_len = sizeof(**ret_magic), extra = inode->raw->i_extra_isize,
		       start = EXT4_XATTR_OLD_INODE + extra, inode_size = inode->vol->inode_size;

	if (inode_size <= EXT4_XATTR_OLD_INODE || !extra || (extra & 3) ||
	    start + magic_len + EXT4_XATTR_END > inode_size)
		return NULL;
	*ret_magic = (uint32_t *)((uint8_t *)inode->raw + start);
	*ret_len = inode_size - start - magic_len;
	return (uint8_t *)inode->raw + start + magic_len;
}

bool ext4_xattr_present(const struct ext4_inode *inode)
{
	uint32_t len, *magic;

	return ext4_raw_file_acl(inode) ||
	       (ext4_xattr_inode_space(inode, &len, &magic) && *magic == EXT2_EXT_ATTR_MAGIC);
}

/* ---- the attribute block ---- */

uint64_t ext4_raw_file_acl(const struct ext4_inode *inode)
{
	uint64_t blk = inode->raw->i_file_acl;

	if (inode->vol->has_64bit)
		blk |= (uint64_t)inode->raw->osd2.linux2.l_i_file_acl_high << 32;
	return blk;
}

static void raw_set_file_acl(struct ext4_inode *inode, uint64_t blk)
{
	inode->raw->i_file_acl = (uint32_t)blk;
	if (inode->vol->has_64bit)
		inode->raw->osd2.linux2.l_i_file_acl_high = (uint16_t)(blk >> 32);
}

static uint32_t block_checksum(struct ext4_vol *vol, uint64_t blk, const uint8_t *data)
{
	static const uint8_t zero[4];
	size_t at = offsetof(struct ext2_ext_attr_header, h_checksum);
	uint32_t c = fdio_crc32c(vol->checksum_seed, &blk, 8);

	c = fdio_crc32c(c, data, at);
	c = fdio_crc32c(c, zero, 4);
	return fdio_crc32c(c, data + at + 4, vol->block_size - at - 4);
}

static void write_checksum(struct ext4_vol *vol, struct journal_buffer *buffer)
{
	if (vol->has_csum)
		ext4_xattr_header(buffer)->h_checksum =
			block_checksum(vol, buffer->blk, buffer->data);
}

void ext4_xattr_block_seal(struct ext4_vol *vol, struct journal_buffer *buffer)
{
	write_checksum(vol, buffer);
	__atomic_store_n(&buffer->verified, EXT4_VERIFIED_XATTR, __ATOMIC_RELAXED);
}

/* What is wrong with the block; NULL: nothing. */
static const char *block_fault(struct ext4_vol *vol, struct journal_buffer *buffer)
{
	const struct ext2_ext_attr_header *header = ext4_xattr_header(buffer);

	if (header->h_magic != EXT2_EXT_ATTR_MAGIC || header->h_blocks != 1 || !header->h_refcount)
		return "bad header of the extended attribute block";
	if (vol->has_csum && header->h_checksum != block_checksum(vol, buffer->blk, buffer->data))
		return "wrong checksum of the extended attribute block";
	return NULL;
}

int ext4_xattr_block_read(struct ext4_inode *inode, uint64_t blk, struct journal_buffer **ret)
{
	struct ext4_vol *vol = inode->vol;
	struct journal_buffer *buffer;
	int err;

	if (!ext4_blocks_valid(vol, blk, 1))
		return EXT4_CORRUPT(vol, inode->ino, blk, "impossible extended attribute block");
	err = journal_read_block(vol->journal, blk, &buffer);
	if (err)
		return err;
	if (!(__atomic_load_n(&buffer->verified, __ATOMIC_RELAXED) & EXT4_VERIFIED_XATTR)) {
		const char *fault = block_fault(vol, buffer);

		if (fault) {
			journal_buffer_release(buffer);
			return EXT4_CORRUPT(vol, inode->ino, blk, "%s", fault);
		}
		__atomic_fetch_or(&buffer->verified, EXT4_VERIFIED_XATTR, __ATOMIC_RELAXED);
	}
	*ret = buffer;
	return 0;
}

int ext4_xattr_drop_block(struct journal_handle *handle, struct ext4_inode *inode)
{
	struct ext4_vol *vol = inode->vol;
	uint64_t blk = ext4_raw_file_acl(inode);
	struct journal_buffer *buffer;
	int err;

	if (!blk)
		return 0;
	err = ext4_xattr_block_read(inode, blk, &buffer);
	if (err)
		return err;
	if (ext4_xattr_header(buffer)->h_refcount > 1) { /* XATTR-2 */
		err = journal_get_write(handle, buffer);
		if (!err) {
			ext4_xattr_header(buffer)->h_refcount--;
			write_checksum(vol, buffer);
		}
		journal_buffer_release(buffer);
	} else {
		journal_buffer_release(buffer);
		err = ext4_blocks_free(handle, inode, blk, 1, true);
	}
	if (err)
		return err;
	raw_set_file_acl(inode, 0);
	return ext4_raw_add_blocks(inode, -1);
}

static int new_block(struct journal_handle *handle, struct ext4_inode *inode,
		     struct journal_buffer **ret)
{
	uint64_t blk;
	uint32_t n;
	int err = ext4_blocks_alloc(handle, inode, 0, 1, &blk, &n);

	if (!err)
		err = journal_new_block(handle, blk, ret);
	if (err)
		return err;
	raw_set_file_acl(inode, blk);
	err = ext4_raw_add_blocks(inode, 1);
	if (err)
		journal_buffer_release(*ret);
	return err;
}

int ext4_xattr_block_begin(struct journal_handle *handle, struct ext4_inode *inode,
			   struct journal_buffer **ret)
{
	uint64_t blk = ext4_raw_file_acl(inode);
	int err;

	if (!blk)
		return new_block(handle, inode, ret);
	err = ext4_xattr_block_read(inode, blk, ret);
	if (err)
		return err;
	if (ext4_xattr_header(*ret)->h_refcount == 1) {
		err = journal_get_write(handle, *ret);
		if (err)
			journal_buffer_release(*ret);
		return err;
	}
	journal_buffer_release(*ret);
	err = ext4_xattr_drop_block(handle, inode);
	return err ? err : new_block(handle, inode, ret);
}
