/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inside of the fake device: the body of struct fake_dev and what its files call in each other.
 * Only those files include this. fake->lock guards all of the struct.
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

/* A fault that the test has added, and how often it has matched and acted. */
struct fault_state {
	struct fake_fault fault;
	unsigned seen, hits;
};

/* A request submitted by dev_submit that has not completed. */
struct held {
	struct list node;
	struct dev_io *io;
	uint64_t id;
	bool stuck;     /* until fake_unstick */
	bool bad;       /* outside the contract: ends with -EINVAL */
	bool has_fault;
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
	uint64_t seq;  /* numbers completed writes */
	uint64_t ids;  /* numbers requests, for the record */
	struct fake_stats stats;

	enum fake_mode mode;
	uint64_t seed;
	struct list held; /* oldest first */
	unsigned nr_held;
	pthread_t thread;
	bool thread_stop;
	unsigned stuck_epoch;   /* changes when stuck synchronous calls may go on */

	struct fault_state faults[FAKE_FAULTS];
	unsigned nr_faults;
	uint64_t fault_hits;
	unsigned blocked_kinds; /* enum fake_kind, or-ed: these wait at the door */
	unsigned nr_blocked;    /* that wait */
	fake_hook hook;
	void *hook_arg;
	bool clock_set;         /* dev_now answers clock instead of the real time */
	struct timespec clock;

	struct fake_record *record; /* NULL: nothing is recorded */
};

/* ---- device.c ---- */
uint64_t fake_rand(uint64_t *seed);
/* Whether a write needs no flush: FUA, or no volatile cache. */
bool fake_write_is_durable(struct fake_dev *fake, unsigned flags);

/* ---- device_image.c ---- */
void *fake_image_new(uint64_t size);
void fake_image_free(void *img, uint64_t size);
void fake_image_copy(uint8_t *dst, const uint8_t *src, uint64_t size);
/* These three with the lock held. upto: a value of fake->seq. */
void fake_image_write(struct fake_dev *fake, const void *data, uint32_t len, uint64_t off,
		      bool durable);
void fake_image_flush(struct fake_dev *fake, uint64_t upto);
void fake_image_discard(struct fake_dev *fake, uint64_t off, uint64_t len);

/* ---- device_faults.c; all but the hook with the lock held ---- */
/* The first fault that fits and is due, counted as a hit; NULL: none. Valid until the unlock. */
const struct fake_fault *fake_fault_match(struct fake_dev *fake, enum fake_kind kind, uint64_t off,
					  uint64_t len, unsigned flags, bool async);
/* Waits (the lock is released meanwhile) while fake_block holds requests of this kind up. */
void fake_door_wait(struct fake_dev *fake, enum fake_kind kind);
/* Without the lock. */
void fake_hook_call(struct fake_dev *fake, enum fake_kind kind, uint64_t off, uint64_t len,
		    unsigned flags, bool after);
/* True, with a line on stderr, for a request that dev.h does not allow. */
bool fake_violates(struct fake_dev *fake, enum fake_kind kind, const void *buf, uint64_t off,
		   uint64_t len, bool async);
void fake_count(struct fake_dev *fake, enum fake_kind kind, uint64_t len, unsigned flags,
		bool async);

/* ---- device_async.c; without the lock ---- */
void fake_submit(struct dev *dev, struct dev_io *io);
/* In FAKE_THREAD: completes all that is not stuck, then ends the thread. */
void fake_completer_stop(struct fake_dev *fake);

/* ---- power_cut.c; with the lock held; nothing happens unless a record is on ---- */
void fake_record_submit(struct fake_dev *fake, uint64_t id, enum fake_kind kind, uint64_t off,
			uint32_t len, unsigned flags, const void *data);
void fake_record_complete(struct fake_dev *fake, uint64_t id, enum fake_kind kind, uint64_t off,
			  uint32_t len, unsigned flags, int result);

#endif
