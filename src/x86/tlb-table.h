/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of the software TLB themselves: where they lie, emptying them, another size. For tlb*.c. */
#ifndef X86_TLB_TABLE_H
#define X86_TLB_TABLE_H

#include "x86/tlb.h"

struct err;

/* So many entries of a small table have given way to others: it is too small. */
#define TLB_DRIVEN (4u * TLB_ENTRIES)

static inline void tlb_tag_store(uint64_t *tag, uint64_t v)
{
	__atomic_store_n(tag, v, __ATOMIC_RELAXED);
}

static inline void tlb_entry_clear(struct tlb_table *t, unsigned i)
{
	tlb_tag_store(&t->read_tag[i], tlb_none(i));
	tlb_tag_store(&t->write_tag[i], tlb_none(i));
}

/* Words of `busy` that a table of this size has. */
static inline unsigned tlb_busy_words(const struct tlb_table *t)
{
	return (unsigned)(t->mask >> 12) + 1;
}

/* The next of them, taken out of *left: an index into `bits`. */
static inline unsigned tlb_busy_next(unsigned word, uint64_t *left)
{
	unsigned w = word * 64 + (unsigned)__builtin_ctzll(*left);

	*left &= *left - 1;
	return w;
}

void tlb_table_clear_local(struct tlb_table *t); /* what is not global; not in the second level */
void tlb_table_empty(struct tlb_table *t);       /* all of it, there too */

int tlb_tables_init(struct tlb *t, struct err *e); /* the spaces' tables and fetch tables, all empty */
void tlb_space_ready(struct tlb *t, struct tlb_space *s); /* before a space that was free is used */
void tlb_tables_dispose(struct tlb *t);
/* Empty: give their memory back, small ones again in huge pages later. */
void tlb_tables_trim(struct tlb *t);

/* Tables of the current space that are too small get a larger one, empty (all they had is in the second level). */
void tlb_grow(struct tlb *t);
/* Table n of all that there are or have been, for revoking by any thread; NULL: no more. */
static inline struct tlb_table *tlb_table_any(struct tlb *t, unsigned n)
{
	char *grown;

	if (n < TLB_TABLES)
		return (struct tlb_table *)(void *)((char *)t->memory + (n + 1) * TLB_TABLE_ALIGN);
	grown = __atomic_load_n((char **)&t->grown_memory, __ATOMIC_SEQ_CST);
	return grown && n < TLB_TABLES + TLB_GROWN ? (struct tlb_table *)(void *)(grown + TLB_GROWN_OFFSET + (n - TLB_TABLES) * TLB_GROWN_ROOM) :
						     NULL;
}

#endif
