/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The fields of the ext4 superblock that the command reads before the volume is opened: where the
 * superblock is, and byte offsets in its 1024 bytes. All fields are little-endian: read them with
 * base/bytes.h. They are not trusted: nothing has been checked yet, not even the checksum.
 */
#ifndef FDIO_COMMAND_SUPERBLOCK_H
#define FDIO_COMMAND_SUPERBLOCK_H

#define SUPER_OFFSET 1024 /* on the device, in bytes */
#define SUPER_SIZE 1024

#define SUPER_LOG_BLOCK_SIZE 0x18u /* 32 bits; the block size is 1024 << this */
#define SUPER_MAGIC 0x38u          /* 16 bits */
#define SUPER_DEF_RESUID 0x50u     /* 16 bits */
#define SUPER_DEF_RESGID 0x52u     /* 16 bits */
#define SUPER_BLOCK_GROUP_NR 0x5au /* 16 bits; of a backup: the group it is in */
#define SUPER_FEATURE_INCOMPAT 0x60u
#define SUPER_FEATURE_RO_COMPAT 0x64u
#define SUPER_LAST_ORPHAN 0xe8u    /* 32 bits; inode number, 0: none */
#define SUPER_DEFAULT_MOUNT_OPTS 0x100u
#define SUPER_MOUNT_OPTS 0x200u
#define SUPER_MOUNT_OPTS_LEN 64u

#define SUPER_MAGIC_VALUE 0xef53u
#define SUPER_LOG_BLOCK_SIZE_MAX 6u /* 64 KiB */
#define SUPER_INCOMPAT_RECOVER 0x4u
#define SUPER_RO_COMPAT_ORPHAN_PRESENT 0x10000u

#endif
