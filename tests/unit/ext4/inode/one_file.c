/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The volume with one file that the tests of inodes use: see one_file.h. */
#include "one_file.h"

#include <stdlib.h>

struct fake_dev *fake;
struct ext4_vol *vol;

void one_file_mount(unsigned shape, uint32_t *ret_ino)
{
	char out[64];

	fake = testvol_shape(shape);
	ck_assert_int_eq(fake_run(fake,
				  "echo hello > $IMG.src && "
				  "debugfs -w -R \"write $IMG.src file\" $IMG >/dev/null 2>&1 && "
				  "rm $IMG.src && debugfs -R 'stat file' $IMG 2>/dev/null | "
				  "sed -n 's/^Inode: \\([0-9]*\\).*/\\1/p'",
				  out, sizeof(out), true),
			 0);
	*ret_ino = (uint32_t)strtoul(out, NULL, 10);
	ck_assert_uint_ge(*ret_ino, 11);
	vol = testvol_mount(fake);
}

void one_file_remount(void)
{
	testvol_unmount_check(vol, fake);
	vol = testvol_mount(fake);
}

void one_file_end(void)
{
	testvol_check_groups(vol);
	testvol_unmount_check(vol, fake);
	fake_free(fake);
}
