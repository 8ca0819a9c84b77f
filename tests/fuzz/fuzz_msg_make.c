/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random messages. Most are well-formed: they name nodes and handles that exist and names that the
 * images have, with lengths that agree. Their other numbers are often absurd. A quarter is then
 * cut, stretched or overwritten, and some have an opcode that FUSE does not have.
 */
#include "fuzz/fuzz_msg.h"

#include "message/table.h"

#include <linux/fs.h>
#include <linux/fuse.h>

/* Often a limit of something. */
static uint64_t number(struct rnd *rng)
{
	static const uint64_t some[] = {
		0, 1, 2, 511, 512, 4095, 4096, 65535, 65536, 1 << 20, (1 << 20) - 4096, INT32_MAX,
		UINT32_MAX, 1ULL << 32, 1ULL << 44, INT64_MAX, 1ULL << 63, UINT64_MAX,
	};

	switch (rnd_below(rng, 4)) {
	case 0: return rnd_u64(rng);
	case 1: return rnd_below(rng, 70000);
	default: return some[rnd_below(rng, ARRAY_SIZE(some))];
	}
}

/* A node id: mostly one that exists, else the root, a small number or any number. */
static uint64_t node(struct world *w, struct rnd *rng)
{
	unsigned n = FDIO_MIN(w->nr_nodes, (unsigned)WORLD_KNOWN);

	if (n && rnd_below(rng, 3))
		return w->nodes[rnd_below(rng, n)];
	if (rnd_below(rng, 4))
		return FUSE_ROOT_ID;
	return rnd_below(rng, 2) ? rnd_below(rng, 60) : number(rng);
}

/* A file handle: mostly one that was opened, else any number or one that looks like a handle. */
static uint64_t handle(struct world *w, struct rnd *rng)
{
	unsigned n = FDIO_MIN(w->nr_handles, (unsigned)WORLD_KNOWN);

	if (n && rnd_below(rng, 8))
		return w->handles[rnd_below(rng, n)];
	return rnd_below(rng, 2) ? number(rng)
			     : (uint64_t)(1 + 2 * rnd_below(rng, 3)) << 32 | rnd_below(rng, 20);
}

/* A name with its NUL at p: known, or of any length; returns how many bytes. */
static uint32_t name(struct rnd *rng, uint8_t *p)
{
	static const char *const known[] = {
		"htree", "frag", "plain", "attrs", "acldir", "deep0", "fast", "slow", "sparse",
		"unwritten", ".", "..", "new", "linked", "user.one", "user.block",
		"system.posix_acl_access", "security.capability",
	};
	uint32_t n;

	if (rnd_below(rng, 3)) {
		const char *s = known[rnd_below(rng, ARRAY_SIZE(known))];
		strcpy((char *)p, s);
		return (uint32_t)strlen(s) + 1;
	}
	n = rnd_below(rng, rnd_below(rng, 4) ? 30 : 5000);
	memset(p, 'a' + (int)rnd_below(rng, 4), n);
	if (!rnd_below(rng, 8) && n)
		p[rnd_below(rng, n)] = (uint8_t)rnd_below(rng, 256);
	p[n] = 0;
	return n + 1;
}

/* Half of them from a list of those with most code behind them. */
static uint32_t some_opcode(struct rnd *rng)
{
	static const uint8_t often[] = {
		FUSE_LOOKUP,       FUSE_OPEN,      FUSE_READ,     FUSE_WRITE,       FUSE_CREATE,
		FUSE_SETATTR,      FUSE_FALLOCATE, FUSE_READDIR,  FUSE_READDIRPLUS, FUSE_OPENDIR,
		FUSE_RENAME2,      FUSE_UNLINK,    FUSE_SETXATTR, FUSE_GETXATTR,    FUSE_FORGET,
		FUSE_BATCH_FORGET, FUSE_IOCTL,     FUSE_RELEASE,  FUSE_MKDIR,       FUSE_LSEEK
	};

	if (rnd_below(rng, 2))
		return often[rnd_below(rng, ARRAY_SIZE(often))];
	return rnd_below(rng, 12) ? rnd_below(rng, 60) : (uint32_t)number(rng);
}

/* The fixed argument of an opcode: mostly zeroes and small numbers; handles where they stand. */
static void fill_arg(struct world *w, struct rnd *rng, uint32_t op, uint8_t *p, uint32_t size)
{
	for (uint32_t at = 0; at + 4 <= size; at += 4) {
		uint32_t v = 0;

		if (!rnd_below(rng, 3))
			v = (uint32_t)number(rng);
		else if (!rnd_below(rng, 4))
			v = rnd_below(rng, 1024);
		memcpy(p + at, &v, 4);
	}
	switch (op) {
	case FUSE_READ:
	case FUSE_READDIR:
	case FUSE_READDIRPLUS:
	case FUSE_WRITE:
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_FLUSH:
	case FUSE_FSYNC:
	case FUSE_FSYNCDIR:
	case FUSE_LSEEK:
	case FUSE_FALLOCATE:
	case FUSE_IOCTL: {
		uint64_t fh = handle(w, rng);
		memcpy(p, &fh, 8);
		break;
	}
	default: break;
	}
	if (op == FUSE_READ || op == FUSE_READDIR || op == FUSE_READDIRPLUS) {
		uint32_t n = rnd_below(rng, 4) ? rnd_below(rng, 40000) : (uint32_t)number(rng);
		memcpy(p + 16, &n, 4);
	}
	if (op == FUSE_IOCTL) {
		static const uint32_t cmds[] = {
			FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR,
			FITRIM, FS_IOC_GETVERSION, FS_IOC_GETFSLABEL, FS_IOC_SETFSLABEL,
			/* both shutdowns: seldom, as nothing works afterwards */
			_IOR('X', 125, uint32_t), _IOW('X', 125, uint32_t),
		};
		unsigned nr = ARRAY_SIZE(cmds) - (rnd_below(rng, 20) ? 2 : 0);
		uint32_t cmd = cmds[rnd_below(rng, nr)];
		if (rnd_below(rng, 5))
			memcpy(p + 12, &cmd, 4);
		if (rnd_below(rng, 3))
			memset(p + 8, 0, 4); /* no flags: the caller is a program with 64 bits */
	}
}

/*
 * What follows the argument at p, and the lengths of it in the argument at arg, which are now and
 * then left wrong. Returns how many bytes.
 */
static uint32_t fill_rest(struct rnd *rng, uint32_t op, uint8_t *arg, uint8_t *p)
{
	uint32_t n = 0, size;

	switch (op) {
	case FUSE_LOOKUP:
	case FUSE_UNLINK:
	case FUSE_RMDIR:
	case FUSE_MKDIR:
	case FUSE_MKNOD:
	case FUSE_CREATE:
	case FUSE_LINK:
	case FUSE_GETXATTR:
	case FUSE_REMOVEXATTR:
	case FUSE_TMPFILE: return name(rng, p);
	case FUSE_RENAME:
	case FUSE_RENAME2:
	case FUSE_SYMLINK:
		n = name(rng, p);
		return n + name(rng, p + n);
	case FUSE_WRITE:
		size = rnd_below(rng, rnd_below(rng, 4) ? 5000 : 65536);
		if (rnd_below(rng, 8))
			memcpy(arg + 16, &size, 4);
		memset(p, 'w', size);
		return size;
	case FUSE_IOCTL:
		size = rnd_below(rng, 300);
		if (rnd_below(rng, 8)) {
			uint32_t out = rnd_below(rng, 5000);

			memcpy(arg + 24, &size, 4);
			memcpy(arg + 28, &out, 4);
		}
		for (uint32_t k = 0; k < size; k++)
			p[k] = (uint8_t)(rnd_below(rng, 3) ? 0 : rnd_below(rng, 256));
		return size;
	case FUSE_SETXATTR:
		n = name(rng, p);
		size = rnd_below(rng, 3000);
		if (rnd_below(rng, 8))
			memcpy(arg, &size, 4);
		for (uint32_t k = 0; k < size; k++)
			p[n + k] = (uint8_t)(rnd_below(rng, 3) ? 0 : rnd_below(rng, 256));
		return n + size;
	case FUSE_BATCH_FORGET:
		size = rnd_below(rng, 40) * 16;
		for (uint32_t k = 0; k < size; k += 8) {
			uint64_t v = k & 8 ? rnd_below(rng, 4) : rnd_below(rng, 60);
			memcpy(p + k, &v, 8);
		}
		return size;
	default:
		size = rnd_below(rng, 100);
		for (uint32_t k = 0; k < size; k++)
			p[k] = (uint8_t)rnd_below(rng, 256);
		return size;
	}
}

/* Extensions behind the message: supplementary groups, or noise. Returns how many bytes. */
static uint32_t fill_extensions(struct rnd *rng, uint8_t *p)
{
	uint32_t v[12], n = 2 + rnd_below(rng, 10);

	for (uint32_t k = 0; k < n; k++)
		v[k] = rnd_below(rng, 3) ? rnd_below(rng, 40) : (uint32_t)number(rng);
	if (rnd_below(rng, 2)) {
		v[0] = n * 4;
		v[1] = MESSAGE_EXT_GROUPS;
	}
	memcpy(p, v, n * 4);
	return n * 4;
}

/* Cuts the message, overwrites a byte or a number, stretches it, or makes its length wrong. */
static void spoil(struct rnd *rng, struct message *message)
{
	uint32_t v, at;

	switch (rnd_below(rng, 5)) {
	case 0: message->len = rnd_below(rng, message->len + 1); break;
	case 1:
		at = rnd_below(rng, FDIO_MIN(message->len, 140U));
		message->bytes[at] = (uint8_t)rnd_below(rng, 256);
		break;
	case 2:
		v = (uint32_t)number(rng);
		at = 4 * rnd_below(rng, FDIO_MIN(message->len, 160U) / 4);
		memcpy(message->bytes + at, &v, 4);
		break;
	case 3:
		message->len = FDIO_MIN(message->len + rnd_below(rng, 200),
					(uint32_t)sizeof(message->bytes));
		break;
	default:
		v = message->len + (rnd_below(rng, 2) ? 1 : -1);
		memcpy(message->bytes, &v, 4);
		break;
	}
}

void message_random(struct world *w, struct rnd *rng, struct message *message)
{
	struct fuse_in_header header = { .opcode = some_opcode(rng),
					 .unique = 2 * ++w->sent,
					 .nodeid = node(w, rng) };
	const struct message_op *known = message_op_lookup(header.opcode);
	uint32_t arg = known ? known->arg_size : rnd_below(rng, 100);
	uint8_t *p = message->bytes + sizeof(header);

	memset(message->bytes, 0, 256);
	header.uid = rnd_below(rng, 3) ? 0 : 1000;
	fill_arg(w, rng, header.opcode, p, arg);
	message->len = (uint32_t)sizeof(header) + arg;
	message->len += fill_rest(rng, header.opcode, p, p + arg);
	if (!rnd_below(rng, 6)) {
		message->len = (uint32_t)fdio_round_up(message->len, 8);
		uint32_t n = fill_extensions(rng, message->bytes + message->len);
		message->len += n;
		header.total_extlen = (uint16_t)(rnd_below(rng, 4) ? n / 8 : number(rng));
	}
	header.len = message->len;
	memcpy(message->bytes, &header, sizeof(header));
	message->ring = rnd_below(rng, 2);
	if (!rnd_below(rng, 4))
		spoil(rng, message);
}

