/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Multiple mount protection (the mmp feature): a block outside the journal, into which the host
 * that has the file system mounted writes a new sequence number every few seconds, so that a second
 * host that can reach the device sees that the file system is in use.
 *
 * MMP-1 Starting: a block that says "clean" may be taken; one that e2fsck has marked is refused;
 *       any other number belongs to a host that is alive or has died. To find out, wait for twice
 *       the interval that the host promised and one second (if the interval is longer than a
 *       minute, for the interval and a minute): if the number changes, the host is alive.
 * MMP-2 After writing its own number, a host reads the block again a moment later, because two
 *       hosts may have found "clean" at the same time. (The kernel does not wait here.)
 * MMP-3 Each update reads the block first. If it holds another number than this host's, another
 *       host has taken the file system without seeing this one. From then on nothing is written,
 *       not even errors into the superblock: the file system belongs to the other host. A number
 *       whose write has failed is this host's too: it may be on the device or not.
 * MMP-4 Stopping writes "clean", last of all, when everything else is on the device.
 *
 * The thread that opens or closes the volume starts and stops; a thread of its own updates. lock
 * guards only stop; no lock is held while a thread waits for the device. A failed update is logged
 * and tried again at the next interval.
 */
#include "ext4/core/structs.h"
#include "ext4/volume/parts.h"

#include "base/crc32c.h"
#include "base/log.h"
#include "base/stop.h"
#include "base/thread.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define MIN_CHECK_S 5u      /* as the kernel: an interval that others can rely on */
#define MAX_CHECK_S 300u
#define CHECK_MULT 2u
#define SETTLE_NS 1000000000ULL

struct ext4_mmp {
	struct ext4_vol *vol;
	struct dev *dev;
	uint64_t off;              /* where the block lies on the device, in bytes */
	uint32_t len;              /* bytes that are read and written: the block size */
	bool has_csum;
	uint32_t checksum_seed;
	uint32_t interval_s;       /* from one update to the next */
	uint32_t check_s;          /* the interval that is promised to other hosts */
	uint32_t seq;              /* the number that this host has written last */
	uint32_t failed_seq;       /* 0, or a number that may be there although its write failed */
	struct mmp_struct *block;  /* len bytes, disk order */
	struct fdio_mutex lock;    /* RANK_LEAF; guards stop */
	pthread_cond_t cond;
	bool stop;
	bool lost;                 /* MMP-3; read by others after the thread has ended */
	pthread_t thread;
};

/* ---- the block ---- */
static uint32_t checksum(const struct ext4_mmp *mmp)
{
	return fdio_crc32c(mmp->checksum_seed, mmp->block,
			   offsetof(struct mmp_struct, mmp_checksum));
}

static int read_block(struct ext4_mmp *mmp)
{
	int err = dev_read(mmp->dev, mmp->block, mmp->len, mmp->off);

	if (err)
		return err;
	if (mmp->block->mmp_magic != EXT4_MMP_MAGIC ||
	    (mmp->has_csum && mmp->block->mmp_checksum != checksum(mmp)))
		return -EUCLEAN;
	return 0;
}

static int write_block(struct ext4_mmp *mmp, uint32_t seq)
{
	char node[sizeof(mmp->block->mmp_nodename) + 1] = "";

	gethostname(node, sizeof(node) - 1);
	memcpy(mmp->block->mmp_nodename, node, sizeof(mmp->block->mmp_nodename));
	memset(mmp->block->mmp_bdevname, 0, sizeof(mmp->block->mmp_bdevname));
	memcpy(mmp->block->mmp_bdevname, mmp->dev->name,
	       strnlen(mmp->dev->name, sizeof(mmp->block->mmp_bdevname) - 1));
	mmp->block->mmp_seq = seq;
	mmp->block->mmp_time = (uint64_t)ext4_now(mmp->vol).tv_sec;
	mmp->block->mmp_check_interval = (uint16_t)mmp->check_s;
	if (mmp->has_csum)
		mmp->block->mmp_checksum = checksum(mmp);
	return dev_write(mmp->dev, mmp->block, mmp->len, mmp->off, DEV_FUA);
}

static uint32_t new_seq(void)
{
	uint32_t seq;

	do {
		if (getrandom(&seq, sizeof(seq), 0) != (ssize_t)sizeof(seq))
			seq = (uint32_t)fdio_now_ns();
	} while (seq == 0 || seq > EXT4_MMP_SEQ_MAX);
	return seq;
}

/* ---- the thread that updates the block ---- */
/* Another host has the file system: stops writing at once (MMP-3). */
static void lost(struct ext4_mmp *mmp)
{
	struct ext4_vol *vol = mmp->vol;

	mmp->lost = true;
	log_err("%s: host %.64s has mounted it too (device %.32s): nothing more is written here; "
		"unmount it on both and run e2fsck",
		mmp->dev->name, (const char *)mmp->block->mmp_nodename,
		(const char *)mmp->block->mmp_bdevname);
	__atomic_store_n(&vol->mmp_lost, true, __ATOMIC_SEQ_CST);
	/* While the volume is being opened there may be no journal: mount_volume reads mmp_lost. */
	if (__atomic_load_n(&vol->mounting, __ATOMIC_SEQ_CST))
		return;
	/* After an abort with ESHUTDOWN nothing is written any more, not even to the superblock. */
	if (vol->journal)
		journal_abort(vol->journal, -ESHUTDOWN);
	if (vol->options.went_read_only)
		vol->options.went_read_only(vol->options.arg, "another host has mounted it");
}

static bool is_own(const struct ext4_mmp *mmp)
{
	uint32_t seq = mmp->block->mmp_seq;

	return seq == mmp->seq || (mmp->failed_seq && seq == mmp->failed_seq);
}

static int write_next(struct ext4_mmp *mmp)
{
	uint32_t next = mmp->seq >= EXT4_MMP_SEQ_MAX ? 1 : mmp->seq + 1;
	int err = write_block(mmp, next);

	mmp->failed_seq = err ? next : 0;
	if (!err)
		mmp->seq = next;
	return err;
}

static void update(struct ext4_mmp *mmp)
{
	int err = read_block(mmp);

	if (!err && !is_own(mmp)) {
		lost(mmp);
		return;
	}
	if (!err) {
		mmp->seq = mmp->block->mmp_seq;
		err = write_next(mmp);
	}
	if (err)
		log_ratelimited(FDIO_LOG_ERR, "%s: cannot renew the mount's mark (mmp): %s",
				mmp->dev->name, strerror(-err));
}

/* Waits until fdio_now_ns reaches `when`. False: ext4_mmp_stop came before that. */
static bool wait_until(struct ext4_mmp *mmp, uint64_t when)
{
	bool stop;

	fdio_mutex_lock(&mmp->lock);
	while (!mmp->stop && fdio_now_ns() < when)
		fdio_cond_timedwait(&mmp->cond, &mmp->lock, when);
	stop = mmp->stop;
	fdio_mutex_unlock(&mmp->lock);
	return !stop;
}

static void *keeper(void *arg)
{
	struct ext4_mmp *mmp = arg;

	while (!mmp->lost && wait_until(mmp, fdio_now_ns() + mmp->interval_s * 1000000000ULL))
		update(mmp);
	return NULL;
}

/* ---- taking and giving back ---- */
static int in_use(const struct ext4_mmp *mmp, struct fdio_reason *reason)
{
	fdio_reason_set(reason,
			"%s: in use by host %.64s (device %.32s): unmount it there first; if that "
			"host does not run any more, e2fsck clears the mark",
			mmp->dev->name, (const char *)mmp->block->mmp_nodename,
			(const char *)mmp->block->mmp_bdevname);
	return -EBUSY;
}

/* MMP-1: 0 if the file system may be taken, after waiting for a host that may have died. */
static int wait_for_owner(struct ext4_mmp *mmp, struct fdio_reason *reason)
{
	uint32_t seq = mmp->block->mmp_seq;
	uint32_t wait_s = FDIO_MIN(mmp->check_s * 2 + 1, mmp->check_s + 60);
	int err;

	if (seq == EXT4_MMP_SEQ_CLEAN)
		return 0;
	if (seq == EXT4_MMP_SEQ_FSCK || seq > EXT4_MMP_SEQ_MAX) {
		fdio_reason_set(reason,
				"%s: e2fsck is running on it, or was interrupted: run e2fsck %s",
				mmp->dev->name, mmp->dev->name);
		return -EBUSY;
	}
	log_info("%s: not unmounted cleanly, or in use by host %.64s: watching it for %u seconds "
		 "(mmp)",
		 mmp->dev->name, (const char *)mmp->block->mmp_nodename, wait_s);
	if (fdio_stop_wait(fdio_now_ns() + wait_s * 1000000000ULL)) {
		fdio_reason_set(reason,
				"%s: told to end while watching whether another host uses it (mmp)",
				mmp->dev->name);
		return -EINTR;
	}
	err = read_block(mmp);
	if (err)
		return err;
	return mmp->block->mmp_seq == seq ? 0 : in_use(mmp, reason);
}

static int take(struct ext4_mmp *mmp, struct fdio_reason *reason)
{
	int err = read_block(mmp);

	if (err)
		return err;
	/* The host that wrote the block may have promised a longer interval than the superblock. */
	mmp->check_s = FDIO_MAX(mmp->interval_s * CHECK_MULT, MIN_CHECK_S);
	mmp->check_s = FDIO_MAX(mmp->check_s, (uint32_t)mmp->block->mmp_check_interval);
	mmp->check_s = FDIO_MIN(mmp->check_s, MAX_CHECK_S);
	err = wait_for_owner(mmp, reason);
	if (err)
		return err;
	mmp->seq = new_seq();
	err = write_block(mmp, mmp->seq);
	if (err)
		return err;
	wait_until(mmp, fdio_now_ns() + SETTLE_NS); /* MMP-2 */
	err = read_block(mmp);
	if (err)
		return err;
	return mmp->block->mmp_seq == mmp->seq ? 0 : in_use(mmp, reason);
}

static void mmp_free(struct ext4_mmp *mmp)
{
	if (!mmp)
		return;
	pthread_cond_destroy(&mmp->cond);
	fdio_mutex_fini(&mmp->lock);
	free(mmp->block);
	free(mmp);
}

static struct ext4_mmp *mmp_new(struct ext4_vol *vol)
{
	struct ext4_mmp *mmp = calloc(1, sizeof(*mmp));
	const struct ext2_super_block *sb = vol->fs->super;

	if (!mmp)
		return NULL;
	mmp->vol = vol;
	mmp->dev = vol->dev;
	mmp->off = sb->s_mmp_block << vol->block_bits;
	mmp->len = vol->block_size;
	mmp->has_csum = vol->has_csum;
	mmp->checksum_seed = vol->checksum_seed;
	mmp->interval_s = FDIO_MAX((uint32_t)sb->s_mmp_update_interval, 1u);
	mmp->interval_s = FDIO_MIN(mmp->interval_s, MAX_CHECK_S);
	mmp->block = fdio_alloc_aligned(4096, FDIO_MAX(mmp->len, (uint32_t)sizeof(*mmp->block)));
	fdio_mutex_init(&mmp->lock, RANK_LEAF);
	fdio_cond_init(&mmp->cond);
	if (!mmp->block) {
		mmp_free(mmp);
		return NULL;
	}
	return mmp;
}

int ext4_mmp_start(struct ext4_vol *vol, struct fdio_reason *reason)
{
	uint64_t blk = vol->fs->super->s_mmp_block;
	struct ext4_mmp *mmp;
	int err;

	if (vol->volume.mmp || !ext2fs_has_feature_mmp(vol->fs->super))
		return 0;
	if (blk <= vol->first_data_block || blk >= vol->nr_blocks) {
		fdio_reason_set(reason,
				"%s: the block for multiple mount protection is not in the file "
				"system: run e2fsck %s",
				vol->dev->name, vol->dev->name);
		return -EUCLEAN;
	}
	mmp = mmp_new(vol);
	if (!mmp)
		return -ENOMEM;
	err = take(mmp, reason);
	if (!err)
		err = thread_start(&mmp->thread, "ext4-mmp", keeper, mmp);
	if (err && !fdio_reason_is_set(reason))
		fdio_reason_set(reason, "%s: multiple mount protection: %s: run e2fsck %s",
				vol->dev->name, strerror(-err), vol->dev->name);
	if (err)
		mmp_free(mmp);
	else
		vol->volume.mmp = mmp;
	return err;
}

void ext4_mmp_stop(struct ext4_vol *vol)
{
	struct ext4_mmp *mmp = vol->volume.mmp;
	int err;

	if (!mmp)
		return;
	fdio_mutex_lock(&mmp->lock);
	mmp->stop = true;
	pthread_cond_broadcast(&mmp->cond);
	fdio_mutex_unlock(&mmp->lock);
	pthread_join(mmp->thread, NULL);
	if (!mmp->lost) {
		err = write_block(mmp, EXT4_MMP_SEQ_CLEAN); /* MMP-4 */
		if (err)
			log_err("%s: cannot take back the mount's mark (mmp): %s: the next mount "
				"will wait for this one",
				mmp->dev->name, strerror(-err));
	}
	vol->volume.mmp = NULL;
	mmp_free(mmp);
}
