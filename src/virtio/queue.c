/* SPDX-License-Identifier: Apache-2.0 */
/* Split queues, and what both layouts share. See queue.h; the packed layout's half is in queue-packed.c. */
#include <errno.h>
#include <string.h>
#include "base/log.h"
#include "virtio/queue-private.h"

void vq_init(struct virtqueue *vq, struct mem *mem, unsigned index, uint16_t size_max)
{
	memset(vq, 0, sizeof(*vq));
	CHECK(size_max && size_max <= VQ_SIZE_MAX);
	pthread_mutex_init(&vq->lock, NULL);
	vq->mem = mem;
	vq->index = index;
	vq->size_max = size_max;
	vq_reset(vq);
}

void vq_dispose(struct virtqueue *vq)
{
	pthread_mutex_destroy(&vq->lock);
}

void vq_reset(struct virtqueue *vq)
{
	vq->size = vq->size_max;
	vq->vector = 0xffff;
	vq->enabled = vq->running = vq->broken = vq->anew = false;
	vq->packed = vq->event_idx = vq->indirect = false;
	vq->desc = vq->driver = vq->device = 0;
	vq->h_desc = vq->h_driver = vq->h_device = NULL;
	vq->next_avail = vq->next_used = vq->published = 0;
	vq->inflight = 0;
}

void vq_break(struct virtqueue *vq, const char *why)
{
	if (vq->broken)
		return;
	vq->broken = true;
	vq->running = false;
	log_guest("virtio", "queue %u is broken: %s", vq->index, why);
	if (vq->broken_hook)
		vq->broken_hook(vq->opaque, vq);
}

static uint8_t *area_map(struct virtqueue *vq, uint64_t at, uint64_t len, unsigned align)
{
	struct iovec iov;

	if (at % align || mem_dma_map(vq->mem, at, len, &iov, 1) != 1)
		return NULL;
	return iov.iov_base;
}

bool vq_start(struct virtqueue *vq)
{
	uint64_t n = vq->size;

	if (!vq->enabled || vq->running || vq->broken)
		return vq->running;
	if (!n || n > vq->size_max || (!vq->packed && (n & (n - 1)))) {
		vq_break(vq, "its size is impossible");
		return false;
	}
	vq->h_desc = area_map(vq, vq->desc, n * 16, 16);
	vq->h_driver = area_map(vq, vq->driver, vq->packed ? 4 : 6 + 2 * n, vq->packed ? 4 : 2);
	vq->h_device = area_map(vq, vq->device, vq->packed ? 4 : 6 + 8 * n, 4);
	if (!vq->h_desc || !vq->h_driver || !vq->h_device) {
		vq_break(vq, "its rings are not in memory");
		return false;
	}
	if (vq->packed && !vq->next_avail && !vq->next_used)
		vq->next_avail = vq->next_used = VQ_WRAP;
	vq->published = vq->next_used;
	vq->running = true;
	return true;
}

/* ---- bytes of a chain */

static size_t chain_copy(struct virtqueue *vq, const struct iovec *iov, unsigned n, uint64_t offset, void *buf, size_t len)
{
	size_t done = 0;

	for (unsigned i = 0; i < n && done < len; i++) {
		size_t part;

		if (offset >= iov[i].iov_len) {
			offset -= iov[i].iov_len;
			continue;
		}
		part = MIN(len - done, (size_t)(iov[i].iov_len - offset));
		if (vq)
			mem_dma_store(vq->mem, (uint8_t *)iov[i].iov_base + offset, (uint8_t *)buf + done, part);
		else
			memcpy((uint8_t *)buf + done, (uint8_t *)iov[i].iov_base + offset, part);
		done += part;
		offset = 0;
	}
	return done;
}

size_t vq_read(const struct vq_chain *c, uint64_t offset, void *buf, size_t len)
{
	return chain_copy(NULL, c->iov, c->nout, offset, buf, len);
}

size_t vq_write(struct virtqueue *vq, const struct vq_chain *c, uint64_t offset, const void *buf, size_t len)
{
	return chain_copy(vq, c->iov + c->nout, c->nin, offset, (void *)(uintptr_t)buf, len);
}

void vq_written(struct virtqueue *vq, const struct vq_chain *c, uint64_t offset, uint64_t len)
{
	for (unsigned i = c->nout; i < c->nout + c->nin && len; i++) {
		uint64_t part;

		if (offset >= c->iov[i].iov_len) {
			offset -= c->iov[i].iov_len;
			continue;
		}
		part = MIN(len, c->iov[i].iov_len - offset);
		mem_dma_done(vq->mem, (uint8_t *)c->iov[i].iov_base + offset, part);
		len -= part;
		offset = 0;
	}
}

/* ---- gathering a chain's pieces */

bool chain_add(struct virtqueue *vq, struct vq_chain *c, const struct vq_desc *d)
{
	unsigned n = c->nout + c->nin;
	bool in = d->flags & DESC_WRITE;
	int r;

	if (!in && c->nin) {
		vq_break(vq, "a descriptor to be read follows one to be written");
		return false;
	}
	if (!d->len)
		return true;
	r = mem_dma_map(vq->mem, d->addr, d->len, c->iov + n, VQ_IOV_MAX - n);
	if (r < 0) {
		vq_break(vq, r == -E2BIG ? "a chain has too many pieces" : "a buffer is not in memory");
		return false;
	}
	if (in) {
		c->nin += (unsigned)r;
		c->in_len += d->len;
	} else {
		c->nout += (unsigned)r;
		c->out_len += d->len;
	}
	return true;
}

/* A table of descriptors elsewhere in memory, fetched as a whole. Split ones are chained, packed ones follow each other. */
bool chain_indirect(struct virtqueue *vq, struct vq_chain *c, const struct vq_desc *d)
{
	struct vq_desc table[VQ_IOV_MAX];
	unsigned n = d->len / 16, at = 0, seen = 0;

	if (!vq->indirect || d->len % 16 || !n || n > VQ_IOV_MAX) {
		vq_break(vq, "an indirect descriptor that cannot be");
		return false;
	}
	if (mem_dma_read(vq->mem, d->addr, table, d->len)) {
		vq_break(vq, "an indirect table is not in memory");
		return false;
	}
	for (; at < n; seen++) {
		struct vq_desc *t = &table[at];

		if (vq->packed) { /* flags are where next is otherwise; only WRITE counts */
			t->flags = t->next & DESC_WRITE;
			at++;
		} else {
			if (seen == n || t->flags & DESC_INDIRECT) {
				vq_break(vq, "an indirect table leads in a circle");
				return false;
			}
			at = t->flags & DESC_NEXT ? t->next : n;
			if (t->flags & DESC_NEXT && at >= n) {
				vq_break(vq, "an indirect table leads out of itself");
				return false;
			}
		}
		if (!chain_add(vq, c, t))
			return false;
	}
	return true;
}

/* ---- split: available */

#define AVAIL_FLAGS 0
#define AVAIL_IDX 2
#define AVAIL_RING 4
#define AVAIL_NO_INTERRUPT 1
#define USED_IDX 2
#define USED_RING 4
#define USED_NO_NOTIFY 1

static uint16_t split_avail(const struct virtqueue *vq)
{
	return __atomic_load_n((uint16_t *)(vq->h_driver + AVAIL_IDX), __ATOMIC_ACQUIRE);
}

static bool split_pop(struct virtqueue *vq, struct vq_chain *c)
{
	uint16_t avail = split_avail(vq), slot = vq->next_avail & (vq->size - 1), head, i;
	struct vq_desc d;

	if (avail == vq->next_avail)
		return false;
	if ((uint16_t)(avail - vq->next_avail) > vq->size || vq->inflight >= vq->size) {
		vq_break(vq, "more is available than it holds");
		return false;
	}
	head = i = load16(vq->h_driver + AVAIL_RING + 2 * slot);
	for (unsigned seen = 0;; seen++) {
		if (i >= vq->size || seen == vq->size) {
			vq_break(vq, i >= vq->size ? "a descriptor beyond its end" : "a chain leads in a circle");
			return false;
		}
		desc_fetch(&d, vq->h_desc + 16 * (size_t)i);
		if (d.flags & DESC_INDIRECT) {
			if (d.flags & DESC_NEXT) {
				vq_break(vq, "an indirect descriptor in the middle of a chain");
				return false;
			}
			if (!chain_indirect(vq, c, &d))
				return false;
			break;
		}
		if (!chain_add(vq, c, &d))
			return false;
		if (!(d.flags & DESC_NEXT))
			break;
		i = d.next;
	}
	c->id = head;
	c->slots = 1;
	vq->next_avail++;
	return true;
}

/* ---- split: used */

static void split_push(struct virtqueue *vq, const struct vq_chain *c, uint32_t written)
{
	uint8_t *at = vq->h_device + USED_RING + 8 * (size_t)(vq->next_used & (vq->size - 1));
	uint64_t element = c->id | (uint64_t)written << 32;

	ring_store(vq, at, &element, 8);
	vq->next_used++;
}

/* Has `event` been passed by the step from old to now? (2.7.10) */
static bool passed(uint16_t event, uint16_t now, uint16_t old)
{
	return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

static bool split_publish(struct virtqueue *vq)
{
	uint16_t old = vq->published, now = vq->next_used;

	__atomic_thread_fence(__ATOMIC_RELEASE);
	ring_store(vq, vq->h_device + USED_IDX, &now, 2);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (vq->event_idx)
		return passed(load16(vq->h_driver + AVAIL_RING + 2 * (size_t)vq->size), now, old);
	return !(load16(vq->h_driver + AVAIL_FLAGS) & AVAIL_NO_INTERRUPT);
}

static void split_notify(struct virtqueue *vq, bool on)
{
	uint16_t flags = on ? 0 : USED_NO_NOTIFY;

	if (!vq->event_idx)
		ring_store(vq, vq->h_device, &flags, 2);
	else if (on)
		ring_store(vq, vq->h_device + USED_RING + 8 * (size_t)vq->size, &vq->next_avail, 2);
}

/* ---- both */

bool vq_pop(struct virtqueue *vq, struct vq_chain *c)
{
	if (!vq->running)
		return false;
	c->nout = c->nin = 0;
	c->out_len = c->in_len = 0;
	if (!(vq->packed ? packed_pop(vq, c) : split_pop(vq, c)))
		return false;
	vq->inflight++;
	vq->chains++;
	return true;
}

void vq_unpop(struct virtqueue *vq, struct vq_chain *c)
{
	if (!vq->running)
		return;
	vq->inflight--;
	vq->chains--;
	if (vq->packed)
		vq->next_avail = packed_move(vq, vq->next_avail, -(int)c->slots);
	else
		vq->next_avail--;
}

void vq_push(struct virtqueue *vq, const struct vq_chain *c, uint32_t written)
{
	if (!vq->running)
		return;
	if (vq->inflight)
		vq->inflight--;
	if (vq->packed)
		packed_push(vq, c, written);
	else
		split_push(vq, c, written);
}

void vq_publish(struct virtqueue *vq)
{
	bool interrupt;

	if (!vq->running || (vq->published == vq->next_used && !vq->anew))
		return;
	interrupt = vq->packed ? packed_publish(vq) : split_publish(vq);
	vq->published = vq->next_used;
	if (interrupt || vq->anew) {
		vq->anew = false;
		vq->interrupts++;
		if (vq->interrupt)
			vq->interrupt(vq->opaque, vq);
	}
}

bool vq_empty(struct virtqueue *vq)
{
	return !vq->running || (vq->packed ? packed_empty(vq) : split_avail(vq) == vq->next_avail);
}

void vq_notify_off(struct virtqueue *vq)
{
	if (!vq->running)
		return;
	if (vq->packed)
		packed_notify(vq, false);
	else
		split_notify(vq, false);
}

bool vq_notify_on(struct virtqueue *vq)
{
	if (!vq->running)
		return false;
	if (vq->packed)
		packed_notify(vq, true);
	else
		split_notify(vq, true);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return !vq_empty(vq);
}
