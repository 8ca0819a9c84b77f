/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The operations of the workload, each on the volume and on the model. A failed operation on names
 * or attributes must have changed nothing, so the model stays as it was. One on data may be half
 * done, so the content is unknown from then on. An error must be explained by a fault; and what an
 * operation reports as done must be there in the end (faults_verify.c).
 *
 * An operation on a name whose own creation has failed does nothing.
 */
#include "faults/faults.h"

#include "base/bytes.h"

#include <dirent.h>
#include <errno.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct ext4_credentials root_credentials = { .cap_fsetid = true };

struct name *name_of(struct run *run, struct name *dir, const char *name)
{
	struct name *found;

	for (found = run->name; found < run->name + run->nr_names; found++)
		if (found->dir == dir && !strcmp(found->name, name))
			return found;
	FDIO_ASSERT(run->nr_names < MAX_NAMES);
	run->nr_names++;
	found->dir = dir;
	snprintf(found->name, sizeof(found->name), "%s", name);
	return found;
}

static struct body *body_new(struct run *run, uint32_t mode)
{
	struct body *body = &run->body[run->nr_bodies++];

	FDIO_ASSERT(run->nr_bodies <= MAX_BODIES);
	body->mode = mode;
	body->xattr = calloc(MAX_XATTRS, sizeof(*body->xattr));
	if (S_ISREG(mode))
		body->data = calloc(1, FILE_MAX);
	FDIO_MUST(body->xattr && (body->data || !S_ISREG(mode)));
	body->version = body->data_version = ++run->clock;
	return body;
}

int get_inode(struct run *run, const struct name *name, struct ext4_inode **ret)
{
	const struct name *path[8];
	struct ext4_inode *dir, *inode;
	unsigned depth = 0;
	int err = ext4_inode_get(run->vol, EXT4_ROOT_INO, NULL, &dir);

	for (; name; name = name->dir) {
		FDIO_ASSERT(depth < ARRAY_SIZE(path));
		path[depth++] = name;
	}
	while (!err && depth--) {
		err = ext4_lookup(dir, path[depth]->name, (unsigned)strlen(path[depth]->name),
				  &inode);
		ext4_inode_put(dir);
		dir = inode;
	}
	if (!err)
		*ret = dir;
	return err;
}

/* In the model, the directories above name exist. */
static bool parents_exist(const struct name *name)
{
	for (name = name->dir; name; name = name->dir)
		if (!name->body)
			return false;
	return true;
}

/* An operation begins: on name, on body, and with data on the data of body. */
static void begin_op(struct run *run, struct name *name, struct body *body, bool data)
{
	run->step++;
	run->clock++;
	run->was_read_only = ext4_vol_read_only(run->vol);
	if (name)
		name->version = run->clock;
	if (body && data)
		body->data_version = run->clock;
	if (body)
		body->version = run->clock;
}

/* Judges the result of an operation; changes: it would change the volume. True: it succeeded. */
static bool end_op(struct run *run, const char *what, int err, bool changes)
{
	if (err && !fault_hits(run))
		fail(run, "%s: %s, and there was no fault", what, strerror(-err));
	if (err && err != -EIO && err != -EROFS && err != -ENOMEM)
		fail(run, "%s: %d (%s) is not an error that the fault explains", what, err,
		     strerror(-err));
	if (run->was_read_only && changes && !err)
		fail(run, "%s: succeeds on a volume that is read-only", what);
	if (run->was_read_only && changes && !run->test.from_on && err != -EROFS)
		fail(run, "%s: %s on a volume that is read-only", what, strerror(-err));
	if (ext4_vol_read_only(run->vol))
		run->aborted = true;
	return !err;
}

/* ---- names ---- */
void op_create(struct run *run, struct name *name, uint32_t mode, uint32_t rdev)
{
	struct ext4_inode *dir, *inode;
	int err;

	if (name->body || !parents_exist(name))
		return;
	begin_op(run, name, NULL, false);
	err = get_inode(run, name->dir, &dir);
	if (!err) {
		err = ext4_create(dir, name->name, (unsigned)strlen(name->name), mode, rdev,
				  &root_credentials, &inode);
		if (!err)
			ext4_inode_put(inode);
		ext4_inode_put(dir);
	}
	if (!end_op(run, "create", err, true))
		return;
	name->body = body_new(run, mode);
	name->body->rdev = rdev;
	name->body->mode_unknown = name->dir && name->dir->body->mode_unknown;
}

void op_symlink(struct run *run, struct name *name, const char *target)
{
	struct ext4_inode *dir, *inode;
	int err;

	if (name->body || !parents_exist(name))
		return;
	begin_op(run, name, NULL, false);
	err = get_inode(run, name->dir, &dir);
	if (!err) {
		err = ext4_symlink(dir, name->name, (unsigned)strlen(name->name), target,
				   (unsigned)strlen(target), &root_credentials, &inode);
		if (!err)
			ext4_inode_put(inode);
		ext4_inode_put(dir);
	}
	if (!end_op(run, "symlink", err, true))
		return;
	name->body = body_new(run, S_IFLNK | 0777);
	snprintf(name->body->target, sizeof(name->body->target), "%s", target);
}

void op_link(struct run *run, struct name *from, struct name *to)
{
	struct ext4_inode *dir, *inode;
	int err;

	if (!from->body || to->body || !parents_exist(to) || !parents_exist(from))
		return;
	begin_op(run, to, from->body, false);
	err = get_inode(run, to->dir, &dir);
	if (!err) {
		err = get_inode(run, from, &inode);
		if (!err) {
			err = ext4_link(dir, to->name, (unsigned)strlen(to->name), inode, true);
			ext4_inode_put(inode);
		}
		ext4_inode_put(dir);
	}
	if (end_op(run, "link", err, true))
		to->body = from->body;
}

void op_unlink(struct run *run, struct name *name)
{
	struct ext4_inode *dir;
	unsigned len = (unsigned)strlen(name->name);
	int err;

	if (!name->body || !parents_exist(name))
		return;
	begin_op(run, name, name->body, false);
	err = get_inode(run, name->dir, &dir);
	if (!err) {
		err = S_ISDIR(name->body->mode) ? ext4_rmdir(dir, name->name, len)
						: ext4_unlink(dir, name->name, len);
		ext4_inode_put(dir);
	}
	/* Right if the directory still has names because unlinking them has failed. */
	if (err == -ENOTEMPTY && S_ISDIR(name->body->mode))
		for (struct name *k = run->name; k < run->name + run->nr_names; k++)
			if (k->dir == name && k->body)
				return;
	if (end_op(run, S_ISDIR(name->body->mode) ? "rmdir" : "unlink", err, true))
		name->body = NULL;
}

void op_rename(struct run *run, struct name *from, struct name *to, unsigned flags)
{
	struct ext4_inode *old_dir, *new_dir;
	int err;

	if (!from->body || (flags == RENAME_EXCHANGE && !to->body) || !parents_exist(from) ||
	    !parents_exist(to))
		return;
	begin_op(run, from, from->body, false);
	to->version = run->clock;
	if (to->body)
		to->body->version = run->clock;
	err = get_inode(run, from->dir, &old_dir);
	if (!err) {
		err = get_inode(run, to->dir, &new_dir);
		if (!err) {
			err = ext4_rename(old_dir, from->name, (unsigned)strlen(from->name),
					  new_dir, to->name, (unsigned)strlen(to->name), flags,
					  &root_credentials);
			ext4_inode_put(new_dir);
		}
		ext4_inode_put(old_dir);
	}
	if (!end_op(run, "rename", err, true))
		return;
	struct body *body = to->body;
	to->body = from->body;
	from->body = flags == RENAME_EXCHANGE ? body : NULL;
	/* The names in a directory move with it. */
	for (struct name *name = run->name; name < run->name + run->nr_names; name++) {
		if (name->dir == from)
			name->dir = to;
		else if (flags == RENAME_EXCHANGE && name->dir == to)
			name->dir = from;
	}
}

/* ---- data ---- */
static void req_done(struct dio_req *req, ssize_t res)
{
	struct test_request *test_request = container_of(req, struct test_request, req);

	test_request->res = res;
	__atomic_fetch_add(&test_request->done, 1, __ATOMIC_RELEASE);
}

/* Does what is queued for workers and syncers; false: there was nothing. */
static bool run_queues(struct run *run)
{
	bool any = false;

	while (work_queue_run_one(run->workers) || work_queue_run_one(run->syncers))
		any = true;
	return any;
}

ssize_t request(struct run *run, struct dio_file *file, unsigned flags, uint64_t pos, void *buf,
		uint32_t len)
{
	struct test_request local = { .done = 0 },
			    *req = run->nr_reqs < MAX_REQS ? &run->req[run->nr_reqs++] : &local;

	req->req = (struct dio_req){ .file = file,
				     .pos = pos,
				     .len = len,
				     .flags = flags,
				     .buf = buf,
				     .buf_index = -1,
				     .buf_cap = FILE_MAX,
				     .done = req_done };
	dio_submit(run->dio, &req->req);
	while (!__atomic_load_n(&req->done, __ATOMIC_ACQUIRE))
		if (!run_queues(run))
			usleep(100); /* without an answer, the limit of time ends the case */
	return req->res;
}

static int open_file(struct run *run, const struct name *name, struct ext4_inode **inode,
		     struct dio_file **file)
{
	int err = get_inode(run, name, inode);

	if (err)
		return err;
	err = dio_file_open(run->dio, *inode, file);
	if (err)
		ext4_inode_put(*inode);
	return err;
}

static void close_file(struct run *run, struct ext4_inode *inode, struct dio_file *file)
{
	run_queues(run);
	dio_file_close(file);
	ext4_inode_put(inode);
	run_queues(run);
}

/* Fills run->buf with bytes that depend on the file, the operation and the place; none is 0. */
static void fill(struct run *run, struct body *body, uint64_t pos, uint32_t len)
{
	for (uint32_t k = 0; k < len; k++)
		run->buf[k] = (uint8_t)(1 + ((pos + k) * 7 + ((pos + k) >> 9) * 13 +
					     run->clock * 31 + (size_t)(body - run->body)) %
							    0xa0);
}

/* The model does not keep bytes behind FILE_MAX, only the size. */
static void model_write(struct run *run, struct body *body, uint64_t pos, uint32_t len)
{
	if (pos < FILE_MAX)
		memcpy(body->data + pos, run->buf, FDIO_MIN((uint64_t)len, FILE_MAX - pos));
	body->size = FDIO_MAX(body->size, pos + len);
}

void op_write(struct run *run, struct name *name, unsigned flags, uint64_t pos, uint32_t len)
{
	struct body *body = name->body;
	struct ext4_inode *inode;
	struct dio_file *file;
	int err;

	if (!body || !parents_exist(name))
		return;
	begin_op(run, NULL, body, true);
	fill(run, body, pos, len);
	err = open_file(run, name, &inode, &file);
	if (!err) {
		ssize_t done = request(run, file, flags | DIO_WRITE, pos, run->buf, len);

		err = done < 0 ? (int)done : 0;
		if (done >= 0 && done != len)
			fail(run, "write: %zd of %u bytes without an error", done, len);
		if (err)
			body->content_unknown = true;
		close_file(run, inode, file);
	}
	if (!end_op(run, "write", err, true))
		return;
	model_write(run, body, pos, len);
	if (flags & DIO_DSYNC)
		body->data_acked = body->data_version;
}

void op_read(struct run *run, struct name *name, unsigned flags, uint64_t pos, uint32_t len)
{
	struct body *body = name->body;
	struct ext4_inode *inode;
	struct dio_file *file;
	int err;

	if (!body || !parents_exist(name))
		return;
	begin_op(run, NULL, NULL, false);
	memset(run->buf, 0xee, len);
	err = open_file(run, name, &inode, &file);
	if (!err) {
		uint64_t left = pos < body->size ? body->size - pos : 0;
		ssize_t done = request(run, file, flags, pos, run->buf, len),
			want = (ssize_t)FDIO_MIN((uint64_t)len, left);

		err = done < 0 ? (int)done : 0;
		if (done >= 0 && !body->content_unknown &&
		    (done != want || memcmp(run->buf, body->data + pos, (size_t)want)))
			fail(run, "read: %zd bytes that are not what was written (%zd)", done,
			     want);
		close_file(run, inode, file);
	}
	end_op(run, "read", err, false);
}

/*
 * Truncate (mode negative) or fallocate with the engine's gate closed. *cut: the truncate has set
 * the size, even if it failed afterwards; then a later operation that extends the file finishes it.
 */
static int change_gated(struct run *run, struct name *name, uint64_t size, int mode, uint64_t off,
		 uint64_t len, bool *cut)
{
	struct ext4_inode *inode;
	int err = get_inode(run, name, &inode);

	if (err)
		return err;
	err = dio_gate_close(run->dio, inode, DIO_GATE_ALL);
	if (!err) {
		name->body->content_unknown = true; /* the caller resets it after success */
		ext4_inode_lock_exclusive(inode);
		err = mode < 0 ? ext4_truncate(inode, size)
			       : ext4_fallocate(inode, mode, off, len, true);
		*cut = mode < 0 && ext4_inode_size(inode) == size;
		ext4_inode_unlock(inode);
		dio_gate_open(run->dio, inode, DIO_GATE_ALL);
	}
	ext4_inode_put(inode);
	return err;
}

void op_truncate(struct run *run, struct name *name, uint64_t size)
{
	struct body *body = name->body;
	bool was_unknown, cut = false;

	if (!body || !parents_exist(name))
		return;
	was_unknown = body->content_unknown;
	begin_op(run, NULL, body, true);
	bool done = end_op(run, "truncate", change_gated(run, name, size, -1, 0, 0, &cut), true);
	if (!done && (!cut || size >= body->size))
		return;
	if (!done)
		run->cut_short++;
	body->content_unknown = was_unknown;
	if (size < body->size && size < FILE_MAX)
		memset(body->data + size, 0, FILE_MAX - size);
	body->size = size;
}

void op_fallocate(struct run *run, struct name *name, int mode, uint64_t off, uint64_t len)
{
	struct body *body = name->body;
	bool was_unknown, unused;

	if (!body || !parents_exist(name))
		return;
	was_unknown = body->content_unknown;
	begin_op(run, NULL, body, true);
	if (!end_op(run, "fallocate", change_gated(run, name, 0, mode, off, len, &unused), true))
		return;
	body->content_unknown = was_unknown;
	if ((mode & (EXT4_FALLOC_PUNCH_HOLE | EXT4_FALLOC_ZERO_RANGE)) && off < FILE_MAX)
		memset(body->data + off, 0, FDIO_MIN(len, FILE_MAX - off));
	if (!(mode & EXT4_FALLOC_KEEP_SIZE))
		body->size = FDIO_MAX(body->size, off + len);
}

void op_tmpfile(struct run *run, struct name *to, uint32_t len)
{
	struct ext4_inode *root, *inode;
	struct dio_file *file;
	struct body *body;
	int err;

	begin_op(run, to, NULL, false);
	err = get_inode(run, NULL, &root);
	if (!err) {
		err = ext4_tmpfile(root, S_IFREG | 0600, &root_credentials, &inode);
		ext4_inode_put(root);
	}
	if (!end_op(run, "tmpfile", err, true))
		return;
	body = body_new(run, S_IFREG | 0600);
	fill(run, body, 0, len);
	err = dio_file_open(run->dio, inode, &file);
	if (!err) {
		ssize_t done = request(run, file, DIO_WRITE, 0, run->buf, len);

		err = done < 0 ? (int)done : 0;
		dio_file_close(file);
	}
	if (!end_op(run, "write to a file without a name", err, run->was_read_only) || !to) {
		ext4_inode_put(inode);
		run_queues(run);
		return;
	}
	model_write(run, body, 0, len);
	begin_op(run, to, body, true);
	err = get_inode(run, NULL, &root);
	if (!err) {
		err = ext4_link(root, to->name, (unsigned)strlen(to->name), inode, true);
		ext4_inode_put(root);
	}
	ext4_inode_put(inode);
	run_queues(run);
	if (end_op(run, "link of a file without a name", err, true))
		to->body = body;
}

void op_seek(struct run *run, struct name *name)
{
	struct ext4_inode *inode;
	uint64_t at;
	int err;

	if (!name->body || !parents_exist(name))
		return;
	begin_op(run, NULL, NULL, false);
	err = get_inode(run, name, &inode);
	if (!err) {
		ext4_inode_lock_shared(inode);
		err = ext4_seek(inode, 0, false, &at);
		ext4_inode_unlock(inode);
		if (err == -ENXIO && (!name->body->size || name->body->content_unknown))
			err = 0;
		ext4_inode_put(inode);
	}
	end_op(run, "seek", err, false);
}

/* ---- attributes ---- */
void op_chmod(struct run *run, struct name *name, uint32_t mode)
{
	struct ext4_attr attr = { .mode = mode };
	struct ext4_inode *inode;
	int err;

	if (!name->body || !parents_exist(name))
		return;
	begin_op(run, NULL, name->body, false);
	err = get_inode(run, name, &inode);
	if (!err) {
		err = ext4_setattr(inode, EXT4_SET_MODE, &attr);
		ext4_inode_put(inode);
	}
	if (end_op(run, "chmod", err, true))
		name->body->mode = (name->body->mode & S_IFMT) | mode;
}

/* Sets the attribute, or removes it if len is 0. True: that has been done. */
static bool set_xattr(struct run *run, struct name *file, const char *name, const void *val,
		      unsigned len)
{
	struct xattr *x = file->body->xattr, *last = x + MAX_XATTRS;
	struct ext4_inode *inode;
	int err;

	while (x < last && x->len && strcmp(x->name, name))
		x++;
	FDIO_ASSERT(x < last && len <= sizeof(x->val));
	if (!len && !x->len)
		return false;
	begin_op(run, NULL, file->body, false);
	err = get_inode(run, file, &inode);
	if (!err) {
		err = len ? ext4_xattr_set(inode, name, val, len, 0, false)
			  : ext4_xattr_remove(inode, name);
		ext4_inode_put(inode);
	}
	if (!end_op(run, len ? "setxattr" : "removexattr", err, true))
		return false;
	if (!len) {
		memmove(x, x + 1, (size_t)(last - x - 1) * sizeof(*x));
		memset(last - 1, 0, sizeof(*x));
		return true;
	}
	snprintf(x->name, sizeof(x->name), "%s", name);
	memcpy(x->val, val, len);
	x->len = len;
	return true;
}

void op_xattr(struct run *run, struct name *file, const char *name, unsigned len)
{
	if (!file->body || !parents_exist(file))
		return;
	fill(run, file->body, 0, len);
	set_xattr(run, file, name, run->buf, len);
}

/* Sets an ACL: read and write for the owner, read for all others. The mode changes to that too. */
void op_acl(struct run *run, struct name *name, bool dflt)
{
	static const struct { uint16_t tag, perm; uint32_t id; } entries[] = {
		{ 1, 6, UINT32_MAX }, { 2, 4, 1000 }, { 4, 4, UINT32_MAX }, { 16, 4, UINT32_MAX },
		{ 32, 4, UINT32_MAX },
	};
	uint8_t acl[4 + 8 * ARRAY_SIZE(entries)];

	fdio_put_le32(acl, 0, 2); /* the version */
	for (unsigned k = 0; k < ARRAY_SIZE(entries); k++) {
		fdio_put_le16(acl, 4 + 8 * k, entries[k].tag);
		fdio_put_le16(acl, 6 + 8 * k, entries[k].perm);
		fdio_put_le32(acl, 8 + 8 * k, entries[k].id);
	}
	if (!name->body || !parents_exist(name))
		return;
	if (dflt)
		name->body->mode_unknown = true;
	if (set_xattr(run, name, dflt ? "system.posix_acl_default" : "system.posix_acl_access",
		      acl, sizeof(acl)) &&
	    !dflt)
		name->body->mode = (name->body->mode & S_IFMT) | 0644;
}

/* ---- durability and the rest ---- */
struct test_sync { struct dio_sync sync; int err; unsigned done; };

static void sync_done(struct dio_sync *sync, int err)
{
	struct test_sync *test_sync = container_of(sync, struct test_sync, sync);

	test_sync->err = err;
	__atomic_fetch_add(&test_sync->done, 1, __ATOMIC_RELEASE);
}

static int do_sync(struct run *run, struct ext4_inode *inode, bool datasync)
{
	struct test_sync test_sync = {
		.sync = { .inode = inode, .datasync = datasync, .done = sync_done }
	};

	dio_fsync(run->dio, &test_sync.sync);
	while (!__atomic_load_n(&test_sync.done, __ATOMIC_ACQUIRE))
		if (!run_queues(run))
			usleep(100);
	if (test_sync.done != 1)
		fail(run, "fsync: %u answers", test_sync.done);
	return test_sync.err;
}

static void ack_body(struct body *body, bool datasync)
{
	body->data_acked = body->data_version;
	if (!datasync)
		body->acked = body->version;
}

/* The name (NULL: every name) and its file are durable as the model has them now. */
static void ack(struct run *run, struct name *name, bool datasync)
{
	for (struct name *k = run->name; k < run->name + run->nr_names; k++) {
		if (!name || (k == name && !datasync))
			k->acked = k->version;
		if (k->body && (!name || k == name))
			ack_body(k->body, datasync);
	}
}

void op_fsync(struct run *run, struct name *name, bool datasync)
{
	struct ext4_inode *inode = NULL;
	int err = 0;

	if (name && (!name->body || !parents_exist(name)))
		return;
	begin_op(run, NULL, NULL, false);
	if (name)
		err = get_inode(run, name, &inode);
	if (!err)
		err = do_sync(run, inode, datasync);
	ext4_inode_put(inode);
	if (end_op(run, name ? "fsync" : "syncfs", err, false))
		ack(run, name, datasync);
}

void op_trim(struct run *run)
{
	uint64_t n;

	begin_op(run, NULL, NULL, false);
	end_op(run, "trim", ext4_vol_trim(run->vol, 0, UINT64_MAX, 0, &n), false);
}

static bool count_entry(void *arg, const struct ext4_dirent *entry)
{
	(void)entry;
	++*(unsigned *)arg;
	return true;
}

void op_readdir(struct run *run, struct name *name)
{
	struct ext4_inode *inode;
	unsigned seen = 0, want = name ? 2 : 3; /* ".", ".." and in the root lost+found */
	int err;

	if (name && (!name->body || !parents_exist(name)))
		return;
	for (struct name *k = run->name; k < run->name + run->nr_names; k++)
		want += k->dir == name && k->body;
	begin_op(run, NULL, NULL, false);
	err = get_inode(run, name, &inode);
	if (!err) {
		err = ext4_readdir(inode, 0, count_entry, &seen);
		ext4_inode_put(inode);
	}
	if (end_op(run, "readdir", err, false) && seen != want)
		fail(run, "readdir of %s: %u entries, not %u", name ? name->name : "/", seen, want);
}
