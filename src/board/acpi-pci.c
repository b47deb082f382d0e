/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DSDT's part about PCI: the host bridge, what it passes on, and where the pins of each slot lead. With the IOAPIC in
 * use the four wires have pins 16 to 19 for themselves (level, as MADT's default for them says); with the 8259s they are
 * on the ISA interrupts the PIIX routes them to, which is as the firmware left it and is not changed later.
 *
 * Cards come and go (pci/hotplug.c): event 1 has the guest read both registers and look at the slots they name.
 */
#include "board/private.h"
#include "pci/hotplug.h"

#define SLOTS 32
#define FIRST_PIN 16
#define IO_ALL 3	  /* flags of an I/O window: ISA and other addresses */
#define MEMORY_RW 1	  /* of a memory window: read, write, not cacheable */
#define MEMORY_PREFETCH 7

static void routing(struct aml *a, const char *name, const uint8_t irq[4])
{
	unsigned all = aml_name_package(a, name, SLOTS * 4);

	for (unsigned slot = 0; slot < SLOTS; slot++) {
		for (unsigned pin = 0; pin < 4; pin++) {
			unsigned one = aml_package(a, 4);

			aml_integer(a, slot << 16 | 0xffff);
			aml_integer(a, pin);
			aml_integer(a, 0);
			aml_integer(a, irq[pci_pirq(slot, pin + 1)]);
			aml_end(a, one);
		}
	}
	aml_end(a, all);
}

static void windows(struct aml *a, const struct acpi_config *config)
{
	struct aml_crs crs = { 0 };

	aml_crs_window(&crs, 2, 2, 0, 0, 0xff);
	aml_crs_io(&crs, 0xcf8, 8);
	/* without the hot-plug controller: no card is to be put there */
	aml_crs_window(&crs, 2, 1, IO_ALL, 0, 0xcf7);
	aml_crs_window(&crs, 2, 1, IO_ALL, 0xd00, PCI_HOTPLUG_PORT - 1);
	aml_crs_window(&crs, 2, 1, IO_ALL, PCI_HOTPLUG_PORT + PCI_HOTPLUG_PORTS, 0xffff);
	aml_crs_window(&crs, 4, 0, MEMORY_RW, 0xa0000, 0xbffff);
	aml_crs_window(&crs, 4, 0, MEMORY_RW, config->pci_low, config->pci_low_end - 1);
	if (config->pci_high_end > config->pci_high)
		aml_crs_window(&crs, 8, 0, MEMORY_PREFETCH, config->pci_high, config->pci_high_end - 1);
	aml_name_crs(a, &crs);
}

static void slot_name(char name[5], unsigned slot)
{
	static const char digit[] = "0123456789ABCDEF";

	name[0] = 'S';
	name[1] = digit[slot >> 4];
	name[2] = digit[slot & 15];
	name[3] = '_';
	name[4] = 0;
}

/* If (LocalN & bit) Notify (Sxx, what) */
static void slot_notify(struct aml *a, uint8_t local, unsigned slot, uint8_t what)
{
	char name[5];
	unsigned branch;

	slot_name(name, slot);
	aml_byte(a, 0xa0);
	branch = aml_begin(a);
	aml_byte(a, 0x7b); /* And (LocalN, bit), into nothing */
	aml_byte(a, local);
	aml_integer(a, BIT(slot));
	aml_byte(a, 0);
	aml_byte(a, 0x86);
	aml_name(a, name);
	aml_integer(a, what);
	aml_end(a, branch);
}

#define FIRST_SLOT 2 /* of those where cards go: 0 and 1 are the chipset's */
#define LOCAL0 0x60
#define LOCAL1 0x61

static void slots(struct aml *a)
{
	unsigned mark;

	aml_region_io(a, "PHPR", PCI_HOTPLUG_PORT, PCI_HOTPLUG_PORTS);
	aml_field32(a, "PHPR", (const char *const[]){ "PCAM", "PCGO", "PCEJ" }, 3);
	for (unsigned slot = FIRST_SLOT; slot < SLOTS; slot++) {
		char name[5];
		unsigned device, method;

		slot_name(name, slot);
		device = aml_device(a, name);
		aml_name_integer(a, "_ADR", slot << 16);
		aml_name_integer(a, "_SUN", slot);
		method = aml_method(a, "_EJ0", 1);
		aml_byte(a, 0x70); /* Store (bit, PCEJ) */
		aml_integer(a, BIT(slot));
		aml_name(a, "PCEJ");
		aml_end(a, method);
		aml_end(a, device);
	}
	mark = aml_method(a, "PLUG", 8); /* one at a time */
	aml_byte(a, 0x70); /* Store (PCAM, Local0) */
	aml_name(a, "PCAM");
	aml_byte(a, LOCAL0);
	aml_byte(a, 0x70);
	aml_name(a, "PCGO");
	aml_byte(a, LOCAL1);
	for (unsigned slot = FIRST_SLOT; slot < SLOTS; slot++) {
		slot_notify(a, LOCAL0, slot, 1); /* look whether something is there */
		slot_notify(a, LOCAL1, slot, 3); /* eject */
	}
	aml_end(a, mark);
}

/* The edge event 1: _E01 */
static void slots_event(struct aml *a)
{
	unsigned scope = aml_scope(a, "\\_GPE"), method = aml_method(a, "_E01", 0);

	aml_bytes(a, "\\\x2f\x03_SB_PCI0PLUG", 15);
	aml_end(a, method);
	aml_end(a, scope);
}

void dsdt_pci(struct aml *a, const struct acpi_config *config)
{
	static const uint8_t pins[4] = { FIRST_PIN, FIRST_PIN + 1, FIRST_PIN + 2, FIRST_PIN + 3 };
	unsigned scope, device, method, branch;

	/* the operating system says which interrupt controller it uses: 1 is the IOAPIC */
	aml_name_integer(a, "\\PICM", 0);
	method = aml_method(a, "\\_PIC", 1);
	aml_byte(a, 0x70); /* Store (Arg0, PICM) */
	aml_byte(a, 0x68);
	aml_name(a, "PICM");
	aml_end(a, method);

	scope = aml_scope(a, "\\_SB_");
	device = aml_device(a, "PCI0");
	aml_name_eisaid(a, "_HID", "PNP0A03");
	aml_name_integer(a, "_UID", 0);
	windows(a, config);
	routing(a, "PRTA", pins);
	routing(a, "PRTP", config->pirq);
	method = aml_method(a, "_PRT", 0);
	branch = aml_if(a, "PICM");
	aml_return_name(a, "PRTA");
	aml_end(a, branch);
	aml_return_name(a, "PRTP");
	aml_end(a, method);
	slots(a);
	aml_end(a, device);
	aml_end(a, scope);
	slots_event(a);
}
