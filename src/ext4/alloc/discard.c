/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mount option discard: what was freed, once that is durable, goes to the device as discards on
 * a thread of its own, and only then back to the allocator. The thread that commits hands it over
 * and goes on: nobody's fsync waits for a device that is slow to discard.
 *
 * Discarding is a hint. Where there is no memory for a record, or the device is so far behind that
 * QUEUE_MAX of them wait, blocks go back undiscarded; after an abort nothing is discarded any more.
 * The end of the mount waits for what is queued, as on the kernel's ext4.
 */
#include "ext4/alloc/groups.h"

#include "base/counters.h"
#include "base/log.h"
#include "base/thread.h"

#include <errno.h>
#include <stdlib.h>

#define QUEUE_MAX 65536u

struct x4_discard {
	pthread_t thread;
	struct fdio_mutex lock; /* RANK_LEAF: guards the rest */
	pthread_cond_t cond;
	struct list runs;       /* oldest first */
	unsigned nr;
	bool stop;
	bool hurry;             /* atomic: somebody waits for blocks; cleared when nothing is queued */
};

struct freed_run {
	struct list node;
	uint32_t g, bit, n;
};

static void discard_run(struct x4_vol *v, const struct freed_run *r)
{
	uint64_t off = (x4_group_start(v, r->g) + r->bit) << v->block_bits;

	if (!__atomic_load_n(&v->alloc.discard->hurry, __ATOMIC_RELAXED) && !x4_vol_read_only(v) &&
	    dev_discard(v->dev, off, (uint64_t)r->n << v->block_bits))
		log_ratelimited(FDIO_LOG_WARN, "%s: discard of freed blocks failed", v->dev->name);
	x4_group_give_freed(v, r->g, r->bit, r->n);
}

static void *discard_main(void *arg)
{
	struct x4_vol *v = arg;
	struct x4_discard *d = v->alloc.discard;

	fdio_magic_check(v, MAGIC_EXT4_VOLUME);
	fdio_mutex_lock(&d->lock);
	for (;;) {
		struct freed_run *r;

		if (list_empty(&d->runs))
			__atomic_store_n(&d->hurry, false, __ATOMIC_RELAXED);
		while (list_empty(&d->runs) && !d->stop)
			fdio_cond_wait(&d->cond, &d->lock);
		if (list_empty(&d->runs))
			break;
		r = list_first(&d->runs, struct freed_run, node);
		list_del(&r->node);
		d->nr--;
		fdio_mutex_unlock(&d->lock);
		discard_run(v, r);
		free(r);
		fdio_mutex_lock(&d->lock);
	}
	fdio_mutex_unlock(&d->lock);
	return NULL;
}

bool x4_discard_later(struct x4_vol *v, uint32_t g, uint32_t bit, uint32_t n)
{
	struct x4_discard *d = v->alloc.discard;
	struct freed_run *r = d ? malloc(sizeof(*r)) : NULL;
	bool room;

	if (!r)
		return false;
	*r = (struct freed_run){ .g = g, .bit = bit, .n = n };
	fdio_mutex_lock(&d->lock);
	room = d->nr < QUEUE_MAX;
	if (room) {
		list_add_tail(&d->runs, &r->node);
		d->nr++;
		pthread_cond_signal(&d->cond);
	}
	fdio_mutex_unlock(&d->lock);
	if (!room) {
		fdio_count(CTR_x4_discard_skipped);
		free(r);
	}
	return room;
}

void x4_discard_hurry(struct x4_vol *v)
{
	if (v->alloc.discard)
		__atomic_store_n(&v->alloc.discard->hurry, true, __ATOMIC_RELAXED);
}

static void discard_free(struct x4_vol *v)
{
	struct x4_discard *d = v->alloc.discard;

	v->alloc.discard = NULL;
	pthread_cond_destroy(&d->cond);
	fdio_mutex_fini(&d->lock);
	free(d);
}

int x4_discard_start(struct x4_vol *v)
{
	struct x4_discard *d;
	int err;

	if (!v->opt.discard || !v->dev->caps.discard)
		return 0;
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	fdio_mutex_init(&d->lock, RANK_LEAF);
	fdio_cond_init(&d->cond);
	list_init(&d->runs);
	v->alloc.discard = d;
	err = thread_start(&d->thread, "fdio-discard", discard_main, v);
	if (err)
		discard_free(v);
	return err;
}

void x4_discard_stop(struct x4_vol *v)
{
	struct x4_discard *d = v->alloc.discard;

	if (!d)
		return;
	fdio_mutex_lock(&d->lock);
	d->stop = true;
	pthread_cond_signal(&d->cond);
	fdio_mutex_unlock(&d->lock);
	pthread_join(d->thread, NULL);
	discard_free(v);
}
