/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The data phase of a slow write: the remainder of the request is cut into pieces and written in
 * batches. Whole sectors go out of the caller's buffer. Where the write begins or ends inside a
 * sector of a written block, that sector is read, changed and written back. Where it begins or ends
 * inside a new or unwritten block, the rest of that block is zeroed in the same batch, also behind
 * the end of the file, because the extent becomes readable as a whole. There are at most two such
 * edges, hence two bounce blocks.
 *
 * Runs on a worker, under the inode lock and the block range lock; changing part of a sector also
 * needs the gate closed for writes. Fails with the error of the device or of the map.
 */
#include "dio/types.h"

#include <errno.h>
#include <string.h>

static uint8_t *user_buf(struct dio_slow *slow, uint64_t pos)
{
	return (uint8_t *)slow->req->buf + (pos - slow->req->pos);
}

/* piece is a hole: fills in the blocks reserved for it. */
static int piece_reserved(struct dio_slow *slow, uint64_t pos, struct dio_piece *piece)
{
	uint64_t lblk = pos >> slow->dio->block_bits;

	for (unsigned k = 0; slow->has_reservation && k < slow->reservation.nr; k++) {
		const struct ext4_extent *extent = &slow->reservation.ext[k];
		if (lblk < extent->lblk || lblk >= (uint64_t)extent->lblk + extent->len)
			continue;
		uint64_t in = pos - ((uint64_t)extent->lblk << slow->dio->block_bits);
		piece->dev_off = (extent->pblk << slow->dio->block_bits) + in;
		piece->len = FDIO_MIN((uint64_t)piece->len,
				      ((uint64_t)extent->len << slow->dio->block_bits) - in);
		return 0;
	}
	return -EUCLEAN; /* the reservation does not cover the hole */
}

int dio_slow_piece(struct dio_slow *slow, uint64_t pos, uint64_t end, struct dio_piece *ret)
{
	int err;

	/* The map may be evicted again before it is used, but hardly eight times in a row. */
	for (unsigned tries = 0; tries < 8; tries++) {
		err = dio_piece_at(slow->dio, slow->inode, pos,
				   FDIO_MIN(end - pos, (uint64_t)UINT32_MAX), ret);
		if (err != -EAGAIN)
			return err;
		err = ext4_map_load(slow->inode);
		if (err)
			return err;
	}
	return -EIO;
}

/* Writes the vectors that add_vec has collected. */
static int flush_vecs(struct dio_slow *slow)
{
	int err = slow->nr_vec ? dev_write_many(slow->dio->config.dev, slow->vec, slow->nr_vec) : 0;

	slow->nr_vec = 0;
	return err;
}

static int add_vec(struct dio_slow *slow, uint64_t off, void *buf, uint64_t len)
{
	while (len) {
		uint32_t n = FDIO_MIN(len, (uint64_t)slow->dio->max_io);
		if (slow->nr_vec == DIO_NR_VEC) {
			int err = flush_vecs(slow);
			if (err)
				return err;
		}
		slow->vec[slow->nr_vec++] = (struct dev_vec){ .off = off, .buf = buf, .len = n };
		off += n;
		buf = (uint8_t *)buf + n;
		len -= n;
	}
	return 0;
}

/*
 * Adds one unit (a block of a new extent, or a sector of a written one) of which the write covers
 * only len bytes at byte in. off is where the unit lies on the device.
 */
static int add_edge(struct dio_slow *slow, uint64_t off, uint32_t unit, uint32_t in, uint64_t pos,
		    uint32_t len, bool written)
{
	uint8_t *b;

	FDIO_ASSERT(slow->nr_bounce < 2);
	b = slow->bounce->buf[slow->nr_bounce++];
	if (written) {
		int err = dev_read(slow->dio->config.dev, b, unit, off);
		if (err)
			return err;
		fdio_count(COUNTER_dio_write_rmw);
	} else {
		memset(b, 0, unit);
	}
	memcpy(b + in, user_buf(slow, pos), len);
	return add_vec(slow, off, b, unit);
}

/* Adds bytes [p, q) of the file, which lie in one run of blocks; p is at off of the device. */
static int add_run(struct dio_slow *slow, uint64_t p, uint64_t q, uint64_t off, bool written)
{
	uint32_t unit = written ? slow->dio->sector_bytes : slow->dio->block_size;
	uint32_t head = p & (unit - 1), tail;
	int err = 0;

	if (head) {
		uint32_t n = FDIO_MIN(q - p, (uint64_t)(unit - head));
		err = add_edge(slow, off - head, unit, head, p, n, written);
		p += n;
		off += n;
	}
	if (err || p == q)
		return err;
	tail = q & (unit - 1);
	err = add_vec(slow, off, user_buf(slow, p), q - p - tail);
	if (!err && tail)
		err = add_edge(slow, off + (q - p - tail), unit, 0, q - tail, tail, written);
	return err;
}

int dio_slow_data(struct dio_slow *slow)
{
	struct dio_piece piece;
	uint64_t pos = slow->pos;
	int err;

	slow->convert_first = UINT64_MAX;
	while (pos < slow->end) {
		err = dio_slow_piece(slow, pos, slow->end, &piece);
		if (!err && piece.state == EXT4_EXTENT_HOLE)
			err = piece_reserved(slow, pos, &piece);
		if (!err)
			err = add_run(slow, pos, pos + piece.len, piece.dev_off,
				      piece.state == EXT4_EXTENT_WRITTEN);
		if (err)
			return err;
		if (piece.state == EXT4_EXTENT_UNWRITTEN) {
			slow->convert_first = FDIO_MIN(slow->convert_first,
						       pos >> slow->dio->block_bits);
			slow->convert_end = fdio_blocks(pos + piece.len, slow->dio->block_bits);
		}
		pos += piece.len;
	}
	return flush_vecs(slow);
}

/*
 * The write begins behind the end of the file: zeroes the bytes of the last block between the old
 * end and the new data. Blocks that follow are holes or unwritten and read as zeroes already. The
 * gate need not be closed: a direct write lies inside the size, so none can be in the sector that
 * holds the end of the file.
 */
int dio_slow_zero_gap(struct dio_slow *slow)
{
	uint64_t from = slow->size,
		 to = FDIO_MIN(slow->pos, fdio_round_up(slow->size, slow->dio->block_size));
	uint64_t lo = fdio_round_down(from, slow->dio->sector_bytes),
		 hi = fdio_round_up(to, slow->dio->sector_bytes);
	uint8_t *b = slow->bounce->buf[0];
	struct dio_piece piece;
	int err;

	if (from >= to)
		return 0;
	err = dio_slow_piece(slow, lo, hi, &piece);
	if (err || piece.state != EXT4_EXTENT_WRITTEN)
		return err;
	FDIO_ASSERT(piece.len == hi - lo); /* within one block */
	err = dev_read(slow->dio->config.dev, b, hi - lo, piece.dev_off);
	if (err)
		return err;
	memset(b + (from - lo), 0, to - from);
	return dev_write(slow->dio->config.dev, b, hi - lo, piece.dev_off, 0);
}
