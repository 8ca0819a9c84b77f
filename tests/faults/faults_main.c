/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Faults at every I/O and every allocation. The workload runs again and again, each time in a child process on a copy of the same
 * image: the n-th read, write, FUA write, flush or discard fails with -EIO, or the n-th allocation of the product fails, once or
 * from then on, n = 1, 2, ... until a run ends without having met its fault. After each: the process has neither crashed nor hung, each
 * request was answered once, each error had a reason and was neither swallowed nor followed by changes on a volume that is read-only;
 * and after a power cut at the end, and after an unmount, a mount without faults replays the log, e2fsck finds nothing and what was
 * acknowledged is there. As long as the journal lives, everything is as the results of the operations say.
 *
 * FAULTS_SHORT=1      every 29th n, of the allocations every 116th
 * FAULTS_EVERY=k      every k-th n
 * FAULTS_FSCK=k       e2fsck after every k-th case (8)
 * FAULTS_JOBS=n       cases side by side (the processors)
 * FAULTS_KIND=kind    that kind only
 * FAULTS_CASE=kind:n:once|on:shape  one case again, as a failure prints it
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

enum { EXIT_MET = 0, EXIT_FAILED = 1, EXIT_NOT_MET = 42, SHORT_EVERY = 29, LIMIT = 60, MAX_JOBS = 16, MAX_FAILURES = 40 };

static const char *const kind_names[NR_KINDS] = { "read", "write", "fua", "flush", "discard", "alloc" };

static const struct shape { const char *mkfs; uint32_t lbs; bool discard; enum x4_errors_policy errors; } shapes[] = {
	{ "-t ext4 -b 1024 -O metadata_csum,64bit,^resize_inode -N 256 -J size=1 -E nodiscard,lazy_itable_init=0", 512, false,
	  X4_ERRORS_CONTINUE },
	{ "-t ext4 -b 4096 -O ^metadata_csum,^resize_inode,orphan_file -N 256 -J size=4 -E nodiscard,lazy_itable_init=0", 4096, true,
	  X4_ERRORS_RO },
};

/* Counted over all cases, in memory that the children share. */
struct totals { uint64_t hits[NR_KINDS], runs[NR_KINDS], fscks, mounts, grown, grown_again, cut_short; };
static struct totals *totals;
static struct run *runs[ARRAY_SIZE(shapes)]; /* the state in which each case begins */
static unsigned fsck_every, every_nth;

static void spell(const struct fault_case *c, char *buf, size_t len)
{
	snprintf(buf, len, "%s:%u:%s:%u", kind_names[c->kind], c->n, c->from_on ? "on" : "once", c->shape);
}

void fail(struct run *r, const char *fmt, ...)
{
	char name[64], why[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	spell(&r->c, name, sizeof(name));
	printf("FAIL %s, step %u: %s; again with FAULTS_CASE=%s\n", r->stage, r->step, why, name);
	fflush(stdout);
	_exit(EXIT_FAILED);
}

/* ---- the volume ---- */
uint64_t fault_hits(struct run *r) { return fake_fault_hits(r->f) + alloc_failed(); }

static void plan(struct run *r)
{
	static const unsigned kinds[NR_KINDS] = { FAKE_READ, FAKE_WRITE, FAKE_WRITE, FAKE_FLUSH, FAKE_DISCARD, 0 };
	struct fake_fault f = { .kinds = kinds[r->c.kind], .skip = r->c.n - 1, .repeat = r->c.from_on ? 0 : 1, .action = FAKE_ERROR,
		.err = -EIO, .fua_only = r->c.kind == K_FUA, .plain_only = r->c.kind == K_WRITE };

	if (!r->c.n)
		return;
	if (r->c.kind == K_ALLOC)
		alloc_plan(r->c.n, r->c.from_on);
	else
		fake_fault_add(r->f, &f);
}

static int engine_start(struct run *r)
{
	struct dio_config c = { .dev = fake_dev(r->f), .vol = r->v, .nr_cpus = 1, .segs_per_loop = 4, .strict = true };

	r->workers = wq_new("worker", 0);
	r->syncers = r->workers ? wq_new("syncer", 0) : NULL;
	if (!r->syncers)
		return -ENOMEM;
	c.workers = r->workers;
	c.syncers = r->syncers;
	return dio_new(&c, &r->d);
}

static void engine_stop(struct run *r)
{
	while (wq_run_one(r->workers) || wq_run_one(r->syncers))
		;
	dio_drain(r->d);
}

static void engine_free(struct run *r)
{
	if (r->d)
		dio_free(r->d);
	wq_free(r->workers);
	wq_free(r->syncers);
	r->d = NULL;
	r->workers = r->syncers = NULL;
}

int vol_start(struct run *r)
{
	const struct shape *s = &shapes[r->c.shape];
	struct x4_options opt = { .acl = true, .user_xattr = true, .commit_interval_s = 3600, .cache_bytes = 1 << 20,
		.errors = s->errors, .discard = s->discard };
	const char *why = NULL;
	char msg[300] = "";
	int err = x4_vol_open(fake_dev(r->f), &opt, &r->v, &why, FDIO_REASON(msg));

	__atomic_fetch_add(&totals->mounts, 1, __ATOMIC_RELAXED);
	if (err) {
		r->v = NULL;
		if (!fault_hits(r))
			fail(r, "mount: %s: %s", strerror(-err), msg);
		return err;
	}
	if (why && !fault_hits(r))
		fail(r, "mount: read-only: %s", why);
	if (x4_vol_read_only(r->v))
		r->aborted = true;
	err = engine_start(r);
	if (err && !fault_hits(r))
		fail(r, "the engine does not start: %s", strerror(-err));
	if (err) {
		engine_free(r);
		if (x4_vol_close(r->v))
			r->aborted = true;
		r->v = NULL;
	}
	return err;
}

int vol_stop(struct run *r)
{
	int err;

	engine_stop(r);
	if (x4_vol_read_only(r->v))
		r->aborted = true;
	err = x4_vol_close(r->v);
	engine_free(r);
	r->v = NULL;
	epoch_drain();
	if (err && !fault_hits(r))
		fail(r, "unmount: %s, and there was no fault", strerror(-err));
	if (err)
		r->aborted = true;
	return err;
}

/* ---- one case ---- */
/* Mounts f without faults: what must be there is. Takes f. */
static void look(struct run *r, struct fake_dev *f, bool full, bool fsck, const char *stage)
{
	struct fake_dev *mine = r->f;
	bool aborted = r->aborted;

	r->stage = stage;
	r->f = f;
	if (vol_start(r) || r->aborted != aborted)
		fail(r, "the mount after the fault fails");
	verify(r, full);
	if (vol_stop(r))
		fail(r, "the unmount after the fault fails");
	if (fsck) {
		__atomic_fetch_add(&totals->fscks, 1, __ATOMIC_RELAXED);
		if (fake_e2fsck(f))
			fail(r, "e2fsck finds something");
	}
	if (fake_stats(f).violations)
		fail(r, "a request outside the contract of the device");
	fake_free(f);
	r->f = mine;
}

/* Faults off for what follows; a volume that lives must be as the model says at once. */
static void part(struct run *r, void (*work)(struct run *), const char *stage)
{
	r->stage = stage;
	if (vol_start(r))
		r->aborted = true;
	else
		work(r);
}

static void answers(struct run *r)
{
	for (unsigned k = 0; k < r->nr_reqs; k++)
		if (r->req[k].done != 1)
			fail(r, "a request has %u answers", r->req[k].done);
}

/* Seconds in which the process could run: one that is frozen for a while does not hang. */
static void tick(int sig)
{
	static volatile unsigned seconds;

	if (++seconds < LIMIT)
		return;
	signal(sig, SIG_DFL);
	raise(sig);
}

static void limit_time(void)
{
	struct itimerval second = { .it_interval.tv_sec = 1, .it_value.tv_sec = 1 };
	struct sigaction sa = { .sa_handler = tick, .sa_flags = SA_RESTART };

	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &second, NULL);
}

static void run_case(const struct fault_case *c)
{
	struct run *r = runs[c->shape];
	struct fake_dev *cut = NULL;
	bool fsck = (c->n - 1) / every_nth % fsck_every == 0, alive;
	uint64_t hits, grown, grown_again;

	limit_time();
	r->c = *c;
	r->f = fake_clone(r->f);
	grown = fdio_counter_read(CTR_dio_grow);
	grown_again = fdio_counter_read(CTR_dio_grow_again);
	plan(r);
	part(r, work_first, "the first part");
	if (r->v)
		vol_stop(r);
	if (!r->aborted)
		part(r, work_second, "the second part");
	hits = fault_hits(r);
	r->stage = "the end";
	if (r->v) {
		alloc_hold(true); /* the device of the test is no part of what may fail */
		cut = fake_power_cut(r->f, FAKE_CUT_DROP, 0);
		alloc_hold(false);
		vol_stop(r);
		hits = fault_hits(r);
	}
	answers(r);
	grown = fdio_counter_read(CTR_dio_grow) - grown;
	grown_again = fdio_counter_read(CTR_dio_grow_again) - grown_again;
	if (!hits && !grown)
		fail(r, "no write of the loop thread's own: the workload is not what it was");
	alive = !r->aborted;
	if (fake_stats(r->f).violations)
		fail(r, "a request outside the contract of the device");
	if (c->kind == K_ALLOC)
		alloc_plan(0, false);
	if (cut)
		look(r, cut, false, fsck, "after a power cut");
	look(r, fake_power_cut(r->f, alive ? FAKE_CUT_DROP : FAKE_CUT_KEEP, 0), alive, fsck, "after the unmount");
	__atomic_fetch_add(&totals->hits[c->kind], hits, __ATOMIC_RELAXED);
	__atomic_fetch_add(&totals->runs[c->kind], 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&totals->grown, grown, __ATOMIC_RELAXED);
	__atomic_fetch_add(&totals->grown_again, grown_again, __ATOMIC_RELAXED);
	__atomic_fetch_add(&totals->cut_short, r->cut_short, __ATOMIC_RELAXED);
	_exit(hits ? EXIT_MET : EXIT_NOT_MET);
}

/* The image and the model in which every case of a shape begins: synced and replayed, and something in the log. */
static void prepare(unsigned shape)
{
	struct run *r = calloc(1, sizeof(*r));
	struct fake_dev *f;

	FDIO_ASSERT(r);
	r->buf = aligned_alloc(4096, FILE_MAX);
	FDIO_ASSERT(r->buf);
	r->c.shape = shape;
	r->stage = "the preparation";
	r->f = fake_mkfs_lbs(shape ? 24 << 20 : 10 << 20, shapes[shape].lbs, shapes[shape].mkfs);
	if (!r->f)
		exit(EXIT_FAILURE);
	if (vol_start(r))
		fail(r, "mount");
	work_before(r);
	engine_stop(r);
	f = fake_power_cut(r->f, FAKE_CUT_DROP, 0);
	/* What was not synced is lost, and the model knows. */
	struct name *never = name_of(r, NULL, "never");
	never->b = NULL;
	never->acked = never->version;
	x4_vol_abandon(r->v);
	engine_free(r);
	r->v = NULL;
	epoch_drain();
	fake_free(r->f);
	r->f = f;
	memset(r->req, 0, sizeof(r->req));
	r->nr_reqs = 0;
	r->step = 0;
	runs[shape] = r;
}

/* ---- the loop ---- */
struct job { pid_t pid; struct fault_case c; };
static struct job job[MAX_JOBS];
static unsigned nr_jobs, max_jobs, passed, failed;

static unsigned env_number(const char *name, unsigned fallback)
{
	const char *text = getenv(name);

	return text && *text ? (unsigned)strtoul(text, NULL, 10) : fallback;
}

static void launch(const struct fault_case *c)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	FDIO_ASSERT(pid >= 0);
	if (!pid)
		run_case(c);
	job[nr_jobs++] = (struct job){ .pid = pid, .c = *c };
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
	spell(&job[k].c, name, sizeof(name));
	job[k] = job[--nr_jobs];
	if (WIFEXITED(status) && (WEXITSTATUS(status) == EXIT_MET || WEXITSTATUS(status) == EXIT_NOT_MET)) {
		passed++;
		return WEXITSTATUS(status) == EXIT_MET;
	}
	failed++;
	if (WIFSIGNALED(status))
		printf("FAIL %s; again with FAULTS_CASE=%s\n", WTERMSIG(status) == SIGALRM ? "it hangs" : strsignal(WTERMSIG(status)), name);
	else if (WEXITSTATUS(status) != EXIT_FAILED)
		printf("FAIL exit code %d; again with FAULTS_CASE=%s\n", WEXITSTATUS(status), name);
	return true;
}

static void loop(enum fault_kind kind, bool from_on, unsigned shape, unsigned every)
{
	unsigned before = passed + failed;
	bool met = true;

	for (unsigned n = 1; met && failed < MAX_FAILURES; n += every) {
		struct fault_case c = { .kind = kind, .n = n, .from_on = from_on, .shape = shape };

		launch(&c);
		if (nr_jobs >= max_jobs)
			met = reap();
	}
	while (nr_jobs)
		reap();
	printf("%s, %s, file system %u: %u runs\n", kind_names[kind], from_on ? "from then on" : "once", shape, passed + failed - before);
}

/* Every n of every kind has been tried: what the workload is made to reach has been reached. */
static void reached(void)
{
	if (totals->grown_again && totals->cut_short)
		return;
	failed++;
	printf("FAIL no write handed over by the loop thread, or no truncate that failed half-way: the workload is not what it was\n");
}

static bool one(const char *text)
{
	struct fault_case c = { 0 };
	char kind[16], mode[8];

	if (sscanf(text, "%15[a-z]:%u:%7[a-z]:%u", kind, &c.n, mode, &c.shape) != 4 || c.shape >= ARRAY_SIZE(shapes))
		return false;
	while (c.kind < NR_KINDS && strcmp(kind, kind_names[c.kind]))
		c.kind++;
	c.from_on = !strcmp(mode, "on");
	if (c.kind == NR_KINDS)
		return false;
	fdio_log_set_level(FDIO_LOG_INFO);
	fsck_every = 1;
	launch(&c);
	reap();
	return true;
}

static void report(void)
{
	uint64_t all = 0;

	for (unsigned k = 0; k < NR_KINDS; k++) {
		printf("%s %llu in %llu runs, ", k == K_ALLOC ? "allocations failed:" : kind_names[k], (unsigned long long)totals->hits[k],
		       (unsigned long long)totals->runs[k]);
		all += totals->hits[k];
	}
	printf("%llu faults in all; %llu mounts, %llu times e2fsck\n", (unsigned long long)all, (unsigned long long)totals->mounts,
	       (unsigned long long)totals->fscks);
	printf("%llu writes into new blocks on the loop thread, %llu of them handed to a worker after the data; %llu truncates that failed "
	       "half-way\n", (unsigned long long)(totals->grown + totals->grown_again), (unsigned long long)totals->grown_again,
	       (unsigned long long)totals->cut_short);
	printf("%u passed, %u failed, 0 skipped\n", passed, failed);
}

int main(void)
{
	const char *text = getenv("FAULTS_CASE"), *only = getenv("FAULTS_KIND");
	bool is_short = env_number("FAULTS_SHORT", 0) != 0;

	every_nth = env_number("FAULTS_EVERY", is_short ? SHORT_EVERY : 1);

	fdio_log_set_level(0);
	every_nth = FDIO_MAX(every_nth, 1u);
	fsck_every = FDIO_MAX(env_number("FAULTS_FSCK", 8), 1u);
	max_jobs = FDIO_MIN(env_number("FAULTS_JOBS", (unsigned)sysconf(_SC_NPROCESSORS_ONLN)), (unsigned)MAX_JOBS);
	max_jobs = FDIO_MAX(max_jobs, 1u);
	totals = mmap(NULL, sizeof(*totals), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	FDIO_ASSERT(totals != MAP_FAILED);
	for (unsigned s = 0; s < ARRAY_SIZE(shapes); s++)
		prepare(s);
	if (text && *text) {
		if (!one(text)) {
			fprintf(stderr, "FAULTS_CASE: not a case that a failure printed\n");
			return 2;
		}
	} else {
		for (unsigned s = 0; s < ARRAY_SIZE(shapes); s++)
			for (unsigned k = 0; k < NR_KINDS; k++)
				for (unsigned on = 0; on < 2 && (!only || !strcmp(only, kind_names[k])); on++)
					loop((enum fault_kind)k, on, s, k == K_ALLOC && is_short ? 4 * every_nth : every_nth);
		if (every_nth == 1 && !only)
			reached();
	}
	report();
	return failed || !passed ? EXIT_FAILURE : EXIT_SUCCESS;
}
