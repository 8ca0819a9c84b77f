/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who gets the last blocks. If only the blocks kept for root and for metadata are left, every
 * operation that allocates fails for an ordinary user with -ENOSPC and changes nothing, and works
 * for root, as in the kernel. Before -ENOSPC, freed blocks and deletions that are under way are
 * waited for; files that are still open are not. And two rules of the search for blocks on a volume
 * that is nearly full.
 */
#include "kit/volume.h"

#include "base/log.h"
#include "ext4/data/extent.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define PLAIN 3 /* no checksums: an attribute block can be shared by hand */
#define ACL_ENTRIES 60u

static struct fake_dev *f;
static struct ext4_vol *v;
static struct ext4_inode *top, *dir, *file, *filler;
static uint64_t held[16];
static unsigned nr_held;
static const struct ext4_credentials user = { .uid = 1000, .gid = 1000 },
				     root = { .cap_fsetid = true, .root = true };

/* A default ACL, too large for an inode, that allows named users everything. Returns its size. */
static size_t large_acl(uint8_t *p)
{
	static const uint16_t tags[] = { 0x01, 0x02, 0x04, 0x10, 0x20 };
	uint32_t id = 2000, none = UINT32_MAX, version = 2;
	size_t at = 4;

	memcpy(p, &version, 4);
	for (unsigned n = 0; n < ACL_ENTRIES; n++) {
		unsigned k = n == 0 ? 0 : n < ACL_ENTRIES - 3 ? 1 : n - (ACL_ENTRIES - 5);
		uint16_t perm = 7;

		memcpy(p + at, &tags[k], 2);
		memcpy(p + at + 2, &perm, 2);
		memcpy(p + at + 4, k == 1 ? &id : &none, 4);
		id += k == 1;
		at += 8;
	}
	return at;
}

static int make(struct ext4_inode *d, const char *name, uint32_t mode,
		const struct ext4_credentials *credentials)
{
	struct ext4_inode *inode;
	int err = ext4_create(d, name, (unsigned)strlen(name), mode, 0, credentials, &inode);

	if (!err)
		ext4_inode_put(inode);
	return err;
}

/* A symbolic link whose target needs a block. */
static int slow_link(const char *name, const struct ext4_credentials *credentials)
{
	char target[200];
	struct ext4_inode *inode;
	int err;

	memset(target, 't', sizeof(target));
	err = ext4_symlink(top, name, (unsigned)strlen(name), target, sizeof(target), credentials,
			   &inode);
	if (!err)
		ext4_inode_put(inode);
	return err;
}

/* Takes all blocks that users may have. */
static void fill(void)
{
	uint32_t at = 0, step = 1000;

	while (step) {
		if (testvol_fill(filler, at, step))
			step /= 2;
		else
			at += step;
	}
	/* Filling a file leaves a few blocks, which its extent tree might have needed. */
	for (nr_held = 0; nr_held < ARRAY_SIZE(held); nr_held++) {
		uint32_t n;

		if (ext4_blocks_reserve(v, NULL, 0, 1, false, &held[nr_held], &n))
			break;
	}
	ck_assert_uint_lt(nr_held, ARRAY_SIZE(held));
}

static void setup(unsigned shape)
{
	uint8_t acl[4 + 8 * ACL_ENTRIES];
	size_t len = large_acl(acl);

	f = testvol_shape(shape);
	v = testvol_mount(f);
	top = testvol_root(v);
	ck_assert_int_eq(ext4_create(top, "dir", 3, S_IFDIR | 0777, 0, &root, &dir), 0);
	ck_assert_int_eq(ext4_xattr_set(dir, "system.posix_acl_default", acl, len, 0, 0), 0);
	ck_assert_int_eq(ext4_create(top, "file", 4, S_IFREG | 0666, 0, &root, &file), 0);
	ck_assert_int_eq(ext4_create(top, "filler", 6, S_IFREG | 0666, 0, &root, &filler), 0);
}

static void drop(void)
{
	while (nr_held)
		ext4_blocks_unreserve(v, held[--nr_held], 1);
	ext4_inode_put(top);
	ext4_inode_put(dir);
	ext4_inode_put(file);
	ext4_inode_put(filler);
	top = dir = file = filler = NULL;
}

static void finish(void)
{
	ck_assert_uint_eq(v->alloc.metadata_held, 0);
	drop();
	testvol_check_groups(v);
	testvol_unmount_check(v, f);
	fake_free(f);
}

START_TEST(create_needs_blocks_for_users)
{
	struct ext4_inode *inode;

	setup((unsigned)_i);
	fill();
	ck_assert_int_eq(make(top, "d", S_IFDIR | 0777, &user), -ENOSPC);
	ck_assert_int_eq(make(top, "d", S_IFDIR | 0777, &root), 0);
	ck_assert_int_eq(slow_link("l", &user), -ENOSPC);
	ck_assert_int_eq(slow_link("l", &root), 0);
	/* A file whose inherited ACL takes a block. */
	ck_assert_int_eq(make(dir, "f", S_IFREG | 0666, &user), -ENOSPC);
	ck_assert_int_eq(make(dir, "f", S_IFREG | 0666, &root), 0);
	ck_assert_int_eq(ext4_tmpfile(dir, S_IFREG | 0666, &user, &inode), -ENOSPC);
	ck_assert_int_eq(ext4_tmpfile(dir, S_IFREG | 0666, &root, &inode), 0);
	ext4_inode_put(inode);
	/* A file that takes no block can be created by everybody. */
	ck_assert_int_eq(make(top, "f", S_IFREG | 0666, &user), 0);
	finish();
}
END_TEST

/* A directory grows by links, by new files and by a rename. */
START_TEST(directory_growth_needs_blocks_for_users)
{
	char name[200];
	unsigned made = 0;
	int err = 0;

	setup((unsigned)_i);
	fill();
	memset(name, 'n', sizeof(name));
	while (!err) {
		snprintf(name + 190, 10, "%u", made);
		err = ext4_link(top, name, 190 + (unsigned)strlen(name + 190), file, false);
		made += !err;
	}
	ck_assert_int_eq(err, -ENOSPC);
	ck_assert_uint_gt(made, 2);
	ck_assert_int_eq(ext4_rename(top, "file", 4, top, name, 190 + (unsigned)strlen(name + 190),
				     0, &user),
			 -ENOSPC);
	ck_assert_int_eq(make(top, name, S_IFREG | 0666, &user), -ENOSPC);
	ck_assert_int_eq(ext4_rename(top, "file", 4, top, name, 190 + (unsigned)strlen(name + 190),
				     0, &root),
			 0);
	for (unsigned n = 0; n < 100; n++) {
		snprintf(name + 190, 10, "more%u", n);
		ck_assert_int_eq(ext4_link(top, name, 190 + (unsigned)strlen(name + 190), file,
					   true),
				 0);
	}
	finish();
}
END_TEST

START_TEST(attributes_need_blocks_for_users)
{
	char value[600];

	setup((unsigned)_i);
	fill();
	memset(value, 'v', sizeof(value));
	ck_assert_int_eq(ext4_xattr_set(file, "user.v", value, sizeof(value), 0, 0), -ENOSPC);
	ck_assert_int_eq(ext4_xattr_set(file, "user.v", value, sizeof(value), 0, EXT4_XATTR_ROOT),
			 0);
	/* The attribute has its block now: changing its value takes no other. */
	value[0] = 'w';
	ck_assert_int_eq(ext4_xattr_set(file, "user.v", value, sizeof(value), 0, 0), 0);
	ck_assert_int_eq(ext4_xattr_remove(file, "user.v"), 0);
	finish();
}
END_TEST

/* The attribute block of a becomes b's as well. */
static void share_block(struct ext4_inode *a, struct ext4_inode *b)
{
	struct journal_handle *handle;
	struct journal_buffer *buf;

	ck_assert_int_eq(journal_begin(v->journal, 4, &handle), 0);
	ck_assert_int_eq(journal_read_block(v->journal, a->raw->i_file_acl, &buf), 0);
	ck_assert_int_eq(journal_get_write(handle, buf), 0);
	((struct ext2_ext_attr_header *)(void *)buf->data)->h_refcount = 2;
	ck_assert_int_eq(ext4_inode_begin(handle, b), 0);
	b->raw->i_file_acl = a->raw->i_file_acl;
	ck_assert_int_eq(ext4_raw_add_blocks(b, 1), 0);
	ck_assert_int_eq(ext4_inode_dirty(handle, b, true), 0);
	journal_end(handle);
	journal_buffer_release(buf);
}

/*
 * An access ACL and another attribute in a block that two files have: who changes one of them needs
 * a copy.
 */
START_TEST(changing_a_shared_attribute_block_needs_a_copy)
{
	struct ext4_attr mode = { .mode = 0640 };
	uint8_t acl[4 + 8 * ACL_ENTRIES];
	size_t len = large_acl(acl);
	struct ext4_inode *inode;

	setup(PLAIN);
	ck_assert_int_eq(ext4_xattr_set(file, "system.posix_acl_access", acl, len, 0, 0), 0);
	ck_assert_int_eq(ext4_xattr_set(file, "security.capability", acl, 300, 0, 0), 0);
	ck_assert_int_eq(ext4_create(top, "a", 1, S_IFREG | 0666, 0, &root, &inode), 0);
	share_block(file, inode);
	fill();
	ck_assert_int_eq(ext4_setattr(inode, EXT4_SET_MODE, &mode), -ENOSPC);
	ck_assert_uint_eq(ext4_inode_mode(inode) & 0777, 0666);
	ck_assert_int_eq(ext4_setattr(inode, EXT4_SET_MODE | EXT4_BY_ROOT, &mode), 0);
	ck_assert_uint_eq(ext4_inode_mode(inode) & 0777, 0640);
	ck_assert_uint_ne(inode->raw->i_file_acl, file->raw->i_file_acl);
	ext4_inode_put(inode);
	finish();
}
END_TEST

/* Removing an attribute works for everybody, and so does a write, which removes capabilities. */
START_TEST(removing_attributes_always_works)
{
	static const struct ext4_attr none;
	struct ext4_inode *inode;
	char value[600];

	setup(PLAIN);
	memset(value, 'v', sizeof(value));
	ck_assert_int_eq(ext4_xattr_set(file, "user.a", value, sizeof(value), 0, 0), 0);
	ck_assert_int_eq(ext4_xattr_set(file, "user.b", value, sizeof(value), 0, 0), 0);
	ck_assert_int_eq(ext4_xattr_set(file, "security.capability", value, 300, 0, 0), 0);
	ck_assert_int_eq(ext4_create(top, "a", 1, S_IFREG | 0666, 0, &root, &inode), 0);
	share_block(file, inode);
	fill();
	if (_i)
		ck_assert_int_eq(ext4_setattr(inode, EXT4_KILL_CAPS, &none), 0);
	else
		ck_assert_int_eq(ext4_xattr_remove(inode, "user.a"), 0);
	ck_assert_uint_ne(inode->raw->i_file_acl, file->raw->i_file_acl);
	ext4_inode_put(inode);
	finish();
}
END_TEST

/* Blocks that are set aside out of those kept for metadata do not give others -ENOSPC. */
START_TEST(reserved_for_a_moment_is_no_enospc)
{
	uint64_t blk;
	uint32_t n;

	setup(2);
	fill();
	ck_assert_uint_gt(v->alloc.kept_for_metadata, 20);
	ck_assert_int_eq(ext4_metadata_reserve(v, 10, EXT4_REQUESTER_SYSTEM), 0);
	ck_assert_int_eq(ext4_blocks_reserve(v, NULL, 0, 1, false, &blk, &n), -ENOSPC);
	ext4_blocks_unreserve(v, held[--nr_held], 1);
	ck_assert_int_eq(ext4_blocks_reserve(v, NULL, 0, 1, false, &blk, &n), 0);
	held[nr_held++] = blk;
	/* Root and the system cannot take blocks that are set aside. */
	while (!ext4_metadata_reserve(v, 1, EXT4_REQUESTER_SYSTEM))
		;
	ck_assert_uint_eq(v->alloc.metadata_held, v->alloc.free_blocks);
	ck_assert_int_eq(ext4_blocks_reserve(v, NULL, 0, 1, true, &blk, &n), -ENOSPC);
	ext4_metadata_unreserve(v, (unsigned)v->alloc.metadata_held);
	finish();
}
END_TEST

/* A thread that shortens the filler block by block until *stop. */
static void *shorten(void *arg)
{
	const struct timespec nap = { .tv_nsec = 50000 };
	bool *stop = arg;

	for (uint32_t n = 0; n < 4000 && !__atomic_load_n(stop, __ATOMIC_RELAXED); n++) {
		ext4_inode_lock_exclusive(filler);
		(void)ext4_truncate(filler, ext4_inode_size(filler) - v->block_size);
		ext4_inode_unlock(filler);
		nanosleep(&nap, NULL);
	}
	__atomic_store_n(stop, true, __ATOMIC_RELAXED);
	return NULL;
}

static uint64_t pending(void)
{
	uint64_t n;

	fdio_mutex_lock(&v->alloc.lock);
	n = v->alloc.pending_free;
	fdio_mutex_unlock(&v->alloc.lock);
	return n;
}

/*
 * Takes everything that is free, again and again, while another thread frees: as long as freed
 * blocks are still to be given back, a reservation waits for them and does not get -ENOSPC.
 */
START_TEST(no_enospc_while_blocks_come_back)
{
	unsigned rounds = 0;
	static uint64_t blk[4000];
	uint64_t room;
	static uint32_t len[4000];
	uint32_t nr = 0;
	bool stop = false;
	pthread_t t;

	setup(2);
	fill();
	ck_assert_int_eq(pthread_create(&t, NULL, shorten, &stop), 0);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED) && rounds < 40) {
		while ((room = ext4_blocks_available(v, false)) > 0) {
			ck_assert_int_eq(ext4_blocks_reserve(v, NULL, 0, (uint32_t)room, false,
							     &blk[nr], &len[nr]),
					 0);
			nr++;
		}
		if (!pending())
			continue;
		ck_assert_int_eq(ext4_blocks_reserve(v, NULL, 0, 1, false, &blk[nr], &len[nr]), 0);
		nr++;
		rounds++;
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
	ck_assert_uint_gt(rounds, 5);
	while (nr--)
		ext4_blocks_unreserve(v, blk[nr], len[nr]);
	finish();
}
END_TEST

/*
 * Hook of the device: while bitmap, a byte of the device, is read, and alloc.lock is dropped for
 * it, it takes the n blocks at blk, the best run of the search so far.
 */
struct taker { uint64_t bitmap, blk; uint32_t n, got; };

static void take_meanwhile(void *arg, enum fake_kind kind, uint64_t off, uint64_t len,
			   unsigned flags, bool after)
{
	struct taker *taker = arg;
	uint64_t blk;

	(void)flags;
	if (kind != FAKE_READ || after || taker->got || off > taker->bitmap ||
	    off + len <= taker->bitmap)
		return;
	ck_assert_int_eq(ext4_blocks_reserve(v, NULL, taker->blk, taker->n, true, &blk,
					     &taker->got),
			 0);
	ck_assert_uint_eq(blk, taker->blk);
	ck_assert_uint_eq(taker->got, taker->n);
}

/* Frees the blocks [blk, blk + n), which belong to one extent of the filler. */
static void punch(uint64_t blk, uint32_t n)
{
	struct ext4_extent extent;

	for (uint32_t at = 0; ext4_map_lookup_load(filler, at, &extent) == 0 &&
			      ext4_extent_end(&extent) < UINT32_MAX;
	     at = (uint32_t)ext4_extent_end(&extent))
		if (extent.state != EXT4_EXTENT_HOLE && extent.pblk <= blk &&
		    blk + n <= extent.pblk + extent.len) {
			uint64_t off = (uint64_t)(extent.lblk + (blk - extent.pblk))
				       << v->block_bits;

			ext4_inode_lock_exclusive(filler);
			ck_assert_int_eq(ext4_fallocate(filler,
							EXT4_FALLOC_PUNCH_HOLE |
									EXT4_FALLOC_KEEP_SIZE,
							off, (uint64_t)n << v->block_bits, true),
					 0);
			ext4_inode_unlock(filler);
			return;
		}
	ck_abort_msg("block %llu is not the file's", (unsigned long long)blk);
}

/*
 * One group has a run of ten free blocks, the next only single ones, so a search for sixteen looks
 * at both. The run is taken while the second bitmap is read: the search must not give it out again.
 */
START_TEST(longest_run_is_found)
{
	struct taker taker = { .n = 10 };
	uint64_t blk;
	uint32_t n;

	setup(2);
	v->alloc.kept_for_metadata = v->alloc.kept_for_root = 0;
	fill();
	ext4_inode_lock_exclusive(filler);
	/* blocks for the extent tree, which punching holes makes larger */
	ck_assert_int_eq(ext4_truncate(filler, ext4_inode_size(filler) - 8 * v->block_size), 0);
	ext4_inode_unlock(filler);
	taker.blk = ext4_group_start(v, 2) + 1500;
	punch(taker.blk, taker.n);
	for (unsigned k = 0; k < 30; k++) {
		punch(taker.blk + 100 + 2 * k, 1);
		punch(ext4_group_start(v, 3) + 1500 + 2 * k, 1);
	}
	drop();
	ck_assert_int_eq(ext4_vol_close(v), 0);
	v = testvol_mount(f);
	v->alloc.kept_for_metadata = v->alloc.kept_for_root = 0;
	taker.bitmap = v->alloc.groups[3].block_bitmap << v->block_bits;
	fake_set_hook(f, take_meanwhile, &taker);
	ck_assert_int_eq(ext4_blocks_reserve(v, NULL, 0, 16, true, &blk, &n), 0);
	fake_set_hook(f, NULL, NULL);
	ck_assert_uint_eq(taker.got, taker.n);
	ck_assert(blk + n <= taker.blk || blk >= taker.blk + taker.n);
	ext4_blocks_unreserve(v, blk, n);
	ext4_blocks_unreserve(v, taker.blk, taker.n);
	finish();
}
END_TEST

static unsigned asked;
static struct ext4_inode *forgotten;

/*
 * Stands for the kernel: it holds every inode while forgotten is NULL. Otherwise it holds none, and
 * its FORGET of forgotten arrives at the third question.
 */
static bool kernel_has(void *arg, uint32_t ino)
{
	ck_assert_ptr_eq(arg, v);
	asked++;
	if (!forgotten)
		return true;
	ck_assert_uint_eq(ino, forgotten->ino);
	if (asked == 3) {
		ext4_lookups_sub(forgotten, 1);
		ext4_inode_put(forgotten);
	}
	return false;
}

START_TEST(forgotten_files_are_waited_for)
{
	uint64_t since, begun;
	struct ext4_inode *inode;

	setup(2);
	inode = testvol_tmpfile(v, S_IFREG | 0600);
	ext4_vol_set_held(v, kernel_has, v);
	since = ext4_evictions(v);
	/* The kernel does not know the inode: there is nothing to ask and nothing to wait for. */
	ck_assert(!ext4_space_has_come(v, -ENOSPC, &since));
	ck_assert_uint_eq(asked, 0);
	/* The kernel holds it: one question, and no wait. */
	ext4_lookups_add(inode, 1);
	ck_assert(!ext4_space_has_come(v, -ENOSPC, &since));
	ck_assert_uint_eq(asked, 1);
	/* It was closed just now: the kernel may still hold it until it has seen the answer. */
	asked = 0;
	ext4_open_count_add(inode, 1);
	ext4_open_count_add(inode, -1);
	begun = fdio_now_ns();
	ck_assert(!ext4_space_has_come(v, -ENOSPC, &since));
	ck_assert_uint_gt(fdio_now_ns() - begun, 200000000);
	ck_assert_uint_eq(asked, 1);
	/* The kernel does not hold it any more: its FORGET is waited for. */
	asked = 0;
	forgotten = inode;
	ck_assert(ext4_space_has_come(v, -ENOSPC, &since));
	ck_assert_uint_eq(asked, 3);
	finish();
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ext4: last blocks");
	TCase *t = unit_case(s, "space", 30);

	fdio_log_set_level(0);
	unit_loop(t, create_needs_blocks_for_users, 2, 4);
	unit_loop(t, directory_growth_needs_blocks_for_users, 2, 4);
	unit_loop(t, attributes_need_blocks_for_users, 2, 4);
	unit_test(t, changing_a_shared_attribute_block_needs_a_copy);
	unit_loop(t, removing_attributes_always_works, 0, 2);
	unit_test(t, reserved_for_a_moment_is_no_enospc);
	unit_test(t, no_enospc_while_blocks_come_back);
	unit_test(t, forgotten_files_are_waited_for);
	unit_test(t, longest_run_is_found);
	return s;
}
