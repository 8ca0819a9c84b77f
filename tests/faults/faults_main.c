/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Faults at every I/O and every allocation. A case runs the workload in a child process on a copy
 * of the same image, and the n-th read, write, FUA write, flush or discard fails with -EIO, or the
 * n-th allocation of the product fails, once or from then on. The cases are those of n = 1, 2, ...
 * until the workload ends without meeting its fault. What each case proves:
 *
 *   - the process neither crashes nor hangs, and each request is answered once;
 *   - no operation fails without a fault, none reports success falsely, and none changes a volume
 *     that has become read-only;
 *   - after a power cut at the end, and after the unmount, a mount without faults replays the log,
 *     what was acknowledged is there, and e2fsck finds nothing wrong;
 *   - if the volume has not become read-only, all is as the results of the operations say.
 *
 * Environment:
 *   FAULTS_SHORT=1      every 29th n, of the allocations every 116th
 *   FAULTS_EVERY=k      every k-th n
 *   FAULTS_FSCK=k       e2fsck after every k-th case (8)
 *   FAULTS_JOBS=n       so many cases at once (the number of processors)
 *   FAULTS_KIND=kind    that kind only
 *   FAULTS_CASE=kind:n:once|on:shape  one case again, as a failure prints it
 */
#include "faults/faults.h"

#include "base/counters.h"
#include "base/epoch.h"
#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_MET = 0, EXIT_FAILED = 1, EXIT_NOT_MET = 42 }; /* of a child: its fault was met */
enum { SHORT_EVERY = 29, LIMIT_S = 60, MAX_JOBS = 16, MAX_FAILURES = 40 };

static const char *const kind_names[NR_KINDS] = { "read",  "write",   "fua",
						  "flush", "discard", "alloc" };

static const struct shape {
	const char *mkfs;
	uint32_t sector_bytes;
	bool discard;
	enum ext4_errors_policy errors;
} shapes[] = {
	{ "-t ext4 -b 1024 -O metadata_csum,64bit,^resize_inode -N 256 -J size=1 -E "
	  "nodiscard,lazy_itable_init=0",
	  512, false, EXT4_ERRORS_CONTINUE },
	{ "-t ext4 -b 4096 -O ^metadata_csum,^resize_inode,orphan_file -N 256 -J size=4 -E "
	  "nodiscard,lazy_itable_init=0",
	  4096, true, EXT4_ERRORS_RO },
};

/*
 * Counted over all cases, in memory that the children share. grown: writes into new blocks that a
 * loop thread finished; grown_again: those that it handed to a worker after the data.
 */
struct totals {
	uint64_t hits[NR_KINDS], runs[NR_KINDS], fscks, mounts, grown, grown_again, cut_short;
};
static struct totals *totals;
static struct run *runs[ARRAY_SIZE(shapes)]; /* the state in which each case begins */
static unsigned fsck_every, every_nth;

static void case_text(const struct fault_case *test, char *buf, size_t len)
{
	snprintf(buf, len, "%s:%u:%s:%u", kind_names[test->kind], test->n,
		 test->from_on ? "on" : "once", test->shape);
}

void fail(struct run *run, const char *fmt, ...)
{
	char name[64], why[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	case_text(&run->test, name, sizeof(name));
	printf("FAIL %s, step %u: %s; again with FAULTS_CASE=%s\n", run->stage, run->step, why,
	       name);
	fflush(stdout);
	_exit(EXIT_FAILED);
}

/* ---- the volume ---- */
uint64_t fault_hits(struct run *run) { return fake_fault_hits(run->fake) + alloc_failed(); }

/* Makes the fault of the case happen. */
static void plant_fault(struct run *run)
{
	static const unsigned kinds[NR_KINDS] = { FAKE_READ,  FAKE_WRITE,   FAKE_WRITE,
						  FAKE_FLUSH, FAKE_DISCARD, 0 };
	struct fake_fault fault = { .kinds = kinds[run->test.kind],
				    .skip = run->test.n - 1,
				    .repeat = run->test.from_on ? 0 : 1,
				    .action = FAKE_ERROR,
				    .err = -EIO,
				    .fua_only = run->test.kind == KIND_FUA,
				    .plain_only = run->test.kind == KIND_WRITE };

	if (!run->test.n)
		return;
	if (run->test.kind == KIND_ALLOC)
		alloc_plan(run->test.n, run->test.from_on);
	else
		fake_fault_add(run->fake, &fault);
}

static int engine_start(struct run *run)
{
	struct dio_config config = { .dev = fake_dev(run->fake),
				     .vol = run->vol,
				     .nr_cpus = 1,
				     .segs_per_loop = 4,
				     .strict = true };

	run->workers = work_queue_new("worker", 0);
	run->syncers = run->workers ? work_queue_new("syncer", 0) : NULL;
	if (!run->syncers)
		return -ENOMEM;
	config.workers = run->workers;
	config.syncers = run->syncers;
	return dio_new(&config, &run->dio);
}

static void engine_stop(struct run *run)
{
	while (work_queue_run_one(run->workers) || work_queue_run_one(run->syncers))
		;
	dio_drain(run->dio);
}

static void engine_free(struct run *run)
{
	if (run->dio)
		dio_free(run->dio);
	work_queue_free(run->workers);
	work_queue_free(run->syncers);
	run->dio = NULL;
	run->workers = run->syncers = NULL;
}

int vol_start(struct run *run)
{
	const struct shape *shape = &shapes[run->test.shape];
	struct ext4_options options = { .acl = true,
					.user_xattr = true,
					.commit_interval_s = 3600,
					.cache_bytes = 1 << 20,
					.errors = shape->errors,
					.discard = shape->discard };
	const char *why = NULL;
	char msg[300] = "";
	int err = ext4_vol_open(fake_dev(run->fake), &options, &run->vol, &why, FDIO_REASON(msg));

	__atomic_fetch_add(&totals->mounts, 1, __ATOMIC_RELAXED);
	if (err) {
		run->vol = NULL;
		if (!fault_hits(run))
			fail(run, "mount: %s: %s", strerror(-err), msg);
		return err;
	}
	if (why && !fault_hits(run))
		fail(run, "mount: read-only: %s", why);
	if (ext4_vol_read_only(run->vol))
		run->aborted = true;
	err = engine_start(run);
	if (err && !fault_hits(run))
		fail(run, "the engine does not start: %s", strerror(-err));
	if (err) {
		engine_free(run);
		if (ext4_vol_close(run->vol))
			run->aborted = true;
		run->vol = NULL;
	}
	return err;
}

int vol_stop(struct run *run)
{
	int err;

	engine_stop(run);
	if (ext4_vol_read_only(run->vol))
		run->aborted = true;
	err = ext4_vol_close(run->vol);
	engine_free(run);
	run->vol = NULL;
	epoch_drain();
	if (err && !fault_hits(run))
		fail(run, "unmount: %s, and there was no fault", strerror(-err));
	if (err)
		run->aborted = true;
	return err;
}

/* ---- one case ---- */
/* Mounts fake without faults, verifies the contents (full: see verify), and frees fake. */
static void check_image(struct run *run, struct fake_dev *fake, bool full, bool fsck,
			const char *stage)
{
	struct fake_dev *before = run->fake;
	bool aborted = run->aborted;

	run->stage = stage;
	run->fake = fake;
	if (vol_start(run) || run->aborted != aborted)
		fail(run, "the mount after the fault fails");
	verify(run, full);
	if (vol_stop(run))
		fail(run, "the unmount after the fault fails");
	if (fsck) {
		__atomic_fetch_add(&totals->fscks, 1, __ATOMIC_RELAXED);
		if (fake_e2fsck(fake))
			fail(run, "e2fsck finds something");
	}
	if (fake_stats(fake).violations)
		fail(run, "a request outside the contract of the device");
	fake_free(fake);
	run->fake = before;
}

/* Mounts and does a part of the workload; the volume stays mounted. */
static void run_part(struct run *run, void (*work)(struct run *), const char *stage)
{
	run->stage = stage;
	if (vol_start(run))
		run->aborted = true;
	else
		work(run);
}

static void check_answers(struct run *run)
{
	for (unsigned k = 0; k < run->nr_reqs; k++)
		if (run->req[k].done != 1)
			fail(run, "a request has %u answers", run->req[k].done);
}

/*
 * Counts seconds by a timer instead of looking at the clock: a process that was stopped for a while
 * gets one signal for all of that time.
 */
static void second_passed(int sig)
{
	static volatile unsigned seconds;

	if (++seconds < LIMIT_S)
		return;
	signal(sig, SIG_DFL);
	raise(sig);
}

static void limit_time(void)
{
	struct itimerval second = { .it_interval.tv_sec = 1, .it_value.tv_sec = 1 };
	struct sigaction each = { .sa_handler = second_passed, .sa_flags = SA_RESTART };

	sigaction(SIGALRM, &each, NULL);
	setitimer(ITIMER_REAL, &second, NULL);
}

/* In the child; does not return. */
static void run_case(const struct fault_case *test)
{
	struct run *run = runs[test->shape];
	struct fake_dev *cut = NULL;
	bool fsck = (test->n - 1) / every_nth % fsck_every == 0, alive;
	uint64_t hits, grown, grown_again;

	limit_time();
	run->test = *test;
	run->fake = fake_clone(run->fake);
	grown = fdio_counter_read(COUNTER_dio_grow);
	grown_again = fdio_counter_read(COUNTER_dio_grow_again);
	plant_fault(run);
	run_part(run, work_first, "the first part");
	if (run->vol)
		vol_stop(run);
	if (!run->aborted)
		run_part(run, work_second, "the second part");
	hits = fault_hits(run);
	run->stage = "the end";
	if (run->vol) {
		alloc_hold(true); /* the test's own device must not fail */
		cut = fake_power_cut(run->fake, FAKE_CUT_DROP, 0);
		alloc_hold(false);
		vol_stop(run);
		hits = fault_hits(run);
	}
	check_answers(run);
	grown = fdio_counter_read(COUNTER_dio_grow) - grown;
	grown_again = fdio_counter_read(COUNTER_dio_grow_again) - grown_again;
	if (!hits && !grown)
		fail(run, "no write was finished by a loop thread: the workload must reach that");
	alive = !run->aborted;
	if (fake_stats(run->fake).violations)
		fail(run, "a request outside the contract of the device");
	if (test->kind == KIND_ALLOC)
		alloc_plan(0, false);
	if (cut)
		check_image(run, cut, false, fsck, "after a power cut");
	cut = fake_power_cut(run->fake, alive ? FAKE_CUT_DROP : FAKE_CUT_KEEP, 0);
	check_image(run, cut, alive, fsck, "after the unmount");
	__atomic_fetch_add(&totals->hits[test->kind], hits, __ATOMIC_RELAXED);
	__atomic_fetch_add(&totals->runs[test->kind], 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&totals->grown, grown, __ATOMIC_RELAXED);
	__atomic_fetch_add(&totals->grown_again, grown_again, __ATOMIC_RELAXED);
	__atomic_fetch_add(&totals->cut_short, run->cut_short, __ATOMIC_RELAXED);
	_exit(hits ? EXIT_MET : EXIT_NOT_MET);
}

/*
 * Makes the image and the model with which every case of a shape begins: what work_before leaves
 * when the power goes.
 */
static void prepare(unsigned shape)
{
	struct run *run = calloc(1, sizeof(*run));
	struct fake_dev *fake;

	FDIO_ASSERT(run);
	run->buf = aligned_alloc(4096, FILE_MAX);
	FDIO_ASSERT(run->buf);
	run->test.shape = shape;
	run->stage = "the preparation";
	run->fake = fake_mkfs_sectors(shape ? 24 << 20 : 10 << 20, shapes[shape].sector_bytes,
				  shapes[shape].mkfs);
	if (!run->fake)
		exit(EXIT_FAILURE);
	if (vol_start(run))
		fail(run, "mount");
	work_before(run);
	engine_stop(run);
	fake = fake_power_cut(run->fake, FAKE_CUT_DROP, 0);
	/* What was not synced is lost. */
	struct name *never = name_of(run, NULL, "never");
	never->body = NULL;
	never->acked = never->version;
	ext4_vol_abandon(run->vol);
	engine_free(run);
	run->vol = NULL;
	epoch_drain();
	fake_free(run->fake);
	run->fake = fake;
	memset(run->req, 0, sizeof(run->req));
	run->nr_reqs = 0;
	run->step = 0;
	runs[shape] = run;
}

/* ---- the loop ---- */
struct job { pid_t pid; struct fault_case test; };
static struct job job[MAX_JOBS];
static unsigned nr_jobs, max_jobs, passed, failed;

static unsigned env_number(const char *name, unsigned fallback)
{
	const char *text = getenv(name);

	return text && *text ? (unsigned)strtoul(text, NULL, 10) : fallback;
}

static void launch(const struct fault_case *test)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	FDIO_ASSERT(pid >= 0);
	if (!pid)
		run_case(test);
	job[nr_jobs++] = (struct job){ .pid = pid, .test = *test };
}

/* Waits for one child; true: its fault was met. */
static bool reap(void)
{
	char name[64];
	int status;
	unsigned k;
	pid_t pid = wait(&status);

	for (k = 0; k < nr_jobs && job[k].pid != pid; k++)
		;
	FDIO_ASSERT(k < nr_jobs);
	case_text(&job[k].test, name, sizeof(name));
	job[k] = job[--nr_jobs];
	if (WIFEXITED(status) &&
	    (WEXITSTATUS(status) == EXIT_MET || WEXITSTATUS(status) == EXIT_NOT_MET)) {
		passed++;
		return WEXITSTATUS(status) == EXIT_MET;
	}
	failed++;
	if (WIFSIGNALED(status))
		printf("FAIL %s; again with FAULTS_CASE=%s\n",
		       WTERMSIG(status) == SIGALRM ? "it hangs" : strsignal(WTERMSIG(status)),
		       name);
	else if (WEXITSTATUS(status) != EXIT_FAILED)
		printf("FAIL exit code %d; again with FAULTS_CASE=%s\n", WEXITSTATUS(status), name);
	return true;
}

/* The cases of n = 1, 1 + every, ... until one has not met its fault. */
static void run_loop(enum fault_kind kind, bool from_on, unsigned shape, unsigned every)
{
	unsigned before = passed + failed;
	bool met = true;

	for (unsigned n = 1; met && failed < MAX_FAILURES; n += every) {
		struct fault_case test = {
			.kind = kind, .n = n, .from_on = from_on, .shape = shape
		};

		launch(&test);
		if (nr_jobs >= max_jobs)
			met = reap();
	}
	while (nr_jobs)
		reap();
	printf("%s, %s, file system %u: %u runs\n", kind_names[kind],
	       from_on ? "from then on" : "once", shape, passed + failed - before);
}

/* All cases have run: together they must have reached what the workload is made to reach. */
static void check_reached(void)
{
	if (totals->grown_again && totals->cut_short)
		return;
	failed++;
	printf("FAIL no write was handed over by a loop thread, or no truncate failed half-way: "
	       "the workload must reach both\n");
}

/* The case that FAULTS_CASE names; false if the text is not one. */
static bool run_one(const char *text)
{
	struct fault_case test = { 0 };
	char kind[16], mode[8];

	if (sscanf(text, "%15[a-z]:%u:%7[a-z]:%u", kind, &test.n, mode, &test.shape) != 4 ||
	    test.shape >= ARRAY_SIZE(shapes))
		return false;
	while (test.kind < NR_KINDS && strcmp(kind, kind_names[test.kind]))
		test.kind++;
	test.from_on = !strcmp(mode, "on");
	if (test.kind == NR_KINDS)
		return false;
	fdio_log_set_level(FDIO_LOG_INFO);
	fsck_every = 1;
	launch(&test);
	reap();
	return true;
}

static void report(void)
{
	uint64_t all = 0;

	for (unsigned k = 0; k < NR_KINDS; k++) {
		printf("%s %llu in %llu runs, ",
		       k == KIND_ALLOC ? "allocations failed:" : kind_names[k],
		       (unsigned long long)totals->hits[k], (unsigned long long)totals->runs[k]);
		all += totals->hits[k];
	}
	printf("%llu faults in all; %llu mounts, %llu times e2fsck\n", (unsigned long long)all,
	       (unsigned long long)totals->mounts, (unsigned long long)totals->fscks);
	printf("%llu writes into new blocks on the loop thread, %llu of them handed to a worker "
	       "after the data; %llu truncates that failed half-way\n",
	       (unsigned long long)(totals->grown + totals->grown_again),
	       (unsigned long long)totals->grown_again, (unsigned long long)totals->cut_short);
	printf("%u passed, %u failed, 0 skipped\n", passed, failed);
}

/* All cases; only: of that kind, unless it is NULL. */
static void run_all(const char *only, bool is_short)
{
	for (unsigned shape = 0; shape < ARRAY_SIZE(shapes); shape++)
		for (unsigned k = 0; k < NR_KINDS; k++) {
			bool allocations = k == KIND_ALLOC;
			unsigned every = allocations && is_short ? 4 * every_nth : every_nth;

			if (only && strcmp(only, kind_names[k]))
				continue;
			run_loop((enum fault_kind)k, false, shape, every);
			run_loop((enum fault_kind)k, true, shape, every);
		}
	if (every_nth == 1 && !only)
		check_reached();
}

int main(void)
{
	const char *text = getenv("FAULTS_CASE"), *only = getenv("FAULTS_KIND");
	bool is_short = env_number("FAULTS_SHORT", 0) != 0;

	fdio_log_set_level(0);
	every_nth = FDIO_MAX(env_number("FAULTS_EVERY", is_short ? SHORT_EVERY : 1), 1u);
	fsck_every = FDIO_MAX(env_number("FAULTS_FSCK", 8), 1u);
	max_jobs = FDIO_MIN(env_number("FAULTS_JOBS", (unsigned)sysconf(_SC_NPROCESSORS_ONLN)),
			    (unsigned)MAX_JOBS);
	max_jobs = FDIO_MAX(max_jobs, 1u);
	totals = mmap(NULL, sizeof(*totals), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	FDIO_ASSERT(totals != MAP_FAILED);
	for (unsigned s = 0; s < ARRAY_SIZE(shapes); s++)
		prepare(s);
	if (text && *text) {
		if (!run_one(text)) {
			fprintf(stderr, "FAULTS_CASE: not a case that a failure printed\n");
			return 2;
		}
	} else {
		run_all(only, is_short);
	}
	report();
	return failed || !passed ? EXIT_FAILURE : EXIT_SUCCESS;
}
