/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Private to the volume room: calls among its files that need no struct opening. Unless a comment
 * says otherwise: the thread that opens or closes the volume.
 */
#ifndef FDIO_EXT4_VOLUME_PARTS_H
#define FDIO_EXT4_VOLUME_PARTS_H

#include "base/nowait.h"
#include "base/reason.h"
#include "ext4/inode/inode_cache.h"
#include "ext4/inode/inode_change.h"
#include "ext4/volume/volume.h"

/* ---- features.c ---- */
enum ext4_verdict { EXT4_SERVE_RW, EXT4_SERVE_RO, EXT4_REFUSE };
/*
 * How a file system with the superblock sb, in disk order, may be served. EXT4_SERVE_RO: *ret_why
 * is a static string that says why; else NULL. EXT4_REFUSE: reason gets one line, with devname. Any
 * thread.
 */
enum ext4_verdict ext4_features_check(const struct ext2_super_block *sb, const char *devname,
				      const char **ret_why, struct fdio_reason *reason);

/* ---- mmp.c: multiple mount protection ---- */
/*
 * Takes the file system for this host, before anything is written to it. This can take seconds;
 * afterwards a thread renews the mark. Does nothing without the feature, or if that thread runs
 * already. -errno with one line in reason; -EBUSY: another host has the file system.
 */
int ext4_mmp_start(struct ext4_vol *vol, struct fdio_reason *reason) FDIO_BLOCKS;
/*
 * Gives the file system back, when everything else is on the device. Does nothing if it was not
 * taken. An error is logged.
 */
void ext4_mmp_stop(struct ext4_vol *vol) FDIO_BLOCKS;

/* ---- ticker.c ---- */
/* Starts the ticker, when everything else is open. 0 or -errno. */
int ext4_ticker_start(struct ext4_vol *vol) FDIO_BLOCKS;
/* Ends the ticker and waits for it. Does nothing if it does not run. */
void ext4_ticker_end(struct ext4_vol *vol) FDIO_BLOCKS;

#endif
