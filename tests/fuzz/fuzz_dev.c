/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device in memory that is as fast as memory: no volatile cache, no faults, everything completes inline. What lies outside
 * of it may be asked for through dev_read and dev_write, which refuse; a request that reaches it out of range is a finding.
 */
#include "fuzz/fuzz.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>

/* In place of the C library's: a case is the same each time. The program wants nothing secret, only variety. */
ssize_t getrandom(void *buf, size_t len, unsigned flags)
{
	static uint64_t state;
	uint8_t *p = buf;

	(void)flags;
	for (size_t k = 0; k < len; k++)
		p[k] = (uint8_t)((__atomic_add_fetch(&state, 0x9e3779b97f4a7c15ULL, __ATOMIC_RELAXED)) >> 40);
	return (ssize_t)len;
}

static struct fuzz_dev *of(struct dev *d) { return container_of(d, struct fuzz_dev, dev); }

static void check(struct fuzz_dev *f, uint64_t off, uint64_t len)
{
	MUST(off <= f->size && len <= f->size - off);
	MUST(fdio_is_aligned(off | len, f->dev.caps.lbs));
}

void fuzz_dev_touch(struct fuzz_dev *f, uint64_t off, uint64_t len)
{
	for (uint64_t p = off / 4096; len && p <= (off + len - 1) / 4096; p++)
		__atomic_store_n(&f->touched[p], 1, __ATOMIC_RELAXED);
}

static int mem_read(struct dev *d, void *buf, size_t len, uint64_t off)
{
	struct fuzz_dev *f = of(d);

	check(f, off, len);
	memcpy(buf, f->img + off, len);
	return 0;
}

static int mem_write(struct dev *d, const void *buf, size_t len, uint64_t off, unsigned flags)
{
	struct fuzz_dev *f = of(d);

	(void)flags;
	check(f, off, len);
	fuzz_dev_touch(f, off, len);
	memcpy(f->img + off, buf, len);
	__atomic_add_fetch(&f->writes, 1, __ATOMIC_RELAXED);
	return 0;
}

static void mem_submit(struct dev *d, struct dev_io *io)
{
	if (io->kind == DEV_READ)
		mem_read(d, io->buf, io->len, io->off);
	else
		mem_write(d, io->buf, io->len, io->off, io->flags);
	io->result = (int)io->len;
	io->done(io);
}

static int mem_flush(struct dev *d)
{
	(void)d;
	return 0;
}

static int mem_discard(struct dev *d, uint64_t off, uint64_t len)
{
	struct fuzz_dev *f = of(d);

	check(f, off, len);
	fuzz_dev_touch(f, off, len);
	memset(f->img + off, 0, len);
	return 0;
}

static void mem_now(struct dev *d, struct timespec *ts)
{
	(void)d;
	*ts = (struct timespec){ .tv_sec = 1700000000 };
}

static void mem_close(struct dev *d)
{
	struct fuzz_dev *f = of(d);

	dev_fini(d);
	munmap(f->img, f->size);
	free(f->touched);
	free(f);
}

static const struct dev_ops mem_ops = {
	.name = "memory", .submit = mem_submit, .read = mem_read, .write = mem_write, .flush = mem_flush, .discard = mem_discard,
	.now = mem_now, .close = mem_close,
};

struct fuzz_dev *fuzz_dev_new(uint8_t *img, const uint8_t *base, uint64_t size)
{
	struct fuzz_dev *f = calloc(1, sizeof(*f));

	MUST(f && !dev_init(&f->dev, &mem_ops, "image"));
	f->dev.caps = (struct dev_caps){ .size_bytes = size, .lbs = 512, .pbs = 512, .max_io_bytes = 1 << 20, .mem_align = 1,
		.fua = true, .discard = true, .is_block = true };
	f->img = img;
	f->base = base;
	f->size = size;
	f->touched = calloc(1, size / 4096 + 1);
	MUST(f->touched);
	return f;
}

void fuzz_dev_free(struct fuzz_dev *f) { mem_close(&f->dev); }

void fuzz_dev_reset(struct fuzz_dev *f)
{
	for (uint64_t p = 0; p < f->size / 4096; p++)
		if (f->touched[p]) {
			memcpy(f->img + p * 4096, f->base + p * 4096, 4096);
			f->touched[p] = 0;
		}
	f->reads = f->writes = 0;
}
