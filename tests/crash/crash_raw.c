/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Crash workload on bare handles. 48 blocks of a real file system's free space change roles: metadata (changed
 * in handles), freed (forgotten), data (written past the journal once the freeing is durable). Each handle
 * also writes its number into a marker block, so a recovered image says which handles it contains: all up to
 * that number and none after, at least those that were acknowledged as durable before the cut; every block that is
 * metadata then has exactly the value of then, and every block that is data keeps what was flushed to it (JOURNAL-1 to JOURNAL-8).
 *
 * One thread makes the changes; commits run beside it in every other run.
 */
#include "crash/crash.h"

#include "base/crc32c.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { NB = 48, MAX_EXT = 32, MAX_VERSIONS = 4096, ROUNDS = 130 };
#define FORGED 0x80000000u

/* Blocks of a small log. */
enum { SMALL_LOG = 112 };

bool crash_small_log;

enum role { R_FREE, R_META, R_FREEING, R_DATA };

/* The block got this value in handle h (0: became free). */
struct version { uint32_t h, value; };
/* Data written past the journal after handle h: in place from which event on, durable from which event on. */
struct data_version { uint32_t value, h; unsigned submitted, durable; };

struct block {
	struct crash_run *run;
	struct jnl_callback cb;
	enum role role;      /* R_FREEING -> R_FREE on the commit thread: atomic */
	struct version *v;
	unsigned nr, cap;
	struct data_version d[64];
	unsigned nd;
};

struct ack { unsigned event; uint32_t h; };

struct crash_run {
	struct fake_dev *f;
	struct jnl *j;
	struct jnl_params p;
	struct jnl_extent log[MAX_EXT];
	uint64_t base;       /* the marker; block i is base + 1 + i */
	uint32_t h;          /* handles so far */
	struct block b[NB];
	struct ack *acks;
	unsigned nr_acks;
	uint64_t seed;
};

static void pattern(uint8_t *buf, unsigned bs, uint64_t blk, uint32_t value)
{
	for (unsigned off = 0; off < bs; off += 8) {
		uint32_t w[2] = { value, (uint32_t)blk ^ (off << 16) };

		memcpy(buf + off, w, 8);
	}
	/* Every fourth begins as a log block would (escaping), with an id that no transaction has. */
	if (value % 4 == 3)
		jf_put_header(buf, JF_COMMIT, value | FORGED);
}

static bool has_pattern(struct crash_run *r, struct fake_dev *c, uint64_t blk, uint32_t value)
{
	static uint8_t want[65536], got[65536];

	pattern(want, r->p.block_size, blk, value);
	fake_peek(c, got, r->p.block_size, blk * r->p.block_size);
	return !memcmp(want, got, r->p.block_size);
}

/* ---- the file system underneath ---- */

static bool find_log(struct crash_run *r)
{
	static char out[1 << 20];
	unsigned n = 0;

	if (fake_run(r->f, "debugfs -R 'blocks <8>' $IMG 2>/dev/null", out, sizeof(out), false))
		return false;
	for (char *s = strtok(out, " \n"); s; s = strtok(NULL, " \n")) {
		uint64_t blk = strtoull(s, NULL, 10);

		if (n && r->log[n - 1].pblk + r->log[n - 1].len == blk)
			r->log[n - 1].len++;
		else if (n < MAX_EXT)
			r->log[n++] = (struct jnl_extent){ .pblk = blk, .len = 1 };
		else
			return false;
	}
	r->p.log = r->log;
	r->p.nr_log = n;
	return n > 0;
}

static void set_needs_recovery(struct crash_run *r)
{
	uint8_t sb[1024];
	uint32_t v;

	fake_peek(r->f, sb, sizeof(sb), 1024);
	sb[0x60] |= 4;
	v = htole32(fdio_crc32c(~0u, sb, 0x3fc));
	if (r->p.metadata_csum)
		memcpy(sb + 0x3fc, &v, 4);
	fake_poke(r->f, sb, sizeof(sb), 1024);
}

/* The rest of the journal's file is not used. Its superblock is mke2fs's and has no checksum yet. */
static void shorten_log(struct crash_run *r)
{
	uint8_t len[4];

	fdio_put_be32(len, 0, SMALL_LOG);
	fake_poke(r->f, len, sizeof(len), r->log[0].pblk * r->p.block_size + JF_SB_MAXLEN);
}

static bool setup(struct crash_run *r)
{
	bool small = crash_pick(&r->seed, 4) != 0, csum = crash_pick(&r->seed, 4) != 0, wide = crash_pick(&r->seed, 2);
	unsigned bs = small ? 1024 : 4096, mib = small ? 1 : 4;
	char args[200], err[256];
	int ret;

	snprintf(args, sizeof(args), "-t ext4 -b %u -O %s,%s,^resize_inode -N 64 -E nodiscard,lazy_itable_init=0 -J size=%u", bs,
		 csum ? "metadata_csum" : "^metadata_csum", wide ? "64bit" : "^64bit", mib);
	r->f = fake_mkfs((uint64_t)mib * 3 << 20, args);
	if (!r->f)
		return false;
	r->p = (struct jnl_params){ .dev = fake_dev(r->f), .block_size = bs, .nr_blocks = ((uint64_t)mib * 3 << 20) / bs,
		.metadata_csum = csum, .has_64bit = wide, .commit_interval_s = 3600 };
	if (!find_log(r))
		return false;
	set_needs_recovery(r);
	if (crash_small_log)
		shorten_log(r);
	jnl_test_lazy = crash_small_log;
	/* Free space: behind the log or the very end, whichever mke2fs left. */
	r->base = r->p.nr_blocks - NB - 8;
	for (unsigned i = 0; i < r->p.nr_log; i++)
		if (r->log[i].pblk + r->log[i].len > r->base && r->log[i].pblk < r->base + NB + 1)
			return false;
	ret = jnl_open(&r->p, &r->j, FDIO_REASON(err));
	if (ret) {
		fprintf(stderr, "jnl_open: %s\n", err);
		return false;
	}
	fake_rec_start(r->f);
	return jnl_start(r->j) == 0;
}

/* ---- the workload ---- */

static void add_version(struct block *b, uint32_t h, uint32_t value)
{
	if (b->nr == b->cap) {
		b->cap = b->cap ? b->cap * 2 : 64;
		b->v = realloc(b->v, b->cap * sizeof(*b->v));
		FDIO_ASSERT(b->v);
	}
	b->v[b->nr++] = (struct version){ .h = h, .value = value };
}

static uint64_t blk_of(struct crash_run *r, struct block *b)
{
	return r->base + 1 + (uint64_t)(b - r->b);
}

static void freed(struct jnl_callback *cb, int err)
{
	struct block *b = container_of(cb, struct block, cb);

	if (!err)
		__atomic_store_n(&b->role, R_FREE, __ATOMIC_SEQ_CST);
}

static void fill(struct crash_run *r, struct jnl_handle *h, uint64_t blk, uint32_t value, bool is_new)
{
	struct jnl_buf *buf;
	int ret = is_new ? jnl_bnew(h, blk, &buf) : jnl_bread(r->j, blk, &buf);

	FDIO_ASSERT(!ret);
	ret = jnl_get_write(h, buf);
	FDIO_ASSERT(!ret);
	pattern(buf->data, r->p.block_size, blk, value);
	jnl_brelse(buf);
}

/* One random change of one block inside handle h; kept: else the handle will be cancelled. */
static void change(struct crash_run *r, struct jnl_handle *h, bool kept)
{
	struct block *b = &r->b[crash_pick(&r->seed, NB)];
	enum role role = __atomic_load_n(&b->role, __ATOMIC_SEQ_CST);
	uint32_t value = r->h * 64 + crash_pick(&r->seed, 64) + 1;

	/* One role change a handle, so that the model needs no order inside it. */
	if (b->nr && b->v[b->nr - 1].h == r->h)
		return;
	if (role == R_FREE || role == R_DATA) {
		fill(r, h, blk_of(r, b), value, true);
		if (kept) {
			b->role = R_META;
			add_version(b, r->h, value);
		}
	} else if (role == R_META && crash_pick(&r->seed, 4) == 0) {
		int ret = jnl_forget(h, blk_of(r, b), 1);

		FDIO_ASSERT(!ret);
		if (kept) {
			b->cb.fn = freed;
			b->role = R_FREEING;
			jnl_on_commit(h, &b->cb);
			add_version(b, r->h, 0);
		}
	} else if (role == R_META) {
		fill(r, h, blk_of(r, b), value, false);
		if (kept)
			add_version(b, r->h, value);
	}
}

/* A block that is free, durably, gets data past the journal, as the data path writes. */
static void write_data(struct crash_run *r)
{
	static uint8_t buf[65536] __attribute__((aligned(4096)));
	struct block *b = NULL;
	struct data_version *d;

	for (unsigned tries = 0; tries < 16 && (!b || b->nd == ARRAY_SIZE(b->d)); tries++) {
		b = &r->b[crash_pick(&r->seed, NB)];
		if (__atomic_load_n(&b->role, __ATOMIC_SEQ_CST) != R_FREE)
			b = NULL;
	}
	if (!b || b->nd == ARRAY_SIZE(b->d))
		return;
	d = &b->d[b->nd++];
	*d = (struct data_version){ .value = 0x40000000u + (uint32_t)crash_pick(&r->seed, 1 << 28), .h = r->h,
		.submitted = fake_rec_events(r->f),
		.durable = UINT32_MAX };
	pattern(buf, r->p.block_size, blk_of(r, b), d->value);
	FDIO_MUST(!dev_write(fake_dev(r->f), buf, r->p.block_size, blk_of(r, b) * r->p.block_size, 0));
	b->role = R_DATA;
}

static void synced(struct crash_run *r)
{
	unsigned now = fake_rec_events(r->f);

	r->acks[r->nr_acks++] = (struct ack){ .event = now, .h = r->h };
	for (unsigned i = 0; i < NB; i++)
		for (unsigned k = 0; k < r->b[i].nd; k++)
			if (r->b[i].d[k].durable == UINT32_MAX)
				r->b[i].d[k].durable = now;
}

static void one_handle(struct crash_run *r)
{
	bool kept = crash_pick(&r->seed, 5) != 0;
	struct jnl_handle *h;
	unsigned n = 1 + crash_pick(&r->seed, 6);
	jnl_tid tid;

	FDIO_MUST(!jnl_begin(r->j, n + 1, &h));
	r->h++;
	for (unsigned i = 0; i < n; i++)
		change(r, h, kept);
	fill(r, h, r->base, r->h, false);
	if (!kept) {
		jnl_cancel(h);
		return;
	}
	tid = jnl_end(h);
	if ((r->seed >> 7) % 3 == 0 && !crash_small_log)
		jnl_commit_start(r->j, tid);
}

static void raw_free(struct crash_run *r)
{
	if (r->j) {
		if (r->j->started)
			jnl_stop(r->j);
		jnl_close(r->j);
	}
	if (r->f)
		fake_free(r->f);
	for (unsigned i = 0; i < NB; i++)
		free(r->b[i].v);
	free(r->acks);
	free(r);
}

static struct crash_run *raw_run(uint64_t seed)
{
	struct crash_run *r = calloc(1, sizeof(*r));

	FDIO_ASSERT(r);
	r->seed = seed;
	r->acks = calloc(ROUNDS * 8, sizeof(*r->acks));
	if (!r->acks || !setup(r)) {
		raw_free(r);
		return NULL;
	}
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (unsigned n = crash_pick(&r->seed, 5); n-- > 0;)
			one_handle(r);
		write_data(r);
		/* In a small log transactions are large, so that one reaches into space that was freed for it. */
		if (crash_pick(&r->seed, crash_small_log ? 6 : 2) == 0) {
			FDIO_MUST(!jnl_sync(r->j));
			synced(r);
		}
	}
	/* Half of the runs end cleanly, so that cuts meet the checkpoint and the stop too. */
	if (crash_pick(&r->seed, 2)) {
		FDIO_MUST(!jnl_stop(r->j));
		synced(r);
	}
	return r;
}

/* The flush after event k: until then a write of before k may still be lost. */
static unsigned next_flush(struct crash_run *r, unsigned k, unsigned events)
{
	while (k < events && fake_rec_event(r->f, k).kind != FAKE_FLUSH)
		k++;
	return k;
}

/*
 * With a small log what matters happens after its superblock was written and before a flush: what was freed in the log is written over
 * then. Half of the cuts come when all of that is on its way.
 */
static unsigned raw_moment(struct crash_run *r, uint64_t *rnd)
{
	unsigned events = fake_rec_events(r->f), at = crash_pick(rnd, events + 1);

	for (unsigned k = at; crash_small_log && k < events; k++) {
		struct fake_event e = fake_rec_event(r->f, k);

		if (e.ev == FAKE_EV_COMPLETE && e.kind == FAKE_WRITE && e.off == r->log[0].pblk * r->p.block_size) {
			unsigned end = next_flush(r, k + 1, events);

			return crash_pick(rnd, 2) ? end : k + 1 + crash_pick(rnd, end - k);
		}
	}
	return at;
}

static struct fake_dev *raw_device(struct crash_run *r)
{
	return r->f;
}

/* ---- recovery and verdict ---- */

static int raw_recover(struct crash_run *r, struct fake_dev *c, char *why, size_t len)
{
	struct jnl_params p = r->p;
	struct jnl_replay_stats st;
	struct jnl *j;
	int ret;

	p.dev = fake_dev(c);
	p.log = r->log;
	ret = jnl_open(&p, &j, FDIO_REASON_AT(why, len));
	if (ret)
		return ret;
	ret = jnl_replay(j, &st, FDIO_REASON_AT(why, len));
	jnl_close(j);
	return ret;
}

/* The newest handle in the image, 0 if none, -1 if the marker is not a marker. */
static int64_t marker(struct crash_run *r, struct fake_dev *c)
{
	for (uint32_t h = r->h; h > 0; h--)
		if (has_pattern(r, c, r->base, h))
			return h;
	uint8_t buf[64];

	fake_peek(c, buf, sizeof(buf), r->base * r->p.block_size);
	for (unsigned i = 0; i < sizeof(buf); i++)
		if (buf[i])
			return -1;
	return 0;
}

static bool check_data(struct crash_run *r, struct fake_dev *c, struct block *b, uint32_t freed_by, unsigned k, char *why,
		       size_t len)
{
	struct data_version *d = NULL;

	for (unsigned i = 0; i < b->nd && b->d[i].submitted < k; i++)
		d = &b->d[i];
	/* Since then it was metadata again, and was freed again: nobody owns what is there. */
	if (d && freed_by > d->h)
		return true;
	if (!d || d->durable > k || has_pattern(r, c, blk_of(r, b), d->value))
		return true;
	snprintf(why, len, "data in block %llu was overwritten or lost", (unsigned long long)blk_of(r, b));
	return false;
}

static bool check_block(struct crash_run *r, struct fake_dev *c, struct block *b, uint32_t h, unsigned k, char *why, size_t len)
{
	const struct version *v = NULL;

	for (unsigned i = 0; i < b->nr && b->v[i].h <= h; i++)
		v = &b->v[i];
	if (!v || !v->value)
		return check_data(r, c, b, v ? v->h : 0, k, why, len);
	if (has_pattern(r, c, blk_of(r, b), v->value))
		return true;
	snprintf(why, len, "block %llu is not what handle %u left (image of handle %u)", (unsigned long long)blk_of(r, b), v->h, h);
	return false;
}

/* No image may look like a log block: where the log ends, a reader could take it for one. */
static bool check_escaped(struct crash_run *r, struct fake_dev *c, char *why, size_t len)
{
	unsigned bs = r->p.block_size;
	uint8_t head[JF_H_BYTES];

	for (unsigned i = 0; i < r->p.nr_log; i++) {
		for (uint64_t blk = r->log[i].pblk; blk < r->log[i].pblk + r->log[i].len; blk++) {
			fake_peek(c, head, sizeof(head), blk * bs);
			if (fdio_get_be32(head, JF_H_MAGIC) != JF_MAGIC || !(fdio_get_be32(head, JF_H_TID) & FORGED))
				continue;
			snprintf(why, len, "log block %llu is an image that was not escaped", (unsigned long long)blk);
			return false;
		}
	}
	return true;
}

static bool raw_check(struct crash_run *r, struct fake_dev *c, unsigned k, char *why, size_t len)
{
	int64_t h = marker(r, c);
	uint32_t acked = 0;

	for (unsigned i = 0; i < r->nr_acks && r->acks[i].event <= k; i++)
		acked = r->acks[i].h;
	/* Cancelled handles leave no marker, so an acknowledgement may name a handle that changed nothing. */
	if (h < 0) {
		snprintf(why, len, "the marker block is torn");
		return false;
	}
	for (unsigned i = 0; i < NB; i++)
		for (unsigned n = 0; n < r->b[i].nr; n++)
			if (r->b[i].v[n].h > h && r->b[i].v[n].h <= acked) {
				snprintf(why, len, "handle %u was acknowledged and is missing (image of handle %lld)", r->b[i].v[n].h, (long long)h);
				return false;
			}
	for (unsigned i = 0; i < NB; i++)
		if (!check_block(r, c, &r->b[i], (uint32_t)h, k, why, len))
			return false;
	return check_escaped(r, c, why, len);
}

/* The marker and the blocks that change roles, byte for byte. */
static bool raw_digest(struct crash_run *r, struct fake_dev *c, uint64_t *sum, char *why, size_t len)
{
	static uint8_t buf[65536];

	*sum = 0;
	for (unsigned i = 0; i <= NB; i++) {
		fake_peek(c, buf, r->p.block_size, (r->base + i) * r->p.block_size);
		*sum = *sum * 31 + fdio_crc32c(~0u, buf, r->p.block_size);
	}
	(void)why;
	(void)len;
	return true;
}

const struct crash_workload crash_raw = {
	.name = "raw", .run = raw_run, .device = raw_device, .recover = raw_recover, .check = raw_check, .digest = raw_digest,
	.free = raw_free, .moment = raw_moment, .exact = true,
};
