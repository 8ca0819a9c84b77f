/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A volume in miniature: everything that the extents part calls outside itself, over arrays, single-threaded. It checks what
 * the real rooms cannot: that a handle never changes more blocks than its credits say, that blocks are allocated and freed
 * exactly once, that a cancelled handle leaves nothing behind; and any call can be made to fail.
 */
#define ONEFILE_MINIATURE
#include "kit/one_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

unsigned mini_fail_in, mini_fragment;
uint64_t mini_limit_free = UINT64_MAX;

/* META: the cached content is what counts; USED: what is on the device. */
enum bstate { B_FREE, B_USED, B_META, B_RESERVED };

struct before { struct jnl_buf *b; uint8_t *data; uint32_t verified; };

struct jnl_handle {
	struct jnl *j;
	bool on;
	unsigned credits, used;
	struct before *bufs;
	unsigned nr_bufs;
	uint8_t *state;          /* copy of the block states at the start */
	uint8_t *groups;         /* bitmaps counted already */
	uint8_t raw[1024];
	uint64_t size;
	bool inode_begun, inode_dirtied;
	struct jnl_callback *undo;
	struct piece *mem;
};

struct jnl {
	struct dev *dev;
	uint32_t bs;
	uint64_t nr;
	struct jnl_buf **buf;    /* by block */
	struct jnl_handle h;
	uint8_t *state;
	uint8_t *before;         /* the running handle's copy of state */
	uint8_t *initial;        /* B_USED at the start: not ours */
	uint64_t seed, meta_held;
};

static struct jnl *J;
static struct x4_inode *I;
static struct x4_vol *V;

static bool fails(void) { return mini_fail_in && --mini_fail_in == 0; }

static uint64_t rnd(void)
{
	J->seed ^= J->seed << 13;
	J->seed ^= J->seed >> 7;
	J->seed ^= J->seed << 17;
	return J->seed;
}

/* ---- journal ---- */

int jnl_bread(struct jnl *j, uint64_t blk, struct jnl_buf **ret)
{
	struct jnl_buf *b;

	must(blk < j->nr);
	if (fails())
		return -EIO;
	if (!j->buf[blk]) {
		b = calloc(1, sizeof(*b));
		b->blk = blk;
		b->data = malloc(j->bs);
		must(dev_read(j->dev, b->data, j->bs, blk * j->bs) == 0);
		j->buf[blk] = b;
	}
	*ret = j->buf[blk];
	return 0;
}

void jnl_readahead(struct jnl *j, uint64_t blk, unsigned n)
{
	must(blk + n <= j->nr);
}

void jnl_brelse(struct jnl_buf *b) { (void)b; }

static void charge(struct jnl_handle *h)
{
	h->used++;
	must_msg(h->used <= h->credits, "handle of %u credits exceeded", h->credits);
}

int jnl_get_write(struct jnl_handle *h, struct jnl_buf *b)
{
	must(h->on);
	if (fails())
		return -EIO;
	for (unsigned k = 0; k < h->nr_bufs; k++)
		if (h->bufs[k].b == b)
			return 0;
	charge(h);
	h->bufs = realloc(h->bufs, (h->nr_bufs + 1) * sizeof(*h->bufs));
	h->j->state[b->blk] = B_META;
	h->bufs[h->nr_bufs] = (struct before) { b, malloc(h->j->bs), b->verified };
	memcpy(h->bufs[h->nr_bufs++].data, b->data, h->j->bs);
	return 0;
}

int jnl_bnew(struct jnl_handle *h, uint64_t blk, struct jnl_buf **ret)
{
	int r = jnl_bread(h->j, blk, ret);

	must(h->j->state[blk] == B_USED);
	if (!r)
		r = jnl_get_write(h, *ret);
	if (!r) {
		memset((*ret)->data, 0, h->j->bs);
		(*ret)->verified = 0;
	}
	return r;
}

unsigned jnl_max_credits(struct jnl *j) { (void)j; return 96; }
jnl_tid jnl_handle_tid(struct jnl_handle *h) { (void)h; return 1; }
uint64_t jnl_forgets_left(struct jnl_handle *h) { (void)h; return 1000; }
unsigned jnl_credits_left(struct jnl_handle *h) { return h->credits - h->used; }

int jnl_begin(struct jnl *j, unsigned credits, struct jnl_handle **ret)
{
	struct jnl_handle *h = &j->h;

	must(!h->on);
	if (fails())
		return -EIO;
	if (credits > jnl_max_credits(j))
		return -ENOSPC;
	*h = (struct jnl_handle) { .j = j, .on = true, .credits = credits };
	h->state = j->before;
	memcpy(h->state, j->state, j->nr);
	h->groups = calloc(1, V->nr_groups);
	*ret = h;
	return 0;
}

void jnl_on_undo(struct jnl_handle *h, struct jnl_callback *cb)
{
	cb->next = h->undo;
	h->undo = cb;
}

/* Each record a piece of its own. */
struct piece { struct piece *next; max_align_t mem[]; };

void *jnl_handle_mem(struct jnl_handle *h, size_t size)
{
	struct piece *p = fails() ? NULL : malloc(sizeof(*p) + size);

	must(h->on);
	if (!p)
		return NULL;
	p->next = h->mem;
	h->mem = p;
	return p->mem;
}

static void run_undo(struct jnl_handle *h, int ended)
{
	struct jnl_callback *cb = h->undo, *next;

	for (; cb; cb = next) {
		next = cb->next;
		cb->fn(cb, ended);
	}
}

static void handle_free(struct jnl_handle *h)
{
	for (unsigned k = 0; k < h->nr_bufs; k++)
		free(h->bufs[k].data);
	free(h->bufs);
	free(h->groups);
	for (struct piece *p = h->mem, *next; p; p = next) {
		next = p->next;
		free(p);
	}
	h->on = false;
}

jnl_tid jnl_end(struct jnl_handle *h)
{
	must(!h->inode_begun || h->inode_dirtied);
	run_undo(h, 1);
	handle_free(h);
	return 1;
}

void jnl_cancel(struct jnl_handle *h)
{
	run_undo(h, 0);
	for (unsigned k = h->nr_bufs; k-- > 0;) {
		memcpy(h->bufs[k].b->data, h->bufs[k].data, h->j->bs);
		h->bufs[k].b->verified = h->bufs[k].verified;
	}
	memcpy(h->j->state, h->state, h->j->nr);
	if (h->inode_begun) {
		memcpy(I->raw, h->raw, V->inode_size);
		I->size = h->size;
		x4_map_drop(I);
	}
	handle_free(h);
}

/* ---- allocator ---- */

static void charge_group(struct jnl_handle *h, uint64_t blk)
{
	uint32_t g = (blk - V->first_data_block) / V->blocks_per_group;

	if (!h->groups[g]) {
		h->groups[g] = 1;
		charge(h);
	}
}

uint64_t mini_free_blocks(void)
{
	uint64_t n = 0;

	for (uint64_t b = 0; b < J->nr; b++)
		n += J->state[b] == B_FREE;
	return n;
}

static int find_free(uint64_t goal, uint32_t n, bool keep_meta, uint64_t *ret_blk, uint32_t *ret_n)
{
	uint64_t start = goal ? goal : V->first_data_block, used = 0;

	if (mini_fragment) {
		n = FDIO_MIN(n, 1 + (uint32_t)(rnd() % mini_fragment));
		if (rnd() % 4)
			start = rnd();
	}
	if (mini_limit_free != UINT64_MAX) {
		for (uint64_t b = 0; b < J->nr; b++)
			used += J->state[b] != B_FREE && !J->initial[b];
		if (used + n + (keep_meta ? J->meta_held : 0) > mini_limit_free)
			return -ENOSPC;
	}
	for (uint64_t k = 0; k < J->nr; k++) {
		uint64_t b = (start + k) % J->nr;

		if (J->state[b] != B_FREE)
			continue;
		*ret_blk = b;
		for (*ret_n = 1; *ret_n < n && b + *ret_n < J->nr && J->state[b + *ret_n] == B_FREE; ++*ret_n)
			;
		return 0;
	}
	return -ENOSPC;
}

int x4_balloc(struct jnl_handle *h, struct x4_inode *i, uint64_t goal, uint32_t n, uint64_t *ret_blk, uint32_t *ret_n)
{
	int r;

	(void)i;
	if (fails())
		return -ENOSPC;
	r = find_free(goal, n, false, ret_blk, ret_n);
	for (uint32_t k = 0; !r && k < *ret_n; k++) {
		charge_group(h, *ret_blk + k);
		J->state[*ret_blk + k] = B_USED;
	}
	return r;
}

int x4_bfree(struct jnl_handle *h, struct x4_inode *i, uint64_t blk, uint32_t n, bool metadata)
{
	(void)i;
	if (fails())
		return -EIO;
	for (uint32_t k = 0; k < n; k++) {
		must(J->state[blk + k] == B_USED || (J->state[blk + k] == B_META && metadata));
		must(!J->initial[blk + k]);
		charge_group(h, blk + k);
		J->state[blk + k] = B_FREE;
	}
	return 0;
}

int x4_balloc_reserve(struct x4_vol *v, struct x4_inode *i, uint64_t goal, uint32_t n, bool root, uint64_t *ret_blk,
		      uint32_t *ret_n)
{
	int r;

	(void)v;
	(void)i;
	(void)root;
	must(!J->h.on);
	if (fails())
		return -ENOSPC;
	r = find_free(goal, n, true, ret_blk, ret_n);
	for (uint32_t k = 0; !r && k < *ret_n; k++)
		J->state[*ret_blk + k] = B_RESERVED;
	return r;
}

void x4_balloc_unreserve(struct x4_vol *v, uint64_t blk, uint32_t n)
{
	(void)v;
	for (uint32_t k = 0; k < n; k++) {
		must(J->state[blk + k] == B_RESERVED);
		J->state[blk + k] = B_FREE;
	}
}

/* No append window is opened here. */
uint64_t x4_balloc_available(struct x4_vol *v, bool root)
{
	(void)v;
	(void)root;
	return 0;
}

void x4_balloc_next(struct x4_inode *i, uint64_t blk) { i->alloc.next = blk; }

void x4_iput_n(struct x4_inode *i, uint64_t n)
{
	(void)i;
	(void)n;
	must(false);
}

int x4_balloc_claim(struct jnl_handle *h, struct x4_inode *i, uint64_t blk, uint32_t n)
{
	(void)i;
	if (fails())
		return -EIO;
	for (uint32_t k = 0; k < n; k++) {
		must(J->state[blk + k] == B_RESERVED);
		charge_group(h, blk + k);
		J->state[blk + k] = B_USED;
	}
	return 0;
}

int x4_meta_reserve(struct x4_vol *v, unsigned n, enum x4_asks who)
{
	(void)v;
	(void)who;
	if (fails())
		return -ENOSPC;
	J->meta_held += n;
	return 0;
}

void x4_meta_unreserve(struct x4_vol *v, unsigned n)
{
	(void)v;
	must(J->meta_held >= n);
	J->meta_held -= n;
}

/* ---- inode ---- */

int x4_inode_begin(struct jnl_handle *h, struct x4_inode *i)
{
	if (fails())
		return -EIO;
	if (!h->inode_begun) {
		memcpy(h->raw, i->raw, V->inode_size);
		h->size = i->size;
		h->inode_begun = true;
	}
	return 0;
}

int x4_inode_dirty(struct jnl_handle *h, struct x4_inode *i, bool data_needed)
{
	(void)i;
	(void)data_needed;
	if (fails())
		return -EIO;
	if (!h->inode_dirtied)
		charge(h);
	h->inode_dirtied = true;
	return 0;
}

uint64_t x4_inode_size(const struct x4_inode *i) { return i->size; }
struct timespec x4_now(struct x4_vol *v) { (void)v; return (struct timespec) { .tv_sec = 1000 }; }
void x4_raw_set_time(struct x4_inode *i, unsigned which, struct timespec ts) { (void)i; (void)which; (void)ts; }
int x4_orphan_add(struct jnl_handle *h, struct x4_inode *i) { (void)h; i->inode.on_orphans = true; return fails() ? -EIO : 0; }
int x4_orphan_del(struct jnl_handle *h, struct x4_inode *i) { (void)h; i->inode.on_orphans = false; return fails() ? -EIO : 0; }
bool x4_blk_valid(struct x4_vol *v, uint64_t blk, uint64_t n)
{
	return blk >= v->first_data_block && n && blk < v->nr_blocks && n <= v->nr_blocks - blk;
}
bool x4_vol_read_only(const struct x4_vol *v) { return v->read_only; }
int x4_from_ext2_err(long err) { (void)err; return -EIO; }
int x4_corrupt(struct x4_vol *v, uint32_t ino, uint64_t blk, const char *func, const char *fmt, ...)
{
	(void)v;
	(void)ino;
	(void)blk;
	(void)func;
	(void)fmt;
	return -EUCLEAN;
}

/* ---- life ---- */

static char *image_path(struct onefile *t)
{
	static char path[64];

	snprintf(path, sizeof(path), "x4mini-%d.img", (int)getpid());
	must(fake_save(t->fake, path) == 0);
	return path;
}

static void vol_fill(struct x4_vol *v, ext2_filsys fs)
{
	v->fs = fs;
	v->block_bits = EXT2_BLOCK_SIZE_BITS(fs->super);
	v->block_size = fs->blocksize;
	v->inode_size = EXT2_INODE_SIZE(fs->super);
	v->nr_blocks = ext2fs_blocks_count(fs->super);
	v->nr_groups = fs->group_desc_count;
	v->first_data_block = fs->super->s_first_data_block;
	v->blocks_per_group = fs->super->s_blocks_per_group;
	v->has_csum = ext2fs_has_feature_metadata_csum(fs->super);
	v->csum_seed = fs->csum_seed;
}

static uint32_t inode_seed(ext2_filsys fs, uint32_t ino, uint32_t gen)
{
	uint32_t le = htole32(ino), c = ext2fs_crc32c_le(fs->csum_seed, (unsigned char *)&le, 4);

	le = htole32(gen);
	return ext2fs_crc32c_le(c, (unsigned char *)&le, 4);
}

static void load(struct onefile *t)
{
	char *path = image_path(t);
	struct x4_vol *v = calloc(1, sizeof(*v));
	struct x4_inode *i = calloc(1, sizeof(*i));
	ext2_filsys fs;

	must(ext2fs_open(path, EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &fs) == 0);
	must(ext2fs_read_bitmaps(fs) == 0);
	unlink(path);
	vol_fill(v, fs);
	v->dev = t->dev;
	J = calloc(1, sizeof(*J));
	*J = (struct jnl) { .dev = t->dev, .bs = v->block_size, .nr = v->nr_blocks, .seed = 88172645463325252ull };
	J->buf = calloc(J->nr, sizeof(*J->buf));
	J->state = calloc(1, J->nr);
	J->initial = calloc(1, J->nr);
	J->before = calloc(1, J->nr);
	for (uint64_t b = 0; b < J->nr; b++)
		if (b < v->first_data_block || ext2fs_test_block_bitmap2(fs->block_map, b))
			J->state[b] = J->initial[b] = B_USED;
	v->jnl = J;
	i->vol = v;
	i->ino = t->ino;
	i->raw = calloc(1, 1024);
	must(ext2fs_read_inode_full(fs, t->ino, (struct ext2_inode *)i->raw, v->inode_size) == 0);
	i->gen = i->raw->i_generation;
	i->csum_seed = inode_seed(fs, t->ino, i->gen);
	i->size = x4_raw_size(i);
	i->mode = i->raw->i_mode;
	fdio_rwlock_init(&i->rw, RANK_X4_INODE);
	fdio_mutex_init(&i->map_lock, RANK_X4_MAP);
	fdio_mutex_init(&i->attr, RANK_X4_ATTR);
	t->v = V = v;
	t->i = I = i;
}

static int mark_owned(ext2_filsys fs, blk64_t *blk, e2_blkcnt_t lblk, blk64_t ref, int off, void *arg)
{
	(void)fs;
	(void)lblk;
	(void)ref;
	(void)off;
	((uint8_t *)arg)[*blk] = 0;
	return 0;
}

/* The file's own blocks may be freed by the test. */
static void own(struct onefile *t)
{
	ext2fs_block_iterate3(t->v->fs, t->ino, BLOCK_FLAG_READ_ONLY, NULL, mark_owned, J->initial);
}

static void store(struct onefile *t)
{
	char *path;
	ext2_filsys fs;

	must(!J->h.on);
	must(J->meta_held == 0);
	for (uint64_t b = 0; b < J->nr; b++)
		if (J->buf[b] && J->state[b] == B_META)
			must(dev_write(t->dev, J->buf[b]->data, J->bs, b * J->bs, 0) == 0);
	path = image_path(t);
	must(ext2fs_open(path, EXT2_FLAG_64BITS | EXT2_FLAG_RW, 0, 0, unix_io_manager, &fs) == 0);
	must(ext2fs_read_bitmaps(fs) == 0);
	for (uint64_t b = V->first_data_block; b < J->nr; b++) {
		bool was = ext2fs_test_block_bitmap2(fs->block_map, b);

		must(J->state[b] != B_RESERVED);
		if (was != (J->state[b] != B_FREE))
			ext2fs_block_alloc_stats2(fs, b, was ? -1 : 1);
	}
	must(ext2fs_write_inode_full(fs, t->ino, (struct ext2_inode *)I->raw, V->inode_size) == 0);
	must(ext2fs_close(fs) == 0);
	must(fake_load(t->fake, path) == 0);
	unlink(path);
}

static void unload(void)
{
	x4_map_drop(I);
	epoch_drain();
	for (uint64_t b = 0; b < J->nr; b++) {
		if (J->buf[b])
			free(J->buf[b]->data);
		free(J->buf[b]);
	}
	free(J->buf);
	free(J->state);
	free(J->initial);
	free(J->before);
	free(J);
	ext2fs_free(V->fs);
	fdio_rwlock_fini(&I->rw);
	fdio_mutex_fini(&I->map_lock);
	fdio_mutex_fini(&I->attr);
	free(I->raw);
	free(I);
	free(V);
}

void onefile_open(struct onefile *t, uint64_t size, const char *mkfs_args, const char *setup)
{
	memset(t, 0, sizeof(*t));
	mini_fail_in = 0;
	mini_fragment = 0;
	mini_limit_free = UINT64_MAX;
	t->fake = onefile_image(size, mkfs_args, setup, &t->ino);
	t->dev = fake_dev(t->fake);
	t->dev->caps.volatile_cache = false;
	load(t);
	own(t);
}

void onefile_recheck(struct onefile *t)
{
	store(t);
	unload();
	must(fake_e2fsck(t->fake) == 0);
	load(t);
	own(t);
}

void onefile_close(struct onefile *t)
{
	unload();
	fake_free(t->fake);
}
