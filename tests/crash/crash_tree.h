/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the two halves of the tree workload share: its model, which says what the files should be,
 * and the bytes that the files consist of. crash_tree.c makes the changes, crash_tree_check.c
 * judges a recovered image.
 */
#ifndef FDIO_CRASH_TREE_H
#define FDIO_CRASH_TREE_H

#include "crash/crash.h"
#include "ext4/ext4.h"

enum {
	NR_THREADS = 3,
	NR_NAMES = 8,  /* of a thread */
	NR_DIRS = 3,
	NR_FILES = 96, /* that a thread makes in a run */
	MAX_BLOCKS = 24,
	ROUNDS = 70,
	ROUNDS_TINY = 60,
	MAX_OPS = 400,
	MAX_ACKS = 400
};
enum kind { KIND_NONE, KIND_FILE, KIND_DIR };

struct file {
	uint32_t id;
	enum kind kind;
	uint64_t size;
	uint32_t gen[MAX_BLOCKS];   /* generation of a block; 0: hole or unwritten */
	uint32_t valid[MAX_BLOCKS]; /* bytes of that generation; a truncate has zeroed the rest */
	uint32_t xattr;             /* number of the attribute's value; 0: none */
	bool dirty;                 /* changed since it was synced */
};

/* After so many events, what the name stood for after its first ops operations was durable. */
struct ack {
	unsigned event, ops;
	bool content;               /* the file too; else the name alone */
	struct file file;           /* KIND_NONE: no such name */
};

struct name {
	struct file *file;          /* NULL: no such name */
	unsigned ops, start[MAX_OPS]; /* operations on the file so far; event at which each began */
	uint32_t ids[NR_FILES];           /* files that have had this name */
	unsigned nr_ids;
	struct ack *acks;
	unsigned nr_acks;
};

struct worker {
	struct crash_run *run;
	pthread_t thread;
	unsigned nr;
	uint64_t seed;
	uint32_t gen;               /* of the last write: each one has its own */
	struct name name[NR_NAMES];
	struct file file[NR_FILES];
	unsigned nr_files;
	uint8_t *buf;
	int err;
};

struct crash_run {
	struct fake_dev *fake;
	struct ext4_vol *vol;
	struct ext4_inode *dir[NR_DIRS]; /* 0 is the root */
	unsigned block_size, nr_workers;
	struct worker worker[NR_THREADS];
};

extern const struct ext4_options tree_options;
#define TREE_XATTR_MAX 5000
extern const char tree_xattr_name[];

/* crash_tree.c */
/* The name of slot n of a worker; returns its length. */
unsigned tree_text(char *buf, size_t len, unsigned worker, unsigned n);
/* The content of a block of the file id, and the word in it that depends on the place. */
void tree_fill(uint8_t *buf, unsigned bs, uint32_t id, uint32_t lblk, uint32_t gen);
uint32_t tree_mix(uint32_t id, uint32_t lblk, unsigned off);
/* The attribute's value number v; returns its length. */
size_t tree_xattr_value(uint8_t *buf, uint32_t v);
bool tree_open_dirs(struct ext4_vol *vol, struct ext4_inode **dir, bool make);
void tree_close_dirs(struct ext4_inode **dir);

/* crash_tree_check.c */
bool tree_check(struct crash_run *run, struct fake_dev *fake, unsigned k, char *why, size_t len);
bool tree_digest(struct crash_run *run, struct fake_dev *fake, uint64_t *sum, char *why,
		 size_t len);

#endif
