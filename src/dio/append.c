/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Appends: a write that ends behind the end of the file goes one of three ways. dio_append_way
 * chooses, on the loop thread that submits it, without a lock. The inode may change meanwhile, so
 * each way checks its conditions again under the gate or a lock; a request that no longer meets
 * them goes to a worker. Nothing here fails.
 *
 *   WINDOW (append_window.c), on the loop thread. The file has an append window: blocks behind its
 *     end that ext4 has mapped but not recorded in the tree (ext4/data/append_window.c). The write
 *     is of whole blocks, and begins where the file, or the append before it in flight, ends. It is
 *     written like an overwrite; then the size is published, in the order of the file. The tree
 *     follows at the next fsync or commit.
 *   SMALL (append_small.c), on the loop thread. The file has no window. A short write at the end of
 *     the file, whose new blocks are reserved, written and inserted without waiting; the last one
 *     need not be whole.
 *   SLOW (slow.c), on a worker. All others: gaps, long writes, requests that are not aligned, and
 *     those that either of the two above gives up. A worker waits for what it needs. Only a worker
 *     opens a window, for a stream of appends (dio_append_refill), and one whose write fits into
 *     the window writes there (dio_append_fits).
 *
 * A window is closed by the next slow write that moves the size and does not fit, by truncate and
 * the like, when the last file of the inode is closed, and when the volume is full. The gate is
 * closed for writes then; appends in flight count as writes there.
 */
#include "dio/types.h"

enum dio_way dio_append_way(struct dio_req *req, bool direct)
{
	uint64_t window = ext4_window_end(req->file->inode);

	if (window)
		return direct && req->pos + req->len <= window ? DIO_WAY_WINDOW : DIO_WAY_SLOW;
	return dio_append_small_fits(req) ? DIO_WAY_SMALL : DIO_WAY_SLOW;
}
