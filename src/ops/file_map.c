/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the blocks of a file are: the ioctl FDIO_IOC_MAP of our own tools. On workers, with the
 * inode locked shared. Fails with EINVAL, EOPNOTSUPP (no regular file), ENOMEM, and what reading
 * the map says.
 */
#include "message/ioctl.h"
#include "ops/types.h"

#include <stdlib.h>

/* The next run from *at on, which moves behind it. */
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

static int fill_map(struct ext4_inode *inode, unsigned bits, struct fdio_map *m)
{
	uint64_t at = m->start >> bits;
	struct ext4_extent extent = { 0 };
	bool more = true;
	int err = 0;

	if (!S_ISREG(ext4_inode_mode(inode)))
		return -EOPNOTSUPP;
	memset(m->run, 0, sizeof(m->run));
	m->nr = 0;
	ext4_inode_lock_shared(inode);
	while (!ext4_inode_inline(inode)) { /* which has no blocks */
		err = next_run(inode, &at, &extent, &more);
		if (err || !more || m->nr == FDIO_MAP_RUNS)
			break;
		m->run[m->nr++] = (struct fdio_map_run){
			(uint64_t)extent.lblk << bits, extent.pblk << bits,
			(uint64_t)extent.len << bits,
			extent.state == EXT4_EXTENT_UNWRITTEN ? FDIO_MAP_UNWRITTEN : 0, 0
		};
	}
	ext4_inode_unlock(inode);
	if (!err && !more && m->nr)
		m->run[m->nr - 1].flags |= FDIO_MAP_LAST;
	return err;
}

/* Too long for the stack: from the request's data to the payload, where the answer is built. */
void ops_reply_map(struct ops_req *req, const struct fuse_ioctl_in *in)
{
	struct fuse_ioctl_out out = { 0 };
	struct fdio_map *m = malloc(sizeof(*m));
	struct ext4_inode *inode;
	int err = m ? 0 : -ENOMEM;

	if (!err && (in->in_size != sizeof(*m) || in->out_size < sizeof(*m) ||
		     req->tr.in.rest_len < sizeof(*m)))
		err = -EINVAL;
	if (!err) {
		memcpy(m, req->tr.in.rest, sizeof(*m));
		err = ops_iget(req->ops, req->tr.in.header.nodeid, &inode);
	}
	if (!err) {
		err = fill_map(inode, ext4_vol_block_bits(req->ops->vol), m);
		ext4_inode_put(inode);
	}
	if (!err) {
		memcpy(req->tr.payload, &out, sizeof(out));
		memcpy(req->tr.payload + sizeof(out), m, sizeof(*m));
	}
	free(m);
	ops_reply(req, err, err ? 0 : (uint32_t)(sizeof(out) + sizeof(*m)));
}
