/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entropy (virtio 1.2, 5.4): the host's getrandom, which does not block once the host is up. 4 KiB at most for a request, 64 KiB for
 * a kick (some 100 us), so that no vCPU is kept for long; the rest is done by the event loop.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "base/err.h"
#include "base/evloop.h"
#include "virtio/devices.h"

#define QUEUE_SIZE 64
#define REQUEST_MAX 4096u
#define KICK_MAX 65536u
#define SECOND 1000000000ull

struct rng {
	struct virtio v;
	uint64_t rate, left; /* bytes a second; of this second */
	uint64_t second;     /* when it began, virtual ns */
	bool waiting;        /* for the next: the timer is set */
	struct timer timer;
	struct vq_chain chain; /* under the queue's lock, like all of these */
};

static void rng_serve(struct rng *g)
{
	struct virtqueue *vq = &g->v.queue[0];
	uint8_t bytes[REQUEST_MAX];
	uint64_t done = 0;

	do {
		vq_notify_off(vq);
		while (done < KICK_MAX && (!g->rate || g->left) && vq_pop(vq, &g->chain)) {
			size_t n = MIN(g->chain.in_len, (uint64_t)sizeof(bytes));
			ssize_t got;

			if (g->rate)
				n = MIN(n, g->left);
			got = getrandom(bytes, n, 0);
			n = got > 0 ? (size_t)got : 0;
			n = vq_write(vq, &g->chain, 0, bytes, n);
			vq_push(vq, &g->chain, (uint32_t)n);
			done += n + 1;
			if (g->rate)
				g->left -= MIN(g->left, n + 1);
		}
		vq_publish(vq);
	} while (vq_notify_on(vq) && done < KICK_MAX && (!g->rate || g->left));
	explicit_bzero(bytes, sizeof(bytes));
	if (!vq_empty(vq) && !g->waiting) {
		g->waiting = true;
		timer_arm(&g->timer, g->rate && !g->left ? g->second + SECOND : clock_now(g->v.env.clock));
	}
}

static void rng_refill(struct rng *g)
{
	uint64_t now = g->rate ? clock_now(g->v.env.clock) : 0;

	if (g->rate && now - g->second >= SECOND) {
		g->second = now;
		g->left = g->rate;
	}
}

static void rng_kick(struct virtio *v, struct virtqueue *vq)
{
	struct rng *g = container_of(v, struct rng, v);

	pthread_mutex_lock(&vq->lock);
	vq->kicks++;
	rng_refill(g);
	if (!g->waiting)
		rng_serve(g);
	pthread_mutex_unlock(&vq->lock);
}

static void rng_again(void *opaque)
{
	struct rng *g = opaque;
	struct virtqueue *vq = &g->v.queue[0];

	pthread_mutex_lock(&vq->lock);
	g->waiting = false;
	if (!g->v.paused) { /* resume kicks */
		rng_refill(g);
		rng_serve(g);
	}
	pthread_mutex_unlock(&vq->lock);
}

static void rng_destroy(struct virtio *v)
{
	struct rng *g = container_of(v, struct rng, v);

	timer_cancel(&g->timer);
	virtio_dispose(v);
	free(g);
}

static const struct virtio_ops ops = { .kick = rng_kick, .queue_reset = virtio_queue_reset_plain, .destroy = rng_destroy };

struct virtio *virtio_rng_create(const struct device_env *env, unsigned instance, uint64_t rate, struct err *e)
{
	static const struct virtio_setup setup = { .ops = &ops, .name = "virtio-rng", .id = VIRTIO_RNG, .nqueues = 1,
						   .queue_size = QUEUE_SIZE };
	struct rng *g = calloc(1, sizeof(*g));

	if (!g) {
		err_set(e, ENOMEM, "no memory for the entropy device");
		return NULL;
	}
	g->rate = rate;
	g->left = rate;
	virtio_init(&g->v, env, instance, &setup);
	timer_init(&g->timer, env->clock, rng_again, g);
	return &g->v;
}
