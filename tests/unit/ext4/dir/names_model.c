/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Directories at random and in bulk. Proves:
 *
 *   - after thousands of random creations, links, removals and renames in three directories, these
 *     hold exactly what a table says, on volumes of different features, most of them with blocks of
 *     1 KiB so that indexes become deep; e2fsck finds nothing wrong;
 *   - a listing gives each name that stays once, while others come and go between its calls;
 *   - the cost of an operation, counted in block accesses, hardly grows up to 100,000 names, and a
 *     directory whose index is as deep as the format allows is full;
 *   - no operation crashes on a damaged directory.
 */
#include "kit/names.h"

#include "base/counters.h"
#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the table ---- */
#define NR_DIRS 3
#define NR_NAMES 1500

struct model {
	struct testvol volume;
	struct ext4_inode *dir[NR_DIRS];
	char *name[NR_NAMES];            /* the same names in each directory */
	uint32_t ino[NR_DIRS][NR_NAMES]; /* 0: not there */
	unsigned seen[NR_NAMES];
	uint64_t rnd;
};

static const char *const dir_names[NR_DIRS] = { "alpha", "beta", "gamma" };
static struct model m;

/* Names of 6 to 65 bytes, every tenth of 255; bytes 2 to 5 are the number of the name. */
static void model_names(void)
{
	char buf[256];

	for (unsigned n = 0; n < NR_NAMES; n++) {
		unsigned len = n % 10 == 0 ? 255 : 6 + next_random(&m.rnd) % 60;

		for (unsigned k = 0; k < len; k++)
			buf[k] = (char)('a' + next_random(&m.rnd) % 26);
		buf[len] = 0;
		/* beyond ASCII, where hashes of signed and of unsigned characters differ */
		if (n % 7 == 0)
			buf[0] = (char)0xc3, buf[1] = (char)0xa4;
		snprintf(buf + 2, 5, "%04u", n);
		buf[6] = len > 6 ? 'x' : 0;
		m.name[n] = strdup(buf);
	}
}

static void model_open_dirs(void)
{
	for (unsigned d = 0; d < NR_DIRS; d++)
		m.dir[d] = name_lookup(m.volume.root, dir_names[d]);
}

static void model_close_dirs(void)
{
	for (unsigned d = 0; d < NR_DIRS; d++)
		ext4_inode_put(m.dir[d]);
}

static unsigned name_index(const char *name, unsigned len)
{
	char num[5] = { 0 };

	must(len >= 6);
	memcpy(num, name + 2, 4);
	return (unsigned)atoi(num);
}

static unsigned listed_dir; /* which of m.dir check_entry is listing */

/* arg: counts "." and "..". */
static bool check_entry(void *arg, const struct ext4_dirent *entry)
{
	unsigned n;

	if (entry->name[0] == '.') {
		(*(unsigned *)arg)++;
		must_eq(entry->type, DT_DIR);
		return true;
	}
	n = name_index(entry->name, entry->name_len);
	must(n < NR_NAMES && strlen(m.name[n]) == entry->name_len &&
	     !memcmp(m.name[n], entry->name, entry->name_len));
	must_eq(entry->ino, m.ino[listed_dir][n]);
	must_eq(entry->type, DT_REG);
	m.seen[n]++;
	return true;
}

/* Each directory lists exactly the table's names, and each name's lookup agrees with the table. */
static void model_verify(void)
{
	for (unsigned d = 0; d < NR_DIRS; d++) {
		unsigned dots = 0;

		listed_dir = d;
		memset(m.seen, 0, sizeof m.seen);
		must_eq(ext4_readdir(m.dir[d], 0, check_entry, &dots), 0);
		must_eq(dots, 2);
		for (unsigned n = 0; n < NR_NAMES; n++) {
			must_eq(m.seen[n], m.ino[d][n] ? 1 : 0);
			must_eq(name_ino(m.dir[d], m.name[n]),
				m.ino[d][n] ? (int)m.ino[d][n] : -ENOENT);
		}
	}
}

static void model_rename(unsigned d, unsigned n)
{
	unsigned d2 = next_random(&m.rnd) % NR_DIRS, n2 = next_random(&m.rnd) % NR_NAMES;
	static const unsigned how[] = { 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE };
	unsigned flags = how[next_random(&m.rnd) % 4];
	uint32_t *from = &m.ino[d][n], *to = &m.ino[d2][n2], was = *from;
	int err = name_rename(m.dir[d], m.name[n], m.dir[d2], m.name[n2], flags);

	if (!*from || (flags == RENAME_EXCHANGE && !*to)) {
		must_eq(err, -ENOENT);
	} else if (flags == RENAME_NOREPLACE && *to) {
		must_eq(err, -EEXIST);
	} else {
		must_eq(err, 0);
		if (flags == RENAME_EXCHANGE) {
			*from = *to;
			*to = was;
		} else if (*from != *to) { /* two links of one inode: nothing happens */
			*from = 0;
			*to = was;
		}
	}
}

static void model_link(unsigned d, unsigned n)
{
	unsigned d2 = next_random(&m.rnd) % NR_DIRS, n2 = next_random(&m.rnd) % NR_NAMES;
	struct ext4_inode *inode;

	if (!m.ino[d][n])
		return;
	inode = name_lookup(m.dir[d], m.name[n]);
	must_eq(name_link(m.dir[d2], m.name[n2], inode), m.ino[d2][n2] ? -EEXIST : 0);
	if (!m.ino[d2][n2])
		m.ino[d2][n2] = m.ino[d][n];
	ext4_inode_put(inode);
}

/* One random operation; bias of 10 are creations, so that the directories grow or shrink. */
static void model_step(unsigned bias)
{
	unsigned d = next_random(&m.rnd) % NR_DIRS, n = next_random(&m.rnd) % NR_NAMES,
		 op = next_random(&m.rnd) % 10;

	if (op < bias) {
		must_eq(name_create(m.dir[d], m.name[n], S_IFREG | 0644),
			m.ino[d][n] ? -EEXIST : 0);
		if (!m.ino[d][n])
			m.ino[d][n] = (uint32_t)name_ino(m.dir[d], m.name[n]);
	} else if (op < 7) {
		must_eq(name_unlink(m.dir[d], m.name[n]), m.ino[d][n] ? 0 : -ENOENT);
		m.ino[d][n] = 0;
	} else if (op < 9) {
		model_rename(d, n);
	} else {
		model_link(d, n);
	}
}

/* Options of mke2fs. */
static const char *const volumes[] = {
	"-b 1024",
	"-b 1024 -O ^metadata_csum,^64bit",
	"-b 1024 -O ^dir_index",
	"-b 1024 -O large_dir",
	"-b 4096",
	"-b 2048 -O ^filetype,^metadata_csum",
	"-b 1024 -O ^dir_index,^metadata_csum,uninit_bg",
};

START_TEST(against_a_table)
{
	memset(&m, 0, sizeof m);
	m.rnd = 42 + (uint64_t)_i;
	model_names();
	testvol_make(&m.volume, 48 << 20, volumes[_i]);
	for (unsigned d = 0; d < NR_DIRS; d++)
		must_eq(name_create(m.volume.root, dir_names[d], S_IFDIR | 0755), 0);
	model_open_dirs();
	for (unsigned round = 0; round < 3; round++) {
		static const unsigned bias[] = { 6, 4, 1 };

		for (unsigned k = 0; k < 4000; k++)
			model_step(bias[round]);
		model_verify();
		model_close_dirs();
		testvol_check(&m.volume);
		testvol_open(&m.volume);
		model_open_dirs();
		model_verify();
	}
	model_close_dirs();
	testvol_done(&m.volume);
	for (unsigned n = 0; n < NR_NAMES; n++)
		free(m.name[n]);
}
END_TEST

/* ---- positions ---- */
#define STABLE 20

/* A listing that stops after left entries; cookie is where it goes on. */
struct walk { uint64_t cookie; unsigned left; unsigned seen[STABLE]; };

static bool walk_entry(void *arg, const struct ext4_dirent *entry)
{
	struct walk *walk = arg;
	unsigned n;

	if (walk->left == 0)
		return false;
	walk->left--;
	walk->cookie = entry->next_cookie;
	if (sscanf(entry->name, "stable%4u", &n) == 1) {
		must(n < STABLE);
		walk->seen[n]++;
	}
	return true;
}

/* Each name that stays is listed once, whatever is inserted and removed between the calls. */
START_TEST(listing_while_names_come_and_go)
{
	static const char *const args[] = { "-b 1024", "-b 1024 -O ^dir_index", "-b 4096" };
	uint64_t rnd = 7;
	struct ext4_inode *dir, *one;
	struct testvol volume = { 0 };
	struct walk walk = { 0 };
	char name[40];

	testvol_make(&volume, 48 << 20, args[_i]);
	must_eq(name_create(volume.root, "d", S_IFDIR | 0755), 0);
	dir = name_lookup(volume.root, "d");
	must_eq(name_create(dir, "one", S_IFREG | 0644), 0);
	one = name_lookup(dir, "one");
	/* The listing begins while the directory is so small that it gets its index meanwhile. */
	for (unsigned n = 0; n < STABLE; n++) {
		snprintf(name, sizeof name, "stable%04u", n);
		must_eq(name_link(dir, name, one), 0);
	}
	walk.left = 5;
	must_eq(ext4_readdir(dir, 0, walk_entry, &walk), 0);
	for (unsigned round = 0; walk.left == 0; round++) {
		for (unsigned k = 0; k < 40; k++) {
			unsigned x = next_random(&rnd) % 2000;

			snprintf(name, sizeof name, "%08x-x%u", x * 2654435761u, x);
			if (name_link(dir, name, one) == -EEXIST)
				must_eq(name_unlink(dir, name), 0);
		}
		walk.left = 5;
		must_eq(ext4_readdir(dir, walk.cookie, walk_entry, &walk), 0);
		must(round < 5000);
	}
	for (unsigned n = 0; n < STABLE; n++)
		must_eq(walk.seen[n], 1);
	ext4_inode_put(one);
	ext4_inode_put(dir);
	testvol_done(&volume);
}
END_TEST

/* ---- size ---- */
static uint64_t accesses(void)
{
	return fdio_counter_read(COUNTER_journal_cache_hit) +
	       fdio_counter_read(COUNTER_journal_cache_miss);
}

static bool count_entry(void *arg, const struct ext4_dirent *entry)
{
	(*(unsigned *)arg)++;
	return entry->name_len > 0;
}

#ifdef FDIO_DEBUG_LOCKS /* builds for sanitizers are slow: fewer names */
#define MANY 30000u
#else
#define MANY 100000u
#endif

/* The cost of insertions and of lookups in an index of MANY names. */
START_TEST(a_large_directory)
{
	struct ext4_inode *dir, *file[2];
	uint64_t before, early = 0;
	unsigned n, count = 0;
	struct testvol volume = { 0 };
	char name[40];

	testvol_make(&volume, 96 << 20, "-b 1024 -O large_dir");
	must_eq(name_create(volume.root, "d", S_IFDIR | 0755), 0);
	dir = name_lookup(volume.root, "d");
	must_eq(name_create(volume.root, "f0", S_IFREG | 0644), 0);
	must_eq(name_create(volume.root, "f1", S_IFREG | 0644), 0);
	file[0] = name_lookup(volume.root, "f0");
	file[1] = name_lookup(volume.root, "f1");
	before = accesses();
	for (n = 0; n < MANY; n++) {
		snprintf(name, sizeof name, "a name like many others %u", n);
		must_eq(name_link(dir, name, file[n & 1]), 0);
		if (n == 1999)
			early = accesses() - before;
		if (n == MANY - 2001)
			before = accesses();
	}
	/* An insertion reads the path to its leaf, by now one or two nodes longer than at first. */
	must(accesses() - before < 2 * early);
	must((accesses() - before) / 2000 < 40);
	before = accesses();
	for (n = 0; n < MANY; n += MANY / 1000) {
		snprintf(name, sizeof name, "a name like many others %u", n);
		must_eq(name_ino(dir, name), ext4_inode_ino(file[n & 1]));
	}
	must(accesses() - before <= 6 * 1000);
	must_eq(ext4_readdir(dir, 0, count_entry, &count), 0);
	must_eq(count, MANY + 2);
	ext4_inode_put(dir);
	ext4_inode_put(file[0]);
	ext4_inode_put(file[1]);
	testvol_done(&volume);
}
END_TEST

/* Levels of the index below its root, from the root's header in the directory's first block. */
static unsigned index_levels(struct ext4_inode *dir)
{
	struct journal_buffer *buffer;
	unsigned levels;
	uint64_t blk;

	must_eq(ext4_bmap(dir, 0, &blk), 0);
	must_eq(journal_read_block(dir->vol->journal, blk, &buffer), 0);
	levels = buffer->data[30];
	journal_buffer_release(buffer);
	return levels;
}

/*
 * With names so long that a leaf holds three, the index grows to its full depth; then the directory
 * is full. With large_dir (case 1) it may grow one level deeper, so nothing fails.
 */
START_TEST(the_deepest_index)
{
	static const char *const args[] = { "-b 1024", "-b 1024 -O large_dir,^metadata_csum" };
	struct ext4_inode *dir, *file;
	unsigned n, last = _i ? 50000 : 60000;
	struct testvol volume = { 0 };
	char name[256];
	int err = 0;

	memset(name, 'l', 255);
	name[255] = 0;
	testvol_make(&volume, 96 << 20, args[_i]);
	must_eq(name_create(volume.root, "d", S_IFDIR | 0755), 0);
	dir = name_lookup(volume.root, "d");
	must_eq(name_create(volume.root, "f", S_IFREG | 0644), 0);
	file = name_lookup(volume.root, "f");
	for (n = 0; n < last; n++) {
		snprintf(name + 200, 11, "%010u", n);
		name[210] = 'l';
		err = name_link(dir, name, file);
		if (err)
			break;
	}
	must_eq(err, _i ? 0 : -ENOSPC);
	must_eq(index_levels(dir), _i ? 2 : 1);
	must(n > 15000);
	must_eq(link_count(file), n + 1);
	for (unsigned k = 0; k < n; k += 2) {
		snprintf(name + 200, 11, "%010u", k);
		name[210] = 'l';
		must_eq(name_unlink(dir, name), 0);
	}
	ext4_inode_put(dir);
	ext4_inode_put(file);
	testvol_done(&volume);
}
END_TEST

/* ---- damage ---- */
static void log_nothing(int level, const char *line) { (void)level; (void)line; }

/* Changes up to 8 bytes of the directory's blocks blk on a copy; then operations of every kind. */
static void damage_round(struct fake_dev *pristine, uint64_t *rnd, const uint64_t *blk, unsigned nr)
{
	struct testvol volume = { .fake = fake_clone(pristine) };
	struct ext4_inode *dir;
	unsigned count = 0;
	char name[64];
	uint8_t byte;

	for (unsigned k = 0; k < 1 + next_random(rnd) % 8; k++) {
		/* Half of the changes go to the heads of blocks, where the index has its fields. */
		uint64_t at = blk[next_random(rnd) % nr] * 1024 +
			      next_random(rnd) % (next_random(rnd) % 2 ? 48 : 1024);

		byte = (uint8_t)next_random(rnd);
		fake_poke(volume.fake, &byte, 1, at);
	}
	testvol_open(&volume);
	if (ext4_lookup(volume.root, "d", 1, &dir) == 0) {
		nowait_ignore(ext4_readdir(dir, 0, count_entry, &count));
		for (unsigned n = 0; n < 40; n++) {
			snprintf(name, sizeof name, "file %u with a name of some length", n * 10);
			name_ino(dir, name);
			if (n % 3 == 0)
				name_unlink(dir, name);
			snprintf(name, sizeof name, "new %u with a name of some length", n);
			name_create(dir, name, S_IFREG | 0600);
			name_rename(dir, name, volume.root, name, 0);
		}
		name_rmdir(volume.root, "d");
		ext4_inode_put(dir);
	}
	ext4_inode_put(volume.root);
	ext4_vol_abandon(volume.vol);
	fake_free(volume.fake);
}

START_TEST(damaged_directories)
{
	static const char *const args[] = {
		"-b 1024 -O ^metadata_csum",
		"-b 1024 -O ^metadata_csum,^dir_index",
	};
	uint64_t rnd = 99, blk[64];
	struct ext4_inode *dir;
	unsigned nr = 0;
	struct testvol volume = { 0 };
	char name[64];

	testvol_make(&volume, 16 << 20, args[_i]);
	must_eq(name_create(volume.root, "d", S_IFDIR | 0755), 0);
	dir = name_lookup(volume.root, "d");
	for (unsigned n = 0; n < 400; n++) {
		snprintf(name, sizeof name, "file %u with a name of some length", n);
		must_eq(name_create(dir, name, S_IFREG | 0644), 0);
	}
	while (nr < 64 && nr < ext4_inode_size(dir) / 1024) {
		must_eq(ext4_bmap(dir, nr, &blk[nr]), 0);
		nr++;
	}
	ext4_inode_put(dir);
	testvol_close(&volume);
	fdio_log_set_sink(log_nothing);
	for (unsigned round = 0; round < 150; round++)
		damage_round(volume.fake, &rnd, blk, nr);
	fdio_log_set_sink(NULL);
	fake_free(volume.fake);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ext4: names model");
	TCase *tc = unit_case(s, "model", 300);

	unit_loop(tc, against_a_table, 0, (int)ARRAY_SIZE(volumes));
	unit_loop(tc, listing_while_names_come_and_go, 0, 3);
	unit_test(tc, a_large_directory);
	unit_loop(tc, the_deepest_index, 0, 2);
	unit_loop(tc, damaged_directories, 0, 2);
	return s;
}
