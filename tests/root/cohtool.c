/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checks of coherence between the ways to do I/O on one file, for the root tests. Each check runs
 * readers and writers at the same time (lockstep: in turn) and compares what is read. The tests run
 * it as a program; it prints one line that begins with "ok" and exits with 0, or prints what went
 * wrong and exits with 1.
 *
 *   cohtool stale FILE aio|uring         asynchronous direct writes, while readers fill the page
 *                                        cache
 *   cohtool mapdirect FILE               stores through a mapping, direct reads by another thread
 *   cohtool selfbuf FILE                 direct I/O whose buffer is a mapping of the same file
 *   cohtool tail FILE WRITER READER      a file grows and a reader follows; WRITER is buffered,
 *                                        direct or aio, READER buffered, direct or map
 *   cohtool append FILE direct|buffered  several processes write with O_APPEND
 *   cohtool fork FILE                    fork(2) while direct reads are in flight
 *   cohtool sectors FILE                 asynchronous writes of single sectors fill a hole, several
 *                                        in each block
 *   cohtool odd FILE                     two writers of different kinds fill a hole, one the odd
 *                                        blocks, one the even ones
 *   cohtool shrink FILE FOREIGN          truncate and punch during direct I/O; the byte FOREIGN, of
 *                                        deleted files, never shows
 *   cohtool lockstep FILE                writes in four ways, each followed by a read in one of
 *                                        four ways
 *
 * This file has the functions that all checks use, and the checks stale, mapdirect, selfbuf, tail,
 * fork and lockstep, which test that a reader sees what a writer wrote. Those in which blocks are
 * allocated and freed meanwhile are in cohtool_space.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cohtool.h"
#include "reap.h" /* after liburing.h */

const char *path;
atomic_int stop;

void die(const char *fmt, ...)
{
	int e = errno;
	va_list ap;

	va_start(ap, fmt);
	fputs("cohtool: ", stderr);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, " (errno %d)\n", e);
	exit(1);
}

void *pages(size_t len)
{
	void *p = aligned_alloc(PAGE, (len + PAGE - 1) / PAGE * PAGE);

	if (!p)
		die("no memory");
	return p;
}

int opened(int flags)
{
	int fd = open(path, flags, 0644);

	if (fd < 0)
		die("open with flags %x", flags);
	return fd;
}

uint32_t rnd(uint64_t *s)
{
	*s = *s * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(*s >> 33);
}

void full_write(int fd, const void *p, size_t n, off_t off)
{
	ssize_t got = pwrite(fd, p, n, off);

	if (got != (ssize_t)n)
		die("pwrite of %zu at %lld: %zd", n, (long long)off, got);
}

void full_read(int fd, void *p, size_t n, off_t off)
{
	ssize_t got = pread(fd, p, n, off);

	if (got != (ssize_t)n)
		die("pread of %zu at %lld: %zd", n, (long long)off, got);
}

static void size_to(size_t n)
{
	int fd = opened(O_RDWR | O_CREAT | O_TRUNC);
	char *p = pages(1 << 20);
	size_t at;

	memset(p, 0x11, 1 << 20);
	for (at = 0; at < n; at += 1 << 20)
		full_write(fd, p, n - at < 1 << 20 ? n - at : 1 << 20, (off_t)at);
	free(p);
	close(fd);
}

void start(pthread_t *t, void *(*fn)(void *), void *arg)
{
	if (pthread_create(t, NULL, fn, arg))
		die("pthread_create");
}

void all_equal(const unsigned char *p, size_t n, int byte, const char *what, off_t at)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != (unsigned char)byte)
			die("%s: %02x at %lld, not %02x", what, p[i], (long long)at + (long long)i,
			    byte);
}

/* ------------------------------------------------------------------ asynchronous I/O */

void queue_init(struct queue *queue, int by_ring)
{
	memset(queue, 0, sizeof *queue);
	queue->by_ring = by_ring;
	if (by_ring) {
		if (io_uring_queue_init(MAX_JOBS, &queue->ring, 0))
			die("io_uring_queue_init");
	} else if (syscall(SYS_io_setup, MAX_JOBS, &queue->aio)) {
		die("io_setup");
	}
}

void queue_add(struct queue *queue, unsigned slot, int fd, int is_write, void *buf, size_t len,
	       off_t off)
{
	struct iocb *cb = &queue->cb[slot], *list[1] = { cb };

	if (queue->by_ring) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&queue->ring);

		if (!sqe)
			die("the ring is full");
		if (is_write)
			io_uring_prep_write(sqe, fd, buf, (unsigned)len, (uint64_t)off);
		else
			io_uring_prep_read(sqe, fd, buf, (unsigned)len, (uint64_t)off);
		io_uring_sqe_set_data64(sqe, slot);
		if (io_uring_submit(&queue->ring) != 1)
			die("io_uring_submit");
		return;
	}
	memset(cb, 0, sizeof *cb);
	cb->aio_lio_opcode = is_write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
	cb->aio_fildes = (uint32_t)fd;
	cb->aio_buf = (uintptr_t)buf;
	cb->aio_nbytes = len;
	cb->aio_offset = off;
	cb->aio_data = slot;
	if (syscall(SYS_io_submit, queue->aio, 1L, list) != 1)
		die("io_submit");
}

unsigned queue_wait(struct queue *queue, long *res)
{
	struct io_event ev;
	struct io_uring_cqe *cqe;
	unsigned slot;

	if (queue->by_ring) {
		if (ring_reap(&queue->ring, &cqe))
			die("io_uring_wait_cqe");
		slot = (unsigned)cqe->user_data;
		*res = cqe->res;
		io_uring_cqe_seen(&queue->ring, cqe);
		return slot;
	}
	if (aio_reap(queue->aio, 1, 1, &ev) != 1)
		die("io_getevents");
	*res = (long)ev.res;
	return (unsigned)ev.data;
}

/* ------------------------------------------------------------------ stale */

enum { STALE_SIZE = 4 << 20, STALE_JOBS = 8, STALE_ROUNDS = 40 };

static void *cache_filler(void *arg)
{
	int fd = opened(O_RDONLY);
	char *p = pages(128 << 10);
	uint64_t seed = (uintptr_t)arg;

	while (!stop)
		full_read(fd, p, 4096 + rnd(&seed) % 120000,
			  (off_t)(rnd(&seed) % (STALE_SIZE - (128 << 10))));
	free(p);
	close(fd);
	return NULL;
}

/*
 * Two threads fill the page cache while asynchronous direct writes replace the same data. A read
 * after the completion of a write must return its bytes.
 */
static void run_stale(int by_ring)
{
	static struct queue queue;
	size_t each = STALE_SIZE / STALE_JOBS, len[STALE_JOBS];
	off_t off[STALE_JOBS];
	unsigned char *buf[STALE_JOBS], *got = pages(STALE_SIZE), *map;
	uint64_t seed = 7;
	pthread_t t[2];
	long res;

	size_to(STALE_SIZE);
	queue_init(&queue, by_ring);
	int direct = opened(O_RDWR | O_DIRECT), cached = opened(O_RDONLY);
	map = mmap(NULL, STALE_SIZE, PROT_READ, MAP_SHARED, cached, 0);
	if (map == MAP_FAILED)
		die("mmap");
	for (int i = 0; i < STALE_JOBS; i++)
		buf[i] = pages(each);
	start(&t[0], cache_filler, (void *)1);
	start(&t[1], cache_filler, (void *)2);
	for (int round = 1; round <= STALE_ROUNDS; round++) {
		for (unsigned i = 0; i < STALE_JOBS; i++) {
			len[i] = (1 + rnd(&seed) % (each / SECTOR / 2)) * SECTOR;
			off[i] = (off_t)(i * each +
					 rnd(&seed) % ((each - len[i]) / SECTOR) * SECTOR);
			memset(buf[i], round + (int)i, len[i]);
			queue_add(&queue, i, direct, 1, buf[i], len[i], off[i]);
		}
		for (int n = 0; n < STALE_JOBS; n++) {
			unsigned i = queue_wait(&queue, &res);

			if (res != (long)len[i])
				die("asynchronous write of %zu: %ld", len[i], res);
			full_read(cached, got, len[i], off[i]);
			all_equal(got, len[i], round + (int)i,
				  "cached read after an asynchronous write", off[i]);
			all_equal(map + off[i], len[i], round + (int)i,
				  "mapping after an asynchronous write", off[i]);
		}
	}
	stop = 1;
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	printf("ok %d writes\n", STALE_ROUNDS * STALE_JOBS);
}

/* ------------------------------------------------------------------ mapdirect */

enum { MD_PAGES = 16, MD_ROUNDS = 3000 };
static atomic_uint md_published[MD_PAGES];

static void *map_storer(void *arg)
{
	int fd = opened(O_RDWR);
	uint32_t *map = mmap(NULL, MD_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		die("mmap");
	for (uint32_t n = 1; n <= MD_ROUNDS; n++)
		for (unsigned p = 0; p < MD_PAGES; p += 1 + n % 3) {
			__atomic_store_n(&map[p * PAGE / 4 + 5], n, __ATOMIC_RELEASE);
			atomic_store(&md_published[p], n);
		}
	stop = 1;
	return arg;
}

/* A direct read must return every store through the mapping that was made before it began. */
static void run_mapdirect(void)
{
	uint32_t *p;
	unsigned reads = 0, want[MD_PAGES];
	pthread_t t;

	size_to(MD_PAGES * PAGE);
	int fd = opened(O_RDWR), direct = opened(O_RDONLY | O_DIRECT);
	p = pages(MD_PAGES * PAGE);
	memset(p, 0, MD_PAGES * PAGE);
	full_write(fd, p, MD_PAGES * PAGE, 0);
	start(&t, map_storer, NULL);
	while (!stop) {
		for (unsigned i = 0; i < MD_PAGES; i++)
			want[i] = atomic_load(&md_published[i]);
		full_read(direct, p, MD_PAGES * PAGE, 0);
		for (unsigned i = 0; i < MD_PAGES; i++)
			if (p[i * PAGE / 4 + 5] < want[i])
				die("direct read shows %u in page %u, where %u had been stored",
				    p[i * PAGE / 4 + 5], i, want[i]);
		reads++;
	}
	pthread_join(t, NULL);
	full_read(direct, p, MD_PAGES * PAGE, 0);
	for (unsigned i = 0; i < MD_PAGES; i++)
		if (p[i * PAGE / 4 + 5] != atomic_load(&md_published[i]))
			die("the last direct read shows %u in page %u", p[i * PAGE / 4 + 5], i);
	printf("ok %u reads\n", reads);
}

/* ------------------------------------------------------------------ selfbuf */

enum { SELF_HALF = 256 << 10 };

/*
 * Direct I/O with a mapping of the same file as its buffer: it must end, in full or with EFAULT. A
 * write may also fail with EBUSY: with parallel_dio, if buffer and range overlap.
 */
static const char *self_one(int direct, unsigned char *map, off_t mem, off_t file, int is_write,
			    int by_aio)
{
	static struct queue queue;
	static int ready;
	long res;

	if (!ready++)
		queue_init(&queue, 0);
	if (by_aio) {
		queue_add(&queue, 0, direct, is_write, map + mem, SELF_HALF, file);
		queue_wait(&queue, &res);
	} else {
		res = is_write ? pwrite(direct, map + mem, SELF_HALF, file)
			       : pread(direct, map + mem, SELF_HALF, file);
		if (res < 0)
			res = -errno;
	}
	if (res == SELF_HALF)
		return "full";
	if (res == -EFAULT)
		return "EFAULT";
	if (res == -EBUSY && is_write)
		return "EBUSY";
	errno = (int)-res;
	die("direct %s at %lld with memory at %lld of the mapping: %ld",
	    is_write ? "write" : "read", (long long)file, (long long)mem, res);
	return NULL;
}

static void run_selfbuf(void)
{
	unsigned char *check = pages(2 * SELF_HALF);

	printf("ok");
	for (int k = 0; k < 16; k++) {
		int is_write = k & 1, by_aio = k & 2, same = k & 4, touched = k & 8;
		int fd = opened(O_RDWR | O_CREAT | O_TRUNC), direct = opened(O_RDWR | O_DIRECT);
		off_t mem = 0, file = same ? 0 : SELF_HALF;

		for (size_t i = 0; i < 2 * SELF_HALF; i++)
			check[i] = (unsigned char)(i / PAGE + i / SELF_HALF * 100 + i % 7);
		full_write(fd, check, 2 * SELF_HALF, 0);
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		unsigned char *map = mmap(NULL, 2 * SELF_HALF, PROT_READ | PROT_WRITE, MAP_SHARED,
					  fd, 0);
		if (map == MAP_FAILED)
			die("mmap");
		for (size_t i = 0; touched && i < 2 * SELF_HALF; i += PAGE)
			*(volatile unsigned char *)(map + i) = map[i]; /* dirty */
		const char *how = self_one(direct, map, mem, file, is_write, by_aio);
		printf(" %s", how);
		if (how[0] == 'f' && !same)
			memmove(check + (is_write ? file : mem), check + (is_write ? mem : file),
				SELF_HALF);
		unsigned char *again = pages(2 * SELF_HALF);
		full_read(fd, again, 2 * SELF_HALF, 0);
		/* A read that failed may have stored its first bytes in the mapping. */
		if (how[0] == 'f' || is_write)
			for (size_t i = 0; i < 2 * SELF_HALF; i++)
				if (again[i] != check[i])
					die("case %d: %02x at %zu, not %02x", k, again[i], i,
					    check[i]);
		munmap(map, 2 * SELF_HALF);
		full_read(direct, again, 2 * SELF_HALF, 0);
		if (how[0] == 'f' && memcmp(again, check, 2 * SELF_HALF))
			die("case %d: a direct read differs", k);
		free(again);
		close(fd);
		close(direct);
	}
	puts("");
}

/* ------------------------------------------------------------------ tail */

enum { TAIL_TOTAL = 3 << 20, TAIL_STEP = 6 * SECTOR };
static const char *tail_writer_kind;
static atomic_size_t tail_done;	/* the size after the last write that has returned */

static unsigned char tail_byte(size_t at)
{
	return (unsigned char)(1 + (at / SECTOR * 7 + at % 13) % 251);
}

static void *tail_writer(void *arg)
{
	static struct queue queue;
	int aio = !strcmp(tail_writer_kind, "aio");
	int direct = aio || !strcmp(tail_writer_kind, "direct");
	int fd = opened(O_WRONLY | (direct ? O_DIRECT : 0));
	unsigned char *p = pages(TAIL_STEP);
	long res;

	queue_init(&queue, 0);
	for (size_t at = 0; at < TAIL_TOTAL; at += TAIL_STEP) {
		for (size_t i = 0; i < TAIL_STEP; i++)
			p[i] = tail_byte(at + i);
		if (aio) {
			queue_add(&queue, 0, fd, 1, p, TAIL_STEP, (off_t)at);
			queue_wait(&queue, &res);
			if (res != TAIL_STEP)
				die("asynchronous append: %ld", res);
		} else {
			full_write(fd, p, TAIL_STEP, (off_t)at);
		}
		atomic_store(&tail_done, at + TAIL_STEP);
	}
	return arg;
}

/*
 * A read must return the bytes of every write that has returned, and no bytes that were not
 * written. (While a direct write extends the file, reads through the page cache may return zeroes
 * for the new range, on any file system. And with FUSE, stat may show a new size before a read can
 * use it.)
 */
static void run_tail(const char *writer, const char *reader)
{
	int direct = !strcmp(reader, "direct"), map = !strcmp(reader, "map");
	int strict = direct || !strcmp(writer, "buffered");
	unsigned char *p = pages(1 << 20), *m;
	size_t seen = 0, last_size = 0;
	unsigned looks = 0;
	pthread_t t;

	close(opened(O_RDWR | O_CREAT | O_TRUNC));
	int fd = opened(O_RDONLY | (direct ? O_DIRECT : 0));
	m = mmap(NULL, TAIL_TOTAL, PROT_READ, MAP_SHARED, fd, 0);
	tail_writer_kind = writer;
	start(&t, tail_writer, NULL);
	while (seen < TAIL_TOTAL) {
		struct stat st;
		size_t done = atomic_load(&tail_done),
		       from = direct ? seen / SECTOR * SECTOR : seen;
		size_t n = done < from ? 0 : done - from < 1 << 20 ? done - from : 1 << 20;

		if (fstat(fd, &st))
			die("fstat");
		if ((size_t)st.st_size < last_size || (size_t)st.st_size < done)
			die("the size is %lld, after %zu, with %zu bytes written",
			    (long long)st.st_size, last_size, done);
		last_size = (size_t)st.st_size;
		if (map) {
			memcpy(p, m + from, n);
		} else {
			/* The file may have grown since. */
			ssize_t got = pread(fd, p, 1 << 20, (off_t)from);
			if (got < (ssize_t)n)
				die("read %zd bytes at %zu where %zu are", got, from, n);
			if (strict)
				n = (size_t)got;
		}
		for (size_t i = 0; i < n; i++)
			if (p[i] != tail_byte(from + i))
				die("%s reader of a %s writer: %02x at %zu, not %02x; %zu were "
				    "written, the size was %zu",
				    reader, writer, p[i], from + i, tail_byte(from + i), done,
				    last_size);
		seen = from + n;
		looks++;
	}
	pthread_join(t, NULL);
	printf("ok %u looks\n", looks);
}

/* ------------------------------------------------------------------ fork */

static void run_fork(void)
{
	static struct queue queue;
	enum { N = 32, LEN = 16 << 10 };
	unsigned char *buf = pages(N * LEN);
	int status;
	long res;

	size_to(N * LEN);
	int fd = opened(O_RDWR), direct = opened(O_RDONLY | O_DIRECT);
	for (int i = 0; i < N * LEN / PAGE; i++) {
		memset(buf, i + 1, PAGE);
		full_write(fd, buf, PAGE, (off_t)i * PAGE);
	}
	queue_init(&queue, 0);
	for (int round = 0; round < 20; round++) {
		pid_t child;

		memset(buf, 0, N * LEN);
		for (unsigned i = 0; i < N; i++)
			queue_add(&queue, i, direct, 0, buf + i * LEN, LEN, (off_t)i * LEN);
		child = fork();
		if (child < 0)
			die("fork");
		if (!child) {
			memset(buf, 0xee, N * LEN);
			_exit(0);
		}
		buf[0] = buf[0]; /* the parent too writes to a page after the fork */
		for (int i = 0; i < N; i++) {
			queue_wait(&queue, &res);
			if (res != LEN)
				die("read: %ld", res);
		}
		if (waitpid(child, &status, 0) != child || status)
			die("the child ended with %x", status);
		for (int i = 0; i < N * LEN / PAGE; i++)
			all_equal(buf + i * PAGE + 1, PAGE - 1, i + 1, "direct read over a fork",
				  (off_t)i * PAGE);
	}
	puts("ok");
}

/* ------------------------------------------------------------------ lockstep */

/*
 * Without concurrency: each way to read returns what any way to write has just written. Descriptors
 * and the mapping stay open.
 */
static void run_lockstep(void)
{
	static struct queue queue;
	enum { LEN = 48 << 10, AT = 20 << 10 };
	unsigned char *p = pages(LEN), *got = pages(LEN);
	uint64_t seed = 3;
	long res;

	size_to(1 << 20);
	queue_init(&queue, 0);
	int fd = opened(O_RDWR), direct = opened(O_RDWR | O_DIRECT), other = opened(O_RDWR);
	unsigned char *map = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, other, 0);
	if (map == MAP_FAILED)
		die("mmap");
	for (int n = 0; n < 400; n++) {
		int way_to_write = (int)(rnd(&seed) % 4), way_to_read = n % 4;
		off_t at = AT + rnd(&seed) % 16 * SECTOR;
		size_t len = (1 + rnd(&seed) % (LEN / SECTOR - 16)) * SECTOR;

		memset(p, n + 1, len);
		if (way_to_write == 0) {
			full_write(fd, p, len, at);
		} else if (way_to_write == 1) {
			full_write(direct, p, len, at);
		} else if (way_to_write == 2) {
			queue_add(&queue, 0, direct, 1, p, len, at);
			queue_wait(&queue, &res);
			if (res != (long)len)
				die("asynchronous write: %ld", res);
		} else {
			memcpy(map + at, p, len);
		}
		memset(got, 0, len);
		if (way_to_read == 0) {
			full_read(fd, got, len, at);
		} else if (way_to_read == 1) {
			full_read(direct, got, len, at);
		} else if (way_to_read == 2) {
			queue_add(&queue, 0, direct, 0, got, len, at);
			queue_wait(&queue, &res);
			if (res != (long)len)
				die("asynchronous read: %ld", res);
		} else {
			memcpy(got, map + at, len);
		}
		if (memcmp(got, p, len)) {
			size_t i = 0;

			while (got[i] == p[i])
				i++;
			die("round %d: written way %d, read way %d, %02x at %lld, not %02x", n,
			    way_to_write, way_to_read, got[i], (long long)at + (long long)i, p[i]);
		}
	}
	puts("ok");
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "", *a = argc > 3 ? argv[3] : "",
		   *b = argc > 4 ? argv[4] : "";

	path = argc > 2 ? argv[2] : "";
	if (!strcmp(what, "stale"))
		run_stale(!strcmp(a, "uring"));
	else if (!strcmp(what, "mapdirect"))
		run_mapdirect();
	else if (!strcmp(what, "selfbuf"))
		run_selfbuf();
	else if (!strcmp(what, "tail") && argc == 5)
		run_tail(a, b);
	else if (!strcmp(what, "append"))
		run_append(!strcmp(a, "direct"));
	else if (!strcmp(what, "fork"))
		run_fork();
	else if (!strcmp(what, "sectors"))
		run_sectors();
	else if (!strcmp(what, "odd"))
		run_odd();
	else if (!strcmp(what, "shrink") && argc == 4)
		run_shrink((int)strtol(a, NULL, 0));
	else if (!strcmp(what, "lockstep"))
		run_lockstep();
	else {
		fputs("usage: cohtool CHECK FILE ... (see the source)\n", stderr);
		return 2;
	}
	return 0;
}
