/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtual clock of a machine: nanoseconds of guest life. It stops while the machine is paused and
 * is what TSC, PIT, RTC, PM timer, APIC timer and pvclock are computed from. Timers fire on the
 * machine's event-loop thread. A manual clock (tests) moves only by clock_advance, which fires what is due, in order,
 * on the caller's thread.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include "base/base.h"

struct clock;
struct evloop;
struct err;

/* What the host's counter and clock read at one time. */
struct clock_sample {
	uint64_t tsc, ns;
};
struct clock_sample clock_look(void);
/* Starts paused, at 0. `since`: a look at some time before, which spares waiting for a second one; NULL: there was none. */
struct clock *clock_create(struct evloop *loop, const struct clock_sample *since, struct err *e);
struct clock *clock_create_manual(void);
void clock_destroy(struct clock *c);

uint64_t clock_now(const struct clock *c); /* ns, any thread, no locks */
void clock_pause(struct clock *c);
void clock_resume(struct clock *c);
void clock_set(struct clock *c, uint64_t ns);      /* on load; only while paused */
void clock_advance(struct clock *c, uint64_t ns); /* manual clocks only */

/*
 * The clock counts TSC ticks; nanoseconds are ticks * 10^6 / khz, so both never drift against each other.
 * clock_tsc_to_ns rounds up: a timer armed with its result never fires while the TSC is below `tsc`.
 */
/* The guest's TSC before TSC_ADJUST / TSC writes: runs at clock_tsc_khz, stops with the clock. */
uint64_t clock_tsc(const struct clock *c);
uint64_t clock_tsc_khz(const struct clock *c);
uint64_t clock_ns_to_tsc(const struct clock *c, uint64_t ns);
uint64_t clock_tsc_to_ns(const struct clock *c, uint64_t tsc);
/* What translated code needs to compute the TSC inline: tsc = rdtsc() + offset while running. */
/* Ask again whenever the machine has been paused. */
int64_t clock_tsc_host_offset(const struct clock *c);
/* The host CLOCK_MONOTONIC time (ns) at which the virtual clock will read `ns`: UINT64_MAX for TIMER_NEVER
 * and while the clock is paused. */
uint64_t clock_to_host(const struct clock *c, uint64_t ns);

uint64_t clock_host_now(void); /* CLOCK_MONOTONIC, ns */

#define TIMER_NEVER UINT64_MAX
typedef void (*timer_fn)(void *opaque);
struct timer {
	struct clock *clock;
	timer_fn fn;
	void *opaque;
	uint64_t deadline; /* virtual ns; TIMER_NEVER when idle */
	struct timer *next; /* the clock's sorted list */
};
void timer_init(struct timer *t, struct clock *c, timer_fn fn, void *opaque);
void timer_arm(struct timer *t, uint64_t deadline); /* any thread; replaces an earlier deadline */
void timer_cancel(struct timer *t); /* any thread; the callback may still be running elsewhere */

#endif
