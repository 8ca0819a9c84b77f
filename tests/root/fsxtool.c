/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random operations on one file, compared with a model of it in memory: every way to read, write,
 * grow, truncate and punch a file; each result is compared at once. The root tests and the stress
 * test run it as a program of one thread, so that a failure repeats with its seed.
 *
 *   fsxtool FILE SEED OPERATIONS MAXLEN ALIGN [KEY=VALUE...]
 *     Creates or empties FILE, which grows to at most MAXLEN bytes. Offsets and lengths of direct
 *     I/O are multiples of ALIGN (1: any). Keys:
 *       seconds=N   ends after N seconds, before OPERATIONS are done
 *       only=NAMES  only these operations, separated by commas
 *       not=NAMES   all but these
 *     Prints "SIZE CRC32 OPERATIONS", which the caller may compare after a remount, and exits with
 *     0. If anything differs it prints what and where and the last operations, and exits with 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <liburing.h>
#include <linux/aio_abi.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "reap.h" /* after liburing.h */

#ifndef FALLOC_FL_KEEP_SIZE
#define FALLOC_FL_KEEP_SIZE 1
#define FALLOC_FL_PUNCH_HOLE 2
#define FALLOC_FL_ZERO_RANGE 16
#endif

enum { PAGE = 4096, MAX_IO = 128 << 10, LOG_LINES = 40, ASYNC = 8, VECTORS = 12 };

static const char *path;
static unsigned char *good;	/* the expected contents of the file; zero from size on */
static unsigned char *io;	/* MAX_IO + PAGE bytes, page-aligned */
static size_t size, max_len, align;
static uint64_t rng_state;
static unsigned long op_nr;
static int buffered = -1, direct = -1;
static int map_dirty;		/* the mapping was written since the last sync */
static unsigned char *kept;	/* NULL, or a mapping of max_len bytes for several operations */
static char log_lines[LOG_LINES][160];
static aio_context_t aio;
static struct io_uring ring;
static int have_ring;

static uint32_t rnd(void)
{
	rng_state = rng_state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(rng_state >> 33);
}

static size_t below(size_t n)
{
	return n ? rnd() % n : 0;
}

static void note(const char *fmt, ...)
{
	va_list ap;
	int n = snprintf(log_lines[op_nr % LOG_LINES], sizeof log_lines[0], "%lu: ", op_nr);

	va_start(ap, fmt);
	vsnprintf(log_lines[op_nr % LOG_LINES] + n, sizeof log_lines[0] - (size_t)n, fmt, ap);
	va_end(ap);
}

static void failed(const char *fmt, ...)
{
	unsigned long i;
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "fsxtool: operation %lu: ", op_nr);
	vfprintf(stderr, fmt, ap);
	fputs("\n", stderr);
	va_end(ap);
	for (i = op_nr >= LOG_LINES ? op_nr - LOG_LINES + 1 : 0; i <= op_nr; i++)
		fprintf(stderr, "  %s\n", log_lines[i % LOG_LINES]);
	exit(1);
}

static void must(int ok, const char *what)
{
	if (!ok)
		failed("%s: %s", what, strerror(errno));
}

static int fd_buffered(void)
{
	if (buffered < 0)
		must((buffered = open(path, O_RDWR)) >= 0, "open");
	return buffered;
}

static int fd_direct(void)
{
	if (direct < 0)
		must((direct = open(path, O_RDWR | O_DIRECT)) >= 0, "open O_DIRECT");
	return direct;
}

/* Bytes that depend on the number of the operation and differ from page to page. */
static void fill(unsigned char *p, size_t off, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		p[i] = (unsigned char)(1 +
				       (op_nr * 37 + (off + i) * 11 + ((off + i) >> 9) * 5) % 255);
}

static void wrote(size_t off, size_t len)
{
	fill(good + off, off, len);
	if (off + len > size)
		size = off + len;
}

static void compare(const unsigned char *got, size_t off, size_t len, const char *how)
{
	size_t i, n = 0;

	if (!memcmp(got, good + off, len))
		return;
	for (i = 0; got[i] == good[off + i]; i++)
		;
	for (size_t k = i; k < len; k++)
		n += got[k] != good[off + k];
	failed("%s at %zu, %zu bytes: byte %zu is %02x, not %02x; %zu differ; the size is %zu", how,
	       off, len, off + i, got[i], good[off + i], n, size);
}

static void range(size_t *off, size_t *len, size_t unit)
{
	size_t n = below(8) ? 1 + below(16 << 10) : 1 + below(MAX_IO);

	*off = below(max_len) / unit * unit;
	*len = (n + unit - 1) / unit * unit;
	if (*len > MAX_IO)
		*len = MAX_IO;
	if (*off + *len > max_len)
		*len = (max_len - *off) / unit * unit;
}

static size_t readable(size_t off, size_t len)
{
	return off >= size ? 0 : size - off < len ? size - off : len;
}

/* A buffer for direct I/O need not start at a page. */
static unsigned char *shifted(void)
{
	return io + (below(2) ? 0 : below(8) * 512);
}

static void op_read(void)
{
	size_t off, len;

	range(&off, &len, 1);
	note("read %zu+%zu", off, len);
	ssize_t got = pread(fd_buffered(), io, len, (off_t)off);
	if (got != (ssize_t)readable(off, len))
		failed("read at %zu, %zu bytes: %zd, not %zu; the size is %zu", off, len, got,
		       readable(off, len), size);
	compare(io, off, (size_t)got, "read");
}

static void op_write(void)
{
	size_t off, len;

	range(&off, &len, 1);
	note("write %zu+%zu", off, len);
	fill(io, off, len);
	must(pwrite(fd_buffered(), io, len, (off_t)off) == (ssize_t)len, "write");
	wrote(off, len);
}

static void op_dread(void)
{
	size_t off, len;
	unsigned char *buf = shifted();

	range(&off, &len, align);
	note("dread %zu+%zu", off, len);
	ssize_t got = pread(fd_direct(), buf, len, (off_t)off);
	if (got != (ssize_t)readable(off, len))
		failed("direct read at %zu, %zu bytes: %zd (%s), not %zu; the size is %zu", off,
		       len, got, got < 0 ? strerror(errno) : "", readable(off, len), size);
	compare(buf, off, (size_t)got, "direct read");
}

static void op_dwrite(void)
{
	size_t off, len;
	unsigned char *buf = shifted();

	range(&off, &len, align);
	if (!len)
		return;
	note("dwrite %zu+%zu", off, len);
	fill(buf, off, len);
	must(pwrite(fd_direct(), buf, len, (off_t)off) == (ssize_t)len, "direct write");
	wrote(off, len);
}

struct job {
	size_t off, len;
	unsigned char *buf;
	ssize_t res;
};

static void run_aio(struct job *job, int n, int is_write)
{
	struct iocb cb[ASYNC], *list[ASYNC];
	struct io_event ev[ASYNC];
	int i, k, done;

	for (i = 0; i < n; i++) {
		memset(&cb[i], 0, sizeof cb[i]);
		cb[i].aio_lio_opcode = is_write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
		cb[i].aio_fildes = (uint32_t)fd_direct();
		cb[i].aio_buf = (uintptr_t)job[i].buf;
		cb[i].aio_nbytes = job[i].len;
		cb[i].aio_offset = (int64_t)job[i].off;
		cb[i].aio_data = (uint64_t)i;
		list[i] = &cb[i];
	}
	for (k = 0; k < n; k += i)
		must((i = (int)syscall(SYS_io_submit, aio, (long)(n - k), list + k)) > 0,
		     "io_submit");
	for (done = 0; done < n; done += k) {
		must((k = aio_reap(aio, 1, n - done, ev)) > 0, "io_getevents");
		for (i = 0; i < k; i++)
			job[ev[i].data].res = (ssize_t)ev[i].res;
	}
}

static void run_ring(struct job *job, int n, int is_write)
{
	struct io_uring_cqe *cqe;
	int i;

	for (i = 0; i < n; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

		if (is_write)
			io_uring_prep_write(sqe, fd_direct(), job[i].buf, (unsigned)job[i].len,
					    job[i].off);
		else
			io_uring_prep_read(sqe, fd_direct(), job[i].buf, (unsigned)job[i].len,
					   job[i].off);
		io_uring_sqe_set_data64(sqe, (uint64_t)i);
	}
	must(io_uring_submit(&ring) == n, "io_uring_submit");
	for (i = 0; i < n; i++) {
		must(ring_reap(&ring, &cqe) == 0, "io_uring_wait_cqe");
		job[cqe->user_data].res = cqe->res;
		io_uring_cqe_seen(&ring, cqe);
	}
}

/* Several requests at once, whose ranges do not overlap but may share blocks. */
static void op_async(int is_write)
{
	struct job job[ASYNC];
	int n = 1 + (int)below(ASYNC), i, used = 0;
	size_t each = MAX_IO / ASYNC / align * align;
	size_t off = below(max_len) / align * align,
	       gap = below(4) ? 0 : below(9000) / align * align;
	int by_ring = have_ring && below(2);

	for (i = 0; i < n; i++) {
		size_t len = (1 + below(each)) / align * align;

		if (!len)
			len = align;
		if (off + len > max_len)
			break;
		job[used] = (struct job){ .off = off, .len = len, .buf = io + (size_t)i * each };
		if (is_write)
			fill(job[used].buf, off, len);
		used++;
		off += len + gap;
	}
	note("%s %s x%d %zu+%zu gap %zu", by_ring ? "ring" : "aio", is_write ? "write" : "read",
	     used, used ? job[0].off : 0, used ? job[0].len : 0, gap);
	(by_ring ? run_ring : run_aio)(job, used, is_write);
	for (i = 0; i < used; i++) {
		ssize_t want = is_write ? (ssize_t)job[i].len
					: (ssize_t)readable(job[i].off, job[i].len);

		if (job[i].res != want)
			failed("asynchronous %s %d at %zu, %zu bytes: %zd, not %zd; the size is "
			       "%zu",
			       is_write ? "write" : "read", i, job[i].off, job[i].len, job[i].res,
			       want, size);
		if (is_write)
			wrote(job[i].off, job[i].len);
		else
			compare(job[i].buf, job[i].off, (size_t)want, "asynchronous read");
	}
}

static void op_aread(void)
{
	op_async(0);
}

static void op_awrite(void)
{
	op_async(1);
}

/* A page of the CPU: 4 to 64 KiB. */
static size_t map_page(void) { return (size_t)sysconf(_SC_PAGESIZE); }

static unsigned char *map_for(size_t off, size_t len, size_t *pad, int prot)
{
	unsigned char *p;

	*pad = off % map_page();
	p = mmap(NULL, len + *pad, prot, MAP_SHARED, below(4) ? fd_buffered() : fd_direct(),
		 (off_t)(off - *pad));
	must(p != MAP_FAILED, "mmap");
	return p;
}

static void keep_mapping(void)
{
	if (kept)
		return;
	kept = mmap(NULL, max_len, PROT_READ | PROT_WRITE, MAP_SHARED, fd_buffered(), 0);
	must(kept != MAP_FAILED, "mmap");
}

static void op_mapread(void)
{
	size_t off, len, pad;

	range(&off, &len, 1);
	len = readable(off, len);
	if (!len)
		return;
	if (below(2)) {
		keep_mapping();
		note("mapread (kept) %zu+%zu", off, len);
		compare(kept + off, off, len, "mapping");
		return;
	}
	note("mapread %zu+%zu", off, len);
	unsigned char *p = map_for(off, len, &pad, PROT_READ);
	compare(p + pad, off, len, "mapping");
	/* The rest of the file's last page is zero. */
	if (off + len == size)
		for (size_t i = size; i % map_page(); i++)
			if (p[pad + i - off])
				failed("a mapping shows %02x at %zu, past the end at %zu",
				       p[pad + i - off], i, size);
	munmap(p, len + pad);
}

static void op_mapwrite(void)
{
	size_t off, len, pad;

	range(&off, &len, 1);
	len = readable(off, len);
	if (!len)
		return;
	map_dirty = 1;
	if (below(2)) {
		keep_mapping();
		note("mapwrite (kept) %zu+%zu", off, len);
		fill(kept + off, off, len);
		wrote(off, len);
		return;
	}
	int sync = below(2) != 0;
	note("mapwrite %zu+%zu%s", off, len, sync ? " msync" : "");
	unsigned char *p = map_for(off, len, &pad, PROT_READ | PROT_WRITE);
	fill(p + pad, off, len);
	if (sync)
		must(msync(p, len + pad, MS_SYNC) == 0, "msync");
	munmap(p, len + pad);
	wrote(off, len);
}

static void op_truncate(void)
{
	size_t to = below(3) ? below(max_len) : below(size + 1);

	note("truncate %zu (from %zu)", to, size);
	if (below(2))
		must(ftruncate(below(4) ? fd_buffered() : fd_direct(), (off_t)to) == 0,
		     "ftruncate");
	else
		must(truncate(path, (off_t)to) == 0, "truncate");
	if (to < size)
		memset(good + to, 0, size - to);
	size = to;
}

static void op_falloc(void)
{
	static const int modes[] = {
		0,
		FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, /* twice as often */
		FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
	};
	int mode = modes[below(sizeof modes / sizeof *modes)];
	size_t off, len, end;

	range(&off, &len, below(2) ? 1 : PAGE);
	if (!len)
		return;
	note("fallocate mode %d %zu+%zu", mode, off, len);
	must(fallocate(below(4) ? fd_buffered() : fd_direct(), mode, (off_t)off, (off_t)len) == 0,
	     "fallocate");
	end = off + len;
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) && off < size)
		memset(good + off, 0, (end < size ? end : size) - off);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && end > size)
		size = end;
}

static void op_copy(void)
{
	size_t from, len, to;
	loff_t in, out;

	range(&from, &len, 1);
	to = below(max_len);
	len = readable(from, len);
	if (to + len > max_len)
		len = max_len - to;
	if (!len || (from < to + len && to < from + len))
		return;
	note("copy %zu+%zu to %zu", from, len, to);
	for (size_t done = 0; done < len;) {
		in = (loff_t)(from + done);
		out = (loff_t)(to + done);
		ssize_t n = copy_file_range(fd_buffered(), &in, fd_buffered(), &out, len - done, 0);
		must(n > 0, "copy_file_range");
		done += (size_t)n;
	}
	memmove(good + to, good + from, len);
	if (to + len > size)
		size = to + len;
}

static void op_splice(void)
{
	size_t off, len, got = 0;
	int p[2], use_sendfile = below(2) != 0;
	off_t at;

	range(&off, &len, 1);
	if (len > 60000)
		len = 60000;
	note("%s %zu+%zu", use_sendfile ? "sendfile" : "splice", off, len);
	must(pipe(p) == 0, "pipe");
	must(fcntl(p[1], F_SETPIPE_SZ, 1 << 20) > 0, "F_SETPIPE_SZ");
	at = (off_t)off;
	while (got < len) {
		ssize_t n = use_sendfile ? sendfile(p[1], fd_buffered(), &at, len - got)
					 : splice(fd_buffered(), &at, p[1], NULL, len - got, 0);
		must(n >= 0, "splice");
		if (!n)
			break;
		for (ssize_t done = 0, k; done < n; done += k)
			must((k = read(p[0], io + got + (size_t)done, (size_t)(n - done))) > 0,
			     "read from the pipe");
		got += (size_t)n;
	}
	close(p[0]);
	close(p[1]);
	if (got != readable(off, len))
		failed("spliced %zu bytes of %zu at %zu; the size is %zu", got, len, off, size);
	compare(io, off, got, "splice");
}

static void op_append(void)
{
	size_t len = 1 + below(5000), at = size;
	int is_direct = size % align == 0 && below(2);
	int fd;

	if (is_direct)
		len = (len + align - 1) / align * align;
	if (at + len > max_len)
		return;
	note("append %s%zu at %zu", is_direct ? "direct " : "", len, at);
	fd = open(path, O_WRONLY | O_APPEND | (is_direct ? O_DIRECT : 0));
	must(fd >= 0, "open O_APPEND");
	fill(io, at, len);
	must(pwrite(fd, io, len, 0) == (ssize_t)len, "append");
	close(fd);
	wrote(at, len);
}

/* readv and writev: buffered with any lengths, direct with whole sectors. */
static void op_vector(void)
{
	struct iovec v[VECTORS];
	int n = 1 + (int)below(VECTORS), i, is_direct = below(2) != 0, is_write = below(2) != 0;
	size_t unit = is_direct ? align < 512 ? 512 : align : 1, total = 0, at = 0, off;
	unsigned char *copy;

	for (i = 0; i < n; i++) {
		size_t len = below(MAX_IO / VECTORS / 2) / unit * unit;

		v[i] = (struct iovec){ .iov_base = io + at, .iov_len = len };
		at += len + (is_direct ? 512 * below(3) : below(50));
		total += len;
	}
	off = below(max_len) / unit * unit;
	if (!total || off + total > max_len)
		return;
	note("%s%sv x%d %zu+%zu", is_direct ? "direct " : "", is_write ? "write" : "read", n, off,
	     total);
	must((copy = malloc(total)) != NULL, "malloc");
	if (is_write) {
		fill(copy, off, total);
		for (i = 0, at = 0; i < n; at += v[i].iov_len, i++)
			memcpy(v[i].iov_base, copy + at, v[i].iov_len);
		ssize_t put = pwritev(is_direct ? fd_direct() : fd_buffered(), v, n, (off_t)off);

		must(put == (ssize_t)total, "writev");
		wrote(off, total);
	} else {
		ssize_t got = preadv(is_direct ? fd_direct() : fd_buffered(), v, n, (off_t)off);

		if (got != (ssize_t)readable(off, total))
			failed("readv at %zu, %zu bytes: %zd; the size is %zu", off, total, got,
			       size);
		for (i = 0, at = 0; i < n; at += v[i].iov_len, i++)
			memcpy(copy + at, v[i].iov_base, v[i].iov_len);
		compare(copy, off, (size_t)got, "readv");
	}
	free(copy);
}

static void op_sync(void)
{
	int how = (int)below(3);

	note("%s", how == 0 ? "fsync" : how == 1 ? "fdatasync" : "sync_file_range");
	if (how == 0)
		must(fsync(fd_buffered()) == 0, "fsync");
	else if (how == 1)
		must(fdatasync(fd_direct()) == 0, "fdatasync");
	else
		must(sync_file_range(fd_buffered(), 0, 0, SYNC_FILE_RANGE_WRITE) == 0,
		     "sync_file_range");
	if (how < 2)
		map_dirty = 0;
}

static void op_drop(void)
{
	note("drop");
	must(fsync(fd_buffered()) == 0, "fsync");
	posix_fadvise(fd_buffered(), 0, 0, POSIX_FADV_DONTNEED);
	map_dirty = 0;
}

static void op_close(void)
{
	int which = 1 + (int)below(3);

	note("close %d", which);
	if (kept) {
		munmap(kept, max_len);
		kept = NULL;
	}
	if (which & 1 && buffered >= 0) {
		close(buffered);
		buffered = -1;
	}
	if (which & 2 && direct >= 0) {
		close(direct);
		direct = -1;
	}
}

/*
 * The bytes that SEEK_DATA steps over must be zero. (After an fsync: the file system does not know
 * of stores through a mapping that were not written back.)
 */
static void op_seek(void)
{
	size_t off = below(size + 1), i;

	if (map_dirty)
		must(fsync(fd_buffered()) == 0, "fsync");
	map_dirty = 0;
	note("seek %zu", off);
	off_t data = lseek(fd_buffered(), (off_t)off, SEEK_DATA);
	size_t end = data < 0 ? size : (size_t)data;
	if (data < 0 && errno != ENXIO)
		failed("SEEK_DATA: %s", strerror(errno));
	for (i = off; i < end; i++)
		if (good[i])
			failed("SEEK_DATA at %zu went to %zu over data at %zu; the size is %zu",
			       off, end, i, size);
	if (off >= size)
		return;
	off_t hole = lseek(fd_buffered(), (off_t)off, SEEK_HOLE);
	if (hole < (off_t)off || hole > (off_t)size)
		failed("SEEK_HOLE at %zu: %lld; the size is %zu", off, (long long)hole, size);
}

static const struct op {
	const char *name;
	void (*run)(void);
	unsigned weight;
} ops[] = {
	{ "read", op_read, 8 },         { "write", op_write, 10 },
	{ "dread", op_dread, 8 },       { "dwrite", op_dwrite, 10 },
	{ "aread", op_aread, 6 },       { "awrite", op_awrite, 8 },
	{ "mapread", op_mapread, 8 },   { "mapwrite", op_mapwrite, 8 },
	{ "truncate", op_truncate, 5 }, { "falloc", op_falloc, 8 },
	{ "copy", op_copy, 4 },         { "splice", op_splice, 4 },
	{ "append", op_append, 4 },     { "vector", op_vector, 6 },
	{ "sync", op_sync, 2 },         { "drop", op_drop, 2 },
	{ "close", op_close, 8 },       { "seek", op_seek, 3 },
};
enum { NR_OPS = sizeof ops / sizeof *ops };

static void check_size(void)
{
	struct stat st;

	must((buffered >= 0 ? fstat(buffered, &st) : stat(path, &st)) == 0, "stat");
	if ((size_t)st.st_size != size)
		failed("the size is %lld, not %zu", (long long)st.st_size, size);
}

static void check_all(void)
{
	unsigned char *all = aligned_alloc(PAGE, max_len + 2 * PAGE);
	int fd = open(path, O_RDONLY | O_DIRECT);

	must(all && fd >= 0, "the last comparison");
	note("the last comparison");
	must(pread(fd, all, max_len + PAGE, 0) == (ssize_t)size, "direct read of everything");
	compare(all, 0, size, "direct read of everything");
	must(pread(fd_buffered(), all, max_len + PAGE, 0) == (ssize_t)size, "read of everything");
	compare(all, 0, size, "read of everything");
	close(fd);
	free(all);
}

static uint32_t crc(const unsigned char *p, size_t n)
{
	uint32_t c = ~0u;

	while (n--) {
		c ^= *p++;
		for (int k = 0; k < 8; k++)
			c = c >> 1 ^ (c & 1 ? 0xedb88320u : 0);
	}
	return ~c;
}

static int listed(const char *list, const char *name)
{
	size_t n = strlen(name);
	const char *p;

	for (p = list; (p = strstr(p, name)); p += n)
		if ((p == list || p[-1] == ',') && (p[n] == ',' || !p[n]))
			return 1;
	return 0;
}

static void run_all(unsigned long count, long seconds, const unsigned *weight, unsigned total)
{
	time_t end = time(NULL) + seconds;

	for (op_nr = 0; op_nr < count; op_nr++) {
		unsigned k = rnd() % total;
		int i;

		if (seconds && op_nr % 64 == 0 && time(NULL) >= end)
			break;
		for (i = 0; k >= weight[i]; i++)
			k -= weight[i];
		note("%s: nothing to do", ops[i].name);
		ops[i].run();
		check_size();
	}
}

int main(int argc, char **argv)
{
	unsigned weight[NR_OPS], total = 0;
	const char *only = NULL, *without = NULL;
	unsigned long count;
	long seconds = 0;
	int i, fd;

	if (argc < 6) {
		fputs("usage: fsxtool FILE SEED OPERATIONS MAXLEN ALIGN [seconds=N] [only=NAMES] "
		      "[not=NAMES]\n",
		      stderr);
		return 2;
	}
	path = argv[1];
	rng_state = strtoull(argv[2], NULL, 0) * 0x9e3779b97f4a7c15ULL + 1;
	count = strtoul(argv[3], NULL, 0);
	max_len = strtoul(argv[4], NULL, 0);
	align = strtoul(argv[5], NULL, 0);
	for (i = 6; i < argc; i++) {
		if (!strncmp(argv[i], "seconds=", 8))
			seconds = atol(argv[i] + 8);
		else if (!strncmp(argv[i], "only=", 5))
			only = argv[i] + 5;
		else if (!strncmp(argv[i], "not=", 4))
			without = argv[i] + 4;
	}
	for (i = 0; i < NR_OPS; i++) {
		weight[i] = ops[i].weight;
		if (only && !listed(only, ops[i].name))
			weight[i] = 0;
		if (without && listed(without, ops[i].name))
			weight[i] = 0;
		total += weight[i];
	}
	good = calloc(1, max_len + PAGE);
	io = aligned_alloc(PAGE, MAX_IO + 16 * PAGE);
	if (!good || !io || !total || !align || max_len < PAGE) {
		fputs("fsxtool: bad arguments or no memory\n", stderr);
		return 2;
	}
	must((fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644)) >= 0, "create");
	close(fd);
	must(syscall(SYS_io_setup, ASYNC, &aio) == 0, "io_setup");
	have_ring = io_uring_queue_init(ASYNC * 2, &ring, 0) == 0;
	run_all(count, seconds, weight, total);
	check_all();
	printf("%zu %08x %lu\n", size, crc(good, size), op_nr);
	return 0;
}
