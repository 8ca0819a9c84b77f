/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Mount options in the superblock: the bits of s_default_mount_opts, the list s_mount_opts, and who
 * may use the reserved blocks. They are options like those of the command line, which goes first;
 * then the list, then the bits. An image is not trusted, so only what concerns the file system
 * itself can be set from there (from_super): nothing of the mount or of the daemon.
 *
 * Main thread, no state. Nothing here fails: what cannot be honoured is told in the log, and the
 * mount goes on without it.
 */
#include "command/superopts.h"

#include "base/log.h"

#include <stdio.h>
#include <string.h>

/* Places in the superblock, little-endian. */
#define SB_DEF_RESUID 0x50u
#define SB_DEF_RESGID 0x52u
#define SB_DEFAULT_BITS 0x100u
#define SB_MOUNT_OPTS 0x200u
#define MOUNT_OPTS_LEN 64u

static uint32_t get16(const uint8_t *p) { return p[0] | (uint32_t)p[1] << 8; }
static uint32_t get32(const uint8_t *p) { return get16(p) | get16(p + 2) << 16; }

/* As tune2fs -o names them, and as the option they stand for. */
static const struct { uint32_t mask, bits; const char *name, *option; } defaults[] = {
	{ 0x001, 0x001, "debug", "debug" },
	{ 0x002, 0x002, "bsdgroups", "bsdgroups" },
	{ 0x004, 0x004, "user_xattr", "user_xattr" },
	{ 0x008, 0x008, "acl", "acl" },
	{ 0x010, 0x010, "uid16", "nouid32" },
	{ 0x060, 0x020, "journal_data", "data=journal" },
	{ 0x060, 0x040, "journal_data_ordered", "data=ordered" },
	{ 0x060, 0x060, "journal_data_writeback", "data=writeback" },
	{ 0x100, 0x100, "nobarrier", "nobarrier" },
	{ 0x200, 0x200, "block_validity", "block_validity" },
	{ 0x400, 0x400, "discard", "discard" },
	{ 0x800, 0x800, "nodelalloc", "nodelalloc" },
};
#define KNOWN_BITS 0xf7fu

/* The name of an option, without its value, is one that a file system may ask for. */
static bool from_super(const char *opt)
{
	static const char *const names[] = {
		"acl", "noacl", "user_xattr", "nouser_xattr", "bsdgroups", "grpid", "nogrpid",
		"sysvgroups", "commit", "discard", "nodiscard", "errors", "norecovery", "noload",
		"resuid", "resgid",
	};
	size_t len = strcspn(opt, "=");

	for (unsigned n = 0; n < ARRAY_SIZE(names); n++)
		if (strlen(names[n]) == len && !memcmp(names[n], opt, len))
			return true;
	return false;
}

/* told: how it was asked for. */
static void take(struct options *options, const char *opt, const char *told, const char *dev)
{
	char why[200];

	switch (options_take(options, opt, from_super(opt), FDIO_REASON(why))) {
	case OPTIONS_TAKEN:
		log_info("%s: %s, as its superblock asks", dev, told);
		break;
	case OPTIONS_LEFT: /* the command line says something, or there is nothing to do */
		break;
	case OPTIONS_NOT:
		log_warn("%s: the superblock asks for %s, which is not honoured: %s", dev, told,
			 why);
		break;
	}
}

static void take_list(struct options *options, const uint8_t *super, const char *dev)
{
	char list[MOUNT_OPTS_LEN + 1], told[MOUNT_OPTS_LEN + 20], *save = NULL;

	memcpy(list, super + SB_MOUNT_OPTS, MOUNT_OPTS_LEN);
	list[MOUNT_OPTS_LEN] = '\0';
	for (char *opt = strtok_r(list, ",", &save); opt; opt = strtok_r(NULL, ",", &save)) {
		snprintf(told, sizeof(told), "the option %s", opt);
		take(options, opt, told, dev);
	}
	options->given |= options->asked;
}

void superopts_apply(struct options *options, const uint8_t *super, const char *dev)
{
	uint32_t bits = get32(super + SB_DEFAULT_BITS);
	char told[64];

	take_list(options, super, dev);
	for (unsigned n = 0; n < ARRAY_SIZE(defaults); n++)
		if ((bits & defaults[n].mask) == defaults[n].bits) {
			snprintf(told, sizeof(told), "the default option %s", defaults[n].name);
			take(options, defaults[n].option, told, dev);
		}
	if (bits & ~KNOWN_BITS)
		log_warn("%s: the superblock asks for default options that are not known (%#x)",
			 dev, bits & ~KNOWN_BITS);
	if (options->resuid < 0)
		options->resuid = (int)get16(super + SB_DEF_RESUID);
	if (options->resgid < 0)
		options->resgid = (int)get16(super + SB_DEF_RESGID);
	if (options->norecovery)
		options->read_only = 1;
}
