/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Assembly: makes the rooms of a mount and joins them. Main thread, while starting; a room that
 * cannot be made fails with a reason.
 *
 * This is the one place where transport, operations and engine are connected. None of them finds
 * another by itself: each gets the pointers and callbacks of the others here, and nowhere else.
 * The way of a request:
 *
 *	transport --ops_handle--> ops --dio_submit--> dio --dev_submit--> dev, on the loop's ring
 *
 * and back: dev_io.done in dio, dio_req.done in ops, transport_reply in the transport. Besides:
 *
 *	transport --ops_forget--> ops                   the kernel forgets a node
 *	dio --ops_invalidate_pages--> ops               the kernel's pages are out of date
 *	dio --ops_launder_pages--> ops                  the kernel's pages must be written back
 *	dio --ops_kill_sgid--> ops                      may the writer keep the set-group-ID bit?
 *	ops --> transport                               notifications (ops_set_transport)
 *	dio --ops_writer_may_use_reserved--> ops        is the writer root?
 *	ops --on_in_group, on_capable, on_ids--> unmounter  who is the caller? what may he do?
 *	ext4 --on_read_only--> session                  the file system writes no more
 *	transport --on_mounted--> unmounter             this is the mount to end
 *	transport --session_umount, session_ending, session_destroy--> session       end.c
 *
 * end.c takes the rooms apart again and joins nothing.
 */
#include "base/log.h"
#include "command/caller.h"
#include "command/session.h"
#include "command/unmounter.h"
#include "dev/open.h"
#include "dio/engine.h"
#include "message/fuse_compat.h"
#include "ops/ops.h"
#include "transport/connection.h"

#include <errno.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define RING_ENTRIES 256
/*
 * The value of ext4_options.cache_bytes: room for 17,408 idle inodes, about 14 MiB of it. Walking a
 * tree of 20,000 files a second time, after the kernel had forgotten its nodes, took 0.16 s; with
 * the smallest cache (1,024 inodes), 0.19 s. The process was no larger.
 */
#define CACHE_BYTES ((size_t)64 << 20)
/* With poll=auto a loop polls this long: longer than a busy client pauses between two requests. */
#define POLL_AUTO_NS 100000u
#define SEGS_PER_LOOP 256
#define IO_WORKERS 4
#define SYNC_WORKERS 2

/* ------------------------------------------------------------------ loops and queues */

static unsigned nr_loops(const struct session *session)
{
	if (session->options.single_loop)
		return 1;
	/*
	 * 0 means a loop for each possible CPU. FUSE over io_uring needs that, also for CPUs that
	 * are offline; /dev/fuse does not.
	 */
	return session->options.transport == TRANSPORT_KIND_DEVFUSE ? (unsigned)get_nprocs() : 0;
}

int assemble_loops(struct session *session)
{
	const struct options *options = &session->options;
	struct loop_config config = {
		.nr_loops = nr_loops(session),
		.entries = RING_ENTRIES,
		.pin = !options->single_loop,
		.nr_fixed_files = LOOP_NR_FILES,
		.sqe128 = options->transport != TRANSPORT_KIND_DEVFUSE,
		.poll_ns = options->poll > 0 ? (unsigned)options->poll * 1000 : 0,
		.poll_auto_ns = options->poll < 0 ? POLL_AUTO_NS : 0,
	};

	if (loop_set_new(&config, &session->loops, &session->reason))
		return EXIT_SYSTEM;
	if (dev_uring_attach(session->dev, session->loops))
		return session_failed(session, EXIT_SYSTEM,
				      "cannot register the device with io_uring");
	session->workers = work_queue_new("fdio-ops", (unsigned)options->workers);
	session->io_workers = work_queue_new("fdio-io", IO_WORKERS);
	session->syncers = work_queue_new("fdio-sync", SYNC_WORKERS);
	if (!session->workers || !session->io_workers || !session->syncers)
		return session_failed(session, EXIT_SYSTEM, "cannot start worker threads: %s",
				      strerror(errno));
	return 0;
}

/* ------------------------------------------------------------------ the volume */

static void on_read_only(void *arg, const char *why)
{
	struct session *session = arg;

	fdio_magic_check(session, MAGIC_SESSION);
	log_err("%s is read-only from now on: %s; unmount it and run e2fsck", session->probe.path,
		why);
}

/* The values of these options are passed on as numbers: the enums must agree. */
#define SAME(option, number) _Static_assert((int)(option) == (int)(number), #option)
SAME(OPT_ERRORS_DEFAULT, EXT4_ERRORS_DEFAULT);
SAME(OPT_ERRORS_CONTINUE, EXT4_ERRORS_CONTINUE);
SAME(OPT_ERRORS_REMOUNT_RO, EXT4_ERRORS_RO);
SAME(OPT_ERRORS_PANIC, EXT4_ERRORS_PANIC);
SAME(OPT_ATIME_RELATIVE, EXT4_ATIME_RELATIME);
SAME(OPT_ATIME_NO, EXT4_ATIME_NOATIME);
SAME(OPT_ATIME_STRICT, EXT4_ATIME_STRICT);
SAME(OPT_TRANSPORT_AUTO, TRANSPORT_KIND_AUTO);
SAME(OPT_TRANSPORT_URING, TRANSPORT_KIND_URING);
SAME(OPT_TRANSPORT_DEVFUSE, TRANSPORT_KIND_DEVFUSE);

int assemble_volume(struct session *session)
{
	const struct options *options = &session->options;
	const char *why = NULL;
	struct ext4_options config = {
		.read_only = session->read_only,
		.norecovery = options->norecovery,
		.discard = options->discard,
		.errors = (enum ext4_errors_policy)options->errors,
		.atime = (enum ext4_atime_policy)options->atime,
		.nodiratime = options->nodiratime,
		.lazytime = options->lazytime,
		.acl = options->acl,
		.user_xattr = options->user_xattr,
		.grpid = options->grpid,
		.commit_interval_s = (unsigned)options->commit,
		.cache_bytes = CACHE_BYTES,
		.went_read_only = on_read_only,
		.arg = session,
	};

	if (ext4_vol_open(session->dev, &config, &session->vol, &why, &session->reason))
		return EXIT_MOUNT;
	if (ext4_vol_read_only(session->vol) && !session->read_only) {
		log_warn("%s is served read-only: %s", session->probe.path,
			 why ? why : "the file system asks for it");
		session->read_only = true;
		session->options.read_only = 1;
	}
	return 0;
}

/* ------------------------------------------------------------------ the transport */

/* The block size that fuseblk is mounted with, at most a page. */
static uint32_t kernel_block_size(const struct probe *probe)
{
	uint32_t bytes = FDIO_MAX(probe->fs_block_size, probe->sector_bytes);

	return FDIO_MIN(bytes, 4096u);
}

/*
 * If the mount may be idmapped, requests do not say who the requester is. Then the unmounter must
 * be able to tell, which needs privilege, and a /proc of our PID namespace.
 */
static bool can_tell_callers(const struct session *session)
{
	uint32_t uid, gid;

	return session->root && unmounter_ids(session->unmounter, (uint32_t)getpid(), &uid, &gid);
}

static void on_mounted(void *arg)
{
	struct session *session = arg;

	fdio_magic_check(session, MAGIC_SESSION);
	unmounter_mounted(session->unmounter);
}

int assemble_transport(struct session *session)
{
	const struct options *options = &session->options;
	struct transport_config config = {
		.source = options->fsname ? options->fsname : session->probe.path,
		.mountpoint = session->mountpoint,
		.blkdev = session->fuseblk,
		.blksize = kernel_block_size(&session->probe),
		.mount_opts = session->mount_opts,
		.loops = session->loops,
		.queue_depth = (unsigned)options->queue_depth,
		.max_background = (unsigned)options->max_background,
		.transport = (enum transport_kind)options->transport,
		.slot_size = ops_req_size(),
		.posix_acl = options->acl,
		.parallel_dio = options->parallel_dio,
		.export_handles = true,
		.idmap = can_tell_callers(session),
		.mounted = on_mounted,
		.ending = session_ending,
		.destroy = session_destroy,
		.umount = session_umount,
		.arg = session,
	};
	int err;

	options_mount_list(options, session->root, session->mount_opts,
			   sizeof(session->mount_opts));
	if (transport_new(&config, &session->transport, &session->reason))
		return EXIT_SYSTEM;
	err = transport_mount(session->transport, &session->reason);
	if (err)
		return err == -ENODEV ? EXIT_SYSTEM : EXIT_MOUNT;
	return 0;
}

/* ------------------------------------------------------------------ operations and engine */

static bool on_in_group(void *arg, uint32_t pid, uint32_t gid)
{
	return unmounter_in_group(arg, pid, gid);
}

static bool on_capable(void *arg, uint32_t pid, uint32_t uid, unsigned cap)
{
	_Static_assert(CALLER_UNKNOWN_ID == MESSAGE_UNKNOWN_ID, "one value for both rooms");
	return unmounter_capable(arg, pid, uid, cap);
}

static bool on_ids(void *arg, uint32_t pid, uint32_t *uid, uint32_t *gid)
{
	return unmounter_ids(arg, pid, uid, gid);
}

static int make_operations(struct session *session)
{
	const struct options *options = &session->options;
	struct ops_config config = {
		.vol = session->vol,
		.workers = session->workers,
		.nr_requests = (unsigned)options->queue_depth * loop_set_count(session->loops),
		.parallel_dio = options->parallel_dio,
		.sync = options->sync,
		.dirsync = options->dirsync,
		.resuid = (uint32_t)options->resuid,
		.resgid = (uint32_t)options->resgid,
		.in_group = on_in_group,
		.capable = on_capable,
		.ids = on_ids,
		.arg = session->unmounter,
	};

	return ops_new(&config, &session->ops);
}

static int make_engine(struct session *session)
{
	struct dio_config config = {
		.dev = session->dev,
		.vol = session->vol,
		.loops = session->loops,
		.nr_cpus = loop_set_count(session->loops),
		.workers = session->io_workers,
		.syncers = session->syncers,
		.segs_per_loop = SEGS_PER_LOOP,
		.strict = session->options.dio == OPT_DIO_STRICT,
		.inval = ops_invalidate_pages,
		.launder = ops_launder_pages,
		.kill_sgid = ops_kill_sgid,
		.may_use_reserved = ops_writer_may_use_reserved,
		.inval_arg = session->ops,
	};

	return dio_new(&config, &session->dio);
}

/* Joins operations, engine and transport: from now on a request finds its way, and its reply. */
static void join(struct session *session)
{
	const struct transport_server server = { .handle = ops_handle,
						 .forget = ops_forget,
						 .arg = session->ops };

	ops_set_dio(session->ops, session->dio);
	ops_set_transport(session->ops, session->transport);
	transport_set_server(session->transport, &server);
}

int assemble_operations(struct session *session)
{
	int err = make_operations(session);

	if (!err)
		err = make_engine(session);
	if (err)
		return session_failed(session, EXIT_SYSTEM,
				      "cannot set up operations and engine: %s", strerror(-err));
	join(session);
	return 0;
}
