/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The journal while a volume opens: where its log lies, whether it must be replayed, and the
 * replay. Everything that was read from the device before a replay is stale after it, so the caller
 * loads the volume anew and looks at the journal again. A journal that fusedio does not replay
 * (fast commits, unknown features, damage) is refused with the way out; nothing is written then.
 *
 * A replay may bring back an older superblock: the errors that a past mount has noted there are
 * written again afterwards (restore_errors).
 *
 * Only the thread that opens the volume; the journal calls note_journal_abort on any thread.
 */
#include "ext4/volume/opening.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void note_journal_abort(void *arg, int err)
{
	struct ext4_vol *vol = arg;

	fdio_magic_check(vol, MAGIC_EXT4_VOLUME);
	if (err == -ESHUTDOWN)
		__atomic_store_n(&vol->read_only, true, __ATOMIC_SEQ_CST);
	else
		ext4_error_aborted(vol, err);
}

int volume_open_journal(struct opening *opening, bool with_log, bool ro)
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

void volume_close_journal(struct ext4_vol *vol)
{
	if (vol->journal)
		journal_close(vol->journal);
	vol->journal = NULL;
}

/*
 * e2fsck can replay journals that fusedio does not. It needs the device for itself, so it is run by
 * the caller, or by the user.
 */
static int ask_for_e2fsck(struct opening *opening, const char *obstacle)
{
	if (opening->ret_fsck)
		*opening->ret_fsck = true;
	return opening_refuse(opening, -EUCLEAN,
			      "%s: the journal needs e2fsck (%s): run e2fsck -p %s, then mount "
			      "again",
			      dev_name(opening), obstacle, dev_name(opening));
}

void volume_clear_recover(struct ext2_super_block *sb, void *arg)
{
	(void)arg;
	sb->s_feature_incompat &= ~(uint32_t)EXT3_FEATURE_INCOMPAT_RECOVER;
}

/* Finds out where the log lies, and keeps its blocks from being allocated. */
static int map_log(struct opening *opening)
{
	struct ext4_vol *vol = opening->vol;
	int err;

	free(opening->log);
	opening->log = NULL;
	err = volume_open_journal(opening, false, true);
	if (err)
		return err;
	err = ext4_map_log_extents(vol, vol->fs->super->s_journal_inum, &opening->log,
				   &opening->nr_log);
	volume_close_journal(vol);
	if (err)
		return opening_refuse(opening, err,
				      "%s: the journal's inode is damaged: run e2fsck %s; -o "
				      "ro,norecovery serves the rest until then",
				      dev_name(opening), dev_name(opening));
	err = ext4_zones_add_log(vol, opening->log, opening->nr_log);
	return err ? opening_refuse(opening, err, "%s: %s", dev_name(opening), strerror(-err)) : 0;
}

/*
 * e2fsck 1.47.0 was seen to fail in the middle of fast commits ("Invalid argument while recovering
 * journal"), go on, and call the file system clean: fsynced files were gone. So fusedio does not
 * run it for the user.
 */
static int refuse_fast_commits(struct opening *opening)
{
	return opening_refuse(opening, -EUCLEAN,
			      "%s: the journal holds fast commits, which the kernel replays: mount "
			      "it once with mount -t ext4 (e2fsck -p %s may lose what they hold)",
			      dev_name(opening), dev_name(opening));
}

struct past_errors {
	const struct ext2_super_block *before; /* the superblock as it was before the replay */
	bool aborted;                          /* the journal says that it was aborted */
};

/* Copies what before says of errors: the state bit, and the fields that describe them. */
static void keep_errors(struct ext2_super_block *sb, void *arg)
{
	const struct past_errors *errors = arg;
	const struct ext2_super_block *before = errors->before;
	const size_t first = offsetof(struct ext2_super_block, s_error_count),
		     end = offsetof(struct ext2_super_block, s_mount_opts);

	sb->s_state |= (before->s_state & EXT2_ERROR_FS) | (errors->aborted ? EXT2_ERROR_FS : 0);
	if (!before->s_error_count)
		return;
	memcpy((char *)sb + first, (const char *)before + first, end - first);
	sb->s_first_error_errcode = before->s_first_error_errcode;
	sb->s_last_error_errcode = before->s_last_error_errcode;
}

/*
 * An aborted journal could not log its errors: they were written into the superblock directly,
 * which the replay may have overwritten with an older one.
 */
static int restore_errors(struct opening *opening, bool aborted)
{
	struct past_errors errors = { .before = &opening->sb, .aborted = aborted };
	int err;

	if (!aborted && !opening->sb.s_error_count && !(opening->sb.s_state & EXT2_ERROR_FS))
		return 0;
	err = ext4_super_update_raw(opening->vol->dev, keep_errors, &errors);
	return err ? opening_refuse(opening, err, "%s: cannot write the superblock: %s",
				    dev_name(opening), strerror(-err))
		   : 0;
}

/* Replays the journal, which is open, and closes it. Always sets *again: what was read is stale. */
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

		volume_close_journal(vol);
		return fast ? refuse_fast_commits(opening) : ask_for_e2fsck(opening, obstacle);
	}
	aborted = journal_past_error(vol->journal) != 0;
	err = journal_replay(vol->journal, &stats, opening->reason);
	volume_close_journal(vol);
	if (stats.fast_commits)
		return refuse_fast_commits(opening);
	if (err)
		return err;
	log_info("%s: journal replayed: %u transactions, %u blocks, %u revoked", dev_name(opening),
		 stats.transactions, stats.blocks, stats.revoked);
	return restore_errors(opening, aborted);
}

/* needs_recovery is set: makes the file system consistent, or refuses. Closes the journal. */
static int recover(struct opening *opening, bool *again)
{
	struct ext4_vol *vol = opening->vol;
	int err;

	if (journal_needs_replay(vol->journal))
		return replay(opening, again);
	/* A crash before the first commit, or at the very end of an unmount: nothing to replay. */
	err = ext4_super_update_raw(vol->dev, volume_clear_recover, NULL);
	volume_close_journal(vol);
	*again = true;
	return err ? opening_refuse(opening, err, "%s: cannot write the superblock: %s",
				    dev_name(opening), strerror(-err))
		   : 0;
}

int volume_check_journal(struct opening *opening, bool *again)
{
	struct ext4_vol *vol = opening->vol;
	bool needs = ext2fs_has_feature_journal_needs_recovery(vol->fs->super);
	int err;

	*again = false;
	if (!ext2fs_has_feature_journal(vol->fs->super)) {
		if (needs)
			return opening_refuse(opening, -EUCLEAN,
					      "%s: recovery is wanted, but there is no journal: "
					      "run e2fsck %s",
					      dev_name(opening), dev_name(opening));
		return 0;
	}
	if (vol->options.norecovery) {
		if (needs)
			opening->ro_why = "the journal was not replayed (norecovery)";
		else if (!opening->ro_why)
			opening->ro_why = "norecovery was asked for";
		return 0;
	}
	/* As in the kernel, serving without a replay has to be asked for by name. */
	if (needs && vol->dev->caps.read_only)
		return opening_refuse(opening, -EROFS,
				      "%s: the journal must be replayed, but the device cannot be "
				      "written: make it writable, or mount with -o norecovery (the "
				      "latest changes are missing then)",
				      dev_name(opening));
	err = map_log(opening);
	if (!err)
		err = volume_open_journal(opening, true, true);
	if (err)
		return err;
	if (needs)
		return recover(opening, again);
	if (journal_needs_replay(vol->journal))
		err = opening_refuse(opening, -EUCLEAN,
				     "%s: the journal holds transactions, but the superblock says "
				     "it is empty: run e2fsck %s",
				     dev_name(opening), dev_name(opening));
	volume_close_journal(vol);
	return err;
}
