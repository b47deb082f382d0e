/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interpreter: the reference for the other engines, and their helper of last resort.
 */
#ifndef ENGINE_INTERP_INTERP_H
#define ENGINE_INTERP_INTERP_H

#include "isa/insn.h"
#include "x86/cpu.h"

struct err;
struct machine;
struct code_registry;

/* Decoded-instruction cache and the rest of what stepping needs, in cpu->engine_data's owner or alone. */
struct interp;
struct interp *interp_create(struct cpu *c, struct err *e);
void interp_destroy(struct interp *in);

/* Which code a machine's CPUs keep decoded; told of writes to it (registry.c). */
struct code_registry *registry_create(struct machine *m);
void registry_destroy(struct code_registry *r);
/* The CPU's thread enters and leaves its run loop, and passes a boundary with ATT_FLUSH set. */
void registry_enter(struct code_registry *r, struct cpu *c);
void registry_exit(struct code_registry *r, struct cpu *c);
void registry_boundary(struct code_registry *r, struct cpu *c);

/* One that keeps what it decodes. */
struct interp *interp_create_keeping(struct cpu *c, struct code_registry *r, struct err *e);
void interp_forget(struct interp *in); /* all it keeps */
void interp_give_back(struct interp *in); /* the CPU is halted: what is decoded and its memory; on its thread */

/* For engines with a loop of their own: before c->stop of the last run is cleared, */
void interp_resume(struct interp *in, const struct cpu *c);
/* and from a boundary to the next: CPU_BOUNDARY or CPU_STOP. unserved: attention bits that do not count. */
int interp_run_on(struct interp *in, struct cpu *c, uint32_t unserved);

/*
 * Execute exactly one instruction at rip (one iteration of a REP) with everything that belongs to it:
 * fetch and decode, faults delivered, traps, shadow. Does not look at the attention word.
 * CPU_OK, CPU_BOUNDARY or CPU_STOP.
 */
int interp_step(struct interp *in, struct cpu *c);

/*
 * Execute an instruction decoded and bound already; rip is that of the instruction and is advanced past
 * it. CPU_FAULT leaves rip at the instruction and cpu->fault set, not delivered.
 */
int interp_exec(struct cpu *c, const struct insn *i);

/*
 * What exec of a conditional jump that was taken returns, so that the loop leaves its block; interp_exec() says
 * CPU_OK instead.
 */
#define INTERP_TAKEN 4

/* In a handler of SIGILL: true if the instruction was the interpreter's and the thread goes on (evex-code.c). */
bool evex_recover(void *ucontext);

/* Choose the handler for a decoded instruction: i->exec. */
void interp_bind(struct insn *i);

#endif
