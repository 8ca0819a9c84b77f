/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The jbd2 log format as bytes: offsets, magic numbers and what follows from them. Used by the
 * writer (log.c, commit_write.c), the replay (replay.c, replay_log.c) and the tests. Numbers are
 * big-endian, read and written with base/bytes.h; those of fast commits are little-endian. No state,
 * any thread, cannot fail.
 */
#ifndef FDIO_JOURNAL_FORMAT_H
#define FDIO_JOURNAL_FORMAT_H

#include "base/bytes.h"
#include "base/util.h"

#define JF_MAGIC 0xc03b3998u

enum { JF_DESCRIPTOR = 1, JF_COMMIT = 2, JF_SB_V1 = 3, JF_SB_V2 = 4, JF_REVOKE = 5 };

/* Every log block that is not an image starts with magic, type, tid (be32 each). */
enum { JF_H_MAGIC = 0, JF_H_TYPE = 4, JF_H_TID = 8, JF_H_BYTES = 12 };

/* Journal superblock, 1024 bytes */
enum {
	JF_SB_BLOCKSIZE = 0x0c, JF_SB_MAXLEN = 0x10, JF_SB_FIRST = 0x14, JF_SB_SEQUENCE = 0x18, JF_SB_START = 0x1c,
	JF_SB_ERRNO = 0x20, JF_SB_COMPAT = 0x24, JF_SB_INCOMPAT = 0x28, JF_SB_ROCOMPAT = 0x2c, JF_SB_UUID = 0x30,
	JF_SB_NR_USERS = 0x40, JF_SB_CSUM_TYPE = 0x50, JF_SB_NUM_FC = 0x54, JF_SB_CSUM = 0xfc, JF_SB_BYTES = 1024,
};
enum { JF_CSUM_CRC32C = 4 };

enum { JF_COMPAT_CHECKSUM = 1 };
enum {
	JF_INCOMPAT_REVOKE = 0x01, JF_INCOMPAT_64BIT = 0x02, JF_INCOMPAT_ASYNC = 0x04, JF_INCOMPAT_CSUM_V2 = 0x08,
	JF_INCOMPAT_CSUM_V3 = 0x10, JF_INCOMPAT_FAST_COMMIT = 0x20, JF_INCOMPAT_KNOWN = 0x3f,
};

/* Flags of a tag. */
enum { JF_TAG_ESCAPE = 1, JF_TAG_SAME_UUID = 2, JF_TAG_DELETED = 4, JF_TAG_LAST = 8 };
enum { JF_UUID_BYTES = 16, JF_TAIL_BYTES = 4, JF_REVOKE_HEADER = 16, JF_REVOKE_COUNT = 12 };

/* Fast commits: their blocks follow the log; the first of a series begins with this tag (all little-endian) and an id. */
enum { JF_FC_BLOCKS_DEFAULT = 256, JF_FC_TAG_HEAD = 9, JF_FC_TID = 8 };

/* Commit block */
enum { JF_C_CSUM = 0x10, JF_C_SEC = 0x30, JF_C_NSEC = 0x38 };

static inline void jf_put_header(void *p, uint32_t type, uint32_t tid)
{
	fdio_put_be32(p, JF_H_MAGIC, JF_MAGIC);
	fdio_put_be32(p, JF_H_TYPE, type);
	fdio_put_be32(p, JF_H_TID, tid);
}

/* Size of one tag in a descriptor, without the UUID that follows the first. */
static inline unsigned jf_tag_bytes(uint32_t incompat)
{
	unsigned n = 8;

	if (incompat & JF_INCOMPAT_CSUM_V3)
		return 16;
	if (incompat & JF_INCOMPAT_CSUM_V2)
		n += 2;
	if (incompat & JF_INCOMPAT_64BIT)
		n += 4;
	return n;
}

static inline bool jf_has_csum(uint32_t incompat)
{
	return incompat & (JF_INCOMPAT_CSUM_V2 | JF_INCOMPAT_CSUM_V3);
}

#endif
