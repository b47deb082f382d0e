/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the TLB keeps and drops: the guest changes a mapping behind its back, and then the old one is allowed only as
 * long as no flush covers it. Writes to code, dirty tracking, revoking, breakpoints, alignment.
 */
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <time.h>
#include "guest.h"
#include "x86/tlb-fill.h"
#include "x86/tlb-table.h"
#include "x86/watch.h"

#define P 1u
#define W 2u
#define U 4u
#define PS 0x80u
#define G 0x100u
#define LOW (0x40000000ull + (growing ? ALIAS : 0))
#define HIGH (0xffff800040000000ull + (growing ? ALIAS : 0))
#define PD (TABLES + 0x3000)
#define PT (TABLES + 0x4000)
#define A_PAGE 0x200000ull
#define B_PAGE 0x201000ull
#define ALIAS ((gva_t)TLB_ENTRIES << 12) /* this far on a page has the same entry */

static bool growing; /* all tables are grown ones, and what is looked at is in the low entries too */

/* The aliases of the first page tables' 2 MiB. */
static void alias_map(struct guest *g, gpa_t pd, uint64_t entry)
{
	for (unsigned n = 1; n <= 2; n++) {
		put64(g, pd + n * 8 * (ALIAS >> 21), entry);
		put64(g, pd + n * 8 * (ALIAS >> 21) + 8, entry);
	}
}

/* A table that has been found too small is replaced at the next change of mode, or so. */
static void grow(struct guest *g)
{
	for (unsigned m = 0; m < TLB_MODES; m++)
		if (g->c->tlb.space->table[m]->mask == TLB_ENTRIES - 1)
			g->c->tlb.space->table[m]->driven = TLB_DRIVEN;
	g->c->tlb.grow = true;
	tlb_select(g->c);
}

static struct guest *paged(void **state)
{
	struct guest *g = *state;

	enter_long(g);
	put64(g, TABLES + 8 * 256, (TABLES + 0x1000) | P | W | U); /* the upper half shows the same */
	put64(g, TABLES + 0x1008, PD | P | W | U);
	put64(g, PD, PT | P | W | U);
	alias_map(g, PD, PT | P | W | U);
	put64(g, A_PAGE, 'a');
	put64(g, B_PAGE, 'b');
	tlb_flush_all(g->c);
	return g;
}

static bool driving; /* every page looked at is driven out of its entry at once, to the second level */

static bool in_first(struct guest *g, gva_t at)
{
	const struct tlb_table *t = g->c->tlb.data;

	return t->read_tag[tlb_index(t, at)] == (at & ~0xfffull);
}

static char seen(struct guest *g, gva_t at)
{
	uint64_t v = 0, alias;

	if (growing)
		grow(g);
	assert_int_equal(cpu_read(g->c, at, &v, 8), CPU_OK);
	if (driving) {
		assert_int_equal(cpu_read(g->c, at + ALIAS, &alias, 8), CPU_OK);
		assert_false(in_first(g, at));
	}
	if (growing) {
		const struct tlb_table *t = g->c->tlb.data;
		unsigned low = at >> 12 & (TLB_ENTRIES - 1);

		assert_int_equal(t->mask, TLB_GROWN_ENTRIES - 1);
		assert_int_not_equal(tlb_index(t, at), low);
		assert_true(tlb_low(g->c, at, false));
		assert_int_equal(t->read_tag[low], at & ~0xfffull);
		assert_int_equal(t->addend[low], t->addend[tlb_index(t, at)]);
	}
	return (char)v;
}

/* Map to A, touch, map to B. */
static void stale(struct guest *g, gva_t at, uint64_t flags)
{
	unsigned i = at >> 12 & 511;

	put64(g, PT + 8 * i, A_PAGE | P | W | U | flags);
	tlb_flush_all(g->c);
	assert_int_equal(seen(g, at), 'a');
	put64(g, PT + 8 * i, B_PAGE | P | W | U | flags);
	assert_int_equal(seen(g, at), 'a'); /* allowed, and what makes the tests below mean something */
}

static void single_pages(void **state)
{
	struct guest *g = paged(state);
	const gva_t at[] = { LOW, HIGH, LOW + 0x5000, HIGH + 0x1ff000 };

	for (unsigned i = 0; i < ARRAY_LEN(at); i++) {
		for (unsigned flags = 0; flags <= G; flags += G) {
			stale(g, at[i], flags);
			tlb_flush_page(g->c, at[i] + 0x1000);
			assert_int_equal(seen(g, at[i]), 'a');
			tlb_flush_page(g->c, at[i] + 0xabc);
			assert_int_equal(seen(g, at[i]), 'b');
		}
	}
}

static void global_pages(void **state)
{
	struct guest *g = paged(state);
	const gva_t at[] = { LOW, HIGH };

	for (unsigned i = 0; i < ARRAY_LEN(at); i++) {
		assert_int_equal(cr_write(g->c, 4, CR4_PAE | CR4_PGE), CPU_BOUNDARY);
		stale(g, at[i], G);
		assert_int_equal(cr_write(g->c, 3, TABLES), CPU_BOUNDARY);
		if (!driving && !growing) /* the second level drops them too, unless all spaces share the table */
			assert_int_equal(seen(g, at[i]), 'a');
		stale(g, at[i], 0);
		assert_int_equal(cr_write(g->c, 3, TABLES), CPU_BOUNDARY);
		assert_int_equal(seen(g, at[i]), 'b');
		stale(g, at[i], G);
		assert_int_equal(cr_write(g->c, 4, CR4_PAE), CPU_BOUNDARY); /* PGE changes: all */
		assert_int_equal(seen(g, at[i]), 'b');
		stale(g, at[i], G);
		assert_int_equal(cr_write(g->c, 3, TABLES), CPU_BOUNDARY); /* G means nothing now */
		assert_int_equal(seen(g, at[i]), 'b');
	}
}

/* INVLPG of one address of a large mapping drops all of it. */
static void large_pages(void **state)
{
	struct guest *g = paged(state);
	const gva_t at[] = { LOW, HIGH };

	for (unsigned i = 0; i < ARRAY_LEN(at); i++) {
		put64(g, PD, A_PAGE | P | W | U | PS);
		alias_map(g, PD, A_PAGE | P | W | U | PS);
		tlb_flush_all(g->c);
		assert_int_equal(seen(g, at[i]), 'a');
		put64(g, 0x400000, 'c');
		put64(g, PD, 0x400000 | P | W | U | PS);
		assert_int_equal(seen(g, at[i]), 'a');
		tlb_flush_page(g->c, at[i] + 0x155000);
		assert_int_equal(seen(g, at[i]), 'c');
		/* 1 GiB */
		put64(g, TABLES + 0x1008, 0 | P | W | U | PS);
		tlb_flush_all(g->c);
		assert_int_equal(seen(g, at[i] + A_PAGE), 'a');
		put64(g, TABLES + 0x1008, PD | P | W | U);
		put64(g, PD + 8, 0x400000 | P | W | U | PS);
		assert_int_equal(seen(g, at[i] + A_PAGE), 'a');
		tlb_flush_page(g->c, at[i] + 0x3f000000);
		assert_int_equal(seen(g, at[i] + A_PAGE), 'c');
	}
}

/* The second level hits: for 4 KiB and large pages, and no more than the page tables allow. */
static void second_level(void **state)
{
	struct guest *g = paged(state);
	uint64_t v = 'x', hits = g->c->tlb.second_hits, fills = g->c->tlb.fills;
	const gva_t at[] = { LOW, HIGH };

	for (unsigned i = 0; i < ARRAY_LEN(at); i++) {
		put64(g, PT, A_PAGE | P | W | U);
		assert_int_equal(seen(g, at[i]), 'a');
		put64(g, PT, 0);
		assert_int_equal(seen(g, at[i]), 'a');
		assert_int_equal(g->c->tlb.second_hits - hits, 3 * i + 2); /* the page and its alias */
		assert_int_equal(cpu_read(g->c, at[i], &v, 8), CPU_OK);
		/* its dirty bit is clear: a walk, which ends the old mapping */
		assert_fault(cpu_write(g->c, at[i], &v, 8), g, VEC_PF, W);
		tlb_flush_page(g->c, at[i]);
		assert_fault(cpu_read(g->c, at[i], &v, 8), g, VEC_PF, 0);
		/* the second level was not asked for what the first has: nothing of the page is left */
		put64(g, PT, B_PAGE | P | W | U);
		assert_int_equal(cpu_write(g->c, at[i] + 8, &v, 8), CPU_OK);
		assert_int_equal(seen(g, at[i]), 'b');
		put64(g, PT, 0);
		assert_int_equal(cpu_write(g->c, at[i] + 8, &v, 8), CPU_OK); /* its dirty bit is set */
		assert_non_null(tlb_write_hit(g->c->tlb.data, at[i], 8));
		tlb_flush_all(g->c);
		hits = g->c->tlb.second_hits - 3 * (i + 1);
	}
	put64(g, PD, A_PAGE | P | W | U | PS | 0x60);
	alias_map(g, PD, A_PAGE | P | W | U | PS | 0x60);
	fills = g->c->tlb.fills;
	assert_int_equal(seen(g, LOW), 'a');
	assert_int_equal(g->c->tlb.fills - fills, 2);
	for (unsigned n = 0; n < 512; n++)
		assert_int_equal(cpu_write(g->c, LOW + 8 + n * 4096, &v, 8), CPU_OK);
	assert_int_equal(g->c->tlb.fills - fills, 2);
}

/* What is in the second level gets no write tag while the page has code, or is tracked and clean. */
static void second_level_writes(void **state)
{
	struct guest *g = paged(state);
	uint64_t v = 'x';

	put64(g, PT, A_PAGE | P | W | U);
	assert_int_equal(cpu_write(g->c, LOW, &v, 8), CPU_OK);
	assert_int_equal(seen(g, LOW), 'x');
	assert_true(mem_mark_code(g->mem, A_PAGE >> 12));
	assert_true(tlb_revoke_page(&g->c->tlb, mem_ram_ptr(g->mem, A_PAGE))); /* the alias */
	assert_int_equal(cpu_read(g->c, LOW, &v, 8), CPU_OK);
	assert_null(tlb_write_hit(g->c->tlb.data, LOW, 8));
	assert_int_equal(cpu_write(g->c, LOW, &v, 8), CPU_OK);
	assert_null(tlb_write_hit(g->c->tlb.data, LOW, 8));
	assert_int_equal(seen(g, LOW), 'x');
	mem_unmark_code(g->mem, A_PAGE >> 12);
	assert_int_equal(cpu_write(g->c, LOW, &v, 8), CPU_OK);
	assert_non_null(tlb_write_hit(g->c->tlb.data, LOW, 8));
	assert_int_equal(seen(g, LOW), 'x');
	mem_dirty_start(g->mem);
	tlb_revoke_writes(g->c);
	assert_int_equal(cpu_read(g->c, LOW, &v, 8), CPU_OK);
	assert_null(tlb_write_hit(g->c->tlb.data, LOW, 8));
	assert_int_equal(seen(g, LOW), 'x');
	assert_int_equal(cpu_write(g->c, LOW, &v, 8), CPU_OK);
	assert_true(atomic_load(&mem_page_flags(g->mem)[A_PAGE >> 12]) & MEM_DIRTY);
	mem_dirty_stop(g->mem);
}

/* Its memory is given back; and numbers for its tables run out. */
static void second_level_emptied(void **state)
{
	struct guest *g = paged(state);

	put64(g, PT, A_PAGE | P | W | U);
	assert_int_equal(seen(g, LOW), 'a');
	put64(g, PT, B_PAGE | P | W | U);
	tlb_give_back(&g->c->tlb);
	assert_int_equal(seen(g, LOW), 'b');
	for (unsigned n = 0; n < 10000; n++) {
		g->c->tlb.data->driven = 0;
		put64(g, PT, (n & 1 ? A_PAGE : B_PAGE) | P | W | U);
		assert_int_equal(cr_write(g->c, 3, TABLES), CPU_BOUNDARY);
		assert_int_equal(seen(g, LOW), n & 1 ? 'a' : 'b');
	}
	put64(g, PT, B_PAGE | P | W | U);
	assert_int_equal(seen(g, LOW), 'a');
}

/* Idle: both levels' memory is given back. What comes after is looked up anew, and no address is found in the zeros. */
static void all_given_back(void **state)
{
	struct guest *g = paged(state);
	struct tlb *t = &g->c->tlb;
	uint64_t v;

	for (unsigned n = 0; n < 3; n++) {
		put64(g, PT, (n & 1 ? B_PAGE : A_PAGE) | P | W | U);
		tlb_trim(g->c);
		assert_null(tlb_read_hit(t->data, LOW, 8));
		for (uint64_t at = 0; at < 64 * 4096; at += 4096) {
			assert_null(tlb_read_hit(t->data, at, 8));
			assert_null(tlb_write_hit(t->data, at, 8));
			assert_null(tlb_read_hit(t->none, at, 8));
		}
		assert_int_equal(cpu_read(g->c, LOW, &v, 1), CPU_OK);
		assert_int_equal(v & 0xff, n & 1 ? 'b' : 'a');
		assert_non_null(tlb_read_hit(t->data, LOW, 8));
		tlb_huge_again(t);
		assert_int_equal(cr_write(g->c, 3, TABLES), CPU_BOUNDARY);
		assert_int_equal(seen(g, LOW), n & 1 ? 'b' : 'a');
	}
}

/* The low entries of a grown table come and go with those that they are made of. */
static void grown_low(void **state)
{
	struct guest *g = paged(state);
	const gva_t at = LOW, low = at >> 12 & (TLB_ENTRIES - 1);
	struct tlb_table *t;
	uint64_t v = 'x';

	put64(g, PT, A_PAGE | P | W | U);
	assert_int_equal(seen(g, at), 'a');
	t = g->c->tlb.data;
	assert_false(tlb_low(g->c, at, true)); /* the dirty bit */
	assert_int_not_equal(t->write_tag[low], at);
	assert_int_equal(cpu_write(g->c, at, &v, 8), CPU_OK);
	assert_int_not_equal(t->write_tag[low], at);
	assert_true(tlb_low(g->c, at, true));
	assert_int_equal(t->write_tag[low], at);
	/* code */
	assert_true(mem_mark_code(g->mem, A_PAGE >> 12));
	assert_true(tlb_revoke_page(&g->c->tlb, mem_ram_ptr(g->mem, A_PAGE)));
	assert_int_not_equal(t->write_tag[low], at);
	assert_int_not_equal(t->write_tag[tlb_index(t, at)], at);
	assert_false(tlb_low(g->c, at, true));
	assert_true(tlb_low(g->c, at, false));
	mem_unmark_code(g->mem, A_PAGE >> 12);
	/* tracking, as before a save */
	assert_int_equal(cpu_write(g->c, at, &v, 8), CPU_OK);
	assert_true(tlb_low(g->c, at, true));
	tlb_revoke_writes(g->c);
	assert_int_not_equal(t->write_tag[low], at);
	/* the entry itself is another's by now; INVLPG, CR3 */
	for (unsigned n = 0; n < 3; n++) {
		assert_int_equal(seen(g, at), 'x');
		t->read_tag[tlb_index(t, at)] = tlb_none(tlb_index(t, at));
		if (n == 0)
			tlb_flush_page(g->c, at);
		else if (n == 1)
			assert_int_equal(cr_write(g->c, 3, TABLES), CPU_BOUNDARY);
		else
			tlb_trim(g->c);
		assert_int_not_equal(t->read_tag[low], at);
		assert_false(tlb_low(g->c, at, false));
	}
}

/* A table found too small in the moment in which another space's turn begins grows the next time it is. */
static void grown_later(void **state)
{
	struct guest *g = paged(state);
	struct tlb *t = &g->c->tlb;
	uint64_t v;

	assert_int_equal(cr_write(g->c, 4, CR4_PAE | CR4_PGE | CR4_PCIDE), CPU_BOUNDARY);
	put64(g, PT, A_PAGE | P | W | U);
	t->data->driven = TLB_DRIVEN - 1;
	assert_int_equal(cpu_read(g->c, LOW, &v, 8), CPU_OK);
	assert_int_equal(cpu_read(g->c, LOW + ALIAS, &v, 8), CPU_OK);
	assert_int_equal(t->data->driven, TLB_DRIVEN);
	assert_int_equal(cr_write(g->c, 3, TABLES | 1), CPU_BOUNDARY);
	assert_int_equal(t->data->mask, TLB_ENTRIES - 1);
	assert_int_equal(cr_write(g->c, 3, TABLES | BIT(63)), CPU_BOUNDARY);
	assert_true(t->data->driven >= TLB_DRIVEN);
	assert_int_equal(t->grows, 0);
	for (unsigned n = 0; n < TLB_DRIVEN; n++)
		assert_int_equal(cpu_read(g->c, LOW + (n & 1 ? ALIAS : 0), &v, 8), CPU_OK);
	tlb_select(g->c);
	assert_int_equal(t->grows, 1);
	assert_int_equal(t->data->mask, TLB_GROWN_ENTRIES - 1);
}

/* More spaces than there are grown tables: they are taken from one another, and small ones take their place. */
static void grown_taken(void **state)
{
	struct guest *g = paged(state);
	uint64_t seed = 1;

	assert_int_equal(cr_write(g->c, 4, CR4_PAE | CR4_PGE), CPU_BOUNDARY);
	assert_int_equal(cr_write(g->c, 4, CR4_PAE | CR4_PGE | CR4_PCIDE), CPU_BOUNDARY);
	put64(g, PT, A_PAGE | P | W | U);
	for (unsigned n = 0; n < 200; n++) {
		unsigned many = 0;

		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		assert_int_equal(cr_write(g->c, 3, TABLES | (seed >> 40) % 12 | (n % 3 ? BIT(63) : 0)), CPU_BOUNDARY);
		if (seed >> 60 < 12)
			assert_int_equal(seen(g, LOW), 'a');
		for (unsigned i = 0; i < TLB_SPACES; i++)
			for (unsigned m = 0; m < TLB_MODES; m++)
				many += m != TLB_SUPER && g->c->tlb.spaces[i].table[m]->mask == TLB_GROWN_ENTRIES - 1;
		assert_in_range(many, 0, TLB_GROWN);
	}
	assert_true(g->c->tlb.grows > 20);
	put64(g, PT, B_PAGE | P | W | U);
	for (unsigned pcid = 0; pcid < 12; pcid++) {
		tlb_flush_page_pcid(g->c, LOW, pcid);
		assert_int_equal(cr_write(g->c, 3, TABLES | pcid | BIT(63)), CPU_BOUNDARY);
		assert_int_equal(seen(g, LOW), 'b');
	}
}

static void four_mib(void **state)
{
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;

	enter_protected(g);
	put32(g, TABLES, 0 | P | W | PS);
	put32(g, TABLES + 4, 0x400000 | P | W | PS);
	put64(g, 0x700000, 'a');
	put64(g, 0xb00000, 'b');
	s->cr3 = TABLES;
	s->cr4 = CR4_PSE;
	s->cr0 |= CR0_PG;
	tlb_flush_all(g->c);
	assert_int_equal(seen(g, 0x700000), 'a');
	put32(g, TABLES + 4, 0x800000 | P | W | PS);
	assert_int_equal(seen(g, 0x700000), 'a');
	tlb_flush_page(g->c, 0x400000); /* the other half of it */
	assert_int_equal(seen(g, 0x700000), 'b');
}

/* Two address spaces with PCIDs: each keeps its own. */
static void pcids(void **state)
{
	struct guest *g = paged(state);
	uint64_t other = 0x40000;

	for (unsigned i = 0; i < 4096; i += 8)
		put64(g, other + i, get(g, TABLES + i, 8));
	put64(g, other, (other + 0x1000) | P | W | U);
	put64(g, other + 0x1000, get(g, TABLES + 0x1000, 8));
	put64(g, other + 0x1008, (other + 0x2000) | P | W | U);
	put64(g, other + 0x2000, (other + 0x3000) | P | W | U);
	alias_map(g, other + 0x2000, (other + 0x3000) | P | W | U);
	put64(g, other + 0x3000, B_PAGE | P | W | U);
	put64(g, PT, A_PAGE | P | W | U);
	assert_int_equal(cr_write(g->c, 4, CR4_PAE | CR4_PGE | CR4_PCIDE), CPU_BOUNDARY);
	assert_int_equal(cr_write(g->c, 3, TABLES | 1), CPU_BOUNDARY);
	assert_int_equal(seen(g, LOW), 'a');
	assert_int_equal(cr_write(g->c, 3, other | 2), CPU_BOUNDARY);
	assert_int_equal(seen(g, LOW), 'b');
	put64(g, PT, B_PAGE | P | W | U);
	assert_int_equal(cr_write(g->c, 3, TABLES | 1 | BIT(63)), CPU_BOUNDARY);
	assert_true(g->c->s.cr3 == (TABLES | 1));
	assert_int_equal(seen(g, LOW), 'a'); /* kept */
	assert_int_equal(cr_write(g->c, 3, other | 2 | BIT(63)), CPU_BOUNDARY);
	tlb_flush_pcid(g->c, 1, true); /* from afar */
	assert_int_equal(cr_write(g->c, 3, TABLES | 1 | BIT(63)), CPU_BOUNDARY);
	assert_int_equal(seen(g, LOW), 'b');
	put64(g, PT, A_PAGE | P | W | U);
	assert_int_equal(cr_write(g->c, 3, other | 2 | BIT(63)), CPU_BOUNDARY);
	tlb_flush_page_pcid(g->c, LOW, 1);
	assert_int_equal(cr_write(g->c, 3, TABLES | 1 | BIT(63)), CPU_BOUNDARY);
	assert_int_equal(seen(g, LOW), 'a');
	put64(g, PT, B_PAGE | P | W | U);
	assert_int_equal(cr_write(g->c, 3, TABLES | 1), CPU_BOUNDARY); /* without bit 63: flushed */
	assert_int_equal(seen(g, LOW), 'b');
	/* the same PCID with another root, and back: what was flushed meanwhile stays flushed */
	put64(g, PT, A_PAGE | P | W | U);
	assert_int_equal(cr_write(g->c, 3, other | 1), CPU_BOUNDARY);
	assert_int_equal(cr_write(g->c, 3, TABLES | 1 | BIT(63)), CPU_BOUNDARY);
	assert_int_equal(seen(g, LOW), 'a');
	/* more spaces than there are slots */
	for (unsigned n = 0; n < 100; n++) {
		assert_int_equal(cr_write(g->c, 3, (n & 1 ? other : TABLES) | n | BIT(63)), CPU_BOUNDARY);
		assert_int_equal(seen(g, LOW), n & 1 ? 'b' : 'a');
	}
}

/* Supervisor pages that are not global belong to a space, though their table is shared. */
static void shared_supervisor(void **state)
{
	struct guest *g = paged(state);
	uint64_t other = 0x40000;

	for (unsigned i = 0; i < 4096; i += 8)
		put64(g, other + i, get(g, TABLES + i, 8));
	put64(g, other + 8 * 256, (other + 0x1000) | P | W);
	put64(g, other + 0x1008, (other + 0x2000) | P | W);
	put64(g, other + 0x2000, (other + 0x3000) | P | W);
	alias_map(g, other + 0x2000, (other + 0x3000) | P | W);
	put64(g, other + 0x3000, B_PAGE | P | W);
	put64(g, PT, A_PAGE | P | W);
	assert_int_equal(cr_write(g->c, 4, CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMAP | CR4_SMEP), CPU_BOUNDARY);
	for (unsigned n = 0; n < 4; n++) {
		assert_int_equal(cr_write(g->c, 3, TABLES | 1 | BIT(63)), CPU_BOUNDARY);
		assert_int_equal(seen(g, HIGH), 'a');
		assert_int_equal(cr_write(g->c, 3, other | 2 | BIT(63)), CPU_BOUNDARY);
		assert_int_equal(seen(g, HIGH), 'b');
	}
}

/* Clean pages get no write tag: the first write must set the dirty bit. */
static void dirty_bit(void **state)
{
	struct guest *g = paged(state);
	uint64_t v = 1;

	put64(g, PT, A_PAGE | P | W | U);
	assert_int_equal(seen(g, LOW), 'a');
	assert_null(tlb_write_hit(g->c->tlb.data, LOW, 8));
	assert_int_equal(get(g, PT, 1) & 0x60, 0x20);
	assert_int_equal(cpu_write(g->c, LOW, &v, 8), CPU_OK);
	assert_int_equal(get(g, PT, 1) & 0x60, 0x60);
	assert_non_null(tlb_write_hit(g->c->tlb.data, LOW, 8));
}

/* ---- code and dirty pages */

static uint64_t told_at, told_len;
static void code_written(void *opaque, uint64_t ram_offset, uint64_t len)
{
	told_at = ram_offset;
	told_len = len;
}

static void written_code(void **state)
{
	struct mem_listener l = { .code_written = code_written };
	struct guest *g = paged(state);
	uint64_t v = 7;
	void *host;

	mem_listen(g->mem, &l);
	put64(g, PT, A_PAGE | P | W | U);
	assert_int_equal(cpu_write(g->c, LOW, &v, 8), CPU_OK);
	assert_non_null(tlb_write_hit(g->c->tlb.data, LOW, 8));
	assert_true(mem_mark_code(g->mem, A_PAGE >> 12));
	assert_true(tlb_revoke_page(&g->c->tlb, mem_ram_ptr(g->mem, A_PAGE)));
	assert_false(tlb_revoke_page(&g->c->tlb, mem_ram_ptr(g->mem, A_PAGE)));
	assert_null(tlb_write_hit(g->c->tlb.data, LOW, 8));
	assert_non_null(tlb_read_hit(g->c->tlb.data, LOW, 8));
	v = 9;
	assert_int_equal(cpu_write(g->c, LOW + 0x10, &v, 4), CPU_OK);
	assert_int_equal(told_at, A_PAGE + 0x10);
	assert_int_equal(told_len, 4);
	assert_int_equal(get(g, A_PAGE + 0x10, 8), 9);
	assert_null(tlb_write_hit(g->c->tlb.data, LOW, 8));
	assert_int_equal(cpu_rmw(g->c, LOW, 8, &host), CPU_OK);
	assert_null(host);
	cpu_exclusive_begin(g->c);
	assert_int_equal(cpu_write(g->c, LOW, &v, 8), CPU_OK); /* does not wait for itself */
	cpu_exclusive_end(g->c);
	mem_unmark_code(g->mem, A_PAGE >> 12);
	assert_int_equal(cpu_rmw(g->c, LOW, 8, &host), CPU_OK);
	assert_ptr_equal(host, mem_ram_ptr(g->mem, A_PAGE));
	mem_unlisten(g->mem, &l);
}

static void tracked_pages(void **state)
{
	static uint64_t bitmap[RAM_SIZE / 4096 / 64 + 64];
	struct guest *g = paged(state);
	uint64_t v = 7;

	put64(g, PT, A_PAGE | P | W | U);
	put64(g, PT + 8, B_PAGE | P | W | U);
	assert_int_equal(cpu_write(g->c, LOW, &v, 8), CPU_OK);
	mem_dirty_start(g->mem);
	tlb_revoke_writes(g->c);
	assert_null(tlb_write_hit(g->c->tlb.data, LOW, 8));
	assert_int_equal(cpu_read(g->c, LOW, &v, 8), CPU_OK);
	assert_int_equal(cpu_write(g->c, LOW + 0x1000, &v, 8), CPU_OK);
	assert_non_null(tlb_write_hit(g->c->tlb.data, LOW + 0x1000, 8));
	mem_dirty_fetch(g->mem, bitmap);
	assert_true(bitmap[B_PAGE >> 12 >> 6] >> (B_PAGE >> 12 & 63) & 1);
	assert_false(bitmap[A_PAGE >> 12 >> 6] >> (A_PAGE >> 12 & 63) & 1);
	assert_true(bitmap[PT >> 12 >> 6] >> (PT >> 12 & 63) & 1); /* its dirty bit was set */
	tlb_revoke_writes(g->c);
	assert_null(tlb_write_hit(g->c->tlb.data, LOW + 0x1000, 8));
	mem_dirty_stop(g->mem);
}

/* ROM: reads are fast, writes vanish. */
static void rom(void **state)
{
	static const char text[] = "firmware";
	struct guest *g = paged(state);
	uint64_t v = 0;
	char buf[8];
	struct err e;

	assert_int_equal(mem_map_rom(g->mem, 0x10000000, text, sizeof(text), "rom", &e), 0);
	put64(g, PT, 0x10000000 | P | W | U);
	tlb_flush_all(g->c);
	assert_int_equal(cpu_write(g->c, LOW, &v, 8), CPU_OK);
	assert_int_equal(cpu_read(g->c, LOW, buf, 8), CPU_OK);
	assert_memory_equal(buf, text, 8);
	assert_non_null(tlb_read_hit(g->c->tlb.data, LOW, 8));
	assert_null(tlb_write_hit(g->c->tlb.data, LOW, 8));
}

/* Both pages are checked before a byte is written. */
static void crossing(void **state)
{
	struct guest *g = paged(state);
	uint64_t v = 0x1122334455667788;

	put64(g, PT, A_PAGE | P | W | U);
	put64(g, PT + 8, 0x300000 | P | W | U);
	put64(g, A_PAGE + 0xff8, 0);
	assert_int_equal(cpu_write(g->c, LOW + 0xffd, &v, 8), CPU_OK);
	assert_true(get(g, A_PAGE + 0xffd, 1) == 0x88 && get(g, A_PAGE + 0xfff, 1) == 0x66);
	assert_true(get(g, 0x300000, 4) == 0x22334455 && get(g, 0x300004, 1) == 0x11);
	v = 0;
	assert_int_equal(cpu_read(g->c, LOW + 0xffd, &v, 8), CPU_OK);
	assert_true(v == 0x1122334455667788);
	put64(g, PT + 8, 0x300000 | P | U);
	tlb_flush_all(g->c);
	v = 0;
	assert_fault(cpu_write(g->c, LOW + 0xffd, &v, 8), g, VEC_PF, P | W);
	assert_true(g->c->fault.cr2 == LOW + 0x1000);
	assert_int_equal(get(g, A_PAGE + 0xffd, 1), 0x88);
	assert_fault(cpu_probe(g->c, LOW + 0xffd, 8, ACCESS_WRITE), g, VEC_PF, P | W);
	assert_int_equal(cpu_probe(g->c, LOW + 0xffd, 8, ACCESS_READ), CPU_OK);
}

static void alignment(void **state)
{
	struct guest *g = paged(state);
	uint64_t v = 0;

	put64(g, PT, A_PAGE | P | W | U);
	g->c->s.cr0 |= CR0_AM;
	go_cpl(g, 3);
	assert_int_equal(cpu_write(g->c, LOW + 1, &v, 8), CPU_OK);
	cpu_set_rflags(g->c, 2 | FLAG_AC);
	assert_fault(cpu_write(g->c, LOW + 1, &v, 8), g, VEC_AC, 0);
	assert_fault(cpu_read(g->c, LOW + 2, &v, 4), g, VEC_AC, 0);
	assert_fault(cpu_read(g->c, LOW + 1, &v, 2), g, VEC_AC, 0);
	assert_int_equal(cpu_read(g->c, LOW + 1, &v, 1), CPU_OK);
	assert_int_equal(cpu_read(g->c, LOW + 8, &v, 8), CPU_OK);
	assert_int_equal(cpu_read_system(g->c, LOW + 1, &v, 8), CPU_OK);
	cpu_set_rflags(g->c, 2);
	assert_int_equal(cpu_write(g->c, LOW + 1, &v, 8), CPU_OK);
	cpu_set_rflags(g->c, 2 | FLAG_AC);
	cpu_set_cpl(g->c, 0);
	assert_int_equal(cpu_write(g->c, LOW + 1, &v, 8), CPU_OK);
}

static void data_breakpoints(void **state)
{
	struct guest *g = paged(state);
	uint64_t v = 0;

	put64(g, PT, A_PAGE | P | W | U);
	assert_int_equal(cpu_write(g->c, LOW, &v, 8), CPU_OK);
	assert_int_equal(dr_write(g->c, 0, LOW + 0x104), CPU_BOUNDARY);
	assert_int_equal(dr_write(g->c, 7, 2 | 0xdull << 16), CPU_BOUNDARY); /* global, write, 4 bytes */
	assert_null(tlb_write_hit(g->c->tlb.data, LOW, 8));
	assert_int_equal(cpu_write(g->c, LOW + 0x108, &v, 8), CPU_OK);
	assert_int_equal(cpu_read(g->c, LOW + 0x104, &v, 8), CPU_OK);
	assert_int_equal(g->c->data_hits, 0);
	assert_int_equal(cpu_write(g->c, LOW + 0x100, &v, 8), CPU_OK);
	assert_int_equal(g->c->data_hits, 1);
	assert_true(atomic_load(&g->c->attention) & ATT_DEBUG);
	g->c->data_hits = 0;
	assert_int_equal(dr_write(g->c, 7, 0), CPU_BOUNDARY);
	assert_int_equal(cpu_write(g->c, LOW + 0x104, &v, 4), CPU_OK);
	assert_int_equal(g->c->data_hits, 0);
	assert_non_null(tlb_write_hit(g->c->tlb.data, LOW, 8));
}

/* A watched page has no entry, whatever is known of the large page it lies in. */
static void data_breakpoints_large(void **state)
{
	struct guest *g = paged(state);
	uint64_t v = 0;

	put64(g, PD, A_PAGE | P | W | U | PS);
	tlb_flush_all(g->c);
	assert_int_equal(dr_write(g->c, 0, LOW + 0x104), CPU_BOUNDARY);
	assert_int_equal(dr_write(g->c, 7, 2 | 0xdull << 16), CPU_BOUNDARY); /* global, write, 4 bytes */
	assert_int_equal(cpu_write(g->c, LOW + 0x5000, &v, 8), CPU_OK);
	assert_non_null(tlb_write_hit(g->c->tlb.data, LOW + 0x5000, 8));
	assert_int_equal(cpu_write(g->c, LOW + 0x108, &v, 8), CPU_OK);
	assert_null(tlb_write_hit(g->c->tlb.data, LOW, 8));
	assert_int_equal(cpu_write(g->c, LOW + 0x100, &v, 8), CPU_OK);
	assert_int_equal(g->c->data_hits, 1);
}

/* Engines that keep where fetches led: INVLPG of every page fetched from since the last change is a change. */
static void code_changes(void **state)
{
	struct guest *g = paged(state);
	uint64_t changes;
	gpa_t page;

	put64(g, PT, A_PAGE | P | W | U);
	put64(g, PT + 8, B_PAGE | P | W | U);
	for (unsigned n = 0; n < 3; n++) {
		assert_int_equal(cpu_fetch_page(g->c, LOW, &page), CPU_OK);
		assert_int_equal(cpu_fetch_page(g->c, LOW + 0x1000, &page), CPU_OK);
		changes = g->c->tlb.code_changes;
		tlb_flush_page(g->c, LOW + 0x2000);
		assert_int_equal(g->c->tlb.code_changes, changes);
		tlb_flush_page(g->c, LOW);
		assert_int_not_equal(g->c->tlb.code_changes, changes);
		/* the other page is used again, and then dropped */
		assert_int_equal(cpu_fetch_page(g->c, LOW + 0x1000, &page), CPU_OK);
		changes = g->c->tlb.code_changes;
		tlb_flush_page(g->c, LOW + 0x1000);
		assert_int_not_equal(g->c->tlb.code_changes, changes);
	}
}

static void port_breakpoints(void **state)
{
	struct guest *g = paged(state);

	assert_int_equal(dr_write(g->c, 1, 0x3f8), CPU_BOUNDARY);
	assert_int_equal(dr_write(g->c, 7, 8 | 0x6ull << 20), CPU_BOUNDARY); /* global, I/O, 2 bytes */
	watch_port(g->c, 0x3f9, 1);
	assert_int_equal(g->c->data_hits, 0); /* CR4.DE is clear */
	g->c->s.cr4 |= CR4_DE;
	watch_port(g->c, 0x3fa, 1);
	watch_port(g->c, 0x3f6, 2);
	assert_int_equal(g->c->data_hits, 0);
	watch_port(g->c, 0x3f9, 1);
	assert_int_equal(g->c->data_hits, 2);
	assert_true(atomic_load(&g->c->attention) & ATT_DEBUG);
}

/*
 * One thread stores through its TLB, another flags the page as code and revokes. Once the first has passed a boundary
 * after that, each of its stores must be told; while the page is not flagged it must get its fast way back.
 */
/*
 * What an engine keeps about a user's code lasts over a flush that leaves the code where it was, and no longer: a page that was
 * mapped elsewhere, one that was taken away, and one of those whose fetch is no longer known.
 */
static void user_code_kept(void **state)
{
	struct guest *g = paged(state);
	struct tlb *t = &g->c->tlb;
	gpa_t page;
	uint64_t id;

	put64(g, TABLES, get(g, TABLES, 8) | U);
	put64(g, PT, A_PAGE | P | W | U);
	put64(g, PT + 8, B_PAGE | P | W | U);
	put64(g, PT + 16, A_PAGE | P | W | U);
	g->c->s.cpl = 3;
	tlb_select(g->c);
	assert_int_equal(cpu_fetch_page(g->c, LOW, &page), CPU_OK);
	assert_int_equal(cpu_fetch_page(g->c, LOW + 0x1000, &page), CPU_OK);
	id = t->space->code_id;
	assert_int_equal(seen(g, LOW + 0x2000), 'a');
	put64(g, PT + 16, B_PAGE | P | W | U);
	assert_int_equal(cr_write(g->c, 3, TABLES), CPU_BOUNDARY);
	assert_int_equal(t->space->code_id, id);
	assert_int_equal(seen(g, LOW + 0x2000), 'b'); /* data are gone nevertheless */
	tlb_flush_page(g->c, LOW + 0x2000);
	assert_int_equal(t->space->code_id, id);
	tlb_flush_page(g->c, LOW + 0x1000);
	assert_int_not_equal(t->space->code_id, id);
	id = t->space->code_id;
	put64(g, PT, B_PAGE | P | W | U | 0x20);
	assert_int_equal(cr_write(g->c, 3, TABLES), CPU_BOUNDARY);
	assert_int_not_equal(t->space->code_id, id);
	assert_int_equal(cpu_fetch_page(g->c, LOW, &page), CPU_OK);
	assert_int_equal(page, B_PAGE);
	id = t->space->code_id;
	put64(g, PT, 0);
	assert_int_equal(cr_write(g->c, 3, TABLES), CPU_BOUNDARY);
	assert_int_not_equal(t->space->code_id, id);
	put64(g, PT, A_PAGE | P | W | U);
	assert_int_equal(cpu_fetch_page(g->c, LOW, &page), CPU_OK);
	id = t->space->code_id;
	put64(g, PT + 8 * 256, B_PAGE | P | W | U);
	assert_int_equal(cpu_fetch_page(g->c, LOW + 256 * 0x1000, &page), CPU_OK); /* takes its place */
	assert_int_equal(cr_write(g->c, 3, TABLES), CPU_BOUNDARY);
	assert_int_not_equal(t->space->code_id, id);
}

struct race {
	struct guest *g;
	_Atomic uint64_t phase; /* odd: flagged and settled */
	_Atomic uint64_t boundary, told, missed, fast;
	_Atomic bool stop;
};

static void race_told(void *opaque, uint64_t ram_offset, uint64_t len)
{
	struct race *r = opaque;

	atomic_fetch_add(&r->told, 1);
}

static void *race_store(void *opaque)
{
	struct race *r = opaque;
	struct cpu *c = r->g->c;

	for (uint64_t n = 0; !atomic_load(&r->stop); n++) {
		uint64_t phase = atomic_load(&r->phase), told = atomic_load(&r->told);
		bool fast = tlb_write_hit(c->tlb.data, LOW + 8, 8);

		if (cpu_write(c, LOW + 8, &n, 8))
			atomic_fetch_add(&r->missed, 1);
		if (phase & 1 && atomic_load(&r->phase) == phase && atomic_load(&r->told) != told + 1)
			atomic_fetch_add(&r->missed, 1);
		if (fast)
			atomic_fetch_add_explicit(&r->fast, 1, memory_order_relaxed);
		if (n % 64 == 0)
			tlb_flush_page(c, LOW);
		if (n % 256 == 0)
			cr_write(c, 3, c->s.cr3);
		atomic_fetch_add(&r->boundary, 1);
	}
	return NULL;
}

static void race_wait(struct race *r, uint64_t boundaries)
{
	uint64_t from = atomic_load(&r->boundary);

	while (atomic_load(&r->boundary) < from + boundaries)
		sched_yield();
}

static void revoke_race(void **state)
{
	struct race r = { .g = paged(state) };
	struct mem_listener l = { .code_written = race_told, .opaque = &r };
	const uint8_t *host = mem_ram_ptr(r.g->mem, A_PAGE);
	pthread_t thread;
	unsigned found = 0;

	put64(r.g, PT, A_PAGE | P | W | U);
	mem_listen(r.g->mem, &l);
	pthread_create(&thread, NULL, race_store, &r);
	race_wait(&r, 1);
	for (unsigned n = 0; n < 300; n++) {
		mem_mark_code(r.g->mem, A_PAGE >> 12);
		if (tlb_revoke_page(&r.g->c->tlb, host)) {
			race_wait(&r, 2);
			found++;
		}
		atomic_fetch_add(&r.phase, 1);
		race_wait(&r, 20);
		atomic_fetch_add(&r.phase, 1);
		mem_unmark_code(r.g->mem, A_PAGE >> 12);
		race_wait(&r, 20 + n % 50);
	}
	atomic_store(&r.stop, true);
	pthread_join(thread, NULL);
	mem_unlisten(r.g->mem, &l);
	assert_int_equal(r.missed, 0);
	assert_int_not_equal(found, 0);
	assert_int_not_equal(r.told, 0);
	assert_int_not_equal(r.fast, 0);
}

static int driving_setup(void **state)
{
	driving = true;
	return guest_setup(state);
}

static int growing_setup(void **state)
{
	growing = true;
	return guest_setup(state);
}

static int plain_teardown(void **state)
{
	driving = growing = false;
	return guest_teardown(state);
}

int main(void)
{
#define L(f) cmocka_unit_test_setup_teardown(f, growing_setup, plain_teardown)
#define T(f) cmocka_unit_test_setup_teardown(f, guest_setup, guest_teardown)
#define D(f) cmocka_unit_test_setup_teardown(f, driving_setup, plain_teardown)
	const struct CMUnitTest tests[] = {
		T(single_pages), T(global_pages),  T(large_pages), T(four_mib),	 T(pcids),     T(shared_supervisor), T(dirty_bit),
		T(written_code), T(tracked_pages), T(rom),	   T(crossing),	 T(alignment), T(data_breakpoints),  T(data_breakpoints_large),
		T(port_breakpoints), T(code_changes), T(user_code_kept), T(revoke_race),
		D(single_pages), D(global_pages),  D(large_pages), D(pcids), D(shared_supervisor), D(second_level),
		D(second_level_writes), D(second_level_emptied), T(all_given_back), T(grown_later),
		L(single_pages), L(global_pages), L(pcids), L(shared_supervisor), L(written_code), L(tracked_pages), L(alignment),
		L(data_breakpoints), L(revoke_race), L(all_given_back), L(grown_low), L(grown_taken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
