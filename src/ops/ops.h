/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The FUSE operations: what stands between the transport and the file system. The command makes one
 * struct ops for a mount (command/assemble.c), gives ops_handle and ops_forget to the transport,
 * and the page-cache callbacks to the direct-I/O engine.
 *
 * Node ids: the root is 1; the node id of every other inode is its number. Each answer with an
 * entry gives the kernel one reference of the inode, which FORGET drops.
 *
 * Errors are -errno. "Worker" means a thread of ops_config.workers or of the engine's queue.
 */
#ifndef FDIO_OPS_OPS_H
#define FDIO_OPS_OPS_H

#include "base/nowait.h"
#include "base/work.h"
#include "dio/dio.h"
#include "transport/transport.h"

struct ops;

struct ops_config {
	struct ext4_vol *vol;
	/*
	 * Runs every operation that may block. It must not be one of the engine's queues, because
	 * operations wait for those.
	 */
	struct work_queue *workers;
	unsigned nr_requests;    /* slots of all loops: bounds what can wait for an invalidation */
	bool parallel_dio;       /* O_DIRECT opens bypass the page cache and write in parallel */
	bool sync, dirsync;      /* the mount options of these names */
	uint32_t resuid, resgid; /* may use the reserved blocks, as root may; resgid 0: no group */
	/*
	 * True if gid is a supplementary group of the process pid. NULL counts as false. Called on
	 * workers; may block for a moment.
	 */
	bool (*in_group)(void *arg, uint32_t pid, uint32_t gid);
	/*
	 * True if the thread pid of user uid (or MESSAGE_UNKNOWN_ID), which waits for our reply,
	 * has the capability cap (CAP_*). NULL counts as false. Called on workers; may block for a
	 * moment.
	 */
	bool (*capable)(void *arg, uint32_t pid, uint32_t uid, unsigned cap);
	/*
	 * The user and group of the thread pid, which waits for our reply. False if they cannot be
	 * found out. NULL counts as false. Called on workers; may block for a moment.
	 */
	bool (*ids)(void *arg, uint32_t pid, uint32_t *uid, uint32_t *gid);
	void *arg;
};

/* Copies config. Main thread, at mount. -ENOMEM. */
int ops_new(const struct ops_config *config, struct ops **ret) FDIO_BLOCKS;
/*
 * The engine and the transport need callbacks into struct ops, so they are made after it and set
 * here, before the first request.
 */
void ops_set_dio(struct ops *ops, struct dio *dio);
void ops_set_transport(struct ops *ops, struct transport *transport);
/* Bytes of a request slot, for transport_config.slot_size. */
size_t ops_req_size(void);

/* ---- callbacks; arg is the struct ops; the last two may block ---- */

/* transport_server.handle: starts serving a request. Loop thread. */
void ops_handle(struct transport_req *fuse, void *arg);
/* transport_server.forget: the kernel drops nlookup references of nodeid. Any thread. */
void ops_forget(void *arg, uint64_t nodeid, uint64_t nlookup);
/* dio_config.inval; work must belong to a request in one of the transport's slots. Any thread. */
void ops_invalidate_pages(void *arg, struct ext4_inode *inode, uint64_t off, uint64_t len,
			  struct work *work, void (*done)(struct work *));
/* dio_config.launder. Any thread. */
void ops_launder_pages(void *arg, struct ext4_inode *inode, uint64_t off, uint64_t len, unsigned ms,
		       struct work *work, void (*done)(struct work *, bool late));
/* dio_config.kill_sgid and may_use_reserved. Workers; may block for a moment. */
unsigned ops_kill_sgid(const struct dio_req *req);
bool ops_writer_may_use_reserved(const struct dio_req *req);

/*
 * Closes the files that are still open, and waits for the notifications under way. The caller makes
 * sure that no more requests come and that the engine is idle. On the thread that ends the mount;
 * may be called again.
 */
void ops_shutdown(struct ops *ops) FDIO_BLOCKS;
/* Frees ops, after ops_shutdown. ops may be NULL. */
void ops_free(struct ops *ops) FDIO_BLOCKS;

#endif
