/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Power cuts of the fake device: a new device with what a cut leaves, now or at any recorded
 * moment. A write is safe once it has completed as FUA, or on a device without a volatile cache, or
 * before a flush was submitted that has completed too. Every other write, also one still in flight,
 * may be there, be missing, or be there in some of its pieces of 512 bytes.
 *
 * Any thread; fake->lock guards the record.
 */
#include "kit/device_types.h"

#include <stdlib.h>
#include <string.h>

struct recorded_event {
	struct fake_event event;
	bool durable;   /* completion of a write that needs no flush */
	uint8_t *data;
};

struct fake_record {
	uint8_t *base; /* the image when the recording started */
	struct recorded_event *events;
	unsigned nr, cap;
};

/* One write that was submitted by the time of the cut. */
struct cut_write {
	const struct recorded_event *submission;
	bool safe;
	uint32_t len; /* what was transferred; of one in flight: all */
};

/* What becomes of one write in a cut. */
static void apply_write(uint8_t *img, uint64_t off, const uint8_t *data, uint32_t len,
			enum fake_cut mode, uint64_t *seed)
{
	enum { KEEP, DROP, TEAR } fate = KEEP;

	if (mode == FAKE_CUT_DROP)
		fate = DROP;
	if (mode == FAKE_CUT_MASK) {
		fate = *seed & 1 ? KEEP : DROP;
		*seed >>= 1;
	}
	if (mode == FAKE_CUT_RANDOM)
		fate = fake_rand(seed) % 3;
	if (fate == KEEP)
		memcpy(img + off, data, len);
	if (fate != TEAR)
		return;
	for (uint32_t o = 0; o < len;) {
		uint32_t n = FDIO_MIN(len - o, 512 - (uint32_t)((off + o) & 511));
		if (fake_rand(seed) & 1)
			memcpy(img + off + o, data + o, n);
		o += n;
	}
}

struct fake_dev *fake_power_cut(struct fake_dev *fake, enum fake_cut mode, uint64_t seed)
{
	struct fake_dev *left = fake_new(fake->size, fake->dev.caps.sector_bytes);
	struct fake_pending *pending;
	struct held *held;

	fdio_mutex_lock(&fake->lock);
	left->dev.caps = fake->dev.caps;
	fake_image_copy(left->now, fake->media, fake->size);
	list_for_each(pending, &fake->pending, node)
		apply_write(left->now, pending->off, pending->data, pending->len, mode, &seed);
	list_for_each(held, &fake->held, node)
		if (held->io->kind == DEV_WRITE && !held->bad)
			apply_write(left->now, held->io->off, held->io->buf, held->io->len, mode,
				    &seed);
	fake_image_copy(left->media, left->now, fake->size);
	fdio_mutex_unlock(&fake->lock);
	return left;
}

/* ---- recorder; fake->lock held ---- */
static struct recorded_event *event_add(struct fake_dev *fake)
{
	struct fake_record *record = fake->record;

	if (record->nr == record->cap) {
		record->cap = record->cap ? record->cap * 2 : 256;
		record->events = realloc(record->events, record->cap * sizeof(*record->events));
		FDIO_MUST(record->events);
	}
	memset(&record->events[record->nr], 0, sizeof(*record->events));
	return &record->events[record->nr++];
}

void fake_record_submit(struct fake_dev *fake, uint64_t id, enum fake_kind kind, uint64_t off,
			uint32_t len, unsigned flags, const void *data)
{
	if (!fake->record)
		return;
	struct recorded_event *e = event_add(fake);
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
	if (!fake->record)
		return;
	struct recorded_event *e = event_add(fake);
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
	fake->record = record;
	fdio_mutex_unlock(&fake->lock);
}

void fake_record_stop(struct fake_dev *fake)
{
	fdio_mutex_lock(&fake->lock);
	struct fake_record *record = fake->record;
	fake->record = NULL;
	fdio_mutex_unlock(&fake->lock);
	if (!record)
		return;
	for (unsigned i = 0; i < record->nr; i++)
		free(record->events[i].data);
	free(record->events);
	fake_image_free(record->base, fake->size);
	free(record);
}

unsigned fake_record_events(struct fake_dev *fake)
{
	fdio_mutex_lock(&fake->lock);
	unsigned n = fake->record ? fake->record->nr : 0;
	fdio_mutex_unlock(&fake->lock);
	return n;
}

struct fake_event fake_record_event(struct fake_dev *fake, unsigned k)
{
	fdio_mutex_lock(&fake->lock);
	FDIO_ASSERT(fake->record && k < fake->record->nr);
	struct fake_event event = fake->record->events[k].event;
	fdio_mutex_unlock(&fake->lock);
	return event;
}

/* ---- cuts in the record ---- */
/*
 * The writes of a record up to the moment of a cut. Those that have completed come first, in the
 * order of their completion, then those in flight, in the order of their submission.
 */
struct cut_writes {
	struct cut_write *write;
	unsigned nr;
};

static bool is_event(const struct recorded_event *event, enum fake_event_type type, uint64_t id)
{
	return event->event.type == type && event->event.id == id;
}

static const struct recorded_event *submission_of(const struct fake_record *record,
						  unsigned before, uint64_t id)
{
	for (unsigned i = before; i-- > 0;)
		if (is_event(&record->events[i], FAKE_EVENT_SUBMIT, id))
			return &record->events[i];
	return NULL; /* it was submitted before the recording started */
}

/*
 * The flush with this id has completed at event "at": marks safe what had completed when it was
 * submitted.
 */
static void mark_flushed(const struct fake_record *record, unsigned at, uint64_t id,
			 struct cut_writes *writes)
{
	unsigned n = 0;

	for (unsigned i = 0; i < at; i++) {
		const struct fake_event *event = &record->events[i].event;

		if (is_event(&record->events[i], FAKE_EVENT_SUBMIT, id))
			break;
		n += event->type == FAKE_EVENT_COMPLETE && event->kind == FAKE_WRITE &&
		     submission_of(record, i, event->id);
	}
	for (unsigned i = 0; i < n; i++)
		writes->write[i].safe = true;
}

static bool completes_before(const struct fake_record *record, unsigned k, uint64_t id)
{
	for (unsigned i = 0; i < k; i++)
		if (is_event(&record->events[i], FAKE_EVENT_COMPLETE, id))
			return true;
	return false;
}

static void collect_completed(const struct fake_record *record, unsigned k,
			      struct cut_writes *writes)
{
	for (unsigned i = 0; i < k; i++) {
		const struct fake_event *event = &record->events[i].event;
		const struct recorded_event *submission;

		if (event->type != FAKE_EVENT_COMPLETE)
			continue;
		if (event->kind == FAKE_FLUSH) {
			/* A flush with flags had no effect: see FAKE_DROP. */
			if (!event->result && !event->flags)
				mark_flushed(record, i, event->id, writes);
			continue;
		}
		submission = submission_of(record, i, event->id);
		if (submission)
			writes->write[writes->nr++] = (struct cut_write){
				.submission = submission,
				.safe = record->events[i].durable,
				.len = event->len,
			};
	}
}

/* The writes among the first k events. */
static void collect_writes(const struct fake_record *record, unsigned k, struct cut_writes *writes)
{
	collect_completed(record, k, writes);
	for (unsigned i = 0; i < k; i++) {
		const struct fake_event *event = &record->events[i].event;

		if (event->type == FAKE_EVENT_SUBMIT && event->kind == FAKE_WRITE &&
		    !completes_before(record, k, event->id))
			writes->write[writes->nr++] = (struct cut_write){
				.submission = &record->events[i], .len = event->len
			};
	}
}

struct fake_dev *fake_record_cut(struct fake_dev *fake, unsigned k, enum fake_cut mode,
				 uint64_t seed)
{
	struct fake_dev *left = fake_new(fake->size, fake->dev.caps.sector_bytes);
	struct cut_writes writes = { .write = calloc(k + 1, sizeof(*writes.write)) };

	fdio_mutex_lock(&fake->lock);
	FDIO_ASSERT(fake->record && k <= fake->record->nr && writes.write);
	left->dev.caps = fake->dev.caps;
	fake_image_copy(left->now, fake->record->base, fake->size);
	collect_writes(fake->record, k, &writes);
	/*
	 * In the order of completion, so that a later write that reached the media covers an
	 * earlier one, and a safe earlier one stays if the later is lost.
	 */
	for (unsigned i = 0; i < writes.nr; i++)
		apply_write(left->now, writes.write[i].submission->event.off,
			    writes.write[i].submission->data, writes.write[i].len,
			    writes.write[i].safe ? FAKE_CUT_KEEP : mode, &seed);
	fake_image_copy(left->media, left->now, fake->size);
	fdio_mutex_unlock(&fake->lock);
	free(writes.write);
	return left;
}

unsigned fake_record_pending(struct fake_dev *fake, unsigned k)
{
	struct cut_writes writes = { .write = calloc(k + 1, sizeof(*writes.write)) };
	unsigned n = 0;

	fdio_mutex_lock(&fake->lock);
	FDIO_ASSERT(fake->record && k <= fake->record->nr && writes.write);
	collect_writes(fake->record, k, &writes);
	for (unsigned i = 0; i < writes.nr; i++)
		n += !writes.write[i].safe;
	fdio_mutex_unlock(&fake->lock);
	free(writes.write);
	return n;
}
