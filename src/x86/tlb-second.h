/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The second level of the software TLB: what was driven out of an entry of the first (4 KiB pages), and the large pages that walks have
 * met (frames of 2 MiB). Only the miss path looks here, before it walks: a walk takes two to four loads that depend on
 * one another, from page tables that are twice the size of this.
 *
 * It says what the page tables said (where, and whether they let write), and nothing about what the memory is used for now: whether a
 * page may get a write tag is asked anew when it comes back to the first level (tlb-fill.c). So nobody but the
 * owner ever changes anything here, and pages that become code or are tracked need not be looked for.
 *
 * What the page tables say is taken back as in the first level: single pages are cleared; whole tables by forgetting the number that
 * stands for them in the tags, tlb_table.second, 0 while there is nothing. Of the table that all spaces share only global
 * pages are kept here, so that a change of the space costs nothing; in the others pages count as not global, so that dropping
 * a space's local pages is to drop its number. Large pages are cleared with their table. Zeros are empty.
 */
#ifndef X86_TLB_SECOND_H
#define X86_TLB_SECOND_H

#include "x86/cpu.h"

#define SECOND_SETS 8192u /* of two: 64 MiB of pages, in 256 KiB */
#define SECOND_LARGE 512u /* 1 GiB of frames */
#define SECOND_IDS 4096u
#define SECOND_WRITABLE 1ull
#define LARGE_SHIFT 21
#define LARGE_MASK ((1ull << LARGE_SHIFT) - 1)

struct tlb_second_entry {
	uint64_t tag;  /* guest page | number of its table */
	uint64_t host; /* page | SECOND_WRITABLE */
};

struct tlb_second {
	struct tlb_second_entry small[SECOND_SETS][2]; /* the newer one first */
	struct tlb_second_entry large[SECOND_LARGE];
};

/* Tables of different spaces hold the same addresses. */
static inline struct tlb_second_entry *second_set(struct tlb *t, uint64_t tag)
{
	return t->second->small[(tag >> 12 ^ (tag & 0xfff) * 67) & (SECOND_SETS - 1)];
}

static inline struct tlb_second_entry *second_frame(struct tlb *t, uint64_t tag)
{
	return &t->second->large[(tag >> LARGE_SHIFT ^ (tag & 0xfff) * 67) & (SECOND_LARGE - 1)];
}

/* Host page | SECOND_WRITABLE; 0: not here. */
static inline uint64_t second_find(struct tlb *t, const struct tlb_table *table, gva_t page)
{
	uint64_t tag = page | table->second;
	const struct tlb_second_entry *e;

	if (!table->second)
		return 0;
	e = second_set(t, tag);
	if (e[0].tag == tag)
		return e[0].host;
	if (e[1].tag == tag)
		return e[1].host;
	tag &= ~LARGE_MASK | 0xfff;
	e = second_frame(t, tag);
	return e->tag == tag ? e->host + (page & LARGE_MASK) : 0;
}

/* INVLPG, or it does not allow what is wanted and a walk has to say. */
static inline void second_clear_page(struct tlb *t, const struct tlb_table *table, gva_t page)
{
	uint64_t tag = page | table->second;
	struct tlb_second_entry *e;

	if (!table->second)
		return;
	e = second_set(t, tag);
	if (e[0].tag == tag)
		e[0].tag = 0;
	if (e[1].tag == tag)
		e[1].tag = 0;
	tag &= ~LARGE_MASK | 0xfff;
	e = second_frame(t, tag);
	if (unlikely(e->tag == tag))
		e->tag = 0;
}

static inline void second_forget(struct tlb_table *table)
{
	if (table->second) /* or memory of unused tables would be touched */
		table->second = 0;
}

/* Tag and host as in the entries, but without the number. */
void second_put_page(struct tlb *t, struct tlb_table *table, gva_t page, uint64_t host);
void second_put_frame(struct tlb *t, struct tlb_table *table, gva_t frame, uint64_t host);

#endif
