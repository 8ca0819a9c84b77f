/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Device I/O of one piece: where a byte of the file lies, the device request for it, and sending
 * again the part that the device did not transfer. Called where requests are split and where their
 * pieces complete, on loop threads, and by workers. Guards nothing, never blocks, allocates
 * nothing.
 *
 * Fails with -EAGAIN (the map is not in memory), -EUCLEAN (the map is wrong), or the device's
 * error.
 */
#include "dio/types.h"

#include <errno.h>

int dio_piece_at(struct dio *dio, struct ext4_inode *inode, uint64_t pos, uint32_t max,
		 struct dio_piece *ret)
{
	uint32_t in = pos & (dio->block_size - 1);
	struct ext4_extent extent;
	uint64_t run;
	int err = ext4_map_lookup(inode, pos >> dio->block_bits, &extent);

	if (err)
		return err;
	if (unlikely(!extent.len))
		return -EUCLEAN;
	run = ((uint64_t)extent.len << dio->block_bits) - in;
	ret->len = FDIO_MIN(run, (uint64_t)max);
	ret->state = extent.state;
	ret->dev_off = 0;
	if (extent.state == EXT4_EXTENT_HOLE)
		return 0;
	if (extent.state == EXT4_EXTENT_WRITTEN)
		ret->len = FDIO_MIN(ret->len, dio->max_io);
	ret->dev_off = (extent.pblk << dio->block_bits) + in;
	if (unlikely(ret->dev_off + ret->len > dio->config.dev->caps.size_bytes))
		return -EUCLEAN;
	return 0;
}

void dio_io_fill(struct dio_req *req, struct dev_io *io, uint32_t at, const struct dio_piece *piece,
		 void (*done)(struct dev_io *))
{
	io->kind = req->flags & DIO_WRITE ? DEV_WRITE : DEV_READ;
	io->flags = dio_own(req)->bits & DIO_R_FUA ? DEV_FUA : 0;
	io->off = piece->dev_off;
	io->len = piece->len;
	io->buf = (uint8_t *)req->buf + at;
	io->buf_index = req->buf_index;
	io->result = 0;
	io->done = done;
	if (io->flags & DEV_FUA)
		fdio_count(COUNTER_dio_fua);
}

bool dio_io_resubmit(struct dio *dio, struct dev_io *io, uint32_t *retries, int *ret_err)
{
	int res = io->result;

	*ret_err = 0;
	if (likely(res == (int)io->len))
		return false;
	if (res == -EAGAIN || res == -EINTR) {
		if ((*retries)++ >= DIO_RETRIES_MAX) {
			*ret_err = -EIO;
			return false;
		}
		fdio_count(COUNTER_dio_again_retry);
		io->flags |= DEV_ASYNC;
		dev_submit(dio->config.dev, io);
		return true;
	}
	if (res <= 0 || (uint32_t)res > io->len) {
		*ret_err = res < 0 ? res : -EIO;
		return false;
	}
	/* A short transfer: go on at the first sector that was not transferred. */
	uint32_t n = fdio_round_down(res, dio->sector_bytes);
	if (!n && (*retries)++ >= DIO_RETRIES_MAX) {
		*ret_err = -EIO;
		return false;
	}
	fdio_count(COUNTER_dio_short_resubmit);
	io->off += n;
	io->buf = (uint8_t *)io->buf + n;
	io->len -= n;
	dev_submit(dio->config.dev, io);
	return true;
}
