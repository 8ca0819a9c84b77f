/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the kernel's page cache may hold without the daemon's knowledge: stores through shared
 * mappings. The kernel reports neither mappings nor stores. But only a file open for reading and
 * writing can be stored to, and a mapped page was read through the page cache first, or written as
 * a whole (then it lies neither over a hole nor at the end). So requests from the page cache leave
 * notes here, on loop threads, without a lock. Operations that would answer wrongly because of such
 * a store take a note, and have the kernel write the pages back and forget them
 * (dio_config.launder, or src/ops).
 *
 * - The page that holds the end of the file (DIO_CACHED_TAIL): bytes stored behind the end are no
 *   part of the file, but kernels before 7.3 make them one when the file grows over them. Kernels
 *   write back no further than their own end of the file, so the page is forgotten after the growth
 *   and before its answer. Truncate cannot do that, because the kernel holds back writes to the
 *   file while it waits for truncate; it writes back and forgets all pages right after the answer.
 *   So bytes behind the old end are masked then: zeroed in pages written back, until a request
 *   reads or writes the page anew, which means that the kernel has forgotten it.
 * - Pages over holes (DIO_CACHED_HOLES): SEEK_DATA and the count of blocks do not know them.
 * - Any page (DIO_CACHED_ALL): written back later, it would change the time that utime has set.
 *
 * A note is taken when the kernel begins to forget the pages: a read that comes then leaves a new
 * note. It is put back if the pages were not forgotten in time. Nothing here blocks or fails;
 * append_lock guards the mask.
 */
#include "dio/types.h"

#include <string.h>

#define SEQ __ATOMIC_SEQ_CST

static bool has_mappings(const struct dio_inode *dinode)
{
	return __atomic_load_n(&dinode->nr_mappers, __ATOMIC_ACQUIRE);
}

/* ---- notes ---- */

/* 1 + number of the page inside which a file of size bytes ends; 0 if it ends between pages. */
static uint64_t tail_of(const struct dio *dio, uint64_t size)
{
	return size & (dio->page_size - 1) ? size / dio->page_size + 1 : 0;
}

/* Widens the range in which holes were read. */
static void note_range(struct dio_inode *dinode, uint64_t lo, uint64_t hi)
{
	uint64_t was = __atomic_load_n(&dinode->hole_lo, SEQ);

	while (lo < was &&
	       !__atomic_compare_exchange_n(&dinode->hole_lo, &was, lo, false, SEQ, SEQ))
		;
	was = __atomic_load_n(&dinode->hole_hi, SEQ);
	while (hi > was &&
	       !__atomic_compare_exchange_n(&dinode->hole_hi, &was, hi, false, SEQ, SEQ))
		;
}

static bool reads_hole(struct dio_req *req, uint64_t end)
{
	struct dio_piece piece;

	for (uint64_t pos = req->pos; pos < end; pos += piece.len) {
		int err = dio_piece_at(dio_own(req)->dio, req->file->inode, pos,
				       (uint32_t)(end - pos), &piece);

		if (err || piece.state != EXT4_EXTENT_WRITTEN)
			return true;
	}
	return false;
}

/* Stores a field only if its value changes: every CPU that reads the file reads this cache line. */
void dio_cached_note(struct dio_req *req)
{
	struct dio_inode *dinode = req->file->dinode;
	uint64_t size = ext4_inode_size(req->file->inode),
		 end = FDIO_MIN(req->pos + req->len, size);
	uint64_t tail = tail_of(dio_own(req)->dio, size);

	if (!(req->flags & DIO_WRITEBACK) && !__atomic_load_n(&dinode->has_pages, SEQ))
		__atomic_store_n(&dinode->has_pages, true, SEQ);
	if ((req->flags & DIO_WRITE) || req->pos >= size)
		return;
	if (tail && end > (tail - 1) * dio_own(req)->dio->page_size &&
	    __atomic_load_n(&dinode->tail_page, SEQ) != tail)
		__atomic_store_n(&dinode->tail_page, tail, SEQ);
	if (reads_hole(req, end))
		note_range(dinode, req->pos, end);
}

static bool has_holes(struct dio_inode *dinode)
{
	return __atomic_load_n(&dinode->hole_lo, SEQ) != UINT64_MAX ||
	       __atomic_load_n(&dinode->hole_hi, SEQ) || __atomic_load_n(&dinode->laundering, SEQ);
}

bool dio_cached_maybe(struct ext4_inode *inode, enum dio_cached_what what, uint64_t size)
{
	struct dio_inode *dinode = ext4_inode_upper(inode);

	if (!dinode || !has_mappings(dinode))
		return false;
	if (what == DIO_CACHED_TAIL) {
		uint64_t tail = tail_of(dinode->dio, size);

		return tail && __atomic_load_n(&dinode->tail_page, SEQ) == tail;
	}
	return what == DIO_CACHED_HOLES ? has_holes(dinode)
					: __atomic_load_n(&dinode->has_pages, SEQ);
}

uint64_t dio_cached_forget(struct dio_inode *dinode, uint64_t off, uint64_t end)
{
	uint64_t tail = __atomic_load_n(&dinode->tail_page, SEQ), page = dinode->dio->page_size;

	if (tail && off < tail * page && end > (tail - 1) * page &&
	    __atomic_compare_exchange_n(&dinode->tail_page, &tail, 0, false, SEQ, SEQ))
		return tail;
	return 0;
}

/* Puts back what dio_cached_forget has returned, unless there is a new note. */
static void restore_tail(struct dio_inode *dinode, uint64_t tail)
{
	uint64_t none = 0;

	if (tail)
		__atomic_compare_exchange_n(&dinode->tail_page, &none, tail, false, SEQ, SEQ);
}

/* If another caller has taken the range and is not done, takes all pages. */
static void take_holes(struct dio_inode *dinode, struct dio_cached *cached)
{
	__atomic_fetch_add(&dinode->laundering, 1, SEQ);
	uint64_t lo = __atomic_exchange_n(&dinode->hole_lo, UINT64_MAX, SEQ);
	uint64_t hi = __atomic_exchange_n(&dinode->hole_hi, 0, SEQ);

	cached->off = lo < hi ? fdio_round_down(lo, dinode->dio->page_size) : 0;
	cached->end = lo < hi ? fdio_round_up(hi, dinode->dio->page_size) : INT64_MAX;
}

bool dio_cached_take(struct ext4_inode *inode, enum dio_cached_what what, uint64_t size,
		     struct dio_cached *cached)
{
	struct dio_inode *dinode = ext4_inode_upper(inode);
	uint64_t tail;

	if (!dio_cached_maybe(inode, what, size))
		return false;
	*cached = (struct dio_cached){ .what = what, .end = INT64_MAX };
	switch (what) {
	case DIO_CACHED_TAIL:
		tail = tail_of(dinode->dio, size);
		cached->off = (tail - 1) * dinode->dio->page_size;
		cached->end = tail * dinode->dio->page_size;
		return __atomic_compare_exchange_n(&dinode->tail_page, &tail, 0, false, SEQ, SEQ);
	case DIO_CACHED_HOLES:
		take_holes(dinode, cached);
		cached->tail = dio_cached_forget(dinode, cached->off, cached->end);
		return true;
	case DIO_CACHED_ALL:
		cached->tail = dio_cached_forget(dinode, cached->off, cached->end);
		break;
	}
	return __atomic_exchange_n(&dinode->has_pages, false, SEQ);
}

void dio_cached_done(struct ext4_inode *inode, const struct dio_cached *cached, bool late)
{
	struct dio_inode *dinode = ext4_inode_upper(inode);

	if (late)
		restore_tail(dinode, cached->tail);
	switch (cached->what) {
	case DIO_CACHED_TAIL:
		break; /* no note to put back: the page does not hold the end any more */
	case DIO_CACHED_HOLES:
		if (late)
			note_range(dinode, cached->off, cached->end);
		__atomic_fetch_sub(&dinode->laundering, 1, SEQ);
		break;
	case DIO_CACHED_ALL:
		if (late)
			__atomic_store_n(&dinode->has_pages, true, SEQ);
		break;
	}
}

/* ---- the mask ---- */

static void mask_store(struct dio_inode *dinode, uint64_t from, uint64_t to)
{
	fdio_mutex_lock(&dinode->append_lock);
	dinode->mask_from = from;
	__atomic_store_n(&dinode->mask_to, to, SEQ);
	fdio_mutex_unlock(&dinode->append_lock);
}

/*
 * After a truncate to another size the kernel forgets all pages. If the size stays, the kernel
 * keeps its pages, so the notes are kept too.
 */
bool dio_mask_set(struct ext4_inode *inode, uint64_t old, uint64_t size)
{
	struct dio_inode *dinode = ext4_inode_upper(inode);
	struct dio_cached cached;
	bool grows = size > old && dio_cached_take(inode, DIO_CACHED_TAIL, old, &cached);

	if (!dinode || size == old)
		return false;
	__atomic_store_n(&dinode->tail_page, 0, SEQ);
	mask_store(dinode, old, grows ? cached.end : 0);
	return grows;
}

void dio_mask_undo(struct ext4_inode *inode, uint64_t old)
{
	struct dio_inode *dinode = ext4_inode_upper(inode);

	__atomic_store_n(&dinode->tail_page, tail_of(dinode->dio, old), SEQ);
	mask_store(dinode, 0, 0);
}

/*
 * Masks bytes [from, to) of pages written back. Behind the old end the file reads as zeroes
 * already, so a masked end of the request is cut off instead.
 */
static void mask(struct dio_req *req, uint64_t from, uint64_t to)
{
	if (to == req->pos + req->len)
		req->len = (uint32_t)(from - req->pos);
	else
		memset((uint8_t *)req->buf + (from - req->pos), 0, to - from);
	fdio_count(COUNTER_dio_masked);
}

void dio_mask_req(struct dio_req *req)
{
	struct dio_inode *dinode = req->file->dinode;
	uint64_t page, from, to;

	if ((req->flags & (DIO_WRITE | DIO_DIRECT)) == DIO_DIRECT)
		return;
	fdio_mutex_lock(&dinode->append_lock);
	page = fdio_round_down(dinode->mask_from, dio_own(req)->dio->page_size);
	from = FDIO_MAX(req->pos, dinode->mask_from);
	to = FDIO_MIN(req->pos + req->len, dinode->mask_to);
	if (req->flags & DIO_WRITEBACK) {
		if (from < to)
			mask(req, from, to);
	} else if (req->pos < dinode->mask_to && req->pos + req->len > page) {
		__atomic_store_n(&dinode->mask_to, 0, SEQ);
	}
	fdio_mutex_unlock(&dinode->append_lock);
}
