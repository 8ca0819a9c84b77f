/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the two halves of cohtool share: how to end with a message, memory, checked reads and
 * writes, a queue of asynchronous I/O by the kernel's AIO or by io_uring. These are in cohtool.c,
 * and what fails in them ends the program. A queue belongs to one thread. At the end, the families
 * that main() in cohtool.c calls in cohtool_space.c.
 */
#ifndef TESTS_ROOT_COHTOOL_H
#define TESTS_ROOT_COHTOOL_H

#include <liburing.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { PAGE = 4096, SECTOR = 512, MAX_JOBS = 64 };

extern const char *path;	/* of the file that the families work on */
extern atomic_int stop;		/* helping threads of a family end when it is set */

void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void *pages(size_t len);	/* aligned for direct I/O, to be freed */
int opened(int flags);
uint32_t rnd(uint64_t *s);
void full_write(int fd, const void *p, size_t n, off_t off);
void full_read(int fd, void *p, size_t n, off_t off);
void start(pthread_t *t, void *(*fn)(void *), void *arg);
void all_equal(const unsigned char *p, size_t n, int byte, const char *what, off_t at);

struct queue {
	int by_ring;
	aio_context_t aio;
	struct io_uring ring;
	struct iocb cb[MAX_JOBS];
};

void queue_init(struct queue *queue, int by_ring);
/*
 * Slots are the caller's numbers, below MAX_JOBS; one is free again when queue_wait has returned
 * it.
 */
void queue_add(struct queue *queue, unsigned slot, int fd, int is_write, void *buf, size_t len,
	       off_t off);
unsigned queue_wait(struct queue *queue, long *res);

/* foreign_byte: what other files consisted of, whose blocks may be in this one. */
void run_append(int direct);
void run_sectors(void);
void run_odd(void);
void run_shrink(int foreign_byte);

#endif
