/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Crash workload on bare handles. 48 blocks of a real file system's free space change roles:
 * metadata (changed in handles), freed (forgotten), data (written past the journal once the freeing
 * is durable). Each handle also writes its number into a marker block, so a recovered image says
 * which handles it contains: all up to that number and none after, at least those that were
 * acknowledged as durable before the cut; every block that is metadata then has exactly the value
 * of then, and every block that is data keeps what was flushed to it (JOURNAL-1 to JOURNAL-8).
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
/*
 * Data written past the journal after handle h: in place from which event on, durable from which
 * event on.
 */
struct data_version { uint32_t value, h; unsigned submitted, durable; };

struct block {
	struct crash_run *run;
	struct journal_callback callback;
	enum role role;      /* R_FREEING -> R_FREE on the commit thread: atomic */
	struct version *version;
	unsigned nr, cap;
	struct data_version data_version[64];
	unsigned nd;
};

struct ack { unsigned event; uint32_t h; };

struct crash_run {
	struct fake_dev *fake;
	struct journal *journal;
	struct journal_params params;
	struct journal_extent log[MAX_EXT];
	uint64_t base;       /* the marker; block i is base + 1 + i */
	uint32_t h;          /* handles so far */
	struct block block[NB];
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
	/*
	 * Every fourth begins as a log block would (escaping), with an id that no transaction has.
	 */
	if (value % 4 == 3)
		journal_format_put_header(buf, JOURNAL_BLOCK_COMMIT, value | FORGED);
}

static bool has_pattern(struct crash_run *run, struct fake_dev *fake, uint64_t blk, uint32_t value)
{
	static uint8_t want[65536], got[65536];

	pattern(want, run->params.block_size, blk, value);
	fake_peek(fake, got, run->params.block_size, blk * run->params.block_size);
	return !memcmp(want, got, run->params.block_size);
}

/* ---- the file system underneath ---- */

static bool find_log(struct crash_run *run)
{
	static char out[1 << 20];
	unsigned n = 0;

	if (fake_run(run->fake, "debugfs -R 'blocks <8>' $IMG 2>/dev/null", out, sizeof(out),
		     false))
		return false;
	for (char *s = strtok(out, " \n"); s; s = strtok(NULL, " \n")) {
		uint64_t blk = strtoull(s, NULL, 10);

		if (n && run->log[n - 1].pblk + run->log[n - 1].len == blk)
			run->log[n - 1].len++;
		else if (n < MAX_EXT)
			run->log[n++] = (struct journal_extent){ .pblk = blk, .len = 1 };
		else
			return false;
	}
	run->params.log = run->log;
	run->params.nr_log = n;
	return n > 0;
}

static void set_needs_recovery(struct crash_run *run)
{
	uint8_t sb[1024];
	uint32_t v;

	fake_peek(run->fake, sb, sizeof(sb), 1024);
	sb[0x60] |= 4;
	v = htole32(fdio_crc32c(~0u, sb, 0x3fc));
	if (run->params.metadata_csum)
		memcpy(sb + 0x3fc, &v, 4);
	fake_poke(run->fake, sb, sizeof(sb), 1024);
}

/*
 * The rest of the journal's file is not used. Its superblock is mke2fs's and has no checksum yet.
 */
static void shorten_log(struct crash_run *run)
{
	uint8_t len[4];

	fdio_put_be32(len, 0, SMALL_LOG);
	fake_poke(run->fake, len, sizeof(len),
		  run->log[0].pblk * run->params.block_size + JOURNAL_SB_MAXLEN);
}

static bool setup(struct crash_run *run)
{
	bool small = crash_pick(&run->seed, 4) != 0, csum = crash_pick(&run->seed, 4) != 0,
	     wide = crash_pick(&run->seed, 2);
	unsigned bs = small ? 1024 : 4096, mib = small ? 1 : 4;
	char args[200], err[256];
	int ret;

	snprintf(args, sizeof(args),
		 "-t ext4 -b %u -O %s,%s,^resize_inode -N 64 -E nodiscard,lazy_itable_init=0 -J "
		 "size=%u",
		 bs, csum ? "metadata_csum" : "^metadata_csum", wide ? "64bit" : "^64bit", mib);
	run->fake = fake_mkfs((uint64_t)mib * 3 << 20, args);
	if (!run->fake)
		return false;
	run->params = (struct journal_params){ .dev = fake_dev(run->fake),
					       .block_size = bs,
					       .nr_blocks = ((uint64_t)mib * 3 << 20) / bs,
					       .metadata_csum = csum,
					       .has_64bit = wide,
					       .commit_interval_s = 3600 };
	if (!find_log(run))
		return false;
	set_needs_recovery(run);
	if (crash_small_log)
		shorten_log(run);
	journal_test_lazy = crash_small_log;
	/* Free space: behind the log or the very end, whichever mke2fs left. */
	run->base = run->params.nr_blocks - NB - 8;
	for (unsigned i = 0; i < run->params.nr_log; i++)
		if (run->log[i].pblk + run->log[i].len > run->base &&
		    run->log[i].pblk < run->base + NB + 1)
			return false;
	ret = journal_open(&run->params, &run->journal, FDIO_REASON(err));
	if (ret) {
		fprintf(stderr, "journal_open: %s\n", err);
		return false;
	}
	fake_record_start(run->fake);
	return journal_start(run->journal) == 0;
}

/* ---- the workload ---- */

static void add_version(struct block *block, uint32_t h, uint32_t value)
{
	if (block->nr == block->cap) {
		block->cap = block->cap ? block->cap * 2 : 64;
		block->version = realloc(block->version, block->cap * sizeof(*block->version));
		FDIO_ASSERT(block->version);
	}
	block->version[block->nr++] = (struct version){ .h = h, .value = value };
}

static uint64_t blk_of(struct crash_run *run, struct block *block)
{
	return run->base + 1 + (uint64_t)(block - run->block);
}

static void freed(struct journal_callback *callback, int err)
{
	struct block *block = container_of(callback, struct block, callback);

	if (!err)
		__atomic_store_n(&block->role, R_FREE, __ATOMIC_SEQ_CST);
}

static void fill(struct crash_run *run, struct journal_handle *handle, uint64_t blk, uint32_t value,
		 bool is_new)
{
	struct journal_buffer *buf;
	int ret = is_new ? journal_new_block(handle, blk, &buf)
			 : journal_read_block(run->journal, blk, &buf);

	FDIO_ASSERT(!ret);
	ret = journal_get_write(handle, buf);
	FDIO_ASSERT(!ret);
	pattern(buf->data, run->params.block_size, blk, value);
	journal_buffer_release(buf);
}

/* One random change of one block inside handle handle; kept: else the handle will be cancelled. */
static void change(struct crash_run *run, struct journal_handle *handle, bool kept)
{
	struct block *block = &run->block[crash_pick(&run->seed, NB)];
	enum role role = __atomic_load_n(&block->role, __ATOMIC_SEQ_CST);
	uint32_t value = run->h * 64 + crash_pick(&run->seed, 64) + 1;

	/* One role change a handle, so that the model needs no order inside it. */
	if (block->nr && block->version[block->nr - 1].h == run->h)
		return;
	if (role == R_FREE || role == R_DATA) {
		fill(run, handle, blk_of(run, block), value, true);
		if (kept) {
			block->role = R_META;
			add_version(block, run->h, value);
		}
	} else if (role == R_META && crash_pick(&run->seed, 4) == 0) {
		int ret = journal_forget(handle, blk_of(run, block), 1);

		FDIO_ASSERT(!ret);
		if (kept) {
			block->callback.fn = freed;
			block->role = R_FREEING;
			journal_on_commit(handle, &block->callback);
			add_version(block, run->h, 0);
		}
	} else if (role == R_META) {
		fill(run, handle, blk_of(run, block), value, false);
		if (kept)
			add_version(block, run->h, value);
	}
}

/* A block that is free, durably, gets data past the journal, as the data path writes. */
static void write_data(struct crash_run *run)
{
	static uint8_t buf[65536] __attribute__((aligned(4096)));
	struct block *block = NULL;
	struct data_version *version;

	for (unsigned tries = 0;
	     tries < 16 && (!block || block->nd == ARRAY_SIZE(block->data_version)); tries++) {
		block = &run->block[crash_pick(&run->seed, NB)];
		if (__atomic_load_n(&block->role, __ATOMIC_SEQ_CST) != R_FREE)
			block = NULL;
	}
	if (!block || block->nd == ARRAY_SIZE(block->data_version))
		return;
	version = &block->data_version[block->nd++];
	*version = (struct data_version){ .value = 0x40000000u +
						   (uint32_t)crash_pick(&run->seed, 1 << 28),
					  .h = run->h,
					  .submitted = fake_record_events(run->fake),
					  .durable = UINT32_MAX };
	pattern(buf, run->params.block_size, blk_of(run, block), version->value);
	FDIO_MUST(!dev_write(fake_dev(run->fake), buf, run->params.block_size,
			     blk_of(run, block) * run->params.block_size, 0));
	block->role = R_DATA;
}

static void synced(struct crash_run *run)
{
	unsigned now = fake_record_events(run->fake);

	run->acks[run->nr_acks++] = (struct ack){ .event = now, .h = run->h };
	for (unsigned i = 0; i < NB; i++)
		for (unsigned k = 0; k < run->block[i].nd; k++)
			if (run->block[i].data_version[k].durable == UINT32_MAX)
				run->block[i].data_version[k].durable = now;
}

static void one_handle(struct crash_run *run)
{
	bool kept = crash_pick(&run->seed, 5) != 0;
	struct journal_handle *handle;
	unsigned n = 1 + crash_pick(&run->seed, 6);
	journal_tid tid;

	FDIO_MUST(!journal_begin(run->journal, n + 1, &handle));
	run->h++;
	for (unsigned i = 0; i < n; i++)
		change(run, handle, kept);
	fill(run, handle, run->base, run->h, false);
	if (!kept) {
		journal_cancel(handle);
		return;
	}
	tid = journal_end(handle);
	if ((run->seed >> 7) % 3 == 0 && !crash_small_log)
		journal_commit_start(run->journal, tid);
}

static void raw_free(struct crash_run *run)
{
	if (run->journal) {
		if (run->journal->started)
			journal_stop(run->journal);
		journal_close(run->journal);
	}
	if (run->fake)
		fake_free(run->fake);
	for (unsigned i = 0; i < NB; i++)
		free(run->block[i].version);
	free(run->acks);
	free(run);
}

static struct crash_run *raw_run(uint64_t seed)
{
	struct crash_run *run = calloc(1, sizeof(*run));

	FDIO_ASSERT(run);
	run->seed = seed;
	run->acks = calloc(ROUNDS * 8, sizeof(*run->acks));
	if (!run->acks || !setup(run)) {
		raw_free(run);
		return NULL;
	}
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (unsigned n = crash_pick(&run->seed, 5); n-- > 0;)
			one_handle(run);
		write_data(run);
		/*
		 * In a small log transactions are large, so that one reaches into space that was
		 * freed for it.
		 */
		if (crash_pick(&run->seed, crash_small_log ? 6 : 2) == 0) {
			FDIO_MUST(!journal_sync(run->journal));
			synced(run);
		}
	}
	/* Half of the runs end cleanly, so that cuts meet the checkpoint and the stop too. */
	if (crash_pick(&run->seed, 2)) {
		FDIO_MUST(!journal_stop(run->journal));
		synced(run);
	}
	return run;
}

/* The flush after event k: until then a write of before k may still be lost. */
static unsigned next_flush(struct crash_run *run, unsigned k, unsigned events)
{
	while (k < events && fake_record_event(run->fake, k).kind != FAKE_FLUSH)
		k++;
	return k;
}

/*
 * With a small log what matters happens after its superblock was written and before a flush: what
 * was freed in the log is written over then. Half of the cuts come when all of that is on its way.
 */
static unsigned raw_moment(struct crash_run *run, uint64_t *rnd)
{
	unsigned events = fake_record_events(run->fake), at = crash_pick(rnd, events + 1);

	for (unsigned k = at; crash_small_log && k < events; k++) {
		struct fake_event event = fake_record_event(run->fake, k);

		if (event.type == FAKE_EVENT_COMPLETE && event.kind == FAKE_WRITE &&
		    event.off == run->log[0].pblk * run->params.block_size) {
			unsigned end = next_flush(run, k + 1, events);

			return crash_pick(rnd, 2) ? end : k + 1 + crash_pick(rnd, end - k);
		}
	}
	return at;
}

static struct fake_dev *raw_device(struct crash_run *run)
{
	return run->fake;
}

/* ---- recovery and verdict ---- */

static int raw_recover(struct crash_run *run, struct fake_dev *fake, char *why, size_t len)
{
	struct journal_params params = run->params;
	struct journal_replay_stats stats;
	struct journal *journal;
	int ret;

	params.dev = fake_dev(fake);
	params.log = run->log;
	ret = journal_open(&params, &journal, FDIO_REASON_AT(why, len));
	if (ret)
		return ret;
	ret = journal_replay(journal, &stats, FDIO_REASON_AT(why, len));
	journal_close(journal);
	return ret;
}

/* The newest handle in the image, 0 if none, -1 if the marker is not a marker. */
static int64_t marker(struct crash_run *run, struct fake_dev *fake)
{
	for (uint32_t h = run->h; h > 0; h--)
		if (has_pattern(run, fake, run->base, h))
			return h;
	uint8_t buf[64];

	fake_peek(fake, buf, sizeof(buf), run->base * run->params.block_size);
	for (unsigned i = 0; i < sizeof(buf); i++)
		if (buf[i])
			return -1;
	return 0;
}

static bool check_data(struct crash_run *run, struct fake_dev *fake, struct block *block,
		       uint32_t freed_by, unsigned k, char *why, size_t len)
{
	struct data_version *version = NULL;

	for (unsigned i = 0; i < block->nd && block->data_version[i].submitted < k; i++)
		version = &block->data_version[i];
	/* Since then it was metadata again, and was freed again: nobody owns what is there. */
	if (version && freed_by > version->h)
		return true;
	if (!version || version->durable > k ||
	    has_pattern(run, fake, blk_of(run, block), version->value))
		return true;
	snprintf(why, len, "data in block %llu was overwritten or lost",
		 (unsigned long long)blk_of(run, block));
	return false;
}

static bool check_block(struct crash_run *run, struct fake_dev *fake, struct block *block,
			uint32_t h, unsigned k, char *why, size_t len)
{
	const struct version *version = NULL;

	for (unsigned i = 0; i < block->nr && block->version[i].h <= h; i++)
		version = &block->version[i];
	if (!version || !version->value)
		return check_data(run, fake, block, version ? version->h : 0, k, why, len);
	if (has_pattern(run, fake, blk_of(run, block), version->value))
		return true;
	snprintf(why, len, "block %llu is not what handle %u left (image of handle %u)",
		 (unsigned long long)blk_of(run, block), version->h, h);
	return false;
}

/* No image may look like a log block: where the log ends, a reader could take it for one. */
static bool check_escaped(struct crash_run *run, struct fake_dev *fake, char *why, size_t len)
{
	unsigned bs = run->params.block_size;
	uint8_t head[JOURNAL_HEADER_BYTES];

	for (unsigned i = 0; i < run->params.nr_log; i++) {
		for (uint64_t blk = run->log[i].pblk; blk < run->log[i].pblk + run->log[i].len;
		     blk++) {
			fake_peek(fake, head, sizeof(head), blk * bs);
			if (fdio_get_be32(head, JOURNAL_HEADER_MAGIC) != JOURNAL_MAGIC ||
			    !(fdio_get_be32(head, JOURNAL_HEADER_TID) & FORGED))
				continue;
			snprintf(why, len, "log block %llu is an image that was not escaped",
				 (unsigned long long)blk);
			return false;
		}
	}
	return true;
}

static bool raw_check(struct crash_run *run, struct fake_dev *fake, unsigned k, char *why,
		      size_t len)
{
	int64_t h = marker(run, fake);
	uint32_t acked = 0;

	for (unsigned i = 0; i < run->nr_acks && run->acks[i].event <= k; i++)
		acked = run->acks[i].h;
	/*
	 * Cancelled handles leave no marker, so an acknowledgement may name a handle that changed
	 * nothing.
	 */
	if (h < 0) {
		snprintf(why, len, "the marker block is torn");
		return false;
	}
	for (unsigned i = 0; i < NB; i++)
		for (unsigned n = 0; n < run->block[i].nr; n++)
			if (run->block[i].version[n].h > h && run->block[i].version[n].h <= acked) {
				snprintf(why, len,
					 "handle %u was acknowledged and is missing (image of "
					 "handle %lld)",
					 run->block[i].version[n].h, (long long)h);
				return false;
			}
	for (unsigned i = 0; i < NB; i++)
		if (!check_block(run, fake, &run->block[i], (uint32_t)h, k, why, len))
			return false;
	return check_escaped(run, fake, why, len);
}

/* The marker and the blocks that change roles, byte for byte. */
static bool raw_digest(struct crash_run *run, struct fake_dev *fake, uint64_t *sum, char *why,
		       size_t len)
{
	static uint8_t buf[65536];

	*sum = 0;
	for (unsigned i = 0; i <= NB; i++) {
		fake_peek(fake, buf, run->params.block_size,
			  (run->base + i) * run->params.block_size);
		*sum = *sum * 31 + fdio_crc32c(~0u, buf, run->params.block_size);
	}
	(void)why;
	(void)len;
	return true;
}

const struct crash_workload crash_raw = {
	.name = "raw",
	.run = raw_run,
	.device = raw_device,
	.recover = raw_recover,
	.check = raw_check,
	.digest = raw_digest,
	.free = raw_free,
	.moment = raw_moment,
	.exact = true,
};
