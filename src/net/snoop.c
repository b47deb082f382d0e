/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Multicast snooping: IGMP 1 to 3 (RFC 1112, 2236, 3376) and MLD 1 and 2 (RFC 2710, 3810) tell who wants which group, so that others are
 * left alone (RFC 4541). Groups nobody has reported, 224.0.0.0/24 and ff02::1 go to all. A membership lasts until it
 * is left or the port goes; where somebody asks (a querier), as long as it is confirmed: then, and only then, has a host
 * reason to repeat itself. Looked at by MAC address: 32 IPv4 groups share one, which at worst gives somebody too much.
 * Everything is bounded: groups, and groups of a port, so that one port cannot use up the table; a group beyond goes to all.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "net/private.h"

#define MEMBER_S 260u  /* robustness 2 * query interval 125 s + response 10 s, both protocols' defaults */
#define QUERIER_S 255u
#define IP6_ICMP 58
#define IP4_IGMP 2

void snoop_init(struct snoop *s)
{
	memset(s, 0, sizeof(*s));
	if (getrandom(&s->seed, sizeof(s->seed), GRND_NONBLOCK) < 0)
		s->seed = (uintptr_t)s;
}

static unsigned snoop_hash(const struct snoop *s, uint16_t vlan, const uint8_t mac[6])
{
	uint64_t v = vlan;

	memcpy((uint8_t *)&v + 2, mac, 6);
	v = (v ^ s->seed) * 0x9e3779b97f4a7c15ull;
	return (unsigned)(v >> 52) % ARRAY_LEN(s->hash);
}

static struct group **group_find(struct snoop *s, uint16_t vlan, const uint8_t mac[6])
{
	struct group **g = &s->hash[snoop_hash(s, vlan, mac)];

	while (*g && ((*g)->vlan != vlan || memcmp((*g)->mac, mac, 6)))
		g = &(*g)->next;
	return g;
}

/* The port is in it no more; a group without ports goes. */
static void group_drop(struct snoop *s, struct group **at, unsigned port)
{
	struct group *g = *at;

	if (!set_has(&g->ports, port))
		return;
	set_remove(&g->ports, port);
	s->of_port[port]--;
	for (unsigned i = 0; i < ARRAY_LEN(g->ports.bits); i++)
		if (g->ports.bits[i])
			return;
	*at = g->next;
	free(g);
	s->groups--;
}

void snoop_forget(struct snoop *s, unsigned port)
{
	s->querier[port] = 0;
	for (unsigned i = 0; i < ARRAY_LEN(s->hash); i++) {
		struct group **at = &s->hash[i];

		while (*at) {
			struct group *g = *at;

			group_drop(s, at, port);
			if (*at == g)
				at = &g->next;
		}
	}
}

void snoop_dispose(struct snoop *s)
{
	for (unsigned i = 0; i < SWITCH_PORTS; i++)
		snoop_forget(s, i);
}

static bool querier_there(const struct snoop *s, uint32_t now)
{
	for (unsigned i = 0; i < SWITCH_PORTS; i++)
		if (s->querier[i] && now - s->querier[i] <= QUERIER_S)
			return true;
	return false;
}

static void group_join(struct snoop *s, uint16_t vlan, const uint8_t mac[6], unsigned port, uint32_t now)
{
	struct group **at = group_find(s, vlan, mac);

	if (!*at) {
		if (s->groups >= SNOOP_GROUPS || s->of_port[port] >= SNOOP_PORT_GROUPS)
			return;
		*at = calloc(1, sizeof(**at));
		if (!*at)
			return;
		(*at)->vlan = vlan;
		memcpy((*at)->mac, mac, 6);
		s->groups++;
	}
	/* one of a group that others keep is always noted: it must not miss what it asked for */
	if (!set_has(&(*at)->ports, port)) {
		set_add(&(*at)->ports, port);
		s->of_port[port]++;
	}
	(*at)->seen[port] = now;
}

static void group_leave(struct snoop *s, uint16_t vlan, const uint8_t mac[6], unsigned port, bool fast)
{
	struct group **at = group_find(s, vlan, mac);

	/* with several hosts behind the port the others may still want it: it ends when nobody confirms it */
	if (*at && fast)
		group_drop(s, at, port);
}

static void mac4(uint8_t mac[6], const uint8_t group[4])
{
	memcpy(mac, (uint8_t[]){ 0x01, 0x00, 0x5e, group[1] & 0x7f, group[2], group[3] }, 6);
}

static void mac6(uint8_t mac[6], const uint8_t group[16])
{
	memcpy(mac, (uint8_t[]){ 0x33, 0x33, group[12], group[13], group[14], group[15] }, 6);
}

struct look {
	struct snoop *s;
	const struct frame *f;
	unsigned port;
	bool fast;
	uint32_t now;
};

/* address: of 4 or 16 bytes */
static void member(const struct look *l, const uint8_t *address, bool v6, bool joins)
{
	uint8_t mac[6];

	if (v6 ? address[0] != 0xff : address[0] >> 4 != 0xe)
		return;
	if (v6)
		mac6(mac, address);
	else
		mac4(mac, address);
	if (joins)
		group_join(l->s, l->f->vlan, mac, l->port, l->now);
	else
		group_leave(l->s, l->f->vlan, mac, l->port, l->fast);
}

/* IGMPv3 and MLDv2: records of type, words of auxiliary data, sources, group, sources... */
static void records(const struct look *l, uint32_t at, uint32_t end, unsigned n, bool v6)
{
	uint32_t width = v6 ? 16 : 4;

	for (; n && at < end && range_fits(at, 4 + width, end); n--) {
		const uint8_t *r = l->f->data + at;
		uint32_t sources = be16_at(r + 2);

		/* 1 is include, 2 exclude, 3 and 4 changes to them, 5 allow, 6 block; including nobody is leaving */
		if (r[0] == 2 || r[0] == 4 || ((r[0] == 1 || r[0] == 3 || r[0] == 5) && sources))
			member(l, r + 4, v6, true);
		else if (r[0] == 3)
			member(l, r + 4, v6, false);
		at += 4 + width + sources * width + 4u * r[1];
	}
}

static enum snoop_kind look_igmp(const struct look *l)
{
	const struct frame *f = l->f;
	uint32_t header = 4u * (f->data[ETH_HEADER] & 15), at = ETH_HEADER + header;
	uint32_t end = ETH_HEADER + be16_at(f->data + ETH_HEADER + 2);

	/* a whole packet, no fragment */
	if (header < 20 || end > f->len || !range_fits(at, 8, end) || (be16_at(f->data + ETH_HEADER + 6) & 0x3fff))
		return SNOOP_DATA;
	switch (f->data[at]) {
	case 0x11:
		l->s->querier[l->port] = l->now ? l->now : 1;
		return SNOOP_QUERY;
	case 0x12:
	case 0x16:
		member(l, f->data + at + 4, false, true);
		return SNOOP_REPORT;
	case 0x17:
		member(l, f->data + at + 4, false, false);
		return SNOOP_REPORT;
	case 0x22:
		records(l, at + 8, end, be16_at(f->data + at + 6), false);
		return SNOOP_REPORT;
	default:
		return SNOOP_DATA;
	}
}

static enum snoop_kind look_mld(const struct look *l)
{
	const struct frame *f = l->f;
	uint8_t next = 0;
	uint32_t at = ip6_payload(f, &next), end;

	if (!at || next != IP6_ICMP)
		return SNOOP_DATA;
	end = ETH_HEADER + 40 + be16_at(f->data + ETH_HEADER + 4);
	if (end > f->len || !range_fits(at, 8, end))
		return SNOOP_DATA;
	switch (f->data[at]) {
	case 130:
		l->s->querier[l->port] = l->now ? l->now : 1;
		return SNOOP_QUERY;
	case 131:
	case 132:
		if (range_fits(at, 24, end))
			member(l, f->data + at + 8, true, f->data[at] == 131);
		return SNOOP_REPORT;
	case 143:
		records(l, at + 8, end, be16_at(f->data + at + 6), true);
		return SNOOP_REPORT;
	default:
		return SNOOP_DATA;
	}
}

enum snoop_kind snoop_look(struct snoop *s, const struct frame *f, unsigned port, bool fast, uint32_t now)
{
	struct look l = { s, f, port, fast, now };
	uint16_t type = be16_at(f->data + 12);

	if (type == 0x0800 && f->len >= ETH_HEADER + 20 && f->data[ETH_HEADER] >> 4 == 4 && f->data[ETH_HEADER + 9] == IP4_IGMP)
		return look_igmp(&l);
	if (type == 0x86dd)
		return look_mld(&l);
	return SNOOP_DATA;
}

void snoop_routers(struct snoop *s, struct port_set *to, const struct port_set *uplinks, uint32_t now)
{
	for (unsigned i = 0; i < SWITCH_PORTS; i++)
		if (!set_has(uplinks, i) && !(s->querier[i] && now - s->querier[i] <= QUERIER_S))
			set_remove(to, i);
}

/* Link-local groups no host reports: to all, always. */
static bool for_all(const uint8_t *mac)
{
	static const uint8_t all6[6] = { 0x33, 0x33, 0, 0, 0, 1 };

	return (mac[0] == 1 && !mac[3] && !mac[4]) || !memcmp(mac, all6, 6);
}

bool snoop_select(struct snoop *s, const struct frame *f, struct port_set *to, const struct port_set *uplinks, uint32_t now)
{
	bool v4 = f->data[0] == 1 && !f->data[1] && f->data[2] == 0x5e, v6 = f->data[0] == 0x33 && f->data[1] == 0x33;
	bool ends = querier_there(s, now);
	struct group **at, *g;
	struct port_set routers = *to;

	if ((!v4 && !v6) || for_all(f->data))
		return false;
	at = group_find(s, f->vlan, f->data);
	for (unsigned i = 0; ends && *at && i < SWITCH_PORTS; i++) {
		g = *at;
		if (set_has(&g->ports, i) && now - g->seen[i] > MEMBER_S)
			group_drop(s, at, i);
		if (*at != g)
			return false;
	}
	g = *at;
	if (!g)
		return false;
	snoop_routers(s, &routers, uplinks, now);
	for (unsigned i = 0; i < ARRAY_LEN(to->bits); i++)
		to->bits[i] = (to->bits[i] & g->ports.bits[i]) | routers.bits[i];
	return true;
}
