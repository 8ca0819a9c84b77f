/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fusedioctl: asks a running fusedio about files, with the ioctls of message/ioctl.h. A program of
 * its own, with one thread; needs no privilege but to read the files. A file that fails gets one
 * line on stderr, the others are still done, and the exit status is 1; 2 for wrong usage.
 */
#include "base/log.h"
#include "message/ioctl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void usage(FILE *to)
{
	fprintf(to, "usage: fusedioctl map FILE...\n"
		    "  prints where the blocks of files on a fusedio mount are, as filefrag -v "
		    "does elsewhere\n");
}

/* The path with control characters escaped: a terminal would obey them. Until the next call. */
static const char *printable(const char *path)
{
	static char text[4096];

	fdio_escape(text, sizeof(text), path);
	return text;
}

static int fail(const char *path, int err)
{
	const char *why = strerror(err);

	if (err == ENOTTY || err == EOPNOTSUPP)
		why = "not a regular file of a fusedio mount";
	fprintf(stderr, "fusedioctl: %s: %s\n", printable(path), why);
	return 1;
}

/* One line of the output, in blocks. */
static void print_run(unsigned n, const struct fdio_map_run *run, uint64_t block_size)
{
	static const char *const notes[] = { "", "unwritten", "last", "last,unwritten" };
	uint64_t blocks = run->length / block_size;
	uint64_t logical = run->logical / block_size;
	uint64_t logical_end = (run->logical + run->length) / block_size;
	uint64_t physical = run->physical / block_size;
	uint64_t physical_end = (run->physical + run->length) / block_size;

	printf("%5u: ", n);
	printf("%12" PRIu64 "..%12" PRIu64 ": ", logical, logical_end - 1);
	printf("%12" PRIu64 "..%12" PRIu64 ": ", physical, physical_end - 1);
	printf("%8" PRIu64 ": %s\n", blocks, notes[run->flags & 3]);
}

/*
 * Prints all runs of an open file, FDIO_MAP_RUNS a call. *ret_total: their number. 0 or an errno.
 */
static int print_map(int fd, const char *path, const struct stat *st, unsigned *ret_total)
{
	static struct fdio_map map;

	memset(&map, 0, sizeof(map));
	*ret_total = 0;
	for (;;) {
		if (ioctl(fd, FDIO_IOC_MAP, &map))
			return errno;
		if (!*ret_total)
			printf("%s: %lld bytes, blocks of %ld\n"
			       "  ext:      logical             :      physical            :   "
			       "length: flags\n",
			       printable(path), (long long)st->st_size, (long)st->st_blksize);
		for (unsigned k = 0; k < map.nr && k < FDIO_MAP_RUNS; k++)
			print_run((*ret_total)++, &map.run[k], (uint64_t)st->st_blksize);
		if (!map.nr || map.nr > FDIO_MAP_RUNS)
			return 0;
		const struct fdio_map_run *last = &map.run[map.nr - 1];
		if (last->flags & FDIO_MAP_LAST)
			return 0;
		map.start = last->logical + last->length;
	}
}

/* The command map, for one file: 0, or 1 for the exit status. */
static int map(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), err = 0;
	unsigned total = 0;
	struct stat st;

	if (fd < 0)
		return fail(path, errno);
	/* fsync: data that is only in the page cache may have no blocks yet. */
	if (fstat(fd, &st) || (S_ISREG(st.st_mode) && fsync(fd)))
		err = errno;
	if (!err)
		err = print_map(fd, path, &st, &total);
	close(fd);
	if (err)
		return fail(path, err);
	printf("%s: %u extents found\n", printable(path), total);
	return 0;
}

int main(int argc, char **argv)
{
	int status = 0;

	if (argc == 2 && (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help"))) {
		usage(stdout);
		return 0;
	}
	if (argc == 2 && (!strcmp(argv[1], "-V") || !strcmp(argv[1], "--version"))) {
		printf("fusedioctl %s\n", PACKAGE_VERSION);
		return 0;
	}
	if (argc < 3 || strcmp(argv[1], "map")) {
		usage(stderr);
		return 2;
	}
	for (int k = 2; k < argc; k++)
		status |= map(argv[k]);
	return fflush(stdout) ? 1 : status;
}
