/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's page tables: none, 32-bit with PSE, PAE, four-level. */
#ifndef X86_PGWALK_H
#define X86_PGWALK_H

#include "x86/cpu.h"

struct pgwalk {
	gpa_t page;      /* of the 4 KiB page */
	uint64_t size;   /* of the mapping: 4 KiB to 1 GiB; 2^64-1 without paging */
	bool writable, user, executable, global;
	bool dirty;      /* set in the tables, so that later writes need no walk */
};

/*
 * Translate for one access. `mode` gives the privilege: TLB_SUPER is a supervisor that SMAP keeps from user pages. Sets
 * accessed bits, and dirty ones for a write. CPU_OK, or CPU_FAULT with the #PF in cpu->fault (CR2 included).
 */
int pgwalk(struct cpu *c, gva_t at, enum tlb_access access, enum tlb_mode mode, struct pgwalk *out);

/*
 * The same, but calls nothing that is not built for general registers only. PGWALK_ODD: that does not do here (tables
 * outside of RAM and ROM, or on a page that holds code and must be written); nothing has been changed.
 */
#define PGWALK_ODD 17
int pgwalk_plain(struct cpu *c, gva_t at, enum tlb_access access, enum tlb_mode mode, struct pgwalk *out);

/* For debuggers: nothing is set, privilege does not matter. */
bool pgwalk_debug(struct cpu *c, gva_t at, gpa_t *out);

#endif
