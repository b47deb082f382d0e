/* SPDX-License-Identifier: Apache-2.0 */
/* The PC board from inside: what pc.c makes, for the files that show it (pc-display.c) and change it (pc-control.c). */
#ifndef BOARD_PC_PRIVATE_H
#define BOARD_PC_PRIVATE_H

#include <pthread.h>
#include "board/private.h"
#include "dev/pc-devices.h"

#define WIRES 16
#define UARTS 4
#define PIRQ_SOURCE 8 /* sources of a wire: the devices' own first, then the PIRQs routed to it */
#define PCI_HIGH_ALIGN (1ull << 30)
#define PCI_HIGH_SIZE (32ull << 30)

struct pc_wire {
	struct pc *pc;
	pthread_mutex_t lock;
	uint32_t sources;
	struct irq_line pic, ioapic;
};

struct pc {
	struct device device; /* first: the vm's list holds it */
	struct vm *vm;
	const struct pc_config *config;
	struct lapic_bus *lapic_bus;
	struct device *pic, *ioapic, *rtc, *acpi_pm, *reset_port, *host, *piix, *hpet, *fw_cfg, *i8042, *vga;
	struct chr *debug;
	struct terminal *terminal;
	struct vnc *vnc;
	struct device shown; /* the last one: who looks goes before what is looked at */
	struct pc_disks disks;
	struct virtio_board virtio;
	struct pc_nets nets;
	struct pc_plug plug;
	struct acpi_config acpi_config;
	struct smbios_config smbios_config;
	uint8_t smbios[32 + SMBIOS_SIZE]; /* anchor and tables */
	struct firmware_config firmware;
	struct pci_bus *pci;
	struct chr *serial[UARTS];
	struct pc_wire wire[WIRES];
	struct power_ops power;
	struct boot_map map;
	struct boot_image *boot;
	uint64_t rom_start; /* of the firmware */
	uint64_t rom_offset; /* RAM offset of the firmware's last 128 KiB, ~0: none */
	uint8_t acpi[ACPI_SIZE];
	uint64_t rsdp;
	uint8_t *font; /* of the display, when there is no firmware to load it; NULL: none */
};

/* ---- pc.c */

int pc_add(struct pc *pc, struct device *d); /* -1: it could not be made */
void pc_console_leave(void *opaque);

/* ---- pc-display.c */

int pc_display(struct pc *pc, struct device_env *env, struct err *e); /* the adapter */
int pc_show(struct pc *pc, struct device_env *env, struct err *e);    /* where it is seen */

#endif
