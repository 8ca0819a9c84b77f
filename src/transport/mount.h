/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Mounting and unmounting, for transport.c. Main thread; transport_unmount_try and
 * transport_unmount_lazy on the thread that asks for the end, one call at a time. -errno; mounting
 * with a reason.
 */
#ifndef FDIO_TRANSPORT_MOUNT_H
#define FDIO_TRANSPORT_MOUNT_H

#include "base/nowait.h"
#include "base/reason.h"

#include <stddef.h>

struct transport;

/*
 * Makes the mount. With the privilege to mount, it is detached until transport_mount_attach;
 * without it, fusermount3 has attached it already.
 */
int transport_mount_make(struct transport *transport, struct fdio_reason *reason) FDIO_BLOCKS;
/* Attaches the mount to its directory. */
int transport_mount_attach(struct transport *transport, struct fdio_reason *reason);
/* Unmounts lazily if still mounted, and closes the fd of the connection. */
void transport_mount_free(struct transport *transport);
/*
 * Unmounts as umount(8) does; -EBUSY if files are open. May wait until DESTROY is answered, which
 * the control thread does, so it must not run there.
 */
int transport_unmount_try(struct transport *transport);
/*
 * detached.c, for mount.c and transport.c. -EOPNOTSUPP, without a reason: this process or this
 * mount needs libfuse. transport_detached_end ends a mount that was never attached, as an unmount
 * would; so it may wait until DESTROY is answered. transport_detached_close closes the connection,
 * too, and does not wait.
 */
int transport_detached_new(struct transport *transport, struct fdio_reason *reason);
int transport_detached_attach(struct transport *transport, struct fdio_reason *reason);
void transport_detached_end(struct transport *transport);
void transport_detached_close(struct transport *transport);
/* Detaches the mount at once; open files keep the connection alive. Logs an error. */
void transport_unmount_lazy(struct transport *transport);

#endif
