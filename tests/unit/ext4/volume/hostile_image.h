/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the tests of hostile images share: reading and changing the device under a closed volume,
 * and counting the work that an image costs. The test's thread calls these functions; they fail the
 * test on errors.
 */
#ifndef FDIO_UNIT_HOSTILE_IMAGE_H
#define FDIO_UNIT_HOSTILE_IMAGE_H

#include "kit/names.h"

#include <stddef.h>

#define SMALL_SIZE (16u << 20)
/* Arguments of mke2fs: no checksums that a change would have to renew, descriptors of 32 bytes. */
#define PLAIN "-O ^metadata_csum,^64bit,^uninit_bg "

/* Offsets of fields from the place of their structure. */
#define INODE_FIELD(field) offsetof(struct ext2_inode_large, field)
#define GROUP_FIELD(field) offsetof(struct ext2_group_desc, field)

/* Read and write len bytes of the device at off. */
void peek(struct testvol *volume, void *buf, size_t len, uint64_t off);
void poke(struct testvol *volume, const void *buf, size_t len, uint64_t off);
void poke16(struct testvol *volume, uint64_t off, uint16_t value);
void poke32(struct testvol *volume, uint64_t off, uint32_t value);

/* Where an inode, and with blocks of 1 KiB a group's descriptor, are on the device, in bytes. */
uint64_t inode_place(struct ext4_vol *vol, uint32_t ino);
uint64_t group_place(uint32_t group);

/* The number of metadata blocks looked at so far, in the cache or on the device. */
uint64_t blocks_looked_at(void);

/* Drops inode and closes the volume, so that all is on the device; it can be changed then. */
void put_and_close(struct testvol *volume, struct ext4_inode *inode);
/* Closes a volume in which damage was found, which testvol_close does not allow; frees all. */
void end_damaged(struct testvol *volume);

#endif
