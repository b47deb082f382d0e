/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bus master of an IDE channel (Programming Interface for Bus Master IDE Controller, revision 1.0): a table of
 * { address, byte count (0: 64 KiB), last } says where data goes. It stops at the end of the command or of the table,
 * whichever comes first; the channel's buffer is in between, 64 KiB at a time.
 */
#include <string.h>
#include "pci/ide-private.h"

/* The next entry of the table; false: there is none, or it cannot be read. */
static bool table_next(struct ide_channel *c)
{
	struct ide_channel_hw *h = c->hw;
	uint8_t entry[8];

	if (h->bm_last || pci_dma_read(&c->ide->f, h->bm_next, entry, sizeof(entry)))
		return false;
	memcpy(&h->bm_address, entry, 4);
	h->bm_address &= ~1u;
	h->bm_count = (entry[4] | (uint32_t)entry[5] << 8) & ~1u;
	if (!h->bm_count)
		h->bm_count = 0x10000;
	h->bm_last = entry[7] & 0x80;
	h->bm_next += 8;
	return true;
}

bool dma_copy(struct ide_channel *c, uint8_t *data, uint32_t len, bool to_memory)
{
	struct ide_channel_hw *h = c->hw;

	while (len) {
		uint32_t n;
		int r;

		if (!h->bm_count && !table_next(c))
			return false;
		n = MIN(len, h->bm_count);
		r = to_memory ? pci_dma_write(&c->ide->f, h->bm_address, data, n) :
				pci_dma_read(&c->ide->f, h->bm_address, data, n);
		if (r)
			return false;
		data += n;
		len -= n;
		h->bm_address += n;
		h->bm_count -= n;
	}
	return true;
}

void dma_end(struct ide_channel *c, bool bad)
{
	c->hw->bm_status &= (uint8_t)~BM_ACTIVE;
	if (bad)
		c->hw->bm_status |= BM_ERROR;
}

/* A command waits for the bus master and the guest has started it: the first piece. */
void dma_go(struct ide_channel *c)
{
	struct ide_channel_hw *h = c->hw;

	if (!h->dma || c->underway || !(h->bm_command & BM_START) || !(h->bm_status & BM_ACTIVE))
		return;
	switch (h->phase) {
	case PHASE_READ:
		channel_request(c, BLOCK_READ, h->at, MIN(h->left, IDE_BUFFER));
		break;
	case PHASE_WRITE:
		h->filled = MIN(h->left, IDE_BUFFER);
		if (!dma_copy(c, h->buffer, h->filled, false)) {
			dma_end(c, true);
			ata_fail(c, ERR_ABORT);
			break;
		}
		channel_request(c, BLOCK_WRITE, h->at, h->filled);
		break;
	case PHASE_DATA: {
		bool good = dma_copy(c, h->buffer, h->filled, true);

		dma_end(c, !good);
		h->pos = h->end = h->filled;
		atapi_finish(c);
		break;
	}
	default:
		break;
	}
}

uint64_t dma_read(struct ide_channel *c, unsigned at)
{
	switch (at) {
	case 0:
		return c->hw->bm_command;
	case 2:
		return c->hw->bm_status;
	case 4:
	case 5:
	case 6:
	case 7:
		return c->hw->bm_table >> 8 * (at - 4) & 0xff;
	default:
		return 0xff;
	}
}

static void command_write(struct ide_channel *c, uint8_t v)
{
	struct ide_channel_hw *h = c->hw;
	bool started = v & BM_START && !(h->bm_command & BM_START);

	h->bm_command = v & (BM_START | BM_TO_MEMORY);
	if (!(v & BM_START)) {
		h->bm_status &= (uint8_t)~BM_ACTIVE;
	} else if (started) {
		h->bm_status |= BM_ACTIVE;
		h->bm_next = h->bm_table;
		h->bm_count = 0;
		h->bm_last = false;
		dma_go(c);
	}
}

void dma_write(struct ide_channel *c, unsigned at, uint8_t v)
{
	struct ide_channel_hw *h = c->hw;
	unsigned shift = 8 * (at & 3);

	switch (at) {
	case 0:
		command_write(c, v);
		break;
	case 2:
		h->bm_status = (uint8_t)((v & 0x60) | (h->bm_status & BM_ACTIVE) |
					 (h->bm_status & ~v & (BM_ERROR | BM_IRQ)));
		break;
	case 4:
	case 5:
	case 6:
	case 7:
		h->bm_table = ((h->bm_table & ~(0xffu << shift)) | (uint32_t)v << shift) & ~3u;
		break;
	default:
		break;
	}
}
