/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The end of the direct part of a request: all pieces that were sent have completed, or none was
 * needed, or none could be sent. Runs on the thread of the last completion, which is a loop thread,
 * or where the request was submitted; never blocks.
 *
 * The request leaves the gate first. Then a failed one goes to dio_fail, one with a remainder to a
 * worker, a write to finish.c, a read to its owner. An append waits until those before it in the
 * file have completed (append_window.c); they end here in that order.
 */
#include "dio/types.h"

#include <string.h>

/*
 * The direct part stopped at a piece that a worker must do: a hole or unwritten blocks under a
 * write, or a map that is not in memory. No segment is in flight any more.
 */
static void hand_over_remainder(struct dio_req *req)
{
	if (req->flags & DIO_WRITE)
		fdio_count(COUNTER_dio_write_remainder);
	dio_hand_to_worker(req);
}

/* req holds nothing but the gate. An append is published, unless something failed. */
static void end_direct(struct dio_req *req)
{
	struct dio_own *own = dio_own(req);

	dio_leave(req);
	if (unlikely(own->error)) {
		dio_fail(req, own->error);
		return;
	}
	if (unlikely(own->direct_len < own->want)) {
		hand_over_remainder(req);
		return;
	}
	if (req->flags & DIO_WRITE) {
		dio_write_finish(req, true);
		return;
	}
	/* A read of the last sector has also read the device's bytes behind the end of the file. */
	if (unlikely(own->span > own->want))
		memset((uint8_t *)req->buf + own->want, 0, own->span - own->want);
	if (likely(!(req->flags & DIO_NOATIME)))
		ext4_touch_read(req->file->inode);
	dio_req_end(req);
}

/* Not inlined, so that other requests need no room on the stack for the list. */
static __attribute__((noinline)) void end_appends(struct dio_req *req)
{
	struct list done;

	dio_append_done(req, &done);
	while ((req = dio_append_next(&done)))
		end_direct(req);
}

void dio_pieces_done(struct dio_req *req)
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

void dio_no_piece_sent(struct dio_req *req)
{
	if (dio_own(req)->stage == DIO_AT_APPEND) {
		end_appends(req);
		return;
	}
	dio_leave(req);
	dio_hand_to_worker(req);
}
