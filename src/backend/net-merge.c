/* SPDX-License-Identifier: Apache-2.0 */
/* Frames that wait for the guest; segments of a stream become one frame. See net-merge.h. */
#include <stdlib.h>
#include <string.h>
#include "backend/net-merge.h"
#include "base/base.h"

#define TCP 6
#define FLAG_PSH 8
#define FLAG_ACK 16
#define LEAST 256u /* a smaller segment is none of a bulk transfer */

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

/* Offset of the payload of a plain TCP segment with only ACK and PSH set; 0: it is something else. */
static unsigned segment_payload(const uint8_t *f, size_t len, bool *v6)
{
	unsigned l4 = NET_HEADER + 20, payload;

	if (len < NET_HEADER + 40)
		return 0;
	*v6 = be16(f + 12) == 0x86dd;
	if (*v6) {
		l4 += 20;
		if (len < l4 + 20 || f[14] >> 4 != 6 || f[20] != TCP || be16(f + 18) != len - NET_HEADER - 40)
			return 0;
	} else if (be16(f + 12) != 0x0800 || f[14] != 0x45 || f[23] != TCP || be16(f + 20) & 0x3fff ||
		   be16(f + 16) != len - NET_HEADER) {
		return 0;
	}
	payload = l4 + (f[l4 + 12] >> 4) * 4u;
	if (payload < l4 + 20 || payload + LEAST > len || (f[l4 + 13] & ~FLAG_PSH) != FLAG_ACK)
		return 0;
	return payload;
}

/* All of both headers alike but lengths, identification, checksums, PSH; and the sequence goes on. */
static bool follows(const struct net_merged *m, const uint8_t *f, size_t len, unsigned payload, bool v6)
{
	unsigned l4 = NET_HEADER + (m->v6 ? 40 : 20);
	const uint8_t *a = m->data;

	if (!m->payload || payload != m->payload || v6 != m->v6 || len - payload > m->size || a[l4 + 13] & FLAG_PSH ||
	    (m->len - m->payload) != (uint32_t)m->size * m->segments || m->len + (len - payload) > NET_WIRE_FRAME - 16)
		return false;
	if (memcmp(a, f, 16) || (v6 ? memcmp(a + 16, f + 16, 2) || memcmp(a + 20, f + 20, 34) :
				      memcmp(a + 22, f + 22, 2) || memcmp(a + 26, f + 26, 8)))
		return false;
	return !memcmp(a + l4, f + l4, 4) && be32(f + l4 + 4) == be32(a + l4 + 4) + (m->len - m->payload) &&
	       !memcmp(a + l4 + 8, f + l4 + 8, 5) && !memcmp(a + l4 + 14, f + l4 + 14, 2) &&
	       !memcmp(a + l4 + 18, f + l4 + 18, payload - l4 - 18);
}

bool net_merge_add(struct net_merge *m, const uint8_t *frame, size_t len)
{
	bool v6 = false;
	unsigned payload = segment_payload(frame, len, &v6);
	struct net_merged *last = m->used ? &m->frame[(m->first + m->used - 1) % NET_MERGE_FRAMES] : NULL;

	if (len < NET_HEADER || len > NET_WIRE_FRAME)
		return false;
	if (last && payload && follows(last, frame, len, payload, v6)) {
		memcpy(last->data + last->len, frame + payload, len - payload);
		last->data[NET_HEADER + (v6 ? 40 : 20) + 13] |= frame[NET_HEADER + (v6 ? 40 : 20) + 13] & FLAG_PSH;
		last->len += (uint32_t)(len - payload);
		last->segments++;
		return true;
	}
	if (m->used == NET_MERGE_FRAMES)
		return false;
	last = &m->frame[(m->first + m->used) % NET_MERGE_FRAMES];
	if (!last->data)
		last->data = malloc(NET_WIRE_FRAME);
	if (!last->data)
		return false;
	memcpy(last->data, frame, len);
	last->len = (uint32_t)len;
	last->payload = payload;
	last->size = (uint16_t)(payload ? len - payload : 0);
	last->segments = 1;
	last->v6 = v6;
	m->used++;
	return true;
}

/* Headers of the whole; the checksum stays partial. May be done again after more has been added. */
static void finish(struct net_merged *m, struct net_wire *w)
{
	unsigned l4 = NET_HEADER + (m->v6 ? 40 : 20), n = m->len - l4;
	uint8_t pseudo[4] = { 0, TCP, (uint8_t)(n >> 8), (uint8_t)n };
	uint8_t *f = m->data;
	uint16_t sum;
	uint32_t s;

	*w = (struct net_wire){ .flags = NET_WIRE_VALID };
	if (m->segments < 2)
		return;
	*w = (struct net_wire){ .flags = NET_WIRE_CSUM, .gso = m->v6 ? NET_GSO_TCP6 : NET_GSO_TCP4, .gso_size = m->size,
				.hdr_len = (uint16_t)m->payload, .csum_start = (uint16_t)l4, .csum_offset = 16 };
	if (m->v6) {
		put16(f + 18, n);
		s = net_sum(0, f + 22, 32);
	} else {
		put16(f + 16, n + 20);
		put16(f + 24, 0);
		sum = (uint16_t)~net_fold(net_sum(0, f + NET_HEADER, 20));
		memcpy(f + 24, &sum, 2);
		s = net_sum(0, f + 26, 8);
	}
	sum = net_fold(net_sum(s, pseudo, sizeof(pseudo)));
	memcpy(f + l4 + 16, &sum, 2);
}

void net_merge_deliver(struct net_merge *m, struct net_link *l)
{
	unsigned before = m->used;

	while (m->used) {
		struct net_merged *f = &m->frame[m->first];
		struct iovec iov = { f->data, f->len };
		struct net_wire w;

		finish(f, &w);
		if (net_deliver(l, &w, &iov, 1) == NET_BUSY)
			break;
		m->first = (m->first + 1) % NET_MERGE_FRAMES;
		m->used--;
	}
	if (before != m->used)
		net_delivered(l);
}

void net_merge_dispose(struct net_merge *m)
{
	for (unsigned i = 0; i < NET_MERGE_FRAMES; i++)
		free(m->frame[i].data);
}
