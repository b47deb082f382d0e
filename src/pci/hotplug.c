/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hot-plug controller: four registers of 32 bits, a bit for each slot of bus 0, and an event (GPE 1) that asks the guest to
 * look at them. The DSDT's methods are their only reader (board/acpi-pci.c).
 *
 *	0 came     slots with a new card; reading clears
 *	4 go       slots whose card is asked back; reading clears
 *	8 eject    writing a slot's bit says that the guest's drivers have let go of its card
 *	c          reads as zero
 *
 * A guest can only eject what it was asked for: `asked` remembers that until the card is gone. The card goes with all CPUs stopped,
 * before the CPU that wrote does its next instruction.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include "base/err.h"
#include "pci/hotplug.h"

#define CAME 0
#define GO 4
#define EJECT 8

struct hotplug_hw {
	uint32_t came, go, asked;
	uint32_t ejected; /* and not yet taken away */
};

struct hotplug {
	struct device device;
	struct hotplug_hw hw;
	struct pci_hotplug_config config;
	struct device_env env;
	struct stop_work work;
	pthread_mutex_t lock;
};

static uint32_t hotplug_register(struct hotplug *h, uint64_t at)
{
	uint32_t v = 0;

	if (at == CAME) {
		v = h->hw.came;
		h->hw.came = 0;
	} else if (at == GO) {
		v = h->hw.go;
		h->hw.go = 0;
	}
	return v;
}

static uint64_t hotplug_read(void *opaque, uint64_t offset, unsigned size)
{
	struct hotplug *h = opaque;
	uint32_t v;

	if (size != 4)
		return 0;
	pthread_mutex_lock(&h->lock);
	v = hotplug_register(h, offset);
	pthread_mutex_unlock(&h->lock);
	return v;
}

static void hotplug_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct hotplug *h = opaque;
	bool any;

	if (offset != EJECT || size != 4)
		return;
	pthread_mutex_lock(&h->lock);
	h->hw.ejected |= (uint32_t)value & h->hw.asked;
	any = h->hw.ejected;
	pthread_mutex_unlock(&h->lock);
	if (any)
		env_stopped(&h->env, &h->work);
}

static const struct io_ops hotplug_io = { hotplug_read, hotplug_write, 4, 4 };

/* All CPUs are stopped. */
static void take_away(struct hotplug *h, uint32_t slots)
{
	for (unsigned slot = 0; slot < 32; slot++) {
		if (!(slots & BIT(slot)))
			continue;
		pthread_mutex_lock(&h->lock);
		h->hw.asked &= ~(uint32_t)BIT(slot);
		h->hw.go &= ~(uint32_t)BIT(slot);
		h->hw.ejected &= ~(uint32_t)BIT(slot);
		pthread_mutex_unlock(&h->lock);
		h->config.gone(h->config.opaque, slot);
	}
}

static void hotplug_stopped(void *opaque)
{
	struct hotplug *h = opaque;
	uint32_t slots;

	pthread_mutex_lock(&h->lock);
	slots = h->hw.ejected;
	pthread_mutex_unlock(&h->lock);
	take_away(h, slots);
}

void pci_hotplug_came(struct device *d, unsigned slot)
{
	struct hotplug *h = container_of(d, struct hotplug, device);

	pthread_mutex_lock(&h->lock);
	h->hw.came |= (uint32_t)BIT(slot & 31);
	h->hw.go &= ~(uint32_t)BIT(slot & 31);
	pthread_mutex_unlock(&h->lock);
	h->config.event(h->config.opaque);
}

void pci_hotplug_ask(struct device *d, unsigned slot)
{
	struct hotplug *h = container_of(d, struct hotplug, device);

	pthread_mutex_lock(&h->lock);
	h->hw.go |= (uint32_t)BIT(slot & 31);
	h->hw.asked |= (uint32_t)BIT(slot & 31);
	h->hw.came &= ~(uint32_t)BIT(slot & 31);
	pthread_mutex_unlock(&h->lock);
	h->config.event(h->config.opaque);
}

void pci_hotplug_machine_reset(struct device *d)
{
	struct hotplug *h = container_of(d, struct hotplug, device);

	take_away(h, h->hw.asked);
	h->hw = (struct hotplug_hw){ 0 };
}

/* ---- the device */

static int hotplug_check(const void *opaque, struct err *e)
{
	const struct hotplug_hw *hw = opaque;

	return hw->ejected & ~hw->asked ? err_set(e, EINVAL, "pci-hotplug: a slot is ejected that nobody asked for") : 0;
}

static const struct state_field fields[] = {
	STATE_INT(struct hotplug_hw, came), STATE_INT(struct hotplug_hw, go), STATE_INT(struct hotplug_hw, asked),
	STATE_INT(struct hotplug_hw, ejected),
};

static const struct state_desc hotplug_state = {
	.name = "pci-hotplug", .version = 1, .size = sizeof(struct hotplug_hw),
	.fields = fields, .nfields = ARRAY_LEN(fields), .check = hotplug_check,
};

static void hotplug_destroy(struct device *d)
{
	struct hotplug *h = container_of(d, struct hotplug, device);

	pthread_mutex_destroy(&h->lock);
	free(h);
}

/* Not reset with the others: what is asked back goes then, and the list of devices is being walked. */
static const struct device_ops hotplug_ops = { .state = &hotplug_state, .destroy = hotplug_destroy };

struct device *pci_hotplug_create(struct device_env *env, const struct pci_hotplug_config *config, struct err *e)
{
	struct hotplug *h = calloc(1, sizeof(*h));

	if (!h) {
		err_set(e, ENOMEM, "no memory for the hot-plug controller");
		return NULL;
	}
	h->device = (struct device){ .ops = &hotplug_ops, .hw = &h->hw };
	h->config = *config;
	h->env = *env;
	h->work = (struct stop_work){ .fn = hotplug_stopped, .opaque = h };
	pthread_mutex_init(&h->lock, NULL);
	if (ports_map(env->ports, PCI_HOTPLUG_PORT, PCI_HOTPLUG_PORTS, &hotplug_io, h, "pci-hotplug", e)) {
		hotplug_destroy(&h->device);
		return NULL;
	}
	return &h->device;
}
