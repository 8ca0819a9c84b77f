/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Xattr's part of a volume. */
#ifndef FDIO_EXT4_XATTR_STATE_H
#define FDIO_EXT4_XATTR_STATE_H

#include "base/list.h"

struct ext4_xattr_state {
	/* value.c: kept references to inodes of values; changed inside handles only (VALUE-2) */
	struct list ea_refs;
	bool ea_refs_kept; /* atomic: ea_refs is not empty */
};

#endif
