/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APICs in the host's kernel (machine->apic_host, x86/cpu.h): while a hypervisor serves the guest's APIC accesses itself, ours
 * only hold a copy of the registers, for whoever saves, shows or takes over the machine. Here the two change places.
 *
 * Who sends while they do: machine->apic_senders counts those on the way to the host. Who comes too late and posts to ours has
 * notified the CPU, whose thread passes it on (lapic_take_posted).
 *
 * What the host does otherwise: a one-shot timer that has expired shows its initial count no longer, because the host would start it
 * again. One that is found expired may not have interrupted yet (KVM's registers do not tell): it does so once more, since a guest copes
 * with an interrupt too many and not with one that is lost. The 8259's interrupt is offered to every CPU, and the host says which of them has LINT0 open for it.
 */
#include <string.h>
#include "dev/lapic-private.h"

enum { WORD_IRR = 0x20, WORD_ISR = 0x10, WORD_TMR = 0x18, WORD_COUNT = 0x38, WORD_CURRENT = 0x39 };
static const uint8_t plain[] = { 0x02, 0x03, 0x08, 0x0d, 0x0e, 0x0f, 0x28, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x3e };

int lapic_host_deliver(struct lapic_bus *b, const struct lapic_msg *m)
{
	struct machine *machine = b->machine;
	const struct apic_host *host;
	uint64_t address = 0xfee00000u | (m->dest & 0xff) << 12 | (uint64_t)(m->dest & ~0xffu) << 32;
	int r = -1;

	address |= (m->delivery == DELIVER_LOWEST ? 8u : 0u) | (m->logical ? 4u : 0u);
	atomic_fetch_add(&machine->apic_senders, 1);
	host = atomic_load(&machine->apic_host);
	if (host)
		r = host->msi(host->opaque, address, m->vector | (uint32_t)m->delivery << 8 | (m->level ? 0xc000u : 0));
	atomic_fetch_sub(&machine->apic_senders, 1);
	return r;
}

void lapic_bus_route(struct lapic_bus *b, unsigned pin, const struct lapic_msg *m)
{
	struct apic_route *r = &b->machine->apic_route[pin], was = *r;
	const struct apic_host *host = atomic_load(&b->machine->apic_host);

	*r = (struct apic_route){ .level = m->level && m->vector >= 16 };
	if (r->level) {
		r->address = 0xfee00000u | m->dest << 12 | (m->logical ? 4u : 0u);
		r->data = m->vector | (uint32_t)m->delivery << 8 | 0xc000u;
	}
	if (host && memcmp(r, &was, sizeof(was)))
		host->routes_changed(host->opaque);
}

/* ---- the engine's side, by way of struct cpu_bus */

static void map_out(const uint64_t *map, uint32_t *word)
{
	for (unsigned i = 0; i < 8; i++)
		word[i] = (uint32_t)(map[i / 2] >> i % 2 * 32);
}

static void map_in(uint64_t *map, const uint32_t *word)
{
	for (unsigned i = 0; i < 4; i++)
		map[i] = word[2 * i] | (uint64_t)word[2 * i + 1] << 32;
	map[0] &= ~0xffffull;
}

/* The owner's thread, or with all CPUs stopped. Our timer rests from here on. */
void lapic_export(void *ctx, struct apic_regs *r)
{
	struct lapic *l = ctx;

	memset(r, 0, sizeof(*r));
	lapic_timer_poll(l);
	lapic_merge(l);
	r->base = l->hw.apic_base;
	for (unsigned i = 0; i < ARRAY_LEN(plain); i++)
		r->word[plain[i]] = lapic_read(l, plain[i]);
	map_out(l->hw.irr, &r->word[WORD_IRR]);
	map_out(l->hw.isr, &r->word[WORD_ISR]);
	map_out(l->hw.tmr, &r->word[WORD_TMR]);
	r->word[WORD_COUNT] = l->hw.timer_running ? l->hw.timer_init : 0;
	r->word[WORD_CURRENT] = l->hw.timer_running ? MAX(lapic_timer_count(l), 1u) : 0;
	r->deadline = l->hw.tsc_deadline;
	lapic_timer_rest(l);
}

static void timer_in(struct lapic *l, const struct apic_regs *r)
{
	uint32_t mode = LVT_TIMER_MODE(l->hw.lvt[LVT_TIMER]), left = r->word[WORD_CURRENT];
	uint64_t now = clock_now(l->bus->clock), done;

	if (r->timer_frozen)
		return;
	l->hw.timer_init = r->word[WORD_COUNT];
	l->hw.timer_running = mode != TIMER_DEADLINE && l->hw.timer_init && (left || !(l->hw.lvt[LVT_TIMER] & LVT_MASKED));
	l->hw.tsc_deadline = mode == TIMER_DEADLINE ? r->deadline : 0;
	l->hw.timer_start = 0;
	if (!l->hw.timer_running)
		return;
	done = lapic_timer_ticks(l, l->hw.timer_init - MIN(left, l->hw.timer_init));
	l->hw.timer_start = now > done ? now - done : 0;
}

/* A copy of what the host has: nothing follows from it. */
void lapic_import(void *ctx, const struct apic_regs *r)
{
	struct lapic *l = ctx;
	struct lapic_hw *hw = &l->hw;

	hw->apic_base = BASE_ADDRESS | (r->base & (BASE_BSP | BASE_ENABLE | BASE_X2APIC));
	if ((hw->apic_base & (BASE_ENABLE | BASE_X2APIC)) == BASE_X2APIC)
		hw->apic_base &= ~BASE_X2APIC;
	map_in(hw->irr, &r->word[WORD_IRR]);
	map_in(hw->isr, &r->word[WORD_ISR]);
	map_in(hw->tmr, &r->word[WORD_TMR]);
	hw->tpr = r->word[0x08] & 0xff;
	hw->ldr = lapic_x2apic(l) ? 0 : r->word[0x0d] & 0xff000000u;
	hw->dfr = r->word[0x0e] | 0x0fffffffu;
	hw->svr = r->word[0x0f] & 0x3ff;
	hw->esr = r->word[0x28] & 0xff;
	hw->icr = r->word[0x30] & 0xccfffu & ~0x1000u;
	hw->icr2 = r->word[0x31];
	for (unsigned i = 0; i < LVT_COUNT; i++)
		hw->lvt[i] = r->word[0x32 + i] & lapic_lvt_mask(i);
	hw->timer_div = r->word[0x3e] & 0xb;
	timer_in(l, r);
}

void lapic_released(void *ctx)
{
	struct lapic *l = ctx;

	lapic_publish(l);
	lapic_timer_update(l);
	atomic_fetch_or(&l->cpu->attention, ATT_IRQ);
}

bool lapic_take_posted(void *ctx, uint64_t vectors[4], uint64_t level[4])
{
	struct lapic *l = ctx;
	uint64_t any = 0;

	for (unsigned i = 0; i < 4; i++) {
		vectors[i] = atomic_load(&l->posted[i]) ? atomic_exchange(&l->posted[i], 0) : 0;
		level[i] = vectors[i] & atomic_load(&l->posted_level[i]);
		any |= vectors[i];
	}
	return any;
}

void lapic_host_eoi(void *ctx, uint8_t vector)
{
	struct lapic *l = ctx;

	if (l->bus->eoi)
		l->bus->eoi(l->bus->eoi_opaque, vector);
}

bool lapic_pic_pending(void *ctx)
{
	struct lapic_bus *b = ((struct lapic *)ctx)->bus;

	return b->pic_pending && b->pic_pending(b->pic_opaque);
}

int lapic_pic_take(void *ctx)
{
	struct lapic_bus *b = ((struct lapic *)ctx)->bus;

	return b->pic_take ? b->pic_take(b->pic_opaque) : -1;
}
