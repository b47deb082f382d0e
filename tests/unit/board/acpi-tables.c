/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes the ACPI tables of several machines, each as a file, for a foreign compiler to judge.
 *
 * usage: acpi-tables FOLDER     makes FOLDER/MACHINE-SIGNATURE.dat
 */
#include <stdio.h>
#include <string.h>
#include "base/err.h"
#include "board/private.h"

static int write_table(const char *folder, unsigned machine, const uint8_t *table)
{
	char path[4096];
	FILE *f;
	bool good;

	snprintf(path, sizeof(path), "%s/%u-%.4s.dat", folder, machine, (const char *)table);
	f = fopen(path, "we");
	if (!f)
		return perror(path), 1;
	good = fwrite(table, 1, get32(table + 4), f) == get32(table + 4);
	return fclose(f) || !good;
}

/* The tables of the XSDT, and the DSDT that the FADT names. */
static int write_machine(const char *folder, unsigned machine, const struct acpi_config *config)
{
	static uint8_t buf[ACPI_SIZE];
	struct err e = { 0 };
	uint64_t rsdp;
	const uint8_t *xsdt;

	memset(buf, 0, sizeof(buf));
	if (acpi_build(buf, config, &rsdp, &e))
		return fprintf(stderr, "machine %u: %s\n", machine, e.text), 1;
	xsdt = buf + (get64(buf + (rsdp - ACPI_BASE) + 24) - ACPI_BASE);
	for (uint32_t i = 36; i < get32(xsdt + 4); i += 8) {
		const uint8_t *t = buf + (get64(xsdt + i) - ACPI_BASE);

		if (write_table(folder, machine, t) ||
		    (!memcmp(t, "FACP", 4) && write_table(folder, machine, buf + (get32(t + 40) - ACPI_BASE))))
			return 1;
	}
	return write_table(folder, machine, xsdt);
}

int main(int argc, char **argv)
{
	static const char *const serial[] = { "null", "null", NULL, "null" };
	const struct acpi_config least = { .cpus = 1, .pm_base = 0x600, .pirq = { 10, 10, 11, 11 }, .pci_low = 0xc0000000,
					   .pci_low_end = 0xfec00000, .pci_high = 1ull << 32, .pci_high_end = 1ull << 32 };
	struct acpi_config most = { .cpus = 64, .serial = serial, .nserial = ARRAY_LEN(serial), .pm_base = 0xb000, .hpet = true,
				    .vga = true, .pirq = { 10, 10, 11, 11 }, .nmmio = 3, .pci_low = 0x80000000,
				    .pci_low_end = 0xfec00000, .pci_high = 1ull << 39, .pci_high_end = (1ull << 39) + (32ull << 30) };

	return argc != 2 || write_machine(argv[1], 1, &least) || write_machine(argv[1], 2, &most);
}
