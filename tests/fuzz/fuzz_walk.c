/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is done with a damaged image: it is mounted (with replay and orphans), everything that can
 * be reached is read, a hundred operations of every kind run on what was found, and it is unmounted
 * or the power goes. Then all of this again with fewer operations.
 *
 * Operations may fail. What must hold:
 *
 *   - no mapped block lies outside of what a file may own, and no run is empty;
 *   - names, attributes and links that are returned fit their buffers;
 *   - each operation ends, and looks at no more metadata blocks than the size of the image allows
 *     (work_allowed), whatever the image says of itself;
 *   - damage that was found while the volume was writable is noted in the superblock;
 *   - in an undamaged image, no damage is found.
 */
#include "fuzz/fuzz.h"

#include "base/bytes.h"
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
	struct ext4_inode *kept[MAX_KEPT]; /* inodes for later operations, and their names */
	char names[MAX_KEPT][256];
	unsigned name_len[MAX_KEPT], nr_kept;
	struct ext4_inode *dirs[MAX_DIRS];
	unsigned nr_dirs, entries, names_tried, ops, unclean;
	bool pristine;
	uint64_t work; /* work_so_far() at the end of the last operation */
	uint64_t most; /* of one operation */
	uint8_t buf[65536];
};

static const struct ext4_credentials cred = { .cap_fsetid = true };

/* An operation has ended: counts and checks its work. */
static void work_done(struct walk *walk, uint64_t image_bytes)
{
	uint64_t now = work_so_far(), done = now - walk->work;

	walk->work = now;
	walk->most = FDIO_MAX(walk->most, done);
	MUST(done <= work_allowed(image_bytes));
}

/* An operation has ended with err, 0 or -errno: checks its work, counts damage, returns err. */
static int note(struct walk *walk, int err)
{
	work_done(walk, walk->vol->dev->caps.size_bytes);
	if (err == -EUCLEAN) {
		walk->unclean++;
		MUST(!walk->pristine);
	}
	return err;
}

/* ---- reading ---- */
/* The whole map of a file, as far as MAX_RUNS; inode locked. */
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
			return; /* an error has dropped the map meanwhile */
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

/* Takes over the reference, in place of another one if there are many; false: it does not. */
static bool keep(struct walk *walk, struct ext4_inode *inode, const char *name, unsigned len)
{
	unsigned at = walk->nr_kept;

	if (at == MAX_KEPT) {
		if (rnd_below(&walk->rng, 4))
			return false;
		at = rnd_below(&walk->rng, MAX_KEPT);
		ext4_inode_put(walk->kept[at]);
	} else {
		walk->nr_kept++;
	}
	walk->kept[at] = inode;
	memcpy(walk->names[at], name, len);
	walk->name_len[at] = len;
	return true;
}

/* names: length and bytes of each, used bytes of LISTING_BYTES; stop: after so many entries. */
struct listing { struct walk *walk; char *names; unsigned used, nr, stop; uint64_t last; };
#define LISTING_BYTES 32768u

static bool emit(void *arg, const struct ext4_dirent *entry)
{
	struct listing *listing = arg;

	MUST(entry->name_len > 0);
	if (listing->nr++ >= listing->stop)
		return false;
	listing->walk->entries++;
	listing->last = entry->next_cookie;
	if (listing->used + 1 + entry->name_len <= LISTING_BYTES &&
	    listing->walk->names_tried < 700) {
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
	char *names = malloc(LISTING_BYTES);
	struct listing listing = { .walk = walk, .names = names, .stop = MAX_ENTRIES };
	struct ext4_inode *up;

	MUST(listing.names);
	if (!note(walk, ext4_readdir(dir, 0, emit, &listing)) && listing.nr > 4) {
		/* Once more from a position in the middle; the names are not collected. */
		struct listing again = {
			.walk = walk, .names = listing.names, .used = LISTING_BYTES, .stop = 50
		};
		uint64_t cookie = listing.last / (1 + rnd_below(&walk->rng, 3));

		(void)note(walk, ext4_readdir(dir, cookie, emit, &again));
	}
	if (!note(walk, ext4_lookup_parent(dir, &up)))
		ext4_inode_put(up);
	for (unsigned p = 0; p < listing.used; p += 1U + (uint8_t)listing.names[p])
		take_name(walk, dir, listing.names + p + 1, (uint8_t)listing.names[p]);
	free(listing.names);
	if (!ext4_lookup(dir, "not there", 9, &up))
		ext4_inode_put(up);
	(void)note(walk, 0);
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
	/* Inodes by number, as a stale file handle asks for them; no name may lead there. */
	for (unsigned k = 0; k < 24; k++)
		if (!note(walk,
			  ext4_inode_get(walk->vol, rnd_below(&walk->rng, n + 3), NULL, &inode))) {
			look_at(walk, inode);
			ext4_inode_put(inode);
		}
}

/* ---- changing ---- */
static struct ext4_inode *any(struct walk *walk)
{
	return walk->nr_kept ? walk->kept[rnd_below(&walk->rng, walk->nr_kept)] : walk->dirs[0];
}
static struct ext4_inode *any_dir(struct walk *walk)
{
	return walk->dirs[rnd_below(&walk->rng, walk->nr_dirs)];
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

/* A new name, made in own (256 bytes), or one that was seen somewhere. */
static const char *some_name(struct walk *walk, unsigned *len, char *own)
{
	unsigned k = rnd_below(&walk->rng, walk->nr_kept + 2);

	if (k < walk->nr_kept) {
		*len = walk->name_len[k];
		return walk->names[k];
	}
	*len = 1 + rnd_below(&walk->rng, rnd_below(&walk->rng, 3) ? 20 : 255);
	memset(own, 'A' + (int)rnd_below(&walk->rng, 26), *len);
	own[0] = 'n';
	return own;
}

/* Data first, then the extents, as a write does it; inode locked. */
static void write_reserved(struct walk *walk, struct ext4_inode *inode,
			   struct ext4_reservation *reservation, uint32_t at, uint32_t len)
{
	uint32_t block_size = walk->vol->block_size;
	uint64_t size = 0;

	for (unsigned e = 0; e < reservation->nr; e++) {
		uint64_t pblk = reservation->ext[e].pblk;

		MUST(ext4_blocks_valid(walk->vol, pblk, reservation->ext[e].len));
		for (uint32_t b = 0; b < reservation->ext[e].len; b++)
			MUST(!dev_write(walk->vol->dev, walk->buf, block_size,
					(pblk + b) * block_size, 0));
	}
	if (rnd_below(&walk->rng, 3))
		size = (uint64_t)(at + len) * block_size - rnd_below(&walk->rng, block_size);
	(void)note(walk, ext4_insert(inode, reservation, at, len, size));
}

static void do_write(struct walk *walk)
{
	struct ext4_inode *inode = any_file(walk);
	struct ext4_reservation reservation;
	uint32_t at, len;

	if (!inode)
		return;
	at = rnd_below(&walk->rng, rnd_below(&walk->rng, 4) ? 900 : UINT32_MAX - 1);
	len = 1 + rnd_below(&walk->rng, 30);
	if (at > UINT32_MAX - 1 - len)
		at = UINT32_MAX - 1 - len;
	ext4_inode_lock_exclusive(inode);
	if (!note(walk, ext4_map_load(inode)) &&
	    !note(walk, ext4_reserve_holes(inode, at, len, true, &reservation))) {
		write_reserved(walk, inode, &reservation, at, len);
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
	uint64_t size, off, len;
	int mode;

	if (!inode)
		return;
	size = ext4_inode_size(inode);
	ext4_inode_lock_exclusive(inode);
	if (rnd_below(&walk->rng, 2)) {
		static const uint64_t sizes[] = {
			0, 1, 511, 4096, 100000, 1ULL << 31, (1ULL << 32) * 1024, INT64_MAX
		};
		uint64_t to = rnd_below(&walk->rng, 2) && size
					      ? rnd_u64(&walk->rng) % size
					      : sizes[rnd_below(&walk->rng, ARRAY_SIZE(sizes))];
		(void)note(walk, ext4_map_load(inode) ? 0 : ext4_truncate(inode, to));
	} else {
		off = rnd_below(&walk->rng, 4) && size
				      ? rnd_u64(&walk->rng) % (size + 4096)
				      : rnd_u64(&walk->rng) >> (1 + rnd_below(&walk->rng, 40));
		off = FDIO_MIN(off, (uint64_t)INT64_MAX - (1 << 20));
		len = 1 + rnd_below(&walk->rng, 1 << 18);
		mode = modes[rnd_below(&walk->rng, ARRAY_SIZE(modes))];
		(void)note(walk, ext4_fallocate(inode, mode, off, len, true));
	}
	look_at_runs(walk, inode);
	ext4_inode_unlock(inode);
}

static void do_names(struct walk *walk)
{
	static const uint32_t modes[] = { 0100644, 0100644, 0040755, 0020600, 0010600 };
	char own[256], own2[256];
	unsigned len, len2, flags;
	const char *name = some_name(walk, &len, own), *name2;
	struct ext4_inode *dir = any_dir(walk), *dir2, *inode = NULL;
	uint32_t mode = 0;

	switch (rnd_below(&walk->rng, 8)) {
	case 0:
	case 1:
		mode = modes[rnd_below(&walk->rng, ARRAY_SIZE(modes))];
		if (!note(walk, ext4_create(dir, name, len, mode, makedev(1, 3), &cred, &inode)) &&
		    !keep(walk, inode, name, len))
			ext4_inode_put(inode);
		break;
	case 2:
		if (!note(walk, ext4_symlink(dir, name, len, (char *)memset(walk->buf, 'y', 900),
					     1 + rnd_below(&walk->rng, 900), &cred, &inode)))
			ext4_inode_put(inode);
		break;
	case 3: (void)note(walk, ext4_link(dir, name, len, any(walk), false)); break;
	case 4: (void)note(walk, ext4_unlink(dir, name, len)); break;
	case 5: (void)note(walk, ext4_rmdir(dir, name, len)); break;
	default:
		name2 = some_name(walk, &len2, own2);
		flags = rnd_below(&walk->rng, 3) ? 0 : 1U << rnd_below(&walk->rng, 3);
		dir2 = any_dir(walk);
		(void)note(walk, ext4_rename(dir, name, len, dir2, name2, len2, flags, &cred));
		break;
	}
}

static void do_attrs(struct walk *walk)
{
	static const char *const names[] = {
		"user.a", "user.one", "user.block", "trusted.t", "security.capability",
		"system.posix_acl_access", "system.posix_acl_default",
	};
	struct ext4_inode *inode = any(walk);
	const char *name = names[rnd_below(&walk->rng, ARRAY_SIZE(names))];
	struct ext4_attr attr = { .mode = 0100755, .uid = rnd_below(&walk->rng, 3), .gid = 7 };
	unsigned set = EXT4_SET_UID | EXT4_SET_MTIME_NOW, len;

	switch (rnd_below(&walk->rng, 4)) {
	case 0: (void)note(walk, ext4_xattr_remove(inode, name)); break;
	case 1:
		set |= rnd_below(&walk->rng, 2) ? EXT4_SET_MODE : EXT4_KILL_SUIDGID;
		(void)note(walk, ext4_setattr(inode, set, &attr));
		break;
	default:
		memset(walk->buf, 'z', 4096);
		len = rnd_below(&walk->rng, rnd_below(&walk->rng, 2) ? 60 : 4000);
		(void)note(walk, ext4_xattr_set(inode, name, walk->buf, len, 0, false));
		break;
	}
	look_at_attrs(walk, inode);
}

/* Operations on the volume as a whole, and files without a name. */
static void do_volume(struct walk *walk)
{
	struct ext4_inode *inode = NULL;
	struct ext4_statfs stats;
	uint64_t least, trimmed;

	switch (rnd_below(&walk->rng, 4)) {
	case 0: (void)note(walk, ext4_vol_sync(walk->vol)); break;
	case 1: ext4_vol_statfs(walk->vol, &stats); break;
	case 2:
		least = rnd_below(&walk->rng, 9999);
		(void)note(walk, ext4_vol_trim(walk->vol, rnd_below(&walk->rng, 1 << 22),
					       UINT64_MAX, least, &trimmed));
		break;
	default:
		if (!note(walk, ext4_tmpfile(any_dir(walk), 0100600, &cred, &inode)) &&
		    !keep(walk, inode, "tmp", 3))
			ext4_inode_put(inode);
		break;
	}
}

static void change(struct walk *walk, unsigned nr_ops)
{
	for (; walk->ops < nr_ops; walk->ops++) {
		switch (rnd_below(&walk->rng, 12)) {
		case 0:
		case 1:
		case 2: do_write(walk); break;
		case 3:
		case 4: do_sizes(walk); break;
		case 5:
		case 6: do_attrs(walk); break;
		case 7: do_volume(walk); break;
		default: do_names(walk); break;
		}
	}
}

/* ---- one mount, and the whole ---- */
static void drop(struct walk *walk)
{
	for (unsigned k = 0; k < walk->nr_kept; k++)
		ext4_inode_put(walk->kept[k]);
	for (unsigned k = 0; k < walk->nr_dirs; k++)
		ext4_inode_put(walk->dirs[k]);
}

/*
 * Damage was found: the superblock must say so, if the volume was writable and the superblock is
 * still one.
 */
static void check_noted(struct fuzz_dev *dev, bool writable)
{
	uint16_t state = fdio_get_le16(dev->img, 1024 + 0x3a);
	uint16_t magic = fdio_get_le16(dev->img, 1024 + 0x38);

	if (writable && magic == EXT2_SUPER_MAGIC)
		MUST(state & EXT2_ERROR_FS);
}

/* One mount with so many operations; abandon: the power goes at the end. Returns its error. */
static int mount_once(const struct image_case *test, struct fuzz_dev *dev, unsigned ops,
		      bool abandon, bool pristine, struct walk_result *res)
{
	struct ext4_options options = { .acl = true,
					.user_xattr = true,
					.commit_interval_s = 3600,
					.read_only = test->read_only,
					.norecovery = test->norecovery,
					.errors = (enum ext4_errors_policy)test->errors,
					.cache_bytes = 4 << 20 };
	struct walk *walk = calloc(1, sizeof(*walk));
	char reason[512] = "";
	bool writable;
	int err;

	MUST(walk);
	walk->rng = rnd_seed(test->walk + ops);
	walk->pristine = pristine;
	uint64_t corrupt = fdio_counter_read(COUNTER_ext4_corrupt);
	walk->work = work_so_far();
	err = ext4_vol_open(&dev->dev, &options, &walk->vol, NULL, FDIO_REASON(reason));
	work_done(walk, dev->size);
	if (err) {
		MUST(reason[0] && !pristine);
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
		err = ext4_vol_close(walk->vol);
		work_done(walk, dev->size);
		MUST(!pristine || !err);
		if (fdio_counter_read(COUNTER_ext4_corrupt) > corrupt)
			check_noted(dev, writable);
	}
	res->ops += walk->ops;
	res->unclean += walk->unclean;
	res->work = FDIO_MAX(res->work, walk->most);
out:
	epoch_drain();
	free(walk);
	return err;
}

void walk_image(const struct image_case *test, struct fuzz_dev *dev, bool pristine,
		struct walk_result *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->mount = mount_once(test, dev, 100, test->abandon, pristine, ret);
	/*
	 * The same must hold for the image that the first mount left behind, which after a power
	 * cut has a log of the program's own to replay.
	 */
	if (ret->opened)
		mount_once(test, dev, 20, false, pristine && !test->abandon, ret);
}
