/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The dir room's parts of a volume (ext4_vol.dir) and of an inode (ext4_inode.dir).
 */
#ifndef FDIO_EXT4_DIR_STATE_H
#define FDIO_EXT4_DIR_STATE_H

#include "base/lock.h"

struct ext4_dir_table; /* linear.c */

struct ext4_dir_state {
	struct fdio_mutex rename_lock; /* RANK_EXT4_RENAME */
	uint32_t places;            /* atomic: names in the tables of linear.c */
	uint32_t budget;            /* most places that there may be */
#define EXT4_DIR_BUDGET (1u << 23)
};

struct ext4_dir_inode {
	bool moved;                 /* atomic: ".." has changed since the last ext4_dir_moved */
	/* made by ext4_tmpfile, so ext4_link may give it a name; guarded by rw */
	bool linkable;
	/* atomic: the table of a linear directory, or NULL; read and changed under rw */
	struct ext4_dir_table *table;
};

#endif
