/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The jbd2 log format as bytes: offsets, magic numbers, and sizes that follow from the features.
 * Used by the writer (log.c, commit_write.c), the replay (replay.c, replay_log.c) and the tests.
 * Numbers are big-endian, read and written with base/bytes.h; those of fast commits are
 * little-endian. No state, any thread, cannot fail.
 */
#ifndef FDIO_JOURNAL_FORMAT_H
#define FDIO_JOURNAL_FORMAT_H

#include "base/bytes.h"
#include "base/util.h"

#define JOURNAL_MAGIC 0xc03b3998u

enum {
	JOURNAL_BLOCK_DESCRIPTOR = 1,
	JOURNAL_BLOCK_COMMIT = 2,
	JOURNAL_BLOCK_SUPERBLOCK_V1 = 3,
	JOURNAL_BLOCK_SUPERBLOCK_V2 = 4,
	JOURNAL_BLOCK_REVOKE = 5
};

/* Every log block that is not an image starts with magic, type, tid (be32 each). */
enum {
	JOURNAL_HEADER_MAGIC = 0,
	JOURNAL_HEADER_TYPE = 4,
	JOURNAL_HEADER_TID = 8,
	JOURNAL_HEADER_BYTES = 12
};

/* Journal superblock, 1024 bytes */
enum {
	JOURNAL_SB_BLOCKSIZE = 0x0c,
	JOURNAL_SB_MAXLEN = 0x10,
	JOURNAL_SB_FIRST = 0x14,
	JOURNAL_SB_SEQUENCE = 0x18,
	JOURNAL_SB_START = 0x1c,
	JOURNAL_SB_ERRNO = 0x20,
	JOURNAL_SB_COMPAT = 0x24,
	JOURNAL_SB_INCOMPAT = 0x28,
	JOURNAL_SB_ROCOMPAT = 0x2c,
	JOURNAL_SB_UUID = 0x30,
	JOURNAL_SB_NR_USERS = 0x40,
	JOURNAL_SB_CHECKSUM_TYPE = 0x50,
	JOURNAL_SB_FAST_COMMIT_BLOCKS = 0x54,
	JOURNAL_SB_CHECKSUM = 0xfc,
	JOURNAL_SB_BYTES = 1024,
};
enum { JOURNAL_CHECKSUM_CRC32C = 4 };

enum { JOURNAL_COMPAT_CHECKSUM = 1 };
enum {
	JOURNAL_INCOMPAT_REVOKE = 0x01,
	JOURNAL_INCOMPAT_64BIT = 0x02,
	JOURNAL_INCOMPAT_ASYNC = 0x04,
	JOURNAL_INCOMPAT_CSUM_V2 = 0x08,
	JOURNAL_INCOMPAT_CSUM_V3 = 0x10,
	JOURNAL_INCOMPAT_FAST_COMMIT = 0x20,
	JOURNAL_INCOMPAT_KNOWN = 0x3f,
};

/* Flags of a tag. */
enum {
	JOURNAL_TAG_ESCAPE = 1,
	JOURNAL_TAG_SAME_UUID = 2,
	JOURNAL_TAG_DELETED = 4,
	JOURNAL_TAG_LAST = 8
};
enum {
	JOURNAL_UUID_BYTES = 16,
	JOURNAL_TAIL_BYTES = 4,
	JOURNAL_REVOKE_HEADER_BYTES = 16,
	JOURNAL_REVOKE_COUNT = 12
};

/*
 * Fast commits: their blocks follow the log; the first block of a series begins with a HEAD tag,
 * which has the id of the transaction that the series follows. All little-endian.
 */
enum {
	JOURNAL_FAST_COMMIT_BLOCKS_DEFAULT = 256,
	JOURNAL_FAST_COMMIT_TAG_HEAD = 9,
	JOURNAL_FAST_COMMIT_TID = 8
};

/* Commit block */
enum {
	JOURNAL_COMMIT_CHECKSUM = 0x10,
	JOURNAL_COMMIT_SECONDS = 0x30,
	JOURNAL_COMMIT_NANOSECONDS = 0x38
};

static inline void journal_format_put_header(void *p, uint32_t type, uint32_t tid)
{
	fdio_put_be32(p, JOURNAL_HEADER_MAGIC, JOURNAL_MAGIC);
	fdio_put_be32(p, JOURNAL_HEADER_TYPE, type);
	fdio_put_be32(p, JOURNAL_HEADER_TID, tid);
}

/* Size of one tag in a descriptor, without the UUID that follows the first. */
static inline unsigned journal_format_tag_bytes(uint32_t incompat)
{
	unsigned n = 8;

	if (incompat & JOURNAL_INCOMPAT_CSUM_V3)
		return 16;
	if (incompat & JOURNAL_INCOMPAT_CSUM_V2)
		n += 2;
	if (incompat & JOURNAL_INCOMPAT_64BIT)
		n += 4;
	return n;
}

static inline bool journal_format_has_checksums(uint32_t incompat)
{
	return incompat & (JOURNAL_INCOMPAT_CSUM_V2 | JOURNAL_INCOMPAT_CSUM_V3);
}

#endif
