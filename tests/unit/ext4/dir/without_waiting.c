/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Operations on names in the mode of base/nowait.h, as loop threads call them. Proves that a miss
 * leaves nothing behind (NOWAIT-1 to NOWAIT-4): each operation is tried with a miss at the first
 * place that might wait, then at the second, and so on until it succeeds. After every miss the
 * volume must be as it was: names, attributes, free blocks and inodes, bitmaps and descriptors,
 * orphans and references. At the end, e2fsck must find nothing wrong.
 *
 * The other tests make misses with real causes: blocks that are not in memory, locks that another
 * thread holds, a transaction that is full, and damage, which only a worker may report.
 */
#include "kit/names.h"

#include "base/counters.h"
#include "base/nowait.h"
#include "ext4/alloc/groups.h"
#include "ext4/inode/disk_inode.h"
#include "ext4/volume/volume.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#define SIZE (16u << 20)

static struct testvol t;

/* ---- what must not change ---- */
struct snapshot {
	struct ext4_statfs stats;
	uint32_t orphans, dirs, free_inodes;
	uint64_t free_blocks, metadata_held, pending_free, refs;
	unsigned nr_cached;
	uint64_t hash; /* of names, attributes and descriptors */
};

/* FNV-1a: the hash that goes on with n bytes at p. */
static uint64_t mix(uint64_t hash, const void *p, size_t n)
{
	const uint8_t *byte = p;

	while (n--)
		hash = (hash ^ *byte++) * 0x100000001b3ull;
	return hash;
}

struct walk { uint64_t hash; uint32_t ino[64]; unsigned nr; };

static bool walk_entry(void *arg, const struct ext4_dirent *entry)
{
	struct walk *walk = arg;

	walk->hash = mix(walk->hash, entry->name, entry->name_len);
	walk->hash = mix(walk->hash, &entry->ino, sizeof(entry->ino));
	if (walk->nr < ARRAY_SIZE(walk->ino))
		walk->ino[walk->nr++] = entry->ino;
	return true;
}

static uint64_t hash_attrs(uint64_t hash, struct ext4_inode *inode)
{
	struct ext4_attr attr;

	memset(&attr, 0, sizeof(attr));
	ext4_getattr(inode, &attr);
	hash = mix(hash, &attr.mode, sizeof(attr.mode));
	hash = mix(hash, &attr.nlink, sizeof(attr.nlink));
	hash = mix(hash, &attr.uid, sizeof(attr.uid));
	hash = mix(hash, &attr.size, sizeof(attr.size));
	hash = mix(hash, &attr.blocks_512, sizeof(attr.blocks_512));
	hash = mix(hash, &attr.mtime, sizeof(attr.mtime));
	hash = mix(hash, &attr.ctime, sizeof(attr.ctime));
	return mix(hash, inode->raw, t.vol->inode_size);
}

/* dir and what is in it, depth levels of directories deep. */
static uint64_t hash_tree(uint64_t hash, struct ext4_inode *dir, unsigned depth)
{
	struct walk walk = { .hash = hash };

	must_eq(ext4_readdir(dir, 0, walk_entry, &walk), 0);
	hash = hash_attrs(walk.hash, dir);
	for (unsigned k = 0; k < walk.nr; k++) {
		struct ext4_inode *inode;

		if (walk.ino[k] == dir->ino || walk.ino[k] < t.vol->first_ino)
			continue;
		must_eq(ext4_inode_get(t.vol, walk.ino[k], NULL, &inode), 0);
		if (depth && S_ISDIR(ext4_inode_mode(inode)) && k > 1)
			hash = hash_tree(hash, inode, depth - 1);
		else
			hash = hash_attrs(hash, inode);
		ext4_inode_put(inode);
	}
	return hash;
}

/* Descriptors of the groups, and the bitmaps of those that allocate. */
static uint64_t hash_groups(uint64_t hash)
{
	for (uint32_t group = 0; group < t.vol->nr_groups; group++) {
		struct ext4_group *grp = &t.vol->alloc.groups[group];

		hash = mix(hash, &grp->desc, sizeof(grp->desc));
		hash = mix(hash, &grp->free_in_image, sizeof(grp->free_in_image));
		if (grp->image)
			hash = mix(hash, grp->image, t.vol->block_size);
	}
	return hash;
}

static void take_snapshot(struct snapshot *seen)
{
	memset(seen, 0, sizeof(*seen));
	ext4_vol_statfs(t.vol, &seen->stats);
	seen->orphans = t.vol->inode.nr_orphans;
	seen->dirs = t.vol->alloc.nr_dirs;
	seen->free_inodes = t.vol->core.free_inodes;
	seen->free_blocks = t.vol->alloc.free_blocks;
	seen->metadata_held = t.vol->alloc.metadata_held;
	seen->pending_free = t.vol->alloc.pending_free;
	seen->hash = hash_tree(hash_groups(14695981039346656037ull), t.root, 2);
	seen->nr_cached = t.vol->inode.nr_cached;
	for (size_t n = 0; n < (size_t)1 << t.vol->inode.hash_bits; n++) {
		struct ext4_inode *inode;

		list_for_each(inode, &t.vol->inode.hash[n], inode.hash)
			seen->refs += inode->inode.refs;
	}
}

/* After the n-th miss of operation what, the volume b is as a was before. */
static void must_be_same(const struct snapshot *a, const struct snapshot *b, const char *what,
			 unsigned n)
{
	if (memcmp(a, b, sizeof(*a)))
		ck_abort_msg("%s, miss %u: free blocks %llu %llu held %llu %llu pending %llu %llu "
			     "inodes %u %u orphans %u %u refs %llu %llu "
			     "cached %u %u hash %d",
			     what, n, (unsigned long long)a->free_blocks,
			     (unsigned long long)b->free_blocks,
			     (unsigned long long)a->metadata_held,
			     (unsigned long long)b->metadata_held,
			     (unsigned long long)a->pending_free,
			     (unsigned long long)b->pending_free, a->free_inodes, b->free_inodes,
			     a->orphans, b->orphans, (unsigned long long)a->refs,
			     (unsigned long long)b->refs, a->nr_cached, b->nr_cached,
			     a->hash == b->hash);
}

/* ---- operations; each returns 0 or -errno ---- */
static struct ext4_inode *dir, *sub, *file;

static int do_create(void) { return name_create(dir, "new", S_IFREG | 0644); }
static int do_mkdir(void) { return name_create(dir, "newdir", S_IFDIR | 0755); }
static int do_mknod(void) { return name_create(dir, "newfifo", S_IFIFO | 0644); }
static int do_unlink(void) { return name_unlink(dir, "f0"); }
static int do_rmdir(void) { return name_rmdir(dir, "empty"); }
static int do_link(void) { return name_link(dir, "linked", file); }
static int do_rename(void) { return name_rename(dir, "f1", dir, "renamed", 0); }
static int do_replace(void) { return name_rename(dir, "f2", dir, "f3", 0); }
static int do_replace_dir(void) { return name_rename(dir, "empty2", dir, "empty3", 0); }
static int do_exchange(void) { return name_rename(dir, "f4", dir, "sub", 2); }

static int do_symlink(const char *name, unsigned len)
{
	static char target[200];
	struct ext4_inode *inode = NULL;
	int err;

	memset(target, 't', sizeof(target));
	err = ext4_symlink(dir, name, (unsigned)strlen(name), target, len, &root_credentials,
			   &inode);
	if (!err)
		ext4_inode_put(inode);
	return err;
}

static int do_fast_symlink(void) { return do_symlink("fast", 20); }
static int do_slow_symlink(void) { return do_symlink("slow", 150); }

static int do_tmpfile(void)
{
	struct ext4_inode *inode = NULL;
	int err = ext4_tmpfile(dir, 0600, &root_credentials, &inode);

	if (!err)
		ext4_inode_put(inode);
	return err;
}

static int do_chmod(void)
{
	struct ext4_attr attr = { .mode = 0700 };

	return ext4_setattr(file, EXT4_SET_MODE, &attr);
}

static int do_chown(void)
{
	struct ext4_attr attr = { .uid = 7, .gid = 8 };

	return ext4_setattr(file,
			    EXT4_SET_UID | EXT4_SET_GID | EXT4_KILL_SUIDGID | EXT4_SET_MTIME_NOW,
			    &attr);
}

static int do_lookup(void)
{
	int err = name_ino(dir, "f5");

	return err > 0 ? 0 : err;
}

static int do_readdir(void)
{
	struct walk walk = { 0 };

	return ext4_readdir(sub, 0, walk_entry, &walk);
}

static int do_getxattr(void)
{
	char buf[64];
	size_t len;

	return ext4_xattr_get(file, "user.a", buf, sizeof(buf), &len);
}

/* Three new blocks behind the end, as a write allocates them, but without data. */
static int do_grow(void)
{
	struct ext4_reservation reservation;
	uint64_t size = ext4_inode_size(file);
	int err = ext4_inode_enter_shared(file);

	if (err)
		return err;
	err = ext4_reserve_holes(file, (uint32_t)(size >> t.vol->block_bits), 3, true,
				 &reservation);
	ext4_inode_unlock(file);
	if (!err)
		err = ext4_inode_enter_exclusive(file);
	if (!err) {
		err = ext4_insert(file, &reservation, 0, 0, size + 3 * t.vol->block_size);
		ext4_inode_unlock(file);
	}
	ext4_reservation_free(&reservation);
	return err;
}

static const struct { const char *name; int (*fn)(void); } ops[] = {
	{ "lookup", do_lookup },
	{ "readdir", do_readdir },
	{ "getxattr", do_getxattr },
	{ "create", do_create },
	{ "mkdir", do_mkdir },
	{ "mknod", do_mknod },
	{ "fast symlink", do_fast_symlink },
	{ "slow symlink", do_slow_symlink },
	{ "tmpfile", do_tmpfile },
	{ "link", do_link },
	{ "chmod", do_chmod },
	{ "chown", do_chown },
	{ "rename", do_rename },
	{ "replace", do_replace },
	{ "grow", do_grow },
	{ "replace dir", do_replace_dir },
	{ "exchange", do_exchange },
	{ "unlink", do_unlink },
	{ "rmdir", do_rmdir },
};

/* ---- the volume ---- */
/* Options of mke2fs. */
static const char *const shapes[] = {
	"-b 4096", "-b 1024 -O ^metadata_csum,^64bit", "-b 1024 -O ^dir_index", "-b 2048 -I 128",
};

static void fill(struct ext4_inode *d, unsigned nr)
{
	char name[64];

	for (unsigned n = 0; n < nr; n++) {
		snprintf(name, sizeof(name), "f%u", n);
		must_eq(name_create(d, name, S_IFREG | 0644), 0);
	}
}

/*
 * Brings into memory what only allocating and deleting read: the superblock, inode tables and block
 * bitmaps.
 */
static void warm_tables(void)
{
	struct journal_buffer *buffer;

	must_eq(journal_read_block(t.vol->journal, t.vol->sb_blk, &buffer), 0);
	journal_buffer_release(buffer);
	for (uint32_t group = 0; group < t.vol->nr_groups; group++) {
		for (uint32_t k = 0; k < t.vol->itable_blocks; k++) {
			must_eq(journal_read_block(t.vol->journal,
						   t.vol->alloc.groups[group].itable + k, &buffer),
				0);
			journal_buffer_release(buffer);
		}
		fdio_mutex_lock(&t.vol->alloc.lock);
		must_eq(ext4_group_load(t.vol, group), 0);
		fdio_mutex_unlock(&t.vol->alloc.lock);
	}
}

/* The inode bitmaps too. */
static void warm(void)
{
	warm_tables();
	for (uint32_t group = 0; group < t.vol->nr_groups; group++)
		must(ext4_inode_in_use(t.vol, group * t.vol->inodes_per_group + 1) >= 0);
}

/* Formats and opens a volume with dir (nr files, sub and empty directories), sub and file in it. */
static void names_make(const char *args, unsigned nr)
{
	t = (struct testvol){ 0 };
	testvol_make(&t, SIZE, args);
	must_eq(name_create(t.root, "dir", S_IFDIR | 0755), 0);
	dir = name_lookup(t.root, "dir");
	fill(dir, nr);
	must_eq(name_create(dir, "sub", S_IFDIR | 0755), 0);
	must_eq(name_create(dir, "empty", S_IFDIR | 0755), 0);
	must_eq(name_create(dir, "empty2", S_IFDIR | 0755), 0);
	must_eq(name_create(dir, "empty3", S_IFDIR | 0755), 0);
	sub = name_lookup(dir, "sub");
	fill(sub, 5);
	file = name_lookup(dir, "f6");
	must_eq(ext4_xattr_set(file, "user.a", "value", 5, 0, false), 0);
	must_eq(ext4_xattr_set(file, "security.capability", "nothing", 7, 0, false), 0);
	warm();
}

static void put_names(void)
{
	ext4_inode_put(file);
	ext4_inode_put(sub);
	ext4_inode_put(dir);
}

static void names_done(void)
{
	put_names();
	testvol_done(&t);
}

/* ---- tests ---- */
/* Calls fn as a loop thread does; fail_at: the how manieth place that can miss does, 0: none. */
static int attempt(int (*fn)(void), unsigned fail_at)
{
	int err;
	bool missed;

	nowait_begin();
	nowait_self.fail_at = fail_at;
	err = fn();
	nowait_self.fail_at = 0;
	must(!nowait_self.missed || !nowait_self.done || err == 0);
	missed = nowait_end();
	return missed && err ? -EAGAIN : err;
}

static void every_miss(unsigned op)
{
	struct snapshot before, after;
	unsigned n = 1;
	int err;

	/* The operation before may have left inodes to evict and a transaction to commit. */
	ext4_vol_reap(t.vol);
	must_eq(ext4_vol_sync(t.vol), 0);
	take_snapshot(&before);
	for (; (err = attempt(ops[op].fn, n)) == -EAGAIN; n++) {
		take_snapshot(&after);
		must_be_same(&before, &after, ops[op].name, n);
		if (n == 300)
			ck_abort_msg("%s always misses", ops[op].name);
	}
	must_eq(err, 0);
	must(n > 1);
}

START_TEST(miss_at_each_place)
{
	names_make(shapes[_i], 60);
	for (unsigned op = 0; op < ARRAY_SIZE(ops); op++)
		every_miss(op);
	must(fdio_counter_read(COUNTER_journal_rollback) > 0);
	names_done();
}
END_TEST

/*
 * A miss at each place while a directory grows: when it gets a second block, an index, and when a
 * leaf or an index block is split.
 */
START_TEST(miss_while_growing)
{
	char name[256];
	unsigned missed = 0;

	names_make("-b 1024 -N 2048", 8);
	for (unsigned n = 0; n < 700; n++) {
		struct ext4_inode *inode = NULL;
		unsigned at = 1;
		int err;

		snprintf(name, sizeof(name), "%0*u", 20 + (int)(n % 7) * 30, n);
		do {
			nowait_begin();
			nowait_self.fail_at = at++;
			err = ext4_create(sub, name, (unsigned)strlen(name), S_IFREG | 0600, 0,
					  &root_credentials, &inode);
			nowait_self.fail_at = 0;
			nowait_end();
			missed += err == -EAGAIN;
			/*
			 * All blocks are in memory, so only a full transaction can still be in the
			 * way, which a worker may wait for.
			 */
			if (err == -EAGAIN && at > 60)
				err = ext4_create(sub, name, (unsigned)strlen(name), S_IFREG | 0600,
						  0, &root_credentials, &inode);
		} while (err == -EAGAIN);
		must_eq(err, 0);
		must_eq(name_ino(sub, name), ext4_inode_ino(inode));
		ext4_inode_put(inode);
	}
	must(missed > 700);
	names_done();
}
END_TEST

/*
 * After the volume is opened anew, most blocks are not in memory. Each operation misses without a
 * read, or succeeds; after a miss it succeeds when a worker does it.
 */
START_TEST(not_in_memory)
{
	for (unsigned op = 0; op < ARRAY_SIZE(ops); op++) {
		uint64_t reads;
		int err;

		names_make(shapes[_i], 60);
		put_names();
		testvol_close(&t);
		testvol_open(&t);
		dir = name_lookup(t.root, "dir");
		sub = name_lookup(dir, "sub");
		file = name_lookup(dir, "f6");
		reads = fdio_counter_read(COUNTER_journal_cache_miss);
		err = attempt(ops[op].fn, 0);
		must_eq(fdio_counter_read(COUNTER_journal_cache_miss), reads);
		must(err == -EAGAIN || err == 0);
		if (err)
			must_eq(ops[op].fn(), 0);
		names_done();
	}
}
END_TEST

struct contended { unsigned op; int result; };

static void *attempt_contended(void *arg)
{
	struct contended *contended = arg;

	contended->result = attempt(ops[contended->op].fn, 0);
	return NULL;
}

/* The result of an attempt by another thread, which does not hold the locks of this one. */
static int attempt_on_thread(unsigned op)
{
	struct contended contended = { .op = op };
	pthread_t thread;

	must_eq(pthread_create(&thread, NULL, attempt_contended, &contended), 0);
	pthread_join(thread, NULL);
	return contended.result;
}

/* The first three of ops only read. */
static bool changes(unsigned op)
{
	return op > 2;
}

/* Each operation misses while another thread holds the inodes' locks, or has a handle running. */
START_TEST(locks_taken)
{
	struct snapshot before, after;
	struct journal_handle *handle;

	names_make("-b 4096", 60);
	for (unsigned op = 0; op < ARRAY_SIZE(ops); op++) {
		take_snapshot(&before);
		ext4_inode_lock_exclusive(dir);
		ext4_inode_lock_exclusive(sub);
		ext4_inode_lock_exclusive(file);
		must_eq(attempt_on_thread(op), -EAGAIN);
		ext4_inode_unlock(file);
		ext4_inode_unlock(sub);
		ext4_inode_unlock(dir);
		if (changes(op)) {
			must_eq(journal_begin(t.vol->journal, 1, &handle), 0);
			must_eq(attempt_on_thread(op), -EAGAIN);
			journal_cancel(handle);
		}
		take_snapshot(&after);
		must_be_same(&before, &after, ops[op].name, 0);
		must_eq(attempt_on_thread(op), 0);
	}
	names_done();
}
END_TEST

/* When the transaction has no room for another handle, a loop thread misses; a worker waits. */
START_TEST(full_transaction)
{
	unsigned most;

	names_make("-b 1024 -J size=1", 8);
	most = journal_max_credits(t.vol->journal);
	fake_block(t.fake, FAKE_WRITE); /* so that a commit that begins does not end */
	for (unsigned n = 0;; n++) {
		char name[32];
		int err;

		snprintf(name, sizeof(name), "n%u", n);
		nowait_begin();
		err = name_create(dir, name, S_IFDIR | 0755);
		nowait_end();
		if (err == -EAGAIN)
			break;
		must_eq(err, 0);
		must(n < 2 * most);
	}
	fake_unblock(t.fake);
	must_eq(do_create(), 0);
	names_done();
}
END_TEST

static unsigned reaper_calls;
static void reaper(void *arg)
{
	(void)arg;
	reaper_calls++;
}

/* An open file without a name, with so many blocks, each an extent of its own. */
static struct ext4_inode *unlinked(unsigned blocks)
{
	struct ext4_inode *inode = NULL;
	struct ext4_reservation reservation;

	must_eq(ext4_create(dir, "gone", 4, S_IFREG | 0600, 0, &root_credentials, &inode), 0);
	for (unsigned n = 0; n < blocks; n++) {
		uint64_t size = (uint64_t)(2 * n + 1) << t.vol->block_bits;

		ext4_inode_lock_exclusive(inode);
		must_eq(ext4_reserve_holes(inode, 2 * n, 1, true, &reservation), 0);
		must_eq(ext4_insert(inode, &reservation, 0, 0, size), 0);
		ext4_reservation_free(&reservation);
		ext4_inode_unlock(inode);
	}
	must_eq(name_unlink(dir, "gone"), 0);
	return inode;
}

/*
 * A loop thread drops the last reference of an unlinked file. It deletes a small file itself; after
 * a miss at any place, and for a large file, it leaves the file to the reaper, which a worker runs.
 */
START_TEST(last_reference)
{
	static const unsigned blocks[] = { 0, 1, 4, 30 };
	struct ext4_statfs before, after;

	names_make("-b 1024", 10);
	ext4_vol_set_reaper(t.vol, reaper, NULL);
	must_eq(ext4_vol_sync(t.vol), 0);
	ext4_vol_statfs(t.vol, &before);
	for (unsigned k = 0; k < ARRAY_SIZE(blocks); k++) {
		bool by_reaper = true;

		for (unsigned n = 1; by_reaper && n < 100; n++) {
			struct ext4_inode *inode = unlinked(blocks[k]);
			uint32_t ino = ext4_inode_ino(inode);
			struct timespec nap = { .tv_nsec = 300000 };

			/* A loop thread deletes only so many files in a while. */
			nanosleep(&nap, NULL);
			must_eq(t.vol->inode.nr_orphans, 1);
			reaper_calls = 0;
			nowait_begin();
			nowait_self.fail_at = n;
			ext4_inode_put(inode);
			nowait_self.fail_at = 0;
			must(!nowait_end());
			by_reaper = reaper_calls;
			must_eq(t.vol->inode.nr_orphans, by_reaper);
			must_eq(t.vol->inode.nr_evicting, by_reaper);
			must_eq(ext4_inode_get(t.vol, ino, NULL, &inode), -ENOENT);
			ext4_vol_reap(t.vol);
			must_eq(t.vol->inode.nr_orphans, 0);
			must_eq(t.vol->inode.nr_evicting, 0);
			if (blocks[k] > 4)
				break;
		}
		must_eq(by_reaper, blocks[k] > 4);
	}
	must_eq(ext4_vol_sync(t.vol), 0);
	ext4_vol_statfs(t.vol, &after);
	must_eq(before.bfree, after.bfree);
	must_eq(before.ffree, after.ffree);
	names_done();
}
END_TEST

/* A loop thread that meets damage misses; the worker that tries again reports it, once. */
START_TEST(damage_is_a_miss)
{
	struct ext4_inode *inode;
	uint64_t blk;
	uint32_t off;
	uint8_t byte;

	names_make("-b 4096", 10);
	inode = name_lookup(dir, "f5");
	blk = ext4_itable_place(t.vol, ext4_inode_ino(inode), &off);
	ext4_inode_put(inode);
	put_names();
	testvol_close(&t);
	fake_peek(t.fake, &byte, 1, (blk << 12) + off + 50);
	byte ^= 1;
	fake_poke(t.fake, &byte, 1, (blk << 12) + off + 50);
	testvol_open(&t);
	dir = name_lookup(t.root, "dir");
	file = name_lookup(dir, "f6"); /* brings the block of the table into memory */
	must_eq(attempt(do_lookup, 0), -EAGAIN);
	must_eq(fdio_counter_read(COUNTER_ext4_corrupt), 0);
	must_eq(name_ino(dir, "f5"), -EUCLEAN);
	must(fdio_counter_read(COUNTER_ext4_corrupt) > 0);
	ext4_inode_put(file);
	ext4_inode_put(dir);
	ext4_inode_put(t.root);
	ext4_vol_abandon(t.vol);
	fake_free(t.fake);
}
END_TEST

static uint32_t bad_groups(void)
{
	uint32_t n = 0;

	for (uint32_t group = 0; group < t.vol->nr_groups; group++)
		n += t.vol->alloc.groups[group].inode_bitmap_bad;
	return n;
}

/*
 * While another thread loads the inode number that a new file is about to get, which is not in use
 * yet, a loop thread misses and does not take that for damage.
 */
START_TEST(number_is_being_looked_up)
{
	struct ext4_inode *reader;
	uint32_t ino;

	names_make("-b 4096", 10);
	must_eq(do_create(), 0);
	ino = (uint32_t)name_ino(dir, "new");
	must_eq(name_unlink(dir, "new"), 0); /* the next file gets this number again */
	reader = ext4_inode_alloc(t.vol, ino);
	must(reader);
	must_eq(ext4_inode_hash_new(reader), 0);
	reader->inode.loading = true;
	must_eq(attempt(do_create, 0), -EAGAIN);
	must_eq(bad_groups(), 0);
	ext4_inode_unhash(reader);
	ext4_inode_free(reader);
	must_eq(do_create(), 0);
	must_eq(name_ino(dir, "new"), ino);
	must_eq(do_unlink(), 0);
	names_done();
}
END_TEST

/*
 * A loop thread that finds an inode bitmap damaged misses and leaves the group in use, so that a
 * worker finds the damage again and reports it.
 */
START_TEST(damaged_inode_bitmap)
{
	struct journal_buffer *buffer;
	uint8_t byte;
	uint64_t bitmap;

	names_make("-b 4096", 10);
	bitmap = t.vol->alloc.groups[0].inode_bitmap;
	put_names();
	testvol_close(&t);
	fake_peek(t.fake, &byte, 1, (bitmap << 12) + 100);
	byte ^= 1;
	fake_poke(t.fake, &byte, 1, (bitmap << 12) + 100);
	testvol_open(&t);
	dir = name_lookup(t.root, "dir");
	warm_tables();
	must_eq(name_ino(dir, "new"), -ENOENT);
	must_eq(journal_read_block(t.vol->journal, bitmap, &buffer), 0);
	must_eq(attempt(do_create, 0), -EAGAIN);
	must_eq(bad_groups(), 0);
	must_eq(fdio_counter_read(COUNTER_ext4_corrupt), 0);
	(void)do_create(); /* fails or uses another group, by the policy for errors */
	must_eq(bad_groups(), 1);
	must(fdio_counter_read(COUNTER_ext4_corrupt) > 0);
	journal_buffer_release(buffer);
	ext4_inode_put(dir);
	ext4_inode_put(t.root);
	ext4_vol_abandon(t.vol);
	fake_free(t.fake);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ext4: without waiting");
	TCase *tc = unit_case(s, "names", 120);

	unit_loop(tc, miss_at_each_place, 0, ARRAY_SIZE(shapes),
		PROVES("NOWAIT-1 NOWAIT-2 NOWAIT-3 NOWAIT-4"));
	unit_test(tc, miss_while_growing, PROVES("NOWAIT-3"));
	unit_loop(tc, not_in_memory, 0, 2, PROVES("NOWAIT-1"));
	unit_test(tc, locks_taken, PROVES("NOWAIT-1"));
	unit_test(tc, full_transaction, PROVES("NOWAIT-1"));
	unit_test(tc, last_reference);
	unit_test(tc, damage_is_a_miss);
	unit_test(tc, number_is_being_looked_up);
	unit_test(tc, damaged_inode_bitmap);
	return s;
}
