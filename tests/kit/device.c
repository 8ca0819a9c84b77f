/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The device in memory: images, counters, faults and the ways of completing. See kit/device.h; power cuts
 * and the recorder are in kit/power_cut.c, files and tools in kit/image_tools.c.
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
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	FDIO_MUST(p != MAP_FAILED);
	return p;
}

void fake_image_free(void *img, uint64_t size) { munmap(img, size); }

/* Leaves holes where the source is zero, so that large empty images cost nothing. dst is freshly mapped. */
void fake_image_copy(uint8_t *dst, const uint8_t *src, uint64_t size)
{
	static const uint8_t zero[4096];

	for (uint64_t o = 0; o < size; o += 4096)
		if (memcmp(src + o, zero, 4096))
			memcpy(dst + o, src + o, 4096);
}

struct fake_dev *fake_of(struct dev *d) { return container_of(d, struct fake_dev, dev); }
struct dev *fake_dev(struct fake_dev *f) { return &f->dev; }

static enum fake_kind kind_of(enum dev_op op) { return op == DEV_READ ? FAKE_READ : FAKE_WRITE; }

/* ---- images; f->lock held ---- */
static void pending_patch(struct fake_dev *f, const struct fake_pending *newer)
{
	struct fake_pending *p;

	/* An older pending write must not come back over this one when it is flushed later. */
	list_for_each(p, &f->pending, node) {
		uint64_t lo = FDIO_MAX(p->off, newer->off), hi = FDIO_MIN(p->off + p->len, newer->off + newer->len);
		if (p != newer && lo < hi)
			memcpy(p->data + (lo - p->off), newer->data + (lo - newer->off), hi - lo);
	}
}

static struct fake_pending *pending_new(uint64_t off, uint32_t len, const void *data)
{
	struct fake_pending *p = malloc(sizeof(*p) + len);

	FDIO_MUST(p);
	list_init(&p->node);
	p->off = off;
	p->len = len;
	memcpy(p->data, data, len);
	return p;
}

void fake_image_write(struct fake_dev *f, const void *data, uint32_t len, uint64_t off, bool durable)
{
	struct fake_pending *p;

	if (!len)
		return;
	memcpy(f->now + off, data, len);
	p = pending_new(off, len, data);
	p->seq = ++f->seq;
	if (durable) {
		memcpy(f->media + off, data, len);
		pending_patch(f, p);
		free(p);
		return;
	}
	list_add_tail(&f->pending, &p->node);
}

void fake_image_flush(struct fake_dev *f, uint64_t upto)
{
	struct fake_pending *p, *t;

	list_for_each_safe(p, t, &f->pending, node) {
		if (p->seq > upto)
			break;
		memcpy(f->media + p->off, p->data, p->len);
		list_del(&p->node);
		free(p);
	}
}

/* ---- faults; f->lock held ---- */
static const struct fake_fault *fault_match(struct fake_dev *f, enum fake_kind kind, uint64_t off, uint64_t len, unsigned flags,
					    bool async)
{
	bool fua = flags & DEV_FUA;

	for (unsigned i = 0; i < f->nr_faults; i++) {
		struct fault_state *s = &f->faults[i];
		if (!(s->f.kinds & kind) || (s->f.async_only && !async) || (s->f.sync_only && async))
			continue;
		if (kind == FAKE_WRITE && ((s->f.fua_only && !fua) || (s->f.plain_only && fua)))
			continue;
		if (s->f.len && (off >= s->f.off + s->f.len || off + len <= s->f.off))
			continue;
		if (s->seen++ < s->f.skip || (s->f.repeat && s->hits >= s->f.repeat))
			continue;
		s->hits++;
		f->fault_hits++;
		return &s->f;
	}
	return NULL;
}

void fake_fault_add(struct fake_dev *f, const struct fake_fault *fault)
{
	fdio_mutex_lock(&f->lock);
	FDIO_ASSERT(f->nr_faults < FAKE_FAULTS);
	f->faults[f->nr_faults++] = (struct fault_state){ .f = *fault };
	fdio_mutex_unlock(&f->lock);
}

void fake_fault_clear(struct fake_dev *f)
{
	fdio_mutex_lock(&f->lock);
	f->nr_faults = 0;
	f->fault_hits = 0;
	fdio_mutex_unlock(&f->lock);
}

uint64_t fake_fault_hits(struct fake_dev *f)
{
	fdio_mutex_lock(&f->lock);
	uint64_t n = f->fault_hits;
	fdio_mutex_unlock(&f->lock);
	return n;
}

/* ---- doors and hooks ---- */
static void door_locked(struct fake_dev *f, enum fake_kind kind)
{
	if (!(f->blocked_kinds & kind))
		return;
	f->nr_blocked++;
	pthread_cond_broadcast(&f->cond);
	while (f->blocked_kinds & kind)
		fdio_cond_wait(&f->cond, &f->lock);
	f->nr_blocked--;
}

void fake_block(struct fake_dev *f, unsigned kinds)
{
	fdio_mutex_lock(&f->lock);
	f->blocked_kinds = kinds;
	fdio_mutex_unlock(&f->lock);
}

void fake_unblock(struct fake_dev *f)
{
	fdio_mutex_lock(&f->lock);
	f->blocked_kinds = 0;
	pthread_cond_broadcast(&f->cond);
	fdio_mutex_unlock(&f->lock);
}

static bool wait_count(struct fake_dev *f, const unsigned *count, unsigned n)
{
	uint64_t deadline = fdio_now_ns() + 10000000000ULL;
	bool ok = true;

	fdio_mutex_lock(&f->lock);
	while (*count < n && ok)
		ok = fdio_cond_timedwait(&f->cond, &f->lock, deadline);
	ok = *count >= n;
	fdio_mutex_unlock(&f->lock);
	return ok;
}

bool fake_wait_blocked(struct fake_dev *f, unsigned n) { return wait_count(f, &f->nr_blocked, n); }
bool fake_wait_held(struct fake_dev *f, unsigned n) { return wait_count(f, &f->nr_held, n); }

void fake_set_hook(struct fake_dev *f, fake_hook fn, void *arg)
{
	fdio_mutex_lock(&f->lock);
	f->hook = fn;
	f->hook_arg = arg;
	fdio_mutex_unlock(&f->lock);
}

static void hook_call(struct fake_dev *f, enum fake_kind kind, uint64_t off, uint64_t len, unsigned flags, bool after)
{
	fdio_mutex_lock(&f->lock);
	fake_hook fn = f->hook;
	void *arg = f->hook_arg;
	fdio_mutex_unlock(&f->lock);
	if (fn)
		fn(arg, kind, off, len, flags, after);
}

/* ---- the contract; f->lock held ---- */
static bool violates(struct fake_dev *f, enum fake_kind kind, const void *buf, uint64_t off, uint64_t len, bool async)
{
	const struct dev_caps *c = &f->dev.caps;
	const char *why = NULL;

	if (off > f->size || len > f->size - off)
		why = "outside the device";
	else if ((kind == FAKE_WRITE || async) && (off % c->lbs || len % c->lbs))
		why = "not aligned to the logical block size";
	else if (async && (!len || len > c->max_io_bytes))
		why = "empty or longer than max_io_bytes";
	else if (async && (uintptr_t)buf % c->mem_align)
		why = "memory not aligned";
	else if (kind == FAKE_WRITE && c->read_only)
		why = "a write to a read-only device";
	if (!why)
		return false;
	f->stats.violations++;
	fprintf(stderr, "fake_dev: %s of %llu bytes at %llu: %s\n", kind == FAKE_READ ? "read" : "write", (unsigned long long)len,
		(unsigned long long)off, why);
	return true;
}

static void count(struct fake_dev *f, enum fake_kind kind, uint64_t len, unsigned flags, bool async)
{
	f->stats.async += async;
	f->stats.retried += async && (flags & DEV_ASYNC);
	switch (kind) {
	case FAKE_READ:
		f->stats.reads++;
		f->stats.bytes_read += len;
		break;
	case FAKE_WRITE:
		f->stats.writes++;
		f->stats.bytes_written += len;
		f->stats.fua += !!(flags & DEV_FUA);
		break;
	case FAKE_FLUSH:
		f->stats.flushes++;
		break;
	default:
		f->stats.discards++;
	}
}

struct fake_stats fake_stats(struct fake_dev *f)
{
	fdio_mutex_lock(&f->lock);
	struct fake_stats s = f->stats;
	fdio_mutex_unlock(&f->lock);
	return s;
}

void fake_stats_reset(struct fake_dev *f)
{
	fdio_mutex_lock(&f->lock);
	memset(&f->stats, 0, sizeof(f->stats));
	fdio_mutex_unlock(&f->lock);
}

static bool write_is_durable(struct fake_dev *f, unsigned flags) { return !f->dev.caps.volatile_cache || (flags & DEV_FUA); }

/* ---- asynchronous ---- */
static void held_submit_locked(struct fake_dev *f, struct held *h)
{
	struct dev_io *io = h->io;

	count(f, kind_of(io->kind), io->len, io->flags, true);
	h->id = ++f->ids;
	const struct fake_fault *fault = fault_match(f, kind_of(io->kind), io->off, io->len, io->flags, true);
	h->has_fault = fault != NULL;
	if (fault)
		h->fault = *fault;
	h->stuck = fault && fault->action == FAKE_STUCK;
	h->bad = violates(f, kind_of(io->kind), io->buf, io->off, io->len, true);
	if (h->bad)
		return;
	if (io->kind == DEV_WRITE) {
		struct held *o;
		list_for_each(o, &f->held, node)
			f->stats.overlaps += o != h && o->io->kind == DEV_WRITE && o->io->off < io->off + io->len &&
					     io->off < o->io->off + o->io->len;
		fake_rec_submit(f, h->id, FAKE_WRITE, io->off, io->len, io->flags, io->buf);
	} else if (f->mode != FAKE_INLINE) {
		memset(io->buf, 0xdb, io->len);
	}
}

/* Decides the result and moves the data. */
static int held_transfer_locked(struct fake_dev *f, struct held *h)
{
	struct dev_io *io = h->io;
	uint32_t n = io->len;
	bool drop = false;

	if (h->bad)
		return -EINVAL;
	if (h->has_fault && h->fault.action == FAKE_ERROR)
		n = 0;
	else if (h->has_fault && h->fault.action == FAKE_SHORT)
		n = io->len > h->fault.n ? io->len - h->fault.n : 0;
	else if (h->has_fault && h->fault.action == FAKE_DROP)
		drop = true;
	if (io->kind == DEV_READ)
		memcpy(io->buf, f->now + io->off, n);
	else if (!drop)
		fake_image_write(f, io->buf, n, io->off, write_is_durable(f, io->flags));
	int res = h->has_fault && h->fault.action == FAKE_ERROR ? h->fault.err : (int)n;
	if (io->kind == DEV_WRITE)
		fake_rec_complete(f, h->id, FAKE_WRITE, io->off, drop ? 0 : n, io->flags, res);
	return res == 0 ? -EIO : res; /* dev.h: 0 bytes is -EIO */
}

static void held_finish(struct fake_dev *f, struct held *h)
{
	struct dev_io *io = h->io;
	enum fake_kind kind = kind_of(io->kind);
	uint64_t off = io->off, len = io->len;
	unsigned flags = io->flags;

	hook_call(f, kind, off, len, flags, false);
	fdio_mutex_lock(&f->lock);
	io->result = held_transfer_locked(f, h);
	fdio_mutex_unlock(&f->lock);
	free(h);
	hook_call(f, kind, off, len, flags, true);
	io->done(io); /* the last touch */
}

static void fake_submit(struct dev *d, struct dev_io *io)
{
	struct fake_dev *f = fake_of(d);
	struct held *h = calloc(1, sizeof(*h));

	FDIO_MUST(h);
	h->io = io;
	io->dev = d;
	list_init(&h->node);
	fdio_mutex_lock(&f->lock);
	held_submit_locked(f, h);
	if (f->mode != FAKE_INLINE || h->stuck) {
		list_add_tail(&f->held, &h->node);
		f->nr_held++;
		pthread_cond_broadcast(&f->cond);
		fdio_mutex_unlock(&f->lock);
		return;
	}
	door_locked(f, kind_of(io->kind));
	fdio_mutex_unlock(&f->lock);
	held_finish(f, h);
}

static struct held *held_nth(struct fake_dev *f, unsigned k)
{
	struct held *h;

	list_for_each(h, &f->held, node)
		if (k-- == 0)
			return h;
	return NULL;
}

unsigned fake_held(struct fake_dev *f)
{
	fdio_mutex_lock(&f->lock);
	unsigned n = f->nr_held;
	fdio_mutex_unlock(&f->lock);
	return n;
}

struct dev_io *fake_held_io(struct fake_dev *f, unsigned k)
{
	fdio_mutex_lock(&f->lock);
	struct held *h = held_nth(f, k);
	fdio_mutex_unlock(&f->lock);
	return h ? h->io : NULL;
}

/* Takes the k-th out of the list if it can complete. */
static struct held *held_take_locked(struct fake_dev *f, unsigned k)
{
	struct held *h = held_nth(f, k);

	if (!h || h->stuck)
		return NULL;
	list_del(&h->node);
	f->nr_held--;
	return h;
}

bool fake_complete(struct fake_dev *f, unsigned k)
{
	fdio_mutex_lock(&f->lock);
	struct held *h = held_take_locked(f, k);
	fdio_mutex_unlock(&f->lock);
	if (h)
		held_finish(f, h);
	return h != NULL;
}

/* The k-th of those that are not stuck. */
static struct held *held_take_free_locked(struct fake_dev *f, uint64_t *seed)
{
	struct held *h;
	unsigned n = 0, want;

	list_for_each(h, &f->held, node)
		n += !h->stuck;
	if (!n)
		return NULL;
	want = seed ? fake_rand(seed) % n : 0;
	list_for_each(h, &f->held, node)
		if (!h->stuck && want-- == 0)
			break;
	list_del(&h->node);
	f->nr_held--;
	return h;
}

static unsigned complete_until_empty(struct fake_dev *f, bool random)
{
	struct held *h;
	unsigned n = 0;

	for (;; n++) {
		fdio_mutex_lock(&f->lock);
		h = held_take_free_locked(f, random ? &f->seed : NULL);
		fdio_mutex_unlock(&f->lock);
		if (!h)
			return n;
		held_finish(f, h);
	}
}

unsigned fake_complete_all(struct fake_dev *f) { return complete_until_empty(f, false); }
unsigned fake_complete_random(struct fake_dev *f) { return complete_until_empty(f, true); }

void fake_unstick(struct fake_dev *f)
{
	struct held *h;

	fdio_mutex_lock(&f->lock);
	list_for_each(h, &f->held, node)
		h->stuck = false;
	f->stuck_epoch++;
	pthread_cond_broadcast(&f->cond);
	fdio_mutex_unlock(&f->lock);
}

static void *completer(void *arg)
{
	struct fake_dev *f = arg;
	struct held *h;

	fdio_mutex_lock(&f->lock);
	for (;;) {
		h = held_take_free_locked(f, &f->seed);
		if (h) {
			fdio_mutex_unlock(&f->lock);
			held_finish(f, h);
			fdio_mutex_lock(&f->lock);
			continue;
		}
		if (f->thread_stop)
			break;
		fdio_cond_wait(&f->cond, &f->lock);
	}
	fdio_mutex_unlock(&f->lock);
	return NULL;
}

static void completer_stop(struct fake_dev *f)
{
	if (f->mode != FAKE_THREAD)
		return;
	fdio_mutex_lock(&f->lock);
	f->thread_stop = true;
	pthread_cond_broadcast(&f->cond);
	fdio_mutex_unlock(&f->lock);
	pthread_join(f->thread, NULL);
	f->thread_stop = false;
}

void fake_set_mode(struct fake_dev *f, enum fake_mode mode, uint64_t seed)
{
	completer_stop(f);
	fdio_mutex_lock(&f->lock);
	FDIO_ASSERT(list_empty(&f->held));
	f->mode = mode;
	f->seed = seed;
	fdio_mutex_unlock(&f->lock);
	if (mode == FAKE_THREAD)
		FDIO_MUST(pthread_create(&f->thread, NULL, completer, f) == 0);
}

/* ---- synchronous ---- */
/* Counts, checks, waits at the door; 1: go on, else the result. */
static int sync_begin(struct fake_dev *f, enum fake_kind kind, const void *buf, uint64_t len, uint64_t off, unsigned flags,
		      uint64_t *ret_id, bool *ret_drop)
{
	const struct fake_fault *fault;
	int r = 1;

	hook_call(f, kind, off, len, flags, false);
	fdio_mutex_lock(&f->lock);
	count(f, kind, len, flags, false);
	*ret_id = ++f->ids;
	*ret_drop = false;
	if (kind != FAKE_FLUSH && violates(f, kind, buf, off, len, false)) {
		r = -EINVAL;
		goto out;
	}
	fault = fault_match(f, kind, off, len, flags, false);
	if (kind & (FAKE_WRITE | FAKE_FLUSH))
		fake_rec_submit(f, *ret_id, kind, off, len, flags, buf);
	if (fault && fault->action == FAKE_STUCK) {
		unsigned e = f->stuck_epoch;
		while (e == f->stuck_epoch)
			fdio_cond_wait(&f->cond, &f->lock);
	} else if (fault && fault->action == FAKE_ERROR) {
		r = fault->err;
	} else if (fault && fault->action == FAKE_DROP) {
		*ret_drop = true;
	}
out:
	fdio_mutex_unlock(&f->lock);
	return r;
}

static int fake_read(struct dev *d, void *buf, size_t len, uint64_t off)
{
	struct fake_dev *f = fake_of(d);
	uint64_t id;
	bool drop;
	int r = sync_begin(f, FAKE_READ, buf, len, off, 0, &id, &drop);

	fdio_mutex_lock(&f->lock);
	door_locked(f, FAKE_READ);
	if (r == 1) {
		memcpy(buf, f->now + off, len);
		r = 0;
	}
	fdio_mutex_unlock(&f->lock);
	hook_call(f, FAKE_READ, off, len, 0, true);
	return r;
}

static int fake_write(struct dev *d, const void *buf, size_t len, uint64_t off, unsigned flags)
{
	struct fake_dev *f = fake_of(d);
	uint64_t id;
	bool drop;
	int r = sync_begin(f, FAKE_WRITE, buf, len, off, flags, &id, &drop);

	fdio_mutex_lock(&f->lock);
	door_locked(f, FAKE_WRITE);
	if (r == 1) {
		if (!drop)
			fake_image_write(f, buf, len, off, write_is_durable(f, flags));
		r = 0;
	}
	fake_rec_complete(f, id, FAKE_WRITE, off, drop || r ? 0 : len, flags, r ? r : (int)len);
	fdio_mutex_unlock(&f->lock);
	hook_call(f, FAKE_WRITE, off, len, flags, true);
	return r;
}

static int fake_write_many(struct dev *d, struct dev_vec *v, unsigned n)
{
	int first = 0;

	for (unsigned i = 0; i < n; i++) {
		v[i].result = fake_write(d, v[i].buf, v[i].len, v[i].off, 0);
		if (v[i].result && !first)
			first = v[i].result;
	}
	return first;
}

static int fake_flush(struct dev *d)
{
	struct fake_dev *f = fake_of(d);
	uint64_t id, upto;
	bool drop;

	fdio_mutex_lock(&f->lock);
	upto = f->seq; /* writes that complete from here on are not covered */
	fdio_mutex_unlock(&f->lock);
	int r = sync_begin(f, FAKE_FLUSH, NULL, 0, 0, 0, &id, &drop);
	fdio_mutex_lock(&f->lock);
	door_locked(f, FAKE_FLUSH);
	if (r == 1) {
		if (!drop)
			fake_image_flush(f, upto);
		r = 0;
	}
	fake_rec_complete(f, id, FAKE_FLUSH, 0, 0, drop, r);
	fdio_mutex_unlock(&f->lock);
	hook_call(f, FAKE_FLUSH, 0, 0, 0, true);
	return r;
}

static int fake_discard(struct dev *d, uint64_t off, uint64_t len)
{
	struct fake_dev *f = fake_of(d);
	uint64_t id;
	bool drop;
	int r = sync_begin(f, FAKE_DISCARD, NULL, len, off, 0, &id, &drop);

	if (r != 1)
		return r;
	/* The worst a device may do: other data at once, and for good. */
	fdio_mutex_lock(&f->lock);
	for (uint64_t o = off; o < off + len; o++)
		f->now[o] = f->media[o] = 0xd1;
	struct fake_pending *p;
	list_for_each(p, &f->pending, node) {
		uint64_t lo = FDIO_MAX(p->off, off), hi = FDIO_MIN(p->off + p->len, off + len);
		if (lo < hi)
			memset(p->data + (lo - p->off), 0xd1, hi - lo);
	}
	fdio_mutex_unlock(&f->lock);
	hook_call(f, FAKE_DISCARD, off, len, 0, true);
	return 0;
}

static void fake_now(struct dev *d, struct timespec *ts)
{
	struct fake_dev *f = fake_of(d);

	fdio_mutex_lock(&f->lock);
	if (f->clock_set)
		*ts = f->clock;
	else
		clock_gettime(CLOCK_REALTIME, ts);
	fdio_mutex_unlock(&f->lock);
}

void fake_set_now(struct fake_dev *f, const struct timespec *ts)
{
	fdio_mutex_lock(&f->lock);
	f->clock_set = ts != NULL;
	if (ts)
		f->clock = *ts;
	fdio_mutex_unlock(&f->lock);
}

/* ---- life ---- */
static void fake_close(struct dev *d)
{
	struct fake_dev *f = fake_of(d);
	struct fake_pending *p, *pt;
	struct held *h, *ht;

	if (f->mode == FAKE_THREAD) {
		fake_unstick(f);
		completer_stop(f);
	}
	list_for_each_safe(h, ht, &f->held, node)
		free(h);
	list_for_each_safe(p, pt, &f->pending, node)
		free(p);
	list_init(&f->pending);
	fake_rec_stop(f);
	dev_fini(&f->dev);
	fake_image_free(f->now, f->size);
	fake_image_free(f->media, f->size);
	pthread_cond_destroy(&f->cond);
	fdio_mutex_fini(&f->lock);
	free(f);
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
	struct fake_dev *f = calloc(1, sizeof(*f));

	FDIO_MUST(f && dev_init(&f->dev, &fake_ops, "fake") == 0);
	f->size = fdio_round_up(size, 4096);
	f->dev.caps = (struct dev_caps){
		.size_bytes = f->size, .lbs = lbs, .pbs = lbs, .max_io_bytes = 1 << 20, .mem_align = 512,
		.volatile_cache = true, .fua = true, .discard = true, .is_block = true,
	};
	f->now = fake_image_new(f->size);
	f->media = fake_image_new(f->size);
	list_init(&f->pending);
	list_init(&f->held);
	fdio_mutex_init(&f->lock, RANK_LEAF);
	fdio_cond_init(&f->cond);
	return f;
}

void fake_free(struct fake_dev *f)
{
	if (f)
		fake_close(&f->dev);
}

void fake_fill(struct fake_dev *f, uint8_t byte)
{
	fdio_mutex_lock(&f->lock);
	fake_image_flush(f, UINT64_MAX);
	memset(f->now, byte, f->size);
	memset(f->media, byte, f->size);
	fdio_mutex_unlock(&f->lock);
}

struct fake_dev *fake_clone(struct fake_dev *f)
{
	struct fake_dev *c = fake_new(f->size, f->dev.caps.lbs);

	fdio_mutex_lock(&f->lock);
	c->dev.caps = f->dev.caps;
	fake_image_copy(c->now, f->now, f->size);
	fake_image_copy(c->media, f->now, f->size);
	fdio_mutex_unlock(&f->lock);
	return c;
}

void fake_peek(struct fake_dev *f, void *buf, size_t len, uint64_t off)
{
	fdio_mutex_lock(&f->lock);
	FDIO_ASSERT(off <= f->size && len <= f->size - off);
	memcpy(buf, f->now + off, len);
	fdio_mutex_unlock(&f->lock);
}

void fake_peek_media(struct fake_dev *f, void *buf, size_t len, uint64_t off)
{
	fdio_mutex_lock(&f->lock);
	FDIO_ASSERT(off <= f->size && len <= f->size - off);
	memcpy(buf, f->media + off, len);
	fdio_mutex_unlock(&f->lock);
}

void fake_poke(struct fake_dev *f, const void *buf, size_t len, uint64_t off)
{
	fdio_mutex_lock(&f->lock);
	FDIO_ASSERT(off <= f->size && len <= f->size - off);
	fake_image_write(f, buf, len, off, true);
	fdio_mutex_unlock(&f->lock);
}
