/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What each FUSE opcode looks like: its name, the size of its fixed argument and what follows it.
 * Constant data, any thread; decode.c walks it. An opcode that is not listed is not served.
 */
#include "message/table.h"

#define OP(op, size, follows) [FUSE_##op] = { #op, size, follows }
#define OPS(op, type, follows) [FUSE_##op] = { #op, sizeof(struct type), follows }

static const struct message_op table[] = {
	OP(LOOKUP, 0, MESSAGE_NAME),
	OPS(FORGET, fuse_forget_in, MESSAGE_NOTHING),
	OPS(GETATTR, fuse_getattr_in, MESSAGE_NOTHING),
	OPS(SETATTR, fuse_setattr_in, MESSAGE_NOTHING),
	OP(READLINK, 0, MESSAGE_NOTHING),
	OP(SYMLINK, 0, MESSAGE_NAME_TARGET),
	OPS(MKNOD, fuse_mknod_in, MESSAGE_NAME),
	OPS(MKDIR, fuse_mkdir_in, MESSAGE_NAME),
	OP(UNLINK, 0, MESSAGE_NAME),
	OP(RMDIR, 0, MESSAGE_NAME),
	OPS(RENAME, fuse_rename_in, MESSAGE_NAME_NAME),
	OPS(LINK, fuse_link_in, MESSAGE_NAME),
	OPS(OPEN, fuse_open_in, MESSAGE_NOTHING),
	OPS(READ, fuse_read_in, MESSAGE_NOTHING),
	OPS(WRITE, fuse_write_in, MESSAGE_DATA),
	OP(STATFS, 0, MESSAGE_NOTHING),
	OPS(RELEASE, fuse_release_in, MESSAGE_NOTHING),
	OPS(FSYNC, fuse_fsync_in, MESSAGE_NOTHING),
	OPS(SETXATTR, fuse_setxattr_in, MESSAGE_XATTR_VALUE),
	OPS(GETXATTR, fuse_getxattr_in, MESSAGE_XATTR),
	OPS(LISTXATTR, fuse_getxattr_in, MESSAGE_NOTHING),
	OP(REMOVEXATTR, 0, MESSAGE_XATTR),
	OPS(FLUSH, fuse_flush_in, MESSAGE_NOTHING),
	OPS(INIT, fuse_init_in, MESSAGE_NOTHING),
	OPS(OPENDIR, fuse_open_in, MESSAGE_NOTHING),
	OPS(READDIR, fuse_read_in, MESSAGE_NOTHING),
	OPS(RELEASEDIR, fuse_release_in, MESSAGE_NOTHING),
	OPS(FSYNCDIR, fuse_fsync_in, MESSAGE_NOTHING),
	OPS(GETLK, fuse_lk_in, MESSAGE_NOTHING),
	OPS(SETLK, fuse_lk_in, MESSAGE_NOTHING),
	OPS(SETLKW, fuse_lk_in, MESSAGE_NOTHING),
	OPS(ACCESS, fuse_access_in, MESSAGE_NOTHING),
	OPS(CREATE, fuse_create_in, MESSAGE_NAME),
	OPS(INTERRUPT, fuse_interrupt_in, MESSAGE_NOTHING),
	OPS(BMAP, fuse_bmap_in, MESSAGE_NOTHING),
	OP(DESTROY, 0, MESSAGE_NOTHING),
	OPS(IOCTL, fuse_ioctl_in, MESSAGE_DATA_ANY),
	OPS(POLL, fuse_poll_in, MESSAGE_NOTHING),
	OP(NOTIFY_REPLY, 0, MESSAGE_DATA_ANY),
	OPS(BATCH_FORGET, fuse_batch_forget_in, MESSAGE_DATA_ANY),
	OPS(FALLOCATE, fuse_fallocate_in, MESSAGE_NOTHING),
	OPS(READDIRPLUS, fuse_read_in, MESSAGE_NOTHING),
	OPS(RENAME2, fuse_rename2_in, MESSAGE_NAME_NAME),
	OPS(LSEEK, fuse_lseek_in, MESSAGE_NOTHING),
	OPS(COPY_FILE_RANGE, fuse_copy_file_range_in, MESSAGE_NOTHING),
	OPS(SYNCFS, fuse_syncfs_in, MESSAGE_NOTHING),
	/* The kernel sends its placeholder name "/", which is nobody's business. */
	OPS(TMPFILE, fuse_create_in, MESSAGE_DATA_ANY),
	OPS(STATX, fuse_statx_in, MESSAGE_NOTHING),
};

const struct message_op *message_op_lookup(uint32_t opcode)
{
	if (opcode >= ARRAY_SIZE(table) || !table[opcode].name)
		return NULL;
	return &table[opcode];
}

const char *message_opcode_name(uint32_t opcode)
{
	const struct message_op *op = message_op_lookup(opcode);

	return op ? op->name : "?";
}
