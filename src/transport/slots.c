/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Request slots and their buffers: all of the transport's memory, made once before the mount and
 * freed after it. Main thread; no locks. Without memory the start fails with a reason; buffers that
 * cannot be registered with the rings are used as they are, which is logged.
 */
#include "transport/types.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

/*
 * A loop whose CPU is not in use has one slot: the kernel's ring wants an entry for each possible CPU, and a CPU that is
 * plugged in later is served, slowly. Loop 0 keeps all of its slots, it also serves /dev/fuse.
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
 * Huge pages throughout, if the kernel has them: it then takes the registered memory for a few long runs, not for many pages.
 * A device request of 1 MiB made of pages has more segments than most drivers take: io_uring would hand it to a thread of its
 * own to be cut.
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

	fdio_magic_set(q, MAGIC_TRANSPORT_QUEUE);
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
	for (unsigned s = 0; s < depth; s++) {
		struct tr_req *r = tr_slot(q, s);

		fdio_magic_set(r, MAGIC_TRANSPORT_REQ);
		r->tr = t;
		r->loop = q->loop;
		r->queue = i;
		r->slot = s;
		r->payload = q->arena + (size_t)s * TR_SLOT_BYTES + TR_HDR_BYTES;
		r->payload_cap = PRO_MAX_WRITE;
		r->buf_index = -1;
		list_add_tail(&q->free, &r->link);
	}
	return 0;
}

static struct iovec arena_of(const struct tr_queue *q)
{
	return (struct iovec){ q->arena, arena_bytes((size_t)q->nr_slots * TR_SLOT_BYTES) };
}

static void set_buffers(struct tr_queue *q, int index)
{
	for (unsigned s = 0; s < q->nr_slots; s++)
		tr_slot(q, s)->buf_index = index;
}

static void register_own(struct tr_queue *q)
{
	struct iovec v = arena_of(q);
	int err = loop_register_arenas(q->loop, &v, 1);

	if (!err)
		set_buffers(q, 0);
	else if (!q->tr->unregistered++)
		log_info("serving without registered buffers, somewhat slower: %s; raise RLIMIT_MEMLOCK (ulimit -l) for full speed", strerror(-err));
}

/* Each ring has the buffers of both queues, so that either loop can serve the other's requests. */
static bool register_both(struct tr_queue *a, struct tr_queue *b)
{
	struct iovec v[2] = { arena_of(a), arena_of(b) };

	if (loop_register_arenas(a->loop, v, 2))
		return false;
	if (loop_register_arenas(b->loop, v, 2)) {
		loop_unregister_arenas(a->loop);
		return false;
	}
	set_buffers(a, 0);
	set_buffers(b, 1);
	a->helper = b;
	b->helper = a;
	return true;
}

/* Neighbours help each other, where both CPUs are in use. */
static void register_buffers(struct tr *t)
{
	for (unsigned i = 0; i < t->nr_queues; i++) {
		struct tr_queue *q = &t->queues[i];
		bool pair = t->cfg.transport != TR_TRANSPORT_DEVFUSE && i + 1 < t->nr_queues && !is_spare(i) && !is_spare(i + 1);

		if (pair && register_both(q, q + 1))
			i++;
		else
			register_own(q);
	}
}

int tr_slots_new(struct tr *t, struct fdio_reason *reason)
{
	t->nr_queues = loop_set_count(t->cfg.loops);
	unsigned depth = depth_for(t);
	int err = 0;

	FDIO_ASSERT(t->cfg.slot_size >= sizeof(struct tr_req) && depth > 0);
	t->queues = fdio_alloc_aligned(FDIO_CACHELINE, t->nr_queues * sizeof(*t->queues));
	if (!t->queues)
		err = -ENOMEM;
	for (unsigned i = 0; i < t->nr_queues && !err; i++)
		err = queue_new(t, i, is_spare(i) ? 1 : depth);
	if (!err)
		register_buffers(t);
	else
		fdio_reason_set(reason, "no memory for %u request slots of 1 MiB on each of %u "
				"loops: lower queue_depth=", depth, t->nr_queues);
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
}
