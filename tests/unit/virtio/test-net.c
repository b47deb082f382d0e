/* SPDX-License-Identifier: Apache-2.0 */
/* The network card behind MMIO: frames over several buffers, too few of them, sending, commands and the filter they make. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#include "driver.h"
#include "virtio/net-private.h"

#define BASE 0xfec80000u
#define HEAD 12u
#define BUFFER 512u
#define QUEUE 64

struct wire {
	struct net_link l;
	unsigned sent, ready;
	enum net_result answer;
	size_t len;
	struct net_wire wire;
	uint8_t data[NET_WIRE_FRAME];
};

static struct device_env env;
static struct virtio *v;
static struct driver d;
static struct wire w;

static enum net_result wire_send(struct net_link *l, const struct net_wire *x, const struct iovec *iov, unsigned n, size_t len)
{
	if (w.answer == NET_BUSY)
		return NET_BUSY;
	w.wire = *x;
	w.len = 0;
	for (unsigned i = 0; i < n; w.len += iov[i++].iov_len)
		memcpy(w.data + w.len, iov[i].iov_base, iov[i].iov_len);
	assert_int_equal(w.len, len);
	w.sent++;
	return NET_DONE;
}

static void wire_ready(struct net_link *l)
{
	w.ready++;
}

static const struct net_link_ops wire_ops = { .kind = "wire", .send = wire_send, .ready = wire_ready };

static void out(unsigned at, uint32_t value)
{
	mem_write(env.mem, BASE + at, value, 4);
}

/* A driver with these features and queue `n`. */
static void open_card(uint64_t features, bool packed, unsigned n)
{
	struct net_config c = { .mac = { 0x52, 1, 2, 3, 4, 5 } };
	struct err e;

	memset(&w, 0, sizeof(w));
	env = (struct device_env){ .mem = mem_create(RAM_SIZE, &e), .clock = clock_create_manual() };
	assert_int_equal(mem_map_ram(env.mem, 0, 0, RAM_SIZE, "ram", &e), 0);
	assert_int_equal(net_link_init(&w.l, NULL, &wire_ops, &c, NET_TAKES_CSUM | NET_TAKES_TSO4, &e), 0);
	v = virtio_net_create(&env, 0, &(struct virtio_net_config){ .link = &w.l, .pairs = 1 }, &e);
	assert_int_equal(virtio_mmio_attach(v, BASE, (struct irq_line){ 0 }, &e), 0);
	v->device.ops->resume(&v->device);
	out(0x70, 3);
	out(0x24, 1);
	out(0x20, (uint32_t)(features >> 32) | 1u | (packed ? 4 : 0));
	out(0x24, 0);
	out(0x20, (uint32_t)features);
	out(0x70, 11);
	assert_int_equal(mem_read(env.mem, BASE + 0x70, 4), 11);
	out(0x30, n);
	out(0x38, QUEUE);
	out(0x80, AT_DESC);
	out(0x90, AT_DRIVER);
	out(0xa0, AT_DEVICE);
	out(0x44, 1);
	driver_init(&d, env.mem, &v->queue[n], QUEUE, packed);
	out(0x70, 15);
	w.ready = 0;
}

static void close_card(void)
{
	v->device.ops->destroy(&v->device);
	net_link_dispose(&w.l);
	clock_destroy(env.clock);
	mem_destroy(env.mem);
}

static uint32_t buffer_at(unsigned i)
{
	return AT_DATA + i * 2 * BUFFER;
}

static void add_buffers(unsigned from, unsigned n)
{
	for (unsigned i = from; i < from + n; i++)
		driver_add(&d, &(struct piece){ buffer_at(i), BUFFER, D_WRITE }, 1);
}

static enum net_result deliver(const uint8_t *frame, size_t len, const struct net_wire *x)
{
	struct iovec iov[2] = { { (void *)frame, 20 }, { (void *)(frame + 20), len - 20 } };
	enum net_result r = net_deliver(&w.l, x, iov, 2);

	net_delivered(&w.l);
	return r;
}

/* What the driver is told of packets' length: nothing, unless somebody said one. */
static void test_mtu(void **state)
{
	for (unsigned mtu = 0; mtu <= 9000; mtu += 9000) {
		struct net_config c = { .mac = { 0x52, 1, 2, 3, 4, 5 }, .mtu = (uint16_t)mtu };
		struct err e;

		memset(&w, 0, sizeof(w));
		env = (struct device_env){ .mem = mem_create(RAM_SIZE, &e), .clock = clock_create_manual() };
		assert_int_equal(mem_map_ram(env.mem, 0, 0, RAM_SIZE, "ram", &e), 0);
		assert_int_equal(net_link_init(&w.l, NULL, &wire_ops, &c, 0, &e), 0);
		v = virtio_net_create(&env, 0, &(struct virtio_net_config){ .link = &w.l, .pairs = 1 }, &e);
		assert_int_equal(virtio_mmio_attach(v, BASE, (struct irq_line){ 0 }, &e), 0);
		out(0x14, 0);
		assert_int_equal(!!(mem_read(env.mem, BASE + 0x10, 4) & NET_F_MTU), mtu != 0);
		assert_int_equal(mem_read(env.mem, BASE + 0x100 + 10, 2), mtu ? mtu : 1500);
		close_card();
	}
}

static void test_receive(void **state)
{
	static const struct net_wire plain = { .flags = NET_WIRE_VALID };
	static uint8_t frame[1400], got[1600];
	uint64_t features = NET_F_MRG_RXBUF | NET_F_GUEST_CSUM;

	for (unsigned i = 0; i < sizeof(frame); i++)
		frame[i] = (uint8_t)(i * 3 + 2);
	for (unsigned packed = 0; packed < 2; packed++) {
		uint16_t id;
		uint32_t len = 0, total = 0;

		open_card(features, packed, 0);
		add_buffers(0, 2); /* one too few */
		out(0x50, 0);
		assert_int_equal(deliver(frame, sizeof(frame), &plain), NET_BUSY);
		assert_false(driver_used(&d, &id, &len, 1));
		add_buffers(2, 2);
		w.ready = 0;
		out(0x50, 0);
		assert_int_equal(w.ready, 1);
		assert_int_equal(deliver(frame, sizeof(frame), &plain), NET_DONE);
		for (unsigned i = 0; i < 3; i++) {
			assert_true(driver_used(&d, &id, &len, 1));
			assert_int_equal(id, i);
			memcpy(got + total, d.ram + buffer_at(i), len);
			total += len;
		}
		assert_false(driver_used(&d, &id, &len, 1));
		assert_int_equal(total, HEAD + sizeof(frame));
		assert_memory_equal(got + HEAD, frame, sizeof(frame));
		assert_int_equal(got[0], 2);	/* checksums are right */
		assert_int_equal(got[10], 3); /* buffers */
		/* paused: nothing is written, and the back-end is told when it goes on */
		v->device.ops->pause(&v->device);
		assert_int_equal(deliver(frame, 100, &plain), NET_BUSY);
		v->device.ops->resume(&v->device);
		assert_int_equal(w.ready, 2);
		assert_int_equal(deliver(frame, 100, &plain), NET_DONE);
		assert_true(driver_used(&d, &id, &len, 1));
		assert_int_equal(len, HEAD + 100);
		close_card();
	}
}

/* Without mergeable buffers a frame that does not fit is lost, and the buffer stays. */
static void test_too_small(void **state)
{
	static const struct net_wire plain;
	static uint8_t frame[1400] = { 2 };
	uint32_t len = 0;
	uint16_t id;

	open_card(0, false, 0);
	add_buffers(0, 2);
	assert_int_equal(deliver(frame, sizeof(frame), &plain), NET_DONE);
	assert_int_equal(w.l.stats.rx_drops, 1);
	assert_int_equal(deliver(frame, 200, &plain), NET_DONE);
	assert_true(driver_used(&d, &id, &len, 1));
	assert_int_equal(id, 0);
	assert_int_equal(len, HEAD + 200);
	close_card();
}

static void test_send(void **state)
{
	struct net_header h = { .flags = 1, .gso_type = 1, .hdr_len = 54, .gso_size = 1000, .csum_start = 34, .csum_offset = 16 };
	struct piece p[2] = { { AT_DATA, 100, 0 }, { AT_DATA + 0x1000, 3000, 0 } };
	uint32_t len = 0;
	uint16_t id;

	for (unsigned packed = 0; packed < 2; packed++) {
		open_card(NET_F_CSUM | NET_F_HOST_TSO4, packed, 1);
		for (unsigned i = 0; i < 3000; i++)
			d.ram[AT_DATA + 0x1000 + i] = (uint8_t)(i * 5);
		memcpy(d.ram + AT_DATA, &h, HEAD);
		driver_add(&d, p, 2);
		w.answer = NET_BUSY;
		out(0x50, 1);
		assert_false(driver_used(&d, &id, &len, 2));
		w.answer = NET_DONE;
		net_drained(&w.l);
		assert_int_equal(w.sent, 1);
		assert_int_equal(w.len, 3088);
		assert_memory_equal(w.data + 88, d.ram + AT_DATA + 0x1000, 3000);
		assert_int_equal(w.wire.gso, NET_GSO_TCP4);
		assert_int_equal(w.wire.gso_size, 1000);
		assert_true(driver_used(&d, &id, &len, 2));
		/* what was not agreed upon, and a header alone: dropped, and the buffers come back */
		d.ram[AT_DATA + 1] = 4;
		driver_add(&d, p, 2);
		out(0x50, 1);
		assert_true(driver_used(&d, &id, &len, 2));
		driver_add(&d, &(struct piece){ AT_DATA, HEAD, 0 }, 1);
		out(0x50, 1);
		assert_true(driver_used(&d, &id, &len, 1));
		assert_int_equal(w.sent, 1);
		assert_int_equal(w.l.stats.tx_drops, 2);
		close_card();
	}
}

/* One command; the answer, 0 or 1. */
static int command(uint8_t class, uint8_t what, const void *data, uint32_t size)
{
	struct piece p[3] = { { AT_DATA, 2, 0 }, { AT_DATA + 0x1000, size, 0 }, { AT_DATA + 0x8000, 1, D_WRITE } };
	uint32_t len = 0;
	uint16_t id;

	d.ram[AT_DATA] = class;
	d.ram[AT_DATA + 1] = what;
	memcpy(d.ram + AT_DATA + 0x1000, data, size);
	d.ram[AT_DATA + 0x8000] = 0xff;
	driver_add(&d, p, 3);
	out(0x50, 2);
	assert_true(driver_used(&d, &id, &len, 3));
	return d.ram[AT_DATA + 0x8000];
}

static bool wanted(const char *to, unsigned vlan)
{
	uint8_t f[64] = { 0 };
	struct virtio_net *n = container_of(v, struct virtio_net, v);

	memcpy(f, to, 6);
	f[12] = vlan ? 0x81 : 8;
	f[14] = (uint8_t)(vlan >> 8);
	f[15] = (uint8_t)vlan;
	return net_wanted(n, f, sizeof(f));
}

static void test_control(void **state)
{
	static const char own[] = "\x52\1\2\3\4\5", other[] = "\x52\1\2\3\4\6", group[] = "\1\0\x5e\0\0\1", all[] = "\xff\xff\xff\xff\xff\xff";
	static const uint8_t tables[] = { 1, 0, 0, 0, 0x52, 1, 2, 3, 4, 6, 1, 0, 0, 0, 1, 0, 0x5e, 0, 0, 1 };
	static const uint8_t lie[] = { 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5, 6 };
	static const uint8_t many[8 + 65 * 6] = { 65 };

	open_card(NET_F_CTRL_VQ | NET_F_CTRL_RX | NET_F_CTRL_RX_EXTRA | NET_F_CTRL_VLAN | NET_F_CTRL_MAC_ADDR | NET_F_GUEST_CSUM |
			  NET_F_GUEST_OFFLOADS, false, 2);
	assert_true(wanted(other, 0)); /* until the driver has said what it wants */
	assert_int_equal(command(0, 0, "\0", 1), 0);
	assert_true(wanted(own, 0) && wanted(all, 0) && !wanted(other, 0) && !wanted(group, 0));
	assert_int_equal(command(0, 1, "\1", 1), 0);
	assert_true(wanted(group, 0));
	assert_int_equal(command(0, 1, "\0", 1), 0);
	assert_int_equal(command(0, 6, "\1", 1), 1);
	assert_int_equal(command(1, 0, tables, sizeof(tables)), 0);
	assert_true(wanted(other, 0) && wanted(group, 0) && wanted(own, 0));
	assert_int_equal(command(1, 0, lie, sizeof(lie)), 1);
	assert_true(wanted(other, 0)); /* as it was */
	assert_int_equal(command(1, 0, many, sizeof(many)), 0);
	assert_true(wanted("\x52\x77\0\0\0\0", 0)); /* more than there is room for: all */
	assert_int_equal(command(1, 0, "\0\0\0\0\0\0\0\0", 8), 0);
	assert_int_equal(command(1, 1, other, 6), 0);
	assert_true(wanted(other, 0) && !wanted(own, 0));
	assert_false(wanted(other, 300));
	assert_int_equal(command(2, 0, "\x2c\1", 2), 0);
	assert_true(wanted(other, 300));
	assert_int_equal(command(2, 1, "\x2c\1", 2), 0);
	assert_false(wanted(other, 300));
	assert_int_equal(command(2, 0, "\0\x10", 2), 1); /* 4096 */
	assert_int_equal(w.l.card_takes, NET_TAKES_CSUM);
	assert_int_equal(command(5, 0, "\0\0\0\0\0\0\0\0", 8), 0);
	assert_int_equal(w.l.card_takes, 0);
	assert_int_equal(command(5, 0, "\x80\0\0\0\0\0\0\0", 8), 1); /* TSO was not agreed upon */
	assert_int_equal(command(4, 0, "\1\0", 2), 1);		      /* nor several queues */
	assert_int_equal(command(9, 0, "\0", 1), 1);
	out(0x70, 0); /* a reset: as at the beginning */
	assert_true(wanted(own, 0) && wanted("\x52\x99\0\0\0\0", 300));
	close_card();
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mtu), cmocka_unit_test(test_receive), cmocka_unit_test(test_too_small), cmocka_unit_test(test_send),
		cmocka_unit_test(test_control),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
