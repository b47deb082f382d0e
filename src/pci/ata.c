/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ATA commands (ATA/ATAPI-6, queued ones ATA8-ACS): identification, reading and writing with 28 and 48-bit addresses, and the
 * small commands that operating systems send.
 */
#include <errno.h>
#include <string.h>
#include "pci/ata.h"

#define LBA28_MAX 0x0fffffffull
#define MULTIPLE_MAX 16u
#define QUEUE_DEPTH 32u

void ata_drive_init(struct ata_drive *d, bool cdrom, struct block *block, const char *serial)
{
	struct block_info info = { 0 };

	d->present = true;
	d->cdrom = cdrom;
	d->block = block;
	strncpy(d->serial, serial, sizeof(d->serial) - 1);
	if (block)
		block_get_info(block, &info);
	d->sectors = info.size / BLOCK_SECTOR;
	d->read_only = info.read_only;
}

void ata_drive_reset(struct ata_drive_hw *h)
{
	*h = (struct ata_drive_hw){ .multiple = MULTIPLE_MAX, .heads = 16, .sectors = 63 };
}

int ata_drive_change(struct ata_drive *d, struct ata_drive_hw *h, struct block *block, bool force)
{
	struct block_info info = { 0 };

	if (h->locked && !h->open && !force) {
		h->changed |= CD_BUTTON;
		return -EBUSY;
	}
	if (block)
		block_get_info(block, &info);
	d->block = block;
	d->sectors = info.size / BLOCK_SECTOR;
	h->open = 0;
	h->changed |= CD_ATTENTION | CD_EVENT;
	return 0;
}

void ata_drive_saving(const struct ata_drive *d, struct ata_drive_hw *h)
{
	memcpy(h->medium, &d->sectors, sizeof(h->medium));
}

void ata_drive_loaded(const struct ata_drive *d, struct ata_drive_hw *h)
{
	if (d->cdrom && memcmp(h->medium, &d->sectors, sizeof(h->medium)))
		h->changed |= CD_ATTENTION | CD_EVENT;
}

/* ---- IDENTIFY */

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

static void identify_both(const struct ata_drive *d, uint8_t *p, const char *model)
{
	put_text(p, 10, d->serial, 10);
	put_text(p, 23, "1.0", 4);
	put_text(p, 27, model, 20);
	put_word(p, 48, 1);
	put_word(p, 63, 0x0007);
	put_word(p, 64, 0x0003);
	for (unsigned w = 65; w <= 68; w++)
		put_word(p, w, 120);
	put_word(p, 88, 0x203f); /* Ultra DMA 5 chosen of 0 to 5 */
}

static void identify_cd(const struct ata_drive *d, uint8_t *p)
{
	identify_both(d, p, "OSPITE CD-ROM");
	put_word(p, 0, 0x85c0); /* packet device, CD-ROM, removable, DRQ within 50 us, packets of 12 bytes */
	put_word(p, 49, 0x0b00); /* LBA, DMA, IORDY */
	put_word(p, 51, 0x0200);
	put_word(p, 53, 7);
	put_word(p, 80, 0x001e);
}

/* One cylinder at least: firmware asks by cylinder, head and sector first, however small the disk is. */
static unsigned cylinders(const struct ata_drive *d)
{
	return (unsigned)MIN(MAX(d->sectors / (16 * 63), 1u), 16383u);
}

static void identify_disk(const struct ata_drive *d, const struct ata_drive_hw *h, uint8_t *p)
{
	uint64_t lba28 = MIN(d->sectors, LBA28_MAX);
	unsigned n = cylinders(d);

	identify_both(d, p, "OSPITE HARDDISK");
	put_word(p, 0, 0x0040);
	put_word(p, 1, n);
	put_word(p, 3, 16);
	put_word(p, 6, 63);
	put_word(p, 47, 0x8000 | MULTIPLE_MAX);
	put_word(p, 49, 0x0b00); /* LBA, DMA, IORDY */
	put_word(p, 51, 0x0200);
	put_word(p, 53, 7);
	put_word(p, 54, n);
	put_word(p, 55, h->heads);
	put_word(p, 56, h->sectors);
	put_word(p, 57, n * 16 * 63);
	put_word(p, 58, n * 16 * 63 >> 16);
	put_word(p, 59, h->multiple ? 0x0100u | h->multiple : 0);
	put_word(p, 60, (uint32_t)lba28);
	put_word(p, 61, (uint32_t)(lba28 >> 16));
	if (d->queues) {
		put_word(p, 75, QUEUE_DEPTH - 1);
		put_word(p, 76, 0x0106); /* NCQ, 1.5 and 3 Gb/s */
	}
	put_word(p, 80, 0x00f0); /* ATA-4 to ATA-7 */
	put_word(p, 81, 0x0016);
	put_word(p, 82, 0x4020); /* NOP, write cache */
	put_word(p, 83, 0x7400); /* FLUSH CACHE (EXT), 48 bits */
	put_word(p, 84, d->queues ? 0x4060 : 0x4000); /* general purpose log, WRITE DMA FUA EXT */
	put_word(p, 85, 0x4020);
	put_word(p, 86, 0x3400);
	put_word(p, 87, d->queues ? 0x4060 : 0x4000);
	put_word(p, 93, d->queues ? 0 : 0x600b); /* serial; else the cable's ends */
	for (unsigned w = 0; w < 4; w++)
		put_word(p, 100 + w, (uint32_t)(d->sectors >> 16 * w));
}

void ata_identify(const struct ata_drive *d, const struct ata_drive_hw *h, uint8_t p[ATA_SECTOR])
{
	memset(p, 0, ATA_SECTOR);
	if (d->cdrom)
		identify_cd(d, p);
	else
		identify_disk(d, h, p);
}

/* ---- reading and writing */

static void fail(struct ata_plan *p, uint8_t error)
{
	p->kind = ATA_FAIL;
	p->error = error;
}

/* [lba, +sectors) as a transfer, or a failure where it does not lie on the disk. */
static bool extent_set(const struct ata_drive *d, struct ata_plan *p, uint64_t lba, uint32_t sectors)
{
	if (!range_fits(lba, sectors, d->sectors)) {
		fail(p, ERR_NOT_FOUND);
		return false;
	}
	p->at = lba * ATA_SECTOR;
	p->length = sectors * ATA_SECTOR;
	return true;
}

static bool extent(const struct ata_drive *d, const struct ata_drive_hw *h, const struct ata_task *t, bool ext,
		   struct ata_plan *p)
{
	uint64_t lba = t->lba;
	uint32_t sectors = ext ? t->count : t->count & 0xff;

	if (ext)
		return extent_set(d, p, lba, sectors ? sectors : 65536);
	if (t->device & DEVICE_LBA) {
		lba = (lba & 0xffffff) | (uint64_t)(t->device & 15) << 24;
	} else if (lba & 0xff) {
		lba = ((lba >> 8 & 0xffff) * h->heads + (t->device & 15)) * h->sectors + (lba & 0xff) - 1;
	} else {
		fail(p, ERR_NOT_FOUND);
		return false;
	}
	return extent_set(d, p, lba, sectors ? sectors : 256);
}

static void transfer(const struct ata_drive *d, const struct ata_drive_hw *h, const struct ata_task *t, bool write, bool ext,
		     uint32_t sectors_a_block, bool dma, struct ata_plan *p)
{
	if (!sectors_a_block || (write && d->read_only)) {
		fail(p, ERR_ABORT);
		return;
	}
	p->kind = write ? ATA_WRITE : ATA_READ;
	p->dma = dma;
	p->block = sectors_a_block * ATA_SECTOR;
	extent(d, h, t, ext, p);
}

/* Queued: the count is where the feature was, the tag where the count was. */
static void queued(const struct ata_drive *d, const struct ata_task *t, bool write, struct ata_plan *p)
{
	p->tag = t->count >> 3 & 31;
	p->dma = p->queued = d->queues;
	if (!d->queues || (write && d->read_only)) {
		fail(p, ERR_ABORT);
		return;
	}
	p->kind = write ? ATA_WRITE : ATA_READ;
	p->fua = t->device & 0x80;
	extent_set(d, p, t->lba, t->feature ? t->feature : 65536);
}

/* ---- the small ones */

static void native_max(const struct ata_drive *d, bool ext, struct ata_plan *p)
{
	uint64_t last = d->sectors - 1;

	p->set_lba = true;
	p->lba = ext ? last : MIN(last, LBA28_MAX);
}

static void set_multiple(struct ata_drive_hw *h, const struct ata_task *t, struct ata_plan *p)
{
	uint8_t n = (uint8_t)t->count;

	if (n > MULTIPLE_MAX || n & (n - 1))
		fail(p, ERR_ABORT);
	else
		h->multiple = n;
}

static void set_features(const struct ata_task *t, struct ata_plan *p)
{
	switch (t->feature & 0xff) {
	case 0x02: /* write cache on, off */
	case 0x82:
	case 0x03: /* transfer mode */
	case 0x55: /* read look-ahead off, on */
	case 0xaa:
	case 0x66: /* defaults over a reset */
	case 0xcc:
		break;
	default:
		fail(p, ERR_ABORT);
		break;
	}
}

/* Of the logs only the one about queued commands, and the list of logs, which names it. */
static void read_log(const struct ata_drive *d, const struct ata_task *t, struct ata_plan *p)
{
	p->log = (uint8_t)t->lba;
	if (!d->queues || (p->log && p->log != 0x10) || t->count != 1)
		fail(p, ERR_ABORT);
	else
		p->kind = ATA_LOG;
}

/* Both kinds of drive; true: it was one of these. */
static bool common(const struct ata_drive *d, const struct ata_task *t, struct ata_plan *p)
{
	switch (t->command) {
	case 0x08: /* DEVICE RESET: of packet drives */
		if (!d->cdrom)
			return false;
		p->kind = ATA_RESET;
		return true;
	case 0x90: /* EXECUTE DEVICE DIAGNOSTIC */
		p->kind = ATA_DIAGNOSE;
		return true;
	case 0xef:
		set_features(t, p);
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
		return true;
	case 0xe5: /* CHECK POWER MODE: active */
	case 0x98:
		p->set_count = true;
		p->count = 0xff;
		return true;
	default:
		return false;
	}
}

static bool disk_transfer(const struct ata_drive *d, const struct ata_drive_hw *h, const struct ata_task *t, struct ata_plan *p)
{
	static const struct {
		uint8_t command;
		bool write, ext, multiple, dma;
	} row[] = {
		{ 0x20, false, false, false, false }, { 0x21, false, false, false, false }, { 0x24, false, true, false, false },
		{ 0x30, true, false, false, false },  { 0x31, true, false, false, false },  { 0x34, true, true, false, false },
		{ 0xc4, false, false, true, false },  { 0x29, false, true, true, false },   { 0xc5, true, false, true, false },
		{ 0x39, true, true, true, false },    { 0xc8, false, false, false, true },  { 0xc9, false, false, false, true },
		{ 0x25, false, true, false, true },   { 0xca, true, false, false, true },   { 0xcb, true, false, false, true },
		{ 0x35, true, true, false, true },
	};

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		if (row[i].command == t->command) {
			transfer(d, h, t, row[i].write, row[i].ext, row[i].multiple ? h->multiple : 1, row[i].dma, p);
			return true;
		}
	}
	return false;
}

static void disk(const struct ata_drive *d, struct ata_drive_hw *h, const struct ata_task *t, struct ata_plan *p)
{
	if (disk_transfer(d, h, t, p))
		return;
	switch (t->command) {
	case 0xec:
		p->kind = ATA_IDENTIFY;
		break;
	case 0x3d: /* WRITE DMA FUA EXT */
		transfer(d, h, t, true, true, d->queues, true, p);
		p->fua = true;
		break;
	case 0x60: /* READ, WRITE FPDMA QUEUED */
	case 0x61:
		queued(d, t, t->command == 0x61, p);
		break;
	case 0x2f:
	case 0x47:
		read_log(d, t, p);
		break;
	case 0x40: /* READ VERIFY */
	case 0x41:
	case 0x42:
		extent(d, h, t, t->command == 0x42, p);
		break;
	case 0xe7:
	case 0xea:
		p->kind = ATA_FLUSH;
		break;
	case 0xc6:
		set_multiple(h, t, p);
		break;
	case 0x91: /* INITIALIZE DEVICE PARAMETERS */
		h->heads = (uint8_t)((t->device & 15) + 1);
		h->sectors = (uint8_t)t->count;
		break;
	case 0xf8:
	case 0x27:
		native_max(d, t->command == 0x27, p);
		break;
	case 0x10: /* RECALIBRATE, SEEK */
	case 0x70:
		break;
	default:
		fail(p, ERR_ABORT);
		break;
	}
}

void ata_plan(const struct ata_drive *d, struct ata_drive_hw *h, const struct ata_task *t, struct ata_plan *p)
{
	*p = (struct ata_plan){ .kind = ATA_DONE };
	if (common(d, t, p))
		return;
	if (!d->cdrom) {
		disk(d, h, t, p);
		return;
	}
	switch (t->command) {
	case 0xa0:
		p->kind = ATA_PACKET;
		p->dma = t->feature & 1;
		break;
	case 0xa1:
		p->kind = ATA_IDENTIFY;
		break;
	case 0xec: /* says what it is instead */
		p->kind = ATA_SIGN;
		p->error = ERR_ABORT;
		break;
	default:
		fail(p, ERR_ABORT);
		break;
	}
}
