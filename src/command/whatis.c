/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Explaining what was given instead of an ext4 file system: an image of another format, a
 * compressed one, something that libblkid knows, an ext4 file system whose superblock is gone but
 * has backups, zeroes, or something unknown. A wrong guess must do no harm, so mke2fs is mentioned
 * only for a device that reads as zeroes.
 *
 * Main thread, before the mount. The number of reads is bounded, and each is small; a read that
 * fails counts as "nothing found".
 */
#include "command/whatis.h"

#include "base/bytes.h"
#include "command/superblock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define HEAD 512u   /* bytes read to recognise a format */
#define PROBES 512u /* pieces, spread over the device, that are read to call it empty */
#define PIECE 2048u

/* A file of this format has the len bytes of magic at offset off. way_out: advice to the user. */
struct format {
	unsigned off, len;
	const char *magic, *name, *way_out;
};

static const struct format formats[] = {
	{ 0, 4, "QFI\xfb", "a qcow2 image",
	  "qemu-img convert -O raw makes a raw one, qemu-nbd --connect a device" },
	{ 0, 4, "\x3a\xff\x26\xed", "an Android sparse image", "simg2img makes a raw one" },
	{ 0, 2, "\x1f\x8b", "compressed by gzip", "unpack it first: gunzip" },
	{ 1, 5, "7zXZ\0", "compressed by xz", "unpack it first: xz -d" },
	{ 0, 4, "\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it first: zstd -d" },
	{ 4, 6, "1AY&SY", "compressed by bzip2", "unpack it first: bunzip2" },
	{ 0, 4, "\x04\x22\x4d\x18", "compressed by lz4", "unpack it first: lz4 -d" },
	{ 0, 4, "LZIP", "compressed by lzip", "unpack it first: lzip -d" },
	{ 0, 6, "7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first" },
	{ 0, 4, "PK\3\4", "a zip archive", "unpack it first" },
	{ 257, 5, "ustar", "a tar archive", "unpack it first" },
	{ 0, 4, "KDMV", "a VMDK image", "qemu-img convert -O raw makes a raw one" },
	{ 0, 21, "# Disk DescriptorFile", "the description of a VMDK image",
	  "name the file with the data, or qemu-img convert -O raw" },
	{ 0x40, 4, "\x7f\x10\xda\xbe", "a VDI image", "qemu-img convert -O raw makes a raw one" },
	{ 0, 8, "vhdxfile", "a VHDX image", "qemu-img convert -O raw makes a raw one" },
	{ 0, 8, "conectix", "a VHD image", "qemu-img convert -O raw makes a raw one" },
	{ 0, 15, "partclone-image", "an image of partclone",
	  "restore it first: partclone.restore" },
	{ 0, 3, "EVF", "an image of forensic tools (EWF)", "ewfmount makes a raw one" },
};

/* Advice for a type that libblkid reports. */
static const struct { const char *type, *way_out; } hints[] = {
	{ "crypto_LUKS", "open it with cryptsetup, and name /dev/mapper/..." },
	{ "LVM2_member", "name one of its logical volumes: see lvs(8)" },
	{ "linux_raid_member", "name the array: see /proc/mdstat" },
	{ "DM_integrity", "open it with integritysetup, and name /dev/mapper/..." },
	{ "swap", "it is swap space: name another device" },
};

static bool read_at(int fd, void *buf, size_t len, uint64_t off)
{
	return off <= INT64_MAX - len && pread(fd, buf, len, (off_t)off) == (ssize_t)len;
}

static const struct format *format_of(int fd)
{
	uint8_t head[HEAD];
	ssize_t n = pread(fd, head, sizeof(head), 0);

	for (unsigned k = 0; n > 0 && k < ARRAY_SIZE(formats); k++)
		if (formats[k].off + formats[k].len <= (size_t)n &&
		    !memcmp(head + formats[k].off, formats[k].magic, formats[k].len))
			return &formats[k];
	return NULL;
}

static bool is_backup(const uint8_t *super, unsigned log_block_size, unsigned group)
{
	return fdio_get_le16(super, SUPER_MAGIC) == SUPER_MAGIC_VALUE &&
	       fdio_get_le16(super, SUPER_BLOCK_GROUP_NR) == group &&
	       fdio_get_le32(super, SUPER_LOG_BLOCK_SIZE) == log_block_size;
}

/*
 * Looks for a backup of the superblock, for each block size, in the groups that have one with
 * sparse_super. Assumes groups of the usual size: as many blocks as a block has bits.
 */
static bool find_backup(int fd, uint64_t size, uint64_t *ret_block, unsigned *ret_block_size)
{
	static const unsigned groups[] = { 1, 3, 5, 7, 9, 25, 27, 49, 81 };
	uint8_t super[SUPER_SIZE];

	for (unsigned log = 0; log <= SUPER_LOG_BLOCK_SIZE_MAX; log++)
		for (unsigned n = 0; n < ARRAY_SIZE(groups); n++) {
			unsigned block_size = 1024u << log;
			/* With blocks of 1024 bytes group 0 begins with block 1. */
			uint64_t block = (uint64_t)groups[n] * block_size * 8 + (log == 0);

			if (block * block_size + sizeof(super) > size)
				break;
			if (!read_at(fd, super, sizeof(super), block * block_size) ||
			    !is_backup(super, log, groups[n]))
				continue;
			*ret_block = block;
			*ret_block_size = block_size;
			return true;
		}
	return false;
}

static bool zero_at(int fd, uint64_t off)
{
	uint8_t buf[PIECE];

	if (!read_at(fd, buf, sizeof(buf), off))
		return false;
	return !buf[0] && !memcmp(buf, buf + 1, sizeof(buf) - 1);
}

/* True if the first and the last MiB, and PROBES pieces spread over the device, are zeroes. */
static bool looks_empty(int fd, uint64_t size)
{
	uint64_t step = size / PROBES / PIECE * PIECE;

	if (size < PIECE)
		return false;
	for (uint64_t off = 0; off + PIECE <= size && off < 1 << 20; off += PIECE)
		if (!zero_at(fd, off) || !zero_at(fd, (size - PIECE - off) / PIECE * PIECE))
			return false;
	for (uint64_t off = 0; step && off + PIECE <= size; off += step)
		if (!zero_at(fd, off))
			return false;
	return true;
}

static void explain_type(const char *path, const char *type, struct fdio_reason *reason)
{
	const char *way_out = "name another device";

	for (unsigned n = 0; n < ARRAY_SIZE(hints); n++)
		if (!strcmp(hints[n].type, type))
			way_out = hints[n].way_out;
	fdio_reason_set(reason, "%s does not hold an ext4 file system but %s: %s", path, type,
			way_out);
}

static void explain_partitions(const char *path, const char *pttype, struct fdio_reason *reason)
{
	fdio_reason_set(reason,
			"%s does not hold an ext4 file system but a partition table (%s): name one "
			"of its partitions (losetup -P makes devices of an image's)",
			path, pttype);
}

bool whatis_explain_format(int fd, const char *path, struct fdio_reason *reason)
{
	const struct format *format = format_of(fd);

	if (format)
		fdio_reason_set(reason, "%s is not an ext4 file system as it is: it is %s; %s",
				path, format->name, format->way_out);
	return format;
}

void whatis_explain(int fd, const char *path, const char *type, const char *pttype,
		    struct fdio_reason *reason)
{
	off_t end = lseek(fd, 0, SEEK_END);
	uint64_t size = end > 0 ? (uint64_t)end : 0, block;
	unsigned block_size;

	if (whatis_explain_format(fd, path, reason))
		return;
	if (*type)
		explain_type(path, type, reason);
	else if (*pttype)
		explain_partitions(path, pttype, reason);
	else if (find_backup(fd, size, &block, &block_size))
		fdio_reason_set(reason,
				"%s: the ext4 superblock at its beginning is gone, but block "
				"%" PRIu64 " has a backup: e2fsck -b %" PRIu64
				" -B %u %s puts it back",
				path, block, block, block_size, path);
	else if (looks_empty(fd, size))
		fdio_reason_set(reason,
				"%s does not hold an ext4 file system: it is zeroes wherever it "
				"was looked at; if nothing is lost by it, mke2fs -t ext4 makes one",
				path);
	else
		fdio_reason_set(reason,
				"%s does not hold an ext4 file system, nor anything else that is "
				"known, but it is not empty: is it the right device, and all of "
				"it?",
				path);
}
