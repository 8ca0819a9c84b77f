/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The differential test makes the same random sequence of system calls in two directories: one on
 * fusedio, the other on the kernel's ext4 with an identical file system. A step depends only on the
 * seed and its number (diff_gen.c), so that others can be left out when a difference is narrowed
 * down. It runs on both sides (diff_file.c, diff_name.c, diff_attr.c). Then the results and the
 * attributes of the files that it names are compared (diff_compare.c), at the end of all steps the
 * whole trees (diff_tree.c). One thread; needs root, because steps change users.
 */
#ifndef FDIO_DIFF_H
#define FDIO_DIFF_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#define NSLOTS 8
#define PATH_CAP 600
#define NAME_CAP 320
#define TEXT_CAP 1024
#define ARENA_BYTES (4u << 20)

struct rng { uint64_t x; };
uint64_t rnd(struct rng *rng);
unsigned below(struct rng *rng, unsigned n);
bool chance(struct rng *rng, unsigned percent);

struct side {
	const char *label;   /* "fusedio" or "ext4" */
	const char *mount;   /* its mount point */
	bool ours;
	int64_t max_file;    /* the largest size of a file: 2^32 - 1 blocks */
	int top, root;       /* directory of the mount, directory of this run */
	int fd[NSLOTS];
};

/* Flags of a step, for the comparison. */
enum {
	OP_READS = 1 << 0,    /* moves atime, unless the page cache answers the read */
	OP_NO_TIMES = 1 << 1, /* times are not compared */
};

struct step;
struct outcome;
struct op {
	const char *name;
	unsigned weight, flags;
	void (*gen)(struct step *s, struct rng *r);
	void (*run)(struct side *d, const struct step *s, struct outcome *o);
};
extern const struct op diff_ops[];
extern const unsigned diff_nr_ops;

struct step {
	unsigned no;
	uint64_t seed;               /* for the data that it writes */
	const struct op *op;
	unsigned cred;
	unsigned umask;
	uint64_t fsize_limit;        /* RLIMIT_FSIZE, 0: none */
	bool pause;                  /* waits first, so that earlier times differ from now */
	bool has_path[2], has_slot[2];
	char path[2][PATH_CAP];
	unsigned slot[2];            /* of open files in side.fd */
	int64_t v[6];                /* arguments; diff_gen.c says which */
	char name[NAME_CAP];
};

struct outcome {
	long ret;
	int err;
	size_t len;
	char text[TEXT_CAP];
};

/* diff_gen.c */
void diff_make_step(uint64_t seed, unsigned no, struct step *step);
void diff_print_step(const struct step *step, char *buf, size_t cap);
struct diff_cred { unsigned uid, gid, nr_groups; unsigned groups[2]; };
extern const struct diff_cred diff_creds[];

/* For all steps. done sets ret and err from the result of a call; say appends to the text. */
void done(struct outcome *outcome, long r);
void say(struct outcome *outcome, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
uint64_t hash_bytes(uint64_t h, const void *p, size_t n);
void fill_bytes(uint8_t *p, size_t n, uint64_t seed);
extern uint8_t *diff_arena; /* page-aligned, ARENA_BYTES */
static inline int slot_fd(const struct side *side, const struct step *step, unsigned k)
{
	return side->fd[step->slot[k]];
}

/* The steps: diff_file.c */
void run_open(struct side *side, const struct step *step, struct outcome *outcome);
void run_close(struct side *side, const struct step *step, struct outcome *outcome);
void run_read(struct side *side, const struct step *step, struct outcome *outcome);
void run_write(struct side *side, const struct step *step, struct outcome *outcome);
void run_seek(struct side *side, const struct step *step, struct outcome *outcome);
void run_ftruncate(struct side *side, const struct step *step, struct outcome *outcome);
void run_truncate(struct side *side, const struct step *step, struct outcome *outcome);
void run_fallocate(struct side *side, const struct step *step, struct outcome *outcome);
void run_copy(struct side *side, const struct step *step, struct outcome *outcome);
void run_mmap(struct side *side, const struct step *step, struct outcome *outcome);
void run_map_grow(struct side *side, const struct step *step, struct outcome *outcome);
void run_fsync(struct side *side, const struct step *step, struct outcome *outcome);
void run_lock(struct side *side, const struct step *step, struct outcome *outcome);
void run_setfl(struct side *side, const struct step *step, struct outcome *outcome);
void run_fadvise(struct side *side, const struct step *step, struct outcome *outcome);
void run_holes(struct side *side, const struct step *step, struct outcome *outcome);
void run_rwf(struct side *side, const struct step *step, struct outcome *outcome);
/* diff_name.c */
void run_mkdir(struct side *side, const struct step *step, struct outcome *outcome);
void run_rmdir(struct side *side, const struct step *step, struct outcome *outcome);
void run_unlink(struct side *side, const struct step *step, struct outcome *outcome);
void run_link(struct side *side, const struct step *step, struct outcome *outcome);
void run_link_fd(struct side *side, const struct step *step, struct outcome *outcome);
void run_symlink(struct side *side, const struct step *step, struct outcome *outcome);
void run_readlink(struct side *side, const struct step *step, struct outcome *outcome);
void run_mknod(struct side *side, const struct step *step, struct outcome *outcome);
void run_rename(struct side *side, const struct step *step, struct outcome *outcome);
void run_readdir(struct side *side, const struct step *step, struct outcome *outcome);
void run_handle(struct side *side, const struct step *step, struct outcome *outcome);
void run_many(struct side *side, const struct step *step, struct outcome *outcome);
/* diff_attr.c */
void run_stat(struct side *side, const struct step *step, struct outcome *outcome);
void run_statfs(struct side *side, const struct step *step, struct outcome *outcome);
void run_chmod(struct side *side, const struct step *step, struct outcome *outcome);
void run_chown(struct side *side, const struct step *step, struct outcome *outcome);
void run_utimens(struct side *side, const struct step *step, struct outcome *outcome);
void run_access(struct side *side, const struct step *step, struct outcome *outcome);
void run_setxattr(struct side *side, const struct step *step, struct outcome *outcome);
void run_getxattr(struct side *side, const struct step *step, struct outcome *outcome);
void run_listxattr(struct side *side, const struct step *step, struct outcome *outcome);
void run_removexattr(struct side *side, const struct step *step, struct outcome *outcome);
void run_setacl(struct side *side, const struct step *step, struct outcome *outcome);
void run_getflags(struct side *side, const struct step *step, struct outcome *outcome);
void run_setflags(struct side *side, const struct step *step, struct outcome *outcome);
void run_fsxattr(struct side *side, const struct step *step, struct outcome *outcome);

/*
 * diff_compare.c: runs one step on both sides. Returns false and writes why (cap bytes) if they
 * differ in a way that diff_allowed does not list.
 */
bool diff_do_step(struct side *a, struct side *b, const struct step *step, bool verbose, char *why,
		  size_t cap);
/* Differences that FUSE makes unavoidable, and how often each was met. */
struct diff_allowed { const char *name, *reason; unsigned met; };
extern struct diff_allowed diff_allowed[];
extern const unsigned diff_nr_allowed;
enum {
	ALLOW_FALLOC,
	ALLOW_ATIME_CACHE,
	ALLOW_FIFO_TIMES,
	ALLOW_NOWAIT,
	ALLOW_TREE_BLOCKS,
	ALLOW_IOCTL_SPECIAL,
	ALLOW_DIR_SEEK,
	ALLOW_FLAGS,
	ALLOW_DIO_HOLE,
	ALLOW_DIO_UNALIGNED,
	ALLOW_IMMUTABLE_ORDER,
	ALLOW_SEEK_FAR,
	ALLOW_FAILED_TIMES,
	ALLOW_APPEND_FLAG,
	ALLOW_NR
};
bool diff_allow(unsigned which);
extern struct timespec diff_run_start;

/* diff_tree.c: compares the trees below two directories; prints and counts the differences. */
unsigned diff_trees(int a, int b, bool verbose);
bool diff_wipe(int top, const char *path); /* removes a whole tree, whatever its flags and modes */
/* diff_limits.c: tries the limits; counts the results that are neither as listed nor as ext4's. */
unsigned diff_limits(struct side *a, struct side *b);

#endif
