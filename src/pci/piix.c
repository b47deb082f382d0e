/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intel PIIX (82371SB and 82371AB data sheets): the ISA bridge with its routing of PIRQ A to D to ISA interrupts, and the
 * power management function, whose block of ports is dev/acpi-pm.c. The SMI command port keeps its byte and starts nothing:
 * there is no system management mode, ACPI is always on, and the register firmware looks at says that this is done.
 *
 * The wires: a PIRQ goes to the ISA interrupt its register names and, always, to an IOAPIC pin of its own. p->lock is
 * taken with the bus's wire lock held.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include "pci/chipset.h"
#include "pci/private.h"

#define PIRQ_ROUTE 0x60
#define PIRQ_OFF 0x80
#define PM_BASE 0x40
#define PM_ENABLE 0x80
#define APM_PORT 0xb2

struct piix_hw {
	uint8_t apm[2]; /* command, status */
};

struct piix {
	struct device device;
	struct piix_hw hw;
	struct pci_function isa, pm;
	struct piix_config config;
	pthread_mutex_t lock;
	bool level[4];
	uint8_t routed[4]; /* the ISA interrupt driven; 0: none */
	uint16_t pm_base;  /* as mapped */
};

/* ---- PIRQs */

/* Interrupts 0, 1, 2, 8 and 13 cannot be chosen. */
static uint8_t route(const struct piix *p, unsigned n)
{
	uint8_t v = p->isa.hw.config[PIRQ_ROUTE + n];

	return v & PIRQ_OFF || !(0xdef8 >> (v & 15) & 1) ? 0 : v & 15;
}

static void isa_set(struct piix *p, unsigned n, int level)
{
	if (p->routed[n])
		p->config.isa(p->config.opaque, p->routed[n], n, level);
}

static void pirq_set(void *opaque, unsigned n, int level)
{
	struct piix *p = opaque;

	pthread_mutex_lock(&p->lock);
	p->level[n] = level;
	isa_set(p, n, level);
	irq_set(&p->config.direct[n], level);
	pthread_mutex_unlock(&p->lock);
}

static void reroute(struct piix *p)
{
	pthread_mutex_lock(&p->lock);
	for (unsigned n = 0; n < 4; n++) {
		if (p->routed[n] == route(p, n))
			continue;
		isa_set(p, n, 0);
		p->routed[n] = route(p, n);
		isa_set(p, n, p->level[n]);
	}
	pthread_mutex_unlock(&p->lock);
}

static void isa_written(void *opaque, unsigned offset, unsigned size)
{
	reroute(opaque);
}

static void isa_mapping(void *opaque)
{
	reroute(opaque); /* after a reset or a load */
}

void piix_routing(struct device *d, uint8_t irq[4])
{
	struct piix *p = container_of(d, struct piix, device);

	for (unsigned n = 0; n < 4; n++)
		irq[n] = route(p, n);
}

void piix_set_routing(struct device *d, const uint8_t irq[4])
{
	struct piix *p = container_of(d, struct piix, device);

	for (unsigned n = 0; n < 4; n++)
		p->isa.hw.config[PIRQ_ROUTE + n] = irq[n];
	reroute(p);
}

/* ---- power management */

static uint16_t pm_place(const struct piix *p)
{
	return p->pm.hw.config[PM_ENABLE] & 1 ? (uint16_t)(config32(&p->pm, PM_BASE) & 0xffc0) : 0;
}

uint16_t piix_pm_base(struct device *d)
{
	return pm_place(container_of(d, struct piix, device));
}

static void pm_written(void *opaque, unsigned offset, unsigned size)
{
	struct piix *p = opaque;

	if (pm_place(p) != p->pm_base)
		pci_request_mapping(&p->pm);
}

static void pm_mapping(void *opaque)
{
	struct piix *p = opaque;

	if (pm_place(p) == p->pm_base)
		return;
	p->pm_base = pm_place(p);
	p->config.pm_moved(p->config.opaque, p->pm_base);
}

static uint64_t apm_read(void *opaque, uint64_t offset, unsigned size)
{
	return ((struct piix *)opaque)->hw.apm[offset & 1];
}

static void apm_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	((struct piix *)opaque)->hw.apm[offset & 1] = (uint8_t)value;
}

static const struct io_ops apm_io = { apm_read, apm_write, 1, 1 };
static const struct pci_ops isa_ops = { .config_written = isa_written, .mapping = isa_mapping };
static const struct pci_ops pm_ops = { .config_written = pm_written, .mapping = pm_mapping };

/* ---- the device */

static const struct state_field fields[] = { STATE_INTS(struct piix_hw, apm) };

static const struct state_desc piix_state = {
	.name = "piix", .version = 1, .size = sizeof(struct piix_hw), .fields = fields, .nfields = ARRAY_LEN(fields),
};

static void piix_reset(struct device *d, enum reset_kind kind)
{
	container_of(d, struct piix, device)->hw = (struct piix_hw){ 0 };
}

static void piix_destroy(struct device *d)
{
	struct piix *p = container_of(d, struct piix, device);

	pci_function_dispose(&p->isa);
	pci_function_dispose(&p->pm);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static const struct device_ops device_ops = { .state = &piix_state, .reset = piix_reset, .destroy = piix_destroy };

static void isa_init(struct piix *p)
{
	static const struct pci_identity id = { .vendor = 0x8086, .device = 0x7000, .subsystem_vendor = 0x1af4,
						.subsystem = 0x1100, .class_code = 0x060100 };

	pci_function_init(&p->isa, &id, &isa_ops, p);
	pci_set_register(&p->isa, PCI_COMMAND, 2, 0x0007, 0);
	pci_set_register(&p->isa, PCI_HEADER_TYPE, 1, 0x80, 0);
	pci_set_register(&p->isa, 0x4c, 4, 0x0003004d, 0xffff00ff); /* ISA timing, XBCS, APIC base */
	pci_set_register(&p->isa, PIRQ_ROUTE, 4, 0x80808080, 0x8f8f8f8f);
	pci_set_register(&p->isa, 0x69, 1, 0x02, 0xfe); /* top of memory */
	pci_set_register(&p->isa, 0x80, 1, 0, 0x7f);
	pci_set_register(&p->isa, 0x82, 1, 0, 0x0d);
}

static void pm_init(struct piix *p)
{
	static const struct pci_identity id = { .vendor = 0x8086, .device = 0x7113, .subsystem_vendor = 0x1af4,
						.subsystem = 0x1100, .class_code = 0x068000, .revision = 3, .pin = 1 };

	pci_function_init(&p->pm, &id, &pm_ops, p);
	pci_set_register(&p->pm, PCI_COMMAND, 2, 0, 0x0001);
	pci_set_register(&p->pm, PM_BASE, 4, p->config.pm_base | 1u, 0xffc0);
	pci_set_register(&p->pm, PM_ENABLE, 1, 1, 1);
	pci_set_register(&p->pm, 0x58, 4, 0x02000000, 0); /* the SMI command port is set up already */
	pci_set_register(&p->pm, 0x90, 4, 1, 0xfff0); /* SMBus host: no device is on it */
	pci_set_register(&p->pm, 0xd2, 1, 0, 0x0f);
	pci_set_register(&p->pm, PCI_INTERRUPT_LINE, 1, 9, 0xff);
}

struct device *piix_create(struct pci_bus *bus, struct device_env *env, const struct piix_config *config, struct err *e)
{
	struct piix *p = calloc(1, sizeof(*p));

	if (!p) {
		err_set(e, ENOMEM, "no memory for the ISA bridge");
		return NULL;
	}
	p->device = (struct device){ .ops = &device_ops, .hw = &p->hw };
	p->config = *config;
	p->pm_base = config->pm_base;
	pthread_mutex_init(&p->lock, NULL);
	isa_init(p);
	pm_init(p);
	if (pci_attach(bus, &p->isa, PCI_DEVFN(1, 0), e) || pci_attach(bus, &p->pm, PCI_DEVFN(1, 3), e) ||
	    ports_map(env->ports, APM_PORT, 2, &apm_io, p, "apm", e)) {
		piix_destroy(&p->device);
		return NULL;
	}
	for (unsigned n = 0; n < 4; n++)
		pci_bus_set_pirq(bus, n, (struct irq_line){ .set = pirq_set, .opaque = p, .pin = n });
	return &p->device;
}
