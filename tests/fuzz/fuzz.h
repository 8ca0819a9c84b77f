/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The fuzzers: hostile images (fuzz_image.c) and hostile FUSE messages (fuzz_msg.c), in one process
 * and without a mount. A case fails when the program crashes, a sanitizer complains, an assertion
 * or a MUST does not hold, or when it takes too much time, memory or work.
 *
 * A case is made from a stream of decisions (struct rnd), which come from a seed (fuzz_driver.c) or
 * from the bytes that libFuzzer gives (fuzz_lf.c). fuzz_driver.c runs each case in a child process,
 * so that a crash or an endless loop is a line of the report and not the end of the run.
 *
 * Images: fuzz_base.c makes them, fuzz_scan.c finds their structures, fuzz_mutate.c damages these,
 * fuzz_csum.c puts checksums right, fuzz_walk.c mounts the image and works on it, all on the device
 * of fuzz_dev.c.
 */
#ifndef FDIO_FUZZ_H
#define FDIO_FUZZ_H

#include "base/counters.h"
#include "base/util.h"
#include "dev/dev.h"

#include <stdio.h>
#include <string.h>

/* What must hold in every case. Else a message goes to stderr and the process aborts. */
void fuzz_failed(const char *what, const char *file, int line) __attribute__((noreturn));
#define MUST(e) (likely(e) ? (void)0 : fuzz_failed(#e, __FILE__, __LINE__))

/* ---- work ---- */
/* How many metadata blocks the process has looked at so far. */
static inline uint64_t work_so_far(void)
{
	return fdio_counter_read(COUNTER_journal_cache_hit) +
	       fdio_counter_read(COUNTER_journal_cache_miss);
}

/*
 * How many of them one operation may look at in an image of that size, whatever the image says of
 * itself. Sound images, and images with random damage, need a tenth of it.
 */
static inline uint64_t work_allowed(uint64_t image_bytes) { return 2000 + (image_bytes >> 10); }

/* ---- decisions ---- */
struct rnd {
	uint64_t state;
	const uint8_t *data; /* libFuzzer's bytes or NULL; used up, decisions are 0 */
	size_t left;
};

static inline struct rnd rnd_seed(uint64_t seed)
{
	return (struct rnd){ .state = seed * 0x9e3779b97f4a7c15ULL + 1 };
}
uint64_t rnd_u64(struct rnd *rng);
/* 0 to n - 1; 0 if n is 0. */
static inline unsigned rnd_below(struct rnd *rng, unsigned n)
{
	return n ? (unsigned)(rnd_u64(rng) % n) : 0;
}
/* libFuzzer's bytes are used up, so the case should end. Never true with a seed. */
static inline bool rnd_over(const struct rnd *rng) { return rng->data && !rng->left; }

/* ---- a device that is a piece of memory (fuzz_dev.c) ---- */
struct fuzz_dev {
	struct dev dev;
	uint8_t *img;
	const uint8_t *base; /* what fuzz_dev_reset restores */
	uint64_t size;
	uint8_t *touched;    /* one byte for each 4096 of img */
	uint64_t reads, writes;
};
/* Takes over img, a mapping of size bytes; base stays the caller's. */
struct fuzz_dev *fuzz_dev_new(uint8_t *img, const uint8_t *base, uint64_t size);
void fuzz_dev_free(struct fuzz_dev *dev);
/* The range has been changed directly in img. */
void fuzz_dev_touch(struct fuzz_dev *dev, uint64_t off, uint64_t len);
/* Restores what was changed. */
void fuzz_dev_reset(struct fuzz_dev *dev);

/* ---- base images and the structures in them (fuzz_base.c, fuzz_scan.c) ---- */
/* From KIND_LOG_SUPERBLOCK on, fields are big-endian. */
enum kind {
	KIND_SUPERBLOCK,
	KIND_GROUP_DESC,
	KIND_BLOCK_BITMAP,
	KIND_INODE_BITMAP,
	KIND_INODE,
	KIND_EXTENT_NODE,
	KIND_INDIRECT,
	KIND_DIR_BLOCK,
	KIND_INDEX_ROOT,
	KIND_INDEX_NODE,
	KIND_XATTR,
	KIND_SYMLINK,
	KIND_ORPHAN,
	KIND_LOG_SUPERBLOCK,
	KIND_LOG_DESCRIPTOR,
	KIND_LOG_REVOKE,
	KIND_LOG_COMMIT,
	NR_KINDS,
};
extern const char *const kind_names[NR_KINDS]; /* as cases have them */

/* One structure, or a copy of it in the log: where its bytes are, and what its checksum covers. */
struct target {
	enum kind kind;
	uint64_t off;      /* in the image */
	uint32_t len;
	/*
	 * The inode it belongs to; the group, for descriptors and bitmaps; the number of the block
	 * in the log, for the kinds of the log.
	 */
	uint32_t ino;
	uint64_t home;     /* number of its block; for a copy in the log, of the original's */
	int tag;           /* index of the log's tag for this copy, or -1 */
};

/* A tag in a descriptor of the log: offsets of the descriptor and of the copy in the image. */
struct log_tag { uint64_t desc_off, image_off; uint32_t tag_off, tid; };

struct base {
	const char *name;
	/* A shared mapping of fd. Children map fd privately, so that a fork copies no pages. */
	uint8_t *img;
	int fd;
	uint64_t size;
	uint32_t block_size, inode_size, desc_size, nr_groups, nr_inodes, journal_ino;
	uint32_t clusters_per_group, inodes_per_group;
	uint64_t nr_blocks;
	bool metadata_csum, gdt_csum, read_only;
	uint32_t seed, log_seed;  /* of checksums: of the file system, of the log */
	uint8_t uuid[16];
	struct target *target;
	unsigned nr, cap;
	unsigned first[NR_KINDS + 1]; /* targets are sorted by kind */
	struct log_tag *tags;
	unsigned nr_tags;
	uint32_t *inos;           /* of the targets that are inodes */
	unsigned nr_inos;
	uint64_t *group_desc_off; /* by group, in the image */
	uint32_t orphan_ino;
};

/*
 * Makes all images, or those whose names begin with only; once, before the first case. False with a
 * message on stderr.
 */
bool bases_make(const char *only);
unsigned bases_count(void);
struct base *bases_get(unsigned i);
struct base *bases_find(const char *name);
/* Finds the structures of base->img. */
bool base_scan(struct base *base);
/* Inode number of a path, 0 if there is none. */
uint32_t base_path_ino(struct base *base, const char *path);

/* ---- mutations (fuzz_mutate.c) and checksums (fuzz_csum.c) ---- */
enum mutation_op { MUTATE_SET, MUTATE_ADD, MUTATE_XOR, MUTATE_FILL, MUTATE_COPY, MUTATE_ROWS };
struct mutation {
	unsigned target;
	enum mutation_op op;
	uint32_t off, width; /* in bytes; width is 1, 2, 4 or 8, except for FILL and COPY */
	uint64_t value;      /* COPY: offset in the image where the bytes come from */
	/* ROWS: as SET, count times, stride bytes apart, the value growing by step. */
	uint32_t stride, count, step;
};
#define MAX_MUTATIONS 24
struct image_case {
	struct base *base;
	unsigned nr;
	struct mutation mut[MAX_MUTATIONS];
	bool fix_checksums;
	bool norecovery, read_only, abandon;
	int errors;          /* enum ext4_errors_policy */
	uint64_t walk;       /* seed of what is done to the mounted volume */
};
void case_make(struct rnd *rng, struct image_case *test);
/* Damages the image of dev, which is the case's base. */
void case_apply(const struct image_case *test, struct fuzz_dev *dev);
void case_print(const struct image_case *test, FILE *f);
/* Reads a case as case_print writes it; "image" comes first. False with a message on stderr. */
bool case_parse(const char *text, struct image_case *test);
/* Puts the checksum of a structure in img right. */
void target_fix_checksum(struct base *base, const struct target *target, uint8_t *img);
/* Puts the checksums of the copies in the log that the case changed right. */
void tags_fix_checksums(struct base *base, const struct image_case *test, uint8_t *img);

/* ---- a volume and what is done to it (fuzz_walk.c) ---- */
/* mount: 0 or -errno; unclean: operations that met damage; work: blocks of the greatest one. */
struct walk_result { int mount; unsigned opened, ops, unclean; uint64_t work; };
/* pristine: the image is undamaged, so no operation may find damage. */
void walk_image(const struct image_case *test, struct fuzz_dev *dev, bool pristine,
		struct walk_result *ret);

/* ---- the driver (fuzz_driver.c) ---- */
struct fuzz_target {
	const char *name;
	bool (*setup)(void);
	/* Runs one case, from text or, if that is NULL, from rng. show: prints it instead. */
	void (*run)(struct rnd *rng, const char *text, bool show);
	const char *suffix; /* of files of the corpus */
	/* For --save: writes the damaged image to a file; or NULL. */
	bool (*save)(struct rnd *rng, const char *path);
	uint64_t cpu_s, rss_kib; /* what a case may use */
};
int fuzz_main(const struct fuzz_target *target, int argc, char **argv);

#endif
