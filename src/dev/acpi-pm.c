/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI fixed hardware (ACPI 6.4, 4.8): PM1a event and control registers, power management timer, GPE0.
 * SLP_TYP 5 with SLP_EN is power-off. ACPI mode is always on: SCI_EN reads one. The SCI is a level line.
 *
 * Ports from ACPI_PM_PORT on: 0 PM1 status, 2 PM1 enable, 4 PM1 control, 8 timer (32 bit), 0x20 GPE0 status,
 * 0x22 GPE0 enable.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include "base/err.h"
#include "dev/pc-devices.h"

#define PORTS 0x30
#define SLEEP_OFF 5

#define STS_TIMER 0x0001
#define STS_POWER 0x0100
#define STS_ALL (STS_TIMER | 0x0010 | 0x0020 | STS_POWER | 0x0200 | 0x0400 | 0x8000)
#define ENABLE_ALL (STS_TIMER | 0x0020 | STS_POWER | 0x0200 | 0x0400)
#define CONTROL_SCI 0x0001
#define CONTROL_ALL 0x1c03 /* SLP_TYP, BM_RLD, SCI_EN */
#define CONTROL_SLEEP 0x2000

struct pm_hw {
	uint16_t status, enable, control, gpe_status, gpe_enable;
	uint64_t seen; /* timer ticks up to which carries are in the status register */
};

struct pm {
	struct device device;
	struct pm_hw hw;
	struct clock *clock;
	struct irq_line sci;
	const struct power_ops *power;
	struct timer timer;
	pthread_mutex_t lock;
	struct ports *ports;
	uint16_t base; /* 0: unmapped */
};

/* 3.579545 MHz, exactly 315/88 MHz. */
static uint64_t ticks(const struct pm *p)
{
	return (uint64_t)((unsigned __int128)clock_now(p->clock) * 315 / 88000);
}

static uint64_t ticks_to_ns(uint64_t t)
{
	return (uint64_t)(((unsigned __int128)t * 88000 + 314) / 315);
}

/* The timer's flag is set whenever bit 31 changes. */
static void update(struct pm *p)
{
	uint64_t now = ticks(p);

	if (now >> 31 != p->hw.seen >> 31)
		p->hw.status |= STS_TIMER;
	p->hw.seen = now;
	if (p->hw.enable & STS_TIMER && !(p->hw.status & STS_TIMER))
		timer_arm(&p->timer, ticks_to_ns(((now >> 31) + 1) << 31));
	else
		timer_cancel(&p->timer);
	irq_set(&p->sci, (p->hw.status & p->hw.enable & ENABLE_ALL) || (p->hw.gpe_status & p->hw.gpe_enable));
}

static void pm_timer(void *opaque)
{
	struct pm *p = opaque;

	pthread_mutex_lock(&p->lock);
	update(p);
	pthread_mutex_unlock(&p->lock);
}

static uint16_t *pm_register(struct pm *p, uint64_t offset)
{
	switch (offset) {
	case 0:
		return &p->hw.status;
	case 2:
		return &p->hw.enable;
	case 4:
		return &p->hw.control;
	case 0x20:
		return &p->hw.gpe_status;
	case 0x22:
		return &p->hw.gpe_enable;
	default:
		return NULL;
	}
}

/* Byte by byte: accesses of any size are put together by the port map, and the timer is read on its own. */
static uint64_t pm_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pm *p = opaque;
	uint64_t v = 0;

	pthread_mutex_lock(&p->lock);
	update(p);
	for (unsigned i = 0; i < size; i++) {
		uint64_t at = offset + i;
		uint16_t *r = pm_register(p, at & ~1ull);
		uint64_t byte = 0;

		if (at >= 8 && at < 12)
			byte = p->hw.seen >> (at - 8) * 8;
		else if (r)
			byte = *r >> (at & 1) * 8;
		v |= (byte & 0xff) << i * 8;
	}
	pthread_mutex_unlock(&p->lock);
	return v;
}

static bool control_write(struct pm *p, uint16_t v)
{
	p->hw.control = (v & CONTROL_ALL) | CONTROL_SCI;
	return v & CONTROL_SLEEP && (v >> 10 & 7) == SLEEP_OFF;
}

/* One byte; the other byte of its register stays. Status bits are cleared by ones. True: power off. */
static bool byte_write(struct pm *p, uint64_t at, uint8_t v)
{
	uint16_t *r = pm_register(p, at & ~1ull), keep = (uint16_t)(0xff00u >> (at & 1) * 8);
	uint16_t wide = (uint16_t)(v << (at & 1) * 8);

	if (!r)
		return false;
	if (r == &p->hw.control)
		return control_write(p, (uint16_t)((*r & keep) | wide));
	if (r == &p->hw.status || r == &p->hw.gpe_status)
		*r &= (uint16_t)~wide;
	else
		*r = (uint16_t)((*r & keep) | wide) & (r == &p->hw.enable ? ENABLE_ALL : 0xffff);
	return false;
}

static void pm_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pm *p = opaque;
	bool off = false;

	pthread_mutex_lock(&p->lock);
	update(p);
	for (unsigned i = 0; i < size; i++)
		off |= byte_write(p, offset + i, (uint8_t)(value >> i * 8));
	update(p);
	pthread_mutex_unlock(&p->lock);
	if (off && p->power && p->power->off)
		p->power->off(p->power->opaque);
}

static const struct io_ops pm_io = { pm_read, pm_write, 1, 4 };

void acpi_pm_power_button(struct device *d)
{
	struct pm *p = container_of(d, struct pm, device);

	pthread_mutex_lock(&p->lock);
	p->hw.status |= STS_POWER;
	update(p);
	pthread_mutex_unlock(&p->lock);
}

void acpi_pm_event(struct device *d, unsigned n)
{
	struct pm *p = container_of(d, struct pm, device);

	pthread_mutex_lock(&p->lock);
	p->hw.gpe_status |= (uint16_t)BIT(n & 15);
	update(p);
	pthread_mutex_unlock(&p->lock);
}

/* ---- the device */

static int pm_check(const void *opaque, struct err *e)
{
	const struct pm_hw *hw = opaque;

	if (hw->status & ~STS_ALL || hw->enable & ~ENABLE_ALL || hw->control & ~CONTROL_ALL ||
	    !(hw->control & CONTROL_SCI))
		return err_set(e, EINVAL, "acpi-pm: reserved bits set");
	return 0;
}

static const struct state_field fields[] = {
	STATE_INT(struct pm_hw, status),     STATE_INT(struct pm_hw, enable),
	STATE_INT(struct pm_hw, control),    STATE_INT(struct pm_hw, gpe_status),
	STATE_INT(struct pm_hw, gpe_enable), STATE_INT(struct pm_hw, seen),
};

static const struct state_desc pm_state = {
	.name = "acpi-pm", .version = 1, .size = sizeof(struct pm_hw),
	.fields = fields, .nfields = ARRAY_LEN(fields), .check = pm_check,
};

static void pm_update(struct device *d)
{
	pm_timer(container_of(d, struct pm, device));
}

static void pm_reset(struct device *d, enum reset_kind kind)
{
	struct pm *p = container_of(d, struct pm, device);

	pthread_mutex_lock(&p->lock);
	p->hw = (struct pm_hw){ .control = CONTROL_SCI, .seen = ticks(p) };
	update(p);
	pthread_mutex_unlock(&p->lock);
}

static void pm_destroy(struct device *d)
{
	struct pm *p = container_of(d, struct pm, device);

	timer_cancel(&p->timer);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static const struct device_ops pm_ops = {
	.state = &pm_state,
	.reset = pm_reset,
	.saving = pm_update,
	.loaded = pm_update,
	.destroy = pm_destroy,
};

void acpi_pm_move(struct device *d, uint16_t base)
{
	struct pm *p = container_of(d, struct pm, device);

	if (p->base)
		ports_unmap(p->ports, p->base, "acpi-pm");
	p->base = base && !ports_map(p->ports, base, PORTS, &pm_io, p, "acpi-pm", NULL) ? base : 0;
}

struct device *acpi_pm_create(struct device_env *env, struct irq_line sci, const struct power_ops *power,
			      struct err *e)
{
	struct pm *p = calloc(1, sizeof(*p));

	if (!p) {
		err_set(e, ENOMEM, "no memory for power management");
		return NULL;
	}
	p->device = (struct device){ .ops = &pm_ops, .hw = &p->hw };
	p->clock = env->clock;
	p->sci = sci;
	p->power = power;
	pthread_mutex_init(&p->lock, NULL);
	timer_init(&p->timer, env->clock, pm_timer, p);
	pm_reset(&p->device, RESET_COLD);
	p->ports = env->ports;
	p->base = ACPI_PM_PORT;
	if (ports_map(env->ports, ACPI_PM_PORT, PORTS, &pm_io, p, "acpi-pm", e)) {
		pm_destroy(&p->device);
		return NULL;
	}
	return &p->device;
}
