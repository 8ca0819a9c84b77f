/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Mounting and unmounting through libfuse3, for transport.c. Main thread; transport_unmount_try and
 * transport_unmount_lazy on the thread that asks for the end, one call at a time. -errno; mounting
 * with a reason.
 */
#ifndef FDIO_TRANSPORT_MOUNT_H
#define FDIO_TRANSPORT_MOUNT_H

#include "base/nowait.h"
#include "base/reason.h"

#include <stddef.h>

struct transport;

int transport_mount_libfuse(struct transport *transport, struct fdio_reason *reason) FDIO_BLOCKS;
/* Unmounts lazily if still mounted, then closes the session's fd and frees the session. */
void transport_unmount_libfuse(struct transport *transport);
/*
 * Unmounts as umount(8) does; -EBUSY if files are open. May wait until DESTROY is answered, which
 * the control thread does, so it must not run there.
 */
int transport_unmount_try(struct transport *transport);
/* Detaches the mount at once; open files keep the connection alive. Logs an error. */
void transport_unmount_lazy(struct transport *transport);

#endif
