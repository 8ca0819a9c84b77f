/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Appends into the append window of a file (append.c says when). A write goes to the device from
 * the loop thread like an overwrite. The size is published, and the request answered, in the order
 * of the file: an append that completes early waits for those before it.
 *
 * An append that fails leaves a gap, so those behind it in flight cannot be published. They take
 * the slow path from their beginning once they have completed, and until they are gone no new
 * append starts here.
 *
 * The slow path opens windows, for a file that was appended to several times in a row, each twice
 * as large as the one before (dio_append_refill).
 *
 * dio_append_start runs where a request is submitted and dio_append_done where its last piece
 * completes, on loop threads; dio_append_stop_later on any thread; the rest on workers. append_lock
 * is held for a few instructions: sizes are published under it, requests are answered after it.
 * Nothing here fails: without a window appends are slower, that is all.
 */
#include "dio/types.h"

#define WINDOW_MAX (64u << 20)
#define WINDOW_MIN (64u << 10)
/* A window has room for this many requests of the length of the one that opened it. */
#define WINDOW_REQUESTS 16u
/* A stream: STREAM_REQUESTS appends in a row, or one append of at least STREAM_BYTES. */
#define STREAM_REQUESTS 2u
#define STREAM_BYTES (256u << 10)

/* ---- on loop threads ---- */

bool dio_append_start(struct dio_req *req)
{
	struct dio_own *own = dio_own(req);
	struct dio_inode *dinode = req->file->dinode;
	struct ext4_inode *inode = req->file->inode;
	uint64_t end = req->pos + req->len, window = ext4_window_end(inode);
	uint64_t expected;
	bool ok;

	if (!window || ((req->pos | req->len) & (own->dio->block_size - 1)))
		return false;
	fdio_mutex_lock(&dinode->append_lock);
	expected = list_empty(&dinode->appends) ? ext4_inode_size(inode) : dinode->append_end;
	ok = !dinode->append_broken && end <= window && req->pos == expected;
	if (ok) {
		list_add_tail(&dinode->appends, &own->append_link);
		dinode->append_end = end;
		own->stage = DIO_AT_APPEND;
	}
	fdio_mutex_unlock(&dinode->append_lock);
	if (ok)
		fdio_count(COUNTER_dio_append);
	return ok;
}

/*
 * Moves to done the appends at the front of the list that have completed, and publishes the size.
 * append_lock held.
 */
static void take_through(struct dio_inode *dinode, struct list *done)
{
	while (!list_empty(&dinode->appends)) {
		struct dio_own *own = list_first(&dinode->appends, struct dio_own, append_link);
		struct dio_req *req = dio_req_of(own);

		if (own->stage != DIO_AT_APPEND_THROUGH)
			return;
		list_move_tail(done, &own->append_link);
		own->stage = DIO_AT_DIRECT;
		if (own->error || own->direct_len < own->want)
			dinode->append_broken = true;
		if (!dinode->append_broken)
			ext4_window_publish(req->file->inode, req->pos + req->len);
		else if (!own->error)
			/* The slow path writes all of it. */
			own->direct_len = 0;
	}
	dinode->append_broken = false;
}

void dio_append_done(struct dio_req *req, struct list *done)
{
	struct dio_inode *dinode = req->file->dinode;

	list_init(done);
	fdio_mutex_lock(&dinode->append_lock);
	dio_own(req)->stage = DIO_AT_APPEND_THROUGH;
	take_through(dinode, done);
	fdio_mutex_unlock(&dinode->append_lock);
}

/* ---- streams: appends of whole blocks in a row ---- */

bool dio_append_is_stream(const struct dio_inode *dinode)
{
	return dinode->append_streak + 1 >= STREAM_REQUESTS;
}

void dio_append_count(struct dio_inode *dinode, bool whole)
{
	dinode->append_streak = whole ? dinode->append_streak + 1 : 0;
}

/* ---- on workers ---- */

bool dio_append_fits(const struct dio_slow *slow)
{
	return slow->pos == slow->size &&
	       !((slow->pos | slow->end) & (slow->dio->block_size - 1)) &&
	       slow->end <= ext4_window_end(slow->inode);
}

void dio_append_refill(struct dio_slow *slow)
{
	struct dio_inode *dinode = slow->dinode;
	uint32_t len = slow->req->len;
	bool whole = slow->pos == slow->size && !(slow->end & (slow->dio->block_size - 1));
	uint64_t bytes;

	dio_append_count(dinode, whole);
	if (!whole || (dinode->append_streak < STREAM_REQUESTS && len < STREAM_BYTES))
		return;
	bytes = FDIO_MAX((uint64_t)len * WINDOW_REQUESTS, (uint64_t)WINDOW_MIN);
	bytes = FDIO_MAX((uint64_t)dinode->window_bytes * 2, bytes);
	dinode->window_bytes = FDIO_MIN(bytes, (uint64_t)WINDOW_MAX);
	/* A failure only means that the next append is slow, too. */
	(void)ext4_window_open(slow->inode, dinode->window_bytes, slow->req->flags & DIO_ROOT);
}

static void stop(struct dio_inode *dinode, struct ext4_inode *inode)
{
	dio_gate_close_attached(dinode, DIO_GATE_WRITES);
	ext4_inode_lock_exclusive(inode);
	(void)ext4_window_close(inode, dio_gate_drain, dinode); /* logs */
	ext4_inode_unlock(inode);
	dio_gate_open_attached(dinode, DIO_GATE_WRITES);
}

void dio_append_stop(struct dio_inode *dinode, struct ext4_inode *inode)
{
	if (ext4_window_end(inode))
		stop(dinode, inode);
}

static void stop_work(struct work *work)
{
	struct dio_inode *dinode = container_of(work, struct dio_inode, stop_work);
	/* From here on stop_work can be queued again. */
	struct ext4_inode *inode = __atomic_exchange_n(&dinode->stop_inode, NULL, __ATOMIC_SEQ_CST);

	dio_append_stop(dinode, inode);
	ext4_inode_put(inode);
}

void dio_append_stop_later(struct dio_inode *dinode, struct ext4_inode *inode)
{
	struct ext4_inode *none = NULL;

	if (!ext4_window_end(inode))
		return;
	ext4_inode_ref(inode);
	if (__atomic_compare_exchange_n(&dinode->stop_inode, &none, inode, false, __ATOMIC_SEQ_CST,
					__ATOMIC_SEQ_CST))
		work_queue_add(dinode->dio->config.workers, &dinode->stop_work, stop_work);
	else
		ext4_inode_put(inode); /* not the last reference: the caller has one */
}

bool dio_reclaim(void *arg)
{
	struct dio *dio = arg;
	unsigned n = ext4_windows_count(dio->config.vol);
	bool any = false;

	while (n--) {
		struct ext4_inode *inode = ext4_windows_next(dio->config.vol);

		if (!inode)
			break;
		struct dio_inode *dinode = ext4_inode_upper(inode);
		if (dinode) {
			any = true;
			dio_append_stop(dinode, inode);
		}
		ext4_inode_put(inode);
	}
	return any;
}
