/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The device in memory, as struct dev_ops: making and closing it, the synchronous calls, and the
 * clock. See kit/device.h for what it does. The images are in device_image.c, asynchronous requests
 * in device_async.c, faults, hooks and counters in device_faults.c, power cuts and the recorder in
 * power_cut.c, files and tools in image_tools.c.
 *
 * Any thread; each call takes fake->lock for as long as it looks at the images.
 */
#include "kit/device_types.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

uint64_t fake_rand(uint64_t *seed)
{
	uint64_t z = (*seed += 0x9e3779b97f4a7c15ULL); /* splitmix64 */

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

struct fake_dev *fake_of(struct dev *dev) { return container_of(dev, struct fake_dev, dev); }
struct dev *fake_dev(struct fake_dev *fake) { return &fake->dev; }

bool fake_write_is_durable(struct fake_dev *fake, unsigned flags)
{
	return !fake->dev.caps.volatile_cache || (flags & DEV_FUA);
}

/* ---- synchronous ---- */
/*
 * The start of a synchronous call: hook, counters, contract, faults, record. 1: the caller goes on
 * (without effect if *ret_drop), otherwise the result of the call.
 */
static int sync_begin(struct fake_dev *fake, enum fake_kind kind, const void *buf, uint64_t len,
		      uint64_t off, unsigned flags, uint64_t *ret_id, bool *ret_drop)
{
	const struct fake_fault *fault;
	int err = 1;

	fake_hook_call(fake, kind, off, len, flags, false);
	fdio_mutex_lock(&fake->lock);
	fake_count(fake, kind, len, flags, false);
	*ret_id = ++fake->ids;
	*ret_drop = false;
	if (kind != FAKE_FLUSH && fake_violates(fake, kind, buf, off, len, false)) {
		err = -EINVAL;
		goto out;
	}
	fault = fake_fault_match(fake, kind, off, len, flags, false);
	if (kind & (FAKE_WRITE | FAKE_FLUSH))
		fake_record_submit(fake, *ret_id, kind, off, len, flags, buf);
	if (fault && fault->action == FAKE_STUCK) {
		unsigned epoch = fake->stuck_epoch;
		while (epoch == fake->stuck_epoch)
			fdio_cond_wait(&fake->cond, &fake->lock);
	} else if (fault && fault->action == FAKE_ERROR) {
		err = fault->err;
	} else if (fault && fault->action == FAKE_DROP) {
		*ret_drop = true;
	}
out:
	fdio_mutex_unlock(&fake->lock);
	return err;
}

static int fake_read(struct dev *dev, void *buf, size_t len, uint64_t off)
{
	struct fake_dev *fake = fake_of(dev);
	uint64_t id;
	bool drop;
	int err = sync_begin(fake, FAKE_READ, buf, len, off, 0, &id, &drop);

	fdio_mutex_lock(&fake->lock);
	fake_door_wait(fake, FAKE_READ);
	if (err == 1) {
		memcpy(buf, fake->now + off, len);
		err = 0;
	}
	fdio_mutex_unlock(&fake->lock);
	fake_hook_call(fake, FAKE_READ, off, len, 0, true);
	return err;
}

static int fake_write(struct dev *dev, const void *buf, size_t len, uint64_t off, unsigned flags)
{
	struct fake_dev *fake = fake_of(dev);
	uint64_t id;
	bool drop;
	int err = sync_begin(fake, FAKE_WRITE, buf, len, off, flags, &id, &drop);

	fdio_mutex_lock(&fake->lock);
	fake_door_wait(fake, FAKE_WRITE);
	if (err == 1) {
		if (!drop)
			fake_image_write(fake, buf, len, off, fake_write_is_durable(fake, flags));
		err = 0;
	}
	fake_record_complete(fake, id, FAKE_WRITE, off, drop || err ? 0 : len, flags,
			     err ? err : (int)len);
	fdio_mutex_unlock(&fake->lock);
	fake_hook_call(fake, FAKE_WRITE, off, len, flags, true);
	return err;
}

static int fake_write_many(struct dev *dev, struct dev_vec *vec, unsigned n)
{
	int first = 0;

	for (unsigned i = 0; i < n; i++) {
		vec[i].result = fake_write(dev, vec[i].buf, vec[i].len, vec[i].off, 0);
		if (vec[i].result && !first)
			first = vec[i].result;
	}
	return first;
}

static int fake_flush(struct dev *dev)
{
	struct fake_dev *fake = fake_of(dev);
	uint64_t id, upto;
	bool drop;

	fdio_mutex_lock(&fake->lock);
	upto = fake->seq; /* writes that complete from here on are not covered */
	fdio_mutex_unlock(&fake->lock);
	int err = sync_begin(fake, FAKE_FLUSH, NULL, 0, 0, 0, &id, &drop);
	fdio_mutex_lock(&fake->lock);
	fake_door_wait(fake, FAKE_FLUSH);
	if (err == 1) {
		if (!drop)
			fake_image_flush(fake, upto);
		err = 0;
	}
	fake_record_complete(fake, id, FAKE_FLUSH, 0, 0, drop, err);
	fdio_mutex_unlock(&fake->lock);
	fake_hook_call(fake, FAKE_FLUSH, 0, 0, 0, true);
	return err;
}

static int fake_discard(struct dev *dev, uint64_t off, uint64_t len)
{
	struct fake_dev *fake = fake_of(dev);
	uint64_t id;
	bool drop;
	int err = sync_begin(fake, FAKE_DISCARD, NULL, len, off, 0, &id, &drop);

	if (err != 1)
		return err;
	fdio_mutex_lock(&fake->lock);
	fake_image_discard(fake, off, len);
	fdio_mutex_unlock(&fake->lock);
	fake_hook_call(fake, FAKE_DISCARD, off, len, 0, true);
	return 0;
}

static void fake_now(struct dev *dev, struct timespec *ts)
{
	struct fake_dev *fake = fake_of(dev);

	fdio_mutex_lock(&fake->lock);
	if (fake->clock_set)
		*ts = fake->clock;
	else
		clock_gettime(CLOCK_REALTIME, ts);
	fdio_mutex_unlock(&fake->lock);
}

void fake_set_clock(struct fake_dev *fake, const struct timespec *ts)
{
	fdio_mutex_lock(&fake->lock);
	fake->clock_set = ts != NULL;
	if (ts)
		fake->clock = *ts;
	fdio_mutex_unlock(&fake->lock);
}

/* ---- life ---- */
static void fake_close(struct dev *dev)
{
	struct fake_dev *fake = fake_of(dev);
	struct fake_pending *pending, *next_pending;
	struct held *held, *next_held;

	if (fake->mode == FAKE_THREAD) {
		fake_unstick(fake);
		fake_completer_stop(fake);
	}
	list_for_each_safe(held, next_held, &fake->held, node)
		free(held);
	list_for_each_safe(pending, next_pending, &fake->pending, node)
		free(pending);
	list_init(&fake->pending);
	fake_record_stop(fake);
	dev_fini(&fake->dev);
	fake_image_free(fake->now, fake->size);
	fake_image_free(fake->media, fake->size);
	pthread_cond_destroy(&fake->cond);
	fdio_mutex_fini(&fake->lock);
	free(fake);
}

static const struct dev_ops fake_ops = {
	.name = "fake",
	.submit = fake_submit,
	.read = fake_read,
	.write = fake_write,
	.write_many = fake_write_many,
	.flush = fake_flush,
	.discard = fake_discard,
	.now = fake_now,
	.close = fake_close,
};

struct fake_dev *fake_new(uint64_t size, uint32_t sector_bytes)
{
	struct fake_dev *fake = calloc(1, sizeof(*fake));

	FDIO_MUST(fake && dev_init(&fake->dev, &fake_ops, "fake") == 0);
	fake->size = fdio_round_up(size, 4096);
	fake->dev.caps = (struct dev_caps){
		.size_bytes = fake->size,
		.sector_bytes = sector_bytes,
		.physical_bytes = sector_bytes,
		.max_io_bytes = 1 << 20,
		.mem_align = 512,
		.volatile_cache = true,
		.fua = true,
		.discard = true,
		.is_block = true,
	};
	fake->now = fake_image_new(fake->size);
	fake->media = fake_image_new(fake->size);
	list_init(&fake->pending);
	list_init(&fake->held);
	fdio_mutex_init(&fake->lock, RANK_LEAF);
	fdio_cond_init(&fake->cond);
	return fake;
}

void fake_free(struct fake_dev *fake)
{
	if (fake)
		fake_close(&fake->dev);
}

