/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The log and failed assertions, see log.h. Any thread, no locks. A line is one write, so lines of
 * several threads do not mix, and it is escaped, so that no name in it can begin another line. The
 * sink and syslog are set while only one thread runs; the levels are atomic. A line that cannot be
 * written is lost.
 */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

int fdio_log_max = FDIO_LOG_INFO;
static bool log_syslog;
static int stderr_max = FDIO_LOG_DEBUG;
static void (*log_sink)(int level, const char *line);

void fdio_log_set_level(int level) { __atomic_store_n(&fdio_log_max, level, __ATOMIC_RELAXED); }

void fdio_log_open_syslog(const char *ident, int to_stderr)
{
	tzset(); /* syslog would read the time zone's file at the first line */
	openlog(ident, LOG_PID | LOG_NDELAY, LOG_DAEMON);
	stderr_max = to_stderr;
	log_syslog = true;
}

/* Atomic, because other threads may be logging. */
void fdio_log_switch_to_syslog(void) { __atomic_store_n(&stderr_max, 0, __ATOMIC_RELAXED); }

void fdio_log_set_sink(void (*fn)(int level, const char *line)) { log_sink = fn; }

/*
 * The length of the UTF-8 character that s begins with, and its code point; 0: s does not begin
 * with one.
 */
static unsigned utf8(const char *s, uint32_t *ret)
{
	const unsigned char *u = (const unsigned char *)s;
	unsigned n = u[0] < 0x80   ? 1
		     : u[0] < 0xc2 ? 0
		     : u[0] < 0xe0 ? 2
		     : u[0] < 0xf0 ? 3
		     : u[0] < 0xf5 ? 4
				   : 0;
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	uint32_t c = n > 1 ? u[0] & (0xffu >> (n + 1)) : u[0];

	for (unsigned i = 1; i < n; i++) {
		if ((u[i] & 0xc0) != 0x80) /* the end of the string, too */
			return 0;
		c = c << 6 | (u[i] & 0x3f);
	}
	*ret = c;
	return n && c >= least[n] && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff) ? n : 0;
}

/* False for control and invisible characters, line breaks and changes of text direction. */
static bool printable(uint32_t c)
{
	static const struct { uint32_t first, last;
	} not [] = {
		{ 0, 0x1f },        { 0x7f, 0x9f },       { 0xad, 0xad },     { 0x61c, 0x61c },
		{ 0x200b, 0x200f }, { 0x2028, 0x202e },   { 0x2060, 0x206f }, { 0xfeff, 0xfeff },
		{ 0xfff9, 0xfffb }, { 0xe0000, 0xe0fff },
	};

	for (size_t i = 0; i < ARRAY_SIZE(not); i++)
		if (c >= not[i].first && c <= not[i].last)
			return false;
	return true;
}

size_t fdio_escape(char *dst, size_t cap, const char *src)
{
	static const char digits[] = "0123456789abcdef";
	size_t len = 0;
	uint32_t c;

	while (*src) {
		unsigned n = utf8(src, &c);

		if (n && printable(c)) {
			if (len + n >= cap)
				break;
			memcpy(dst + len, src, n);
			src += n;
			len += n;
			continue;
		}
		if (len + 4 >= cap)
			break;
		dst[len++] = '\\';
		dst[len++] = 'x';
		dst[len++] = digits[(unsigned char)*src >> 4];
		dst[len++] = digits[*src++ & 15];
	}
	dst[len] = '\0';
	return len;
}

void fdio_log_emit(int level, const char *fmt, ...)
{
	/* 1280: the line, with a name of 64 bytes that are all escaped */
	char raw[1024], line[1280] = "fusedio: ";
	int saved_errno = errno;
	size_t off = strlen(line), n;
	va_list ap;

	va_start(ap, fmt);
	if (vsnprintf(raw, sizeof(raw), fmt, ap) < 0)
		raw[0] = '\0';
	va_end(ap);
	n = fdio_escape(line + off, sizeof(line) - off - 1, raw);
	if (log_sink)
		log_sink(level, line + off);
	else if (log_syslog)
		syslog(level, "%s", line + off);
	if (!log_sink && level <= __atomic_load_n(&stderr_max, __ATOMIC_RELAXED)) {
		line[off + n] = '\n';
		/* Nothing can be done about a log that cannot be written. */
		ssize_t w = write(STDERR_FILENO, line, off + n + 1);
		(void)w;
	}
	errno = saved_errno;
}

bool fdio_ratelimit_ok(struct fdio_ratelimit *limit)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	uint64_t now = (uint64_t)ts.tv_sec;
	uint64_t start = __atomic_load_n(&limit->window_start_s, __ATOMIC_RELAXED);
	if (start == 0 || now - start >= 10) {
		__atomic_store_n(&limit->window_start_s, now ? now : 1, __ATOMIC_RELAXED);
		__atomic_store_n(&limit->count, 1, __ATOMIC_RELAXED);
		return true;
	}
	return __atomic_add_fetch(&limit->count, 1, __ATOMIC_RELAXED) <= 10;
}

void fdio_assert_failed(const char *expr, const char *file, int line, const char *func)
{
	fdio_log_emit(FDIO_LOG_ERR,
		      "internal error: %s is false in %s at %s:%d; stopping before anything else "
		      "is written (please report this line)",
		      expr, func, file, line);
	abort();
}

void *fdio_alloc_aligned(size_t align, size_t len)
{
	void *p = NULL;

	if (posix_memalign(&p, align, len ? len : align))
		return NULL;
	memset(p, 0, len);
	return p;
}
