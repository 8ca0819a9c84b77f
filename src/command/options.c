/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Parsing the command line. There are two grammars, chosen by argv[0], because -f and -s mean
 * different things to a FUSE command and to a helper of mount(8). The -o options come from
 * options.def alone. Main thread, no state; a wrong option fails with a reason.
 */
#include "command/options.h"

#include "base/log.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum kind { K_FLAG, K_NUM, K_ENUM, K_STR, K_NOOP, K_REFUSE };

struct def {
	const char *name;
	enum kind kind;
	size_t field;       /* offset in struct options */
	int lo, hi;         /* K_NUM: smallest and largest value; K_FLAG: lo is the value */
	const char *values; /* K_ENUM: separated by '|' */
	const char *text;
};

static const struct def defs[] = {
#define FLAG(name, field, value, text) \
	{ name, K_FLAG, offsetof(struct options, field), value, 0, NULL, text },
#define NUM(name, field, min, max, text) \
	{ name, K_NUM, offsetof(struct options, field), min, max, NULL, text },
#define ENUM(name, field, values, text) \
	{ name, K_ENUM, offsetof(struct options, field), 0, 0, values, text },
#define STR(name, field, text) \
	{ name, K_STR, offsetof(struct options, field), 0, 0, NULL, text },
#define NOOP(name, text) { name, K_NOOP, 0, 0, 0, NULL, text },
#define REFUSE(name, text) { name, K_REFUSE, 0, 0, 0, NULL, text },
#include "command/options.def"
#undef FLAG
#undef NUM
#undef ENUM
#undef STR
#undef NOOP
#undef REFUSE
};

static int *int_field(struct options *options, const struct def *def)
{
	return (int *)(void *)((char *)options + def->field);
}

static char **str_field(struct options *options, const struct def *def)
{
	return (char **)(void *)((char *)options + def->field);
}

static uint64_t field_bit(const struct def *def)
{
	return 1ULL << ((def->field - offsetof(struct options, read_only)) / sizeof(int));
}

_Static_assert(offsetof(struct options, fsname) - offsetof(struct options, read_only) <=
	       64 * sizeof(int), "one bit for each field");

static bool takes_value(const struct def *def)
{
	return def->kind == K_NUM || def->kind == K_ENUM || def->kind == K_STR;
}

static bool matches(const struct def *def, const char *opt)
{
	size_t n = strlen(def->name);

	if (takes_value(def))
		return !strncmp(opt, def->name, n) && (opt[n] == '=' || opt[n] == '\0');
	if (def->name[n - 1] == '*')
		return !strncmp(opt, def->name, n - 1);
	return !strcmp(opt, def->name);
}

static const struct def *find(const char *opt)
{
	for (unsigned i = 0; i < ARRAY_SIZE(defs); i++)
		if (matches(&defs[i], opt))
			return &defs[i];
	return NULL;
}

/* The position of v in values ("a|b|c"), or -1. */
static int enum_pos(const char *values, const char *v)
{
	size_t len = strlen(v);
	int pos = 0;

	for (const char *p = values; *v; pos++) {
		size_t n = strcspn(p, "|");

		if (n == len && !memcmp(p, v, n))
			return pos;
		if (!p[n])
			break;
		p += n + 1;
	}
	return -1;
}

static int set_number(struct options *options, const struct def *def, const char *value,
		      struct fdio_reason *reason)
{
	char *end;
	long n;

	errno = 0;
	n = strtol(value, &end, 10);
	if (errno || !isdigit((unsigned char)*value) || *end || n < def->lo || n > def->hi)
		return fdio_reason_fail(reason, -EINVAL,
					"option %s=%.64s: give a number from %d to %d", def->name,
					value, def->lo, def->hi);
	*int_field(options, def) = (int)n;
	return 0;
}

static int set_enum(struct options *options, const struct def *def, const char *value,
		    struct fdio_reason *reason)
{
	int pos = enum_pos(def->values, value);

	if (pos < 0)
		return fdio_reason_fail(reason, -EINVAL, "option %s=%.64s: give one of %s",
					def->name, value, def->values);
	*int_field(options, def) = pos;
	if (def->field == offsetof(struct options, log))
		options->log_given = true;
	return 0;
}

static int set_string(struct options *options, const struct def *def, const char *value,
		      struct fdio_reason *reason)
{
	char *copy = strdup(value);

	if (!copy)
		return fdio_reason_fail(reason, -EINVAL, "out of memory");
	free(*str_field(options, def));
	*str_field(options, def) = copy;
	return 0;
}

/* Sets the field of one option, "name" or "name=value". sloppy: an unknown option is skipped. */
static int apply(struct options *options, const char *opt, bool sloppy, struct fdio_reason *reason)
{
	const struct def *def = find(opt);
	const char *value;

	if (!def && sloppy)
		return 0;
	if (!def)
		return fdio_reason_fail(reason, -EINVAL,
					"unknown option '%.64s': see fusedio --help", opt);
	if (def->kind == K_REFUSE)
		return fdio_reason_fail(reason, -EINVAL, "option %.64s is refused: %s", opt,
					def->text);
	if (def->kind == K_FLAG)
		*int_field(options, def) = def->lo;
	if (def->kind == K_FLAG || def->kind == K_NUM || def->kind == K_ENUM)
		options->given |= field_bit(def);
	if (!takes_value(def))
		return 0;
	value = strchr(opt, '=');
	if (!value || !value[1])
		return fdio_reason_fail(reason, -EINVAL, "option %s needs a value", def->name);
	switch (def->kind) {
	case K_NUM:
		return set_number(options, def, value + 1, reason);
	case K_ENUM:
		return set_enum(options, def, value + 1, reason);
	default:
		return set_string(options, def, value + 1, reason);
	}
}

/* Why this option cannot be suggested, NULL if it can. */
static const char *why_refused(const struct def *def, bool may_set)
{
	if (!def)
		return "it is not known";
	if (def->kind == K_REFUSE)
		return def->text;
	if (def->kind == K_STR || !may_set)
		return "that is not for a file system to say";
	return NULL;
}

enum options_suggestion options_suggest(struct options *options, const char *opt, bool may_set,
					struct fdio_reason *reason)
{
	const struct def *def = find(opt);
	uint64_t given = options->given;
	const char *why;
	int before;

	fdio_reason_clear(reason);
	if (def && def->kind == K_NOOP)
		return SUGGESTION_NOT_NEEDED;
	why = why_refused(def, may_set);
	if (why) {
		fdio_reason_set(reason, "%s", why);
		return SUGGESTION_REFUSED;
	}
	if (given & field_bit(def))
		return SUGGESTION_NOT_NEEDED;
	before = *int_field(options, def);
	if (apply(options, opt, false, reason))
		return SUGGESTION_REFUSED;
	options->given = given;
	options->suggested |= field_bit(def);
	return *int_field(options, def) == before ? SUGGESTION_NOT_NEEDED : SUGGESTION_TAKEN;
}

int options_parse_list(struct options *options, const char *list, bool sloppy,
		       struct fdio_reason *reason)
{
	char *one = malloc(strlen(list) + 1);
	int err = 0;

	if (!one) {
		fdio_reason_set(reason, "out of memory");
		return -EINVAL;
	}
	/* A backslash keeps a comma inside a value. */
	while (*list && !err) {
		size_t n = 0;

		for (; *list && *list != ','; list++) {
			if (*list == '\\' && list[1])
				list++;
			one[n++] = *list;
		}
		one[n] = '\0';
		if (*list == ',')
			list++;
		if (n)
			err = apply(options, one, sloppy, reason);
	}
	free(one);
	return err;
}

void options_defaults(struct options *options, bool root)
{
	memset(options, 0, sizeof(*options));
	options->allow_other = root;
	options->commit = 5;
	options->queue_depth = 64;
	options->poll = -1;
	options->workers = 8;
	options->drain_timeout = 30;
	options->log = OPT_LOG_INFO;
	options->acl = 1;
	options->parallel_dio = 1;
	options->user_xattr = 1;
	options->resuid = options->resgid = -1;
#ifdef FDIO_SANITIZED
	/* A sanitizer opens files and starts programs to report what it finds. */
	options->sandbox = OPT_SANDBOX_OFF;
#endif
}

int options_log_level(const struct options *options)
{
	static const int levels[] = {
		[OPT_LOG_ERR] = FDIO_LOG_ERR,
		[OPT_LOG_WARNING] = FDIO_LOG_WARN,
		[OPT_LOG_INFO] = FDIO_LOG_INFO,
		[OPT_LOG_DEBUG] = FDIO_LOG_DEBUG,
	};

	return levels[options->log];
}

void options_free(struct options *options) { free(options->fsname); }

static int usage(struct fdio_reason *reason, const char *what)
{
	fdio_reason_set(reason, "%s; usage: fusedio [options] DEVICE MOUNTPOINT (see fusedio "
			"--help)", what);
	return EXIT_USAGE;
}

/* getopt did not accept a word: fails with a reason that names it. */
static int bad_option(char **argv, bool no_argument, struct fdio_reason *reason)
{
	const char *word = argv[optind];
	char what[128];

	if (no_argument)
		snprintf(what, sizeof(what), "option -%c needs an argument", optopt);
	else if (optopt == '-' && word && !strncmp(word, "--", 2))
		snprintf(what, sizeof(what), "unknown option %.64s", word);
	else
		snprintf(what, sizeof(what), "unknown option -%c", optopt);
	return usage(reason, what);
}

/*
 * Parses the arguments, all but --help and --version. mount(8) gives a helper the device and the
 * mount point first and the options after them; getopt permutes, so the order does not matter.
 */
static int parse_args(int argc, char **argv, struct options *options, struct fdio_reason *reason)
{
	const char *lists[64];
	unsigned nr = 0;
	int c;

	optind = 0; /* glibc: start over; in tests the parser has run before */
	opterr = 0;
	while ((c = getopt(argc, argv, options->helper ? ":fnsvhVo:N:t:" : ":fdshVo:")) != -1) {
		switch (c) {
		case 'f':
			*(options->helper ? &options->fake : &options->foreground) = true;
			break;
		case 's':
			*(options->helper ? &options->sloppy : &options->single_loop) = true;
			break;
		case 'd':
			options->debug = options->foreground = true;
			break;
		case 'v':
			options->verbose = true;
			break;
		case 'h':
			options->help = true;
			break;
		case 'V':
			options->version = true;
			break;
		case 'N':
			options->ns = optarg;
			break;
		case 'o':
			if (nr == ARRAY_SIZE(lists))
				return usage(reason, "too many -o options");
			lists[nr++] = optarg;
			break;
		case 'n':
		case 't':
			break;
		default:
			return bad_option(argv, c == ':', reason);
		}
	}
	for (unsigned k = 0; k < nr; k++)
		if (options_parse_list(options, lists[k], options->sloppy, reason))
			return EXIT_USAGE;
	return 0;
}

int options_parse(int argc, char **argv, struct options *options, struct fdio_reason *reason)
{
	const char *base = argc > 0 && argv[0] ? argv[0] : "fusedio";
	int err;

	options_defaults(options, geteuid() == 0);
	base = strrchr(base, '/') ? strrchr(base, '/') + 1 : base;
	options->helper = !strncmp(base, "mount.", 6);
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help"))
			options->help = true;
		else if (!strcmp(argv[i], "--version"))
			options->version = true;
	}
	if (options->help || options->version)
		return 0;
	err = parse_args(argc, argv, options, reason);
	if (err || options->help || options->version)
		return err;
	if (argc - optind != 2)
		return usage(reason, argc - optind < 2 ? "give a device and a mount point"
						       : "too many arguments");
	options->device = argv[optind];
	options->mountpoint = argv[optind + 1];
	if (options->norecovery)
		options->read_only = 1;
	if (options->debug && !options->log_given)
		options->log = OPT_LOG_DEBUG;
	return 0;
}

/* Prints the names of all options of this kind. */
static void help_kind(FILE *f, enum kind kind)
{
	int col = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(defs); i++) {
		if (defs[i].kind != kind)
			continue;
		if (col + strlen(defs[i].name) > 96)
			col = fprintf(f, "\n") * 0;
		col += fprintf(f, "%s%s", col ? " " : "  ", defs[i].name);
	}
	fputc('\n', f);
}

/* Prints an option that does something, with its text. */
static void help_option(FILE *f, const struct def *def)
{
	const char *value = def->kind == K_ENUM  ? def->values
			    : def->kind == K_NUM ? "N"
			    : def->kind == K_STR ? "NAME"
						 : "";
	char left[80];

	snprintf(left, sizeof(left), "%s%s%s", def->name, takes_value(def) ? "=" : "", value);
	if (strlen(left) > 30) /* a line of its own */
		fprintf(f, "  %s\n  %-30s %s\n", left, "", def->text);
	else
		fprintf(f, "  %-30s %s\n", left, def->text);
}

void options_help(FILE *f)
{
	fprintf(f, "usage: fusedio [-fdshV] [-o option[,option...]] DEVICE MOUNTPOINT\n"
		   "       mount.fusedio DEVICE MOUNTPOINT [-sfnv] [-N namespace] [-o options] "
		   "[-t type]\n\n"
		   "Serves the ext4 file system on DEVICE (a block device, an image file, UUID=, "
		   "LABEL=, PARTUUID= or PARTLABEL=) on MOUNTPOINT.\n\n"
		   "  -f  stay in the foreground, log to stderr\n"
		   "  -d  debug: as -f, with log=debug\n"
		   "  -s  a single loop thread instead of one for each CPU\n"
		   "  -h  this help\n"
		   "  -V  versions\n\nOptions for -o:\n");
	for (unsigned i = 0; i < ARRAY_SIZE(defs); i++)
		if (defs[i].kind != K_NOOP && defs[i].kind != K_REFUSE)
			help_option(f, &defs[i]);
	fprintf(f, "\nAccepted, with nothing to do (fusedio(8) says why):\n");
	help_kind(f, K_NOOP);
	fprintf(f, "\nRefused:\n");
	help_kind(f, K_REFUSE);
}

void options_mount_list(const struct options *options, bool root, char *out, size_t cap)
{
	int n = snprintf(out, cap, "%s", options->read_only ? "ro" : "rw");

	/*
	 * libfuse mounts with nosuid,nodev unless suid,dev are given, and fusermount3 insists on
	 * nosuid,nodev. nodiratime is not passed on: libfuse does not know it, and the daemon
	 * itself writes the access times.
	 */
	if (root)
		n += snprintf(out + n, cap - (size_t)n, ",%s,%s",
			      options->nosuid ? "nosuid" : "suid",
			      options->nodev ? "nodev" : "dev");
	snprintf(out + n, cap - (size_t)n, "%s%s%s%s%s", options->noexec ? ",noexec" : "",
		 options->sync ? ",sync" : "", options->dirsync ? ",dirsync" : "",
		 options->atime == OPT_ATIME_NO ? ",noatime" : "",
		 options->allow_other ? ",allow_other" : "");
}
