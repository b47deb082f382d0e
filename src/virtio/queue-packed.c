/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The packed layout (virtio 1.2, 2.8): one ring of descriptors written by both sides; two bits of a descriptor's flags,
 * compared with a counter that flips at each round, say whose it is. Positions here are an index with that
 * counter in bit 15.
 */
#include "virtio/queue-private.h"

#define PACKED_AVAIL 0x0080u
#define PACKED_USED 0x8000u
#define EVENT_ON 0u
#define EVENT_OFF 1u
#define EVENT_AT 2u

/* A position `by` slots further, |by| <= size. */
uint16_t packed_move(const struct virtqueue *vq, uint16_t at, int by)
{
	int index = (at & ~VQ_WRAP) + by;
	uint16_t wrap = at & VQ_WRAP;

	if (index >= vq->size) {
		index -= vq->size;
		wrap ^= VQ_WRAP;
	} else if (index < 0) {
		index += vq->size;
		wrap ^= VQ_WRAP;
	}
	return (uint16_t)index | wrap;
}

static uint8_t *slot(const struct virtqueue *vq, uint16_t at)
{
	return vq->h_desc + 16 * (size_t)(at & ~VQ_WRAP);
}

static bool is_available(const struct virtqueue *vq, uint16_t at)
{
	uint16_t flags = __atomic_load_n((uint16_t *)(void *)(slot(vq, at) + 14), __ATOMIC_ACQUIRE);
	bool wrap = at & VQ_WRAP;

	return !!(flags & PACKED_AVAIL) == wrap && !!(flags & PACKED_USED) != wrap;
}

bool packed_empty(const struct virtqueue *vq)
{
	return !is_available(vq, vq->next_avail);
}

bool packed_pop(struct virtqueue *vq, struct vq_chain *c)
{
	uint16_t at = vq->next_avail, flags;
	unsigned seen = 0;
	struct vq_desc d;

	if (!is_available(vq, at))
		return false;
	if (vq->inflight >= vq->size) {
		vq_break(vq, "more is available than it holds");
		return false;
	}
	do {
		if (seen == vq->size) {
			vq_break(vq, "a chain leads in a circle");
			return false;
		}
		desc_fetch(&d, slot(vq, at));
		flags = d.next;
		c->id = d.flags;
		if (flags & DESC_INDIRECT) {
			if (seen || flags & DESC_NEXT) {
				vq_break(vq, "an indirect descriptor in the middle of a chain");
				return false;
			}
			if (!chain_indirect(vq, c, &d))
				return false;
		} else {
			d.flags = flags;
			if (!chain_add(vq, c, &d))
				return false;
		}
		at = packed_move(vq, at, 1);
		seen++;
	} while (flags & DESC_NEXT);
	c->slots = (uint16_t)seen;
	vq->next_avail = at;
	return true;
}

void packed_push(struct virtqueue *vq, const struct vq_chain *c, uint32_t written)
{
	uint8_t *at = slot(vq, vq->next_used);
	uint16_t flags = vq->next_used & VQ_WRAP ? PACKED_AVAIL | PACKED_USED : 0;
	bool first = vq->published == vq->next_used;
	uint64_t half = written | (uint64_t)c->id << 32;

	if (written)
		flags |= DESC_WRITE;
	/* The length and id with the flags as they are now, then the flags: the guest stops at the first it finds unused. */
	half |= (uint64_t)load16(at + 14) << 48;
	ring_store(vq, at + 8, &half, 8);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	if (first)
		vq->first_flags = flags;
	else
		ring_store(vq, at + 14, &flags, 2);
	vq->next_used = packed_move(vq, vq->next_used, c->slots);
}

/* Has the position `event` (as the driver gives it) been passed by the step from old to now? */
static bool passed(const struct virtqueue *vq, uint16_t event, uint16_t now, uint16_t old)
{
	/* unrolled so that `now` has the lower wrap: positions count down one size for the round before */
	uint16_t index = event & (VQ_WRAP - 1), n = now & (VQ_WRAP - 1), o = old & (VQ_WRAP - 1);

	if ((event ^ now) & VQ_WRAP)
		index -= vq->size;
	if ((old ^ now) & VQ_WRAP)
		o -= vq->size;
	return (uint16_t)(n - index - 1) < (uint16_t)(n - o);
}

bool packed_publish(struct virtqueue *vq)
{
	uint16_t event, mode;

	if (vq->published != vq->next_used) {
		__atomic_thread_fence(__ATOMIC_RELEASE);
		ring_store(vq, slot(vq, vq->published) + 14, &vq->first_flags, 2);
	}
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	event = load16(vq->h_driver);
	mode = load16(vq->h_driver + 2) & 3;
	if (mode == EVENT_AT && vq->event_idx)
		return passed(vq, event, vq->next_used, vq->published);
	return mode != EVENT_OFF;
}

void packed_notify(struct virtqueue *vq, bool on)
{
	uint16_t flags = !on ? EVENT_OFF : vq->event_idx ? EVENT_AT : EVENT_ON;

	if (on && vq->event_idx) {
		ring_store(vq, vq->h_device, &vq->next_avail, 2);
		__atomic_thread_fence(__ATOMIC_RELEASE);
	}
	ring_store(vq, vq->h_device + 2, &flags, 2);
}
