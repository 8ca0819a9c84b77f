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
 * So if nowait_missed() is true, an OPS_TRY handler drops its references and locks. Until it writes
 * the answer, it does not change the payload, which may contain the names of the request.
 *
 * Below, "Workers, OPS_TRY" means: on workers, and on loop threads in the mode of base/nowait.h.
 * Where no thread is named, any thread may call the function, which does not block.
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
 * How long the kernel may cache entries and attributes, in seconds. Only this daemon changes the
 * file system, so any time would be correct.
 */
#define OPS_VALID_S 86400u
/* Inodes with smaller numbers are the file system's own, except the root. */
#define OPS_FIRST_INO 11u

/* Inode flags as on disk, and as FS_IOC_GETFLAGS shows them. */
enum {
	OPS_FL_COMPRESSED = 0x4,
	OPS_FL_SYNC = 0x8,
	OPS_FL_IMMUTABLE = 0x10,
	OPS_FL_APPEND = 0x20,
	OPS_FL_NODUMP = 0x40,
	OPS_FL_NOATIME = 0x80,
	OPS_FL_ENCRYPTED = 0x800,
	OPS_FL_DIRSYNC = 0x10000,
	OPS_FL_TOPDIR = 0x20000,
	OPS_FL_VERITY = 0x100000,
	OPS_FL_EA_INODE = 0x200000,
	OPS_FL_VISIBLE = 0x725bdfff, /* all that FS_IOC_GETFLAGS shows */
};

struct ops_req;
typedef void (*ops_handler_fn)(struct ops_req *req);

/* ops_handler.flags */
enum {
	OPS_LOOP = 1 << 0,           /* see the head of this file */
	OPS_TRY = 1 << 1,
	OPS_CHANGE = 1 << 2,         /* a read-only volume refuses it with EROFS */
	OPS_AFTER_SHUTDOWN = 1 << 3, /* served after ext4_vol_shutdown; all else is EIO then */
	/* May create an inode: the IDs in the header are the owner's (requester.c). */
	OPS_CREATES = 1 << 4,
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
	struct ext4_inode *inode;  /* a reference, while ops_launder_first launders its pages */
	bool laundered;            /* ops_launder_first has run; makes the next two valid */
	struct dio_cached cached;  /* the range of pages that it laundered */
	bool cached_late;          /* the kernel did not forget these pages in time */
};

/*
 * One open file or directory. files_lock guards changes. Readers take no lock: the kernel releases
 * a handle only after the last request that carries it was answered.
 */
struct ops_file {
	/* Atomic. The generation: each open and release adds 1; odd while the entry is in use. */
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
	struct work reap_work;     /* deletes the inodes that loop threads left to a worker */
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
 * dispatch.c calls these two before and after it tries a handler on a loop thread. ops_try_answered
 * returns false if the handler missed and its answer was withheld.
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

/*
 * Fills in credentials from the request. credentials->groups points into the request. -EOVERFLOW:
 * the owner of a new inode has no ID in the file system.
 */
int ops_credentials(struct ops_req *req, uint32_t umask, struct ext4_credentials *credentials);
/* True if the request says that the requester is root. Workers, OPS_TRY. */
bool ops_is_root(const struct ops_req *req) FDIO_MAY_WAIT;
/*
 * True if the request says that the requester may use the blocks that are reserved for root.
 * ops_space_again finds out more when it matters.
 */
bool ops_may_use_reserved(const struct ops_req *req);
/*
 * As ext4_space_has_come, with *root as ops_may_use_reserved has said. If that was false but the
 * requester may use the reserved blocks, sets it and returns true: try again so.
 */
bool ops_space_again(const struct ops_req *req, int err, uint64_t *since, bool *root) FDIO_MAY_WAIT;
/*
 * Returns which privileges (EXT4_KILL_*) inode loses when the requester changes it. FUSE leaves
 * that decision to the daemon, but does not pass the supplementary groups. Workers, OPS_TRY.
 */
unsigned ops_kill_flags(const struct ops_req *req, struct ext4_inode *inode) FDIO_MAY_WAIT;
/*
 * True if the requester, which waits for the answer, has the capability cap (CAP_*). Workers; may
 * block for a moment.
 */
bool ops_capable(const struct ops_req *req, unsigned cap) FDIO_BLOCKS;

/* ---- durable.c ---- */

/*
 * Waits until all changes of inode so far are durable; datasync as in struct dio_sync. Workers,
 * without a lock.
 */
int ops_wait_durable(struct ops *ops, struct ext4_inode *inode, bool datasync) FDIO_BLOCKS;
/*
 * True if changes of inode are synchronous: answered when durable, because of the mount option sync
 * or chattr +S.
 */
bool ops_is_sync(struct ops *ops, struct ext4_inode *inode);
/*
 * Called after a change with its result err. If err is 0 and changes of inode are synchronous,
 * waits until the change is durable; ops_dir_durable does so for changes of the names in dir, which
 * dirsync and chattr +D make synchronous, too. Otherwise returns err at once. Workers; OPS_TRY
 * after ops_miss_if_sync.
 */
int ops_inode_durable(struct ops *ops, struct ext4_inode *inode, int err) FDIO_MAY_WAIT;
int ops_dir_durable(struct ops *ops, struct ext4_inode *dir, int err) FDIO_MAY_WAIT;
/*
 * Called before a change: on a loop thread it misses if changes of inode (for a directory, of its
 * names) are synchronous. Workers, OPS_TRY.
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
 * As ops_file_remove, for the next open file from *index on; moves *index behind it. False: no more
 * files are open.
 */
bool ops_file_remove_next(struct ops *ops, uint32_t *index, struct ops_file *ret);
/*
 * Fills ids with node ids of open regular files from *index on, and moves *index behind them.
 * Returns the number of ids, at most cap; 0: no more files.
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
 * Called after an operation on inode has failed; before: the size before the operation. A truncate
 * takes several transactions, so the size may have changed in spite of the error. If it has, the
 * kernel is notified to ask for it again; otherwise it would show the old size for OPS_VALID_S.
 * Workers, OPS_TRY.
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
 * For a handler whose answer depends on what programs have stored in mapped pages of inode of the
 * kind `what`; it calls this before it changes anything. If the kernel may hold such pages, has the
 * kernel write them back and forget them, and returns true: the handler must return without an
 * answer, and is called again on a worker. Workers; OPS_TRY, where it misses instead.
 */
bool ops_launder_first(struct ops_req *req, struct ext4_inode *inode, enum dio_cached_what what)
	FDIO_MAY_WAIT;
/*
 * True if ops_launder_first has run for pages over holes and they were not written back in time:
 * the extent map may show holes in req->cached where programs have stored data.
 */
static inline bool ops_holes_unknown(const struct ops_req *req)
{
	return unlikely(req->laundered && req->cached_late) &&
	       req->cached.what == DIO_CACHED_HOLES;
}
/*
 * Called after a file has grown from old_size bytes: if the kernel may hold stores behind the old
 * end, has it forget that page and returns true; req is answered, with success, when that is done.
 * Workers.
 */
bool ops_launder_tail(struct ops_req *req, struct ext4_inode *inode, uint64_t old_size);
/* True if the kernel zeroes its pages behind the old end when a file grows. Valid after INIT. */
bool ops_kernel_clears_tail(const struct ops *ops);

#endif
