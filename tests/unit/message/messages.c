/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of src/message: well-formed, truncated and hostile FUSE messages, and the encoders of
 * directory entries.
 */
#include "message/message.h"
#include "kit/runner.h"
#include "message/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A message in memory of exactly its size, so that ASan notices any access beyond it. */
static uint8_t *message(uint32_t opcode, const void *arg, size_t arg_len, const void *rest,
			size_t rest_len, uint16_t extlen8, size_t *ret_len)
{
	struct fuse_in_header header = { .len = sizeof(header) + arg_len + rest_len,
					 .opcode = opcode,
					 .unique = 7,
					 .nodeid = 1 };
	uint8_t *m = malloc(header.len);

	ck_assert_ptr_nonnull(m);
	memcpy((uint8_t *)&header + 36, &extlen8, 2);
	memcpy(m, &header, sizeof(header));
	if (arg_len)
		memcpy(m + sizeof(header), arg, arg_len);
	if (rest_len)
		memcpy(m + sizeof(header) + arg_len, rest, rest_len);
	*ret_len = header.len;
	return m;
}

static int decode(uint32_t opcode, const void *arg, size_t arg_len, const void *rest,
		  size_t rest_len, uint16_t extlen8, struct message_in *in, uint8_t **ret_msg)
{
	size_t len;

	*ret_msg = message(opcode, arg, arg_len, rest, rest_len, extlen8, &len);
	return message_decode(*ret_msg, len, in);
}

START_TEST(names)
{
	struct message_in in;
	uint8_t *m;

	ck_assert_int_eq(decode(FUSE_LOOKUP, NULL, 0, "file", 5, 0, &in, &m), 0);
	ck_assert_str_eq(in.name, "file");
	ck_assert_uint_eq(in.name_len, 4);
	ck_assert_uint_eq(in.header.unique, 7);
	free(m);
	ck_assert_int_eq(decode(FUSE_LOOKUP, NULL, 0, "file", 4, 0, &in, &m), -EINVAL); /* no NUL */
	free(m);
	ck_assert_int_eq(decode(FUSE_LOOKUP, NULL, 0, "", 1, 0, &in, &m), -EINVAL);
	free(m);
	ck_assert_int_eq(decode(FUSE_LOOKUP, NULL, 0, NULL, 0, 0, &in, &m), -EINVAL);
	free(m);
	ck_assert_int_eq(decode(FUSE_UNLINK, NULL, 0, "a/b", 4, 0, &in, &m), -EINVAL);
	free(m);
	ck_assert_int_eq(decode(FUSE_SYMLINK, NULL, 0, "l\0/a/b", 7, 0, &in, &m), 0);
	ck_assert_str_eq(in.name, "l");
	ck_assert_str_eq(in.name2, "/a/b");
	free(m);
	struct fuse_rename2_in r2 = { .newdir = 5, .flags = 1 };
	ck_assert_int_eq(decode(FUSE_RENAME2, &r2, sizeof(r2), "old\0new", 8, 0, &in, &m), 0);
	ck_assert_str_eq(in.name, "old");
	ck_assert_str_eq(in.name2, "new");
	ck_assert_uint_eq(((const struct fuse_rename2_in *)in.arg)->flags, 1);
	free(m);
	ck_assert_int_eq(decode(FUSE_RENAME2, &r2, sizeof(r2), "old\0new", 7, 0, &in, &m), -EINVAL);
	free(m);
}
END_TEST

/* The length in the header must be that of the message. */
START_TEST(length_is_the_messages)
{
	struct message_in in;
	size_t len;
	uint8_t *m = message(FUSE_LOOKUP, NULL, 0, "file", 5, 0, &len);
	struct fuse_in_header header;

	ck_assert_int_eq(message_decode(m, len, &in), 0);
	for (int by = -1; by <= 1; by += 2) {
		memcpy(&header, m, sizeof(header));
		header.len = (uint32_t)((int)len + by);
		memcpy(m, &header, sizeof(header));
		ck_assert_int_eq(message_decode(m, len, &in), -EINVAL);
	}
	free(m);
}
END_TEST

START_TEST(write_data_is_bounded)
{
	struct fuse_write_in w = { .fh = 3, .offset = 512, .size = 100 };
	uint8_t data[100] = { 1, 2, 3 };
	struct message_in in;
	uint8_t *m;

	ck_assert_int_eq(decode(FUSE_WRITE, &w, sizeof(w), data, 100, 0, &in, &m), 0);
	ck_assert_uint_eq(in.data_len, 100);
	ck_assert_mem_eq(in.data, data, 100);
	ck_assert_uint_eq(in.data - m, MESSAGE_WRITE_HDR);
	free(m);
	ck_assert_int_eq(decode(FUSE_WRITE, &w, sizeof(w), data, 99, 0, &in, &m), -EINVAL);
	free(m);
	w.size = UINT32_MAX;
	ck_assert_int_eq(decode(FUSE_WRITE, &w, sizeof(w), data, 100, 0, &in, &m), -EINVAL);
	free(m);
}
END_TEST

START_TEST(xattr_value_is_bounded)
{
	struct fuse_setxattr_in s = { .size = 3 };
	struct message_in in;
	uint8_t *m;

	ck_assert_int_eq(decode(FUSE_SETXATTR, &s, sizeof(s), "user.a/b\0xyz", 12, 0, &in, &m), 0);
	ck_assert_str_eq(in.name, "user.a/b");
	ck_assert_mem_eq(in.data, "xyz", 3);
	free(m);
	s.size = 4;
	ck_assert_int_eq(decode(FUSE_SETXATTR, &s, sizeof(s), "user.a/b\0xyz", 12, 0, &in, &m),
			 -EINVAL);
	free(m);
}
END_TEST

START_TEST(groups_extension)
{
	struct fuse_create_in c = { .mode = 0100644 };
	uint8_t rest[8 + 24] = "name\0\0\0";
	uint32_t ext[6] = { 24, MESSAGE_EXT_GROUPS, 2, 100, 200, 0 };
	struct message_in in;
	uint8_t *m;

	memcpy(rest + 8, ext, sizeof(ext));
	ck_assert_int_eq(decode(FUSE_CREATE, &c, sizeof(c), rest, sizeof(rest), 3, &in, &m), 0);
	ck_assert_str_eq(in.name, "name");
	ck_assert_uint_eq(in.nr_groups, 2);
	ck_assert_uint_eq(in.groups[1], 200);
	free(m);
	ext[2] = 4; /* one group more than there are bytes for */
	memcpy(rest + 8, ext, sizeof(ext));
	ck_assert_int_eq(decode(FUSE_CREATE, &c, sizeof(c), rest, sizeof(rest), 3, &in, &m),
			 -EINVAL);
	free(m);
	ext[2] = 1000; /* far more */
	memcpy(rest + 8, ext, sizeof(ext));
	ck_assert_int_eq(decode(FUSE_CREATE, &c, sizeof(c), rest, sizeof(rest), 3, &in, &m),
			 -EINVAL);
	free(m);
	ext[0] = 4; /* shorter than its header */
	memcpy(rest + 8, ext, sizeof(ext));
	ck_assert_int_eq(decode(FUSE_CREATE, &c, sizeof(c), rest, sizeof(rest), 3, &in, &m),
			 -EINVAL);
	free(m);
	/* The extensions are longer than the message. */
	ck_assert_int_eq(decode(FUSE_CREATE, &c, sizeof(c), rest, sizeof(rest), 100, &in, &m),
			 -EINVAL);
	free(m);
}
END_TEST

START_TEST(short_and_unknown)
{
	struct fuse_in_header header = { .len = 40, .opcode = 999, .unique = 1 };
	struct message_in in = { .header.unique = 7 }; /* of the last message */

	ck_assert_int_eq(message_decode(&header, 39, &in), -EBADMSG);
	ck_assert_uint_eq(in.header.unique, 0);
	ck_assert_int_eq(message_decode(&header, 40, &in), -ENOSYS);
	header.opcode = FUSE_READ;
	ck_assert_int_eq(message_decode(&header, 40, &in), -EINVAL);
	header.len = 41;
	ck_assert_int_eq(message_decode(&header, 40, &in), -EINVAL);
	ck_assert_ptr_null(message_op_lookup(999));
	ck_assert_uint_eq(message_op_lookup(FUSE_READ)->arg_size, 40);
	ck_assert_str_eq(message_opcode_name(FUSE_STATX), "STATX");
	ck_assert_str_eq(message_opcode_name(7), "?");
}
END_TEST

/*
 * Messages of pseudo-random bytes, with every opcode and every length: decoding accepts or refuses
 * them, and never reads outside of them (ASan).
 */
START_TEST(any_bytes_any_length)
{
	uint64_t x = 88172645463325252ULL;

	for (uint32_t op = 0; op < 60; op++)
		for (size_t len = 0; len < 200; len++) {
			uint8_t *m = malloc(len ? len : 1);
			struct message_in in;

			for (size_t i = 0; i < len; i++) {
				x ^= x << 13, x ^= x >> 7, x ^= x << 17;
				m[i] = (x & 0x300) ? (uint8_t)x : 0;
			}
			if (len >= 8) {
				uint32_t l = (uint32_t)len;
				memcpy(m, &l, 4);
				memcpy(m + 4, &op, 4);
			}
			if (len >= 40)
				m[36] &= 7, m[37] = 0;
			int err = message_decode(m, len, &in);
			ck_assert(err <= 0);
			if (!err && in.name)
				ck_assert_uint_eq(strlen(in.name), in.name_len);
			free(m);
		}
}
END_TEST

START_TEST(parts_equal_whole)
{
	struct fuse_write_in w = { .fh = 9, .offset = 1, .size = 4 };
	struct fuse_in_header header = { .len = 84, .opcode = FUSE_WRITE, .unique = 3 };
	uint8_t area[128] = { 0 };
	struct message_in in;

	memcpy(area, &w, sizeof(w));
	ck_assert_int_eq(message_decode_parts(&header, area, "data", 4, &in), 0);
	ck_assert_uint_eq(((const struct fuse_write_in *)in.arg)->fh, 9);
	ck_assert_uint_eq(in.data_len, 4);
	ck_assert_int_eq(message_decode_parts(&header, area, "dat", 3, &in), -EINVAL);
}
END_TEST

START_TEST(dirents_fit_exactly)
{
	uint8_t buf[128];
	uint32_t off = 0;

	ck_assert(message_add_dirent(buf, 64, &off, 11, 1, 8, "abc", 3));
	ck_assert_uint_eq(off, 32);
	ck_assert(message_add_dirent(buf, 64, &off, 12, 2, 8, "12345678", 8));
	ck_assert_uint_eq(off, 64);
	ck_assert(!message_add_dirent(buf, 64, &off, 13, 3, 8, "x", 1));
	ck_assert_uint_eq(off, 64);
	const struct fuse_dirent *d = (const void *)(buf + 32);
	ck_assert_uint_eq(d->ino, 12);
	ck_assert_uint_eq(d->off, 2);
	ck_assert_uint_eq(d->namelen, 8);

	struct fuse_entry_out entry = { .nodeid = 5 };
	uint8_t plus[400];
	off = 0;
	ck_assert(message_add_direntplus(plus, sizeof(plus), &off, &entry, 5, 1, 4, "dir", 3));
	ck_assert_uint_eq(off, sizeof(entry) + 32);
	ck_assert(!message_add_direntplus(plus, off + 10, &off, &entry, 5, 1, 4, "dir", 3));
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("message: messages");
	TCase *t = unit_case(s, "protocol", 60);

	unit_test(t, names);
	unit_test(t, length_is_the_messages);
	unit_test(t, write_data_is_bounded);
	unit_test(t, xattr_value_is_bounded);
	unit_test(t, groups_extension);
	unit_test(t, short_and_unknown);
	unit_test(t, any_bytes_any_length);
	unit_test(t, parts_equal_whole);
	unit_test(t, dirents_fit_exactly);
	return s;
}
