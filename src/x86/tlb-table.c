/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables of the software TLB: memory, emptying, growing. Compiled for general registers only; their owner's thread.
 *
 * Small tables lie in one another's gaps. The arrays of a table are TLB_STRIDE entries (four times TLB_TABLE_ALIGN and a quarter)
 * apart, because they are in grown ones; the next table is TLB_TABLE_ALIGN further on. So every piece of TLB_TABLE_ALIGN holds
 * one table's read tags, another's write tags, a third's addends and a fourth's bitmaps, a quarter each, or a fetch table where there
 * is no fourth.
 *
 * A table in which TLB_DRIVEN entries have given way to others is replaced by one of TLB_GROWN_ENTRIES: of a few, which a space
 * may lose to another. The small one stays in its place, empty. Nothing is moved: other threads may be revoking write tags
 * in either, and what was in it is in the second level.
 */
#include <errno.h>
#include <sys/mman.h>
#include "base/err.h"
#include "base/huge.h"
#include "x86/tlb-fill.h"
#include "x86/tlb-second.h"
#include "x86/tlb-table.h"

#define QUARTER (TLB_TABLE_ALIGN / 4)
#define FETCHES (TLB_SPACES + 1)
/* The empty table first, and behind the last one room for what lies up to three strides further on. */
#define MEMORY_SIZE ((TLB_TABLES + 1 + 12) * TLB_TABLE_ALIGN)
#define GROWN_SIZE (TLB_GROWN * TLB_GROWN_ROOM)
_Static_assert(TLB_ENTRIES * 8 == QUARTER && TLB_STRIDE * 8 == 4 * TLB_TABLE_ALIGN + QUARTER, "small tables fit their gaps");
_Static_assert(offsetof(struct tlb_table, mask) == 12 * TLB_TABLE_ALIGN + 3 * QUARTER, "and bitmaps theirs");
_Static_assert(offsetof(struct tlb_table, bits) - offsetof(struct tlb_table, mask) + TLB_ENTRIES / 64 * sizeof(struct tlb_bits) <= QUARTER,
	       "and bitmaps theirs");
_Static_assert(FETCHES <= 12 && sizeof(struct tlb_fetch) <= QUARTER, "fetch tables lie where there are no bitmaps");
_Static_assert(TLB_GROWN_OFFSET + sizeof(struct tlb_table) <= TLB_GROWN_ROOM, "grown tables have room");
_Static_assert(TLB_GROWN_ROOM % TLB_TABLE_ALIGN == 0, "grown tables are where generated code wants them");

/* ---- emptying */

static void table_clear(struct tlb_table *t, bool all)
{
	for (unsigned n = 0; n < tlb_busy_words(t); n++) {
		for (uint64_t words = t->busy[n]; words;) {
			unsigned w = tlb_busy_next(n, &words);
			struct tlb_bits *b = &t->bits[w];
			uint64_t left = all ? b->used : b->local;

			b->used &= ~left;
			b->local &= ~left;
			for (; left; left &= left - 1)
				tlb_entry_clear(t, w * 64 + (unsigned)__builtin_ctzll(left));
			if (!b->used)
				t->busy[n] &= ~BIT(w & 63);
		}
	}
}

void tlb_table_clear_local(struct tlb_table *t)
{
	table_clear(t, false);
}

void tlb_table_empty(struct tlb_table *t)
{
	second_forget(t);
	table_clear(t, true);
}

/* ---- memory */

static void table_set_up(struct tlb_table *t, unsigned entries)
{
	for (unsigned i = 0; i < entries; i++)
		tlb_entry_clear(t, i);
	t->mask = entries - 1;
}

static struct tlb_fetch *fetch_place(const struct tlb *t, unsigned n)
{
	return (struct tlb_fetch *)(void *)((char *)t->memory + n * TLB_TABLE_ALIGN + 3 * QUARTER);
}

static void fetch_set_up(struct tlb_fetch *f)
{
	for (unsigned i = 0; i < TLB_FETCH_ENTRIES; i++)
		f->tag[i] = TLB_NONE;
}

void tlb_space_ready(struct tlb *t, struct tlb_space *s)
{
	if (s->ready)
		return;
	s->ready = true;
	table_set_up(s->table[TLB_USER], TLB_ENTRIES);
	table_set_up(s->table[TLB_SUPER_AC], TLB_ENTRIES);
	fetch_set_up(s->fetch[0]);
}

/* Tables in their places, those of t->space ready. t->memory is zero. */
static void memory_init(struct tlb *t)
{
	t->none = t->memory;
	table_set_up(t->none, TLB_ENTRIES);
	table_set_up(tlb_table_any(t, 2 * TLB_SPACES), TLB_ENTRIES);
	fetch_set_up(fetch_place(t, TLB_SPACES));
	for (unsigned i = 0; i < TLB_SPACES; i++) {
		struct tlb_space *s = &t->spaces[i];

		s->table[TLB_USER] = tlb_table_any(t, 2 * i);
		s->table[TLB_SUPER] = tlb_table_any(t, 2 * TLB_SPACES);
		s->table[TLB_SUPER_AC] = tlb_table_any(t, 2 * i + 1);
		s->fetch[0] = fetch_place(t, i);
		s->fetch[1] = fetch_place(t, TLB_SPACES);
		s->ready = false;
	}
	tlb_space_ready(t, t->space);
}

int tlb_tables_init(struct tlb *t, struct err *e)
{
	t->memory = huge_alloc(MEMORY_SIZE);
	if (!t->memory)
		return err_set(e, ENOMEM, "no memory for a TLB");
	memory_init(t);
	return 0;
}

void tlb_tables_dispose(struct tlb *t)
{
	if (t->memory)
		huge_free(t->memory, MEMORY_SIZE);
	if (t->grown_memory)
		huge_free(t->grown_memory, GROWN_SIZE);
}

void tlb_tables_trim(struct tlb *t)
{
	madvise(t->memory, MEMORY_SIZE, MADV_NOHUGEPAGE);
	madvise(t->memory, MEMORY_SIZE, MADV_DONTNEED);
	huge_give_rest(t->memory, MEMORY_SIZE);
	if (t->grown_memory)
		madvise(t->grown_memory, GROWN_SIZE, MADV_DONTNEED);
	for (unsigned g = 0; g < TLB_GROWN; g++) {
		t->grown_of[g] = NULL;
		t->grown_ready[g] = false;
	}
	memory_init(t);
}

void tlb_huge_again(struct tlb *t)
{
	madvise(t->memory, MEMORY_SIZE, MADV_HUGEPAGE);
}

/* ---- growing */

static void replace(struct tlb *t, const struct tlb_table *old, struct tlb_table *new)
{
	for (unsigned i = 0; i < TLB_SPACES; i++)
		for (unsigned m = 0; m < TLB_MODES; m++)
			if (t->spaces[i].table[m] == old)
				t->spaces[i].table[m] = new;
	if (t->data == old)
		t->data = new;
}

static bool current(const struct tlb *t, const struct tlb_table *table)
{
	return table == t->space->table[TLB_USER] || table == t->space->table[TLB_SUPER] || table == t->space->table[TLB_SUPER_AC];
}

/* One that is free, or another space's. At most three are the current space's, so there is one. */
static unsigned grown_take(struct tlb *t)
{
	for (unsigned g = 0; g < TLB_GROWN; g++)
		if (!t->grown_of[g])
			return g;
	for (;;) {
		unsigned g = t->grown_next++ % TLB_GROWN;
		struct tlb_table *table = tlb_table_any(t, TLB_TABLES + g);

		if (current(t, table))
			continue;
		tlb_table_empty(table);
		t->grown_of[g]->driven = 0;
		replace(t, table, t->grown_of[g]);
		t->grown_of[g] = NULL;
		return g;
	}
}

static void table_grow(struct tlb *t, struct tlb_table *small)
{
	unsigned g = grown_take(t);
	struct tlb_table *grown = tlb_table_any(t, TLB_TABLES + g);

	if (!t->grown_ready[g]) /* since when it has been cleared entry by entry */
		table_set_up(grown, TLB_GROWN_ENTRIES);
	t->grown_ready[g] = true;
	t->grown_of[g] = small;
	tlb_drive_all(t, small);
	grown->second = small->second;
	small->second = 0;
	table_clear(small, true);
	replace(t, small, grown);
	t->grows++;
}

_Static_assert(TLB_GROWN > TLB_MODES, "there is one that is not the current space's");
void tlb_grow(struct tlb *t)
{
	t->grow = false;
	if (!t->grown_memory) {
		void *p = huge_alloc(GROWN_SIZE);

		if (!p)
			return;
		__atomic_store_n(&t->grown_memory, p, __ATOMIC_SEQ_CST);
	}
	for (unsigned m = 0; m < TLB_MODES; m++) {
		struct tlb_table *table = t->space->table[m];

		if (table->mask != TLB_ENTRIES - 1 || table->driven < TLB_DRIVEN)
			continue;
		table->driven = 0;
		table_grow(t, table);
	}
}
