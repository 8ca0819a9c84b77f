/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A volume as the product opens it, on the device in memory. */
#include "kit/one_file.h"

#include <string.h>

void testvol_attach(struct testvol *t)
{
	struct x4_options opt = { .acl = true, .user_xattr = true, .commit_interval_s = 3600 };
	const char *why = NULL;
	char err[256] = "";
	int r;

	t->dev = fake_dev(t->fake);
	r = x4_vol_open(t->dev, &opt, &t->v, &why, err, sizeof(err));
	must_msg(r == 0, "open: %d %s", r, err);
	must_msg(!x4_vol_read_only(t->v), "read-only: %s", why ? why : "?");
	must(x4_iget(t->v, t->ino, NULL, &t->i) == 0);
}

void testvol_open(struct testvol *t, uint64_t size, const char *mkfs_args, const char *setup)
{
	memset(t, 0, sizeof(*t));
	t->fake = testvol_image(size, mkfs_args, setup, &t->ino);
	testvol_attach(t);
}

void testvol_recheck(struct testvol *t)
{
	x4_iput(t->i);
	must(x4_vol_close(t->v) == 0);
	must(fake_e2fsck(t->fake) == 0);
	testvol_attach(t);
}

/* The power goes: e2fsck replays the log and must find nothing; then the volume is opened on what was left. */
void testvol_power_cut(struct testvol *t, uint64_t seed)
{
	struct fake_dev *left = fake_power_cut(t->fake, FAKE_CUT_RANDOM, seed);

	must(fake_e2fsck_replay(left) == 0);
	x4_iput(t->i);
	x4_vol_abandon(t->v);
	fake_free(t->fake);
	t->fake = left;
	testvol_attach(t);
}

void testvol_close(struct testvol *t)
{
	x4_iput(t->i);
	must(x4_vol_close(t->v) == 0);
	must(fake_e2fsck(t->fake) == 0);
	fake_free(t->fake);
}
