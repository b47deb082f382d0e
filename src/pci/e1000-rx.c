/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reception: is the frame for this station, do descriptors hold it, then into the guest's buffers. The frame check sequence is
 * appended unless it is to be stripped, for drivers count on its four bytes.
 */
#include <string.h>
#include <zlib.h>
#include "pci/e1000-private.h"

#define FCS 4u
#define STATUS_DD BIT(0)
#define STATUS_EOP BIT(1)
#define STATUS_IXSM BIT(2)
#define STATUS_VP BIT(3)
#define STATUS_TCPCS BIT(5)
#define STATUS_IPCS BIT(6)
#define STATUS_PIF BIT(7)
#define ERROR_TCPE BIT(5)
#define ERROR_IPE BIT(6)

struct rx_descriptor {
	uint64_t address;
	uint16_t length, sum;
	uint8_t status, errors;
	uint16_t special;
};

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

/* ---- is it for us? */

static bool in_table(const struct e1000_hw *h, const uint8_t *mac)
{
	static const uint8_t shift[4] = { 4, 3, 2, 0 };
	unsigned hash = (unsigned)(mac[4] | mac[5] << 8) >> shift[h->reg[R_RCTL] >> 12 & 3] & 0xfff;

	return h->reg[R_MTA + (hash >> 5)] >> (hash & 31) & 1;
}

static bool exact(const struct e1000_hw *h, const uint8_t *mac)
{
	uint32_t low = (uint32_t)(mac[0] | mac[1] << 8 | mac[2] << 16) | (uint32_t)mac[3] << 24, high = (uint32_t)(mac[4] | mac[5] << 8);

	for (unsigned i = 0; i < 16; i++)
		if (h->reg[R_RA + 2 * i] == low && (h->reg[R_RA + 2 * i + 1] & (RAH_AV | 0xffff)) == (RAH_AV | high))
			return true;
	return false;
}

static bool wanted(const struct e1000_hw *h, const uint8_t *f, size_t len, bool *precisely)
{
	static const uint8_t all[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	uint32_t rctl = h->reg[R_RCTL];

	*precisely = true;
	if (rctl & RCTL_VFE && len >= 16 && get16(f + 12) == (h->reg[R_VET] & 0xffff)) {
		unsigned vlan = get16(f + 14) & 0xfff;

		if (!(h->reg[R_VFTA + vlan / 32] >> (vlan % 32) & 1))
			return false;
	}
	if (exact(h, f))
		return true;
	if (!memcmp(f, all, 6) && rctl & RCTL_BAM)
		return true;
	*precisely = false;
	if (f[0] & 1)
		return rctl & RCTL_MPE || in_table(h, f);
	return rctl & RCTL_UPE;
}

/* ---- checksums, of frames nobody has vouched for */

/* Sets what was looked at in *status and what was wrong in *errors. */
static void verify(const struct e1000_hw *h, const uint8_t *f, size_t len, bool vouched, uint8_t *status, uint8_t *errors)
{
	bool v4 = len >= 34 && get16(f + 12) == 0x0800 && f[14] >> 4 == 4, v6 = len >= 54 && get16(f + 12) == 0x86dd;
	size_t header = v4 ? 4u * (f[14] & 15) : 40, at = 14 + header, end;
	uint32_t sum;
	uint8_t next;

	if ((!v4 && !v6) || header < 20 || at > len) {
		*status |= STATUS_IXSM;
		return;
	}
	end = v4 ? 14 + (size_t)get16(f + 16) : 54 + (size_t)get16(f + 18);
	next = v4 ? f[23] : f[20];
	if (v4 && h->reg[R_RXCSUM] & BIT(8)) {
		*status |= STATUS_IPCS;
		if (net_fold(net_sum(0, f + 14, header)) != 0xffff)
			*errors |= ERROR_IPE;
	}
	if (!(h->reg[R_RXCSUM] & BIT(9)) || (next != 6 && next != 17) || end > len || end < at + 8 || (v4 && get16(f + 20) & 0x3fff))
		return;
	if (next == 17 && !get16(f + at + 6))
		return; /* sent without */
	*status |= STATUS_TCPCS;
	if (vouched)
		return;
	sum = net_sum(0, v4 ? f + 26 : f + 22, v4 ? 8 : 32);
	sum = net_sum(sum, (uint8_t[4]){ 0, next, (uint8_t)((end - at) >> 8), (uint8_t)(end - at) }, 4);
	if (net_fold(net_sum(sum, f + at, end - at)) != 0xffff)
		*errors |= ERROR_TCPE;
}

/* ---- into the guest */

static uint32_t buffer_size(uint32_t rctl)
{
	uint32_t size = 2048u >> (rctl >> 16 & 3);

	return rctl & RCTL_BSEX && size < 2048 ? size * 16 : size;
}

static void count_received(struct e1000 *c, const uint8_t *f, size_t len)
{
	e1000_count(c, R_TPR, 1);
	e1000_count(c, R_GPRC, 1);
	e1000_count64(c, R_TORL, len + FCS);
	e1000_count64(c, R_GORCL, len + FCS);
	e1000_count_size(c, R_PRC64, len + FCS);
	if (f[0] & 1)
		e1000_count(c, (f[0] & f[1]) == 0xff ? R_BPRC : R_MPRC, 1);
}

/* The low-water interrupt: a half, a quarter, an eighth of the ring is left. */
static void low_water(struct e1000 *c, uint32_t left, uint32_t size)
{
	unsigned shift = (c->hw.reg[R_RCTL] >> 8 & 3) + 1;

	if (left == size >> MIN(shift, 3u))
		e1000_raise(c, ICR_RXDMT0);
}

/* `d` says what is to be said of the last one. Descriptors are known to be there. */
static void store(struct e1000 *c, const uint8_t *f, size_t len, const struct rx_descriptor *last, uint32_t size, uint32_t piece)
{
	struct e1000_hw *h = &c->hw;
	uint64_t base = ring_base(h, R_RDBAL);
	size_t at = 0;

	do {
		uint64_t where = base + (uint64_t)h->reg[R_RDH] * 16;
		uint32_t n = (uint32_t)MIN(len - at, (size_t)piece);
		struct rx_descriptor d;

		if (pci_dma_read(&c->f, where, &d, sizeof(d)))
			return;
		if (d.address) /* none: it is skipped, as the card does it */
			pci_dma_write(&c->f, d.address, f + at, n);
		at += n;
		d.length = (uint16_t)n;
		d.sum = last->sum;
		d.special = last->special;
		d.errors = at == len ? last->errors : 0;
		d.status = at == len ? last->status | STATUS_DD | STATUS_EOP : STATUS_DD | (last->status & STATUS_VP);
		/* status last: it is what the driver looks at */
		pci_dma_write(&c->f, where + 8, &d.length, 4);
		pci_dma_write(&c->f, where + 13, &d.errors, 3);
		pci_dma_write(&c->f, where + 12, &d.status, 1);
		h->reg[R_RDH] = h->reg[R_RDH] + 1 < size ? h->reg[R_RDH] + 1 : 0;
		low_water(c, (h->reg[R_RDT] + size - h->reg[R_RDH]) % size, size);
	} while (at < len);
}

/* Too short, too long for what is allowed? Counted. */
static bool size_fits(struct e1000 *c, size_t len)
{
	uint32_t rctl = c->hw.reg[R_RCTL];

	if (len > 16384 - FCS || (!(rctl & RCTL_LPE) && len + FCS > 1522)) {
		e1000_count(c, R_ROC, 1);
		return false;
	}
	return true;
}

static void complete(struct e1000 *c, uint8_t *f, size_t len, bool vouched, uint32_t size, uint32_t piece)
{
	struct e1000_hw *h = &c->hw;
	struct rx_descriptor d = { 0 };
	uint32_t crc;
	bool precisely;

	if (!wanted(h, f, len, &precisely))
		return;
	count_received(c, f, len);
	if (!precisely)
		d.status |= STATUS_PIF;
	if (h->reg[R_CTRL] & CTRL_VME && len >= 18 && get16(f + 12) == (h->reg[R_VET] & 0xffff)) {
		d.special = get16(f + 14);
		d.status |= STATUS_VP;
		memmove(f + 4, f, 12);
		f += 4;
		len -= 4;
	}
	verify(h, f, len, vouched, &d.status, &d.errors);
	if ((h->reg[R_RXCSUM] & 0xff) < len) {
		unsigned from = h->reg[R_RXCSUM] & 0xff;

		d.sum = net_fold(net_sum(0, f + from, len - from));
	}
	if (!(h->reg[R_RCTL] & RCTL_SECRC)) {
		crc = (uint32_t)crc32(0, f, (uInt)len);
		memcpy(f + len, &crc, FCS);
		len += FCS;
	}
	store(c, f, len, &d, size, piece);
	e1000_rx_delay(c);
}

/* The frame is in `scratch`. Under `lock`. */
static enum net_result receive(struct e1000 *c, size_t len, bool vouched)
{
	struct e1000_hw *h = &c->hw;
	uint32_t size = ring_size(h, R_RDLEN), piece = buffer_size(h->reg[R_RCTL]), left;

	if (!(h->reg[R_RCTL] & RCTL_EN) || !size || !size_fits(c, len))
		return NET_DONE;
	if (h->reg[R_RDH] >= size || h->reg[R_RDT] >= size)
		return NET_DONE;
	left = (h->reg[R_RDT] + size - h->reg[R_RDH]) % size;
	if (left < (len + FCS + piece - 1) / piece) {
		e1000_count(c, R_RNBC, 1);
		e1000_raise(c, ICR_RXO);
		c->rx_refused = true;
		return NET_BUSY;
	}
	complete(c, c->scratch, len, vouched, size, piece);
	return NET_DONE;
}

enum net_result e1000_receive(void *opaque, const struct net_wire *w, const struct iovec *iov, unsigned n, size_t len)
{
	struct e1000 *c = opaque;
	enum net_result r;
	size_t at = 0;

	if (len < NET_HEADER || len > NET_WIRE_FRAME)
		return NET_DONE;
	pthread_mutex_lock(&c->lock);
	if (c->paused) {
		c->rx_refused = true;
		pthread_mutex_unlock(&c->lock);
		return NET_BUSY;
	}
	for (unsigned i = 0; i < n; i++) {
		memcpy(c->scratch + at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	if (len < 60) { /* as the wire would have it */
		memset(c->scratch + len, 0, 60 - len);
		len = 60;
	}
	r = receive(c, len, w->flags & NET_WIRE_VALID);
	pthread_mutex_unlock(&c->lock);
	return r;
}
