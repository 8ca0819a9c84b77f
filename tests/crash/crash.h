/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The crash checker: workloads that record every write and flush of a run, and the driver that cuts
 * the power at many moments of the record and asks each workload whether what recovery makes of the
 * rest is right.
 */
#ifndef FDIO_CRASH_H
#define FDIO_CRASH_H

#include "kit/device.h"
#include "journal/journal_types.h"

struct crash_run;

struct crash_workload {
	const char *name;
	/*
	 * Formats a device, starts recording, runs the seeded workload on it. NULL: failed, told on
	 * stderr.
	 */
	struct crash_run *(*run)(uint64_t seed);
	struct fake_dev *(*device)(struct crash_run *r);
	/* Recovers c (as a mount would) without checking; 0 or -errno with a reason. */
	int (*recover)(struct crash_run *r, struct fake_dev *c, char *why, size_t len);
	/*
	 * c is recovered, by us or by e2fsck, from a cut after the first k events: is what was
	 * promised there?
	 */
	bool (*check)(struct crash_run *r, struct fake_dev *c, unsigned k, char *why, size_t len);
	/*
	 * A number for what c contains that matters: equal for equal recoveries, whoever did them.
	 * False: it cannot be read.
	 */
	bool (*digest)(struct crash_run *r, struct fake_dev *c, uint64_t *sum, char *why,
		       size_t len);
	void (*free)(struct crash_run *r);
	/* After how many events to cut; NULL: any. */
	unsigned (*moment)(struct crash_run *r, uint64_t *rnd);
	/* recovery depends on nothing but the image: run twice, it gives the same bytes */
	bool exact;
};

extern const struct crash_workload crash_raw;
extern const struct crash_workload crash_files;
extern const struct crash_workload crash_tree;
extern const struct crash_workload crash_dio;
/* crash_tree makes a run so small that every cut of it can be tried. */
extern bool crash_tiny;
/*
 * crash_raw's log is so small that it is full all the time, and emptied only when somebody waits
 * for its space.
 */
extern bool crash_small_log;

/* A recover for workloads on a volume: mounts c read-write and unmounts it. */
struct ext4_options;
int crash_recover_volume(const struct ext4_options *options, struct fake_dev *fake, char *why,
			 size_t len);

/*
 * crash_kernel.c: the kernel's ext4 recovers c. Possible: as root, with loop devices; else false
 * and the reason.
 */
bool crash_kernel_possible(char *why, size_t len);
int crash_kernel_replay(struct fake_dev *fake, char *why, size_t len);

/* splitmix64: the same numbers everywhere */
static inline uint64_t crash_rand(uint64_t *s)
{
	uint64_t z = *s += 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

static inline unsigned crash_pick(uint64_t *s, unsigned n) { return (unsigned)(crash_rand(s) % n); }

#endif
