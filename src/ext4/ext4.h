/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ext4 room, as the rooms above see it: they include this header and no other of src/ext4, and
 * call nothing that a header declares for the rooms of ext4 alone. No other room includes
 * <ext2fs/...>.
 *
 * The mark at a prototype (base/nowait.h) says where a function runs. Without a mark it never
 * waits, and any thread may call it. FDIO_MAY_MISS and FDIO_MAY_WAIT: workers, and loop threads, on
 * which it fails with -EAGAIN instead of waiting, having changed nothing. FDIO_BLOCKS: workers
 * only.
 *
 * The rooms inside follow from the bottom up; each header is the contract of its room. A room calls
 * only those below it. Where a call has to lead up, the upper room registers a function
 * (inode_state.h, data_state.h).
 */
#ifndef FDIO_EXT4_EXT4_H
#define FDIO_EXT4_EXT4_H

#include "ext4/core/core.h"
#include "ext4/alloc/alloc.h"
#include "ext4/inode/inode.h"
#include "ext4/data/data.h"
#include "ext4/xattr/xattr.h"
#include "ext4/life/life.h"
#include "ext4/dir/dir.h"
#include "ext4/volume/volume.h"

#endif
