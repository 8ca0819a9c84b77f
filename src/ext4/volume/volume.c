/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of a volume: open (validate, features, recover, start the journal, finish what a crash
 * interrupted), sync, close. Called by main on one thread at either end; sync on any worker.
 *
 * The order at a read-write mount: the log is replayed and empty; the root is looked at; the
 * superblock gets needs_recovery and the mount is counted, flushed; only then the journal starts.
 * At unmount: the journal stops (everything home, log empty, flushed); only then needs_recovery
 * goes, flushed. A crash anywhere in between leaves a file system that the next mount, the kernel
 * or e2fsck recovers. VALID_FS stays set all the time, as the kernel does with a journal, so a
 * crash costs a replay and not a full check.
 */
#include "ext4/core/structs.h"
#include "ext4/volume/parts.h"

#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct opening {
	struct ext4_vol *vol;
	struct ext2_super_block sb;
	struct journal_extent *log;
	unsigned nr_log;
	bool *ret_fsck;
	const char *ro_why;
	struct fdio_reason *reason;
};

__attribute__((format(printf, 3, 4))) static int refuse(struct opening *opening, int err,
							const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fdio_reason_vset(opening->reason, fmt, ap);
	va_end(ap);
	return err;
}

static const char *dev_name(const struct opening *opening) { return opening->vol->dev->name; }

/* ------------------------------------------------------------------ geometry */
static void set_features(struct ext4_vol *vol)
{
	struct ext2_super_block *sb = vol->fs->super;

	vol->has_csum = ext2fs_has_feature_metadata_csum(sb);
	vol->has_gdt_csum = !vol->has_csum && ext2fs_has_feature_gdt_csum(sb);
	vol->has_64bit = ext2fs_has_feature_64bit(sb);
	vol->has_filetype = ext2fs_has_feature_filetype(sb);
	vol->has_dir_index = ext2fs_has_feature_dir_index(sb);
	vol->has_large_dir = ext2fs_has_feature_largedir(sb);
	vol->has_dir_nlink = ext2fs_has_feature_dir_nlink(sb);
	vol->has_extents = ext2fs_has_feature_extents(sb);
	vol->has_ext_attr = ext2fs_has_feature_xattr(sb);
	vol->has_ea_inode = ext2fs_has_feature_ea_inode(sb);
	vol->checksum_seed = vol->fs->csum_seed;
	vol->mount_state = sb->s_state;
	ext4_label_init(vol);
}

static int set_geometry(struct opening *opening)
{
	struct ext4_vol *vol = opening->vol;
	struct ext2_super_block *sb = vol->fs->super;

	vol->block_size = vol->fs->blocksize;
	vol->block_bits = (unsigned)__builtin_ctz(vol->block_size);
	vol->inode_size = EXT2_INODE_SIZE(sb);
	vol->nr_blocks = ext2fs_blocks_count(sb);
	vol->nr_inodes = sb->s_inodes_count;
	vol->nr_groups = vol->fs->group_desc_count;
	vol->first_data_block = sb->s_first_data_block;
	vol->blocks_per_group = sb->s_blocks_per_group;
	vol->inodes_per_group = sb->s_inodes_per_group;
	vol->first_ino = EXT2_FIRST_INO(sb);
	vol->desc_size = EXT2_DESC_SIZE(sb);
	vol->itable_blocks = vol->fs->inode_blocks_per_group;
	vol->inodes_per_block = vol->block_size / vol->inode_size;
	vol->sb_blk = SUPERBLOCK_OFFSET / vol->block_size;
	vol->sb_off = SUPERBLOCK_OFFSET % vol->block_size;
	if (vol->nr_blocks > vol->dev->caps.size_bytes >> vol->block_bits)
		return refuse(opening, -EINVAL,
			      "%s: the file system (%llu blocks of %u bytes) is larger than the "
			      "device: it was cut off, or "
			      "resize2fs is needed",
			      dev_name(opening), (unsigned long long)vol->nr_blocks,
			      vol->block_size);
	if (vol->block_size < vol->dev->caps.sector_bytes)
		return refuse(opening, -EINVAL,
			      "%s: blocks of %u bytes cannot be written to sectors of %u bytes",
			      dev_name(opening), vol->block_size, vol->dev->caps.sector_bytes);
	if ((vol->inodes_per_group & 7) || vol->inodes_per_group > vol->block_size * 8 ||
	    (vol->blocks_per_group > vol->block_size * 8 && !ext2fs_has_feature_bigalloc(sb)) ||
	    (vol->blocks_per_group & 7) || vol->inode_size > vol->block_size ||
	    vol->desc_size < 32 || vol->first_ino < 11 ||
	    (uint64_t)vol->nr_groups * vol->inodes_per_group != vol->nr_inodes)
		return refuse(opening, -EUCLEAN, "%s: the superblock makes no sense: run e2fsck %s",
			      dev_name(opening), dev_name(opening));
	set_features(vol);
	return 0;
}

static void unload(struct ext4_vol *vol)
{
	ext4_ea_fini(vol);
	ext4_inode_cache_fini(vol);
	ext4_groups_fini(vol);
	if (vol->fs)
		ext2fs_free(vol->fs);
	vol->fs = NULL;
}

/* Everything that is derived from the superblock and the descriptors on the device. */
static int load(struct opening *opening)
{
	struct ext4_vol *vol = opening->vol;
	long lib;
	int err = ext4_super_read(vol->dev, &opening->sb, opening->reason);
	const char *why;

	if (err == -EUCLEAN && !vol->options.norecovery &&
	    !ext4_super_complete_torn(vol->dev, &opening->sb))
		err = ext4_super_read(vol->dev, &opening->sb, opening->reason);
	if (err)
		return err;
	fdio_reason_clear(opening->reason);
	switch (ext4_features_check(&opening->sb, dev_name(opening), &why, opening->reason)) {
	case EXT4_REFUSE: return -EOPNOTSUPP;
	case EXT4_SERVE_RO: opening->ro_why = why; break;
	case EXT4_SERVE_RW: break;
	}
	lib = ext4_io_open_fs(vol->dev, &vol->fs);
	if (lib)
		return refuse(opening, ext4_error_from_ext2(lib),
			      "%s: cannot read the file system: %s: run e2fsck %s",
			      dev_name(opening), error_message(lib), dev_name(opening));
	err = set_geometry(opening);
	if (err)
		return err;
	err = ext4_groups_init(vol);
	if (!err)
		err = ext4_zones_init(vol);
	if (!err)
		err = ext4_inode_cache_init(vol);
	if (ext4_bad_groups(vol, NULL))
		vol->mount_state |= EXT2_ERROR_FS;
	return err ? refuse(opening, err, "%s: %s", dev_name(opening), strerror(-err)) : 0;
}

/* ------------------------------------------------------------------ journal */
static void note_journal_abort(void *arg, int err)
{
	struct ext4_vol *vol = arg;

	fdio_magic_check(vol, MAGIC_EXT4_VOLUME);
	if (err == -ESHUTDOWN)
		__atomic_store_n(&vol->read_only, true, __ATOMIC_SEQ_CST);
	else
		ext4_error_aborted(vol, err);
}

static int open_journal(struct opening *opening, bool with_log, bool ro)
{
	struct ext4_vol *vol = opening->vol;
	struct journal_params params = {
		.dev = vol->dev,
		.block_size = vol->block_size,
		.nr_blocks = vol->nr_blocks,
		.log = with_log ? opening->log : NULL,
		.nr_log = with_log ? opening->nr_log : 0,
		.metadata_csum = vol->has_csum,
		.has_64bit = vol->has_64bit,
		.read_only = ro,
		.commit_interval_s = vol->options.commit_interval_s,
		.cache_bytes = vol->options.cache_bytes,
		.seal = ext4_groups_seal,
		.seal_blocks = vol->fs->desc_blocks,
		.aborted = note_journal_abort,
		.arg = vol,
	};
	return journal_open(&params, &vol->journal, opening->reason);
}

static void close_journal(struct ext4_vol *vol)
{
	if (vol->journal)
		journal_close(vol->journal);
	vol->journal = NULL;
}

/*
 * e2fsck knows journals that we do not replay. It wants the device for itself, so the caller runs
 * it.
 */
static int ask_for_e2fsck(struct opening *opening, const char *obstacle)
{
	if (opening->ret_fsck)
		*opening->ret_fsck = true;
	return refuse(opening, -EUCLEAN,
		      "%s: the journal needs e2fsck (%s): run e2fsck -p %s, then mount again",
		      dev_name(opening), obstacle, dev_name(opening));
}

static void clear_recover(struct ext2_super_block *sb, void *arg)
{
	(void)arg;
	sb->s_feature_incompat &= ~(uint32_t)EXT3_FEATURE_INCOMPAT_RECOVER;
}

static int map_log(struct opening *opening)
{
	struct ext4_vol *vol = opening->vol;
	int err;

	free(opening->log);
	opening->log = NULL;
	err = open_journal(opening, false, true);
	if (err)
		return err;
	err = ext4_map_log_extents(vol, vol->fs->super->s_journal_inum, &opening->log,
				   &opening->nr_log);
	close_journal(vol);
	if (err)
		return refuse(opening, err,
			      "%s: the journal's inode is damaged: run e2fsck %s; -o ro,norecovery "
			      "serves the rest "
			      "until then",
			      dev_name(opening), dev_name(opening));
	err = ext4_zones_add_log(vol, opening->log, opening->nr_log);
	return err ? refuse(opening, err, "%s: %s", dev_name(opening), strerror(-err)) : 0;
}

/*
 * e2fsck 1.47.0 was seen to fail in the middle of fast commits ("Invalid argument while recovering
 * journal"), go on, and call the file system clean: fsynced files were gone. So it is not run for
 * the user.
 */
static int refuse_fast_commits(struct opening *opening)
{
	return refuse(opening, -EUCLEAN,
		      "%s: the journal holds fast commits, which the kernel replays: mount it once "
		      "with mount -t ext4 (e2fsck -p %s may "
		      "lose what they hold)",
		      dev_name(opening), dev_name(opening));
}

struct past_errors { const struct ext2_super_block *before; bool aborted; };

static void keep_errors(struct ext2_super_block *sb, void *arg)
{
	const struct past_errors *errors = arg;
	const struct ext2_super_block *b = errors->before;
	const size_t first = offsetof(struct ext2_super_block, s_error_count),
		     end = offsetof(struct ext2_super_block, s_mount_opts);

	sb->s_state |= (b->s_state & EXT2_ERROR_FS) | (errors->aborted ? EXT2_ERROR_FS : 0);
	if (!b->s_error_count)
		return;
	memcpy((char *)sb + first, (const char *)b + first, end - first);
	sb->s_first_error_errcode = b->s_first_error_errcode;
	sb->s_last_error_errcode = b->s_last_error_errcode;
}

/*
 * An aborted journal could not log its errors: they went into the superblock past it, where the
 * replay may have put an older one.
 */
static int restore_errors(struct opening *opening, bool aborted)
{
	struct past_errors errors = { .before = &opening->sb, .aborted = aborted };
	int err;

	if (!aborted && !opening->sb.s_error_count && !(opening->sb.s_state & EXT2_ERROR_FS))
		return 0;
	err = ext4_super_update_raw(opening->vol->dev, keep_errors, &errors);
	return err ? refuse(opening, err, "%s: cannot write the superblock: %s", dev_name(opening),
			    strerror(-err))
		   : 0;
}

/*
 * Replays what the journal, opened, holds; everything derived from disk is stale afterwards.
 * *again: load and look once more.
 */
static int replay(struct opening *opening, bool *again)
{
	struct ext4_vol *vol = opening->vol;
	const char *obstacle = journal_replay_obstacle(vol->journal);
	struct journal_replay_stats stats;
	bool aborted;
	int err;

	*again = true;
	if (obstacle) {
		bool fast = journal_may_have_fast_commits(vol->journal);

		close_journal(vol);
		return fast ? refuse_fast_commits(opening) : ask_for_e2fsck(opening, obstacle);
	}
	aborted = journal_past_error(vol->journal) != 0;
	err = journal_replay(vol->journal, &stats, opening->reason);
	close_journal(vol);
	if (stats.fast_commits)
		return refuse_fast_commits(opening);
	if (err)
		return err;
	log_info("%s: journal replayed: %u transactions, %u blocks, %u revoked", dev_name(opening),
		 stats.transactions, stats.blocks, stats.revoked);
	return restore_errors(opening, aborted);
}

/* needs_recovery is set: makes the file system consistent, or says why not. */
static int recover(struct opening *opening, bool *again)
{
	struct ext4_vol *vol = opening->vol;
	int err;

	if (journal_needs_replay(vol->journal))
		return replay(opening, again);
	/*
	 * A crash between mount and the first commit, or at the very end of an unmount: nothing to
	 * replay.
	 */
	err = ext4_super_update_raw(vol->dev, clear_recover, NULL);
	close_journal(vol);
	*again = true;
	return err ? refuse(opening, err, "%s: cannot write the superblock: %s", dev_name(opening),
			    strerror(-err))
		   : 0;
}

/* Looks at the journal; afterwards either the file system is clean and consistent, or *again. */
static int check_journal(struct opening *opening, bool *again)
{
	struct ext4_vol *vol = opening->vol;
	bool needs = ext2fs_has_feature_journal_needs_recovery(vol->fs->super);
	int err;

	*again = false;
	if (!ext2fs_has_feature_journal(vol->fs->super)) {
		if (needs)
			return refuse(opening, -EUCLEAN,
				      "%s: recovery is wanted, but there is no journal: run e2fsck "
				      "%s",
				      dev_name(opening), dev_name(opening));
		return 0;
	}
	if (vol->options.norecovery) {
		opening->ro_why = needs             ? "the journal was not replayed (norecovery)"
				  : opening->ro_why ? opening->ro_why
						    : "norecovery was asked for";
		return 0;
	}
	/* As the kernel does: what is served without a replay is asked for by name. */
	if (needs && vol->dev->caps.read_only)
		return refuse(opening, -EROFS,
			      "%s: the journal must be replayed, but the device cannot be written: "
			      "make it "
			      "writable, or mount with -o norecovery (the latest changes are "
			      "missing then)",
			      dev_name(opening));
	err = map_log(opening);
	if (!err)
		err = open_journal(opening, true, true);
	if (err)
		return err;
	if (needs)
		return recover(opening, again);
	if (journal_needs_replay(vol->journal))
		err = refuse(opening, -EUCLEAN,
			     "%s: the journal holds transactions, but the superblock says it is "
			     "empty: run e2fsck %s",
			     dev_name(opening), dev_name(opening));
	close_journal(vol);
	return err;
}

/* ------------------------------------------------------------------ mounting */
static void mark_in_use(struct ext2_super_block *sb, void *arg)
{
	struct ext4_vol *vol = arg;
	uint64_t now = (uint64_t)ext4_now(vol).tv_sec;

	sb->s_feature_incompat |= EXT3_FEATURE_INCOMPAT_RECOVER;
	sb->s_wtime = (uint32_t)now;
	sb->s_wtime_hi = (uint8_t)(now >> 32);
}

static void mark_mounted(struct ext2_super_block *sb, void *arg)
{
	mark_in_use(sb, arg);
	/* a size above 2 GiB needs it, and nobody lacks it */
	sb->s_feature_ro_compat |= EXT2_FEATURE_RO_COMPAT_LARGE_FILE;
	sb->s_mnt_count++;
	sb->s_mtime = sb->s_wtime;
	sb->s_mtime_hi = sb->s_wtime_hi;
}

static void warn_state(struct ext4_vol *vol)
{
	struct ext2_super_block *sb = vol->fs->super;

	if (!(sb->s_state & EXT2_VALID_FS))
		log_warn("%s: the file system was not unmounted cleanly: running e2fsck is "
			 "recommended",
			 vol->dev->name);
	if (sb->s_state & EXT2_ERROR_FS)
		log_warn("%s: the file system has errors: running e2fsck is recommended",
			 vol->dev->name);
	if (sb->s_max_mnt_count > 0 && sb->s_mnt_count >= (uint16_t)sb->s_max_mnt_count)
		log_warn("%s: mounted often without a check: running e2fsck is recommended",
			 vol->dev->name);
	if (sb->s_checkinterval &&
	    sb->s_lastcheck + (uint64_t)sb->s_checkinterval <= (uint64_t)ext4_now(vol).tv_sec)
		log_warn("%s: not checked for long: running e2fsck is recommended", vol->dev->name);
}

static int start_rw(struct opening *opening, void (*mark)(struct ext2_super_block *sb, void *arg))
{
	struct ext4_vol *vol = opening->vol;
	int err;

	err = ext4_super_update_raw(vol->dev, mark, vol);
	if (err)
		return refuse(opening, err, "%s: cannot write the superblock: %s",
			      dev_name(opening), strerror(-err));
	err = ext4_discard_start(vol);
	if (!err)
		err = journal_start(vol->journal);
	return err ? refuse(opening, err, "%s: cannot start the journal: %s", dev_name(opening),
			    strerror(-err))
		   : 0;
}

/* As the kernel: a file system with errors keeps its orphans for e2fsck. */
static int finish_interrupted(struct opening *opening)
{
	struct ext4_vol *vol = opening->vol;
	int err;

	if (vol->mount_state & EXT2_ERROR_FS) {
		if (vol->fs->super->s_last_orphan)
			log_warn("%s: deletions that a crash interrupted are left to e2fsck, "
				 "because the file system has errors",
				 dev_name(opening));
		return 0;
	}
	err = ext4_orphans_process(vol);
	if (!err)
		err = ext4_orphan_file_process(vol);
	if (err == -EUCLEAN) {
		log_warn("%s: some interrupted deletions could not be finished: run e2fsck",
			 dev_name(opening));
		return 0;
	}
	return err ? refuse(opening, err, "%s: cannot finish interrupted deletions: %s",
			    dev_name(opening), strerror(-err))
		   : 0;
}

static struct ext4_vol *vol_new(struct dev *dev, const struct ext4_options *options)
{
	struct ext4_vol *vol = ext4_map_mem_init() ? NULL : calloc(1, sizeof(*vol));

	if (!vol)
		return NULL;
	fdio_magic_set(vol, MAGIC_EXT4_VOLUME);
	vol->dev = dev;
	vol->options = *options;
	vol->mounting = true;
	fdio_mutex_init(&vol->volume.ticker_lock, RANK_LEAF);
	fdio_cond_init(&vol->volume.ticker_cond);
	ext4_error_init(vol);
	ext4_alloc_init(vol);
	ext4_inodes_init(vol);
	ext4_ea_init(vol);
	ext4_data_init(vol);
	ext4_life_init(vol);
	ext4_dir_init(vol);
	return vol;
}

static void vol_free(struct ext4_vol *vol)
{
	ext4_ticker_end(vol);
	/* First: its threads call ext4_groups_seal. */
	if (vol->journal && !vol->options.read_only)
		journal_abort(vol->journal, -ESHUTDOWN);
	if (vol->journal)
		(void)journal_stop(vol->journal);
	ext4_discard_stop(vol); /* before the journal goes: it asks whether that has aborted */
	close_journal(vol);
	ext4_mmp_stop(vol);
	unload(vol);
	ext4_dir_fini(vol);
	ext4_alloc_fini(vol);
	ext4_inodes_fini(vol);
	fdio_mutex_fini(&vol->volume.ticker_lock);
	ext4_error_fini(vol);
	pthread_cond_destroy(&vol->volume.ticker_cond);
	fdio_magic_clear(vol, MAGIC_EXT4_VOLUME);
	free(vol);
}

/* Mounting this will write, if only to replay the journal. */
static bool will_write(const struct opening *opening)
{
	const struct ext4_vol *vol = opening->vol;

	if (vol->dev->caps.read_only || vol->options.norecovery)
		return false;
	return ext2fs_has_feature_journal_needs_recovery(vol->fs->super) ||
	       !(vol->options.read_only || opening->ro_why);
}

/*
 * What a journal holds may mend descriptors, so it is replayed first. Reading goes around what is
 * damaged.
 */
static int check_groups(struct opening *opening)
{
	const struct ext4_vol *vol = opening->vol;

	uint32_t first, bad = ext4_bad_groups(vol, &first);

	if (!bad || !will_write(opening) ||
	    ext2fs_has_feature_journal_needs_recovery(vol->fs->super))
		return 0;
	return refuse(opening, -EUCLEAN,
		      "%s: %u damaged group descriptors (the first: %u): run e2fsck %s; -o ro "
		      "serves the rest until then",
		      dev_name(opening), bad, first, dev_name(opening));
}

/*
 * Consistent on disk and loaded. A replay, or e2fsck, makes it necessary to begin anew; that
 * happens a few times at most.
 */
static int load_consistent(struct opening *opening)
{
	bool again = true;
	int err = 0;

	for (int round = 0; round < 4 && again && !err; round++) {
		unload(opening->vol);
		opening->ro_why = NULL;
		err = load(opening);
		if (!err)
			err = check_groups(opening);
		if (!err && will_write(opening))
			err = ext4_mmp_start(opening->vol, opening->reason);
		if (!err)
			err = check_journal(opening, &again);
	}
	if (!err && again)
		err = refuse(opening, -EUCLEAN,
			     "%s: the journal does not come to rest: run e2fsck %s",
			     dev_name(opening), dev_name(opening));
	return err;
}

struct unmount { struct ext4_vol *vol; uint64_t free_blocks; };

static void mark_clean(struct ext2_super_block *sb, void *arg)
{
	struct unmount *unmount = arg;
	uint64_t now = (uint64_t)ext4_now(unmount->vol).tv_sec;

	clear_recover(sb, NULL);
	sb->s_free_inodes_count = ext4_free_inodes(unmount->vol);
	sb->s_free_blocks_count = (uint32_t)unmount->free_blocks;
	if (unmount->vol->has_64bit)
		sb->s_free_blocks_hi = (uint32_t)(unmount->free_blocks >> 32);
	sb->s_wtime = (uint32_t)now;
	sb->s_wtime_hi = (uint8_t)(now >> 32);
}

static int close_rw(struct ext4_vol *vol)
{
	struct unmount unmount = { .vol = vol };
	int err, e;

	ext4_vol_reap(vol);
	ext4_ea_settle(vol);
	ext4_inode_cache_evict_unlinked(vol);
	(void)ext4_windows_settle(vol); /* none, if all files were closed */
	err = ext4_vol_write_times(vol);
	ext4_error_write(vol);
	e = journal_stop(vol->journal);
	ext4_discard_stop(vol);
	if (e || ext4_vol_read_only(vol)) {
		/* What the log holds is for the next mount to replay: needs_recovery stays. */
		ext4_error_write_last(vol);
		return e ? e : -EIO;
	}
	/*
	 * Nothing is reserved or pending any more, but a damaged group counts as full in
	 * free_blocks: ask the descriptors.
	 */
	unmount.free_blocks = ext4_groups_free_on_disk(vol);
	e = ext4_super_update_raw(vol->dev, mark_clean, &unmount);
	return err ? err : e;
}

/* Before anything is written: what has no root is not served, and stays as it is. */
static int check_root(struct opening *opening)
{
	struct ext4_vol *vol = opening->vol;
	struct ext4_inode *root;
	int err = ext4_inode_get_special(vol, EXT4_ROOT_INO, &root);

	if (!err) {
		if (!S_ISDIR(root->raw->i_mode) || !root->raw->i_links_count ||
		    !ext4_raw_size(root) || !ext4_raw_blocks_512(root))
			err = -EUCLEAN;
		ext4_inode_put(root);
	}
	return err ? refuse(opening, err,
			    "%s: the root directory cannot be read: %s: run e2fsck %s",
			    dev_name(opening), strerror(-err), dev_name(opening))
		   : 0;
}

/*
 * What a crash interrupted is to be finished although the mount is read-only, as the kernel does,
 * and can be.
 */
static bool orphans_wait(const struct opening *opening)
{
	const struct ext4_vol *vol = opening->vol;
	const struct ext2_super_block *sb = vol->fs->super;

	if (!sb->s_last_orphan &&
	    !(sb->s_feature_ro_compat & EXT4_FEATURE_RO_COMPAT_ORPHAN_PRESENT))
		return false;
	if (vol->dev->caps.read_only || opening->ro_why)
		log_info("%s: deletions that a crash interrupted are left to a mount that may "
			 "write",
			 dev_name(opening));
	return !vol->dev->caps.read_only && !opening->ro_why && !ext4_bad_groups(vol, NULL) &&
	       !(vol->mount_state & EXT2_ERROR_FS);
}

/* Writes before a mount that is read-only; afterwards everything is as after an unmount. */
static int finish_before_read_only(struct opening *opening)
{
	struct ext4_vol *vol = opening->vol;
	int err, closed;

	if (!orphans_wait(opening))
		return 0;
	err = ext4_mmp_start(vol, opening->reason);
	if (!err)
		err = open_journal(opening, true, false);
	if (!err)
		err = check_root(opening);
	if (!err)
		err = start_rw(opening, mark_in_use);
	if (err)
		return err;
	err = finish_interrupted(opening);
	closed = close_rw(vol);
	close_journal(vol);
	/* Reading is possible all the same. */
	if (err || closed)
		log_warn("%s: interrupted deletions could not be finished: %s", dev_name(opening),
			 strerror(err ? -err : -closed));
	fdio_reason_clear(opening->reason);
	__atomic_store_n(&vol->read_only, false, __ATOMIC_SEQ_CST);
	return load_consistent(opening);
}

static int mount_volume(struct opening *opening)
{
	struct ext4_vol *vol = opening->vol;
	int err = load_consistent(opening);

	if (!err && vol->options.read_only)
		err = finish_before_read_only(opening);
	if (err)
		return err;
	if (vol->dev->caps.read_only && !opening->ro_why)
		opening->ro_why = "the device is read-only";
	vol->read_only = vol->options.read_only || opening->ro_why;
	ext4_alloc_limits(vol, ext4_super_reserved_blocks(vol->fs->super));
	warn_state(vol);
	if (ext4_bad_groups(vol, NULL))
		log_err("%s: %u damaged group descriptors: what they describe may be missing; run "
			"e2fsck",
			dev_name(opening), ext4_bad_groups(vol, NULL));
	err = open_journal(opening, !vol->read_only, vol->read_only);
	if (!err)
		err = check_root(opening);
	if (!err && !vol->read_only)
		err = start_rw(opening, mark_mounted);
	if (!err && !vol->read_only)
		err = finish_interrupted(opening);
	if (err)
		return err;
	__atomic_store_n(&vol->mounting, false, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&vol->mmp_lost, __ATOMIC_SEQ_CST))
		return refuse(opening, -EBUSY,
			      "%s: another host has mounted it at the same time: unmount it there "
			      "first",
			      dev_name(opening));
	err = ext4_ticker_start(vol);
	return err ? refuse(opening, err, "%s: cannot start a thread: %s", dev_name(opening),
			    strerror(-err))
		   : 0;
}

int ext4_vol_open(struct dev *dev, const struct ext4_options *options, struct ext4_vol **ret,
		const char **ret_ro_reason, struct fdio_reason *reason)
{
	struct opening opening = { .vol = vol_new(dev, options), .reason = reason };
	int err;

	fdio_reason_clear(reason);
	if (!opening.vol)
		return refuse(&opening, -ENOMEM, "%s: no memory", dev->name);
	err = mount_volume(&opening);
	free(opening.log);
	if (err) {
		if (!fdio_reason_is_set(reason))
			fdio_reason_set(reason, "%s: cannot be opened: %s", dev->name,
					strerror(-err));
		vol_free(opening.vol);
		return err;
	}
	if (ret_ro_reason)
		*ret_ro_reason = options->read_only ? NULL : opening.ro_why;
	*ret = opening.vol;
	return 0;
}

int ext4_vol_recover(struct dev *dev, bool orphans, bool *ret_fsck, struct fdio_reason *reason)
{
	static const struct ext4_options options = { .read_only = true };
	struct opening opening = { .vol = vol_new(dev, &options),
				   .ret_fsck = ret_fsck,
				   .reason = reason };
	int err;

	*ret_fsck = false;
	fdio_reason_clear(reason);
	if (!opening.vol)
		return refuse(&opening, -ENOMEM, "%s: no memory", dev->name);
	err = load_consistent(&opening);
	if (!err && orphans)
		err = finish_before_read_only(&opening);
	free(opening.log);
	vol_free(opening.vol);
	return err;
}

/* ------------------------------------------------------------------ sync and close */
int ext4_vol_sync(struct ext4_vol *vol)
{
	int err, e;

	if (ext4_vol_read_only(vol))
		return journal_error(vol->journal) ? -EIO : 0;
	err = ext4_windows_settle(vol);
	e = ext4_vol_write_times(vol);
	err = err ? err : e;
	e = journal_sync(vol->journal);
	return err ? err : e;
}

int ext4_vol_close(struct ext4_vol *vol)
{
	int err = 0;

	ext4_vol_set_reaper(vol, NULL, NULL);
	ext4_ticker_end(vol);
	if (!ext4_vol_read_only(vol)) {
		err = close_rw(vol);
	} else if (journal_error(vol->journal)) {
		(void)journal_stop(vol->journal);
		ext4_error_write_last(vol);
		err = ext4_vol_is_shut_down(vol) ? 0 : -EIO;
	}
	vol_free(vol);
	return err;
}

void ext4_vol_abandon(struct ext4_vol *vol) { vol_free(vol); }

int ext4_vol_shutdown(struct ext4_vol *vol, enum ext4_shutdown how)
{
	int err = 0;

	if (ext4_vol_is_shut_down(vol))
		return 0;
	if (how == EXT4_SHUTDOWN_DEFAULT)
		err = ext4_vol_sync(vol);
	if (err)
		return err;
	__atomic_store_n(&vol->shut_down, true, __ATOMIC_SEQ_CST);
	if (ext4_vol_read_only(vol))
		return 0;
	if (how == EXT4_SHUTDOWN_LOGFLUSH)
		(void)journal_sync(vol->journal); /* whatever became of it, this is the end */
	journal_abort(vol->journal, -ESHUTDOWN);
	log_warn("%s: shut down by request: everything but unmounting fails from now on",
		 vol->dev->name);
	return 0;
}
