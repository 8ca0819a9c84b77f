/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * crc32c, by an instruction of the CPU if it has one, else by a table that is made at the first
 * use; see crc32c.h. Any thread, no locks, nothing fails.
 */
#include "base/crc32c.h"

#include <pthread.h>
#include <string.h>
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#define CRC32C_POLY 0x82F63B78u /* reflected Castagnoli */

static uint32_t table[8][256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void table_make(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;
		for (int k = 0; k < 8; k++)
			c = (c & 1) ? (c >> 1) ^ CRC32C_POLY : c >> 1;
		table[0][i] = c;
	}
	for (uint32_t i = 0; i < 256; i++)
		for (int k = 1; k < 8; k++)
			table[k][i] = (table[k - 1][i] >> 8) ^ table[0][table[k - 1][i] & 0xff];
}

uint32_t fdio_crc32c_table(uint32_t crc, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	pthread_once(&table_once, table_make);
	for (; len >= 8; len -= 8, p += 8) {
		uint32_t lo = crc ^ (p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
				     (uint32_t)p[3] << 24);
		crc = table[7][lo & 0xff] ^ table[6][(lo >> 8) & 0xff] ^
		      table[5][(lo >> 16) & 0xff] ^ table[4][lo >> 24] ^ table[3][p[4]] ^
		      table[2][p[5]] ^ table[1][p[6]] ^ table[0][p[7]];
	}
	while (len--)
		crc = (crc >> 8) ^ table[0][(crc ^ *p++) & 0xff];
	return crc;
}

/*
 * For each CPU: whether it has the instructions, step8 and step1, which add 8 bytes and 1 byte to a
 * sum, and CRC32C_TARGET, the attribute of functions that call them.
 */
#if defined(__x86_64__)
#define CRC32C_TARGET __attribute__((target("sse4.2")))
static bool has_instruction(void) { return __builtin_cpu_supports("sse4.2"); }
CRC32C_TARGET static inline uint32_t step8(uint32_t crc, uint64_t v)
{
	return (uint32_t)__builtin_ia32_crc32di(crc, v);
}
CRC32C_TARGET static inline uint32_t step1(uint32_t crc, uint8_t v)
{
	return __builtin_ia32_crc32qi(crc, v);
}
#elif defined(__aarch64__)
/* Optional in ARMv8.0. In assembly, because gcc and clang have no name for it in common. */
#define CRC32C_TARGET
static bool has_instruction(void) { return getauxval(AT_HWCAP) & HWCAP_CRC32; }
static inline uint32_t step8(uint32_t crc, uint64_t v)
{
	__asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(v));
	return crc;
}
static inline uint32_t step1(uint32_t crc, uint8_t v)
{
	__asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(crc) : "r"(v));
	return crc;
}
#endif

#ifdef CRC32C_TARGET
CRC32C_TARGET static uint32_t crc32c_instruction(uint32_t crc, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	for (; len >= 8; len -= 8, p += 8) {
		uint64_t v;
		memcpy(&v, p, 8);
		crc = step8(crc, v);
	}
	while (len--)
		crc = step1(crc, *p++);
	return crc;
}
#endif

uint32_t fdio_crc32c(uint32_t seed, const void *buf, size_t len)
{
#ifdef CRC32C_TARGET
	if (likely(has_instruction()))
		return crc32c_instruction(seed, buf, len);
#endif
	return fdio_crc32c_table(seed, buf, len);
}
