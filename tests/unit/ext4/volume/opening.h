/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening a volume when the test expects an error, or wants to know the reason. The test's thread
 * calls it.
 */
#ifndef FDIO_UNIT_OPENING_H
#define FDIO_UNIT_OPENING_H

#include "kit/volume.h"

/*
 * ext4_vol_open of the device. 0: *ret_vol is open, and *ret_why says why it is read-only, or is
 * NULL; -errno: *ret_vol is NULL, and msg, of len bytes, says why.
 */
static inline int try_open(struct fake_dev *fake, struct ext4_options *options,
			   struct ext4_vol **ret_vol, const char **ret_why, char *msg, size_t len)
{
	*ret_vol = NULL;
	*ret_why = NULL;
	return ext4_vol_open(fake_dev(fake), options, ret_vol, ret_why, FDIO_REASON_AT(msg, len));
}

#endif
