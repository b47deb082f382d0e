/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ATA disks (ATA/ATAPI-6): identification, reading and writing by PIO, in blocks, by DMA, with 28 and 48-bit addresses, and
 * the small commands that operating systems send.
 */
#include <errno.h>
#include <string.h>
#include "pci/ide-private.h"

#define LBA28_MAX 0x0fffffffull
#define ATA_SECTOR 512u
#define MULTIPLE_MAX 16u

static void put_word(uint8_t *p, unsigned word, uint32_t v)
{
	p[2 * word] = (uint8_t)v;
	p[2 * word + 1] = (uint8_t)(v >> 8);
}

/* Text in words with the first character in the high byte, filled up with blanks. */
static void put_text(uint8_t *p, unsigned word, const char *text, unsigned words)
{
	size_t len = strlen(text);

	for (unsigned i = 0; i < 2 * words; i++)
		p[(2 * word + i) ^ 1] = i < len ? (uint8_t)text[i] : ' ';
}

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

/* ---- IDENTIFY */

static void geometry(const struct ide_drive *d, unsigned *cylinders)
{
	/* one at least: firmware asks by cylinder, head and sector first, however small the disk is */
	*cylinders = (unsigned)MIN(MAX(d->sectors / (16 * 63), 1u), 16383u);
}

static void identify(struct ide_channel *c)
{
	const struct ide_drive *d = ide_selected(c);
	const struct ide_drive_hw *dh = ide_selected_hw(c);
	uint8_t *p = c->hw->buffer;
	uint64_t lba28 = MIN(d->sectors, LBA28_MAX);
	unsigned cylinders;

	geometry(d, &cylinders);
	memset(p, 0, ATA_SECTOR);
	put_word(p, 0, 0x0040);
	put_word(p, 1, cylinders);
	put_word(p, 3, 16);
	put_word(p, 6, 63);
	put_text(p, 10, d->serial, 10);
	put_text(p, 23, "1.0", 4);
	put_text(p, 27, "OSPITE HARDDISK", 20);
	put_word(p, 47, 0x8000 | MULTIPLE_MAX);
	put_word(p, 48, 1);
	put_word(p, 49, 0x0b00); /* LBA, DMA, IORDY */
	put_word(p, 51, 0x0200);
	put_word(p, 53, 7);
	put_word(p, 54, cylinders);
	put_word(p, 55, dh->heads);
	put_word(p, 56, dh->sectors);
	put_word(p, 57, cylinders * 16 * 63);
	put_word(p, 58, cylinders * 16 * 63 >> 16);
	put_word(p, 59, dh->multiple ? 0x0100u | dh->multiple : 0);
	put_word(p, 60, (uint32_t)lba28);
	put_word(p, 61, (uint32_t)(lba28 >> 16));
	put_word(p, 63, 0x0007);
	put_word(p, 64, 0x0003);
	for (unsigned w = 65; w <= 68; w++)
		put_word(p, w, 120);
	put_word(p, 80, 0x00f0); /* ATA-4 to ATA-7 */
	put_word(p, 81, 0x0016);
	put_word(p, 82, 0x4020); /* NOP, write cache */
	put_word(p, 83, 0x7400); /* FLUSH CACHE (EXT), 48 bits */
	put_word(p, 84, 0x4000);
	put_word(p, 85, 0x4020);
	put_word(p, 86, 0x3400);
	put_word(p, 87, 0x4000);
	put_word(p, 88, 0x203f); /* Ultra DMA 5 chosen of 0 to 5 */
	put_word(p, 93, 0x600b);
	for (unsigned w = 0; w < 4; w++)
		put_word(p, 100 + w, (uint32_t)(d->sectors >> 16 * w));
	ata_data(c, ATA_SECTOR);
}

/* ---- reading and writing */

/* The address and length of a command; false: not on the disk. */
static bool extent(struct ide_channel *c, bool ext, uint64_t *lba, uint32_t *sectors)
{
	const struct ide_channel_hw *h = c->hw;
	const struct ide_drive_hw *d = ide_selected_hw(c);

	if (ext) {
		*lba = h->lba0[0] | h->lba1[0] << 8 | h->lba2[0] << 16 | (uint64_t)h->lba0[1] << 24 |
		       (uint64_t)h->lba1[1] << 32 | (uint64_t)h->lba2[1] << 40;
		*sectors = h->count[0] | (uint32_t)h->count[1] << 8;
		*sectors = *sectors ? *sectors : 65536;
	} else {
		*sectors = h->count[0] ? h->count[0] : 256;
		if (h->device & DEVICE_LBA)
			*lba = h->lba0[0] | h->lba1[0] << 8 | h->lba2[0] << 16 | (uint64_t)(h->device & 15) << 24;
		else if (!h->lba0[0])
			return false;
		else
			*lba = ((uint64_t)(h->lba1[0] | h->lba2[0] << 8) * d->heads + (h->device & 15)) * d->sectors +
			       h->lba0[0] - 1u;
	}
	return range_fits(*lba, *sectors, ide_selected(c)->sectors);
}

static void transfer(struct ide_channel *c, bool write, bool ext, uint32_t sectors_a_block, bool dma)
{
	struct ide_channel_hw *h = c->hw;
	uint64_t lba;
	uint32_t sectors;

	if (!sectors_a_block || (write && ide_selected(c)->read_only)) {
		ata_fail(c, ERR_ABORT);
		return;
	}
	if (!extent(c, ext, &lba, &sectors)) {
		ata_fail(c, ERR_NOT_FOUND);
		return;
	}
	h->phase = write ? PHASE_WRITE : PHASE_READ;
	h->dma = dma;
	h->at = lba * ATA_SECTOR;
	h->left = sectors * ATA_SECTOR;
	h->block = sectors_a_block * ATA_SECTOR;
	h->error = 0;
	h->pos = 0;
	if (dma) {
		h->status = ST_READY | ST_SEEK | ST_DRQ;
		dma_go(c);
	} else if (write) {
		h->end = MIN(h->block, h->left);
		h->status = ST_READY | ST_SEEK | ST_DRQ;
	} else {
		channel_request(c, BLOCK_READ, h->at, MIN(h->left, IDE_BUFFER));
	}
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

/* ---- the small ones */

static void flush(struct ide_channel *c)
{
	c->hw->phase = PHASE_FLUSH;
	channel_request(c, BLOCK_FLUSH, 0, 0);
}

static void verify(struct ide_channel *c, bool ext)
{
	uint64_t lba;
	uint32_t sectors;

	if (extent(c, ext, &lba, &sectors))
		finish_irq(c);
	else
		ata_fail(c, ERR_NOT_FOUND);
}

static void native_max(struct ide_channel *c, bool ext)
{
	struct ide_channel_hw *h = c->hw;
	uint64_t last = ide_selected(c)->sectors - 1;

	last = ext ? last : MIN(last, LBA28_MAX);
	h->lba0[0] = (uint8_t)last;
	h->lba1[0] = (uint8_t)(last >> 8);
	h->lba2[0] = (uint8_t)(last >> 16);
	if (ext) {
		h->lba0[1] = (uint8_t)(last >> 24);
		h->lba1[1] = (uint8_t)(last >> 32);
		h->lba2[1] = (uint8_t)(last >> 40);
	} else {
		h->device = (uint8_t)((h->device & 0xf0) | (last >> 24 & 15));
	}
	finish_irq(c);
}

static void set_multiple(struct ide_channel *c)
{
	uint8_t n = c->hw->count[0];

	if (n > MULTIPLE_MAX || n & (n - 1)) {
		ata_fail(c, ERR_ABORT);
		return;
	}
	ide_selected_hw(c)->multiple = n;
	finish_irq(c);
}

static void set_features(struct ide_channel *c)
{
	switch (c->hw->feature[0]) {
	case 0x02: /* write cache on, off */
	case 0x82:
	case 0x03: /* transfer mode */
	case 0x55: /* read look-ahead off, on */
	case 0xaa:
	case 0x66: /* defaults over a reset */
	case 0xcc:
		finish_irq(c);
		break;
	default:
		ata_fail(c, ERR_ABORT);
		break;
	}
}

static void set_geometry(struct ide_channel *c)
{
	struct ide_drive_hw *d = ide_selected_hw(c);

	d->heads = (uint8_t)((c->hw->device & 15) + 1);
	d->sectors = c->hw->count[0];
	finish_irq(c);
}

/* Both kinds of drive; true: it was one of these. */
static bool common_command(struct ide_channel *c, uint8_t command)
{
	switch (command) {
	case 0x08: /* DEVICE RESET: of packet drives */
		if (!ide_selected(c)->cdrom)
			return false;
		ata_signature(c);
		return true;
	case 0x90: /* EXECUTE DEVICE DIAGNOSTIC */
		c->hw->device &= (uint8_t)~DEVICE_UNIT;
		ata_signature(c);
		channel_irq(c);
		return true;
	case 0xef:
		set_features(c);
		return true;
	case 0xe0: /* power: everything is granted */
	case 0xe1:
	case 0xe2:
	case 0xe3:
	case 0xe6:
	case 0x94:
	case 0x95:
	case 0x96:
	case 0x97:
	case 0x99:
		finish_irq(c);
		return true;
	case 0xe5: /* CHECK POWER MODE: active */
	case 0x98:
		c->hw->count[0] = 0xff;
		finish_irq(c);
		return true;
	default:
		return false;
	}
}

static void disk_command(struct ide_channel *c, uint8_t command)
{
	uint32_t multiple = ide_selected_hw(c)->multiple;

	switch (command) {
	case 0xec:
		identify(c);
		break;
	case 0x20:
	case 0x21:
	case 0x24:
		transfer(c, false, command == 0x24, 1, false);
		break;
	case 0x30:
	case 0x31:
	case 0x34:
		transfer(c, true, command == 0x34, 1, false);
		break;
	case 0xc4:
	case 0x29:
		transfer(c, false, command == 0x29, multiple, false);
		break;
	case 0xc5:
	case 0x39:
		transfer(c, true, command == 0x39, multiple, false);
		break;
	case 0xc8:
	case 0xc9:
	case 0x25:
		transfer(c, false, command == 0x25, 1, true);
		break;
	case 0xca:
	case 0xcb:
	case 0x35:
		transfer(c, true, command == 0x35, 1, true);
		break;
	case 0x40:
	case 0x41:
	case 0x42:
		verify(c, command == 0x42);
		break;
	case 0xe7:
	case 0xea:
		flush(c);
		break;
	case 0xc6:
		set_multiple(c);
		break;
	case 0x91:
		set_geometry(c);
		break;
	case 0xf8:
	case 0x27:
		native_max(c, command == 0x27);
		break;
	case 0x10: /* RECALIBRATE, SEEK */
	case 0x70:
		finish_irq(c);
		break;
	default:
		ata_fail(c, ERR_ABORT);
		break;
	}
}

static void cdrom_command(struct ide_channel *c, uint8_t command)
{
	struct ide_channel_hw *h = c->hw;

	switch (command) {
	case 0xa0:
		h->phase = PHASE_PACKET;
		h->dma = h->feature[0] & 1;
		h->pos = 0;
		h->end = sizeof(h->packet);
		h->count[0] = REASON_COMMAND;
		h->status = ST_READY | ST_DRQ;
		break;
	case 0xa1:
		atapi_identify(c);
		break;
	case 0xec: /* says what it is instead */
		ata_signature(c);
		ata_fail(c, ERR_ABORT);
		break;
	default:
		ata_fail(c, ERR_ABORT);
		break;
	}
}

void ata_command(struct ide_channel *c, uint8_t command)
{
	c->hw->command = command;
	c->hw->phase = PHASE_NONE;
	c->hw->dma = false;
	c->hw->error = 0;
	c->hw->pos = c->hw->end = c->hw->filled = 0;
	if (common_command(c, command))
		return;
	if (ide_selected(c)->cdrom)
		cdrom_command(c, command);
	else
		disk_command(c, command);
}
