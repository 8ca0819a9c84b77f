/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A mounted volume in which there is one file, "file", with the content "hello": what the tests of
 * inodes begin with. The test's thread calls these functions; all fail the test on errors.
 */
#ifndef FDIO_UNIT_ONE_FILE_H
#define FDIO_UNIT_ONE_FILE_H

#include "kit/volume.h"

/* The device and the volume of the test that runs. */
extern struct fake_dev *fake;
extern struct ext4_vol *vol;

/* Formats as testvol_shapes[shape], mounts, and returns the number of the file's inode. */
void one_file_mount(unsigned shape, uint32_t *ret_ino);
/* Unmounts, runs e2fsck -fn, which must find nothing, and mounts again. */
void one_file_remount(void);
/* Compares all counts, unmounts, runs e2fsck -fn, and frees the device. */
void one_file_end(void);

#endif
