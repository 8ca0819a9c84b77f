/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Private to the volume room: a volume that is being opened, and the steps of opening it. One
 * thread, the one that opens; everything here may block.
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
	bool *ret_fsck;              /* may be NULL: set if only e2fsck can replay the journal */
	const char *ro_why;          /* static: why it is read-only unasked; NULL: it is not */
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
/*
 * Reads and checks what is derived from the superblock and the group descriptors on the device.
 * volume_unload frees it, also what a failed load has left.
 */
int volume_load(struct opening *opening) FDIO_BLOCKS;
void volume_unload(struct ext4_vol *vol);

/* ---- recovery.c ---- */
/* with_log: map_log has found the log. ro: nothing is going to be committed. */
int volume_open_journal(struct opening *opening, bool with_log, bool ro) FDIO_BLOCKS;
void volume_close_journal(struct ext4_vol *vol); /* NULL is allowed */
/* Replays the journal if it must be. *again: load the volume anew, then call again */
int volume_check_journal(struct opening *opening, bool *again) FDIO_BLOCKS;
/* For ext4_super_update_raw: the sign that the log holds something goes. arg is not used. */
void volume_clear_recover(struct ext2_super_block *sb, void *arg);

#endif
