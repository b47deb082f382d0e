/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local APIC's timer: one-shot, periodic, TSC-deadline. It counts the virtual clock at 1 GHz, one tick a
 * nanosecond, as CPUID tells the guest.
 *
 * Expiry is found by the owner when it looks for interrupts (lapic_timer_poll); the host's timers only make it
 * look. While the CPU runs that is a POSIX timer that signals this very thread, so no other thread has to be
 * scheduled for a tick; without one (tests, or none to be had) the clock's timer notifies from its thread. A
 * halting CPU takes over the waiting itself: lapic_timer_deadline() disarms and returns the deadline. Where the halt before this one
 * was over before the host's timer would have fired (a byte there and back over a network: thousands of halts a second), disarming it and
 * arming it again would be two system calls for nothing: it stays armed.
 *
 * A host timer armed too early is left alone, because to fire for nothing once is cheaper than a system call each
 * time the guest moves its deadline; lapic_timer_poll() arms it again. So it does after a pause, in which the
 * virtual clock stands still and the host's does not.
 */
#include "dev/lapic-private.h"

static void clock_timer_fired(void *opaque)
{
	struct lapic *l = opaque;

	cpu_notify(l->cpu, ATT_IRQ);
}

void lapic_timer_init(struct lapic *l)
{
	timer_init(&l->timer, l->bus->clock, clock_timer_fired, l);
	l->deadline = TIMER_NEVER;
}

void lapic_timer_dispose(struct lapic *l)
{
	timer_cancel(&l->timer);
}

static uint64_t period(const struct lapic *l)
{
	static const uint8_t shift[8] = { 1, 2, 3, 4, 5, 6, 7, 0 };
	uint32_t div = l->hw.timer_div;

	return (uint64_t)l->hw.timer_init << shift[(div & 3) | (div >> 1 & 4)];
}

uint64_t lapic_timer_ticks(const struct lapic *l, uint32_t count)
{
	return l->hw.timer_init ? period(l) / l->hw.timer_init * count : 0;
}

void lapic_timer_rest(struct lapic *l)
{
	l->deadline = TIMER_NEVER;
	l->tsc_offset = l->cpu->s.tsc_offset;
	if (!l->attached)
		timer_cancel(&l->timer);
}

/* Virtual ns at which the guest's TSC will have reached the deadline. */
static uint64_t tsc_expiry(const struct lapic *l)
{
	uint64_t ticks = clock_tsc(l->bus->clock), guest = ticks + (uint64_t)l->cpu->s.tsc_offset;
	uint64_t delta = l->hw.tsc_deadline - guest;

	if (!l->hw.tsc_deadline)
		return TIMER_NEVER;
	if (l->hw.tsc_deadline <= guest)
		return 0;
	if (delta > UINT64_MAX - ticks)
		return TIMER_NEVER;
	return clock_tsc_to_ns(l->bus->clock, ticks + delta);
}

static uint64_t expiry(const struct lapic *l)
{
	if (LVT_TIMER_MODE(l->hw.lvt[LVT_TIMER]) == TIMER_DEADLINE)
		return tsc_expiry(l);
	return l->hw.timer_running ? l->hw.timer_start + period(l) : TIMER_NEVER;
}

static bool masked(const struct lapic *l)
{
	return l->hw.lvt[LVT_TIMER] & LVT_MASKED;
}

static void host_arm(struct lapic *l)
{
	struct itimerspec when = { 0 };
	int64_t offset;
	uint64_t at;

	if (!l->attached) {
		timer_arm(&l->timer, masked(l) ? TIMER_NEVER : l->deadline);
		return;
	}
	if (masked(l) || l->deadline == TIMER_NEVER)
		return;
	offset = clock_tsc_host_offset(l->bus->clock);
	if (l->armed && l->armed_for <= l->deadline && l->armed_clock == offset)
		return;
	at = clock_to_host(l->bus->clock, l->deadline);
	if (at == UINT64_MAX || (l->armed && l->armed_at <= at)) /* paused: the poll after it arms */
		return;
	l->armed_at = at;
	l->armed_for = l->deadline;
	l->armed_clock = offset;
	l->armed = true;
	at = MAX(MIN(at, (uint64_t)INT64_MAX), 1u); /* 0 would disarm */
	when.it_value.tv_sec = (time_t)(at / 1000000000u);
	when.it_value.tv_nsec = (long)(at % 1000000000u);
	timer_settime(l->posix_timer, TIMER_ABSTIME, &when, NULL);
}

void lapic_timer_update(struct lapic *l)
{
	l->tsc_offset = l->cpu->s.tsc_offset;
	l->deadline = expiry(l);
	host_arm(l);
}

static void fire(struct lapic *l, uint64_t now)
{
	uint32_t lvt = l->hw.lvt[LVT_TIMER];

	switch (LVT_TIMER_MODE(lvt)) {
	case TIMER_PERIODIC: /* expiries missed meanwhile are one */
		l->hw.timer_start += (now - l->hw.timer_start) / period(l) * period(l);
		break;
	case TIMER_DEADLINE:
		l->hw.tsc_deadline = 0;
		break;
	default:
		l->hw.timer_running = false;
		break;
	}
	lapic_local_interrupt(l, lvt);
	lapic_timer_update(l);
}

void lapic_timer_poll(struct lapic *l)
{
	uint64_t now;

	if (l->deadline == TIMER_NEVER && l->tsc_offset == l->cpu->s.tsc_offset)
		return;
	if (unlikely(l->tsc_offset != l->cpu->s.tsc_offset))
		lapic_timer_update(l);
	now = clock_now(l->bus->clock);
	if (now >= l->deadline)
		fire(l, now);
	else if (l->attached && !l->armed)
		host_arm(l);
}

uint64_t lapic_timer_deadline(struct lapic *l)
{
	static const struct itimerspec never;

	if (l->tsc_offset != l->cpu->s.tsc_offset)
		lapic_timer_update(l);
	l->halt_armed = l->armed ? l->armed_at : 0;
	if (l->armed && !l->halts_short) {
		timer_settime(l->posix_timer, 0, &never, NULL);
		l->armed = false;
	}
	if (masked(l) || l->deadline == TIMER_NEVER)
		return UINT64_MAX;
	return clock_to_host(l->bus->clock, l->deadline);
}

void lapic_timer_woken(struct lapic *l)
{
	if (l->halt_armed)
		l->halts_short = clock_host_now() < l->halt_armed;
}

/* ---- registers */

uint32_t lapic_timer_count(struct lapic *l)
{
	uint64_t elapsed, whole = period(l), now;

	lapic_timer_poll(l);
	if (!l->hw.timer_running || !whole || LVT_TIMER_MODE(l->hw.lvt[LVT_TIMER]) == TIMER_DEADLINE)
		return 0;
	now = clock_now(l->bus->clock);
	elapsed = now > l->hw.timer_start ? now - l->hw.timer_start : 0;
	if (LVT_TIMER_MODE(l->hw.lvt[LVT_TIMER]) == TIMER_PERIODIC)
		elapsed %= whole;
	if (elapsed >= whole)
		return 0;
	return (uint32_t)((whole - elapsed) / (whole / l->hw.timer_init));
}

void lapic_timer_set_count(struct lapic *l, uint32_t value)
{
	if (LVT_TIMER_MODE(l->hw.lvt[LVT_TIMER]) == TIMER_DEADLINE)
		return;
	lapic_timer_poll(l);
	l->hw.timer_init = value;
	l->hw.timer_running = value != 0;
	l->hw.timer_start = clock_now(l->bus->clock);
	lapic_timer_update(l);
}

/* A change to or from TSC-deadline mode disarms the timer; one between the others lets it count on. */
void lapic_timer_set_lvt(struct lapic *l, uint32_t value)
{
	bool was = LVT_TIMER_MODE(l->hw.lvt[LVT_TIMER]) == TIMER_DEADLINE;
	bool is = LVT_TIMER_MODE(value) == TIMER_DEADLINE;

	lapic_timer_poll(l);
	l->hw.lvt[LVT_TIMER] = value;
	if (was != is) {
		l->hw.timer_running = false;
		l->hw.timer_init = 0;
		l->hw.tsc_deadline = 0;
	}
	lapic_timer_update(l);
}

/* The ticks that are left stay, each of the new length. */
void lapic_timer_set_divide(struct lapic *l, uint32_t value)
{
	uint64_t left = lapic_timer_count(l), now = clock_now(l->bus->clock), done;

	l->hw.timer_div = value;
	if (l->hw.timer_running) {
		done = period(l) - period(l) / l->hw.timer_init * left;
		l->hw.timer_start = now > done ? now - done : 0;
	}
	lapic_timer_update(l);
}

void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc)
{
	if (LVT_TIMER_MODE(l->hw.lvt[LVT_TIMER]) != TIMER_DEADLINE)
		return;
	lapic_timer_poll(l);
	l->hw.tsc_deadline = tsc;
	l->tsc_offset = l->cpu->s.tsc_offset;
	l->deadline = expiry(l);
	if (l->deadline) {
		host_arm(l);
		return;
	}
	/* passed: a host timer's signal would say so two system calls and 20 us later */
	fire(l, clock_now(l->bus->clock));
	cpu_notify(l->cpu, ATT_IRQ);
}
