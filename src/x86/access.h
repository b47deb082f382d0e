/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest-virtual memory accesses of the software engines. Linear addresses: segment bases and limits are
 * the caller's (x86/segment.h), canonical checks are done here (#GP, or #SS via cpu_access_stack).
 * All return CPU_OK or CPU_FAULT with cpu->fault filled; a faulting access has changed nothing. An access that
 * crosses a page is checked on both pages before a byte is written. Alignment check (#AC) is here too.
 */
#ifndef X86_ACCESS_H
#define X86_ACCESS_H

#include <string.h>
#include "x86/cpu.h"

/* The slow ways: fill the TLB, or MMIO, written code, page crossing, faults. mode is enum tlb_mode. */
int access_read_slow(struct cpu *c, gva_t at, void *buf, unsigned size, enum tlb_mode mode);
int access_write_slow(struct cpu *c, gva_t at, const void *buf, unsigned size, enum tlb_mode mode);

static inline void *tlb_read_hit(const struct tlb_table *t, gva_t at, unsigned size)
{
	unsigned i = tlb_index(t, at);

	return likely(at - t->read_tag[i] <= 4096 - size) ? (void *)(at + t->addend[i]) : NULL;
}
static inline void *tlb_write_hit(const struct tlb_table *t, gva_t at, unsigned size)
{
	unsigned i = tlb_index(t, at);

	return likely(at - t->write_tag[i] <= 4096 - size) ? (void *)(at + t->addend[i]) : NULL;
}

/* Data accesses with the current privilege; size up to 64. Inline when size is a constant. */
static inline __attribute__((always_inline)) int cpu_read(struct cpu *c, gva_t at, void *buf,
							  unsigned size)
{
	const void *p = tlb_read_hit(c->tlb.data, at, size);

	if (unlikely(!p))
		return access_read_slow(c, at, buf, size, c->tlb.mode);
	memcpy(buf, p, size);
	return CPU_OK;
}
static inline __attribute__((always_inline)) int cpu_write(struct cpu *c, gva_t at, const void *buf,
							   unsigned size)
{
	void *p = tlb_write_hit(c->tlb.data, at, size);

	if (unlikely(!p))
		return access_write_slow(c, at, buf, size, c->tlb.mode);
	memcpy(p, buf, size);
	return CPU_OK;
}

/* Implicit supervisor accesses: descriptor tables, TSS, and stacks of a new privilege level. */
int cpu_read_system(struct cpu *c, gva_t at, void *buf, unsigned size);
int cpu_write_system(struct cpu *c, gva_t at, const void *buf, unsigned size);
/* An access with the privilege of `cpl` (stack of an outer ring during IRET, ...). */
int cpu_read_as(struct cpu *c, unsigned cpl, gva_t at, void *buf, unsigned size);
int cpu_write_as(struct cpu *c, unsigned cpl, gva_t at, const void *buf, unsigned size);

/* Would [at, at+size) be writable (readable)? Faults without touching data: for several-store instructions. */
int cpu_probe(struct cpu *c, gva_t at, unsigned size, enum tlb_access access);
int cpu_probe_system(struct cpu *c, gva_t at, unsigned size, enum tlb_access access);

/*
 * Read-modify-write. Gives in *host a pointer through which `size` bytes may be changed with host atomics, after all
 * checks for writing. NULL in *host with CPU_OK: not plain memory in one page (MMIO, page crossing, a page
 * that holds code); then use cpu_read, cpu_write between cpu_exclusive_begin/end, which stop the
 * other CPUs' locked and exclusive accesses.
 */
int cpu_rmw(struct cpu *c, gva_t at, unsigned size, void **host);
void cpu_exclusive_begin(struct cpu *c);
void cpu_exclusive_end(struct cpu *c);

/* Page walk only: where does it lead? 0, or CPU_FAULT. Sets accessed and dirty bits as the access would. */
int cpu_translate(struct cpu *c, gva_t at, enum tlb_access access, enum tlb_mode mode, gpa_t *out);
/* The same for debuggers and dumps: no privilege, no side effects, no fault recorded. False: not mapped. */
bool cpu_translate_debug(struct cpu *c, gva_t at, gpa_t *out);
/* Physical page of the code at `at` for execution with the current privilege (through tlb.fetch). */
int cpu_fetch_page(struct cpu *c, gva_t at, gpa_t *page);

#endif
