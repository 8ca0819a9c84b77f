/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What every device has in common: checks of ranges and alignment, bouncing, batches. The journal,
 * the ext4 room and the engine's workers call these wrappers on threads that may block; dev_now
 * runs on any thread. The asynchronous path, dev_submit, goes straight to the implementation. Files
 * call each other downwards: open.c, uring.c, dev.c, flush.c, busy.c.
 *
 * read, write and write_many of an implementation get ranges inside the device, multiples of its
 * sector, with memory aligned to mem_align. A range outside the device is -EIO here and reaches no
 * implementation: only a damaged image can cause it, and the rooms above check for that first.
 *
 * Bouncing: an unaligned request goes through an aligned buffer from malloc, or, when there is no
 * memory, through the one buffer that each device keeps for that. dev_bounce.lock (RANK_DEV) guards
 * that buffer and is held over the I/O.
 */
#include "dev/dev.h"

#include "base/counters.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/nowait.h"
#include "dev/flush.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BOUNCE_BYTES (256u * 1024u)
#define MEM_ALIGN_MAX 4096u

struct dev_bounce {
	struct fdio_mutex lock;
	uint8_t *reserve;
};

int dev_init(struct dev *dev, const struct dev_ops *ops, const char *name)
{
	dev->ops = ops;
	strncpy(dev->name, name, sizeof(dev->name) - 1);
	dev->name[sizeof(dev->name) - 1] = '\0';
	dev->flusher = dev_flusher_new();
	dev->bounce = calloc(1, sizeof(*dev->bounce));
	dev->busy = dev_busy_new();
	if (!dev->flusher || !dev->bounce || !dev->busy)
		goto nomem;
	dev->bounce->reserve = fdio_alloc_aligned(MEM_ALIGN_MAX, BOUNCE_BYTES);
	if (!dev->bounce->reserve)
		goto nomem;
	fdio_mutex_init(&dev->bounce->lock, RANK_DEV);
	fdio_magic_set(dev, MAGIC_DEV);
	return 0;
nomem:
	dev_flusher_free(dev->flusher);
	free(dev->bounce);
	dev_busy_free(dev->busy);
	dev->flusher = NULL;
	dev->bounce = NULL;
	dev->busy = NULL;
	return -ENOMEM;
}

void dev_fini(struct dev *dev)
{
	fdio_magic_clear(dev, MAGIC_DEV);
	dev_flusher_free(dev->flusher);
	dev->flusher = NULL;
	if (dev->bounce) {
		fdio_mutex_fini(&dev->bounce->lock);
		free(dev->bounce->reserve);
		free(dev->bounce);
		dev->bounce = NULL;
	}
	dev_busy_free(dev->busy);
	dev->busy = NULL;
}

static bool in_device(const struct dev *dev, uint64_t off, uint64_t len)
{
	return off <= dev->caps.size_bytes && len <= dev->caps.size_bytes - off;
}

static uint32_t sector_of(const struct dev *dev)
{
	return dev->caps.sector_bytes ? dev->caps.sector_bytes : 512;
}

static bool mem_aligned(const struct dev *dev, const void *buf)
{
	return !dev->caps.mem_align || fdio_is_aligned((uintptr_t)buf, dev->caps.mem_align);
}

/* An aligned buffer; bounce_put frees it. *ret_held: it is the reserve, whose lock is held. */
static uint8_t *bounce_get(struct dev *dev, size_t len, bool *ret_held)
{
	void *p = NULL;

	*ret_held = false;
	if (!posix_memalign(&p, MEM_ALIGN_MAX, FDIO_MIN(len, (size_t)BOUNCE_BYTES)))
		return p;
	fdio_mutex_lock(&dev->bounce->lock);
	*ret_held = true;
	return dev->bounce->reserve;
}

static void bounce_put(struct dev *dev, uint8_t *p, bool held)
{
	if (held)
		fdio_mutex_unlock(&dev->bounce->lock);
	else
		free(p);
}

static int read_bounced(struct dev *dev, uint8_t *buf, size_t len, uint64_t off)
{
	uint32_t sector = sector_of(dev);
	uint64_t start = fdio_round_down(off, sector), end = fdio_round_up(off + len, sector);
	bool held;
	uint8_t *b;
	int err = 0;

	/* The last, partial sector of an image file of an odd size cannot be read directly. */
	if (end > fdio_round_down(dev->caps.size_bytes, sector))
		return -EIO;
	b = bounce_get(dev, end - start, &held);
	while (start < end) {
		size_t n = FDIO_MIN(end - start, (uint64_t)BOUNCE_BYTES);
		size_t skip = off - start, part = FDIO_MIN(len, n - skip);

		err = dev->ops->read(dev, b, n, start);
		if (err < 0)
			break;
		memcpy(buf, b + skip, part);
		buf += part;
		off += part;
		len -= part;
		start += n;
	}
	bounce_put(dev, b, held);
	return err < 0 ? err : 0;
}

int dev_read(struct dev *dev, void *buf, size_t len, uint64_t off)
{
	struct dev_call call;
	int err;

	if (!len)
		return 0;
	if (!in_device(dev, off, len))
		return -EIO;
	FDIO_ASSERT(!nowait_on());
	dev_call_begin(dev, &call, COUNTER_dev_read, 1, off, len);
	if (!fdio_is_aligned(off | len, sector_of(dev)) || !mem_aligned(dev, buf))
		err = read_bounced(dev, buf, len, off);
	else
		err = dev->ops->read(dev, buf, len, off);
	dev_call_end(dev, &call);
	return err < 0 ? err : 0;
}

static int write_bounced(struct dev *dev, const uint8_t *buf, size_t len, uint64_t off,
			 unsigned flags)
{
	bool held;
	uint8_t *b = bounce_get(dev, len, &held);
	int err = 0;

	while (len) {
		size_t n = FDIO_MIN(len, (size_t)BOUNCE_BYTES);

		memcpy(b, buf, n);
		err = dev->ops->write(dev, b, n, off, flags);
		if (err < 0)
			break;
		buf += n;
		off += n;
		len -= n;
	}
	bounce_put(dev, b, held);
	return err < 0 ? err : 0;
}

static int write_allowed(const struct dev *dev, uint64_t off, uint64_t len)
{
	if (dev->caps.read_only)
		return -EROFS;
	if (!in_device(dev, off, len))
		return -EIO;
	return fdio_is_aligned(off | len, sector_of(dev)) ? 0 : -EINVAL;
}

int dev_write(struct dev *dev, const void *buf, size_t len, uint64_t off, unsigned flags)
{
	int err = write_allowed(dev, off, len);
	struct dev_call call;

	if (err || !len)
		return err;
	FDIO_ASSERT(!nowait_on());
	dev_call_begin(dev, &call, COUNTER_dev_write, 1, off, len);
	if (!mem_aligned(dev, buf))
		err = write_bounced(dev, buf, len, off, flags);
	else
		err = dev->ops->write(dev, buf, len, off, flags);
	dev_call_end(dev, &call);
	return err < 0 ? err : 0;
}

static int first_error(const struct dev_vec *vec, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (vec[i].result < 0)
			return vec[i].result;
	return 0;
}

int dev_write_many(struct dev *dev, struct dev_vec *vec, unsigned n)
{
	bool direct = dev->ops->write_many != NULL;

	for (unsigned i = 0; i < n && direct; i++)
		direct = vec[i].len && !write_allowed(dev, vec[i].off, vec[i].len) &&
			 mem_aligned(dev, vec[i].buf);
	if (direct && n) {
		struct dev_call call;
		uint64_t len = 0;
		int err;

		FDIO_ASSERT(!nowait_on());
		for (unsigned i = 0; i < n; i++)
			len += vec[i].len;
		dev_call_begin(dev, &call, COUNTER_dev_write, n, vec[0].off, len);
		err = dev->ops->write_many(dev, vec, n);
		dev_call_end(dev, &call);
		return err;
	}
	for (unsigned i = 0; i < n; i++)
		vec[i].result = dev_write(dev, vec[i].buf, vec[i].len, vec[i].off, 0);
	return first_error(vec, n);
}

int dev_discard(struct dev *dev, uint64_t off, uint64_t len)
{
	int err = write_allowed(dev, off, len);
	struct dev_call call;

	if (err || !len)
		return err;
	if (!dev->caps.discard || !dev->ops->discard)
		return -EOPNOTSUPP;
	dev_call_begin(dev, &call, COUNTER_dev_discard, 1, off, len);
	err = dev->ops->discard(dev, off, len);
	dev_call_end(dev, &call);
	return err;
}

void dev_now(struct dev *dev, struct timespec *ts)
{
	if (dev->ops->now)
		dev->ops->now(dev, ts);
	else
		clock_gettime(CLOCK_REALTIME, ts);
}

void dev_close(struct dev *dev)
{
	int err;

	fdio_magic_check(dev, MAGIC_DEV);
	err = dev->caps.read_only ? 0 : dev_flush(dev);
	if (err)
		log_err("%s: flush at close failed: %s", dev->name, strerror(-err));
	dev->ops->close(dev);
}
