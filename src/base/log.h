/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The log: one line an event, to stderr while in the foreground and to syslog in the background.
 * Any thread, no locks; errno is kept. Debug lines cost one predicted branch when they are off, so
 * they may stand near hot paths but not on them. Logging cannot fail: what cannot be written is
 * lost.
 */
#ifndef FDIO_BASE_LOG_H
#define FDIO_BASE_LOG_H

#include "base/util.h"

enum fdio_log_level { FDIO_LOG_ERR = 3, FDIO_LOG_WARN = 4, FDIO_LOG_INFO = 6, FDIO_LOG_DEBUG = 7 };

extern int fdio_log_max; /* set while other threads log: read and written as a relaxed atomic */

void fdio_log_set_level(int level);
/*
 * Connects to syslog under this identity, while the file tree is still there: lines go there from
 * now on, and to stderr as well if they are at least so important, until the switch.
 */
void fdio_log_open_syslog(const char *ident, int stderr_max);
void fdio_log_switch_to_syslog(void);
/* Unit tests: lines go to fn (NULL: back to stderr). */
void fdio_log_set_sink(void (*fn)(int level, const char *line));

/*
 * src for a log or a terminal: what is not printable UTF-8 (control characters, what changes the
 * direction of a line, other encodings) becomes \xNN, byte by byte. Every line of the log goes
 * through it, whoever's name it holds; other output must be sent through it. dst is terminated,
 * never in the middle of a character; its length is returned.
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
 * True at most ten times in ten seconds for one call site: for what a broken device or a hostile
 * image can repeat for ever.
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
