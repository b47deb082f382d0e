/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams between guest and host, for the stock kernel's vsock driver; static. usage: sockets WHAT
 *	bulk MIB		to port 7000 of the host and back, every byte compared, both directions at once
 *	many N			N connections at once to port 7000, a few bytes each way
 *	nobody			port 7001, where nobody listens
 *	serve N			N connections on port 5000, one after another: what comes goes back, until the client ends its half
 *	hold			a connection to port 7000 that stays; says when it ends, and how
 */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

#define HOST_PORT 7000
#define PIECE 65536u

static int die(const char *what)
{
	printf("BAD %s: %s\n", what, strerror(errno));
	exit(1);
}

static int dial(unsigned port)
{
	struct sockaddr_vm at = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = port };
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (fd < 0)
		die("socket");
	if (connect(fd, (struct sockaddr *)&at, sizeof(at))) {
		close(fd);
		return -1;
	}
	return fd;
}

static uint8_t pattern(uint64_t at)
{
	return (uint8_t)(at * 167 + (at >> 8) * 13 + (at >> 16));
}

static void bulk(uint64_t size)
{
	static uint8_t out[PIECE], in[PIECE];
	uint64_t sent = 0, got = 0;
	int fd = dial(HOST_PORT);

	if (fd < 0)
		die("connect");
	while (got < size) {
		struct pollfd p = { fd, (short)(POLLIN | (sent < size ? POLLOUT : 0)), 0 };

		if (poll(&p, 1, 60000) <= 0)
			die("poll");
		if (p.revents & POLLOUT && sent < size) {
			size_t n = size - sent < PIECE ? (size_t)(size - sent) : PIECE;
			ssize_t r;

			for (size_t i = 0; i < n; i++)
				out[i] = pattern(sent + i);
			r = send(fd, out, n, MSG_DONTWAIT);
			if (r < 0 && errno != EAGAIN)
				die("send");
			sent += r > 0 ? (uint64_t)r : 0;
			if (sent == size)
				shutdown(fd, SHUT_WR);
		}
		if (p.revents & (POLLIN | POLLHUP)) {
			ssize_t r = recv(fd, in, PIECE, MSG_DONTWAIT);

			if (r == 0 || (r < 0 && errno != EAGAIN))
				die("recv");
			for (ssize_t i = 0; i < r; i++)
				if (in[i] != pattern(got + (uint64_t)i))
					die("a byte is another");
			got += r > 0 ? (uint64_t)r : 0;
		}
	}
	if (recv(fd, in, 1, 0) != 0)
		die("more than was sent");
	printf("bulk %llu bytes\n", (unsigned long long)got);
	close(fd);
}

static void many(unsigned n)
{
	int *fd = calloc(n, sizeof(*fd));
	char text[32], back[32];

	for (unsigned i = 0; i < n; i++)
		if ((fd[i] = dial(HOST_PORT)) < 0)
			die("connect");
	for (unsigned i = 0; i < n; i++) {
		int len = snprintf(text, sizeof(text), "connection %u", i);

		if (send(fd[i], text, (size_t)len, 0) != len)
			die("send");
	}
	for (unsigned i = n; i--;) {
		int len = snprintf(text, sizeof(text), "connection %u", i);

		if (recv(fd[i], back, (size_t)len, MSG_WAITALL) != len || memcmp(text, back, (size_t)len))
			die("recv");
		close(fd[i]);
	}
	printf("many %u\n", n);
}

static void serve(unsigned n)
{
	struct sockaddr_vm at = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = 5000 };
	static uint8_t piece[PIECE];
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) || listen(fd, 16))
		die("listen");
	printf("serving\n");
	fflush(stdout);
	while (n--) {
		int peer = accept(fd, NULL, NULL);
		ssize_t r;

		if (peer < 0)
			die("accept");
		while ((r = recv(peer, piece, sizeof(piece), 0)) > 0)
			if (send(peer, piece, (size_t)r, 0) != r)
				die("send back");
		if (r < 0)
			die("recv");
		close(peer);
	}
	printf("served\n");
}

static void hold(void)
{
	int fd = dial(HOST_PORT);
	char byte;
	ssize_t r;

	if (fd < 0)
		die("connect");
	printf("holding\n");
	fflush(stdout);
	r = recv(fd, &byte, 1, 0);
	printf("held %d %s\n", (int)r, r < 0 ? strerror(errno) : "");
}

int main(int argc, char **argv)
{
	unsigned n = argc > 2 ? (unsigned)atoi(argv[2]) : 0;

	if (argc < 2)
		return 2;
	if (!strcmp(argv[1], "bulk"))
		bulk((uint64_t)n << 20);
	else if (!strcmp(argv[1], "many"))
		many(n);
	else if (!strcmp(argv[1], "serve"))
		serve(n);
	else if (!strcmp(argv[1], "hold"))
		hold();
	else if (!strcmp(argv[1], "nobody"))
		printf(dial(7001) < 0 && errno == ECONNRESET ? "nobody there\n" : "BAD nobody\n");
	fflush(stdout);
	return 0;
}
