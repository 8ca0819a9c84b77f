/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The data phase of a slow write: what is left of the request is cut into pieces and written in
 * batches. Whole sectors go out of the caller's buffer. Where the write begins or ends inside a
 * sector of a written block, that sector is read, changed and written back; where it begins or ends
 * inside a new or unwritten block, the rest of that block is zeroed in the same batch, also beyond
 * the end of the file, so that the extent may become readable as a whole. At most two such edges,
 * hence two bounce blocks. On a worker, under the inode lock and the block range lock;
 * read-modify-write also with the gate closed for writes.
 */
#include "dio/types.h"

#include <errno.h>
#include <string.h>

static uint8_t *user_buf(struct dio_slow *s, uint64_t pos)
{
	return (uint8_t *)s->r->buf + (pos - s->r->pos);
}

/* The reserved blocks for a hole. */
static int piece_reserved(struct dio_slow *s, uint64_t pos, struct dio_piece *p)
{
	uint64_t lblk = pos >> s->d->block_bits;

	for (unsigned k = 0; s->has_resv && k < s->resv.nr; k++) {
		const struct x4_ext *e = &s->resv.ext[k];
		if (lblk < e->lblk || lblk >= (uint64_t)e->lblk + e->len)
			continue;
		uint64_t in = pos - ((uint64_t)e->lblk << s->d->block_bits);
		p->dev_off = (e->pblk << s->d->block_bits) + in;
		p->len = FDIO_MIN((uint64_t)p->len, ((uint64_t)e->len << s->d->block_bits) - in);
		return 0;
	}
	return -EUCLEAN; /* a reservation that does not cover what was asked */
}

int dio_slow_piece(struct dio_slow *s, uint64_t pos, uint64_t end, struct dio_piece *ret)
{
	int r;

	/* The map may be dropped again at any time, but not for ever. */
	for (unsigned tries = 0; tries < 8; tries++) {
		r = dio_piece_at(s->d, s->i, pos, FDIO_MIN(end - pos, (uint64_t)UINT32_MAX), ret);
		if (r != -EAGAIN)
			return r;
		r = x4_map_load(s->i);
		if (r)
			return r;
	}
	return -EIO;
}

static int flush_vecs(struct dio_slow *s)
{
	int r = s->nv ? dev_write_many(s->d->cfg.dev, s->v, s->nv) : 0;

	s->nv = 0;
	return r;
}

static int add_vec(struct dio_slow *s, uint64_t off, void *buf, uint64_t len)
{
	while (len) {
		uint32_t n = FDIO_MIN(len, (uint64_t)s->d->max_io);
		if (s->nv == DIO_NR_VECS) {
			int r = flush_vecs(s);
			if (r)
				return r;
		}
		s->v[s->nv++] = (struct dev_vec){ .off = off, .buf = buf, .len = n };
		off += n;
		buf = (uint8_t *)buf + n;
		len -= n;
	}
	return 0;
}

/*
 * One unit (a block of a new extent, a sector of a written one) of which only [in, in + len) is
 * ours. off is the device address of the unit.
 */
static int add_edge(struct dio_slow *s, uint64_t off, uint32_t unit, uint32_t in, uint64_t pos,
		    uint32_t len, bool written)
{
	uint8_t *b;

	FDIO_ASSERT(s->nr_bounce < 2);
	b = s->bounce->buf[s->nr_bounce++];
	if (written) {
		int r = dev_read(s->d->cfg.dev, b, unit, off);
		if (r)
			return r;
		fdio_count(CTR_dio_write_rmw);
	} else {
		memset(b, 0, unit);
	}
	memcpy(b + in, user_buf(s, pos), len);
	return add_vec(s, off, b, unit);
}

/* [p, q) lies in one run whose device address of p is off. */
static int add_run(struct dio_slow *s, uint64_t p, uint64_t q, uint64_t off, bool written)
{
	uint32_t unit = written ? s->d->lbs : s->d->block_size;
	uint32_t head = p & (unit - 1), tail;
	int r = 0;

	if (head) {
		uint32_t n = FDIO_MIN(q - p, (uint64_t)(unit - head));
		r = add_edge(s, off - head, unit, head, p, n, written);
		p += n;
		off += n;
	}
	if (r || p == q)
		return r;
	tail = q & (unit - 1);
	r = add_vec(s, off, user_buf(s, p), q - p - tail);
	if (!r && tail)
		r = add_edge(s, off + (q - p - tail), unit, 0, q - tail, tail, written);
	return r;
}

int dio_slow_data(struct dio_slow *s)
{
	struct dio_piece p;
	uint64_t pos = s->pos;
	int r;

	s->conv_first = UINT64_MAX;
	while (pos < s->end) {
		r = dio_slow_piece(s, pos, s->end, &p);
		if (!r && p.state == X4_EXT_HOLE)
			r = piece_reserved(s, pos, &p);
		if (!r)
			r = add_run(s, pos, pos + p.len, p.dev_off, p.state == X4_EXT_WRITTEN);
		if (r)
			return r;
		if (p.state == X4_EXT_UNWRITTEN) {
			s->conv_first = FDIO_MIN(s->conv_first, pos >> s->d->block_bits);
			s->conv_end = fdio_blocks(pos + p.len, s->d->block_bits);
		}
		pos += p.len;
	}
	return flush_vecs(s);
}

/*
 * The write begins behind the end of the file: what the last block holds between the old end and
 * the new data must read as zeroes. Blocks that follow are holes or unwritten and do so already. No
 * fast write can be in the sector that holds the end of the file (it would not be inside the size),
 * so the gate need not be closed.
 */
int dio_slow_zero_gap(struct dio_slow *s)
{
	uint64_t from = s->size, to = FDIO_MIN(s->pos, fdio_round_up(s->size, s->d->block_size));
	uint64_t lo = fdio_round_down(from, s->d->lbs), hi = fdio_round_up(to, s->d->lbs);
	uint8_t *b = s->bounce->buf[0];
	struct dio_piece p;
	int r;

	if (from >= to)
		return 0;
	r = dio_slow_piece(s, lo, hi, &p);
	if (r || p.state != X4_EXT_WRITTEN)
		return r;
	FDIO_ASSERT(p.len == hi - lo); /* within one block */
	r = dev_read(s->d->cfg.dev, b, hi - lo, p.dev_off);
	if (r)
		return r;
	memset(b + (from - lo), 0, to - from);
	return dev_write(s->d->cfg.dev, b, hi - lo, p.dev_off, 0);
}
