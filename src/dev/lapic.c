/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APIC: registers and priorities (SDM volume 3, chapter "Advanced Programmable Interrupt Controller").
 *
 * The registers belong to the CPU's own thread, so they need no lock; what other threads send arrives in the posted
 * bitmaps (lapic-bus.c), which are merged into IRR when the owner looks for interrupts. LVT entries number six: no
 * CMCI. The APIC id is the CPU's number and cannot be changed; the page cannot be moved from 0xfee00000.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/log.h"
#include "dev/lapic-private.h"
#include "engine/engine.h"

#define VERSION 0x50014u /* integrated, LVT entries 0..5 */
#define VECTOR_EXTINT 0x100 /* irq_pending: the 8259 has one, whose vector only acknowledging tells */

#define MSR_APIC_BASE 0x1bu
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_X2APIC 0x800u

enum lapic_reg {
	REG_ID = 0x02, REG_VERSION = 0x03, REG_TPR = 0x08, REG_APR = 0x09, REG_PPR = 0x0a, REG_EOI = 0x0b,
	REG_RRD = 0x0c, REG_LDR = 0x0d, REG_DFR = 0x0e, REG_SVR = 0x0f, REG_ISR = 0x10, REG_TMR = 0x18,
	REG_IRR = 0x20, REG_ESR = 0x28, REG_ICR = 0x30, REG_ICR2 = 0x31, REG_LVT = 0x32, REG_COUNT = 0x38,
	REG_CURRENT = 0x39, REG_DIVIDE = 0x3e, REG_SELF_IPI = 0x3f,
};

static const uint32_t lvt_writable[LVT_COUNT] = {
	[LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PERF] = 0x107ff,
	[LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff, [LVT_ERROR] = 0x100ff,
};

uint32_t lapic_lvt_mask(unsigned i)
{
	return lvt_writable[i] | LVT_MASKED;
}

/* ---- vectors and priorities */

static int highest(const uint64_t *map)
{
	for (int i = 3; i >= 0; i--)
		if (map[i])
			return i * 64 + 63 - __builtin_clzll(map[i]);
	return -1;
}

static void set_bit(uint64_t *map, unsigned v)
{
	map[v >> 6] |= BIT(v & 63);
}

static void clear_bit(uint64_t *map, unsigned v)
{
	map[v >> 6] &= ~BIT(v & 63);
}

static bool test_bit(const uint64_t *map, unsigned v)
{
	return map[v >> 6] & BIT(v & 63);
}

static uint32_t ppr(const struct lapic *l)
{
	int in_service = highest(l->hw.isr);
	uint32_t class = in_service < 0 ? 0 : (uint32_t)in_service & 0xf0;

	return (l->hw.tpr & 0xf0) >= class ? l->hw.tpr : class;
}

/* Vector bits are set after their trigger mode, so what we take out of `posted` has its mode in posted_level. */
void lapic_merge(struct lapic *l)
{
	for (unsigned i = 0; i < 4; i++) {
		uint64_t p;

		if (!atomic_load(&l->posted[i]))
			continue;
		p = atomic_exchange(&l->posted[i], 0);
		l->hw.irr[i] |= p;
		l->hw.tmr[i] = (l->hw.tmr[i] & ~p) | (atomic_load(&l->posted_level[i]) & p);
	}
	if (unlikely(atomic_load(&l->posted_errors)))
		l->hw.esr_pending |= atomic_exchange(&l->posted_errors, 0);
}

/* The vector in IRR that the priorities let through now, or -1. */
static int deliverable(struct lapic *l)
{
	int v;

	if (!(l->hw.svr & SVR_ENABLE) || !lapic_enabled(l))
		return -1;
	lapic_merge(l);
	v = highest(l->hw.irr);
	return v >= 0 && ((uint32_t)v & 0xf0) > (ppr(l) & 0xf0) ? v : -1;
}

/* Priorities have sunk: what was held back may go now. */
static void look_again(struct lapic *l)
{
	if (deliverable(l) >= 0)
		cpu_notify(l->cpu, ATT_IRQ);
}

void lapic_local_interrupt(struct lapic *l, uint32_t lvt)
{
	if (lvt & LVT_MASKED || !(l->hw.svr & SVR_ENABLE))
		return;
	if ((lvt & 0xff) < 16) {
		l->hw.esr_pending |= ESR_RECEIVE_ILLEGAL;
		return;
	}
	set_bit(l->hw.irr, lvt & 0xff);
	clear_bit(l->hw.tmr, lvt & 0xff);
}

void lapic_error(struct lapic *l, uint32_t bit)
{
	l->hw.esr_pending |= bit;
	lapic_local_interrupt(l, l->hw.lvt[LVT_ERROR]);
	look_again(l);
}

static void end_of_interrupt(struct lapic *l)
{
	int v = highest(l->hw.isr);

	if (v < 0)
		return;
	clear_bit(l->hw.isr, (unsigned)v);
	if (test_bit(l->hw.tmr, (unsigned)v) && l->bus->eoi)
		l->bus->eoi(l->bus->eoi_opaque, (uint8_t)v);
	look_again(l);
}

/* ---- registers */

static uint32_t map_word(const uint64_t *map, unsigned i)
{
	return (uint32_t)(map[i >> 1] >> (i & 1) * 32);
}

static uint32_t x2apic_ldr(const struct lapic *l)
{
	return (l->cpu->id & ~15u) << 12 | 1u << (l->cpu->id & 15);
}

static uint32_t read_map(struct lapic *l, unsigned reg)
{
	lapic_merge(l);
	if (reg < REG_TMR)
		return map_word(l->hw.isr, reg - REG_ISR);
	if (reg < REG_IRR)
		return map_word(l->hw.tmr, reg - REG_TMR);
	lapic_timer_poll(l);
	return map_word(l->hw.irr, reg - REG_IRR);
}

uint32_t lapic_read(struct lapic *l, unsigned reg)
{
	if (reg >= REG_ISR && reg < REG_ESR)
		return read_map(l, reg);
	if (reg >= REG_LVT && reg < REG_LVT + LVT_COUNT)
		return l->hw.lvt[reg - REG_LVT];
	switch (reg) {
	case REG_ID:
		return lapic_x2apic(l) ? l->cpu->id : l->cpu->id << 24;
	case REG_VERSION:
		return VERSION;
	case REG_TPR:
		return l->hw.tpr;
	case REG_PPR:
		return ppr(l);
	case REG_LDR:
		return lapic_x2apic(l) ? x2apic_ldr(l) : l->hw.ldr;
	case REG_DFR:
		return l->hw.dfr;
	case REG_SVR:
		return l->hw.svr;
	case REG_ESR:
		return l->hw.esr;
	case REG_ICR:
		return l->hw.icr;
	case REG_ICR2:
		return l->hw.icr2;
	case REG_COUNT:
		return l->hw.timer_init;
	case REG_CURRENT:
		return lapic_timer_count(l);
	case REG_DIVIDE:
		return l->hw.timer_div;
	default:
		return 0;
	}
}

static void write_lvt(struct lapic *l, unsigned i, uint32_t value)
{
	value &= lvt_writable[i];
	if (!(l->hw.svr & SVR_ENABLE))
		value |= LVT_MASKED;
	if (i == LVT_TIMER)
		lapic_timer_set_lvt(l, value);
	else
		l->hw.lvt[i] = value;
	if (i == LVT_LINT0) {
		lapic_publish(l);
		if (lapic_extint(l))
			cpu_notify(l->cpu, ATT_IRQ);
	}
}

static void write_svr(struct lapic *l, uint32_t value)
{
	l->hw.svr = value & 0x3ff;
	if (!(value & SVR_ENABLE))
		for (unsigned i = 0; i < LVT_COUNT; i++)
			write_lvt(l, i, l->hw.lvt[i] | LVT_MASKED);
	lapic_publish(l);
	look_again(l);
}

void lapic_write(struct lapic *l, unsigned reg, uint32_t value)
{
	if (reg >= REG_LVT && reg < REG_LVT + LVT_COUNT) {
		write_lvt(l, reg - REG_LVT, value);
		return;
	}
	switch (reg) {
	case REG_TPR:
		l->hw.tpr = value & 0xff;
		look_again(l);
		break;
	case REG_EOI:
		end_of_interrupt(l);
		break;
	case REG_LDR:
		l->hw.ldr = value & 0xff000000u;
		lapic_publish(l);
		break;
	case REG_DFR:
		l->hw.dfr = value | 0x0fffffffu;
		lapic_publish(l);
		break;
	case REG_SVR:
		write_svr(l, value);
		break;
	case REG_ESR:
		lapic_merge(l);
		l->hw.esr = l->hw.esr_pending;
		l->hw.esr_pending = 0;
		break;
	case REG_ICR:
		l->hw.icr = value & 0xccfff & ~0x1000u; /* delivery status: always idle */
		lapic_send(l, l->hw.icr, l->hw.icr2 >> 24);
		break;
	case REG_ICR2:
		l->hw.icr2 = value & 0xff000000u;
		break;
	case REG_COUNT:
		lapic_timer_set_count(l, value);
		break;
	case REG_DIVIDE:
		lapic_timer_set_divide(l, value & 0xb);
		break;
	case REG_ID:
	case REG_VERSION:
	case REG_PPR:
	case REG_CURRENT:
		break;
	default:
		if (reg < REG_ISR || reg >= REG_ESR)
			lapic_error(l, ESR_REGISTER);
		break;
	}
}

void lapic_reset_registers(struct lapic *l)
{
	uint64_t base = l->hw.apic_base;

	memset(&l->hw, 0, sizeof(l->hw));
	l->hw.apic_base = base;
	l->hw.dfr = ~0u;
	l->hw.svr = 0xff;
	for (unsigned i = 0; i < LVT_COUNT; i++)
		l->hw.lvt[i] = LVT_MASKED;
	for (unsigned i = 0; i < 4; i++)
		atomic_store(&l->posted[i], 0);
	atomic_store(&l->posted_errors, 0);
	lapic_publish(l);
	lapic_timer_update(l);
}

/* ---- MSRs */

/*
 * Disabled, xAPIC, x2APIC: from one to the next only as the manual's state diagram allows. Disabling resets
 * everything.
 */
static int base_write(struct lapic *l, uint64_t value)
{
	uint64_t mode = value & (BASE_ENABLE | BASE_X2APIC);
	uint64_t old = l->hw.apic_base & (BASE_ENABLE | BASE_X2APIC);

	if (value & ~(BASE_ADDRESS | BASE_BSP | BASE_ENABLE | BASE_X2APIC) || (value & ~0xfffull) != BASE_ADDRESS) {
		log_guest("lapic", "CPU %u: APIC base %#llx refused", l->cpu->id, (unsigned long long)value);
		return -1;
	}
	if (mode == BASE_X2APIC || (!old && mode & BASE_X2APIC) || (old & BASE_X2APIC && mode == BASE_ENABLE))
		return -1;
	l->hw.apic_base = value;
	if (!mode && old)
		lapic_reset_registers(l);
	if (mode & BASE_X2APIC && !(old & BASE_X2APIC))
		l->hw.icr2 = 0;
	lapic_publish(l);
	return 0;
}

static bool x2apic_readable(unsigned reg)
{
	switch (reg) {
	case REG_ID:
	case REG_VERSION:
	case REG_TPR:
	case REG_PPR:
	case REG_LDR:
	case REG_SVR:
	case REG_ESR:
	case REG_ICR:
	case REG_COUNT:
	case REG_CURRENT:
	case REG_DIVIDE:
		return true;
	default:
		return (reg >= REG_ISR && reg < REG_ESR) || (reg >= REG_LVT && reg < REG_LVT + LVT_COUNT);
	}
}

/* Bits that may be written to a register in x2APIC mode; others fault. 0 with *known false: not writable at all. */
static uint64_t x2apic_writable(unsigned reg, bool *known)
{
	*known = true;
	if (reg >= REG_LVT && reg < REG_LVT + LVT_COUNT)
		return lvt_writable[reg - REG_LVT] | 0x5000; /* status bits are ignored */
	switch (reg) {
	case REG_TPR:
	case REG_SELF_IPI:
		return 0xff;
	case REG_EOI:
	case REG_ESR:
		return 0;
	case REG_SVR:
		return 0x3ff;
	case REG_ICR:
		return 0xffffffff000ccfffull;
	case REG_COUNT:
		return 0xffffffffu;
	case REG_DIVIDE:
		return 0xb;
	default:
		*known = false;
		return 0;
	}
}

static int x2apic_write(struct lapic *l, unsigned reg, uint64_t value)
{
	bool known;

	if (value & ~x2apic_writable(reg, &known) || !known)
		return -1;
	if (reg == REG_ICR) {
		l->hw.icr = (uint32_t)value & ~0x1000u;
		l->hw.icr2 = (uint32_t)(value >> 32);
		lapic_send(l, l->hw.icr, l->hw.icr2);
	} else if (reg == REG_SELF_IPI) {
		lapic_send(l, (uint32_t)value | 1u << 18, 0);
	} else {
		lapic_write(l, reg, (uint32_t)value);
	}
	return 0;
}

static int bus_msr_read(void *ctx, uint32_t index, uint64_t *value)
{
	struct lapic *l = ctx;
	unsigned reg = index - MSR_X2APIC;

	if (index == MSR_APIC_BASE) {
		*value = l->hw.apic_base;
		return 0;
	}
	if (index == MSR_TSC_DEADLINE) {
		lapic_timer_poll(l);
		*value = l->hw.tsc_deadline;
		return 0;
	}
	if (reg > 0xff || !lapic_x2apic(l) || !x2apic_readable(reg))
		return -1;
	*value = lapic_read(l, reg);
	if (reg == REG_ICR)
		*value |= (uint64_t)l->hw.icr2 << 32;
	return 0;
}

static int bus_msr_write(void *ctx, uint32_t index, uint64_t value)
{
	struct lapic *l = ctx;

	if (index == MSR_APIC_BASE)
		return base_write(l, value);
	if (index == MSR_TSC_DEADLINE) {
		lapic_timer_set_deadline(l, value);
		return 0;
	}
	if (index - MSR_X2APIC > 0xff || !lapic_x2apic(l))
		return -1;
	return x2apic_write(l, index - MSR_X2APIC, value);
}

/* ---- the CPU's side */

static int bus_irq_pending(void *ctx)
{
	struct lapic *l = ctx;

	if (lapic_host(l)) /* a copy of them delivers nothing */
		return -1;
	lapic_timer_poll(l);
	if (lapic_extint(l))
		return VECTOR_EXTINT;
	return deliverable(l);
}

static int bus_irq_take(void *ctx)
{
	struct lapic *l = ctx;
	int v;

	if (lapic_extint(l))
		return l->bus->pic_take(l->bus->pic_opaque);
	v = deliverable(l);
	if (v >= 0) {
		clear_bit(l->hw.irr, (unsigned)v);
		set_bit(l->hw.isr, (unsigned)v);
	}
	return v;
}

static uint64_t bus_cr8_read(void *ctx)
{
	return ((struct lapic *)ctx)->hw.tpr >> 4;
}

static void bus_cr8_write(void *ctx, uint64_t v)
{
	lapic_write(ctx, REG_TPR, (uint32_t)(v & 15) << 4);
}

/* INIT leaves the base register, and with it the mode, alone. */
static void bus_init(void *ctx)
{
	struct lapic *l = ctx;
	const struct apic_host *host = lapic_host(l);

	lapic_reset_registers(l);
	if (host)
		host->changed(host->opaque, l->cpu);
}

const struct cpu_bus lapic_cpu_bus = {
	.irq_pending = bus_irq_pending,
	.irq_take = bus_irq_take,
	.cr8_read = bus_cr8_read,
	.cr8_write = bus_cr8_write,
	.msr_read = bus_msr_read,
	.msr_write = bus_msr_write,
	.init = bus_init,
	.apic_export = lapic_export,
	.apic_import = lapic_import,
	.apic_released = lapic_released,
	.apic_take_posted = lapic_take_posted,
	.apic_eoi = lapic_host_eoi,
	.pic_pending = lapic_pic_pending,
	.pic_take = lapic_pic_take,
};

/* ---- the device */

static int lapic_check(const void *opaque, struct err *e)
{
	const struct lapic_hw *hw = opaque;

	if ((hw->apic_base & ~0xfffull) != BASE_ADDRESS ||
	    hw->apic_base & 0xfff & ~(BASE_BSP | BASE_ENABLE | BASE_X2APIC) ||
	    (hw->apic_base & (BASE_ENABLE | BASE_X2APIC)) == BASE_X2APIC)
		return err_set(e, EINVAL, "lapic: impossible APIC base");
	if ((hw->irr[0] | hw->isr[0] | hw->tmr[0]) & 0xffff)
		return err_set(e, EINVAL, "lapic: impossible vector");
	if (hw->tpr & ~0xffu || hw->svr & ~0x3ffu || hw->ldr & 0xffffff || ~hw->dfr & 0x0fffffff ||
	    hw->timer_div & ~0xbu || hw->icr & ~0xcefffu || (hw->esr | hw->esr_pending) & ~0xffu)
		return err_set(e, EINVAL, "lapic: reserved bits set");
	for (unsigned i = 0; i < LVT_COUNT; i++)
		if (hw->lvt[i] & ~(lvt_writable[i] | LVT_MASKED))
			return err_set(e, EINVAL, "lapic: reserved bits set in LVT entry %u", i);
	if (hw->timer_running && !hw->timer_init)
		return err_set(e, EINVAL, "lapic: timer counts from zero");
	if (hw->timer_start > INT64_MAX)
		return err_set(e, EINVAL, "lapic: timer started at an impossible time");
	return 0;
}

static const struct state_field fields[] = {
	STATE_INT(struct lapic_hw, apic_base), STATE_INTS(struct lapic_hw, irr), STATE_INTS(struct lapic_hw, isr),
	STATE_INTS(struct lapic_hw, tmr), STATE_INT(struct lapic_hw, tpr), STATE_INT(struct lapic_hw, ldr),
	STATE_INT(struct lapic_hw, dfr), STATE_INT(struct lapic_hw, svr), STATE_INT(struct lapic_hw, esr),
	STATE_INT(struct lapic_hw, esr_pending), STATE_INT(struct lapic_hw, icr), STATE_INT(struct lapic_hw, icr2),
	STATE_INTS(struct lapic_hw, lvt), STATE_INT(struct lapic_hw, timer_init),
	STATE_INT(struct lapic_hw, timer_div), STATE_INT(struct lapic_hw, timer_running),
	STATE_INT(struct lapic_hw, timer_start), STATE_INT(struct lapic_hw, tsc_deadline),
};

static const struct state_desc lapic_state = {
	.name = "lapic", .version = 1, .size = sizeof(struct lapic_hw),
	.fields = fields, .nfields = ARRAY_LEN(fields), .check = lapic_check,
};

/*
 * After power-on LINT0 of the first CPU is open for the 8259 pair, as firmware leaves it ("virtual wire"), so that
 * kernels that never touch the APIC get their interrupts.
 */
static void lapic_reset(struct device *d, enum reset_kind kind)
{
	struct lapic *l = container_of(d, struct lapic, device);

	l->hw.apic_base = BASE_ADDRESS | BASE_ENABLE | (l->cpu->id == 0 ? BASE_BSP : 0);
	lapic_reset_registers(l);
	if (l->cpu->id == 0) {
		l->hw.lvt[LVT_LINT0] = DELIVER_EXTINT << 8;
		lapic_publish(l);
	}
	if (lapic_host(l))
		lapic_host(l)->changed(lapic_host(l)->opaque, l->cpu);
}

static void lapic_saving(struct device *d)
{
	struct lapic *l = container_of(d, struct lapic, device);

	if (lapic_host(l)) { /* a fresh copy, with what is on its way to the host */
		l->cpu->machine->engine->state_get(l->cpu);
		for (unsigned i = 0; i < 4; i++)
			l->hw.irr[i] |= atomic_load(&l->posted[i]);
		return;
	}
	lapic_timer_poll(l);
	lapic_merge(l);
}

static void lapic_loaded(struct device *d)
{
	struct lapic *l = container_of(d, struct lapic, device);

	for (unsigned i = 0; i < 4; i++)
		atomic_store(&l->posted[i], 0);
	atomic_store(&l->posted_errors, 0);
	lapic_publish(l);
	lapic_timer_update(l);
	atomic_fetch_or(&l->cpu->attention, ATT_IRQ); /* something may be waiting */
	if (lapic_host(l))
		lapic_host(l)->changed(lapic_host(l)->opaque, l->cpu);
}

static void lapic_destroy(struct device *d)
{
	struct lapic *l = container_of(d, struct lapic, device);

	lapic_timer_dispose(l);
	l->bus->lapic[l->cpu->id] = NULL;
	free(l);
}

static const struct device_ops lapic_ops = {
	.state = &lapic_state,
	.reset = lapic_reset,
	.saving = lapic_saving,
	.loaded = lapic_loaded,
	.destroy = lapic_destroy,
};

struct lapic *lapic_create(struct lapic_bus *b, struct cpu *c, struct err *e)
{
	struct lapic *l;

	if (c->id != b->count || b->count == MAX_CPUS) {
		err_set(e, EINVAL, "local APICs are made in the order of the CPUs, at most %d", MAX_CPUS);
		return NULL;
	}
	if (!b->count && lapic_map(b, e))
		return NULL;
	l = calloc(1, sizeof(*l));
	if (!l) {
		err_set(e, ENOMEM, "no memory for a local APIC");
		return NULL;
	}
	l->device = (struct device){ .ops = &lapic_ops, .instance = c->id, .hw = &l->hw };
	l->bus = b;
	l->cpu = c;
	lapic_timer_init(l);
	b->lapic[b->count++] = l;
	lapic_reset(&l->device, RESET_COLD);
	return l;
}

struct device *lapic_device(struct lapic *l)
{
	return &l->device;
}
