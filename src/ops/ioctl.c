/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * STATFS: OPS_TRY; IOCTL: on workers. Ioctls: inode flags and project-free extended flags (chattr, lsattr), the generation,
 * FITRIM, the label and shutting down; the table below has them all. An unknown ioctl is ENOTTY.
 *
 * Who may: the kernel checks and translates the numbers that it knows, and passes on all others as they are, from anybody who has
 * the file open in whatever way. So each ioctl has its condition in the table, and a number is served only where
 * the kernel would have caught it, or where it cannot mean anything else.
 */
#include "message/ioctl.h"
#include "ops/types.h"

#include <linux/capability.h>
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

	if (((want ^ x4_inode_flags(i)) & FS_JOURNAL_DATA_FL) && !ops_capable(q, CAP_SYS_RESOURCE))
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
	int err = x4_vol_trim(q->ops->vol, r->start, r->len, r->minlen, &done);

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

	if (flags >= ARRAY_SIZE(how))
		return -EINVAL;
	err = x4_vol_shutdown(q->ops->vol, how[flags]);
	if (!err)
		forget_pages(q->ops);
	return err;
}

/* ------------------------------------------------------------------ the table */

/* What comes in and goes out; the numbers say how much of it. */
union ioctl_data {
	uint32_t v;
	struct fsxattr x;
	struct fstrim_range t;
	char label[FSLABEL_MAX];
	uint8_t raw[FSLABEL_MAX];
};

static int get_flags(struct ops_req *q, struct x4_inode *i, union ioctl_data *d)
{
	(void)q;
	d->v = x4_inode_flags(i) & FL_USER_VISIBLE;
	return 0;
}

static int put_flags(struct ops_req *q, struct x4_inode *i, union ioctl_data *d) { return set_flags(q, i, d->v); }

static int get_version(struct ops_req *q, struct x4_inode *i, union ioctl_data *d)
{
	(void)q;
	d->v = x4_inode_gen(i);
	return 0;
}

static int get_fsx(struct ops_req *q, struct x4_inode *i, union ioctl_data *d)
{
	(void)q;
	get_xflags(i, &d->x);
	return 0;
}

static int put_fsx(struct ops_req *q, struct x4_inode *i, union ioctl_data *d)
{
	return set_xflags(q, i, &d->x);
}

static int get_label(struct ops_req *q, struct x4_inode *i, union ioctl_data *d)
{
	(void)i;
	memset(d->label, 0, sizeof(d->label));
	x4_vol_label(q->ops->vol, d->label);
	return 0;
}

/* A name that fills the field is not terminated there. */
static int put_label(struct ops_req *q, struct x4_inode *i, union ioctl_data *d)
{
	(void)i;
	if (strnlen(d->label, sizeof(d->label)) > X4_LABEL_MAX)
		return -EINVAL;
	return x4_vol_set_label(q->ops->vol, d->label);
}

static int do_trim(struct ops_req *q, struct x4_inode *i, union ioctl_data *d)
{
	(void)i;
	return trim(q, &d->t);
}

static int do_shutdown(struct ops_req *q, struct x4_inode *i, union ioctl_data *d)
{
	(void)i;
	(void)d;
	return shut_down(q, 0);
}

static int do_shutdown_flags(struct ops_req *q, struct x4_inode *i, union ioctl_data *d)
{
	(void)i;
	return shut_down(q, d->v);
}

/*
 * Numbers with a long in them have two forms. The kernel catches its own form of those that it knows, and translates that of
 * programs with shorter longs; so the other form is nobody's, or it is a way around the kernel's checks.
 */
enum form {
	ANY_FORM,
	LONG_64,      /* a program with long longs */
	LONG_32,      /* a program with short ones */
	KERNEL_LONG_32 /* a kernel with short ones */
};

enum who { ANYBODY, OWNER, ADMIN };

struct ioctl_def {
	uint32_t cmd;
	uint8_t form, who;
	bool change;          /* EROFS where nothing can be changed */
	uint16_t in, out;     /* bytes that it takes and gives */
	int (*fn)(struct ops_req *q, struct x4_inode *i, union ioctl_data *d);
};

#define FSX sizeof(struct fsxattr)
#define RANGE sizeof(struct fstrim_range)

static const struct ioctl_def ioctls[] = {
	{ _IOR('f', 1, int64_t), LONG_64, ANYBODY, false, 0, 4, get_flags },
	{ _IOR('f', 1, int32_t), KERNEL_LONG_32, ANYBODY, false, 0, 4, get_flags },
	{ _IOW('f', 2, int64_t), LONG_64, OWNER, true, 4, 0, put_flags },
	{ _IOW('f', 2, int32_t), KERNEL_LONG_32, OWNER, true, 4, 0, put_flags },
	{ _IOR('v', 1, int64_t), LONG_64, ANYBODY, false, 0, 4, get_version },
	{ _IOR('v', 1, int32_t), LONG_32, ANYBODY, false, 0, 4, get_version },
	{ FS_IOC_FSGETXATTR, ANY_FORM, ANYBODY, false, 0, FSX, get_fsx },
	{ FS_IOC_FSSETXATTR, ANY_FORM, OWNER, true, FSX, 0, put_fsx },
	{ FS_IOC_GETFSLABEL, ANY_FORM, ANYBODY, false, 0, FSLABEL_MAX, get_label },
	{ FS_IOC_SETFSLABEL, ANY_FORM, ADMIN, true, FSLABEL_MAX, 0, put_label },
	{ FITRIM, ANY_FORM, ADMIN, true, RANGE, RANGE, do_trim },
	{ IOC_SHUTDOWN, ANY_FORM, ADMIN, false, 0, 0, do_shutdown },
	{ IOC_SHUTDOWN_FLAGS, ANY_FORM, ADMIN, false, 4, 0, do_shutdown_flags },
};

static bool in_form(enum form form, uint32_t flags)
{
	bool shorter = flags & (FUSE_IOCTL_32BIT | FUSE_IOCTL_COMPAT), compat = flags & FUSE_IOCTL_COMPAT;

	switch (form) {
	case LONG_64: return !shorter;
	case LONG_32: return shorter;
	case KERNEL_LONG_32: return shorter && !compat;
	default: return true;
	}
}

static const struct ioctl_def *find_ioctl(const struct fuse_ioctl_in *in)
{
	for (unsigned k = 0; k < ARRAY_SIZE(ioctls); k++)
		if (ioctls[k].cmd == in->cmd && in_form((enum form)ioctls[k].form, in->flags))
			return &ioctls[k];
	return NULL;
}

static bool may(const struct ops_req *q, struct x4_inode *i, enum who who)
{
	uint32_t uid = q->tr.in.h.uid;
	struct x4_attr a;

	switch (who) {
	case OWNER:
		x4_getattr(i, &a);
		return uid == 0 || uid == a.uid || ops_capable(q, CAP_FOWNER);
	case ADMIN: return ops_capable(q, CAP_SYS_ADMIN);
	default: return true;
	}
}

static int run_ioctl(struct ops_req *q, struct x4_inode *i, const struct fuse_ioctl_in *in, union ioctl_data *d,
		     uint32_t *ret_len)
{
	const struct ioctl_def *def = find_ioctl(in);

	*ret_len = 0;
	if (!def)
		return -ENOTTY;
	if (in->in_size < def->in || in->out_size < def->out)
		return -EINVAL;
	if (!may(q, i, (enum who)def->who))
		return -EPERM;
	if (def->change && x4_vol_read_only(q->ops->vol))
		return -EROFS;
	*ret_len = def->out;
	return def->fn(q, i, d);
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
	while (!x4_inode_inline(i)) { /* which has no blocks */
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
	union ioctl_data data = { .raw = { 0 } };
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
		err = run_ioctl(q, i, in, &data, &len);
		x4_iput(i);
	}
	if (err)
		ops_reply_err(q, err);
	else
		reply_ioctl(q, data.raw, len);
}
