/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ext4 room, as the rooms above see it: they include this header and no other of src/ext4, and
 * call nothing that stands behind "inside ext4" in one of these. The only room that includes
 * <ext2fs/...>. Everything here may block and runs on workers, except what says "any thread, never
 * blocks", and "nowait": in the mode of base/nowait.h these run on loop threads as well and fail
 * with -EAGAIN, having changed nothing, where they would block: ext4_inode_get, names but for
 * renames across directories, ext4_setattr, attributes but for changes, ext4_readlink, ext4_readdir
 * of a small directory, ext4_map_load of a small map.
 *
 * The rooms inside, from the bottom up; each header is the contract of its room. A room calls those
 * below it only; what has to lead up is a function that the upper room registers (inode_state.h,
 * data_state.h).
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
