/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When readers see what a handle has mapped: at the handle's end, and only if it ends well.
 *
 * A loop thread writes to a block as soon as the map shows it. If the handle were cancelled after
 * that, the block would be free or unwritten again: a write in flight would hit a block that
 * belongs to another file by then, and a write that was answered would be lost. So a handle notes
 * the extents that it maps in a file, and the size that grows with them; journal_end, which cannot
 * fail, applies the notes to the map and to the size. journal_cancel forgets them.
 *
 * Inside a handle with the inode open and map_lock held; workers, and loop threads in the mode of
 * base/nowait.h. note_done runs on the same thread, in journal_end or journal_cancel, and never
 * blocks. Noting fails with -ENOMEM; the caller then cancels the handle.
 */
#include "ext4/data/extent.h"

#include <errno.h>
#include <string.h>

/* Lives in the memory of the handle. */
struct ext4_map_note {
	struct journal_callback callback;
	struct ext4_inode *inode;
	struct ext4_extent *extent, few[4];
	unsigned n, cap;
	bool sized;
};

static void note_done(struct journal_callback *callback, int ended)
{
	struct ext4_map_note *note = container_of(callback, struct ext4_map_note, callback);
	struct ext4_inode *inode = note->inode;

	inode->data.map_note = NULL;
	for (unsigned k = 0; k < note->n && ended; k++)
		ext4_map_apply(inode, &note->extent[k]);
	if (note->sized && ended) {
		fdio_mutex_lock(&inode->attr);
		ext4_size_store(inode, ext4_raw_size(inode));
		fdio_mutex_unlock(&inode->attr);
	}
}

static struct ext4_map_note *note_of(struct journal_handle *handle, struct ext4_inode *inode)
{
	struct ext4_map_note *note = inode->data.map_note;

	if (note)
		return note;
	note = journal_handle_alloc(handle, sizeof(*note));
	if (!note)
		return NULL;
	*note = (struct ext4_map_note){ .callback = { .fn = note_done },
					.inode = inode,
					.cap = ARRAY_SIZE(note->few) };
	note->extent = note->few;
	inode->data.map_note = note;
	journal_on_undo(handle, &note->callback);
	return note;
}

/* Room for one more extent. The old array is freed with the handle. */
static int note_room(struct journal_handle *handle, struct ext4_map_note *note)
{
	unsigned cap = note->cap * 2;
	struct ext4_extent *extent;

	if (note->n < note->cap)
		return 0;
	extent = journal_handle_alloc(handle, cap * sizeof(*extent));
	if (!extent)
		return -ENOMEM;
	memcpy(extent, note->extent, note->n * sizeof(*extent));
	note->extent = extent;
	note->cap = cap;
	return 0;
}

/*
 * Other inodes (directories, symbolic links, attribute values) are read only under their lock,
 * which the thread of the handle holds; and that thread itself needs the blocks that it has just
 * mapped.
 */
static bool read_by_loops(const struct ext4_inode *inode)
{
	return ext4_is_regular(inode) && !(inode->raw->i_flags & EXT4_EA_INODE_FL);
}

int ext4_map_note_extent(struct journal_handle *handle, struct ext4_inode *inode,
			 const struct ext4_extent *extent)
{
	struct ext4_map_note *note;
	int err;

	/*
	 * Note the transaction before the map shows the block: a loop thread that finds no
	 * transaction to wait for answers an O_DSYNC write as soon as the data is on the device.
	 */
	ext4_inode_note_tid(handle, inode, true);
	if (!read_by_loops(inode)) {
		ext4_map_apply(inode, extent);
		return 0;
	}
	note = note_of(handle, inode);
	err = note ? note_room(handle, note) : -ENOMEM;
	if (!err)
		note->extent[note->n++] = *extent;
	return err;
}

bool ext4_map_note_size(struct ext4_inode *inode)
{
	if (inode->data.map_note)
		inode->data.map_note->sized = true;
	return inode->data.map_note;
}
