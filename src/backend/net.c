/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between cards and back-ends (net.h): counting, finishing what the other side does not take unfinished, and what --net says.
 *
 * stats, card_takes and up change with atomics; a scratch is made at first need and covered by its direction's lock.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "backend/net.h"
#include "base/base.h"
#include "base/err.h"

#define COUNT(field, by) __atomic_fetch_add(&(field), (by), __ATOMIC_RELAXED)

int net_link_init(struct net_link *l, struct evloop *loop, const struct net_link_ops *ops, const struct net_config *c, unsigned takes,
		  struct err *e)
{
	static const uint8_t none[6];

	l->ops = ops;
	l->loop = loop;
	l->takes = takes;
	l->mtu = c->mtu;
	l->up = true;
	if (memcmp(c->mac, none, sizeof(none)))
		memcpy(l->mac, c->mac, sizeof(l->mac));
	else
		net_mac_derive(l->mac, c->machine ? c->machine : "vm", c->index);
	snprintf(l->name, sizeof(l->name), "net%u", c->index);
	/* half for what comes, half for what is made of it */
	l->tx_scratch = malloc(2 * NET_WIRE_FRAME);
	l->rx_scratch = malloc(2 * NET_WIRE_FRAME);
	pthread_mutex_init(&l->tx_lock, NULL);
	pthread_mutex_init(&l->rx_lock, NULL);
	net_limit_init(&l->throttle);
	if (!l->tx_scratch || !l->rx_scratch)
		return err_set(e, ENOMEM, "no memory for a network card");
	return net_set_limits(l, &c->limits, e);
}

void net_link_dispose(struct net_link *l)
{
	net_limit_dispose(&l->throttle);
	free(l->tx_scratch);
	free(l->rx_scratch);
	pthread_mutex_destroy(&l->tx_lock);
	pthread_mutex_destroy(&l->rx_lock);
}

void net_attach(struct net_link *l, const struct net_card_ops *ops, void *opaque)
{
	l->opaque = opaque;
	l->card = ops;
	l->card_takes = 0;
}

void net_card_takes(struct net_link *l, unsigned takes)
{
	__atomic_store_n(&l->card_takes, takes, __ATOMIC_RELAXED);
}

const uint8_t *net_mac(const struct net_link *l)
{
	return l->mac;
}

bool net_up(const struct net_link *l)
{
	return __atomic_load_n(&l->up, __ATOMIC_RELAXED);
}

unsigned net_mtu(const struct net_link *l)
{
	return l->mtu;
}

/* ---- frames */

static size_t iov_bytes(const struct iovec *iov, unsigned n)
{
	size_t len = 0;

	for (unsigned i = 0; i < n; i++) {
		if (iov[i].iov_len > NET_WIRE_FRAME)
			return SIZE_MAX;
		len += iov[i].iov_len;
	}
	return len;
}

/* From here on nobody can change it. */
static void gather(uint8_t *to, const struct iovec *iov, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		memcpy(to, iov[i].iov_base, iov[i].iov_len);
		to += iov[i].iov_len;
	}
}

static enum net_result link_send(struct net_link *l, const struct net_wire *w, const struct iovec *iov, unsigned n, size_t len)
{
	enum net_result r = l->ops->send(l, w, iov, n, len);

	if (r == NET_DONE) {
		COUNT(l->stats.tx_frames, 1);
		COUNT(l->stats.tx_bytes, len);
	}
	return r;
}

static enum net_result card_receive(struct net_link *l, const struct net_wire *w, const struct iovec *iov, unsigned n, size_t len)
{
	enum net_result r = l->card->receive(l->opaque, w, iov, n, len);

	if (r == NET_DONE) {
		COUNT(l->stats.rx_frames, 1);
		COUNT(l->stats.rx_bytes, len);
	}
	return r;
}

struct passage {
	struct net_link *l;
	bool rx;
	unsigned emitted;
	enum net_result last;
};

static bool pass(void *opaque, const uint8_t *frame, size_t len)
{
	static const struct net_wire plain = { .flags = NET_WIRE_VALID };
	static const struct net_wire sent;
	struct passage *p = opaque;
	struct iovec iov = { (void *)frame, len };

	p->last = p->rx ? card_receive(p->l, &plain, &iov, 1, len) : link_send(p->l, &sent, &iov, 1, len);
	p->emitted += p->last == NET_DONE;
	return p->last == NET_DONE;
}

/* The lock of the direction is held. Busy only if not a single segment went: what follows a dropped one is sent again anyway. */
static enum net_result finish(struct passage *p, unsigned takes, uint8_t *scratch, const struct net_wire *w,
			      const struct iovec *iov, unsigned n, size_t len)
{
	struct net_wire rest = *w;
	struct iovec one = { scratch, len };

	gather(scratch, iov, n);
	if (w->gso && (!(takes & NET_TAKES_BIG) || net_wire_needs(w) & ~takes & NET_TAKES_CUT)) {
		if (net_segment(scratch, len, w, scratch + NET_WIRE_FRAME, pass, p))
			return NET_DONE;
		if (p->last == NET_BUSY && !p->emitted)
			return NET_BUSY;
		net_dropped(p->l, p->rx);
		return NET_DONE;
	}
	net_finish_checksum(scratch, len, w);
	rest.flags &= (uint8_t)~NET_WIRE_CSUM;
	return p->rx ? card_receive(p->l, &rest, &one, 1, len) : link_send(p->l, &rest, &one, 1, len);
}

enum net_result net_send(struct net_link *l, const struct net_wire *w, const struct iovec *iov, unsigned n)
{
	struct passage p = { .l = l };
	size_t len = iov_bytes(iov, n);
	enum net_result r;

	if (!net_wire_fits(w, len) || !net_up(l)) {
		net_dropped(l, false);
		return NET_DONE;
	}
	if (net_limit_holds(l, false))
		return NET_BUSY;
	if (!(net_wire_needs(w) & ~l->takes)) {
		r = link_send(l, w, iov, n, len);
	} else {
		pthread_mutex_lock(&l->tx_lock);
		r = finish(&p, l->takes, l->tx_scratch, w, iov, n, len);
		pthread_mutex_unlock(&l->tx_lock);
	}
	if (r == NET_DONE)
		net_limit_take(l, false, len);
	return r;
}

enum net_result net_deliver(struct net_link *l, const struct net_wire *w, const struct iovec *iov, unsigned n)
{
	unsigned takes = __atomic_load_n(&l->card_takes, __ATOMIC_RELAXED);
	struct passage p = { .l = l, .rx = true };
	size_t len = iov_bytes(iov, n);
	enum net_result r;

	if (!l->card || !net_wire_fits(w, len) || !net_up(l)) {
		net_dropped(l, true);
		return NET_DONE;
	}
	if (net_limit_holds(l, true))
		return NET_BUSY;
	if (!(net_wire_needs(w) & ~takes)) {
		r = card_receive(l, w, iov, n, len);
	} else {
		pthread_mutex_lock(&l->rx_lock);
		r = finish(&p, takes, l->rx_scratch, w, iov, n, len);
		pthread_mutex_unlock(&l->rx_lock);
	}
	if (r == NET_DONE)
		net_limit_take(l, true, len);
	return r;
}

void net_sent(struct net_link *l)
{
	if (l->ops->sent)
		l->ops->sent(l);
}

void net_flows_of(struct net_link *l, struct net_flow to[NET_FLOWS])
{
	if (l->ops->flows_of)
		l->ops->flows_of(l, to);
	else
		memset(to, 0, NET_FLOWS * sizeof(*to));
}

void net_flows_over(struct net_link *l, const struct net_flow from[NET_FLOWS], const uint8_t mac[6])
{
	if (l->ops->flows_over)
		l->ops->flows_over(l, from, mac);
}

void net_ready(struct net_link *l)
{
	l->ops->ready(l);
}

void net_delivered(struct net_link *l)
{
	if (l->card && l->card->received)
		l->card->received(l->opaque);
}

void net_drained(struct net_link *l)
{
	if (l->card && l->card->drained)
		l->card->drained(l->opaque);
}

void net_dropped(struct net_link *l, bool rx)
{
	COUNT(*(rx ? &l->stats.rx_drops : &l->stats.tx_drops), 1);
}

/* ---- for the board */

void net_set_up(struct net_link *l, bool up)
{
	if (__atomic_exchange_n(&l->up, up, __ATOMIC_RELAXED) != up && l->card && l->card->link)
		l->card->link(l->opaque, up);
}

void net_get_stats(const struct net_link *l, struct net_stats *s)
{
	const uint64_t *from = (const uint64_t *)&l->stats;
	uint64_t *to = (uint64_t *)s;

	for (unsigned i = 0; i < sizeof(*s) / sizeof(*to); i++)
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

void net_addresses(struct net_link *l, char *text, size_t size)
{
	*text = 0;
	if (l->ops->addresses)
		l->ops->addresses(l, text, size);
}

/* FNV-1a; the two low bits of the first byte say: one station, locally administered. */
void net_mac_derive(uint8_t mac[6], const char *machine, unsigned index)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (; *machine; machine++)
		h = (h ^ (uint8_t)*machine) * 0x100000001b3u;
	h = (h ^ 0x100u ^ index) * 0x100000001b3u;
	h ^= h >> 32;
	for (unsigned i = 0; i < 6; i++)
		mac[i] = (uint8_t)(h >> 8 * i);
	mac[0] = (uint8_t)((mac[0] & ~3) | 2);
}

struct net_link *net_open(struct evloop *loop, const struct net_config *c, struct err *e)
{
	switch (c->kind) {
	case NET_TAP: return net_tap_open(loop, c, e);
	case NET_SWITCH: return net_switch_open(loop, c, e);
	case NET_USER: return net_user_open(loop, c, e);
	default: err_set(e, ENOTSUP, "this kind of network is not there"); return NULL;
	}
}

void net_close(struct net_link *l)
{
	if (!l)
		return;
	net_limit_stop(&l->throttle);
	l->ops->destroy(l);
}
