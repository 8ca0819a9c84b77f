/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The product's device: asynchronous requests on the ring of the calling loop, synchronous ones by
 * system calls of the calling thread, batches through small rings of their own. open.c opens it.
 *
 * Errors: whatever the driver says (an NVMe medium error arrives as ENODATA, a vanished drive as 0
 * bytes read or ENOSPC written), the rooms above see -EIO, except errors that may pass (EAGAIN,
 * EINTR, ENOMEM). A small ring on which the kernel fails to submit is given up; system calls take
 * its place. An image file is checked for having been truncated before and after each flush, and by
 * dev_lost: data is acknowledged as durable only while the whole file is there.
 *
 * uring_submit and uring_complete run on loop threads and take no lock. The synchronous calls run
 * on threads that may block, and take batch_lock (RANK_DEV) for a moment to get a ring.
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

static inline struct dev_uring *uring_of(struct dev *dev)
{
	return container_of(dev, struct dev_uring, dev);
}

static int translate(int err)
{
	return err == -EAGAIN || err == -EINTR || err == -ENOMEM ? err : -EIO;
}

static bool is_cut(const struct dev_uring *uring)
{
	return unlikely(__atomic_load_n(&uring->cut, __ATOMIC_RELAXED));
}

static bool uring_lost(struct dev *dev)
{
	struct dev_uring *uring = uring_of(dev);
	struct stat st;

	if (is_cut(uring))
		return true;
	if (dev->caps.is_block || fstat(uring->fd, &st) ||
	    (uint64_t)st.st_size >= dev->caps.size_bytes)
		return false;
	if (!__atomic_exchange_n(&uring->cut, true, __ATOMIC_SEQ_CST))
		log_err("%s: the image was cut from %llu to %llu bytes while it is served: nothing "
			"more is written; unmount it, and restore it or run e2fsck",
			dev->name, (unsigned long long)dev->caps.size_bytes,
			(unsigned long long)st.st_size);
	return true;
}

/* ---- asynchronous ---- */

static void uring_complete(struct loop_op *op, int res, unsigned cqe_flags)
{
	struct dev_io *io = container_of(op, struct dev_io, op);

	(void)cqe_flags;
	fdio_count(COUNTER_dev_done);
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
			io_uring_prep_read_fixed(sqe, LOOP_FILE_DEV, io->buf, io->len, io->off,
						 io->buf_index);
		else
			io_uring_prep_read(sqe, LOOP_FILE_DEV, io->buf, io->len, io->off);
	} else {
		if (io->buf_index >= 0)
			io_uring_prep_write_fixed(sqe, LOOP_FILE_DEV, io->buf, io->len, io->off,
						  io->buf_index);
		else
			io_uring_prep_write(sqe, LOOP_FILE_DEV, io->buf, io->len, io->off);
		if (io->flags & DEV_FUA)
			sqe->rw_flags = RWF_DSYNC;
	}
	sqe->flags |= IOSQE_FIXED_FILE;
	if (io->flags & DEV_ASYNC)
		sqe->flags |= IOSQE_ASYNC;
}

static void uring_submit(struct dev *dev, struct dev_io *io)
{
	struct loop *loop = loop_self();

	FDIO_ASSERT(loop);
	if (io->kind == DEV_WRITE && is_cut(uring_of(dev))) {
		io->result = -EIO;
		io->done(io);
		return;
	}
	struct io_uring_sqe *sqe = loop_sqe(loop);
	io->op.complete = uring_complete;
	io->dev = dev;
	loop_note_io(loop, 1);
	fdio_count(io->kind == DEV_READ ? COUNTER_dev_read : COUNTER_dev_write);
	prep_rw(sqe, io);
	io_uring_sqe_set_data(sqe, &io->op);
}

/* ---- synchronous ---- */

static int uring_read(struct dev *dev, void *buf, size_t len, uint64_t off)
{
	uint8_t *p = buf;

	while (len) {
		ssize_t n = pread(uring_of(dev)->fd, p,
				  FDIO_MIN(len, (size_t)dev->caps.max_io_bytes), (off_t)off);

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

static int write_fua(struct dev *dev, const void *buf, size_t len, uint64_t off);

static int uring_write(struct dev *dev, const void *buf, size_t len, uint64_t off, unsigned flags)
{
	const uint8_t *p = buf;

	if (is_cut(uring_of(dev)))
		return -EIO;
	if ((flags & DEV_FUA) && dev->caps.volatile_cache)
		return write_fua(dev, buf, len, off);

	while (len) {
		ssize_t n = pwrite(uring_of(dev)->fd, p,
				   FDIO_MIN(len, (size_t)dev->caps.max_io_bytes), (off_t)off);

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

/* Repeats fdatasync after EINTR, because callers need a flush that was completed. */
static int uring_flush(struct dev *dev)
{
	int err;

	if (uring_lost(dev))
		return -EIO;
	do
		err = fdatasync(uring_of(dev)->fd);
	while (err < 0 && errno == EINTR);
	return err < 0 || uring_lost(dev) ? -EIO : 0;
}

static int uring_discard(struct dev *dev, uint64_t off, uint64_t len)
{
	struct dev_uring *uring = uring_of(dev);
	uint64_t range[2] = { off, len };
	int err;

	if (is_cut(uring))
		return -EIO;
	if (dev->caps.is_block)
		err = ioctl(uring->fd, BLKDISCARD, range);
	else
		err = fallocate(uring->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off,
				(off_t)len);
	if (!err)
		return 0;
	return errno == EOPNOTSUPP ? -EOPNOTSUPP : translate(-errno); /* there is no discard */
}

/* ---- batches ---- */

/*
 * Takes one of the BATCH_RINGS rings made at open, so that batches of so many threads run side by
 * side; waits for one. NULL: all are broken.
 */
static struct batch_ring *ring_take(struct dev_uring *uring)
{
	struct batch_ring *ring = NULL;

	fdio_mutex_lock(&uring->batch_lock);
	while (list_empty(&uring->batch_free) && uring->nr_broken < uring->nr_batch)
		fdio_cond_wait(&uring->batch_cond, &uring->batch_lock);
	if (!list_empty(&uring->batch_free)) {
		ring = list_first(&uring->batch_free, struct batch_ring, link);
		list_del(&ring->link);
	}
	fdio_mutex_unlock(&uring->batch_lock);
	return ring;
}

/*
 * Gives a ring back. A broken ring is not used again: the requests left in it would be submitted
 * with the next ones.
 */
static void ring_give(struct dev_uring *uring, struct batch_ring *ring)
{
	fdio_mutex_lock(&uring->batch_lock);
	if (ring->broken)
		uring->nr_broken++;
	else
		list_add(&uring->batch_free, &ring->link);
	pthread_cond_broadcast(&uring->batch_cond);
	fdio_mutex_unlock(&uring->batch_lock);
}

/*
 * Submits the n prepared requests, and waits for `wait` completions. Returns how many were
 * submitted and will complete. If the ring broke, that is fewer than n: the caller does the others
 * by system calls.
 */
static unsigned ring_submit(struct dev_uring *uring, struct batch_ring *ring, unsigned n,
			    unsigned wait)
{
	unsigned done = 0;

	while (done < n) {
		int err = io_uring_submit_and_wait(&ring->ring, wait);

		if (err > 0) {
			done += (unsigned)err;
		} else if (err != -EINTR && err != -EAGAIN && err != -EBUSY) {
			log_err("%s: a ring for writing is given up: %s", uring->dev.name,
				strerror(-err));
			ring->broken = true;
			break;
		}
	}
	return done;
}

/* The result of one completion; *ret_data: what its request was given as data. */
static int ring_wait(struct batch_ring *ring, void **ret_data)
{
	struct io_uring_cqe *cqe;
	int err, res;

	do
		err = io_uring_wait_cqe(&ring->ring, &cqe);
	while (err == -EINTR);
	/* An error cannot be returned: the kernel still uses the buffers. */
	FDIO_MUST(err == 0);
	*ret_data = io_uring_cqe_get_data(cqe);
	res = cqe->res;
	io_uring_cqe_seen(&ring->ring, cqe);
	return res;
}

/* The result of the write, or -EAGAIN: no ring took it. */
static int ring_write_fua(struct dev_uring *uring, const void *buf, size_t len, uint64_t off)
{
	struct batch_ring *ring = ring_take(uring);
	int res = -EAGAIN;
	void *data;

	if (!ring)
		return res;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->ring);

	io_uring_prep_write(sqe, uring->fd, buf, (unsigned)len, off);
	io_uring_sqe_set_data(sqe, NULL);
	sqe->rw_flags = RWF_DSYNC;
	if (ring_submit(uring, ring, 1, 1))
		res = ring_wait(ring, &data);
	ring_give(uring, ring);
	return res;
}

/*
 * A write with FUA, through a ring: after a system call the kernel would flush the whole device.
 * Where the ring does not write it in one piece (rare), or the device ignores FUA, it is written
 * and flushed.
 */
static int write_fua(struct dev *dev, const void *buf, size_t len, uint64_t off)
{
	int err, res = -EAGAIN;

	if (len <= dev->caps.max_io_bytes && !dev->caps.fua_ignored)
		res = ring_write_fua(uring_of(dev), buf, len, off);
	if (res == (int)len)
		return uring_lost(dev) ? -EIO : 0;
	if (res < 0 && res != -EAGAIN && res != -EINTR)
		return translate(res);
	err = uring_write(dev, buf, len, off, 0);
	return err ? err : uring_flush(dev);
}

/* Sets vec->result from res, its completion. System calls write what the ring has left. */
static void finish_piece(struct dev *dev, struct dev_vec *vec, int res)
{
	if (res == (int)vec->len) {
		vec->result = 0;
		return;
	}
	if (res > 0 || res == -EAGAIN || res == -EINTR) {
		uint32_t done = res > 0 ? (uint32_t)res & ~(dev->caps.sector_bytes - 1) : 0;
		vec->result = uring_write(dev, (uint8_t *)vec->buf + done, vec->len - done,
					  vec->off + done, 0);
		return;
	}
	vec->result = res == 0 ? -EIO : translate(res);
}

/* Writes at most BATCH_DEPTH pieces. System calls do what ring (NULL: none) does not take. */
static void write_batch(struct dev *dev, struct batch_ring *ring, struct dev_vec *vec, unsigned n)
{
	unsigned sent = 0;

	for (unsigned i = 0; i < n && ring; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->ring);

		io_uring_prep_write(sqe, uring_of(dev)->fd, vec[i].buf, vec[i].len, vec[i].off);
		io_uring_sqe_set_data(sqe, &vec[i]);
	}
	if (ring)
		sent = ring_submit(uring_of(dev), ring, n, 0);
	for (unsigned i = 0; i < sent; i++) {
		void *piece;
		int res = ring_wait(ring, &piece);

		finish_piece(dev, piece, res);
	}
	for (unsigned i = sent; i < n; i++) /* the ring submits in the order of vec */
		finish_piece(dev, &vec[i], -EAGAIN);
}

static int uring_write_many(struct dev *dev, struct dev_vec *vec, unsigned n)
{
	struct dev_uring *uring = uring_of(dev);
	int err = 0;

	if (is_cut(uring))
		return -EIO;
	if (n == 1) {
		vec->result = uring_write(dev, vec->buf, vec->len, vec->off, 0);
		return vec->result;
	}
	struct batch_ring *ring = ring_take(uring);
	for (unsigned i = 0; i < n; i += BATCH_DEPTH)
		write_batch(dev, ring && !ring->broken ? ring : NULL, vec + i,
			    FDIO_MIN(n - i, BATCH_DEPTH));
	if (ring)
		ring_give(uring, ring);
	for (unsigned i = 0; i < n && !err; i++)
		err = vec[i].result;
	return err;
}

static void rings_free(struct dev_uring *uring)
{
	for (unsigned i = 0; i < uring->nr_batch; i++)
		io_uring_queue_exit(&uring->batch[i].ring);
}

/*
 * A ring for batches may only write. It registers no file: that would keep the device in use until
 * the kernel has ended the ring.
 */
static int batch_ring_new(struct io_uring *ring)
{
	static const uint8_t write_only[] = { IORING_OP_WRITE };
	static const struct loop_limits limits = { .ops = write_only,
						   .nr_ops = ARRAY_SIZE(write_only) };
	int err = io_uring_queue_init(BATCH_DEPTH, ring, IORING_SETUP_R_DISABLED);

	if (err)
		return err;
	err = loop_ring_enable(ring, &limits);
	if (err)
		io_uring_queue_exit(ring);
	return err;
}

int dev_uring_rings_new(struct dev_uring *uring)
{
	fdio_mutex_init(&uring->batch_lock, RANK_DEV);
	fdio_cond_init(&uring->batch_cond);
	list_init(&uring->batch_free);
	for (; uring->nr_batch < BATCH_RINGS; uring->nr_batch++) {
		int err = batch_ring_new(&uring->batch[uring->nr_batch].ring);
		if (err && uring->nr_batch == 0)
			return err;
		if (err)
			break; /* fewer batches at a time */
		list_add_tail(&uring->batch_free, &uring->batch[uring->nr_batch].link);
	}
	return 0;
}

static void uring_close(struct dev *dev)
{
	struct dev_uring *uring = uring_of(dev);

	rings_free(uring);
	pthread_cond_destroy(&uring->batch_cond);
	fdio_mutex_fini(&uring->batch_lock);
	if (uring->fd >= 0)
		close(uring->fd);
	if (uring->claim_fd >= 0)
		close(uring->claim_fd);
	dev_fini(dev);
	free(uring);
}

int dev_uring_attach(struct dev *dev, struct loop_set *set)
{
	int err = 0;

	for (unsigned i = 0; i < loop_set_count(set) && !err; i++)
		err = loop_register_file(loop_set_get(set, i), LOOP_FILE_DEV, uring_of(dev)->fd);
	return err;
}

int dev_uring_fd(struct dev *dev) { return uring_of(dev)->fd; }

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
