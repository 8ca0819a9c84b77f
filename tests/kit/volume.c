/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The volume layer of the kit: see kit/volume.h. The test's thread. */
#include "kit/volume.h"

#include "base/counters.h"
#include "ext4/inode/inode_change.h"

#include <stdio.h>
#include <string.h>

const char *const testvol_shapes[] = {
	"-t ext4 -b 1024 -J size=4 -O metadata_csum,64bit",
	"-t ext4 -b 2048 -J size=4 -g 4096 -O metadata_csum,^64bit",
	"-t ext4 -b 4096 -J size=4 -g 2048 -O metadata_csum,64bit,metadata_csum_seed",
	"-t ext4 -b 4096 -J size=4 -O ^metadata_csum,^64bit,^uninit_bg -E lazy_itable_init=1",
	"-t ext4 -b 1024 -J size=4 -O ^metadata_csum,uninit_bg,^64bit -E lazy_itable_init=1",
	("-t ext4 -b 1024 -J size=4 -O meta_bg,^resize_inode,64bit,metadata_csum "
	 "-E lazy_itable_init=1"),
	"-t ext4 -b 4096 -J size=4 -I 128 -g 2048 -O ^flex_bg",
	"-t ext4 -b 1024 -J size=4 -O sparse_super2,^resize_inode,orphan_file",
};
const unsigned nr_testvol_shapes = ARRAY_SIZE(testvol_shapes);

struct fake_dev *testvol_shape(unsigned n)
{
	struct fake_dev *fake = fake_mkfs(32 << 20, testvol_shapes[n]);

	ck_assert_ptr_nonnull(fake);
	return fake;
}

static struct {
	uint64_t size;
	const char *mkfs_args, *setup;
	struct fake_dev *image;
} template;

static void make_template(void)
{
	template.image = fake_mkfs(template.size, template.mkfs_args);
	ck_assert_ptr_nonnull(template.image);
	if (template.setup)
		ck_assert_int_eq(fake_run(template.image, template.setup, NULL, 0, true), 0);
}

static void free_template(void) { fake_free(template.image); }

void testvol_use_template(TCase *t, uint64_t size, const char *mkfs_args, const char *setup)
{
	template.size = size;
	template.mkfs_args = mkfs_args;
	template.setup = setup;
	tcase_add_unchecked_fixture(t, make_template, free_template);
}

struct fake_dev *testvol_copy(void) { return fake_clone(template.image); }

struct ext4_options testvol_options(void)
{
	return (struct ext4_options){ .acl = true, .user_xattr = true, .commit_interval_s = 3600,
				    .cache_bytes = 16 << 20 };
}

struct ext4_vol *testvol_mount_any(struct fake_dev *fake, const struct ext4_options *options,
				   const char **why)
{
	struct ext4_vol *vol = NULL;
	char msg[300] = "";
	int err;

	*why = NULL;
	err = ext4_vol_open(fake_dev(fake), options, &vol, why, FDIO_REASON(msg));
	ck_assert_msg(!err, "open: %d %s", err, msg);
	return vol;
}

struct ext4_vol *testvol_mount_with(struct fake_dev *fake, const struct ext4_options *options)
{
	const char *why;
	struct ext4_vol *vol = testvol_mount_any(fake, options, &why);

	ck_assert_msg(!why, "read-only: %s", why);
	return vol;
}

struct ext4_vol *testvol_mount(struct fake_dev *fake)
{
	struct ext4_options options = testvol_options();

	return testvol_mount_with(fake, &options);
}

void testvol_unmount_check(struct ext4_vol *vol, struct fake_dev *fake)
{
	ck_assert_int_eq(ext4_vol_close(vol), 0);
	epoch_drain();
	ck_assert_int_eq(fake_e2fsck(fake), 0);
}

void testvol_mounts_clean(struct fake_dev *fake)
{
	testvol_unmount_check(testvol_mount(fake), fake);
	fake_free(fake);
}

void testvol_super(struct fake_dev *fake, struct ext2_super_block *sb)
{
	fake_peek(fake, sb, sizeof(*sb), SUPERBLOCK_OFFSET);
}

void testvol_poke_super(struct fake_dev *fake, struct ext2_super_block *sb)
{
	ext4_super_checksum_set(sb);
	fake_poke(fake, sb, sizeof(*sb), SUPERBLOCK_OFFSET);
}

struct ext4_inode *testvol_root(struct ext4_vol *vol)
{
	struct ext4_inode *root;

	ck_assert_int_eq(ext4_inode_get(vol, EXT4_ROOT_INO, NULL, &root), 0);
	return root;
}

struct ext4_inode *testvol_tmpfile(struct ext4_vol *vol, uint32_t mode)
{
	struct ext4_credentials credentials = { .uid = 1000, .gid = 100000 };
	struct ext4_inode *root = testvol_root(vol), *inode;
	struct journal_handle *handle;

	ck_assert_int_eq(journal_begin(vol->journal, EXT4_CREDITS_INODE_NEW + EXT4_CREDITS_ORPHAN,
				       &handle),
			 0);
	ck_assert_int_eq(ext4_inode_new(handle, root, mode, &credentials, &inode), 0);
	ext4_raw_set_nlink(inode, 0);
	ck_assert_int_eq(ext4_orphan_add(handle, inode), 0);
	ck_assert_int_eq(ext4_inode_dirty(handle, inode, true), 0);
	journal_end(handle);
	ext4_inode_put(root);
	return inode;
}

int testvol_fill(struct ext4_inode *inode, uint32_t lblk, uint32_t n)
{
	struct ext4_reservation reservation;
	int err;

	ext4_inode_lock_exclusive(inode);
	err = ext4_reserve_holes(inode, lblk, n, false, &reservation);
	if (!err) {
		err = ext4_insert(inode, &reservation, 0, 0,
				  (uint64_t)(lblk + n) << inode->vol->block_bits);
		ext4_reservation_free(&reservation);
	}
	ext4_inode_unlock(inode);
	return err;
}

void testvol_open(struct testvol *volume)
{
	struct ext4_options options = testvol_options();
	const char *why;

	volume->vol = testvol_mount_any(volume->fake, &options, &why);
	must_msg(!why || volume->may_be_ro, "read-only: %s", why);
	volume->root = testvol_root(volume->vol);
}

void testvol_make(struct testvol *volume, uint64_t size, const char *mkfs_args)
{
	char args[256];

	snprintf(args, sizeof args,
		 "-t ext4 -E lazy_itable_init=0,hash_seed=0e1bbe08-5a3c-4ef0-9f0f-1c1a7e0d2a31 %s",
		 mkfs_args);
	volume->fake = fake_mkfs(size, args);
	must(volume->fake);
	testvol_open(volume);
}

void testvol_close(struct testvol *volume)
{
	ext4_inode_put(volume->root);
	/* A volume that only we have written is never damaged. */
	must_eq(fdio_counter_read(COUNTER_ext4_corrupt), 0);
	must_eq(ext4_vol_close(volume->vol), 0);
	volume->vol = NULL;
}

void testvol_check(struct testvol *volume)
{
	testvol_close(volume);
	must_eq(fake_e2fsck(volume->fake), 0);
}

void testvol_done(struct testvol *volume)
{
	testvol_check(volume);
	fake_free(volume->fake);
}

static void check_group(struct ext4_vol *vol, uint32_t group)
{
	struct ext4_group *grp = &vol->alloc.groups[group];
	uint32_t disk = 0;
	struct journal_buffer *buffer;

	ck_assert(!grp->bad);
	if (!grp->image) {
		ck_assert_uint_eq(grp->free_in_image, grp->desc.free_blocks);
		return;
	}
	ck_assert_uint_eq(ext4_bits_clear_count(grp->image, grp->nr_blocks), grp->free_in_image);
	ck_assert_uint_le(grp->first_free, ext4_bits_next(grp->image, grp->nr_blocks, 0, false));
	if (grp->desc.flags & EXT2_BG_BLOCK_UNINIT)
		return;
	ck_assert_int_eq(journal_read_block(vol->journal, grp->block_bitmap, &buffer), 0);
	for (uint32_t n = 0; n < grp->nr_blocks; n++) {
		disk += !ext4_bit(buffer->data, n);
		/* Each block in use on the disk is in use in memory too. */
		ck_assert(ext4_bit(grp->image, n) || !ext4_bit(buffer->data, n));
	}
	journal_buffer_release(buffer);
	ck_assert_uint_eq(disk, grp->desc.free_blocks);
}

/* A region has the sums of its groups, and no group has a longer free run than the region says. */
static void check_region(struct ext4_vol *vol, uint32_t r)
{
	uint32_t first = r << EXT4_REGION_BITS;
	struct ext4_region sum = { 0 };

	for (uint32_t group = first; group < ext4_region_end(vol, first); group++) {
		const struct ext4_group *grp = &vol->alloc.groups[group];

		sum.free_inodes += grp->desc.free_inodes;
		sum.free_blocks += grp->desc.free_blocks;
		sum.used_dirs += grp->desc.used_dirs;
		for (uint32_t s = 0, e = 0; grp->image && s < grp->nr_blocks; s = e) {
			s = ext4_bits_next(grp->image, grp->nr_blocks, s, false);
			e = ext4_bits_next(grp->image, grp->nr_blocks, s, true);
			ck_assert_uint_le(e - s,
					  FDIO_MIN(vol->alloc.regions[r].longest, grp->max_run));
		}
	}
	ck_assert_uint_eq(sum.free_inodes, vol->alloc.regions[r].free_inodes);
	ck_assert_uint_eq(sum.free_blocks, vol->alloc.regions[r].free_blocks);
	ck_assert_uint_eq(sum.used_dirs, vol->alloc.regions[r].used_dirs);
}

void testvol_check_groups(struct ext4_vol *vol)
{
	uint64_t free_blocks = 0, free_inodes = 0;

	for (uint32_t group = 0; group < vol->nr_groups; group++) {
		check_group(vol, group);
		free_blocks += vol->alloc.groups[group].free_in_image;
		free_inodes += vol->alloc.groups[group].desc.free_inodes;
	}
	for (uint32_t r = 0; r < vol->alloc.nr_regions; r++)
		check_region(vol, r);
	ck_assert_uint_eq(free_blocks, vol->alloc.free_blocks);
	ck_assert_uint_eq(free_inodes, vol->core.free_inodes);
}
