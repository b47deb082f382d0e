/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's half of vsock connections: UNIX sockets, watched by edges, so that a socket nobody can serve at the moment wakes nobody.
 * Data for a socket that does not take it waits in a buffer as large as the credit the guest has.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/err.h"
#include "virtio/vsock-private.h"

#define HELLO_MAX 32u /* "CONNECT 4294967295\n" has 19 */
#define FIRST_PORT 0x40000000u

static struct vconn_list *bucket(struct vsock *s, uint32_t guest_port, uint32_t host_port)
{
	return &s->bucket[(guest_port * 31 + host_port) % VSOCK_HASH];
}

struct vconn *vconn_find(struct vsock *s, uint32_t guest_port, uint32_t host_port)
{
	struct vconn *c;

	LIST_FOREACH(c, bucket(s, guest_port, host_port), link)
		if (c->guest_port == guest_port && c->host_port == host_port)
			return c;
	return NULL;
}

static void close_socket(struct vconn *c)
{
	evloop_remove(c->source);
	c->source = NULL;
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->readable = false;
	c->forwarded += c->used; /* nobody will read it */
	c->used = 0;
}

void vconn_free(struct vconn *c)
{
	struct vsock *s = c->s;

	close_socket(c);
	if (c->queued)
		TAILQ_REMOVE(&s->turns, c, in_turn);
	LIST_REMOVE(c, link);
	if (c->state == VCONN_HELLO)
		s->nhellos--;
	else
		s->nconns--;
	free(c->buffer);
	free(c);
}

void vconn_free_all(struct vsock *s)
{
	for (unsigned i = 0; i < VSOCK_HASH; i++)
		while (!LIST_EMPTY(&s->bucket[i]))
			vconn_free(LIST_FIRST(&s->bucket[i]));
	while (!LIST_EMPTY(&s->hellos))
		vconn_free(LIST_FIRST(&s->hellos));
}

/* ---- turns */

uint32_t vconn_credit(const struct vconn *c)
{
	uint32_t underway = c->sent - c->peer_fwd;

	return underway < c->peer_alloc ? c->peer_alloc - underway : 0;
}

bool vconn_has_data(const struct vconn *c)
{
	return c->state == VCONN_OPEN && c->readable && !(c->guest_shut & VSOCK_NO_RECEIVE) && vconn_credit(c);
}

void vconn_wake(struct vconn *c)
{
	if (!c->queued && (c->say || vconn_has_data(c))) {
		c->queued = true;
		TAILQ_INSERT_TAIL(&c->s->turns, c, in_turn);
	}
}

void vconn_say(struct vconn *c, enum vsock_op op)
{
	c->say |= 1u << op;
	vconn_wake(c);
}

void vconn_reset(struct vconn *c)
{
	close_socket(c);
	c->state = VCONN_ENDING;
	c->say = 0;
	vconn_say(c, VSOCK_RST);
}

/* What the host's side will not do any more, as far as the guest has not been told. */
static void say_shut(struct vconn *c)
{
	uint32_t flags = c->hung_up ? VSOCK_NO_RECEIVE : 0;

	/* what was written before the other side hung up is still read */
	if (c->eof)
		flags |= VSOCK_NO_SEND;
	if (flags & ~c->said_shut) {
		c->said_shut |= flags;
		c->say_shut = c->said_shut;
		vconn_say(c, VSOCK_SHUTDOWN);
	}
}

/* ---- from the guest */

/* Everything the guest sent is out, and it will send no more. */
static void check_finished(struct vconn *c)
{
	if (c->state != VCONN_OPEN || c->used || !(c->guest_shut & VSOCK_NO_SEND))
		return;
	if (c->guest_shut & VSOCK_NO_RECEIVE)
		vconn_reset(c);
	else if (c->fd >= 0)
		shutdown(c->fd, SHUT_WR);
}

static void other_side_gone(struct vconn *c)
{
	c->hung_up = true;
	c->forwarded += c->used;
	c->used = 0;
}

/* As much as the socket takes; what it does not is left. */
static uint32_t send_some(struct vconn *c, const uint8_t *data, uint32_t len)
{
	uint32_t done = 0;

	while (done < len && !c->hung_up) {
		ssize_t n = send(c->fd, data + done, len - done, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			other_side_gone(c);
		if (n <= 0)
			break;
		done += (uint32_t)n;
	}
	return done;
}

static void flush(struct vconn *c)
{
	while (c->used && c->fd >= 0) {
		uint32_t n = send_some(c, c->buffer + c->first, c->used);

		if (c->hung_up || !n)
			break;
		c->first += n;
		c->used -= n;
		c->forwarded += n;
	}
	if (!c->used) {
		free(c->buffer);
		c->buffer = NULL;
		c->first = 0;
	}
}

/* Credit is told when a quarter of it is back: seldom enough, and the guest need not stop. */
static void tell_credit(struct vconn *c)
{
	if (c->state == VCONN_OPEN && c->forwarded - c->forwarded_told >= VSOCK_BUFFER / 4)
		vconn_say(c, VSOCK_CREDIT_UPDATE);
}

static bool keep(struct vconn *c, const uint8_t *data, uint32_t len)
{
	if (len > VSOCK_BUFFER - c->used)
		return false;
	if (!c->buffer)
		c->buffer = malloc(VSOCK_BUFFER);
	if (!c->buffer)
		return false;
	if (len > VSOCK_BUFFER - c->first - c->used) {
		memmove(c->buffer, c->buffer + c->first, c->used);
		c->first = 0;
	}
	memcpy(c->buffer + c->first + c->used, data, len);
	c->used += len;
	return true;
}

bool vconn_deliver(struct vconn *c, uint64_t offset, uint32_t len)
{
	struct vsock *s = c->s;

	if (len > VSOCK_BUFFER - c->used)
		return false;
	while (len) {
		uint32_t n = (uint32_t)vq_read(&s->out, offset, s->data, MIN(len, VSOCK_CHUNK)), done = 0;

		if (!n)
			return false;
		if (!c->used && !c->hung_up && c->fd >= 0)
			done = send_some(c, s->data, n);
		c->forwarded += done;
		if (c->hung_up || c->fd < 0)
			c->forwarded += n - done;
		else if (done < n && !keep(c, s->data + done, n - done))
			return false;
		offset += n;
		len -= n;
	}
	if (c->hung_up)
		say_shut(c);
	tell_credit(c);
	return true;
}

void vconn_shut(struct vconn *c, uint32_t flags)
{
	c->guest_shut |= flags & (VSOCK_NO_RECEIVE | VSOCK_NO_SEND);
	check_finished(c);
}

void vconn_opened(struct vconn *c)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "OK %u\n", c->host_port);

	c->state = VCONN_OPEN;
	/* an empty socket buffer takes this; a client that has gone is noticed when it is read from */
	if (send(c->fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) != n)
		c->hung_up = true;
	if (c->hung_up || c->eof)
		say_shut(c);
}

/* ---- from the socket */

size_t vconn_read(struct vconn *c, void *buf, size_t len)
{
	ssize_t n;

	do
		n = recv(c->fd, buf, len, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n > 0) {
		c->sent += (uint32_t)n;
		return (size_t)n;
	}
	c->readable = false;
	if (!n || errno != EAGAIN) {
		c->eof = true;
		if (n < 0)
			c->hung_up = true;
		say_shut(c);
	}
	return 0;
}

static bool port_parse(const char *line, size_t len, uint32_t *port)
{
	static const char word[] = "CONNECT ";
	uint64_t value = 0;
	size_t at = sizeof(word) - 1;

	if (len <= at || memcmp(line, word, at))
		return false;
	for (; at < len; at++) {
		if (line[at] < '0' || line[at] > '9')
			return false;
		value = value * 10 + (uint64_t)(line[at] - '0');
		if (value > UINT32_MAX)
			return false;
	}
	*port = (uint32_t)value;
	return true;
}

static void request(struct vconn *c, uint32_t port)
{
	struct vsock *s = c->s;

	if (s->nconns >= VSOCK_CONNS || !virtio_running(&s->v)) {
		vconn_free(c);
		return;
	}
	do
		s->next_port = MAX(s->next_port + 1, FIRST_PORT);
	while (vconn_find(s, port, s->next_port));
	LIST_REMOVE(c, link);
	s->nhellos--;
	s->nconns++;
	c->guest_port = port;
	c->host_port = s->next_port;
	c->state = VCONN_REQUESTED;
	LIST_INSERT_HEAD(bucket(s, port, c->host_port), c, link);
	vconn_say(c, VSOCK_REQUEST);
}

/* The line, and not a byte of what follows it: that is the guest's. */
static void hello(struct vconn *c)
{
	char line[HELLO_MAX], *end;
	ssize_t n = recv(c->fd, line, sizeof(line), MSG_PEEK | MSG_DONTWAIT);
	uint32_t port;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	end = n > 0 ? memchr(line, '\n', (size_t)n) : NULL;
	if (!end && n > 0 && n < HELLO_MAX)
		return; /* the rest is to come: another edge */
	if (!end || !port_parse(line, (size_t)(end - line), &port) || recv(c->fd, line, (size_t)(end - line) + 1, 0) < 0)
		vconn_free(c);
	else
		request(c, port);
}

static void socket_event(void *opaque, uint32_t events)
{
	struct vconn *c = opaque;
	struct vsock *s = c->s;

	if (s->drop) { /* vsock_talk ends this one too */
		vsock_talk(s);
		return;
	}
	if (c->state == VCONN_HELLO) {
		hello(c);
		vsock_talk(s);
		return;
	}
	if (events & EPOLLOUT && c->used) {
		flush(c);
		tell_credit(c);
	}
	if (events & (EPOLLHUP | EPOLLERR))
		other_side_gone(c);
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		c->readable = !c->eof;
	if (c->state == VCONN_OPEN && (c->hung_up || c->eof))
		say_shut(c);
	check_finished(c);
	vconn_wake(c);
	vsock_talk(s);
}

/* ---- making them */

/* Takes the descriptor. */
static struct vconn *conn_create(struct vsock *s, int fd, enum vconn_state state)
{
	struct vconn *c = calloc(1, sizeof(*c));

	if (!c) {
		close(fd);
		return NULL;
	}
	c->s = s;
	c->fd = fd;
	c->state = state;
	c->source = evloop_add(s->v.env.loop, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, socket_event, c, NULL);
	if (!c->source) {
		close(fd);
		free(c);
		return NULL;
	}
	return c;
}

void vconn_accept(void *opaque, uint32_t events)
{
	struct vsock *s = opaque;
	int fd = evloop_accept(s->v.env.loop, s->listener);
	struct vconn *c = fd < 0 ? NULL : conn_create(s, fd, VCONN_HELLO);

	if (!c)
		return;
	if (s->nhellos == VSOCK_HELLOS) { /* the one that has been silent the longest */
		struct vconn *oldest = LIST_FIRST(&s->hellos);

		while (LIST_NEXT(oldest, link))
			oldest = LIST_NEXT(oldest, link);
		vconn_free(oldest);
	}
	LIST_INSERT_HEAD(&s->hellos, c, link);
	s->nhellos++;
}

struct vconn *vconn_connect(struct vsock *s, uint32_t guest_port, uint32_t host_port)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	struct vconn *c;
	int fd;

	if (s->nconns >= VSOCK_CONNS)
		return NULL;
	snprintf(at.sun_path, sizeof(at.sun_path), "%s_%u", s->path, host_port);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return NULL;
	if (connect(fd, (const struct sockaddr *)&at, sizeof(at))) { /* EAGAIN too: its backlog is full */
		close(fd);
		return NULL;
	}
	c = conn_create(s, fd, VCONN_OPEN);
	if (!c)
		return NULL;
	c->guest_port = guest_port;
	c->host_port = host_port;
	s->nconns++;
	LIST_INSERT_HEAD(bucket(s, guest_port, host_port), c, link);
	return c;
}
