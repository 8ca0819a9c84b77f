/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The tree workload's verdict on a recovered image: is what was promised there, and nothing foreign? What is promised stands in
 * crash_tree.c. One thread; the run that made the record has ended.
 */
#include "crash/crash_tree.h"

#include "base/crc32c.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct look {
	struct crash_run *r;
	struct fake_dev *c;
	const char *text;
	char *why;
	size_t len;
};

static bool complain(struct look *l, const char *what)
{
	snprintf(l->why, l->len, "%s: %s", l->text, what);
	return false;
}

static int block_of(struct look *l, struct x4_inode *i, uint32_t lblk, uint8_t *buf)
{
	struct x4_ext e;
	int ret = x4_map_lookup(i, lblk, &e);

	memset(buf, 0, l->r->bs);
	if (!ret && e.state == X4_EXT_WRITTEN)
		fake_peek(l->c, buf, l->r->bs, e.pblk * l->r->bs);
	return ret;
}

static bool block_is(const uint8_t *got, unsigned n, uint32_t lblk, const struct file *want)
{
	static uint8_t expect[4096];

	memset(expect, 0, n);
	if (want->gen[lblk]) {
		tree_fill(expect, n, want->id, lblk, want->gen[lblk]);
		if (want->valid[lblk] < n)
			memset(expect + want->valid[lblk], 0, n - want->valid[lblk]);
	}
	return !memcmp(got, expect, n);
}

/* Zeroes or bytes of one file, *id, which the first of them decides. */
static bool block_is_own(const uint8_t *got, unsigned n, uint32_t lblk, uint32_t *id)
{
	for (unsigned off = 0; off + 16 <= n; off += 16) {
		uint32_t w[4];

		memcpy(w, got + off, 16);
		if (!(w[0] | w[1] | w[2] | w[3]))
			continue;
		if (!*id)
			*id = w[0];
		if (w[0] != *id || w[2] != tree_mix(w[0], lblk, off) || w[3] != ~w[1])
			return false;
	}
	return true;
}

static bool had_name(const struct name *n, uint32_t id)
{
	for (unsigned k = 0; k < n->nr_ids; k++)
		if (n->ids[k] == id)
			return true;
	return false;
}

/* want NULL: nothing was promised but that nothing foreign is seen. */
static bool content_ok(struct look *l, const struct name *n, struct x4_inode *i, const struct file *want)
{
	static uint8_t buf[4096];
	uint64_t size = x4_inode_size(i);
	uint32_t id = 0;

	if (want ? size != want->size : size > (uint64_t)MAX_BLOCKS * l->r->bs)
		return complain(l, "size is wrong");
	if (x4_map_load(i))
		return complain(l, "map cannot be loaded");
	for (uint32_t b = 0; (uint64_t)b * l->r->bs < size; b++) {
		unsigned some = (unsigned)FDIO_MIN((uint64_t)l->r->bs, size - (uint64_t)b * l->r->bs);

		if (block_of(l, i, b, buf))
			return complain(l, "block cannot be looked up");
		if (want && !block_is(buf, some, b, want))
			return complain(l, "synced bytes are not there");
		if (!want && !block_is_own(buf, some, b, &id))
			return complain(l, "shows bytes that are not its own");
	}
	return !id || had_name(n, id) || complain(l, "shows the bytes of another file");
}

static bool xattr_ok(struct look *l, struct x4_inode *i, uint32_t v)
{
	static uint8_t want[TREE_XATTR_MAX], got[TREE_XATTR_MAX];
	size_t len, n = 0;
	int ret = x4_xattr_get(i, tree_xattr_name, got, sizeof(got), &n);

	if (!v)
		return ret == -ENODATA || complain(l, "has an attribute that was removed");
	len = tree_xattr_value(want, v);
	return (!ret && n == len && !memcmp(want, got, n)) || complain(l, "its attribute is not what was synced");
}

static bool ack_ok(struct look *l, const struct name *n, const struct ack *a, struct x4_inode *i)
{
	if (a->file.kind == K_NONE)
		return !i || complain(l, "was removed durably and is back");
	if (!i)
		return complain(l, "was synced and is gone");
	if ((x4_inode_mode(i) & 0170000) != (a->file.kind == K_DIR ? 0040000u : 0100000u))
		return complain(l, "is of another kind");
	if (!a->content || a->file.kind == K_DIR)
		return true;
	return content_ok(l, n, i, &a->file) && xattr_ok(l, i, a->file.xattr);
}

static bool name_ok(struct look *l, const struct name *n, struct x4_inode *dir, unsigned k)
{
	struct x4_inode *i = NULL;
	int ret = x4_lookup(dir, l->text, (unsigned)strlen(l->text), &i);
	bool ok = true;

	if (ret && ret != -ENOENT)
		return complain(l, "cannot be looked up");
	if (i && (x4_inode_mode(i) & 0170000) == 0100000)
		ok = content_ok(l, n, i, NULL);
	for (unsigned a = 0; a < n->nr_acks && n->acks[a].event <= k && ok; a++)
		if (n->acks[a].ops == n->ops || n->start[n->acks[a].ops] >= k)
			ok = ack_ok(l, n, &n->acks[a], i);
	x4_iput(i);
	return ok;
}

static bool open_to_look(struct look *l, struct x4_vol **v, struct x4_inode **dir)
{
	struct x4_options opt = tree_options;

	opt.read_only = true;
	if (x4_vol_open(fake_dev(l->c), &opt, v, NULL, FDIO_REASON_AT(l->why, l->len)))
		return false;
	if (tree_open_dirs(*v, dir, false))
		return true;
	tree_close_dirs(dir);
	x4_vol_abandon(*v);
	return complain(l, "a directory is missing");
}

bool tree_check(struct crash_run *r, struct fake_dev *c, unsigned k, char *why, size_t len)
{
	struct look l = { .r = r, .c = c, .text = "tree", .why = why, .len = len };
	struct x4_inode *dir[NDIRS] = { NULL };
	struct x4_vol *v;
	bool ok = true;

	if (!open_to_look(&l, &v, dir))
		return false;
	for (unsigned t = 0; t < r->nr_workers; t++) {
		for (unsigned n = 0; n < NN && ok; n++) {
			char text[32];

			tree_text(text, sizeof(text), t, n);
			l.text = text;
			ok = name_ok(&l, &r->w[t].name[n], dir[n % NDIRS], k);
		}
	}
	tree_close_dirs(dir);
	x4_vol_abandon(v);
	return ok;
}

static bool digest_name(struct look *l, struct x4_inode *i, uint64_t *sum)
{
	static uint8_t buf[4096];
	uint64_t size = x4_inode_size(i);
	static uint8_t value[TREE_XATTR_MAX];
	struct x4_attr a;
	size_t n = 0;
	uint32_t crc;

	x4_getattr(i, &a);
	crc = fdio_crc32c(~0u, &a.mode, sizeof(a.mode));
	crc = fdio_crc32c(crc, &a.nlink, sizeof(a.nlink));
	if (!x4_xattr_get(i, tree_xattr_name, value, sizeof(value), &n))
		crc = fdio_crc32c(crc, value, n);
	if ((a.mode & 0170000) == 0100000) {
		crc = fdio_crc32c(crc, &size, sizeof(size));
		if (size > (uint64_t)MAX_BLOCKS * l->r->bs || x4_map_load(i))
			return complain(l, "cannot be read");
		for (uint32_t b = 0; (uint64_t)b * l->r->bs < size; b++) {
			if (block_of(l, i, b, buf))
				return complain(l, "block cannot be looked up");
			crc = fdio_crc32c(crc, buf, FDIO_MIN((uint64_t)l->r->bs, size - (uint64_t)b * l->r->bs));
		}
	}
	*sum = *sum * 31 + crc;
	return true;
}

bool tree_digest(struct crash_run *r, struct fake_dev *c, uint64_t *sum, char *why, size_t len)
{
	struct look l = { .r = r, .c = c, .text = "tree", .why = why, .len = len };
	struct x4_inode *dir[NDIRS] = { NULL };
	struct x4_vol *v;
	bool ok = true;

	*sum = 0;
	if (!open_to_look(&l, &v, dir))
		return false;
	for (unsigned at = 0; at < r->nr_workers * NN && ok; at++) {
		struct x4_inode *i = NULL;
		char text[32];
		unsigned n = tree_text(text, sizeof(text), at / NN, at % NN);

		*sum = *sum * 31 + at;
		l.text = text;
		if (!x4_lookup(dir[at % NN % NDIRS], text, n, &i))
			ok = digest_name(&l, i, sum);
		x4_iput(i);
	}
	tree_close_dirs(dir);
	x4_vol_abandon(v);
	return ok;
}
