/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of FUSE opcodes, for decode.c and the tests. Constant data.
 */
#ifndef FDIO_MESSAGE_TABLE_H
#define FDIO_MESSAGE_TABLE_H

#include "message/message.h"

enum pro_follows {
	PRO_NOTHING,     /* whatever follows is ignored: newer kernels may append */
	PRO_NAME,        /* one name of a directory entry */
	PRO_NAME_NAME,   /* two of them */
	PRO_NAME_TARGET, /* a name and the target of a symbolic link, which may hold slashes */
	PRO_XATTR,       /* the name of an extended attribute */
	PRO_XATTR_VALUE, /* and its value: fuse_setxattr_in.size bytes */
	PRO_DATA,        /* fuse_write_in.size bytes */
	PRO_DATA_ANY,    /* bytes that the operation judges itself */
};

struct pro_op {
	const char *name;
	uint32_t arg_size;
	enum pro_follows follows;
};

const struct pro_op *pro_op_lookup(uint32_t opcode); /* NULL if unknown */

#endif
