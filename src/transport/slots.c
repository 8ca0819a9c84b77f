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
 * True for a loop whose CPU is offline. Such a loop has one slot: the kernel's ring needs an entry
 * for each possible CPU, and a CPU that comes online later is still served, slowly. Loop 0 always
 * has all of its slots, because it also serves /dev/fuse.
 */
static bool is_spare(unsigned i) { return i > 0 && !loop_cpu_online(i); }

/* The number of slots of a loop: as configured, or what fits into TRANSPORT_ARENA_MAX. */
static unsigned depth_for(const struct transport *transport)
{
	unsigned online = 0;

	for (unsigned i = 0; i < transport->nr_queues; i++)
		online += !is_spare(i);
	uint64_t fits = TRANSPORT_ARENA_MAX / ((uint64_t)online * TRANSPORT_SLOT_BYTES);
	unsigned depth = transport->config.queue_depth;

	if (depth > fits && depth > TRANSPORT_DEPTH_MIN) {
		depth = fits < TRANSPORT_DEPTH_MIN ? TRANSPORT_DEPTH_MIN : (unsigned)fits;
		log_info("queue_depth lowered from %u to %u: %u loops would pin more than %llu MiB",
			 transport->config.queue_depth, depth, online, TRANSPORT_ARENA_MAX >> 20);
	}
	return depth;
}

#define HUGE_BYTES (2u << 20)

static size_t arena_bytes(size_t bytes) { return fdio_round_up(bytes, HUGE_BYTES); }

/*
 * Allocates huge pages if the kernel has them: 1 MiB in huge pages makes a device request of few
 * segments. In small pages it has more segments than most drivers take, and io_uring would punt the
 * request to a worker thread to be split. For a spare loop, whose slot waits for a request that may
 * never come, huge would mean that its header alone takes 2 MiB.
 */
static void *arena_new(size_t bytes, bool huge)
{
	size_t whole = arena_bytes(bytes) + HUGE_BYTES;
	uint8_t *p = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
		*arena;

	if (p == MAP_FAILED)
		return NULL;
	arena = (uint8_t *)fdio_round_up((uintptr_t)p, (uintptr_t)HUGE_BYTES);
	/* Unmap what is not needed at either end. */
	if (arena > p)
		munmap(p, (size_t)(arena - p));
	if (p + whole > arena + arena_bytes(bytes))
		munmap(arena + arena_bytes(bytes),
		       (size_t)(p + whole - (arena + arena_bytes(bytes))));
	madvise(arena, arena_bytes(bytes), huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return arena;
}

static int queue_new(struct transport *transport, unsigned i, unsigned depth)
{
	struct transport_queue *queue = &transport->queues[i];
	size_t bytes = (size_t)depth * TRANSPORT_SLOT_BYTES;

	fdio_magic_set(queue, MAGIC_TRANSPORT_QUEUE);
	queue->transport = transport;
	queue->loop = loop_set_get(transport->config.loops, i);
	queue->fd = -1;
	list_init(&queue->free);
	queue->slots = fdio_alloc_aligned(FDIO_CACHELINE, depth * transport->config.slot_size);
	if (!queue->slots)
		return -ENOMEM;
	void *arena = arena_new(bytes, !is_spare(i));
	if (!arena)
		return -ENOMEM;
	queue->arena = arena;
	queue->nr_slots = depth;
	for (unsigned s = 0; s < depth; s++) {
		struct transport_req *req = transport_slot(queue, s);

		fdio_magic_set(req, MAGIC_TRANSPORT_REQ);
		req->transport = transport;
		req->loop = queue->loop;
		req->queue = i;
		req->slot = s;
		req->payload = queue->arena + (size_t)s * TRANSPORT_SLOT_BYTES +
			       TRANSPORT_HDR_BYTES;
		req->payload_cap = MESSAGE_MAX_WRITE;
		req->buf_index = -1;
		list_add_tail(&queue->free, &req->link);
	}
	return 0;
}

static struct iovec arena_of(const struct transport_queue *queue)
{
	return (struct iovec){ queue->arena,
			       arena_bytes((size_t)queue->nr_slots * TRANSPORT_SLOT_BYTES) };
}

static void set_buffers(struct transport_queue *queue, int index)
{
	for (unsigned s = 0; s < queue->nr_slots; s++)
		transport_slot(queue, s)->buf_index = index;
}

static void register_own(struct transport_queue *queue)
{
	struct iovec v = arena_of(queue);
	int err = loop_register_arenas(queue->loop, &v, 1);

	if (!err)
		set_buffers(queue, 0);
	else if (!queue->transport->unregistered++)
		log_info("serving without registered buffers, somewhat slower: %s; raise "
			 "RLIMIT_MEMLOCK (ulimit -l) for full speed",
			 strerror(-err));
}

/* Registers the buffers of both queues with both rings, so that either loop can help the other. */
static bool register_both(struct transport_queue *a, struct transport_queue *b)
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

/*
 * Neighbouring loops help each other if both CPUs are in use. The buffer of a loop whose CPU is
 * offline is not registered, so it takes no memory before a request comes: many machines could have
 * far more CPUs than they have.
 */
static void register_buffers(struct transport *transport)
{
	for (unsigned i = 0; i < transport->nr_queues; i++) {
		struct transport_queue *queue = &transport->queues[i];

		if (is_spare(i))
			continue;
		bool pair = transport->config.transport != TRANSPORT_KIND_DEVFUSE &&
			    i + 1 < transport->nr_queues && !is_spare(i) && !is_spare(i + 1);

		if (pair && register_both(queue, queue + 1))
			i++;
		else
			register_own(queue);
	}
}

int transport_slots_new(struct transport *transport, struct fdio_reason *reason)
{
	transport->nr_queues = loop_set_count(transport->config.loops);
	unsigned depth = depth_for(transport);
	int err = 0;

	FDIO_ASSERT(transport->config.slot_size >= sizeof(struct transport_req) && depth > 0);
	transport->queues = fdio_alloc_aligned(FDIO_CACHELINE,
					       transport->nr_queues * sizeof(*transport->queues));
	if (!transport->queues)
		err = -ENOMEM;
	for (unsigned i = 0; i < transport->nr_queues && !err; i++)
		err = queue_new(transport, i, is_spare(i) ? 1 : depth);
	if (!err)
		register_buffers(transport);
	else
		fdio_reason_set(reason, "no memory for %u request slots of 1 MiB on each of %u "
				"loops: lower queue_depth=", depth, transport->nr_queues);
	return err;
}

void transport_slots_free(struct transport *transport)
{
	for (unsigned i = 0; transport->queues && i < transport->nr_queues; i++) {
		struct transport_queue *queue = &transport->queues[i];

		if (queue->arena)
			munmap(queue->arena,
			       arena_bytes((size_t)queue->nr_slots * TRANSPORT_SLOT_BYTES));
		free(queue->slots);
	}
	free(transport->queues);
	transport->queues = NULL;
}
