/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * INIT: what is negotiated with kernels of all ages. A socket stands for /dev/fuse; the test sends
 * the kernel's INIT and reads the answer. The linker's --wrap makes up the kernel's sysctls and the
 * size of its pages.
 */
#include "base/log.h"
#include "base/sysfs.h"
#include "kit/runner.h"
#include "transport/types.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define OFFERED_BY_ALL (FUSE_MAX_PAGES | FUSE_SETXATTR_EXT)

static struct transport transport;
static struct transport_queue queue;
static int kernel; /* the kernel's end of the socket */
static char why[256];
static const char *sysctl_default, *sysctl_max; /* NULL: there is no such file */

static long page_size;

bool __wrap_fdio_sysfs_line(char *line, size_t cap, const char *path_fmt, ...);
long __wrap_sysconf(int name);
long __real_sysconf(int name);

bool __wrap_fdio_sysfs_line(char *line, size_t cap, const char *path_fmt, ...)
{
	const char *text;
	va_list ap;

	va_start(ap, path_fmt);
	text = strcmp(va_arg(ap, const char *), "max_request_timeout") ? sysctl_default
									 : sysctl_max;
	va_end(ap);
	snprintf(line, cap, "%s", text ? text : "");
	return text;
}

long __wrap_sysconf(int name)
{
	return name == _SC_PAGESIZE ? page_size : __real_sysconf(name);
}

static void setup(void)
{
	int fds[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
	memset(&transport, 0, sizeof(transport));
	memset(&queue, 0, sizeof(queue));
	kernel = fds[0];
	transport.fd = fds[1];
	transport.queues = &queue;
	transport.nr_queues = 1;
	transport.config.transport = TRANSPORT_KIND_DEVFUSE;
	queue.arena = calloc(1, TRANSPORT_SLOT_BYTES);
	ck_assert_ptr_nonnull(queue.arena);
	sysctl_default = sysctl_max = "0";
	page_size = 4096;
}

static void teardown(void)
{
	close(kernel);
	close(transport.fd);
	free(queue.arena);
}

/* Sends INIT, as a kernel of this minor version that offers these flags beside the necessary. */
static int negotiate(uint32_t minor, uint64_t flags)
{
	struct {
		struct fuse_in_header header;
		struct fuse_init_in in;
	} message = {
		.header = { .len = sizeof(message), .opcode = FUSE_INIT, .unique = 2 },
		.in = { .major = FUSE_KERNEL_VERSION, .minor = minor },
	};

	flags |= OFFERED_BY_ALL;
	message.in.flags = (uint32_t)flags;
	message.in.flags2 = (uint32_t)(flags >> 32);
	ck_assert_int_eq(send(kernel, &message, sizeof(message), 0), sizeof(message));
	return transport_init_handshake(&transport, FDIO_REASON(why));
}

struct answer {
	struct fuse_out_header header;
	struct fuse_init_out out;
};

static struct answer answer(void)
{
	struct answer ret = { 0 };
	ssize_t n = recv(kernel, &ret, sizeof(ret), MSG_DONTWAIT);

	ck_assert_int_ge(n, (ssize_t)sizeof(ret.header));
	ck_assert_uint_eq(ret.header.len, (unsigned)n);
	ck_assert_uint_eq(ret.header.unique, 2);
	return ret;
}

static uint64_t flags_of(const struct answer *from)
{
	return from->out.flags | (uint64_t)from->out.flags2 << 32;
}

static unsigned timeout_of(const struct answer *from)
{
	uint16_t seconds;

	memcpy(&seconds, (const char *)&from->out + 40, sizeof(seconds));
	return seconds;
}

/* Both sides use the smaller of the two minor versions, whatever header this was built with. */
START_TEST(minor_version)
{
	static const uint32_t minors[] = { 36, 38, 43, 45, 46, 60 };

	for (size_t i = 0; i < ARRAY_SIZE(minors); i++) {
		ck_assert_int_eq(negotiate(minors[i], MESSAGE_INIT_EXT), 0);
		ck_assert_uint_eq(answer().out.minor, MESSAGE_PROTOCOL_MINOR);
		ck_assert_uint_eq(transport_conn(&transport)->kernel_minor, minors[i]);
		ck_assert_uint_eq(transport_conn(&transport)->proto_minor,
				  FDIO_MIN(minors[i], 45u));
	}
}
END_TEST

START_TEST(only_what_is_offered)
{
	struct answer got;

	ck_assert_int_eq(negotiate(38, 0), 0);
	got = answer();
	ck_assert_uint_eq(flags_of(&got), OFFERED_BY_ALL);
	/* Without INIT_EXT the upper half of the flags is not there, whatever it contains. */
	ck_assert_int_eq(negotiate(38, MESSAGE_CREATE_SUPP_GROUP), 0);
	got = answer();
	ck_assert_uint_eq(flags_of(&got), OFFERED_BY_ALL);
	ck_assert_int_eq(negotiate(38, MESSAGE_INIT_EXT | MESSAGE_CREATE_SUPP_GROUP), 0);
	got = answer();
	ck_assert_uint_eq(flags_of(&got),
			  OFFERED_BY_ALL | MESSAGE_INIT_EXT | MESSAGE_CREATE_SUPP_GROUP);
}
END_TEST

START_TEST(old_kernels_are_refused)
{
	ck_assert_int_eq(negotiate(32, 0), -EPROTO);
	ck_assert_int_eq(answer().header.error, -EPROTO);
	ck_assert_ptr_nonnull(strstr(why, "7.32"));
}
END_TEST

/*
 * A request has at most 1 MiB, however large a page is: the kernel refuses entries of its ring that
 * are smaller than max_pages pages, and an entry has 1 MiB.
 */
START_TEST(requests_fit_into_an_entry)
{
	struct answer got;

	page_size = 4096l << (2 * _i);
	ck_assert_int_eq(negotiate(45, 0), 0);
	got = answer();
	ck_assert_uint_eq(got.out.max_write, TRANSPORT_PAYLOAD_BYTES);
	ck_assert_uint_eq((uint64_t)got.out.max_pages * (uint64_t)page_size,
			  TRANSPORT_PAYLOAD_BYTES);
}
END_TEST

/* ---- time limits of requests ---- */

static const struct limit {
	const char *usual, *most;
	bool offered;
	unsigned asked, counts;
} limits[] = {
	{ "0", "0", true, 0, 0 },
	{ "20", "0", true, 65535, 65535 },
	{ "20", "300", true, 65535, 300 },
	{ "0", "300", true, 65535, 300 },
	{ "0", "3", true, 65535, 15 },      /* the kernel's least */
	{ "65535", "65535", true, 65535, 65535 },
	{ NULL, NULL, true, 65535, 65535 }, /* the sysctls cannot be read: no default counts */
	{ "20", "300", false, 0, 0 },       /* before Linux 6.15 */
};

/* default_request_timeout never counts, and max_request_timeout is told. */
START_TEST(time_limit)
{
	const struct limit *limit = &limits[_i];
	struct answer got;

	sysctl_default = limit->usual;
	sysctl_max = limit->most;
	ck_assert_int_eq(negotiate(45, MESSAGE_INIT_EXT |
				       (limit->offered ? MESSAGE_REQUEST_TIMEOUT : 0)), 0);
	got = answer();
	ck_assert_uint_eq(timeout_of(&got), limit->asked);
	ck_assert_int_eq(!!(flags_of(&got) & MESSAGE_REQUEST_TIMEOUT), limit->asked != 0);
	ck_assert_uint_eq(transport_conn(&transport)->request_timeout, limit->counts);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("transport: init");
	TCase *c = unit_case(s, "all", 60);

	tcase_add_checked_fixture(c, setup, teardown);
	unit_test(c, minor_version);
	unit_test(c, only_what_is_offered);
	unit_test(c, old_kernels_are_refused);
	unit_loop(c, requests_fit_into_an_entry, 0, 3); /* 4, 16, 64 KiB */
	unit_loop(c, time_limit, 0, ARRAY_SIZE(limits));
	return s;
}
