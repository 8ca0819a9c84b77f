/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ext4 room, as the rooms above see it: a volume, its inodes, names, attributes, extents. The only
 * room that includes <ext2fs/...>. Everything here may block and runs on workers, except what says
 * "any thread, never blocks", and "nowait": in the mode of base/nowait.h these run on loop threads as well and fail with -EAGAIN,
 * having changed nothing, where they would block: x4_iget, names but for renames across directories, x4_setattr, attributes but
 * for changes, x4_readlink, x4_readdir of a small directory, x4_map_load of a small map.
 *
 * Errors are negative errno. What an image can be blamed for is -EUCLEAN, logged, and recorded in the
 * superblock (x4_corrupt); I/O errors are -EIO.
 *
 * Files, by part (each part has one owner file family):
 *   volume  volume/volume.c volume/features.c core/superblock.c core/errors.c      open, features, mount state, statfs, sync, close
 *   groups  alloc/groups.c alloc/blocks.c alloc/inodes.c                   descriptors, bitmaps, block and inode allocator
 *   inodes  inode/cache.c inode/table.c inode/times.c life/orphans.c         inode cache, disk inode, attributes, orphans, eviction
 *   extents data/map.c data/extent.c data/reservation.c data/truncate.c data/fallocate.c   map snapshots, tree edits, reserve/insert, truncate
 *   names   dir/block.c dir/dir.c dir/index.c dir/names.c dir/rename.c dir/symlink.c       directories
 *   inline  xattr/inline.c                                          content in the inode, read only
 *   xattrs  xattr/xattr.c xattr/disk.c xattr/value.c xattr/acl.c
 */
#ifndef FDIO_EXT4_X4_H
#define FDIO_EXT4_X4_H

#include "base/epoch.h"
#include "base/lock.h"
#include "dev/dev.h"
#include "journal/journal.h"

#include <sys/stat.h>
#include <time.h>

struct x4_vol;
struct x4_inode;

#define X4_ROOT_INO 2
#define X4_NAME_MAX 255

/* ------------------------------------------------------------------ volume (volume/volume.c, core/superblock.c) */
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
	size_t cache_bytes;
	/* Called when the volume turns read-only by itself (any thread). */
	void (*went_read_only)(void *arg, const char *why);
	void *arg;
};

/*
 * Opens the file system on dev: validates, checks features, replays the journal, processes orphans,
 * marks it mounted. *ret_ro_reason (may be NULL) says why it is read-only although rw was asked for
 * (static string or NULL). errbuf gets one line with the cause and the way out. The device stays the caller's.
 */
int x4_vol_open(struct dev *dev, const struct x4_options *opt, struct x4_vol **ret, const char **ret_ro_reason,
		char *errbuf, size_t errlen);
/*
 * The first step of x4_vol_open alone, for a device that somebody else is going to claim before it is opened: the journal is
 * replayed, and, if orphans, interrupted deletions and truncates are finished, which a read-only mount later cannot do; nothing
 * else changes. *ret_fsck: e2fsck must do it; it needs the device for itself.
 */
int x4_vol_recover(struct dev *dev, bool orphans, bool *ret_fsck, char *errbuf, size_t errlen);
/* Everything durable: time-dirty inodes, running transaction, flush. */
int x4_vol_sync(struct x4_vol *v);
/* Clean unmount: evicts, writes, empties the log, marks clean. Frees v in any case. The caller has drained all I/O. */
int x4_vol_close(struct x4_vol *v);
/*
 * As ext4's ioctl of that name: from now on nothing is written, as if the power went; the next mount replays what the log holds.
 * Before that DEFAULT makes everything durable, LOGFLUSH commits, NOLOGFLUSH does nothing. Again: 0. Blocks.
 */
enum x4_shutdown { X4_SHUTDOWN_DEFAULT = 0, X4_SHUTDOWN_LOGFLUSH, X4_SHUTDOWN_NOLOGFLUSH };
int x4_vol_shutdown(struct x4_vol *v, enum x4_shutdown how);
bool x4_vol_is_shut_down(const struct x4_vol *v); /* any thread, never blocks */
/* Frees without writing anything, as if the power went. For tests. */
void x4_vol_abandon(struct x4_vol *v);
bool x4_vol_read_only(const struct x4_vol *v); /* any thread, never blocks */
struct dev *x4_vol_dev(struct x4_vol *v);
struct jnl *x4_vol_jnl(struct x4_vol *v);
unsigned x4_vol_block_bits(const struct x4_vol *v);
/* The label, not terminated if it is as long as can be. Setting waits until it is durable. */
#define X4_LABEL_MAX 16
void x4_vol_label(struct x4_vol *v, char ret[X4_LABEL_MAX]);
int x4_vol_set_label(struct x4_vol *v, const char label[X4_LABEL_MAX]);

struct x4_statfs { uint64_t blocks, bfree, bavail, files, ffree; uint32_t bsize, namelen; };
void x4_vol_statfs(struct x4_vol *v, struct x4_statfs *ret);

/* Writes back times changed without a handle (mtime of overwrites). Called by sync and every commit interval. */
int x4_vol_write_times(struct x4_vol *v);
/* Free blocks to the device (FITRIM): byte range and minimum run; trimmed bytes out. */
int x4_vol_trim(struct x4_vol *v, uint64_t off, uint64_t len, uint64_t minlen, uint64_t *ret_trimmed);

/* ------------------------------------------------------------------ inodes (inode/cache.c, inode/times.c) */
/*
 * A reference to the inode ino; gen non-NULL: must match or -ESTALE. -ENOENT: not in use or out of range.
 * A reference keeps the struct alive; the last one of an unlinked inode deletes it (x4_iput may block).
 */
int x4_iget(struct x4_vol *v, uint32_t ino, const uint32_t *gen, struct x4_inode **ret);
/* Only if it is in memory: never blocks, NULL otherwise. */
struct x4_inode *x4_iget_cached(struct x4_vol *v, uint32_t ino);
struct x4_inode *x4_iref(struct x4_inode *i);
/* Drops n references. May delete the file's blocks; a loop thread, in the mode of nowait.h, leaves that to a worker if it is much. */
void x4_iput_n(struct x4_inode *i, uint64_t n);
static inline void x4_iput(struct x4_inode *i) { if (i) x4_iput_n(i, 1); }
/* fn is called, on any thread, not blocking, when a loop thread has left deletions to others: x4_vol_reap on a worker does them. */
void x4_vol_set_reaper(struct x4_vol *v, void (*fn)(void *arg), void *arg);
void x4_vol_reap(struct x4_vol *v);

/* References that somebody outside was told of are counted, too: sub says how many of n there were. Any thread, never blocks. */
void x4_lookups_add(struct x4_inode *i, uint64_t n);
uint64_t x4_lookups_sub(struct x4_inode *i, uint64_t n);

uint32_t x4_inode_ino(const struct x4_inode *i);
uint32_t x4_inode_gen(const struct x4_inode *i);
uint32_t x4_inode_mode(const struct x4_inode *i); /* type and permissions */
uint64_t x4_inode_size(const struct x4_inode *i); /* any thread, never blocks; atomic */
uint32_t x4_inode_flags(struct x4_inode *i);      /* EXT4_*_FL */
/* Of these flags alone; any thread, never blocks: what every write asks. Numbers as on disk. */
enum { X4_LIVE_SYNC = 0x8, X4_LIVE_IMMUTABLE = 0x10, X4_LIVE_FLAGS = X4_LIVE_SYNC | X4_LIVE_IMMUTABLE };
uint32_t x4_inode_live_flags(const struct x4_inode *i);
struct x4_vol *x4_inode_vol(struct x4_inode *i);

/* A slot for the rooms above (dio: gate, in-flight counts). Set once; dtor runs when the inode is freed. */
void *x4_inode_upper(struct x4_inode *i);         /* any thread, never blocks */
void *x4_inode_set_upper(struct x4_inode *i, void *p, void (*dtor)(void *)); /* returns the winner if raced */

struct x4_attr {
	uint32_t ino, gen, mode, nlink, uid, gid, rdev; /* rdev in Linux's 32-bit new encoding */
	uint64_t size, blocks_512;
	struct timespec atime, mtime, ctime, btime;
	uint32_t flags;                                  /* EXT4_*_FL */
};
void x4_getattr(struct x4_inode *i, struct x4_attr *ret); /* any thread; takes only the attr mutex */

enum {
	X4_SET_MODE = 1 << 0, X4_SET_UID = 1 << 1, X4_SET_GID = 1 << 2, X4_SET_ATIME = 1 << 3, X4_SET_MTIME = 1 << 4,
	X4_SET_CTIME = 1 << 5, X4_SET_FLAGS = 1 << 6, X4_SET_ATIME_NOW = 1 << 7, X4_SET_MTIME_NOW = 1 << 8,
	X4_KILL_SUIDGID = 1 << 9, /* clear suid, and sgid where group-executable; drop security.capability */
	X4_TOUCH_CTIME = 1 << 10, /* ctime becomes now, even if nothing else is to be done */
	X4_KILL_SGID = 1 << 11,   /* with X4_KILL_SUIDGID: sgid in any case, because who does it is not of the file's group */
	X4_BY_ROOT = 1 << 13,     /* an ACL that follows the mode may use the reserved blocks */
	X4_KILL_CAPS = 1 << 12,   /* drop security.capability alone: a write by somebody who may keep set-ID bits */
};
/* Everything but size (x4_truncate). ctime is set to now unless X4_SET_CTIME. One transaction. Takes the inode lock
 * exclusively: the caller holds it in no mode. KILL_SUIDGID alone with nothing to kill changes nothing. */
int x4_setattr(struct x4_inode *i, unsigned what, const struct x4_attr *a);
/* A completed write: mtime and ctime now, lazily written. Any thread, never blocks. */
void x4_touch_write(struct x4_inode *i);
/* A completed read: atime by the policy. Any thread, never blocks. */
void x4_touch_read(struct x4_inode *i);
/* suid/sgid/capabilities need killing before a write by an unprivileged process. Any thread; may say true needlessly. */
bool x4_needs_killpriv(struct x4_inode *i);
/* Looks, and remembers for the above: true if there is nothing to kill, whoever writes. The inode is locked, in either mode. */
bool x4_nothing_to_kill(struct x4_inode *i);

/* Transaction that fsync (datasync: fdatasync, O_DSYNC) of this inode has to wait for; false if none. Writes lazily
 * changed times into a transaction first unless datasync. */
bool x4_sync_tid(struct x4_inode *i, bool datasync, jnl_tid *ret);
/* The same without writing times (x4_times_pending: there are some). Any thread, never block. */
bool x4_sync_tid_noted(struct x4_inode *i, bool datasync, jnl_tid *ret);
bool x4_times_pending(struct x4_inode *i);

/* ------------------------------------------------------------------ extents: reading (data/map.c) */
enum x4_ext_state { X4_EXT_HOLE = 0, X4_EXT_WRITTEN, X4_EXT_UNWRITTEN };
/* A run of blocks in one state. For a hole pblk is 0 and lblk + len is the next extent (or UINT32_MAX). */
struct x4_ext {
	uint32_t lblk, len;
	uint64_t pblk;
	enum x4_ext_state state;
};
/*
 * The run that contains lblk, from lblk on. 0, or -EAGAIN: the map is not in memory, call x4_map_load on a
 * worker. Any thread, never blocks, no lock; brackets itself with epoch_enter/epoch_exit unless the caller is inside
 * already (the result is a copy). The length of a hole never makes lblk + len exceed UINT32_MAX. What keeps the blocks from being freed under an I/O in flight is the dio gate.
 */
int x4_map_lookup(struct x4_inode *i, uint32_t lblk, struct x4_ext *ret);
/* Brings the whole map into memory. Blocks. -EUCLEAN for a broken tree. */
int x4_map_load(struct x4_inode *i);
/* The content lies in the inode (inline_data): it has no map, and x4_inline_read is how it is read:
 * bytes, 0 at the end, or -errno. Such volumes are only read. Any thread, never block. */
bool x4_inode_inline(const struct x4_inode *i);
ssize_t x4_inline_read(struct x4_inode *i, uint64_t off, void *buf, size_t len);
bool x4_vol_has_inline(const struct x4_vol *v); /* there may be such inodes */
/* SEEK_DATA / SEEK_HOLE: byte offsets; -ENXIO beyond the end. */
int x4_seek(struct x4_inode *i, uint64_t off, bool want_data, uint64_t *ret);

/* ------------------------------------------------------------------ extents: changing (data/reservation.c ...) */
/*
 * A reservation of blocks for a range of holes: taken before any data I/O, so that ENOSPC is found with
 * nothing changed. The blocks are marked in the in-memory allocation image only; a crash forgets them.
 * Then data is written, then x4_insert puts the extents in the tree in one transaction. Extents beyond
 * nr_inline are chained; x4_resv_free releases what was not inserted.
 */
struct x4_resv {
	struct x4_inode *inode;
	unsigned nr, cap;
	unsigned meta;            /* blocks set aside (x4_meta_reserve) for the tree nodes that inserting may need */
	bool root;
	struct x4_ext *ext;       /* sorted, state WRITTEN; ext == inline_ext or x4_map_mem */
	struct x4_ext inline_ext[8];
};
/* Reserves blocks for every hole in [lblk, lblk+len). -ENOSPC with nothing taken. Caller holds x4_inode_lock (either mode)
 * and excludes other reservations of the same blocks (range lock). root: may use the reserved blocks. */
int x4_resv_holes(struct x4_inode *i, uint32_t lblk, uint32_t len, bool root, struct x4_resv *r);
void x4_resv_free(struct x4_resv *r);
/*
 * The data of r's blocks and of [conv_lblk, +conv_len) is on the device (completed): inserts r's extents, converts
 * unwritten extents in the conv range (len 0: none) to written, and publishes new_size if it is larger than i_size
 * (0: no change), mtime and ctime too. One or more transactions, each leaves a checkable file system; size last.
 * -EIO if x4_truncate_finish should have come first; so also of x4_publish_size.
 */
int x4_insert(struct x4_inode *i, struct x4_resv *r, uint32_t conv_lblk, uint32_t conv_len, uint64_t new_size);
/* Size only (extending a file within allocated blocks or as a hole). */
int x4_publish_size(struct x4_inode *i, uint64_t new_size);

/*
 * Append windows (data/append_window.c): blocks ahead of a file that grows at its end by whole blocks, mapped as written behind the size.
 * Opened with the inode lock held exclusively, at the end of the file; at most bytes. -ENOSPC: no window, nothing else is wrong.
 */
int x4_window_open(struct x4_inode *i, uint64_t bytes, bool root);
/* Byte where the window ends, 0 without one; appends up to there are overwrites of mapped blocks. Any thread, never blocks. */
uint64_t x4_window_end(const struct x4_inode *i);
/* Everything before size (a multiple of blocks, in the window) is on the device: readers may see it. In ascending order. Any
 * thread, never blocks. */
void x4_window_publish(struct x4_inode *i, uint64_t size);
/* Blocks that were published but are not in the tree: fsync settles before x4_sync_tid. Any thread. */
uint32_t x4_window_unsettled(const struct x4_inode *i);
int x4_window_settle(struct x4_inode *i);
/* Settles and gives the rest back. Inode lock held exclusively, no append in flight (gate closed for writes). Whoever moves
 * the size or maps blocks behind it does this first. The window is closed whatever the result:
 * after an error drain (NULL: no read is in flight either) is called before the blocks are given
 * back, and returns when nobody reads what is no longer mapped. */
int x4_window_close(struct x4_inode *i, void (*drain)(void *arg), void *arg);
/* What closing a window gave up and nobody was told yet: its error, once; clear false: it stays. Any thread, never blocks. */
int x4_window_lost(struct x4_inode *i, bool clear);
/* All windows of the volume; the next of them in turn with a reference, NULL if there is none. */
int x4_windows_settle(struct x4_vol *v);
unsigned x4_windows_count(struct x4_vol *v);
struct x4_inode *x4_windows_next(struct x4_vol *v);
/* fn closes all windows for x4_eviction_since, on a worker that holds no lock; true if there were any. NULL: nobody. Set while nothing runs. */
void x4_windows_set_reclaim(struct x4_vol *v, bool (*fn)(void *arg), void *arg);

/* Serialises changes of one file against each other: shared for I/O inside the size, exclusive for everything that
 * moves the size, frees blocks or changes a directory. Worker threads only (may wait for I/O). */
void x4_inode_lock_shared(struct x4_inode *i);
void x4_inode_lock_excl(struct x4_inode *i);
void x4_inode_unlock(struct x4_inode *i);
/* The same for what may run in the mode of nowait.h: -EAGAIN there if somebody is in the way, else 0. */
int x4_inode_enter_shared(struct x4_inode *i);
int x4_inode_enter_excl(struct x4_inode *i);

/*
 * The calls below change allocation under direct I/O: the caller has closed the inode's gate and drained it
 * (dio_gate_close), and holds the exclusive inode lock.
 */
/* Shrinks or grows; zeroes the tail of the last block on disk; frees blocks beyond, also preallocated ones.
 * Bounded transactions, orphan list in between. */
int x4_truncate(struct x4_inode *i, uint64_t size);
/*
 * Frees data behind the end of the file, if there is any: a truncate that failed half-way leaves it
 * there, or a crash, or whoever made the image. Comes before anything is written behind the end or the
 * size grows, because the old contents must not show. Looks once for each inode in memory. Workers, the
 * inode locked exclusively, the gate closed for writes; no append window, or one that was opened before.
 */
int x4_truncate_finish(struct x4_inode *i);
enum { X4_FALLOC_KEEP_SIZE = 1, X4_FALLOC_PUNCH_HOLE = 2, X4_FALLOC_ZERO_RANGE = 0x10 }; /* as FALLOC_FL_* */
int x4_fallocate(struct x4_inode *i, int mode, uint64_t off, uint64_t len, bool root);

/* ------------------------------------------------------------------ names (dir/names.c, dir/rename.c) */
/* Who creates: for ownership of the new inode (setgid directories are handled inside). */
struct x4_cred {
	uint32_t uid, gid, umask;
	bool cap_fsetid;
	bool root;                    /* may use the reserved blocks */
	const uint32_t *groups;
	unsigned nr_groups;
};

/* Every name is len bytes without NUL. -ENAMETOOLONG beyond 255. References are returned; dirs are locked inside. */
int x4_lookup(struct x4_inode *dir, const char *name, unsigned len, struct x4_inode **ret);
/* True if the directory has another parent since this was last asked: a listing of it kept elsewhere is wrong. Any thread. */
bool x4_dir_moved(struct x4_inode *dir);
/* The parent of a directory ("..."). */
int x4_lookup_parent(struct x4_inode *dir, struct x4_inode **ret);
/* Any type but symlink; rdev for devices. Applies default ACLs (mode is then not masked with umask). */
int x4_create(struct x4_inode *dir, const char *name, unsigned len, uint32_t mode, uint32_t rdev, const struct x4_cred *c,
	      struct x4_inode **ret);
int x4_symlink(struct x4_inode *dir, const char *name, unsigned len, const char *target, unsigned target_len,
	       const struct x4_cred *c, struct x4_inode **ret);
/*
 * A file without names is deleted when the last reference goes, and over FUSE the kernel gives its own up some time after
 * unlink(2) or close(2) has returned. Who finds no space asks first whether some of that is still on its way:
 *   uint64_t since = x4_evictions(v); do err = ...; while (err == -ENOSPC && x4_eviction_since(v, &since));
 * x4_eviction_since has append windows closed, once; then it waits for deletions that have begun, for those whose FORGET is on
 * its way, and, shortly after an unlink or a close, for files whose RELEASE or its answer may be; true if one has ended since.
 * Workers.
 */
uint64_t x4_evictions(const struct x4_vol *v);
bool x4_eviction_since(struct x4_vol *v, uint64_t *since);
/* fn says whether the kernel still has the inode ino itself: no, and its FORGET is on its way. On a worker that holds no lock.
 * Set before anything runs. */
void x4_vol_set_held(struct x4_vol *v, bool (*fn)(void *arg, uint32_t ino), void *arg);
/* A file or directory is opened (1) or closed (-1). Any thread. */
void x4_opened(struct x4_inode *i, int n);
/* O_TMPFILE: no name, on the orphan list, nlink 0. */
int x4_tmpfile(struct x4_inode *dir, uint32_t mode, const struct x4_cred *c, struct x4_inode **ret);
int x4_link(struct x4_inode *dir, const char *name, unsigned len, struct x4_inode *target, bool root);
int x4_unlink(struct x4_inode *dir, const char *name, unsigned len);
int x4_rmdir(struct x4_inode *dir, const char *name, unsigned len);
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT as renameat2. One transaction. */
int x4_rename(struct x4_inode *odir, const char *oname, unsigned olen, struct x4_inode *ndir, const char *nname, unsigned nlen,
	      unsigned flags, const struct x4_cred *c);
/* buf of at least 4097 bytes: the target with a NUL; its length without. */
int x4_readlink(struct x4_inode *i, char *buf, size_t cap, unsigned *ret_len);

struct x4_dirent { uint32_t ino; uint8_t type; /* DT_* */ uint8_t name_len; const char *name; uint64_t next_cookie; };
/*
 * Entries after cookie (0: from the start, "." and ".." included) in a stable order: an entry that stays is seen exactly
 * once whatever is inserted or removed meanwhile. emit returns false to stop (that entry is not consumed). dir is locked shared.
 */
int x4_readdir(struct x4_inode *dir, uint64_t cookie, bool (*emit)(void *arg, const struct x4_dirent *e), void *arg);

/* ------------------------------------------------------------------ xattrs (xattr/xattr.c, xattr/acl.c) */
/* Full names ("user.foo"). size 0: only the length. *ret_len always set on success. -ENODATA, -ERANGE, -EOPNOTSUPP. */
int x4_xattr_get(struct x4_inode *i, const char *name, void *buf, size_t size, size_t *ret_len);
/* NUL-separated names; trusted: with those that only a privileged process may know of. */
int x4_xattr_list(struct x4_inode *i, bool trusted, char *buf, size_t size, size_t *ret_len);
enum {
	X4_XATTR_KILL_SGID = 1 << 0, /* as FUSE_SETXATTR_ACL_KILL_SGID */
	X4_XATTR_ROOT = 1 << 1,      /* may use the reserved blocks */
};
/* flags: XATTR_CREATE, XATTR_REPLACE. value NULL with len 0 is an empty value. how: X4_XATTR_*. */
int x4_xattr_set(struct x4_inode *i, const char *name, const void *value, size_t len, int flags, unsigned how);
int x4_xattr_remove(struct x4_inode *i, const char *name);

#endif
