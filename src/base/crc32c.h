/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * crc32c (Castagnoli, reflected) as ext4 and jbd2 use it: no inversion at either end. Any thread,
 * no locks, cannot fail.
 */
#ifndef FDIO_BASE_CRC32C_H
#define FDIO_BASE_CRC32C_H

#include "base/util.h"

/* The seed is the running value; start a new sum with ~0. */
uint32_t fdio_crc32c(uint32_t seed, const void *buf, size_t len);
/* The table version, whatever the CPU has: for the test that compares the two. */
uint32_t fdio_crc32c_table(uint32_t seed, const void *buf, size_t len);

#endif
