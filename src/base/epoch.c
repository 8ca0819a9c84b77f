/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Epoch-based reclamation, see epoch.h.
 *
 * The global epoch only grows. A reader stores the epoch that it saw in its slot (0: outside a
 * bracket). An object retired at epoch e may be freed once every slot is 0 or greater than e: every
 * reader inside then entered after the object was unpublished. The exchange in epoch_enter orders
 * the slot's store before the load of the published pointer; the fetch_add in oldest_reader orders
 * the unpublishing before the scan.
 *
 * Any thread. retire_lock guards the list of retired objects, and which slots are taken; only the
 * thread that owns a slot stores to its `seen`. Entering and leaving take no lock, except the first
 * time, when the thread takes a slot. If no slot is free, the program aborts.
 */
#include "base/epoch.h"

#include "base/lock.h"

#define EPOCH_SLOTS 1024
#define EPOCH_BATCH 32

static struct epoch_slot {
	uint64_t seen;
	bool used;
} fdio_cacheline_aligned slots[EPOCH_SLOTS];
static unsigned nr_slots; /* high-water mark of used slots */
static uint64_t global_epoch = 1;
static pthread_mutex_t retire_lock = PTHREAD_MUTEX_INITIALIZER;
static struct epoch_node *retired; /* newest first; guarded by retire_lock */
static unsigned nr_retired;

static __thread struct epoch_slot *my_slot;
static pthread_key_t slot_key;
static pthread_once_t slot_once = PTHREAD_ONCE_INIT;

static void slot_release(void *p)
{
	struct epoch_slot *slot = p;

	__atomic_store_n(&slot->seen, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&slot->used, false, __ATOMIC_RELEASE);
}

/* Fails only if all keys of the process are in use, which would be a mistake of this program. */
static void slot_key_make(void) { FDIO_MUST(pthread_key_create(&slot_key, slot_release) == 0); }

static struct epoch_slot *slot_claim(void)
{
	pthread_once(&slot_once, slot_key_make);
	pthread_mutex_lock(&retire_lock);
	for (unsigned i = 0; i < EPOCH_SLOTS; i++) {
		if (__atomic_load_n(&slots[i].used, __ATOMIC_ACQUIRE))
			continue;
		__atomic_store_n(&slots[i].used, true, __ATOMIC_RELAXED);
		if (i >= nr_slots)
			__atomic_store_n(&nr_slots, i + 1, __ATOMIC_RELEASE);
		my_slot = &slots[i];
		break;
	}
	pthread_mutex_unlock(&retire_lock);
	FDIO_MUST(my_slot); /* the CPUs and the option workers= make fewer threads */
	pthread_setspecific(slot_key, my_slot);
	return my_slot;
}

void epoch_enter(void)
{
	struct epoch_slot *slot = my_slot ? my_slot : slot_claim();

	FDIO_ASSERT(__atomic_load_n(&slot->seen, __ATOMIC_RELAXED) == 0); /* brackets do not nest */
	/*
	 * An exchange is the store and the full fence in one instruction on x86, and
	 * ThreadSanitizer follows it.
	 */
	__atomic_exchange_n(&slot->seen, __atomic_load_n(&global_epoch, __ATOMIC_ACQUIRE),
			    __ATOMIC_SEQ_CST);
}

void epoch_exit(void)
{
	__atomic_store_n(&my_slot->seen, 0, __ATOMIC_RELEASE);
}

/* An atomic load, because oldest_reader uses a read-modify-write on the slot. */
bool epoch_inside(void)
{
	return my_slot && __atomic_load_n(&my_slot->seen, __ATOMIC_RELAXED) != 0;
}

/* The oldest epoch that a reader may be in. retire_lock is held. */
static uint64_t oldest_reader(void)
{
	uint64_t oldest = UINT64_MAX;
	unsigned n = __atomic_load_n(&nr_slots, __ATOMIC_ACQUIRE);

	for (unsigned i = 0; i < n; i++) {
		/* A read-modify-write, not a load: it is ordered with the reader's exchange. */
		uint64_t seen = __atomic_fetch_add(&slots[i].seen, 0, __ATOMIC_SEQ_CST);
		if (seen && seen < oldest)
			oldest = seen;
	}
	return oldest;
}

static struct epoch_node *take_freeable(uint64_t oldest)
{
	struct epoch_node **p = &retired, *out = NULL;

	while (*p) {
		struct epoch_node *node = *p;
		if (node->epoch >= oldest) {
			p = &node->next;
			continue;
		}
		*p = node->next;
		node->next = out;
		out = node;
		nr_retired--;
	}
	return out;
}

static void free_chain(struct epoch_node *node)
{
	while (node) {
		struct epoch_node *next = node->next;
		node->free_fn(node);
		node = next;
	}
}

void epoch_retire(struct epoch_node *node, void (*free_fn)(struct epoch_node *))
{
	struct epoch_node *out = NULL;

	node->free_fn = free_fn;
	pthread_mutex_lock(&retire_lock);
	node->epoch = __atomic_fetch_add(&global_epoch, 1, __ATOMIC_SEQ_CST);
	node->next = retired;
	retired = node;
	if (++nr_retired >= EPOCH_BATCH)
		out = take_freeable(oldest_reader());
	pthread_mutex_unlock(&retire_lock);
	free_chain(out);
}

void epoch_drain(void)
{
	pthread_mutex_lock(&retire_lock);
	struct epoch_node *out = take_freeable(oldest_reader());
	pthread_mutex_unlock(&retire_lock);
	free_chain(out);
}
