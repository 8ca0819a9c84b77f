/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What happens to an image: it is mounted (with replay and orphans), everything that can be reached is looked at, then a hundred
 * operations of every kind run on what was found, and it is unmounted, or the power goes; then all once more, shorter.
 *
 * Errors are expected; what is checked here: no mapped block lies outside of what a file may own, runs have a length, nothing
 * runs for ever (bounds of this walk's own are large), and damage that was found while the volume was writable has been noted in
 * the superblock. Work is counted as well as time: each operation may look at as many metadata
 * blocks as the size of the image allows, whatever the image says of itself.
 */
#include "fuzz/fuzz.h"

#include "base/counters.h"
#include "base/crc32c.h"
#include "base/epoch.h"
#include "ext4/core/structs.h"
#include "ext4/ext4.h"

#include <errno.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define MAX_KEPT 48u
#define MAX_DIRS 96u
#define MAX_ENTRIES 3000u
#define MAX_RUNS 3000u

struct walk {
	struct x4_vol *v;
	struct rnd r;
	struct x4_inode *kept[MAX_KEPT];
	char names[MAX_KEPT][256];
	unsigned name_len[MAX_KEPT], nr_kept;
	struct x4_inode *dirs[MAX_DIRS];
	unsigned nr_dirs, entries, names_tried, ops, unclean;
	bool pristine;
	uint64_t work, most; /* blocks looked at until the last operation; and by the greatest */
	uint8_t buf[65536];
};

static const struct x4_cred cred = { .cap_fsetid = true };

/* An operation has ended. */
static void work_done(struct walk *w, uint64_t image_bytes)
{
	uint64_t now = work_so_far(), done = now - w->work;

	w->work = now;
	w->most = FDIO_MAX(w->most, done);
	MUST(done <= work_allowed(image_bytes));
}

static int note(struct walk *w, int err)
{
	work_done(w, w->v->dev->caps.size_bytes);
	if (err == -EUCLEAN) {
		w->unclean++;
		MUST(!w->pristine);
	}
	return err;
}

/* ---- looking ---- */

static void look_at_runs(struct walk *w, struct x4_inode *i)
{
	bool regular = S_ISREG(x4_inode_mode(i));
	unsigned bits = x4_vol_block_bits(w->v), reads = 0;
	uint32_t lblk = 0;
	struct x4_ext e;

	if (note(w, x4_map_load(i)))
		return;
	for (unsigned n = 0; n < MAX_RUNS; n++) {
		if (x4_map_lookup(i, lblk, &e))
			return; /* dropped meanwhile: by an error of another kind */
		MUST(e.len > 0 && e.lblk == lblk);
		if (e.state != X4_EXT_HOLE) {
			MUST(x4_blk_valid(w->v, e.pblk, e.len));
			MUST(!regular || e.pblk + e.len <= w->v->dev->caps.size_bytes >> bits);
			if (e.state == X4_EXT_WRITTEN && reads++ < 8)
				MUST(!dev_read(w->v->dev, w->buf, 1U << bits, (e.pblk + e.len - 1) << bits));
		}
		if (e.len > UINT32_MAX - lblk - 1)
			return;
		lblk += e.len;
	}
}

static void look_at_attrs(struct walk *w, struct x4_inode *i)
{
	size_t len = 0, vlen;
	unsigned n = 0;
	char *list = malloc(65536);

	MUST(list);
	if (note(w, x4_xattr_list(i, true, list, 65536, &len)))
		goto out;
	MUST(len <= 65536);
	for (char *p = list; p < list + len && n < 200; p += strlen(p) + 1, n++) {
		MUST(memchr(p, 0, (size_t)(list + len - p)));
		(void)note(w, x4_xattr_get(i, p, NULL, 0, &vlen));
		(void)note(w, x4_xattr_get(i, p, w->buf, sizeof(w->buf), &vlen));
	}
out:
	(void)note(w, x4_xattr_get(i, "system.posix_acl_access", w->buf, sizeof(w->buf), &vlen));
	(void)note(w, x4_xattr_get(i, "system.posix_acl_default", w->buf, sizeof(w->buf), &vlen));
	(void)note(w, x4_xattr_get(i, "security.capability", w->buf, sizeof(w->buf), &vlen));
	free(list);
}

static void look_at(struct walk *w, struct x4_inode *i)
{
	char *target = (char *)w->buf;
	struct x4_attr a;
	unsigned len;
	uint64_t pos;

	x4_getattr(i, &a);
	look_at_attrs(w, i);
	if (S_ISLNK(a.mode)) {
		memset(target, 1, 4097);
		if (!note(w, x4_readlink(i, target, 4097, &len)))
			MUST(len < 4097 && target[len] == 0);
	}
	if (S_ISREG(a.mode)) {
		if (x4_inode_inline(i)) {
			for (uint64_t off = 0; off < 200; off += 59) {
				ssize_t n = x4_inline_read(i, off, w->buf, 70);

				MUST(note(w, n < 0 ? (int)n : 0) || n <= 70);
			}
		}
		x4_inode_lock_shared(i);
		if (!x4_inode_inline(i))
			look_at_runs(w, i);
		(void)note(w, x4_seek(i, 0, true, &pos));
		(void)note(w, x4_seek(i, a.size / 2, false, &pos));
		x4_inode_unlock(i);
		x4_touch_read(i);
	}
}

static bool keep(struct walk *w, struct x4_inode *i, const char *name, unsigned len)
{
	unsigned at = w->nr_kept;

	if (at == MAX_KEPT) {
		if (rnd_n(&w->r, 4))
			return false;
		at = rnd_n(&w->r, MAX_KEPT);
		x4_iput(w->kept[at]);
	} else {
		w->nr_kept++;
	}
	w->kept[at] = i;
	memcpy(w->names[at], name, len);
	w->name_len[at] = len;
	return true;
}

struct listing { struct walk *w; char *names; unsigned used, nr, stop; uint64_t last; };

static bool emit(void *arg, const struct x4_dirent *e)
{
	struct listing *l = arg;

	MUST(e->name_len > 0);
	if (l->nr++ >= l->stop)
		return false;
	l->w->entries++;
	l->last = e->next_cookie;
	if (l->used + 1 + e->name_len <= 32768 && l->w->names_tried < 700) {
		l->w->names_tried++;
		l->names[l->used] = (char)e->name_len;
		memcpy(l->names + l->used + 1, e->name, e->name_len);
		l->used += 1U + e->name_len;
	}
	return true;
}

static void take_name(struct walk *w, struct x4_inode *dir, const char *name, unsigned len)
{
	struct x4_inode *i = NULL;

	if (note(w, x4_lookup(dir, name, len, &i)))
		return;
	look_at(w, i);
	if (S_ISDIR(x4_inode_mode(i)) && w->nr_dirs < MAX_DIRS)
		w->dirs[w->nr_dirs++] = x4_iref(i);
	if (!keep(w, i, name, len))
		x4_iput(i);
}

static void look_into(struct walk *w, struct x4_inode *dir)
{
	struct listing l = { .w = w, .names = malloc(32768), .stop = MAX_ENTRIES };
	struct x4_inode *up;

	MUST(l.names);
	if (!note(w, x4_readdir(dir, 0, emit, &l)) && l.nr > 4) {
		struct listing again = { .w = w, .names = l.names, .used = 32768, .stop = 50 };
		(void)note(w, x4_readdir(dir, l.last / (1 + rnd_n(&w->r, 3)), emit, &again));
	}
	if (!note(w, x4_lookup_parent(dir, &up)))
		x4_iput(up);
	for (unsigned p = 0; p < l.used; p += 1U + (uint8_t)l.names[p])
		take_name(w, dir, l.names + p + 1, (uint8_t)l.names[p]);
	free(l.names);
	(void)note(w, x4_lookup(dir, "not there", 9, &up) ? 0 : (x4_iput(up), 0));
}

static void look_around(struct walk *w)
{
	struct x4_inode *root = NULL, *i;
	uint32_t n = w->v->nr_inodes;

	if (note(w, x4_iget(w->v, X4_ROOT_INO, NULL, &root)))
		return;
	w->dirs[w->nr_dirs++] = root;
	for (unsigned d = 0; d < w->nr_dirs && w->entries < MAX_ENTRIES; d++)
		look_into(w, w->dirs[d]);
	/* What no name leads to, as a stale file handle would ask for it. */
	for (unsigned k = 0; k < 24; k++)
		if (!note(w, x4_iget(w->v, rnd_n(&w->r, n + 3), NULL, &i))) {
			look_at(w, i);
			x4_iput(i);
		}
}

/* ---- changing ---- */

static struct x4_inode *any(struct walk *w) { return w->nr_kept ? w->kept[rnd_n(&w->r, w->nr_kept)] : w->dirs[0]; }
static struct x4_inode *any_dir(struct walk *w) { return w->dirs[rnd_n(&w->r, w->nr_dirs)]; }

static struct x4_inode *any_file(struct walk *w)
{
	for (unsigned k = 0; k < 8; k++) {
		struct x4_inode *i = any(w);
		if (S_ISREG(x4_inode_mode(i)))
			return i;
	}
	return NULL;
}

/* A new name, or one that was seen somewhere. */
static const char *some_name(struct walk *w, unsigned *len, char *own)
{
	unsigned k = rnd_n(&w->r, w->nr_kept + 2);

	if (k < w->nr_kept) {
		*len = w->name_len[k];
		return w->names[k];
	}
	*len = 1 + rnd_n(&w->r, rnd_n(&w->r, 3) ? 20 : 255);
	memset(own, 'A' + (int)rnd_n(&w->r, 26), *len);
	own[0] = 'n';
	return own;
}

static void do_write(struct walk *w)
{
	struct x4_inode *i = any_file(w);
	uint32_t bs = w->v->block_size, at, len;
	struct x4_resv r;

	if (!i)
		return;
	at = rnd_n(&w->r, 4) ? rnd_n(&w->r, 900) : rnd_n(&w->r, UINT32_MAX - 1);
	len = 1 + rnd_n(&w->r, 30);
	if (at > UINT32_MAX - 1 - len)
		at = UINT32_MAX - 1 - len;
	x4_inode_lock_excl(i);
	if (!note(w, x4_map_load(i)) && !note(w, x4_resv_holes(i, at, len, true, &r))) {
		for (unsigned e = 0; e < r.nr; e++) {
			MUST(x4_blk_valid(w->v, r.ext[e].pblk, r.ext[e].len));
			for (uint32_t b = 0; b < r.ext[e].len; b++)
				MUST(!dev_write(w->v->dev, w->buf, bs, (r.ext[e].pblk + b) * bs, 0));
		}
		(void)note(w, x4_insert(i, &r, at, len, rnd_n(&w->r, 3) ? (uint64_t)(at + len) * bs - rnd_n(&w->r, bs) : 0));
		x4_resv_free(&r);
		look_at_runs(w, i);
	}
	x4_inode_unlock(i);
	x4_touch_write(i);
}

static void do_sizes(struct walk *w)
{
	static const int modes[] = { 0, X4_FALLOC_KEEP_SIZE, X4_FALLOC_PUNCH_HOLE | X4_FALLOC_KEEP_SIZE, X4_FALLOC_ZERO_RANGE,
		X4_FALLOC_ZERO_RANGE | X4_FALLOC_KEEP_SIZE };
	struct x4_inode *i = any_file(w);
	uint64_t size, off;

	if (!i)
		return;
	size = x4_inode_size(i);
	x4_inode_lock_excl(i);
	if (rnd_n(&w->r, 2)) {
		static const uint64_t sizes[] = { 0, 1, 511, 4096, 100000, 1ULL << 31, (1ULL << 32) * 1024, INT64_MAX };
		uint64_t to = rnd_n(&w->r, 2) && size ? rnd_u64(&w->r) % size : sizes[rnd_n(&w->r, ARRAY_SIZE(sizes))];
		(void)note(w, x4_map_load(i) ? 0 : x4_truncate(i, to));
	} else {
		off = rnd_n(&w->r, 4) && size ? rnd_u64(&w->r) % (size + 4096) : rnd_u64(&w->r) >> (1 + rnd_n(&w->r, 40));
		off = FDIO_MIN(off, (uint64_t)INT64_MAX - (1 << 20));
		(void)note(w, x4_fallocate(i, modes[rnd_n(&w->r, ARRAY_SIZE(modes))], off, 1 + rnd_n(&w->r, 1 << 18), true));
	}
	look_at_runs(w, i);
	x4_inode_unlock(i);
}

static void do_names(struct walk *w)
{
	static const uint32_t modes[] = { 0100644, 0100644, 0040755, 0020600, 0010600 };
	char own[256], own2[256];
	unsigned len, len2;
	const char *name = some_name(w, &len, own), *name2;
	struct x4_inode *dir = any_dir(w), *i = NULL;

	switch (rnd_n(&w->r, 8)) {
	case 0:
	case 1:
		if (!note(w, x4_create(dir, name, len, modes[rnd_n(&w->r, ARRAY_SIZE(modes))], makedev(1, 3), &cred, &i)) &&
		    !keep(w, i, name, len))
			x4_iput(i);
		break;
	case 2:
		if (!note(w, x4_symlink(dir, name, len, (char *)memset(w->buf, 'y', 900), 1 + rnd_n(&w->r, 900), &cred, &i)))
			x4_iput(i);
		break;
	case 3: (void)note(w, x4_link(dir, name, len, any(w), false)); break;
	case 4: (void)note(w, x4_unlink(dir, name, len)); break;
	case 5: (void)note(w, x4_rmdir(dir, name, len)); break;
	default:
		name2 = some_name(w, &len2, own2);
		(void)note(w, x4_rename(dir, name, len, any_dir(w), name2, len2, rnd_n(&w->r, 3) ? 0 : 1U << rnd_n(&w->r, 3), &cred));
		break;
	}
}

static void do_attrs(struct walk *w)
{
	static const char *const names[] = { "user.a", "user.one", "user.block", "trusted.t", "security.capability", "system.posix_acl_access",
		"system.posix_acl_default" };
	struct x4_inode *i = any(w);
	const char *name = names[rnd_n(&w->r, ARRAY_SIZE(names))];
	struct x4_attr a = { .mode = 0100755, .uid = rnd_n(&w->r, 3), .gid = 7 };

	switch (rnd_n(&w->r, 4)) {
	case 0: (void)note(w, x4_xattr_remove(i, name)); break;
	case 1:
		(void)note(w, x4_setattr(i, X4_SET_UID | (rnd_n(&w->r, 2) ? X4_SET_MODE : X4_KILL_SUIDGID) | X4_SET_MTIME_NOW, &a));
		break;
	default:
		memset(w->buf, 'z', 4096);
		(void)note(w, x4_xattr_set(i, name, w->buf, rnd_n(&w->r, rnd_n(&w->r, 2) ? 60 : 4000), 0, false));
		break;
	}
	look_at_attrs(w, i);
}

static void do_whole(struct walk *w)
{
	struct x4_inode *i = NULL;
	struct x4_statfs s;
	uint64_t trimmed;

	switch (rnd_n(&w->r, 4)) {
	case 0: (void)note(w, x4_vol_sync(w->v)); break;
	case 1: x4_vol_statfs(w->v, &s); break;
	case 2: (void)note(w, x4_vol_trim(w->v, rnd_n(&w->r, 1 << 22), UINT64_MAX, rnd_n(&w->r, 9999), &trimmed)); break;
	default:
		if (!note(w, x4_tmpfile(any_dir(w), 0100600, &cred, &i)) && !keep(w, i, "tmp", 3))
			x4_iput(i);
		break;
	}
}

static void change(struct walk *w, unsigned n)
{
	for (; w->ops < n; w->ops++) {
		switch (rnd_n(&w->r, 12)) {
		case 0:
		case 1:
		case 2: do_write(w); break;
		case 3:
		case 4: do_sizes(w); break;
		case 5:
		case 6: do_attrs(w); break;
		case 7: do_whole(w); break;
		default: do_names(w); break;
		}
	}
}

/* ---- all of it ---- */

static void drop(struct walk *w)
{
	for (unsigned k = 0; k < w->nr_kept; k++)
		x4_iput(w->kept[k]);
	for (unsigned k = 0; k < w->nr_dirs; k++)
		x4_iput(w->dirs[k]);
}

/* Found while it could be written down: then it is, unless the superblock itself cannot be written any more. */
static void check_noted(struct fuzz_dev *d, bool writable)
{
	uint16_t state, magic;

	memcpy(&state, d->img + 1024 + 0x3a, 2);
	memcpy(&magic, d->img + 1024 + 0x38, 2);
	if (writable && magic == EXT2_SUPER_MAGIC)
		MUST(state & EXT2_ERROR_FS);
}

static int once(const struct image_case *c, struct fuzz_dev *d, unsigned ops, bool abandon, bool pristine, struct walk_result *res)
{
	struct x4_options o = { .acl = true, .user_xattr = true, .commit_interval_s = 3600, .read_only = c->read_only,
		.norecovery = c->norecovery, .errors = (enum x4_errors_policy)c->errors, .cache_bytes = 4 << 20 };
	struct walk *w = calloc(1, sizeof(*w));
	char err[512] = "";
	bool writable;
	int r;

	MUST(w);
	w->r = rnd_seed(c->walk + ops);
	w->pristine = pristine;
	uint64_t corrupt = fdio_counter_read(CTR_x4_corrupt);
	w->work = work_so_far();
	r = x4_vol_open(&d->dev, &o, &w->v, NULL, FDIO_REASON(err));
	work_done(w, d->size);
	if (r) {
		MUST(err[0] && !pristine);
		goto out;
	}
	res->opened++;
	writable = !x4_vol_read_only(w->v);
	look_around(w);
	if (w->nr_dirs)
		change(w, ops);
	drop(w);
	if (abandon) {
		x4_vol_abandon(w->v);
	} else {
		r = x4_vol_close(w->v);
		work_done(w, d->size);
		MUST(!pristine || !r);
		if (fdio_counter_read(CTR_x4_corrupt) > corrupt)
			check_noted(d, writable);
	}
	res->ops += w->ops;
	res->unclean += w->unclean;
	res->work = FDIO_MAX(res->work, w->most);
out:
	epoch_drain();
	free(w);
	return r;
}

void walk_image(const struct image_case *c, struct fuzz_dev *d, bool pristine, struct walk_result *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->mount = once(c, d, 100, c->abandon, pristine, ret);
	/* What the first mount left behind must be bearable as well: after a power cut, a replay of our own log. */
	if (ret->opened)
		once(c, d, 20, false, pristine && !c->abandon, ret);
}
