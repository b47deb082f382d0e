/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CD-ROM drives: what of MMC-3 firmware and operating systems ask of a drive that reads data discs. The medium is an image of
 * sectors of 2048 bytes, one track.
 */
#include <string.h>
#include "pci/ata.h"

#define ASC_NO_MEDIUM 0x3a
#define ASC_CHANGED 0x28
#define ASC_COMMAND 0x20
#define ASC_ADDRESS 0x21
#define ASC_FIELD 0x24
#define ASC_LOCKED 0x53
#define READ_MAX (1u << 20) /* sectors a command */
#define CD_SECTORS 449550u  /* 99:54:00: what is longer must be a DVD */

/* A packet underway. */
struct cd {
	const struct ata_drive *drive;
	struct ata_drive_hw *hw;
	uint8_t *buffer;
	struct cd_plan *plan;
};

static uint16_t be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}
static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)be16(p) << 16 | be16(p + 2);
}
static void put16be(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}
static void put32be(uint8_t *p, uint32_t v)
{
	put16be(p, v >> 16);
	put16be(p + 2, v);
}

static bool has_medium(struct cd *c)
{
	return c->drive->block && !c->hw->open;
}

/* Sectors of 2048 bytes. */
static uint32_t medium_size(struct cd *c)
{
	return (uint32_t)MIN(c->drive->sectors / 4, UINT32_MAX);
}

/* ---- ends and answers */

static void done(struct cd *c)
{
	c->plan->kind = CD_DONE;
}

static void fail(struct cd *c, uint8_t key, uint8_t asc)
{
	c->plan->kind = CD_FAIL;
	c->plan->key = key;
	c->plan->asc = asc;
}

/* `len` bytes of the buffer answer, cut to what was asked for. */
static void answer(struct cd *c, uint32_t len, uint32_t asked)
{
	c->plan->length = MIN(len, asked);
	c->plan->kind = c->plan->length ? CD_ANSWER : CD_DONE;
}

/* ---- commands */

static void request_sense(struct cd *c, const uint8_t *packet)
{
	struct ata_drive_hw *d = c->hw;
	uint8_t *p = c->buffer;

	memset(p, 0, 18);
	p[0] = 0xf0;
	p[2] = d->sense_key;
	p[7] = 10;
	p[12] = d->asc;
	p[13] = d->ascq;
	d->sense_key = d->asc = d->ascq = 0;
	answer(c, 18, packet[4]);
}

static void inquiry(struct cd *c, const uint8_t *packet)
{
	uint8_t *p = c->buffer;

	if (packet[1] & 1) { /* pages of product data: there are none */
		fail(c, KEY_ILLEGAL, ASC_FIELD);
		return;
	}
	memset(p, 0, 8);
	p[0] = 5;
	p[1] = 0x80;
	p[3] = 0x21;
	p[4] = 31;
	memcpy(p + 8, "OSPITE  CD-ROM          1.0 ", 28);
	answer(c, 36, be16(packet + 3));
}

static void read_capacity(struct cd *c)
{
	put32be(c->buffer, medium_size(c) - 1);
	put32be(c->buffer + 4, CD_SECTOR);
	answer(c, 8, 8);
}

static void read_sectors(struct cd *c, uint32_t lba, uint32_t count)
{
	if (!count) {
		done(c);
	} else if (count > READ_MAX || !range_fits(lba, count, medium_size(c))) {
		fail(c, KEY_ILLEGAL, ASC_ADDRESS);
	} else {
		c->plan->kind = CD_READ;
		c->plan->at = (uint64_t)lba * CD_SECTOR;
		c->plan->length = count * CD_SECTOR;
	}
}

/* User data only: audio and raw sectors are not in an image. */
static void read_cd(struct cd *c, const uint8_t *packet)
{
	uint32_t count = (uint32_t)packet[6] << 16 | be16(packet + 7);

	if ((packet[9] & 0xf8) == 0x10)
		read_sectors(c, be32(packet + 2), count);
	else if (!(packet[9] & 0xf8) || !count)
		done(c);
	else
		fail(c, KEY_ILLEGAL, ASC_FIELD);
}

static void put_address(uint8_t *p, uint32_t lba, bool msf)
{
	if (msf) {
		lba += 150;
		put32be(p, (lba / 4500 & 0xff) << 16 | lba / 75 % 60 << 8 | lba % 75);
	} else {
		put32be(p, lba);
	}
}

static void read_toc(struct cd *c, const uint8_t *packet)
{
	uint8_t *p = c->buffer, format = packet[2] & 15 ? packet[2] & 15 : packet[9] >> 6;
	bool msf = packet[1] & 2;

	if (format > 1 || (packet[6] > 1 && packet[6] != 0xaa)) {
		fail(c, KEY_ILLEGAL, ASC_FIELD);
		return;
	}
	memset(p, 0, 20);
	p[2] = p[3] = 1;
	p[5] = 0x14; /* data track */
	p[6] = 1;
	put_address(p + 8, 0, msf);
	if (format == 0) {
		unsigned at = packet[6] == 0xaa ? 4 : 12; /* from the lead-out on */

		memset(p + at, 0, 8);
		p[at + 1] = 0x16;
		p[at + 2] = 0xaa;
		put_address(p + at + 4, medium_size(c), msf);
		put16be(p, at + 8 - 2);
		answer(c, at + 8, be16(packet + 7));
		return;
	}
	put16be(p, 10);
	answer(c, 12, be16(packet + 7));
}

static unsigned feature(uint8_t *p, unsigned at, uint16_t code, uint8_t flags, const void *data, uint8_t len)
{
	put16be(p + at, code);
	p[at + 2] = flags;
	p[at + 3] = len;
	memcpy(p + at + 4, data, len);
	return at + 4 + len;
}

static void get_configuration(struct cd *c, const uint8_t *packet)
{
	uint8_t *p = c->buffer, profiles[8] = { 0, 0x10, 0, 0, 0, 0x08, 0, 0 };
	bool dvd = medium_size(c) > CD_SECTORS;
	unsigned at = 8;

	memset(p, 0, 8);
	if (has_medium(c)) {
		p[7] = dvd ? 0x10 : 0x08;
		profiles[dvd ? 2 : 6] = 1;
	}
	at = feature(p, at, 0, 3, profiles, 8);
	at = feature(p, at, 1, 3, "\0\0\0\2", 4);      /* core: ATAPI */
	at = feature(p, at, 3, 3, "\x29\0\0\0", 4);    /* removable: tray, eject, lock */
	put32be(p, at - 4);
	answer(c, at, be16(packet + 7));
}

static void event_status(struct cd *c, const uint8_t *packet)
{
	struct ata_drive_hw *d = c->hw;
	uint8_t *p = c->buffer;

	if (!(packet[1] & 1)) { /* we cannot call the host */
		fail(c, KEY_ILLEGAL, ASC_FIELD);
		return;
	}
	memset(p, 0, 8);
	p[3] = 0x10; /* class: media */
	if (!(packet[4] & 0x10)) {
		p[2] = 0x80;
		p[1] = 2;
		answer(c, 4, be16(packet + 7));
		return;
	}
	p[1] = 6;
	p[2] = 4;
	if (d->changed & CD_EVENT) /* new medium, or it was taken away */
		p[4] = has_medium(c) ? 2 : 3;
	else if (d->changed & CD_BUTTON)
		p[4] = 1;
	d->changed &= d->changed & CD_EVENT ? (uint8_t)~CD_EVENT : (uint8_t)~CD_BUTTON;
	p[5] = (uint8_t)(d->open ? 1 : has_medium(c) ? 2 : 0);
	answer(c, 8, be16(packet + 7));
}

/* Pages 1 (error recovery) and 0x2a (what the drive can). */
static void mode_sense(struct cd *c, const uint8_t *packet, bool ten)
{
	uint8_t *p = c->buffer, page = packet[2] & 0x3f;
	unsigned at = ten ? 8 : 4;

	if (packet[2] >> 6 == 3 || (page != 1 && page != 0x2a && page != 0x3f)) {
		fail(c, KEY_ILLEGAL, packet[2] >> 6 == 3 ? 0x39 : ASC_FIELD);
		return;
	}
	memset(p, 0, 64);
	if (page != 0x2a) {
		p[at] = 1;
		p[at + 1] = 6;
		p[at + 3] = 5;
		at += 8;
	}
	if (page != 1) {
		p[at] = 0x2a;
		p[at + 1] = 0x12;
		p[at + 2] = 0x3b; /* reads CD-R, CD-RW, DVD */
		p[at + 4] = 0x70;
		p[at + 6] = (uint8_t)(0x29 | (c->hw->locked ? 2 : 0));
		put16be(p + at + 8, 706);
		put16be(p + at + 12, 512);
		put16be(p + at + 14, 706);
		at += 20;
	}
	if (ten)
		put16be(p, at - 2);
	else
		p[0] = (uint8_t)(at - 1);
	answer(c, at, ten ? be16(packet + 7) : packet[4]);
}

static void disc_information(struct cd *c, const uint8_t *packet)
{
	uint8_t *p = c->buffer;

	memset(p, 0, 34);
	p[1] = 32;
	p[2] = 0x0e; /* complete */
	p[3] = p[4] = p[5] = p[6] = 1;
	p[7] = 0x20;
	answer(c, 34, be16(packet + 7));
}

static void start_stop(struct cd *c, const uint8_t *packet)
{
	struct ata_drive_hw *d = c->hw;

	if (packet[4] & 2) {
		if (!(packet[4] & 1) && d->locked) {
			fail(c, KEY_ILLEGAL, ASC_LOCKED);
			return;
		}
		if (d->open != !(packet[4] & 1))
			d->changed |= CD_EVENT | (d->open ? CD_ATTENTION : 0);
		d->open = !(packet[4] & 1);
	}
	done(c);
}

static void mechanism_status(struct cd *c, const uint8_t *packet)
{
	memset(c->buffer, 0, 8);
	c->buffer[5] = 1;
	answer(c, 8, be16(packet + 8));
}

/* Commands that work without a medium. False: none of these. */
static bool drive_command(struct cd *c, const uint8_t *packet)
{
	switch (packet[0]) {
	case 0x03:
		request_sense(c, packet);
		return true;
	case 0x12:
		inquiry(c, packet);
		return true;
	case 0x1a:
	case 0x5a:
		mode_sense(c, packet, packet[0] == 0x5a);
		return true;
	case 0x1b:
		start_stop(c, packet);
		return true;
	case 0x1e:
		c->hw->locked = packet[4] & 1;
		done(c);
		return true;
	case 0x46:
		get_configuration(c, packet);
		return true;
	case 0x4a:
		event_status(c, packet);
		return true;
	case 0xbb: /* SET CD SPEED */
		done(c);
		return true;
	case 0xbd:
		mechanism_status(c, packet);
		return true;
	default:
		return false;
	}
}

static void medium_command(struct cd *c, const uint8_t *packet)
{
	switch (packet[0]) {
	case 0x00: /* TEST UNIT READY */
		done(c);
		break;
	case 0x25:
		read_capacity(c);
		break;
	case 0x28:
		read_sectors(c, be32(packet + 2), be16(packet + 7));
		break;
	case 0xa8:
		read_sectors(c, be32(packet + 2), be32(packet + 6));
		break;
	case 0xbe:
		read_cd(c, packet);
		break;
	case 0x2b: /* SEEK */
		if (be32(packet + 2) < medium_size(c))
			done(c);
		else
			fail(c, KEY_ILLEGAL, ASC_ADDRESS);
		break;
	case 0x43:
		read_toc(c, packet);
		break;
	case 0x51:
		disc_information(c, packet);
		break;
	default:
		fail(c, KEY_ILLEGAL, ASC_COMMAND);
		break;
	}
}

void cd_packet(const struct ata_drive *d, struct ata_drive_hw *h, const uint8_t packet[12], uint8_t buffer[CD_ANSWER_MAX],
	       struct cd_plan *p)
{
	struct cd c = { d, h, buffer, p };

	*p = (struct cd_plan){ 0 };
	if (packet[0] != 0x12 && packet[0] != 0x03 && packet[0] != 0x4a && packet[0] != 0x46 &&
	    h->changed & CD_ATTENTION) {
		h->changed &= (uint8_t)~CD_ATTENTION;
		fail(&c, KEY_ATTENTION, ASC_CHANGED);
	} else if (!drive_command(&c, packet)) {
		if (has_medium(&c))
			medium_command(&c, packet);
		else
			fail(&c, KEY_NOT_READY, ASC_NO_MEDIUM);
	}
}

uint8_t cd_sense(struct ata_drive_hw *h, uint8_t key, uint8_t asc)
{
	h->sense_key = key;
	h->asc = asc;
	h->ascq = 0;
	return (uint8_t)(key << 4 | ERR_ABORT);
}
