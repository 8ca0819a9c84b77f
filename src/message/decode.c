/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Decoding and validating FUSE requests, see message.h. Every length is checked before it is used,
 * and every name is known to end inside the message, so that nothing above needs to doubt them.
 *
 * Runs on loop threads and in the fuzzer; touches nothing but the message and *in, and takes no
 * lock. Fails with the -errno that the request is to be answered with; -EBADMSG: there is no
 * header, so nothing can be answered.
 */
#include "message/message.h"
#include "message/table.h"

#include <errno.h>
#include <string.h>

/*
 * One NUL-terminated string at the start of [*p, *p + *left); moves past it. Not empty, and no
 * longer than max.
 */
static int take_string(const uint8_t **p, uint32_t *left, uint32_t max, const char **ret,
		       uint32_t *ret_len)
{
	const uint8_t *nul = memchr(*p, 0, *left);

	if (!nul)
		return -EINVAL;
	uint32_t n = (uint32_t)(nul - *p);
	if (n == 0)
		return -EINVAL;
	if (n > max)
		return -ENAMETOOLONG;
	*ret = (const char *)*p;
	*ret_len = n;
	*p += n + 1;
	*left -= n + 1;
	return 0;
}

/*
 * A directory entry's name. Its length is the file system's to judge (ENAMETOOLONG), a slash is
 * nobody's.
 */
static int take_name(const uint8_t **p, uint32_t *left, const char **ret, uint32_t *ret_len)
{
	int err = take_string(p, left, UINT32_MAX, ret, ret_len);

	if (!err && memchr(*ret, '/', *ret_len))
		return -EINVAL;
	return err;
}

static int take_sized(const uint8_t *p, uint32_t left, uint32_t want, struct message_in *in)
{
	if (want > left)
		return -EINVAL;
	in->data = p;
	in->data_len = want;
	return 0;
}

static uint32_t sized_by_arg(const struct message_in *in)
{
	if (in->header.opcode == FUSE_WRITE)
		return ((const struct fuse_write_in *)in->arg)->size;
	return ((const struct fuse_setxattr_in *)in->arg)->size;
}

static int decode_rest(const struct message_op *op, struct message_in *in)
{
	const uint8_t *p = in->rest;
	uint32_t left = in->rest_len;
	int err = 0;

	switch (op->follows) {
	case MESSAGE_NOTHING:
		break;
	case MESSAGE_NAME:
		err = take_name(&p, &left, &in->name, &in->name_len);
		break;
	case MESSAGE_NAME_NAME:
		err = take_name(&p, &left, &in->name, &in->name_len);
		if (!err)
			err = take_name(&p, &left, &in->name2, &in->name2_len);
		break;
	case MESSAGE_NAME_TARGET:
		err = take_name(&p, &left, &in->name, &in->name_len);
		if (!err)
			err = take_string(&p, &left, UINT32_MAX, &in->name2, &in->name2_len);
		break;
	case MESSAGE_XATTR:
		err = take_string(&p, &left, UINT32_MAX, &in->name, &in->name_len);
		break;
	case MESSAGE_XATTR_VALUE:
		err = take_string(&p, &left, UINT32_MAX, &in->name, &in->name_len);
		if (!err)
			err = take_sized(p, left, sized_by_arg(in), in);
		break;
	case MESSAGE_DATA:
		err = take_sized(p, left, sized_by_arg(in), in);
		break;
	case MESSAGE_DATA_ANY:
		err = take_sized(p, left, left, in);
		break;
	}
	return err;
}

/*
 * The supplementary groups that a create carries at the end of the message. Unknown extensions are
 * passed over.
 */
static int decode_extensions(const uint8_t *p, uint32_t left, struct message_in *in)
{
	while (left >= sizeof(struct fuse_ext_header)) {
		struct fuse_ext_header eh;
		uint32_t nr;

		memcpy(&eh, p, sizeof(eh));
		if (eh.size < sizeof(eh) || eh.size > left)
			return -EINVAL;
		if (eh.type == MESSAGE_EXT_GROUPS) {
			if (eh.size < sizeof(eh) + sizeof(nr))
				return -EINVAL;
			memcpy(&nr, p + sizeof(eh), sizeof(nr));
			if (nr > (eh.size - sizeof(eh) - sizeof(nr)) / sizeof(uint32_t))
				return -EINVAL;
			in->nr_groups = FDIO_MIN(nr, (uint32_t)ARRAY_SIZE(in->groups));
			memcpy(in->groups, p + sizeof(eh) + sizeof(nr),
			       in->nr_groups * sizeof(uint32_t));
		}
		uint32_t step = (uint32_t)fdio_round_up(eh.size, 8);
		if (step > left)
			break;
		p += step;
		left -= step;
	}
	return 0;
}

/* From here on in->h is filled, rest and rest_len hold everything behind the fixed argument. */
static int decode_common(const struct message_op *op, struct message_in *in)
{
	uint32_t ext = message_total_extlen(&in->header);

	if (ext) {
		if (ext > in->rest_len)
			return -EINVAL;
		in->rest_len -= ext;
		int err = decode_extensions(in->rest + in->rest_len, ext, in);
		if (err)
			return err;
	}
	return decode_rest(op, in);
}

/*
 * Everything but argbuf and groups, which are filled when they are used: this runs for each
 * request.
 */
static void in_reset(struct message_in *in)
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
	const uint8_t *p = msg;
	const struct message_op *op;
	size_t have;

	in_reset(in);
	if (len < sizeof(in->header)) {
		/* what the slot held last is not to be answered again */
		memset(&in->header, 0, sizeof(in->header));
		return -EBADMSG;
	}
	memcpy(&in->header, p, sizeof(in->header));
	if (in->header.len != len)
		return -EINVAL;
	op = message_op_lookup(in->header.opcode);
	if (!op)
		return -ENOSYS;
	have = len - sizeof(in->header);
	/*
	 * INIT may be shorter (old kernels) or longer (new ones) than the header that we were built
	 * with.
	 */
	if (have < op->arg_size && !(op->arg_size && in->header.opcode == FUSE_INIT && have >= 8))
		return -EINVAL;
	size_t n = FDIO_MIN(have, (size_t)op->arg_size);
	if (op->arg_size) {
		memset(in->argbuf + n, 0, op->arg_size - n);
		memcpy(in->argbuf, p + sizeof(in->header), n);
		in->arg = in->argbuf;
	}
	in->rest = p + sizeof(in->header) + n;
	in->rest_len = (uint32_t)(have - n);
	return decode_common(op, in);
}

int message_decode_parts(const struct fuse_in_header *header, const void *arg, const void *rest,
			 uint32_t rest_len, struct message_in *in)
{
	const struct message_op *op;

	in_reset(in);
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
