/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * IOCTL, on workers: inode flags (inode_flags.c), the generation, FITRIM, the label, shutting down,
 * and where the blocks are (file_map.c). The table below has all but the last. An unknown ioctl is
 * ENOTTY.
 *
 * Who may: the kernel checks and translates the numbers that it knows, and passes on all others as
 * they are, from anybody who has the file open in whatever way. So each ioctl has its condition in
 * the table, and a number is served only where the kernel would have caught it, or where it cannot
 * mean anything else.
 */
#include "message/ioctl.h"
#include "ops/types.h"

#include <linux/capability.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

/* The answer is built in the payload; data of the request must have been read by then. */
static void reply_ioctl(struct ops_req *req, const void *data, uint32_t len)
{
	struct fuse_ioctl_out out = { 0 };

	memcpy(req->tr.payload, &out, sizeof(out));
	if (len)
		memcpy(req->tr.payload + sizeof(out), data, len);
	ops_reply(req, 0, (uint32_t)sizeof(out) + len);
}

static int trim(struct ops_req *req, struct fstrim_range *r)
{
	uint64_t done = 0;
	int err = ext4_vol_trim(req->ops->vol, r->start, r->len, r->minlen, &done);

	r->len = done;
	return err;
}

/*
 * FUSE hands over the argument as the direction in the number says. EXT4_IOC_SHUTDOWN is declared
 * as one that returns its argument, so its flags never arrive: it is the default way. The same
 * number declared the right way round has flags.
 */
#define IOC_SHUTDOWN _IOR('X', 125, uint32_t)
#define IOC_SHUTDOWN_FLAGS _IOW('X', 125, uint32_t)

/* What the page cache holds would be read without asking us. */
static void forget_pages(struct ops *ops)
{
	uint64_t ids[64];
	uint32_t index = 0;
	unsigned nr;

	do {
		nr = ops_files_nodeids(ops, &index, ids, ARRAY_SIZE(ids));
		for (unsigned k = 0; k < nr; k++)
			(void)transport_notify_inval_inode(ops->transport, ids[k], 0, 0);
	} while (nr);
}

static int shut_down(struct ops_req *req, uint32_t flags)
{
	static const enum ext4_shutdown how[] = { EXT4_SHUTDOWN_DEFAULT, EXT4_SHUTDOWN_LOGFLUSH,
						EXT4_SHUTDOWN_NOLOGFLUSH };
	int err;

	if (flags >= ARRAY_SIZE(how))
		return -EINVAL;
	err = ext4_vol_shutdown(req->ops->vol, how[flags]);
	if (!err)
		forget_pages(req->ops);
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

static int get_flags(struct ops_req *req, struct ext4_inode *inode, union ioctl_data *d)
{
	(void)req;
	d->v = ext4_inode_flags(inode) & OPS_FL_VISIBLE;
	return 0;
}

static int put_flags(struct ops_req *req, struct ext4_inode *inode, union ioctl_data *d)
{
	return ops_set_inode_flags(req, inode, d->v);
}

static int get_version(struct ops_req *req, struct ext4_inode *inode, union ioctl_data *d)
{
	(void)req;
	d->v = ext4_inode_gen(inode);
	return 0;
}

static int get_fsx(struct ops_req *req, struct ext4_inode *inode, union ioctl_data *d)
{
	(void)req;
	ops_get_xflags(inode, &d->x);
	return 0;
}

static int put_fsx(struct ops_req *req, struct ext4_inode *inode, union ioctl_data *d)
{
	return ops_set_xflags(req, inode, &d->x);
}

static int get_label(struct ops_req *req, struct ext4_inode *inode, union ioctl_data *d)
{
	(void)inode;
	memset(d->label, 0, sizeof(d->label));
	ext4_vol_label(req->ops->vol, d->label);
	return 0;
}

/* A name that fills the field is not terminated there. */
static int put_label(struct ops_req *req, struct ext4_inode *inode, union ioctl_data *d)
{
	(void)inode;
	if (strnlen(d->label, sizeof(d->label)) > EXT4_LABEL_MAX)
		return -EINVAL;
	return ext4_vol_set_label(req->ops->vol, d->label);
}

static int do_trim(struct ops_req *req, struct ext4_inode *inode, union ioctl_data *d)
{
	(void)inode;
	return trim(req, &d->t);
}

static int do_shutdown(struct ops_req *req, struct ext4_inode *inode, union ioctl_data *d)
{
	(void)inode;
	(void)d;
	return shut_down(req, 0);
}

static int do_shutdown_flags(struct ops_req *req, struct ext4_inode *inode, union ioctl_data *d)
{
	(void)inode;
	return shut_down(req, d->v);
}

/*
 * Numbers with a long in them have two forms. The kernel catches its own form of those that it
 * knows, and translates that of programs with shorter longs; so the other form is nobody's, or it
 * is a way around the kernel's checks.
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
	int (*fn)(struct ops_req *q, struct ext4_inode *i, union ioctl_data *d);
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
	bool shorter = flags & (FUSE_IOCTL_32BIT | FUSE_IOCTL_COMPAT),
	     compat = flags & FUSE_IOCTL_COMPAT;

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

static bool may(const struct ops_req *req, struct ext4_inode *inode, enum who who)
{
	uint32_t uid = req->tr.in.header.uid;
	struct ext4_attr attr;

	switch (who) {
	case OWNER:
		ext4_getattr(inode, &attr);
		return uid == 0 || uid == attr.uid || ops_capable(req, CAP_FOWNER);
	case ADMIN: return ops_capable(req, CAP_SYS_ADMIN);
	default: return true;
	}
}

static int run_ioctl(struct ops_req *req, struct ext4_inode *inode, const struct fuse_ioctl_in *in,
		     union ioctl_data *d, uint32_t *ret_len)
{
	const struct ioctl_def *def = find_ioctl(in);

	*ret_len = 0;
	if (!def)
		return -ENOTTY;
	if (in->in_size < def->in || in->out_size < def->out)
		return -EINVAL;
	if (!may(req, inode, (enum who)def->who))
		return -EPERM;
	if (def->change && ext4_vol_read_only(req->ops->vol))
		return -EROFS;
	*ret_len = def->out;
	return def->fn(req, inode, d);
}

void ops_ioctl(struct ops_req *req)
{
	const struct fuse_ioctl_in *in = ops_arg(req);
	union ioctl_data data = { .raw = { 0 } };
	struct ext4_inode *inode;
	uint32_t len;
	int err;

	if (in->in_size > req->tr.in.rest_len) {
		ops_reply_err(req, -EINVAL);
		return;
	}
	if (in->cmd == FDIO_IOC_MAP) {
		ops_reply_map(req, in);
		return;
	}
	memcpy(data.raw, req->tr.in.rest, FDIO_MIN(in->in_size, (uint32_t)sizeof(data.raw)));
	err = ops_iget(req->ops, req->tr.in.header.nodeid, &inode);
	if (!err) {
		err = run_ioctl(req, inode, in, &data, &len);
		ext4_inode_put(inode);
	}
	if (err)
		ops_reply_err(req, err);
	else
		reply_ioctl(req, data.raw, len);
}
