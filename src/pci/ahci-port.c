/* SPDX-License-Identifier: Apache-2.0 */
/* A port's registers, its link, and which commands of its list are started when. */
#include <stdlib.h>
#include <string.h>
#include "pci/ahci-private.h"

#define SIG_DISK 0x00000101u
#define SIG_CD 0xeb140101u
#define SIG_NONE 0xffffffffu
#define TFD_NONE 0x7fu
#define STATUS_UP 0x123u /* a device, 3 Gb/s, active */
#define CONTROL_DETECT 15u
#define SERR_ALL 0x07ff0f03u

/* ---- locking, and what it carries along */

void port_lock(struct ahci_port *p)
{
	pthread_mutex_lock(&p->lock);
}

void port_unlock(struct ahci_port *p)
{
	bool mine = !p->submitting;

	while (mine && p->submit) {
		unsigned n = (unsigned)__builtin_ctz(p->submit);

		p->submitting = true;
		p->submit &= p->submit - 1;
		pthread_mutex_unlock(&p->lock);
		block_submit(p->drive.block, &p->slot[n].request);
		pthread_mutex_lock(&p->lock);
	}
	if (mine && p->submitting) {
		p->submitting = false;
		pthread_cond_broadcast(&p->rested);
	}
	pthread_mutex_unlock(&p->lock);
}

void port_rest(struct ahci_port *p)
{
	port_lock(p);
	while (p->busy & ~p->held || p->submitting)
		pthread_cond_wait(&p->rested, &p->lock);
	port_unlock(p);
}

void port_drop(struct ahci_port *p)
{
	for (unsigned n = 0; n < AHCI_SLOTS && p->submit; n++) {
		if (p->submit & BIT(n)) {
			free(p->slot[n].bounce);
			p->slot[n].bounce = NULL;
		}
	}
	p->busy &= ~p->submit;
	p->submit = 0;
	p->dropped = p->busy;
}

/* ---- interrupts */

void port_interrupt(struct ahci_port *p, uint32_t bits)
{
	p->hw->reg[PORT_IS] |= bits;
	ahci_update(p->ahci);
}

/* Two of the bits show others, as long as those are set. */
static uint32_t causes(const struct ahci_port *p)
{
	uint32_t is = p->hw->reg[PORT_IS] & ~(uint32_t)(PIS_CONNECT | PIS_READY), error = p->hw->reg[PORT_SERR];

	return is | (uint32_t)(error & SERR_X ? PIS_CONNECT : 0) | (uint32_t)(error & SERR_N ? PIS_READY : 0);
}

/* ---- the link */

void port_sign(struct ahci_port *p)
{
	uint32_t *r = p->hw->reg;

	if (!p->drive.present) {
		r[PORT_TFD] = TFD_NONE;
		r[PORT_SIG] = SIG_NONE;
		return;
	}
	p->hw->resetting = false;
	r[PORT_TFD] = (uint32_t)(p->drive.cdrom ? 0 : ST_READY | ST_SEEK) | 1u << 8; /* diagnostics passed */
	r[PORT_SIG] = p->drive.cdrom ? SIG_CD : SIG_DISK;
	p->hw->unsent = !(r[PORT_CMD] & CMD_FIS);
	if (!p->hw->unsent)
		port_fis_registers(p, false, 1, r[PORT_SIG] >> 8);
}

void port_reset(struct ahci_port *p, bool cold)
{
	uint32_t *r = p->hw->reg;

	struct ata_drive_hw was = p->hw->drive;

	port_drop(p);
	r[PORT_CI] = r[PORT_SACT] = 0;
	if (cold) {
		memset(p->hw, 0, sizeof(*p->hw));
		r[PORT_CMD] = CMD_SPIN | CMD_POWER;
	}
	ata_drive_reset(&p->hw->drive);
	p->hw->drive.locked = was.locked; /* a medium does not go in or out by this */
	p->hw->drive.open = was.open;
	p->hw->drive.changed = was.changed;
	r[PORT_SSTS] = p->drive.present ? STATUS_UP : 0;
	if (p->drive.present)
		r[PORT_SERR] |= SERR_X | SERR_N;
	port_sign(p);
}

static void control_write(struct ahci_port *p, uint32_t v)
{
	uint32_t was = p->hw->reg[PORT_SCTL] & CONTROL_DETECT, now = v & CONTROL_DETECT;

	p->hw->reg[PORT_SCTL] = v & 0xfff;
	if (now == 1 || now == 4) { /* the link is being reset, or off */
		port_drop(p);
		p->hw->reg[PORT_SSTS] = now == 4 ? 4 : 0;
		p->hw->reg[PORT_TFD] = TFD_NONE;
	} else if (!now && was) {
		port_reset(p, false);
		ahci_update(p->ahci);
	}
}

/* ---- the command list */

static bool can_start(const struct ahci_port *p)
{
	const uint32_t *r = p->hw->reg;

	return r[PORT_CMD] & CMD_START && !p->hw->halted && !p->dropped && p->drive.present && r[PORT_SSTS] == STATUS_UP;
}

void port_run(struct ahci_port *p)
{
	uint32_t *r = p->hw->reg, ready;

	if (!(r[PORT_CMD] & CMD_START) && !p->busy)
		r[PORT_CMD] &= ~(uint32_t)CMD_LIST_RUNS;
	while (can_start(p) && (ready = r[PORT_CI] & ~p->busy)) {
		unsigned n = (unsigned)__builtin_ctz(ready);

		/* one that is not queued runs, or has to wait for those that do */
		if (p->busy && (r[PORT_TFD] & ST_BUSY || slot_wants_alone(p, n)))
			break;
		slot_start(&p->slot[n]);
		if (r[PORT_CI] & ~p->busy & BIT(n))
			break; /* it has failed */
	}
}

static void command_write(struct ahci_port *p, uint32_t v)
{
	uint32_t *r = p->hw->reg, was = r[PORT_CMD], now;

	now = (was & ~(uint32_t)CMD_KEPT) | (v & CMD_KEPT);
	now = now & CMD_FIS ? now | CMD_FIS_RUNS : now & ~(uint32_t)CMD_FIS_RUNS;
	r[PORT_CMD] = now;
	if (now & ~was & CMD_FIS && p->hw->unsent)
		port_sign(p);
	if (v & CMD_CLEAR_BUSY && !(now & CMD_START))
		r[PORT_TFD] &= ~(uint32_t)(ST_BUSY | ST_DRQ);
	if (now & ~was & CMD_START) {
		r[PORT_CMD] = (now & ~(31u << CMD_SLOT_SHIFT)) | CMD_LIST_RUNS;
		p->hw->halted = false;
	} else if (was & ~now & CMD_START) {
		port_drop(p);
		r[PORT_CI] = r[PORT_SACT] = 0;
		p->hw->halted = false;
	}
	port_run(p);
}

/* ---- registers */

uint32_t port_read(struct ahci_port *p, unsigned reg)
{
	return reg == PORT_IS ? causes(p) : p->hw->reg[reg];
}

void port_write(struct ahci_port *p, unsigned reg, uint32_t v)
{
	uint32_t *r = p->hw->reg;

	switch (reg) {
	case PORT_CLB:
		r[reg] = v & ~0x3ffu;
		break;
	case PORT_FB:
		r[reg] = v & ~0xffu;
		break;
	case PORT_CLBU:
	case PORT_FBU:
		r[reg] = v;
		break;
	case PORT_IS:
		r[reg] &= ~v;
		ahci_update(p->ahci);
		break;
	case PORT_IE:
		r[reg] = v & 0xfdc000ff;
		ahci_update(p->ahci);
		break;
	case PORT_SERR:
		r[reg] &= ~(v & SERR_ALL);
		ahci_update(p->ahci);
		break;
	case PORT_CMD:
		command_write(p, v);
		break;
	case PORT_SCTL:
		control_write(p, v);
		port_run(p);
		break;
	case PORT_SACT:
		if (r[PORT_CMD] & CMD_START)
			r[reg] |= v;
		break;
	case PORT_CI:
		if (r[PORT_CMD] & CMD_START)
			r[reg] |= v;
		port_run(p);
		break;
	case PORT_SNTF:
		r[reg] &= ~v;
		break;
	default:
		break;
	}
}
