/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Functions that the two files of cohtool share: ending with a message, memory, checked reads and
 * writes, a queue of asynchronous I/O by the kernel's AIO or by io_uring. They are in cohtool.c; an
 * error in one ends the program. A queue belongs to one thread. At the end, the checks of
 * cohtool_space.c, which main() calls.
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

extern const char *path;	/* the file that a check works on */
extern atomic_int stop;		/* set when the helping threads of a check must end */

void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void *pages(size_t len);	/* aligned for direct I/O; the caller frees it */
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
 * Submits a read or a write. The caller chooses a slot below MAX_JOBS that is not in flight;
 * queue_wait waits for one completion, returns its slot and sets *res to its result.
 */
void queue_add(struct queue *queue, unsigned slot, int fd, int is_write, void *buf, size_t len,
	       off_t off);
unsigned queue_wait(struct queue *queue, long *res);

/* foreign_byte: the contents of deleted files whose blocks this file may have got. */
void run_append(int direct);
void run_sectors(void);
void run_odd(void);
void run_shrink(int foreign_byte);

#endif
