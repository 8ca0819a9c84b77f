/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Starting threads, see thread.h. Any thread; no locks. Fails with -errno and without a thread,
 * also if the thread cannot give up its capabilities.
 */
#include "base/thread.h"

#include <cap-ng.h>
#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>

/* Passed to the new thread; lives on the stack of thread_start, which waits for up. */
struct start {
	void *(*fn)(void *);
	void *arg;
	const char *name;
	sem_t up;
	bool dropped;
	int err;
};

/*
 * This thread has given up its capabilities. Threads that it starts inherit that, and must not try
 * again, because the sandbox forbids the system calls.
 */
static __thread bool dropped;

int thread_drop_capabilities(void)
{
	if (dropped)
		return 0;
	/*
	 * libcap-ng keeps its state for each thread. Without CAP_SETPCAP the bounding set cannot be
	 * cleared, which does no harm: under no_new_privs, exec gives no capabilities.
	 */
	capng_clear(CAPNG_SELECT_ALL);
	if (capng_apply(CAPNG_SELECT_BOUNDS))
		capng_clear(CAPNG_SELECT_ALL);
	dropped = capng_apply(CAPNG_SELECT_CAPS) == 0;
	return dropped ? 0 : -EPERM;
}

static void *thread_main(void *p)
{
	struct start *start = p;
	void *(*fn)(void *) = start->fn;
	void *arg = start->arg;
	char name[16];
	int err;

	snprintf(name, sizeof(name), "%s", start->name);
	pthread_setname_np(pthread_self(), name);
	dropped = start->dropped;
	err = start->err = thread_drop_capabilities();
	sem_post(&start->up); /* start is gone from here on */
	return err ? NULL : fn(arg);
}

int thread_start(pthread_t *ret, const char *name, void *(*fn)(void *), void *arg)
{
	struct start start = { .fn = fn, .arg = arg, .name = name, .dropped = dropped };
	sigset_t all, old;
	int err;

	if (sem_init(&start.up, 0, 0))
		return -errno;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = -pthread_create(ret, NULL, thread_main, &start);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!err) {
		while (sem_wait(&start.up) && errno == EINTR)
			;
		err = start.err;
		if (err)
			pthread_join(*ret, NULL);
	}
	sem_destroy(&start.up);
	return err;
}
