/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of writes while there is no memory. The kernel asks the daemon to write out in order
 * to get memory, so whatever brings data to the device must work without any.
 *
 * The linker puts the functions below in the place of malloc and its like for the product's rooms,
 * not for the fake device and this file (see Makefile.inc). From set_memory(false) on all of them
 * fail.
 */
#include "kit/engine.h"
#include "base/log.h"
#include "ext4/data/map.h"
#include "ext4/ext4.h"
#include "journal/journal_types.h"

#include <errno.h>

struct write { uint64_t pos; uint32_t len; };

static bool no_memory;
static unsigned refused;

static bool refuse(void)
{
	if (!__atomic_load_n(&no_memory, __ATOMIC_SEQ_CST))
		return false;
	__atomic_add_fetch(&refused, 1, __ATOMIC_SEQ_CST);
	errno = ENOMEM;
	return true;
}

void *__wrap_malloc(size_t len);
void *__wrap_malloc(size_t len) { return refuse() ? NULL : malloc(len); }
void *__wrap_calloc(size_t n, size_t len);
void *__wrap_calloc(size_t n, size_t len) { return refuse() ? NULL : calloc(n, len); }
void *__wrap_realloc(void *p, size_t len);
void *__wrap_realloc(void *p, size_t len) { return refuse() ? NULL : realloc(p, len); }
int __wrap_posix_memalign(void **p, size_t align, size_t len);
int __wrap_posix_memalign(void **p, size_t align, size_t len)
{
	return refuse() ? ENOMEM : posix_memalign(p, align, len);
}

/* libcheck is linked statically and allocates through these. */
void *__wrap_emalloc(size_t len);
void *__wrap_emalloc(size_t len) { return malloc(len); }
void *__wrap_erealloc(void *p, size_t len);
void *__wrap_erealloc(void *p, size_t len) { return realloc(p, len); }

static void set_memory(bool on) { __atomic_store_n(&no_memory, !on, __ATOMIC_SEQ_CST); }

/* The data of these writes can be read, also after a power cut; then closes e. */
static void check_and_close(struct engine *e, const struct write *write, unsigned n)
{
	struct engine *after;

	ck_assert_int_eq(ext4_vol_sync(e->vol), 0);
	set_memory(true);
	after = engine_cut(e, FAKE_CUT_DROP, 1);
	for (unsigned k = 0; k < n; k++) {
		expect_pattern(e, write[k].pos, 1, write[k].len);
		expect_pattern(after, write[k].pos, 1, write[k].len);
	}
	engine_close(after);
	engine_close(e);
}

/* ---- writes ---- */

static void append_on_the_loop(struct engine *e, uint64_t pos, uint32_t len)
{
	uint8_t *buf = buffer_new(fdio_round_up(len, BLOCK) + BLOCK);
	struct test_request req;

	fill_pattern(buf, 1, pos, len);
	engine_submit_with_room(e, e->file, &req, DIO_WRITE, pos, buf, len,
				fdio_round_up(len, BLOCK) + BLOCK);
	ck_assert_int_eq(engine_wait(e, &req), len);
	free(buf);
}

START_TEST(small_appends_on_the_loop)
{
	static const struct write write[] = {
		{ 0, 3584 }, { 3584, 512 }, { 4096, 8704 }, { 12800, 10240 }, { 23040, 700 }
	};
	struct engine *e = engine_new(&(struct engine_options){ .stale = true, .relaxed = true });
	uint64_t slow = counter(COUNTER_dio_write_slow), grown = counter(COUNTER_dio_grow);

	set_memory(false);
	for (unsigned k = 0; k < ARRAY_SIZE(write); k++) {
		append_on_the_loop(e, write[k].pos, write[k].len);
		ck_assert_int_eq(ext4_vol_sync(e->vol),
				 0); /* so each write has its own transaction */
	}
	ck_assert_uint_eq(counter(COUNTER_dio_write_slow), slow);
	ck_assert_uint_eq(counter(COUNTER_dio_grow), grown + ARRAY_SIZE(write));
	check_and_close(e, write, ARRAY_SIZE(write));
}
END_TEST

/* The append window opens on the way. */
START_TEST(appends_through_the_window)
{
	static const struct write write[] = { { 0, 200 * BLOCK } };
	struct engine *e = engine_new(&(struct engine_options){ .stale = true });

	set_memory(false);
	for (unsigned k = 0; k < 200; k++)
		write_pattern(e, 0, (uint64_t)k * BLOCK, 1, BLOCK);
	ck_assert_int_eq(engine_fsync(e, e->inode, false), 0);
	check_and_close(e, write, 1);
}
END_TEST

enum { SPOTS = 500 };

/*
 * First into every other block, so that the tree gets two levels; then into those between, so that
 * the tree fits the inode again and its nodes are freed.
 */
START_TEST(writes_into_holes)
{
	static const struct write write[] = { { 0, 2 * SPOTS * BLOCK } };
	struct engine *e = engine_new(&(struct engine_options){ .stale = true });

	engine_truncate(e, e->inode, 2 * SPOTS * BLOCK);
	ck_assert_int_eq(ext4_vol_sync(e->vol), 0);
	set_memory(false);
	for (unsigned k = 0; k < SPOTS; k++) {
		write_pattern(e, 0, (uint64_t)(k * 37 % SPOTS) * 2 * BLOCK, 1, BLOCK);
		if (k % 100 == 99)
			ck_assert_int_eq(ext4_vol_sync(e->vol), 0);
	}
	for (unsigned k = 0; k < SPOTS; k++) {
		write_pattern(e, DIO_DSYNC * (k % 50 == 49),
			      (uint64_t)(k * 41 % SPOTS) * 2 * BLOCK + BLOCK, 1, BLOCK);
		if (k % 100 == 99)
			ck_assert_int_eq(ext4_vol_sync(e->vol), 0);
	}
	check_and_close(e, write, 1);
}
END_TEST

START_TEST(writes_into_preallocated_blocks)
{
	static const struct write write[] = { { 0, 2 * SPOTS * BLOCK } };
	struct engine *e = engine_new(&(struct engine_options){ .stale = true });

	engine_fallocate(e, 0, 0, 2 * SPOTS * BLOCK);
	ck_assert_int_eq(ext4_vol_sync(e->vol), 0);
	set_memory(false);
	for (unsigned half = 0; half < 2; half++)
		for (unsigned k = 0; k < SPOTS; k++)
			write_pattern(e, 0, (uint64_t)(k * 37 % SPOTS) * 2 * BLOCK + half * BLOCK,
				      1, BLOCK);
	check_and_close(e, write, 1);
}
END_TEST

START_TEST(write_gets_blocks_in_many_pieces)
{
	static const struct write write[] = { { 0, 100 * BLOCK } };
	struct engine *e = engine_new(NULL);
	struct ext4_inode *g = engine_file(e, "g"), *file = e->inode;
	struct ext4_statfs stats;

	/* Another file takes all space but every other block of its beginning. */
	ext4_vol_statfs(e->vol, &stats);
	e->inode = g;
	engine_fallocate(e, 0, 0, (stats.bfree - 200) * BLOCK);
	for (unsigned k = 0; k < 250; k++)
		engine_fallocate(e, EXT4_FALLOC_PUNCH_HOLE | EXT4_FALLOC_KEEP_SIZE,
				 (uint64_t)k * 2 * BLOCK, BLOCK);
	ext4_vol_statfs(e->vol, &stats);
	engine_fallocate(e, 0, ext4_inode_size(g), 190 * BLOCK);
	e->inode = file;
	ck_assert_int_eq(ext4_vol_sync(e->vol), 0);
	set_memory(false);
	write_pattern(e, DIO_ROOT, 0, 1, 100 * BLOCK);
	ck_assert_uint_gt(counter(COUNTER_ext4_map_reserve), 1);
	ext4_inode_put(g);
	check_and_close(e, write, 1);
}
END_TEST

/* The map is dropped before each write; the last write leaves a gap. */
START_TEST(writes_without_a_loaded_map)
{
	static const struct write write[] = { { 0, BLOCK },
					      { 2 * BLOCK, 8 * BLOCK },
					      { 100 * BLOCK, BLOCK } };
	struct engine *e = engine_new(&(struct engine_options){ .stale = true });

	write_pattern(e, 0, 0, 1, BLOCK);
	set_memory(false);
	ext4_map_drop(e->inode);
	for (unsigned k = 1; k < ARRAY_SIZE(write); k++) {
		write_pattern(e, 0, write[k].pos, 1, write[k].len);
		ext4_map_drop(e->inode);
	}
	check_and_close(e, write, ARRAY_SIZE(write));
}
END_TEST

/* ---- what others do meanwhile ---- */

/*
 * So many blocks are freed in one transaction that there is no memory for their records: the
 * transaction is closed and another begins.
 */
START_TEST(write_beside_many_freed_blocks)
{
	static const struct write write[] = { { 0, BLOCK } };
	struct engine *e = engine_new(&(struct engine_options){ .stale = true });

	set_memory(false);
	for (unsigned k = 0; k < 1500; k++) {
		write_pattern(e, 0, 0, 1, BLOCK);
		engine_truncate(e, e->inode, 0);
	}
	ck_assert_uint_gt(counter(COUNTER_journal_mem_closed), 0);
	write_pattern(e, 0, 0, 1, BLOCK);
	check_and_close(e, write, 1);
}
END_TEST

/* The block cache cannot grow, so it drops blocks that nobody uses. */
START_TEST(write_with_a_full_block_cache)
{
	static const struct write write[] = { { 0, BLOCK } };
	struct engine *e = engine_new(&(struct engine_options){ .stale = true });
	uint64_t shed = counter(COUNTER_journal_cache_shed);

	set_memory(false);
	for (uint64_t blk = 1; blk < ENGINE_IMAGE_SIZE / BLOCK; blk++) {
		struct journal_buffer *buffer;

		ck_assert_int_eq(journal_read_block(e->vol->journal, blk, &buffer), 0);
		journal_buffer_release(buffer);
	}
	ck_assert_uint_gt(counter(COUNTER_journal_cache_shed), shed);
	write_pattern(e, 0, 0, 1, BLOCK);
	check_and_close(e, write, 1);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("dio: no memory");
	TCase *t = unit_case(s, "no memory", 120);

	engine_use_template(t);
	unit_test(t, small_appends_on_the_loop);
	unit_test(t, appends_through_the_window);
	unit_test(t, writes_into_holes);
	unit_test(t, writes_into_preallocated_blocks);
	unit_test(t, write_gets_blocks_in_many_pieces);
	unit_test(t, writes_without_a_loaded_map);
	unit_test(t, write_beside_many_freed_blocks);
	unit_test(t, write_with_a_full_block_cache);
	return s;
}
