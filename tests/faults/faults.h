/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Faults at every I/O and every allocation: what the files of the test share. faults_main.c says
 * what the test proves.
 *
 *   faults_main.c    cases, each in a child process of its own, and mounting
 *   faults_work.c    the workload: which operations
 *   faults_ops.c     each operation, on the volume and on the model
 *   faults_verify.c  the verdict: a volume against the model
 *   faults_alloc.c   allocations that fail
 *
 * The model says which names there are, what they hold, and what of that has been acknowledged as
 * durable. One thread runs the workload and the work queues; the journal's threads run beside it.
 */
#ifndef FDIO_FAULTS_H
#define FDIO_FAULTS_H

#include "dio/engine.h"
#include "kit/device.h"

enum { MAX_NAMES = 160, MAX_BODIES = 160, MAX_XATTRS = 4, MAX_REQS = 400, FILE_MAX = 192 << 10 };

enum fault_kind { KIND_READ, KIND_WRITE, KIND_FUA, KIND_FLUSH, KIND_DISCARD, KIND_ALLOC, NR_KINDS };

struct fault_case {
	enum fault_kind kind;
	unsigned n;      /* the n-th of that kind fails; 0: none */
	bool from_on;    /* and all that follow */
	unsigned shape;  /* of the file system: index into shapes[] of faults_main.c */
};

struct xattr { char name[40]; unsigned len; uint8_t val[6000]; }; /* len 0: not there */

/*
 * An inode. Operations are numbered by run->clock: version is the last one on the inode, acked the
 * last one that was acknowledged as durable; data_version and data_acked are those of its data.
 */
struct body {
	uint32_t mode, rdev;
	uint64_t size;
	uint8_t *data;          /* the first FILE_MAX bytes; regular files only */
	char target[300];       /* symbolic links only */
	struct xattr *xattr;    /* MAX_XATTRS of them */
	/* An operation on the data has failed: the content may be old, new or mixed. */
	bool content_unknown;
	bool mode_unknown;      /* an inherited ACL has changed it */
	unsigned version, acked, data_version, data_acked;
};

struct name {
	char name[256];
	struct name *dir;       /* NULL: the root directory */
	struct body *body;      /* NULL: no such name */
	unsigned version, acked; /* as in struct body */
};

struct test_request { struct dio_req req; ssize_t res; unsigned done; };

struct run {
	struct fault_case test;
	struct fake_dev *fake;
	struct ext4_vol *vol;
	struct work_queue *workers, *syncers;
	struct dio *dio;
	bool was_read_only;     /* before the current operation */
	bool aborted;           /* the volume has become read-only, or cannot be mounted */
	unsigned step, clock;   /* operations, since the case began and since the model began */
	unsigned cut_short;     /* truncates that failed after the size had changed */
	const char *stage;      /* for messages */
	struct name name[MAX_NAMES];
	struct body body[MAX_BODIES];
	struct test_request req[MAX_REQS];
	unsigned nr_names, nr_bodies, nr_reqs;
	uint8_t *buf;           /* FILE_MAX, page-aligned */
};

/* ---- faults_alloc.c ---- */
/* Fails the n-th allocation of the product from now on; from_on: and all later ones; n 0: none. */
void alloc_plan(unsigned n, bool from_on);
/* While on, allocations of this thread neither count nor fail. */
void alloc_hold(bool on);
/* How many allocations have failed so far. */
unsigned alloc_failed(void);

/* ---- faults_main.c ---- */
/* Prints why the case has failed and how to repeat it, and ends the process. */
void fail(struct run *run, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));
/* How many requests and allocations the planted fault has made fail. */
uint64_t fault_hits(struct run *run);
/* Mount and unmount. 0, or the error if a fault explains it; else the case has failed. */
int vol_start(struct run *run);
int vol_stop(struct run *run);

/* ---- faults_ops.c: each does one operation on volume and model, and judges the result ---- */
/* The model's name in dir (NULL: the root directory), which need not exist on the volume. */
struct name *name_of(struct run *run, struct name *dir, const char *name);
/* name NULL: the root directory */
int get_inode(struct run *run, const struct name *name, struct ext4_inode **ret);
/* Submits a request to the engine and waits for its answer, which it returns. */
ssize_t request(struct run *run, struct dio_file *file, unsigned flags, uint64_t pos, void *buf,
		uint32_t len);
void op_create(struct run *run, struct name *name, uint32_t mode, uint32_t rdev);
void op_symlink(struct run *run, struct name *name, const char *target);
void op_link(struct run *run, struct name *from, struct name *to);
/* to NULL: the file gets no name, and is deleted */
void op_tmpfile(struct run *run, struct name *to, uint32_t len);
void op_unlink(struct run *run, struct name *name);
void op_rename(struct run *run, struct name *from, struct name *to, unsigned flags);
void op_write(struct run *run, struct name *name, unsigned flags, uint64_t pos, uint32_t len);
void op_read(struct run *run, struct name *name, unsigned flags, uint64_t pos, uint32_t len);
void op_truncate(struct run *run, struct name *name, uint64_t size);
void op_fallocate(struct run *run, struct name *name, int mode, uint64_t off, uint64_t len);
void op_chmod(struct run *run, struct name *name, uint32_t mode);
/* len 0: removes the attribute */
void op_xattr(struct run *run, struct name *file, const char *name, unsigned len);
void op_acl(struct run *run, struct name *name, bool dflt);
void op_fsync(struct run *run, struct name *name, bool datasync); /* name NULL: the volume */
void op_trim(struct run *run);
void op_readdir(struct run *run, struct name *name);
void op_seek(struct run *run, struct name *name);

/* ---- faults_work.c ---- */
void work_before(struct run *run); /* its end is in the log when a case begins */
void work_first(struct run *run);
void work_second(struct run *run);

/* ---- faults_verify.c ---- */
/*
 * What was acknowledged and not touched since is there; full: everything is as the model says. Else
 * the case has failed.
 */
void verify(struct run *run, bool full);

#endif
