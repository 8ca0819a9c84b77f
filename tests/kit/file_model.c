/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A file as it should be: see kit/file_model.h. The test's thread. */
#include "kit/file_model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint32_t bs(const struct model *model) { return model->t->vol->block_size; }

void model_init(struct model *model, struct onefile *t, uint32_t blocks, uint64_t seed)
{
	*model = (struct model){
		.t = t, .blocks = blocks, .seed = seed * 2654435769u + 1, .stamp = 1
	};
	model->byte = calloc(blocks, bs(model));
	model->mapped = calloc(blocks, 1);
	must(model->byte && model->mapped);
}

void model_fini(struct model *model)
{
	free(model->byte);
	free(model->mapped);
}

uint64_t model_random(struct model *model, uint64_t below)
{
	model->seed ^= model->seed << 13;
	model->seed ^= model->seed >> 7;
	model->seed ^= model->seed << 17;
	return model->seed % below;
}

/* Where block l of the file is: in the reservation, else in the tree. */
static uint64_t place_of(struct model *model, const struct ext4_reservation *reservation,
			 uint32_t l)
{
	struct ext4_extent extent;

	for (unsigned k = 0; k < reservation->nr; k++)
		if (l >= reservation->ext[k].lblk && l < ext4_extent_end(&reservation->ext[k]))
			return reservation->ext[k].pblk + (l - reservation->ext[k].lblk);
	must(ext4_map_lookup_load(model->t->inode, l, &extent) == 0);
	must(extent.state != EXT4_EXTENT_HOLE);
	return extent.pblk;
}

/* Writes whole blocks, as the data engine does. */
static void write_blocks(struct model *model, const struct ext4_reservation *reservation,
			 uint32_t first, uint32_t end, const uint8_t *content)
{
	for (uint32_t l = first; l < end; l++)
		must(dev_write(model->t->dev, content + (uint64_t)(l - first) * bs(model),
			       bs(model), place_of(model, reservation, l) * bs(model), 0) == 0);
}

int model_write(struct model *model, uint64_t off, uint64_t len)
{
	uint32_t first = off / bs(model), end = fdio_div_up(off + len, bs(model));
	uint64_t new_size = off + len > model->size ? off + len : 0;
	uint8_t *content = fdio_alloc_aligned(
			4096, fdio_round_up((uint64_t)(end - first) * bs(model), 4096));
	struct ext4_reservation reservation;
	int err;

	memcpy(content, model->byte + (uint64_t)first * bs(model),
	       (uint64_t)(end - first) * bs(model));
	memset(content + (off - (uint64_t)first * bs(model)), model->stamp, len);
	err = ext4_reserve_holes(model->t->inode, first, end - first, false, &reservation);
	if (err)
		goto out;
	write_blocks(model, &reservation, first, end, content);
	err = ext4_insert(model->t->inode, &reservation, first, end - first, new_size);
	ext4_reservation_free(&reservation);
	if (err)
		goto out;
	memcpy(model->byte + (uint64_t)first * bs(model), content,
	       (uint64_t)(end - first) * bs(model));
	memset(model->mapped + first, 1, end - first);
	model->size = FDIO_MAX(model->size, off + len);
	model->stamp = model->stamp % 255 + 1;
out:
	free(content);
	return err;
}

int model_truncate(struct model *model, uint64_t size)
{
	uint32_t first = fdio_div_up(size, bs(model));
	int err = ext4_truncate(model->t->inode, size);

	if (err)
		return err;
	/* A file that grows keeps its preallocated blocks. */
	if (size <= model->size) {
		memset(model->byte + size, 0, (uint64_t)model->blocks * bs(model) - size);
		memset(model->mapped + first, 0, model->blocks - first);
	}
	model->size = size;
	return 0;
}

static void model_alloc(struct model *model, uint64_t off, uint64_t end)
{
	for (uint32_t l = off / bs(model); l < fdio_div_up(end, bs(model)); l++)
		if (!model->mapped[l])
			model->mapped[l] = 2;
}

static void model_whole(struct model *model, uint64_t off, uint64_t end, uint8_t state)
{
	uint32_t first = fdio_div_up(off, bs(model)), last = end / bs(model);

	memset(model->byte + off, 0, end - off);
	if (first < last)
		memset(model->mapped + first, state, last - first);
}

int model_fallocate(struct model *model, int mode, uint64_t off, uint64_t len)
{
	uint64_t end = off + len;
	int err = ext4_fallocate(model->t->inode, mode, off, len, false);

	if (err)
		return err;
	if (mode & EXT4_FALLOC_PUNCH_HOLE) {
		if (off >= model->size)
			return 0;
		if (end > model->size)
			end = fdio_round_up(model->size, bs(model));
		model_whole(model, off, end, 0);
		return 0;
	}
	model_alloc(model, off, end);
	if (mode & EXT4_FALLOC_ZERO_RANGE)
		model_whole(model, off, end, 2);
	if (!(mode & EXT4_FALLOC_KEEP_SIZE))
		model->size = FDIO_MAX(model->size, end);
	return 0;
}

/* Mostly up to twelve blocks, sometimes a third of the space; one in three covers whole blocks. */
static void random_range(struct model *model, uint64_t *ret_off, uint64_t *ret_len)
{
	uint64_t space = (uint64_t)model->blocks * bs(model), off = model_random(model, space - 1);
	uint64_t longest = model_random(model, 8) ? 12 * bs(model) : space / 3;
	uint64_t len = 1 + model_random(model, FDIO_MIN(longest, space - off));

	if (model_random(model, 3) == 0) {
		off = fdio_round_down(off, bs(model));
		len = FDIO_MIN(fdio_round_up(len, bs(model)), space - off);
	}
	*ret_off = off;
	*ret_len = len;
}

/* One time in four anywhere, else by up to twenty blocks. */
static int random_shrink(struct model *model, uint64_t anywhere)
{
	if (!model_random(model, 4))
		return model_truncate(model, anywhere);
	uint64_t less = model_random(model, 20 * bs(model));
	return model_truncate(model, model->size - FDIO_MIN(model->size, less));
}

static int random_growth(struct model *model)
{
	uint64_t space = (uint64_t)model->blocks * bs(model);
	uint64_t size = model->size + model_random(model, 30 * bs(model));

	return model_truncate(model, FDIO_MIN(size, space));
}

int model_random_op(struct model *model)
{
	uint64_t off, len;
	int keep_size;

	random_range(model, &off, &len);
	switch (model_random(model, 16)) {
	case 0:
		return random_shrink(model, off);
	case 1:
		return random_growth(model);
	case 2:
	case 3:
	case 4:
		return model_fallocate(model, EXT4_FALLOC_PUNCH_HOLE | EXT4_FALLOC_KEEP_SIZE, off,
				       len);
	case 5:
		return model_fallocate(model, 0, off, len);
	case 6:
		return model_fallocate(model, EXT4_FALLOC_KEEP_SIZE, off, len);
	case 7:
		keep_size = model_random(model, 2) ? EXT4_FALLOC_KEEP_SIZE : 0;
		return model_fallocate(model, EXT4_FALLOC_ZERO_RANGE | keep_size, off, len);
	default:
		return model_write(model, off, len);
	}
}

static void compare_block(struct model *model, uint32_t l, const struct ext4_extent *extent,
			  uint8_t *buf)
{
	static const uint8_t want[] = { EXT4_EXTENT_HOLE, EXT4_EXTENT_WRITTEN,
					EXT4_EXTENT_UNWRITTEN };
	uint64_t at = (uint64_t)l * bs(model);

	must_msg(extent->state == want[model->mapped[l]], "block %u: state %d, not %d", l,
		 extent->state, want[model->mapped[l]]);
	if (extent->state != EXT4_EXTENT_WRITTEN || at >= model->size)
		return;
	must(dev_read(model->t->dev, buf, bs(model),
		      (extent->pblk + (l - extent->lblk)) * bs(model)) == 0);
	for (uint32_t k = 0; k < bs(model) && at + k < model->size; k++)
		must_msg(buf[k] == model->byte[at + k], "block %u byte %u: %u, not %u", l, k,
			 buf[k], model->byte[at + k]);
}

void model_compare(struct model *model)
{
	uint8_t *buf = malloc(bs(model));
	uint32_t l = 0;

	must(ext4_inode_size(model->t->inode) == model->size);
	while (l < model->blocks) {
		struct ext4_extent extent;

		must(ext4_map_lookup_load(model->t->inode, l, &extent) == 0);
		for (; l < model->blocks && l < ext4_extent_end(&extent); l++)
			compare_block(model, l, &extent, buf);
	}
	free(buf);
}

struct ext4_extent *model_runs(struct ext4_inode *inode, unsigned *ret_n)
{
	struct ext4_extent *e = NULL, x;
	unsigned n = 0, cap = 0;

	for (uint32_t l = 0; l < UINT32_MAX; l += x.len) {
		must(ext4_map_lookup_load(inode, l, &x) == 0);
		if (x.state == EXT4_EXTENT_HOLE)
			continue;
		if (n && e[n - 1].state == x.state && ext4_extent_end(&e[n - 1]) == l &&
		    e[n - 1].pblk + e[n - 1].len == x.pblk) {
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

void model_compare_reloaded(struct model *model)
{
	unsigned n, k;
	struct ext4_extent *kept = model_runs(model->t->inode, &n), *loaded;

	ext4_map_drop(model->t->inode);
	loaded = model_runs(model->t->inode, &k);
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
