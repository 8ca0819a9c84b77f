/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A mark in each long-lived struct that says of which type it is. The mark is set when the struct
 * is made, checked where a pointer to it comes back through a void pointer, a callback or
 * container_of, and cleared before the struct is freed. So a wrong or dead pointer aborts the
 * program where it is first used. Only in builds with --enable-debug or a sanitizer: in others the
 * field and the calls are empty, so nothing may depend on the size of a marked struct. Any thread,
 * no locks.
 *
 * 	struct loop { FDIO_MAGIC_FIELD; ... };
 * 	fdio_magic_set(loop, MAGIC_LOOP);      after allocating it
 * 	fdio_magic_check(loop, MAGIC_LOOP);    where it comes back
 * 	fdio_magic_clear(loop, MAGIC_LOOP);    checks, and marks it dead
 */
#ifndef FDIO_BASE_MAGIC_H
#define FDIO_BASE_MAGIC_H

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "base/util.h"

enum fdio_magic {
	MAGIC_NONE = 0,
	MAGIC_LOOP = 0xfd100001,       /* loop: struct loop */
	MAGIC_LOOP_SET,
	MAGIC_DEV,                     /* dev: struct dev */
	MAGIC_EXT4_VOLUME,             /* ext4: struct ext4_vol */
	MAGIC_EXT4_INODE,              /* struct ext4_inode */
	MAGIC_JOURNAL,                 /* journal: struct journal */
	MAGIC_JOURNAL_HANDLE,          /* struct journal_handle, while it is open */
	MAGIC_JOURNAL_TRANSACTION,     /* struct journal_transaction */
	MAGIC_JOURNAL_BUFFER,          /* struct journal_cache_buffer */
	MAGIC_TRANSPORT,               /* transport: struct transport */
	MAGIC_TRANSPORT_QUEUE,         /* struct transport_queue */
	MAGIC_TRANSPORT_REQ,           /* struct transport_req */
	MAGIC_SESSION,                 /* command: struct session */
	MAGIC_SIGNALS,
	MAGIC_WATCHDOG,
	MAGIC_UNMOUNTER,
	MAGIC_DEAD,                    /* of a struct that was cleared; must be the last */
};

#ifdef FDIO_DEBUG_LOCKS
#define FDIO_MAGIC_FIELD enum fdio_magic fdio_magic
#define fdio_magic_set(p, kind) ((void)((p)->fdio_magic = (kind)))
#define fdio_magic_check(p, kind) FDIO_ASSERT((p)->fdio_magic == (kind))
#define fdio_magic_clear(p, kind)            \
	do {                                 \
		fdio_magic_check(p, kind);   \
		(p)->fdio_magic = MAGIC_DEAD; \
	} while (0)
#else
#define FDIO_MAGIC_FIELD
#define fdio_magic_set(p, kind) ((void)(p))
#define fdio_magic_check(p, kind) ((void)(p))
#define fdio_magic_clear(p, kind) ((void)(p))
#endif

#endif
