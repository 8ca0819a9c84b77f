/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening and closing a file for I/O. Runs on workers, and on loop threads in the mode of nowait.h;
 * a loop thread that closes the last file leaves closing the append window to a worker. An open
 * file holds a reference of its inode, and the reserved segment that guarantees progress of its
 * requests. Guards nothing: its counts are atomic. Opening fails with ENOMEM; closing does not
 * fail.
 */
#include "base/log.h"
#include "base/nowait.h"
#include "dio/types.h"

#include <errno.h>
#include <stdlib.h>

int dio_file_open(struct dio *dio, struct ext4_inode *inode, struct dio_file **ret)
{
	struct dio_file *file = calloc(1, sizeof(*file));
	struct nowait saved;
	int err;

	if (!file)
		return -ENOMEM;
	err = dio_inode_attach(dio, inode, &file->dinode);
	if (err) {
		free(file);
		return err;
	}
	file->dio = dio;
	file->errors_seen = dio_sync_errors_at_open(file->dinode);
	__atomic_fetch_add(&file->dinode->nr_files, 1, __ATOMIC_RELAXED);
	file->inode = ext4_inode_ref(inode);
	ext4_open_count_add(inode, 1);
	file->reserve.is_reserve = true;
	file->reserve.file = file;
	list_init(&file->reserve.link);
	/*
	 * Load the extent map, so that the first requests find it in memory. If that would block,
	 * or fails, open succeeds anyway: requests that need the map meet the error.
	 */
	saved = nowait_save();
	if (ext4_map_load(inode))
		log_debug("inode %u: map not loaded at open", ext4_inode_ino(inode));
	nowait_restore(saved);
	*ret = file;
	return 0;
}

void dio_file_may_map(struct dio_file *file)
{
	if (!file->may_map)
		__atomic_fetch_add(&file->dinode->nr_mappers, 1, __ATOMIC_ACQ_REL);
	file->may_map = true;
}

bool dio_file_close_waits(const struct dio_file *file) { return ext4_window_end(file->inode); }

void dio_file_close(struct dio_file *file)
{
	if (!file)
		return;
	FDIO_ASSERT(!__atomic_load_n(&file->reserve_busy, __ATOMIC_ACQUIRE));
	if (file->may_map)
		__atomic_fetch_sub(&file->dinode->nr_mappers, 1, __ATOMIC_ACQ_REL);
	/* The window stays as long as any file of the inode is open, a reader's too. */
	if (__atomic_sub_fetch(&file->dinode->nr_files, 1, __ATOMIC_ACQ_REL) == 0) {
		/* A window may have been opened after the caller asked dio_file_close_waits. */
		if (nowait_on())
			dio_append_stop_later(file->dinode, file->inode);
		else
			dio_append_stop(file->dinode, file->inode);
	}
	ext4_open_count_add(file->inode, -1);
	ext4_inode_put(file->inode);
	free(file);
}

struct ext4_inode *dio_file_inode(struct dio_file *file) { return file->inode; }
