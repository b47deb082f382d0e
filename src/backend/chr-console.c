/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A serial line for people: a listening UNIX socket for any number of readers and writers up to CONSOLE_PEERS, each of
 * which first gets what is left of the last CONSOLE_RING bytes; and a log, replaced (the old one kept as .1) when it has
 * CONSOLE_LOG bytes. For a machine that goes on, what the log ends with is what has been written so far.
 *
 * It sits behind a socket pair, so that to the rest of the back-end it is a peer that always reads. All of it happens on the
 * event loop. A reader that falls behind by more than the ring loses what is in between; nobody ever waits for a reader.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "backend/private.h"

#define CONSOLE_PEERS 16
#define CONSOLE_RING 65536u
#define CONSOLE_LOG (16u << 20)
#define CONSOLE_INPUT 4096u

struct peer {
	struct console *console;
	int fd; /* -1: free */
	struct evsource *source;
	uint64_t at; /* how much of everything ever written it has got */
};

struct console {
	struct evloop *loop;
	char *path, *log_path;
	int line; /* our end of the pair */
	struct evsource *line_source, *listen_source;
	int listener, log;
	uint64_t log_size;
	struct peer peers[CONSOLE_PEERS];
	uint64_t total;
	uint8_t ring[CONSOLE_RING];
	uint8_t input[CONSOLE_INPUT]; /* what the line does not take yet; nobody is read meanwhile */
	size_t ninput;
};

static void peer_ready(void *opaque, uint32_t events);

static void peer_close(struct peer *p)
{
	evloop_remove(p->source);
	close(p->fd);
	p->fd = -1;
}

/* False: it is gone. */
static bool peer_send(struct peer *p)
{
	struct console *k = p->console;

	if (k->total - p->at > CONSOLE_RING)
		p->at = k->total - CONSOLE_RING;
	while (p->at < k->total) {
		size_t first = (size_t)(p->at % CONSOLE_RING);
		size_t n = MIN((size_t)(k->total - p->at), CONSOLE_RING - first);
		ssize_t sent = send(p->fd, k->ring + first, n, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK;
		p->at += (uint64_t)sent;
	}
	return true;
}

static void peer_settle(struct peer *p)
{
	if (p->fd >= 0)
		evloop_modify(p->source, (p->at < p->console->total ? (uint32_t)EPOLLOUT : 0) |
						 (p->console->ninput ? 0 : (uint32_t)EPOLLIN));
}

static void line_settle(struct console *k)
{
	evloop_modify(k->line_source, (uint32_t)EPOLLIN | (k->ninput ? (uint32_t)EPOLLOUT : 0));
	for (unsigned i = 0; i < CONSOLE_PEERS; i++)
		peer_settle(&k->peers[i]);
}

/* ---- the log */

static void log_open_file(struct console *k)
{
	struct stat st;

	k->log = file_open_or_make(AT_FDCWD, k->log_path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (k->log >= 0 && (fstat(k->log, &st) || !S_ISREG(st.st_mode))) { /* a pipe would be waited for */
		cleanup_close(&k->log);
		k->log = -1;
		errno = EINVAL;
	}
	k->log_size = k->log >= 0 ? (uint64_t)st.st_size : 0;
}

/* Into the ring, as if the guest had just written it. */
static void log_recall(struct console *k)
{
	int fd _close_ = open(k->log_path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW | O_NONBLOCK);
	ssize_t n = fd < 0 ? -1 : pread(fd, k->ring, CONSOLE_RING, (off_t)(k->log_size - MIN(k->log_size, (uint64_t)CONSOLE_RING)));

	k->total = (uint64_t)MAX(n, (ssize_t)0);
}

static void log_append(struct console *k, const uint8_t *data, size_t n)
{
	if (k->log >= 0 && k->log_size > CONSOLE_LOG) {
		char old[4096];

		if (snprintf(old, sizeof(old), "%s.1", k->log_path) < (int)sizeof(old) && !rename(k->log_path, old)) {
			close(k->log);
			log_open_file(k);
		}
	}
	if (k->log >= 0 && write(k->log, data, n) != (ssize_t)n) {
		log_msg(LOG_WARN, "console", "cannot write %s: %s", k->log_path, strerror(errno));
		cleanup_close(&k->log); /* a full disk: the guest goes on without a log */
		k->log = -1;
	}
	k->log_size += n;
}

/* ---- the guest's side */

static bool line_read(struct console *k)
{
	uint8_t data[16384];
	ssize_t n = recv(k->line, data, sizeof(data), MSG_DONTWAIT);

	if (n <= 0)
		return false;
	log_append(k, data, (size_t)n);
	for (size_t done = 0; done < (size_t)n;) {
		size_t at = (size_t)(k->total % CONSOLE_RING), part = MIN((size_t)n - done, CONSOLE_RING - at);

		memcpy(k->ring + at, data + done, part);
		k->total += part;
		done += part;
	}
	for (unsigned i = 0; i < CONSOLE_PEERS; i++)
		if (k->peers[i].fd >= 0 && !peer_send(&k->peers[i]))
			peer_close(&k->peers[i]);
	return true;
}

static void line_write(struct console *k)
{
	ssize_t n = k->ninput ? send(k->line, k->input, k->ninput, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;

	if (n <= 0)
		return;
	k->ninput -= (size_t)n;
	memmove(k->input, k->input + n, k->ninput);
}

static void line_ready(void *opaque, uint32_t events)
{
	struct console *k = opaque;

	line_write(k);
	line_read(k);
	line_settle(k);
}

/* ---- the people's side */

static void peer_ready(void *opaque, uint32_t events)
{
	struct peer *p = opaque;
	struct console *k = p->console;
	bool gone = !peer_send(p);
	ssize_t n;

	if (!gone && !k->ninput && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		n = recv(p->fd, k->input, sizeof(k->input), MSG_DONTWAIT);
		gone = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
		k->ninput = n > 0 ? (size_t)n : 0;
		line_write(k);
		if (k->ninput)
			line_settle(k);
	} else if (events & (EPOLLHUP | EPOLLERR)) {
		gone = true;
	}
	if (gone)
		peer_close(p);
	else
		peer_settle(p);
}

static void console_accept(void *opaque, uint32_t events)
{
	struct console *k = opaque;
	int fd = evloop_accept(k->loop, k->listener);
	struct peer *p = NULL;
	struct err e;

	if (fd < 0)
		return;
	for (unsigned i = 0; i < CONSOLE_PEERS && !p; i++)
		if (k->peers[i].fd < 0)
			p = &k->peers[i];
	if (!p) {
		close(fd);
		return;
	}
	*p = (struct peer){ .console = k, .fd = fd };
	p->source = evloop_add(k->loop, fd, EPOLLIN, peer_ready, p, &e);
	if (!p->source) {
		close(fd);
		p->fd = -1;
		return;
	}
	if (peer_send(p))
		peer_settle(p);
	else
		peer_close(p);
}

/* ---- opening and closing */

static void console_free(struct console *k)
{
	for (unsigned i = 0; i < CONSOLE_PEERS; i++)
		if (k->peers[i].fd >= 0)
			peer_close(&k->peers[i]);
	evloop_remove(k->line_source);
	evloop_remove(k->listen_source);
	if (k->listener >= 0)
		unlink(k->path);
	cleanup_close(&k->listener);
	cleanup_close(&k->line);
	cleanup_close(&k->log);
	free(k->path);
	free(k->log_path);
	free(k);
}

static int console_start(struct console *k, const char *path, bool goes_on, struct err *e)
{
	k->path = strdup(path);
	if (!k->path || asprintf(&k->log_path, "%s.log", path) < 0) {
		k->log_path = NULL;
		return err_set(e, ENOMEM, "no memory for a console");
	}
	k->listener = chr_listen(path, e);
	if (k->listener < 0)
		return -EIO;
	log_open_file(k);
	if (k->log < 0)
		return err_errno(e, "cannot write %s", k->log_path);
	if (goes_on)
		log_recall(k);
	k->line_source = evloop_add(k->loop, k->line, EPOLLIN, line_ready, k, e);
	k->listen_source = k->line_source ? evloop_add(k->loop, k->listener, EPOLLIN, console_accept, k, e) : NULL;
	return k->listen_source ? 0 : -EIO;
}

int chr_open_console(struct chr *c, const char *path, struct err *e)
{
	struct console *k = calloc(1, sizeof(*k));
	int pair[2];

	if (!k)
		return err_set(e, ENOMEM, "no memory for a console");
	k->listener = k->line = k->log = -1;
	for (unsigned i = 0; i < CONSOLE_PEERS; i++)
		k->peers[i].fd = -1;
	k->loop = c->loop;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair)) {
		console_free(k);
		return err_errno(e, "cannot create a socket");
	}
	k->line = pair[1];
	c->in = pair[0];
	c->out = fcntl(pair[0], F_DUPFD_CLOEXEC, 0); /* epoll takes a descriptor only once */
	c->out_socket = true;
	if (c->out < 0 || console_start(k, path, c->config.goes_on, e)) {
		int r = c->out < 0 ? err_errno(e, "cannot duplicate a socket") : -EIO;

		cleanup_close(&c->out);
		close(pair[0]);
		console_free(k);
		return r;
	}
	c->console = k;
	return 0;
}

/* The loop has stopped. What the guest said last still gets to the log and, as far as they take it, to the readers. */
void chr_close_console(struct chr *c)
{
	while (line_read(c->console))
		;
	console_free(c->console);
	cleanup_close(&c->in);
	cleanup_close(&c->out);
}
