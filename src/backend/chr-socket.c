/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A listening UNIX socket, for its owner alone. One peer at a time, any number one after another; what the guest
 * sends while nobody is connected is lost, as on a cable that is not plugged in. A socket file left by a process that
 * has died is replaced, one somebody listens on is not.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/err.h"
#include "backend/private.h"

void chr_socket_gone(struct chr *c)
{
	int fd = c->in;

	chr_set_output(c, -1);
	chr_set_input(c, -1);
	if (fd >= 0)
		close(fd);
	cleanup_close(&c->peer_out);
	c->peer_out = -1;
}

static void socket_accept(void *opaque, uint32_t events)
{
	struct chr *c = opaque;
	int fd = evloop_accept(c->loop, c->listener);

	if (fd < 0)
		return;
	/* one that hung up while its input was held back has not been noticed yet */
	if (c->in >= 0) {
		char probe;
		ssize_t r = recv(c->in, &probe, 1, MSG_PEEK | MSG_DONTWAIT);

		if (r > 0 || (r < 0 && (errno == EAGAIN || errno == EINTR))) {
			close(fd);
			return;
		}
		chr_socket_gone(c);
	}
	c->peer_out = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (c->peer_out < 0) {
		close(fd);
		return;
	}
	chr_set_input(c, fd);
	chr_set_output(c, c->peer_out);
	chr_post(c);
}

/* Is there a socket nobody listens on? Then it goes. */
static int remove_stale(const struct sockaddr_un *at, struct err *e)
{
	int fd _close_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat st;

	if (lstat(at->sun_path, &st))
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, EEXIST, "%s exists and is not a socket", at->sun_path);
	if (fd < 0)
		return err_errno(e, "cannot create a socket");
	if (!connect(fd, (const struct sockaddr *)at, sizeof(*at)) || errno != ECONNREFUSED)
		return err_set(e, EADDRINUSE, "%s is in use", at->sun_path);
	if (unlink(at->sun_path) && errno != ENOENT)
		return err_errno(e, "cannot replace %s", at->sun_path);
	return 0;
}

int chr_listen(const char *path, struct err *e)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof(at.sun_path)) {
		err_set(e, ENAMETOOLONG, "the path of a socket has at most %zu characters", sizeof(at.sun_path) - 1);
		return -1;
	}
	memcpy(at.sun_path, path, strlen(path));
	if (remove_stale(&at, e))
		return -1;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		err_errno(e, "cannot create a socket");
		return -1;
	}
	/* the mode of the descriptor is that of the file bind makes, so it is never open to others */
	if (fchmod(fd, 0600) || bind(fd, (const struct sockaddr *)&at, sizeof(at))) {
		err_errno(e, "cannot listen on %s", path);
		close(fd);
		return -1;
	}
	if (listen(fd, 16)) {
		err_errno(e, "cannot listen on %s", path);
		unlink(path);
		close(fd);
		return -1;
	}
	return fd;
}

int chr_open_socket(struct chr *c, const char *path, struct err *e)
{
	int r;

	c->listener = chr_listen(path, e);
	if (c->listener < 0)
		return e && e->code ? -e->code : -EIO;
	c->out_socket = true;
	c->path = strdup(path);
	if (c->path)
		c->listen_source = evloop_add(c->loop, c->listener, EPOLLIN, socket_accept, c, e);
	if (!c->listen_source) {
		r = c->path ? (e ? -e->code : -EIO) : err_set(e, ENOMEM, "no memory for a socket");
		unlink(path);
		close(c->listener);
		free(c->path);
		return r;
	}
	return 0;
}

void chr_close_socket(struct chr *c)
{
	evloop_remove(c->listen_source);
	if (c->in >= 0)
		close(c->in);
	cleanup_close(&c->peer_out);
	close(c->listener);
	unlink(c->path);
	free(c->path);
}
