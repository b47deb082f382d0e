/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network card's port on a switch (net-wire.h). Frames go out from the thread that kicks, small ones together at the end of the
 * card's batch; what the socket does not take is the card's to keep. They come in on the loop's thread; a frame the guest has no room for waits here, and the
 * socket behind it: the switch drops what goes beyond, and nobody else waits. Should the switch end, the card's link
 * goes down, and we ask for the network again, more and more seldom.
 *
 * `lock` covers the socket and what is awaited of it. It is taken inside the card's transmit lock, and not held over calls of the card.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include "backend/net.h"
#include "base/base.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/evloop.h"
#include "base/log.h"

#define TAKES (NET_TAKES_CSUM | NET_TAKES_TSO4 | NET_TAKES_TSO6 | NET_TAKES_USO | NET_TAKES_ECN)
#define BATCH 16u
#define ROUNDS 4
#define RETRY_LEAST 100u /* ms */
#define RETRY_MOST 30000u
#define LIVED_NS 1000000000u /* a switch that was there for so long is asked soon again */
#define PIECES (NET_PIECES + 1)

struct port {
	struct net_link link;
	struct net_config config; /* its text is ours */
	char *machine;
	pthread_mutex_t lock;
	int fd; /* -1: the switch has gone */
	struct evsource *source, *retry_source;
	int retry;           /* timer */
	unsigned retry_ms;
	uint64_t joined;     /* ns; one that hangs up at once is not asked ten times a second */
	bool out_blocked;    /* send said NET_BUSY */
	bool in_blocked;     /* net_deliver did */
	uint8_t *together; /* records of small frames that go in one message */
	size_t ntogether;  /* bytes */
	/* received, not yet delivered: the loop's thread alone */
	uint8_t *slots;
	size_t len[BATCH];
	unsigned first, used;
	size_t at; /* within the first */
};

static void port_lost(struct port *p);

static void port_events(struct port *p)
{
	if (p->source)
		evloop_modify(p->source, (p->in_blocked ? 0 : EPOLLIN) | (p->out_blocked ? EPOLLOUT : 0));
}

/* ---- towards the network */

/* A message; the lock is held. False: the socket does not take it now. */
static bool port_message(struct port *p, struct iovec *v, unsigned n)
{
	struct msghdr m = { .msg_iov = v, .msg_iovlen = n };

	if (p->fd >= 0 && sendmsg(p->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
		return true;
	if (p->fd >= 0 && (errno == EAGAIN || errno == EINTR)) {
		p->out_blocked = true;
		port_events(p);
		return false;
	}
	net_dropped(&p->link, false); /* too little memory, or the switch has gone: the loop hears of it */
	return true;
}

static bool port_flush(struct port *p)
{
	struct iovec v = { p->together, p->ntogether };

	if (p->ntogether && !port_message(p, &v, 1))
		return false;
	p->ntogether = 0;
	return true;
}

static void port_gather(struct port *p, const struct net_record *r, const struct iovec *iov, unsigned n)
{
	memcpy(p->together + p->ntogether, r, sizeof(*r));
	p->ntogether += sizeof(*r);
	for (unsigned i = 0; i < n; i++) {
		memcpy(p->together + p->ntogether, iov[i].iov_base, iov[i].iov_len);
		p->ntogether += iov[i].iov_len;
	}
}

static enum net_result port_send(struct net_link *l, const struct net_wire *w, const struct iovec *iov, unsigned n, size_t len)
{
	struct port *p = container_of(l, struct port, link);
	struct net_record r = { .len = (uint32_t)len, .wire = *w };
	bool small = len <= NET_WIRE_SMALL, sent;
	struct iovec v[PIECES];

	if (n > NET_PIECES) {
		net_dropped(l, false);
		return NET_DONE;
	}
	pthread_mutex_lock(&p->lock);
	sent = !p->out_blocked;
	if (sent && (!small || p->ntogether + sizeof(r) + len > NET_WIRE_MESSAGE))
		sent = port_flush(p);
	if (sent && small) {
		port_gather(p, &r, iov, n);
	} else if (sent) {
		v[0] = (struct iovec){ &r, sizeof(r) };
		memcpy(v + 1, iov, n * sizeof(*iov));
		sent = port_message(p, v, n + 1);
	}
	pthread_mutex_unlock(&p->lock);
	return sent ? NET_DONE : NET_BUSY;
}

static void port_sent(struct net_link *l)
{
	struct port *p = container_of(l, struct port, link);

	pthread_mutex_lock(&p->lock);
	if (!p->out_blocked)
		port_flush(p);
	pthread_mutex_unlock(&p->lock);
}

/* ---- from the network */

#define SLOT (NET_WIRE_MESSAGE + 2)

/* The frames of a message, from p->at on. False: the guest has no room. */
static bool message_deliver(struct port *p, uint8_t *message, size_t len)
{
	while (len - p->at >= sizeof(struct net_record)) {
		struct net_record r;
		struct iovec iov;

		memcpy(&r, message + p->at, sizeof(r));
		if (r.len > len - p->at - sizeof(r))
			break; /* nonsense: the rest is dropped */
		iov = (struct iovec){ message + p->at + sizeof(r), r.len };
		if (net_deliver(&p->link, &r.wire, &iov, 1) == NET_BUSY)
			return false;
		p->at += sizeof(r) + r.len;
	}
	return true;
}

/* False: the guest has no room. */
static bool port_deliver(struct port *p)
{
	bool any = p->used, room = true;

	while (p->used) {
		room = message_deliver(p, p->slots + p->first * SLOT, p->len[p->first]);
		if (!room)
			break;
		p->first++;
		p->used--;
		p->at = 0;
	}
	if (any)
		net_delivered(&p->link);
	return room;
}

/* What is there, as far as there are slots: true when there may be more; *gone: the switch is no more. */
static bool port_fetch(struct port *p, bool *gone)
{
	struct iovec iov[BATCH];
	struct mmsghdr m[BATCH] = { 0 };
	int n;

	for (unsigned i = 0; i < BATCH; i++) {
		iov[i] = (struct iovec){ p->slots + i * SLOT, SLOT };
		m[i].msg_hdr = (struct msghdr){ .msg_iov = &iov[i], .msg_iovlen = 1 };
	}
	n = recvmmsg(p->fd, m, BATCH, MSG_DONTWAIT, NULL);
	p->first = p->used = 0;
	p->at = 0;
	if (n < 0) {
		*gone = errno != EAGAIN && errno != EINTR;
		return false;
	}
	for (int i = 0; i < n && !*gone; i++) {
		if (m[i].msg_len < sizeof(struct net_record)) {
			*gone = true;
			break;
		}
		p->len[i] = m[i].msg_len;
		p->used++;
	}
	return n == (int)BATCH;
}

static void port_block(struct port *p, bool in)
{
	pthread_mutex_lock(&p->lock);
	p->in_blocked = in;
	port_events(p);
	pthread_mutex_unlock(&p->lock);
}

static void port_read(struct port *p)
{
	bool gone = false, more = true;

	for (unsigned i = 0; i < ROUNDS && more && !gone; i++) {
		more = port_fetch(p, &gone);
		if (!port_deliver(p)) {
			/* said before it is tried once more: net_ready may have come in between */
			port_block(p, true);
			if (!port_deliver(p))
				return;
			port_block(p, false);
		}
	}
	if (gone)
		port_lost(p);
}

static void port_event(void *opaque, uint32_t events)
{
	struct port *p = opaque;
	bool drained = false;

	pthread_mutex_lock(&p->lock);
	if (events & EPOLLOUT && p->out_blocked) {
		p->out_blocked = false;
		drained = port_flush(p);
		if (drained)
			port_events(p);
	}
	pthread_mutex_unlock(&p->lock);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		if (p->in_blocked && events & (EPOLLHUP | EPOLLERR))
			port_lost(p);
		else
			port_read(p);
	}
	if (drained)
		net_drained(&p->link);
}

/* On the loop's thread. */
static void port_go_on(void *opaque)
{
	struct port *p = opaque;

	if (p->fd < 0 || !port_deliver(p))
		return;
	port_block(p, false); /* what waits in the socket is reported again */
}

static void port_ready(struct net_link *l)
{
	struct port *p = container_of(l, struct port, link);

	evloop_post(p->link.loop, port_go_on, p);
}

/* ---- the switch comes and goes */

static void port_arm(struct port *p)
{
	struct itimerspec t = { .it_value = { p->retry_ms / 1000, p->retry_ms % 1000 * 1000000 } };

	timerfd_settime(p->retry, 0, &t, NULL);
	p->retry_ms = MIN(p->retry_ms * 2, RETRY_MOST);
}

static int port_join(struct port *p, struct err *e)
{
	struct net_hello h = p->config.hello;
	int fd = p->config.dialed ?: -1;

	h.magic = NET_WIRE_MAGIC;
	h.kind = NET_HELLO_MEMBER;
	memcpy(h.mac, p->link.mac, sizeof(h.mac));
	memset(h.name, 0, sizeof(h.name));
	memcpy(h.name, p->machine, MIN(strlen(p->machine), sizeof(h.name) - 1));
	p->config.dialed = 0;
	fd = p->config.join(p->config.join_opaque, p->config.argument, fd, &h, e);
	if (fd < 0)
		return fd;
	p->source = evloop_add(p->link.loop, fd, EPOLLIN, port_event, p, e);
	if (!p->source) {
		close(fd);
		return -e->code;
	}
	pthread_mutex_lock(&p->lock);
	p->fd = fd;
	p->in_blocked = p->out_blocked = false;
	p->first = p->used = 0;
	p->at = p->ntogether = 0;
	pthread_mutex_unlock(&p->lock);
	p->joined = clock_host_now();
	return 0;
}

static void port_retry(void *opaque, uint32_t events)
{
	struct port *p = opaque;
	struct err e = { 0 };
	uint64_t n;

	if (read(p->retry, &n, sizeof(n)) <= 0 || p->fd >= 0)
		return;
	if (port_join(p, &e)) {
		port_arm(p);
		return;
	}
	log_msg(LOG_INFO, "net", "%s: network %s is back", p->link.name, p->config.argument);
	net_set_up(&p->link, true);
	net_drained(&p->link);
}

static void port_lost(struct port *p)
{
	struct evsource *source = p->source;
	int fd = p->fd;

	pthread_mutex_lock(&p->lock);
	p->fd = -1;
	p->source = NULL;
	p->out_blocked = false; /* what is sent now is dropped, and counted */
	p->ntogether = 0;
	pthread_mutex_unlock(&p->lock);
	evloop_remove(source);
	close(fd);
	p->first = p->used = 0;
	log_msg(LOG_WARN, "net", "%s: the switch of network %s has ended; waiting for it", p->link.name, p->config.argument);
	net_set_up(&p->link, false);
	net_drained(&p->link); /* what the card keeps goes nowhere now */
	if (clock_host_now() - p->joined >= LIVED_NS)
		p->retry_ms = RETRY_LEAST;
	port_arm(p);
}

/* ---- making and ending */

static void port_destroy(struct net_link *l)
{
	struct port *p = container_of(l, struct port, link);

	evloop_cancel(l->loop, port_go_on, p);
	if (p->source)
		evloop_remove(p->source);
	if (p->retry_source)
		evloop_remove(p->retry_source);
	if (p->config.dialed)
		close(p->config.dialed);
	cleanup_close(&p->fd);
	cleanup_close(&p->retry);
	pthread_mutex_destroy(&p->lock);
	net_link_dispose(l);
	free(p->machine);
	free(p->slots);
	free(p->together);
	free(p);
}

static void port_addresses(struct net_link *l, char *text, size_t size)
{
	*text = 0;
}

static const struct net_link_ops port_ops = {
	.kind = "switch",
	.send = port_send,
	.sent = port_sent,
	.ready = port_ready,
	.addresses = port_addresses,
	.destroy = port_destroy,
};

struct net_link *net_switch_open(struct evloop *loop, const struct net_config *c, struct err *e)
{
	struct port *p = calloc(1, sizeof(*p));
	int r;

	if (!p) {
		err_set(e, ENOMEM, "no memory for a network card");
		return NULL;
	}
	p->config = *c;
	p->fd = p->retry = -1;
	p->retry_ms = RETRY_LEAST;
	pthread_mutex_init(&p->lock, NULL);
	r = net_link_init(&p->link, loop, &port_ops, c, TAKES, e);
	p->machine = strdup(c->machine ? c->machine : "?");
	p->slots = malloc(BATCH * SLOT);
	p->together = malloc(NET_WIRE_MESSAGE);
	p->retry = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (!r && (!p->machine || !p->slots || !p->together || p->retry < 0))
		r = err_set(e, ENOMEM, "no memory for a network card");
	if (!r && !c->join)
		r = err_set(e, ENOTSUP, "no way to a switch from here");
	if (!r) {
		p->retry_source = evloop_add(loop, p->retry, EPOLLIN, port_retry, p, e);
		r = p->retry_source ? 0 : -e->code;
	}
	if (!r)
		r = port_join(p, e);
	if (r) {
		port_destroy(&p->link);
		return NULL;
	}
	return &p->link;
}
