/* SPDX-License-Identifier: Apache-2.0 */
/* ATA commands on an IDE channel: by PIO, in blocks, by DMA. What they mean is in ata.c. */
#include <errno.h>
#include <string.h>
#include "pci/ide-private.h"

/* ---- ends of commands */

void ata_signature(struct ide_channel *c)
{
	struct ide_channel_hw *h = c->hw;
	bool cd = ide_selected(c)->cdrom;

	h->phase = PHASE_NONE;
	h->dma = false;
	h->error = 1; /* diagnostics passed */
	h->count[0] = h->lba0[0] = 1;
	h->lba1[0] = cd ? 0x14 : 0;
	h->lba2[0] = cd ? 0xeb : 0;
	h->status = cd ? 0 : ST_READY | ST_SEEK;
}

void ata_finish(struct ide_channel *c)
{
	c->hw->phase = PHASE_NONE;
	c->hw->dma = false;
	c->hw->status = ST_READY | ST_SEEK;
}

static void finish_irq(struct ide_channel *c)
{
	ata_finish(c);
	channel_irq(c);
}

void ata_fail(struct ide_channel *c, uint8_t error)
{
	c->hw->error = error;
	ata_finish(c);
	c->hw->status |= ST_ERROR;
	channel_irq(c);
}

void ata_data(struct ide_channel *c, uint32_t len)
{
	struct ide_channel_hw *h = c->hw;

	h->phase = PHASE_DATA;
	h->pos = 0;
	h->filled = h->end = len;
	h->block = len;
	h->status = ST_READY | ST_SEEK | ST_DRQ;
	channel_irq(c);
}

/* A block of what is in the buffer is offered to the host. */
static void offer(struct ide_channel *c)
{
	struct ide_channel_hw *h = c->hw;

	h->end = MIN(h->pos + h->block, h->filled);
	h->status = ST_READY | ST_SEEK | ST_DRQ;
	channel_irq(c);
}

void ata_block_taken(struct ide_channel *c)
{
	struct ide_channel_hw *h = c->hw;

	if (ide_selected(c)->cdrom && h->command == 0xa0) {
		atapi_next(c);
	} else if (h->phase == PHASE_WRITE) {
		channel_request(c, BLOCK_WRITE, h->at, h->end);
	} else if (h->phase == PHASE_READ && h->pos < h->filled) {
		offer(c);
	} else if (h->phase == PHASE_READ && h->left) {
		channel_request(c, BLOCK_READ, h->at, MIN(h->left, IDE_BUFFER));
	} else {
		ata_finish(c);
	}
}

static void moved_on(struct ide_channel *c)
{
	struct ide_channel_hw *h = c->hw;
	uint32_t n = (uint32_t)c->request.length;

	h->at += n;
	h->left -= MIN(n, h->left);
}

static void done_dma(struct ide_channel *c)
{
	struct ide_channel_hw *h = c->hw;

	if (h->phase == PHASE_READ && !dma_copy(c, h->buffer, (uint32_t)c->request.length, true)) {
		dma_end(c, true);
		if (ide_selected(c)->cdrom)
			atapi_error(c, 0x0b, 0);
		else
			ata_fail(c, ERR_ABORT);
		return;
	}
	moved_on(c);
	if (h->left) {
		h->status = ST_READY | ST_SEEK | ST_DRQ;
		dma_go(c); /* stopped by the guest: waits until it starts again */
		return;
	}
	dma_end(c, false);
	if (ide_selected(c)->cdrom)
		atapi_finish(c);
	else
		finish_irq(c);
}

void ata_done(struct ide_channel *c, int result)
{
	struct ide_channel_hw *h = c->hw;

	if (h->resetting) { /* the guest has reset the channel meanwhile */
		if (!(h->control & CONTROL_RESET)) {
			h->resetting = false;
			h->device = 0xa0;
			ata_signature(c);
		}
		return;
	}
	if (result) {
		if (h->dma)
			dma_end(c, true);
		if (ide_selected(c)->cdrom)
			atapi_error(c, 3, 0x11); /* medium error: unrecovered */
		else
			ata_fail(c, result == -ENOSPC ? ERR_ABORT : ERR_DATA);
		return;
	}
	if (h->phase == PHASE_FLUSH) {
		finish_irq(c);
	} else if (h->dma) {
		done_dma(c);
	} else if (h->phase == PHASE_READ) {
		h->filled = (uint32_t)c->request.length;
		h->pos = 0;
		moved_on(c);
		if (ide_selected(c)->cdrom)
			atapi_next(c);
		else
			offer(c);
	} else {
		moved_on(c);
		h->pos = 0;
		h->end = MIN(h->block, h->left);
		if (h->left) {
			h->status = ST_READY | ST_SEEK | ST_DRQ;
			channel_irq(c);
		} else {
			finish_irq(c);
		}
	}
}

/* ---- commands */

static void transfer(struct ide_channel *c, const struct ata_plan *p)
{
	struct ide_channel_hw *h = c->hw;

	h->phase = p->kind == ATA_WRITE ? PHASE_WRITE : PHASE_READ;
	h->dma = p->dma;
	h->at = p->at;
	h->left = p->length;
	h->block = p->block;
	if (h->dma) {
		h->status = ST_READY | ST_SEEK | ST_DRQ;
		dma_go(c);
	} else if (p->kind == ATA_WRITE) {
		h->end = MIN(h->block, h->left);
		h->status = ST_READY | ST_SEEK | ST_DRQ;
	} else {
		channel_request(c, BLOCK_READ, h->at, MIN(h->left, IDE_BUFFER));
	}
}

static void packet_wanted(struct ide_channel *c, bool dma)
{
	struct ide_channel_hw *h = c->hw;

	h->phase = PHASE_PACKET;
	h->dma = dma;
	h->end = sizeof(h->packet);
	h->count[0] = REASON_COMMAND;
	h->status = ST_READY | ST_DRQ;
}

/* Registers a command gives an answer in. */
static void registers_set(struct ide_channel *c, const struct ata_plan *p)
{
	struct ide_channel_hw *h = c->hw;

	if (p->set_count)
		h->count[0] = (uint8_t)p->count;
	if (!p->set_lba)
		return;
	h->lba0[0] = (uint8_t)p->lba;
	h->lba1[0] = (uint8_t)(p->lba >> 8);
	h->lba2[0] = (uint8_t)(p->lba >> 16);
	if (h->command == 0x27) { /* READ NATIVE MAX ADDRESS EXT */
		h->lba0[1] = (uint8_t)(p->lba >> 24);
		h->lba1[1] = (uint8_t)(p->lba >> 32);
		h->lba2[1] = (uint8_t)(p->lba >> 40);
	} else {
		h->device = (uint8_t)((h->device & 0xf0) | (p->lba >> 24 & 15));
	}
}

static void execute(struct ide_channel *c, const struct ata_plan *p)
{
	struct ide_channel_hw *h = c->hw;

	switch (p->kind) {
	case ATA_DONE:
		registers_set(c, p);
		finish_irq(c);
		break;
	case ATA_SIGN:
		ata_signature(c);
		ata_fail(c, p->error);
		break;
	case ATA_IDENTIFY:
		ata_identify(ide_selected(c), ide_selected_hw(c), h->buffer);
		ata_data(c, ATA_SECTOR);
		break;
	case ATA_READ:
	case ATA_WRITE:
		transfer(c, p);
		break;
	case ATA_FLUSH:
		h->phase = PHASE_FLUSH;
		channel_request(c, BLOCK_FLUSH, 0, 0);
		break;
	case ATA_PACKET:
		packet_wanted(c, p->dma);
		break;
	case ATA_DIAGNOSE:
		h->device &= (uint8_t)~DEVICE_UNIT;
		ata_signature(c);
		channel_irq(c);
		break;
	case ATA_RESET:
		ata_signature(c);
		break;
	default: /* what only serial drives know */
		ata_fail(c, p->error ? p->error : ERR_ABORT);
		break;
	}
}

void ata_command(struct ide_channel *c, uint8_t command)
{
	struct ide_channel_hw *h = c->hw;
	struct ata_task t = { .command = command, .device = h->device, .feature = h->feature[0],
			      .count = (uint16_t)(h->count[0] | h->count[1] << 8),
			      .lba = h->lba0[0] | h->lba1[0] << 8 | h->lba2[0] << 16 | (uint64_t)h->lba0[1] << 24 |
				     (uint64_t)h->lba1[1] << 32 | (uint64_t)h->lba2[1] << 40 };
	struct ata_plan p;

	h->command = command;
	h->phase = PHASE_NONE;
	h->dma = false;
	h->error = 0;
	h->pos = h->end = h->filled = 0;
	ata_plan(ide_selected(c), ide_selected_hw(c), &t, &p);
	execute(c, &p);
}
