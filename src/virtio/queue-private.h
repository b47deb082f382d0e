/* SPDX-License-Identifier: Apache-2.0 */
/* What the two layouts of a queue share. */
#ifndef VIRTIO_QUEUE_PRIVATE_H
#define VIRTIO_QUEUE_PRIVATE_H

#include <string.h>
#include "virtio/queue.h"

#define DESC_NEXT 1u
#define DESC_WRITE 2u
#define DESC_INDIRECT 4u
#define VQ_WRAP 0x8000u

/* As a split queue has it; a packed one has id where flags are and flags where next is. */
struct vq_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};
_Static_assert(sizeof(struct vq_desc) == 16, "as in guest memory");

/* Guest memory changes under our feet: one load each. */
static inline uint16_t load16(const uint8_t *at)
{
	return __atomic_load_n((const uint16_t *)(const void *)at, __ATOMIC_RELAXED);
}

static inline void desc_fetch(struct vq_desc *d, const uint8_t *at)
{
	uint64_t half[2] = { __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_RELAXED),
			     __atomic_load_n((const uint64_t *)(const void *)(at + 8), __ATOMIC_RELAXED) };

	memcpy(d, half, sizeof(*d));
}

static inline void ring_store(struct virtqueue *vq, uint8_t *at, const void *data, unsigned len)
{
	mem_dma_store(vq->mem, at, data, len);
}

bool chain_add(struct virtqueue *vq, struct vq_chain *c, const struct vq_desc *d);
bool chain_indirect(struct virtqueue *vq, struct vq_chain *c, const struct vq_desc *d);

/* queue-packed.c */
bool packed_pop(struct virtqueue *vq, struct vq_chain *c);
bool packed_empty(const struct virtqueue *vq);
void packed_push(struct virtqueue *vq, const struct vq_chain *c, uint32_t written);
bool packed_publish(struct virtqueue *vq); /* does the guest want an interrupt? */
void packed_notify(struct virtqueue *vq, bool on);
uint16_t packed_move(const struct virtqueue *vq, uint16_t at, int by);

#endif
