/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Judges a recovered image of the tree workload: is there what was promised (crash_tree.c says
 * what), and nothing foreign? One thread; the run that made the record has ended.
 */
#include "crash/crash_tree.h"

#include "base/crc32c.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct look {
	struct crash_run *run;
	struct fake_dev *fake;
	const char *text; /* the name that is looked at */
	char *why;
	size_t len;
};

static bool complain(struct look *look, const char *what)
{
	snprintf(look->why, look->len, "%s: %s", look->text, what);
	return false;
}

static int block_of(struct look *look, struct ext4_inode *inode, uint32_t lblk, uint8_t *buf)
{
	struct ext4_extent extent;
	int err = ext4_map_lookup(inode, lblk, &extent);

	memset(buf, 0, look->run->block_size);
	if (!err && extent.state == EXT4_EXTENT_WRITTEN)
		fake_peek(look->fake, buf, look->run->block_size,
			  extent.pblk * look->run->block_size);
	return err;
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

/* Zeroes, or bytes of one file; *id: which, set by the first bytes that are not zero. */
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

static bool had_name(const struct name *name, uint32_t id)
{
	for (unsigned k = 0; k < name->nr_ids; k++)
		if (name->ids[k] == id)
			return true;
	return false;
}

/* want: what was promised; NULL: only that nothing foreign is seen. */
static bool content_ok(struct look *look, const struct name *name, struct ext4_inode *inode,
		       const struct file *want)
{
	static uint8_t buf[4096];
	uint64_t size = ext4_inode_size(inode);
	uint32_t id = 0;

	if (want ? size != want->size : size > (uint64_t)MAX_BLOCKS * look->run->block_size)
		return complain(look, "size is wrong");
	if (ext4_map_load(inode))
		return complain(look, "map cannot be loaded");
	for (uint32_t b = 0; (uint64_t)b * look->run->block_size < size; b++) {
		unsigned some = (unsigned)FDIO_MIN((uint64_t)look->run->block_size,
						   size - (uint64_t)b * look->run->block_size);

		if (block_of(look, inode, b, buf))
			return complain(look, "block cannot be looked up");
		if (want && !block_is(buf, some, b, want))
			return complain(look, "synced bytes are not there");
		if (!want && !block_is_own(buf, some, b, &id))
			return complain(look, "shows bytes that are not its own");
	}
	return !id || had_name(name, id) || complain(look, "shows the bytes of another file");
}

static bool xattr_ok(struct look *look, struct ext4_inode *inode, uint32_t v)
{
	static uint8_t want[TREE_XATTR_MAX], got[TREE_XATTR_MAX];
	size_t len, n = 0;
	int err = ext4_xattr_get(inode, tree_xattr_name, got, sizeof(got), &n);

	if (!v)
		return err == -ENODATA || complain(look, "has an attribute that was removed");
	len = tree_xattr_value(want, v);
	return (!err && n == len && !memcmp(want, got, n)) ||
	       complain(look, "its attribute is not what was synced");
}

/* inode: what the name stands for now, NULL if it is not there. */
static bool ack_ok(struct look *look, const struct name *name, const struct ack *a,
		   struct ext4_inode *inode)
{
	if (a->file.kind == KIND_NONE)
		return !inode || complain(look, "was removed durably and is back");
	if (!inode)
		return complain(look, "was synced and is gone");
	if ((ext4_inode_mode(inode) & 0170000) != (a->file.kind == KIND_DIR ? 0040000u : 0100000u))
		return complain(look, "is of another kind");
	if (!a->content || a->file.kind == KIND_DIR)
		return true;
	return content_ok(look, name, inode, &a->file) && xattr_ok(look, inode, a->file.xattr);
}

/* The name is as it was acknowledged before event k, unless an operation on it began since. */
static bool name_ok(struct look *look, const struct name *name, struct ext4_inode *dir, unsigned k)
{
	struct ext4_inode *inode = NULL;
	int err = ext4_lookup(dir, look->text, (unsigned)strlen(look->text), &inode);
	bool ok = true;

	if (err && err != -ENOENT)
		return complain(look, "cannot be looked up");
	if (inode && (ext4_inode_mode(inode) & 0170000) == 0100000)
		ok = content_ok(look, name, inode, NULL);
	for (unsigned a = 0; a < name->nr_acks && name->acks[a].event <= k && ok; a++)
		if (name->acks[a].ops == name->ops || name->start[name->acks[a].ops] >= k)
			ok = ack_ok(look, name, &name->acks[a], inode);
	ext4_inode_put(inode);
	return ok;
}

static bool open_to_look(struct look *look, struct ext4_vol **vol, struct ext4_inode **dir)
{
	struct ext4_options options = tree_options;

	options.read_only = true;
	if (ext4_vol_open(fake_dev(look->fake), &options, vol, NULL,
			  FDIO_REASON_AT(look->why, look->len)))
		return false;
	if (tree_open_dirs(*vol, dir, false))
		return true;
	tree_close_dirs(dir);
	ext4_vol_abandon(*vol);
	return complain(look, "a directory is missing");
}

bool tree_check(struct crash_run *run, struct fake_dev *fake, unsigned k, char *why, size_t len)
{
	struct look look = { .run = run, .fake = fake, .text = "tree", .why = why, .len = len };
	struct ext4_inode *dir[NR_DIRS] = { NULL };
	struct ext4_vol *vol;
	bool ok = true;

	if (!open_to_look(&look, &vol, dir))
		return false;
	for (unsigned t = 0; t < run->nr_workers; t++) {
		for (unsigned n = 0; n < NR_NAMES && ok; n++) {
			char text[32];

			tree_text(text, sizeof(text), t, n);
			look.text = text;
			ok = name_ok(&look, &run->worker[t].name[n], dir[n % NR_DIRS], k);
		}
	}
	tree_close_dirs(dir);
	ext4_vol_abandon(vol);
	return ok;
}

static bool digest_name(struct look *look, struct ext4_inode *inode, uint64_t *sum)
{
	static uint8_t buf[4096];
	uint64_t size = ext4_inode_size(inode);
	static uint8_t value[TREE_XATTR_MAX];
	struct ext4_attr attr;
	size_t n = 0;
	uint32_t crc;

	ext4_getattr(inode, &attr);
	crc = fdio_crc32c(~0u, &attr.mode, sizeof(attr.mode));
	crc = fdio_crc32c(crc, &attr.nlink, sizeof(attr.nlink));
	if (!ext4_xattr_get(inode, tree_xattr_name, value, sizeof(value), &n))
		crc = fdio_crc32c(crc, value, n);
	if ((attr.mode & 0170000) == 0100000) {
		crc = fdio_crc32c(crc, &size, sizeof(size));
		if (size > (uint64_t)MAX_BLOCKS * look->run->block_size || ext4_map_load(inode))
			return complain(look, "cannot be read");
		for (uint32_t b = 0; (uint64_t)b * look->run->block_size < size; b++) {
			if (block_of(look, inode, b, buf))
				return complain(look, "block cannot be looked up");
			crc = fdio_crc32c(crc, buf,
					  FDIO_MIN((uint64_t)look->run->block_size,
						   size - (uint64_t)b * look->run->block_size));
		}
	}
	*sum = *sum * 31 + crc;
	return true;
}

bool tree_digest(struct crash_run *run, struct fake_dev *fake, uint64_t *sum, char *why, size_t len)
{
	struct look look = { .run = run, .fake = fake, .text = "tree", .why = why, .len = len };
	struct ext4_inode *dir[NR_DIRS] = { NULL };
	struct ext4_vol *vol;
	bool ok = true;

	*sum = 0;
	if (!open_to_look(&look, &vol, dir))
		return false;
	for (unsigned at = 0; at < run->nr_workers * NR_NAMES && ok; at++) {
		struct ext4_inode *inode = NULL;
		char text[32];
		unsigned n = tree_text(text, sizeof(text), at / NR_NAMES, at % NR_NAMES);

		*sum = *sum * 31 + at;
		look.text = text;
		if (!ext4_lookup(dir[at % NR_NAMES % NR_DIRS], text, n, &inode))
			ok = digest_name(&look, inode, sum);
		ext4_inode_put(inode);
	}
	tree_close_dirs(dir);
	ext4_vol_abandon(vol);
	return ok;
}
