/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What happens to an image: it is mounted (with replay and orphans), everything that can be reached
 * is looked at, then a hundred operations of every kind run on what was found, and it is unmounted,
 * or the power goes; then all once more, shorter.
 *
 * Errors are expected; what is checked here: no mapped block lies outside of what a file may own,
 * runs have a length, nothing runs for ever (bounds of this walk's own are large), and damage that
 * was found while the volume was writable has been noted in the superblock. Work is counted as well
 * as time: each operation may look at as many metadata blocks as the size of the image allows,
 * whatever the image says of itself.
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
	struct ext4_vol *vol;
	struct rnd rng;
	struct ext4_inode *kept[MAX_KEPT];
	char names[MAX_KEPT][256];
	unsigned name_len[MAX_KEPT], nr_kept;
	struct ext4_inode *dirs[MAX_DIRS];
	unsigned nr_dirs, entries, names_tried, ops, unclean;
	bool pristine;
	uint64_t work, most; /* blocks looked at until the last operation; and by the greatest */
	uint8_t buf[65536];
};

static const struct ext4_credentials cred = { .cap_fsetid = true };

/* An operation has ended. */
static void work_done(struct walk *walk, uint64_t image_bytes)
{
	uint64_t now = work_so_far(), done = now - walk->work;

	walk->work = now;
	walk->most = FDIO_MAX(walk->most, done);
	MUST(done <= work_allowed(image_bytes));
}

static int note(struct walk *walk, int err)
{
	work_done(walk, walk->vol->dev->caps.size_bytes);
	if (err == -EUCLEAN) {
		walk->unclean++;
		MUST(!walk->pristine);
	}
	return err;
}

/* ---- looking ---- */

static void look_at_runs(struct walk *walk, struct ext4_inode *inode)
{
	bool regular = S_ISREG(ext4_inode_mode(inode));
	unsigned bits = ext4_vol_block_bits(walk->vol), reads = 0;
	uint32_t lblk = 0;
	struct ext4_extent extent;

	if (note(walk, ext4_map_load(inode)))
		return;
	for (unsigned n = 0; n < MAX_RUNS; n++) {
		if (ext4_map_lookup(inode, lblk, &extent))
			return; /* dropped meanwhile: by an error of another kind */
		MUST(extent.len > 0 && extent.lblk == lblk);
		if (extent.state != EXT4_EXTENT_HOLE) {
			MUST(ext4_blocks_valid(walk->vol, extent.pblk, extent.len));
			MUST(!regular ||
			     extent.pblk + extent.len <= walk->vol->dev->caps.size_bytes >> bits);
			if (extent.state == EXT4_EXTENT_WRITTEN && reads++ < 8)
				MUST(!dev_read(walk->vol->dev, walk->buf, 1U << bits,
					       (extent.pblk + extent.len - 1) << bits));
		}
		if (extent.len > UINT32_MAX - lblk - 1)
			return;
		lblk += extent.len;
	}
}

static void look_at_attrs(struct walk *walk, struct ext4_inode *inode)
{
	size_t len = 0, vlen;
	unsigned n = 0;
	char *list = malloc(65536);

	MUST(list);
	if (note(walk, ext4_xattr_list(inode, true, list, 65536, &len)))
		goto out;
	MUST(len <= 65536);
	for (char *p = list; p < list + len && n < 200; p += strlen(p) + 1, n++) {
		MUST(memchr(p, 0, (size_t)(list + len - p)));
		(void)note(walk, ext4_xattr_get(inode, p, NULL, 0, &vlen));
		(void)note(walk, ext4_xattr_get(inode, p, walk->buf, sizeof(walk->buf), &vlen));
	}
out:
	(void)note(walk, ext4_xattr_get(inode, "system.posix_acl_access", walk->buf,
					sizeof(walk->buf), &vlen));
	(void)note(walk, ext4_xattr_get(inode, "system.posix_acl_default", walk->buf,
					sizeof(walk->buf), &vlen));
	(void)note(walk, ext4_xattr_get(inode, "security.capability", walk->buf, sizeof(walk->buf),
					&vlen));
	free(list);
}

static void look_at(struct walk *walk, struct ext4_inode *inode)
{
	char *target = (char *)walk->buf;
	struct ext4_attr attr;
	unsigned len;
	uint64_t pos;

	ext4_getattr(inode, &attr);
	look_at_attrs(walk, inode);
	if (S_ISLNK(attr.mode)) {
		memset(target, 1, 4097);
		if (!note(walk, ext4_readlink(inode, target, 4097, &len)))
			MUST(len < 4097 && target[len] == 0);
	}
	if (S_ISREG(attr.mode)) {
		if (ext4_inode_inline(inode)) {
			for (uint64_t off = 0; off < 200; off += 59) {
				ssize_t n = ext4_inline_read(inode, off, walk->buf, 70);

				MUST(note(walk, n < 0 ? (int)n : 0) || n <= 70);
			}
		}
		ext4_inode_lock_shared(inode);
		if (!ext4_inode_inline(inode))
			look_at_runs(walk, inode);
		(void)note(walk, ext4_seek(inode, 0, true, &pos));
		(void)note(walk, ext4_seek(inode, attr.size / 2, false, &pos));
		ext4_inode_unlock(inode);
		ext4_touch_read(inode);
	}
}

static bool keep(struct walk *walk, struct ext4_inode *inode, const char *name, unsigned len)
{
	unsigned at = walk->nr_kept;

	if (at == MAX_KEPT) {
		if (rnd_n(&walk->rng, 4))
			return false;
		at = rnd_n(&walk->rng, MAX_KEPT);
		ext4_inode_put(walk->kept[at]);
	} else {
		walk->nr_kept++;
	}
	walk->kept[at] = inode;
	memcpy(walk->names[at], name, len);
	walk->name_len[at] = len;
	return true;
}

struct listing { struct walk *walk; char *names; unsigned used, nr, stop; uint64_t last; };

static bool emit(void *arg, const struct ext4_dirent *entry)
{
	struct listing *listing = arg;

	MUST(entry->name_len > 0);
	if (listing->nr++ >= listing->stop)
		return false;
	listing->walk->entries++;
	listing->last = entry->next_cookie;
	if (listing->used + 1 + entry->name_len <= 32768 && listing->walk->names_tried < 700) {
		listing->walk->names_tried++;
		listing->names[listing->used] = (char)entry->name_len;
		memcpy(listing->names + listing->used + 1, entry->name, entry->name_len);
		listing->used += 1U + entry->name_len;
	}
	return true;
}

static void take_name(struct walk *walk, struct ext4_inode *dir, const char *name, unsigned len)
{
	struct ext4_inode *inode = NULL;

	if (note(walk, ext4_lookup(dir, name, len, &inode)))
		return;
	look_at(walk, inode);
	if (S_ISDIR(ext4_inode_mode(inode)) && walk->nr_dirs < MAX_DIRS)
		walk->dirs[walk->nr_dirs++] = ext4_inode_ref(inode);
	if (!keep(walk, inode, name, len))
		ext4_inode_put(inode);
}

static void look_into(struct walk *walk, struct ext4_inode *dir)
{
	struct listing listing = { .walk = walk, .names = malloc(32768), .stop = MAX_ENTRIES };
	struct ext4_inode *up;

	MUST(listing.names);
	if (!note(walk, ext4_readdir(dir, 0, emit, &listing)) && listing.nr > 4) {
		struct listing again = {
			.walk = walk, .names = listing.names, .used = 32768, .stop = 50
		};
		(void)note(walk, ext4_readdir(dir, listing.last / (1 + rnd_n(&walk->rng, 3)), emit,
					      &again));
	}
	if (!note(walk, ext4_lookup_parent(dir, &up)))
		ext4_inode_put(up);
	for (unsigned p = 0; p < listing.used; p += 1U + (uint8_t)listing.names[p])
		take_name(walk, dir, listing.names + p + 1, (uint8_t)listing.names[p]);
	free(listing.names);
	(void)note(walk, ext4_lookup(dir, "not there", 9, &up) ? 0 : (ext4_inode_put(up), 0));
}

static void look_around(struct walk *walk)
{
	struct ext4_inode *root = NULL, *inode;
	uint32_t n = walk->vol->nr_inodes;

	if (note(walk, ext4_inode_get(walk->vol, EXT4_ROOT_INO, NULL, &root)))
		return;
	walk->dirs[walk->nr_dirs++] = root;
	for (unsigned d = 0; d < walk->nr_dirs && walk->entries < MAX_ENTRIES; d++)
		look_into(walk, walk->dirs[d]);
	/* What no name leads to, as a stale file handle would ask for it. */
	for (unsigned k = 0; k < 24; k++)
		if (!note(walk,
			  ext4_inode_get(walk->vol, rnd_n(&walk->rng, n + 3), NULL, &inode))) {
			look_at(walk, inode);
			ext4_inode_put(inode);
		}
}

/* ---- changing ---- */

static struct ext4_inode *any(struct walk *walk)
{
	return walk->nr_kept ? walk->kept[rnd_n(&walk->rng, walk->nr_kept)] : walk->dirs[0];
}
static struct ext4_inode *any_dir(struct walk *walk)
{
	return walk->dirs[rnd_n(&walk->rng, walk->nr_dirs)];
}

static struct ext4_inode *any_file(struct walk *walk)
{
	for (unsigned k = 0; k < 8; k++) {
		struct ext4_inode *inode = any(walk);
		if (S_ISREG(ext4_inode_mode(inode)))
			return inode;
	}
	return NULL;
}

/* A new name, or one that was seen somewhere. */
static const char *some_name(struct walk *walk, unsigned *len, char *own)
{
	unsigned k = rnd_n(&walk->rng, walk->nr_kept + 2);

	if (k < walk->nr_kept) {
		*len = walk->name_len[k];
		return walk->names[k];
	}
	*len = 1 + rnd_n(&walk->rng, rnd_n(&walk->rng, 3) ? 20 : 255);
	memset(own, 'A' + (int)rnd_n(&walk->rng, 26), *len);
	own[0] = 'n';
	return own;
}

static void do_write(struct walk *walk)
{
	struct ext4_inode *inode = any_file(walk);
	uint32_t bs = walk->vol->block_size, at, len;
	struct ext4_reservation reservation;

	if (!inode)
		return;
	at = rnd_n(&walk->rng, 4) ? rnd_n(&walk->rng, 900) : rnd_n(&walk->rng, UINT32_MAX - 1);
	len = 1 + rnd_n(&walk->rng, 30);
	if (at > UINT32_MAX - 1 - len)
		at = UINT32_MAX - 1 - len;
	ext4_inode_lock_exclusive(inode);
	if (!note(walk, ext4_map_load(inode)) &&
	    !note(walk, ext4_reserve_holes(inode, at, len, true, &reservation))) {
		for (unsigned e = 0; e < reservation.nr; e++) {
			MUST(ext4_blocks_valid(walk->vol, reservation.ext[e].pblk,
					       reservation.ext[e].len));
			for (uint32_t b = 0; b < reservation.ext[e].len; b++)
				MUST(!dev_write(walk->vol->dev, walk->buf, bs,
						(reservation.ext[e].pblk + b) * bs, 0));
		}
		(void)note(walk,
			   ext4_insert(inode, &reservation, at, len,
				       rnd_n(&walk->rng, 3) ? (uint64_t)(at + len) * bs -
									      rnd_n(&walk->rng, bs)
							    : 0));
		ext4_reservation_free(&reservation);
		look_at_runs(walk, inode);
	}
	ext4_inode_unlock(inode);
	ext4_touch_write(inode);
}

static void do_sizes(struct walk *walk)
{
	static const int modes[] = { 0, EXT4_FALLOC_KEEP_SIZE,
				     EXT4_FALLOC_PUNCH_HOLE | EXT4_FALLOC_KEEP_SIZE,
				     EXT4_FALLOC_ZERO_RANGE,
				     EXT4_FALLOC_ZERO_RANGE | EXT4_FALLOC_KEEP_SIZE };
	struct ext4_inode *inode = any_file(walk);
	uint64_t size, off;

	if (!inode)
		return;
	size = ext4_inode_size(inode);
	ext4_inode_lock_exclusive(inode);
	if (rnd_n(&walk->rng, 2)) {
		static const uint64_t sizes[] = {
			0, 1, 511, 4096, 100000, 1ULL << 31, (1ULL << 32) * 1024, INT64_MAX
		};
		uint64_t to = rnd_n(&walk->rng, 2) && size
					      ? rnd_u64(&walk->rng) % size
					      : sizes[rnd_n(&walk->rng, ARRAY_SIZE(sizes))];
		(void)note(walk, ext4_map_load(inode) ? 0 : ext4_truncate(inode, to));
	} else {
		off = rnd_n(&walk->rng, 4) && size
				      ? rnd_u64(&walk->rng) % (size + 4096)
				      : rnd_u64(&walk->rng) >> (1 + rnd_n(&walk->rng, 40));
		off = FDIO_MIN(off, (uint64_t)INT64_MAX - (1 << 20));
		(void)note(walk, ext4_fallocate(inode, modes[rnd_n(&walk->rng, ARRAY_SIZE(modes))],
						off, 1 + rnd_n(&walk->rng, 1 << 18), true));
	}
	look_at_runs(walk, inode);
	ext4_inode_unlock(inode);
}

static void do_names(struct walk *walk)
{
	static const uint32_t modes[] = { 0100644, 0100644, 0040755, 0020600, 0010600 };
	char own[256], own2[256];
	unsigned len, len2;
	const char *name = some_name(walk, &len, own), *name2;
	struct ext4_inode *dir = any_dir(walk), *inode = NULL;

	switch (rnd_n(&walk->rng, 8)) {
	case 0:
	case 1:
		if (!note(walk,
			  ext4_create(dir, name, len, modes[rnd_n(&walk->rng, ARRAY_SIZE(modes))],
				      makedev(1, 3), &cred, &inode)) &&
		    !keep(walk, inode, name, len))
			ext4_inode_put(inode);
		break;
	case 2:
		if (!note(walk, ext4_symlink(dir, name, len, (char *)memset(walk->buf, 'y', 900),
					     1 + rnd_n(&walk->rng, 900), &cred, &inode)))
			ext4_inode_put(inode);
		break;
	case 3: (void)note(walk, ext4_link(dir, name, len, any(walk), false)); break;
	case 4: (void)note(walk, ext4_unlink(dir, name, len)); break;
	case 5: (void)note(walk, ext4_rmdir(dir, name, len)); break;
	default:
		name2 = some_name(walk, &len2, own2);
		(void)note(walk, ext4_rename(dir, name, len, any_dir(walk), name2, len2,
					     rnd_n(&walk->rng, 3) ? 0 : 1U << rnd_n(&walk->rng, 3),
					     &cred));
		break;
	}
}

static void do_attrs(struct walk *walk)
{
	static const char *const names[] = { "user.a",
					     "user.one",
					     "user.block",
					     "trusted.t",
					     "security.capability",
					     "system.posix_acl_access",
					     "system.posix_acl_default" };
	struct ext4_inode *inode = any(walk);
	const char *name = names[rnd_n(&walk->rng, ARRAY_SIZE(names))];
	struct ext4_attr attr = { .mode = 0100755, .uid = rnd_n(&walk->rng, 3), .gid = 7 };

	switch (rnd_n(&walk->rng, 4)) {
	case 0: (void)note(walk, ext4_xattr_remove(inode, name)); break;
	case 1:
		(void)note(walk,
			   ext4_setattr(inode,
					EXT4_SET_UID |
							(rnd_n(&walk->rng, 2) ? EXT4_SET_MODE
									      : EXT4_KILL_SUIDGID) |
							EXT4_SET_MTIME_NOW,
					&attr));
		break;
	default:
		memset(walk->buf, 'z', 4096);
		(void)note(walk, ext4_xattr_set(inode, name, walk->buf,
						rnd_n(&walk->rng, rnd_n(&walk->rng, 2) ? 60 : 4000),
						0, false));
		break;
	}
	look_at_attrs(walk, inode);
}

static void do_whole(struct walk *walk)
{
	struct ext4_inode *inode = NULL;
	struct ext4_statfs stats;
	uint64_t trimmed;

	switch (rnd_n(&walk->rng, 4)) {
	case 0: (void)note(walk, ext4_vol_sync(walk->vol)); break;
	case 1: ext4_vol_statfs(walk->vol, &stats); break;
	case 2:
		(void)note(walk, ext4_vol_trim(walk->vol, rnd_n(&walk->rng, 1 << 22), UINT64_MAX,
					       rnd_n(&walk->rng, 9999), &trimmed));
		break;
	default:
		if (!note(walk, ext4_tmpfile(any_dir(walk), 0100600, &cred, &inode)) &&
		    !keep(walk, inode, "tmp", 3))
			ext4_inode_put(inode);
		break;
	}
}

static void change(struct walk *walk, unsigned n)
{
	for (; walk->ops < n; walk->ops++) {
		switch (rnd_n(&walk->rng, 12)) {
		case 0:
		case 1:
		case 2: do_write(walk); break;
		case 3:
		case 4: do_sizes(walk); break;
		case 5:
		case 6: do_attrs(walk); break;
		case 7: do_whole(walk); break;
		default: do_names(walk); break;
		}
	}
}

/* ---- all of it ---- */

static void drop(struct walk *walk)
{
	for (unsigned k = 0; k < walk->nr_kept; k++)
		ext4_inode_put(walk->kept[k]);
	for (unsigned k = 0; k < walk->nr_dirs; k++)
		ext4_inode_put(walk->dirs[k]);
}

/*
 * Found while it could be written down: then it is, unless the superblock itself cannot be written
 * any more.
 */
static void check_noted(struct fuzz_dev *dev, bool writable)
{
	uint16_t state, magic;

	memcpy(&state, dev->img + 1024 + 0x3a, 2);
	memcpy(&magic, dev->img + 1024 + 0x38, 2);
	if (writable && magic == EXT2_SUPER_MAGIC)
		MUST(state & EXT2_ERROR_FS);
}

static int once(const struct image_case *test, struct fuzz_dev *dev, unsigned ops, bool abandon,
		bool pristine, struct walk_result *res)
{
	struct ext4_options options = { .acl = true,
					.user_xattr = true,
					.commit_interval_s = 3600,
					.read_only = test->read_only,
					.norecovery = test->norecovery,
					.errors = (enum ext4_errors_policy)test->errors,
					.cache_bytes = 4 << 20 };
	struct walk *walk = calloc(1, sizeof(*walk));
	char err[512] = "";
	bool writable;
	int r;

	MUST(walk);
	walk->rng = rnd_seed(test->walk + ops);
	walk->pristine = pristine;
	uint64_t corrupt = fdio_counter_read(COUNTER_ext4_corrupt);
	walk->work = work_so_far();
	r = ext4_vol_open(&dev->dev, &options, &walk->vol, NULL, FDIO_REASON(err));
	work_done(walk, dev->size);
	if (r) {
		MUST(err[0] && !pristine);
		goto out;
	}
	res->opened++;
	writable = !ext4_vol_read_only(walk->vol);
	look_around(walk);
	if (walk->nr_dirs)
		change(walk, ops);
	drop(walk);
	if (abandon) {
		ext4_vol_abandon(walk->vol);
	} else {
		r = ext4_vol_close(walk->vol);
		work_done(walk, dev->size);
		MUST(!pristine || !r);
		if (fdio_counter_read(COUNTER_ext4_corrupt) > corrupt)
			check_noted(dev, writable);
	}
	res->ops += walk->ops;
	res->unclean += walk->unclean;
	res->work = FDIO_MAX(res->work, walk->most);
out:
	epoch_drain();
	free(walk);
	return r;
}

void walk_image(const struct image_case *test, struct fuzz_dev *dev, bool pristine,
		struct walk_result *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->mount = once(test, dev, 100, test->abandon, pristine, ret);
	/*
	 * What the first mount left behind must be bearable as well: after a power cut, a replay of
	 * our own log.
	 */
	if (ret->opened)
		once(test, dev, 20, false, pristine && !test->abandon, ret);
}
