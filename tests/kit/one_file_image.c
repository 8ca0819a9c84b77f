/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The image of kit/one_file.h: mke2fs formats it, then debugfs makes /f. The test's thread. */
#include "kit/one_file.h"

#include <stdio.h>

struct fake_dev *onefile_image(uint64_t size, const char *mkfs_args, const char *setup,
			       uint32_t *ret_ino)
{
	struct fake_dev *fake = fake_mkfs(size, mkfs_args);
	char out[1024];
	char cmd[1024];

	ck_assert_ptr_nonnull(fake);
	snprintf(cmd, sizeof(cmd),
		 "{ %s; } >/dev/null 2>&1 && debugfs -R 'stat /f' $IMG 2>/dev/null",
		 setup ? setup : "debugfs -w -R 'write /dev/null f' $IMG");
	ck_assert_int_eq(fake_run(fake, cmd, out, sizeof(out), true), 0);
	ck_assert_int_eq(sscanf(out, "Inode: %u", ret_ino), 1);
	return fake;
}
