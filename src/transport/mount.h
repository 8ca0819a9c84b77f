/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Mounting and unmounting through libfuse3, for transport.c. Main thread; transport_unmount_try and
 * transport_unmount_lazy on the thread that asks for the end, one call at a time. Fails with -errno
 * and a reason.
 */
#ifndef FDIO_TRANSPORT_MOUNT_H
#define FDIO_TRANSPORT_MOUNT_H

#include "base/nowait.h"
#include "base/reason.h"

#include <stddef.h>

struct transport;

int transport_mount_libfuse(struct transport *transport, struct fdio_reason *reason) FDIO_BLOCKS;
/* The mount may be gone already: then only frees. Closes the session's fd. */
void transport_unmount_libfuse(struct transport *transport);
/*
 * umount(2) as a user would; -EBUSY when files are open. May wait for DESTROY: not on the control
 * thread.
 */
int transport_unmount_try(struct transport *transport);
/* Takes the mount out of the tree at once; open files keep the connection alive. */
void transport_unmount_lazy(struct transport *transport);

#endif
