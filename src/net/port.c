/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports: sending, the queue of what does not go at once, limits, captures. A frame that goes within its batch is never copied, one
 * that waits longer is. Nothing is in the queue while frames of a batch wait.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "net/private.h"

/* As the port is to see it: with a tag between the addresses and the rest, or without. */
static void frame_out(const struct switch_port *p, const struct frame *f, struct switch_out *o)
{
	uint16_t tci = (uint16_t)(f->priority << 13 | f->vlan);

	o->wire = f->wire;
	o->len = f->len;
	o->n = 1;
	if (!p->config.hello.trunk || f->vlan == p->config.hello.vlan) {
		o->iov[0] = (struct iovec){ f->data, f->len };
		return;
	}
	memcpy(o->tag, (uint8_t[]){ 0x81, 0x00, (uint8_t)(tci >> 8), (uint8_t)tci }, TAG_LEN);
	o->iov[0] = (struct iovec){ f->data, 12 };
	o->iov[1] = (struct iovec){ o->tag, TAG_LEN };
	o->iov[2] = (struct iovec){ f->data + 12, f->len - 12 };
	o->n = 3;
	o->len += TAG_LEN;
	if (o->wire.flags & NET_WIRE_CSUM)
		o->wire.csum_start = (uint16_t)(o->wire.csum_start + TAG_LEN);
	if (o->wire.hdr_len)
		o->wire.hdr_len = (uint16_t)(o->wire.hdr_len + TAG_LEN);
}

void port_captured(struct switch_port *p, const struct frame *f, bool out)
{
	struct switch_out o;

	if (likely(!p->sw->captures))
		return;
	frame_out(p, f, &o);
	for (struct switch_capture *c = p->sw->captures; c; c = c->next)
		if (c->port == (int)p->index || (c->port < 0 && !out))
			c->fn(c->opaque, p->index, out, &o.wire, o.iov, o.n);
}

/* How many it is done with, one way or the other; fewer than n: the others later, and the port is blocked. */
static unsigned port_send(struct switch_port *p, const struct switch_out *o, const struct frame *f, unsigned n)
{
	int sent = p->config.ops->send(p->config.opaque, o, n);

	if (sent < 0) {
		p->counter[SWITCH_SEND_FAILED] += n;
		return n;
	}
	for (int i = 0; i < sent; i++) {
		bucket_take(&p->out, f[i].len);
		p->counter[SWITCH_OUT_FRAMES]++;
		p->counter[SWITCH_OUT_BYTES] += f[i].len;
		port_captured(p, &f[i], true);
	}
	p->blocked = (unsigned)sent < n;
	return (unsigned)sent;
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

void port_flush(struct switch_port *p)
{
	unsigned n = p->ntogether, done;

	p->ntogether = 0;
	p->together_bytes = 0;
	set_remove(&p->sw->unsent, p->index);
	if (!n)
		return;
	done = port_send(p, p->out_frames, p->together, n);
	for (; done < n; done++) {
		struct kept *kept = NULL;

		if (!port_queue(p, &p->together[done], &kept))
			p->counter[SWITCH_QUEUE_FULL]++;
		port_release(p->sw, kept);
	}
}

/* Takes a frame for the flush, before which there is room for it. */
static void port_join(struct switch_port *p, const struct frame *f)
{
	struct switch_out *o = &p->out_frames[p->ntogether];

	frame_out(p, f, o);
	p->together[p->ntogether++] = *f;
	p->together_bytes += sizeof(struct net_record) + o->len;
	set_add(&p->sw->unsent, p->index);
}

void port_output(struct switch_port *p, struct frame *f, struct kept **kept)
{
	uint64_t now = p->out.rate ? p->sw->env.now(p->sw->env.opaque) : 0, wait;
	bool small = f->len <= NET_WIRE_SMALL && !p->out.rate;

	if (p->ntogether && (!small || p->ntogether == SWITCH_TOGETHER ||
			     p->together_bytes + sizeof(struct net_record) + f->len + TAG_LEN > NET_WIRE_MESSAGE))
		port_flush(p);
	if (!p->queue.used && !p->blocked) {
		wait = bucket_wait(&p->out, now);
		if (!wait) {
			port_join(p, f);
			if (!small)
				port_flush(p);
			return;
		}
		switch_arm(p->sw, now + wait);
	}
	if (!port_queue(p, f, kept))
		p->counter[SWITCH_QUEUE_FULL]++;
}

/* The first of the queue that may go now, for one send; how many. */
static unsigned port_gather(struct switch_port *p)
{
	struct queue *q = &p->queue;
	unsigned n = 0, most = p->out.rate ? 1 : MIN(q->used, SWITCH_TOGETHER);
	size_t bytes = 0;

	for (; n < most; n++) {
		const struct frame *f = &q->ring[(q->first + n) % SWITCH_QUEUE_FRAMES]->frame;

		bytes += sizeof(struct net_record) + f->len + TAG_LEN;
		if (n && bytes > NET_WIRE_MESSAGE)
			break;
		p->together[n] = *f;
		frame_out(p, f, &p->out_frames[n]);
	}
	return n;
}

void port_drain(struct switch_port *p)
{
	struct queue *q = &p->queue;

	while (q->used && !p->blocked) {
		uint64_t now = p->out.rate ? p->sw->env.now(p->sw->env.opaque) : 0, wait = bucket_wait(&p->out, now);

		if (wait) {
			switch_arm(p->sw, now + wait);
			return;
		}
		for (unsigned done = port_send(p, p->out_frames, p->together, port_gather(p)); done; done--) {
			struct kept *k = q->ring[q->first];

			q->first = (q->first + 1) % SWITCH_QUEUE_FRAMES;
			q->used--;
			q->bytes -= k->frame.len;
			port_release(p->sw, k);
		}
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
