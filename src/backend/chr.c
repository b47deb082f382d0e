/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Character back-ends: stdio, file, null; sockets are in chr-socket.c.
 *
 * Input: the event loop reads only while there is room, so a fast sender waits in its pipe; what was read and the front end
 * could not take yet is held, at most CHR_HOLD bytes. Output: written at once by whoever calls; it blocks as long as a
 * pipe or file does, so nothing is dropped or piled up. A socket's peer that stalls is different: see chr-socket.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>
#include "backend/chr-private.h"
#include "base/log.h"

/* Hand over as much as the front end takes. Event loop's thread. */
static void feed(struct chr *c)
{
	for (;;) {
		struct chr_front front;
		uint8_t part[256];
		size_t n;

		pthread_mutex_lock(&c->lock);
		front = c->front;
		n = c->attached ? MIN(c->held, sizeof(part)) : 0;
		pthread_mutex_unlock(&c->lock);
		if (n)
			n = MIN(n, front.room(front.opaque));
		if (!n)
			return;
		memcpy(part, c->hold, n);
		memmove(c->hold, c->hold + n, c->held - n);
		c->held -= n;
		front.input(front.opaque, part, n);
	}
}

static void watch(struct chr *c)
{
	if (c->in)
		evloop_modify(c->in, c->held < CHR_HOLD / 2 ? EPOLLIN : 0);
}

void chr_input_gone(struct chr *c)
{
	if (c->in)
		evloop_remove(c->in);
	c->in = NULL;
	c->at_eof = true;
}

static void read_some(struct chr *c)
{
	ssize_t n = read(c->in_fd, c->hold + c->held, CHR_HOLD - c->held);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		chr_input_gone(c);
		if (c->socket_path)
			chr_socket_close(c);
		return;
	}
	c->held += c->terminal ? terminal_filter(c, c->hold + c->held, (size_t)n) : (size_t)n;
}

static void on_input(void *opaque, uint32_t events)
{
	struct chr *c = opaque;

	if (c->held < CHR_HOLD)
		read_some(c);
	feed(c);
	watch(c);
}

/* On the event loop, after the front end has made room. */
static void more_room(void *opaque)
{
	struct chr *c = opaque;

	feed(c);
	while (c->in_always_ready && !c->at_eof && !c->held) {
		read_some(c);
		feed(c);
	}
	watch(c);
}

void chr_room_changed(struct chr *c)
{
	if (c->held || (c->in_always_ready && !c->at_eof))
		evloop_post(c->loop, more_room, c);
}

int chr_watch_input(struct chr *c, int fd, struct err *e)
{
	struct err why;

	c->in_fd = fd;
	c->at_eof = false;
	c->in = evloop_add(c->loop, fd, EPOLLIN, on_input, c, &why);
	if (c->in)
		return 0;
	if (why.code != EPERM) {
		if (e)
			*e = why;
		return -why.code;
	}
	c->in_always_ready = true; /* a regular file or /dev/null */
	return 0;
}

void chr_attach(struct chr *c, const struct chr_front *front)
{
	pthread_mutex_lock(&c->lock);
	c->attached = front != NULL;
	if (front)
		c->front = *front;
	pthread_mutex_unlock(&c->lock);
	if (front)
		evloop_post(c->loop, more_room, c);
}

/* All of it, however long the other side takes. False: the other side is gone. */
static bool write_all(int fd, const uint8_t *data, size_t n)
{
	while (n) {
		ssize_t w = write(fd, data, n);

		if (w < 0 && errno == EAGAIN) {
			struct pollfd p = { .fd = fd, .events = POLLOUT };

			poll(&p, 1, -1);
			continue;
		}
		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			return false;
		data += w;
		n -= (size_t)w;
	}
	return true;
}

void chr_write(struct chr *c, const uint8_t *data, size_t n)
{
	pthread_mutex_lock(&c->write_lock);
	if (c->out_fd >= 0) {
		if (c->socket_path) {
			/* A peer that does not read must not stop the machine: what does not fit is dropped. */
			ssize_t w = write(c->out_fd, data, n);

			(void)w;
		} else if (!write_all(c->out_fd, data, n)) {
			log_msg(LOG_WARN, "serial", "output is lost from here on: %s", strerror(errno));
			c->out_fd = -1;
		}
	}
	pthread_mutex_unlock(&c->write_lock);
}

static int open_stdio(struct chr *c, struct err *e)
{
	int r;

	c->out_fd = STDOUT_FILENO;
	if (fcntl(STDIN_FILENO, F_GETFD) < 0)
		return 0; /* started without standard input */
	c->terminal = isatty(STDIN_FILENO);
	if (c->terminal && (r = terminal_raw(e)))
		return r;
	return chr_watch_input(c, STDIN_FILENO, e);
}

static int open_file(struct chr *c, const char *path, struct err *e)
{
	c->out_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0644);
	c->close_fds = true;
	return c->out_fd < 0 ? err_errno(e, "serial file %s", path) : 0;
}

static int open_spec(struct chr *c, const char *spec, struct err *e)
{
	if (!strcmp(spec, "null"))
		return 0;
	if (!strcmp(spec, "stdio"))
		return open_stdio(c, e);
	if (!strncmp(spec, "file:", 5) && spec[5])
		return open_file(c, spec + 5, e);
	if (!strncmp(spec, "socket:", 7) && spec[7])
		return chr_socket_open(c, spec + 7, e);
	return err_set(e, EINVAL, "serial line \"%s\" is not known: use stdio, null, file:PATH or socket:PATH", spec);
}

struct chr *chr_open(struct evloop *loop, const struct chr_config *config, struct err *e)
{
	struct chr *c = calloc(1, sizeof(*c));

	if (!c) {
		err_set(e, ENOMEM, "no memory for a serial line");
		return NULL;
	}
	signal(SIGPIPE, SIG_IGN);
	c->loop = loop;
	c->config = *config;
	c->in_fd = c->out_fd = c->listen_fd = -1;
	pthread_mutex_init(&c->lock, NULL);
	pthread_mutex_init(&c->write_lock, NULL);
	if (open_spec(c, config->spec, e)) {
		chr_close(c);
		return NULL;
	}
	return c;
}

void chr_close(struct chr *c)
{
	if (!c)
		return;
	chr_input_gone(c);
	if (c->listener)
		evloop_remove(c->listener);
	if (c->terminal)
		chr_restore_terminal();
	if (c->socket_path) {
		if (c->in_fd >= 0)
			close(c->in_fd);
		if (c->listen_fd >= 0) {
			close(c->listen_fd);
			unlink(c->socket_path);
		}
		free(c->socket_path);
	} else if (c->close_fds && c->out_fd >= 0) {
		close(c->out_fd);
	}
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->write_lock);
	free(c);
}
