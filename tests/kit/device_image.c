/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The two images of the fake device. A write that has completed changes "now" and waits in the list
 * of pending writes until a flush, FUA or a device without a volatile cache carries it to "media".
 *
 * Any thread. fake->lock guards both images and the list; the functions in device_types.h want it
 * held, those in device.h take it.
 */
#include "kit/device_types.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void *fake_image_new(uint64_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	FDIO_MUST(p != MAP_FAILED);
	return p;
}

void fake_image_free(void *img, uint64_t size) { munmap(img, size); }

/*
 * dst is freshly mapped: what is zero in src is not copied, so a large empty image costs nothing.
 */
void fake_image_copy(uint8_t *dst, const uint8_t *src, uint64_t size)
{
	static const uint8_t zero[4096];

	for (uint64_t o = 0; o < size; o += 4096)
		if (memcmp(src + o, zero, 4096))
			memcpy(dst + o, src + o, 4096);
}

/*
 * A durable write overtakes older pending writes. Puts its data into them, so that their flush does
 * not bring old data back over it.
 */
static void pending_patch(struct fake_dev *fake, const struct fake_pending *newer)
{
	struct fake_pending *pending;

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
	struct fake_pending *pending, *next;

	list_for_each_safe(pending, next, &fake->pending, node) {
		if (pending->seq > upto)
			break;
		memcpy(fake->media + pending->off, pending->data, pending->len);
		list_del(&pending->node);
		free(pending);
	}
}

/* The worst a device may do: other data at once, and no power cut brings the old back. */
void fake_image_discard(struct fake_dev *fake, uint64_t off, uint64_t len)
{
	struct fake_pending *pending;

	memset(fake->now + off, 0xd1, len);
	memset(fake->media + off, 0xd1, len);
	list_for_each(pending, &fake->pending, node) {
		uint64_t lo = FDIO_MAX(pending->off, off),
			 hi = FDIO_MIN(pending->off + pending->len, off + len);
		if (lo < hi)
			memset(pending->data + (lo - pending->off), 0xd1, hi - lo);
	}
}

void fake_fill(struct fake_dev *fake, uint8_t byte)
{
	fdio_mutex_lock(&fake->lock);
	fake_image_flush(fake, UINT64_MAX);
	memset(fake->now, byte, fake->size);
	memset(fake->media, byte, fake->size);
	fdio_mutex_unlock(&fake->lock);
}

struct fake_dev *fake_clone(struct fake_dev *fake)
{
	struct fake_dev *clone = fake_new(fake->size, fake->dev.caps.sector_bytes);

	fdio_mutex_lock(&fake->lock);
	clone->dev.caps = fake->dev.caps;
	fake_image_copy(clone->now, fake->now, fake->size);
	fake_image_copy(clone->media, fake->now, fake->size);
	fdio_mutex_unlock(&fake->lock);
	return clone;
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
