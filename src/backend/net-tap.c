/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A TAP interface of the host: made here, or there before, perhaps for this user (ip tuntap add ... user ...). The kernel takes
 * frames unfinished, and gives them so where the guest's driver takes that; its header is virtio's. Being non-blocking,
 * the descriptor is written to from the thread that kicks; frames come in on the loop's thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "backend/net.h"
#include "backend/net-tap.h"
#include "base/base.h"
#include "base/err.h"
#include "base/evloop.h"
#include "base/log.h"

#define ROUNDS 64
#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5 /* headers of Linux before 6.2 */
#endif

struct tap {
	struct net_link link;
	int fd;
	struct evsource *source;
	pthread_mutex_t lock; /* the flags; innermost */
	bool out_blocked, in_blocked;
	uint8_t frame[NET_WIRE_FRAME + 2]; /* received; the loop's thread alone */
	struct net_wire wire;
	size_t len; /* 0: none waits */
};

static void tap_events(struct tap *t)
{
	if (t->source)
		evloop_modify(t->source, (t->in_blocked ? 0 : EPOLLIN) | (t->out_blocked ? EPOLLOUT : 0));
}

/* ---- the kernel's header */

static void header_out(struct virtio_net_hdr *h, const struct net_wire *w)
{
	static const uint8_t gso[] = { VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP_L4 };

	*h = (struct virtio_net_hdr){ .gso_type = gso[w->gso], .hdr_len = w->hdr_len, .gso_size = w->gso_size };
	if (w->flags & NET_WIRE_CSUM) {
		h->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
		h->csum_start = w->csum_start;
		h->csum_offset = w->csum_offset;
	}
	if (w->gso && w->flags & NET_WIRE_ECN)
		h->gso_type |= VIRTIO_NET_HDR_GSO_ECN;
}

/* False: of a kind we know nothing of. */
static bool header_in(struct net_wire *w, const struct virtio_net_hdr *h)
{
	*w = (struct net_wire){ .hdr_len = h->hdr_len, .gso_size = h->gso_size };
	switch (h->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_NONE: w->gso = NET_GSO_NONE; break;
	case VIRTIO_NET_HDR_GSO_TCPV4: w->gso = NET_GSO_TCP4; break;
	case VIRTIO_NET_HDR_GSO_TCPV6: w->gso = NET_GSO_TCP6; break;
	case VIRTIO_NET_HDR_GSO_UDP_L4: w->gso = NET_GSO_UDP; break;
	default: return false;
	}
	if (h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
		w->flags = NET_WIRE_CSUM;
		w->csum_start = h->csum_start;
		w->csum_offset = h->csum_offset;
	}
	if (h->flags & VIRTIO_NET_HDR_F_DATA_VALID)
		w->flags |= NET_WIRE_VALID;
	if (w->gso && h->gso_type & VIRTIO_NET_HDR_GSO_ECN)
		w->flags |= NET_WIRE_ECN;
	return true;
}

/* ---- frames */

static enum net_result tap_send(struct net_link *l, const struct net_wire *w, const struct iovec *iov, unsigned n, size_t len)
{
	struct tap *t = container_of(l, struct tap, link);
	struct iovec v[NET_PIECES + 1];
	struct virtio_net_hdr h;

	if (n > NET_PIECES) {
		net_dropped(l, false);
		return NET_DONE;
	}
	header_out(&h, w);
	v[0] = (struct iovec){ &h, sizeof(h) };
	memcpy(v + 1, iov, n * sizeof(*iov));
	if (writev(t->fd, v, (int)n + 1) >= 0)
		return NET_DONE;
	if (errno != EAGAIN) {
		net_dropped(l, false); /* the interface is down, or the kernel likes not what the guest sends */
		return NET_DONE;
	}
	pthread_mutex_lock(&t->lock);
	t->out_blocked = true;
	tap_events(t);
	pthread_mutex_unlock(&t->lock);
	return NET_BUSY;
}

static void tap_block(struct tap *t, bool in)
{
	pthread_mutex_lock(&t->lock);
	t->in_blocked = in;
	tap_events(t);
	pthread_mutex_unlock(&t->lock);
}

/* The frame that waits; false: no room. */
static bool tap_deliver(struct tap *t)
{
	struct iovec iov = { t->frame, t->len };

	if (t->len && net_deliver(&t->link, &t->wire, &iov, 1) == NET_BUSY)
		return false;
	t->len = 0;
	return true;
}

static void tap_read(struct tap *t)
{
	unsigned i;

	for (i = 0; i < ROUNDS; i++) {
		struct virtio_net_hdr h;
		struct iovec v[2] = { { &h, sizeof(h) }, { t->frame, sizeof(t->frame) } };
		ssize_t n;

		if (!tap_deliver(t)) {
			/* said before it is tried once more: net_ready may have come in between */
			tap_block(t, true);
			if (!tap_deliver(t))
				break;
			tap_block(t, false);
		}
		n = readv(t->fd, v, 2);
		if (n < (ssize_t)sizeof(h))
			break;
		t->len = header_in(&t->wire, &h) ? (size_t)n - sizeof(h) : 0;
		if (!t->len)
			net_dropped(&t->link, true);
	}
	if (i == ROUNDS && !tap_deliver(t)) {
		tap_block(t, true);
		if (tap_deliver(t))
			tap_block(t, false);
	}
	net_delivered(&t->link);
}

static void tap_event(void *opaque, uint32_t events)
{
	struct tap *t = opaque;
	struct evsource *source;
	bool drained = false;

	pthread_mutex_lock(&t->lock);
	if (events & EPOLLOUT && t->out_blocked) {
		t->out_blocked = false;
		drained = true;
		tap_events(t);
	}
	pthread_mutex_unlock(&t->lock);
	if (events & EPOLLIN)
		tap_read(t);
	if (events & (EPOLLERR | EPOLLHUP) && !(events & EPOLLIN)) {
		log_msg(LOG_WARN, "net", "%s: the interface has gone", t->link.name);
		pthread_mutex_lock(&t->lock);
		source = t->source;
		t->source = NULL;
		pthread_mutex_unlock(&t->lock);
		evloop_remove(source);
		net_set_up(&t->link, false);
		return;
	}
	if (drained)
		net_drained(&t->link);
}

static void tap_go_on(void *opaque)
{
	struct tap *t = opaque;

	if (!tap_deliver(t))
		return;
	net_delivered(&t->link);
	tap_block(t, false);
}

static void tap_ready(struct net_link *l)
{
	struct tap *t = container_of(l, struct tap, link);

	evloop_post(t->link.loop, tap_go_on, t);
}

/* ---- making and ending */

static int tap_attach_error(const char *name, struct err *e)
{
	int code = errno;

	if (code == EPERM)
		return err_set(e, code, "no right to use interface %s; as root: ip tuntap add dev %s mode tap user %u vnet_hdr; ip link set %s up",
			       name, name, (unsigned)geteuid(), name);
	if (code == EBUSY)
		return err_set(e, code, "interface %s is in use by another machine", name);
	if (code == EINVAL)
		return err_set(e, code, "interface %s is no TAP interface of one queue", name);
	return err_errno(e, "cannot use interface %s", name);
}

int tap_open(const char *name, char made[IFNAMSIZ], struct err *e)
{
	struct ifreq r = { 0 };
	int fd, size = sizeof(struct virtio_net_hdr);

	if (strlen(name) >= IFNAMSIZ || strpbrk(name, "/ \t\n"))
		return err_set(e, EINVAL, "'%.40s' is no name of an interface", name);
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && (errno == EACCES || errno == EPERM))
		return err_set(e, EACCES, "no right to open /dev/net/tun; as root: chmod 666 /dev/net/tun, or use --net user");
	if (fd < 0)
		return err_errno(e, "cannot open /dev/net/tun (as root: modprobe tun)");
	memcpy(r.ifr_name, name, strlen(name));
	r.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
	if (ioctl(fd, TUNSETIFF, &r)) {
		tap_attach_error(*name ? name : "(new)", e);
		close(fd);
		return -e->code;
	}
	if (ioctl(fd, TUNSETVNETHDRSZ, &size)) {
		err_errno(e, "interface %s does not take frames with headers", r.ifr_name);
		close(fd);
		return -e->code;
	}
	/* what it may give us unfinished: net_deliver finishes what the card does not take */
	if (ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN) && ioctl(fd, TUNSETOFFLOAD, 0))
		log_msg(LOG_DEBUG, "net", "interface %s: no offloads", r.ifr_name);
	memcpy(made, r.ifr_name, IFNAMSIZ);
	made[IFNAMSIZ - 1] = 0;
	return fd;
}

/* Up, if it is not and we may. One that was made for this user was put up by who made it. */
static int tap_up(const char *name, struct err *e)
{
	struct ifreq r = { 0 };
	int fd _close_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	memcpy(r.ifr_name, name, MIN(strlen(name), (size_t)IFNAMSIZ - 1));
	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &r))
		return err_errno(e, "cannot look at interface %s", name);
	if (r.ifr_flags & IFF_UP)
		return 0;
	r.ifr_flags |= IFF_UP;
	if (ioctl(fd, SIOCSIFFLAGS, &r))
		return err_set(e, errno, "interface %s is down, and there is no right to change that; as root: ip link set %s up", name, name);
	return 0;
}

/* The guest is told this MTU, so the host's end has it as well. */
static int tap_mtu(const char *name, unsigned mtu, struct err *e)
{
	struct ifreq r = { 0 };
	int fd _close_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (!mtu)
		return 0;
	memcpy(r.ifr_name, name, MIN(strlen(name), (size_t)IFNAMSIZ - 1));
	if (fd < 0 || ioctl(fd, SIOCGIFMTU, &r))
		return err_errno(e, "cannot look at interface %s", name);
	if (r.ifr_mtu == (int)mtu)
		return 0;
	r.ifr_mtu = (int)mtu;
	if (!ioctl(fd, SIOCSIFMTU, &r))
		return 0;
	return err_set(e, errno, "interface %s has another MTU, and it cannot be changed from here (%s); as root: ip link set %s mtu %u", name,
		       strerror(errno), name, mtu);
}

static int bridge_add(const char *bridge, const char *name, struct err *e)
{
	struct ifreq r = { 0 };
	int fd _close_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	memcpy(r.ifr_name, bridge, MIN(strlen(bridge), (size_t)IFNAMSIZ - 1));
	r.ifr_ifindex = (int)if_nametoindex(name);
	if (!if_nametoindex(bridge))
		return err_set(e, ENODEV, "there is no bridge %s; as root: ip link add %s type bridge; ip link set %s up", bridge, bridge, bridge);
	if (fd < 0 || ioctl(fd, SIOCBRADDIF, &r))
		return errno == EPERM ? err_set(e, EPERM, "no right to join bridge %s: start it as root, or as root make an interface for it (ip tuntap add dev tap0 mode tap user %u; ip link set tap0 master %s up) and name that: tap:tap0",
						bridge, (unsigned)geteuid(), bridge)
				      : err_errno(e, "cannot join bridge %s", bridge);
	return 0;
}

static void tap_destroy(struct net_link *l)
{
	struct tap *t = container_of(l, struct tap, link);

	evloop_cancel(l->loop, tap_go_on, t);
	if (t->source)
		evloop_remove(t->source);
	cleanup_close(&t->fd);
	pthread_mutex_destroy(&t->lock);
	net_link_dispose(l);
	free(t);
}

static const struct net_link_ops tap_ops = {
	.kind = "tap",
	.send = tap_send,
	.ready = tap_ready,
	.destroy = tap_destroy,
};

static struct net_link *tap_make(struct evloop *loop, const struct net_config *c, const char *name, const char *bridge, struct err *e)
{
	unsigned takes = NET_TAKES_CSUM | NET_TAKES_TSO4 | NET_TAKES_TSO6 | NET_TAKES_ECN; /* USO: Linux 6.2 and later only */
	struct tap *t = calloc(1, sizeof(*t));
	char made[IFNAMSIZ] = "";
	int r;

	if (!t) {
		err_set(e, ENOMEM, "no memory for a network card");
		return NULL;
	}
	t->fd = -1;
	pthread_mutex_init(&t->lock, NULL);
	r = net_link_init(&t->link, loop, &tap_ops, c, takes, e);
	if (!r) {
		r = t->fd = tap_open(name, made, e);
		r = r < 0 ? r : 0;
	}
	if (!r)
		r = tap_mtu(made, c->mtu, e);
	if (!r && bridge)
		r = bridge_add(bridge, made, e);
	if (!r)
		r = tap_up(made, e);
	if (!r) {
		t->source = evloop_add(loop, t->fd, EPOLLIN, tap_event, t, e);
		r = t->source ? 0 : -e->code;
	}
	if (r) {
		tap_destroy(&t->link);
		return NULL;
	}
	return &t->link;
}

struct net_link *net_tap_open(struct evloop *loop, const struct net_config *c, struct err *e)
{
	return tap_make(loop, c, c->argument, NULL, e);
}

struct net_link *net_bridge_open(struct evloop *loop, const struct net_config *c, struct err *e)
{
	return tap_make(loop, c, "ospite%d", c->argument, e);
}
