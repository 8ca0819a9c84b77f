/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What happens when the file system turns out to be inconsistent, and the translation of libext2fs codes.
 *
 * x4_corrupt may be called on any thread, inside a handle, with locks held (as x4_bread for blocks that cannot be read): so it
 * only logs, notes the error in memory and applies the policy (continue: nothing more; remount-ro: the journal is aborted, so
 * nothing half-understood is written; panic: as remount-ro, then the ticker ends the process). A running
 * volume becomes read-only in one way only, by the abort of its journal, which calls x4_error_aborted before
 * it wakes anybody: who has seen EIO finds a read-only volume, and a read-only volume has an aborted journal.
 *
 * The ticker writes the note into the superblock within a second: through a handle, whose commit it waits
 * for, if the journal lives; straight to the device if it does not, or dies before that commit. What could
 * not be written stays noted, and is tried again with the next error and at unmount.
 */
#include "ext4/core/core.h"
#include "ext4/core/structs.h"

#include "base/counters.h"
#include "base/log.h"
#include "base/nowait.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void x4_error_init(struct x4_vol *v) { fdio_mutex_init(&v->core.lock, RANK_LEAF); }
void x4_error_fini(struct x4_vol *v) { fdio_mutex_fini(&v->core.lock); }

static void go_read_only(struct x4_vol *v, const char *why)
{
	if (__atomic_exchange_n(&v->read_only, true, __ATOMIC_SEQ_CST))
		return;
	log_err("%s: now read-only: %s", v->dev->name, why);
	if (v->opt.went_read_only)
		v->opt.went_read_only(v->opt.arg, why);
}

static enum x4_errors_policy policy(const struct x4_vol *v)
{
	if (v->opt.errors != X4_ERRORS_DEFAULT)
		return v->opt.errors;
	switch (v->fs->super->s_errors) {
	case EXT2_ERRORS_RO: return X4_ERRORS_RO;
	case EXT2_ERRORS_PANIC: return X4_ERRORS_PANIC;
	default: return X4_ERRORS_CONTINUE;
	}
}

/* The numbers of s_first_error_errcode and s_last_error_errcode: the format's own. */
enum { CODE_UNKNOWN = 1, CODE_EIO = 2, CODE_ENOMEM = 3, CODE_CORRUPTED = 5, CODE_ENOSPC = 6 };

static uint8_t code_of(int err)
{
	switch (err) {
	case -EIO: return CODE_EIO;
	case -ENOMEM: return CODE_ENOMEM;
	case -EUCLEAN: return CODE_CORRUPTED;
	case -ENOSPC: return CODE_ENOSPC;
	default: return CODE_UNKNOWN;
	}
}

static void note(struct x4_vol *v, uint32_t ino, uint64_t blk, const char *func, int err)
{
	struct x4_error_note *e = &v->core.err_last;
	uint32_t now = (uint32_t)x4_now(v).tv_sec;

	fdio_mutex_lock(&v->core.lock);
	e->count++;
	e->ino = ino;
	e->blk = blk;
	e->time = now;
	e->code = code_of(err);
	snprintf(e->func, sizeof(e->func), "%s", func);
	if (e->count == 1)
		v->core.err_first = *e;
	fdio_mutex_unlock(&v->core.lock);
	__atomic_store_n(&v->core.err_pending, true, __ATOMIC_RELEASE);
}

/* Noted; and if the policy says so, the journal ends. */
static int found(struct x4_vol *v, uint32_t ino, uint64_t blk, const char *func, int err)
{
	note(v, ino, blk, func, err);
	if (v->mounting || x4_vol_read_only(v))
		return err;
	if (policy(v) != X4_ERRORS_CONTINUE) {
		__atomic_store_n(&v->core.err_damaged, true, __ATOMIC_RELEASE);
		jnl_abort(v->jnl, err);
	}
	return err;
}

int x4_corrupt(struct x4_vol *v, uint32_t ino, uint64_t blk, const char *func, const char *fmt, ...)
{
	static struct fdio_ratelimit rl;
	char msg[200];
	va_list ap;

	/* Whoever does it again on a thread that may wait meets it again. */
	if (nowait_on())
		return nowait_miss();
	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	fdio_count(CTR_x4_corrupt);
	if (fdio_ratelimit_ok(&rl))
		log_err("%s: the file system is damaged: inode %u, block %llu: %s (%s): run e2fsck", v->dev->name, ino,
			(unsigned long long)blk, msg, func);
	return found(v, ino, blk, func, -EUCLEAN);
}

int x4_bread(struct x4_vol *v, uint32_t ino, uint64_t blk, const char *func, struct jnl_buf **ret)
{
	int err = jnl_bread(v->jnl, blk, ret);

	/* The journal has logged it. */
	return unlikely(err == -EIO) ? found(v, ino, blk, func, err) : err;
}

void x4_error_aborted(struct x4_vol *v, int err)
{
	bool damaged = __atomic_load_n(&v->core.err_damaged, __ATOMIC_ACQUIRE);

	if (!damaged)
		note(v, 0, 0, "journal", err);
	go_read_only(v, damaged ? "the file system is damaged: run e2fsck" : "the journal has aborted");
}

/* Adds what is noted to sb. Returns how many errors that were. */
static uint32_t fill(struct x4_vol *v, struct ext2_super_block *sb)
{
	struct x4_error_note first, last;

	fdio_mutex_lock(&v->core.lock);
	first = v->core.err_first;
	last = v->core.err_last;
	fdio_mutex_unlock(&v->core.lock);
	sb->s_state |= EXT2_ERROR_FS;
	v->mount_state |= EXT2_ERROR_FS;
	if (!last.count)
		return 0;
	if (!sb->s_first_error_time) {
		sb->s_first_error_time = first.time;
		sb->s_first_error_ino = first.ino;
		sb->s_first_error_block = first.blk;
		sb->s_first_error_line = 0;
		memcpy(sb->s_first_error_func, first.func, sizeof(first.func));
		sb->s_first_error_errcode = first.code;
	}
	sb->s_last_error_time = last.time;
	sb->s_last_error_ino = last.ino;
	sb->s_last_error_block = last.blk;
	sb->s_last_error_line = 0;
	memcpy(sb->s_last_error_func, last.func, sizeof(last.func));
	sb->s_last_error_errcode = last.code;
	sb->s_error_count += last.count;
	return last.count;
}

/* So many of the notes are in the superblock, durable. */
static void written(struct x4_vol *v, uint32_t count)
{
	fdio_mutex_lock(&v->core.lock);
	v->core.err_last.count -= count;
	if (v->core.err_last.count)
		v->core.err_first = v->core.err_last;
	fdio_mutex_unlock(&v->core.lock);
}

struct raw_fill { struct x4_vol *v; uint32_t count; };

static void fill_cb(struct ext2_super_block *sb, void *arg)
{
	struct raw_fill *f = arg;

	f->count = fill(f->v, sb);
}

static int write_raw(struct x4_vol *v)
{
	struct raw_fill f = { .v = v };
	int err = x4_super_update_raw(v->dev, fill_cb, &f);

	if (!err)
		written(v, f.count);
	return err;
}

static int write_through_handle(struct x4_vol *v)
{
	struct ext2_super_block *sb;
	struct jnl_handle *h;
	uint32_t count;
	int err = jnl_begin(v->jnl, 1, &h);

	if (err)
		return err;
	err = x4_super_begin(v, h, &sb);
	if (err) {
		jnl_cancel(h);
		return err;
	}
	count = fill(v, sb);
	x4_super_end(v, h);
	err = jnl_commit_wait(v->jnl, jnl_end(h), NULL);
	if (!err)
		written(v, count);
	return err;
}

void x4_error_write_last(struct x4_vol *v)
{
	fdio_mutex_lock(&v->core.lock);
	if (v->core.err_last.count)
		__atomic_store_n(&v->core.err_pending, true, __ATOMIC_RELEASE);
	fdio_mutex_unlock(&v->core.lock);
	x4_error_write(v);
}

void x4_error_write(struct x4_vol *v)
{
	int err = -EROFS;

	if (!__atomic_exchange_n(&v->core.err_pending, false, __ATOMIC_ACQ_REL))
		return;
	/* Nor what another host writes to by now, nor what was shut down. */
	if (v->dev->caps.read_only || __atomic_load_n(&v->mmp_lost, __ATOMIC_ACQUIRE) || x4_vol_is_shut_down(v))
		return;
	if (!x4_vol_read_only(v) && !jnl_error(v->jnl))
		err = write_through_handle(v);
	/* A file system that was mounted read-only on purpose is not written to; one that broke is. */
	if (err && !v->opt.read_only && jnl_error(v->jnl))
		err = write_raw(v);
	if (err && !v->opt.read_only)
		log_warn("%s: the error could not be noted in the superblock: %s", v->dev->name, strerror(-err));
	if (policy(v) == X4_ERRORS_PANIC && !v->mounting) {
		log_err("%s: errors=panic: ending the process", v->dev->name);
		abort();
	}
}

int x4_from_ext2_err(long err)
{
	if (err == 0)
		return 0;
	if (err > 0 && err < 256)
		return -(int)err; /* an errno */
	switch (err) {
	case EXT2_ET_NO_MEMORY: return -ENOMEM;
	case EXT2_ET_RO_FILSYS: return -EROFS;
	case EXT2_ET_SHORT_READ:
	case EXT2_ET_SHORT_WRITE: return -EIO;
	case EXT2_ET_BAD_MAGIC: return -EINVAL;
	case EXT2_ET_UNSUPP_FEATURE:
	case EXT2_ET_RO_UNSUPP_FEATURE: return -EOPNOTSUPP;
	case EXT2_ET_BLOCK_ALLOC_FAIL:
	case EXT2_ET_INODE_ALLOC_FAIL: return -ENOSPC;
	case EXT2_ET_FILE_NOT_FOUND: return -ENOENT;
	case EXT2_ET_FILE_EXISTS: return -EEXIST;
	case EXT2_ET_INVALID_ARGUMENT: return -EINVAL;
	case EXT2_ET_FILE_TOO_BIG: return -EFBIG;
	default: return -EUCLEAN;
	}
}
