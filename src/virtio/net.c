/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network card (virtio 1.2, 5.1). Queues: receive and transmit of each pair in turn, then the control queue; a driver without
 * NET_F_MQ finds that one third.
 *
 * Transmitting is done on the thread that kicks: one at a time works on a queue (q->busy, under its lock), tx_lock is held
 * while a frame is the back-end's, which finishes with it before it returns. When the back-end is busy the frame goes back to
 * the ring. Receiving: net_receive is called by the back-end and fills buffers of the queue on which this flow was last sent; it
 * publishes at the end of a batch (net_received).
 *
 * Locks: control_lock, tx_lock, then the back-end's, then receive queues'. A transmit queue's lock is dropped around sending.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "virtio/net-private.h"

#define GSO_TCP4 1
#define GSO_TCP6 4
#define GSO_UDP_L4 5
#define GSO_ECN 0x80
#define HDR_NEEDS_CSUM 1
#define HDR_DATA_VALID 2
#define PIECES 64 /* receive buffers of a frame: 64 KiB in ones of 1.5 KiB are 44 */

static size_t header_length(const struct virtio_net *n)
{
	return virtio_has(&n->v, VIRTIO_F_VERSION_1) || virtio_has(&n->v, NET_F_MRG_RXBUF) ? 12 : 10;
}

/* ---- from the guest */

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
static uint8_t flow_hash(const uint8_t *f, size_t len)
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
	size_t head = header_length(n);
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
		__atomic_store_n(&n->flow[flow_hash(start, vq_read(c, head, start, sizeof(start)))], (uint8_t)(q - n->tx),
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

static void send_kick(struct net_queue *q)
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

static void net_drained_front(void *opaque)
{
	struct virtio_net *n = opaque;

	for (unsigned i = 0; i < n->pairs; i++)
		send_kick(&n->tx[i]);
}

/* ---- to the guest */

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
	size_t head = header_length(n), done = 0;
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

static enum net_result net_receive(void *opaque, const struct net_wire *w, const struct iovec *iov, unsigned count, size_t len)
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
		q = &n->rx[__atomic_load_n(&n->flow[flow_hash(start, got)], __ATOMIC_RELAXED) % net_pairs_used(n)];
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

static void net_received(void *opaque)
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

static void receive_kick(struct net_queue *q)
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

static void net_link_changed(void *opaque, bool up)
{
	struct virtio_net *n = opaque;

	pthread_mutex_lock(&n->v.lock);
	n->config.status = up ? NET_S_LINK_UP : 0;
	pthread_mutex_unlock(&n->v.lock);
	virtio_config_changed(&n->v);
}

static const struct net_card_ops card_ops = {
	.receive = net_receive, .received = net_received, .drained = net_drained_front, .link = net_link_changed,
};

/* ---- life */

static void net_kick(struct virtio *v, struct virtqueue *vq)
{
	struct virtio_net *n = container_of(v, struct virtio_net, v);

	if (vq == net_control_queue(n))
		net_control_kick(n);
	else if (vq->index >= 2 * n->pairs)
		return;
	else if (vq->index % 2)
		send_kick(&n->tx[vq->index / 2]);
	else
		receive_kick(&n->rx[vq->index / 2]);
}

static void net_activate(struct virtio *v)
{
	struct virtio_net *n = container_of(v, struct virtio_net, v);

	net_takes_update(n);
}

/* Nobody sends: who did has seen that the queues have stopped, or `paused`. */
static void queue_idle(struct net_queue *q)
{
	pthread_mutex_lock(&q->vq->lock);
	while (q->busy)
		pthread_cond_wait(&q->idle, &q->vq->lock);
	pthread_mutex_unlock(&q->vq->lock);
}

static void send_idle(struct virtio_net *n)
{
	for (unsigned i = 0; i < n->pairs; i++)
		queue_idle(&n->tx[i]);
}

static void net_queue_reset(struct virtio *v, struct virtqueue *vq)
{
	struct virtio_net *n = container_of(v, struct virtio_net, v);

	if (vq == net_control_queue(n)) {
		pthread_mutex_lock(&n->control_lock); /* a command that was underway is over */
		pthread_mutex_unlock(&n->control_lock);
	} else if (vq->index < 2 * n->pairs && vq->index % 2) {
		queue_idle(&n->tx[vq->index / 2]);
	} else if (vq->index < 2 * n->pairs) {
		pthread_mutex_lock(&vq->lock);
		n->rx[vq->index / 2].starved = true; /* the back-end is told of the buffers that come */
		pthread_mutex_unlock(&vq->lock);
	}
}

static void net_reset(struct virtio *v)
{
	struct virtio_net *n = container_of(v, struct virtio_net, v);

	pthread_mutex_lock(&n->control_lock);
	send_idle(n);
	net_hw_lock(n, true);
	net_control_reset(n);
	for (unsigned i = 0; i < n->pairs; i++)
		n->rx[i].starved = true; /* of the next driver's buffers the back-end is told */
	net_hw_lock(n, false);
	pthread_mutex_unlock(&n->control_lock);
	net_card_takes(n->link, 0);
	memcpy(n->config.mac, n->hw.mac, 6);
	n->config.status = net_up(n->link) ? NET_S_LINK_UP : 0;
}

static void net_pause(struct virtio *v)
{
	struct virtio_net *n = container_of(v, struct virtio_net, v);

	send_idle(n);
	pthread_mutex_lock(&n->control_lock); /* a command that was underway is over */
	pthread_mutex_unlock(&n->control_lock);
	for (unsigned i = 0; i < n->pairs; i++) {
		pthread_mutex_lock(&n->rx[i].vq->lock);
		vq_publish(n->rx[i].vq);
		n->rx[i].starved = true; /* what comes meanwhile waits in the back-end, until the queues are kicked */
		pthread_mutex_unlock(&n->rx[i].vq->lock);
	}
}

static void net_resume(struct virtio *v)
{
	struct virtio_net *n = container_of(v, struct virtio_net, v);

	if (n->restored && virtio_running(v) && virtio_has(v, NET_F_GUEST_ANNOUNCE) && net_up(n->link)) {
		/* the guest is somewhere else now, for all a switch knows: it is asked to say so */
		pthread_mutex_lock(&v->lock);
		n->hw.announce = 1;
		n->config.status |= NET_S_ANNOUNCE;
		pthread_mutex_unlock(&v->lock);
		virtio_config_changed(v);
	}
	n->restored = false;
	/* kicks follow only for a driver that is there */
	if (!virtio_running(v))
		net_ready(n->link);
}

static void net_destroy(struct virtio *v)
{
	struct virtio_net *n = container_of(v, struct virtio_net, v);

	net_attach(n->link, NULL, NULL);
	for (unsigned i = 0; i < n->pairs; i++) {
		pthread_cond_destroy(&n->rx[i].idle);
		pthread_cond_destroy(&n->tx[i].idle);
	}
	virtio_dispose(v);
	pthread_mutex_destroy(&n->tx_lock);
	pthread_mutex_destroy(&n->control_lock);
	free(n);
}

static const struct virtio_ops ops = {
	.doorbells = true,
	.kick = net_kick, .activate = net_activate, .reset = net_reset, .pause = net_pause,
	.queue_reset = net_queue_reset, .resume = net_resume,
	.destroy = net_destroy,
};

static const struct state_field fields[] = {
	STATE_INTS(struct net_hw, mac),	       STATE_INTS(struct net_hw, mode),	      STATE_INT(struct net_hw, announce),
	STATE_INT(struct net_hw, pairs),       STATE_INT(struct net_hw, offloads),    STATE_INT(struct net_hw, unicasts),
	STATE_INT(struct net_hw, multicasts),  STATE_INTS(struct net_hw, unicast),    STATE_INTS(struct net_hw, multicast),
	STATE_INTS(struct net_hw, vlan),       STATE_RAW(struct net_hw, flows),
};

static int net_check(const void *opaque, struct err *e)
{
	const struct net_hw *hw = opaque;

	if (hw->unicasts > NET_MACS + 1 || hw->multicasts > NET_MACS + 1 || hw->pairs > NET_PAIRS)
		return err_set(e, EINVAL, "virtio-net: a table is too large");
	return 0;
}

static const struct state_desc net_state = {
	.name = "virtio-net", .version = 1, .size = sizeof(struct net_hw), .fields = fields, .nfields = ARRAY_LEN(fields),
	.check = net_check,
};

static void own_saving(struct device *d)
{
	struct virtio_net *n = container_of(d, struct virtio_net, own);

	net_flows_of(n->link, n->hw.flows);
}

static void own_loaded(struct device *d)
{
	struct virtio_net *n = container_of(d, struct virtio_net, own);

	n->config.status = (uint16_t)(net_up(n->link) ? NET_S_LINK_UP : 0);
	memcpy(n->config.mac, n->hw.mac, 6);
	n->restored = true;
	if (virtio_running(&n->v))
		net_takes_update(n);
	net_flows_over(n->link, n->hw.flows, n->hw.mac);
}

static void own_destroy(struct device *d)
{
}

static const struct device_ops own_ops = { .state = &net_state, .saving = own_saving, .loaded = own_loaded, .destroy = own_destroy };

struct virtio *virtio_net_create(const struct device_env *env, unsigned instance, const struct virtio_net_config *c, struct err *e)
{
	struct virtio_setup setup = { .ops = &ops, .name = "virtio-net", .id = VIRTIO_NET, .queue_size = NET_QUEUE_SIZE };
	struct virtio_net *n = calloc(1, sizeof(*n));

	if (!n) {
		err_set(e, ENOMEM, "no memory for a network card");
		return NULL;
	}
	n->link = c->link;
	n->pairs = MAX(1u, MIN(c->pairs, NET_PAIRS));
	n->config = (struct net_device_config){ .status = NET_S_LINK_UP, .pairs = (uint16_t)n->pairs, .mtu = (uint16_t)(net_mtu(c->link) ?: NET_MTU) };
	memcpy(n->config.mac, net_mac(c->link), 6);
	setup.nqueues = 2 * n->pairs + 1;
	setup.features = NET_F_CSUM | NET_F_GUEST_CSUM | NET_F_GUEST_OFFLOADS | NET_F_MAC | NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6 |
			 NET_F_GUEST_ECN | NET_F_HOST_TSO4 | NET_F_HOST_TSO6 | NET_F_HOST_ECN | NET_F_MRG_RXBUF | NET_F_STATUS |
			 NET_F_CTRL_VQ | NET_F_CTRL_RX | NET_F_CTRL_VLAN | NET_F_CTRL_RX_EXTRA | NET_F_GUEST_ANNOUNCE |
			 NET_F_CTRL_MAC_ADDR | NET_F_GUEST_USO4 | NET_F_GUEST_USO6 | NET_F_HOST_USO;
	if (n->pairs > 1)
		setup.features |= NET_F_MQ;
	if (net_mtu(c->link)) /* a driver that knows one takes no larger one from its user: only where one was asked for */
		setup.features |= NET_F_MTU;
	setup.config = &n->config;
	setup.config_len = sizeof(n->config);
	pthread_mutex_init(&n->tx_lock, NULL);
	pthread_mutex_init(&n->control_lock, NULL);
	virtio_init(&n->v, env, instance, &setup);
	for (unsigned i = 0; i < n->pairs; i++) {
		n->rx[i] = (struct net_queue){ .net = n, .vq = &n->v.queue[2 * i] };
		n->tx[i] = (struct net_queue){ .net = n, .vq = &n->v.queue[2 * i + 1] };
		pthread_cond_init(&n->rx[i].idle, NULL);
		pthread_cond_init(&n->tx[i].idle, NULL);
	}
	net_control_reset(n);
	n->own = (struct device){ .ops = &own_ops, .instance = instance, .hw = &n->hw };
	n->v.own = &n->own;
	net_attach(n->link, &card_ops, n);
	return &n->v;
}
