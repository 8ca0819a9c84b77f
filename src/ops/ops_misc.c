/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * STATFS: OPS_TRY; IOCTL: on workers. Ioctls: inode flags and project-free extended flags (chattr, lsattr), the generation,
 * FITRIM and shutting down. The kernel has checked ownership and capabilities of flag changes; the last two are checked here. An
 * unknown ioctl is ENOTTY.
 */
#include "ops/ops_types.h"
#include "protocol/pro_ioctl.h"

#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#define FL_USER_VISIBLE 0x725bdfffu

void ops_statfs(struct ops_req *q)
{
	struct fuse_statfs_out out = { 0 };
	struct x4_statfs s;

	x4_vol_statfs(q->ops->vol, &s);
	out.st = (struct fuse_kstatfs){
		.blocks = s.blocks, .bfree = s.bfree, .bavail = s.bavail, .files = s.files, .ffree = s.ffree,
		.bsize = s.bsize, .frsize = s.bsize, .namelen = s.namelen,
	};
	ops_reply_data(q, &out, sizeof(out));
}

/* The answer is built in the payload; data of the request must have been read by then. */
static void reply_ioctl(struct ops_req *q, const void *data, uint32_t len)
{
	struct fuse_ioctl_out out = { 0 };

	memcpy(q->tr.payload, &out, sizeof(out));
	if (len)
		memcpy(q->tr.payload + sizeof(out), data, len);
	ops_reply(q, 0, (uint32_t)sizeof(out) + len);
}

static int set_flags(struct ops_req *q, struct x4_inode *i, uint32_t want)
{
	struct x4_attr a = { .flags = want };
	bool sync = ops_is_sync(q->ops, i);
	int err;

	if (x4_vol_read_only(q->ops->vol))
		return -EROFS;
	if (((want ^ x4_inode_flags(i)) & FS_JOURNAL_DATA_FL) && q->tr.in.h.uid != 0)
		return -EPERM;
	err = x4_setattr(i, X4_SET_FLAGS, &a);
	/* The kernel does not expect an ioctl to change ctime and would show the old one. */
	if (!err && q->ops->tr)
		tr_notify_inval_inode(q->ops->tr, ops_nodeid(i), -1, 0);
	/* With the flag before, as any other change; and when it is this that sets it, which is the first one under it. */
	return err || !(sync || ops_is_sync(q->ops, i)) ? err : ops_wait_durable(q->ops, i, false);
}

static const struct { uint32_t x, fl; } xflag_map[] = {
	{ FS_XFLAG_SYNC, OPS_FL_SYNC }, { FS_XFLAG_IMMUTABLE, OPS_FL_IMMUTABLE }, { FS_XFLAG_APPEND, OPS_FL_APPEND },
	{ FS_XFLAG_NODUMP, OPS_FL_NODUMP }, { FS_XFLAG_NOATIME, OPS_FL_NOATIME }, { FS_XFLAG_DAX, FS_DAX_FL },
	{ FS_XFLAG_PROJINHERIT, FS_PROJINHERIT_FL },
};

/* What has no flag here is ignored, as ext4 does; projects are another feature. */
static int set_xflags(struct ops_req *q, struct x4_inode *i, const struct fsxattr *x)
{
	uint32_t want = x4_inode_flags(i) & FL_USER_VISIBLE;
	int err;

	for (unsigned k = 0; k < ARRAY_SIZE(xflag_map); k++)
		want = x->fsx_xflags & xflag_map[k].x ? want | xflag_map[k].fl : want & ~xflag_map[k].fl;
	err = set_flags(q, i, want);
	return !err && x->fsx_projid ? -EOPNOTSUPP : err;
}

static void get_xflags(struct x4_inode *i, struct fsxattr *x)
{
	uint32_t fl = x4_inode_flags(i);

	*x = (struct fsxattr){ 0 };
	for (unsigned k = 0; k < ARRAY_SIZE(xflag_map); k++)
		if (fl & xflag_map[k].fl)
			x->fsx_xflags |= xflag_map[k].x;
}

static int trim(struct ops_req *q, struct fstrim_range *r)
{
	uint64_t done = 0;
	int err;

	if (q->tr.in.h.uid != 0)
		return -EPERM;
	if (x4_vol_read_only(q->ops->vol))
		return -EROFS;
	err = x4_vol_trim(q->ops->vol, r->start, r->len, r->minlen, &done);
	r->len = done;
	return err;
}

/*
 * FUSE hands over the argument as the direction in the number says. EXT4_IOC_SHUTDOWN is declared as one that returns its
 * argument, so its flags never arrive: it is the default way. The same number declared the right way round has flags.
 */
#define IOC_SHUTDOWN _IOR('X', 125, uint32_t)
#define IOC_SHUTDOWN_FLAGS _IOW('X', 125, uint32_t)

/* What the page cache holds would be read without asking us. */
static void forget_pages(struct ops *o)
{
	uint64_t ids[64];
	uint32_t index = 0;
	unsigned nr;

	do {
		nr = ops_files_nodeids(o, &index, ids, ARRAY_SIZE(ids));
		for (unsigned k = 0; k < nr; k++)
			(void)tr_notify_inval_inode(o->tr, ids[k], 0, 0);
	} while (nr);
}

static int shut_down(struct ops_req *q, uint32_t flags)
{
	static const enum x4_shutdown how[] = { X4_SHUTDOWN_DEFAULT, X4_SHUTDOWN_LOGFLUSH, X4_SHUTDOWN_NOLOGFLUSH };
	int err;

	if (q->tr.in.h.uid != 0)
		return -EPERM;
	if (flags >= ARRAY_SIZE(how))
		return -EINVAL;
	err = x4_vol_shutdown(q->ops->vol, how[flags]);
	if (!err)
		forget_pages(q->ops);
	return err;
}

static int run_ioctl(struct ops_req *q, struct x4_inode *i, const struct fuse_ioctl_in *in, void *data, uint32_t *ret_len)
{
	uint32_t v = 0;

	*ret_len = 0;
	switch (in->cmd) {
	case FS_IOC_GETFLAGS:
	case FS_IOC32_GETFLAGS:
		v = x4_inode_flags(i) & FL_USER_VISIBLE;
		break;
	case FS_IOC_GETVERSION:
	case FS_IOC32_GETVERSION:
		v = x4_inode_gen(i);
		break;
	case FS_IOC_SETFLAGS:
	case FS_IOC32_SETFLAGS:
		memcpy(&v, data, sizeof(v));
		return in->in_size >= sizeof(v) ? set_flags(q, i, v) : -EINVAL;
	case FS_IOC_FSGETXATTR:
		get_xflags(i, data);
		*ret_len = sizeof(struct fsxattr);
		return *ret_len <= in->out_size ? 0 : -EINVAL;
	case FS_IOC_FSSETXATTR:
		return in->in_size >= sizeof(struct fsxattr) ? set_xflags(q, i, data) : -EINVAL;
	case FITRIM:
		*ret_len = sizeof(struct fstrim_range);
		return in->in_size >= *ret_len && in->out_size >= *ret_len ? trim(q, data) : -EINVAL;
	case IOC_SHUTDOWN:
		return shut_down(q, 0);
	case IOC_SHUTDOWN_FLAGS:
		memcpy(&v, data, sizeof(v));
		return in->in_size >= sizeof(v) ? shut_down(q, v) : -EINVAL;
	default:
		return -ENOTTY;
	}
	memcpy(data, &v, sizeof(v));
	*ret_len = sizeof(v);
	return in->out_size >= sizeof(v) ? 0 : -EINVAL;
}

/* ------------------------------------------------------------------ where the blocks are */

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
	for (;;) {
		err = next_run(i, &at, &x, &more);
		if (err || !more || m->nr == FDIO_MAP_RUNS)
			break;
		m->run[m->nr++] = (struct fdio_map_run){ (uint64_t)x.lblk << bits, x.pblk << bits, (uint64_t)x.len << bits,
							 x.state == X4_EXT_UNWRITTEN ? FDIO_MAP_UNWRITTEN : 0, 0 };
	}
	x4_inode_unlock(i);
	if (!err && !more && m->nr)
		m->run[m->nr - 1].flags |= FDIO_MAP_LAST;
	return err;
}

/* Too long for the stack: from the request's data to the payload, where the answer is built. */
static void reply_map(struct ops_req *q, const struct fuse_ioctl_in *in)
{
	struct fuse_ioctl_out out = { 0 };
	struct fdio_map *m = malloc(sizeof(*m));
	struct x4_inode *i;
	int err = m ? 0 : -ENOMEM;

	if (!err && (in->in_size != sizeof(*m) || in->out_size < sizeof(*m) || q->tr.in.rest_len < sizeof(*m)))
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

void ops_ioctl(struct ops_req *q)
{
	const struct fuse_ioctl_in *in = ops_arg(q);
	union { struct fsxattr x; struct fstrim_range t; uint8_t raw[64]; } data = { .raw = { 0 } };
	struct x4_inode *i;
	uint32_t len;
	int err;

	if (in->in_size > q->tr.in.rest_len) {
		ops_reply_err(q, -EINVAL);
		return;
	}
	if (in->cmd == FDIO_IOC_MAP) {
		reply_map(q, in);
		return;
	}
	memcpy(data.raw, q->tr.in.rest, FDIO_MIN(in->in_size, (uint32_t)sizeof(data.raw)));
	err = ops_iget(q->ops, q->tr.in.h.nodeid, &i);
	if (!err) {
		err = run_ioctl(q, i, in, data.raw, &len);
		x4_iput(i);
	}
	if (err)
		ops_reply_err(q, err);
	else
		reply_ioctl(q, data.raw, len);
}
