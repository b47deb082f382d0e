/* SPDX-License-Identifier: Apache-2.0 */
/*
 * User-mode NAT by libslirp: the guest's TCP, UDP and ICMP become sockets of this process, so no privilege is needed.
 * Card n is on 10.0.(2+n).0/24 and fd6f:7370:6974:(2+n)::/64: gateway .2, name server .3, guest from .15 by DHCP.
 *
 * libslirp knows no threads: u->lock covers it and everything here. A frame from the guest goes into it on the thread that sends,
 * and answers come out before that returns; nothing of it blocks, and a hand-over to another thread would cost 40 to 60 us.
 * Sockets and timers are net-user-turn.c's, forwards net-user-forward.c's.
 *
 * Frames for the guest wait in a ring until the end of the turn, where segments of one TCP stream have become one frame
 * (net-merge.c): the guest's way of a frame costs more than everything here. While the guest has no buffers and the ring fills,
 * the sockets are not read.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include "backend/net-user.h"
#include "base/base.h"
#include "base/err.h"
#include "base/evloop.h"

#define SOCKETS_MAX 4096u
#define TCP_SYN 2u
#define TCP_RST 4u
/* Not IPv6: libslirp answers what is longer than the MTU with "packet too big". */
#define TAKES (NET_TAKES_TSO4 | NET_TAKES_ECN | NET_TAKES_BIG)

/* ---- frames from the guest */

/* Who it is, by its own word: ARP, IPv4 and IPv6 of our networks. */
static void learn(struct user *u, const uint8_t *f, size_t len)
{
	static const uint8_t own[8];
	uint32_t v4 = 0;

	if (len >= 42 && f[12] == 8 && (f[13] == 0 || f[13] == 6)) {
		const uint8_t *p = f + (f[13] ? 28 : 26);

		v4 = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
		if (v4 >> 8 == u->network.s_addr >> 8 && (v4 & 0xff) > 3 && (v4 & 0xff) < 255)
			__atomic_store_n(&u->ip4, v4, __ATOMIC_RELAXED);
	} else if (len >= 54 && f[12] == 0x86 && f[13] == 0xdd && !memcmp(f + 22, u->prefix, 8) && memcmp(f + 30, own, 7)) {
		memcpy(u->ip6, f + 22, 16);
		user_seen6(u, f + 22);
	}
	u->neighbour |= len >= 42 && ((f[12] == 8 && f[13] == 6) || (len >= 78 && f[12] == 0x86 && f[13] == 0xdd && f[20] == 58 && f[54] == 136));
}

/* Where what IP carries begins, and its protocol; 0: it is no IP. */
static unsigned ip_payload(const uint8_t *f, size_t len, uint8_t *next)
{
	if (len < 54)
		return 0;
	if (f[12] == 8 && f[13] == 0) {
		*next = f[23];
		return NET_HEADER + (f[14] & 15u) * 4;
	}
	*next = f[20];
	return f[12] == 0x86 && f[13] == 0xdd ? NET_HEADER + 40 : 0;
}

/* With all its sockets in use the guest gets no more: TCP's SYN, UDP and ICMP are what makes one. */
static bool makes_socket(const uint8_t *f, size_t len)
{
	uint8_t next;
	unsigned l4 = ip_payload(f, len, &next);

	return l4 && (next != IPPROTO_TCP || l4 + 14 > len || f[l4 + 13] & TCP_SYN);
}

static bool resets(const uint8_t *f, size_t len)
{
	uint8_t next;
	unsigned l4 = ip_payload(f, len, &next);

	return l4 && next == IPPROTO_TCP && l4 + 14 <= len && f[l4 + 13] & TCP_RST;
}

static enum net_result user_send(struct net_link *l, const struct net_wire *w, const struct iovec *iov, unsigned n, size_t len)
{
	struct user *u = container_of(l, struct user, link);
	size_t at = 0;
	bool opens;

	pthread_mutex_lock(&u->lock);
	for (unsigned i = 0; i < n; at += iov[i++].iov_len)
		memcpy(u->frame + at, iov[i].iov_base, iov[i].iov_len);
	learn(u, u->frame, len);
	net_flows_look(&u->flows, u->frame, len, true);
	if (net_frag_is(u->frame, len))
		len = net_frag_add(&u->frag, u->frame, len, user_now_ms(), u->frame);
	opens = makes_socket(u->frame, len);
	if (!len) {
		/* it waits for the rest of its datagram, or is none */
	} else if (u->sockets < u->sockets_max || !opens) {
		u->resetting = resets(u->frame, len);
		slirp_input(u->slirp, u->frame, (int)len);
		u->resetting = false;
		u->connecting |= opens && u->frame[u->frame[12] == 8 ? 23 : 20] == IPPROTO_TCP;
	} else {
		net_dropped(l, false);
	}
	pthread_mutex_unlock(&u->lock);
	return NET_DONE;
}

static void user_sent(struct net_link *l)
{
	struct user *u = container_of(l, struct user, link);

	pthread_mutex_lock(&u->lock);
	u->active = user_now_ms();
	if (u->neighbour) {
		u->neighbour = false;
		user_poll(u);
	}
	user_settle(u);
	if (u->connecting) { /* to this host that is done already: an answer without waking the loop's thread */
		u->connecting = false;
		user_turn(u);
	}
	pthread_mutex_unlock(&u->lock);
}

static void user_ready(struct net_link *l)
{
	struct user *u = container_of(l, struct user, link);

	pthread_mutex_lock(&u->lock);
	if (net_merge_waiting(&u->merge) || u->nover)
		user_settle(u);
	pthread_mutex_unlock(&u->lock);
}

/* ---- life */

static void user_addresses(struct net_link *l, char *text, size_t size)
{
	static const uint8_t none[16];
	struct user *u = container_of(l, struct user, link);
	char v6[INET6_ADDRSTRLEN] = "", v4[INET_ADDRSTRLEN] = "";
	struct in_addr a;

	pthread_mutex_lock(&u->lock);
	a.s_addr = htonl(u->ip4);
	if (u->ip4)
		inet_ntop(AF_INET, &a, v4, sizeof(v4));
	if (memcmp(u->ip6, none, sizeof(none)))
		inet_ntop(AF_INET6, u->ip6, v6, sizeof(v6));
	pthread_mutex_unlock(&u->lock);
	snprintf(text, size, "%s%s%s", v4, *v4 && *v6 ? " " : "", v6);
}

static void user_flows_of(struct net_link *l, struct net_flow *to)
{
	struct user *u = container_of(l, struct user, link);

	pthread_mutex_lock(&u->lock);
	net_flows_save(&u->flows, to);
	pthread_mutex_unlock(&u->lock);
}

static void user_flows_over(struct net_link *l, const struct net_flow *from, const uint8_t mac[6])
{
	struct user *u = container_of(l, struct user, link);

	pthread_mutex_lock(&u->lock);
	net_flows_load(&u->flows, from);
	net_flows_save(&u->flows, u->over);
	u->nover = NET_FLOWS;
	memcpy(u->over_mac, mac, sizeof(u->over_mac));
	user_settle(u);
	pthread_mutex_unlock(&u->lock);
}

static void user_destroy(struct net_link *l)
{
	struct user *u = container_of(l, struct user, link);

	evloop_remove(u->sockets_source);
	evloop_remove(u->timer_source);
	if (u->slirp)
		slirp_cleanup(u->slirp);
	cleanup_close(&u->epoll);
	cleanup_close(&u->timer);
	net_merge_dispose(&u->merge);
	net_frag_dispose(&u->frag);
	free(u->fd);
	free(u->forward6);
	pthread_mutex_destroy(&u->lock);
	net_link_dispose(&u->link);
	free(u);
}

static const struct net_link_ops ops = {
	.kind = "user", .send = user_send, .sent = user_sent, .ready = user_ready, .addresses = user_addresses,
	.flows_of = user_flows_of, .flows_over = user_flows_over,
	.destroy = user_destroy,
};

static int user_slirp(struct user *u, const struct net_config *c, struct err *e)
{
	static const uint8_t prefix[8] = { 0xfd, 0x6f, 0x73, 0x70, 0x69, 0x74, 0, 2 };
	SlirpConfig s = { .version = 4, .in_enabled = true, .in6_enabled = true, .vprefix_len = 64 };

	s.if_mtu = s.if_mru = c->mtu; /* 0: 1500 */
	u->network.s_addr = 0x0a000200u + (c->index << 8);
	memcpy(u->prefix, prefix, sizeof(prefix));
	u->prefix[7] = (uint8_t)(2 + c->index);
	s.vnetwork.s_addr = htonl(u->network.s_addr);
	s.vnetmask.s_addr = htonl(0xffffff00u);
	s.vhost.s_addr = htonl(u->network.s_addr + 2);
	s.vnameserver.s_addr = htonl(u->network.s_addr + 3);
	s.vdhcp_start.s_addr = htonl(u->network.s_addr + 15);
	memcpy(&s.vprefix_addr6, u->prefix, 16);
	memcpy(&s.vhost6, u->prefix, 16);
	s.vhost6.s6_addr[15] = 2;
	memcpy(&s.vnameserver6, u->prefix, 16);
	s.vnameserver6.s6_addr[15] = 3;
	s.vhostname = c->machine;
	pthread_mutex_lock(&u->lock);
	u->slirp = slirp_new(&s, &user_callbacks, u);
	pthread_mutex_unlock(&u->lock);
	if (!u->slirp)
		return err_set(e, ENOMEM, "cannot make a user network");
	return user_forwards_open(u, c->forward, c->nforwards, e);
}

static int user_begin(struct user *u, struct evloop *loop, const struct net_config *c, struct err *e)
{
	struct rlimit files = { 0 };

	getrlimit(RLIMIT_NOFILE, &files);
	u->sockets_max = (unsigned)MIN((rlim_t)SOCKETS_MAX, files.rlim_cur / 2);
	u->epoll = epoll_create1(EPOLL_CLOEXEC);
	u->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (u->epoll < 0 || u->timer < 0)
		return err_errno(e, "cannot make a user network");
	if (user_slirp(u, c, e))
		return -e->code;
	u->sockets_source = evloop_add(loop, u->epoll, EPOLLIN, user_sockets, u, e);
	u->timer_source = u->sockets_source ? evloop_add(loop, u->timer, EPOLLIN, user_tick, u, e) : NULL;
	if (!u->timer_source)
		return -e->code;
	pthread_mutex_lock(&u->lock);
	user_settle(u);
	pthread_mutex_unlock(&u->lock);
	return 0;
}

struct net_link *net_user_open(struct evloop *loop, const struct net_config *c, struct err *e)
{
	struct user *u = calloc(1, sizeof(*u));

	if (!u) {
		err_set(e, ENOMEM, "no memory for a network");
		return NULL;
	}
	u->epoll = u->timer = -1;
	u->armed = USER_NEVER;
	pthread_mutex_init(&u->lock, NULL);
	if (!net_link_init(&u->link, loop, &ops, c, TAKES, e) && !user_begin(u, loop, c, e))
		return &u->link;
	user_destroy(&u->link);
	return NULL;
}
