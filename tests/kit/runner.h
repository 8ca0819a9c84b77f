/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The main program of the unit tests (runner.c), and how a program says which tests it has. It
 * defines unit_suite, which makes cases and adds tests to them:
 *
 * 	Suite *unit_suite(void)
 * 	{
 * 		Suite *s = suite_create("order of the journal");
 * 		TCase *t = unit_case(s, "order", 120);
 *
 * 		unit_test(t, home_writes_come_after_the_commit, PROVES("JOURNAL-8"));
 * 		unit_loop(t, nearly_full_transaction_is_committed, 0, 2);
 * 		return s;
 * 	}
 *
 * What the tests only copy, such as a formatted image, is made by an unchecked fixture of the case:
 * it runs once, in the process that forks the tests. "PROGRAM --help" says which options there are.
 * libcheck's environment variables (CK_RUN_CASE, CK_FORK, CK_VERBOSITY) work as well.
 */
#ifndef FDIO_KIT_RUNNER_H
#define FDIO_KIT_RUNNER_H

#include <check.h>
#include <stdbool.h>

/* The program's tests. Called once, by main. */
Suite *unit_suite(void);

/* A new case of s. Each of its tests may take so many seconds, times CK_TIMEOUT_MULTIPLIER. */
TCase *unit_case(Suite *s, const char *name, double seconds);

/*
 * For unit_suite of a program whose tests need it from the kernel. Where it is missing, as in the
 * emulation of another machine by qemu-user, the program ends with status 77 and a line that says
 * so: skipped.
 */
void unit_needs_io_uring(void);
void unit_needs_seccomp(void);

/*
 * The tags of the promises that a test proves, separated by spaces, as the last argument of the
 * macros below. HACKING.md has the table of the tags, and build-aux/check-docs.sh compares both.
 */
#define PROVES(tags) tags

/* Adds a test of START_TEST once, or for each _i from first to end - 1. */
#define unit_test(tcase, test, ...) unit_loop(tcase, test, 0, 1, __VA_ARGS__)
#define unit_loop(tcase, test, first, end, ...) do { \
	if (unit_wants(tcase, #test, "" __VA_ARGS__)) \
		tcase_add_loop_test(tcase, test, first, end); \
} while (0)
/* Adds a test that takes _i for a seed: once for each from 0 to n - 1, or for that of --seed. */
#define unit_seeds(tcase, test, n, ...) \
	unit_loop(tcase, test, unit_first_seed(), unit_end_seed(n), __VA_ARGS__)

/*
 * For the macros. False if the command line names another test, or asks for a list: prints its
 * line.
 */
bool unit_wants(const TCase *tcase, const char *test, const char *tags);
int unit_first_seed(void);
int unit_end_seed(int n);

/* Sleeps, while other threads should do something, or must not. */
void unit_pause_ms(unsigned ms);
/*
 * Waits until the condition holds, looking every millisecond; the test fails when it does not for
 * 10 s.
 */
#define unit_wait_until(condition) do { \
	for (unsigned waited_ = 0; !(condition); waited_++) { \
		must_msg(waited_ < 10000, "%s:%d: not within 10 s: %s", __FILE__, \
			 __LINE__, #condition); \
		unit_pause_ms(1); \
	} \
} while (0)

/*
 * libcheck makes a system call for every assertion that holds; these do something only if one does
 * not. For loops, and for threads that the test has started.
 */
#define must(e) do { if (!(e)) ck_abort_msg("%s:%d: %s", __FILE__, __LINE__, #e); } while (0)
#define must_msg(e, ...) do { if (!(e)) ck_abort_msg(__VA_ARGS__); } while (0)
#define must_eq(a, b) do { long long a_ = (a), b_ = (b); if (a_ != b_) \
	ck_abort_msg("%s:%d: %s is %lld, not %lld", __FILE__, __LINE__, #a, a_, b_); } while (0)

#endif
