/* SPDX-License-Identifier: Apache-2.0 */
/*
 * User-mode NAT by libslirp: the guest's TCP, UDP and ICMP become sockets of this process, so no privilege is needed.
 * Card n is on 10.0.(2+n).0/24 and fd6f:7370:6974:(2+n)::/64: gateway .2, name server .3, guest from .15 by DHCP.
 *
 * libslirp knows no threads: u->lock covers it and everything here. A frame from the guest goes into it on the thread that sends,
 * and answers come out before that returns; nothing of it blocks, and a hand-over to another thread would cost 40 to 60 us.
 * Sockets are watched by an epoll of our own, itself one source of the event loop; after each turn it is brought in line with what
 * libslirp wants watched.
 *
 * Frames for the guest wait in a ring until the end of the turn, where segments of one TCP stream have become one frame
 * (net-merge.c): the guest's way of a frame costs more than everything here. While the guest has no buffers and the ring fills,
 * the sockets are not read.
 *
 * Timers: TCP's run every 200 or 500 ms while there are connections, until nothing has happened for QUIET_MS; so an idle
 * network wakes nobody but for router advertisements, every 200 s and more.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <slirp/libslirp.h>
#include "backend/net-frag.h"
#include "backend/net-merge.h"
#include "backend/net.h"
#include "base/base.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/evloop.h"
#include "base/log.h"

#define QUIET_MS 30000u
#define SOCKETS_MAX 4096u
#define EVENTS 64
#define MS 1000000u
#define NEVER UINT64_MAX
#define TCP_SYN 2u
#define TCP_RST 4u
/* Not IPv6: libslirp answers what is longer than the MTU with "packet too big". */
#define TAKES (NET_TAKES_TSO4 | NET_TAKES_ECN | NET_TAKES_BIG)
#define IDLE_MS 1000u
#define TARGET_MS 30000u

struct watched {
	uint32_t now, wanted; /* epoll events; now: as registered */
	uint32_t happened;
	bool known; /* libslirp has it */
	uint8_t listens; /* LISTENS_* */
};
enum { LISTENS_UNKNOWN, LISTENS_NOT, LISTENS };

struct user_timer {
	struct user *u;
	SlirpTimerCb fn;
	void *opaque;
	uint64_t at; /* ms; NEVER */
	struct user_timer *next;
};

struct user {
	struct net_link link;
	pthread_mutex_t lock;
	Slirp *slirp;
	int epoll, timer;
	struct evsource *sockets_source, *timer_source;
	struct watched *fd; /* by descriptor */
	unsigned nfd, sockets, sockets_max;
	struct user_timer *timers;
	uint64_t armed, active; /* ms: what the timerfd is set to; when something happened last */
	bool deaf;		/* sockets are not looked at */
	struct net_merge merge;
	struct in_addr network; /* host order */
	uint8_t prefix[16];
	/* the guest's addresses, as seen in its frames */
	uint32_t ip4;
	uint8_t ip6[16];
	/* where forwards by IPv6 lead to: of the guest's addresses the one it used last when this one was not seen for a while */
	struct net_forward *forward6;
	unsigned nforward6;
	uint8_t target6[16];
	uint64_t target6_seen; /* ms; 0: never, it is a guess */
	bool resetting;	 /* the frame in libslirp's hands ends a connection as failed */
	bool connecting; /* a TCP connection was begun in this batch */
	bool neighbour; /* the guest has said where it is: frames may have waited for that within libslirp */
	struct net_frag frag;
	struct net_flows flows;
	struct net_flow over[NET_FLOWS]; /* before a restore: probes of these are still to be sent */
	unsigned nover;
	uint8_t over_mac[6];
	uint8_t frame[NET_WIRE_FRAME];
};

static uint64_t now_ms(void)
{
	return clock_host_now() / MS;
}

/* ---- what libslirp calls; the lock is held */

static ssize_t user_output(const void *data, size_t len, void *opaque)
{
	struct user *u = opaque;

	net_flows_look(&u->flows, data, len, false);
	if (!net_merge_add(&u->merge, data, len))
		net_dropped(&u->link, true);
	return (ssize_t)len;
}

static void user_complaint(const char *text, void *opaque)
{
	log_guest("net", "%s: %.200s", ((struct user *)opaque)->link.name, text);
}

static int64_t user_clock(void *opaque)
{
	return (int64_t)clock_host_now();
}

static void *timer_new(SlirpTimerCb fn, void *arg, void *opaque)
{
	struct user *u = opaque;
	struct user_timer *t = calloc(1, sizeof(*t));

	CHECK(t);
	*t = (struct user_timer){ .u = u, .fn = fn, .opaque = arg, .at = NEVER, .next = u->timers };
	u->timers = t;
	return t;
}

static void timer_free(void *timer, void *opaque)
{
	struct user *u = opaque;
	struct user_timer **at = &u->timers;

	while (*at && *at != timer)
		at = &(*at)->next;
	if (*at)
		*at = (*at)->next;
	free(timer);
}

static void timer_mod(void *timer, int64_t ms, void *opaque)
{
	((struct user_timer *)timer)->at = ms < 0 ? 0 : (uint64_t)ms;
}

static struct watched *watched(struct user *u, int fd)
{
	if (fd < 0)
		return NULL;
	if ((unsigned)fd >= u->nfd) {
		unsigned n = MAX(64u, ((unsigned)fd + 1) * 2);
		struct watched *w = realloc(u->fd, n * sizeof(*w));

		if (!w)
			return NULL;
		memset(w + u->nfd, 0, (n - u->nfd) * sizeof(*w));
		u->fd = w;
		u->nfd = n;
	}
	return &u->fd[fd];
}

static void fd_new(int fd, void *opaque)
{
	struct user *u = opaque;
	struct watched *w = watched(u, fd);

	if (!w)
		return;
	u->sockets += !w->known;
	*w = (struct watched){ .known = true };
}

/* It is about to be closed, which takes it out of the epoll as well. */
static void fd_gone(int fd, void *opaque)
{
	struct user *u = opaque;
	struct watched *w = watched(u, fd);

	if (u->resetting) /* the other end is to see a failure, not the end of what was sent */
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 }, sizeof(struct linger));
	if (!w)
		return;
	if (w->now)
		epoll_ctl(u->epoll, EPOLL_CTL_DEL, fd, NULL);
	u->sockets -= w->known;
	*w = (struct watched){ 0 };
}

static void user_notify(void *opaque)
{
	/* whoever calls libslirp looks for work afterwards */
}

static const SlirpCb callbacks = {
	.send_packet = user_output, .guest_error = user_complaint, .clock_get_ns = user_clock, .timer_new = timer_new,
	.timer_free = timer_free, .timer_mod = timer_mod, .register_poll_fd = fd_new, .unregister_poll_fd = fd_gone,
	.notify = user_notify,
};

/* ---- a turn */

static const struct {
	int slirp;
	uint32_t epoll;
} event_map[] = { { SLIRP_POLL_IN, EPOLLIN }, { SLIRP_POLL_OUT, EPOLLOUT }, { SLIRP_POLL_PRI, EPOLLPRI },
		  { SLIRP_POLL_ERR, EPOLLERR }, { SLIRP_POLL_HUP, EPOLLHUP } };

/* A forward's, which libslirp does not tell of. It lets one caller wait: of several at once the others would try again after a second. */
static bool listens(struct watched *w, int fd)
{
	socklen_t len = sizeof(int);
	int yes = 0;

	if (w->listens == LISTENS_UNKNOWN && !w->known) {
		w->listens = !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &yes, &len) && yes ? LISTENS : LISTENS_NOT;
		if (yes)
			listen(fd, SOMAXCONN);
	}
	return w->listens == LISTENS;
}

static int poll_want(int fd, int events, void *opaque)
{
	struct user *u = opaque;
	struct watched *w = watched(u, fd);

	if (!w)
		return -1;
	/* with all sockets in use those who call by a forward wait: accepting would fail, and be tried again at once */
	if (listens(w, fd) && u->sockets >= u->sockets_max)
		return fd;
	for (unsigned i = 0; i < ARRAY_LEN(event_map); i++)
		if (events & event_map[i].slirp)
			w->wanted |= event_map[i].epoll;
	return fd;
}

static int poll_happened(int fd, void *opaque)
{
	struct user *u = opaque;
	int events = 0;

	if (fd < 0 || (unsigned)fd >= u->nfd)
		return 0;
	for (unsigned i = 0; i < ARRAY_LEN(event_map); i++)
		if (u->fd[fd].happened & event_map[i].epoll)
			events |= event_map[i].slirp;
	return events;
}

static void watch(struct user *u, int fd, struct watched *w)
{
	struct epoll_event ev = { .events = w->wanted, .data.fd = fd };

	if (w->wanted == w->now)
		return;
	if (!w->wanted)
		epoll_ctl(u->epoll, EPOLL_CTL_DEL, fd, NULL);
	else if (epoll_ctl(u->epoll, w->now ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ev) && errno == ENOENT)
		epoll_ctl(u->epoll, EPOLL_CTL_ADD, fd, &ev);
	w->now = w->wanted;
}

/* Earlier than it is set to, or it has just fired. */
static void user_arm(struct user *u, uint64_t at)
{
	struct itimerspec t = { 0 };

	if (at >= u->armed)
		return;
	u->armed = at;
	at = MAX(at, 1ull);
	t.it_value.tv_sec = (time_t)(at / 1000);
	t.it_value.tv_nsec = (long)(at % 1000 * MS);
	timerfd_settime(u->timer, TFD_TIMER_ABSTIME, &t, NULL);
}

/* What the guest answers to these libslirp, knowing no such connections, answers with a reset. */
static void user_probe(struct user *u)
{
	const uint8_t gateway[6] = { 0x52, 0x55, 10, 0, (uint8_t)(u->network.s_addr >> 8), 2 }; /* libslirp's */
	uint8_t frame[NET_PROBE];

	while (u->nover && !net_merge_full(&u->merge)) {
		size_t len = net_flow_probe(&u->over[--u->nover], u->over_mac, gateway, frame);

		if (len)
			net_merge_add(&u->merge, frame, len);
	}
}

/* Frames out, sockets and timers in line. */
static void user_settle(struct user *u)
{
	uint32_t timeout = UINT32_MAX;
	uint64_t now = now_ms();
	bool deaf;

	user_probe(u);
	net_merge_deliver(&u->merge, &u->link);
	slirp_pollfds_fill(u->slirp, &timeout, poll_want, u);
	for (unsigned fd = 0; fd < u->nfd; fd++) {
		struct watched *w = &u->fd[fd];

		if (w->wanted != w->now)
			watch(u, (int)fd, w);
		w->wanted = 0;
	}
	deaf = net_merge_full(&u->merge);
	if (deaf != u->deaf) {
		u->deaf = deaf;
		evloop_modify(u->sockets_source, deaf ? 0 : EPOLLIN);
	}
	/* libslirp asks for a turn every second also when no timer of TCP's or of fragments runs: for nothing */
	if (timeout < IDLE_MS && now - u->active < QUIET_MS)
		user_arm(u, now + timeout + 1);
	for (struct user_timer *t = u->timers; t; t = t->next)
		user_arm(u, t->at);
}

/* What the sockets have to say by now. The lock is held. */
static void user_turn(struct user *u)
{
	struct epoll_event ev[EVENTS];
	uint32_t timeout = UINT32_MAX;
	int n;

	n = u->deaf ? 0 : epoll_wait(u->epoll, ev, EVENTS, 0);
	if (n > 0) {
		u->active = now_ms();
		/* libslirp notes what it asked for last */
		slirp_pollfds_fill(u->slirp, &timeout, poll_want, u);
		for (int i = 0; i < n; i++)
			u->fd[ev[i].data.fd].happened = ev[i].events;
		slirp_pollfds_poll(u->slirp, 0, poll_happened, u);
		for (int i = 0; i < n; i++)
			u->fd[ev[i].data.fd].happened = 0;
		for (unsigned fd = 0; fd < u->nfd; fd++)
			u->fd[fd].wanted = 0;
		user_settle(u);
	}
}

static void user_sockets(void *opaque, uint32_t events)
{
	struct user *u = opaque;

	pthread_mutex_lock(&u->lock);
	user_turn(u);
	pthread_mutex_unlock(&u->lock);
}

static void user_tick(void *opaque, uint32_t events)
{
	struct user *u = opaque;
	uint32_t timeout = UINT32_MAX;
	uint64_t drop, now;

	pthread_mutex_lock(&u->lock);
	if (read(u->timer, &drop, sizeof(drop)) == sizeof(drop)) {
		u->armed = NEVER;
		now = now_ms();
		for (struct user_timer *t = u->timers, *next; t; t = next) {
			next = t->next;
			if (t->at <= now) {
				t->at = NEVER;
				t->fn(t->opaque);
			}
		}
		slirp_pollfds_fill(u->slirp, &timeout, poll_want, u);
		slirp_pollfds_poll(u->slirp, 0, poll_happened, u);
		for (unsigned fd = 0; fd < u->nfd; fd++)
			u->fd[fd].wanted = 0;
		user_settle(u);
	}
	pthread_mutex_unlock(&u->lock);
}

/* ---- forwards */

static socklen_t forward_host(const struct net_forward *f, struct sockaddr_storage *at)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(f->port) };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(f->port) };

	memcpy(&in.sin_addr, f->host, sizeof(in.sin_addr));
	memcpy(&in6.sin6_addr, f->host, sizeof(in6.sin6_addr));
	memcpy(at, f->v6 ? (void *)&in6 : (void *)&in, f->v6 ? sizeof(in6) : sizeof(in));
	return f->v6 ? sizeof(in6) : sizeof(in);
}

static int forward_flags(const struct net_forward *f)
{
	return (f->udp ? SLIRP_HOSTFWD_UDP : 0) | (f->v6 ? SLIRP_HOSTFWD_V6ONLY : 0);
}

static void forward6_close(struct user *u, const struct net_forward *f)
{
	struct sockaddr_storage host;
	socklen_t len = forward_host(f, &host);

	slirp_remove_hostxfwd(u->slirp, (struct sockaddr *)&host, len, forward_flags(f));
}

static int user_forward(struct user *u, const struct net_forward *f, struct err *e)
{
	struct sockaddr_in guest = { .sin_family = AF_INET, .sin_port = htons(f->guest_port) };
	struct sockaddr_in6 guest6 = { .sin6_family = AF_INET6, .sin6_port = htons(f->guest_port) };
	struct sockaddr_storage host;
	socklen_t len = forward_host(f, &host);
	char text[INET6_ADDRSTRLEN];

	guest.sin_addr.s_addr = htonl(u->network.s_addr + 15);
	memcpy(&guest6.sin6_addr, u->target6, 16);
	errno = 0;
	if (!slirp_add_hostxfwd(u->slirp, (struct sockaddr *)&host, len, f->v6 ? (struct sockaddr *)&guest6 : (struct sockaddr *)&guest,
				f->v6 ? sizeof(guest6) : sizeof(guest), forward_flags(f)))
		return 0;
	inet_ntop(f->v6 ? AF_INET6 : AF_INET, f->host, text, sizeof(text));
	if (errno == EADDRINUSE)
		return err_set(e, EADDRINUSE, "--port: another program has port %u of %s already; choose another one", f->port, text);
	if (errno == EACCES)
		return err_set(e, EACCES, "--port: port %u needs privileges; choose one from 1024 on", f->port);
	return err_errno(e, "--port: cannot listen on port %u of %s", f->port, text);
}

/* Until the guest has shown another one: the address most systems make of the card's (RFC 4291, appendix A). */
static int forwards6_open(struct user *u, const struct net_forward *f, unsigned n, struct err *e)
{
	const uint8_t *mac = u->link.mac;
	const uint8_t low[8] = { mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5] };

	memcpy(u->target6, u->prefix, 8);
	memcpy(u->target6 + 8, low, 8);
	u->forward6 = calloc(n ? n : 1, sizeof(*f));
	if (!u->forward6)
		return err_set(e, ENOMEM, "no memory for forwards");
	for (unsigned i = 0; i < n; i++)
		if (f[i].v6)
			u->forward6[u->nforward6++] = f[i];
	return 0;
}

/* ---- frames from the guest */

static void target6_look(struct user *u, const uint8_t address[16])
{
	uint64_t now = now_ms();
	struct err e;

	if (!memcmp(address, u->target6, 16)) {
		u->target6_seen = now;
		return;
	}
	if (u->target6_seen && now - u->target6_seen < TARGET_MS)
		return;
	for (unsigned i = 0; i < u->nforward6; i++)
		forward6_close(u, &u->forward6[i]);
	memcpy(u->target6, address, 16);
	u->target6_seen = now;
	for (unsigned i = 0; i < u->nforward6; i++)
		if (user_forward(u, &u->forward6[i], &e))
			log_msg(LOG_WARN, "net", "%s: %s", u->link.name, e.text);
}

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
		if (u->nforward6)
			target6_look(u, f + 22);
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
		len = net_frag_add(&u->frag, u->frame, len, now_ms(), u->frame);
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
	u->active = now_ms();
	if (u->neighbour) {
		uint32_t timeout = UINT32_MAX;

		u->neighbour = false;
		slirp_pollfds_fill(u->slirp, &timeout, poll_want, u);
		slirp_pollfds_poll(u->slirp, 0, poll_happened, u);
		for (unsigned fd = 0; fd < u->nfd; fd++)
			u->fd[fd].wanted = 0;
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
	u->slirp = slirp_new(&s, &callbacks, u);
	pthread_mutex_unlock(&u->lock);
	if (!u->slirp)
		return err_set(e, ENOMEM, "cannot make a user network");
	if (forwards6_open(u, c->forward, c->nforwards, e))
		return -1;
	for (unsigned i = 0; i < c->nforwards; i++)
		if (user_forward(u, &c->forward[i], e))
			return -1;
	return 0;
}

struct net_link *net_user_open(struct evloop *loop, const struct net_config *c, struct err *e)
{
	struct user *u = calloc(1, sizeof(*u));
	struct rlimit files = { 0 };

	if (!u || net_link_init(&u->link, loop, &ops, c, TAKES, e)) {
		if (u)
			net_link_dispose(&u->link);
		free(u);
		err_set(e, ENOMEM, "no memory for a network");
		return NULL;
	}
	pthread_mutex_init(&u->lock, NULL);
	u->armed = NEVER;
	getrlimit(RLIMIT_NOFILE, &files);
	u->sockets_max = (unsigned)MIN((rlim_t)SOCKETS_MAX, files.rlim_cur / 2);
	u->epoll = epoll_create1(EPOLL_CLOEXEC);
	u->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (u->epoll < 0 || u->timer < 0) {
		err_errno(e, "cannot make a user network");
	} else if (!user_slirp(u, c, e)) {
		u->sockets_source = evloop_add(loop, u->epoll, EPOLLIN, user_sockets, u, e);
		u->timer_source = u->sockets_source ? evloop_add(loop, u->timer, EPOLLIN, user_tick, u, e) : NULL;
		if (u->timer_source) {
			pthread_mutex_lock(&u->lock);
			user_settle(u);
			pthread_mutex_unlock(&u->lock);
			return &u->link;
		}
	}
	user_destroy(&u->link);
	return NULL;
}
