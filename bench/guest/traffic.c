/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP for bench/net; static, for guests and for the host. usage: traffic serve PORT, or traffic ADDRESS PORT WHAT N with a server at
 * the other end, which sends back what it gets. WHAT:
 *	rr	N bytes there and back, one at a time
 *	connect	N connections, one after another, a byte there and back on each
 *	many	N bytes there and back, one underway on each of 100 connections
 * Prints "traffic WHAT N NANOSECONDS"; the server "traffic serving" once it listens.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MANY 100u
#define EVENTS 64

static _Noreturn void die(const char *what)
{
	printf("BAD %s\n", what);
	exit(1);
}

static void no_delay(int s)
{
	int one = 1;

	setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static void watch(int epoll, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.fd = fd };

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev))
		die("epoll");
}

static int serve(const struct sockaddr_in *at)
{
	int listener = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0), one = 1;
	struct epoll_event ev[EVENTS];
	char piece[4096];

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (const struct sockaddr *)at, sizeof(*at)) || listen(listener, 256))
		die("listen");
	watch(epoll, listener);
	printf("traffic serving\n");
	fflush(stdout);
	for (;;) {
		int n = epoll_wait(epoll, ev, EVENTS, -1);

		for (int i = 0; i < n; i++) {
			int fd = ev[i].data.fd, s = -1;
			ssize_t got;

			if (fd == listener) {
				s = accept(listener, NULL, NULL);
				if (s >= 0) {
					no_delay(s);
					watch(epoll, s);
				}
				continue;
			}
			got = read(fd, piece, sizeof(piece));
			if (got <= 0 || write(fd, piece, (size_t)got) != got)
				close(fd);
		}
	}
}

static int dial(const struct sockaddr_in *server)
{
	int s = socket(AF_INET, SOCK_STREAM, 0);

	if (s < 0 || connect(s, (const struct sockaddr *)server, sizeof(*server)))
		die("connection");
	no_delay(s);
	return s;
}

static void back_and_forth(const struct sockaddr_in *server, uint64_t n, int each)
{
	int s = each ? -1 : dial(server);
	char byte = 'x';

	while (n--) {
		if (each)
			s = dial(server);
		if (write(s, &byte, 1) != 1 || read(s, &byte, 1) != 1)
			die("answer");
		if (each)
			close(s);
	}
}

static void many(int epoll, uint64_t n)
{
	struct epoll_event ev[EVENTS];
	char byte = 'x';

	while (n) {
		int got = epoll_wait(epoll, ev, EVENTS, -1);

		for (int i = 0; i < got && n; i++, n--)
			if (read(ev[i].data.fd, &byte, 1) != 1 || write(ev[i].data.fd, &byte, 1) != 1)
				die("answer");
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in server = { .sin_family = AF_INET };
	struct timespec a, b;
	int epoll = epoll_create1(0);
	uint64_t n;

	server.sin_port = htons((uint16_t)atoi(argc > 2 ? argv[2] : "0"));
	if (argc == 3 && !strcmp(argv[1], "serve"))
		return serve(&server);
	if (argc != 5 || inet_pton(AF_INET, argv[1], &server.sin_addr) != 1)
		return 2;
	n = strtoull(argv[4], NULL, 10);
	for (unsigned i = 0; i < MANY && argv[3][0] == 'm'; i++) {
		int s = dial(&server);

		watch(epoll, s);
		if (write(s, "x", 1) != 1)
			die("answer");
	}
	clock_gettime(CLOCK_MONOTONIC, &a);
	if (argv[3][0] == 'm')
		many(epoll, n);
	else
		back_and_forth(&server, n, argv[3][0] == 'c');
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("traffic %s %s %lld\n", argv[3], argv[4], (b.tv_sec - a.tv_sec) * 1000000000ll + b.tv_nsec - a.tv_nsec);
	return 0;
}
