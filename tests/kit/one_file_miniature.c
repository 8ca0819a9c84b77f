/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A volume in miniature for kit/one_file.h: everything that the extents call outside themselves,
 * over arrays. It checks what the real rooms cannot: a handle never changes more blocks than its
 * credits say, each block is allocated and freed exactly once, a cancelled handle leaves nothing
 * behind. Any call can be made to fail (mini_fail_in). One volume at a time, one thread.
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

/* Of a META block the cached content is valid, of a USED one what is on the device. */
enum block_state { B_FREE, B_USED, B_META, B_RESERVED };

struct saved_buffer { struct journal_buffer *buffer; uint8_t *data; uint32_t verified; };

struct journal_handle {
	struct journal *journal;
	bool on;
	unsigned credits, used;
	struct saved_buffer *bufs;
	unsigned nr_bufs;
	uint8_t *state;          /* the block states when the handle began */
	uint8_t *groups;         /* by group: its bitmap has been charged */
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
	uint8_t *state;                 /* by block: enum block_state */
	uint8_t *before;                /* the running handle's copy of state */
	uint8_t *initial;               /* by block: in use at the start, and not by the file */
	uint64_t seed, meta_held;
};

static struct journal *the_journal;
static struct ext4_inode *the_inode;
static struct ext4_vol *the_volume;

static bool fails(void) { return mini_fail_in && --mini_fail_in == 0; }

static uint64_t next_random(void)
{
	the_journal->seed ^= the_journal->seed << 13;
	the_journal->seed ^= the_journal->seed >> 7;
	the_journal->seed ^= the_journal->seed << 17;
	return the_journal->seed;
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
	handle->journal->state[buffer->blk] = B_META;
	handle->bufs[handle->nr_bufs] =
			(struct saved_buffer){ buffer, malloc(handle->journal->block_size),
					 buffer->verified };
	memcpy(handle->bufs[handle->nr_bufs++].data, buffer->data, handle->journal->block_size);
	return 0;
}

int journal_new_block(struct journal_handle *handle, uint64_t blk, struct journal_buffer **ret)
{
	int err = journal_read_block(handle->journal, blk, ret);

	must(handle->journal->state[blk] == B_USED);
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
	memcpy(handle->state, journal->state, journal->nr);
	handle->groups = calloc(1, the_volume->nr_groups);
	*ret = handle;
	return 0;
}

void journal_on_undo(struct journal_handle *handle, struct journal_callback *callback)
{
	callback->next = handle->undo;
	handle->undo = callback;
}

/* Memory of a handle: each allocation is a piece of its own. */
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
	memcpy(handle->journal->state, handle->state, handle->journal->nr);
	if (handle->inode_begun) {
		memcpy(the_inode->raw, handle->raw, the_volume->inode_size);
		the_inode->size = handle->size;
		ext4_map_drop(the_inode);
	}
	handle_free(handle);
}

/* ---- allocator ---- */

static void charge_group(struct journal_handle *handle, uint64_t blk)
{
	uint32_t group = (blk - the_volume->first_data_block) / the_volume->blocks_per_group;

	if (!handle->groups[group]) {
		handle->groups[group] = 1;
		charge(handle);
	}
}

uint64_t mini_free_blocks(void)
{
	uint64_t n = 0;

	for (uint64_t b = 0; b < the_journal->nr; b++)
		n += the_journal->state[b] == B_FREE;
	return n;
}

static bool is_free(uint64_t blk)
{
	return blk < the_journal->nr && the_journal->state[blk] == B_FREE;
}

static int find_free(uint64_t goal, uint32_t n, bool keep_meta, uint64_t *ret_blk, uint32_t *ret_n)
{
	uint64_t start = goal ? goal : the_volume->first_data_block, used = 0;

	if (mini_fragment) {
		n = FDIO_MIN(n, 1 + (uint32_t)(next_random() % mini_fragment));
		if (next_random() % 4)
			start = next_random();
	}
	if (mini_limit_free != UINT64_MAX) {
		for (uint64_t b = 0; b < the_journal->nr; b++)
			used += the_journal->state[b] != B_FREE &&
				!the_journal->initial[b];
		if (used + n + (keep_meta ? the_journal->meta_held : 0) > mini_limit_free)
			return -ENOSPC;
	}
	for (uint64_t k = 0; k < the_journal->nr; k++) {
		uint64_t b = (start + k) % the_journal->nr;

		if (the_journal->state[b] != B_FREE)
			continue;
		*ret_blk = b;
		for (*ret_n = 1; *ret_n < n && is_free(b + *ret_n);)
			++*ret_n;
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
		the_journal->state[*ret_blk + k] = B_USED;
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
		must(the_journal->state[blk + k] == B_USED ||
		     (the_journal->state[blk + k] == B_META && metadata));
		must(!the_journal->initial[blk + k]);
		charge_group(handle, blk + k);
		the_journal->state[blk + k] = B_FREE;
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
	must(!the_journal->handle.on);
	if (fails())
		return -ENOSPC;
	err = find_free(goal, n, true, ret_blk, ret_n);
	for (uint32_t k = 0; !err && k < *ret_n; k++)
		the_journal->state[*ret_blk + k] = B_RESERVED;
	return err;
}

void ext4_blocks_unreserve(struct ext4_vol *vol, uint64_t blk, uint32_t n)
{
	(void)vol;
	for (uint32_t k = 0; k < n; k++) {
		must(the_journal->state[blk + k] == B_RESERVED);
		the_journal->state[blk + k] = B_FREE;
	}
}

/* No space for an append window: none is opened here. */
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
		must(the_journal->state[blk + k] == B_RESERVED);
		charge_group(handle, blk + k);
		the_journal->state[blk + k] = B_USED;
	}
	return 0;
}

int ext4_metadata_reserve(struct ext4_vol *vol, unsigned n, enum ext4_requester who)
{
	(void)vol;
	(void)who;
	if (fails())
		return -ENOSPC;
	the_journal->meta_held += n;
	return 0;
}

void ext4_metadata_unreserve(struct ext4_vol *vol, unsigned n)
{
	(void)vol;
	must(the_journal->meta_held >= n);
	the_journal->meta_held -= n;
}

/* ---- inode ---- */

int ext4_inode_begin(struct journal_handle *handle, struct ext4_inode *inode)
{
	if (fails())
		return -EIO;
	if (!handle->inode_begun) {
		memcpy(handle->raw, inode->raw, the_volume->inode_size);
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

	snprintf(path, sizeof(path), "miniature-%d.img", (int)getpid());
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
	the_journal = calloc(1, sizeof(*the_journal));
	*the_journal = (struct journal){ .dev = t->dev,
			       .block_size = vol->block_size,
			       .nr = vol->nr_blocks,
			       .seed = 88172645463325252ull };
	the_journal->buf = calloc(the_journal->nr, sizeof(*the_journal->buf));
	the_journal->state = calloc(1, the_journal->nr);
	the_journal->initial = calloc(1, the_journal->nr);
	the_journal->before = calloc(1, the_journal->nr);
	for (uint64_t b = 0; b < the_journal->nr; b++)
		if (b < vol->first_data_block || ext2fs_test_block_bitmap2(fs->block_map, b))
			the_journal->state[b] = the_journal->initial[b] = B_USED;
	vol->journal = the_journal;
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
	t->vol = the_volume = vol;
	t->inode = the_inode = inode;
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

/* The file's own blocks are not "initial": a test may free them. */
static void own(struct onefile *t)
{
	ext2fs_block_iterate3(t->vol->fs, t->ino, BLOCK_FLAG_READ_ONLY, NULL, mark_owned,
			      the_journal->initial);
}

static void store(struct onefile *t)
{
	char *path;
	ext2_filsys fs;

	must(!the_journal->handle.on);
	must(the_journal->meta_held == 0);
	for (uint64_t b = 0; b < the_journal->nr; b++)
		if (the_journal->buf[b] && the_journal->state[b] == B_META)
			must(dev_write(t->dev, the_journal->buf[b]->data,
				       the_journal->block_size, b * the_journal->block_size,
				       0) == 0);
	path = image_path(t);
	must(ext2fs_open(path, EXT2_FLAG_64BITS | EXT2_FLAG_RW, 0, 0, unix_io_manager, &fs) == 0);
	must(ext2fs_read_bitmaps(fs) == 0);
	for (uint64_t b = the_volume->first_data_block; b < the_journal->nr; b++) {
		bool was = ext2fs_test_block_bitmap2(fs->block_map, b);

		must(the_journal->state[b] != B_RESERVED);
		if (was != (the_journal->state[b] != B_FREE))
			ext2fs_block_alloc_stats2(fs, b, was ? -1 : 1);
	}
	must(ext2fs_write_inode_full(fs, t->ino, (struct ext2_inode *)the_inode->raw,
				     the_volume->inode_size) == 0);
	must(ext2fs_close(fs) == 0);
	must(fake_load(t->fake, path) == 0);
	unlink(path);
}

static void unload(void)
{
	ext4_map_drop(the_inode);
	epoch_drain();
	for (uint64_t b = 0; b < the_journal->nr; b++) {
		if (the_journal->buf[b])
			free(the_journal->buf[b]->data);
		free(the_journal->buf[b]);
	}
	free(the_journal->buf);
	free(the_journal->state);
	free(the_journal->initial);
	free(the_journal->before);
	free(the_journal);
	ext2fs_free(the_volume->fs);
	fdio_rwlock_fini(&the_inode->rw);
	fdio_mutex_fini(&the_inode->map_lock);
	fdio_mutex_fini(&the_inode->attr);
	free(the_inode->raw);
	free(the_inode);
	free(the_volume);
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
