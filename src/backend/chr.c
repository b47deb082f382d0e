/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Character back-ends: what they have in common.
 *
 * Output goes out at once, on the caller's thread, as long as the descriptor takes it; the rest is kept in a ring
 * of 64 KiB that the event loop empties. When that is full chr_write takes less, and it is for the front end to
 * let the guest wait: no thread ever blocks on a reader that has stopped, and nothing grows.
 *
 * Input is read only as far as the front end has room, so a pipe's or a peer's own buffers hold it back; from a
 * terminal it is always read, because Ctrl-A X has to work while the guest does not listen. A descriptor with
 * nothing wanted of it is taken out of the loop altogether: hang-ups are reported whether asked for or not.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/err.h"
#include "base/log.h"
#include "backend/private.h"

#define ROUNDS 64 /* reads in one go before others get their turn */
#define FLUSH_MS 10000 /* on closing: how long a reader may do nothing */

static void chr_work(void *opaque);

/* ---- output */

static bool would_block(const struct chr *c)
{
	struct pollfd p = { .fd = c->out, .events = POLLOUT };

	return poll(&p, 1, 0) <= 0 || !(p.revents & (POLLOUT | POLLERR | POLLHUP));
}

/* As much as goes without waiting. -1: the other side is gone. */
static ssize_t write_some(struct chr *c, const uint8_t *data, size_t n)
{
	size_t done = 0;
	ssize_t r;

	while (done < n) {
		if (c->out_poll && would_block(c))
			break;
		/* a pipe that is writable takes 4096 bytes without blocking */
		if (c->out_socket)
			r = send(c->out, data + done, n - done, MSG_DONTWAIT | MSG_NOSIGNAL);
		else
			r = write(c->out, data + done, c->out_poll ? MIN(n - done, (size_t)4096) : n - done);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		if (r < 0)
			return -1;
		done += (size_t)r;
	}
	return (ssize_t)done;
}

static void out_gone(struct chr *c)
{
	if (!c->out_socket && errno != EPIPE)
		log_msg(LOG_WARN, "chr", "cannot write to %s: %s", c->config.spec, strerror(errno));
	c->out = -1;
	c->used = 0;
}

/* Empty the ring as far as it goes. */
static void flush_locked(struct chr *c)
{
	while (c->used && c->out >= 0) {
		size_t n = MIN(c->used, CHR_BUFFER - c->first);
		ssize_t r = write_some(c, c->buffer + c->first, n);

		if (r < 0) {
			out_gone(c);
			return;
		}
		c->first = (c->first + (size_t)r) % CHR_BUFFER;
		c->used -= (size_t)r;
		if ((size_t)r < n)
			return;
	}
}

static void keep_locked(struct chr *c, const uint8_t *data, size_t n)
{
	while (n) {
		size_t end = (c->first + c->used) % CHR_BUFFER, part = MIN(n, CHR_BUFFER - end);

		memcpy(c->buffer + end, data, part);
		c->used += part;
		data += part;
		n -= part;
	}
}

size_t chr_write(struct chr *c, const uint8_t *data, size_t n)
{
	size_t done = 0, more;
	bool arm = false;
	ssize_t r;

	pthread_mutex_lock(&c->lock);
	if (c->out >= 0 && c->used)
		flush_locked(c);
	if (c->out >= 0 && !c->used) {
		r = write_some(c, data, n);
		if (r < 0)
			out_gone(c);
		else
			done = (size_t)r;
	}
	if (c->out < 0) {
		done = n;
	} else {
		more = MIN(n - done, CHR_BUFFER - c->used);
		keep_locked(c, data + done, more);
		done += more;
		c->refused |= done < n;
		arm = c->used && !c->out_source && !c->arming;
		c->arming |= arm;
	}
	pthread_mutex_unlock(&c->lock);
	if (arm)
		chr_post(c);
	return done;
}

void chr_wait(struct chr *c, int ms)
{
	struct pollfd p = { .events = POLLOUT };

	pthread_mutex_lock(&c->lock);
	p.fd = c->used == CHR_BUFFER ? c->out : -1;
	pthread_mutex_unlock(&c->lock);
	if (p.fd >= 0)
		poll(&p, 1, ms);
}

/* The ring is to be emptied: watch the descriptor while there is something in it. */
static void output_ready(void *opaque, uint32_t events)
{
	struct chr *c = opaque;
	struct evsource *done = NULL;
	bool drained;

	pthread_mutex_lock(&c->lock);
	flush_locked(c);
	if (!c->used) {
		done = c->out_source;
		c->out_source = NULL;
	}
	drained = c->refused && c->used < CHR_BUFFER;
	c->refused &= !drained;
	pthread_mutex_unlock(&c->lock);
	if (done)
		evloop_remove(done);
	if (drained && c->attached && c->front.drained)
		c->front.drained(c->front.opaque);
}

static void output_arm(struct chr *c)
{
	struct err e;

	pthread_mutex_lock(&c->lock);
	c->arming = false;
	if (c->used && c->out >= 0 && !c->out_source)
		c->out_source = evloop_add(c->loop, c->out, EPOLLOUT, output_ready, c, &e);
	pthread_mutex_unlock(&c->lock);
}

/* Loop's thread. Whoever had it closes the old one. */
void chr_set_output(struct chr *c, int fd)
{
	struct evsource *old;
	bool drained;

	pthread_mutex_lock(&c->lock);
	old = c->out_source;
	c->out_source = NULL;
	c->out = fd;
	c->used = c->first = 0;
	drained = c->refused;
	c->refused = false;
	pthread_mutex_unlock(&c->lock);
	if (old)
		evloop_remove(old);
	if (drained && c->attached && c->front.drained)
		c->front.drained(c->front.opaque);
}

/* ---- input */

/* Room to read into; 0: leave it where it is. */
static size_t input_room(struct chr *c)
{
	if (!c->attached)
		return 0;
	if (c->terminal)
		return CHR_TYPED;
	return c->front.room(c->front.opaque);
}

static void feed_typed(struct chr *c)
{
	size_t n;

	while (c->attached && c->ntyped) {
		n = MIN(c->front.room(c->front.opaque), c->ntyped);
		if (!n)
			return;
		c->front.input(c->front.opaque, c->typed, n);
		c->ntyped -= n;
		memmove(c->typed, c->typed + n, c->ntyped);
	}
}

/* False: nothing there now, or the end. */
static bool read_once(struct chr *c, size_t room)
{
	uint8_t data[CHR_TYPED];
	ssize_t n = read(c->in, data, MIN(room, sizeof(data)));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return false;
	if (n <= 0) { /* the end; of a terminal too: it was hung up */
		if (c->listener >= 0)
			chr_socket_gone(c);
		else
			chr_set_input(c, -1);
		return false;
	}
	if (c->terminal)
		chr_typed(c, data, (size_t)n);
	else
		c->front.input(c->front.opaque, data, (size_t)n);
	return true;
}

static void unwatch_input(struct chr *c)
{
	if (c->in_source)
		evloop_remove(c->in_source);
	c->in_source = NULL;
}

static void input_ready(void *opaque, uint32_t events)
{
	struct chr *c = opaque;
	size_t room = input_room(c);

	if (room && c->in >= 0)
		read_once(c, room);
	chr_work(c);
}

static void watch_input(struct chr *c)
{
	struct err e;

	if (c->in < 0 || c->in_source || c->in_plain)
		return;
	c->in_source = evloop_add(c->loop, c->in, EPOLLIN, input_ready, c, &e);
	c->in_plain = !c->in_source;
}

void chr_set_input(struct chr *c, int fd)
{
	unwatch_input(c);
	c->in = fd;
	c->in_plain = false;
}

/* Everything there is to do, on the loop's thread. */
static void chr_work(void *opaque)
{
	struct chr *c = opaque;
	unsigned round;

	atomic_store(&c->posted, false);
	output_arm(c);
	feed_typed(c);
	if (c->in < 0)
		return;
	if (!input_room(c)) {
		unwatch_input(c);
		return;
	}
	watch_input(c);
	for (round = 0; c->in_plain && c->in >= 0 && round < ROUNDS; round++) {
		size_t room = input_room(c);

		if (!room || !read_once(c, room))
			return;
	}
	if (round == ROUNDS)
		chr_post(c);
}

void chr_post(struct chr *c)
{
	if (!atomic_exchange(&c->posted, true))
		evloop_post(c->loop, chr_work, c);
}

void chr_room_changed(struct chr *c)
{
	chr_post(c);
}

void chr_attach(struct chr *c, const struct chr_front *front)
{
	c->attached = front != NULL;
	if (!front)
		return;
	c->front = *front;
	chr_post(c);
}

/* ---- opening and closing */

static int open_file(struct chr *c, const char *path, struct err *e)
{
	c->out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0644);
	return c->out < 0 ? err_errno(e, "cannot write %s", path) : 0;
}

static int open_spec(struct chr *c, const char *spec, struct err *e)
{
	if (!strcmp(spec, "null"))
		return 0;
	if (!strcmp(spec, "stdio"))
		return chr_open_stdio(c, e);
	if (!strncmp(spec, "file:", 5) && spec[5])
		return open_file(c, spec + 5, e);
	if (!strncmp(spec, "socket:", 7) && spec[7])
		return chr_open_socket(c, spec + 7, e);
	if (!strncmp(spec, "console:", 8) && spec[8])
		return chr_open_console(c, spec + 8, e);
	return err_set(e, EINVAL, "\"%s\" is none of stdio, null, file:PATH, socket:PATH, console:PATH", spec);
}

struct chr *chr_open(struct evloop *loop, const struct chr_config *config, struct err *e)
{
	struct chr *c = calloc(1, sizeof(*c));

	if (c)
		c->buffer = malloc(CHR_BUFFER);
	if (!c || !c->buffer) {
		free(c);
		err_set(e, ENOMEM, "no memory for a serial line");
		return NULL;
	}
	signal(SIGPIPE, SIG_IGN);
	c->loop = loop;
	c->config = *config;
	c->out = c->in = c->listener = c->peer_out = -1;
	pthread_mutex_init(&c->lock, NULL);
	if (open_spec(c, config->spec, e)) {
		pthread_mutex_destroy(&c->lock);
		free(c->buffer);
		free(c);
		return NULL;
	}
	return c;
}

static void flush_all(struct chr *c)
{
	struct pollfd p = { .events = POLLOUT };

	for (;;) {
		flush_locked(c);
		p.fd = c->out;
		if (!c->used || c->out < 0 || poll(&p, 1, FLUSH_MS) == 0)
			return;
	}
}

void chr_close(struct chr *c)
{
	if (!c)
		return;
	unwatch_input(c);
	if (c->out_source)
		evloop_remove(c->out_source);
	flush_all(c);
	if (c->console)
		chr_close_console(c);
	else if (c->listener >= 0)
		chr_close_socket(c);
	else if (!strcmp(c->config.spec, "stdio"))
		chr_close_stdio(c);
	else if (c->out >= 0)
		close(c->out);
	pthread_mutex_destroy(&c->lock);
	free(c->buffer);
	free(c);
}
