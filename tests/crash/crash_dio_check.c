/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Judges a recovered image of the direct-I/O workload; crash_dio.c says what is promised. */
#include "crash/crash_dio.h"

#include "base/crc32c.h"

#include <stdio.h>
#include <stdlib.h>

struct look {
	struct crash_run *run;
	struct fake_dev *fake;
	char *why;
	size_t len;
};

/* The last version that had been promised when the first k events had happened; -1: none. */
static int last_promised(const struct dio_history *history, unsigned k)
{
	int n = (int)history->nr - 1;

	while (n >= 0 && history->version[n].durable > k)
		n--;
	return n;
}

/* It is the last one that was promised, or one that was asked for since and before the cut. */
static bool unit_allowed(const struct dio_history *history, unsigned k, uint32_t gen)
{
	int from = last_promised(history, k);

	if (from < 0 && !gen)
		return true;
	if (from >= 0 && history->version[from].value == gen)
		return true;
	for (unsigned n = (unsigned)(from + 1);
	     n < history->nr && history->version[n].submitted < k; n++)
		if (history->version[n].value == gen)
			return true;
	return false;
}

/* The same for sizes; but an operation that makes a file grow may do so in steps. */
static bool size_allowed(const struct dio_history *history, unsigned k, uint64_t bytes)
{
	int from = last_promised(history, k);
	uint64_t at = from < 0 ? 0 : (uint64_t)history->version[from].value * DIO_UNIT;

	if (bytes == at)
		return true;
	for (unsigned n = (unsigned)(from + 1);
	     n < history->nr && history->version[n].submitted < k; n++) {
		uint64_t next = (uint64_t)history->version[n].value * DIO_UNIT;

		if (bytes == next || (bytes > at && bytes < next))
			return true;
		at = next;
	}
	return false;
}

/* The generation of what unit n of a file holds; -1: neither the file's own bytes nor zeroes. */
static int64_t generation(const uint8_t *got, unsigned file, uint32_t n)
{
	uint8_t want[DIO_UNIT];
	uint32_t gen;

	memcpy(&gen, got + 4, sizeof(gen));
	if (gen)
		crash_dio_fill(want, file, n, gen);
	else
		memset(want, 0, sizeof(want));
	return memcmp(got, want, DIO_UNIT) ? -1 : (int64_t)gen;
}

static bool read_block(struct look *look, struct ext4_inode *inode, uint32_t lblk, uint8_t *buf)
{
	struct ext4_extent extent;

	memset(buf, 0, look->run->block_size);
	if (ext4_map_lookup(inode, lblk, &extent))
		return false;
	if (extent.state == EXT4_EXTENT_WRITTEN)
		fake_peek(look->fake, buf, look->run->block_size,
			  extent.pblk * look->run->block_size);
	return true;
}

static bool file_ok(struct look *look, struct ext4_inode *inode, unsigned file, unsigned k)
{
	static uint8_t buf[4096];
	const struct recorded_file *f = &look->run->file[file];
	uint64_t size = ext4_inode_size(inode);
	uint32_t per = look->run->block_size / DIO_UNIT;

	if (!size_allowed(&f->size, k, size)) {
		snprintf(look->why, look->len, "f%u: the size is %llu", file,
			 (unsigned long long)size);
		return false;
	}
	if (ext4_map_load(inode)) {
		snprintf(look->why, look->len, "f%u: the map cannot be loaded", file);
		return false;
	}
	for (uint32_t n = 0; (uint64_t)n * DIO_UNIT < size; n++) {
		int64_t gen;

		if (n % per == 0 && !read_block(look, inode, n / per, buf)) {
			snprintf(look->why, look->len, "f%u: a block cannot be looked up", file);
			return false;
		}
		gen = generation(buf + n % per * DIO_UNIT, file, n);
		if (gen >= 0 && unit_allowed(&f->unit[n], k, (uint32_t)gen))
			continue;
		snprintf(look->why, look->len, "f%u: sector %u: %s", file, n,
			 gen < 0 ? "shows what is not its own" : "synced bytes are not there");
		return false;
	}
	return true;
}

typedef bool (*file_fn)(struct look *look, struct ext4_inode *inode, unsigned file, void *arg);

/* Calls fn for each file of the workload; false as soon as one returns false, or is gone. */
static bool each_file(struct look *look, file_fn fn, void *arg)
{
	struct ext4_options options = crash_dio_options;
	struct ext4_inode *root = NULL, *inode;
	struct ext4_vol *vol;
	bool ok;

	options.read_only = true;
	if (ext4_vol_open(fake_dev(look->fake), &options, &vol, NULL,
			  FDIO_REASON_AT(look->why, look->len)))
		return false;
	ok = !ext4_inode_get(vol, EXT4_ROOT_INO, NULL, &root);
	for (unsigned n = 0; n < DIO_FILES && ok; n++) {
		char name[8];
		unsigned len = (unsigned)snprintf(name, sizeof(name), "f%u", n);

		if (ext4_lookup(root, name, len, &inode)) {
			snprintf(look->why, look->len, "%s: is gone", name);
			ok = false;
			break;
		}
		ok = fn(look, inode, n, arg);
		ext4_inode_put(inode);
	}
	ext4_inode_put(root);
	ext4_vol_abandon(vol);
	return ok;
}

static bool check_file(struct look *look, struct ext4_inode *inode, unsigned file, void *arg)
{
	return file_ok(look, inode, file, *(unsigned *)arg);
}

bool crash_dio_check(struct crash_run *run, struct fake_dev *fake, unsigned k, char *why,
		     size_t len)
{
	struct look look = { .run = run, .fake = fake, .why = why, .len = len };

	return each_file(&look, check_file, &k);
}

static bool digest_file(struct look *look, struct ext4_inode *inode, unsigned file, void *arg)
{
	static uint8_t buf[4096];
	uint64_t size = ext4_inode_size(inode), bs = look->run->block_size, *sum = arg;
	uint32_t crc = fdio_crc32c(~file, &size, sizeof(size));

	if (size > (uint64_t)DIO_UNITS * DIO_UNIT || ext4_map_load(inode)) {
		snprintf(look->why, look->len, "f%u: cannot be read", file);
		return false;
	}
	for (uint32_t b = 0; (uint64_t)b * bs < size; b++) {
		if (!read_block(look, inode, b, buf)) {
			snprintf(look->why, look->len, "f%u: a block cannot be looked up", file);
			return false;
		}
		crc = fdio_crc32c(crc, buf, FDIO_MIN(bs, size - (uint64_t)b * bs));
	}
	*sum = *sum * 31 + crc;
	return true;
}

bool crash_dio_digest(struct crash_run *run, struct fake_dev *fake, uint64_t *sum, char *why,
		      size_t len)
{
	struct look look = { .run = run, .fake = fake, .why = why, .len = len };

	*sum = 0;
	return each_file(&look, digest_file, sum);
}
