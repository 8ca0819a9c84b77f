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

static void cpu_init(struct dio *dio, struct dio_cpu *cpu, struct dio_segment *segs, unsigned n)
{
	fdio_mutex_init(&cpu->lock, RANK_LEAF);
	list_init(&cpu->free);
	list_init(&cpu->waiting);
	for (unsigned i = 0; i < n; i++) {
		segs[i].home = cpu;
		list_add_tail(&cpu->free, &segs[i].link);
	}
}

int dio_pool_init(struct dio *dio)
{
	unsigned per = FDIO_MAX(dio->config.segs_per_loop, 1u);

	fdio_mutex_init(&dio->bounce_lock, RANK_LEAF);
	fdio_cond_init(&dio->bounce_cond);
	list_init(&dio->bounce_free);
	dio->cpus = fdio_alloc_aligned(FDIO_CACHELINE, dio->config.nr_cpus * sizeof(*dio->cpus));
	dio->segments = calloc((size_t)dio->config.nr_cpus * per, sizeof(*dio->segments));
	dio->bounce_mem = fdio_alloc_aligned(4096, (size_t)2 * DIO_NR_BOUNCE * dio->block_size);
	if (!dio->cpus || !dio->segments || !dio->bounce_mem) {
		/* dio_pool_fini looks at cpus to know whether their locks are there */
		free(dio->cpus);
		dio->cpus = NULL;
		return -ENOMEM;
	}
	for (unsigned c = 0; c < dio->config.nr_cpus; c++)
		cpu_init(dio, &dio->cpus[c], dio->segments + (size_t)c * per, per);
	for (unsigned i = 0; i < DIO_NR_BOUNCE; i++) {
		for (unsigned k = 0; k < 2; k++)
			dio->bounce[i].buf[k] =
					dio->bounce_mem + ((size_t)2 * i + k) * dio->block_size;
		list_add_tail(&dio->bounce_free, &dio->bounce[i].link);
	}
	return 0;
}

void dio_pool_fini(struct dio *dio)
{
	for (unsigned c = 0; dio->cpus && c < dio->config.nr_cpus; c++) {
		FDIO_ASSERT(list_empty(&dio->cpus[c].waiting));
		fdio_mutex_fini(&dio->cpus[c].lock);
	}
	free(dio->cpus);
	free(dio->segments);
	free(dio->bounce_mem);
	pthread_cond_destroy(&dio->bounce_cond);
	fdio_mutex_fini(&dio->bounce_lock);
}

static bool reserve_take(struct dio_file *file)
{
	uint32_t free_ = 0;

	return __atomic_compare_exchange_n(&file->reserve_busy, &free_, 1, false, __ATOMIC_ACQUIRE,
					   __ATOMIC_RELAXED);
}

struct dio_segment *dio_segment_take(struct dio_req *req,
			     void (*go_on)(struct dio_req *req, struct dio_segment *seg))
{
	struct dio_own *o = dio_own(req);
	struct dio_cpu *cpu = &o->dio->cpus[o->cpu];
	struct dio_segment *seg = NULL;

	fdio_mutex_lock(&cpu->lock);
	if (list_empty(&cpu->waiting) && !list_empty(&cpu->free)) {
		seg = list_first(&cpu->free, struct dio_segment, link);
		list_del(&seg->link);
	} else if (reserve_take(req->file)) {
		seg = &req->file->reserve;
		fdio_count(COUNTER_dio_reserve_used);
	} else {
		fdio_count(COUNTER_dio_pool_wait);
		o->go_on = go_on;
		list_add_tail(&cpu->waiting, &o->link);
	}
	fdio_mutex_unlock(&cpu->lock);
	return seg;
}

/*
 * Not nested: requests that complete while they are being resumed give their segments to the outer
 * call.
 */
static void resume_waiting(struct dio_cpu *cpu)
{
	fdio_mutex_lock(&cpu->lock);
	if (cpu->resuming) {
		fdio_mutex_unlock(&cpu->lock);
		return;
	}
	cpu->resuming = true;
	while (!list_empty(&cpu->free) && !list_empty(&cpu->waiting)) {
		struct dio_segment *seg = list_first(&cpu->free, struct dio_segment, link);
		struct dio_own *o = list_first(&cpu->waiting, struct dio_own, link);
		list_del(&seg->link);
		list_del(&o->link);
		fdio_mutex_unlock(&cpu->lock);
		o->go_on(dio_req_of(o), seg);
		fdio_mutex_lock(&cpu->lock);
	}
	cpu->resuming = false;
	fdio_mutex_unlock(&cpu->lock);
}

void dio_segment_put(struct dio_segment *seg)
{
	struct dio_cpu *cpu = seg->home;

	if (seg->is_reserve) {
		__atomic_store_n(&seg->file->reserve_busy, 0, __ATOMIC_RELEASE);
		return;
	}
	fdio_mutex_lock(&cpu->lock);
	list_add(&cpu->free, &seg->link);
	bool wanted = !list_empty(&cpu->waiting);
	fdio_mutex_unlock(&cpu->lock);
	if (unlikely(wanted))
		resume_waiting(cpu);
}

struct dio_bounce *dio_bounce_take(struct dio *dio)
{
	struct dio_bounce *bounce;

	fdio_mutex_lock(&dio->bounce_lock);
	while (list_empty(&dio->bounce_free))
		fdio_cond_wait(&dio->bounce_cond, &dio->bounce_lock);
	bounce = list_first(&dio->bounce_free, struct dio_bounce, link);
	list_del(&bounce->link);
	fdio_mutex_unlock(&dio->bounce_lock);
	return bounce;
}

void dio_bounce_put(struct dio *dio, struct dio_bounce *bounce)
{
	fdio_mutex_lock(&dio->bounce_lock);
	list_add(&dio->bounce_free, &bounce->link);
	pthread_cond_signal(&dio->bounce_cond);
	fdio_mutex_unlock(&dio->bounce_lock);
}
