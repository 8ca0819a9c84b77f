/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finds every structure of an image, and the copies of them in the log, with libext2fs. This is
 * done once for each image, before anything is damaged, so it trusts what it reads.
 */
#include "fuzz/fuzz.h"

#include "base/bytes.h"
#include "base/crc32c.h"
#include "journal/format.h"

#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>
#include <stdlib.h>
#include <unistd.h>

const char *const kind_names[NR_KINDS] = {
	"sb",     "gd",    "bbm",     "ibm",    "inode", "extent", "indirect", "dir",     "dxroot",
	"dxnode", "xattr", "symlink", "orphan", "jsb",   "jdesc",  "jrevoke",  "jcommit",
};

/* Adds a target; the arguments are fields of struct target. */
static void add(struct base *base, enum kind kind, uint64_t off, uint32_t len, uint32_t ino,
		int tag, uint64_t home)
{
	if (base->nr == base->cap) {
		base->cap = base->cap ? 2 * base->cap : 256;
		base->target = reallocarray(base->target, base->cap, sizeof(*base->target));
		MUST(base->target);
	}
	base->target[base->nr++] = (struct target){
		.kind = kind, .off = off, .len = len, .ino = ino, .home = home, .tag = tag
	};
}

static void add_block(struct base *base, enum kind kind, uint64_t blk, uint32_t ino)
{
	if (blk && blk < base->nr_blocks)
		add(base, kind, blk * base->block_size, base->block_size, ino, -1, blk);
}

/* ---- the blocks of inodes ---- */
/* indexed: a directory with a hash tree; orphan: the orphan file. */
struct visit { struct base *base; uint32_t ino; bool dir, indexed, link, orphan; };

static enum kind dir_kind(struct base *base, const struct visit *visit, uint64_t blk, int64_t lblk)
{
	const uint8_t *p = base->img + blk * base->block_size;

	if (visit->indexed && lblk == 0)
		return KIND_INDEX_ROOT;
	/* An inner node of a hash tree begins with an unused entry that fills the block. */
	if (visit->indexed && fdio_get_le32(p, 0) == 0 &&
	    fdio_get_le16(p, 4) == base->block_size && p[6] == 0)
		return KIND_INDEX_NODE;
	return KIND_DIR_BLOCK;
}

static int each_block(ext2_filsys fs, blk64_t *blk, e2_blkcnt_t lblk, blk64_t ref, int ref_off,
		      void *arg)
{
	struct visit *visit = arg;

	(void)fs;
	(void)ref;
	(void)ref_off;
	if (*blk >= visit->base->nr_blocks)
		return 0;
	if (lblk < 0) {
		const uint8_t *p = visit->base->img + *blk * visit->base->block_size;
		bool extents = fdio_get_le16(p, 0) == 0xf30a;

		add_block(visit->base, extents ? KIND_EXTENT_NODE : KIND_INDIRECT, *blk,
			  visit->ino);
	} else if (visit->dir) {
		add_block(visit->base, dir_kind(visit->base, visit, *blk, lblk), *blk, visit->ino);
	} else if (visit->link) {
		add_block(visit->base, KIND_SYMLINK, *blk, visit->ino);
	} else if (visit->orphan) {
		add_block(visit->base, KIND_ORPHAN, *blk, visit->ino);
	}
	return 0;
}

static void scan_inode(struct base *base, ext2_filsys fs, uint32_t ino,
		       const struct ext2_inode *raw)
{
	struct visit visit = { .base = base,
			       .ino = ino,
			       .dir = LINUX_S_ISDIR(raw->i_mode),
			       .indexed = raw->i_flags & EXT2_INDEX_FL,
			       .link = LINUX_S_ISLNK(raw->i_mode),
			       .orphan = ino == base->orphan_ino && ino };
	uint32_t group = (ino - 1) / base->inodes_per_group;
	uint32_t at = (ino - 1) % base->inodes_per_group;
	uint64_t off = ext2fs_inode_table_loc(fs, group) * base->block_size +
		       (uint64_t)at * base->inode_size;

	add(base, KIND_INODE, off, base->inode_size, ino, -1, off / base->block_size);
	if (ext2fs_file_acl_block(fs, raw))
		add_block(base, KIND_XATTR, ext2fs_file_acl_block(fs, raw), ino);
	if (ext2fs_inode_has_valid_blocks2(fs, (struct ext2_inode *)raw) &&
	    !(raw->i_flags & EXT4_INLINE_DATA_FL) && ino != base->journal_ino)
		(void)ext2fs_block_iterate3(fs, ino, BLOCK_FLAG_READ_ONLY, NULL, each_block,
					    &visit);
}

static void scan_inodes(struct base *base, ext2_filsys fs)
{
	base->inos = calloc(base->nr_inodes, sizeof(*base->inos));
	MUST(base->inos);
	for (uint32_t ino = 1; ino <= base->nr_inodes; ino++) {
		struct ext2_inode raw;
		/* Besides ordinary inodes: the root, the journal, and the resize inode. */
		bool wanted = ino == EXT2_ROOT_INO || ino == EXT2_JOURNAL_INO ||
			      ino == EXT2_RESIZE_INO || ino >= EXT2_FIRST_INO(fs->super);

		if (!wanted || !ext2fs_test_inode_bitmap2(fs->inode_map, ino) ||
		    ext2fs_read_inode(fs, ino, &raw) || !raw.i_mode)
			continue;
		base->inos[base->nr_inos++] = ino;
		scan_inode(base, fs, ino, &raw);
	}
}

/* ---- the log ---- */
struct log_map { uint64_t *blk; unsigned nr, cap; }; /* block of the log -> block of the image */

static int log_block(ext2_filsys fs, blk64_t *blk, e2_blkcnt_t lblk, blk64_t ref, int ref_off,
		     void *arg)
{
	struct log_map *map = arg;

	(void)fs;
	(void)ref;
	(void)ref_off;
	if (lblk < 0 || lblk >= map->cap)
		return 0;
	map->blk[lblk] = *blk;
	map->nr = FDIO_MAX(map->nr, (unsigned)lblk + 1);
	return 0;
}

/* What is a structure in the home block is one in its copy in the log, block image, as well. */
static void add_copies(struct base *base, uint64_t home, uint64_t image, int tag, unsigned nr_home)
{
	for (unsigned i = 0; i < nr_home; i++) {
		struct target target = base->target[i];

		if (target.off / base->block_size == home && target.tag < 0)
			add(base, target.kind,
			    image * base->block_size + target.off % base->block_size, target.len,
			    target.ino, tag, home);
	}
}

/*
 * The tags of the descriptor in block at of the log, and the copies behind it. Returns the last
 * block that belongs to it. The first nr_home targets are not in the log.
 */
static unsigned scan_tags(struct base *base, const struct log_map *map, unsigned at,
			  uint32_t incompat, unsigned nr_home)
{
	const uint8_t *p = base->img + map->blk[at] * base->block_size;
	uint32_t off = JOURNAL_HEADER_BYTES, end = base->block_size, flags = 0;
	unsigned n = at;

	if (journal_format_has_checksums(incompat))
		end -= JOURNAL_TAIL_BYTES;
	while (!(flags & JOURNAL_TAG_LAST) && off + journal_format_tag_bytes(incompat) <= end &&
	       n + 1 < map->nr) {
		uint64_t home = fdio_get_be32(p, off);

		flags = incompat & JOURNAL_INCOMPAT_CSUM_V3 ? fdio_get_be32(p, off + 4)
							    : fdio_get_be16(p, off + 6);
		n++;
		base->tags = reallocarray(base->tags, base->nr_tags + 1, sizeof(*base->tags));
		MUST(base->tags);
		base->tags[base->nr_tags] =
				(struct log_tag){ .desc_off = map->blk[at] * base->block_size,
						  .image_off = map->blk[n] * base->block_size,
						  .tag_off = off,
						  .tid = fdio_get_be32(p, JOURNAL_HEADER_TID) };
		add_copies(base, home, map->blk[n], (int)base->nr_tags++, nr_home);
		off += journal_format_tag_bytes(incompat) +
		       (flags & JOURNAL_TAG_SAME_UUID ? 0 : JOURNAL_UUID_BYTES);
	}
	return n;
}

/* A block of the log that is a structure as a whole. */
static void add_log_block(struct base *base, enum kind kind, const struct log_map *map, unsigned n)
{
	add(base, kind, map->blk[n] * base->block_size, base->block_size, n, -1, map->blk[n]);
}

static void scan_log(struct base *base, ext2_filsys fs)
{
	struct log_map map = { .cap = 1U << 16 };
	unsigned nr_home = base->nr;

	map.blk = calloc(map.cap, sizeof(*map.blk));
	MUST(map.blk);
	if (ext2fs_block_iterate3(fs, base->journal_ino, BLOCK_FLAG_READ_ONLY, NULL, log_block,
				  &map) ||
	    !map.nr)
		goto out;
	const uint8_t *jsb = base->img + map.blk[0] * base->block_size;
	uint32_t incompat = fdio_get_be32(jsb, JOURNAL_SB_INCOMPAT);
	base->log_seed = fdio_crc32c(~0U, jsb + JOURNAL_SB_UUID, 16);
	add(base, KIND_LOG_SUPERBLOCK, map.blk[0] * base->block_size, JOURNAL_SB_BYTES, 0, -1,
	    map.blk[0]);
	/* Only the live part of the log: the program never reads what is stale. */
	if (!fdio_get_be32(jsb, JOURNAL_SB_START))
		goto out;
	for (unsigned n = fdio_get_be32(jsb, JOURNAL_SB_START); n < map.nr; n++) {
		const uint8_t *p = base->img + map.blk[n] * base->block_size;

		if (fdio_get_be32(p, JOURNAL_HEADER_MAGIC) != JOURNAL_MAGIC)
			break;
		switch (fdio_get_be32(p, JOURNAL_HEADER_TYPE)) {
		case JOURNAL_BLOCK_DESCRIPTOR:
			add_log_block(base, KIND_LOG_DESCRIPTOR, &map, n);
			n = scan_tags(base, &map, n, incompat, nr_home);
			break;
		case JOURNAL_BLOCK_REVOKE:
			add_log_block(base, KIND_LOG_REVOKE, &map, n);
			break;
		case JOURNAL_BLOCK_COMMIT:
			add_log_block(base, KIND_LOG_COMMIT, &map, n);
			break;
		default: break;
		}
	}
out:
	free(map.blk);
}

/* ---- the whole image ---- */
static void scan_groups(struct base *base, ext2_filsys fs)
{
	unsigned per = base->block_size / base->desc_size;

	base->group_desc_off = calloc(base->nr_groups, sizeof(*base->group_desc_off));
	MUST(base->group_desc_off);
	for (uint32_t group = 0; group < base->nr_groups; group++) {
		uint64_t blk = ext2fs_descriptor_block_loc2(fs, fs->super->s_first_data_block,
							    group / per);

		uint64_t off = blk * base->block_size + (group % per) * base->desc_size;

		base->group_desc_off[group] = off;
		add(base, KIND_GROUP_DESC, off, base->desc_size, group, -1, blk);
		add_block(base, KIND_BLOCK_BITMAP, ext2fs_block_bitmap_loc(fs, group), group);
		add_block(base, KIND_INODE_BITMAP, ext2fs_inode_bitmap_loc(fs, group), group);
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

static void scan(struct base *base, ext2_filsys fs)
{
	base->block_size = fs->blocksize;
	base->inode_size = EXT2_INODE_SIZE(fs->super);
	base->desc_size = EXT2_DESC_SIZE(fs->super);
	base->nr_groups = fs->group_desc_count;
	base->clusters_per_group = fs->super->s_clusters_per_group;
	base->inodes_per_group = fs->super->s_inodes_per_group;
	base->nr_inodes = fs->super->s_inodes_count;
	base->nr_blocks = ext2fs_blocks_count(fs->super);
	base->journal_ino = fs->super->s_journal_inum;
	base->orphan_ino = ext2fs_has_feature_orphan_file(fs->super) ? fs->super->s_orphan_file_inum
								     : 0;
	base->metadata_csum = ext2fs_has_feature_metadata_csum(fs->super);
	base->gdt_csum = !base->metadata_csum && ext2fs_has_feature_gdt_csum(fs->super);
	base->seed = fs->csum_seed;
	memcpy(base->uuid, fs->super->s_uuid, 16);
	add(base, KIND_SUPERBLOCK, 1024, 1024, 0, -1, 1024 / base->block_size);
	scan_groups(base, fs);
	scan_inodes(base, fs);
	if (base->journal_ino)
		scan_log(base, fs);
	qsort(base->target, base->nr, sizeof(*base->target), by_kind);
	/* first[k] is the first target of kind k or, if there is none, of the next kind. */
	for (unsigned i = base->nr; i > 0; i--)
		base->first[base->target[i - 1].kind] = i - 1;
	base->first[NR_KINDS] = base->nr;
	for (unsigned k = NR_KINDS; k > 0; k--)
		if (base->first[k - 1] == 0 &&
		    (base->nr == 0 || base->target[0].kind != (enum kind)(k - 1)))
			base->first[k - 1] = base->first[k];
}

/* Calls fn with the image opened by libext2fs, which needs it in a file. */
static bool with_ext2fs(struct base *base, bool (*fn)(struct base *base, ext2_filsys fs, void *arg),
			void *arg)
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
	if (write(fd, base->img, base->size) == (ssize_t)base->size &&
	    !ext2fs_open2(path, NULL, EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &fs) &&
	    !ext2fs_read_inode_bitmap(fs))
		ok = fn(base, fs, arg);
	if (fs)
		ext2fs_free(fs);
	close(fd);
	unlink(path);
	return ok;
}

static bool do_scan(struct base *base, ext2_filsys fs, void *arg)
{
	(void)arg;
	scan(base, fs);
	return true;
}

bool base_scan(struct base *base)
{
	if (with_ext2fs(base, do_scan, NULL))
		return true;
	fprintf(stderr, "the image %s cannot be read\n", base->name);
	return false;
}

struct name { const char *path; uint32_t ino; };

static bool do_namei(struct base *base, ext2_filsys fs, void *arg)
{
	struct name *name = arg;

	(void)base;
	return !ext2fs_namei(fs, EXT2_ROOT_INO, EXT2_ROOT_INO, name->path, &name->ino);
}

uint32_t base_path_ino(struct base *base, const char *path)
{
	struct name name = { .path = path };

	return with_ext2fs(base, do_namei, &name) ? name.ino : 0;
}
