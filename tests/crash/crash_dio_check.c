/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The verdict of the direct-I/O workload on a recovered image (crash_dio.c says what is promised).
 */
#include "crash/crash_dio.h"

#include "base/crc32c.h"

#include <stdio.h>
#include <stdlib.h>

struct look {
	struct crash_run *r;
	struct fake_dev *c;
	char *why;
	size_t len;
};

/* The last version that was promised by event k; -1: none. */
static int last_promised(const struct dio_history *h, unsigned k)
{
	int n = (int)h->nr - 1;

	while (n >= 0 && h->v[n].durable > k)
		n--;
	return n;
}

static bool unit_allowed(const struct dio_history *h, unsigned k, uint32_t gen)
{
	int from = last_promised(h, k);

	if (from < 0 && !gen)
		return true;
	if (from >= 0 && h->v[from].value == gen)
		return true;
	for (unsigned n = (unsigned)(from + 1); n < h->nr && h->v[n].submitted < k; n++)
		if (h->v[n].value == gen)
			return true;
	return false;
}

/* What makes a file grow may do so in steps. */
static bool size_allowed(const struct dio_history *h, unsigned k, uint64_t bytes)
{
	int from = last_promised(h, k);
	uint64_t at = from < 0 ? 0 : (uint64_t)h->v[from].value * DIO_UNIT;

	if (bytes == at)
		return true;
	for (unsigned n = (unsigned)(from + 1); n < h->nr && h->v[n].submitted < k; n++) {
		uint64_t next = (uint64_t)h->v[n].value * DIO_UNIT;

		if (bytes == next || (bytes > at && bytes < next))
			return true;
		at = next;
	}
	return false;
}

/* Its generation; -1: neither the file's own nor zeroes. */
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

static bool read_block(struct look *l, struct x4_inode *i, uint32_t lblk, uint8_t *buf)
{
	struct x4_ext e;

	memset(buf, 0, l->r->bs);
	if (x4_map_lookup(i, lblk, &e))
		return false;
	if (e.state == X4_EXT_WRITTEN)
		fake_peek(l->c, buf, l->r->bs, e.pblk * l->r->bs);
	return true;
}

static bool file_ok(struct look *l, struct x4_inode *i, unsigned file, unsigned k)
{
	static uint8_t buf[4096];
	const struct dio_rec_file *f = &l->r->file[file];
	uint64_t size = x4_inode_size(i);
	uint32_t per = l->r->bs / DIO_UNIT;

	if (!size_allowed(&f->size, k, size)) {
		snprintf(l->why, l->len, "f%u: the size is %llu", file, (unsigned long long)size);
		return false;
	}
	if (x4_map_load(i)) {
		snprintf(l->why, l->len, "f%u: the map cannot be loaded", file);
		return false;
	}
	for (uint32_t n = 0; (uint64_t)n * DIO_UNIT < size; n++) {
		int64_t gen;

		if (n % per == 0 && !read_block(l, i, n / per, buf)) {
			snprintf(l->why, l->len, "f%u: a block cannot be looked up", file);
			return false;
		}
		gen = generation(buf + n % per * DIO_UNIT, file, n);
		if (gen >= 0 && unit_allowed(&f->unit[n], k, (uint32_t)gen))
			continue;
		snprintf(l->why, l->len, "f%u: sector %u: %s", file, n,
			 gen < 0 ? "shows what is not its own" : "synced bytes are not there");
		return false;
	}
	return true;
}

typedef bool (*file_fn)(struct look *l, struct x4_inode *i, unsigned file, void *arg);

static bool each_file(struct look *l, file_fn fn, void *arg)
{
	struct x4_options opt = crash_dio_options;
	struct x4_inode *root = NULL, *i;
	struct x4_vol *v;
	bool ok;

	opt.read_only = true;
	if (x4_vol_open(fake_dev(l->c), &opt, &v, NULL, FDIO_REASON_AT(l->why, l->len)))
		return false;
	ok = !x4_iget(v, X4_ROOT_INO, NULL, &root);
	for (unsigned n = 0; n < DIO_FILES && ok; n++) {
		char name[8];
		unsigned len = (unsigned)snprintf(name, sizeof(name), "f%u", n);

		if (x4_lookup(root, name, len, &i)) {
			snprintf(l->why, l->len, "%s: is gone", name);
			ok = false;
			break;
		}
		ok = fn(l, i, n, arg);
		x4_iput(i);
	}
	x4_iput(root);
	x4_vol_abandon(v);
	return ok;
}

static bool check_file(struct look *l, struct x4_inode *i, unsigned file, void *arg)
{
	return file_ok(l, i, file, *(unsigned *)arg);
}

bool crash_dio_check(struct crash_run *r, struct fake_dev *c, unsigned k, char *why, size_t len)
{
	struct look l = { .r = r, .c = c, .why = why, .len = len };

	return each_file(&l, check_file, &k);
}

static bool digest_file(struct look *l, struct x4_inode *i, unsigned file, void *arg)
{
	static uint8_t buf[4096];
	uint64_t size = x4_inode_size(i), *sum = arg;
	uint32_t crc = fdio_crc32c(~file, &size, sizeof(size));

	if (size > (uint64_t)DIO_UNITS * DIO_UNIT || x4_map_load(i)) {
		snprintf(l->why, l->len, "f%u: cannot be read", file);
		return false;
	}
	for (uint32_t b = 0; (uint64_t)b * l->r->bs < size; b++) {
		if (!read_block(l, i, b, buf)) {
			snprintf(l->why, l->len, "f%u: a block cannot be looked up", file);
			return false;
		}
		crc = fdio_crc32c(crc, buf, FDIO_MIN(l->r->bs, size - (uint64_t)b * l->r->bs));
	}
	*sum = *sum * 31 + crc;
	return true;
}

bool crash_dio_digest(struct crash_run *r, struct fake_dev *c, uint64_t *sum, char *why, size_t len)
{
	struct look l = { .r = r, .c = c, .why = why, .len = len };

	*sum = 0;
	return each_file(&l, digest_file, sum);
}
