/* SPDX-License-Identifier: Apache-2.0 */
/* The switch without sockets, on a clock of the test's: who gets which frame. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/err.h"
#include "net/switch.h"

#define PORTS 6
#define SECOND 1000000000ull

struct rig;

struct member {
	struct rig *rig;
	struct switch_port *port;
	uint8_t mac[6];
	unsigned got;
	uint64_t bytes;
	bool stalled, held;
	uint8_t last[70000];
	size_t last_len;
	struct net_wire wire;
	unsigned sends, most; /* calls; frames taken in each (0: all) */
	uint64_t order; /* of frames: a digit of their last bytes each */
};

struct rig {
	struct net_switch *sw;
	uint64_t now, armed;
	struct member m[PORTS];
};

static uint64_t rig_now(void *opaque)
{
	return ((struct rig *)opaque)->now;
}

static void rig_arm(void *opaque, uint64_t at)
{
	((struct rig *)opaque)->armed = at;
}

static int rig_send(void *opaque, const struct switch_out *out, unsigned n)
{
	struct member *m = opaque;
	unsigned taken = 0;

	m->sends++;
	for (; taken < n && !m->stalled && taken < (m->most ? m->most : n); taken++) {
		const struct switch_out *o = &out[taken];

		m->last_len = 0;
		for (unsigned i = 0; i < o->n; i++) {
			memcpy(m->last + m->last_len, o->iov[i].iov_base, o->iov[i].iov_len);
			m->last_len += o->iov[i].iov_len;
		}
		assert_int_equal(m->last_len, o->len);
		m->wire = o->wire;
		m->got++;
		m->bytes += m->last_len;
		m->order = m->order << 4 | (m->last[m->last_len - 1] & 15);
	}
	return (int)taken;
}

static void rig_hold(void *opaque, bool on)
{
	((struct member *)opaque)->held = on;
}

static const struct switch_port_ops ops = { rig_send, rig_hold };

static struct rig *rig_create(const struct switch_config *config)
{
	struct rig *r = calloc(1, sizeof(*r));
	struct switch_env env = { rig_now, rig_arm, r };

	r->now = 1000 * SECOND;
	r->armed = UINT64_MAX;
	r->sw = switch_create(config, &env, NULL);
	assert_non_null(r->sw);
	for (unsigned i = 0; i < PORTS; i++) {
		r->m[i].rig = r;
		memcpy(r->m[i].mac, (uint8_t[]){ 2, 0, 0, 0, 0, (uint8_t)(i + 1) }, 6);
	}
	return r;
}

static struct net_hello hello_of(struct rig *r, unsigned i)
{
	struct net_hello h = { .magic = NET_WIRE_MAGIC, .kind = NET_HELLO_MEMBER };

	memcpy(h.mac, r->m[i].mac, 6);
	snprintf(h.name, sizeof(h.name), "vm%u", i);
	return h;
}

static void join_as(struct rig *r, unsigned i, const struct net_hello *h, bool uplink)
{
	struct switch_port_config c = { .hello = *h, .uplink = uplink, .ops = &ops, .opaque = &r->m[i] };
	struct err e = { 0 };

	assert_int_equal(hello_check(h, &e), 0);
	r->m[i].port = switch_port_add(r->sw, &c, &e);
	if (!r->m[i].port)
		fail_msg("%s", e.text);
}

static void join(struct rig *r, unsigned i)
{
	struct net_hello h = hello_of(r, i);

	join_as(r, i, &h, false);
}

static void rig_destroy(struct rig *r)
{
	switch_destroy(r->sw);
	free(r);
}

static void clear(struct rig *r)
{
	for (unsigned i = 0; i < PORTS; i++) {
		r->m[i].got = 0;
		r->m[i].bytes = 0;
	}
}

/* Who got the frame: a bit each. */
static unsigned give(struct rig *r, unsigned from, const uint8_t *frame, size_t len, const struct net_wire *w)
{
	static const struct net_wire plain;
	uint8_t *copy = malloc(len + SWITCH_HEADROOM);
	unsigned who = 0;

	memcpy(copy + SWITCH_HEADROOM, frame, len);
	clear(r);
	switch_input(r->sw, r->m[from].port, w ? w : &plain, copy + SWITCH_HEADROOM, len);
	switch_flush(r->sw);
	free(copy);
	for (unsigned i = 0; i < PORTS; i++)
		who |= r->m[i].got ? 1u << i : 0;
	return who;
}

static size_t frame(uint8_t *f, const uint8_t to[6], const uint8_t from[6], uint16_t type, size_t len)
{
	memset(f, 0, len);
	memcpy(f, to, 6);
	memcpy(f + 6, from, 6);
	f[12] = (uint8_t)(type >> 8);
	f[13] = (uint8_t)type;
	return len;
}

/* Small frames of a batch go to a port in one call, in order, also when it takes only some of them; large ones go at once. */
static void test_together(void **state)
{
	static uint8_t f[50][SWITCH_HEADROOM + 9000];
	struct rig *r = rig_create(&(struct switch_config){ 0 });
	static const struct net_wire plain;

	join(r, 0);
	join(r, 1);
	join(r, 2);
	for (unsigned i = 0; i < 16; i++) {
		size_t len = frame(f[i] + SWITCH_HEADROOM, r->m[i == 9 ? 2 : 1].mac, r->m[0].mac, 0x88b5, 200);

		f[i][SWITCH_HEADROOM + len - 1] = (uint8_t)i;
		switch_input(r->sw, r->m[0].port, &plain, f[i] + SWITCH_HEADROOM, len);
		assert_int_equal(r->m[1].got + r->m[2].got, 0);
	}
	r->m[1].most = 5; /* it takes five at a time, and then no more for now */
	switch_flush(r->sw);
	assert_int_equal(r->m[1].got, 5);
	assert_int_equal(r->m[2].got, 1);
	for (unsigned i = 0; i < 2; i++)
		switch_port_ready(r->sw, r->m[1].port);
	assert_int_equal(r->m[1].got, 15);
	assert_int_equal(r->m[1].order, 0x012345678abcdefull);
	assert_int_equal(r->m[1].sends, 3);
	/* a large one neither waits nor overtakes */
	r->m[1].most = r->m[1].sends = r->m[1].got = 0;
	for (unsigned i = 0; i < 3; i++) {
		size_t len = frame(f[i] + SWITCH_HEADROOM, r->m[1].mac, r->m[0].mac, 0x88b5, i == 1 ? 9000 : 100);

		f[i][SWITCH_HEADROOM + len - 1] = (uint8_t)i;
		switch_input(r->sw, r->m[0].port, &plain, f[i] + SWITCH_HEADROOM, len);
	}
	assert_int_equal(r->m[1].got, 2);
	switch_flush(r->sw);
	assert_int_equal(r->m[1].order & 0xfff, 0x012);
	/* more than fit one call, and a port that leaves with frames waiting */
	r->m[1].got = 0;
	for (unsigned i = 0; i < 50; i++) {
		size_t len = frame(f[i] + SWITCH_HEADROOM, r->m[1].mac, r->m[0].mac, 0x88b5, 4000);

		switch_input(r->sw, r->m[0].port, &plain, f[i] + SWITCH_HEADROOM, len);
	}
	assert_in_range(r->m[1].got, 32, 49);
	switch_port_remove(r->sw, r->m[1].port);
	switch_flush(r->sw);
	rig_destroy(r);
}

static const uint8_t broadcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

static uint64_t counter(struct rig *r, unsigned i, enum switch_counter c)
{
	struct switch_port_info info;

	assert_int_equal(switch_port_info(r->sw, switch_port_index(r->m[i].port), &info), (int)switch_port_index(r->m[i].port));
	return info.counter[c];
}

static void test_learning(void **state)
{
	struct switch_config config = { .spoofing = true, .ageing = 60 };
	struct rig *r = rig_create(&config);
	struct net_hello h = { .magic = NET_WIRE_MAGIC, .kind = NET_HELLO_MEMBER };
	uint8_t f[100];

	for (unsigned i = 0; i < 4; i++)
		join_as(r, i, &h, false); /* with no address of their own */
	frame(f, broadcast, r->m[0].mac, 0x88b5, 60);
	assert_int_equal(give(r, 0, f, 60, NULL), 0xe);
	frame(f, r->m[0].mac, r->m[1].mac, 0x88b5, 60);
	assert_int_equal(give(r, 1, f, 60, NULL), 1); /* learnt */
	frame(f, r->m[3].mac, r->m[1].mac, 0x88b5, 60);
	assert_int_equal(give(r, 1, f, 60, NULL), 0xd); /* not known: all */
	assert_int_equal(counter(r, 1, SWITCH_UNKNOWN), 1);
	/* it moves */
	frame(f, broadcast, r->m[0].mac, 0x88b5, 60);
	give(r, 2, f, 60, NULL);
	frame(f, r->m[0].mac, r->m[1].mac, 0x88b5, 60);
	assert_int_equal(give(r, 1, f, 60, NULL), 4);
	/* it is forgotten */
	r->now += 61 * SECOND;
	assert_int_equal(give(r, 1, f, 60, NULL), 0xd);
	/* its port goes */
	frame(f, broadcast, r->m[0].mac, 0x88b5, 60);
	give(r, 0, f, 60, NULL);
	switch_port_remove(r->sw, r->m[0].port);
	frame(f, r->m[0].mac, r->m[1].mac, 0x88b5, 60);
	assert_int_equal(give(r, 1, f, 60, NULL), 0xc);
	assert_int_equal(switch_members(r->sw), 3);
	rig_destroy(r);
}

/* A flood of addresses does not grow anything, and takes nothing from a declared one. */
static void test_many_addresses(void **state)
{
	struct switch_config config = { .spoofing = true };
	struct rig *r = rig_create(&config);
	struct net_hello h = { .magic = NET_WIRE_MAGIC, .kind = NET_HELLO_MEMBER };
	uint8_t f[64], mac[6] = { 2, 9 };

	join(r, 0);
	join_as(r, 1, &h, false);
	join_as(r, 2, &h, false);
	for (unsigned i = 0; i < 50000; i++) {
		memcpy(mac + 2, &i, 4);
		frame(f, broadcast, mac, 0x88b5, 60);
		give(r, 1, f, 60, NULL);
	}
	frame(f, r->m[0].mac, r->m[2].mac, 0x88b5, 60);
	assert_int_equal(give(r, 2, f, 60, NULL), 1);
	/* it is declared: nobody else sends from it, though this network lets false sources through */
	frame(f, broadcast, r->m[0].mac, 0x88b5, 60);
	assert_int_equal(give(r, 1, f, 60, NULL), 0);
	assert_int_equal(counter(r, 1, SWITCH_SPOOFED), 1);
	rig_destroy(r);
}

static void test_false_sources(void **state)
{
	struct switch_config config = { 0 };
	struct rig *r = rig_create(&config);
	struct net_hello h = hello_of(r, 1);
	struct err e = { 0 };
	struct switch_port_config twice = { .hello = h, .ops = &ops, .opaque = &r->m[2] };
	uint8_t f[100];

	join(r, 0);
	h.addresses = 2;
	h.v6 = 2;
	memcpy(h.address[0], (uint8_t[]){ 10, 0, 0, 2 }, 4);
	memcpy(h.address[1], (uint8_t[16]){ 0xfd, [15] = 2 }, 16);
	join_as(r, 1, &h, false);
	assert_null(switch_port_add(r->sw, &twice, &e));
	assert_int_equal(e.code, EADDRINUSE);
	assert_non_null(strstr(e.text, "vm1"));

	frame(f, broadcast, r->m[2].mac, 0x88b5, 60);
	assert_int_equal(give(r, 0, f, 60, NULL), 0);
	assert_int_equal(counter(r, 0, SWITCH_SPOOFED), 1);
	/* ARP: the sender's hardware address is looked at without addresses, its protocol address with */
	frame(f, broadcast, r->m[0].mac, 0x0806, 60);
	memcpy(f + 22, r->m[0].mac, 6);
	assert_int_equal(give(r, 0, f, 60, NULL), 2);
	memcpy(f + 22, r->m[1].mac, 6);
	assert_int_equal(give(r, 0, f, 60, NULL), 0);
	frame(f, broadcast, r->m[1].mac, 0x0806, 60);
	memcpy(f + 22, r->m[1].mac, 6);
	memcpy(f + 28, (uint8_t[]){ 10, 0, 0, 2 }, 4);
	assert_int_equal(give(r, 1, f, 60, NULL), 1);
	f[31] = 3;
	assert_int_equal(give(r, 1, f, 60, NULL), 0);
	memset(f + 28, 0, 4); /* a probe */
	assert_int_equal(give(r, 1, f, 60, NULL), 1);
	assert_int_equal(give(r, 1, f, 41, NULL), 0); /* cut off */
	/* IPv4 */
	frame(f, r->m[0].mac, r->m[1].mac, 0x0800, 60);
	f[14] = 0x45;
	memcpy(f + 26, (uint8_t[]){ 10, 0, 0, 2 }, 4);
	assert_int_equal(give(r, 1, f, 60, NULL), 1);
	f[29] = 9;
	assert_int_equal(give(r, 1, f, 60, NULL), 0);
	/* IPv6: its own, the link-local one of its MAC, no other; advertisements of others' addresses neither */
	frame(f, r->m[0].mac, r->m[1].mac, 0x86dd, 90);
	f[14] = 0x60;
	f[20] = 58;
	memcpy(f + 22, (uint8_t[16]){ 0xfd, [15] = 2 }, 16);
	assert_int_equal(give(r, 1, f, 90, NULL), 1);
	f[54] = 136;
	memcpy(f + 62, (uint8_t[16]){ 0xfd, [15] = 2 }, 16);
	assert_int_equal(give(r, 1, f, 90, NULL), 1);
	f[77] = 7;
	assert_int_equal(give(r, 1, f, 90, NULL), 0);
	f[54] = 128;
	memcpy(f + 22, (uint8_t[16]){ 0xfe, 0x80, [8] = 0, 0, 0, 0xff, 0xfe, 0, 0, 2 }, 16);
	assert_int_equal(give(r, 1, f, 90, NULL), 1);
	f[37] = 3;
	assert_int_equal(give(r, 1, f, 90, NULL), 0);
	/* nothing else */
	frame(f, r->m[0].mac, r->m[1].mac, 0x88b5, 60);
	assert_int_equal(give(r, 1, f, 60, NULL), 0);
	rig_destroy(r);
}

static void test_vlans(void **state)
{
	struct switch_config config = { 0 };
	struct rig *r = rig_create(&config);
	struct net_hello h;
	struct net_wire w = { .flags = NET_WIRE_CSUM, .csum_start = 34, .csum_offset = 16, .hdr_len = 54 };
	uint8_t f[100];

	for (unsigned i = 0; i < 5; i++) {
		h = hello_of(r, i);
		h.vlan = i == 1 || i == 2 ? 10 : i == 3 ? 20 : 0;
		if (i == 4) {
			h.trunk = 1;
			h.vlans[10 / 8] |= 1 << (10 % 8);
		}
		join_as(r, i, &h, false);
	}
	frame(f, broadcast, r->m[1].mac, 0x88b5, 60);
	assert_int_equal(give(r, 1, f, 60, &w), 0x14);
	assert_int_equal(r->m[2].last_len, 60);
	assert_int_equal(r->m[4].last_len, 64);
	assert_memory_equal(r->m[4].last + 12, ((uint8_t[]){ 0x81, 0, 0, 10, 0x88, 0xb5 }), 6);
	assert_int_equal(r->m[4].wire.csum_start, 38);
	assert_int_equal(r->m[4].wire.hdr_len, 58);
	/* from the trunk: untagged is the network's own, tagged the VLAN's, others nobody's */
	frame(f, broadcast, r->m[4].mac, 0x88b5, 60);
	assert_int_equal(give(r, 4, f, 60, NULL), 1);
	frame(f, broadcast, r->m[4].mac, 0x8100, 64);
	memcpy(f + 14, (uint8_t[]){ 0x60, 10, 0x88, 0xb5 }, 4);
	w.csum_start = 38;
	w.hdr_len = 58;
	assert_int_equal(give(r, 4, f, 64, &w), 6);
	assert_int_equal(r->m[1].last_len, 60);
	assert_memory_equal(r->m[1].last, broadcast, 6);
	assert_memory_equal(r->m[1].last + 12, ((uint8_t[]){ 0x88, 0xb5 }), 2);
	assert_int_equal(r->m[1].wire.csum_start, 34);
	f[15] = 20;
	assert_int_equal(give(r, 4, f, 64, NULL), 0);
	f[15] = 10;
	f[16] = 0x81; /* a second tag */
	f[17] = 0;
	assert_int_equal(give(r, 4, f, 64, NULL), 0);
	assert_int_equal(counter(r, 4, SWITCH_VLAN), 2);
	/* an access port may not tag; priority alone is fine */
	frame(f, broadcast, r->m[1].mac, 0x8100, 64);
	memcpy(f + 14, (uint8_t[]){ 0, 20, 0x88, 0xb5 }, 4);
	assert_int_equal(give(r, 1, f, 64, NULL), 0);
	memcpy(f + 14, (uint8_t[]){ 0xe0, 0, 0x88, 0xb5 }, 4);
	assert_int_equal(give(r, 1, f, 64, NULL), 0x14);
	/* a known address in another VLAN is not reached */
	frame(f, r->m[3].mac, r->m[1].mac, 0x88b5, 60);
	assert_int_equal(give(r, 1, f, 60, NULL), 0);
	rig_destroy(r);
}

static void test_isolate(void **state)
{
	struct switch_config config = { .isolate = true };
	struct rig *r = rig_create(&config);
	struct net_hello up = { .magic = NET_WIRE_MAGIC, .kind = NET_HELLO_MEMBER, .name = "uplink" };
	uint8_t f[60];

	join(r, 0);
	join(r, 1);
	join_as(r, 2, &up, true);
	frame(f, broadcast, r->m[0].mac, 0x88b5, 60);
	assert_int_equal(give(r, 0, f, 60, NULL), 4);
	frame(f, r->m[1].mac, r->m[0].mac, 0x88b5, 60);
	assert_int_equal(give(r, 0, f, 60, NULL), 0);
	frame(f, broadcast, r->m[5].mac, 0x88b5, 60);
	assert_int_equal(give(r, 2, f, 60, NULL), 3);
	frame(f, r->m[5].mac, r->m[0].mac, 0x88b5, 60);
	assert_int_equal(give(r, 0, f, 60, NULL), 4); /* learnt at the uplink */
	rig_destroy(r);
}

/* type and body of an IGMP message to 224.0.0.22 */
static size_t igmp(uint8_t *f, const uint8_t from[6], const uint8_t *body, size_t n)
{
	frame(f, (uint8_t[]){ 1, 0, 0x5e, 0, 0, 22 }, from, 0x0800, 34 + n);
	f[14] = 0x45;
	f[17] = (uint8_t)(20 + n);
	f[23] = 2;
	memcpy(f + 34, body, n);
	return 34 + n;
}

static size_t mld(uint8_t *f, const uint8_t from[6], const uint8_t *body, size_t n)
{
	frame(f, (uint8_t[]){ 0x33, 0x33, 0, 0, 0, 22 }, from, 0x86dd, 62 + n);
	f[14] = 0x60;
	f[19] = (uint8_t)(8 + n);
	f[20] = 0; /* hop by hop: router alert */
	f[54] = 58;
	memcpy(f + 62, body, n);
	return 62 + n;
}

static void test_multicast4(void **state)
{
	static const uint8_t group[6] = { 1, 0, 0x5e, 1, 2, 3 };
	uint8_t join2[8] = { 0x16, 0, 0, 0, 239, 1, 2, 3 }, leave2[8] = { 0x17, 0, 0, 0, 239, 1, 2, 3 };
	uint8_t query[8] = { 0x11, 100, 0, 0, 0, 0, 0, 0 };
	uint8_t join3[16] = { 0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 239, 1, 2, 3 };
	struct switch_config config = { 0 };
	struct rig *r = rig_create(&config);
	uint8_t f[200];

	for (unsigned i = 0; i < 4; i++)
		join(r, i);
	frame(f, group, r->m[0].mac, 0x0800, 60);
	assert_int_equal(give(r, 0, f, 60, NULL), 0xe); /* nobody has said anything */
	assert_int_equal(give(r, 1, f, igmp(f, r->m[1].mac, join2, 8), NULL), 0); /* no router to hear it */
	frame(f, group, r->m[0].mac, 0x0800, 60);
	assert_int_equal(give(r, 0, f, 60, NULL), 2);
	give(r, 2, f, igmp(f, r->m[2].mac, join3, 16), NULL);
	frame(f, group, r->m[0].mac, 0x0800, 60);
	assert_int_equal(give(r, 0, f, 60, NULL), 6);
	r->now += 1000 * SECOND; /* nobody asks: it lasts */
	assert_int_equal(give(r, 0, f, 60, NULL), 6);
	give(r, 1, f, igmp(f, r->m[1].mac, leave2, 8), NULL);
	frame(f, group, r->m[0].mac, 0x0800, 60);
	assert_int_equal(give(r, 0, f, 60, NULL), 4);
	/* a querier: hears reports and gets all groups; what is not confirmed ends */
	assert_int_equal(give(r, 3, f, igmp(f, r->m[3].mac, query, 8), NULL), 7);
	assert_int_equal(give(r, 1, f, igmp(f, r->m[1].mac, join2, 8), NULL), 8);
	frame(f, group, r->m[0].mac, 0x0800, 60);
	assert_int_equal(give(r, 0, f, 60, NULL), 0xa); /* 2 has not confirmed for 1000 s */
	/* link-local groups go to all */
	frame(f, (uint8_t[]){ 1, 0, 0x5e, 0, 0, 251 }, r->m[0].mac, 0x0800, 60);
	assert_int_equal(give(r, 0, f, 60, NULL), 0xe);
	/* a port that goes */
	switch_port_remove(r->sw, r->m[1].port);
	switch_port_remove(r->sw, r->m[3].port);
	frame(f, group, r->m[0].mac, 0x0800, 60);
	assert_int_equal(give(r, 0, f, 60, NULL), 4); /* nobody known: all there are */
	rig_destroy(r);
}

static void test_multicast6(void **state)
{
	static const uint8_t group[6] = { 0x33, 0x33, 0xff, 1, 2, 3 };
	uint8_t report[28] = { 143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0xff, 2, [23] = 1, 0xff, 1, 2, 3 };
	uint8_t done[28];
	struct switch_config config = { 0 };
	struct rig *r = rig_create(&config);
	uint8_t f[200];

	memcpy(done, report, sizeof(done));
	done[8] = 3; /* include nobody */
	for (unsigned i = 0; i < 4; i++)
		join(r, i);
	give(r, 1, f, mld(f, r->m[1].mac, report, 28), NULL);
	frame(f, group, r->m[0].mac, 0x86dd, 80);
	assert_int_equal(give(r, 0, f, 80, NULL), 2);
	give(r, 1, f, mld(f, r->m[1].mac, done, 28), NULL);
	frame(f, group, r->m[0].mac, 0x86dd, 80);
	assert_int_equal(give(r, 0, f, 80, NULL), 0xe);
	/* records that claim more than there is */
	report[7] = 200;
	report[11] = 255;
	give(r, 1, f, mld(f, r->m[1].mac, report, 28), NULL);
	for (unsigned n = 0; n < 28; n++)
		give(r, 1, f, mld(f, r->m[1].mac, report, n), NULL);
	rig_destroy(r);
}

static void test_bad_frames(void **state)
{
	static const struct net_wire bad[] = {
		{ .flags = 0x80 },
		{ .gso = 9, .flags = NET_WIRE_CSUM, .gso_size = 1000, .csum_start = 34, .csum_offset = 16, .hdr_len = 54 },
		{ .gso = NET_GSO_TCP4, .gso_size = 1000, .hdr_len = 54 },
		{ .gso = NET_GSO_TCP4, .flags = NET_WIRE_CSUM, .gso_size = 1, .csum_start = 34, .csum_offset = 16, .hdr_len = 54 },
		{ .flags = NET_WIRE_CSUM, .csum_start = 60, .csum_offset = 0 },
		{ .flags = NET_WIRE_CSUM, .csum_start = 0, .csum_offset = 0 },
		{ .flags = NET_WIRE_CSUM, .csum_start = 65535, .csum_offset = 65535 },
		{ .hdr_len = 61 },
	};
	struct switch_config config = { 0 };
	struct rig *r = rig_create(&config);
	uint8_t f[60];

	join(r, 0);
	join(r, 1);
	frame(f, broadcast, r->m[0].mac, 0x0800, 60);
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(give(r, 0, f, 60, &bad[i]), 0);
	for (unsigned n = 0; n < 14; n++)
		assert_int_equal(give(r, 0, f, n, NULL), 0);
	assert_int_equal(counter(r, 0, SWITCH_MALFORMED), ARRAY_LEN(bad) + 14);
	frame(f, broadcast, broadcast, 0x0800, 60); /* a source that is a group */
	assert_int_equal(give(r, 0, f, 60, NULL), 0);
	rig_destroy(r);
}

/* A member that takes nothing costs the others nothing, and memory only so much. */
static void test_stalled(void **state)
{
	struct switch_config config = { 0 };
	struct rig *r = rig_create(&config);
	static uint8_t f[64000];
	struct switch_port_info info;

	for (unsigned i = 0; i < 3; i++)
		join(r, i);
	r->m[1].stalled = true;
	frame(f, broadcast, r->m[0].mac, 0x88b5, sizeof(f));
	for (unsigned i = 0; i < 2000; i++)
		assert_int_equal(give(r, 0, f, sizeof(f), NULL), 4);
	assert_int_equal(switch_port_info(r->sw, 1, &info), 1);
	assert_int_equal(info.queued_frames, SWITCH_QUEUE_BYTES / sizeof(f));
	assert_int_equal(info.counter[SWITCH_QUEUE_FULL], 2000 - info.queued_frames);
	/* small ones */
	for (unsigned i = 0; i < 2000; i++)
		assert_int_equal(give(r, 0, f, 60, NULL), 4);
	/* it wakes up */
	r->m[1].stalled = false;
	clear(r);
	switch_port_ready(r->sw, r->m[1].port);
	assert_true(r->m[1].got > info.queued_frames);
	assert_int_equal(r->m[1].last_len, 60);
	assert_int_equal(give(r, 0, f, 60, NULL), 6);
	/* it goes with frames waiting */
	r->m[1].stalled = true;
	give(r, 0, f, 60, NULL);
	switch_port_remove(r->sw, r->m[1].port);
	rig_destroy(r);
}

/* Ten seconds of as much as will go, by the clock of the test: within 5 % of the limit both ways. */
static void test_limits(void **state)
{
	struct switch_config config = { 0 };
	static const size_t sizes[] = { 60, 1514, 64000 };
	static uint8_t f[64000];

	for (unsigned s = 0; s < ARRAY_LEN(sizes); s++) {
		for (unsigned way = 0; way < 2; way++) {
			struct rig *r = rig_create(&config);
			struct net_hello h = hello_of(r, 0), g = hello_of(r, 1);
			uint64_t rate = sizes[s] == 60 ? 500000 : 12500000, total = 0;

			(way ? &g : &h)->limit_out = way ? rate : 0;
			(way ? &g : &h)->limit_in = way ? 0 : rate;
			join_as(r, 0, &h, false);
			join_as(r, 1, &g, false);
			frame(f, r->m[1].mac, r->m[0].mac, 0x88b5, sizes[s]);
			for (uint64_t end = r->now + 10 * SECOND; r->now < end; r->now += SECOND / 5000) {
				clear(r);
				if (r->armed <= r->now) {
					r->armed = UINT64_MAX;
					switch_tick(r->sw);
				}
				total += r->m[1].bytes;
				for (unsigned i = 0; i < 10 && !r->m[0].held; i++) {
					give(r, 0, f, sizes[s], NULL);
					total += r->m[1].bytes;
				}
			}
			assert_in_range(total, rate * 10 * 95 / 100, rate * 10 * 105 / 100);
			rig_destroy(r);
		}
	}
}

struct seen {
	unsigned in, out;
	size_t bytes;
};

static void see(void *opaque, unsigned port, bool out, const struct net_wire *w, const struct iovec *iov, unsigned n)
{
	struct seen *s = opaque;

	if (out)
		s->out++;
	else
		s->in++;
	for (unsigned i = 0; i < n; i++)
		s->bytes += iov[i].iov_len;
}

static void test_capture(void **state)
{
	struct switch_config config = { 0 };
	struct rig *r = rig_create(&config);
	struct seen all = { 0 }, one = { 0 };
	struct switch_capture *c[2];
	uint8_t f[60];

	for (unsigned i = 0; i < 3; i++)
		join(r, i);
	c[0] = switch_capture_add(r->sw, -1, see, &all);
	c[1] = switch_capture_add(r->sw, 1, see, &one);
	frame(f, broadcast, r->m[0].mac, 0x88b5, 60);
	give(r, 0, f, 60, NULL);
	frame(f, r->m[0].mac, r->m[1].mac, 0x88b5, 60);
	give(r, 1, f, 60, NULL);
	assert_int_equal(all.in, 2);
	assert_int_equal(all.out, 0);
	assert_int_equal(all.bytes, 120);
	assert_int_equal(one.in, 1);
	assert_int_equal(one.out, 1);
	switch_capture_remove(r->sw, c[0]);
	give(r, 1, f, 60, NULL);
	assert_int_equal(all.in, 2);
	assert_int_equal(one.in, 2);
	rig_destroy(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_together), cmocka_unit_test(test_learning),     cmocka_unit_test(test_many_addresses),
		cmocka_unit_test(test_false_sources), cmocka_unit_test(test_vlans),
		cmocka_unit_test(test_isolate),      cmocka_unit_test(test_multicast4),
		cmocka_unit_test(test_multicast6),   cmocka_unit_test(test_bad_frames),
		cmocka_unit_test(test_stalled),      cmocka_unit_test(test_limits),
		cmocka_unit_test(test_capture),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
