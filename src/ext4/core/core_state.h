/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Core's own part of a volume. Fields that all rooms read are in struct ext4_vol itself. */
#ifndef FDIO_EXT4_CORE_STATE_H
#define FDIO_EXT4_CORE_STATE_H

#include "base/lock.h"
#include "ext4/core/core.h"

/* As the fields s_first_error_* and s_last_error_* of the superblock. */
struct ext4_error_note {
	uint64_t blk;
	uint32_t ino;
	uint32_t count;             /* errors noted and not written yet */
	uint32_t time;              /* seconds */
	uint8_t code;
	char func[32];
};

struct ext4_core_state {
	struct fdio_mutex lock;     /* RANK_LEAF; guards the label and the notes */
	char label[EXT4_LABEL_MAX];
	/* Errors that are not in the superblock yet; none if err_last.count is 0. */
	struct ext4_error_note err_first, err_last;
	bool err_pending;           /* atomic: a note is new, the ticker has to write it */
	bool err_damaged;           /* atomic: damage, noted already, aborts the journal */
	uint32_t free_inodes;       /* atomic: alloc keeps the count */
};

#endif
