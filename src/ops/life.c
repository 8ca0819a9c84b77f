/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of struct ops: made before the engine and the transport, which get callbacks into it,
 * and ended after the last request. On the thread of the mount. Fails with ENOMEM.
 */
#include "ops/types.h"

#include <stdlib.h>

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
	ops_nodes_init(o);
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
	/*
	 * those that followed their answer: nothing else waits for them, and the transport goes
	 * next
	 */
	ops_notify_drain(o);
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
