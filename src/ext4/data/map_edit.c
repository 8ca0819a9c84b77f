/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Changes of a published extent map: ext4_map_apply, which follows an edit of the tree.
 *
 * The caller holds the lock that guards the tree (map.h), so there is one writer; readers are
 * inside an epoch. Each change is one of these, and a reader sees all of it or nothing:
 *  - the last run of the last chunk grows (atomic store of its length);
 *  - a run is appended to the last chunk (filled in first, then the count is stored with release);
 *  - one chunk is replaced by an edited copy (pointer stored with release), the old one retired;
 *  - otherwise a new top is built that shares the untouched chunks; the old top and the replaced
 *    chunks are retired.
 * So an insert copies at most one chunk (4 KiB); the top is copied only when the number of chunks
 * changes.
 *
 * Any thread that edits trees: workers, and loop threads in the mode of base/nowait.h. Never blocks
 * and never fails: when there is no memory, not even in the reserve (map_memory.c), the map is
 * dropped, and the next user loads it again.
 */
#include "ext4/data/map_layout.h"

#include <errno.h>
#include <string.h>

static void map_chunk_free(struct epoch_node *node)
{
	ext4_map_mem_free(container_of(node, struct ext4_map_chunk, node));
}

static void map_top_free(struct epoch_node *node)
{
	ext4_map_mem_free(container_of(node, struct ext4_map, node));
}

/* An edit in progress: slots [first, last] of map get the runs run[0..n). */
struct edit {
	struct ext4_map *map;
	uint32_t first, last;
	struct ext4_map_run *run;
	uint32_t n;
	bool append; /* the new run is the last of the whole map */
};

static void edit_emit(struct edit *edit, struct ext4_map_run run)
{
	if (!run.len)
		return;
	if (edit->n && ext4_map_runs_merge(&edit->run[edit->n - 1], &run))
		edit->run[edit->n - 1].len += run.len;
	else
		edit->run[edit->n++] = run;
}

/* The part of run that lies before end; len 0: there is none. */
static struct ext4_map_run run_before(const struct ext4_map_run *run, uint64_t end)
{
	struct ext4_map_run out = { run->lblk, ext4_map_run_len(run), run->where };

	if (out.lblk >= end)
		out.len = 0;
	else if (out.lblk + (uint64_t)out.len > end)
		out.len = end - out.lblk;
	return out;
}

/* The part of run that lies at or behind start; len 0: there is none. */
static struct ext4_map_run run_behind(const struct ext4_map_run *run, uint64_t start)
{
	struct ext4_map_run out = { run->lblk, ext4_map_run_len(run), run->where };
	uint64_t end = ext4_map_run_end(run);

	if (end <= start) {
		out.len = 0;
	} else if (out.lblk < start) {
		out.where += start - out.lblk;
		out.len = end - start;
		out.lblk = start;
	}
	return out;
}

/* Collects the runs of the edited slots, with extent's range in its new state. */
static void edit_merge(struct edit *edit, const struct ext4_extent *extent)
{
	uint64_t end = (uint64_t)extent->lblk + extent->len;
	bool placed = extent->state == EXT4_EXTENT_HOLE;

	for (uint32_t k = edit->first; k <= edit->last; k++) {
		const struct ext4_map_chunk *chunk = ext4_map_slot_chunk(edit->map, k);

		for (uint32_t j = 0; j < chunk->n; j++) {
			edit_emit(edit, run_before(&chunk->run[j], extent->lblk));
			if (!placed && ext4_map_run_end(&chunk->run[j]) > extent->lblk) {
				edit_emit(edit, ext4_map_run_of(extent));
				placed = true;
			}
			edit_emit(edit, run_behind(&chunk->run[j], end));
		}
	}
	if (!placed) {
		edit_emit(edit, ext4_map_run_of(extent));
		edit->append = edit->last + 1 == edit->map->nr;
	}
}

/* All edited runs fit into the chunk of the first slot, which a new chunk replaces. */
static int edit_one_chunk(struct edit *edit)
{
	struct ext4_map_chunk *old = ext4_map_slot_chunk(edit->map, edit->first), *chunk;
	bool last = edit->first + 1 == edit->map->nr;
	uint32_t cap = last ? ext4_map_last_cap(edit->n) : FDIO_MAX(edit->n, 1u);

	chunk = ext4_map_chunk_new(edit->run, edit->n, cap);
	if (!chunk)
		return -ENOMEM;
	__atomic_store_n(&edit->map->slot[edit->first].chunk, chunk, __ATOMIC_RELEASE);
	epoch_retire(&old->node, map_chunk_free);
	return 0;
}

/*
 * Fills slots [k, k + pieces) of top with the edited runs, per of them in each chunk. False when
 * there is no memory; then the chunks that were made are freed.
 */
static bool edit_layout(struct edit *edit, struct ext4_map *top, uint32_t k, uint32_t pieces,
			uint32_t per)
{
	for (uint32_t p = 0; p < pieces; p++) {
		uint32_t from = p * per, count = FDIO_MIN(per, edit->n - from);
		bool last = k + p + 1 == top->nr;
		struct ext4_map_chunk *chunk =
				ext4_map_chunk_new(edit->run + from, count,
						   last ? EXT4_MAP_CHUNK_MAX : FDIO_MAX(count, 1u));

		if (!chunk) {
			while (p)
				ext4_map_mem_free(top->slot[k + --p].chunk);
			return false;
		}
		top->slot[k + p].chunk = chunk;
		top->slot[k + p].key = p ? edit->run[from].lblk : edit->map->slot[edit->first].key;
	}
	return true;
}

/* How many chunks the edited runs need, and how many runs each of them gets. */
static uint32_t edit_pieces(const struct edit *edit, uint32_t *ret_per)
{
	bool all = edit->last - edit->first + 1 == edit->map->nr;
	uint32_t fill = edit->append || edit->n <= EXT4_MAP_CHUNK_MAX ? EXT4_MAP_CHUNK_MAX
								      : EXT4_MAP_CHUNK_FILL;

	*ret_per = 0;
	if (!edit->n)
		return all ? 1 : 0; /* a map has one chunk at least */
	*ret_per = edit->append ? EXT4_MAP_CHUNK_MAX
				: fdio_div_up(edit->n, fdio_div_up(edit->n, fill));
	return fdio_div_up(edit->n, *ret_per);
}

static int edit_new_top(struct edit *edit, struct ext4_inode *inode)
{
	struct ext4_map *old = edit->map, *top;
	uint32_t per, pieces = edit_pieces(edit, &per), behind = old->nr - edit->last - 1;

	top = ext4_map_top_new(edit->first + pieces + behind);
	if (!top)
		return -ENOMEM;
	if (!edit_layout(edit, top, edit->first, pieces, per)) {
		ext4_map_mem_free(top);
		return -ENOMEM;
	}
	memcpy(top->slot, old->slot, edit->first * sizeof(top->slot[0]));
	memcpy(top->slot + edit->first + pieces, old->slot + edit->last + 1,
	       behind * sizeof(top->slot[0]));
	top->slot[0].key = 0;
	__atomic_store_n(&inode->data.map, top, __ATOMIC_RELEASE);
	for (uint32_t k = edit->first; k <= edit->last; k++)
		epoch_retire(&old->slot[k].chunk->node, map_chunk_free);
	epoch_retire(&old->node, map_top_free);
	return 0;
}

/* Appends extent to the last chunk without a copy; false if that cannot be done. */
static bool append_in_place(struct ext4_map *map, const struct ext4_extent *extent)
{
	struct ext4_map_chunk *chunk = ext4_map_slot_chunk(map, map->nr - 1);
	struct ext4_map_run run = ext4_map_run_of(extent),
			    *last = chunk->n ? &chunk->run[chunk->n - 1] : NULL;

	if (extent->state == EXT4_EXTENT_HOLE || extent->lblk < map->slot[map->nr - 1].key ||
	    (last && ext4_map_run_end(last) > extent->lblk))
		return false;
	if (last && ext4_map_runs_merge(last, &run)) {
		__atomic_store_n(&last->len, last->len + run.len, __ATOMIC_RELEASE);
		return true;
	}
	if (chunk->n == chunk->cap)
		return false;
	chunk->run[chunk->n] = run;
	__atomic_store_n(&chunk->n, chunk->n + 1, __ATOMIC_RELEASE);
	return true;
}

static int map_edit(struct ext4_inode *inode, struct ext4_map *map,
		    const struct ext4_extent *extent)
{
	struct edit edit = { .map = map };
	size_t max = 2;
	int err;

	edit.first = ext4_map_slot_find(map, extent->lblk);
	edit.last = ext4_map_slot_find(map, (uint32_t)(extent->lblk + (uint64_t)extent->len - 1));
	for (uint32_t k = edit.first; k <= edit.last; k++)
		max += ext4_map_slot_chunk(map, k)->n;
	edit.run = ext4_map_mem(max * sizeof(*edit.run));
	if (!edit.run)
		return -ENOMEM;
	edit_merge(&edit, extent);
	if (edit.first == edit.last && edit.n <= EXT4_MAP_CHUNK_MAX && (edit.n || map->nr == 1))
		err = edit_one_chunk(&edit);
	else
		err = edit_new_top(&edit, inode);
	ext4_map_mem_free(edit.run);
	return err;
}

void ext4_map_apply(struct ext4_inode *inode, const struct ext4_extent *extent)
{
	struct ext4_map *map = __atomic_load_n(&inode->data.map, __ATOMIC_ACQUIRE);

	ext4_inode_map_edited(inode);
	if (!map || !extent->len || append_in_place(map, extent))
		return;
	if (map_edit(inode, map, extent))
		ext4_map_drop(inode);
}
