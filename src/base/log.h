/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The log: a line for each event, to stderr in the foreground and to syslog in the background. Any
 * thread, no locks; errno is kept. A debug line that is off costs one predicted branch, so debug
 * lines may stand near hot paths, but not on them. Logging does not fail: a line that cannot be
 * written is lost.
 */
#ifndef FDIO_BASE_LOG_H
#define FDIO_BASE_LOG_H

#include "base/util.h"

enum fdio_log_level { FDIO_LOG_ERR = 3, FDIO_LOG_WARN = 4, FDIO_LOG_INFO = 6, FDIO_LOG_DEBUG = 7 };

extern int fdio_log_max; /* the level; relaxed atomic */

void fdio_log_set_level(int level);
/*
 * Connects to syslog under the name ident; the sandbox forbids that later. From now on lines go to
 * syslog, and also to stderr if their level is at most stderr_max, until fdio_log_switch_to_syslog.
 */
void fdio_log_open_syslog(const char *ident, int stderr_max);
void fdio_log_switch_to_syslog(void);
/* For unit tests: lines go to fn, or with NULL to stderr again. */
void fdio_log_set_sink(void (*fn)(int level, const char *line));

/*
 * Copies src to dst, fit for a log or a terminal: bytes that are not printable UTF-8 (control
 * characters, characters that change the direction of a line, other encodings) become \xNN. Every
 * line of the log is escaped like that, because it may contain names that others chose; other
 * output with such names must be escaped by its writer. dst is NUL-terminated, and never cut in the
 * middle of a character. Returns its length.
 */
size_t fdio_escape(char *dst, size_t cap, const char *src);

void fdio_log_emit(int level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define fdio_log_on(level) ((level) <= __atomic_load_n(&fdio_log_max, __ATOMIC_RELAXED))
#define fdio_log(level, ...) \
	do { if (unlikely(fdio_log_on(level))) fdio_log_emit((level), __VA_ARGS__); } while (0)
#define log_err(...) fdio_log(FDIO_LOG_ERR, __VA_ARGS__)
#define log_warn(...) fdio_log(FDIO_LOG_WARN, __VA_ARGS__)
#define log_info(...) fdio_log(FDIO_LOG_INFO, __VA_ARGS__)
#define log_debug(...) fdio_log(FDIO_LOG_DEBUG, __VA_ARGS__)

/*
 * True at most ten times in ten seconds for one place in the code: for messages that a broken
 * device or a hostile image can cause again and again.
 */
struct fdio_ratelimit { uint64_t window_start_s; unsigned count; };
bool fdio_ratelimit_ok(struct fdio_ratelimit *limit);
#define log_ratelimited(level, ...)                                       \
	do {                                                              \
		static struct fdio_ratelimit rl_;                         \
		if (fdio_log_on(level) && fdio_ratelimit_ok(&rl_))   \
			fdio_log_emit((level), __VA_ARGS__);              \
	} while (0)

#endif
