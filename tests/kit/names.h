/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Operations on names in short, for tests that have a struct testvol: a name is a string, whoever
 * does it is root, and references are dropped. One thread of the test, unless it says otherwise.
 */
#ifndef FDIO_KIT_NAMES_H
#define FDIO_KIT_NAMES_H

#include "kit/volume.h"

extern const struct ext4_credentials names_cred; /* root, umask 022: who does all this */

/* By name in dir. The results are those of ext4_create and so on. */
int n_create(struct ext4_inode *dir, const char *name, uint32_t mode);
int n_unlink(struct ext4_inode *dir, const char *name);
int n_rmdir(struct ext4_inode *dir, const char *name);
int n_link(struct ext4_inode *dir, const char *name, struct ext4_inode *target);
int n_rename(struct ext4_inode *old_dir, const char *on, struct ext4_inode *new_dir, const char *nn,
	     unsigned flags);
int n_ino(struct ext4_inode *dir, const char *name); /* or -errno */
struct ext4_inode *n_get(struct ext4_inode *dir, const char *name); /* a reference */
unsigned n_nlink(struct ext4_inode *inode);
/* Deterministic numbers. */
uint32_t n_rand(uint64_t *state);

#endif
