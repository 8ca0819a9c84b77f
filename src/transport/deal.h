/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether the requests of one queue are dealt out to two loops: pure arithmetic over samples of what is being served, see
 * deal.c. Used by uring.c on the loops' threads, and by the unit tests.
 */
#ifndef FDIO_TRANSPORT_DEAL_H
#define FDIO_TRANSPORT_DEAL_H

#include "base/util.h"
#include "message/message.h"

#include <fcntl.h>
#include <linux/fuse.h>

#define TR_DEAL_READAHEAD (128u << 10) /* what is smaller is served in the time that a message takes */

/* What one loop has seen of one queue. Zero to begin with; deal.c's own. */
struct tr_deal {
	unsigned arrivals, samples;
	unsigned mine, other;
};

/* A request has come: true if it is one of those that are to be sampled. */
static inline bool tr_deal_due(struct tr_deal *d) { return ++d->arrivals % 8 == 0; }
/*
 * mine: requests of the queue that are being served, other: those of the helper's own queue. on: are they dealt out now?
 * Should they be, from now on?
 */
bool tr_deal_sample(struct tr_deal *d, bool on, unsigned mine, unsigned other);

/* Is this slot's entry one of those that go to the helper? Three of eight: the client itself is on the first loop's CPU. */
static inline bool tr_deal_slot(uint32_t slot) { return slot % 8 % 3 == 1; }

/* A large read for a page cache. in: decoded, so its argument is whole. */
static inline bool tr_deal_is_readahead(const struct pro_in *in)
{
	const struct fuse_read_in *read = in->arg;

	return in->h.opcode == FUSE_READ && read->size >= TR_DEAL_READAHEAD && !(read->flags & O_DIRECT);
}

#endif
