/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tells the control thread (transport.c) that the connection ends. The callers are the channels,
 * dispatch.c (DESTROY) and transport_unmount, so this is a file of its own, below all of them. Any
 * thread; transport.lock is held for a moment; nothing fails.
 */
#include "transport/types.h"

void transport_end(struct transport *transport, enum transport_end why, struct transport_req *req)
{
	fdio_mutex_lock(&transport->lock);
	if (transport->end == TRANSPORT_RUNNING)
		transport->end = why;
	if (req)
		transport->destroy_req = req;
	pthread_cond_broadcast(&transport->changed);
	fdio_mutex_unlock(&transport->lock);
}
