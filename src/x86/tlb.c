/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The software TLB: see tlb.h. Compiled for general registers only.
 *
 * Filling and revoking meet in one place: a page is flagged in mem (MEM_CODE, or tracking without MEM_DIRTY) before its write
 * tags are revoked, and a write tag is stored before the flag is looked at again. Whichever comes second sees the
 * other, so no write tag outlives the flag.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include "base/err.h"
#include "x86/access.h"
#include "x86/pgwalk.h"
#include "x86/tlb-fill.h"

#define SPACE_FREE (~0ull)
#define SPACE_SIZE (TLB_MODES * sizeof(struct tlb_table) + 2 * sizeof(struct tlb_fetch))

static void table_clear(struct tlb_table *t)
{
	for (unsigned i = 0; i < TLB_ENTRIES; i++) {
		__atomic_store_n(&t->read_tag[i], tlb_none(i), __ATOMIC_RELAXED);
		__atomic_store_n(&t->write_tag[i], tlb_none(i), __ATOMIC_RELAXED);
	}
}

static void fetch_clear(struct tlb_fetch *f)
{
	for (unsigned i = 0; i < TLB_FETCH_ENTRIES; i++)
		f->tag[i] = TLB_NONE;
}

static void space_clear(struct tlb_space *s)
{
	for (unsigned m = 0; m < TLB_MODES; m++) {
		if (s->filled & 1u << m)
			table_clear(s->table[m]);
	}
	if (s->filled & TLB_FILLED_FETCH) {
		fetch_clear(s->fetch[0]);
		fetch_clear(s->fetch[1]);
	}
	s->filled = 0;
	s->has_global = false;
	s->huge = 0;
	memset(s->large, 0, sizeof(s->large));
}

int tlb_init(struct tlb *t, struct err *e)
{
	char *p = mmap(NULL, TLB_SPACES * SPACE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memset(t, 0, sizeof(*t));
	if (p == MAP_FAILED)
		return err_errno(e, "no memory for a TLB");
	for (unsigned i = 0; i < TLB_SPACES; i++) {
		struct tlb_space *s = &t->spaces[i];

		s->cr3 = SPACE_FREE;
		for (unsigned m = 0; m < TLB_MODES; m++, p += sizeof(struct tlb_table))
			s->table[m] = (struct tlb_table *)p;
		for (unsigned f = 0; f < 2; f++, p += sizeof(struct tlb_fetch))
			s->fetch[f] = (struct tlb_fetch *)p;
		s->filled = ~0u;
		space_clear(s);
	}
	t->spaces[0].cr3 = 0;
	t->space = &t->spaces[0];
	t->mode = TLB_SUPER_AC;
	t->data = t->space->table[t->mode];
	t->fetch = t->space->fetch[1];
	return 0;
}

void tlb_dispose(struct tlb *t)
{
	if (t->space)
		munmap(t->spaces[0].table[0], TLB_SPACES * SPACE_SIZE);
	memset(t, 0, sizeof(*t));
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
	t->data = t->space->table[t->mode];
	t->fetch = t->space->fetch[c->s.cpl != 3];
}

void tlb_flush_all(struct cpu *c)
{
	for (unsigned i = 0; i < TLB_SPACES; i++) {
		space_clear(&c->tlb.spaces[i]);
		if (&c->tlb.spaces[i] != c->tlb.space)
			c->tlb.spaces[i].cr3 = SPACE_FREE;
	}
	c->tlb.flushes++;
}

static void space_flush(struct tlb_space *s, bool keep_global)
{
	if (!keep_global || !s->has_global) {
		space_clear(s);
		return;
	}
	for (unsigned m = 0; m < TLB_MODES; m++) {
		struct tlb_table *t = s->table[m];

		for (unsigned i = 0; (s->filled & 1u << m) && i < TLB_ENTRIES; i++) {
			if (t->global[i])
				continue;
			__atomic_store_n(&t->read_tag[i], tlb_none(i), __ATOMIC_RELAXED);
			__atomic_store_n(&t->write_tag[i], tlb_none(i), __ATOMIC_RELAXED);
		}
	}
	if (s->filled & TLB_FILLED_FETCH) {
		for (unsigned f = 0; f < 2; f++)
			for (unsigned i = 0; i < TLB_FETCH_ENTRIES; i++)
				if (!s->fetch[f]->global[i])
					s->fetch[f]->tag[i] = TLB_NONE;
	}
}

void tlb_flush_space(struct cpu *c)
{
	space_flush(c->tlb.space, true);
	c->tlb.flushes++;
}

void tlb_flush_pcid(struct cpu *c, unsigned pcid, bool keep_global)
{
	for (unsigned i = 0; i < TLB_SPACES; i++) {
		struct tlb_space *s = &c->tlb.spaces[i];

		if (s->cr3 != SPACE_FREE && (s->cr3 & 0xfff) == pcid)
			space_flush(s, keep_global);
	}
	c->tlb.flushes++;
}

static void space_flush_page(struct tlb_space *s, gva_t page)
{
	unsigned i = (page >> 12) & (TLB_ENTRIES - 1), f = (page >> 12) & (TLB_FETCH_ENTRIES - 1);

	for (unsigned m = 0; m < TLB_MODES; m++) {
		if (s->table[m]->read_tag[i] == page)
			__atomic_store_n(&s->table[m]->read_tag[i], tlb_none(i), __ATOMIC_RELAXED);
		if (s->table[m]->write_tag[i] == page)
			__atomic_store_n(&s->table[m]->write_tag[i], tlb_none(i), __ATOMIC_RELAXED);
	}
	for (unsigned k = 0; k < 2; k++)
		if (s->fetch[k]->tag[f] == page)
			s->fetch[k]->tag[f] = TLB_NONE;
}

/*
 * INVLPG of any address in a large mapping drops all of it, and operating systems rely on that. We keep 4 KiB pieces, so
 * a space remembers in which frames it has seen large mappings; the memory of 2 MiB frames is hashed, errors are on
 * the side of dropping more.
 */
static void large_remember(struct tlb_space *s, gva_t page, uint64_t size)
{
	if (size == ~0ull || size == GUEST_PAGE)
		return;
	s->large[page >> 27 & 15] |= BIT(page >> 21 & 63);
	if (size > 4ull << 20)
		s->huge |= BIT(page >> 30 & 63);
}

static void flush_around(struct tlb_space *s, gva_t page)
{
	gva_t start = page & ~((4ull << 20) - 1);

	if (s->huge & BIT(page >> 30 & 63)) {
		space_clear(s);
	} else if (s->large[page >> 27 & 15] & BIT(page >> 21 & 63)) {
		for (gva_t at = start; at < start + (4ull << 20); at += GUEST_PAGE)
			space_flush_page(s, at);
	} else {
		space_flush_page(s, page);
	}
}

void tlb_flush_page(struct cpu *c, gva_t at)
{
	for (unsigned i = 0; i < TLB_SPACES; i++)
		if (c->tlb.spaces[i].filled)
			flush_around(&c->tlb.spaces[i], at & ~(GUEST_PAGE - 1));
}

void tlb_flush_page_pcid(struct cpu *c, gva_t at, unsigned pcid)
{
	for (unsigned i = 0; i < TLB_SPACES; i++) {
		struct tlb_space *s = &c->tlb.spaces[i];

		if (s->cr3 != SPACE_FREE && (s->cr3 & 0xfff) == pcid && s->filled)
			flush_around(s, at & ~(GUEST_PAGE - 1));
	}
}

void tlb_switch(struct cpu *c, uint64_t cr3, bool noflush)
{
	struct tlb *t = &c->tlb;
	uint64_t key = space_key(c, cr3);
	struct tlb_space *found = NULL, *oldest = NULL;

	t->switches++;
	for (unsigned i = 0; i < TLB_SPACES && !found; i++) {
		struct tlb_space *s = &t->spaces[i];

		if (s->cr3 == key)
			found = s;
		else if (s != t->space && (!oldest || s->cr3 == SPACE_FREE || (oldest->cr3 != SPACE_FREE && s->used < oldest->used)))
			oldest = s;
	}
	/* A PCID with another root is the same PCID: what it had is stale unless the guest flushed it. */
	if (!found) {
		for (unsigned i = 0; i < TLB_SPACES; i++)
			if (t->spaces[i].cr3 != SPACE_FREE && (t->spaces[i].cr3 & 0xfff) == (key & 0xfff) && !noflush)
				space_flush(&t->spaces[i], true);
		found = oldest;
		space_clear(found);
		found->cr3 = key;
	} else if (!noflush) {
		space_flush(found, true);
	}
	found->used = ++t->clock;
	t->space = found;
	tlb_select(c);
}

bool tlb_revoke_page(struct tlb *t, const uint8_t *host_page)
{
	bool found = false;

	for (unsigned i = 0; i < TLB_SPACES * TLB_MODES; i++) {
		struct tlb_space *s = &t->spaces[i / TLB_MODES];
		struct tlb_table *table = s->table[i % TLB_MODES];

		if (!(__atomic_load_n(&s->filled, __ATOMIC_SEQ_CST) & 1u << i % TLB_MODES))
			continue;
		for (unsigned n = 0; n < TLB_ENTRIES; n++) {
			uint64_t tag = __atomic_load_n(&table->write_tag[n], __ATOMIC_SEQ_CST);

			if (tag == tlb_none(n) ||
			    tag + __atomic_load_n(&table->addend[n], __ATOMIC_RELAXED) != (uintptr_t)host_page)
				continue;
			__atomic_compare_exchange_n(&table->write_tag[n], &tag, tlb_none(n), false, __ATOMIC_SEQ_CST,
						    __ATOMIC_SEQ_CST);
			found = true;
		}
	}
	return found;
}

void tlb_revoke_writes(struct cpu *c)
{
	for (unsigned i = 0; i < TLB_SPACES * TLB_MODES; i++) {
		struct tlb_space *s = &c->tlb.spaces[i / TLB_MODES];

		for (unsigned n = 0; (s->filled & 1u << i % TLB_MODES) && n < TLB_ENTRIES; n++)
			__atomic_store_n(&s->table[i % TLB_MODES]->write_tag[n], tlb_none(n), __ATOMIC_RELAXED);
	}
}

/* May stores to this RAM page go straight to memory? */
static bool plain_write(const struct mem *m, uint64_t ram_page)
{
	return mem_page_plain_write(atomic_load(&mem_page_flags(m)[ram_page]), mem_dirty_tracking(m));
}

/* Make an entry for a page of RAM or ROM that the walk has allowed. */
static void entry_make(struct cpu *c, gva_t page, const struct pgwalk *w, const struct mem_range *r,
		       enum tlb_mode mode)
{
	struct tlb_space *s = c->tlb.space;
	struct tlb_table *t = s->table[mode];
	unsigned i = (page >> 12) & (TLB_ENTRIES - 1);
	uint64_t offset = r->ram_offset + (w->page - r->start);
	uint8_t *host = r->host + (w->page - r->start);
	bool write = w->writable && w->dirty && r->kind == MEM_RAM && plain_write(c->mem, offset >> 12);

	s->filled |= 1u << mode;
	s->has_global |= w->global;
	large_remember(s, page, w->size);
	/* The entry may be another page's: first it must be nobody's. */
	__atomic_store_n(&t->write_tag[i], tlb_none(i), __ATOMIC_RELEASE);
	__atomic_store_n(&t->read_tag[i], tlb_none(i), __ATOMIC_RELEASE);
	__atomic_store_n(&t->addend[i], (uintptr_t)host - page, __ATOMIC_RELEASE);
	t->global[i] = w->global;
	__atomic_store_n(&t->read_tag[i], page, __ATOMIC_RELEASE);
	if (write) {
		__atomic_store_n(&t->write_tag[i], page, __ATOMIC_SEQ_CST);
		if (!plain_write(c->mem, offset >> 12))
			__atomic_store_n(&t->write_tag[i], tlb_none(i), __ATOMIC_SEQ_CST);
	}
}

int tlb_fill(struct cpu *c, gva_t at, enum tlb_access access, enum tlb_mode mode, gpa_t *where)
{
	const struct mem_range *r;
	struct pgwalk w;
	gva_t page = at & ~(GUEST_PAGE - 1);
	unsigned i = (at >> 12) & (TLB_ENTRIES - 1);
	int rc = pgwalk(c, at, access, mode, &w);

	if (rc)
		return rc;
	c->tlb.fills++;
	*where = w.page | (at & (GUEST_PAGE - 1));
	r = mem_find(c->mem, w.page);
	if (!r || r->kind == MEM_IO || !range_fits(w.page - r->start, GUEST_PAGE, r->size))
		return TLB_NOT_MEMORY;
	if (tlb_page_watched(c, page))
		return TLB_NOT_MEMORY;
	entry_make(c, page, &w, r, mode);
	if (access == ACCESS_WRITE && c->tlb.space->table[mode]->write_tag[i] != page)
		return TLB_NOT_MEMORY;
	return CPU_OK;
}

int cpu_fetch_page(struct cpu *c, gva_t at, gpa_t *page)
{
	unsigned i = (at >> 12) & (TLB_FETCH_ENTRIES - 1);
	gva_t tag = at & ~(GUEST_PAGE - 1);
	struct pgwalk w;
	int rc;

	if (likely(c->tlb.fetch->tag[i] == tag)) {
		*page = c->tlb.fetch->page[i];
		return CPU_OK;
	}
	if (x86_64bit(&c->s) && (uint64_t)((int64_t)(at << 16) >> 16) != at)
		return cpu_raise_error(c, VEC_GP, 0);
	rc = pgwalk(c, at, ACCESS_FETCH, c->s.cpl == 3 ? TLB_USER : TLB_SUPER_AC, &w);
	if (rc)
		return rc;
	c->tlb.fetch->tag[i] = tag;
	c->tlb.fetch->page[i] = w.page;
	c->tlb.fetch->global[i] = w.global;
	c->tlb.space->filled |= TLB_FILLED_FETCH;
	c->tlb.space->has_global |= w.global;
	large_remember(c->tlb.space, tag, w.size);
	*page = w.page;
	return CPU_OK;
}
