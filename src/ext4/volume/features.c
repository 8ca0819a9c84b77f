/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which file systems are served, and how. The list is fusedio's own, because libext2fs opens far
 * more than fusedio can write. There are three verdicts: read-write; read-only, if files can be
 * read but the feature could not be kept consistent; refused, if reading would show wrong data.
 * Unknown incompatible features are refused, unknown read-only-compatible ones are served
 * read-only, as the rules of the format demand.
 *
 * Pure functions over the 1024 bytes of the superblock, without locks: any thread. load.c calls
 * them before the journal is replayed and again after, because a replay may bring a newer
 * superblock. A refusal sets the reason.
 */
#include "ext4/core/structs.h"
#include "ext4/volume/parts.h"

#include <stdio.h>

struct feature {
	uint32_t bit;
	enum ext4_verdict verdict;
	const char *why; /* for anything but read-write: a whole clause */
};

static const struct feature incompat[] = {
	{ EXT2_FEATURE_INCOMPAT_FILETYPE, EXT4_SERVE_RW, NULL },
	{ EXT3_FEATURE_INCOMPAT_RECOVER, EXT4_SERVE_RW, NULL },
	{ EXT2_FEATURE_INCOMPAT_META_BG, EXT4_SERVE_RW, NULL },
	{ EXT3_FEATURE_INCOMPAT_EXTENTS, EXT4_SERVE_RW, NULL },
	{ EXT4_FEATURE_INCOMPAT_64BIT, EXT4_SERVE_RW, NULL },
	{ EXT4_FEATURE_INCOMPAT_FLEX_BG, EXT4_SERVE_RW, NULL },
	{ EXT4_FEATURE_INCOMPAT_EA_INODE, EXT4_SERVE_RW, NULL },
	{ EXT4_FEATURE_INCOMPAT_CSUM_SEED, EXT4_SERVE_RW, NULL },
	{ EXT4_FEATURE_INCOMPAT_LARGEDIR, EXT4_SERVE_RW, NULL },
	{ EXT4_FEATURE_INCOMPAT_MMP, EXT4_SERVE_RW, NULL },
	{ EXT4_FEATURE_INCOMPAT_INLINE_DATA, EXT4_SERVE_RO,
	  "small files are stored inside inodes (inline_data), which is not written" },
	{ EXT4_FEATURE_INCOMPAT_CASEFOLD, EXT4_SERVE_RO, "directories may ignore case (casefold)" },
	{ EXT4_FEATURE_INCOMPAT_ENCRYPT, EXT4_SERVE_RO, "files may be encrypted (encrypt)" },
	{ EXT3_FEATURE_INCOMPAT_JOURNAL_DEV, EXT4_REFUSE,
	  "this is an external journal, not a file system" },
	{ EXT2_FEATURE_INCOMPAT_COMPRESSION, EXT4_REFUSE,
	  "files may be compressed, which ext4 never supported" },
	{ EXT4_FEATURE_INCOMPAT_DIRDATA, EXT4_REFUSE, "directories carry extra data (dirdata)" },
};

static const struct feature ro_compat[] = {
	{ EXT2_FEATURE_RO_COMPAT_SPARSE_SUPER, EXT4_SERVE_RW, NULL },
	{ EXT2_FEATURE_RO_COMPAT_LARGE_FILE, EXT4_SERVE_RW, NULL },
	{ EXT4_FEATURE_RO_COMPAT_HUGE_FILE, EXT4_SERVE_RW, NULL },
	{ EXT4_FEATURE_RO_COMPAT_GDT_CSUM, EXT4_SERVE_RW, NULL },
	{ EXT4_FEATURE_RO_COMPAT_DIR_NLINK, EXT4_SERVE_RW, NULL },
	{ EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE, EXT4_SERVE_RW, NULL },
	{ EXT4_FEATURE_RO_COMPAT_METADATA_CSUM, EXT4_SERVE_RW, NULL },
	{ EXT4_FEATURE_RO_COMPAT_ORPHAN_PRESENT, EXT4_SERVE_RW, NULL },
	{ EXT4_FEATURE_RO_COMPAT_HAS_SNAPSHOT, EXT4_SERVE_RO, "it has snapshots" },
	{ EXT4_FEATURE_RO_COMPAT_QUOTA, EXT4_SERVE_RO,
	  "quotas are on, which fusedio does not keep; remove them with tune2fs -O ^quota" },
	{ EXT4_FEATURE_RO_COMPAT_BIGALLOC, EXT4_SERVE_RO,
	  "blocks are allocated in clusters (bigalloc)" },
	{ EXT4_FEATURE_RO_COMPAT_REPLICA, EXT4_SERVE_RO, "it is a replica" },
	{ EXT4_FEATURE_RO_COMPAT_READONLY, EXT4_SERVE_RO,
	  "it is marked read-only; change that with tune2fs -O ^read-only" },
	{ EXT4_FEATURE_RO_COMPAT_PROJECT, EXT4_SERVE_RO,
	  "project quotas are on; remove them with tune2fs -O ^project" },
	{ EXT4_FEATURE_RO_COMPAT_SHARED_BLOCKS, EXT4_SERVE_RO,
	  "files share blocks (shared_blocks)" },
	{ EXT4_FEATURE_RO_COMPAT_VERITY, EXT4_SERVE_RO, "files may be sealed (verity)" },
};

/*
 * The worst verdict on the bits of set; *why belongs to it. *ret_unknown: the bits that are not
 * among the nr features of the list, whose verdict is unknown.
 */
static enum ext4_verdict check_set(const struct feature *feature, size_t nr, uint32_t set,
				   enum ext4_verdict unknown, uint32_t *ret_unknown,
				   const char **why)
{
	enum ext4_verdict worst = EXT4_SERVE_RW;

	for (size_t n = 0; n < nr; n++) {
		if (!(set & feature[n].bit))
			continue;
		set &= ~feature[n].bit;
		if (feature[n].verdict > worst) {
			worst = feature[n].verdict;
			*why = feature[n].why;
		}
	}
	*ret_unknown = set;
	if (set && unknown >= worst) {
		worst = unknown;
		*why = "it has features that are not known to this version";
	}
	return worst;
}

/* Why revision, absent features or geometry allow reading only; NULL: they allow writing. */
static const char *ro_by_shape(const struct ext2_super_block *sb)
{
	if (sb->s_rev_level < 1)
		return "it has the revision 0 format of 1993; convert it with tune2fs";
	if (sb->s_creator_os == 1)
		return "it was made by the Hurd, whose inodes differ";
	if (!(sb->s_feature_compat & EXT3_FEATURE_COMPAT_HAS_JOURNAL))
		return "it has no journal; add one with tune2fs -O has_journal";
	if (!(sb->s_feature_incompat & EXT3_FEATURE_INCOMPAT_EXTENTS))
		return "it has no extents (ext2 or ext3); convert it with tune2fs -O extents";
	if (sb->s_log_block_size > 2)
		return "its blocks are larger than 4096 bytes, which fusedio reads but does not "
		       "write";
	return NULL;
}

/*
 * The most groups that are served: 512 TiB with groups of the usual size. Each group takes some 200
 * bytes of memory while the volume is mounted, whatever the image really holds; and a small sparse
 * file can claim a group for every 8 blocks.
 */
#define GROUPS_MAX (1U << 22)

static bool has_too_many_groups(const struct ext2_super_block *sb)
{
	uint64_t blocks = ext2fs_blocks_count((struct ext2_super_block *)sb);

	return sb->s_blocks_per_group && blocks / sb->s_blocks_per_group >= GROUPS_MAX;
}

enum ext4_verdict ext4_features_check(const struct ext2_super_block *sb, const char *devname,
				      const char **ret_why, struct fdio_reason *reason)
{
	const char *why_incompat = NULL, *why_ro_compat = NULL, *why_shape = ro_by_shape(sb);
	uint32_t unknown, unknown_ro_compat;
	enum ext4_verdict by_incompat, by_ro_compat;

	*ret_why = NULL;
	by_incompat = check_set(incompat, ARRAY_SIZE(incompat), sb->s_feature_incompat,
				EXT4_REFUSE, &unknown, &why_incompat);
	by_ro_compat = check_set(ro_compat, ARRAY_SIZE(ro_compat), sb->s_feature_ro_compat,
				 EXT4_SERVE_RO, &unknown_ro_compat, &why_ro_compat);
	if (by_incompat == EXT4_REFUSE && unknown) {
		fdio_reason_set(reason,
				"%s: unknown incompatible features %#x: a newer fusedio or the "
				"kernel is needed",
				devname, unknown);
		return EXT4_REFUSE;
	}
	if (by_incompat == EXT4_REFUSE) {
		fdio_reason_set(reason, "%s: %s", devname, why_incompat);
		return EXT4_REFUSE;
	}
	if ((sb->s_feature_compat & EXT3_FEATURE_COMPAT_HAS_JOURNAL) && !sb->s_journal_inum) {
		fdio_reason_set(reason,
				"%s: the journal is on another device: move it inside with tune2fs "
				"-O ^has_journal, then -O has_journal",
				devname);
		return EXT4_REFUSE;
	}
	if (has_too_many_groups(sb)) {
		fdio_reason_set(reason,
				"%s: more than %u block groups (of %u blocks): mount it with the "
				"kernel",
				devname, GROUPS_MAX, sb->s_blocks_per_group);
		return EXT4_REFUSE;
	}
	if (by_incompat == EXT4_SERVE_RO)
		*ret_why = why_incompat;
	else if (by_ro_compat == EXT4_SERVE_RO)
		*ret_why = why_ro_compat;
	else
		*ret_why = why_shape;
	return *ret_why ? EXT4_SERVE_RO : EXT4_SERVE_RW;
}
