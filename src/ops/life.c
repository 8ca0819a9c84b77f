/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of struct ops: made before the engine and the transport, which get callbacks into it,
 * and shut down after the last request. The main thread makes and frees it; ops_shutdown runs on
 * the thread that ends the mount, and blocks until everything is closed. Making it fails with
 * ENOMEM.
 */
#include "ops/types.h"

#include <stdlib.h>

int ops_new(const struct ops_config *config, struct ops **ret)
{
	struct ops *ops = calloc(1, sizeof(*ops));
	int err;

	if (!ops)
		return -ENOMEM;
	ops->config = *config;
	ops->vol = config->vol;
	ops->has_inline = ext4_vol_has_inline(ops->vol);
	fdio_mutex_init(&ops->files_lock, RANK_OPS_FILES);
	err = ops_notify_new(ops);
	if (!err)
		err = ops_launder_new(ops);
	if (err) {
		ops_notify_free(ops);
		fdio_mutex_fini(&ops->files_lock);
		free(ops);
		return err;
	}
	ops_nodes_init(ops);
	*ret = ops;
	return 0;
}

void ops_set_dio(struct ops *ops, struct dio *dio) { ops->dio = dio; }
void ops_set_transport(struct ops *ops, struct transport *transport) { ops->transport = transport; }

void ops_shutdown(struct ops *ops)
{
	struct ops_file file;
	uint32_t index = 0;

	work_queue_drain(ops->config.workers);
	while (ops_file_remove_next(ops, &index, &file)) {
		if (file.file)
			dio_file_close(file.file);
		ext4_inode_put(file.inode);
	}
	work_queue_drain(ops->config.workers);
	ops_launder_drain(ops);
	/* Notifications may be sent after the answer (NOTIFY-1), and still need the transport. */
	ops_notify_drain(ops);
}

void ops_free(struct ops *ops)
{
	if (!ops)
		return;
	ops_launder_free(ops);
	ops_notify_free(ops);
	ops_files_free(ops);
	fdio_mutex_fini(&ops->files_lock);
	free(ops);
}
