/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Why something failed, see reason.h. One thread at a time; no state, no locks, nothing fails. */
#include "base/reason.h"

#include <stdio.h>

void fdio_reason_clear(struct fdio_reason *reason)
{
	if (reason && reason->cap)
		reason->text[0] = '\0';
}

bool fdio_reason_is_set(const struct fdio_reason *reason)
{
	return reason && reason->cap && reason->text[0];
}

void fdio_reason_vset(struct fdio_reason *reason, const char *fmt, va_list ap)
{
	if (reason)
		vsnprintf(reason->text, reason->cap, fmt, ap);
}

void fdio_reason_set(struct fdio_reason *reason, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fdio_reason_vset(reason, fmt, ap);
	va_end(ap);
}

int fdio_reason_fail(struct fdio_reason *reason, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fdio_reason_vset(reason, fmt, ap);
	va_end(ap);
	return err;
}
