/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether a file has one physical block twice: mapped at two places, or mapped and a node of its
 * own tree. Such a file is damaged: a write at one place changes the other. Repeated blocks are
 * also how a small image can describe an endless walk; without them no walk is longer than the
 * device has blocks. Called while a map is loaded (map_load.c), before any reader sees it, on the
 * thread that loads: a worker, or a loop thread in the mode of base/nowait.h.
 *
 * A tree of indirect blocks may refer to one of them again and again. So these are compared already
 * while they are collected, each time the list of them is full: the memory used stays in proportion
 * to the blocks that are really on the device. In an extent tree no node is visited twice
 * (extent_node.c).
 *
 * Fails with -EUCLEAN when a block is there twice, or with -ENOMEM.
 */
#include "ext4/data/map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Physical blocks [start, end) that the file has, mapped or as nodes. */
struct place { uint64_t start, end; };

static int by_start(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Sorts the nodes that were noted; -EUCLEAN if one is there twice. */
static int nodes_sort(struct ext4_map_builder *builder, uint64_t *ret_blk)
{
	qsort(builder->node, builder->nodes, sizeof(*builder->node), by_number);
	for (size_t k = 1; k < builder->nodes; k++)
		if (builder->node[k - 1] == builder->node[k]) {
			*ret_blk = builder->node[k];
			return -EUCLEAN;
		}
	return 0;
}

int ext4_map_builder_node(struct ext4_map_builder *builder, uint64_t blk)
{
	uint64_t *bigger, twice;
	size_t cap;

	if (builder->nodes == builder->node_cap) {
		int err = builder->nodes ? nodes_sort(builder, &twice) : 0;

		if (err)
			return err;
		cap = builder->node_cap ? builder->node_cap * 2 : 16;
		bigger = ext4_map_mem(cap * sizeof(*bigger));
		if (!bigger)
			return -ENOMEM;
		if (builder->nodes)
			memcpy(bigger, builder->node, builder->nodes * sizeof(*bigger));
		ext4_map_mem_free(builder->node);
		builder->node = bigger;
		builder->node_cap = cap;
	}
	builder->node[builder->nodes++] = blk;
	return 0;
}

static uint64_t run_start(const struct ext4_map_run *run)
{
	return run->where & ~EXT4_RUN_UNWRITTEN;
}

/* True for most files: runs ascend on the device and there are no nodes, so no block is twice. */
static bool ascending(const struct ext4_map_builder *builder)
{
	for (size_t k = 1; k < builder->n; k++)
		if (run_start(&builder->run[k]) <
		    run_start(&builder->run[k - 1]) + builder->run[k - 1].len)
			return false;
	return !builder->nodes;
}

int ext4_map_builder_check(struct ext4_map_builder *builder, uint64_t *ret_blk)
{
	size_t n = builder->n + builder->nodes;
	struct place *place;
	int err = 0;

	if (ascending(builder))
		return 0;
	place = ext4_map_mem(n * sizeof(*place));
	if (!place)
		return -ENOMEM;
	for (size_t k = 0; k < builder->n; k++)
		place[k] = (struct place){ run_start(&builder->run[k]),
					   run_start(&builder->run[k]) + builder->run[k].len };
	for (size_t k = 0; k < builder->nodes; k++)
		place[builder->n + k] = (struct place){ builder->node[k], builder->node[k] + 1 };
	qsort(place, n, sizeof(*place), by_start);
	for (size_t k = 1; k < n && !err; k++)
		if (place[k - 1].end > place[k].start) {
			*ret_blk = place[k].start;
			err = -EUCLEAN;
		}
	ext4_map_mem_free(place);
	return err;
}
