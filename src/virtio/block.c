/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk (virtio 1.2, 5.2). Requests go to the back-end on the thread that kicks, which is right because block_submit never
 * blocks; what is in the host's memory is answered before the kick returns, without a thread switch (40 to 60 us on a
 * virtual host). Data goes straight between the guest's pages and the back-end.
 *
 * One thread at a time works on a queue (q->busy); it publishes and interrupts once for all it has done, others only when they
 * find it idle. A request belongs to its queue from the pop to the push, and q->underway counts it. Those that the
 * back-end's error policy holds do not keep the machine from pausing: they are tried again when it goes on, or saved with it
 * (block-save.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "virtio/block-private.h"

#define F_SEG_MAX BIT(2)
#define F_RO BIT(5)
#define F_BLK_SIZE BIT(6)
#define F_FLUSH BIT(9)
#define F_TOPOLOGY BIT(10)
#define F_MQ BIT(12)
#define F_DISCARD BIT(13)
#define F_WRITE_ZEROES BIT(14)

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { S_OK, S_IOERR, S_UNSUPPORTED };

#define QUEUE_SIZE 256
#define HEADER 16
#define BOUNCE_MAX (64u << 20)
#define RANGE_MAX 0x3fffffu /* sectors a discard may cover: 2 GiB */

/* ---- completion */

struct disk_request *disk_request_get(struct disk_queue *q)
{
	struct disk_request *req = q->free;

	if (req) {
		q->free = req->next;
		return req;
	}
	req = malloc(sizeof(*req));
	if (req)
		req->q = q;
	return req;
}

void disk_request_put(struct disk_queue *q, struct disk_request *req)
{
	req->next = q->free;
	q->free = req;
}

static void request_complete(struct disk_request *req, uint8_t status, uint64_t written)
{
	struct disk_queue *q = req->q;
	struct virtqueue *vq = q->vq;

	mem_dma_store(vq->mem, req->status, &status, 1);
	pthread_mutex_lock(&vq->lock);
	vq_push(vq, &req->chain, (uint32_t)MIN(written + 1, UINT32_MAX));
	if (!q->busy)
		vq_publish(vq);
	disk_request_put(q, req);
	if (--q->underway <= q->held)
		pthread_cond_broadcast(&q->idle);
	pthread_mutex_unlock(&vq->lock);
}

static void data_arrived(struct disk_request *req)
{
	struct mem *mem = req->q->vq->mem;
	const uint8_t *from = req->bounce;

	for (unsigned i = 0; i < req->ndata; i++) {
		if (from) {
			mem_dma_store(mem, req->data[i].iov_base, from, req->data[i].iov_len);
			from += req->data[i].iov_len;
		} else {
			mem_dma_done(mem, req->data[i].iov_base, req->data[i].iov_len);
		}
	}
}

void disk_request_done(struct block_request *r, int result)
{
	struct disk_request *req = container_of(r, struct disk_request, r);
	bool read = r->op == BLOCK_READ;

	if (read && (!result || !req->bounce)) /* a failed read may have written some of it */
		data_arrived(req);
	free(req->bounce);
	req->bounce = NULL;
	request_complete(req, result == -EOPNOTSUPP ? S_UNSUPPORTED : result ? S_IOERR : S_OK, read ? req->length : 0);
}

/* The back-end's lock is held. */
void disk_request_held(struct block_request *r, bool held)
{
	struct disk_request *req = container_of(r, struct disk_request, r);
	struct disk_queue *q = req->q;

	pthread_mutex_lock(&q->vq->lock);
	q->held += held ? 1u : -1u;
	if (held)
		LIST_INSERT_HEAD(&q->kept, req, same);
	else
		LIST_REMOVE(req, same);
	pthread_cond_broadcast(&q->idle);
	pthread_mutex_unlock(&q->vq->lock);
}

/* ---- requests */

void disk_request_submit(struct disk_request *req)
{
	struct block_request *r = &req->r;

	if (r->op == BLOCK_READ && !mem_dma_direct(req->q->vq->mem)) {
		req->bounce = req->length <= BOUNCE_MAX ? malloc(req->length) : NULL;
		if (!req->bounce) {
			request_complete(req, S_IOERR, 0);
			return;
		}
		req->bounce_iov = (struct iovec){ req->bounce, req->length };
		r->iov = &req->bounce_iov;
		r->iovcnt = 1;
	}
	block_submit(req->q->d->block, r);
}

/* Take `len` bytes off the front. */
static void trim_front(struct iovec **iov, unsigned *n, uint64_t len)
{
	while (len && *n) {
		uint64_t part = MIN(len, (*iov)->iov_len);

		(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + part;
		(*iov)->iov_len -= part;
		len -= part;
		if ((*iov)->iov_len)
			return;
		++*iov;
		--*n;
	}
}

static void transfer(struct disk_request *req, enum block_op op, uint64_t sector)
{
	struct disk *d = req->q->d;
	struct block_request *r = &req->r;

	if (sector > UINT64_MAX / BLOCK_SECTOR || !req->length || req->length % BLOCK_SECTOR ||
	    !range_fits(sector * BLOCK_SECTOR, req->length, d->config.capacity * BLOCK_SECTOR)) {
		request_complete(req, S_IOERR, 0);
		return;
	}
	*r = (struct block_request){ .op = op, .now = true, .offset = sector * BLOCK_SECTOR, .length = req->length,
				     .iov = req->data, .iovcnt = req->ndata, .done = disk_request_done, .held = disk_request_held };
	r->fua = op == BLOCK_WRITE && !virtio_has(&d->v, F_FLUSH);
	disk_request_submit(req);
}

/* DISCARD and WRITE_ZEROES: one range. */
static void clear(struct disk_request *req, uint32_t type)
{
	struct disk *d = req->q->d;
	struct {
		uint64_t sector;
		uint32_t count, flags;
	} range;
	uint32_t allowed = type == T_WRITE_ZEROES ? 1 : 0;

	if (req->length != sizeof(range)) {
		request_complete(req, req->length % sizeof(range) ? S_IOERR : S_UNSUPPORTED, 0);
		return;
	}
	vq_read(&req->chain, HEADER, &range, sizeof(range));
	if (range.flags & ~allowed) {
		request_complete(req, S_UNSUPPORTED, 0);
		return;
	}
	if (range.count > RANGE_MAX || !range_fits(range.sector, range.count, d->config.capacity)) {
		request_complete(req, S_IOERR, 0);
		return;
	}
	req->r = (struct block_request){ .op = type == T_DISCARD ? BLOCK_DISCARD : BLOCK_WRITE_ZEROES,
					 .unmap = range.flags & 1, .offset = range.sector * BLOCK_SECTOR,
					 .length = (uint64_t)range.count * BLOCK_SECTOR, .done = disk_request_done,
					 .held = disk_request_held };
	req->r.fua = type == T_WRITE_ZEROES && !virtio_has(&d->v, F_FLUSH);
	block_submit(d->block, &req->r);
}

static void get_id(struct disk_request *req)
{
	struct disk *d = req->q->d;
	struct mem *mem = req->q->vq->mem;
	size_t done = 0;

	for (unsigned i = 0; i < req->ndata && done < SERIAL_LENGTH; i++) {
		size_t part = MIN(req->data[i].iov_len, SERIAL_LENGTH - done);

		mem_dma_store(mem, req->data[i].iov_base, d->serial + done, part);
		done += part;
	}
	request_complete(req, S_OK, done);
}

/* A chain without room for a header or a status is none of ours: back, with nothing written. */
static bool request_parse(struct disk_request *req, uint32_t *type, uint64_t *sector)
{
	struct vq_chain *c = &req->chain;
	const struct iovec *last;
	struct {
		uint32_t type, priority;
		uint64_t sector;
	} header;

	if (c->out_len < HEADER || !c->in_len)
		return false;
	vq_read(c, 0, &header, sizeof(header));
	*type = header.type;
	*sector = header.sector;
	last = &c->iov[c->nout + c->nin - 1]; /* there is one: it has bytes */
	req->status = (uint8_t *)last->iov_base + last->iov_len - 1;
	return true;
}

static void request_start(struct disk_request *req)
{
	struct vq_chain *c = &req->chain;
	struct virtqueue *vq = req->q->vq;
	uint64_t sector;
	uint32_t type;
	bool in;

	req->bounce = NULL;
	if (!request_parse(req, &type, &sector)) {
		pthread_mutex_lock(&vq->lock);
		vq_break(vq, "a disk request without header or status");
		disk_request_put(req->q, req);
		if (--req->q->underway <= req->q->held)
			pthread_cond_broadcast(&req->q->idle);
		pthread_mutex_unlock(&vq->lock);
		return;
	}
	in = type == T_IN || type == T_GET_ID;
	req->data = in ? c->iov + c->nout : c->iov;
	req->ndata = in ? c->nin : c->nout;
	req->length = in ? c->in_len - 1 : c->out_len - HEADER;
	if (type == T_DISCARD || type == T_WRITE_ZEROES) {
		clear(req, type);
		return;
	}
	if (in) {
		struct iovec *last = &req->data[req->ndata - 1];

		if (!--last->iov_len)
			req->ndata--;
	} else {
		trim_front(&req->data, &req->ndata, HEADER);
	}
	switch (type) {
	case T_IN: transfer(req, BLOCK_READ, sector); break;
	case T_OUT: transfer(req, BLOCK_WRITE, sector); break;
	case T_GET_ID: get_id(req); break;
	case T_FLUSH:
		req->r = (struct block_request){ .op = BLOCK_FLUSH, .done = disk_request_done, .held = disk_request_held };
		block_submit(req->q->d->block, &req->r);
		break;
	default: request_complete(req, S_UNSUPPORTED, 0);
	}
}

/* vq->lock held, dropped for each request. */
static void queue_work(struct disk_queue *q)
{
	struct virtqueue *vq = q->vq;
	struct disk_request *req;

	do {
		vq_notify_off(vq);
		while ((req = disk_request_get(q))) {
			if (!vq_pop(vq, &req->chain)) {
				disk_request_put(q, req);
				break;
			}
			q->underway++;
			pthread_mutex_unlock(&vq->lock);
			request_start(req);
			pthread_mutex_lock(&vq->lock);
		}
		vq_publish(vq);
	} while (vq_notify_on(vq) && req);
}

static void disk_kick(struct virtio *v, struct virtqueue *vq)
{
	struct disk_queue *q = &container_of(v, struct disk, v)->q[vq->index];

	pthread_mutex_lock(&vq->lock);
	vq->kicks++;
	q->again = true;
	if (!q->busy) {
		q->busy = true;
		while (q->again) {
			q->again = false;
			queue_work(q);
		}
		q->busy = false;
	}
	pthread_mutex_unlock(&vq->lock);
}

/* ---- life */

/* Nothing is underway but what is held. */
static void queue_idle(struct disk_queue *q)
{
	pthread_mutex_lock(&q->vq->lock);
	while (q->underway > q->held)
		pthread_cond_wait(&q->idle, &q->vq->lock);
	vq_publish(q->vq);
	pthread_mutex_unlock(&q->vq->lock);
}

static void disk_idle(struct virtio *v)
{
	struct disk *d = container_of(v, struct disk, v);

	for (unsigned i = 0; i < v->nqueues; i++)
		queue_idle(&d->q[i]);
}

static void disk_reset(struct virtio *v)
{
	struct disk *d = container_of(v, struct disk, v);

	block_set_holding(d->block, false);
	for (unsigned i = 0; i < v->nqueues; i++)
		disk_held_drop(&d->q[i]);
	disk_idle(v);
	block_set_holding(d->block, true);
}

/* What the error policy holds is given up on all queues: with requests held the machine is about to stop anyway. */
static void disk_queue_reset(struct virtio *v, struct virtqueue *vq)
{
	struct disk *d = container_of(v, struct disk, v);

	block_set_holding(d->block, false);
	disk_held_drop(&d->q[vq->index]);
	queue_idle(&d->q[vq->index]);
	block_set_holding(d->block, true);
}

static void disk_resume(struct virtio *v)
{
	struct disk *d = container_of(v, struct disk, v);

	block_retry(d->block);
	disk_held_submit(d);
}

static int disk_save_check(struct virtio *v, struct err *e)
{
	struct disk *d = container_of(v, struct disk, v);
	int64_t size = disk_held_size(d);
	struct block_info info;

	if (size >= 0 && size <= DISK_HELD_ROOM)
		return 0;
	block_get_info(d->block, &info);
	return err_set(e, EBUSY, "disk %.200s has failed, and %s of its requests are still to be tried again: let the machine go on first",
		       info.path, size < 0 ? "the memory" : "too many");
}

static void disk_destroy(struct virtio *v)
{
	struct disk *d = container_of(v, struct disk, v);

	block_set_holding(d->block, false);
	for (unsigned i = 0; i < v->nqueues; i++)
		disk_held_drop(&d->q[i]);
	disk_idle(v);
	for (unsigned i = 0; i < v->nqueues; i++) {
		struct disk_request *req;

		while ((req = d->q[i].free)) {
			d->q[i].free = req->next;
			free(req);
		}
		pthread_cond_destroy(&d->q[i].idle);
	}
	virtio_dispose(v);
	free(d);
}

static const struct virtio_ops ops = {
	.doorbells = true,
	.kick = disk_kick, .reset = disk_reset, .pause = disk_idle, .resume = disk_resume, .save_check = disk_save_check,
	.queue_reset = disk_queue_reset, .destroy = disk_destroy,
};

static void own_saving(struct device *own)
{
	disk_held_save(container_of(own, struct disk, own));
}

static void own_loaded(struct device *own)
{
	disk_held_load(container_of(own, struct disk, own));
}

static void own_destroy(struct device *own)
{
}

static const struct device_ops own_ops = {
	.state = &disk_state, .saving = own_saving, .loaded = own_loaded, .destroy = own_destroy,
};

static uint64_t disk_describe(struct disk *d, unsigned queues)
{
	struct disk_config *c = &d->config;
	uint64_t features = F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY;
	struct block_info info;

	block_get_info(d->block, &info);
	c->capacity = info.size / BLOCK_SECTOR;
	c->seg_max = VQ_IOV_MAX - 4;
	c->blk_size = info.logical_sector;
	while (info.logical_sector << c->physical_exp < info.physical_sector && c->physical_exp < 8)
		c->physical_exp++;
	c->num_queues = (uint16_t)queues;
	if (queues > 1)
		features |= F_MQ;
	if (info.read_only)
		return features | F_RO;
	if (info.discard_granularity) {
		features |= F_DISCARD;
		c->max_discard_sectors = RANGE_MAX;
		c->max_discard_seg = 1;
		c->discard_alignment = (uint32_t)MAX(info.discard_granularity / BLOCK_SECTOR, 1ull);
		c->zeroes_may_unmap = 1;
	}
	c->max_zeroes_sectors = RANGE_MAX;
	c->max_zeroes_seg = 1;
	return features | F_WRITE_ZEROES;
}

struct virtio *virtio_block_create(const struct device_env *env, unsigned instance, const struct virtio_block_config *c,
				   struct err *e)
{
	struct disk *d = calloc(1, sizeof(*d));
	struct virtio_setup setup = { .ops = &ops, .name = "virtio-block", .id = VIRTIO_BLOCK, .queue_size = QUEUE_SIZE };

	if (!d) {
		err_set(e, ENOMEM, "no memory for a disk");
		return NULL;
	}
	d->block = c->block;
	setup.nqueues = MAX(1u, MIN(c->queues, (unsigned)DISK_QUEUES));
	setup.features = disk_describe(d, setup.nqueues);
	setup.config = &d->config;
	setup.config_len = CONFIG_LENGTH;
	if (c->serial)
		memcpy(d->serial, c->serial, strnlen(c->serial, SERIAL_LENGTH));
	virtio_init(&d->v, env, instance, &setup);
	d->own = (struct device){ .ops = &own_ops, .instance = instance, .hw = &d->hw };
	d->v.own = &d->own;
	for (unsigned i = 0; i < setup.nqueues; i++) {
		d->q[i].d = d;
		d->q[i].vq = &d->v.queue[i];
		LIST_INIT(&d->q[i].kept);
		LIST_INIT(&d->q[i].restored);
		pthread_cond_init(&d->q[i].idle, NULL);
	}
	return &d->v;
}

void virtio_block_resized(struct virtio *v)
{
	struct disk *d = container_of(v, struct disk, v);
	struct block_info info;

	block_get_info(d->block, &info);
	pthread_mutex_lock(&v->lock);
	__atomic_store_n(&d->config.capacity, info.size / BLOCK_SECTOR, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&v->lock);
	virtio_config_changed(v);
}
