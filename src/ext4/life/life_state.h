/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Life's part of a volume: what ext4_space_has_come asks.
 */
#ifndef FDIO_EXT4_LIFE_STATE_H
#define FDIO_EXT4_LIFE_STATE_H

#include <stdbool.h>
#include <stdint.h>

struct ext4_life_state {
	bool (*held)(void *arg, uint32_t ino); /* the kernel has the inode */
	void *held_arg;
	bool asking;                /* atomic: somebody asks held */
};

#endif
