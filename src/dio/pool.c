/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory that is allocated before requests need it: segments of requests over several extents, one
 * pool for each loop, and the bounce blocks of slow writes. Made at mount (ENOMEM).
 *
 * Segments are taken and put back on loop threads, where requests are split and where their pieces
 * complete, without waiting. A request that finds its pool empty takes the reserve of its file; if
 * that is in use too, the request waits in the loop's queue; it never fails. That wait ends: only
 * device requests in flight hold segments, each of them completes without another segment, and a
 * pool has at least one. dio_cpu.lock, one for each loop, guards its pool.
 *
 * Workers take bounce blocks, and wait for one if there is none; bounce_lock guards the list.
 */
#include "dio/types.h"

#include <errno.h>
#include <stdlib.h>

static void init_cpu(struct dio_cpu *cpu, struct dio_segment *segments, unsigned n)
{
	fdio_mutex_init(&cpu->lock, RANK_LEAF);
	list_init(&cpu->free);
	list_init(&cpu->waiting);
	for (unsigned i = 0; i < n; i++) {
		segments[i].home = cpu;
		list_add_tail(&cpu->free, &segments[i].link);
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
		/* For dio_pool_fini: the locks in cpus are not initialized. */
		free(dio->cpus);
		dio->cpus = NULL;
		return -ENOMEM;
	}
	for (unsigned c = 0; c < dio->config.nr_cpus; c++)
		init_cpu(&dio->cpus[c], dio->segments + (size_t)c * per, per);
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
	uint32_t unused = 0;

	return __atomic_compare_exchange_n(&file->reserve_busy, &unused, 1, false, __ATOMIC_ACQUIRE,
					   __ATOMIC_RELAXED);
}

struct dio_segment *dio_segment_take(struct dio_req *req,
				     void (*resume)(struct dio_req *req, struct dio_segment *))
{
	struct dio_own *own = dio_own(req);
	struct dio_cpu *cpu = &own->dio->cpus[own->cpu];
	struct dio_segment *segment = NULL;

	fdio_mutex_lock(&cpu->lock);
	if (list_empty(&cpu->waiting) && !list_empty(&cpu->free)) {
		segment = list_first(&cpu->free, struct dio_segment, link);
		list_del(&segment->link);
	} else if (reserve_take(req->file)) {
		segment = &req->file->reserve;
		fdio_count(COUNTER_dio_reserve_used);
	} else {
		fdio_count(COUNTER_dio_pool_wait);
		own->resume = resume;
		list_add_tail(&cpu->waiting, &own->link);
	}
	fdio_mutex_unlock(&cpu->lock);
	return segment;
}

/*
 * Gives free segments to waiting requests. A request that completes inside resume puts its segment
 * back and comes here again: resuming leaves that segment to the outer call.
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
		struct dio_segment *segment = list_first(&cpu->free, struct dio_segment, link);
		struct dio_own *own = list_first(&cpu->waiting, struct dio_own, link);
		list_del(&segment->link);
		list_del(&own->link);
		fdio_mutex_unlock(&cpu->lock);
		own->resume(dio_req_of(own), segment);
		fdio_mutex_lock(&cpu->lock);
	}
	cpu->resuming = false;
	fdio_mutex_unlock(&cpu->lock);
}

void dio_segment_put(struct dio_segment *segment)
{
	struct dio_cpu *cpu = segment->home;

	if (segment->is_reserve) {
		__atomic_store_n(&segment->file->reserve_busy, 0, __ATOMIC_RELEASE);
		return;
	}
	fdio_mutex_lock(&cpu->lock);
	list_add(&cpu->free, &segment->link);
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
