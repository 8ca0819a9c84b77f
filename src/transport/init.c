/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * FUSE_INIT: the negotiation of flags and limits with the kernel. The main thread reads and answers
 * it once, before any loop takes requests; no locks. A kernel that is too old gets an error as its
 * answer, and the start fails with a reason.
 *
 * The choices follow from one fact: the daemon owns the device and no other program changes the
 * file system, so the kernel may cache names, attributes and pages for as long as it likes.
 * max_write and max_read are max_pages in bytes, so that 1 MiB of page-aligned memory makes one
 * request. The kernel limits a direct-I/O request by the number of pages that it touches. A buffer
 * that is not page-aligned touches one more, so the kernel splits it at a page boundary of the
 * buffer, which may be any byte of the file. The I/O engine takes such pieces. Pages have 4 to 64
 * KiB; with more than 1 MiB of them, the kernel would refuse entries of its ring as too small.
 */
#include "transport/types.h"

#include "base/log.h"
#include "base/sysfs.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define INIT_TIMEOUT_MS 10000
#define DEFAULT_BACKGROUND 4096u
/* Seconds: what INIT can ask for, and the kernel's least. */
#define TIMEOUT_LONGEST 65535u
#define TIMEOUT_SHORTEST 15u

static uint64_t wanted_flags(struct transport *transport)
{
	const struct transport_config *config = &transport->config;
	char why[128];
	uint64_t f = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS |
		     FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS |
		     FUSE_HANDLE_KILLPRIV_V2 | FUSE_ABORT_ERROR | FUSE_MAX_PAGES |
		     FUSE_CACHE_SYMLINKS | FUSE_EXPLICIT_INVAL_DATA | FUSE_SETXATTR_EXT |
		     MESSAGE_INIT_EXT | MESSAGE_CREATE_SUPP_GROUP | FUSE_DONT_MASK;

	if (config->posix_acl)
		f |= FUSE_POSIX_ACL;
	if (config->idmap)
		f |= MESSAGE_ALLOW_IDMAP;
	if (config->parallel_dio)
		f |= MESSAGE_DIRECT_IO_ALLOW_MMAP;
	if (config->transport != TRANSPORT_KIND_DEVFUSE &&
	    transport_uring_usable(transport, FDIO_REASON(why)))
		f |= MESSAGE_OVER_IO_URING;
	f |= config->export_handles ? (uint64_t)FUSE_EXPORT_SUPPORT : MESSAGE_NO_EXPORT_SUPPORT;
	return f;
}

/* False if the kernel does not say. */
static bool read_timeout(const char *name, uint32_t *seconds)
{
	char line[16];

	if (!fdio_sysfs_line(line, sizeof(line), "/proc/sys/fs/fuse/%s", name))
		return false;
	*seconds = (uint32_t)strtoul(line, NULL, 10);
	return true;
}

/*
 * If the administrator wants requests to have a time limit, the kernel ends a connection of which a
 * request takes longer. A slow device must not cost the mount, so this asks for the longest limit,
 * which counts in place of default_request_timeout; max_request_timeout bounds it. Without either
 * there is no limit, as long as none is asked for.
 */
static void choose_timeout(struct transport *transport, uint64_t offered, struct fuse_init_out *out)
{
	uint32_t usual = 0, most = 0;
	bool known;

	if (!(offered & MESSAGE_REQUEST_TIMEOUT))
		return;
	known = read_timeout("default_request_timeout", &usual) &&
		read_timeout("max_request_timeout", &most);
	if (known && !usual && !most)
		return;
	transport->conn.flags |= MESSAGE_REQUEST_TIMEOUT;
	message_set_request_timeout(out, TIMEOUT_LONGEST);
	transport->conn.request_timeout =
		FDIO_MAX(most && most < TIMEOUT_LONGEST ? most : TIMEOUT_LONGEST, TIMEOUT_SHORTEST);
	if (most)
		log_warn("the kernel will end the mount if a request takes longer than %u s, as a "
			 "slow device may cause: the sysctl fs.fuse.max_request_timeout says so "
			 "for every mount made while it is set", transport->conn.request_timeout);
}

/* How many of the kernel's pages a request has at most. */
static unsigned max_pages(void)
{
	return FDIO_MAX(MESSAGE_MAX_WRITE / (unsigned)sysconf(_SC_PAGESIZE), 1u);
}

static void fill_reply(struct transport *transport, const struct fuse_init_in *in,
		       struct fuse_init_out *out)
{
	uint64_t offered = in->flags;
	unsigned bg = transport->config.max_background ? transport->config.max_background
						       : DEFAULT_BACKGROUND;

	if (offered & MESSAGE_INIT_EXT)
		offered |= (uint64_t)in->flags2 << 32;
	transport->conn.flags = offered & wanted_flags(transport);
	transport->chan = transport->conn.flags & MESSAGE_OVER_IO_URING
					  ? &transport_channel_uring
					  : &transport_channel_devfuse;
	transport->conn.kernel_minor = in->minor;
	transport->conn.proto_minor = FDIO_MIN(in->minor, MESSAGE_PROTOCOL_MINOR);
	transport->conn.max_write = transport->conn.max_read = MESSAGE_MAX_WRITE;
	transport->conn.max_pages = max_pages();

	memset(out, 0, sizeof(*out));
	choose_timeout(transport, offered, out);
	out->major = FUSE_KERNEL_VERSION;
	out->minor = MESSAGE_PROTOCOL_MINOR;
	out->max_readahead = FDIO_MAX(in->max_readahead, 1u << 20);
	out->flags = (uint32_t)transport->conn.flags;
	out->flags2 = (uint32_t)(transport->conn.flags >> 32);
	out->max_background = (uint16_t)FDIO_MIN(bg, 65535u);
	out->congestion_threshold = (uint16_t)(out->max_background * 3u / 4);
	out->max_write = MESSAGE_MAX_WRITE;
	out->time_gran = 1;
	out->max_pages = (uint16_t)transport->conn.max_pages;
}

static int refuse_old_kernel(const struct fuse_init_in *in, struct fdio_reason *reason)
{
	if (in->major != FUSE_KERNEL_VERSION || in->minor < 33) {
		fdio_reason_set(reason, "the kernel speaks FUSE %u.%u, fusedio needs 7.33 or "
				"later: use Linux 6.1 or newer", in->major, in->minor);
		return -EPROTO;
	}
	if (!(in->flags & FUSE_MAX_PAGES) || !(in->flags & FUSE_SETXATTR_EXT)) {
		fdio_reason_set(reason, "the kernel's FUSE offers no large requests (flags %#x): "
				"use Linux 6.1 or newer", in->flags);
		return -EPROTO;
	}
	return 0;
}

static int refuse_no_ring(const struct transport *transport, const struct fuse_init_in *in,
		struct fdio_reason *reason)
{
	bool offered = (in->flags & MESSAGE_INIT_EXT) &&
		       (((uint64_t)in->flags2 << 32) & MESSAGE_OVER_IO_URING);

	if (transport->config.transport != TRANSPORT_KIND_URING || offered)
		return 0;
	fdio_reason_set(reason, "transport=uring: the kernel does not offer it; with Linux 6.14 or "
			"newer write Y to /sys/module/fuse/parameters/enable_uring and mount "
			"again");
	return -EPROTO;
}

static int read_init(struct transport *transport, void *buf, size_t cap, struct fdio_reason *reason)
{
	struct pollfd p = { .fd = transport->fd, .events = POLLIN };
	ssize_t n;

	if (poll(&p, 1, INIT_TIMEOUT_MS) != 1) {
		fdio_reason_set(reason, "the kernel sent no FUSE INIT within %d s: was the mount "
				"undone?", INIT_TIMEOUT_MS / 1000);
		return -ETIMEDOUT;
	}
	do
		n = read(transport->fd, buf, cap);
	while (n < 0 && errno == EINTR);
	if (n < 0) {
		fdio_reason_set(reason, "cannot read FUSE INIT: %s", strerror(errno));
		return -EIO;
	}
	return (int)n;
}

int transport_init_handshake(struct transport *transport, struct fdio_reason *reason)
{
	/* The first slot's memory: large enough for a message, and not in use yet. */
	uint8_t *buf = transport->queues[0].arena;
	struct message_in in;
	struct fuse_init_out out;
	struct fuse_out_header header = { .len = sizeof(header) + sizeof(out) };
	struct iovec iov[2] = { { &header, sizeof(header) }, { &out, sizeof(out) } };
	int n = read_init(transport, buf, TRANSPORT_SLOT_BYTES, reason);

	if (n < 0)
		return n;
	int err = message_decode(buf, (size_t)n, &in);
	if (err || in.header.opcode != FUSE_INIT) {
		fdio_reason_set(reason, "the kernel's first FUSE message is %s of %d bytes, not "
				"INIT", message_opcode_name(in.header.opcode), n);
		return -EPROTO;
	}
	header.unique = in.header.unique;
	err = refuse_old_kernel(in.arg, reason);
	if (!err)
		err = refuse_no_ring(transport, in.arg, reason);
	if (err) {
		header.error = err;
		header.len = sizeof(header);
	} else {
		fill_reply(transport, in.arg, &out);
	}
	if (writev(transport->fd, iov, err ? 1 : 2) < 0 && !err) {
		err = -errno;
		fdio_reason_set(reason, "cannot answer FUSE INIT: %s", strerror(-err));
	}
	return err;
}
