/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Core: what all rooms of ext4 use. This header is the contract of the room, together with
 * superblock.h for the rooms of ext4.
 *
 *   structs.h, core_state.h   struct ext4_vol and struct ext4_inode, composed of the rooms' parts
 *   state.c                   is the volume writable; its device, its journal, the time
 *   errors.c                  damage: log line, note for the superblock, the option errors=
 *   superblock.c              reading and changing the superblock; the label
 *   superblock_torn.c         a superblock that a power cut has torn
 *   handle.c, bits.c, io.c    ends of handles; bitmaps as on disk; how libext2fs reads
 *
 * Errors are -errno: -EUCLEAN is damage in the image, logged and noted for the superblock
 * (ext4_corrupt), -EIO an error of the device. Lock order in ext4, the outermost first: rename,
 * inode.rw, inode.map_lock, journal handle, alloc.lock, icache, inode.attr (base/lock.h has all).
 * So an operation locks its inodes, then calls journal_begin, then changes; inside a handle it
 * takes neither rw nor map_lock.
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
struct struct_ext2_filsys;

#define EXT4_ROOT_INO 2
#define EXT4_NAME_MAX 255  /* bytes */
#define EXT4_LABEL_MAX 16  /* bytes; a label of this length has no NUL behind it */

enum ext4_errors_policy {
	EXT4_ERRORS_DEFAULT = 0, /* as s_errors of the superblock says */
	EXT4_ERRORS_CONTINUE,
	EXT4_ERRORS_RO,
	EXT4_ERRORS_PANIC
};
enum ext4_atime_policy { EXT4_ATIME_RELATIME = 0, EXT4_ATIME_NOATIME, EXT4_ATIME_STRICT };

/* Copied when the volume opens. */
struct ext4_options {
	bool read_only;
	bool norecovery;
	bool discard;
	enum ext4_errors_policy errors;
	enum ext4_atime_policy atime;
	bool nodiratime, lazytime;
	bool acl, user_xattr;       /* on by default: the caller sets them */
	bool grpid;                 /* a new file takes the group of its directory (BSD groups) */
	unsigned commit_interval_s; /* seconds */
	/*
	 * Bytes for the journal's cache of metadata blocks (0: 64 MiB). In addition, allocation
	 * images may take half as many bytes, and 1,024 idle inodes are kept, plus one for each
	 * 4096 bytes.
	 */
	size_t cache_bytes;
	/* Called when the volume turns read-only by itself: any thread; must not block. */
	void (*went_read_only)(void *arg, const char *why);
	void *arg;
};

/* ---- state of a volume. Any thread, no lock needed. Pointers live as long as the volume ---- */
bool ext4_vol_read_only(const struct ext4_vol *vol);
bool ext4_vol_is_shut_down(const struct ext4_vol *vol);
struct dev *ext4_vol_dev(struct ext4_vol *vol);
struct journal *ext4_vol_journal(struct ext4_vol *vol);
unsigned ext4_vol_block_bits(const struct ext4_vol *vol); /* log2 of the block size in bytes */
bool ext4_vol_has_inline(const struct ext4_vol *vol);     /* feature inline_data */
/* Copies the label, padded with NULs. */
void ext4_vol_label(struct ext4_vol *vol, char ret[EXT4_LABEL_MAX]);
/* Returns when the new label is durable. -EROFS, or what the journal says. Outside handles. */
int ext4_vol_set_label(struct ext4_vol *vol, const char label[EXT4_LABEL_MAX]) FDIO_BLOCKS;

/* ------------------------------------------------------------------ for the rooms of ext4 */
struct timespec ext4_now(struct ext4_vol *vol); /* wall clock; any thread */
/* Free inodes of all groups: alloc keeps the count, superblock.c writes it down. Any thread. */
uint32_t ext4_free_inodes(const struct ext4_vol *vol);
void ext4_free_inodes_set(struct ext4_vol *vol, uint32_t n);

/*
 * ---- errors.c. Any thread, inside a handle or not. Reporting may abort the journal: that takes
 * RANK_JOURNAL_STATE and writes, so no lock of that rank or an inner one may be held.
 * ext4_read_block reads. ----
 */
/*
 * Reports damage: logs it, notes it for the superblock, applies the option errors=. Returns
 * -EUCLEAN. ino 0: no inode in particular. blk 0: no block in particular.
 */
int ext4_corrupt(struct ext4_vol *vol, uint32_t ino, uint64_t blk, const char *func,
		 const char *fmt, ...) __attribute__((format(printf, 5, 6))) FDIO_MAY_MISS;
#define EXT4_CORRUPT(v, ino, blk, ...) ext4_corrupt((v), (ino), (blk), __func__, __VA_ARGS__)
/*
 * As journal_read_block, for blocks that the whole file system depends on: inode tables, bitmaps,
 * descriptors. An I/O error there is treated like damage, as in the kernel. The caller
 * releases *ret. For a block of a single file, journal_read_block is enough.
 */
int ext4_read_block(struct ext4_vol *vol, uint32_t ino, uint64_t blk, const char *func,
		    struct journal_buffer **ret) FDIO_MAY_MISS;
#define EXT4_READ_BLOCK(v, ino, blk, ret) ext4_read_block((v), (ino), (blk), __func__, (ret))
int ext4_error_from_ext2(long err); /* -errno for a code of libext2fs, 0 for 0 */

/* ---- handle.c ---- */
/*
 * Ends handle: with journal_end if err is 0 and nothing has missed meanwhile (NOWAIT-2), else with
 * journal_cancel. Returns what became of the change: 0, err, or -EAGAIN after a miss.
 */
int ext4_handle_end(struct journal_handle *handle, int err) FDIO_MAY_WAIT;

#endif
