/* SPDX-License-Identifier: Apache-2.0 */
/* The switch: the way of a frame from the port it came by to those it goes to. net/switch.h has the rules. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "net/private.h"

#define LEAST_SEGMENT 48u /* Linux's least TCP segment; fewer bytes would make a frame into tens of thousands */

const char *const switch_counter_names[SWITCH_COUNTERS] = {
#define COUNTER(id, name, help) [SWITCH_##id] = name,
#include "net/counters.def"
#undef COUNTER
};

static uint32_t seconds(const struct net_switch *s)
{
	return (uint32_t)(s->env.now(s->env.opaque) / BUCKET_SECOND);
}

struct net_switch *switch_create(const struct switch_config *config, const struct switch_env *env, struct err *e)
{
	struct net_switch *s = calloc(1, sizeof(*s));

	if (!s) {
		err_set(e, ENOMEM, "no memory for a switch");
		return NULL;
	}
	s->config = *config;
	s->env = *env;
	s->armed = UINT64_MAX;
	fdb_init(&s->fdb, config->ageing);
	snoop_init(&s->snoop);
	return s;
}

void switch_destroy(struct net_switch *s)
{
	if (!s)
		return;
	for (unsigned i = 0; i < SWITCH_PORTS; i++)
		if (s->port[i])
			switch_port_remove(s, s->port[i]);
	while (s->captures)
		switch_capture_remove(s, s->captures);
	snoop_dispose(&s->snoop);
	free(s);
}

/* ---- time */

void switch_arm(struct net_switch *s, uint64_t at)
{
	if (at >= s->armed)
		return;
	s->armed = at;
	s->env.arm(s->env.opaque, at);
}

static void port_hold(struct switch_port *p)
{
	uint64_t now, wait;

	if (!p->in.rate)
		return;
	now = p->sw->env.now(p->sw->env.opaque);
	wait = bucket_wait(&p->in, now);
	if (wait)
		switch_arm(p->sw, now + wait);
	if (p->held == (wait != 0))
		return;
	p->held = wait != 0;
	p->config.ops->hold(p->config.opaque, p->held);
}

void switch_tick(struct net_switch *s)
{
	s->armed = UINT64_MAX;
	for (unsigned i = 0; i < SWITCH_PORTS; i++) {
		if (s->port[i] && s->port[i]->queue.used)
			port_drain(s->port[i]);
		if (s->port[i] && s->port[i]->held)
			port_hold(s->port[i]);
	}
}

/* ---- ports */

static bool mac_valid(const uint8_t mac[6])
{
	static const uint8_t none[6];

	return !(mac[0] & 1) && memcmp(mac, none, 6);
}

int hello_check(const struct net_hello *h, struct err *e)
{
	static const uint8_t none[6];

	if (h->magic != NET_WIRE_MAGIC)
		return err_set(e, EPROTO, "the other side is of another version of ospite: end and start the machines of this network");
	if (h->kind < NET_HELLO_MEMBER || h->kind > NET_HELLO_CAPTURE || !memchr(h->name, 0, sizeof(h->name)) || h->trunk > 1 ||
	    h->addresses > NET_HELLO_ADDRESSES || h->vlan >= NET_VLANS || h->capture_port < -1 || h->capture_port >= (int)SWITCH_PORTS)
		return err_set(e, EPROTO, "a malformed greeting");
	if (h->kind == NET_HELLO_MEMBER && !mac_valid(h->mac) && memcmp(h->mac, none, 6))
		return err_set(e, EINVAL, "the card's address is one of a group");
	return 0;
}

static int port_check(struct net_switch *s, const struct switch_port_config *c, struct err *e)
{
	int owner;

	if (c->uplink)
		return 0;
	if (!mac_valid(c->hello.mac))
		return s->config.spoofing ? 0 : err_set(e, EINVAL, "the network refuses false sources, so a card must say its address");
	owner = fdb_owner(&s->fdb, c->hello.mac);
	if (owner >= 0 && s->port[owner])
		return err_set(e, EADDRINUSE, "machine %s has the address %02x:%02x:%02x:%02x:%02x:%02x on this network already: give another with mac=",
			       s->port[owner]->config.hello.name, c->hello.mac[0], c->hello.mac[1], c->hello.mac[2],
			       c->hello.mac[3], c->hello.mac[4], c->hello.mac[5]);
	return 0;
}

struct switch_port *switch_port_add(struct net_switch *s, const struct switch_port_config *c, struct err *e)
{
	uint64_t now = s->env.now(s->env.opaque);
	struct switch_port *p;
	unsigned i = 0;

	if (port_check(s, c, e))
		return NULL;
	while (i < SWITCH_PORTS && s->port[i])
		i++;
	p = i < SWITCH_PORTS ? calloc(1, sizeof(*p)) : NULL;
	if (!p) {
		err_set(e, i < SWITCH_PORTS ? ENOMEM : ENOSPC, "the switch is full: it has %u ports", SWITCH_PORTS);
		return NULL;
	}
	p->sw = s;
	p->index = i;
	p->config = *c;
	bucket_init(&p->in, c->hello.limit_in, 0, 0, now);
	bucket_init(&p->out, c->hello.limit_out, 0, 0, now);
	s->port[i] = p;
	if (c->uplink)
		set_add(&s->uplinks, i);
	else
		s->members++;
	if (!c->uplink && mac_valid(c->hello.mac))
		fdb_declare(&s->fdb, c->hello.mac, i);
	return p;
}

void switch_port_remove(struct net_switch *s, struct switch_port *p)
{
	set_remove(&s->unsent, p->index);
	port_empty(p);
	fdb_forget(&s->fdb, p->index);
	snoop_forget(&s->snoop, p->index);
	s->port[p->index] = NULL;
	if (p->config.uplink)
		set_remove(&s->uplinks, p->index);
	else
		s->members--;
	free(p);
}

unsigned switch_port_index(const struct switch_port *p)
{
	return p->index;
}

void switch_port_ready(struct net_switch *s, struct switch_port *p)
{
	p->blocked = false;
	port_drain(p);
}

/* ---- a frame comes in */

static bool vlan_allowed(const struct switch_port *p, uint16_t vlan)
{
	const struct net_hello *h = &p->config.hello;

	return vlan == h->vlan || (h->trunk && vlan && (h->vlans[vlan / 8] >> (vlan % 8) & 1));
}

/* Takes the tag off and finds the VLAN. */
static bool vlan_classify(const struct switch_port *p, struct frame *f)
{
	uint16_t type = be16_at(f->data + 12), tci;

	f->vlan = p->config.hello.vlan;
	if (type == 0x8100) {
		if (f->len < ETH_HEADER + TAG_LEN)
			return false;
		tci = be16_at(f->data + 14);
		f->priority = (uint8_t)(tci >> 13);
		if (tci & 0xfff) {
			f->vlan = tci & 0xfff;
			if (!p->config.hello.trunk || f->vlan >= NET_VLANS || !vlan_allowed(p, f->vlan))
				return false;
		}
		if ((f->wire.flags & NET_WIRE_CSUM && f->wire.csum_start < ETH_HEADER + TAG_LEN) ||
		    (f->wire.hdr_len && f->wire.hdr_len < ETH_HEADER + TAG_LEN))
			return false;
		memmove(f->data + TAG_LEN, f->data, 12);
		f->data += TAG_LEN;
		f->len -= TAG_LEN;
		if (f->wire.flags & NET_WIRE_CSUM)
			f->wire.csum_start = (uint16_t)(f->wire.csum_start - TAG_LEN);
		if (f->wire.hdr_len)
			f->wire.hdr_len = (uint16_t)(f->wire.hdr_len - TAG_LEN);
		type = be16_at(f->data + 12);
	}
	/* a second tag would come out as a first one where this one is taken off: a way into other VLANs */
	return type != 0x8100 && type != 0x88a8 && type != 0x9100;
}

static bool frame_sane(const struct frame *f)
{
	const struct net_wire *w = &f->wire;

	if (f->len < ETH_HEADER || f->len > NET_WIRE_FRAME || !mac_valid(f->data + 6))
		return false;
	if (w->flags & ~(NET_WIRE_CSUM | NET_WIRE_VALID | NET_WIRE_ECN) || w->gso > NET_GSO_UDP || w->hdr_len > f->len)
		return false;
	if (w->flags & NET_WIRE_CSUM &&
	    (w->csum_start < ETH_HEADER || w->csum_offset > 64 || !range_fits((uint64_t)w->csum_start + w->csum_offset, 2, f->len)))
		return false;
	return !w->gso || (w->gso_size >= LEAST_SEGMENT && w->flags & NET_WIRE_CSUM && w->hdr_len >= ETH_HEADER);
}

/* Everybody who may hear a frame of this port. */
static void all_others(const struct net_switch *s, const struct switch_port *from, const struct frame *f, struct port_set *to)
{
	memset(to, 0, sizeof(*to));
	for (unsigned i = 0; i < SWITCH_PORTS; i++) {
		const struct switch_port *p = s->port[i];

		if (p && p != from && vlan_allowed(p, f->vlan) && !(s->config.isolate && !p->config.uplink && !from->config.uplink))
			set_add(to, i);
	}
}

static void choose_group(struct net_switch *s, struct switch_port *from, struct frame *f, struct port_set *to, uint32_t now)
{
	bool fast = !from->config.uplink && !s->config.spoofing;
	enum snoop_kind kind = snoop_look(&s->snoop, f, from->index, fast, now);

	from->counter[SWITCH_MULTICAST]++;
	/* hosts must not hear each other's reports: hearing one, an IGMPv2 host keeps its own back */
	if (kind == SNOOP_REPORT)
		snoop_routers(&s->snoop, to, &s->uplinks, now);
	else if (kind == SNOOP_DATA)
		snoop_select(&s->snoop, f, to, &s->uplinks, now);
}

static void choose(struct net_switch *s, struct switch_port *from, struct frame *f, struct port_set *to, uint32_t now)
{
	int at = -1;

	all_others(s, from, f, to);
	if (f->data[0] & 1) {
		choose_group(s, from, f, to, now);
		return;
	}
	at = fdb_owner(&s->fdb, f->data);
	if (at < 0)
		at = fdb_find(&s->fdb, f->vlan, f->data, now);
	if (at >= 0) {
		bool allowed = set_has(to, (unsigned)at);

		memset(to, 0, sizeof(*to));
		if (allowed)
			set_add(to, (unsigned)at);
		return;
	}
	from->counter[SWITCH_UNKNOWN]++;
	/* whoever has said its address gets no other's frames: not known means it is on none of these */
	for (unsigned i = 0; !s->config.spoofing && i < SWITCH_PORTS; i++)
		if (!set_has(&s->uplinks, i))
			set_remove(to, i);
}

void switch_input(struct net_switch *s, struct switch_port *p, const struct net_wire *w, uint8_t *data, size_t len)
{
	struct frame f = { .data = data, .len = (uint32_t)MIN(len, UINT32_MAX), .wire = *w };
	uint32_t now = seconds(s);
	struct kept *kept = NULL;
	struct port_set to;
	int owner;

	bucket_take(&p->in, (double)len); /* what is refused costs as well */
	if (!frame_sane(&f)) {
		p->counter[SWITCH_MALFORMED]++;
		goto out;
	}
	if (!vlan_classify(p, &f)) {
		p->counter[SWITCH_VLAN]++;
		goto out;
	}
	owner = fdb_owner(&s->fdb, f.data + 6);
	if ((owner >= 0 && owner != (int)p->index) ||
	    (!s->config.spoofing && !p->config.uplink && !filter_source(&p->config.hello, &f))) {
		p->counter[SWITCH_SPOOFED]++;
		goto out;
	}
	p->counter[SWITCH_IN_FRAMES]++;
	p->counter[SWITCH_IN_BYTES] += f.len;
	port_captured(p, &f, false);
	if (owner < 0)
		fdb_learn(&s->fdb, f.vlan, f.data + 6, p->index, now);
	choose(s, p, &f, &to, now);
	for (unsigned i = 0; i < SWITCH_PORTS; i++)
		if (set_has(&to, i))
			port_output(s->port[i], &f, &kept);
	port_release(s, kept);
out:
	port_hold(p);
}

void switch_flush(struct net_switch *s)
{
	for (unsigned i = 0; i < ARRAY_LEN(s->unsent.bits); i++)
		while (s->unsent.bits[i])
			port_flush(s->port[i * 64 + (unsigned)__builtin_ctzll(s->unsent.bits[i])]);
}

/* ---- looking */

struct switch_capture *switch_capture_add(struct net_switch *s, int port, switch_capture_fn fn, void *opaque)
{
	struct switch_capture *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	*c = (struct switch_capture){ port, fn, opaque, s->captures };
	s->captures = c;
	return c;
}

void switch_capture_remove(struct net_switch *s, struct switch_capture *c)
{
	struct switch_capture **at = &s->captures;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	free(c);
}

int switch_port_info(struct net_switch *s, unsigned from, struct switch_port_info *info)
{
	for (; from < SWITCH_PORTS; from++) {
		const struct switch_port *p = s->port[from];

		if (!p)
			continue;
		info->hello = p->config.hello;
		info->uplink = p->config.uplink;
		memcpy(info->counter, p->counter, sizeof(info->counter));
		info->queued_frames = p->queue.used;
		info->queued_bytes = p->queue.bytes;
		return (int)from;
	}
	return -1;
}

unsigned switch_members(const struct net_switch *s)
{
	return s->members;
}
