/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP in a guest, for bench/net; static. usage: traffic ADDRESS PORT WHAT N, with bench/net's server at the other end. WHAT:
 *	up	N MiB to the server, until it has them all
 *	down	N MiB from it
 *	rr	N bytes there and back, one at a time
 *	connect	N connections, one after another, a byte there and back on each
 * Prints "traffic WHAT N NANOSECONDS".
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PIECE 65536

static struct sockaddr_in server = { .sin_family = AF_INET };

/* The first byte says what is to be done. */
static int dial(char what)
{
	int s = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	if (s < 0 || connect(s, (struct sockaddr *)&server, sizeof(server)) ||
	    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) || write(s, &what, 1) != 1)
		exit(printf("BAD connection\n") ? 1 : 1);
	return s;
}

static void bulk(char what, uint64_t size)
{
	static char piece[PIECE];
	int s = dial(what);

	if (what == 'd' && write(s, &size, sizeof(size)) != sizeof(size))
		exit(1);
	while (size) {
		ssize_t n = what == 'u' ? write(s, piece, size < PIECE ? size : PIECE) : read(s, piece, PIECE);

		if (n <= 0)
			exit(printf("BAD transfer\n") ? 1 : 1);
		size -= (uint64_t)n;
	}
	if (what == 'u') {
		shutdown(s, SHUT_WR);
		if (read(s, piece, 1) != 1)
			exit(printf("BAD end\n") ? 1 : 1);
	}
	close(s);
}

static void back_and_forth(uint64_t n, int each)
{
	int s = each ? -1 : dial('r');
	char byte = 'x';

	while (n--) {
		if (each)
			s = dial('r');
		if (write(s, &byte, 1) != 1 || read(s, &byte, 1) != 1)
			exit(printf("BAD answer\n") ? 1 : 1);
		if (each)
			close(s);
	}
}

int main(int argc, char **argv)
{
	struct timespec a, b;
	uint64_t n;

	if (argc != 5 || inet_pton(AF_INET, argv[1], &server.sin_addr) != 1)
		return 2;
	server.sin_port = htons((uint16_t)atoi(argv[2]));
	n = strtoull(argv[4], NULL, 10);
	clock_gettime(CLOCK_MONOTONIC, &a);
	if (argv[3][0] == 'u' || argv[3][0] == 'd')
		bulk(argv[3][0], n << 20);
	else
		back_and_forth(n, argv[3][0] == 'c');
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("traffic %s %s %lld\n", argv[3], argv[4], (b.tv_sec - a.tv_sec) * 1000000000ll + b.tv_nsec - a.tv_nsec);
	return 0;
}
