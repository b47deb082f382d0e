/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch between machines: what happens to a frame, and nothing about sockets. Ports are given functions to send by; frames come in
 * by switch_input. Learning, VLANs, multicast snooping, refusal of false sources, limits, statistics, captures. Frames
 * pass unsegmented, with what their sender left undone (struct net_wire).
 *
 * One thread: all calls come from the loop's. Nothing blocks: what a port does not take waits in a queue that is bounded for each
 * port and for all, and beyond it is dropped and counted. Every frame is foreign: nothing in it is trusted.
 */
#ifndef NET_SWITCH_H
#define NET_SWITCH_H

#include <sys/uio.h>
#include "backend/net-wire.h"
#include "base/base.h"

struct err;
struct net_switch;
struct switch_port;

#define SWITCH_PORTS 128u
#define SWITCH_QUEUE_FRAMES 1024u
#define SWITCH_QUEUE_BYTES (8u << 20)   /* of one port */
#define SWITCH_MEMORY (128u << 20)      /* of all queues together */
#define SWITCH_HEADROOM 4u              /* before every frame given to switch_input: writable */

enum switch_counter {
#define COUNTER(id, name, help) SWITCH_##id,
#include "net/counters.def"
#undef COUNTER
	SWITCH_COUNTERS
};
extern const char *const switch_counter_names[SWITCH_COUNTERS];

struct switch_env {
	uint64_t (*now)(void *opaque); /* ns, never backwards */
	/* switch_tick is to be called at that time (UINT64_MAX: not needed); replaces an earlier one */
	void (*arm)(void *opaque, uint64_t at);
	void *opaque;
};

struct switch_config {
	bool spoofing;    /* false sources are let through */
	bool isolate;     /* members reach only the uplink */
	uint32_t ageing;  /* seconds until an unused address is forgotten; 0: 300 */
};

/* A frame as a port is to see it. */
struct switch_out {
	struct net_wire wire;
	uint8_t tag[4]; /* iov may lead here */
	struct iovec iov[3];
	unsigned n;
	size_t len;
};
#define SWITCH_TOGETHER 32u /* most in one send; and all of them fit a message (net-wire.h) */

struct switch_port_ops {
	/* How many were taken; fewer than n: not now, switch_port_ready will be called; negative: all are dropped. */
	int (*send)(void *opaque, const struct switch_out *out, unsigned n);
	/* Take in no more frames (a limit), or again. */
	void (*hold)(void *opaque, bool on);
};

struct switch_port_config {
	struct net_hello hello; /* checked by hello_check */
	bool uplink;
	const struct switch_port_ops *ops;
	void *opaque;
};

struct net_switch *switch_create(const struct switch_config *config, const struct switch_env *env, struct err *e);
void switch_destroy(struct net_switch *s); /* ports too */

/* What a member says of itself, from a foreign process. */
int hello_check(const struct net_hello *h, struct err *e);
struct switch_port *switch_port_add(struct net_switch *s, const struct switch_port_config *c, struct err *e);
void switch_port_remove(struct net_switch *s, struct switch_port *p);
unsigned switch_port_index(const struct switch_port *p);

/*
 * A frame from a port: it has SWITCH_HEADROOM writable bytes before it and is the switch's to scribble on until switch_flush. Small
 * frames wait until then for others to the same port.
 */
void switch_input(struct net_switch *s, struct switch_port *p, const struct net_wire *w, uint8_t *frame, size_t len);
void switch_flush(struct net_switch *s); /* the end of a batch */
void switch_port_ready(struct net_switch *s, struct switch_port *p);
void switch_tick(struct net_switch *s);

/*
 * Sees every frame that a port (NULL: any) sends or is sent; out: towards the port. With all ports only what comes in is shown. fn must
 * neither block nor change ports. One call for each capture.
 */
typedef void (*switch_capture_fn)(void *opaque, unsigned port, bool out, const struct net_wire *w,
				  const struct iovec *iov, unsigned n);
struct switch_capture;
struct switch_capture *switch_capture_add(struct net_switch *s, int port, switch_capture_fn fn, void *opaque);
void switch_capture_remove(struct net_switch *s, struct switch_capture *c);

struct switch_port_info {
	struct net_hello hello;
	bool uplink;
	uint64_t counter[SWITCH_COUNTERS];
	unsigned queued_frames;
	size_t queued_bytes;
};
/* The first port from index `from` on, or -1; *info is filled. */
int switch_port_info(struct net_switch *s, unsigned from, struct switch_port_info *info);
unsigned switch_members(const struct net_switch *s); /* ports that are no uplinks */

#endif
