/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a test makes go wrong in the fake device, or watches: faults that match requests, the door
 * where requests wait, the hook before and after each request, the check of the device's contract,
 * and the counters.
 *
 * Any thread. Functions of device_types.h want fake->lock held unless they say otherwise.
 */
#include "kit/device_types.h"

#include <stdio.h>
#include <string.h>

/* ---- faults ---- */
static bool fault_fits(const struct fake_fault *fault, enum fake_kind kind, uint64_t off,
		       uint64_t len, unsigned flags, bool async)
{
	bool fua = flags & DEV_FUA;

	if (!(fault->kinds & kind) || (fault->async_only && !async) || (fault->sync_only && async))
		return false;
	if (kind == FAKE_WRITE && ((fault->fua_only && !fua) || (fault->plain_only && fua)))
		return false;
	return !fault->len || (off < fault->off + fault->len && off + len > fault->off);
}

const struct fake_fault *fake_fault_match(struct fake_dev *fake, enum fake_kind kind, uint64_t off,
					  uint64_t len, unsigned flags, bool async)
{
	for (unsigned i = 0; i < fake->nr_faults; i++) {
		struct fault_state *state = &fake->faults[i];
		const struct fake_fault *fault = &state->fault;

		if (!fault_fits(fault, kind, off, len, flags, async))
			continue;
		if (state->seen++ < fault->skip || (fault->repeat && state->hits >= fault->repeat))
			continue;
		state->hits++;
		fake->fault_hits++;
		return fault;
	}
	return NULL;
}

void fake_fault_add(struct fake_dev *fake, const struct fake_fault *fault)
{
	fdio_mutex_lock(&fake->lock);
	FDIO_ASSERT(fake->nr_faults < FAKE_FAULTS);
	fake->faults[fake->nr_faults++] = (struct fault_state){ .fault = *fault };
	fdio_mutex_unlock(&fake->lock);
}

void fake_fault_clear(struct fake_dev *fake)
{
	fdio_mutex_lock(&fake->lock);
	fake->nr_faults = 0;
	fake->fault_hits = 0;
	fdio_mutex_unlock(&fake->lock);
}

uint64_t fake_fault_hits(struct fake_dev *fake)
{
	fdio_mutex_lock(&fake->lock);
	uint64_t n = fake->fault_hits;
	fdio_mutex_unlock(&fake->lock);
	return n;
}

/* ---- doors and hooks ---- */
void fake_door_wait(struct fake_dev *fake, enum fake_kind kind)
{
	if (!(fake->blocked_kinds & kind))
		return;
	fake->nr_blocked++;
	pthread_cond_broadcast(&fake->cond);
	while (fake->blocked_kinds & kind)
		fdio_cond_wait(&fake->cond, &fake->lock);
	fake->nr_blocked--;
}

void fake_block(struct fake_dev *fake, unsigned kinds)
{
	fdio_mutex_lock(&fake->lock);
	fake->blocked_kinds = kinds;
	fdio_mutex_unlock(&fake->lock);
}

void fake_unblock(struct fake_dev *fake)
{
	fdio_mutex_lock(&fake->lock);
	fake->blocked_kinds = 0;
	pthread_cond_broadcast(&fake->cond);
	fdio_mutex_unlock(&fake->lock);
}

/* True when *count has reached n; false after 10 s. Takes the lock. */
static bool wait_count(struct fake_dev *fake, const unsigned *count, unsigned n)
{
	uint64_t deadline = fdio_now_ns() + 10000000000ULL;
	bool ok = true;

	fdio_mutex_lock(&fake->lock);
	while (*count < n && ok)
		ok = fdio_cond_timedwait(&fake->cond, &fake->lock, deadline);
	ok = *count >= n;
	fdio_mutex_unlock(&fake->lock);
	return ok;
}

bool fake_wait_blocked(struct fake_dev *fake, unsigned n)
{
	return wait_count(fake, &fake->nr_blocked, n);
}

bool fake_wait_held(struct fake_dev *fake, unsigned n)
{
	return wait_count(fake, &fake->nr_held, n);
}

void fake_set_hook(struct fake_dev *fake, fake_hook fn, void *arg)
{
	fdio_mutex_lock(&fake->lock);
	fake->hook = fn;
	fake->hook_arg = arg;
	fdio_mutex_unlock(&fake->lock);
}

void fake_hook_call(struct fake_dev *fake, enum fake_kind kind, uint64_t off, uint64_t len,
		    unsigned flags, bool after)
{
	fdio_mutex_lock(&fake->lock);
	fake_hook fn = fake->hook;
	void *arg = fake->hook_arg;
	fdio_mutex_unlock(&fake->lock);
	if (fn)
		fn(arg, kind, off, len, flags, after);
}

/* ---- the contract ---- */
bool fake_violates(struct fake_dev *fake, enum fake_kind kind, const void *buf, uint64_t off,
		   uint64_t len, bool async)
{
	const struct dev_caps *caps = &fake->dev.caps;
	const char *why = NULL;

	if (off > fake->size || len > fake->size - off)
		why = "outside the device";
	else if ((kind == FAKE_WRITE || async) && (off | len) % caps->sector_bytes)
		why = "not aligned to the logical block size";
	else if (async && (!len || len > caps->max_io_bytes))
		why = "empty or longer than max_io_bytes";
	else if (async && (uintptr_t)buf % caps->mem_align)
		why = "memory not aligned";
	else if (kind == FAKE_WRITE && caps->read_only)
		why = "a write to a read-only device";
	if (!why)
		return false;
	fake->stats.violations++;
	fprintf(stderr, "fake_dev: %s of %llu bytes at %llu: %s\n",
		kind == FAKE_READ ? "read" : "write", (unsigned long long)len,
		(unsigned long long)off, why);
	return true;
}

/* ---- counters ---- */
void fake_count(struct fake_dev *fake, enum fake_kind kind, uint64_t len, unsigned flags,
		bool async)
{
	fake->stats.async += async;
	fake->stats.retried += async && (flags & DEV_ASYNC);
	switch (kind) {
	case FAKE_READ:
		fake->stats.reads++;
		fake->stats.bytes_read += len;
		break;
	case FAKE_WRITE:
		fake->stats.writes++;
		fake->stats.bytes_written += len;
		fake->stats.fua += !!(flags & DEV_FUA);
		break;
	case FAKE_FLUSH:
		fake->stats.flushes++;
		break;
	default:
		fake->stats.discards++;
	}
}

struct fake_stats fake_stats(struct fake_dev *fake)
{
	fdio_mutex_lock(&fake->lock);
	struct fake_stats stats = fake->stats;
	fdio_mutex_unlock(&fake->lock);
	return stats;
}

void fake_stats_reset(struct fake_dev *fake)
{
	fdio_mutex_lock(&fake->lock);
	memset(&fake->stats, 0, sizeof(fake->stats));
	fdio_mutex_unlock(&fake->lock);
}

