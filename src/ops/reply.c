/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Answers to requests. A handler answers once, on the loop thread, on a worker, or on the thread on
 * which the engine ended the request. While a handler is tried on a loop thread (between
 * ops_try_begin and ops_try_answered), an answer after a miss is withheld: dispatch.c has a worker
 * run the handler again. No locks; nothing here blocks or fails.
 */
#include "ops/types.h"

/* True if the answer of the try on this thread was withheld. */
static __thread bool withheld;

void ops_try_begin(void)
{
	withheld = false;
	nowait_begin();
}

bool ops_try_answered(void)
{
	/* NOWAIT-4: after a change was made, a withheld answer would make a worker repeat it. */
	FDIO_ASSERT(!withheld || !nowait_self.done);
	nowait_end();
	return !withheld;
}

/* True if the caller must not answer. */
static bool withhold(void)
{
	if (!nowait_missed())
		return false;
	withheld = true;
	return true;
}

void ops_reply(struct ops_req *req, int err, uint32_t len)
{
	/*
	 * EROFS after a shutdown: the request was under way at the shutdown and found the journal
	 * aborted. The kernel's ext4 returns EIO then.
	 */
	if (unlikely(err == -EROFS) && ext4_vol_is_shut_down(req->ops->vol))
		err = -EIO;
	if (!withhold())
		transport_reply(&req->fuse, err, len);
}

void ops_reply_err(struct ops_req *req, int err) { ops_reply(req, err, 0); }

void ops_reply_data(struct ops_req *req, const void *data, uint32_t len)
{
	if (!withhold())
		transport_reply_data(&req->fuse, data, len);
}
