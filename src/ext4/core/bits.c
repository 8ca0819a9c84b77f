/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bitmaps as they are on disk: little-endian, bit n of byte n / 8. Pure functions, any thread;
 * whoever owns the map guards it.
 */
#include "ext4/core/bits.h"

#include "base/util.h"

#include <string.h>

uint32_t ext4_bits_next(const uint8_t *map, uint32_t size, uint32_t from, bool set)
{
	uint64_t flip = set ? 0 : ~0ULL;

	while (from < size) {
		uint32_t base = from & ~63U;
		uint64_t w;

		memcpy(&w, map + base / 8, sizeof(w));
		w = (w ^ flip) & (~0ULL << (from - base));
		if (w)
			return FDIO_MIN(base + (uint32_t)__builtin_ctzll(w), size);
		from = base + 64;
	}
	return size;
}

void ext4_bits_fill(uint8_t *map, uint32_t from, uint32_t n, bool set)
{
	uint32_t end = from + n;

	while (from < end && (from & 7)) {
		map[from >> 3] = set ? map[from >> 3] | 1U << (from & 7)
				     : map[from >> 3] & ~(1U << (from & 7));
		from++;
	}
	memset(map + from / 8, set ? 0xff : 0, (end - from) / 8);
	from += (end - from) & ~7U;
	for (; from < end; from++)
		map[from >> 3] = set ? map[from >> 3] | 1U << (from & 7)
				     : map[from >> 3] & ~(1U << (from & 7));
}

bool ext4_bits_all(const uint8_t *map, uint32_t from, uint32_t n, bool set)
{
	return ext4_bits_next(map, from + n, from, !set) == from + n;
}

uint32_t ext4_bits_clear_count(const uint8_t *map, uint32_t size)
{
	uint32_t n = 0, from = 0;

	for (; from + 64 <= size; from += 64) {
		uint64_t w;

		memcpy(&w, map + from / 8, sizeof(w));
		n += 64 - (uint32_t)__builtin_popcountll(w);
	}
	for (; from < size; from++)
		n += !ext4_bit(map, from);
	return n;
}
