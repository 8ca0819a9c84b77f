/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Assembly: makes the rooms of a mount and joins them. Main thread, while starting; a room that
 * cannot be made fails with a reason. This is the one place that knows all of them, so the way of a
 * request can be read here:
 *
 *	transport --ops_handle--> ops --dio_submit--> dio --dev_submit--> dev, on the loop's ring
 *
 * and back: dev_io.done in dio, dio_req.done in ops, tr_reply in the transport. Beside it the
 * engine asks ops for what concerns the kernel's page cache, ops sends its notifications through
 * the transport, and the transport tells the session of its end (end.c).
 */
#include "base/log.h"
#include "command/session.h"
#include "command/unmounter.h"
#include "ops/ops.h"

#include <errno.h>
#include <string.h>
#include <sys/sysinfo.h>

#define RING_ENTRIES 256
/*
 * What the volume may keep (x4_options.cache_bytes): 17,408 idle inodes among it, about 14 MiB.
 * Walking a tree of 20,000 files again after the kernel had forgotten it took 0.16 s instead of
 * 0.19 s with the least, 1,024, and the process was no larger: it neither frees nor reads them.
 */
#define CACHE_BYTES ((size_t)64 << 20)
/* Longer than a client thinks between two requests of one call or of a simple loop. */
#define POLL_AUTO_NS 100000u
#define SEGS_PER_LOOP 256
#define IO_WORKERS 4
#define SYNC_WORKERS 2

/* ------------------------------------------------------------------ loops and queues */

static unsigned nr_loops(const struct session *s)
{
	if (s->opt.single_loop)
		return 1;
	/* Only the ring wants loops for CPUs that are not there. */
	return s->opt.transport == TR_TRANSPORT_DEVFUSE ? (unsigned)get_nprocs() : 0;
}

int assemble_loops(struct session *s)
{
	const struct options *o = &s->opt;
	struct loop_config lc = {
		.nr_loops = nr_loops(s),
		.entries = RING_ENTRIES,
		.pin = !o->single_loop,
		.nr_fixed_files = LOOP_NR_FILES,
		.sqe128 = o->transport != TR_TRANSPORT_DEVFUSE,
		.poll_ns = o->poll > 0 ? (unsigned)o->poll * 1000 : 0,
		.poll_auto_ns = o->poll < 0 ? POLL_AUTO_NS : 0,
	};

	if (loop_set_new(&lc, &s->loops, &s->reason))
		return EXIT_SYSTEM;
	if (dev_uring_attach(s->dev, s->loops))
		return session_failed(s, EXIT_SYSTEM, "cannot register the device with io_uring");
	s->workers = wq_new("fdio-ops", (unsigned)o->workers);
	s->io = wq_new("fdio-io", IO_WORKERS);
	s->syncers = wq_new("fdio-sync", SYNC_WORKERS);
	if (!s->workers || !s->io || !s->syncers)
		return session_failed(s, EXIT_SYSTEM, "cannot start worker threads: %s", strerror(errno));
	return 0;
}

/* ------------------------------------------------------------------ the volume */

static void on_read_only(void *arg, const char *why)
{
	struct session *s = arg;

	fdio_magic_check(s, MAGIC_SESSION);
	log_err("%s is read-only from now on: %s; unmount it and run e2fsck", s->probe.path, why);
}

#define SAME(option, number) _Static_assert((int)(option) == (int)(number), "one list of values")
SAME(OPT_ERRORS_DEFAULT, X4_ERRORS_DEFAULT);
SAME(OPT_ERRORS_CONTINUE, X4_ERRORS_CONTINUE);
SAME(OPT_ERRORS_REMOUNT_RO, X4_ERRORS_RO);
SAME(OPT_ERRORS_PANIC, X4_ERRORS_PANIC);
SAME(OPT_ATIME_RELATIVE, X4_ATIME_RELATIME);
SAME(OPT_ATIME_NO, X4_ATIME_NOATIME);
SAME(OPT_ATIME_STRICT, X4_ATIME_STRICT);
SAME(OPT_TRANSPORT_AUTO, TR_TRANSPORT_AUTO);
SAME(OPT_TRANSPORT_URING, TR_TRANSPORT_URING);
SAME(OPT_TRANSPORT_DEVFUSE, TR_TRANSPORT_DEVFUSE);

int assemble_volume(struct session *s)
{
	const struct options *o = &s->opt;
	const char *why = NULL;
	struct x4_options xo = {
		.read_only = s->read_only,
		.norecovery = o->norecovery,
		.discard = o->discard,
		.errors = (enum x4_errors_policy)o->errors,
		.atime = (enum x4_atime_policy)o->atime,
		.nodiratime = o->nodiratime,
		.lazytime = o->lazytime,
		.acl = o->acl,
		.user_xattr = o->user_xattr,
		.grpid = o->grpid,
		.commit_interval_s = (unsigned)o->commit,
		.cache_bytes = CACHE_BYTES,
		.went_read_only = on_read_only,
		.arg = s,
	};

	if (x4_vol_open(s->dev, &xo, &s->vol, &why, &s->reason))
		return EXIT_MOUNT;
	if (x4_vol_read_only(s->vol) && !s->read_only) {
		log_warn("%s is served read-only: %s", s->probe.path,
			 why ? why : "the file system asks for it");
		s->read_only = true;
		s->opt.read_only = 1;
	}
	return 0;
}

/* ------------------------------------------------------------------ the transport */

/* The kernel's block size for fuseblk: no more than a page. */
static uint32_t kernel_block_size(const struct probe *p)
{
	uint32_t bytes = FDIO_MAX(p->fs_block_size, p->lbs);

	return FDIO_MIN(bytes, 4096u);
}

int assemble_transport(struct session *s)
{
	const struct options *o = &s->opt;
	struct tr_config tc = {
		.source = o->fsname ? o->fsname : s->probe.path,
		.mountpoint = s->mountpoint,
		.blkdev = s->fuseblk,
		.blksize = kernel_block_size(&s->probe),
		.mount_opts = s->mount_opts,
		.loops = s->loops,
		.queue_depth = (unsigned)o->queue_depth,
		.max_background = (unsigned)o->max_background,
		.transport = (enum tr_transport)o->transport,
		.slot_size = ops_req_size(),
		.posix_acl = o->acl,
		.parallel_dio = o->parallel_dio,
		.export_handles = true,
		.ending = session_ending,
		.destroy = session_destroy,
		.umount = session_umount,
		.arg = s,
	};
	int err;

	options_mount_list(o, s->root, s->mount_opts, sizeof(s->mount_opts));
	if (tr_new(&tc, &s->tr, &s->reason))
		return EXIT_SYSTEM;
	err = tr_mount(s->tr, &s->reason);
	if (err)
		return err == -ENODEV ? EXIT_SYSTEM : EXIT_MOUNT;
	unmounter_mounted(s->unmounter);
	return 0;
}

/* ------------------------------------------------------------------ operations and engine */

static bool on_in_group(void *arg, uint32_t pid, uint32_t gid)
{
	return unmounter_in_group(arg, pid, gid);
}

static bool on_capable(void *arg, uint32_t pid, uint32_t uid, unsigned cap)
{
	return unmounter_capable(arg, pid, uid, cap);
}

static int make_operations(struct session *s)
{
	const struct options *o = &s->opt;
	struct ops_config oc = {
		.vol = s->vol,
		.workers = s->workers,
		.nr_requests = (unsigned)o->queue_depth * loop_set_count(s->loops),
		.parallel_dio = o->parallel_dio,
		.sync = o->sync,
		.dirsync = o->dirsync,
		.resuid = (uint32_t)o->resuid,
		.resgid = (uint32_t)o->resgid,
		.in_group = on_in_group,
		.capable = on_capable,
		.arg = s->unmounter,
	};

	return ops_new(&oc, &s->ops);
}

static int make_engine(struct session *s)
{
	struct dio_config dc = {
		.dev = s->dev,
		.vol = s->vol,
		.loops = s->loops,
		.nr_cpus = loop_set_count(s->loops),
		.workers = s->io,
		.syncers = s->syncers,
		.segs_per_loop = SEGS_PER_LOOP,
		.strict = s->opt.dio == OPT_DIO_STRICT,
		.inval = ops_inval,
		.launder = ops_launder_pages,
		.kill_sgid = ops_kill_sgid,
		.inval_arg = s->ops,
	};

	return dio_new(&dc, &s->dio);
}

/* From now on a request finds its way through all rooms, and back. */
static void join(struct session *s)
{
	const struct tr_server server = { .handle = ops_handle, .forget = ops_forget, .arg = s->ops };

	ops_set_dio(s->ops, s->dio);
	ops_set_tr(s->ops, s->tr);
	tr_set_server(s->tr, &server);
}

int assemble_operations(struct session *s)
{
	int err = make_operations(s);

	if (!err)
		err = make_engine(s);
	if (err)
		return session_failed(s, EXIT_SYSTEM, "cannot set up the engine: %s", strerror(-err));
	join(s);
	return 0;
}
