/* SPDX-License-Identifier: Apache-2.0 */
/* Local APIC: what is pending, what may be delivered, acknowledge and end of interrupt. Owner's thread. */
#include "dev/lapic-private.h"

int lapic_irq_pending(void *ctx);
int lapic_irq_take(void *ctx);

#define PIC_PENDING 0x100 /* "some vector": the 8259 says which when it is acknowledged */

int lapic_highest(const uint32_t bits[8])
{
	for (int i = 7; i >= 0; i--)
		if (bits[i])
			return 32 * i + 31 - __builtin_clz(bits[i]);
	return -1;
}

uint32_t lapic_ppr(const struct lapic *l)
{
	int in_service = lapic_highest(l->hw.isr);
	uint32_t isr_class = in_service < 0 ? 0 : (uint32_t)in_service & 0xf0;

	return (l->hw.tpr & 0xf0) >= isr_class ? l->hw.tpr : isr_class;
}

void lapic_merge_posted(struct lapic *l)
{
	for (unsigned i = 0; i < 4; i++) {
		uint64_t bits, level;

		if (!atomic_load_explicit(&l->posted[i], memory_order_relaxed))
			continue;
		bits = atomic_exchange(&l->posted[i], 0);
		level = atomic_load(&l->posted_level[i]) & bits;
		for (unsigned h = 0; h < 2; h++) {
			uint32_t b = (uint32_t)(bits >> (32 * h));

			l->hw.irr[2 * i + h] |= b;
			l->hw.tmr[2 * i + h] = (l->hw.tmr[2 * i + h] & ~b) | (uint32_t)(level >> (32 * h));
		}
	}
}

/* The 8259's INTR reaches this CPU through LINT0 as ExtINT, or directly when the APIC is off. */
static bool pic_pending(const struct lapic *l)
{
	uint32_t lint0 = l->hw.lvt[LVT_LINT0];

	if (l->cpu->id || !l->bus->pic_pending)
		return false;
	if ((l->hw.base & BASE_ENABLED) && ((lint0 & LVT_MASKED) || LVT_DELIVERY(lint0) != DELIVERY_EXTINT))
		return false;
	return l->bus->pic_pending(l->bus->pic_opaque);
}

static int deliverable(const struct lapic *l)
{
	int v;

	if (!lapic_enabled(l))
		return -1;
	v = lapic_highest(l->hw.irr);
	return v >= 0 && ((uint32_t)v & 0xf0) > (lapic_ppr(l) & 0xf0) ? v : -1;
}

int lapic_irq_pending(void *ctx)
{
	struct lapic *l = ctx;
	int v;

	lapic_merge_posted(l);
	lapic_timer_sync(l);
	v = deliverable(l);
	return v < 0 && pic_pending(l) ? PIC_PENDING : v;
}

int lapic_irq_take(void *ctx)
{
	struct lapic *l = ctx;
	int v = deliverable(l);

	if (v < 0)
		return pic_pending(l) ? l->bus->pic_take(l->bus->pic_opaque) : -1;
	l->hw.irr[v >> 5] &= ~(1u << (v & 31));
	l->hw.isr[v >> 5] |= 1u << (v & 31);
	return v;
}

void lapic_reconsider(struct lapic *l)
{
	if (lapic_irq_pending(l) >= 0)
		atomic_fetch_or(&l->cpu->attention, ATT_IRQ);
}

void lapic_eoi(struct lapic *l)
{
	int v = lapic_highest(l->hw.isr);

	if (v < 0)
		return;
	l->hw.isr[v >> 5] &= ~(1u << (v & 31));
	if ((l->hw.tmr[v >> 5] >> (v & 31) & 1) && l->bus->eoi)
		l->bus->eoi(l->bus->eoi_opaque, (uint8_t)v);
	lapic_reconsider(l);
}
