/* SPDX-License-Identifier: Apache-2.0 */
/* Disks and CD-ROM drives: their back-ends, their places on the controllers, and the order the firmware tries them in. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "backend/block.h"
#include "board/private.h"
#include "pci/ahci.h"
#include "pci/ide.h"

#define IDE_PLACES 4

/* Disks from the first place on, CD-ROMs from the second channel on, as PCs come out of the shop. */
static int ide_place(const bool taken[IDE_PLACES], bool cdrom)
{
	static const uint8_t order[2][IDE_PLACES] = { { 0, 1, 2, 3 }, { 2, 3, 1, 0 } };

	for (unsigned i = 0; i < IDE_PLACES; i++)
		if (!taken[order[cdrom][i]])
			return order[cdrom][i];
	return -1;
}

static int drive_open(struct pc_drive *drive, const struct pc_disk *disk, struct err *e)
{
	struct block_config config = { .spec = disk->spec, .read_only = disk->cdrom };
	int r;

	if (!disk->spec)
		return 0;
	r = block_open(&drive->block, &config, e);
	return r ? err_prefix(e, "%s %s", disk->cdrom ? "--cdrom" : "--disk", disk->spec) : 0;
}

int pc_disks_open(struct pc_disks *d, const struct pc_config *config, struct err *e)
{
	bool taken[IDE_PLACES] = { false };
	int ports = 0;

	d->config = config;
	for (unsigned i = 0; i < PC_DISKS; i++) {
		d->drive[i].ide = d->drive[i].ahci = -1;
		d->drive[i].disks = d;
	}
	for (unsigned i = 0; i < config->ndisks; i++) {
		const struct pc_disk *disk = &config->disk[i];
		int r = drive_open(&d->drive[i], disk, e);

		if (r)
			return r;
		if (disk->bus == PC_DISK_AHCI) {
			if (ports == AHCI_PORTS)
				return err_set(e, E2BIG, "there is room for %d disks and CD-ROMs on bus=ahci", AHCI_PORTS);
			d->drive[i].ahci = ports++;
		}
		if (disk->bus != PC_DISK_IDE)
			continue;
		d->drive[i].ide = ide_place(taken, disk->cdrom);
		if (d->drive[i].ide < 0)
			return err_set(e, E2BIG, "there is room for %d IDE disks and CD-ROMs together", IDE_PLACES);
		taken[d->drive[i].ide] = true;
	}
	return 0;
}

void pc_disks_close(struct pc_disks *d)
{
	for (unsigned i = 0; i < PC_DISKS; i++) {
		if (d->drive[i].block)
			block_close(d->drive[i].block);
		d->drive[i].block = NULL;
	}
}

/* ---- errors */

/* The back-end's lock is held. */
static void drive_stopped(void *opaque, int error, bool write)
{
	struct pc_drive *drive = opaque;
	struct pc_disks *d = drive->disks;

	d->error_fn(d->error_opaque, (unsigned)(drive - d->drive), error, write);
}

void pc_disk_watch(struct pc_drive *d)
{
	if (d->block)
		block_set_stopped(d->block, d->disks->error_fn ? drive_stopped : NULL, d);
}

int pc_disks_ide(struct pc_disks *d, struct pci_bus *bus, struct device_env *env, const struct irq_line irq[2],
		 struct err *e)
{
	struct ide_drive_config drive[IDE_PLACES] = { 0 };
	bool any = false;

	for (unsigned i = 0; i < d->config->ndisks; i++) {
		struct ide_drive_config *c;

		if (d->drive[i].ide < 0)
			continue;
		c = &drive[d->drive[i].ide];
		*c = (struct ide_drive_config){ .present = true, .cdrom = d->config->disk[i].cdrom,
						.block = d->drive[i].block };
		snprintf(c->serial, sizeof(c->serial), "%s%05d", c->cdrom ? "CD" : "HD", d->drive[i].ide + 1);
		any = true;
	}
	if (!any)
		return 0;
	d->ide = ide_create(bus, env, drive, irq, e);
	return d->ide ? 0 : -1;
}

int pc_disks_ahci(struct pc_disks *d, struct pci_bus *bus, struct device_env *env, struct err *e)
{
	struct ahci_drive_config drive[AHCI_PORTS] = { 0 };
	bool any = false;

	for (unsigned i = 0; i < d->config->ndisks; i++) {
		const struct pc_disk *disk = &d->config->disk[i];
		struct ahci_drive_config *c;

		if (d->drive[i].ahci < 0)
			continue;
		c = &drive[d->drive[i].ahci];
		*c = (struct ahci_drive_config){ .present = true, .cdrom = disk->cdrom, .block = d->drive[i].block };
		if (disk->serial[0])
			memcpy(c->serial, disk->serial, sizeof(c->serial));
		else
			snprintf(c->serial, sizeof(c->serial), "%s%05d", c->cdrom ? "CD" : "HD", d->drive[i].ahci + 101);
		any = true;
	}
	if (!any)
		return 0;
	d->ahci = ahci_create(bus, env, drive, &d->ahci_slot, e);
	return d->ahci ? 0 : -1;
}

/* ---- media */

int pc_disks_change(struct pc_disks *d, struct pc_drive *drive, const char *spec, bool force, struct err *e)
{
	struct block_config config = { .spec = spec, .read_only = true };
	struct block *block = NULL;
	int r = spec ? block_open(&block, &config, e) : 0;

	if (r)
		return r;
	if (drive->ahci >= 0)
		r = ahci_change_medium(d->ahci, (unsigned)drive->ahci, block, force);
	else
		r = ide_change_medium(d->ide, (unsigned)drive->ide, block, force);
	if (r) {
		if (block)
			block_close(block);
		return err_set(e, -r, "the guest has locked the drive; it has been asked to let go, or use force");
	}
	if (drive->block)
		block_close(drive->block);
	drive->block = block;
	pc_disk_watch(drive);
	return 0;
}

/* ---- what is started first */

static void add_paths(const struct pc_disks *d, enum pc_boot_kind kind, char *text, size_t size)
{
	for (unsigned i = 0; i < d->config->ndisks; i++) {
		size_t used = strlen(text);
		int place = d->drive[i].ide;

		if (d->drive[i].slot && kind == PC_BOOT_DISK)
			snprintf(text + used, size - used, "%s/pci@i0cf8/scsi@%x/disk@0,0", used ? "\n" : "",
				 (unsigned)d->drive[i].slot);
		if (place >= 0 && d->config->disk[i].cdrom == (kind == PC_BOOT_CDROM) && kind != PC_BOOT_NETWORK)
			snprintf(text + used, size - used, "%s/pci@i0cf8/ide@1,1/drive@%d/disk@%d", used ? "\n" : "",
				 place >> 1, place & 1);
		if (d->drive[i].ahci >= 0 && d->config->disk[i].cdrom == (kind == PC_BOOT_CDROM) && kind != PC_BOOT_NETWORK)
			snprintf(text + used, size - used, "%s/pci@i0cf8/pci8086,2922@%x/drive@%d/disk@0", used ? "\n" : "",
				 (unsigned)d->ahci_slot, d->drive[i].ahci);
	}
}

void pc_disks_boot_order(const struct pc_disks *d, char *text, size_t size)
{
	static const enum pc_boot_kind usual[3] = { PC_BOOT_DISK, PC_BOOT_CDROM, PC_BOOT_NETWORK };
	const enum pc_boot_kind *order = d->config->boot[0] == PC_BOOT_NONE ? usual : d->config->boot;

	*text = 0;
	for (unsigned i = 0; i < 3 && order[i] != PC_BOOT_NONE; i++)
		add_paths(d, order[i], text, size);
}
