/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Damaged file systems whose files somebody wants to rescue: a refused mount changes no byte of the
 * image; otherwise the sound files are served, read-only if necessary, and the damaged ones fail.
 */
#include "kit/volume.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SIZE (32u << 20)

/* debugfs commands, one a line; "write" takes $IMG.src, which holds "hello". */
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

/* Every mount is refused, and nothing was written. */
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

static int look_up(struct ext4_vol *vol, const char *dir, const char *name, struct ext4_inode **ret)
{
	struct ext4_inode *d = testvol_root(vol), *up = d;
	int err = dir ? ext4_lookup(up, dir, (unsigned)strlen(dir), &d) : 0;

	if (dir)
		ext4_inode_put(up);
	if (err)
		return err;
	err = ext4_lookup(d, name, (unsigned)strlen(name), ret);
	ext4_inode_put(d);
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

static unsigned names_in(struct ext4_vol *vol, const char *dir)
{
	struct ext4_inode *d;
	unsigned n = 0;

	ck_assert_int_eq(look_up(vol, NULL, dir, &d), 0);
	ck_assert_int_eq(ext4_readdir(d, 0, count_name, &n), 0);
	ext4_inode_put(d);
	return n;
}


/* Flips a byte of the disk inode, so that its checksum does not fit. */
static void break_inode(struct fake_dev *fake, uint32_t ino)
{
	struct ext4_vol *vol;
	uint32_t off;
	uint64_t at;
	uint8_t c;

	ck_assert_int_eq(try_open(fake, true, true, &vol, NULL, 0), 0);
	at = (ext4_itable_place(vol, ino, &off) << vol->block_bits) + 17; /* of a time */
	ext4_vol_abandon(vol);
	fake_peek(fake, &c, 1, at + off);
	c ^= 0x55;
	fake_poke(fake, &c, 1, at + off);
}

static const char *const roots[] = {
	"set_inode_field <2> links_count 0\nset_inode_field <2> dtime 20240101",
	"set_inode_field <2> mode 0100755",
	"set_inode_field <2> size 0",
	"set_inode_field <2> blocks 0",
	NULL,
};

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

/* The descriptor of a group: its checksum alone, or where the inode table is. */
static void break_descriptor(struct fake_dev *fake, uint32_t group, unsigned field)
{
	struct ext4_vol *vol;
	uint64_t at;
	uint8_t c;

	ck_assert_int_eq(try_open(fake, true, true, &vol, NULL, 0), 0);
	at = ((uint64_t)vol->first_data_block + 1) * vol->block_size +
	     (uint64_t)group * vol->desc_size + field;
	ext4_vol_abandon(vol);
	fake_peek(fake, &c, 1, at);
	c ^= 0x55;
	fake_poke(fake, &c, 1, at);
}

#define DESC_TABLE_TOP 11u /* highest byte of the inode table's place */
#define DESC_CSUM 30u

/* A damaged descriptor of the last group but one; a file in the first. */
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

/* A crash tore a descriptor, and the log has it: it is replayed before anything is judged. */
START_TEST(log_is_replayed_before_descriptors_are_judged)
{
	struct fake_dev *fake = testvol_shape(0), *cut;
	struct ext4_vol *vol = testvol_mount(fake);
	struct ext4_inode *inode = testvol_tmpfile(vol, S_IFREG | 0600);
	uint64_t at;
	uint8_t c;

	at = ((uint64_t)vol->first_data_block + 1) * vol->block_size + DESC_CSUM;
	ck_assert_int_eq(testvol_fill(inode, 0, 10), 0);
	ck_assert_int_eq(ext4_vol_sync(vol), 0);
	cut = fake_power_cut(fake, FAKE_CUT_KEEP, 1);
	ext4_inode_put(inode);
	ext4_vol_abandon(vol);
	fake_free(fake);
	fake_peek(cut, &c, 1, at);
	c ^= 0x55;
	fake_poke(cut, &c, 1, at);
	testvol_mounts_clean(cut);
}
END_TEST

#define NAMES 400u
/* Which name is in which leaf must not change from run to run. */
#define SEED "-E hash_seed=0e1bbe08-5a3c-4ef0-9f0f-1c1a7e0d2a31"

static void name_of(char name[32], unsigned n)
{
	snprintf(name, 32, "a-name-of-some-length-%u", n);
}

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
	unsigned most; /* names that may be lost: what one block holds */
	int unknown;   /* looking up what was never there */
} shapes[] = {
	/* a leaf: other names have other leaves */
	{ "-t ext4 -b 1024 -J size=4 -O metadata_csum,dir_index " SEED, 3, 40, -ENOENT },
	/* the index itself */
	{ "-t ext4 -b 1024 -J size=4 -O metadata_csum,dir_index " SEED, 0, 0, -EUCLEAN },
	{ "-t ext4 -b 1024 -J size=4 -O metadata_csum,^dir_index", 3, 40, -EUCLEAN },
	{ "-t ext4 -b 1024 -J size=4 -O metadata_csum,^dir_index", 0, 40, -EUCLEAN },
	{ "-t ext4 -b 1024 -J size=4 -O ^metadata_csum,^dir_index", 3, 40, -EUCLEAN },
};

/* One bad block takes its own names along, and no others. */
START_TEST(bad_directory_block_costs_its_names_only)
{
	const struct shape *t = &shapes[_i];
	struct fake_dev *fake = fake_mkfs(SIZE, t->mkfs);
	uint8_t zero[64] = { 0 };
	struct ext4_inode *inode;
	unsigned found = 0, got = 0;
	struct ext4_vol *vol;
	uint64_t at;

	make_names(fake, &at, t->lblk);
	fake_poke(fake, zero, sizeof(zero), at); /* rec_len 0 */
	ck_assert_int_eq(try_open(fake, true, false, &vol, NULL, 0), 0);
	got = names_in(vol, "dir");
	ck_assert_uint_ge(got + t->most, NAMES);
	ck_assert_uint_le(got, NAMES);
	if (t->most)
		ck_assert_uint_lt(got, NAMES);
	for (unsigned n = 0; n < NAMES; n++) {
		char name[32];

		name_of(name, n);
		found += has_name(vol, "dir", name);
	}
	ck_assert_uint_eq(found, got);
	ck_assert_int_eq(look_up(vol, "dir", "b", &inode), t->unknown);
	ck_assert_int_eq(ext4_vol_close(vol), 0);
	fake_free(fake);
}
END_TEST

/*
 * Whether a link's target lies in the inode does not depend on the flags, nor on the block of its
 * attributes.
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
	if (!_i) { /* and it can be deleted */
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
 * The descriptor says that a part of the inode table is unused, but an inode lies there: it can be
 * read, and is not overwritten.
 */
START_TEST(inode_in_the_unused_part_stays)
{
	struct fake_dev *fake = testvol_shape(_i ? 4 : 0);
	struct ext4_credentials credentials = { .umask = 022 };
	struct ext4_inode *root, *inode;
	struct ext4_vol *vol;
	char cmd[200];
	uint32_t ino;

	/* The last of several: the next new one would share its block of the table. */
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
	Suite *s = suite_create("ext4: damaged");
	TCase *t = unit_case(s, "rescue", 60);

	fdio_log_set_level(0); /* all of this complains */
	unit_loop(t, no_root_directory_is_refused, 0, (int)ARRAY_SIZE(roots));
	unit_loop(t, damaged_descriptor_costs_its_group_only, 0, 4);
	unit_test(t, log_is_replayed_before_descriptors_are_judged);
	unit_loop(t, bad_directory_block_costs_its_names_only, 0, (int)ARRAY_SIZE(shapes));
	unit_loop(t, target_in_the_inode_is_read_whatever_its_flags, 0, 2);
	unit_loop(t, inode_in_the_unused_part_stays, 0, 2);
	return s;
}
