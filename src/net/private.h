/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the switch. */
#ifndef NET_PRIVATE_H
#define NET_PRIVATE_H

#include "base/bucket.h"
#include "net/switch.h"

#define ETH_HEADER 14u
#define TAG_LEN 4u

struct port_set {
	uint64_t bits[SWITCH_PORTS / 64];
};

static inline void set_add(struct port_set *s, unsigned p)
{
	s->bits[p / 64] |= BIT(p % 64);
}

static inline void set_remove(struct port_set *s, unsigned p)
{
	s->bits[p / 64] &= ~BIT(p % 64);
}

static inline bool set_has(const struct port_set *s, unsigned p)
{
	return s->bits[p / 64] >> (p % 64) & 1;
}

/* A frame on its way: without tag, and the VLAN it is in. */
struct frame {
	uint8_t *data;
	uint32_t len;
	uint16_t vlan;
	uint8_t priority;
	struct net_wire wire; /* offsets count without the tag */
};

/* One that waits, shared by the queues it is in. */
struct kept {
	unsigned refs;
	struct frame frame;
	uint8_t data[];
};

/* A port's place in a ring of frames that wait. */
struct queue {
	struct kept **ring; /* SWITCH_QUEUE_FRAMES, made at first need */
	unsigned first, used;
	size_t bytes;
};

struct switch_port {
	struct net_switch *sw;
	unsigned index;
	struct switch_port_config config;
	struct bucket in, out;
	struct queue queue;
	/* of this batch, not yet sent: as the port is to see it, and as it came in */
	struct switch_out out_frames[SWITCH_TOGETHER];
	struct frame together[SWITCH_TOGETHER];
	unsigned ntogether;
	size_t together_bytes;
	bool blocked; /* send took less than it was given */
	bool held;    /* takes nothing in until its bucket fills */
	uint64_t counter[SWITCH_COUNTERS];
};

/* ---- addresses learnt (fdb.c) */

#define FDB_SETS 1024u
#define FDB_WAYS 8u

struct fdb_entry {
	uint8_t mac[6];
	uint16_t vlan;
	uint8_t port;
	bool used;
	uint32_t seen;    /* seconds */
};

struct fdb {
	struct fdb_entry entry[FDB_SETS][FDB_WAYS];
	struct fdb_entry fixed[SWITCH_PORTS]; /* by port; vlan means nothing */
	uint64_t seed;
	uint32_t ageing;
};

void fdb_init(struct fdb *f, uint32_t ageing);
/* The port, or -1. */
int fdb_find(const struct fdb *f, uint16_t vlan, const uint8_t mac[6], uint32_t now);
int fdb_owner(const struct fdb *f, const uint8_t mac[6]); /* who declared it, or -1 */
void fdb_learn(struct fdb *f, uint16_t vlan, const uint8_t mac[6], unsigned port, uint32_t now);
void fdb_declare(struct fdb *f, const uint8_t mac[6], unsigned port);
void fdb_forget(struct fdb *f, unsigned port);

/* ---- multicast groups (snoop.c) */

#define SNOOP_GROUPS 1024u
#define SNOOP_PORT_GROUPS 128u

struct group {
	uint8_t mac[6];
	uint16_t vlan;
	struct port_set ports;
	uint32_t seen[SWITCH_PORTS]; /* last report, seconds */
	struct group *next;
};

struct snoop {
	struct group *hash[256];
	unsigned groups, of_port[SWITCH_PORTS];
	uint32_t querier[SWITCH_PORTS]; /* last query seen there, seconds; 0: never */
	uint64_t seed;
};

enum snoop_kind { SNOOP_DATA, SNOOP_QUERY, SNOOP_REPORT };

void snoop_init(struct snoop *s);
void snoop_dispose(struct snoop *s);
void snoop_forget(struct snoop *s, unsigned port);
/* A look at a multicast frame from `port`: memberships change. fast: one host behind the port, a leave counts at once. */
enum snoop_kind snoop_look(struct snoop *s, const struct frame *f, unsigned port, bool fast, uint32_t now);
/* Leaves in *to those who want it; true: somebody is known to be in the group. */
bool snoop_select(struct snoop *s, const struct frame *f, struct port_set *to, const struct port_set *uplinks, uint32_t now);
/* Only those who want to hear of memberships. */
void snoop_routers(struct snoop *s, struct port_set *to, const struct port_set *uplinks, uint32_t now);

/* ---- false sources (filter.c) */

bool filter_source(const struct net_hello *h, const struct frame *f);
/* Past the extension headers: offset of what follows, its protocol in *next; 0: malformed or fragmented. */
uint32_t ip6_payload(const struct frame *f, uint8_t *next);

static inline uint16_t be16_at(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

struct switch_capture {
	int port;
	switch_capture_fn fn;
	void *opaque;
	struct switch_capture *next;
};

struct net_switch {
	struct switch_config config;
	struct switch_env env;
	struct switch_port *port[SWITCH_PORTS];
	struct port_set uplinks, unsent; /* unsent: frames of this batch wait */
	unsigned members;
	size_t queued; /* bytes in all queues; shared ones once */
	uint64_t armed;
	struct fdb fdb;
	struct snoop snoop;
	struct switch_capture *captures;
};

/* ---- ports (port.c) */

void port_flush(struct switch_port *p);
void port_output(struct switch_port *p, struct frame *f, struct kept **kept);
void port_release(struct net_switch *s, struct kept *k);
void port_drain(struct switch_port *p);
void port_empty(struct switch_port *p);
void port_captured(struct switch_port *p, const struct frame *f, bool out);
void switch_arm(struct net_switch *s, uint64_t at);

#endif
