/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Faults at every I/O and every allocation: what the files of the test share. The workload runs in
 * a child process of its own for each case, on one thread (manual work queues) beside the threads
 * of the journal. Beside it goes a model: which names there are, what they hold, and what of that
 * has been acknowledged as durable.
 */
#ifndef FDIO_FAULTS_H
#define FDIO_FAULTS_H

#include "dio/engine.h"
#include "kit/device.h"

enum { MAX_NAMES = 160, MAX_BODIES = 160, MAX_XATTRS = 4, MAX_REQS = 400, FILE_MAX = 192 << 10 };

enum fault_kind { K_READ, K_WRITE, K_FUA, K_FLUSH, K_DISCARD, K_ALLOC, NR_KINDS };

struct fault_case {
	enum fault_kind kind;
	unsigned n;      /* 1: the first */
	bool from_on;    /* that one and all that follow */
	unsigned shape;  /* of the file system */
};

struct xa { char name[40]; unsigned len; uint8_t val[6000]; }; /* len 0: not there */

/*
 * An inode. version: the last operation on it; acked: the last that was acknowledged as durable; d
 * for the data alone.
 */
struct body {
	uint32_t mode, rdev;
	uint64_t size;
	uint8_t *data;          /* the first FILE_MAX bytes; regular files */
	char target[300];
	struct xa *xa;          /* MAX_XATTRS, or NULL */
	/* an operation on the data failed: the content may be old, new or mixed */
	bool blurred;
	bool mode_unknown;      /* by an inherited ACL */
	unsigned version, acked, dversion, dacked;
};

struct name {
	char name[256];
	struct name *dir;       /* NULL: the root directory */
	struct body *body;         /* NULL: no such name */
	unsigned version, acked;
};

struct test_request { struct dio_req req; ssize_t res; unsigned done; };

struct run {
	struct fault_case test;
	struct fake_dev *fake;
	struct ext4_vol *vol;
	struct work_queue *workers, *syncers;
	struct dio *dio;
	bool faults_on;         /* planted: operations may fail once one has hit */
	bool was_ro;            /* before the operation */
	bool aborted;           /* has been seen read-only */
	unsigned step, clock;
	unsigned cut_short;     /* truncates that failed when the size had moved */
	const char *stage;
	struct name name[MAX_NAMES];
	struct body body[MAX_BODIES];
	struct test_request req[MAX_REQS];
	unsigned nr_names, nr_bodies, nr_reqs;
	uint8_t *buf;           /* FILE_MAX, page-aligned */
};

/* ---- faults_alloc.c ---- */
/* Fails the n-th allocation of the product from now on (0: none), or all from that one. */
void alloc_plan(unsigned n, bool from_on);
/* What is allocated meanwhile neither counts nor fails. */
void alloc_hold(bool on);
unsigned alloc_failed(void);

/* ---- faults_main.c ---- */
/* Prints why and how to repeat it, and ends the process. */
void fail(struct run *run, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));
uint64_t fault_hits(struct run *run);
/* Mounts. 0, or the error if a fault explains it. */
int vol_start(struct run *run);
int vol_stop(struct run *run);

/* ---- faults_ops.c: each does one operation on volume and model, and judges the result ---- */
struct name *name_of(struct run *run, struct name *dir, const char *name);
/* name NULL: the root directory */
int get(struct run *run, const struct name *name, struct ext4_inode **ret);
ssize_t request(struct run *run, struct dio_file *file, unsigned flags, uint64_t pos, void *buf,
		uint32_t len);
void op_create(struct run *run, struct name *name, uint32_t mode, uint32_t rdev);
void op_symlink(struct run *run, struct name *name, const char *target);
void op_link(struct run *run, struct name *from, struct name *to);
/* to NULL: it stays without a name, and goes */
void op_tmpfile(struct run *run, struct name *to, uint32_t len);
void op_unlink(struct run *run, struct name *name);
void op_rename(struct run *run, struct name *from, struct name *to, unsigned flags);
void op_write(struct run *run, struct name *name, unsigned flags, uint64_t pos, uint32_t len);
void op_read(struct run *run, struct name *name, unsigned flags, uint64_t pos, uint32_t len);
void op_truncate(struct run *run, struct name *name, uint64_t size);
void op_fallocate(struct run *run, struct name *name, int mode, uint64_t off, uint64_t len);
void op_chmod(struct run *run, struct name *name, uint32_t mode);
void op_xattr(struct run *run, struct name *n, const char *name, unsigned len); /* len 0: removed */
void op_acl(struct run *run, struct name *name, bool dflt);
void op_fsync(struct run *run, struct name *name, bool datasync); /* name NULL: the volume */
void op_trim(struct run *run);
void op_readdir(struct run *run, struct name *name);
void op_seek(struct run *run, struct name *name);

/* ---- faults_work.c ---- */
void work_before(struct run *run); /* what is in the log when the run begins */
void work_first(struct run *run);
void work_second(struct run *run);

/* ---- faults_verify.c ---- */
/*
 * What was acknowledged is there; full: everything is as the model says. Ends the process
 * otherwise.
 */
void verify(struct run *run, bool full);

#endif
