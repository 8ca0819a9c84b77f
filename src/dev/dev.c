/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What every device has in common: range and alignment checks, bouncing, batches. The
 * journal, the ext4 room and the workers of the engine call these wrappers on threads that may
 * block; the asynchronous path (dev_submit) goes straight to the implementation.
 *
 * Contract with the implementations: read, write and write_many get ranges inside the device,
 * multiples of the logical block size, with memory aligned to mem_align, and continue short
 * transfers themselves; they return 0 for all or a negative errno. A range outside the device is
 * -EIO here and reaches no implementation: such a number can only come from a damaged image, and
 * the rooms above check it first.
 *
 * Bouncing: an unaligned request goes through an aligned buffer from malloc, or, when there is no
 * memory, through the one buffer that each device keeps for that (under a mutex of rank RANK_DEV,
 * held over the I/O).
 *
 * Every synchronous request stands in a list (dev_busy.now, under a lock of RANK_LEAF) while the
 * device has it, so that dev_log_busy can say what a stalled device owes.
 */
#include "dev/dev.h"

#include "base/counters.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/nowait.h"
#include "dev/flush.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BOUNCE_BYTES (256u * 1024u)
#define MEM_ALIGN_MAX 4096u

struct dev_bounce {
	struct fdio_mutex lock;
	uint8_t *reserve;
};

struct dev_busy {
	struct fdio_mutex lock; /* RANK_LEAF */
	struct list now;        /* dev_call.node, on the stacks of their callers */
};

void dev_call_begin(struct dev *d, struct dev_call *c, enum fdio_counter kind, unsigned n, uint64_t off, uint64_t len)
{
	*c = (struct dev_call){ .kind = kind, .n = n, .off = off, .len = len, .since_ns = fdio_now_ns() };
	fdio_count_add(kind, n);
	fdio_mutex_lock(&d->busy->lock);
	list_add_tail(&d->busy->now, &c->node);
	fdio_mutex_unlock(&d->busy->lock);
}

void dev_call_end(struct dev *d, struct dev_call *c)
{
	fdio_mutex_lock(&d->busy->lock);
	list_del(&c->node);
	fdio_mutex_unlock(&d->busy->lock);
	fdio_count_add(CTR_dev_done, c->n);
}

unsigned dev_log_busy(struct dev *d)
{
	uint64_t now = fdio_now_ns();
	struct dev_call *c;
	unsigned n = 0;

	fdio_mutex_lock(&d->busy->lock);
	list_for_each(c, &d->busy->now, node) {
		n++;
		log_warn("%s: no answer for %" PRIu64 " s to %s of %" PRIu64 " bytes at %" PRIu64, d->name,
			 (now - c->since_ns) / 1000000000, fdio_counter_name(c->kind), c->len, c->off);
	}
	fdio_mutex_unlock(&d->busy->lock);
	return n;
}

int dev_init(struct dev *d, const struct dev_ops *ops, const char *name)
{
	d->ops = ops;
	strncpy(d->name, name, sizeof(d->name) - 1);
	d->name[sizeof(d->name) - 1] = '\0';
	d->flusher = dev_flusher_new();
	d->bounce = calloc(1, sizeof(*d->bounce));
	d->busy = calloc(1, sizeof(*d->busy));
	if (!d->flusher || !d->bounce || !d->busy)
		goto nomem;
	d->bounce->reserve = fdio_alloc_aligned(MEM_ALIGN_MAX, BOUNCE_BYTES);
	if (!d->bounce->reserve)
		goto nomem;
	fdio_mutex_init(&d->bounce->lock, RANK_DEV);
	fdio_mutex_init(&d->busy->lock, RANK_LEAF);
	list_init(&d->busy->now);
	fdio_magic_set(d, MAGIC_DEV);
	return 0;
nomem:
	dev_flusher_free(d->flusher);
	free(d->bounce);
	free(d->busy);
	d->flusher = NULL;
	d->bounce = NULL;
	d->busy = NULL;
	return -ENOMEM;
}

void dev_fini(struct dev *d)
{
	fdio_magic_clear(d, MAGIC_DEV);
	dev_flusher_free(d->flusher);
	d->flusher = NULL;
	if (d->bounce) {
		fdio_mutex_fini(&d->bounce->lock);
		free(d->bounce->reserve);
		free(d->bounce);
		d->bounce = NULL;
	}
	if (d->busy) {
		fdio_mutex_fini(&d->busy->lock);
		free(d->busy);
		d->busy = NULL;
	}
}

static bool in_device(const struct dev *d, uint64_t off, uint64_t len)
{
	return off <= d->caps.size_bytes && len <= d->caps.size_bytes - off;
}

static uint32_t block_of(const struct dev *d)
{
	return d->caps.lbs ? d->caps.lbs : 512;
}

static bool mem_aligned(const struct dev *d, const void *buf)
{
	return !d->caps.mem_align || fdio_is_aligned((uintptr_t)buf, d->caps.mem_align);
}

/* *ret_held says whether the reserve was taken and must be given back with bounce_put. */
static uint8_t *bounce_get(struct dev *d, size_t len, bool *ret_held)
{
	void *p = NULL;

	*ret_held = false;
	if (!posix_memalign(&p, MEM_ALIGN_MAX, FDIO_MIN(len, (size_t)BOUNCE_BYTES)))
		return p;
	fdio_mutex_lock(&d->bounce->lock);
	*ret_held = true;
	return d->bounce->reserve;
}

static void bounce_put(struct dev *d, uint8_t *p, bool held)
{
	if (held)
		fdio_mutex_unlock(&d->bounce->lock);
	else
		free(p);
}

static int read_bounced(struct dev *d, uint8_t *buf, size_t len, uint64_t off)
{
	uint32_t bs = block_of(d);
	uint64_t start = fdio_round_down(off, bs), end = fdio_round_up(off + len, bs);
	bool held;
	uint8_t *b;
	int err = 0;

	/* A size that is no multiple of the block (an odd image file): the tail cannot be read directly. */
	if (end > fdio_round_down(d->caps.size_bytes, bs))
		return -EIO;
	b = bounce_get(d, end - start, &held);
	while (start < end) {
		size_t n = FDIO_MIN(end - start, (uint64_t)BOUNCE_BYTES);
		size_t skip = off - start, part = FDIO_MIN(len, n - skip);

		err = d->ops->read(d, b, n, start);
		if (err < 0)
			break;
		memcpy(buf, b + skip, part);
		buf += part;
		off += part;
		len -= part;
		start += n;
	}
	bounce_put(d, b, held);
	return err < 0 ? err : 0;
}

int dev_read(struct dev *d, void *buf, size_t len, uint64_t off)
{
	struct dev_call c;
	int err;

	if (!len)
		return 0;
	if (!in_device(d, off, len))
		return -EIO;
	FDIO_ASSERT(!nowait_on());
	dev_call_begin(d, &c, CTR_dev_read, 1, off, len);
	if (!fdio_is_aligned(off | len, block_of(d)) || !mem_aligned(d, buf))
		err = read_bounced(d, buf, len, off);
	else
		err = d->ops->read(d, buf, len, off);
	dev_call_end(d, &c);
	return err < 0 ? err : 0;
}

static int write_bounced(struct dev *d, const uint8_t *buf, size_t len, uint64_t off, unsigned flags)
{
	bool held;
	uint8_t *b = bounce_get(d, len, &held);
	int err = 0;

	while (len) {
		size_t n = FDIO_MIN(len, (size_t)BOUNCE_BYTES);

		memcpy(b, buf, n);
		err = d->ops->write(d, b, n, off, flags);
		if (err < 0)
			break;
		buf += n;
		off += n;
		len -= n;
	}
	bounce_put(d, b, held);
	return err < 0 ? err : 0;
}

static int write_allowed(const struct dev *d, uint64_t off, uint64_t len)
{
	if (d->caps.read_only)
		return -EROFS;
	if (!in_device(d, off, len))
		return -EIO;
	return fdio_is_aligned(off | len, block_of(d)) ? 0 : -EINVAL;
}

int dev_write(struct dev *d, const void *buf, size_t len, uint64_t off, unsigned flags)
{
	int err = write_allowed(d, off, len);
	struct dev_call c;

	if (err || !len)
		return err;
	FDIO_ASSERT(!nowait_on());
	dev_call_begin(d, &c, CTR_dev_write, 1, off, len);
	if (!mem_aligned(d, buf))
		err = write_bounced(d, buf, len, off, flags);
	else
		err = d->ops->write(d, buf, len, off, flags);
	dev_call_end(d, &c);
	return err < 0 ? err : 0;
}

static int first_error(const struct dev_vec *v, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (v[i].result < 0)
			return v[i].result;
	return 0;
}

int dev_write_many(struct dev *d, struct dev_vec *v, unsigned n)
{
	bool direct = d->ops->write_many != NULL;

	for (unsigned i = 0; i < n && direct; i++)
		direct = v[i].len && !write_allowed(d, v[i].off, v[i].len) && mem_aligned(d, v[i].buf);
	if (direct && n) {
		struct dev_call c;
		uint64_t len = 0;
		int err;

		FDIO_ASSERT(!nowait_on());
		for (unsigned i = 0; i < n; i++)
			len += v[i].len;
		dev_call_begin(d, &c, CTR_dev_write, n, v[0].off, len);
		err = d->ops->write_many(d, v, n);
		dev_call_end(d, &c);
		return err;
	}
	for (unsigned i = 0; i < n; i++)
		v[i].result = dev_write(d, v[i].buf, v[i].len, v[i].off, 0);
	return first_error(v, n);
}

int dev_discard(struct dev *d, uint64_t off, uint64_t len)
{
	int err = write_allowed(d, off, len);
	struct dev_call c;

	if (err || !len)
		return err;
	if (!d->caps.discard || !d->ops->discard)
		return -EOPNOTSUPP;
	dev_call_begin(d, &c, CTR_dev_discard, 1, off, len);
	err = d->ops->discard(d, off, len);
	dev_call_end(d, &c);
	return err;
}

void dev_now(struct dev *d, struct timespec *ts)
{
	if (d->ops->now)
		d->ops->now(d, ts);
	else
		clock_gettime(CLOCK_REALTIME, ts);
}

void dev_close(struct dev *d)
{
	int err;

	fdio_magic_check(d, MAGIC_DEV);
	err = d->caps.read_only ? 0 : dev_flush(d);
	if (err)
		log_err("%s: flush at close failed: %s", d->name, strerror(-err));
	d->ops->close(d);
}
