/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel's side of a mount, played by the test. The daemon is the product's own, with its
 * threads, from the transport's dispatch down to the device's table of functions; above it stands a
 * channel of the kit instead of /dev/fuse, below it the fake device. A test sends FUSE requests as
 * the kernel would, looks at the answers, holds completions of the device, and ends the mount by
 * DESTROY or by an abort. It needs no root.
 *
 * The kit replaces transport_init_handshake, which needs the file descriptor of a mount.
 *
 * Threads: one thread of the test calls these functions. Requests are dispatched on the loop's
 * thread, as in the product; answers come from any thread and are collected under a lock.
 */
#ifndef FDIO_KIT_DAEMON_H
#define FDIO_KIT_DAEMON_H

#include "kit/volume.h"
#include "transport/types.h"

#include <linux/fuse.h>

struct fake_kernel;

struct kernel_options {
	bool parallel_dio, sync, dirsync;
	uint32_t uid;      /* uid and gid of the requests */
	uint32_t page_size; /* of the kernel's page cache; 0: 4096 */
	bool idmap;        /* the mount may be idmapped (kernel_set_requester) */
	bool breaks;       /* the test damages the volume: kernel_close does not check it */
};

/*
 * Mounts the volume on fake, whose ownership it takes. opt NULL: all zero. Fails the test if that
 * is impossible.
 */
struct fake_kernel *kernel_new(struct fake_dev *fake, const struct kernel_options *opt);
/* Ends the mount if it has not ended and frees everything; e2fsck must find nothing. */
void kernel_close(struct fake_kernel *kernel);
struct fake_dev *kernel_dev(struct fake_kernel *kernel);
void kernel_set_uid(struct fake_kernel *kernel, uint32_t uid);
/*
 * What the daemon finds out about the process that sends the requests: its uid and gid, or nothing
 * (MESSAGE_UNKNOWN_ID). Root at first.
 */
void kernel_set_requester(struct fake_kernel *kernel, uint32_t id);

/* ---- requests ---- */
enum { KERNEL_MAX_REQUESTS = 24, KERNEL_MAX_DATA = 128 << 10 };

/*
 * Sends a request: head is the opcode's fixed argument, tail what follows it (names, data). Returns
 * a ticket. At most KERNEL_MAX_REQUESTS may be without an answer.
 */
unsigned kernel_send(struct fake_kernel *kernel, uint32_t opcode, uint64_t nodeid, const void *head,
		     size_t head_len, const void *tail, size_t tail_len);
bool kernel_answered(struct fake_kernel *kernel, unsigned ticket);
struct kernel_answer {
	int err;               /* 0 or -errno */
	uint32_t len;          /* of data */
	unsigned order;        /* 1 for the first answer of this mount, and so on */
	_Alignas(8) uint8_t data[KERNEL_MAX_DATA];
};
/*
 * Waits for the answer; after 10 s the test fails. The answer stays valid for the next
 * KERNEL_MAX_REQUESTS - 1 requests.
 */
const struct kernel_answer *kernel_wait(struct fake_kernel *kernel, unsigned ticket);
/* Sends and waits. Returns the answer's error. ret: the answer; may be NULL. */
int kernel_call(struct fake_kernel *kernel, uint32_t opcode, uint64_t nodeid, const void *head,
		size_t head_len, const void *tail, size_t tail_len,
		const struct kernel_answer **ret);

/* ---- the usual requests (daemon_requests.c); they return the error of the answer ---- */
int kernel_lookup(struct fake_kernel *kernel, uint64_t dir, const char *name,
		  struct fuse_entry_out *entry);
int kernel_create(struct fake_kernel *kernel, uint64_t dir, const char *name, uint32_t flags,
		  uint32_t mode, struct fuse_entry_out *entry, uint64_t *fh);
int kernel_mkdir(struct fake_kernel *kernel, uint64_t dir, const char *name, uint32_t mode,
		 struct fuse_entry_out *entry);
int kernel_unlink(struct fake_kernel *kernel, uint64_t dir, const char *name);
int kernel_rmdir(struct fake_kernel *kernel, uint64_t dir, const char *name);
int kernel_rename(struct fake_kernel *kernel, uint64_t dir, const char *from, uint64_t dir2,
		  const char *to, uint32_t flags);
int kernel_getattr(struct fake_kernel *kernel, uint64_t nodeid, struct fuse_attr *attr);
int kernel_setattr(struct fake_kernel *kernel, uint64_t nodeid, struct fuse_setattr_in *in,
		   struct fuse_attr *attr);
int kernel_open(struct fake_kernel *kernel, uint64_t nodeid, uint32_t flags,
		struct fuse_open_out *ret);
int kernel_release(struct fake_kernel *kernel, uint64_t nodeid, uint64_t fh);
void kernel_forget(struct fake_kernel *kernel, uint64_t nodeid, uint64_t n);
int kernel_fsync(struct fake_kernel *kernel, uint64_t nodeid, uint64_t fh, bool datasync);
unsigned kernel_send_write(struct fake_kernel *kernel, uint64_t nodeid, uint64_t fh, uint64_t pos,
			   const void *buf, uint32_t len, uint32_t open_flags,
			   uint32_t write_flags);
unsigned kernel_send_read(struct fake_kernel *kernel, uint64_t nodeid, uint64_t fh, uint64_t pos,
			  uint32_t len, uint32_t open_flags);
/* Return bytes or -errno. */
int kernel_write(struct fake_kernel *kernel, uint64_t nodeid, uint64_t fh, uint64_t pos,
		 const void *buf, uint32_t len, uint32_t open_flags);
int kernel_read(struct fake_kernel *kernel, uint64_t nodeid, uint64_t fh, uint64_t pos, void *buf,
		uint32_t len, uint32_t open_flags);

/* ---- notifications ---- */
/* How many invalidations of ranges of the page cache have come so far. */
unsigned kernel_invalidations(struct fake_kernel *kernel);
/* Whether one of the last KERNEL_MAX_REQUESTS invalidations covers all these bytes. */
bool kernel_invalidated(struct fake_kernel *kernel, uint64_t nodeid, int64_t off, int64_t len);

/*
 * Until released, a thread that sends a notification waits, as the kernel lets it wait for a page.
 */
void kernel_hold_notifications(struct fake_kernel *kernel);
void kernel_release_notifications(struct fake_kernel *kernel);
/*
 * The transport believes from here on that its loop has nr slots for requests, as few as that of a
 * CPU that was plugged in after the mount. kernel_send goes on to use all there are.
 */
void kernel_set_slots(struct fake_kernel *kernel, unsigned nr);
/* The minor version of the protocol that INIT offered; 0 at first. */
void kernel_set_minor(struct fake_kernel *kernel, unsigned minor);

/* ---- the end ---- */
/* Tells the transport that the connection was aborted: the mount is gone, no answer is wanted. */
void kernel_abort(struct fake_kernel *kernel);
/* While on, the loop stays in the handler of each request after it has been answered. */
void kernel_linger(struct fake_kernel *kernel, bool on);
/* The transport has begun to close what is below it. No handler may hold a request any more. */
bool kernel_destroying(struct fake_kernel *kernel);
/* The volume is closed. kernel_wait_ended waits for that; false after 10 s. */
bool kernel_ended(struct fake_kernel *kernel);
bool kernel_wait_ended(struct fake_kernel *kernel);

#endif
