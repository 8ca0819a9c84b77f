/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the kernel's page cache may hold that nobody has told us: stores through shared mappings.
 * The kernel says nothing of a mapping, nor of a store; but only a file open for reading and
 * writing can be stored to, and a page that is mapped was read through the page cache first, or
 * written as a whole (then it lies neither over a hole nor at the end). So these leave notes here,
 * on loop threads, without a lock; and what would answer wrongly because of such a store asks for a
 * note, and has the kernel write the pages back and forget them (dio_config.launder, or the rooms
 * above).
 *
 * - The page that holds the end of the file: what is stored behind the end is no part of the file,
 *   but kernels before 7.3 let it become one when the file grows over it (DIO_CACHED_TAIL). They
 *   write back no further than their own end of the file, so this is done after the growth and
 *   before its answer. Truncate cannot do that, because the kernel holds back what it writes
 *   meanwhile. It writes back and forgets all pages right after the answer, so what lies behind the
 *   old end then is masked: zeroed in pages written back, until somebody reads or writes the page
 *   anew, for which it must be gone.
 * - Pages over holes: SEEK_DATA and the count of blocks do not know them (DIO_CACHED_HOLES).
 * - Any page: written back later, it would change the time that utime has set (DIO_CACHED_ALL).
 *
 * A note is taken when the pages begin to be forgotten: a read that comes then leaves a new one. It
 * is put back if they were not forgotten in time.
 */
#include "dio/types.h"

#include <string.h>

#define SEQ __ATOMIC_SEQ_CST

static bool has_mappings(const struct dio_inode *di)
{
	return __atomic_load_n(&di->nr_mappers, __ATOMIC_ACQUIRE);
}

/* ---- notes ---- */

static uint64_t tail_of(const struct dio *d, uint64_t size)
{
	return size & (d->page_size - 1) ? size / d->page_size + 1 : 0;
}

static void note_range(struct dio_inode *di, uint64_t lo, uint64_t hi)
{
	uint64_t was = __atomic_load_n(&di->hole_lo, SEQ);

	while (lo < was && !__atomic_compare_exchange_n(&di->hole_lo, &was, lo, false, SEQ, SEQ))
		;
	was = __atomic_load_n(&di->hole_hi, SEQ);
	while (hi > was && !__atomic_compare_exchange_n(&di->hole_hi, &was, hi, false, SEQ, SEQ))
		;
}

static bool reads_hole(struct dio_req *r, uint64_t end)
{
	struct dio_piece p;

	for (uint64_t pos = r->pos; pos < end; pos += p.len) {
		int err = dio_piece_at(dio_own(r)->dio, r->file->inode, pos, (uint32_t)(end - pos),
				       &p);

		if (err || p.state != X4_EXT_WRITTEN)
			return true;
	}
	return false;
}

/* A store only where it changes something: the line is read by every CPU that reads the file. */
void dio_cached_note(struct dio_req *r)
{
	struct dio_inode *di = r->file->di;
	uint64_t size = x4_inode_size(r->file->inode), end = FDIO_MIN(r->pos + r->len, size);
	uint64_t tail = tail_of(dio_own(r)->dio, size);

	if (!(r->flags & DIO_WRITEBACK) && !__atomic_load_n(&di->has_pages, SEQ))
		__atomic_store_n(&di->has_pages, true, SEQ);
	if ((r->flags & DIO_WRITE) || r->pos >= size)
		return;
	if (tail && end > (tail - 1) * dio_own(r)->dio->page_size &&
	    __atomic_load_n(&di->tail_page, SEQ) != tail)
		__atomic_store_n(&di->tail_page, tail, SEQ);
	if (reads_hole(r, end))
		note_range(di, r->pos, end);
}

static bool has_holes(struct dio_inode *di)
{
	return __atomic_load_n(&di->hole_lo, SEQ) != UINT64_MAX ||
	       __atomic_load_n(&di->hole_hi, SEQ) || __atomic_load_n(&di->laundering, SEQ);
}

bool dio_cached_maybe(struct x4_inode *i, enum dio_cached_what what, uint64_t size)
{
	struct dio_inode *di = x4_inode_upper(i);

	if (!di || !has_mappings(di))
		return false;
	if (what == DIO_CACHED_TAIL) {
		uint64_t tail = tail_of(di->d, size);

		return tail && __atomic_load_n(&di->tail_page, SEQ) == tail;
	}
	return what == DIO_CACHED_HOLES ? has_holes(di) : __atomic_load_n(&di->has_pages, SEQ);
}

void dio_cached_forget(struct dio_inode *di, uint64_t off, uint64_t end)
{
	uint64_t tail = __atomic_load_n(&di->tail_page, SEQ), page = di->d->page_size;

	if (tail && off < tail * page && end > (tail - 1) * page)
		__atomic_compare_exchange_n(&di->tail_page, &tail, 0, false, SEQ, SEQ);
}

/* While somebody else has them forgotten there is nothing left to take: then all pages. */
static void take_holes(struct dio_inode *di, struct dio_cached *c)
{
	__atomic_fetch_add(&di->laundering, 1, SEQ);
	uint64_t lo = __atomic_exchange_n(&di->hole_lo, UINT64_MAX, SEQ);
	uint64_t hi = __atomic_exchange_n(&di->hole_hi, 0, SEQ);

	c->off = lo < hi ? fdio_round_down(lo, di->d->page_size) : 0;
	c->end = lo < hi ? fdio_round_up(hi, di->d->page_size) : INT64_MAX;
}

bool dio_cached_take(struct x4_inode *i, enum dio_cached_what what, uint64_t size,
		     struct dio_cached *c)
{
	struct dio_inode *di = x4_inode_upper(i);
	uint64_t tail;

	if (!dio_cached_maybe(i, what, size))
		return false;
	*c = (struct dio_cached){ .what = what, .end = INT64_MAX };
	switch (what) {
	case DIO_CACHED_TAIL:
		tail = tail_of(di->d, size);
		c->off = (tail - 1) * di->d->page_size;
		c->end = tail * di->d->page_size;
		return __atomic_compare_exchange_n(&di->tail_page, &tail, 0, false, SEQ, SEQ);
	case DIO_CACHED_HOLES:
		take_holes(di, c);
		dio_cached_forget(di, c->off, c->end);
		return true;
	case DIO_CACHED_ALL:
		dio_cached_forget(di, c->off, c->end);
		break;
	}
	return __atomic_exchange_n(&di->has_pages, false, SEQ);
}

void dio_cached_done(struct x4_inode *i, const struct dio_cached *c, bool late)
{
	struct dio_inode *di = x4_inode_upper(i);

	switch (c->what) {
	case DIO_CACHED_TAIL:
		break; /* the file has grown: that page does not hold its end any more */
	case DIO_CACHED_HOLES:
		if (late)
			note_range(di, c->off, c->end);
		__atomic_fetch_sub(&di->laundering, 1, SEQ);
		break;
	case DIO_CACHED_ALL:
		if (late)
			__atomic_store_n(&di->has_pages, true, SEQ);
		break;
	}
}

/* ---- the mask ---- */

static void mask_store(struct dio_inode *di, uint64_t from, uint64_t to)
{
	fdio_mutex_lock(&di->app_lock);
	di->mask_from = from;
	__atomic_store_n(&di->mask_to, to, SEQ);
	fdio_mutex_unlock(&di->app_lock);
}

/*
 * With another size the kernel forgets all pages; without, it keeps them, and what is noted stays.
 */
bool dio_mask_set(struct x4_inode *i, uint64_t old, uint64_t size)
{
	struct dio_inode *di = x4_inode_upper(i);
	struct dio_cached c;
	bool grows = size > old && dio_cached_take(i, DIO_CACHED_TAIL, old, &c);

	if (!di || size == old)
		return false;
	__atomic_store_n(&di->tail_page, 0, SEQ);
	mask_store(di, old, grows ? c.end : 0);
	return grows;
}

void dio_mask_undo(struct x4_inode *i, uint64_t old)
{
	struct dio_inode *di = x4_inode_upper(i);

	__atomic_store_n(&di->tail_page, tail_of(di->d, old), SEQ);
	mask_store(di, 0, 0);
}

/* Behind the old end everything reads as zeroes already: an end of the page need not be written. */
static void mask(struct dio_req *r, uint64_t from, uint64_t to)
{
	if (to == r->pos + r->len)
		r->len = (uint32_t)(from - r->pos);
	else
		memset((uint8_t *)r->buf + (from - r->pos), 0, to - from);
	fdio_count(CTR_dio_masked);
}

void dio_mask_req(struct dio_req *r)
{
	struct dio_inode *di = r->file->di;
	uint64_t page, from, to;

	if ((r->flags & (DIO_WRITE | DIO_DIRECT)) == DIO_DIRECT)
		return;
	fdio_mutex_lock(&di->app_lock);
	page = fdio_round_down(di->mask_from, dio_own(r)->dio->page_size);
	from = FDIO_MAX(r->pos, di->mask_from);
	to = FDIO_MIN(r->pos + r->len, di->mask_to);
	if (r->flags & DIO_WRITEBACK) {
		if (from < to)
			mask(r, from, to);
	} else if (r->pos < di->mask_to && r->pos + r->len > page) {
		__atomic_store_n(&di->mask_to, 0, SEQ);
	}
	fdio_mutex_unlock(&di->app_lock);
}
