/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of the helpers of the base room that work on values of one thread: crc32c against
 * published sums, fields in little and big endian, lists, and the magic numbers of structures.
 */
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/list.h"
#include "base/magic.h"
#include "kit/runner.h"

#include <signal.h>
#include <string.h>

/* The sums in RFC 3720, appendix B.4, are inverted; those of ext4, and of fdio_crc32c, are not. */
static uint32_t rfc3720(const void *buf, size_t len) { return ~fdio_crc32c(~0u, buf, len); }

START_TEST(crc32c_known_answers)
{
	uint8_t b[32];

	memset(b, 0, sizeof(b));
	ck_assert_uint_eq(rfc3720(b, 32), 0x8A9136AAu);
	memset(b, 0xff, sizeof(b));
	ck_assert_uint_eq(rfc3720(b, 32), 0x62A8AB43u);
	for (int i = 0; i < 32; i++)
		b[i] = i;
	ck_assert_uint_eq(rfc3720(b, 32), 0x46DD794Eu);
	ck_assert_uint_eq(rfc3720("123456789", 9), 0xE3069283u);
}
END_TEST

START_TEST(crc32c_table_equals_instruction)
{
	uint8_t b[300];

	for (size_t i = 0; i < sizeof(b); i++)
		b[i] = (uint8_t)(i * 131 + 7);
	for (size_t off = 0; off < 9; off++)
		for (size_t len = 0; len < sizeof(b) - 9; len += 3)
			ck_assert_uint_eq(fdio_crc32c(off * 77, b + off, len),
					  fdio_crc32c_table(off * 77, b + off, len));
}
END_TEST

START_TEST(crc32c_is_incremental)
{
	const char *text = "the quick brown fox jumps over the lazy dog";
	uint32_t whole = fdio_crc32c(1, text, strlen(text));

	for (size_t cut = 0; cut <= strlen(text); cut++)
		ck_assert_uint_eq(fdio_crc32c(fdio_crc32c(1, text, cut), text + cut,
					      strlen(text) - cut),
				  whole);
}
END_TEST

START_TEST(fields_have_their_byte_order)
{
	static const uint8_t want[] = {
		0, 2, 1, 4, 3, 2, 1, 8, 7, 6, 5, 4, 3, 2, 1,
		1, 2, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8,
	};
	uint8_t got[sizeof(want)] = { 0 };

	fdio_put_le16(got, 1, 0x0102);
	fdio_put_le32(got, 3, 0x01020304);
	fdio_put_le64(got, 7, 0x0102030405060708);
	fdio_put_be16(got, 15, 0x0102);
	fdio_put_be32(got, 17, 0x01020304);
	fdio_put_be64(got, 21, 0x0102030405060708);
	ck_assert_mem_eq(got, want, sizeof(want));
	ck_assert_uint_eq(fdio_get_le16(got, 1), 0x0102);
	ck_assert_uint_eq(fdio_get_le32(got, 3), 0x01020304);
	ck_assert_uint_eq(fdio_get_le64(got, 7), 0x0102030405060708);
	ck_assert_uint_eq(fdio_get_be16(got, 15), 0x0102);
	ck_assert_uint_eq(fdio_get_be32(got, 17), 0x01020304);
	ck_assert_uint_eq(fdio_get_be64(got, 21), 0x0102030405060708);
}
END_TEST

struct node {
	struct list l;
	int v;
};

START_TEST(list_keeps_order)
{
	struct list a = LIST_INIT(a), b = LIST_INIT(b);
	struct node n[6], *p, *tmp;
	int want = 0;

	for (int i = 0; i < 6; i++) {
		n[i].v = i;
		list_add_tail(i < 3 ? &a : &b, &n[i].l);
	}
	list_splice_tail(&a, &b);
	ck_assert(list_empty(&b));
	list_for_each_safe(p, tmp, &a, l) {
		ck_assert_int_eq(p->v, want++);
		if (p->v % 2)
			list_del(&p->l);
	}
	ck_assert_int_eq(want, 6);
	want = 0;
	list_for_each(p, &a, l) {
		ck_assert_int_eq(p->v, want);
		want += 2;
	}
	list_del(&n[1].l); /* deleting an entry twice is harmless */
	list_move_tail(&a, &n[0].l);
	ck_assert_int_eq(list_first(&a, struct node, l)->v, 2);
	ck_assert_int_eq(list_last(&a, struct node, l)->v, 0);
}
END_TEST

struct marked {
	int before;
	FDIO_MAGIC_FIELD;
	int after;
};

START_TEST(magic_knows_its_own)
{
	struct marked marked = { .before = 1, .after = 2 };

	fdio_magic_set(&marked, MAGIC_LOOP);
	fdio_magic_check(&marked, MAGIC_LOOP);
	fdio_magic_clear(&marked, MAGIC_LOOP);
	ck_assert_int_eq(marked.before + marked.after, 3);
}
END_TEST

#ifdef FDIO_DEBUG_LOCKS
START_TEST(magic_stops_at_what_has_ended)
{
	struct marked marked = { .before = 1 };

	fdio_magic_set(&marked, MAGIC_LOOP);
	fdio_magic_clear(&marked, MAGIC_LOOP);
	fdio_magic_check(&marked, MAGIC_LOOP); /* aborts */
}
END_TEST
#endif

Suite *unit_suite(void)
{
	Suite *s = suite_create("base: values");
	TCase *t = unit_case(s, "values", 60);

	unit_test(t, crc32c_known_answers);
	unit_test(t, crc32c_table_equals_instruction);
	unit_test(t, crc32c_is_incremental);
	unit_test(t, fields_have_their_byte_order);
	unit_test(t, list_keeps_order);
	unit_test(t, magic_knows_its_own);
#ifdef FDIO_DEBUG_LOCKS
	tcase_add_test_raise_signal(t, magic_stops_at_what_has_ended, SIGABRT);
#endif
	return s;
}
