/* SPDX-License-Identifier: Apache-2.0 */
/* What changes the second level of the TLB: see tlb-second.h. Compiled for general registers only; its owner's thread alone. */
#include <sys/mman.h>
#include "x86/tlb-second.h"

static void clear(uint64_t *tag)
{
	__atomic_store_n(tag, 0, __ATOMIC_RELAXED);
}

static void second_forget_all(struct tlb *t)
{
	for (unsigned i = 0; i < TLB_SPACES; i++)
		for (unsigned m = 0; m < TLB_MODES; m++)
			second_forget(t->spaces[i].table[m]);
	t->second_ids = 0;
}

/* Not by memset(), which uses vector registers. */
static void second_number(struct tlb *t, struct tlb_table *table)
{
	if (t->second_ids == SECOND_IDS - 1) { /* none left */
		for (unsigned i = 0; i < SECOND_SETS; i++) {
			clear(&t->second->small[i][0].tag);
			clear(&t->second->small[i][1].tag);
		}
		for (unsigned i = 0; i < SECOND_LARGE; i++)
			clear(&t->second->large[i].tag);
		second_forget_all(t);
	}
	table->second = ++t->second_ids;
}

void tlb_give_back(struct tlb *t)
{
	second_forget_all(t);
	madvise(t->second, sizeof(*t->second), MADV_DONTNEED);
}

void second_put_page(struct tlb *t, struct tlb_table *table, gva_t page, uint64_t host)
{
	struct tlb_second_entry *e;
	uint64_t tag, frame;

	if (!table->second)
		second_number(t, table);
	tag = page | table->second;
	frame = tag & (~LARGE_MASK | 0xfff);
	if (second_frame(t, frame)->tag == frame)
		return;
	e = second_set(t, tag);
	if (e[0].tag != tag)
		e[1] = e[0];
	e[0].tag = tag;
	e[0].host = host;
}

void second_put_frame(struct tlb *t, struct tlb_table *table, gva_t frame, uint64_t host)
{
	struct tlb_second_entry *e;

	if (!table->second)
		second_number(t, table);
	e = second_frame(t, frame | table->second);
	e->tag = frame | table->second;
	e->host = host;
}
