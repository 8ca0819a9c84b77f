/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The body of struct fake_dev; only for the files of the fake device. Everything is guarded by
 * lock.
 */
#ifndef FDIO_KIT_DEVICE_TYPES_H
#define FDIO_KIT_DEVICE_TYPES_H

#include "base/list.h"
#include "base/lock.h"
#include "kit/device.h"

#define FAKE_FAULTS 16

/* A write that completed and is not durable yet; in order of completion. */
struct fake_pending {
	struct list node;
	uint64_t seq, off;
	uint32_t len;
	uint8_t data[];
};

struct fault_state {
	struct fake_fault fault;
	unsigned seen, hits;
};

/* A request submitted by dev_submit that has not completed. */
struct held {
	struct list node;
	struct dev_io *io;
	uint64_t id;
	bool stuck, bad, has_fault;
	struct fake_fault fault; /* a copy: the plan may change meanwhile */
};

struct fake_record; /* kit/power_cut.c */

struct fake_dev {
	struct dev dev;
	struct fdio_mutex lock;
	pthread_cond_t cond;
	uint64_t size;
	uint8_t *now, *media;
	struct list pending;
	uint64_t seq;  /* completed writes */
	uint64_t ids;  /* requests */
	struct fake_stats stats;

	enum fake_mode mode;
	uint64_t seed;
	struct list held; /* oldest first */
	unsigned nr_held;
	pthread_t thread;
	bool thread_stop;
	unsigned stuck_epoch;

	struct fault_state faults[FAKE_FAULTS];
	unsigned nr_faults;
	uint64_t fault_hits;
	unsigned blocked_kinds, nr_blocked;
	fake_hook hook;
	void *hook_arg;
	bool clock_set;
	struct timespec clock;

	struct fake_record *rec;
};

uint64_t fake_rand(uint64_t *seed);
void *fake_image_new(uint64_t size);
void fake_image_free(void *img, uint64_t size);
void fake_image_copy(uint8_t *dst, const uint8_t *src, uint64_t size);
/* Lock held. */
void fake_image_write(struct fake_dev *fake, const void *data, uint32_t len, uint64_t off,
		      bool durable);
void fake_image_flush(struct fake_dev *fake, uint64_t upto);
void fake_record_submit(struct fake_dev *fake, uint64_t id, enum fake_kind kind, uint64_t off,
			uint32_t len, unsigned flags, const void *data);
void fake_record_complete(struct fake_dev *fake, uint64_t id, enum fake_kind kind, uint64_t off,
			  uint32_t len, unsigned flags, int result);

#endif
