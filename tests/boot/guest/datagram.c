/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UDP in a guest; static. usage: datagram echo PORT (for ever)
 *	datagram send ADDRESS PORT COUNT SIZE	COUNT datagrams, one at a time, each of which has to come back as it is
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#define SIZE_MAX_UDP 65507
#define TRIES 20

static int echo(int s, uint16_t port)
{
	struct sockaddr_in6 at = { .sin6_family = AF_INET6, .sin6_port = htons(port) }; /* and IPv4 */
	static char data[SIZE_MAX_UDP];

	if (bind(s, (struct sockaddr *)&at, sizeof(at)))
		return 1;
	puts("echoing");
	fflush(stdout);
	for (;;) {
		socklen_t len = sizeof(at);
		ssize_t n = recvfrom(s, data, sizeof(data), 0, (struct sockaddr *)&at, &len);

		if (n >= 0)
			sendto(s, data, (size_t)n, 0, (struct sockaddr *)&at, len);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in at = { .sin_family = AF_INET };
	struct timeval limit = { .tv_sec = 1 };
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	static char data[SIZE_MAX_UDP], back[SIZE_MAX_UDP];
	unsigned count, size, done = 0;

	if (argc == 3 && !strcmp(argv[1], "echo"))
		return echo(socket(AF_INET6, SOCK_DGRAM, 0), (uint16_t)atoi(argv[2]));
	if (argc != 6)
		return 2;
	at.sin_port = htons((uint16_t)atoi(argv[3]));
	count = (unsigned)atoi(argv[4]);
	size = (unsigned)atoi(argv[5]);
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (size > SIZE_MAX_UDP || inet_pton(AF_INET, argv[2], &at.sin_addr) != 1 ||
	    connect(s, (struct sockaddr *)&at, sizeof(at)))
		return 2;
	for (; done < count; done++) {
		unsigned tries = 0;

		for (unsigned i = 0; i < size; i++)
			data[i] = (char)(i * 7 + done);
		do { /* UDP may lose one */
			if (tries++ == TRIES || send(s, data, size, 0) < 0) {
				printf("BAD datagram %u is lost\n", done);
				return 1;
			}
		} while (recv(s, back, sizeof(back), 0) != (ssize_t)size || memcmp(data, back, size));
	}
	printf("datagrams %u of %u\n", done, size);
	return 0;
}
