/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the firmware is told through the configuration device: memory, processors, ACPI tables with the script that places
 * them, boot order, menu. File names and formats are those SeaBIOS and OVMF read.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "board/private.h"
#include "dev/fw-cfg.h"

#define TABLES "etc/acpi/tables"
#define RSDP "etc/acpi/rsdp"

/* ---- the script that places the ACPI tables: entries of 128 bytes */

enum { LOAD_ALLOCATE = 1, LOAD_POINTER = 2, LOAD_CHECKSUM = 3 };
enum { ZONE_HIGH = 1, ZONE_FSEG = 2 };
#define ENTRY 128u
#define NAME 56u

struct script {
	uint8_t data[64 * ENTRY];
	unsigned count;
};

static uint8_t *script_entry(struct script *s, uint32_t command, const char *file)
{
	uint8_t *p = s->data + s->count * ENTRY;

	CHECK(s->count < 64);
	s->count++;
	put32(p, command);
	snprintf((char *)p + 4, NAME, "%s", file);
	return p + 4 + NAME;
}

static void script_allocate(struct script *s, const char *file, uint32_t align, uint8_t zone)
{
	uint8_t *p = script_entry(s, LOAD_ALLOCATE, file);

	put32(p, align);
	p[4] = zone;
}

/* Add the address of the tables to what is at `at` in the file. */
static void script_pointer(struct script *s, const char *file, uint32_t at, unsigned width)
{
	uint8_t *p = script_entry(s, LOAD_POINTER, file);

	snprintf((char *)p, NAME, "%s", TABLES);
	put32(p + NAME, at);
	p[NAME + 4] = (uint8_t)width;
}

static void script_checksum(struct script *s, const char *file, uint32_t at, uint32_t start, uint32_t size)
{
	uint8_t *p = script_entry(s, LOAD_CHECKSUM, file);

	put32(p, at);
	put32(p + 4, start);
	put32(p + 8, size);
}

/* The script sums up to zero only what holds a zero where the sum goes. */
static int acpi_files(struct firmware_config *c, struct err *e)
{
	struct script *s = calloc(1, sizeof(*s));
	struct acpi_links links;
	uint8_t *buf = malloc(ACPI_SIZE), rsdp[RSDP_SIZE];
	int r = s && buf ? acpi_build_movable(buf, rsdp, &links, c->acpi, e) : err_set(e, ENOMEM, "no memory for ACPI");

	if (r)
		goto out;
	script_allocate(s, RSDP, 16, ZONE_FSEG);
	script_allocate(s, TABLES, 64, ZONE_HIGH);
	for (unsigned i = 0; i < links.npointers; i++)
		script_pointer(s, TABLES, links.pointer[i].at, links.pointer[i].width);
	for (unsigned i = 0; i < links.nsums; i++) {
		buf[links.sum[i].at + 9] = 0;
		script_checksum(s, TABLES, links.sum[i].at + 9, links.sum[i].at, links.sum[i].size);
	}
	script_pointer(s, RSDP, 16, 4);
	script_pointer(s, RSDP, 24, 8);
	rsdp[8] = rsdp[32] = 0;
	script_checksum(s, RSDP, 8, 0, 20);
	script_checksum(s, RSDP, 32, 0, RSDP_SIZE);
	r = fw_cfg_add_file(c->device, TABLES, buf, links.size, e);
	if (!r)
		r = fw_cfg_add_file(c->device, RSDP, rsdp, sizeof(rsdp), e);
	if (!r)
		r = fw_cfg_add_file(c->device, "etc/table-loader", s->data, s->count * ENTRY, e);
out:
	free(buf);
	free(s);
	return r;
}

/* The firmware has chosen its own place for the power management ports, and routed the PIRQs: so say the tables. */
static void acpi_refresh(void *opaque, const char *name, uint8_t *data, uint32_t size)
{
	struct firmware_config *c = opaque;
	uint8_t *buf, rsdp[RSDP_SIZE];
	struct acpi_links links;

	if (strcmp(name, TABLES))
		return;
	buf = malloc(ACPI_SIZE);
	if (!buf)
		return;
	c->update(c->opaque, c->acpi);
	if (!acpi_build_movable(buf, rsdp, &links, c->acpi, NULL) && links.size == size) {
		for (unsigned i = 0; i < links.nsums; i++)
			buf[links.sum[i].at + 9] = 0;
		memcpy(data, buf, size);
	}
	free(buf);
}

/* ---- the rest */

static int memory_files(struct firmware_config *c, struct err *e)
{
	uint64_t low = MIN(c->memory, PC_LOW_RAM_END), high = c->memory - low;
	uint8_t map[2 * 20];
	unsigned n = 1;
	int r;

	put64(map, 0);
	put64(map + 8, low);
	put32(map + 16, E820_RAM);
	if (high) {
		put64(map + 20, PC_HIGH_RAM);
		put64(map + 28, high);
		put32(map + 36, E820_RAM);
		n = 2;
	}
	r = fw_cfg_add_file(c->device, "etc/e820", map, n * 20, e);
	return r ? r : fw_cfg_add(c->device, FW_CFG_RAM, &c->memory, 8, e);
}

static int small_items(struct firmware_config *c, struct err *e)
{
	uint16_t cpus = (uint16_t)c->acpi->cpus, menu = c->menu, graphic = !c->display;
	uint64_t port = 0x3f8, wait = c->menu_wait_ms;
	int r = fw_cfg_add(c->device, FW_CFG_CPUS, &cpus, 2, e);

	if (!r)
		r = fw_cfg_add(c->device, FW_CFG_MAX_CPUS, &cpus, 2, e);
	if (!r)
		r = fw_cfg_add(c->device, FW_CFG_BOOT_MENU, &menu, 2, e);
	if (!r)
		r = fw_cfg_add(c->device, FW_CFG_NO_GRAPHIC, &graphic, 2, e);
	if (!r && c->menu)
		r = fw_cfg_add_file(c->device, "etc/boot-menu-wait", &wait, 8, e);
	/* without a screen SeaBIOS shows its text on the first serial port, and takes keys from there */
	if (!r && !c->display && c->acpi->nserial && c->acpi->serial[0])
		r = fw_cfg_add_file(c->device, "etc/sercon-port", &port, 8, e);
	if (!r && c->boot_order[0])
		r = fw_cfg_add_file(c->device, "bootorder", c->boot_order, (uint32_t)strlen(c->boot_order) + 1, e);
	return r;
}

static int smbios_files(struct firmware_config *c, struct err *e)
{
	uint8_t *tables = malloc(SMBIOS_SIZE), anchor[SMBIOS_ANCHOR];
	uint32_t size;
	int r = tables ? smbios_build(tables, anchor, &size, 0, c->smbios, e) : err_set(e, ENOMEM, "no memory for SMBIOS");

	if (!r)
		r = fw_cfg_add_file(c->device, "etc/smbios/smbios-tables", tables, size, e);
	if (!r)
		r = fw_cfg_add_file(c->device, "etc/smbios/smbios-anchor", anchor, sizeof(anchor), e);
	free(tables);
	return r;
}

int firmware_config_fill(struct firmware_config *c, struct err *e)
{
	int r = memory_files(c, e);

	if (!r)
		r = small_items(c, e);
	if (!r)
		r = acpi_files(c, e);
	if (!r)
		r = smbios_files(c, e);
	if (!r)
		fw_cfg_set_refresh(c->device, acpi_refresh, c);
	return r;
}
