/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Answers. Every handler replies exactly once through one of the ops_reply calls: on the loop
 * thread, on a worker, or wherever the room below ended the request. During a try on a loop thread
 * (ops_try_begin to ops_try_answered) that has missed there is no answer: it is withheld, and the
 * request runs again on a worker. No locks; nothing here blocks or fails.
 */
#include "ops/types.h"

/* The try of this thread came to its end without an answer. */
static __thread bool withheld;

void ops_try_begin(void)
{
	withheld = false;
	nowait_begin();
}

bool ops_try_answered(void)
{
	FDIO_ASSERT(!withheld || !nowait_self.done); /* it would be done twice */
	nowait_end();
	return !withheld;
}

static bool withhold(void)
{
	if (!nowait_missed())
		return false;
	withheld = true;
	return true;
}

void ops_reply(struct ops_req *req, int err, uint32_t len)
{
	/* What was under way when the volume was shut down met an aborted journal. */
	if (unlikely(err == -EROFS) && ext4_vol_is_shut_down(req->ops->vol))
		err = -EIO;
	if (!withhold())
		transport_reply(&req->tr, err, len);
}

void ops_reply_err(struct ops_req *req, int err) { ops_reply(req, err, 0); }

void ops_reply_data(struct ops_req *req, const void *data, uint32_t len)
{
	if (!withhold())
		transport_reply_data(&req->tr, data, len);
}
