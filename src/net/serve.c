/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch's sockets, all on the loop's thread. A connection first says what it is (struct net_hello) and is then a member, a
 * capture or somebody with questions (net/control.c). What a peer does not take is kept by the switch's queues (members) or
 * lost and counted (captures); nobody is waited for. Connections are bounded; one that does not greet makes room for a new one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "backend/net-client.h"
#include "base/clock.h"
#include "base/log.h"
#include "net/serve-private.h"

#define BATCH 16u                 /* frames taken from the kernel at once */
#define ROUNDS 4                  /* of those, before others have their turn */
#define CONNECTIONS (SWITCH_PORTS + 32u)
#define PEER_BUFFER (4 << 20)
#define ALONE_S 10                /* how long a switch nobody has yet come to waits */
#define SLOT (SWITCH_HEADROOM + NET_WIRE_MESSAGE + 2) /* records are at even places where frames have even lengths */

/* ---- connections */

/* Is there still a reason to be? Somebody with questions is one: it may be about to start a machine. */
static void serve_look(struct serve *s)
{
	if (s->config.keep || !s->greeted || switch_members(s->sw))
		return;
	for (struct conn *c = s->conns; c; c = c->next)
		if (c->kind == NET_HELLO_CONTROL)
			return;
	serve_end(s);
}

static void conn_close(struct conn *c)
{
	struct serve *s = c->serve;

	evloop_remove(c->source);
	if (c->port)
		switch_port_remove(s->sw, c->port);
	if (c->capture)
		switch_capture_remove(s->sw, c->capture);
	for (struct conn **at = &s->conns; *at; at = &(*at)->next) {
		if (*at == c) {
			*at = c->next;
			break;
		}
	}
	s->nconns--;
	close(c->fd);
	free(c);
	serve_look(s);
}

static void conn_events(struct conn *c)
{
	uint32_t events = (c->held ? 0 : EPOLLIN) | (c->blocked ? EPOLLOUT : 0);

	evloop_modify(c->source, events);
}

/* ---- members */

/* All or nothing. */
static int member_send(void *opaque, const struct switch_out *out, unsigned n)
{
	struct conn *c = opaque;
	struct net_record record[SWITCH_TOGETHER];
	struct iovec v[SWITCH_TOGETHER * (1 + ARRAY_LEN(out->iov))];
	struct msghdr m = { .msg_iov = v };

	for (unsigned i = 0; i < n; i++) {
		record[i] = (struct net_record){ .len = (uint32_t)out[i].len, .wire = out[i].wire };
		v[m.msg_iovlen++] = (struct iovec){ &record[i], sizeof(record[i]) };
		memcpy(v + m.msg_iovlen, out[i].iov, out[i].n * sizeof(*v));
		m.msg_iovlen += out[i].n;
	}
	if (sendmsg(c->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
		return (int)n;
	if (errno != EAGAIN && errno != ENOBUFS && errno != EINTR)
		return -errno; /* its hang-up is on its way to us */
	c->blocked = true;
	conn_events(c);
	return 0;
}

static void member_hold(void *opaque, bool on)
{
	struct conn *c = opaque;

	c->held = on;
	conn_events(c);
}

static const struct switch_port_ops member_ops = { member_send, member_hold };

/* The frames of one message. False: it is none. */
static bool member_message(struct conn *c, uint8_t *at, size_t len)
{
	struct net_record r;

	if (!len)
		return false; /* the end: an empty message says nothing else */
	while (len) {
		if (len < sizeof(r))
			return false;
		memcpy(&r, at, sizeof(r));
		at += sizeof(r);
		len -= sizeof(r);
		if (r.len > len)
			return false;
		switch_input(c->serve->sw, c->port, &r.wire, at, r.len);
		at += r.len;
		len -= r.len;
	}
	return true;
}

/* False: it has gone. */
static bool member_read(struct conn *c)
{
	struct serve *s = c->serve;

	for (unsigned round = 0; round < ROUNDS && !c->held; round++) {
		struct iovec iov[BATCH];
		struct mmsghdr m[BATCH] = { 0 };
		bool sane = true;
		int n;

		for (unsigned i = 0; i < BATCH; i++) {
			iov[i] = (struct iovec){ s->slots + i * SLOT + SWITCH_HEADROOM, SLOT - SWITCH_HEADROOM };
			m[i].msg_hdr = (struct msghdr){ .msg_iov = &iov[i], .msg_iovlen = 1 };
		}
		n = recvmmsg(c->fd, m, BATCH, MSG_DONTWAIT, NULL);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		for (int i = 0; i < n && sane; i++)
			sane = member_message(c, iov[i].iov_base, m[i].msg_len);
		switch_flush(s->sw);
		if (!sane)
			return false;
		if (n < (int)BATCH)
			break;
	}
	return true;
}

/* ---- captures */

static void captured(void *opaque, unsigned port, bool out, const struct net_wire *w, const struct iovec *iov, unsigned n)
{
	struct conn *c = opaque;
	struct net_captured h = { .port = port, .out = out, .lost = c->lost };
	struct iovec v[5] = { { &h, sizeof(h) } };
	struct msghdr m = { .msg_iov = v, .msg_iovlen = n + 1 };
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	h.time = (uint64_t)now.tv_sec * BUCKET_SECOND + (uint64_t)now.tv_nsec;
	for (unsigned i = 0; i < n; i++)
		h.length += (uint32_t)iov[i].iov_len;
	memcpy(v + 1, iov, MIN(n, 4u) * sizeof(*iov));
	if (sendmsg(c->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		c->lost++;
	else
		c->lost = 0;
}

/* ---- greeting */

static void welcome(struct conn *c, const struct err *e)
{
	struct net_welcome w = { .magic = NET_WIRE_MAGIC, .error = e ? e->code : 0 };

	if (e)
		snprintf(w.text, sizeof(w.text), "%.*s", (int)sizeof(w.text) - 1, e->text);
	send(c->fd, &w, sizeof(w), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static uint64_t least_limit(uint64_t a, uint64_t b)
{
	return !a ? b : !b ? a : MIN(a, b);
}

static int conn_begin(struct conn *c, struct net_hello *h, struct err *e)
{
	struct serve *s = c->serve;
	struct switch_port_config pc = { .ops = &member_ops, .opaque = c };

	if (h->kind == NET_HELLO_CAPTURE) {
		c->capture = switch_capture_add(s->sw, h->capture_port, captured, c);
		return c->capture ? 0 : err_set(e, ENOMEM, "the switch has no memory for a capture");
	}
	if (h->kind != NET_HELLO_MEMBER)
		return 0;
	h->limit_in = least_limit(h->limit_in, s->config.limit_in);
	h->limit_out = least_limit(h->limit_out, s->config.limit_out);
	pc.hello = *h;
	c->port = switch_port_add(s->sw, &pc, e);
	return c->port ? 0 : -e->code;
}

static bool conn_greet(struct conn *c)
{
	struct err e = { 0 };
	struct net_hello h;
	ssize_t n = recv(c->fd, &h, sizeof(h), MSG_DONTWAIT);
	int r;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n <= 0)
		return false;
	r = n == sizeof(h) ? hello_check(&h, &e) : err_set(&e, EPROTO, "a malformed greeting");
	if (!r)
		r = conn_begin(c, &h, &e);
	welcome(c, r ? &e : NULL);
	if (r)
		return false;
	c->kind = h.kind;
	if (c->port)
		c->serve->greeted = true;
	return true;
}

static void conn_event(void *opaque, uint32_t events)
{
	struct conn *c = opaque;
	bool alive = true;

	if (events & EPOLLOUT && c->port) {
		c->blocked = false;
		switch_port_ready(c->serve->sw, c->port);
		if (!c->blocked)
			conn_events(c);
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		if (!c->kind)
			alive = conn_greet(c);
		else if (c->kind == NET_HELLO_MEMBER)
			alive = c->held ? !(events & (EPOLLHUP | EPOLLERR)) : member_read(c);
		else if (c->kind == NET_HELLO_CONTROL)
			alive = control_read(c);
		else
			alive = false; /* a capture has nothing to say */
	}
	if (!alive || (events & EPOLLERR))
		conn_close(c);
}

/* Whoever is no member, the longest there (the list's last), makes room. */
static void make_room(struct serve *s)
{
	struct conn *idle = NULL;

	for (struct conn *c = s->conns; c; c = c->next)
		if (c->kind != NET_HELLO_MEMBER)
			idle = c;
	if (idle)
		conn_close(idle);
}

static bool peer_allowed(int fd)
{
	struct ucred u;
	socklen_t len = sizeof(u);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &len) && (u.uid == geteuid() || !u.uid);
}

static void serve_accept(void *opaque, uint32_t events)
{
	struct serve *s = opaque;
	int fd = evloop_accept(s->loop, s->listener), size = PEER_BUFFER;
	struct conn *c;

	if (s->nconns >= CONNECTIONS || (fd < 0 && errno == EMFILE))
		make_room(s);
	if (fd < 0)
		return;
	c = s->nconns < CONNECTIONS && peer_allowed(fd) ? calloc(1, sizeof(*c)) : NULL;
	if (!c) {
		close(fd);
		return;
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	c->serve = s;
	c->fd = fd;
	c->source = evloop_add(s->loop, fd, EPOLLIN, conn_event, c, NULL);
	if (!c->source) {
		close(fd);
		free(c);
		return;
	}
	c->next = s->conns;
	s->conns = c;
	s->nconns++;
}

/* ---- time */

static uint64_t serve_now(void *opaque)
{
	return clock_host_now();
}

static void serve_arm(void *opaque, uint64_t at)
{
	struct serve *s = opaque;
	struct itimerspec t = { .it_value = { (time_t)(at / BUCKET_SECOND), (long)(at % BUCKET_SECOND) } };

	if (at == UINT64_MAX)
		t.it_value = (struct timespec){ 0, 0 };
	timerfd_settime(s->timer, TFD_TIMER_ABSTIME, &t, NULL);
}

static void serve_tick(void *opaque, uint32_t events)
{
	struct serve *s = opaque;
	uint64_t n;

	if (read(s->timer, &n, sizeof(n)) < 0)
		return;
	switch_tick(s->sw);
}

static void serve_alone(void *opaque, uint32_t events)
{
	struct serve *s = opaque;
	uint64_t n;

	if (read(s->alone, &n, sizeof(n)) <= 0)
		return;
	s->greeted = true;
	serve_look(s);
}

void serve_end(struct serve *s)
{
	uint64_t one = 1;

	if (write(s->ended, &one, sizeof(one)) < 0)
		log_msg(LOG_WARN, "net", "cannot end"); /* the counter is full: it is ending */
}

int serve_ended(const struct serve *s)
{
	return s->ended;
}

/* ---- making and ending */

int serve_listen(int folder, struct err *e)
{
	struct sockaddr_un at;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0) {
		err_errno(e, "cannot make a socket");
		return -1;
	}
	/* the caller has the folder's lock: what is there was left by one that died */
	unlinkat(folder, NET_CLIENT_SOCKET, 0);
	net_client_address(folder, &at);
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) || listen(fd, 64)) {
		err_errno(e, "cannot listen in the network's folder");
		close(fd);
		return -1;
	}
	return fd;
}

static int serve_watch(struct serve *s, struct err *e)
{
	struct itimerspec alone = { .it_value = { ALONE_S, 0 } };

	s->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	s->alone = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	s->ended = eventfd(0, EFD_CLOEXEC);
	if (s->timer < 0 || s->alone < 0 || s->ended < 0)
		return err_errno(e, "cannot make the switch's timers");
	timerfd_settime(s->alone, 0, &alone, NULL);
	s->source[0] = evloop_add(s->loop, s->timer, EPOLLIN, serve_tick, s, e);
	s->source[1] = evloop_add(s->loop, s->alone, EPOLLIN, serve_alone, s, e);
	s->source[2] = evloop_add(s->loop, s->listener, EPOLLIN, serve_accept, s, e);
	return s->source[0] && s->source[1] && s->source[2] ? 0 : -ENOMEM;
}

struct serve *serve_create(const struct serve_config *config, struct evloop *loop, int listener, struct err *e)
{
	struct switch_env env = { serve_now, serve_arm, NULL };
	struct serve *s = calloc(1, sizeof(*s));

	if (!s) {
		err_set(e, ENOMEM, "no memory for a switch");
		close(listener);
		return NULL;
	}
	s->config = *config;
	s->loop = loop;
	s->listener = listener;
	s->timer = s->alone = s->ended = -1;
	env.opaque = s;
	s->slots = malloc(BATCH * SLOT);
	if (!s->slots)
		err_set(e, ENOMEM, "no memory for a switch");
	else
		s->sw = switch_create(&config->sw, &env, e);
	if (s->sw && config->uplink[0])
		s->uplink = uplink_open(s, config->uplink, e);
	if (!s->sw || (config->uplink[0] && !s->uplink) || serve_watch(s, e)) {
		serve_destroy(s);
		return NULL;
	}
	return s;
}

void serve_destroy(struct serve *s)
{
	if (!s)
		return;
	s->config.keep = true; /* nothing ends any more */
	while (s->conns)
		conn_close(s->conns);
	for (unsigned i = 0; i < ARRAY_LEN(s->source); i++)
		if (s->source[i])
			evloop_remove(s->source[i]);
	uplink_close(s->uplink);
	switch_destroy(s->sw);
	cleanup_close(&s->timer);
	cleanup_close(&s->alone);
	cleanup_close(&s->ended);
	cleanup_close(&s->listener);
	free(s->slots);
	free(s);
}
