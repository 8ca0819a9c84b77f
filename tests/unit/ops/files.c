/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files on a mount whose kernel the test plays, see files.h. */
#include "unit/ops/files.h"

#include "kit/runner.h"

#include <fcntl.h>
#include <string.h>

struct fake_kernel *start_mount(void)
{
	struct kernel_options options = { .parallel_dio = true };

	return kernel_new(testvol_copy(), &options);
}

/* The content of seed: each sector has a number of its own. */
static void fill(uint8_t *buf, uint8_t seed, uint32_t len)
{
	for (uint32_t n = 0; n < len; n++)
		buf[n] = (uint8_t)(seed + n / 512);
}

struct file new_file(struct fake_kernel *kernel, const char *name, unsigned blocks)
{
	static uint8_t buf[16 * BS];
	struct file file;

	ck_assert_uint_le(blocks, 16);
	ck_assert_int_eq(kernel_create(kernel, ROOT, name, O_RDWR | O_DIRECT, 0644, &file.entry,
				       &file.fh),
			 0);
	file.node = file.entry.nodeid;
	fill(buf, 1, blocks * BS);
	if (blocks)
		ck_assert_int_eq(kernel_write(kernel, file.node, file.fh, 0, buf, blocks * BS,
					      O_RDWR | O_DIRECT),
				 (int)(blocks * BS));
	ck_assert_int_eq(kernel_fsync(kernel, file.node, file.fh, false), 0);
	return file;
}

unsigned send_block(struct fake_kernel *kernel, const struct file *file, unsigned block,
		    uint8_t seed)
{
	static uint8_t buf[BS];

	fill(buf, seed, BS);
	return kernel_send_write(kernel, file->node, file->fh, (uint64_t)block * BS, buf, BS,
				 O_RDWR | O_DIRECT, 0);
}

void expect_block(struct fake_kernel *kernel, const struct file *file, unsigned block,
		  uint8_t seed)
{
	static uint8_t want[BS], got[BS];

	fill(want, seed, BS);
	ck_assert_int_eq(kernel_read(kernel, file->node, file->fh, (uint64_t)block * BS, got, BS,
				     O_RDWR | O_DIRECT),
			 (int)BS);
	ck_assert_mem_eq(want, got, BS);
}

void a_while(void) { unit_pause_ms(30); }

struct fuse_attr attr_at(struct fake_kernel *kernel, uint64_t node)
{
	struct fuse_attr attr;

	ck_assert_int_eq(kernel_getattr(kernel, node, &attr), 0);
	return attr;
}
