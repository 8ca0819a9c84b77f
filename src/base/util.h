/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Small helpers for all rooms: sizes, alignment, container_of and the two assertions. Any thread,
 * no state.
 */
#ifndef FDIO_BASE_UTIL_H
#define FDIO_BASE_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define FDIO_MIN(a, b) ({ __typeof__(a) a_ = (a); __typeof__(b) b_ = (b); a_ < b_ ? a_ : b_; })
#define FDIO_MAX(a, b) ({ __typeof__(a) a_ = (a); __typeof__(b) b_ = (b); a_ > b_ ? a_ : b_; })

/* Bytes of a cache line. Data that one CPU writes often gets cache lines of its own. */
#define FDIO_CACHELINE 64
#define fdio_cacheline_aligned __attribute__((aligned(FDIO_CACHELINE)))

/* align is a power of two */
static inline uint64_t fdio_round_down(uint64_t v, uint64_t align) { return v & ~(align - 1); }
static inline uint64_t fdio_round_up(uint64_t v, uint64_t align)
{
	return (v + align - 1) & ~(align - 1);
}
static inline bool fdio_is_aligned(uint64_t v, uint64_t align) { return (v & (align - 1)) == 0; }
static inline uint64_t fdio_div_up(uint64_t v, uint64_t by) { return (v + by - 1) / by; }

/* The number of blocks of 1 << bits bytes that cover len bytes */
static inline uint64_t fdio_blocks(uint64_t len, unsigned bits)
{
	return (len + (1ULL << bits) - 1) >> bits;
}

/*
 * FDIO_ASSERT aborts if the expression is false, which it can be only if this program is wrong. It
 * stays in release builds, because file systems lose data by going on after a broken invariant.
 * Never use it for what a device, an image, a client or an administrator can cause: those are
 * errors, and the code handles them. The expression has no side effect
 * (build-aux/check-asserts.sh), so a build with FDIO_NO_ASSERT works the same.
 *
 * FDIO_MUST is for an action that has to succeed because the program could not go on without it: if
 * the expression is false, it aborts. The expression is evaluated once, in every build.
 */
void fdio_assert_failed(const char *expr, const char *file, int line, const char *func)
		__attribute__((noreturn, cold));
#define FDIO_MUST(e) \
	(likely(e) ? (void)0 : fdio_assert_failed(#e, __FILE__, __LINE__, __func__))
#ifdef FDIO_NO_ASSERT
#define FDIO_ASSERT(e) ((void)sizeof(!(e)))
#else
#define FDIO_ASSERT(e) FDIO_MUST(e)
#endif

/* For loops that wait until another CPU has changed something in memory. */
static inline void fdio_cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield" ::: "memory");
#else
	__asm__ volatile("" ::: "memory");
#endif
}

/*
 * Allocates len zeroed bytes, aligned to align (a power of two >= sizeof(void *)); NULL if there is
 * no memory. The caller frees it with free().
 */
void *fdio_alloc_aligned(size_t align, size_t len);

#endif
