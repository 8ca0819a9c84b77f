/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening and closing a file for I/O. On workers, and on loop threads in the mode of nowait.h,
 * where closing the last file leaves an append window to a worker. An open file holds a reference
 * of its inode and the reserved segment that guarantees progress of its requests. Opening fails
 * with ENOMEM; closing does not fail.
 */
#include "base/log.h"
#include "base/nowait.h"
#include "dio/types.h"

#include <errno.h>
#include <stdlib.h>

int dio_file_open(struct dio *d, struct x4_inode *i, struct dio_file **ret)
{
	struct dio_file *f = calloc(1, sizeof(*f));
	struct nowait saved;
	int r;

	if (!f)
		return -ENOMEM;
	r = dio_inode_attach(d, i, &f->di);
	if (r) {
		free(f);
		return r;
	}
	f->d = d;
	f->errs_seen = dio_sync_errs_at_open(f->di);
	__atomic_fetch_add(&f->di->nr_files, 1, __ATOMIC_RELAXED);
	f->inode = x4_iref(i);
	x4_opened(i, 1);
	f->reserve.is_reserve = true;
	f->reserve.file = f;
	list_init(&f->reserve.link);
	/*
	 * The first requests find the extent map in memory. If loading it would block, or fails,
	 * open succeeds anyway: what is wrong with the map is told to the requests that need it.
	 */
	saved = nowait_save();
	if (x4_map_load(i))
		log_debug("inode %u: map not loaded at open", x4_inode_ino(i));
	nowait_restore(saved);
	*ret = f;
	return 0;
}

void dio_file_may_map(struct dio_file *f)
{
	if (!f->may_map)
		__atomic_fetch_add(&f->di->nr_mappers, 1, __ATOMIC_ACQ_REL);
	f->may_map = true;
}

bool dio_file_close_waits(const struct dio_file *f) { return x4_window_end(f->inode); }

void dio_file_close(struct dio_file *f)
{
	if (!f)
		return;
	FDIO_ASSERT(!__atomic_load_n(&f->reserve_busy, __ATOMIC_ACQUIRE));
	if (f->may_map)
		__atomic_fetch_sub(&f->di->nr_mappers, 1, __ATOMIC_ACQ_REL);
	/*
	 * Somebody who only reads may close meanwhile: the window stays with those who have the
	 * file open.
	 */
	if (__atomic_sub_fetch(&f->di->nr_files, 1, __ATOMIC_ACQ_REL) == 0) {
		/* the window was opened after the caller of dio_file_close_waits asked */
		if (nowait_on())
			dio_append_stop_later(f->di, f->inode);
		else
			dio_append_stop(f->di, f->inode);
	}
	x4_opened(f->inode, -1);
	x4_iput(f->inode);
	free(f);
}

struct x4_inode *dio_file_inode(struct dio_file *f) { return f->inode; }
