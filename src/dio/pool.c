/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory that is there before it is needed: segments of requests over several extents, one pool a
 * loop, and the bounce blocks of slow writes. Made at mount (ENOMEM).
 *
 * Segments are taken and given on loop threads, where requests are split and where their pieces
 * complete, without waiting: a request that finds its pool empty takes the reserve of its file, and
 * if that is out too the request waits in the loop's queue; it never fails. Waiting ends because
 * segments are held only by device requests in flight, each of which completes without needing
 * another segment, and a pool has at least one. The lock of a pool is the loop's own.
 *
 * Bounce blocks are for workers, which wait for one under bounce_lock.
 */
#include "dio/types.h"

#include <errno.h>
#include <stdlib.h>

static void cpu_init(struct dio *d, struct dio_cpu *c, struct dio_seg *segs, unsigned n)
{
	fdio_mutex_init(&c->lock, RANK_LEAF);
	list_init(&c->free);
	list_init(&c->waiting);
	for (unsigned i = 0; i < n; i++) {
		segs[i].home = c;
		list_add_tail(&c->free, &segs[i].link);
	}
}

int dio_pool_init(struct dio *d)
{
	unsigned per = FDIO_MAX(d->cfg.segs_per_loop, 1u);

	fdio_mutex_init(&d->bounce_lock, RANK_LEAF);
	fdio_cond_init(&d->bounce_cond);
	list_init(&d->bounce_free);
	d->cpus = fdio_alloc_aligned(FDIO_CACHELINE, d->cfg.nr_cpus * sizeof(*d->cpus));
	d->segs = calloc((size_t)d->cfg.nr_cpus * per, sizeof(*d->segs));
	d->bounce_mem = fdio_alloc_aligned(4096, (size_t)2 * DIO_NR_BOUNCE * d->block_size);
	if (!d->cpus || !d->segs || !d->bounce_mem) {
		/* dio_pool_fini looks at cpus to know whether their locks are there */
		free(d->cpus);
		d->cpus = NULL;
		return -ENOMEM;
	}
	for (unsigned c = 0; c < d->cfg.nr_cpus; c++)
		cpu_init(d, &d->cpus[c], d->segs + (size_t)c * per, per);
	for (unsigned i = 0; i < DIO_NR_BOUNCE; i++) {
		for (unsigned k = 0; k < 2; k++)
			d->bounce[i].buf[k] = d->bounce_mem + ((size_t)2 * i + k) * d->block_size;
		list_add_tail(&d->bounce_free, &d->bounce[i].link);
	}
	return 0;
}

void dio_pool_fini(struct dio *d)
{
	for (unsigned c = 0; d->cpus && c < d->cfg.nr_cpus; c++) {
		FDIO_ASSERT(list_empty(&d->cpus[c].waiting));
		fdio_mutex_fini(&d->cpus[c].lock);
	}
	free(d->cpus);
	free(d->segs);
	free(d->bounce_mem);
	pthread_cond_destroy(&d->bounce_cond);
	fdio_mutex_fini(&d->bounce_lock);
}

static bool reserve_take(struct dio_file *f)
{
	uint32_t free_ = 0;

	return __atomic_compare_exchange_n(&f->reserve_busy, &free_, 1, false, __ATOMIC_ACQUIRE,
					   __ATOMIC_RELAXED);
}

struct dio_seg *dio_seg_take(struct dio_req *r,
			     void (*go_on)(struct dio_req *r, struct dio_seg *seg))
{
	struct dio_own *o = dio_own(r);
	struct dio_cpu *c = &o->dio->cpus[o->cpu];
	struct dio_seg *seg = NULL;

	fdio_mutex_lock(&c->lock);
	if (list_empty(&c->waiting) && !list_empty(&c->free)) {
		seg = list_first(&c->free, struct dio_seg, link);
		list_del(&seg->link);
	} else if (reserve_take(r->file)) {
		seg = &r->file->reserve;
		fdio_count(CTR_dio_reserve_used);
	} else {
		fdio_count(CTR_dio_pool_wait);
		o->go_on = go_on;
		list_add_tail(&c->waiting, &o->link);
	}
	fdio_mutex_unlock(&c->lock);
	return seg;
}

/*
 * Not nested: requests that complete while they are being resumed give their segments to the outer
 * call.
 */
static void resume_waiting(struct dio_cpu *c)
{
	fdio_mutex_lock(&c->lock);
	if (c->resuming) {
		fdio_mutex_unlock(&c->lock);
		return;
	}
	c->resuming = true;
	while (!list_empty(&c->free) && !list_empty(&c->waiting)) {
		struct dio_seg *seg = list_first(&c->free, struct dio_seg, link);
		struct dio_own *o = list_first(&c->waiting, struct dio_own, link);
		list_del(&seg->link);
		list_del(&o->link);
		fdio_mutex_unlock(&c->lock);
		o->go_on(dio_req_of(o), seg);
		fdio_mutex_lock(&c->lock);
	}
	c->resuming = false;
	fdio_mutex_unlock(&c->lock);
}

void dio_seg_put(struct dio_seg *seg)
{
	struct dio_cpu *c = seg->home;

	if (seg->is_reserve) {
		__atomic_store_n(&seg->file->reserve_busy, 0, __ATOMIC_RELEASE);
		return;
	}
	fdio_mutex_lock(&c->lock);
	list_add(&c->free, &seg->link);
	bool wanted = !list_empty(&c->waiting);
	fdio_mutex_unlock(&c->lock);
	if (unlikely(wanted))
		resume_waiting(c);
}

struct dio_bounce *dio_bounce_take(struct dio *d)
{
	struct dio_bounce *b;

	fdio_mutex_lock(&d->bounce_lock);
	while (list_empty(&d->bounce_free))
		fdio_cond_wait(&d->bounce_cond, &d->bounce_lock);
	b = list_first(&d->bounce_free, struct dio_bounce, link);
	list_del(&b->link);
	fdio_mutex_unlock(&d->bounce_lock);
	return b;
}

void dio_bounce_put(struct dio *d, struct dio_bounce *b)
{
	fdio_mutex_lock(&d->bounce_lock);
	list_add(&d->bounce_free, &b->link);
	pthread_cond_signal(&d->bounce_cond);
	fdio_mutex_unlock(&d->bounce_lock);
}
