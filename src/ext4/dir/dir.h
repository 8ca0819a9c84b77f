/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Dir: directories, and the operations on names.
 *
 *   directory.h   private: the layers of one directory
 *   block.c       one directory block
 *   growth.c      one more block at the end
 *   inline_dir.c  a directory inside its inode
 *   linear.c      a large directory without an index: a table of names in memory
 *   seen.c        the blocks that a walk through an index has been to
 *   index.c       the hash index
 *   dir.c         one directory, whatever its form
 *   listing.c     readdir
 *   names.c, symlink.c, rename.c   the operations
 *
 * Workers, and loop threads in the mode of nowait.h but for renames across directories. Directories
 * are locked inside. State: dir_state.h.
 */
#ifndef FDIO_EXT4_DIR_DIR_H
#define FDIO_EXT4_DIR_DIR_H

#include "base/nowait.h"
#include "ext4/life/life.h"

/*
 * Every name is len bytes without NUL. -ENAMETOOLONG beyond 255. References are returned; dirs are
 * locked inside.
 */
int ext4_lookup(struct ext4_inode *dir, const char *name, unsigned len, struct ext4_inode **ret)
	FDIO_MAY_MISS;
/*
 * True if the directory has another parent since this was last asked: a listing of it kept
 * elsewhere is wrong. Any thread.
 */
bool ext4_dir_moved(struct ext4_inode *dir);
/* The parent of a directory ("..."). */
int ext4_lookup_parent(struct ext4_inode *dir, struct ext4_inode **ret) FDIO_MAY_MISS;
/*
 * Any type but symlink; rdev for devices. Applies default ACLs (mode is then not masked with
 * umask).
 */
int ext4_create(struct ext4_inode *dir, const char *name, unsigned len, uint32_t mode,
		uint32_t rdev, const struct ext4_credentials *credentials,
		struct ext4_inode **ret) FDIO_MAY_MISS;
int ext4_symlink(struct ext4_inode *dir, const char *name, unsigned len, const char *target,
		 unsigned target_len, const struct ext4_credentials *credentials,
		 struct ext4_inode **ret) FDIO_MAY_MISS;
/* O_TMPFILE: no name, on the orphan list, nlink 0. */
int ext4_tmpfile(struct ext4_inode *dir, uint32_t mode, const struct ext4_credentials *credentials,
		 struct ext4_inode **ret) FDIO_MAY_MISS;
int ext4_link(struct ext4_inode *dir, const char *name, unsigned len, struct ext4_inode *target,
	      bool root) FDIO_MAY_MISS;
int ext4_unlink(struct ext4_inode *dir, const char *name, unsigned len) FDIO_MAY_MISS;
int ext4_rmdir(struct ext4_inode *dir, const char *name, unsigned len) FDIO_MAY_MISS;
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT as renameat2. One transaction. */
int ext4_rename(struct ext4_inode *odir, const char *oname, unsigned olen, struct ext4_inode *ndir,
		const char *nname, unsigned nlen, unsigned flags,
		const struct ext4_credentials *credentials) FDIO_MAY_MISS;
/* buf of at least 4097 bytes: the target with a NUL; its length without. */
int ext4_readlink(struct ext4_inode *inode, char *buf, size_t cap, unsigned *ret_len) FDIO_MAY_MISS;
struct ext4_dirent {
	uint32_t ino;
	uint8_t type; /* DT_* */
	uint8_t name_len;
	const char *name;
	uint64_t next_cookie;
};
/*
 * Entries after cookie (0: from the start, "." and ".." included) in a stable order: an entry that
 * stays is seen exactly once whatever is inserted or removed meanwhile. emit returns false to stop
 * (that entry is not consumed). dir is locked shared.
 */
int ext4_readdir(struct ext4_inode *dir, uint64_t cookie,
		 bool (*emit)(void *arg, const struct ext4_dirent *entry), void *arg) FDIO_MAY_MISS;

/* ------------------------------------------------------------------ inside ext4 */
void ext4_dir_init(struct ext4_vol *vol);
void ext4_dir_fini(struct ext4_vol *vol);

#endif
