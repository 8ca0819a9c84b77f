/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Crash workload on a tree, from several threads at once through the ext4 room: create, write over holes, preallocated and
 * written blocks, O_DSYNC overwrites with FUA alone, truncate, punch, fallocate, xattrs, link, unlink, rename over another
 * file, mkdir and rmdir; fsync of files and of directories, and syncfs. The three directories are everybody's; each
 * name belongs to one thread, which alone knows what it should be, so the model needs no lock.
 *
 * Every 16 bytes of a file name its identity, generation and position. Promised after a cut, for a name that was synced and not
 * touched since: that it is there or not; and if the file was synced, its size, every byte and its attribute. Whatever
 * else is there holds bytes of one file only, that once had this name, or zeroes. The tree as a whole is e2fsck's to judge.
 *
 * With crash_tiny set it is one thread and a few operations, small enough to try every cut in every way.
 */
#include "crash/crash_tree.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

bool crash_tiny;

const struct x4_options tree_options = { .acl = true, .user_xattr = true, .commit_interval_s = 3600 };
static const struct x4_cred tree_cred = { .cap_fsetid = true };
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

/* The attribute's value: short, or too long for the inode, or for a block: then it gets an inode of its own. */
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

static struct x4_inode *dir_of(struct crash_run *r, unsigned n) { return r->dir[n % NDIRS]; }

static void touch_name(struct worker *w, struct name *n)
{
	if (n->ops < MAX_OPS)
		n->start[n->ops++] = fake_rec_events(w->r->f);
}

/* The file changes: so does what every name of it stands for. */
static void touch_file(struct worker *w, struct file *f)
{
	f->dirty = true;
	for (unsigned n = 0; n < NN; n++)
		if (w->name[n].file == f)
			touch_name(w, &w->name[n]);
}

static void give_name(struct name *n, struct file *f)
{
	n->file = f;
	if (n->nr_ids < NF)
		n->ids[n->nr_ids++] = f->id;
}

static void ack(struct worker *w, struct name *n, bool content)
{
	if (n->nr_acks == MAX_ACKS)
		return;
	n->acks[n->nr_acks] = (struct ack){ .event = fake_rec_events(w->r->f), .ops = n->ops, .content = content };
	if (n->file)
		n->acks[n->nr_acks].file = *n->file;
	n->nr_acks++;
}

static void ack_file(struct worker *w, struct file *f)
{
	f->dirty = false;
	for (unsigned n = 0; n < NN; n++)
		if (w->name[n].file == f)
			ack(w, &w->name[n], true);
}

/* ---- names; each operation returns 0 or -errno, and the model follows only on success ---- */

static int op_make(struct worker *w, unsigned n, bool dir)
{
	struct file *f = &w->file[w->nr_files];
	struct x4_inode *i;
	char text[32];
	int ret;

	if (w->nr_files == NF)
		return 0;
	touch_name(w, &w->name[n]);
	ret = x4_create(dir_of(w->r, n), text, tree_text(text, sizeof(text), w->nr, n), dir ? 040755 : 0100644, 0, &tree_cred, &i);
	if (ret)
		return ret;
	x4_iput(i);
	*f = (struct file){ .id = w->nr << 16 | ++w->nr_files, .kind = dir ? K_DIR : K_FILE, .dirty = true };
	give_name(&w->name[n], f);
	return 0;
}

static int op_remove(struct worker *w, unsigned n)
{
	struct file *f = w->name[n].file;
	char text[32];
	unsigned len = tree_text(text, sizeof(text), w->nr, n);
	int ret;

	touch_file(w, f);
	ret = f->kind == K_DIR ? x4_rmdir(dir_of(w->r, n), text, len) : x4_unlink(dir_of(w->r, n), text, len);
	if (!ret)
		w->name[n].file = NULL;
	return ret;
}

static int op_link(struct worker *w, unsigned n, unsigned to, struct x4_inode *i)
{
	struct file *f = w->name[n].file;
	char text[32];
	int ret;

	if (w->name[to].file)
		return 0;
	touch_file(w, f);
	touch_name(w, &w->name[to]);
	ret = x4_link(dir_of(w->r, to), text, tree_text(text, sizeof(text), w->nr, to), i, true);
	if (!ret)
		give_name(&w->name[to], f);
	return ret;
}

static int op_rename(struct worker *w, unsigned n, unsigned to)
{
	struct file *f = w->name[n].file, *over = w->name[to].file;
	char from_text[32], to_text[32];
	unsigned from_len = tree_text(from_text, sizeof(from_text), w->nr, n), to_len = tree_text(to_text, sizeof(to_text), w->nr, to);
	int ret;

	if (f == over || (over && over->kind != f->kind))
		return 0;
	touch_file(w, f);
	if (over)
		touch_file(w, over);
	else
		touch_name(w, &w->name[to]);
	ret = x4_rename(dir_of(w->r, n), from_text, from_len, dir_of(w->r, to), to_text, to_len, 0, &tree_cred);
	if (!ret) {
		w->name[n].file = NULL;
		give_name(&w->name[to], f);
	}
	return ret;
}

/* ---- content; the inode is locked ---- */

static int put_block(struct worker *w, struct file *f, uint32_t lblk, uint64_t pblk, unsigned flags)
{
	tree_fill(w->buf, w->r->bs, f->id, lblk, w->gen);
	return dev_write(fake_dev(w->r->f), w->buf, w->r->bs, pblk * w->r->bs, flags);
}

/* The blocks that are there already, then those that were reserved. Data first, extents afterwards. */
static int write_data(struct worker *w, struct file *f, struct x4_inode *i, const struct x4_resv *resv, uint32_t at, uint32_t len)
{
	int ret = 0;

	for (uint32_t b = at; b < at + len && !ret; b++) {
		struct x4_ext e;

		ret = x4_map_lookup(i, b, &e);
		if (!ret && e.state != X4_EXT_HOLE)
			ret = put_block(w, f, b, e.pblk, 0);
	}
	for (unsigned e = 0; e < resv->nr && !ret; e++)
		for (uint32_t b = 0; b < resv->ext[e].len && !ret; b++)
			ret = put_block(w, f, resv->ext[e].lblk + b, resv->ext[e].pblk + b, 0);
	return ret;
}

static int op_write(struct worker *w, struct file *f, struct x4_inode *i)
{
	uint32_t at = crash_pick(&w->seed, MAX_BLOCKS - 6), len = 1 + crash_pick(&w->seed, 6);
	uint64_t end = (uint64_t)(at + len) * w->r->bs;
	struct x4_resv resv;
	int ret;

	w->gen++;
	ret = x4_resv_holes(i, at, len, false, &resv);
	if (ret)
		return ret;
	ret = write_data(w, f, i, &resv, at, len);
	if (!ret)
		ret = x4_insert(i, &resv, at, len, end > f->size ? end : 0);
	x4_resv_free(&resv);
	for (uint32_t b = at; b < at + len && !ret; b++) {
		f->gen[b] = w->gen;
		f->valid[b] = w->r->bs;
	}
	if (!ret)
		f->size = FDIO_MAX(f->size, end);
	return ret;
}

static int op_truncate(struct worker *w, struct file *f, struct x4_inode *i)
{
	unsigned bs = w->r->bs;
	uint64_t size = (uint64_t)crash_pick(&w->seed, (unsigned)(f->size / bs) + 1) * bs;
	int ret;

	if (size && crash_pick(&w->seed, 2))
		size -= 16 * (1 + crash_pick(&w->seed, 30));
	ret = x4_truncate(i, size);
	if (ret)
		return ret;
	f->size = size;
	if (size % bs)
		f->valid[size / bs] = FDIO_MIN(f->valid[size / bs], (uint32_t)(size % bs));
	for (uint64_t b = fdio_div_up(size, bs); b < MAX_BLOCKS; b++)
		f->gen[b] = 0;
	return 0;
}

static int op_allocate(struct worker *w, struct file *f, struct x4_inode *i, bool punch)
{
	uint32_t at = crash_pick(&w->seed, MAX_BLOCKS - 6), len = 1 + crash_pick(&w->seed, 6);
	uint64_t off = (uint64_t)at * w->r->bs, n = (uint64_t)len * w->r->bs;
	bool keep = punch || crash_pick(&w->seed, 2);
	int ret = x4_fallocate(i, (punch ? X4_FALLOC_PUNCH_HOLE : 0) | (keep ? X4_FALLOC_KEEP_SIZE : 0), off, n, false);

	if (ret)
		return ret;
	for (uint32_t b = at; b < at + len && punch; b++)
		f->gen[b] = 0;
	if (!keep)
		f->size = FDIO_MAX(f->size, off + n);
	return 0;
}

static int op_xattr(struct worker *w, struct file *f, struct x4_inode *i)
{
	static __thread uint8_t value[TREE_XATTR_MAX];
	uint32_t v = crash_pick(&w->seed, 4) ? ++w->gen : 0;
	int ret;

	if (!v && !f->xattr)
		return 0;
	ret = v ? x4_xattr_set(i, tree_xattr_name, value, tree_xattr_value(value, v), 0, false) : x4_xattr_remove(i, tree_xattr_name);
	if (!ret)
		f->xattr = v;
	return ret;
}

static int change_content(struct worker *w, unsigned what, struct file *f, struct x4_inode *i)
{
	int ret;

	touch_file(w, f);
	if (what == 4)
		return op_xattr(w, f, i);
	x4_inode_lock_excl(i);
	ret = x4_map_load(i);
	if (!ret)
		ret = what == 0 ? op_write(w, f, i) : what == 1 ? op_truncate(w, f, i) : op_allocate(w, f, i, what == 2);
	x4_inode_unlock(i);
	return ret;
}

/* ---- syncing ---- */

/* A written block again, O_DSYNC: one FUA write, and no commit if nothing else has changed. */
static int op_dsync(struct worker *w, struct file *f, struct x4_inode *i)
{
	uint32_t lblk = crash_pick(&w->seed, MAX_BLOCKS);
	bool clean = !f->dirty;
	struct x4_ext e;
	jnl_tid tid;
	int ret;

	if ((uint64_t)(lblk + 1) * w->r->bs > f->size || !f->gen[lblk])
		return 0;
	touch_file(w, f);
	w->gen++;
	x4_inode_lock_shared(i);
	ret = x4_map_load(i);
	if (!ret)
		ret = x4_map_lookup(i, lblk, &e);
	if (!ret)
		ret = e.state == X4_EXT_WRITTEN ? put_block(w, f, lblk, e.pblk, DEV_FUA) : -EPROTO;
	x4_touch_write(i);
	x4_inode_unlock(i);
	if (!ret && x4_sync_tid(i, true, &tid))
		ret = jnl_commit_wait(x4_vol_jnl(w->r->v), tid, NULL);
	if (ret)
		return ret;
	f->gen[lblk] = w->gen;
	f->valid[lblk] = w->r->bs;
	if (clean)
		ack_file(w, f);
	return 0;
}

static int sync_inode(struct worker *w, struct x4_inode *i)
{
	bool flushed = false;
	jnl_tid tid;
	int ret = 0;

	if (x4_sync_tid(i, false, &tid))
		ret = jnl_commit_wait(x4_vol_jnl(w->r->v), tid, &flushed);
	if (!ret && !flushed)
		ret = dev_flush(fake_dev(w->r->f));
	return ret;
}

static int op_fsync(struct worker *w, struct file *f, struct x4_inode *i)
{
	int ret = sync_inode(w, i);

	if (!ret)
		ack_file(w, f);
	return ret;
}

static int op_fsync_dir(struct worker *w)
{
	unsigned d = crash_pick(&w->seed, NDIRS);
	int ret = sync_inode(w, w->r->dir[d]);

	for (unsigned n = d; n < NN && !ret; n += NDIRS)
		ack(w, &w->name[n], false);
	return ret;
}

static int op_syncfs(struct worker *w)
{
	int ret = x4_vol_sync(w->r->v);

	for (unsigned n = 0; n < NN && !ret; n++) {
		if (w->name[n].file)
			w->name[n].file->dirty = false;
		ack(w, &w->name[n], true);
	}
	return ret;
}

/* ---- life ---- */

static int on_file(struct worker *w, unsigned n, unsigned what)
{
	struct file *f = w->name[n].file;
	struct x4_inode *i;
	char text[32];
	int ret = x4_lookup(dir_of(w->r, n), text, tree_text(text, sizeof(text), w->nr, n), &i);

	if (ret)
		return ret;
	if (what < 7)
		ret = change_content(w, 0, f, i);
	else if (what < 11)
		ret = change_content(w, what - 6, f, i);
	else if (what < 13)
		ret = op_link(w, n, crash_pick(&w->seed, NN), i);
	else if (what < 16)
		ret = op_dsync(w, f, i);
	else
		ret = op_fsync(w, f, i);
	x4_iput(i);
	return ret;
}

static int one_op(struct worker *w)
{
	unsigned n = crash_pick(&w->seed, NN), what = crash_pick(&w->seed, 27);
	struct file *f = w->name[n].file;

	if (!f)
		return op_make(w, n, crash_pick(&w->seed, 5) == 0);
	if (what >= 26)
		return op_syncfs(w);
	if (what >= 25)
		return op_fsync_dir(w);
	if (what >= 23)
		return op_remove(w, n);
	if (what >= 20)
		return op_rename(w, n, crash_pick(&w->seed, NN));
	if (f->kind == K_DIR)
		return what < 3 ? op_remove(w, n) : op_fsync_dir(w);
	return on_file(w, n, what);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	unsigned rounds = crash_tiny ? ROUNDS_TINY : ROUNDS;

	for (unsigned round = 0; round < rounds && !w->err; round++) {
		int ret = one_op(w);

		if (ret && ret != -ENOSPC)
			w->err = ret;
	}
	return NULL;
}

void tree_close_dirs(struct x4_inode **dir)
{
	for (unsigned d = 0; d < NDIRS; d++) {
		x4_iput(dir[d]);
		dir[d] = NULL;
	}
}

bool tree_open_dirs(struct x4_vol *v, struct x4_inode **dir, bool make)
{
	if (x4_iget(v, X4_ROOT_INO, NULL, &dir[0]))
		return false;
	for (unsigned d = 1; d < NDIRS; d++) {
		char text[16];
		unsigned len = (unsigned)snprintf(text, sizeof(text), "dir%u", d);

		if (make ? x4_create(dir[0], text, len, 040755, 0, &tree_cred, &dir[d]) : x4_lookup(dir[0], text, len, &dir[d]))
			return false;
	}
	return true;
}

static void tree_free(struct crash_run *r)
{
	if (r->v) {
		tree_close_dirs(r->dir);
		x4_vol_abandon(r->v);
	}
	if (r->f)
		fake_free(r->f);
	for (unsigned t = 0; t < NT; t++) {
		for (unsigned n = 0; n < NN; n++)
			free(r->w[t].name[n].acks);
		free(r->w[t].buf);
	}
	free(r);
}

static bool setup(struct crash_run *r, uint64_t seed)
{
	bool small = crash_tiny || crash_pick(&seed, 3) != 0, csum = crash_pick(&seed, 4) != 0;
	unsigned mib = small ? 1 : 4;
	char args[200], err[256] = "";

	snprintf(args, sizeof(args), "-t ext4 -b %u -O %s,64bit,ea_inode,^resize_inode -N 256 -g 2048 -E nodiscard,lazy_itable_init=0 -J size=%u",
		 small ? 1024 : 4096, csum ? "metadata_csum" : "^metadata_csum", mib);
	r->f = fake_mkfs((uint64_t)mib * 6 << 20, args);
	if (!r->f)
		return false;
	r->bs = small ? 1024 : 4096;
	r->nr_workers = crash_tiny ? 1 : NT;
	for (unsigned t = 0; t < r->nr_workers; t++) {
		struct worker *w = &r->w[t];

		w->r = r;
		w->nr = t;
		w->seed = seed + t * 7919;
		w->buf = fdio_alloc_aligned(4096, 4096);
		FDIO_ASSERT(w->buf);
		for (unsigned n = 0; n < NN; n++)
			if (!(w->name[n].acks = calloc(MAX_ACKS, sizeof(struct ack))))
				return false;
	}
	if (x4_vol_open(fake_dev(r->f), &tree_options, &r->v, NULL, FDIO_REASON(err))) {
		fprintf(stderr, "x4_vol_open: %s\n", err);
		return false;
	}
	return tree_open_dirs(r->v, r->dir, true) && !x4_vol_sync(r->v);
}

/* All threads at once; false if an operation failed. */
static bool work_all(struct crash_run *r)
{
	bool ok = true;

	for (unsigned t = 1; t < r->nr_workers; t++)
		FDIO_MUST(!pthread_create(&r->w[t].thread, NULL, work, &r->w[t]));
	work(&r->w[0]);
	for (unsigned t = 0; t < r->nr_workers; t++) {
		if (t)
			pthread_join(r->w[t].thread, NULL);
		if (r->w[t].err)
			fprintf(stderr, "tree workload: an operation of thread %u failed with %d\n", t, r->w[t].err);
		ok = ok && !r->w[t].err;
	}
	return ok;
}

static struct crash_run *tree_run(uint64_t seed)
{
	struct crash_run *r = calloc(1, sizeof(*r));

	FDIO_ASSERT(r);
	if (!setup(r, seed)) {
		tree_free(r);
		return NULL;
	}
	fake_rec_start(r->f);
	if (!work_all(r)) {
		tree_free(r);
		return NULL;
	}
	if (seed % 3 == 0) {
		tree_close_dirs(r->dir);
		if (x4_vol_close(r->v))
			fprintf(stderr, "tree workload: close failed\n");
		r->v = NULL;
		for (unsigned t = 0; t < r->nr_workers; t++)
			for (unsigned n = 0; n < NN; n++)
				ack(&r->w[t], &r->w[t].name[n], true);
	}
	return r;
}

static struct fake_dev *tree_device(struct crash_run *r) { return r->f; }

static int tree_recover(struct crash_run *r, struct fake_dev *c, char *why, size_t len)
{
	return crash_recover_volume(&tree_options, c, why, len);
}

const struct crash_workload crash_tree = {
	.name = "tree", .run = tree_run, .device = tree_device, .recover = tree_recover, .check = tree_check, .digest = tree_digest,
	.free = tree_free,
};
