/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes steps. A step depends only on the seed and its number. Names come from a small pool, so
 * that most calls find a file; values come from lists around the limits. The first steps make a few
 * directories.
 */
#include "differential/diff.h"

#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

uint64_t rnd(struct rng *rng)
{
	uint64_t z = rng->x += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

unsigned below(struct rng *rng, unsigned n) { return (unsigned)(rnd(rng) % n); }
bool chance(struct rng *rng, unsigned percent) { return below(rng, 100) < percent; }

const struct diff_cred diff_creds[] = {
	{ 0, 0, 0, { 0, 0 } },
	{ 1001, 1001, 0, { 0, 0 } },
	{ 1002, 1002, 2, { 1001, 2000 } },
	{ 1003, 1001, 1, { 2000, 0 } },
};

/* ------------------------------------------------------------------ names */

static const char *const dirs[] = { "d0", "d1", "d0/e0", "d0/e1", "d1/e0", "d0/e0/f0" };
static const char *const leaves[] = { "a", "b", "c", "g" };

static const char *long_name(unsigned len)
{
	static char buf[300];

	memset(buf, 'L', len);
	buf[len] = '\0';
	return buf;
}

static void make_leaf(char *p, struct rng *rng, const char *leaf)
{
	unsigned k = below(rng, COUNT(dirs) + 2);

	if (k < COUNT(dirs))
		snprintf(p, PATH_CAP, "%s/%s", dirs[k], leaf);
	else
		snprintf(p, PATH_CAP, "%s", leaf);
}

static void odd_path(char *p, struct rng *rng)
{
	const char *d = dirs[below(rng, COUNT(dirs))], *l = leaves[below(rng, COUNT(leaves))];

	switch (below(rng, 12)) {
	case 0: snprintf(p, PATH_CAP, "%s/%s/%s", d, l, leaves[below(rng, COUNT(leaves))]); break;
	case 1: snprintf(p, PATH_CAP, "%s/%s/", d, l); break;
	case 2: snprintf(p, PATH_CAP, "%s/", d); break;
	case 3: snprintf(p, PATH_CAP, "%s/.", d); break;
	case 4: snprintf(p, PATH_CAP, "%s/..", d); break;
	case 5: make_leaf(p, rng, long_name(255)); break;
	case 6: make_leaf(p, rng, long_name(256)); break;
	case 7: make_leaf(p, rng, "\x01\xff\xfe \n"); break;
	case 8: p[0] = '\0'; break;
	case 9: snprintf(p, PATH_CAP, "."); break;
	case 10: snprintf(p, PATH_CAP, "%s/../%s", d, l); break;
	default: snprintf(p, PATH_CAP, "%s//%s", d, l); break;
	}
}

static void gen_path(struct step *step, struct rng *rng, unsigned k)
{
	unsigned x = below(rng, 100);

	step->has_path[k] = true;
	if (x < 70)
		make_leaf(step->path[k], rng, leaves[below(rng, COUNT(leaves))]);
	else if (x < 92)
		snprintf(step->path[k], PATH_CAP, "%s", dirs[below(rng, COUNT(dirs))]);
	else
		odd_path(step->path[k], rng);
}

static void gen_slot(struct step *step, struct rng *rng, unsigned k)
{
	step->has_slot[k] = true;
	step->slot[k] = below(rng, NSLOTS);
}

/* Chooses either a name or an open file. */
static void gen_either(struct step *step, struct rng *rng)
{
	if (chance(rng, 65))
		gen_path(step, rng, 0);
	else
		gen_slot(step, rng, 0);
}

/* ------------------------------------------------------------------ values */

static int64_t pick_off(struct rng *rng)
{
	static const int64_t edges[] = { 0,    1,    511,  512,  513,   1023,  1024,  1025,
					 4095, 4096, 4097, 8192, 12288, 16384, 65536, 131072 };

	switch (below(rng, 20)) {
	case 0: return (int64_t)below(rng, 1 << 20);
	case 1: return (int64_t)below(rng, 300) * 4096;
	case 2: return ((int64_t)1 << (20 + below(rng, 12))) + (int64_t)below(rng, 3) - 1;
	case 3: return (int64_t)below(rng, 64) * 512;
	default:
		return edges[below(rng, COUNT(edges))] +
		       (chance(rng, 20) ? (int64_t)below(rng, 5000) : 0);
	}
}

static int64_t pick_len(struct rng *rng)
{
	static const int64_t edges[] = { 0,    1,    2,    511,  512,   1000,  1024,
					 4095, 4096, 4097, 8192, 12288, 16384, 65536 };

	if (chance(rng, 4))
		return (int64_t)below(rng, 2 << 20);
	return chance(rng, 25) ? (int64_t)below(rng, 20000) : edges[below(rng, COUNT(edges))];
}

/* Sizes that are just allowed, and sizes that are not. */
static int64_t pick_size(struct rng *rng)
{
	static const int64_t far[] = { -1,
				       INT64_MIN,
				       INT64_MAX,
				       INT64_MAX - 4096,
				       1LL << 40,
				       17592186040320,
				       17592186044415,
				       17592186044416,
				       4398046511103,
				       4398046511104,
				       1LL << 45,
				       1LL << 33 };

	return chance(rng, 10) ? far[below(rng, COUNT(far))] : pick_off(rng);
}

static int64_t pick_mode(struct rng *rng)
{
	static const int64_t modes[] = { 0644,  0600,  0755, 0777, 0,    04755, 02755, 06755, 02644,
					 01777, 02775, 0444, 0222, 0111, 07777, 0070,  0007 };

	return modes[below(rng, COUNT(modes))];
}

/* ------------------------------------------------------------------ files */

static void gen_open(struct step *step, struct rng *rng)
{
	static const int extra[] = { O_TRUNC, O_APPEND, O_DIRECT,  O_NOFOLLOW, O_DIRECTORY,
				     O_SYNC,  O_DSYNC,  O_NOATIME, O_PATH };
	int64_t fl = below(rng, 10) < 6 ? O_RDWR : below(rng, 3);

	gen_path(step, rng, 0);
	gen_slot(step, rng, 0);
	if (chance(rng, 60))
		fl |= O_CREAT;
	if (chance(rng, 12))
		fl |= O_EXCL;
	for (unsigned k = 0; k < COUNT(extra); k++)
		if (chance(rng, k < 3 ? 18 : 4))
			fl |= extra[k];
	if (chance(rng, 4))
		fl = O_TMPFILE | (chance(rng, 80) ? O_RDWR : O_RDONLY) |
		     (chance(rng, 30) ? O_EXCL : 0);
	step->v[0] = fl | O_NONBLOCK | O_CLOEXEC;
	step->v[1] = pick_mode(rng);
}

static void gen_fd(struct step *step, struct rng *rng) { gen_slot(step, rng, 0); }

static void gen_io(struct step *step, struct rng *rng)
{
	gen_slot(step, rng, 0);
	step->v[0] = below(rng, 4);               /* read, pread, readv, preadv */
	step->v[1] = chance(rng, 2) ? -1 : pick_off(rng);
	step->v[2] = pick_len(rng);
	step->v[3] = chance(rng, 10) ? below(rng, 600) : 0; /* misaligns the buffer */
	if (chance(rng, 60)) {
		step->v[1] &= ~(int64_t)511;
		step->v[2] = (step->v[2] + 511) & ~(int64_t)511;
	}
}

static void gen_seek(struct step *step, struct rng *rng)
{
	gen_slot(step, rng, 0);
	step->v[0] = chance(rng, 5) ? -5 : pick_size(rng);
	step->v[1] = chance(rng, 60) ? SEEK_DATA + (int)below(rng, 2) : (int64_t)below(rng, 6);
}

static void gen_ftruncate(struct step *step, struct rng *rng)
{
	gen_slot(step, rng, 0);
	step->v[0] = pick_size(rng);
}

static void gen_truncate(struct step *step, struct rng *rng)
{
	gen_path(step, rng, 0);
	step->v[0] = pick_size(rng);
}

static void gen_fallocate(struct step *step, struct rng *rng)
{
	static const int64_t modes[] = { 0,
					 0,
					 FALLOC_FL_KEEP_SIZE,
					 FALLOC_FL_KEEP_SIZE,
					 FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					 FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					 FALLOC_FL_ZERO_RANGE,
					 FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
					 FALLOC_FL_PUNCH_HOLE,
					 FALLOC_FL_COLLAPSE_RANGE,
					 FALLOC_FL_INSERT_RANGE,
					 FALLOC_FL_UNSHARE_RANGE,
					 0x4000,
					 FALLOC_FL_ZERO_RANGE | FALLOC_FL_PUNCH_HOLE };
	static const int64_t far[] = {
		-1, INT64_MAX, 17592186040320, 17592186044415, 4398046511103, 1LL << 50
	};

	gen_slot(step, rng, 0);
	step->v[0] = modes[below(rng, COUNT(modes))];
	step->v[1] = pick_off(rng);
	step->v[2] = chance(rng, 3) ? -1 : pick_len(rng);
	/*
	 * ext4 removes privileges from the file before it checks RLIMIT_FSIZE, FUSE after it, so
	 * the limit is tried as root only, whose calls do not remove them.
	 */
	if (step->cred)
		step->fsize_limit = 0;
	else if (chance(rng, 5))
		step->v[1] = far[below(rng, COUNT(far))];
}

static void gen_copy(struct step *step, struct rng *rng)
{
	gen_slot(step, rng, 0);
	gen_slot(step, rng, 1);
	/* copy_file_range, sendfile, splice in, splice both */
	step->v[0] = below(rng, 4);
	step->v[1] = chance(rng, 40) ? -1 : pick_off(rng);
	step->v[2] = chance(rng, 40) ? -1 : pick_off(rng);
	step->v[3] = pick_len(rng) & 0xffff;
}

static void gen_mmap(struct step *step, struct rng *rng)
{
	gen_slot(step, rng, 0);
	step->v[0] = below(rng, 3);               /* read, write and msync, write privately */
	step->v[1] = pick_off(rng) & ~(int64_t)4095;
	step->v[2] = 1 + (pick_len(rng) & 0xffff);
}

static void gen_map_grow(struct step *step, struct rng *rng)
{
	gen_slot(step, rng, 0);
	/* write, ftruncate, fallocate, append and then write */
	step->v[0] = below(rng, 4);
	/* what is stored, in the page that holds the end */
	step->v[1] = below(rng, 4096 - 64);
	/* how far behind the end */
	step->v[2] = 1 + (chance(rng, 50) ? below(rng, 4096) : below(rng, 30000));
	step->v[3] = 1 + below(rng, 6000);        /* bytes written */
}

static void gen_fsync(struct step *step, struct rng *rng)
{
	gen_slot(step, rng, 0);
	step->v[0] = below(rng, 10) < 9 ? below(rng, 2) : 2;
}

static void gen_lock(struct step *step, struct rng *rng)
{
	gen_slot(step, rng, 0);
	step->v[0] = below(rng, 9);
	step->v[1] = pick_off(rng);
	step->v[2] = pick_len(rng);
}

static void gen_setfl(struct step *step, struct rng *rng)
{
	gen_slot(step, rng, 0);
	step->v[0] = (chance(rng, 40) ? O_APPEND : 0) | (chance(rng, 30) ? O_DIRECT : 0) |
		     (chance(rng, 10) ? O_NOATIME : 0);
}

static void gen_rwf(struct step *step, struct rng *rng)
{
	static const int64_t flags[] = { 0x2 /* DSYNC */, 0x4 /* SYNC */,      0x10 /* APPEND */,
					 0x1 /* HIPRI */, 0x20 /* NOAPPEND */, 0x40000 };

	gen_slot(step, rng, 0);
	step->v[0] = below(rng, 2);
	step->v[1] = chance(rng, 20) ? -1 : pick_off(rng);
	step->v[2] = pick_len(rng) & 0xffff;
	step->v[3] = flags[below(rng, COUNT(flags))];
}

/* ------------------------------------------------------------------ names */

static void gen_one_path_mode(struct step *step, struct rng *rng)
{
	gen_path(step, rng, 0);
	step->v[0] = pick_mode(rng);
}

static void gen_one_path(struct step *step, struct rng *rng) { gen_path(step, rng, 0); }

static void gen_dirname(struct step *step, struct rng *rng)
{
	gen_one_path_mode(step, rng);
	if (chance(rng, 55))
		snprintf(step->path[0], PATH_CAP, "%s", dirs[below(rng, COUNT(dirs))]);
}

static void gen_link(struct step *step, struct rng *rng)
{
	gen_path(step, rng, 0);
	gen_path(step, rng, 1);
	step->v[0] = chance(rng, 30) ? AT_SYMLINK_FOLLOW : 0;
}

static void gen_link_fd(struct step *step, struct rng *rng)
{
	gen_slot(step, rng, 0);
	gen_path(step, rng, 1);
	step->v[0] = below(rng, 2);
}

static void gen_symlink(struct step *step, struct rng *rng)
{
	static const unsigned lens[] = { 1, 59, 60, 61, 255, 511, 512, 1023, 1024, 4095, 4096 };

	gen_path(step, rng, 0);
	/* the target is this name, or a filler of v[0] bytes */
	gen_path(step, rng, 1);
	step->has_path[1] = false;
	step->v[0] = chance(rng, 15) ? (int64_t)lens[below(rng, COUNT(lens))] : 0;
}

static void gen_mknod(struct step *step, struct rng *rng)
{
	static const unsigned types[] = { S_IFREG,  S_IFCHR, S_IFBLK, S_IFIFO,
					  S_IFSOCK, 0,       S_IFDIR, S_IFLNK };
	static const unsigned devs[] = { 0, 0x103, 0xff00ff, 0xfffff, 0x12345, 0xffffffff };

	gen_path(step, rng, 0);
	step->v[0] = pick_mode(rng) | types[chance(rng, 50) ? 3 : below(rng, COUNT(types))];
	step->v[1] = devs[below(rng, COUNT(devs))];
}

static void gen_rename(struct step *step, struct rng *rng)
{
	gen_path(step, rng, 0);
	gen_path(step, rng, 1);
	step->v[0] = chance(rng, 50) ? 0 : (int64_t)below(rng, 9);
}

static void gen_readdir(struct step *step, struct rng *rng)
{
	gen_path(step, rng, 0);
	if (chance(rng, 80))
		snprintf(step->path[0], PATH_CAP, "%s",
			 chance(rng, 20) ? "." : dirs[below(rng, COUNT(dirs))]);
	step->v[0] = below(rng, 3);
	step->v[1] = below(rng, 40);
}

static void gen_many(struct step *step, struct rng *rng)
{
	step->has_path[0] = true;
	snprintf(step->path[0], PATH_CAP, "%s", dirs[below(rng, COUNT(dirs))]);
	step->v[0] = below(rng, 5);                  /* create, remove, mkdir, rmdir, rename */
	step->v[1] = 20 + below(rng, 100);
	step->v[2] = 1 + below(rng, 200);             /* length of the names */
}

/* ------------------------------------------------------------------ attributes */

static void gen_stat(struct step *step, struct rng *rng)
{
	gen_either(step, rng);
	step->v[0] = below(rng, 8);
}

static void gen_chmod(struct step *step, struct rng *rng)
{
	gen_either(step, rng);
	step->v[0] = pick_mode(rng);
}

static void gen_chown(struct step *step, struct rng *rng)
{
	static const int64_t ids[] = { -1,   0,     1001,  1002,  1003,
				       2000, 65534, 65535, 65536, 4294967294 };

	gen_either(step, rng);
	step->v[0] = ids[below(rng, COUNT(ids))];
	step->v[1] = ids[below(rng, COUNT(ids))];
	step->v[2] = chance(rng, 40);
	/*
	 * For the daemon, chown(-1, -1) by root looks like other changes of attributes, so
	 * privileges stay. ext4 removes them; this case is left out.
	 */
	if (step->v[0] == -1 && step->v[1] == -1)
		step->v[1] = 0;
}

static int64_t pick_sec(struct rng *rng)
{
	static const int64_t secs[] = { 0,           1,
					-1,          -1577836800,
					INT32_MIN,   INT32_MIN - 1LL,
					INT32_MAX,   INT32_MAX + 1LL,
					4294967295,  4294967296,
					15032385535, 15032385536,
					INT64_MAX,   INT64_MIN,
					1000000000,  2208988800,
					1600000000,  8589934592,
					6442450943,  6442450944 };

	return secs[below(rng, COUNT(secs))];
}

static int64_t pick_nsec(struct rng *rng)
{
	static const int64_t ns[] = { 0,         1,          999999999, 123456789,
				      UTIME_NOW, UTIME_OMIT, UTIME_NOW, UTIME_OMIT,
				      500,       1000000000, -1 };

	return ns[below(rng, chance(rng, 4) ? COUNT(ns) : COUNT(ns) - 2)];
}

static void gen_utimens(struct step *step, struct rng *rng)
{
	gen_either(step, rng);
	step->v[0] = pick_sec(rng);
	step->v[1] = pick_nsec(rng);
	step->v[2] = pick_sec(rng);
	step->v[3] = pick_nsec(rng);
	/* 0: NULL, which is now; 1: not through links; else plain */
	step->v[4] = below(rng, 4);
}

static void gen_access(struct step *step, struct rng *rng)
{
	gen_path(step, rng, 0);
	step->v[0] = below(rng, 8);
	step->v[1] = below(rng, 4);
}

static void gen_xname(struct step *step, struct rng *rng)
{
	static const char *const names[] = { "user.a",
					     "user.b",
					     "user.c",
					     "user.dd",
					     "trusted.t",
					     "trusted.u",
					     "security.foo",
					     "security.capability",
					     "system.posix_acl_access",
					     "system.posix_acl_default",
					     "user.",
					     "system.foo",
					     "bogus.x",
					     "user",
					     "",
					     "trusted." };

	if (chance(rng, 6)) {
		unsigned n = 245 + below(rng, 12);

		memcpy(step->name, "user.", 5);
		memset(step->name + 5, 'n', n - 5);
		step->name[n] = '\0';
	} else {
		snprintf(step->name, sizeof(step->name), "%s",
			 names[chance(rng, 75) ? below(rng, 7) : below(rng, COUNT(names))]);
	}
}

static void gen_setxattr(struct step *step, struct rng *rng)
{
	static const unsigned sizes[] = { 0,    1,    3,    4,    20,   24,    40,
					  60,   80,   100,  500,  900,  980,   1000,
					  2000, 3900, 4000, 4040, 4096, 65536, 65537 };

	gen_either(step, rng);
	gen_xname(step, rng);
	step->v[0] = chance(rng, 70) ? sizes[below(rng, 11)] : sizes[below(rng, COUNT(sizes))];
	step->v[1] = chance(rng, 60) ? 0 : below(rng, 4);
	step->v[2] = below(rng, 2);
}

static void gen_xattr(struct step *step, struct rng *rng)
{
	static const int64_t caps[] = { 0, 1, 10, 100, 1000, 65536, 65536, 65536 };

	gen_either(step, rng);
	gen_xname(step, rng);
	step->v[0] = caps[below(rng, COUNT(caps))];
	step->v[2] = below(rng, 2);
}

static void gen_setacl(struct step *step, struct rng *rng)
{
	gen_either(step, rng);
	step->v[0] = chance(rng, 30);                /* the default ACL */
	step->v[1] = (int64_t)rnd(rng) & 0xffffff;
	step->v[2] = chance(rng, 6) ? 1 + below(rng, 5) : 0; /* a way to be wrong */
	step->v[3] = below(rng, 4);                  /* named entries */
	if (chance(rng, 40) && step->has_path[0])
		snprintf(step->path[0], PATH_CAP, "%s", dirs[below(rng, COUNT(dirs))]);
}

static void gen_flags(struct step *step, struct rng *rng)
{
	static const int64_t fl[] = {
		FS_IMMUTABLE_FL,   FS_APPEND_FL,       FS_NODUMP_FL, FS_NOATIME_FL,  FS_SYNC_FL,
		FS_DIRSYNC_FL,     FS_TOPDIR_FL,       FS_SECRM_FL,  FS_UNRM_FL,     FS_COMPR_FL,
		FS_NOTAIL_FL,      FS_JOURNAL_DATA_FL, FS_EXTENT_FL, FS_CASEFOLD_FL, FS_DAX_FL,
		FS_PROJINHERIT_FL, FS_VERITY_FL,       FS_INDEX_FL,  FS_NOCOMP_FL,   FS_ENCRYPT_FL,
		FS_HUGE_FILE_FL,   FS_INLINE_DATA_FL,  FS_NOCOW_FL
	};

	gen_slot(step, rng, 0);
	step->v[0] = chance(rng, 60) ? 0
				     : fl[chance(rng, 75) ? below(rng, 4) : below(rng, COUNT(fl))];
}

static void gen_fsxattr(struct step *step, struct rng *rng)
{
	static const int64_t fl[] = {
		FS_XFLAG_IMMUTABLE, FS_XFLAG_APPEND,     FS_XFLAG_SYNC, FS_XFLAG_NOATIME,
		FS_XFLAG_NODUMP,    FS_XFLAG_EXTSIZE,    FS_XFLAG_DAX,  FS_XFLAG_PROJINHERIT,
		FS_XFLAG_HASATTR,   FS_XFLAG_NOSYMLINKS, 0x40000000
	};

	gen_slot(step, rng, 0);
	step->v[0] = chance(rng, 55) ? 0
				     : fl[chance(rng, 60) ? below(rng, 5) : below(rng, COUNT(fl))];
	step->v[1] = chance(rng, 4) ? 7 : 0;          /* project */
	step->v[2] = chance(rng, 4) ? 4096 : 0;       /* extent size */
	step->v[3] = chance(rng, 40);                /* read only */
}

const struct op diff_ops[] = {
	{ "open", 110, 0, gen_open, run_open },
	{ "close", 12, 0, gen_fd, run_close },
	{ "read", 40, OP_READS, gen_io, run_read },
	{ "write", 70, 0, gen_io, run_write },
	{ "lseek", 25, 0, gen_seek, run_seek },
	{ "ftruncate", 25, 0, gen_ftruncate, run_ftruncate },
	{ "truncate", 15, 0, gen_truncate, run_truncate },
	{ "fallocate", 40, 0, gen_fallocate, run_fallocate },
	{ "copy", 25, OP_READS, gen_copy, run_copy },
	{ "mmap", 20, OP_READS, gen_mmap, run_mmap },
	{ "mapgrow", 20, OP_READS, gen_map_grow, run_map_grow },
	{ "fsync", 8, 0, gen_fsync, run_fsync },
	{ "lock", 12, 0, gen_lock, run_lock },
	{ "setfl", 8, 0, gen_setfl, run_setfl },
	{ "fadvise", 6, 0, gen_fd, run_fadvise },
	{ "holes", 12, 0, gen_fd, run_holes },
	{ "rwf", 12, OP_READS, gen_rwf, run_rwf },
	{ "mkdir", 40, 0, gen_dirname, run_mkdir },
	{ "rmdir", 20, 0, gen_dirname, run_rmdir },
	{ "unlink", 40, 0, gen_one_path, run_unlink },
	{ "link", 30, 0, gen_link, run_link },
	{ "linkfd", 12, 0, gen_link_fd, run_link_fd },
	{ "symlink", 20, 0, gen_symlink, run_symlink },
	{ "readlink", 12, OP_READS, gen_one_path, run_readlink },
	{ "mknod", 20, 0, gen_mknod, run_mknod },
	{ "rename", 50, 0, gen_rename, run_rename },
	{ "readdir", 20, OP_READS, gen_readdir, run_readdir },
	{ "handle", 6, 0, gen_one_path, run_handle },
	{ "many", 3, 0, gen_many, run_many },
	{ "stat", 25, 0, gen_stat, run_stat },
	{ "statfs", 4, 0, gen_either, run_statfs },
	{ "chmod", 35, 0, gen_chmod, run_chmod },
	{ "chown", 30, 0, gen_chown, run_chown },
	{ "utimens", 30, 0, gen_utimens, run_utimens },
	{ "access", 20, 0, gen_access, run_access },
	{ "setxattr", 40, 0, gen_setxattr, run_setxattr },
	{ "getxattr", 15, 0, gen_xattr, run_getxattr },
	{ "listxattr", 12, 0, gen_xattr, run_listxattr },
	{ "removexattr", 15, 0, gen_xattr, run_removexattr },
	{ "setacl", 25, 0, gen_setacl, run_setacl },
	{ "getflags", 6, 0, gen_fd, run_getflags },
	{ "setflags", 18, 0, gen_flags, run_setflags },
	{ "fsxattr", 12, 0, gen_fsxattr, run_fsxattr },
};
const unsigned diff_nr_ops = COUNT(diff_ops);

static const struct op *op_named(const char *name)
{
	for (unsigned k = 0; k < diff_nr_ops; k++)
		if (!strcmp(diff_ops[k].name, name))
			return &diff_ops[k];
	return NULL;
}

static const struct op *pick_op(struct rng *rng)
{
	unsigned total = 0, x;

	for (unsigned k = 0; k < diff_nr_ops; k++)
		total += diff_ops[k].weight;
	x = below(rng, total);
	for (unsigned k = 0; k < diff_nr_ops; k++) {
		if (x < diff_ops[k].weight)
			return &diff_ops[k];
		x -= diff_ops[k].weight;
	}
	return &diff_ops[0];
}

/*
 * The directories of most names: open to all, sticky, set-group-ID, closed; the last has a default
 * ACL.
 */
static bool make_first(unsigned no, struct step *step)
{
	static const unsigned modes[] = { 0777, 01777, 02777, 0755, 0777, 0777 };

	if (no < COUNT(dirs)) {
		step->op = op_named("mkdir");
		step->v[0] = modes[no];
		step->umask = 0;
	} else if (no == COUNT(dirs)) {
		step->op = op_named("setacl");
		step->v[0] = 1;
		step->v[1] = 0x7777;
		step->v[3] = 2;
		no = 4;
	} else {
		return false;
	}
	step->cred = 0;
	step->has_path[0] = true;
	snprintf(step->path[0], PATH_CAP, "%s", dirs[no]);
	return true;
}

void diff_make_step(uint64_t seed, unsigned no, struct step *step)
{
	static const unsigned umasks[] = { 022, 022, 0, 077, 027 };
	struct rng rng = { seed * 0x9e3779b97f4a7c15u ^ (uint64_t)no * 0xd1342543de82ef95u };

	memset(step, 0, sizeof(*step));
	step->no = no;
	step->seed = rnd(&rng);
	step->cred = chance(&rng, 55) ? 0 : 1 + below(&rng, 3);
	step->umask = umasks[below(&rng, COUNT(umasks))];
	if (chance(&rng, 2))
		step->fsize_limit = 1 + (uint64_t)pick_off(&rng);
	step->pause = chance(&rng, 3);
	if (make_first(no, step))
		return;
	step->op = pick_op(&rng);
	step->op->gen(step, &rng);
}

static size_t quote(char *buf, size_t cap, const char *s)
{
	size_t n = 0, len = strlen(s);

	n += (size_t)snprintf(buf, cap, "\"");
	for (size_t k = 0; k < len && n + 8 < cap; k++) {
		if (len > 80 && k == 20) {
			n += (size_t)snprintf(buf + n, cap - n, "...(%zu bytes)", len);
			break;
		}
		n += (size_t)snprintf(buf + n, cap - n,
				      (unsigned char)s[k] < 32 || (unsigned char)s[k] > 126 ? "\\x%"
											      "02x"
											    : "%c",
				      (unsigned char)s[k]);
	}
	n += (size_t)snprintf(buf + n, cap - n, "\"");
	return n;
}

void diff_print_step(const struct step *step, char *buf, size_t cap)
{
	size_t n = (size_t)snprintf(buf, cap, "step %u: %s(", step->no, step->op->name);

	for (unsigned k = 0; k < 2 && n + 200 < cap; k++) {
		if (step->path[k][0] || step->has_path[k]) {
			n += quote(buf + n, cap - n, step->path[k]);
			n += (size_t)snprintf(buf + n, cap - n, " ");
		}
		if (step->has_slot[k])
			n += (size_t)snprintf(buf + n, cap - n, "slot %u ", step->slot[k]);
	}
	if (step->name[0] && n + 200 < cap) {
		n += quote(buf + n, cap - n, step->name);
		n += (size_t)snprintf(buf + n, cap - n, " ");
	}
	for (unsigned k = 0; k < 6 && n + 60 < cap; k++)
		n += (size_t)snprintf(buf + n, cap - n, "%s%" PRId64 "/%#" PRIx64, k ? " " : "",
				      step->v[k], (uint64_t)step->v[k]);
	n += (size_t)snprintf(buf + n, cap - n, ") as user %u umask %03o",
			      diff_creds[step->cred].uid, step->umask);
	if (step->fsize_limit)
		snprintf(buf + n, cap - n, " RLIMIT_FSIZE %" PRIu64, step->fsize_limit);
}
