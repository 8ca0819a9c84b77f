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
static int next_run(struct x4_inode *i, uint64_t *at, struct x4_ext *x, bool *ret_more)
{
	*ret_more = false;
	while (*at < UINT32_MAX) {
		int err = x4_map_lookup(i, (uint32_t)*at, x);

		if (err == -EAGAIN) {
			err = x4_map_load(i);
			if (!err)
				continue;
		}
		if (err || !x->len)
			return err;
		*at += x->len;
		*ret_more = x->state != X4_EXT_HOLE;
		if (*ret_more)
			break;
	}
	return 0;
}

static int fill_map(struct x4_inode *i, unsigned bits, struct fdio_map *m)
{
	uint64_t at = m->start >> bits;
	struct x4_ext x = { 0 };
	bool more = true;
	int err = 0;

	if (!S_ISREG(x4_inode_mode(i)))
		return -EOPNOTSUPP;
	memset(m->run, 0, sizeof(m->run));
	m->nr = 0;
	x4_inode_lock_shared(i);
	while (!x4_inode_inline(i)) { /* which has no blocks */
		err = next_run(i, &at, &x, &more);
		if (err || !more || m->nr == FDIO_MAP_RUNS)
			break;
		m->run[m->nr++] = (struct fdio_map_run){
			(uint64_t)x.lblk << bits, x.pblk << bits, (uint64_t)x.len << bits,
			x.state == X4_EXT_UNWRITTEN ? FDIO_MAP_UNWRITTEN : 0, 0
		};
	}
	x4_inode_unlock(i);
	if (!err && !more && m->nr)
		m->run[m->nr - 1].flags |= FDIO_MAP_LAST;
	return err;
}

/* Too long for the stack: from the request's data to the payload, where the answer is built. */
void ops_reply_map(struct ops_req *q, const struct fuse_ioctl_in *in)
{
	struct fuse_ioctl_out out = { 0 };
	struct fdio_map *m = malloc(sizeof(*m));
	struct x4_inode *i;
	int err = m ? 0 : -ENOMEM;

	if (!err && (in->in_size != sizeof(*m) || in->out_size < sizeof(*m) ||
		     q->tr.in.rest_len < sizeof(*m)))
		err = -EINVAL;
	if (!err) {
		memcpy(m, q->tr.in.rest, sizeof(*m));
		err = ops_iget(q->ops, q->tr.in.h.nodeid, &i);
	}
	if (!err) {
		err = fill_map(i, x4_vol_block_bits(q->ops->vol), m);
		x4_iput(i);
	}
	if (!err) {
		memcpy(q->tr.payload, &out, sizeof(out));
		memcpy(q->tr.payload + sizeof(out), m, sizeof(*m));
	}
	free(m);
	ops_reply(q, err, err ? 0 : (uint32_t)(sizeof(out) + sizeof(*m)));
}
