/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where attributes lie on disk, on volumes in memory: attribute blocks that two inodes own, and
 * values in inodes of their own, which come, are shared and go without leaving a block behind.
 * e2fsck looks at what is left. A failure means that a change of one file's attributes changes
 * another's, or that space is lost.
 */
#include "base/bytes.h"
#include "base/crc32c.h"
#include "ext4/inode/inode_change.h"
#include "kit/names.h"

#include <errno.h>
#include <ext2fs/ext2_ext_attr.h>
#include <stdio.h>
#include <string.h>

#define SMALL (16u << 20)

/* Drops the references; b may be NULL. */
static void put(struct ext4_inode **a, struct ext4_inode **b)
{
	ext4_inode_put(*a);
	*a = NULL;
	if (b) {
		ext4_inode_put(*b);
		*b = NULL;
	}
}

/* ---- a block with two owners ---- */
/*
 * Makes `to` another owner of the attribute block of `from`, as a kernel does for equal sets. The
 * block names values in inodes of value_blocks blocks, which i_blocks of `to` counts, too.
 */
static void share_block(struct testvol *volume, struct ext4_inode *from, struct ext4_inode *to,
			unsigned value_blocks)
{
	const size_t refcount = offsetof(struct ext2_ext_attr_header, h_refcount),
		     checksum = offsetof(struct ext2_ext_attr_header, h_checksum);
	uint64_t blk = from->raw->i_file_acl;
	struct journal_handle *handle;
	struct journal_buffer *buffer;
	uint32_t sum;

	must(blk);
	must_eq(journal_begin(ext4_vol_journal(volume->vol), 10, &handle), 0);
	must_eq(ext4_inode_begin(handle, to), 0);
	to->raw->i_file_acl = from->raw->i_file_acl;
	must_eq(ext4_raw_add_blocks(to, 1 + value_blocks), 0);
	must_eq(ext4_inode_dirty(handle, to, false), 0);
	must_eq(journal_read_block(ext4_vol_journal(volume->vol), blk, &buffer), 0);
	must_eq(journal_get_write(handle, buffer), 0);
	fdio_put_le32(buffer->data, refcount, 2);
	fdio_put_le32(buffer->data, checksum, 0);
	sum = fdio_crc32c(volume->vol->checksum_seed, &blk, 8);
	sum = fdio_crc32c(sum, buffer->data, volume->vol->block_size);
	fdio_put_le32(buffer->data, checksum, sum);
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
	a = name_make(volume.root, "a", S_IFREG | 0644);
	b = name_make(volume.root, "b", S_IFREG | 0644);
	memset(value, 'v', sizeof value);
	must_eq(ext4_xattr_set(a, "user.v", value, sizeof value, 0, 0), 0);
	share_block(&volume, a, b, 0);
	must_eq(ext4_xattr_get(b, "user.v", buf, sizeof buf, &len), 0);
	value[0] = 'w';
	must_eq(ext4_xattr_set(b, "user.v", value, sizeof value, 0, 0), 0);
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

/* ---- values in inodes of their own ---- */

/* Values that debugfs has made, equal in two files. */
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
			 "debugfs -w -R \"write /dev/null $f\" $IMG; "
			 "debugfs -w -R \"ea_set -f $IMG.q /$f user.big\" $IMG; "
			 "debugfs -w -R \"ea_set -f $IMG.q /$f user.too\" $IMG; "
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
	must_eq(ext4_xattr_set(file, "user.too", "small", 5, 0, 0), 0);
	must_eq(ext4_xattr_remove(file, "user.big"), 0);
	must_eq(ext4_xattr_get(file, "user.big", buf, sizeof buf, &len), -ENODATA);
	must_eq(ext4_xattr_get(file, "user.too", buf, sizeof buf, &len), 0);
	must_eq(len, 5);
	must_eq(blocks_512(file), 0);
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

/* Values of all sizes, up to the largest, come and go, and leave no block behind. */
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
	file = name_make(volume.root, "f", S_IFREG | 0644);
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
			err = ext4_xattr_set(file, value_name(k), want[k], size, 0, 0);
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
	must_eq(ext4_xattr_set(file, "user.0", want[0], 65537, 0, 0), -E2BIG);
	ext4_inode_put(file);
	must_eq(name_unlink(volume.root, "f"), 0);
	must_eq(blocks_free(&volume), before);
	testvol_done(&volume);
}
END_TEST

/*
 * Two files own one attribute block that names two large values. One of them changes another
 * attribute (_i is 0), removes a value (1) or is deleted (2). A value is freed with its last owner.
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
	a = name_make(volume.root, "a", S_IFREG | 0644);
	b = name_make(volume.root, "b", S_IFREG | 0644);
	value_fill(value, sizeof value, 1);
	must_eq(ext4_xattr_set(a, "user.v", value, sizeof value, 0, 0), 0);
	must_eq(ext4_xattr_set(a, "user.w", value, sizeof value, 0, 0), 0);
	share_block(&volume, a, b, 18);
	put(&a, &b);
	testvol_check(&volume);
	testvol_open(&volume);
	a = name_lookup(volume.root, "a");
	b = name_lookup(volume.root, "b");
	if (_i == 0) { /* the copy of the block owns the values, too */
		must_eq(ext4_xattr_set(b, "user.x", "1", 1, 0, 0), 0);
		must_eq(ext4_xattr_remove(a, "user.v"), 0);
	} else if (_i == 1) { /* the other file keeps the value */
		must_eq(ext4_xattr_remove(a, "user.v"), 0);
	} else {
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
 * An ACL that is too large for a block follows the mode, is inherited by a directory as both of its
 * ACLs, and is freed with the files.
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
	fdio_put_le32(p, 0, 2); /* the version */
	p += 4;
	for (unsigned k = 0; k < 304; k++, p += 8) {
		/* The owner, 300 users, the owning group, the mask, others. */
		static const uint16_t last[] = { 4, 0x10, 0x20 };
		uint16_t tag = k == 0 ? 1 : k <= 300 ? 2 : last[k - 301];

		fdio_put_le16(p, 0, tag);
		fdio_put_le16(p, 2, 7);
		fdio_put_le32(p, 4, tag == 2 ? 1000 + k : UINT32_MAX);
	}
	must_eq(ext4_xattr_set(dir, "system.posix_acl_default", acl, sizeof acl, 0, 0), 0);
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

/* Without room for a value the call fails, and what was set before is still there. */
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
		err = ext4_xattr_set(file, "user.v", value, sizeof value, 0, 0);
		if (err) {
			must_eq(err, -ENOSPC);
			must_eq(ext4_xattr_set(file, "user.s", "small", 5, 0, 0), 0);
			must_eq(ext4_xattr_set(file, "user.s", value, sizeof value, 0, 0),
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
	must_eq(ext4_xattr_set(file, "user.s", value, 60000, 0, 0), 0);
	ext4_inode_put(file);
	testvol_done(&volume);
}
END_TEST

/*
 * i_blocks of a symbolic link counts the blocks of a large value. The target is in the inode all
 * the same, and is found there.
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
	must_eq(ext4_xattr_set(inode, "trusted.u", value, sizeof(value), 0, 0), 0);
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
	Suite *s = suite_create("ext4: places of attributes");
	TCase *tc = unit_case(s, "places", 120);

	unit_test(tc, a_shared_block_is_copied, PROVES("XATTR-2"));
	unit_test(tc, values_in_inodes);
	unit_loop(tc, values_of_any_size, 0, (int)ARRAY_SIZE(ea_volumes));
	unit_loop(tc, a_value_of_a_shared_block, 0, 3);
	unit_test(tc, a_link_with_a_large_value);
	unit_test(tc, a_large_acl);
	unit_test(tc, no_room_for_a_value);
	return s;
}
