/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AHCI controller as a device: its registers, its interrupt, saving. Ports are in ahci-port.c, commands in ahci-command.c
 * and ahci-data.c; ahci-private.h tells how they work together. It speaks AHCI only (no legacy IDE registers), 1.3, 32 slots
 * a port, queued commands, 64-bit addresses; one message interrupt. No port multipliers, no power management of links.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "pci/ahci-private.h"

#define REGISTERS 0x1000u
#define PORTS_AT 0x100u
#define PORT_SIZE 0x80u

enum { HBA_CAP, HBA_GHC, HBA_IS, HBA_PI, HBA_VS };

#define CAP_SLOTS (31u << 8)
#define CAP_AHCI_ONLY BIT(18)
#define CAP_3GBPS (2u << 20)
#define CAP_CLEAR_BUSY BIT(24)
#define CAP_QUEUES BIT(30)
#define CAP_64BIT BIT(31)
#define GHC_RESET BIT(0)
#define GHC_INTERRUPTS BIT(1)
#define GHC_AHCI BIT(31)
#define VERSION 0x00010300u

/* ---- interrupts */

/*
 * From a port's register write or event, with its lock held; other ports' registers are read without theirs: what changes there
 * at the same time comes here, too. The message is sent again for every event: one too many does no harm.
 */
void ahci_update(struct ahci *a)
{
	bool on;

	pthread_mutex_lock(&a->lock);
	for (unsigned i = 0; i < AHCI_PORTS; i++) {
		uint32_t causes = port_read(&a->port[i], PORT_IS);

		if (causes & __atomic_load_n(&a->hw.port[i].reg[PORT_IE], __ATOMIC_RELAXED))
			a->hw.is |= (uint32_t)BIT(i);
	}
	on = a->hw.is && a->hw.ghc & GHC_INTERRUPTS;
	pci_set_intx(&a->f, on);
	if (on)
		pci_msi_notify(&a->f, 0);
	pthread_mutex_unlock(&a->lock);
}

/* ---- registers */

static void hba_reset(struct ahci *a)
{
	for (unsigned i = 0; i < AHCI_PORTS; i++) {
		struct ahci_port *p = &a->port[i];

		port_lock(p);
		port_reset(p, true);
		port_unlock(p);
	}
	pthread_mutex_lock(&a->lock);
	a->hw.ghc = GHC_AHCI;
	a->hw.is = 0;
	pthread_mutex_unlock(&a->lock);
	ahci_update(a);
}

static uint32_t hba_read(struct ahci *a, unsigned reg)
{
	uint32_t v;

	switch (reg) {
	case HBA_CAP:
		return (AHCI_PORTS - 1) | CAP_SLOTS | CAP_AHCI_ONLY | CAP_3GBPS | CAP_CLEAR_BUSY | CAP_QUEUES | (uint32_t)CAP_64BIT;
	case HBA_PI:
		return (1u << AHCI_PORTS) - 1;
	case HBA_VS:
		return VERSION;
	case HBA_GHC:
	case HBA_IS:
		pthread_mutex_lock(&a->lock);
		v = reg == HBA_GHC ? a->hw.ghc : a->hw.is;
		pthread_mutex_unlock(&a->lock);
		return v;
	default:
		return 0;
	}
}

static void hba_write(struct ahci *a, unsigned reg, uint32_t v)
{
	if (reg == HBA_GHC && v & GHC_RESET) {
		hba_reset(a);
		return;
	}
	if (reg != HBA_GHC && reg != HBA_IS)
		return;
	pthread_mutex_lock(&a->lock);
	if (reg == HBA_GHC)
		a->hw.ghc = (v & GHC_INTERRUPTS) | (uint32_t)GHC_AHCI;
	else
		a->hw.is &= ~v;
	pthread_mutex_unlock(&a->lock);
	ahci_update(a);
}

static uint64_t register_read(void *opaque, uint64_t offset, unsigned size)
{
	struct ahci *a = opaque;
	unsigned n = (unsigned)(offset - PORTS_AT) / PORT_SIZE;
	uint32_t v = 0;

	if (offset < PORTS_AT)
		return hba_read(a, (unsigned)offset / 4);
	if (n < AHCI_PORTS) {
		port_lock(&a->port[n]);
		v = port_read(&a->port[n], (unsigned)offset % PORT_SIZE / 4);
		port_unlock(&a->port[n]);
	}
	return v;
}

static void register_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct ahci *a = opaque;
	unsigned n = (unsigned)(offset - PORTS_AT) / PORT_SIZE;

	if (offset < PORTS_AT) {
		hba_write(a, (unsigned)offset / 4, (uint32_t)value);
	} else if (n < AHCI_PORTS) {
		port_lock(&a->port[n]);
		port_write(&a->port[n], (unsigned)offset % PORT_SIZE / 4, (uint32_t)value);
		port_unlock(&a->port[n]);
	}
}

static const struct io_ops register_io = { register_read, register_write, 4, 4 };

/* ---- saving and the rest of life */

static int ahci_check(const void *opaque, struct err *e)
{
	const struct ahci_hw *hw = opaque;

	for (unsigned i = 0; i < AHCI_PORTS; i++) {
		const struct ahci_port_hw *p = &hw->port[i];

		if (p->reg[PORT_CLB] & 0x3ff || p->reg[PORT_FB] & 0xff || p->drive.multiple > 16)
			return err_set(e, EINVAL, "ahci: impossible registers of port %u", i);
	}
	return 0;
}

#define PORT_FIELDS(n)                                                                                                 \
	STATE_INTS(struct ahci_hw, port[n].reg), STATE_INT(struct ahci_hw, port[n].halted),                            \
	STATE_INT(struct ahci_hw, port[n].resetting), STATE_INT(struct ahci_hw, port[n].unsent),                       \
	STATE_INT(struct ahci_hw, port[n].failed_tag), STATE_INT(struct ahci_hw, port[n].failed_status),               \
	STATE_INT(struct ahci_hw, port[n].failed_error), STATE_RAW(struct ahci_hw, port[n].drive)

static const struct state_field fields[] = {
	STATE_INT(struct ahci_hw, ghc), STATE_INT(struct ahci_hw, is),
	PORT_FIELDS(0), PORT_FIELDS(1), PORT_FIELDS(2), PORT_FIELDS(3), PORT_FIELDS(4), PORT_FIELDS(5),
};

static const struct state_desc ahci_state = {
	.name = "ahci", .version = 1, .size = sizeof(struct ahci_hw),
	.fields = fields, .nfields = ARRAY_LEN(fields), .check = ahci_check,
};

static void ahci_pause(struct device *d)
{
	struct ahci *a = container_of(d, struct ahci, device);

	for (unsigned i = 0; i < AHCI_PORTS; i++) {
		port_rest(&a->port[i]);
		ata_drive_saving(&a->port[i].drive, &a->hw.port[i].drive);
	}
}

/* What failed is tried again. */
static void ahci_resume(struct device *d)
{
	struct ahci *a = container_of(d, struct ahci, device);

	for (unsigned i = 0; i < AHCI_PORTS; i++)
		if (a->port[i].drive.block)
			block_retry(a->port[i].drive.block);
}

static int ahci_save_check(struct device *d, struct err *e)
{
	struct ahci *a = container_of(d, struct ahci, device);
	int r = 0;

	for (unsigned i = 0; i < AHCI_PORTS && !r; i++) {
		port_lock(&a->port[i]);
		if (a->port[i].held)
			r = err_set(e, EBUSY, "an AHCI disk has failed, and a request is still to be tried again: let the "
					      "machine go on first");
		port_unlock(&a->port[i]);
	}
	return r;
}

static void holding_set(struct ahci_port *p, bool on)
{
	if (p->drive.block)
		block_set_holding(p->drive.block, on);
}

static void ahci_reset(struct device *d, enum reset_kind kind)
{
	struct ahci *a = container_of(d, struct ahci, device);

	ahci_pause(d);
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		a->hw.port[i].drive = (struct ata_drive_hw){ 0 };
	hba_reset(a);
}

static void ahci_loaded(struct device *d)
{
	struct ahci *a = container_of(d, struct ahci, device);

	for (unsigned i = 0; i < AHCI_PORTS; i++) {
		struct ahci_port *p = &a->port[i];

		port_lock(p);
		if (!p->drive.present)
			p->hw->reg[PORT_SSTS] = 0;
		ata_drive_loaded(&p->drive, &p->hw->drive);
		port_unlock(p);
	}
	ahci_update(a);
}

static void ahci_destroy(struct device *d)
{
	struct ahci *a = container_of(d, struct ahci, device);

	for (unsigned i = 0; i < AHCI_PORTS; i++) {
		holding_set(&a->port[i], false);
		port_rest(&a->port[i]);
		pthread_mutex_destroy(&a->port[i].lock);
		pthread_cond_destroy(&a->port[i].rested);
		free(a->port[i].slot);
	}
	pthread_mutex_destroy(&a->lock);
	pci_function_dispose(&a->f);
	free(a);
}

static const struct device_ops ahci_ops = {
	.state = &ahci_state,
	.reset = ahci_reset,
	.saving = ahci_pause, /* tests save without pausing */
	.pause = ahci_pause,
	.resume = ahci_resume,
	.save_check = ahci_save_check,
	.loaded = ahci_loaded,
	.destroy = ahci_destroy,
};

static int port_init(struct ahci *a, unsigned n, const struct ahci_drive_config *drive)
{
	struct ahci_port *p = &a->port[n];

	p->ahci = a;
	p->hw = &a->hw.port[n];
	p->number = n;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->rested, NULL);
	if (!drive->present)
		return 0;
	ata_drive_init(&p->drive, drive->cdrom, drive->block, drive->serial);
	p->drive.queues = !drive->cdrom;
	p->slot = calloc(AHCI_SLOTS, sizeof(*p->slot));
	for (unsigned i = 0; p->slot && i < AHCI_SLOTS; i++) {
		p->slot[i].port = p;
		p->slot[i].number = i;
	}
	return p->slot ? 0 : -ENOMEM;
}

struct device *ahci_create(struct pci_bus *bus, struct device_env *env, const struct ahci_drive_config drive[AHCI_PORTS],
			   int *slot, struct err *e)
{
	static const struct pci_identity id = { .vendor = 0x8086, .device = 0x2922, .subsystem_vendor = 0x1af4,
						.subsystem = 0x1100, .class_code = 0x010601, .revision = 2, .pin = 1 };
	struct ahci *a = calloc(1, sizeof(*a));
	int r = 0;

	if (!a) {
		err_set(e, ENOMEM, "no memory for the AHCI controller");
		return NULL;
	}
	a->device = (struct device){ .ops = &ahci_ops, .hw = &a->hw };
	a->env = *env;
	pthread_mutex_init(&a->lock, NULL);
	pci_function_init(&a->f, &id, NULL, NULL);
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		r |= port_init(a, i, &drive[i]);
	if (r)
		err_set(e, ENOMEM, "no memory for the AHCI controller's command slots");
	pci_add_bar(&a->f, 5, PCI_BAR_MEM32, REGISTERS, &register_io, a, "ahci");
	if (r || pci_add_msi(&a->f, 1, e) || pci_attach(bus, &a->f, -1, e)) {
		ahci_destroy(&a->device);
		return NULL;
	}
	*slot = (int)(a->f.devfn >> 3);
	ahci_reset(&a->device, RESET_COLD);
	return &a->device;
}

int ahci_change_medium(struct device *d, unsigned port, struct block *block, bool force)
{
	struct ahci *a = container_of(d, struct ahci, device);
	struct ahci_port *p = &a->port[port % AHCI_PORTS];
	int r;

	holding_set(p, false);
	port_lock(p);
	while (p->busy || p->submitting)
		pthread_cond_wait(&p->rested, &p->lock);
	if (port >= AHCI_PORTS || !p->drive.present || !p->drive.cdrom)
		r = -ENODEV;
	else
		r = ata_drive_change(&p->drive, &p->hw->drive, block, force);
	port_unlock(p);
	holding_set(p, true);
	return r;
}
