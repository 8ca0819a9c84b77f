/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Poisoning of memory that the program hands out itself, in pieces of larger allocations. A piece
 * that is not in use is out of bounds for AddressSanitizer, and overwritten in builds with
 * FDIO_DEBUG_LOCKS, so that a use after free is noticed. In release builds nothing happens. Any
 * thread, no locks: the caller owns the memory. Nothing fails.
 */
#ifndef FDIO_BASE_POISON_H
#define FDIO_BASE_POISON_H

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <stddef.h>
#include <string.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#define FDIO_ASAN 1
#else
#define FDIO_ASAN 0
#endif

static inline void fdio_poison(void *p, size_t n)
{
#if FDIO_ASAN
	ASAN_POISON_MEMORY_REGION(p, n);
#elif defined(FDIO_DEBUG_LOCKS)
	memset(p, 0xdb, n);
#else
	(void)p;
	(void)n;
#endif
}

static inline void fdio_unpoison(void *p, size_t n)
{
#if FDIO_ASAN
	ASAN_UNPOISON_MEMORY_REGION(p, n);
#else
	(void)p;
	(void)n;
#endif
}

#endif
