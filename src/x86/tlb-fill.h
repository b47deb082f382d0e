/* SPDX-License-Identifier: Apache-2.0 */
/* The miss path of the TLB, in general registers only: translated code calls it with its vector registers live. */
#ifndef X86_TLB_FILL_H
#define X86_TLB_FILL_H

#include "x86/cpu.h"

/* The access is allowed, and its physical address is known, but there is (or must be) no entry for it: MMIO, nothing
 * there, a write to ROM or to a page that holds code or is not dirty yet, a watched page. */
#define TLB_NOT_MEMORY 16

/* Walk and make an entry for the page of `at`. CPU_OK: the entry is there; CPU_FAULT; TLB_NOT_MEMORY with *where. */
int tlb_fill(struct cpu *c, gva_t at, enum tlb_access access, enum tlb_mode mode, gpa_t *where);

/* Is an enabled data breakpoint or a debugger's watchpoint in this page? Then no access to it may be fast. */
bool tlb_page_watched(const struct cpu *c, gva_t page);

#endif
