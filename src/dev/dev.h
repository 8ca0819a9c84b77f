/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The device: a small table of functions between the rooms that need I/O and the implementation.
 * The product has one implementation (uring.c: a block device or image file through io_uring;
 * open.h opens it). The tests have a fake that completes in any order, inline, late, short or with
 * an error, and loses what was not flushed.
 *
 * All offsets and lengths are bytes, errors are -errno. Two ways in:
 *
 * - dev_submit: asynchronous, from a loop thread only, for the data path. Never blocks, never
 *   allocates.
 * - dev_read, dev_write, dev_write_many, dev_flush and dev_discard: synchronous, from any thread
 *   that may block.
 */
#ifndef FDIO_DEV_H
#define FDIO_DEV_H

#include "base/magic.h"
#include "base/nowait.h"
#include "base/util.h"
#include "loop/loop.h"

#include <time.h>

struct dev;
struct dev_io;

enum dev_op { DEV_READ, DEV_WRITE };

enum {
	/* A write is on stable media when it completes (RWF_DSYNC). */
	DEV_FUA = 1 << 0,
	/* The kernel may block in a thread of its own: set to retry after EAGAIN. */
	DEV_ASYNC = 1 << 1,
};

struct dev_caps {
	uint64_t size_bytes;
	uint32_t sector_bytes;   /* logical sector: unit of offsets and lengths */
	uint32_t physical_bytes; /* physical sector, at least sector_bytes */
	uint32_t max_io_bytes;   /* no request is larger; a multiple of 4096 */
	uint32_t mem_align;      /* alignment of data memory */
	bool volatile_cache;     /* a power cut may lose completed writes until a flush */
	bool fua;                /* DEV_FUA is one command, not a write and a flush */
	bool fua_ignored;        /* the device claims FUA but does not honour it: flushes instead */
	bool discard;
	bool read_only;
	bool is_block;           /* a block device, else an image file */
};

/*
 * One asynchronous request. Its owner embeds it, and keeps it and buf alive until done runs: on the
 * loop thread that submitted it, or inside dev_submit. The submitter must not touch it after
 * dev_submit, because done may have freed it. result: the number of bytes, at least 1 and perhaps
 * fewer than len, or -errno. A medium error is -EIO whatever the driver said.
 */
struct dev_io {
	struct loop_op op;     /* dev's: the ring's completion */
	enum dev_op kind;
	unsigned flags;        /* DEV_FUA, DEV_ASYNC */
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
	void *buf;             /* the call does not change its content */
	uint32_t len;
	int result;            /* 0 or -errno, set by the call */
};

/*
 * What an implementation provides. read, write and write_many do all, or return -errno; dev.c gives
 * them ranges inside the device, in whole sectors, in memory aligned to mem_align, and bounces the
 * rest. write_many, discard, now and lost may be NULL. close calls dev_fini and frees.
 */
struct dev_ops {
	const char *name;
	void (*submit)(struct dev *dev, struct dev_io *io);
	int (*read)(struct dev *dev, void *buf, size_t len, uint64_t off);
	int (*write)(struct dev *dev, const void *buf, size_t len, uint64_t off, unsigned flags);
	int (*write_many)(struct dev *dev, struct dev_vec *vec, unsigned n);
	int (*flush)(struct dev *dev);
	int (*discard)(struct dev *dev, uint64_t off, uint64_t len);
	void (*now)(struct dev *dev, struct timespec *ts);
	bool (*lost)(struct dev *dev);
	void (*close)(struct dev *dev);
};

struct dev {
	FDIO_MAGIC_FIELD;
	const struct dev_ops *ops;
	struct dev_caps caps;
	char name[256];              /* as the user gave it */
	struct dev_flusher *flusher; /* flush.c's */
	struct dev_bounce *bounce;   /* dev.c's */
	struct dev_busy *busy;       /* busy.c's */
};

static inline void dev_submit(struct dev *dev, struct dev_io *io)
{
	fdio_magic_check(dev, MAGIC_DEV);
	dev->ops->submit(dev, io);
}

/*
 * Read or write all len bytes, or return -errno. Reads may be unaligned, writes must be of whole
 * sectors; buf needs no alignment. flags: DEV_FUA.
 */
int dev_read(struct dev *dev, void *buf, size_t len, uint64_t off) FDIO_BLOCKS;
int dev_write(struct dev *dev, const void *buf, size_t len, uint64_t off,
	      unsigned flags) FDIO_BLOCKS;
/* Writes all pieces, in any order. Returns the first error after all have ended. */
int dev_write_many(struct dev *dev, struct dev_vec *vec, unsigned n) FDIO_BLOCKS;
int dev_discard(struct dev *dev, uint64_t off, uint64_t len) FDIO_BLOCKS;
/* The wall clock; tests have their own. Any thread. */
void dev_now(struct dev *dev, struct timespec *ts);
/*
 * True if part of the device is gone: the image file was truncated while it was served. Once this
 * has been noticed, writes and flushes fail with -EIO, because a write would let the file grow
 * again without the data it had. Any thread that may block.
 */
static inline bool dev_lost(struct dev *dev) { return dev->ops->lost && dev->ops->lost(dev); }
/* Flushes and closes. The device is gone afterwards. */
void dev_close(struct dev *dev) FDIO_BLOCKS;

/*
 * Makes durable every write that completed before the call. Callers that come while a flush runs
 * share the next one. -EIO to exactly the callers whose flush failed. If the device has no
 * volatile cache, no flush is sent, but the counters count one.
 */
int dev_flush(struct dev *dev) FDIO_BLOCKS;
/*
 * Registers fn(arg), which is called for each flush that fails: earlier writes may be lost, even if
 * a later flush succeeds. It runs on the thread that flushed, before dev_flush returns the error to
 * any caller and before another flush begins. One fn at a time; NULL removes it.
 */
void dev_on_flush_failure(struct dev *dev, void (*fn)(void *arg), void *arg) FDIO_BLOCKS;

/* Logs the synchronous requests that have not completed; returns how many. Any thread. */
unsigned dev_log_busy(struct dev *dev);

/* The common part, for implementations. dev_init: -ENOMEM. */
int dev_init(struct dev *dev, const struct dev_ops *ops, const char *name);
void dev_fini(struct dev *dev);

#endif
