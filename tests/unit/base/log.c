/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of the log: levels, what a line shows of bytes that are no printable text, the limit
 * of a line, and the rate limit of repeated lines. A sink takes the lines. One thread.
 */
#include "base/log.h"
#include "base/util.h"
#include "kit/runner.h"

#include <stdio.h>
#include <string.h>

static char last_line[2048];
static int last_level;

static void sink(int level, const char *line)
{
	last_level = level;
	snprintf(last_line, sizeof(last_line), "%s", line);
}

START_TEST(log_levels)
{
	fdio_log_set_sink(sink);
	fdio_log_set_level(FDIO_LOG_WARN);
	last_line[0] = 0;
	log_info("not this");
	ck_assert_str_eq(last_line, "");
	log_warn("n=%d", 7);
	ck_assert_str_eq(last_line, "n=7");
	ck_assert_int_eq(last_level, FDIO_LOG_WARN);
	fdio_log_set_sink(NULL);
	fdio_log_set_level(FDIO_LOG_INFO);
}
END_TEST

/* Bytes that the names and labels of an image may contain, and how the log shows them. */
static const struct escape {
	const char *raw, *shown;
} escapes[] = {
	{ "", "" },
	{ "plain, with blanks: 100% \\ \"x\"", "plain, with blanks: 100% \\ \"x\"" },
	{ "two\nlines\r", "two\\x0alines\\x0d" },
	{ "\033[2Jtab\t\177", "\\x1b[2Jtab\\x09\\x7f" },
	{ "na\303\257ve", "na\303\257ve" },
	{ "smile \360\237\230\200", "smile \360\237\230\200" },
	{ "\346\227\245\346\234\254", "\346\227\245\346\234\254" },
	/* the control sequence introducer, as a UTF-8 character and as one byte */
	{ "\302\23331m", "\\xc2\\x9b31m" },
	{ "\23331m", "\\x9b31m" },
	/* right-to-left override; line separator */
	{ "a\342\200\256b", "a\\xe2\\x80\\xaeb" },
	{ "a\342\200\250b", "a\\xe2\\x80\\xa8b" },
	/* not UTF-8: an overlong line feed, a surrogate, beyond U+10FFFF, a character cut short */
	{ "\300\212", "\\xc0\\x8a" },
	{ "\355\240\200", "\\xed\\xa0\\x80" },
	{ "\364\220\200\200", "\\xf4\\x90\\x80\\x80" },
	{ "cut \346\227", "cut \\xe6\\x97" },
};

START_TEST(log_escapes)
{
	char small[8];

	fdio_log_set_sink(sink);
	for (size_t i = 0; i < ARRAY_SIZE(escapes); i++) {
		log_warn("%s", escapes[i].raw);
		ck_assert_str_eq(last_line, escapes[i].shown);
	}
	fdio_log_set_sink(NULL);
	/* Neither a character nor an escape is cut in the middle. */
	ck_assert_uint_eq(fdio_escape(small, sizeof(small), "abcdef\303\257"), 6);
	ck_assert_str_eq(small, "abcdef");
	ck_assert_uint_eq(fdio_escape(small, sizeof(small), "abcd\n"), 4);
	ck_assert_uint_eq(fdio_escape(small, sizeof(small), "abc\n"), 7);
	ck_assert_str_eq(small, "abc\\x0a");
}
END_TEST

/* A long line is cut to its limit even if every byte of it is escaped. */
START_TEST(log_line_is_bounded)
{
	char big[4000];

	memset(big, '\n', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	fdio_log_set_sink(sink);
	log_warn("%s", big);
	fdio_log_set_sink(NULL);
	ck_assert_str_eq(last_line + strlen(last_line) - 3, "x0a");
	ck_assert_ptr_eq(strchr(last_line, '\n'), NULL);
}
END_TEST

START_TEST(ratelimit_lets_ten_through)
{
	struct fdio_ratelimit limit = { 0, 0 };
	int ok = 0;

	for (int i = 0; i < 50; i++)
		ok += fdio_ratelimit_ok(&limit);
	/* 20 if a new interval began in the middle of the loop */
	ck_assert(ok == 10 || ok == 20);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("base: log");
	TCase *t = unit_case(s, "log", 60);

	unit_test(t, log_levels);
	unit_test(t, log_escapes);
	unit_test(t, log_line_is_bounded);
	unit_test(t, ratelimit_lets_ten_through);
	return s;
}
