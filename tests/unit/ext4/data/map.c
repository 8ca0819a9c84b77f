/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The extent map in memory: random edits against an array, many runs, and readers beside a writer. */
#include "kit/one_file.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SPACE 20000

/* The map does not load by itself here. */
int x4_map_load(struct x4_inode *i) { (void)i; return -EIO; }

static uint64_t seed;
static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static void empty_map(struct x4_inode *i)
{
	struct x4_map_builder b = { NULL, 0, 0 };

	memset(i, 0, sizeof(*i));
	must(x4_map_builder_publish(&b, i) == 0);
}

/* model[l]: 0 hole, else pblk << 1 | unwritten */
static void model_set(uint64_t *model, const struct x4_ext *x)
{
	for (uint32_t k = 0; k < x->len; k++)
		model[x->lblk + k] = x->state == X4_EXT_HOLE ? 0 : (x->pblk + k) << 1 | (x->state == X4_EXT_UNWRITTEN);
}

static void compare(struct x4_inode *i, const uint64_t *model)
{
	uint32_t l = 0;

	while (l < SPACE) {
		struct x4_ext x;

		must(x4_map_lookup(i, l, &x) == 0);
		must(x.lblk == l);
		must(x.len > 0);
		for (uint32_t k = 0; k < x.len && l + k < SPACE; k++) {
			uint64_t want = x.state == X4_EXT_HOLE ? 0 : (x.pblk + k) << 1 | (x.state == X4_EXT_UNWRITTEN);

			must_msg(model[l + k] == want, "block %u: %llu, not %llu", l + k,
				      (unsigned long long)want, (unsigned long long)model[l + k]);
		}
		if (x.state == X4_EXT_HOLE && (uint64_t)l + x.len < SPACE)
			must_msg(model[l + x.len] != 0, "hole at %u ends early", l);
		l = (uint64_t)x.lblk + x.len > SPACE ? SPACE : x.lblk + x.len;
	}
}

static struct x4_ext random_run(unsigned longest)
{
	struct x4_ext x = { .lblk = rnd() % SPACE, .len = 1 + rnd() % longest };

	if (x.lblk + x.len > SPACE)
		x.len = SPACE - x.lblk;
	x.state = rnd() % 3;
	if (x.state != X4_EXT_HOLE)
		x.pblk = rnd() % 2 ? 1000 + x.lblk : 100000 + rnd() % 1000000;
	return x;
}

START_TEST(random_edits)
{
	static const unsigned longest[] = { 1, 3, 40, 5000 };
	uint64_t *model = calloc(SPACE, sizeof(*model));
	struct x4_inode i;

	seed = 1 + _i * 977;
	empty_map(&i);
	for (unsigned n = 0; n < 12000; n++) {
		struct x4_ext x = random_run(longest[_i]);

		model_set(model, &x);
		x4_map_apply(&i, &x);
		if (n % 1500 == 0)
			compare(&i, model);
	}
	compare(&i, model);
	x4_map_drop(&i);
	epoch_drain();
	free(model);
}
END_TEST

START_TEST(built_and_edited)
{
	uint64_t *model = calloc(SPACE, sizeof(*model));
	struct x4_map_builder b = { NULL, 0, 0 };
	struct x4_inode i;

	seed = 4711;
	memset(&i, 0, sizeof(i));
	for (uint32_t l = 0; l + 1 < SPACE; l += 2) {
		struct x4_ext x = { l, 1, 7000 + 3 * l, X4_EXT_WRITTEN };

		model_set(model, &x);
		must(x4_map_builder_add(&b, &x) == 0);
	}
	must(x4_map_builder_publish(&b, &i) == 0);
	compare(&i, model);
	for (unsigned n = 0; n < 4000; n++) {
		struct x4_ext x = random_run(600);

		model_set(model, &x);
		x4_map_apply(&i, &x);
	}
	compare(&i, model);
	struct x4_ext all = { 0, SPACE, 0, X4_EXT_HOLE };
	memset(model, 0, SPACE * sizeof(*model));
	x4_map_apply(&i, &all);
	compare(&i, model);
	x4_map_drop(&i);
	epoch_drain();
	free(model);
}
END_TEST

START_TEST(ends)
{
	struct x4_inode i;
	struct x4_ext x;

	memset(&i, 0, sizeof(i));
	must(x4_map_lookup(&i, 0, &x) == -EAGAIN);
	empty_map(&i);
	must(x4_map_lookup(&i, 5, &x) == 0);
	must(x.len == UINT32_MAX - 5);
	x4_map_apply(&i, &(struct x4_ext) { UINT32_MAX - 10, 10, 77, X4_EXT_WRITTEN });
	must(x4_map_lookup(&i, UINT32_MAX - 1, &x) == 0);
	must(x.len == 1);
	must(x.pblk == 86);
	must(x4_map_lookup(&i, 0, &x) == 0);
	must(x.state == X4_EXT_HOLE);
	must(x.len == UINT32_MAX - 10);
	x4_map_drop(&i);
	epoch_drain();
}
END_TEST

/* Readers see each block in a state that it had at some time: pblk is always 1000 + lblk, blocks below grown stay mapped. */
struct race { struct x4_inode i; uint32_t grown; bool stop; };

static void *reader(void *arg)
{
	struct race *rc = arg;
	uint64_t s = 12345, bad = 0;

	while (!__atomic_load_n(&rc->stop, __ATOMIC_ACQUIRE)) {
		uint32_t grown = __atomic_load_n(&rc->grown, __ATOMIC_ACQUIRE), l;
		struct x4_ext x;

		s = s * 6364136223846793005ull + 1442695040888963407ull;
		l = grown ? (s >> 33) % grown : 0;
		if (x4_map_lookup(&rc->i, l, &x))
			continue;
		if (x.state != X4_EXT_HOLE && x.pblk != 1000 + (uint64_t)l)
			bad++;
		/* Even blocks are punched and come back; odd ones stay. */
		if (l < grown && l % 2 && x.state == X4_EXT_HOLE)
			bad++;
	}
	return (void *)(uintptr_t)bad;
}

START_TEST(readers_beside_writer)
{
	static struct race rc;
	pthread_t t[2];
	void *bad;

	seed = 99;
	memset(&rc, 0, sizeof(rc));
	empty_map(&rc.i);
	for (unsigned k = 0; k < 2; k++)
		must(pthread_create(&t[k], NULL, reader, &rc) == 0);
	for (uint32_t l = 0; l < 6000; l++) {
		x4_map_apply(&rc.i, &(struct x4_ext) { l, 1, 1000 + l, l % 3 ? X4_EXT_WRITTEN : X4_EXT_UNWRITTEN });
		__atomic_store_n(&rc.grown, l + 1, __ATOMIC_RELEASE);
		for (unsigned k = 0; k < 3; k++) {
			uint32_t even = rnd() % (l + 1) & ~1u;

			if (rnd() % 2)
				x4_map_apply(&rc.i, &(struct x4_ext) { even, 1, 0, X4_EXT_HOLE });
			else
				x4_map_apply(&rc.i, &(struct x4_ext) { even, 1, 1000 + even, X4_EXT_WRITTEN });
		}
	}
	__atomic_store_n(&rc.stop, true, __ATOMIC_RELEASE);
	for (unsigned k = 0; k < 2; k++) {
		must(pthread_join(t[k], &bad) == 0);
		must((uintptr_t)bad == 0);
	}
	x4_map_drop(&rc.i);
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
