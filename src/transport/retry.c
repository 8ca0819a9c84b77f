/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the channels do about errors that pass by themselves: the same again, a limited number of times. A reply that is not sent
 * leaves its client waiting until the mount ends, and a failed read of /dev/fuse ends the mount, so giving up at once would be
 * worse than a short sleep. It may be a loop's thread that sleeps here, the only place outside its ring: a timer
 * on the ring would want memory too. Any thread; no locks.
 */
#include "transport/types.h"

#include "base/counters.h"

#include <errno.h>
#include <time.h>

bool tr_retry(int err, unsigned *tries)
{
	static const struct timespec pause = { .tv_nsec = 1000 * 1000 };

	if ((err != -EAGAIN && err != -EINTR && err != -ENOMEM) || *tries >= TR_RETRY_MAX)
		return false;
	fdio_count(CTR_tr_retry);
	if (++*tries > TR_RETRY_AT_ONCE || err == -ENOMEM)
		nanosleep(&pause, NULL);
	return true;
}
