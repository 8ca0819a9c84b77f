/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operations on names, one by one: results, link counts, what e2fsck thinks of it. */
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
	struct testvol t = { 0 };
	struct x4_inode *d;
	char longname[300];

	testvol_make(&t, SMALL, "-b 1024");
	memset(longname, 'n', sizeof longname);
	must_eq(n_create(t.root, "f", S_IFREG | 0644), 0);
	must_eq(n_create(t.root, "f", S_IFREG | 0644), -EEXIST);
	must_eq(n_create(t.root, ".", S_IFREG | 0644), -EEXIST);
	must_eq(n_create(t.root, "d", S_IFDIR | 0755), 0);
	must_eq(n_nlink(t.root), 4); /* lost+found too */
	must_eq(n_unlink(t.root, "d"), -EISDIR);
	must_eq(n_rmdir(t.root, "f"), -ENOTDIR);
	must_eq(n_ino(t.root, "g"), -ENOENT);
	longname[255] = 0;
	must_eq(n_create(t.root, longname, S_IFREG | 0644), 0);
	must(n_ino(t.root, longname) > 0);
	longname[255] = 'n';
	longname[256] = 0;
	must_eq(n_create(t.root, longname, S_IFREG | 0644), -ENAMETOOLONG);
	d = n_get(t.root, "d");
	must_eq(n_nlink(d), 2);
	must_eq(n_create(d, "x", S_IFREG | 0600), 0);
	must_eq(n_rmdir(t.root, "d"), -ENOTEMPTY);
	must_eq(n_unlink(d, "x"), 0);
	must_eq(n_rmdir(t.root, "d"), 0);
	must_eq(n_nlink(t.root), 3);
	must_eq(n_create(d, "y", S_IFREG | 0600), -ENOENT);
	must_eq(n_ino(d, "y"), -ENOENT);
	x4_iput(d);
	must_eq(n_unlink(t.root, "f"), 0);
	must_eq(n_unlink(t.root, "f"), -ENOENT);
	d = n_get(t.root, "lost+found");
	must_eq(n_ino(d, "."), x4_inode_ino(d));
	must_eq(n_ino(d, ".."), X4_ROOT_INO);
	must_eq(n_ino(t.root, ".."), X4_ROOT_INO);
	x4_iput(d);
	testvol_done(&t);
}
END_TEST

/* However short and long ones lie in a block that is split: there is room for the new one afterwards. */
START_TEST(names_of_all_lengths)
{
	struct testvol t = { 0 };
	struct x4_inode *f;
	char dir[16], name[300];

	testvol_make(&t, SMALL, "-b 1024");
	must_eq(n_create(t.root, "f", S_IFREG | 0644), 0);
	f = n_get(t.root, "f");
	for (uint64_t turn = 0; turn < 10; turn++) {
		uint64_t rnd = turn + 1;
		struct x4_inode *d;

		snprintf(dir, sizeof dir, "d%u", (unsigned)turn);
		must_eq(n_create(t.root, dir, S_IFDIR | 0755), 0);
		d = n_get(t.root, dir);
		for (unsigned k = 0; k < 600; k++) {
			unsigned len = (unsigned)snprintf(name, sizeof name, "%x", k);

			if (n_rand(&rnd) % (2 + turn) == 0) {
				memset(name + len, 'x', 255 - len);
				name[255] = 0;
			}
			must_eq(n_link(d, name, f), 0);
		}
		x4_iput(d);
	}
	x4_iput(f);
	testvol_done(&t);
}
END_TEST

static int cached(struct x4_inode *dir, const char *name)
{
	int r;

	nowait_begin();
	r = n_ino(dir, name);
	must_eq(nowait_end(), r == -EAGAIN);
	return r;
}

static void *cached_while_locked(void *dir)
{
	must_eq(cached(dir, "f"), -EAGAIN);
	return NULL;
}

/* What a loop thread may ask: it never reads the device and never waits. */
START_TEST(lookup_in_memory)
{
	struct testvol t = { 0 };
	struct x4_inode *f;
	pthread_t other;
	uint64_t reads;

	testvol_make(&t, SMALL, "-b 1024");
	must_eq(n_create(t.root, "f", S_IFREG | 0644), 0);
	testvol_close(&t);
	testvol_open(&t);
	reads = fdio_counter_read(CTR_jnl_cache_miss);
	must_eq(cached(t.root, "f"), -EAGAIN);
	must_eq(cached(t.root, "g"), -EAGAIN);
	must_eq(fdio_counter_read(CTR_jnl_cache_miss), reads);
	f = n_get(t.root, "f");
	must_eq(cached(t.root, "f"), x4_inode_ino(f));
	must_eq(cached(t.root, "g"), -ENOENT);
	must_eq(cached(t.root, "."), X4_ROOT_INO);
	must_eq(cached(t.root, ".."), X4_ROOT_INO);
	x4_inode_lock_excl(t.root);
	must_eq(pthread_create(&other, NULL, cached_while_locked, t.root), 0);
	pthread_join(other, NULL);
	x4_inode_unlock(t.root);
	x4_iput(f);
	must_eq(n_unlink(t.root, "f"), 0);
	must_eq(cached(t.root, "f"), -ENOENT);
	testvol_done(&t);
}
END_TEST

START_TEST(special_files)
{
	struct testvol t = { 0 };
	struct x4_inode *i;
	struct x4_attr a;

	testvol_make(&t, SMALL, "-b 4096");
	must_eq(x4_create(t.root, "null", 4, S_IFCHR | 0666, 0x103, &names_cred, &i), 0);
	x4_getattr(i, &a);
	must_eq(a.rdev, 0x103);
	must_eq(a.mode, S_IFCHR | 0644);
	x4_iput(i);
	must_eq(n_create(t.root, "fifo", S_IFIFO | 0600), 0);
	must_eq(n_create(t.root, "sock", S_IFSOCK | 0600), 0);
	testvol_done(&t);
}
END_TEST

START_TEST(symbolic_links)
{
	static const unsigned lens[] = { 1, 59, 60, 61, 1000, 1023 };
	static char target[1100], buf[4097];
	char name[16];
	struct x4_inode *i;
	unsigned len;
	struct testvol t = { 0 };

	testvol_make(&t, SMALL, "-b 1024");
	memset(target, 't', sizeof target);
	for (unsigned n = 0; n < ARRAY_SIZE(lens); n++) {
		snprintf(name, sizeof name, "l%u", n);
		must_eq(x4_symlink(t.root, name, (unsigned)strlen(name), target, lens[n], &names_cred, &i), 0);
		must_eq(x4_readlink(i, buf, sizeof buf, &len), 0);
		must_eq(len, lens[n]);
		must(memcmp(buf, target, len) == 0 && buf[len] == 0);
		x4_iput(i);
	}
	must_eq(x4_symlink(t.root, "no", 2, target, 1024, &names_cred, &i), -ENAMETOOLONG);
	testvol_check(&t);
	testvol_open(&t);
	i = n_get(t.root, "l4");
	must_eq(x4_readlink(i, buf, sizeof buf, &len), 0);
	must_eq(len, 1000);
	x4_iput(i);
	for (unsigned n = 0; n < ARRAY_SIZE(lens); n++) {
		snprintf(name, sizeof name, "l%u", n);
		must_eq(n_unlink(t.root, name), 0);
	}
	testvol_done(&t);
}
END_TEST

START_TEST(hard_links)
{
	struct x4_inode *i, *d;
	struct testvol t = { 0 };

	testvol_make(&t, SMALL, "-b 1024");
	must_eq(n_create(t.root, "a", S_IFREG | 0644), 0);
	must_eq(n_create(t.root, "d", S_IFDIR | 0755), 0);
	i = n_get(t.root, "a");
	d = n_get(t.root, "d");
	must_eq(n_link(d, "b", i), 0);
	must_eq(n_link(d, "b", i), -EEXIST);
	must_eq(n_link(t.root, "c", d), -EPERM);
	must_eq(n_nlink(i), 2);
	must_eq(n_unlink(t.root, "a"), 0);
	must_eq(n_nlink(i), 1);
	must_eq(n_ino(d, "b"), x4_inode_ino(i));
	must_eq(n_unlink(d, "b"), 0);
	must_eq(n_link(d, "b", i), -EPERM); /* gone is gone */
	x4_iput(i);
	must_eq(x4_tmpfile(d, S_IFREG | 0600, &names_cred, &i), 0);
	must_eq(n_nlink(i), 0);
	must_eq(n_link(d, "tmp", i), 0);
	must_eq(n_nlink(i), 1);
	x4_iput(i);
	must_eq(x4_tmpfile(d, S_IFREG | 0600, &names_cred, &i), 0);
	x4_iput(i);
	x4_iput(d);
	testvol_done(&t);
}
END_TEST

START_TEST(too_many_links)
{
	struct x4_attr a;
	struct x4_inode *i;
	struct testvol t = { 0 };
	uint16_t was;

	testvol_make(&t, SMALL, "-b 1024");
	must_eq(n_create(t.root, "a", S_IFREG | 0644), 0);
	i = n_get(t.root, "a");
	was = i->raw->i_links_count;
	i->raw->i_links_count = 65000;
	must_eq(n_link(t.root, "b", i), -EMLINK);
	i->raw->i_links_count = was;
	x4_getattr(i, &a);
	a.flags |= EXT2_IMMUTABLE_FL;
	must_eq(x4_setattr(i, X4_SET_FLAGS, &a), 0);
	must_eq(n_link(t.root, "b", i), -EPERM);
	must_eq(n_unlink(t.root, "a"), -EPERM);
	must_eq(n_rename(t.root, "a", t.root, "b", 0), -EPERM);
	x4_iput(i);
	testvol_done(&t);
}
END_TEST

START_TEST(rename_within)
{
	struct testvol t = { 0 };
	int a, b;

	testvol_make(&t, SMALL, "-b 1024");
	must_eq(n_create(t.root, "a", S_IFREG | 0644), 0);
	must_eq(n_create(t.root, "b", S_IFREG | 0644), 0);
	a = n_ino(t.root, "a");
	b = n_ino(t.root, "b");
	must_eq(n_rename(t.root, "a", t.root, "b", RENAME_NOREPLACE), -EEXIST);
	must_eq(n_rename(t.root, "a", t.root, "b", RENAME_EXCHANGE), 0);
	must_eq(n_ino(t.root, "a"), b);
	must_eq(n_ino(t.root, "b"), a);
	must_eq(n_rename(t.root, "a", t.root, "b", 0), 0);
	must_eq(n_ino(t.root, "a"), -ENOENT);
	must_eq(n_ino(t.root, "b"), b);
	must_eq(n_rename(t.root, "b", t.root, "c", RENAME_WHITEOUT), 0);
	must_eq(n_ino(t.root, "c"), b);
	must(n_ino(t.root, "b") > 0);
	must_eq(n_rename(t.root, "nix", t.root, "c", 0), -ENOENT);
	must_eq(n_rename(t.root, "c", t.root, "nix", RENAME_EXCHANGE), -ENOENT);
	must_eq(n_rename(t.root, "c", t.root, "b", RENAME_EXCHANGE | RENAME_NOREPLACE), -EINVAL);
	must_eq(n_rename(t.root, "c", t.root, "..", 0), -EBUSY);
	must_eq(n_rename(t.root, "c", t.root, "c", 0), 0);
	testvol_done(&t);
}
END_TEST

START_TEST(rename_directories)
{
	struct x4_inode *a, *b, *c;
	struct testvol t = { 0 };

	testvol_make(&t, SMALL, "-b 1024");
	must_eq(n_create(t.root, "a", S_IFDIR | 0755), 0);
	must_eq(n_create(t.root, "z", S_IFDIR | 0755), 0);
	a = n_get(t.root, "a");
	must_eq(n_create(a, "b", S_IFDIR | 0755), 0);
	b = n_get(a, "b");
	must_eq(n_create(b, "c", S_IFDIR | 0755), 0);
	c = n_get(b, "c");
	must_eq(n_rename(t.root, "a", c, "x", 0), -EINVAL);
	must_eq(n_rename(t.root, "a", a, "x", 0), -EINVAL);
	must_eq(n_rename(b, "c", t.root, "a", 0), -ENOTEMPTY);
	must_eq(n_rename(b, "c", t.root, "a", RENAME_EXCHANGE), -EINVAL);
	must_eq(n_nlink(a), 3);
	must_eq(n_rename(t.root, "z", a, "b", 0), -ENOTEMPTY); /* no ancestor, but not empty */
	must_eq(n_rename(b, "c", t.root, "z", 0), 0);
	must_eq(n_nlink(b), 2);
	must_eq(n_nlink(t.root), 5);
	must_eq(n_ino(c, ".."), X4_ROOT_INO);
	must_eq(n_create(a, "file", S_IFREG | 0644), 0);
	must_eq(n_rename(a, "file", t.root, "z", 0), -EISDIR);
	must_eq(n_rename(t.root, "z", a, "file", 0), -ENOTDIR);
	must_eq(n_rename(t.root, "z", a, "file", RENAME_EXCHANGE), 0);
	must_eq(n_ino(c, ".."), x4_inode_ino(a));
	must_eq(n_nlink(a), 4);
	must_eq(n_nlink(t.root), 4);
	x4_iput(a);
	x4_iput(b);
	x4_iput(c);
	testvol_done(&t);
}
END_TEST

/* Subdirectories beyond what can be counted: nlink 1 means many. */
START_TEST(many_subdirectories)
{
	struct x4_inode *d;
	struct testvol t = { 0 };
	char name[16];

	testvol_make(&t, 4 * SMALL, "-b 1024 -N 4096");
	must_eq(n_create(t.root, "d", S_IFDIR | 0755), 0);
	d = n_get(t.root, "d");
	for (unsigned n = 0; n < 200; n++) {
		snprintf(name, sizeof name, "sub%u", n);
		must_eq(n_create(d, name, S_IFDIR | 0755), 0);
	}
	must_eq(n_nlink(d), 202);
	must(x4_inode_flags(d) & EXT2_INDEX_FL);
	d->raw->i_links_count = 65000; /* as if there were so many */
	must_eq(n_create(d, "one", S_IFDIR | 0755), 0);
	must_eq(n_nlink(d), 1);
	must_eq(n_create(d, "two", S_IFDIR | 0755), 0);
	must_eq(n_rmdir(d, "one"), 0);
	must_eq(n_nlink(d), 1);
	must_eq(n_rmdir(t.root, "d"), -ENOTEMPTY);
	must_eq(n_rmdir(d, "two"), 0);
	for (unsigned n = 0; n < 200; n++) {
		snprintf(name, sizeof name, "sub%u", n);
		must_eq(n_rmdir(d, name), 0);
	}
	must_eq(n_rmdir(t.root, "d"), 0);
	x4_iput(d);
	testvol_done(&t);
}
END_TEST

/* Two directories that change places change no count, not even one that cannot become larger. */
START_TEST(exchange_when_full)
{
	struct x4_inode *a, *b;
	struct testvol t = { 0 };

	testvol_make(&t, SMALL, "-b 1024 -O ^dir_index");
	must_eq(n_create(t.root, "a", S_IFDIR | 0755), 0);
	must_eq(n_create(t.root, "b", S_IFDIR | 0755), 0);
	a = n_get(t.root, "a");
	b = n_get(t.root, "b");
	must_eq(n_create(a, "x", S_IFDIR | 0755), 0);
	must_eq(n_create(b, "y", S_IFDIR | 0755), 0);
	b->raw->i_links_count = 65000; /* as if there were so many */
	must_eq(n_rename(a, "x", b, "y", RENAME_EXCHANGE), 0);
	must_eq(n_nlink(b), 65000);
	must_eq(n_nlink(a), 3);
	must_eq(n_rename(b, "y", a, "x", RENAME_EXCHANGE), 0);
	must_eq(n_nlink(b), 65000);
	must_eq(n_nlink(a), 3);
	b->raw->i_links_count = 3;
	must_eq(n_rename(b, "y", b, "z", 0), 0);
	x4_iput(a);
	x4_iput(b);
	testvol_done(&t);
}
END_TEST

/* Deleting a large directory revokes each of its blocks: with a small log that takes more than one transaction. */
START_TEST(large_directory_small_log)
{
	struct testvol t = { 0 };
	struct x4_inode *d, *f;
	char name[256];

	testvol_make(&t, 24u << 20, "-b 1024 -J size=1 -O ^dir_index");
	must_eq(n_create(t.root, "f", S_IFREG | 0644), 0);
	must_eq(n_create(t.root, "d", S_IFDIR | 0755), 0);
	f = n_get(t.root, "f");
	d = n_get(t.root, "d");
	for (unsigned n = 0; n < 3 * 5000; n++) { /* three to a block */
		snprintf(name, sizeof name, "%0255u", n);
		must_eq(n_link(d, name, f), 0);
	}
	must(x4_inode_size(d) >= 5000 * 1024);
	for (unsigned n = 0; n < 3 * 5000; n++) {
		snprintf(name, sizeof name, "%0255u", n);
		must_eq(n_unlink(d, name), 0);
	}
	must_eq(n_rmdir(t.root, "d"), 0);
	x4_iput(d);
	x4_iput(f);
	must_eq(t.v->inode.nr_orphans, 0);
	testvol_done(&t);
}
END_TEST

/* ---- several threads ---- */
struct racer { pthread_t t; struct testvol *v; struct x4_inode *dir[4]; uint64_t rnd; };

static bool ignore_entry(void *arg, const struct x4_dirent *e) { (void)arg; return e->ino != 0; }

static void *race(void *arg)
{
	struct racer *r = arg;
	char a[16], b[16];

	for (unsigned k = 0; k < 1500; k++) {
		struct x4_inode *d = r->dir[n_rand(&r->rnd) % 4], *e = r->dir[n_rand(&r->rnd) % 4];

		snprintf(a, sizeof a, "n%u", n_rand(&r->rnd) % 40);
		snprintf(b, sizeof b, "n%u", n_rand(&r->rnd) % 40);
		switch (n_rand(&r->rnd) % 8) {
		case 0: case 1: n_create(d, a, S_IFREG | 0644); break;
		case 2: n_create(d, a, S_IFDIR | 0755); break;
		case 3: n_unlink(d, a); break;
		case 4: n_rmdir(d, a); break;
		case 5: n_rename(d, a, e, b, n_rand(&r->rnd) % 3 ? 0 : RENAME_EXCHANGE); break;
		case 6: nowait_ignore(x4_readdir(d, 0, ignore_entry, NULL)); break;
		case 7: n_ino(d, a); break;
		}
	}
	return NULL;
}

/* Four directories, one below another, that also change places: no deadlock, and a sound file system in the end. */
START_TEST(threads)
{
	struct racer r[4];
	struct testvol t = { 0 };

	testvol_make(&t, 2 * SMALL, "-b 1024 -N 8192");
	memset(r, 0, sizeof r);
	r[0].dir[0] = t.root;
	for (unsigned d = 1; d < 4; d++) {
		char name[8];

		snprintf(name, sizeof name, "n%u", d);
		must_eq(n_create(r[0].dir[d - 1], name, S_IFDIR | 0755), 0);
		r[0].dir[d] = n_get(r[0].dir[d - 1], name);
	}
	for (unsigned n = 0; n < 4; n++) {
		memcpy(r[n].dir, r[0].dir, sizeof r[0].dir);
		r[n].v = &t;
		r[n].rnd = n + 1;
		must_eq(pthread_create(&r[n].t, NULL, race, &r[n]), 0);
	}
	for (unsigned n = 0; n < 4; n++)
		pthread_join(r[n].t, NULL);
	for (unsigned d = 1; d < 4; d++)
		x4_iput(r[0].dir[d]);
	testvol_done(&t);
}
END_TEST

/* The power goes while an unlinked file is still open: it must be on the list of those to be deleted. */
START_TEST(unlinked_while_open)
{
	struct testvol t = { 0 };
	struct x4_inode *i;

	testvol_make(&t, SMALL, "-b 1024 -N 128");
	must_eq(n_create(t.root, "f", S_IFREG | 0600), 0);
	i = n_get(t.root, "f");
	must_eq(n_unlink(t.root, "f"), 0);
	must_eq(x4_vol_sync(t.v), 0);
	must_eq(fake_e2fsck_replay(t.fake), 0);
	x4_iput(i);
	testvol_done(&t);
}
END_TEST

/* The replay asks as well: this comes behind it, with the first write of the superblock. */
static void after_replay(void *arg, enum fake_kind kind, uint64_t off, uint64_t len, unsigned flags, bool after)
{
	(void)arg, (void)len, (void)flags;
	if (kind == FAKE_WRITE && off <= 1024 && after)
		raise(SIGTERM);
}

/* Told to end while it deletes what a crash left, a mount ends; the next one goes on. */
START_TEST(told_to_end_among_orphans)
{
	struct x4_options opt = { .acl = true, .cache_bytes = 64 << 20 };
	struct testvol t = { 0 }, crashed = { 0 };
	struct x4_inode *i[3];
	const char *why;
	char name[] = "f0", err[256];
	sigset_t term;

	testvol_make(&t, SMALL, "-b 1024 -N 128");
	for (unsigned k = 0; k < ARRAY_SIZE(i); k++) {
		name[1] = (char)('0' + k);
		must_eq(n_create(t.root, name, S_IFREG | 0600), 0);
		i[k] = n_get(t.root, name);
		must_eq(n_unlink(t.root, name), 0);
	}
	must_eq(x4_vol_sync(t.v), 0);
	crashed.fake = fake_clone(t.fake);
	for (unsigned k = 0; k < ARRAY_SIZE(i); k++)
		x4_iput(i[k]);
	testvol_done(&t);

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	must_eq(pthread_sigmask(SIG_BLOCK, &term, NULL), 0);
	fake_set_hook(crashed.fake, after_replay, NULL);
	must_eq(x4_vol_open(fake_dev(crashed.fake), &opt, &crashed.v, &why, FDIO_REASON(err)),
			-EINTR);
	fake_set_hook(crashed.fake, NULL, NULL);
	must_eq(sigwaitinfo(&term, NULL), SIGTERM);
	testvol_open(&crashed);
	must_eq(crashed.v->inode.nr_orphans, 0);
	testvol_done(&crashed);
}
END_TEST

static bool waits_for(struct testvol *t, const char *name, bool datasync)
{
	struct x4_inode *i = n_get(t->root, name);
	jnl_tid tid;
	bool waits = x4_sync_tid_noted(i, datasync, &tid) && !jnl_tid_durable(t->v->jnl, tid);

	x4_iput(i);
	return waits;
}

/* A file that has left memory since it was changed, as when the kernel drops its caches, is synced like any other. */
START_TEST(synced_after_leaving_memory)
{
	struct x4_attr a = { .mode = 0600 };
	struct testvol t = { 0 };
	struct x4_inode *i;
	uint32_t ino;

	testvol_make(&t, SMALL, "-b 4096");
	must_eq(n_create(t.root, "old", S_IFREG | 0644), 0);
	must_eq(x4_vol_sync(t.v), 0);
	t.v->inode.lru_max = 0;
	must_eq(n_create(t.root, "f", S_IFREG | 0644), 0);
	ino = (uint32_t)n_ino(t.root, "f");
	must(!x4_iget_cached(t.v, ino));
	must(waits_for(&t, "f", false));
	must(waits_for(&t, "f", true));
	must_eq(x4_vol_sync(t.v), 0);
	must(!waits_for(&t, "f", false));
	must(!waits_for(&t, "old", true));
	i = n_get(t.root, "f");
	must_eq(x4_setattr(i, X4_SET_MODE, &a), 0);
	x4_iput(i);
	must(!x4_iget_cached(t.v, ino));
	must(waits_for(&t, "f", false));
	testvol_done(&t);
}
END_TEST

static bool same(struct timespec a, struct timespec b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }

/* What one operation makes or changes bears one time. */
static void all_born(struct testvol *t, struct x4_inode *i)
{
	struct x4_attr a, dir;

	x4_getattr(i, &a);
	x4_getattr(t->root, &dir);
	must(a.btime.tv_sec > 0);
	must(same(a.btime, a.atime) && same(a.btime, a.mtime) && same(a.btime, a.ctime) && same(a.btime, dir.mtime));
	must(same(dir.mtime, dir.ctime));
	x4_iput(i);
}

START_TEST(times_of_new_files)
{
	struct testvol t = { 0 };
	char target[100];
	struct x4_inode *i;
	struct x4_attr a;

	testvol_make(&t, SMALL, "-b 1024 -I 256");
	memset(target, 't', sizeof target);
	must_eq(n_create(t.root, "f", S_IFREG | 0644), 0);
	all_born(&t, n_get(t.root, "f"));
	must_eq(n_create(t.root, "d", S_IFDIR | 0755), 0);
	all_born(&t, n_get(t.root, "d"));
	must_eq(n_create(t.root, "p", S_IFIFO | 0755), 0);
	all_born(&t, n_get(t.root, "p"));
	must_eq(x4_symlink(t.root, "l", 1, target, sizeof target, &names_cred, &i), 0);
	all_born(&t, i);
	must_eq(n_rename(t.root, "f", t.root, "g", RENAME_WHITEOUT), 0);
	all_born(&t, n_get(t.root, "f"));
	must_eq(x4_tmpfile(t.root, S_IFREG | 0600, &names_cred, &i), 0);
	x4_getattr(i, &a);
	must(same(a.btime, a.atime) && same(a.btime, a.mtime) && same(a.btime, a.ctime));
	x4_iput(i);
	testvol_done(&t);
}
END_TEST

/* ctime of a file that loses one of its names: with the directory's times, and newer than before. */
static void lost_a_name(struct testvol *t, struct x4_inode *i, struct timespec *before)
{
	struct x4_attr a, dir;

	x4_getattr(i, &a);
	x4_getattr(t->root, &dir);
	must(same(a.ctime, dir.mtime) && same(a.ctime, dir.ctime) && !same(a.ctime, *before));
	*before = a.ctime;
}

START_TEST(times_of_removed_names)
{
	struct testvol t = { 0 };
	struct x4_inode *f, *d;
	struct timespec last = { 0 }, made = { 0 };
	struct x4_attr a;

	testvol_make(&t, SMALL, "-b 1024 -I 256");
	must_eq(n_create(t.root, "f", S_IFREG | 0644), 0);
	must_eq(n_create(t.root, "over", S_IFREG | 0644), 0);
	must_eq(n_create(t.root, "d", S_IFDIR | 0755), 0);
	f = n_get(t.root, "f");
	d = n_get(t.root, "d");
	must_eq(n_link(t.root, "f2", f), 0);
	lost_a_name(&t, f, &last); /* won one */
	must_eq(n_link(t.root, "f3", f), 0);
	lost_a_name(&t, f, &last);
	x4_getattr(f, &a);
	made = a.mtime;
	must_eq(n_unlink(t.root, "f2"), 0);
	lost_a_name(&t, f, &last);
	must_eq(n_rename(t.root, "over", t.root, "f3", 0), 0);
	lost_a_name(&t, f, &last);
	must_eq(n_rename(t.root, "f", t.root, "g", 0), 0);
	lost_a_name(&t, f, &last);
	must_eq(n_unlink(t.root, "g"), 0);
	lost_a_name(&t, f, &last);
	x4_getattr(f, &a);
	must(same(a.mtime, made));
	must_eq(n_rmdir(t.root, "d"), 0);
	lost_a_name(&t, d, &last);
	x4_iput(f);
	x4_iput(d);
	testvol_done(&t);
}
END_TEST

/* Flags of a directory go to what is made in it, by type, as with the kernel. */
START_TEST(inherited_flags)
{
	const uint32_t all = EXT2_NODUMP_FL | EXT2_NOATIME_FL | EXT2_SYNC_FL | EXT2_DIRSYNC_FL | EXT2_COMPR_FL | EXT4_PROJINHERIT_FL |
			     0x02000000 /* DAX */, not_reg = EXT2_DIRSYNC_FL | EXT4_PROJINHERIT_FL;
	struct x4_attr a = { .flags = all | EXT2_TOPDIR_FL };
	struct testvol t = { 0 };
	struct x4_inode *d, *i;

	testvol_make(&t, SMALL, "-b 1024");
	must_eq(n_create(t.root, "d", S_IFDIR | 0755), 0);
	d = n_get(t.root, "d");
	a.flags |= x4_inode_flags(d);
	must_eq(x4_setattr(d, X4_SET_FLAGS, &a), 0);
	must_eq(n_create(d, "d", S_IFDIR | 0755), 0);
	must_eq(n_create(d, "f", S_IFREG | 0644), 0);
	must_eq(n_create(d, "p", S_IFIFO | 0644), 0);
	i = n_get(d, "d");
	must_eq(x4_inode_flags(i) & (all | EXT2_TOPDIR_FL), all);
	x4_iput(i);
	i = n_get(d, "f");
	must_eq(x4_inode_flags(i) & (all | EXT2_TOPDIR_FL), all & ~not_reg);
	x4_iput(i);
	i = n_get(d, "p");
	must_eq(x4_inode_flags(i), EXT2_NODUMP_FL | EXT2_NOATIME_FL);
	x4_iput(i);
	x4_iput(d);
	testvol_done(&t);
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
	unit_test(tc, told_to_end_among_orphans);
	unit_test(tc, synced_after_leaving_memory);
	unit_test(tc, times_of_new_files);
	unit_test(tc, times_of_removed_names);
	unit_test(tc, inherited_flags);
	return s;
}
