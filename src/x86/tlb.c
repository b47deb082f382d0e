/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The software TLB: see tlb.h. Compiled for general registers only.
 *
 * Filling and revoking meet in one place: a page is flagged in mem (MEM_CODE, or tracking without MEM_DIRTY) before its write
 * tags are revoked, and a write tag is stored before the flag is looked at again. Whichever comes second sees the
 * other, so no write tag outlives the flag. The bitmaps `busy` and `written` are set before the tag, so the revoker may
 * rely on them. Only the owner stores anything but an empty tag.
 */
#include <errno.h>
#include <sys/mman.h>
#include "base/err.h"
#include "base/huge.h"
#include "x86/access.h"
#include "x86/cpuid.h"
#include "x86/tlb-fill.h"
#include "x86/tlb-second.h"
#include "x86/tlb-table.h"

#define SPACE_FREE (~0ull)

static void fetch_clear(struct tlb_fetch *f, uint64_t *which)
{
	for (unsigned w = 0; w < TLB_FETCH_ENTRIES / 64; w++) {
		uint64_t left = which[w];

		f->used[w] &= ~left;
		f->local[w] &= ~left;
		for (; left; left &= left - 1)
			f->tag[w * 64 + (unsigned)__builtin_ctzll(left)] = TLB_NONE;
	}
}

static void large_forget(struct tlb_large *l)
{
	for (unsigned i = 0; i < ARRAY_LEN(l->frames); i++)
		l->frames[i] = 0;
	l->huge = 0;
}

/* The tables that are a space's own. */
static void space_clear(struct tlb_space *s)
{
	tlb_table_empty(s->table[TLB_USER]);
	tlb_table_empty(s->table[TLB_SUPER_AC]);
	fetch_clear(s->fetch[0], s->fetch[0]->used);
	large_forget(&s->large);
}

/* In the second level none of these count as global. */
static void space_clear_data(struct tlb_space *s)
{
	second_forget(s->table[TLB_USER]);
	second_forget(s->table[TLB_SUPER_AC]);
	tlb_table_clear_local(s->table[TLB_USER]);
	tlb_table_clear_local(s->table[TLB_SUPER_AC]);
}

/* What is not global. */
static void space_clear_local(struct tlb_space *s)
{
	space_clear_data(s);
	fetch_clear(s->fetch[0], s->fetch[0]->local);
}

/* And only global ones of this. */
static void shared_clear_local(struct tlb *t)
{
	tlb_table_clear_local(t->space->table[TLB_SUPER]);
	fetch_clear(t->space->fetch[1], t->space->fetch[1]->local);
}

int tlb_init(struct tlb *t, struct err *e)
{
	*t = (struct tlb){ .space = &t->spaces[0] };
	if (tlb_tables_init(t, e))
		return -ENOMEM;
	t->second = huge_alloc(sizeof(*t->second));
	if (!t->second) {
		tlb_dispose(t);
		return err_set(e, ENOMEM, "no memory for a TLB");
	}
	for (unsigned i = 1; i < TLB_SPACES; i++)
		t->spaces[i].cr3 = SPACE_FREE;
	t->spaces[0].cr3 = 0;
	t->mode = TLB_SUPER_AC;
	t->data = t->space->table[t->mode];
	t->fetch = t->space->fetch[1];
	return 0;
}

/* Own thread; nothing is known of any page afterwards. */
void tlb_trim(struct cpu *c)
{
	struct tlb *t = &c->tlb;

	tlb_flush_all(c);
	tlb_give_back(t);
	tlb_tables_trim(t);
	tlb_select(c);
}

void tlb_dispose(struct tlb *t)
{
	tlb_tables_dispose(t);
	huge_free(t->second, sizeof(*t->second));
	*t = (struct tlb){ 0 };
}

/* What a space is known by: with PCIDs their number and root; without, all share one that CR3 writes flush. */
static uint64_t space_key(const struct cpu *c, uint64_t cr3)
{
	return c->s.cr4 & CR4_PCIDE ? cr3 & ~BIT(63) : 0;
}

void tlb_select(struct cpu *c)
{
	struct tlb *t = &c->tlb;

	if (c->s.cpl == 3)
		t->mode = TLB_USER;
	else if ((c->s.cr4 & CR4_SMAP) && !(c->s.rflags & FLAG_AC))
		t->mode = TLB_SUPER;
	else
		t->mode = TLB_SUPER_AC;
	if (unlikely(t->grow))
		tlb_grow(t);
	t->data = t->space->table[t->mode];
	if (unlikely(c->s.cpl == 3 && (c->s.cr0 & CR0_AM) && (c->s.rflags & FLAG_AC)))
		t->data = t->none;
	t->fetch = t->space->fetch[c->s.cpl != 3];
}

/* ---- flushing */

/* Fetches must miss once more, so that `fetched` has every page that was fetched from since. */
static void code_changed(struct tlb *t)
{
	t->code_changes++;
	t->super_low = false;
	for (unsigned i = 0; i < ARRAY_LEN(t->fetched); i++)
		t->fetched[i] = 0;
	for (unsigned i = 0; i < TLB_SPACES; i++) {
		t->spaces[i].code_id = ++t->code_ids;
		t->spaces[i].code_lost = false;
		fetch_clear(t->spaces[i].fetch[0], t->spaces[i].fetch[0]->used);
	}
	fetch_clear(t->space->fetch[1], t->space->fetch[1]->used);
}

static void local_changed(struct tlb *t, struct tlb_space *s)
{
	t->local_changes++;
	if (!s)
		return;
	s->code_id = ++t->code_ids;
	s->code_lost = false;
}

/* One page, or all that agrees with it from bit `shift` on. */
static void code_page_changed(struct tlb *t, gva_t page, unsigned shift)
{
	uint64_t bit, *word = fetched_word(t, page, &bit);

	if (shift != 12 || *word & bit)
		code_changed(t);
}

void tlb_flush_all(struct cpu *c)
{
	struct tlb *t = &c->tlb;

	code_changed(t);
	for (unsigned i = 0; i < TLB_SPACES; i++) {
		space_clear(&t->spaces[i]);
		if (&t->spaces[i] != t->space)
			t->spaces[i].cr3 = SPACE_FREE;
	}
	tlb_table_empty(t->space->table[TLB_SUPER]);
	large_forget(&t->large);
	t->global_low = false;
	t->range.size = 0;
	t->address = ((1ull << c->machine->cpuid->phys_bits) - 1) & ~(GUEST_PAGE - 1);
	t->flushes++;
}

void tlb_flush_space(struct cpu *c)
{
	local_changed(&c->tlb, c->tlb.space);
	space_clear_local(c->tlb.space);
	shared_clear_local(&c->tlb);
	c->tlb.flushes++;
}

void tlb_flush_pcid(struct cpu *c, unsigned pcid, bool keep_global)
{
	struct tlb *t = &c->tlb;

	if (!keep_global) {
		tlb_flush_all(c);
		return;
	}
	for (unsigned i = 0; i < TLB_SPACES; i++) {
		struct tlb_space *s = &t->spaces[i];

		if (s->cr3 != SPACE_FREE && (s->cr3 & 0xfff) == pcid) {
			space_clear_local(s);
			local_changed(t, s);
		}
	}
	if ((t->space->cr3 & 0xfff) == pcid)
		shared_clear_local(t);
	t->flushes++;
}

static void table_flush_page(struct tlb *tlb, struct tlb_table *t, gva_t page)
{
	unsigned i = tlb_index(t, page), low = (page >> 12) & (TLB_ENTRIES - 1);

	if (t->read_tag[i] == page)
		tlb_entry_clear(t, i);
	if (t->read_tag[low] == page)
		tlb_entry_clear(t, low);
	second_clear_page(tlb, t, page);
}

static void fetch_flush_page(struct tlb_fetch *f, gva_t page)
{
	unsigned i = (page >> 12) & (TLB_FETCH_ENTRIES - 1);

	if (f->tag[i] == page)
		f->tag[i] = TLB_NONE;
}

/* All that agrees with `page` from bit `shift` on. */
static void table_flush_frame(struct tlb_table *t, gva_t page, unsigned shift)
{
	second_forget(t);
	for (unsigned n = 0; n < tlb_busy_words(t); n++) {
		for (uint64_t words = t->busy[n]; words;) {
			unsigned w = tlb_busy_next(n, &words);

			for (uint64_t left = t->bits[w].used; left; left &= left - 1) {
				unsigned i = w * 64 + (unsigned)__builtin_ctzll(left);

				if ((t->read_tag[i] ^ page) >> shift == 0)
					tlb_entry_clear(t, i);
			}
		}
	}
}

static void fetch_flush_frame(struct tlb_fetch *f, gva_t page, unsigned shift)
{
	for (unsigned i = 0; i < TLB_FETCH_ENTRIES; i++)
		if ((f->tag[i] ^ page) >> shift == 0)
			f->tag[i] = TLB_NONE;
}

/*
 * INVLPG of any address in a large mapping drops all of it, and operating systems rely on that. We keep 4 KiB pieces, so
 * the TLB remembers in which frames it has seen large mappings; errors are on the side of dropping more. Gives from
 * which bit on an INVLPG of this page must look for its like; mappings of 4 MiB are two frames.
 */
static unsigned large_shift(const struct tlb_large *l, gva_t page)
{
	if (unlikely(l->huge & BIT(page >> 30 & 63)))
		return 30;
	return l->frames[page >> 27 & 15] & (3ull << (page >> 21 & 62)) ? 22 : 12;
}

static void space_flush_page(struct tlb *t, struct tlb_space *s, gva_t page, unsigned shift)
{
	if (likely(shift == 12)) {
		table_flush_page(t, s->table[TLB_USER], page);
		table_flush_page(t, s->table[TLB_SUPER_AC], page);
		fetch_flush_page(s->fetch[0], page);
	} else {
		table_flush_frame(s->table[TLB_USER], page, shift);
		table_flush_frame(s->table[TLB_SUPER_AC], page, shift);
		fetch_flush_frame(s->fetch[0], page, shift);
	}
}

/*
 * A page of the lower half, not global, nothing there fetched by a supervisor: only this space's code may lie elsewhere now, and as
 * long as fetch[0] is complete it says whether any does.
 */
static void user_page_changed(struct tlb *t, struct tlb_space *s, gva_t page, unsigned shift)
{
	uint64_t bit, *word = fetched_word(t, page, &bit);

	if (shift == 12 && (s->code_lost ? !(*word & bit) : s->fetch[0]->tag[(page >> 12) & (TLB_FETCH_ENTRIES - 1)] != page))
		return;
	local_changed(t, s);
}

static void shared_flush_page(struct tlb *t, gva_t page, unsigned shift)
{
	if (likely(shift == 12)) {
		table_flush_page(t, t->space->table[TLB_SUPER], page);
		fetch_flush_page(t->space->fetch[1], page);
	} else {
		table_flush_frame(t->space->table[TLB_SUPER], page, shift);
		fetch_flush_frame(t->space->fetch[1], page, shift);
	}
}

static void flush_page_everywhere(struct tlb *t, gva_t page)
{
	for (unsigned i = 0; i < TLB_SPACES; i++) {
		struct tlb_space *s = &t->spaces[i];

		if (s->cr3 != SPACE_FREE)
			space_flush_page(t, s, page, large_shift(page >> 63 ? &t->large : &s->large, page));
	}
	code_page_changed(t, page, large_shift(large_of(t, page), page));
	shared_flush_page(t, page, large_shift(large_of(t, page), page));
}

/* INVLPG. Pages of the lower half are hardly ever global; then only this PCID has them. */
void tlb_flush_page(struct cpu *c, gva_t at)
{
	struct tlb *t = &c->tlb;
	gva_t page = at & ~(GUEST_PAGE - 1);
	unsigned shift;

	t->flushes++;
	if (page >> 63 || t->global_low || t->super_low) {
		flush_page_everywhere(t, page);
		return;
	}
	shift = large_shift(&t->space->large, page);
	shared_flush_page(t, page, shift);
	for (unsigned i = 0; i < TLB_SPACES; i++) {
		struct tlb_space *s = &t->spaces[i];

		if (s->cr3 == SPACE_FREE || ((s->cr3 ^ t->space->cr3) & 0xfff))
			continue;
		shift = large_shift(&s->large, page);
		user_page_changed(t, s, page, shift);
		space_flush_page(t, s, page, shift);
	}
}

void tlb_flush_page_pcid(struct cpu *c, gva_t at, unsigned pcid)
{
	c->tlb.flushes++;
	flush_page_everywhere(&c->tlb, at & ~(GUEST_PAGE - 1));
}

/* ---- address spaces */

static struct tlb_space *space_find(struct tlb *t, uint64_t key)
{
	for (unsigned i = 0; i < TLB_SPACES; i++)
		if (t->spaces[i].cr3 == key)
			return &t->spaces[i];
	return NULL;
}

/* One to be used anew: free, or not used for the longest time; not the current one. */
static struct tlb_space *space_victim(struct tlb *t)
{
	struct tlb_space *victim = NULL;

	for (unsigned i = 0; i < TLB_SPACES; i++) {
		struct tlb_space *s = &t->spaces[i];

		if (s == t->space)
			continue;
		if (s->cr3 == SPACE_FREE)
			return s;
		if (!victim || s->used < victim->used)
			victim = s;
	}
	return victim;
}

/*
 * After a flush that took data with it: do all the pages that a user has fetched from in the current space still lead
 * where they led? Then they are as good as fetched again just now, and what an engine keeps about the space's code can
 * stay: a process that unmaps something flushes everything, and has its code where it was. A walk costs 16 ns, to find a
 * block anew ten times that.
 */
#define FETCH_COMPARED 64u

static bool code_same(struct cpu *c, const struct tlb_space *s)
{
	const struct tlb_fetch *f = s->fetch[0];
	unsigned n = 0;

	if (s->code_lost)
		return false;
	for (unsigned w = 0; w < TLB_FETCH_ENTRIES / 64; w++) {
		n += (unsigned)__builtin_popcountll(f->local[w]);
		if (n > FETCH_COMPARED)
			return false;
		for (uint64_t left = f->local[w]; left; left &= left - 1) {
			unsigned i = w * 64 + (unsigned)__builtin_ctzll(left);

			if (f->tag[i] == TLB_NONE || !tlb_fetch_leads(c, f->tag[i], f->page[i]))
				return false;
		}
	}
	return true;
}

/* MOV CR3 that flushes, to a space that we know. */
static void flush_current(struct cpu *c)
{
	struct tlb *t = &c->tlb;
	struct tlb_space *s = t->space;

	space_clear_data(s);
	if (code_same(c, s))
		return;
	fetch_clear(s->fetch[0], s->fetch[0]->local);
	local_changed(t, s);
}

static bool fetches_local(const struct tlb_fetch *f)
{
	uint64_t any = 0;

	for (unsigned w = 0; w < TLB_FETCH_ENTRIES / 64; w++)
		any |= f->local[w];
	return any;
}

void tlb_switch(struct cpu *c, uint64_t cr3, bool noflush)
{
	struct tlb *t = &c->tlb;
	uint64_t key = space_key(c, cr3);
	struct tlb_space *s = space_find(t, key);

	t->switches++;
	if (s != t->space || fetches_local(t->space->fetch[1]))
		local_changed(t, NULL);
	shared_clear_local(t);
	/* a PCID with another root is the same PCID */
	for (unsigned i = 0; !noflush && i < TLB_SPACES; i++)
		if (&t->spaces[i] != s && t->spaces[i].cr3 != SPACE_FREE && (t->spaces[i].cr3 & 0xfff) == (key & 0xfff)) {
			space_clear_local(&t->spaces[i]);
			local_changed(t, &t->spaces[i]);
		}
	if (!s) {
		s = space_victim(t);
		tlb_space_ready(t, s);
		space_clear(s);
		local_changed(t, s);
		s->cr3 = key;
		noflush = true;
	}
	s->used = ++t->clock;
	t->space = s;
	if (!noflush)
		flush_current(c);
	tlb_select(c);
}

/* ---- revoking */

/* Of 64 entries. */
static bool bits_revoke(struct tlb_table *t, unsigned w, const uint8_t *host_page)
{
	bool found = false;

	for (uint64_t left = __atomic_load_n(&t->bits[w].written, __ATOMIC_SEQ_CST); left; left &= left - 1) {
		unsigned i = w * 64 + (unsigned)__builtin_ctzll(left);
		uint64_t tag = __atomic_load_n(&t->write_tag[i], __ATOMIC_SEQ_CST), addend;

		if (tag == tlb_none(i))
			continue;
		addend = __atomic_load_n(&t->addend[i], __ATOMIC_SEQ_CST);
		if (__atomic_load_n(&t->write_tag[i], __ATOMIC_SEQ_CST) != tag) {
			found = true; /* its owner is changing it: it may have been ours */
			continue;
		}
		if (tag + addend != (uintptr_t)host_page)
			continue;
		__atomic_compare_exchange_n(&t->write_tag[i], &tag, tlb_none(i), false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
		found = true;
	}
	return found;
}

bool tlb_revoke_page(struct tlb *t, const uint8_t *host_page)
{
	struct tlb_table *table;
	bool found = false;

	for (unsigned k = 0; (table = tlb_table_any(t, k)); k++)
		for (unsigned n = 0; n < ARRAY_LEN(table->busy) && (!n || k >= TLB_TABLES); n++)
			for (uint64_t words = __atomic_load_n(&table->busy[n], __ATOMIC_SEQ_CST); words;)
				found |= bits_revoke(table, tlb_busy_next(n, &words), host_page);
	return found;
}

static void table_revoke_writes(struct tlb_table *t)
{
	for (unsigned n = 0; n < tlb_busy_words(t); n++) {
		for (uint64_t words = t->busy[n]; words;) {
			unsigned w = tlb_busy_next(n, &words);

			for (uint64_t left = t->bits[w].written; left; left &= left - 1) {
				unsigned i = w * 64 + (unsigned)__builtin_ctzll(left);

				tlb_tag_store(&t->write_tag[i], tlb_none(i));
			}
			__atomic_store_n(&t->bits[w].written, 0, __ATOMIC_RELAXED);
		}
	}
}

void tlb_revoke_writes(struct cpu *c)
{
	struct tlb_table *table;

	for (unsigned k = 0; (table = tlb_table_any(&c->tlb, k)); k++)
		table_revoke_writes(table);
}
