/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extended attributes and ACLs on volumes in memory: limits, a random run against a table, shared
 * blocks, what a mode becomes.
 */
#include "ext4/inode/inode_change.h"
#include "kit/names.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#define SMALL (16u << 20)

static uint64_t blocks_of(struct ext4_inode *inode)
{
	struct ext4_attr attr;

	ext4_getattr(inode, &attr);
	return attr.blocks_512;
}

static struct ext4_inode *make(struct testvol *volume, const char *name, uint32_t mode)
{
	must_eq(name_create(volume->root, name, mode), 0);
	return name_lookup(volume->root, name);
}

static void put(struct ext4_inode **a, struct ext4_inode **b)
{
	ext4_inode_put(*a);
	*a = NULL;
	if (b) {
		ext4_inode_put(*b);
		*b = NULL;
	}
}

START_TEST(limits_and_errors)
{
	static char big[65537], buf[2048];
	struct ext4_inode *inode;
	struct testvol volume = { 0 };
	size_t len;

	testvol_make(&volume, SMALL, "-b 1024");
	inode = make(&volume, "f", S_IFREG | 0644);
	must_eq(ext4_xattr_get(inode, "user.a", NULL, 0, &len), -ENODATA);
	must_eq(ext4_xattr_remove(inode, "user.a"), -ENODATA);
	must_eq(ext4_xattr_set(inode, "user.a", "x", 1, XATTR_REPLACE, false), -ENODATA);
	must_eq(ext4_xattr_set(inode, "user.a", "hello", 5, XATTR_CREATE, false), 0);
	must_eq(ext4_xattr_set(inode, "user.a", "hello", 5, XATTR_CREATE, false), -EEXIST);
	must_eq(ext4_xattr_get(inode, "user.a", NULL, 0, &len), 0);
	must_eq(len, 5);
	must_eq(ext4_xattr_get(inode, "user.a", buf, 4, &len), -ERANGE);
	must_eq(ext4_xattr_get(inode, "user.a", buf, 5, &len), 0);
	must(!memcmp(buf, "hello", 5));
	must_eq(ext4_xattr_set(inode, "user.empty", NULL, 0, 0, false), 0);
	must_eq(ext4_xattr_get(inode, "user.empty", buf, 5, &len), 0);
	must_eq(len, 0);
	must_eq(ext4_xattr_set(inode, "system.data", "x", 1, 0, false), -EOPNOTSUPP);
	must_eq(ext4_xattr_set(inode, "other.data", "x", 1, 0, false), -EOPNOTSUPP);
	must_eq(ext4_xattr_set(inode, "user.big", big, sizeof big, 0, false), -E2BIG);
	must_eq(ext4_xattr_set(inode, "user.big", big, 1000, 0, false), -ENOSPC);
	must_eq(ext4_xattr_set(inode, "trusted.t", "1", 1, 0, false), 0);
	must_eq(ext4_xattr_list(inode, true, NULL, 0, &len), 0);
	must_eq(len, sizeof "user.a" + sizeof "user.empty" + sizeof "trusted.t");
	must_eq(ext4_xattr_list(inode, true, buf, len - 1, &len), -ERANGE);
	must_eq(blocks_of(inode), 0);
	must_eq(ext4_xattr_set(inode, "user.big", big, 900, 0, false), 0);
	must_eq(blocks_of(inode), 2);
	must_eq(ext4_xattr_remove(inode, "user.big"), 0);
	must_eq(blocks_of(inode), 0);
	must_eq(ext4_xattr_set(inode, "user.big", big, 900, 0, false), 0);
	ext4_inode_put(inode);
	testvol_check(&volume);
	testvol_open(&volume);
	inode = name_lookup(volume.root, "f");
	must_eq(ext4_xattr_get(inode, "user.big", NULL, 0, &len), 0);
	must_eq(len, 900);
	ext4_inode_put(inode);
	must_eq(name_unlink(volume.root, "f"), 0);
	testvol_done(&volume);
}
END_TEST

/* ---- against a table ---- */
#define FILES 4
#define NAMES 12

static struct { int len; uint8_t v[400]; } table[FILES][NAMES];

static void xname(char *buf, size_t cap, unsigned n)
{
	static const char *const prefix[] = { "user", "trusted", "security" };

	snprintf(buf, cap, "%s.%.*s%u", prefix[n % 3], (int)(n * 5),
		 "a-long-tail-of-a-name-that-takes-room-in-an-inode-and-in-a-block", n);
}

static void verify(struct ext4_inode *inode, unsigned f)
{
	static char list[4096];
	uint8_t buf[400];
	size_t len, names = 0;
	char name[128];

	for (unsigned n = 0; n < NAMES; n++) {
		int err;

		xname(name, sizeof name, n);
		err = ext4_xattr_get(inode, name, buf, sizeof buf, &len);
		must_eq(err, table[f][n].len < 0 ? -ENODATA : 0);
		if (err)
			continue;
		must_eq(len, table[f][n].len);
		must(!memcmp(buf, table[f][n].v, len));
		names += strlen(name) + 1;
	}
	must_eq(ext4_xattr_list(inode, true, list, sizeof list, &len), 0);
	must_eq(len, names);
}

static void step(struct ext4_inode *inode, unsigned f, uint64_t *rnd)
{
	unsigned n = next_random(rnd) % NAMES,
		 len = next_random(rnd) % (next_random(rnd) % 4 ? 40 : 400);
	uint8_t value[400];
	char name[128];
	int err;

	xname(name, sizeof name, n);
	if (next_random(rnd) % 3 == 0) {
		must_eq(ext4_xattr_remove(inode, name), table[f][n].len < 0 ? -ENODATA : 0);
		table[f][n].len = -1;
		return;
	}
	for (unsigned k = 0; k < len; k++)
		value[k] = (uint8_t)next_random(rnd);
	err = ext4_xattr_set(inode, name, value, len, 0, false);
	if (err == -ENOSPC)
		return; /* and the old value is still there, as verify will see */
	must_eq(err, 0);
	table[f][n].len = (int)len;
	memcpy(table[f][n].v, value, len);
}

static const char *const volumes[] = { "-b 1024", "-b 4096", "-b 1024 -I 128 -O ^metadata_csum",
				       "-b 1024 -I 512 -O ^metadata_csum,^64bit" };

START_TEST(against_a_table)
{
	struct ext4_inode *inode[FILES];
	uint64_t rnd = 5;
	struct testvol volume = { 0 };
	char name[8];

	testvol_make(&volume, SMALL, volumes[_i]);
	for (unsigned f = 0; f < FILES; f++) {
		snprintf(name, sizeof name, "f%u", f);
		ext4_inode_put(make(&volume, name, f ? S_IFREG | 0600 : S_IFDIR | 0700));
		for (unsigned n = 0; n < NAMES; n++)
			table[f][n].len = -1;
	}
	for (unsigned round = 0; round < 4; round++) {
		for (unsigned f = 0; f < FILES; f++) {
			snprintf(name, sizeof name, "f%u", f);
			inode[f] = name_lookup(volume.root, name);
			verify(inode[f], f);
		}
		for (unsigned k = 0; k < 800; k++)
			step(inode[k % FILES], k % FILES, &rnd);
		for (unsigned f = 0; f < FILES; f++) {
			verify(inode[f], f);
			ext4_inode_put(inode[f]);
		}
		testvol_check(&volume);
		testvol_open(&volume);
	}
	testvol_done(&volume);
}
END_TEST

/* ---- a block with two owners ---- */
static void share_block(struct testvol *volume, struct ext4_inode *from, struct ext4_inode *to,
			unsigned value_blocks)
{
	uint32_t blk = from->raw->i_file_acl;
	struct journal_handle *handle;
	struct journal_buffer *buffer;
	uint32_t two = htole32(2), sum;
	uint64_t le = blk;

	must(blk);
	must_eq(journal_begin(ext4_vol_journal(volume->vol), 10, &handle), 0);
	must_eq(ext4_inode_begin(handle, to), 0);
	to->raw->i_file_acl = blk;
	must_eq(ext4_raw_add_blocks(to, 1 + value_blocks), 0);
	must_eq(ext4_inode_dirty(handle, to, false), 0);
	must_eq(journal_read_block(ext4_vol_journal(volume->vol), blk, &buffer), 0);
	must_eq(journal_get_write(handle, buffer), 0);
	memcpy(buffer->data + 4, &two, 4);
	memset(buffer->data + 16, 0, 4);
	sum = ext2fs_crc32c_le(volume->vol->checksum_seed, (uint8_t *)&le, 8);
	sum = htole32(ext2fs_crc32c_le(sum, buffer->data, volume->vol->block_size));
	memcpy(buffer->data + 16, &sum, 4);
	journal_buffer_release(buffer);
	journal_end(handle);
}

START_TEST(a_shared_block_is_copied)
{
	struct ext4_inode *a, *b;
	char value[300], buf[300];
	struct testvol volume = { 0 };
	size_t len;

	testvol_make(&volume, SMALL, "-b 1024");
	a = make(&volume, "a", S_IFREG | 0644);
	b = make(&volume, "b", S_IFREG | 0644);
	memset(value, 'v', sizeof value);
	must_eq(ext4_xattr_set(a, "user.v", value, sizeof value, 0, false), 0);
	share_block(&volume, a, b, 0);
	must_eq(ext4_xattr_get(b, "user.v", buf, sizeof buf, &len), 0);
	value[0] = 'w';
	must_eq(ext4_xattr_set(b, "user.v", value, sizeof value, 0, false), 0);
	must(a->raw->i_file_acl != b->raw->i_file_acl);
	must_eq(ext4_xattr_get(a, "user.v", buf, sizeof buf, &len), 0);
	must_eq(buf[0], 'v');
	must_eq(ext4_xattr_get(b, "user.v", buf, sizeof buf, &len), 0);
	must_eq(buf[0], 'w');
	must_eq(ext4_xattr_remove(b, "user.v"), 0);
	share_block(&volume, a, b, 0);
	must_eq(name_unlink(volume.root, "a"), 0);
	ext4_inode_put(a);
	ext4_inode_put(b);
	testvol_check(&volume);
	testvol_open(&volume);
	b = name_lookup(volume.root, "b");
	must_eq(ext4_xattr_get(b, "user.v", buf, sizeof buf, &len), 0);
	must_eq(buf[0], 'v');
	ext4_inode_put(b);
	testvol_done(&volume);
}
END_TEST

/* ---- ACLs: as user space writes them, version 2 ---- */
struct acl_entry { uint16_t tag, perm; uint32_t id; };

static size_t acl_make(uint8_t *buf, const struct acl_entry *entry, unsigned n)
{
	uint32_t version = htole32(2);

	memcpy(buf, &version, 4);
	memcpy(buf + 4, entry, n * sizeof *entry);
	return 4 + n * sizeof *entry;
}

#define NOBODY UINT32_MAX
static const struct acl_entry full[] = {
	{ 1, 7, NOBODY }, { 2, 5, 1000 }, { 4, 5, NOBODY }, { 0x10, 7, NOBODY }, { 0x20, 4, NOBODY }
};
static const struct acl_entry plain[] = { { 1, 6, NOBODY }, { 4, 4, NOBODY }, { 0x20, 0, NOBODY } };
static const struct acl_entry no_mask[] = {
	{ 1, 7, NOBODY }, { 2, 5, 1000 }, { 4, 5, NOBODY }, { 0x20, 4, NOBODY }
};

#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

START_TEST(acls_and_modes)
{
	uint8_t buf[256], got[256];
	struct ext4_attr attr = { .mode = 0640 };
	struct ext4_inode *file, *dir, *sub;
	struct testvol volume = { 0 };
	size_t len, n;

	testvol_make(&volume, SMALL, "-b 1024");
	file = make(&volume, "f", S_IFREG | 02755);
	n = acl_make(buf, full, 5);
	must_eq(ext4_xattr_set(file, ACCESS, buf, n, 0, false), 0);
	must_eq(ext4_inode_mode(file) & 07777, 02774);
	must_eq(ext4_xattr_get(file, ACCESS, got, sizeof got, &len), 0);
	must_eq(len, n);
	must(!memcmp(buf, got, n));
	must_eq(ext4_xattr_set(file, ACCESS, buf, n, 0, true), 0);
	must_eq(ext4_inode_mode(file) & 07777, 0774);
	must_eq(ext4_setattr(file, EXT4_SET_MODE, &attr), 0);
	must_eq(ext4_xattr_get(file, ACCESS, got, sizeof got, &len), 0);
	must_eq(got[4 + 3 * 8 + 2], 4); /* the mask follows the group bits */
	n = acl_make(buf, plain, 3);
	must_eq(ext4_xattr_set(file, ACCESS, buf, n, 0, false), 0);
	must_eq(ext4_xattr_get(file, ACCESS, got, sizeof got, &len), -ENODATA);
	must_eq(ext4_inode_mode(file) & 07777, 0640);
	n = acl_make(buf, no_mask, 4);
	must_eq(ext4_xattr_set(file, ACCESS, buf, n, 0, false), -EINVAL);
	must_eq(ext4_xattr_set(file, ACCESS, buf, 7, 0, false), -EINVAL);
	n = acl_make(buf, full, 5);
	must_eq(ext4_xattr_set(file, DEFAULT, buf, n, 0, false), -EACCES);
	dir = make(&volume, "d", S_IFDIR | 0755);
	must_eq(ext4_xattr_set(dir, DEFAULT, buf, n, 0, false), 0);
	must_eq(name_create(dir, "file", S_IFREG | 0666), 0);
	must_eq(name_create(dir, "sub", S_IFDIR | 0777), 0);
	sub = name_lookup(dir, "file");
	/* No umask where there is a default ACL: owner 6, mask 6, others 4. */
	must_eq(ext4_inode_mode(sub) & 0777, 0664);
	must_eq(ext4_xattr_get(sub, ACCESS, got, sizeof got, &len), 0);
	must_eq(ext4_xattr_get(sub, DEFAULT, got, sizeof got, &len), -ENODATA);
	ext4_inode_put(sub);
	sub = name_lookup(dir, "sub");
	must_eq(ext4_inode_mode(sub) & 0777, 0774);
	must_eq(ext4_xattr_get(sub, DEFAULT, got, sizeof got, &len), 0);
	must_eq(len, n);
	ext4_inode_put(sub);
	ext4_inode_put(dir);
	ext4_inode_put(file);
	testvol_done(&volume);
}
END_TEST

START_TEST(capabilities_are_killed)
{
	struct ext4_inode *file;
	struct testvol volume = { 0 };
	size_t len;

	testvol_make(&volume, SMALL, "-b 1024");
	file = make(&volume, "f", S_IFREG | 0755);
	must_eq(ext4_xattr_set(file, "security.capability", "0123456789", 10, 0, false), 0);
	must(ext4_needs_killpriv(file));
	must_eq(ext4_setattr(file, EXT4_KILL_SUIDGID, &(struct ext4_attr){ 0 }), 0);
	must_eq(ext4_xattr_get(file, "security.capability", NULL, 0, &len), -ENODATA);
	must_eq(ext4_setattr(file, EXT4_KILL_SUIDGID, &(struct ext4_attr){ 0 }), 0);
	must(!ext4_needs_killpriv(file));
	must_eq(ext4_xattr_get(file, "security.capability", NULL, 0, &len), -ENODATA);
	must_eq(ext4_xattr_set(file, "security.capability", "0123456789", 10, 0, false), 0);
	must(ext4_needs_killpriv(file));
	must_eq(ext4_xattr_get(file, "security.capability", NULL, 0, &len), 0);
	ext4_inode_put(file);
	testvol_done(&volume);
}
END_TEST

/* ---- values in inodes of their own ---- */

/* Made by another tool, and shared by an attribute block of two files. */
START_TEST(values_in_inodes)
{
	static char buf[10000];
	struct ext4_inode *file;
	struct testvol volume = { 0 };
	size_t len;

	testvol_make(&volume, SMALL, "-b 1024 -O ea_inode");
	testvol_close(&volume);
	must_eq(fake_run(volume.fake,
			 "head -c 10000 /dev/zero | tr '\\0' q > $IMG.q; for f in f g; do "
			 "debugfs -w -R \"write /dev/null $f\" $IMG; debugfs -w -R \"ea_set -f "
			 "$IMG.q /$f user.big\" $IMG; debugfs -w -R \"ea_set -f $IMG.q /$f "
			 "user.too\" $IMG; "
			 "done >/dev/null 2>&1; rm $IMG.q; e2fsck -fy $IMG >/dev/null 2>&1; true",
			 NULL, 0, true),
		0);
	must_eq(fake_e2fsck(volume.fake), 0);
	testvol_open(&volume);
	must(!ext4_vol_read_only(volume.vol));
	file = name_lookup(volume.root, "f");
	must_eq(ext4_xattr_get(file, "user.big", buf, sizeof buf, &len), 0);
	must_eq(len, 1024); /* the tool takes no more than a block */
	must(buf[0] == 'q' && buf[1023] == 'q');
	must_eq(ext4_xattr_set(file, "user.too", "small", 5, 0, false), 0);
	must_eq(ext4_xattr_remove(file, "user.big"), 0);
	must_eq(ext4_xattr_get(file, "user.big", buf, sizeof buf, &len), -ENODATA);
	must_eq(ext4_xattr_get(file, "user.too", buf, sizeof buf, &len), 0);
	must_eq(len, 5);
	must_eq(blocks_of(file), 0);
	ext4_inode_put(file);
	must_eq(name_unlink(volume.root, "g"), 0);
	testvol_check(&volume);
	testvol_open(&volume);
	must_eq(name_unlink(volume.root, "f"), 0);
	testvol_done(&volume);
}
END_TEST

#define VALUES 5

static const char *value_name(unsigned k)
{
	static char name[200];

	snprintf(name, sizeof name, "%s.%u%s", k % 2 ? "trusted" : "user", k,
		 k > 2 ? "-a-name-that-takes-some-room-in-the-inode" : "");
	return name;
}

static void value_fill(uint8_t *p, unsigned len, unsigned salt)
{
	for (unsigned k = 0; k < len; k++)
		p[k] = (uint8_t)(k * 31 + (k >> 8) * 7 + salt);
}

static uint64_t blocks_free(struct testvol *volume)
{
	struct ext4_statfs stats;

	must_eq(ext4_vol_sync(volume->vol), 0); /* what was freed counts when it is durable */
	ext4_vol_statfs(volume->vol, &stats);
	return stats.bfree;
}

static const char *const ea_volumes[] = { "-b 1024 -O ea_inode", "-b 4096 -O ea_inode",
					  "-b 1024 -I 128 -O ea_inode,^metadata_csum",
					  "-b 1024 -O ea_inode,^metadata_csum,^64bit -J size=1" };

/* Values of all sizes, up to the most there is, come and go, and nothing of them stays. */
START_TEST(values_of_any_size)
{
	static const unsigned sizes[] = { 0,    20,   300,  968,   969,   1024,
					  4040, 4041, 5000, 20000, 65535, 65536 };
	static uint8_t want[VALUES][65536], got[65536];
	unsigned have[VALUES] = { 0 };
	struct testvol volume = { 0 };
	struct ext4_inode *file;
	uint64_t before, rnd = 11;
	size_t len;

	testvol_make(&volume, SMALL, ea_volumes[_i]);
	before = blocks_free(&volume);
	file = make(&volume, "f", S_IFREG | 0644);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned n = 0; n < 150; n++) {
			unsigned k = next_random(&rnd) % VALUES,
				 size = sizes[next_random(&rnd) % ARRAY_SIZE(sizes)];
			int err;

			if (next_random(&rnd) % 4 == 0) {
				must_eq(ext4_xattr_remove(file, value_name(k)),
					have[k] ? 0 : -ENODATA);
				have[k] = 0;
				continue;
			}
			value_fill(want[k], size, n);
			err = ext4_xattr_set(file, value_name(k), want[k], size, 0, false);
			must_eq(err, 0); /* the names always fit */
			have[k] = size + 1;
			if (n % 7)
				continue;
			for (unsigned j = 0; j < VALUES; j++) {
				err = ext4_xattr_get(file, value_name(j), got, sizeof got, &len);
				must_eq(err, have[j] ? 0 : -ENODATA);
				must(err || (len == have[j] - 1 && !memcmp(got, want[j], len)));
			}
		}
		ext4_inode_put(file);
		testvol_check(&volume);
		testvol_open(&volume);
		file = name_lookup(volume.root, "f");
	}
	must_eq(ext4_xattr_set(file, "user.0", want[0], 65537, 0, false), -E2BIG);
	ext4_inode_put(file);
	must_eq(name_unlink(volume.root, "f"), 0);
	must_eq(blocks_free(&volume), before);
	testvol_done(&volume);
}
END_TEST

/*
 * Two files have one attribute block with a large value in it: each may change or go, and the value
 * goes with the last.
 */
START_TEST(a_value_of_a_shared_block)
{
	static uint8_t value[9000], buf[9000];
	struct ext4_inode *a, *b;
	struct testvol volume = { 0 };
	uint64_t before;
	size_t len;

	testvol_make(&volume, SMALL, "-b 1024 -I 128 -O ea_inode"); /* no room in the inode */
	before = blocks_free(&volume);
	a = make(&volume, "a", S_IFREG | 0644);
	b = make(&volume, "b", S_IFREG | 0644);
	value_fill(value, sizeof value, 1);
	must_eq(ext4_xattr_set(a, "user.v", value, sizeof value, 0, false), 0);
	must_eq(ext4_xattr_set(a, "user.w", value, sizeof value, 0, false), 0);
	share_block(&volume, a, b, 18);
	put(&a, &b);
	testvol_check(&volume);
	testvol_open(&volume);
	a = name_lookup(volume.root, "a");
	b = name_lookup(volume.root, "b");
	/* one changes another attribute: a copy of the block owns the values as well */
	if (_i == 0) {
		must_eq(ext4_xattr_set(b, "user.x", "1", 1, 0, false), 0);
		must_eq(ext4_xattr_remove(a, "user.v"), 0);
	} else if (_i == 1) { /* one removes a value, which the other keeps */
		must_eq(ext4_xattr_remove(a, "user.v"), 0);
	} else { /* one goes */
		put(&a, NULL);
		must_eq(name_unlink(volume.root, "a"), 0);
		must_eq(name_create(volume.root, "a", S_IFREG | 0600), 0);
		a = name_lookup(volume.root, "a");
	}
	must_eq(ext4_xattr_get(b, "user.v", buf, sizeof buf, &len), 0);
	must(len == sizeof value && !memcmp(buf, value, len));
	must_eq(ext4_xattr_get(b, "user.w", buf, sizeof buf, &len), 0);
	must_eq(ext4_xattr_get(a, "user.v", buf, sizeof buf, &len), -ENODATA);
	put(&a, &b);
	testvol_check(&volume);
	testvol_open(&volume);
	must_eq(name_unlink(volume.root, "a"), 0);
	testvol_check(&volume);
	testvol_open(&volume);
	must_eq(name_unlink(volume.root, "b"), 0);
	must_eq(blocks_free(&volume), before);
	testvol_done(&volume);
}
END_TEST

/*
 * An ACL too large for a block: followed by the mode, inherited twice by a directory, and gone with
 * its files.
 */
START_TEST(a_large_acl)
{
	static uint8_t acl[4 + 8 * 304], got[sizeof acl];
	struct ext4_inode *dir, *e;
	struct testvol volume = { 0 };
	uint64_t before;
	uint8_t *p = acl;
	size_t len;

	testvol_make(&volume, SMALL, "-b 1024 -O ea_inode");
	before = blocks_free(&volume);
	must_eq(name_create(volume.root, "d", S_IFDIR | 0777), 0);
	dir = name_lookup(volume.root, "d");
	memcpy(p, &(uint32_t){ htole32(2) }, 4);
	p += 4;
	for (unsigned k = 0; k < 304; k++, p += 8) {
		uint16_t tag = k == 0     ? 1
			       : k <= 300 ? 2
			       : k == 301 ? 4
			       : k == 302 ? 0x10
					  : 0x20,
			 perm = 7;
		uint32_t id = tag == 2 ? 1000 + k : UINT32_MAX;

		memcpy(p, &tag, 2);
		memcpy(p + 2, &perm, 2);
		memcpy(p + 4, &id, 4);
	}
	must_eq(ext4_xattr_set(dir, "system.posix_acl_default", acl, sizeof acl, 0, false), 0);
	must_eq(name_create(dir, "e", S_IFDIR | 0777), 0);
	must_eq(name_create(dir, "f", S_IFREG | 0666), 0);
	e = name_lookup(dir, "e");
	must_eq(ext4_xattr_get(e, "system.posix_acl_default", got, sizeof got, &len), 0);
	must(len == sizeof acl && !memcmp(got, acl, len));
	must_eq(ext4_setattr(e, EXT4_SET_MODE, &(struct ext4_attr){ .mode = 0705 }), 0);
	must_eq(ext4_xattr_get(e, "system.posix_acl_access", got, sizeof got, &len), 0);
	must_eq(len, sizeof acl);
	must_eq(got[4 + 8 * 302 + 2], 0); /* the mask */
	must_eq(got[4 + 8 * 303 + 2], 5);
	ext4_inode_put(e);
	ext4_inode_put(dir);
	testvol_check(&volume);
	testvol_open(&volume);
	dir = name_lookup(volume.root, "d");
	must_eq(name_unlink(dir, "f"), 0);
	must_eq(name_rmdir(dir, "e"), 0);
	ext4_inode_put(dir);
	must_eq(name_rmdir(volume.root, "d"), 0);
	must_eq(blocks_free(&volume), before);
	testvol_done(&volume);
}
END_TEST

/* Without room for the value nothing is changed, and nothing is lost. */
START_TEST(no_room_for_a_value)
{
	static uint8_t value[65536], buf[65536];
	struct testvol volume = { 0 };
	struct ext4_inode *file;
	unsigned n = 0;
	char name[32];
	size_t len;
	int err;

	testvol_make(&volume, 4u << 20, "-b 1024 -O ea_inode -J size=1");
	value_fill(value, sizeof value, 3);
	do {
		snprintf(name, sizeof name, "f%u", n++);
		must_eq(name_create(volume.root, name, S_IFREG | 0644), 0);
		file = name_lookup(volume.root, name);
		err = ext4_xattr_set(file, "user.v", value, sizeof value, 0, false);
		if (err) {
			must_eq(err, -ENOSPC);
			must_eq(ext4_xattr_set(file, "user.s", "small", 5, 0, false), 0);
			must_eq(ext4_xattr_set(file, "user.s", value, sizeof value, 0, false),
				-ENOSPC);
			must_eq(ext4_xattr_get(file, "user.s", buf, sizeof buf, &len), 0);
			must_eq(len, 5);
		}
		ext4_inode_put(file);
	} while (!err);
	must(n > 10);
	testvol_check(&volume);
	testvol_open(&volume);
	file = name_lookup(volume.root, "f0");
	must_eq(ext4_xattr_get(file, "user.v", buf, sizeof buf, &len), 0);
	must(!memcmp(buf, value, len));
	ext4_inode_put(file);
	must_eq(name_unlink(volume.root, "f0"), 0);
	must_eq(ext4_vol_sync(volume.vol), 0);
	snprintf(name, sizeof name, "f%u", n - 1);
	file = name_lookup(volume.root, name);
	must_eq(ext4_xattr_set(file, "user.s", value, 60000, 0, false), 0);
	ext4_inode_put(file);
	testvol_done(&volume);
}
END_TEST

/*
 * The blocks of a value are on the account of the symbolic link, whose target is in the inode all
 * the same.
 */
START_TEST(a_link_with_a_large_value)
{
	static char value[4000];
	struct ext4_inode *inode = NULL;
	struct testvol volume = { 0 };
	struct ext4_attr attr;
	char target[100];
	unsigned len;

	testvol_make(&volume, SMALL, "-b 1024 -O ea_inode");
	memset(value, 'v', sizeof(value));
	must_eq(ext4_symlink(volume.root, "l", 1, "d/target", 8, &root_credentials, &inode), 0);
	must_eq(ext4_xattr_set(inode, "trusted.u", value, sizeof(value), 0, false), 0);
	ext4_getattr(inode, &attr);
	must(attr.blocks_512 >= 8);
	must_eq(ext4_readlink(inode, target, sizeof(target), &len), 0);
	must(len == 8 && !memcmp(target, "d/target", 8));
	must_eq(name_unlink(volume.root, "l"), 0);
	ext4_inode_put(inode);
	testvol_done(&volume);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ext4: attributes");
	TCase *tc = unit_case(s, "xattr", 120);

	unit_test(tc, limits_and_errors);
	unit_loop(tc, against_a_table, 0, (int)ARRAY_SIZE(volumes));
	unit_test(tc, a_shared_block_is_copied, PROVES("XATTR-2"));
	unit_test(tc, acls_and_modes);
	unit_test(tc, capabilities_are_killed);
	unit_test(tc, values_in_inodes);
	unit_loop(tc, values_of_any_size, 0, (int)ARRAY_SIZE(ea_volumes));
	unit_loop(tc, a_value_of_a_shared_block, 0, 3);
	unit_test(tc, a_link_with_a_large_value);
	unit_test(tc, a_large_acl);
	unit_test(tc, no_room_for_a_value);
	return s;
}
