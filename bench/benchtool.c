/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The client of the benchmark's jobs on names and on fsync: tight loops, so that the time is that
 * of the file system. run-bench runs it and reads the line it prints: the number of operations and
 * the nanoseconds that all of them took.
 *
 *   benchtool create|stat|unlink DIR COUNT      the empty files f0, f1, ...
 *   benchtool createsync DIR SECONDS            makes new files of 4 KiB, and fsyncs each
 *   benchtool appendsync DIR SECONDS THREADS    each thread appends 4 KiB to a file of its own and
 *                                               fsyncs it, again and again
 *
 * At the first error it prints a line on stderr and ends with status 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096
#define APPENDS_PER_FILE 4096	/* then the file begins anew, as a log would at 16 MiB */
#define MAX_THREADS 64
#define PATH_ROOM 512

static const char *dir;
static char block[BLOCK];
static uint64_t deadline;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "benchtool: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void name_of(char *buf, size_t size, const char *prefix, long number)
{
	if (snprintf(buf, size, "%s/%s%ld", dir, prefix, number) >= (int)size) {
		errno = ENAMETOOLONG;
		die(dir);
	}
}

static void create_one(const char *path, int flags, int sync)
{
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | flags, 0644);

	if (fd < 0)
		die(path);
	if (sync && (write(fd, block, BLOCK) != BLOCK || fsync(fd) < 0))
		die(path);
	if (close(fd) < 0)
		die(path);
}

static uint64_t names(const char *op, uint64_t count)
{
	char path[PATH_ROOM];
	struct stat st;

	for (uint64_t i = 0; i < count; i++) {
		name_of(path, sizeof(path), "f", (long)i);
		if (op[0] == 'c')
			create_one(path, 0, 0);
		else if (op[0] == 's' ? stat(path, &st) < 0 : unlink(path) < 0)
			die(path);
	}
	return count;
}

static uint64_t create_sync(void)
{
	char path[PATH_ROOM];
	uint64_t n = 0;

	while (now_ns() < deadline) {
		name_of(path, sizeof(path), "m", (long)n++);
		create_one(path, 0, 1);
	}
	return n;
}

struct appender {
	pthread_t thread;
	long number;
	uint64_t done;
};

static void *append_sync(void *arg)
{
	struct appender *a = arg;
	char path[PATH_ROOM];

	name_of(path, sizeof(path), "log", a->number);
	while (now_ns() < deadline) {
		int fd = open(path, O_CREAT | O_WRONLY | O_APPEND | O_TRUNC, 0644);

		if (fd < 0)
			die(path);
		for (int i = 0; i < APPENDS_PER_FILE && now_ns() < deadline; i++, a->done++)
			if (write(fd, block, BLOCK) != BLOCK || fsync(fd) < 0)
				die(path);
		if (close(fd) < 0)
			die(path);
	}
	return NULL;
}

static uint64_t append_threads(long threads)
{
	static struct appender all[MAX_THREADS];
	uint64_t n = 0;

	for (long i = 0; i < threads; i++) {
		all[i].number = i;
		errno = pthread_create(&all[i].thread, NULL, append_sync, &all[i]);
		if (errno)
			die("thread");
	}
	for (long i = 0; i < threads; i++) {
		pthread_join(all[i].thread, NULL);
		n += all[i].done;
	}
	return n;
}

static int usage(void)
{
	fputs("usage: benchtool create|stat|unlink DIR COUNT | createsync DIR SECONDS | appendsync "
	      "DIR SECONDS THREADS\n",
	      stderr);
	return 2;
}

int main(int argc, char **argv)
{
	uint64_t begun = now_ns(), n;
	double amount;
	long threads;

	if (argc < 4)
		return usage();
	dir = argv[2];
	amount = strtod(argv[3], NULL);
	threads = argc > 4 ? strtol(argv[4], NULL, 10) : 1;
	if (amount <= 0 || threads < 1 || threads > MAX_THREADS)
		return usage();
	memset(block, 'b', sizeof(block));
	deadline = begun + (uint64_t)(amount * 1e9);
	if (!strcmp(argv[1], "create") || !strcmp(argv[1], "stat") || !strcmp(argv[1], "unlink"))
		n = names(argv[1], (uint64_t)amount);
	else if (!strcmp(argv[1], "createsync"))
		n = create_sync();
	else if (!strcmp(argv[1], "appendsync"))
		n = append_threads(threads);
	else
		return usage();
	printf("%llu %llu\n", (unsigned long long)n, (unsigned long long)(now_ns() - begun));
	return 0;
}
