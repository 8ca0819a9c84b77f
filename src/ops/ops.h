/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The FUSE operations: what stands between the transport and the file system. The command makes one
 * struct ops a mount (command/assemble.c), gives ops_handle and ops_forget to the transport and
 * ops_inval to the direct-I/O engine.
 *
 * Node ids: the root is 1, every other inode's node id is its number. Each entry reply takes one
 * inode reference, FORGET drops them.
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
	/* everything that may block; not the engine's queues, which these operations wait for */
	struct work_queue *workers;
	unsigned nr_requests;    /* slots of all loops: bounds what can wait for an invalidation */
	bool parallel_dio;       /* O_DIRECT opens bypass the page cache and write in parallel */
	bool sync, dirsync;      /* mount options of these names */
	uint32_t resuid, resgid; /* who besides root may use the reserved blocks; group 0: none */
	/*
	 * Whether gid is a supplementary group of the process; NULL: not to be found out. Workers;
	 * may block for a moment.
	 */
	bool (*in_group)(void *arg, uint32_t pid, uint32_t gid);
	/*
	 * Whether the waiting thread pid, user uid, has a capability (CAP_*); NULL: nobody has.
	 * Workers; may block for a moment.
	 */
	bool (*capable)(void *arg, uint32_t pid, uint32_t uid, unsigned cap);
	void *arg;
};

int ops_new(const struct ops_config *config, struct ops **ret) FDIO_BLOCKS;
/*
 * The engine and the transport are made with callbacks into ops, so they come later; before the
 * first request.
 */
void ops_set_dio(struct ops *ops, struct dio *dio);
void ops_set_tr(struct ops *ops, struct transport *transport);
/* transport_config.slot_size */
size_t ops_req_size(void);
/* transport_server.handle; arg is the struct ops. Loop thread, never blocks. */
void ops_handle(struct transport_req *req, void *arg);
/* transport_server.forget; arg is the struct ops. Any thread, never blocks. */
void ops_forget(void *arg, uint64_t nodeid, uint64_t nlookup);
/* dio_config.inval; arg is the struct ops. Any thread, never blocks. */
void ops_inval(void *arg, struct ext4_inode *inode, uint64_t off, uint64_t len, struct work *work,
	       void (*done)(struct work *));
/* dio_config.launder; arg is the struct ops. Any thread, never blocks. */
void ops_launder_pages(void *arg, struct ext4_inode *inode, uint64_t off, uint64_t len, unsigned ms,
		       struct work *work, void (*done)(struct work *, bool late));
/* dio_config.kill_sgid. Workers. */
unsigned ops_kill_sgid(const struct dio_req *req);
/* No request will come any more and the engine is idle: closes what is still open. Blocks. */
void ops_shutdown(struct ops *ops) FDIO_BLOCKS;
void ops_free(struct ops *ops) FDIO_BLOCKS;

#endif
