/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A volume in miniature: everything that the extents part calls outside itself, over arrays,
 * single-threaded. It checks what the real rooms cannot: that a handle never changes more blocks
 * than its credits say, that blocks are allocated and freed exactly once, that a cancelled handle
 * leaves nothing behind; and any call can be made to fail.
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

struct before { struct journal_buffer *buffer; uint8_t *data; uint32_t verified; };

struct journal_handle {
	struct journal *journal;
	bool on;
	unsigned credits, used;
	struct before *bufs;
	unsigned nr_bufs;
	uint8_t *state;          /* copy of the block states at the start */
	uint8_t *groups;         /* bitmaps counted already */
	uint8_t raw[1024];
	uint64_t size;
	bool inode_begun, inode_dirtied;
	struct journal_callback *undo;
	struct piece *arena;
};

struct journal {
	struct dev *dev;
	uint32_t block_size;
	uint64_t nr;
	struct journal_buffer **buf;    /* by block */
	struct journal_handle handle;
	uint8_t *state_lock;
	uint8_t *before;         /* the running handle's copy of state */
	uint8_t *initial;        /* B_USED at the start: not ours */
	uint64_t seed, meta_held;
};

static struct journal *J;
static struct ext4_inode *I;
static struct ext4_vol *V;

static bool fails(void) { return mini_fail_in && --mini_fail_in == 0; }

static uint64_t next_random(void)
{
	J->seed ^= J->seed << 13;
	J->seed ^= J->seed >> 7;
	J->seed ^= J->seed << 17;
	return J->seed;
}

/* ---- journal ---- */

int journal_read_block(struct journal *journal, uint64_t blk, struct journal_buffer **ret)
{
	struct journal_buffer *buffer;

	must(blk < journal->nr);
	if (fails())
		return -EIO;
	if (!journal->buf[blk]) {
		buffer = calloc(1, sizeof(*buffer));
		buffer->blk = blk;
		buffer->data = malloc(journal->block_size);
		must(dev_read(journal->dev, buffer->data, journal->block_size,
			      blk * journal->block_size) == 0);
		journal->buf[blk] = buffer;
	}
	*ret = journal->buf[blk];
	return 0;
}

void journal_readahead(struct journal *journal, uint64_t blk, unsigned n)
{
	must(blk + n <= journal->nr);
}

void journal_buffer_release(struct journal_buffer *buffer) { (void)buffer; }

static void charge(struct journal_handle *handle)
{
	handle->used++;
	must_msg(handle->used <= handle->credits, "handle of %u credits exceeded", handle->credits);
}

int journal_get_write(struct journal_handle *handle, struct journal_buffer *buffer)
{
	must(handle->on);
	if (fails())
		return -EIO;
	for (unsigned k = 0; k < handle->nr_bufs; k++)
		if (handle->bufs[k].buffer == buffer)
			return 0;
	charge(handle);
	handle->bufs = realloc(handle->bufs, (handle->nr_bufs + 1) * sizeof(*handle->bufs));
	handle->journal->state_lock[buffer->blk] = B_META;
	handle->bufs[handle->nr_bufs] =
			(struct before){ buffer, malloc(handle->journal->block_size),
					 buffer->verified };
	memcpy(handle->bufs[handle->nr_bufs++].data, buffer->data, handle->journal->block_size);
	return 0;
}

int journal_new_block(struct journal_handle *handle, uint64_t blk, struct journal_buffer **ret)
{
	int err = journal_read_block(handle->journal, blk, ret);

	must(handle->journal->state_lock[blk] == B_USED);
	if (!err)
		err = journal_get_write(handle, *ret);
	if (!err) {
		memset((*ret)->data, 0, handle->journal->block_size);
		(*ret)->verified = 0;
	}
	return err;
}

unsigned journal_max_credits(struct journal *journal) { (void)journal; return 96; }
journal_tid journal_handle_tid(struct journal_handle *handle) { (void)handle; return 1; }
uint64_t journal_forgets_left(struct journal_handle *handle) { (void)handle; return 1000; }
unsigned journal_credits_left(struct journal_handle *handle)
{
	return handle->credits - handle->used;
}

int journal_begin(struct journal *journal, unsigned credits, struct journal_handle **ret)
{
	struct journal_handle *handle = &journal->handle;

	must(!handle->on);
	if (fails())
		return -EIO;
	if (credits > journal_max_credits(journal))
		return -ENOSPC;
	*handle = (struct journal_handle) { .journal = journal, .on = true, .credits = credits };
	handle->state = journal->before;
	memcpy(handle->state, journal->state_lock, journal->nr);
	handle->groups = calloc(1, V->nr_groups);
	*ret = handle;
	return 0;
}

void journal_on_undo(struct journal_handle *handle, struct journal_callback *callback)
{
	callback->next = handle->undo;
	handle->undo = callback;
}

/* Each record a piece of its own. */
struct piece { struct piece *next; max_align_t mem[]; };

void *journal_handle_alloc(struct journal_handle *handle, size_t size)
{
	struct piece *p = fails() ? NULL : malloc(sizeof(*p) + size);

	must(handle->on);
	if (!p)
		return NULL;
	p->next = handle->arena;
	handle->arena = p;
	return p->mem;
}

static void run_undo(struct journal_handle *handle, int ended)
{
	struct journal_callback *callback = handle->undo, *next;

	for (; callback; callback = next) {
		next = callback->next;
		callback->fn(callback, ended);
	}
}

static void handle_free(struct journal_handle *handle)
{
	for (unsigned k = 0; k < handle->nr_bufs; k++)
		free(handle->bufs[k].data);
	free(handle->bufs);
	free(handle->groups);
	for (struct piece *p = handle->arena, *next; p; p = next) {
		next = p->next;
		free(p);
	}
	handle->on = false;
}

journal_tid journal_end(struct journal_handle *handle)
{
	must(!handle->inode_begun || handle->inode_dirtied);
	run_undo(handle, 1);
	handle_free(handle);
	return 1;
}

void journal_cancel(struct journal_handle *handle)
{
	run_undo(handle, 0);
	for (unsigned k = handle->nr_bufs; k-- > 0;) {
		memcpy(handle->bufs[k].buffer->data, handle->bufs[k].data,
		       handle->journal->block_size);
		handle->bufs[k].buffer->verified = handle->bufs[k].verified;
	}
	memcpy(handle->journal->state_lock, handle->state, handle->journal->nr);
	if (handle->inode_begun) {
		memcpy(I->raw, handle->raw, V->inode_size);
		I->size = handle->size;
		ext4_map_drop(I);
	}
	handle_free(handle);
}

/* ---- allocator ---- */

static void charge_group(struct journal_handle *handle, uint64_t blk)
{
	uint32_t group = (blk - V->first_data_block) / V->blocks_per_group;

	if (!handle->groups[group]) {
		handle->groups[group] = 1;
		charge(handle);
	}
}

uint64_t mini_free_blocks(void)
{
	uint64_t n = 0;

	for (uint64_t b = 0; b < J->nr; b++)
		n += J->state_lock[b] == B_FREE;
	return n;
}

static int find_free(uint64_t goal, uint32_t n, bool keep_meta, uint64_t *ret_blk, uint32_t *ret_n)
{
	uint64_t start = goal ? goal : V->first_data_block, used = 0;

	if (mini_fragment) {
		n = FDIO_MIN(n, 1 + (uint32_t)(next_random() % mini_fragment));
		if (next_random() % 4)
			start = next_random();
	}
	if (mini_limit_free != UINT64_MAX) {
		for (uint64_t b = 0; b < J->nr; b++)
			used += J->state_lock[b] != B_FREE && !J->initial[b];
		if (used + n + (keep_meta ? J->meta_held : 0) > mini_limit_free)
			return -ENOSPC;
	}
	for (uint64_t k = 0; k < J->nr; k++) {
		uint64_t b = (start + k) % J->nr;

		if (J->state_lock[b] != B_FREE)
			continue;
		*ret_blk = b;
		for (*ret_n = 1;
		     *ret_n < n && b + *ret_n < J->nr && J->state_lock[b + *ret_n] == B_FREE;
		     ++*ret_n)
			;
		return 0;
	}
	return -ENOSPC;
}

int ext4_blocks_alloc(struct journal_handle *handle, struct ext4_inode *inode, uint64_t goal,
		      uint32_t n, uint64_t *ret_blk, uint32_t *ret_n)
{
	int err;

	(void)inode;
	if (fails())
		return -ENOSPC;
	err = find_free(goal, n, false, ret_blk, ret_n);
	for (uint32_t k = 0; !err && k < *ret_n; k++) {
		charge_group(handle, *ret_blk + k);
		J->state_lock[*ret_blk + k] = B_USED;
	}
	return err;
}

int ext4_blocks_free(struct journal_handle *handle, struct ext4_inode *inode, uint64_t blk,
		     uint32_t n, bool metadata)
{
	(void)inode;
	if (fails())
		return -EIO;
	for (uint32_t k = 0; k < n; k++) {
		must(J->state_lock[blk + k] == B_USED ||
		     (J->state_lock[blk + k] == B_META && metadata));
		must(!J->initial[blk + k]);
		charge_group(handle, blk + k);
		J->state_lock[blk + k] = B_FREE;
	}
	return 0;
}

int ext4_blocks_reserve(struct ext4_vol *vol, struct ext4_inode *inode, uint64_t goal, uint32_t n,
			bool root, uint64_t *ret_blk, uint32_t *ret_n)
{
	int err;

	(void)vol;
	(void)inode;
	(void)root;
	must(!J->handle.on);
	if (fails())
		return -ENOSPC;
	err = find_free(goal, n, true, ret_blk, ret_n);
	for (uint32_t k = 0; !err && k < *ret_n; k++)
		J->state_lock[*ret_blk + k] = B_RESERVED;
	return err;
}

void ext4_blocks_unreserve(struct ext4_vol *vol, uint64_t blk, uint32_t n)
{
	(void)vol;
	for (uint32_t k = 0; k < n; k++) {
		must(J->state_lock[blk + k] == B_RESERVED);
		J->state_lock[blk + k] = B_FREE;
	}
}

/* No append window is opened here. */
uint64_t ext4_blocks_available(struct ext4_vol *vol, bool root)
{
	(void)vol;
	(void)root;
	return 0;
}

void ext4_blocks_next(struct ext4_inode *inode, uint64_t blk) { inode->alloc.next = blk; }

void ext4_inode_put_many(struct ext4_inode *inode, uint64_t n)
{
	(void)inode;
	(void)n;
	must(false);
}

int ext4_blocks_claim(struct journal_handle *handle, struct ext4_inode *inode, uint64_t blk,
		      uint32_t n)
{
	(void)inode;
	if (fails())
		return -EIO;
	for (uint32_t k = 0; k < n; k++) {
		must(J->state_lock[blk + k] == B_RESERVED);
		charge_group(handle, blk + k);
		J->state_lock[blk + k] = B_USED;
	}
	return 0;
}

int ext4_metadata_reserve(struct ext4_vol *vol, unsigned n, enum ext4_requester who)
{
	(void)vol;
	(void)who;
	if (fails())
		return -ENOSPC;
	J->meta_held += n;
	return 0;
}

void ext4_metadata_unreserve(struct ext4_vol *vol, unsigned n)
{
	(void)vol;
	must(J->meta_held >= n);
	J->meta_held -= n;
}

/* ---- inode ---- */

int ext4_inode_begin(struct journal_handle *handle, struct ext4_inode *inode)
{
	if (fails())
		return -EIO;
	if (!handle->inode_begun) {
		memcpy(handle->raw, inode->raw, V->inode_size);
		handle->size = inode->size;
		handle->inode_begun = true;
	}
	return 0;
}

int ext4_inode_dirty(struct journal_handle *handle, struct ext4_inode *inode, bool data_needed)
{
	(void)inode;
	(void)data_needed;
	if (fails())
		return -EIO;
	if (!handle->inode_dirtied)
		charge(handle);
	handle->inode_dirtied = true;
	return 0;
}

struct timespec ext4_now(struct ext4_vol *vol)
{
	(void)vol;
	return (struct timespec){ .tv_sec = 1000 };
}
void ext4_raw_set_time(struct ext4_inode *inode, unsigned which, struct timespec ts)
{
	(void)inode;
	(void)which;
	(void)ts;
}
int ext4_orphan_add(struct journal_handle *handle, struct ext4_inode *inode)
{
	(void)handle;
	inode->inode.on_orphans = true;
	return fails() ? -EIO : 0;
}
int ext4_orphan_del(struct journal_handle *handle, struct ext4_inode *inode)
{
	(void)handle;
	inode->inode.on_orphans = false;
	return fails() ? -EIO : 0;
}
bool ext4_blocks_valid(struct ext4_vol *vol, uint64_t blk, uint64_t n)
{
	return blk >= vol->first_data_block && n && blk < vol->nr_blocks &&
	       n <= vol->nr_blocks - blk;
}
bool ext4_vol_read_only(const struct ext4_vol *vol) { return vol->read_only; }
int ext4_error_from_ext2(long err) { (void)err; return -EIO; }
int ext4_corrupt(struct ext4_vol *vol, uint32_t ino, uint64_t blk, const char *func,
		 const char *fmt, ...)
{
	(void)vol;
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

static void vol_fill(struct ext4_vol *vol, ext2_filsys fs)
{
	vol->fs = fs;
	vol->block_bits = EXT2_BLOCK_SIZE_BITS(fs->super);
	vol->block_size = fs->blocksize;
	vol->inode_size = EXT2_INODE_SIZE(fs->super);
	vol->nr_blocks = ext2fs_blocks_count(fs->super);
	vol->nr_groups = fs->group_desc_count;
	vol->first_data_block = fs->super->s_first_data_block;
	vol->blocks_per_group = fs->super->s_blocks_per_group;
	vol->has_csum = ext2fs_has_feature_metadata_csum(fs->super);
	vol->checksum_seed = fs->csum_seed;
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
	struct ext4_vol *vol = calloc(1, sizeof(*vol));
	struct ext4_inode *inode = calloc(1, sizeof(*inode));
	ext2_filsys fs;

	must(ext2fs_open(path, EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &fs) == 0);
	must(ext2fs_read_bitmaps(fs) == 0);
	unlink(path);
	vol_fill(vol, fs);
	vol->dev = t->dev;
	J = calloc(1, sizeof(*J));
	*J = (struct journal){ .dev = t->dev,
			       .block_size = vol->block_size,
			       .nr = vol->nr_blocks,
			       .seed = 88172645463325252ull };
	J->buf = calloc(J->nr, sizeof(*J->buf));
	J->state_lock = calloc(1, J->nr);
	J->initial = calloc(1, J->nr);
	J->before = calloc(1, J->nr);
	for (uint64_t b = 0; b < J->nr; b++)
		if (b < vol->first_data_block || ext2fs_test_block_bitmap2(fs->block_map, b))
			J->state_lock[b] = J->initial[b] = B_USED;
	vol->journal = J;
	inode->vol = vol;
	inode->ino = t->ino;
	inode->raw = calloc(1, 1024);
	must(ext2fs_read_inode_full(fs, t->ino, (struct ext2_inode *)inode->raw, vol->inode_size) ==
	     0);
	inode->gen = inode->raw->i_generation;
	inode->checksum_seed = inode_seed(fs, t->ino, inode->gen);
	inode->size = ext4_raw_size(inode);
	inode->mode = inode->raw->i_mode;
	fdio_rwlock_init(&inode->rw, RANK_EXT4_INODE);
	fdio_mutex_init(&inode->map_lock, RANK_EXT4_MAP);
	fdio_mutex_init(&inode->attr, RANK_EXT4_ATTR);
	t->vol = V = vol;
	t->inode = I = inode;
}

static int mark_owned(ext2_filsys fs, blk64_t *blk, e2_blkcnt_t lblk, blk64_t ref, int off,
		      void *arg)
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
	ext2fs_block_iterate3(t->vol->fs, t->ino, BLOCK_FLAG_READ_ONLY, NULL, mark_owned,
			      J->initial);
}

static void store(struct onefile *t)
{
	char *path;
	ext2_filsys fs;

	must(!J->handle.on);
	must(J->meta_held == 0);
	for (uint64_t b = 0; b < J->nr; b++)
		if (J->buf[b] && J->state_lock[b] == B_META)
			must(dev_write(t->dev, J->buf[b]->data, J->block_size, b * J->block_size,
				       0) == 0);
	path = image_path(t);
	must(ext2fs_open(path, EXT2_FLAG_64BITS | EXT2_FLAG_RW, 0, 0, unix_io_manager, &fs) == 0);
	must(ext2fs_read_bitmaps(fs) == 0);
	for (uint64_t b = V->first_data_block; b < J->nr; b++) {
		bool was = ext2fs_test_block_bitmap2(fs->block_map, b);

		must(J->state_lock[b] != B_RESERVED);
		if (was != (J->state_lock[b] != B_FREE))
			ext2fs_block_alloc_stats2(fs, b, was ? -1 : 1);
	}
	must(ext2fs_write_inode_full(fs, t->ino, (struct ext2_inode *)I->raw, V->inode_size) == 0);
	must(ext2fs_close(fs) == 0);
	must(fake_load(t->fake, path) == 0);
	unlink(path);
}

static void unload(void)
{
	ext4_map_drop(I);
	epoch_drain();
	for (uint64_t b = 0; b < J->nr; b++) {
		if (J->buf[b])
			free(J->buf[b]->data);
		free(J->buf[b]);
	}
	free(J->buf);
	free(J->state_lock);
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
