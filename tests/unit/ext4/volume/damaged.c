/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Damaged file systems that somebody wants to get something out of: what is refused stays as it is,
 * to the byte; what can be read is served, read-only if it must be, around what cannot.
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
static void debugfs(struct fake_dev *f, const char *commands)
{
	char cmd[1024];

	snprintf(cmd, sizeof(cmd),
		 "echo hello > $IMG.src; debugfs -w $IMG >/dev/null 2>&1 <<EOF\n%s\nEOF\nrm -f "
		 "$IMG.src",
		 commands);
	ck_assert_int_eq(fake_run(f, cmd, NULL, 0, true), 0);
}

static int try_open(struct fake_dev *f, bool ro, bool norecovery, struct x4_vol **v, char *msg,
		    size_t len)
{
	struct x4_options opt = testvol_options();
	const char *why;

	opt.read_only = ro;
	opt.norecovery = norecovery;
	return x4_vol_open(fake_dev(f), &opt, v, &why, FDIO_REASON_AT(msg, len));
}

/* Nobody can have it, and nothing was written. */
static void must_be_refused(struct fake_dev *f, bool ro_too, const char *says)
{
	struct x4_vol *v;
	char msg[400];

	fake_stats_reset(f);
	for (int ro = 0; ro <= ro_too; ro++) {
		ck_assert_int_lt(try_open(f, ro, false, &v, msg, sizeof(msg)), 0);
		ck_assert_msg(strstr(msg, says), "%s", msg);
		ck_assert_msg(strstr(msg, "e2fsck"), "%s", msg);
	}
	ck_assert_uint_eq(fake_stats(f).writes, 0);
}

static int look_up(struct x4_vol *v, const char *dir, const char *name, struct x4_inode **ret)
{
	struct x4_inode *d = testvol_root(v), *up = d;
	int err = dir ? x4_lookup(up, dir, (unsigned)strlen(dir), &d) : 0;

	if (dir)
		x4_iput(up);
	if (err)
		return err;
	err = x4_lookup(d, name, (unsigned)strlen(name), ret);
	x4_iput(d);
	return err;
}

static bool has_name(struct x4_vol *v, const char *dir, const char *name)
{
	struct x4_inode *i;

	if (look_up(v, dir, name, &i))
		return false;
	x4_iput(i);
	return true;
}

static bool count_name(void *arg, const struct x4_dirent *e)
{
	*(unsigned *)arg += e->name_len > 2;
	return true;
}

static unsigned names_in(struct x4_vol *v, const char *dir)
{
	struct x4_inode *d;
	unsigned n = 0;

	ck_assert_int_eq(look_up(v, NULL, dir, &d), 0);
	ck_assert_int_eq(x4_readdir(d, 0, count_name, &n), 0);
	x4_iput(d);
	return n;
}


/* Flips a byte of the disk inode, so that its checksum does not fit. */
static void break_inode(struct fake_dev *f, uint32_t ino)
{
	struct x4_vol *v;
	uint32_t off;
	uint64_t at;
	uint8_t c;

	ck_assert_int_eq(try_open(f, true, true, &v, NULL, 0), 0);
	at = (x4_itable_place(v, ino, &off) << v->block_bits) + 17; /* of a time */
	x4_vol_abandon(v);
	fake_peek(f, &c, 1, at + off);
	c ^= 0x55;
	fake_poke(f, &c, 1, at + off);
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
	struct fake_dev *f = testvol_shape(0);

	if (roots[_i])
		debugfs(f, roots[_i]);
	else
		break_inode(f, X4_ROOT_INO);
	must_be_refused(f, true, "root directory");
	fake_free(f);
}
END_TEST

/* The descriptor of a group: its checksum alone, or where the inode table is. */
static void break_descriptor(struct fake_dev *f, uint32_t g, unsigned field)
{
	struct x4_vol *v;
	uint64_t at;
	uint8_t c;

	ck_assert_int_eq(try_open(f, true, true, &v, NULL, 0), 0);
	at = ((uint64_t)v->first_data_block + 1) * v->block_size + (uint64_t)g * v->desc_size +
	     field;
	x4_vol_abandon(v);
	fake_peek(f, &c, 1, at);
	c ^= 0x55;
	fake_poke(f, &c, 1, at);
}

#define DESC_TABLE_TOP 11u /* highest byte of the inode table's place */
#define DESC_CSUM 30u

/* A damaged descriptor of the last group but one; a file in the first. */
START_TEST(damaged_descriptor_costs_its_group_only)
{
	struct fake_dev *f = testvol_shape(_i & 1 ? 4 : 0);
	struct ext2_super_block sb;
	struct x4_inode *i;
	struct x4_vol *v;
	uint32_t g;
	int err;

	debugfs(f, "write $IMG.src here");
	testvol_super(f, &sb);
	g = sb.s_inodes_count / sb.s_inodes_per_group - 2;
	break_descriptor(f, g, _i & 2 ? DESC_TABLE_TOP : DESC_CSUM);
	must_be_refused(f, false, "group descriptors");
	for (int norecovery = 0; norecovery < 2; norecovery++) {
		char msg[300] = "";

		ck_assert_msg(!try_open(f, true, norecovery, &v, msg, sizeof(msg)), "%s", msg);
		ck_assert(has_name(v, NULL, "here"));
		err = x4_iget(v, g * v->inodes_per_group + 5, NULL, &i);
		ck_assert_int_eq(err, _i & 2 ? -EUCLEAN : -ENOENT);
		ck_assert_int_eq(x4_vol_close(v), 0);
	}
	ck_assert_uint_eq(fake_stats(f).writes, 0);
	fake_free(f);
}
END_TEST

/* A crash tore a descriptor, and the log has it: it is replayed before anything is judged. */
START_TEST(log_is_replayed_before_descriptors_are_judged)
{
	struct fake_dev *f = testvol_shape(0), *cut;
	struct x4_vol *v = testvol_mount(f);
	struct x4_inode *i = testvol_tmpfile(v, S_IFREG | 0600);
	uint64_t at;
	uint8_t c;

	at = ((uint64_t)v->first_data_block + 1) * v->block_size + DESC_CSUM;
	ck_assert_int_eq(testvol_fill(i, 0, 10), 0);
	ck_assert_int_eq(x4_vol_sync(v), 0);
	cut = fake_power_cut(f, FAKE_CUT_KEEP, 1);
	x4_iput(i);
	x4_vol_abandon(v);
	fake_free(f);
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

static void make_names(struct fake_dev *f, uint64_t *ret_blk, uint32_t lblk)
{
	struct x4_cred c = { .umask = 022 };
	struct x4_vol *v = testvol_mount(f);
	struct x4_inode *root = testvol_root(v), *d, *i;
	char name[32];

	ck_assert_int_eq(x4_create(root, "dir", 3, S_IFDIR | 0755, 0, &c, &d), 0);
	for (unsigned n = 0; n < NAMES; n++) {
		name_of(name, n);
		ck_assert_int_eq(
			x4_create(d, name, (unsigned)strlen(name), S_IFREG | 0644, 0, &c, &i), 0);
		x4_iput(i);
	}
	ck_assert_int_eq(x4_bmap(d, lblk, ret_blk), 0);
	*ret_blk <<= v->block_bits;
	x4_iput(d);
	x4_iput(root);
	ck_assert_int_eq(x4_vol_close(v), 0);
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
	struct fake_dev *f = fake_mkfs(SIZE, t->mkfs);
	uint8_t zero[64] = { 0 };
	struct x4_inode *i;
	unsigned found = 0, got = 0;
	struct x4_vol *v;
	uint64_t at;

	make_names(f, &at, t->lblk);
	fake_poke(f, zero, sizeof(zero), at); /* rec_len 0 */
	ck_assert_int_eq(try_open(f, true, false, &v, NULL, 0), 0);
	got = names_in(v, "dir");
	ck_assert_uint_ge(got + t->most, NAMES);
	ck_assert_uint_le(got, NAMES);
	if (t->most)
		ck_assert_uint_lt(got, NAMES);
	for (unsigned n = 0; n < NAMES; n++) {
		char name[32];

		name_of(name, n);
		found += has_name(v, "dir", name);
	}
	ck_assert_uint_eq(found, got);
	ck_assert_int_eq(look_up(v, "dir", "b", &i), t->unknown);
	ck_assert_int_eq(x4_vol_close(v), 0);
	fake_free(f);
}
END_TEST

/* What the flags say of a link whose target is in the inode does not count; nor does the block of
 * its attributes. */
START_TEST(target_in_the_inode_is_read_whatever_its_flags)
{
	struct fake_dev *f = fake_mkfs(
		SIZE, _i ? "-t ext4 -b 1024 -J size=4 -O bigalloc -C 16384 -I 128" : testvol_shapes[0]);
	struct x4_inode *i;
	struct x4_vol *v;
	char buf[200];
	unsigned len;

	debugfs(f, _i ? "symlink link target\nea_set link trusted.a value"
		      : "symlink link target\nset_inode_field link flags 0x80000");
	ck_assert_int_eq(try_open(f, true, false, &v, NULL, 0), 0);
	ck_assert_int_eq(look_up(v, NULL, "link", &i), 0);
	if (_i)
		ck_assert_uint_ne(i->raw->i_file_acl, 0);
	ck_assert_int_eq(x4_readlink(i, buf, sizeof(buf), &len), 0);
	ck_assert_str_eq(buf, "target");
	x4_iput(i);
	ck_assert_int_eq(x4_vol_close(v), 0);
	if (!_i) { /* and it can be deleted */
		v = testvol_mount(f);
		i = testvol_root(v);
		ck_assert_int_eq(x4_unlink(i, "link", 4), 0);
		x4_iput(i);
		testvol_unmount_check(v, f);
	}
	fake_free(f);
}
END_TEST

/* The descriptor calls a part of the table unused in which there is an inode: it is there, and
 * stays. */
START_TEST(inode_in_the_unused_part_stays)
{
	struct fake_dev *f = testvol_shape(_i ? 4 : 0);
	struct x4_cred c = { .umask = 022 };
	struct x4_inode *root, *i;
	struct x4_vol *v;
	char cmd[200];
	uint32_t ino;

	/* The last of several: the next new one would share its block of the table. */
	debugfs(f, "write $IMG.src f1\nwrite $IMG.src f2\nwrite $IMG.src f3\n"
		   "write $IMG.src f4\nwrite $IMG.src f5\nwrite $IMG.src here");
	v = testvol_mount(f);
	ck_assert_int_eq(look_up(v, NULL, "here", &i), 0);
	ino = i->ino;
	snprintf(cmd, sizeof(cmd), "set_bg 0 itable_unused %u\nset_bg 0 checksum calc",
		 v->inodes_per_group - 11);
	x4_iput(i);
	testvol_unmount_check(v, f);
	ck_assert_uint_gt(ino, 11);
	debugfs(f, cmd);
	v = testvol_mount(f);
	root = testvol_root(v);
	ck_assert_int_eq(look_up(v, NULL, "here", &i), 0);
	ck_assert_uint_eq(i->ino, ino);
	x4_iput(i);
	for (unsigned n = 0; n < 40; n++) {
		char name[32];

		name_of(name, n);
		ck_assert_int_eq(
			x4_create(root, name, (unsigned)strlen(name), S_IFREG | 0644, 0, &c, &i),
			0);
		x4_iput(i);
	}
	x4_iput(root);
	ck_assert_int_eq(x4_vol_close(v), 0);
	ck_assert_int_le(fake_run(f, "e2fsck -fy $IMG >/dev/null 2>&1", NULL, 0, true), 1);
	v = testvol_mount(f);
	ck_assert_int_eq(look_up(v, NULL, "here", &i), 0);
	ck_assert_uint_eq(x4_inode_size(i), 6);
	x4_iput(i);
	ck_assert(has_name(v, NULL, "a-name-of-some-length-39"));
	testvol_unmount_check(v, f);
	fake_free(f);
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
