/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Appends into the append window of a file (append.c says when). A write goes to the device from
 * the loop thread like an overwrite. The size is published, and the request answered, in the order
 * of the file: one that completes early waits for those in front of it.
 *
 * An append that fails leaves a gap: those behind it in flight cannot be published any more. They
 * take the slow path, from their beginning, once they have completed, and until they are gone no
 * new append starts here.
 *
 * Windows are opened by the slow path, for a file that was appended to several times in a row, each
 * twice as large as the one before (dio_append_refill).
 *
 * dio_append_start runs where a request is submitted and dio_append_done where its last piece
 * completes: loop threads. dio_append_stop_later: any thread. The rest runs on workers. app_lock is
 * held for a few instructions; publishing happens under it, answering does not. Nothing here fails:
 * without a window appends are slower, that is all.
 */
#include "dio/types.h"

#define WINDOW_MAX (64u << 20)
#define WINDOW_MIN (64u << 10)
/* A window holds so many requests like the one that asked for it. */
#define WINDOW_REQUESTS 16u
/* So many appends in a row make a stream; of large requests one does. */
#define STREAM_REQUESTS 2u
#define STREAM_BYTES (256u << 10)

/* ---- on loop threads ---- */

bool dio_append_start(struct dio_req *r)
{
	struct dio_own *o = dio_own(r);
	struct dio_inode *di = r->file->di;
	struct x4_inode *i = r->file->inode;
	uint64_t end = r->pos + r->len, window = x4_window_end(i);
	bool ok;

	if (!window || ((r->pos | r->len) & (o->dio->block_size - 1)))
		return false;
	fdio_mutex_lock(&di->app_lock);
	ok = !di->app_broken && end <= window &&
	     r->pos == (list_empty(&di->app_reqs) ? x4_inode_size(i) : di->app_end);
	if (ok) {
		list_add_tail(&di->app_reqs, &o->app_link);
		di->app_end = end;
		o->stage = DIO_AT_APPEND;
	}
	fdio_mutex_unlock(&di->app_lock);
	if (ok)
		fdio_count(CTR_dio_append);
	return ok;
}

/* Takes those off the front that are through; the size follows. app_lock held. */
static void take_through(struct dio_inode *di, struct list *done)
{
	while (!list_empty(&di->app_reqs)) {
		struct dio_own *o = list_first(&di->app_reqs, struct dio_own, app_link);
		struct dio_req *r = dio_req_of(o);

		if (o->stage != DIO_AT_APPEND_THROUGH)
			return;
		list_move_tail(done, &o->app_link);
		o->stage = DIO_AT_DIRECT;
		if (o->error || o->direct_len < o->want)
			di->app_broken = true;
		if (!di->app_broken)
			x4_window_publish(r->file->inode, r->pos + r->len);
		else if (!o->error)
			/* the slow path writes all of it, where it then belongs */
			o->direct_len = 0;
	}
	di->app_broken = false;
}

void dio_append_done(struct dio_req *r, struct list *done)
{
	struct dio_inode *di = r->file->di;

	list_init(done);
	fdio_mutex_lock(&di->app_lock);
	dio_own(r)->stage = DIO_AT_APPEND_THROUGH;
	take_through(di, done);
	fdio_mutex_unlock(&di->app_lock);
}

/* ---- streams: appends of whole blocks in a row, which a window serves best ---- */

bool dio_append_is_stream(const struct dio_inode *di)
{
	return di->app_streak + 1 >= STREAM_REQUESTS;
}

void dio_append_count(struct dio_inode *di, bool whole)
{
	di->app_streak = whole ? di->app_streak + 1 : 0;
}

/* ---- on workers ---- */

bool dio_append_fits(const struct dio_slow *s)
{
	return s->pos == s->size && !((s->pos | s->end) & (s->d->block_size - 1)) &&
	       s->end <= x4_window_end(s->i);
}

void dio_append_refill(struct dio_slow *s)
{
	struct dio_inode *di = s->di;
	uint32_t len = s->r->len;
	bool whole = s->pos == s->size && !(s->end & (s->d->block_size - 1));
	uint64_t bytes;

	dio_append_count(di, whole);
	if (!whole || (di->app_streak < STREAM_REQUESTS && len < STREAM_BYTES))
		return;
	bytes = FDIO_MAX((uint64_t)len * WINDOW_REQUESTS, (uint64_t)WINDOW_MIN);
	bytes = FDIO_MAX((uint64_t)di->app_window * 2, bytes);
	di->app_window = FDIO_MIN(bytes, (uint64_t)WINDOW_MAX);
	(void)x4_window_open(s->i, di->app_window, s->r->flags & DIO_ROOT); /* best effort */
}

static void stop(struct dio_inode *di, struct x4_inode *i)
{
	dio_gate_shut(di, DIO_GATE_WRITES);
	x4_inode_lock_excl(i);
	(void)x4_window_close(i, dio_gate_drain, di); /* logged */
	x4_inode_unlock(i);
	dio_gate_unshut(di, DIO_GATE_WRITES);
}

void dio_append_stop(struct dio_inode *di, struct x4_inode *i)
{
	if (x4_window_end(i))
		stop(di, i);
}

static void stop_work(struct work *w)
{
	struct dio_inode *di = container_of(w, struct dio_inode, stop_work);
	/* From here on it can be queued again. */
	struct x4_inode *i = __atomic_exchange_n(&di->stop_inode, NULL, __ATOMIC_SEQ_CST);

	dio_append_stop(di, i);
	x4_iput(i);
}

void dio_append_stop_later(struct dio_inode *di, struct x4_inode *i)
{
	struct x4_inode *none = NULL;

	if (!x4_window_end(i))
		return;
	x4_iref(i);
	if (__atomic_compare_exchange_n(&di->stop_inode, &none, i, false, __ATOMIC_SEQ_CST,
					__ATOMIC_SEQ_CST))
		wq_queue(di->d->cfg.workers, &di->stop_work, stop_work);
	else
		x4_iput(i); /* the caller has one, too */
}

bool dio_reclaim(void *arg)
{
	struct dio *d = arg;
	unsigned n = x4_windows_count(d->cfg.vol);
	bool any = false;

	while (n--) {
		struct x4_inode *i = x4_windows_next(d->cfg.vol);

		if (!i)
			break;
		struct dio_inode *di = x4_inode_upper(i);
		if (di) {
			any = true;
			dio_append_stop(di, i);
		}
		x4_iput(i);
	}
	return any;
}
