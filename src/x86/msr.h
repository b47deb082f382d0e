/* SPDX-License-Identifier: Apache-2.0 */
/* MSRs: one table of rows for plain values, functions where a write does something. Unknown ones fault. */
#ifndef X86_MSR_H
#define X86_MSR_H

#include "x86/cpu.h"

int msr_read(struct cpu *c, uint32_t index, uint64_t *value); /* CPU_OK or CPU_FAULT (#GP) */
int msr_write(struct cpu *c, uint32_t index, uint64_t value);

/* Control registers, with every check and side effect (mode changes, TLB). CPU_OK/BOUNDARY or CPU_FAULT. */
int cr_write(struct cpu *c, unsigned number, uint64_t value);
int cr_read(struct cpu *c, unsigned number, uint64_t *value);
int dr_write(struct cpu *c, unsigned number, uint64_t value);
int dr_read(struct cpu *c, unsigned number, uint64_t *value);
int xcr0_write(struct cpu *c, uint64_t value);

#endif
