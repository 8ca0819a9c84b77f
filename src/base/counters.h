/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Event counters; counters.def is the table. Each thread has a copy, so that counting shares no
 * cache line. Any thread. Counting takes no lock and does not fail; reading adds up all copies.
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

static inline void fdio_count_add(enum fdio_counter c, uint64_t n)
{
	struct fdio_counters *mine =
			fdio_counters_mine ? fdio_counters_mine : fdio_counters_attach();
	/* Only this thread writes. The store is atomic for threads that add the copies up. */
	__atomic_store_n(&mine->v[c], mine->v[c] + n, __ATOMIC_RELAXED);
}
static inline void fdio_count(enum fdio_counter c) { fdio_count_add(c, 1); }

/* The sum over all threads, including those that have ended. */
uint64_t fdio_counter_read(enum fdio_counter c);
const char *fdio_counter_name(enum fdio_counter c);
/* One log line for each counter that is not zero. */
void fdio_counters_log(void);

#endif
