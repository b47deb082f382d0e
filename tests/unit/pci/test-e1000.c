/* SPDX-License-Identifier: Apache-2.0 */
/* The 82540EM as a driver sees it, with a back-end of the test's. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>
#include "backend/net.h"
#include "pci/e1000.h"
#include "rig.h"

#define DEVFN PCI_DEVFN(3, 0)
#define TX_RING 0x10000u
#define RX_RING 0x20000u
#define BUFFERS 0x100000u
#define N 16u

struct back {
	struct net_link link;
	unsigned sent, readied;
	bool busy;
	struct net_wire wire;
	size_t len;
	uint8_t last[NET_WIRE_FRAME];
};

struct card {
	struct rig rig;
	struct back *back;
	struct device *device;
	uint64_t bar;
};

static enum net_result back_send(struct net_link *l, const struct net_wire *w, const struct iovec *iov, unsigned n, size_t len)
{
	struct back *b = container_of(l, struct back, link);

	if (b->busy)
		return NET_BUSY;
	b->wire = *w;
	b->len = 0;
	for (unsigned i = 0; i < n; i++) {
		memcpy(b->last + b->len, iov[i].iov_base, iov[i].iov_len);
		b->len += iov[i].iov_len;
	}
	assert_int_equal(b->len, len);
	b->sent++;
	return NET_DONE;
}

static void back_ready(struct net_link *l)
{
	container_of(l, struct back, link)->readied++;
}

static const struct net_link_ops back_ops = { .kind = "test", .send = back_send, .ready = back_ready };

static uint32_t get(struct card *c, unsigned reg)
{
	uint32_t v = 0;

	v = (uint32_t)mem_read(c->rig.env.mem, c->bar + reg, 4);
	return v;
}

static void set(struct card *c, unsigned reg, uint32_t v)
{
	mem_write(c->rig.env.mem, c->bar + reg, v, 4);
}

static struct card *card_open(void)
{
	struct net_config config = { .machine = "test" };
	struct card *c = calloc(1, sizeof(*c));
	uint8_t irq[4] = { 0 };
	struct err e = { 0 };

	rig_open(&c->rig);
	c->back = calloc(1, sizeof(*c->back));
	assert_int_equal(net_link_init(&c->back->link, NULL, &back_ops, &config, NET_TAKES_CSUM | NET_TAKES_TSO4 | NET_TAKES_TSO6 | NET_TAKES_ECN, &e), 0);
	c->device = e1000_create(c->rig.bus, &c->rig.env, 0, DEVFN, &c->back->link, &e);
	assert_non_null(c->device);
	rig_add(&c->rig, c->device);
	pci_bus_assign(c->rig.bus, irq);
	cfg_write(&c->rig, DEVFN, PCI_COMMAND, 7, 2);
	c->bar = cfg_read(&c->rig, DEVFN, 0x10, 4) & ~15u;
	return c;
}

static void card_close(struct card *c)
{
	rig_close(&c->rig);
	net_link_dispose(&c->back->link);
	free(c->back);
	free(c);
}

static void ram_write(struct card *c, uint64_t at, const void *data, size_t len)
{
	memcpy(mem_ram_ptr(c->rig.env.mem, at & ~4095ull) + (at & 4095), data, len);
}

static void ram_read(struct card *c, uint64_t at, void *data, size_t len)
{
	memcpy(data, mem_ram_ptr(c->rig.env.mem, at & ~4095ull) + (at & 4095), len);
}

static void rings(struct card *c)
{
	set(c, 0x3800, TX_RING);
	set(c, 0x3808, N * 16);
	set(c, 0x3810, 0);
	set(c, 0x3818, 0);
	set(c, 0x400, 0xa);
	set(c, 0x2800, RX_RING);
	set(c, 0x2808, N * 16);
	for (unsigned i = 0; i < N; i++) {
		uint64_t d[2] = { BUFFERS + 0x4000 * i, 0 };

		ram_write(c, RX_RING + 16 * i, d, 16);
	}
	set(c, 0x2810, 0);
	set(c, 0x2818, N - 1);
	set(c, 0x100, 0x8002); /* on, broadcasts */
	set(c, 0xd0, 0x1ffff);
}

static unsigned tx_tail(struct card *c, uint64_t address, uint32_t lower, uint32_t upper)
{
	unsigned tail = get(c, 0x3818);
	uint32_t d[4] = { (uint32_t)address, (uint32_t)(address >> 32), lower, upper };

	ram_write(c, TX_RING + 16 * tail, d, 16);
	set(c, 0x3818, (tail + 1) % N);
	return tail;
}

static uint8_t tx_status(struct card *c, unsigned n)
{
	uint8_t s;

	ram_read(c, TX_RING + 16 * n + 12, &s, 1);
	return s;
}

static enum net_result receive(struct card *c, const uint8_t *f, size_t len)
{
	struct net_wire w = { 0 };
	struct iovec iov = { (void *)f, len };

	return net_deliver(&c->back->link, &w, &iov, 1);
}

struct rx {
	uint64_t address;
	uint16_t length, sum;
	uint8_t status, errors;
	uint16_t special;
};

static struct rx rx_at(struct card *c, unsigned n)
{
	struct rx d;

	ram_read(c, RX_RING + 16 * n, &d, 16);
	return d;
}

static void to_us(struct card *c, uint8_t *f, size_t len)
{
	memset(f, 0x11, len);
	memcpy(f, net_mac(&c->back->link), 6);
	f[12] = 0x88;
	f[13] = 0xb5;
}

/* ---- EEPROM and PHY */

static uint16_t by_wires(struct card *c, unsigned at)
{
	uint32_t command = 6u << 6 | at, cs = 2 | 0x40;
	uint16_t v = 0;

	set(c, 0x10, cs);
	for (int i = 8; i >= 0; i--) {
		uint32_t di = (command >> i & 1) << 2;

		set(c, 0x10, cs | di);
		set(c, 0x10, cs | di | 1);
		set(c, 0x10, cs | di);
	}
	for (unsigned i = 0; i < 16; i++) {
		set(c, 0x10, cs | 1);
		v = (uint16_t)(v << 1 | (get(c, 0x10) >> 3 & 1));
		set(c, 0x10, cs);
	}
	set(c, 0x10, 0);
	return v;
}

static uint16_t by_register(struct card *c, unsigned at)
{
	set(c, 0x14, 1 | at << 8);
	assert_true(get(c, 0x14) & 0x10);
	return (uint16_t)(get(c, 0x14) >> 16);
}

static uint16_t phy_read(struct card *c, unsigned at)
{
	set(c, 0x20, 1u << 21 | at << 16 | 2u << 26);
	assert_int_equal(get(c, 0x20) & 0x50000000, 0x10000000);
	return (uint16_t)get(c, 0x20);
}

static void test_eeprom(void **state)
{
	struct card *c = card_open();
	const uint8_t *mac = net_mac(&c->back->link);
	uint16_t sum = 0, w[3];

	for (unsigned i = 0; i < 64; i++) {
		assert_int_equal(by_wires(c, i), by_register(c, i));
		sum = (uint16_t)(sum + by_register(c, i));
	}
	assert_int_equal(sum, 0xbaba);
	for (unsigned i = 0; i < 3; i++)
		w[i] = by_register(c, i);
	assert_memory_equal(w, mac, 6);
	assert_int_equal(get(c, 0x5400), w[0] | w[1] << 16);
	assert_int_equal(get(c, 0x5404), 0x80000000u | w[2]);
	assert_int_equal(phy_read(c, 2), 0x141);
	assert_int_equal(phy_read(c, 3), 0xc20);
	assert_int_equal(phy_read(c, 1) & 0x24, 0x24);
	set(c, 0x20, 3u << 21 | 2u << 26); /* nobody at 3 */
	assert_true(get(c, 0x20) & 0x40000000);
	/* the link goes, and comes */
	set(c, 0xd0, 4);
	assert_int_equal(get(c, 8) & 3, 3);
	net_set_up(&c->back->link, false);
	assert_int_equal(get(c, 8) & 3, 1);
	assert_int_equal(phy_read(c, 1) & 0x24, 0);
	assert_int_equal(c->rig.level[pci_pirq(3, 1)], 1);
	assert_int_equal(get(c, 0xc0) & 4, 4);
	assert_int_equal(c->rig.level[pci_pirq(3, 1)], 0);
	net_set_up(&c->back->link, true);
	assert_int_equal(phy_read(c, 1) & 0x24, 0x24);
	rig_roundtrip(&c->rig);
	card_close(c);
}

/* ---- sending */

static void test_transmit(void **state)
{
	struct card *c = card_open();
	uint8_t f[2000];
	unsigned n;

	rings(c);
	memset(f, 0x22, sizeof(f));
	memset(f, 0xff, 6);
	memcpy(f + 6, net_mac(&c->back->link), 6);
	ram_write(c, BUFFERS, f, 1000);
	ram_write(c, BUFFERS + 0x1000, f + 1000, 500);
	/* legacy, of two pieces; the second reports */
	n = tx_tail(c, BUFFERS, 1000 | 0x08u << 24, 0);
	assert_int_equal(c->back->sent, 0);
	assert_int_equal(tx_status(c, n), 1);
	rig_roundtrip(&c->rig); /* in the middle of a frame */
	n = tx_tail(c, BUFFERS + 0x1000, 500 | 0x0bu << 24, 0);
	assert_int_equal(c->back->sent, 1);
	assert_int_equal(c->back->len, 1500);
	assert_memory_equal(c->back->last, f, 1500);
	assert_int_equal(tx_status(c, n), 1);
	assert_int_equal(get(c, 0x3810), 2);
	assert_int_equal(c->rig.level[pci_pirq(3, 1)], 1);
	assert_int_equal(get(c, 0xc0) & 3, 3);
	assert_int_equal(c->rig.level[pci_pirq(3, 1)], 0);
	assert_int_equal(get(c, 0x40d4), 1); /* counters, cleared by reading */
	assert_int_equal(get(c, 0x40d4), 0);
	assert_int_equal(get(c, 0x40f4), 1);
	assert_int_equal(get(c, 0x40c8), 1504);
	/* legacy sum: of what is there from 20 on, into 30 */
	memset(f + 20, 0, 80);
	f[25] = 5;
	ram_write(c, BUFFERS, f, 100);
	tx_tail(c, BUFFERS, 100 | 30u << 16 | 0x0du << 24, 20u << 8);
	assert_int_equal(c->back->last[30] << 8 | c->back->last[31], 0xfffa);
	/* a VLAN's tag, only where it is switched on */
	tx_tail(c, BUFFERS, 100 | 0x49u << 24, 0x2007u << 16);
	assert_int_equal(c->back->len, 100);
	set(c, 0, 0x40000240);
	tx_tail(c, BUFFERS, 100 | 0x49u << 24, 0x2007u << 16);
	assert_int_equal(c->back->len, 104);
	assert_memory_equal(c->back->last + 12, ((uint8_t[]){ 0x81, 0, 0x20, 7, 0x22, 0x22 }), 6);
	/* short ones grow; ones that lie outside RAM vanish, and the ring goes on */
	n = c->back->sent;
	tx_tail(c, BUFFERS, 20 | 0x09u << 24, 0);
	assert_int_equal(c->back->len, 60);
	tx_tail(c, 1ull << 40, 100 | 0x09u << 24, 0);
	assert_int_equal(c->back->sent, n + 1);
	tx_tail(c, BUFFERS, 100 | 0x09u << 24, 0);
	assert_int_equal(c->back->sent, n + 2);
	/* a busy back-end: the head stays until it takes it */
	c->back->busy = true;
	n = tx_tail(c, BUFFERS, 200 | 0x09u << 24, 0);
	assert_int_equal(get(c, 0x3810), n);
	assert_int_equal(tx_status(c, n), 0);
	c->back->busy = false;
	net_drained(&c->back->link);
	assert_int_equal(c->back->len, 200);
	assert_int_equal(get(c, 0x3810), (n + 1) % N);
	/* paused meanwhile: it is lost, not sent twice */
	c->back->busy = true;
	tx_tail(c, BUFFERS, 300 | 0x09u << 24, 0);
	c->device->ops->pause(c->device);
	c->back->busy = false;
	n = c->back->sent;
	c->device->ops->resume(c->device);
	assert_int_equal(c->back->sent, n);
	card_close(c);
}

static void test_tso(void **state)
{
	struct card *c = card_open();
	static uint8_t f[8000];
	uint32_t sum;

	rings(c);
	memset(f, 0x33, sizeof(f));
	memset(f + 14, 0, 40);
	f[12] = 8;
	f[13] = 0;
	f[14] = 0x45;
	f[23] = 6;
	memcpy(f + 26, (uint8_t[]){ 10, 0, 0, 1, 10, 0, 0, 2 }, 8);
	f[46] = 0x50;
	f[47] = 0x80; /* CWR */
	f[50] = 0x14; /* the pseudo header without its length: 0a00+0001+0a00+0002+0006 */
	f[51] = 0x09;
	for (unsigned i = 0; i < sizeof(f); i += 4000)
		ram_write(c, BUFFERS + 0x1000 * (i / 4000), f + i, 4000);
	/* context: IP at 14, its sum at 24, to 33; TCP at 34, its sum at 50; 54 bytes of headers, 1460 a segment */
	tx_tail(c, 14 | 24u << 8 | 33u << 16 | (uint64_t)34 << 32 | (uint64_t)50 << 40, 7946 | 0x27u << 24, 54u << 8 | 1460u << 16);
	tx_tail(c, BUFFERS, 4000 | 1u << 20 | 0x24u << 24, 3u << 8);
	tx_tail(c, BUFFERS + 0x1000, 4000 | 1u << 20 | 0x2du << 24, 0);
	assert_int_equal(c->back->sent, 1);
	assert_int_equal(c->back->len, 8000);
	assert_int_equal(c->back->wire.gso, NET_GSO_TCP4);
	assert_int_equal(c->back->wire.gso_size, 1460);
	assert_int_equal(c->back->wire.hdr_len, 54);
	assert_int_equal(c->back->wire.csum_start, 34);
	assert_int_equal(c->back->wire.csum_offset, 16);
	assert_int_equal(c->back->wire.flags, NET_WIRE_CSUM | NET_WIRE_ECN);
	assert_int_equal(c->back->last[16] << 8 | c->back->last[17], 8000 - 14);
	assert_int_equal(net_fold(net_sum(0, c->back->last + 14, 20)), 0xffff);
	sum = 0x1409 + 8000 - 34;
	assert_int_equal(c->back->last[50] << 8 | c->back->last[51], (sum & 0xffff) + (sum >> 16));
	assert_int_equal(get(c, 0x40f8), 1);
	assert_int_equal(get(c, 0x40d4), 6); /* 7946 bytes in six */
	/* headers that cannot be */
	tx_tail(c, 14 | 24u << 8 | 33u << 16 | (uint64_t)200 << 32 | (uint64_t)50 << 40, 7946 | 0x27u << 24, 54u << 8 | 1460u << 16);
	tx_tail(c, BUFFERS, 4000 | 1u << 20 | 0x2du << 24, 3u << 8);
	assert_int_equal(c->back->sent, 1);
	/* segments of nothing */
	tx_tail(c, 14 | 24u << 8 | 33u << 16 | (uint64_t)34 << 32 | (uint64_t)50 << 40, 7946 | 0x27u << 24, 54u << 8);
	tx_tail(c, BUFFERS, 4000 | 1u << 20 | 0x2du << 24, 3u << 8);
	assert_int_equal(c->back->sent, 1);
	/* a sum alone */
	tx_tail(c, 14 | 24u << 8 | 33u << 16 | (uint64_t)34 << 32 | (uint64_t)50 << 40, 0x20u << 24, 0);
	tx_tail(c, BUFFERS, 1000 | 1u << 20 | 0x29u << 24, 3u << 8);
	assert_int_equal(c->back->sent, 2);
	assert_int_equal(c->back->wire.gso, 0);
	assert_int_equal(c->back->wire.csum_start, 34);
	rig_roundtrip(&c->rig);
	card_close(c);
}

/* ---- receiving */

static void test_receive(void **state)
{
	struct card *c = card_open();
	static uint8_t f[9000], got[2048];
	struct rx d;

	rings(c);
	to_us(c, f, 1000);
	assert_int_equal(receive(c, f, 1000), NET_DONE);
	d = rx_at(c, 0);
	assert_int_equal(d.length, 1004);
	assert_int_equal(d.status, 0x07); /* done, whole, sums not looked at */
	ram_read(c, BUFFERS, got, 1000);
	assert_memory_equal(got, f, 1000);
	assert_int_equal(c->rig.level[pci_pirq(3, 1)], 1);
	assert_int_equal(get(c, 0xc0) & 0x80, 0x80);
	/* not ours; all; a group by table; anybody's when promiscuous */
	f[5] ^= 0x40;
	receive(c, f, 1000);
	assert_int_equal(get(c, 0x2810), 1);
	memset(f, 0xff, 6);
	receive(c, f, 1000);
	assert_int_equal(get(c, 0x2810), 2);
	memcpy(f, (uint8_t[]){ 1, 0, 0x5e, 1, 2, 3 }, 6);
	receive(c, f, 1000);
	assert_int_equal(get(c, 0x2810), 2);
	set(c, 0x5200 + 4 * (0x30 >> 5), 1u << (0x30 & 31)); /* 0x0302 >> 4 */
	receive(c, f, 1000);
	assert_int_equal(get(c, 0x2810), 3);
	assert_int_equal(rx_at(c, 2).status & 0x80, 0x80);
	/* too long, unless it may be: then in pieces of 2048 */
	to_us(c, f, 9000);
	receive(c, f, 5000);
	assert_int_equal(get(c, 0x2810), 3);
	assert_int_equal(get(c, 0x40ac), 1);
	set(c, 0x100, 0x8022);
	receive(c, f, 5000);
	assert_int_equal(get(c, 0x2810), 6);
	assert_int_equal(rx_at(c, 3).length, 2048);
	assert_int_equal(rx_at(c, 3).status & 3, 1);
	assert_int_equal(rx_at(c, 5).length, 5004 - 4096);
	assert_int_equal(rx_at(c, 5).status & 3, 3);
	/* VLANs: filtered, stripped */
	set(c, 0, 0x40000240);
	set(c, 0x100, 0x4048002); /* CRC off, filter on */
	memcpy(f + 12, (uint8_t[]){ 0x81, 0, 0x20, 7 }, 4);
	receive(c, f, 1000);
	assert_int_equal(get(c, 0x2810), 6);
	set(c, 0x5600, 1u << 7);
	receive(c, f, 1000);
	d = rx_at(c, 6);
	assert_int_equal(d.length, 996);
	assert_int_equal(d.special, 0x2007);
	assert_int_equal(d.status & 8, 8);
	/* sums */
	set(c, 0x5000, 0x300);
	to_us(c, f, 60);
	memset(f + 12, 0, 48);
	memcpy(f + 12, (uint8_t[]){ 8, 0, 0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 9, 0, 9, 0, 10, 0x12, 0x34 }, 30);
	receive(c, f, 60);
	d = rx_at(c, 7);
	assert_int_equal(d.status & 0x64, 0x60);
	assert_int_equal(d.errors, 0x60);
	rig_roundtrip(&c->rig);
	card_close(c);
}

static void test_no_buffers(void **state)
{
	struct card *c = card_open();
	uint8_t f[100];

	rings(c);
	to_us(c, f, 100);
	for (unsigned i = 0; i < N - 1; i++)
		assert_int_equal(receive(c, f, 100), NET_DONE);
	assert_int_equal(receive(c, f, 100), NET_BUSY);
	assert_int_equal(get(c, 0xc0) & 0x50, 0x50); /* low water was reached, and nothing is left */
	assert_int_equal(c->back->readied, 0);
	set(c, 0x2818, 3);
	assert_int_equal(c->back->readied, 1);
	assert_int_equal(receive(c, f, 100), NET_DONE);
	card_close(c);
}

static void test_throttle(void **state)
{
	struct card *c = card_open();
	unsigned pirq = pci_pirq(3, 1);
	uint8_t f[100];

	rings(c);
	to_us(c, f, 100);
	set(c, 0xc4, 1000); /* 256 us */
	receive(c, f, 100);
	assert_int_equal(c->rig.edges[pirq], 1);
	get(c, 0xc0);
	receive(c, f, 100);
	assert_int_equal(c->rig.edges[pirq], 1);
	clock_advance(c->rig.env.clock, 255000);
	assert_int_equal(c->rig.edges[pirq], 1);
	clock_advance(c->rig.env.clock, 2000);
	assert_int_equal(c->rig.edges[pirq], 2);
	get(c, 0xc0);
	clock_advance(c->rig.env.clock, 10000000);
	/* delayed: begun anew by each frame, but not for ever */
	set(c, 0xc4, 0);
	set(c, 0x2820, 100); /* 102 us */
	set(c, 0x282c, 200); /* 205 us */
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(c->rig.edges[pirq], 2);
		receive(c, f, 100);
		clock_advance(c->rig.env.clock, 60000);
	}
	assert_int_equal(c->rig.edges[pirq], 3);
	card_close(c);
}

/* Anything, anywhere: nothing breaks, and what is saved can be loaded. */
static void test_random(void **state)
{
	static const uint16_t regs[] = { 0, 0x10, 0x14, 0x20, 0x38, 0xc0, 0xc4, 0xc8, 0xd0, 0xd8, 0x100, 0x400, 0x2800, 0x2804, 0x2808,
					 0x2810, 0x2818, 0x2820, 0x282c, 0x3800, 0x3804, 0x3808, 0x3810, 0x3818, 0x3820, 0x3828, 0x382c,
					 0x5000, 0x5200, 0x5400, 0x5404, 0x5600 };
	struct card *c = card_open();
	uint32_t seed = 12345;
	static uint8_t f[20000];

	for (unsigned round = 0; round < 200; round++) {
		rings(c);
		for (unsigned i = 0; i < 4 * N; i++) {
			uint32_t d[4] = { BUFFERS + (rig_random(&seed) & 0xffff), rig_random(&seed) & 0x1001, rig_random(&seed), rig_random(&seed) };

			if (rig_random(&seed) & 3)
				d[1] = 0;
			if (rig_random(&seed) & 1)
				d[2] &= 0xff3003ff;
			ram_write(c, TX_RING + 16 * i, d, 16);
		}
		for (unsigned i = 0; i < 60; i++) {
			unsigned reg = regs[rig_random(&seed) % ARRAY_LEN(regs)];
			uint32_t v = rig_random(&seed) >> (rig_random(&seed) & 31);

			if (rig_random(&seed) & 1)
				reg = rig_random(&seed) & 0x1fffc;
			if (reg == 0x2804 || reg == 0x3804)
				v &= 1;
			set(c, reg, v);
			get(c, rig_random(&seed) & 0x1fffc);
			if (i % 8 == 0) {
				set(c, 0x3818, rig_random(&seed) % N);
				f[0] = (uint8_t)rig_random(&seed);
				receive(c, f, 60 + rig_random(&seed) % 9000);
				c->back->busy = rig_random(&seed) & 1;
				net_drained(&c->back->link);
			}
		}
		if (round % 20 == 0)
			rig_roundtrip(&c->rig);
	}
	card_close(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_eeprom),	   cmocka_unit_test(test_transmit), cmocka_unit_test(test_tso),
		cmocka_unit_test(test_receive),	   cmocka_unit_test(test_no_buffers), cmocka_unit_test(test_throttle),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
