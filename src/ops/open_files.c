/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of open files. A handle is the index of an entry (lower 32 bits) and its generation.
 * Loop threads and workers look handles up with two loads and no lock; opening and releasing take
 * files_lock for a moment. Entries live in chunks that are not freed or moved before the mount
 * ends. No handle is trusted: one that is out of range, closed or of another generation is not
 * found. Opening fails with ENFILE if the table (a million entries) is full, and with ENOMEM.
 */
#include "ops/types.h"

#include <stdlib.h>

static struct ops_file *entry_at(struct ops *ops, uint32_t index)
{
	struct ops_file *chunk;

	if (index >= OPS_FILES_CHUNK * OPS_FILES_CHUNKS)
		return NULL;
	chunk = __atomic_load_n(&ops->chunks[index / OPS_FILES_CHUNK], __ATOMIC_ACQUIRE);
	return chunk ? &chunk[index % OPS_FILES_CHUNK] : NULL;
}

/* Adds a chunk of free entries. files_lock is held. */
static int grow(struct ops *ops)
{
	uint32_t n = ops->nr_slots / OPS_FILES_CHUNK;
	struct ops_file *chunk;

	if (n == OPS_FILES_CHUNKS)
		return -ENFILE;
	chunk = calloc(OPS_FILES_CHUNK, sizeof(*chunk));
	if (!chunk)
		return -ENOMEM;
	for (uint32_t i = OPS_FILES_CHUNK; i-- > 0;) {
		chunk[i].index = ops->nr_slots + i;
		chunk[i].next_free = ops->free_head;
		ops->free_head = (uint32_t)chunk[i].index + 1;
	}
	ops->nr_slots += OPS_FILES_CHUNK;
	__atomic_store_n(&ops->chunks[n], chunk, __ATOMIC_RELEASE);
	return 0;
}

int ops_file_add(struct ops *ops, struct ext4_inode *inode, struct dio_file *file,
		 unsigned open_flags, uint64_t *ret_fh)
{
	struct ops_file *entry;
	uint32_t gen;
	int err = 0;

	fdio_mutex_lock(&ops->files_lock);
	if (!ops->free_head)
		err = grow(ops);
	if (err)
		goto out;
	entry = entry_at(ops, ops->free_head - 1);
	ops->free_head = entry->next_free;
	ops->nr_open++;
	entry->file = file;
	entry->inode = inode;
	entry->open_flags = open_flags;
	gen = entry->gen + 1;
	__atomic_store_n(&entry->gen, gen, __ATOMIC_RELEASE);
	*ret_fh = (uint64_t)gen << 32 | entry->index;
out:
	fdio_mutex_unlock(&ops->files_lock);
	return err;
}

struct ops_file *ops_file_get(struct ops *ops, uint64_t fh)
{
	struct ops_file *file = entry_at(ops, (uint32_t)fh);
	uint32_t gen = (uint32_t)(fh >> 32);

	if (!file || !(gen & 1) || __atomic_load_n(&file->gen, __ATOMIC_ACQUIRE) != gen)
		return NULL;
	return file;
}

/* Copies the entry to *ret and frees it. files_lock is held. */
static void take_out(struct ops *ops, struct ops_file *file, struct ops_file *ret)
{
	*ret = *file;
	__atomic_store_n(&file->gen, file->gen + 1, __ATOMIC_RELEASE);
	file->file = NULL;
	file->inode = NULL;
	file->next_free = ops->free_head;
	ops->free_head = (uint32_t)file->index + 1;
	ops->nr_open--;
}

bool ops_file_remove(struct ops *ops, uint64_t fh, struct ops_file *ret)
{
	struct ops_file *file;

	fdio_mutex_lock(&ops->files_lock);
	file = ops_file_get(ops, fh);
	if (file)
		take_out(ops, file, ret);
	fdio_mutex_unlock(&ops->files_lock);
	return file;
}

bool ops_file_remove_next(struct ops *ops, uint32_t *index, struct ops_file *ret)
{
	bool found = false;

	fdio_mutex_lock(&ops->files_lock);
	for (; *index < ops->nr_slots && ops->nr_open && !found; ++*index) {
		struct ops_file *file = entry_at(ops, *index);

		if (file->gen & 1) {
			take_out(ops, file, ret);
			found = true;
		}
	}
	fdio_mutex_unlock(&ops->files_lock);
	return found;
}

unsigned ops_files_nodeids(struct ops *ops, uint32_t *index, uint64_t *ids, unsigned cap)
{
	unsigned nr = 0;

	fdio_mutex_lock(&ops->files_lock);
	for (; *index < ops->nr_slots && nr < cap; ++*index) {
		struct ops_file *file = entry_at(ops, *index);

		if ((file->gen & 1) && file->file)
			ids[nr++] = ops_nodeid(file->inode);
	}
	fdio_mutex_unlock(&ops->files_lock);
	return nr;
}

void ops_files_free(struct ops *ops)
{
	for (uint32_t n = 0; n < OPS_FILES_CHUNKS && ops->chunks[n]; n++)
		free(ops->chunks[n]);
}
