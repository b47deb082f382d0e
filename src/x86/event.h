/* SPDX-License-Identifier: Apache-2.0 */
/* Exceptions and interrupts through the guest's IDT or IVT, with every mode's stack frame. */
#ifndef X86_EVENT_H
#define X86_EVENT_H

#include "x86/cpu.h"

/*
 * Deliver cpu->fault (an exception, or INT n and its kin): contributory faults become #DF, a fault in that
 * becomes shutdown. rip is that of the faulting instruction; for soft and trap events the caller has
 * advanced it. CPU_BOUNDARY, or CPU_STOP with cpu->stop = STOP_SHUTDOWN.
 */
int event_deliver_fault(struct cpu *c);
bool event_fault_quick(struct cpu *c); /* in 64-bit code, without surprises; false: nothing done. General registers only */
bool event_interrupt_quick(struct cpu *c, uint8_t vector);
int event_deliver_interrupt(struct cpu *c, uint8_t vector); /* external; wakes from HLT */
int event_deliver_nmi(struct cpu *c);

/*
 * Called by engines at an instruction boundary when the attention word is set, after IF or the shadow
 * changed, and on entry: takes INIT, SIPI, NMI, interrupts as the state allows. CPU_OK: nothing to
 * do (attention bits that could not be served yet stay, or are remembered in the interrupt
 * controller); CPU_BOUNDARY: state changed; CPU_STOP: leave (STOP_KICK, STOP_HLT, ...).
 */
int event_attend(struct cpu *c);
/* An interrupt could be taken if IF were set / the shadow ended: engines ask after STI, POPF, IRET. */
bool event_interrupt_waiting(struct cpu *c);

/* After an instruction with TF set, or a data breakpoint: raise #DB as a trap. */
int event_debug_trap(struct cpu *c, uint64_t dr6);

/* 32-bit task switch through a TSS or task gate. */
enum task_source { TASK_JUMP, TASK_CALL, TASK_IRET, TASK_INTERRUPT };
int task_switch(struct cpu *c, uint16_t selector, enum task_source source, bool has_error, uint32_t error);

#endif
