/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The operations of the workload, each on the volume and on the model. An operation on names or attributes that fails must have
 * changed nothing, so the model stays; one on data may be half done, so the content is unknown from then on. An error must have
 * a fault as its reason, and none may be swallowed: what is reported as done must be there (faults_verify.c).
 */
#include "faults/faults.h"

#include <dirent.h>
#include <errno.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct x4_cred root_cred = { .cap_fsetid = true };

struct name *name_of(struct run *r, struct name *dir, const char *name)
{
	struct name *n;

	for (n = r->name; n < r->name + r->nr_names; n++)
		if (n->dir == dir && !strcmp(n->name, name))
			return n;
	FDIO_ASSERT(r->nr_names < MAX_NAMES);
	r->nr_names++;
	n->dir = dir;
	snprintf(n->name, sizeof(n->name), "%s", name);
	return n;
}

static struct body *body_new(struct run *r, uint32_t mode)
{
	struct body *b = &r->body[r->nr_bodies++];

	FDIO_ASSERT(r->nr_bodies <= MAX_BODIES);
	b->mode = mode;
	b->xa = calloc(MAX_XATTRS, sizeof(*b->xa));
	if (S_ISREG(mode))
		b->data = calloc(1, FILE_MAX);
	FDIO_MUST(b->xa && (b->data || !S_ISREG(mode)));
	b->version = b->dversion = ++r->clock;
	return b;
}

int get(struct run *r, const struct name *n, struct x4_inode **ret)
{
	const struct name *path[8];
	struct x4_inode *dir, *i;
	unsigned depth = 0;
	int err = x4_iget(r->v, X4_ROOT_INO, NULL, &dir);

	for (; n; n = n->dir) {
		FDIO_ASSERT(depth < ARRAY_SIZE(path));
		path[depth++] = n;
	}
	while (!err && depth--) {
		err = x4_lookup(dir, path[depth]->name, (unsigned)strlen(path[depth]->name), &i);
		x4_iput(dir);
		dir = i;
	}
	if (!err)
		*ret = dir;
	return err;
}

/* The names above n are there (their creation may have failed). */
static bool dirs_there(const struct name *n)
{
	for (n = n->dir; n; n = n->dir)
		if (!n->b)
			return false;
	return true;
}

static void begin(struct run *r, struct name *n, struct body *b, bool data)
{
	r->step++;
	r->clock++;
	r->was_ro = x4_vol_read_only(r->v);
	if (n)
		n->version = r->clock;
	if (b && data)
		b->dversion = r->clock;
	if (b)
		b->version = r->clock;
}

/* True: it has succeeded. */
static bool end(struct run *r, const char *what, int err, bool changes)
{
	if (err && !fault_hits(r))
		fail(r, "%s: %s, and there was no fault", what, strerror(-err));
	if (err && err != -EIO && err != -EROFS && err != -ENOMEM)
		fail(r, "%s: %d (%s) is not an error that the fault explains", what, err, strerror(-err));
	if (r->was_ro && changes && !err)
		fail(r, "%s: succeeds on a volume that is read-only", what);
	if (r->was_ro && changes && !r->c.from_on && err != -EROFS)
		fail(r, "%s: %s on a volume that is read-only", what, strerror(-err));
	if (x4_vol_read_only(r->v))
		r->aborted = true;
	return !err;
}

/* ---- names ---- */
void op_create(struct run *r, struct name *n, uint32_t mode, uint32_t rdev)
{
	struct x4_inode *dir, *i;
	int err;

	if (n->b || !dirs_there(n))
		return;
	begin(r, n, NULL, false);
	err = get(r, n->dir, &dir);
	if (!err) {
		err = x4_create(dir, n->name, (unsigned)strlen(n->name), mode, rdev, &root_cred, &i);
		if (!err)
			x4_iput(i);
		x4_iput(dir);
	}
	if (!end(r, "create", err, true))
		return;
	n->b = body_new(r, mode);
	n->b->rdev = rdev;
	n->b->mode_unknown = n->dir && n->dir->b->mode_unknown;
}

void op_symlink(struct run *r, struct name *n, const char *target)
{
	struct x4_inode *dir, *i;
	int err;

	if (n->b || !dirs_there(n))
		return;
	begin(r, n, NULL, false);
	err = get(r, n->dir, &dir);
	if (!err) {
		err = x4_symlink(dir, n->name, (unsigned)strlen(n->name), target, (unsigned)strlen(target), &root_cred, &i);
		if (!err)
			x4_iput(i);
		x4_iput(dir);
	}
	if (!end(r, "symlink", err, true))
		return;
	n->b = body_new(r, S_IFLNK | 0777);
	snprintf(n->b->target, sizeof(n->b->target), "%s", target);
}

void op_link(struct run *r, struct name *from, struct name *to)
{
	struct x4_inode *dir, *i;
	int err;

	if (!from->b || to->b || !dirs_there(to) || !dirs_there(from))
		return;
	begin(r, to, from->b, false);
	err = get(r, to->dir, &dir);
	if (!err) {
		err = get(r, from, &i);
		if (!err) {
			err = x4_link(dir, to->name, (unsigned)strlen(to->name), i, true);
			x4_iput(i);
		}
		x4_iput(dir);
	}
	if (end(r, "link", err, true))
		to->b = from->b;
}

void op_unlink(struct run *r, struct name *n)
{
	struct x4_inode *dir;
	unsigned len = (unsigned)strlen(n->name);
	int err;

	if (!n->b || !dirs_there(n))
		return;
	begin(r, n, n->b, false);
	err = get(r, n->dir, &dir);
	if (!err) {
		err = S_ISDIR(n->b->mode) ? x4_rmdir(dir, n->name, len) : x4_unlink(dir, n->name, len);
		x4_iput(dir);
	}
	if (err == -ENOTEMPTY && S_ISDIR(n->b->mode)) /* what was in it could not be unlinked */
		for (struct name *k = r->name; k < r->name + r->nr_names; k++)
			if (k->dir == n && k->b)
				return;
	if (end(r, S_ISDIR(n->b->mode) ? "rmdir" : "unlink", err, true))
		n->b = NULL;
}

void op_rename(struct run *r, struct name *from, struct name *to, unsigned flags)
{
	struct x4_inode *od, *nd;
	int err;

	if (!from->b || (flags == RENAME_EXCHANGE && !to->b) || !dirs_there(from) || !dirs_there(to))
		return;
	begin(r, from, from->b, false);
	to->version = r->clock;
	if (to->b)
		to->b->version = r->clock;
	err = get(r, from->dir, &od);
	if (!err) {
		err = get(r, to->dir, &nd);
		if (!err) {
			err = x4_rename(od, from->name, (unsigned)strlen(from->name), nd, to->name, (unsigned)strlen(to->name), flags,
					&root_cred);
			x4_iput(nd);
		}
		x4_iput(od);
	}
	if (!end(r, "rename", err, true))
		return;
	struct body *b = to->b;
	to->b = from->b;
	from->b = flags == RENAME_EXCHANGE ? b : NULL;
	/* What is in a directory goes with it. */
	for (struct name *k = r->name; k < r->name + r->nr_names; k++) {
		if (k->dir == from)
			k->dir = to;
		else if (flags == RENAME_EXCHANGE && k->dir == to)
			k->dir = from;
	}
}

/* ---- data ---- */
static void req_done(struct dio_req *q, ssize_t res)
{
	struct treq *t = container_of(q, struct treq, r);

	t->res = res;
	__atomic_fetch_add(&t->done, 1, __ATOMIC_RELEASE);
}

static bool pump(struct run *r)
{
	bool any = false;

	while (wq_run_one(r->workers) || wq_run_one(r->syncers))
		any = true;
	return any;
}

ssize_t request(struct run *r, struct dio_file *f, unsigned flags, uint64_t pos, void *buf, uint32_t len)
{
	struct treq local = { .done = 0 }, *t = r->nr_reqs < MAX_REQS ? &r->req[r->nr_reqs++] : &local;

	t->r = (struct dio_req){ .file = f, .pos = pos, .len = len, .flags = flags, .buf = buf, .buf_index = -1, .buf_cap = FILE_MAX, .done = req_done };
	dio_submit(r->d, &t->r);
	while (!__atomic_load_n(&t->done, __ATOMIC_ACQUIRE))
		if (!pump(r))
			usleep(100); /* ended by the alarm if nothing ever comes */
	return t->res;
}

static int open_file(struct run *r, const struct name *n, struct x4_inode **i, struct dio_file **f)
{
	int err = get(r, n, i);

	if (err)
		return err;
	err = dio_file_open(r->d, *i, f);
	if (err)
		x4_iput(*i);
	return err;
}

static void close_file(struct run *r, struct x4_inode *i, struct dio_file *f)
{
	pump(r);
	dio_file_close(f);
	x4_iput(i);
	pump(r);
}

static void fill(struct run *r, struct body *b, uint64_t pos, uint32_t len)
{
	for (uint32_t k = 0; k < len; k++)
		r->buf[k] = (uint8_t)(1 + ((pos + k) * 7 + ((pos + k) >> 9) * 13 + r->clock * 31 + (size_t)(b - r->body)) % 0xa0);
}

/* What lies behind FILE_MAX is not remembered, only that the file is that long. */
static void model_write(struct run *r, struct body *b, uint64_t pos, uint32_t len)
{
	if (pos < FILE_MAX)
		memcpy(b->data + pos, r->buf, FDIO_MIN((uint64_t)len, FILE_MAX - pos));
	b->size = FDIO_MAX(b->size, pos + len);
}

void op_write(struct run *r, struct name *n, unsigned flags, uint64_t pos, uint32_t len)
{
	struct body *b = n->b;
	struct x4_inode *i;
	struct dio_file *f;
	int err;

	if (!b || !dirs_there(n))
		return;
	begin(r, NULL, b, true);
	fill(r, b, pos, len);
	err = open_file(r, n, &i, &f);
	if (!err) {
		ssize_t done = request(r, f, flags | DIO_WRITE, pos, r->buf, len);

		err = done < 0 ? (int)done : 0;
		if (done >= 0 && done != len)
			fail(r, "write: %zd of %u bytes without an error", done, len);
		if (err)
			b->blurred = true;
		close_file(r, i, f);
	}
	if (!end(r, "write", err, true))
		return;
	model_write(r, b, pos, len);
	if (flags & DIO_DSYNC)
		b->dacked = b->dversion;
}

void op_read(struct run *r, struct name *n, unsigned flags, uint64_t pos, uint32_t len)
{
	struct body *b = n->b;
	struct x4_inode *i;
	struct dio_file *f;
	int err;

	if (!b || !dirs_there(n))
		return;
	begin(r, NULL, NULL, false);
	memset(r->buf, 0xee, len);
	err = open_file(r, n, &i, &f);
	if (!err) {
		uint64_t left = pos < b->size ? b->size - pos : 0;
		ssize_t done = request(r, f, flags, pos, r->buf, len), want = (ssize_t)FDIO_MIN((uint64_t)len, left);

		err = done < 0 ? (int)done : 0;
		if (done >= 0 && !b->blurred && (done != want || memcmp(r->buf, b->data + pos, (size_t)want)))
			fail(r, "read: %zd bytes that are not what was written (%zd)", done, want);
		close_file(r, i, f);
	}
	end(r, "read", err, false);
}

/* *cut: the size is the new one, even if it has failed: the rest of the truncate is to be finished by whoever extends the file. */
static int gated(struct run *r, struct name *n, uint64_t size, int mode, uint64_t off, uint64_t len, bool *cut)
{
	struct x4_inode *i;
	int err = get(r, n, &i);

	if (err)
		return err;
	err = dio_gate_close(r->d, i, DIO_GATE_ALL);
	if (!err) {
		n->b->blurred = true; /* until it has succeeded */
		x4_inode_lock_excl(i);
		err = mode < 0 ? x4_truncate(i, size) : x4_fallocate(i, mode, off, len, true);
		*cut = mode < 0 && x4_inode_size(i) == size;
		x4_inode_unlock(i);
		dio_gate_open(r->d, i, DIO_GATE_ALL);
	}
	x4_iput(i);
	return err;
}

void op_truncate(struct run *r, struct name *n, uint64_t size)
{
	struct body *b = n->b;
	bool blurred, cut = false;

	if (!b || !dirs_there(n))
		return;
	blurred = b->blurred;
	begin(r, NULL, b, true);
	bool done = end(r, "truncate", gated(r, n, size, -1, 0, 0, &cut), true);
	if (!done && (!cut || size >= b->size))
		return;
	if (!done)
		r->cut_short++;
	b->blurred = blurred;
	if (size < b->size && size < FILE_MAX)
		memset(b->data + size, 0, FILE_MAX - size);
	b->size = size;
}

void op_fallocate(struct run *r, struct name *n, int mode, uint64_t off, uint64_t len)
{
	struct body *b = n->b;
	bool blurred, unused;

	if (!b || !dirs_there(n))
		return;
	blurred = b->blurred;
	begin(r, NULL, b, true);
	if (!end(r, "fallocate", gated(r, n, 0, mode, off, len, &unused), true))
		return;
	b->blurred = blurred;
	if ((mode & (X4_FALLOC_PUNCH_HOLE | X4_FALLOC_ZERO_RANGE)) && off < FILE_MAX)
		memset(b->data + off, 0, FDIO_MIN(len, FILE_MAX - off));
	if (!(mode & X4_FALLOC_KEEP_SIZE))
		b->size = FDIO_MAX(b->size, off + len);
}

void op_tmpfile(struct run *r, struct name *to, uint32_t len)
{
	struct x4_inode *root, *i;
	struct dio_file *f;
	struct body *b;
	int err;

	begin(r, to, NULL, false);
	err = get(r, NULL, &root);
	if (!err) {
		err = x4_tmpfile(root, S_IFREG | 0600, &root_cred, &i);
		x4_iput(root);
	}
	if (!end(r, "tmpfile", err, true))
		return;
	b = body_new(r, S_IFREG | 0600);
	fill(r, b, 0, len);
	err = dio_file_open(r->d, i, &f);
	if (!err) {
		ssize_t done = request(r, f, DIO_WRITE, 0, r->buf, len);

		err = done < 0 ? (int)done : 0;
		dio_file_close(f);
	}
	if (!end(r, "write to a file without a name", err, r->was_ro) || !to) {
		x4_iput(i);
		pump(r);
		return;
	}
	model_write(r, b, 0, len);
	begin(r, to, b, true);
	err = get(r, NULL, &root);
	if (!err) {
		err = x4_link(root, to->name, (unsigned)strlen(to->name), i, true);
		x4_iput(root);
	}
	x4_iput(i);
	pump(r);
	if (end(r, "link of a file without a name", err, true))
		to->b = b;
}

void op_seek(struct run *r, struct name *n)
{
	struct x4_inode *i;
	uint64_t at;
	int err;

	if (!n->b || !dirs_there(n))
		return;
	begin(r, NULL, NULL, false);
	err = get(r, n, &i);
	if (!err) {
		x4_inode_lock_shared(i);
		err = x4_seek(i, 0, false, &at);
		x4_inode_unlock(i);
		if (err == -ENXIO && (!n->b->size || n->b->blurred))
			err = 0;
		x4_iput(i);
	}
	end(r, "seek", err, false);
}

/* ---- attributes ---- */
void op_chmod(struct run *r, struct name *n, uint32_t mode)
{
	struct x4_attr a = { .mode = mode };
	struct x4_inode *i;
	int err;

	if (!n->b || !dirs_there(n))
		return;
	begin(r, NULL, n->b, false);
	err = get(r, n, &i);
	if (!err) {
		err = x4_setattr(i, X4_SET_MODE, &a);
		x4_iput(i);
	}
	if (end(r, "chmod", err, true))
		n->b->mode = (n->b->mode & S_IFMT) | mode;
}

/* True: it is set. */
static bool set_xattr(struct run *r, struct name *n, const char *name, const void *val, unsigned len)
{
	struct xa *x = n->b->xa, *last = x + MAX_XATTRS;
	struct x4_inode *i;
	int err;

	while (x < last && x->len && strcmp(x->name, name))
		x++;
	FDIO_ASSERT(x < last && len <= sizeof(x->val));
	if (!len && !x->len)
		return false;
	begin(r, NULL, n->b, false);
	err = get(r, n, &i);
	if (!err) {
		err = len ? x4_xattr_set(i, name, val, len, 0, false) : x4_xattr_remove(i, name);
		x4_iput(i);
	}
	if (!end(r, len ? "setxattr" : "removexattr", err, true))
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

void op_xattr(struct run *r, struct name *n, const char *name, unsigned len)
{
	if (!n->b || !dirs_there(n))
		return;
	fill(r, n->b, 0, len);
	set_xattr(r, n, name, r->buf, len);
}

/* Read and write for the owner, read for others: the mode follows. */
void op_acl(struct run *r, struct name *n, bool dflt)
{
	struct { uint32_t version; struct { uint16_t tag, perm; uint32_t id; } e[5]; } acl = { htole32(2), {
		{ htole16(1), htole16(6), UINT32_MAX }, { htole16(2), htole16(4), htole32(1000) }, { htole16(4), htole16(4), UINT32_MAX },
		{ htole16(16), htole16(4), UINT32_MAX }, { htole16(32), htole16(4), UINT32_MAX } } };

	if (!n->b || !dirs_there(n))
		return;
	if (dflt)
		n->b->mode_unknown = true;
	if (set_xattr(r, n, dflt ? "system.posix_acl_default" : "system.posix_acl_access", &acl, sizeof(acl)) && !dflt)
		n->b->mode = (n->b->mode & S_IFMT) | 0644;
}

/* ---- durability and the rest ---- */
struct tsync { struct dio_sync s; int err; unsigned done; };

static void sync_done(struct dio_sync *s, int err)
{
	struct tsync *t = container_of(s, struct tsync, s);

	t->err = err;
	__atomic_fetch_add(&t->done, 1, __ATOMIC_RELEASE);
}

static int do_sync(struct run *r, struct x4_inode *i, bool datasync)
{
	struct tsync t = { .s = { .inode = i, .datasync = datasync, .done = sync_done } };

	dio_fsync(r->d, &t.s);
	while (!__atomic_load_n(&t.done, __ATOMIC_ACQUIRE))
		if (!pump(r))
			usleep(100);
	if (t.done != 1)
		fail(r, "fsync: %u answers", t.done);
	return t.err;
}

static void ack_body(struct body *b, bool datasync)
{
	b->dacked = b->dversion;
	if (!datasync)
		b->acked = b->version;
}

static void ack(struct run *r, struct name *n, bool datasync)
{
	for (struct name *k = r->name; k < r->name + r->nr_names; k++) {
		if (!n || (k == n && !datasync))
			k->acked = k->version;
		if (k->b && (!n || k == n))
			ack_body(k->b, datasync);
	}
}

void op_fsync(struct run *r, struct name *n, bool datasync)
{
	struct x4_inode *i = NULL;
	int err = 0;

	if (n && (!n->b || !dirs_there(n)))
		return;
	begin(r, NULL, NULL, false);
	if (n)
		err = get(r, n, &i);
	if (!err)
		err = do_sync(r, i, datasync);
	x4_iput(i);
	if (end(r, n ? "fsync" : "syncfs", err, false))
		ack(r, n, datasync);
}

void op_trim(struct run *r)
{
	uint64_t n;

	begin(r, NULL, NULL, false);
	end(r, "trim", x4_vol_trim(r->v, 0, UINT64_MAX, 0, &n), false);
}

static bool count_entry(void *arg, const struct x4_dirent *e)
{
	(void)e;
	++*(unsigned *)arg;
	return true;
}

void op_readdir(struct run *r, struct name *n)
{
	struct x4_inode *i;
	unsigned seen = 0, want = n ? 2 : 3; /* lost+found */
	int err;

	if (n && (!n->b || !dirs_there(n)))
		return;
	for (struct name *k = r->name; k < r->name + r->nr_names; k++)
		want += k->dir == n && k->b;
	begin(r, NULL, NULL, false);
	err = get(r, n, &i);
	if (!err) {
		err = x4_readdir(i, 0, count_entry, &seen);
		x4_iput(i);
	}
	if (end(r, "readdir", err, false) && seen != want)
		fail(r, "readdir of %s: %u entries, not %u", n ? n->name : "/", seen, want);
}
