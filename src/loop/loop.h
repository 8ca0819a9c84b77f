/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The event loop: one thread and one io_uring for each CPU, carrying FUSE requests, device I/O and
 * wake-ups alike. Everything submitted on a loop's ring is submitted by its thread and completes on
 * its thread. A loop thread never blocks but in its own io_uring_enter (and in transport_retry, for
 * a millisecond): what may block goes to a work queue (base/work.h) and comes back as a message.
 *
 * Making the loops fails with a reason. Once they run, nothing of them fails: an error of the ring
 * itself is an error of this program and stops it.
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
 * A submitted ring operation: its address is the SQE's user_data. complete runs on the loop thread
 * with the CQE's res and flags. Owned by the submitter, must live until complete has run.
 */
struct loop_op {
	void (*complete)(struct loop_op *op, int res, unsigned cqe_flags);
};

/*
 * A message to a loop: fn runs once on its thread. Owned by the sender until then; intrusive, no
 * allocation.
 */
struct loop_msg {
	struct loop_msg *next;
	void (*fn)(struct loop_msg *m);
};

struct loop_config {
	unsigned nr_loops;      /* 0: one for each possible CPU */
	unsigned entries;       /* SQ entries a ring; CQ is four times that */
	bool sqe128;            /* 128-byte SQEs: needed for FUSE-over-io_uring commands */
	bool pin;               /* thread i runs on CPU i */
	unsigned poll_ns;       /* look for completions for so long before sleeping, 0: never */
	/* the same, but only where a client would be sent from CPU to CPU (place.c) */
	unsigned poll_auto_ns;
	/* size of each ring's fixed-file table, 0: LOOP_NR_FILES, which is the least */
	unsigned nr_fixed_files;
};

/* cpus.c: how many CPUs the kernel might ever have, and whether one is in use now. */
unsigned loop_possible_cpus(void);
bool loop_cpu_online(unsigned cpu);
/* "0-3,8": is cpu in it? *ret_last: the last CPU listed. For the two above and their test. */
bool loop_cpu_in_list(const char *list, unsigned cpu, unsigned *ret_last);

/* Makes the rings (no threads yet). -errno; reason gets one line naming cause and way out. */
int loop_set_new(const struct loop_config *config, struct loop_set **ret,
		 struct fdio_reason *reason);
/* Starts the threads and waits until each of them runs its loop. 0 or -errno: then none runs. */
int loop_set_start(struct loop_set *set) FDIO_BLOCKS;
/*
 * Ends the threads and waits for them. The owners of operations have drained them; what is still
 * armed (a READ of /dev/fuse, the eventfd) is cancelled when the ring is freed and its complete
 * function is not called. What was prepared before, also by messages posted before, is still
 * submitted.
 */
void loop_set_stop(struct loop_set *set) FDIO_BLOCKS;
void loop_set_free(struct loop_set *set);
unsigned loop_set_count(const struct loop_set *set);
const struct loop_config *loop_set_config(const struct loop_set *set);
struct loop *loop_set_get(struct loop_set *set, unsigned i);

unsigned loop_index(const struct loop *loop);
/* The loop whose thread this is, or NULL on any other thread. */
struct loop *loop_self(void);
/*
 * On the loop's thread: its clients do not wander, poll_auto_ns does not matter for it from now on.
 */
void loop_no_wander(struct loop *loop);
/* On the loop's thread: n more device requests are under way (or fewer). */
void loop_note_io(struct loop *loop, int n);

/*
 * A free SQE of this loop's ring, zeroed for its full size, never NULL (submits when the SQ is
 * full). On the loop's thread only. The caller fills it and calls io_uring_sqe_set_data(sqe, op).
 */
struct io_uring_sqe *loop_sqe(struct loop *loop);

/* Any thread. Runs msg->fn on loop's thread, in order per sender. A sleeping loop is woken. */
void loop_post(struct loop *loop, struct loop_msg *msg, void (*fn)(struct loop_msg *msg));

/* Before start, or on the loop's thread: put fd at slot of the fixed-file table; -errno. */
int loop_register_file(struct loop *loop, unsigned slot, int fd);
/*
 * Before start: registers contiguous arenas as buffers 0, 1, ... -errno (RLIMIT_MEMLOCK: callers go
 * on without).
 */
int loop_register_arenas(struct loop *loop, const struct iovec *arenas, unsigned n);
void loop_unregister_arenas(struct loop *loop);

/* Slots of the fixed-file table. The loop fills the last one itself: what wakes it. */
enum { LOOP_FILE_DEV = 0, LOOP_FILE_FUSE = 1, LOOP_FILE_WAKE = 2, LOOP_NR_FILES = 3 };

/*
 * limits.c. What a ring is to be used for: operations (IORING_OP_), registrations
 * (IORING_REGISTER_), flags that an operation may have and those that it must have (IOSQE_ bits). A
 * loop's own ring may read, write and carry commands, on registered files only.
 */
struct loop_limits {
	const uint8_t *ops, *regs;
	unsigned nr_ops, nr_regs;
	uint8_t flags_allowed, flags_required;
};
/*
 * For a ring made with IORING_SETUP_R_DISABLED, on the thread that will submit: no more than that
 * from now on, and go. -errno.
 */
int loop_ring_enable(struct io_uring *ring, const struct loop_limits *lim);

#endif
