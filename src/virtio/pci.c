/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio over PCI (virtio 1.2, 4.1): the modern registers in BAR 4, vectors in BAR 1, and for transitional devices the registers
 * of drivers from before virtio 1.0 in BAR 0, which is I/O ports. The registers of BAR 4 can also be reached through a window in
 * configuration space (4.1.4.9), for firmware that has not mapped the BAR; the bus's lock is held then, which none of the locks
 * taken for a register is taken before.
 *
 * The wire is raised and dropped under t->wire, so that a read of the interrupt status and an interrupt do not cross.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "pci/pci.h"
#include "virtio/virtio.h"

#define VENDOR 0x1af4
#define BAR_LEGACY 0
#define BAR_VECTORS 1
#define BAR_MODERN 4
#define MODERN_SIZE 0x4000u
#define AREA 0x1000u /* of each: common, interrupt status, device, notification */
#define NOTIFY_MULTIPLIER 4u
#define NO_VECTOR 0xffffu
#define CAP_VENDOR 0x09
#define CAP_WINDOW_TYPE 5
#define LEGACY_QUEUE_ALIGN 4096u

/* Of the window's capability: where to, and the four bytes. */
enum { WINDOW_BAR = 4, WINDOW_OFFSET = 8, WINDOW_LENGTH = 12, WINDOW_DATA = 16, WINDOW_SIZE = 20 };

enum area { AREA_COMMON, AREA_ISR, AREA_DEVICE, AREA_NOTIFY };

struct virtio_pci {
	struct pci_function f;
	struct virtio *v;
	pthread_mutex_t wire;
	bool transitional;
	unsigned window; /* its capability */
};

/* ---- interrupts */

static void interrupt(void *opaque, uint16_t vector, bool config)
{
	struct virtio_pci *t = opaque;

	if (pci_msix_enabled(&t->f)) {
		if (vector < t->f.msix_vectors)
			pci_msix_notify(&t->f, vector);
		return;
	}
	pthread_mutex_lock(&t->wire);
	if (__atomic_load_n(&t->v->hw.isr, __ATOMIC_SEQ_CST))
		pci_set_intx(&t->f, 1);
	pthread_mutex_unlock(&t->wire);
}

static uint8_t isr_read(struct virtio_pci *t)
{
	uint8_t isr;

	pthread_mutex_lock(&t->wire);
	isr = virtio_take_isr(t->v);
	pci_set_intx(&t->f, 0);
	pthread_mutex_unlock(&t->wire);
	return isr;
}

static void transport_reset(void *opaque)
{
	struct virtio_pci *t = opaque;

	pthread_mutex_lock(&t->wire);
	pci_set_intx(&t->f, 0);
	pthread_mutex_unlock(&t->wire);
}

static void transport_destroy(void *opaque)
{
	struct virtio_pci *t = opaque;

	pci_function_dispose(&t->f);
	pthread_mutex_destroy(&t->wire);
	free(t);
}

static const struct virtio_transport transport = { interrupt, transport_reset, transport_destroy };

static uint16_t checked_vector(const struct virtio_pci *t, uint64_t vector)
{
	return vector < t->f.msix_vectors ? (uint16_t)vector : NO_VECTOR;
}

/* ---- common configuration */

/* v->lock held. The register's value at its first byte. */
static uint64_t common_value(struct virtio *v, uint64_t at)
{
	const struct virtio_hw *hw = &v->hw;
	struct virtqueue *vq = virtio_selected(v);
	uint64_t chosen = hw->driver_select < 2 ? hw->features >> 32 * hw->driver_select : 0;
	uint64_t offered = hw->device_select < 2 ? virtio_offered(v) >> 32 * hw->device_select : 0;

	switch (at) {
	case 0x00: return hw->device_select;
	case 0x04: return (uint32_t)offered;
	case 0x08: return hw->driver_select;
	case 0x0c: return (uint32_t)chosen;
	case 0x10: return hw->config_vector;
	case 0x12: return v->nqueues;
	case 0x14: return virtio_status(v);
	case 0x15: return __atomic_load_n(&hw->generation, __ATOMIC_SEQ_CST) & 0xff;
	case 0x16: return hw->queue_select;
	}
	if (!vq)
		return 0;
	switch (at) {
	case 0x18: return vq->size;
	case 0x1a: return vq->vector;
	case 0x1c: return vq->enabled;
	case 0x1e: return vq->index; /* where to notify */
	case 0x20: return vq->desc;
	case 0x28: return vq->driver;
	case 0x30: return vq->device;
	case 0x38: return vq->index; /* what to notify with */
	}
	return 0;
}

/* First byte and size of the register that `offset` is in. */
static unsigned common_register(uint64_t offset, unsigned *size)
{
	if (offset < 0x10) {
		*size = 4;
		return (unsigned)offset & ~3u;
	}
	if (offset == 0x14 || offset == 0x15) {
		*size = 1;
		return (unsigned)offset;
	}
	if (offset < 0x20 || offset >= 0x38) {
		*size = 2;
		return (unsigned)offset & ~1u;
	}
	*size = 8;
	return (unsigned)offset & ~7u;
}

static uint64_t common_read(struct virtio *v, uint64_t offset, unsigned size)
{
	uint64_t value = 0;

	pthread_mutex_lock(&v->lock);
	for (unsigned i = 0; i < size; i++) {
		unsigned width, at = common_register(offset + i, &width);

		value |= (common_value(v, at) >> 8 * (offset + i - at) & 0xff) << 8 * i;
	}
	pthread_mutex_unlock(&v->lock);
	return value;
}

static void address_write(uint64_t *address, unsigned offset, uint64_t value)
{
	unsigned shift = 8 * (offset & 4);

	*address = (*address & ~((uint64_t)UINT32_MAX << shift)) | (value & UINT32_MAX) << shift;
}

/* Of the selected queue, while it is not enabled; v->lock held. */
static void queue_write(struct virtio_pci *t, struct virtqueue *vq, unsigned at, uint64_t value)
{
	if (at == 0x3a) { /* done at once, so it always reads as zero */
		if (value == 1)
			virtio_queue_reset(t->v, vq);
		return;
	}
	if (at == 0x1a) {
		vq->vector = checked_vector(t, value);
		return;
	}
	if (vq->enabled)
		return;
	switch (at & ~4u) {
	case 0x18:
		if (at == 0x18 && value && value <= vq->size_max)
			vq->size = (uint16_t)value;
		if (at == 0x1c && value == 1)
			virtio_queue_enable(t->v, vq);
		break;
	case 0x20: address_write(&vq->desc, at, value); break;
	case 0x28: address_write(&vq->driver, at, value); break;
	case 0x30: address_write(&vq->device, at, value); break;
	}
}

static void common_write(struct virtio_pci *t, unsigned at, uint64_t value)
{
	struct virtio *v = t->v;
	struct virtqueue *vq;

	if (at == 0x14) {
		virtio_set_status(v, (uint8_t)value, false);
		return;
	}
	if (at == 0x0c) {
		virtio_set_features(v, v->hw.driver_select, (uint32_t)value);
		return;
	}
	pthread_mutex_lock(&v->lock);
	vq = virtio_selected(v);
	if (at == 0x00)
		v->hw.device_select = (uint32_t)value;
	else if (at == 0x08)
		v->hw.driver_select = (uint32_t)value;
	else if (at == 0x10)
		v->hw.config_vector = checked_vector(t, value);
	else if (at == 0x16)
		v->hw.queue_select = (uint16_t)value;
	else if (at >= 0x18 && vq)
		queue_write(t, vq, at, value);
	pthread_mutex_unlock(&v->lock);
}

/* ---- the BARs */

static uint64_t modern_read(void *opaque, uint64_t offset, unsigned size)
{
	struct virtio_pci *t = opaque;
	uint64_t at = offset % AREA;

	switch (offset / AREA) {
	case AREA_COMMON: return common_read(t->v, at, size);
	case AREA_ISR: return at ? 0 : isr_read(t);
	case AREA_DEVICE: return virtio_config_read(t->v, at, size);
	}
	return 0;
}

static void modern_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct virtio_pci *t = opaque;
	uint64_t at = offset % AREA;

	switch (offset / AREA) {
	case AREA_NOTIFY: virtio_notify(t->v, (uint32_t)(at / NOTIFY_MULTIPLIER)); break;
	case AREA_COMMON: common_write(t, (unsigned)at, value); break;
	case AREA_DEVICE: virtio_config_write(t->v, at, (uint32_t)value, size); break;
	}
}

static unsigned modern_doorbells(void *opaque, struct io_doorbell *out, unsigned max)
{
	unsigned n = virtio_doorbells(((struct virtio_pci *)opaque)->v, out, max);

	for (unsigned i = 0; i < n; i++)
		out[i].offset = AREA_NOTIFY * AREA + NOTIFY_MULTIPLIER * i;
	return n;
}

static const struct io_ops modern_io = { modern_read, modern_write, 1, 4, .doorbells = modern_doorbells };

/* ---- the window in configuration space */

/* Where it points to and how much it moves; 0: nowhere. The driver is to keep accesses aligned. */
static unsigned window_target(const struct virtio_pci *t, uint32_t *offset)
{
	const uint8_t *cap = t->f.hw.config + t->window;
	uint32_t length;

	memcpy(offset, cap + WINDOW_OFFSET, 4);
	memcpy(&length, cap + WINDOW_LENGTH, 4);
	if (cap[WINDOW_BAR] != BAR_MODERN || (length != 1 && length != 2 && length != 4) || *offset % length ||
	    !range_fits(*offset, length, MODERN_SIZE))
		return 0;
	return length;
}

static bool window_data(const struct virtio_pci *t, unsigned offset, unsigned size)
{
	return offset < t->window + WINDOW_SIZE && offset + size > t->window + WINDOW_DATA;
}

static void window_read(void *opaque, unsigned offset, unsigned size)
{
	struct virtio_pci *t = opaque;
	uint32_t at, value;
	unsigned length;

	if (!window_data(t, offset, size) || !(length = window_target(t, &at)))
		return;
	value = (uint32_t)modern_read(t, at, length);
	memcpy(t->f.hw.config + t->window + WINDOW_DATA, &value, length);
}

static void window_written(void *opaque, unsigned offset, unsigned size)
{
	struct virtio_pci *t = opaque;
	uint32_t at, value = 0;
	unsigned length;

	if (!window_data(t, offset, size) || !(length = window_target(t, &at)))
		return;
	memcpy(&value, t->f.hw.config + t->window + WINDOW_DATA, length);
	modern_write(t, at, value, length);
}

/* ---- before virtio 1.0: ports; a queue's three areas follow from one page number (4.1.4.10) */

static void legacy_queue(struct virtqueue *vq, uint32_t page)
{
	uint64_t n = vq->size;

	vq->desc = (uint64_t)page * LEGACY_QUEUE_ALIGN;
	vq->driver = vq->desc + 16 * n;
	vq->device = (vq->driver + 6 + 2 * n + LEGACY_QUEUE_ALIGN - 1) & ~(uint64_t)(LEGACY_QUEUE_ALIGN - 1);
}

static uint32_t legacy_register(struct virtio_pci *t, unsigned at)
{
	struct virtio *v = t->v;
	struct virtqueue *vq;
	uint32_t value = 0;

	pthread_mutex_lock(&v->lock);
	vq = virtio_selected(v);
	switch (at) {
	case 0x00: value = (uint32_t)virtio_offered(v); break;
	case 0x04: value = (uint32_t)v->hw.features; break;
	case 0x08: value = vq && vq->enabled ? (uint32_t)(vq->desc / LEGACY_QUEUE_ALIGN) : 0; break;
	case 0x0c: value = vq ? vq->size_max : 0; break;
	case 0x0e: value = v->hw.queue_select; break;
	case 0x12: value = virtio_status(v); break;
	case 0x14: value = v->hw.config_vector; break;
	case 0x16: value = vq ? vq->vector : NO_VECTOR; break;
	}
	pthread_mutex_unlock(&v->lock);
	return value;
}

static unsigned legacy_header(struct virtio_pci *t)
{
	return pci_msix_enabled(&t->f) ? 0x18 : 0x14;
}

static uint64_t legacy_read(void *opaque, uint64_t offset, unsigned size)
{
	struct virtio_pci *t = opaque;

	if (offset >= legacy_header(t))
		return virtio_config_read(t->v, offset - legacy_header(t), size);
	if (offset == 0x13)
		return isr_read(t);
	return legacy_register(t, (unsigned)offset);
}

static void legacy_set_queue(struct virtio *v, struct virtqueue *vq, uint32_t page)
{
	if (page) {
		legacy_queue(vq, page);
		virtio_queue_enable(v, vq);
	} else {
		pthread_mutex_lock(&vq->lock);
		vq->running = vq->enabled = false;
		vq->next_avail = vq->next_used = vq->published = 0;
		pthread_mutex_unlock(&vq->lock);
	}
}

static void legacy_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct virtio_pci *t = opaque;
	struct virtio *v = t->v;
	struct virtqueue *vq;

	if (offset >= legacy_header(t)) {
		virtio_config_write(v, offset - legacy_header(t), (uint32_t)value, size);
		return;
	}
	switch (offset) {
	case 0x04: virtio_set_features(v, 0, (uint32_t)value & (uint32_t)virtio_offered(v)); return;
	case 0x10: virtio_notify(v, (uint16_t)value); return;
	case 0x12: virtio_set_status(v, (uint8_t)value, true); return;
	}
	pthread_mutex_lock(&v->lock);
	vq = virtio_selected(v);
	if (offset == 0x08 && vq)
		legacy_set_queue(v, vq, (uint32_t)value);
	else if (offset == 0x0e)
		v->hw.queue_select = (uint16_t)value;
	else if (offset == 0x14)
		v->hw.config_vector = checked_vector(t, value);
	else if (offset == 0x16 && vq)
		vq->vector = checked_vector(t, value);
	pthread_mutex_unlock(&v->lock);
}

static const struct io_ops legacy_io = { legacy_read, legacy_write, 1, 4 };

/* ---- building */

static int add_area(struct pci_function *f, enum area area, unsigned extra, struct err *e)
{
	static const uint8_t type[] = { [AREA_COMMON] = 1, [AREA_NOTIFY] = 2, [AREA_ISR] = 3, [AREA_DEVICE] = 4 };
	unsigned len = 16 + extra, at = pci_add_capability(f, CAP_VENDOR, len);

	if (!at)
		return err_set(e, ENOSPC, "no room for virtio's capabilities");
	pci_set_register(f, at + 2, 1, len, 0);
	pci_set_register(f, at + 3, 1, type[area], 0);
	pci_set_register(f, at + 4, 1, BAR_MODERN, 0);
	pci_set_register(f, at + 8, 4, area * AREA, 0);
	pci_set_register(f, at + 12, 4, AREA, 0);
	if (extra)
		pci_set_register(f, at + 16, 4, NOTIFY_MULTIPLIER, 0);
	return 0;
}

static int add_window(struct virtio_pci *t, struct err *e)
{
	struct pci_function *f = &t->f;

	t->window = pci_add_capability(f, CAP_VENDOR, WINDOW_SIZE);
	if (!t->window)
		return err_set(e, ENOSPC, "no room for virtio's capabilities");
	pci_set_register(f, t->window + 2, 1, WINDOW_SIZE, 0);
	pci_set_register(f, t->window + 3, 1, CAP_WINDOW_TYPE, 0);
	pci_set_register(f, t->window + WINDOW_BAR, 1, 0, 0xff);
	pci_set_register(f, t->window + WINDOW_OFFSET, 4, 0, ~0u);
	pci_set_register(f, t->window + WINDOW_LENGTH, 4, 0, ~0u);
	pci_set_register(f, t->window + WINDOW_DATA, 4, 0, ~0u);
	return 0;
}

static void identity(struct pci_identity *id, const struct virtio *v, bool transitional)
{
	static const struct {
		uint8_t virtio;
		uint16_t device; /* transitional */
		uint32_t class_code;
	} known[] = {
		{ VIRTIO_NET, 0x1000, 0x020000 },     { VIRTIO_BLOCK, 0x1001, 0x010000 },
		{ VIRTIO_BALLOON, 0x1002, 0x00ff00 }, { VIRTIO_CONSOLE, 0x1003, 0x078000 },
		{ VIRTIO_RNG, 0x1005, 0x00ff00 },     { VIRTIO_9P, 0x1009, 0x000200 },
		{ VIRTIO_INPUT, 0, 0x098000 },
	};

	*id = (struct pci_identity){ .vendor = VENDOR, .device = (uint16_t)(0x1040 + v->id), .subsystem_vendor = VENDOR,
				     .subsystem = 0x1100, .class_code = 0x00ff00, .revision = 1, .pin = 1 };
	for (unsigned i = 0; i < ARRAY_LEN(known); i++) {
		if (known[i].virtio != v->id)
			continue;
		id->class_code = known[i].class_code;
		if (transitional && known[i].device) {
			id->device = known[i].device;
			id->subsystem = v->id;
			id->revision = 0;
		}
	}
}

int virtio_pci_attach(struct pci_bus *bus, struct virtio *v, int devfn, bool transitional, int *slot,
		      struct err *e)
{
	static const struct pci_ops ops = { .config_read = window_read, .config_written = window_written };
	struct virtio_pci *t = calloc(1, sizeof(*t));
	struct pci_identity id;
	int r;

	if (!t)
		return err_set(e, ENOMEM, "no memory for a PCI function");
	t->v = v;
	t->transitional = transitional;
	pthread_mutex_init(&t->wire, NULL);
	identity(&id, v, transitional);
	pci_function_init(&t->f, &id, &ops, t);
	if (transitional)
		pci_add_bar(&t->f, BAR_LEGACY, PCI_BAR_IO, 128, &legacy_io, t, v->name);
	pci_add_bar(&t->f, BAR_VECTORS, PCI_BAR_MEM32, 4096, NULL, NULL, v->name);
	pci_add_bar(&t->f, BAR_MODERN, PCI_BAR_MEM64_PREFETCH, MODERN_SIZE, &modern_io, t, v->name);
	v->transport = &transport;
	v->transport_opaque = t;
	r = pci_add_msix(&t->f, v->nqueues + 1, BAR_VECTORS, 0, e);
	if (!r)
		r = add_area(&t->f, AREA_COMMON, 0, e);
	if (!r)
		r = add_area(&t->f, AREA_ISR, 0, e);
	if (!r)
		r = add_area(&t->f, AREA_DEVICE, 0, e);
	if (!r)
		r = add_area(&t->f, AREA_NOTIFY, 4, e);
	if (!r)
		r = add_window(t, e);
	if (!r)
		r = pci_attach(bus, &t->f, devfn, e);
	if (slot)
		*slot = (int)(t->f.devfn >> 3);
	return r;
}
