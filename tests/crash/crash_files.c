/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Crash workload on files, through the ext4 room: create, append, overwrite, truncate, rename,
 * unlink, fsync and syncfs. Every 8 bytes of a file name their file, incarnation, generation and
 * position.
 *
 * Promised after a cut: what was synced and not touched since is exactly there (name, size, every
 * byte, or the absence of an unlinked name). Every other file shows only bytes of its own, or
 * zeroes, never those of another file or of a deleted one. e2fsck judges the tree as a whole.
 *
 * One thread works; the journal's threads run beside it.
 */
#include "crash/crash.h"
#include "base/crc32c.h"
#include "ext4/ext4.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { NR_SLOTS = 14, NR_DIRS = 3, MAX_BLOCKS = 40, ROUNDS = 140, MAX_OPS = 400, MAX_ACKS = 2048 };

/* What a slot's file should be. Its name says the slot, the incarnation and the renames. */
struct file {
	bool exists;
	unsigned incarnation, renames, dir;
	uint64_t size;
	uint32_t gen[MAX_BLOCKS];   /* 0: hole */
	uint32_t valid[MAX_BLOCKS]; /* bytes of that generation; a truncate has zeroed the rest */
};

/* After so many events, the slot's file, after its first ops operations, was durable. */
struct ack { unsigned event, slot, ops; struct file file; };

struct slot {
	struct file file;
	unsigned ops;              /* operations so far */
	unsigned start[MAX_OPS];   /* event at which each began */
};

struct crash_run {
	struct fake_dev *fake;
	struct ext4_vol *vol;
	struct ext4_inode *dir[NR_DIRS]; /* 0 is the root */
	unsigned block_size;
	uint32_t gen; /* of the last write: each one has its own */
	struct slot slot[NR_SLOTS];
	struct ack *acks;
	unsigned nr_acks;
	uint64_t seed;
};

static const struct ext4_options base_options = { .acl = true,
						  .user_xattr = true,
						  .commit_interval_s = 3600 };
static const struct ext4_credentials root_cred = { .cap_fsetid = true };

static uint32_t word_of(unsigned slot, unsigned incarnation, uint32_t lblk, unsigned off)
{
	return (slot * 977 + incarnation * 131 + 1) * 2654435761u ^ lblk * 40503u ^ (off << 15);
}

static void fill(uint8_t *buf, unsigned bs, unsigned slot, unsigned incarnation, uint32_t lblk,
		 uint32_t gen)
{
	for (unsigned off = 0; off < bs; off += 8) {
		uint32_t w[2] = { gen, word_of(slot, incarnation, lblk, off) };

		memcpy(buf + off, w, 8);
	}
}

static unsigned name_of(char *buf, size_t len, unsigned slot, const struct file *file)
{
	return (unsigned)snprintf(buf, len, "s%u.%u.%u", slot, file->incarnation, file->renames);
}

/* ---- operations; each returns 0 or -errno, and the model follows only on success ---- */

static struct ext4_inode *open_slot(struct crash_run *run, unsigned s)
{
	struct ext4_inode *inode = NULL;
	char name[64];
	unsigned len = name_of(name, sizeof(name), s, &run->slot[s].file);

	return ext4_lookup(run->dir[run->slot[s].file.dir], name, len, &inode) ? NULL : inode;
}

static void begin_op(struct crash_run *run, unsigned s)
{
	if (run->slot[s].ops < MAX_OPS)
		run->slot[s].start[run->slot[s].ops++] = fake_record_events(run->fake);
}

static int op_create(struct crash_run *run, unsigned s)
{
	struct slot *slot = &run->slot[s];
	struct file next = { .exists = true,
			     .incarnation = slot->file.incarnation + 1,
			     .dir = crash_pick(&run->seed, NR_DIRS) };
	struct ext4_inode *inode;
	char name[64];
	int err;

	begin_op(run, s);
	err = ext4_create(run->dir[next.dir], name, name_of(name, sizeof(name), s, &next), 0100644,
			  0, &root_cred, &inode);
	if (err)
		return err;
	ext4_inode_put(inode);
	slot->file = next;
	return 0;
}

static int write_block(struct crash_run *run, unsigned s, uint32_t lblk, uint64_t pblk,
		       uint32_t gen)
{
	static uint8_t buf[65536] __attribute__((aligned(4096)));

	fill(buf, run->block_size, s, run->slot[s].file.incarnation, lblk, gen);
	return dev_write(fake_dev(run->fake), buf, run->block_size, pblk * run->block_size, 0);
}

/*
 * Writes blocks at the end or, leaving a hole, behind it. The data is on the device before the
 * extent is in the tree.
 */
static int op_append(struct crash_run *run, unsigned s)
{
	struct file *file = &run->slot[s].file;
	uint32_t at = (uint32_t)fdio_div_up(file->size, run->block_size) +
		      (crash_pick(&run->seed, 4) ? 0 : crash_pick(&run->seed, 4));
	uint32_t len = 1 + crash_pick(&run->seed, 6), gen = ++run->gen;
	struct ext4_reservation reservation;
	struct ext4_inode *inode = open_slot(run, s);
	uint64_t end = (uint64_t)(at + len) * run->block_size;
	int err;

	if (!inode)
		return -ENOENT;
	if (at + len > MAX_BLOCKS) {
		ext4_inode_put(inode);
		return 0;
	}
	begin_op(run, s);
	ext4_inode_lock_exclusive(inode);
	err = ext4_map_load(inode);
	if (!err)
		err = ext4_reserve_holes(inode, at, len, false, &reservation);
	if (!err) {
		for (unsigned e = 0; e < reservation.nr && !err; e++)
			for (uint32_t b = 0; b < reservation.ext[e].len && !err; b++)
				err = write_block(run, s, reservation.ext[e].lblk + b,
						  reservation.ext[e].pblk + b, gen);
		if (!err)
			err = ext4_insert(inode, &reservation, 0, 0, end);
		ext4_reservation_free(&reservation);
	}
	ext4_inode_unlock(inode);
	ext4_inode_put(inode);
	if (err)
		return err;
	for (uint32_t b = at; b < at + len; b++) {
		file->gen[b] = gen;
		file->valid[b] = run->block_size;
	}
	file->size = end;
	return 0;
}

static int op_overwrite(struct crash_run *run, unsigned s)
{
	struct file *file = &run->slot[s].file;
	uint32_t lblk = crash_pick(&run->seed, MAX_BLOCKS), gen = ++run->gen;
	struct ext4_inode *inode;
	struct ext4_extent extent;
	int err;

	if ((uint64_t)(lblk + 1) * run->block_size > file->size || !file->gen[lblk])
		return 0;
	inode = open_slot(run, s);
	if (!inode)
		return -ENOENT;
	begin_op(run, s);
	ext4_inode_lock_exclusive(inode);
	err = ext4_map_load(inode);
	if (!err)
		err = ext4_map_lookup(inode, lblk, &extent);
	if (!err && extent.state != EXT4_EXTENT_WRITTEN)
		err = -EPROTO;
	if (!err)
		err = write_block(run, s, lblk, extent.pblk, gen);
	ext4_touch_write(inode);
	ext4_inode_unlock(inode);
	ext4_inode_put(inode);
	if (!err) {
		file->gen[lblk] = gen;
		file->valid[lblk] = run->block_size;
	}
	return err;
}

static int op_truncate(struct crash_run *run, unsigned s)
{
	struct file *file = &run->slot[s].file;
	unsigned bs = run->block_size, blocks = (unsigned)(file->size / bs);
	uint64_t size = (uint64_t)crash_pick(&run->seed, blocks + 1) * bs;
	struct ext4_inode *inode = open_slot(run, s);
	int err;

	if (!inode)
		return -ENOENT;
	if (size && crash_pick(&run->seed, 2))
		size -= 8 * (1 + crash_pick(&run->seed, 60));
	begin_op(run, s);
	ext4_inode_lock_exclusive(inode);
	err = ext4_map_load(inode);
	if (!err)
		err = ext4_truncate(inode, size);
	ext4_inode_unlock(inode);
	ext4_inode_put(inode);
	if (err)
		return err;
	file->size = size;
	if (size % bs)
		file->valid[size / bs] = FDIO_MIN(file->valid[size / bs], (uint32_t)(size % bs));
	for (uint64_t b = fdio_div_up(size, bs); b < MAX_BLOCKS; b++)
		file->gen[b] = 0;
	return 0;
}

static int op_unlink(struct crash_run *run, unsigned s)
{
	struct file *file = &run->slot[s].file;
	char name[64];
	int err;

	begin_op(run, s);
	err = ext4_unlink(run->dir[file->dir], name, name_of(name, sizeof(name), s, file));
	if (!err) {
		file->exists = false;
		file->size = 0;
		memset(file->gen, 0, sizeof(file->gen));
	}
	return err;
}

static int op_rename(struct crash_run *run, unsigned s)
{
	struct file *file = &run->slot[s].file, next = *file;
	char from[64], to[64];
	unsigned flen = name_of(from, sizeof(from), s, file), tlen;
	int err;

	next.renames++;
	next.dir = crash_pick(&run->seed, NR_DIRS);
	tlen = name_of(to, sizeof(to), s, &next);
	begin_op(run, s);
	err = ext4_rename(run->dir[file->dir], from, flen, run->dir[next.dir], to, tlen, 0,
			  &root_cred);
	if (!err)
		*file = next;
	return err;
}

/* ---- syncing ---- */

/* The slot is durable as the model has it now. */
static void ack(struct crash_run *run, unsigned s)
{
	if (run->nr_acks < MAX_ACKS)
		run->acks[run->nr_acks++] = (struct ack){ .event = fake_record_events(run->fake),
							  .slot = s,
							  .ops = run->slot[s].ops,
							  .file = run->slot[s].file };
}

static int op_fsync(struct crash_run *run, unsigned s)
{
	struct ext4_inode *inode = open_slot(run, s);
	bool flushed = false;
	journal_tid tid;
	int err = 0;

	if (!inode)
		return -ENOENT;
	if (ext4_sync_tid(inode, false, &tid))
		err = journal_commit_wait(ext4_vol_journal(run->vol), tid, &flushed);
	if (!err && !flushed)
		err = dev_flush(fake_dev(run->fake));
	ext4_inode_put(inode);
	if (!err)
		ack(run, s);
	return err;
}

static int op_syncfs(struct crash_run *run)
{
	int err = ext4_vol_sync(run->vol);

	for (unsigned s = 0; s < NR_SLOTS && !err; s++)
		ack(run, s);
	return err;
}

static int one_op(struct crash_run *run)
{
	unsigned s = crash_pick(&run->seed, NR_SLOTS), what = crash_pick(&run->seed, 20);
	journal_tid tid;

	if (run->slot[s].ops >= MAX_OPS - 1)
		return 0;
	if (!run->slot[s].file.exists)
		return op_create(run, s);
	if (what < 7)
		return op_append(run, s);
	if (what < 9)
		return op_overwrite(run, s);
	if (what < 12)
		return op_truncate(run, s);
	if (what < 14)
		return op_unlink(run, s);
	if (what < 16)
		return op_rename(run, s);
	if (what < 18)
		return op_fsync(run, s);
	if (what < 19)
		return op_syncfs(run);
	if (ext4_sync_tid(run->dir[run->slot[s].file.dir], true, &tid))
		journal_commit_start(ext4_vol_journal(run->vol), tid);
	return 0;
}

/* ---- life ---- */

static void close_dirs(struct crash_run *run)
{
	for (unsigned d = 0; d < NR_DIRS; d++) {
		ext4_inode_put(run->dir[d]);
		run->dir[d] = NULL;
	}
}

static void files_free(struct crash_run *run)
{
	if (run->vol) {
		close_dirs(run);
		ext4_vol_abandon(run->vol);
	}
	if (run->fake)
		fake_free(run->fake);
	free(run->acks);
	free(run);
}

static bool open_dirs(struct ext4_vol *vol, struct ext4_inode **dir, bool make)
{
	if (ext4_inode_get(vol, EXT4_ROOT_INO, NULL, &dir[0]))
		return false;
	for (unsigned d = 1; d < NR_DIRS; d++) {
		char name[16];
		unsigned len = (unsigned)snprintf(name, sizeof(name), "dir%u", d);
		int err = make ? ext4_create(dir[0], name, len, 040755, 0, &root_cred, &dir[d])
			       : ext4_lookup(dir[0], name, len, &dir[d]);

		if (err)
			return false;
	}
	return true;
}

static bool setup(struct crash_run *run)
{
	bool small = crash_pick(&run->seed, 3) != 0, csum = crash_pick(&run->seed, 4) != 0;
	unsigned mib = small ? 1 : 4;
	const char *reason;
	char args[200], why[256] = "";

	snprintf(args, sizeof(args),
		 "-t ext4 -b %u -O %s,64bit,^resize_inode -N 128 -g 2048 -E "
		 "nodiscard,lazy_itable_init=0 -J size=%u",
		 small ? 1024 : 4096, csum ? "metadata_csum" : "^metadata_csum", mib);
	run->fake = fake_mkfs((uint64_t)mib * 4 << 20, args);
	if (!run->fake)
		return false;
	run->block_size = small ? 1024 : 4096;
	if (ext4_vol_open(fake_dev(run->fake), &base_options, &run->vol, &reason,
			  FDIO_REASON(why))) {
		fprintf(stderr, "ext4_vol_open: %s\n", why);
		return false;
	}
	return open_dirs(run->vol, run->dir, true) && !ext4_vol_sync(run->vol);
}

static struct crash_run *files_run(uint64_t seed)
{
	struct crash_run *run = calloc(1, sizeof(*run));

	FDIO_ASSERT(run);
	run->seed = seed;
	run->acks = calloc(MAX_ACKS, sizeof(*run->acks));
	if (!run->acks || !setup(run)) {
		files_free(run);
		return NULL;
	}
	fake_record_start(run->fake);
	for (unsigned round = 0; round < ROUNDS; round++) {
		int err = one_op(run);

		if (err && err != -ENOSPC) {
			fprintf(stderr, "files workload: an operation failed with %d in round %u\n",
				err, round);
			files_free(run);
			return NULL;
		}
	}
	if (crash_pick(&run->seed, 3) == 0) {
		close_dirs(run);
		if (ext4_vol_close(run->vol))
			fprintf(stderr, "files workload: close failed\n");
		run->vol = NULL;
		for (unsigned s = 0; s < NR_SLOTS; s++)
			ack(run, s);
	}
	return run;
}

static struct fake_dev *files_device(struct crash_run *run)
{
	return run->fake;
}

int crash_recover_volume(const struct ext4_options *options, struct fake_dev *fake, char *why,
			 size_t len)
{
	const char *reason = NULL;
	struct ext4_vol *vol;
	int err = ext4_vol_open(fake_dev(fake), options, &vol, &reason, FDIO_REASON_AT(why, len));

	if (err)
		return err;
	if (reason) {
		snprintf(why, len, "read-only: %s", reason);
		ext4_vol_abandon(vol);
		return -EROFS;
	}
	return ext4_vol_close(vol);
}

static int files_recover(struct crash_run *run, struct fake_dev *fake, char *why, size_t len)
{
	return crash_recover_volume(&base_options, fake, why, len);
}

/* ---- verdict ---- */

struct look {
	struct crash_run *run;
	struct fake_dev *fake;
	char *why;
	size_t len;
};

static bool complain(struct look *look, const char *what, const char *name)
{
	snprintf(look->why, look->len, "%s: %s", name, what);
	return false;
}

/* The first n bytes of a block of a recovered file are exactly what they should be. */
static bool block_is(const uint8_t *got, unsigned n, unsigned slot, unsigned incarnation,
		     uint32_t lblk, const struct file *want)
{
	for (unsigned off = 0; off + 8 <= n; off += 8) {
		bool zero = !want->gen[lblk] || off >= want->valid[lblk];
		uint32_t w[2];

		memcpy(w, got + off, 8);
		if (w[0] != (zero ? 0 : want->gen[lblk]) ||
		    w[1] != (zero ? 0 : word_of(slot, incarnation, lblk, off)))
			return false;
	}
	return true;
}

/* They are any mixture of the file's own generations and zeroes. */
static bool block_is_own(const uint8_t *got, unsigned n, unsigned slot, unsigned incarnation,
			 uint32_t lblk)
{
	for (unsigned off = 0; off + 8 <= n; off += 8) {
		uint32_t w[2];

		memcpy(w, got + off, 8);
		if ((w[0] || w[1]) && w[1] != word_of(slot, incarnation, lblk, off))
			return false;
	}
	return true;
}

/* want: what was promised; NULL: nothing, so the file must only have bytes of its own. */
static bool content_ok(struct look *look, struct ext4_inode *inode, const char *name,
		       const struct file *want)
{
	static uint8_t buf[65536];
	uint64_t size = ext4_inode_size(inode);
	unsigned slot, incarnation, renames, bs = look->run->block_size;

	if (sscanf(name, "s%u.%u.%u", &slot, &incarnation, &renames) != 3)
		return true;
	if (want && size != want->size)
		return complain(look, "size is wrong", name);
	if (size > (uint64_t)MAX_BLOCKS * bs)
		return complain(look, "size is impossible", name);
	if (ext4_map_load(inode))
		return complain(look, "map cannot be loaded", name);
	for (uint32_t b = 0; (uint64_t)b * bs < size; b++) {
		unsigned n = (unsigned)FDIO_MIN((uint64_t)bs, size - (uint64_t)b * bs);
		struct ext4_extent extent;

		if (ext4_map_lookup(inode, b, &extent))
			return complain(look, "block cannot be looked up", name);
		memset(buf, 0, bs);
		if (extent.state == EXT4_EXTENT_WRITTEN)
			fake_peek(look->fake, buf, bs, extent.pblk * bs);
		if (want && !block_is(buf, n, slot, incarnation, b, want))
			return complain(look, "synced bytes are not there", name);
		if (!want && !block_is_own(buf, n, slot, incarnation, b))
			return complain(look, "shows bytes that are not its own", name);
	}
	return true;
}

struct names { char name[64][64]; unsigned nr; };

static bool collect(void *arg, const struct ext4_dirent *entry)
{
	struct names *n = arg;

	if (n->nr < ARRAY_SIZE(n->name) && entry->name_len < sizeof(n->name[0]) &&
	    entry->name[0] == 's')
		snprintf(n->name[n->nr++], sizeof(n->name[0]), "%.*s", entry->name_len,
			 entry->name);
	return true;
}

typedef bool (*file_fn)(struct look *look, struct ext4_inode *inode, const char *name, void *arg);

/* Calls fn for each file of the tree; false as soon as one returns false. */
static bool each_file(struct look *look, struct ext4_inode **dir, file_fn fn, void *arg)
{
	static struct names names;

	for (unsigned d = 0; d < NR_DIRS; d++) {
		names.nr = 0;
		if (ext4_readdir(dir[d], 0, collect, &names))
			return complain(look, "cannot be read", "directory");
		for (unsigned n = 0; n < names.nr; n++) {
			struct ext4_inode *inode;
			bool ok;

			if (ext4_lookup(dir[d], names.name[n], (unsigned)strlen(names.name[n]),
					&inode))
				return complain(look, "is listed and cannot be found",
						names.name[n]);
			ok = fn(look, inode, names.name[n], arg);
			ext4_inode_put(inode);
			if (!ok)
				return false;
		}
	}
	return true;
}

static bool clean_file(struct look *look, struct ext4_inode *inode, const char *name, void *arg)
{
	return content_ok(look, inode, name, NULL);
}

/* A slot that was synced before event k, and not touched between, is exactly there. */
static bool slot_ok(struct look *look, struct ext4_inode **dir, unsigned s, unsigned k)
{
	struct crash_run *run = look->run;
	const struct ack *a = NULL;
	struct ext4_inode *inode;
	char name[64];
	unsigned len;
	bool ok;
	int err;

	for (unsigned n = 0; n < run->nr_acks && run->acks[n].event <= k; n++)
		if (run->acks[n].slot == s)
			a = &run->acks[n];
	if (!a || (a->ops < run->slot[s].ops && run->slot[s].start[a->ops] < k))
		return true;
	len = name_of(name, sizeof(name), s, &a->file);
	err = ext4_lookup(dir[a->file.dir], name, len, &inode);
	if (!a->file.exists) {
		if (!err)
			ext4_inode_put(inode);
		return err == -ENOENT || complain(look, "was unlinked durably and is back", name);
	}
	if (err)
		return complain(look, "was synced and is gone", name);
	ok = content_ok(look, inode, name, &a->file);
	ext4_inode_put(inode);
	return ok;
}

static bool files_check(struct crash_run *run, struct fake_dev *fake, unsigned k, char *why,
			size_t len)
{
	struct ext4_options options = base_options;
	struct look look = { .run = run, .fake = fake, .why = why, .len = len };
	struct ext4_inode *dir[NR_DIRS] = { NULL };
	struct ext4_vol *vol;
	bool ok;

	options.read_only = true;
	if (ext4_vol_open(fake_dev(fake), &options, &vol, NULL, FDIO_REASON_AT(why, len)))
		return false;
	ok = open_dirs(vol, dir, false) || complain(&look, "is missing", "directory");
	if (ok)
		ok = each_file(&look, dir, clean_file, NULL);
	for (unsigned s = 0; s < NR_SLOTS && ok; s++)
		ok = slot_ok(&look, dir, s, k);
	for (unsigned d = 0; d < NR_DIRS; d++)
		ext4_inode_put(dir[d]);
	ext4_vol_abandon(vol);
	return ok;
}

/* A file's name, kind, links, size and every byte; holes and unwritten extents are zeroes. */
static bool digest_file(struct look *look, struct ext4_inode *inode, const char *name, void *arg)
{
	static uint8_t buf[65536];
	uint64_t size = ext4_inode_size(inode);
	struct ext4_attr attr;
	unsigned bs = look->run->block_size;
	uint32_t crc;

	ext4_getattr(inode, &attr);
	crc = fdio_crc32c(~0u, name, strlen(name));
	crc = fdio_crc32c(crc, &attr.mode, sizeof(attr.mode));
	crc = fdio_crc32c(crc, &attr.nlink, sizeof(attr.nlink));
	crc = fdio_crc32c(crc, &size, sizeof(size));
	if (size > (uint64_t)MAX_BLOCKS * bs || ext4_map_load(inode))
		return complain(look, "cannot be read", name);
	for (uint32_t b = 0; (uint64_t)b * bs < size; b++) {
		struct ext4_extent extent;

		if (ext4_map_lookup(inode, b, &extent))
			return complain(look, "block cannot be looked up", name);
		memset(buf, 0, bs);
		if (extent.state == EXT4_EXTENT_WRITTEN)
			fake_peek(look->fake, buf, bs, extent.pblk * bs);
		crc = fdio_crc32c(crc, buf, FDIO_MIN((uint64_t)bs, size - (uint64_t)b * bs));
	}
	*(uint64_t *)arg += crc; /* a sum, so that the order of the names does not matter */
	return true;
}

static bool files_digest(struct crash_run *run, struct fake_dev *fake, uint64_t *sum, char *why,
			 size_t len)
{
	struct ext4_options options = base_options;
	struct look look = { .run = run, .fake = fake, .why = why, .len = len };
	struct ext4_inode *dir[NR_DIRS] = { NULL };
	struct ext4_vol *vol;
	bool ok;

	options.read_only = true;
	*sum = 0;
	if (ext4_vol_open(fake_dev(fake), &options, &vol, NULL, FDIO_REASON_AT(why, len)))
		return false;
	ok = open_dirs(vol, dir, false) || complain(&look, "is missing", "directory");
	ok = ok && each_file(&look, dir, digest_file, sum);
	for (unsigned d = 0; d < NR_DIRS; d++)
		ext4_inode_put(dir[d]);
	ext4_vol_abandon(vol);
	return ok;
}

const struct crash_workload crash_files = {
	.name = "files",
	.run = files_run,
	.device = files_device,
	.recover = files_recover,
	.check = files_check,
	.digest = files_digest,
	.free = files_free,
};
