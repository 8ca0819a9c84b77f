/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether a file has one physical block twice: mapped at two places, or mapped and a node of its
 * own tree. Such a file is damaged, and what is written to one place changes the other. It is also
 * how a small image makes a long walk: no file is longer than the device has room for it then.
 * Called while a map is loaded, before anybody sees it, on the thread that loads.
 *
 * A tree of indirect blocks may use one of them again and again, so these are compared already
 * while they are collected, whenever the list of them is full: memory stays in proportion to what
 * is really on the device. In an extent tree no node is visited twice (data/extent_node.c).
 *
 * Fails with -EUCLEAN when a block is there twice, with -ENOMEM.
 */
#include "ext4/data/map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A run of blocks that the file has, wherever in it. */
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

static int nodes_sort(struct x4_map_builder *b, uint64_t *ret_blk)
{
	qsort(b->node, b->nodes, sizeof(*b->node), by_number);
	for (size_t k = 1; k < b->nodes; k++)
		if (b->node[k - 1] == b->node[k]) {
			*ret_blk = b->node[k];
			return -EUCLEAN;
		}
	return 0;
}

int x4_map_builder_node(struct x4_map_builder *b, uint64_t blk)
{
	uint64_t *bigger, twice;
	size_t cap;

	if (b->nodes == b->node_cap) {
		int r = b->nodes ? nodes_sort(b, &twice) : 0;

		if (r)
			return r;
		cap = b->node_cap ? b->node_cap * 2 : 16;
		bigger = x4_map_mem(cap * sizeof(*bigger));
		if (!bigger)
			return -ENOMEM;
		if (b->nodes)
			memcpy(bigger, b->node, b->nodes * sizeof(*bigger));
		x4_map_mem_free(b->node);
		b->node = bigger;
		b->node_cap = cap;
	}
	b->node[b->nodes++] = blk;
	return 0;
}

static uint64_t run_start(const struct x4_map_run *r) { return r->where & ~X4_RUN_UNWRITTEN; }

/* As most files are: each run lies behind the one before, and there are no nodes. */
static bool ascending(const struct x4_map_builder *b)
{
	for (size_t k = 1; k < b->n; k++)
		if (run_start(&b->e[k]) < run_start(&b->e[k - 1]) + b->e[k - 1].len)
			return false;
	return !b->nodes;
}

int x4_map_builder_check(struct x4_map_builder *b, uint64_t *ret_blk)
{
	size_t n = b->n + b->nodes;
	struct place *p;
	int r = 0;

	if (ascending(b))
		return 0;
	p = x4_map_mem(n * sizeof(*p));
	if (!p)
		return -ENOMEM;
	for (size_t k = 0; k < b->n; k++)
		p[k] = (struct place){ run_start(&b->e[k]), run_start(&b->e[k]) + b->e[k].len };
	for (size_t k = 0; k < b->nodes; k++)
		p[b->n + k] = (struct place){ b->node[k], b->node[k] + 1 };
	qsort(p, n, sizeof(*p), by_start);
	for (size_t k = 1; k < n && !r; k++)
		if (p[k - 1].end > p[k].start) {
			*ret_blk = p[k].start;
			r = -EUCLEAN;
		}
	x4_map_mem_free(p);
	return r;
}
