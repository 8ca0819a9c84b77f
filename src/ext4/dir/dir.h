/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Dir: directories, and the operations on names.
 *
 *   directory.h   private: one directory, and what the operations share
 *   block.c       one directory block
 *   growth.c      one more block at the end of a directory
 *   inline_dir.c  a directory inside its inode
 *   linear.c      a large directory without an index: a table of its names in memory
 *   index.h       private: the hash index
 *   index.c, index_add.c   searching it; adding to it
 *   seen.c        the blocks that a walk through an index has been to
 *   dir.c         one directory, whatever its form
 *   listing.c     readdir
 *   names.c       what the operations share: handle, checks, fields
 *   lookup.c, create.c, symlink.c, links.c, rename.c   the operations
 *
 * Threads: ops workers, and loop threads in the mode of base/nowait.h; a rename across directories
 * misses there. Directories are locked inside. Errors are negative errno; -EUCLEAN is damage, which
 * has been reported to the volume. State: dir_state.h.
 */
#ifndef FDIO_EXT4_DIR_DIR_H
#define FDIO_EXT4_DIR_DIR_H

#include "base/nowait.h"
#include "ext4/life/life.h"

/* The name is "." or "..", which no operation but lookup accepts. */
static inline bool ext4_name_is_dots(const char *name, unsigned len)
{
	return (len == 1 || len == 2) && name[0] == '.' && name[len - 1] == '.';
}

/*
 * Every name has len bytes and no NUL at its end; -ENAMETOOLONG beyond 255. The inode that is
 * returned carries a reference for the caller.
 */
int ext4_lookup(struct ext4_inode *dir, const char *name, unsigned len, struct ext4_inode **ret)
	FDIO_MAY_MISS;
/*
 * True if ".." of the directory has changed since the last call, so that a listing in the kernel's
 * cache is out of date. Any thread.
 */
bool ext4_dir_moved(struct ext4_inode *dir);
/* The parent of a directory, by its entry "..". The root is its own parent. */
int ext4_lookup_parent(struct ext4_inode *dir, struct ext4_inode **ret) FDIO_MAY_MISS;
/*
 * A file of any type but a symbolic link; rdev is for devices. A default ACL of dir is inherited,
 * and the umask then does not apply.
 */
int ext4_create(struct ext4_inode *dir, const char *name, unsigned len, uint32_t mode,
		uint32_t rdev, const struct ext4_credentials *credentials,
		struct ext4_inode **ret) FDIO_MAY_MISS;
int ext4_symlink(struct ext4_inode *dir, const char *name, unsigned len, const char *target,
		 unsigned target_len, const struct ext4_credentials *credentials,
		 struct ext4_inode **ret) FDIO_MAY_MISS;
/* O_TMPFILE: a regular file without a name, nlink 0, on the orphan list. */
int ext4_tmpfile(struct ext4_inode *dir, uint32_t mode, const struct ext4_credentials *credentials,
		 struct ext4_inode **ret) FDIO_MAY_MISS;
/* root: may use the reserved blocks. */
int ext4_link(struct ext4_inode *dir, const char *name, unsigned len, struct ext4_inode *target,
	      bool root) FDIO_MAY_MISS;
int ext4_unlink(struct ext4_inode *dir, const char *name, unsigned len) FDIO_MAY_MISS;
int ext4_rmdir(struct ext4_inode *dir, const char *name, unsigned len) FDIO_MAY_MISS;
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT as renameat2. One transaction. */
int ext4_rename(struct ext4_inode *odir, const char *oname, unsigned olen, struct ext4_inode *ndir,
		const char *nname, unsigned nlen, unsigned flags,
		const struct ext4_credentials *credentials) FDIO_MAY_MISS;
/*
 * Writes the target with a NUL to buf, which has cap bytes (4,097 hold any target; -ERANGE), and
 * its length without the NUL to *ret_len.
 */
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
 * stays is seen exactly once whatever is inserted or removed meanwhile. emit returns false to stop;
 * that entry then counts as not seen. dir is locked shared while emit runs.
 */
int ext4_readdir(struct ext4_inode *dir, uint64_t cookie,
		 bool (*emit)(void *arg, const struct ext4_dirent *entry), void *arg) FDIO_MAY_MISS;

/* ------------------------------------------------------------------ inside ext4 */
void ext4_dir_init(struct ext4_vol *vol);
void ext4_dir_fini(struct ext4_vol *vol);

#endif
