/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the AHCI controller (Serial ATA AHCI 1.3.1). A port takes commands from a list of 32 slots in the guest's memory:
 * queued ones all at once, others one after another. Registers and slots of a port are under its lock; the controller's own
 * registers and its interrupt under another one, taken after a port's.
 *
 * A request to the back-end is never submitted with a lock held, and never from within another's completion: what is to be
 * submitted is noted in port->submit, and the outermost port_unlock does it. While a slot's request is underway the guest may
 * stop or reset the port: the slot is then `dropped`, its completion means nothing, and the port starts nothing new
 * until the last one of them has come.
 */
#ifndef PCI_AHCI_PRIVATE_H
#define PCI_AHCI_PRIVATE_H

#include "pci/ahci.h"
#include "pci/ata.h"
#include "pci/private.h"

#define AHCI_SLOTS 32u
#define AHCI_IOVS 128u
#define AHCI_PIECE (1u << 20) /* bytes of a command underway at once; whole sectors of a CD, too */

/* Registers of a port, as double words */
enum {
	PORT_CLB, PORT_CLBU, PORT_FB, PORT_FBU, PORT_IS, PORT_IE, PORT_CMD, PORT_TFD = 8, PORT_SIG, PORT_SSTS, PORT_SCTL, PORT_SERR,
	PORT_SACT, PORT_CI, PORT_SNTF, PORT_REGS = 32,
};

#define PIS_D2H BIT(0)
#define PIS_PIO BIT(1)
#define PIS_BITS BIT(3)
#define PIS_CONNECT BIT(6) /* as SERR's X is set */
#define PIS_READY BIT(22)  /* as SERR's N is set */
#define PIS_ERROR BIT(30)
#define PIS_BUS BIT(29)    /* what the command list says cannot be read */

#define CMD_START BIT(0)
#define CMD_SPIN BIT(1)
#define CMD_POWER BIT(2)
#define CMD_CLEAR_BUSY BIT(3)
#define CMD_FIS BIT(4)
#define CMD_SLOT_SHIFT 8
#define CMD_FIS_RUNS BIT(14)
#define CMD_LIST_RUNS BIT(15)
#define CMD_KEPT (CMD_START | CMD_FIS | BIT(24) | BIT(25))

#define SERR_X BIT(26)
#define SERR_N BIT(16)

struct ahci_port_hw {
	uint32_t reg[PORT_REGS];
	bool halted;	/* by an error, until the list is started again */
	bool resetting; /* by software: between the two halves */
	bool unsent;	/* the signature waits for a place to be put */
	uint8_t failed_tag, failed_status, failed_error; /* of queued commands, for the log */
	struct ata_drive_hw drive;
};

struct ahci_hw {
	uint32_t ghc, is;
	struct ahci_port_hw port[AHCI_PORTS];
};

struct ahci_port;

struct ahci_slot {
	struct ahci_port *port;
	unsigned number;
	struct ata_plan plan;
	bool packet;
	uint64_t table; /* of the command */
	uint32_t entries, entry, entry_at; /* of its scatter list: how many; which one is next, from which byte on */
	uint32_t left, moved;
	uint64_t at;
	struct block_request request;
	struct iovec iov[AHCI_IOVS], bounce_iov;
	unsigned niov;
	void *bounce; /* engine=verify: data read must not go to the guest's memory by itself */
};

struct ahci_port {
	struct ahci *ahci;
	struct ahci_port_hw *hw;
	unsigned number;
	struct ata_drive drive;
	pthread_mutex_t lock;
	pthread_cond_t rested;
	uint32_t busy;	  /* slots with a request underway */
	uint32_t dropped; /* those of them that nobody waits for */
	uint32_t held;	  /* those waiting for the machine to go on, by the back-end's error policy */
	uint32_t submit;  /* those to be submitted */
	bool submitting;
	struct ahci_slot *slot; /* AHCI_SLOTS; only if there is a drive */
};

struct ahci {
	struct device device;
	struct ahci_hw hw;
	struct pci_function f;
	struct device_env env;
	pthread_mutex_t lock; /* hw.ghc, hw.is */
	struct ahci_port port[AHCI_PORTS];
};

/* ahci.c */
void ahci_update(struct ahci *a); /* a port's interrupts have changed */

/* ahci-port.c */
void port_lock(struct ahci_port *p);
void port_unlock(struct ahci_port *p);
uint32_t port_read(struct ahci_port *p, unsigned reg);
void port_write(struct ahci_port *p, unsigned reg, uint32_t v);
void port_interrupt(struct ahci_port *p, uint32_t bits);
void port_reset(struct ahci_port *p, bool cold); /* as the link's reset does */
void port_sign(struct ahci_port *p);
void port_run(struct ahci_port *p); /* starts what can be started */
void port_drop(struct ahci_port *p); /* what is underway is of no interest any more */
void port_rest(struct ahci_port *p);
static inline uint64_t port_address(const struct ahci_port *p, unsigned low)
{
	return p->hw->reg[low] | (uint64_t)p->hw->reg[low + 1] << 32;
}

/* ahci-command.c; the port's lock is held */
void slot_start(struct ahci_slot *s);
void slot_done(struct block_request *r, int result); /* not held */
void slot_held(struct block_request *r, bool held);  /* not held; the back-end's is */
bool slot_wants_alone(struct ahci_port *p, unsigned n);
void port_fis(struct ahci_port *p, unsigned at, const uint8_t *fis, unsigned len);
void port_fis_registers(struct ahci_port *p, bool interrupt, uint16_t count, uint64_t lba);

/* ahci-data.c: the guest's memory a command names */
/* The next piece of a transfer in s->iov, whole units of `unit` bytes, `most` at most; 0: there is no more room, or no RAM. */
uint32_t slot_map(struct ahci_slot *s, uint32_t most, uint32_t unit);
void slot_put(struct ahci_slot *s, const void *data, uint32_t len); /* as much of it as there is room for */
void slot_arrived(struct ahci_slot *s); /* what the back-end read is in the guest's memory */
int slot_bounce(struct ahci_slot *s, uint32_t len); /* if the guest's memory must not be read to directly */

#endif
