/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Why a session failed: every step of it says so here, and main.c prints it. Main thread.
 */
#include "command/session.h"

#include <stdarg.h>

int session_failed(struct session *session, int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fdio_reason_vset(&session->reason, fmt, ap);
	va_end(ap);
	return status;
}
