/* SPDX-License-Identifier: Apache-2.0 */
/* What --net and --port say; finishing frames; counting and back-pressure between a card and a back-end. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "backend/net-merge.h"
#include "backend/net-frag.h"
#include "backend/net.h"
#include "base/base.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/evloop.h"

/* ---- options */

static void test_config(void **state)
{
	static const char *const bad[] = { "", "wire", "user:x", "user,", "user,mac=1", "user,mac=53:54:00:12:34:56", "user,mac",
					   "user,mac=00:00:00:00:00:00", "user,mac=52:54:00:12:34:56:78", "user,model=ne2000",
					   "user,colour=red", "user,mtu=575", "user,mtu=65522", "user,mtu=9k", "user,mtu=",
					   "user,mtu=16111,model=e1000", "user,model=e1000,mtu=20000" };
	struct net_config c;
	struct err e;
	uint8_t a[6], b[6];

	assert_int_equal(net_config_parse(&c, "user", &e), 0);
	assert_int_equal(c.kind, NET_USER);
	assert_int_equal(net_config_parse(&c, "user,mac=52:54:00:ab:cd:EF,model=virtio", &e), 0);
	assert_memory_equal(c.mac, "\x52\x54\x00\xab\xcd\xef", 6);
	assert_int_equal(net_config_parse(&c, "tap:t0,mtu=9000,model=e1000", &e), 0);
	assert_int_equal(c.mtu, 9000);
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		if (strcmp(bad[i], "user,"))
			assert_int_not_equal(net_config_parse(&c, bad[i], &e), 0);
	net_mac_derive(a, "web", 0);
	net_mac_derive(b, "web", 0);
	assert_memory_equal(a, b, 6);
	assert_int_equal(a[0] & 3, 2);
	net_mac_derive(b, "web", 1);
	assert_memory_not_equal(a, b, 6);
	net_mac_derive(b, "wec", 0);
	assert_memory_not_equal(a, b, 6);
}

static void test_forward(void **state)
{
	static const char *const bad[] = { "", "80", ":80", "80:", "0:80", "80:0", "65536:80", "80:65536", "8080:80/icmp", "x:8080:80",
					   "1.2.3:8080:80", "[1.2.3.4]:8080:80", "::1:8080:80", "8080:80:", "80a:80", " 80:80",
					   "[::1:8080:80" };
	struct net_forward f;
	struct err e;

	assert_int_equal(net_parse_forward(&f, "8080:80", &e), 0);
	assert_true(!f.udp && !f.v6 && f.port == 8080 && f.guest_port == 80);
	assert_memory_equal(f.host, "\x7f\0\0\1", 4);
	assert_int_equal(net_parse_forward(&f, "0.0.0.0:53:5353/udp", &e), 0);
	assert_true(f.udp && f.port == 53 && f.guest_port == 5353);
	assert_memory_equal(f.host, "\0\0\0\0", 4);
	assert_int_equal(net_parse_forward(&f, "[::1]:2222:22/tcp", &e), 0);
	assert_true(!f.udp && f.v6 && f.port == 2222 && f.guest_port == 22 && f.host[15] == 1);
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_not_equal(net_parse_forward(&f, bad[i], &e), 0);
}

/* ---- frames */

#define PAYLOAD 5000u

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)((uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3]);
}

/* As a guest's driver would leave it: lengths of the whole, a partial checksum. */
static size_t tcp_frame(uint8_t *f, bool v6, unsigned payload, struct net_wire *w)
{
	unsigned l4 = NET_HEADER + (v6 ? 40u : 20u), total = 20 + payload;
	uint8_t pseudo[4] = { 0, 6, (uint8_t)(total >> 8), (uint8_t)total };
	uint16_t sum;

	memset(f, 0, l4 + 20);
	memcpy(f, "\x52\1\2\3\4\5\x52\6\7\x8\x9\xa", 12);
	memcpy(f + 12, v6 ? "\x86\xdd" : "\x08\0", 2);
	f[14] = v6 ? 0x60 : 0x45;
	if (v6) {
		f[18] = (uint8_t)(total >> 8);
		f[19] = (uint8_t)total;
		f[20] = 6;
	} else {
		f[16] = (uint8_t)((total + 20) >> 8);
		f[17] = (uint8_t)(total + 20);
		f[22] = 64;
		f[23] = 6;
	}
	for (unsigned i = 0; i < (v6 ? 32u : 8u); i++)
		f[(v6 ? 22u : 26u) + i] = (uint8_t)(i * 7 + 10);
	if (!v6) {
		sum = (uint16_t)~net_fold(net_sum(0, f + 14, 20));
		memcpy(f + 24, &sum, 2);
	}
	memcpy(f + l4, "\x1f\x90\x00\x50\xff\xff\xff\x00\0\0\0\1\x50\x99\x10\0", 16); /* flags: CWR, ACK, PSH, FIN */
	for (unsigned i = 0; i < payload; i++)
		f[l4 + 20 + i] = (uint8_t)(i * 31 + (i >> 8));
	sum = net_fold(net_sum(net_sum(0, pseudo, 4), f + (v6 ? 22 : 26), v6 ? 32 : 8));
	memcpy(f + l4 + 16, &sum, 2);
	*w = (struct net_wire){ .flags = NET_WIRE_CSUM, .gso = v6 ? NET_GSO_TCP6 : NET_GSO_TCP4, .gso_size = 1448,
				.hdr_len = (uint16_t)(l4 + 20), .csum_start = (uint16_t)l4, .csum_offset = 16 };
	return l4 + 20 + payload;
}

/* Of a complete frame: both checksums, computed apart from the code under test. */
static void frame_check(const uint8_t *f, size_t len, bool v6)
{
	unsigned l4 = NET_HEADER + (v6 ? 40u : 20u), n = (unsigned)len - l4;
	const uint8_t *part[2] = { f + (v6 ? 22 : 26), f + l4 };
	unsigned size[2] = { v6 ? 32 : 8, n };
	uint64_t sum = 6 + n;

	for (unsigned p = 0; p < 2; p++)
		for (unsigned i = 0; i < size[p]; i++)
			sum += (uint64_t)part[p][i] << (i % 2 ? 0 : 8);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	assert_int_equal(sum, 0xffff);
	if (v6) {
		assert_int_equal(f[18] << 8 | f[19], n);
		return;
	}
	assert_int_equal(f[16] << 8 | f[17], n + 20);
	sum = 0;
	for (unsigned i = 0; i < 20; i++)
		sum += (uint64_t)f[14 + i] << (i % 2 ? 0 : 8);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	assert_int_equal(sum, 0xffff);
}

struct fake {
	struct net_link l;
	unsigned frames, limit, busy_after;
	struct net_wire wire;
	size_t len[64];
	uint8_t data[64][NET_WIRE_FRAME];
};

static enum net_result fake_take(struct fake *f, const struct net_wire *w, const struct iovec *iov, unsigned n, size_t len)
{
	size_t at = 0;

	if (f->frames == f->busy_after)
		return NET_BUSY;
	f->wire = *w;
	for (unsigned i = 0; i < n; i++) {
		memcpy(f->data[f->frames] + at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	assert_int_equal(at, len);
	f->len[f->frames++] = len;
	return NET_DONE;
}

static enum net_result fake_send(struct net_link *l, const struct net_wire *w, const struct iovec *iov, unsigned n, size_t len)
{
	return fake_take((struct fake *)l, w, iov, n, len);
}

static enum net_result fake_receive(void *opaque, const struct net_wire *w, const struct iovec *iov, unsigned n, size_t len)
{
	return fake_take(opaque, w, iov, n, len);
}

static const struct net_link_ops fake_ops = { .kind = "fake", .send = fake_send };
static const struct net_card_ops card_ops = { .receive = fake_receive };

static struct fake *fake_open(unsigned takes)
{
	struct fake *f = calloc(1, sizeof(*f));
	struct net_config c = { .machine = "t" };

	f->busy_after = 64;
	assert_int_equal(net_link_init(&f->l, NULL, &fake_ops, &c, takes, NULL), 0);
	net_attach(&f->l, &card_ops, f);
	return f;
}

static void fake_close(struct fake *f)
{
	net_link_dispose(&f->l);
	free(f);
}

static void segments_check(struct fake *f, const uint8_t *whole, bool v6)
{
	unsigned head = NET_HEADER + (v6 ? 60u : 40u), tcp = head - 20;

	assert_int_equal(f->frames, 4);
	for (unsigned i = 0; i < 4; i++) {
		unsigned part = i < 3 ? 1448 : PAYLOAD - 3 * 1448;

		assert_int_equal(f->len[i], head + part);
		assert_memory_equal(f->data[i] + head, whole + head + i * 1448, part);
		assert_int_equal(be32(f->data[i] + tcp + 4), (uint32_t)(0xffffff00u + i * 1448));
		assert_int_equal(f->data[i][tcp + 13], i == 0 ? 0x90 : i == 3 ? 0x19 : 0x10);
		frame_check(f->data[i], f->len[i], v6);
	}
}

static void test_segments(void **state)
{
	static uint8_t whole[NET_WIRE_FRAME];

	for (unsigned v6 = 0; v6 < 2; v6++)
		for (unsigned rx = 0; rx < 2; rx++) {
			struct fake *f = fake_open(0);
			struct net_wire w;
			size_t len = tcp_frame(whole, v6, PAYLOAD, &w);
			struct iovec iov[3] = { { whole, 10 }, { whole + 10, 61 }, { whole + 71, len - 71 } };

			assert_int_equal(rx ? net_deliver(&f->l, &w, iov, 3) : net_send(&f->l, &w, iov, 3), NET_DONE);
			segments_check(f, whole, v6);
			assert_int_equal(rx ? f->l.stats.rx_frames : f->l.stats.tx_frames, 4);
			fake_close(f);
		}
}

/* As a whole, but with a checksum; and wholly untouched. */
static void test_uncut(void **state)
{
	static uint8_t whole[NET_WIRE_FRAME];
	struct fake *f = fake_open(NET_TAKES_BIG | NET_TAKES_TSO4);
	struct net_wire w;
	size_t len = tcp_frame(whole, false, PAYLOAD, &w);
	struct iovec iov = { whole, len };

	net_send(&f->l, &w, &iov, 1);
	assert_int_equal(f->frames, 1);
	assert_int_equal(f->wire.flags, 0);
	assert_int_equal(f->len[0], len);
	frame_check(f->data[0], len, false);
	net_card_takes(&f->l, NET_TAKES_CSUM | NET_TAKES_TSO4);
	net_deliver(&f->l, &w, &iov, 1);
	assert_int_equal(f->frames, 2);
	assert_memory_equal(&f->wire, &w, sizeof(w));
	assert_memory_equal(f->data[1], whole, len);
	w.flags |= NET_WIRE_ECN; /* not taken: cut */
	net_deliver(&f->l, &w, &iov, 1);
	assert_int_equal(f->frames, 6);
	len = tcp_frame(whole, true, PAYLOAD, &w); /* another protocol than those taken uncut */
	iov.iov_len = len;
	net_send(&f->l, &w, &iov, 1);
	assert_int_equal(f->frames, 10);
	fake_close(f);
}

/* ---- limits */

struct limited {
	struct fake *f;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned called[2];
};

static void limited_call(struct limited *t, bool rx)
{
	pthread_mutex_lock(&t->lock);
	t->called[rx]++;
	pthread_cond_broadcast(&t->changed);
	pthread_mutex_unlock(&t->lock);
}

static void limited_drained(void *opaque)
{
	limited_call(opaque, false);
}

static void limited_ready(struct net_link *l)
{
	limited_call(l->opaque, true);
}

static enum net_result limited_receive(void *opaque, const struct net_wire *w, const struct iovec *iov, unsigned n, size_t len)
{
	return fake_take(((struct limited *)opaque)->f, w, iov, n, len);
}

static const struct net_link_ops limited_ops = { .kind = "fake", .send = fake_send, .ready = limited_ready };
static const struct net_card_ops limited_card = { .receive = limited_receive, .drained = limited_drained };

/* Waits, if need be, as a card or a back-end does; how often. */
static unsigned limited_pass(struct limited *t, bool rx, size_t len)
{
	static uint8_t frame[NET_WIRE_FRAME];
	const struct net_wire w = { 0 };
	struct iovec iov = { frame, len };
	unsigned waits = 0;

	for (;;) {
		unsigned before = __atomic_load_n(&t->called[rx], __ATOMIC_SEQ_CST);

		if ((rx ? net_deliver(&t->f->l, &w, &iov, 1) : net_send(&t->f->l, &w, &iov, 1)) == NET_DONE)
			return waits;
		waits++;
		pthread_mutex_lock(&t->lock);
		while (t->called[rx] == before)
			pthread_cond_wait(&t->changed, &t->lock);
		pthread_mutex_unlock(&t->lock);
	}
}

/* Never faster than it says; a frame that would wait for minutes goes at once when the limit does. */
static void test_limits(void **state)
{
	const struct net_limits slow = { 100000, 200000 }, crawl = { 1000, 1000 }, none = { 0, 0 };
	struct limited t = { .f = calloc(1, sizeof(*t.f)), .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
	struct net_config c = { .machine = "t", .limits = slow };
	struct evloop *loop = evloop_create(NULL);
	struct iovec iov = { (uint8_t[60]){ 0 }, 60 };
	const struct net_wire w = { 0 };

	t.f->busy_after = 64;
	assert_int_equal(net_link_init(&t.f->l, loop, &limited_ops, &c, 0, NULL), 0);
	net_attach(&t.f->l, &limited_card, &t);
	assert_int_equal(evloop_start(loop, NULL), 0);
	for (unsigned rx = 0; rx < 2; rx++) {
		uint64_t from = clock_host_now(), passed;
		unsigned waits = 0;

		for (unsigned i = 0; i < 20; i++)
			waits += limited_pass(&t, rx, 2000);
		passed = clock_host_now() - from;
		assert_true(waits >= 1);
		/* all but the last have been paid for, with what the bucket had saved */
		assert_true((passed + BUCKET_SECOND / 10) * (rx ? slow.out : slow.in) / BUCKET_SECOND >= 19 * 2000);
	}
	for (unsigned rx = 0; rx < 2; rx++) {
		assert_int_equal(net_set_limits(&t.f->l, &crawl, NULL), 0);
		assert_int_equal(net_get_limits(&t.f->l).out, 1000);
		limited_pass(&t, rx, NET_WIRE_FRAME);
		assert_int_equal(rx ? net_deliver(&t.f->l, &w, &iov, 1) : net_send(&t.f->l, &w, &iov, 1), NET_BUSY);
		net_set_limits(&t.f->l, rx ? &slow : &none, NULL); /* one is lifted, one is raised */
		limited_pass(&t, rx, 60);
		net_set_limits(&t.f->l, &none, NULL);
	}
	assert_int_equal(limited_pass(&t, false, 60) + limited_pass(&t, true, 60), 0);
	net_limit_stop(&t.f->l.throttle);
	evloop_stop(loop);
	net_link_dispose(&t.f->l);
	evloop_destroy(loop);
	free(t.f);
}

static int descriptor = -1;

static void taking_destroy(struct net_link *l)
{
	descriptor = dup(STDERR_FILENO); /* as another thread may at any time */
	net_link_dispose(l);
}

/* Its timer is closed once: its number may be another file's by then. */
static void test_limits_end(void **state)
{
	static const struct net_link_ops taking = { .kind = "fake", .send = fake_send, .ready = limited_ready, .destroy = taking_destroy };
	struct net_config c = { .machine = "t", .limits = { 100000, 200000 } };
	struct evloop *loop = evloop_create(NULL);
	struct net_link l = { 0 };

	assert_int_equal(net_link_init(&l, loop, &taking, &c, 0, NULL), 0);
	net_close(&l);
	assert_true(fcntl(descriptor, F_GETFD) >= 0);
	close(descriptor);
	evloop_destroy(loop);
}

/* ---- segments put together */

static bool merge_one(void *opaque, const uint8_t *frame, size_t len)
{
	return net_merge_add(opaque, frame, len);
}

/* What has been cut becomes the same frame again; another stream's segment in between stays apart. */
static void test_merge(void **state)
{
	static uint8_t whole[NET_WIRE_FRAME], out[NET_WIRE_FRAME];

	for (unsigned v6 = 0; v6 < 2; v6++) {
		struct fake *f = fake_open(0);
		struct net_merge m = { 0 };
		struct net_wire w;
		size_t len = tcp_frame(whole, v6, PAYLOAD, &w);
		unsigned flags = NET_HEADER + (v6 ? 40u : 20u) + 13;

		whole[flags] = 0x18; /* ACK, PSH */
		net_card_takes(&f->l, NET_TAKES_CSUM | NET_TAKES_TSO4 | NET_TAKES_TSO6);
		assert_true(net_segment(whole, len, &w, out, merge_one, &m));
		assert_int_equal(m.used, 1);
		f->busy_after = 0;
		net_merge_deliver(&m, &f->l);
		assert_int_equal(m.used, 1);
		assert_true(net_merge_add(&m, whole, 100)); /* an unfinished one: not part of it */
		f->busy_after = 64;
		net_merge_deliver(&m, &f->l);
		assert_int_equal(f->frames, 2);
		assert_int_equal(f->len[0], len);
		assert_memory_equal(f->data[0], whole, len); /* its partial checksum as well */
		assert_int_equal(f->wire.gso, 0);
		for (unsigned i = 0; i < NET_MERGE_FRAMES + 5; i++) /* no more than there is room for */
			assert_int_equal(net_merge_add(&m, whole, 100), i < NET_MERGE_FRAMES);
		assert_true(net_merge_full(&m));
		net_merge_dispose(&m);
		fake_close(f);
	}
}

/* Busy before anything went: it is kept; in the middle: the rest is lost, and counted. */
static void test_busy(void **state)
{
	static uint8_t whole[NET_WIRE_FRAME];
	struct fake *f = fake_open(0);
	struct net_wire w;
	struct iovec iov = { whole, tcp_frame(whole, false, PAYLOAD, &w) };

	f->busy_after = 0;
	assert_int_equal(net_send(&f->l, &w, &iov, 1), NET_BUSY);
	assert_int_equal(f->l.stats.tx_drops, 0);
	f->busy_after = 2;
	assert_int_equal(net_send(&f->l, &w, &iov, 1), NET_DONE);
	assert_int_equal(f->l.stats.tx_drops, 1);
	net_set_up(&f->l, false);
	assert_int_equal(net_send(&f->l, &w, &iov, 1), NET_DONE);
	assert_int_equal(f->frames, 2);
	fake_close(f);
}

/* ---- fragments */

/* Bytes [from, from + n) of a datagram. */
static size_t fragment(uint8_t *f, unsigned id, unsigned from, unsigned n, bool more)
{
	uint8_t *ip = f + NET_HEADER;
	uint16_t sum;

	memset(f, 0, NET_HEADER + 20);
	f[12] = 8;
	memcpy(ip, (uint8_t[]){ 0x45, 0, (uint8_t)((20 + n) >> 8), (uint8_t)(20 + n), 0, (uint8_t)id, (uint8_t)((more ? 0x20 : 0) | from / 8 >> 8),
				(uint8_t)(from / 8), 64, 17, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2 }, 20);
	sum = (uint16_t)~net_fold(net_sum(0, ip, 20));
	memcpy(ip + 10, &sum, 2);
	for (unsigned i = 0; i < n; i++)
		ip[20 + i] = (uint8_t)((from + i) * 7 + (from + i) / 256);
	return NET_HEADER + 20 + n;
}

static size_t put(struct net_frag *r, unsigned id, unsigned from, unsigned n, bool more, uint64_t now)
{
	static uint8_t f[NET_WIRE_FRAME + 256], out[NET_WIRE_FRAME];
	size_t len = fragment(f, id, from, n, more), whole;

	assert_true(net_frag_is(f, len));
	whole = net_frag_add(r, f, len, now, out);
	if (whole) {
		assert_false(net_frag_is(out, whole));
		assert_int_equal(out[NET_HEADER + 2] << 8 | out[NET_HEADER + 3], whole - NET_HEADER);
		assert_int_equal(net_fold(net_sum(0, out + NET_HEADER, 20)), 0xffff);
		for (unsigned i = 0; i < whole - NET_HEADER - 20; i++)
			assert_int_equal(out[NET_HEADER + 20 + i], (uint8_t)(i * 7 + i / 256));
	}
	return whole;
}

static void test_fragments(void **state)
{
	struct net_frag *r = calloc(1, sizeof(*r));

	/* in order, backwards, doubled */
	assert_int_equal(put(r, 1, 0, 1480, true, 0) + put(r, 1, 1480, 1480, true, 0), 0);
	assert_int_equal(put(r, 1, 2960, 100, false, 0), NET_HEADER + 20 + 3060);
	assert_int_equal(put(r, 2, 800, 3, false, 0) + put(r, 2, 400, 400, true, 0) + put(r, 2, 400, 400, true, 0), 0);
	assert_int_equal(put(r, 2, 0, 400, true, 0), NET_HEADER + 20 + 803);
	assert_int_equal(put(r, 2, 800, 3, false, 0), 0);
	/* the longest there is; longer ones, lengths that contradict, overlaps, none at all */
	assert_int_equal(put(r, 3, 32768, 65515 - 32768, false, 0), 0);
	assert_int_equal(put(r, 3, 0, 32768, true, 0), NET_HEADER + 65535);
	assert_int_equal(put(r, 4, 65528, 100, false, 0) + put(r, 4, 0, 65528, true, 0), 0);
	assert_int_equal(put(r, 5, 65528, 7, false, 0) + put(r, 5, 0, 65528, true, 0), 0);
	assert_int_equal(put(r, 6, 80, 8, false, 0) + put(r, 6, 96, 8, false, 0) + put(r, 6, 0, 80, true, 0), 0);
	assert_int_equal(put(r, 7, 0, 80, true, 0) + put(r, 7, 72, 16, false, 0) + put(r, 7, 80, 8, false, 0), 0);
	assert_int_equal(put(r, 8, 0, 0, true, 0) + put(r, 8, 0, 9, true, 0), 0);
	/* others make room for themselves; what is old is forgotten */
	assert_int_equal(put(r, 10, 0, 80, true, 1), 0);
	for (unsigned id = 11; id < 11 + NET_FRAG_SLOTS; id++)
		assert_int_equal(put(r, id, 0, 80, true, id), 0);
	assert_int_equal(put(r, 10, 80, 8, false, 20), 0);
	assert_int_equal(put(r, 10 + NET_FRAG_SLOTS, 80, 8, false, 20), NET_HEADER + 20 + 88);
	assert_int_equal(put(r, 9 + NET_FRAG_SLOTS, 80, 8, false, 9 + NET_FRAG_SLOTS + NET_FRAG_MS), 0);
	net_frag_dispose(r);
	free(r);
}

/* Nonsense in the header never reads or writes outside (under the sanitizers), and nothing wrong gets through as complete. */
static void test_nonsense(void **state)
{
	static uint8_t whole[NET_WIRE_FRAME];
	struct net_wire w;
	size_t len = tcp_frame(whole, false, 300, &w);

	srand(1);
	for (unsigned i = 0; i < 20000; i++) {
		struct fake *f = i % 64 ? NULL : fake_open(i % 128 ? NET_TAKES_BIG : 0);
		static struct fake *keep;
		struct net_wire x = w;
		struct iovec iov = { whole, (size_t)rand() % (len + 1) };

		if (f) {
			if (keep)
				fake_close(keep);
			keep = f;
		}
		keep->frames = 0;
		x.gso_size = (uint16_t)(rand() % 400);
		((uint8_t *)&x)[rand() % (int)sizeof(x)] = (uint8_t)rand();
		if (i % 3 == 0)
			whole[12 + rand() % 60] = (uint8_t)rand();
		net_send(&keep->l, &x, &iov, 1);
		assert_true(keep->frames <= 64);
		if (i == 19999)
			fake_close(keep);
	}
}

/* ---- connections remembered */

/* One way or the other between a guest's port and 80 of its peer, without payload. */
static size_t segment(uint8_t *f, bool v6, bool from_guest, uint16_t port, uint8_t flags)
{
	struct net_wire w;
	size_t len = tcp_frame(f, v6, 0, &w), l4 = len - 20, address = v6 ? 16 : 4;
	const uint8_t ports[4] = { (uint8_t)(port >> 8), (uint8_t)port, 0, 80 };
	uint8_t *a = f + (v6 ? 22 : 26);

	memset(a, from_guest ? 1 : 2, address);
	memset(a + address, from_guest ? 2 : 1, address);
	memcpy(f + l4, from_guest ? ports : ports + 2, 2);
	memcpy(f + l4 + 2, from_guest ? ports + 2 : ports, 2);
	memcpy(f + l4 + 4, "\0\0\x10\0\0\0\x20\0", 8);
	f[l4 + 13] = flags;
	return len;
}

static unsigned flows_open(const struct net_flows *t, struct net_flow *first)
{
	static struct net_flow all[NET_FLOWS];
	unsigned n = 0;

	net_flows_save(t, all);
	*first = all[0];
	while (n < NET_FLOWS && all[n].state)
		n++;
	return n;
}

static void flows_rules(bool v6)
{
	static struct net_flows t, again;
	static struct net_flow saved[NET_FLOWS];
	const uint8_t mac[6] = { 2, 0, 0, 0, 0, 1 }, gateway[6] = { 2, 0, 0, 0, 0, 2 };
	uint8_t f[128], probe[NET_PROBE];
	struct net_flow flow;
	size_t len, l4 = NET_HEADER + (v6 ? 40 : 20);

	memset(&t, 0, sizeof(t));
	net_flows_look(&t, f, segment(f, v6, true, 4000, 2), true); /* a SYN is sent again by itself */
	assert_int_equal(flows_open(&t, &flow), 0);
	net_flows_look(&t, f, segment(f, v6, true, 4000, 16), true);
	net_flows_look(&t, f, segment(f, v6, true, 4001, 18), true);
	assert_int_equal(flows_open(&t, &flow), 2);
	/* half closed is open still; from both sides it is not, also while its last words pass */
	net_flows_look(&t, f, segment(f, v6, true, 4001, 17), true);
	assert_int_equal(flows_open(&t, &flow), 2);
	net_flows_look(&t, f, segment(f, v6, false, 4001, 17), false);
	net_flows_look(&t, f, segment(f, v6, true, 4001, 16), true);
	assert_int_equal(flows_open(&t, &flow), 1);
	/* the two meet again */
	net_flows_look(&t, f, segment(f, v6, true, 4001, 18), true);
	assert_int_equal(flows_open(&t, &flow), 2);
	for (unsigned way = 0; way < 2; way++) {
		net_flows_look(&t, f, segment(f, v6, way, 4001, 20), way);
		assert_int_equal(flows_open(&t, &flow), 1);
		net_flows_look(&t, f, segment(f, v6, true, 4001, 16), true);
	}
	net_flows_look(&t, f, segment(f, v6, true, 4001, 4), true);
	assert_int_equal(flows_open(&t, &flow), 1);
	/* what the guest is sent about it comes from before what it expects */
	assert_int_equal(flow.guest_port, 4000);
	assert_int_equal(flow.seq, 0x1000);
	assert_int_equal(flow.ack, 0x2000);
	len = net_flow_probe(&flow, mac, gateway, probe);
	assert_int_equal(len, l4 + 20);
	frame_check(probe, len, v6);
	assert_memory_equal(probe, mac, 6);
	assert_memory_equal(probe + l4, "\x00\x50\x0f\xa0\x00\x00\x1f\xff\x00\x00\x10\x00\x50\x10", 14);
	/* saved and loaded it is the same; of nonsense nothing is taken */
	net_flows_save(&t, saved);
	net_flows_load(&again, saved);
	assert_int_equal(flows_open(&again, &flow), 1);
	memset(saved, 0xfe, sizeof(saved));
	net_flows_load(&again, saved);
	assert_int_equal(flows_open(&again, &flow), 0);
	assert_int_equal(net_flow_probe(&saved[0], mac, gateway, probe), 0);
	/* a thousand: bounded, the latest of each set are kept */
	for (uint16_t i = 0; i < 1000; i++)
		net_flows_look(&t, f, segment(f, v6, true, (uint16_t)(5000 + i), 16), true);
	assert_in_range(flows_open(&t, &flow), NET_FLOWS / 2, NET_FLOWS);
	net_flows_look(&t, f, segment(f, v6, false, 5999, 20), false);
	net_flows_look(&t, f, segment(f, v6, true, 5999, 16), true);
}

static void test_flows(void **state)
{
	static struct net_flows t;
	struct net_flow first;
	uint8_t f[128];

	flows_rules(false);
	flows_rules(true);
	srand(5);
	for (unsigned i = 0; i < 200000; i++) {
		size_t len = segment(f, i % 2, i % 3, (uint16_t)rand(), (uint8_t)rand());

		f[12 + rand() % 60] = (uint8_t)rand();
		net_flows_look(&t, f, len - (size_t)(i % 5 ? 0 : rand() % (int)len), i % 3);
	}
	assert_in_range(flows_open(&t, &first), 1, NET_FLOWS);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_config), cmocka_unit_test(test_forward), cmocka_unit_test(test_segments),
		cmocka_unit_test(test_uncut),  cmocka_unit_test(test_merge),  cmocka_unit_test(test_busy),    cmocka_unit_test(test_nonsense), cmocka_unit_test(test_fragments),
		cmocka_unit_test(test_flows), cmocka_unit_test(test_limits), cmocka_unit_test(test_limits_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
