/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Numbers on disk and on the wire: functions that read and write a field of 16, 32 or 64 bits at a
 * byte offset, little-endian as ext4's or big-endian as jbd2's. The field need not be aligned. Any
 * thread, no state, nothing fails; the caller has checked that the field lies in its buffer.
 */
#ifndef FDIO_BASE_BYTES_H
#define FDIO_BASE_BYTES_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define FDIO_FIELD(order, bits)                                                            \
	static inline uint##bits##_t fdio_get_##order##bits(const void *p, size_t off)     \
	{                                                                                  \
		uint##bits##_t v;                                                          \
                                                                                           \
		memcpy(&v, (const uint8_t *)p + off, sizeof(v));                           \
		return order##bits##toh(v);                                                \
	}                                                                                  \
	static inline void fdio_put_##order##bits(void *p, size_t off, uint##bits##_t v)   \
	{                                                                                  \
		v = hto##order##bits(v);                                                   \
		memcpy((uint8_t *)p + off, &v, sizeof(v));                                 \
	}

FDIO_FIELD(le, 16)
FDIO_FIELD(le, 32)
FDIO_FIELD(le, 64)
FDIO_FIELD(be, 16)
FDIO_FIELD(be, 32)
FDIO_FIELD(be, 64)

#undef FDIO_FIELD

#endif
