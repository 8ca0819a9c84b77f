/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The driver of the crash checker. For each seed it runs a workload on a recording device, then
 * builds crash states: the power is cut after some event; writes covered by a flush or FUA are
 * kept, each other write is kept, dropped or torn at 512 bytes. For each state it checks:
 *
 *   - after the daemon's own recovery, what the workload promised is there, and e2fsck -fn finds
 *     nothing wrong;
 *   - a recovery that is itself cut and then run again ends the same;
 *   - recovery by e2fsck -fy instead gives the same contents; and so does, for a sample of the
 *     states and as root, recovery by the kernel's ext4.
 *
 * Environment:
 *   CRASH_STATES=n      so many states (1,200)
 *   CRASH_KERNEL=n      so many of them also through the kernel (60 as root); 0: none
 *   CRASH_SHORT=1       600 states, 20 of them through the kernel
 *   CRASH_SEED=s        the first seed
 *   CRASH_EXHAUSTIVE=n  besides, n small runs cut in every way (3; 1 with CRASH_SHORT)
 *   CRASH_STATE=w:s:k:m:c  one state again, as a failure prints it; CRASH_TINY=1: of a small run
 *   CRASH_ONLY=w        one workload: raw, files, tree or dio
 *   CRASH_KEEP=dir      images of failed states are written there
 *   CRASH_MUTATE=name   with this deliberate mistake in the journal (journal_mutation)
 *
 * With --mutations, each mistake (or that one) is made in runs of the raw workload and must be
 * noticed; runs without a mistake must find nothing.
 */
#include "crash/crash.h"

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STATES_PER_RUN = 24, EXHAUSTIVE_PENDING = 6, EXHAUSTIVE_SAMPLE = 48, MUTATION_RUNS = 120 };
enum { STATES = 1200, STATES_SHORT = 600, KERNEL_STATES = 60, KERNEL_STATES_SHORT = 20 };

static const struct crash_workload *const workloads[] = {
	&crash_raw, &crash_files, &crash_tree, &crash_dio,
};
static const char *const mutation_names[JOURNAL_MUTATION_COUNT] = {
	"none",      "no-preflush", "no-fua",      "no-revoke",   "no-escape",  "no-tail-flush",
	"no-freeze", "no-rollback", "early-reuse", "no-tail-fua", "late-start", "no-replay-flush"
};

static unsigned passed, failed, skipped;
static bool quiet;
/*
 * How much is checked of a state: the daemon's recovery and the contents; also that a recovery can
 * be cut and repeated; also what e2fsck says and does.
 */
enum depth { OWN, TWICE, ALL };
static unsigned by_kernel;   /* states that the kernel has recovered too */
static unsigned torn_states; /* states with a torn superblock, see torn_superblock */

struct state {
	const struct crash_workload *w;
	uint64_t seed, cut_seed; /* of the run, and of what the cut does to writes */
	unsigned k;              /* the cut comes after the first k events */
	enum fake_cut mode;
	bool kernel;             /* the kernel recovers it too */
};

static void report(const struct state *state, struct fake_dev *fake, const char *stage,
		   const char *why)
{
	const char *keep = getenv("CRASH_KEEP");
	char path[512];

	failed++;
	if (quiet)
		return;
	printf("FAIL %s: %s; again with %sCRASH_STATE=%s:%llu:%u:%d:%llu\n", stage, why,
	       crash_tiny ? "CRASH_TINY=1 " : "", state->w->name, (unsigned long long)state->seed,
	       state->k, state->mode, (unsigned long long)state->cut_seed);
	if (keep) {
		snprintf(path, sizeof(path), "%s/crash-%s-%llu-%u.img", keep, state->w->name,
			 (unsigned long long)state->seed, state->k);
		fake_save(fake, path);
	}
	fflush(stdout);
}

/*
 * e2fsck -fy has nothing to repair but the log, and e2fsck -fn then finds nothing. reload: fake
 * becomes what e2fsck left.
 */
static bool fsck(struct fake_dev *fake, bool reload, char *why, size_t len)
{
	static char out[8192];
	int err = fake_run(fake,
			   "e2fsck -fy $IMG >$IMG.log 2>&1; r=$?; if [ $r -gt 1 ]; then cat "
			   "$IMG.log; rm -f $IMG.log; exit $r; fi; "
			   "rm -f $IMG.log; e2fsck -fn $IMG 2>&1",
			   out, sizeof(out), reload);

	if (err)
		snprintf(why, len, "e2fsck: exit code %d: %.200s", err, out);
	return err == 0;
}

static bool same_bytes(struct fake_dev *a, struct fake_dev *b)
{
	uint64_t size = fake_dev(a)->caps.size_bytes;
	uint8_t *x = malloc(1 << 20), *y = malloc(1 << 20);
	bool ok = x && y;

	for (uint64_t off = 0; off < size && ok; off += 1 << 20) {
		size_t n = FDIO_MIN(size - off, (uint64_t)1 << 20);

		fake_peek(a, x, n, off);
		fake_peek(b, y, n, off);
		ok = !memcmp(x, y, n);
	}
	free(x);
	free(y);
	return ok;
}

/*
 * The superblock is written in place: 1 KiB with its checksum at the end, which a power cut can
 * tear on sectors of 512 bytes. The daemon completes it (ext4/core/superblock_torn.c). The kernel
 * refuses such a mount, and e2fsck begins from a backup, which has nothing of the last mount. So
 * their recovery of such a state is no measure; e2fsck only checks the state after the daemon's.
 */
static bool torn_superblock(struct fake_dev *fake)
{
	uint8_t sb[1024];
	bool has_checksum;

	fake_peek(fake, sb, sizeof(sb), 1024);
	has_checksum = sb[0x65] & 4; /* metadata_csum */
	return has_checksum && fdio_get_le32(sb, 0x3fc) != fdio_crc32c(~0u, sb, 0x3fc);
}

/* A recovery that is cut in the middle and started again ends as whole, an uncut one, does. */
static bool recover_twice(const struct state *state, struct crash_run *run, struct fake_dev *cut,
		  struct fake_dev *whole, char *why, size_t len)
{
	struct fake_dev *first = fake_clone(cut), *second;
	uint64_t seed = state->cut_seed + 1;
	bool ok;

	fake_record_start(first);
	ok = !state->w->recover(run, first, why, len);
	second = fake_record_cut(first, crash_pick(&seed, fake_record_events(first) + 1),
				 FAKE_CUT_RANDOM, crash_rand(&seed));
	ok = ok && !state->w->recover(run, second, why, len);
	if (ok && !state->w->exact)
		ok = state->w->check(run, second, state->k, why, len);
	else if (ok && !same_bytes(second, whole)) {
		snprintf(why, len, "an interrupted recovery ends differently");
		ok = false;
	}
	fake_free(first);
	fake_free(second);
	return ok;
}

/* fake, recovered by another program, contains what own, recovered by the daemon, contains. */
static bool agrees(const struct state *state, struct crash_run *run, struct fake_dev *own,
		   struct fake_dev *fake, char *why, size_t len)
{
	uint64_t ours, theirs;

	if (!state->w->digest(run, own, &ours, why, len) ||
	    !state->w->digest(run, fake, &theirs, why, len))
		return false;
	if (ours != theirs)
		snprintf(why, len, "the contents differ from those after the daemon's recovery");
	return ours == theirs;
}

/* The kernel recovers the same cut: it mounts, e2fsck is content, and the contents are right. */
static bool kernel_ok(const struct state *state, struct crash_run *run, struct fake_dev *cut,
		      struct fake_dev *own, char *why, size_t len)
{
	struct fake_dev *fake = fake_clone(cut);
	bool ok = !crash_kernel_replay(fake, why, len) && fsck(fake, false, why, len) &&
		  state->w->check(run, fake, state->k, why, len) &&
		  agrees(state, run, own, fake, why, len);

	by_kernel++;
	fake_free(fake);
	return ok;
}

/* Checks one crash state, the image cut, and counts it as passed or failed. */
static void check_state(const struct state *state, struct crash_run *run, struct fake_dev *cut,
			enum depth depth)
{
	struct fake_dev *own = fake_clone(cut), *theirs = fake_clone(cut);
	bool torn = torn_superblock(cut);
	const char *stage = "recovery";
	char why[512] = "";
	bool ok;

	ok = !state->w->recover(run, own, why, sizeof(why));
	if (ok) {
		stage = "content";
		ok = state->w->check(run, own, state->k, why, sizeof(why));
	}
	if (ok && depth >= TWICE) {
		stage = "second recovery";
		ok = recover_twice(state, run, cut, own, why, sizeof(why));
	}
	if (ok && depth == ALL) {
		stage = "e2fsck after the daemon's recovery";
		ok = fsck(own, false, why, sizeof(why));
	}
	torn_states += torn;
	if (ok && depth == ALL && !torn) {
		stage = "e2fsck";
		ok = fsck(theirs, true, why, sizeof(why));
	}
	if (ok && depth == ALL && !torn) {
		stage = "content after e2fsck";
		ok = state->w->check(run, theirs, state->k, why, sizeof(why)) &&
		     agrees(state, run, own, theirs, why, sizeof(why));
	}
	if (ok && state->kernel && !torn) {
		stage = "the kernel's recovery";
		ok = kernel_ok(state, run, cut, own, why, sizeof(why));
	}
	if (ok)
		passed++;
	else
		report(state, cut, stage, why);
	fake_free(own);
	fake_free(theirs);
}

static void one_state(const struct state *state, struct crash_run *run, enum depth depth)
{
	struct fake_dev *cut = fake_record_cut(state->w->device(run), state->k, state->mode,
					       state->cut_seed);

	check_state(state, run, cut, depth);
	fake_free(cut);
}

/* Chooses which states go through the kernel: count of total, evenly spread; at: the next one. */
struct sample { unsigned total, count, at; };

static bool sampled(struct sample *sample)
{
	uint64_t at = sample->at++, count = sample->count, total = sample->total;

	return total && at * count / total != (at + 1) * count / total;
}

/* A run of one workload and n cuts of it; kernel may be NULL. */
static void one_run(const struct crash_workload *w, uint64_t seed, unsigned n, enum depth depth,
		    struct sample *kernel)
{
	struct crash_run *run = w->run(seed);
	uint64_t rnd = seed ^ 0x5a5a;
	unsigned events;

	if (!run) {
		printf("FAIL setup of %s with seed %llu\n", w->name, (unsigned long long)seed);
		failed++;
		return;
	}
	events = fake_record_events(w->device(run));
	for (unsigned i = 0; i < n; i++) {
		static const enum fake_cut modes[4] = { FAKE_CUT_RANDOM, FAKE_CUT_RANDOM,
							FAKE_CUT_DROP, FAKE_CUT_KEEP };
		struct state state = { .w = w, .seed = seed, .mode = modes[crash_pick(&rnd, 4)] };

		state.k = w->moment ? w->moment(run, &rnd) : crash_pick(&rnd, events + 1);
		state.cut_seed = crash_rand(&rnd);
		state.kernel = kernel && sampled(kernel);
		one_state(&state, run, depth);
	}
	w->free(run);
}

/*
 * A small run, cut after each of its events in every way: with each subset of the writes that were
 * not durable (where these are more than EXHAUSTIVE_PENDING, with random subsets), and once with
 * torn writes. One in EXHAUSTIVE_SAMPLE of the states is checked in full.
 */
static void run_exhaustive(uint64_t seed)
{
	struct state state = { .w = &crash_tree, .seed = seed };
	uint64_t rnd = seed;
	struct crash_run *run;
	unsigned before = passed, events;

	crash_tiny = true;
	run = state.w->run(seed);
	if (!run) {
		printf("FAIL setup of the short run with seed %llu\n", (unsigned long long)seed);
		failed++;
		crash_tiny = false;
		return;
	}
	events = fake_record_events(state.w->device(run));
	for (state.k = 0; state.k <= events; state.k++) {
		unsigned n = fake_record_pending(state.w->device(run), state.k);
		bool all = n <= EXHAUSTIVE_PENDING;

		state.mode = FAKE_CUT_MASK;
		for (unsigned m = 0; m < 1u << FDIO_MIN(n, (unsigned)EXHAUSTIVE_PENDING); m++) {
			state.cut_seed = all ? m : crash_rand(&rnd);
			one_state(&state, run, (passed + failed) % EXHAUSTIVE_SAMPLE ? OWN : ALL);
		}
		state.mode = FAKE_CUT_RANDOM;
		state.cut_seed = crash_rand(&rnd);
		one_state(&state, run, OWN);
	}
	printf("short run %llu: %u states, every cut\n", (unsigned long long)seed, passed - before);
	state.w->free(run);
	crash_tiny = false;
}

static const struct crash_workload *find_workload(const char *name, size_t len)
{
	for (unsigned i = 0; i < ARRAY_SIZE(workloads); i++)
		if (strlen(workloads[i]->name) == len && !memcmp(workloads[i]->name, name, len))
			return workloads[i];
	return NULL;
}

/* The state that CRASH_STATE names; false if the text is not one. */
static bool reproduce(const char *text, bool kernel)
{
	const char *colon = strchr(text, ':');
	unsigned long long seed, cut_seed;
	struct state state = { 0 };
	struct crash_run *run;
	int mode;

	if (!colon || sscanf(colon, ":%llu:%u:%d:%llu", &seed, &state.k, &mode, &cut_seed) != 4)
		return false;
	state.w = find_workload(text, (size_t)(colon - text));
	if (!state.w || mode < FAKE_CUT_KEEP || mode > FAKE_CUT_MASK)
		return false;
	state.seed = seed;
	state.cut_seed = cut_seed;
	state.mode = (enum fake_cut)mode;
	state.kernel = kernel;
	run = state.w->run(state.seed);
	if (!run)
		return false;
	state.k = FDIO_MIN(state.k, fake_record_events(state.w->device(run)));
	one_state(&state, run, ALL);
	state.w->free(run);
	return true;
}

static unsigned env_number(const char *name, unsigned fallback)
{
	const char *text = getenv(name);

	return text && *text ? (unsigned)strtoul(text, NULL, 10) : fallback;
}

/* Up to so many runs of the raw workload with mistake m, until a check fails. Half: small logs. */
static void mutated_runs(enum journal_mutation m, unsigned seed, unsigned runs)
{
	journal_mutation = m;
	passed = failed = 0;
	for (unsigned run = 0; run < runs && !failed; run++) {
		crash_small_log = run % 2;
		one_run(&crash_raw, seed + run, 4 * STATES_PER_RUN,
			m == JOURNAL_MUTATION_NO_REPLAY_FLUSH ? TWICE : OWN, NULL);
	}
	crash_small_log = false;
	journal_mutation = JOURNAL_MUTATION_NONE;
}

/* Each deliberate mistake must be noticed, and nothing where there is none. */
static int run_mutations(unsigned seed)
{
	unsigned right = 0, wrong = 0, only = journal_mutation;

	quiet = true;
	for (unsigned m = JOURNAL_MUTATION_NONE; m < JOURNAL_MUTATION_COUNT; m++) {
		bool ok;

		if (only && m != only)
			continue;
		mutated_runs((enum journal_mutation)m, seed,
			     m == JOURNAL_MUTATION_NONE ? MUTATION_RUNS / 12 : MUTATION_RUNS);
		ok = m == JOURNAL_MUTATION_NONE ? !failed : failed;
		printf("mutation %s: %s after %u states\n", mutation_names[m],
		       ok  ? m ? "caught" : "nothing found"
		       : m ? "MISSED"
			   : "FOUND SOMETHING",
		       passed + failed);
		fflush(stdout);
		*(ok ? &right : &wrong) += 1;
	}
	printf("%u passed, %u failed, 0 skipped\n", right, wrong);
	return wrong ? EXIT_FAILURE : EXIT_SUCCESS;
}

static bool set_mutation(void)
{
	const char *name = getenv("CRASH_MUTATE");

	if (!name || !*name)
		return true;
	for (unsigned m = 0; m < JOURNAL_MUTATION_COUNT; m++) {
		if (!strcmp(name, mutation_names[m])) {
			journal_mutation = (enum journal_mutation)m;
			return true;
		}
	}
	return false;
}

/*
 * How many states the kernel recovers too: wanted, or 0 if it cannot, which counts as skipped or,
 * where REQUIRE_ROOT_TESTS (of run-tests) says that it must work, as a failure.
 */
static unsigned kernel_states(unsigned wanted)
{
	const char *must = getenv("REQUIRE_ROOT_TESTS");
	char why[512] = "";

	if (!wanted || crash_kernel_possible(why, sizeof(why)))
		return wanted;
	if (must && !strcmp(must, "1")) {
		printf("FAIL the kernel's recovery: %s\n", why);
		failed++;
	} else {
		printf("skip the kernel's recovery: %s\n", why);
		skipped++;
	}
	return 0;
}

static void run_states(unsigned states, unsigned seed, unsigned kernel)
{
	struct sample sample = { .total = states, .count = FDIO_MIN(kernel, states) };
	const char *only = getenv("CRASH_ONLY");
	const struct crash_workload *w = only && *only ? find_workload(only, strlen(only)) : NULL;
	unsigned run = 0;

	for (unsigned done = 0; done < states; done += STATES_PER_RUN, run++)
		one_run(w ? w : workloads[run % ARRAY_SIZE(workloads)], seed + run,
			FDIO_MIN(states - done, (unsigned)STATES_PER_RUN), ALL, &sample);
}

int main(int argc, char **argv)
{
	bool is_short = env_number("CRASH_SHORT", 0) != 0;
	unsigned states = env_number("CRASH_STATES", is_short ? STATES_SHORT : STATES);
	unsigned most = is_short ? KERNEL_STATES_SHORT : KERNEL_STATES;
	unsigned kernel = env_number("CRASH_KERNEL", most), seed = env_number("CRASH_SEED", 1);
	const char *one = getenv("CRASH_STATE");

	fdio_log_set_level(0);
	crash_tiny = env_number("CRASH_TINY", 0) != 0;
	if (!set_mutation()) {
		fprintf(stderr, "CRASH_MUTATE: no such mutation\n");
		return 2;
	}
	if (argc > 1 && !strcmp(argv[1], "--mutations"))
		return run_mutations(seed);
	kernel = kernel_states(kernel);
	if (one && *one) {
		if (!reproduce(one, kernel > 0)) {
			fprintf(stderr, "CRASH_STATE: not a state that a failure printed\n");
			return 2;
		}
	} else {
		run_states(states, seed, kernel);
		for (unsigned n = env_number("CRASH_EXHAUSTIVE", is_short ? 1 : 3); n > 0; n--)
			run_exhaustive(seed + n - 1);
	}
	if (by_kernel)
		printf("%u states were recovered by the kernel too\n", by_kernel);
	if (torn_states)
		printf("%u states had a torn superblock\n", torn_states);
	printf("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
	return failed || !passed ? EXIT_FAILURE : EXIT_SUCCESS;
}
