/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Dispatch: opcode to handler, on the loop thread or on a worker; and what every family uses. ops_handle runs on
 * the loop thread that received the request and never blocks. No lock is held across a call into the rooms
 * below. An opcode without a handler gets ENOSYS: the kernel then stops sending it.
 */
#include "ops/ops_types.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define STATUS_CAP (1 << 20) /* 65536 groups of ten digits and more */

static const struct ops_handler handlers[] = {
	[FUSE_LOOKUP] = { ops_lookup, OPS_LOOP | OPS_SHUT },
	[FUSE_GETATTR] = { ops_getattr, OPS_LOOP | OPS_SHUT },
	[FUSE_SETATTR] = { ops_setattr, OPS_CHANGE },
	[FUSE_READLINK] = { ops_readlink, OPS_SHUT },
	[FUSE_SYMLINK] = { ops_symlink, OPS_CHANGE },
	[FUSE_MKNOD] = { ops_mknod, OPS_CHANGE },
	[FUSE_MKDIR] = { ops_mkdir, OPS_CHANGE },
	[FUSE_UNLINK] = { ops_unlink, OPS_CHANGE },
	[FUSE_RMDIR] = { ops_rmdir, OPS_CHANGE },
	[FUSE_RENAME] = { ops_rename, OPS_CHANGE },
	[FUSE_RENAME2] = { ops_rename2, OPS_CHANGE },
	[FUSE_LINK] = { ops_link, OPS_CHANGE },
	[FUSE_OPEN] = { ops_open, 0 },
	[FUSE_CREATE] = { ops_create, OPS_CHANGE },
	[FUSE_TMPFILE] = { ops_tmpfile, OPS_CHANGE },
	[FUSE_RELEASE] = { ops_release, OPS_SHUT },
	[FUSE_READ] = { ops_read, OPS_LOOP },
	[FUSE_WRITE] = { ops_write, OPS_LOOP | OPS_CHANGE },
	[FUSE_LSEEK] = { ops_lseek, OPS_SHUT },
	[FUSE_FALLOCATE] = { ops_fallocate, OPS_CHANGE },
	[FUSE_OPENDIR] = { ops_opendir, OPS_SHUT },
	[FUSE_READDIR] = { ops_readdir, OPS_SHUT },
	[FUSE_READDIRPLUS] = { ops_readdirplus, OPS_SHUT },
	[FUSE_RELEASEDIR] = { ops_release, OPS_SHUT },
	[FUSE_FSYNC] = { ops_fsync, OPS_LOOP },
	[FUSE_FSYNCDIR] = { ops_fsyncdir, OPS_LOOP },
	[FUSE_SYNCFS] = { ops_syncfs, OPS_LOOP },
	[FUSE_SETXATTR] = { ops_setxattr, OPS_CHANGE },
	[FUSE_GETXATTR] = { ops_getxattr, 0 },
	[FUSE_LISTXATTR] = { ops_listxattr, OPS_SHUT },
	[FUSE_REMOVEXATTR] = { ops_removexattr, OPS_CHANGE },
	[FUSE_STATFS] = { ops_statfs, OPS_SHUT },
	[FUSE_STATX] = { ops_statx, OPS_SHUT },
	[FUSE_IOCTL] = { ops_ioctl, OPS_SHUT },
};

size_t ops_req_size(void) { return sizeof(struct ops_req); }

void ops_reply_err(struct ops_req *q, int err)
{
	/* What was under way when the volume was shut down met an aborted journal. */
	if (unlikely(err == -EROFS) && x4_vol_is_shut_down(q->ops->vol))
		err = -EIO;
	tr_reply(&q->tr, err, 0);
}

static void run_on_worker(struct work *w)
{
	struct ops_req *q = container_of(w, struct ops_req, work);

	q->handler->fn(q);
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
	else
		wq_queue(o->cfg.workers, &q->work, run_on_worker);
}

/* ------------------------------------------------------------------ inodes */

/* A reference whose drop deletes an inode; rare, so it may be allocated. */
struct deferred_put {
	struct work work;
	struct x4_inode *inode;
	uint64_t n;
};

static void put_on_worker(struct work *w)
{
	struct deferred_put *p = container_of(w, struct deferred_put, work);

	x4_iput_n(p->inode, p->n);
	free(p);
}

void ops_put(struct ops *o, struct x4_inode *i, uint64_t n)
{
	struct deferred_put *p;

	if (!x4_iput_would_block(i, n)) {
		x4_iput_n(i, n);
		return;
	}
	p = malloc(sizeof(*p));
	if (!p) {
		/* The inode stays on the orphan list; unmounting or the next mount deletes it. */
		log_warn("out of memory: inode %u is deleted later", x4_inode_ino(i));
		return;
	}
	p->inode = i;
	p->n = n;
	wq_queue(o->cfg.workers, &p->work, put_on_worker);
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

struct x4_inode *ops_iget_cached(struct ops *o, uint64_t nodeid)
{
	uint32_t ino;

	return nodeid_to_ino(nodeid, &ino) ? NULL : x4_iget_cached(o->vol, ino);
}

void ops_forget(void *arg, uint64_t nodeid, uint64_t nlookup)
{
	struct ops *o = arg;
	struct x4_inode *i;

	/* The root's reference is the volume's own; the kernel's lookups of it are not counted. */
	if (nodeid == FUSE_ROOT_ID || !nlookup)
		return;
	i = ops_iget_cached(o, nodeid);
	/* Never more than the kernel was given; and the one just taken. */
	if (i)
		ops_put(o, i, x4_lookups_sub(i, nlookup) + 1);
}

void ops_cred(struct ops_req *q, uint32_t umask, struct x4_cred *c)
{
	const struct pro_in *in = &q->tr.in;

	*c = (struct x4_cred){
		.uid = in->h.uid, .gid = in->h.gid, .umask = umask & 07777, .cap_fsetid = in->h.uid == 0,
		.groups = in->groups, .nr_groups = in->nr_groups,
	};
}

/*
 * The supplementary groups are told only with requests that create. Otherwise they are read where the kernel shows them: rarely, for
 * files with the setgid bit and no group execution. What cannot be found out counts as not a member, which takes the bit away.
 */
static bool has_group(const char *text, uint32_t gid)
{
	const char *p = strstr(text, "\nGroups:");
	char *end;

	if (!p)
		return false;
	p += strlen("\nGroups:");
	for (;;) {
		while (*p == ' ' || *p == '\t')
			p++;
		unsigned long g = strtoul(p, &end, 10);
		if (end == p || *p < '0' || *p > '9')
			return false;
		if (g == gid)
			return true;
		p = end;
	}
}

static bool in_supplementary_group(const struct ops_req *q, uint32_t gid)
{
	char name[32], *text;
	ssize_t n = 0, r;
	bool found;
	int fd;

	if (q->ops->proc < 0 || !q->tr.in.h.pid)
		return false;
	snprintf(name, sizeof(name), "%u/status", q->tr.in.h.pid);
	fd = openat(q->ops->proc, name, O_RDONLY | O_CLOEXEC);
	text = malloc(STATUS_CAP);
	while (fd >= 0 && text && n < STATUS_CAP - 1 && (r = read(fd, text + n, (size_t)(STATUS_CAP - 1 - n))) > 0)
		n += r;
	if (text)
		text[n] = '\0';
	found = text && has_group(text, gid);
	free(text);
	if (fd >= 0)
		close(fd);
	return found;
}

static bool in_group(const struct ops_req *q, uint32_t gid)
{
	if (q->tr.in.h.uid == 0 || q->tr.in.h.gid == gid)
		return true;
	return in_supplementary_group(q, gid);
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

int ops_dir_durable(struct ops *o, struct x4_inode *dir, int err)
{
	if (err || !dir)
		return err;
	if (o->cfg.dirsync || o->cfg.sync || (x4_inode_flags(dir) & (OPS_FL_SYNC | OPS_FL_DIRSYNC)))
		return ops_wait_durable(o, dir, false);
	return 0;
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
	fdio_mutex_init(&o->files_lock, RANK_OPS_FILES);
	o->proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	err = ops_notify_new(o);
	if (err) {
		if (o->proc >= 0)
			close(o->proc);
		fdio_mutex_fini(&o->files_lock);
		free(o);
		return err;
	}
	*ret = o;
	return 0;
}

void ops_set_dio(struct ops *o, struct dio *d) { o->dio = d; }
void ops_set_tr(struct ops *o, struct tr *t) { o->tr = t; }

void ops_shutdown(struct ops *o)
{
	struct ops_file f;

	wq_drain(o->cfg.workers);
	while (ops_file_remove_any(o, &f)) {
		if (f.df)
			dio_file_close(f.df);
		x4_iput(f.inode);
	}
	wq_drain(o->cfg.workers);
}

void ops_free(struct ops *o)
{
	if (!o)
		return;
	ops_notify_free(o);
	ops_files_free(o);
	fdio_mutex_fini(&o->files_lock);
	if (o->proc >= 0)
		close(o->proc);
	free(o);
}
