/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The device in memory: images, counters, faults and the ways of completing. See kit/device.h;
 * power cuts and the recorder are in kit/power_cut.c, files and tools in kit/image_tools.c.
 */
#include "kit/device_types.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

uint64_t fake_rand(uint64_t *s)
{
	uint64_t z = (*s += 0x9e3779b97f4a7c15ULL); /* splitmix64 */

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

void *fake_image_new(uint64_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	FDIO_MUST(p != MAP_FAILED);
	return p;
}

void fake_image_free(void *img, uint64_t size) { munmap(img, size); }

/*
 * Leaves holes where the source is zero, so that large empty images cost nothing. dst is freshly
 * mapped.
 */
void fake_image_copy(uint8_t *dst, const uint8_t *src, uint64_t size)
{
	static const uint8_t zero[4096];

	for (uint64_t o = 0; o < size; o += 4096)
		if (memcmp(src + o, zero, 4096))
			memcpy(dst + o, src + o, 4096);
}

struct fake_dev *fake_of(struct dev *dev) { return container_of(dev, struct fake_dev, dev); }
struct dev *fake_dev(struct fake_dev *fake) { return &fake->dev; }

static enum fake_kind kind_of(enum dev_op op) { return op == DEV_READ ? FAKE_READ : FAKE_WRITE; }

/* ---- images; fake->lock held ---- */
static void pending_patch(struct fake_dev *fake, const struct fake_pending *newer)
{
	struct fake_pending *pending;

	/* An older pending write must not come back over this one when it is flushed later. */
	list_for_each(pending, &fake->pending, node) {
		uint64_t lo = FDIO_MAX(pending->off, newer->off),
			 hi = FDIO_MIN(pending->off + pending->len, newer->off + newer->len);
		if (pending != newer && lo < hi)
			memcpy(pending->data + (lo - pending->off), newer->data + (lo - newer->off),
			       hi - lo);
	}
}

static struct fake_pending *pending_new(uint64_t off, uint32_t len, const void *data)
{
	struct fake_pending *pending = malloc(sizeof(*pending) + len);

	FDIO_MUST(pending);
	list_init(&pending->node);
	pending->off = off;
	pending->len = len;
	memcpy(pending->data, data, len);
	return pending;
}

void fake_image_write(struct fake_dev *fake, const void *data, uint32_t len, uint64_t off,
		      bool durable)
{
	struct fake_pending *pending;

	if (!len)
		return;
	memcpy(fake->now + off, data, len);
	pending = pending_new(off, len, data);
	pending->seq = ++fake->seq;
	if (durable) {
		memcpy(fake->media + off, data, len);
		pending_patch(fake, pending);
		free(pending);
		return;
	}
	list_add_tail(&fake->pending, &pending->node);
}

void fake_image_flush(struct fake_dev *fake, uint64_t upto)
{
	struct fake_pending *p, *t;

	list_for_each_safe(p, t, &fake->pending, node) {
		if (p->seq > upto)
			break;
		memcpy(fake->media + p->off, p->data, p->len);
		list_del(&p->node);
		free(p);
	}
}

/* ---- faults; fake->lock held ---- */
static const struct fake_fault *fault_match(struct fake_dev *fake, enum fake_kind kind,
					    uint64_t off, uint64_t len, unsigned flags, bool async)
{
	bool fua = flags & DEV_FUA;

	for (unsigned i = 0; i < fake->nr_faults; i++) {
		struct fault_state *s = &fake->faults[i];
		if (!(s->fault.kinds & kind) || (s->fault.async_only && !async) ||
		    (s->fault.sync_only && async))
			continue;
		if (kind == FAKE_WRITE &&
		    ((s->fault.fua_only && !fua) || (s->fault.plain_only && fua)))
			continue;
		if (s->fault.len &&
		    (off >= s->fault.off + s->fault.len || off + len <= s->fault.off))
			continue;
		if (s->seen++ < s->fault.skip || (s->fault.repeat && s->hits >= s->fault.repeat))
			continue;
		s->hits++;
		fake->fault_hits++;
		return &s->fault;
	}
	return NULL;
}

void fake_fault_add(struct fake_dev *fake, const struct fake_fault *fault)
{
	fdio_mutex_lock(&fake->lock);
	FDIO_ASSERT(fake->nr_faults < FAKE_FAULTS);
	fake->faults[fake->nr_faults++] = (struct fault_state){ .fault = *fault };
	fdio_mutex_unlock(&fake->lock);
}

void fake_fault_clear(struct fake_dev *fake)
{
	fdio_mutex_lock(&fake->lock);
	fake->nr_faults = 0;
	fake->fault_hits = 0;
	fdio_mutex_unlock(&fake->lock);
}

uint64_t fake_fault_hits(struct fake_dev *fake)
{
	fdio_mutex_lock(&fake->lock);
	uint64_t n = fake->fault_hits;
	fdio_mutex_unlock(&fake->lock);
	return n;
}

/* ---- doors and hooks ---- */
static void door_locked(struct fake_dev *fake, enum fake_kind kind)
{
	if (!(fake->blocked_kinds & kind))
		return;
	fake->nr_blocked++;
	pthread_cond_broadcast(&fake->cond);
	while (fake->blocked_kinds & kind)
		fdio_cond_wait(&fake->cond, &fake->lock);
	fake->nr_blocked--;
}

void fake_block(struct fake_dev *fake, unsigned kinds)
{
	fdio_mutex_lock(&fake->lock);
	fake->blocked_kinds = kinds;
	fdio_mutex_unlock(&fake->lock);
}

void fake_unblock(struct fake_dev *fake)
{
	fdio_mutex_lock(&fake->lock);
	fake->blocked_kinds = 0;
	pthread_cond_broadcast(&fake->cond);
	fdio_mutex_unlock(&fake->lock);
}

static bool wait_count(struct fake_dev *fake, const unsigned *count, unsigned n)
{
	uint64_t deadline = fdio_now_ns() + 10000000000ULL;
	bool ok = true;

	fdio_mutex_lock(&fake->lock);
	while (*count < n && ok)
		ok = fdio_cond_timedwait(&fake->cond, &fake->lock, deadline);
	ok = *count >= n;
	fdio_mutex_unlock(&fake->lock);
	return ok;
}

bool fake_wait_blocked(struct fake_dev *fake, unsigned n)
{
	return wait_count(fake, &fake->nr_blocked, n);
}
bool fake_wait_held(struct fake_dev *fake, unsigned n)
{
	return wait_count(fake, &fake->nr_held, n);
}

void fake_set_hook(struct fake_dev *fake, fake_hook fn, void *arg)
{
	fdio_mutex_lock(&fake->lock);
	fake->hook = fn;
	fake->hook_arg = arg;
	fdio_mutex_unlock(&fake->lock);
}

static void hook_call(struct fake_dev *fake, enum fake_kind kind, uint64_t off, uint64_t len,
		      unsigned flags, bool after)
{
	fdio_mutex_lock(&fake->lock);
	fake_hook fn = fake->hook;
	void *arg = fake->hook_arg;
	fdio_mutex_unlock(&fake->lock);
	if (fn)
		fn(arg, kind, off, len, flags, after);
}

/* ---- the contract; fake->lock held ---- */
static bool violates(struct fake_dev *fake, enum fake_kind kind, const void *buf, uint64_t off,
		     uint64_t len, bool async)
{
	const struct dev_caps *c = &fake->dev.caps;
	const char *why = NULL;

	if (off > fake->size || len > fake->size - off)
		why = "outside the device";
	else if ((kind == FAKE_WRITE || async) && (off % c->sector_bytes || len % c->sector_bytes))
		why = "not aligned to the logical block size";
	else if (async && (!len || len > c->max_io_bytes))
		why = "empty or longer than max_io_bytes";
	else if (async && (uintptr_t)buf % c->mem_align)
		why = "memory not aligned";
	else if (kind == FAKE_WRITE && c->read_only)
		why = "a write to a read-only device";
	if (!why)
		return false;
	fake->stats.violations++;
	fprintf(stderr, "fake_dev: %s of %llu bytes at %llu: %s\n",
		kind == FAKE_READ ? "read" : "write", (unsigned long long)len,
		(unsigned long long)off, why);
	return true;
}

static void count(struct fake_dev *fake, enum fake_kind kind, uint64_t len, unsigned flags,
		  bool async)
{
	fake->stats.async += async;
	fake->stats.retried += async && (flags & DEV_ASYNC);
	switch (kind) {
	case FAKE_READ:
		fake->stats.reads++;
		fake->stats.bytes_read += len;
		break;
	case FAKE_WRITE:
		fake->stats.writes++;
		fake->stats.bytes_written += len;
		fake->stats.fua += !!(flags & DEV_FUA);
		break;
	case FAKE_FLUSH:
		fake->stats.flushes++;
		break;
	default:
		fake->stats.discards++;
	}
}

struct fake_stats fake_stats(struct fake_dev *fake)
{
	fdio_mutex_lock(&fake->lock);
	struct fake_stats s = fake->stats;
	fdio_mutex_unlock(&fake->lock);
	return s;
}

void fake_stats_reset(struct fake_dev *fake)
{
	fdio_mutex_lock(&fake->lock);
	memset(&fake->stats, 0, sizeof(fake->stats));
	fdio_mutex_unlock(&fake->lock);
}

static bool write_is_durable(struct fake_dev *fake, unsigned flags)
{
	return !fake->dev.caps.volatile_cache || (flags & DEV_FUA);
}

/* ---- asynchronous ---- */
static void held_submit_locked(struct fake_dev *fake, struct held *h)
{
	struct dev_io *io = h->io;

	count(fake, kind_of(io->kind), io->len, io->flags, true);
	h->id = ++fake->ids;
	const struct fake_fault *fault =
			fault_match(fake, kind_of(io->kind), io->off, io->len, io->flags, true);
	h->has_fault = fault != NULL;
	if (fault)
		h->fault = *fault;
	h->stuck = fault && fault->action == FAKE_STUCK;
	h->bad = violates(fake, kind_of(io->kind), io->buf, io->off, io->len, true);
	if (h->bad)
		return;
	if (io->kind == DEV_WRITE) {
		struct held *o;
		list_for_each(o, &fake->held, node)
			fake->stats.overlaps += o != h && o->io->kind == DEV_WRITE &&
						o->io->off < io->off + io->len &&
						io->off < o->io->off + o->io->len;
		fake_record_submit(fake, h->id, FAKE_WRITE, io->off, io->len, io->flags, io->buf);
	} else if (fake->mode != FAKE_INLINE) {
		memset(io->buf, 0xdb, io->len);
	}
}

/* Decides the result and moves the data. */
static int held_transfer_locked(struct fake_dev *fake, struct held *held)
{
	struct dev_io *io = held->io;
	uint32_t n = io->len;
	bool drop = false;

	if (held->bad)
		return -EINVAL;
	if (held->has_fault && held->fault.action == FAKE_ERROR)
		n = 0;
	else if (held->has_fault && held->fault.action == FAKE_SHORT)
		n = io->len > held->fault.n ? io->len - held->fault.n : 0;
	else if (held->has_fault && held->fault.action == FAKE_DROP)
		drop = true;
	if (io->kind == DEV_READ)
		memcpy(io->buf, fake->now + io->off, n);
	else if (!drop)
		fake_image_write(fake, io->buf, n, io->off, write_is_durable(fake, io->flags));
	int res = held->has_fault && held->fault.action == FAKE_ERROR ? held->fault.err : (int)n;
	if (io->kind == DEV_WRITE)
		fake_record_complete(fake, held->id, FAKE_WRITE, io->off, drop ? 0 : n, io->flags,
				     res);
	return res == 0 ? -EIO : res; /* dev.h: 0 bytes is -EIO */
}

static void held_finish(struct fake_dev *fake, struct held *held)
{
	struct dev_io *io = held->io;
	enum fake_kind kind = kind_of(io->kind);
	uint64_t off = io->off, len = io->len;
	unsigned flags = io->flags;

	hook_call(fake, kind, off, len, flags, false);
	fdio_mutex_lock(&fake->lock);
	io->result = held_transfer_locked(fake, held);
	fdio_mutex_unlock(&fake->lock);
	free(held);
	hook_call(fake, kind, off, len, flags, true);
	io->done(io); /* the last touch */
}

static void fake_submit(struct dev *dev, struct dev_io *io)
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
	door_locked(fake, kind_of(io->kind));
	fdio_mutex_unlock(&fake->lock);
	held_finish(fake, held);
}

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

/* Takes the k-th out of the list if it can complete. */
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

/* The k-th of those that are not stuck. */
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

static void completer_stop(struct fake_dev *fake)
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
	completer_stop(fake);
	fdio_mutex_lock(&fake->lock);
	FDIO_ASSERT(list_empty(&fake->held));
	fake->mode = mode;
	fake->seed = seed;
	fdio_mutex_unlock(&fake->lock);
	if (mode == FAKE_THREAD)
		FDIO_MUST(pthread_create(&fake->thread, NULL, completer, fake) == 0);
}

/* ---- synchronous ---- */
/* Counts, checks, waits at the door; 1: go on, else the result. */
static int sync_begin(struct fake_dev *fake, enum fake_kind kind, const void *buf, uint64_t len,
		      uint64_t off, unsigned flags, uint64_t *ret_id, bool *ret_drop)
{
	const struct fake_fault *fault;
	int err = 1;

	hook_call(fake, kind, off, len, flags, false);
	fdio_mutex_lock(&fake->lock);
	count(fake, kind, len, flags, false);
	*ret_id = ++fake->ids;
	*ret_drop = false;
	if (kind != FAKE_FLUSH && violates(fake, kind, buf, off, len, false)) {
		err = -EINVAL;
		goto out;
	}
	fault = fault_match(fake, kind, off, len, flags, false);
	if (kind & (FAKE_WRITE | FAKE_FLUSH))
		fake_record_submit(fake, *ret_id, kind, off, len, flags, buf);
	if (fault && fault->action == FAKE_STUCK) {
		unsigned e = fake->stuck_epoch;
		while (e == fake->stuck_epoch)
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
	door_locked(fake, FAKE_READ);
	if (err == 1) {
		memcpy(buf, fake->now + off, len);
		err = 0;
	}
	fdio_mutex_unlock(&fake->lock);
	hook_call(fake, FAKE_READ, off, len, 0, true);
	return err;
}

static int fake_write(struct dev *dev, const void *buf, size_t len, uint64_t off, unsigned flags)
{
	struct fake_dev *fake = fake_of(dev);
	uint64_t id;
	bool drop;
	int err = sync_begin(fake, FAKE_WRITE, buf, len, off, flags, &id, &drop);

	fdio_mutex_lock(&fake->lock);
	door_locked(fake, FAKE_WRITE);
	if (err == 1) {
		if (!drop)
			fake_image_write(fake, buf, len, off, write_is_durable(fake, flags));
		err = 0;
	}
	fake_record_complete(fake, id, FAKE_WRITE, off, drop || err ? 0 : len, flags,
			     err ? err : (int)len);
	fdio_mutex_unlock(&fake->lock);
	hook_call(fake, FAKE_WRITE, off, len, flags, true);
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
	door_locked(fake, FAKE_FLUSH);
	if (err == 1) {
		if (!drop)
			fake_image_flush(fake, upto);
		err = 0;
	}
	fake_record_complete(fake, id, FAKE_FLUSH, 0, 0, drop, err);
	fdio_mutex_unlock(&fake->lock);
	hook_call(fake, FAKE_FLUSH, 0, 0, 0, true);
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
	/* The worst a device may do: other data at once, and for good. */
	fdio_mutex_lock(&fake->lock);
	for (uint64_t o = off; o < off + len; o++)
		fake->now[o] = fake->media[o] = 0xd1;
	struct fake_pending *pending;
	list_for_each(pending, &fake->pending, node) {
		uint64_t lo = FDIO_MAX(pending->off, off),
			 hi = FDIO_MIN(pending->off + pending->len, off + len);
		if (lo < hi)
			memset(pending->data + (lo - pending->off), 0xd1, hi - lo);
	}
	fdio_mutex_unlock(&fake->lock);
	hook_call(fake, FAKE_DISCARD, off, len, 0, true);
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
	struct fake_pending *pending, *pt;
	struct held *held, *ht;

	if (fake->mode == FAKE_THREAD) {
		fake_unstick(fake);
		completer_stop(fake);
	}
	list_for_each_safe(held, ht, &fake->held, node)
		free(held);
	list_for_each_safe(pending, pt, &fake->pending, node)
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

struct fake_dev *fake_new(uint64_t size, uint32_t lbs)
{
	struct fake_dev *fake = calloc(1, sizeof(*fake));

	FDIO_MUST(fake && dev_init(&fake->dev, &fake_ops, "fake") == 0);
	fake->size = fdio_round_up(size, 4096);
	fake->dev.caps = (struct dev_caps){
		.size_bytes = fake->size,
		.sector_bytes = lbs,
		.physical_bytes = lbs,
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

void fake_fill(struct fake_dev *fake, uint8_t byte)
{
	fdio_mutex_lock(&fake->lock);
	fake_image_flush(fake, UINT64_MAX);
	memset(fake->now, byte, fake->size);
	memset(fake->media, byte, fake->size);
	fdio_mutex_unlock(&fake->lock);
}

struct fake_dev *fake_clone(struct fake_dev *f)
{
	struct fake_dev *c = fake_new(f->size, f->dev.caps.sector_bytes);

	fdio_mutex_lock(&f->lock);
	c->dev.caps = f->dev.caps;
	fake_image_copy(c->now, f->now, f->size);
	fake_image_copy(c->media, f->now, f->size);
	fdio_mutex_unlock(&f->lock);
	return c;
}

void fake_peek(struct fake_dev *fake, void *buf, size_t len, uint64_t off)
{
	fdio_mutex_lock(&fake->lock);
	FDIO_ASSERT(off <= fake->size && len <= fake->size - off);
	memcpy(buf, fake->now + off, len);
	fdio_mutex_unlock(&fake->lock);
}

void fake_peek_media(struct fake_dev *fake, void *buf, size_t len, uint64_t off)
{
	fdio_mutex_lock(&fake->lock);
	FDIO_ASSERT(off <= fake->size && len <= fake->size - off);
	memcpy(buf, fake->media + off, len);
	fdio_mutex_unlock(&fake->lock);
}

void fake_poke(struct fake_dev *fake, const void *buf, size_t len, uint64_t off)
{
	fdio_mutex_lock(&fake->lock);
	FDIO_ASSERT(off <= fake->size && len <= fake->size - off);
	fake_image_write(fake, buf, len, off, true);
	fdio_mutex_unlock(&fake->lock);
}
