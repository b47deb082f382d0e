/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fragments of IPv4 put together before libslirp sees them: 4.7 crashes on a last fragment of a datagram it knows no other of. Bounded: a
 * few datagrams at a time, the oldest makes room, none is kept for longer than NET_FRAG_MS.
 */
#ifndef BACKEND_NET_FRAG_H
#define BACKEND_NET_FRAG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NET_FRAG_SLOTS 4u
#define NET_FRAG_MS 15000u
#define NET_FRAG_BLOCKS (65536u / 8)

struct net_frag_slot {
	bool used, first;
	uint8_t key[11]; /* source, destination, identification, protocol */
	uint64_t since;	 /* ms */
	unsigned total;	 /* bytes of the payload; 0: the last fragment is missing */
	unsigned end, blocks; /* of what is there */
	uint8_t have[NET_FRAG_BLOCKS / 8];
	unsigned head_len;
	uint8_t head[14 + 60]; /* of the first fragment, with Ethernet's */
	uint8_t *data;	       /* 64 KiB, made at first need */
};

struct net_frag {
	struct net_frag_slot slot[NET_FRAG_SLOTS];
};

void net_frag_dispose(struct net_frag *r);
bool net_frag_is(const uint8_t *frame, size_t len);
/* A fragment; out (NET_WIRE_FRAME bytes, may be the frame's own place): the length of the whole frame, or 0 as long as there is none. */
size_t net_frag_add(struct net_frag *r, const uint8_t *frame, size_t len, uint64_t now_ms, uint8_t *out);

#endif
