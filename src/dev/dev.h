/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The device: a small table of functions between everything that does I/O and what does it. The
 * product has one implementation (uring.c: a block device or image file through io_uring). The
 * tests have a fake that completes in any order, inline, late, short or with an error, and loses
 * what was not flushed.
 *
 * All offsets and lengths are bytes. Two ways in:
 *
 * - dev_submit: asynchronous, from a loop thread only, for the data path. Never blocks, never
 *   allocates.
 * - dev_read, dev_write, dev_write_many, dev_flush and so on: synchronous, from any thread that may
 *   block.
 *
 * Errors are negative errnos; what the driver says is translated (see dev_io).
 */
#ifndef FDIO_DEV_H
#define FDIO_DEV_H

#include "base/magic.h"
#include "base/nowait.h"
#include "base/reason.h"
#include "base/util.h"
#include "loop/loop.h"

#include <time.h>

struct dev;
struct dev_io;

enum dev_op { DEV_READ, DEV_WRITE };

enum {
	/*
	 * writes: on stable media when it completes (RWF_DSYNC; one device command where there is
	 * FUA)
	 */
	DEV_FUA = 1 << 0,
	/* set by the retry after EAGAIN: let the kernel block in its own thread */
	DEV_ASYNC = 1 << 1,
};

struct dev_caps {
	uint64_t size_bytes;
	/* logical block size: alignment and granularity of every request */
	uint32_t sector_bytes;
	uint32_t physical_bytes;          /* physical block size, >= lbs */
	uint32_t max_io_bytes; /* one request is never larger; a multiple of 4096 */
	uint32_t mem_align;    /* alignment of data memory */
	bool volatile_cache;   /* completed writes can be lost at a power cut until a flush */
	bool fua;              /* DEV_FUA costs one command, not a write and a flush */
	/* the device claims FUA and does not honour it: a flush takes its place */
	bool fua_ignored;
	bool discard;
	bool read_only;
	bool is_block;         /* a block device (else an image file) */
};

/*
 * One asynchronous request. Embedded by its owner, which keeps it and buf alive until done runs.
 * After dev_submit returns, and even before, the submitter must not touch it: done may already have
 * run and freed it (no rendezvous between submitter and completion; seed: the iomap simple-path
 * review, 2026). done runs on the loop thread that submitted (or inline in dev_submit). result is
 * the number of bytes (equal to len, or fewer: the caller continues) or a negative errno. Errors
 * are already translated: a medium error is -EIO whatever the driver said (NVMe says ENODATA), 0
 * bytes is -EIO.
 */
struct dev_io {
	struct loop_op op;     /* dev's: the ring's completion */
	enum dev_op kind;
	unsigned flags;
	uint64_t off;
	uint32_t len;
	int buf_index;         /* registered buffer that holds buf, or -1 */
	void *buf;
	int result;
	void (*done)(struct dev_io *io);
	struct dev *dev;       /* dev's */
};

/* One piece of a synchronous batch. */
struct dev_vec {
	uint64_t off;
	void *buf;             /* read only for the device when writing */
	uint32_t len;
	int result;            /* 0 or -errno, set by the call */
};

/*
 * What an implementation provides. read, write, write_many: 0 for all, or -errno; only ranges
 * inside the device, lbs-aligned, in memory aligned to mem_align arrive (dev.c bounces the rest).
 * write_many, discard, now and lost may be NULL. close calls dev_fini and frees.
 */
struct dev_ops {
	const char *name;
	void (*submit)(struct dev *d, struct dev_io *io);
	int (*read)(struct dev *d, void *buf, size_t len, uint64_t off);
	int (*write)(struct dev *d, const void *buf, size_t len, uint64_t off, unsigned flags);
	int (*write_many)(struct dev *d, struct dev_vec *v, unsigned n);
	int (*flush)(struct dev *d);
	int (*discard)(struct dev *d, uint64_t off, uint64_t len);
	void (*now)(struct dev *d, struct timespec *ts);
	bool (*lost)(struct dev *d);
	void (*close)(struct dev *d);
};

struct dev {
	FDIO_MAGIC_FIELD;
	const struct dev_ops *ops;
	struct dev_caps caps;
	char name[256];        /* as the user gave it */
	struct dev_flusher *flusher; /* flush.c's */
	struct dev_bounce *bounce;   /* dev.c's */
	struct dev_busy *busy;       /* dev.c's */
};

static inline void dev_submit(struct dev *dev, struct dev_io *io)
{
	fdio_magic_check(dev, MAGIC_DEV);
	dev->ops->submit(dev, io);
}

/* All or -errno; short transfers are continued inside. Any alignment of off, len and buf inside the
 * device is accepted for reads (bounced when needed); writes must be lbs-aligned in off and len. */
int dev_read(struct dev *dev, void *buf, size_t len, uint64_t off) FDIO_BLOCKS;
int dev_write(struct dev *dev, const void *buf, size_t len, uint64_t off,
	      unsigned flags) FDIO_BLOCKS;
/*
 * In any order, all at once as far as the device goes; returns the first error after all have
 * ended.
 */
int dev_write_many(struct dev *dev, struct dev_vec *vec, unsigned n) FDIO_BLOCKS;
int dev_discard(struct dev *dev, uint64_t off, uint64_t len) FDIO_BLOCKS;
void dev_now(struct dev *dev, struct timespec *ts);
/*
 * Looks whether part of the device has gone: an image file that somebody truncated would grow again
 * with each write, and hold nothing of what it had. Once seen, writing and flushing fail with -EIO.
 * Any thread that may block.
 */
static inline bool dev_lost(struct dev *dev) { return dev->ops->lost && dev->ops->lost(dev); }
/* Flushes and closes. The device is gone afterwards. */
void dev_close(struct dev *dev) FDIO_BLOCKS;

/*
 * Flush sequencer (dev/flush.c): makes durable every write that completed before the call. Callers
 * that come while a flush runs share the next one. A device without a volatile cache still counts
 * the call but sends nothing. -EIO to exactly the callers whose flush failed. Blocks; never on a
 * loop thread.
 */
int dev_flush(struct dev *dev) FDIO_BLOCKS;
/*
 * fn is called for each flush that fails, whoever asked for it: what was written before may be
 * lost, though later ones succeed. On the thread that flushed, before anybody hears of the failure
 * or another flush begins. One at a time; NULL: none any more.
 */
void dev_on_flush_failure(struct dev *dev, void (*fn)(void *arg), void *arg) FDIO_BLOCKS;

/*
 * Logs each synchronous request that the device has not answered; returns how many there are. Any
 * thread.
 */
unsigned dev_log_busy(struct dev *dev);

/* Common init/fini for implementations. */
int dev_init(struct dev *dev, const struct dev_ops *ops, const char *name);
void dev_fini(struct dev *dev);

/* ---- the product's device (uring.c) ---- */
enum {
	DEV_OPEN_RDONLY = 1 << 0,
	DEV_OPEN_EXCL = 1 << 1,   /* O_EXCL for block devices, an exclusive lock for image files */
	DEV_OPEN_NODIRECT = 1 << 2, /* tests only: through the page cache */
};
/*
 * Opens path with O_DIRECT (falls back to the page cache with one warning where an image file's
 * file system has none). reason receives one line that names the cause and the way out. -EBUSY when
 * in use.
 */
int dev_uring_open(const char *path, unsigned flags, struct dev **ret, struct fdio_reason *reason)
	FDIO_BLOCKS;
/* Registers the device with every loop of the set (fixed file). Before loops_start. */
int dev_uring_attach(struct dev *dev, struct loop_set *set);
int dev_uring_fd(struct dev *dev);

#endif
