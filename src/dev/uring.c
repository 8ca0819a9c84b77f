/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The product's device: asynchronous requests on the ring of the calling loop, synchronous ones by
 * system calls from the calling thread, batches through small rings of their own. Opening and its
 * checks are in open.c.
 *
 * Error rule: whatever the driver says (an NVMe medium error arrives as ENODATA, a vanished drive
 * as 0 bytes read or ENOSPC written), the rooms above see -EIO, except what the engine retries
 * (EAGAIN, EINTR). A small ring to which the kernel takes an exception is given up; system calls
 * take its place. An image file that was truncated is looked for before and after each flush, and
 * now and then (dev_lost): what is acknowledged as durable is in the whole file.
 *
 * uring_submit runs on loop threads and takes no lock; the synchronous calls run on threads that
 * may block, and take batch_lock (RANK_DEV) for a moment to get a ring.
 */
#include "dev/uring.h"

#include "base/counters.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static inline struct dev_uring *uring_of(struct dev *d) { return container_of(d, struct dev_uring, dev); }

static int translate(int err)
{
	return err == -EAGAIN || err == -EINTR || err == -ENOMEM ? err : -EIO;
}

static bool is_cut(const struct dev_uring *u) { return unlikely(__atomic_load_n(&u->cut, __ATOMIC_RELAXED)); }

static bool uring_lost(struct dev *d)
{
	struct dev_uring *u = uring_of(d);
	struct stat st;

	if (is_cut(u))
		return true;
	if (d->caps.is_block || fstat(u->fd, &st) || (uint64_t)st.st_size >= d->caps.size_bytes)
		return false;
	if (!__atomic_exchange_n(&u->cut, true, __ATOMIC_SEQ_CST))
		log_err("%s: the image was cut from %llu to %llu bytes while it is served: nothing more is written; unmount it, "
			"and restore it or run e2fsck", d->name, (unsigned long long)d->caps.size_bytes,
			(unsigned long long)st.st_size);
	return true;
}

/* ---- asynchronous ---- */

static void uring_complete(struct loop_op *op, int res, unsigned cqe_flags)
{
	struct dev_io *io = container_of(op, struct dev_io, op);

	(void)cqe_flags;
	fdio_count(CTR_dev_done);
	loop_note_io(loop_self(), -1);
	if (unlikely(res <= 0))
		res = res == 0 ? -EIO : translate(res);
	io->result = res;
	io->done(io); /* io may be gone */
}

static void prep_rw(struct io_uring_sqe *sqe, const struct dev_io *io)
{
	if (io->kind == DEV_READ) {
		if (io->buf_index >= 0)
			io_uring_prep_read_fixed(sqe, LOOP_FILE_DEV, io->buf, io->len, io->off, io->buf_index);
		else
			io_uring_prep_read(sqe, LOOP_FILE_DEV, io->buf, io->len, io->off);
	} else {
		if (io->buf_index >= 0)
			io_uring_prep_write_fixed(sqe, LOOP_FILE_DEV, io->buf, io->len, io->off, io->buf_index);
		else
			io_uring_prep_write(sqe, LOOP_FILE_DEV, io->buf, io->len, io->off);
		if (io->flags & DEV_FUA)
			sqe->rw_flags = RWF_DSYNC;
	}
	sqe->flags |= IOSQE_FIXED_FILE;
	if (io->flags & DEV_ASYNC)
		sqe->flags |= IOSQE_ASYNC;
}

static void uring_submit(struct dev *d, struct dev_io *io)
{
	struct loop *l = loop_self();

	FDIO_ASSERT(l);
	if (io->kind == DEV_WRITE && is_cut(uring_of(d))) {
		io->result = -EIO;
		io->done(io);
		return;
	}
	struct io_uring_sqe *sqe = loop_sqe(l);
	io->op.complete = uring_complete;
	io->dev = d;
	loop_note_io(l, 1);
	fdio_count(io->kind == DEV_READ ? CTR_dev_read : CTR_dev_write);
	prep_rw(sqe, io);
	io_uring_sqe_set_data(sqe, &io->op);
}

/* ---- synchronous ---- */

static int uring_read(struct dev *d, void *buf, size_t len, uint64_t off)
{
	uint8_t *p = buf;

	while (len) {
		ssize_t n = pread(uring_of(d)->fd, p, FDIO_MIN(len, (size_t)d->caps.max_io_bytes), (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? translate(-errno) : -EIO;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int write_fua(struct dev *d, const void *buf, size_t len, uint64_t off);

static int uring_write(struct dev *d, const void *buf, size_t len, uint64_t off, unsigned flags)
{
	const uint8_t *p = buf;

	if (is_cut(uring_of(d)))
		return -EIO;
	if ((flags & DEV_FUA) && d->caps.volatile_cache)
		return write_fua(d, buf, len, off);

	while (len) {
		ssize_t n = pwrite(uring_of(d)->fd, p, FDIO_MIN(len, (size_t)d->caps.max_io_bytes), (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? translate(-errno) : -EIO;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* A device that is slow to flush and a client that waits: nothing here may be interrupted. */
static int uring_flush(struct dev *d)
{
	int r;

	if (uring_lost(d))
		return -EIO;
	do
		r = fdatasync(uring_of(d)->fd);
	while (r < 0 && errno == EINTR);
	return r < 0 || uring_lost(d) ? -EIO : 0;
}

static int uring_discard(struct dev *d, uint64_t off, uint64_t len)
{
	struct dev_uring *u = uring_of(d);
	uint64_t range[2] = { off, len };
	int r;

	if (is_cut(u))
		return -EIO;
	if (d->caps.is_block)
		r = ioctl(u->fd, BLKDISCARD, range);
	else
		r = fallocate(u->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len);
	if (!r)
		return 0;
	return errno == EOPNOTSUPP ? -EOPNOTSUPP : translate(-errno); /* "has none" is no failure */
}

/* ---- batches ---- */

/*
 * One ring out of a few, made at open: batches of several threads run side by side up to that
 * number. NULL: all are broken.
 */
static struct batch_ring *ring_take(struct dev_uring *u)
{
	struct batch_ring *b = NULL;

	fdio_mutex_lock(&u->batch_lock);
	while (list_empty(&u->batch_free) && u->nr_broken < u->nr_batch)
		fdio_cond_wait(&u->batch_cond, &u->batch_lock);
	if (!list_empty(&u->batch_free)) {
		b = list_first(&u->batch_free, struct batch_ring, link);
		list_del(&b->link);
	}
	fdio_mutex_unlock(&u->batch_lock);
	return b;
}

/*
 * What a broken ring holds would be sent with the next request that uses it: nobody gets it again.
 */
static void ring_give(struct dev_uring *u, struct batch_ring *b)
{
	fdio_mutex_lock(&u->batch_lock);
	if (b->broken)
		u->nr_broken++;
	else
		list_add(&u->batch_free, &b->link);
	pthread_cond_broadcast(&u->batch_cond);
	fdio_mutex_unlock(&u->batch_lock);
}

/*
 * Submits the n requests that were prepared, and waits for so many. Returns how many were
 * submitted, for which completions come: fewer than n after an error that trying again does not
 * help. The others are for system calls then.
 */
static unsigned ring_submit(struct dev_uring *u, struct batch_ring *b, unsigned n, unsigned wait)
{
	unsigned done = 0;

	while (done < n) {
		int r = io_uring_submit_and_wait(&b->ring, wait);

		if (r > 0) {
			done += (unsigned)r;
		} else if (r != -EINTR && r != -EAGAIN && r != -EBUSY) {
			log_err("%s: a ring for writing is given up: %s", u->dev.name,
				strerror(-r));
			b->broken = true;
			break;
		}
	}
	return done;
}

static int ring_wait(struct batch_ring *b, void **ret_data)
{
	struct io_uring_cqe *cqe;
	int r, res;

	do
		r = io_uring_wait_cqe(&b->ring, &cqe);
	while (r == -EINTR);
	/* The kernel still has the buffers, so the caller cannot be told an error. */
	FDIO_MUST(r == 0);
	*ret_data = io_uring_cqe_get_data(cqe);
	res = cqe->res;
	io_uring_cqe_seen(&b->ring, cqe);
	return res;
}

/* -EAGAIN: not by a ring. */
static int ring_write_fua(struct dev_uring *u, const void *buf, size_t len, uint64_t off)
{
	struct batch_ring *b = ring_take(u);
	int res = -EAGAIN;
	void *data;

	if (!b)
		return res;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&b->ring);

	io_uring_prep_write(sqe, u->fd, buf, (unsigned)len, off);
	io_uring_sqe_set_data(sqe, NULL);
	sqe->rw_flags = RWF_DSYNC;
	if (ring_submit(u, b, 1, 1))
		res = ring_wait(b, &data);
	ring_give(u, b);
	return res;
}

/*
 * A write with FUA: by a system call it would be followed by a flush of the whole device, by the ring it is not. What the ring
 * does not do in one piece (rare), and what goes to a device that ignores FUA, is written and flushed.
 */
static int write_fua(struct dev *d, const void *buf, size_t len, uint64_t off)
{
	int r, res = -EAGAIN;

	if (len <= d->caps.max_io_bytes && !d->caps.fua_ignored)
		res = ring_write_fua(uring_of(d), buf, len, off);
	if (res == (int)len)
		return uring_lost(d) ? -EIO : 0;
	if (res < 0 && res != -EAGAIN && res != -EINTR)
		return translate(res);
	r = uring_write(d, buf, len, off, 0);
	return r ? r : uring_flush(d);
}

/* What the ring did not do in full is done by system calls, which also gives the final verdict. */
static void finish_piece(struct dev *d, struct dev_vec *v, int res)
{
	if (res == (int)v->len) {
		v->result = 0;
		return;
	}
	if (res > 0 || res == -EAGAIN || res == -EINTR) {
		uint32_t done = res > 0 ? (uint32_t)res & ~(d->caps.lbs - 1) : 0;
		v->result = uring_write(d, (uint8_t *)v->buf + done, v->len - done, v->off + done, 0);
		return;
	}
	v->result = res == 0 ? -EIO : translate(res);
}

/* At most BATCH_DEPTH of v; what the ring does not take is left to system calls. */
static void write_batch(struct dev *d, struct batch_ring *b, struct dev_vec *v, unsigned n)
{
	unsigned sent = 0;

	for (unsigned i = 0; i < n && b; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&b->ring);

		io_uring_prep_write(sqe, uring_of(d)->fd, v[i].buf, v[i].len, v[i].off);
		io_uring_sqe_set_data(sqe, &v[i]);
	}
	if (b)
		sent = ring_submit(uring_of(d), b, n, 0);
	for (unsigned i = 0; i < sent; i++) {
		void *piece;
		int res = ring_wait(b, &piece);

		finish_piece(d, piece, res);
	}
	for (unsigned i = sent; i < n; i++) /* submitted in this order */
		finish_piece(d, &v[i], -EAGAIN);
}

static int uring_write_many(struct dev *d, struct dev_vec *v, unsigned n)
{
	struct dev_uring *u = uring_of(d);
	int err = 0;

	if (is_cut(u))
		return -EIO;
	if (n == 1) {
		v->result = uring_write(d, v->buf, v->len, v->off, 0);
		return v->result;
	}
	struct batch_ring *b = ring_take(u);
	for (unsigned i = 0; i < n; i += BATCH_DEPTH)
		write_batch(d, b && !b->broken ? b : NULL, v + i, FDIO_MIN(n - i, BATCH_DEPTH));
	if (b)
		ring_give(u, b);
	for (unsigned i = 0; i < n && !err; i++)
		err = v[i].result;
	return err;
}

static void rings_free(struct dev_uring *u)
{
	for (unsigned i = 0; i < u->nr_batch; i++)
		io_uring_queue_exit(&u->batch[i].ring);
}

/*
 * Writing is all that a batch ring does. It registers no file: that would keep the device in use until the kernel has ended
 * the ring.
 */
static int batch_ring_new(struct io_uring *r)
{
	static const uint8_t write_only[] = { IORING_OP_WRITE };
	static const struct loop_limits limits = { .ops = write_only, .nr_ops = ARRAY_SIZE(write_only) };
	int err = io_uring_queue_init(BATCH_DEPTH, r, IORING_SETUP_R_DISABLED);

	if (err)
		return err;
	err = loop_ring_enable(r, &limits);
	if (err)
		io_uring_queue_exit(r);
	return err;
}

int dev_uring_rings_new(struct dev_uring *u)
{
	fdio_mutex_init(&u->batch_lock, RANK_DEV);
	fdio_cond_init(&u->batch_cond);
	list_init(&u->batch_free);
	for (; u->nr_batch < BATCH_RINGS; u->nr_batch++) {
		int err = batch_ring_new(&u->batch[u->nr_batch].ring);
		if (err && u->nr_batch == 0)
			return err;
		if (err)
			break; /* fewer batches at a time */
		list_add_tail(&u->batch_free, &u->batch[u->nr_batch].link);
	}
	return 0;
}

static void uring_close(struct dev *d)
{
	struct dev_uring *u = uring_of(d);

	rings_free(u);
	pthread_cond_destroy(&u->batch_cond);
	fdio_mutex_fini(&u->batch_lock);
	if (u->fd >= 0)
		close(u->fd);
	if (u->claim_fd >= 0)
		close(u->claim_fd);
	dev_fini(d);
	free(u);
}

int dev_uring_attach(struct dev *d, struct loop_set *set)
{
	int err = 0;

	for (unsigned i = 0; i < loop_set_count(set) && !err; i++)
		err = loop_register_file(loop_set_get(set, i), LOOP_FILE_DEV, uring_of(d)->fd);
	return err;
}

int dev_uring_fd(struct dev *d) { return uring_of(d)->fd; }

const struct dev_ops dev_uring_ops = {
	.name = "io_uring",
	.submit = uring_submit,
	.read = uring_read,
	.write = uring_write,
	.write_many = uring_write_many,
	.flush = uring_flush,
	.discard = uring_discard,
	.lost = uring_lost,
	.close = uring_close,
};
