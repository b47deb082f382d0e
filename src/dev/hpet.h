/* SPDX-License-Identifier: Apache-2.0 */
/* High precision event timers at 0xfed00000. */
#ifndef DEV_HPET_H
#define DEV_HPET_H

#include "dev/device.h"

#define HPET_BASE 0xfed00000ull
#define HPET_ID 0x8086a201u /* revision 1, three timers of 64 bits, can replace PIT and clock */

struct hpet_wires {
	struct irq_line pit, clock; /* interrupts 0 and 8, in place of their owners */
	struct irq_line pin[4];	    /* IOAPIC 20 to 23 */
};
struct device *hpet_create(struct device_env *env, const struct hpet_wires *wires, struct err *e);
bool hpet_legacy(struct device *d); /* the PIT's and the clock's own wires lead nowhere */

#endif
