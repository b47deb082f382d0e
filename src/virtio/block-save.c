/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests the error policy holds, saved with the machine. They have been taken from their queue and the guest waits for them, so they
 * are saved as what is to be done, with guest addresses, and submitted when the restored machine goes on; until then they count as
 * held. Like all that is loaded they are not trusted: addresses are looked up anew, and block_submit checks the rest.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "virtio/block-private.h"

struct record {
	uint64_t offset, length, status; /* status: its guest address */
	uint16_t queue, id, slots, pieces;
	uint8_t op, fua, unmap, unused[5];
};
_Static_assert(sizeof(struct record) == 40, "as saved");

struct record_piece {
	uint64_t at, length;
};

static int disk_check(const void *opaque, struct err *e)
{
	const struct disk_hw *hw = opaque;

	return hw->used > sizeof(hw->held) || hw->count > hw->used / sizeof(struct record) ?
		       err_set(e, EINVAL, "virtio-block: more requests than there is room for") :
		       0;
}

static const struct state_field fields[] = {
	STATE_INT(struct disk_hw, count), STATE_INT(struct disk_hw, used), STATE_RAW(struct disk_hw, held),
};

const struct state_desc disk_state = {
	.name = "virtio-block", .version = 1, .size = sizeof(struct disk_hw), .fields = fields, .nfields = ARRAY_LEN(fields),
	.check = disk_check,
};

/* ---- saving: the machine is paused */

/* Where the guest sees this byte, and how many after it; 0: nowhere. */
static uint64_t guest_address(const struct mem *m, const uint8_t *host, uint64_t *at)
{
	const struct mem_range *range;
	unsigned n;

	range = mem_ranges(m, &n);
	for (unsigned i = 0; i < n; i++) {
		if (range[i].kind != MEM_RAM || host < range[i].host || (uint64_t)(host - range[i].host) >= range[i].size)
			continue;
		*at = range[i].start + (uint64_t)(host - range[i].host);
		return range[i].size - (uint64_t)(host - range[i].host);
	}
	return 0;
}

/* Appends at `used` if that fits; gives what it would be then, or -EFAULT. */
static int64_t append(struct disk_hw *hw, int64_t used, const void *data, size_t len)
{
	if (hw && used + (int64_t)len <= (int64_t)sizeof(hw->held))
		memcpy(hw->held + used, data, len);
	return used + (int64_t)len;
}

static int64_t request_save(const struct disk_request *req, struct disk_hw *hw, int64_t used)
{
	const struct mem *m = req->q->vq->mem;
	struct record rec = { .offset = req->r.offset, .length = req->r.length, .queue = (uint16_t)req->q->vq->index,
			      .id = req->chain.id, .slots = req->chain.slots, .op = (uint8_t)req->r.op, .fua = req->r.fua,
			      .unmap = req->r.unmap };
	bool data = req->r.op == BLOCK_READ || req->r.op == BLOCK_WRITE;
	int64_t at = used + (int64_t)sizeof(rec);

	if (!guest_address(m, req->status, &rec.status))
		return -EFAULT;
	for (unsigned i = 0; data && i < req->ndata; i++) {
		const uint8_t *host = req->data[i].iov_base;
		uint64_t left = req->data[i].iov_len;

		while (left) {
			struct record_piece p;
			uint64_t there = guest_address(m, host, &p.at);

			if (!there)
				return -EFAULT;
			p.length = MIN(there, left);
			at = append(hw, at, &p, sizeof(p));
			host += p.length;
			left -= p.length;
			rec.pieces++;
		}
	}
	append(hw, used, &rec, sizeof(rec));
	return at;
}

static int64_t all_save(struct disk *d, struct disk_hw *hw, uint32_t *count)
{
	int64_t used = 0;

	*count = 0;
	for (unsigned i = 0; i < d->v.nqueues; i++) {
		struct disk_queue *q = &d->q[i];
		struct disk_request *req;

		pthread_mutex_lock(&q->vq->lock);
		LIST_FOREACH (req, &q->kept, same)
			if (used >= 0 && ++*count)
				used = request_save(req, hw, used);
		LIST_FOREACH (req, &q->restored, same)
			if (used >= 0 && ++*count)
				used = request_save(req, hw, used);
		pthread_mutex_unlock(&q->vq->lock);
	}
	return used;
}

int64_t disk_held_size(struct disk *d)
{
	uint32_t count;

	return all_save(d, NULL, &count);
}

void disk_held_save(struct disk *d)
{
	int64_t used;

	memset(&d->hw, 0, sizeof(d->hw));
	used = all_save(d, &d->hw, &d->hw.count);
	if (used < 0 || used > (int64_t)sizeof(d->hw.held)) { /* disk_held_size has said so before */
		memset(&d->hw, 0, sizeof(d->hw));
		return;
	}
	d->hw.used = (uint32_t)used;
}

/* ---- loading */

/* The record at *used as a request; false: it cannot be one. The queue's lock is held. */
static bool request_load(const struct disk_hw *hw, uint32_t *used, const struct record *rec, struct disk_request *req)
{
	struct mem *m = req->q->vq->mem;
	struct iovec status;
	uint64_t length = 0;
	unsigned n = 0;

	for (unsigned i = 0; i < rec->pieces; i++) {
		struct record_piece p;
		int r;

		if (hw->used - *used < sizeof(p))
			return false;
		memcpy(&p, hw->held + *used, sizeof(p));
		*used += (uint32_t)sizeof(p);
		r = p.length ? mem_dma_map(m, p.at, p.length, req->chain.iov + n, VQ_IOV_MAX - n) : -EFAULT;
		if (r < 0)
			return false;
		n += (unsigned)r;
		length += p.length;
	}
	if (mem_dma_map(m, rec->status, 1, &status, 1) != 1 || rec->op >= BLOCK_OPS ||
	    (rec->op == BLOCK_READ || rec->op == BLOCK_WRITE ? length != rec->length || !length : n != 0))
		return false;
	req->chain.id = rec->id;
	req->chain.slots = rec->slots;
	req->status = status.iov_base;
	req->data = req->chain.iov;
	req->ndata = n;
	req->length = length;
	req->bounce = NULL;
	req->r = (struct block_request){ .op = rec->op, .fua = rec->fua, .unmap = rec->unmap, .offset = rec->offset,
					 .length = rec->length, .iov = n ? req->data : NULL, .iovcnt = n,
					 .done = disk_request_done, .held = disk_request_held };
	return true;
}

static bool one_load(struct disk *d, uint32_t *used)
{
	struct disk_request *req;
	struct disk_queue *q;
	struct record rec;
	bool good = false;

	if (d->hw.used - *used < sizeof(rec))
		return false;
	memcpy(&rec, d->hw.held + *used, sizeof(rec));
	*used += (uint32_t)sizeof(rec);
	if (rec.queue >= d->v.nqueues)
		return false;
	q = &d->q[rec.queue];
	pthread_mutex_lock(&q->vq->lock);
	req = q->vq->running && rec.slots && rec.slots <= q->vq->size && q->underway < q->vq->size ?
		      disk_request_get(q) :
		      NULL;
	if (req)
		good = request_load(&d->hw, used, &rec, req);
	if (good) {
		LIST_INSERT_HEAD(&q->restored, req, same);
		q->underway++;
		q->held++;
		q->vq->inflight++;
	} else {
		if (req)
			disk_request_put(q, req);
		vq_break(q->vq, "a request was saved that cannot be");
	}
	pthread_mutex_unlock(&q->vq->lock);
	return good;
}

/* After the registers: the queues are as they were. */
void disk_held_load(struct disk *d)
{
	uint32_t used = 0;

	for (unsigned i = 0; i < d->v.nqueues; i++)
		disk_held_drop(&d->q[i]);
	for (uint32_t i = 0; i < d->hw.count; i++)
		if (!one_load(d, &used))
			return;
}

void disk_held_drop(struct disk_queue *q)
{
	struct disk_request *req;

	pthread_mutex_lock(&q->vq->lock);
	while ((req = LIST_FIRST(&q->restored))) {
		LIST_REMOVE(req, same);
		q->held--;
		q->underway--;
		disk_request_put(q, req);
	}
	pthread_mutex_unlock(&q->vq->lock);
}

void disk_held_submit(struct disk *d)
{
	for (unsigned i = 0; i < d->v.nqueues; i++) {
		struct disk_queue *q = &d->q[i];
		struct disk_request *req;

		pthread_mutex_lock(&q->vq->lock);
		while ((req = LIST_FIRST(&q->restored))) {
			LIST_REMOVE(req, same);
			q->held--;
			pthread_mutex_unlock(&q->vq->lock);
			disk_request_submit(req);
			pthread_mutex_lock(&q->vq->lock);
		}
		pthread_mutex_unlock(&q->vq->lock);
	}
}
