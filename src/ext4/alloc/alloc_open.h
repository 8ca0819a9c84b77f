/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Alloc, for the volume room: opening and closing. Called on the thread that opens or closes the
 * volume, in the order of this header, but for ext4_groups_seal, which the journal calls on the
 * thread that commits.
 */
#ifndef FDIO_EXT4_ALLOC_ALLOC_OPEN_H
#define FDIO_EXT4_ALLOC_ALLOC_OPEN_H

#include "ext4/alloc/alloc.h"

void ext4_alloc_init(struct ext4_vol *vol); /* once for a volume: the lock */
void ext4_alloc_fini(struct ext4_vol *vol);
/*
 * Reads the descriptors out of vol->fs. A damaged one is no error, see ext4_bad_groups. -ENOMEM.
 * fini frees what this and the zones have allocated, also after an error.
 */
int ext4_groups_init(struct ext4_vol *vol);
void ext4_groups_fini(struct ext4_vol *vol);
/* How many descriptors are damaged; such a volume must only be read. *ret_first (may be NULL). */
uint32_t ext4_bad_groups(const struct ext4_vol *vol, uint32_t *ret_first);
/* Builds the zones of ext4_blocks_valid from the groups; then adds the log. -ENOMEM. */
int ext4_zones_init(struct ext4_vol *vol);
int ext4_zones_add_log(struct ext4_vol *vol, const struct journal_extent *log, unsigned nr_log);
/* Sets what statfs hides and what is kept for metadata, and keeps for_root blocks for root. */
void ext4_alloc_limits(struct ext4_vol *vol, uint64_t for_root);
/*
 * The thread of the option discard; does nothing without it. Started before the journal and stopped
 * after it; stopping waits until what is queued is discarded. -ENOMEM, or what starting a thread
 * says.
 */
int ext4_discard_start(struct ext4_vol *vol) FDIO_BLOCKS;
void ext4_discard_stop(struct ext4_vol *vol) FDIO_BLOCKS;
/*
 * journal_params.seal, with arg the volume: writes the changed descriptors and the checksums of
 * changed bitmaps into handle, once for each transaction. Aborts the journal if it cannot.
 */
void ext4_groups_seal(void *arg, struct journal_handle *handle) FDIO_BLOCKS;
/* Free blocks as the descriptors count them, which is what the superblock must say. */
uint64_t ext4_groups_free_on_disk(struct ext4_vol *vol);

#endif
