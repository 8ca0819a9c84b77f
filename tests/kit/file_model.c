/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See kit/file_model.h. */
#include "kit/file_model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint32_t bs(const struct model *m) { return m->t->v->block_size; }

void model_init(struct model *m, struct onefile *t, uint32_t blocks, uint64_t seed)
{
	*m = (struct model) { .t = t, .blocks = blocks, .seed = seed * 2654435769u + 1, .stamp = 1 };
	m->byte = calloc(blocks, bs(m));
	m->mapped = calloc(blocks, 1);
	must(m->byte && m->mapped);
}

void model_fini(struct model *m)
{
	free(m->byte);
	free(m->mapped);
}

uint64_t model_rnd(struct model *m, uint64_t below)
{
	m->seed ^= m->seed << 13;
	m->seed ^= m->seed >> 7;
	m->seed ^= m->seed << 17;
	return m->seed % below;
}

/* Where block l of the file will be: in the tree, or in the reservation. */
static uint64_t place_of(struct model *m, const struct x4_resv *r, uint32_t l)
{
	struct x4_ext x;

	for (unsigned k = 0; k < r->nr; k++)
		if (l >= r->ext[k].lblk && l < x4_ext_end(&r->ext[k]))
			return r->ext[k].pblk + (l - r->ext[k].lblk);
	must(x4_map_lookup_load(m->t->i, l, &x) == 0);
	must(x.state != X4_EXT_HOLE);
	return x.pblk;
}

/* The data engine in small: whole blocks are written; what lies around the range in a block is kept or zero. */
static void write_blocks(struct model *m, const struct x4_resv *r, uint32_t first, uint32_t end, const uint8_t *content)
{
	for (uint32_t l = first; l < end; l++)
		must(dev_write(m->t->dev, content + (uint64_t)(l - first) * bs(m), bs(m), place_of(m, r, l) * bs(m), 0) == 0);
}

int model_write(struct model *m, uint64_t off, uint64_t len)
{
	uint32_t first = off / bs(m), end = fdio_div_up(off + len, bs(m));
	uint64_t new_size = off + len > m->size ? off + len : 0;
	uint8_t *content = fdio_alloc_aligned(4096, fdio_round_up((uint64_t)(end - first) * bs(m), 4096));
	struct x4_resv r;
	int err;

	memcpy(content, m->byte + (uint64_t)first * bs(m), (uint64_t)(end - first) * bs(m));
	memset(content + (off - (uint64_t)first * bs(m)), m->stamp, len);
	err = x4_resv_holes(m->t->i, first, end - first, false, &r);
	if (err)
		goto out;
	write_blocks(m, &r, first, end, content);
	err = x4_insert(m->t->i, &r, first, end - first, new_size);
	x4_resv_free(&r);
	if (err)
		goto out;
	memcpy(m->byte + (uint64_t)first * bs(m), content, (uint64_t)(end - first) * bs(m));
	memset(m->mapped + first, 1, end - first);
	m->size = FDIO_MAX(m->size, off + len);
	m->stamp = m->stamp % 255 + 1;
out:
	free(content);
	return err;
}

int model_truncate(struct model *m, uint64_t size)
{
	uint32_t first = fdio_div_up(size, bs(m));
	int err = x4_truncate(m->t->i, size);

	if (err)
		return err;
	/* A file that grows keeps its preallocated blocks. */
	if (size <= m->size) {
		memset(m->byte + size, 0, (uint64_t)m->blocks * bs(m) - size);
		memset(m->mapped + first, 0, m->blocks - first);
	}
	m->size = size;
	return 0;
}

static void model_alloc(struct model *m, uint64_t off, uint64_t end)
{
	for (uint32_t l = off / bs(m); l < fdio_div_up(end, bs(m)); l++)
		if (!m->mapped[l])
			m->mapped[l] = 2;
}

static void model_whole(struct model *m, uint64_t off, uint64_t end, uint8_t state)
{
	uint32_t first = fdio_div_up(off, bs(m)), last = end / bs(m);

	memset(m->byte + off, 0, end - off);
	if (first < last)
		memset(m->mapped + first, state, last - first);
}

int model_fallocate(struct model *m, int mode, uint64_t off, uint64_t len)
{
	uint64_t end = off + len;
	int err = x4_fallocate(m->t->i, mode, off, len, false);

	if (err)
		return err;
	if (mode & X4_FALLOC_PUNCH_HOLE) {
		if (off >= m->size)
			return 0;
		if (end > m->size)
			end = fdio_round_up(m->size, bs(m));
		model_whole(m, off, end, 0);
		return 0;
	}
	model_alloc(m, off, end);
	if (mode & X4_FALLOC_ZERO_RANGE)
		model_whole(m, off, end, 2);
	if (!(mode & X4_FALLOC_KEEP_SIZE))
		m->size = FDIO_MAX(m->size, end);
	return 0;
}

int model_random_op(struct model *m)
{
	uint64_t space = (uint64_t)m->blocks * bs(m), off = model_rnd(m, space - 1);
	uint64_t longest = model_rnd(m, 8) ? 12 * bs(m) : space / 3;
	uint64_t len = 1 + model_rnd(m, FDIO_MIN(longest, space - off));

	if (model_rnd(m, 3) == 0) {
		off = fdio_round_down(off, bs(m));
		len = FDIO_MIN(fdio_round_up(len, bs(m)), space - off);
	}
	switch (model_rnd(m, 16)) {
	case 0:
		return model_truncate(m, model_rnd(m, 4) ? m->size - FDIO_MIN(m->size, model_rnd(m, 20 * bs(m))) : off);
	case 1:
		return model_truncate(m, FDIO_MIN(m->size + model_rnd(m, 30 * bs(m)), space));
	case 2:
	case 3:
	case 4:
		return model_fallocate(m, X4_FALLOC_PUNCH_HOLE | X4_FALLOC_KEEP_SIZE, off, len);
	case 5:
		return model_fallocate(m, 0, off, len);
	case 6:
		return model_fallocate(m, X4_FALLOC_KEEP_SIZE, off, len);
	case 7:
		return model_fallocate(m, X4_FALLOC_ZERO_RANGE | (model_rnd(m, 2) ? X4_FALLOC_KEEP_SIZE : 0), off, len);
	default:
		return model_write(m, off, len);
	}
}

static void compare_block(struct model *m, uint32_t l, const struct x4_ext *x, uint8_t *buf)
{
	static const uint8_t want[] = { X4_EXT_HOLE, X4_EXT_WRITTEN, X4_EXT_UNWRITTEN };
	uint64_t at = (uint64_t)l * bs(m);

	must_msg(x->state == want[m->mapped[l]], "block %u: state %d, not %d", l, x->state, want[m->mapped[l]]);
	if (x->state != X4_EXT_WRITTEN || at >= m->size)
		return;
	must(dev_read(m->t->dev, buf, bs(m), (x->pblk + (l - x->lblk)) * bs(m)) == 0);
	for (uint32_t k = 0; k < bs(m) && at + k < m->size; k++)
		must_msg(buf[k] == m->byte[at + k], "block %u byte %u: %u, not %u", l, k, buf[k], m->byte[at + k]);
}

void model_compare(struct model *m)
{
	uint8_t *buf = malloc(bs(m));
	uint32_t l = 0;

	must(x4_inode_size(m->t->i) == m->size);
	while (l < m->blocks) {
		struct x4_ext x;

		must(x4_map_lookup_load(m->t->i, l, &x) == 0);
		for (; l < m->blocks && l < x4_ext_end(&x); l++)
			compare_block(m, l, &x, buf);
	}
	free(buf);
}

struct x4_ext *model_runs(struct x4_inode *i, unsigned *ret_n)
{
	struct x4_ext *e = NULL, x;
	unsigned n = 0, cap = 0;

	for (uint32_t l = 0; l < UINT32_MAX; l += x.len) {
		must(x4_map_lookup_load(i, l, &x) == 0);
		if (x.state == X4_EXT_HOLE)
			continue;
		if (n && e[n - 1].state == x.state && x4_ext_end(&e[n - 1]) == l && e[n - 1].pblk + e[n - 1].len == x.pblk) {
			e[n - 1].len += x.len;
			continue;
		}
		if (n == cap) {
			cap = cap ? 2 * cap : 64;
			e = realloc(e, cap * sizeof(*e));
		}
		e[n++] = x;
	}
	*ret_n = n;
	return e;
}

void model_compare_reloaded(struct model *m)
{
	unsigned n, k;
	struct x4_ext *kept = model_runs(m->t->i, &n), *loaded;

	x4_map_drop(m->t->i);
	loaded = model_runs(m->t->i, &k);
	must(n == k);
	for (k = 0; k < n; k++) {
		must(kept[k].lblk == loaded[k].lblk);
		must(kept[k].len == loaded[k].len);
		must(kept[k].pblk == loaded[k].pblk);
		must(kept[k].state == loaded[k].state);
	}
	free(kept);
	free(loaded);
}
