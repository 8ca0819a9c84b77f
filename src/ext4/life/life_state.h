/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Life's part of a volume: wait_space.c. */
#ifndef FDIO_EXT4_LIFE_STATE_H
#define FDIO_EXT4_LIFE_STATE_H

#include <stdbool.h>
#include <stdint.h>

struct ext4_life_state {
	/* ext4_vol_set_held: the kernel has the inode ino; constant while the volume is served */
	bool (*held)(void *arg, uint32_t ino);
	void *held_arg;
	bool asking; /* atomic: a thread is asking held */
};

#endif
