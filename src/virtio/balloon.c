/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory balloon (virtio 1.2, 5.5): pages the guest hands over, or reports as free, go back to the host. Giving pages back
 * takes the host some 100 us a megabyte, so it is the event loop's work. The statistics queue works the other way round: the
 * guest leaves a buffer with numbers, and fills it anew when it gets it back.
 *
 * A queue's state is under its lock; config, info and hw.target under v->lock. That the guest has changed what it gives is told at most
 * once a second: a guest that does nothing else must not drown what else there is to tell.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/evloop.h"
#include "virtio/devices.h"

#define F_STATS BIT(1)
#define F_DEFLATE_ON_OOM BIT(2)
#define F_REPORTING BIT(5)
#define QUEUE_SIZE 128
#define PAGE_SHIFT 12 /* of the device, whatever the guest's is */
#define PFNS 256u
#define TELL_EVERY 1000000000u

enum { Q_INFLATE, Q_DEFLATE, Q_STATS, Q_REPORT, QUEUES };

struct config {
	uint32_t num_pages, actual, hint_id, poison;
};

struct balloon_hw {
	uint32_t num_pages, actual;
};

struct balloon {
	struct virtio v;
	struct device own;
	struct balloon_hw hw;
	struct config config;
	struct virtio_balloon_info info;
	uint64_t given_back;
	_Atomic bool posted;
	struct vq_chain chain, stats; /* the loop's; the one the guest has left with us */
	bool has_stats;
	struct timer tell; /* on the event loop */
	uint64_t told_at;
	uint32_t told;
	void (*changed)(void *opaque, uint64_t actual);
	void *changed_opaque;
};

static void inflate(struct balloon *b, const struct vq_chain *c)
{
	struct mem *mem = b->v.env.mem;
	uint32_t pfn[PFNS];
	size_t n;

	for (uint64_t at = 0; (n = vq_read(c, at, pfn, sizeof(pfn)) / 4); at += n * 4) {
		for (size_t i = 0; i < n; i++) {
			struct iovec iov;

			if (mem_dma_map(mem, (uint64_t)pfn[i] << PAGE_SHIFT, GUEST_PAGE, &iov, 1) != 1)
				continue;
			mem_dma_discard(mem, iov.iov_base, iov.iov_len);
			__atomic_fetch_add(&b->given_back, GUEST_PAGE, __ATOMIC_RELAXED);
		}
	}
}

static void reported(struct balloon *b, const struct vq_chain *c)
{
	for (unsigned i = c->nout; i < c->nout + c->nin; i++) {
		mem_dma_discard(b->v.env.mem, c->iov[i].iov_base, c->iov[i].iov_len);
		__atomic_fetch_add(&b->given_back, c->iov[i].iov_len, __ATOMIC_RELAXED);
	}
}

static void queue_serve(struct balloon *b, unsigned q)
{
	struct virtqueue *vq = &b->v.queue[q];

	pthread_mutex_lock(&vq->lock);
	do {
		vq_notify_off(vq);
		while (!b->v.paused && vq_pop(vq, &b->chain)) {
			if (q == Q_INFLATE)
				inflate(b, &b->chain);
			else if (q == Q_REPORT)
				reported(b, &b->chain);
			vq_push(vq, &b->chain, 0);
		}
		vq_publish(vq);
	} while (!b->v.paused && vq_notify_on(vq));
	pthread_mutex_unlock(&vq->lock);
}

static void balloon_work(void *opaque)
{
	struct balloon *b = opaque;

	atomic_store(&b->posted, false);
	queue_serve(b, Q_INFLATE);
	queue_serve(b, Q_DEFLATE);
	queue_serve(b, Q_REPORT);
}

static void stats_take(struct balloon *b)
{
	struct virtqueue *vq = &b->v.queue[Q_STATS];
	struct __attribute__((packed)) {
		uint16_t tag;
		uint64_t value;
	} one;

	pthread_mutex_lock(&vq->lock);
	if (!b->has_stats && !b->v.paused && vq_pop(vq, &b->stats)) {
		b->has_stats = true;
		for (unsigned i = 0; i < 64 && vq_read(&b->stats, i * sizeof(one), &one, sizeof(one)) == sizeof(one); i++) {
			if (one.tag < ARRAY_LEN(b->info.stat)) {
				b->info.has[one.tag] = true;
				b->info.stat[one.tag] = one.value;
			}
		}
	}
	pthread_mutex_unlock(&vq->lock);
}

static void balloon_kick(struct virtio *v, struct virtqueue *vq)
{
	struct balloon *b = container_of(v, struct balloon, v);

	if (vq->index == Q_STATS)
		stats_take(b);
	else if (!v->env.loop)
		balloon_work(b);
	else if (!atomic_exchange(&b->posted, true))
		evloop_post(v->env.loop, balloon_work, b);
}

void virtio_balloon_set(struct virtio *v, uint64_t bytes)
{
	struct balloon *b = container_of(v, struct balloon, v);

	pthread_mutex_lock(&v->lock);
	b->config.num_pages = b->hw.num_pages = (uint32_t)MIN(bytes >> PAGE_SHIFT, UINT32_MAX);
	pthread_mutex_unlock(&v->lock);
	virtio_config_changed(v);
}

void virtio_balloon_get(struct virtio *v, struct virtio_balloon_info *info)
{
	struct balloon *b = container_of(v, struct balloon, v);
	struct virtqueue *vq = &v->queue[Q_STATS];

	pthread_mutex_lock(&vq->lock);
	*info = b->info;
	if (b->has_stats && !v->paused) {
		b->has_stats = false;
		vq_push(vq, &b->stats, 0);
		vq_publish(vq);
	}
	pthread_mutex_unlock(&vq->lock);
	pthread_mutex_lock(&v->lock);
	info->target = (uint64_t)b->config.num_pages << PAGE_SHIFT;
	info->actual = (uint64_t)b->config.actual << PAGE_SHIFT;
	info->given_back = __atomic_load_n(&b->given_back, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&v->lock);
}

/* ---- life */

static void balloon_config_written(struct virtio *v, unsigned offset, unsigned size)
{
	struct balloon *b = container_of(v, struct balloon, v);

	b->config.num_pages = b->hw.num_pages; /* ours */
	b->hw.actual = b->config.actual;
	if (b->changed && b->config.actual != b->told)
		timer_arm(&b->tell, MAX(clock_now(v->env.clock), b->told_at + TELL_EVERY));
}

static void balloon_tell(void *opaque)
{
	struct balloon *b = opaque;

	pthread_mutex_lock(&b->v.lock);
	if (b->changed && b->config.actual != b->told) {
		b->told = b->config.actual;
		b->told_at = clock_now(b->v.env.clock);
		b->changed(b->changed_opaque, (uint64_t)b->told << PAGE_SHIFT);
	}
	pthread_mutex_unlock(&b->v.lock);
}

void virtio_balloon_on_change(struct virtio *v, void (*changed)(void *opaque, uint64_t actual), void *opaque)
{
	struct balloon *b = container_of(v, struct balloon, v);

	pthread_mutex_lock(&v->lock);
	b->changed_opaque = opaque;
	b->changed = changed;
	pthread_mutex_unlock(&v->lock);
}

static void stats_back(struct balloon *b)
{
	struct virtqueue *vq = &b->v.queue[Q_STATS];

	pthread_mutex_lock(&vq->lock);
	if (b->has_stats)
		vq_unpop(vq, &b->stats);
	b->has_stats = false;
	pthread_mutex_unlock(&vq->lock);
}

static void balloon_reset(struct virtio *v)
{
	struct balloon *b = container_of(v, struct balloon, v);

	stats_back(b);
	b->config.actual = b->hw.actual = b->told = 0;
}

static void balloon_queue_reset(struct virtio *v, struct virtqueue *vq)
{
	if (vq->index == Q_STATS)
		stats_back(container_of(v, struct balloon, v));
}

static void balloon_pause(struct virtio *v)
{
	stats_back(container_of(v, struct balloon, v));
}

static void balloon_destroy(struct virtio *v)
{
	timer_cancel(&container_of(v, struct balloon, v)->tell);
	virtio_dispose(v);
	free(container_of(v, struct balloon, v));
}

static const struct virtio_ops ops = {
	.kick = balloon_kick, .reset = balloon_reset, .config_written = balloon_config_written, .pause = balloon_pause,
	.queue_reset = balloon_queue_reset,
	.destroy = balloon_destroy,
};

static const struct state_field fields[] = {
	STATE_INT(struct balloon_hw, num_pages), STATE_INT(struct balloon_hw, actual),
};

static const struct state_desc balloon_state = {
	.name = "virtio-balloon", .version = 1, .size = sizeof(struct balloon_hw), .fields = fields,
	.nfields = ARRAY_LEN(fields),
};

static void own_saving(struct device *d)
{
	struct balloon *b = container_of(d, struct balloon, own);

	b->hw.num_pages = b->config.num_pages;
	b->hw.actual = b->config.actual;
}

static void own_loaded(struct device *d)
{
	struct balloon *b = container_of(d, struct balloon, own);

	b->config.num_pages = b->hw.num_pages;
	b->config.actual = b->told = b->hw.actual;
}

static void own_destroy(struct device *d)
{
}

static const struct device_ops own_ops = {
	.state = &balloon_state, .saving = own_saving, .loaded = own_loaded, .destroy = own_destroy,
};

struct virtio *virtio_balloon_create(const struct device_env *env, unsigned instance, struct err *e)
{
	struct virtio_setup setup = { .ops = &ops, .name = "virtio-balloon", .id = VIRTIO_BALLOON, .nqueues = QUEUES,
				      .features = F_STATS | F_DEFLATE_ON_OOM | F_REPORTING, .queue_size = QUEUE_SIZE };
	struct balloon *b = calloc(1, sizeof(*b));

	if (!b) {
		err_set(e, ENOMEM, "no memory for the balloon");
		return NULL;
	}
	setup.config = &b->config;
	setup.config_len = sizeof(b->config);
	virtio_init(&b->v, env, instance, &setup);
	b->own = (struct device){ .ops = &own_ops, .instance = instance, .hw = &b->hw };
	b->v.own = &b->own;
	timer_init(&b->tell, env->clock, balloon_tell, b);
	return &b->v;
}
