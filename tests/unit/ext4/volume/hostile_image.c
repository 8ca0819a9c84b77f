/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the tests of hostile images share: see hostile_image.h. */
#include "hostile_image.h"

#include "base/counters.h"
#include "ext4/volume/parts.h"

void peek(struct testvol *volume, void *buf, size_t len, uint64_t off)
{
	fake_peek(volume->fake, buf, len, off);
}

void poke(struct testvol *volume, const void *buf, size_t len, uint64_t off)
{
	fake_poke(volume->fake, buf, len, off);
}

void poke16(struct testvol *volume, uint64_t off, uint16_t value)
{
	poke(volume, &value, sizeof(value), off);
}

void poke32(struct testvol *volume, uint64_t off, uint32_t value)
{
	poke(volume, &value, sizeof(value), off);
}

uint64_t inode_place(struct ext4_vol *vol, uint32_t ino)
{
	uint32_t off;
	uint64_t blk = ext4_itable_place(vol, ino, &off);

	return (blk << vol->block_bits) + off;
}

uint64_t group_place(uint32_t group)
{
	return 2048 + group * sizeof(struct ext2_group_desc);
}

uint64_t blocks_looked_at(void)
{
	return fdio_counter_read(COUNTER_journal_cache_hit) +
	       fdio_counter_read(COUNTER_journal_cache_miss);
}

void put_and_close(struct testvol *volume, struct ext4_inode *inode)
{
	ext4_inode_put(inode);
	testvol_close(volume);
}

void end_damaged(struct testvol *volume)
{
	ext4_inode_put(volume->root);
	(void)ext4_vol_close(volume->vol);
	fake_free(volume->fake);
}
