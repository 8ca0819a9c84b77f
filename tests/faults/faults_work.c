/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The workload: every operation of the volume and of the engine, in three parts. work_before is
 * done once, without faults, and its end is only in the log when a case begins, so that the first
 * mount replays. Each case does work_first and work_second, with an unmount and a mount between.
 */
#include "faults/faults.h"

#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define REG (S_IFREG | 0644)
#define KIB 1024u

static struct name *at(struct run *run, const char *name) { return name_of(run, NULL, name); }

/* Creates nr files with long names, so that the directory has many blocks. */
static void many(struct run *run, struct name *dir, unsigned nr)
{
	char name[200];

	for (unsigned k = 0; k < nr; k++) {
		memset(name, 'a' + (int)(k % 26), sizeof(name));
		snprintf(name, sizeof(name), "%03u", k);
		name[3] = '-';
		name[150 + k % 40] = 0;
		op_create(run, name_of(run, dir, name), REG, 0);
	}
}

/*
 * A file whose extent tree has many leaves with few extents in each. So a truncate of it takes
 * several transactions where blocks are small, but few allocations.
 */
static void pieces(struct run *run)
{
	unsigned bs = run->test.shape ? 4 * KIB : KIB, nr = run->test.shape ? 40 : 3000;
	struct name *name = at(run, "pieces");

	op_create(run, name, REG, 0);
	for (unsigned k = 0; k < nr; k++)
		op_write(run, name, DIO_DIRECT, (uint64_t)k * 2 * bs, bs);
	for (unsigned k = 50; k + 50 <= nr; k += 50)
		op_fallocate(run, name, EXT4_FALLOC_PUNCH_HOLE | EXT4_FALLOC_KEEP_SIZE,
			     (uint64_t)k * 2 * bs, 48 * 2 * bs);
}

void work_before(struct run *run)
{
	struct name *d = at(run, "before"), *f = name_of(run, d, "data"), *g = at(run, "gone"),
		    *big = at(run, "large");

	op_create(run, d, S_IFDIR | 0755, 0);
	op_create(run, f, REG, 0);
	op_write(run, f, 0, 0, 20 * KIB);
	op_create(run, g, REG, 0);
	op_write(run, g, 0, 0, 64 * KIB);
	op_create(run, big, S_IFDIR | 0755, 0);
	many(run, big, 24);
	pieces(run);
	op_fsync(run, NULL, false);
	op_unlink(run, g);
	op_rename(run, f, name_of(run, d, "moved"), 0);
	op_xattr(run, name_of(run, d, "moved"), "user.before", 300);
	op_fsync(run, NULL, false);
	op_create(run, at(run, "never"), REG, 0); /* not synced: the power cut loses it */
}

static void data_first(struct run *run)
{
	struct name *a = at(run, "a"), *b = at(run, "b"), *s = at(run, "sync");

	op_create(run, a, REG, 0);
	op_write(run, a, DIO_DIRECT, 0, 32 * KIB);
	op_write(run, a, DIO_DIRECT, 8 * KIB, 8 * KIB);
	op_write(run, a, 0, 1000, 3000);
	op_write(run, a, 0, 40 * KIB + 17, 5000);
	op_read(run, a, DIO_DIRECT, 0, 64 * KIB);
	op_fsync(run, a, false);
	op_create(run, b, REG, 0);
	for (unsigned k = 0; k < 6; k++)
		op_write(run, b, 0, k * 16 * KIB, 4 * KIB);
	op_write(run, b, DIO_DIRECT, 0, 96 * KIB); /* over extents and holes */
	op_fsync(run, b, true);
	op_truncate(run, b, 33 * KIB + 5);
	op_truncate(run, b, 80 * KIB);
	op_fsync(run, b, false);
	op_create(run, s, REG, 0);
	op_fsync(run, s, false);
	for (unsigned k = 0; k < 4; k++)
		op_write(run, s, DIO_DIRECT | DIO_DSYNC, k * 8 * KIB, 8 * KIB);
	op_write(run, s, DIO_DIRECT | DIO_DSYNC | DIO_SYNC, 4 * KIB, 4 * KIB);
	op_seek(run, b);
}

/*
 * A truncate, which may fail anywhere, and three ways to grow the file again: what was cut off must
 * not become visible.
 */
static void cut_first(struct run *run)
{
	struct name *name = at(run, "pieces");

	op_truncate(run, name, 2 * KIB);
	op_write(run, name, 0, 9 * KIB, 1 * KIB);
	op_truncate(run, name, 30 * KIB);
	op_fallocate(run, name, 0, 40 * KIB, 1 * KIB);
	op_read(run, name, 0, 0, FILE_MAX);
	op_fsync(run, name, false);
}

/* Small files, written once and then at their ends, which needs no worker (dio/append_small.c). */
static void small_first(struct run *run)
{
	static const uint32_t sizes[] = { 100, 1536, 5000, 16 * KIB };
	char name[] = "small0";

	for (unsigned k = 0; k < ARRAY_SIZE(sizes); k++, name[5]++) {
		struct name *n = at(run, name);

		op_create(run, n, REG, 0);
		op_write(run, n, 0, 0, sizes[k]);
		op_write(run, n, 0, sizes[k], 3000);
		op_read(run, n, 0, 0, 32 * KIB);
	}
	op_fsync(run, at(run, "small1"), false);
	op_fsync(run, at(run, "small3"), true);
}

static void alloc_first(struct run *run)
{
	struct name *name = at(run, "alloc");

	op_create(run, name, REG, 0);
	op_fallocate(run, name, 0, 0, 64 * KIB);
	op_write(run, name, DIO_DIRECT, 8 * KIB, 8 * KIB);
	op_write(run, name, 0, 30 * KIB + 3, 100);
	op_fallocate(run, name, EXT4_FALLOC_PUNCH_HOLE | EXT4_FALLOC_KEEP_SIZE, 10 * KIB + 100,
		     9 * KIB);
	op_fallocate(run, name, EXT4_FALLOC_ZERO_RANGE, 28 * KIB, 50 * KIB + 1);
	op_fallocate(run, name, EXT4_FALLOC_KEEP_SIZE, 96 * KIB, 32 * KIB);
	op_write(run, name, 0, 100 * KIB, 2 * KIB);
	op_fsync(run, name, false);
	op_read(run, name, 0, 0, FILE_MAX);
	op_truncate(run, name, 3 * KIB);
}

static void names_first(struct run *run)
{
	struct name *d = at(run, "dir"), *e = at(run, "other"), *x = name_of(run, d, "x"),
		    *y = name_of(run, e, "y");

	op_create(run, d, S_IFDIR | 0755, 0);
	op_create(run, e, S_IFDIR | 0755, 0);
	op_create(run, x, REG, 0);
	op_write(run, x, 0, 0, 5000);
	op_create(run, y, REG, 0);
	op_link(run, x, name_of(run, e, "x2"));
	op_rename(run, x, y, RENAME_EXCHANGE);
	op_rename(run, x, name_of(run, e, "z"), RENAME_NOREPLACE);
	op_rename(run, y, name_of(run, e, "z"), 0);
	op_rename(run, e, name_of(run, d, "sub"), 0);
	op_symlink(run, name_of(run, d, "short"), "../a");
	op_symlink(run, name_of(run, d, "long"),
		   "a-target-that-is-longer-than-the-sixty-bytes-that-the-inode-has-room-for/and/"
		   "some/more");
	op_create(run, name_of(run, d, "fifo"), S_IFIFO | 0600, 0);
	op_create(run, name_of(run, d, "dev"), S_IFCHR | 0600, 0x103);
	op_fsync(run, NULL, false);
	op_unlink(run, name_of(run, name_of(run, d, "sub"), "x2"));
	op_unlink(run, name_of(run, d, "fifo"));
	op_readdir(run, d);
}

static void attrs_first(struct run *run)
{
	struct name *x = at(run, "attrs"), *d = at(run, "acls");

	op_create(run, x, REG, 0);
	op_xattr(run, x, "user.small", 20);
	op_xattr(run, x, "user.block", 600);
	op_xattr(run, x, "trusted.t", 50);
	op_xattr(run, x, "user.block", 500);
	op_acl(run, x, false);
	op_fsync(run, x, false);
	op_xattr(run, x, "user.small", 0);
	op_chmod(run, x, 0640);
	op_create(run, d, S_IFDIR | 0755, 0);
	op_acl(run, d, true);
	op_create(run, name_of(run, d, "heir"), REG, 0);
	op_create(run, name_of(run, d, "heirs"), S_IFDIR | 0755, 0);
	op_tmpfile(run, NULL, 9000);
	op_tmpfile(run, at(run, "named"), 7000);
	op_fsync(run, NULL, false);
}

void work_first(struct run *run)
{
	op_readdir(run, at(run, "large"));
	data_first(run);
	small_first(run);
	cut_first(run);
	alloc_first(run);
	names_first(run);
	attrs_first(run);
	op_unlink(run, at(run, "b"));
	op_trim(run);
	op_create(run, at(run, "late"), REG, 0);
	op_write(run, at(run, "late"), 0, 0, 12 * KIB);
}

/* A file that grows at its end, through an append window. */
static void append_second(struct run *run)
{
	struct name *name = at(run, "log");

	op_create(run, name, REG, 0);
	for (unsigned k = 0; k < 8; k++)
		op_write(run, name, DIO_DIRECT, k * 4 * KIB, 4 * KIB);
	op_fsync(run, name, true);
	for (unsigned k = 8; k < 12; k++)
		op_write(run, name, DIO_DIRECT | (k & 1 ? DIO_DSYNC : 0), k * 4 * KIB, 4 * KIB);
	op_truncate(run, name, 41 * KIB);
	for (unsigned k = 0; k < 5; k++)
		op_write(run, name, 0, 41 * KIB + k * 700, 700);
	op_fsync(run, name, false);
}

static void names_second(struct run *run)
{
	struct name *big = at(run, "large"), *d = at(run, "dir"), *sub = name_of(run, d, "sub");

	many(run, big, 40);
	op_fsync(run, NULL, false);
	for (struct name *name = run->name; name < run->name + run->nr_names; name++)
		if (name->dir == big && name->name[2] % 2)
			op_unlink(run, name);
	op_readdir(run, big);
	op_rename(run, sub, at(run, "back"), 0);
	op_create(run, at(run, "empty"), S_IFDIR | 0700, 0);
	op_fsync(run, NULL, false);
	op_unlink(run, at(run, "empty"));
}

/* Many extents, so that the tree has nodes of its own, and their removal. */
static void extents_second(struct run *run)
{
	struct name *name = at(run, "extents");

	op_create(run, name, REG, 0);
	for (unsigned k = 12; k-- > 0;)
		op_write(run, name, DIO_DIRECT, k * 12 * KIB, 4 * KIB);
	op_fsync(run, name, false);
	op_fallocate(run, name, EXT4_FALLOC_PUNCH_HOLE | EXT4_FALLOC_KEEP_SIZE, 20 * KIB, 60 * KIB);
	op_fsync(run, name, false);
	op_truncate(run, name, 90 * KIB + 1);
	op_read(run, name, 0, 0, FILE_MAX);
}

void work_second(struct run *run)
{
	op_read(run, at(run, "late"), 0, 0, 32 * KIB);
	op_write(run, at(run, "a"), DIO_DIRECT, 4 * KIB, 16 * KIB);
	op_fsync(run, at(run, "a"), true);
	append_second(run);
	extents_second(run);
	op_xattr(run, at(run, "attrs"), "user.block", 700);
	op_acl(run, at(run, "attrs"), false);
	names_second(run);
	op_trim(run);
	op_unlink(run, at(run, "extents"));
	op_fsync(run, at(run, "log"), false);
	op_create(run, at(run, "last"), REG, 0);
	op_write(run, at(run, "last"), 0, 0, 700);
}
