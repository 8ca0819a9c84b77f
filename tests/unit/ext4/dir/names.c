/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Operations on names, one by one, on volumes with the real journal: create, link, unlink, mkdir,
 * rmdir, rename and lookup. Proves their results and errors, link counts, times and inherited
 * flags; that a lookup on a loop thread neither reads nor waits; that threads in nested directories
 * do not deadlock; and what becomes of files that are unlinked while they are open.
 * names_model.c does the same at random and in bulk. At the end of each test, e2fsck must find
 * nothing wrong (testvol_done).
 */
#include "base/counters.h"
#include "base/nowait.h"
#include "kit/names.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SMALL (16u << 20)

START_TEST(files_and_directories)
{
	struct testvol volume = { 0 };
	struct ext4_inode *dir;
	char longname[300];

	testvol_make(&volume, SMALL, "-b 1024");
	memset(longname, 'n', sizeof longname);
	must_eq(name_create(volume.root, "f", S_IFREG | 0644), 0);
	must_eq(name_create(volume.root, "f", S_IFREG | 0644), -EEXIST);
	must_eq(name_create(volume.root, ".", S_IFREG | 0644), -EEXIST);
	must_eq(name_create(volume.root, "d", S_IFDIR | 0755), 0);
	must_eq(link_count(volume.root), 4); /* lost+found too */
	must_eq(name_unlink(volume.root, "d"), -EISDIR);
	must_eq(name_rmdir(volume.root, "f"), -ENOTDIR);
	must_eq(name_ino(volume.root, "g"), -ENOENT);
	longname[255] = 0;
	must_eq(name_create(volume.root, longname, S_IFREG | 0644), 0);
	must(name_ino(volume.root, longname) > 0);
	longname[255] = 'n';
	longname[256] = 0;
	must_eq(name_create(volume.root, longname, S_IFREG | 0644), -ENAMETOOLONG);
	dir = name_lookup(volume.root, "d");
	must_eq(link_count(dir), 2);
	must_eq(name_create(dir, "x", S_IFREG | 0600), 0);
	must_eq(name_rmdir(volume.root, "d"), -ENOTEMPTY);
	must_eq(name_unlink(dir, "x"), 0);
	must_eq(name_rmdir(volume.root, "d"), 0);
	must_eq(link_count(volume.root), 3);
	must_eq(name_create(dir, "y", S_IFREG | 0600), -ENOENT);
	must_eq(name_ino(dir, "y"), -ENOENT);
	ext4_inode_put(dir);
	must_eq(name_unlink(volume.root, "f"), 0);
	must_eq(name_unlink(volume.root, "f"), -ENOENT);
	dir = name_lookup(volume.root, "lost+found");
	must_eq(name_ino(dir, "."), ext4_inode_ino(dir));
	must_eq(name_ino(dir, ".."), EXT4_ROOT_INO);
	must_eq(name_ino(volume.root, ".."), EXT4_ROOT_INO);
	ext4_inode_put(dir);
	testvol_done(&volume);
}
END_TEST

/*
 * Names of few and of 255 bytes are mixed at random: when a block of the directory is split, the
 * half that gets the new name has room for it, however long and short names lie in it.
 */
START_TEST(names_of_all_lengths)
{
	struct testvol volume = { 0 };
	struct ext4_inode *file;
	char dir[16], name[300];

	testvol_make(&volume, SMALL, "-b 1024");
	must_eq(name_create(volume.root, "f", S_IFREG | 0644), 0);
	file = name_lookup(volume.root, "f");
	for (uint64_t turn = 0; turn < 10; turn++) {
		uint64_t rnd = turn + 1;
		struct ext4_inode *d;

		snprintf(dir, sizeof dir, "d%u", (unsigned)turn);
		must_eq(name_create(volume.root, dir, S_IFDIR | 0755), 0);
		d = name_lookup(volume.root, dir);
		for (unsigned k = 0; k < 600; k++) {
			unsigned len = (unsigned)snprintf(name, sizeof name, "%x", k);

			if (next_random(&rnd) % (2 + turn) == 0) {
				memset(name + len, 'x', 255 - len);
				name[255] = 0;
			}
			must_eq(name_link(d, name, file), 0);
		}
		ext4_inode_put(d);
	}
	ext4_inode_put(file);
	testvol_done(&volume);
}
END_TEST

/* name_ino without waiting: -EAGAIN, and a miss is noted, when that would have to read or wait. */
static int lookup_nowait(struct ext4_inode *dir, const char *name)
{
	int err;

	nowait_begin();
	err = name_ino(dir, name);
	must_eq(nowait_end(), err == -EAGAIN);
	return err;
}

static void *lookup_while_locked(void *dir)
{
	must_eq(lookup_nowait(dir, "f"), -EAGAIN);
	return NULL;
}

/* A lookup on a loop thread never reads the device and never waits for a lock. */
START_TEST(lookup_in_memory)
{
	struct testvol volume = { 0 };
	struct ext4_inode *file;
	pthread_t other;
	uint64_t reads;

	testvol_make(&volume, SMALL, "-b 1024");
	must_eq(name_create(volume.root, "f", S_IFREG | 0644), 0);
	testvol_close(&volume);
	testvol_open(&volume);
	reads = fdio_counter_read(COUNTER_journal_cache_miss);
	must_eq(lookup_nowait(volume.root, "f"), -EAGAIN);
	must_eq(lookup_nowait(volume.root, "g"), -EAGAIN);
	must_eq(fdio_counter_read(COUNTER_journal_cache_miss), reads);
	file = name_lookup(volume.root, "f");
	must_eq(lookup_nowait(volume.root, "f"), ext4_inode_ino(file));
	must_eq(lookup_nowait(volume.root, "g"), -ENOENT);
	must_eq(lookup_nowait(volume.root, "."), EXT4_ROOT_INO);
	must_eq(lookup_nowait(volume.root, ".."), EXT4_ROOT_INO);
	ext4_inode_lock_exclusive(volume.root);
	must_eq(pthread_create(&other, NULL, lookup_while_locked, volume.root), 0);
	pthread_join(other, NULL);
	ext4_inode_unlock(volume.root);
	ext4_inode_put(file);
	must_eq(name_unlink(volume.root, "f"), 0);
	must_eq(lookup_nowait(volume.root, "f"), -ENOENT);
	testvol_done(&volume);
}
END_TEST

START_TEST(special_files)
{
	struct testvol volume = { 0 };
	struct ext4_inode *inode;
	struct ext4_attr attr;

	testvol_make(&volume, SMALL, "-b 4096");
	must_eq(ext4_create(volume.root, "null", 4, S_IFCHR | 0666, 0x103, &root_credentials,
			    &inode),
		0);
	ext4_getattr(inode, &attr);
	must_eq(attr.rdev, 0x103);
	must_eq(attr.mode, S_IFCHR | 0644);
	ext4_inode_put(inode);
	must_eq(name_create(volume.root, "fifo", S_IFIFO | 0600), 0);
	must_eq(name_create(volume.root, "sock", S_IFSOCK | 0600), 0);
	testvol_done(&volume);
}
END_TEST

START_TEST(symbolic_links)
{
	static const unsigned lens[] = { 1, 59, 60, 61, 1000, 1023 };
	static char target[1100], buf[4097];
	char name[16];
	struct ext4_inode *inode;
	unsigned len;
	struct testvol volume = { 0 };

	testvol_make(&volume, SMALL, "-b 1024");
	memset(target, 't', sizeof target);
	for (unsigned n = 0; n < ARRAY_SIZE(lens); n++) {
		snprintf(name, sizeof name, "l%u", n);
		must_eq(ext4_symlink(volume.root, name, (unsigned)strlen(name), target, lens[n],
				     &root_credentials, &inode),
			0);
		must_eq(ext4_readlink(inode, buf, sizeof buf, &len), 0);
		must_eq(len, lens[n]);
		must(memcmp(buf, target, len) == 0 && buf[len] == 0);
		ext4_inode_put(inode);
	}
	must_eq(ext4_symlink(volume.root, "no", 2, target, 1024, &root_credentials, &inode),
		-ENAMETOOLONG);
	testvol_check(&volume);
	testvol_open(&volume);
	inode = name_lookup(volume.root, "l4");
	must_eq(ext4_readlink(inode, buf, sizeof buf, &len), 0);
	must_eq(len, 1000);
	ext4_inode_put(inode);
	for (unsigned n = 0; n < ARRAY_SIZE(lens); n++) {
		snprintf(name, sizeof name, "l%u", n);
		must_eq(name_unlink(volume.root, name), 0);
	}
	testvol_done(&volume);
}
END_TEST

START_TEST(hard_links)
{
	struct ext4_inode *inode, *dir;
	struct testvol volume = { 0 };

	testvol_make(&volume, SMALL, "-b 1024");
	must_eq(name_create(volume.root, "a", S_IFREG | 0644), 0);
	must_eq(name_create(volume.root, "d", S_IFDIR | 0755), 0);
	inode = name_lookup(volume.root, "a");
	dir = name_lookup(volume.root, "d");
	must_eq(name_link(dir, "b", inode), 0);
	must_eq(name_link(dir, "b", inode), -EEXIST);
	must_eq(name_link(volume.root, "c", dir), -EPERM);
	must_eq(link_count(inode), 2);
	must_eq(name_unlink(volume.root, "a"), 0);
	must_eq(link_count(inode), 1);
	must_eq(name_ino(dir, "b"), ext4_inode_ino(inode));
	must_eq(name_unlink(dir, "b"), 0);
	must_eq(name_link(dir, "b", inode), -EPERM); /* no names left: it cannot get a new one */
	ext4_inode_put(inode);
	must_eq(ext4_tmpfile(dir, S_IFREG | 0600, &root_credentials, &inode), 0);
	must_eq(link_count(inode), 0);
	must_eq(name_link(dir, "tmp", inode), 0);
	must_eq(link_count(inode), 1);
	ext4_inode_put(inode);
	must_eq(ext4_tmpfile(dir, S_IFREG | 0600, &root_credentials, &inode), 0);
	ext4_inode_put(inode);
	ext4_inode_put(dir);
	testvol_done(&volume);
}
END_TEST

/* A file with as many links as ext4 allows, and an immutable one, cannot be linked. */
START_TEST(too_many_links)
{
	struct ext4_attr attr;
	struct ext4_inode *inode;
	struct testvol volume = { 0 };
	uint16_t was;

	testvol_make(&volume, SMALL, "-b 1024");
	must_eq(name_create(volume.root, "a", S_IFREG | 0644), 0);
	inode = name_lookup(volume.root, "a");
	was = inode->raw->i_links_count;
	inode->raw->i_links_count = 65000;
	must_eq(name_link(volume.root, "b", inode), -EMLINK);
	inode->raw->i_links_count = was;
	ext4_getattr(inode, &attr);
	attr.flags |= EXT2_IMMUTABLE_FL;
	must_eq(ext4_setattr(inode, EXT4_SET_FLAGS, &attr), 0);
	must_eq(name_link(volume.root, "b", inode), -EPERM);
	must_eq(name_unlink(volume.root, "a"), -EPERM);
	must_eq(name_rename(volume.root, "a", volume.root, "b", 0), -EPERM);
	ext4_inode_put(inode);
	testvol_done(&volume);
}
END_TEST

START_TEST(rename_within)
{
	struct testvol volume = { 0 };
	int a, b;

	testvol_make(&volume, SMALL, "-b 1024");
	must_eq(name_create(volume.root, "a", S_IFREG | 0644), 0);
	must_eq(name_create(volume.root, "b", S_IFREG | 0644), 0);
	a = name_ino(volume.root, "a");
	b = name_ino(volume.root, "b");
	must_eq(name_rename(volume.root, "a", volume.root, "b", RENAME_NOREPLACE), -EEXIST);
	must_eq(name_rename(volume.root, "a", volume.root, "b", RENAME_EXCHANGE), 0);
	must_eq(name_ino(volume.root, "a"), b);
	must_eq(name_ino(volume.root, "b"), a);
	must_eq(name_rename(volume.root, "a", volume.root, "b", 0), 0);
	must_eq(name_ino(volume.root, "a"), -ENOENT);
	must_eq(name_ino(volume.root, "b"), b);
	must_eq(name_rename(volume.root, "b", volume.root, "c", RENAME_WHITEOUT), 0);
	must_eq(name_ino(volume.root, "c"), b);
	must(name_ino(volume.root, "b") > 0);
	must_eq(name_rename(volume.root, "none", volume.root, "c", 0), -ENOENT);
	must_eq(name_rename(volume.root, "c", volume.root, "none", RENAME_EXCHANGE), -ENOENT);
	must_eq(name_rename(volume.root, "c", volume.root, "b", RENAME_EXCHANGE | RENAME_NOREPLACE),
		-EINVAL);
	must_eq(name_rename(volume.root, "c", volume.root, "..", 0), -EBUSY);
	must_eq(name_rename(volume.root, "c", volume.root, "c", 0), 0);
	testvol_done(&volume);
}
END_TEST

START_TEST(rename_directories)
{
	struct ext4_inode *a, *b, *c;
	struct testvol volume = { 0 };

	testvol_make(&volume, SMALL, "-b 1024");
	must_eq(name_create(volume.root, "a", S_IFDIR | 0755), 0);
	must_eq(name_create(volume.root, "z", S_IFDIR | 0755), 0);
	a = name_lookup(volume.root, "a");
	must_eq(name_create(a, "b", S_IFDIR | 0755), 0);
	b = name_lookup(a, "b");
	must_eq(name_create(b, "c", S_IFDIR | 0755), 0);
	c = name_lookup(b, "c");
	must_eq(name_rename(volume.root, "a", c, "x", 0), -EINVAL);
	must_eq(name_rename(volume.root, "a", a, "x", 0), -EINVAL);
	must_eq(name_rename(b, "c", volume.root, "a", 0), -ENOTEMPTY);
	must_eq(name_rename(b, "c", volume.root, "a", RENAME_EXCHANGE), -EINVAL);
	must_eq(link_count(a), 3);
	must_eq(name_rename(volume.root, "z", a, "b", 0), -ENOTEMPTY); /* b still holds c */
	must_eq(name_rename(b, "c", volume.root, "z", 0), 0);
	must_eq(link_count(b), 2);
	must_eq(link_count(volume.root), 5);
	must_eq(name_ino(c, ".."), EXT4_ROOT_INO);
	must_eq(name_create(a, "file", S_IFREG | 0644), 0);
	must_eq(name_rename(a, "file", volume.root, "z", 0), -EISDIR);
	must_eq(name_rename(volume.root, "z", a, "file", 0), -ENOTDIR);
	must_eq(name_rename(volume.root, "z", a, "file", RENAME_EXCHANGE), 0);
	must_eq(name_ino(c, ".."), ext4_inode_ino(a));
	must_eq(link_count(a), 4);
	must_eq(link_count(volume.root), 4);
	ext4_inode_put(a);
	ext4_inode_put(b);
	ext4_inode_put(c);
	testvol_done(&volume);
}
END_TEST

/*
 * A directory with more subdirectories than a link count can hold has the count 1, and keeps it
 * when they become fewer.
 */
START_TEST(many_subdirectories)
{
	struct ext4_inode *dir;
	struct testvol volume = { 0 };
	char name[16];

	testvol_make(&volume, 4 * SMALL, "-b 1024 -N 4096");
	must_eq(name_create(volume.root, "d", S_IFDIR | 0755), 0);
	dir = name_lookup(volume.root, "d");
	for (unsigned n = 0; n < 200; n++) {
		snprintf(name, sizeof name, "sub%u", n);
		must_eq(name_create(dir, name, S_IFDIR | 0755), 0);
	}
	must_eq(link_count(dir), 202);
	must(ext4_inode_flags(dir) & EXT2_INDEX_FL);
	dir->raw->i_links_count = 65000; /* as if there were so many */
	must_eq(name_create(dir, "one", S_IFDIR | 0755), 0);
	must_eq(link_count(dir), 1);
	must_eq(name_create(dir, "two", S_IFDIR | 0755), 0);
	must_eq(name_rmdir(dir, "one"), 0);
	must_eq(link_count(dir), 1);
	must_eq(name_rmdir(volume.root, "d"), -ENOTEMPTY);
	must_eq(name_rmdir(dir, "two"), 0);
	for (unsigned n = 0; n < 200; n++) {
		snprintf(name, sizeof name, "sub%u", n);
		must_eq(name_rmdir(dir, name), 0);
	}
	must_eq(name_rmdir(volume.root, "d"), 0);
	ext4_inode_put(dir);
	testvol_done(&volume);
}
END_TEST

/*
 * Two directories that change places change no link count, so the exchange works even where a
 * count is already the largest.
 */
START_TEST(exchange_when_full)
{
	struct ext4_inode *a, *b;
	struct testvol volume = { 0 };

	testvol_make(&volume, SMALL, "-b 1024 -O ^dir_index");
	must_eq(name_create(volume.root, "a", S_IFDIR | 0755), 0);
	must_eq(name_create(volume.root, "b", S_IFDIR | 0755), 0);
	a = name_lookup(volume.root, "a");
	b = name_lookup(volume.root, "b");
	must_eq(name_create(a, "x", S_IFDIR | 0755), 0);
	must_eq(name_create(b, "y", S_IFDIR | 0755), 0);
	b->raw->i_links_count = 65000; /* as if there were so many */
	must_eq(name_rename(a, "x", b, "y", RENAME_EXCHANGE), 0);
	must_eq(link_count(b), 65000);
	must_eq(link_count(a), 3);
	must_eq(name_rename(b, "y", a, "x", RENAME_EXCHANGE), 0);
	must_eq(link_count(b), 65000);
	must_eq(link_count(a), 3);
	b->raw->i_links_count = 3;
	must_eq(name_rename(b, "y", b, "z", 0), 0);
	ext4_inode_put(a);
	ext4_inode_put(b);
	testvol_done(&volume);
}
END_TEST

/*
 * Deleting a large directory revokes each of its blocks: with a small log that takes more than one
 * transaction.
 */
START_TEST(large_directory_small_log)
{
	struct testvol volume = { 0 };
	struct ext4_inode *dir, *file;
	char name[256];

	testvol_make(&volume, 24u << 20, "-b 1024 -J size=1 -O ^dir_index");
	must_eq(name_create(volume.root, "f", S_IFREG | 0644), 0);
	must_eq(name_create(volume.root, "d", S_IFDIR | 0755), 0);
	file = name_lookup(volume.root, "f");
	dir = name_lookup(volume.root, "d");
	for (unsigned n = 0; n < 3 * 5000; n++) { /* three to a block */
		snprintf(name, sizeof name, "%0255u", n);
		must_eq(name_link(dir, name, file), 0);
	}
	must(ext4_inode_size(dir) >= 5000 * 1024);
	for (unsigned n = 0; n < 3 * 5000; n++) {
		snprintf(name, sizeof name, "%0255u", n);
		must_eq(name_unlink(dir, name), 0);
	}
	must_eq(name_rmdir(volume.root, "d"), 0);
	ext4_inode_put(dir);
	ext4_inode_put(file);
	must_eq(volume.vol->inode.nr_orphans, 0);
	testvol_done(&volume);
}
END_TEST

/* ---- several threads ---- */
struct racer { pthread_t thread; struct ext4_inode *dir[4]; uint64_t rnd; };

static bool ignore_entry(void *arg, const struct ext4_dirent *entry)
{
	(void)arg;
	return entry->ino != 0;
}

static void *race(void *arg)
{
	struct racer *racer = arg;
	uint64_t *rnd = &racer->rnd;
	char a[16], b[16];

	for (unsigned k = 0; k < 1500; k++) {
		struct ext4_inode *dir = racer->dir[next_random(rnd) % 4],
				  *dir2 = racer->dir[next_random(rnd) % 4];

		snprintf(a, sizeof a, "n%u", next_random(rnd) % 40);
		snprintf(b, sizeof b, "n%u", next_random(rnd) % 40);
		switch (next_random(rnd) % 8) {
		case 0: case 1: name_create(dir, a, S_IFREG | 0644); break;
		case 2: name_create(dir, a, S_IFDIR | 0755); break;
		case 3: name_unlink(dir, a); break;
		case 4: name_rmdir(dir, a); break;
		case 5:
			name_rename(dir, a, dir2, b, next_random(rnd) % 3 ? 0 : RENAME_EXCHANGE);
			break;
		case 6: nowait_ignore(ext4_readdir(dir, 0, ignore_entry, NULL)); break;
		case 7: name_ino(dir, a); break;
		}
	}
	return NULL;
}

/*
 * Four threads work at random in four directories, one below another, which also change places:
 * no deadlock, and a sound file system in the end.
 */
START_TEST(threads)
{
	struct racer racers[4];
	struct ext4_inode **dirs = racers[0].dir;
	struct testvol volume = { 0 };

	testvol_make(&volume, 2 * SMALL, "-b 1024 -N 8192");
	memset(racers, 0, sizeof racers);
	dirs[0] = volume.root;
	for (unsigned d = 1; d < 4; d++) {
		char name[8];

		snprintf(name, sizeof name, "n%u", d);
		must_eq(name_create(dirs[d - 1], name, S_IFDIR | 0755), 0);
		dirs[d] = name_lookup(dirs[d - 1], name);
	}
	for (unsigned n = 1; n < 4; n++)
		memcpy(racers[n].dir, dirs, sizeof racers[n].dir);
	for (unsigned n = 0; n < 4; n++) {
		racers[n].rnd = n + 1;
		must_eq(pthread_create(&racers[n].thread, NULL, race, &racers[n]), 0);
	}
	for (unsigned n = 0; n < 4; n++)
		pthread_join(racers[n].thread, NULL);
	for (unsigned d = 1; d < 4; d++)
		ext4_inode_put(dirs[d]);
	testvol_done(&volume);
}
END_TEST

/*
 * If the power goes while an unlinked file is still open, the file must be on the orphan list, so
 * that the next mount deletes it; e2fsck says so.
 */
START_TEST(unlinked_while_open)
{
	struct testvol volume = { 0 };
	struct ext4_inode *inode;

	testvol_make(&volume, SMALL, "-b 1024 -N 128");
	must_eq(name_create(volume.root, "f", S_IFREG | 0600), 0);
	inode = name_lookup(volume.root, "f");
	must_eq(name_unlink(volume.root, "f"), 0);
	must_eq(ext4_vol_sync(volume.vol), 0);
	must_eq(fake_e2fsck_replay(volume.fake), 0);
	ext4_inode_put(inode);
	testvol_done(&volume);
}
END_TEST

/*
 * A hook that raises SIGTERM at the first write of the superblock. The replay of the journal ends
 * on that signal as well; the first write of the superblock comes behind the replay.
 */
static void end_after_replay(void *arg, enum fake_kind kind, uint64_t off, uint64_t len,
			     unsigned flags, bool after)
{
	(void)arg, (void)len, (void)flags;
	if (kind == FAKE_WRITE && off <= 1024 && after)
		raise(SIGTERM);
}

/*
 * A mount that gets SIGTERM while it deletes the orphans of a crash ends with EINTR; the next
 * mount deletes the rest.
 */
START_TEST(signal_while_deleting_orphans)
{
	struct ext4_options options = { .acl = true, .cache_bytes = 64 << 20 };
	struct testvol volume = { 0 }, crashed = { 0 };
	struct ext4_inode *inode[3];
	const char *why;
	char name[] = "f0", err[256];
	sigset_t term;

	testvol_make(&volume, SMALL, "-b 1024 -N 128");
	for (unsigned k = 0; k < ARRAY_SIZE(inode); k++) {
		name[1] = (char)('0' + k);
		must_eq(name_create(volume.root, name, S_IFREG | 0600), 0);
		inode[k] = name_lookup(volume.root, name);
		must_eq(name_unlink(volume.root, name), 0);
	}
	must_eq(ext4_vol_sync(volume.vol), 0);
	crashed.fake = fake_clone(volume.fake);
	for (unsigned k = 0; k < ARRAY_SIZE(inode); k++)
		ext4_inode_put(inode[k]);
	testvol_done(&volume);

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	must_eq(pthread_sigmask(SIG_BLOCK, &term, NULL), 0);
	fake_set_hook(crashed.fake, end_after_replay, NULL);
	must_eq(ext4_vol_open(fake_dev(crashed.fake), &options, &crashed.vol, &why,
			      FDIO_REASON(err)),
		-EINTR);
	fake_set_hook(crashed.fake, NULL, NULL);
	must_eq(sigwaitinfo(&term, NULL), SIGTERM);
	testvol_open(&crashed);
	must_eq(crashed.vol->inode.nr_orphans, 0);
	testvol_done(&crashed);
}
END_TEST

/* fsync (or fdatasync) of the file would have a transaction to wait for. */
static bool sync_must_wait(struct testvol *volume, const char *name, bool datasync)
{
	struct ext4_inode *inode = name_lookup(volume->root, name);
	journal_tid tid;
	bool waits = ext4_sync_tid_noted(inode, datasync, &tid) &&
		     !journal_tid_durable(volume->vol->journal, tid);

	ext4_inode_put(inode);
	return waits;
}

/*
 * A changed file whose inode has left the cache since, as when the kernel drops its caches, still
 * waits for the right transaction when it is synced.
 */
START_TEST(synced_after_leaving_memory)
{
	struct ext4_attr attr = { .mode = 0600 };
	struct testvol volume = { 0 };
	struct ext4_inode *inode;
	uint32_t ino;

	testvol_make(&volume, SMALL, "-b 4096");
	must_eq(name_create(volume.root, "old", S_IFREG | 0644), 0);
	must_eq(ext4_vol_sync(volume.vol), 0);
	volume.vol->inode.lru_max = 0;
	must_eq(name_create(volume.root, "f", S_IFREG | 0644), 0);
	ino = (uint32_t)name_ino(volume.root, "f");
	must(!ext4_inode_get_cached(volume.vol, ino));
	must(sync_must_wait(&volume, "f", false));
	must(sync_must_wait(&volume, "f", true));
	must_eq(ext4_vol_sync(volume.vol), 0);
	must(!sync_must_wait(&volume, "f", false));
	must(!sync_must_wait(&volume, "old", true));
	inode = name_lookup(volume.root, "f");
	must_eq(ext4_setattr(inode, EXT4_SET_MODE, &attr), 0);
	ext4_inode_put(inode);
	must(!ext4_inode_get_cached(volume.vol, ino));
	must(sync_must_wait(&volume, "f", false));
	testvol_done(&volume);
}
END_TEST

static bool same(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* All times of the new inode, and the times that its making set in the directory, are equal. */
static void check_times_of_new(struct testvol *volume, struct ext4_inode *inode)
{
	struct ext4_attr attr, dir;

	ext4_getattr(inode, &attr);
	ext4_getattr(volume->root, &dir);
	must(attr.btime.tv_sec > 0);
	must(same(attr.btime, attr.atime) && same(attr.btime, attr.mtime) &&
	     same(attr.btime, attr.ctime) && same(attr.btime, dir.mtime));
	must(same(dir.mtime, dir.ctime));
	ext4_inode_put(inode);
}

START_TEST(times_of_new_files)
{
	struct testvol volume = { 0 };
	char target[100];
	struct ext4_inode *inode;
	struct ext4_attr attr;

	testvol_make(&volume, SMALL, "-b 1024 -I 256");
	memset(target, 't', sizeof target);
	must_eq(name_create(volume.root, "f", S_IFREG | 0644), 0);
	check_times_of_new(&volume, name_lookup(volume.root, "f"));
	must_eq(name_create(volume.root, "d", S_IFDIR | 0755), 0);
	check_times_of_new(&volume, name_lookup(volume.root, "d"));
	must_eq(name_create(volume.root, "p", S_IFIFO | 0755), 0);
	check_times_of_new(&volume, name_lookup(volume.root, "p"));
	must_eq(ext4_symlink(volume.root, "l", 1, target, sizeof target, &root_credentials, &inode),
		0);
	check_times_of_new(&volume, inode);
	must_eq(name_rename(volume.root, "f", volume.root, "g", RENAME_WHITEOUT), 0);
	check_times_of_new(&volume, name_lookup(volume.root, "f"));
	must_eq(ext4_tmpfile(volume.root, S_IFREG | 0600, &root_credentials, &inode), 0);
	ext4_getattr(inode, &attr);
	must(same(attr.btime, attr.atime) && same(attr.btime, attr.mtime) &&
	     same(attr.btime, attr.ctime));
	ext4_inode_put(inode);
	testvol_done(&volume);
}
END_TEST

/*
 * A file that got or lost a name has a newer ctime than before, equal to the times of the
 * directory.
 */
static void check_ctime(struct testvol *volume, struct ext4_inode *inode, struct timespec *before)
{
	struct ext4_attr attr, dir;

	ext4_getattr(inode, &attr);
	ext4_getattr(volume->root, &dir);
	must(same(attr.ctime, dir.mtime) && same(attr.ctime, dir.ctime) &&
	     !same(attr.ctime, *before));
	*before = attr.ctime;
}

START_TEST(times_of_removed_names)
{
	struct testvol volume = { 0 };
	struct ext4_inode *file, *dir;
	struct timespec last = { 0 }, made = { 0 };
	struct ext4_attr attr;

	testvol_make(&volume, SMALL, "-b 1024 -I 256");
	must_eq(name_create(volume.root, "f", S_IFREG | 0644), 0);
	must_eq(name_create(volume.root, "over", S_IFREG | 0644), 0);
	must_eq(name_create(volume.root, "d", S_IFDIR | 0755), 0);
	file = name_lookup(volume.root, "f");
	dir = name_lookup(volume.root, "d");
	must_eq(name_link(volume.root, "f2", file), 0);
	check_ctime(&volume, file, &last);
	must_eq(name_link(volume.root, "f3", file), 0);
	check_ctime(&volume, file, &last);
	ext4_getattr(file, &attr);
	made = attr.mtime;
	must_eq(name_unlink(volume.root, "f2"), 0);
	check_ctime(&volume, file, &last);
	must_eq(name_rename(volume.root, "over", volume.root, "f3", 0), 0);
	check_ctime(&volume, file, &last);
	must_eq(name_rename(volume.root, "f", volume.root, "g", 0), 0);
	check_ctime(&volume, file, &last);
	must_eq(name_unlink(volume.root, "g"), 0);
	check_ctime(&volume, file, &last);
	ext4_getattr(file, &attr);
	must(same(attr.mtime, made));
	must_eq(name_rmdir(volume.root, "d"), 0);
	check_ctime(&volume, dir, &last);
	ext4_inode_put(file);
	ext4_inode_put(dir);
	testvol_done(&volume);
}
END_TEST

/* A new inode inherits flags of its directory, by the rules of the kernel for its file type. */
START_TEST(inherited_flags)
{
	const uint32_t all = EXT2_NODUMP_FL | EXT2_NOATIME_FL | EXT2_SYNC_FL | EXT2_DIRSYNC_FL |
			     EXT2_COMPR_FL | EXT4_PROJINHERIT_FL | 0x02000000 /* DAX */,
		       dir_only = EXT2_DIRSYNC_FL | EXT4_PROJINHERIT_FL;
	struct ext4_attr attr = { .flags = all | EXT2_TOPDIR_FL };
	struct testvol volume = { 0 };
	struct ext4_inode *dir, *inode;

	testvol_make(&volume, SMALL, "-b 1024");
	must_eq(name_create(volume.root, "d", S_IFDIR | 0755), 0);
	dir = name_lookup(volume.root, "d");
	attr.flags |= ext4_inode_flags(dir);
	must_eq(ext4_setattr(dir, EXT4_SET_FLAGS, &attr), 0);
	must_eq(name_create(dir, "d", S_IFDIR | 0755), 0);
	must_eq(name_create(dir, "f", S_IFREG | 0644), 0);
	must_eq(name_create(dir, "p", S_IFIFO | 0644), 0);
	inode = name_lookup(dir, "d");
	must_eq(ext4_inode_flags(inode) & (all | EXT2_TOPDIR_FL), all);
	ext4_inode_put(inode);
	inode = name_lookup(dir, "f");
	must_eq(ext4_inode_flags(inode) & (all | EXT2_TOPDIR_FL), all & ~dir_only);
	ext4_inode_put(inode);
	inode = name_lookup(dir, "p");
	must_eq(ext4_inode_flags(inode), EXT2_NODUMP_FL | EXT2_NOATIME_FL);
	ext4_inode_put(inode);
	ext4_inode_put(dir);
	testvol_done(&volume);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ext4: names");
	TCase *tc = unit_case(s, "names", 60);

	unit_test(tc, files_and_directories);
	unit_test(tc, names_of_all_lengths);
	unit_test(tc, lookup_in_memory);
	unit_test(tc, special_files);
	unit_test(tc, symbolic_links);
	unit_test(tc, hard_links);
	unit_test(tc, too_many_links);
	unit_test(tc, rename_within);
	unit_test(tc, rename_directories);
	unit_test(tc, many_subdirectories);
	unit_test(tc, exchange_when_full);
	unit_test(tc, large_directory_small_log);
	unit_test(tc, threads);
	unit_test(tc, unlinked_while_open);
	unit_test(tc, signal_while_deleting_orphans);
	unit_test(tc, synced_after_leaving_memory);
	unit_test(tc, times_of_new_files);
	unit_test(tc, times_of_removed_names);
	unit_test(tc, inherited_flags);
	return s;
}
