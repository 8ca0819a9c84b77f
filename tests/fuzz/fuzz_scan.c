/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finds every structure of an image, and the copies of them in the log, with libext2fs. Done once for each image before anything
 * is damaged, so it trusts what it reads.
 */
#include "fuzz/fuzz.h"

#include "base/crc32c.h"
#include "journal/format.h"

#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>
#include <stdlib.h>
#include <unistd.h>

const char *const kind_names[K_NR] = {
	"sb", "gd", "bbm", "ibm", "inode", "extent", "indirect", "dir", "dxroot", "dxnode", "xattr", "symlink", "orphan", "jsb", "jdesc",
	"jrevoke", "jcommit",
};

static void add(struct base *b, enum kind kind, uint64_t off, uint32_t len, uint32_t ino, int tag, uint64_t home)
{
	if (b->nr == b->cap) {
		b->cap = b->cap ? 2 * b->cap : 256;
		b->t = reallocarray(b->t, b->cap, sizeof(*b->t));
		MUST(b->t);
	}
	b->t[b->nr++] = (struct target){ .kind = kind, .off = off, .len = len, .ino = ino, .home = home, .tag = tag };
}

static void add_block(struct base *b, enum kind kind, uint64_t blk, uint32_t ino)
{
	if (blk && blk < b->nr_blocks)
		add(b, kind, blk * b->bs, b->bs, ino, -1, blk);
}

/* ---- the inodes' blocks ---- */
struct visit { struct base *b; uint32_t ino; bool dir, dx, link, orphan; };

static enum kind dir_kind(struct base *b, const struct visit *w, uint64_t blk, int64_t lblk)
{
	const uint8_t *p = b->img + blk * b->bs;
	uint16_t rec_len;

	memcpy(&rec_len, p + 4, 2);
	if (w->dx && lblk == 0)
		return K_DXROOT;
	/* An inner node of a hash tree begins with an empty entry that fills the block. */
	if (w->dx && p[0] == 0 && p[1] == 0 && p[2] == 0 && p[3] == 0 && rec_len == b->bs && p[6] == 0)
		return K_DXNODE;
	return K_DIR;
}

static int each_block(ext2_filsys fs, blk64_t *blk, e2_blkcnt_t lblk, blk64_t ref, int ref_off, void *arg)
{
	struct visit *w = arg;

	(void)fs;
	(void)ref;
	(void)ref_off;
	if (*blk >= w->b->nr_blocks)
		return 0;
	if (lblk < 0) {
		const uint8_t *p = w->b->img + *blk * w->b->bs;
		add_block(w->b, p[0] == 0x0a && p[1] == 0xf3 ? K_EXTENT : K_INDIRECT, *blk, w->ino);
	} else if (w->dir) {
		add_block(w->b, dir_kind(w->b, w, *blk, lblk), *blk, w->ino);
	} else if (w->link) {
		add_block(w->b, K_SYMLINK, *blk, w->ino);
	} else if (w->orphan) {
		add_block(w->b, K_ORPHAN, *blk, w->ino);
	}
	return 0;
}

static void scan_inode(struct base *b, ext2_filsys fs, uint32_t ino, const struct ext2_inode *raw)
{
	struct visit w = { .b = b, .ino = ino, .dir = LINUX_S_ISDIR(raw->i_mode), .dx = raw->i_flags & EXT2_INDEX_FL,
		.link = LINUX_S_ISLNK(raw->i_mode), .orphan = ino == b->orphan_ino && ino };
	uint32_t g = (ino - 1) / b->ipg, at = (ino - 1) % b->ipg;
	uint64_t off = ext2fs_inode_table_loc(fs, g) * b->bs + (uint64_t)at * b->inode_size;

	add(b, K_INODE, off, b->inode_size, ino, -1, off / b->bs);
	if (ext2fs_file_acl_block(fs, raw))
		add_block(b, K_XATTR, ext2fs_file_acl_block(fs, raw), ino);
	if (ext2fs_inode_has_valid_blocks2(fs, (struct ext2_inode *)raw) && !(raw->i_flags & EXT4_INLINE_DATA_FL) && ino != b->journal_ino)
		(void)ext2fs_block_iterate3(fs, ino, BLOCK_FLAG_READ_ONLY, NULL, each_block, &w);
}

static void scan_inodes(struct base *b, ext2_filsys fs)
{
	static const uint32_t also[] = { 7 }; /* the resize inode: with blocks of its own kind */

	b->inos = calloc(b->nr_inodes, sizeof(*b->inos));
	MUST(b->inos);
	for (uint32_t ino = 1; ino <= b->nr_inodes; ino++) {
		struct ext2_inode raw;
		bool wanted = ino == 2 || ino == 8 || ino == also[0] || ino >= EXT2_FIRST_INO(fs->super);

		if (!wanted || !ext2fs_test_inode_bitmap2(fs->inode_map, ino) || ext2fs_read_inode(fs, ino, &raw) || !raw.i_mode)
			continue;
		b->inos[b->nr_inos++] = ino;
		scan_inode(b, fs, ino, &raw);
	}
}

/* ---- the log ---- */
struct logmap { uint64_t *blk; unsigned nr, cap; };

static int log_block(ext2_filsys fs, blk64_t *blk, e2_blkcnt_t lblk, blk64_t ref, int ref_off, void *arg)
{
	struct logmap *m = arg;

	(void)fs;
	(void)ref;
	(void)ref_off;
	if (lblk < 0 || lblk >= m->cap)
		return 0;
	m->blk[lblk] = *blk;
	m->nr = FDIO_MAX(m->nr, (unsigned)lblk + 1);
	return 0;
}

/* Structures of the home block are structures of its copy in the log as well. */
static void add_copies(struct base *b, uint64_t home, uint64_t image, int tag, unsigned nr_home)
{
	for (unsigned i = 0; i < nr_home; i++) {
		struct target t = b->t[i];

		if (t.off / b->bs == home && t.tag < 0)
			add(b, t.kind, image * b->bs + t.off % b->bs, t.len, t.ino, tag, home);
	}
}

static unsigned scan_tags(struct base *b, const struct logmap *m, unsigned at, uint32_t incompat, unsigned nr_home)
{
	const uint8_t *p = b->img + m->blk[at] * b->bs;
	uint32_t off = JF_H_BYTES, end = b->bs - (jf_has_csum(incompat) ? JF_TAIL_BYTES : 0), flags = 0;
	unsigned n = at;

	while (!(flags & JF_TAG_LAST) && off + jf_tag_bytes(incompat) <= end && n + 1 < m->nr) {
		uint64_t home = fdio_get_be32(p, off);

		flags = incompat & JF_INCOMPAT_CSUM_V3 ? fdio_get_be32(p, off + 4) : fdio_get_be16(p, off + 6);
		n++;
		b->tags = reallocarray(b->tags, b->nr_tags + 1, sizeof(*b->tags));
		MUST(b->tags);
		b->tags[b->nr_tags] = (struct log_tag){ .desc_off = m->blk[at] * b->bs, .image_off = m->blk[n] * b->bs, .tag_off = off,
			.tid = fdio_get_be32(p, JF_H_TID) };
		add_copies(b, home, m->blk[n], (int)b->nr_tags++, nr_home);
		off += jf_tag_bytes(incompat) + (flags & JF_TAG_SAME_UUID ? 0 : JF_UUID_BYTES);
	}
	return n;
}

static void scan_log(struct base *b, ext2_filsys fs)
{
	struct logmap m = { .cap = 1U << 16 };
	unsigned nr_home = b->nr;

	m.blk = calloc(m.cap, sizeof(*m.blk));
	MUST(m.blk);
	if (ext2fs_block_iterate3(fs, b->journal_ino, BLOCK_FLAG_READ_ONLY, NULL, log_block, &m) || !m.nr)
		goto out;
	const uint8_t *jsb = b->img + m.blk[0] * b->bs;
	uint32_t incompat = fdio_get_be32(jsb, JF_SB_INCOMPAT);
	b->jseed = fdio_crc32c(~0U, jsb + JF_SB_UUID, 16);
	add(b, K_JSB, m.blk[0] * b->bs, JF_SB_BYTES, 0, -1, m.blk[0]);
	/* Only what is live: stale blocks of earlier rounds are never read. */
	if (!fdio_get_be32(jsb, JF_SB_START))
		goto out;
	for (unsigned n = fdio_get_be32(jsb, JF_SB_START); n < m.nr; n++) {
		const uint8_t *p = b->img + m.blk[n] * b->bs;

		if (fdio_get_be32(p, JF_H_MAGIC) != JF_MAGIC)
			break;
		switch (fdio_get_be32(p, JF_H_TYPE)) {
		case JF_DESCRIPTOR:
			add(b, K_JDESC, m.blk[n] * b->bs, b->bs, n, -1, m.blk[n]);
			n = scan_tags(b, &m, n, incompat, nr_home);
			break;
		case JF_REVOKE: add(b, K_JREVOKE, m.blk[n] * b->bs, b->bs, n, -1, m.blk[n]); break;
		case JF_COMMIT: add(b, K_JCOMMIT, m.blk[n] * b->bs, b->bs, n, -1, m.blk[n]); break;
		default: break;
		}
	}
out:
	free(m.blk);
}

/* ---- all ---- */
static void scan_groups(struct base *b, ext2_filsys fs)
{
	unsigned per = b->bs / b->desc_size;

	b->gd_off = calloc(b->nr_groups, sizeof(*b->gd_off));
	MUST(b->gd_off);
	for (uint32_t g = 0; g < b->nr_groups; g++) {
		uint64_t blk = ext2fs_descriptor_block_loc2(fs, fs->super->s_first_data_block, g / per);

		b->gd_off[g] = blk * b->bs + (g % per) * b->desc_size;
		add(b, K_GD, b->gd_off[g], b->desc_size, g, -1, blk);
		add_block(b, K_BBM, ext2fs_block_bitmap_loc(fs, g), g);
		add_block(b, K_IBM, ext2fs_inode_bitmap_loc(fs, g), g);
	}
}

static int by_kind(const void *x, const void *y)
{
	const struct target *a = x, *b = y;

	if (a->kind != b->kind)
		return a->kind < b->kind ? -1 : 1;
	if ((a->tag < 0) != (b->tag < 0))
		return a->tag < 0 ? -1 : 1;
	return a->off < b->off ? -1 : a->off > b->off;
}

static void scan(struct base *b, ext2_filsys fs)
{
	b->bs = fs->blocksize;
	b->inode_size = EXT2_INODE_SIZE(fs->super);
	b->desc_size = EXT2_DESC_SIZE(fs->super);
	b->nr_groups = fs->group_desc_count;
	b->bpg = fs->super->s_clusters_per_group;
	b->ipg = fs->super->s_inodes_per_group;
	b->nr_inodes = fs->super->s_inodes_count;
	b->nr_blocks = ext2fs_blocks_count(fs->super);
	b->journal_ino = fs->super->s_journal_inum;
	b->orphan_ino = ext2fs_has_feature_orphan_file(fs->super) ? fs->super->s_orphan_file_inum : 0;
	b->csum = ext2fs_has_feature_metadata_csum(fs->super);
	b->gdt_csum = !b->csum && ext2fs_has_feature_gdt_csum(fs->super);
	b->seed = fs->csum_seed;
	memcpy(b->uuid, fs->super->s_uuid, 16);
	add(b, K_SB, 1024, 1024, 0, -1, 1024 / b->bs);
	scan_groups(b, fs);
	scan_inodes(b, fs);
	if (b->journal_ino)
		scan_log(b, fs);
	qsort(b->t, b->nr, sizeof(*b->t), by_kind);
	for (unsigned i = b->nr; i > 0; i--)
		b->first[b->t[i - 1].kind] = i - 1;
	b->first[K_NR] = b->nr;
	for (unsigned k = K_NR; k > 0; k--)
		if (b->first[k - 1] == 0 && (b->nr == 0 || b->t[0].kind != (enum kind)(k - 1)))
			b->first[k - 1] = b->first[k];
}

static bool with_lib(struct base *b, bool (*fn)(struct base *b, ext2_filsys fs, void *arg), void *arg)
{
	const char *dir = getenv("TMPDIR");
	char path[256];
	ext2_filsys fs = NULL;
	bool ok = false;
	int fd;

	snprintf(path, sizeof(path), "%s/fusedio-fuzz-XXXXXX", dir && *dir ? dir : "/tmp");
	fd = mkstemp(path);
	if (fd < 0)
		return false;
	if (write(fd, b->img, b->size) == (ssize_t)b->size && !ext2fs_open2(path, NULL, EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &fs) &&
	    !ext2fs_read_inode_bitmap(fs))
		ok = fn(b, fs, arg);
	if (fs)
		ext2fs_free(fs);
	close(fd);
	unlink(path);
	return ok;
}

static bool do_scan(struct base *b, ext2_filsys fs, void *arg)
{
	(void)arg;
	scan(b, fs);
	return true;
}

bool base_scan(struct base *b)
{
	if (with_lib(b, do_scan, NULL))
		return true;
	fprintf(stderr, "the image %s cannot be read\n", b->name);
	return false;
}

struct name { const char *path; uint32_t ino; };

static bool do_namei(struct base *b, ext2_filsys fs, void *arg)
{
	struct name *n = arg;

	(void)b;
	return !ext2fs_namei(fs, 2, 2, n->path, &n->ino);
}

uint32_t base_path_ino(struct base *b, const char *path)
{
	struct name n = { .path = path };

	return with_lib(b, do_namei, &n) ? n.ino : 0;
}
