/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's TCP connections (net-flows.h). */
#include <string.h>
#include "backend/net-flows.h"
#include "backend/net.h"
#include "base/base.h"

#define FIN 1u
#define SYN 2u
#define RST 4u
#define ACK 16u
#define IP4 20u
#define IP6 40u
#define TCP 20u

static uint16_t be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)be16(p) << 16 | be16(p + 2);
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

struct segment {
	struct net_flow flow;
	uint8_t flags;
};

/* False: no TCP. */
static bool parse(const uint8_t *f, size_t len, bool from_guest, struct segment *s)
{
	struct net_flow *w = &s->flow;
	size_t at, address, end;
	bool v6 = len >= NET_HEADER + IP6 && f[12] == 0x86 && f[13] == 0xdd;

	if (!v6 && (len < NET_HEADER + IP4 || f[12] != 8 || f[13]))
		return false;
	at = NET_HEADER + (v6 ? IP6 : (f[NET_HEADER] & 15u) * 4);
	end = NET_HEADER + (v6 ? IP6 + be16(f + 18) : be16(f + 16));
	/* of fragments no one says all */
	if (f[v6 ? 20 : 23] != 6 || (!v6 && be16(f + 20) & 0x3fff) || end > len || at > end || end - at < TCP)
		return false;
	memset(w, 0, sizeof(*w));
	address = v6 ? 16 : 4;
	memcpy(from_guest ? w->guest : w->peer, f + (v6 ? 22 : 26), address);
	memcpy(from_guest ? w->peer : w->guest, f + (v6 ? 38 : 30), address);
	w->guest_port = be16(f + at + (from_guest ? 0 : 2));
	w->peer_port = be16(f + at + (from_guest ? 2 : 0));
	s->flags = f[at + 13];
	w->seq = be32(f + at + 4) + (uint32_t)(end - at - MIN(end - at, (size_t)(f[at + 12] >> 4) * 4)) + (s->flags & SYN ? 1 : 0) +
		 (s->flags & FIN ? 1 : 0);
	w->ack = be32(f + at + 8);
	w->state = FLOW_USED | (v6 ? FLOW_V6 : 0);
	return true;
}

static bool same(const struct net_flow *a, const struct net_flow *b)
{
	return !((a->state ^ b->state) & (FLOW_USED | FLOW_V6)) && a->guest_port == b->guest_port && a->peer_port == b->peer_port &&
	       !memcmp(a->guest, b->guest, 16) && !memcmp(a->peer, b->peer, 16);
}

static struct net_flow *set_of(struct net_flows *t, const struct net_flow *f)
{
	uint32_t h = (uint32_t)f->guest_port * 0x9e3779b1u ^ (uint32_t)f->peer_port * 0x85ebca6bu;

	for (unsigned i = 0; i < 16; i += 4)
		h = (h ^ be32(f->peer + i)) * 0x9e3779b1u;
	return &t->flow[(h >> 16) % (NET_FLOWS / NET_FLOW_WAYS) * NET_FLOW_WAYS];
}

/* Instead of the nth of its set, or of the last. */
static void put(struct net_flow *set, unsigned n, const struct net_flow *f)
{
	memmove(set + 1, set, MIN(n, NET_FLOW_WAYS - 1) * sizeof(*set));
	set[0] = *f;
}

void net_flows_look(struct net_flows *t, const uint8_t *frame, size_t len, bool from_guest)
{
	struct segment s;
	struct net_flow *set;
	unsigned i = 0;

	if (!parse(frame, len, from_guest, &s) || (!from_guest && !(s.flags & (FIN | RST))))
		return;
	set = set_of(t, &s.flow);
	while (i < NET_FLOW_WAYS && !same(&set[i], &s.flow))
		i++;
	if (s.flags & RST || !from_guest) {
		if (i == NET_FLOW_WAYS)
			return;
		if (s.flags & RST)
			set[i].state = 0;
		else
			set[i].state |= FLOW_PEER_FIN;
		return;
	}
	if (!(s.flags & ACK)) /* a SYN: the guest sends it again by itself */
		return;
	if (!(s.flags & SYN) && i < NET_FLOW_WAYS) /* with a SYN it is another one between the same two */
		s.flow.state |= set[i].state & (FLOW_GUEST_FIN | FLOW_PEER_FIN);
	if (s.flags & FIN)
		s.flow.state |= FLOW_GUEST_FIN;
	put(set, i, &s.flow);
}

static bool is_open(const struct net_flow *f)
{
	return f->state & FLOW_USED && ~f->state & (FLOW_GUEST_FIN | FLOW_PEER_FIN);
}

void net_flows_save(const struct net_flows *t, struct net_flow to[NET_FLOWS])
{
	unsigned n = 0;

	memset(to, 0, NET_FLOWS * sizeof(*to));
	for (unsigned i = 0; i < NET_FLOWS; i++)
		if (is_open(&t->flow[i]))
			to[n++] = t->flow[i];
}

void net_flows_load(struct net_flows *t, const struct net_flow from[NET_FLOWS])
{
	memset(t, 0, sizeof(*t));
	for (unsigned i = NET_FLOWS; i--;)
		if (is_open(&from[i]))
			put(set_of(t, &from[i]), NET_FLOW_WAYS, &from[i]);
}

size_t net_flow_probe(const struct net_flow *f, const uint8_t to[6], const uint8_t from[6], uint8_t frame[NET_PROBE])
{
	bool v6 = f->state & FLOW_V6;
	size_t ip = v6 ? IP6 : IP4, address = v6 ? 16 : 4;
	const uint8_t pseudo[4] = { 0, 6, 0, TCP };
	uint8_t *p = frame + NET_HEADER, *tcp = p + ip;
	uint16_t sum;

	if (!is_open(f))
		return 0;
	memset(frame, 0, NET_PROBE);
	memcpy(frame, to, 6);
	memcpy(frame + 6, from, 6);
	put16(frame + 12, v6 ? 0x86dd : 0x0800);
	memcpy(p + (v6 ? 8 : 12), f->peer, address);
	memcpy(p + (v6 ? 24 : 16), f->guest, address);
	put16(tcp, f->peer_port);
	put16(tcp + 2, f->guest_port);
	put32(tcp + 4, f->ack - 1);
	put32(tcp + 8, f->seq);
	tcp[12] = TCP / 4 << 4;
	tcp[13] = ACK;
	put16(tcp + 14, 0xffff);
	sum = (uint16_t)~net_fold(net_sum(net_sum(0, pseudo, sizeof(pseudo)), p + (v6 ? 8 : 12), 2 * address + TCP));
	memcpy(tcp + 16, &sum, 2);
	if (v6) {
		p[0] = 0x60;
		put16(p + 4, TCP);
		p[6] = 6;
		p[7] = 64;
	} else {
		p[0] = 0x45;
		put16(p + 2, IP4 + TCP);
		p[8] = 64;
		p[9] = 6;
		sum = (uint16_t)~net_fold(net_sum(0, p, IP4));
		memcpy(p + 10, &sum, 2);
	}
	return NET_HEADER + ip + TCP;
}
