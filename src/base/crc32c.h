/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * crc32c (Castagnoli, reflected) as ext4 and jbd2 use it: without inversion at either end. Any
 * thread, no locks, nothing fails.
 */
#ifndef FDIO_BASE_CRC32C_H
#define FDIO_BASE_CRC32C_H

#include "base/util.h"

/* Continues the sum seed over len bytes; a new sum starts with ~0. */
uint32_t fdio_crc32c(uint32_t seed, const void *buf, size_t len);
/* As fdio_crc32c, but always by the table: a test compares it with the CPU instruction. */
uint32_t fdio_crc32c_table(uint32_t seed, const void *buf, size_t len);

#endif
