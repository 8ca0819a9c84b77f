/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The cache of inodes: references, the private part of the layer above, eviction, numbers that are
 * used again, and inodes that are refused because they are damaged. Runs on the test's thread.
 */
#include "one_file.h"

#include "base/log.h"
#include "ext4/inode/inode_cache.h"
#include "ext4/inode/inode_change.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/*
 * All references to one inode share it. A wrong generation is -ESTALE; numbers that are reserved,
 * unused or outside the volume are -ENOENT.
 */
START_TEST(references_keep_inodes)
{
	struct ext4_inode *a, *b;
	uint32_t ino, gen;

	one_file_mount((unsigned)_i, &ino);
	ck_assert_ptr_null(ext4_inode_get_cached(vol, ino));
	ck_assert_int_eq(ext4_inode_get(vol, ino, NULL, &a), 0);
	gen = ext4_inode_gen(a);
	ck_assert_int_eq(ext4_inode_get(vol, ino, &gen, &b), 0);
	ck_assert_ptr_eq(a, b);
	ext4_inode_put(b);
	b = ext4_inode_get_cached(vol, ino);
	ck_assert_ptr_eq(a, b);
	ext4_inode_ref(b);
	ext4_inode_put_many(b, 2);
	gen++;
	ck_assert_int_eq(ext4_inode_get(vol, ino, &gen, &b), -ESTALE);
	ext4_inode_put(a);
	ck_assert_int_eq(ext4_inode_get(vol, 0, NULL, &b), -ENOENT);
	ck_assert_int_eq(ext4_inode_get(vol, 8, NULL, &b), -ENOENT);
	ck_assert_int_eq(ext4_inode_get(vol, vol->nr_inodes + 1, NULL, &b), -ENOENT);
	ck_assert_int_eq(ext4_inode_get(vol, UINT32_MAX, NULL, &b), -ENOENT);
	ck_assert_int_eq(ext4_inode_get(vol, vol->nr_inodes, NULL, &b), -ENOENT);
	one_file_end();
}
END_TEST

static unsigned destroyed; /* the sum of what the destructor was called with */
static void destroy(void *upper) { destroyed += *(unsigned *)upper; }

/* What the layer above attached first stays, and is destroyed when the inode leaves the cache. */
START_TEST(upper_part_ends_with_the_inode)
{
	unsigned one = 1, two = 2;
	struct ext4_inode *inode;
	uint32_t ino;

	one_file_mount(0, &ino);
	destroyed = 0;
	ck_assert_int_eq(ext4_inode_get(vol, ino, NULL, &inode), 0);
	ck_assert_ptr_null(ext4_inode_upper(inode));
	ck_assert_ptr_eq(ext4_inode_set_upper(inode, &one, destroy), &one);
	ck_assert_ptr_eq(ext4_inode_set_upper(inode, &two, destroy), &one);
	ck_assert_ptr_eq(ext4_inode_upper(inode), &one);
	ext4_inode_put(inode);
	ck_assert_uint_eq(destroyed, 0);
	one_file_end();
	ck_assert_uint_eq(destroyed, 1);
}
END_TEST

/*
 * More inodes than the bound are used: the cache keeps no more than lru_max unreferenced ones,
 * but orphans stay.
 */
START_TEST(cache_gives_up_the_oldest)
{
	struct ext4_inode *inode, *kept[20];
	uint32_t ino;

	one_file_mount(0, &ino);
	vol->inode.lru_max = 10;
	for (unsigned n = 0; n < 20; n++)
		kept[n] = testvol_tmpfile(vol, S_IFREG | 0600);
	/* A link, in memory only: the last put does not delete them; orphans are not dropped. */
	for (unsigned n = 0; n < 20; n++)
		ext4_raw_set_nlink(kept[n], 1);
	for (unsigned n = 0; n < 20; n++)
		ext4_inode_put(kept[n]);
	ck_assert_uint_ge(vol->inode.nr_cached, 20);
	for (unsigned n = 0; n < 20; n++) {
		inode = ext4_inode_get_cached(vol, kept[n]->ino);
		ck_assert_ptr_eq(inode, kept[n]);
		ext4_raw_set_nlink(inode, 0);
		ext4_inode_put(inode);
	}
	ck_assert_uint_le(vol->inode.lru_len, 10);
	for (uint32_t n = 3; n < vol->first_ino; n++)
		if (n != 8 && !ext4_inode_get_special(vol, n, &inode)) {
			inode->nlink = 1;
			ext4_inode_put(inode);
		}
	ck_assert_uint_le(vol->inode.lru_len, 10);
	one_file_end();
}
END_TEST

/*
 * The number of a deleted inode is used again at once, in the same transaction, with another
 * generation. The old number and generation together find nothing.
 */
START_TEST(number_is_used_again_with_another_generation)
{
	struct ext4_inode *inode;
	uint32_t ino, gen, first = 0, same = 0;

	one_file_mount(0, &ino);
	for (unsigned n = 0; n < 50; n++) {
		inode = testvol_tmpfile(vol, S_IFREG | 0600);
		if (!n)
			first = inode->ino;
		ck_assert_uint_eq(inode->ino, first);
		same += n && gen == inode->gen;
		gen = inode->gen;
		ext4_touch_write(inode); /* on the list of lazy times when it is deleted */
		ext4_inode_put(inode);
		ck_assert_int_eq(ext4_inode_get(vol, first, &gen, &inode), -ENOENT);
		if (n == 25)
			ck_assert_int_eq(ext4_vol_write_times(vol), 0);
	}
	ck_assert_uint_le(same, 1);
	one_file_end();
}
END_TEST

/* An inode whose checksum is wrong is -EUCLEAN, and is not cached. */
START_TEST(damaged_inodes_are_refused)
{
	struct ext4_inode *inode;
	uint32_t ino, off;
	uint64_t blk;
	uint8_t byte;

	one_file_mount(0, &ino);
	blk = ext4_itable_place(vol, ino, &off);
	fake_peek(fake, &byte, 1, (blk << vol->block_bits) + off + 50);
	byte ^= 1;
	fake_poke(fake, &byte, 1, (blk << vol->block_bits) + off + 50);
	ck_assert_int_eq(ext4_inode_get(vol, ino, NULL, &inode), -EUCLEAN);
	ck_assert_int_eq(ext4_inode_get(vol, ino, NULL, &inode), -EUCLEAN);
	ck_assert_int_eq(ext4_vol_close(vol), 0);
	fake_free(fake);
}
END_TEST

/* An inode of the largest size that its block numbers allow can be read; a byte more is damage. */
START_TEST(size_that_no_file_can_have_is_damage)
{
	static const struct limit {
		const char *features;
		unsigned bits;
		uint64_t size;
	} limits[3] = {
		{ "", 12, (uint64_t)UINT32_MAX << 12 },
		{ "", 10, (uint64_t)UINT32_MAX << 10 },
		{ "-O ^huge_file", 12, (uint64_t)(UINT32_MAX >> 3) << 12 },
	};
	const struct limit *limit = &limits[_i / 2];
	bool beyond = _i & 1;
	struct ext4_inode *inode;
	char cmd[300], out[1024], *told;
	unsigned ino;

	snprintf(cmd, sizeof(cmd), "-t ext4 -J size=4 -b %u %s", 1 << limit->bits, limit->features);
	fake = fake_mkfs(32 << 20, cmd);
	ck_assert_ptr_nonnull(fake);
	snprintf(cmd, sizeof(cmd), "debugfs -w -R 'write /etc/passwd f' $IMG && "
		 "debugfs -w -R 'sif f size %llu' $IMG && debugfs -R 'stat f' $IMG 2>/dev/null",
		 (unsigned long long)limit->size + beyond);
	ck_assert_int_eq(fake_run(fake, cmd, out, sizeof(out), true), 0);
	told = strstr(out, "Inode: ");
	ck_assert(told && sscanf(told, "Inode: %u", &ino) == 1);
	vol = testvol_mount(fake);
	fdio_log_set_level(0);
	if (beyond) {
		ck_assert_int_eq(ext4_inode_get(vol, ino, NULL, &inode), -EUCLEAN);
	} else {
		ck_assert_int_eq(ext4_inode_get(vol, ino, NULL, &inode), 0);
		ck_assert_uint_eq(ext4_inode_size(inode), limit->size);
		ext4_inode_put(inode);
	}
	ck_assert_int_eq(ext4_vol_close(vol), 0);
	fake_free(fake);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *suite = suite_create("ext4: cache of inodes");
	TCase *tests = unit_case(suite, "inode", 60);
	int nr = (int)nr_testvol_shapes;

	fdio_log_set_level(0); /* damage would be logged */
	unit_loop(tests, references_keep_inodes, 0, nr);
	unit_test(tests, upper_part_ends_with_the_inode);
	unit_test(tests, cache_gives_up_the_oldest);
	unit_test(tests, number_is_used_again_with_another_generation);
	unit_test(tests, damaged_inodes_are_refused);
	unit_loop(tests, size_that_no_file_can_have_is_damage, 0, 6);
	return suite;
}
