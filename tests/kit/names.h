/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Operations on names in short, for tests that have a struct testvol: a name is a string, whoever
 * does it is root, and references are dropped. One thread of the test, unless it says otherwise.
 */
#ifndef FDIO_KIT_NAMES_H
#define FDIO_KIT_NAMES_H

#include "kit/volume.h"

extern const struct ext4_credentials root_credentials; /* root, umask 022: who does all this */

/* By name in dir. The results are those of ext4_create and so on. */
int name_create(struct ext4_inode *dir, const char *name, uint32_t mode);
int name_unlink(struct ext4_inode *dir, const char *name);
int name_rmdir(struct ext4_inode *dir, const char *name);
int name_link(struct ext4_inode *dir, const char *name, struct ext4_inode *target);
int name_rename(struct ext4_inode *old_dir, const char *on, struct ext4_inode *new_dir,
		const char *nn, unsigned flags);
int name_ino(struct ext4_inode *dir, const char *name); /* or -errno */
struct ext4_inode *name_lookup(struct ext4_inode *dir, const char *name); /* a reference */
unsigned link_count(struct ext4_inode *inode);
/* Deterministic numbers. */
uint32_t next_random(uint64_t *state);

#endif
