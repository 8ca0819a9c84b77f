/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The event loop: one thread and one io_uring for each CPU, which carry FUSE requests, device I/O
 * and wake-ups. What is submitted on a loop's ring is submitted by its thread and completes there.
 * A loop thread never blocks but in its own io_uring_enter, and for a millisecond in
 * transport_retry: what may block goes to a work queue (base/work.h) and comes back as a message.
 *
 * Making the loops may fail, with a reason. Once they run, no function here fails: an error of the
 * ring itself is a bug of this program and aborts it.
 */
#ifndef FDIO_LOOP_H
#define FDIO_LOOP_H

#include "base/list.h"
#include "base/nowait.h"
#include "base/reason.h"

#include <liburing.h>

struct loop;
struct loop_set;

/*
 * A submitted ring operation; the SQE's user_data is its address. complete runs on the loop thread
 * with res and flags of the CQE. The submitter owns the operation and keeps it until then.
 */
struct loop_op {
	void (*complete)(struct loop_op *op, int res, unsigned cqe_flags);
};

/*
 * A message to a loop, whose thread runs fn once. The sender embeds the message and keeps it until
 * fn runs.
 */
struct loop_msg {
	struct loop_msg *next;
	void (*fn)(struct loop_msg *msg);
};

struct loop_config {
	unsigned nr_loops;      /* 0: one for each possible CPU */
	unsigned entries;       /* of a submission queue; a completion queue has 4 times as many */
	bool sqe128;            /* 128-byte SQEs, for the commands of FUSE over io_uring */
	bool pin;               /* thread i runs on CPU i */
	unsigned poll_ns;       /* how long to poll for completions before sleeping; 0: never */
	/* As poll_ns, but only while a client wanders from CPU to CPU (place.c). */
	unsigned poll_auto_ns;
	/* Slots of each ring's fixed-file table, if more than LOOP_NR_FILES. */
	unsigned nr_fixed_files;
};

/* cpus.c: how many CPUs the kernel may ever use, and whether it uses this one now. */
unsigned loop_possible_cpus(void);
bool loop_cpu_online(unsigned cpu);
/* True if cpu is in a list like "0-3,8"; *ret_last: its last CPU. For cpus.c and its test. */
bool loop_cpu_in_list(const char *list, unsigned cpu, unsigned *ret_last);

/* Makes the rings, without threads. -errno; reason gets one line with cause and way out. */
int loop_set_new(const struct loop_config *config, struct loop_set **ret,
		 struct fdio_reason *reason);
/* Starts the threads and waits until all run their loops. -errno: then none runs. */
int loop_set_start(struct loop_set *set) FDIO_BLOCKS;
/*
 * Ends the threads and waits for them. The callers have drained their operations before. A READ
 * that is still armed (of /dev/fuse or the eventfd) is cancelled when the ring is freed, without a
 * call of complete. Prepared SQEs, also those of messages posted before, are still submitted.
 */
void loop_set_stop(struct loop_set *set) FDIO_BLOCKS;
void loop_set_free(struct loop_set *set);
unsigned loop_set_count(const struct loop_set *set);
const struct loop_config *loop_set_config(const struct loop_set *set);
struct loop *loop_set_get(struct loop_set *set, unsigned i);

unsigned loop_index(const struct loop *loop);
/* The loop whose thread this is, or NULL on any other thread. */
struct loop *loop_self(void);
/* On the loop's thread: from now on the loop ignores poll_auto_ns. */
void loop_no_wander(struct loop *loop);
/* On the loop's thread: n more device requests are in flight; n may be negative. */
void loop_note_io(struct loop *loop, int n);

/*
 * A free SQE of the loop's ring, zeroed, never NULL: submits if the queue is full. On the loop's
 * thread only. The caller fills it and calls io_uring_sqe_set_data(sqe, op).
 */
struct io_uring_sqe *loop_sqe(struct loop *loop);

/* Runs fn(msg) on the loop's thread; one sender's messages run in order. Any thread. */
void loop_post(struct loop *loop, struct loop_msg *msg, void (*fn)(struct loop_msg *msg));

/* Puts fd (-1: nothing) at slot of the file table. Before start or on its thread; -errno. */
int loop_register_file(struct loop *loop, unsigned slot, int fd);
/*
 * Before start: registers arenas as buffers 0, 1, ... -errno: RLIMIT_MEMLOCK may be too low;
 * callers go on without registered buffers.
 */
int loop_register_arenas(struct loop *loop, const struct iovec *arenas, unsigned n);
void loop_unregister_arenas(struct loop *loop);

/* Slots of the fixed-file table. LOOP_FILE_WAKE is the loop's own eventfd. */
enum { LOOP_FILE_DEV = 0, LOOP_FILE_FUSE = 1, LOOP_FILE_WAKE = 2, LOOP_NR_FILES = 3 };

/*
 * limits.c. What a ring may be used for: operations (IORING_OP_), registrations (IORING_REGISTER_),
 * flags that an operation may have and those that it must have (IOSQE_). A loop's own ring may
 * read, write and carry commands, on registered files only.
 */
struct loop_limits {
	const uint8_t *ops, *regs;
	unsigned nr_ops, nr_regs;
	uint8_t flags_allowed, flags_required;
};
/*
 * Restricts a ring made with IORING_SETUP_R_DISABLED to limits and enables it. On the thread that
 * will submit. -errno.
 */
int loop_ring_enable(struct io_uring *ring, const struct loop_limits *limits);

#endif
