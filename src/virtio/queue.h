/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtqueues (virtio 1.2, 2.6 to 2.8), split and packed, parsed in this one place. The guest is hostile and may change any byte
 * of the rings while they are read: every descriptor is fetched once, every address is checked through mem/, every walk is
 * bounded by the queue's size, an indirect table by VQ_IOV_MAX. What makes no sense breaks the queue: it gives nothing
 * more until the device is reset, and the driver is told (DEVICE_NEEDS_RESET).
 *
 * Locking: vq->lock covers everything; functions named here want it held unless they say otherwise. The owner keeps no
 * chain's addresses in use after the queue has been reset.
 *
 * A device's way of working: on a kick, or when it has something for the guest,
 *
 *	do {
 *		vq_notify_off(vq);
 *		while (vq_pop(vq, &chain))
 *			... vq_push(vq, &chain, written) now or later, in any order;
 *		vq_publish(vq);
 *	} while (vq_notify_on(vq));
 *
 * vq_push stages what is used; vq_publish shows all of it to the guest at once and interrupts if the guest wants that. So a
 * packet over several buffers (mergeable receive buffers) is several pushes and one publish. vq_unpop gives the chain popped last
 * back: a packet that does not fit yet.
 */
#ifndef VIRTIO_QUEUE_H
#define VIRTIO_QUEUE_H

#include <pthread.h>
#include <sys/uio.h>
#include "mem/mem.h"

#define VQ_SIZE_MAX 1024u
#define VQ_IOV_MAX 258u /* pieces of a chain: 256 of data and two of header */

struct virtqueue {
	pthread_mutex_t lock;
	struct mem *mem;
	void (*interrupt)(void *opaque, struct virtqueue *vq); /* any thread, lock held */
	void (*broken_hook)(void *opaque, struct virtqueue *vq);
	void *opaque;
	unsigned index;
	uint16_t size_max;

	/* as the driver has set it up */
	uint16_t size;
	uint16_t vector;
	bool enabled;
	uint64_t desc, driver, device; /* guest addresses of the three areas */
	bool packed, event_idx, indirect;

	/* while running */
	bool running, broken;
	uint8_t *h_desc, *h_driver, *h_device;
	uint16_t next_avail, next_used; /* split: free-running; packed: index, wrap counter in bit 15 */
	uint16_t published;             /* next_used as the guest knows it */
	bool anew;                      /* interrupt whatever the guest said last: it may refer to before a restore */
	uint16_t first_flags;           /* packed: of the first staged element, written last */
	unsigned inflight;              /* popped and not pushed */
	uint64_t kicks, chains, interrupts;
};

/* One request: pieces the device reads (out), then pieces it writes (in). Host addresses in the guest's RAM. */
struct vq_chain {
	uint16_t id;    /* what vq_push returns to the guest */
	uint16_t slots; /* packed: ring slots it took */
	unsigned nout, nin;
	uint64_t out_len, in_len;
	struct iovec iov[VQ_IOV_MAX];
};

void vq_init(struct virtqueue *vq, struct mem *mem, unsigned index, uint16_t size_max);
void vq_dispose(struct virtqueue *vq);
void vq_reset(struct virtqueue *vq);
/* The driver is done setting up. False: the areas cannot be (then the queue is broken). */
bool vq_start(struct virtqueue *vq);

bool vq_pop(struct virtqueue *vq, struct vq_chain *c);
void vq_unpop(struct virtqueue *vq, struct vq_chain *c);
void vq_push(struct virtqueue *vq, const struct vq_chain *c, uint32_t written);
void vq_publish(struct virtqueue *vq);
bool vq_empty(struct virtqueue *vq); /* nothing to pop at the moment */
void vq_notify_off(struct virtqueue *vq);
bool vq_notify_on(struct virtqueue *vq); /* true: something came meanwhile, look again */
void vq_break(struct virtqueue *vq, const char *why);

/* Bytes to and from a chain; how many there were. No lock needed for as long as the chain is the caller's. */
size_t vq_read(const struct vq_chain *c, uint64_t offset, void *buf, size_t len);
size_t vq_write(struct virtqueue *vq, const struct vq_chain *c, uint64_t offset, const void *buf, size_t len);
/* What a piece of I/O has written directly into a chain's in part: [offset, +len) */
void vq_written(struct virtqueue *vq, const struct vq_chain *c, uint64_t offset, uint64_t len);

#endif
