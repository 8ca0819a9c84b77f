/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The images that the fuzzers damage: small, made at the start by mke2fs, debugfs and the program
 * itself. They hold one of everything: deep directories, hash trees of two levels, extent trees of
 * every depth, block maps, attributes in and out of inodes, ACLs, symbolic links of both kinds,
 * devices, deletions that a crash interrupted, an orphan file, and a log of several transactions
 * with revocations. Each comes clean and, as NAME-dirty, as a crash left it.
 */
#include "fuzz/fuzz.h"

#include "base/epoch.h"
#include "base/log.h"
#include "ext4/ext4.h"
#include "kit/device.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <unistd.h>

struct recipe {
	const char *name;
	uint64_t mib;
	const char *mkfs;
	const char *tools;  /* shell, with $IMG */
	bool populate;
};

/*
 * The same numbers and features in each run, whatever mke2fs has as default, so that cases of the
 * corpus mean the same.
 */
#define FEATURES "-O none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit," \
		 "flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum"
#define SAME "-U 5f0d10f2-0000-4000-8000-000000000001 -E hash_seed=5f0d10f2-0000-" \
	     "4000-8000-000000000002,lazy_itable_init=0," \
	     "lazy_journal_init=0,root_owner=0:0 "

/* Files with block maps: written while the file system has no extents. */
#define OLD_FILES "head -c 700000 /dev/zero | tr '\\0' 'x' >\"$IMG.f\"; " \
		  "debugfs -w -R \"write $IMG.f old\" \"$IMG\" >/dev/null 2>&1; " \
		  "debugfs -w -R \"mkdir olddir\" \"$IMG\" >/dev/null 2>&1; " \
		  "head -c 9000 \"$IMG.f\" >\"$IMG.g\"; " \
		  "debugfs -w -R \"write $IMG.g olddir/small\" \"$IMG\" >/dev/null 2>&1; " \
		  "rm -f \"$IMG.f\" \"$IMG.g\"; "

static const struct recipe recipes[] = {
	{ "csum1k", 8, "-t ext4 -b 1024 -g 2048 -I 256 -N 512 -J size=1 " FEATURES " " SAME,
	  NULL, true },
	{ "csum4k", 12,
	  "-t ext4 -b 4096 -N 512 -J size=4 " FEATURES
	  ",orphan_file,metadata_csum_seed,large_dir,ea_inode,^resize_inode " SAME,
	  NULL, true },
	{ "old1k", 8,
	  "-t ext4 -b 1024 -g 4096 -I 128 -N 512 -J size=1 " FEATURES
	  ",^metadata_csum,^64bit,uninit_bg,^extents,^flex_bg " SAME,
	  OLD_FILES "tune2fs -O extents \"$IMG\" >/dev/null 2>&1", true },
	{ "plain2k", 12,
	  "-t ext4 -b 2048 -g 2048 -I 512 -N 512 -J size=2 " FEATURES
	  ",^metadata_csum,^uninit_bg,meta_bg,^resize_inode,sparse_super2 " SAME,
	  NULL, true },
	{ "shown", 8,
	  "-t ext4 -b 1024 -N 256 -J size=1 " FEATURES ",inline_data,ea_inode,bigalloc -C 4096 "
	  "-d \"$IMG.d\" " SAME,
	  "head -c 3000 /dev/zero | tr '\\0' 'v' >\"$IMG.f\"; debugfs -w -R \"ea_set -f $IMG.f "
	  "small user.big\" \"$IMG\" >/dev/null 2>&1; "
	  "rm -f \"$IMG.f\"",
	  false },
};
#define MAX_BASES (2 * ARRAY_SIZE(recipes))

static struct base bases[MAX_BASES];
static unsigned nr_bases;
static const struct ext4_credentials cred = { .cap_fsetid = true };
static const struct ext4_options opts = { .acl = true,
					  .user_xattr = true,
					  .commit_interval_s = 3600 };

unsigned bases_count(void) { return nr_bases; }
struct base *bases_get(unsigned i) { return &bases[i % nr_bases]; }

struct base *bases_find(const char *name)
{
	for (unsigned i = 0; i < nr_bases; i++)
		if (!strcmp(bases[i].name, name))
			return &bases[i];
	return NULL;
}

/* ---- contents; every step must work, as these images are sound ---- */
static struct ext4_inode *make(struct ext4_inode *dir, const char *name, uint32_t mode)
{
	struct ext4_inode *inode = NULL;

	MUST(!ext4_create(dir, name, (unsigned)strlen(name), mode, makedev(8, 1), &cred, &inode));
	return inode;
}

/* Writes len blocks at lblk; the file is then size bytes large, if that is more than before. */
static void write_blocks(struct ext4_inode *inode, uint32_t lblk, uint32_t len, uint64_t size)
{
	struct ext4_vol *vol = ext4_inode_vol(inode);
	unsigned bits = ext4_vol_block_bits(vol);
	uint8_t *buf = calloc(len, 1UL << bits);
	struct ext4_reservation reservation;

	MUST(buf);
	memset(buf, 'd', (size_t)len << bits);
	ext4_inode_lock_exclusive(inode);
	MUST(!ext4_map_load(inode) && !ext4_reserve_holes(inode, lblk, len, true, &reservation));
	for (unsigned e = 0; e < reservation.nr; e++)
		MUST(!dev_write(ext4_vol_dev(vol), buf, (size_t)reservation.ext[e].len << bits,
				reservation.ext[e].pblk << bits, 0));
	MUST(!ext4_insert(inode, &reservation, 0, 0, size));
	ext4_reservation_free(&reservation);
	ext4_inode_unlock(inode);
	free(buf);
}

/* Sets the ACL with so many named users. */
static void set_acl(struct ext4_inode *inode, const char *name, unsigned users)
{
	uint8_t v[4 + 8 * 40], *p = v + 4;
	const uint16_t ends[][2] = { { 0x01, 7 }, { 0x04, 5 }, { 0x10, 7 }, { 0x20, 5 } };
	uint32_t version = 2, none = UINT32_MAX;

	memcpy(v, &version, 4);
	for (unsigned k = 0; k < 4; k++) {
		for (unsigned u = 0; k == 1 && u < users; u++) {
			uint16_t e[2] = { 0x02, 6 };
			uint32_t id = 1000 + u;
			memcpy(p, e, 4);
			memcpy(p + 4, &id, 4);
			p += 8;
		}
		memcpy(p, ends[k], 4);
		memcpy(p + 4, &none, 4);
		p += 8;
	}
	MUST(!ext4_xattr_set(inode, name, v, (size_t)(p - v), 0, false));
}

static void big_dir(struct ext4_inode *root, unsigned n, unsigned len)
{
	struct ext4_inode *dir = make(root, "htree", 0040755),
			  *file = make(root, "linked", 0100644);
	char name[256];

	for (unsigned k = 0; k < n; k++) {
		memset(name, 'a' + (int)(k % 26), sizeof(name));
		snprintf(name + len - 6, 7, "%06u", k);
		MUST(!ext4_link(dir, name, len, file, true));
	}
	ext4_inode_put(file);
	ext4_inode_put(dir);
}

static void deep_dirs(struct ext4_inode *root)
{
	struct ext4_inode *dir = ext4_inode_ref(root);

	for (unsigned k = 0; k < 12; k++) {
		char name[16];
		struct ext4_inode *below;
		snprintf(name, sizeof(name), "deep%u", k);
		below = make(dir, name, 0040755);
		ext4_inode_put(dir);
		dir = below;
	}
	ext4_inode_put(dir);
}

static void links_and_devices(struct ext4_inode *root)
{
	static const uint32_t types[] = { 0020600, 0060600, 0010600, 0140600 };
	char target[900];
	struct ext4_inode *inode;

	memset(target, 't', sizeof(target));
	MUST(!ext4_symlink(root, "fast", 4, "deep0/deep1", 11, &cred, &inode));
	ext4_inode_put(inode);
	MUST(!ext4_symlink(root, "slow", 4, target, sizeof(target), &cred, &inode));
	ext4_inode_put(inode);
	for (unsigned k = 0; k < ARRAY_SIZE(types); k++) {
		char name[8];
		snprintf(name, sizeof(name), "dev%u", k);
		ext4_inode_put(make(root, name, types[k]));
	}
}

static void attributes(struct ext4_inode *root)
{
	struct ext4_inode *inode = make(root, "attrs", 0100644), *dir;
	char value[700];

	memset(value, 'v', sizeof(value));
	MUST(!ext4_xattr_set(inode, "user.one", "1", 1, 0, false));
	MUST(!ext4_xattr_set(inode, "user.block", value, sizeof(value), 0, false));
	MUST(!ext4_xattr_set(inode, "trusted.two", "22", 2, 0, false));
	MUST(!ext4_xattr_set(inode, "security.capability",
			     "\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20, 0, false));
	set_acl(inode, "system.posix_acl_access", 3);
	ext4_inode_put(inode);
	dir = make(root, "acldir", 0040755);
	set_acl(dir, "system.posix_acl_access", 20);
	set_acl(dir, "system.posix_acl_default", 20);
	ext4_inode_put(make(dir, "heir", 0100644));
	ext4_inode_put(dir);
}

/* Values of attributes in inodes of their own, where the file system has ea_inode. */
static void large_values(struct ext4_inode *root)
{
	static char value[9000];
	struct ext4_inode *inode = make(root, "values", 0100644);

	memset(value, 'V', sizeof(value));
	for (unsigned k = 0; k < 3; k++) {
		int err = ext4_xattr_set(inode,
					 k == 0   ? "user.large"
					 : k == 1 ? "trusted.large"
						  : "user.lesser",
					 value, sizeof(value) - k * 500, 0, false);

		MUST(!err || err == -ENOSPC);
	}
	ext4_inode_put(inode);
}

static void files(struct ext4_inode *root, unsigned bits)
{
	struct ext4_inode *inode = make(root, "frag", 0100644);
	unsigned n = bits == 10 ? 420 : 60;

	for (unsigned k = 0; k < n; k++)
		write_blocks(inode, k * 2, 1, (uint64_t)(k * 2 + 1) << bits);
	ext4_inode_put(inode);
	inode = make(root, "plain", 0100644);
	write_blocks(inode, 0, 20, (20ULL << bits) - 100);
	ext4_inode_put(inode);
	inode = make(root, "sparse", 0100644);
	write_blocks(inode, 0xfffffff0U, 2, (uint64_t)0xfffffff2U << bits);
	write_blocks(inode, 77, 3, 0);
	ext4_inode_put(inode);
	inode = make(root, "unwritten", 0100644);
	ext4_inode_lock_exclusive(inode);
	MUST(!ext4_fallocate(inode, 0, 0, 64ULL << bits, true));
	ext4_inode_unlock(inode);
	write_blocks(inode, 200, 1, 201ULL << bits);
	ext4_inode_put(inode);
}

static void populate(struct ext4_vol *vol)
{
	unsigned bits = ext4_vol_block_bits(vol);
	struct ext4_inode *root;

	MUST(!ext4_inode_get(vol, EXT4_ROOT_INO, NULL, &root));
	deep_dirs(root);
	big_dir(root, bits == 10 ? 560 : 160, 200);
	files(root, bits);
	attributes(root);
	links_and_devices(root);
	large_values(root);
	ext4_inode_put(root);
}

/* Several transactions with revocations, and two orphans for the next mount to delete. */
static void change(struct ext4_vol *vol)
{
	struct ext4_inode *root, *inode, *dir, *unnamed;
	unsigned bits = ext4_vol_block_bits(vol);

	MUST(!ext4_inode_get(vol, EXT4_ROOT_INO, NULL, &root));
	dir = make(root, "new", 0040755);
	for (unsigned k = 0; k < 6; k++) {
		char name[16];
		snprintf(name, sizeof(name), "n%u", k);
		inode = make(dir, name, 0100644);
		write_blocks(inode, 0, k + 1, (uint64_t)(k + 1) << bits);
		ext4_inode_put(inode);
		if (k & 1)
			MUST(!ext4_vol_sync(vol));
	}
	MUST(!ext4_unlink(root, "slow", 4) && !ext4_lookup(root, "frag", 4, &inode));
	ext4_inode_lock_exclusive(inode);
	MUST(!ext4_truncate(inode, 10ULL << bits));
	ext4_inode_unlock(inode);
	ext4_inode_put(inode);
	MUST(!ext4_vol_sync(vol));
	MUST(!ext4_rename(dir, "n0", 2, root, "moved", 5, 0, &cred));
	MUST(!ext4_tmpfile(root, 0100600, &cred, &unnamed));
	write_blocks(unnamed, 0, 9, 9ULL << bits);
	MUST(!ext4_lookup(dir, "n1", 2, &inode) && !ext4_unlink(dir, "n1", 2));
	MUST(!ext4_vol_sync(vol));
	/* unnamed and inode stay open, so they are orphans when the power goes */
	(void)inode;
	ext4_inode_put(dir);
	ext4_inode_put(root);
}

static struct ext4_vol *open_fake(struct fake_dev *fake)
{
	struct ext4_vol *vol = NULL;
	char err[256] = "";
	const char *why = NULL;

	if (ext4_vol_open(fake_dev(fake), &opts, &vol, &why, FDIO_REASON(err)) || why)
		fprintf(stderr, "an undamaged image cannot be opened: %s%s\n", err,
			why ? why : "");
	MUST(vol && !why);
	return vol;
}

/* Makes a base of what the device holds now. */
static bool take(struct fake_dev *fake, const char *name, const char *suffix, bool read_only)
{
	struct base *base = &bases[nr_bases];
	char full[64];

	snprintf(full, sizeof(full), "%s%s", name, suffix);
	base->name = strdup(full);
	base->size = fake_dev(fake)->caps.size_bytes;
	base->read_only = read_only;
	base->fd = memfd_create(full, MFD_CLOEXEC);
	if (!base->name || base->fd < 0 || ftruncate(base->fd, (off_t)base->size))
		return false;
	base->img = mmap(NULL, base->size, PROT_READ | PROT_WRITE, MAP_SHARED, base->fd, 0);
	if (base->img == MAP_FAILED)
		return false;
	fake_peek(fake, base->img, base->size, 0);
	nr_bases++;
	return base_scan(base);
}

/* What mke2fs -d fills the images with that the program mounts read-only. */
static const char tree[] = "mkdir -p \"$IMG.d/sub/dir\"; echo inline >\"$IMG.d/small\"; head -c "
			   "20000 /dev/zero | tr '\\0' q >\"$IMG.d/large\"; "
			   "head -c 100 /dev/zero | tr '\\0' m >\"$IMG.d/medium\"; "
			   "ln -s $(printf %080d 1) \"$IMG.d/longlink\"; mkdir \"$IMG.d/few\"; "
			   "for i in 1 2 3; do echo $i >\"$IMG.d/few/name$i\"; done; "
			   "ln -s small \"$IMG.d/link\"; for i in $(seq 60); do echo $i "
			   ">\"$IMG.d/sub/file$i\"; done; ";

static struct fake_dev *format(const struct recipe *r)
{
	struct fake_dev *fake = fake_new(r->mib << 20, 512);
	char *cmd = NULL, out[2048] = "";

	if (asprintf(&cmd,
		     "E2FSPROGS_FAKE_TIME=1600000000; export E2FSPROGS_FAKE_TIME; %s mke2fs -q -F "
		     "%s \"$IMG\" 2>&1 && { %s; }; "
		     "rc=$?; rm -rf \"$IMG.d\"; exit $rc",
		     strstr(r->mkfs, "-d ") ? tree : "", r->mkfs, r->tools ? r->tools : "true") < 0)
		return NULL;
	if (fake_run(fake, cmd, out, sizeof(out), true)) {
		fprintf(stderr, "cannot make the image %s: %s\n", r->name, out);
		fake_free(fake);
		fake = NULL;
	}
	free(cmd);
	return fake;
}

static bool base_make(const struct recipe *r)
{
	struct fake_dev *fake = format(r);
	bool ok;

	if (!fake)
		return false;
	if (r->populate) {
		struct ext4_vol *vol = open_fake(fake);
		populate(vol);
		MUST(!ext4_vol_close(vol));
		MUST(!fake_e2fsck(fake));
	}
	ok = take(fake, r->name, "", !r->populate);
	if (ok && r->populate) {
		struct ext4_vol *vol = open_fake(fake);
		change(vol);
		ext4_vol_abandon(vol);
		ok = take(fake, r->name, "-dirty", false);
	}
	fake_free(fake);
	epoch_drain();
	return ok;
}

bool bases_make(const char *only)
{
	fdio_log_set_level(FDIO_LOG_WARN);
	for (unsigned i = 0; i < ARRAY_SIZE(recipes); i++)
		if ((!only || !strncmp(only, recipes[i].name, strlen(recipes[i].name))) &&
		    !base_make(&recipes[i]))
			return false;
	return nr_bases > 0;
}
