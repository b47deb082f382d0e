/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contract of an engine: something that executes guest instructions. Chosen per machine and
 * exchangeable while the machine is paused, because all of them load and store the same x86_state.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "x86/cpu.h"

struct err;

struct engine_ops {
	const char *name;
	unsigned debug_points; /* breakpoints and watchpoints that it can have at once, aligned ones up to 8 bytes; 0: no such limit */
	/* Does it work on this host? -errno and a remedy in e when not. */
	int (*probe)(struct err *e);
	int (*vm_attach)(struct machine *m, struct err *e);
	void (*vm_detach)(struct machine *m);
	int (*cpu_create)(struct cpu *c, struct err *e); /* on the CPU's own thread */
	void (*cpu_destroy)(struct cpu *c);
	/*
	 * Execute until something needs the caller; returns cpu->stop. Port, MMIO, MSR and interrupt
	 * traffic goes through machine->mem, machine->ports and cpu->bus without returning. For STOP_HLT
	 * activity, nmi_mask and RFLAGS.IF in cpu->s are current: they say what ends the halt.
	 */
	enum cpu_stop (*run)(struct cpu *c);
	/* Make a running CPU look at its attention word soon. Any thread, async-signal-safe. */
	void (*kick)(struct cpu *c);
	/* Bring cpu->s up to date, or take over what was changed in it. Only while the CPU is stopped. */
	void (*state_get)(struct cpu *c);
	void (*state_set)(struct cpu *c);
	/* Could it run on with cpu->s? -errno and the reason when not. NULL: always. On the CPU's thread, while it is stopped. */
	int (*state_check)(struct cpu *c, struct err *e);
	/*
	 * The CPU is halted; called on its thread before it waits. Gives when to be asked again (CLOCK_MONOTONIC, ns), UINT64_MAX: with
	 * the next halt. NULL: nothing to be done.
	 */
	uint64_t (*idle)(struct cpu *c);
	/* cpu->debug was changed (CPU stopped). */
	void (*debug_set)(struct cpu *c);
	/* One line a counter, for --stats. */
	void (*stats)(struct machine *m, void (*line)(void *opaque, const char *name, uint64_t value),
		      void *opaque);
};

extern const struct engine_ops engine_dbt, engine_interp, engine_verify;

/* NULL-terminated, in order of preference. */
const struct engine_ops *const *engine_list(void);
const struct engine_ops *engine_find(const char *name);
/* "NAME" or "NAME,option=value,...": the engine and its options, or -EINVAL and why. "auto" has no engine and no options. */
int engine_parse(const char *spec, const struct engine_ops **ops, struct engine_options *options, struct err *e);

#endif
