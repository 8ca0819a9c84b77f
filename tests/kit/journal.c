/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The journal layer of the kit (kit/journal.h): formats a fake device with mke2fs, finds the
 * journal's blocks with debugfs, opens the journal on them. The test's thread; the journal's
 * callbacks come from its own.
 */
#include "kit/journal.h"

#include "base/crc32c.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

const struct testlog_format testlog_formats[4] = {
	{ "4k-csum", 4096, true, true },
	{ "4k-plain", 4096, false, false },
	{ "1k-csum", 1024, true, true },
	{ "4k-wide", 4096, false, true },
};

static void seal_cb(void *arg, struct journal_handle *handle)
{
	struct testlog *e = arg;

	e->seals++;
	if (e->seal)
		e->seal(e, handle);
}

static void aborted_cb(void *arg, int err)
{
	struct testlog *e = arg;

	if (e->aborted_ms)
		nanosleep(&(struct timespec){ .tv_nsec = e->aborted_ms * 1000000l }, NULL);
	e->aborted_err = err;
	__atomic_add_fetch(&e->aborted, 1, __ATOMIC_SEQ_CST);
}

static void find_log(struct testlog *e)
{
	static char out[1 << 20];
	unsigned n = 0;

	ck_assert_int_eq(fake_run(e->fake, "debugfs -R 'blocks <8>' $IMG 2>/dev/null", out,
				  sizeof(out), false),
			 0);
	for (char *s = strtok(out, " \n"); s; s = strtok(NULL, " \n")) {
		uint64_t blk = strtoull(s, NULL, 10);

		if (n && e->log[n - 1].pblk + e->log[n - 1].len == blk) {
			e->log[n - 1].len++;
			continue;
		}
		ck_assert_uint_lt(n, TESTLOG_MAX_EXTENTS);
		e->log[n++] = (struct journal_extent){ .pblk = blk, .len = 1 };
	}
	ck_assert_uint_gt(n, 0);
	e->params.log = e->log;
	e->params.nr_log = n;
}

/* Sets needs_recovery in the superblock, as the volume does before it starts the journal. */
static void set_needs_recovery(struct testlog *e)
{
	uint8_t sb[1024];
	uint32_t v;

	fake_peek(e->fake, sb, sizeof(sb), 1024);
	sb[0x60] |= 4;
	v = htole32(fdio_crc32c(~0u, sb, 0x3fc));
	if (e->params.metadata_csum)
		memcpy(sb + 0x3fc, &v, 4);
	fake_poke(e->fake, sb, sizeof(sb), 1024);
}

void testlog_format(struct testlog *e, const struct testlog_format *fmt, unsigned log_mib)
{
	uint64_t size = (uint64_t)(log_mib * 2 + 12) << 20;
	char args[256];

	memset(e, 0, sizeof(*e));
	snprintf(args, sizeof(args),
		 "-t ext4 -b %u -O %s,%s,^resize_inode -E lazy_itable_init=0,nodiscard -J size=%u",
		 fmt->bs, fmt->csum ? "metadata_csum" : "^metadata_csum",
		 fmt->wide ? "64bit" : "^64bit", log_mib);
	e->fake = fake_mkfs(size, args);
	ck_assert_ptr_nonnull(e->fake);
	e->params = (struct journal_params){ .dev = fake_dev(e->fake),
					     .block_size = fmt->bs,
					     .nr_blocks = size / fmt->bs,
					     .metadata_csum = fmt->csum,
					     .has_64bit = fmt->wide,
					     .commit_interval_s = 3600,
					     .seal = seal_cb,
					     .aborted = aborted_cb,
					     .arg = e };
	find_log(e);
	set_needs_recovery(e);
	/*
	 * The last MiB of the file system is free. If the log is there, looks for 256 other blocks.
	 */
	e->base = (size - (1 << 20)) / fmt->bs;
	if (e->base <= e->log[e->params.nr_log - 1].pblk + e->log[e->params.nr_log - 1].len)
		e->base = (size / 2) / fmt->bs;
	while (e->base && e->base + 256 < e->params.nr_blocks) {
		bool clash = false;

		for (unsigned i = 0; i < e->params.nr_log; i++)
			clash |= e->log[i].pblk < e->base + 256 &&
				 e->base < e->log[i].pblk + e->log[i].len;
		if (!clash)
			break;
		e->base += 256;
	}
}

void testlog_open(struct testlog *e)
{
	char err[256] = "";
	int r;

	e->params.dev = fake_dev(e->fake);
	r = journal_open(&e->params, &e->journal, FDIO_REASON(err));
	ck_assert_msg(r == 0, "journal_open: %d %s", r, err);
}

void testlog_start(struct testlog *e)
{
	ck_assert_int_eq(journal_start(e->journal), 0);
}

void testlog_up_as(struct testlog *e, const struct testlog_format *fmt, unsigned log_mib)
{
	testlog_format(e, fmt, log_mib);
	testlog_open(e);
	testlog_start(e);
}

void testlog_up(struct testlog *e) { testlog_up_as(e, &testlog_formats[0], 4); }

void testlog_sync(struct testlog *e) { ck_assert_int_eq(journal_sync(e->journal), 0); }

void testlog_down(struct testlog *e)
{
	ck_assert_int_eq(journal_stop(e->journal), 0);
	testlog_drop(e);
}

void testlog_drop(struct testlog *e)
{
	if (e->journal) {
		journal_stop(e->journal);
		journal_close(e->journal);
	}
	e->journal = NULL;
	if (e->fake)
		fake_free(e->fake);
	e->fake = NULL;
}

void testlog_cut(struct testlog *e, enum fake_cut mode, uint64_t seed)
{
	struct fake_dev *left = fake_power_cut(e->fake, mode, seed);

	testlog_drop(e);
	e->fake = left;
	e->params.dev = fake_dev(left);
}

void testlog_replay(struct testlog *e, struct journal_replay_stats *stats)
{
	struct journal_replay_stats dummy;
	char err[256] = "";
	int r;

	testlog_open(e);
	r = journal_replay(e->journal, stats ? stats : &dummy, FDIO_REASON(err));
	ck_assert_msg(r == 0, "journal_replay: %d %s", r, err);
}

void testlog_crash(struct testlog *e, struct journal_replay_stats *stats)
{
	testlog_cut(e, FAKE_CUT_DROP, 0);
	testlog_replay(e, stats);
}

/* ---- patterns ---- */

void testlog_pattern(uint8_t *buf, unsigned bs, uint64_t blk, uint32_t value)
{
	for (unsigned off = 0; off < bs; off += 8) {
		uint32_t w[2] = { value, (uint32_t)blk ^ (off << 16) };

		memcpy(buf + off, w, 8);
	}
}

int64_t testlog_parse(const uint8_t *buf, unsigned bs, uint64_t blk)
{
	uint32_t value;
	uint8_t *want = malloc(bs);
	bool same;

	ck_assert_ptr_nonnull(want);
	memcpy(&value, buf, 4);
	testlog_pattern(want, bs, blk, value);
	same = !memcmp(buf, want, bs);
	free(want);
	return same ? (int64_t)value : -1;
}

void testlog_fill(struct testlog *e, struct journal_handle *handle, uint64_t blk, uint32_t value)
{
	struct journal_buffer *buffer;

	ck_assert_int_eq(journal_read_block(e->journal, blk, &buffer), 0);
	ck_assert_int_eq(journal_get_write(handle, buffer), 0);
	testlog_pattern(buffer->data, e->params.block_size, blk, value);
	journal_buffer_release(buffer);
}

journal_tid testlog_write(struct testlog *e, uint64_t blk, uint32_t value)
{
	struct journal_handle *handle;

	ck_assert_int_eq(journal_begin(e->journal, 1, &handle), 0);
	testlog_fill(e, handle, blk, value);
	return journal_end(handle);
}

int64_t testlog_value(struct testlog *e, uint64_t blk)
{
	struct journal_buffer *buffer;
	int64_t v;

	ck_assert_int_eq(journal_read_block(e->journal, blk, &buffer), 0);
	v = testlog_parse(buffer->data, e->params.block_size, blk);
	journal_buffer_release(buffer);
	return v;
}

int64_t testlog_home(struct testlog *e, uint64_t blk)
{
	uint8_t *buf = malloc(e->params.block_size);
	int64_t v;

	ck_assert_ptr_nonnull(buf);
	fake_peek(e->fake, buf, e->params.block_size, blk * e->params.block_size);
	v = testlog_parse(buf, e->params.block_size, blk);
	free(buf);
	return v;
}
