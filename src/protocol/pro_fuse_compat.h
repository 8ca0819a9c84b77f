/* SPDX-License-Identifier: GPL-2.0-or-later */
/* <linux/fuse.h>, and what older headers than the running kernel's protocol lack. */
#ifndef FDIO_PROTOCOL_PRO_FUSE_COMPAT_H
#define FDIO_PROTOCOL_PRO_FUSE_COMPAT_H

#include <linux/fuse.h>

#endif
