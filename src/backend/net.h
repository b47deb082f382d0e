/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands behind a network card: the contract between cards (virtio, e1000) and back-ends (user-mode NAT, TAP, switch).
 *
 * Frames are Ethernet frames without FCS, in pieces, each with a struct net_wire that says what is still to be done to it: a partial
 * checksum, segments to be cut. Each side says what it takes unfinished (NET_TAKES_*); what the other side does not take is done
 * in between, in software (net-offload.c). Both sides have checked nothing for each other: net_send and net_deliver refuse a
 * struct net_wire that does not fit its frame, so that neither side needs to look again.
 *
 * Threads: net_send comes from the thread that kicks (a vCPU's) and must not block; net_deliver and the other calls of
 * the card from any thread, usually the event loop's. Locks: a card may hold its transmit lock over net_send, a back-end its own
 * over net_deliver; so the order is transmit lock, back-end's lock, receive lock, and a card holds no receive lock when it
 * calls net_ready.
 */
#ifndef BACKEND_NET_H
#define BACKEND_NET_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "backend/net-flows.h"
#include "backend/net-wire.h"
#include "base/bucket.h"

struct err;
struct evloop;
struct net_link;

#define NET_HEADER 14u
#define NET_MTU 1500u
#define NET_MTU_LEAST 576u
#define NET_MTU_MOST 65521u      /* libslirp's */
#define NET_MTU_MOST_E1000 16110u /* 16 KiB with header, tag and check sequence */
#define NET_PIECES 260u /* of a frame */

enum net_takes {
	NET_TAKES_CSUM = 1, /* partial checksums */
	NET_TAKES_TSO4 = 2, /* uncut, by protocol; for TCP with NET_TAKES_ECN also with CWR set */
	NET_TAKES_TSO6 = 4,
	NET_TAKES_USO = 8,
	NET_TAKES_ECN = 16,
	NET_TAKES_BIG = 32, /* uncut as it is, of those protocols; but checksums are to be complete over the whole of it */
	NET_TAKES_CUT = NET_TAKES_TSO4 | NET_TAKES_TSO6 | NET_TAKES_USO,
};

enum net_result {
	NET_DONE, /* it is theirs, or dropped for good */
	NET_BUSY, /* keep it: net_drained or net_ready will be called */
};

/* ---- the card's side */

struct net_card_ops {
	/* A frame for the guest; NET_BUSY: no buffers, or paused; net_ready follows. */
	enum net_result (*receive)(void *opaque, const struct net_wire *w, const struct iovec *iov, unsigned n, size_t len);
	void (*received)(void *opaque); /* the end of a batch: interrupt now; may be NULL */
	void (*drained)(void *opaque);	/* net_send takes frames again; may be NULL */
	void (*link)(void *opaque, bool up); /* plugged or unplugged; any thread; may be NULL */
};

struct net_stats {
	uint64_t tx_frames, tx_bytes, tx_drops; /* from the guest; frames as they pass, cut or uncut */
	uint64_t rx_frames, rx_bytes, rx_drops; /* to the guest */
};

/* NULL: detach. Before the loop runs or after it has stopped. */
void net_attach(struct net_link *l, const struct net_card_ops *ops, void *opaque);
/* What the guest's driver takes unfinished; any thread. */
void net_card_takes(struct net_link *l, unsigned takes);
enum net_result net_send(struct net_link *l, const struct net_wire *w, const struct iovec *iov, unsigned n);
void net_sent(struct net_link *l);  /* the end of a batch */
void net_ready(struct net_link *l); /* buffers again, after receive said NET_BUSY; no lock held */
const uint8_t *net_mac(const struct net_link *l);
bool net_up(const struct net_link *l);
/*
 * The guest's connections that live in the back-end and are lost with it (the NAT's), to be saved with the machine; all zero where there
 * are none. And for a machine that was loaded: the guest, whose card has that address, is told that they are over.
 */
void net_flows_of(struct net_link *l, struct net_flow to[NET_FLOWS]);
void net_flows_over(struct net_link *l, const struct net_flow from[NET_FLOWS], const uint8_t mac[6]);
unsigned net_mtu(const struct net_link *l); /* 0: nobody said one */

/* ---- the back-end's side: struct net_link is the first member of its own struct */

struct net_link_ops {
	const char *kind;
	enum net_result (*send)(struct net_link *l, const struct net_wire *w, const struct iovec *iov, unsigned n, size_t len);
	void (*sent)(struct net_link *l);  /* may be NULL */
	void (*ready)(struct net_link *l); /* net_deliver will take frames again */
	void (*flows_of)(struct net_link *l, struct net_flow *to); /* as net_flows_of and net_flows_over; may be NULL */
	void (*flows_over)(struct net_link *l, const struct net_flow *from, const uint8_t mac[6]);
	/* The guest's addresses, as text with blanks between, as far as they are known; may be NULL. */
	void (*addresses)(struct net_link *l, char *text, size_t size);
	void (*destroy)(struct net_link *l); /* frees it; calls net_link_dispose */
};

/* Bytes a second from and to the guest; 0: as many as there are. */
struct net_limits {
	uint64_t in, out;
};

/* Of a card, by direction: [false] from the guest, [true] to it (net-limit.c). */
struct net_throttle {
	pthread_mutex_t lock; /* innermost */
	struct evsource *source; /* NULL: no limit has been set yet */
	int timer;
	bool limited[2];	/* read without the lock */
	struct bucket way[2];
	uint64_t waiting[2]; /* until when; 0: nobody does */
};

struct net_link {
	const struct net_link_ops *ops;
	struct evloop *loop;
	unsigned takes; /* of what the guest sends; fixed */
	uint8_t mac[6];
	uint16_t mtu;  /* fixed */
	char name[32]; /* for messages: "net0" */
	/* the card's */
	const struct net_card_ops *card;
	void *opaque;
	unsigned card_takes;
	bool up;
	struct net_stats stats;
	struct net_throttle throttle;
	pthread_mutex_t tx_lock, rx_lock; /* each covers a scratch; innermost but for the other side's calls */
	uint8_t *tx_scratch, *rx_scratch;
};

struct net_config;
/* Link up, nobody attached. net_link_dispose also after a failure. loop: NULL is for those who set no limits. */
int net_link_init(struct net_link *l, struct evloop *loop, const struct net_link_ops *ops, const struct net_config *c, unsigned takes,
		  struct err *e);
void net_link_dispose(struct net_link *l);
/* A frame for the guest. NET_BUSY: keep it; ops->ready is called once there is room. */
enum net_result net_deliver(struct net_link *l, const struct net_wire *w, const struct iovec *iov, unsigned n);
void net_delivered(struct net_link *l); /* the end of a batch */
void net_drained(struct net_link *l);	/* send takes frames again, after NET_BUSY; no lock held */
void net_dropped(struct net_link *l, bool rx); /* one of the back-end's own drops, to count */

/* ---- for the board and the control socket */

struct net_forward {
	bool udp, v6;
	uint8_t host[16]; /* address to listen on */
	uint16_t port, guest_port;
};
/* "[ADDR:]HOST:GUEST[/udp]"; ADDR is 127.0.0.1 when left out, IPv6 stands in brackets. */
int net_parse_forward(struct net_forward *f, const char *text, struct err *e);

enum net_kind { NET_USER, NET_TAP, NET_SWITCH };
enum net_model { NET_VIRTIO, NET_E1000 };

/* One card: "KIND[:ARGUMENT][,KEY=VALUE...]". */
struct net_config {
	enum net_kind kind;
	enum net_model model;
	char argument[64]; /* interface, network */
	uint16_t mtu;	   /* longest packet; 0: not said, 1500 */
	uint8_t mac[6];	   /* all zero: derived from the machine's name and the card's number */
	char id[32];	   /* what the control socket calls it; empty: net0, net1, ... */
	unsigned slot;	   /* of the PCI bus; 0: the next free one */
	bool removed;	   /* there was one, and its place is kept: a saved machine's */
	struct net_limits limits;
	struct net_hello hello; /* options of a switch's port; the rest of it is filled in by the back-end */
	/* not parsed: */
	const char *machine; /* its name */
	unsigned index;	     /* of the card */
	const struct net_forward *forward;
	unsigned nforwards;
	/* A connected, greeted socket to the network's switch; -errno. By the CLI. dialed: connected by somebody else, now taken; or -1. */
	int (*join)(void *opaque, const char *network, int dialed, struct net_hello *hello, struct err *e);
	void *join_opaque;
	int dialed; /* for the first time; 0: there is none */
};
int net_config_parse(struct net_config *c, const char *text, struct err *e);
/* Locally administered, the same for the same name and number. */
void net_mac_derive(uint8_t mac[6], const char *machine, unsigned index);

struct net_link *net_open(struct evloop *loop, const struct net_config *c, struct err *e);
void net_close(struct net_link *l); /* after the card is gone */
void net_set_up(struct net_link *l, bool up); /* plug, unplug; any thread */
/* Any thread; what is under way and may not go on yet does so under the new ones. */
int net_set_limits(struct net_link *l, const struct net_limits *limits, struct err *e);
struct net_limits net_get_limits(struct net_link *l);
void net_get_stats(const struct net_link *l, struct net_stats *s);
void net_addresses(struct net_link *l, char *text, size_t size); /* any thread */

/* The kinds (net_open chooses). */
struct net_link *net_user_open(struct evloop *loop, const struct net_config *c, struct err *e);
struct net_link *net_tap_open(struct evloop *loop, const struct net_config *c, struct err *e);
struct net_link *net_switch_open(struct evloop *loop, const struct net_config *c, struct err *e);

/* ---- limits (net-limit.c); for net.c */

void net_limit_init(struct net_throttle *t);
void net_limit_stop(struct net_throttle *t); /* before the back-end is taken apart: its timer calls nobody any more */
void net_limit_dispose(struct net_throttle *t);
bool net_limit_holds_slow(struct net_throttle *t, bool rx);
void net_limit_take_slow(struct net_throttle *t, bool rx, size_t len);

/* Is a frame to wait? Then net_drained or ops->ready will be called. */
static inline bool net_limit_holds(struct net_link *l, bool rx)
{
	return __atomic_load_n(&l->throttle.limited[rx], __ATOMIC_RELAXED) && net_limit_holds_slow(&l->throttle, rx);
}

static inline void net_limit_take(struct net_link *l, bool rx, size_t len)
{
	if (__atomic_load_n(&l->throttle.limited[rx], __ATOMIC_RELAXED))
		net_limit_take_slow(&l->throttle, rx, len);
}

/* ---- unfinished frames (net-offload.c) */

/* Does this header fit a frame of `len` bytes? */
bool net_wire_fits(const struct net_wire *w, size_t len);
/* What of NET_TAKES_* a frame needs from who takes it; 0: it is finished. */
unsigned net_wire_needs(const struct net_wire *w);
void net_finish_checksum(uint8_t *frame, size_t len, const struct net_wire *w);
/*
 * Complete frames from an uncut one, each in `out` (of NET_WIRE_FRAME bytes): `emit` is called for each until it returns false.
 * False: it was not done to the end; also for headers that are not what they claim to be.
 */
bool net_segment(const uint8_t *frame, size_t len, const struct net_wire *w, uint8_t *out,
		 bool (*emit)(void *opaque, const uint8_t *frame, size_t len), void *opaque);
/* Internet checksum: add bytes (an even offset) to a sum; fold it. */
uint32_t net_sum(uint32_t sum, const uint8_t *data, size_t len);
static inline uint16_t net_fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)(sum + (sum >> 16));
}

#endif
