/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs inside the guest of the virtual machine tests: single system calls whose result is printed
 * as one word, and a workload that announces which of its changes are durable. One thread. The
 * caller compares the word; the exit status says nothing.
 *
 *   vmio write FILE OFFSET LENGTH BLOCK STEP MODES
 *   vmio read FILE OFFSET LENGTH BLOCK STEP MODES
 *     Writes the bytes of STEP, BLOCK bytes at a time; or reads and compares. MODES: some of
 *     direct, dsync, create and fsync, separated by commas, or none. Prints "ok", or the call that
 *     failed and its error ("write:EIO"), or "read:short", "read:differs".
 *   vmio stat|open|create|mkdir|unlink|fsync|list FILE, vmio getxattr|setxattr FILE NAME
 *     Prints "ok" or the name of the error. list reads the names of a directory.
 *   vmio mapped FILE write|truncate|fallocate
 *   vmio zeroes FILE
 *     mapped makes FILE of 100 bytes, stores behind its end through a mapping, and makes it grow in
 *     that way. zeroes checks the file again later. Prints "ok", or "read:wrong" if the stored
 *     bytes are part of the file.
 *   vmio steps DIR FIRST LAST [DEVICE OFFSET]
 *     Step N changes files in DIR in one of several ways and makes the change durable. Then, if a
 *     device is given, it writes N into the sector at OFFSET, so that a log of the device's writes
 *     shows when the step was over; then it prints "STEP N". A step may be repeated. Ends with
 *     "DONE", or with "step N: CALL:ERROR". vm_steps.py has the same steps and checks the files
 *     that they leave: change both together.
 *
 * Contents of files are records of 16 bytes that name the step and their place in the file.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <termios.h>
#include <unistd.h>

enum {
	RECORD = 16,
	MAX_BLOCK = 1 << 20,
	SLOT = 4096,
	SLOTS = 16,
	APPEND = 1008,
	NAMES = 4,
	UNLINK_AFTER = 14,
	KINDS = 7
};

static const char *failed_call;

static int failed(const char *call)
{
	failed_call = call;
	return -1;
}

static void print_result(int r)
{
	if (r)
		printf("%s:%s\n", failed_call, errno ? strerrorname_np(errno) : "wrong");
	else
		puts("ok");
}

static bool has_mode(const char *modes, const char *mode)
{
	size_t len = strlen(mode);

	for (const char *p = strstr(modes, mode); p; p = strstr(p + 1, mode))
		if ((p == modes || p[-1] == ',') && (!p[len] || p[len] == ','))
			return true;
	return false;
}

static unsigned char *block_memory(void)
{
	void *p;

	if (posix_memalign(&p, 4096, MAX_BLOCK + RECORD)) {
		fprintf(stderr, "vmio: out of memory\n");
		exit(2);
	}
	return p;
}

/* The bytes that step writes at off, which is a multiple of RECORD. */
static void fill(unsigned char *buf, size_t len, unsigned long step, unsigned long off)
{
	for (size_t i = 0; i < len; i += RECORD) {
		char rec[RECORD + 1];

		snprintf(rec, sizeof(rec), "%07lu:%07lx\n", step % 10000000,
			 (off + i) / RECORD % 0x10000000);
		memcpy(buf + i, rec, len - i < RECORD ? len - i : RECORD);
	}
}

/* ---- single calls ---- */

static int write_range(int fd, unsigned long off, size_t len, size_t block, unsigned long step)
{
	unsigned char *buf = block_memory();
	int err = 0;

	for (size_t done = 0; done < len && !err;) {
		size_t n = len - done < block ? len - done : block;

		fill(buf, n, step, off + done);
		errno = 0;
		ssize_t w = pwrite(fd, buf, n, (off_t)(off + done));
		if (w <= 0)
			err = failed("write");
		done += w > 0 ? (size_t)w : 0;
	}
	free(buf);
	return err;
}

static int read_range(int fd, unsigned long off, size_t len, size_t block, unsigned long step)
{
	unsigned char *want = block_memory(), *buf = block_memory();
	int err = 0;

	for (size_t done = 0; done < len && !err; done += block) {
		size_t n = len - done < block ? len - done : block;

		fill(want, n, step, off + done);
		errno = 0;
		ssize_t got = pread(fd, buf, n, (off_t)(off + done));
		if (got < 0)
			err = failed("read");
		else if ((size_t)got != n)
			err = failed("short read");
		else if (memcmp(want, buf, n))
			err = failed("compare");
	}
	free(want);
	free(buf);
	return err;
}

static int open_modes(const char *path, int flags, const char *modes)
{
	flags |= O_CLOEXEC | (has_mode(modes, "direct") ? O_DIRECT : 0) |
		 (has_mode(modes, "dsync") ? O_DSYNC : 0);
	int fd = open(path, flags | (has_mode(modes, "create") ? O_CREAT : 0), 0644);
	return fd < 0 ? failed("open") : fd;
}

static int do_write(const char *path, unsigned long off, size_t len, size_t block,
		    unsigned long step, const char *modes)
{
	int fd = open_modes(path, O_WRONLY, modes);
	int err = fd < 0 ? -1 : write_range(fd, off, len, block, step);

	if (!err && has_mode(modes, "fsync") && fsync(fd))
		err = failed("fsync");
	if (fd >= 0 && close(fd) && !err)
		err = failed("close");
	return err;
}

static int do_range(int argc, char **argv)
{
	if (argc != 8)
		return -2;
	unsigned long off = strtoul(argv[3], NULL, 0), step = strtoul(argv[6], NULL, 0);
	size_t len = strtoul(argv[4], NULL, 0), block = strtoul(argv[5], NULL, 0);
	if (!block || block > MAX_BLOCK)
		return -2;
	if (!strcmp(argv[1], "write"))
		return do_write(argv[2], off, len, block, step, argv[7]);
	int fd = open_modes(argv[2], O_RDONLY, argv[7]);
	return fd < 0 ? -1 : read_range(fd, off, len, block, step);
}

static int list_dir(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;

	if (!d)
		return -1;
	do {
		errno = 0;
		e = readdir(d);
	} while (e);
	return errno ? -1 : 0;
}

static int fsync_path(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return failed("open");
	if (fsync(fd))
		return failed("fsync");
	return close(fd) ? failed("close") : 0;
}

static int do_call(const char *call, const char *path, const char *name)
{
	static char value[65536];
	struct stat st;

	if (!strcmp(call, "stat"))
		return stat(path, &st);
	if (!strcmp(call, "open"))
		return open(path, O_RDONLY | O_CLOEXEC) < 0 ? -1 : 0;
	if (!strcmp(call, "create"))
		return open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644) < 0 ? -1 : 0;
	if (!strcmp(call, "mkdir"))
		return mkdir(path, 0755);
	if (!strcmp(call, "unlink"))
		return unlink(path);
	if (!strcmp(call, "fsync"))
		return fsync_path(path);
	if (!strcmp(call, "list"))
		return list_dir(path);
	if (!strcmp(call, "getxattr") && name)
		return getxattr(path, name, value, sizeof(value)) < 0 ? -1 : 0;
	if (!strcmp(call, "setxattr") && name)
		return setxattr(path, name, "value", 5, 0);
	return -2;
}

/* ---- steps ---- */

static char *in_dir(char *buf, size_t size, const char *dir, const char *kind, unsigned long n)
{
	snprintf(buf, size, "%s/%s%lu", dir, kind, n);
	return buf;
}

static unsigned long step_length(unsigned long n) { return 1 + n * 2654435761u % 20000; }

static int step_rename(const char *dir, unsigned long n)
{
	char tmp[300], name[300];

	in_dir(tmp, sizeof(tmp), dir, "tmp", n);
	if (do_write(tmp, 0, step_length(n), MAX_BLOCK, n, "create,fsync"))
		return -1;
	if (rename(tmp, in_dir(name, sizeof(name), dir, "name", n % NAMES)))
		return failed("rename");
	return fsync_path(dir);
}

static int step_dir(const char *dir, unsigned long n)
{
	char path[300], file[310];

	if (mkdir(in_dir(path, sizeof(path), dir, "dir", n), 0755) && errno != EEXIST)
		return failed("mkdir");
	snprintf(file, sizeof(file), "%s/file", path);
	return do_write(file, 0, step_length(n), MAX_BLOCK, n, "create,fsync");
}

static int step_unlink(const char *dir, unsigned long n)
{
	char path[300];

	if (unlink(in_dir(path, sizeof(path), dir, "gone", n - UNLINK_AFTER)) && errno != ENOENT)
		return failed("unlink");
	if (do_write(in_dir(path, sizeof(path), dir, "gone", n), 0, step_length(n), MAX_BLOCK, n,
		     "create"))
		return -1;
	return fsync_path(dir) ? -1 : fsync_path(path);
}

static int step(const char *dir, unsigned long n)
{
	char path[300];

	switch (n % KINDS) {
	case 0: /* a new file */
		return do_write(in_dir(path, sizeof(path), dir, "file", n), 0, step_length(n),
				MAX_BLOCK, n, "create,fsync");
	case 1: /* a new file, written directly */
		in_dir(path, sizeof(path), dir, "direct", n);
		return do_write(path, 0, SLOT * (1 + n % 5), SLOT, n, "create,direct,fsync");
	case 2: /* an overwrite that is durable when it returns */
		snprintf(path, sizeof(path), "%s/slots", dir);
		return do_write(path, n / KINDS % SLOTS * SLOT, SLOT, SLOT, n,
				"create,direct,dsync");
	case 3: /* an append */
		snprintf(path, sizeof(path), "%s/log", dir);
		return do_write(path, n / KINDS * APPEND, APPEND, APPEND, n, "create,fsync");
	case 4: /* a file that replaces another */
		return step_rename(dir, n);
	case 5: /* a directory */
		return step_dir(dir, n);
	default: /* an older file is removed, a new one created */
		return step_unlink(dir, n);
	}
}

static int mark(int fd, unsigned long off, unsigned long n)
{
	unsigned char *buf = block_memory();
	ssize_t w;

	memset(buf, 0, SLOT);
	snprintf((char *)buf, SLOT, "STEP %lu\n", n);
	errno = 0;
	w = pwrite(fd, buf, SLOT, (off_t)off);
	free(buf);
	return w == SLOT ? 0 : failed("mark");
}

static int do_steps(int argc, char **argv)
{
	if (argc != 5 && argc != 7)
		return -2;
	int fd = argc == 7 ? open(argv[5], O_WRONLY | O_DIRECT | O_CLOEXEC) : -1;
	if (argc == 7 && fd < 0)
		return failed("open");
	for (unsigned long n = strtoul(argv[3], NULL, 0); n <= strtoul(argv[4], NULL, 0); n++) {
		if (step(argv[2], n) || (fd >= 0 && mark(fd, strtoul(argv[6], NULL, 0), n))) {
			printf("step %lu: ", n);
			return -1;
		}
		printf("STEP %lu\n", n);
		fflush(stdout);
		if (isatty(STDOUT_FILENO))
			tcdrain(STDOUT_FILENO); /* the host must know before the next step begins */
	}
	puts("DONE");
	fflush(stdout);
	return 0;
}

enum { SHORT = 100, STORED = 200, GROWN = 1000 };

/* Between the old end and the bytes that a write has added, the file must hold zeroes. */
static int do_zeroes(const char *file)
{
	char buf[GROWN];
	int fd = open(file, O_RDONLY);

	if (fd < 0)
		return failed("open");
	errno = 0;
	if (read(fd, buf, sizeof(buf)) != sizeof(buf))
		return failed("read");
	close(fd);
	for (unsigned k = SHORT; k < GROWN; k++)
		if (buf[k])
			return failed("read");
	return 0;
}

static int grow(int fd, const char *how)
{
	if (!strcmp(how, "write"))
		return pwrite(fd, "x", 1, GROWN) == 1 ? 0 : failed("write");
	if (!strcmp(how, "truncate"))
		return ftruncate(fd, GROWN) ? failed("truncate") : 0;
	return fallocate(fd, 0, GROWN - 10, 10) ? failed("fallocate") : 0;
}

static int do_mapped(const char *file, const char *how)
{
	char part[SHORT];
	int fd = open(file, O_RDWR | O_CREAT | O_TRUNC, 0644);

	if (fd < 0)
		return failed("open");
	memset(part, 'a', sizeof(part));
	if (write(fd, part, sizeof(part)) != sizeof(part))
		return failed("write");
	char *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED)
		return failed("mmap");
	memset(m + STORED, 0xee, SHORT);
	int err = grow(fd, how);
	munmap(m, 4096);
	close(fd);
	return err ? err : do_zeroes(file);
}

int main(int argc, char **argv)
{
	int err = -2;

	if (argc > 1 && (!strcmp(argv[1], "write") || !strcmp(argv[1], "read"))) {
		err = do_range(argc, argv);
	} else if (argc > 1 && !strcmp(argv[1], "steps")) {
		err = do_steps(argc, argv);
		if (!err)
			return 0;
	} else if (argc == 4 && !strcmp(argv[1], "mapped")) {
		err = do_mapped(argv[2], argv[3]);
	} else if (argc == 3 && !strcmp(argv[1], "zeroes")) {
		err = do_zeroes(argv[2]);
	} else if (argc == 3 || argc == 4) {
		err = do_call(argv[1], argv[2], argc == 4 ? argv[3] : NULL);
		if (err == -1) {
			puts(strerrorname_np(errno));
			return 1;
		}
	}
	if (err == -2) {
		fprintf(stderr, "vmio: wrong arguments\n");
		return 2;
	}
	print_result(err);
	return err ? 1 : 0;
}
