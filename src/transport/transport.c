/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of a connection: slots, mount, INIT, running channel, end.
 *
 *   tr_new -> tr_mount -> tr_start -> (requests) -> tr_end -> handlers drained
 *     -> destroy callback -> DESTROY answered
 *
 * tr_start, on the main thread, answers INIT, opens the channel, starts the control thread, and
 * then has the loops arm their slots.
 *
 * The control thread exists for the end: it waits for tr_end (umount, DESTROY, abort, tr_unmount),
 * stops new handlers, waits for those that run, and calls cfg.destroy, which writes everything.
 * Only then does it answer DESTROY: umount of a fuseblk mount returns with the file system clean on
 * the device.
 *
 * tr.lock (RANK_LEAF) guards end, destroy_req and finished. A step of the start that fails returns
 * -errno with a reason, and tr_free undoes the others.
 */
#include "transport/types.h"

#include "base/log.h"
#include "base/thread.h"
#include "transport/mount.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DRAIN_POLL_NS 500000
#define DRAIN_WARN_NS 5000000000ull
#define LOG_BUSY_MAX 20u

int tr_new(const struct tr_config *cfg, struct tr **ret, struct fdio_reason *reason)
{
	struct tr *t = calloc(1, sizeof(*t));
	char why[128];
	int err = -ENOMEM;

	if (!t)
		goto nomem;
	fdio_magic_set(t, MAGIC_TRANSPORT);
	t->cfg = *cfg;
	t->fd = -1;
	fdio_mutex_init(&t->lock, RANK_LEAF);
	fdio_cond_init(&t->changed);
	t->source = strdup(cfg->source);
	t->mountpoint = strdup(cfg->mountpoint);
	t->mount_opts = strdup(cfg->mount_opts ? cfg->mount_opts : "");
	if (!t->source || !t->mountpoint || !t->mount_opts)
		goto nomem;
	t->chan = &tr_chan_devfuse;
	err = tr_slots_new(t, reason);
	if (!err && cfg->transport == TR_TRANSPORT_URING && !tr_uring_usable(t, FDIO_REASON(why))) {
		fdio_reason_set(reason, "transport=uring cannot be used: %s", why);
		err = -EINVAL;
	}
	if (err) {
		tr_free(t);
		return err;
	}
	*ret = t;
	return 0;
nomem:
	fdio_reason_set(reason, "out of memory while preparing the mount");
	tr_free(t);
	return err;
}

int tr_mount(struct tr *t, struct fdio_reason *reason) { return tr_mount_libfuse(t, reason); }

void tr_set_server(struct tr *t, const struct tr_server *server) { t->server = *server; }

const struct tr_conn *tr_conn(const struct tr *t) { return &t->conn; }

unsigned tr_loop_slots(const struct tr *t, unsigned loop) { return t->queues[loop].nr_slots; }

void tr_end(struct tr *t, enum tr_end why, struct tr_req *r)
{
	fdio_mutex_lock(&t->lock);
	if (t->end == TR_RUNNING)
		t->end = why;
	if (r)
		t->destroy_req = r;
	pthread_cond_broadcast(&t->changed);
	fdio_mutex_unlock(&t->lock);
}

static unsigned busy_slots(struct tr *t)
{
	unsigned n = 0;

	for (unsigned i = 0; i < t->nr_queues; i++)
		n += __atomic_load_n(&t->queues[i].busy, __ATOMIC_SEQ_CST);
	return n;
}

/* DISPATCH-4 in dispatch.c: asked after busy_slots. */
static bool any_handling(struct tr *t)
{
	for (unsigned i = 0; i < t->nr_queues; i++)
		if (__atomic_load_n(&t->queues[i].handling, __ATOMIC_ACQUIRE))
			return true;
	return false;
}

/*
 * These two look at slots that belong to others, for the log only: what they see may be old or half new, and the pointer
 * leads into the slot whatever the moment.
 */
#define LOOKS_ONLY __attribute__((no_sanitize("thread"), noinline))
static void log_one(const struct tr_req *r) LOOKS_ONLY;
static void log_one(const struct tr_req *r)
{
	const struct fuse_write_in *io = r->in.arg; /* READ begins like it */
	uint32_t op = r->in.h.opcode;
	char where[64] = "";

	if ((op == FUSE_READ || op == FUSE_WRITE) && io)
		snprintf(where, sizeof(where), ", %u bytes at %llu", io->size, (unsigned long long)io->offset);
	log_warn("no answer yet to %s of inode %llu%s (request %llu, process %u)", pro_opcode_name(op), (unsigned long long)r->in.h.nodeid,
		 where, (unsigned long long)r->in.h.unique, r->in.h.pid);
}

LOOKS_ONLY void tr_log_busy(struct tr *t)
{
	unsigned n = 0;

	for (unsigned i = 0; i < t->nr_queues; i++)
		for (unsigned s = 0; s < t->queues[i].nr_slots; s++) {
			const struct tr_req *r = tr_slot(&t->queues[i], s);
			if (__atomic_load_n(&r->state, __ATOMIC_RELAXED) && n++ < LOG_BUSY_MAX)
				log_one(r);
		}
	log_warn("%u requests have no answer yet", n);
}

/* The requests of DESTROY itself stay busy: they are answered last. */
static void drain_handlers(struct tr *t)
{
	uint64_t warn_at = fdio_now_ns() + DRAIN_WARN_NS;
	struct timespec nap = { .tv_nsec = DRAIN_POLL_NS };

	for (;;) {
		fdio_mutex_lock(&t->lock);
		unsigned keep = t->destroy_req ? 1 : 0;
		fdio_mutex_unlock(&t->lock);
		if (busy_slots(t) <= keep && !any_handling(t))
			return;
		if (fdio_now_ns() > warn_at) {
			tr_log_busy(t);
			warn_at = UINT64_MAX;
		}
		nanosleep(&nap, NULL);
	}
}

static void *control_main(void *arg)
{
	struct tr *t = arg;

	fdio_magic_check(t, MAGIC_TRANSPORT);
	fdio_mutex_lock(&t->lock);
	while (t->end == TR_RUNNING)
		fdio_cond_wait(&t->changed, &t->lock);
	enum tr_end why = t->end;
	fdio_mutex_unlock(&t->lock);

	__atomic_store_n(&t->stopping, true, __ATOMIC_SEQ_CST); /* DISPATCH-2 in dispatch.c */
	if (t->cfg.ending)
		t->cfg.ending(t->cfg.arg);
	drain_handlers(t);
	t->cfg.destroy(t->cfg.arg, why == TR_ABORTED);

	fdio_mutex_lock(&t->lock);
	struct tr_req *r = t->destroy_req;
	t->destroy_req = NULL;
	t->finished = true;
	pthread_cond_broadcast(&t->changed);
	fdio_mutex_unlock(&t->lock);
	if (r)
		tr_reply(r, 0, 0);
	return NULL;
}

static void start_queue(struct loop_msg *m)
{
	struct tr_queue *q = container_of(m, struct tr_queue, start_msg);

	fdio_magic_check(q, MAGIC_TRANSPORT_QUEUE);
	q->tr->chan->arm(q);
}

static int start_control(struct tr *t)
{
	int err = thread_start(&t->control, "fusedio-ctl", control_main, t);

	t->control_on = !err;
	return err;
}

int tr_start(struct tr *t, struct fdio_reason *reason)
{
	int err = tr_init_handshake(t, reason);

	if (err)
		return err;
	err = t->chan->open(t);
	if (err) {
		fdio_reason_set(reason, "cannot open the %s channel: %s", t->chan->name,
				strerror(-err));
		return err;
	}
	__atomic_store_n(&t->conn.channel, t->chan->name, __ATOMIC_RELAXED);
	err = start_control(t);
	if (err) {
		fdio_reason_set(reason, "cannot start the control thread: %s", strerror(-err));
		return err;
	}
	log_info("FUSE 7.%u over %s, %u loops with %u slots each", t->conn.proto_minor, t->chan->name, t->nr_queues, t->queues[0].nr_slots);
	for (unsigned i = 0; i < t->nr_queues; i++)
		loop_post(t->queues[i].loop, &t->queues[i].start_msg, start_queue);
	return 0;
}

void tr_unmount(struct tr *t)
{
	int err;

	if (!t->mounted)
		return;
	err = tr_umount_try(t);
	if (!err || err == -EINVAL || err == -EEXIST) {
		/* Unmounted: the channel ends by itself. A plain fuse mount says so on the clones. If it was no longer mounted, or is
		 * out of reach, whoever still uses it gets errors. */
		if (err)
			tr_end(t, TR_GONE, NULL);
		return;
	}
	log_info("%s is busy (%s): detaching it; open files get errors from now on", t->mountpoint, strerror(-err));
	tr_umount_lazy(t);
	tr_end(t, TR_GONE, NULL);
}

void tr_let_go(struct tr *t) { tr_end(t, TR_GONE, NULL); }

void tr_wait(struct tr *t)
{
	if (!t->control_on)
		return;
	pthread_join(t->control, NULL);
	t->control_on = false;
}

void tr_free(struct tr *t)
{
	if (!t)
		return;
	FDIO_ASSERT(!t->control_on);
	if (t->chan && t->queues)
		t->chan->close(t);
	tr_umount_libfuse(t);
	tr_slots_free(t);
	free(t->source);
	free(t->mountpoint);
	free(t->mount_opts);
	pthread_cond_destroy(&t->changed);
	fdio_mutex_fini(&t->lock);
	fdio_magic_clear(t, MAGIC_TRANSPORT);
	free(t);
}
