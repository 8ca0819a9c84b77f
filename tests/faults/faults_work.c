/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The workload: every operation of the volume and of the engine, in three parts. What work_before does lies half in the log when a
 * case begins, so that the first mount replays; work_first and work_second have an unmount and a mount between them.
 */
#include "faults/faults.h"

#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define REG (S_IFREG | 0644)
#define KIB 1024u

static struct name *at(struct run *r, const char *name) { return name_of(r, NULL, name); }

static void many(struct run *r, struct name *dir, unsigned nr)
{
	char name[200];

	for (unsigned k = 0; k < nr; k++) {
		memset(name, 'a' + (int)(k % 26), sizeof(name));
		snprintf(name, sizeof(name), "%03u", k);
		name[3] = '-';
		name[150 + k % 40] = 0;
		op_create(r, name_of(r, dir, name), REG, 0);
	}
}

/*
 * A tree of many leaves with little in each, so that to cut it off takes several transactions where blocks are small, and not many
 * allocations.
 */
static void pieces(struct run *r)
{
	unsigned bs = r->c.shape ? 4 * KIB : KIB, nr = r->c.shape ? 40 : 3000;
	struct name *p = at(r, "pieces");

	op_create(r, p, REG, 0);
	for (unsigned k = 0; k < nr; k++)
		op_write(r, p, DIO_DIRECT, (uint64_t)k * 2 * bs, bs);
	for (unsigned k = 50; k + 50 <= nr; k += 50)
		op_fallocate(r, p, X4_FALLOC_PUNCH_HOLE | X4_FALLOC_KEEP_SIZE, (uint64_t)k * 2 * bs, 48 * 2 * bs);
}

void work_before(struct run *r)
{
	struct name *d = at(r, "before"), *f = name_of(r, d, "data"), *g = at(r, "gone"), *big = at(r, "large");

	op_create(r, d, S_IFDIR | 0755, 0);
	op_create(r, f, REG, 0);
	op_write(r, f, 0, 0, 20 * KIB);
	op_create(r, g, REG, 0);
	op_write(r, g, 0, 0, 64 * KIB);
	op_create(r, big, S_IFDIR | 0755, 0);
	many(r, big, 24);
	pieces(r);
	op_fsync(r, NULL, false);
	op_unlink(r, g);
	op_rename(r, f, name_of(r, d, "moved"), 0);
	op_xattr(r, name_of(r, d, "moved"), "user.before", 300);
	op_fsync(r, NULL, false);
	op_create(r, at(r, "never"), REG, 0); /* not synced: whether it is there is open */
}

static void data_first(struct run *r)
{
	struct name *a = at(r, "a"), *b = at(r, "b"), *s = at(r, "sync");

	op_create(r, a, REG, 0);
	op_write(r, a, DIO_DIRECT, 0, 32 * KIB);
	op_write(r, a, DIO_DIRECT, 8 * KIB, 8 * KIB);
	op_write(r, a, 0, 1000, 3000);
	op_write(r, a, 0, 40 * KIB + 17, 5000);
	op_read(r, a, DIO_DIRECT, 0, 64 * KIB);
	op_fsync(r, a, false);
	op_create(r, b, REG, 0);
	for (unsigned k = 0; k < 6; k++)
		op_write(r, b, 0, k * 16 * KIB, 4 * KIB);
	op_write(r, b, DIO_DIRECT, 0, 96 * KIB); /* over extents and holes */
	op_fsync(r, b, true);
	op_truncate(r, b, 33 * KIB + 5);
	op_truncate(r, b, 80 * KIB);
	op_fsync(r, b, false);
	op_create(r, s, REG, 0);
	op_fsync(r, s, false);
	for (unsigned k = 0; k < 4; k++)
		op_write(r, s, DIO_DIRECT | DIO_DSYNC, k * 8 * KIB, 8 * KIB);
	op_write(r, s, DIO_DIRECT | DIO_DSYNC | DIO_SYNC, 4 * KIB, 4 * KIB);
	op_seek(r, b);
}

/* What is cut off must not show when the file grows again, wherever the truncate has failed: three ways to grow. */
static void cut_first(struct run *r)
{
	struct name *p = at(r, "pieces");

	op_truncate(r, p, 2 * KIB);
	op_write(r, p, 0, 9 * KIB, 1 * KIB);
	op_truncate(r, p, 30 * KIB);
	op_fallocate(r, p, 0, 40 * KIB, 1 * KIB);
	op_read(r, p, 0, 0, FILE_MAX);
	op_fsync(r, p, false);
}

/* Small files, written once and then at their ends: the loop thread does it (dio/append_small.c). */
static void small_first(struct run *r)
{
	static const uint32_t sizes[] = { 100, 1536, 5000, 16 * KIB };
	char name[] = "small0";

	for (unsigned k = 0; k < ARRAY_SIZE(sizes); k++, name[5]++) {
		struct name *n = at(r, name);

		op_create(r, n, REG, 0);
		op_write(r, n, 0, 0, sizes[k]);
		op_write(r, n, 0, sizes[k], 3000);
		op_read(r, n, 0, 0, 32 * KIB);
	}
	op_fsync(r, at(r, "small1"), false);
	op_fsync(r, at(r, "small3"), true);
}

static void alloc_first(struct run *r)
{
	struct name *p = at(r, "alloc");

	op_create(r, p, REG, 0);
	op_fallocate(r, p, 0, 0, 64 * KIB);
	op_write(r, p, DIO_DIRECT, 8 * KIB, 8 * KIB);
	op_write(r, p, 0, 30 * KIB + 3, 100);
	op_fallocate(r, p, X4_FALLOC_PUNCH_HOLE | X4_FALLOC_KEEP_SIZE, 10 * KIB + 100, 9 * KIB);
	op_fallocate(r, p, X4_FALLOC_ZERO_RANGE, 28 * KIB, 50 * KIB + 1);
	op_fallocate(r, p, X4_FALLOC_KEEP_SIZE, 96 * KIB, 32 * KIB);
	op_write(r, p, 0, 100 * KIB, 2 * KIB);
	op_fsync(r, p, false);
	op_read(r, p, 0, 0, FILE_MAX);
	op_truncate(r, p, 3 * KIB);
}

static void names_first(struct run *r)
{
	struct name *d = at(r, "dir"), *e = at(r, "other"), *x = name_of(r, d, "x"), *y = name_of(r, e, "y");

	op_create(r, d, S_IFDIR | 0755, 0);
	op_create(r, e, S_IFDIR | 0755, 0);
	op_create(r, x, REG, 0);
	op_write(r, x, 0, 0, 5000);
	op_create(r, y, REG, 0);
	op_link(r, x, name_of(r, e, "x2"));
	op_rename(r, x, y, RENAME_EXCHANGE);
	op_rename(r, x, name_of(r, e, "z"), RENAME_NOREPLACE);
	op_rename(r, y, name_of(r, e, "z"), 0);
	op_rename(r, e, name_of(r, d, "sub"), 0);
	op_symlink(r, name_of(r, d, "short"), "../a");
	op_symlink(r, name_of(r, d, "long"), "a-target-that-is-longer-than-the-sixty-bytes-that-the-inode-has-room-for/and/some/more");
	op_create(r, name_of(r, d, "fifo"), S_IFIFO | 0600, 0);
	op_create(r, name_of(r, d, "dev"), S_IFCHR | 0600, 0x103);
	op_fsync(r, NULL, false);
	op_unlink(r, name_of(r, name_of(r, d, "sub"), "x2"));
	op_unlink(r, name_of(r, d, "fifo"));
	op_readdir(r, d);
}

static void attrs_first(struct run *r)
{
	struct name *x = at(r, "attrs"), *d = at(r, "acls");

	op_create(r, x, REG, 0);
	op_xattr(r, x, "user.small", 20);
	op_xattr(r, x, "user.block", 600);
	op_xattr(r, x, "trusted.t", 50);
	op_xattr(r, x, "user.block", 500);
	op_acl(r, x, false);
	op_fsync(r, x, false);
	op_xattr(r, x, "user.small", 0);
	op_chmod(r, x, 0640);
	op_create(r, d, S_IFDIR | 0755, 0);
	op_acl(r, d, true);
	op_create(r, name_of(r, d, "heir"), REG, 0);
	op_create(r, name_of(r, d, "heirs"), S_IFDIR | 0755, 0);
	op_tmpfile(r, NULL, 9000);
	op_tmpfile(r, at(r, "named"), 7000);
	op_fsync(r, NULL, false);
}

void work_first(struct run *r)
{
	op_readdir(r, at(r, "large"));
	data_first(r);
	small_first(r);
	cut_first(r);
	alloc_first(r);
	names_first(r);
	attrs_first(r);
	op_unlink(r, at(r, "b"));
	op_trim(r);
	op_create(r, at(r, "late"), REG, 0);
	op_write(r, at(r, "late"), 0, 0, 12 * KIB);
}

/* A file that grows at its end: the append window. */
static void append_second(struct run *r)
{
	struct name *l = at(r, "log");

	op_create(r, l, REG, 0);
	for (unsigned k = 0; k < 8; k++)
		op_write(r, l, DIO_DIRECT, k * 4 * KIB, 4 * KIB);
	op_fsync(r, l, true);
	for (unsigned k = 8; k < 12; k++)
		op_write(r, l, DIO_DIRECT | (k & 1 ? DIO_DSYNC : 0), k * 4 * KIB, 4 * KIB);
	op_truncate(r, l, 41 * KIB);
	for (unsigned k = 0; k < 5; k++)
		op_write(r, l, 0, 41 * KIB + k * 700, 700);
	op_fsync(r, l, false);
}

static void names_second(struct run *r)
{
	struct name *big = at(r, "large"), *d = at(r, "dir"), *sub = name_of(r, d, "sub");

	many(r, big, 40);
	op_fsync(r, NULL, false);
	for (struct name *n = r->name; n < r->name + r->nr_names; n++)
		if (n->dir == big && n->name[2] % 2)
			op_unlink(r, n);
	op_readdir(r, big);
	op_rename(r, sub, at(r, "back"), 0);
	op_create(r, at(r, "empty"), S_IFDIR | 0700, 0);
	op_fsync(r, NULL, false);
	op_unlink(r, at(r, "empty"));
}

/* Many extents, so that the tree has nodes of its own, and their removal. */
static void extents_second(struct run *r)
{
	struct name *x = at(r, "extents");

	op_create(r, x, REG, 0);
	for (unsigned k = 12; k-- > 0;)
		op_write(r, x, DIO_DIRECT, k * 12 * KIB, 4 * KIB);
	op_fsync(r, x, false);
	op_fallocate(r, x, X4_FALLOC_PUNCH_HOLE | X4_FALLOC_KEEP_SIZE, 20 * KIB, 60 * KIB);
	op_fsync(r, x, false);
	op_truncate(r, x, 90 * KIB + 1);
	op_read(r, x, 0, 0, FILE_MAX);
}

void work_second(struct run *r)
{
	op_read(r, at(r, "late"), 0, 0, 32 * KIB);
	op_write(r, at(r, "a"), DIO_DIRECT, 4 * KIB, 16 * KIB);
	op_fsync(r, at(r, "a"), true);
	append_second(r);
	extents_second(r);
	op_xattr(r, at(r, "attrs"), "user.block", 700);
	op_acl(r, at(r, "attrs"), false);
	names_second(r);
	op_trim(r);
	op_unlink(r, at(r, "extents"));
	op_fsync(r, at(r, "log"), false);
	op_create(r, at(r, "last"), REG, 0);
	op_write(r, at(r, "last"), 0, 0, 700);
}
