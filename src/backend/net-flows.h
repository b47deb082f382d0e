/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's TCP connections, as its own frames tell of them: remembered so that a restored guest can be told that those through the
 * NAT are over, also where it only waits to be sent something. A table of fixed size; of each set the one longest unused makes
 * room. No locks: the owner's.
 */
#ifndef BACKEND_NET_FLOWS_H
#define BACKEND_NET_FLOWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NET_FLOWS 256u
#define NET_FLOW_WAYS 8u

/* As it is saved: from a file it is foreign, and any of its values makes a frame. */
struct net_flow {
	uint8_t guest[16], peer[16]; /* of IPv4 the first four */
	uint16_t guest_port, peer_port;
	uint32_t seq, ack; /* the guest's next, and what it expects */
	uint8_t state;	   /* FLOW_*; 0: free */
	uint8_t pad[3];
};
_Static_assert(sizeof(struct net_flow) == 48, "it is saved like this");

#define FLOW_USED 1u
#define FLOW_V6 2u
#define FLOW_GUEST_FIN 4u
#define FLOW_PEER_FIN 8u

struct net_flows {
	struct net_flow flow[NET_FLOWS]; /* sets of NET_FLOW_WAYS; each the one used last first */
};

/* Every frame, complete (checksums apart). */
void net_flows_look(struct net_flows *t, const uint8_t *frame, size_t len, bool from_guest);
/* Those still open, the first NET_FLOWS of `to`; the rest is zero. */
void net_flows_save(const struct net_flows *t, struct net_flow to[NET_FLOWS]);
/* Back again; what of it is no open connection is left out. */
void net_flows_load(struct net_flows *t, const struct net_flow from[NET_FLOWS]);

#define NET_PROBE 74u
/*
 * A frame to the guest that it has to answer, whatever has come to pass on that connection since: a segment from before what it expects.
 * Its answer then meets nobody's connection. Length of the frame; 0: that is no connection.
 */
size_t net_flow_probe(const struct net_flow *f, const uint8_t to[6], const uint8_t from[6], uint8_t frame[NET_PROBE]);

#endif
