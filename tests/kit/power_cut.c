/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Power cuts of the fake device: images of what a cut leaves, now or at any recorded moment. A write is
 * safe once it completed as FUA, completed on a device without a volatile cache, or completed before a
 * flush was submitted that has completed. Every other write, also one still in flight, may be there, be
 * missing, or be there in some of its 512-byte pieces.
 */
#include "kit/device_types.h"

#include <stdlib.h>
#include <string.h>

struct rec_event {
	struct fake_event e;
	bool durable;   /* completion of a write that needs no flush */
	uint8_t *data;
};

struct fake_record {
	uint8_t *base; /* the image when recording started */
	struct rec_event *ev;
	unsigned nr, cap;
};

/* One write that was submitted by the time of the cut. */
struct cut_write {
	const struct rec_event *sub;
	bool safe, completed;
	uint32_t len; /* transferred; in flight: all */
};

static void cut_apply(uint8_t *img, uint64_t off, const uint8_t *data, uint32_t len, enum fake_cut mode, uint64_t *seed)
{
	uint64_t choice = mode == FAKE_CUT_KEEP ? 0 : mode == FAKE_CUT_DROP ? 1 : mode == FAKE_CUT_MASK ? ~*seed & 1 : fake_rand(seed) % 3;

	if (mode == FAKE_CUT_MASK)
		*seed >>= 1;

	if (choice == 0) {
		memcpy(img + off, data, len);
		return;
	}
	if (choice == 1)
		return;
	for (uint32_t o = 0; o < len;) {
		uint32_t n = FDIO_MIN(len - o, 512 - (uint32_t)((off + o) & 511));
		if (fake_rand(seed) & 1)
			memcpy(img + off + o, data + o, n);
		o += n;
	}
}

struct fake_dev *fake_power_cut(struct fake_dev *f, enum fake_cut mode, uint64_t seed)
{
	struct fake_dev *c = fake_new(f->size, f->dev.caps.lbs);
	struct fake_pending *p;
	struct held *h;

	fdio_mutex_lock(&f->lock);
	c->dev.caps = f->dev.caps;
	fake_image_copy(c->now, f->media, f->size);
	list_for_each(p, &f->pending, node)
		cut_apply(c->now, p->off, p->data, p->len, mode, &seed);
	list_for_each(h, &f->held, node)
		if (h->io->kind == DEV_WRITE && !h->bad)
			cut_apply(c->now, h->io->off, h->io->buf, h->io->len, mode, &seed);
	fake_image_copy(c->media, c->now, f->size);
	fdio_mutex_unlock(&f->lock);
	return c;
}

/* ---- recorder; f->lock held ---- */
static struct rec_event *rec_add(struct fake_dev *f)
{
	struct fake_record *r = f->rec;

	if (r->nr == r->cap) {
		r->cap = r->cap ? r->cap * 2 : 256;
		r->ev = realloc(r->ev, r->cap * sizeof(*r->ev));
		FDIO_MUST(r->ev);
	}
	memset(&r->ev[r->nr], 0, sizeof(*r->ev));
	return &r->ev[r->nr++];
}

void fake_rec_submit(struct fake_dev *f, uint64_t id, enum fake_kind kind, uint64_t off, uint32_t len, unsigned flags,
		     const void *data)
{
	if (!f->rec)
		return;
	struct rec_event *e = rec_add(f);
	e->e = (struct fake_event){ .ev = FAKE_EV_SUBMIT, .kind = kind, .flags = flags, .id = id, .off = off, .len = len };
	if (kind == FAKE_WRITE) {
		e->data = malloc(len ? len : 1);
		FDIO_MUST(e->data);
		memcpy(e->data, data, len);
		e->e.data = e->data;
	}
}

void fake_rec_complete(struct fake_dev *f, uint64_t id, enum fake_kind kind, uint64_t off, uint32_t len, unsigned flags, int result)
{
	if (!f->rec)
		return;
	struct rec_event *e = rec_add(f);
	e->e = (struct fake_event){ .ev = FAKE_EV_COMPLETE, .kind = kind, .flags = flags, .id = id, .off = off, .len = len,
				    .result = result };
	e->durable = kind == FAKE_WRITE && (!f->dev.caps.volatile_cache || (flags & DEV_FUA));
}

void fake_rec_start(struct fake_dev *f)
{
	fake_rec_stop(f);
	struct fake_record *r = calloc(1, sizeof(*r));

	FDIO_MUST(r);
	fdio_mutex_lock(&f->lock);
	fake_image_flush(f, UINT64_MAX);
	r->base = fake_image_new(f->size);
	fake_image_copy(r->base, f->now, f->size);
	f->rec = r;
	fdio_mutex_unlock(&f->lock);
}

void fake_rec_stop(struct fake_dev *f)
{
	fdio_mutex_lock(&f->lock);
	struct fake_record *r = f->rec;
	f->rec = NULL;
	fdio_mutex_unlock(&f->lock);
	if (!r)
		return;
	for (unsigned i = 0; i < r->nr; i++)
		free(r->ev[i].data);
	free(r->ev);
	fake_image_free(r->base, f->size);
	free(r);
}

unsigned fake_rec_events(struct fake_dev *f)
{
	fdio_mutex_lock(&f->lock);
	unsigned n = f->rec ? f->rec->nr : 0;
	fdio_mutex_unlock(&f->lock);
	return n;
}

struct fake_event fake_rec_event(struct fake_dev *f, unsigned k)
{
	fdio_mutex_lock(&f->lock);
	FDIO_ASSERT(f->rec && k < f->rec->nr);
	struct fake_event e = f->rec->ev[k].e;
	fdio_mutex_unlock(&f->lock);
	return e;
}

/* ---- cuts in the record ---- */
struct cut_state {
	struct cut_write *w; /* completed ones first in order of completion, then those in flight in order of submission */
	unsigned nr;
};

static const struct rec_event *submission_of(const struct fake_record *r, unsigned before, uint64_t id)
{
	for (unsigned i = before; i-- > 0;)
		if (r->ev[i].e.ev == FAKE_EV_SUBMIT && r->ev[i].e.id == id)
			return &r->ev[i];
	return NULL; /* submitted before the recording started */
}

/* Marks safe what completed before the flush with this id was submitted. */
static void cut_flushed(const struct fake_record *r, unsigned at, uint64_t id, struct cut_state *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < at; i++) {
		if (r->ev[i].e.ev == FAKE_EV_SUBMIT && r->ev[i].e.id == id)
			break;
		n += r->ev[i].e.ev == FAKE_EV_COMPLETE && r->ev[i].e.kind == FAKE_WRITE && submission_of(r, i, r->ev[i].e.id);
	}
	for (unsigned i = 0; i < n; i++)
		s->w[i].safe = true;
}

static bool is_complete(const struct fake_record *r, unsigned k, uint64_t id)
{
	for (unsigned i = 0; i < k; i++)
		if (r->ev[i].e.ev == FAKE_EV_COMPLETE && r->ev[i].e.id == id)
			return true;
	return false;
}

static void cut_collect(const struct fake_record *r, unsigned k, struct cut_state *s)
{
	for (unsigned i = 0; i < k; i++) {
		const struct rec_event *e = &r->ev[i];
		if (e->e.ev != FAKE_EV_COMPLETE)
			continue;
		if (e->e.kind == FAKE_FLUSH) {
			if (!e->e.result && !e->e.flags) /* flags: a flush that lied, see FAKE_DROP */
				cut_flushed(r, i, e->e.id, s);
			continue;
		}
		const struct rec_event *sub = submission_of(r, i, e->e.id);
		if (sub)
			s->w[s->nr++] = (struct cut_write){ .sub = sub, .safe = e->durable, .completed = true, .len = e->e.len };
	}
	for (unsigned i = 0; i < k; i++) {
		const struct rec_event *e = &r->ev[i];
		if (e->e.ev == FAKE_EV_SUBMIT && e->e.kind == FAKE_WRITE && !is_complete(r, k, e->e.id))
			s->w[s->nr++] = (struct cut_write){ .sub = e, .len = e->e.len };
	}
}

struct fake_dev *fake_rec_cut(struct fake_dev *f, unsigned k, enum fake_cut mode, uint64_t seed)
{
	struct fake_dev *c = fake_new(f->size, f->dev.caps.lbs);
	struct cut_state s = { .w = calloc(k + 1, sizeof(*s.w)) };

	fdio_mutex_lock(&f->lock);
	FDIO_ASSERT(f->rec && k <= f->rec->nr && s.w);
	c->dev.caps = f->dev.caps;
	fake_image_copy(c->now, f->rec->base, f->size);
	cut_collect(f->rec, k, &s);
	/* In order of completion: a later write that is lost does not uncover an earlier one that is safe, and the reverse. */
	for (unsigned i = 0; i < s.nr; i++)
		cut_apply(c->now, s.w[i].sub->e.off, s.w[i].sub->data, s.w[i].len, s.w[i].safe ? FAKE_CUT_KEEP : mode, &seed);
	fake_image_copy(c->media, c->now, f->size);
	fdio_mutex_unlock(&f->lock);
	free(s.w);
	return c;
}

unsigned fake_rec_pending(struct fake_dev *f, unsigned k)
{
	struct cut_state s = { .w = calloc(k + 1, sizeof(*s.w)) };
	unsigned n = 0;

	fdio_mutex_lock(&f->lock);
	FDIO_ASSERT(f->rec && k <= f->rec->nr && s.w);
	cut_collect(f->rec, k, &s);
	for (unsigned i = 0; i < s.nr; i++)
		n += !s.w[i].safe;
	fdio_mutex_unlock(&f->lock);
	free(s.w);
	return n;
}
