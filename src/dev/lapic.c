/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APIC: registers, by xAPIC page and x2APIC MSRs. Only the owner's thread touches them; see lapic.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "dev/lapic-private.h"

#define VERSION 0x00050014u /* six LVT entries, no EOI suppression */

/* xAPIC offsets >> 4, which are x2APIC MSR numbers - 0x800 */
enum {
	REG_ID = 0x02, REG_VERSION = 0x03, REG_TPR = 0x08, REG_APR = 0x09, REG_PPR = 0x0a, REG_EOI = 0x0b,
	REG_RRD = 0x0c, REG_LDR = 0x0d, REG_DFR = 0x0e, REG_SVR = 0x0f, REG_ISR = 0x10, REG_TMR = 0x18,
	REG_IRR = 0x20, REG_ESR = 0x28, REG_LVT_CMCI = 0x2f, REG_ICR_LOW = 0x30, REG_ICR_HIGH = 0x31,
	REG_LVT = 0x32, REG_INITIAL = 0x38, REG_CURRENT = 0x39, REG_DIVIDE = 0x3e, REG_SELF_IPI = 0x3f,
};

static const uint32_t lvt_writable[LVT_COUNT] = {
	[LVT_TIMER] = 0x710ff, [LVT_THERMAL] = 0x117ff, [LVT_PERF] = 0x117ff,
	[LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff, [LVT_ERROR] = 0x110ff,
};

/* The CPU whose thread this is: MMIO does not say who asks. Set once per thread, by vcpu.c. */
static _Thread_local struct lapic *own;

void lapic_own_thread(struct lapic *l)
{
	own = l;
}

void lapic_post(struct lapic *l, uint8_t vector, bool level)
{
	uint64_t bit = BIT(vector & 63);

	if (level)
		atomic_fetch_or(&l->posted_level[vector >> 6], bit);
	else
		atomic_fetch_and(&l->posted_level[vector >> 6], ~bit);
	/* Was it set already, its poster has notified and the owner has not looked yet. */
	if (!(atomic_fetch_or(&l->posted[vector >> 6], bit) & bit))
		cpu_notify(l->cpu, ATT_IRQ);
}

void lapic_error(struct lapic *l, uint32_t what)
{
	uint32_t lvt = l->hw.lvt[LVT_ERROR];

	l->hw.esr_pending |= what;
	if (!(lvt & LVT_MASKED) && (lvt & 0xff) >= 16)
		lapic_post(l, lvt & 0xff, false);
}

bool lapic_reg_read(struct lapic *l, unsigned reg, uint32_t *value)
{
	const struct lapic_hw *h = &l->hw;

	switch (reg) {
	case REG_ID: *value = lapic_x2(l) ? h->id : h->id << 24; break;
	case REG_VERSION: *value = VERSION; break;
	case REG_TPR: *value = h->tpr; break;
	case REG_APR: *value = 0; return !lapic_x2(l);
	case REG_PPR: *value = lapic_ppr(l); break;
	case REG_EOI: *value = 0; return !lapic_x2(l);
	case REG_RRD: *value = 0; return !lapic_x2(l);
	case REG_LDR: *value = h->ldr; break;
	case REG_DFR: *value = h->dfr; return !lapic_x2(l);
	case REG_SVR: *value = h->svr; break;
	case REG_ISR ... REG_ISR + 7: *value = h->isr[reg - REG_ISR]; break;
	case REG_TMR ... REG_TMR + 7:
		lapic_merge_posted(l);
		*value = h->tmr[reg - REG_TMR];
		break;
	case REG_IRR ... REG_IRR + 7:
		lapic_merge_posted(l);
		*value = h->irr[reg - REG_IRR];
		break;
	case REG_ESR: *value = h->esr; break;
	case REG_LVT_CMCI: *value = LVT_MASKED; return false;
	case REG_ICR_LOW: *value = h->icr_low; break;
	case REG_ICR_HIGH: *value = h->icr_high; return !lapic_x2(l);
	case REG_LVT ... REG_LVT + LVT_COUNT - 1: *value = h->lvt[reg - REG_LVT]; break;
	case REG_INITIAL: *value = h->initial_count; break;
	case REG_CURRENT: *value = lapic_timer_count(l); break;
	case REG_DIVIDE: *value = h->divide; break;
	default: *value = 0; return false;
	}
	return true;
}

static void lvt_write(struct lapic *l, unsigned i, uint32_t value)
{
	uint32_t old = l->hw.lvt[i];

	value &= lvt_writable[i];
	if (!(l->hw.svr & SVR_ENABLED))
		value |= LVT_MASKED;
	l->hw.lvt[i] = value;
	if (i == LVT_TIMER && (old ^ value) >> LVT_MODE_SHIFT) {
		l->hw.tsc_deadline = 0;
		l->hw.initial_count = 0;
		lapic_timer_restart(l);
	}
	if (i == LVT_LINT0)
		lapic_reconsider(l);
}

static void svr_write(struct lapic *l, uint32_t value)
{
	__atomic_store_n(&l->hw.svr, value & 0x1ff, __ATOMIC_RELAXED);
	if (!(value & SVR_ENABLED))
		for (unsigned i = 0; i < LVT_COUNT; i++)
			l->hw.lvt[i] |= LVT_MASKED;
}

bool lapic_reg_write(struct lapic *l, unsigned reg, uint32_t value)
{
	struct lapic_hw *h = &l->hw;

	switch (reg) {
	case REG_ID:
		if (lapic_x2(l))
			return false;
		__atomic_store_n(&h->id, value >> 24, __ATOMIC_RELAXED);
		break;
	case REG_TPR:
		h->tpr = value & 0xff;
		lapic_reconsider(l);
		break;
	case REG_EOI: lapic_eoi(l); break;
	case REG_LDR:
		if (lapic_x2(l))
			return false;
		__atomic_store_n(&h->ldr, value & 0xff000000, __ATOMIC_RELAXED);
		break;
	case REG_DFR:
		if (lapic_x2(l))
			return false;
		__atomic_store_n(&h->dfr, value | 0x0fffffff, __ATOMIC_RELAXED);
		break;
	case REG_SVR: svr_write(l, value); break;
	case REG_ESR:
		h->esr = h->esr_pending;
		h->esr_pending = 0;
		break;
	case REG_ICR_LOW:
		h->icr_low = value & ~0x1000u;
		lapic_icr_send(l, value, h->icr_high >> 24);
		break;
	case REG_ICR_HIGH: h->icr_high = value; break;
	case REG_LVT ... REG_LVT + LVT_COUNT - 1: lvt_write(l, reg - REG_LVT, value); break;
	case REG_INITIAL:
		if (h->lvt[LVT_TIMER] >> LVT_MODE_SHIFT & 2)
			break; /* TSC deadline: ignored */
		h->initial_count = value;
		lapic_timer_restart(l);
		break;
	case REG_DIVIDE:
		h->divide = value & 0xb;
		lapic_timer_restart(l);
		break;
	case REG_SELF_IPI:
		if (!lapic_x2(l))
			return false;
		if ((value & 0xff) < 16)
			lapic_error(l, ESR_SEND_ILLEGAL);
		else
			lapic_post(l, value & 0xff, false);
		break;
	default: return false;
	}
	return true;
}

/* ---- the page of xAPIC mode ---- */

static uint64_t page_read(void *opaque, uint64_t offset, unsigned size)
{
	uint32_t v = 0;

	if (!own || lapic_x2(own) || !(own->hw.base & BASE_ENABLED))
		return ~0ull;
	if (!(offset & 0xf))
		lapic_reg_read(own, (unsigned)offset >> 4, &v);
	return v;
}

static void page_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	if (own && !lapic_x2(own) && (own->hw.base & BASE_ENABLED) && !(offset & 0xf))
		lapic_reg_write(own, (unsigned)offset >> 4, (uint32_t)value);
}

const struct io_ops lapic_page_ops = { page_read, page_write, 4, 4 };

/* ---- MSRs ---- */

static int base_write(struct lapic *l, uint64_t v)
{
	uint64_t old = l->hw.base;
	bool x2 = v & BASE_X2, on = v & BASE_ENABLED;

	if ((v & ~(0xfffffff000ull | BASE_BSP | BASE_X2 | BASE_ENABLED)) || (x2 && !on))
		return -1;
	if ((old & BASE_X2) && on && !x2) /* out of x2APIC only by way of off */
		return -1;
	if (!(old & BASE_ENABLED) && x2)
		return -1;
	if (x2 && !(old & BASE_X2))
		__atomic_store_n(&l->hw.ldr, (l->hw.id & ~15u) << 12 | 1u << (l->hw.id & 15), __ATOMIC_RELAXED);
	__atomic_store_n(&l->hw.base, v, __ATOMIC_RELAXED);
	lapic_reconsider(l);
	return 0;
}

static int msr_read(void *ctx, uint32_t index, uint64_t *value)
{
	struct lapic *l = ctx;
	uint32_t v;

	if (index == 0x1b) {
		*value = l->hw.base;
		return 0;
	}
	if (index == 0x6e0) {
		lapic_timer_sync(l);
		*value = l->hw.tsc_deadline;
		return 0;
	}
	if (index < 0x800 || index > 0x8ff || !lapic_x2(l))
		return -1;
	if (index == 0x830) {
		*value = (uint64_t)l->hw.icr_high << 32 | l->hw.icr_low;
		return 0;
	}
	if (index == 0x83f || !lapic_reg_read(l, index - 0x800, &v))
		return -1;
	*value = v;
	return 0;
}

static int msr_write(void *ctx, uint32_t index, uint64_t value)
{
	struct lapic *l = ctx;

	if (index == 0x1b)
		return base_write(l, value);
	if (index == 0x6e0) {
		lapic_timer_deadline_write(l, value);
		return 0;
	}
	if (index < 0x800 || index > 0x8ff || !lapic_x2(l))
		return -1;
	if (index == 0x830) {
		l->hw.icr_low = (uint32_t)value & ~0x1000u;
		l->hw.icr_high = (uint32_t)(value >> 32);
		lapic_icr_send(l, (uint32_t)value, (uint32_t)(value >> 32));
		return 0;
	}
	if (value >> 32 || (index == 0x80b && value) || (index == 0x828 && value))
		return -1;
	return lapic_reg_write(l, index - 0x800, (uint32_t)value) ? 0 : -1;
}

static uint64_t cr8_read(void *ctx)
{
	return ((struct lapic *)ctx)->hw.tpr >> 4;
}

static void cr8_write(void *ctx, uint64_t v)
{
	struct lapic *l = ctx;

	if (l->hw.tpr >> 4 == v)
		return;
	l->hw.tpr = (uint32_t)v << 4;
	lapic_reconsider(l);
}

int lapic_irq_pending(void *ctx);
int lapic_irq_take(void *ctx);

const struct cpu_bus lapic_cpu_bus = {
	.irq_pending = lapic_irq_pending,
	.irq_take = lapic_irq_take,
	.cr8_read = cr8_read,
	.cr8_write = cr8_write,
	.msr_read = msr_read,
	.msr_write = msr_write,
};

/* ---- the device ---- */

static const struct state_field fields[] = {
	STATE_INT(struct lapic_hw, base), STATE_INT(struct lapic_hw, id), STATE_INT(struct lapic_hw, tpr),
	STATE_INT(struct lapic_hw, ldr), STATE_INT(struct lapic_hw, dfr), STATE_INT(struct lapic_hw, svr),
	STATE_INT(struct lapic_hw, esr), STATE_INT(struct lapic_hw, esr_pending),
	STATE_INT(struct lapic_hw, icr_low), STATE_INT(struct lapic_hw, icr_high),
	STATE_INTS(struct lapic_hw, isr), STATE_INTS(struct lapic_hw, tmr), STATE_INTS(struct lapic_hw, irr),
	STATE_INTS(struct lapic_hw, lvt), STATE_INT(struct lapic_hw, initial_count),
	STATE_INT(struct lapic_hw, divide), STATE_INT(struct lapic_hw, timer_start),
	STATE_INT(struct lapic_hw, tsc_deadline),
};

static int check(const void *hw, struct err *e)
{
	const struct lapic_hw *h = hw;

	if ((h->base & BASE_X2) && !(h->base & BASE_ENABLED))
		return err_set(e, EINVAL, "local APIC: x2APIC mode of an APIC that is off");
	if (h->tpr > 0xff || h->svr > 0x1ff || (h->divide & ~0xbu))
		return err_set(e, EINVAL, "local APIC: register values that cannot be");
	for (unsigned i = 0; i < LVT_COUNT; i++)
		if (h->lvt[i] & ~(lvt_writable[i] | LVT_MASKED))
			return err_set(e, EINVAL, "local APIC: LVT %u has reserved bits", i);
	return 0;
}

static const struct state_desc desc = {
	.name = "lapic", .version = 1, .size = sizeof(struct lapic_hw),
	.fields = fields, .nfields = ARRAY_LEN(fields), .check = check,
};

static void reset(struct device *d, enum reset_kind kind)
{
	struct lapic *l = container_of(d, struct lapic, device);

	memset(&l->hw, 0, sizeof(l->hw));
	l->hw.base = 0xfee00000 | BASE_ENABLED | (l->cpu->id ? 0 : BASE_BSP);
	l->hw.id = l->cpu->id;
	l->hw.dfr = ~0u;
	l->hw.svr = 0xff;
	for (unsigned i = 0; i < LVT_COUNT; i++)
		l->hw.lvt[i] = LVT_MASKED;
	/* Without firmware nobody sets up the virtual wire mode that the 8259 needs. */
	if (!l->cpu->id)
		l->hw.lvt[LVT_LINT0] = DELIVERY_EXTINT << 8;
	for (unsigned i = 0; i < 4; i++) {
		atomic_store(&l->posted[i], 0);
		atomic_store(&l->posted_level[i], 0);
	}
	l->deadline = TIMER_NEVER;
	timer_cancel(&l->timer);
}

/* Posted but not yet seen interrupts are saved as part of IRR. */
static void merge_for_save(struct device *d)
{
	lapic_irq_pending(container_of(d, struct lapic, device));
}

static void loaded(struct device *d)
{
	struct lapic *l = container_of(d, struct lapic, device);

	lapic_timer_rearm(l);
	atomic_fetch_or(&l->cpu->attention, ATT_IRQ);
}

static void destroy(struct device *d)
{
	struct lapic *l = container_of(d, struct lapic, device);

	timer_cancel(&l->timer);
	free(l);
}

static const struct device_ops ops = {
	.state = &desc, .reset = reset, .saving = merge_for_save, .loaded = loaded, .destroy = destroy,
};

struct lapic *lapic_create(struct lapic_bus *b, struct cpu *c, struct err *e)
{
	struct lapic *l = calloc(1, sizeof(*l));

	if (!l || b->count == MAX_CPUS) {
		free(l);
		err_set(e, ENOMEM, "no memory for the local APIC of CPU %u", c->id);
		return NULL;
	}
	l->bus = b;
	l->cpu = c;
	l->device = (struct device){ .ops = &ops, .instance = c->id, .hw = &l->hw };
	timer_init(&l->timer, b->clock, lapic_timer_fired, l);
	reset(&l->device, RESET_COLD);
	b->lapic[b->count++] = l;
	return l;
}

struct device *lapic_device(struct lapic *l)
{
	return &l->device;
}
