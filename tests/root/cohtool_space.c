/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The checks of cohtool in which blocks are allocated and freed while others write and read: the
 * file grows at its end, holes are filled sector by sector and from two sides, the file is
 * truncated and punched. No write may be lost or torn by that, and no read may show bytes that were
 * never written there. main() in cohtool.c calls one of them; each makes its own threads or
 * processes.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cohtool.h"

#ifndef FALLOC_FL_KEEP_SIZE
#define FALLOC_FL_KEEP_SIZE 1
#define FALLOC_FL_PUNCH_HOLE 2
#define FALLOC_FL_ZERO_RANGE 16
#endif

/* ------------------------------------------------------------------ append */

enum { APPENDERS = 6, RECORDS = 150, RECORD = SECTOR };

/* Appends RECORDS records: units of RECORD bytes that all begin with (magic, number, units). */
static void append_some(unsigned who, int direct)
{
	int fd = opened(O_WRONLY | O_APPEND | (direct ? O_DIRECT : 0));
	unsigned char *p = pages(16 * RECORD);
	uint64_t seed = who;

	for (uint32_t n = 0; n < RECORDS; n++) {
		uint32_t units = 1 + rnd(&seed) % 15,
			 head[3] = { 0xfeedbeef, who << 16 | n, units };

		for (uint32_t u = 0; u < units; u++) {
			memset(p + u * RECORD, (int)(who * 40 + n % 40), RECORD);
			memcpy(p + u * RECORD, head, sizeof head);
		}
		if (write(fd, p, units * RECORD) != (ssize_t)(units * RECORD))
			die("append");
	}
}

void run_append(int direct)
{
	unsigned next[APPENDERS] = { 0 };
	uint32_t head[3];
	int status;
	struct stat st;

	close(opened(O_RDWR | O_CREAT | O_TRUNC));
	for (unsigned i = 0; i < APPENDERS; i++)
		if (!fork()) {
			append_some(i, direct);
			_exit(0);
		}
	for (int i = 0; i < APPENDERS; i++)
		if (wait(&status) < 0 || status)
			die("a writer ended with %x", status);
	int fd = opened(O_RDONLY);
	if (fstat(fd, &st))
		die("fstat");
	unsigned char *p = pages((size_t)st.st_size + 1);
	full_read(fd, p, (size_t)st.st_size, 0);
	for (size_t at = 0; at < (size_t)st.st_size;) {
		memcpy(head, p + at, sizeof head);
		unsigned who = head[1] >> 16, n = head[1] & 0xffff, units = head[2];

		if (head[0] != 0xfeedbeef || who >= APPENDERS || n != next[who] || units < 1 ||
		    units > 15 || at + (size_t)units * RECORD > (size_t)st.st_size)
			die("no record at %zu: %08x %08x %08x", at, head[0], head[1], head[2]);
		next[who]++;
		for (uint32_t u = 0; u < units; u++, at += RECORD) {
			if (memcmp(p + at, head, sizeof head))
				die("record %u of %u is torn at %zu", n, who, at);
			all_equal(p + at + sizeof head, RECORD - sizeof head,
				  (int)(who * 40 + n % 40), "record", (off_t)at);
		}
	}
	for (unsigned i = 0; i < APPENDERS; i++)
		if (next[i] != RECORDS)
			die("%u records of process %u, not %u", next[i], i, (unsigned)RECORDS);
	printf("ok %u records\n", APPENDERS * RECORDS);
}

/* ------------------------------------------------------------------ sectors */

void run_sectors(void)
{
	static struct queue queue;
	enum { BLOCKS = 48, NR = BLOCKS * 8 };
	unsigned char *buf = pages(MAX_JOBS * SECTOR), *all = pages(NR * SECTOR);
	unsigned char byte[NR] = { 0 };
	unsigned order[NR], free_slot[MAX_JOBS], nr_free = MAX_JOBS, next = 0, done = 0;
	uint64_t seed = 99;
	long res;

	queue_init(&queue, 0);
	for (int round = 0; round < 6; round++) {
		int fd = opened(O_RDWR | O_CREAT | O_TRUNC);

		if (ftruncate(fd, NR * SECTOR))
			die("ftruncate");
		if (round % 3 == 1 && fallocate(fd, 0, 0, NR * SECTOR))
			die("fallocate");
		int direct = opened(O_RDWR | O_DIRECT);
		memset(byte, 0, sizeof byte);
		for (unsigned i = 0; i < NR; i++)
			order[i] = i;
		for (unsigned i = NR - 1; i; i--) {
			unsigned k = rnd(&seed) % (i + 1), tmp = order[i];

			order[i] = order[k];
			order[k] = tmp;
		}
		for (nr_free = 0; nr_free < MAX_JOBS; nr_free++)
			free_slot[nr_free] = nr_free;
		unsigned todo = NR * 3 / 4;
		for (next = done = 0; done < todo;) {
			while (nr_free && next < todo) {
				unsigned s = free_slot[--nr_free], at = order[next++];

				byte[at] = (unsigned char)(1 + at % 250 + (unsigned)round % 5);
				memset(buf + s * SECTOR, byte[at], SECTOR);
				queue_add(&queue, s, direct, 1, buf + s * SECTOR, SECTOR,
					  (off_t)at * SECTOR);
			}
			unsigned s = queue_wait(&queue, &res);
			if (res != SECTOR)
				die("write of a sector: %ld", res);
			free_slot[nr_free++] = s;
			done++;
		}
		full_read(direct, all, NR * SECTOR, 0);
		for (unsigned i = 0; i < NR; i++)
			all_equal(all + i * SECTOR, SECTOR, byte[i], "direct read of sectors",
				  (off_t)i * SECTOR);
		full_read(fd, all, NR * SECTOR, 0);
		for (unsigned i = 0; i < NR; i++)
			all_equal(all + i * SECTOR, SECTOR, byte[i], "cached read of sectors",
				  (off_t)i * SECTOR);
		close(fd);
		close(direct);
	}
	puts("ok");
}

/* ------------------------------------------------------------------ odd */

enum { ODD_BLOCKS = 600 };

static void *odd_writer(void *arg)
{
	unsigned char *p = pages(PAGE);
	int first = (int)(intptr_t)arg & 1, how = (int)(intptr_t)arg >> 1;
	int fd = opened(O_RDWR | (how == 1 ? O_DIRECT : 0));
	unsigned char *map = how == 2 ? mmap(NULL, ODD_BLOCKS * PAGE, PROT_READ | PROT_WRITE,
					     MAP_SHARED, fd, 0)
				      : NULL;

	for (int b = first; b < ODD_BLOCKS; b += 2) {
		memset(p, 1 + b % 250, PAGE);
		if (map)
			memcpy(map + (size_t)b * PAGE, p, PAGE);
		else
			full_write(fd, p, PAGE, (off_t)b * PAGE);
	}
	close(fd);
	free(p);
	return NULL;
}

void run_odd(void)
{
	unsigned char *p = pages(ODD_BLOCKS * PAGE);
	static const int how[][2] = { { 0, 1 }, { 1, 0 }, { 1, 1 }, { 2, 1 }, { 0, 2 }, { 1, 2 } };

	for (unsigned k = 0; k < sizeof how / sizeof *how; k++) {
		pthread_t t[2];
		int fd = opened(O_RDWR | O_CREAT | O_TRUNC), direct = opened(O_RDONLY | O_DIRECT);

		if (ftruncate(fd, ODD_BLOCKS * PAGE))
			die("ftruncate");
		start(&t[0], odd_writer, (void *)(intptr_t)(how[k][0] << 1));
		start(&t[1], odd_writer, (void *)(intptr_t)(how[k][1] << 1 | 1));
		pthread_join(t[0], NULL);
		pthread_join(t[1], NULL);
		full_read(fd, p, ODD_BLOCKS * PAGE, 0);
		for (int b = 0; b < ODD_BLOCKS; b++)
			all_equal(p + (size_t)b * PAGE, PAGE, 1 + b % 250, "cached read",
				  (off_t)b * PAGE);
		full_read(direct, p, ODD_BLOCKS * PAGE, 0);
		for (int b = 0; b < ODD_BLOCKS; b++)
			all_equal(p + (size_t)b * PAGE, PAGE, 1 + b % 250, "direct read",
				  (off_t)b * PAGE);
		close(fd);
		close(direct);
	}
	puts("ok");
}

/* ------------------------------------------------------------------ shrink */

enum { SHRINK_SIZE = 2 << 20, SHRINK_MS = 2000 };
static int foreign;

static void *shrink_writer(void *arg)
{
	static _Thread_local struct queue queue;
	int fd = opened(O_RDWR | O_DIRECT);
	unsigned char *p = pages(8 * 8192);
	uint64_t seed = (uintptr_t)arg;
	long res;

	queue_init(&queue, (int)((uintptr_t)arg & 1));
	while (!stop) {
		for (unsigned i = 0; i < 8; i++) {
			off_t at = rnd(&seed) % (SHRINK_SIZE / SECTOR - 16) * SECTOR;
			size_t len = (1 + rnd(&seed) % 16) * SECTOR;

			for (size_t k = 0; k < len; k++) {
				off_t sector = (at + (off_t)k) / SECTOR;

				p[i * 8192 + k] = (unsigned char)(1 + sector % 100);
			}
			queue_add(&queue, i, fd, 1, p + i * 8192, len, at);
		}
		for (int i = 0; i < 8; i++) {
			queue_wait(&queue, &res);
			if (res <= 0)
				die("write while the file shrinks: %ld", res);
		}
	}
	return NULL;
}

static void *shrink_reader(void *arg)
{
	int direct = (int)((uintptr_t)arg & 1);
	int fd = opened(O_RDONLY | (direct ? O_DIRECT : 0));
	unsigned char *p = pages(64 << 10);
	uint64_t seed = (uintptr_t)arg;

	while (!stop) {
		off_t at = rnd(&seed) % (SHRINK_SIZE / SECTOR) * SECTOR;
		ssize_t n = pread(fd, p, 64 << 10, at);

		if (n < 0)
			die("read while the file shrinks");
		for (ssize_t k = 0; k < n; k++)
			if (p[k] && p[k] != (unsigned char)(1 + (at + k) / SECTOR % 100))
				die("%s read: %02x at %lld%s", direct ? "direct" : "cached", p[k],
				    (long long)(at + k),
				    p[k] == foreign ? ", from another file" : "");
	}
	return NULL;
}

/*
 * While the file is truncated and punched, each byte that is read is zero or the one that the
 * writer puts there; contents of other files never show.
 */
void run_shrink(int foreign_byte)
{
	struct timespec t0, t1;
	uint64_t seed = 5;
	unsigned n = 0;
	pthread_t t[4];
	int fd = opened(O_RDWR | O_CREAT | O_TRUNC);

	foreign = foreign_byte;
	if (ftruncate(fd, SHRINK_SIZE))
		die("ftruncate");
	start(&t[0], shrink_writer, (void *)2);
	start(&t[1], shrink_writer, (void *)3);
	start(&t[2], shrink_reader, (void *)4);
	start(&t[3], shrink_reader, (void *)5);
	clock_gettime(CLOCK_MONOTONIC, &t0);
	do {
		off_t at = rnd(&seed) % SHRINK_SIZE, len = 1 + rnd(&seed) % 300000;
		int err;

		switch (n++ % 4) {
		case 0: err = ftruncate(fd, at); break;
		case 1: err = ftruncate(fd, SHRINK_SIZE); break;
		case 2:
			err = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, len);
			break;
		default:
			err = fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, at, len);
			break;
		}
		if (err)
			die("step %u", n);
		clock_gettime(CLOCK_MONOTONIC, &t1);
	} while ((t1.tv_sec - t0.tv_sec) * 1000 + (t1.tv_nsec - t0.tv_nsec) / 1000000 < SHRINK_MS);
	stop = 1;
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	printf("ok %u steps\n", n);
}
