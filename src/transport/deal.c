/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether a second loop serves a part of a queue.
 *
 * The kernel puts all requests of a client into the queue of the CPU that the client runs on, and
 * the loop of that CPU serves them. That is the best choice for a client that waits for each
 * answer. But a client with many requests in flight shares its CPU with the loop that serves it,
 * while another CPU has little to do. So some of the entries of such a queue are given to a second
 * loop, the helper: client, loops and kernel threads are then spread over both CPUs.
 *
 * A queue is dealt out while many of its requests are being served at a time and few of the
 * helper's own. This is sampled, so that a loop seldom reads a cache line that the other one
 * writes. Both loops sample, because all entries that a shallow queue uses may be the helper's,
 * which then gives them back. It takes less to go on dealing than to begin.
 *
 * Large reads for the page cache gain even without a deep queue: while the loop serves a readahead
 * request, the client processes the pages it already has, which takes about as long. On two CPUs
 * side by side that is 1.2 to 1.35 times as fast. So such reads go to the helper whenever it serves
 * no request of its own.
 *
 * Runs on the loops' threads, each with a struct of its own. No locks, no clock; nothing can fail.
 */
#include "transport/types.h"

#define SAMPLES 16u
/* Requests being served, on average: to begin, and to go on. */
#define DEEP 6u
#define STILL_DEEP 3u
/* The helper's own requests are at most one in this many of the queue's: to begin, to go on. */
#define OTHER_PART 8u
#define OTHER_STILL_PART 3u

bool transport_deal_sample(struct transport_deal *deal, bool on, unsigned mine, unsigned other)
{
	deal->mine += mine;
	deal->other += other;
	if (++deal->samples < SAMPLES)
		return on;
	on = deal->mine >= SAMPLES * (on ? STILL_DEEP : DEEP) &&
	     deal->other * (on ? OTHER_STILL_PART : OTHER_PART) <= deal->mine;
	deal->samples = deal->mine = deal->other = 0;
	return on;
}
