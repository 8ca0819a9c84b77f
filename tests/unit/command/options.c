/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command line: both grammars, every option of the table, which options are refused and which
 * are skipped, and that table, --help and man page list the same options.
 */
#include "command/options.h"
#include "kit/runner.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* options.def once more. kind: the letter below. values: of 'n' "min max", of 'e' "a|b|c". */
struct row { const char *name; char kind; const char *values; };

static const struct row rows[] = {
#define FLAG(name, field, value, text) { name, 'f', NULL },
#define NUM(name, field, min, max, text) { name, 'n', #min " " #max },
#define ENUM(name, field, values, text) { name, 'e', values },
#define STR(name, field, text) { name, 's', NULL },
#define NOOP(name, text) { name, '-', NULL },
#define REFUSE(name, text) { name, 'r', NULL },
#include "command/options.def"
};

static char err[512]; /* the reason of the last call of parse or list */

/* Parses a command line; the arguments end with NULL. */
static int parse(struct options *options, const char *prog, ...)
{
	char *argv[32] = { (char *)prog };
	int argc = 1;
	const char *a;
	va_list ap;

	va_start(ap, prog);
	while ((a = va_arg(ap, const char *)))
		argv[argc++] = (char *)a;
	va_end(ap);
	err[0] = '\0';
	return options_parse(argc, argv, options, FDIO_REASON(err));
}

static int list(struct options *options, const char *l)
{
	err[0] = '\0';
	return options_parse_list(options, l, false, FDIO_REASON(err));
}

/* The reason names the word that is wrong. */
START_TEST(names_the_wrong_word)
{
	struct options options;

	ck_assert_int_eq(parse(&options, "fusedio", "-x", "/dev/x", "/mnt", NULL), EXIT_USAGE);
	ck_assert_msg(strstr(err, "unknown option -x"), "%s", err);
	ck_assert_int_eq(parse(&options, "fusedio", "/dev/x", "/mnt", "-fy", NULL), EXIT_USAGE);
	ck_assert_msg(strstr(err, "unknown option -y"), "%s", err);
	ck_assert_int_eq(parse(&options, "fusedio", "/dev/x", "--foo", "/mnt", NULL), EXIT_USAGE);
	ck_assert_msg(strstr(err, "unknown option --foo"), "%s", err);
	ck_assert_int_eq(parse(&options, "fusedio", "-f", "--foo=bar", "/dev/x", "/mnt", NULL),
			 EXIT_USAGE);
	ck_assert_msg(strstr(err, "unknown option --foo=bar"), "%s", err);
	ck_assert_int_eq(parse(&options, "fusedio", "/dev/x", "/mnt", "-o", NULL), EXIT_USAGE);
	ck_assert_msg(strstr(err, "option -o needs an argument"), "%s", err);
	ck_assert_int_eq(parse(&options, "mount.fusedio", "/dev/x", "/mnt", "-t", NULL),
			 EXIT_USAGE);
	ck_assert_msg(strstr(err, "option -t needs an argument"), "%s", err);
}
END_TEST

START_TEST(own_grammar)
{
	struct options options;

	ck_assert_int_eq(parse(&options, "fusedio", "-f", "-s", "-o", "ro,commit=7", "/dev/x",
			       "/mnt", NULL),
			 0);
	ck_assert(options.foreground && options.single_loop && !options.helper && !options.fake &&
		  !options.sloppy);
	ck_assert_str_eq(options.device, "/dev/x");
	ck_assert_str_eq(options.mountpoint, "/mnt");
	ck_assert_int_eq(options.read_only, 1);
	ck_assert_int_eq(options.commit, 7);
	/* mount.fuse gives the device first and the options last */
	ck_assert_int_eq(parse(&options, "/usr/sbin/fusedio", "/dev/x", "/mnt", "-o", "rw,noatime",
			       NULL),
			 0);
	ck_assert_int_eq(options.atime, OPT_ATIME_NO);
	ck_assert_int_eq(parse(&options, "fusedio", "-d", "a", "b", NULL), 0);
	ck_assert(options.foreground);
	ck_assert_int_eq(options.log, 3);
}
END_TEST

START_TEST(helper_grammar)
{
	struct options options;

	ck_assert_int_eq(parse(&options, "/sbin/mount.fusedio", "/dev/x", "/mnt", "-f", "-n", "-v",
			       "-N", "12", "-t", "fuse.fusedio", "-o", "rw", NULL),
			 0);
	ck_assert(options.helper && options.fake && !options.foreground && !options.sloppy);
	ck_assert_str_eq(options.ns, "12");
	ck_assert_int_eq(parse(&options, "mount.fusedio", "/dev/x", "/mnt", "-s", "-o",
			       "never_heard_of,ro", NULL),
			 0);
	ck_assert(options.sloppy && !options.single_loop);
	ck_assert_int_eq(options.read_only, 1);
	/* -s skips unknown options, not those that are refused */
	ck_assert_int_eq(parse(&options, "mount.fusedio", "/dev/x", "/mnt", "-s", "-o", "nobarrier",
			       NULL),
			 EXIT_USAGE);
}
END_TEST

/* The enums of options.h have the order of the values in options.def. */
START_TEST(values_have_their_names)
{
	static const struct { const char *option; size_t field; int value; } known[] = {
		{ "dio=strict", offsetof(struct options, dio), OPT_DIO_STRICT },
		{ "dio=relaxed", offsetof(struct options, dio), OPT_DIO_RELAXED },
		{ "errors=default", offsetof(struct options, errors), OPT_ERRORS_DEFAULT },
		{ "errors=continue", offsetof(struct options, errors), OPT_ERRORS_CONTINUE },
		{ "errors=remount-ro", offsetof(struct options, errors), OPT_ERRORS_REMOUNT_RO },
		{ "errors=panic", offsetof(struct options, errors), OPT_ERRORS_PANIC },
		{ "sandbox=on", offsetof(struct options, sandbox), OPT_SANDBOX_ON },
		{ "sandbox=off", offsetof(struct options, sandbox), OPT_SANDBOX_OFF },
		{ "sandbox=log", offsetof(struct options, sandbox), OPT_SANDBOX_LOG },
		{ "transport=auto", offsetof(struct options, transport), OPT_TRANSPORT_AUTO },
		{ "transport=uring", offsetof(struct options, transport), OPT_TRANSPORT_URING },
		{ "transport=devfuse", offsetof(struct options, transport), OPT_TRANSPORT_DEVFUSE },
		{ "log=err", offsetof(struct options, log), OPT_LOG_ERR },
		{ "log=warning", offsetof(struct options, log), OPT_LOG_WARNING },
		{ "log=info", offsetof(struct options, log), OPT_LOG_INFO },
		{ "log=debug", offsetof(struct options, log), OPT_LOG_DEBUG },
		{ "relatime", offsetof(struct options, atime), OPT_ATIME_RELATIVE },
		{ "noatime", offsetof(struct options, atime), OPT_ATIME_NO },
		{ "strictatime", offsetof(struct options, atime), OPT_ATIME_STRICT },
	};
	struct options options;

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		options_defaults(&options, true);
		ck_assert_int_eq(list(&options, known[i].option), 0);
		ck_assert_int_eq(*(int *)((char *)&options + known[i].field), known[i].value);
	}
}
END_TEST

START_TEST(usage_errors)
{
	struct options options;
	char lengthy[1000] = "";

	ck_assert_int_eq(parse(&options, "fusedio", NULL), EXIT_USAGE);
	ck_assert_int_eq(parse(&options, "fusedio", "a", NULL), EXIT_USAGE);
	ck_assert_int_eq(parse(&options, "fusedio", "a", "b", "c", NULL), EXIT_USAGE);
	ck_assert_ptr_nonnull(strstr(err, "too many"));
	ck_assert_int_eq(parse(&options, "fusedio", "-q", "a", "b", NULL), EXIT_USAGE);
	ck_assert_int_eq(parse(&options, "fusedio", "a", "b", "-o", NULL), EXIT_USAGE);
	ck_assert_int_eq(parse(&options, "fusedio", "a", "b", "-o", "bogus", NULL), EXIT_USAGE);
	ck_assert_ptr_nonnull(strstr(err, "bogus"));
	ck_assert_ptr_null(strchr(err, '\n'));
	/* a long word does not push the rest out of the line */
	memset(lengthy, 'x', sizeof(lengthy) - 1);
	ck_assert_int_eq(parse(&options, "fusedio", "a", "b", "-o", lengthy, NULL), EXIT_USAGE);
	ck_assert_ptr_nonnull(strstr(err, "see fusedio --help"));
	ck_assert_int_eq(parse(&options, "fusedio", "--help", NULL), 0);
	ck_assert(options.help);
	ck_assert_int_eq(parse(&options, "fusedio", "-V", NULL), 0);
	ck_assert(options.version);
}
END_TEST

START_TEST(values)
{
	static const char *const bad[] = {
		"commit",       "commit=",        "commit=0",
		"commit=301",   "commit=5x",      "commit=99999999999999999999",
		"dio",          "dio=",           "dio=stric",
		"dio=strictly", "queue_depth=-1", "commit= 5",
		"commit=+5",    "commit=0x10",    "errors=|",
		"log=loud",     "fsname=",        "ro=1"
	};
	struct options options;

	options_defaults(&options, true);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(list(&options, bad[i]) != 0, "%s was accepted", bad[i]);
	ck_assert_int_eq(list(&options, "commit=300,dio=relaxed,errors=remount-ro,,log=err,"
					"fsname=a\\,b"),
			 0);
	ck_assert_int_eq(options.commit, 300);
	ck_assert_int_eq(options.dio, OPT_DIO_RELAXED);
	ck_assert_int_eq(options.errors, OPT_ERRORS_REMOUNT_RO);
	ck_assert_int_eq(options.log, 0);
	ck_assert_str_eq(options.fsname, "a,b");
	options_free(&options);
}
END_TEST

/* Writes an example of the option, which the parser takes, or refuses because it is a REFUSE. */
static void example(const struct row *r, char *out, size_t cap)
{
	size_t n = strlen(r->name);

	if (r->kind == 'n')
		snprintf(out, cap, "%s=%.*s", r->name, (int)strcspn(r->values, " "), r->values);
	else if (r->kind == 'e')
		snprintf(out, cap, "%s=%.*s", r->name, (int)strcspn(r->values, "|"), r->values);
	else if (r->kind == 's')
		snprintf(out, cap, "%s=text", r->name);
	else if (r->name[n - 1] == '*')
		snprintf(out, cap, "%.*s9", (int)(n - 1), r->name);
	else
		snprintf(out, cap, "%s", r->name);
}

START_TEST(every_option)
{
	char opt[128];
	struct options options;

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		options_defaults(&options, false);
		example(&rows[i], opt, sizeof(opt));
		if (rows[i].kind == 'r') {
			ck_assert_msg(list(&options, opt) != 0, "%s was accepted", opt);
			ck_assert_msg(strstr(err, "refused"), "%s: %s", opt, err);
		} else {
			ck_assert_msg(list(&options, opt) == 0, "%s: %s", opt, err);
		}
		options_free(&options);
	}
}
END_TEST

START_TEST(negations)
{
	struct options options;

	options_defaults(&options, true);
	ck_assert_int_eq(options.allow_other, 1);
	ck_assert_int_eq(list(&options, "ro,rw,noatime,relatime,nosuid,suid,sync,async,"
					"noallow_other,noacl,acl,parallel_dio,noparallel_dio"),
			 0);
	ck_assert(!options.read_only && !options.atime && !options.nosuid && !options.sync &&
		  !options.allow_other && options.acl && !options.parallel_dio);
}
END_TEST

START_TEST(mount_list)
{
	struct options options;
	char l[256];

	options_defaults(&options, true);
	options_mount_list(&options, true, l, sizeof(l));
	ck_assert_str_eq(l, "rw,suid,dev,allow_other");
	ck_assert_int_eq(list(&options, "ro,nosuid,nodev,noexec,sync,dirsync,noatime,nodiratime,"
					"noallow_other"),
			 0);
	options_mount_list(&options, true, l, sizeof(l));
	ck_assert_str_eq(l, "ro,nosuid,nodev,noexec,sync,dirsync,noatime");
	options_defaults(&options, false);
	options_mount_list(&options, false, l, sizeof(l));
	ck_assert_str_eq(l, "rw");
}
END_TEST

/* The whole file, at most 1 MiB. The caller frees it. */
static char *slurp(FILE *f)
{
	size_t cap = 1 << 20, n;
	char *text = malloc(cap);

	ck_assert_ptr_nonnull(text);
	n = fread(text, 1, cap - 1, f);
	text[n] = '\0';
	return text;
}

/* True if name is a whole word of text. */
static bool has_word(const char *text, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = text; (p = strstr(p, name)); p++)
		if ((p == text || strchr(" \n", p[-1])) && strchr(" \n=", p[n]))
			return true;
	return false;
}

START_TEST(help_agrees)
{
	FILE *f = tmpfile();
	char *text;

	ck_assert_ptr_nonnull(f);
	options_help(f);
	rewind(f);
	text = slurp(f);
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		ck_assert_msg(has_word(text, rows[i].name), "--help lacks %s", rows[i].name);
	free(text);
	fclose(f);
}
END_TEST

static bool in_table(const char *name, size_t len)
{
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		if (strlen(rows[i].name) == len && !memcmp(rows[i].name, name, len))
			return true;
	return false;
}

/*
 * Every option is an ".It Cm" item in the section MOUNT OPTIONS of the man page, and every such
 * item is an option.
 */
START_TEST(man_agrees)
{
	const char *src = getenv("srcdir");
	unsigned items = 0;
	char path[512], *text, *from, *to;
	FILE *f;

	snprintf(path, sizeof(path), "%s/man/fusedio.8", src ? src : ".");
	f = fopen(path, "r");
	ck_assert_msg(f, "cannot open %s", path);
	text = slurp(f);
	fclose(f);
	from = strstr(text, ".Sh MOUNT OPTIONS");
	ck_assert_ptr_nonnull(from);
	to = strstr(from + 1, "\n.Sh ");
	ck_assert_ptr_nonnull(to);
	*to = '\0';
	for (char *p = from; (p = strstr(p, "\n.It Cm ")); items++) {
		p += strlen("\n.It Cm ");
		ck_assert_msg(in_table(p, strcspn(p, " \n")),
			      "the man page has '%.*s', the table has not", (int)strcspn(p, " \n"),
			      p);
		p -= 1;
	}
	ck_assert_uint_eq(items, ARRAY_SIZE(rows));
	free(text);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("command: options");
	TCase *tc = unit_case(s, "options", 60);

	unit_test(tc, names_the_wrong_word);
	unit_test(tc, own_grammar);
	unit_test(tc, helper_grammar);
	unit_test(tc, values_have_their_names);
	unit_test(tc, usage_errors);
	unit_test(tc, values);
	unit_test(tc, every_option);
	unit_test(tc, negations);
	unit_test(tc, mount_list);
	unit_test(tc, help_agrees);
	unit_test(tc, man_agrees);
	return s;
}
