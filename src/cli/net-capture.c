/* SPDX-License-Identifier: Apache-2.0 */
/* ospite net capture: what a switch passes, into a file that tcpdump and Wireshark read (pcap, nanoseconds). */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "backend/net-client.h"
#include "cli/net.h"

#define PCAP_MAGIC 0xa1b23c4du /* of files with nanoseconds */
#define ETHERNET 1
#define LONGEST 262144u

/* The index of a port, given by number or by its machine's name. */
static int find_port(int folder, const char *port, struct err *e)
{
	int fd _close_ = network_connect(folder, e), found = -1;
	uint64_t number = UINT64_MAX;
	json_t *all, *one;
	size_t i;

	if (fd < 0)
		return fd;
	if (isdigit((unsigned char)*port))
		parse_number(port, 0, 65535, &number, NULL);
	all = network_show(fd, e);
	if (!all)
		return -e->code;
	json_array_foreach(json_object_get(all, "ports"), i, one) {
		json_int_t index = json_integer_value(json_object_get(one, "port"));

		if (!strcmp(json_string_value(json_object_get(one, "name")) ?: "", port) || (uint64_t)index == number)
			found = (int)index;
	}
	json_decref(all);
	return found >= 0 ? found : err_set(e, ESRCH, "no port '%.60s' on this network; 'ospite net show' lists them", port);
}

static void put32(FILE *f, uint32_t v)
{
	fwrite(&v, sizeof(v), 1, f);
}

static void write_frame(FILE *f, const struct net_captured *h, const uint8_t *frame, uint32_t n)
{
	put32(f, (uint32_t)(h->time / 1000000000u));
	put32(f, (uint32_t)(h->time % 1000000000u));
	put32(f, n);
	put32(f, h->length);
	fwrite(frame, n, 1, f);
}

static int record(int fd, FILE *f, uint64_t count, bool quiet, struct err *e)
{
	uint8_t *m _free_ = malloc(sizeof(struct net_captured) + LONGEST);
	struct net_captured h;
	uint64_t frames = 0, lost = 0;
	ssize_t n;

	if (!m)
		return err_set(e, ENOMEM, "no memory for frames");
	put32(f, PCAP_MAGIC);
	put32(f, 4u << 16 | 2);
	put32(f, 0);
	put32(f, 0);
	put32(f, LONGEST);
	put32(f, ETHERNET);
	while (frames < count && !ferror(f)) {
		struct pollfd p = { fd, POLLIN, 0 };

		n = recv(fd, m, sizeof(h) + LONGEST, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			fflush(f);
			poll(&p, 1, -1);
			continue;
		}
		if (n < (ssize_t)sizeof(h))
			break; /* the network has ended */
		memcpy(&h, m, sizeof(h));
		lost += h.lost;
		write_frame(f, &h, m + sizeof(h), (uint32_t)(n - (ssize_t)sizeof(h)));
		frames++;
	}
	if (fflush(f) || ferror(f))
		return err_errno(e, "cannot write the capture");
	if (!quiet)
		fprintf(stderr, "%llu frames, %llu lost\n", (unsigned long long)frames, (unsigned long long)lost);
	return 0;
}

int net_capture(int folder, const char *port, const char *file, uint64_t count, bool quiet, struct err *e)
{
	struct net_hello h = { .magic = NET_WIRE_MAGIC, .kind = NET_HELLO_CAPTURE, .capture_port = -1, .name = "capture" };
	bool out = !strcmp(file, "-");
	int fd _close_ = -1, r;
	FILE *f;

	if (out && isatty(STDOUT_FILENO))
		return err_set(e, EINVAL, "a capture is not for a terminal: name a file, or pipe it: ospite net capture NAME - | tcpdump -r -");
	if (port) {
		h.capture_port = find_port(folder, port, e);
		if (h.capture_port < 0)
			return h.capture_port;
	}
	fd = net_client_connect(folder, &h, e);
	if (fd < 0)
		return -e->code;
	f = out ? stdout : fopen(file, "we");
	if (!f)
		return err_errno(e, "cannot write %.200s", file);
	r = record(fd, f, count, quiet, e);
	if (!out && fclose(f) && !r)
		r = err_errno(e, "cannot write %.200s", file);
	return r;
}
