/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files on a mount whose kernel the test plays (kit/daemon.h), for the tests that send requests for
 * blocks of files. Called by the test's thread; whatever goes wrong fails the test.
 */
#ifndef FDIO_UNIT_OPS_FILES_H
#define FDIO_UNIT_OPS_FILES_H

#include "kit/daemon.h"

#define ROOT FUSE_ROOT_ID
#define BS 4096u

/* A file that is open for direct I/O. */
struct file { struct fuse_entry_out entry; uint64_t node, fh; };

/* Mounts a copy of the test's volume, with parallel direct I/O. */
struct fake_kernel *start_mount(void);
/* A durable file of so many written blocks, at most 16. Block n has the content of seed 1 + 8 n. */
struct file new_file(struct fake_kernel *kernel, const char *name, unsigned blocks);
/* Sends a direct write of one block, with the content of seed, and returns its ticket. */
unsigned send_block(struct fake_kernel *kernel, const struct file *file, unsigned block,
		    uint8_t seed);
/* Reads a block, which must have the content of seed. */
void expect_block(struct fake_kernel *kernel, const struct file *file, unsigned block,
		  uint8_t seed);
struct fuse_attr attr_at(struct fake_kernel *kernel, uint64_t node);
/*
 * Waits so long that a wrong answer, or one that comes too early, would have come. A correct
 * program never fails because of this wait.
 */
void a_while(void);

#endif
