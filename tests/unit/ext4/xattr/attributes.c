/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The calls for extended attributes on volumes in memory: limits and errors, a random run against a
 * table, ACLs and the mode, capabilities. Where attributes lie on disk is places.c. A failure means
 * that a program reads another value than it has set, or that a file has other permissions than its
 * ACL says.
 */
#include "base/bytes.h"
#include "ext4/inode/inode_change.h"
#include "kit/names.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>

#define SMALL (16u << 20)

START_TEST(limits_and_errors)
{
	static char big[65537], buf[2048];
	struct ext4_inode *inode;
	struct testvol volume = { 0 };
	size_t len;

	testvol_make(&volume, SMALL, "-b 1024");
	inode = name_make(volume.root, "f", S_IFREG | 0644);
	must_eq(ext4_xattr_get(inode, "user.a", NULL, 0, &len), -ENODATA);
	must_eq(ext4_xattr_remove(inode, "user.a"), -ENODATA);
	must_eq(ext4_xattr_set(inode, "user.a", "x", 1, XATTR_REPLACE, 0), -ENODATA);
	must_eq(ext4_xattr_set(inode, "user.a", "hello", 5, XATTR_CREATE, 0), 0);
	must_eq(ext4_xattr_set(inode, "user.a", "hello", 5, XATTR_CREATE, 0), -EEXIST);
	must_eq(ext4_xattr_get(inode, "user.a", NULL, 0, &len), 0);
	must_eq(len, 5);
	must_eq(ext4_xattr_get(inode, "user.a", buf, 4, &len), -ERANGE);
	must_eq(ext4_xattr_get(inode, "user.a", buf, 5, &len), 0);
	must(!memcmp(buf, "hello", 5));
	must_eq(ext4_xattr_set(inode, "user.empty", NULL, 0, 0, 0), 0);
	must_eq(ext4_xattr_get(inode, "user.empty", buf, 5, &len), 0);
	must_eq(len, 0);
	must_eq(ext4_xattr_set(inode, "system.data", "x", 1, 0, 0), -EOPNOTSUPP);
	must_eq(ext4_xattr_set(inode, "other.data", "x", 1, 0, 0), -EOPNOTSUPP);
	must_eq(ext4_xattr_set(inode, "user.big", big, sizeof big, 0, 0), -E2BIG);
	must_eq(ext4_xattr_set(inode, "user.big", big, 1000, 0, 0), -ENOSPC);
	must_eq(ext4_xattr_set(inode, "trusted.t", "1", 1, 0, 0), 0);
	must_eq(ext4_xattr_list(inode, true, NULL, 0, &len), 0);
	must_eq(len, sizeof "user.a" + sizeof "user.empty" + sizeof "trusted.t");
	must_eq(ext4_xattr_list(inode, true, buf, len - 1, &len), -ERANGE);
	must_eq(blocks_512(inode), 0);
	must_eq(ext4_xattr_set(inode, "user.big", big, 900, 0, 0), 0);
	must_eq(blocks_512(inode), 2);
	must_eq(ext4_xattr_remove(inode, "user.big"), 0);
	must_eq(blocks_512(inode), 0);
	must_eq(ext4_xattr_set(inode, "user.big", big, 900, 0, 0), 0);
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

/* ---- against a table: some names of some inodes, the first of them a directory ---- */
#define FILES 4
#define NAMES 12

/* What each attribute should be; len -1: not there. */
static struct { int len; uint8_t value[400]; } table[FILES][NAMES];

/* Names of all lengths that a mount serves, with each prefix. */
static void make_name(char *buf, size_t cap, unsigned n)
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

		make_name(name, sizeof name, n);
		err = ext4_xattr_get(inode, name, buf, sizeof buf, &len);
		must_eq(err, table[f][n].len < 0 ? -ENODATA : 0);
		if (err)
			continue;
		must_eq(len, table[f][n].len);
		must(!memcmp(buf, table[f][n].value, len));
		names += strlen(name) + 1;
	}
	must_eq(ext4_xattr_list(inode, true, list, sizeof list, &len), 0);
	must_eq(len, names);
}

/* Sets or removes an attribute at random. */
static void step(struct ext4_inode *inode, unsigned f, uint64_t *rnd)
{
	unsigned n = next_random(rnd) % NAMES,
		 len = next_random(rnd) % (next_random(rnd) % 4 ? 40 : 400);
	uint8_t value[400];
	char name[128];
	int err;

	make_name(name, sizeof name, n);
	if (next_random(rnd) % 3 == 0) {
		must_eq(ext4_xattr_remove(inode, name), table[f][n].len < 0 ? -ENODATA : 0);
		table[f][n].len = -1;
		return;
	}
	for (unsigned k = 0; k < len; k++)
		value[k] = (uint8_t)next_random(rnd);
	err = ext4_xattr_set(inode, name, value, len, 0, 0);
	if (err == -ENOSPC)
		return; /* the old value is still there, as verify will see */
	must_eq(err, 0);
	table[f][n].len = (int)len;
	memcpy(table[f][n].value, value, len);
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
		ext4_inode_put(name_make(volume.root, name, f ? S_IFREG | 0600 : S_IFDIR | 0700));
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

/* ---- ACLs, in the form of user space: version 2 ---- */
struct acl_entry { uint16_t tag, perm; uint32_t id; };

static size_t acl_make(uint8_t *buf, const struct acl_entry *entry, unsigned n)
{
	fdio_put_le32(buf, 0, 2);
	memcpy(buf + 4, entry, n * sizeof *entry);
	return 4 + n * sizeof *entry;
}

#define NOBODY UINT32_MAX
/* Tags: 1 owner, 2 user, 4 owning group, 0x10 mask, 0x20 others. */
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
	file = name_make(volume.root, "f", S_IFREG | 02755);
	n = acl_make(buf, full, 5);
	must_eq(ext4_xattr_set(file, ACCESS, buf, n, 0, 0), 0);
	must_eq(ext4_inode_mode(file) & 07777, 02774);
	must_eq(ext4_xattr_get(file, ACCESS, got, sizeof got, &len), 0);
	must_eq(len, n);
	must(!memcmp(buf, got, n));
	must_eq(ext4_xattr_set(file, ACCESS, buf, n, 0, EXT4_XATTR_KILL_SGID), 0);
	must_eq(ext4_inode_mode(file) & 07777, 0774);
	must_eq(ext4_setattr(file, EXT4_SET_MODE, &attr), 0);
	must_eq(ext4_xattr_get(file, ACCESS, got, sizeof got, &len), 0);
	must_eq(got[4 + 3 * 8 + 2], 4); /* the mask follows the group bits */
	n = acl_make(buf, plain, 3);
	must_eq(ext4_xattr_set(file, ACCESS, buf, n, 0, 0), 0);
	must_eq(ext4_xattr_get(file, ACCESS, got, sizeof got, &len), -ENODATA);
	must_eq(ext4_inode_mode(file) & 07777, 0640);
	n = acl_make(buf, no_mask, 4);
	must_eq(ext4_xattr_set(file, ACCESS, buf, n, 0, 0), -EINVAL);
	must_eq(ext4_xattr_set(file, ACCESS, buf, 7, 0, 0), -EINVAL);
	n = acl_make(buf, full, 5);
	must_eq(ext4_xattr_set(file, DEFAULT, buf, n, 0, 0), -EACCES);
	dir = name_make(volume.root, "d", S_IFDIR | 0755);
	must_eq(ext4_xattr_set(dir, DEFAULT, buf, n, 0, 0), 0);
	must_eq(name_create(dir, "file", S_IFREG | 0666), 0);
	must_eq(name_create(dir, "sub", S_IFDIR | 0777), 0);
	sub = name_lookup(dir, "file");
	/* The umask does not apply where there is a default ACL: owner 6, mask 6, others 4. */
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
	file = name_make(volume.root, "f", S_IFREG | 0755);
	must_eq(ext4_xattr_set(file, "security.capability", "0123456789", 10, 0, 0), 0);
	must(ext4_needs_killpriv(file));
	must_eq(ext4_setattr(file, EXT4_KILL_SUIDGID, &(struct ext4_attr){ 0 }), 0);
	must_eq(ext4_xattr_get(file, "security.capability", NULL, 0, &len), -ENODATA);
	must_eq(ext4_setattr(file, EXT4_KILL_SUIDGID, &(struct ext4_attr){ 0 }), 0);
	must(!ext4_needs_killpriv(file));
	must_eq(ext4_xattr_get(file, "security.capability", NULL, 0, &len), -ENODATA);
	must_eq(ext4_xattr_set(file, "security.capability", "0123456789", 10, 0, 0), 0);
	must(ext4_needs_killpriv(file));
	must_eq(ext4_xattr_get(file, "security.capability", NULL, 0, &len), 0);
	ext4_inode_put(file);
	testvol_done(&volume);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ext4: attributes");
	TCase *tc = unit_case(s, "attributes", 120);

	unit_test(tc, limits_and_errors);
	unit_loop(tc, against_a_table, 0, (int)ARRAY_SIZE(volumes));
	unit_test(tc, acls_and_modes);
	unit_test(tc, capabilities_are_killed);
	return s;
}
