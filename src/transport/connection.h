/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of a connection: transport_new, transport_mount, transport_set_server, transport_start,
 * transport_attach, (requests), the end, transport_wait, transport_free. The main thread calls
 * these; the control thread runs the end. Failures while starting are -errno with a reason;
 * afterwards a connection that fails ends the mount (transport_config.destroy).
 */
#ifndef FDIO_TRANSPORT_CONNECTION_H
#define FDIO_TRANSPORT_CONNECTION_H

#include "base/nowait.h"
#include "base/reason.h"
#include "transport/transport.h"

enum transport_kind { TRANSPORT_KIND_AUTO = 0, TRANSPORT_KIND_URING, TRANSPORT_KIND_DEVFUSE };

/*
 * The server of the requests. handle gets one request, on its loop's thread, and must not block;
 * it, or the thread it hands the request to, calls transport_reply or transport_reply_data exactly
 * once. forget gets FORGET, which has no reply and may come in thousands, on a loop thread or the
 * control thread; it must not block.
 */
struct transport_server {
	void (*handle)(struct transport_req *req, void *arg);
	void (*forget)(void *arg, uint64_t nodeid, uint64_t nlookup);
	void *arg;
};

struct transport_config {
	const char *source;        /* shown in /proc/mounts, as the user gave it */
	const char *mountpoint;
	bool blkdev;               /* fuseblk */
	uint32_t blksize;          /* for fuseblk */
	/* For the kernel and mount(8), separated by commas: ro,nosuid,allow_other */
	const char *mount_opts;
	struct loop_set *loops;
	unsigned queue_depth;      /* slots for each loop */
	enum transport_kind transport;
	unsigned max_background;   /* 0: 4096 */
	size_t slot_size;          /* bytes of the struct that begins with a transport_req */
	bool posix_acl, parallel_dio, export_handles;
	/*
	 * The mount may be idmapped (Linux 6.12). Then requests do not say who the requester is
	 * (MESSAGE_UNKNOWN_ID), and those that create have the IDs of the new inode.
	 */
	bool idmap;
	/* Called once, on the main thread, when the mount is attached to mountpoint. */
	void (*mounted)(void *arg);
	/*
	 * After mounted. Unmounts mountpoint; the daemon itself no longer has the privilege.
	 * -EPERM: only a lazy unmount is possible, -EINVAL: it is not mounted any more, -EEXIST:
	 * another mount covers it, or another -errno. Not on the control thread; one call at a
	 * time.
	 */
	int (*umount)(void *arg, bool lazy);
	/*
	 * Called on the control thread when the transport takes no more requests, before it waits
	 * for those that handlers still have. aborted: through the kernel's control files.
	 * May be NULL.
	 */
	void (*ending)(void *arg, bool aborted);
	/*
	 * Called once, on the control thread, after DESTROY (umount of fuseblk) or the end of the
	 * channel (umount, abort). Must return only when all data is on the device.
	 */
	void (*destroy)(void *arg);
	void *arg;
};

/*
 * Allocates slots and buffers, and registers the buffers with the loops. Before loop_set_start.
 * -errno; reason gets one line.
 */
int transport_new(const struct transport_config *config, struct transport **ret,
		  struct fdio_reason *reason);
/*
 * Mounts; a block device is claimed from now on. -errno, -ENODEV: the kernel has no FUSE.
 * transport_start answers the kernel's INIT. If fusermount3 mounts, the mount is visible from now
 * on, else from transport_attach on.
 */
int transport_mount(struct transport *transport, struct fdio_reason *reason) FDIO_BLOCKS;
/* Before transport_start. The server outlives the connection. */
void transport_set_server(struct transport *transport, const struct transport_server *server);
/*
 * Answers INIT, opens the channel's clones of the connection, starts the control thread, and has
 * the running loops arm their slots. Main thread; waits at most ten seconds for INIT. -errno.
 */
int transport_start(struct transport *transport, struct fdio_reason *reason) FDIO_BLOCKS;
/*
 * After transport_start: attaches the mount to its directory, where it serves at once. Main thread.
 * -errno; then transport_unmount ends the mount.
 */
int transport_attach(struct transport *transport, struct fdio_reason *reason);
/*
 * Unmounts as SIGTERM asks for, lazily if the mount is busy, and thereby ends the connection. Not
 * on the control thread.
 */
void transport_unmount(struct transport *transport);
/*
 * Ends the connection although the kernel keeps it alive: the file system is unmounted here, but
 * still mounted elsewhere. Any thread.
 */
void transport_let_go(struct transport *transport);
/* Logs the requests that are not answered yet (at most 20), and how many there are. Any thread. */
void transport_log_busy(struct transport *transport);
/* Waits until the channel has ended and destroy has returned. Main thread. */
void transport_wait(struct transport *transport) FDIO_BLOCKS;
void transport_free(struct transport *transport);

#endif
