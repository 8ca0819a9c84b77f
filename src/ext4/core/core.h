/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Core: what all rooms of ext4 stand on. A volume's plain facts, its superblock, the errors of an
 * image, and the bridge through which libext2fs reads the device.
 *
 *   structs.h          composes struct ext4_vol and struct ext4_inode of the rooms' parts
 *   (*_state.h)
 *   state.c            whether it can be written, its device, its journal, the time
 *   errors.c           damage: log line, note in the superblock, the errors= policy
 *   superblock.c       reading and changing the superblock, on the device or in a handle
 *   superblock_torn.c  a superblock that a power cut has torn
 *   handle.c           the end of a handle
 *   io.c               the manager through which libext2fs reads
 *   bits.c             bitmaps as on disk
 *
 * Errors are negative errno. What an image can be blamed for is -EUCLEAN, logged, and recorded in
 * the superblock (ext4_corrupt); I/O errors are -EIO. Lock order in ext4: rename < inode.rw <
 * inode.map_lock < journal handle < alloc < icache < attr. So: lock inodes, then journal_begin,
 * then change. Nobody takes inode.rw or map_lock inside a handle.
 */
#ifndef FDIO_EXT4_CORE_CORE_H
#define FDIO_EXT4_CORE_CORE_H

#include "base/nowait.h"
#include "base/reason.h"
#include "dev/dev.h"
#include "journal/journal.h"

#include <sys/stat.h>
#include <time.h>

struct ext4_vol;
struct ext4_inode;
struct ext2_super_block;
struct struct_ext2_filsys;

#define EXT4_ROOT_INO 2
#define EXT4_NAME_MAX 255

enum ext4_errors_policy {
	EXT4_ERRORS_DEFAULT = 0,
	EXT4_ERRORS_CONTINUE,
	EXT4_ERRORS_RO,
	EXT4_ERRORS_PANIC
};
enum ext4_atime_policy { EXT4_ATIME_RELATIME = 0, EXT4_ATIME_NOATIME, EXT4_ATIME_STRICT };

struct ext4_options {
	bool read_only;
	bool norecovery;
	bool discard;
	enum ext4_errors_policy errors; /* DEFAULT: the superblock's */
	enum ext4_atime_policy atime;
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
bool ext4_vol_read_only(const struct ext4_vol *vol); /* any thread, never blocks */
bool ext4_vol_is_shut_down(const struct ext4_vol *vol); /* any thread, never blocks */
struct dev *ext4_vol_dev(struct ext4_vol *vol);
struct journal *ext4_vol_journal(struct ext4_vol *vol);
unsigned ext4_vol_block_bits(const struct ext4_vol *vol);
bool ext4_vol_has_inline(const struct ext4_vol *vol); /* there may be such inodes */
/* The label, not terminated if it is as long as can be. Setting waits until it is durable. */
#define EXT4_LABEL_MAX 16
void ext4_vol_label(struct ext4_vol *vol, char ret[EXT4_LABEL_MAX]);
int ext4_vol_set_label(struct ext4_vol *vol, const char label[EXT4_LABEL_MAX]) FDIO_BLOCKS;

/* ------------------------------------------------------------------ inside ext4 */
struct timespec ext4_now(struct ext4_vol *vol);

/* ---- errors.c ---- */
/*
 * Notes an inconsistency: log line, superblock error fields, errors= policy. Returns -EUCLEAN. Any
 * thread, no locks needed.
 */
int ext4_corrupt(struct ext4_vol *vol, uint32_t ino, uint64_t blk, const char *func,
		 const char *fmt, ...) __attribute__((format(printf, 5, 6))) FDIO_MAY_MISS;
/*
 * journal_read_block of what the whole file system rests on: inode tables, bitmaps, descriptors. An
 * I/O error is noted and treated like damage, as the kernel does; one in a single file's own blocks
 * is that file's.
 */
int ext4_read_block(struct ext4_vol *vol, uint32_t ino, uint64_t blk, const char *func,
		    struct journal_buffer **ret) FDIO_MAY_MISS;
#define EXT4_READ_BLOCK(v, ino, blk, ret) ext4_read_block((v), (ino), (blk), __func__, (ret))
#define EXT4_CORRUPT(v, ino, blk, ...) ext4_corrupt((v), (ino), (blk), __func__, __VA_ARGS__)
int ext4_error_from_ext2(long err); /* libext2fs code -> -errno (core/errors.c) */
/* core/errors.c */
void ext4_error_init(struct ext4_vol *vol);
/*
 * Writes noted errors into the superblock: through a handle if the journal lives, else straight.
 * May block.
 */
void ext4_error_write(struct ext4_vol *vol) FDIO_BLOCKS;
/* The same at unmount: what could not be written before, too. */
void ext4_error_write_last(struct ext4_vol *vol) FDIO_BLOCKS;
/*
 * The journal aborts with err: noted for the superblock, and read-only from now on. Any thread, no
 * lock of rank leaf.
 */
void ext4_error_aborted(struct ext4_vol *vol, int err);

/* ---- handle.c ---- */
/*
 * Ends handle: with journal_end if err is 0 and nothing has missed on the way (NOWAIT-2), else with
 * journal_cancel. Returns what became of it: 0, err, or -EAGAIN after a miss.
 */
int ext4_handle_end(struct journal_handle *handle, int err) FDIO_MAY_WAIT;

/* ---- superblock.c: workers, but for opening and closing ---- */
/*
 * The superblock in a handle: returns the mapped 1024 bytes inside the cached block; call
 * ext4_super_end to set its checksum.
 */
int ext4_super_begin(struct ext4_vol *vol, struct journal_handle *handle,
		     struct ext2_super_block **ret) FDIO_MAY_MISS;
void ext4_super_end(struct ext4_vol *vol, struct journal_handle *handle);
/* Opens a handle that changes the superblock alone: ext4_super_end and the handle's end follow. */
int ext4_super_change_begin(struct ext4_vol *vol, struct journal_handle **ret_handle,
			    struct ext2_super_block **ret_sb) FDIO_MAY_MISS;
/* The superblock straight from the device, 1024 bytes; checks magic and checksum. */
int ext4_super_read(struct dev *dev, struct ext2_super_block *ret, struct fdio_reason *reason)
	FDIO_BLOCKS;
/* Changes it straight on the device, with its checksum, and flushes: only while no journal runs. */
int ext4_super_update_raw(struct dev *dev, void (*change)(struct ext2_super_block *sb, void *arg),
			  void *arg) FDIO_BLOCKS;
int ext4_super_write_raw(struct dev *dev, const struct ext2_super_block *torn,
			 void (*change)(struct ext2_super_block *sb, void *arg),
			 void *arg) FDIO_BLOCKS;
/*
 * core/superblock_torn.c: sb, as ext4_super_read has left it, fails by its checksum: completed on
 * the device if it was torn.
 */
int ext4_super_complete_torn(struct dev *dev, const struct ext2_super_block *sb) FDIO_BLOCKS;
void ext4_super_checksum_set(struct ext2_super_block *sb);
bool ext4_super_checksum_ok(const struct ext2_super_block *sb);

/* ---- io.c ---- */
/*
 * core/io.c: the manager through which libext2fs reads; ext4_io_open_fs sets the device for the
 * time of the call.
 */
long ext4_io_open_fs(struct dev *dev, struct struct_ext2_filsys **ret);

/* Free inodes, as alloc counts them and the superblock says them. */
uint32_t ext4_free_inodes(const struct ext4_vol *vol);
void ext4_free_inodes_set(struct ext4_vol *vol, uint32_t n);
/* The label of vol->fs is the volume's. While it opens. */
void ext4_label_init(struct ext4_vol *vol);
void ext4_error_fini(struct ext4_vol *vol);

#endif
