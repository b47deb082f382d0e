/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A CPU as the software engines see it: the architectural state plus what executing needs (software TLB,
 * the fault underway, the attention word) and a record of callbacks for everything outside the core. The
 * interpreter and the translator share it, so either can go on where the other stopped after any
 * instruction. It knows nothing of threads, devices or the board.
 */
#ifndef X86_CPU_H
#define X86_CPU_H

#include <stdatomic.h>
#include "base/clock.h"
#include "mem/mem.h"
#include "mem/ports.h"
#include "x86/state.h"
#include "x86/tlb.h"

struct cpuid_model;
struct cpu;
struct engine_ops;
struct kick_thread;
struct trace;

/* Result of everything that can end an instruction early. 0 goes on. */
enum cpu_result {
	CPU_OK = 0,
	CPU_FAULT = 1, /* cpu->fault holds the exception; no state was changed */
	CPU_STOP = 2,  /* leave the run loop after this instruction: cpu->stop says why */
	CPU_BOUNDARY = 3, /* completed, but what follows must be looked up anew: mode, paging, IF, code changed */
};

struct cpu_fault {
	uint8_t vector;
	bool has_error;
	bool soft; /* INT n, INT3, INTO: return address is the next instruction, DPL is checked */
	uint8_t len; /* of a soft one's instruction: rip goes back by it when the gate refuses */
	uint32_t error;
	uint64_t cr2;     /* #PF */
	uint64_t dr6;     /* #DB: bits to be set in DR6 */
};

/* Why run() came back. */
enum cpu_stop {
	STOP_NONE,
	STOP_KICK,     /* attention word asks for the caller: see ATT_* */
	STOP_HLT,      /* halted (HLT or MWAIT); activity says so; wake up when an interrupt is there */
	STOP_SHUTDOWN, /* triple fault */
	STOP_DEBUG,    /* a debugger's breakpoint, watchpoint or step */
	STOP_ERROR,    /* the engine itself failed: cpu->error says what */
};

/* A local APIC as architecture has it: word[i] is the register at offset 16 * i of its page. */
struct apic_regs {
	uint64_t base, deadline; /* MSRs 0x1b, 0x6e0 */
	bool timer_frozen; /* import: the timer is not to be taken over, because the machine's time stands still and the host's did not */
	uint32_t word[64];
};

/* What the core asks of the machine around it. ctx is cpu->ctx. Called on the CPU's own thread. */
struct cpu_bus {
	/* Highest-priority interrupt deliverable now (PIC or APIC, TPR applied), -1 if none. */
	int (*irq_pending)(void *ctx);
	/* Acknowledge it: gives the vector and moves it into service; -1 if it went away. */
	int (*irq_take)(void *ctx);
	uint64_t (*cr8_read)(void *ctx);
	void (*cr8_write)(void *ctx, uint64_t v);
	/* MSRs that devices own (APIC base, x2APIC, TSC deadline): 0 handled, -1 not known: #GP */
	int (*msr_read)(void *ctx, uint32_t index, uint64_t *value);
	int (*msr_write)(void *ctx, uint32_t index, uint64_t value);
	void (*init)(void *ctx); /* INIT has been taken: reset the interrupt controller; may be NULL */
	/*
	 * For an engine that has local APICs of its own, all or none of them: registers to it and (a copy) from it; ours are the real
	 * ones again; vectors that were posted to ours, true if any; a level interrupt has ended; the 8259s.
	 */
	void (*apic_export)(void *ctx, struct apic_regs *r);
	void (*apic_import)(void *ctx, const struct apic_regs *r);
	void (*apic_released)(void *ctx);
	bool (*apic_take_posted)(void *ctx, uint64_t vectors[4], uint64_t level[4]);
	void (*apic_eoi)(void *ctx, uint8_t vector);
	bool (*pic_pending)(void *ctx);
	int (*pic_take)(void *ctx);
};

/* What was asked of the engine beside its name. AUTO: as the engine finds best. */
enum engine_choice { ENGINE_AUTO, ENGINE_ON, ENGINE_OFF };
struct engine_options {
	enum engine_choice lapic;      /* the hypervisor's own local APICs in place of ours (irqchip=split) */
	enum engine_choice doorbells;  /* notifications of devices without an exit */
	enum engine_choice irqfds;     /* devices' messages to the hypervisor's local APICs by eventfds */
	enum engine_choice dirty_ring; /* written pages from a ring in place of a bitmap */
};
static inline bool engine_wants(enum engine_choice c, bool best)
{
	return c == ENGINE_AUTO ? best : c == ENGINE_ON;
}

/*
 * Local APICs that are the engine's instead of ours. It sets machine->apic_host once it has all CPUs, and takes it back before it
 * gives one up; then it waits until apic_senders is zero. Callbacks come from any thread.
 */
struct apic_host {
	void *opaque;
	int (*msi)(void *opaque, uint64_t address, uint32_t data); /* 1: accepted, 0: by nobody */
	void (*changed)(void *opaque, struct cpu *c); /* our copy was reset or loaded, and is to be taken over; all CPUs are stopped */
	void (*routes_changed)(void *opaque);         /* machine->apic_route was */
};
struct apic_route { /* the message of an IOAPIC pin: the ends of level interrupts are told (apic_eoi) */
	uint64_t address;
	uint32_t data;
	bool level; /* false: edges, or nothing */
};
#define APIC_ROUTES 24

/* The machine, as its engine sees it. Owned by vm. */
#define MAX_CPUS 64
struct machine {
	struct mem *mem;
	struct ports *ports;
	struct clock *clock;
	struct cpuid_model *cpuid; /* constant once the engine is attached */
	bool cpuid_promised; /* a guest has seen it: an engine that cannot hold it is refused, nothing is taken away */
	const struct engine_ops *engine;
	void *engine_data; /* the engine's own, from vm_attach */
	const struct apic_host *_Atomic apic_host; /* NULL: local APICs are ours */
	_Atomic unsigned apic_senders;
	struct apic_route apic_route[APIC_ROUTES];
	struct engine_options engine_options; /* constant while an engine is attached */
	bool accelerated; /* measured: hardware runs the guest */
	struct cpu *cpus[MAX_CPUS];
	unsigned ncpus;
	struct trace *trace; /* NULL when nothing is traced */
	bool sample; /* engines may spend a little on finding out where the time goes: --stats */
	/* An instruction that must exclude all other CPUs (split locks) runs under this; see x86/access.h. */
	_Atomic uint32_t exclusive;
};

/* Attention: reasons for a CPU to leave its fast path at the next boundary. Set by cpu_notify(). */
#define ATT_IRQ BIT(0)   /* something was posted to its interrupt controller */
#define ATT_NMI BIT(1)
#define ATT_INIT BIT(2)
#define ATT_SIPI BIT(3)  /* vector in cpu->sipi_vector */
#define ATT_SMI BIT(4)
#define ATT_CALLER BIT(5) /* run() must return STOP_KICK: pause, stop, ... */
#define ATT_FLUSH BIT(6)  /* the engine's own: code or TLB invalidation is waiting */
#define ATT_DEBUG BIT(7)

/* Room for the engine's own hot data, next to the state so that generated code reaches both from one base. */
#define CPU_HOT_SIZE (3u << 20)

/* Where the CPU's thread is; decides which notification a posted request needs. */
enum cpu_run_state { CPU_READY, CPU_RUNNING, CPU_HALTED };

/* A debugger's requests; all zero when there is none. Only changed while the CPU is stopped. */
#define DEBUG_POINTS 64
struct cpu_debug {
	bool active; /* any of the below: engines take their exact, slow path */
	bool step;
	unsigned nbreaks, nwatches;
	gva_t breaks[DEBUG_POINTS];
	struct {
		gva_t at;
		uint32_t len;
		bool on_read, on_write;
	} watches[DEBUG_POINTS];
	bool was_hit;
	gva_t hit; /* address of the watchpoint that stopped us */
};

struct cpu {
	struct x86_state s; /* first: generated code uses small offsets */
	struct tlb tlb;
	_Atomic uint32_t attention;
	_Atomic uint32_t run_state; /* enum cpu_run_state */
	_Atomic uint32_t notifying; /* threads in cpu_notify() that may be about to call the engine's kick */
	struct cpu_fault fault;
	enum cpu_stop stop;
	uint8_t sipi_vector;
	unsigned id; /* index in machine->cpus; also the APIC id */
	struct machine *machine;
	struct mem *mem; /* = machine->mem */
	const struct cpu_bus *bus;
	void *ctx;
	void *engine_data; /* the engine's own, from vcpu_create */
	void *trace_data;
	struct cpu_debug debug;
	uint64_t data_hits; /* DR6 bits of data breakpoints that the instruction underway has met */
	uint64_t steal_next, steal_seen; /* when to look again, and what was told so far (x86/pv.h) */
	uint32_t pauses; /* PAUSE instructions, for stepping aside in long spins */
	uint64_t insns; /* instructions retired, as far as the engine counts */
	struct evex_unit *evex; /* of the interpreters that execute for it (engine/interp/evex.h); NULL without AVX-512 */
	unsigned evex_users;
	const char *error;
	/* Wake the halted thread, whose run_state has just been made CPU_READY; any thread, async-signal-safe. */
	void (*wake)(struct cpu *c);
	struct kick_thread *thread; /* for engines that need a signal to stop; see base/kick.h */
	uint8_t hot[CPU_HOT_SIZE] __attribute__((aligned(64))); /* untouched by other engines */
};

/*
 * Post a request (any thread): sets `what` in the attention word and notifies only as the state of the
 * CPU needs: running: engine kick; halted: wake; ready: nothing. A request already pending needs no second.
 */
void cpu_notify(struct cpu *c, uint32_t what);

/* Record an exception and return CPU_FAULT. */
static inline int cpu_raise(struct cpu *c, enum x86_vector vector)
{
	c->fault = (struct cpu_fault){ .vector = (uint8_t)vector };
	return CPU_FAULT;
}
static inline int cpu_raise_error(struct cpu *c, enum x86_vector vector, uint32_t error)
{
	c->fault = (struct cpu_fault){ .vector = (uint8_t)vector, .has_error = true, .error = error };
	return CPU_FAULT;
}

static inline uint64_t cpu_tsc(const struct cpu *c)
{
	return clock_tsc(c->machine->clock) + (uint64_t)c->s.tsc_offset;
}

#endif
