/* SPDX-License-Identifier: Apache-2.0 */
/* The user network with real sockets on loopback: many callers of a forward, and a guest's connection by hand. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <cmocka.h>
#include "backend/net.h"
#include "base/err.h"
#include "base/evloop.h"

/* ---- forwards */

static unsigned sockets_open(bool listening, int *one)
{
	socklen_t len = sizeof(int);
	unsigned n = 0;

	for (int fd = 3; fd < 1024; fd++) {
		int yes = 0;

		if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &yes, &len) || (yes != 0) != listening)
			continue;
		*one = fd;
		n++;
	}
	return n;
}

static enum net_result user_receive(void *opaque, const struct net_wire *w, const struct iovec *iov, unsigned n, size_t len)
{
	return NET_DONE; /* a guest that does not answer */
}

/* Many who call at once need not call twice; and they never take more sockets than the guest may have. */
static void test_callers(void **state)
{
	enum { CALLERS = 60, MOST = 40 };
	static const struct net_card_ops card = { .receive = user_receive };
	struct net_forward f = { .host = { 127, 0, 0, 1 }, .guest_port = 80 };
	struct net_config c = { .machine = "t", .forward = &f, .nforwards = 1 };
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	struct evloop *loop = evloop_create(NULL);
	socklen_t len = sizeof(at);
	int caller[CALLERS], listener = -1, any = socket(AF_INET, SOCK_STREAM, 0);
	unsigned before, accepted;
	struct tcp_info info;
	struct rlimit was, few;
	struct net_link *l;
	struct err e;

	assert_int_equal(bind(any, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(getsockname(any, (struct sockaddr *)&at, &len), 0);
	close(any);
	f.port = ntohs(at.sin_port);
	getrlimit(RLIMIT_NOFILE, &was);
	few = (struct rlimit){ 2 * MOST, was.rlim_max };
	setrlimit(RLIMIT_NOFILE, &few);
	l = net_user_open(loop, &c, &e);
	setrlimit(RLIMIT_NOFILE, &was);
	assert_non_null(l);
	net_attach(l, &card, NULL);
	assert_int_equal(sockets_open(true, &listener), 1);
	len = sizeof(info);
	assert_int_equal(getsockopt(listener, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
	assert_true(info.tcpi_sacked >= CALLERS); /* of a listening socket: how many may wait */
	for (unsigned i = 0; i < CALLERS; i++) {
		caller[i] = socket(AF_INET, SOCK_STREAM, 0);
		assert_int_equal(connect(caller[i], (struct sockaddr *)&at, sizeof(at)), 0);
	}
	before = sockets_open(false, &any);
	assert_int_equal(evloop_start(loop, NULL), 0);
	do {
		usleep(10000);
		accepted = sockets_open(false, &any) - before;
	} while (accepted < MOST);
	usleep(50000);
	assert_int_equal(sockets_open(false, &any) - before, MOST);
	evloop_stop(loop);
	net_close(l);
	evloop_destroy(loop);
	for (unsigned i = 0; i < CALLERS; i++)
		close(caller[i]);
}

/* ---- a guest's connection, by hand */

struct hand {
	struct net_link *l;
	uint32_t seq, ack;
	uint16_t own, port;
	uint32_t answered; /* atomic: the sequence number of the other end's SYN, and one more */
};

static enum net_result hand_receive(void *opaque, const struct net_wire *w, const struct iovec *iov, unsigned n, size_t len)
{
	struct hand *h = opaque;
	const uint8_t *f = iov->iov_base;
	uint32_t seq;

	if (len >= 54 && f[12] == 8 && f[13] == 0 && f[47] == 0x12) {
		memcpy(&seq, f + 38, 4);
		__atomic_store_n(&h->answered, ntohl(seq) + 1, __ATOMIC_SEQ_CST);
	}
	return NET_DONE;
}

static void hand_send(struct hand *h, uint8_t flags)
{
	uint8_t f[54] = { 0x52, 0x55, 10, 0, 2, 2, 0x52, 1, 2, 3, 4, 5, 8, 0, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2 };
	const uint8_t pseudo[4] = { 0, 6, 0, 20 };
	const struct net_wire w = { .flags = NET_WIRE_CSUM, .csum_start = 34, .csum_offset = 16 };
	uint32_t words[2] = { htonl(h->seq), htonl(h->ack) };
	uint16_t ports[2] = { htons(h->own), htons(h->port) }, sum = (uint16_t)~net_fold(net_sum(0, f + 14, 20));

	memcpy(f + 24, &sum, 2);
	memcpy(f + 34, ports, 4);
	memcpy(f + 38, words, 8);
	memcpy(f + 46, (uint8_t[]){ 0x50, flags, 0xff, 0xff }, 4);
	sum = net_fold(net_sum(net_sum(0, pseudo, 4), f + 26, 8));
	memcpy(f + 50, &sum, 2);
	assert_int_equal(net_send(h->l, &w, &(struct iovec){ f, sizeof(f) }, 1), NET_DONE);
	net_sent(h->l);
}

/* What the guest breaks off is broken off for the other end too, not ended. */
static void test_reset(void **state)
{
	static const uint8_t arp[42] = { 255, 255, 255, 255, 255, 255, 0x52, 1, 2, 3, 4, 5, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 0x52, 1, 2, 3, 4, 5, 10, 0, 2, 15,
					 0, 0, 0, 0, 0, 0, 10, 0, 2, 2 };
	static const struct net_card_ops card = { .receive = hand_receive };
	struct net_config c = { .machine = "t" };
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	struct evloop *loop = evloop_create(NULL);
	int listener = socket(AF_INET, SOCK_STREAM, 0), s;
	struct hand h = { .seq = 1000, .own = 4000 };
	socklen_t len = sizeof(at);
	struct err e;
	char byte;

	assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &len), 0);
	assert_int_equal(listen(listener, 4), 0);
	h.port = ntohs(at.sin_port);
	h.l = net_user_open(loop, &c, &e);
	assert_non_null(h.l);
	net_attach(h.l, &card, &h);
	net_send(h.l, &(struct net_wire){ 0 }, &(struct iovec){ (void *)arp, sizeof(arp) }, 1);
	net_sent(h.l);
	assert_int_equal(evloop_start(loop, NULL), 0);
	for (unsigned reset = 0; reset < 2; reset++) {
		hand_send(&h, 2);
		while (!(h.ack = __atomic_exchange_n(&h.answered, 0, __ATOMIC_SEQ_CST)))
			usleep(1000);
		h.seq++;
		hand_send(&h, 0x10);
		s = accept(listener, NULL, NULL);
		assert_true(s >= 0);
		hand_send(&h, reset ? 0x14 : 0x11);
		assert_int_equal(recv(s, &byte, 1, 0), reset ? -1 : 0);
		if (reset)
			assert_int_equal(errno, ECONNRESET);
		close(s);
		h.own++;
		h.ack = 0;
	}
	evloop_stop(loop);
	net_close(h.l);
	evloop_destroy(loop);
	close(listener);
}

int main(void)
{
	static const struct CMUnitTest tests[] = { cmocka_unit_test(test_callers), cmocka_unit_test(test_reset) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
