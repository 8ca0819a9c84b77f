/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of transport/deal.c: when the requests of a queue are dealt out to two loops. No
 * thread, no kernel.
 */
#include "transport/types.h"
#include "kit/runner.h"

#include <stdlib.h>
#include <string.h>

static struct transport_deal d;
static bool on;
static unsigned changes;

static void setup(void)
{
	memset(&d, 0, sizeof(d));
	on = false;
	changes = 0;
}

/* So many requests come while each time so many are being served. */
static void live(unsigned requests, unsigned mine, unsigned other)
{
	for (unsigned i = 0; i < requests; i++) {
		if (!transport_deal_due(&d))
			continue;
		bool now = transport_deal_sample(&d, on, mine, other);
		changes += now != on;
		on = now;
	}
}

START_TEST(deep_queue_alone)
{
	live(10000, 20, 0);
	ck_assert(on);
	ck_assert_uint_eq(changes, 1);
}
END_TEST

START_TEST(begins_soon)
{
	live(256, 20, 0);
	ck_assert(on);
}
END_TEST

START_TEST(clients_that_wait)
{
	for (unsigned n = 1; n <= 5; n++)
		live(10000, n, 0);
	ck_assert(!on);
	ck_assert_uint_eq(changes, 0);
}
END_TEST

START_TEST(two_deep_queues)
{
	live(10000, 20, 20);
	ck_assert(!on);
	live(10000, 24, 4);
	ck_assert(!on);
}
END_TEST

START_TEST(ends_when_shallow)
{
	live(1000, 20, 0);
	ck_assert(on);
	live(256, 1, 0);
	ck_assert(!on);
}
END_TEST

START_TEST(ends_when_the_helper_is_busy)
{
	live(1000, 20, 0);
	ck_assert(on);
	live(256, 20, 12);
	ck_assert(!on);
}
END_TEST

/* Between the two limits it stays as it is. */
START_TEST(does_not_go_to_and_fro)
{
	live(10000, 4, 0);
	ck_assert(!on);
	live(1000, 20, 0);
	live(10000, 4, 0);
	ck_assert(on);
	live(10000, 16, 4);
	ck_assert(on);
	ck_assert_uint_eq(changes, 1);
}
END_TEST

START_TEST(one_deep_moment)
{
	live(8 * 15, 1, 0);
	live(8, 32, 0);
	live(1000, 1, 0);
	ck_assert_uint_eq(changes, 0);
}
END_TEST

/* A part of any number of slots, and never the only one. */
START_TEST(slots)
{
	unsigned n = 0;

	ck_assert(!transport_deal_slot(0));
	for (uint32_t s = 0; s < 64; s++)
		n += transport_deal_slot(s);
	ck_assert_uint_eq(n, 24);
	ck_assert(transport_deal_slot(1));
}
END_TEST

static bool is_one(uint32_t opcode, uint32_t size, uint32_t flags)
{
	struct fuse_read_in read = { .size = size, .flags = flags };
	struct message_in in = { .header.opcode = opcode,
				 .arg = opcode == FUSE_READ ? &read : NULL };

	return transport_deal_is_readahead(&in);
}

START_TEST(large_reads_for_a_page_cache)
{
	ck_assert(is_one(FUSE_READ, 1 << 20, O_RDONLY));
	ck_assert(is_one(FUSE_READ, 128 << 10, O_RDWR | O_APPEND));
	ck_assert(!is_one(FUSE_READ, 127 << 10, O_RDONLY));
	ck_assert(!is_one(FUSE_READ, 1 << 20, O_RDONLY | O_DIRECT));
	ck_assert(!is_one(FUSE_GETATTR, 1 << 20, O_RDONLY));
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("transport: deal");
	TCase *t = unit_case(s, "deal", 60);

	tcase_add_checked_fixture(t, setup, NULL);
	unit_test(t, deep_queue_alone);
	unit_test(t, begins_soon);
	unit_test(t, clients_that_wait);
	unit_test(t, two_deep_queues);
	unit_test(t, ends_when_shallow);
	unit_test(t, ends_when_the_helper_is_busy);
	unit_test(t, does_not_go_to_and_fro);
	unit_test(t, one_deep_moment);
	unit_test(t, slots);
	unit_test(t, large_reads_for_a_page_cache);
	return s;
}
