/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device in memory for the unit tests: struct dev_ops over an image, with what real devices do
 * and test machines do not: a volatile cache that a power cut loses, completions in any order,
 * held, short or failed, and a record of everything that was sent.
 *
 * Images. Reads see "now"; a power cut leaves "media". A write that has completed is in now. It
 * reaches media at once if it is FUA or the device has no volatile cache, otherwise when a flush
 * completes that was submitted after the write had completed. Until then the write is "pending".
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
 * All zero. size is rounded up to 4096; a sector is what the kernel calls a logical block. The
 * device has a volatile cache, FUA and discard; a test changes fake_dev(fake)->caps before use.
 */
struct fake_dev *fake_new(uint64_t size, uint32_t sector_bytes);
/*
 * Frees it with all that is pending or held. dev_close on the device does the same. NULL: nothing.
 */
void fake_free(struct fake_dev *fake);
struct dev *fake_dev(struct fake_dev *fake);
struct fake_dev *fake_of(struct dev *dev);
/* Fills both images with byte, so that a test sees when it reads stale data. */
void fake_fill(struct fake_dev *fake, uint8_t byte);
/* A new device with the caps of fake that holds what reads of fake see now, all durable. */
struct fake_dev *fake_clone(struct fake_dev *fake);
/* Reads from the image "now", without counters and faults. */
void fake_peek(struct fake_dev *fake, void *buf, size_t len, uint64_t off);
/* Writes to both images, without counters and faults. */
void fake_poke(struct fake_dev *fake, const void *buf, size_t len, uint64_t off);
/* Reads from the image "media". */
void fake_peek_media(struct fake_dev *fake, void *buf, size_t len, uint64_t off);

/* ---- counters ---- */
struct fake_stats {
	/* requests sent, synchronous and asynchronous; a FUA write counts in writes and in fua */
	uint64_t reads, writes, fua, flushes, discards;
	uint64_t bytes_read, bytes_written;
	uint64_t async;        /* those through dev_submit */
	uint64_t retried;      /* those through dev_submit with DEV_ASYNC */
	uint64_t overlaps;     /* async writes submitted while an overlapping one was in flight */
	/* requests that dev.h does not allow: each is refused with -EINVAL and told on stderr */
	uint64_t violations;
};
struct fake_stats fake_stats(struct fake_dev *fake);
void fake_stats_reset(struct fake_dev *fake);

/* ---- how dev_submit completes ---- */
enum fake_mode {
	FAKE_INLINE,  /* inside dev_submit (the default) */
	FAKE_HELD,    /* when the test calls fake_complete; until then a read's buffer holds 0xdb */
	FAKE_THREAD,  /* by a thread of the fake, in an order that the seed decides */
};
/* Nothing may be in flight. seed is used by FAKE_THREAD and fake_complete_random. */
void fake_set_mode(struct fake_dev *fake, enum fake_mode mode, uint64_t seed);
/* Held requests, oldest first; a stuck one stays in the list until fake_unstick. */
unsigned fake_held(struct fake_dev *fake);
struct dev_io *fake_held_io(struct fake_dev *fake, unsigned k);
/*
 * Completes the k-th held request on this thread: moves its data, calls its done. False if there is
 * no such request or it is stuck.
 */
bool fake_complete(struct fake_dev *fake, unsigned k);
/*
 * Complete requests, oldest first or in the seed's order, until only stuck ones are left, also
 * those that the completions submit. Return how many.
 */
unsigned fake_complete_all(struct fake_dev *fake);
unsigned fake_complete_random(struct fake_dev *fake);
void fake_unstick(struct fake_dev *fake);
/* Waits until n requests are held, submitted by other threads; false after 10 s. */
bool fake_wait_held(struct fake_dev *fake, unsigned n);

/* ---- what goes wrong ---- */
enum fake_kind { FAKE_READ = 1, FAKE_WRITE = 2, FAKE_FLUSH = 4, FAKE_DISCARD = 8, FAKE_ANY = 15 };
enum fake_action {
	FAKE_ERROR,  /* the result is err and no data moves */
	FAKE_SHORT,  /* async: the last n bytes are not transferred */
	FAKE_STUCK,  /* does not complete before fake_unstick; a synchronous call waits for it */
	FAKE_DROP,   /* a write or flush reports success and has no effect */
};
struct fake_fault {
	unsigned kinds;          /* enum fake_kind, or-ed */
	uint64_t off, len;       /* matches requests that touch this range; len 0: any */
	unsigned skip;           /* so many matching requests pass first, */
	unsigned repeat;         /* then so many are hit; 0: all */
	bool async_only, sync_only;
	bool fua_only, plain_only; /* of writes: only those with DEV_FUA, only those without */
	enum fake_action action;
	int err;                 /* FAKE_ERROR: e.g. -EIO, -EAGAIN */
	uint32_t n;              /* FAKE_SHORT */
};
/* At most 16 at a time; the first that matches a request acts on it. */
void fake_fault_add(struct fake_dev *fake, const struct fake_fault *fault);
void fake_fault_clear(struct fake_dev *fake);
uint64_t fake_fault_hits(struct fake_dev *fake); /* since the last clear */

/*
 * Requests of these kinds (enum fake_kind, or-ed) wait before they take effect until fake_unblock:
 * synchronous calls, and in FAKE_INLINE dev_submit too.
 */
void fake_block(struct fake_dev *fake, unsigned kinds);
void fake_unblock(struct fake_dev *fake);
/* Waits until n calls wait so; false after 10 s. */
bool fake_wait_blocked(struct fake_dev *fake, unsigned n);

/*
 * Called before (after = false) and after each request takes effect, on the thread that carries it
 * out. It may call the fake.
 */
typedef void (*fake_hook)(void *arg, enum fake_kind kind, uint64_t off, uint64_t len,
			  unsigned flags, bool after);
void fake_set_hook(struct fake_dev *fake, fake_hook fn, void *arg);

/* dev_now answers ts from here on; NULL: the real time, as at the start. */
void fake_set_clock(struct fake_dev *fake, const struct timespec *ts);

/* ---- power cuts ---- */
enum fake_cut {
	FAKE_CUT_KEEP,   /* all pending writes and all in flight reached the media */
	FAKE_CUT_DROP,   /* only what was durable did */
	FAKE_CUT_RANDOM, /* the seed keeps, drops or tears each, in pieces of 512 bytes */
	FAKE_CUT_MASK,   /* the seed's bits, lowest first: 1 keeps a write, 0 drops it */
};
/*
 * A new device with what a power cut now leaves. mode says what becomes of the pending writes and
 * of those in flight.
 */
struct fake_dev *fake_power_cut(struct fake_dev *fake, enum fake_cut mode, uint64_t seed);

/*
 * The recorder keeps each submission and each completion of a write or flush from here on as an
 * event. What is pending now becomes durable first.
 */
void fake_record_start(struct fake_dev *fake);
void fake_record_stop(struct fake_dev *fake); /* forgets the record */
unsigned fake_record_events(struct fake_dev *fake);
enum fake_event_type { FAKE_EVENT_SUBMIT, FAKE_EVENT_COMPLETE };
struct fake_event {
	enum fake_event_type type;
	enum fake_kind kind;
	unsigned flags;      /* DEV_FUA */
	uint64_t id;         /* the same in a submission and its completion */
	uint64_t off;
	uint32_t len;
	int result;          /* of a completion: bytes (flush: 0) or -errno */
	const void *data;    /* of a write's submission */
};
struct fake_event fake_record_event(struct fake_dev *fake, unsigned k);
/* As fake_power_cut, but at the moment when only the first k events had happened. */
struct fake_dev *fake_record_cut(struct fake_dev *fake, unsigned k, enum fake_cut mode,
				 uint64_t seed);
/* How many writes a power cut at that moment could have lost. */
unsigned fake_record_pending(struct fake_dev *fake, unsigned k);

/* ---- files and the tools of e2fsprogs (no root needed) ---- */
/* Fills both images from the file; what lies behind its end is zero. 0 or -errno. */
int fake_load(struct fake_dev *fake, const char *path);
/* Writes the image "now" to the file. 0 or -errno. */
int fake_save(struct fake_dev *fake, const char *path);
/*
 * A new device of size bytes, formatted by "mke2fs -q -F args"; NULL, with a message on stderr, if
 * that fails.
 */
struct fake_dev *fake_mkfs(uint64_t size, const char *args);
struct fake_dev *fake_mkfs_sectors(uint64_t size, uint32_t sector_bytes, const char *args);
/* The exit code of "e2fsck -fn" on the image "now"; unless that is 0, its output goes to stderr. */
int fake_e2fsck(struct fake_dev *fake);
/* As fake_e2fsck, after e2fsck has replayed the journal on a copy. */
int fake_e2fsck_replay(struct fake_dev *fake);
/*
 * Runs a shell command, with $IMG naming a copy of the image "now" and /sbin in the path. Its
 * standard output goes to out, cut so that it ends in a NUL within cap bytes (out NULL: to our
 * own). With reload the copy is loaded into the device afterwards. The exit code, or -1.
 */
int fake_run(struct fake_dev *fake, const char *cmd, char *out, size_t cap, bool reload);

#endif
