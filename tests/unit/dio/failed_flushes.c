/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of failed flushes (SYNC-5): each is told once to everybody whose writes it may have
 * lost, and to nobody else, whoever has asked for the flush. The fake device fails a flush at the
 * right moment. All runs on the test's thread.
 */
#include "kit/engine.h"
#include "ext4/ext4.h"

static void fail_next_flush(struct engine *e)
{
	fake_fault_clear(e->fake);
	fake_fault_add(e->fake, &(struct fake_fault){ .kinds = FAKE_FLUSH,
						      .repeat = 1,
						      .action = FAKE_ERROR,
						      .err = -EIO });
}

/*
 * A failed flush is told to exactly the writes that it covered, and once to fsync of a file that
 * had unflushed writes.
 */
START_TEST(flush_failure_reaches_those_it_covered)
{
	struct engine *e = engine_new(&(struct engine_options){ .no_fua = true });
	struct ext4_inode *i2 = engine_file(e, "g"), *i3 = engine_file(e, "h");
	struct dio_file *f2, *f3;
	struct test_request t[6], o;
	uint8_t *buf = buffer_new(8 * BLOCK);

	ck_assert_int_eq(dio_file_open(e->dio, i2, &f2), 0);
	ck_assert_int_eq(dio_file_open(e->dio, i3, &f3), 0);
	write_pattern(e, DIO_DIRECT, 0, 1, 8 * BLOCK);
	engine_submit(e, f2, &o, DIO_DIRECT | DIO_WRITE, 0, buf, BLOCK);
	ck_assert_int_eq(engine_wait(e, &o), BLOCK);
	engine_submit(e, f3, &o, DIO_DIRECT | DIO_WRITE, 0, buf, BLOCK);
	ck_assert_int_eq(engine_wait(e, &o), BLOCK);
	ck_assert_int_eq(ext4_vol_sync(e->vol), 0);
	ck_assert_int_eq(engine_fsync(e, i2, false), 0);
	ck_assert_int_eq(engine_fsync(e, i3, false), 0);
	/* i2 has an unflushed overwrite that nobody waits for. */
	engine_submit(e, f2, &o, DIO_DIRECT | DIO_WRITE, 0, buf, BLOCK);
	ck_assert_int_eq(engine_wait(e, &o), BLOCK);
	fake_fault_add(e->fake, &(struct fake_fault){ .kinds = FAKE_FLUSH,
						      .repeat = 1,
						      .action = FAKE_ERROR,
						      .err = -EIO });
	for (unsigned k = 0; k < 3; k++)
		engine_submit(e, e->file, &t[k], DIO_DIRECT | DIO_WRITE | DIO_DSYNC, k * BLOCK, buf,
			      BLOCK);
	engine_pump(e);
	for (unsigned k = 3; k < 6; k++)
		engine_submit(e, e->file, &t[k], DIO_DIRECT | DIO_WRITE | DIO_DSYNC, k * BLOCK, buf,
			      BLOCK);
	engine_pump(e);
	for (unsigned k = 0; k < 6; k++)
		ck_assert_int_eq(engine_wait(e, &t[k]), k < 3 ? -EIO : (ssize_t)BLOCK);
	ck_assert_int_eq(engine_fsync(e, i2, true), -EIO);
	ck_assert_int_eq(engine_fsync(e, i2, true), 0);
	ck_assert_int_eq(engine_fsync(e, i3, true), 0);
	fake_fault_clear(e->fake);
	dio_file_close(f2);
	dio_file_close(f3);
	ext4_inode_put(i2);
	ext4_inode_put(i3);
	free(buf);
	engine_close(e);
}
END_TEST

/* A failure is told to files that had unflushed writes then, not to those of an earlier failure. */
START_TEST(each_failure_has_its_own_victims)
{
	struct engine *e = engine_new(&(struct engine_options){ .no_fua = true });
	struct ext4_inode *i2 = engine_file(e, "g"), *i3 = engine_file(e, "h");
	struct dio_file *f2, *f3;

	ck_assert_int_eq(dio_file_open(e->dio, i2, &f2), 0);
	ck_assert_int_eq(dio_file_open(e->dio, i3, &f3), 0);
	engine_write_block(e, e->file, 0);
	engine_write_block(e, f2, 0);
	engine_write_block(e, f3, 0);
	ck_assert_int_eq(engine_fsync(e, NULL, false), 0);
	for (unsigned k = 0; k < 3; k++)
		ck_assert_int_eq(engine_fsync_file(e, k == 0 ? e->file : k == 1 ? f2 : f3), 0);
	engine_write_block(e, e->file, 0);
	fail_next_flush(e);
	ck_assert_int_eq(engine_fsync_file(e, e->file), -EIO);
	/*
	 * f2 writes after the failure, and is flushed before the next one. f3 has writes that are
	 * never flushed.
	 */
	engine_write_block(e, f2, 0);
	ck_assert_int_eq(engine_fsync_file(e, f2), 0);
	engine_write_block(e, f3, 0);
	engine_write_block(e, e->file, 0);
	fail_next_flush(e);
	ck_assert_int_eq(engine_fsync_file(e, e->file), -EIO);
	engine_write_block(e, f2, 0);
	ck_assert_int_eq(engine_fsync_file(e, f2), 0);
	ck_assert_int_eq(engine_fsync_file(e, e->file), 0);
	ck_assert_int_eq(engine_fsync_file(e, f3), -EIO);
	ck_assert_int_eq(engine_fsync_file(e, f3), 0);
	/* syncfs tells it once, whichever file lost data. */
	ck_assert_int_eq(engine_fsync(e, NULL, false), -EIO);
	ck_assert_int_eq(engine_fsync(e, NULL, false), 0);
	dio_file_close(f2);
	dio_file_close(f3);
	ext4_inode_put(i2);
	ext4_inode_put(i3);
	engine_close(e);
}
END_TEST

/* Each open file is told once; one opened after the failure only if no other was told before. */
START_TEST(each_opener_is_told_once)
{
	struct engine *e = engine_new(&(struct engine_options){ .no_fua = true });
	struct dio_file *file[3];

	make_extents(e, 1);
	ck_assert_int_eq(dio_file_open(e->dio, e->inode, &file[0]), 0);
	engine_write_block(e, e->file, 0);
	fail_next_flush(e);
	ck_assert_int_eq(dev_flush(fake_dev(e->fake)), -EIO); /* not by fsync */
	ck_assert_int_eq(dio_file_open(e->dio, e->inode, &file[1]), 0);
	for (unsigned k = 0; k < 2; k++) {
		ck_assert_int_eq(engine_fsync_file(e, file[k]), -EIO);
		ck_assert_int_eq(engine_fsync_file(e, file[k]), 0);
	}
	ck_assert_int_eq(dio_file_open(e->dio, e->inode, &file[2]), 0);
	ck_assert_int_eq(engine_fsync_file(e, file[2]), 0);
	ck_assert_int_eq(engine_fsync_file(e, e->file), -EIO);
	ck_assert_int_eq(engine_fsync_file(e, e->file), 0);
	for (unsigned k = 0; k < 3; k++)
		dio_file_close(file[k]);
	engine_close(e);
}
END_TEST

/* A failed flush may lose a write that the device has completed and the engine not noticed yet. */
START_TEST(failed_flush_counts_writes_in_flight)
{
	struct engine *e = engine_new(&(struct engine_options){ .no_fua = true });
	uint8_t *buf = buffer_new(BLOCK);
	struct test_request req;

	make_extents(e, 1);
	ck_assert_int_eq(engine_fsync_file(e, e->file), 0);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	engine_submit(e, e->file, &req, DIO_DIRECT | DIO_WRITE, 0, buf, BLOCK);
	fail_next_flush(e);
	ck_assert_int_eq(dev_flush(fake_dev(e->fake)), -EIO);
	fake_complete_all(e->fake);
	ck_assert_int_eq(engine_wait(e, &req), BLOCK);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	ck_assert_int_eq(engine_fsync_file(e, e->file), -EIO);
	ck_assert_int_eq(engine_fsync_file(e, e->file), 0);
	free(buf);
	engine_close(e);
}
END_TEST

/* A failed flush of the journal is told to files with unflushed writes as well. */
START_TEST(flush_failure_of_the_journal_is_told)
{
	struct engine *e = engine_new(NULL);
	struct ext4_inode *inode = engine_file(e, "g");

	make_extents(e, 2);
	ck_assert_int_eq(engine_fsync(e, e->inode, false), 0);
	ck_assert_int_eq(engine_fsync(e, inode, false), 0);
	write_pattern(e, DIO_DIRECT, 0, 2, BLOCK);
	fake_fault_add(e->fake, &(struct fake_fault){ .kinds = FAKE_FLUSH,
						      .repeat = 1,
						      .action = FAKE_ERROR,
						      .err = -EIO });
	ck_assert_int_eq(ext4_vol_sync(e->vol), -EIO);
	ck_assert_uint_eq(fake_fault_hits(e->fake), 1);
	ck_assert_int_eq(engine_fsync(e, e->inode, true), -EIO);
	/* Told once; the journal has aborted. */
	ck_assert_int_eq(engine_fsync(e, e->inode, true), -EROFS);
	ck_assert_int_eq(engine_fsync(e, inode, true), -EROFS);
	ext4_inode_put(inode);
	engine_close_nocheck(e);
}
END_TEST

/*
 * After the journal has aborted, fsync fails as on ext4: with EIO if the file has uncommitted
 * changes, with EROFS if not.
 */
START_TEST(fsync_after_the_abort)
{
	struct engine *e = engine_new(NULL);
	struct ext4_inode *g = engine_file(e, "g"), *h = engine_file(e, "h");

	ck_assert_int_eq(engine_fsync(e, g, false), 0);
	ck_assert_int_eq(ext4_vol_sync(e->vol), 0);
	ck_assert_int_eq(engine_fsync(e, h, false), 0);
	write_pattern(e, DIO_DIRECT, 0, 1, BLOCK);
	journal_abort(ext4_vol_journal(e->vol), -EIO);
	ck_assert_int_eq(engine_fsync(e, e->inode, false), -EIO);
	ck_assert_int_eq(engine_fsync(e, h, false), -EROFS);
	ck_assert_int_eq(engine_fsync(e, g, true), -EROFS);
	expect_pattern(e, 0, 1, BLOCK); /* reads still work */
	ext4_inode_put(g);
	ext4_inode_put(h);
	engine_close_nocheck(e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("dio: failed flushes");
	TCase *t = unit_case(s, "alone", 60);

	engine_use_template(t);
	unit_test(t, flush_failure_reaches_those_it_covered, PROVES("SYNC-5"));
	unit_test(t, each_failure_has_its_own_victims, PROVES("SYNC-5"));
	unit_test(t, each_opener_is_told_once, PROVES("SYNC-5"));
	unit_test(t, failed_flush_counts_writes_in_flight, PROVES("SYNC-5"));
	unit_test(t, flush_failure_of_the_journal_is_told, PROVES("SYNC-5"));
	unit_test(t, fsync_after_the_abort);
	return s;
}
