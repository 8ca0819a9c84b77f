/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Operations on names in short form, for tests that have a struct testvol: a name is a string, root
 * does it, and references are dropped. The test's thread, unless a test says otherwise.
 */
#ifndef FDIO_KIT_NAMES_H
#define FDIO_KIT_NAMES_H

#include "kit/volume.h"

/* Root, with umask 022: used by all functions here. */
extern const struct ext4_credentials root_credentials;

/* On a name in dir. Return what ext4_create and so on return. */
int name_create(struct ext4_inode *dir, const char *name, uint32_t mode);
int name_unlink(struct ext4_inode *dir, const char *name);
int name_rmdir(struct ext4_inode *dir, const char *name);
int name_link(struct ext4_inode *dir, const char *name, struct ext4_inode *target);
int name_rename(struct ext4_inode *old_dir, const char *old_name, struct ext4_inode *new_dir,
		const char *new_name, unsigned flags);
/* The inode number, or -errno. */
int name_ino(struct ext4_inode *dir, const char *name);
/* A reference; the test fails if there is no such name. */
struct ext4_inode *name_lookup(struct ext4_inode *dir, const char *name);
/* Creates a name and returns a reference to its inode; the test fails if that is impossible. */
struct ext4_inode *name_make(struct ext4_inode *dir, const char *name, uint32_t mode);
/* i_blocks of the inode, in units of 512 bytes. */
uint64_t blocks_512(struct ext4_inode *inode);
unsigned link_count(struct ext4_inode *inode);
/* The next of a sequence of random numbers that *state determines. */
uint32_t next_random(uint64_t *state);

#endif
