/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Doorbells: notifications that hardware virtualization turns into an eventfd's count, without an exit to us (io_ops.doorbells). The
 * event loop does what the exit would have done. Only models that ask for them (virtio_ops.doorbells) have any: those whose
 * requests are worth another thread, and none whose work the guest expects to be done when its write is (a console's last words).
 *
 * bell_lock is held while a bell is answered, and `paused` looked at under it, so that virtio_bells_settle() means: nothing is
 * answered any more. A bell that is not answered is none lost: virtio_resume kicks every queue.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/evloop.h"
#include "virtio/virtio.h"

struct virtio_bell {
	struct virtio *v;
	unsigned queue;
	int fd;
	struct evsource *source;
};

struct virtio_bells {
	pthread_mutex_t lock;
	struct virtio_bell bell[VIRTIO_QUEUES];
};

static void answer(void *opaque, uint32_t events)
{
	struct virtio_bell *b = opaque;
	struct virtio *v = b->v;
	uint64_t count;

	if (read(b->fd, &count, sizeof(count)) != sizeof(count))
		return;
	pthread_mutex_lock(&v->bells->lock);
	if (!v->paused)
		virtio_notify(v, b->queue);
	pthread_mutex_unlock(&v->bells->lock);
}

static bool bell_make(struct virtio *v, struct virtio_bell *b, unsigned queue)
{
	if (b->source)
		return true;
	*b = (struct virtio_bell){ .v = v, .queue = queue, .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	if (b->fd < 0)
		return false;
	b->source = evloop_add(v->env.loop, b->fd, EPOLLIN, answer, b, NULL);
	if (!b->source)
		close(b->fd);
	return b->source;
}

unsigned virtio_doorbells(struct virtio *v, struct io_doorbell *out, unsigned max)
{
	unsigned n = 0;

	if (!v->ops->doorbells || !v->env.loop)
		return 0;
	if (!v->bells) {
		v->bells = calloc(1, sizeof(*v->bells));
		if (!v->bells)
			return 0;
		pthread_mutex_init(&v->bells->lock, NULL);
	}
	for (; n < MIN(v->nqueues, max) && bell_make(v, &v->bells->bell[n], n); n++)
		out[n] = (struct io_doorbell){ .fd = v->bells->bell[n].fd };
	return n;
}

void virtio_bells_settle(struct virtio *v)
{
	if (!v->bells)
		return;
	pthread_mutex_lock(&v->bells->lock);
	pthread_mutex_unlock(&v->bells->lock);
}

void virtio_bells_dispose(struct virtio *v)
{
	if (!v->bells)
		return;
	for (unsigned i = 0; i < v->nqueues; i++) {
		if (!v->bells->bell[i].source)
			continue;
		evloop_remove(v->bells->bell[i].source);
		close(v->bells->bell[i].fd);
	}
	pthread_mutex_destroy(&v->bells->lock);
	free(v->bells);
	v->bells = NULL;
}
