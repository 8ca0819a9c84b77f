/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * OPENDIR, READDIR, READDIRPLUS. Loop threads try them (OPS_TRY); reading a large directory misses
 * there, so workers do it. Cookies are those of ext4_readdir: an entry that stays is seen once,
 * whatever is added and removed meanwhile. No lock is held here: READDIRPLUS collects the entries
 * first and reads the inodes afterwards, so that the directory is not locked meanwhile. The names
 * still belong to these inodes then, because the kernel has locked the directory. Fails with EBADF,
 * ENOTDIR, and with what src/ext4 says; an inode that cannot be read does not fail the listing.
 */
#include "ops/types.h"

#include <dirent.h>
#include <fcntl.h>

/* The listing being built, in the payload. */
struct fill {
	uint8_t *buf;
	uint32_t cap, off; /* bytes; off: filled so far */
	bool plus;         /* for READDIRPLUS */
};

static bool emit(void *arg, const struct ext4_dirent *entry)
{
	struct fill *fill = arg;
	struct fuse_entry_out none = { 0 };

	if (fill->plus)
		return message_add_direntplus(fill->buf, fill->cap, &fill->off, &none, entry->ino,
					      entry->next_cookie, entry->type, entry->name,
					      entry->name_len);
	return message_add_dirent(fill->buf, fill->cap, &fill->off, entry->ino, entry->next_cookie,
				  entry->type, entry->name, entry->name_len);
}

/* After a miss: the answer is withheld, so drops the references that add_inodes has added. */
static void drop_inodes(struct ops *ops, uint8_t *buf, uint32_t len)
{
	for (uint32_t off = 0; off + FUSE_NAME_OFFSET_DIRENTPLUS <= len;) {
		struct fuse_direntplus *entry = (struct fuse_direntplus *)(void *)(buf + off);

		off += (uint32_t)FUSE_DIRENTPLUS_SIZE(entry);
		if (entry->entry_out.nodeid)
			ops_forget_lookups(ops, entry->entry_out.nodeid, 1);
	}
}

/*
 * Fills in the inodes, each with a reference for the kernel. An entry whose inode cannot be read
 * keeps node id 0: the kernel lists it without attributes.
 */
static void add_inodes(struct ops *ops, uint8_t *buf, uint32_t len)
{
	for (uint32_t off = 0; off + FUSE_NAME_OFFSET_DIRENTPLUS <= len && !nowait_missed();) {
		struct fuse_direntplus *entry = (struct fuse_direntplus *)(void *)(buf + off);
		uint64_t ino = entry->dirent.ino;
		struct ext4_inode *inode;

		off += (uint32_t)FUSE_DIRENTPLUS_SIZE(entry);
		if (ext4_name_is_dots(entry->dirent.name, entry->dirent.namelen) ||
		    ino < OPS_FIRST_INO || ops_inode_get(ops, ino, &inode))
			continue;
		ops_fill_entry(ops, inode, &entry->entry_out); /* takes over the reference */
	}
}

static void readdir_common(struct ops_req *req, bool plus)
{
	const struct fuse_read_in *in = ops_arg(req);
	struct ops_file *file = ops_file_get(req->ops, in->fh);
	struct fill fill = { .buf = req->fuse.payload, .plus = plus };
	uint64_t cookie = in->offset;
	int err;

	if (!file || file->file) {
		ops_reply_err(req, -EBADF);
		return;
	}
	fill.cap = FDIO_MIN(in->size, req->fuse.payload_cap);
	err = ext4_readdir(file->inode, cookie, emit, &fill);
	if (!err && plus)
		add_inodes(req->ops, fill.buf, fill.off);
	if (!err && plus && nowait_missed())
		drop_inodes(req->ops, fill.buf, fill.off);
	err = nowait_err(err);
	if (!err && !(in->flags & O_NOATIME))
		ext4_touch_read(file->inode);
	ops_reply(req, err, err ? 0 : fill.off);
}

void ops_readdir(struct ops_req *req) { readdir_common(req, false); }
void ops_readdirplus(struct ops_req *req) { readdir_common(req, true); }

void ops_opendir(struct ops_req *req)
{
	struct fuse_open_out out = { .open_flags = FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR };
	struct ext4_inode *inode = NULL;
	int err = ops_inode_get(req->ops, req->fuse.in.header.nodeid, &inode);

	if (err)
		goto fail;
	err = S_ISDIR(ext4_inode_mode(inode)) ? ops_file_add(req->ops, inode, NULL, 0, &out.fh)
					      : -ENOTDIR;
	if (err)
		goto put;
	ext4_open_count_add(inode, 1);
	/*
	 * The kernel drops its copy of the listing when the directory's mtime changes. A new ".."
	 * does not change mtime.
	 */
	if (ext4_dir_moved(inode))
		out.open_flags &= ~(uint32_t)FOPEN_KEEP_CACHE;
	ops_reply_data(req, &out, sizeof(out));
	return;
put:
	ext4_inode_put(inode);
fail:
	ops_reply_err(req, err);
}
