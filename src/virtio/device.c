/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all virtio devices share: negotiation, status, queues' set-up, saved state. See virtio.h.
 *
 * status and isr are changed with atomics, since a queue that breaks (its lock held, v->lock not) and interrupts change
 * them. Positions of queues are copied to and from hw only for saving.
 */
#include <errno.h>
#include <string.h>
#include "base/err.h"
#include "virtio/virtio.h"

static void queue_interrupt(void *opaque, struct virtqueue *vq)
{
	struct virtio *v = opaque;

	__atomic_fetch_or(&v->hw.isr, 1, __ATOMIC_SEQ_CST);
	if (v->transport)
		v->transport->interrupt(v->transport_opaque, vq->vector, false);
}

static void config_interrupt(struct virtio *v)
{
	__atomic_fetch_or(&v->hw.isr, 2, __ATOMIC_SEQ_CST);
	if (v->transport)
		v->transport->interrupt(v->transport_opaque, __atomic_load_n(&v->hw.config_vector, __ATOMIC_RELAXED), true);
}

static void queue_broken(void *opaque, struct virtqueue *vq)
{
	struct virtio *v = opaque;
	uint8_t was = __atomic_fetch_or(&v->hw.status, VIRTIO_STATUS_NEEDS_RESET, __ATOMIC_SEQ_CST);

	if (!(was & VIRTIO_STATUS_NEEDS_RESET) && was & VIRTIO_STATUS_DRIVER_OK)
		config_interrupt(v);
}

uint64_t virtio_offered(const struct virtio *v)
{
	return v->offered;
}

uint8_t virtio_status(struct virtio *v)
{
	return __atomic_load_n(&v->hw.status, __ATOMIC_SEQ_CST);
}

bool virtio_running(struct virtio *v)
{
	return virtio_status(v) & VIRTIO_STATUS_DRIVER_OK;
}

uint8_t virtio_take_isr(struct virtio *v)
{
	return __atomic_exchange_n(&v->hw.isr, 0, __ATOMIC_SEQ_CST);
}

/* ---- registers */

void virtio_set_features(struct virtio *v, unsigned word, uint32_t value)
{
	pthread_mutex_lock(&v->lock);
	if (word < 2 && !(virtio_status(v) & (VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK))) {
		uint64_t keep = v->hw.features & ~((uint64_t)UINT32_MAX << 32 * word);

		v->hw.features = (keep | (uint64_t)value << 32 * word);
	}
	pthread_mutex_unlock(&v->lock);
}

struct virtqueue *virtio_selected(struct virtio *v)
{
	return v->hw.queue_select < v->nqueues ? &v->queue[v->hw.queue_select] : NULL;
}

/* As negotiated; vq->lock held. */
static void queue_start(struct virtio *v, struct virtqueue *vq)
{
	vq->packed = virtio_has(v, VIRTIO_F_PACKED);
	vq->event_idx = virtio_has(v, VIRTIO_F_EVENT_IDX);
	vq->indirect = virtio_has(v, VIRTIO_F_INDIRECT);
	vq_start(vq);
}

void virtio_queue_enable(struct virtio *v, struct virtqueue *vq)
{
	pthread_mutex_lock(&vq->lock);
	vq->enabled = true;
	if (virtio_running(v))
		queue_start(v, vq);
	pthread_mutex_unlock(&vq->lock);
}

void virtio_queue_reset_plain(struct virtio *v, struct virtqueue *vq)
{
}

void virtio_queue_reset(struct virtio *v, struct virtqueue *vq)
{
	bool broken;

	if (!virtio_has(v, VIRTIO_F_RING_RESET) || !(virtio_status(v) & VIRTIO_STATUS_FEATURES_OK))
		return;
	pthread_mutex_lock(&vq->lock);
	vq->running = false;
	pthread_mutex_unlock(&vq->lock);
	v->ops->queue_reset(v, vq);
	pthread_mutex_lock(&vq->lock);
	broken = vq->broken; /* that takes a reset of the device */
	vq_reset(vq);
	vq->broken = broken;
	pthread_mutex_unlock(&vq->lock);
}

static void device_stop(struct virtio *v)
{
	for (unsigned i = 0; i < v->nqueues; i++) {
		pthread_mutex_lock(&v->queue[i].lock);
		v->queue[i].running = false;
		pthread_mutex_unlock(&v->queue[i].lock);
	}
	if (v->ops->reset)
		v->ops->reset(v);
	for (unsigned i = 0; i < v->nqueues; i++) {
		pthread_mutex_lock(&v->queue[i].lock);
		vq_reset(&v->queue[i]);
		pthread_mutex_unlock(&v->queue[i].lock);
	}
	memset(&v->hw, 0, sizeof(v->hw));
	v->hw.config_vector = 0xffff;
	if (v->transport && v->transport->reset)
		v->transport->reset(v->transport_opaque);
}

static void device_activate(struct virtio *v)
{
	for (unsigned i = 0; i < v->nqueues; i++) {
		pthread_mutex_lock(&v->queue[i].lock);
		queue_start(v, &v->queue[i]);
		pthread_mutex_unlock(&v->queue[i].lock);
	}
	if (v->ops->activate)
		v->ops->activate(v);
}

/* What the driver put there before it was ready, or before the machine was saved. */
static void kick_all(struct virtio *v)
{
	for (unsigned i = 0; i < v->nqueues; i++)
		v->ops->kick(v, &v->queue[i]);
}

void virtio_set_status(struct virtio *v, uint8_t status, bool legacy)
{
	uint8_t old, now;
	bool started = false;

	pthread_mutex_lock(&v->lock);
	old = virtio_status(v);
	if (!status) {
		device_stop(v);
	} else {
		now = status | (old & VIRTIO_STATUS_NEEDS_RESET);
		if (legacy && now & VIRTIO_STATUS_DRIVER_OK) /* it knows no FEATURES_OK */
			v->hw.features &= v->offered & UINT32_MAX;
		if (now & ~old & VIRTIO_STATUS_FEATURES_OK &&
		    (v->hw.features & ~v->offered || !(v->hw.features & VIRTIO_F_VERSION_1)))
			now &= (uint8_t)~VIRTIO_STATUS_FEATURES_OK;
		if (!legacy && !(now & VIRTIO_STATUS_FEATURES_OK))
			now &= (uint8_t)~VIRTIO_STATUS_DRIVER_OK;
		started = now & ~old & VIRTIO_STATUS_DRIVER_OK;
		__atomic_fetch_or(&v->hw.status, now, __ATOMIC_SEQ_CST);
		if (started)
			device_activate(v);
	}
	pthread_mutex_unlock(&v->lock);
	if (started)
		kick_all(v);
}

void virtio_notify(struct virtio *v, uint32_t queue)
{
	if (queue < v->nqueues)
		v->ops->kick(v, &v->queue[queue]);
}

/* ---- the device's own configuration */

uint32_t virtio_config_read(struct virtio *v, uint64_t offset, unsigned size)
{
	uint32_t value = 0;

	pthread_mutex_lock(&v->lock);
	for (unsigned i = 0; i < size; i++)
		if (offset < v->config_len && offset + i < v->config_len)
			value |= (uint32_t)((uint8_t *)v->config)[offset + i] << 8 * i;
	pthread_mutex_unlock(&v->lock);
	return value;
}

void virtio_config_write(struct virtio *v, uint64_t offset, uint32_t value, unsigned size)
{
	if (!v->ops->config_written || !range_fits(offset, size, v->config_len))
		return;
	pthread_mutex_lock(&v->lock);
	for (unsigned i = 0; i < size; i++)
		((uint8_t *)v->config)[offset + i] = (uint8_t)(value >> 8 * i);
	v->ops->config_written(v, (unsigned)offset, size);
	pthread_mutex_unlock(&v->lock);
}

void virtio_config_changed(struct virtio *v)
{
	__atomic_fetch_add(&v->hw.generation, 1, __ATOMIC_SEQ_CST);
	if (virtio_running(v))
		config_interrupt(v);
}

/* ---- as a device of the machine */

static int virtio_check(const void *opaque, struct err *e)
{
	const struct virtio_hw *hw = opaque;

	for (unsigned i = 0; i < VIRTIO_QUEUES; i++)
		if (hw->size[i] > VQ_SIZE_MAX)
			return err_set(e, EINVAL, "virtio: queue %u is too large", i);
	return 0;
}

static const struct state_field fields[] = {
	STATE_INT(struct virtio_hw, status),	   STATE_INT(struct virtio_hw, isr),
	STATE_INT(struct virtio_hw, features),	   STATE_INT(struct virtio_hw, device_select),
	STATE_INT(struct virtio_hw, driver_select), STATE_INT(struct virtio_hw, generation),
	STATE_INT(struct virtio_hw, queue_select), STATE_INT(struct virtio_hw, config_vector),
	STATE_INTS(struct virtio_hw, size),	   STATE_INTS(struct virtio_hw, vector),
	STATE_INTS(struct virtio_hw, enabled),	   STATE_INTS(struct virtio_hw, desc),
	STATE_INTS(struct virtio_hw, driver),	   STATE_INTS(struct virtio_hw, device),
	STATE_INTS(struct virtio_hw, next_avail),  STATE_INTS(struct virtio_hw, next_used),
};

static const struct state_desc virtio_state = {
	.name = "virtio", .version = 1, .size = sizeof(struct virtio_hw),
	.fields = fields, .nfields = ARRAY_LEN(fields), .check = virtio_check,
};

static void virtio_saving(struct device *d)
{
	struct virtio *v = container_of(d, struct virtio, device);

	for (unsigned i = 0; i < v->nqueues; i++) {
		struct virtqueue *vq = &v->queue[i];

		pthread_mutex_lock(&vq->lock);
		v->hw.size[i] = vq->size;
		v->hw.vector[i] = vq->vector;
		v->hw.enabled[i] = vq->enabled;
		v->hw.desc[i] = vq->desc;
		v->hw.driver[i] = vq->driver;
		v->hw.device[i] = vq->device;
		/* what was popped and never came back is popped again: nothing is underway while the machine is paused */
		v->hw.next_avail[i] = vq->next_avail;
		v->hw.next_used[i] = vq->next_used;
		pthread_mutex_unlock(&vq->lock);
	}
}

/* Positions a guest could not have brought about do no harm: they index nothing without a mask or a check. */
static void queue_loaded(struct virtio *v, unsigned i)
{
	struct virtqueue *vq = &v->queue[i];

	vq_reset(vq);
	vq->size = v->hw.size[i];
	vq->vector = v->hw.vector[i];
	vq->enabled = v->hw.enabled[i];
	vq->desc = v->hw.desc[i];
	vq->driver = v->hw.driver[i];
	vq->device = v->hw.device[i];
	vq->next_avail = v->hw.next_avail[i];
	vq->next_used = v->hw.next_used[i];
	if (virtio_running(v) && vq->enabled && !(virtio_status(v) & VIRTIO_STATUS_NEEDS_RESET)) {
		uint16_t mask = (uint16_t)~0x8000u;

		if (virtio_has(v, VIRTIO_F_PACKED) &&
		    ((vq->next_avail & mask) >= vq->size || (vq->next_used & mask) >= vq->size)) {
			vq_break(vq, "positions beyond its end were saved");
			return;
		}
		queue_start(v, vq);
		/* a new packed ring begins in its first round; position 0 of the second looks the same and is not */
		vq->next_avail = v->hw.next_avail[i];
		vq->next_used = vq->published = v->hw.next_used[i];
		vq->anew = vq->running;
	}
}

static void virtio_loaded(struct device *d)
{
	struct virtio *v = container_of(d, struct virtio, device);

	pthread_mutex_lock(&v->lock);
	v->hw.features &= v->offered;
	for (unsigned i = 0; i < v->nqueues; i++) {
		pthread_mutex_lock(&v->queue[i].lock);
		queue_loaded(v, i);
		pthread_mutex_unlock(&v->queue[i].lock);
	}
	if (virtio_running(v) && v->ops->activate)
		v->ops->activate(v);
	pthread_mutex_unlock(&v->lock);
}

static void virtio_reset(struct device *d, enum reset_kind kind)
{
	struct virtio *v = container_of(d, struct virtio, device);

	pthread_mutex_lock(&v->lock);
	device_stop(v);
	pthread_mutex_unlock(&v->lock);
}

static void set_paused(struct virtio *v, bool paused)
{
	pthread_mutex_lock(&v->lock);
	for (unsigned i = 0; i < v->nqueues; i++)
		pthread_mutex_lock(&v->queue[i].lock);
	v->paused = paused;
	for (unsigned i = 0; i < v->nqueues; i++)
		pthread_mutex_unlock(&v->queue[i].lock);
	pthread_mutex_unlock(&v->lock);
}

static void virtio_pause(struct device *d)
{
	struct virtio *v = container_of(d, struct virtio, device);

	set_paused(v, true);
	virtio_bells_settle(v);
	if (v->ops->pause)
		v->ops->pause(v);
}

static void virtio_resume(struct device *d)
{
	struct virtio *v = container_of(d, struct virtio, device);

	set_paused(v, false);
	if (v->ops->resume)
		v->ops->resume(v);
	if (virtio_running(v))
		kick_all(v);
}

static int virtio_save_check(struct device *d, struct err *e)
{
	struct virtio *v = container_of(d, struct virtio, device);

	return v->ops->save_check ? v->ops->save_check(v, e) : 0;
}

static void virtio_destroy(struct device *d)
{
	struct virtio *v = container_of(d, struct virtio, device);

	virtio_bells_dispose(v);
	v->ops->destroy(v);
}

static const struct device_ops device_ops = {
	.state = &virtio_state,
	.reset = virtio_reset,
	.saving = virtio_saving,
	.loaded = virtio_loaded,
	.pause = virtio_pause,
	.resume = virtio_resume,
	.save_check = virtio_save_check,
	.destroy = virtio_destroy,
};

void virtio_init(struct virtio *v, const struct device_env *env, unsigned instance, const struct virtio_setup *s)
{
	CHECK(s->nqueues <= VIRTIO_QUEUES);
	v->device = (struct device){ .ops = &device_ops, .instance = instance, .hw = &v->hw };
	v->ops = s->ops;
	v->name = s->name;
	v->id = s->id;
	v->offered = s->features | VIRTIO_F_INDIRECT | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1 | VIRTIO_F_PACKED |
		     (s->ops->queue_reset ? VIRTIO_F_RING_RESET : 0);
	v->env = *env;
	v->config = s->config;
	v->config_len = s->config_len;
	v->nqueues = s->nqueues;
	v->paused = true;
	v->hw.config_vector = 0xffff;
	pthread_mutex_init(&v->lock, NULL);
	for (unsigned i = 0; i < v->nqueues; i++) {
		vq_init(&v->queue[i], env->mem, i, s->queue_size);
		v->queue[i].interrupt = queue_interrupt;
		v->queue[i].broken_hook = queue_broken;
		v->queue[i].opaque = v;
	}
}

void virtio_dispose(struct virtio *v)
{
	if (v->transport && v->transport->destroy)
		v->transport->destroy(v->transport_opaque);
	for (unsigned i = 0; i < v->nqueues; i++)
		vq_dispose(&v->queue[i]);
	pthread_mutex_destroy(&v->lock);
}
