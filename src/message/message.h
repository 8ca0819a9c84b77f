/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * FUSE messages: decode, validate, encode. Pure functions on memory: no I/O, no locks, no threads,
 * so they can be fuzzed. The kernel is not trusted here: what does not hold together gives an
 * error, never a wild read. Struct definitions come from <linux/fuse.h>; fuse_compat.h has what an
 * old header lacks.
 */
#ifndef FDIO_MESSAGE_H
#define FDIO_MESSAGE_H

#include "base/util.h"
#include "message/fuse_compat.h"

#define MESSAGE_MAX_PAGES 256u
/* As many bytes as pages, so that 1 MiB of page-aligned memory is one request. */
#define MESSAGE_MAX_WRITE (MESSAGE_MAX_PAGES * 4096u)
/* Bytes before WRITE data in a /dev/fuse message: fuse_in_header and fuse_write_in. */
#define MESSAGE_WRITE_HDR 80u

struct message_in {
	struct fuse_in_header header;
	/*
	 * fixed argument of the opcode, at least its full size (zero-extended copy for old, shorter
	 * forms); NULL if none
	 */
	const void *arg;
	const uint8_t *rest;       /* what follows it */
	uint32_t rest_len;
	/*
	 * Names: set for the opcodes that carry them; NUL-terminated inside rest, length without
	 * NUL, never empty, no '/'.
	 */
	const char *name, *name2;
	uint32_t name_len, name2_len;
	/* SETXATTR value, WRITE data */
	const uint8_t *data;
	uint32_t data_len;
	uint8_t argbuf[128] __attribute__((aligned(8))); /* copy for arg */
	uint32_t nr_groups;        /* supplementary groups extension */
	uint32_t groups[32];
};

const char *message_opcode_name(uint32_t opcode); /* "LOOKUP"; "?" if unknown */
/*
 * A whole /dev/fuse message of len bytes (header, argument, rest contiguous). 0, or the -errno to
 * answer with (in->h is filled if at least a header was there, else it is zero, -EBADMSG, and
 * nothing can be answered).
 */
int message_decode(const void *msg, size_t len, struct message_in *in);
/* The ring's form: header, fixed argument area (128 bytes) and payload apart. */
int message_decode_parts(const struct fuse_in_header *header, const void *arg, const void *rest,
			 uint32_t rest_len, struct message_in *in);

/* READDIR / READDIRPLUS: appends one entry at *off if it fits in cap; false if not. */
bool message_add_dirent(uint8_t *buf, uint32_t cap, uint32_t *off, uint64_t ino, uint64_t next_off,
			uint32_t type, const char *name, uint32_t name_len);
bool message_add_direntplus(uint8_t *buf, uint32_t cap, uint32_t *off,
			    const struct fuse_entry_out *entry, uint64_t ino, uint64_t next_off,
			    uint32_t type, const char *name, uint32_t name_len);

#endif
