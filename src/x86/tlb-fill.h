/* SPDX-License-Identifier: Apache-2.0 */
/* The miss path of the TLB, in general registers only: translated code calls it with its vector registers live. */
#ifndef X86_TLB_FILL_H
#define X86_TLB_FILL_H

#include "x86/cpu.h"

/*
 * There is (or must be) no entry for the access: MMIO, nothing there, a write to ROM or to a page that holds code, a
 * watched page. It is allowed, and leads to *where; with WHERE_UNKNOWN even that has to be asked of pgwalk().
 */
#define TLB_NOT_MEMORY 16
#define WHERE_UNKNOWN (~0ull)

/* Walk and make an entry for the page of `at`. CPU_OK: the entry is there; CPU_FAULT; TLB_NOT_MEMORY with *where. */
int tlb_fill(struct cpu *c, gva_t at, enum tlb_access access, enum tlb_mode mode, gpa_t *where);

/*
 * What the table's entry for this page has, also in the entry that it had in a small table (tlb.h). True: the access may be made
 * through that one.
 */
bool tlb_low(struct cpu *c, gva_t at, bool write);

/* All that a table has into the second level, where it is small and about to be replaced. */
void tlb_drive_all(struct tlb *t, struct tlb_table *table);

/* Is an enabled data breakpoint or a debugger's watchpoint in this page? Then no access to it may be fast. */
bool tlb_page_watched(const struct cpu *c, gva_t page);

/* mem_find(), remembering the range of RAM or ROM found last. */
const struct mem_range *tlb_range_find(struct cpu *c, gpa_t at);
static inline const struct mem_range *tlb_range(struct cpu *c, gpa_t at)
{
	const struct mem_range *r = &c->tlb.range;

	return likely(at - r->start < r->size) ? r : tlb_range_find(c, at);
}

/* Does a user's fetch from this page of the current space, not global and not large, lead to this page, without a look in the TLB? */
bool tlb_fetch_leads(struct cpu *c, gva_t page, gpa_t to);

/* The bit that says that the page has been fetched from. */
static inline uint64_t *fetched_word(struct tlb *t, gva_t page, uint64_t *bit)
{
	uint64_t n = page >> 12 ^ page >> 24;

	*bit = BIT(n & 63);
	return &t->fetched[n >> 6 & 63];
}

/* Where large mappings of this page's half of the address space are remembered: see tlb_flush_page. */
static inline struct tlb_large *large_of(struct tlb *t, gva_t page)
{
	return page >> 63 ? &t->large : &t->space->large;
}

static inline void large_remember(struct tlb *t, gva_t page, uint64_t size)
{
	struct tlb_large *l = large_of(t, page);

	if (likely(size == GUEST_PAGE) || size == ~0ull)
		return;
	l->frames[page >> 27 & 15] |= BIT(page >> 21 & 63);
	if (size > 4ull << 20)
		l->huge |= BIT(page >> 30 & 63);
}

#endif
