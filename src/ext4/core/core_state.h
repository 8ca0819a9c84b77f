/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Core's own part of a volume. The facts that all rooms read stand in struct ext4_vol itself. */
#ifndef FDIO_EXT4_CORE_STATE_H
#define FDIO_EXT4_CORE_STATE_H

#include "base/lock.h"
#include "ext4/core/core.h"

struct ext4_error_note {
	uint64_t blk;
	uint32_t ino, count;
	uint32_t time;
	uint8_t code;
	char func[32];
};

struct ext4_core_state {
	struct fdio_mutex lock;     /* leaf; guards the label and the notes */
	char label[EXT4_LABEL_MAX];
	struct ext4_error_note err_first, err_last; /* errors that are not in the superblock yet */
	bool err_pending;           /* atomic: the ticker writes it down */
	bool err_damaged;           /* atomic: damage, noted already, makes the journal abort */
	uint32_t free_inodes;       /* atomic: for the superblock, as alloc counts them */
};

#endif
