/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Asynchronous requests of the fake device: dev_submit, and the three ways in which a request ends
 * (enum fake_mode). A request waits in fake->held from its submission to its completion; only
 * FAKE_INLINE completes it at once, unless a fault makes it stick.
 *
 * Any thread; fake->lock guards the list. The data moves under the lock when the request completes,
 * and the callback runs without it.
 */
#include "kit/device_types.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static enum fake_kind kind_of(enum dev_op op) { return op == DEV_READ ? FAKE_READ : FAKE_WRITE; }

static void count_overlaps(struct fake_dev *fake, const struct held *held)
{
	const struct dev_io *io = held->io;
	struct held *other;

	list_for_each(other, &fake->held, node)
		fake->stats.overlaps += other != held && other->io->kind == DEV_WRITE &&
					other->io->off < io->off + io->len &&
					io->off < other->io->off + other->io->len;
}

/* Decides the fate of a new request: fault, contract, counters, record. */
static void held_submit_locked(struct fake_dev *fake, struct held *held)
{
	struct dev_io *io = held->io;
	enum fake_kind kind = kind_of(io->kind);
	const struct fake_fault *fault;

	fake_count(fake, kind, io->len, io->flags, true);
	held->id = ++fake->ids;
	fault = fake_fault_match(fake, kind, io->off, io->len, io->flags, true);
	held->has_fault = fault != NULL;
	if (fault)
		held->fault = *fault;
	held->stuck = fault && fault->action == FAKE_STUCK;
	held->bad = fake_violates(fake, kind, io->buf, io->off, io->len, true);
	if (held->bad)
		return;
	if (io->kind == DEV_WRITE) {
		count_overlaps(fake, held);
		fake_record_submit(fake, held->id, FAKE_WRITE, io->off, io->len, io->flags,
				   io->buf);
	} else if (fake->mode != FAKE_INLINE) {
		memset(io->buf, 0xdb, io->len); /* nobody may read it before the completion */
	}
}

/* Decides the result and moves the data. */
static int held_transfer_locked(struct fake_dev *fake, struct held *held)
{
	struct dev_io *io = held->io;
	const struct fake_fault *fault = &held->fault;
	bool error = held->has_fault && fault->action == FAKE_ERROR;
	bool drop = held->has_fault && fault->action == FAKE_DROP;
	uint32_t n = error ? 0 : io->len;
	int res;

	if (held->bad)
		return -EINVAL;
	if (held->has_fault && fault->action == FAKE_SHORT)
		n = io->len > fault->n ? io->len - fault->n : 0;
	if (io->kind == DEV_READ)
		memcpy(io->buf, fake->now + io->off, n);
	else if (!drop)
		fake_image_write(fake, io->buf, n, io->off, fake_write_is_durable(fake, io->flags));
	res = error ? fault->err : (int)n;
	if (io->kind == DEV_WRITE)
		fake_record_complete(fake, held->id, FAKE_WRITE, io->off, drop ? 0 : n, io->flags,
				     res);
	return res == 0 ? -EIO : res; /* dev.h: 0 bytes is -EIO */
}

/* Without the lock. held is freed. */
static void held_finish(struct fake_dev *fake, struct held *held)
{
	struct dev_io *io = held->io;
	enum fake_kind kind = kind_of(io->kind);
	uint64_t off = io->off, len = io->len;
	unsigned flags = io->flags;

	fake_hook_call(fake, kind, off, len, flags, false);
	fdio_mutex_lock(&fake->lock);
	io->result = held_transfer_locked(fake, held);
	fdio_mutex_unlock(&fake->lock);
	free(held);
	fake_hook_call(fake, kind, off, len, flags, true);
	io->done(io); /* the last touch */
}

void fake_submit(struct dev *dev, struct dev_io *io)
{
	struct fake_dev *fake = fake_of(dev);
	struct held *held = calloc(1, sizeof(*held));

	FDIO_MUST(held);
	held->io = io;
	io->dev = dev;
	list_init(&held->node);
	fdio_mutex_lock(&fake->lock);
	held_submit_locked(fake, held);
	if (fake->mode != FAKE_INLINE || held->stuck) {
		list_add_tail(&fake->held, &held->node);
		fake->nr_held++;
		pthread_cond_broadcast(&fake->cond);
		fdio_mutex_unlock(&fake->lock);
		return;
	}
	fake_door_wait(fake, kind_of(io->kind));
	fdio_mutex_unlock(&fake->lock);
	held_finish(fake, held);
}

/* The k-th in order of submission; NULL if there are fewer. */
static struct held *held_nth(struct fake_dev *fake, unsigned k)
{
	struct held *held;

	list_for_each(held, &fake->held, node)
		if (k-- == 0)
			return held;
	return NULL;
}

unsigned fake_held(struct fake_dev *fake)
{
	fdio_mutex_lock(&fake->lock);
	unsigned n = fake->nr_held;
	fdio_mutex_unlock(&fake->lock);
	return n;
}

struct dev_io *fake_held_io(struct fake_dev *fake, unsigned k)
{
	fdio_mutex_lock(&fake->lock);
	struct held *held = held_nth(fake, k);
	fdio_mutex_unlock(&fake->lock);
	return held ? held->io : NULL;
}

/* Takes the k-th out of the list; NULL if there is none or it is stuck. */
static struct held *held_take_locked(struct fake_dev *fake, unsigned k)
{
	struct held *held = held_nth(fake, k);

	if (!held || held->stuck)
		return NULL;
	list_del(&held->node);
	fake->nr_held--;
	return held;
}

bool fake_complete(struct fake_dev *fake, unsigned k)
{
	fdio_mutex_lock(&fake->lock);
	struct held *held = held_take_locked(fake, k);
	fdio_mutex_unlock(&fake->lock);
	if (held)
		held_finish(fake, held);
	return held != NULL;
}

/*
 * Takes one that is not stuck out of the list: a random one, or the oldest if seed is NULL. NULL if
 * there is none.
 */
static struct held *held_take_free_locked(struct fake_dev *fake, uint64_t *seed)
{
	struct held *held;
	unsigned n = 0, want;

	list_for_each(held, &fake->held, node)
		n += !held->stuck;
	if (!n)
		return NULL;
	want = seed ? fake_rand(seed) % n : 0;
	list_for_each(held, &fake->held, node)
		if (!held->stuck && want-- == 0)
			break;
	list_del(&held->node);
	fake->nr_held--;
	return held;
}

static unsigned complete_until_empty(struct fake_dev *fake, bool random)
{
	struct held *held;
	unsigned n = 0;

	for (;; n++) {
		fdio_mutex_lock(&fake->lock);
		held = held_take_free_locked(fake, random ? &fake->seed : NULL);
		fdio_mutex_unlock(&fake->lock);
		if (!held)
			return n;
		held_finish(fake, held);
	}
}

unsigned fake_complete_all(struct fake_dev *fake) { return complete_until_empty(fake, false); }
unsigned fake_complete_random(struct fake_dev *fake) { return complete_until_empty(fake, true); }

void fake_unstick(struct fake_dev *fake)
{
	struct held *held;

	fdio_mutex_lock(&fake->lock);
	list_for_each(held, &fake->held, node)
		held->stuck = false;
	fake->stuck_epoch++;
	pthread_cond_broadcast(&fake->cond);
	fdio_mutex_unlock(&fake->lock);
}

/* The thread of FAKE_THREAD. */
static void *completer(void *arg)
{
	struct fake_dev *fake = arg;
	struct held *held;

	fdio_mutex_lock(&fake->lock);
	for (;;) {
		held = held_take_free_locked(fake, &fake->seed);
		if (held) {
			fdio_mutex_unlock(&fake->lock);
			held_finish(fake, held);
			fdio_mutex_lock(&fake->lock);
			continue;
		}
		if (fake->thread_stop)
			break;
		fdio_cond_wait(&fake->cond, &fake->lock);
	}
	fdio_mutex_unlock(&fake->lock);
	return NULL;
}

void fake_completer_stop(struct fake_dev *fake)
{
	if (fake->mode != FAKE_THREAD)
		return;
	fdio_mutex_lock(&fake->lock);
	fake->thread_stop = true;
	pthread_cond_broadcast(&fake->cond);
	fdio_mutex_unlock(&fake->lock);
	pthread_join(fake->thread, NULL);
	fake->thread_stop = false;
}

void fake_set_mode(struct fake_dev *fake, enum fake_mode mode, uint64_t seed)
{
	fake_completer_stop(fake);
	fdio_mutex_lock(&fake->lock);
	FDIO_ASSERT(list_empty(&fake->held));
	fake->mode = mode;
	fake->seed = seed;
	fdio_mutex_unlock(&fake->lock);
	if (mode == FAKE_THREAD)
		FDIO_MUST(pthread_create(&fake->thread, NULL, completer, fake) == 0);
}

