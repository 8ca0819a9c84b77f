/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device in memory for the unit tests: struct dev_ops over an image, with what real devices do
 * and test machines do not: a volatile cache that a power cut loses, completions in any order,
 * held, short or failed, and a record of everything that was sent.
 *
 * Images. "now" is what reads see. "media" is what survives a power cut. A write that completed is
 * in now; it reaches media when it is FUA, when the device has no volatile cache, or when a flush
 * that was submitted after the write completed has completed. What lies between is "pending".
 *
 * Threads. Every call may come from any thread; one mutex guards the images. Completion callbacks
 * and the hook run without it.
 */
#ifndef FDIO_KIT_DEVICE_H
#define FDIO_KIT_DEVICE_H

#include "dev/dev.h"

#include <sys/types.h>

struct fake_dev;

/* ---- life ---- */
/*
 * size is rounded up to 4096. Volatile cache and FUA are on, discard on; change fake_dev(f)->caps
 * before use.
 */
struct fake_dev *fake_new(uint64_t size, uint32_t lbs);
/* As if the power went and nobody looks any more; dev_close on the device frees it as well. */
void fake_free(struct fake_dev *fake);
struct dev *fake_dev(struct fake_dev *fake);
struct fake_dev *fake_of(struct dev *dev);
/* Fill every byte of both images: makes stale data visible. */
void fake_fill(struct fake_dev *fake, uint8_t byte);
/* A new device that holds what reads of fake see now, all of it durable; same caps. */
struct fake_dev *fake_clone(struct fake_dev *fake);
/* Direct access to the image that reads see (no counters, no faults). */
void fake_peek(struct fake_dev *fake, void *buf, size_t len, uint64_t off);
/* durable at once */
void fake_poke(struct fake_dev *fake, const void *buf, size_t len, uint64_t off);
/* What survives a power cut now if everything pending is lost. */
void fake_peek_media(struct fake_dev *fake, void *buf, size_t len, uint64_t off);

/* ---- counters ---- */
struct fake_stats {
	/* requests that were submitted, sync and async; FUA writes count in both */
	uint64_t reads, writes, fua, flushes, discards;
	uint64_t bytes_read, bytes_written;
	uint64_t async;        /* of these, through dev_submit */
	uint64_t retried;      /* of these, with DEV_ASYNC */
	uint64_t overlaps;     /* async writes submitted while an overlapping one was in flight */
	/* requests outside the contract of dev.h: refused with -EINVAL, told on stderr */
	uint64_t violations;
};
struct fake_stats fake_stats(struct fake_dev *fake);
void fake_stats_reset(struct fake_dev *fake);

/* ---- how dev_submit completes ---- */
enum fake_mode {
	FAKE_INLINE,  /* inside dev_submit (the default) */
	FAKE_HELD,    /* when the test says so; read buffers are poisoned meanwhile */
	FAKE_THREAD,  /* by one thread of the fake, in an order that the seed decides */
};
/* Nothing may be in flight. seed is for FAKE_THREAD and fake_complete_random. */
void fake_set_mode(struct fake_dev *fake, enum fake_mode mode, uint64_t seed);
/* Held requests, oldest first; a stuck one stays in the list until fake_unstick. */
unsigned fake_held(struct fake_dev *fake);
struct dev_io *fake_held_io(struct fake_dev *fake, unsigned k);
/*
 * Completes the k-th held request: transfers and calls done on this thread. False if there is no
 * such or it is stuck.
 */
bool fake_complete(struct fake_dev *fake, unsigned k);
/* Until none is left (also those submitted by the completions); returns how many. */
unsigned fake_complete_all(struct fake_dev *fake);
unsigned fake_complete_random(struct fake_dev *fake);
void fake_unstick(struct fake_dev *fake);
/* Waits until n requests are held (other threads submit); false after 10 s. */
bool fake_wait_held(struct fake_dev *fake, unsigned n);

/* ---- what goes wrong ---- */
enum fake_kind { FAKE_READ = 1, FAKE_WRITE = 2, FAKE_FLUSH = 4, FAKE_DISCARD = 8, FAKE_ANY = 15 };
enum fake_action {
	FAKE_ERROR,  /* result err, nothing transferred */
	FAKE_SHORT,  /* async: n bytes fewer than asked are transferred, at least 0 */
	FAKE_STUCK,  /* async: never completes until fake_unstick; sync: waits for it */
	FAKE_DROP,   /* a write reports success and changes nothing */
};
struct fake_fault {
	unsigned kinds;          /* enum fake_kind, or-ed */
	uint64_t off, len;       /* requests that touch this range; len 0: any */
	unsigned skip;           /* so many matching requests pass first */
	unsigned repeat;         /* then so many are hit; 0: all */
	bool async_only, sync_only;
	bool fua_only, plain_only; /* writes with DEV_FUA, and writes without */
	enum fake_action action;
	int err;                 /* FAKE_ERROR: e.g. -EIO, -EAGAIN */
	uint32_t n;              /* FAKE_SHORT */
};
/* At most 16 at a time; the first that matches acts. */
void fake_fault_add(struct fake_dev *fake, const struct fake_fault *fault);
void fake_fault_clear(struct fake_dev *fake);
uint64_t fake_fault_hits(struct fake_dev *fake); /* since the last clear */

/*
 * Synchronous calls of these kinds (async ones too when FAKE_INLINE) wait at the door until
 * fake_unblock.
 */
void fake_block(struct fake_dev *fake, unsigned kinds);
void fake_unblock(struct fake_dev *fake);
/* until n calls wait; false after 10 s */
bool fake_wait_blocked(struct fake_dev *fake, unsigned n);

/*
 * Called before (after = false) and after each request takes effect, on its thread, without the
 * lock.
 */
typedef void (*fake_hook)(void *arg, enum fake_kind kind, uint64_t off, uint64_t len,
			  unsigned flags, bool after);
void fake_set_hook(struct fake_dev *fake, fake_hook fn, void *arg);

/* The clock that dev_now answers: stands still at ts (NULL: the real time, the default). */
void fake_set_clock(struct fake_dev *fake, const struct timespec *ts);

/* ---- power cuts ---- */
enum fake_cut {
	FAKE_CUT_KEEP,   /* everything submitted reached the media */
	FAKE_CUT_DROP,   /* nothing that was not durable did */
	/* each pending write kept, dropped or torn at 512 bytes, as the seed says */
	FAKE_CUT_RANDOM,
	FAKE_CUT_MASK,   /* the seed's bits, lowest first: 1 keeps a pending write, 0 drops it */
};
/*
 * A new device with what a power cut now leaves: pending and in-flight writes treated as mode says.
 */
struct fake_dev *fake_power_cut(struct fake_dev *fake, enum fake_cut mode, uint64_t seed);

/*
 * The recorder: from here on each submission and completion of a write and a flush is an event.
 * What is pending becomes durable.
 */
void fake_record_start(struct fake_dev *fake);
void fake_record_stop(struct fake_dev *fake); /* forgets the record */
unsigned fake_record_events(struct fake_dev *fake);
enum fake_event_type { FAKE_EVENT_SUBMIT, FAKE_EVENT_COMPLETE };
struct fake_event {
	enum fake_event_type type;
	enum fake_kind kind;
	unsigned flags;      /* DEV_FUA */
	uint64_t id;         /* joins submission and completion */
	uint64_t off;
	uint32_t len;
	int result;          /* completion: bytes or -errno (sync calls: len or -errno; flush 0) */
	const void *data;    /* submission of a write */
};
struct fake_event fake_record_event(struct fake_dev *fake, unsigned k);
/* As fake_power_cut, at the moment when the first k events had happened. */
struct fake_dev *fake_record_cut(struct fake_dev *fake, unsigned k, enum fake_cut mode,
				 uint64_t seed);
/* How many writes were not safe then. */
unsigned fake_record_pending(struct fake_dev *fake, unsigned k);

/* ---- files and the tools of e2fsprogs (no root needed) ---- */
/* from offset 0; the rest is zero; durable */
int fake_load(struct fake_dev *fake, const char *path);
int fake_save(struct fake_dev *fake, const char *path);
/*
 * A new device of size bytes formatted by "mke2fs -q -F args"; NULL with a message on stderr. args
 * may hold -d, -O, -b ...
 */
struct fake_dev *fake_mkfs(uint64_t size, const char *args);
struct fake_dev *fake_mkfs_lbs(uint64_t size, uint32_t lbs, const char *args);
/* Exit code of "e2fsck -fn" on what reads see now; its output goes to stderr when it is not 0. */
int fake_e2fsck(struct fake_dev *fake);
/* The same after e2fsck has replayed the journal (on the copy). */
int fake_e2fsck_replay(struct fake_dev *fake);
/*
 * Runs a shell command with $IMG naming a copy of the image and /sbin in the path. Its standard
 * output goes to out (NUL added, cut at cap; NULL: ours). reload: the copy is loaded back
 * afterwards. Exit code, or -1.
 */
int fake_run(struct fake_dev *fake, const char *cmd, char *out, size_t cap, bool reload);

#endif
