/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Asynchronous direct I/O through io_submit(2) for the root tests, because Python cannot call it.
 * The tests run it as a program of one thread. It prints one line with its result and exits with 0;
 * if a system call fails it prints a message and exits with 1.
 *
 *   aiotool write FILE OFFSET LENGTH BYTE COUNT dsync|plain
 *     Has COUNT writes of LENGTH bytes of value BYTE in flight at once, to consecutive ranges of
 *     the file from OFFSET. Prints "NUMBER-COMPLETE FIRST-ERROR".
 *   aiotool cached FILE OFFSET LENGTH BYTE
 *     Reads the range through the page cache, overwrites it with one asynchronous direct write, and
 *     reads it through the page cache again. Prints "fresh" or "stale".
 *   aiotool storm FILE LENGTH BLOCK SECONDS
 *     Keeps 16 random direct writes of BLOCK bytes in flight over LENGTH bytes for SECONDS; each
 *     block is filled with its own block number. Prints "WRITES ERRORS".
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "reap.h"

enum { MAX_AIO = 256, STORM_DEPTH = 16 };

static void die(const char *what)
{
	fprintf(stderr, "aiotool: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void *aligned(size_t len)
{
	void *p;

	if (posix_memalign(&p, 4096, len)) {
		errno = ENOMEM;
		die("memory");
	}
	return p;
}

static aio_context_t setup(void)
{
	aio_context_t ctx = 0;

	if (syscall(SYS_io_setup, MAX_AIO, &ctx) < 0)
		die("io_setup");
	return ctx;
}

static void prep_write(struct iocb *cb, int fd, void *buf, size_t len, long long off, int rw_flags)
{
	memset(cb, 0, sizeof *cb);
	cb->aio_lio_opcode = IOCB_CMD_PWRITE;
	cb->aio_fildes = fd;
	cb->aio_buf = (unsigned long)buf;
	cb->aio_nbytes = len;
	cb->aio_offset = off;
	cb->aio_rw_flags = rw_flags;
}

static int do_write(const char *file, long long off, size_t len, int byte, int count, int dsync)
{
	static struct iocb cb[MAX_AIO];
	static struct iocb *list[MAX_AIO];
	static struct io_event ev[MAX_AIO];
	aio_context_t ctx = setup();
	int fd = open(file, O_WRONLY | O_DIRECT | (dsync ? O_DSYNC : 0));
	int submitted = 0, complete = 0;
	long long first_error = 0;
	char *buf = aligned(len);
	int i, n;

	if (fd < 0)
		die(file);
	if (count < 1 || count > MAX_AIO) {
		errno = EINVAL;
		die("count");
	}
	memset(buf, byte, len);
	for (i = 0; i < count; i++) {
		prep_write(&cb[i], fd, buf, len, off + (long long)i * (long long)len, 0);
		list[i] = &cb[i];
	}
	while (submitted < count) {
		n = (int)syscall(SYS_io_submit, ctx, (long)(count - submitted), list + submitted);
		if (n <= 0) {
			first_error = n < 0 ? -errno : -EAGAIN;
			break;
		}
		submitted += n;
	}
	while (complete < submitted) {
		n = aio_reap(ctx, 1, submitted - complete, ev);
		if (n < 0)
			die("io_getevents");
		for (i = 0; i < n; i++)
			if (ev[i].res != (long long)len && !first_error)
				first_error = ev[i].res < 0 ? ev[i].res : -EIO;
		complete += n;
	}
	printf("%d %lld\n", complete, first_error);
	return 0;
}

static int all_bytes(const char *p, size_t len, int byte)
{
	size_t i;

	for (i = 0; i < len; i++)
		if ((unsigned char)p[i] != (unsigned char)byte)
			return 0;
	return 1;
}

static int do_cached(const char *file, long long off, size_t len, int byte)
{
	int fd = open(file, O_RDONLY);
	char *buf = aligned(len);

	if (fd < 0 || pread(fd, buf, len, off) != (ssize_t)len)
		die(file);
	if (all_bytes(buf, len, byte)) {
		errno = EINVAL;
		die("the file holds that byte already");
	}
	{
		struct iocb cb, *list[1] = { &cb };
		struct io_event ev;
		aio_context_t ctx = setup();
		char *out = aligned(len);
		int dfd = open(file, O_WRONLY | O_DIRECT);

		memset(out, byte, len);
		prep_write(&cb, dfd, out, len, off, 0);
		if (dfd < 0 || syscall(SYS_io_submit, ctx, 1L, list) != 1 ||
		    aio_reap(ctx, 1, 1, &ev) != 1 || ev.res != (long long)len)
			die("asynchronous write");
		close(dfd);
		free(out);
	}
	if (pread(fd, buf, len, off) != (ssize_t)len)
		die("second read");
	puts(all_bytes(buf, len, byte) ? "fresh" : "stale");
	close(fd);
	free(buf);
	return 0;
}

static void storm_one(aio_context_t ctx, struct iocb *cb, int fd, char *buf, size_t block,
		      unsigned long long nr)
{
	struct iocb *list[1] = { cb };
	unsigned long long *w = (unsigned long long *)buf;
	size_t i;

	for (i = 0; i < block / sizeof *w; i++)
		w[i] = nr;
	prep_write(cb, fd, buf, block, (long long)(nr * block), 0);
	cb->aio_data = (unsigned long)cb;
	if (syscall(SYS_io_submit, ctx, 1L, list) != 1)
		die("io_submit");
}

static int do_storm(const char *file, size_t length, size_t block, int seconds)
{
	static struct iocb cb[STORM_DEPTH];
	unsigned long long nr_blocks = length / block, seed = 12345;
	unsigned long writes = 0, errors = 0;
	char *buf[STORM_DEPTH];
	aio_context_t ctx = setup();
	int fd = open(file, O_WRONLY | O_DIRECT);
	time_t end = time(NULL) + seconds;
	int i, inflight = 0;

	if (fd < 0)
		die(file);
	for (i = 0; i < STORM_DEPTH; i++) {
		buf[i] = aligned(block);
		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		storm_one(ctx, &cb[i], fd, buf[i], block, (seed >> 33) % nr_blocks);
		inflight++;
	}
	while (inflight) {
		struct io_event ev;

		if (aio_reap(ctx, 1, 1, &ev) != 1)
			die("io_getevents");
		inflight--;
		writes++;
		errors += ev.res != (long long)block;
		if (time(NULL) < end) {
			i = (int)((struct iocb *)(unsigned long)ev.data - cb);
			seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
			storm_one(ctx, &cb[i], fd, buf[i], block, (seed >> 33) % nr_blocks);
			inflight++;
		}
	}
	printf("%lu %lu\n", writes, errors);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 8 && !strcmp(argv[1], "write"))
		return do_write(argv[2], atoll(argv[3]), strtoul(argv[4], NULL, 0), atoi(argv[5]),
				atoi(argv[6]), !strcmp(argv[7], "dsync"));
	if (argc == 6 && !strcmp(argv[1], "cached"))
		return do_cached(argv[2], atoll(argv[3]), strtoul(argv[4], NULL, 0), atoi(argv[5]));
	if (argc == 6 && !strcmp(argv[1], "storm"))
		return do_storm(argv[2], strtoul(argv[3], NULL, 0), strtoul(argv[4], NULL, 0),
				atoi(argv[5]));
	fputs("usage: aiotool write|cached|storm ... (see the source)\n", stderr);
	return 2;
}
