/* SPDX-License-Identifier: Apache-2.0 */
/*
 * High precision event timers (IA-PC HPET specification 1.0a): a counter of 10 ns and three comparators, all of which can
 * be periodic. Timer 0 and 1 replace the PIT's and the clock's interrupts when the legacy bit is set; else each goes to one
 * of the IOAPIC's pins 20 to 23. No message interrupts.
 *
 * The counter is the virtual clock plus an offset; `due` is the counter's value at which a comparator matches next.
 * A guest may ask for any period: what comes closer than MIN_STEP is done late, so that the event loop is not flooded.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include "base/err.h"
#include "dev/hpet.h"

#define TICK_NS 10u
#define PERIOD_FS 10000000u
#define TIMERS 3
#define MIN_STEP 1000u /* ticks: 10 us */
#define PINS 0x00f00000u
#define NEVER UINT64_MAX

#define CONFIG_ENABLE 1
#define CONFIG_LEGACY 2
#define T_LEVEL BIT(1)
#define T_ENABLE BIT(2)
#define T_PERIODIC BIT(3)
#define T_SET_VALUE BIT(6)
#define T_32 BIT(8)
#define T_ROUTE(c) ((c) >> 9 & 31)
#define T_WRITABLE 0x3f4eu /* all that can be written but the one above */
#define T_FIXED (BIT(4) | BIT(5)) /* periodic, 64 bits */

struct hpet_hw {
	uint64_t config, status, offset; /* counter - ticks while enabled, the counter while not */
	uint64_t timer_config[TIMERS], compare[TIMERS], period[TIMERS], due[TIMERS];
};

struct hpet {
	struct device device;
	struct hpet_hw hw;
	struct hpet_wires wires;
	struct clock *clock;
	struct timer timer;
	pthread_mutex_t lock;
	bool high[TIMERS]; /* level lines */
};

static uint64_t counter(const struct hpet *h)
{
	return h->hw.config & CONFIG_ENABLE ? clock_now(h->clock) / TICK_NS + h->hw.offset : h->hw.offset;
}

static uint64_t timer_mask(const struct hpet *h, unsigned n)
{
	return h->hw.timer_config[n] & T_32 ? UINT32_MAX : UINT64_MAX;
}

static const struct irq_line *timer_line(const struct hpet *h, unsigned n)
{
	static const struct irq_line none;
	unsigned route = T_ROUTE(h->hw.timer_config[n]);

	if (h->hw.config & CONFIG_LEGACY && n < 2)
		return n ? &h->wires.clock : &h->wires.pit;
	return route >= 20 && route < 24 ? &h->wires.pin[route - 20] : &none;
}

/* When the counter reaches the comparator, from now on. */
static void timer_aim(struct hpet *h, unsigned n)
{
	uint64_t now = counter(h), ahead = (h->hw.compare[n] - now) & timer_mask(h, n);

	h->hw.due[n] = !(h->hw.config & CONFIG_ENABLE) || ahead > UINT64_MAX - now ? NEVER : now + ahead;
}

static void timer_fire(struct hpet *h, unsigned n)
{
	uint64_t c = h->hw.timer_config[n];

	if (c & T_LEVEL)
		h->hw.status |= BIT(n);
	else if (c & T_ENABLE)
		irq_pulse(timer_line(h, n));
}

/* What is due is done; after that each comparator lies ahead. */
static void timer_run(struct hpet *h, unsigned n, uint64_t now)
{
	uint64_t period = h->hw.period[n] & timer_mask(h, n);

	if (h->hw.due[n] > now)
		return;
	timer_fire(h, n);
	if (h->hw.timer_config[n] & T_PERIODIC && period) {
		h->hw.due[n] += (now - h->hw.due[n]) / period * period + period;
		h->hw.compare[n] = h->hw.due[n] & timer_mask(h, n);
	} else {
		h->hw.due[n] = h->hw.timer_config[n] & T_32 ? h->hw.due[n] + (1ull << 32) : NEVER;
	}
	if (h->hw.due[n] <= now) /* wrapped */
		h->hw.due[n] = NEVER;
}

static void update(struct hpet *h)
{
	uint64_t now = counter(h), next = NEVER;

	for (unsigned n = 0; n < TIMERS; n++) {
		bool high;

		timer_run(h, n, now);
		if (h->hw.timer_config[n] & (T_ENABLE | T_LEVEL))
			next = MIN(next, h->hw.due[n]);
		high = h->hw.status & BIT(n) && h->hw.timer_config[n] & T_ENABLE;
		if (high != h->high[n])
			irq_set(timer_line(h, n), high);
		h->high[n] = high;
	}
	if (next == NEVER || !(h->hw.config & CONFIG_ENABLE))
		timer_cancel(&h->timer);
	else
		timer_arm(&h->timer, clock_now(h->clock) + MIN(MAX(next - now, MIN_STEP), UINT32_MAX) * TICK_NS);
}

static void hpet_timer(void *opaque)
{
	struct hpet *h = opaque;

	pthread_mutex_lock(&h->lock);
	update(h);
	pthread_mutex_unlock(&h->lock);
}

/* Before a line may change its way: it is let go. */
static void lines_drop(struct hpet *h)
{
	for (unsigned n = 0; n < TIMERS; n++) {
		if (h->high[n])
			irq_set(timer_line(h, n), 0);
		h->high[n] = false;
	}
}

/* ---- registers: 64 bits each, accessed whole or by halves */

static uint64_t register_read(const struct hpet *h, uint64_t at)
{
	unsigned n = (unsigned)(at - 0x100) / 0x20;

	switch (at) {
	case 0:
		return (uint64_t)PERIOD_FS << 32 | HPET_ID;
	case 0x10:
		return h->hw.config;
	case 0x20:
		return h->hw.status;
	case 0xf0:
		return counter(h);
	default:
		break;
	}
	if (at < 0x100 || n >= TIMERS)
		return 0;
	switch (at & 0x1f) {
	case 0:
		return (uint64_t)PINS << 32 | T_FIXED | h->hw.timer_config[n];
	case 8:
		return h->hw.compare[n];
	default:
		return 0;
	}
}

static void compare_write(struct hpet *h, unsigned n, uint64_t v)
{
	uint64_t *c = &h->hw.timer_config[n];

	v &= timer_mask(h, n);
	if (!(*c & T_PERIODIC) || *c & T_SET_VALUE)
		h->hw.compare[n] = v;
	if (*c & T_PERIODIC) /* the second write, or the only one, is the period */
		h->hw.period[n] = v;
	*c &= ~T_SET_VALUE;
	timer_aim(h, n);
}

static void config_write(struct hpet *h, uint64_t v)
{
	uint64_t now = counter(h);

	lines_drop(h);
	h->hw.config = v & (CONFIG_ENABLE | CONFIG_LEGACY);
	h->hw.offset = h->hw.config & CONFIG_ENABLE ? now - clock_now(h->clock) / TICK_NS : now;
	for (unsigned n = 0; n < TIMERS; n++)
		timer_aim(h, n);
}

static void register_write(struct hpet *h, uint64_t at, uint64_t v)
{
	unsigned n = (unsigned)(at - 0x100) / 0x20;

	if (at == 0x10) {
		config_write(h, v);
	} else if (at == 0x20) {
		h->hw.status &= ~v;
	} else if (at == 0xf0 && !(h->hw.config & CONFIG_ENABLE)) {
		h->hw.offset = v;
	} else if (at >= 0x100 && n < TIMERS && (at & 0x1f) == 0) {
		lines_drop(h);
		h->hw.timer_config[n] = v & (T_WRITABLE | T_SET_VALUE);
		h->hw.compare[n] &= timer_mask(h, n);
		timer_aim(h, n);
	} else if (at >= 0x100 && n < TIMERS && (at & 0x1f) == 8) {
		compare_write(h, n, v);
	}
}

static uint64_t hpet_read(void *opaque, uint64_t offset, unsigned size)
{
	struct hpet *h = opaque;
	uint64_t v;

	pthread_mutex_lock(&h->lock);
	update(h);
	v = register_read(h, offset & ~7ull);
	pthread_mutex_unlock(&h->lock);
	return size == 8 ? v : v >> (offset & 4) * 8;
}

static void hpet_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct hpet *h = opaque;
	uint64_t at = offset & ~7ull, v = value;

	pthread_mutex_lock(&h->lock);
	update(h);
	if (size == 4) {
		unsigned shift = (offset & 4) * 8;
		uint64_t keep = at == 0x20 ? 0 : register_read(h, at);

		v = (keep & ~((uint64_t)UINT32_MAX << shift)) | (uint64_t)(uint32_t)value << shift;
	}
	register_write(h, at, v);
	update(h);
	pthread_mutex_unlock(&h->lock);
}

static const struct io_ops hpet_io = { hpet_read, hpet_write, 4, 8 };

bool hpet_legacy(struct device *d)
{
	const struct hpet *h = container_of(d, struct hpet, device);

	return __atomic_load_n(&h->hw.config, __ATOMIC_RELAXED) & CONFIG_LEGACY;
}

/* ---- the device */

static int hpet_check(const void *opaque, struct err *e)
{
	const struct hpet_hw *hw = opaque;
	uint64_t bad = hw->config & ~3ull;

	for (unsigned n = 0; n < TIMERS; n++)
		bad |= hw->timer_config[n] & ~(uint64_t)(T_WRITABLE | T_SET_VALUE);
	return bad ? err_set(e, EINVAL, "hpet: reserved bits set") : 0;
}

static const struct state_field fields[] = {
	STATE_INT(struct hpet_hw, config),	  STATE_INT(struct hpet_hw, status),
	STATE_INT(struct hpet_hw, offset),	  STATE_INTS(struct hpet_hw, timer_config),
	STATE_INTS(struct hpet_hw, compare), STATE_INTS(struct hpet_hw, period),
	STATE_INTS(struct hpet_hw, due),
};

static const struct state_desc hpet_state = {
	.name = "hpet", .version = 1, .size = sizeof(struct hpet_hw),
	.fields = fields, .nfields = ARRAY_LEN(fields), .check = hpet_check,
};

static void hpet_update(struct device *d)
{
	hpet_timer(container_of(d, struct hpet, device));
}

static void hpet_reset(struct device *d, enum reset_kind kind)
{
	struct hpet *h = container_of(d, struct hpet, device);

	pthread_mutex_lock(&h->lock);
	lines_drop(h);
	h->hw = (struct hpet_hw){ 0 };
	for (unsigned n = 0; n < TIMERS; n++) {
		h->hw.compare[n] = UINT64_MAX;
		h->hw.due[n] = NEVER;
	}
	update(h);
	pthread_mutex_unlock(&h->lock);
}

static void hpet_destroy(struct device *d)
{
	struct hpet *h = container_of(d, struct hpet, device);

	timer_cancel(&h->timer);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

static const struct device_ops hpet_ops = {
	.state = &hpet_state,
	.reset = hpet_reset,
	.saving = hpet_update,
	.loaded = hpet_update,
	.destroy = hpet_destroy,
};

struct device *hpet_create(struct device_env *env, const struct hpet_wires *wires, struct err *e)
{
	struct hpet *h = calloc(1, sizeof(*h));

	if (!h) {
		err_set(e, ENOMEM, "no memory for the event timers");
		return NULL;
	}
	h->device = (struct device){ .ops = &hpet_ops, .hw = &h->hw };
	h->clock = env->clock;
	h->wires = *wires;
	pthread_mutex_init(&h->lock, NULL);
	timer_init(&h->timer, env->clock, hpet_timer, h);
	hpet_reset(&h->device, RESET_COLD);
	if (mem_map_io(env->mem, HPET_BASE, 0x400, &hpet_io, h, "hpet", e)) {
		hpet_destroy(&h->device);
		return NULL;
	}
	return &h->device;
}
