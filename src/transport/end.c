/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The news that a connection ends, from a channel, from dispatch.c (DESTROY) or from an unmount, to
 * the control thread (transport.c). A file of its own, below all of these. Any thread;
 * transport.lock is held for a moment; nothing fails.
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
