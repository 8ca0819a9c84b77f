/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of a volume: open (load.c, recovery.c, then start the journal and finish what a crash
 * interrupted), sync, close. Opening runs on the main thread, closing on the control thread, sync
 * and shutdown on workers. A volume that cannot be opened is freed, with the reason in one line; a
 * volume that cannot be closed cleanly is freed too, and needs_recovery stays set.
 *
 * The order at a read-write mount: the log is replayed and empty; the root is checked; the
 * superblock with needs_recovery and the mount count is written and flushed; only then the journal
 * starts. At unmount: the journal stops (all blocks are in their places, the log is empty, the
 * device is flushed); only then the superblock without needs_recovery is written and flushed. After
 * a crash anywhere in between, the next mount, the kernel or e2fsck recovers the file system.
 * VALID_FS stays set all the time, as with the kernel's journal, so that a crash costs a replay and
 * not a full check.
 */
#include "ext4/volume/opening.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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
	/* Files above 2 GiB need this feature. Set here, it never has to be set by a write. */
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
		return opening_refuse(opening, err, "%s: cannot write the superblock: %s",
				      dev_name(opening), strerror(-err));
	err = ext4_discard_start(vol);
	if (!err)
		err = journal_start(vol->journal);
	return err ? opening_refuse(opening, err, "%s: cannot start the journal: %s",
				    dev_name(opening), strerror(-err))
		   : 0;
}

/*
 * Finishes the deletions and truncates that a crash interrupted. As in the kernel, a file system
 * with errors keeps them for e2fsck.
 */
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
	return err ? opening_refuse(opening, err, "%s: cannot finish interrupted deletions: %s",
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
	/* The journal's threads call ext4_groups_seal, so they stop before the rooms are freed. */
	if (vol->journal && !vol->options.read_only)
		journal_abort(vol->journal, -ESHUTDOWN);
	if (vol->journal)
		(void)journal_stop(vol->journal);
	ext4_discard_stop(vol); /* its thread asks the journal whether it has aborted */
	volume_close_journal(vol);
	ext4_mmp_stop(vol);
	volume_unload(vol);
	ext4_dir_fini(vol);
	ext4_alloc_fini(vol);
	ext4_inodes_fini(vol);
	fdio_mutex_fini(&vol->volume.ticker_lock);
	ext4_error_fini(vol);
	pthread_cond_destroy(&vol->volume.ticker_cond);
	fdio_magic_clear(vol, MAGIC_EXT4_VOLUME);
	free(vol);
}

/* Whether mounting writes to the device, if only to replay the journal. */
static bool will_write(const struct opening *opening)
{
	const struct ext4_vol *vol = opening->vol;

	if (vol->dev->caps.read_only || vol->options.norecovery)
		return false;
	return ext2fs_has_feature_journal_needs_recovery(vol->fs->super) ||
	       !(vol->options.read_only || opening->ro_why);
}

/*
 * A volume with damaged group descriptors is not written, unless a replay comes first, which may
 * mend them. A read-only mount serves what the sound groups hold.
 */
static int check_groups(struct opening *opening)
{
	const struct ext4_vol *vol = opening->vol;
	uint32_t first, bad = ext4_bad_groups(vol, &first);

	if (!bad || !will_write(opening) ||
	    ext2fs_has_feature_journal_needs_recovery(vol->fs->super))
		return 0;
	return opening_refuse(opening, -EUCLEAN,
			      "%s: %u damaged group descriptors (the first: %u): run e2fsck %s; -o "
			      "ro serves the rest until then",
			      dev_name(opening), bad, first, dev_name(opening));
}

/*
 * Makes the file system consistent on disk and loads it. It is loaded anew after each replay; if
 * four rounds are not enough, the journal is damaged.
 */
static int load_consistent(struct opening *opening)
{
	bool again = true;
	int err = 0;

	for (int round = 0; round < 4 && again && !err; round++) {
		volume_unload(opening->vol);
		opening->ro_why = NULL;
		err = volume_load(opening);
		if (!err)
			err = check_groups(opening);
		if (!err && will_write(opening))
			err = ext4_mmp_start(opening->vol, opening->reason);
		if (!err)
			err = volume_check_journal(opening, &again);
	}
	if (!err && again)
		err = opening_refuse(opening, -EUCLEAN,
				     "%s: the journal does not come to rest: run e2fsck %s",
				     dev_name(opening), dev_name(opening));
	return err;
}

struct unmount {
	struct ext4_vol *vol;
	uint64_t free_blocks;
};

static void mark_clean(struct ext2_super_block *sb, void *arg)
{
	struct unmount *unmount = arg;
	uint64_t now = (uint64_t)ext4_now(unmount->vol).tv_sec;

	volume_clear_recover(sb, NULL);
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
	(void)ext4_windows_settle(vol); /* there are none if all files were closed */
	err = ext4_vol_write_times(vol);
	ext4_error_write(vol);
	e = journal_stop(vol->journal);
	ext4_discard_stop(vol);
	if (e || ext4_vol_read_only(vol)) {
		/* The next mount replays what the log holds: needs_recovery stays set. */
		ext4_error_write_last(vol);
		return e ? e : -EIO;
	}
	/* From the descriptors: alloc.free_blocks counts a group with a bad bitmap as full. */
	unmount.free_blocks = ext4_groups_free_on_disk(vol);
	e = ext4_super_update_raw(vol->dev, mark_clean, &unmount);
	return err ? err : e;
}

/* Refuses a file system without a root directory, before anything is written to it. */
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
	return err ? opening_refuse(opening, err,
				    "%s: the root directory cannot be read: %s: run e2fsck %s",
				    dev_name(opening), strerror(-err), dev_name(opening))
		   : 0;
}

/*
 * Whether a read-only mount has to finish deletions that a crash interrupted, as the kernel's does:
 * if there are any, and the device and the state of the file system allow writing.
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

/*
 * Before a read-only mount: finishes interrupted deletions in a read-write mount of its own, which
 * is closed before the read-only one begins.
 */
static int finish_before_read_only(struct opening *opening)
{
	struct ext4_vol *vol = opening->vol;
	int err, closed;

	if (!orphans_wait(opening))
		return 0;
	err = ext4_mmp_start(vol, opening->reason);
	if (!err)
		err = volume_open_journal(opening, true, false);
	if (!err)
		err = check_root(opening);
	if (!err)
		err = start_rw(opening, mark_in_use);
	if (err)
		return err;
	err = finish_interrupted(opening);
	closed = close_rw(vol);
	volume_close_journal(vol);
	/* An error here does not keep the volume from being read. */
	if (err || closed)
		log_warn("%s: interrupted deletions could not be finished: %s", dev_name(opening),
			 strerror(err ? -err : -closed));
	fdio_reason_clear(opening->reason);
	__atomic_store_n(&vol->read_only, false, __ATOMIC_SEQ_CST);
	return load_consistent(opening);
}

/* The blocks that only root and the owner named in the superblock may allocate. */
static uint64_t reserved_blocks(const struct ext2_super_block *sb)
{
	bool has_high = sb->s_feature_incompat & EXT4_FEATURE_INCOMPAT_64BIT;

	return sb->s_r_blocks_count | (has_high ? (uint64_t)sb->s_r_blocks_count_hi << 32 : 0);
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
	ext4_alloc_limits(vol, reserved_blocks(vol->fs->super));
	warn_state(vol);
	if (ext4_bad_groups(vol, NULL))
		log_err("%s: %u damaged group descriptors: what they describe may be missing; run "
			"e2fsck",
			dev_name(opening), ext4_bad_groups(vol, NULL));
	err = volume_open_journal(opening, !vol->read_only, vol->read_only);
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
		return opening_refuse(opening, -EBUSY,
				      "%s: another host has mounted it at the same time: unmount "
				      "it there first",
				      dev_name(opening));
	err = ext4_ticker_start(vol);
	return err ? opening_refuse(opening, err, "%s: cannot start a thread: %s",
				    dev_name(opening), strerror(-err))
		   : 0;
}

int ext4_vol_open(struct dev *dev, const struct ext4_options *options, struct ext4_vol **ret,
		  const char **ret_ro_reason, struct fdio_reason *reason)
{
	struct opening opening = { .vol = vol_new(dev, options), .reason = reason };
	int err;

	fdio_reason_clear(reason);
	if (!opening.vol)
		return opening_refuse(&opening, -ENOMEM, "%s: no memory", dev->name);
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
		return opening_refuse(&opening, -ENOMEM, "%s: no memory", dev->name);
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
		(void)journal_sync(vol->journal); /* an error changes nothing: the abort follows */
	journal_abort(vol->journal, -ESHUTDOWN);
	log_warn("%s: shut down by request: everything but unmounting fails from now on",
		 vol->dev->name);
	return 0;
}
