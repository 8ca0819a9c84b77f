/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * IOCTL, on workers, without locks: inode flags (inode_flags.c), the generation, FITRIM, the label,
 * shutdown, and where the blocks of a file are (file_map.c). The table below has all but the last.
 * Fails with ENOTTY for an unknown number, EINVAL, EPERM, EROFS, and with what the ioctl says.
 *
 * Permission: the kernel checks and translates the ioctl numbers that it knows. It passes on all
 * others unchecked, from any process that has the file open, in whatever mode. So the table says
 * for each number who may use it, and in which form the number is served: only a form that has
 * passed the kernel's checks, or one that the kernel does not know at all.
 */
#include "message/ioctl.h"
#include "ops/types.h"

#include <linux/capability.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

/* Overwrites the data of the request, which is in the payload too. */
static void reply_ioctl(struct ops_req *req, const void *data, uint32_t len)
{
	struct fuse_ioctl_out out = { 0 };

	memcpy(req->fuse.payload, &out, sizeof(out));
	if (len)
		memcpy(req->fuse.payload + sizeof(out), data, len);
	ops_reply(req, 0, (uint32_t)sizeof(out) + len);
}

static int trim(struct ops_req *req, struct fstrim_range *range)
{
	uint64_t done = 0;
	int err = ext4_vol_trim(req->ops->vol, range->start, range->len, range->minlen, &done);

	range->len = done;
	return err;
}

/*
 * FUSE copies the argument in the direction that the number declares. EXT4_IOC_SHUTDOWN declares
 * that it returns its argument, so the caller's flags never arrive, and it is served as
 * EXT4_SHUTDOWN_DEFAULT. IOC_SHUTDOWN_FLAGS, the same number declared as _IOW, passes the flags.
 */
#define IOC_SHUTDOWN _IOR('X', 125, uint32_t)
#define IOC_SHUTDOWN_FLAGS _IOW('X', 125, uint32_t)

/* After the shutdown, reads must fail; but the kernel would still serve them from cached pages. */
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

/* The argument that comes in, and the answer. */
union ioctl_data {
	uint32_t value;
	struct fsxattr xattr;
	struct fstrim_range range;
	char label[FSLABEL_MAX];
	uint8_t raw[FSLABEL_MAX];
};

static int get_flags(struct ops_req *req, struct ext4_inode *inode, union ioctl_data *data)
{
	(void)req;
	data->value = ext4_inode_flags(inode) & OPS_FL_VISIBLE;
	return 0;
}

static int set_flags(struct ops_req *req, struct ext4_inode *inode, union ioctl_data *data)
{
	return ops_set_inode_flags(req, inode, data->value);
}

static int get_version(struct ops_req *req, struct ext4_inode *inode, union ioctl_data *data)
{
	(void)req;
	data->value = ext4_inode_gen(inode);
	return 0;
}

static int get_xflags(struct ops_req *req, struct ext4_inode *inode, union ioctl_data *data)
{
	(void)req;
	ops_get_xflags(inode, &data->xattr);
	return 0;
}

static int set_xflags(struct ops_req *req, struct ext4_inode *inode, union ioctl_data *data)
{
	return ops_set_xflags(req, inode, &data->xattr);
}

static int get_label(struct ops_req *req, struct ext4_inode *inode, union ioctl_data *data)
{
	(void)inode;
	memset(data->label, 0, sizeof(data->label));
	ext4_vol_label(req->ops->vol, data->label);
	return 0;
}

/* A label of EXT4_LABEL_MAX bytes has no NUL on disk, but has one here. */
static int set_label(struct ops_req *req, struct ext4_inode *inode, union ioctl_data *data)
{
	(void)inode;
	if (strnlen(data->label, sizeof(data->label)) > EXT4_LABEL_MAX)
		return -EINVAL;
	return ext4_vol_set_label(req->ops->vol, data->label);
}

static int do_trim(struct ops_req *req, struct ext4_inode *inode, union ioctl_data *data)
{
	(void)inode;
	return trim(req, &data->range);
}

static int do_shutdown(struct ops_req *req, struct ext4_inode *inode, union ioctl_data *data)
{
	(void)inode;
	(void)data;
	return shut_down(req, 0);
}

static int do_shutdown_flags(struct ops_req *req, struct ext4_inode *inode, union ioctl_data *data)
{
	(void)inode;
	return shut_down(req, data->value);
}

/*
 * An ioctl number that is declared with a long encodes the size of long, so it has two values. For
 * numbers that it knows, the kernel intercepts the value with its own long, and translates the
 * value of 32-bit programs. No honest program sends any other combination: it may be an attempt to
 * get around the kernel's checks.
 */
enum form {
	ANY_FORM,
	LONG_64,       /* from a program with 64-bit longs */
	LONG_32,       /* from a program with 32-bit longs */
	KERNEL_LONG_32 /* as LONG_32, but only as the kernel itself sends it */
};

enum who { ANYBODY, OWNER, ADMIN };

struct ioctl_def {
	uint32_t cmd;
	uint8_t form, who;
	bool change;      /* refused with EROFS on a read-only volume */
	uint16_t in, out; /* bytes of the argument and of the answer */
	int (*serve)(struct ops_req *req, struct ext4_inode *inode, union ioctl_data *data);
};

#define FSX sizeof(struct fsxattr)
#define RANGE sizeof(struct fstrim_range)

static const struct ioctl_def ioctls[] = {
	{ _IOR('f', 1, int64_t), LONG_64, ANYBODY, false, 0, 4, get_flags },
	{ _IOR('f', 1, int32_t), KERNEL_LONG_32, ANYBODY, false, 0, 4, get_flags },
	{ _IOW('f', 2, int64_t), LONG_64, OWNER, true, 4, 0, set_flags },
	{ _IOW('f', 2, int32_t), KERNEL_LONG_32, OWNER, true, 4, 0, set_flags },
	{ _IOR('v', 1, int64_t), LONG_64, ANYBODY, false, 0, 4, get_version },
	{ _IOR('v', 1, int32_t), LONG_32, ANYBODY, false, 0, 4, get_version },
	{ FS_IOC_FSGETXATTR, ANY_FORM, ANYBODY, false, 0, FSX, get_xflags },
	{ FS_IOC_FSSETXATTR, ANY_FORM, OWNER, true, FSX, 0, set_xflags },
	{ FS_IOC_GETFSLABEL, ANY_FORM, ANYBODY, false, 0, FSLABEL_MAX, get_label },
	{ FS_IOC_SETFSLABEL, ANY_FORM, ADMIN, true, FSLABEL_MAX, 0, set_label },
	{ FITRIM, ANY_FORM, ADMIN, true, RANGE, RANGE, do_trim },
	{ IOC_SHUTDOWN, ANY_FORM, ADMIN, false, 0, 0, do_shutdown },
	{ IOC_SHUTDOWN_FLAGS, ANY_FORM, ADMIN, false, 4, 0, do_shutdown_flags },
};

static bool in_form(enum form form, uint32_t flags)
{
	bool shorter = flags & (FUSE_IOCTL_32BIT | FUSE_IOCTL_COMPAT);
	bool compat = flags & FUSE_IOCTL_COMPAT;

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

static bool may_use(const struct ops_req *req, struct ext4_inode *inode, enum who who)
{
	uint32_t uid = req->fuse.in.header.uid;
	struct ext4_attr attr;

	switch (who) {
	case OWNER:
		/* The kernel knows these numbers, and has checked in the idmap of the mount. */
		if (uid == MESSAGE_UNKNOWN_ID)
			return true;
		ext4_getattr(inode, &attr);
		return uid == 0 || uid == attr.uid || ops_capable(req, CAP_FOWNER);
	case ADMIN: return ops_capable(req, CAP_SYS_ADMIN);
	default: return true;
	}
}

static int run_ioctl(struct ops_req *req, struct ext4_inode *inode, const struct fuse_ioctl_in *in,
		     union ioctl_data *data, uint32_t *ret_len)
{
	const struct ioctl_def *def = find_ioctl(in);

	*ret_len = 0;
	if (!def)
		return -ENOTTY;
	if (in->in_size < def->in || in->out_size < def->out)
		return -EINVAL;
	if (!may_use(req, inode, (enum who)def->who))
		return -EPERM;
	if (def->change && ext4_vol_read_only(req->ops->vol))
		return -EROFS;
	*ret_len = def->out;
	return def->serve(req, inode, data);
}

void ops_ioctl(struct ops_req *req)
{
	const struct fuse_ioctl_in *in = ops_arg(req);
	union ioctl_data data = { .raw = { 0 } };
	struct ext4_inode *inode;
	uint32_t len;
	int err;

	if (in->in_size > req->fuse.in.rest_len) {
		ops_reply_err(req, -EINVAL);
		return;
	}
	if (in->cmd == FDIO_IOC_MAP) {
		ops_reply_map(req, in);
		return;
	}
	memcpy(data.raw, req->fuse.in.rest, FDIO_MIN(in->in_size, (uint32_t)sizeof(data.raw)));
	err = ops_inode_get(req->ops, req->fuse.in.header.nodeid, &inode);
	if (!err) {
		err = run_ioctl(req, inode, in, &data, &len);
		ext4_inode_put(inode);
	}
	if (err)
		ops_reply_err(req, err);
	else
		reply_ioctl(req, data.raw, len);
}
