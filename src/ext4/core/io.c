/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The bridge between libext2fs and struct dev: an io_manager that reads with dev_read and refuses
 * to write. libext2fs opens and validates the file system (superblock, descriptors, geometry,
 * checksum seeds) and computes; every change goes through the journal, so a write that arrives here
 * is a mistake in fusedio and fails with EXT2_ET_RO_FILSYS.
 *
 * Runs on the thread that opens the volume. ext2fs_open2 hands only a name to io_open, so a
 * thread-local variable carries the device during the call; the channel keeps it afterwards. Reads
 * share nothing and may block. Errors are codes of libext2fs.
 */
#include "ext4/core/core.h"
#include "ext4/core/structs.h"
#include "ext4/core/superblock.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static __thread struct dev *io_dev;

static errcode_t io_open(const char *name, int flags, io_channel *ret);
static errcode_t io_close(io_channel c);
static errcode_t io_set_blksize(io_channel c, int size);
static errcode_t io_read64(io_channel c, unsigned long long blk, int count, void *data);
static errcode_t io_read(io_channel c, unsigned long blk, int count, void *data)
{
	return io_read64(c, blk, count, data);
}
static errcode_t io_write64(io_channel c, unsigned long long blk, int count, const void *data)
{
	return EXT2_ET_RO_FILSYS;
}
static errcode_t io_write(io_channel c, unsigned long blk, int count, const void *data)
{
	return EXT2_ET_RO_FILSYS;
}
static errcode_t io_flush(io_channel c) { return 0; }
static errcode_t io_set_option(io_channel c, const char *option, const char *arg)
{
	return strcmp(option, "cache") ? EXT2_ET_INVALID_ARGUMENT : 0;
}

static struct struct_io_manager io_bridge = {
	.magic = EXT2_ET_MAGIC_IO_MANAGER,
	.name = "device bridge",
	.open = io_open,
	.close = io_close,
	.set_blksize = io_set_blksize,
	.read_blk = io_read,
	.write_blk = io_write,
	.flush = io_flush,
	.set_option = io_set_option,
	.read_blk64 = io_read64,
	.write_blk64 = io_write64,
};

static errcode_t io_open(const char *name, int flags, io_channel *ret)
{
	io_channel c;

	if (!io_dev)
		return EXT2_ET_BAD_DEVICE_NAME;
	if (flags & IO_FLAG_RW)
		return EXT2_ET_RO_FILSYS;
	c = calloc(1, sizeof(*c));
	if (!c)
		return EXT2_ET_NO_MEMORY;
	c->magic = EXT2_ET_MAGIC_IO_CHANNEL;
	c->manager = &io_bridge;
	c->name = strdup(name);
	c->block_size = 1024;
	c->refcount = 1;
	c->private_data = io_dev;
	if (!c->name) {
		free(c);
		return EXT2_ET_NO_MEMORY;
	}
	*ret = c;
	return 0;
}

static errcode_t io_close(io_channel c)
{
	if (--c->refcount > 0)
		return 0;
	free(c->name);
	free(c);
	return 0;
}

static errcode_t io_set_blksize(io_channel c, int size)
{
	c->block_size = size;
	return 0;
}

/* A negative count is a length in bytes. */
static errcode_t io_read64(io_channel c, unsigned long long blk, int count, void *data)
{
	struct dev *dev = c->private_data;
	uint64_t len, off;

	if (count < 0)
		len = (uint64_t)-(int64_t)count;
	else
		len = (uint64_t)count * (unsigned)c->block_size;
	if (__builtin_mul_overflow(blk, (unsigned long long)c->block_size, &off) ||
	    off > dev->caps.size_bytes || len > dev->caps.size_bytes - off)
		return EXT2_ET_SHORT_READ;
	return dev_read(dev, data, len, off) ? EXT2_ET_SHORT_READ : 0;
}

/* libext2fs prints some errors itself; this hook sends them to the log, at a limited rate. */
static void io_com_err(const char *whoami, long err, const char *fmt, va_list ap)
{
	char line[160];

	vsnprintf(line, sizeof(line), fmt, ap);
	log_ratelimited(FDIO_LOG_WARN, "libext2fs: %s: %s (%ld)", whoami ? whoami : "", line, err);
}

long ext4_io_open_fs(struct dev *dev, ext2_filsys *ret)
{
	int flags = EXT2_FLAG_64BITS | EXT2_FLAG_SKIP_MMP | EXT2_FLAG_SOFTSUPP_FEATURES;
	long err;

	initialize_ext2_error_table(); /* error_message needs it */
	set_com_err_hook(io_com_err);
	io_dev = dev;
	err = ext2fs_open2(dev->name, NULL, flags, 0, 0, &io_bridge, ret);
	io_dev = NULL;
	return err;
}
