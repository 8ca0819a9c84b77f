/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Event counters, one copy a thread so that counting never shares a cache line. The table is
 * counters.def. Any thread. Counting takes no lock and cannot fail; reading adds up all copies.
 */
#ifndef FDIO_BASE_COUNTERS_H
#define FDIO_BASE_COUNTERS_H

#include "base/util.h"

enum fdio_counter {
#define COUNTER(name, unit, text) COUNTER_##name,
#include "base/counters.def"
#undef COUNTER
	COUNTER_NR
};

struct fdio_counters { uint64_t v[COUNTER_NR]; };

extern __thread struct fdio_counters *fdio_counters_mine;
struct fdio_counters *fdio_counters_attach(void);

/* Any thread, no lock, no shared line. */
static inline void fdio_count_add(enum fdio_counter c, uint64_t n)
{
	struct fdio_counters *mine =
			fdio_counters_mine ? fdio_counters_mine : fdio_counters_attach();
	/* Only this thread writes; the relaxed store lets a reader on another thread sum it. */
	__atomic_store_n(&mine->v[c], mine->v[c] + n, __ATOMIC_RELAXED);
}
static inline void fdio_count(enum fdio_counter c) { fdio_count_add(c, 1); }

/* Sum over all threads, ended ones included. */
uint64_t fdio_counter_read(enum fdio_counter c);
const char *fdio_counter_name(enum fdio_counter c);
/* One log line for each counter that is not zero. */
void fdio_counters_log(void);

#endif
