/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the log lies: the blocks of the journal's inode. Runs while the volume opens, on its
 * thread, with a block cache but no journal yet. The inode's map is loaded with all the checks
 * that files get, so the work is bounded by what the tree really holds. Damage is recorded
 * (X4_CORRUPT) and is -EUCLEAN.
 */
#include "ext4/data/extent.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

struct log_walk { struct jnl_extent *e; unsigned n, cap; };

static int log_add(struct log_walk *w, const struct x4_ext *x)
{
	if (w->n == w->cap) {
		unsigned cap = w->cap ? w->cap * 2 : 16;
		struct jnl_extent *e = realloc(w->e, cap * sizeof(*e));

		if (!e)
			return -ENOMEM;
		w->e = e;
		w->cap = cap;
	}
	w->e[w->n++] = (struct jnl_extent) { x->pblk, x->len };
	return 0;
}

/* From the first block to the first hole, behind which there is nothing. */
static int log_collect(struct x4_inode *i, struct log_walk *w)
{
	uint32_t lblk = 0;

	for (;;) {
		struct x4_ext x;
		int r = x4_map_lookup(i, lblk, &x);

		if (!r && x.state == X4_EXT_HOLE && lblk && x4_ext_end(&x) == UINT32_MAX)
			return 0;
		if (!r && x.state != X4_EXT_WRITTEN)
			r = X4_CORRUPT(i->vol, i->ino, 0, "block %u of the log is missing", lblk);
		if (!r)
			r = log_add(w, &x);
		if (r)
			return r;
		lblk += x.len;
	}
}

int x4_map_log_extents(struct x4_vol *v, uint32_t journal_ino, struct jnl_extent **ret,
		       unsigned *ret_n)
{
	struct log_walk w = { 0 };
	struct x4_inode *i;
	int r = x4_iget_special(v, journal_ino, &i);

	if (r)
		return r;
	/* As the kernel: deleted, it is no journal; nor is it deleted for that here. */
	if (!i->raw->i_links_count)
		x4_inode_set_bad(i);
	r = S_ISREG(le16toh(i->raw->i_mode)) && !x4_inode_is_bad(i) ? x4_map_load(i) : -EUCLEAN;
	if (!r)
		r = log_collect(i, &w);
	x4_map_drop(i);
	x4_iput(i);
	if (r) {
		free(w.e);
		return r;
	}
	*ret = w.e;
	*ret_n = w.n;
	return 0;
}
