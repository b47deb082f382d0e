/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The debugger stub's connection: listening, and the framing $payload#checksum of the remote serial protocol. Input is
 * whatever reaches the port: buffers are of fixed size, a packet that is too long or damaged is refused. One client at
 * a time. While the machine runs, Ctrl-C (a byte 3) is the only thing looked at, as the protocol has it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/log.h"
#include "vm/gdb-private.h"

/* ---- text */

void text_add(struct gdb_text *t, const char *fmt, ...)
{
	unsigned room = sizeof(t->data) - t->len;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->data + t->len, room, fmt, ap);
	va_end(ap);
	if (n < 0 || (unsigned)n >= room)
		t->full = true;
	else
		t->len += (unsigned)n;
}

void text_hex(struct gdb_text *t, const void *data, size_t len)
{
	const uint8_t *p = data;
	size_t i;

	for (i = 0; i < len && !t->full; i++)
		text_add(t, "%02x", p[i]);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool hex_bytes(const char **p, void *data, size_t len)
{
	uint8_t *to = data;
	size_t i;

	for (i = 0; i < len; i++) {
		int hi = hex_digit((*p)[0]), lo = hi < 0 ? -1 : hex_digit((*p)[1]);

		if (lo < 0)
			return false;
		to[i] = (uint8_t)(hi << 4 | lo);
		*p += 2;
	}
	return true;
}

bool hex_number(const char **p, uint64_t *v)
{
	unsigned n;
	int d;

	*v = 0;
	for (n = 0; (d = hex_digit(**p)) >= 0; n++, ++*p) {
		if (n == 16)
			return false;
		*v = *v << 4 | (unsigned)d;
	}
	return n > 0;
}

/* ---- sending */

static void gdb_close(struct gdb *g)
{
	if (g->fd < 0)
		return;
	evloop_remove(g->source);
	g->source = NULL;
	close(g->fd);
	g->fd = -1;
	gdb_detach(g);
}

static void gdb_flush(struct gdb *g)
{
	ssize_t n;

	while (g->out_len) {
		n = send(g->fd, g->out, g->out_len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			if (errno != EAGAIN && errno != EWOULDBLOCK)
				g->closing = true;
			break;
		}
		g->out_len -= (unsigned)n;
		memmove(g->out, g->out + n, g->out_len);
	}
	if (!g->closing)
		evloop_modify(g->source, EPOLLIN | (g->out_len ? (uint32_t)EPOLLOUT : 0));
}

static void gdb_put(struct gdb *g, const char *data, unsigned len)
{
	if (g->fd < 0)
		return;
	if (len > sizeof(g->out) - g->out_len) {
		g->closing = true; /* does not read what it asks for */
		return;
	}
	memcpy(g->out + g->out_len, data, len);
	g->out_len += len;
}

void gdb_send(struct gdb *g, const char *payload, unsigned len)
{
	char tail[4];
	uint8_t sum = 0;
	unsigned i;

	for (i = 0; i < len; i++)
		sum += (uint8_t)payload[i];
	snprintf(tail, sizeof(tail), "#%02x", sum);
	gdb_put(g, "$", 1);
	gdb_put(g, payload, len);
	gdb_put(g, tail, 3);
	if (g->fd >= 0)
		gdb_flush(g);
}

/* ---- receiving */

/* A complete packet is in g->in: payload, '#', two digits. */
static void gdb_packet(struct gdb *g)
{
	unsigned len = g->in_len - 3, i;
	const char *p = g->in + len + 1;
	uint8_t want = 0, sum = 0;

	for (i = 0; i < len; i++)
		sum += (uint8_t)g->in[i];
	if (!hex_bytes(&p, &want, 1) || (!g->no_ack && want != sum)) {
		gdb_put(g, "-", 1);
		gdb_flush(g);
		return;
	}
	if (!g->no_ack) {
		gdb_put(g, "+", 1);
		gdb_flush(g);
	}
	g->in[len] = 0;
	gdb_command(g, g->in, len);
}

static void gdb_byte(struct gdb *g, char c)
{
	if (g->running) {
		if (c == 3)
			gdb_interrupt(g);
		return;
	}
	if (!g->in_packet) {
		g->in_packet = c == '$';
		g->in_len = 0;
		return;
	}
	if (g->in_len == sizeof(g->in) - 1) { /* longer than announced */
		g->in_packet = false;
		gdb_put(g, "-", 1);
		return;
	}
	g->in[g->in_len++] = c;
	if (g->in_len >= 3 && g->in[g->in_len - 3] == '#') {
		g->in_packet = false;
		gdb_packet(g);
	}
}

static void gdb_ready(void *opaque, uint32_t events)
{
	struct gdb *g = opaque;
	char buf[1024];
	ssize_t n, i;

	if (events & EPOLLOUT)
		gdb_flush(g);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		n = recv(g->fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (!n || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
			g->closing = true;
		for (i = 0; i < n && !g->closing; i++)
			gdb_byte(g, buf[i]);
	}
	if (g->closing)
		gdb_close(g);
}

/* ---- connecting */

static void gdb_accept(void *opaque, uint32_t events)
{
	struct gdb *g = opaque;
	int fd = evloop_accept(g->vm->loop, g->listen_fd), one = 1;
	struct err e;

	if (fd < 0)
		return;
	if (g->fd >= 0) { /* one at a time */
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	g->in_len = g->out_len = 0;
	g->in_packet = g->no_ack = g->swbreak = g->hwbreak = g->closing = false;
	g->source = evloop_add(g->vm->loop, fd, EPOLLIN, gdb_ready, g, &e);
	if (!g->source) {
		log_msg(LOG_ERROR, "gdb", "%s", e.text);
		close(fd);
		return;
	}
	g->fd = fd;
	gdb_attach(g);
}

/* "[ADDR:]PORT" to its parts; the brackets of an IPv6 address go. */
static int gdb_parse(const char *where, char host[64], char port[8], struct err *e)
{
	const char *colon = strrchr(where, ':'), *digits = colon ? colon + 1 : where;
	size_t n = colon ? (size_t)(colon - where) : 0;
	char *end;
	unsigned long value = strtoul(digits, &end, 10);

	if (!*digits || *digits < '0' || *digits > '9' || *end || value > 65535)
		return err_set(e, EINVAL, "\"%.60s\" is no [ADDRESS:]PORT", where);
	snprintf(port, 8, "%lu", value);
	snprintf(host, 64, "127.0.0.1");
	if (n >= 2 && where[0] == '[' && where[n - 1] == ']') {
		where++;
		n -= 2;
	}
	if (n >= 64)
		return err_set(e, EINVAL, "\"%.60s\" is no address", where);
	if (n)
		snprintf(host, 64, "%.*s", (int)n, where);
	return 0;
}

static int gdb_listen(struct gdb *g, const char *where, struct err *e)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_PASSIVE }, *a = NULL;
	struct sockaddr_storage bound = { 0 };
	socklen_t size = sizeof(bound);
	char host[64], port[8];
	int r, one = 1;

	r = gdb_parse(where, host, port, e);
	if (r)
		return r;
	r = getaddrinfo(host, port, &hints, &a);
	if (r)
		return err_set(e, EINVAL, "gdb: %s: %s", host, gai_strerror(r));
	g->listen_fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	r = 0;
	if (g->listen_fd < 0)
		r = err_errno(e, "gdb: cannot create a socket");
	else if (setsockopt(g->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
		 bind(g->listen_fd, a->ai_addr, a->ai_addrlen) || listen(g->listen_fd, 1) ||
		 getsockname(g->listen_fd, (struct sockaddr *)&bound, &size))
		r = err_errno(e, "gdb: cannot listen at %s port %s", host, port);
	freeaddrinfo(a);
	if (r)
		return r;
	/* the port is at the same place for both families */
	g->port = ntohs(((struct sockaddr_in *)(void *)&bound)->sin_port);
	if (strncmp(host, "127.", 4) && strcmp(host, "::1"))
		log_msg(LOG_WARN, "gdb", "whoever reaches %s port %d controls the machine", host, g->port);
	return 0;
}

static void gdb_destroy(struct device *d)
{
	struct gdb *g = container_of(d, struct gdb, device);

	evloop_remove(g->source);
	evloop_remove(g->listen_source);
	cleanup_close(&g->fd);
	cleanup_close(&g->listen_fd);
	g->vm->gdb = NULL;
	free(g);
}

static const struct device_ops gdb_ops = { .destroy = gdb_destroy };

int gdb_start(struct vm *vm, const char *where, struct err *e)
{
	struct gdb *g = calloc(1, sizeof(*g));
	int r;

	if (!g)
		return err_set(e, ENOMEM, "gdb: no memory");
	g->vm = vm;
	g->fd = g->listen_fd = -1;
	g->device.ops = &gdb_ops;
	r = gdb_listen(g, where, e);
	if (!r) {
		g->listen_source = evloop_add(vm->loop, g->listen_fd, EPOLLIN, gdb_accept, g, e);
		r = g->listen_source ? 0 : -EIO;
	}
	if (r) {
		cleanup_close(&g->listen_fd);
		free(g);
		return r;
	}
	vm_add_device(vm, &g->device);
	vm->gdb = g;
	vm->start_paused = true;
	vm->debug_hook = gdb_hook;
	vm->stopped_hook = gdb_stopped_hook;
	vm->debug_opaque = vm->stopped_opaque = g;
	return 0;
}

int gdb_port(const struct vm *vm)
{
	return vm->gdb ? vm->gdb->port : 0;
}
