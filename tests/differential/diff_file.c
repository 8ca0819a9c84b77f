/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Steps on open files: data, sizes, positions, locks. Each function runs a step on one side and
 * records its result in the outcome. Descriptors are nonblocking, so that no step waits for the
 * other end of a FIFO.
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

void done(struct outcome *outcome, long r)
{
	outcome->ret = r;
	outcome->err = r < 0 ? errno : 0;
}

void say(struct outcome *outcome, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (outcome->len + 1 >= TEXT_CAP)
		return;
	va_start(ap, fmt);
	n = vsnprintf(outcome->text + outcome->len, TEXT_CAP - outcome->len, fmt, ap);
	va_end(ap);
	if (n > 0)
		outcome->len = outcome->len + (size_t)n < TEXT_CAP ? outcome->len + (size_t)n
								   : TEXT_CAP - 1;
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
	struct rng rng = { seed };

	for (size_t k = 0; k < n; k += 8) {
		uint64_t w = rnd(&rng) | 0x0101010101010101u;

		memcpy(p + k, &w, n - k < 8 ? n - k : 8);
	}
}

static void say_pos(struct outcome *outcome, int fd)
{
	int saved = errno;

	say(outcome, " pos %lld", (long long)lseek(fd, 0, SEEK_CUR));
	errno = saved;
}

void run_open(struct side *side, const struct step *step, struct outcome *outcome)
{
	int fd;

	if (side->fd[step->slot[0]] >= 0)
		close(side->fd[step->slot[0]]);
	side->fd[step->slot[0]] = -1;
	fd = openat(side->root, step->path[0], (int)step->v[0], (mode_t)step->v[1]);
	done(outcome, fd < 0 ? -1 : 0);
	side->fd[step->slot[0]] = fd;
	if (fd >= 0)
		say(outcome, "flags %#x", fcntl(fd, F_GETFL));
}

void run_close(struct side *side, const struct step *step, struct outcome *outcome)
{
	done(outcome, close(slot_fd(side, step, 0)));
	side->fd[step->slot[0]] = -1;
}

/*
 * With O_DIRECT, steps use aligned memory in one piece: FUSE does not tell the daemon where the
 * caller's memory is, so it cannot refuse what ext4 refuses.
 */
static bool is_direct(int fd)
{
	int fl = fcntl(fd, F_GETFL);

	return fl >= 0 && (fl & O_DIRECT);
}

/*
 * Whether this is an unaligned direct write, which is left out: both refuse it, but ext4 changes
 * times and modes and may allocate blocks before that.
 */
static bool unaligned_write(int fd, const struct step *step, off_t pos, size_t len, int rwf)
{
	struct stat st;

	if (!is_direct(fd) || fstat(fd, &st))
		return false;
	if ((fcntl(fd, F_GETFL) & O_APPEND) || (rwf & RWF_APPEND))
		pos = st.st_size;
	else if (pos < 0)
		pos = lseek(fd, 0, SEEK_CUR);
	/* RLIMIT_FSIZE may cut the write at an unaligned offset. */
	return (((pos | (off_t)len) & 511) || step->fsize_limit) && diff_allow(ALLOW_DIO_UNALIGNED);
}

void run_read(struct side *side, const struct step *step, struct outcome *outcome)
{
	int fd = slot_fd(side, step, 0);
	bool direct = is_direct(fd);
	uint8_t *buf = diff_arena + (direct ? 0 : step->v[3]);
	size_t len = (size_t)step->v[2], part = direct ? 0 : len / 3;
	struct iovec iov[3] = { { buf, part },
				{ buf + part, part },
				{ buf + 2 * part, len - 2 * part } };
	ssize_t n;

	switch (step->v[0]) {
	case 0: n = read(fd, buf, len); break;
	case 1: n = pread(fd, buf, len, step->v[1]); break;
	case 2: n = readv(fd, iov, 3); break;
	default: n = preadv(fd, iov, 3, step->v[1]); break;
	}
	done(outcome, n);
	if (n > 0)
		say(outcome, "data %016" PRIx64, hash_bytes(1, buf, (size_t)n));
	say_pos(outcome, fd);
}

void run_write(struct side *side, const struct step *step, struct outcome *outcome)
{
	int fd = slot_fd(side, step, 0);
	bool direct = is_direct(fd);
	uint8_t *buf = diff_arena + (direct ? 0 : step->v[3]);
	size_t len = (size_t)step->v[2], part = direct ? 0 : len / 3;
	struct iovec iov[3] = { { buf, part },
				{ buf + part, part },
				{ buf + 2 * part, len - 2 * part } };
	ssize_t n;

	if (unaligned_write(fd, step, step->v[0] & 1 ? step->v[1] : -1, len, 0))
		return;
	fill_bytes(buf, len, step->seed);
	switch (step->v[0]) {
	case 0: n = write(fd, buf, len); break;
	case 1: n = pwrite(fd, buf, len, step->v[1]); break;
	case 2: n = writev(fd, iov, 3); break;
	default: n = pwritev(fd, iov, 3, step->v[1]); break;
	}
	done(outcome, n);
	say_pos(outcome, fd);
}

/*
 * ext4 reports unwritten blocks as data while pages over them are in its page cache. This writes
 * the pages out and drops them, so that it reports what is on disk.
 */
static void settle(struct side *side, int fd)
{
	if (!side->ours) {
		fdatasync(fd);
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	}
}

static bool is_dir(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISDIR(st.st_mode);
}

void run_seek(struct side *side, const struct step *step, struct outcome *outcome)
{
	int fd = slot_fd(side, step, 0);
	struct stat st;

	if (step->v[1] != SEEK_SET && step->v[1] != SEEK_CUR && is_dir(fd)) {
		if (side->ours)
			diff_allow(ALLOW_DIR_SEEK);
		return;
	}
	/* FUSE does not know ext4's largest offset and would accept a greater one. */
	if (step->v[0] > side->max_file ||
	    (step->v[1] == SEEK_CUR && lseek(fd, 0, SEEK_CUR) + step->v[0] > side->max_file) ||
	    (step->v[1] == SEEK_END && !fstat(fd, &st) &&
	     st.st_size + step->v[0] > side->max_file)) {
		if (side->ours)
			diff_allow(ALLOW_SEEK_FAR);
		return;
	}
	if (step->v[1] == SEEK_DATA || step->v[1] == SEEK_HOLE)
		settle(side, fd);
	done(outcome, lseek(fd, step->v[0], (int)step->v[1]));
	say_pos(outcome, fd);
}

void run_holes(struct side *side, const struct step *step, struct outcome *outcome)
{
	int fd = slot_fd(side, step, 0);
	off_t was = lseek(fd, 0, SEEK_CUR), at = 0;

	if (is_dir(fd))
		return;
	settle(side, fd);
	for (unsigned k = 0; k < 40; k++) {
		off_t to = lseek(fd, at, k & 1 ? SEEK_HOLE : SEEK_DATA);

		done(outcome, to);
		if (to < 0)
			break;
		say(outcome, "%s%lld", k & 1 ? "-" : " ", (long long)to);
		at = to;
	}
	lseek(fd, was, SEEK_SET);
}

void run_ftruncate(struct side *side, const struct step *step, struct outcome *outcome)
{
	done(outcome, ftruncate(slot_fd(side, step, 0), step->v[0]));
}

void run_truncate(struct side *side, const struct step *step, struct outcome *outcome)
{
	/* There is no truncateat. */
	if (fchdir(side->root))
		return;
	done(outcome, truncate(step->path[0], step->v[0]));
}

void run_fallocate(struct side *side, const struct step *step, struct outcome *outcome)
{
	done(outcome, fallocate(slot_fd(side, step, 0), (int)step->v[0], step->v[1], step->v[2]));
}

static ssize_t through_pipe(int in, off_t *ioff, int out, off_t *ooff, size_t len, bool both)
{
	static int p[2] = { -1, -1 };
	ssize_t n, m;
	size_t left;

	if (p[0] < 0 &&
	    (pipe2(p, O_NONBLOCK | O_CLOEXEC) || fcntl(p[1], F_SETPIPE_SZ, 1 << 17) < 0))
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

void run_copy(struct side *side, const struct step *step, struct outcome *outcome)
{
	int in = slot_fd(side, step, 0), out = slot_fd(side, step, 1);
	off_t ioff = step->v[1], ooff = step->v[2], *pi = step->v[1] < 0 ? NULL : &ioff,
	      *po = step->v[2] < 0 ? NULL : &ooff;
	size_t len = (size_t)step->v[3];

	if (is_direct(in) || is_direct(out))
		return;
	/*
	 * A FIFO gets the pages of the page cache, not a copy of them: a later write to the file
	 * would show in the FIFO, depending on what is cached.
	 */
	if (step->v[0] != 3 && is_fifo(out))
		return;
	switch (step->v[0]) {
	case 0: done(outcome, copy_file_range(in, pi, out, po, len, 0)); break;
	case 1: done(outcome, sendfile(out, in, pi, len)); break;
	case 2: done(outcome, through_pipe(in, pi, out, po, len, true)); break;
	default: done(outcome, through_pipe(-1, NULL, out, po, len, false)); break;
	}
	say_pos(outcome, in);
	say_pos(outcome, out);
}

void run_mmap(struct side *side, const struct step *step, struct outcome *outcome)
{
	int fd = slot_fd(side, step, 0);
	size_t len = (size_t)step->v[2];
	int prot = step->v[0] ? PROT_READ | PROT_WRITE : PROT_READ;
	unsigned fl = 0;
	struct stat st;
	uint8_t *p;

	/* FUSE does not know these flags; ext4 refuses the mapping, or a store causes a signal. */
	if (step->v[0] != 2 && !ioctl(fd, FS_IOC_GETFLAGS, &fl) &&
	    (fl & (FS_IMMUTABLE_FL | FS_APPEND_FL)))
		return;
	p = mmap(NULL, len, prot, step->v[0] == 2 ? MAP_PRIVATE : MAP_SHARED, fd, step->v[1]);

	done(outcome, p == MAP_FAILED ? -1 : 0);
	if (p == MAP_FAILED)
		return;
	/* A mapping has no pages beyond the end of the file. */
	if (fstat(fd, &st) || st.st_size <= step->v[1])
		len = 0;
	else if (len > (size_t)(st.st_size - step->v[1] + 4095) / 4096 * 4096)
		len = (size_t)(st.st_size - step->v[1] + 4095) / 4096 * 4096;
	if (step->v[0] && len)
		fill_bytes(p, len, step->seed);
	say(outcome, "data %016" PRIx64, hash_bytes(1, p, len));
	if (step->v[0] == 1)
		say(outcome, " msync %d", len ? msync(p, len, MS_SYNC) : 0);
	munmap(p, (size_t)step->v[2]);
}

static long grow(int fd, const struct step *step, off_t size)
{
	uint8_t *buf = diff_arena;

	fill_bytes(buf, 8192, step->seed);
	switch (step->v[0]) {
	case 0: return pwrite(fd, buf, (size_t)step->v[3], size + step->v[2]);
	case 1: return ftruncate(fd, size + step->v[2]);
	case 2: return fallocate(fd, 0, size + step->v[2] / 2, step->v[2]);
	default:
		return pwrite(fd, buf, 100, size) < 0 ? -1
						      : pwrite(fd, buf, (size_t)step->v[3],
							       size + 100 + step->v[2]);
	}
}

/*
 * Stores behind the end of the file in its last mapped page, then makes the file grow: what was
 * stored there must not become part of it.
 */
void run_map_grow(struct side *side, const struct step *step, struct outcome *outcome)
{
	int fd = slot_fd(side, step, 0), fl = fcntl(fd, F_GETFL);
	unsigned flags = 0;
	struct stat st;
	ssize_t n;
	uint8_t *p;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || !(st.st_size & 4095) || (fl & O_DIRECT) ||
	    (fl & O_ACCMODE) != O_RDWR)
		return;
	if (st.st_size > 1 << 26 || ioctl(fd, FS_IOC_GETFLAGS, &flags) ||
	    (flags & (FS_IMMUTABLE_FL | FS_APPEND_FL)))
		return;
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, st.st_size & ~4095);
	if (p == MAP_FAILED) {
		done(outcome, -1);
		return;
	}
	fill_bytes(p + step->v[1], 64, step->seed);
	done(outcome, grow(fd, step, st.st_size));
	n = pread(fd, diff_arena, 40000, st.st_size & ~4095);
	say(outcome, "read %zd data %016" PRIx64, n,
	    n > 0 ? hash_bytes(1, diff_arena, (size_t)n) : 0);
	say(outcome, " mapping %016" PRIx64,
	    hash_bytes(1, p, n < 4096 && n >= 0 ? (size_t)n : 4096));
	say(outcome, " msync %d", msync(p, 4096, MS_SYNC));
	munmap(p, 4096);
	say_pos(outcome, fd);
}

void run_fsync(struct side *side, const struct step *step, struct outcome *outcome)
{
	int fd = slot_fd(side, step, 0);

	done(outcome, step->v[0] == 0 ? fsync(fd) : step->v[0] == 1 ? fdatasync(fd) : syncfs(fd));
}

void run_lock(struct side *side, const struct step *step, struct outcome *outcome)
{
	static const int how[] = { LOCK_EX, LOCK_SH, LOCK_UN };
	struct flock l = { .l_type = step->v[0] % 3 == 0   ? F_WRLCK
				     : step->v[0] % 3 == 1 ? F_RDLCK
							   : F_UNLCK,
			   .l_whence = SEEK_SET,
			   .l_start = step->v[1],
			   .l_len = step->v[2] };
	int fd = slot_fd(side, step, 0);

	if (step->v[0] < 3) {
		done(outcome, flock(fd, how[step->v[0]] | LOCK_NB));
	} else if (step->v[0] < 6) {
		done(outcome, fcntl(fd, F_OFD_SETLK, &l));
	} else if (step->v[0] < 8) {
		done(outcome, fcntl(fd, F_OFD_GETLK, &l));
		say(outcome, "type %d start %lld len %lld", l.l_type, (long long)l.l_start,
		    (long long)l.l_len);
	} else {
		done(outcome, fcntl(fd, F_SETLEASE, F_RDLCK));
		say(outcome, "lease %d unlease %d", fcntl(fd, F_GETLEASE),
		    fcntl(fd, F_SETLEASE, F_UNLCK));
	}
}

void run_setfl(struct side *side, const struct step *step, struct outcome *outcome)
{
	int fd = slot_fd(side, step, 0);

	done(outcome, fcntl(fd, F_SETFL, (int)step->v[0] | O_NONBLOCK));
	say(outcome, "flags %#x", fcntl(fd, F_GETFL));
}

void run_fadvise(struct side *side, const struct step *step, struct outcome *outcome)
{
	int fd = slot_fd(side, step, 0);

	fdatasync(fd);
	outcome->ret = outcome->err = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

void run_rwf(struct side *side, const struct step *step, struct outcome *outcome)
{
	size_t len = (size_t)step->v[2];
	struct iovec iov = { diff_arena, len };
	int fd = slot_fd(side, step, 0);

	if (step->v[0] && unaligned_write(fd, step, step->v[1], len, (int)step->v[3]))
		return;
	if (step->v[0]) {
		fill_bytes(diff_arena, len, step->seed);
		done(outcome, pwritev2(fd, &iov, 1, step->v[1], (int)step->v[3]));
	} else {
		done(outcome, preadv2(fd, &iov, 1, step->v[1], (int)step->v[3]));
		if (outcome->ret > 0)
			say(outcome, "data %016" PRIx64,
			    hash_bytes(1, diff_arena, (size_t)outcome->ret));
	}
	say_pos(outcome, fd);
}
