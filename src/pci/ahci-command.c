/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A command of an AHCI port: from its slot in the guest's list to the frame ("FIS") that says it is done. What it means is
 * ata.c's and atapi.c's business.
 */
#include <errno.h>
#include <string.h>
#include "pci/ahci-private.h"

#define HEADER_SIZE 32u
#define HEADER_MOVED 4u /* bytes transferred */
#define FIS_H2D 0x27
#define FIS_IS_COMMAND 0x80
#define FIS_CONTROL_RESET 0x04
#define FIS_AT_PIO 0x20u
#define FIS_AT_D2H 0x40u
#define FIS_AT_BITS 0x58u
#define FIS_INTERRUPT 0x40
#define FIS_TO_HOST 0x20

/* ---- frames to the host */

void port_fis(struct ahci_port *p, unsigned at, const uint8_t *fis, unsigned len)
{
	if (p->hw->reg[PORT_CMD] & CMD_FIS)
		pci_dma_write(&p->ahci->f, port_address(p, PORT_FB) + at, fis, len);
}

static void registers(uint8_t fis[20], const struct ahci_port *p, uint8_t type, uint8_t flags, uint16_t count, uint64_t lba)
{
	memset(fis, 0, 20);
	fis[0] = type;
	fis[1] = flags;
	fis[2] = (uint8_t)p->hw->reg[PORT_TFD];
	fis[3] = (uint8_t)(p->hw->reg[PORT_TFD] >> 8);
	for (unsigned i = 0; i < 3; i++) {
		fis[4 + i] = (uint8_t)(lba >> 8 * i);
		fis[8 + i] = (uint8_t)(lba >> (24 + 8 * i));
	}
	fis[12] = (uint8_t)count;
	fis[13] = (uint8_t)(count >> 8);
}

void port_fis_registers(struct ahci_port *p, bool interrupt, uint16_t count, uint64_t lba)
{
	uint8_t fis[20];

	registers(fis, p, 0x34, interrupt ? FIS_INTERRUPT : 0, count, lba);
	port_fis(p, FIS_AT_D2H, fis, sizeof(fis));
	if (interrupt)
		port_interrupt(p, PIS_D2H);
}

/* Data by PIO, `len` bytes of it, has gone over; for the host `status` is how it ends. */
static void fis_pio(struct ahci_port *p, bool to_host, bool interrupt, uint32_t len)
{
	uint8_t fis[20];

	registers(fis, p, 0x5f, (uint8_t)((interrupt ? FIS_INTERRUPT : 0) | (to_host ? FIS_TO_HOST : 0)), 0, 0);
	fis[2] = ST_READY | ST_SEEK | ST_DRQ;
	fis[15] = (uint8_t)p->hw->reg[PORT_TFD];
	fis[16] = (uint8_t)len;
	fis[17] = (uint8_t)(len >> 8);
	port_fis(p, FIS_AT_PIO, fis, sizeof(fis));
	if (interrupt)
		port_interrupt(p, PIS_PIO);
}

/* Of queued commands: these are done, or one has failed. */
static void fis_bits(struct ahci_port *p, uint32_t finished)
{
	uint32_t tfd = p->hw->reg[PORT_TFD];
	uint8_t fis[8] = { 0xa1, FIS_INTERRUPT, tfd & 0x77, (uint8_t)(tfd >> 8) };

	memcpy(fis + 4, &finished, 4);
	p->hw->reg[PORT_SACT] &= ~finished;
	port_fis(p, FIS_AT_BITS, fis, sizeof(fis));
	port_interrupt(p, PIS_BITS);
}

/* ---- ends */

static void status_set(struct ahci_port *p, uint8_t status, uint8_t error)
{
	p->hw->reg[PORT_TFD] = status | (uint32_t)error << 8;
}

static void moved_say(struct ahci_slot *s)
{
	pci_dma_write(&s->port->ahci->f, port_address(s->port, PORT_CLB) + s->number * HEADER_SIZE + HEADER_MOVED, &s->moved, 4);
}

static void release(struct ahci_slot *s)
{
	s->port->hw->reg[PORT_CI] &= ~(uint32_t)BIT(s->number);
}

static void succeed(struct ahci_slot *s)
{
	struct ahci_port *p = s->port;
	const struct ata_plan *plan = &s->plan;
	bool pio = !plan->dma && s->moved, in = plan->kind != ATA_WRITE;

	if (plan->queued) {
		status_set(p, ST_READY | ST_SEEK, 0);
		fis_bits(p, (uint32_t)BIT(plan->tag));
		return;
	}
	status_set(p, s->packet ? ST_READY : ST_READY | ST_SEEK, 0);
	moved_say(s);
	release(s);
	if (pio)
		fis_pio(p, in, in && !s->packet, MIN(s->moved, 0xfffeu));
	if (s->packet)
		port_fis_registers(p, true, REASON_COMMAND | REASON_TO_HOST, 0);
	else if (!pio || !in)
		port_fis_registers(p, true, plan->set_count ? plan->count : 0, plan->set_lba ? plan->lba : 0);
}

/* The slot stays taken, and nothing goes on until the host has started the list again. */
static void fail(struct ahci_slot *s, uint8_t error)
{
	struct ahci_port *p = s->port;
	uint32_t *cmd = &p->hw->reg[PORT_CMD];

	p->hw->halted = true;
	*cmd = (*cmd & ~(31u << CMD_SLOT_SHIFT)) | s->number << CMD_SLOT_SHIFT;
	status_set(p, (uint8_t)(ST_READY | ST_ERROR | (s->packet ? 0 : ST_SEEK)), error);
	if (s->plan.queued) {
		p->hw->failed_tag = s->plan.tag;
		p->hw->failed_status = (uint8_t)p->hw->reg[PORT_TFD];
		p->hw->failed_error = error;
		port_drop(p); /* the others are for the host to send again */
		fis_bits(p, 0);
	} else {
		moved_say(s);
		port_fis_registers(p, true, s->packet ? REASON_COMMAND | REASON_TO_HOST : 0, 0);
	}
	port_interrupt(p, PIS_ERROR);
}

static void fail_packet(struct ahci_slot *s, uint8_t key, uint8_t asc)
{
	fail(s, cd_sense(&s->port->hw->drive, key, asc));
}

/* ---- data */

/* The next piece; whole sectors of it are in s->iov. */
static void transfer_next(struct ahci_slot *s)
{
	struct ahci_port *p = s->port;
	bool write = s->plan.kind == ATA_WRITE;
	uint32_t len = slot_map(s, MIN(s->left, AHCI_PIECE), s->packet ? CD_SECTOR : ATA_SECTOR);

	if (!len || (!write && slot_bounce(s, len))) {
		if (s->packet)
			fail_packet(s, KEY_ABORTED, 0);
		else
			fail(s, ERR_ABORT);
		return;
	}
	s->request = (struct block_request){ .op = write ? BLOCK_WRITE : BLOCK_READ, .now = true, .fua = s->plan.fua, .offset = s->at,
					     .length = len, .iov = s->bounce ? &s->bounce_iov : s->iov,
					     .iovcnt = s->bounce ? 1 : s->niov, .done = slot_done,
					     .held = slot_held, .opaque = s };
	p->busy |= (uint32_t)BIT(s->number);
	p->submit |= (uint32_t)BIT(s->number);
}

static void transfer(struct ahci_slot *s, uint64_t at, uint32_t len)
{
	s->at = at;
	s->left = len;
	transfer_next(s);
}

static void request_end(struct ahci_slot *s, int result)
{
	if (result && s->packet) {
		fail_packet(s, KEY_MEDIUM, 0x11); /* unrecovered */
	} else if (result) {
		fail(s, result == -ENOSPC ? ERR_ABORT : ERR_DATA);
	} else {
		s->at += s->request.length;
		s->left -= (uint32_t)s->request.length;
		s->moved += (uint32_t)s->request.length;
		if (s->left)
			transfer_next(s);
		else
			succeed(s);
	}
}

void slot_done(struct block_request *r, int result)
{
	struct ahci_slot *s = r->opaque;
	struct ahci_port *p = s->port;
	uint32_t bit = (uint32_t)BIT(s->number);

	port_lock(p);
	if (r->op == BLOCK_READ)
		slot_arrived(s);
	p->busy &= ~bit;
	if (p->dropped & bit)
		p->dropped &= ~bit;
	else
		request_end(s, result);
	port_run(p);
	if (!p->busy)
		pthread_cond_broadcast(&p->rested);
	port_unlock(p);
}

void slot_held(struct block_request *r, bool held)
{
	struct ahci_slot *s = container_of(r, struct ahci_slot, request);
	struct ahci_port *p = s->port;
	uint32_t bit = (uint32_t)BIT(s->number);

	pthread_mutex_lock(&p->lock);
	p->held = held ? p->held | bit : p->held & ~bit;
	pthread_cond_broadcast(&p->rested);
	pthread_mutex_unlock(&p->lock);
}

/* ---- beginnings */

static void flush(struct ahci_slot *s)
{
	struct ahci_port *p = s->port;

	s->request = (struct block_request){ .op = BLOCK_FLUSH, .now = true, .done = slot_done,
					     .held = slot_held, .opaque = s };
	p->busy |= (uint32_t)BIT(s->number);
	p->submit |= (uint32_t)BIT(s->number);
}

static void packet(struct ahci_slot *s, const uint8_t bytes[12])
{
	struct ahci_port *p = s->port;
	uint8_t answer[CD_ANSWER_MAX];
	struct cd_plan plan;

	s->packet = true;
	cd_packet(&p->drive, &p->hw->drive, bytes, answer, &plan);
	switch (plan.kind) {
	case CD_DONE:
		succeed(s);
		break;
	case CD_FAIL:
		fail_packet(s, plan.key, plan.asc);
		break;
	case CD_ANSWER:
		slot_put(s, answer, plan.length);
		succeed(s);
		break;
	case CD_READ:
		transfer(s, plan.at, plan.length);
		break;
	}
}

static void log_page(struct ahci_slot *s, uint8_t log)
{
	const struct ahci_port_hw *h = s->port->hw;
	uint8_t p[ATA_SECTOR] = { 0 }, sum = 0;

	if (!log) { /* the list: version 1, one page of log 0x10 */
		p[0] = 1;
		p[0x20] = 1;
	} else {
		p[0] = h->failed_tag & 31;
		p[2] = h->failed_status;
		p[3] = h->failed_error;
		for (unsigned i = 0; i < ATA_SECTOR - 1; i++)
			sum = (uint8_t)(sum + p[i]);
		p[ATA_SECTOR - 1] = (uint8_t)-sum;
	}
	slot_put(s, p, sizeof(p));
	succeed(s);
}

static void execute(struct ahci_slot *s, const uint8_t bytes[12])
{
	struct ahci_port *p = s->port;
	uint8_t data[ATA_SECTOR];

	switch (s->plan.kind) {
	case ATA_DONE:
		succeed(s);
		break;
	case ATA_IDENTIFY:
		ata_identify(&p->drive, &p->hw->drive, data);
		slot_put(s, data, sizeof(data));
		succeed(s);
		break;
	case ATA_READ:
	case ATA_WRITE:
		transfer(s, s->plan.at, s->plan.length);
		break;
	case ATA_FLUSH:
		flush(s);
		break;
	case ATA_PACKET:
		packet(s, bytes);
		break;
	case ATA_RESET:
	case ATA_DIAGNOSE:
		release(s);
		port_sign(p);
		port_interrupt(p, PIS_D2H);
		break;
	case ATA_LOG:
		log_page(s, s->plan.log);
		break;
	case ATA_FAIL:
	case ATA_SIGN:
		fail(s, s->plan.error);
		break;
	}
}

/* Reset by software: two frames that are no commands, the first with the bit set, the second without it. */
static void control(struct ahci_slot *s, uint8_t v)
{
	struct ahci_port *p = s->port;
	bool was = p->hw->resetting;

	release(s);
	p->hw->resetting = v & FIS_CONTROL_RESET;
	if (p->hw->resetting) {
		ata_drive_reset(&p->hw->drive);
		status_set(p, ST_BUSY, 0);
	} else if (was) {
		port_sign(p);
	}
}

static bool header_read(struct ahci_port *p, unsigned n, uint32_t header[4])
{
	return !pci_dma_read(&p->ahci->f, port_address(p, PORT_CLB) + n * HEADER_SIZE, header, 16);
}

/* Must it wait until all others are done? Those that are not queued. */
bool slot_wants_alone(struct ahci_port *p, unsigned n)
{
	uint32_t header[4];
	uint8_t fis[3];

	if (!header_read(p, n, header) ||
	    pci_dma_read(&p->ahci->f, (header[2] & ~127u) | (uint64_t)header[3] << 32, fis, sizeof(fis)))
		return true;
	return fis[0] != FIS_H2D || !(fis[1] & FIS_IS_COMMAND) || (fis[2] != 0x60 && fis[2] != 0x61);
}

void slot_start(struct ahci_slot *s)
{
	struct ahci_port *p = s->port;
	uint32_t header[4], *cmd = &p->hw->reg[PORT_CMD];
	uint8_t table[0x50], *fis = table;
	struct ata_task t;

	s->plan = (struct ata_plan){ .kind = ATA_FAIL };
	s->packet = false;
	s->entry = s->entry_at = s->left = s->moved = 0;
	*cmd = (*cmd & ~(31u << CMD_SLOT_SHIFT)) | s->number << CMD_SLOT_SHIFT;
	if (!header_read(p, s->number, header))
		goto bad;
	s->entries = header[0] >> 16;
	s->table = (header[2] & ~127u) | (uint64_t)header[3] << 32;
	if (pci_dma_read(&p->ahci->f, s->table, table, sizeof(table)))
		goto bad;
	if (fis[0] != FIS_H2D || !(fis[1] & FIS_IS_COMMAND)) {
		control(s, fis[0] == FIS_H2D ? fis[15] : 0);
		return;
	}
	t = (struct ata_task){ .command = fis[2], .device = fis[7], .feature = (uint16_t)(fis[3] | fis[11] << 8),
			       .count = (uint16_t)(fis[12] | fis[13] << 8),
			       .lba = fis[4] | fis[5] << 8 | fis[6] << 16 | (uint64_t)fis[8] << 24 | (uint64_t)fis[9] << 32 |
				      (uint64_t)fis[10] << 40 };
	ata_plan(&p->drive, &p->hw->drive, &t, &s->plan);
	if (s->plan.queued && s->plan.kind != ATA_FAIL) { /* taken over: the slot is told by SACT from here on */
		status_set(p, ST_READY | ST_SEEK, 0);
		release(s);
		port_fis_registers(p, false, 0, 0);
	} else {
		status_set(p, ST_BUSY, 0);
	}
	execute(s, table + 0x40);
	return;
bad:
	p->hw->halted = true;
	port_interrupt(p, PIS_BUS);
}
