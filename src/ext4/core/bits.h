/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bitmaps as on disk: bit n is bit n % 8 of byte n / 8. Pure functions, any thread; the caller
 * guards the map. Maps are read 64 bits at a time, so a map's bytes are a multiple of 8.
 */
#ifndef FDIO_EXT4_CORE_BITS_H
#define FDIO_EXT4_CORE_BITS_H

#include <stdbool.h>
#include <stdint.h>

static inline bool ext4_bit(const uint8_t *map, uint32_t n) { return map[n >> 3] >> (n & 7) & 1; }
/* The first bit in [from, size) that is set, or with set false is clear; size if there is none. */
uint32_t ext4_bits_next(const uint8_t *map, uint32_t size, uint32_t from, bool set);
/* Sets or clears the bits [from, from + n). */
void ext4_bits_fill(uint8_t *map, uint32_t from, uint32_t n, bool set);
/* Whether all bits [from, from + n) are as set says. */
bool ext4_bits_all(const uint8_t *map, uint32_t from, uint32_t n, bool set);
/* How many of the first size bits are clear. */
uint32_t ext4_bits_clear_count(const uint8_t *map, uint32_t size);

#endif
