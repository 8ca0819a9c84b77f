/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The log and the assertion failure, see log.h. Any thread; one write per line, so lines never mix. */
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
static void (*log_sink)(int level, const char *line);

int fdio_log_level_parse(const char *name, int *ret_level)
{
	static const struct { const char *name; int level; } names[] = {
		{ "err", FDIO_LOG_ERR }, { "warning", FDIO_LOG_WARN }, { "info", FDIO_LOG_INFO }, { "debug", FDIO_LOG_DEBUG },
	};
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(name, names[i].name)) {
			*ret_level = names[i].level;
			return 0;
		}
	return -EINVAL;
}

void fdio_log_set_level(int level) { __atomic_store_n(&fdio_log_max, level, __ATOMIC_RELAXED); }

void fdio_log_open_syslog(const char *ident)
{
	tzset(); /* syslog would read the time zone's file at the first line */
	openlog(ident, LOG_PID | LOG_NDELAY, LOG_DAEMON);
}

void fdio_log_switch_to_syslog(void) { log_syslog = true; }

void fdio_log_set_sink(void (*fn)(int level, const char *line)) { log_sink = fn; }

void fdio_log_emit(int level, const char *fmt, ...)
{
	char line[1024];
	int saved_errno = errno;
	int off = snprintf(line, sizeof(line), "fusedio: ");
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(line + off, sizeof(line) - off - 1, fmt, ap);
	va_end(ap);
	if (n < 0)
		n = 0;
	if (n > (int)sizeof(line) - off - 2)
		n = sizeof(line) - off - 2;
	if (log_sink) {
		log_sink(level, line + off);
	} else if (log_syslog) {
		syslog(level, "%s", line + off);
	} else {
		line[off + n] = '\n';
		/* Nothing can be done about a log that cannot be written. */
		ssize_t w = write(STDERR_FILENO, line, off + n + 1);
		(void)w;
	}
	errno = saved_errno;
}

bool fdio_ratelimit_ok(struct fdio_ratelimit *rl)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	uint64_t now = (uint64_t)ts.tv_sec;
	uint64_t start = __atomic_load_n(&rl->window_start_s, __ATOMIC_RELAXED);
	if (start == 0 || now - start >= 10) {
		__atomic_store_n(&rl->window_start_s, now ? now : 1, __ATOMIC_RELAXED);
		__atomic_store_n(&rl->count, 1, __ATOMIC_RELAXED);
		return true;
	}
	return __atomic_add_fetch(&rl->count, 1, __ATOMIC_RELAXED) <= 10;
}

void fdio_assert_failed(const char *expr, const char *file, int line, const char *func)
{
	fdio_log_emit(FDIO_LOG_ERR, "internal error: %s is false in %s at %s:%d; stopping before anything else is written (please report this line)",
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
