/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of FUSE opcodes, for decode.c and the tests. Constant data.
 */
#ifndef FDIO_MESSAGE_TABLE_H
#define FDIO_MESSAGE_TABLE_H

#include "message/message.h"

enum message_follows {
	MESSAGE_NOTHING,     /* whatever follows is ignored: newer kernels may append */
	MESSAGE_NAME,        /* one name of a directory entry */
	MESSAGE_NAME_NAME,   /* two of them */
	MESSAGE_NAME_TARGET, /* a name and the target of a symbolic link, which may hold slashes */
	MESSAGE_XATTR,       /* the name of an extended attribute */
	MESSAGE_XATTR_VALUE, /* and its value: fuse_setxattr_in.size bytes */
	MESSAGE_DATA,        /* fuse_write_in.size bytes */
	MESSAGE_DATA_ANY,    /* bytes that the operation judges itself */
};

struct message_op {
	const char *name;
	uint32_t arg_size;
	enum message_follows follows;
};

const struct message_op *message_op_lookup(uint32_t opcode); /* NULL if unknown */

#endif
