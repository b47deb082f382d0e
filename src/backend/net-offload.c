/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a card would do to frames that one side leaves unfinished and the other does not take so: partial checksums, and cutting
 * TCP and UDP payloads into segments. Frames come from guests and from other machines; headers are parsed with bounds.
 */
#include <string.h>
#include "backend/net.h"
#include "base/base.h"

#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_IP4 0x0800
#define ETHERTYPE_IP6 0x86dd
#define LEAST_SEGMENT 32u /* a size of 1 would make 64 Ki frames of one */
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17

static uint16_t get_be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void put_be16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static uint32_t get_be32(const uint8_t *p)
{
	return (uint32_t)get_be16(p) << 16 | get_be16(p + 2);
}

static void put_be32(uint8_t *p, uint32_t v)
{
	put_be16(p, (uint16_t)(v >> 16));
	put_be16(p + 2, (uint16_t)v);
}

/* In the host's byte order throughout: the sum's bytes only change places, and net_finish stores it as it is. */
uint32_t net_sum(uint32_t sum, const uint8_t *data, size_t len)
{
	uint64_t s[4] = { sum };
	uint16_t last = 0;

	for (; len >= 16; data += 16, len -= 16) {
		uint32_t v[4];

		memcpy(v, data, sizeof(v));
		for (unsigned i = 0; i < 4; i++)
			s[i] += v[i];
	}
	s[0] += s[1] + s[2] + s[3];
	for (; len >= 2; data += 2, len -= 2) {
		uint16_t v;

		memcpy(&v, data, 2);
		s[0] += v;
	}
	if (len) {
		memcpy(&last, data, 1);
		s[0] += last;
	}
	while (s[0] >> 16)
		s[0] = (s[0] & 0xffff) + (s[0] >> 16);
	return (uint32_t)s[0];
}

bool net_wire_fits(const struct net_wire *w, size_t len)
{
	if (len < NET_HEADER || len > NET_WIRE_FRAME || w->flags & ~(NET_WIRE_CSUM | NET_WIRE_VALID | NET_WIRE_ECN) ||
	    w->gso > NET_GSO_UDP || w->hdr_len > len)
		return false;
	if (w->flags & NET_WIRE_CSUM && (w->csum_start < NET_HEADER || w->csum_offset > 64 ||
					 !range_fits((uint64_t)w->csum_start + w->csum_offset, 2, len)))
		return false;
	return !w->gso || (w->gso_size >= LEAST_SEGMENT && w->flags & NET_WIRE_CSUM && w->hdr_len >= NET_HEADER);
}

unsigned net_wire_needs(const struct net_wire *w)
{
	static const uint8_t gso[] = { 0, NET_TAKES_TSO4, NET_TAKES_TSO6, NET_TAKES_USO };

	return gso[w->gso] | (w->flags & NET_WIRE_CSUM ? NET_TAKES_CSUM : 0) |
	       (w->gso && w->flags & NET_WIRE_ECN ? NET_TAKES_ECN : 0);
}

/* The field holds the pseudo header's sum. */
void net_finish_checksum(uint8_t *frame, size_t len, const struct net_wire *w)
{
	uint16_t sum;

	if (!(w->flags & NET_WIRE_CSUM))
		return;
	sum = (uint16_t)~net_fold(net_sum(0, frame + w->csum_start, len - w->csum_start));
	if (!sum) /* for UDP 0 means none; for TCP both are the same */
		sum = 0xffff;
	memcpy(frame + w->csum_start + w->csum_offset, &sum, 2);
}

struct layout {
	size_t ip, l4, payload;
	bool v6, tcp;
};

static bool layout_find(const uint8_t *f, size_t len, const struct net_wire *w, struct layout *o)
{
	uint16_t type;

	o->ip = NET_HEADER;
	type = get_be16(f + 12);
	if (type == ETHERTYPE_VLAN && len >= NET_HEADER + 4) {
		type = get_be16(f + 16);
		o->ip += 4;
	}
	o->v6 = type == ETHERTYPE_IP6;
	o->tcp = w->gso != NET_GSO_UDP;
	if ((type != ETHERTYPE_IP4 && !o->v6) || (w->gso == NET_GSO_TCP4 && o->v6) || (w->gso == NET_GSO_TCP6 && !o->v6))
		return false;
	o->l4 = w->csum_start;
	if (o->l4 < o->ip + (o->v6 ? 40 : 20) || o->l4 + (o->tcp ? 20 : 8) > len)
		return false;
	if (!o->v6 && (f[o->ip] != (0x40 | (o->l4 - o->ip) / 4) || (o->l4 - o->ip) % 4 ||
		       f[o->ip + 9] != (o->tcp ? PROTOCOL_TCP : PROTOCOL_UDP)))
		return false;
	if (o->v6 && f[o->ip] >> 4 != 6)
		return false;
	o->payload = o->l4 + (o->tcp ? (size_t)(f[o->l4 + 12] >> 4) * 4 : 8);
	return o->payload <= len && (!o->tcp || o->payload >= o->l4 + 20);
}

/* Lengths, identification and checksums of the headers of `out`, with `part` bytes of payload. */
static void segment_headers(uint8_t *out, const struct layout *o, size_t part, unsigned n)
{
	uint8_t *ip = out + o->ip, *l4 = out + o->l4;
	size_t l4_len = o->payload - o->l4 + part;
	uint8_t pseudo[4] = { 0, o->tcp ? PROTOCOL_TCP : PROTOCOL_UDP, (uint8_t)(l4_len >> 8), (uint8_t)l4_len };
	uint16_t sum;
	uint32_t s;

	if (o->v6) {
		put_be16(ip + 4, (uint16_t)(o->l4 - o->ip - 40 + l4_len));
		s = net_sum(0, ip + 8, 32);
	} else {
		put_be16(ip + 2, (uint16_t)(o->l4 - o->ip + l4_len));
		put_be16(ip + 4, (uint16_t)(get_be16(ip + 4) + n));
		memset(ip + 10, 0, 2);
		sum = (uint16_t)~net_fold(net_sum(0, ip, o->l4 - o->ip));
		memcpy(ip + 10, &sum, 2);
		s = net_sum(0, ip + 12, 8);
	}
	if (!o->tcp)
		put_be16(l4 + 4, (uint16_t)l4_len);
	memset(l4 + (o->tcp ? 16 : 6), 0, 2);
	s = net_sum(s, pseudo, sizeof(pseudo));
	sum = (uint16_t)~net_fold(net_sum(s, l4, l4_len));
	if (!sum)
		sum = 0xffff;
	memcpy(l4 + (o->tcp ? 16 : 6), &sum, 2);
}

#define TCP_FIN 1
#define TCP_PSH 8
#define TCP_CWR 0x80

bool net_segment(const uint8_t *frame, size_t len, const struct net_wire *w, uint8_t *out,
		 bool (*emit)(void *opaque, const uint8_t *frame, size_t len), void *opaque)
{
	struct layout o;
	size_t at;
	unsigned n = 0;

	if (!layout_find(frame, len, w, &o))
		return false;
	memcpy(out, frame, o.payload);
	for (at = o.payload; at < len || !n; n++) {
		size_t part = MIN((size_t)w->gso_size, len - at);
		uint8_t *l4 = out + o.l4;

		memcpy(out, frame, o.payload);
		memcpy(out + o.payload, frame + at, part);
		if (o.tcp) {
			put_be32(l4 + 4, get_be32(l4 + 4) + (uint32_t)(at - o.payload));
			if (at + part < len)
				l4[13] &= (uint8_t)~(TCP_FIN | TCP_PSH);
			if (n)
				l4[13] &= (uint8_t)~TCP_CWR;
		}
		segment_headers(out, &o, part, n);
		if (!emit(opaque, out, o.payload + part))
			return false;
		at += part;
	}
	return true;
}
