/* SPDX-License-Identifier: Apache-2.0 */
/* Creation of the classic PC devices. Each is wired by board/pc.c; interrupt wires are arguments. */
#ifndef DEV_PC_DEVICES_H
#define DEV_PC_DEVICES_H

#include "dev/device.h"
#include "dev/lapic.h"

struct chr;

/* 16550A at port..port+7. */
struct device *uart_create(struct device_env *env, unsigned instance, uint16_t port,
			   struct irq_line irq, struct chr *chr, struct err *e);

/* The 8259 pair at 0x20, 0xa0 with ELCR at 0x4d0. */
struct device *pic_create(struct device_env *env, struct err *e);
struct irq_line pic_input(struct device *pic, unsigned irq); /* 0..15 */
void pic_set_output(struct device *pic, struct irq_line out);
bool pic_pending(void *pic);
int pic_take(void *pic); /* acknowledge: vector, or the spurious one */

/* IOAPIC with 24 pins at 0xfec00000. */
struct device *ioapic_create(struct device_env *env, struct lapic_bus *bus, struct err *e);
struct irq_line ioapic_input(struct device *ioapic, unsigned pin);
void ioapic_eoi(void *ioapic, uint8_t vector);

/* 8254 at 0x40-0x43 with port 0x61; channel 0 drives irq. */
struct device *pit_create(struct device_env *env, struct irq_line irq, struct err *e);

/* MC146818 RTC and CMOS at 0x70/0x71, started from the host's UTC time. */
struct device *rtc_create(struct device_env *env, struct irq_line irq, struct err *e);
void rtc_cmos_set(struct device *rtc, uint8_t index, uint8_t value);

/* ACPI power management: PM1 event/control, PM timer, GPE0 from base on; SCI is a level line. */
#define ACPI_PM_PORT 0x600
struct power_ops {
	void (*off)(void *opaque);   /* the guest powered itself off */
	void (*reset)(void *opaque); /* the guest asked for a reset */
	void (*exit)(void *opaque, int status); /* the exit port was written */
	void *opaque;
};
struct device *acpi_pm_create(struct device_env *env, struct irq_line sci,
			      const struct power_ops *power, struct err *e);
void acpi_pm_power_button(struct device *pm);
void acpi_pm_event(struct device *pm, unsigned n); /* general-purpose event n, 0 to 15, has come; any thread */
/* Its ports are at base from now on (0: nowhere). All CPUs are stopped. */
void acpi_pm_move(struct device *pm, uint16_t base);

/* Reset by ports 0xcf9 and 0x92. */
struct device *reset_port_create(struct device_env *env, const struct power_ops *power, struct err *e);
/* What answers to accesses of 0xcf8..0xcfb that are not PCI's. */
void reset_port_cf9(struct device *d, const struct io_ops **ops, void **opaque);
/* A write of v ends the VM with status (v << 1) | 1. */
struct device *exit_port_create(struct device_env *env, uint16_t port, const struct power_ops *power,
				struct err *e);
/* POST code port 0x80 and the debug consoles 0xe9 and (firmware's) 0x402, to chr, which may be NULL. */
struct device *debug_port_create(struct device_env *env, struct chr *chr, struct err *e);

#endif
