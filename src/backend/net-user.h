/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the user network: net-user.c (frames, life), net-user-turn.c (sockets and timers), net-user-forward.c. */
#ifndef BACKEND_NET_USER_H
#define BACKEND_NET_USER_H

#include <netinet/in.h>
#include <slirp/libslirp.h>
#include "backend/net-frag.h"
#include "backend/net-merge.h"
#include "backend/net.h"
#include "base/clock.h"

#define USER_NEVER UINT64_MAX

struct watched {
	uint32_t now, wanted; /* epoll events; now: as registered */
	uint32_t happened;
	bool known; /* libslirp has it */
	uint8_t listens; /* LISTENS_* */
};
enum { LISTENS_UNKNOWN, LISTENS_NOT, LISTENS };

struct user_timer {
	struct user *u;
	SlirpTimerCb fn;
	void *opaque;
	uint64_t at; /* ms; USER_NEVER */
	struct user_timer *next;
};

struct user {
	struct net_link link;
	pthread_mutex_t lock;
	Slirp *slirp;
	int epoll, timer;
	struct evsource *sockets_source, *timer_source;
	struct watched *fd; /* by descriptor */
	unsigned nfd, sockets, sockets_max;
	struct user_timer *timers;
	uint64_t armed, active; /* ms: what the timerfd is set to; when something happened last */
	bool deaf;		/* sockets are not looked at */
	struct net_merge merge;
	struct in_addr network; /* host order */
	uint8_t prefix[16];
	/* the guest's addresses, as seen in its frames */
	uint32_t ip4;
	uint8_t ip6[16];
	/* where forwards by IPv6 lead to: of the guest's addresses the one it used last when this one was not seen for a while */
	struct net_forward *forward6;
	unsigned nforward6;
	uint8_t target6[16];
	uint64_t target6_seen; /* ms; 0: never, it is a guess */
	bool resetting;	 /* the frame in libslirp's hands ends a connection as failed */
	bool connecting; /* a TCP connection was begun in this batch */
	bool neighbour; /* the guest has said where it is: frames may have waited for that within libslirp */
	struct net_frag frag;
	struct net_flows flows;
	struct net_flow over[NET_FLOWS]; /* before a restore: probes of these are still to be sent */
	unsigned nover;
	uint8_t over_mac[6];
	uint8_t frame[NET_WIRE_FRAME];
};

static inline uint64_t user_now_ms(void)
{
	return clock_host_now() / 1000000u;
}

/* ---- net-user-turn.c; u->lock is held, but for the two that the event loop calls */

extern const SlirpCb user_callbacks;
void user_sockets(void *opaque, uint32_t events);
void user_tick(void *opaque, uint32_t events);
void user_poll(struct user *u);   /* what libslirp does by itself, without anything having happened */
void user_turn(struct user *u);   /* what the sockets have to say by now */
void user_settle(struct user *u); /* frames out, sockets and timers in line */

/* ---- net-user-forward.c; the same */

int user_forwards_open(struct user *u, const struct net_forward *f, unsigned n, struct err *e);
void user_seen6(struct user *u, const uint8_t address[16]); /* the guest has shown it as its own */

#endif
