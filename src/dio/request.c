/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The engine's own part of a request, and its end. dio_req_end answers: on the loop thread that
 * completed the last piece, on a worker, on a syncer, or on the thread that calls back after an
 * invalidation. It holds nothing while done runs. It does not touch the request afterwards, because
 * done may have freed it, nor the engine once inflight is lowered, because dio_drain waits for that
 * (DIO-1).
 */
#include "dio/types.h"

/* DIO_REQ_OWN and DIO_SYNC_OWN, in the public header, are the sizes of the engine's parts. */
#define FITS(own, type, room) (sizeof(own) <= (room) && _Alignof(own) <= _Alignof(type))
_Static_assert(FITS(struct dio_own, struct dio_req, DIO_REQ_OWN), "DIO_REQ_OWN is too small");
_Static_assert(FITS(struct dio_sync_own, struct dio_sync, DIO_SYNC_OWN),
	       "DIO_SYNC_OWN is too small");
#if __SIZEOF_POINTER__ == 8
_Static_assert(sizeof(struct dio_own) == DIO_REQ_OWN, "DIO_REQ_OWN is larger than need be");
_Static_assert(sizeof(struct dio_sync_own) == DIO_SYNC_OWN, "DIO_SYNC_OWN is larger than need be");
#endif

void dio_req_end(struct dio_req *req)
{
	struct dio_own *own = dio_own(req);
	struct dio *dio = own->dio;
	uint32_t cpu = own->cpu;
	ssize_t result = own->error ? own->error : (ssize_t)own->want;

	own->stage = DIO_AT_ENDED;
	req->done(req, result); /* req may be gone */
	__atomic_fetch_sub(&dio->cpus[cpu].inflight, 1, __ATOMIC_RELEASE); /* dio may be gone */
}

struct dio_req *dio_inval_req(struct work *done_work) { return dio_req_of_work(done_work); }

void dio_inval_late(struct work *done_work)
{
	dio_own(dio_req_of_work(done_work))->bits &= ~DIO_R_INVAL_ALL;
}
