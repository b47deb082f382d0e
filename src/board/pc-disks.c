/* SPDX-License-Identifier: Apache-2.0 */
/* Disks and CD-ROM drives: their back-ends, their places on the controllers, and the order the firmware tries them in. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
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

int pc_drive_open(struct pc_disks *d, unsigned n, struct err *e)
{
	const struct pc_disk *disk = &d->disk[n];
	struct pc_drive *drive = &d->drive[n];
	struct block_config config = { .spec = disk->spec, .read_only = disk->cdrom, .files = d->files };
	int r;

	*drive = (struct pc_drive){ .ide = -1, .ahci = -1, .disks = d, .removed = disk->removed };
	if (!disk->spec || disk->removed)
		return 0;
	r = block_open(&drive->block, &config, e);
	return r ? err_prefix(e, "%s %s", disk->cdrom ? "--cdrom" : "--disk", disk->spec) : 0;
}

int pc_disks_open(struct pc_disks *d, const struct pc_config *config, struct err *e)
{
	bool taken[IDE_PLACES] = { false };
	int ports = 0;

	d->config = config;
	memcpy(d->disk, config->disk, sizeof(d->disk));
	for (unsigned i = 0; i < config->ndisks; i++) {
		const struct pc_disk *disk = &d->disk[i];
		int r = pc_drive_open(d, i, e);

		d->count = i + 1;
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

/* ---- what is said of one */

/* Take "KEY=..." out of a disk's description: ours, not the back-end's. The value in `value`; false: not there. */
static bool disk_key(char *spec, const char *key, char *value, size_t size)
{
	size_t len = strlen(key);

	for (char *at = spec; *at;) {
		char *end = strchrnul(at, ',');

		while (*end && end[1] == ',') /* doubled: within the value */
			end = strchrnul(end + 2, ',');
		if (!strncmp(at, key, len) && at[len] == '=') {
			snprintf(value, size, "%.*s", (int)(end - at - (ptrdiff_t)len - 1), at + len + 1);
			if (*end)
				memmove(at, end + 1, strlen(end));
			else
				*(at > spec ? at - 1 : at) = 0;
			return true;
		}
		at = *end ? end + 1 : end;
	}
	return false;
}

static int disk_number(const char *key, const char *value, unsigned min, unsigned max, unsigned *out, struct err *e)
{
	size_t digits = strspn(value, "0123456789");

	if (!digits || value[digits])
		return err_set(e, EINVAL, "%s=%s: is no number", key, value);
	*out = digits > 4 ? ~0u : (unsigned)atoi(value);
	return *out < min || *out > max ? err_set(e, ERANGE, "%s=%s: must be from %u to %u", key, value, min, max) : 0;
}

int pc_id_check(const char *id, struct err *e)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";

	return *id && strlen(id) < PC_ID && !id[strspn(id, allowed)] ? 0 :
		       err_set(e, EINVAL, "id=%.40s: 1 to %d letters, digits, '-', '_', '.'", id, PC_ID - 1);
}

int pc_disk_parse(struct pc_disk *d, char *spec, struct err *e)
{
	char value[64];

	*d = (struct pc_disk){ .spec = spec };
	if (!strcmp(spec, PC_REMOVED)) {
		d->removed = true;
		d->bus = PC_DISK_VIRTIO;
		return 0;
	}
	if (disk_key(spec, "bus", value, sizeof(value))) {
		if (!strcmp(value, "virtio"))
			d->bus = PC_DISK_VIRTIO;
		else if (!strcmp(value, "mmio"))
			d->bus = PC_DISK_MMIO;
		else if (!strcmp(value, "ahci"))
			d->bus = PC_DISK_AHCI;
		else if (strcmp(value, "ide"))
			return err_set(e, EINVAL, "bus=%s does not exist; there are ide, ahci, virtio and mmio", value);
	}
	if (disk_key(spec, "serial", value, sizeof(value))) {
		if (strlen(value) >= sizeof(d->serial) || d->bus == PC_DISK_IDE)
			return err_set(e, EINVAL, "serial=%s: 20 characters at most, not for bus=ide", value);
		strcpy(d->serial, value);
	}
	if (disk_key(spec, "queues", value, sizeof(value)) && disk_number("queues", value, 1, 16, &d->queues, e))
		return -1;
	if (disk_key(spec, "id", value, sizeof(value))) {
		if (pc_id_check(value, e))
			return -1;
		snprintf(d->id, sizeof(d->id), "%.31s", value);
	}
	if (disk_key(spec, "slot", value, sizeof(value))) {
		if (d->bus != PC_DISK_VIRTIO)
			return err_set(e, EINVAL, "slot= is for bus=virtio");
		return disk_number("slot", value, 2, PC_SLOTS - 1, &d->slot, e);
	}
	return 0;
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

	for (unsigned i = 0; i < d->count; i++) {
		struct ide_drive_config *c;

		if (d->drive[i].ide < 0)
			continue;
		c = &drive[d->drive[i].ide];
		*c = (struct ide_drive_config){ .present = true, .cdrom = d->disk[i].cdrom,
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

	for (unsigned i = 0; i < d->count; i++) {
		const struct pc_disk *disk = &d->disk[i];
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
	struct block_config config = { .spec = spec, .read_only = true, .files = d->files };
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
	for (unsigned i = 0; i < d->count; i++) {
		size_t used = strlen(text);
		int place = d->drive[i].ide;

		if (d->drive[i].slot && kind == PC_BOOT_DISK)
			snprintf(text + used, size - used, "%s/pci@i0cf8/scsi@%x/disk@0,0", used ? "\n" : "",
				 (unsigned)d->drive[i].slot);
		if (place >= 0 && d->disk[i].cdrom == (kind == PC_BOOT_CDROM) && kind != PC_BOOT_NETWORK)
			snprintf(text + used, size - used, "%s/pci@i0cf8/ide@1,1/drive@%d/disk@%d", used ? "\n" : "",
				 place >> 1, place & 1);
		if (d->drive[i].ahci >= 0 && d->disk[i].cdrom == (kind == PC_BOOT_CDROM) && kind != PC_BOOT_NETWORK)
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
