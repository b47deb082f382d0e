/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network card (virtio 1.2, 5.1): its life. Queues: receive and transmit of each pair in turn (net-receive.c, net-send.c), then the
 * control queue (net-control.c); a driver without NET_F_MQ finds that one third.
 *
 * Locks: control_lock, tx_lock, then the back-end's, then receive queues'. A transmit queue's lock is dropped around sending.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "virtio/net-private.h"

static void net_link_changed(void *opaque, bool up)
{
	struct virtio_net *n = opaque;

	pthread_mutex_lock(&n->v.lock);
	n->config.status = up ? NET_S_LINK_UP : 0;
	pthread_mutex_unlock(&n->v.lock);
	virtio_config_changed(&n->v);
}

static const struct net_card_ops card_ops = {
	.receive = net_receive, .received = net_received, .drained = net_send_drained, .link = net_link_changed,
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
		net_send_kick(&n->tx[vq->index / 2]);
	else
		net_receive_kick(&n->rx[vq->index / 2]);
}

static void net_activate(struct virtio *v)
{
	struct virtio_net *n = container_of(v, struct virtio_net, v);

	net_takes_update(n);
}

static void net_queue_reset(struct virtio *v, struct virtqueue *vq)
{
	struct virtio_net *n = container_of(v, struct virtio_net, v);

	if (vq == net_control_queue(n)) {
		pthread_mutex_lock(&n->control_lock); /* a command that was underway is over */
		pthread_mutex_unlock(&n->control_lock);
	} else if (vq->index < 2 * n->pairs && vq->index % 2) {
		net_send_idle(&n->tx[vq->index / 2]);
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
	net_send_idle_all(n);
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

	net_send_idle_all(n);
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
