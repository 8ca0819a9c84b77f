/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the message fuzzer share: a message, and the world that serves it.
 *
 *   fuzz_msg.c         cases, and the program
 *   fuzz_msg_world.c   the world: a mounted volume and everything above it, and the channel
 *   fuzz_msg_make.c    messages made at random
 *   fuzz_msg_script.c  messages that a case of the corpus spells out
 *
 * One thread makes and sends messages; the product's threads serve and answer them.
 */
#ifndef FDIO_FUZZ_MSG_H
#define FDIO_FUZZ_MSG_H

#include "fuzz/fuzz.h"

#include "transport/types.h"

enum { WORLD_SLOTS = 6, WORLD_KNOWN = 64 };

/* ring: it comes through the ring of io_uring, else through /dev/fuse. */
struct message { uint32_t len; bool ring; uint8_t bytes[MESSAGE_WRITE_HDR + 70000]; };

struct world {
	struct fuzz_dev *dev;
	struct ext4_vol *vol;
	struct dio *dio;
	struct ops *ops;
	struct work_queue *workers, *io, *syncers;
	struct loop_set *loops;
	struct transport transport;
	struct transport_queue queue;
	unsigned sent;
	uint64_t work_before;   /* work_so_far() before the mount */

	/* Guarded by lock, as answers come from any thread. */
	struct fdio_mutex lock;
	/* What answers have told, for later messages; the last WORLD_KNOWN of each. */
	uint64_t handles[WORLD_KNOWN], nodes[WORLD_KNOWN];
	unsigned nr_handles, nr_nodes;
	unsigned answered, succeeded;
	int last_err;           /* of the last answer: 0 or -errno */
	bool busy[WORLD_SLOTS]; /* a message is in the slot */
	/* of the message in the slot; 0: it had no header, so it gets no answer */
	uint64_t unique[WORLD_SLOTS];
};

/* Mounts the image of w->dev and starts what serves it. False: the image cannot be mounted. */
bool world_new(struct world *w, const struct image_case *test);
/* Waits for all answers, unmounts, and checks the work that was done (work_allowed). */
void world_end(struct world *w);
/* Waits until fewer than n messages are being served. The driver's limit of time ends it. */
void world_wait_below(struct world *w, unsigned n);
/*
 * Checks that decoding the message reads nothing outside of it, then serves it. Waits for a free
 * slot, but not for the answer; around RELEASE it waits for all answers, as the kernel does.
 */
void world_send(struct world *w, const struct message *message);

/* A random message; most are well-formed, a quarter are spoiled. */
void message_random(struct world *w, struct rnd *rng, struct message *message);
/* Sends the messages that the lines of text spell out. message: room for one. */
void send_script(struct world *w, const char *text, struct message *message);

#endif
