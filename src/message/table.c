/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The form of each FUSE opcode: its name, the size of its fixed argument and what follows it.
 * Constant data, any thread. decode.c refuses opcodes that are not listed with ENOSYS.
 */
#include "message/table.h"

/* Opcodes without a fixed argument, and with one of this type. */
#define BARE(op, follows) [FUSE_##op] = { #op, 0, follows }
#define OP(op, type, follows) [FUSE_##op] = { #op, sizeof(struct type), follows }

static const struct message_op table[] = {
	BARE(LOOKUP, MESSAGE_NAME),
	OP(FORGET, fuse_forget_in, MESSAGE_NOTHING),
	OP(GETATTR, fuse_getattr_in, MESSAGE_NOTHING),
	OP(SETATTR, fuse_setattr_in, MESSAGE_NOTHING),
	BARE(READLINK, MESSAGE_NOTHING),
	BARE(SYMLINK, MESSAGE_NAME_TARGET),
	OP(MKNOD, fuse_mknod_in, MESSAGE_NAME),
	OP(MKDIR, fuse_mkdir_in, MESSAGE_NAME),
	BARE(UNLINK, MESSAGE_NAME),
	BARE(RMDIR, MESSAGE_NAME),
	OP(RENAME, fuse_rename_in, MESSAGE_NAME_NAME),
	OP(LINK, fuse_link_in, MESSAGE_NAME),
	OP(OPEN, fuse_open_in, MESSAGE_NOTHING),
	OP(READ, fuse_read_in, MESSAGE_NOTHING),
	OP(WRITE, fuse_write_in, MESSAGE_DATA),
	BARE(STATFS, MESSAGE_NOTHING),
	OP(RELEASE, fuse_release_in, MESSAGE_NOTHING),
	OP(FSYNC, fuse_fsync_in, MESSAGE_NOTHING),
	OP(SETXATTR, fuse_setxattr_in, MESSAGE_XATTR_VALUE),
	OP(GETXATTR, fuse_getxattr_in, MESSAGE_XATTR),
	OP(LISTXATTR, fuse_getxattr_in, MESSAGE_NOTHING),
	BARE(REMOVEXATTR, MESSAGE_XATTR),
	OP(FLUSH, fuse_flush_in, MESSAGE_NOTHING),
	OP(INIT, fuse_init_in, MESSAGE_NOTHING),
	OP(OPENDIR, fuse_open_in, MESSAGE_NOTHING),
	OP(READDIR, fuse_read_in, MESSAGE_NOTHING),
	OP(RELEASEDIR, fuse_release_in, MESSAGE_NOTHING),
	OP(FSYNCDIR, fuse_fsync_in, MESSAGE_NOTHING),
	OP(GETLK, fuse_lk_in, MESSAGE_NOTHING),
	OP(SETLK, fuse_lk_in, MESSAGE_NOTHING),
	OP(SETLKW, fuse_lk_in, MESSAGE_NOTHING),
	OP(ACCESS, fuse_access_in, MESSAGE_NOTHING),
	OP(CREATE, fuse_create_in, MESSAGE_NAME),
	OP(INTERRUPT, fuse_interrupt_in, MESSAGE_NOTHING),
	OP(BMAP, fuse_bmap_in, MESSAGE_NOTHING),
	BARE(DESTROY, MESSAGE_NOTHING),
	OP(IOCTL, fuse_ioctl_in, MESSAGE_DATA_ANY),
	OP(POLL, fuse_poll_in, MESSAGE_NOTHING),
	BARE(NOTIFY_REPLY, MESSAGE_DATA_ANY),
	OP(BATCH_FORGET, fuse_batch_forget_in, MESSAGE_DATA_ANY),
	OP(FALLOCATE, fuse_fallocate_in, MESSAGE_NOTHING),
	OP(READDIRPLUS, fuse_read_in, MESSAGE_NOTHING),
	OP(RENAME2, fuse_rename2_in, MESSAGE_NAME_NAME),
	OP(LSEEK, fuse_lseek_in, MESSAGE_NOTHING),
	OP(COPY_FILE_RANGE, fuse_copy_file_range_in, MESSAGE_NOTHING),
	OP(SYNCFS, fuse_syncfs_in, MESSAGE_NOTHING),
	/* The kernel sends "/" in place of a name; no handler uses it, so it is not checked. */
	OP(TMPFILE, fuse_create_in, MESSAGE_DATA_ANY),
	OP(STATX, fuse_statx_in, MESSAGE_NOTHING),
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
