/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Persistent memory (virtio 1.2, 5.19) for images that are only read: the file lies in the guest's address space, and its pages are
 * the host's page cache, shared by all machines that use it. The board has put it there; here the guest learns where. What
 * the guest asks to have flushed has never been written.
 */
#include <errno.h>
#include <stdlib.h>
#include "base/err.h"
#include "virtio/devices.h"

#define QUEUE_SIZE 64

struct pmem {
	struct virtio v;
	struct {
		uint64_t start, size;
	} config;
	struct vq_chain chain; /* under the queue's lock */
};

static void pmem_kick(struct virtio *v, struct virtqueue *vq)
{
	struct pmem *p = container_of(v, struct pmem, v);
	uint32_t done = 0;

	pthread_mutex_lock(&vq->lock);
	vq->kicks++;
	do {
		vq_notify_off(vq);
		while (!v->paused && vq_pop(vq, &p->chain))
			vq_push(vq, &p->chain, (uint32_t)vq_write(vq, &p->chain, 0, &done, sizeof(done)));
		vq_publish(vq);
	} while (!v->paused && vq_notify_on(vq));
	pthread_mutex_unlock(&vq->lock);
}

static void pmem_destroy(struct virtio *v)
{
	virtio_dispose(v);
	free(container_of(v, struct pmem, v));
}

static const struct virtio_ops ops = { .kick = pmem_kick, .queue_reset = virtio_queue_reset_plain, .destroy = pmem_destroy };

struct virtio *virtio_pmem_create(const struct device_env *env, unsigned instance, uint64_t start, uint64_t size, struct err *e)
{
	struct virtio_setup setup = { .ops = &ops, .name = "virtio-pmem", .id = VIRTIO_PMEM, .nqueues = 1,
				      .queue_size = QUEUE_SIZE };
	struct pmem *p = calloc(1, sizeof(*p));

	if (!p) {
		err_set(e, ENOMEM, "no memory for a memory device");
		return NULL;
	}
	p->config.start = start;
	p->config.size = size;
	setup.config = &p->config;
	setup.config_len = sizeof(p->config);
	virtio_init(&p->v, env, instance, &setup);
	return &p->v;
}
