/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of FUSE opcodes, for decode.c and the tests. Constant data: any thread; nothing fails.
 */
#ifndef FDIO_MESSAGE_TABLE_H
#define FDIO_MESSAGE_TABLE_H

#include "message/message.h"

/* What follows the fixed argument. */
enum message_follows {
	MESSAGE_NOTHING,     /* nothing; bytes that newer kernels may append are ignored */
	MESSAGE_NAME,        /* the name of a directory entry */
	MESSAGE_NAME_NAME,   /* the names of two directory entries */
	MESSAGE_NAME_TARGET, /* the name of a directory entry, and the target of a symbolic link */
	MESSAGE_XATTR,       /* the name of an extended attribute */
	MESSAGE_XATTR_VALUE, /* the name and value of one: fuse_setxattr_in.size bytes */
	MESSAGE_DATA,        /* fuse_write_in.size bytes */
	MESSAGE_DATA_ANY,    /* bytes that the handler checks itself */
};

struct message_op {
	const char *name;
	uint32_t arg_size; /* bytes of the fixed argument; 0: there is none */
	enum message_follows follows;
};

const struct message_op *message_op_lookup(uint32_t opcode); /* NULL if unknown */

#endif
