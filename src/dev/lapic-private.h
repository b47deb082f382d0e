/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the local APIC share. */
#ifndef DEV_LAPIC_PRIVATE_H
#define DEV_LAPIC_PRIVATE_H

#include "dev/lapic.h"

enum lapic_lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

#define LVT_MASKED 0x10000u
#define LVT_MODE_SHIFT 17 /* timer: 0 one-shot, 1 periodic, 2 TSC deadline */
#define LVT_DELIVERY(v) ((v) >> 8 & 7)
#define SVR_ENABLED 0x100u
#define BASE_BSP BIT(8)
#define BASE_X2 BIT(10)
#define BASE_ENABLED BIT(11)
#define DELIVERY_NMI 4
#define DELIVERY_EXTINT 7

struct lapic_hw { /* saved */
	uint64_t base;
	uint32_t id, tpr, ldr, dfr, svr, esr, esr_pending, icr_low, icr_high;
	uint32_t isr[8], tmr[8], irr[8];
	uint32_t lvt[LVT_COUNT];
	uint32_t initial_count, divide;
	uint64_t timer_start;  /* virtual ns at which the count was (re)started */
	uint64_t tsc_deadline; /* as the guest wrote it; 0: off */
};

struct lapic {
	struct device device;
	struct lapic_hw hw;
	struct lapic_bus *bus;
	struct cpu *cpu;
	uint64_t deadline;     /* virtual ns of the next expiry, TIMER_NEVER */
	struct timer timer;    /* makes a running CPU look */
	/* posted by any thread, merged into IRR and TMR by the owner */
	_Atomic uint64_t posted[4], posted_level[4];
};

struct lapic_bus {
	struct machine *machine;
	struct clock *clock;
	struct lapic *lapic[MAX_CPUS];
	unsigned count;
	_Atomic uint32_t rotate; /* lowest priority goes round */
	void (*eoi)(void *opaque, uint8_t vector);
	void *eoi_opaque;
	bool (*pic_pending)(void *opaque);
	int (*pic_take)(void *opaque);
	void *pic_opaque;
};

static inline bool lapic_x2(const struct lapic *l)
{
	return (__atomic_load_n(&l->hw.base, __ATOMIC_RELAXED) & (BASE_ENABLED | BASE_X2)) ==
	       (BASE_ENABLED | BASE_X2);
}
static inline bool lapic_enabled(const struct lapic *l)
{
	return (__atomic_load_n(&l->hw.base, __ATOMIC_RELAXED) & BASE_ENABLED) &&
	       (__atomic_load_n(&l->hw.svr, __ATOMIC_RELAXED) & SVR_ENABLED);
}

/* lapic.c: registers, by xAPIC offset >> 4. False: there is no such register. Owner's thread. */
bool lapic_reg_read(struct lapic *l, unsigned reg, uint32_t *value);
bool lapic_reg_write(struct lapic *l, unsigned reg, uint32_t value);
/* Any thread: make `vector` pending. */
void lapic_post(struct lapic *l, uint8_t vector, bool level);
/* Owner's thread: note an error for ESR and raise the error interrupt. */
#define ESR_SEND_ILLEGAL 0x20u
void lapic_error(struct lapic *l, uint32_t what);

/* lapic-irq.c: priorities. Owner's thread. */
int lapic_highest(const uint32_t bits[8]);
void lapic_merge_posted(struct lapic *l); /* what others have posted, into IRR and TMR */
uint32_t lapic_ppr(const struct lapic *l);
void lapic_eoi(struct lapic *l);
void lapic_reconsider(struct lapic *l); /* something may be deliverable now: have the engine look */

/* lapic-timer.c. Owner's thread. */
void lapic_timer_restart(struct lapic *l); /* initial count, divide or mode was written */
uint32_t lapic_timer_count(const struct lapic *l);
void lapic_timer_sync(struct lapic *l);    /* fire what is due */
void lapic_timer_rearm(struct lapic *l);   /* after a load */
void lapic_timer_deadline_write(struct lapic *l, uint64_t tsc);
void lapic_timer_fired(void *opaque);      /* event loop */

/* lapic-bus.c */
void lapic_icr_send(struct lapic *l, uint32_t low, uint32_t dest);

#endif
