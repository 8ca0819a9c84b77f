/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The verdict: a volume that is mounted without faults against the model. What was acknowledged and not touched since must be
 * there in any case; full: everything must be as the model says, but for data of which an operation failed.
 */
#include "faults/faults.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool certain(const struct name *n, bool full)
{
	for (; n; n = n->dir)
		if (!full && n->version != n->acked)
			return false;
	return true;
}

static bool parents(const struct name *n)
{
	for (n = n->dir; n; n = n->dir)
		if (!n->b)
			return false;
	return true;
}

static void check_data(struct run *r, struct name *n, struct x4_inode *i)
{
	struct body *b = n->b;
	uint64_t known = FDIO_MIN(b->size, (uint64_t)FILE_MAX);
	struct dio_file *f;
	ssize_t got;
	int err;

	if (x4_inode_size(i) != b->size)
		fail(r, "%s: size %llu, not %llu", n->name, (unsigned long long)x4_inode_size(i), (unsigned long long)b->size);
	err = dio_file_open(r->d, i, &f);
	if (err)
		fail(r, "%s: cannot be opened: %s", n->name, strerror(-err));
	memset(r->buf, 0xee, FILE_MAX);
	got = request(r, f, 0, 0, r->buf, FILE_MAX);
	dio_file_close(f);
	if (got != (ssize_t)known)
		fail(r, "%s: a read returns %zd, not %llu", n->name, got, (unsigned long long)known);
	for (size_t k = 0; k < known; k++)
		if (r->buf[k] != b->data[k])
			fail(r, "%s: byte %zu is %#x, not %#x", n->name, k, r->buf[k], b->data[k]);
}

static void check_xattrs(struct run *r, struct name *n, struct x4_inode *i)
{
	static uint8_t val[sizeof(((struct xa *)0)->val)];

	for (struct xa *x = n->b->xa; x < n->b->xa + MAX_XATTRS && x->len; x++) {
		size_t len = 0;
		int err = x4_xattr_get(i, x->name, val, sizeof(val), &len);

		if (err || len != x->len)
			fail(r, "%s: attribute %s: %d, %zu bytes, not %u", n->name, x->name, err, len, x->len);
		if (strncmp(x->name, "system.", 7) && memcmp(val, x->val, len))
			fail(r, "%s: attribute %s has another value", n->name, x->name);
	}
}

static unsigned links(struct run *r, const struct name *n)
{
	unsigned nr = S_ISDIR(n->b->mode) ? 2 : 0;

	for (struct name *k = r->name; k < r->name + r->nr_names; k++) {
		if (S_ISDIR(n->b->mode))
			nr += k->dir == n && k->b && S_ISDIR(k->b->mode);
		else
			nr += k->b == n->b;
	}
	return nr;
}

static void check_attr(struct run *r, struct name *n, struct x4_inode *i, bool full)
{
	static char target[4097];
	struct body *b = n->b;
	struct x4_attr a;
	unsigned len;

	x4_getattr(i, &a);
	if (b->mode_unknown ? (a.mode & S_IFMT) != (b->mode & S_IFMT) : a.mode != b->mode)
		fail(r, "%s: mode %o, not %o", n->name, a.mode, b->mode);
	if (a.rdev != b->rdev)
		fail(r, "%s: device %#x, not %#x", n->name, a.rdev, b->rdev);
	if (full && a.nlink != links(r, n))
		fail(r, "%s: %u links, not %u", n->name, a.nlink, links(r, n));
	if (!S_ISLNK(b->mode))
		return;
	if (x4_readlink(i, target, sizeof(target), &len) || strcmp(target, b->target))
		fail(r, "%s: has another target", n->name);
}

static void check_name(struct run *r, struct name *n, bool full)
{
	struct x4_inode *i;
	struct body *b = n->b;
	int err;

	if (!parents(n) || !certain(n, full))
		return;
	err = get(r, n, &i);
	if (!b) {
		if (err != -ENOENT)
			fail(r, "%s: was removed and is there (%d)", n->name, err);
		return;
	}
	if (err)
		fail(r, "%s: cannot be found: %s", n->name, strerror(-err));
	if (full || b->version == b->acked) {
		check_attr(r, n, i, full);
		check_xattrs(r, n, i);
	}
	if (S_ISREG(b->mode) && !b->blurred && (full || b->dversion == b->dacked))
		check_data(r, n, i);
	x4_iput(i);
}

struct seen { struct run *r; struct name *dir; unsigned nr; };

static bool known(void *arg, const struct x4_dirent *e)
{
	struct seen *s = arg;

	for (struct name *n = s->r->name; n < s->r->name + s->r->nr_names; n++)
		if (n->dir == s->dir && n->b && strlen(n->name) == e->name_len && !memcmp(n->name, e->name, e->name_len))
			s->nr++;
	return true;
}

/* The entries are all of the model's; those that are too many have been looked up by check_name. */
static void check_dir(struct run *r, struct name *dir)
{
	struct seen s = { .r = r, .dir = dir };
	struct x4_inode *i;
	unsigned want = 0;
	int err = get(r, dir, &i);

	if (!err) {
		err = x4_readdir(i, 0, known, &s);
		x4_iput(i);
	}
	for (struct name *n = r->name; n < r->name + r->nr_names; n++)
		want += n->dir == dir && n->b;
	if (err || s.nr != want)
		fail(r, "%s: lists %u of %u names (%d)", dir ? dir->name : "/", s.nr, want, err);
}

void verify(struct run *r, bool full)
{
	for (struct name *n = r->name; n < r->name + r->nr_names; n++)
		check_name(r, n, full);
	if (!full)
		return;
	check_dir(r, NULL);
	for (struct name *n = r->name; n < r->name + r->nr_names; n++)
		if (n->b && S_ISDIR(n->b->mode) && parents(n))
			check_dir(r, n);
}
