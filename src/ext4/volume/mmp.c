/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Multiple mount protection (the mmp feature): a block outside the journal, in which whoever has the file system mounted writes a
 * new sequence number every few seconds, so that a second host that can reach the device sees that it is in use.
 *
 * MMP-1 Starting: a block that says "clean" may be taken; one that a check has marked is refused; anything else belongs to a host that
 *    is alive, or died. Twice the interval that it promised, and one second, tell which: if the number changes, it is alive.
 * MMP-2 After writing an own number it is read again a moment later, because two hosts may have found "clean" at the same time. (The
 *    kernel does not wait here.)
 * MMP-3 Each update reads first: a number that is not the own one means that another host has not seen this one. Nothing more is
 *    written from then on, not even the superblock's note of errors: it belongs to the other.
 * MMP-4 Stopping writes "clean", last of all, when everything else is on the device.
 *
 * The main thread starts and stops; one thread updates. No lock of any other part is held while it waits for the device.
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

struct x4_mmp {
	struct x4_vol *v;
	struct dev *dev;
	uint64_t off;              /* of the block on the device */
	uint32_t len;              /* what is read and written: a block */
	bool has_csum;
	uint32_t csum_seed;
	uint32_t interval_s, check_s;
	uint32_t seq;
	struct mmp_struct *block;  /* len bytes, disk order */
	struct fdio_mutex lock;    /* RANK_LEAF; guards stop */
	pthread_cond_t cond;
	bool stop, on, lost;
	pthread_t thread;
};

/* ---- the block ---- */
static uint32_t checksum(const struct x4_mmp *m)
{
	return fdio_crc32c(m->csum_seed, m->block, offsetof(struct mmp_struct, mmp_checksum));
}

static int read_block(struct x4_mmp *m)
{
	int err = dev_read(m->dev, m->block, m->len, m->off);

	if (err)
		return err;
	if (m->block->mmp_magic != EXT4_MMP_MAGIC || (m->has_csum && m->block->mmp_checksum != checksum(m)))
		return -EUCLEAN;
	return 0;
}

static int write_block(struct x4_mmp *m, uint32_t seq)
{
	char node[sizeof(m->block->mmp_nodename) + 1] = "";

	gethostname(node, sizeof(node) - 1);
	memcpy(m->block->mmp_nodename, node, sizeof(m->block->mmp_nodename));
	memset(m->block->mmp_bdevname, 0, sizeof(m->block->mmp_bdevname));
	memcpy(m->block->mmp_bdevname, m->dev->name, strnlen(m->dev->name, sizeof(m->block->mmp_bdevname) - 1));
	m->block->mmp_seq = seq;
	m->block->mmp_time = (uint64_t)x4_now(m->v).tv_sec;
	m->block->mmp_check_interval = (uint16_t)m->check_s;
	if (m->has_csum)
		m->block->mmp_checksum = checksum(m);
	return dev_write(m->dev, m->block, m->len, m->off, DEV_FUA);
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

/* ---- keeping it ---- */
void x4_mmp_lost(struct x4_vol *v)
{
	if (v->jnl)
		jnl_abort(v->jnl, -ESHUTDOWN); /* the kind that writes nothing any more */
	if (v->opt.went_read_only)
		v->opt.went_read_only(v->opt.arg, "another host has mounted it");
}

/* Another host has it: MMP-3. */
static void lost(struct x4_mmp *m)
{
	m->lost = true;
	log_err("%s: host %.64s has mounted it too (device %.32s): nothing more is written here; unmount it on both and run e2fsck",
		m->dev->name, (const char *)m->block->mmp_nodename, (const char *)m->block->mmp_bdevname);
	__atomic_store_n(&m->v->mmp_lost, true, __ATOMIC_SEQ_CST);
	/* While it is being mounted there may be no journal yet: mount_volume looks at mmp_lost when it is through. */
	if (!__atomic_load_n(&m->v->mounting, __ATOMIC_SEQ_CST))
		x4_mmp_lost(m->v);
}

static void update(struct x4_mmp *m)
{
	int err = read_block(m);

	if (!err && m->block->mmp_seq != m->seq) {
		lost(m);
		return;
	}
	m->seq = m->seq >= EXT4_MMP_SEQ_MAX ? 1 : m->seq + 1;
	if (!err)
		err = write_block(m, m->seq);
	if (err)
		log_ratelimited(FDIO_LOG_ERR, "%s: cannot renew the mount's mark (mmp): %s", m->dev->name, strerror(-err));
}

static bool wait_until(struct x4_mmp *m, uint64_t when)
{
	bool stop;

	fdio_mutex_lock(&m->lock);
	while (!m->stop && fdio_now_ns() < when)
		fdio_cond_timedwait(&m->cond, &m->lock, when);
	stop = m->stop;
	fdio_mutex_unlock(&m->lock);
	return !stop;
}

static void *keeper(void *arg)
{
	struct x4_mmp *m = arg;

	while (!m->lost && wait_until(m, fdio_now_ns() + m->interval_s * 1000000000ULL))
		update(m);
	return NULL;
}

/* ---- taking and giving back ---- */
static int in_use(const struct x4_mmp *m, struct fdio_reason *reason)
{
	fdio_reason_set(reason, "%s: in use by host %.64s (device %.32s): unmount it there first; "
			"if that host does not run any more, "
		 "e2fsck clears the mark", m->dev->name, (const char *)m->block->mmp_nodename, (const char *)m->block->mmp_bdevname);
	return -EBUSY;
}

/* MMP-1 */
static int wait_for_owner(struct x4_mmp *m, struct fdio_reason *reason)
{
	uint32_t seq = m->block->mmp_seq, wait_s = FDIO_MIN(m->check_s * 2 + 1, m->check_s + 60);
	int err;

	if (seq == EXT4_MMP_SEQ_CLEAN)
		return 0;
	if (seq == EXT4_MMP_SEQ_FSCK || seq > EXT4_MMP_SEQ_MAX) {
		fdio_reason_set(reason, "%s: e2fsck is running on it, or was interrupted: run "
				"e2fsck %s", m->dev->name, m->dev->name);
		return -EBUSY;
	}
	log_info("%s: not unmounted cleanly, or in use by host %.64s: watching it for %u seconds (mmp)", m->dev->name,
		 (const char *)m->block->mmp_nodename, wait_s);
	if (fdio_stop_wait(fdio_now_ns() + wait_s * 1000000000ULL)) {
		fdio_reason_set(reason, "%s: told to end while watching whether another host uses "
				"it (mmp)", m->dev->name);
		return -EINTR;
	}
	err = read_block(m);
	if (err)
		return err;
	return m->block->mmp_seq == seq ? 0 : in_use(m, reason);
}

static int take(struct x4_mmp *m, struct fdio_reason *reason)
{
	int err = read_block(m);

	/* Who has it may promise more than the superblock says. */
	if (err)
		return err;
	m->check_s = FDIO_MAX(m->interval_s * CHECK_MULT, MIN_CHECK_S);
	m->check_s = FDIO_MAX(m->check_s, (uint32_t)m->block->mmp_check_interval);
	m->check_s = FDIO_MIN(m->check_s, MAX_CHECK_S);
	err = wait_for_owner(m, reason);
	if (err)
		return err;
	m->seq = new_seq();
	err = write_block(m, m->seq);
	if (err)
		return err;
	wait_until(m, fdio_now_ns() + SETTLE_NS); /* MMP-2 */
	err = read_block(m);
	if (err)
		return err;
	return m->block->mmp_seq == m->seq ? 0 : in_use(m, reason);
}

static void mmp_free(struct x4_mmp *m)
{
	if (!m)
		return;
	pthread_cond_destroy(&m->cond);
	fdio_mutex_fini(&m->lock);
	free(m->block);
	free(m);
}

static struct x4_mmp *mmp_new(struct x4_vol *v)
{
	struct x4_mmp *m = calloc(1, sizeof(*m));
	const struct ext2_super_block *sb = v->fs->super;

	if (!m)
		return NULL;
	m->v = v;
	m->dev = v->dev;
	m->off = sb->s_mmp_block << v->block_bits;
	m->len = v->block_size;
	m->has_csum = v->has_csum;
	m->csum_seed = v->csum_seed;
	m->interval_s = FDIO_MAX((uint32_t)sb->s_mmp_update_interval, 1u);
	m->interval_s = FDIO_MIN(m->interval_s, MAX_CHECK_S);
	m->block = fdio_alloc_aligned(4096, FDIO_MAX(m->len, (uint32_t)sizeof(*m->block)));
	fdio_mutex_init(&m->lock, RANK_LEAF);
	fdio_cond_init(&m->cond);
	if (!m->block) {
		mmp_free(m);
		return NULL;
	}
	return m;
}

int x4_mmp_start(struct x4_vol *v, struct fdio_reason *reason)
{
	uint64_t blk = v->fs->super->s_mmp_block;
	struct x4_mmp *m;
	int err;

	if (v->volume.mmp || !ext2fs_has_feature_mmp(v->fs->super))
		return 0;
	if (blk <= v->first_data_block || blk >= v->nr_blocks) {
		fdio_reason_set(reason, "%s: the block for multiple mount protection is not in the "
				"file system: run e2fsck %s",
			 v->dev->name, v->dev->name);
		return -EUCLEAN;
	}
	m = mmp_new(v);
	if (!m)
		return -ENOMEM;
	err = take(m, reason);
	if (!err) {
		err = thread_start(&m->thread, "ext4-mmp", keeper, m);
		m->on = !err;
	}
	if (err && !fdio_reason_is_set(reason))
		fdio_reason_set(reason, "%s: multiple mount protection: %s: run e2fsck %s",
				v->dev->name, strerror(-err), v->dev->name);
	if (err)
		mmp_free(m);
	else
		v->volume.mmp = m;
	return err;
}

void x4_mmp_stop(struct x4_vol *v)
{
	struct x4_mmp *m = v->volume.mmp;
	int err;

	if (!m)
		return;
	fdio_mutex_lock(&m->lock);
	m->stop = true;
	pthread_cond_broadcast(&m->cond);
	fdio_mutex_unlock(&m->lock);
	pthread_join(m->thread, NULL);
	if (!m->lost) {
		err = write_block(m, EXT4_MMP_SEQ_CLEAN); /* MMP-4 */
		if (err)
			log_err("%s: cannot take back the mount's mark (mmp): %s: the next mount will wait for this one", m->dev->name,
				strerror(-err));
	}
	v->volume.mmp = NULL;
	mmp_free(m);
}
