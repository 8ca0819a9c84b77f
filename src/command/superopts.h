/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mount options stored in the superblock. Main thread, no state; nothing here fails.
 */
#ifndef FDIO_COMMAND_SUPEROPTS_H
#define FDIO_COMMAND_SUPEROPTS_H

#include "command/options.h"

/*
 * Sets the options that tune2fs -o, -E mount_opts, -u and -g have stored in the superblock, unless
 * the command line has given them. super: the 1024 bytes of the superblock. Logs each option that
 * is set or cannot be honoured, under the device name dev. Called once, before the volume is
 * opened.
 */
void superopts_apply(struct options *options, const uint8_t *super, const char *dev);

#endif
