/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Options that the superblock asks for. Main thread.
 */
#ifndef FDIO_COMMAND_SUPEROPTS_H
#define FDIO_COMMAND_SUPEROPTS_H

#include "command/options.h"

/*
 * What tune2fs -o, -E mount_opts, -u and -g have left in the superblock (1024 bytes of device
 * name), where the command line says nothing else. What is not honoured is logged. Main thread,
 * once, before the volume is opened.
 */
void superopts_apply(struct options *options, const uint8_t *super, const char *name);

#endif
