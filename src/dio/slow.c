/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The slow path: a worker does the requests that loop threads cannot do. Reads whose map is not in
 * memory or that are not aligned; writes that allocate, convert, extend, or touch part of a sector;
 * and the remainder of a write whose beginning went out directly. dio_hand_to_worker, which queues
 * a request for this, runs on any thread; the request then holds nothing. All else here runs on
 * workers, and waits.
 *
 * A write takes these steps: kill privileges; close the gate for writes if part of a sector changes
 * or the file grows; lock the inode, exclusive if the file grows, else shared; lock the block
 * range; reserve blocks for all holes (ENOSPC comes from here, with nothing changed); write the
 * data; publish extents and size in one step (DIO-4); unlock; then dio_write_finish (DIO-3). After
 * an error before publishing the extents are as they were: reserved blocks are given back, and
 * unwritten ones stay unwritten, so data written to them is never read.
 */
#include "base/log.h"
#include "dio/types.h"

#include <errno.h>
#include <string.h>

static int slow_read(struct dio_req *req)
{
	struct dio_slow slow = { .req = req,
				 .dio = dio_own(req)->dio,
				 .inode = req->file->inode,
				 .dinode = req->file->dinode };
	uint64_t pos = req->pos + dio_own(req)->direct_len, end = req->pos + dio_own(req)->want,
		 size;
	struct dio_piece piece;
	int err = 0;

	fdio_count(COUNTER_dio_read_slow);
	ext4_inode_lock_shared(slow.inode);
	/* The file may have shrunk since submission. Bytes that were read directly count anyway. */
	size = ext4_inode_size(slow.inode);
	end = FDIO_MIN(end, size);
	end = FDIO_MAX(end, pos);
	for (; pos < end && !err; pos += piece.len) {
		uint8_t *b = (uint8_t *)req->buf + (pos - req->pos);
		err = dio_slow_piece(&slow, pos, end, &piece);
		if (err)
			break;
		if (piece.state == EXT4_EXTENT_WRITTEN)
			err = dev_read(slow.dio->config.dev, b, piece.len, piece.dev_off);
		else
			memset(b, 0, piece.len);
	}
	ext4_inode_unlock(slow.inode);
	dio_own(req)->want = end - req->pos;
	if (!err && !(req->flags & DIO_NOATIME))
		ext4_touch_read(slow.inode);
	return err;
}

/* Reserves blocks for all holes that the write covers, if there is one. */
static int reserve(struct dio_slow *slow)
{
	struct dio_piece piece;
	int err;

	for (uint64_t pos = slow->pos; pos < slow->end; pos += piece.len) {
		err = dio_slow_piece(slow, pos, slow->end, &piece);
		if (err)
			return err;
		if (piece.state == EXT4_EXTENT_WRITTEN)
			continue;
		uint64_t first = slow->pos >> slow->dio->block_bits,
			 last = (slow->end - 1) >> slow->dio->block_bits;
		err = ext4_reserve_holes(slow->inode, first, last - first + 1,
					 slow->req->flags & DIO_ROOT, &slow->reservation);
		slow->has_reservation = !err;
		return err;
	}
	return 0;
}

/* Makes the data part of the file: extents, then size (DIO-4). */
static int publish(struct dio_slow *slow)
{
	uint64_t new_size = slow->end > slow->size ? slow->end : 0;
	uint32_t convert = slow->convert_first < slow->convert_end
				   ? slow->convert_end - slow->convert_first
				   : 0;

	if (slow->append) {
		ext4_window_publish(slow->inode, slow->end);
		ext4_touch_write(slow->inode);
		return 0;
	}
	if (slow->has_reservation)
		return ext4_insert(slow->inode, &slow->reservation,
				   convert ? slow->convert_first : 0, convert, new_size);
	if (new_size)
		return ext4_publish_size(slow->inode, new_size);
	ext4_touch_write(slow->inode);
	return 0;
}

static int write_locked(struct dio_slow *slow)
{
	int err = 0;

	if (slow->end > slow->size && !(slow->append = dio_append_fits(slow)))
		err = ext4_window_close(slow->inode, dio_gate_drain, slow->dinode);
	if (!err && slow->end > slow->size)
		err = ext4_truncate_finish(slow->inode);
	if (!err && slow->pos > slow->size) {
		dio_own(slow->req)->gap = slow->size & (slow->dio->page_size - 1) ? slow->size : 0;
		err = dio_slow_zero_gap(slow);
	}
	if (!err)
		err = reserve(slow);
	if (!err)
		err = dio_slow_data(slow);
	if (!err)
		err = publish(slow);
	if (slow->has_reservation)
		ext4_reservation_free(&slow->reservation);
	if (!err && slow->end > slow->size && !slow->append)
		dio_append_refill(slow);
	return err;
}

/*
 * Locks the inode, exclusive if the file grows, and then with the gate closed for writes. Either
 * mode keeps the size stable, except for appends on loop threads, which the gate keeps out.
 */
static void lock_inode(struct dio_slow *slow)
{
	ext4_inode_lock_shared(slow->inode);
	slow->size = ext4_inode_size(slow->inode);
	if (slow->end <= slow->size)
		return;
	ext4_inode_unlock(slow->inode);
	if (!slow->shut)
		dio_gate_close_attached(slow->dinode, DIO_GATE_WRITES);
	slow->shut = true;
	ext4_inode_lock_exclusive(slow->inode);
	slow->size = ext4_inode_size(slow->inode);
}

static int kill_privileges(struct dio_req *req)
{
	const struct dio_config *config = &dio_own(req)->dio->config;
	struct ext4_inode *inode = req->file->inode;
	const struct ext4_attr none = { 0 };

	if (!(req->flags & (DIO_KILLPRIV | DIO_KILLCAPS)) || !ext4_needs_killpriv(inode))
		return 0;
	if (req->flags & DIO_KILLPRIV)
		return ext4_setattr(inode,
				    EXT4_KILL_SUIDGID | (config->kill_sgid ? config->kill_sgid(req)
									   : 0),
				    &none);
	return ext4_setattr(inode, EXT4_KILL_CAPS, &none);
}

static int slow_write(struct dio_req *req)
{
	struct dio_own *own = dio_own(req);
	struct dio_slow slow = {
		.req = req, .dio = own->dio, .inode = req->file->inode, .dinode = req->file->dinode
	};
	struct dio_range range;
	int err;

	fdio_count(COUNTER_dio_write_slow);
	/*
	 * FUA was chosen for the whole write, but the map was dropped meanwhile: the part that is
	 * written here is not durable by itself.
	 */
	own->bits &= ~DIO_R_FUA;
	slow.pos = req->pos + own->direct_len;
	slow.end = req->pos + req->len;
	slow.shut = (slow.pos | slow.end) & (slow.dio->sector_bytes - 1);
	err = kill_privileges(req);
	if (err)
		return err;
	slow.bounce = dio_bounce_take(slow.dio);
	__atomic_add_fetch(&slow.dinode->slow_writes, 1, __ATOMIC_SEQ_CST);
	if (slow.shut)
		dio_gate_close_attached(slow.dinode, DIO_GATE_WRITES);
	lock_inode(&slow);
	dio_range_lock(slow.dinode, &range, slow.pos >> slow.dio->block_bits,
		       (slow.end - 1) >> slow.dio->block_bits);
	err = write_locked(&slow);
	/* Also after an error: part of the write may be in the device's cache. */
	dio_mark_dirty(slow.dio, slow.dinode);
	__atomic_sub_fetch(&slow.dinode->slow_writes, 1, __ATOMIC_SEQ_CST);
	dio_range_unlock(slow.dinode, &range);
	ext4_inode_unlock(slow.inode);
	if (slow.shut)
		dio_gate_open_attached(slow.dinode, DIO_GATE_WRITES);
	dio_bounce_put(slow.dio, slow.bounce);
	return err;
}

/* With the blocks that are reserved for root, if the writer may use them after all. */
static void write_as_root(struct dio_req *req)
{
	const struct dio_config *config = &dio_own(req)->dio->config;

	if ((req->flags & DIO_ROOT) || !config->may_use_reserved || !config->may_use_reserved(req))
		return;
	req->flags |= DIO_ROOT;
	dio_own(req)->error = slow_write(req);
}

static void slow_work(struct work *work)
{
	struct dio_req *req = dio_req_of_work(work);
	struct dio_own *own = dio_own(req);
	struct ext4_vol *vol = own->dio->config.vol;
	bool write = req->flags & DIO_WRITE;
	uint64_t since = ext4_evictions(vol);

	own->error = write ? slow_write(req) : slow_read(req);
	if (write && own->error == -ENOSPC)
		write_as_root(req);
	while (write && ext4_space_has_come(vol, own->error, &since))
		own->error = slow_write(req);
	if (own->error) {
		fdio_count(COUNTER_dio_io_error);
		if (own->error != -ENOSPC)
			log_ratelimited(FDIO_LOG_ERR, "inode %u: %s of %u bytes at %llu failed: %s",
					ext4_inode_ino(req->file->inode), write ? "write" : "read",
					req->len, (unsigned long long)req->pos,
					strerror(-own->error));
	}
	if (write)
		dio_write_finish(req, false);
	else
		dio_req_end(req);
}

void dio_hand_to_worker(struct dio_req *req)
{
	dio_own(req)->stage = DIO_AT_SLOW;
	work_queue_add(dio_own(req)->dio->config.workers, &dio_own(req)->work, slow_work);
}
