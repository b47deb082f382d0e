/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network card's receive queues: net_receive is called by the back-end and fills buffers of the queue on which this flow was last
 * sent; they are published at the end of a batch (net_received). A queue without buffers is marked `starved`, and the back-end told
 * when there are some again.
 */
#include <string.h>
#include "virtio/net-private.h"

#define PIECES 64 /* receive buffers of a frame: 64 KiB in ones of 1.5 KiB are 44 */

static void header_make(const struct net_wire *w, struct net_header *h)
{
	static const uint8_t gso[] = { 0, GSO_TCP4, GSO_TCP6, GSO_UDP_L4 };

	*h = (struct net_header){ .num_buffers = 1 };
	if (w->flags & NET_WIRE_CSUM) {
		h->flags = HDR_NEEDS_CSUM;
		h->csum_start = w->csum_start;
		h->csum_offset = w->csum_offset;
	} else if (w->flags & NET_WIRE_VALID) {
		h->flags = HDR_DATA_VALID;
	}
	h->gso_type = gso[w->gso];
	if (w->gso) {
		h->gso_size = w->gso_size;
		h->hdr_len = w->hdr_len;
		if (w->flags & NET_WIRE_ECN)
			h->gso_type |= GSO_ECN;
	}
}

/* Where the next byte of a frame comes from. */
struct source {
	const struct iovec *iov;
	unsigned n;
	size_t at; /* within the first */
};

static size_t copy_in(struct virtqueue *vq, const struct vq_chain *c, uint64_t offset, struct source *s, size_t len)
{
	size_t done = 0;

	while (done < len && s->n) {
		size_t part = MIN(len - done, s->iov->iov_len - s->at);

		if (vq_write(vq, c, offset + done, (const uint8_t *)s->iov->iov_base + s->at, part) != part)
			break;
		done += part;
		s->at += part;
		if (s->at == s->iov->iov_len) {
			s->iov++;
			s->n--;
			s->at = 0;
		}
	}
	return done;
}

/* Back in the ring, as if never taken. */
static void give_back(struct net_queue *q, struct net_piece *piece, unsigned n)
{
	struct vq_chain c;

	while (n--) {
		c.id = piece[n].id;
		c.slots = piece[n].slots;
		vq_unpop(q->vq, &c);
	}
}

/* q->vq->lock is held. */
static enum net_result frame_receive(struct net_queue *q, const struct net_header *h, struct source *s, size_t len)
{
	struct virtio_net *n = q->net;
	struct virtqueue *vq = q->vq;
	size_t head = net_header_length(n), done = 0;
	bool merge = virtio_has(&n->v, NET_F_MRG_RXBUF);
	struct net_piece piece[PIECES];
	struct vq_chain *c = &q->chain, first;
	unsigned used = 0;
	uint8_t count[2];

	do {
		size_t skip = used ? 0 : head, part;

		if (used == PIECES || (used && !merge)) { /* the driver's buffers are too small: for it the frame is lost */
			give_back(q, piece, used);
			net_dropped(n->link, true);
			return NET_DONE;
		}
		if (!vq_pop(vq, c)) {
			/* asked for here, behind the last one there is: buffers that do not suffice cause no more kicks */
			q->starved = true;
			if (vq_notify_on(vq))
				continue;
			give_back(q, piece, used);
			return NET_BUSY;
		}
		if (c->in_len <= skip) {
			vq_break(vq, "a receive buffer without room for a header");
			return NET_DONE;
		}
		if (!used) {
			vq_write(vq, c, 0, h, head);
			if (c->in_len - skip < len)
				first = *c;
		}
		part = copy_in(vq, c, skip, s, MIN(len - done, (size_t)MIN(c->in_len - skip, (uint64_t)NET_WIRE_FRAME)));
		piece[used++] = (struct net_piece){ c->id, c->slots, (uint32_t)(skip + part) };
		done += part;
	} while (done < len);
	if (used > 1) {
		count[0] = (uint8_t)used;
		count[1] = 0;
		vq_write(vq, &first, offsetof(struct net_header, num_buffers), count, 2);
	}
	for (unsigned i = 0; i < used; i++) {
		c->id = piece[i].id;
		c->slots = piece[i].slots;
		vq_push(vq, c, piece[i].written);
	}
	return NET_DONE;
}

enum net_result net_receive(void *opaque, const struct net_wire *w, const struct iovec *iov, unsigned count, size_t len)
{
	struct virtio_net *n = opaque;
	struct source s = { iov, count, 0 };
	struct net_header h;
	struct net_queue *q = &n->rx[0];
	enum net_result r;
	uint8_t start[64];
	size_t got = 0;

	for (unsigned i = 0; i < count && got < sizeof(start); i++) {
		size_t part = MIN(iov[i].iov_len, sizeof(start) - got);

		memcpy(start + got, iov[i].iov_base, part);
		got += part;
	}
	if (net_pairs_used(n) > 1)
		q = &n->rx[__atomic_load_n(&n->flow[net_flow_hash(start, got)], __ATOMIC_RELAXED) % net_pairs_used(n)];
	header_make(w, &h);
	pthread_mutex_lock(&q->vq->lock);
	if (!n->v.paused && (!q->vq->running || q->vq->broken)) {
		net_dropped(n->link, true);
		r = NET_DONE;
	} else if (n->v.paused) {
		r = NET_BUSY;
	} else if (!net_wanted(n, start, got)) {
		n->filtered++;
		r = NET_DONE;
	} else {
		r = frame_receive(q, &h, &s, len);
		if (r == NET_BUSY)
			vq_publish(q->vq);
		if (r == NET_DONE && q->starved) {
			q->starved = false;
			vq_notify_off(q->vq);
		}
	}
	pthread_mutex_unlock(&q->vq->lock);
	return r;
}

void net_received(void *opaque)
{
	struct virtio_net *n = opaque;

	for (unsigned i = 0; i < net_pairs_used(n); i++) {
		struct virtqueue *vq = n->rx[i].vq;

		pthread_mutex_lock(&vq->lock);
		if (!n->v.paused)
			vq_publish(vq);
		pthread_mutex_unlock(&vq->lock);
	}
}

void net_receive_kick(struct net_queue *q)
{
	bool was;

	pthread_mutex_lock(&q->vq->lock);
	q->vq->kicks++;
	was = q->starved;
	if (!was)
		vq_notify_off(q->vq);
	pthread_mutex_unlock(&q->vq->lock);
	if (was)
		net_ready(q->net->link);
}
