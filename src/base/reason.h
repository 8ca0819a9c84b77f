/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Why something failed: one line for the person who started the program, which names the cause and
 * what to do about it. Functions that open or start things have a struct fdio_reason *reason as
 * their last parameter, and return 0 or -errno; the outermost caller owns the text. The idiom:
 *
 *	return fdio_reason_fail(reason, -EBUSY, "%s is in use: unmount it first", path);
 *
 * and, at the top, char text[512]; open_it(path, FDIO_REASON(text)). The reason that was set last
 * counts. One thread at a time, no locks; nothing fails: a line that does not fit is cut.
 */
#ifndef FDIO_BASE_REASON_H
#define FDIO_BASE_REASON_H

#include "base/util.h"

#include <stdarg.h>

struct fdio_reason {
	char *text;
	size_t cap;
};

/* A reason that writes into an array, or into len bytes at buf; it lives as long as its block. */
#define FDIO_REASON(array) FDIO_REASON_AT(array, sizeof(array))
#define FDIO_REASON_AT(buf, len) (&(struct fdio_reason){ .text = (buf), .cap = (len) })

/* In all of these, reason may be NULL; then nothing is written. */
void fdio_reason_clear(struct fdio_reason *reason);
bool fdio_reason_is_set(const struct fdio_reason *reason);
void fdio_reason_set(struct fdio_reason *reason, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
void fdio_reason_vset(struct fdio_reason *reason, const char *fmt, va_list ap)
	__attribute__((format(printf, 2, 0)));
/* Sets the reason and returns err. */
int fdio_reason_fail(struct fdio_reason *reason, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
