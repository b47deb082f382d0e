/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network card's transmit queues. Transmitting is done on the thread that kicks: one at a time works on a queue (q->busy, under its
 * lock), tx_lock is held while a frame is the back-end's, which finishes with it before it returns; the queue's lock is dropped
 * meanwhile. When the back-end is busy the frame goes back to the ring.
 */
#include <string.h>
#include "virtio/net-private.h"

static bool header_parse(const struct virtio_net *n, const struct net_header *h, struct net_wire *w)
{
	static const struct {
		uint8_t type, gso;
		uint64_t feature;
	} types[] = { { GSO_TCP4, NET_GSO_TCP4, NET_F_HOST_TSO4 }, { GSO_TCP6, NET_GSO_TCP6, NET_F_HOST_TSO6 },
		      { GSO_UDP_L4, NET_GSO_UDP, NET_F_HOST_USO } };
	unsigned i = 0;

	*w = (struct net_wire){ 0 };
	if (h->flags & HDR_NEEDS_CSUM) {
		if (!virtio_has(&n->v, NET_F_CSUM))
			return false;
		w->flags |= NET_WIRE_CSUM;
		w->csum_start = h->csum_start;
		w->csum_offset = h->csum_offset;
	}
	if (!h->gso_type)
		return true;
	while (i < ARRAY_LEN(types) && types[i].type != (h->gso_type & ~GSO_ECN))
		i++;
	if (i == ARRAY_LEN(types) || !virtio_has(&n->v, types[i].feature) || !(w->flags & NET_WIRE_CSUM))
		return false;
	w->gso = types[i].gso;
	w->gso_size = h->gso_size;
	w->hdr_len = h->hdr_len;
	if (h->gso_type & GSO_ECN)
		w->flags |= NET_WIRE_ECN;
	return true;
}

/* Both ways the same: by addresses and ports of IPv4 and IPv6, without options. Nonsense has a hash as well. */
uint8_t net_flow_hash(const uint8_t *f, size_t len)
{
	size_t at = NET_HEADER;
	uint32_t h = 0, v;
	unsigned protocol;

	if (len >= 38 && f[12] == 8 && f[13] == 0) {
		protocol = f[23];
		for (unsigned i = 0; i < 2; i++) {
			memcpy(&v, f + 26 + 4 * i, 4);
			h += v * 0x9e3779b1u;
		}
		at += (f[14] & 15u) * 4;
	} else if (len >= 58 && f[12] == 0x86 && f[13] == 0xdd) {
		protocol = f[20];
		for (unsigned i = 0; i < 8; i++) {
			memcpy(&v, f + 22 + 4 * i, 4);
			h += v * 0x9e3779b1u;
		}
		at += 40;
	} else {
		return 0;
	}
	if ((protocol == 6 || protocol == 17) && at + 4 <= len) {
		uint16_t port[2];

		memcpy(port, f + at, 4);
		h += (port[0] + port[1]) * 0x85ebca6bu;
	}
	return (uint8_t)(h >> 24 ^ h >> 13 ^ h >> 3);
}

/* The piece of the chain after the header, as iovecs of its own (chain->iov is changed). */
static struct iovec *trim(struct vq_chain *c, size_t head, unsigned *n)
{
	struct iovec *iov = c->iov;

	*n = c->nout;
	while (*n && head >= iov->iov_len) {
		head -= iov->iov_len;
		iov++;
		--*n;
	}
	if (*n) {
		iov->iov_base = (uint8_t *)iov->iov_base + head;
		iov->iov_len -= head;
	}
	return iov;
}

/* The queue's lock is not held; tx_lock is. */
static enum net_result frame_send(struct net_queue *q)
{
	struct virtio_net *n = q->net;
	struct vq_chain *c = &q->chain;
	size_t head = net_header_length(n);
	struct net_header h = { 0 };
	struct net_wire w;
	struct iovec *iov;
	unsigned pieces;
	uint8_t start[64];

	if (c->out_len < head + NET_HEADER || c->out_len > head + NET_WIRE_FRAME || vq_read(c, 0, &h, head) != head ||
	    !header_parse(n, &h, &w)) {
		n->malformed++;
		net_dropped(n->link, false);
		return NET_DONE;
	}
	if (n->pairs > 1)
		__atomic_store_n(&n->flow[net_flow_hash(start, vq_read(c, head, start, sizeof(start)))], (uint8_t)(q - n->tx),
				 __ATOMIC_RELAXED);
	iov = trim(c, head, &pieces);
	return net_send(n->link, &w, iov, pieces);
}

/* q->vq->lock is held; dropped meanwhile. True: the back-end is busy. */
static bool queue_send(struct net_queue *q)
{
	struct virtqueue *vq = q->vq;
	enum net_result r = NET_DONE;

	while (!q->net->v.paused && vq_pop(vq, &q->chain)) {
		pthread_mutex_unlock(&vq->lock);
		pthread_mutex_lock(&q->net->tx_lock);
		r = frame_send(q);
		pthread_mutex_unlock(&q->net->tx_lock);
		pthread_mutex_lock(&vq->lock);
		if (r == NET_BUSY) {
			vq_unpop(vq, &q->chain);
			break;
		}
		vq_push(vq, &q->chain, 0);
	}
	return r == NET_BUSY;
}

void net_send_kick(struct net_queue *q)
{
	struct virtqueue *vq = q->vq;
	bool busy = false;

	pthread_mutex_lock(&vq->lock);
	vq->kicks++;
	q->again = true;
	if (q->busy) {
		pthread_mutex_unlock(&vq->lock);
		return;
	}
	q->busy = true;
	while (q->again) {
		q->again = false;
		do {
			vq_notify_off(vq);
			busy = queue_send(q);
			vq_publish(vq);
		} while (!busy && !q->net->v.paused && vq_notify_on(vq));
		pthread_mutex_unlock(&vq->lock);
		net_sent(q->net->link);
		pthread_mutex_lock(&vq->lock);
	}
	q->busy = false;
	pthread_cond_broadcast(&q->idle);
	pthread_mutex_unlock(&vq->lock);
}

void net_send_drained(void *opaque)
{
	struct virtio_net *n = opaque;

	for (unsigned i = 0; i < n->pairs; i++)
		net_send_kick(&n->tx[i]);
}

void net_send_idle(struct net_queue *q)
{
	pthread_mutex_lock(&q->vq->lock);
	while (q->busy)
		pthread_cond_wait(&q->idle, &q->vq->lock);
	pthread_mutex_unlock(&q->vq->lock);
}

void net_send_idle_all(struct virtio_net *n)
{
	for (unsigned i = 0; i < n->pairs; i++)
		net_send_idle(&n->tx[i]);
}
