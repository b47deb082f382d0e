/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch with three members and an uplink, all hostile: the input is a list of steps, each a byte of what (who sends, who stalls,
 * who leaves, time) and a frame with its header. What comes out must be such that a receiver need not look again.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "backend/net-member.h"
#include "backend/net.h"
#include "base/err.h"
#include "net/serve.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PORTS 4
#define STEPS 200
#define TOGETHER 40

struct member {
	struct switch_port *port;
	bool stalled;
};

struct rig {
	struct net_switch *sw;
	uint64_t now;
	struct member m[PORTS];
	uint8_t frame[TOGETHER][SWITCH_HEADROOM + 512]; /* of a batch */
	unsigned nframes;
};

static uint64_t rig_now(void *opaque)
{
	return ((struct rig *)opaque)->now;
}

static void rig_arm(void *opaque, uint64_t at)
{
}

static int rig_send(void *opaque, const struct switch_out *out, unsigned n)
{
	struct member *m = opaque;
	uint8_t sum = 0;

	for (unsigned f = 0; f < n; f++) {
		const struct switch_out *o = &out[f];
		size_t len = 0;

		if (m->stalled || sum == 0x78)
			return (int)f;
		for (unsigned i = 0; i < o->n; i++) {
			for (size_t k = 0; k < o->iov[i].iov_len; k++)
				sum ^= ((const uint8_t *)o->iov[i].iov_base)[k];
			len += o->iov[i].iov_len;
		}
		CHECK(len == o->len && (net_wire_fits(&o->wire, len) || len > NET_WIRE_FRAME));
	}
	return sum == 0x77 ? -EPIPE : (int)n;
}

static void rig_hold(void *opaque, bool on)
{
}

static const struct switch_port_ops ops = { rig_send, rig_hold };

static void join(struct rig *r, unsigned i, const uint8_t *how)
{
	struct switch_port_config c = { .ops = &ops, .opaque = &r->m[i], .uplink = i == 3 };
	struct net_hello *h = &c.hello;

	*h = (struct net_hello){ .magic = NET_WIRE_MAGIC, .kind = NET_HELLO_MEMBER, .mac = { 2, 0, 0, 0, 0, (uint8_t)i } };
	h->trunk = how[0] & 1;
	h->vlan = how[0] & 2 ? how[1] : 0;
	h->limit_in = how[0] & 4 ? 100000 : 0;
	h->limit_out = how[0] & 8 ? 100000 : 0;
	h->addresses = how[0] & 16 ? 2 : 0;
	h->v6 = 2;
	memset(h->vlans, how[1], sizeof(h->vlans));
	if (!hello_check(h, NULL))
		r->m[i].port = switch_port_add(r->sw, &c, NULL);
}

static void flush(struct rig *r)
{
	switch_flush(r->sw);
	r->nframes = 0;
}

static void step(struct rig *r, const uint8_t *s, size_t len)
{
	struct member *m = &r->m[s[0] & 3];
	uint8_t *frame;
	struct net_wire w = { 0 };

	r->now += (uint64_t)s[1] << 28;
	if ((s[0] >> 2 & 15) < 5 || s[0] & 0x40 || r->nframes == TOGETHER)
		flush(r);
	switch (s[0] >> 2 & 15) {
	case 0: m->stalled = true; return;
	case 1:
		m->stalled = false;
		if (m->port)
			switch_port_ready(r->sw, m->port);
		return;
	case 2:
		if (m->port)
			switch_port_remove(r->sw, m->port);
		m->port = NULL;
		return;
	case 3:
		if (!m->port)
			join(r, s[0] & 3, s + 2);
		return;
	case 4: switch_tick(r->sw); return;
	default: break;
	}
	if (!m->port || len < 2 + sizeof(w))
		return;
	if (s[0] & 0x80)
		memcpy(&w, s + 2, sizeof(w));
	s += 2 + sizeof(w);
	len -= 2 + sizeof(w);
	frame = r->frame[r->nframes++];
	memcpy(frame + SWITCH_HEADROOM, s, len);
	if (s[-1] & 1 && len >= 12) /* most sources are the port's, or little would get anywhere */
		memcpy(frame + SWITCH_HEADROOM + 6, (uint8_t[]){ 2, 0, 0, 0, 0, (uint8_t)(m - r->m) }, 6);
	switch_input(r->sw, m->port, &w, frame + SWITCH_HEADROOM, len);
}

static void texts(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	struct serve_config c;
	struct net_config n;

	memcpy(text, data, size);
	text[size] = 0;
	serve_config_parse(text, &c, NULL);
	net_config_parse(&n, text, NULL);
	uplink_parse(text, &n, NULL);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rig r = { .now = 1000000000 };
	struct switch_env env = { rig_now, rig_arm, &r };
	struct switch_config config;
	size_t at = 2;

	if (size < 16)
		return 0;
	if (data[0] == 255) {
		texts(data + 1, size - 1);
		return 0;
	}
	config = (struct switch_config){ .spoofing = data[0] & 1, .isolate = data[0] & 2, .ageing = data[0] & 4 ? 1 : 0 };
	r.sw = switch_create(&config, &env, NULL);
	for (unsigned i = 0; i < PORTS; i++)
		join(&r, i, (uint8_t[]){ (uint8_t)(data[1] >> i), data[1] });
	for (unsigned n = 0; n < STEPS && at + 4 < size; n++) {
		size_t len = MIN((size_t)data[at] * 2, size - at - 1);

		if (len >= 4)
			step(&r, data + at + 1, len);
		at += 1 + len;
	}
	flush(&r);
	switch_destroy(r.sw);
	return 0;
}
