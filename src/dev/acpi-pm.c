/* SPDX-License-Identifier: Apache-2.0 */
/* ACPI power management: PM1a event and control, PM timer, one GPE block. Layout from ACPI_PM_PORT on. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "dev/pc-devices.h"

enum { PM1_STATUS = 0, PM1_ENABLE = 2, PM1_CONTROL = 4, PM_TIMER = 8, GPE_STATUS = 12, GPE_ENABLE = 14, PM_SIZE = 16 };

#define STATUS_TIMER 0x0001
#define STATUS_POWER_BUTTON 0x0100
#define STATUS_BITS 0x8d21
#define ENABLE_BITS 0x0721
#define CONTROL_SCI 0x0001
#define CONTROL_SLEEP 0x2000
#define SLEEP_TYPE(v) ((v) >> 10 & 7)
#define SLEEP_S5 5
#define TIMER_HZ 3579545u

struct pm_hw { /* saved */
	uint16_t status, enable, control;
	uint16_t gpe_status, gpe_enable;
};

struct pm {
	struct device device;
	struct pm_hw hw;
	pthread_mutex_t lock;
	struct irq_line sci;
	struct power_ops power;
	struct clock *clock;
	struct ports *ports;
};

static uint32_t timer_value(const struct pm *p)
{
	return (uint32_t)((unsigned __int128)clock_now(p->clock) * TIMER_HZ / 1000000000u);
}

static void update(struct pm *p)
{
	irq_set(&p->sci, (p->hw.status & p->hw.enable) || (p->hw.gpe_status & p->hw.gpe_enable));
}

static uint64_t pm_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pm *p = opaque;
	uint64_t v = 0;

	if (offset >= PM_TIMER && offset < PM_TIMER + 4)
		return (uint64_t)timer_value(p) >> 8 * (offset - PM_TIMER);
	pthread_mutex_lock(&p->lock);
	switch (offset & ~1ull) {
	case PM1_STATUS: v = p->hw.status; break;
	case PM1_ENABLE: v = p->hw.enable; break;
	case PM1_CONTROL: v = p->hw.control; break;
	case GPE_STATUS: v = p->hw.gpe_status; break;
	case GPE_ENABLE: v = p->hw.gpe_enable; break;
	}
	pthread_mutex_unlock(&p->lock);
	if (size == 4) /* two registers at once */
		v |= pm_read(opaque, offset + 2, 2) << 16;
	return v >> 8 * (offset & 1);
}

static void control_write(struct pm *p, uint16_t v)
{
	p->hw.control = v & (uint16_t)~CONTROL_SLEEP;
	if ((v & CONTROL_SLEEP) && SLEEP_TYPE(v) == SLEEP_S5 && p->power.off)
		p->power.off(p->power.opaque);
}

/* Byte writes change half a register. */
static uint16_t merged(uint16_t old, uint64_t offset, uint64_t value, unsigned size)
{
	if (size >= 2)
		return (uint16_t)value;
	return (uint16_t)(offset & 1 ? (old & 0x00ff) | (value & 0xff) << 8 : (old & 0xff00) | (value & 0xff));
}

static void pm_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pm *p = opaque;
	uint16_t v = size >= 2 ? (uint16_t)value : (uint16_t)((value & 0xff) << 8 * (offset & 1));

	pthread_mutex_lock(&p->lock);
	switch (offset & ~1ull) {
	case PM1_STATUS: p->hw.status &= (uint16_t)~v; break; /* write 1 to clear */
	case PM1_ENABLE: p->hw.enable = merged(p->hw.enable, offset, value, size) & ENABLE_BITS; break;
	case PM1_CONTROL: control_write(p, merged(p->hw.control, offset, value, size)); break;
	case GPE_STATUS: p->hw.gpe_status &= (uint16_t)~v; break;
	case GPE_ENABLE: p->hw.gpe_enable = merged(p->hw.gpe_enable, offset, value, size); break;
	}
	update(p);
	pthread_mutex_unlock(&p->lock);
	if (size == 4)
		pm_write(opaque, offset + 2, value >> 16, 2);
}

void acpi_pm_power_button(struct device *pm)
{
	struct pm *p = container_of(pm, struct pm, device);

	pthread_mutex_lock(&p->lock);
	p->hw.status |= STATUS_POWER_BUTTON;
	update(p);
	pthread_mutex_unlock(&p->lock);
}

static const struct io_ops io = { pm_read, pm_write, 1, 4 };

static const struct state_field fields[] = {
	STATE_INT(struct pm_hw, status), STATE_INT(struct pm_hw, enable), STATE_INT(struct pm_hw, control),
	STATE_INT(struct pm_hw, gpe_status), STATE_INT(struct pm_hw, gpe_enable),
};

static int check(const void *hw, struct err *e)
{
	const struct pm_hw *h = hw;

	if ((h->status & ~STATUS_BITS) || (h->enable & ~ENABLE_BITS) || (h->control & CONTROL_SLEEP))
		return err_set(e, EINVAL, "acpi-pm: register values that cannot be");
	return 0;
}

static const struct state_desc desc = {
	.name = "acpi-pm", .version = 1, .size = sizeof(struct pm_hw),
	.fields = fields, .nfields = ARRAY_LEN(fields), .check = check,
};

static void reset(struct device *d, enum reset_kind kind)
{
	struct pm *p = container_of(d, struct pm, device);

	pthread_mutex_lock(&p->lock);
	memset(&p->hw, 0, sizeof(p->hw));
	p->hw.control = CONTROL_SCI; /* there is no other mode than ACPI's */
	update(p);
	pthread_mutex_unlock(&p->lock);
}

static void loaded(struct device *d)
{
	struct pm *p = container_of(d, struct pm, device);

	pthread_mutex_lock(&p->lock);
	update(p);
	pthread_mutex_unlock(&p->lock);
}

static void destroy(struct device *d)
{
	struct pm *p = container_of(d, struct pm, device);

	ports_unmap(p->ports, ACPI_PM_PORT, "acpi-pm");
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static const struct device_ops ops = { .state = &desc, .reset = reset, .loaded = loaded, .destroy = destroy };

struct device *acpi_pm_create(struct device_env *env, struct irq_line sci, const struct power_ops *power,
			      struct err *e)
{
	struct pm *p = calloc(1, sizeof(*p));

	if (!p) {
		err_set(e, ENOMEM, "no memory for power management");
		return NULL;
	}
	p->device = (struct device){ .ops = &ops, .hw = &p->hw };
	p->sci = sci;
	p->power = *power;
	p->clock = env->clock;
	p->ports = env->ports;
	pthread_mutex_init(&p->lock, NULL);
	if (ports_map(env->ports, ACPI_PM_PORT, PM_SIZE, &io, p, "acpi-pm", e)) {
		pthread_mutex_destroy(&p->lock);
		free(p);
		return NULL;
	}
	reset(&p->device, RESET_COLD);
	return &p->device;
}
