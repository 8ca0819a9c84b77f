/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Crash workload on the journal alone (JOURNAL-1 to JOURNAL-8). 48 free blocks of a real file
 * system change roles: metadata (changed in handles), freed (forgotten), and data (written past the
 * journal once the freeing is durable). Each handle also writes its number into a marker block, so
 * a recovered image says which handles it contains.
 *
 * Promised after a cut: the image contains all handles up to that number and none after, at least
 * those that were acknowledged as durable before the cut. Each block that is metadata then has
 * exactly the value of then, and each block that is data keeps what was flushed to it.
 *
 * One thread makes the changes; the journal's thread commits beside it.
 */
#include "crash/crash.h"

#include "base/bytes.h"
#include "base/crc32c.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { NR_BLOCKS = 48, MAX_EXTENTS = 32, MAX_VERSIONS = 4096, ROUNDS = 130 };
#define FORGED 0x80000000u /* in the ids of transactions that no real one has */

enum { SMALL_LOG = 112 }; /* blocks */

bool crash_small_log;

enum role { ROLE_FREE, ROLE_META, ROLE_FREEING, ROLE_DATA };

/* The block got this value in handle number seq; 0: it became free. */
struct version { uint32_t seq, value; };
/*
 * Data written past the journal after handle number seq: submitted after so many events, durable
 * after so many (UINT32_MAX: not yet).
 */
struct data_version { uint32_t value, seq; unsigned submitted, durable; };

struct block {
	struct crash_run *run;
	struct journal_callback callback;
	enum role role;      /* atomic: the commit thread turns ROLE_FREEING into ROLE_FREE */
	struct version *version;
	unsigned nr, cap;
	struct data_version data_version[64];
	unsigned nr_data;
};

/* After so many events, all handles up to number seq had been acknowledged as durable. */
struct ack { unsigned event; uint32_t seq; };

struct crash_run {
	struct fake_dev *fake;
	struct journal *journal;
	struct journal_params params;
	struct journal_extent log[MAX_EXTENTS];
	uint64_t base;       /* the marker; block i is base + 1 + i */
	uint32_t seq;          /* handles so far */
	struct block block[NR_BLOCKS];
	struct ack *acks;
	unsigned nr_acks;
	uint64_t seed;
};

/* The content of a block that has a value. */
static void pattern(uint8_t *buf, unsigned bs, uint64_t blk, uint32_t value)
{
	for (unsigned off = 0; off < bs; off += 8) {
		uint32_t w[2] = { value, (uint32_t)blk ^ (off << 16) };

		memcpy(buf + off, w, 8);
	}
	/* Every fourth begins like a block of the log, so that the journal must escape it. */
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

/* Asks debugfs for the blocks of the journal's inode. */
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
		else if (n < MAX_EXTENTS)
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

	fake_peek(run->fake, sb, sizeof(sb), 1024);
	sb[0x60] |= 4;
	if (run->params.metadata_csum)
		fdio_put_le32(sb, 0x3fc, fdio_crc32c(~0u, sb, 0x3fc));
	fake_poke(run->fake, sb, sizeof(sb), 1024);
}

/*
 * Leaves the rest of the journal's file unused. The superblock of the log is still the one of
 * mke2fs, without a checksum.
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
	char args[200], why[256];
	int err;

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
	/* The blocks that change roles: free ones near the end of the volume. */
	run->base = run->params.nr_blocks - NR_BLOCKS - 8;
	for (unsigned i = 0; i < run->params.nr_log; i++)
		if (run->log[i].pblk + run->log[i].len > run->base &&
		    run->log[i].pblk < run->base + NR_BLOCKS + 1)
			return false;
	err = journal_open(&run->params, &run->journal, FDIO_REASON(why));
	if (err) {
		fprintf(stderr, "journal_open: %s\n", why);
		return false;
	}
	fake_record_start(run->fake);
	return journal_start(run->journal) == 0;
}

/* ---- the workload ---- */

static void add_version(struct block *block, uint32_t seq, uint32_t value)
{
	if (block->nr == block->cap) {
		block->cap = block->cap ? block->cap * 2 : 64;
		block->version = realloc(block->version, block->cap * sizeof(*block->version));
		FDIO_ASSERT(block->version);
	}
	block->version[block->nr++] = (struct version){ .seq = seq, .value = value };
}

static uint64_t blk_of(struct crash_run *run, struct block *block)
{
	return run->base + 1 + (uint64_t)(block - run->block);
}

/* The transaction that forgot the block is durable. */
static void freed(struct journal_callback *callback, int err)
{
	struct block *block = container_of(callback, struct block, callback);

	if (!err)
		__atomic_store_n(&block->role, ROLE_FREE, __ATOMIC_SEQ_CST);
}

/* Writes a value into a block inside a handle. */
static void fill(struct crash_run *run, struct journal_handle *handle, uint64_t blk, uint32_t value,
		 bool is_new)
{
	struct journal_buffer *buf;
	int err = is_new ? journal_new_block(handle, blk, &buf)
			 : journal_read_block(run->journal, blk, &buf);

	FDIO_ASSERT(!err);
	err = journal_get_write(handle, buf);
	FDIO_ASSERT(!err);
	pattern(buf->data, run->params.block_size, blk, value);
	journal_buffer_release(buf);
}

/* Changes a random block inside a handle; kept: false if the handle will be cancelled. */
static void change(struct crash_run *run, struct journal_handle *handle, bool kept)
{
	struct block *block = &run->block[crash_pick(&run->seed, NR_BLOCKS)];
	enum role role = __atomic_load_n(&block->role, __ATOMIC_SEQ_CST);
	uint32_t value = run->seq * 64 + crash_pick(&run->seed, 64) + 1;

	/* A handle changes a block once, so that the model needs no order inside the handle. */
	if (block->nr && block->version[block->nr - 1].seq == run->seq)
		return;
	if (role == ROLE_FREE || role == ROLE_DATA) {
		fill(run, handle, blk_of(run, block), value, true);
		if (kept) {
			block->role = ROLE_META;
			add_version(block, run->seq, value);
		}
	} else if (role == ROLE_META && crash_pick(&run->seed, 4) == 0) {
		int err = journal_forget(handle, blk_of(run, block), 1);

		FDIO_ASSERT(!err);
		if (kept) {
			block->callback.fn = freed;
			block->role = ROLE_FREEING;
			journal_on_commit(handle, &block->callback);
			add_version(block, run->seq, 0);
		}
	} else if (role == ROLE_META) {
		fill(run, handle, blk_of(run, block), value, false);
		if (kept)
			add_version(block, run->seq, value);
	}
}

/* Writes data past the journal into a block whose freeing is durable, as the data path does. */
static void write_data(struct crash_run *run)
{
	static uint8_t buf[65536] __attribute__((aligned(4096)));
	struct block *block = NULL;
	struct data_version *version;

	for (unsigned tries = 0;
	     tries < 16 && (!block || block->nr_data == ARRAY_SIZE(block->data_version)); tries++) {
		block = &run->block[crash_pick(&run->seed, NR_BLOCKS)];
		if (__atomic_load_n(&block->role, __ATOMIC_SEQ_CST) != ROLE_FREE)
			block = NULL;
	}
	if (!block || block->nr_data == ARRAY_SIZE(block->data_version))
		return;
	version = &block->data_version[block->nr_data++];
	*version = (struct data_version){ .value = 0x40000000u +
						   (uint32_t)crash_pick(&run->seed, 1 << 28),
					  .seq = run->seq,
					  .submitted = fake_record_events(run->fake),
					  .durable = UINT32_MAX };
	pattern(buf, run->params.block_size, blk_of(run, block), version->value);
	FDIO_MUST(!dev_write(fake_dev(run->fake), buf, run->params.block_size,
			     blk_of(run, block) * run->params.block_size, 0));
	block->role = ROLE_DATA;
}

/* All handles and all data so far are durable. */
static void synced(struct crash_run *run)
{
	unsigned now = fake_record_events(run->fake);

	run->acks[run->nr_acks++] = (struct ack){ .event = now, .seq = run->seq };
	for (unsigned i = 0; i < NR_BLOCKS; i++)
		for (unsigned k = 0; k < run->block[i].nr_data; k++)
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
	run->seq++;
	for (unsigned i = 0; i < n; i++)
		change(run, handle, kept);
	fill(run, handle, run->base, run->seq, false);
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
	for (unsigned i = 0; i < NR_BLOCKS; i++)
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
		/* Seldom with a small log, so that transactions reach into space freed for them. */
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

/* The event of the next flush after event k: until then a write before k may still be lost. */
static unsigned next_flush(struct crash_run *run, unsigned k, unsigned events)
{
	while (k < events && fake_record_event(run->fake, k).kind != FAKE_FLUSH)
		k++;
	return k;
}

/*
 * With a small log, the dangerous time is between a write of the log's superblock, which frees
 * space in the log, and the next flush: the freed space is written over then. So the cut comes
 * there, half of the time at the flush.
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
	int err;

	params.dev = fake_dev(fake);
	params.log = run->log;
	err = journal_open(&params, &journal, FDIO_REASON_AT(why, len));
	if (err)
		return err;
	err = journal_replay(journal, &stats, FDIO_REASON_AT(why, len));
	journal_close(journal);
	return err;
}

/* The number of the newest handle in the image; 0: none; -1: the marker is torn. */
static int64_t marker(struct crash_run *run, struct fake_dev *fake)
{
	for (uint32_t seq = run->seq; seq > 0; seq--)
		if (has_pattern(run, fake, run->base, seq))
			return seq;
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

	for (unsigned i = 0; i < block->nr_data && block->data_version[i].submitted < k; i++)
		version = &block->data_version[i];
	/* Since then the block was metadata and was freed again, so its content does not matter. */
	if (version && freed_by > version->seq)
		return true;
	if (!version || version->durable > k ||
	    has_pattern(run, fake, blk_of(run, block), version->value))
		return true;
	snprintf(why, len, "data in block %llu was overwritten or lost",
		 (unsigned long long)blk_of(run, block));
	return false;
}

static bool check_block(struct crash_run *run, struct fake_dev *fake, struct block *block,
			uint32_t seq, unsigned k, char *why, size_t len)
{
	const struct version *version = NULL;

	for (unsigned i = 0; i < block->nr && block->version[i].seq <= seq; i++)
		version = &block->version[i];
	if (!version || !version->value)
		return check_data(run, fake, block, version ? version->seq : 0, k, why, len);
	if (has_pattern(run, fake, blk_of(run, block), version->value))
		return true;
	snprintf(why, len, "block %llu is not what handle %u left (image of handle %u)",
		 (unsigned long long)blk_of(run, block), version->seq, seq);
	return false;
}

/* No copy in the log looks like a block of the log, which a replay could take it for. */
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
			snprintf(why, len, "log block %llu is a copy that was not escaped",
				 (unsigned long long)blk);
			return false;
		}
	}
	return true;
}

static bool raw_check(struct crash_run *run, struct fake_dev *fake, unsigned k, char *why,
		      size_t len)
{
	int64_t seq = marker(run, fake);
	uint32_t acked = 0;

	for (unsigned i = 0; i < run->nr_acks && run->acks[i].event <= k; i++)
		acked = run->acks[i].seq;
	if (seq < 0) {
		snprintf(why, len, "the marker block is torn");
		return false;
	}
	/*
	 * The acknowledged number may be of a cancelled handle, which changed nothing. So the image
	 * is wrong only if a handle that did change something is missing.
	 */
	for (unsigned i = 0; i < NR_BLOCKS; i++)
		for (unsigned n = 0; n < run->block[i].nr; n++) {
			uint32_t changed_by = run->block[i].version[n].seq;

			if (changed_by <= seq || changed_by > acked)
				continue;
			snprintf(why, len,
				 "handle %u was acknowledged and is missing (image of handle %lld)",
				 changed_by, (long long)seq);
			return false;
		}
	for (unsigned i = 0; i < NR_BLOCKS; i++)
		if (!check_block(run, fake, &run->block[i], (uint32_t)seq, k, why, len))
			return false;
	return check_escaped(run, fake, why, len);
}

/* The marker and the blocks that change roles, byte for byte. */
static bool raw_digest(struct crash_run *run, struct fake_dev *fake, uint64_t *sum, char *why,
		       size_t len)
{
	static uint8_t buf[65536];

	*sum = 0;
	for (unsigned i = 0; i <= NR_BLOCKS; i++) {
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
