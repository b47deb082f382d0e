/* SPDX-License-Identifier: Apache-2.0 */
/* Virtio over MMIO (virtio 1.2, 4.2), version 2. The wire is a level: up as long as the interrupt status is not zero. */
#include <errno.h>
#include <stdlib.h>
#include "base/err.h"
#include "virtio/virtio.h"

#define MAGIC 0x74726976u
#define VERSION 2
#define VENDOR 0x4554534fu

struct virtio_mmio {
	struct virtio *v;
	struct irq_line irq;
	pthread_mutex_t wire;
};

static void wire_update(void *opaque)
{
	struct virtio_mmio *t = opaque;

	pthread_mutex_lock(&t->wire);
	irq_set(&t->irq, !!__atomic_load_n(&t->v->hw.isr, __ATOMIC_SEQ_CST));
	pthread_mutex_unlock(&t->wire);
}

static void interrupt(void *opaque, uint16_t vector, bool config)
{
	wire_update(opaque);
}

static void transport_destroy(void *opaque)
{
	struct virtio_mmio *t = opaque;

	pthread_mutex_destroy(&t->wire);
	free(t);
}

static const struct virtio_transport transport = {
	.interrupt = interrupt, .reset = wire_update, .destroy = transport_destroy,
};

static uint32_t register_read(struct virtio *v, uint64_t offset)
{
	const struct virtio_hw *hw = &v->hw;
	struct virtqueue *vq = virtio_selected(v);

	switch (offset) {
	case 0x00: return MAGIC;
	case 0x04: return VERSION;
	case 0x08: return v->id;
	case 0x0c: return VENDOR;
	case 0x10: return hw->device_select < 2 ? (uint32_t)(virtio_offered(v) >> 32 * hw->device_select) : 0;
	case 0x34: return vq ? vq->size_max : 0;
	case 0x44: return vq ? vq->enabled : 0;
	case 0x60: return __atomic_load_n(&hw->isr, __ATOMIC_SEQ_CST);
	case 0x70: return virtio_status(v);
	case 0xb0: case 0xb4: case 0xb8: case 0xbc: return ~0u; /* no shared memory */
	case 0xfc: return __atomic_load_n(&hw->generation, __ATOMIC_SEQ_CST);
	}
	return 0;
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
	struct virtio_mmio *t = opaque;
	uint32_t value;

	if (offset >= 0x100)
		return virtio_config_read(t->v, offset - 0x100, size);
	pthread_mutex_lock(&t->v->lock);
	value = register_read(t->v, offset & ~3ull);
	pthread_mutex_unlock(&t->v->lock);
	return value >> 8 * (offset & 3);
}

static void half_write(uint64_t *address, uint64_t offset, uint32_t value)
{
	unsigned shift = 8 * (offset & 4);

	*address = (*address & ~((uint64_t)UINT32_MAX << shift)) | (uint64_t)value << shift;
}

static void queue_disable(struct virtqueue *vq)
{
	uint16_t size = vq->size;

	pthread_mutex_lock(&vq->lock);
	vq_reset(vq);
	vq->size = size;
	pthread_mutex_unlock(&vq->lock);
}

static void queue_write(struct virtio *v, struct virtqueue *vq, uint64_t offset, uint32_t value)
{
	if (offset == 0xc0 && value == 1) {
		virtio_queue_reset(v, vq);
		return;
	}
	if (offset == 0x44 && !value && !virtio_running(v))
		queue_disable(vq);
	if (vq->enabled)
		return;
	switch (offset) {
	case 0x38:
		if (value && value <= vq->size_max)
			vq->size = (uint16_t)value;
		break;
	case 0x44:
		if (value == 1)
			virtio_queue_enable(v, vq);
		break;
	case 0x80: case 0x84: half_write(&vq->desc, offset, value); break;
	case 0x90: case 0x94: half_write(&vq->driver, offset, value); break;
	case 0xa0: case 0xa4: half_write(&vq->device, offset, value); break;
	}
}

static void register_write(struct virtio *v, uint64_t offset, uint32_t value)
{
	struct virtqueue *vq;

	pthread_mutex_lock(&v->lock);
	vq = virtio_selected(v);
	if (offset == 0x14)
		v->hw.device_select = value;
	else if (offset == 0x24)
		v->hw.driver_select = value;
	else if (offset == 0x30)
		v->hw.queue_select = (uint16_t)MIN(value, 0xffffu);
	else if (vq)
		queue_write(v, vq, offset, value);
	pthread_mutex_unlock(&v->lock);
}

static void mmio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct virtio_mmio *t = opaque;
	struct virtio *v = t->v;

	if (offset >= 0x100) {
		virtio_config_write(v, offset - 0x100, (uint32_t)value, size);
		return;
	}
	if (size != 4 || offset & 3)
		return;
	switch (offset) {
	case 0x20: virtio_set_features(v, v->hw.driver_select, (uint32_t)value); break;
	case 0x50: virtio_notify(v, (uint32_t)value); break;
	case 0x64:
		__atomic_fetch_and(&v->hw.isr, (uint8_t)~value, __ATOMIC_SEQ_CST);
		wire_update(t);
		break;
	case 0x70: virtio_set_status(v, (uint8_t)value, false); break;
	default: register_write(v, offset, (uint32_t)value);
	}
}

/* All queues are notified at one place, by their number. */
static unsigned mmio_doorbells(void *opaque, struct io_doorbell *out, unsigned max)
{
	unsigned n = virtio_doorbells(((struct virtio_mmio *)opaque)->v, out, max);

	for (unsigned i = 0; i < n; i++) {
		out[i].offset = 0x50;
		out[i].size = 4;
		out[i].value = i;
	}
	return n;
}

static const struct io_ops mmio_io = { mmio_read, mmio_write, 1, 4, .doorbells = mmio_doorbells };

int virtio_mmio_attach(struct virtio *v, uint64_t base, struct irq_line irq, struct err *e)
{
	struct virtio_mmio *t = calloc(1, sizeof(*t));

	if (!t)
		return err_set(e, ENOMEM, "no memory for a virtio device");
	t->v = v;
	t->irq = irq;
	pthread_mutex_init(&t->wire, NULL);
	v->transport = &transport;
	v->transport_opaque = t;
	return mem_map_io(v->env.mem, base, VIRTIO_MMIO_SIZE, &mmio_io, t, v->name, e);
}
