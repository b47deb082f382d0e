/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APIC timer: one-shot, periodic, TSC deadline. Counts at 1 GHz before the divider, so counts are virtual
 * nanoseconds. Expiry is found by the owner, who compares the clock with the deadline whenever it looks; the event
 * loop's timer only makes a running CPU look, and a halted CPU's thread waits with the deadline as its time-out.
 */
#include "dev/lapic-private.h"

#define MODE_PERIODIC 1
#define MODE_DEADLINE 2

static unsigned mode(const struct lapic *l)
{
	return l->hw.lvt[LVT_TIMER] >> LVT_MODE_SHIFT & 3;
}

static unsigned divider(const struct lapic *l)
{
	unsigned code = (l->hw.divide & 3) | (l->hw.divide >> 1 & 4);

	return code == 7 ? 1 : 2u << code;
}

static uint64_t period(const struct lapic *l)
{
	return (uint64_t)l->hw.initial_count * divider(l);
}

static void arm(struct lapic *l, uint64_t deadline)
{
	l->deadline = deadline;
	timer_arm(&l->timer, deadline);
}

void lapic_timer_fired(void *opaque)
{
	cpu_notify(((struct lapic *)opaque)->cpu, ATT_IRQ);
}

uint64_t lapic_timer_deadline(const struct lapic *l)
{
	return l->deadline == TIMER_NEVER ? UINT64_MAX : clock_to_host(l->bus->clock, l->deadline);
}

void lapic_timer_restart(struct lapic *l)
{
	uint64_t now = clock_now(l->bus->clock);

	l->hw.timer_start = now;
	arm(l, l->hw.initial_count && mode(l) != MODE_DEADLINE ? now + period(l) : TIMER_NEVER);
}

void lapic_timer_deadline_write(struct lapic *l, uint64_t tsc)
{
	uint64_t host_tsc = tsc - (uint64_t)l->cpu->s.tsc_offset;

	if (mode(l) != MODE_DEADLINE)
		return;
	l->hw.tsc_deadline = tsc;
	if (!tsc) {
		arm(l, TIMER_NEVER);
		return;
	}
	/* A deadline in the past, also by wrapping below zero, is due at once. */
	if ((int64_t)(host_tsc - clock_tsc(l->bus->clock)) <= 0)
		host_tsc = 0;
	arm(l, host_tsc ? clock_tsc_to_ns(l->bus->clock, host_tsc) : 0);
	lapic_reconsider(l);
}

uint32_t lapic_timer_count(const struct lapic *l)
{
	uint64_t gone, p = period(l);

	if (!p || mode(l) == MODE_DEADLINE)
		return 0;
	gone = clock_now(l->bus->clock) - l->hw.timer_start;
	if (gone >= p && mode(l) != MODE_PERIODIC)
		return 0;
	return (uint32_t)((p - gone % p) / divider(l));
}

void lapic_timer_sync(struct lapic *l)
{
	uint64_t now, p;

	if (likely(l->deadline == TIMER_NEVER))
		return;
	now = clock_now(l->bus->clock);
	if (now < l->deadline)
		return;
	if (!(l->hw.lvt[LVT_TIMER] & LVT_MASKED)) {
		uint8_t v = (uint8_t)l->hw.lvt[LVT_TIMER];

		l->hw.irr[v >> 5] |= 1u << (v & 31);
		l->hw.tmr[v >> 5] &= ~(1u << (v & 31));
	}
	p = period(l);
	if (mode(l) == MODE_PERIODIC && p) {
		/* Ticks missed while the host was busy elsewhere are one: the guest's clock does not depend on them. */
		l->hw.timer_start += (now - l->hw.timer_start) / p * p;
		arm(l, l->hw.timer_start + p);
		return;
	}
	l->hw.tsc_deadline = 0;
	l->deadline = TIMER_NEVER;
}

void lapic_timer_rearm(struct lapic *l)
{
	uint64_t now = clock_now(l->bus->clock), p = period(l), gone = now - l->hw.timer_start;

	if (mode(l) == MODE_DEADLINE) {
		lapic_timer_deadline_write(l, l->hw.tsc_deadline);
		return;
	}
	if (!p || (gone >= p && mode(l) != MODE_PERIODIC))
		arm(l, TIMER_NEVER);
	else
		arm(l, now + p - gone % p);
}
