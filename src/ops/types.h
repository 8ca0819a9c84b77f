/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside src/ops: the request, the open-file table, the helpers every family uses.
 *
 * A handler runs on the loop thread (OPS_LOOP: must not block) or on a worker, and replies exactly
 * once through one of the ops_reply calls. With OPS_TRY it runs on the loop thread in the mode of
 * nowait.h first: if something would have waited before its answer, there is no answer, and it runs
 * again on a worker. So what such a handler keeps before it replies, it gives back if
 * nowait_missed() says so, and it writes into the payload, where names of the request may be, only
 * what is the answer.
 */
#ifndef FDIO_OPS_OPS_TYPES_H
#define FDIO_OPS_OPS_TYPES_H

#include "base/counters.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/nowait.h"
#include "dio/pagecache.h"
#include "ops/ops.h"

#include <errno.h>
#include <string.h>

/*
 * Entry and attribute lifetime: nobody else changes the file system, so the kernel may keep both.
 */
#define OPS_VALID_S 86400u
/*
 * Numbers below it are the file system's own inodes; only the root among them is a file for
 * anybody.
 */
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
	OPS_FL_VISIBLE = 0x725bdfff, /* all that are shown */
};

struct ops_req;
typedef void (*ops_fn)(struct ops_req *q);

enum {
	OPS_LOOP = 1 << 0,   /* runs on the loop thread */
	OPS_CHANGE = 1 << 1, /* refused with EROFS on a read-only volume */
	/* served after ext4_vol_shutdown too, as ext4 does; all else is EIO then */
	OPS_SHUT = 1 << 2,
	OPS_TRY = 1 << 3,    /* runs on the loop thread if it need not wait there */
};
struct ops_handler { ops_fn fn; unsigned flags; };

struct ops_req {
	struct transport_req tr;    /* first: the transport allocates slots of ops_req_size() */
	struct dio_req dio;
	struct dio_sync sync;
	struct work work;
	struct ops *ops;
	const struct ops_handler *handler;
	struct ext4_inode *inode; /* reference that the asynchronous end of the request drops */
	/* launder.c: pages that are being forgotten before the request goes on */
	struct dio_cached cached;
	bool laundered, cached_late;
};

/*
 * One open file or directory. gen is odd while the entry is in use and changes at every open and
 * release, so that a stale or invented handle is found out. Written under ops->files_lock; read
 * without a lock: the kernel releases a handle only after the last request that carries it was
 * answered.
 */
struct ops_file {
	uint32_t gen;        /* atomic */
	uint32_t next_free;  /* index + 1; files_lock */
	struct dio_file *file; /* NULL for directories */
	struct ext4_inode *inode;
	unsigned open_flags;
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
	bool has_inline;                           /* there may be files inside inodes */

	/* guards: free list, nr_* and the filling of chunks */
	struct fdio_mutex files_lock;
	struct ops_file *chunks[OPS_FILES_CHUNKS]; /* atomic pointers, only ever set */
	uint32_t free_head;                        /* index + 1, 0: none */
	uint32_t nr_slots, nr_open;

	struct ops_notify *notify;
	struct ops_launder *launder;
	struct work reap_work; /* deletions that loop threads left over */
	bool reap_queued;      /* atomic */
};

static inline struct ops_req *ops_of(struct transport_req *req)
{
	return container_of(req, struct ops_req, tr);
}
static inline const void *ops_arg(struct ops_req *req) { return req->tr.in.arg; }

/* ---- reply.c: any thread, never blocks ---- */
void ops_reply_err(struct ops_req *req, int err);
/* len bytes of the payload. */
void ops_reply(struct ops_req *req, int err, uint32_t len);
/* Copies data. */
void ops_reply_data(struct ops_req *req, const void *data, uint32_t len);
/*
 * Around a handler on a loop thread. Answered: false if it would have waited, and then there was no
 * answer.
 */
void ops_try_begin(void);
bool ops_try_answered(void);

/* ---- nodes.c ---- */
/* ext4's callbacks. */
void ops_nodes_init(struct ops *ops);
/*
 * The inode of a node id, with a reference: -ESTALE for what no node id can be. Workers, OPS_TRY.
 */
int ops_iget(struct ops *ops, uint64_t nodeid, struct ext4_inode **ret) FDIO_MAY_MISS;
static inline uint64_t ops_nodeid(const struct ext4_inode *inode)
{
	uint32_t ino = ext4_inode_ino(inode);

	return ino == EXT4_ROOT_INO ? FUSE_ROOT_ID : ino;
}
/* The kernel gives back, or never was given, so many lookups. Workers, OPS_TRY. */
void ops_unlookup(struct ops *ops, uint64_t nodeid, uint64_t nlookup) FDIO_MAY_WAIT;

/* ---- requester.c ---- */
/* Any thread. */
void ops_cred(struct ops_req *req, uint32_t umask, struct ext4_credentials *credentials);
/* The requester may use the blocks that are kept back from ordinary users. Any thread. */
bool ops_may_use_reserved(const struct ops_req *req);
/*
 * What EXT4_KILL_* a change by the requester means for inode: FUSE leaves the judgement to us,
 * without the groups. Workers, OPS_TRY.
 */
unsigned ops_kill_what(const struct ops_req *req, struct ext4_inode *inode) FDIO_MAY_WAIT;
/*
 * Whether the requester, who waits for the answer, has this capability (CAP_*); no if it cannot be
 * proved. Workers.
 */
bool ops_capable(const struct ops_req *req, unsigned cap);

/* ---- durable.c ---- */
/* Waits until what was done to inode is durable. Workers. */
int ops_wait_durable(struct ops *ops, struct ext4_inode *inode, bool datasync) FDIO_BLOCKS;
/*
 * Changes of inode wait until they are durable: its content and its attributes with the mount
 * option sync or chattr +S. Any thread.
 */
bool ops_is_sync(struct ops *ops, struct ext4_inode *inode);
/*
 * Waits if changes of inode, or of the names in dir (with dirsync and chattr +D as well), are such.
 * Returns err unless it is 0 and the wait fails. Workers, OPS_TRY after ops_may_change.
 */
int ops_inode_durable(struct ops *ops, struct ext4_inode *inode, int err) FDIO_MAY_WAIT;
int ops_dir_durable(struct ops *ops, struct ext4_inode *dir, int err) FDIO_MAY_WAIT;
/* Before such a change: -EAGAIN (a miss) on a loop thread. */
int ops_may_change(struct ops *ops, struct ext4_inode *inode) FDIO_MAY_MISS;

/* ---- immutable.c: -EPERM and the like; any thread ---- */
/*
 * Opening inode with these flags of open(2); also -EISDIR, -ENXIO, -EROFS for what cannot be opened
 * so.
 */
int ops_open_allowed(struct ops *ops, struct ext4_inode *inode, uint32_t flags);
int ops_setattr_allowed(struct ext4_inode *inode, const struct fuse_setattr_in *in);
int ops_rename_into_allowed(struct ext4_inode *dir);

/* ---- entries.c: any thread ---- */
/* Seconds that the kernel may keep attributes of inode. */
uint64_t ops_attr_valid(struct ext4_inode *inode);
void ops_fill_attr(struct ops *ops, struct ext4_inode *inode, struct fuse_attr *out);
/* Gives the kernel the caller's reference of inode, but for the root. */
void ops_fill_entry(struct ops *ops, struct ext4_inode *inode, struct fuse_entry_out *out);
/* Answers with the entry and keeps inode's reference for the kernel; err != 0: inode is NULL. */
void ops_reply_entry(struct ops_req *req, int err, struct ext4_inode *inode) FDIO_MAY_WAIT;

/* ---- attributes.c ---- */
/* Truncates or grows inode. Workers; misses on loop threads. */
int ops_set_size(struct ops *ops, struct ext4_inode *inode, uint64_t size) FDIO_MAY_MISS;

/* ---- open_files.c ---- */
int ops_file_add(struct ops *ops, struct ext4_inode *inode, struct dio_file *file,
		 unsigned open_flags, uint64_t *ret_fh);
/* NULL for a handle that is not open. Any thread, no lock. */
struct ops_file *ops_file_get(struct ops *ops, uint64_t fh);
/* Takes it out of the table: the caller closes df and puts inode. False if it is not open. */
bool ops_file_remove(struct ops *ops, uint64_t fh, struct ops_file *ret);
/* Removes the next open file from *index on, which moves behind it; false: there are no more. */
bool ops_file_remove_next(struct ops *ops, uint32_t *index, struct ops_file *ret);
/*
 * Node ids of open files from *index on, at most cap; *index moves behind them. 0: there are no
 * more.
 */
unsigned ops_files_nodeids(struct ops *ops, uint32_t *index, uint64_t *ids, unsigned cap);
void ops_files_free(struct ops *ops);

/* ---- inode_flags.c: workers ---- */
struct fsxattr;
int ops_set_inode_flags(struct ops_req *req, struct ext4_inode *inode, uint32_t want) FDIO_BLOCKS;
int ops_set_xflags(struct ops_req *req, struct ext4_inode *inode,
		   const struct fsxattr *x) FDIO_BLOCKS;
void ops_get_xflags(struct ext4_inode *inode, struct fsxattr *x);

/* ---- file_map.c: workers ---- */
void ops_reply_map(struct ops_req *req, const struct fuse_ioctl_in *in) FDIO_BLOCKS;

/* ---- invalidate.c ---- */
int ops_notify_new(struct ops *ops) FDIO_BLOCKS;
/*
 * After an error of what may change the size, which was before: if it has changed all the same (a
 * truncate takes several transactions), the kernel is told to ask. It would otherwise go on with
 * the size it knew for as long as attributes are valid.
 */
void ops_size_failed(struct ops *ops, struct ext4_inode *inode, uint64_t before);
/* Waits until every notification has been sent. No request that could send one may be under way. */
void ops_notify_drain(struct ops *ops) FDIO_BLOCKS;
void ops_notify_free(struct ops *ops) FDIO_BLOCKS;

/* ---- launder.c ---- */
int ops_launder_new(struct ops *ops) FDIO_BLOCKS;
void ops_launder_drain(struct ops *ops) FDIO_BLOCKS; /* as ops_notify_drain */
void ops_launder_free(struct ops *ops) FDIO_BLOCKS;
/*
 * What is stored in such pages of inode, and not told, belongs in the answer: true if the kernel
 * writes it back first. Then the handler, which has changed nothing yet, returns without an answer,
 * and is called again on a worker. Misses on loop threads.
 */
bool ops_launder_first(struct ops_req *req, struct ext4_inode *inode, enum dio_cached_what what)
	FDIO_MAY_WAIT;
/*
 * The file has grown from old_size: true if req will be answered, with success, once the page of
 * the old end is forgotten.
 */
bool ops_launder_tail(struct ops_req *req, struct ext4_inode *inode, uint64_t old_size);
/* Nothing need be done for that: the kernel clears what lies behind the end. After INIT. */
bool ops_kernel_clears_tail(const struct ops *ops);

/* ---- the handlers, by family ---- */
void ops_lookup(struct ops_req *req) FDIO_MAY_WAIT;
void ops_getattr(struct ops_req *req) FDIO_MAY_WAIT;
void ops_setattr(struct ops_req *req) FDIO_MAY_WAIT;
void ops_statx(struct ops_req *req) FDIO_MAY_WAIT;
void ops_mknod(struct ops_req *req) FDIO_MAY_WAIT;
void ops_mkdir(struct ops_req *req) FDIO_MAY_WAIT;
void ops_symlink(struct ops_req *req) FDIO_MAY_WAIT;
void ops_unlink(struct ops_req *req) FDIO_MAY_WAIT;
void ops_rmdir(struct ops_req *req) FDIO_MAY_WAIT;
void ops_rename(struct ops_req *req) FDIO_MAY_WAIT;
void ops_rename2(struct ops_req *req) FDIO_MAY_WAIT;
void ops_link(struct ops_req *req) FDIO_MAY_WAIT;
void ops_readlink(struct ops_req *req) FDIO_MAY_WAIT;
void ops_open(struct ops_req *req) FDIO_MAY_WAIT;
void ops_create(struct ops_req *req) FDIO_MAY_WAIT;
void ops_tmpfile(struct ops_req *req) FDIO_MAY_WAIT;
void ops_release(struct ops_req *req) FDIO_MAY_WAIT;
void ops_lseek(struct ops_req *req) FDIO_BLOCKS;
void ops_fallocate(struct ops_req *req) FDIO_BLOCKS;
void ops_opendir(struct ops_req *req) FDIO_MAY_WAIT;
void ops_readdir(struct ops_req *req) FDIO_MAY_WAIT;
void ops_readdirplus(struct ops_req *req) FDIO_MAY_WAIT;
void ops_read(struct ops_req *req);
void ops_write(struct ops_req *req);
void ops_fsync(struct ops_req *req);
void ops_fsyncdir(struct ops_req *req);
void ops_syncfs(struct ops_req *req);
void ops_setxattr(struct ops_req *req) FDIO_BLOCKS;
void ops_getxattr(struct ops_req *req) FDIO_MAY_WAIT;
void ops_listxattr(struct ops_req *req) FDIO_MAY_WAIT;
void ops_removexattr(struct ops_req *req) FDIO_BLOCKS;
void ops_statfs(struct ops_req *req);
void ops_ioctl(struct ops_req *req) FDIO_BLOCKS;

#endif
