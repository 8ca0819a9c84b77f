/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device in memory that is as fast as memory: no volatile cache, no faults, everything completes
 * inside the call. The callers of dev_read and dev_write may ask for bytes outside of the device,
 * which these refuse; a request that reaches this file out of range or unaligned is a failure. Any
 * thread may call; the program never lets two requests write the same bytes at once.
 */
#include "fuzz/fuzz.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>

/*
 * Replaces the C library's getrandom, so that a case does the same each time. The program needs
 * different numbers, not secret ones.
 */
ssize_t getrandom(void *buf, size_t len, unsigned flags)
{
	static uint64_t state;
	uint8_t *p = buf;

	(void)flags;
	for (size_t k = 0; k < len; k++)
		p[k] = (uint8_t)((__atomic_add_fetch(&state, 0x9e3779b97f4a7c15ULL,
						     __ATOMIC_RELAXED)) >>
				 40);
	return (ssize_t)len;
}

static struct fuzz_dev *of(struct dev *dev) { return container_of(dev, struct fuzz_dev, dev); }

static void check(struct fuzz_dev *dev, uint64_t off, uint64_t len)
{
	MUST(off <= dev->size && len <= dev->size - off);
	MUST(fdio_is_aligned(off | len, dev->dev.caps.sector_bytes));
}

void fuzz_dev_touch(struct fuzz_dev *dev, uint64_t off, uint64_t len)
{
	for (uint64_t p = off / 4096; len && p <= (off + len - 1) / 4096; p++)
		__atomic_store_n(&dev->touched[p], 1, __ATOMIC_RELAXED);
}

static int mem_read(struct dev *dev, void *buf, size_t len, uint64_t off)
{
	struct fuzz_dev *f = of(dev);

	check(f, off, len);
	memcpy(buf, f->img + off, len);
	return 0;
}

static int mem_write(struct dev *dev, const void *buf, size_t len, uint64_t off, unsigned flags)
{
	struct fuzz_dev *f = of(dev);

	(void)flags;
	check(f, off, len);
	fuzz_dev_touch(f, off, len);
	memcpy(f->img + off, buf, len);
	__atomic_add_fetch(&f->writes, 1, __ATOMIC_RELAXED);
	return 0;
}

static void mem_submit(struct dev *dev, struct dev_io *io)
{
	if (io->kind == DEV_READ)
		mem_read(dev, io->buf, io->len, io->off);
	else
		mem_write(dev, io->buf, io->len, io->off, io->flags);
	io->result = (int)io->len;
	io->done(io);
}

static int mem_flush(struct dev *dev)
{
	(void)dev;
	return 0;
}

static int mem_discard(struct dev *dev, uint64_t off, uint64_t len)
{
	struct fuzz_dev *f = of(dev);

	check(f, off, len);
	fuzz_dev_touch(f, off, len);
	memset(f->img + off, 0, len);
	return 0;
}

static void mem_now(struct dev *dev, struct timespec *ts)
{
	(void)dev;
	*ts = (struct timespec){ .tv_sec = 1700000000 };
}

static void mem_close(struct dev *dev)
{
	struct fuzz_dev *f = of(dev);

	dev_fini(dev);
	munmap(f->img, f->size);
	free(f->touched);
	free(f);
}

static const struct dev_ops mem_ops = {
	.name = "memory",
	.submit = mem_submit,
	.read = mem_read,
	.write = mem_write,
	.flush = mem_flush,
	.discard = mem_discard,
	.now = mem_now,
	.close = mem_close,
};

struct fuzz_dev *fuzz_dev_new(uint8_t *img, const uint8_t *base, uint64_t size)
{
	struct fuzz_dev *dev = calloc(1, sizeof(*dev));

	MUST(dev && !dev_init(&dev->dev, &mem_ops, "image"));
	dev->dev.caps = (struct dev_caps){ .size_bytes = size,
					   .sector_bytes = 512,
					   .physical_bytes = 512,
					   .max_io_bytes = 1 << 20,
					   .mem_align = 1,
					   .fua = true,
					   .discard = true,
					   .is_block = true };
	dev->img = img;
	dev->base = base;
	dev->size = size;
	dev->touched = calloc(1, size / 4096 + 1);
	MUST(dev->touched);
	return dev;
}

void fuzz_dev_free(struct fuzz_dev *dev) { mem_close(&dev->dev); }

void fuzz_dev_reset(struct fuzz_dev *dev)
{
	for (uint64_t p = 0; p < dev->size / 4096; p++)
		if (dev->touched[p]) {
			memcpy(dev->img + p * 4096, dev->base + p * 4096, 4096);
			dev->touched[p] = 0;
		}
	dev->reads = dev->writes = 0;
}
