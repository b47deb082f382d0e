/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network card's control queue (virtio 1.2, 5.1.6.5): receive modes, address tables, VLANs, offloads, queue pairs, announcing; and
 * the filter that they make. A command comes on the kicking thread; control_lock keeps commands in order
 * and a reset waiting.
 */
#include <string.h>
#include "virtio/net-private.h"

enum { CLASS_RX, CLASS_MAC, CLASS_VLAN, CLASS_ANNOUNCE, CLASS_MQ, CLASS_OFFLOADS };
enum { ACK_OK, ACK_ERR };

static const struct {
	uint64_t feature;
	unsigned takes;
} guest_takes[] = {
	{ NET_F_GUEST_CSUM, NET_TAKES_CSUM }, { NET_F_GUEST_TSO4, NET_TAKES_TSO4 }, { NET_F_GUEST_TSO6, NET_TAKES_TSO6 },
	{ NET_F_GUEST_ECN, NET_TAKES_ECN },
};
#define OFFLOADS                                                                                                          \
	(NET_F_GUEST_CSUM | NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6 | NET_F_GUEST_ECN | NET_F_GUEST_USO4 | NET_F_GUEST_USO6)

void net_takes_update(struct virtio_net *n)
{
	uint64_t on = n->hw.offloads & n->v.hw.features;
	unsigned takes = 0;

	for (unsigned i = 0; i < ARRAY_LEN(guest_takes); i++)
		if (on & guest_takes[i].feature)
			takes |= guest_takes[i].takes;
	if (on & NET_F_GUEST_USO4 && on & NET_F_GUEST_USO6)
		takes |= NET_TAKES_USO;
	net_card_takes(n->link, takes);
}

/* All receive queues' locks. */
void net_hw_lock(struct virtio_net *n, bool lock)
{
	for (unsigned i = 0; i < n->pairs; i++) {
		if (lock)
			pthread_mutex_lock(&n->rx[i].vq->lock);
		else
			pthread_mutex_unlock(&n->rx[i].vq->lock);
	}
}

/* ---- the filter */

static bool in_table(const uint8_t *table, unsigned n, const uint8_t *mac)
{
	for (unsigned i = 0; i < n; i++)
		if (!memcmp(table + i * 6, mac, 6))
			return true;
	return false;
}

bool net_wanted(struct virtio_net *n, const uint8_t *f, size_t len)
{
	static const uint8_t broadcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	const struct net_hw *hw = &n->hw;

	if (hw->mode[NET_RX_PROMISC])
		return true;
	if (len >= 16 && f[12] == 0x81 && f[13] == 0 && virtio_has(&n->v, NET_F_CTRL_VLAN)) {
		unsigned vlan = (f[14] & 15u) << 8 | f[15];

		if (!(hw->vlan[vlan / 32] >> (vlan % 32) & 1))
			return false;
	}
	if (!memcmp(f, broadcast, 6))
		return !hw->mode[NET_RX_NOBCAST];
	if (f[0] & 1)
		return !hw->mode[NET_RX_NOMULTI] && (hw->mode[NET_RX_ALLMULTI] || hw->multicasts > NET_MACS ||
						     in_table(hw->multicast, hw->multicasts, f));
	return !hw->mode[NET_RX_NOUNI] && (hw->mode[NET_RX_ALLUNI] || hw->unicasts > NET_MACS || !memcmp(f, hw->mac, 6) ||
					   in_table(hw->unicast, hw->unicasts, f));
}

/* As the driver finds it after a reset: everything passes, as for a driver that cannot say what it wants. */
void net_control_reset(struct virtio_net *n)
{
	n->hw = (struct net_hw){ .mode = { [NET_RX_PROMISC] = 1 }, .pairs = 1, .offloads = OFFLOADS };
	memcpy(n->hw.mac, net_mac(n->link), 6);
}

/* ---- commands: data from `at` on; all receive queues' locks are held */

static bool set_rx(struct virtio_net *n, uint8_t command, const struct vq_chain *c)
{
	uint8_t on;

	if (command >= NET_RX_MODES || vq_read(c, 2, &on, 1) != 1)
		return false;
	if (!virtio_has(&n->v, command > NET_RX_ALLMULTI ? NET_F_CTRL_RX_EXTRA : NET_F_CTRL_RX))
		return false;
	n->hw.mode[command] = on != 0;
	return true;
}

/* A count and as many addresses; *at moves behind them. */
static bool read_table(const struct vq_chain *c, uint64_t *at, uint16_t *used, uint8_t *table)
{
	uint32_t count;

	if (vq_read(c, *at, &count, 4) != 4)
		return false;
	*at += 4;
	if (count > c->out_len / 6 || !range_fits(*at, (uint64_t)count * 6, c->out_len))
		return false;
	*used = (uint16_t)MIN(count, NET_MACS + 1);
	if (count <= NET_MACS)
		vq_read(c, *at, table, count * 6);
	*at += (uint64_t)count * 6;
	return true;
}

static bool set_mac(struct virtio_net *n, uint8_t command, const struct vq_chain *c)
{
	struct net_hw new = n->hw;
	uint64_t at = 2;

	if (command == 1 && virtio_has(&n->v, NET_F_CTRL_MAC_ADDR))
		return vq_read(c, 2, n->hw.mac, 6) == 6;
	if (command || !virtio_has(&n->v, NET_F_CTRL_RX) || !read_table(c, &at, &new.unicasts, new.unicast) ||
	    !read_table(c, &at, &new.multicasts, new.multicast))
		return false;
	n->hw = new;
	return true;
}

static bool set_vlan(struct virtio_net *n, uint8_t command, const struct vq_chain *c)
{
	uint16_t id;

	if (command > 1 || !virtio_has(&n->v, NET_F_CTRL_VLAN) || vq_read(c, 2, &id, 2) != 2 || id >= 4096)
		return false;
	if (command)
		n->hw.vlan[id / 32] &= ~(uint32_t)BIT(id % 32);
	else
		n->hw.vlan[id / 32] |= (uint32_t)BIT(id % 32);
	return true;
}

static bool set_pairs(struct virtio_net *n, uint8_t command, const struct vq_chain *c)
{
	uint16_t pairs;

	if (command || !virtio_has(&n->v, NET_F_MQ) || vq_read(c, 2, &pairs, 2) != 2 || !pairs || pairs > n->pairs)
		return false;
	__atomic_store_n(&n->hw.pairs, (uint8_t)pairs, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < sizeof(n->flow); i++)
		__atomic_store_n(&n->flow[i], 0, __ATOMIC_RELAXED);
	return true;
}

static bool set_offloads(struct virtio_net *n, uint8_t command, const struct vq_chain *c)
{
	uint64_t on;

	if (command || !virtio_has(&n->v, NET_F_GUEST_OFFLOADS) || vq_read(c, 2, &on, 8) != 8 ||
	    on & ~(OFFLOADS & n->v.hw.features))
		return false;
	n->hw.offloads = on;
	net_takes_update(n);
	return true;
}

static bool command_do(struct virtio_net *n, uint8_t class, uint8_t command, const struct vq_chain *c)
{
	switch (class) {
	case CLASS_RX: return set_rx(n, command, c);
	case CLASS_MAC: return set_mac(n, command, c);
	case CLASS_VLAN: return set_vlan(n, command, c);
	case CLASS_MQ: return set_pairs(n, command, c);
	case CLASS_OFFLOADS: return set_offloads(n, command, c);
	case CLASS_ANNOUNCE:
		if (command || !virtio_has(&n->v, NET_F_GUEST_ANNOUNCE))
			return false;
		__atomic_store_n(&n->hw.announce, 0, __ATOMIC_RELAXED);
		/* without v->lock: a driver that reads the status meanwhile announces itself once more */
		__atomic_fetch_and(&n->config.status, (uint16_t)~NET_S_ANNOUNCE, __ATOMIC_RELAXED);
		return true;
	default: return false;
	}
}

void net_control_kick(struct virtio_net *n)
{
	struct virtqueue *vq = net_control_queue(n);
	struct vq_chain *c = &n->control;

	pthread_mutex_lock(&n->control_lock);
	pthread_mutex_lock(&vq->lock);
	vq->kicks++;
	do {
		vq_notify_off(vq);
		while (!n->v.paused && vq_pop(vq, c)) {
			uint8_t head[2], ack = ACK_ERR;

			if (!c->in_len || vq_read(c, 0, head, 2) != 2) {
				vq_break(vq, "a command without header or answer");
				break;
			}
			pthread_mutex_unlock(&vq->lock); /* the order of the locks is that of the queues */
			net_hw_lock(n, true);
			if (command_do(n, head[0], head[1], c))
				ack = ACK_OK;
			net_hw_lock(n, false);
			pthread_mutex_lock(&vq->lock);
			vq_push(vq, c, (uint32_t)vq_write(vq, c, 0, &ack, 1));
		}
		vq_publish(vq);
	} while (vq_notify_on(vq) && !n->v.paused);
	pthread_mutex_unlock(&vq->lock);
	pthread_mutex_unlock(&n->control_lock);
}
