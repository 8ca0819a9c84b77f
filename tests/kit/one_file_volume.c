/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One file on a volume that the product opens, on the fake device: see kit/one_file.h. */
#include "kit/one_file.h"
#include "kit/volume.h"

#include <string.h>

void onefile_attach(struct onefile *t)
{
	t->dev = fake_dev(t->fake);
	t->vol = testvol_mount(t->fake);
	must(ext4_inode_get(t->vol, t->ino, NULL, &t->inode) == 0);
}

void onefile_open(struct onefile *t, uint64_t size, const char *mkfs_args, const char *setup)
{
	memset(t, 0, sizeof(*t));
	t->fake = onefile_image(size, mkfs_args, setup, &t->ino);
	onefile_attach(t);
}

void onefile_recheck(struct onefile *t)
{
	ext4_inode_put(t->inode);
	must(ext4_vol_close(t->vol) == 0);
	must(fake_e2fsck(t->fake) == 0);
	onefile_attach(t);
}

void onefile_power_cut(struct onefile *t, uint64_t seed)
{
	struct fake_dev *left = fake_power_cut(t->fake, FAKE_CUT_RANDOM, seed);

	must(fake_e2fsck_replay(left) == 0);
	ext4_inode_put(t->inode);
	ext4_vol_abandon(t->vol);
	fake_free(t->fake);
	t->fake = left;
	onefile_attach(t);
}

void onefile_close(struct onefile *t)
{
	ext4_inode_put(t->inode);
	must(ext4_vol_close(t->vol) == 0);
	must(fake_e2fsck(t->fake) == 0);
	fake_free(t->fake);
}
