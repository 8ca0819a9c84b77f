/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fusedioctl: asks a running fusedio about a file through ioctls of ours. A program of its own;
 * needs no privileges beyond reading the file.
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

/* Others name files, and a terminal obeys what it is shown. */
static const char *shown(const char *path)
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
	fprintf(stderr, "fusedioctl: %s: %s\n", shown(path), why);
	return 1;
}

static void print_run(unsigned n, const struct fdio_map_run *r, uint64_t bs)
{
	static const char *const notes[] = { "", "unwritten", "last", "last,unwritten" };

	printf("%5u: %12" PRIu64 "..%12" PRIu64 ": %12" PRIu64 "..%12" PRIu64 ": %8" PRIu64 ": "
											    "%s\n",
	       n, r->logical / bs, (r->logical + r->length) / bs - 1, r->physical / bs,
	       (r->physical + r->length) / bs - 1, r->length / bs, notes[r->flags & 3]);
}

static int map(const char *path)
{
	static struct fdio_map m;
	unsigned total = 0;
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), err = 0;

	if (fd < 0)
		return fail(path, errno);
	/* What is still in the page cache has no place yet. */
	if (fstat(fd, &st) || (S_ISREG(st.st_mode) && fsync(fd)))
		err = errno;
	memset(&m, 0, sizeof(m));
	while (!err) {
		if (ioctl(fd, FDIO_IOC_MAP, &m)) {
			err = errno;
			break;
		}
		if (!total)
			printf("%s: %lld bytes, blocks of %ld\n  ext:      logical             :   "
			       "   physical            :   length: flags\n",
			       shown(path), (long long)st.st_size, (long)st.st_blksize);
		for (unsigned k = 0; k < m.nr && k < FDIO_MAP_RUNS; k++)
			print_run(total++, &m.run[k], (uint64_t)st.st_blksize);
		if (!m.nr || m.nr > FDIO_MAP_RUNS || (m.run[m.nr - 1].flags & FDIO_MAP_LAST))
			break;
		m.start = m.run[m.nr - 1].logical + m.run[m.nr - 1].length;
	}
	close(fd);
	if (err)
		return fail(path, err);
	printf("%s: %u extents found\n", shown(path), total);
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
