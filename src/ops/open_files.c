/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of open files. A handle is an index and a generation; looking one up on a loop thread
 * takes two loads and no lock. Entries live in chunks that are never freed or moved while the mount
 * lives. Opening and releasing take files_lock. Nothing here trusts a handle: what is out of range,
 * closed or of another generation is not found. Fails with ENFILE when the table (a million
 * entries) is full, ENOMEM without memory.
 */
#include "ops/types.h"

#include <stdlib.h>

static struct ops_file *slot_at(struct ops *o, uint32_t index)
{
	struct ops_file *c;

	if (index >= OPS_FILES_CHUNK * OPS_FILES_CHUNKS)
		return NULL;
	c = __atomic_load_n(&o->chunks[index / OPS_FILES_CHUNK], __ATOMIC_ACQUIRE);
	return c ? &c[index % OPS_FILES_CHUNK] : NULL;
}

/* Under files_lock. */
static int grow(struct ops *o)
{
	uint32_t n = o->nr_slots / OPS_FILES_CHUNK;
	struct ops_file *c;

	if (n == OPS_FILES_CHUNKS)
		return -ENFILE;
	c = calloc(OPS_FILES_CHUNK, sizeof(*c));
	if (!c)
		return -ENOMEM;
	for (uint32_t i = OPS_FILES_CHUNK; i-- > 0;) {
		c[i].index = o->nr_slots + i;
		c[i].next_free = o->free_head;
		o->free_head = (uint32_t)c[i].index + 1;
	}
	o->nr_slots += OPS_FILES_CHUNK;
	__atomic_store_n(&o->chunks[n], c, __ATOMIC_RELEASE);
	return 0;
}

int ops_file_add(struct ops *o, struct x4_inode *i, struct dio_file *df, unsigned open_flags,
		 uint64_t *ret_fh)
{
	struct ops_file *f;
	uint32_t gen;
	int err = 0;

	fdio_mutex_lock(&o->files_lock);
	if (!o->free_head)
		err = grow(o);
	if (err)
		goto out;
	f = slot_at(o, o->free_head - 1);
	o->free_head = f->next_free;
	o->nr_open++;
	f->df = df;
	f->inode = i;
	f->open_flags = open_flags;
	gen = f->gen + 1;
	__atomic_store_n(&f->gen, gen, __ATOMIC_RELEASE);
	*ret_fh = (uint64_t)gen << 32 | f->index;
out:
	fdio_mutex_unlock(&o->files_lock);
	return err;
}

struct ops_file *ops_file_get(struct ops *o, uint64_t fh)
{
	struct ops_file *f = slot_at(o, (uint32_t)fh);
	uint32_t gen = (uint32_t)(fh >> 32);

	if (!f || !(gen & 1) || __atomic_load_n(&f->gen, __ATOMIC_ACQUIRE) != gen)
		return NULL;
	return f;
}

/* Under files_lock. */
static void take_out(struct ops *o, struct ops_file *f, struct ops_file *ret)
{
	*ret = *f;
	__atomic_store_n(&f->gen, f->gen + 1, __ATOMIC_RELEASE);
	f->df = NULL;
	f->inode = NULL;
	f->next_free = o->free_head;
	o->free_head = (uint32_t)f->index + 1;
	o->nr_open--;
}

bool ops_file_remove(struct ops *o, uint64_t fh, struct ops_file *ret)
{
	struct ops_file *f;

	fdio_mutex_lock(&o->files_lock);
	f = ops_file_get(o, fh);
	if (f)
		take_out(o, f, ret);
	fdio_mutex_unlock(&o->files_lock);
	return f;
}

bool ops_file_remove_next(struct ops *o, uint32_t *index, struct ops_file *ret)
{
	bool found = false;

	fdio_mutex_lock(&o->files_lock);
	for (; *index < o->nr_slots && o->nr_open && !found; ++*index) {
		struct ops_file *f = slot_at(o, *index);

		if (f->gen & 1) {
			take_out(o, f, ret);
			found = true;
		}
	}
	fdio_mutex_unlock(&o->files_lock);
	return found;
}

unsigned ops_files_nodeids(struct ops *o, uint32_t *index, uint64_t *ids, unsigned cap)
{
	unsigned nr = 0;

	fdio_mutex_lock(&o->files_lock);
	for (; *index < o->nr_slots && nr < cap; ++*index) {
		struct ops_file *f = slot_at(o, *index);

		if ((f->gen & 1) && f->df)
			ids[nr++] = ops_nodeid(f->inode);
	}
	fdio_mutex_unlock(&o->files_lock);
	return nr;
}

void ops_files_free(struct ops *o)
{
	for (uint32_t n = 0; n < OPS_FILES_CHUNKS && o->chunks[n]; n++)
		free(o->chunks[n]);
}
