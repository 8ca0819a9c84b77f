/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The main program of every unit test: reads the command line, asks the program for its suite and
 * lets libcheck run it. libcheck's closing line counts what ran; tests/run-unit-totals.sh adds
 * these up. One thread; the tests run in processes of their own unless CK_FORK=no.
 */
#include "kit/runner.h"

#include "base/util.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static struct {
	bool list;
	const char *test;  /* NULL: all */
	int seed;          /* -1: those of the test */
	unsigned chosen;   /* tests that unit_wants has let pass */
} options = { .seed = -1 };

/* The names of the cases: libcheck does not tell them. */
static struct {
	const TCase *tcase;
	const char *name;
} cases[16];
static unsigned nr_cases;

TCase *unit_case(Suite *s, const char *name, double seconds)
{
	TCase *t = tcase_create(name);

	tcase_set_timeout(t, seconds);
	suite_add_tcase(s, t);
	if (nr_cases == ARRAY_SIZE(cases))
		abort();
	cases[nr_cases].tcase = t;
	cases[nr_cases++].name = name;
	return t;
}

static const char *case_name(const TCase *tcase)
{
	for (unsigned k = 0; k < nr_cases; k++)
		if (cases[k].tcase == tcase)
			return cases[k].name;
	return "?";
}

static void skip_without(const char *what)
{
	if (options.list)
		return;
	printf("skipped: %s\n", what);
	exit(77);
}

void unit_needs_io_uring(void)
{
	/* With these arguments a kernel that has the call says EFAULT or EPERM. */
	if (syscall(SYS_io_uring_setup, 1, NULL) == -1 && errno == ENOSYS)
		skip_without("no io_uring here");
}

void unit_needs_seccomp(void)
{
	if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == -1 && errno == EINVAL)
		skip_without("no seccomp filters here");
}

bool unit_wants(const TCase *tcase, const char *test, const char *tags)
{
	if (options.list) {
		printf("%s: %s%s%s\n", case_name(tcase), test, *tags ? ", proves " : "", tags);
		return false;
	}
	if (options.test && strcmp(options.test, test))
		return false;
	options.chosen++;
	return true;
}

int unit_first_seed(void) { return options.seed < 0 ? 0 : options.seed; }
int unit_end_seed(int n) { return options.seed < 0 ? n : options.seed + 1; }

void unit_pause_ms(unsigned ms)
{
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l }, NULL);
}

static void usage(const char *program, FILE *to)
{
	fprintf(to,
		"usage: %s [OPTION ...]\n"
		"  --list         names cases and tests, runs nothing\n"
		"  --case CASE    runs the tests of one case\n"
		"  --test TEST    runs one test\n"
		"  --seed NUMBER  runs tests with random numbers with this seed only\n"
		"CK_FORK=no keeps it in one process, for a debugger.\n",
		program);
}

static void parse(int argc, char **argv)
{
	static const struct option known[] = {
		{ "list", no_argument, NULL, 'l' },
		{ "case", required_argument, NULL, 'c' },
		{ "test", required_argument, NULL, 't' },
		{ "seed", required_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};

	for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
		switch (c) {
		case 'l': options.list = true; break;
		case 'c': setenv("CK_RUN_CASE", optarg, 1); break;
		case 't': options.test = optarg; break;
		case 's': options.seed = atoi(optarg); break;
		case 'h': usage(argv[0], stdout); exit(EXIT_SUCCESS);
		default: usage(argv[0], stderr); exit(EXIT_FAILURE);
		}
	}
	if (optind < argc) {
		usage(argv[0], stderr);
		exit(EXIT_FAILURE);
	}
}

int main(int argc, char **argv)
{
	SRunner *runner;
	int failed;

	parse(argc, argv);
	runner = srunner_create(unit_suite());
	if (!options.list)
		srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	if (options.test && !options.chosen && !options.list) {
		fprintf(stderr, "%s: no test is named %s\n", argv[0], options.test);
		return EXIT_FAILURE;
	}
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
