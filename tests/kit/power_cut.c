/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Power cuts of the fake device: images of what a cut leaves, now or at any recorded moment. A
 * write is safe once it completed as FUA, completed on a device without a volatile cache, or
 * completed before a flush was submitted that has completed. Every other write, also one still in
 * flight, may be there, be missing, or be there in some of its 512-byte pieces.
 */
#include "kit/device_types.h"

#include <stdlib.h>
#include <string.h>

struct rec_event {
	struct fake_event event;
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

static void cut_apply(uint8_t *img, uint64_t off, const uint8_t *data, uint32_t len,
		      enum fake_cut mode, uint64_t *seed)
{
	uint64_t choice = mode == FAKE_CUT_KEEP   ? 0
			  : mode == FAKE_CUT_DROP ? 1
			  : mode == FAKE_CUT_MASK ? ~*seed & 1
						  : fake_rand(seed) % 3;

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
	struct fake_dev *c = fake_new(f->size, f->dev.caps.sector_bytes);
	struct fake_pending *pending;
	struct held *held;

	fdio_mutex_lock(&f->lock);
	c->dev.caps = f->dev.caps;
	fake_image_copy(c->now, f->media, f->size);
	list_for_each(pending, &f->pending, node)
		cut_apply(c->now, pending->off, pending->data, pending->len, mode, &seed);
	list_for_each(held, &f->held, node)
		if (held->io->kind == DEV_WRITE && !held->bad)
			cut_apply(c->now, held->io->off, held->io->buf, held->io->len, mode, &seed);
	fake_image_copy(c->media, c->now, f->size);
	fdio_mutex_unlock(&f->lock);
	return c;
}

/* ---- recorder; fake->lock held ---- */
static struct rec_event *rec_add(struct fake_dev *fake)
{
	struct fake_record *record = fake->rec;

	if (record->nr == record->cap) {
		record->cap = record->cap ? record->cap * 2 : 256;
		record->ev = realloc(record->ev, record->cap * sizeof(*record->ev));
		FDIO_MUST(record->ev);
	}
	memset(&record->ev[record->nr], 0, sizeof(*record->ev));
	return &record->ev[record->nr++];
}

void fake_record_submit(struct fake_dev *fake, uint64_t id, enum fake_kind kind, uint64_t off,
			uint32_t len, unsigned flags, const void *data)
{
	if (!fake->rec)
		return;
	struct rec_event *e = rec_add(fake);
	e->event = (struct fake_event){ .type = FAKE_EVENT_SUBMIT,
					.kind = kind,
					.flags = flags,
					.id = id,
					.off = off,
					.len = len };
	if (kind == FAKE_WRITE) {
		e->data = malloc(len ? len : 1);
		FDIO_MUST(e->data);
		memcpy(e->data, data, len);
		e->event.data = e->data;
	}
}

void fake_record_complete(struct fake_dev *fake, uint64_t id, enum fake_kind kind, uint64_t off,
			  uint32_t len, unsigned flags, int result)
{
	if (!fake->rec)
		return;
	struct rec_event *e = rec_add(fake);
	e->event = (struct fake_event){ .type = FAKE_EVENT_COMPLETE,
					.kind = kind,
					.flags = flags,
					.id = id,
					.off = off,
					.len = len,
					.result = result };
	e->durable = kind == FAKE_WRITE && (!fake->dev.caps.volatile_cache || (flags & DEV_FUA));
}

void fake_record_start(struct fake_dev *fake)
{
	fake_record_stop(fake);
	struct fake_record *record = calloc(1, sizeof(*record));

	FDIO_MUST(record);
	fdio_mutex_lock(&fake->lock);
	fake_image_flush(fake, UINT64_MAX);
	record->base = fake_image_new(fake->size);
	fake_image_copy(record->base, fake->now, fake->size);
	fake->rec = record;
	fdio_mutex_unlock(&fake->lock);
}

void fake_record_stop(struct fake_dev *fake)
{
	fdio_mutex_lock(&fake->lock);
	struct fake_record *record = fake->rec;
	fake->rec = NULL;
	fdio_mutex_unlock(&fake->lock);
	if (!record)
		return;
	for (unsigned i = 0; i < record->nr; i++)
		free(record->ev[i].data);
	free(record->ev);
	fake_image_free(record->base, fake->size);
	free(record);
}

unsigned fake_record_events(struct fake_dev *fake)
{
	fdio_mutex_lock(&fake->lock);
	unsigned n = fake->rec ? fake->rec->nr : 0;
	fdio_mutex_unlock(&fake->lock);
	return n;
}

struct fake_event fake_record_event(struct fake_dev *fake, unsigned k)
{
	fdio_mutex_lock(&fake->lock);
	FDIO_ASSERT(fake->rec && k < fake->rec->nr);
	struct fake_event event = fake->rec->ev[k].event;
	fdio_mutex_unlock(&fake->lock);
	return event;
}

/* ---- cuts in the record ---- */
struct cut_state {
	/*
	 * completed ones first in order of completion, then those in flight in order of submission
	 */
	struct cut_write *w;
	unsigned nr;
};

static const struct rec_event *submission_of(const struct fake_record *record, unsigned before,
					     uint64_t id)
{
	for (unsigned i = before; i-- > 0;)
		if (record->ev[i].event.type == FAKE_EVENT_SUBMIT && record->ev[i].event.id == id)
			return &record->ev[i];
	return NULL; /* submitted before the recording started */
}

/* Marks safe what completed before the flush with this id was submitted. */
static void cut_flushed(const struct fake_record *record, unsigned at, uint64_t id,
			struct cut_state *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < at; i++) {
		if (record->ev[i].event.type == FAKE_EVENT_SUBMIT && record->ev[i].event.id == id)
			break;
		n += record->ev[i].event.type == FAKE_EVENT_COMPLETE &&
		     record->ev[i].event.kind == FAKE_WRITE &&
		     submission_of(record, i, record->ev[i].event.id);
	}
	for (unsigned i = 0; i < n; i++)
		s->w[i].safe = true;
}

static bool is_complete(const struct fake_record *record, unsigned k, uint64_t id)
{
	for (unsigned i = 0; i < k; i++)
		if (record->ev[i].event.type == FAKE_EVENT_COMPLETE && record->ev[i].event.id == id)
			return true;
	return false;
}

static void cut_collect(const struct fake_record *record, unsigned k, struct cut_state *s)
{
	for (unsigned i = 0; i < k; i++) {
		const struct rec_event *e = &record->ev[i];
		if (e->event.type != FAKE_EVENT_COMPLETE)
			continue;
		if (e->event.kind == FAKE_FLUSH) {
			/* flags: a flush that lied, see FAKE_DROP */
			if (!e->event.result && !e->event.flags)
				cut_flushed(record, i, e->event.id, s);
			continue;
		}
		const struct rec_event *sub = submission_of(record, i, e->event.id);
		if (sub)
			s->w[s->nr++] = (struct cut_write){ .sub = sub,
							    .safe = e->durable,
							    .completed = true,
							    .len = e->event.len };
	}
	for (unsigned i = 0; i < k; i++) {
		const struct rec_event *e = &record->ev[i];
		if (e->event.type == FAKE_EVENT_SUBMIT && e->event.kind == FAKE_WRITE &&
		    !is_complete(record, k, e->event.id))
			s->w[s->nr++] = (struct cut_write){ .sub = e, .len = e->event.len };
	}
}

struct fake_dev *fake_record_cut(struct fake_dev *f, unsigned k, enum fake_cut mode, uint64_t seed)
{
	struct fake_dev *c = fake_new(f->size, f->dev.caps.sector_bytes);
	struct cut_state s = { .w = calloc(k + 1, sizeof(*s.w)) };

	fdio_mutex_lock(&f->lock);
	FDIO_ASSERT(f->rec && k <= f->rec->nr && s.w);
	c->dev.caps = f->dev.caps;
	fake_image_copy(c->now, f->rec->base, f->size);
	cut_collect(f->rec, k, &s);
	/*
	 * In order of completion: a later write that is lost does not uncover an earlier one that
	 * is safe, and the reverse.
	 */
	for (unsigned i = 0; i < s.nr; i++)
		cut_apply(c->now, s.w[i].sub->event.off, s.w[i].sub->data, s.w[i].len,
			  s.w[i].safe ? FAKE_CUT_KEEP : mode, &seed);
	fake_image_copy(c->media, c->now, f->size);
	fdio_mutex_unlock(&f->lock);
	free(s.w);
	return c;
}

unsigned fake_record_pending(struct fake_dev *fake, unsigned k)
{
	struct cut_state s = { .w = calloc(k + 1, sizeof(*s.w)) };
	unsigned n = 0;

	fdio_mutex_lock(&fake->lock);
	FDIO_ASSERT(fake->rec && k <= fake->rec->nr && s.w);
	cut_collect(fake->rec, k, &s);
	for (unsigned i = 0; i < s.nr; i++)
		n += !s.w[i].safe;
	fdio_mutex_unlock(&fake->lock);
	free(s.w);
	return n;
}
