/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * SEEK_DATA and SEEK_HOLE from the extent map. Workers of ops; loads the map if it is missing.
 * Unwritten extents read as zeroes and count as holes; the end of the file is a hole. Blocks behind
 * i_size are never reported. Fails with -ENXIO beyond the end, or as ext4_map_load does.
 */
#include "ext4/data/extent.h"

#include <errno.h>

int ext4_seek(struct ext4_inode *inode, uint64_t off, bool want_data, uint64_t *ret)
{
	uint64_t size = ext4_inode_size(inode), at = off;
	unsigned bits = inode->vol->block_bits;

	if (off >= size)
		return -ENXIO;
	if (ext4_inode_inline(inode)) {
		*ret = want_data ? off : size;
		return 0;
	}
	while (at < size && at >> bits < EXT4_LBLK_END) {
		struct ext4_extent extent;
		int err = ext4_map_lookup_load(inode, at >> bits, &extent);

		if (err)
			return err;
		if ((extent.state == EXT4_EXTENT_WRITTEN) == want_data) {
			*ret = at;
			return 0;
		}
		at = ext4_extent_end(&extent) << bits;
	}
	if (want_data)
		return -ENXIO;
	*ret = size;
	return 0;
}
