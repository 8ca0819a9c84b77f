/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The main program of the differential test:
 *
 *     differential [options] FUSEDIO-MOUNT EXT4-MOUNT
 *       --seed N           the first seed (1)
 *       --seeds N          how many seeds (1)
 *       --steps N          how many steps of each seed (2000)
 *       --seconds N        no new seed after this time
 *       --until N          stop after step N
 *       --only LIST        only these steps, and those that make the directories
 *       --minimize         after a difference, leave out all steps that are not needed for it, and
 *                          print the others
 *       --keep             do not remove the files afterwards
 *       --limits           only try what is listed as a limit of FUSE
 *       --trees            only compare the trees as they are
 *       -v                 print each step
 *
 * Each seed runs in a directory of its own on both mounts. Exit status: 0 no difference, 1
 * differences, 2 an error of the test.
 */
#include "differential/diff.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#define MAX_STEPS 1000000u
#define PREAMBLE 7u
#define MINIMIZE_S 30

struct run {
	struct side a, b;
	unsigned steps;
	bool verbose, minimize, keep;
	uint8_t *wanted;       /* for each step: whether it is run */
	unsigned serial, failed_at;
	char why[2 * TEXT_CAP + 400];
};

static void die(const char *what)
{
	perror(what);
	exit(2);
}

static void open_side(struct side *side, const char *mount, bool ours)
{
	struct statfs f;

	*side = (struct side){
		.label = ours ? "fusedio" : "ext4", .mount = mount, .ours = ours, .root = -1
	};
	if (statfs(mount, &f))
		die(mount);
	side->max_file = (int64_t)f.f_bsize * UINT32_MAX;
	side->top = open(mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (side->top < 0)
		die(mount);
	for (unsigned k = 0; k < NSLOTS; k++)
		side->fd[k] = -1;
}

static void begin_side(struct side *side, const char *name)
{
	if (mkdirat(side->top, name, 0777) ||
	    (side->root = openat(side->top, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		die(name);
	if (fchmod(side->root, 0777))
		die("chmod");
}

static void end_side(struct side *side, const char *name, bool keep)
{
	for (unsigned k = 0; k < NSLOTS; k++) {
		if (side->fd[k] >= 0)
			close(side->fd[k]);
		side->fd[k] = -1;
	}
	if (chdir("/"))
		die("/");
	if (side->root >= 0)
		close(side->root);
	side->root = -1;
	if (!keep && !diff_wipe(side->top, name))
		fprintf(stderr, "%s: %s cannot be removed: %s\n", side->label, name,
			strerror(errno));
}

/* Runs the wanted steps of a seed. False if there is a difference: why and failed_at are set. */
static bool run_once(struct run *run, uint64_t seed, const char *tag, bool quiet)
{
	static char text[2000];
	char name[64];
	bool same = true;
	struct step step;

	umask(022);
	do /* earlier runs with --keep left their directories */
		snprintf(name, sizeof(name), "%s%" PRIu64 "-%u", tag, seed, run->serial++);
	while (!faccessat(run->b.top, name, F_OK, 0));
	begin_side(&run->a, name);
	begin_side(&run->b, name);
	clock_gettime(CLOCK_REALTIME, &diff_run_start);
	for (unsigned k = 0; same && k < run->steps; k++) {
		if (!run->wanted[k])
			continue;
		diff_make_step(seed, k, &step);
		if (run->verbose && !quiet) {
			diff_print_step(&step, text, sizeof(text));
			printf("%s\n", text);
		}
		same = diff_do_step(&run->a, &run->b, &step, run->verbose && !quiet, run->why,
				    sizeof(run->why));
		if (!same)
			run->failed_at = k;
	}
	if (same && diff_trees(run->a.root, run->b.root, false)) {
		snprintf(run->why, sizeof(run->why), "the trees at the end differ");
		run->failed_at = run->steps;
		same = false;
	}
	end_side(&run->a, name, run->keep && !quiet);
	end_side(&run->b, name, run->keep && !quiet);
	return same;
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Whether two differences are of one kind: their texts are equal up to the colon. */
static bool same_kind(const char *x, const char *y)
{
	size_t n = strcspn(x, ":");

	return n == strcspn(y, ":") && !strncmp(x, y, n);
}

/*
 * Leaves out ranges of steps, shorter ones each time round, as long as the last step still differs
 * in the same way.
 */
static void minimize(struct run *run, uint64_t seed)
{
	unsigned last = run->failed_at, tries = 0;
	double end = seconds() + MINIMIZE_S;
	static char why[sizeof(run->why)];
	static uint8_t saved[MAX_STEPS];

	memcpy(why, run->why, sizeof(why));
	for (unsigned k = last + 1; k < run->steps; k++)
		run->wanted[k] = 0;
	for (unsigned len = last / 2 + 1; len; len = len == 1 ? 0 : (len + 1) / 2) {
		for (unsigned at = PREAMBLE; at < last && seconds() < end; at += len) {
			unsigned n = at + len > last ? last - at : len;
			bool any = false;

			memcpy(saved, run->wanted + at, n);
			for (unsigned k = 0; k < n; k++)
				any |= saved[k];
			if (!any)
				continue;
			memset(run->wanted + at, 0, n);
			tries++;
			if (run_once(run, seed, "min", true) || run->failed_at != last ||
			    !same_kind(why, run->why))
				memcpy(run->wanted + at, saved, n);
		}
	}
	memcpy(run->why, why, sizeof(why));
	run->failed_at = last;
	printf("  minimized in %u runs:\n", tries);
}

static void tell(struct run *run, uint64_t seed)
{
	static char text[2000], list[4000];
	struct step step;
	size_t n = 0;

	printf("seed %" PRIu64 ": DIFFERENCE\n", seed);
	if (run->minimize) {
		minimize(run, seed);
		for (unsigned k = PREAMBLE; k <= run->failed_at && k < run->steps; k++) {
			if (!run->wanted[k])
				continue;
			diff_make_step(seed, k, &step);
			diff_print_step(&step, text, sizeof(text));
			printf("    %s\n", text);
			if (n + 12 < sizeof(list))
				n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%u",
						      n ? "," : "", k);
		}
	} else if (run->failed_at < run->steps) {
		diff_make_step(seed, run->failed_at, &step);
		diff_print_step(&step, text, sizeof(text));
		printf("  %s\n", text);
	}
	printf("  %s\n", run->why);
	if (n)
		printf("  again: differential --seed %" PRIu64 " --only %s -v %s %s\n", seed, list,
		       run->a.mount, run->b.mount);
	else
		printf("  again: differential --seed %" PRIu64 " --steps %u --minimize %s %s\n",
		       seed, run->steps, run->a.mount, run->b.mount);
	fflush(stdout);
}

static void only(struct run *run, const char *list)
{
	char *end;

	memset(run->wanted + PREAMBLE, 0, MAX_STEPS - PREAMBLE);
	for (const char *p = list; *p; p = *end ? end + 1 : end) {
		unsigned long k = strtoul(p, &end, 10);

		if (end == p || k >= MAX_STEPS) {
			fprintf(stderr, "--only: %s is no list of steps\n", list);
			exit(2);
		}
		run->wanted[k] = 1;
		if (k >= run->steps)
			run->steps = (unsigned)k + 1;
	}
}

static unsigned long number(const char *s)
{
	char *end;
	unsigned long v = strtoul(s, &end, 0);

	if (end == s || *end) {
		fprintf(stderr, "%s is no number\n", s);
		exit(2);
	}
	return v;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", 1, NULL, 's' },   { "seeds", 1, NULL, 'n' },
		{ "steps", 1, NULL, 't' },  { "until", 1, NULL, 'u' },
		{ "only", 1, NULL, 'o' },   { "minimize", 0, NULL, 'm' },
		{ "trees", 0, NULL, 'T' },  { "keep", 0, NULL, 'k' },
		{ "limits", 0, NULL, 'L' }, { "seconds", 1, NULL, 'S' },
		{ NULL, 0, NULL, 0 },
	};
	uint64_t seed = 1, seeds = 1, k;
	static struct run run = { .steps = 2000 };
	unsigned long limit = 0, bad = 0;
	double begun = seconds();
	bool trees = false, limits = false;
	int c;

	run.wanted = malloc(MAX_STEPS);
	diff_arena = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (!run.wanted || diff_arena == MAP_FAILED)
		die("memory");
	memset(run.wanted, 1, MAX_STEPS);
	while ((c = getopt_long(argc, argv, "v", options, NULL)) != -1) {
		switch (c) {
		case 's': seed = number(optarg); break;
		case 'n': seeds = number(optarg); break;
		case 't': run.steps = (unsigned)number(optarg); break;
		case 'u': run.steps = (unsigned)number(optarg) + 1; break;
		case 'o': only(&run, optarg); break;
		case 'm': run.minimize = true; break;
		case 'T': trees = true; break;
		case 'L': limits = true; break;
		case 'k': run.keep = true; break;
		case 'S': limit = number(optarg); break;
		case 'v': run.verbose = true; break;
		default: return 2;
		}
	}
	if (optind + 2 != argc || run.steps > MAX_STEPS) {
		fprintf(stderr, "usage: differential [options] FUSEDIO-MOUNT EXT4-MOUNT\n");
		return 2;
	}
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGIO, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	open_side(&run.a, argv[optind], true);
	open_side(&run.b, argv[optind + 1], false);
	clock_gettime(CLOCK_REALTIME, &diff_run_start);
	if (limits)
		return diff_limits(&run.a, &run.b) ? 1 : 0;
	if (trees)
		return diff_trees(run.a.top, run.b.top, true) ? 1 : 0;
	for (k = 0; k < seeds && (!limit || seconds() - begun < (double)limit); k++) {
		if (run_once(&run, seed + k, "run", false))
			continue;
		bad++;
		tell(&run, seed + k);
		if (seeds > 1)
			memset(run.wanted, 1, MAX_STEPS);
	}
	printf("differential: %" PRIu64 " seeds of %u steps from %" PRIu64 ", %lu with "
									   "differences, %.0f "
									   "steps a second\n",
	       k, run.steps, seed, bad, (double)k * run.steps / (seconds() - begun));
	for (unsigned n = 0; n < diff_nr_allowed; n++)
		printf("  allowed, %s: %u times (%s)\n", diff_allowed[n].name, diff_allowed[n].met,
		       diff_allowed[n].reason);
	return bad ? 1 : 0;
}
