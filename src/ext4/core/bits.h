/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bitmaps as on disk: little-endian, bit n of byte n / 8. Whoever owns the map guards it. */
#ifndef FDIO_EXT4_CORE_BITS_H
#define FDIO_EXT4_CORE_BITS_H

#include <stdbool.h>
#include <stdint.h>

static inline bool ext4_bit(const uint8_t *map, uint32_t n) { return map[n >> 3] >> (n & 7) & 1; }
/* size if none */
uint32_t ext4_bits_next(const uint8_t *map, uint32_t size, uint32_t from, bool set);
void ext4_bits_fill(uint8_t *map, uint32_t from, uint32_t n, bool set);
bool ext4_bits_all(const uint8_t *map, uint32_t from, uint32_t n, bool set);
uint32_t ext4_bits_clear_count(const uint8_t *map, uint32_t size);

#endif
