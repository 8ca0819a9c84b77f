/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of a volume: open (validate, features, recover, start the journal, finish what a crash
 * interrupted), sync, close. Called by main on one thread at either end; sync on any worker.
 *
 * The order at a read-write mount: the log is replayed and empty; the root is looked at; the superblock gets needs_recovery and
 * the mount is counted, flushed; only then the journal starts. At unmount: the journal stops (everything
 * home, log empty, flushed); only then needs_recovery goes, flushed. A crash anywhere in between leaves a
 * file system that the next mount, the kernel or e2fsck recovers. VALID_FS stays set all the time, as the
 * kernel does with a journal, so a crash costs a replay and not a full check.
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
	struct x4_vol *v;
	struct ext2_super_block sb;
	struct jnl_extent *log;
	unsigned nr_log;
	bool *ret_fsck;
	const char *ro_why;
	struct fdio_reason *reason;
};

__attribute__((format(printf, 3, 4))) static int refuse(struct opening *o, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fdio_reason_vset(o->reason, fmt, ap);
	va_end(ap);
	return err;
}

static const char *dev_name(const struct opening *o) { return o->v->dev->name; }

/* ------------------------------------------------------------------ geometry */
static void set_features(struct x4_vol *v)
{
	struct ext2_super_block *sb = v->fs->super;

	v->has_csum = ext2fs_has_feature_metadata_csum(sb);
	v->has_gdt_csum = !v->has_csum && ext2fs_has_feature_gdt_csum(sb);
	v->has_64bit = ext2fs_has_feature_64bit(sb);
	v->has_filetype = ext2fs_has_feature_filetype(sb);
	v->has_dir_index = ext2fs_has_feature_dir_index(sb);
	v->has_large_dir = ext2fs_has_feature_largedir(sb);
	v->has_dir_nlink = ext2fs_has_feature_dir_nlink(sb);
	v->has_extents = ext2fs_has_feature_extents(sb);
	v->has_ext_attr = ext2fs_has_feature_xattr(sb);
	v->has_ea_inode = ext2fs_has_feature_ea_inode(sb);
	v->csum_seed = v->fs->csum_seed;
	v->mount_state = sb->s_state;
	x4_label_init(v);
}

static int set_geometry(struct opening *o)
{
	struct x4_vol *v = o->v;
	struct ext2_super_block *sb = v->fs->super;

	v->block_size = v->fs->blocksize;
	v->block_bits = (unsigned)__builtin_ctz(v->block_size);
	v->inode_size = EXT2_INODE_SIZE(sb);
	v->nr_blocks = ext2fs_blocks_count(sb);
	v->nr_inodes = sb->s_inodes_count;
	v->nr_groups = v->fs->group_desc_count;
	v->first_data_block = sb->s_first_data_block;
	v->blocks_per_group = sb->s_blocks_per_group;
	v->inodes_per_group = sb->s_inodes_per_group;
	v->first_ino = EXT2_FIRST_INO(sb);
	v->desc_size = EXT2_DESC_SIZE(sb);
	v->itable_blocks = v->fs->inode_blocks_per_group;
	v->inodes_per_block = v->block_size / v->inode_size;
	v->sb_blk = SUPERBLOCK_OFFSET / v->block_size;
	v->sb_off = SUPERBLOCK_OFFSET % v->block_size;
	if (v->nr_blocks > v->dev->caps.size_bytes >> v->block_bits)
		return refuse(o, -EINVAL, "%s: the file system (%llu blocks of %u bytes) is larger than the device: it was cut off, or "
			      "resize2fs is needed", dev_name(o), (unsigned long long)v->nr_blocks, v->block_size);
	if (v->block_size < v->dev->caps.lbs)
		return refuse(o, -EINVAL, "%s: blocks of %u bytes cannot be written to sectors of %u bytes", dev_name(o), v->block_size,
			      v->dev->caps.lbs);
	if ((v->inodes_per_group & 7) || v->inodes_per_group > v->block_size * 8 ||
	    (v->blocks_per_group > v->block_size * 8 && !ext2fs_has_feature_bigalloc(sb)) ||
	    (v->blocks_per_group & 7) || v->inode_size > v->block_size || v->desc_size < 32 || v->first_ino < 11 ||
	    (uint64_t)v->nr_groups * v->inodes_per_group != v->nr_inodes)
		return refuse(o, -EUCLEAN, "%s: the superblock makes no sense: run e2fsck %s", dev_name(o), dev_name(o));
	set_features(v);
	return 0;
}

static void unload(struct x4_vol *v)
{
	x4_ea_fini(v);
	x4_icache_fini(v);
	x4_groups_fini(v);
	if (v->fs)
		ext2fs_free(v->fs);
	v->fs = NULL;
}

/* Everything that is derived from the superblock and the descriptors on the device. */
static int load(struct opening *o)
{
	struct x4_vol *v = o->v;
	long lib;
	int err = x4_super_read(v->dev, &o->sb, o->reason);
	const char *why;

	if (err == -EUCLEAN && !v->opt.norecovery && !x4_super_complete_torn(v->dev, &o->sb))
		err = x4_super_read(v->dev, &o->sb, o->reason);
	if (err)
		return err;
	fdio_reason_clear(o->reason);
	switch (x4_features_check(&o->sb, dev_name(o), &why, o->reason)) {
	case X4_REFUSE: return -EOPNOTSUPP;
	case X4_SERVE_RO: o->ro_why = why; break;
	case X4_SERVE_RW: break;
	}
	lib = x4_io_open_fs(v->dev, &v->fs);
	if (lib)
		return refuse(o, x4_from_ext2_err(lib), "%s: cannot read the file system: %s: run e2fsck %s", dev_name(o),
			      error_message(lib), dev_name(o));
	err = set_geometry(o);
	if (err)
		return err;
	err = x4_groups_init(v);
	if (!err)
		err = x4_zones_init(v);
	if (!err)
		err = x4_icache_init(v);
	if (x4_bad_groups(v, NULL))
		v->mount_state |= EXT2_ERROR_FS;
	return err ? refuse(o, err, "%s: %s", dev_name(o), strerror(-err)) : 0;
}

/* ------------------------------------------------------------------ journal */
static void journal_aborted(void *arg, int err)
{
	struct x4_vol *v = arg;

	fdio_magic_check(v, MAGIC_EXT4_VOLUME);
	if (err == -ESHUTDOWN)
		__atomic_store_n(&v->read_only, true, __ATOMIC_SEQ_CST);
	else
		x4_error_aborted(v, err);
}

static int journal_open(struct opening *o, bool with_log, bool ro)
{
	struct x4_vol *v = o->v;
	struct jnl_params p = {
		.dev = v->dev,
		.block_size = v->block_size,
		.nr_blocks = v->nr_blocks,
		.log = with_log ? o->log : NULL,
		.nr_log = with_log ? o->nr_log : 0,
		.metadata_csum = v->has_csum,
		.has_64bit = v->has_64bit,
		.read_only = ro,
		.commit_interval_s = v->opt.commit_interval_s,
		.cache_bytes = v->opt.cache_bytes,
		.seal = x4_groups_seal,
		.seal_blocks = v->fs->desc_blocks,
		.aborted = journal_aborted,
		.arg = v,
	};
	return jnl_open(&p, &v->jnl, o->reason);
}

static void journal_close(struct x4_vol *v)
{
	if (v->jnl)
		jnl_close(v->jnl);
	v->jnl = NULL;
}

/* e2fsck knows journals that we do not replay. It wants the device for itself, so the caller runs it. */
static int ask_for_e2fsck(struct opening *o, const char *obstacle)
{
	if (o->ret_fsck)
		*o->ret_fsck = true;
	return refuse(o, -EUCLEAN, "%s: the journal needs e2fsck (%s): run e2fsck -p %s, then mount again", dev_name(o), obstacle,
		      dev_name(o));
}

static void clear_recover(struct ext2_super_block *sb, void *arg)
{
	(void)arg;
	sb->s_feature_incompat &= ~(uint32_t)EXT3_FEATURE_INCOMPAT_RECOVER;
}

static int map_log(struct opening *o)
{
	struct x4_vol *v = o->v;
	int err;

	free(o->log);
	o->log = NULL;
	err = journal_open(o, false, true);
	if (err)
		return err;
	err = x4_map_log_extents(v, v->fs->super->s_journal_inum, &o->log, &o->nr_log);
	journal_close(v);
	if (err)
		return refuse(o, err, "%s: the journal's inode is damaged: run e2fsck %s; -o ro,norecovery serves the rest "
			      "until then", dev_name(o), dev_name(o));
	err = x4_zones_add_log(v, o->log, o->nr_log);
	return err ? refuse(o, err, "%s: %s", dev_name(o), strerror(-err)) : 0;
}

/*
 * e2fsck 1.47.0 was seen to fail in the middle of fast commits ("Invalid argument while recovering journal"), go on, and call
 * the file system clean: fsynced files were gone. So it is not run for the user.
 */
static int refuse_fast_commits(struct opening *o)
{
	return refuse(o, -EUCLEAN, "%s: the journal holds fast commits, which the kernel replays: mount it once with mount -t ext4 (e2fsck -p %s may "
		      "lose what they hold)", dev_name(o), dev_name(o));
}

struct past_errors { const struct ext2_super_block *before; bool aborted; };

static void keep_errors(struct ext2_super_block *sb, void *arg)
{
	const struct past_errors *p = arg;
	const struct ext2_super_block *b = p->before;
	const size_t first = offsetof(struct ext2_super_block, s_error_count), end = offsetof(struct ext2_super_block, s_mount_opts);

	sb->s_state |= (b->s_state & EXT2_ERROR_FS) | (p->aborted ? EXT2_ERROR_FS : 0);
	if (!b->s_error_count)
		return;
	memcpy((char *)sb + first, (const char *)b + first, end - first);
	sb->s_first_error_errcode = b->s_first_error_errcode;
	sb->s_last_error_errcode = b->s_last_error_errcode;
}

/* An aborted journal could not log its errors: they went into the superblock past it, where the replay may have put an older one. */
static int restore_errors(struct opening *o, bool aborted)
{
	struct past_errors p = { .before = &o->sb, .aborted = aborted };
	int err;

	if (!aborted && !o->sb.s_error_count && !(o->sb.s_state & EXT2_ERROR_FS))
		return 0;
	err = x4_super_update_raw(o->v->dev, keep_errors, &p);
	return err ? refuse(o, err, "%s: cannot write the superblock: %s", dev_name(o), strerror(-err)) : 0;
}

/* Replays what the journal, opened, holds; everything derived from disk is stale afterwards. *again: load and look once more. */
static int replay(struct opening *o, bool *again)
{
	struct x4_vol *v = o->v;
	const char *obstacle = jnl_replay_obstacle(v->jnl);
	struct jnl_replay_stats st;
	bool aborted;
	int err;

	*again = true;
	if (obstacle) {
		bool fast = jnl_may_have_fast_commits(v->jnl);

		journal_close(v);
		return fast ? refuse_fast_commits(o) : ask_for_e2fsck(o, obstacle);
	}
	aborted = jnl_past_error(v->jnl) != 0;
	err = jnl_replay(v->jnl, &st, o->reason);
	journal_close(v);
	if (st.fast_commits)
		return refuse_fast_commits(o);
	if (err)
		return err;
	log_info("%s: journal replayed: %u transactions, %u blocks, %u revoked", dev_name(o), st.transactions, st.blocks, st.revoked);
	return restore_errors(o, aborted);
}

/* needs_recovery is set: makes the file system consistent, or says why not. */
static int recover(struct opening *o, bool *again)
{
	struct x4_vol *v = o->v;
	int err;

	if (jnl_needs_replay(v->jnl))
		return replay(o, again);
	/* A crash between mount and the first commit, or at the very end of an unmount: nothing to replay. */
	err = x4_super_update_raw(v->dev, clear_recover, NULL);
	journal_close(v);
	*again = true;
	return err ? refuse(o, err, "%s: cannot write the superblock: %s", dev_name(o), strerror(-err)) : 0;
}

/* Looks at the journal; afterwards either the file system is clean and consistent, or *again. */
static int check_journal(struct opening *o, bool *again)
{
	struct x4_vol *v = o->v;
	bool needs = ext2fs_has_feature_journal_needs_recovery(v->fs->super);
	int err;

	*again = false;
	if (!ext2fs_has_feature_journal(v->fs->super)) {
		if (needs)
			return refuse(o, -EUCLEAN, "%s: recovery is wanted, but there is no journal: run e2fsck %s", dev_name(o), dev_name(o));
		return 0;
	}
	if (v->opt.norecovery) {
		o->ro_why = needs ? "the journal was not replayed (norecovery)" : o->ro_why ? o->ro_why : "norecovery was asked for";
		return 0;
	}
	/* As the kernel does: what is served without a replay is asked for by name. */
	if (needs && v->dev->caps.read_only)
		return refuse(o, -EROFS, "%s: the journal must be replayed, but the device cannot be written: make it "
			      "writable, or mount with -o norecovery (the latest changes are missing then)", dev_name(o));
	err = map_log(o);
	if (!err)
		err = journal_open(o, true, true);
	if (err)
		return err;
	if (needs)
		return recover(o, again);
	if (jnl_needs_replay(v->jnl))
		err = refuse(o, -EUCLEAN, "%s: the journal holds transactions, but the superblock says it is empty: run e2fsck %s",
			     dev_name(o), dev_name(o));
	journal_close(v);
	return err;
}

/* ------------------------------------------------------------------ mounting */
static void mark_in_use(struct ext2_super_block *sb, void *arg)
{
	struct x4_vol *v = arg;
	uint64_t now = (uint64_t)x4_now(v).tv_sec;

	sb->s_feature_incompat |= EXT3_FEATURE_INCOMPAT_RECOVER;
	sb->s_wtime = (uint32_t)now;
	sb->s_wtime_hi = (uint8_t)(now >> 32);
}

static void mark_mounted(struct ext2_super_block *sb, void *arg)
{
	mark_in_use(sb, arg);
	sb->s_feature_ro_compat |= EXT2_FEATURE_RO_COMPAT_LARGE_FILE; /* a size above 2 GiB needs it, and nobody lacks it */
	sb->s_mnt_count++;
	sb->s_mtime = sb->s_wtime;
	sb->s_mtime_hi = sb->s_wtime_hi;
}

static void warn_state(struct x4_vol *v)
{
	struct ext2_super_block *sb = v->fs->super;

	if (!(sb->s_state & EXT2_VALID_FS))
		log_warn("%s: the file system was not unmounted cleanly: running e2fsck is recommended", v->dev->name);
	if (sb->s_state & EXT2_ERROR_FS)
		log_warn("%s: the file system has errors: running e2fsck is recommended", v->dev->name);
	if (sb->s_max_mnt_count > 0 && sb->s_mnt_count >= (uint16_t)sb->s_max_mnt_count)
		log_warn("%s: mounted often without a check: running e2fsck is recommended", v->dev->name);
	if (sb->s_checkinterval &&
	    sb->s_lastcheck + (uint64_t)sb->s_checkinterval <= (uint64_t)x4_now(v).tv_sec)
		log_warn("%s: not checked for long: running e2fsck is recommended", v->dev->name);
}

static int start_rw(struct opening *o, void (*mark)(struct ext2_super_block *sb, void *arg))
{
	struct x4_vol *v = o->v;
	int err;

	err = x4_super_update_raw(v->dev, mark, v);
	if (err)
		return refuse(o, err, "%s: cannot write the superblock: %s", dev_name(o), strerror(-err));
	err = x4_discard_start(v);
	if (!err)
		err = jnl_start(v->jnl);
	return err ? refuse(o, err, "%s: cannot start the journal: %s", dev_name(o), strerror(-err)) : 0;
}

/* As the kernel: a file system with errors keeps its orphans for e2fsck. */
static int finish_interrupted(struct opening *o)
{
	struct x4_vol *v = o->v;
	int err;

	if (v->mount_state & EXT2_ERROR_FS) {
		if (v->fs->super->s_last_orphan)
			log_warn("%s: deletions that a crash interrupted are left to e2fsck, because the file system has errors", dev_name(o));
		return 0;
	}
	err = x4_orphans_process(v);
	if (!err)
		err = x4_orphan_file_process(v);
	if (err == -EUCLEAN) {
		log_warn("%s: some interrupted deletions could not be finished: run e2fsck", dev_name(o));
		return 0;
	}
	return err ? refuse(o, err, "%s: cannot finish interrupted deletions: %s", dev_name(o), strerror(-err)) : 0;
}

static struct x4_vol *vol_new(struct dev *dev, const struct x4_options *opt)
{
	struct x4_vol *v = x4_map_mem_init() ? NULL : calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	fdio_magic_set(v, MAGIC_EXT4_VOLUME);
	v->dev = dev;
	v->opt = *opt;
	v->mounting = true;
	fdio_mutex_init(&v->volume.ticker_lock, RANK_LEAF);
	fdio_cond_init(&v->volume.ticker_cond);
	x4_error_init(v);
	x4_alloc_init(v);
	x4_inodes_init(v);
	x4_ea_init(v);
	x4_data_init(v);
	x4_life_init(v);
	x4_dir_init(v);
	return v;
}

static void vol_free(struct x4_vol *v)
{
	x4_ticker_end(v);
	/* First: its threads call x4_groups_seal. */
	if (v->jnl && !v->opt.read_only)
		jnl_abort(v->jnl, -ESHUTDOWN);
	if (v->jnl)
		(void)jnl_stop(v->jnl);
	x4_discard_stop(v); /* before the journal goes: it asks whether that has aborted */
	journal_close(v);
	x4_mmp_stop(v);
	unload(v);
	x4_dir_fini(v);
	x4_alloc_fini(v);
	x4_inodes_fini(v);
	fdio_mutex_fini(&v->volume.ticker_lock);
	x4_error_fini(v);
	pthread_cond_destroy(&v->volume.ticker_cond);
	fdio_magic_clear(v, MAGIC_EXT4_VOLUME);
	free(v);
}

/* Mounting this will write, if only to replay the journal. */
static bool will_write(const struct opening *o)
{
	const struct x4_vol *v = o->v;

	if (v->dev->caps.read_only || v->opt.norecovery)
		return false;
	return ext2fs_has_feature_journal_needs_recovery(v->fs->super) || !(v->opt.read_only || o->ro_why);
}

/* What a journal holds may mend descriptors, so it is replayed first. Reading goes around what is damaged. */
static int check_groups(struct opening *o)
{
	const struct x4_vol *v = o->v;

	uint32_t first, bad = x4_bad_groups(v, &first);

	if (!bad || !will_write(o) || ext2fs_has_feature_journal_needs_recovery(v->fs->super))
		return 0;
	return refuse(o, -EUCLEAN, "%s: %u damaged group descriptors (the first: %u): run e2fsck %s; -o ro serves the rest until then",
		      dev_name(o), bad, first, dev_name(o));
}

/* Consistent on disk and loaded. A replay, or e2fsck, makes it necessary to begin anew; that happens a few times at most. */
static int load_consistent(struct opening *o)
{
	bool again = true;
	int err = 0;

	for (int round = 0; round < 4 && again && !err; round++) {
		unload(o->v);
		o->ro_why = NULL;
		err = load(o);
		if (!err)
			err = check_groups(o);
		if (!err && will_write(o))
			err = x4_mmp_start(o->v, o->reason);
		if (!err)
			err = check_journal(o, &again);
	}
	if (!err && again)
		err = refuse(o, -EUCLEAN, "%s: the journal does not come to rest: run e2fsck %s", dev_name(o), dev_name(o));
	return err;
}

struct unmount { struct x4_vol *v; uint64_t free_blocks; };

static void mark_clean(struct ext2_super_block *sb, void *arg)
{
	struct unmount *u = arg;
	uint64_t now = (uint64_t)x4_now(u->v).tv_sec;

	clear_recover(sb, NULL);
	sb->s_free_inodes_count = x4_free_inodes(u->v);
	sb->s_free_blocks_count = (uint32_t)u->free_blocks;
	if (u->v->has_64bit)
		sb->s_free_blocks_hi = (uint32_t)(u->free_blocks >> 32);
	sb->s_wtime = (uint32_t)now;
	sb->s_wtime_hi = (uint8_t)(now >> 32);
}

static int close_rw(struct x4_vol *v)
{
	struct unmount u = { .v = v };
	int err, e;

	x4_vol_reap(v);
	x4_ea_settle(v);
	x4_icache_evict_unlinked(v);
	(void)x4_windows_settle(v); /* none, if all files were closed */
	err = x4_vol_write_times(v);
	x4_error_write(v);
	e = jnl_stop(v->jnl);
	x4_discard_stop(v);
	if (e || x4_vol_read_only(v)) {
		/* What the log holds is for the next mount to replay: needs_recovery stays. */
		x4_error_write_last(v);
		return e ? e : -EIO;
	}
	/* Nothing is reserved or pending any more, but a damaged group counts as full in free_blocks: ask the descriptors. */
	u.free_blocks = x4_groups_free_on_disk(v);
	e = x4_super_update_raw(v->dev, mark_clean, &u);
	return err ? err : e;
}

/* Before anything is written: what has no root is not served, and stays as it is. */
static int check_root(struct opening *o)
{
	struct x4_vol *v = o->v;
	struct x4_inode *root;
	int err = x4_iget_special(v, X4_ROOT_INO, &root);

	if (!err) {
		if (!S_ISDIR(root->raw->i_mode) || !root->raw->i_links_count || !x4_raw_size(root) || !x4_raw_blocks_512(root))
			err = -EUCLEAN;
		x4_iput(root);
	}
	return err ? refuse(o, err, "%s: the root directory cannot be read: %s: run e2fsck %s", dev_name(o), strerror(-err), dev_name(o))
		   : 0;
}

/* What a crash interrupted is to be finished although the mount is read-only, as the kernel does, and can be. */
static bool orphans_wait(const struct opening *o)
{
	const struct x4_vol *v = o->v;
	const struct ext2_super_block *sb = v->fs->super;

	if (!sb->s_last_orphan && !(sb->s_feature_ro_compat & EXT4_FEATURE_RO_COMPAT_ORPHAN_PRESENT))
		return false;
	if (v->dev->caps.read_only || o->ro_why)
		log_info("%s: deletions that a crash interrupted are left to a mount that may write", dev_name(o));
	return !v->dev->caps.read_only && !o->ro_why && !x4_bad_groups(v, NULL) && !(v->mount_state & EXT2_ERROR_FS);
}

/* Writes before a mount that is read-only; afterwards everything is as after an unmount. */
static int finish_before_read_only(struct opening *o)
{
	struct x4_vol *v = o->v;
	int err, closed;

	if (!orphans_wait(o))
		return 0;
	err = x4_mmp_start(v, o->reason);
	if (!err)
		err = journal_open(o, true, false);
	if (!err)
		err = check_root(o);
	if (!err)
		err = start_rw(o, mark_in_use);
	if (err)
		return err;
	err = finish_interrupted(o);
	closed = close_rw(v);
	journal_close(v);
	/* Reading is possible all the same. */
	if (err || closed)
		log_warn("%s: interrupted deletions could not be finished: %s", dev_name(o), strerror(err ? -err : -closed));
	fdio_reason_clear(o->reason);
	__atomic_store_n(&v->read_only, false, __ATOMIC_SEQ_CST);
	return load_consistent(o);
}

static int mount_volume(struct opening *o)
{
	struct x4_vol *v = o->v;
	int err = load_consistent(o);

	if (!err && v->opt.read_only)
		err = finish_before_read_only(o);
	if (err)
		return err;
	if (v->dev->caps.read_only && !o->ro_why)
		o->ro_why = "the device is read-only";
	v->read_only = v->opt.read_only || o->ro_why;
	x4_alloc_limits(v, x4_sb_r_blocks(v->fs->super));
	warn_state(v);
	if (x4_bad_groups(v, NULL))
		log_err("%s: %u damaged group descriptors: what they describe may be missing; run e2fsck", dev_name(o), x4_bad_groups(v, NULL));
	err = journal_open(o, !v->read_only, v->read_only);
	if (!err)
		err = check_root(o);
	if (!err && !v->read_only)
		err = start_rw(o, mark_mounted);
	if (!err && !v->read_only)
		err = finish_interrupted(o);
	if (err)
		return err;
	__atomic_store_n(&v->mounting, false, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&v->mmp_lost, __ATOMIC_SEQ_CST))
		return refuse(o, -EBUSY, "%s: another host has mounted it at the same time: unmount it there first", dev_name(o));
	err = x4_ticker_start(v);
	return err ? refuse(o, err, "%s: cannot start a thread: %s", dev_name(o), strerror(-err)) : 0;
}

int x4_vol_open(struct dev *dev, const struct x4_options *opt, struct x4_vol **ret,
		const char **ret_ro_reason, struct fdio_reason *reason)
{
	struct opening o = { .v = vol_new(dev, opt), .reason = reason };
	int err;

	fdio_reason_clear(reason);
	if (!o.v)
		return refuse(&o, -ENOMEM, "%s: no memory", dev->name);
	err = mount_volume(&o);
	free(o.log);
	if (err) {
		if (!fdio_reason_is_set(reason))
			fdio_reason_set(reason, "%s: cannot be opened: %s", dev->name,
					strerror(-err));
		vol_free(o.v);
		return err;
	}
	if (ret_ro_reason)
		*ret_ro_reason = opt->read_only ? NULL : o.ro_why;
	*ret = o.v;
	return 0;
}

int x4_vol_recover(struct dev *dev, bool orphans, bool *ret_fsck, struct fdio_reason *reason)
{
	static const struct x4_options opt = { .read_only = true };
	struct opening o = { .v = vol_new(dev, &opt), .ret_fsck = ret_fsck, .reason = reason };
	int err;

	*ret_fsck = false;
	fdio_reason_clear(reason);
	if (!o.v)
		return refuse(&o, -ENOMEM, "%s: no memory", dev->name);
	err = load_consistent(&o);
	if (!err && orphans)
		err = finish_before_read_only(&o);
	free(o.log);
	vol_free(o.v);
	return err;
}

/* ------------------------------------------------------------------ sync and close */
int x4_vol_sync(struct x4_vol *v)
{
	int err, e;

	if (x4_vol_read_only(v))
		return jnl_error(v->jnl) ? -EIO : 0;
	err = x4_windows_settle(v);
	e = x4_vol_write_times(v);
	err = err ? err : e;
	e = jnl_sync(v->jnl);
	return err ? err : e;
}

int x4_vol_close(struct x4_vol *v)
{
	int err = 0;

	x4_vol_set_reaper(v, NULL, NULL);
	x4_ticker_end(v);
	if (!x4_vol_read_only(v)) {
		err = close_rw(v);
	} else if (jnl_error(v->jnl)) {
		(void)jnl_stop(v->jnl);
		x4_error_write_last(v);
		err = x4_vol_is_shut_down(v) ? 0 : -EIO;
	}
	vol_free(v);
	return err;
}

void x4_vol_abandon(struct x4_vol *v) { vol_free(v); }

int x4_vol_shutdown(struct x4_vol *v, enum x4_shutdown how)
{
	int err = 0;

	if (x4_vol_is_shut_down(v))
		return 0;
	if (how == X4_SHUTDOWN_DEFAULT)
		err = x4_vol_sync(v);
	if (err)
		return err;
	__atomic_store_n(&v->shut_down, true, __ATOMIC_SEQ_CST);
	if (x4_vol_read_only(v))
		return 0;
	if (how == X4_SHUTDOWN_LOGFLUSH)
		(void)jnl_sync(v->jnl); /* whatever became of it, this is the end */
	jnl_abort(v->jnl, -ESHUTDOWN);
	log_warn("%s: shut down by request: everything but unmounting fails from now on", v->dev->name);
	return 0;
}
