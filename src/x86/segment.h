/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segmentation and control transfers through descriptors. Every function checks first and changes state
 * last; a CPU_FAULT leaves the CPU as it was.
 */
#ifndef X86_SEGMENT_H
#define X86_SEGMENT_H

#include "x86/cpu.h"

/* Linear address of seg:offset for an access of size bytes; checks limit and type in legacy modes, #GP/#SS. */
int seg_linear(struct cpu *c, enum x86_seg seg, uint64_t offset, unsigned size, bool write,
	       gva_t *linear);
/* MOV/POP to a data segment register or SS; LDS.. too. Real, v86, protected, 64-bit rules. */
int seg_load(struct cpu *c, enum x86_seg seg, uint16_t selector);
int seg_load_ldtr(struct cpu *c, uint16_t selector);
int seg_load_tr(struct cpu *c, uint16_t selector);
/* Far transfers. `size` is the operand size in bytes (2, 4, 8). rip is already that of the next instruction. */
int seg_far_jump(struct cpu *c, uint16_t selector, uint64_t offset, unsigned size);
int seg_far_call(struct cpu *c, uint16_t selector, uint64_t offset, unsigned size);
int seg_far_return(struct cpu *c, unsigned size, unsigned release);
int seg_iret(struct cpu *c, unsigned size);
bool seg_iret_quick_32(struct cpu *c); /* the same of IRETD on a stack of flat 32 bits */
bool seg_iret_quick(struct cpu *c); /* IRETQ without surprises; false: nothing done, take seg_iret() */
int seg_syscall(struct cpu *c);
int seg_sysret(struct cpu *c, unsigned size);
int seg_sysenter(struct cpu *c);
int seg_sysexit(struct cpu *c, unsigned size);
/* LAR, LSL, VERR, VERW: true when the descriptor is accessible; value in *out. Faults only on memory. */
int seg_lar(struct cpu *c, uint16_t selector, bool *ok, uint32_t *out);
int seg_lsl(struct cpu *c, uint16_t selector, bool *ok, uint32_t *out);
int seg_verify(struct cpu *c, uint16_t selector, bool write, bool *ok);

/* Set CPL and what hangs off it (TLB mode). The only place that writes s.cpl. */
void cpu_set_cpl(struct cpu *c, unsigned cpl);
/* All writes to RFLAGS that may change AC, IF, TF, VM go through this. */
void cpu_set_rflags(struct cpu *c, uint64_t rflags);

#endif
