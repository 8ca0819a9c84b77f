/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Core: what all rooms of ext4 stand on. A volume's plain facts, its superblock, the errors of an image, and the
 * bridge through which libext2fs reads the device.
 *
 *   structs.h          composes struct x4_vol and struct x4_inode of the rooms' parts (*_state.h)
 *   state.c            whether it can be written, its device, its journal, the time
 *   errors.c           damage: log line, note in the superblock, the errors= policy
 *   superblock.c       reading and changing the superblock, on the device or in a handle
 *   superblock_torn.c  a superblock that a power cut has torn
 *   io.c               the manager through which libext2fs reads
 *   bits.c             bitmaps as on disk
 *
 * Errors are negative errno. What an image can be blamed for is -EUCLEAN, logged, and recorded in the superblock
 * (x4_corrupt); I/O errors are -EIO. Lock order in ext4: rename < inode.rw < inode.map_lock < journal handle <
 * alloc < icache < attr. So: lock inodes, then journal_begin, then change. Nobody takes inode.rw or map_lock inside
 * a handle.
 */
#ifndef FDIO_EXT4_CORE_CORE_H
#define FDIO_EXT4_CORE_CORE_H

#include "base/nowait.h"
#include "base/reason.h"
#include "dev/dev.h"
#include "journal/journal.h"

#include <sys/stat.h>
#include <time.h>

struct x4_vol;
struct x4_inode;
struct ext2_super_block;
struct struct_ext2_filsys;

#define X4_ROOT_INO 2
#define X4_NAME_MAX 255

enum x4_errors_policy { X4_ERRORS_DEFAULT = 0, X4_ERRORS_CONTINUE, X4_ERRORS_RO, X4_ERRORS_PANIC };
enum x4_atime_policy { X4_ATIME_RELATIME = 0, X4_ATIME_NOATIME, X4_ATIME_STRICT };

struct x4_options {
	bool read_only;
	bool norecovery;
	bool discard;
	enum x4_errors_policy errors; /* DEFAULT: the superblock's */
	enum x4_atime_policy atime;
	bool nodiratime, lazytime;
	bool acl, user_xattr;         /* on by default: the caller sets them */
	bool grpid;                   /* new files take the group of their directory (BSD groups) */
	unsigned commit_interval_s;
	/*
	 * Metadata blocks that the journal's cache keeps (0: 64 MiB); half of it for bitmaps of
	 * groups; and one inode that nobody uses for each 4096 bytes, beside 1,024.
	 */
	size_t cache_bytes;
	/* Called when the volume turns read-only by itself (any thread). */
	void (*went_read_only)(void *arg, const char *why);
	void *arg;
};

/* ---- any thread, never blocks ---- */
bool x4_vol_read_only(const struct x4_vol *vol); /* any thread, never blocks */
bool x4_vol_is_shut_down(const struct x4_vol *vol); /* any thread, never blocks */
struct dev *x4_vol_dev(struct x4_vol *vol);
struct journal *x4_vol_jnl(struct x4_vol *vol);
unsigned x4_vol_block_bits(const struct x4_vol *vol);
bool x4_vol_has_inline(const struct x4_vol *vol); /* there may be such inodes */
/* The label, not terminated if it is as long as can be. Setting waits until it is durable. */
#define X4_LABEL_MAX 16
void x4_vol_label(struct x4_vol *vol, char ret[X4_LABEL_MAX]);
int x4_vol_set_label(struct x4_vol *vol, const char label[X4_LABEL_MAX]) FDIO_BLOCKS;

/* ------------------------------------------------------------------ inside ext4 */
struct timespec x4_now(struct x4_vol *vol);

/* ---- errors.c ---- */
/* Notes an inconsistency: log line, superblock error fields, errors= policy. Returns -EUCLEAN. Any thread, no locks needed. */
int x4_corrupt(struct x4_vol *vol, uint32_t ino, uint64_t blk, const char *func, const char *fmt, ...)
	__attribute__((format(printf, 5, 6))) FDIO_MAY_MISS;
/* journal_read_block of what the whole file system rests on: inode tables, bitmaps, descriptors. An I/O error is noted and treated like damage,
 * as the kernel does; one in a single file's own blocks is that file's. */
int x4_bread(struct x4_vol *vol, uint32_t ino, uint64_t blk, const char *func, struct journal_buffer **ret)
	FDIO_MAY_MISS;
#define X4_BREAD(v, ino, blk, ret) x4_bread((v), (ino), (blk), __func__, (ret))
#define X4_CORRUPT(v, ino, blk, ...) x4_corrupt((v), (ino), (blk), __func__, __VA_ARGS__)
int x4_from_ext2_err(long err); /* libext2fs code -> -errno (core/errors.c) */
/* core/errors.c */
void x4_error_init(struct x4_vol *vol);
/* Writes noted errors into the superblock: through a handle if the journal lives, else straight. May block. */
void x4_error_write(struct x4_vol *vol) FDIO_BLOCKS;
/* The same at unmount: what could not be written before, too. */
void x4_error_write_last(struct x4_vol *vol) FDIO_BLOCKS;
/* The journal aborts with err: noted for the superblock, and read-only from now on. Any thread, no lock of rank leaf. */
void x4_error_aborted(struct x4_vol *vol, int err);

/* ---- superblock.c: workers, but for opening and closing ---- */
/* The superblock in a handle: returns the mapped 1024 bytes inside the cached block; call x4_super_end to set its checksum. */
int x4_super_begin(struct x4_vol *vol, struct journal_handle *handle, struct ext2_super_block **ret)
	FDIO_MAY_MISS;
void x4_super_end(struct x4_vol *vol, struct journal_handle *handle);
/* The superblock straight from the device, 1024 bytes; checks magic and checksum. */
int x4_super_read(struct dev *dev, struct ext2_super_block *ret, struct fdio_reason *reason)
	FDIO_BLOCKS;
/* Changes it straight on the device, with its checksum, and flushes: only while no journal runs. */
int x4_super_update_raw(struct dev *dev, void (*change)(struct ext2_super_block *sb, void *arg), void *arg)
	FDIO_BLOCKS;
int x4_super_write_raw(struct dev *dev, const struct ext2_super_block *torn, void (*change)(struct ext2_super_block *sb, void *arg),
		       void *arg) FDIO_BLOCKS;
/* core/superblock_torn.c: sb, as x4_super_read has left it, fails by its checksum: completed on the device if it was torn. */
int x4_super_complete_torn(struct dev *dev, const struct ext2_super_block *sb) FDIO_BLOCKS;
void x4_super_csum_set(struct ext2_super_block *sb);
bool x4_super_csum_ok(const struct ext2_super_block *sb);

/* ---- io.c ---- */
/* core/io.c: the manager through which libext2fs reads; x4_io_open_fs sets the device for the time of the call. */
long x4_io_open_fs(struct dev *dev, struct struct_ext2_filsys **ret);

/* Free inodes, as alloc counts them and the superblock says them. */
uint32_t x4_free_inodes(const struct x4_vol *vol);
void x4_free_inodes_set(struct x4_vol *vol, uint32_t n);
/* The label of vol->fs is the volume's. While it opens. */
void x4_label_init(struct x4_vol *vol);
void x4_error_fini(struct x4_vol *vol);

#endif
