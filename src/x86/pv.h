/* SPDX-License-Identifier: Apache-2.0 */
/* The paravirtual interface of KVM as far as it is offered in CPUID: clock pages and hypercalls. */
#ifndef X86_PV_H
#define X86_PV_H

#include "x86/cpu.h"

#define MSR_KVM_WALL_CLOCK_OLD 0x11
#define MSR_KVM_SYSTEM_TIME_OLD 0x12
#define MSR_KVM_WALL_CLOCK 0x4b564d00
#define MSR_KVM_SYSTEM_TIME 0x4b564d01
#define MSR_KVM_STEAL_TIME 0x4b564d03

/* The guest wrote the address of a page: fill it. CPU_OK or CPU_FAULT. */
int pv_system_time_write(struct cpu *c, uint64_t value);
int pv_wall_clock_write(struct cpu *c, uint64_t value);
void pv_system_time_update(struct cpu *c); /* after a load, and when the guest changed its TSC */

/*
 * Steal time: how long this CPU's thread was ready to run and did not. The address of the guest's record; and bringing it
 * up to date, on the CPU's own thread, which reads the host's figure no more often than every PV_STEAL_PERIOD ns.
 */
#define PV_STEAL_PERIOD 4000000u
int pv_steal_write(struct cpu *c, uint64_t value);
void pv_steal_update(struct cpu *c);
static inline void pv_steal_tick(struct cpu *c)
{
	if (c->s.pv_steal & 1)
		pv_steal_update(c);
}

/* VMCALL, VMMCALL: number in RAX, result there. */
int pv_hypercall(struct cpu *c);

#endif
