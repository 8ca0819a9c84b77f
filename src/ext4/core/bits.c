/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bitmaps as on disk, 64 bits at a time. Any thread; the caller guards the map. Cannot fail. */
#include "ext4/core/bits.h"

#include "base/bytes.h"
#include "base/util.h"

#include <string.h>

uint32_t ext4_bits_next(const uint8_t *map, uint32_t size, uint32_t from, bool set)
{
	uint64_t flip = set ? 0 : ~0ULL;

	while (from < size) {
		uint32_t base = from & ~63U;
		uint64_t word = fdio_get_le64(map, base / 8);

		word = (word ^ flip) & (~0ULL << (from - base));
		if (word)
			return FDIO_MIN(base + (uint32_t)__builtin_ctzll(word), size);
		from = base + 64;
	}
	return size;
}

static void put_bit(uint8_t *map, uint32_t n, bool set)
{
	uint8_t mask = (uint8_t)(1U << (n & 7));

	map[n >> 3] = set ? map[n >> 3] | mask : map[n >> 3] & (uint8_t)~mask;
}

void ext4_bits_fill(uint8_t *map, uint32_t from, uint32_t n, bool set)
{
	uint32_t end = from + n;

	for (; from < end && (from & 7); from++)
		put_bit(map, from, set);
	memset(map + from / 8, set ? 0xff : 0, (end - from) / 8);
	from += (end - from) & ~7U;
	for (; from < end; from++)
		put_bit(map, from, set);
}

bool ext4_bits_all(const uint8_t *map, uint32_t from, uint32_t n, bool set)
{
	return ext4_bits_next(map, from + n, from, !set) == from + n;
}

uint32_t ext4_bits_clear_count(const uint8_t *map, uint32_t size)
{
	uint32_t n = 0, from = 0;

	for (; from + 64 <= size; from += 64)
		n += 64 - (uint32_t)__builtin_popcountll(fdio_get_le64(map, from / 8));
	for (; from < size; from++)
		n += !ext4_bit(map, from);
	return n;
}
