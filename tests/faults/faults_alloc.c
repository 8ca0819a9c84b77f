/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Counts the product's allocations and makes them fail on demand. The linker sends them here
 * (--wrap, see Makefile.inc); the test's own allocations go to the C library. Any thread.
 */
#include "faults/faults.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static unsigned seen, failed, target;
static bool all_after;
static __thread bool held;

void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
int __wrap_posix_memalign(void **ret, size_t align, size_t n);
char *__wrap_strdup(const char *s);

void alloc_plan(unsigned n, bool from_on)
{
	__atomic_store_n(&target, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&seen, 0, __ATOMIC_SEQ_CST);
	all_after = from_on;
	__atomic_store_n(&target, n, __ATOMIC_SEQ_CST);
}

void alloc_hold(bool on) { held = on; }
unsigned alloc_failed(void) { return __atomic_load_n(&failed, __ATOMIC_SEQ_CST); }

/* Counts an allocation; true if it must fail, with errno set. */
static bool fails(void)
{
	unsigned k, n = __atomic_load_n(&target, __ATOMIC_SEQ_CST);

	if (held)
		return false;
	k = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
	if (!n || (all_after ? k < n : k != n))
		return false;
	__atomic_fetch_add(&failed, 1, __ATOMIC_SEQ_CST);
	errno = ENOMEM;
	return true;
}

void *__wrap_malloc(size_t n) { return fails() ? NULL : malloc(n); }
void *__wrap_calloc(size_t n, size_t size) { return fails() ? NULL : calloc(n, size); }
void *__wrap_realloc(void *p, size_t n) { return fails() ? NULL : realloc(p, n); }
int __wrap_posix_memalign(void **ret, size_t align, size_t n)
{
	return fails() ? ENOMEM : posix_memalign(ret, align, n);
}
char *__wrap_strdup(const char *s) { return fails() ? NULL : strdup(s); }
