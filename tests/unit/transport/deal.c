/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of transport/deal.c: when the requests of a queue are dealt out to two loops, that is
 * while its own loop has many in service and the other has few. The test feeds the numbers; there
 * is no thread and no kernel.
 */
#include "transport/types.h"
#include "kit/runner.h"

#include <stdlib.h>
#include <string.h>

static struct transport_deal deal;
static bool on;
static unsigned changes;

static void setup(void)
{
	memset(&deal, 0, sizeof(deal));
	on = false;
	changes = 0;
}

/* So many requests come while this loop serves "mine" and the other loop "other" requests. */
static void serve(unsigned requests, unsigned mine, unsigned other)
{
	for (unsigned i = 0; i < requests; i++) {
		if (!transport_deal_due(&deal))
			continue;
		bool now = transport_deal_sample(&deal, on, mine, other);
		changes += now != on;
		on = now;
	}
}

START_TEST(deep_queue_is_dealt_out)
{
	serve(10000, 20, 0);
	ck_assert(on);
	ck_assert_uint_eq(changes, 1);
}
END_TEST

START_TEST(begins_within_256_requests)
{
	serve(256, 20, 0);
	ck_assert(on);
}
END_TEST

START_TEST(few_requests_are_not_dealt_out)
{
	for (unsigned n = 1; n <= 5; n++)
		serve(10000, n, 0);
	ck_assert(!on);
	ck_assert_uint_eq(changes, 0);
}
END_TEST

START_TEST(two_deep_queues_are_not_dealt_out)
{
	serve(10000, 20, 20);
	ck_assert(!on);
	serve(10000, 24, 4);
	ck_assert(!on);
}
END_TEST

START_TEST(ends_when_shallow)
{
	serve(1000, 20, 0);
	ck_assert(on);
	serve(256, 1, 0);
	ck_assert(!on);
}
END_TEST

START_TEST(ends_when_the_helper_is_busy)
{
	serve(1000, 20, 0);
	ck_assert(on);
	serve(256, 20, 12);
	ck_assert(!on);
}
END_TEST

/* Between the two limits dealing stays as it is, on or off. */
START_TEST(does_not_go_to_and_fro)
{
	serve(10000, 4, 0);
	ck_assert(!on);
	serve(1000, 20, 0);
	serve(10000, 4, 0);
	ck_assert(on);
	serve(10000, 16, 4);
	ck_assert(on);
	ck_assert_uint_eq(changes, 1);
}
END_TEST

START_TEST(one_deep_moment_changes_nothing)
{
	serve(8 * 15, 1, 0);
	serve(8, 32, 0);
	serve(1000, 1, 0);
	ck_assert_uint_eq(changes, 0);
}
END_TEST

/*
 * A fixed share of the slots goes to the other loop, and never slot 0, which may be the only one.
 */
START_TEST(share_of_the_slots)
{
	unsigned n = 0;

	ck_assert(!transport_deal_slot(0));
	for (uint32_t s = 0; s < 64; s++)
		n += transport_deal_slot(s);
	ck_assert_uint_eq(n, 24);
	ck_assert(transport_deal_slot(1));
}
END_TEST

static bool is_readahead(uint32_t opcode, uint32_t size, uint32_t flags)
{
	struct fuse_read_in read = { .size = size, .flags = flags };
	struct message_in in = { .header.opcode = opcode,
				 .arg = opcode == FUSE_READ ? &read : NULL };

	return transport_deal_is_readahead(&in);
}

START_TEST(large_buffered_reads_are_readahead)
{
	ck_assert(is_readahead(FUSE_READ, 1 << 20, O_RDONLY));
	ck_assert(is_readahead(FUSE_READ, 128 << 10, O_RDWR | O_APPEND));
	ck_assert(!is_readahead(FUSE_READ, 127 << 10, O_RDONLY));
	ck_assert(!is_readahead(FUSE_READ, 1 << 20, O_RDONLY | O_DIRECT));
	ck_assert(!is_readahead(FUSE_GETATTR, 1 << 20, O_RDONLY));
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("transport: deal");
	TCase *t = unit_case(s, "deal", 60);

	tcase_add_checked_fixture(t, setup, NULL);
	unit_test(t, deep_queue_is_dealt_out);
	unit_test(t, begins_within_256_requests);
	unit_test(t, few_requests_are_not_dealt_out);
	unit_test(t, two_deep_queues_are_not_dealt_out);
	unit_test(t, ends_when_shallow);
	unit_test(t, ends_when_the_helper_is_busy);
	unit_test(t, does_not_go_to_and_fro);
	unit_test(t, one_deep_moment_changes_nothing);
	unit_test(t, share_of_the_slots);
	unit_test(t, large_buffered_reads_are_readahead);
	return s;
}
