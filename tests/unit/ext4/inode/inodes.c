/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inodes: the cache and its references, times in all their encodings, lazily written ones too,
 * attributes over a remount, rollback, the orphan list in every order, deletion.
 */
#include "kit/volume.h"

#include "base/log.h"
#include "ext4/inode/inode_cache.h"
#include "ext4/inode/inode_change.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static struct fake_dev *f;
static struct ext4_vol *v;

/* A file named "file" (inode *ino) is there. */
static void setup(unsigned n, uint32_t *ino)
{
	char out[64];

	f = testvol_shape(n);
	ck_assert_int_eq(fake_run(f,
				  "echo hello > $IMG.src && debugfs -w -R \"write $IMG.src file\" "
				  "$IMG >/dev/null 2>&1 && "
				  "rm $IMG.src && debugfs -R 'stat file' $IMG 2>/dev/null | sed -n "
				  "'s/^Inode: \\([0-9]*\\).*/\\1/p'",
				  out, sizeof(out), true),
			 0);
	*ino = (uint32_t)strtoul(out, NULL, 10);
	ck_assert_uint_ge(*ino, 11);
	v = testvol_mount(f);
}

static void finish(void)
{
	testvol_check_groups(v);
	testvol_unmount_check(v, f);
	fake_free(f);
}

static void reopen(void)
{
	testvol_unmount_check(v, f);
	v = testvol_mount(f);
}

START_TEST(references_keep_inodes)
{
	struct ext4_inode *a, *b;
	uint32_t ino, gen;

	setup((unsigned)_i, &ino);
	ck_assert_ptr_null(ext4_inode_get_cached(v, ino));
	ck_assert_int_eq(ext4_inode_get(v, ino, NULL, &a), 0);
	gen = ext4_inode_gen(a);
	ck_assert_int_eq(ext4_inode_get(v, ino, &gen, &b), 0);
	ck_assert_ptr_eq(a, b);
	ext4_inode_put(b);
	b = ext4_inode_get_cached(v, ino);
	ck_assert_ptr_eq(a, b);
	ext4_inode_ref(b);
	ext4_inode_put_many(b, 2);
	gen++;
	ck_assert_int_eq(ext4_inode_get(v, ino, &gen, &b), -ESTALE);
	ext4_inode_put(a);
	ck_assert_int_eq(ext4_inode_get(v, 0, NULL, &b), -ENOENT);
	ck_assert_int_eq(ext4_inode_get(v, 8, NULL, &b), -ENOENT);
	ck_assert_int_eq(ext4_inode_get(v, v->nr_inodes + 1, NULL, &b), -ENOENT);
	ck_assert_int_eq(ext4_inode_get(v, UINT32_MAX, NULL, &b), -ENOENT);
	ck_assert_int_eq(ext4_inode_get(v, v->nr_inodes, NULL, &b), -ENOENT);
	finish();
}
END_TEST

static unsigned dtors;
static void dtor(void *p) { dtors += *(unsigned *)p; }

START_TEST(upper_part_ends_with_the_inode)
{
	unsigned one = 1, two = 2;
	struct ext4_inode *inode;
	uint32_t ino;

	setup(0, &ino);
	dtors = 0;
	ck_assert_int_eq(ext4_inode_get(v, ino, NULL, &inode), 0);
	ck_assert_ptr_null(ext4_inode_upper(inode));
	ck_assert_ptr_eq(ext4_inode_set_upper(inode, &one, dtor), &one);
	ck_assert_ptr_eq(ext4_inode_set_upper(inode, &two, dtor), &one);
	ck_assert_ptr_eq(ext4_inode_upper(inode), &one);
	ext4_inode_put(inode);
	ck_assert_uint_eq(dtors, 0);
	finish();
	ck_assert_uint_eq(dtors, 1);
}
END_TEST

/* More files than the bound are touched: the cache stays small, what is referenced stays. */
START_TEST(cache_gives_up_the_oldest)
{
	struct ext4_inode *inode, *kept[20];
	uint32_t ino;

	setup(0, &ino);
	v->inode.lru_max = 10;
	for (unsigned n = 0; n < 20; n++)
		kept[n] = testvol_tmpfile(v, S_IFREG | 0600);
	for (unsigned n = 0; n < 20; n++)
		/* in memory only: stays out of eviction, cannot be dropped while on the list */
		ext4_raw_set_nlink(kept[n], 1);
	for (unsigned n = 0; n < 20; n++)
		ext4_inode_put(kept[n]);
	ck_assert_uint_ge(v->inode.nr_cached, 20);
	for (unsigned n = 0; n < 20; n++) {
		inode = ext4_inode_get_cached(v, kept[n]->ino);
		ck_assert_ptr_eq(inode, kept[n]);
		ext4_raw_set_nlink(inode, 0);
		ext4_inode_put(inode);
	}
	ck_assert_uint_le(v->inode.lru_len, 10);
	for (uint32_t n = 3; n < v->first_ino; n++)
		if (n != 8 && !ext4_inode_get_special(v, n, &inode)) {
			inode->nlink = 1;
			ext4_inode_put(inode);
		}
	ck_assert_uint_le(v->inode.lru_len, 10);
	finish();
}
END_TEST

/* The last second that can be stored has no fraction, as in the kernel. */
#define LAST_SECOND ((int64_t)INT32_MAX + (3LL << 32))
static const struct { int64_t sec; long nsec; int64_t want; bool narrow; } times[] = {
	{ 0, 0, 0, false },
	{ 1, 999999999, 1, false },
	{ -1, 500, -1, false },
	{ INT32_MAX, 5, INT32_MAX, false },
	{ INT32_MIN, 0, INT32_MIN, false },
	{ (int64_t)INT32_MIN - 1, 7, INT32_MIN, false },
	{ (int64_t)INT32_MAX + 1, 123456789, (int64_t)INT32_MAX + 1, true },
	{ 4294967296LL, 1, 4294967296LL, true },
	{ 10000000000LL, 1, 10000000000LL, true },
	{ (int64_t)INT32_MAX + (3LL << 32), 3, (int64_t)INT32_MAX + (3LL << 32), true },
	{ 99999999999LL, 3, (int64_t)INT32_MAX + (3LL << 32), true },
};

START_TEST(times_in_all_encodings)
{
	bool narrow = _i == 1; /* 128-byte inodes: seconds only, until 2038 */
	struct ext4_inode *inode;
	struct ext4_attr a, b;
	uint32_t ino;

	setup(narrow ? 6 : 0, &ino);
	for (unsigned n = 0; n < ARRAY_SIZE(times); n++) {
		int64_t want = narrow && times[n].narrow ? INT32_MAX : times[n].want;

		ck_assert_int_eq(ext4_inode_get(v, ino, NULL, &inode), 0);
		memset(&a, 0, sizeof(a));
		a.atime = a.mtime = a.ctime = (struct timespec){ times[n].sec, times[n].nsec };
		ck_assert_int_eq(ext4_setattr(inode,
					      EXT4_SET_ATIME | EXT4_SET_MTIME | EXT4_SET_CTIME, &a),
				 0);
		ext4_getattr(inode, &b);
		ck_assert_int_eq(b.mtime.tv_sec, want);
		ext4_inode_put(inode);
		if (n % 4 == 0)
			reopen();
		ck_assert_int_eq(ext4_inode_get(v, ino, NULL, &inode), 0);
		ext4_getattr(inode, &b);
		ck_assert_int_eq(b.atime.tv_sec, want);
		ck_assert_int_eq(b.mtime.tv_sec, want);
		ck_assert_int_eq(b.ctime.tv_sec, want);
		if (want == times[n].sec)
			ck_assert_int_eq(b.ctime.tv_nsec,
					 narrow || want == LAST_SECOND ? 0 : times[n].nsec);
		ext4_inode_put(inode);
	}
	finish();
}
END_TEST

START_TEST(attributes_survive_a_remount)
{
	struct ext4_attr a = { .mode = 04751, .uid = 70000, .gid = 80000 }, b;
	struct ext4_inode *inode;
	uint32_t ino;

	setup((unsigned)_i, &ino);
	ck_assert_int_eq(ext4_inode_get(v, ino, NULL, &inode), 0);
	ck_assert_int_eq(ext4_setattr(inode, EXT4_SET_MODE | EXT4_SET_UID | EXT4_SET_GID, &a), 0);
	a.flags = ext4_inode_flags(inode) | EXT2_NODUMP_FL | EXT2_NOATIME_FL;
	ck_assert_int_eq(ext4_setattr(inode, EXT4_SET_FLAGS, &a), 0);
	a.flags = ext4_inode_flags(inode) ^ EXT4_EXTENTS_FL;
	ck_assert_int_eq(ext4_setattr(inode, EXT4_SET_FLAGS, &a), -EOPNOTSUPP);
	ext4_inode_put(inode);
	reopen();
	ck_assert_int_eq(ext4_inode_get(v, ino, NULL, &inode), 0);
	ext4_getattr(inode, &b);
	ck_assert_uint_eq(b.mode, S_IFREG | 04751);
	ck_assert_uint_eq(b.uid, 70000);
	ck_assert_uint_eq(b.gid, 80000);
	ck_assert_uint_eq(b.size, 6);
	ck_assert_uint_eq(b.nlink, 1);
	ck_assert_uint_eq(b.blocks_512, v->block_size / 512);
	ck_assert((b.flags & (EXT2_NODUMP_FL | EXT2_NOATIME_FL | EXT4_EXTENTS_FL)) ==
		  (EXT2_NODUMP_FL | EXT2_NOATIME_FL | EXT4_EXTENTS_FL));

	ck_assert(ext4_needs_killpriv(inode));
	ck_assert_int_eq(ext4_setattr(inode, EXT4_KILL_SUIDGID, &a), 0);
	ck_assert_uint_eq(ext4_inode_mode(inode), S_IFREG | 0751);
	ck_assert_int_eq(ext4_setattr(inode, EXT4_KILL_SUIDGID, &a), 0);
	ck_assert(!ext4_needs_killpriv(inode));
	a.mode = 02700; /* without group execution it is mandatory locking, not a privilege */
	ck_assert_int_eq(ext4_setattr(inode, EXT4_SET_MODE, &a), 0);
	ck_assert(ext4_needs_killpriv(inode));
	ck_assert_int_eq(ext4_setattr(inode, EXT4_KILL_SUIDGID, &a), 0);
	ck_assert_uint_eq(ext4_inode_mode(inode), S_IFREG | 02700);
	/* That a member of the group leaves it is not remembered for those who are none. */
	ck_assert(ext4_needs_killpriv(inode));
	ck_assert_int_eq(ext4_setattr(inode, EXT4_KILL_SUIDGID | EXT4_KILL_SGID, &a), 0);
	ck_assert_uint_eq(ext4_inode_mode(inode), S_IFREG | 0700);
	ext4_inode_put(inode);
	finish();
}
END_TEST

START_TEST(lazy_times_are_written_in_the_end)
{
	struct timespec now = { 2000000000, 5 };
	struct ext4_inode *inode;
	struct ext4_attr attr;
	journal_tid tid;
	uint32_t ino;

	setup((unsigned)_i, &ino);
	fake_set_clock(f, &now);
	ck_assert_int_eq(ext4_inode_get(v, ino, NULL, &inode), 0);
	ck_assert(!ext4_sync_tid(inode, false, &tid));
	ext4_touch_write(inode);
	ext4_getattr(inode, &attr);
	ck_assert_int_eq(attr.mtime.tv_sec, now.tv_sec);
	ck_assert_int_eq(attr.ctime.tv_sec, now.tv_sec);
	ck_assert_uint_ne(inode->raw->i_mtime, (uint32_t)now.tv_sec);
	ck_assert(!ext4_sync_tid(inode, true, &tid)); /* fdatasync does not care */
	ck_assert(ext4_sync_tid(inode, false, &tid)); /* fsync writes them */
	ck_assert_uint_eq(inode->raw->i_mtime, (uint32_t)now.tv_sec);

	/* Unreferenced and not written yet: it must not get lost. */
	now.tv_sec += 10;
	fake_set_clock(f, &now);
	ext4_touch_write(inode);
	ext4_touch_read(inode);
	ext4_inode_put(inode);
	reopen();
	ck_assert_int_eq(ext4_inode_get(v, ino, NULL, &inode), 0);
	ext4_getattr(inode, &attr);
	ck_assert_int_eq(attr.mtime.tv_sec, now.tv_sec);
	ck_assert_int_eq(attr.atime.tv_sec, now.tv_sec);

	/* relatime: not again on the same day, unless it was changed; after a day, yes. */
	now.tv_sec += 100;
	fake_set_clock(f, &now);
	nowait_ignore(ext4_setattr(inode, EXT4_SET_ATIME_NOW, &attr));
	now.tv_sec += 100;
	fake_set_clock(f, &now);
	ext4_touch_read(inode);
	ext4_getattr(inode, &attr);
	ck_assert_int_eq(attr.atime.tv_sec, now.tv_sec); /* ctime was as new as atime */
	now.tv_sec += 100;
	fake_set_clock(f, &now);
	ext4_touch_read(inode);
	ext4_getattr(inode, &attr);
	ck_assert_int_eq(attr.atime.tv_sec, now.tv_sec - 100);
	now.tv_sec += 86400;
	fake_set_clock(f, &now);
	ext4_touch_read(inode);
	ext4_getattr(inode, &attr);
	ck_assert_int_eq(attr.atime.tv_sec, now.tv_sec);

	/* An explicit time wins over one noted before, and a write after it wins again. */
	ext4_touch_write(inode);
	attr.mtime = (struct timespec){ 3000000000LL, 0 };
	ck_assert_int_eq(ext4_setattr(inode, EXT4_SET_MTIME, &attr), 0);
	ext4_getattr(inode, &attr);
	ck_assert_int_eq(attr.mtime.tv_sec, v->inode_size > 128 ? 3000000000LL : INT32_MAX);
	now.tv_sec += 5;
	fake_set_clock(f, &now);
	ext4_touch_write(inode);
	ck_assert_int_eq(ext4_vol_write_times(v), 0);
	ext4_getattr(inode, &attr);
	ck_assert_int_eq(attr.mtime.tv_sec, now.tv_sec);
	ext4_inode_put(inode);
	fake_set_clock(f, NULL);
	finish();
}
END_TEST

START_TEST(cancelled_handle_restores_the_inode)
{
	struct ext4_attr before, after;
	struct journal_handle *handle;
	struct ext4_inode *inode;
	uint32_t ino;

	memset(&before, 0, sizeof(before)); /* the padding is compared too */
	memset(&after, 0, sizeof(after));
	setup((unsigned)_i, &ino);
	ck_assert_int_eq(ext4_inode_get(v, ino, NULL, &inode), 0);
	ext4_touch_write(inode);
	ext4_getattr(inode, &before);
	ck_assert_int_eq(journal_begin(v->journal, 4, &handle), 0);
	ck_assert_int_eq(ext4_inode_begin(handle, inode), 0);
	ck_assert_int_eq(ext4_inode_begin(handle, inode), 0);
	fdio_mutex_lock(&inode->attr);
	ext4_raw_set_size(inode, 1ULL << 40);
	ext4_raw_set_mode(inode, S_IFREG | 07777);
	ext4_raw_set_time(inode, EXT4_SET_MTIME, (struct timespec){ 1, 1 });
	fdio_mutex_unlock(&inode->attr);
	ext4_raw_set_nlink(inode, 77);
	ck_assert_int_eq(ext4_raw_add_blocks(inode, 1000), 0);
	ck_assert_int_eq(ext4_inode_dirty(handle, inode, true), 0);
	ck_assert_uint_eq(ext4_inode_size(inode), 1ULL << 40);
	journal_cancel(handle);
	ext4_getattr(inode, &after);
	ck_assert_int_eq(memcmp(&before, &after, sizeof(before)), 0);
	ck_assert_uint_eq(ext4_inode_size(inode), before.size);
	ext4_inode_put(inode);
	finish();
}
END_TEST

START_TEST(new_inodes_inherit_and_are_placed)
{
	uint32_t groups[] = { 5, 80000 };
	struct ext4_credentials credentials = {
		.uid = 65536, .gid = 7, .groups = groups, .nr_groups = 2
	};
	struct ext4_inode *root, *inode;
	struct journal_handle *handle;
	struct ext4_attr attr = { .mode = 02777, .gid = 90000 };
	uint32_t ino;

	setup((unsigned)_i, &ino);
	root = testvol_root(v);
	ck_assert_int_eq(ext4_setattr(root, EXT4_SET_MODE | EXT4_SET_GID, &attr), 0);
	ck_assert_int_eq(journal_begin(v->journal, 30, &handle), 0);
	ck_assert_int_eq(ext4_inode_new(handle, root, S_IFREG | 02775, &credentials, &inode), 0);
	ext4_getattr(inode, &attr);
	ck_assert_uint_eq(attr.uid, 65536);
	ck_assert_uint_eq(attr.gid, 90000);
	/* not in that group: no setgid executable for it */
	ck_assert_uint_eq(attr.mode, S_IFREG | 0775);
	ck_assert_uint_eq(attr.nlink, 1);
	ck_assert(attr.flags & EXT4_EXTENTS_FL);
	if (v->inode_size > 128)
		ck_assert_int_ne(attr.btime.tv_sec, 0);
	ino = inode->ino;
	journal_cancel(handle);
	ext4_inode_put(inode);
	ck_assert_int_eq(ext4_inode_get(v, ino, NULL, &inode), -ENOENT);

	ck_assert_int_eq(journal_begin(v->journal, 30, &handle), 0);
	ck_assert_int_eq(ext4_inode_new(handle, root, S_IFDIR | 0700, &credentials, &inode), 0);
	ck_assert_uint_eq(ext4_inode_mode(inode), S_IFDIR | 02700);
	journal_cancel(handle);
	ext4_inode_put(inode);
	ck_assert_int_eq(journal_begin(v->journal, 30, &handle), 0);
	ck_assert_int_eq(ext4_inode_new(handle, root, S_IFCHR | 0600, &credentials, &inode), 0);
	ext4_raw_set_rdev(inode, 0x0103);
	ck_assert_uint_eq(ext4_raw_rdev(inode), 0x0103);
	ck_assert_uint_eq(inode->raw->i_block[0], 0x0103);
	ext4_raw_set_rdev(inode, 0x12345678);
	ck_assert_uint_eq(ext4_raw_rdev(inode), 0x12345678);
	ck_assert_uint_eq(inode->raw->i_block[0], 0);
	journal_cancel(handle);
	ext4_inode_put(inode);
	ext4_inode_put(root);
	finish();
}
END_TEST

/*
 * Ten on the list, taken off in an order that the seed decides; one removal in three is cancelled
 * first.
 */
START_TEST(orphan_list_in_any_order)
{
	struct ext4_inode *o[10];
	unsigned rnd = 99 + (unsigned)_i, left = 10;
	struct ext2_super_block *sb;
	struct journal_handle *handle;
	uint32_t ino;

	setup(0, &ino);
	for (unsigned n = 0; n < 10; n++)
		o[n] = testvol_tmpfile(v, S_IFREG | 0600);
	while (left) {
		unsigned k = (unsigned)rand_r(&rnd) % left;
		struct ext4_inode *inode = o[k];

		if (rand_r(&rnd) % 3 == 0) {
			ck_assert_int_eq(journal_begin(v->journal, 8, &handle), 0);
			ck_assert_int_eq(ext4_orphan_del(handle, inode), 0);
			ck_assert(!inode->inode.on_orphans);
			journal_cancel(handle);
			ck_assert(inode->inode.on_orphans);
		}
		ext4_inode_put(inode);
		o[k] = o[--left];
		if (rand_r(&rnd) % 4 == 0) {
			ck_assert_int_eq(ext4_vol_sync(v), 0);
			ck_assert_int_eq(fake_e2fsck_replay(f), 0);
		}
	}
	ck_assert_int_eq(journal_begin(v->journal, 1, &handle), 0);
	ck_assert_int_eq(ext4_super_begin(v, handle, &sb), 0);
	ck_assert_uint_eq(sb->s_last_orphan, 0);
	journal_cancel(handle);
	finish();
}
END_TEST

/* Still open at the unmount: deleted by it. */
START_TEST(unmount_deletes_what_is_still_open)
{
	struct ext4_statfs before, after;
	struct ext4_inode *inode;
	uint32_t ino;

	setup((unsigned)_i, &ino);
	ext4_vol_statfs(v, &before);
	inode = testvol_tmpfile(v, S_IFREG | 0600);
	ck_assert_int_eq(testvol_fill(inode, 0, 50), 0);
	ext4_inode_ref(inode);
	reopen();
	ext4_vol_statfs(v, &after);
	ck_assert_uint_eq(after.bfree, before.bfree);
	ck_assert_uint_eq(after.ffree, before.ffree);
	finish();
}
END_TEST

/* A number is used again at once, in the same transaction, with another generation. */
START_TEST(number_is_used_again_with_another_generation)
{
	struct ext4_inode *inode;
	uint32_t ino, gen, first = 0, same = 0;

	setup(0, &ino);
	for (unsigned n = 0; n < 50; n++) {
		inode = testvol_tmpfile(v, S_IFREG | 0600);
		if (!n)
			first = inode->ino;
		ck_assert_uint_eq(inode->ino, first);
		same += n && gen == inode->gen;
		gen = inode->gen;
		ext4_touch_write(inode); /* queued for its times when it goes */
		ext4_inode_put(inode);
		ck_assert_int_eq(ext4_inode_get(v, first, &gen, &inode), -ENOENT);
		if (n == 25)
			ck_assert_int_eq(ext4_vol_write_times(v), 0);
	}
	ck_assert_uint_le(same, 1);
	finish();
}
END_TEST

START_TEST(damaged_inodes_are_refused)
{
	struct ext4_inode *inode;
	uint32_t ino, off;
	uint64_t blk;
	uint8_t byte;

	setup(0, &ino);
	blk = ext4_itable_place(v, ino, &off);
	fake_peek(f, &byte, 1, (blk << v->block_bits) + off + 50);
	byte ^= 1;
	fake_poke(f, &byte, 1, (blk << v->block_bits) + off + 50);
	ck_assert_int_eq(ext4_inode_get(v, ino, NULL, &inode), -EUCLEAN);
	ck_assert_int_eq(ext4_inode_get(v, ino, NULL, &inode), -EUCLEAN);
	ck_assert_int_eq(ext4_vol_close(v), 0);
	fake_free(f);
}
END_TEST

/*
 * Four threads make, fill, touch, change and drop files, a fifth writes times and commits; nothing
 * is lost.
 */
static void *churn(void *arg)
{
	unsigned rnd = (unsigned)(uintptr_t)arg;
	struct ext4_attr attr;

	for (unsigned n = 0; n < 60; n++) {
		struct ext4_inode *inode = testvol_tmpfile(v, S_IFREG | 0600),
				  *root = testvol_root(v);

		ck_assert_int_eq(testvol_fill(inode, 0, 1 + (unsigned)rand_r(&rnd) % 40), 0);
		ext4_touch_write(inode);
		ext4_touch_read(root);
		ext4_getattr(inode, &attr);
		attr.mode = 0640;
		ck_assert_int_eq(ext4_setattr(rand_r(&rnd) % 2 ? inode : root,
					      EXT4_SET_MODE | EXT4_SET_MTIME_NOW, &attr),
				 0);
		ext4_inode_put(root);
		if (rand_r(&rnd) % 2)
			ext4_touch_write(inode);
		ext4_inode_put(inode);
	}
	return NULL;
}

/* A size that no file can have: the largest one can be read, a byte more is damage. */
START_TEST(size_that_no_file_can_have_is_damage)
{
	static const struct { const char *features; unsigned bits; uint64_t size; } t[3] = {
		{ "", 12, (uint64_t)UINT32_MAX << 12 },
		{ "", 10, (uint64_t)UINT32_MAX << 10 },
		{ "-O ^huge_file", 12, (uint64_t)(UINT32_MAX >> 3) << 12 },
	};
	struct ext4_inode *inode;
	char cmd[300];

	snprintf(cmd, sizeof(cmd), "-t ext4 -J size=4 -b %u %s", 1 << t[_i / 2].bits,
		 t[_i / 2].features);
	f = fake_mkfs(32 << 20, cmd);
	ck_assert_ptr_nonnull(f);
	snprintf(cmd, sizeof(cmd), "debugfs -w -R 'write /etc/passwd f' $IMG && "
		 "debugfs -w -R 'sif f size %llu' $IMG",
		 (unsigned long long)t[_i / 2].size + (_i & 1));
	ck_assert_int_eq(fake_run(f, cmd, cmd, sizeof(cmd), true), 0);
	v = testvol_mount(f);
	fdio_log_set_level(0);
	if (_i & 1) {
		ck_assert_int_eq(ext4_inode_get(v, v->first_ino + 1, NULL, &inode), -EUCLEAN);
	} else {
		ck_assert_int_eq(ext4_inode_get(v, v->first_ino + 1, NULL, &inode), 0);
		ck_assert_uint_eq(ext4_inode_size(inode), t[_i / 2].size);
		ext4_inode_put(inode);
	}
	ck_assert_int_eq(ext4_vol_close(v), 0);
	fake_free(f);
}
END_TEST

START_TEST(threads_create_and_delete)
{
	struct ext4_statfs before, after;
	pthread_t t[4];
	uint32_t ino;

	setup((unsigned)_i, &ino);
	ext4_vol_statfs(v, &before);
	for (unsigned n = 0; n < 4; n++)
		ck_assert_int_eq(pthread_create(&t[n], NULL, churn, (void *)(uintptr_t)(n + 1)), 0);
	for (unsigned n = 0; n < 50; n++) {
		ck_assert_int_eq(ext4_vol_write_times(v), 0);
		if (n % 10 == 0)
			ck_assert_int_eq(ext4_vol_sync(v), 0);
	}
	for (unsigned n = 0; n < 4; n++)
		pthread_join(t[n], NULL);
	ck_assert_int_eq(ext4_vol_sync(v), 0);
	ext4_vol_statfs(v, &after);
	ck_assert_uint_eq(after.bfree, before.bfree);
	ck_assert_uint_eq(after.ffree, before.ffree);
	finish();
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ext4: inodes");
	TCase *t = unit_case(s, "inode", 60);
	int n = (int)nr_testvol_shapes;

	fdio_log_set_level(0);
	unit_loop(t, references_keep_inodes, 0, n);
	unit_test(t, upper_part_ends_with_the_inode);
	unit_test(t, cache_gives_up_the_oldest);
	unit_loop(t, times_in_all_encodings, 0, 2);
	unit_loop(t, attributes_survive_a_remount, 0, n);
	unit_loop(t, lazy_times_are_written_in_the_end, 0, n);
	unit_loop(t, cancelled_handle_restores_the_inode, 0, n);
	unit_loop(t, new_inodes_inherit_and_are_placed, 0, n);
	unit_loop(t, orphan_list_in_any_order, 0, 5);
	unit_loop(t, unmount_deletes_what_is_still_open, 0, n);
	unit_test(t, number_is_used_again_with_another_generation);
	unit_test(t, damaged_inodes_are_refused);
	unit_loop(t, size_that_no_file_can_have_is_damage, 0, 6);
	unit_loop(t, threads_create_and_delete, 0, 3);
	return s;
}
