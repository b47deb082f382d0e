/* SPDX-License-Identifier: Apache-2.0 */
/* Packets on an IDE channel (ATA/ATAPI-6): how a CD-ROM drive's answers and data get to the host. What they say is in atapi.c. */
#include <string.h>
#include "pci/ide-private.h"

/* ---- ends and answers */

void atapi_finish(struct ide_channel *c)
{
	struct ide_channel_hw *h = c->hw;

	h->phase = PHASE_NONE;
	h->dma = false;
	h->count[0] = REASON_COMMAND | REASON_TO_HOST;
	h->error = 0;
	h->status = ST_READY;
	channel_irq(c);
}

void atapi_error(struct ide_channel *c, uint8_t key, uint8_t asc)
{
	uint8_t error = cd_sense(ide_selected_hw(c), key, asc);

	if (c->hw->dma)
		dma_end(c, false);
	atapi_finish(c);
	c->hw->error = error;
	c->hw->status = ST_READY | ST_ERROR;
}

void atapi_next(struct ide_channel *c)
{
	struct ide_channel_hw *h = c->hw;

	if (h->pos < h->filled) {
		h->end = MIN(h->pos + h->block, h->filled);
		h->count[0] = REASON_TO_HOST;
		h->lba1[0] = (uint8_t)(h->end - h->pos);
		h->lba2[0] = (uint8_t)((h->end - h->pos) >> 8);
		h->status = ST_READY | ST_DRQ;
		channel_irq(c);
	} else if (h->phase == PHASE_READ && h->left) {
		channel_request(c, BLOCK_READ, h->at, MIN(h->left, IDE_BUFFER));
	} else {
		atapi_finish(c);
	}
}

static void answer(struct ide_channel *c, uint32_t len)
{
	struct ide_channel_hw *h = c->hw;

	h->phase = PHASE_DATA;
	h->pos = 0;
	h->filled = len;
	if (h->dma) {
		h->status = ST_READY | ST_DRQ;
		dma_go(c);
	} else {
		atapi_next(c);
	}
}

static void read_medium(struct ide_channel *c, uint64_t at, uint32_t len)
{
	struct ide_channel_hw *h = c->hw;

	h->phase = PHASE_READ;
	h->at = at;
	h->left = len;
	h->pos = h->filled = 0;
	if (h->dma) {
		h->status = ST_READY | ST_DRQ;
		dma_go(c);
	} else {
		atapi_next(c);
	}
}

void atapi_packet(struct ide_channel *c)
{
	struct ide_channel_hw *h = c->hw;
	uint32_t limit = h->lba1[0] | (uint32_t)h->lba2[0] << 8;
	struct cd_plan plan;

	/* how much the host takes between two interrupts; an odd number can only be the last */
	h->block = limit < 2 || limit == 0xffff ? 0xfffe : limit & ~1u;
	h->pos = h->end = h->filled = h->left = 0;
	cd_packet(ide_selected(c), ide_selected_hw(c), h->packet, h->buffer, &plan);
	switch (plan.kind) {
	case CD_DONE:
		atapi_finish(c);
		break;
	case CD_FAIL:
		atapi_error(c, plan.key, plan.asc);
		break;
	case CD_ANSWER:
		answer(c, plan.length);
		break;
	case CD_READ:
		read_medium(c, plan.at, plan.length);
		break;
	}
}
