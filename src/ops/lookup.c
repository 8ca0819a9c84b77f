/* SPDX-License-Identifier: GPL-2.0-or-later */
/* LOOKUP: OPS_TRY. A name that does not exist is an answer, which the kernel keeps. */
#include "ops/types.h"

static bool name_is(const struct pro_in *in, const char *s)
{
	return in->name_len == strlen(s) && !memcmp(in->name, s, in->name_len);
}

static void reply_lookup(struct ops_req *q, int err, struct x4_inode *i)
{
	struct fuse_entry_out none = { .entry_valid = OPS_VALID_S };

	if (err == -ENOENT)
		/* the kernel remembers that there is no such name */
		ops_reply_data(q, &none, sizeof(none));
	else
		ops_reply_entry(q, err, i);
}

static int lookup(struct ops_req *q, struct x4_inode *dir, struct x4_inode **ret)
{
	const struct pro_in *in = &q->tr.in;
	int err;

	/*
	 * "." and ".." come from open_by_handle_at and name_to_handle_at users such as an NFS
	 * server; "." of any file.
	 */
	if (name_is(in, ".")) {
		*ret = x4_iref(dir);
		return 0;
	}
	if (!S_ISDIR(x4_inode_mode(dir)))
		return -ENOTDIR;
	err = name_is(in, "..") ? x4_lookup_parent(dir, ret)
				: x4_lookup(dir, in->name, in->name_len, ret);
	if (!err && (x4_inode_flags(*ret) & OPS_FL_EA_INODE)) {
		x4_iput(*ret);
		err = -ESTALE;
	}
	return err;
}

void ops_lookup(struct ops_req *q)
{
	const struct pro_in *in = &q->tr.in;
	struct x4_inode *dir, *i = NULL;
	bool parent = name_is(in, "..");
	int err = in->name_len > X4_NAME_MAX ? -ENAMETOOLONG : ops_iget(q->ops, in->h.nodeid, &dir);

	if (err) {
		ops_reply_err(q, err);
		return;
	}
	err = lookup(q, dir, &i);
	if (parent)
		ops_reply_entry(q, err, i);
	else
		reply_lookup(q, err, i);
	x4_iput(dir);
}
