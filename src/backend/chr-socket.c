/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A serial line on a listening UNIX socket: one peer at a time, which may go and come back. The socket is the owner's alone. One
 * left behind by a dead process is recognised by connecting to it, never removed while somebody listens.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "backend/chr-private.h"

void chr_socket_close(struct chr *c)
{
	int fd = c->in_fd;

	pthread_mutex_lock(&c->write_lock);
	c->out_fd = -1;
	c->in_fd = -1;
	pthread_mutex_unlock(&c->write_lock);
	if (fd >= 0)
		close(fd);
}

static void on_connection(void *opaque, uint32_t events)
{
	struct chr *c = opaque;
	int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	if (c->in_fd >= 0) { /* the line is taken */
		close(fd);
		return;
	}
	c->held = 0;
	if (chr_watch_input(c, fd, NULL)) {
		c->in_fd = -1;
		close(fd);
		return;
	}
	pthread_mutex_lock(&c->write_lock);
	c->out_fd = fd;
	pthread_mutex_unlock(&c->write_lock);
}

/* Is somebody listening there? */
static bool in_use(const struct sockaddr_un *a)
{
	int fd _close_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return fd >= 0 && connect(fd, (const struct sockaddr *)a, sizeof(*a)) == 0;
}

int chr_socket_open(struct chr *c, const char *path, struct err *e)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct stat st;
	mode_t mask;
	int r;

	if (strlen(path) >= sizeof(a.sun_path))
		return err_set(e, ENAMETOOLONG, "socket path %s is longer than %zu bytes", path, sizeof(a.sun_path) - 1);
	strcpy(a.sun_path, path);
	if (lstat(path, &st) == 0) {
		if (!S_ISSOCK(st.st_mode))
			return err_set(e, EEXIST, "%s exists and is not a socket", path);
		if (in_use(&a))
			return err_set(e, EADDRINUSE, "socket %s is in use by another process", path);
		unlink(path);
	}
	c->socket_path = strdup(path);
	if (!c->socket_path)
		return err_set(e, ENOMEM, "no memory for a serial line");
	c->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->listen_fd < 0)
		return err_errno(e, "socket %s", path);
	mask = umask(0177);
	r = bind(c->listen_fd, (struct sockaddr *)&a, sizeof(a));
	umask(mask);
	if (r < 0 || listen(c->listen_fd, 4) < 0) {
		r = err_errno(e, "socket %s", path);
		close(c->listen_fd);
		c->listen_fd = -1; /* not ours to remove */
		return r;
	}
	c->listener = evloop_add(c->loop, c->listen_fd, EPOLLIN, on_connection, c, e);
	return c->listener ? 0 : -EIO;
}
