/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the blocks of a file are: the ioctl FDIO_IOC_MAP of fusedio's own tools (message/ioctl.h).
 * On workers, with the inode locked shared. Fails with EINVAL, EOPNOTSUPP (not a regular file),
 * ENOMEM, and with what reading the extent map says.
 */
#include "message/ioctl.h"
#include "ops/types.h"

#include <stdlib.h>

/*
 * Finds the next extent from block *at on that is not a hole, and moves *at behind it. Sets
 * *ret_more to false if there is none.
 */
static int next_run(struct ext4_inode *inode, uint64_t *at, struct ext4_extent *extent,
		    bool *ret_more)
{
	*ret_more = false;
	while (*at < UINT32_MAX) {
		int err = ext4_map_lookup(inode, (uint32_t)*at, extent);

		if (err == -EAGAIN) {
			err = ext4_map_load(inode);
			if (!err)
				continue;
		}
		if (err || !extent->len)
			return err;
		*at += extent->len;
		*ret_more = extent->state != EXT4_EXTENT_HOLE;
		if (*ret_more)
			break;
	}
	return 0;
}

/* Fills in the runs from map->start on. block_bits: log2 of the block size. */
static int fill_map(struct ext4_inode *inode, unsigned block_bits, struct fdio_map *map)
{
	uint64_t at = map->start >> block_bits;
	struct ext4_extent extent = { 0 };
	bool more = true;
	int err = 0;

	if (!S_ISREG(ext4_inode_mode(inode)))
		return -EOPNOTSUPP;
	memset(map->run, 0, sizeof(map->run));
	map->nr = 0;
	ext4_inode_lock_shared(inode);
	while (!ext4_inode_inline(inode)) { /* data in the inode has no blocks */
		err = next_run(inode, &at, &extent, &more);
		if (err || !more || map->nr == FDIO_MAP_RUNS)
			break;
		map->run[map->nr++] = (struct fdio_map_run){
			(uint64_t)extent.lblk << block_bits, extent.pblk << block_bits,
			(uint64_t)extent.len << block_bits,
			extent.state == EXT4_EXTENT_UNWRITTEN ? FDIO_MAP_UNWRITTEN : 0, 0
		};
	}
	ext4_inode_unlock(inode);
	if (!err && !more && map->nr)
		map->run[map->nr - 1].flags |= FDIO_MAP_LAST;
	return err;
}

/*
 * The map is too large for the stack, and cannot be built in the payload, which still holds the
 * request's data.
 */
void ops_reply_map(struct ops_req *req, const struct fuse_ioctl_in *in)
{
	struct fuse_ioctl_out out = { 0 };
	struct fdio_map *map = malloc(sizeof(*map));
	struct ext4_inode *inode;
	int err = map ? 0 : -ENOMEM;

	if (!err && (in->in_size != sizeof(*map) || in->out_size < sizeof(*map) ||
		     req->fuse.in.rest_len < sizeof(*map)))
		err = -EINVAL;
	if (!err) {
		memcpy(map, req->fuse.in.rest, sizeof(*map));
		err = ops_inode_get(req->ops, req->fuse.in.header.nodeid, &inode);
	}
	if (!err) {
		err = fill_map(inode, ext4_vol_block_bits(req->ops->vol), map);
		ext4_inode_put(inode);
	}
	if (!err) {
		memcpy(req->fuse.payload, &out, sizeof(out));
		memcpy(req->fuse.payload + sizeof(out), map, sizeof(*map));
	}
	free(map);
	ops_reply(req, err, err ? 0 : (uint32_t)(sizeof(out) + sizeof(*map)));
}
