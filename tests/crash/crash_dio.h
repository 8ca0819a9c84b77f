/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the two halves of the direct-I/O workload share: its model. crash_dio.c makes the changes,
 * crash_dio_check.c judges a recovered image.
 */
#ifndef FDIO_CRASH_DIO_H
#define FDIO_CRASH_DIO_H

#include "crash/crash.h"
#include "dio/engine.h"

/* A unit is a sector: what a power cut does not tear, and the smallest thing that is written. */
enum { DIO_FILES = 6, DIO_UNIT = 512, DIO_UNITS = 320, DIO_ROUNDS = 130, DIO_REQS = 3 };
enum { DIO_ACKS = 1024, DIO_BUF = (DIO_UNITS + 8) * DIO_UNIT };

/* A value that a unit got (its generation; 0: zeroes), or a file's size (in units). */
struct dio_version {
	uint32_t value;
	unsigned submitted; /* so many events had happened when it was asked for */
	unsigned durable;   /* after so many events it was promised; UINT32_MAX: never */
};

struct dio_history { struct dio_version *version; unsigned nr, cap; };

struct recorded_file {
	struct crash_run *run;
	struct ext4_inode *inode;
	struct dio_file *file;
	struct dio_history unit[DIO_UNITS], size;
	unsigned busy;      /* requests in flight; guarded by run->lock */
	struct dio_sync sync;
};

/* One write in flight. */
struct recorded_write {
	struct dio_req req;
	struct recorded_file *file;
	uint32_t first, nr;
	uint8_t *buf;
};

struct crash_run {
	struct fake_dev *fake;
	struct ext4_vol *vol;
	struct dio *dio;
	struct work_queue *workers, *syncers;
	unsigned block_size;
	uint32_t gen;
	uint64_t seed;
	struct fdio_mutex lock; /* guards the histories, busy, err, acks */
	pthread_cond_t cond;
	int err;
	unsigned acks[DIO_ACKS], nr_acks; /* numbers of events at which something was promised */
	struct recorded_file file[DIO_FILES];
	struct recorded_write req[DIO_FILES][DIO_REQS];
	struct dio_sync sync; /* for syncfs */
};

extern const struct ext4_options crash_dio_options;

/* crash_dio.c: the content of unit n of a file in a generation. */
void crash_dio_fill(uint8_t *buf, unsigned file, uint32_t n, uint32_t gen);

/* crash_dio_check.c */
bool crash_dio_check(struct crash_run *run, struct fake_dev *fake, unsigned k, char *why,
		     size_t len);
bool crash_dio_digest(struct crash_run *run, struct fake_dev *fake, uint64_t *sum, char *why,
		      size_t len);

#endif
