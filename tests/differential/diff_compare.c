/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs one step on both sides and compares: the result and the error number, the data that was
 * read, and, for each file that the step names and the directory it is in, the attributes
 * afterwards and which times changed. ext4's clock has ticks of some milliseconds, and the two
 * sides run one after the other, so "now" is a window of time, and a time that was set just before
 * may look unchanged.
 *
 * Differences that FUSE makes unavoidable are listed in diff_allowed; any other fails the test.
 */
#include "differential/diff.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SLACK_NS 25000000LL
#define NS 1000000000LL
#define NOBJ 6

struct timespec diff_run_start;

struct diff_allowed diff_allowed[] = {
	[ALLOW_FALLOC] = { "fallocate-modes",
			   "collapse, insert, unshare and write-zeroes do not reach the daemon",
			   0 },
	[ALLOW_ATIME_CACHE] = { "atime-of-cached-reads",
				"the daemon does not see reads that the page cache answers", 0 },
	[ALLOW_FIFO_TIMES] = { "times-of-fifos",
			       "the daemon does not see reads and writes of a FIFO", 0 },
	[ALLOW_NOWAIT] = { "rwf-flags",
			   "RWF_NOWAIT, RWF_ATOMIC and RWF_DONTCACHE are refused by FUSE", 0 },
	[ALLOW_TREE_BLOCKS] = { "tree-blocks",
				"files of many extents may need another block for their map", 0 },
	[ALLOW_IOCTL_SPECIAL] = { "flags-of-special-files",
				  "if the caller is not the owner, FUSE checks EPERM before ENOTTY",
				  0 },
	[ALLOW_DIR_SEEK] = { "lseek-on-directories",
			     "to the end, data or holes: not passed on by FUSE", 0 },
	[ALLOW_FLAGS] = { "inode-flags",
			  "data journalling, block maps and casefold are not offered", 0 },
	[ALLOW_DIO_HOLE] = { "unaligned-direct-reads",
			     "refused also over a hole, and served up to an aligned end", 0 },
	[ALLOW_DIO_UNALIGNED] = { "unaligned-direct-writes",
				  "refused by both, but ext4 may have allocated blocks by then",
				  0 },
	[ALLOW_IMMUTABLE_ORDER] = { "immutable-order",
				    "checks that the kernel makes come before the EPERM for a flag "
				    "that only the daemon knows",
				    0 },
	[ALLOW_SEEK_FAR] = { "lseek-far",
			     "beyond the largest file: FUSE lets the position go there", 0 },
	[ALLOW_FAILED_TIMES] = { "times-of-failed-calls",
				 "ext4 changes times before it finds the error, FUSE finds it "
				 "first",
				 0 },
	[ALLOW_APPEND_FLAG] = { "o-append-of-append-only", "FUSE lets a descriptor lose O_APPEND",
				0 },
};
const unsigned diff_nr_allowed = ALLOW_NR;

bool diff_allow(unsigned which)
{
	diff_allowed[which].met++;
	return true;
}

/* ------------------------------------------------------------------ other users */

static void become(const struct diff_cred *c)
{
	gid_t groups[2] = { c->groups[0], c->groups[1] };

	/*
	 * The system calls themselves, because the C library's functions would change all threads.
	 * The saved ids stay root's, so that the process can become root again.
	 */
	if (syscall(SYS_setgroups, c->nr_groups, groups) ||
	    syscall(SYS_setresgid, c->gid, c->gid, 0) ||
	    syscall(SYS_setresuid, c->uid, c->uid, 0)) {
		perror("becoming another user");
		exit(2);
	}
}

static void become_root(void)
{
	gid_t none = 0;

	if (syscall(SYS_setresuid, 0, 0, 0) || syscall(SYS_setresgid, 0, 0, 0) ||
	    syscall(SYS_setgroups, 0, &none)) {
		perror("becoming root again");
		exit(2);
	}
}

static void run_on(struct side *side, const struct step *step, struct outcome *outcome)
{
	struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY },
		      r = { step->fsize_limit, RLIM_INFINITY };
	mode_t old = umask((mode_t)step->umask);

	memset(outcome, 0, offsetof(struct outcome, text) + 1);
	if (step->fsize_limit)
		setrlimit(RLIMIT_FSIZE, &r);
	if (step->cred)
		become(&diff_creds[step->cred]);
	errno = 0;
	step->op->run(side, step, outcome);
	if (step->cred)
		become_root();
	if (step->fsize_limit)
		setrlimit(RLIMIT_FSIZE, &unlimited);
	umask(old);
}

/* ------------------------------------------------------------------ the files a step names */

struct obj { bool there; int err; struct statx x; };
struct objs { struct obj o[NOBJ]; };

static const char *const obj_names[NOBJ] = { "first name",    "its directory", "second name",
					     "its directory", "first file",    "second file" };

static void parent_of(const char *path, char *buf, size_t cap)
{
	char *slash;

	snprintf(buf, cap, "%s", path);
	slash = strrchr(buf, '/');
	if (slash)
		*slash = '\0';
	else
		snprintf(buf, cap, ".");
}

static void look(struct obj *o, int dirfd, const char *path, int flags)
{
	o->err = statx(dirfd, path, flags | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &o->x) ? errno
											   : 0;
	o->there = !o->err;
}

static void look_all(struct side *side, const struct step *step, struct objs *all)
{
	char parent[PATH_CAP];

	memset(all, 0, sizeof(*all));
	for (unsigned k = 0; k < 2; k++) {
		if (step->has_path[k] && step->path[k][0]) {
			look(&all->o[2 * k], side->root, step->path[k], 0);
			parent_of(step->path[k], parent, sizeof(parent));
			look(&all->o[2 * k + 1], side->root, parent, 0);
		}
		if (step->has_slot[k] && slot_fd(side, step, k) >= 0)
			look(&all->o[4 + k], slot_fd(side, step, k), "", AT_EMPTY_PATH);
	}
}

static int64_t ns_of(struct statx_timestamp t) { return t.tv_sec * NS + t.tv_nsec; }
static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * NS + t.tv_nsec;
}

/*
 * What a step did to a time, in a form that can be compared. The sides ran at different moments, so
 * only a value that was set on purpose (VALUE) is compared as a number.
 */
enum how { SAME, NOW, VALUE };
struct when {
	enum how how;
	int64_t value; /* ns; far away: seconds; 1: some time of this run, different on each side */
	bool fresh;    /* SAME, but set so shortly before that NOW would look the same */
	bool other;    /* the name belongs to another file than before the step */
};

static struct when when_of(const struct obj *b, struct statx_timestamp before,
			   struct statx_timestamp after, bool same_file, int64_t t0, int64_t t1)
{
	struct when when = { VALUE, ns_of(after), false, !(b->there && same_file) };
	int64_t start = diff_run_start.tv_sec * NS + diff_run_start.tv_nsec - SLACK_NS;
	bool wild = after.tv_sec > 9000000000 || after.tv_sec < -9000000000;

	if (wild)
		when.value = after.tv_sec;
	if (b->there && same_file && before.tv_sec == after.tv_sec &&
	    before.tv_nsec == after.tv_nsec) {
		when.how = SAME;
		when.fresh = !wild && ns_of(before) > t0 - SLACK_NS &&
			     ns_of(before) < t1 + SLACK_NS;
	} else if (!wild && when.value > t0 - SLACK_NS && when.value < t1 + SLACK_NS) {
		when.how = NOW;
	} else if (!wild && when.value > start && when.value < t1 + SLACK_NS) {
		when.value = 1;
	}
	return when;
}

static const char *when_text(struct when when, char *buf, size_t cap)
{
	if (when.how == VALUE)
		snprintf(buf, cap, "%" PRId64, when.value);
	else
		snprintf(buf, cap, "%s", when.how == SAME ? "unchanged" : "now");
	return buf;
}

static bool times_equal(struct when a, struct when b)
{
	if (a.how == b.how)
		return a.how != VALUE || a.value == b.value;
	/* The name belongs to another file now, whose times may be from just before the step. */
	if (a.other && b.other && (a.how == NOW || a.value == 1) && (b.how == NOW || b.value == 1))
		return true;
	/* The time was set just before: the clock is too coarse to tell if it was set again. */
	return (a.how == SAME && a.fresh && b.how == NOW) ||
	       (b.how == SAME && b.fresh && a.how == NOW) ||
	       (a.how == SAME && a.fresh && b.how == VALUE && b.value == 1) ||
	       (b.how == SAME && b.fresh && a.how == VALUE && a.value == 1);
}

/* Whether a read must update atime by the rule of relatime. */
static bool atime_due(const struct obj *b, int64_t now)
{
	int64_t a = ns_of(b->x.stx_atime);

	return a <= ns_of(b->x.stx_mtime) || a <= ns_of(b->x.stx_ctime) || a < now - 86400 * NS;
}

/* relatime compares times; if two are close to each other, the result is a matter of chance. */
static bool atime_undecided(const struct obj *b)
{
	int64_t a = ns_of(b->x.stx_atime), m = ns_of(b->x.stx_mtime), c = ns_of(b->x.stx_ctime);

	return b->there && (llabs(a - m) < SLACK_NS || llabs(a - c) < SLACK_NS);
}

struct both {
	const struct step *step;
	struct objs ours_before, ours_after, ext4_before, ext4_after;
	int64_t t0, t1, t2; /* fusedio ran from t0 to t1, ext4 from t1 to t2 */
	bool failed;
	char *why;
	size_t cap;
};

static bool differ(struct both *both, unsigned k, const char *what, const char *a, const char *b)
{
	snprintf(both->why, both->cap, "%s of the %s: fusedio %s, ext4 %s", what, obj_names[k], a,
		 b);
	return false;
}

static bool differ_num(struct both *both, unsigned k, const char *what, uint64_t a, uint64_t b)
{
	char ta[32], tb[32];

	snprintf(ta, sizeof(ta), "%" PRIu64 " (%#" PRIx64 ")", a, a);
	snprintf(tb, sizeof(tb), "%" PRIu64 " (%#" PRIx64 ")", b, b);
	return differ(both, k, what, ta, tb);
}

static bool compare_times(struct both *both, unsigned k)
{
	static const char *const names[] = { "atime", "mtime", "ctime" };
	const struct obj *ours = &both->ours_before.o[k], *ext4 = &both->ext4_before.o[k];
	const struct statx *xa = &both->ours_after.o[k].x, *xb = &both->ext4_after.o[k].x;
	const struct statx *ya = &ours->x, *yb = &ext4->x;
	const struct statx_timestamp after_a[] = { xa->stx_atime, xa->stx_mtime, xa->stx_ctime },
				     after_b[] = { xb->stx_atime, xb->stx_mtime, xb->stx_ctime },
				     before_a[] = { ya->stx_atime, ya->stx_mtime, ya->stx_ctime },
				     before_b[] = { yb->stx_atime, yb->stx_mtime, yb->stx_ctime };

	for (unsigned t = 0; t < 3; t++) {
		struct when a = when_of(ours, before_a[t], after_a[t], xa->stx_ino == ya->stx_ino,
					both->t0, both->t1);
		struct when b = when_of(ext4, before_b[t], after_b[t], xb->stx_ino == yb->stx_ino,
					both->t1, both->t2);
		char ta[40], tb[40];

		if (times_equal(a, b))
			continue;
		if (S_ISFIFO(xb->stx_mode) && diff_allow(ALLOW_FIFO_TIMES))
			continue;
		if (t == 0 && (atime_undecided(ours) || atime_undecided(ext4)))
			continue;
		/* An earlier read updated atime on ext4 only: this one does on fusedio only. */
		if (t == 0 && a.how == NOW && b.how == SAME && atime_due(ours, both->t0) &&
		    !atime_due(ext4, both->t0) && diff_allow(ALLOW_ATIME_CACHE))
			continue;
		if (both->failed && a.how == SAME && b.how == NOW &&
		    (both->step->op->run == run_fallocate || both->step->op->run == run_rename) &&
		    diff_allow(ALLOW_FAILED_TIMES))
			continue;
		/*
		 * After a read that the daemon did not see, the atimes differ. Only values that
		 * were set on purpose can be compared then.
		 */
		if (t == 0 && a.how != NOW && (a.how == SAME || a.value == 1 || b.value == 1) &&
		    ((both->step->op->flags & OP_READS) || S_ISLNK(xb->stx_mode) ||
		     b.how == VALUE || a.how == VALUE) &&
		    diff_allow(ALLOW_ATIME_CACHE))
			continue;
		return differ(both, k, names[t], when_text(a, ta, sizeof(ta)),
			      when_text(b, tb, sizeof(tb)));
	}
	return true;
}

static bool compare_obj(struct both *both, unsigned k)
{
	const struct obj *a = &both->ours_after.o[k], *b = &both->ext4_after.o[k];
	const struct statx *x = &a->x, *y = &b->x;
	uint64_t more = x->stx_blocks > y->stx_blocks ? x->stx_blocks - y->stx_blocks
						      : y->stx_blocks - x->stx_blocks;

	if (a->there != b->there || a->err != b->err)
		return differ(both, k, "existence", a->err ? strerror(a->err) : "there",
			      b->err ? strerror(b->err) : "there");
	if (!a->there)
		return true;
	if (x->stx_mode != y->stx_mode) {
		char ta[16], tb[16];

		snprintf(ta, sizeof(ta), "%o", x->stx_mode);
		snprintf(tb, sizeof(tb), "%o", y->stx_mode);
		return differ(both, k, "mode", ta, tb);
	}
	if (x->stx_nlink != y->stx_nlink)
		return differ_num(both, k, "link count", x->stx_nlink, y->stx_nlink);
	if (x->stx_uid != y->stx_uid)
		return differ_num(both, k, "owner", x->stx_uid, y->stx_uid);
	if (x->stx_gid != y->stx_gid)
		return differ_num(both, k, "group", x->stx_gid, y->stx_gid);
	if (x->stx_size != y->stx_size)
		return differ_num(both, k, "size", x->stx_size, y->stx_size);
	if (x->stx_rdev_major != y->stx_rdev_major || x->stx_rdev_minor != y->stx_rdev_minor)
		return differ_num(both, k, "device", x->stx_rdev_minor, y->stx_rdev_minor);
	if (more) {
		if (!(S_ISREG(y->stx_mode) || S_ISDIR(y->stx_mode)) || more > 16)
			return differ_num(both, k, "blocks", x->stx_blocks, y->stx_blocks);
		diff_allow(ALLOW_TREE_BLOCKS);
	}
	return (both->step->op->flags & OP_NO_TIMES) || compare_times(both, k);
}

/* ------------------------------------------------------------------ the step */

/*
 * Whether FUSE refused the step before the daemon could see it. Then the step is not run on ext4,
 * so that both sides stay equal.
 */
static bool limit_of_fuse(const struct step *step, const struct outcome *outcome)
{
	if (step->op->run == run_fallocate && outcome->err == EOPNOTSUPP &&
	    (step->v[0] == FALLOC_FL_COLLAPSE_RANGE || step->v[0] == FALLOC_FL_INSERT_RANGE ||
	     step->v[0] == FALLOC_FL_UNSHARE_RANGE))
		return diff_allow(ALLOW_FALLOC);
	if (step->op->run == run_setflags && outcome->err == EOPNOTSUPP &&
	    (step->v[0] & FS_JOURNAL_DATA_FL))
		return diff_allow(ALLOW_FLAGS);
	return false;
}

/*
 * Whether this is an unaligned direct read that only one side refused: ext4 serves one over a hole;
 * fusedio serves one with an aligned end, which looks like the last piece of a request that the
 * kernel has split. Sets the file position of fusedio's side to that of ext4.
 */
static bool dio_hole(struct side *x, struct side *y, const struct step *step,
		     const struct outcome *a, const struct outcome *b)
{
	int fd;

	if ((step->op->run != run_read && step->op->run != run_rwf) ||
	    (a->err ? a->err != EINVAL || b->err : b->err != EINVAL))
		return false;
	fd = slot_fd(x, step, 0);
	if (!(fcntl(fd, F_GETFL) & O_DIRECT) ||
	    !((step->v[1] | step->v[2] | lseek(fd, 0, SEEK_CUR)) & 511))
		return false;
	lseek(fd, lseek(slot_fd(y, step, 0), 0, SEEK_CUR), SEEK_SET);
	return diff_allow(ALLOW_DIO_HOLE);
}

/* Whether FUSE let a descriptor lose O_APPEND, which ext4 refused. Restores it. */
static bool lost_append(struct side *x, struct side *y, const struct step *step,
			const struct outcome *a, const struct outcome *b)
{
	if (step->op->run != run_setfl || a->err || b->err != EPERM)
		return false;
	fcntl(slot_fd(x, step, 0), F_SETFL, fcntl(slot_fd(y, step, 0), F_GETFL));
	return diff_allow(ALLOW_APPEND_FLAG);
}

static bool compare_outcome(struct both *both, const struct outcome *a, const struct outcome *b)
{
	if (a->ret == b->ret && a->err == b->err && !strcmp(a->text, b->text))
		return true;
	if ((both->step->op->run == run_setflags || both->step->op->run == run_fsxattr) &&
	    a->err == EPERM && b->err == ENOTTY)
		return diff_allow(ALLOW_IOCTL_SPECIAL);
	if ((a->err == EACCES || a->err == ENOTDIR || a->err == EISDIR) && b->err == EPERM)
		return diff_allow(ALLOW_IMMUTABLE_ORDER);
	/* With O_DIRECT, FUSE answers a write of no bytes without the daemon. */
	if (both->step->op->run == run_write && !both->step->v[2] && !a->err && !a->ret &&
	    b->err == EPERM)
		return diff_allow(ALLOW_IMMUTABLE_ORDER);
	/*
	 * access(2) with W_OK fails with EPERM for an immutable file; FUSE answers it by the mode,
	 * without the daemon.
	 */
	if (both->step->op->run == run_access && (both->step->v[0] & W_OK) && !a->err &&
	    b->err == EPERM)
		return diff_allow(ALLOW_IMMUTABLE_ORDER);
	snprintf(both->why, both->cap, "fusedio: %ld (%s) %s\n      ext4: %ld (%s) %s", a->ret,
		 a->err ? strerror(a->err) : "ok", a->text, b->ret,
		 b->err ? strerror(b->err) : "ok", b->text);
	return false;
}

bool diff_do_step(struct side *a, struct side *b, const struct step *step, bool verbose, char *why,
		  size_t cap)
{
	static struct outcome oa, ob;
	static struct both both;

	both.step = step;
	both.why = why;
	both.cap = cap;
	if (step->pause)
		nanosleep(&(struct timespec){ 0, SLACK_NS + 10000000 }, NULL);
	look_all(a, step, &both.ours_before);
	look_all(b, step, &both.ext4_before);
	both.t0 = now_ns();
	run_on(a, step, &oa);
	both.t1 = now_ns();
	if (limit_of_fuse(step, &oa))
		return true;
	run_on(b, step, &ob);
	both.t2 = now_ns();
	if (verbose)
		printf("      %ld (%s) %s\n", ob.ret, ob.err ? strerror(ob.err) : "ok",
		       ob.text);
	if (!dio_hole(a, b, step, &oa, &ob) && !lost_append(a, b, step, &oa, &ob) &&
	    !compare_outcome(&both, &oa, &ob))
		return false;
	both.failed = oa.err;
	look_all(a, step, &both.ours_after);
	look_all(b, step, &both.ext4_after);
	for (unsigned k = 0; k < NOBJ; k++) {
		const struct obj *ours = &both.ours_after.o[k], *ext4 = &both.ext4_after.o[k];
		bool looked_at = ours->there || ours->err || ext4->there || ext4->err;

		if (looked_at && !compare_obj(&both, k))
			return false;
	}
	return true;
}
