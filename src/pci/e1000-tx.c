/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transmission: descriptors (legacy, context, data) until the tail, a frame put together from them, its offloads. Segmentation and TCP
 * checksums are left to who takes them (net.h); IP headers and odd ranges are summed here. Should the back-end be
 * busy, the frame's last descriptor stays the head's until it goes. A frame too long, or not in RAM, is dropped whole.
 */
#include <string.h>
#include "pci/e1000-private.h"

#define CMD_EOP BIT(0)
#define CMD_IC BIT(2) /* legacy */
#define CMD_TSE BIT(2) /* extended */
#define CMD_RS BIT(3)
#define CMD_RPS BIT(4)
#define CMD_DEXT BIT(5)
#define CMD_VLE BIT(6)
#define CMD_IDE BIT(7)
#define TU_TCP BIT(0)
#define TU_IP4 BIT(1)
#define OPT_IXSM BIT(0)
#define OPT_TXSM BIT(1)
#define LEAST_FRAME 60u
#define LEAST_SEGMENT 32u /* net_send drops what is to be cut finer; none at all would divide by zero */
#define FCS 4u

struct descriptor {
	uint64_t address;
	uint32_t lower, upper;
};

void e1000_tx_reset(struct e1000 *c)
{
	c->ready.waits = false;
	c->hw.tx_len = 0;
	c->hw.tx_overrun = 0;
}

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* The Internet checksum of [from, end] (end 0: all) put at `at`, as the card does it: what is there is part of the sum. */
static void insert_sum(struct e1000_hw *h, uint32_t from, uint32_t end, uint32_t at)
{
	uint32_t stop = end && end < h->tx_len ? end + 1 : h->tx_len;
	uint16_t sum;

	if (from >= stop || !range_fits(at, 2, h->tx_len))
		return;
	sum = (uint16_t)~net_fold(net_sum(0, h->tx_data + from, stop - from));
	memcpy(h->tx_data + at, &sum, 2);
}

/* The driver leaves lengths out of a frame that is to be cut: each segment has its own. As one large frame it needs them. */
static bool prepare_tso(struct e1000 *c, const struct e1000_context *x, struct net_wire *w)
{
	struct e1000_hw *h = &c->hw;
	bool v4 = x->command & TU_IP4, tcp = x->command & TU_TCP;
	uint32_t rest = h->tx_len - x->tucss;

	if (x->tucss < NET_HEADER || x->tucso < x->tucss || x->hdrlen < x->tucss + 8u || x->hdrlen > h->tx_len ||
	    !range_fits(x->ipcss, v4 ? 20 : 40, x->tucss) || !range_fits(x->tucso, 2, h->tx_len) || (v4 && rest + x->tucss - x->ipcss > 65535))
		return false;
	if (x->mss < LEAST_SEGMENT && h->tx_len > (uint32_t)x->hdrlen + x->mss)
		return false;
	put16(h->tx_data + x->ipcss + (v4 ? 2 : 4), v4 ? h->tx_len - x->ipcss : h->tx_len - x->ipcss - 40);
	if (!tcp)
		put16(h->tx_data + x->tucss + 4, rest);
	rest += get16(h->tx_data + x->tucso); /* the pseudo header's sum; here its length joins */
	put16(h->tx_data + x->tucso, (rest & 0xffff) + (rest >> 16));
	*w = (struct net_wire){ .flags = NET_WIRE_CSUM, .csum_start = x->tucss, .csum_offset = (uint16_t)(x->tucso - x->tucss),
				.hdr_len = x->hdrlen };
	if (h->tx_len > (uint32_t)x->hdrlen + x->mss) {
		w->gso = !tcp ? NET_GSO_UDP : v4 ? NET_GSO_TCP4 : NET_GSO_TCP6;
		w->gso_size = x->mss;
		if (tcp && range_fits(x->tucss, 14, h->tx_len) && h->tx_data[x->tucss + 13] & 0x80)
			w->flags |= NET_WIRE_ECN;
	}
	return true;
}

static bool prepare_sums(struct e1000 *c, const struct descriptor *d, struct net_wire *w)
{
	struct e1000_hw *h = &c->hw;
	bool cut = h->tx_extended && h->tx_command & CMD_TSE;
	const struct e1000_context *x = cut ? &h->tso : &h->plain;

	if (!h->tx_extended) {
		if (d->lower >> 24 & CMD_IC)
			insert_sum(h, d->upper >> 8 & 0xff, 0, d->lower >> 16 & 0xff);
		return true;
	}
	if (cut && !prepare_tso(c, x, w))
		return false;
	if (h->tx_options & OPT_IXSM)
		insert_sum(h, x->ipcss, x->ipcse, x->ipcso);
	if (cut || !(h->tx_options & OPT_TXSM))
		return true;
	if (x->tucss >= NET_HEADER && x->tucso >= x->tucss && x->tucso - x->tucss <= 64 && range_fits(x->tucso, 2, h->tx_len) &&
	    (!x->tucse || x->tucse + 1u >= h->tx_len))
		*w = (struct net_wire){ .flags = NET_WIRE_CSUM, .csum_start = x->tucss, .csum_offset = (uint16_t)(x->tucso - x->tucss) };
	else
		insert_sum(h, x->tucss, x->tucse, x->tucso);
	return true;
}

/* The pieces to be sent, with the VLAN's tag if one is to be put in. */
static void prepare_pieces(struct e1000 *c, const struct descriptor *d, uint32_t ctrl, uint16_t vet)
{
	struct e1000_hw *h = &c->hw;
	struct net_wire *w = &c->ready.wire;

	c->ready.iov[0] = (struct iovec){ h->tx_data, h->tx_len };
	c->ready.n = 1;
	if (!(d->lower >> 24 & CMD_VLE) || !(ctrl & CTRL_VME))
		return;
	put16(c->ready.tag, vet);
	put16(c->ready.tag + 2, d->upper >> 16);
	c->ready.iov[0].iov_len = 12;
	c->ready.iov[1] = (struct iovec){ c->ready.tag, 4 };
	c->ready.iov[2] = (struct iovec){ h->tx_data + 12, h->tx_len - 12 };
	c->ready.n = 3;
	if (w->flags & NET_WIRE_CSUM)
		w->csum_start = (uint16_t)(w->csum_start + 4);
	if (w->hdr_len)
		w->hdr_len = (uint16_t)(w->hdr_len + 4);
}

/* Under `lock`. A frame that is cut counts as what it is cut into. */
static void count_sent(struct e1000 *c)
{
	const struct net_wire *w = &c->ready.wire;
	size_t len = c->hw.tx_len + (c->ready.n > 1 ? 4u : 0u);
	uint64_t frames = 1, bytes;

	if (w->gso) {
		frames = (len - w->hdr_len + w->gso_size - 1) / w->gso_size;
		len += (frames - 1) * w->hdr_len;
		e1000_count(c, R_TSCTC, 1);
	}
	bytes = len + frames * FCS;
	e1000_count(c, R_TPT, frames);
	e1000_count(c, R_GPTC, frames);
	e1000_count64(c, R_TOTL, bytes);
	e1000_count64(c, R_GOTCL, bytes);
	e1000_count_size(c, R_PTC64, w->gso ? (size_t)w->gso_size + w->hdr_len + FCS : len + FCS);
	if (c->hw.tx_data[0] & 1)
		e1000_count(c, (c->hw.tx_data[0] & c->hw.tx_data[1]) == 0xff ? R_BPTC : R_MPTC, 1);
}

static enum net_result send_ready(struct e1000 *c, bool loop)
{
	static const struct net_wire done;
	uint32_t len = c->hw.tx_len + (c->ready.n > 1 ? 4u : 0u);

	if (!loop)
		return net_send(c->link, &c->ready.wire, c->ready.iov, c->ready.n);
	if (c->ready.wire.flags & NET_WIRE_CSUM && !c->ready.wire.gso && c->ready.n == 1)
		net_finish_checksum(c->hw.tx_data, c->hw.tx_len, &c->ready.wire);
	e1000_receive(c, &done, c->ready.iov, c->ready.n, len);
	return NET_DONE;
}

/* What the driver asked to be told of a descriptor. Under `lock`. */
static void report(struct e1000 *c, uint64_t at, uint8_t command)
{
	uint8_t status = 1;

	if (!(command & (CMD_RS | CMD_RPS)))
		return;
	pci_dma_write(&c->f, at + 12, &status, 1);
	if (command & CMD_IDE && c->hw.reg[R_TIDV])
		e1000_tx_delay(c);
	else
		c->hw.reg[R_ICR] |= ICR_TXDW;
}

struct ring {
	uint64_t base;
	uint32_t size, head, tail, ctrl;
	uint16_t vet;
	bool loop;
};

/* Under `lock`. False: there is nothing to do. */
static bool ring_look(struct e1000 *c, struct ring *r)
{
	struct e1000_hw *h = &c->hw;
	uint32_t loop = h->reg[R_RCTL] >> 6 & 3;

	*r = (struct ring){ ring_base(h, R_TDBAL), ring_size(h, R_TDLEN), h->reg[R_TDH], h->reg[R_TDT], h->reg[R_CTRL],
			    (uint16_t)h->reg[R_VET], loop == 1 || loop == 3 || h->phy[0] & 0x4000 };
	return !c->paused && h->reg[R_TCTL] & TCTL_EN && r->head < r->size && r->tail < r->size && r->head != r->tail;
}

/* Under `lock`: the head goes on. */
static void ring_advance(struct e1000 *c, struct ring *r)
{
	struct e1000_hw *h = &c->hw;
	uint32_t left, low = (h->reg[R_TXDCTL] >> 25) * 8;

	r->head = r->head + 1 < r->size ? r->head + 1 : 0;
	h->reg[R_TDH] = r->head;
	left = (r->tail + r->size - r->head) % r->size;
	if (low && left == low)
		h->reg[R_ICR] |= ICR_TXD_LOW;
	if (!left)
		h->reg[R_ICR] |= ICR_TXQE;
}

static void take_context(struct e1000 *c, const struct descriptor *d)
{
	struct e1000_context x = {
		.ipcss = (uint8_t)d->address, .ipcso = (uint8_t)(d->address >> 8), .ipcse = (uint16_t)(d->address >> 16),
		.tucss = (uint8_t)(d->address >> 32), .tucso = (uint8_t)(d->address >> 40), .tucse = (uint16_t)(d->address >> 48),
		.command = (uint8_t)(d->lower >> 24), .hdrlen = (uint8_t)(d->upper >> 8), .mss = (uint16_t)(d->upper >> 16),
	};

	*(x.command & CMD_TSE ? &c->hw.tso : &c->hw.plain) = x;
}

static void take_data(struct e1000 *c, const struct descriptor *d)
{
	struct e1000_hw *h = &c->hw;
	bool extended = d->lower >> 24 & CMD_DEXT;
	uint32_t len = d->lower & (extended ? 0xfffff : 0xffff);

	if (!h->tx_len && !h->tx_overrun) {
		h->tx_command = (uint8_t)(d->lower >> 24);
		h->tx_options = extended ? (uint8_t)(d->upper >> 8) : 0;
		h->tx_extended = extended;
	}
	if (h->tx_overrun || !range_fits(h->tx_len, len, NET_WIRE_FRAME - 4) ||
	    pci_dma_read(&c->f, d->address, h->tx_data + h->tx_len, len)) {
		h->tx_overrun = 1;
		return;
	}
	h->tx_len += len;
}

/* A whole frame: true when it has gone, or never will. */
static bool finish_frame(struct e1000 *c, const struct descriptor *d, const struct ring *r)
{
	struct e1000_hw *h = &c->hw;
	bool psp;

	pthread_mutex_lock(&c->lock);
	psp = h->reg[R_TCTL] & TCTL_PSP;
	pthread_mutex_unlock(&c->lock);
	c->ready.wire = (struct net_wire){ 0 };
	if (h->tx_overrun || h->tx_len < NET_HEADER || !prepare_sums(c, d, &c->ready.wire)) {
		net_dropped(c->link, false);
		e1000_tx_reset(c);
		return true;
	}
	if (psp && h->tx_len < LEAST_FRAME) {
		memset(h->tx_data + h->tx_len, 0, LEAST_FRAME - h->tx_len);
		h->tx_len = LEAST_FRAME;
	}
	prepare_pieces(c, d, r->ctrl, r->vet);
	return send_ready(c, r->loop) == NET_DONE;
}

static void frame_gone(struct e1000 *c)
{
	pthread_mutex_lock(&c->lock);
	count_sent(c);
	pthread_mutex_unlock(&c->lock);
	e1000_tx_reset(c);
}

/* True: go on with the next. */
static bool take_descriptor(struct e1000 *c, struct ring *r)
{
	uint64_t at = r->base + (uint64_t)r->head * 16;
	struct descriptor d;
	uint8_t command;

	if (pci_dma_read(&c->f, at, &d, sizeof(d)))
		return false;
	command = (uint8_t)(d.lower >> 24);
	if (command & CMD_DEXT && !(d.lower >> 20 & 15)) {
		take_context(c, &d);
	} else {
		take_data(c, &d);
		if (command & CMD_EOP && !finish_frame(c, &d, r)) {
			c->ready.waits = true;
			c->ready.at = at;
			c->ready.command = command;
			return false;
		}
		if (command & CMD_EOP && c->hw.tx_len)
			frame_gone(c);
	}
	pthread_mutex_lock(&c->lock);
	ring_advance(c, r);
	report(c, at, command);
	pthread_mutex_unlock(&c->lock);
	return true;
}

/* The frame that waited has gone, or is given up: its descriptor is done. */
static void ready_done(struct e1000 *c)
{
	struct ring r;

	c->ready.waits = false;
	frame_gone(c);
	pthread_mutex_lock(&c->lock);
	ring_look(c, &r);
	/* unless the guest has moved the ring meanwhile */
	if (r.head < r.size && r.base + (uint64_t)r.head * 16 == c->ready.at)
		ring_advance(c, &r);
	report(c, c->ready.at, c->ready.command);
	pthread_mutex_unlock(&c->lock);
}

void e1000_tx_give_up(struct e1000 *c)
{
	if (!c->ready.waits)
		return;
	net_dropped(c->link, false);
	ready_done(c);
}

void e1000_transmit(struct e1000 *c)
{
	struct ring r;
	bool more, any = false;

	pthread_mutex_lock(&c->tx_lock);
	if (c->ready.waits) {
		if (send_ready(c, false) == NET_BUSY)
			goto out;
		ready_done(c);
		any = true;
	}
	for (;;) {
		pthread_mutex_lock(&c->lock);
		more = ring_look(c, &r);
		pthread_mutex_unlock(&c->lock);
		if (!more)
			break;
		any = true;
		while (more && r.head != r.tail)
			more = take_descriptor(c, &r);
		if (!more)
			break;
	}
	if (any) {
		net_sent(c->link);
		pthread_mutex_lock(&c->lock);
		e1000_interrupts(c);
		pthread_mutex_unlock(&c->lock);
	}
out:
	pthread_mutex_unlock(&c->tx_lock);
}
