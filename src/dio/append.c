/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Appends: a write that ends behind the end of the file goes one of three ways. dio_append_way
 * chooses, on the loop thread that submits it, without a lock; what it saw is looked at again where
 * it matters, and a way that turns out to be barred leads to the slow one.
 *
 *   WINDOW (append_window.c), on the loop thread. The file has an append window: blocks at its end
 *     that ext4 has mapped, but not recorded in the tree (ext4/data/append_window.c). Whole blocks
 *     that begin where the file, or the append before them in flight, ends. Written like an
 *     overwrite; then the size is published in the order of the file; the tree follows at the next
 *     fsync or commit.
 *   SMALL (append_small.c), on the loop thread. No window. A short write at the end of the file,
 *     whose new blocks are reserved, written and inserted without waiting; its last block need not
 *     be whole.
 *   SLOW (slow.c), on a worker. All others: gaps, long writes, requests that are not aligned, and
 *     those that either of the two above gave back. It waits for what it needs, and it is the only
 *     one that opens a window, for a stream of appends (dio_append_refill). A worker that finds
 *     that its write fits into a window writes there (dio_append_fits).
 *
 * A window is closed by the next slow write that moves the size and does not fit, by truncate and
 * the like, when the inode's last file is closed, and when the volume is full: always with the gate
 * closed for writes, and appends in flight count as writes there.
 */
#include "dio/types.h"

enum dio_way dio_append_way(struct dio_req *req, bool direct)
{
	uint64_t window = ext4_window_end(req->file->inode);

	if (window)
		return direct && req->pos + req->len <= window ? DIO_WAY_WINDOW : DIO_WAY_SLOW;
	return dio_grow_fits(req) ? DIO_WAY_SMALL : DIO_WAY_SLOW;
}
