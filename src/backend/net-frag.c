/* SPDX-License-Identifier: Apache-2.0 */
/* IPv4 reassembly (RFC 791; RFC 815's holes as a bitmap of 8-byte blocks). What overlaps in part is nobody's honest datagram: dropped whole. */
#include <stdlib.h>
#include <string.h>
#include "backend/net-frag.h"
#include "backend/net.h"
#include "base/base.h"

#define MORE 0x2000u
#define OFFSET 0x1fffu
#define LONGEST 65535u

static unsigned get16(const uint8_t *p)
{
	return (unsigned)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

void net_frag_dispose(struct net_frag *r)
{
	for (unsigned i = 0; i < NET_FRAG_SLOTS; i++)
		free(r->slot[i].data);
}

bool net_frag_is(const uint8_t *f, size_t len)
{
	return len >= NET_HEADER + 20 && get16(f + 12) == 0x0800 && get16(f + NET_HEADER + 6) & (MORE | OFFSET);
}

/* The datagram's place; a new one in that of the oldest. NULL: no memory. */
static struct net_frag_slot *slot_find(struct net_frag *r, const uint8_t *ip, uint64_t now)
{
	struct net_frag_slot *s = &r->slot[0];
	uint8_t key[11];

	memcpy(key, ip + 12, 8);
	memcpy(key + 8, ip + 4, 2);
	key[10] = ip[9];
	for (unsigned i = 0; i < NET_FRAG_SLOTS; i++) {
		struct net_frag_slot *at = &r->slot[i];

		at->used = at->used && now - at->since < NET_FRAG_MS;
		if (at->used && !memcmp(at->key, key, sizeof(key)))
			return at;
		if (s->used && (!at->used || at->since < s->since))
			s = at;
	}
	*s = (struct net_frag_slot){ .used = true, .since = now, .data = s->data ?: malloc(LONGEST + 1) };
	memcpy(s->key, key, sizeof(key));
	s->used = s->data;
	return s->data ? s : NULL;
}

/* Marks the blocks; how many were there before. */
static unsigned blocks_take(struct net_frag_slot *s, unsigned from, unsigned n)
{
	unsigned before = 0;

	for (unsigned i = from; i < from + n; i++) {
		before += s->have[i / 8] >> (i % 8) & 1;
		s->have[i / 8] |= (uint8_t)(1 << (i % 8));
	}
	return before;
}

static size_t frame_make(struct net_frag_slot *s, uint8_t *out)
{
	uint8_t *ip = out + NET_HEADER;
	unsigned hl = s->head_len - NET_HEADER;
	uint16_t sum;

	s->used = false;
	if (hl + s->total > LONGEST)
		return 0;
	memcpy(out, s->head, s->head_len);
	memcpy(out + s->head_len, s->data, s->total);
	put16(ip + 2, hl + s->total);
	put16(ip + 6, 0);
	put16(ip + 10, 0);
	sum = (uint16_t)~net_fold(net_sum(0, ip, hl));
	memcpy(ip + 10, &sum, 2);
	return s->head_len + s->total;
}

size_t net_frag_add(struct net_frag *r, const uint8_t *f, size_t len, uint64_t now, uint8_t *out)
{
	const uint8_t *ip = f + NET_HEADER;
	unsigned hl = (ip[0] & 15u) * 4, size = get16(ip + 2), at = (get16(ip + 6) & OFFSET) * 8, n, count, before;
	bool more = get16(ip + 6) & MORE;
	struct net_frag_slot *s;

	if (ip[0] >> 4 != 4 || hl < 20 || size < hl || size > len - NET_HEADER || net_fold(net_sum(0, ip, hl)) != 0xffff)
		return 0;
	n = size - hl;
	if (!n || at + n > LONGEST || (more && n % 8))
		return 0;
	s = slot_find(r, ip, now);
	if (!s)
		return 0;
	count = (n + 7) / 8;
	before = blocks_take(s, at / 8, count);
	if (before == count) /* once more the same: what came first counts */
		return 0;
	s->end = MAX(s->end, at + n);
	if (!more)
		s->total = s->total && s->total != at + n ? 1 : at + n;
	if (before || (s->total && s->end > s->total)) {
		s->used = false;
		return 0;
	}
	s->blocks += count;
	memcpy(s->data + at, ip + hl, n);
	if (!at) {
		s->first = true;
		s->head_len = NET_HEADER + hl;
		memcpy(s->head, f, s->head_len);
	}
	return s->first && s->total && s->blocks == (s->total + 7) / 8 ? frame_make(s, out) : 0;
}
