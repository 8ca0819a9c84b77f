/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The end of the direct part of a request: all its pieces have completed, or none was needed, or
 * none could be sent. Runs on the thread of the last completion, a loop thread, or where the
 * request was submitted; never blocks. Leaves the gate first, and then hands the request over: to a
 * worker if it failed or has a remainder, to finish.c if it is a write, else to its caller. An
 * append waits until those in front of it are through (append_window.c), and they end here in the
 * order of the file.
 */
#include "dio/types.h"

#include <string.h>

/* Holds nothing but the gate; appends: published, unless something failed. */
static void end_direct(struct dio_req *req)
{
	struct dio_own *o = dio_own(req);
	bool write = req->flags & DIO_WRITE;

	dio_leave(req);
	if (unlikely(o->error)) {
		dio_req_fail(req, o->error);
		return;
	}
	if (unlikely(o->direct_len < o->want)) {
		if (write)
			fdio_count(COUNTER_dio_write_remainder);
		dio_req_slow(req);
		return;
	}
	if (write) {
		dio_write_finish(req, true);
		return;
	}
	/* what the last device block holds beyond the end of the file */
	if (unlikely(o->span > o->want))
		memset((uint8_t *)req->buf + o->want, 0, o->span - o->want);
	if (likely(!(req->flags & DIO_NOATIME)))
		ext4_touch_read(req->file->inode);
	dio_req_end(req);
}

/*
 * The data of an append is through, well or not. Not inlined: other requests need no room for the
 * list.
 */
static __attribute__((noinline)) void end_appends(struct dio_req *req)
{
	struct list done;

	dio_append_done(req, &done);
	while ((req = dio_append_next(&done)))
		end_direct(req);
}

void dio_direct_finished(struct dio_req *req)
{
	if (req->flags & DIO_WRITE) {
		if (!(dio_own(req)->bits & DIO_R_FUA))
			dio_mark_dirty(dio_own(req)->dio, req->file->dinode);
		ext4_touch_write(req->file->inode);
		if (dio_own(req)->stage == DIO_AT_APPEND) {
			end_appends(req);
			return;
		}
	}
	end_direct(req);
}

void dio_direct_nothing(struct dio_req *req)
{
	if (dio_own(req)->stage == DIO_AT_APPEND) {
		end_appends(req);
		return;
	}
	dio_leave(req);
	dio_req_slow(req);
}
