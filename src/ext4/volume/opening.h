/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Private to the volume room: a volume that is being opened, and the steps of opening it. Only the
 * thread that opens the volume; everything here may block. A step that fails returns -errno and has
 * set the reason; volume_unload and volume_close_journal free what it has left.
 */
#ifndef FDIO_EXT4_VOLUME_OPENING_H
#define FDIO_EXT4_VOLUME_OPENING_H

#include "base/nowait.h"
#include "base/reason.h"
#include "ext4/alloc/alloc_open.h"
#include "ext4/core/structs.h"
#include "ext4/core/superblock.h"
#include "ext4/volume/parts.h"

struct opening {
	struct ext4_vol *vol;
	struct ext2_super_block sb;  /* as read before the journal was replayed */
	struct journal_extent *log;  /* where the log lies; freed with the opening */
	unsigned nr_log;
	bool *ret_fsck;              /* set if only e2fsck can replay the journal; may be NULL */
	const char *ro_why;          /* static: why it is read-only though not asked to; or NULL */
	struct fdio_reason *reason;  /* one line for the user when opening fails */
};

static inline const char *dev_name(const struct opening *opening)
{
	return opening->vol->dev->name;
}

/* ---- load.c ---- */
/* Sets the reason and returns err. */
int opening_refuse(struct opening *opening, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Reads and checks what is derived from the superblock and the group descriptors on the device. */
int volume_load(struct opening *opening) FDIO_BLOCKS;
/* Frees what volume_load has made, also what a failed call has left. */
void volume_unload(struct ext4_vol *vol);

/* ---- recovery.c ---- */
/*
 * Opens the journal as vol->journal. with_log: the log was found (opening->log). ro: nothing is
 * going to be committed.
 */
int volume_open_journal(struct opening *opening, bool with_log, bool ro) FDIO_BLOCKS;
void volume_close_journal(struct ext4_vol *vol); /* does nothing without a journal */
/*
 * Looks at the journal and replays it if it must be. *again: the device has changed; load the
 * volume anew, then call this again. Otherwise the file system is consistent.
 */
int volume_check_journal(struct opening *opening, bool *again) FDIO_BLOCKS;
/* For ext4_super_update_raw: clears needs_recovery, the sign that the log must be looked at. */
void volume_clear_recover(struct ext2_super_block *sb, void *arg); /* arg is not used */

#endif
