/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile guest on the user network: the input is a list of steps, each a head of eight bytes and a frame made of what follows it, raw
 * or with headers in front of it that let it get somewhere (ARP, DHCP, UDP, TCP, ICMP; checksums right), with any unfinished work
 * asked for. The card takes what it pleases and is full at times. In a network namespace of its own, where nothing leads anywhere.
 */
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "backend/net.h"
#include "base/base.h"
#include "base/err.h"
#include "base/evloop.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define STEPS 64u
#define HEAD 8u
#define PAYLOAD 600u

static struct evloop *loop;

enum kind { RAW, ARP, UDP4, TCP4, ICMP4, UDP6, TCP6, ICMP6 };

struct card {
	struct net_link *link;
	bool full;
	unsigned sum;
};

static enum net_result card_receive(void *opaque, const struct net_wire *w, const struct iovec *iov, unsigned n, size_t len)
{
	struct card *c = opaque;
	unsigned sum = 0;

	if (__atomic_load_n(&c->full, __ATOMIC_RELAXED))
		return NET_BUSY;
	for (unsigned i = 0; i < n; i++)
		for (size_t k = 0; k < iov[i].iov_len; k++)
			sum += ((const uint8_t *)iov[i].iov_base)[k];
	CHECK(net_wire_fits(w, len));
	__atomic_fetch_add(&c->sum, sum, __ATOMIC_RELAXED);
	return NET_DONE;
}

static const struct net_card_ops card_ops = { .receive = card_receive };

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct ifreq r = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd;

	/* without one the guest's packets would leave this host */
	if (unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET)) {
		fprintf(stderr, "no network namespace of our own here: nothing is done\n");
		exit(0);
	}
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	CHECK(fd >= 0 && !ioctl(fd, SIOCSIFFLAGS, &r));
	close(fd);
	loop = evloop_create(NULL);
	CHECK(loop && !evloop_start(loop, NULL));
	return 0;
}

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put_sum(uint8_t *at, uint32_t sum)
{
	uint16_t v = (uint16_t)~net_fold(sum);

	memcpy(at, &v, 2);
}

/* The transport's header from the head's bytes; its length. */
static size_t transport(uint8_t *p, enum kind k, const uint8_t *head, size_t payload)
{
	static const uint16_t ports[] = { 67, 53, 80, 69, 7, 547, 9, 1 };
	bool udp = k == UDP4 || k == UDP6, tcp = k == TCP4 || k == TCP6;

	if (!udp && !tcp) {
		p[0] = head[2];
		p[1] = head[3] & 7;
		return 4;
	}
	put16(p, head[3] & 1 ? 68 : 1024u + head[3]);
	put16(p + 2, ports[head[2] & 7]);
	if (udp) {
		put16(p + 4, (unsigned)(8 + payload));
		return 8;
	}
	p[7] = head[3]; /* sequence numbers close to each other */
	p[11] = head[2];
	p[12] = (uint8_t)(0x50 + (head[2] & 8 ? 0x10 : 0));
	p[13] = head[1];
	put16(p + 14, head[3] * 256u);
	return 20;
}

/* A frame with right lengths and checksums; *l4: where its transport's header is. */
static size_t frame_make(uint8_t *f, const uint8_t *head, const uint8_t *payload, size_t n, size_t *l4)
{
	static const uint8_t protocol[] = { 0, 0, 17, 6, 1, 17, 6, 58 };
	static const uint8_t prefix[] = { 0xfd, 0x6f, 0x73, 0x70, 0x69, 0x74, 0, 2 };
	enum kind k = head[0] & 7;
	bool v4 = k < UDP6;
	size_t ip = NET_HEADER, len;
	uint32_t sum;

	memset(f, 0, 128);
	memcpy(f, (uint8_t[]){ 0x52, 0x55, 10, 0, 2, 2, 0x52, 0x54, 0, 1, 2, 3 }, 12);
	put16(f + 12, k == ARP ? 0x806 : v4 ? 0x800 : 0x86dd);
	if (k == RAW || k == ARP) {
		if (k == ARP)
			memcpy(f + ip, (uint8_t[]){ 0, 1, 8, 0, 6, 4, 0, (uint8_t)(1 + (head[1] & 1)) }, 8);
		len = k == ARP ? ip + 8 : 12;
		memcpy(f + len, payload, n);
		return len + n;
	}
	*l4 = ip + (v4 ? 20 : 40);
	len = *l4 + transport(f + *l4, k, head, n);
	memcpy(f + len, payload, n);
	len += n;
	if (v4) {
		f[ip] = 0x45;
		put16(f + ip + 2, (unsigned)(len - ip));
		put16(f + ip + 6, head[0] & 0x40 ? head[7] * 64u : 0); /* fragments */
		f[ip + 8] = head[0] & 0x80 ? 1 : 64;
		f[ip + 9] = protocol[k];
		memcpy(f + ip + 12, (uint8_t[]){ 10, 0, 2, 15, 10, 0, 2, (uint8_t)(head[7] & 3 ? head[7] & 3 : 255) }, 8);
		put_sum(f + ip + 10, net_sum(0, f + ip, 20));
		sum = net_sum(0, f + ip + 12, 8);
	} else {
		f[ip] = 0x60;
		put16(f + ip + 4, (unsigned)(len - *l4));
		f[ip + 6] = protocol[k];
		f[ip + 7] = 255;
		memcpy(f + ip + 8, prefix, 8);
		memcpy(f + ip + 24, prefix, 8);
		f[ip + 23] = 0x15;
		f[ip + 39] = head[7] & 3;
		sum = net_sum(0, f + ip + 8, 32);
	}
	if (k != ICMP4)
		sum = net_sum(sum, (uint8_t[4]){ 0, protocol[k], (uint8_t)((len - *l4) >> 8), (uint8_t)(len - *l4) }, 4);
	else
		sum = 0;
	put_sum(f + *l4 + (protocol[k] == 17 ? 6 : protocol[k] == 6 ? 16 : 2), net_sum(sum, f + *l4, len - *l4));
	return len;
}

static void wire_make(struct net_wire *w, const uint8_t *head, size_t l4)
{
	*w = (struct net_wire){ .flags = head[4] & 7, .gso = (uint8_t)(head[4] >> 3 & 3), .gso_size = (uint16_t)(head[5] * 16) };
	w->csum_start = (uint16_t)(head[4] & 0x80 ? head[6] : l4);
	w->csum_offset = head[4] & 0x40 ? head[6] & 63u : 16;
	w->hdr_len = (uint16_t)(head[4] & 0x20 ? head[6] * 4 : 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t frame[NET_WIRE_FRAME];
	struct net_forward forward = { .v6 = true, .port = 4711, .guest_port = 7, .host = { [15] = 1 } };
	struct net_config config = { .kind = NET_USER, .mac = { 0x52, 0x54, 0, 1, 2, 3 }, .machine = "fuzz", .forward = &forward, .nforwards = 1 };
	struct card c = { 0 };

	if (!size)
		return 0;
	c.link = net_open(loop, &config, NULL);
	if (!c.link)
		return 0; /* the port of the one before is still there */
	net_attach(c.link, &card_ops, &c);
	net_card_takes(c.link, data[0] & 31);
	data++;
	size--;
	for (unsigned i = 0; i < STEPS && size >= HEAD; i++) {
		size_t n = MIN(size - HEAD, (size_t)(data[1] & 0x3f) * 10), l4 = 34, len = frame_make(frame, data, data + HEAD, MIN(n, (size_t)PAYLOAD), &l4);
		struct iovec iov[2] = { { frame, len / 2 }, { frame + len / 2, len - len / 2 } };
		struct net_wire w;

		wire_make(&w, data, l4);
		if (data[0] & 0x20)
			__atomic_store_n(&c.full, data[0] & 0x10, __ATOMIC_RELAXED);
		net_send(c.link, &w, iov, 2);
		if (data[0] & 8)
			net_deliver(c.link, &w, iov, 2);
		net_sent(c.link);
		if (data[0] & 0x20)
			net_ready(c.link);
		data += HEAD + n;
		size -= HEAD + n;
	}
	net_close(c.link);
	return 0;
}
