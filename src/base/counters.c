/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Event counters, see counters.h. Any thread. Each thread has a copy that it alone writes; when it
 * ends, its counts are added to those of all ended threads. `lock` guards the list of copies and
 * the counts of ended threads. A thread that finds no memory for its copy counts in a common one,
 * where counts may be lost.
 */
#include "base/counters.h"

#include "base/lock.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdlib.h>

struct counters_node {
	struct fdio_counters c;
	struct counters_node *next;
};

__thread struct fdio_counters *fdio_counters_mine;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct counters_node *nodes;  /* guarded by lock */
static struct fdio_counters ended;   /* guarded by lock */
static struct fdio_counters fallback; /* of all threads that found no memory */
static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static const struct { const char *name, *text; } info[COUNTER_NR] = {
#define COUNTER(n, unit, t) { #n, t " (" #unit ")" },
#include "base/counters.def"
#undef COUNTER
};

static void node_release(void *p)
{
	struct counters_node *node = p, **pp;

	pthread_mutex_lock(&lock);
	for (pp = &nodes; *pp != node; pp = &(*pp)->next)
		;
	*pp = node->next;
	for (int i = 0; i < COUNTER_NR; i++)
		ended.v[i] += node->c.v[i];
	pthread_mutex_unlock(&lock);
	fdio_counters_mine = NULL;
	free(node);
}

/* Fails only if all keys of the process are in use, which would be a mistake of this program. */
static void key_make(void) { FDIO_MUST(pthread_key_create(&key, node_release) == 0); }

struct fdio_counters *fdio_counters_attach(void)
{
	struct counters_node *node = calloc(1, sizeof(*node));

	pthread_once(&once, key_make);
	if (!node)
		return fdio_counters_mine = &fallback;
	pthread_mutex_lock(&lock);
	node->next = nodes;
	nodes = node;
	pthread_mutex_unlock(&lock);
	pthread_setspecific(key, node);
	return fdio_counters_mine = &node->c;
}

uint64_t fdio_counter_read(enum fdio_counter c)
{
	pthread_mutex_lock(&lock);
	uint64_t sum = ended.v[c] + __atomic_load_n(&fallback.v[c], __ATOMIC_RELAXED);
	for (struct counters_node *node = nodes; node; node = node->next)
		sum += __atomic_load_n(&node->c.v[c], __ATOMIC_RELAXED);
	pthread_mutex_unlock(&lock);
	return sum;
}

const char *fdio_counter_name(enum fdio_counter c) { return info[c].name; }

void fdio_counters_log(void)
{
	for (int c = 0; c < COUNTER_NR; c++) {
		uint64_t v = fdio_counter_read(c);
		if (v)
			fdio_log_emit(FDIO_LOG_INFO, "%s %" PRIu64 ": %s", info[c].name, v,
				      info[c].text);
	}
}
