/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * FUSE messages: decoding, validating, encoding. Pure functions on memory: any thread, no I/O, no
 * locks, so that they can be fuzzed. The kernel is not trusted here: a message that is inconsistent
 * gives an error, never a read outside of it. <linux/fuse.h> defines the structs, and fuse_compat.h
 * those that an old header lacks.
 */
#ifndef FDIO_MESSAGE_MESSAGE_H
#define FDIO_MESSAGE_MESSAGE_H

#include "base/util.h"
#include "message/fuse_compat.h"

/* The most bytes of data of a request or a reply. */
#define MESSAGE_MAX_WRITE (1u << 20)
/* Bytes before WRITE data in a /dev/fuse message: fuse_in_header and fuse_write_in. */
#define MESSAGE_WRITE_HDR 80u

/* A decoded request. All pointers lead into the message, except arg. Lengths are in bytes. */
struct message_in {
	struct fuse_in_header header;
	/*
	 * The fixed argument of the opcode, of its full size; INIT alone may be shorter, from an
	 * old kernel, and is extended with zeroes. NULL if the opcode has none.
	 */
	const void *arg;
	const uint8_t *rest;       /* what follows the fixed argument */
	uint32_t rest_len;
	/*
	 * Names, for opcodes that carry them: not empty, NUL-terminated (name_len does not count
	 * the NUL), and without '/' if they name directory entries.
	 */
	const char *name, *name2;
	uint32_t name_len, name2_len;
	const uint8_t *data;       /* WRITE: the data; SETXATTR: the value */
	uint32_t data_len;
	uint8_t argbuf[128] __attribute__((aligned(8))); /* where arg is */
	uint32_t nr_groups;        /* supplementary groups, which creating requests carry */
	uint32_t groups[32];
};

const char *message_opcode_name(uint32_t opcode); /* "LOOKUP"; "?" if unknown */
/*
 * Decodes a whole message of /dev/fuse: header, argument and rest in len bytes. Returns 0, or the
 * -errno to answer with. -EBADMSG: the message is shorter than a header; in->header is zeroed, and
 * no answer can be sent.
 */
int message_decode(const void *msg, size_t len, struct message_in *in);
/*
 * Decodes a request of the ring, which passes header, argument (an area of 128 bytes) and rest
 * separately. 0, or the -errno to answer with.
 */
int message_decode_parts(const struct fuse_in_header *header, const void *arg, const void *rest,
			 uint32_t rest_len, struct message_in *in);

/*
 * Appends an entry to the answer of READDIR or READDIRPLUS, at *off in buf of cap bytes, and moves
 * *off behind it. False if it does not fit. next_off: the cookie of the entry that follows.
 */
bool message_add_dirent(uint8_t *buf, uint32_t cap, uint32_t *off, uint64_t ino, uint64_t next_off,
			uint32_t type, const char *name, uint32_t name_len);
bool message_add_direntplus(uint8_t *buf, uint32_t cap, uint32_t *off,
			    const struct fuse_entry_out *entry, uint64_t ino, uint64_t next_off,
			    uint32_t type, const char *name, uint32_t name_len);

#endif
