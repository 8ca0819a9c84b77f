/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * OPENDIR, READDIR, READDIRPLUS: OPS_TRY; a large directory is for workers. Cookies are
 * x4_readdir's: an entry that stays is seen once whatever happens beside it. READDIRPLUS collects
 * the entries first and looks at the inodes afterwards, so that the directory is not locked while
 * inodes are read; names cannot change inode meanwhile because the kernel holds the directory.
 */
#include "ops/types.h"

#include <dirent.h>
#include <fcntl.h>

struct fill {
	uint8_t *buf;
	uint32_t cap, off;
	bool plus;
};

static bool emit(void *arg, const struct x4_dirent *e)
{
	struct fill *f = arg;
	struct fuse_entry_out none = { 0 };

	if (f->plus)
		return pro_add_direntplus(f->buf, f->cap, &f->off, &none, e->ino, e->next_cookie,
					  e->type, e->name, e->name_len);
	return pro_add_dirent(f->buf, f->cap, &f->off, e->ino, e->next_cookie, e->type, e->name,
			      e->name_len);
}

static bool is_dot(const struct fuse_dirent *d)
{
	return d->name[0] == '.' && (d->namelen == 1 || (d->namelen == 2 && d->name[1] == '.'));
}

/* The answer is withheld: nobody will give the references back. */
static void drop_inodes(struct ops *o, uint8_t *buf, uint32_t len)
{
	for (uint32_t off = 0; off + FUSE_NAME_OFFSET_DIRENTPLUS <= len;) {
		struct fuse_direntplus *d = (struct fuse_direntplus *)(void *)(buf + off);

		off += (uint32_t)FUSE_DIRENTPLUS_SIZE(d);
		if (d->entry_out.nodeid)
			ops_unlookup(o, d->entry_out.nodeid, 1);
	}
}

/*
 * Fills in what can be had; an entry left with node id 0 is listed by the kernel without
 * attributes.
 */
static void add_inodes(struct ops *o, uint8_t *buf, uint32_t len)
{
	for (uint32_t off = 0; off + FUSE_NAME_OFFSET_DIRENTPLUS <= len && !nowait_missed();) {
		struct fuse_direntplus *d = (struct fuse_direntplus *)(void *)(buf + off);
		struct x4_inode *i;

		off += (uint32_t)FUSE_DIRENTPLUS_SIZE(d);
		if (is_dot(&d->dirent) || d->dirent.ino < OPS_FIRST_INO ||
		    ops_iget(o, d->dirent.ino, &i))
			continue;
		ops_fill_entry(o, i, &d->entry_out); /* keeps the reference */
	}
}

static void readdir_common(struct ops_req *q, bool plus)
{
	const struct fuse_read_in *in = ops_arg(q);
	struct ops_file *f = ops_file_get(q->ops, in->fh);
	struct fill fill = { .buf = q->tr.payload, .plus = plus };
	uint64_t cookie = in->offset;
	int err;

	if (!f || f->df) {
		ops_reply_err(q, -EBADF);
		return;
	}
	fill.cap = FDIO_MIN(in->size, q->tr.payload_cap);
	err = x4_readdir(f->inode, cookie, emit, &fill);
	if (!err && plus)
		add_inodes(q->ops, fill.buf, fill.off);
	if (!err && plus && nowait_missed())
		drop_inodes(q->ops, fill.buf, fill.off);
	err = nowait_err(err);
	if (!err && !(in->flags & O_NOATIME))
		x4_touch_read(f->inode);
	ops_reply(q, err, err ? 0 : fill.off);
}

void ops_readdir(struct ops_req *q) { readdir_common(q, false); }
void ops_readdirplus(struct ops_req *q) { readdir_common(q, true); }

void ops_opendir(struct ops_req *q)
{
	struct fuse_open_out out = { .open_flags = FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR };
	struct x4_inode *i = NULL;
	int err = ops_iget(q->ops, q->tr.in.h.nodeid, &i);

	if (err)
		goto fail;
	err = S_ISDIR(x4_inode_mode(i)) ? ops_file_add(q->ops, i, NULL, 0, &out.fh) : -ENOTDIR;
	if (err)
		goto put;
	x4_opened(i, 1);
	/*
	 * The kernel knows that its copy of the listing is old by the directory's mtime, which
	 * another ".." does not change.
	 */
	if (x4_dir_moved(i))
		out.open_flags &= ~(uint32_t)FOPEN_KEEP_CACHE;
	ops_reply_data(q, &out, sizeof(out));
	return;
put:
	x4_iput(i);
fail:
	ops_reply_err(q, err);
}
