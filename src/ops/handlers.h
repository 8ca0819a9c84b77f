/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside src/ops: the handlers, by file. dispatch.c has the table of opcodes, and the flags that
 * say on which thread each handler runs; types.h has the rules that handlers follow. Each handler
 * answers its request once, and reports errors (-errno) in the answer.
 */
#ifndef FDIO_OPS_HANDLERS_H
#define FDIO_OPS_HANDLERS_H

#include "base/nowait.h"

struct ops_req;

/* ---- lookup.c ---- */
void ops_lookup(struct ops_req *req) FDIO_MAY_WAIT;

/* ---- attributes.c ---- */
void ops_getattr(struct ops_req *req) FDIO_MAY_WAIT;
void ops_setattr(struct ops_req *req) FDIO_MAY_WAIT;
void ops_statx(struct ops_req *req) FDIO_MAY_WAIT;

/* ---- names.c ---- */
void ops_mknod(struct ops_req *req) FDIO_MAY_WAIT;
void ops_mkdir(struct ops_req *req) FDIO_MAY_WAIT;
void ops_symlink(struct ops_req *req) FDIO_MAY_WAIT;
void ops_unlink(struct ops_req *req) FDIO_MAY_WAIT;
void ops_rmdir(struct ops_req *req) FDIO_MAY_WAIT;
void ops_rename(struct ops_req *req) FDIO_MAY_WAIT;
void ops_rename2(struct ops_req *req) FDIO_MAY_WAIT;
void ops_link(struct ops_req *req) FDIO_MAY_WAIT;
void ops_readlink(struct ops_req *req) FDIO_MAY_WAIT;

/* ---- open.c ---- */
void ops_open(struct ops_req *req) FDIO_MAY_WAIT;
void ops_create(struct ops_req *req) FDIO_MAY_WAIT;
void ops_tmpfile(struct ops_req *req) FDIO_MAY_WAIT;
void ops_release(struct ops_req *req) FDIO_MAY_WAIT;

/* ---- directories.c ---- */
void ops_opendir(struct ops_req *req) FDIO_MAY_WAIT;
void ops_readdir(struct ops_req *req) FDIO_MAY_WAIT;
void ops_readdirplus(struct ops_req *req) FDIO_MAY_WAIT;

/* ---- read_write.c ---- */
void ops_read(struct ops_req *req);
void ops_write(struct ops_req *req);

/* ---- space.c ---- */
void ops_lseek(struct ops_req *req) FDIO_BLOCKS;
void ops_fallocate(struct ops_req *req) FDIO_BLOCKS;

/* ---- sync.c ---- */
void ops_fsync(struct ops_req *req);
void ops_fsyncdir(struct ops_req *req);
void ops_syncfs(struct ops_req *req);

/* ---- xattrs.c ---- */
void ops_setxattr(struct ops_req *req) FDIO_BLOCKS;
void ops_getxattr(struct ops_req *req) FDIO_MAY_WAIT;
void ops_listxattr(struct ops_req *req) FDIO_MAY_WAIT;
void ops_removexattr(struct ops_req *req) FDIO_BLOCKS;

/* ---- statfs.c ---- */
void ops_statfs(struct ops_req *req);

/* ---- ioctl.c ---- */
void ops_ioctl(struct ops_req *req) FDIO_BLOCKS;

#endif
