/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command line. Two grammars, chosen by argv[0], because -f, -s, -n and -v mean different
 * things to a FUSE command and to a mount(8) helper. Options come from options.def alone. Main
 * thread, no state; what is wrong with an option is told as a reason.
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
	size_t field;
	int lo, hi;
	const char *values, *text;
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

static int *int_field(struct options *o, const struct def *d) { return (int *)(void *)((char *)o + d->field); }
static char **str_field(struct options *o, const struct def *d) { return (char **)(void *)((char *)o + d->field); }

static uint64_t field_bit(const struct def *d)
{
	return 1ULL << ((d->field - offsetof(struct options, read_only)) / sizeof(int));
}

_Static_assert(offsetof(struct options, fsname) - offsetof(struct options, read_only) <=
	       64 * sizeof(int), "a bit for each field");

static bool takes_value(const struct def *d) { return d->kind == K_NUM || d->kind == K_ENUM || d->kind == K_STR; }

static bool matches(const struct def *d, const char *opt)
{
	size_t n = strlen(d->name);

	if (takes_value(d))
		return !strncmp(opt, d->name, n) && (opt[n] == '=' || opt[n] == '\0');
	if (d->name[n - 1] == '*')
		return !strncmp(opt, d->name, n - 1);
	return !strcmp(opt, d->name);
}

static const struct def *find(const char *opt)
{
	for (unsigned i = 0; i < ARRAY_SIZE(defs); i++)
		if (matches(&defs[i], opt))
			return &defs[i];
	return NULL;
}

/* Position of v in "a|b|c", or -1. */
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

static int apply_value(struct options *o, const struct def *d, const char *value,
		struct fdio_reason *reason)
{
	char *end, *copy;
	long n;
	int pos;

	switch (d->kind) {
	case K_NUM:
		errno = 0;
		n = strtol(value, &end, 10);
		if (errno || !isdigit((unsigned char)*value) || *end || n < d->lo || n > d->hi) {
			fdio_reason_set(reason, "option %s=%.64s: give a number from %d to %d",
					d->name, value, d->lo, d->hi);
			return -EINVAL;
		}
		*int_field(o, d) = (int)n;
		return 0;
	case K_ENUM:
		pos = enum_pos(d->values, value);
		if (pos < 0) {
			fdio_reason_set(reason, "option %s=%.64s: give one of %s", d->name, value,
					d->values);
			return -EINVAL;
		}
		*int_field(o, d) = pos;
		if (d->field == offsetof(struct options, log))
			o->log_given = true;
		return 0;
	default:
		copy = strdup(value);
		if (!copy) {
			fdio_reason_set(reason, "out of memory");
			return -EINVAL;
		}
		free(*str_field(o, d));
		*str_field(o, d) = copy;
		return 0;
	}
}

static int apply(struct options *o, const char *opt, bool sloppy, struct fdio_reason *reason)
{
	const struct def *d = find(opt);
	const char *value;

	if (!d) {
		if (sloppy)
			return 0;
		fdio_reason_set(reason, "unknown option '%.64s': see fusedio --help", opt);
		return -EINVAL;
	}
	if (d->kind == K_REFUSE) {
		fdio_reason_set(reason, "option %.64s is refused: %s", opt, d->text);
		return -EINVAL;
	}
	if (d->kind == K_FLAG)
		*int_field(o, d) = d->lo;
	if (d->kind == K_FLAG || d->kind == K_NUM || d->kind == K_ENUM)
		o->given |= field_bit(d);
	if (!takes_value(d))
		return 0;
	value = strchr(opt, '=');
	if (!value || !value[1]) {
		fdio_reason_set(reason, "option %s needs a value", d->name);
		return -EINVAL;
	}
	return apply_value(o, d, value + 1, reason);
}

enum options_took options_take(struct options *o, const char *opt, bool may_set,
			       struct fdio_reason *reason)
{
	const struct def *d = find(opt);
	uint64_t given = o->given;
	int before;

	fdio_reason_clear(reason);
	if (d && d->kind == K_NOOP)
		return OPTIONS_LEFT;
	if (!d || d->kind == K_REFUSE || d->kind == K_STR || !may_set) {
		fdio_reason_set(reason, "%s", !d ? "it is not known" : d->kind == K_REFUSE ? d->text
			 : "that is not for a file system to say");
		return OPTIONS_NOT;
	}
	if (given & field_bit(d))
		return OPTIONS_LEFT;
	before = *int_field(o, d);
	if (apply(o, opt, false, reason))
		return OPTIONS_NOT;
	o->given = given;
	o->asked |= field_bit(d);
	return *int_field(o, d) == before ? OPTIONS_LEFT : OPTIONS_TAKEN;
}

int options_parse_list(struct options *o, const char *list, bool sloppy, struct fdio_reason *reason)
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
			err = apply(o, one, sloppy, reason);
	}
	free(one);
	return err;
}

void options_defaults(struct options *o, bool root)
{
	memset(o, 0, sizeof(*o));
	o->allow_other = root;
	o->commit = 5;
	o->queue_depth = 64;
	o->poll = -1;
	o->workers = 8;
	o->drain_timeout = 30;
	o->log = OPT_LOG_INFO;
	o->acl = 1;
	o->parallel_dio = 1;
	o->user_xattr = 1;
	o->resuid = o->resgid = -1;
#ifdef FDIO_SANITIZED
	o->sandbox = OPT_SANDBOX_OFF; /* sanitizers open files and start programs to report what they find */
#endif
}

int options_log_level(const struct options *o)
{
	static const int levels[] = {
		[OPT_LOG_ERR] = FDIO_LOG_ERR,
		[OPT_LOG_WARNING] = FDIO_LOG_WARN,
		[OPT_LOG_INFO] = FDIO_LOG_INFO,
		[OPT_LOG_DEBUG] = FDIO_LOG_DEBUG,
	};

	return levels[o->log];
}

void options_free(struct options *o) { free(o->fsname); }

static int usage(struct fdio_reason *reason, const char *what)
{
	fdio_reason_set(reason, "%s; usage: fusedio [options] DEVICE MOUNTPOINT (see fusedio "
			"--help)", what);
	return EXIT_USAGE;
}

/* What getopt did not like, by name. */
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

/* getopt permutes; helpers get "spec dir" first and options after. */
static int parse_args(int argc, char **argv, struct options *o, struct fdio_reason *reason)
{
	const char *lists[64];
	unsigned nr = 0;
	int c;

	optind = 0; /* glibc: start over, the parser may have run before (tests) */
	opterr = 0;
	while ((c = getopt(argc, argv, o->helper ? ":fnsvhVo:N:t:" : ":fdshVo:")) != -1) {
		switch (c) {
		case 'f':
			*(o->helper ? &o->fake : &o->foreground) = true;
			break;
		case 's':
			*(o->helper ? &o->sloppy : &o->single_loop) = true;
			break;
		case 'd':
			o->debug = o->foreground = true;
			break;
		case 'v':
			o->verbose = true;
			break;
		case 'h':
			o->help = true;
			break;
		case 'V':
			o->version = true;
			break;
		case 'N':
			o->ns = optarg;
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
		if (options_parse_list(o, lists[k], o->sloppy, reason))
			return EXIT_USAGE;
	return 0;
}

int options_parse(int argc, char **argv, struct options *o, struct fdio_reason *reason)
{
	const char *base = argc > 0 && argv[0] ? argv[0] : "fusedio";
	int err;

	options_defaults(o, geteuid() == 0);
	base = strrchr(base, '/') ? strrchr(base, '/') + 1 : base;
	o->helper = !strncmp(base, "mount.", 6);
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help"))
			o->help = true;
		else if (!strcmp(argv[i], "--version"))
			o->version = true;
	}
	if (o->help || o->version)
		return 0;
	err = parse_args(argc, argv, o, reason);
	if (err || o->help || o->version)
		return err;
	if (argc - optind != 2)
		return usage(reason, argc - optind < 2 ? "give a device and a mount point"
				: "too many arguments");
	o->device = argv[optind];
	o->mountpoint = argv[optind + 1];
	if (o->norecovery)
		o->read_only = 1;
	if (o->debug && !o->log_given)
		o->log = OPT_LOG_DEBUG;
	return 0;
}

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

void options_help(FILE *f)
{
	char left[80];

	fprintf(f, "usage: fusedio [-fdshV] [-o option[,option...]] DEVICE MOUNTPOINT\n"
		   "       mount.fusedio DEVICE MOUNTPOINT [-sfnv] [-N namespace] [-o options] [-t type]\n\n"
		   "Serves the ext4 file system on DEVICE (a block device, an image file, UUID=, LABEL=, PARTUUID= or PARTLABEL=) on MOUNTPOINT.\n\n"
		   "  -f  stay in the foreground, log to stderr\n"
		   "  -d  debug: as -f, with log=debug\n"
		   "  -s  a single loop thread instead of one for each CPU\n"
		   "  -h  this help\n"
		   "  -V  versions\n\nOptions for -o:\n");
	for (unsigned i = 0; i < ARRAY_SIZE(defs); i++) {
		const struct def *d = &defs[i];

		if (d->kind == K_NOOP || d->kind == K_REFUSE)
			continue;
		snprintf(left, sizeof(left), "%s%s%s", d->name, takes_value(d) ? "=" : "",
			 d->kind == K_ENUM ? d->values : d->kind == K_NUM ? "N" : d->kind == K_STR ? "NAME" : "");
		if (strlen(left) > 30) /* a line of its own */
			fprintf(f, "  %s\n  %-30s %s\n", left, "", d->text);
		else
			fprintf(f, "  %-30s %s\n", left, d->text);
	}
	fprintf(f, "\nAccepted, with nothing to do (fusedio(8) says why):\n");
	help_kind(f, K_NOOP);
	fprintf(f, "\nRefused:\n");
	help_kind(f, K_REFUSE);
}

void options_mount_list(const struct options *o, bool root, char *out, size_t cap)
{
	int n = snprintf(out, cap, "%s", o->read_only ? "ro" : "rw");

	/* nodiratime is not among them: libfuse does not know it, and access times are written by us anyway. */
	/* libfuse mounts nosuid,nodev unless told otherwise, and fusermount3 insists on it. */
	if (root)
		n += snprintf(out + n, cap - (size_t)n, ",%s,%s", o->nosuid ? "nosuid" : "suid", o->nodev ? "nodev" : "dev");
	snprintf(out + n, cap - (size_t)n, "%s%s%s%s%s", o->noexec ? ",noexec" : "", o->sync ? ",sync" : "",
		 o->dirsync ? ",dirsync" : "", o->atime == OPT_ATIME_NO ? ",noatime" : "",
		 o->allow_other ? ",allow_other" : "");
}
