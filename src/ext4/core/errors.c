/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What happens when the file system turns out to be inconsistent; and the translation of libext2fs
 * codes.
 *
 * ext4_corrupt and ext4_read_block run on any thread, inside a handle, with locks held. So they
 * only log, note the error in memory and apply the option errors=. continue: nothing more.
 * remount-ro: the journal is aborted, so that nothing derived from the damage is written. panic: as
 * remount-ro, then the ticker aborts the process. On a loop thread in the mode of base/nowait.h
 * ext4_corrupt misses instead, and the worker that repeats the operation reports the damage.
 *
 * A running volume becomes read-only through the abort of its journal, which calls
 * ext4_error_aborted before it wakes any thread that waits: so a thread that has seen -EIO finds a
 * read-only volume, and a read-only volume has an aborted journal.
 *
 * The ticker writes a note into the superblock within a second: through a handle, whose commit it
 * waits for, while the journal works; else straight to the device. A note that could not be written
 * is kept, and tried again with the next error and at unmount. core.lock guards the notes.
 */
#include "ext4/core/core.h"
#include "ext4/core/structs.h"
#include "ext4/core/superblock.h"

#include "base/counters.h"
#include "base/log.h"
#include "base/nowait.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void ext4_error_init(struct ext4_vol *vol) { fdio_mutex_init(&vol->core.lock, RANK_LEAF); }
void ext4_error_fini(struct ext4_vol *vol) { fdio_mutex_fini(&vol->core.lock); }

static void go_read_only(struct ext4_vol *vol, const char *why)
{
	if (__atomic_exchange_n(&vol->read_only, true, __ATOMIC_SEQ_CST))
		return;
	log_err("%s: now read-only: %s", vol->dev->name, why);
	if (vol->options.went_read_only)
		vol->options.went_read_only(vol->options.arg, why);
}

/* The policy for errors: the mount option, else s_errors of the superblock. */
static enum ext4_errors_policy policy(const struct ext4_vol *vol)
{
	if (vol->options.errors != EXT4_ERRORS_DEFAULT)
		return vol->options.errors;
	switch (vol->fs->super->s_errors) {
	case EXT2_ERRORS_RO: return EXT4_ERRORS_RO;
	case EXT2_ERRORS_PANIC: return EXT4_ERRORS_PANIC;
	default: return EXT4_ERRORS_CONTINUE;
	}
}

/* Values of s_first_error_errcode and s_last_error_errcode, as the format defines them. */
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

/* Notes err in memory, for the ticker to write. */
static void note(struct ext4_vol *vol, uint32_t ino, uint64_t blk, const char *func, int err)
{
	struct ext4_error_note *note = &vol->core.err_last;
	uint32_t now = (uint32_t)ext4_now(vol).tv_sec;

	fdio_mutex_lock(&vol->core.lock);
	note->count++;
	note->ino = ino;
	note->blk = blk;
	note->time = now;
	note->code = code_of(err);
	snprintf(note->func, sizeof(note->func), "%s", func);
	if (note->count == 1)
		vol->core.err_first = *note;
	fdio_mutex_unlock(&vol->core.lock);
	__atomic_store_n(&vol->core.err_pending, true, __ATOMIC_RELEASE);
}

/* Notes err, aborts the journal if the policy says so, and returns err. */
static int found(struct ext4_vol *vol, uint32_t ino, uint64_t blk, const char *func, int err)
{
	note(vol, ino, blk, func, err);
	if (vol->mounting || ext4_vol_read_only(vol))
		return err;
	if (policy(vol) != EXT4_ERRORS_CONTINUE) {
		__atomic_store_n(&vol->core.err_damaged, true, __ATOMIC_RELEASE);
		journal_abort(vol->journal, err);
	}
	return err;
}

int ext4_corrupt(struct ext4_vol *vol, uint32_t ino, uint64_t blk, const char *func,
		 const char *fmt, ...)
{
	static struct fdio_ratelimit limit;
	char msg[200];
	va_list ap;

	/* The worker that repeats the operation finds the damage again, and reports it. */
	if (nowait_on())
		return nowait_miss();
	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	fdio_count(COUNTER_ext4_corrupt);
	if (fdio_ratelimit_ok(&limit))
		log_err("%s: the file system is damaged: inode %u, block %llu: %s (%s): run e2fsck",
			vol->dev->name, ino, (unsigned long long)blk, msg, func);
	return found(vol, ino, blk, func, -EUCLEAN);
}

int ext4_read_block(struct ext4_vol *vol, uint32_t ino, uint64_t blk, const char *func,
		    struct journal_buffer **ret)
{
	int err = journal_read_block(vol->journal, blk, ret);

	/* The journal has logged an I/O error already. */
	return unlikely(err == -EIO) ? found(vol, ino, blk, func, err) : err;
}

void ext4_error_aborted(struct ext4_vol *vol, int err)
{
	bool damaged = __atomic_load_n(&vol->core.err_damaged, __ATOMIC_ACQUIRE);

	if (!damaged)
		note(vol, 0, 0, "journal", err);
	go_read_only(vol, damaged ? "the file system is damaged: run e2fsck"
				  : "the journal has aborted");
}

/* Adds the notes to sb, and returns how many errors they count. */
static uint32_t fill(struct ext4_vol *vol, struct ext2_super_block *sb)
{
	struct ext4_error_note first, last;

	fdio_mutex_lock(&vol->core.lock);
	first = vol->core.err_first;
	last = vol->core.err_last;
	fdio_mutex_unlock(&vol->core.lock);
	sb->s_state |= EXT2_ERROR_FS;
	vol->mount_state |= EXT2_ERROR_FS;
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

/* Called when `count` noted errors are durable in the superblock. */
static void written(struct ext4_vol *vol, uint32_t count)
{
	fdio_mutex_lock(&vol->core.lock);
	vol->core.err_last.count -= count;
	if (vol->core.err_last.count)
		vol->core.err_first = vol->core.err_last;
	fdio_mutex_unlock(&vol->core.lock);
}

struct raw_fill { struct ext4_vol *vol; uint32_t count; };

/* An ext4_super_change; arg is a struct raw_fill. */
static void fill_raw(struct ext2_super_block *sb, void *arg)
{
	struct raw_fill *raw_fill = arg;

	raw_fill->count = fill(raw_fill->vol, sb);
}

static int write_raw(struct ext4_vol *vol)
{
	struct raw_fill raw_fill = { .vol = vol };
	int err = ext4_super_update_raw(vol->dev, fill_raw, &raw_fill);

	if (!err)
		written(vol, raw_fill.count);
	return err;
}

static int write_through_handle(struct ext4_vol *vol)
{
	struct ext2_super_block *sb;
	struct journal_handle *handle;
	uint32_t count;
	int err = ext4_super_change_begin(vol, &handle, &sb);

	if (err)
		return err;
	count = fill(vol, sb);
	ext4_super_end(vol, handle);
	err = journal_commit_wait(vol->journal, journal_end(handle), NULL);
	if (!err)
		written(vol, count);
	return err;
}

void ext4_error_write_last(struct ext4_vol *vol)
{
	fdio_mutex_lock(&vol->core.lock);
	if (vol->core.err_last.count)
		__atomic_store_n(&vol->core.err_pending, true, __ATOMIC_RELEASE);
	fdio_mutex_unlock(&vol->core.lock);
	ext4_error_write(vol);
}

void ext4_error_write(struct ext4_vol *vol)
{
	int err = -EROFS;

	if (!__atomic_exchange_n(&vol->core.err_pending, false, __ATOMIC_ACQ_REL))
		return;
	/* Nothing may be written if another host has the volume, or it was shut down. */
	if (vol->dev->caps.read_only || __atomic_load_n(&vol->mmp_lost, __ATOMIC_ACQUIRE) ||
	    ext4_vol_is_shut_down(vol))
		return;
	if (!ext4_vol_read_only(vol) && !journal_error(vol->journal))
		err = write_through_handle(vol);
	/* Writes also if the volume became read-only by an error, but not if it was opened so. */
	if (err && !vol->options.read_only && journal_error(vol->journal))
		err = write_raw(vol);
	if (err && !vol->options.read_only)
		log_warn("%s: the error could not be noted in the superblock: %s", vol->dev->name,
			 strerror(-err));
	if (policy(vol) == EXT4_ERRORS_PANIC && !vol->mounting) {
		log_err("%s: errors=panic: ending the process", vol->dev->name);
		abort();
	}
}

int ext4_error_from_ext2(long err)
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
