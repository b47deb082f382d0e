/* SPDX-License-Identifier: Apache-2.0 */
/* Connecting to a network's switch, and the questions asked of it. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "backend/net-client.h"
#include "base/base.h"
#include "base/clock.h"
#include "base/err.h"

#define SOCKET_BUFFER (4 << 20) /* the host may give less: net.core.wmem_max */

void net_client_address(int folder, struct sockaddr_un *at)
{
	memset(at, 0, sizeof(*at));
	at->sun_family = AF_UNIX;
	snprintf(at->sun_path, sizeof(at->sun_path), "/proc/self/fd/%d/" NET_CLIENT_SOCKET, folder);
}

static int await(int fd, struct err *e)
{
	const uint64_t end = clock_host_now() / 1000000 + NET_CLIENT_MS;
	struct pollfd p = { fd, POLLIN, 0 };
	int r;

	do { /* a timer may interrupt it again and again: each time less is left */
		uint64_t now = clock_host_now() / 1000000;

		r = poll(&p, 1, now < end ? (int)(end - now) : 0);
	} while (r < 0 && errno == EINTR);
	if (r < 0)
		return err_errno(e, "cannot wait for the switch");
	return r ? 0 : err_set(e, ETIMEDOUT, "the switch does not answer");
}

int net_client_dial(int folder, struct err *e)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), size = SOCKET_BUFFER;
	struct sockaddr_un at;

	net_client_address(folder, &at);
	if (fd < 0) {
		err_errno(e, "cannot make a socket");
		return -1;
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	if (connect(fd, (struct sockaddr *)&at, sizeof(at))) {
		err_errno(e, "cannot reach the switch");
		close(fd);
		return -1;
	}
	return fd;
}

int net_client_greet(int fd, const struct net_hello *hello, struct err *e)
{
	struct net_welcome w = { 0 };
	ssize_t n;

	if (send(fd, hello, sizeof(*hello), MSG_NOSIGNAL) != sizeof(*hello))
		return err_errno(e, "cannot reach the switch");
	if (await(fd, e))
		return -e->code;
	n = recv(fd, &w, sizeof(w), 0);
	if (n <= 0) /* it was just about to end */
		return err_set(e, ECONNREFUSED, "the switch has ended");
	if (n != sizeof(w) || w.magic != NET_WIRE_MAGIC || w.error < 0)
		return err_set(e, EPROTO, "the switch answers strangely; is it of another version?");
	w.text[sizeof(w.text) - 1] = 0;
	if (w.error)
		return err_set(e, w.error == ENOENT || w.error == ECONNREFUSED ? EIO : w.error, "%s", w.text);
	return 0;
}

int net_client_connect(int folder, const struct net_hello *hello, struct err *e)
{
	struct err own;
	int fd = net_client_dial(folder, e ? e : &own);

	if (fd >= 0 && net_client_greet(fd, hello, e ? e : &own)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

ssize_t net_client_ask(int fd, const char *question, char *answer, size_t size, struct err *e)
{
	ssize_t n;

	if (send(fd, question, strlen(question), MSG_NOSIGNAL) < 0)
		return err_errno(e, "cannot ask the switch");
	if (await(fd, e))
		return -e->code;
	n = recv(fd, answer, size - 1, 0);
	if (n <= 0)
		return err_set(e, EPIPE, "the switch has gone without an answer");
	answer[n] = 0;
	return n;
}
