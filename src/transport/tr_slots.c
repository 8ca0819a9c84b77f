/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Request slots and their buffers: all of the transport's memory, made once before the mount. Main thread.
 */
#include "transport/tr_types.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/*
 * A loop whose CPU is not in use has one slot: the kernel's ring wants an entry for each possible CPU, and a CPU that is plugged in
 * later is served, slowly. Loop 0 keeps all of its slots, it also serves /dev/fuse.
 */
static bool is_spare(unsigned i) { return i > 0 && !loop_cpu_online(i); }

static unsigned depth_for(const struct tr *t)
{
	unsigned online = 0;

	for (unsigned i = 0; i < t->nr_queues; i++)
		online += !is_spare(i);
	uint64_t fits = TR_ARENA_MAX / ((uint64_t)online * TR_SLOT_BYTES);
	unsigned depth = t->cfg.queue_depth;

	if (depth > fits && depth > TR_DEPTH_MIN) {
		depth = fits < TR_DEPTH_MIN ? TR_DEPTH_MIN : (unsigned)fits;
		log_info("queue_depth lowered from %u to %u: %u loops would pin more than %llu MiB", t->cfg.queue_depth, depth,
			 online, TR_ARENA_MAX >> 20);
	}
	return depth;
}

#define HUGE_BYTES (2u << 20)

static size_t arena_bytes(size_t bytes) { return fdio_round_up(bytes, HUGE_BYTES); }

/*
 * Huge pages throughout, if the kernel has them: it then takes the registered memory for a few long runs, not for many pages. A device
 * request of 1 MiB made of pages has more segments than most drivers take: io_uring would hand it to a thread of its own to be cut.
 */
static void *arena_new(size_t bytes)
{
	size_t whole = arena_bytes(bytes) + HUGE_BYTES;
	uint8_t *p = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *arena;

	if (p == MAP_FAILED)
		return NULL;
	arena = (uint8_t *)fdio_round_up((uintptr_t)p, (uintptr_t)HUGE_BYTES);
	/* What is not needed at either end. */
	if (arena > p)
		munmap(p, (size_t)(arena - p));
	if (p + whole > arena + arena_bytes(bytes))
		munmap(arena + arena_bytes(bytes), (size_t)(p + whole - (arena + arena_bytes(bytes))));
	madvise(arena, arena_bytes(bytes), MADV_HUGEPAGE);
	return arena;
}

static int queue_new(struct tr *t, unsigned i, unsigned depth)
{
	struct tr_queue *q = &t->queues[i];
	size_t bytes = (size_t)depth * TR_SLOT_BYTES;
	int err;

	q->tr = t;
	q->loop = loop_set_get(t->cfg.loops, i);
	q->fd = -1;
	list_init(&q->free);
	q->slots = fdio_alloc_aligned(FDIO_CACHELINE, depth * t->cfg.slot_size);
	if (!q->slots)
		return -ENOMEM;
	void *arena = arena_new(bytes);
	if (!arena)
		return -ENOMEM;
	q->arena = arena;
	q->nr_slots = depth;
	err = loop_register_arena(q->loop, arena, arena_bytes(bytes));
	if (err && !t->unregistered++)
		log_warn("serving without registered buffers, somewhat slower: %s; raise RLIMIT_MEMLOCK (ulimit -l) for full speed", strerror(-err));
	for (unsigned s = 0; s < depth; s++) {
		struct tr_req *r = tr_slot(q, s);

		r->tr = t;
		r->loop = q->loop;
		r->slot = s;
		r->payload = q->arena + (size_t)s * TR_SLOT_BYTES + TR_HDR_BYTES;
		r->payload_cap = PRO_MAX_WRITE;
		r->buf_index = err ? -1 : 0;
		list_add_tail(&q->free, &r->link);
	}
	return 0;
}

int tr_slots_new(struct tr *t, char *errbuf, size_t errlen)
{
	t->nr_queues = loop_set_count(t->cfg.loops);
	unsigned depth = depth_for(t);
	int err = 0;

	FDIO_ASSERT(t->cfg.slot_size >= sizeof(struct tr_req) && depth > 0);
	t->queues = fdio_alloc_aligned(FDIO_CACHELINE, t->nr_queues * sizeof(*t->queues));
	if (!t->queues)
		err = -ENOMEM;
	if (!err)
		err = tr_readers_init(&t->readers, t->nr_queues, tr_devfuse_recruit, t);
	for (unsigned i = 0; i < t->nr_queues && !err; i++)
		err = queue_new(t, i, is_spare(i) ? 1 : depth);
	if (err)
		snprintf(errbuf, errlen, "no memory for %u request slots of 1 MiB on each of %u loops: lower queue_depth=", depth, t->nr_queues);
	return err;
}

void tr_slots_free(struct tr *t)
{
	for (unsigned i = 0; t->queues && i < t->nr_queues; i++) {
		struct tr_queue *q = &t->queues[i];

		if (q->arena)
			munmap(q->arena, arena_bytes((size_t)q->nr_slots * TR_SLOT_BYTES));
		free(q->slots);
	}
	free(t->queues);
	t->queues = NULL;
	tr_readers_fini(&t->readers);
}
