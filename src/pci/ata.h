/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What ATA and ATAPI commands mean, for whatever carries them: the IDE controller's registers, AHCI's command lists. Nothing here
 * moves data or raises interrupts: a command goes in, what is to be done comes out, and the carrier does it.
 */
#ifndef PCI_ATA_H
#define PCI_ATA_H

#include "backend/block.h"
#include "base/base.h"

#define ATA_SECTOR 512u
#define CD_SECTOR 2048u

#define ST_ERROR 0x01
#define ST_DRQ 0x08
#define ST_SEEK 0x10
#define ST_READY 0x40
#define ST_BUSY 0x80
#define ERR_ABORT 0x04
#define ERR_NOT_FOUND 0x10
#define ERR_DATA 0x40
#define DEVICE_LBA 0x40
#define DEVICE_UNIT 0x10

/* Why the interrupt, in the sector count register of packet commands */
#define REASON_COMMAND 1
#define REASON_TO_HOST 2

#define KEY_NOT_READY 2
#define KEY_MEDIUM 3
#define KEY_ILLEGAL 5
#define KEY_ATTENTION 6
#define KEY_ABORTED 0x0b

/* A drive: who it is, and what stands behind it. */
struct ata_drive {
	bool present, cdrom, queues; /* queues: takes commands by the dozen (NCQ); not for cdrom */
	struct block *block;	     /* NULL: no medium */
	uint64_t sectors;	     /* of 512 bytes */
	bool read_only;
	char serial[21];
};

/* What the guest can change of it; saved, as bytes. */
struct ata_drive_hw {
	uint8_t multiple; /* sectors a block of READ MULTIPLE; 0: off */
	uint8_t heads, sectors; /* as INITIALIZE DEVICE PARAMETERS set them */
	uint8_t sense_key, asc, ascq;
	uint8_t locked, open; /* CD: medium locked, tray open */
	uint8_t changed;      /* CD: what the host has not been told yet */
	uint8_t medium[8];    /* CD: its size as it was when the machine was saved */
};
#define CD_ATTENTION 1 /* there is a new medium, by the next command's failing */
#define CD_EVENT 2     /* that the medium has changed or gone, by GET EVENT STATUS */
#define CD_BUTTON 4    /* that somebody wants to take out a medium that is locked, by the same */

void ata_drive_init(struct ata_drive *d, bool cdrom, struct block *block, const char *serial);
void ata_drive_reset(struct ata_drive_hw *h);
/* A CD-ROM drive's other medium (NULL: none), while nothing is underway. -EBUSY: the guest has locked it, and not `force`. */
int ata_drive_change(struct ata_drive *d, struct ata_drive_hw *h, struct block *block, bool force);

/* A machine is saved, and goes on, perhaps with another medium in its drive: the guest is told. */
void ata_drive_saving(const struct ata_drive *d, struct ata_drive_hw *h);
void ata_drive_loaded(const struct ata_drive *d, struct ata_drive_hw *h);

/* ---- commands (ata.c) */

struct ata_task {
	uint8_t command, device;
	uint16_t feature, count;
	uint64_t lba; /* the address registers: low, mid, high in bits 0 to 23, their previous contents in 24 to 47 */
};

enum ata_kind {
	ATA_DONE,	/* with an interrupt */
	ATA_FAIL,	/* plan.error */
	ATA_IDENTIFY,	/* 512 bytes of ata_identify */
	ATA_READ,	/* plan.at, plan.length; so too the next one */
	ATA_WRITE,
	ATA_FLUSH,
	ATA_PACKET,
	ATA_RESET,	/* the signature, no interrupt */
	ATA_DIAGNOSE,	/* drive 0 and the signature */
	ATA_SIGN,	/* the signature, then fail */
	ATA_LOG,	/* 512 bytes of log plan.log */
};

struct ata_plan {
	enum ata_kind kind;
	uint8_t error;
	bool dma, queued, fua;
	uint8_t tag;	   /* queued */
	uint8_t log;	   /* 0: the list of logs, 0x10: the queued command that failed */
	bool set_count, set_lba; /* registers get these */
	uint16_t count;
	uint64_t lba;
	uint64_t at;	   /* bytes */
	uint32_t length;
	uint32_t block;	   /* bytes between two interrupts */
};

/* Never fails: what is no command gives ATA_FAIL. Small changes of the drive's state are made at once. */
void ata_plan(const struct ata_drive *d, struct ata_drive_hw *h, const struct ata_task *t, struct ata_plan *p);
void ata_identify(const struct ata_drive *d, const struct ata_drive_hw *h, uint8_t p[ATA_SECTOR]);

/* ---- packets (atapi.c) */

enum cd_kind { CD_DONE, CD_FAIL, CD_ANSWER, CD_READ };

struct cd_plan {
	enum cd_kind kind;
	uint8_t key, asc;
	uint32_t length; /* ANSWER: bytes in the buffer; READ: bytes of the medium from `at` on */
	uint64_t at;
};
#define CD_ANSWER_MAX 64u

void cd_packet(const struct ata_drive *d, struct ata_drive_hw *h, const uint8_t packet[12], uint8_t answer[CD_ANSWER_MAX],
	       struct cd_plan *p);
/* The drive remembers why; gives the error register. */
uint8_t cd_sense(struct ata_drive_hw *h, uint8_t key, uint8_t asc);

#endif
