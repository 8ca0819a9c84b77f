/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mount options sync and dirsync, and chattr +S and +D. Each operation is done under each of
 * them, with a power cut as soon as it is answered. The media must have what the option covers by
 * then, and must not have what it does not cover, for otherwise the test would prove nothing.
 */
#include "kit/daemon.h"
#include "kit/runner.h"

#include "base/log.h"
#include "ext4/ext4.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BS 4096u
#define BIG_XATTR 8000u

enum option { NONE, MOUNT_SYNC, MOUNT_DIRSYNC, FLAG_SYNC, FLAG_DIRSYNC, NR_OPTIONS };

/*
 * The tree: the directories d and d/e get the flag, p does not. d has the file f, and the names for
 * the operations.
 */
struct ctx {
	struct fake_kernel *kernel;
	uint64_t d, e, p, f; /* node ids */
	uint64_t fh;         /* f, opened before it got the flag */
};

/* The volume as a power cut has left it. */
struct look {
	struct fake_dev *cut;
	struct ext4_vol *vol;
	struct ext4_inode *root;
};

/* ---- looking ---- */

/* The inode of a path, with a reference; NULL if there is none. */
static struct ext4_inode *at(struct look *look, const char *path)
{
	struct ext4_inode *inode = ext4_inode_ref(look->root), *next;

	while (inode && *path) {
		unsigned n = (unsigned)strcspn(path, "/");
		int err = ext4_lookup(inode, path, n, &next);

		ext4_inode_put(inode);
		inode = err ? NULL : next;
		path += n + (path[n] == '/');
	}
	return inode;
}

static bool is_there(struct look *look, const char *path)
{
	struct ext4_inode *inode = at(look, path);

	ext4_inode_put(inode);
	return inode;
}

static struct ext4_attr attr(struct look *look, const char *path)
{
	struct ext4_inode *inode = at(look, path);
	struct ext4_attr attr;

	ck_assert_ptr_nonnull(inode);
	ext4_getattr(inode, &attr);
	ext4_inode_put(inode);
	return attr;
}

static bool has_xattr(struct look *look, const char *path, const char *name, size_t len)
{
	static char value[BIG_XATTR];
	struct ext4_inode *inode = at(look, path);
	size_t n = 0;
	int err;

	ck_assert_ptr_nonnull(inode);
	err = ext4_xattr_get(inode, name, value, sizeof(value), &n);
	ext4_inode_put(inode);
	for (size_t k = 0; k < n && !strncmp(name, "user.", 5); k++)
		ck_assert_int_eq(value[k], 'v');
	return !err && n == len;
}

/* True if all bytes of the block of f are this one. */
static bool block_is(struct look *look, uint32_t lblk, uint8_t byte)
{
	struct ext4_inode *inode = at(look, "d/f");
	static uint8_t b[BS];
	struct ext4_extent extent;
	bool ok;

	ck_assert_ptr_nonnull(inode);
	ck_assert_int_eq(ext4_map_load(inode), 0);
	ok = (uint64_t)(lblk + 1) * BS <= ext4_inode_size(inode) &&
	     !ext4_map_lookup(inode, lblk, &extent) && extent.state == EXT4_EXTENT_WRITTEN;
	if (ok)
		fake_peek(look->cut, b, BS, extent.pblk * BS);
	for (unsigned k = 0; k < BS && ok; k++)
		ok = b[k] == byte;
	ext4_inode_put(inode);
	return ok;
}

/* ---- changing ---- */

static uint64_t node(struct ctx *ctx, uint64_t dir, const char *name)
{
	struct fuse_entry_out entry;

	ck_assert_int_eq(kernel_lookup(ctx->kernel, dir, name, &entry), 0);
	return entry.nodeid;
}

static void make(struct ctx *ctx, uint64_t dir, const char *name, uint32_t flags)
{
	struct fuse_entry_out entry;
	uint64_t fh;

	ck_assert_int_eq(kernel_create(ctx->kernel, dir, name, flags, 0644, &entry, &fh), 0);
	ck_assert_int_eq(kernel_release(ctx->kernel, entry.nodeid, fh), 0);
}

static void make_dir(struct ctx *ctx, uint64_t dir, const char *name)
{
	struct fuse_entry_out entry;

	ck_assert_int_eq(kernel_mkdir(ctx->kernel, dir, name, 0755, &entry), 0);
}

static void move(struct ctx *ctx, uint64_t from, const char *name, uint64_t to, const char *name2,
		 uint32_t flags)
{
	ck_assert_int_eq(kernel_rename(ctx->kernel, from, name, to, name2, flags), 0);
}

static void put(struct ctx *ctx, uint32_t lblk, uint8_t byte, uint32_t flags)
{
	static uint8_t b[BS];

	memset(b, byte, BS);
	ck_assert_int_eq(kernel_write(ctx->kernel, ctx->f, ctx->fh, (uint64_t)lblk * BS, b, BS,
				      O_RDWR | flags),
			 (int)BS);
}

static void set_attr(struct ctx *ctx, uint64_t n, struct fuse_setattr_in in)
{
	ck_assert_int_eq(kernel_setattr(ctx->kernel, n, &in, NULL), 0);
}

static void set_xattr(struct ctx *ctx, uint64_t n, const char *name, const void *value,
		      uint32_t len)
{
	static char tail[BIG_XATTR + 64];
	struct fuse_setxattr_in in = { .size = len };
	size_t m = strlen(name) + 1;

	memcpy(tail, name, m);
	if (value)
		memcpy(tail + m, value, len);
	else
		memset(tail + m, 'v', len);
	ck_assert_int_eq(kernel_call(ctx->kernel, FUSE_SETXATTR, n, &in, sizeof(in), tail, m + len,
				     NULL),
			 0);
}

static void set_flags(struct ctx *ctx, uint64_t n, uint32_t flags)
{
	struct fuse_ioctl_in in = { .cmd = (uint32_t)FS_IOC_SETFLAGS, .in_size = sizeof(flags) };

	flags |= FS_EXTENT_FL;
	ck_assert_int_eq(kernel_call(ctx->kernel, FUSE_IOCTL, n, &in, sizeof(in), &flags,
				     sizeof(flags), NULL),
			 0);
}

static uint32_t get_flags(struct ctx *ctx, uint64_t n)
{
	struct fuse_ioctl_in in = { .cmd = (uint32_t)FS_IOC_GETFLAGS, .out_size = 4 };
	const struct kernel_answer *answer;
	uint32_t flags;

	ck_assert_int_eq(kernel_call(ctx->kernel, FUSE_IOCTL, n, &in, sizeof(in), NULL, 0, &answer),
			 0);
	memcpy(&flags, answer->data + sizeof(struct fuse_ioctl_out), 4);
	return flags;
}

static void fallocate_(struct ctx *ctx, uint64_t off, uint64_t len, uint32_t mode)
{
	struct fuse_fallocate_in in = { .fh = ctx->fh, .offset = off, .length = len, .mode = mode };

	ck_assert_int_eq(kernel_call(ctx->kernel, FUSE_FALLOCATE, ctx->f, &in, sizeof(in), NULL, 0,
				     NULL),
			 0);
}

/* ---- the operations: what is done, and whether it can be seen ---- */

static void do_create(struct ctx *ctx) { make(ctx, ctx->d, "new", O_RDWR); }
static bool see_create(struct look *look) { return is_there(look, "d/new"); }

static void do_mknod(struct ctx *ctx)
{
	struct fuse_mknod_in in = { .mode = S_IFIFO | 0644 };

	ck_assert_int_eq(kernel_call(ctx->kernel, FUSE_MKNOD, ctx->d, &in, sizeof(in), "fifo", 5,
				     NULL),
			 0);
}
static bool see_mknod(struct look *look) { return is_there(look, "d/fifo"); }

static void do_mkdir(struct ctx *ctx) { make_dir(ctx, ctx->d, "sub"); }
static bool see_mkdir(struct look *look) { return is_there(look, "d/sub"); }

static void do_symlink(struct ctx *ctx)
{
	static const char text[] = "link\0target";

	ck_assert_int_eq(kernel_call(ctx->kernel, FUSE_SYMLINK, ctx->d, NULL, 0, text, sizeof(text),
				     NULL),
			 0);
}
static bool see_symlink(struct look *look) { return is_there(look, "d/link"); }

static void do_long_symlink(struct ctx *ctx)
{
	char text[1000];

	memset(text, 't', sizeof(text));
	memcpy(text, "long", 5);
	text[sizeof(text) - 1] = '\0';
	ck_assert_int_eq(kernel_call(ctx->kernel, FUSE_SYMLINK, ctx->d, NULL, 0, text, sizeof(text),
				     NULL),
			 0);
}

static bool see_long_symlink(struct look *look)
{
	struct ext4_inode *inode = at(look, "d/long");
	char text[1000] = "";
	unsigned len = 0;

	if (!inode)
		return false;
	ck_assert_int_eq(ext4_readlink(inode, text, sizeof(text), &len), 0);
	ck_assert_uint_eq(len, sizeof(text) - 6);
	ck_assert_int_eq(text[0], 't');
	ext4_inode_put(inode);
	return true;
}

static void do_link(struct ctx *ctx)
{
	struct fuse_link_in in = { .oldnodeid = ctx->f };

	ck_assert_int_eq(kernel_call(ctx->kernel, FUSE_LINK, ctx->d, &in, sizeof(in), "f2", 3,
				     NULL),
			 0);
}
static bool see_link(struct look *look)
{
	return is_there(look, "d/f2") && attr(look, "d/f").nlink == 2;
}

static void do_unlink(struct ctx *ctx)
{
	ck_assert_int_eq(kernel_unlink(ctx->kernel, ctx->d, "u"), 0);
}
static bool see_unlink(struct look *look) { return !is_there(look, "d/u"); }

static void do_rmdir(struct ctx *ctx)
{
	ck_assert_int_eq(kernel_rmdir(ctx->kernel, ctx->d, "r"), 0);
}
static bool see_rmdir(struct look *look) { return !is_there(look, "d/r"); }

static void do_rename(struct ctx *ctx) { move(ctx, ctx->d, "a1", ctx->d, "b1", 0); }
static bool see_rename(struct look *look)
{
	return !is_there(look, "d/a1") && is_there(look, "d/b1");
}

static void do_rename_over(struct ctx *ctx) { move(ctx, ctx->d, "a2", ctx->d, "u2", 0); }
static bool see_rename_over(struct look *look)
{
	return !is_there(look, "d/a2") && is_there(look, "d/u2");
}

static void do_rename_out(struct ctx *ctx) { move(ctx, ctx->d, "a3", ctx->p, "b3", 0); }
static bool see_rename_out(struct look *look)
{
	return !is_there(look, "d/a3") && is_there(look, "p/b3");
}

static void do_rename_in(struct ctx *ctx) { move(ctx, ctx->p, "a4", ctx->d, "b4", 0); }
static bool see_rename_in(struct look *look)
{
	return !is_there(look, "p/a4") && is_there(look, "d/b4");
}

static void do_exchange(struct ctx *ctx) { move(ctx, ctx->p, "x", ctx->d, "x", RENAME_EXCHANGE); }
static bool see_exchange(struct look *look)
{
	return S_ISDIR(attr(look, "d/x").mode) && S_ISREG(attr(look, "p/x").mode);
}

static void do_chmod(struct ctx *ctx)
{
	set_attr(ctx, ctx->f,
		 (struct fuse_setattr_in){ .valid = FATTR_MODE, .mode = S_IFREG | 0600 });
}
static bool see_chmod(struct look *look) { return (attr(look, "d/f").mode & 07777) == 0600; }

static void do_chmod_dir(struct ctx *ctx)
{
	set_attr(ctx, ctx->e,
		 (struct fuse_setattr_in){ .valid = FATTR_MODE, .mode = S_IFDIR | 0700 });
}
static bool see_chmod_dir(struct look *look) { return (attr(look, "d/e").mode & 07777) == 0700; }

static void do_chown(struct ctx *ctx)
{
	set_attr(ctx, ctx->f,
		 (struct fuse_setattr_in){ .valid = FATTR_UID | FATTR_GID, .uid = 7, .gid = 8 });
}
static bool see_chown(struct look *look) { return attr(look, "d/f").uid == 7; }

static void do_utimes(struct ctx *ctx)
{
	set_attr(ctx, ctx->f, (struct fuse_setattr_in){ .valid = FATTR_MTIME, .mtime = 1234567 });
}
static bool see_utimes(struct look *look) { return attr(look, "d/f").mtime.tv_sec == 1234567; }

static void do_overwrite(struct ctx *ctx) { put(ctx, 0, 'o', 0); }
static bool see_overwrite(struct look *look) { return block_is(look, 0, 'o'); }

static void do_direct(struct ctx *ctx) { put(ctx, 1, 'd', O_DIRECT); }
static bool see_direct(struct look *look) { return block_is(look, 1, 'd'); }

static void do_append(struct ctx *ctx) { put(ctx, 4, 'a', 0); }
static bool see_append(struct look *look) { return block_is(look, 4, 'a'); }

static void do_hole(struct ctx *ctx) { put(ctx, 8, 'h', O_DIRECT); }
static bool see_hole(struct look *look) { return block_is(look, 8, 'h'); }

static void do_grow(struct ctx *ctx)
{
	set_attr(ctx, ctx->f, (struct fuse_setattr_in){ .valid = FATTR_SIZE, .size = 20 * BS });
}
static bool see_grow(struct look *look) { return attr(look, "d/f").size == 20 * BS; }

static void do_allocate(struct ctx *ctx) { fallocate_(ctx, 0, 24 * BS, 0); }
static bool see_allocate(struct look *look) { return attr(look, "d/f").size == 24 * BS; }

static void do_punch(struct ctx *ctx) { fallocate_(ctx, 0, BS, 3); }
static bool see_punch(struct look *look)
{
	return !block_is(look, 0, 1) && !block_is(look, 0, 'o');
}

static void do_shrink(struct ctx *ctx)
{
	set_attr(ctx, ctx->f, (struct fuse_setattr_in){ .valid = FATTR_SIZE, .size = 2 * BS });
}
static bool see_shrink(struct look *look) { return attr(look, "d/f").size == 2 * BS; }

static void do_open_trunc(struct ctx *ctx)
{
	struct fuse_open_out o;
	uint64_t n = node(ctx, ctx->d, "t1");

	ck_assert_int_eq(kernel_open(ctx->kernel, n, O_RDWR | O_TRUNC, &o), 0);
	ck_assert_int_eq(kernel_release(ctx->kernel, n, o.fh), 0);
}
static bool see_open_trunc(struct look *look) { return attr(look, "d/t1").size == 0; }

static void do_creat(struct ctx *ctx) { make(ctx, ctx->d, "t2", O_RDWR | O_TRUNC); }
static bool see_creat(struct look *look) { return attr(look, "d/t2").size == 0; }

static void do_xattr(struct ctx *ctx) { set_xattr(ctx, ctx->f, "user.a", NULL, 20); }
static bool see_xattr(struct look *look) { return has_xattr(look, "d/f", "user.a", 20); }

static void do_block_xattr(struct ctx *ctx) { set_xattr(ctx, ctx->f, "user.b", NULL, 1000); }
static bool see_block_xattr(struct look *look) { return has_xattr(look, "d/f", "user.b", 1000); }

static void do_big_xattr(struct ctx *ctx) { set_xattr(ctx, ctx->f, "user.c", NULL, BIG_XATTR); }
static bool see_big_xattr(struct look *look) { return has_xattr(look, "d/f", "user.c", BIG_XATTR); }

static void do_xattr_dir(struct ctx *ctx) { set_xattr(ctx, ctx->e, "user.a", NULL, 20); }
static bool see_xattr_dir(struct look *look) { return has_xattr(look, "d/e", "user.a", 20); }

static void do_remove_xattr(struct ctx *ctx)
{
	ck_assert_int_eq(kernel_call(ctx->kernel, FUSE_REMOVEXATTR, ctx->f, NULL, 0, "user.old", 9,
				     NULL),
			 0);
}
static bool see_remove_xattr(struct look *look) { return !has_xattr(look, "d/f", "user.old", 20); }

static void do_acl(struct ctx *ctx)
{
	/* version 2; user::rw-, user:5:r--, group::r--, mask::r--, other::--- */
	static const uint8_t acl[] = { 2,   0,   0,   0,   1,   0,   6,  0,   255, 255, 255,
				       255, 2,   0,   4,   0,   5,   0,  0,   0,   4,   0,
				       4,   0,   255, 255, 255, 255, 16, 0,   4,   0,   255,
				       255, 255, 255, 32,  0,   0,   0,  255, 255, 255, 255 };

	set_xattr(ctx, ctx->f, "system.posix_acl_access", acl, sizeof(acl));
}
static bool see_acl(struct look *look)
{
	return has_xattr(look, "d/f", "system.posix_acl_access", 44);
}

static void do_flags(struct ctx *ctx)
{
	set_flags(ctx, ctx->f, get_flags(ctx, ctx->f) | FS_NODUMP_FL);
}
static bool see_flags(struct look *look) { return attr(look, "d/f").flags & FS_NODUMP_FL; }

static void do_xflags(struct ctx *ctx)
{
	struct fuse_ioctl_in in = { .cmd = (uint32_t)FS_IOC_FSSETXATTR,
				    .in_size = sizeof(struct fsxattr) };
	struct fsxattr x = { .fsx_xflags = FS_XFLAG_NOATIME |
					   (get_flags(ctx, ctx->f) & FS_SYNC_FL ? FS_XFLAG_SYNC
										: 0) };

	ck_assert_int_eq(kernel_call(ctx->kernel, FUSE_IOCTL, ctx->f, &in, sizeof(in), &x,
				     sizeof(x), NULL),
			 0);
}
static bool see_xflags(struct look *look) { return attr(look, "d/f").flags & FS_NOATIME_FL; }

enum { NAMES = 1, CONTENT = 2 };
#define OP(covered, name) { #name, covered, do_##name, see_##name }
static const struct op {
	const char *name;
	int what;
	void (*run)(struct ctx *c);
	bool (*seen)(struct look *l);
} ops[] = {
	OP(NAMES, create),      OP(NAMES, mknod),          OP(NAMES, mkdir),
	OP(NAMES, symlink),     OP(NAMES, long_symlink),   OP(NAMES, link),
	OP(NAMES, unlink),      OP(NAMES, rmdir),          OP(NAMES, rename),
	OP(NAMES, rename_over), OP(NAMES, rename_out),     OP(NAMES, rename_in),
	OP(NAMES, exchange),    OP(CONTENT, chmod),        OP(CONTENT, chmod_dir),
	OP(CONTENT, chown),     OP(CONTENT, utimes),       OP(CONTENT, overwrite),
	OP(CONTENT, direct),    OP(CONTENT, append),       OP(CONTENT, hole),
	OP(CONTENT, grow),      OP(CONTENT, allocate),     OP(CONTENT, punch),
	OP(CONTENT, shrink),    OP(CONTENT, open_trunc),   OP(CONTENT, creat),
	OP(CONTENT, xattr),     OP(CONTENT, block_xattr),  OP(CONTENT, big_xattr),
	OP(CONTENT, xattr_dir), OP(CONTENT, remove_xattr), OP(CONTENT, acl),
	OP(CONTENT, flags),     OP(CONTENT, xflags),
};

/* ---- running ---- */

static void fill(struct ctx *ctx, const char *name)
{
	struct fuse_entry_out entry;
	static uint8_t b[4 * BS];
	uint64_t fh;

	memset(b, 1, sizeof(b));
	ck_assert_int_eq(kernel_create(ctx->kernel, ctx->d, name, O_RDWR, 0644, &entry, &fh), 0);
	ck_assert_int_eq(kernel_write(ctx->kernel, entry.nodeid, fh, 0, b, sizeof(b), O_RDWR),
			 (int)sizeof(b));
	if (strcmp(name, "f")) {
		ck_assert_int_eq(kernel_release(ctx->kernel, entry.nodeid, fh), 0);
		return;
	}
	ctx->f = entry.nodeid;
	ctx->fh = fh;
}

static void prepare(struct ctx *ctx, enum option o)
{
	static const char *const files[] = { "u", "u2", "a1", "a2", "a3", "x" };
	struct fuse_syncfs_in in = { 0 };
	uint32_t flag = o == FLAG_SYNC ? FS_SYNC_FL : FS_DIRSYNC_FL;

	make_dir(ctx, FUSE_ROOT_ID, "d");
	make_dir(ctx, FUSE_ROOT_ID, "p");
	ctx->d = node(ctx, FUSE_ROOT_ID, "d");
	ctx->p = node(ctx, FUSE_ROOT_ID, "p");
	make_dir(ctx, ctx->d, "e");
	make_dir(ctx, ctx->d, "r");
	make_dir(ctx, ctx->p, "x");
	ctx->e = node(ctx, ctx->d, "e");
	for (unsigned n = 0; n < ARRAY_SIZE(files); n++)
		make(ctx, ctx->d, files[n], O_RDWR);
	make(ctx, ctx->p, "a4", O_RDWR);
	fill(ctx, "f");
	fill(ctx, "t1");
	fill(ctx, "t2");
	set_xattr(ctx, ctx->f, "user.old", NULL, 20);
	if (o == FLAG_SYNC || o == FLAG_DIRSYNC) {
		set_flags(ctx, ctx->d, flag);
		set_flags(ctx, ctx->e, flag);
	}
	if (o == FLAG_SYNC) {
		set_flags(ctx, ctx->f, flag);
		set_flags(ctx, node(ctx, ctx->d, "t1"), flag);
		set_flags(ctx, node(ctx, ctx->d, "t2"), flag);
	}
	ck_assert_int_eq(kernel_call(ctx->kernel, FUSE_SYNCFS, FUSE_ROOT_ID, &in, sizeof(in), NULL,
				     0, NULL),
			 0);
}

/* True if the effect of the operation is on the media, after recovery. */
static bool survives(struct fake_kernel *kernel, const struct op *op)
{
	static const struct ext4_options options = { .acl = true,
						     .user_xattr = true,
						     .commit_interval_s = 3600 };
	struct look look = { .cut = fake_power_cut(kernel_dev(kernel), FAKE_CUT_DROP, 1) };
	char err[256] = "";
	bool seen;

	ck_assert_msg(!ext4_vol_open(fake_dev(look.cut), &options, &look.vol, NULL,
				     FDIO_REASON(err)),
		      "%s", err);
	ck_assert_int_eq(ext4_inode_get(look.vol, EXT4_ROOT_INO, NULL, &look.root), 0);
	seen = op->seen(&look);
	ext4_inode_put(look.root);
	ext4_vol_abandon(look.vol);
	fake_free(look.cut);
	return seen;
}

static const char *const option_names[NR_OPTIONS] = { "no option", "sync", "dirsync", "chattr +S",
						      "chattr +D" };

START_TEST(durable_at_return)
{
	enum option o = (enum option)_i;
	struct kernel_options options = { .parallel_dio = true,
					  .sync = o == MOUNT_SYNC,
					  .dirsync = o == MOUNT_DIRSYNC };
	struct ctx ctx = { .kernel = kernel_new(testvol_copy(), &options) };
	int covered = o == NONE ? 0 : o == MOUNT_SYNC || o == FLAG_SYNC ? NAMES | CONTENT : NAMES;

	prepare(&ctx, o);
	for (unsigned n = 0; n < ARRAY_SIZE(ops); n++) {
		ops[n].run(&ctx);
		ck_assert_msg(survives(ctx.kernel, &ops[n]) == !!(ops[n].what & covered),
			      "%s, %s: %s", option_names[o], ops[n].name,
			      ops[n].what & covered ? "lost by a power cut"
						    : "on the media although no option covers it");
	}
	kernel_close(ctx.kernel);
}
END_TEST

/* chattr +S is the first synchronous change itself, and chattr -S is the last. */
START_TEST(the_flag_itself)
{
	struct ctx ctx = { .kernel = kernel_new(testvol_copy(), NULL) };
	static const struct op has = { .seen = see_flags };

	prepare(&ctx, NONE);
	set_flags(&ctx, ctx.f, FS_SYNC_FL | FS_NODUMP_FL);
	ck_assert(survives(ctx.kernel, &has));
	set_flags(&ctx, ctx.f, 0);
	ck_assert(!survives(ctx.kernel, &has));
	put(&ctx, 0, 'o', 0);
	/* Without the flag, changes are not synchronous any more. */
	ck_assert(!survives(ctx.kernel, &(struct op){ .seen = see_overwrite }));
	kernel_close(ctx.kernel);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ops: sync options");
	TCase *t = unit_case(s, "sync options", 60);

	unit_needs_io_uring();
	fdio_log_set_level(FDIO_LOG_ERR);
	testvol_use_template(t, 16u << 20, "-t ext4 -b 4096 -J size=4 -O ea_inode", NULL);
	unit_loop(t, durable_at_return, 0, NR_OPTIONS, PROVES("SYNC-6"));
	unit_test(t, the_flag_itself, PROVES("SYNC-6"));
	return s;
}
