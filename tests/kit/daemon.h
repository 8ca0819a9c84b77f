/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel's side of a mount, played by the test: everything from the transport's dispatch down
 * to the device's table is the product's own, with its threads; above is a channel of ours, below
 * the fake device. A test sends FUSE requests as the kernel would, looks at the answers, holds the
 * device's completions, and ends the mount by DESTROY or by an abort. No root, no /dev/fuse.
 *
 * The transport's INIT is left out (it needs the file descriptor of a mount): this file has its own
 * transport_init_handshake.
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

struct fk_options {
	bool parallel_dio, sync, dirsync;
	uint32_t uid;      /* who sends the requests; gid is the same */
	bool breaks;       /* the volume will be damaged by then: fk_close does not look at it */
};

/*
 * Serves the volume on fake, which it takes. opt NULL: all zero. Fails the test if that is
 * impossible.
 */
struct fake_kernel *fk_new(struct fake_dev *fake, const struct fk_options *opt);
/* Ends the mount if it has not ended, closes everything; e2fsck finds nothing. */
void fk_close(struct fake_kernel *kernel);
struct fake_dev *fk_dev(struct fake_kernel *kernel);
void fk_set_uid(struct fake_kernel *kernel, uint32_t uid);

/* ---- requests ---- */
enum { FK_REQUESTS = 24, FK_DATA = 128 << 10 };

/*
 * A request: head is the opcode's fixed argument, tail what follows it (names, data). Returns a
 * ticket; at most FK_REQUESTS unanswered.
 */
unsigned fk_send(struct fake_kernel *kernel, uint32_t opcode, uint64_t nodeid, const void *head,
		 size_t head_len, const void *tail, size_t tail_len);
bool fk_answered(struct fake_kernel *kernel, unsigned ticket);
struct fk_answer {
	int err;               /* 0 or -errno */
	uint32_t len;          /* of data */
	unsigned order;        /* 1 for the first answer of this mount, and so on */
	_Alignas(8) uint8_t data[FK_DATA];
};
/*
 * Waits (10 s, then the test fails); the answer stays valid until the ticket's place is used again,
 * FK_REQUESTS requests later.
 */
const struct fk_answer *fk_wait(struct fake_kernel *kernel, unsigned ticket);
/* Both: the answer's error. */
int fk_call(struct fake_kernel *kernel, uint32_t opcode, uint64_t nodeid, const void *head,
	    size_t head_len, const void *tail, size_t tail_len, const struct fk_answer **ret);

/* ---- the usual ones; the errors are the answers' ---- */
int fk_lookup(struct fake_kernel *kernel, uint64_t dir, const char *name,
	      struct fuse_entry_out *entry);
int fk_create(struct fake_kernel *kernel, uint64_t dir, const char *name, uint32_t flags,
	      uint32_t mode, struct fuse_entry_out *entry, uint64_t *fh);
int fk_mkdir(struct fake_kernel *kernel, uint64_t dir, const char *name, uint32_t mode,
	     struct fuse_entry_out *entry);
int fk_unlink(struct fake_kernel *kernel, uint64_t dir, const char *name);
int fk_rmdir(struct fake_kernel *kernel, uint64_t dir, const char *name);
int fk_rename(struct fake_kernel *kernel, uint64_t dir, const char *from, uint64_t dir2,
	      const char *to, uint32_t flags);
int fk_getattr(struct fake_kernel *kernel, uint64_t nodeid, struct fuse_attr *a);
int fk_setattr(struct fake_kernel *kernel, uint64_t nodeid, struct fuse_setattr_in *in,
	       struct fuse_attr *a);
int fk_open(struct fake_kernel *kernel, uint64_t nodeid, uint32_t flags, struct fuse_open_out *o);
int fk_release(struct fake_kernel *kernel, uint64_t nodeid, uint64_t fh);
void fk_forget(struct fake_kernel *kernel, uint64_t nodeid, uint64_t n);
int fk_fsync(struct fake_kernel *kernel, uint64_t nodeid, uint64_t fh, bool datasync);
unsigned fk_send_write(struct fake_kernel *kernel, uint64_t nodeid, uint64_t fh, uint64_t pos,
		       const void *buf, uint32_t len, uint32_t open_flags, uint32_t write_flags);
unsigned fk_send_read(struct fake_kernel *kernel, uint64_t nodeid, uint64_t fh, uint64_t pos,
		      uint32_t len, uint32_t open_flags);
/* Bytes or -errno. */
int fk_write(struct fake_kernel *kernel, uint64_t nodeid, uint64_t fh, uint64_t pos,
	     const void *buf, uint32_t len, uint32_t open_flags);
int fk_read(struct fake_kernel *kernel, uint64_t nodeid, uint64_t fh, uint64_t pos, void *buf,
	    uint32_t len, uint32_t open_flags);

/* ---- notifications ---- */
/* How many invalidations of page-cache ranges have come so far. */
unsigned fk_invalidations(struct fake_kernel *kernel);
/* One of the last FK_REQUESTS was of all these bytes. */
bool fk_invalidated(struct fake_kernel *kernel, uint64_t nodeid, int64_t off, int64_t len);

/* While held, whoever sends a notification waits, as for a page that is locked. */
void fk_hold_notifications(struct fake_kernel *kernel);
void fk_release_notifications(struct fake_kernel *kernel);
/*
 * What a loop has whose CPU was plugged in after the mount: so many slots, of which the fake goes
 * on to use all it likes.
 */
void fk_set_slots(struct fake_kernel *kernel, unsigned nr);
/* The minor version of the protocol that the kernel has offered; 0 at first. */
void fk_set_minor(struct fake_kernel *kernel, unsigned minor);

/* ---- the end ---- */
/*
 * As the channel tells it: the connection was aborted (the client's mount is gone; no answers are
 * wanted).
 */
void fk_abort(struct fake_kernel *kernel);
/* While on, the loop stays inside a handler that has answered. */
void fk_linger(struct fake_kernel *kernel, bool on);
/*
 * The transport has begun to close what is below it: no request may be in a handler's hands any
 * more.
 */
bool fk_destroying(struct fake_kernel *kernel);
/* The end has come: destroy has returned. fk_wait_ended: false after 10 s. */
bool fk_ended(struct fake_kernel *kernel);
bool fk_wait_ended(struct fake_kernel *kernel);

#endif
