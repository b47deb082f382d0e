/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio devices (virtio 1.2): what all of them share, and the two transports. A model's struct embeds a `struct virtio`: it says
 * what it is and how many queues it has, and is then put on the PCI bus or into memory (MMIO).
 *
 * Locking: v->lock covers the registers; each queue has a lock of its own, taken after v->lock. Kicks take only the
 * queue's. A model's own locks are between the two or below, as it says itself.
 *
 * While the machine is paused (and before it first runs) no model touches guest memory: `paused` is set, under v->lock and every
 * queue's lock. A model that works on its own account looks at it with its queue's lock held.
 */
#ifndef VIRTIO_VIRTIO_H
#define VIRTIO_VIRTIO_H

#include "dev/device.h"
#include "virtio/queue.h"

struct pci_bus;
struct virtio;
struct virtio_bells;

#define VIRTIO_QUEUES 40

enum virtio_id {
	VIRTIO_NET = 1,
	VIRTIO_BLOCK = 2,
	VIRTIO_CONSOLE = 3,
	VIRTIO_RNG = 4,
	VIRTIO_BALLOON = 5,
	VIRTIO_9P = 9,
	VIRTIO_INPUT = 18,
	VIRTIO_VSOCK = 19,
	VIRTIO_FS = 26,
	VIRTIO_PMEM = 27,
};

#define VIRTIO_F_INDIRECT BIT(28)
#define VIRTIO_F_EVENT_IDX BIT(29)
#define VIRTIO_F_VERSION_1 BIT(32)
#define VIRTIO_F_PACKED BIT(34)
#define VIRTIO_F_RING_RESET BIT(40)

#define VIRTIO_STATUS_ACKNOWLEDGE 1u
#define VIRTIO_STATUS_DRIVER 2u
#define VIRTIO_STATUS_DRIVER_OK 4u
#define VIRTIO_STATUS_FEATURES_OK 8u
#define VIRTIO_STATUS_NEEDS_RESET 64u
#define VIRTIO_STATUS_FAILED 128u

struct virtio_ops {
	bool doorbells; /* kicks may come from the event loop, a little later than the driver meant them (doorbell.c) */
	/* The driver has something in this queue. Any thread, no lock held; must not block. */
	void (*kick)(struct virtio *v, struct virtqueue *vq);
	void (*activate)(struct virtio *v); /* the driver is ready: v->features are final; v->lock held; may be NULL */
	/*
	 * The queues have stopped; when this returns nothing is underway any more that touches guest memory. v->lock held; may be
	 * NULL.
	 */
	void (*reset)(struct virtio *v);
	/*
	 * One queue has stopped and is about to be forgotten; as reset, for it alone. Offered to drivers (VIRTIO_F_RING_RESET) where a
	 * model has it; virtio_queue_reset_plain for one that keeps no chain longer than it holds the queue's lock.
	 */
	void (*queue_reset)(struct virtio *v, struct virtqueue *vq);
	/* The driver has changed v->config[offset..]; v->lock held. NULL: it cannot. */
	void (*config_written)(struct virtio *v, unsigned offset, unsigned size);
	void (*pause)(struct virtio *v);  /* finish what is underway; no lock held; may be NULL */
	void (*resume)(struct virtio *v); /* before the queues are kicked; no lock held; may be NULL */
	int (*save_check)(struct virtio *v, struct err *e); /* as in device.h; may be NULL */
	void (*destroy)(struct virtio *v); /* frees it; calls virtio_dispose when nothing is underway any more */
};

struct virtio_hw {
	uint8_t status, isr;
	uint64_t features; /* the driver's choice */
	uint32_t device_select, driver_select, generation;
	uint16_t queue_select, config_vector;
	/* of each queue */
	uint16_t size[VIRTIO_QUEUES], vector[VIRTIO_QUEUES];
	bool enabled[VIRTIO_QUEUES];
	uint64_t desc[VIRTIO_QUEUES], driver[VIRTIO_QUEUES], device[VIRTIO_QUEUES];
	uint16_t next_avail[VIRTIO_QUEUES], next_used[VIRTIO_QUEUES];
};

struct virtio_transport {
	void (*interrupt)(void *opaque, uint16_t vector, bool config); /* any thread, queue locks held */
	void (*reset)(void *opaque); /* the driver has reset the device: wires drop */
	void (*destroy)(void *opaque);
};

struct virtio {
	struct device device;
	struct virtio_hw hw;
	const struct virtio_ops *ops;
	const char *name;
	enum virtio_id id;
	uint64_t offered; /* features */
	struct device_env env;
	pthread_mutex_t lock;
	_Atomic bool paused;
	void *config; /* the device's configuration space, little endian; under v->lock */
	unsigned config_len;
	unsigned nqueues;
	struct virtqueue queue[VIRTIO_QUEUES];
	struct device *own; /* what the model saves beside this; the board adds it too; may be NULL */
	struct virtio_bells *bells; /* NULL: none were asked for */
	const struct virtio_transport *transport;
	void *transport_opaque;
};

/* ---- for models */

struct virtio_setup {
	const struct virtio_ops *ops;
	const char *name;
	enum virtio_id id;
	uint64_t features; /* the device's own; those of queues are added */
	void *config;
	unsigned config_len, nqueues;
	uint16_t queue_size;
};
void virtio_init(struct virtio *v, const struct device_env *env, unsigned instance, const struct virtio_setup *s);
void virtio_dispose(struct virtio *v);
static inline bool virtio_has(const struct virtio *v, uint64_t feature)
{
	return v->hw.features & feature;
}
void virtio_queue_reset_plain(struct virtio *v, struct virtqueue *vq);
/* v->config has changed (the caller had v->lock): tell the driver. Any thread. */
void virtio_config_changed(struct virtio *v);
bool virtio_running(struct virtio *v); /* the driver is there */

/* ---- for the board: transports take the device over, also when they fail */

/* devfn: -1 for the next free slot, told in *slot. `transitional`: drivers from before virtio 1.0 can use it too. */
int virtio_pci_attach(struct pci_bus *bus, struct virtio *v, int devfn, bool transitional, int *slot, struct err *e);
#define VIRTIO_MMIO_SIZE 0x200
int virtio_mmio_attach(struct virtio *v, uint64_t base, struct irq_line irq, struct err *e);

/* ---- for transports */

uint64_t virtio_offered(const struct virtio *v);
uint8_t virtio_status(struct virtio *v);
void virtio_set_status(struct virtio *v, uint8_t status, bool legacy);
void virtio_set_features(struct virtio *v, unsigned word, uint32_t value); /* a half of them */
void virtio_notify(struct virtio *v, uint32_t queue);
/* The eventfds of queues 0, 1, ...; how many have one. The transport adds where they are. While the map is made alone. */
unsigned virtio_doorbells(struct virtio *v, struct io_doorbell *out, unsigned max);
void virtio_bells_settle(struct virtio *v); /* v->paused is set: when this returns no bell is being answered */
void virtio_bells_dispose(struct virtio *v); /* no bell is answered any more */
uint32_t virtio_config_read(struct virtio *v, uint64_t offset, unsigned size);
void virtio_config_write(struct virtio *v, uint64_t offset, uint32_t value, unsigned size);
/* The selected queue, or NULL; v->lock held. */
struct virtqueue *virtio_selected(struct virtio *v);
void virtio_queue_enable(struct virtio *v, struct virtqueue *vq); /* v->lock held */
/* Back to what it was before it was set up, if that was negotiated; over when this returns. v->lock held. */
void virtio_queue_reset(struct virtio *v, struct virtqueue *vq);
uint8_t virtio_take_isr(struct virtio *v);

#endif
