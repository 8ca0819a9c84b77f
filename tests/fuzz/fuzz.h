/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The fuzzers: what an image and what a FUSE message can do to the program, in one process, without
 * a mount.
 *
 * A case is made from a stream of decisions (struct rnd): from a seed by the plain driver, from
 * libFuzzer's bytes by the other. One driver (fuzz_driver.c) runs cases in children of its own, so
 * that a crash or an endless loop is a line of the report and not the end of the run.
 */
#ifndef FDIO_FUZZ_H
#define FDIO_FUZZ_H

#include "base/counters.h"
#include "base/util.h"
#include "dev/dev.h"

#include <stdio.h>
#include <string.h>

/*
 * What must hold in every case. The message goes to stderr, the process ends as if it had crashed.
 */
void fuzz_failed(const char *what, const char *file, int line) __attribute__((noreturn));
#define MUST(e) (likely(e) ? (void)0 : fuzz_failed(#e, __FILE__, __LINE__))

/* ---- work ---- */
/* Metadata blocks that have been looked at so far. */
static inline uint64_t work_so_far(void)
{
	return fdio_counter_read(COUNTER_journal_cache_hit) +
	       fdio_counter_read(COUNTER_journal_cache_miss);
}

/* What one operation may look at in an image of that size, whatever the image says of itself:
 * honest ones, and damage that is not meant, need a tenth of it. */
static inline uint64_t work_allowed(uint64_t image_bytes) { return 2000 + (image_bytes >> 10); }

/* ---- decisions ---- */
struct rnd {
	uint64_t state;
	const uint8_t *data; /* libFuzzer: the decisions; afterwards every decision is 0 */
	size_t left;
};

static inline struct rnd rnd_seed(uint64_t seed)
{
	return (struct rnd){ .state = seed * 0x9e3779b97f4a7c15ULL + 1 };
}
uint64_t rnd_u64(struct rnd *rng);
static inline unsigned rnd_n(struct rnd *rng, unsigned n)
{
	return n ? (unsigned)(rnd_u64(rng) % n) : 0;
}
/* Data is used up: libFuzzer's cases end then. Never true with a seed. */
static inline bool rnd_over(const struct rnd *rng) { return rng->data && !rng->left; }

/* ---- a device that is a piece of memory (fuzz_dev.c) ---- */
struct fuzz_dev {
	struct dev dev;
	uint8_t *img;
	const uint8_t *base; /* what fuzz_dev_reset goes back to */
	uint64_t size;
	uint8_t *touched;    /* one byte for each 4096 of img */
	uint64_t reads, writes;
};
/* Takes over img, size bytes; base stays the caller's. */
struct fuzz_dev *fuzz_dev_new(uint8_t *img, const uint8_t *base, uint64_t size);
void fuzz_dev_free(struct fuzz_dev *dev);
void fuzz_dev_touch(struct fuzz_dev *dev, uint64_t off, uint64_t len);
void fuzz_dev_reset(struct fuzz_dev *dev);

/* ---- base images and the structures in them (fuzz_base.c, fuzz_scan.c) ---- */
enum kind {
	K_SB,
	K_GD,
	K_BBM,
	K_IBM,
	K_INODE,
	K_EXTENT,
	K_INDIRECT,
	K_DIR,
	K_DXROOT,
	K_DXNODE,
	K_XATTR,
	K_SYMLINK,
	K_ORPHAN,
	K_JSB,
	K_JDESC,
	K_JREVOKE,
	K_JCOMMIT,
	K_NR,
};
extern const char *const kind_names[K_NR];

/*
 * One structure: where its bytes are (perhaps a copy in the log), and what its checksum depends on.
 */
struct target {
	enum kind kind;
	uint64_t off;      /* in the image */
	uint32_t len;
	/* inode; or group for K_GD, K_BBM, K_IBM; or the log's block number for K_J* */
	uint32_t ino;
	uint64_t home;     /* its block's number: off's block unless this is a copy in the log */
	int tag;           /* index of the log's tag for this copy, or -1 */
};

struct log_tag { uint64_t desc_off, image_off; uint32_t tag_off, tid; };

struct base {
	const char *name;
	/*
	 * shared mapping of fd: children of the driver map it privately, so that forking costs
	 * little
	 */
	uint8_t *img;
	int fd;
	uint64_t size;
	uint32_t bs, inode_size, desc_size, nr_groups, bpg, ipg, nr_inodes, journal_ino;
	uint64_t nr_blocks;
	bool csum, gdt_csum, read_only;
	uint32_t seed, jseed;
	uint8_t uuid[16];
	struct target *target;
	unsigned nr, cap;
	unsigned first[K_NR + 1]; /* targets are sorted by kind */
	struct log_tag *tags;
	unsigned nr_tags;
	uint32_t *inos;           /* of the targets that are inodes */
	unsigned nr_inos;
	uint64_t *gd_off;         /* group descriptors */
	uint32_t orphan_ino;
};

/* All images; made once, before the first case. False with a message on stderr. */
bool bases_make(const char *only);
unsigned bases_count(void);
struct base *bases_get(unsigned i);
struct base *bases_find(const char *name);
/* Finds the structures of base->img. */
bool base_scan(struct base *base);
/* Inode number of a path, 0 if there is none. */
uint32_t base_path_ino(struct base *base, const char *path);

/* ---- mutations (fuzz_mutate.c) and checksums (fuzz_csum.c) ---- */
enum mut_op { M_SET, M_ADD, M_XOR, M_FILL, M_COPY, M_ROWS };
struct mut {
	unsigned target;
	enum mut_op op;
	uint32_t off, width; /* FILL, COPY: bytes; else 1, 2, 4, 8 */
	uint64_t value;      /* COPY: offset in the image where the bytes come from */
	uint32_t stride, count, step; /* ROWS: as SET, in so many places, each greater by step */
};
#define MAX_MUTS 24
struct image_case {
	struct base *base;
	unsigned nr;
	struct mut mut[MAX_MUTS];
	bool fix;            /* checksums */
	bool norecovery, read_only, abandon;
	int errors;          /* enum ext4_errors_policy */
	uint64_t walk;       /* seed of what is done to the mounted volume */
};
void case_make(struct rnd *rng, struct image_case *test);
void case_apply(const struct image_case *test, struct fuzz_dev *dev);
void case_print(const struct image_case *test, FILE *f);
/* A case as case_print writes it; "image" comes first. False with a message. */
bool case_parse(const char *text, struct image_case *test);
void target_fix(struct base *base, const struct target *target, uint8_t *img);
void tags_fix(struct base *base, const struct image_case *test, uint8_t *img);

/* ---- a volume and what is done to it (fuzz_walk.c) ---- */
struct walk_result { int mount; unsigned opened, ops, unclean; uint64_t work; };
/* pristine: nothing was changed: no operation may find damage. */
void walk_image(const struct image_case *test, struct fuzz_dev *dev, bool pristine,
		struct walk_result *ret);

/* ---- the driver (fuzz_driver.c) ---- */
struct fuzz_target {
	const char *name;
	bool (*setup)(void);
	/*
	 * One case; text NULL: from r. Crashes are the driver's to catch. show: prints the case
	 * instead of running it.
	 */
	void (*run)(struct rnd *r, const char *text, bool show);
	const char *suffix; /* of files of the corpus */
	/* --save: writes what the case makes of its image to a file; or NULL. */
	bool (*save)(struct rnd *r, const char *path);
	uint64_t cpu_s, rss_kib;
};
int fuzz_main(const struct fuzz_target *target, int argc, char **argv);

#endif
