/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the IDE controller. A channel executes one command at a time: its registers and its transfer are one state
 * machine under the channel's lock, moved on by the guest's accesses and by the back-end's word that a request is done.
 *
 * A request to the back-end is never submitted with the lock held, since it may be refused at once: what moves the machine
 * on says by channel->submit that there is one, and channel_unlock submits it. While one is underway the channel is busy.
 */
#ifndef PCI_IDE_PRIVATE_H
#define PCI_IDE_PRIVATE_H

#include "pci/ata.h"
#include "pci/ide.h"
#include "pci/private.h"

#define IDE_BUFFER 65536u

#define CONTROL_NO_IRQ 0x02
#define CONTROL_RESET 0x04
#define CONTROL_HIGH 0x80

#define BM_START 0x01
#define BM_TO_MEMORY 0x08
#define BM_ACTIVE 0x01
#define BM_ERROR 0x02
#define BM_IRQ 0x04

/* What a transfer is doing */
enum ide_phase {
	PHASE_NONE,
	PHASE_READ,   /* sectors to the host */
	PHASE_WRITE,  /* sectors from the host */
	PHASE_DATA,   /* the buffer's contents to the host, then done: IDENTIFY, answers to packets */
	PHASE_PACKET, /* twelve bytes from the host */
	PHASE_FLUSH,
	PHASE_COUNT,
};

struct ide_channel_hw {
	/* registers; [1] is what was there before, for 48-bit commands */
	uint8_t feature[2], count[2], lba0[2], lba1[2], lba2[2];
	uint8_t device, status, error, control, command;
	bool irq;
	/* the transfer */
	uint8_t phase;
	bool dma, resetting;
	uint64_t at;	    /* byte on the medium the next request is for */
	uint32_t left;	    /* bytes of the command still to be requested from or given to the medium */
	uint32_t pos, end;  /* of the buffer: what the host has still to take or give in this block ends at `end` */
	uint32_t filled;    /* bytes of the buffer that are good */
	uint32_t block;	    /* bytes between two interrupts */
	uint8_t packet[12];
	/* bus master */
	uint8_t bm_command, bm_status;
	uint32_t bm_table, bm_next; /* the entry in use */
	uint32_t bm_address, bm_count; /* what is left of it */
	bool bm_last;
	struct ata_drive_hw drive[2];
	uint8_t buffer[IDE_BUFFER];
};

struct ide_hw {
	struct ide_channel_hw channel[2];
};

struct ide_channel {
	struct ide_channel_hw *hw;
	struct ide *ide;
	struct ata_drive drive[2];
	struct irq_line irq;
	pthread_mutex_t lock;
	pthread_cond_t rested; /* nothing is underway */
	struct block_request request;
	struct iovec iov;
	struct block *target; /* of the request */
	bool submit, underway, held; /* held: underway, but waiting for the machine to go on */
};

struct ide {
	struct device device;
	struct ide_hw hw;
	struct pci_function f;
	struct device_env env;
	struct ide_channel channel[2];
};

static inline unsigned ide_unit(const struct ide_channel *c)
{
	return c->hw->device & DEVICE_UNIT ? 1 : 0;
}
static inline struct ata_drive *ide_selected(struct ide_channel *c)
{
	return &c->drive[ide_unit(c)];
}
static inline struct ata_drive_hw *ide_selected_hw(struct ide_channel *c)
{
	return &c->hw->drive[ide_unit(c)];
}

/* ide.c */
void channel_lock(struct ide_channel *c);
void channel_unlock(struct ide_channel *c); /* submits what is to be */
void channel_irq(struct ide_channel *c);
void channel_request(struct ide_channel *c, enum block_op op, uint64_t at, uint32_t len);

/* ide-ata.c */
void ata_command(struct ide_channel *c, uint8_t command);
void ata_signature(struct ide_channel *c);
void ata_finish(struct ide_channel *c);
void ata_fail(struct ide_channel *c, uint8_t error);
void ata_block_taken(struct ide_channel *c); /* the host has read or written all up to `end` */
void ata_done(struct ide_channel *c, int result); /* the back-end's word */
void ata_data(struct ide_channel *c, uint32_t len); /* len bytes of the buffer go to the host, by words */

/* ide-dma.c */
void dma_go(struct ide_channel *c); /* if the guest has started the bus master */
bool dma_copy(struct ide_channel *c, uint8_t *data, uint32_t len, bool to_memory);
void dma_end(struct ide_channel *c, bool bad);
uint64_t dma_read(struct ide_channel *c, unsigned at);
void dma_write(struct ide_channel *c, unsigned at, uint8_t v);

/* ide-atapi.c */
void atapi_packet(struct ide_channel *c); /* the twelve bytes are there */
void atapi_next(struct ide_channel *c); /* the next piece of an answer, or the end */
void atapi_error(struct ide_channel *c, uint8_t key, uint8_t asc);
void atapi_finish(struct ide_channel *c);

#endif
