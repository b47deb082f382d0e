/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The software TLB. One table per privilege mode and address space; tags and addends in separate arrays
 * because that is the fastest form for code generated inline (docs/performance.md). An entry is used so:
 *
 *	i = (gva >> 12) & table->mask
 *	if (gva - table->read_tag[i] <= 4096 - size)	one unsigned compare: tag and page crossing
 *		host = (void *)(gva + table->addend[i])
 *
 * Only RAM and ROM pages have entries (ROM never a write tag; RAM a write tag only if the guest's
 * dirty bit is set and mem_page_plain_write() holds). Everything else takes the slow way in access.c.
 *
 * Three modes: supervisor accesses to user pages depend on SMAP and EFLAGS.AC, so that STAC/CLAC only
 * switch tables. Address spaces (PCIDs) have tables of their own in a small cache of slots, so that a
 * CR3 write with PCIDs moves pointers instead of flushing.
 *
 * A table has TLB_ENTRIES entries until it proves too small, then TLB_GROWN_ENTRIES (tlb-grow.c): most programs need few, and
 * what is not there need not be emptied, flushed or kept in memory. Whoever knows the address beforehand, or guesses the
 * entry, looks only into the first TLB_ENTRIES, whatever the size: tlb_low() makes a second entry there.
 *
 * Other threads may clear tags (tlb_revoke_page), nobody but the owner sets them.
 */
#ifndef X86_TLB_H
#define X86_TLB_H

#include "base/base.h"
#include "mem/mem.h"

#define TLB_BITS 11
#define TLB_ENTRIES (1u << TLB_BITS)
#define TLB_GROWN_BITS 15
#define TLB_GROWN_ENTRIES (1u << TLB_GROWN_BITS)
#define TLB_GROWN 4u /* tables of that size that a CPU has at most */
#define TLB_STRIDE (TLB_GROWN_ENTRIES + TLB_ENTRIES) /* from array to array of a table of either size */
#define TLB_TABLES (2 * TLB_SPACES + 2)
#define TLB_NONE 0xfffull /* no page: empty entries of struct tlb_fetch, which compares for equality */
#define TLB_SPACES 8      /* address spaces kept at a time */

enum tlb_mode { TLB_USER, TLB_SUPER, TLB_SUPER_AC, TLB_MODES };
enum tlb_access { ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH };

/*
 * The tag of an empty entry: an address that is not canonical and belongs into the neighbouring entry. Who looks into the entry where
 * an address belongs never takes it for a hit, whatever the address. Who looks into another (the translator may guess
 * which it is) does so only for addresses that are not canonical, and those stay so when the entry's addend is added.
 */
static inline uint64_t tlb_none(unsigned entry)
{
	return 1ull << 63 | (uint64_t)(entry ^ 1) << 12;
}

/*
 * Of 64 entries, bits: in use; of pages that are not global; with a write tag. They make flushing cost what there is to flush. A
 * bit may be set for an entry that is empty by now, never the other way.
 */
struct tlb_bits {
	uint64_t used, local, written;
};

/*
 * Generated code makes use of the zeros: a small table is at a multiple of this, a grown one TLB_GROWN_OFFSET behind (abi.h). The arrays
 * have the same distance in both, so that code need not know. Small ones lie in one another's gaps (tlb-grow.c).
 */
#define TLB_TABLE_ALIGN 0x10000ull
#define TLB_GROWN_ROOM (13 * TLB_TABLE_ALIGN)
#define TLB_GROWN_OFFSET ((TLB_GROWN_BITS - TLB_BITS) << 8)
struct tlb_table {
	uint64_t read_tag[TLB_STRIDE];
	uint64_t write_tag[TLB_STRIDE];
	uint64_t addend[TLB_STRIDE]; /* host page - guest page */
	uint64_t mask; /* entries - 1 */
	uint64_t second; /* the number of this table's entries in the second level; 0: it has none */
	uint64_t driven; /* entries that gave way to another page's */
	uint64_t busy[TLB_GROWN_ENTRIES / 4096]; /* a bit for each of `bits` that may not be zero */
	struct tlb_bits bits[TLB_GROWN_ENTRIES / 64];
};

static inline unsigned tlb_index(const struct tlb_table *t, gva_t at)
{
	return (unsigned)(at >> 12 & t->mask);
}

/* Instruction fetch: page of guest-virtual code to its physical page. Few entries suffice. */
#define TLB_FETCH_ENTRIES 256u
struct tlb_fetch {
	gva_t tag[TLB_FETCH_ENTRIES];
	gpa_t page[TLB_FETCH_ENTRIES];
	uint64_t used[TLB_FETCH_ENTRIES / 64], local[TLB_FETCH_ENTRIES / 64];
};

/* Where large mappings were seen: 2 MiB frames (hashed by their low bits), and 1 GiB ones; see tlb_flush_page. */
struct tlb_large {
	uint64_t frames[16], huge;
};

/*
 * All spaces share the supervisor's tables table[TLB_SUPER] and fetch[1]: with SMAP on, a kernel's accesses outside of
 * STAC lead to its own pages, which are global. The few that are not are dropped when the space changes. Without
 * SMAP a supervisor uses TLB_SUPER_AC throughout.
 */
struct tlb_space {
	uint64_t cr3; /* page-table base | PCID; ~0 when free */
	uint64_t used; /* for choosing a victim */
	bool ready; /* its tables' entries have been set up: machines use few spaces, and empty entries are no zeros */
	struct tlb_table *table[TLB_MODES];
	struct tlb_fetch *fetch[2]; /* user, supervisor */
	struct tlb_large large; /* of the lower half */
	uint64_t code_id; /* another one whenever fetches from the lower half may lead elsewhere than before */
	bool code_lost; /* fetch[0] does not have every page fetched from since code_id is what it is */
};

struct tlb {
	/* what the current mode and address space select; read by generated code */
	struct tlb_table *data;     /* for data accesses of the current CPL and AC */
	struct tlb_fetch *fetch;
	struct tlb_space *space;
	enum tlb_mode mode;
	struct tlb_space spaces[TLB_SPACES];
	struct tlb_table *none; /* always empty: alignment checks are on, every access takes the slow way */
	struct mem_range range; /* RAM or ROM found last */
	uint64_t address; /* bits of a physical page's address; 0 until the first flush */
	struct tlb_large large; /* of the upper half */
	bool global_low; /* there has been a global page in the lower half */
	bool super_low;  /* a supervisor has fetched from the lower half since code_changes is what it is */
	uint64_t clock;
	void *memory, *grown_memory;
	/* Of grown tables: the small one in whose place it is, NULL: free; its entries are set up. */
	struct tlb_table *grown_of[TLB_GROWN];
	bool grown_ready[TLB_GROWN];
	unsigned grown_next; /* to be taken away from another space */
	bool grow; /* a table is too small */
	struct tlb_second *second; /* tlb-second.h */
	uint64_t second_ids;
	/*
	 * For engines that keep what fetches found. code_changes: any page's may lead elsewhere now; local_changes: those
	 * of pages that are not global. fetched: pages fetched from since the last of the former, hashed: INVLPG of
	 * others changes nothing.
	 */
	uint64_t code_changes, local_changes, code_ids;
	uint64_t fetched[64];
	/* counters, for --stats */
	uint64_t fills, second_hits, flushes, switches, grows;
};

struct cpu;
struct err;

/* Give the second level's memory back to the host; owner's thread. What the guest uses comes again by walks. */
void tlb_give_back(struct tlb *t);
/* The same with all of the first level, which is flushed; own thread. The other: in huge pages again, as the host finds the time. */
void tlb_trim(struct cpu *c);
void tlb_huge_again(struct tlb *t);
int tlb_init(struct tlb *t, struct err *e);
void tlb_dispose(struct tlb *t);

/* Choose data/fetch tables again: to be called after CPL, EFLAGS.AC, CR0, CR3, CR4, EFER change. */
void tlb_select(struct cpu *c);
void tlb_flush_all(struct cpu *c);       /* also global pages */
void tlb_flush_space(struct cpu *c);     /* CR3 write without PCID: all but global pages */
void tlb_flush_pcid(struct cpu *c, unsigned pcid, bool keep_global);
void tlb_flush_page(struct cpu *c, gva_t at); /* INVLPG: this page in the current space, and global */
void tlb_flush_page_pcid(struct cpu *c, gva_t at, unsigned pcid);
/* CR3 was written: switch to its space; noflush is bit 63 of the written value with PCIDs on. */
void tlb_switch(struct cpu *c, uint64_t cr3, bool noflush);

/*
 * Take away every write tag of this RAM page, in all spaces.
 * Any thread. True if there was one: the owner may be between its check and its store, so the caller
 * must see it pass an instruction boundary before it relies on the page's contents.
 */
bool tlb_revoke_page(struct tlb *t, const uint8_t *host_page);
void tlb_revoke_writes(struct cpu *c); /* all pages; owner's thread or CPU stopped */

#endif
