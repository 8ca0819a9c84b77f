/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the two halves of the tree workload share: its model, and the bytes that its files consist
 * of.
 */
#ifndef FDIO_CRASH_TREE_H
#define FDIO_CRASH_TREE_H

#include "crash/crash.h"
#include "ext4/ext4.h"

enum {
	NT = 3,
	NN = 8,
	NDIRS = 3,
	NF = 96,
	MAX_BLOCKS = 24,
	ROUNDS = 70,
	ROUNDS_TINY = 60,
	MAX_OPS = 400,
	MAX_ACKS = 400
};
enum kind { K_NONE, K_FILE, K_DIR };

struct file {
	uint32_t id;
	enum kind kind;
	uint64_t size;
	uint32_t gen[MAX_BLOCKS];   /* 0: hole or unwritten */
	uint32_t valid[MAX_BLOCKS]; /* bytes of that generation; a truncate has zeroed the rest */
	uint32_t xattr;             /* 0: none */
	bool dirty;                 /* changed since it was synced */
};

struct ack {
	unsigned event, ops;
	bool content;               /* else the name alone */
	struct file file;           /* K_NONE: no such name */
};

struct name {
	struct file *file;          /* NULL: free */
	unsigned ops, start[MAX_OPS];
	uint32_t ids[NF];           /* files that have had this name */
	unsigned nr_ids;
	struct ack *acks;
	unsigned nr_acks;
};

struct worker {
	struct crash_run *run;
	pthread_t thread;
	unsigned nr;
	uint64_t seed;
	uint32_t gen;
	struct name name[NN];
	struct file file[NF];
	unsigned nr_files;
	uint8_t *buf;
	int err;
};

struct crash_run {
	struct fake_dev *fake;
	struct ext4_vol *vol;
	struct ext4_inode *dir[NDIRS]; /* 0 is the root */
	unsigned bs, nr_workers;
	struct worker worker[NT];
};

extern const struct ext4_options tree_options;
#define TREE_XATTR_MAX 5000
extern const char tree_xattr_name[];

/* crash_tree.c */
/* The name of slot n of a worker; returns its length. */
unsigned tree_text(char *buf, size_t len, unsigned worker, unsigned n);
/* A block of the file id, and the word of it that depends on the place. */
void tree_fill(uint8_t *buf, unsigned bs, uint32_t id, uint32_t lblk, uint32_t gen);
uint32_t tree_mix(uint32_t id, uint32_t lblk, unsigned off);
/* The attribute's value; returns its length. */
size_t tree_xattr_value(uint8_t *buf, uint32_t v);
bool tree_open_dirs(struct ext4_vol *vol, struct ext4_inode **dir, bool make);
void tree_close_dirs(struct ext4_inode **dir);

/* crash_tree_check.c */
bool tree_check(struct crash_run *run, struct fake_dev *fake, unsigned k, char *why, size_t len);
bool tree_digest(struct crash_run *run, struct fake_dev *fake, uint64_t *sum, char *why,
		 size_t len);

#endif
