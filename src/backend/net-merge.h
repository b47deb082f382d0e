/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames that wait for the guest, oldest first, where a TCP segment becomes part of the one before if it goes on where that ends
 * (what drivers do on reception). No locks: the owner's.
 */
#ifndef BACKEND_NET_MERGE_H
#define BACKEND_NET_MERGE_H

#include "backend/net.h"

#define NET_MERGE_FRAMES 64u

struct net_merged {
	uint8_t *data; /* NET_WIRE_FRAME bytes, made at first need */
	uint32_t len, payload; /* payload: where it starts; 0: nothing can be added */
	uint16_t size;	       /* of its first segment's payload */
	uint16_t segments;
	bool v6;
};

struct net_merge {
	struct net_merged frame[NET_MERGE_FRAMES];
	unsigned first, used;
};

/* False: there is no room. Checksums of the frame are right. */
bool net_merge_add(struct net_merge *m, const uint8_t *frame, size_t len);
void net_merge_deliver(struct net_merge *m, struct net_link *l);
static inline bool net_merge_waiting(const struct net_merge *m)
{
	return m->used;
}
/* Better not to make more. */
static inline bool net_merge_full(const struct net_merge *m)
{
	return m->used > NET_MERGE_FRAMES / 2;
}
void net_merge_dispose(struct net_merge *m);

#endif
