/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command: parses, probes, opens, recovers, mounts, serves, drains. Every step before the mount answers can fail with one
 * line on stderr and an exit status of mount(8); struct session keeps what was made, and session_free undoes it in
 * reverse, whatever is there.
 *
 * Threads: this one waits for the end of the mount; one waits for signals, once the mount serves; the watchdog is there from before
 * recovery; the rest belong to the rooms. SIGTERM and SIGINT end the start between two steps, and within those that can take long.
 * The journal is recovered first. Then a block device as root is mounted as fuseblk, so that the kernel claims it, and
 * opened after that; its first request is answered last. An image file is locked by us and opened before the mount.
 */
#include "base/counters.h"
#include "base/log.h"
#include "base/stop.h"
#include "command/daemon.h"
#include "command/options.h"
#include "command/probe.h"
#include "command/readahead.h"
#include "command/recover.h"
#include "command/sandbox.h"
#include "command/signals.h"
#include "command/superopts.h"
#include "command/unmounter.h"
#include "command/watchdog.h"
#include "ops/ops.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define RING_ENTRIES 256
#define POLL_AUTO_NS 100000u /* longer than a client thinks between two requests of one call or of a simple loop */
#define SEGS_PER_LOOP 256
#define IO_WORKERS 4
#define SYNC_WORKERS 2
#define ALIVE_USEC "60000000"

static const int log_levels[] = { FDIO_LOG_ERR, FDIO_LOG_WARN, FDIO_LOG_INFO, FDIO_LOG_DEBUG };

struct session {
	struct options opt;
	struct probe probe;
	char device[PATH_MAX], mountpoint[PATH_MAX];
	char mount_opts[256];
	char err[PATH_MAX + 512];
	bool root, fuseblk, read_only;
	struct dev *dev;
	struct loop_set *loops;
	bool loops_on;
	struct wq *workers, *io, *syncers;
	struct x4_vol *vol;
	const char *ro_reason;
	struct dio *dio;
	struct ops *ops;
	struct tr *tr;
	struct unmounter *unmounter;
	struct watchdog *watchdog;
	struct signals *signals;
	const char *doing;         /* atomic: for the service manager */
	bool serving;              /* atomic: tr and dev are there for the watchdog */
	bool ended;                /* atomic: no request comes any more */
	struct work look_work;
	bool looking;              /* atomic: look_work is queued or runs */
	bool left_behind;          /* the mount could not be reached when it was to go */
	bool stopped;              /* told to end before it served */
	int result;                /* of writing everything at the end */
};

/* ------------------------------------------------------------------ callbacks */

static void on_request(struct tr_req *r, void *arg) { ops_handle(r, ((struct session *)arg)->ops); }

static void on_forget(void *arg, uint64_t nodeid, uint64_t nlookup) { ops_forget(((struct session *)arg)->ops, nodeid, nlookup); }

static void on_read_only(void *arg, const char *why)
{
	struct session *s = arg;

	log_err("%s is read-only from now on: %s; unmount it and run e2fsck", s->probe.path, why);
}

static int on_umount(void *arg, bool lazy)
{
	struct session *s = arg;
	int err = unmounter_do(s->unmounter, lazy);

	if (err == -EEXIST || (lazy && err && err != -EINVAL))
		s->left_behind = true; /* the connection is ended next: on_destroy sees it */
	return err;
}

static void on_ending(void *arg)
{
	struct session *s = arg;

	__atomic_store_n(&s->ended, true, __ATOMIC_RELEASE);
	watchdog_ending(s->watchdog);
}

/* For the watchdog. */
static void log_in_flight(void *arg)
{
	struct session *s = arg;

	if (!__atomic_load_n(&s->serving, __ATOMIC_ACQUIRE))
		return;
	tr_log_busy(s->tr);
	dev_log_busy(s->dev);
}

static void look_at_device(struct work *w)
{
	struct session *s = container_of(w, struct session, look_work);

	dev_lost(s->dev); /* what it sees, it says and remembers */
	__atomic_store_n(&s->looking, false, __ATOMIC_RELEASE);
}

/* For the watchdog, while the mount serves. Not on its thread: an image on a server that hangs lets who looks wait. */
static void on_look(void *arg)
{
	struct session *s = arg;

	if (!__atomic_exchange_n(&s->looking, true, __ATOMIC_ACQ_REL))
		wq_queue(s->syncers, &s->look_work, look_at_device);
}

/* For the watchdog, while the mount does not serve yet, or no longer. */
static void on_alive(void *arg)
{
	struct session *s = arg;
	const char *doing = __atomic_load_n(&s->doing, __ATOMIC_ACQUIRE);

	daemon_notify("EXTEND_TIMEOUT_USEC=" ALIVE_USEC, "%s %s", doing, s->probe.path);
}

static void give_up(void *arg)
{
	(void)arg;
	daemon_notify("STOPPING=1", "given up: the next mount recovers");
	_exit(EXIT_SYSTEM);
}

static bool on_in_group(void *arg, uint32_t pid, uint32_t gid) { return unmounter_in_group(((struct session *)arg)->unmounter, pid, gid); }

static bool on_capable(void *arg, uint32_t pid, uint32_t uid, unsigned cap)
{
	return unmounter_capable(((struct session *)arg)->unmounter, pid, uid, cap);
}

/* Control thread of the transport, once: no request will come any more. umount of a fuseblk mount waits for this. */
static void on_destroy(void *arg, bool aborted)
{
	struct session *s = arg;

	__atomic_store_n(&s->doing, "writing out", __ATOMIC_RELEASE);
	daemon_notify("STOPPING=1", "writing out %s", s->probe.path);
	if (aborted)
		log_warn("the connection of %s was aborted", s->mountpoint);
	dio_drain(s->dio);
	ops_shutdown(s->ops);
	dio_drain(s->dio);
	wq_drain(s->io);
	wq_drain(s->syncers);
	s->result = x4_vol_close(s->vol);
	s->vol = NULL;
	if (s->result)
		log_err("%s could not be written completely: %s; run e2fsck", s->probe.path, strerror(-s->result));
	else if (s->left_behind)
		log_info("%s is written and clean; its mount on %s is left behind", s->probe.path, s->mountpoint);
	else
		log_info("%s unmounted from %s", s->probe.path, s->mountpoint);
}

/* ------------------------------------------------------------------ steps */

static int failed(struct session *s, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int failed(struct session *s, int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(s->err, sizeof(s->err), fmt, ap);
	va_end(ap);
	return status;
}

/* One line, whatever names it repeats. */
static void say(struct session *s)
{
	static char line[sizeof(s->err)];

	fdio_escape(line, sizeof(line), s->err);
	fprintf(stderr, "fusedio: %s\n", line);
}

static int check_mountpoint(struct session *s)
{
	struct stat st;

	if (!realpath(s->opt.mountpoint, s->mountpoint))
		return failed(s, EXIT_MOUNT, "mount point %.200s: %s", *s->opt.mountpoint ? s->opt.mountpoint : "''", strerror(errno));
	if (stat(s->mountpoint, &st))
		return failed(s, EXIT_MOUNT, "mount point %s: %s", s->mountpoint, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return failed(s, EXIT_MOUNT, "mount point %s is not a directory", s->mountpoint);
	return 0;
}

/*
 * Only the daemon's own files stay open: what the shell or a service manager had open would be held as long as the mount lives. A
 * device that is named by a descriptor (/dev/fd/9, or a link to that) gets the name of its file before.
 */
static void close_inherited(struct session *s)
{
	if (strchr(s->opt.device, '/') && realpath(s->opt.device, s->device))
		s->opt.device = s->device;
	daemon_close_inherited();
}

static int open_device(struct session *s)
{
	unsigned flags = (s->read_only ? DEV_OPEN_RDONLY : 0) | (s->fuseblk ? 0 : DEV_OPEN_EXCL);

	return dev_uring_open(s->probe.path, flags, &s->dev, s->err, sizeof(s->err)) ? EXIT_MOUNT : 0;
}

/* An image is a file, and RLIMIT_FSIZE is meant for files. */
static int raise_limits(struct session *s)
{
	bool writes = !s->probe.is_block && !s->opt.norecovery && !s->probe.read_only_dev;
	struct stat st = { 0 };

	if (writes && stat(s->probe.path, &st))
		return failed(s, EXIT_MOUNT, "%s: %s", s->probe.path, strerror(errno));
	return daemon_raise_limits(writes ? (uint64_t)st.st_size : 0, s->err, sizeof(s->err)) ? EXIT_SYSTEM : 0;
}

static int find_device(struct session *s)
{
	if (probe_device(s->opt.device, s->opt.read_only, &s->probe, s->err, sizeof(s->err)))
		return EXIT_MOUNT;
	superopts_apply(&s->opt, s->probe.super, s->probe.path);
	return raise_limits(s);
}

/* From here on a device that does not answer shows in the log, and a service manager sees that we are alive. */
static int start_watchdog(struct session *s)
{
	struct watchdog_config wc = {
		.name = s->probe.path, .limit_ms = (unsigned)s->opt.drain_timeout * 1000, .in_flight = log_in_flight, .alive = on_alive,
		.look = on_look,
		.give_up = give_up, .arg = s,
	};
	int err;

	s->doing = "recovering";
	err = watchdog_new(&wc, &s->watchdog);
	return err ? failed(s, EXIT_SYSTEM, "cannot start the watchdog thread: %s", strerror(-err)) : 0;
}

static int recover(struct session *s)
{
	bool again = false;

	if (!s->opt.norecovery && recover_device(&s->probe, s->opt.read_only, &again, s->err, sizeof(s->err)))
		return EXIT_MOUNT;
	__atomic_store_n(&s->doing, "opening", __ATOMIC_RELEASE);
	return again && probe_device(s->opt.device, s->opt.read_only, &s->probe, s->err, sizeof(s->err)) ? EXIT_MOUNT : 0;
}

static int open_it(struct session *s)
{
	s->read_only = s->opt.read_only || s->probe.read_only_dev;
	if (s->probe.read_only_dev && !s->opt.read_only)
		log_warn("%s is write-protected: serving it read-only", s->probe.path);
	s->opt.read_only = s->read_only;
	s->fuseblk = s->root && s->probe.is_block;
	if (s->fuseblk && s->opt.fsname)
		return failed(s, EXIT_USAGE, "option fsname is for image files: the kernel shows a block device under its own name");
	return open_device(s);
}

static int make_engine_room(struct session *s)
{
	struct loop_config lc = {
		.entries = RING_ENTRIES, .pin = !s->opt.single_loop, .nr_fixed_files = LOOP_NR_FILES,
		.sqe128 = s->opt.transport != TR_TRANSPORT_DEVFUSE, .poll_ns = s->opt.poll > 0 ? (unsigned)s->opt.poll * 1000 : 0,
		.poll_auto_ns = s->opt.poll < 0 ? POLL_AUTO_NS : 0,
	};

	if (s->opt.single_loop)
		lc.nr_loops = 1;
	else if (s->opt.transport == TR_TRANSPORT_DEVFUSE)
		lc.nr_loops = (unsigned)get_nprocs(); /* only the ring wants loops for CPUs that are not there */
	if (loop_set_new(&lc, &s->loops, s->err, sizeof(s->err)))
		return EXIT_SYSTEM;
	if (dev_uring_attach(s->dev, s->loops))
		return failed(s, EXIT_SYSTEM, "cannot register the device with io_uring");
	s->workers = wq_new("fdio-ops", (unsigned)s->opt.workers);
	s->io = wq_new("fdio-io", IO_WORKERS);
	s->syncers = wq_new("fdio-sync", SYNC_WORKERS);
	if (!s->workers || !s->io || !s->syncers)
		return failed(s, EXIT_SYSTEM, "cannot start worker threads: %s", strerror(errno));
	return 0;
}

static int open_volume(struct session *s)
{
	const struct options *o = &s->opt;
	struct x4_options xo = {
		.read_only = s->read_only, .norecovery = o->norecovery, .discard = o->discard, .errors = (enum x4_errors_policy)o->errors,
		.atime = (enum x4_atime_policy)o->atime, .nodiratime = o->nodiratime, .lazytime = o->lazytime, .acl = o->acl,
		.user_xattr = o->user_xattr, .grpid = o->grpid,
		.commit_interval_s = (unsigned)o->commit,
		.went_read_only = on_read_only, .arg = s,
	};

	if (x4_vol_open(s->dev, &xo, &s->vol, &s->ro_reason, s->err, sizeof(s->err)))
		return EXIT_MOUNT;
	if (x4_vol_read_only(s->vol) && !s->read_only) {
		log_warn("%s is served read-only: %s", s->probe.path, s->ro_reason ? s->ro_reason : "the file system asks for it");
		s->read_only = true;
		s->opt.read_only = 1;
	}
	return 0;
}

static int make_transport(struct session *s)
{
	uint32_t bs = FDIO_MAX(s->probe.fs_block_size, s->probe.lbs);
	struct tr_config tc = {
		.source = s->opt.fsname ? s->opt.fsname : s->probe.path, .mountpoint = s->mountpoint, .blkdev = s->fuseblk,
		.blksize = bs > 4096 ? 4096 : bs, .mount_opts = s->mount_opts,
		.loops = s->loops, .queue_depth = (unsigned)s->opt.queue_depth, .max_background = (unsigned)s->opt.max_background,
		.transport = (enum tr_transport)s->opt.transport,
		.slot_size = ops_req_size(), .posix_acl = s->opt.acl, .parallel_dio = s->opt.parallel_dio, .export_handles = true,
		.handler = on_request, .ending = on_ending, .destroy = on_destroy, .forget = on_forget, .umount = on_umount, .arg = s,
	};
	int err;

	options_mount_list(&s->opt, s->root, s->mount_opts, sizeof(s->mount_opts));
	if (tr_new(&tc, &s->tr, s->err, sizeof(s->err)))
		return EXIT_SYSTEM;
	err = tr_mount(s->tr, s->err, sizeof(s->err));
	if (err)
		return err == -ENODEV ? EXIT_SYSTEM : EXIT_MOUNT;
	unmounter_mounted(s->unmounter);
	return 0;
}

static int make_upper(struct session *s)
{
	struct ops_config oc = {
		.vol = s->vol, .workers = s->workers, .nr_requests = (unsigned)s->opt.queue_depth * loop_set_count(s->loops),
		.parallel_dio = s->opt.parallel_dio, .sync = s->opt.sync, .dirsync = s->opt.dirsync, .in_group = on_in_group,
		.capable = on_capable, .resuid = (uint32_t)s->opt.resuid,
		.resgid = (uint32_t)s->opt.resgid, .arg = s,
	};
	struct dio_config dc = {
		.dev = s->dev, .vol = s->vol, .loops = s->loops, .nr_cpus = loop_set_count(s->loops), .workers = s->io, .syncers = s->syncers,
		.segs_per_loop = SEGS_PER_LOOP, .strict = s->opt.dio == OPT_DIO_STRICT, .inval = ops_inval,
		.launder = ops_launder_pages, .kill_sgid = ops_kill_sgid,
	};
	int err = ops_new(&oc, &s->ops);

	if (!err) {
		dc.inval_arg = s->ops;
		err = dio_new(&dc, &s->dio);
	}
	if (err)
		return failed(s, EXIT_SYSTEM, "cannot set up the engine: %s", strerror(-err));
	ops_set_dio(s->ops, s->dio);
	ops_set_tr(s->ops, s->tr);
	return 0;
}

/* fuseblk: the kernel's claim replaces ours before anything is written. */
static int mount_block(struct session *s)
{
	int st = make_transport(s);

	if (!st && probe_recheck(&s->probe, dev_uring_fd(s->dev), s->err, sizeof(s->err)))
		st = EXIT_MOUNT;
	return st ? st : open_volume(s);
}

static int mount_file(struct session *s)
{
	int st = open_volume(s);

	return st ? st : make_transport(s);
}

/* The mount serves already: end it in order. */
static int end_early(struct session *s, int status)
{
	tr_unmount(s->tr);
	tr_wait(s->tr);
	return status;
}

static int serve(struct session *s)
{
	struct signals_config sc = {
		.unmounter = s->unmounter, .name = s->probe.path, .mountpoint = s->mountpoint,
		.limit_ms = (unsigned)s->opt.drain_timeout * 1000, .ended = &s->ended,
	};
	int err = loop_set_start(s->loops);

	if (err)
		return failed(s, EXIT_SYSTEM, "cannot start the loop threads: %s", strerror(-err));
	s->loops_on = true;
	__atomic_store_n(&s->serving, true, __ATOMIC_RELEASE);
	if (tr_start(s->tr, s->err, sizeof(s->err)))
		return EXIT_MOUNT;
	sc.tr = s->tr;
	sc.watchdog = s->watchdog;
	err = signals_start(&sc, &s->signals);
	return err ? end_early(s, failed(s, EXIT_SYSTEM, "cannot start the signal thread: %s", strerror(-err))) : 0;
}

/* The kernel was told rw before the volume was opened (fuseblk) and it turned out read-only. */
static void tell_kernel_read_only(struct session *s)
{
	unsigned long fl = MS_REMOUNT | MS_RDONLY;
	const struct options *o = &s->opt;

	if (!s->fuseblk || strncmp(s->mount_opts, "rw", 2) || !s->read_only)
		return;
	fl |= (o->nosuid ? MS_NOSUID : 0) | (o->nodev ? MS_NODEV : 0) | (o->noexec ? MS_NOEXEC : 0) | (o->sync ? MS_SYNCHRONOUS : 0) |
	      (o->dirsync ? MS_DIRSYNC : 0) | (o->atime == 1 ? MS_NOATIME : 0) | (o->nodiratime ? MS_NODIRATIME : 0);
	if (mount(NULL, s->mountpoint, NULL, fl, NULL))
		log_warn("the mount looks writable but is not: %s", strerror(errno));
}

static void session_free(struct session *s)
{
	signals_stop(s->signals);
	if (s->loops_on)
		loop_set_stop(s->loops);
	watchdog_free(s->watchdog);
	tr_free(s->tr);
	if (s->dio)
		dio_drain(s->dio);
	if (s->ops)
		ops_shutdown(s->ops);
	/* Only when starting failed: otherwise the volume was closed while the umount waited. */
	if (s->vol)
		x4_vol_close(s->vol);
	unmounter_free(s->unmounter);
	wq_free(s->workers);
	wq_free(s->io);
	wq_free(s->syncers);
	if (s->dio)
		dio_free(s->dio);
	ops_free(s->ops);
	if (s->loops)
		loop_set_free(s->loops);
	if (s->dev)
		dev_close(s->dev);
	epoch_drain();
}

static int lock_memory(struct session *s)
{
	return s->opt.mlock && daemon_mlock(s->err, sizeof(s->err)) ? EXIT_SYSTEM : 0;
}

/* Before there are threads, and descriptors that it must not keep open. */
static int start_unmounter(struct session *s)
{
	return unmounter_new(s->mountpoint, s->opt.sandbox == SANDBOX_ON, &s->unmounter, s->err, sizeof(s->err)) ? EXIT_SYSTEM : 0;
}

static int mount_it(struct session *s) { return s->fuseblk ? mount_block(s) : mount_file(s); }

static int start(struct session *s)
{
	static int (*const steps[])(struct session *s) = {
		lock_memory, start_unmounter, find_device, start_watchdog, recover, open_it, make_engine_room, mount_it, make_upper, serve,
	};
	int st = 0;

	for (size_t i = 0; i < ARRAY_SIZE(steps) && !st && !fdio_stop_asked(); i++)
		st = steps[i](s);
	/* Once its thread is there it takes the signal: the mount ends in order. */
	if (!s->signals && fdio_stop_asked()) {
		s->stopped = true;
		st = failed(s, EXIT_MOUNT, "%s: told to end before it was mounted", s->opt.device);
	}
	return st;
}

/* The last privileged steps, then none any more. */
static int settle(struct session *s)
{
	tell_kernel_read_only(s);
	if (!s->root && s->opt.readahead)
		log_warn("option readahead needs root: the kernel reads 128 KiB ahead, as on every FUSE mount");
	if (s->root)
		readahead_set(s->mountpoint, s->opt.readahead ? (unsigned)s->opt.readahead : readahead_default(s->probe.path));
	watchdog_open_abort(s->watchdog, s->mountpoint);
	daemon_open_files();
	if (sandbox_enter((enum sandbox_mode)s->opt.sandbox, s->err, sizeof(s->err)))
		return end_early(s, EXIT_SYSTEM);
	return 0;
}

static int run(struct session *s)
{
	int st;

	daemon_open_notify();
	st = start(s);
	if (!st)
		st = settle(s);
	if (st)
		goto out;
	watchdog_serving(s->watchdog);
	daemon_ready();
	fdio_log_set_level(log_levels[s->opt.log]);
	log_info("%s mounted on %s%s", s->probe.path, s->mountpoint, s->read_only ? " read-only" : "");
	daemon_notify("READY=1", "serving %s on %s", s->probe.path, s->mountpoint);
	tr_wait(s->tr);
out:
	if (st)
		say(s);
	session_free(s);
	return st ? st : s->result ? EXIT_SYSTEM : 0;
}

static void print_version(void)
{
	printf("fusedio %s\nlibfuse %s, FUSE headers 7.%u\n", PACKAGE_VERSION, fuse_pkgversion(), FUSE_KERNEL_MINOR_VERSION);
}

/* -f of mount(8): everything but the mount. */
static int fake_mount(struct session *s)
{
	int st = probe_device(s->opt.device, true, &s->probe, s->err, sizeof(s->err)) ? EXIT_MOUNT : 0;

	if (st)
		say(s);
	return st;
}

/* Whoever starts us without one of them must not find the device or a socket in its place. */
static void open_standard_files(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	static struct session s;
	int st = options_parse(argc, argv, &s.opt, s.err, sizeof(s.err));

	open_standard_files();
	if (s.opt.help)
		options_help(stdout);
	else if (s.opt.version)
		print_version();
	if (s.opt.help || s.opt.version)
		return 0;
	s.root = geteuid() == 0;
	if (!st && s.opt.ns && daemon_setns(s.opt.ns, s.err, sizeof(s.err)))
		st = EXIT_SYSTEM;
	if (!st)
		st = check_mountpoint(&s);
	if (st) {
		say(&s);
		return st;
	}
	if (s.opt.nofail && probe_is_missing(s.opt.device))
		return 0;
	close_inherited(&s);
	fdio_log_set_level(s.opt.verbose ? FDIO_LOG_DEBUG : log_levels[s.opt.log]);
	if (s.opt.fake)
		return fake_mount(&s);
	if (!s.opt.foreground) {
		int err = daemon_fork();

		if (err) {
			fprintf(stderr, "fusedio: cannot fork: %s\n", strerror(-err));
			return EXIT_SYSTEM;
		}
		/* Until the mount answers, the terminal is the user's: only what he has to know goes there. */
		fdio_log_open_syslog("fusedio", s.opt.verbose ? FDIO_LOG_DEBUG : FDIO_LOG_WARN);
	}
	signals_block();
	st = run(&s);
	options_free(&s.opt);
	if (s.stopped)
		signals_die();
	return st;
}
