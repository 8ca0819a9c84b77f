/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Xattr's part of a volume.
 */
#ifndef FDIO_EXT4_XATTR_STATE_H
#define FDIO_EXT4_XATTR_STATE_H

#include "base/list.h"

struct ext4_xattr_state {
	/*
	 * value.c: references to inodes that hold attribute values, to be dropped; changed inside
	 * handles only
	 */
	struct list ea_refs;
	bool ea_refs_kept;          /* atomic: there are some */
};

#endif
