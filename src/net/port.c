/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports: sending, the queue of what does not go at once, limits, captures. A frame that goes at once is never copied; one that
 * waits is copied once, however many queues it is in.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "net/private.h"

#define IOVECS 3

/* As the port is to see it: with a tag between the addresses and the rest, or without. */
static unsigned frame_iov(const struct switch_port *p, const struct frame *f, uint8_t tag[TAG_LEN], struct iovec iov[IOVECS],
			  struct net_wire *w)
{
	uint16_t tci = (uint16_t)(f->priority << 13 | f->vlan);

	*w = f->wire;
	if (!p->config.hello.trunk || f->vlan == p->config.hello.vlan) {
		iov[0] = (struct iovec){ f->data, f->len };
		return 1;
	}
	memcpy(tag, (uint8_t[]){ 0x81, 0x00, (uint8_t)(tci >> 8), (uint8_t)tci }, TAG_LEN);
	iov[0] = (struct iovec){ f->data, 12 };
	iov[1] = (struct iovec){ tag, TAG_LEN };
	iov[2] = (struct iovec){ f->data + 12, f->len - 12 };
	if (w->flags & NET_WIRE_CSUM)
		w->csum_start = (uint16_t)(w->csum_start + TAG_LEN);
	if (w->hdr_len)
		w->hdr_len = (uint16_t)(w->hdr_len + TAG_LEN);
	return 3;
}

void port_captured(struct switch_port *p, const struct frame *f, bool out)
{
	struct iovec iov[IOVECS];
	uint8_t tag[TAG_LEN];
	struct net_wire w;
	unsigned n;

	if (likely(!p->sw->captures))
		return;
	n = frame_iov(p, f, tag, iov, &w);
	for (struct switch_capture *c = p->sw->captures; c; c = c->next)
		if (c->port == (int)p->index || (c->port < 0 && !out))
			c->fn(c->opaque, p->index, out, &w, iov, n);
}

/* 0: done with it, one way or the other; -EAGAIN: later. */
static int port_send(struct switch_port *p, const struct frame *f)
{
	struct iovec iov[IOVECS];
	uint8_t tag[TAG_LEN];
	struct net_wire w;
	unsigned n = frame_iov(p, f, tag, iov, &w);
	int r = p->config.ops->send(p->config.opaque, &w, iov, n);

	if (r == -EAGAIN)
		return r;
	if (r) {
		p->counter[SWITCH_SEND_FAILED]++;
		return 0;
	}
	bucket_take(&p->out, f->len);
	p->counter[SWITCH_OUT_FRAMES]++;
	p->counter[SWITCH_OUT_BYTES] += f->len;
	port_captured(p, f, true);
	return 0;
}

void port_release(struct net_switch *s, struct kept *k)
{
	if (!k || --k->refs)
		return;
	s->queued -= k->frame.len;
	free(k);
}

static struct kept *frame_keep(struct net_switch *s, const struct frame *f)
{
	struct kept *k;

	if (s->queued + f->len > SWITCH_MEMORY)
		return NULL;
	k = malloc(sizeof(*k) + f->len);
	if (!k)
		return NULL;
	k->refs = 1;
	k->frame = *f;
	k->frame.data = k->data;
	memcpy(k->data, f->data, f->len);
	s->queued += f->len;
	return k;
}

/* *kept is the caller's reference, made here at first need. */
static bool port_queue(struct switch_port *p, const struct frame *f, struct kept **kept)
{
	struct queue *q = &p->queue;

	if (q->used == SWITCH_QUEUE_FRAMES || q->bytes + f->len > SWITCH_QUEUE_BYTES)
		return false;
	if (!q->ring)
		q->ring = calloc(SWITCH_QUEUE_FRAMES, sizeof(*q->ring));
	if (!*kept)
		*kept = frame_keep(p->sw, f);
	if (!q->ring || !*kept)
		return false;
	(*kept)->refs++;
	q->ring[(q->first + q->used++) % SWITCH_QUEUE_FRAMES] = *kept;
	q->bytes += f->len;
	return true;
}

void port_output(struct switch_port *p, struct frame *f, struct kept **kept)
{
	uint64_t now = p->out.rate ? p->sw->env.now(p->sw->env.opaque) : 0, wait;

	if (!p->queue.used && !p->blocked) {
		wait = bucket_wait(&p->out, now);
		if (!wait && !port_send(p, f))
			return;
		if (wait)
			switch_arm(p->sw, now + wait);
		else
			p->blocked = true;
	}
	if (!port_queue(p, f, kept))
		p->counter[SWITCH_QUEUE_FULL]++;
}

void port_drain(struct switch_port *p)
{
	struct queue *q = &p->queue;

	while (q->used && !p->blocked) {
		uint64_t now = p->out.rate ? p->sw->env.now(p->sw->env.opaque) : 0, wait = bucket_wait(&p->out, now);
		struct kept *k = q->ring[q->first];

		if (wait) {
			switch_arm(p->sw, now + wait);
			return;
		}
		if (port_send(p, &k->frame)) {
			p->blocked = true;
			return;
		}
		q->first = (q->first + 1) % SWITCH_QUEUE_FRAMES;
		q->used--;
		q->bytes -= k->frame.len;
		port_release(p->sw, k);
	}
}

void port_empty(struct switch_port *p)
{
	struct queue *q = &p->queue;

	while (q->used) {
		port_release(p->sw, q->ring[q->first]);
		q->first = (q->first + 1) % SWITCH_QUEUE_FRAMES;
		q->used--;
	}
	free(q->ring);
	*q = (struct queue){ 0 };
}
