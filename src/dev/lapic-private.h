/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the local APIC: its state, and what its three files use of each other. */
#ifndef DEV_LAPIC_PRIVATE_H
#define DEV_LAPIC_PRIVATE_H

#include <time.h>
#include "dev/lapic.h"

enum lapic_lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

#define LVT_MASKED 0x10000u
#define LVT_MODE(v) (((v) >> 8) & 7)
#define LVT_TIMER_MODE(v) (((v) >> 17) & 3)
enum lapic_timer_mode { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_DEADLINE };

#define SVR_ENABLE 0x100u
#define BASE_BSP BIT(8)
#define BASE_X2APIC BIT(10)
#define BASE_ENABLE BIT(11)
#define BASE_ADDRESS 0xfee00000ull

enum lapic_delivery {
	DELIVER_FIXED, DELIVER_LOWEST, DELIVER_SMI, DELIVER_NMI = 4, DELIVER_INIT, DELIVER_SIPI,
	DELIVER_EXTINT,
};

#define ESR_SEND_ILLEGAL 0x20u
#define ESR_RECEIVE_ILLEGAL 0x40u
#define ESR_REGISTER 0x80u

struct lapic_hw {
	uint64_t apic_base;
	uint64_t irr[4], isr[4], tmr[4]; /* bit v of vector v */
	uint32_t tpr, ldr, dfr, svr, esr, esr_pending;
	uint32_t icr, icr2;
	uint32_t lvt[LVT_COUNT];
	uint32_t timer_init, timer_div;
	bool timer_running;   /* one-shot and periodic: counting since timer_start */
	uint64_t timer_start; /* virtual ns */
	uint64_t tsc_deadline;
};

struct lapic {
	struct device device;
	struct lapic_hw hw;
	struct lapic_bus *bus;
	struct cpu *cpu;

	/* other threads: posted vectors, how each was triggered last, errors met on the way */
	_Atomic uint64_t posted[4], posted_level[4];
	_Atomic uint32_t posted_errors;
	/* what they may know of the owner's registers */
	_Atomic uint64_t match;
	_Atomic uint32_t lint0;

	/* the timer's host side, see lapic-timer.c */
	uint64_t deadline; /* virtual ns, TIMER_NEVER */
	int64_t tsc_offset; /* deadline was computed with */
	struct timer timer;
	timer_t posix_timer;
	bool attached;
	volatile bool armed; /* posix_timer is, for armed_at or earlier */
	uint64_t armed_at;
	uint64_t armed_for;   /* the same in virtual ns, */
	int64_t armed_clock;  /* as long as the clock is not paused or set: clock_tsc_host_offset() */
	uint64_t halt_armed;  /* armed_at when the CPU halted; 0: it was not */
	bool halts_short;     /* the last halt ended before that */
};

struct lapic_bus {
	struct machine *machine;
	struct clock *clock;
	struct lapic *lapic[MAX_CPUS];
	unsigned count;
	_Atomic unsigned turn; /* lowest priority: whom to try first */
	void (*eoi)(void *opaque, uint8_t vector);
	void *eoi_opaque;
	bool (*pic_pending)(void *opaque);
	int (*pic_take)(void *opaque);
	void *pic_opaque;
};

/* lapic.c: the owner's thread */
static inline bool lapic_enabled(const struct lapic *l)
{
	return l->hw.apic_base & BASE_ENABLE;
}
static inline bool lapic_x2apic(const struct lapic *l)
{
	return l->hw.apic_base & BASE_X2APIC;
}
void lapic_local_interrupt(struct lapic *l, uint32_t lvt); /* an unmasked LVT entry fires */
void lapic_error(struct lapic *l, uint32_t bit);
uint32_t lapic_read(struct lapic *l, unsigned reg); /* reg: offset >> 4 */
void lapic_write(struct lapic *l, unsigned reg, uint32_t value);
void lapic_reset_registers(struct lapic *l);
void lapic_merge(struct lapic *l); /* what was posted into IRR */
uint32_t lapic_lvt_mask(unsigned i); /* bits that an LVT entry can have */
static inline const struct apic_host *lapic_host(const struct lapic *l)
{
	return atomic_load(&l->bus->machine->apic_host);
}

/* lapic-bus.c */
void lapic_post(struct lapic *l, uint8_t vector, bool level); /* any thread */
void lapic_publish(struct lapic *l); /* after SVR, LDR, DFR, base or LINT0 changed */
void lapic_send(struct lapic *l, uint32_t icr, uint32_t dest);
bool lapic_extint(const struct lapic *l); /* the 8259 wants this CPU */
int lapic_map(struct lapic_bus *b, struct err *e);

/* lapic-host.c */
int lapic_host_deliver(struct lapic_bus *b, const struct lapic_msg *m); /* -1: ours are the real ones after all */
void lapic_export(void *ctx, struct apic_regs *r);
void lapic_import(void *ctx, const struct apic_regs *r);
void lapic_released(void *ctx);
bool lapic_take_posted(void *ctx, uint64_t vectors[4], uint64_t level[4]);
void lapic_host_eoi(void *ctx, uint8_t vector);
bool lapic_pic_pending(void *ctx);
int lapic_pic_take(void *ctx);

/* lapic-timer.c */
void lapic_timer_init(struct lapic *l);
void lapic_timer_dispose(struct lapic *l);
void lapic_timer_poll(struct lapic *l);   /* expired? */
void lapic_timer_update(struct lapic *l); /* a register it hangs on has changed */
uint32_t lapic_timer_count(struct lapic *l);
void lapic_timer_rest(struct lapic *l); /* somebody else keeps the time */
uint64_t lapic_timer_ticks(const struct lapic *l, uint32_t count); /* ns of so many ticks */
void lapic_timer_set_count(struct lapic *l, uint32_t value);
void lapic_timer_set_lvt(struct lapic *l, uint32_t value);
void lapic_timer_set_divide(struct lapic *l, uint32_t value);
void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc);

#endif
