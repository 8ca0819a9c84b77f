/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The direct-I/O engine: reads and writes of open files. A request is split where its extents end,
 * sent to the device and answered exactly once. Reads, overwrites and appends that need not wait
 * run on the loop thread that submits them; everything else runs on a worker. Errors are -errno.
 * Where no thread is named, any thread may call, and the call does not block.
 *
 * Where to look, in src/dio:
 *
 *   A small read becomes one device request (the simple path: no lock, nothing allocated)
 *       submit.c: dio_submit, start_direct, send_pieces, send_simple_request
 *   A request over several extents counts its segments in flight
 *       segments.c: dio_segments_start; send_segment takes a reference for each further segment
 *   A write meets a hole: what is before the hole is sent, and the remainder is for a worker
 *       segments.c: drop_reference waits for the segments in flight; then
 *       complete.c: dio_pieces_done, hand_over_remainder; slow.c: slow_write
 *   fsync
 *       sync.c: dio_fsync; commit_or_flush makes a batch durable; answer_call tells the error
 *
 * types.h has the states of a request and the list of files. engine.h (mount and unmount) and
 * pagecache.h (the kernel's pages of a file) are public too.
 */
#ifndef FDIO_DIO_DIO_H
#define FDIO_DIO_DIO_H

#include "base/nowait.h"
#include "ext4/ext4.h"

#include <sys/types.h>

struct dio;      /* the engine: one a mount */
struct dio_file; /* an open file */

/* dio_req.flags */
enum {
	DIO_WRITE = 1 << 0,
	DIO_DIRECT = 1 << 1,    /* O_DIRECT: alignment matters; a write invalidates kernel pages */
	DIO_DSYNC = 1 << 2,     /* done when the data, and what finds it again, is durable */
	DIO_SYNC = 1 << 3,      /* as DIO_DSYNC, and all other metadata of the file too */
	DIO_KILLPRIV = 1 << 4,  /* the write clears suid, sgid and capabilities */
	DIO_ROOT = 1 << 5,      /* may use the blocks reserved for root */
	DIO_NOATIME = 1 << 6,   /* the read leaves the access time alone (O_NOATIME) */
	DIO_KILLCAPS = 1 << 7,  /* the write clears capabilities only */
	DIO_WRITEBACK = 1 << 8, /* the kernel writes back pages of its cache */
};

/* Bytes that the engine needs for itself in a dio_req and a dio_sync; types.h has what is there. */
#define DIO_REQ_OWN 432
#define DIO_SYNC_OWN 24

/*
 * One request, embedded by its owner (the FUSE slot). All fields but own are the owner's, and the
 * engine leaves them alone, except flags, where it may set DIO_ROOT, and len: it is cut where a
 * buffered write reaches over the largest size of a file, and where written-back pages end behind
 * the end of the file. done runs exactly once, on any thread, and may free or reuse the request.
 * result: bytes (a write: len; a read: less only at the end of the file) or -errno.
 */
struct dio_req {
	struct dio_file *file;
	uint64_t pos;      /* bytes */
	uint32_t len;      /* bytes */
	unsigned flags;    /* DIO_ */
	void *buf;         /* at least len bytes; only page-aligned ones go to the device as is */
	int buf_index;     /* registered buffer that holds buf, or -1 */
	uint32_t buf_cap;  /* writes: bytes of buf that the engine may change, if more than len */
	void (*done)(struct dio_req *req, ssize_t result);
	_Alignas(8) unsigned char own[DIO_REQ_OWN]; /* the engine's */
};

/*
 * Starts a request. On a loop thread, or in tests on the one thread that stands for it; never
 * blocks. Requests of one inode may be submitted on several loops. A request completes on the loop
 * that submitted it, or on a worker; in tests on any thread. done must not wait for work in the
 * queues workers and syncers of dio_config.
 */
void dio_submit(struct dio *dio, struct dio_req *req);

/*
 * fsync and fdatasync. done runs once everything that was written to inode before the call is
 * durable, or has failed: with 0 or -errno, on a syncer or inside dio_fsync. All callers that wait
 * share one commit or one flush. An error is reported once to each file, and once to callers
 * without one. The caller embeds the struct and keeps it until done.
 */
struct dio_sync {
	struct ext4_inode *inode; /* NULL: the whole volume (syncfs) */
	struct dio_file *file;    /* of inode, or NULL */
	bool datasync;
	void (*done)(struct dio_sync *sync, int err);
	_Alignas(8) unsigned char own[DIO_SYNC_OWN]; /* the engine's */
};
void dio_fsync(struct dio *dio, struct dio_sync *sync);

/*
 * Opens and closes a file for I/O. dio_file_open takes its own reference of inode, and reserves the
 * segment that guarantees progress of the file's requests; -ENOMEM. Workers; loop threads may call
 * both in the mode of nowait.h, dio_file_close only if dio_file_close_waits says false. No request
 * of the file is in flight when it is closed.
 */
int dio_file_open(struct dio *dio, struct ext4_inode *inode, struct dio_file **ret) FDIO_MAY_WAIT;
bool dio_file_close_waits(const struct dio_file *file);
void dio_file_close(struct dio_file *file) FDIO_MAY_WAIT;
struct ext4_inode *dio_file_inode(struct dio_file *file);

/*
 * The gate of an inode. dio_gate_close returns when no request of the kind is in flight any more;
 * until dio_gate_open, new ones go to workers, which take the inode lock. truncate, punch,
 * fallocate and O_TRUNC close it. Closing nests. Workers, without the inode lock; -ENOMEM.
 */
enum dio_gate_kind { DIO_GATE_WRITES = 1, DIO_GATE_ALL = 2 };
int dio_gate_close(struct dio *dio, struct ext4_inode *inode, enum dio_gate_kind kind) FDIO_BLOCKS;
void dio_gate_open(struct dio *dio, struct ext4_inode *inode, enum dio_gate_kind kind);

#endif
