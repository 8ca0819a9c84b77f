/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the kernel's page cache may hold of a file that the daemon does not know of: for operations
 * whose answer it would make wrong. pagecache.c explains the cases. Any thread; nothing here blocks
 * or fails.
 */
#ifndef FDIO_DIO_PAGECACHE_H
#define FDIO_DIO_PAGECACHE_H

#include "dio/dio.h"

struct work;

/*
 * The file is open for reading and writing: a program may map it, and stores through the mapping
 * change pages without a word to the daemon.
 */
void dio_file_may_map(struct dio_file *file);

/* Which pages. Only those of files that may be mapped count. */
enum dio_cached_what {
	/*
	 * The page that held the end of the file, which was at size, before the file grew. Taken
	 * after the growth and before it is answered.
	 */
	DIO_CACHED_TAIL,
	DIO_CACHED_HOLES, /* pages over holes, which SEEK_DATA and st_blocks do not know */
	DIO_CACHED_ALL,   /* any page: writing it back would change the times */
};
struct dio_cached {
	enum dio_cached_what what;
	uint64_t off, end; /* bytes [off, end) */
	uint64_t tail; /* pagecache.c: the note of the page at the end, taken with it; or 0 */
};
/* True if the kernel may hold such pages. size matters for DIO_CACHED_TAIL only. */
bool dio_cached_maybe(struct ext4_inode *inode, enum dio_cached_what what, uint64_t size);
/*
 * True if the caller must now have the bytes of *ret written back and forgotten, holding no lock
 * that a request may wait for, and then call dio_cached_done. late: the kernel had not forgotten
 * the pages in time.
 */
bool dio_cached_take(struct ext4_inode *inode, enum dio_cached_what what, uint64_t size,
		     struct dio_cached *ret);
void dio_cached_done(struct ext4_inode *inode, const struct dio_cached *cached, bool late);

/*
 * Truncate is about to move the end of the file from old to size: bytes behind the old end are
 * zeroed in pages that the kernel writes back. Returns true if pages are masked: then the caller
 * calls dio_mask_undo if truncate fails and leaves the old size. The inode is locked.
 */
bool dio_mask_set(struct ext4_inode *inode, uint64_t old, uint64_t size);
void dio_mask_undo(struct ext4_inode *inode, uint64_t old);

/* For dio_config.inval: the request that done_work belongs to. */
struct dio_req *dio_inval_req(struct work *done_work);
/* For dio_config.inval: if it calls done before the pages are gone, it calls this first. */
void dio_inval_late(struct work *done_work);

#endif
