/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Steps on open files: data, sizes, positions, locks. Each runs on one side and says what it returned; descriptors are
 * nonblocking, so that none waits for the other end of a FIFO.
 */
#include "differential/diff.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

uint8_t *diff_arena;

void done(struct outcome *o, long r)
{
	o->ret = r;
	o->err = r < 0 ? errno : 0;
}

void say(struct outcome *o, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (o->len + 1 >= TEXT_CAP)
		return;
	va_start(ap, fmt);
	n = vsnprintf(o->text + o->len, TEXT_CAP - o->len, fmt, ap);
	va_end(ap);
	if (n > 0)
		o->len = o->len + (size_t)n < TEXT_CAP ? o->len + (size_t)n : TEXT_CAP - 1;
}

uint64_t hash_bytes(uint64_t h, const void *p, size_t n)
{
	const uint8_t *b = p;

	for (; n >= 8; n -= 8, b += 8) {
		uint64_t w;

		memcpy(&w, b, 8);
		h = (h ^ w) * 0x9fb21c651e98df25u;
		h ^= h >> 29;
	}
	for (; n; n--, b++)
		h = (h ^ *b) * 0x100000001b3u;
	return h ^ h >> 31;
}

void fill_bytes(uint8_t *p, size_t n, uint64_t seed)
{
	struct rng r = { seed };

	for (size_t k = 0; k < n; k += 8) {
		uint64_t w = rnd(&r) | 0x0101010101010101u;

		memcpy(p + k, &w, n - k < 8 ? n - k : 8);
	}
}

static void say_pos(struct outcome *o, int fd)
{
	int saved = errno;

	say(o, " pos %lld", (long long)lseek(fd, 0, SEEK_CUR));
	errno = saved;
}

void run_open(struct side *d, const struct step *s, struct outcome *o)
{
	int fd;

	if (d->fd[s->slot[0]] >= 0)
		close(d->fd[s->slot[0]]);
	d->fd[s->slot[0]] = -1;
	fd = openat(d->root, s->path[0], (int)s->v[0], (mode_t)s->v[1]);
	done(o, fd < 0 ? -1 : 0);
	d->fd[s->slot[0]] = fd;
	if (fd >= 0)
		say(o, "flags %#x", fcntl(fd, F_GETFL));
}

void run_close(struct side *d, const struct step *s, struct outcome *o)
{
	done(o, close(slot_fd(d, s, 0)));
	d->fd[s->slot[0]] = -1;
}

/* Whether memory is aligned FUSE cannot tell us, so it is for O_DIRECT; and in one piece. */
static bool is_direct(int fd)
{
	int fl = fcntl(fd, F_GETFL);

	return fl >= 0 && (fl & O_DIRECT);
}

/* Refused by both; but by then ext4 has changed times and modes and perhaps allocated blocks. */
static bool unaligned_write(int fd, const struct step *s, off_t pos, size_t len, int rwf)
{
	struct stat st;

	if (!is_direct(fd) || fstat(fd, &st))
		return false;
	if ((fcntl(fd, F_GETFL) & O_APPEND) || (rwf & RWF_APPEND))
		pos = st.st_size;
	else if (pos < 0)
		pos = lseek(fd, 0, SEEK_CUR);
	/* What a limit leaves of it is unaligned as well. */
	return (((pos | (off_t)len) & 511) || s->fsize_limit) && diff_allow(ALLOW_DIO_UNALIGNED);
}

void run_read(struct side *d, const struct step *s, struct outcome *o)
{
	int fd = slot_fd(d, s, 0);
	bool direct = is_direct(fd);
	uint8_t *buf = diff_arena + (direct ? 0 : s->v[3]);
	size_t len = (size_t)s->v[2], part = direct ? 0 : len / 3;
	struct iovec iov[3] = { { buf, part }, { buf + part, part }, { buf + 2 * part, len - 2 * part } };
	ssize_t n;

	switch (s->v[0]) {
	case 0: n = read(fd, buf, len); break;
	case 1: n = pread(fd, buf, len, s->v[1]); break;
	case 2: n = readv(fd, iov, 3); break;
	default: n = preadv(fd, iov, 3, s->v[1]); break;
	}
	done(o, n);
	if (n > 0)
		say(o, "data %016" PRIx64, hash_bytes(1, buf, (size_t)n));
	say_pos(o, fd);
}

void run_write(struct side *d, const struct step *s, struct outcome *o)
{
	int fd = slot_fd(d, s, 0);
	bool direct = is_direct(fd);
	uint8_t *buf = diff_arena + (direct ? 0 : s->v[3]);
	size_t len = (size_t)s->v[2], part = direct ? 0 : len / 3;
	struct iovec iov[3] = { { buf, part }, { buf + part, part }, { buf + 2 * part, len - 2 * part } };
	ssize_t n;

	if (unaligned_write(fd, s, s->v[0] & 1 ? s->v[1] : -1, len, 0))
		return;
	fill_bytes(buf, len, s->seed);
	switch (s->v[0]) {
	case 0: n = write(fd, buf, len); break;
	case 1: n = pwrite(fd, buf, len, s->v[1]); break;
	case 2: n = writev(fd, iov, 3); break;
	default: n = pwritev(fd, iov, 3, s->v[1]); break;
	}
	done(o, n);
	say_pos(o, fd);
}

/*
 * Where ext4 has data in its page cache over unwritten blocks, it calls them data; once written out it tells
 * the truth. The side that is the measure is made to.
 */
static void settle(struct side *d, int fd)
{
	if (!d->ours) {
		fdatasync(fd);
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	}
}

static bool is_dir(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISDIR(st.st_mode);
}

void run_seek(struct side *d, const struct step *s, struct outcome *o)
{
	int fd = slot_fd(d, s, 0);
	struct stat st;

	if (s->v[1] != SEEK_SET && s->v[1] != SEEK_CUR && is_dir(fd)) {
		if (d->ours)
			diff_allow(ALLOW_DIR_SEEK);
		return;
	}
	/* FUSE has no limit of its own and would go there. */
	if (s->v[0] > d->max_file || (s->v[1] == SEEK_CUR && lseek(fd, 0, SEEK_CUR) + s->v[0] > d->max_file) ||
	    (s->v[1] == SEEK_END && !fstat(fd, &st) && st.st_size + s->v[0] > d->max_file)) {
		if (d->ours)
			diff_allow(ALLOW_SEEK_FAR);
		return;
	}
	if (s->v[1] == SEEK_DATA || s->v[1] == SEEK_HOLE)
		settle(d, fd);
	done(o, lseek(fd, s->v[0], (int)s->v[1]));
	say_pos(o, fd);
}

void run_holes(struct side *d, const struct step *s, struct outcome *o)
{
	int fd = slot_fd(d, s, 0);
	off_t was = lseek(fd, 0, SEEK_CUR), at = 0;

	if (is_dir(fd))
		return;
	settle(d, fd);
	for (unsigned k = 0; k < 40; k++) {
		off_t to = lseek(fd, at, k & 1 ? SEEK_HOLE : SEEK_DATA);

		done(o, to);
		if (to < 0)
			break;
		say(o, "%s%lld", k & 1 ? "-" : " ", (long long)to);
		at = to;
	}
	lseek(fd, was, SEEK_SET);
}

void run_ftruncate(struct side *d, const struct step *s, struct outcome *o) { done(o, ftruncate(slot_fd(d, s, 0), s->v[0])); }

void run_truncate(struct side *d, const struct step *s, struct outcome *o)
{
	/* There is no truncateat. */
	if (fchdir(d->root))
		return;
	done(o, truncate(s->path[0], s->v[0]));
}

void run_fallocate(struct side *d, const struct step *s, struct outcome *o)
{
	done(o, fallocate(slot_fd(d, s, 0), (int)s->v[0], s->v[1], s->v[2]));
}

static ssize_t through_pipe(int in, off_t *ioff, int out, off_t *ooff, size_t len, bool both)
{
	static int p[2] = { -1, -1 };
	ssize_t n, m;
	size_t left;

	if (p[0] < 0 && (pipe2(p, O_NONBLOCK | O_CLOEXEC) || fcntl(p[1], F_SETPIPE_SZ, 1 << 17) < 0))
		return -1;
	len = len < 60000 ? len : 60000;
	if (both) {
		n = splice(in, ioff, p[1], NULL, len, SPLICE_F_NONBLOCK);
	} else {
		fill_bytes(diff_arena, len, len);
		n = write(p[1], diff_arena, len);
	}
	if (n <= 0)
		return n;
	m = splice(p[0], NULL, out, ooff, (size_t)n, SPLICE_F_NONBLOCK);
	int saved = errno;
	for (left = 1; left && read(p[0], diff_arena, 1 << 17) > 0;)
		;
	errno = saved;
	return m;
}

static bool is_fifo(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISFIFO(st.st_mode);
}

void run_copy(struct side *d, const struct step *s, struct outcome *o)
{
	int in = slot_fd(d, s, 0), out = slot_fd(d, s, 1);
	off_t ioff = s->v[1], ooff = s->v[2], *pi = s->v[1] < 0 ? NULL : &ioff, *po = s->v[2] < 0 ? NULL : &ooff;
	size_t len = (size_t)s->v[3];

	if (is_direct(in) || is_direct(out))
		return;
	/* A FIFO gets the file's pages, not a copy, and would show later stores as long as the page cache keeps them. */
	if (s->v[0] != 3 && is_fifo(out))
		return;
	switch (s->v[0]) {
	case 0: done(o, copy_file_range(in, pi, out, po, len, 0)); break;
	case 1: done(o, sendfile(out, in, pi, len)); break;
	case 2: done(o, through_pipe(in, pi, out, po, len, true)); break;
	default: done(o, through_pipe(-1, NULL, out, po, len, false)); break;
	}
	say_pos(o, in);
	say_pos(o, out);
}

void run_mmap(struct side *d, const struct step *s, struct outcome *o)
{
	int fd = slot_fd(d, s, 0);
	size_t len = (size_t)s->v[2];
	int prot = s->v[0] ? PROT_READ | PROT_WRITE : PROT_READ;
	unsigned fl = 0;
	struct stat st;
	uint8_t *p;

	/* FUSE knows nothing of these flags; with ext4 writing to it would be a signal, or mapping it refused. */
	if (s->v[0] != 2 && !ioctl(fd, FS_IOC_GETFLAGS, &fl) && (fl & (FS_IMMUTABLE_FL | FS_APPEND_FL)))
		return;
	p = mmap(NULL, len, prot, s->v[0] == 2 ? MAP_PRIVATE : MAP_SHARED, fd, s->v[1]);

	done(o, p == MAP_FAILED ? -1 : 0);
	if (p == MAP_FAILED)
		return;
	/* Pages beyond the end are not there. */
	if (fstat(fd, &st) || st.st_size <= s->v[1])
		len = 0;
	else if (len > (size_t)(st.st_size - s->v[1] + 4095) / 4096 * 4096)
		len = (size_t)(st.st_size - s->v[1] + 4095) / 4096 * 4096;
	if (s->v[0] && len)
		fill_bytes(p, len, s->seed);
	say(o, "data %016" PRIx64, hash_bytes(1, p, len));
	if (s->v[0] == 1)
		say(o, " msync %d", len ? msync(p, len, MS_SYNC) : 0);
	munmap(p, (size_t)s->v[2]);
}

static long grow(int fd, const struct step *s, off_t size)
{
	uint8_t *buf = diff_arena;

	fill_bytes(buf, 8192, s->seed);
	switch (s->v[0]) {
	case 0: return pwrite(fd, buf, (size_t)s->v[3], size + s->v[2]);
	case 1: return ftruncate(fd, size + s->v[2]);
	case 2: return fallocate(fd, 0, size + s->v[2] / 2, s->v[2]);
	default: return pwrite(fd, buf, 100, size) < 0 ? -1 : pwrite(fd, buf, (size_t)s->v[3], size + 100 + s->v[2]);
	}
}

/* What is stored behind the end of a file is not part of it when the file grows over it. */
void run_map_grow(struct side *d, const struct step *s, struct outcome *o)
{
	int fd = slot_fd(d, s, 0), fl = fcntl(fd, F_GETFL);
	unsigned flags = 0;
	struct stat st;
	ssize_t n;
	uint8_t *p;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || !(st.st_size & 4095) || (fl & O_DIRECT) || (fl & O_ACCMODE) != O_RDWR)
		return;
	if (st.st_size > 1 << 26 || ioctl(fd, FS_IOC_GETFLAGS, &flags) || (flags & (FS_IMMUTABLE_FL | FS_APPEND_FL)))
		return;
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, st.st_size & ~4095);
	if (p == MAP_FAILED) {
		done(o, -1);
		return;
	}
	fill_bytes(p + s->v[1], 64, s->seed);
	done(o, grow(fd, s, st.st_size));
	n = pread(fd, diff_arena, 40000, st.st_size & ~4095);
	say(o, "read %zd data %016" PRIx64, n, n > 0 ? hash_bytes(1, diff_arena, (size_t)n) : 0);
	say(o, " mapping %016" PRIx64, hash_bytes(1, p, n < 4096 && n >= 0 ? (size_t)n : 4096));
	say(o, " msync %d", msync(p, 4096, MS_SYNC));
	munmap(p, 4096);
	say_pos(o, fd);
}

void run_fsync(struct side *d, const struct step *s, struct outcome *o)
{
	int fd = slot_fd(d, s, 0);

	done(o, s->v[0] == 0 ? fsync(fd) : s->v[0] == 1 ? fdatasync(fd) : syncfs(fd));
}

void run_lock(struct side *d, const struct step *s, struct outcome *o)
{
	static const int how[] = { LOCK_EX, LOCK_SH, LOCK_UN };
	struct flock l = { .l_type = s->v[0] % 3 == 0 ? F_WRLCK : s->v[0] % 3 == 1 ? F_RDLCK : F_UNLCK, .l_whence = SEEK_SET,
			   .l_start = s->v[1], .l_len = s->v[2] };
	int fd = slot_fd(d, s, 0);

	if (s->v[0] < 3) {
		done(o, flock(fd, how[s->v[0]] | LOCK_NB));
	} else if (s->v[0] < 6) {
		done(o, fcntl(fd, F_OFD_SETLK, &l));
	} else if (s->v[0] < 8) {
		done(o, fcntl(fd, F_OFD_GETLK, &l));
		say(o, "type %d start %lld len %lld", l.l_type, (long long)l.l_start, (long long)l.l_len);
	} else {
		done(o, fcntl(fd, F_SETLEASE, F_RDLCK));
		say(o, "lease %d unlease %d", fcntl(fd, F_GETLEASE), fcntl(fd, F_SETLEASE, F_UNLCK));
	}
}

void run_setfl(struct side *d, const struct step *s, struct outcome *o)
{
	int fd = slot_fd(d, s, 0);

	done(o, fcntl(fd, F_SETFL, (int)s->v[0] | O_NONBLOCK));
	say(o, "flags %#x", fcntl(fd, F_GETFL));
}

void run_fadvise(struct side *d, const struct step *s, struct outcome *o)
{
	int fd = slot_fd(d, s, 0);

	fdatasync(fd);
	o->ret = o->err = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

void run_rwf(struct side *d, const struct step *s, struct outcome *o)
{
	size_t len = (size_t)s->v[2];
	struct iovec iov = { diff_arena, len };
	int fd = slot_fd(d, s, 0);

	if (s->v[0] && unaligned_write(fd, s, s->v[1], len, (int)s->v[3]))
		return;
	if (s->v[0]) {
		fill_bytes(diff_arena, len, s->seed);
		done(o, pwritev2(fd, &iov, 1, s->v[1], (int)s->v[3]));
	} else {
		done(o, preadv2(fd, &iov, 1, s->v[1], (int)s->v[3]));
		if (o->ret > 0)
			say(o, "data %016" PRIx64, hash_bytes(1, diff_arena, (size_t)o->ret));
	}
	say_pos(o, fd);
}
