/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Decoding and validating FUSE requests, see message.h. Every length is checked before it is used,
 * and every name ends inside the message, so that the rooms above need not check them again.
 *
 * Runs on loop threads and in the fuzzer; reads the message, writes *in, and takes no lock. Fails
 * with the -errno to answer the request with; -EBADMSG: there is no header, so nothing can be
 * answered.
 */
#include "message/message.h"
#include "message/table.h"

#include <errno.h>
#include <string.h>

/*
 * A string at *at, where *left bytes are left: NUL-terminated and not empty. Moves *at behind it.
 */
static int take_string(const uint8_t **at, uint32_t *left, const char **ret, uint32_t *ret_len)
{
	const uint8_t *nul = memchr(*at, 0, *left);
	uint32_t len = nul ? (uint32_t)(nul - *at) : 0;

	if (len == 0)
		return -EINVAL;
	*ret = (const char *)*at;
	*ret_len = len;
	*at += len + 1;
	*left -= len + 1;
	return 0;
}

/* The name of a directory entry, without a slash. src/ops checks its length. */
static int take_name(const uint8_t **at, uint32_t *left, const char **ret, uint32_t *ret_len)
{
	int err = take_string(at, left, ret, ret_len);

	if (!err && memchr(*ret, '/', *ret_len))
		return -EINVAL;
	return err;
}

static int take_data(const uint8_t *at, uint32_t left, uint32_t len, struct message_in *in)
{
	if (len > left)
		return -EINVAL;
	in->data = at;
	in->data_len = len;
	return 0;
}

/* Bytes of data that the fixed argument announces. */
static uint32_t announced(const struct message_in *in)
{
	if (in->header.opcode == FUSE_WRITE)
		return ((const struct fuse_write_in *)in->arg)->size;
	return ((const struct fuse_setxattr_in *)in->arg)->size;
}

static int decode_rest(const struct message_op *op, struct message_in *in)
{
	const uint8_t *at = in->rest;
	uint32_t left = in->rest_len;
	int err = 0;

	switch (op->follows) {
	case MESSAGE_NOTHING:
		break;
	case MESSAGE_NAME:
		err = take_name(&at, &left, &in->name, &in->name_len);
		break;
	case MESSAGE_NAME_NAME:
		err = take_name(&at, &left, &in->name, &in->name_len);
		if (!err)
			err = take_name(&at, &left, &in->name2, &in->name2_len);
		break;
	case MESSAGE_NAME_TARGET:
		err = take_name(&at, &left, &in->name, &in->name_len);
		if (!err)
			err = take_string(&at, &left, &in->name2, &in->name2_len);
		break;
	case MESSAGE_XATTR:
		err = take_string(&at, &left, &in->name, &in->name_len);
		break;
	case MESSAGE_XATTR_VALUE:
		err = take_string(&at, &left, &in->name, &in->name_len);
		if (!err)
			err = take_data(at, left, announced(in), in);
		break;
	case MESSAGE_DATA:
		err = take_data(at, left, announced(in), in);
		break;
	case MESSAGE_DATA_ANY:
		err = take_data(at, left, left, in);
		break;
	}
	return err;
}

/* Supplementary groups: a count and the group IDs. Groups that do not fit are left out. */
static int decode_groups(const uint8_t *at, size_t len, struct message_in *in)
{
	uint32_t nr;

	if (len < sizeof(nr))
		return -EINVAL;
	memcpy(&nr, at, sizeof(nr));
	if (nr > (len - sizeof(nr)) / sizeof(uint32_t))
		return -EINVAL;
	in->nr_groups = FDIO_MIN(nr, (uint32_t)ARRAY_SIZE(in->groups));
	memcpy(in->groups, at + sizeof(nr), in->nr_groups * sizeof(uint32_t));
	return 0;
}

/* The extensions at the end of a message. Those of unknown types are skipped. */
static int decode_extensions(const uint8_t *at, uint32_t left, struct message_in *in)
{
	while (left >= sizeof(struct fuse_ext_header)) {
		struct fuse_ext_header extension;
		int err = 0;

		memcpy(&extension, at, sizeof(extension));
		if (extension.size < sizeof(extension) || extension.size > left)
			return -EINVAL;
		if (extension.type == MESSAGE_EXT_GROUPS)
			err = decode_groups(at + sizeof(extension),
					    extension.size - sizeof(extension), in);
		if (err)
			return err;
		uint32_t step = (uint32_t)fdio_round_up(extension.size, 8);
		if (step > left)
			break;
		at += step;
		left -= step;
	}
	return 0;
}

/* in->header and in->arg are filled; in->rest is everything behind the fixed argument. */
static int decode_common(const struct message_op *op, struct message_in *in)
{
	uint32_t extension_len = message_total_extlen(&in->header);

	if (extension_len) {
		if (extension_len > in->rest_len)
			return -EINVAL;
		in->rest_len -= extension_len;
		int err = decode_extensions(in->rest + in->rest_len, extension_len, in);
		if (err)
			return err;
	}
	return decode_rest(op, in);
}

/*
 * Clears what the last request in the slot has left, except argbuf and groups, which are filled
 * when they are used: this runs for each request.
 */
static void reset(struct message_in *in)
{
	in->arg = NULL;
	in->rest = NULL;
	in->rest_len = 0;
	in->name = in->name2 = NULL;
	in->name_len = in->name2_len = 0;
	in->data = NULL;
	in->data_len = 0;
	in->nr_groups = 0;
}

int message_decode(const void *msg, size_t len, struct message_in *in)
{
	const uint8_t *bytes = msg;
	const struct message_op *op;
	size_t have;

	reset(in);
	if (len < sizeof(in->header)) {
		/* The header of the last request in the slot must not be answered again. */
		memset(&in->header, 0, sizeof(in->header));
		return -EBADMSG;
	}
	memcpy(&in->header, bytes, sizeof(in->header));
	if (in->header.len != len)
		return -EINVAL;
	op = message_op_lookup(in->header.opcode);
	if (!op)
		return -ENOSYS;
	have = len - sizeof(in->header);
	/*
	 * The argument of INIT depends on the kernel: it may be shorter or longer than the
	 * fuse_init_in that this program was built with.
	 */
	if (have < op->arg_size && !(op->arg_size && in->header.opcode == FUSE_INIT && have >= 8))
		return -EINVAL;
	size_t arg_len = FDIO_MIN(have, (size_t)op->arg_size);
	if (op->arg_size) {
		memset(in->argbuf + arg_len, 0, op->arg_size - arg_len);
		memcpy(in->argbuf, bytes + sizeof(in->header), arg_len);
		in->arg = in->argbuf;
	}
	in->rest = bytes + sizeof(in->header) + arg_len;
	in->rest_len = (uint32_t)(have - arg_len);
	return decode_common(op, in);
}

int message_decode_parts(const struct fuse_in_header *header, const void *arg, const void *rest,
			 uint32_t rest_len, struct message_in *in)
{
	const struct message_op *op;

	reset(in);
	in->header = *header;
	op = message_op_lookup(header->opcode);
	if (!op)
		return -ENOSYS;
	if (op->arg_size) {
		memcpy(in->argbuf, arg, op->arg_size);
		in->arg = in->argbuf;
	}
	in->rest = rest;
	in->rest_len = rest_len;
	return decode_common(op, in);
}
