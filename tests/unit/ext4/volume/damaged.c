/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Damaged file systems whose files somebody wants to rescue: a refused mount changes no byte of the
 * image; otherwise the sound files are served, read-only if necessary, and the damaged ones fail.
 * The test's thread damages the image through debugfs or the fake device, while it is not mounted.
 */
#include "kit/volume.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SIZE (32u << 20)

/* Runs debugfs commands, one a line; the file $IMG.src, for "write", holds "hello". */
static void debugfs(struct fake_dev *fake, const char *commands)
{
	char cmd[1024];

	snprintf(cmd, sizeof(cmd),
		 "echo hello > $IMG.src; debugfs -w $IMG >/dev/null 2>&1 <<EOF\n%s\nEOF\nrm -f "
		 "$IMG.src",
		 commands);
	ck_assert_int_eq(fake_run(fake, cmd, NULL, 0, true), 0);
}

static int try_open(struct fake_dev *fake, bool ro, bool norecovery, struct ext4_vol **vol,
		    char *msg, size_t len)
{
	struct ext4_options options = testvol_options();
	const char *why;

	options.read_only = ro;
	options.norecovery = norecovery;
	return ext4_vol_open(fake_dev(fake), &options, vol, &why, FDIO_REASON_AT(msg, len));
}

/*
 * A mount for writing is refused, and with ro_too a read-only one. The reason contains says and
 * names e2fsck. Nothing is written.
 */
static void must_be_refused(struct fake_dev *fake, bool ro_too, const char *says)
{
	struct ext4_vol *vol;
	char msg[400];

	fake_stats_reset(fake);
	for (int ro = 0; ro <= ro_too; ro++) {
		ck_assert_int_lt(try_open(fake, ro, false, &vol, msg, sizeof(msg)), 0);
		ck_assert_msg(strstr(msg, says), "%s", msg);
		ck_assert_msg(strstr(msg, "e2fsck"), "%s", msg);
	}
	ck_assert_uint_eq(fake_stats(fake).writes, 0);
}

/* Looks name up in directory dir of the root, or with NULL in the root itself. */
static int look_up(struct ext4_vol *vol, const char *dir, const char *name, struct ext4_inode **ret)
{
	struct ext4_inode *inode = testvol_root(vol), *root = inode;
	int err = dir ? ext4_lookup(root, dir, (unsigned)strlen(dir), &inode) : 0;

	if (dir)
		ext4_inode_put(root);
	if (err)
		return err;
	err = ext4_lookup(inode, name, (unsigned)strlen(name), ret);
	ext4_inode_put(inode);
	return err;
}

static bool has_name(struct ext4_vol *vol, const char *dir, const char *name)
{
	struct ext4_inode *inode;

	if (look_up(vol, dir, name, &inode))
		return false;
	ext4_inode_put(inode);
	return true;
}

static bool count_name(void *arg, const struct ext4_dirent *entry)
{
	*(unsigned *)arg += entry->name_len > 2;
	return true;
}

/* How many names ext4_readdir gives, without "." and "..". */
static unsigned names_in(struct ext4_vol *vol, const char *dir)
{
	struct ext4_inode *inode;
	unsigned n = 0;

	ck_assert_int_eq(look_up(vol, NULL, dir, &inode), 0);
	ck_assert_int_eq(ext4_readdir(inode, 0, count_name, &n), 0);
	ext4_inode_put(inode);
	return n;
}

/* Flips bits of a byte of the disk inode, so that its checksum is wrong. */
static void break_inode(struct fake_dev *fake, uint32_t ino)
{
	struct ext4_vol *vol;
	uint32_t off;
	uint64_t at;
	uint8_t byte;

	ck_assert_int_eq(try_open(fake, true, true, &vol, NULL, 0), 0);
	at = (ext4_itable_place(vol, ino, &off) << vol->block_bits) + 17; /* in i_mtime */
	ext4_vol_abandon(vol);
	fake_peek(fake, &byte, 1, at + off);
	byte ^= 0x55;
	fake_poke(fake, &byte, 1, at + off);
}

/* debugfs commands that make the root directory unusable; NULL: break_inode. */
static const char *const roots[] = {
	"set_inode_field <2> links_count 0\nset_inode_field <2> dtime 20240101",
	"set_inode_field <2> mode 0100755",
	"set_inode_field <2> size 0",
	"set_inode_field <2> blocks 0",
	NULL,
};

/* Without a sound root directory every mount is refused, a read-only one too. */
START_TEST(no_root_directory_is_refused)
{
	struct fake_dev *fake = testvol_shape(0);

	if (roots[_i])
		debugfs(fake, roots[_i]);
	else
		break_inode(fake, EXT4_ROOT_INO);
	must_be_refused(fake, true, "root directory");
	fake_free(fake);
}
END_TEST

/* Flips bits of one byte of a group descriptor: DESC_CSUM or DESC_TABLE_TOP. */
static void break_descriptor(struct fake_dev *fake, uint32_t group, unsigned field)
{
	struct ext4_vol *vol;
	uint64_t at;
	uint8_t byte;

	ck_assert_int_eq(try_open(fake, true, true, &vol, NULL, 0), 0);
	at = ((uint64_t)vol->first_data_block + 1) * vol->block_size +
	     (uint64_t)group * vol->desc_size + field;
	ext4_vol_abandon(vol);
	fake_peek(fake, &byte, 1, at);
	byte ^= 0x55;
	fake_poke(fake, &byte, 1, at);
}

/* Offsets in a group descriptor: the highest byte of bg_inode_table, and bg_checksum. */
#define DESC_TABLE_TOP 11u
#define DESC_CSUM 30u

/*
 * The descriptor of the last group but one is damaged. A mount for writing is refused; a read-only
 * mount serves the file in the first group, and inodes of the damaged group fail.
 */
START_TEST(damaged_descriptor_costs_its_group_only)
{
	struct fake_dev *fake = testvol_shape(_i & 1 ? 4 : 0);
	struct ext2_super_block sb;
	struct ext4_inode *inode;
	struct ext4_vol *vol;
	uint32_t group;
	int err;

	debugfs(fake, "write $IMG.src here");
	testvol_super(fake, &sb);
	group = sb.s_inodes_count / sb.s_inodes_per_group - 2;
	break_descriptor(fake, group, _i & 2 ? DESC_TABLE_TOP : DESC_CSUM);
	must_be_refused(fake, false, "group descriptors");
	for (int norecovery = 0; norecovery < 2; norecovery++) {
		char msg[300] = "";

		ck_assert_msg(!try_open(fake, true, norecovery, &vol, msg, sizeof(msg)), "%s", msg);
		ck_assert(has_name(vol, NULL, "here"));
		err = ext4_inode_get(vol, group * vol->inodes_per_group + 5, NULL, &inode);
		ck_assert_int_eq(err, _i & 2 ? -EUCLEAN : -ENOENT);
		ck_assert_int_eq(ext4_vol_close(vol), 0);
	}
	ck_assert_uint_eq(fake_stats(fake).writes, 0);
	fake_free(fake);
}
END_TEST

/* A descriptor is damaged, but the log has a sound copy, which is replayed before the check. */
START_TEST(log_is_replayed_before_descriptors_are_judged)
{
	struct fake_dev *fake = testvol_shape(0), *cut;
	struct ext4_vol *vol = testvol_mount(fake);
	struct ext4_inode *inode = testvol_tmpfile(vol, S_IFREG | 0600);
	uint64_t at;
	uint8_t byte;

	at = ((uint64_t)vol->first_data_block + 1) * vol->block_size + DESC_CSUM;
	ck_assert_int_eq(testvol_fill(inode, 0, 10), 0);
	ck_assert_int_eq(ext4_vol_sync(vol), 0);
	cut = fake_power_cut(fake, FAKE_CUT_KEEP, 1);
	ext4_inode_put(inode);
	ext4_vol_abandon(vol);
	fake_free(fake);
	fake_peek(cut, &byte, 1, at);
	byte ^= 0x55;
	fake_poke(cut, &byte, 1, at);
	testvol_mounts_clean(cut);
}
END_TEST

#define NAMES 400u
/* A fixed seed: which name is in which leaf does not change from run to run. */
#define SEED "-E hash_seed=0e1bbe08-5a3c-4ef0-9f0f-1c1a7e0d2a31"

static void name_of(char name[32], unsigned n)
{
	snprintf(name, 32, "a-name-of-some-length-%u", n);
}

/* Makes "dir" with NAMES files; *ret_blk is where its block lblk is on the device, in bytes. */
static void make_names(struct fake_dev *fake, uint64_t *ret_blk, uint32_t lblk)
{
	struct ext4_credentials credentials = { .umask = 022 };
	struct ext4_vol *vol = testvol_mount(fake);
	struct ext4_inode *root = testvol_root(vol), *dir, *inode;
	char name[32];

	ck_assert_int_eq(ext4_create(root, "dir", 3, S_IFDIR | 0755, 0, &credentials, &dir), 0);
	for (unsigned n = 0; n < NAMES; n++) {
		name_of(name, n);
		ck_assert_int_eq(ext4_create(dir, name, (unsigned)strlen(name), S_IFREG | 0644, 0,
					     &credentials, &inode),
				 0);
		ext4_inode_put(inode);
	}
	ck_assert_int_eq(ext4_bmap(dir, lblk, ret_blk), 0);
	*ret_blk <<= vol->block_bits;
	ext4_inode_put(dir);
	ext4_inode_put(root);
	ck_assert_int_eq(ext4_vol_close(vol), 0);
}

static const struct shape {
	const char *mkfs;
	uint32_t lblk;
	unsigned most; /* how many names may be lost: as many as one block holds */
	int unknown;   /* the error of looking up a name that was never there */
} shapes[] = {
	/* A leaf of the index: the unknown name belongs to a sound one. */
	{ "-t ext4 -b 1024 -J size=4 -O metadata_csum,dir_index " SEED, 3, 40, -ENOENT },
	/* The root of the index: listing and lookup go on without it. */
	{ "-t ext4 -b 1024 -J size=4 -O metadata_csum,dir_index " SEED, 0, 0, -EUCLEAN },
	{ "-t ext4 -b 1024 -J size=4 -O metadata_csum,^dir_index", 3, 40, -EUCLEAN },
	{ "-t ext4 -b 1024 -J size=4 -O metadata_csum,^dir_index", 0, 40, -EUCLEAN },
	{ "-t ext4 -b 1024 -J size=4 -O ^metadata_csum,^dir_index", 3, 40, -EUCLEAN },
};

/* A damaged directory block hides its own names and no others. */
START_TEST(bad_directory_block_costs_its_names_only)
{
	const struct shape *shape = &shapes[_i];
	struct fake_dev *fake = fake_mkfs(SIZE, shape->mkfs);
	uint8_t zero[64] = { 0 };
	struct ext4_inode *inode;
	unsigned found = 0, got = 0;
	struct ext4_vol *vol;
	uint64_t at;

	make_names(fake, &at, shape->lblk);
	fake_poke(fake, zero, sizeof(zero), at); /* rec_len 0 */
	ck_assert_int_eq(try_open(fake, true, false, &vol, NULL, 0), 0);
	got = names_in(vol, "dir");
	ck_assert_uint_ge(got + shape->most, NAMES);
	ck_assert_uint_le(got, NAMES);
	if (shape->most)
		ck_assert_uint_lt(got, NAMES);
	for (unsigned n = 0; n < NAMES; n++) {
		char name[32];

		name_of(name, n);
		found += has_name(vol, "dir", name);
	}
	ck_assert_uint_eq(found, got);
	ck_assert_int_eq(look_up(vol, "dir", "b", &inode), shape->unknown);
	ck_assert_int_eq(ext4_vol_close(vol), 0);
	fake_free(fake);
}
END_TEST

/*
 * A short target of a symbolic link is in the inode. It is read there even if the flags say that
 * the inode has extents, or if i_blocks counts a block of attributes.
 */
START_TEST(target_in_the_inode_is_read_whatever_its_flags)
{
	struct fake_dev *fake = fake_mkfs(SIZE, _i ? "-t ext4 -b 1024 -J size=4 -O bigalloc -C "
						     "16384 -I 128"
						   : testvol_shapes[0]);
	struct ext4_inode *inode;
	struct ext4_vol *vol;
	char buf[200];
	unsigned len;

	debugfs(fake, _i ? "symlink link target\nea_set link trusted.a value"
		      : "symlink link target\nset_inode_field link flags 0x80000");
	ck_assert_int_eq(try_open(fake, true, false, &vol, NULL, 0), 0);
	ck_assert_int_eq(look_up(vol, NULL, "link", &inode), 0);
	if (_i)
		ck_assert_uint_ne(inode->raw->i_file_acl, 0);
	ck_assert_int_eq(ext4_readlink(inode, buf, sizeof(buf), &len), 0);
	ck_assert_str_eq(buf, "target");
	ext4_inode_put(inode);
	ck_assert_int_eq(ext4_vol_close(vol), 0);
	if (!_i) { /* The link can be deleted, too. */
		vol = testvol_mount(fake);
		inode = testvol_root(vol);
		ck_assert_int_eq(ext4_unlink(inode, "link", 4), 0);
		ext4_inode_put(inode);
		testvol_unmount_check(vol, fake);
	}
	fake_free(fake);
}
END_TEST

/*
 * The descriptor says that a part of the inode table is unused (bg_itable_unused), but there is an
 * inode in it: it can be read, and new inodes do not overwrite it.
 */
START_TEST(inode_in_the_unused_part_stays)
{
	struct fake_dev *fake = testvol_shape(_i ? 4 : 0);
	struct ext4_credentials credentials = { .umask = 022 };
	struct ext4_inode *root, *inode;
	struct ext4_vol *vol;
	char cmd[200];
	uint32_t ino;

	/* "here" is the last of six: the next new inode would be in its block of the table. */
	debugfs(fake, "write $IMG.src f1\nwrite $IMG.src f2\nwrite $IMG.src f3\n"
		   "write $IMG.src f4\nwrite $IMG.src f5\nwrite $IMG.src here");
	vol = testvol_mount(fake);
	ck_assert_int_eq(look_up(vol, NULL, "here", &inode), 0);
	ino = inode->ino;
	snprintf(cmd, sizeof(cmd), "set_bg 0 itable_unused %u\nset_bg 0 checksum calc",
		 vol->inodes_per_group - 11);
	ext4_inode_put(inode);
	testvol_unmount_check(vol, fake);
	ck_assert_uint_gt(ino, 11);
	debugfs(fake, cmd);
	vol = testvol_mount(fake);
	root = testvol_root(vol);
	ck_assert_int_eq(look_up(vol, NULL, "here", &inode), 0);
	ck_assert_uint_eq(inode->ino, ino);
	ext4_inode_put(inode);
	for (unsigned n = 0; n < 40; n++) {
		char name[32];

		name_of(name, n);
		ck_assert_int_eq(ext4_create(root, name, (unsigned)strlen(name), S_IFREG | 0644, 0,
					     &credentials, &inode),
				 0);
		ext4_inode_put(inode);
	}
	ext4_inode_put(root);
	ck_assert_int_eq(ext4_vol_close(vol), 0);
	ck_assert_int_le(fake_run(fake, "e2fsck -fy $IMG >/dev/null 2>&1", NULL, 0, true), 1);
	vol = testvol_mount(fake);
	ck_assert_int_eq(look_up(vol, NULL, "here", &inode), 0);
	ck_assert_uint_eq(ext4_inode_size(inode), 6);
	ext4_inode_put(inode);
	ck_assert(has_name(vol, NULL, "a-name-of-some-length-39"));
	testvol_unmount_check(vol, fake);
	fake_free(fake);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *suite = suite_create("ext4: damaged");
	TCase *tests = unit_case(suite, "rescue", 60);

	fdio_log_set_level(0); /* the damage would be logged */
	unit_loop(tests, no_root_directory_is_refused, 0, (int)ARRAY_SIZE(roots));
	unit_loop(tests, damaged_descriptor_costs_its_group_only, 0, 4);
	unit_test(tests, log_is_replayed_before_descriptors_are_judged);
	unit_loop(tests, bad_directory_block_costs_its_names_only, 0, (int)ARRAY_SIZE(shapes));
	unit_loop(tests, target_in_the_inode_is_read_whatever_its_flags, 0, 2);
	unit_loop(tests, inode_in_the_unused_part_stays, 0, 2);
	return suite;
}
