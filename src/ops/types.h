/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside src/ops: the state of a mount's operations, the request, and the helpers that handlers
 * share. handlers.h has the handlers.
 *
 * A handler answers its request exactly once, by one of the ops_reply calls of reply.c or, if the
 * room below ends the request later, by transport_reply. It runs where its flags say:
 *
 *   OPS_LOOP   on the loop thread that received the request; it must not block.
 *   OPS_TRY    first on the loop thread, in the mode of base/nowait.h. If it misses before its
 *              answer, the answer is withheld, and the handler runs again on a worker.
 *   neither    on a worker (a thread of ops_config.workers), where it may block.
 *
 * So an OPS_TRY handler gives back what it holds if nowait_missed() says so, and leaves the payload
 * as it was until it writes the answer: names of the request may lie there.
 *
 * "Workers, OPS_TRY" below: on workers, and on loop threads in that mode. Where no thread is named,
 * any thread may call, and the call does not block.
 */
#ifndef FDIO_OPS_TYPES_H
#define FDIO_OPS_TYPES_H

#include "base/counters.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/nowait.h"
#include "dio/pagecache.h"
#include "ops/handlers.h"
#include "ops/ops.h"

#include <errno.h>
#include <string.h>

/*
 * How long the kernel may keep entries and attributes, in seconds. Nobody else changes the file
 * system, so any time would be right.
 */
#define OPS_VALID_S 86400u
/* Inodes with smaller numbers are the file system's own, except the root. */
#define OPS_FIRST_INO 11u

/* Inode flags as on disk, and as FS_IOC_GETFLAGS shows them. */
enum {
	OPS_FL_SYNC = 0x8,
	OPS_FL_IMMUTABLE = 0x10,
	OPS_FL_APPEND = 0x20,
	OPS_FL_NODUMP = 0x40,
	OPS_FL_NOATIME = 0x80,
	OPS_FL_DIRSYNC = 0x10000,
	OPS_FL_TOPDIR = 0x20000,
	OPS_FL_EA_INODE = 0x200000,
	OPS_FL_VISIBLE = 0x725bdfff, /* all that FS_IOC_GETFLAGS shows */
};

struct ops_req;
typedef void (*ops_handler_fn)(struct ops_req *req);

/* ops_handler.flags */
enum {
	OPS_LOOP = 1 << 0,           /* the head says where these two run */
	OPS_TRY = 1 << 1,
	OPS_CHANGE = 1 << 2,         /* a read-only volume refuses it with EROFS */
	OPS_AFTER_SHUTDOWN = 1 << 3, /* served after ext4_vol_shutdown; all else is EIO then */
};
struct ops_handler { ops_handler_fn fn; unsigned flags; };

/* A request: it lives in a slot of the transport, which allocates slots of ops_req_size(). */
struct ops_req {
	struct transport_req fuse; /* must be first */
	struct dio_req dio;        /* READ and WRITE */
	struct dio_sync sync;      /* FSYNC, FSYNCDIR, SYNCFS */
	struct work work;          /* on ops_config.workers */
	struct ops *ops;
	const struct ops_handler *handler;
	struct ext4_inode *inode;  /* a reference, while ops_launder_first is at work */
	bool laundered;            /* it has been at work, once; only then the next two are valid */
	struct dio_cached cached;  /* the pages */
	bool cached_late;          /* the pages were not forgotten in time */
};

/*
 * One open file or directory. files_lock guards changes. Readers take no lock: the kernel releases
 * a handle only after the last request that carries it was answered.
 */
struct ops_file {
	/* Atomic. Odd while the entry is in use; each open and release adds 1. */
	uint32_t gen;
	uint32_t next_free;        /* index + 1 of the next free entry; 0: none */
	struct dio_file *file;     /* NULL for directories */
	struct ext4_inode *inode;  /* one reference */
	unsigned open_flags;       /* of open(2) */
	uint64_t index;
};

#define OPS_FILES_CHUNK 512u
#define OPS_FILES_CHUNKS 2048u

struct ops_notify;
struct ops_launder;

struct ops {
	struct ops_config config;
	struct ext4_vol *vol;
	struct dio *dio;
	struct transport *transport;
	bool has_inline;           /* the volume may have files whose data is in the inode */

	/* The open files. files_lock guards the free list, the counts and the filling of chunks. */
	struct fdio_mutex files_lock;
	struct ops_file *chunks[OPS_FILES_CHUNKS]; /* atomic; a chunk is set once */
	uint32_t free_head;        /* index + 1 of the first free entry; 0: none */
	uint32_t nr_slots, nr_open;

	struct ops_notify *notify;
	struct ops_launder *launder;
	struct work reap_work;     /* deletes inodes that loop threads left over */
	bool reap_queued;          /* atomic */
};

static inline struct ops_req *ops_of(struct transport_req *fuse)
{
	return container_of(fuse, struct ops_req, fuse);
}
/* The fixed argument of the request's opcode (struct fuse_..._in). */
static inline const void *ops_arg(struct ops_req *req) { return req->fuse.in.arg; }

/* ---- reply.c ---- */

/* Answers with an error, or with success and no body. */
void ops_reply_err(struct ops_req *req, int err);
/* Answers with an error, or with the first len bytes of the payload. */
void ops_reply(struct ops_req *req, int err, uint32_t len);
/* Answers with a copy of len bytes of data. */
void ops_reply_data(struct ops_req *req, const void *data, uint32_t len);
/*
 * Around a handler that is tried on a loop thread. ops_try_answered is false if the handler missed,
 * which means that there was no answer.
 */
void ops_try_begin(void);
bool ops_try_answered(void);

/* ---- nodes.c ---- */

/* Registers the callbacks of ext4. At mount. */
void ops_nodes_init(struct ops *ops);
/*
 * Finds the inode of a node id; the caller gets a reference. -ESTALE if there is no such inode.
 * Workers, OPS_TRY.
 */
int ops_inode_get(struct ops *ops, uint64_t nodeid, struct ext4_inode **ret) FDIO_MAY_MISS;
static inline uint64_t ops_nodeid(const struct ext4_inode *inode)
{
	uint32_t ino = ext4_inode_ino(inode);

	return ino == EXT4_ROOT_INO ? FUSE_ROOT_ID : ino;
}
/*
 * Drops nlookup of the references that the kernel holds by nodeid, because it forgot them or never
 * got them. Workers, OPS_TRY.
 */
void ops_forget_lookups(struct ops *ops, uint64_t nodeid, uint64_t nlookup) FDIO_MAY_WAIT;

/* ---- requester.c ---- */

/* Fills in who sent the request. The groups point into it. */
void ops_credentials(struct ops_req *req, uint32_t umask, struct ext4_credentials *credentials);
/* True if the requester may use the blocks that are reserved for root. */
bool ops_may_use_reserved(const struct ops_req *req);
/*
 * The privileges (EXT4_KILL_*) that inode loses by a change of the requester. FUSE leaves the
 * judgement to the daemon, without telling the groups. Workers, OPS_TRY.
 */
unsigned ops_kill_flags(const struct ops_req *req, struct ext4_inode *inode) FDIO_MAY_WAIT;
/*
 * True if the requester, who waits for the answer, has the capability cap (CAP_*). Workers; may
 * block for a moment.
 */
bool ops_capable(const struct ops_req *req, unsigned cap) FDIO_BLOCKS;

/* ---- durable.c ---- */

/*
 * Waits until everything done to inode so far is durable; datasync as in struct dio_sync. Workers,
 * without a lock.
 */
int ops_wait_durable(struct ops *ops, struct ext4_inode *inode, bool datasync) FDIO_BLOCKS;
/*
 * True if changes of inode are synchronous: answered when durable, because of the mount option sync
 * or chattr +S.
 */
bool ops_is_sync(struct ops *ops, struct ext4_inode *inode);
/*
 * After a change: waits until it is durable, if changes of inode are synchronous, or if changes of
 * the names in dir are (dirsync and chattr +D count as well). err is the result of the change: if
 * it is not 0, nothing is waited for and err is returned. Workers; OPS_TRY after ops_miss_if_sync.
 */
int ops_inode_durable(struct ops *ops, struct ext4_inode *inode, int err) FDIO_MAY_WAIT;
int ops_dir_durable(struct ops *ops, struct ext4_inode *dir, int err) FDIO_MAY_WAIT;
/*
 * Before a change: misses on a loop thread if changes of inode (a directory: of its names) are
 * synchronous. Workers, OPS_TRY.
 */
int ops_miss_if_sync(struct ops *ops, struct ext4_inode *inode) FDIO_MAY_MISS;

/* ---- immutable.c ---- */

/*
 * 0 if inode may be opened with these flags of open(2). -EPERM: it is immutable or append-only;
 * -EISDIR, -ENXIO: not a regular file; -EROFS: the volume is read-only.
 */
int ops_open_allowed(struct ops *ops, struct ext4_inode *inode, uint32_t flags);
/* 0, or -EPERM for an immutable or append-only inode. */
int ops_setattr_allowed(struct ext4_inode *inode, const struct fuse_setattr_in *in);
/* 0, or -EPERM if dir is append-only. */
int ops_rename_into_allowed(struct ext4_inode *dir);

/* ---- entries.c ---- */

/* Seconds that the kernel may keep the attributes of inode. */
uint64_t ops_attr_valid(struct ext4_inode *inode);
void ops_fill_attr(struct ops *ops, struct ext4_inode *inode, struct fuse_attr *out);
/* The caller's reference of inode becomes the kernel's, except that of the root. */
void ops_fill_entry(struct ops *ops, struct ext4_inode *inode, struct fuse_entry_out *out);
/*
 * Answers with err, or with the entry of inode: the caller's reference becomes the kernel's, or is
 * dropped for the root and after a miss. With an error inode is not used.
 */
void ops_reply_entry(struct ops_req *req, int err, struct ext4_inode *inode) FDIO_MAY_WAIT;

/* ---- attributes.c ---- */

/* Truncates or grows a regular file to size bytes. Workers; it always misses on a loop thread. */
int ops_set_size(struct ops *ops, struct ext4_inode *inode, uint64_t size) FDIO_MAY_MISS;

/* ---- open_files.c ---- */

/*
 * Puts a file (or, with file NULL, a directory) into the table of open files, which takes over file
 * and the caller's reference of inode. -ENFILE, -ENOMEM: it has not taken them.
 */
int ops_file_add(struct ops *ops, struct ext4_inode *inode, struct dio_file *file,
		 unsigned open_flags, uint64_t *ret_fh);
/* The open file of a handle; NULL if the handle is not open. Takes no lock. */
struct ops_file *ops_file_get(struct ops *ops, uint64_t fh);
/* Takes a file out of the table: the caller closes ret->file and drops ret->inode. */
bool ops_file_remove(struct ops *ops, uint64_t fh, struct ops_file *ret);
/*
 * The same for the next open file from *index on, and moves *index behind it. False: there are no
 * more.
 */
bool ops_file_remove_next(struct ops *ops, uint32_t *index, struct ops_file *ret);
/*
 * Fills ids with node ids of open regular files from *index on, and moves *index behind them.
 * Returns how many, at most cap; 0: there are no more.
 */
unsigned ops_files_nodeids(struct ops *ops, uint32_t *index, uint64_t *ids, unsigned cap);
void ops_files_free(struct ops *ops);

/* ---- inode_flags.c: workers ---- */

struct fsxattr;
int ops_set_inode_flags(struct ops_req *req, struct ext4_inode *inode, uint32_t want) FDIO_BLOCKS;
int ops_set_xflags(struct ops_req *req, struct ext4_inode *inode,
		   const struct fsxattr *xattr) FDIO_BLOCKS;
void ops_get_xflags(struct ext4_inode *inode, struct fsxattr *xattr);

/* ---- file_map.c ---- */

/* Serves FDIO_IOC_MAP and answers. Workers. */
void ops_reply_map(struct ops_req *req, const struct fuse_ioctl_in *in) FDIO_BLOCKS;

/* ---- invalidate.c ---- */

int ops_notify_new(struct ops *ops) FDIO_BLOCKS;
/*
 * After a failed operation that could have changed the size of inode, which was before. A truncate
 * takes several transactions, so the size may have changed all the same: then the kernel is made to
 * ask for it again. Otherwise it would show the old one for OPS_VALID_S. Workers, OPS_TRY.
 */
void ops_size_failed(struct ops *ops, struct ext4_inode *inode, uint64_t before) FDIO_MAY_WAIT;
/* Waits until every notification has been sent; no request that could send one is under way. */
void ops_notify_drain(struct ops *ops) FDIO_BLOCKS;
void ops_notify_free(struct ops *ops) FDIO_BLOCKS;

/* ---- launder.c ---- */

int ops_launder_new(struct ops *ops) FDIO_BLOCKS;
void ops_launder_drain(struct ops *ops) FDIO_BLOCKS; /* as ops_notify_drain */
void ops_launder_free(struct ops *ops) FDIO_BLOCKS;
/*
 * Called by a handler, before it changes anything, whose answer depends on what programs have
 * stored in such pages of inode. If the kernel may hold any, it writes them back and forgets them:
 * the call returns true, the handler returns without an answer, and it is called again on a worker.
 * Workers; OPS_TRY, where it misses instead.
 */
bool ops_launder_first(struct ops_req *req, struct ext4_inode *inode, enum dio_cached_what what)
	FDIO_MAY_WAIT;
/*
 * After a file has grown from old_size bytes: has the kernel forget the page of the old end. True:
 * req will be answered, with success, when that is done. Workers.
 */
bool ops_launder_tail(struct ops_req *req, struct ext4_inode *inode, uint64_t old_size);
/* True if the kernel clears what pages hold behind the end when a file grows. After INIT. */
bool ops_kernel_clears_tail(const struct ops *ops);

#endif
