/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The orphan file: where newer kernels note orphans instead of the list. fusedio keeps to the list, which
 * every kernel and e2fsck honour as well, but a file system that a kernel left without unmounting has
 * ORPHAN_PRESENT set and may have entries: they are worked off here, at mount, after the journal.
 *
 * A block is an array of inode numbers (0: none) with a tail of magic and checksum; the checksum is
 * seeded with the orphan file's inode and the block's own number.
 */
#include "ext4/core/structs.h"
#include "ext4/life/life.h"

#include "base/crc32c.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

#define OB_MAGIC 0x0b10ca04U
/* No tool makes a larger one, and kernels refuse it: all of it is read at mount. */
#define MAX_BLOCKS 512u
#define MAX_BYTES (8u << 20)

struct ob_tail { uint32_t magic, checksum; };

static unsigned nr_slots(const struct x4_vol *v) { return (v->block_size - sizeof(struct ob_tail)) / 4; }

static uint32_t ob_csum(const struct x4_inode *f, const struct jnl_buf *b)
{
	uint64_t blk = b->blk;

	return fdio_crc32c(fdio_crc32c(f->csum_seed, &blk, 8), b->data, nr_slots(f->vol) * 4U);
}

static struct ob_tail *tail_of(const struct x4_vol *v, struct jnl_buf *b)
{
	return (struct ob_tail *)(void *)(b->data + v->block_size - sizeof(struct ob_tail));
}

static int check_block(struct x4_inode *f, struct jnl_buf *b)
{
	struct ob_tail *t = tail_of(f->vol, b);

	if (t->magic != OB_MAGIC)
		return X4_CORRUPT(f->vol, f->ino, b->blk, "orphan file: wrong magic");
	if (f->vol->has_csum && t->checksum != ob_csum(f, b))
		return X4_CORRUPT(f->vol, f->ino, b->blk, "orphan file: wrong checksum");
	return 0;
}

/* The entry moves from the file to the list in one transaction, then is finished like any other. */
static int work_off(struct x4_inode *f, struct jnl_buf *b, unsigned slot)
{
	struct x4_vol *v = f->vol;
	uint32_t *e = (uint32_t *)(void *)b->data + slot, ino = *e;
	struct x4_inode *i = NULL;
	struct jnl_handle *h;
	int err;

	if (ino >= v->first_ino && ino <= v->nr_inodes && x4_inode_in_use(v, ino) == 1)
		err = x4_iget_special(v, ino, &i);
	else
		err = X4_CORRUPT(v, ino, b->blk, "orphan file: impossible entry");
	if (err == -ENOMEM || err == -EIO)
		return err;
	err = jnl_begin(v->jnl, 1 + X4_CREDITS_INODE + X4_CREDITS_ORPHAN, &h);
	if (err)
		goto out;
	err = jnl_get_write(h, b);
	if (!err) {
		*e = 0;
		tail_of(v, b)->checksum = v->has_csum ? ob_csum(f, b) : tail_of(v, b)->checksum;
		err = i ? x4_orphan_add(h, i) : 0;
	}
	if (err)
		jnl_cancel(h);
	else
		jnl_end(h);
out:
	if (i && !err)
		x4_orphan_finish(v, i);
	else if (i)
		x4_iput(i);
	return err;
}

static int work_off_block(struct x4_inode *f, uint32_t lblk, unsigned *done)
{
	struct x4_vol *v = f->vol;
	struct jnl_buf *b;
	uint64_t blk;
	int err = x4_bmap(f, lblk, &blk);

	if (!err)
		err = jnl_bread(v->jnl, blk, &b);
	if (err)
		return err;
	err = check_block(f, b);
	for (unsigned s = 0; s < nr_slots(v) && !err; s++)
		if (((uint32_t *)(void *)b->data)[s]) {
			err = work_off(f, b, s);
			++*done;
		}
	jnl_brelse(b);
	return err;
}

static int clear_present(struct x4_vol *v)
{
	struct ext2_super_block *sb;
	struct jnl_handle *h;
	int err = jnl_begin(v->jnl, 1, &h);

	if (err)
		return err;
	err = x4_super_begin(v, h, &sb);
	if (err) {
		jnl_cancel(h);
		return err;
	}
	sb->s_feature_ro_compat &= ~(uint32_t)EXT4_FEATURE_RO_COMPAT_ORPHAN_PRESENT;
	x4_super_end(v, h);
	jnl_end(h);
	return 0;
}

int x4_orphan_file_process(struct x4_vol *v)
{
	struct x4_inode *f;
	unsigned done = 0;
	uint64_t size;
	int err;

	if (!(v->fs->super->s_feature_ro_compat & EXT4_FEATURE_RO_COMPAT_ORPHAN_PRESENT))
		return 0;
	if (!ext2fs_has_feature_orphan_file(v->fs->super) || !v->fs->super->s_orphan_file_inum)
		return clear_present(v);
	err = x4_iget_special(v, v->fs->super->s_orphan_file_inum, &f);
	if (err)
		return err;
	size = x4_raw_size(f);
	if (size > MAX_BYTES && size > (uint64_t)MAX_BLOCKS << v->block_bits)
		err = X4_CORRUPT(v, f->ino, 0, "an orphan file of %llu bytes",
				 (unsigned long long)size);
	for (uint32_t l = 0; !err && l < fdio_blocks(size, v->block_bits); l++)
		err = work_off_block(f, l, &done);
	x4_iput(f);
	if (done)
		log_info("%s: %u entries of the orphan file have been worked off", v->dev->name, done);
	return err ? err : clear_present(v);
}
