/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The extent map in memory, without a volume. Proves that lookups agree with an array after random
 * edits, for maps of few runs and of many, and at the ends of the block numbers; and that readers
 * without a lock, beside one writer, see each block only in states that it had.
 */
#include "kit/one_file.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SPACE 20000

/* Replaces the loader of the data room: here the test itself publishes each map. */
int ext4_map_load(struct ext4_inode *inode) { (void)inode; return -EIO; }

static uint64_t seed;
static uint64_t next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static void empty_map(struct ext4_inode *inode)
{
	struct ext4_map_builder builder = { NULL, 0, 0 };

	memset(inode, 0, sizeof(*inode));
	must(ext4_map_builder_publish(&builder, inode) == 0);
}

/* How the model holds the k-th block of an extent: 0 for a hole, else pblk << 1 | unwritten. */
static uint64_t model_value(const struct ext4_extent *extent, uint32_t k)
{
	if (extent->state == EXT4_EXTENT_HOLE)
		return 0;
	return (extent->pblk + k) << 1 | (extent->state == EXT4_EXTENT_UNWRITTEN);
}

static void model_set(uint64_t *model, const struct ext4_extent *extent)
{
	for (uint32_t k = 0; k < extent->len; k++)
		model[extent->lblk + k] = model_value(extent, k);
}

/* Each lookup agrees with the model, and a hole is reported in its whole length. */
static void compare(struct ext4_inode *inode, const uint64_t *model)
{
	uint32_t l = 0;

	while (l < SPACE) {
		struct ext4_extent extent;

		must(ext4_map_lookup(inode, l, &extent) == 0);
		must(extent.lblk == l);
		must(extent.len > 0);
		for (uint32_t k = 0; k < extent.len && l + k < SPACE; k++) {
			uint64_t value = model_value(&extent, k);

			must_msg(model[l + k] == value, "block %u: %llu, not %llu", l + k,
				 (unsigned long long)value, (unsigned long long)model[l + k]);
		}
		if (extent.state == EXT4_EXTENT_HOLE && (uint64_t)l + extent.len < SPACE)
			must_msg(model[l + extent.len] != 0, "hole at %u ends early", l);
		l = (uint64_t)extent.lblk + extent.len > SPACE ? SPACE : extent.lblk + extent.len;
	}
}

static struct ext4_extent random_run(unsigned longest)
{
	struct ext4_extent extent = { .lblk = next_random() % SPACE,
				      .len = 1 + next_random() % longest };

	if (extent.lblk + extent.len > SPACE)
		extent.len = SPACE - extent.lblk;
	extent.state = next_random() % 3;
	if (extent.state != EXT4_EXTENT_HOLE)
		extent.pblk = next_random() % 2 ? 1000 + extent.lblk
						: 100000 + next_random() % 1000000;
	return extent;
}

START_TEST(random_edits)
{
	static const unsigned longest[] = { 1, 3, 40, 5000 };
	uint64_t *model = calloc(SPACE, sizeof(*model));
	struct ext4_inode inode;

	seed = 1 + _i * 977;
	empty_map(&inode);
	for (unsigned n = 0; n < 12000; n++) {
		struct ext4_extent extent = random_run(longest[_i]);

		model_set(model, &extent);
		ext4_map_apply(&inode, &extent);
		if (n % 1500 == 0)
			compare(&inode, model);
	}
	compare(&inode, model);
	ext4_map_drop(&inode);
	epoch_drain();
	free(model);
}
END_TEST

/* A map of 10,000 runs built at once, then edited at random, then made one hole. */
START_TEST(built_and_edited)
{
	uint64_t *model = calloc(SPACE, sizeof(*model));
	struct ext4_map_builder builder = { NULL, 0, 0 };
	struct ext4_inode inode;

	seed = 4711;
	memset(&inode, 0, sizeof(inode));
	for (uint32_t l = 0; l + 1 < SPACE; l += 2) {
		struct ext4_extent extent = { l, 1, 7000 + 3 * l, EXT4_EXTENT_WRITTEN };

		model_set(model, &extent);
		must(ext4_map_builder_add(&builder, &extent) == 0);
	}
	must(ext4_map_builder_publish(&builder, &inode) == 0);
	compare(&inode, model);
	for (unsigned n = 0; n < 4000; n++) {
		struct ext4_extent extent = random_run(600);

		model_set(model, &extent);
		ext4_map_apply(&inode, &extent);
	}
	compare(&inode, model);
	struct ext4_extent all = { 0, SPACE, 0, EXT4_EXTENT_HOLE };
	memset(model, 0, SPACE * sizeof(*model));
	ext4_map_apply(&inode, &all);
	compare(&inode, model);
	ext4_map_drop(&inode);
	epoch_drain();
	free(model);
}
END_TEST

/* A map that is not loaded says EAGAIN; the last block numbers work as the first ones do. */
START_TEST(ends)
{
	struct ext4_inode inode;
	struct ext4_extent extent;

	memset(&inode, 0, sizeof(inode));
	must(ext4_map_lookup(&inode, 0, &extent) == -EAGAIN);
	empty_map(&inode);
	must(ext4_map_lookup(&inode, 5, &extent) == 0);
	must(extent.len == UINT32_MAX - 5);
	ext4_map_apply(&inode,
		       &(struct ext4_extent){ UINT32_MAX - 10, 10, 77, EXT4_EXTENT_WRITTEN });
	must(ext4_map_lookup(&inode, UINT32_MAX - 1, &extent) == 0);
	must(extent.len == 1);
	must(extent.pblk == 86);
	must(ext4_map_lookup(&inode, 0, &extent) == 0);
	must(extent.state == EXT4_EXTENT_HOLE);
	must(extent.len == UINT32_MAX - 10);
	ext4_map_drop(&inode);
	epoch_drain();
}
END_TEST

/*
 * The writer maps block after block to 1000 + lblk; blocks below grown have been mapped. It also
 * punches even blocks and maps them again. So a reader never finds another pblk, nor an odd block
 * below grown in a hole.
 */
struct race { struct ext4_inode inode; uint32_t grown; bool stop; };

static void *reader(void *arg)
{
	struct race *race = arg;
	uint64_t s = 12345, bad = 0;

	while (!__atomic_load_n(&race->stop, __ATOMIC_ACQUIRE)) {
		uint32_t grown = __atomic_load_n(&race->grown, __ATOMIC_ACQUIRE), l;
		struct ext4_extent extent;

		s = s * 6364136223846793005ull + 1442695040888963407ull;
		l = grown ? (s >> 33) % grown : 0;
		if (ext4_map_lookup(&race->inode, l, &extent))
			continue;
		if (extent.state != EXT4_EXTENT_HOLE && extent.pblk != 1000 + (uint64_t)l)
			bad++;
		if (l < grown && l % 2 && extent.state == EXT4_EXTENT_HOLE)
			bad++;
	}
	return (void *)(uintptr_t)bad;
}

START_TEST(readers_beside_writer)
{
	static struct race race;
	pthread_t t[2];
	void *bad;

	seed = 99;
	memset(&race, 0, sizeof(race));
	empty_map(&race.inode);
	for (unsigned k = 0; k < 2; k++)
		must(pthread_create(&t[k], NULL, reader, &race) == 0);
	for (uint32_t l = 0; l < 6000; l++) {
		ext4_map_apply(&race.inode, &(struct ext4_extent){ l, 1, 1000 + l,
								 l % 3 ? EXT4_EXTENT_WRITTEN
								       : EXT4_EXTENT_UNWRITTEN });
		__atomic_store_n(&race.grown, l + 1, __ATOMIC_RELEASE);
		for (unsigned k = 0; k < 3; k++) {
			uint32_t even = next_random() % (l + 1) & ~1u;

			if (next_random() % 2)
				ext4_map_apply(&race.inode,
					       &(struct ext4_extent){ even, 1, 0,
								      EXT4_EXTENT_HOLE });
			else
				ext4_map_apply(&race.inode,
					       &(struct ext4_extent){ even, 1, 1000 + even,
								      EXT4_EXTENT_WRITTEN });
		}
	}
	__atomic_store_n(&race.stop, true, __ATOMIC_RELEASE);
	for (unsigned k = 0; k < 2; k++) {
		must(pthread_join(t[k], &bad) == 0);
		must((uintptr_t)bad == 0);
	}
	ext4_map_drop(&race.inode);
	epoch_drain();
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ext4: map");
	TCase *tc = unit_case(s, "map", 60);

	unit_test(tc, ends);
	unit_loop(tc, random_edits, 0, 4);
	unit_test(tc, built_and_edited);
	unit_test(tc, readers_beside_writer);
	return s;
}
