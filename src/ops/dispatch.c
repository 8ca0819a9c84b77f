/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Dispatch: opcode to handler, on the loop thread or on a worker; and what every family uses. ops_handle runs on
 * the loop thread that received the request and never blocks: what might is tried in the mode of nowait.h, and done again on a
 * worker if it would have. No lock is held across a call into the rooms
 * below. An opcode without a handler gets ENOSYS: the kernel then stops sending it.
 */
#include "ops/types.h"

#include <stdlib.h>

static const struct ops_handler handlers[] = {
	[FUSE_LOOKUP] = { ops_lookup, OPS_TRY | OPS_SHUT },
	[FUSE_GETATTR] = { ops_getattr, OPS_TRY | OPS_SHUT },
	[FUSE_SETATTR] = { ops_setattr, OPS_TRY | OPS_CHANGE },
	[FUSE_READLINK] = { ops_readlink, OPS_TRY | OPS_SHUT },
	[FUSE_SYMLINK] = { ops_symlink, OPS_TRY | OPS_CHANGE },
	[FUSE_MKNOD] = { ops_mknod, OPS_TRY | OPS_CHANGE },
	[FUSE_MKDIR] = { ops_mkdir, OPS_TRY | OPS_CHANGE },
	[FUSE_UNLINK] = { ops_unlink, OPS_TRY | OPS_CHANGE },
	[FUSE_RMDIR] = { ops_rmdir, OPS_TRY | OPS_CHANGE },
	[FUSE_RENAME] = { ops_rename, OPS_TRY | OPS_CHANGE },
	[FUSE_RENAME2] = { ops_rename2, OPS_TRY | OPS_CHANGE },
	[FUSE_LINK] = { ops_link, OPS_TRY | OPS_CHANGE },
	[FUSE_OPEN] = { ops_open, OPS_TRY },
	[FUSE_CREATE] = { ops_create, OPS_TRY | OPS_CHANGE },
	[FUSE_TMPFILE] = { ops_tmpfile, OPS_TRY | OPS_CHANGE },
	[FUSE_RELEASE] = { ops_release, OPS_TRY | OPS_SHUT },
	[FUSE_READ] = { ops_read, OPS_LOOP },
	[FUSE_WRITE] = { ops_write, OPS_LOOP | OPS_CHANGE },
	[FUSE_LSEEK] = { ops_lseek, OPS_SHUT },
	[FUSE_FALLOCATE] = { ops_fallocate, OPS_CHANGE },
	[FUSE_OPENDIR] = { ops_opendir, OPS_TRY | OPS_SHUT },
	[FUSE_READDIR] = { ops_readdir, OPS_TRY | OPS_SHUT },
	[FUSE_READDIRPLUS] = { ops_readdirplus, OPS_TRY | OPS_SHUT },
	[FUSE_RELEASEDIR] = { ops_release, OPS_TRY | OPS_SHUT },
	[FUSE_FSYNC] = { ops_fsync, OPS_LOOP },
	[FUSE_FSYNCDIR] = { ops_fsyncdir, OPS_LOOP },
	[FUSE_SYNCFS] = { ops_syncfs, OPS_LOOP },
	[FUSE_SETXATTR] = { ops_setxattr, OPS_CHANGE },
	[FUSE_GETXATTR] = { ops_getxattr, OPS_TRY },
	[FUSE_LISTXATTR] = { ops_listxattr, OPS_TRY | OPS_SHUT },
	[FUSE_REMOVEXATTR] = { ops_removexattr, OPS_CHANGE },
	[FUSE_STATFS] = { ops_statfs, OPS_TRY | OPS_SHUT },
	[FUSE_STATX] = { ops_statx, OPS_TRY | OPS_SHUT },
	[FUSE_IOCTL] = { ops_ioctl, OPS_SHUT },
};

size_t ops_req_size(void) { return sizeof(struct ops_req); }

/* A try came to its end without an answer. */
static __thread bool withheld;

static bool withhold(void)
{
	if (!nowait_missed())
		return false;
	withheld = true;
	return true;
}

void ops_reply(struct ops_req *q, int err, uint32_t len)
{
	/* What was under way when the volume was shut down met an aborted journal. */
	if (unlikely(err == -EROFS) && x4_vol_is_shut_down(q->ops->vol))
		err = -EIO;
	if (!withhold())
		tr_reply(&q->tr, err, len);
}

void ops_reply_err(struct ops_req *q, int err) { ops_reply(q, err, 0); }

void ops_reply_data(struct ops_req *q, const void *data, uint32_t len)
{
	if (!withhold())
		tr_reply_data(&q->tr, data, len);
}

static void run_on_worker(struct work *w)
{
	struct ops_req *q = container_of(w, struct ops_req, work);

	q->handler->fn(q);
}

/* q may be gone when it returns. */
static void try_on_loop(struct ops_req *q)
{
	struct wq *workers = q->ops->cfg.workers;

	withheld = false;
	nowait_begin();
	q->handler->fn(q);
	if (!withheld) {
		nowait_end();
		fdio_count(CTR_ops_loop);
		return;
	}
	FDIO_ASSERT(!nowait_self.done); /* it would be done twice */
	nowait_end();
	fdio_count(CTR_ops_again);
	wq_queue(workers, &q->work, run_on_worker);
}

void ops_handle(struct tr_req *r, void *arg)
{
	struct ops_req *q = ops_of(r);
	struct ops *o = arg;
	uint32_t op = r->in.h.opcode;
	const struct ops_handler *h = op < ARRAY_SIZE(handlers) ? &handlers[op] : NULL;

	q->ops = o;
	q->handler = h;
	q->inode = NULL;
	q->laundered = false;
	if (!h || !h->fn) {
		ops_reply_err(q, -ENOSYS);
		return;
	}
	if (unlikely(x4_vol_is_shut_down(o->vol)) && !(h->flags & OPS_SHUT)) {
		ops_reply_err(q, -EIO);
		return;
	}
	if ((h->flags & OPS_CHANGE) && x4_vol_read_only(o->vol)) {
		ops_reply_err(q, -EROFS);
		return;
	}
	if (h->flags & OPS_LOOP)
		h->fn(q);
	else if (h->flags & OPS_TRY)
		try_on_loop(q);
	else
		wq_queue(o->cfg.workers, &q->work, run_on_worker);
}

/* ------------------------------------------------------------------ inodes */

static void reap_on_worker(struct work *w)
{
	struct ops *o = container_of(w, struct ops, reap_work);

	__atomic_store_n(&o->reap_queued, false, __ATOMIC_SEQ_CST); /* from here on it can be queued again */
	x4_vol_reap(o->vol);
}

static void reap_due(void *arg)
{
	struct ops *o = arg;

	if (!__atomic_exchange_n(&o->reap_queued, true, __ATOMIC_SEQ_CST))
		wq_queue(o->cfg.workers, &o->reap_work, reap_on_worker);
}

static int nodeid_to_ino(uint64_t nodeid, uint32_t *ret)
{
	if (nodeid == FUSE_ROOT_ID)
		*ret = X4_ROOT_INO;
	else if (nodeid >= OPS_FIRST_INO && nodeid <= UINT32_MAX)
		*ret = (uint32_t)nodeid;
	else
		return -ESTALE;
	return 0;
}

int ops_iget(struct ops *o, uint64_t nodeid, struct x4_inode **ret)
{
	uint32_t ino;
	int err = nodeid_to_ino(nodeid, &ino);

	if (err)
		return err;
	err = x4_iget(o->vol, ino, NULL, ret);
	return err == -ENOENT ? -ESTALE : err;
}

void ops_unlookup(struct ops *o, uint64_t nodeid, uint64_t nlookup)
{
	struct x4_inode *i;
	uint32_t ino;

	/* The root's reference is the volume's own; the kernel's lookups of it are not counted. */
	if (nodeid == FUSE_ROOT_ID || !nlookup || nodeid_to_ino(nodeid, &ino))
		return;
	i = x4_iget_cached(o->vol, ino);
	if (!i)
		return;
	/* Never more than the kernel was given; and the one just taken. */
	x4_iput_n(i, x4_lookups_sub(i, nlookup) + 1);
}

void ops_forget(void *arg, uint64_t nodeid, uint64_t nlookup)
{
	nowait_begin();
	ops_unlookup(arg, nodeid, nlookup);
	nowait_end();
}

/* FUSE does not tell who is a supplementary member of the group. */
bool ops_may_use_reserved(const struct ops_req *q)
{
	const struct ops_config *c = &q->ops->cfg;
	const struct fuse_in_header *h = &q->tr.in.h;

	return h->uid == 0 || h->uid == c->resuid || (c->resgid && h->gid == c->resgid);
}

void ops_cred(struct ops_req *q, uint32_t umask, struct x4_cred *c)
{
	const struct pro_in *in = &q->tr.in;

	*c = (struct x4_cred){
		.uid = in->h.uid, .gid = in->h.gid, .umask = umask & 07777, .cap_fsetid = in->h.uid == 0,
		.root = ops_may_use_reserved(q),
		.groups = in->groups, .nr_groups = in->nr_groups,
	};
}

/*
 * The supplementary groups are told only with requests that create. Otherwise somebody asks the kernel: rarely, for files
 * with the setgid bit and no group execution. What cannot be found out counts as not a member, which takes the bit away.
 */
static bool in_group(const struct ops_req *q, uint32_t gid)
{
	const struct ops_config *c = &q->ops->cfg;
	const struct fuse_in_header *h = &q->tr.in.h;

	if (h->uid == 0 || h->gid == gid)
		return true;
	if (nowait_on()) {
		nowait_miss();
		return false;
	}
	return c->in_group && h->pid && c->in_group(c->arg, h->pid, gid);
}

bool ops_capable(const struct ops_req *q, unsigned cap)
{
	const struct ops_config *c = &q->ops->cfg;
	const struct fuse_in_header *h = &q->tr.in.h;

	return c->capable && c->capable(c->arg, h->pid, h->uid, cap);
}

unsigned ops_kill_what(const struct ops_req *q, struct x4_inode *i)
{
	struct x4_attr a;

	x4_getattr(i, &a);
	if (!(a.mode & S_ISGID) || (a.mode & S_IXGRP) || in_group(q, a.gid))
		return X4_KILL_SUIDGID;
	return X4_KILL_SUIDGID | X4_KILL_SGID;
}

unsigned ops_kill_sgid(const struct dio_req *r)
{
	return ops_kill_what(container_of(r, struct ops_req, dio), dio_file_inode(r->file)) & X4_KILL_SGID;
}

/* ------------------------------------------------------------------ durability of names */

struct durable_wait {
	struct dio_sync sync;
	struct fdio_mutex lock;
	pthread_cond_t cond;
	bool done;
	int err;
};

static void durable_done(struct dio_sync *s, int err)
{
	struct durable_wait *d = container_of(s, struct durable_wait, sync);

	fdio_mutex_lock(&d->lock);
	d->err = err;
	d->done = true;
	pthread_cond_signal(&d->cond);
	fdio_mutex_unlock(&d->lock);
}

int ops_wait_durable(struct ops *o, struct x4_inode *i, bool datasync)
{
	struct durable_wait d = { .sync = { .inode = i, .datasync = datasync, .done = durable_done } };

	fdio_mutex_init(&d.lock, RANK_LEAF);
	fdio_cond_init(&d.cond);
	dio_fsync(o->dio, &d.sync);
	fdio_mutex_lock(&d.lock);
	while (!d.done)
		fdio_cond_wait(&d.cond, &d.lock);
	fdio_mutex_unlock(&d.lock);
	pthread_cond_destroy(&d.cond);
	fdio_mutex_fini(&d.lock);
	return d.err;
}

bool ops_is_sync(struct ops *o, struct x4_inode *i) { return o->cfg.sync || (x4_inode_live_flags(i) & X4_LIVE_SYNC); }

bool ops_names_are_sync(struct ops *o, struct x4_inode *dir)
{
	return ops_is_sync(o, dir) || o->cfg.dirsync || (x4_inode_flags(dir) & OPS_FL_DIRSYNC);
}

int ops_may_change(struct ops *o, struct x4_inode *i)
{
	bool sync = S_ISDIR(x4_inode_mode(i)) ? ops_names_are_sync(o, i) : ops_is_sync(o, i);

	return nowait_on() && sync ? nowait_miss() : 0;
}

/* A loop thread has asked before; somebody may have set the flag since, and then this change came first. */
int ops_inode_durable(struct ops *o, struct x4_inode *i, int err)
{
	return err || nowait_on() || !ops_is_sync(o, i) ? err : ops_wait_durable(o, i, false);
}

int ops_dir_durable(struct ops *o, struct x4_inode *dir, int err)
{
	return err || nowait_on() || !ops_names_are_sync(o, dir) ? err : ops_wait_durable(o, dir, false);
}

/* Attributes alone are invalidated, which waits for no page. What cannot be found out counts as held. */
static bool kernel_holds(void *arg, uint32_t ino)
{
	struct ops *o = arg;

	fdio_count(CTR_ops_held_asked);
	return !o->tr || tr_notify_inval_inode(o->tr, ino == X4_ROOT_INO ? FUSE_ROOT_ID : ino, -1, 0) != -ENOENT;
}

/* ------------------------------------------------------------------ life */

int ops_new(const struct ops_config *cfg, struct ops **ret)
{
	struct ops *o = calloc(1, sizeof(*o));
	int err;

	if (!o)
		return -ENOMEM;
	o->cfg = *cfg;
	o->vol = cfg->vol;
	o->has_inline = x4_vol_has_inline(o->vol);
	fdio_mutex_init(&o->files_lock, RANK_OPS_FILES);
	err = ops_notify_new(o);
	if (!err)
		err = ops_launder_new(o);
	if (err) {
		ops_notify_free(o);
		fdio_mutex_fini(&o->files_lock);
		free(o);
		return err;
	}
	x4_vol_set_reaper(o->vol, reap_due, o);
	x4_vol_set_held(o->vol, kernel_holds, o);
	*ret = o;
	return 0;
}

void ops_set_dio(struct ops *o, struct dio *d) { o->dio = d; }
void ops_set_tr(struct ops *o, struct tr *t) { o->tr = t; }

void ops_shutdown(struct ops *o)
{
	struct ops_file f;
	uint32_t index = 0;

	wq_drain(o->cfg.workers);
	while (ops_file_remove_next(o, &index, &f)) {
		if (f.df)
			dio_file_close(f.df);
		x4_iput(f.inode);
	}
	wq_drain(o->cfg.workers);
	ops_launder_drain(o);
	ops_notify_drain(o); /* those that followed their answer: nothing else waits for them, and the transport goes next */
}

void ops_free(struct ops *o)
{
	if (!o)
		return;
	ops_launder_free(o);
	ops_notify_free(o);
	ops_files_free(o);
	fdio_mutex_fini(&o->files_lock);
	free(o);
}
