/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Trying without waiting, see nowait.h. Loop threads; the state belongs to the thread, so there are
 * no locks. Nothing fails.
 */
#include "base/nowait.h"

#include "base/counters.h"

__thread struct nowait nowait_self;

void nowait_begin(void)
{
	FDIO_ASSERT(!nowait_self.on);
	nowait_self.on = true;
	nowait_self.missed = nowait_self.done = false;
}

bool nowait_end(void)
{
	FDIO_ASSERT(nowait_self.on);
	nowait_self.on = false;
	return nowait_self.missed;
}

int nowait_miss(void)
{
	FDIO_ASSERT(nowait_self.on);
	if (!nowait_self.missed)
		fdio_count(COUNTER_nowait_miss);
	nowait_self.missed = true;
	return -EAGAIN;
}
