/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The crash checker: four workloads, each a program of changes to a volume on a device that records
 * every write and flush, and a driver (crash_main.c). The driver cuts the power at many moments of
 * the record, lets the rest be recovered, and asks the workload whether what it had promised until
 * then is there.
 *
 *   crash_raw.c    handles of the journal on blocks, without a file system above it
 *   crash_files.c  files through the ext4 room, by one thread
 *   crash_tree.c   names and files through the ext4 room, by several threads
 *   crash_dio.c    data through the direct-I/O engine
 */
#ifndef FDIO_CRASH_H
#define FDIO_CRASH_H

#include "kit/device.h"
#include "journal/journal_types.h"

struct crash_run;

struct crash_workload {
	const char *name;
	/* Formats a device, starts the record, runs the workload. NULL with a message on stderr. */
	struct crash_run *(*run)(uint64_t seed);
	struct fake_dev *(*device)(struct crash_run *run);
	/* Recovers fake as a mount would, without checking; 0, or -errno and the reason in why. */
	int (*recover)(struct crash_run *run, struct fake_dev *fake, char *why, size_t len);
	/*
	 * fake was recovered, by whatever program, from a cut after the first k events: what was
	 * promised is there. False with the reason in why.
	 */
	bool (*check)(struct crash_run *run, struct fake_dev *fake, unsigned k, char *why,
		      size_t len);
	/*
	 * Sets *sum to a number for what fake contains: equal for equal contents, whatever program
	 * recovered them. False with the reason in why: it cannot be read.
	 */
	bool (*digest)(struct crash_run *run, struct fake_dev *fake, uint64_t *sum, char *why,
		       size_t len);
	void (*free)(struct crash_run *run);
	/* Chooses after how many events to cut; NULL: the driver does, at random. */
	unsigned (*moment)(struct crash_run *run, uint64_t *rnd);
	/* Recovery depends on the image alone, so that a second one gives the same bytes. */
	bool exact;
};

extern const struct crash_workload crash_raw;
extern const struct crash_workload crash_files;
extern const struct crash_workload crash_tree;
extern const struct crash_workload crash_dio;
/* While set, a run of crash_tree is so small that every cut of it can be tried. */
extern bool crash_tiny;
/*
 * While set, the log of a run of crash_raw is so small that it is always full, and it is emptied
 * only when a handle waits for space.
 */
extern bool crash_small_log;

/* As recover of a workload, for those on a volume: mounts fake read-write and unmounts it. */
struct ext4_options;
int crash_recover_volume(const struct ext4_options *options, struct fake_dev *fake, char *why,
			 size_t len);

/*
 * crash_kernel.c: the kernel's ext4 recovers fake, as recover of a workload does. Possible as root
 * with loop devices; else false with the reason in why.
 */
bool crash_kernel_possible(char *why, size_t len);
int crash_kernel_replay(struct fake_dev *fake, char *why, size_t len);

/* splitmix64: the same numbers on each machine */
static inline uint64_t crash_rand(uint64_t *s)
{
	uint64_t z = *s += 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

static inline unsigned crash_pick(uint64_t *s, unsigned n) { return (unsigned)(crash_rand(s) % n); }

#endif
