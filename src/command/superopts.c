/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Mount options in the superblock: the list s_mount_opts, the bits of s_default_mount_opts, and
 * which user and group may use the reserved blocks. The command line overrides the list, and the
 * list overrides the bits. An image is not trusted: it can set only options that concern the file
 * system itself (may_set), none that concern the mount or the daemon.
 *
 * Main thread, no state. Nothing here fails: an option that is not honoured is logged, and the
 * mount goes on without it.
 */
#include "command/superopts.h"

#include "base/bytes.h"
#include "base/log.h"
#include "command/superblock.h"

#include <stdio.h>
#include <string.h>

/* The bits of s_default_mount_opts: the name that tune2fs -o uses, and the mount option. */
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

/* A file system may set this option ("name" or "name=value"). */
static bool may_set(const char *opt)
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

/* Sets or refuses one option, and logs it. asked_as: how the superblock asks for the option. */
static void take(struct options *options, const char *opt, const char *asked_as, const char *dev)
{
	char why[200];

	switch (options_suggest(options, opt, may_set(opt), FDIO_REASON(why))) {
	case SUGGESTION_TAKEN:
		log_info("%s: %s, as its superblock asks", dev, asked_as);
		break;
	case SUGGESTION_NOT_NEEDED:
		break;
	case SUGGESTION_REFUSED:
		log_warn("%s: the superblock asks for %s, which is not honoured: %s", dev, asked_as,
			 why);
		break;
	}
}

static void take_list(struct options *options, const uint8_t *super, const char *dev)
{
	char list[SUPER_MOUNT_OPTS_LEN + 1], asked_as[SUPER_MOUNT_OPTS_LEN + 20], *save = NULL;

	memcpy(list, super + SUPER_MOUNT_OPTS, SUPER_MOUNT_OPTS_LEN);
	list[SUPER_MOUNT_OPTS_LEN] = '\0';
	for (char *opt = strtok_r(list, ",", &save); opt; opt = strtok_r(NULL, ",", &save)) {
		snprintf(asked_as, sizeof(asked_as), "the option %s", opt);
		take(options, opt, asked_as, dev);
	}
	options->given |= options->suggested; /* so that the bits do not override the list */
}

void superopts_apply(struct options *options, const uint8_t *super, const char *dev)
{
	uint32_t bits = fdio_get_le32(super, SUPER_DEFAULT_MOUNT_OPTS);
	char asked_as[64];

	take_list(options, super, dev);
	for (unsigned n = 0; n < ARRAY_SIZE(defaults); n++)
		if ((bits & defaults[n].mask) == defaults[n].bits) {
			snprintf(asked_as, sizeof(asked_as), "the default option %s",
				 defaults[n].name);
			take(options, defaults[n].option, asked_as, dev);
		}
	if (bits & ~KNOWN_BITS)
		log_warn("%s: the superblock asks for default options that are not known (%#x)",
			 dev, bits & ~KNOWN_BITS);
	if (options->resuid < 0)
		options->resuid = fdio_get_le16(super, SUPER_DEF_RESUID);
	if (options->resgid < 0)
		options->resgid = fdio_get_le16(super, SUPER_DEF_RESGID);
	if (options->norecovery)
		options->read_only = 1;
}
