/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The verdict: compares a volume that is mounted without faults with the model. What was
 * acknowledged and not touched since must be there in any case; with full, everything must be as
 * the model says, except the data of files on whose data an operation failed.
 */
#include "faults/faults.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The name and the directories above it have not changed since they were acknowledged. */
static bool is_promised(const struct name *name, bool full)
{
	for (; name; name = name->dir)
		if (!full && name->version != name->acked)
			return false;
	return true;
}

/* In the model, the directories above name exist. */
static bool parents_exist(const struct name *name)
{
	for (name = name->dir; name; name = name->dir)
		if (!name->body)
			return false;
	return true;
}

static void check_data(struct run *run, struct name *name, struct ext4_inode *inode)
{
	struct body *body = name->body;
	uint64_t known = FDIO_MIN(body->size, (uint64_t)FILE_MAX);
	struct dio_file *file;
	ssize_t got;
	int err;

	if (ext4_inode_size(inode) != body->size)
		fail(run, "%s: size %llu, not %llu", name->name,
		     (unsigned long long)ext4_inode_size(inode), (unsigned long long)body->size);
	err = dio_file_open(run->dio, inode, &file);
	if (err)
		fail(run, "%s: cannot be opened: %s", name->name, strerror(-err));
	memset(run->buf, 0xee, FILE_MAX);
	got = request(run, file, 0, 0, run->buf, FILE_MAX);
	dio_file_close(file);
	if (got != (ssize_t)known)
		fail(run, "%s: a read returns %zd, not %llu", name->name, got,
		     (unsigned long long)known);
	for (size_t k = 0; k < known; k++)
		if (run->buf[k] != body->data[k])
			fail(run, "%s: byte %zu is %#x, not %#x", name->name, k, run->buf[k],
			     body->data[k]);
}

static void check_xattrs(struct run *run, struct name *name, struct ext4_inode *inode)
{
	static uint8_t val[sizeof(((struct xattr *)0)->val)];

	struct xattr *x = name->body->xattr, *end = x + MAX_XATTRS;

	for (; x < end && x->len; x++) {
		size_t len = 0;
		int err = ext4_xattr_get(inode, x->name, val, sizeof(val), &len);

		if (err || len != x->len)
			fail(run, "%s: attribute %s: %d, %zu bytes, not %u", name->name, x->name,
			     err, len, x->len);
		if (strncmp(x->name, "system.", 7) && memcmp(val, x->val, len))
			fail(run, "%s: attribute %s has another value", name->name, x->name);
	}
}

/* The link count that the model expects. */
static unsigned links(struct run *run, const struct name *name)
{
	unsigned nr = S_ISDIR(name->body->mode) ? 2 : 0;

	for (struct name *k = run->name; k < run->name + run->nr_names; k++) {
		if (S_ISDIR(name->body->mode))
			nr += k->dir == name && k->body && S_ISDIR(k->body->mode);
		else
			nr += k->body == name->body;
	}
	return nr;
}

static void check_attr(struct run *run, struct name *name, struct ext4_inode *inode, bool full)
{
	static char target[4097];
	struct body *body = name->body;
	struct ext4_attr attr;
	unsigned len;

	ext4_getattr(inode, &attr);
	if (body->mode_unknown ? (attr.mode & S_IFMT) != (body->mode & S_IFMT)
			       : attr.mode != body->mode)
		fail(run, "%s: mode %o, not %o", name->name, attr.mode, body->mode);
	if (attr.rdev != body->rdev)
		fail(run, "%s: device %#x, not %#x", name->name, attr.rdev, body->rdev);
	if (full && attr.nlink != links(run, name))
		fail(run, "%s: %u links, not %u", name->name, attr.nlink, links(run, name));
	if (!S_ISLNK(body->mode))
		return;
	if (ext4_readlink(inode, target, sizeof(target), &len) || strcmp(target, body->target))
		fail(run, "%s: has another target", name->name);
}

static void check_name(struct run *run, struct name *name, bool full)
{
	struct ext4_inode *inode;
	struct body *body = name->body;
	int err;

	if (!parents_exist(name) || !is_promised(name, full))
		return;
	err = get_inode(run, name, &inode);
	if (!body) {
		if (err != -ENOENT)
			fail(run, "%s: was removed and is there (%d)", name->name, err);
		return;
	}
	if (err)
		fail(run, "%s: cannot be found: %s", name->name, strerror(-err));
	if (full || body->version == body->acked) {
		check_attr(run, name, inode, full);
		check_xattrs(run, name, inode);
	}
	if (S_ISREG(body->mode) && !body->content_unknown &&
	    (full || body->data_version == body->data_acked))
		check_data(run, name, inode);
	ext4_inode_put(inode);
}

struct seen { struct run *run; struct name *dir; unsigned nr; };

static bool count_known(void *arg, const struct ext4_dirent *entry)
{
	struct seen *seen = arg;

	for (struct name *name = seen->run->name; name < seen->run->name + seen->run->nr_names;
	     name++)
		if (name->dir == seen->dir && name->body && strlen(name->name) == entry->name_len &&
		    !memcmp(name->name, entry->name, entry->name_len))
			seen->nr++;
	return true;
}

/* All of the model's names are listed; check_name has looked up those that should not exist. */
static void check_dir(struct run *run, struct name *dir)
{
	struct seen seen = { .run = run, .dir = dir };
	struct ext4_inode *inode;
	unsigned want = 0;
	int err = get_inode(run, dir, &inode);

	if (!err) {
		err = ext4_readdir(inode, 0, count_known, &seen);
		ext4_inode_put(inode);
	}
	for (struct name *name = run->name; name < run->name + run->nr_names; name++)
		want += name->dir == dir && name->body;
	if (err || seen.nr != want)
		fail(run, "%s: lists %u of %u names (%d)", dir ? dir->name : "/", seen.nr, want,
		     err);
}

void verify(struct run *run, bool full)
{
	for (struct name *name = run->name; name < run->name + run->nr_names; name++)
		check_name(run, name, full);
	if (!full)
		return;
	check_dir(run, NULL);
	for (struct name *name = run->name; name < run->name + run->nr_names; name++)
		if (name->body && S_ISDIR(name->body->mode) && parents_exist(name))
			check_dir(run, name);
}
