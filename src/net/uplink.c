/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way out of a network: user-mode NAT, a TAP interface or a bridge of the host, seen as a card's back-end (net.h) whose card
 * is a port of the switch. What comes from there may come within a frame we send there, or on another thread: it is taken
 * over into a ring, bounded, and given to the switch by the loop.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "backend/net-tap.h"
#include "backend/net.h"
#include "net/serve-private.h"

#define RING 256u

struct came {
	struct net_wire wire;
	size_t len;
	uint8_t *data; /* with SWITCH_HEADROOM before it */
};

struct uplink {
	struct serve *serve;
	struct net_link *link;
	struct switch_port *port;
	pthread_mutex_t lock; /* what follows; nothing is called with it held */
	struct came ring[RING];
	unsigned first, used;
	bool posted, refused, drained;
};

static void uplink_work(void *opaque);

/* Under the lock. */
static void uplink_post(struct uplink *u)
{
	if (u->posted)
		return;
	u->posted = evloop_post(u->serve->loop, uplink_work, u) == 0;
}

static enum net_result uplink_receive(void *opaque, const struct net_wire *w, const struct iovec *iov, unsigned n, size_t len)
{
	uint8_t *copy = malloc(SWITCH_HEADROOM + len), *to = copy + SWITCH_HEADROOM;
	struct uplink *u = opaque;
	bool room;

	if (!copy)
		return NET_DONE; /* lost, as frames may be */
	for (unsigned i = 0; i < n; i++) {
		memcpy(to, iov[i].iov_base, iov[i].iov_len);
		to += iov[i].iov_len;
	}
	pthread_mutex_lock(&u->lock);
	room = u->used < RING;
	if (room)
		u->ring[(u->first + u->used++) % RING] = (struct came){ *w, len, copy };
	else
		u->refused = true;
	uplink_post(u);
	pthread_mutex_unlock(&u->lock);
	if (!room)
		free(copy);
	return room ? NET_DONE : NET_BUSY;
}

static void uplink_drained(void *opaque)
{
	struct uplink *u = opaque;

	pthread_mutex_lock(&u->lock);
	u->drained = true;
	uplink_post(u);
	pthread_mutex_unlock(&u->lock);
}

static void uplink_work(void *opaque)
{
	struct uplink *u = opaque;
	bool refused, drained;

	pthread_mutex_lock(&u->lock);
	u->posted = false;
	drained = u->drained;
	u->drained = false;
	while (u->used) {
		struct came c = u->ring[u->first];

		u->first = (u->first + 1) % RING;
		u->used--;
		pthread_mutex_unlock(&u->lock);
		switch_input(u->serve->sw, u->port, &c.wire, c.data + SWITCH_HEADROOM, c.len);
		switch_flush(u->serve->sw);
		free(c.data);
		pthread_mutex_lock(&u->lock);
	}
	refused = u->refused;
	u->refused = false;
	pthread_mutex_unlock(&u->lock);
	if (drained)
		switch_port_ready(u->serve->sw, u->port);
	if (refused)
		net_ready(u->link);
}

static const struct net_card_ops uplink_card = { .receive = uplink_receive, .drained = uplink_drained };

/* ---- as a port */

static int uplink_send(void *opaque, const struct switch_out *out, unsigned n)
{
	struct uplink *u = opaque;
	unsigned sent = 0;

	while (sent < n && net_send(u->link, &out[sent].wire, out[sent].iov, out[sent].n) != NET_BUSY)
		sent++;
	if (sent)
		net_sent(u->link);
	return (int)sent;
}

static void uplink_hold(void *opaque, bool on)
{
	/* an uplink has no limit of its own: its members have theirs */
}

static const struct switch_port_ops uplink_port = { uplink_send, uplink_hold };

int uplink_parse(const char *text, struct net_config *c, struct err *e)
{
	static const char bridge[] = "bridge:";
	const char *said = text;
	struct err why = { 0 };
	char as_tap[80];

	if (!strncmp(text, bridge, strlen(bridge))) {
		snprintf(as_tap, sizeof(as_tap), "tap:%.70s", text + strlen(bridge));
		text = as_tap;
	}
	if (net_config_parse(c, text, &why) || c->kind == NET_SWITCH)
		return err_set(e, EINVAL, "'%.60s' is no uplink (%.60s); write user, tap:INTERFACE or bridge:BRIDGE", said, c->kind == NET_SWITCH ? "another switch" : why.text);
	return 0;
}

struct uplink *uplink_open(struct serve *s, const char *text, struct err *e)
{
	struct switch_port_config pc = { .uplink = true, .ops = &uplink_port };
	struct uplink *u = calloc(1, sizeof(*u));
	struct net_config c;

	if (!u) {
		err_set(e, ENOMEM, "no memory for an uplink");
		return NULL;
	}
	u->serve = s;
	pthread_mutex_init(&u->lock, NULL);
	if (!uplink_parse(text, &c, e)) {
		c.machine = s->config.name;
		c.index = 255; /* no card of a machine of that name has this number, nor this address */
		u->link = strncmp(text, "bridge:", 7) ? net_open(s->loop, &c, e) : net_bridge_open(s->loop, &c, e);
	}
	if (u->link) {
		pc.opaque = u;
		pc.hello.magic = NET_WIRE_MAGIC;
		pc.hello.kind = NET_HELLO_MEMBER;
		memcpy(pc.hello.name, text, MIN(strlen(text), sizeof(pc.hello.name) - 1));
		u->port = switch_port_add(s->sw, &pc, e);
	}
	if (!u->port) {
		err_prefix(e, "uplink %.60s", text);
		uplink_close(u);
		return NULL;
	}
	net_attach(u->link, &uplink_card, u);
	net_card_takes(u->link, NET_TAKES_CSUM | NET_TAKES_TSO4 | NET_TAKES_TSO6 | NET_TAKES_USO | NET_TAKES_ECN);
	return u;
}

void uplink_close(struct uplink *u)
{
	if (!u)
		return;
	net_close(u->link);
	if (u->port)
		switch_port_remove(u->serve->sw, u->port);
	for (unsigned i = 0; i < u->used; i++)
		free(u->ring[(u->first + i) % RING].data);
	pthread_mutex_destroy(&u->lock);
	free(u);
}
