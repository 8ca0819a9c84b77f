/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * <linux/fuse.h>, and definitions that an old one lacks for the protocol of newer kernels: Debian
 * 12 ships protocol 7.38, and the values below are the kernel's ABI of 7.39 to 7.45. No other file
 * has such definitions. Constants and layouts only; layouts are asserted.
 */
#ifndef FDIO_MESSAGE_FUSE_COMPAT_H
#define FDIO_MESSAGE_FUSE_COMPAT_H

#include <linux/fuse.h>
#include <stdint.h>
#include <string.h>

/* The newest minor version of the protocol that this program knows. */
#define MESSAGE_PROTOCOL_MINOR 45u

/* INIT flags above bit 31 travel in flags2, shifted down by 32. */
#define MESSAGE_INIT_EXT (1ULL << 30)
#define MESSAGE_CREATE_SUPP_GROUP (1ULL << 34)
#define MESSAGE_DIRECT_IO_ALLOW_MMAP (1ULL << 36)
#define MESSAGE_NO_EXPORT_SUPPORT (1ULL << 38)
#define MESSAGE_ALLOW_IDMAP (1ULL << 40)
#define MESSAGE_OVER_IO_URING (1ULL << 41)
#define MESSAGE_REQUEST_TIMEOUT (1ULL << 42)

#ifndef FOPEN_PARALLEL_DIRECT_WRITES
#define FOPEN_PARALLEL_DIRECT_WRITES (1 << 6)
#endif

/*
 * The user and group in the header of a request that creates nothing, with MESSAGE_ALLOW_IDMAP: the
 * kernel does not say who the requester is.
 */
#define MESSAGE_UNKNOWN_ID UINT32_MAX

/* fuse_init_out.request_timeout of 7.43, in seconds, with MESSAGE_REQUEST_TIMEOUT. */
static inline void message_set_request_timeout(struct fuse_init_out *out, uint16_t seconds)
{
	memcpy((char *)out + 40, &seconds, sizeof(seconds));
}
_Static_assert(sizeof(struct fuse_init_out) == 64, "the kernel's layout");

/* 7.39 */
#if FUSE_KERNEL_MINOR_VERSION < 39
#define FUSE_STATX 52
struct fuse_sx_time {
	int64_t tv_sec;
	uint32_t tv_nsec;
	int32_t reserved;
};
struct fuse_statx {
	uint32_t mask, blksize;
	uint64_t attributes;
	uint32_t nlink, uid, gid;
	uint16_t mode, spare0;
	uint64_t ino, size, blocks, attributes_mask;
	struct fuse_sx_time atime, btime, ctime, mtime;
	uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
	uint64_t spare2[14];
};
struct fuse_statx_in {
	uint32_t getattr_flags, reserved;
	uint64_t fh;
	uint32_t sx_flags, sx_mask;
};
struct fuse_statx_out {
	uint64_t attr_valid;
	uint32_t attr_valid_nsec, flags;
	uint64_t spare[2];
	struct fuse_statx stat;
};
#endif

#if FUSE_KERNEL_MINOR_VERSION < 38
#error "linux/fuse.h is older than protocol 7.38: install the user-space headers of Linux 6.1"
#endif

/*
 * fuse_ext_header.type of the supplementary groups in requests that create: the fuse_ext_header is
 * followed by a count and that many group IDs, 32 bits each.
 */
#define MESSAGE_EXT_GROUPS 32

/* Bytes of extensions at the end of the message. The header counts them in units of 8. */
static inline uint32_t message_total_extlen(const struct fuse_in_header *header)
{
	return (uint32_t)header->total_extlen * 8;
}

/* FUSE-over-io_uring, 7.42 */
#if FUSE_KERNEL_MINOR_VERSION < 42
#define FUSE_URING_IN_OUT_HEADER_SZ 128
#define FUSE_URING_OP_IN_OUT_SZ 128
struct fuse_uring_ent_in_out {
	uint64_t flags;
	uint64_t commit_id;
	uint32_t payload_sz;
	uint32_t padding;
	uint64_t reserved;
};
struct fuse_uring_req_header {
	char in_out[FUSE_URING_IN_OUT_HEADER_SZ];
	char op_in[FUSE_URING_OP_IN_OUT_SZ];
	struct fuse_uring_ent_in_out ring_ent_in_out;
};
enum fuse_uring_cmd {
	FUSE_IO_URING_CMD_INVALID = 0,
	FUSE_IO_URING_CMD_REGISTER = 1,
	FUSE_IO_URING_CMD_COMMIT_AND_FETCH = 2,
};
struct fuse_uring_cmd_req {
	uint64_t flags;
	uint64_t commit_id;
	uint16_t qid;
	uint8_t padding[6];
};
#endif

_Static_assert(sizeof(struct fuse_uring_req_header) == 288, "the kernel's layout");
_Static_assert(sizeof(struct fuse_in_header) == 40, "the kernel's layout");

#endif
