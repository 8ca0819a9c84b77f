/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The plain driver of both fuzzers: runs seeds or files of the corpus, each case in a child process
 * of its own, with limits of processor time, time and memory. A case that fails is one line of the
 * report, with the arguments that repeat it.
 *
 *   fuzz_image --seeds 1:5000      5,000 cases from seed 1 on (default 1:200)
 *   fuzz_image --seconds 60        as many cases as fit into 60 s
 *   fuzz_image FILE...             files of the corpus, or directories of them
 *   fuzz_image --show SEED         prints the case as a file of the corpus
 *   fuzz_image --save SEED FILE    writes the damaged image
 *   -v                             with the program's log
 *   --here                         without a child, for a debugger
 */
#include "fuzz/fuzz.h"

#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const struct fuzz_target *target;
static bool verbose, here;
static unsigned passed, failed;
static uint64_t max_rss, worst_ms;

void fuzz_failed(const char *what, const char *file, int line)
{
	fprintf(stderr, "FUZZ: %s:%d: must hold: %s\n", file, line, what);
	abort();
}

static void too_long(int sig)
{
	static const char cpu[] = "FUZZ: out of processor time\n";
	static const char wall[] = "FUZZ: out of time: stuck\n";
	ssize_t n = sig == SIGPROF ? write(2, cpu, sizeof(cpu) - 1)
				   : write(2, wall, sizeof(wall) - 1);

	(void)n;
	abort(); /* the sanitizers print where */
}

/*
 * Counts seconds by a timer instead of looking at the clock: a process that was stopped for a while
 * gets one signal for all of that time.
 */
static void second_passed(int sig)
{
	static volatile unsigned seconds;

	if (++seconds >= (unsigned)target->cpu_s * 9)
		too_long(sig);
}

static void limit(void)
{
	struct itimerval wall = { .it_interval.tv_sec = 1, .it_value.tv_sec = 1 };
	struct sigaction each = { .sa_handler = second_passed, .sa_flags = SA_RESTART };
	struct itimerval cpu = { .it_value.tv_sec = (time_t)target->cpu_s };
	struct rlimit core = { 0, 0 };

	signal(SIGPROF, too_long);
	sigaction(SIGALRM, &each, NULL);
	setitimer(ITIMER_PROF, &cpu, NULL);
	setitimer(ITIMER_REAL, &wall, NULL);
	setrlimit(RLIMIT_CORE, &core);
}

static char *read_text(const char *path)
{
	FILE *f = fopen(path, "re");
	char *text = calloc(1, 65536);

	MUST(text);
	if (!f || (fread(text, 1, 65535, f) == 0 && ferror(f))) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		free(text);
		text = NULL;
	}
	if (f)
		fclose(f);
	return text;
}

static void child(uint64_t seed, const char *text)
{
	struct rnd rng = rnd_seed(seed);

	limit();
	fdio_log_set_level(verbose ? FDIO_LOG_DEBUG : 0);
	target->run(&rng, text, false);
	fflush(stdout);
	_exit(0);
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void report(uint64_t seed, const char *file, const char *what, int number)
{
	failed++;
	if (file)
		printf("FAIL %s %s: %s %d\n", target->name, file, what, number);
	else
		printf("FAIL %s --seeds %llu:1: %s %d\n", target->name, (unsigned long long)seed,
		       what, number);
	fflush(stdout);
}

static void run_case(uint64_t seed, const char *file)
{
	char *text = file ? read_text(file) : NULL;
	uint64_t begun = now_ms();
	struct rusage ru;
	int status = 0;
	pid_t pid;

	if (file && !text) {
		report(seed, file, "cannot be read", 0);
		return;
	}
	if (here) {
		struct rnd rng = rnd_seed(seed);
		fdio_log_set_level(verbose ? FDIO_LOG_DEBUG : 0);
		target->run(&rng, text, false);
		passed++;
		free(text);
		return;
	}
	fflush(stdout);
	pid = fork();
	if (pid == 0)
		child(seed, text);
	free(text);
	if (pid < 0 || wait4(pid, &status, 0, &ru) != pid) {
		report(seed, file, "cannot run: errno", errno);
		return;
	}
	worst_ms = FDIO_MAX(worst_ms, now_ms() - begun);
	max_rss = FDIO_MAX(max_rss, (uint64_t)ru.ru_maxrss);
	if (WIFSIGNALED(status))
		report(seed, file, "signal", WTERMSIG(status));
	else if (WEXITSTATUS(status))
		report(seed, file, "exit status", WEXITSTATUS(status));
	else if ((uint64_t)ru.ru_maxrss > target->rss_kib)
		report(seed, file, "memory in MiB:", (int)(ru.ru_maxrss / 1024));
	else
		passed++;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* A file, or all of a directory in the order of their names. */
static void run_corpus(const char *path)
{
	size_t suffix_len = strlen(target->suffix);
	struct dirent **e;
	struct stat st;
	int n;

	if (stat(path, &st) || !S_ISDIR(st.st_mode)) {
		run_case(0, path);
		return;
	}
	n = scandir(path, &e, NULL, by_name);
	for (int i = 0; i < n; i++) {
		size_t len = strlen(e[i]->d_name);
		char *full = NULL;

		if (len > suffix_len && !strcmp(e[i]->d_name + len - suffix_len, target->suffix) &&
		    asprintf(&full, "%s/%s", path, e[i]->d_name) > 0)
			run_case(0, full);
		free(full);
		free(e[i]);
	}
	if (n >= 0)
		free(e);
}

/* n cases, or if that is 0 as many as fit into seconds; ends after 50 failures. */
static void run_seeds(uint64_t from, uint64_t n, uint64_t seconds)
{
	uint64_t end = now_ms() + seconds * 1000;

	for (uint64_t k = 0; (!n || k < n) && (!seconds || now_ms() < end) && failed < 50; k++)
		run_case(from + k, NULL);
}

int fuzz_main(const struct fuzz_target *this_target, int argc, char **argv)
{
	uint64_t from = 1, n = 200, seconds = 0;
	bool files = false;
	struct rusage ru;

	target = this_target;
	setenv("E2FSPROGS_FAKE_TIME", "1600000000", 1);
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-v"))
			verbose = true;
		else if (!strcmp(argv[i], "--here"))
			here = true;
	}
	if (!target->setup())
		return 1;
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--seeds") && i + 1 < argc) {
			char *colon = strchr(argv[++i], ':');
			from = strtoull(argv[i], NULL, 0);
			n = colon ? strtoull(colon + 1, NULL, 0) : 1;
		} else if (!strcmp(argv[i], "--seconds") && i + 1 < argc) {
			seconds = strtoull(argv[++i], NULL, 0);
			n = 0;
		} else if (!strcmp(argv[i], "--show") && i + 1 < argc) {
			struct rnd rng = rnd_seed(strtoull(argv[++i], NULL, 0));
			target->run(&rng, NULL, true);
			return 0;
		} else if (!strcmp(argv[i], "--save") && i + 2 < argc && target->save) {
			struct rnd rng = rnd_seed(strtoull(argv[++i], NULL, 0));
			if (!target->save(&rng, argv[++i]))
				return 1;
			files = true;
			passed++;
		} else if (argv[i][0] != '-') {
			run_corpus(argv[i]);
			files = true;
		}
	}
	if (!files || seconds)
		run_seeds(from, n, seconds);
	getrusage(RUSAGE_CHILDREN, &ru);
	printf("%s: %u cases passed, %u failed, %lld s of processor time, slowest %llu ms, most "
	       "memory %llu MiB\n",
	       target->name, passed, failed, (long long)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec),
	       (unsigned long long)worst_ms, (unsigned long long)max_rss / 1024);
	return failed || !passed ? 1 : 0;
}
