/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Crash workload on a tree, by several threads at once through the ext4 room: create, write over
 * holes, preallocated and written blocks, O_DSYNC overwrites with FUA alone, truncate, punch,
 * fallocate, xattrs, link, unlink, rename over another file, mkdir and rmdir; fsync of files and of
 * directories, and syncfs. All threads use the same three directories. Each name belongs to one
 * thread, which alone changes its part of the model, so the model needs no lock.
 *
 * Every 16 bytes of a file name its identity, generation and position. Promised after a cut, for a
 * name that was synced and not touched since: it is there or not, as it was; and if the file was
 * synced, so are its size, every byte and its attribute. Every other name shows zeroes and bytes of
 * one file only, which once had this name. e2fsck judges the tree as a whole.
 *
 * With crash_tiny set, one thread does a few operations, so that every cut can be tried.
 */
#include "crash/crash_tree.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

bool crash_tiny;

const struct ext4_options tree_options = { .acl = true,
					   .user_xattr = true,
					   .commit_interval_s = 3600 };
static const struct ext4_credentials tree_cred = { .cap_fsetid = true };
const char tree_xattr_name[] = "user.crash";

/* ---- bytes ---- */

uint32_t tree_mix(uint32_t id, uint32_t lblk, unsigned off)
{
	return (id * 2654435761u ^ lblk * 40503u) + (off << 8) + 1;
}

void tree_fill(uint8_t *buf, unsigned bs, uint32_t id, uint32_t lblk, uint32_t gen)
{
	for (unsigned off = 0; off < bs; off += 16) {
		uint32_t w[4] = { id, gen, tree_mix(id, lblk, off), ~gen };

		memcpy(buf + off, w, 16);
	}
}

/* Short, or too long for the inode, or too long for a block and so in an inode of its own. */
size_t tree_xattr_value(uint8_t *buf, uint32_t v)
{
	static const size_t lens[] = { 8, 300, 8, TREE_XATTR_MAX };
	size_t len = lens[v % 4];

	memset(buf, (int)(v & 0xff), len);
	memcpy(buf, &v, sizeof(v));
	return len;
}

unsigned tree_text(char *buf, size_t len, unsigned worker, unsigned n)
{
	return (unsigned)snprintf(buf, len, "t%u.%u", worker, n);
}

/* ---- the model ---- */

static struct ext4_inode *dir_of(struct crash_run *run, unsigned n)
{
	return run->dir[n % NR_DIRS];
}

static void touch_name(struct worker *worker, struct name *name)
{
	if (name->ops < MAX_OPS)
		name->start[name->ops++] = fake_record_events(worker->run->fake);
}

/* The file is about to change, and so is what each of its names stands for. */
static void touch_file(struct worker *worker, struct file *file)
{
	file->dirty = true;
	for (unsigned n = 0; n < NR_NAMES; n++)
		if (worker->name[n].file == file)
			touch_name(worker, &worker->name[n]);
}

static void give_name(struct name *name, struct file *file)
{
	name->file = file;
	if (name->nr_ids < NR_FILES)
		name->ids[name->nr_ids++] = file->id;
}

/* The name, and with content its file, is durable as the model has it now. */
static void ack(struct worker *worker, struct name *name, bool content)
{
	if (name->nr_acks == MAX_ACKS)
		return;
	name->acks[name->nr_acks] = (struct ack){ .event = fake_record_events(worker->run->fake),
						  .ops = name->ops,
						  .content = content };
	if (name->file)
		name->acks[name->nr_acks].file = *name->file;
	name->nr_acks++;
}

static void ack_file(struct worker *worker, struct file *file)
{
	file->dirty = false;
	for (unsigned n = 0; n < NR_NAMES; n++)
		if (worker->name[n].file == file)
			ack(worker, &worker->name[n], true);
}

/* ---- names; each operation returns 0 or -errno, and the model follows only on success ---- */

static int op_make(struct worker *worker, unsigned n, bool dir)
{
	struct file *file = &worker->file[worker->nr_files];
	struct ext4_inode *inode;
	char text[32];
	int err;

	if (worker->nr_files == NR_FILES)
		return 0;
	touch_name(worker, &worker->name[n]);
	err = ext4_create(dir_of(worker->run, n), text,
			  tree_text(text, sizeof(text), worker->nr, n), dir ? 040755 : 0100644, 0,
			  &tree_cred, &inode);
	if (err)
		return err;
	ext4_inode_put(inode);
	*file = (struct file){ .id = worker->nr << 16 | ++worker->nr_files,
			       .kind = dir ? KIND_DIR : KIND_FILE,
			       .dirty = true };
	give_name(&worker->name[n], file);
	return 0;
}

static int op_remove(struct worker *worker, unsigned n)
{
	struct file *file = worker->name[n].file;
	char text[32];
	unsigned len = tree_text(text, sizeof(text), worker->nr, n);
	int err;

	touch_file(worker, file);
	err = file->kind == KIND_DIR ? ext4_rmdir(dir_of(worker->run, n), text, len)
				  : ext4_unlink(dir_of(worker->run, n), text, len);
	if (!err)
		worker->name[n].file = NULL;
	return err;
}

static int op_link(struct worker *worker, unsigned n, unsigned to, struct ext4_inode *inode)
{
	struct file *file = worker->name[n].file;
	char text[32];
	int err;

	if (worker->name[to].file)
		return 0;
	touch_file(worker, file);
	touch_name(worker, &worker->name[to]);
	err = ext4_link(dir_of(worker->run, to), text,
			tree_text(text, sizeof(text), worker->nr, to), inode, true);
	if (!err)
		give_name(&worker->name[to], file);
	return err;
}

static int op_rename(struct worker *worker, unsigned n, unsigned to)
{
	struct file *file = worker->name[n].file, *over = worker->name[to].file;
	char from_text[32], to_text[32];
	unsigned from_len = tree_text(from_text, sizeof(from_text), worker->nr, n),
		 to_len = tree_text(to_text, sizeof(to_text), worker->nr, to);
	int err;

	if (file == over || (over && over->kind != file->kind))
		return 0;
	touch_file(worker, file);
	if (over)
		touch_file(worker, over);
	else
		touch_name(worker, &worker->name[to]);
	err = ext4_rename(dir_of(worker->run, n), from_text, from_len, dir_of(worker->run, to),
			  to_text, to_len, 0, &tree_cred);
	if (!err) {
		worker->name[n].file = NULL;
		give_name(&worker->name[to], file);
	}
	return err;
}

/* ---- content; the inode is locked ---- */

static int put_block(struct worker *worker, struct file *file, uint32_t lblk, uint64_t pblk,
		     unsigned flags)
{
	tree_fill(worker->buf, worker->run->block_size, file->id, lblk, worker->gen);
	return dev_write(fake_dev(worker->run->fake), worker->buf, worker->run->block_size,
			 pblk * worker->run->block_size, flags);
}

/* Data into the blocks that are mapped already, then into those that were reserved. */
static int write_data(struct worker *worker, struct file *file, struct ext4_inode *inode,
		      const struct ext4_reservation *reservation, uint32_t at, uint32_t len)
{
	int err = 0;

	for (uint32_t b = at; b < at + len && !err; b++) {
		struct ext4_extent extent;

		err = ext4_map_lookup(inode, b, &extent);
		if (!err && extent.state != EXT4_EXTENT_HOLE)
			err = put_block(worker, file, b, extent.pblk, 0);
	}
	for (unsigned e = 0; e < reservation->nr && !err; e++) {
		const struct ext4_extent *extent = &reservation->ext[e];

		for (uint32_t b = 0; b < extent->len && !err; b++)
			err = put_block(worker, file, extent->lblk + b, extent->pblk + b, 0);
	}
	return err;
}

static int op_write(struct worker *worker, struct file *file, struct ext4_inode *inode)
{
	uint32_t at = crash_pick(&worker->seed, MAX_BLOCKS - 6),
		 len = 1 + crash_pick(&worker->seed, 6);
	uint64_t end = (uint64_t)(at + len) * worker->run->block_size;
	struct ext4_reservation reservation;
	int err;

	worker->gen++;
	err = ext4_reserve_holes(inode, at, len, false, &reservation);
	if (err)
		return err;
	err = write_data(worker, file, inode, &reservation, at, len);
	if (!err)
		err = ext4_insert(inode, &reservation, at, len, end > file->size ? end : 0);
	ext4_reservation_free(&reservation);
	for (uint32_t b = at; b < at + len && !err; b++) {
		file->gen[b] = worker->gen;
		file->valid[b] = worker->run->block_size;
	}
	if (!err)
		file->size = FDIO_MAX(file->size, end);
	return err;
}

static int op_truncate(struct worker *worker, struct file *file, struct ext4_inode *inode)
{
	unsigned bs = worker->run->block_size;
	uint64_t size = (uint64_t)crash_pick(&worker->seed, (unsigned)(file->size / bs) + 1) * bs;
	int err;

	if (size && crash_pick(&worker->seed, 2))
		size -= 16 * (1 + crash_pick(&worker->seed, 30));
	err = ext4_truncate(inode, size);
	if (err)
		return err;
	file->size = size;
	if (size % bs)
		file->valid[size / bs] = FDIO_MIN(file->valid[size / bs], (uint32_t)(size % bs));
	for (uint64_t b = fdio_div_up(size, bs); b < MAX_BLOCKS; b++)
		file->gen[b] = 0;
	return 0;
}

static int op_allocate(struct worker *worker, struct file *file, struct ext4_inode *inode,
		       bool punch)
{
	uint32_t at = crash_pick(&worker->seed, MAX_BLOCKS - 6),
		 len = 1 + crash_pick(&worker->seed, 6);
	uint64_t off = (uint64_t)at * worker->run->block_size;
	uint64_t bytes = (uint64_t)len * worker->run->block_size;
	bool keep = punch || crash_pick(&worker->seed, 2);
	int mode = (punch ? EXT4_FALLOC_PUNCH_HOLE : 0) | (keep ? EXT4_FALLOC_KEEP_SIZE : 0);
	int err = ext4_fallocate(inode, mode, off, bytes, false);

	if (err)
		return err;
	for (uint32_t b = at; b < at + len && punch; b++)
		file->gen[b] = 0;
	if (!keep)
		file->size = FDIO_MAX(file->size, off + bytes);
	return 0;
}

static int op_xattr(struct worker *worker, struct file *file, struct ext4_inode *inode)
{
	static __thread uint8_t value[TREE_XATTR_MAX];
	uint32_t v = crash_pick(&worker->seed, 4) ? ++worker->gen : 0;
	int err;

	if (!v && !file->xattr)
		return 0;
	err = v ? ext4_xattr_set(inode, tree_xattr_name, value, tree_xattr_value(value, v), 0,
				 false)
		: ext4_xattr_remove(inode, tree_xattr_name);
	if (!err)
		file->xattr = v;
	return err;
}

static int change_content(struct worker *worker, unsigned what, struct file *file,
			  struct ext4_inode *inode)
{
	int err;

	touch_file(worker, file);
	if (what == 4)
		return op_xattr(worker, file, inode);
	ext4_inode_lock_exclusive(inode);
	err = ext4_map_load(inode);
	if (!err)
		err = what == 0   ? op_write(worker, file, inode)
		      : what == 1 ? op_truncate(worker, file, inode)
				  : op_allocate(worker, file, inode, what == 2);
	ext4_inode_unlock(inode);
	return err;
}

/* ---- syncing ---- */

/*
 * Writes a written block again with O_DSYNC: one FUA write, and no commit if nothing else has
 * changed.
 */
static int op_dsync(struct worker *worker, struct file *file, struct ext4_inode *inode)
{
	uint32_t lblk = crash_pick(&worker->seed, MAX_BLOCKS);
	bool clean = !file->dirty;
	struct ext4_extent extent;
	journal_tid tid;
	int err;

	if ((uint64_t)(lblk + 1) * worker->run->block_size > file->size || !file->gen[lblk])
		return 0;
	touch_file(worker, file);
	worker->gen++;
	ext4_inode_lock_shared(inode);
	err = ext4_map_load(inode);
	if (!err)
		err = ext4_map_lookup(inode, lblk, &extent);
	if (!err)
		err = extent.state == EXT4_EXTENT_WRITTEN
				      ? put_block(worker, file, lblk, extent.pblk, DEV_FUA)
				      : -EPROTO;
	ext4_touch_write(inode);
	ext4_inode_unlock(inode);
	if (!err && ext4_sync_tid(inode, true, &tid))
		err = journal_commit_wait(ext4_vol_journal(worker->run->vol), tid, NULL);
	if (err)
		return err;
	file->gen[lblk] = worker->gen;
	file->valid[lblk] = worker->run->block_size;
	if (clean)
		ack_file(worker, file);
	return 0;
}

static int sync_inode(struct worker *worker, struct ext4_inode *inode)
{
	bool flushed = false;
	journal_tid tid;
	int err = 0;

	if (ext4_sync_tid(inode, false, &tid))
		err = journal_commit_wait(ext4_vol_journal(worker->run->vol), tid, &flushed);
	if (!err && !flushed)
		err = dev_flush(fake_dev(worker->run->fake));
	return err;
}

static int op_fsync(struct worker *worker, struct file *file, struct ext4_inode *inode)
{
	int err = sync_inode(worker, inode);

	if (!err)
		ack_file(worker, file);
	return err;
}

static int op_fsync_dir(struct worker *worker)
{
	unsigned d = crash_pick(&worker->seed, NR_DIRS);
	int err = sync_inode(worker, worker->run->dir[d]);

	for (unsigned n = d; n < NR_NAMES && !err; n += NR_DIRS)
		ack(worker, &worker->name[n], false);
	return err;
}

static int op_syncfs(struct worker *worker)
{
	int err = ext4_vol_sync(worker->run->vol);

	for (unsigned n = 0; n < NR_NAMES && !err; n++) {
		if (worker->name[n].file)
			worker->name[n].file->dirty = false;
		ack(worker, &worker->name[n], true);
	}
	return err;
}

/* ---- life ---- */

static int on_file(struct worker *worker, unsigned n, unsigned what)
{
	struct file *file = worker->name[n].file;
	struct ext4_inode *inode;
	char text[32];
	int err = ext4_lookup(dir_of(worker->run, n), text,
			      tree_text(text, sizeof(text), worker->nr, n), &inode);

	if (err)
		return err;
	if (what < 7)
		err = change_content(worker, 0, file, inode);
	else if (what < 11)
		err = change_content(worker, what - 6, file, inode);
	else if (what < 13)
		err = op_link(worker, n, crash_pick(&worker->seed, NR_NAMES), inode);
	else if (what < 16)
		err = op_dsync(worker, file, inode);
	else
		err = op_fsync(worker, file, inode);
	ext4_inode_put(inode);
	return err;
}

static int one_op(struct worker *worker)
{
	unsigned n = crash_pick(&worker->seed, NR_NAMES), what = crash_pick(&worker->seed, 27);
	struct file *file = worker->name[n].file;

	if (!file)
		return op_make(worker, n, crash_pick(&worker->seed, 5) == 0);
	if (what >= 26)
		return op_syncfs(worker);
	if (what >= 25)
		return op_fsync_dir(worker);
	if (what >= 23)
		return op_remove(worker, n);
	if (what >= 20)
		return op_rename(worker, n, crash_pick(&worker->seed, NR_NAMES));
	if (file->kind == KIND_DIR)
		return what < 3 ? op_remove(worker, n) : op_fsync_dir(worker);
	return on_file(worker, n, what);
}

static void *work(void *arg)
{
	struct worker *worker = arg;
	unsigned rounds = crash_tiny ? ROUNDS_TINY : ROUNDS;

	for (unsigned round = 0; round < rounds && !worker->err; round++) {
		int err = one_op(worker);

		if (err && err != -ENOSPC)
			worker->err = err;
	}
	return NULL;
}

void tree_close_dirs(struct ext4_inode **dir)
{
	for (unsigned d = 0; d < NR_DIRS; d++) {
		ext4_inode_put(dir[d]);
		dir[d] = NULL;
	}
}

bool tree_open_dirs(struct ext4_vol *vol, struct ext4_inode **dir, bool make)
{
	if (ext4_inode_get(vol, EXT4_ROOT_INO, NULL, &dir[0]))
		return false;
	for (unsigned d = 1; d < NR_DIRS; d++) {
		char text[16];
		unsigned len = (unsigned)snprintf(text, sizeof(text), "dir%u", d);

		if (make ? ext4_create(dir[0], text, len, 040755, 0, &tree_cred, &dir[d])
			 : ext4_lookup(dir[0], text, len, &dir[d]))
			return false;
	}
	return true;
}

static void tree_free(struct crash_run *run)
{
	if (run->vol) {
		tree_close_dirs(run->dir);
		ext4_vol_abandon(run->vol);
	}
	if (run->fake)
		fake_free(run->fake);
	for (unsigned t = 0; t < NR_THREADS; t++) {
		for (unsigned n = 0; n < NR_NAMES; n++)
			free(run->worker[t].name[n].acks);
		free(run->worker[t].buf);
	}
	free(run);
}

static bool setup(struct crash_run *run, uint64_t seed)
{
	bool small = crash_tiny || crash_pick(&seed, 3) != 0, csum = crash_pick(&seed, 4) != 0;
	unsigned mib = small ? 1 : 4;
	char args[200], why[256] = "";

	snprintf(args, sizeof(args),
		 "-t ext4 -b %u -O %s,64bit,ea_inode,^resize_inode -N 256 -g 2048 -E "
		 "nodiscard,lazy_itable_init=0 -J size=%u",
		 small ? 1024 : 4096, csum ? "metadata_csum" : "^metadata_csum", mib);
	run->fake = fake_mkfs((uint64_t)mib * 6 << 20, args);
	if (!run->fake)
		return false;
	run->block_size = small ? 1024 : 4096;
	run->nr_workers = crash_tiny ? 1 : NR_THREADS;
	for (unsigned t = 0; t < run->nr_workers; t++) {
		struct worker *worker = &run->worker[t];

		worker->run = run;
		worker->nr = t;
		worker->seed = seed + t * 7919;
		worker->buf = fdio_alloc_aligned(4096, 4096);
		FDIO_ASSERT(worker->buf);
		for (unsigned n = 0; n < NR_NAMES; n++)
			if (!(worker->name[n].acks = calloc(MAX_ACKS, sizeof(struct ack))))
				return false;
	}
	if (ext4_vol_open(fake_dev(run->fake), &tree_options, &run->vol, NULL, FDIO_REASON(why))) {
		fprintf(stderr, "ext4_vol_open: %s\n", why);
		return false;
	}
	return tree_open_dirs(run->vol, run->dir, true) && !ext4_vol_sync(run->vol);
}

/* Runs all workers, the first on this thread; false if an operation failed. */
static bool work_all(struct crash_run *run)
{
	bool ok = true;

	for (unsigned t = 1; t < run->nr_workers; t++)
		FDIO_MUST(!pthread_create(&run->worker[t].thread, NULL, work, &run->worker[t]));
	work(&run->worker[0]);
	for (unsigned t = 0; t < run->nr_workers; t++) {
		if (t)
			pthread_join(run->worker[t].thread, NULL);
		if (run->worker[t].err)
			fprintf(stderr, "tree workload: an operation of thread %u failed with %d\n",
				t, run->worker[t].err);
		ok = ok && !run->worker[t].err;
	}
	return ok;
}

static struct crash_run *tree_run(uint64_t seed)
{
	struct crash_run *run = calloc(1, sizeof(*run));

	FDIO_ASSERT(run);
	if (!setup(run, seed)) {
		tree_free(run);
		return NULL;
	}
	fake_record_start(run->fake);
	if (!work_all(run)) {
		tree_free(run);
		return NULL;
	}
	if (seed % 3 == 0) {
		tree_close_dirs(run->dir);
		if (ext4_vol_close(run->vol))
			fprintf(stderr, "tree workload: close failed\n");
		run->vol = NULL;
		for (unsigned t = 0; t < run->nr_workers; t++)
			for (unsigned n = 0; n < NR_NAMES; n++)
				ack(&run->worker[t], &run->worker[t].name[n], true);
	}
	return run;
}

static struct fake_dev *tree_device(struct crash_run *run) { return run->fake; }

static int tree_recover(struct crash_run *run, struct fake_dev *fake, char *why, size_t len)
{
	return crash_recover_volume(&tree_options, fake, why, len);
}

const struct crash_workload crash_tree = {
	.name = "tree",
	.run = tree_run,
	.device = tree_device,
	.recover = tree_recover,
	.check = tree_check,
	.digest = tree_digest,
	.free = tree_free,
};
