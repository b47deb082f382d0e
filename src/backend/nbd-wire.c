/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses, sockets and errors of network block devices. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "backend/nbd.h"
#include "base/clock.h"

#define CONNECT_MS 10000u

/* One field up to ':'; the rest, or NULL when it does not fit. */
static const char *take_field(const char *text, char *out, size_t size)
{
	size_t n = strcspn(text, ":");

	if (*text == '[') { /* an IPv6 address */
		n = strcspn(++text, "]");
		if (text[n] != ']' || n >= size)
			return NULL;
		memcpy(out, text, n);
		out[n] = 0;
		text += n + 1;
		return *text == ':' ? text + 1 : text;
	}
	if (n >= size)
		return NULL;
	memcpy(out, text, n);
	out[n] = 0;
	return text[n] ? text + n + 1 : text + n;
}

int nbd_address_parse(struct nbd_address *a, const char *text, struct err *e)
{
	const char *at = text;

	*a = (struct nbd_address){ 0 };
	if (!strncmp(text, "unix:", 5)) {
		at = take_field(text + 5, a->path, sizeof(((struct sockaddr_un *)0)->sun_path));
	} else if (!strncmp(text, "tcp:", 4)) {
		a->tcp = true;
		at = take_field(text + 4, a->path, sizeof(a->path));
		if (at)
			at = take_field(at, a->port, sizeof(a->port));
		if (at && !a->port[0])
			at = NULL;
	} else {
		at = NULL;
	}
	if (!at || !a->path[0] || strlen(at) >= sizeof(a->name))
		return err_set(e, EINVAL, "'%.200s' is no address; write unix:PATH, unix:PATH:EXPORT or tcp:HOST:PORT:EXPORT", text);
	strcpy(a->name, at);
	return 0;
}

static void address_unix(const struct nbd_address *a, struct sockaddr_un *un)
{
	*un = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(un->sun_path, a->path, strlen(a->path));
}

/* Whatever interrupts it. */
static int connect_within(int fd, const struct addrinfo *to, uint64_t ms)
{
	const uint64_t end = clock_host_now() / 1000000 + ms;
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	int r, code = 0;
	socklen_t len = sizeof(code);

	if (fcntl(fd, F_SETFL, O_NONBLOCK))
		return -1;
	if (connect(fd, to->ai_addr, to->ai_addrlen) && errno != EINPROGRESS)
		return -1;
	do {
		uint64_t now = clock_host_now() / 1000000;

		r = poll(&p, 1, now < end ? (int)(end - now) : 0);
	} while (r < 0 && errno == EINTR);
	if (!r)
		errno = ETIMEDOUT;
	if (r <= 0 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len))
		return -1;
	errno = code;
	return code ? -1 : fcntl(fd, F_SETFL, 0);
}

static int tcp_socket(const struct nbd_address *a, bool server, struct err *e)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = server ? AI_PASSIVE : 0 }, *list = NULL;
	int r = getaddrinfo(a->path, a->port, &hints, &list), fd = -1, one = 1;

	if (r)
		return err_set(e, EHOSTUNREACH, "%.200s:%s: %s", a->path, a->port, gai_strerror(r));
	for (struct addrinfo *i = list; i && fd < 0; i = i->ai_next) {
		fd = socket(i->ai_family, SOCK_STREAM | SOCK_CLOEXEC, i->ai_protocol);
		if (fd < 0)
			continue;
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (server ? bind(fd, i->ai_addr, i->ai_addrlen) || listen(fd, 16) : connect_within(fd, i, CONNECT_MS)) {
			r = errno;
			close(fd);
			fd = -1;
			errno = r;
		}
	}
	freeaddrinfo(list);
	if (fd < 0)
		return err_errno(e, "cannot %s %.200s:%s", server ? "listen on" : "connect to", a->path, a->port);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	return fd;
}

int nbd_connect(const struct nbd_address *a, struct err *e)
{
	struct sockaddr_un un;
	int fd;

	if (a->tcp)
		return tcp_socket(a, false, e);
	address_unix(a, &un);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&un, sizeof(un))) {
		int r = err_errno(e, "cannot connect to %s", a->path);

		if (fd >= 0)
			close(fd);
		return r;
	}
	return fd;
}

int nbd_listen(const struct nbd_address *a, struct err *e)
{
	struct sockaddr_un un;
	int fd, probe, r;

	if (a->tcp)
		return tcp_socket(a, true, e);
	address_unix(a, &un);
	/* a socket nobody listens on is left over from one that died */
	probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (probe >= 0 && connect(probe, (struct sockaddr *)&un, sizeof(un)) && errno == ECONNREFUSED) {
		struct stat st;

		if (!lstat(a->path, &st) && S_ISSOCK(st.st_mode))
			unlink(a->path);
	}
	if (probe >= 0)
		close(probe);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_errno(e, "cannot create a socket");
	if (fchmod(fd, 0600) || bind(fd, (struct sockaddr *)&un, sizeof(un)) || listen(fd, 16)) {
		r = err_errno(e, "cannot listen on %s", a->path);
		close(fd);
		return r;
	}
	return fd;
}

/* A signal lets SO_RCVTIMEO begin anew: a timer that fires often would have us wait for ever. */
static bool may_wait(int fd, uint64_t since)
{
	struct timeval limit = { 0 };
	socklen_t len = sizeof(limit);
	uint64_t ns;

	if (getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, &len))
		return false;
	ns = (uint64_t)limit.tv_sec * 1000000000 + (uint64_t)limit.tv_usec * 1000;
	return !ns || clock_host_now() - since < ns;
}

int nbd_read(int fd, void *buf, size_t n)
{
	const uint64_t since = clock_host_now();
	uint8_t *at = buf;

	while (n) {
		ssize_t r = recv(fd, at, n, 0);

		if (r < 0 && errno == EINTR && may_wait(fd, since))
			continue;
		if (r <= 0)
			return r ? -errno : -EPIPE;
		at += r;
		n -= (size_t)r;
	}
	return 0;
}

int nbd_write(int fd, const struct iovec *from, unsigned n)
{
	struct iovec iov[64];
	uint64_t total = iov_length(from, n), done = 0;

	while (done < total) {
		struct msghdr m = { .msg_iov = iov };
		uint64_t skip = done;
		unsigned first = 0;
		ssize_t r;

		for (; first < n && skip >= from[first].iov_len; first++)
			skip -= from[first].iov_len;
		for (; first < n && m.msg_iovlen < ARRAY_LEN(iov); first++) {
			if (from[first].iov_len)
				iov[m.msg_iovlen++] =
					(struct iovec){ (uint8_t *)from[first].iov_base + skip, from[first].iov_len - skip };
			skip = 0;
		}
		r = sendmsg(fd, &m, MSG_NOSIGNAL);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		done += (uint64_t)r;
	}
	return 0;
}

int nbd_skip(int fd, uint64_t n)
{
	uint8_t buf[4096];

	while (n) {
		size_t part = MIN(n, sizeof(buf));
		int r = nbd_read(fd, buf, part);

		if (r)
			return r;
		n -= part;
	}
	return 0;
}

/* The protocol's numbers are Linux's, for those it has. */
int nbd_error_to_host(uint32_t error)
{
	switch (error) {
	case 0:
	case EPERM:
	case ENOMEM:
	case EINVAL:
	case ENOSPC:
	case EOVERFLOW:
	case EOPNOTSUPP:
		return -(int)error;
	default:
		return -EIO;
	}
}

uint32_t nbd_error_from_host(int error)
{
	switch (error) {
	case -EROFS:
		return EPERM;
	case -EDQUOT:
	case -EFBIG:
		return ENOSPC;
	default:
		return (uint32_t)-nbd_error_to_host((uint32_t)-error);
	}
}
