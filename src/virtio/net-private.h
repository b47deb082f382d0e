/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the network card: what net.c (its life), net-send.c, net-receive.c and net-control.c (the driver's commands) share. */
#ifndef VIRTIO_NET_PRIVATE_H
#define VIRTIO_NET_PRIVATE_H

#include "backend/net.h"
#include "virtio/devices.h"

#define NET_F_CSUM BIT(0)
#define NET_F_GUEST_CSUM BIT(1)
#define NET_F_GUEST_OFFLOADS BIT(2)
#define NET_F_MTU BIT(3)
#define NET_F_MAC BIT(5)
#define NET_F_GUEST_TSO4 BIT(7)
#define NET_F_GUEST_TSO6 BIT(8)
#define NET_F_GUEST_ECN BIT(9)
#define NET_F_HOST_TSO4 BIT(11)
#define NET_F_HOST_TSO6 BIT(12)
#define NET_F_HOST_ECN BIT(13)
#define NET_F_MRG_RXBUF BIT(15)
#define NET_F_STATUS BIT(16)
#define NET_F_CTRL_VQ BIT(17)
#define NET_F_CTRL_RX BIT(18)
#define NET_F_CTRL_VLAN BIT(19)
#define NET_F_CTRL_RX_EXTRA BIT(20)
#define NET_F_GUEST_ANNOUNCE BIT(21)
#define NET_F_MQ BIT(22)
#define NET_F_CTRL_MAC_ADDR BIT(23)
#define NET_F_GUEST_USO4 BIT(54)
#define NET_F_GUEST_USO6 BIT(55)
#define NET_F_HOST_USO BIT(56)

#define NET_S_LINK_UP 1u
#define NET_S_ANNOUNCE 2u

#define NET_QUEUE_SIZE 256
#define NET_PAIRS 8u
#define NET_MACS 64u /* of each table; more than that: all */

struct net_device_config {
	uint8_t mac[6];
	uint16_t status, pairs, mtu;
};

struct net_header {
	uint8_t flags, gso_type;
	uint16_t hdr_len, gso_size, csum_start, csum_offset;
	uint16_t num_buffers; /* with virtio 1.0, or mergeable buffers */
};

#define GSO_TCP4 1
#define GSO_TCP6 4
#define GSO_UDP_L4 5
#define GSO_ECN 0x80
#define HDR_NEEDS_CSUM 1
#define HDR_DATA_VALID 2

enum { NET_RX_PROMISC, NET_RX_ALLMULTI, NET_RX_ALLUNI, NET_RX_NOMULTI, NET_RX_NOUNI, NET_RX_NOBCAST, NET_RX_MODES };

/* What the driver has chosen; saved. Written with every receive queue's lock held, so each of them covers reading. */
struct net_hw {
	uint8_t mac[6];
	uint8_t mode[NET_RX_MODES];
	uint8_t announce, pairs;
	uint64_t offloads; /* of the GUEST_* features: those in use */
	uint16_t unicasts, multicasts; /* entries used; above NET_MACS: all are wanted */
	uint8_t unicast[NET_MACS * 6], multicast[NET_MACS * 6];
	uint32_t vlan[4096 / 32];
	struct net_flow flows[NET_FLOWS]; /* as of when it was saved */
};

struct net_queue {
	struct virtio_net *net;
	struct virtqueue *vq;
	bool busy, again; /* transmit: one thread works on it; it looks once more */
	bool starved;	  /* receive: frames may be waiting in the back-end for buffers */
	pthread_cond_t idle; /* !busy, with the queue's lock */
	struct vq_chain chain;
};

/* A receive chain that has been written and not yet pushed. */
struct net_piece {
	uint16_t id, slots;
	uint32_t written;
};

struct virtio_net {
	struct virtio v;
	struct device own;
	struct net_hw hw;
	struct net_device_config config;
	struct net_link *link;
	unsigned pairs; /* there are */
	struct net_queue rx[NET_PAIRS], tx[NET_PAIRS];
	pthread_mutex_t tx_lock; /* sending, and what may not be underway when a reset is over */
	pthread_mutex_t control_lock;
	struct vq_chain control;
	uint8_t flow[256]; /* the pair that this flow's frames were last sent on; by its hash */
	bool restored;
	uint64_t filtered, malformed;
};

static inline struct virtqueue *net_control_queue(struct virtio_net *n)
{
	return &n->v.queue[virtio_has(&n->v, NET_F_MQ) ? 2 * n->pairs : 2];
}

static inline unsigned net_pairs_used(const struct virtio_net *n)
{
	unsigned p = __atomic_load_n(&n->hw.pairs, __ATOMIC_RELAXED);

	return p ? MIN(p, n->pairs) : 1;
}

static inline size_t net_header_length(const struct virtio_net *n)
{
	return virtio_has(&n->v, VIRTIO_F_VERSION_1) || virtio_has(&n->v, NET_F_MRG_RXBUF) ? 12 : 10;
}

/* net-send.c */
void net_send_kick(struct net_queue *q);
void net_send_drained(void *opaque); /* the back-end takes frames again */
void net_send_idle(struct net_queue *q); /* waits until nobody sends: who did has seen that the queue has stopped, or `paused` */
void net_send_idle_all(struct virtio_net *n);
uint8_t net_flow_hash(const uint8_t *frame, size_t len);

/* net-receive.c */
enum net_result net_receive(void *opaque, const struct net_wire *w, const struct iovec *iov, unsigned count, size_t len);
void net_received(void *opaque);
void net_receive_kick(struct net_queue *q);

/* net-control.c */
void net_control_kick(struct virtio_net *n);
void net_control_reset(struct virtio_net *n); /* what a driver finds */
void net_takes_update(struct virtio_net *n);
bool net_wanted(struct virtio_net *n, const uint8_t *frame, size_t len); /* a receive queue's lock is held */
void net_hw_lock(struct virtio_net *n, bool lock);

#endif
