/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filling the software TLB. Compiled for general registers only. tlb.c tells how filling and revoking meet.
 */
#include "x86/access.h"
#include "x86/pgwalk.h"
#include "x86/tlb-fill.h"
#include "x86/tlb-second.h"
#include "x86/tlb-table.h"

const struct mem_range *tlb_range_find(struct cpu *c, gpa_t at)
{
	unsigned count, low = 0, high;
	const struct mem_range *ranges = mem_ranges(c->mem, &count);

	high = count;
	while (low < high) {
		unsigned mid = low + (high - low) / 2;

		if (ranges[mid].start + ranges[mid].size <= at)
			low = mid + 1;
		else
			high = mid;
	}
	if (low >= count || ranges[low].start > at)
		return NULL;
	if (ranges[low].kind != MEM_IO)
		c->tlb.range = ranges[low];
	return &ranges[low];
}

static void bit_set(uint64_t *word, unsigned i, bool v)
{
	uint64_t bit = BIT(i % 64);

	*word = v ? *word | bit : *word & ~bit;
}

/* May stores to this RAM page go straight to memory? The first of a tracked page counts from now on. */
static bool plain_write(struct mem *m, uint64_t ram_page, bool writing)
{
	_Atomic uint8_t *flags = &mem_page_flags(m)[ram_page];
	bool tracking = mem_dirty_tracking(m);
	uint8_t f = atomic_load_explicit(flags, memory_order_relaxed);

	if (unlikely(tracking && writing && !(f & MEM_DIRTY))) {
		mem_mark_dirty(m, ram_page);
		f = atomic_load_explicit(flags, memory_order_relaxed);
	}
	return mem_page_plain_write(f, tracking);
}

static void write_tag_make(struct cpu *c, struct tlb_table *t, unsigned i, gva_t page, uint64_t ram_page, bool writing)
{
	uint64_t bit = BIT(i % 64), *written = &t->bits[i / 64].written;

	if (!plain_write(c->mem, ram_page, writing))
		return;
	if (!(*written & bit))
		__atomic_store_n(written, *written | bit, __ATOMIC_RELEASE);
	__atomic_exchange_n(&t->write_tag[i], page, __ATOMIC_SEQ_CST);
	if (unlikely(!plain_write(c->mem, ram_page, false)))
		__atomic_store_n(&t->write_tag[i], tlb_none(i), __ATOMIC_SEQ_CST);
}

/* What the page tables say of a page of RAM or ROM. */
struct fact {
	gva_t page;
	uint8_t *host;
	bool global, writable; /* RAM, allowed, dirty bit set */
};

/* See tlb-second.h. */
static inline bool second_takes(enum tlb_mode mode, bool global)
{
	return mode != TLB_SUPER || global;
}

static void entry_keep(struct tlb *t, struct tlb_table *table, unsigned i)
{
	gva_t page = table->read_tag[i];

	second_put_page(t, table, page, (page + table->addend[i]) | (table->write_tag[i] == page ? SECOND_WRITABLE : 0));
}

/* Another page's entry gives way. */
static void drive_out(struct tlb *t, struct tlb_table *table, enum tlb_mode mode, unsigned i, gva_t page)
{
	gva_t old = table->read_tag[i];

	if (old == page || old == tlb_none(i))
		return;
	t->grow |= ++table->driven % TLB_DRIVEN == 0; /* once more: it may have been another space's turn before anybody looked */
	if (second_takes(mode, !(table->bits[i / 64].local >> (i % 64) & 1)))
		entry_keep(t, table, i);
}

static void entry_make(struct cpu *c, const struct fact *f, enum tlb_mode mode, unsigned i, bool writing)
{
	struct tlb_table *t = c->tlb.space->table[mode];
	uint64_t *busy = &t->busy[i / 4096];

	drive_out(&c->tlb, t, mode, i, f->page);
	/* The entry may be another page's: first it must be nobody's. */
	__atomic_store_n(&t->write_tag[i], tlb_none(i), __ATOMIC_RELEASE);
	__atomic_store_n(&t->read_tag[i], tlb_none(i), __ATOMIC_RELEASE);
	__atomic_store_n(&t->addend[i], (uintptr_t)f->host - f->page, __ATOMIC_RELEASE);
	__atomic_store_n(busy, *busy | BIT(i / 64 % 64), __ATOMIC_RELEASE);
	bit_set(&t->bits[i / 64].used, i, true);
	bit_set(&t->bits[i / 64].local, i, !f->global);
	__atomic_store_n(&t->read_tag[i], f->page, __ATOMIC_RELEASE);
	if (f->writable)
		write_tag_make(c, t, i, f->page, (uint64_t)(f->host - mem_ram_base(c->mem)) >> 12, writing);
}

static bool watched(const struct cpu *c, gva_t page)
{
	return unlikely((c->s.dr[7] & 0xff) || c->debug.nwatches) && tlb_page_watched(c, page);
}

/* From the second level. False: not there, or it does not allow the access, which only a walk can refuse. */
static bool second_fill(struct cpu *c, gva_t page, bool write, enum tlb_mode mode)
{
	struct tlb_table *t = c->tlb.space->table[mode];
	unsigned i = tlb_index(t, page);
	uint64_t found;
	struct fact f;

	/* if the first level has it, it is not enough */
	if (t->read_tag[i] == page)
		return false;
	found = second_find(&c->tlb, t, page);
	if (!found || watched(c, page)) /* a large page is there whole */
		return false;
	f = (struct fact){ .page = page,
			   .host = (uint8_t *)(uintptr_t)(found & ~(GUEST_PAGE - 1)),
			   .global = mode == TLB_SUPER,
			   .writable = found & SECOND_WRITABLE };
	if (write && !f.writable) {
		second_clear_page(&c->tlb, t, page);
		return false;
	}
	entry_make(c, &f, mode, i, write);
	if (write && unlikely(t->write_tag[i] != page))
		return false;
	c->tlb.second_hits++;
	return true;
}

bool tlb_low(struct cpu *c, gva_t at, bool write)
{
	struct tlb_table *t = c->tlb.data;
	gva_t page = at & ~(GUEST_PAGE - 1);
	unsigned i = tlb_index(t, at), low = (at >> 12) & (TLB_ENTRIES - 1);
	struct fact f;

	if (t->read_tag[i] != page || (write && t->write_tag[i] != page))
		return false;
	if (i == low)
		return true;
	f = (struct fact){ .page = page,
			   .host = (uint8_t *)(uintptr_t)(page + t->addend[i]),
			   .global = !(t->bits[i / 64].local >> (i % 64) & 1),
			   .writable = t->write_tag[i] == page };
	entry_make(c, &f, c->tlb.mode, low, write);
	return !write || t->write_tag[low] == page;
}

void tlb_drive_all(struct tlb *t, struct tlb_table *table)
{
	for (uint64_t words = table->busy[0]; words;) {
		unsigned w = tlb_busy_next(0, &words);

		for (uint64_t left = table->bits[w].used; left; left &= left - 1) {
			unsigned i = w * 64 + (unsigned)__builtin_ctzll(left);

			/* of the table that all spaces share, global ones only */
			if (table->read_tag[i] != tlb_none(i) &&
			    (table != t->space->table[TLB_SUPER] || !(table->bits[w].local >> (i % 64) & 1)))
				entry_keep(t, table, i);
		}
	}
}

/* A page of RAM or ROM that the walk has allowed. */
static void walked(struct cpu *c, gva_t page, const struct pgwalk *w, const struct mem_range *r, enum tlb_mode mode, bool writing)
{
	struct fact f = { .page = page,
			  .host = r->host + (w->page - r->start),
			  .global = w->global,
			  .writable = w->writable && w->dirty && r->kind == MEM_RAM };
	gpa_t frame = w->page & ~LARGE_MASK;

	large_remember(&c->tlb, page, w->size);
	c->tlb.global_low |= w->global && !(page >> 63);
	if (w->size > GUEST_PAGE && w->size <= 1ull << 30 && r->kind == MEM_RAM && second_takes(mode, w->global) &&
	    frame >= r->start && range_fits(frame - r->start, LARGE_MASK + 1, r->size))
		second_put_frame(&c->tlb, c->tlb.space->table[mode], page & ~LARGE_MASK,
				 (uintptr_t)(r->host + (frame - r->start)) | (f.writable ? SECOND_WRITABLE : 0));
	entry_make(c, &f, mode, tlb_index(c->tlb.space->table[mode], page), writing);
}

#define PTE_P BIT(0)
#define PTE_W BIT(1)
#define PTE_U BIT(2)
#define PTE_A BIT(5)
#define PTE_D BIT(6)
#define PTE_PS BIT(7)
#define PTE_G BIT(8)
#define PTE_NX BIT(63)

/* A data access may pass with these rights, gathered from all levels. */
static bool rights_allow(const struct cpu *c, uint64_t rights, bool write, enum tlb_mode mode)
{
	if (mode == TLB_USER)
		return (rights & PTE_U) && (!write || rights & PTE_W);
	if (mode == TLB_SUPER && (rights & PTE_U) && (c->s.cr4 & CR4_SMAP))
		return false;
	return !write || rights & PTE_W || !(c->s.cr0 & CR0_WP);
}

/* nx: of any level. */
static bool fetch_allowed(const struct cpu *c, uint64_t rights, uint64_t nx, enum tlb_mode mode)
{
	if (nx & PTE_NX)
		return false;
	return mode == TLB_USER ? rights & PTE_U : !(rights & PTE_U) || !(c->s.cr4 & CR4_SMEP);
}

/*
 * The usual walk, in a third of the time: four levels, all tables in the range found last, pages of 4 KiB or 2 MiB,
 * allowed, accessed and dirty bits set already. False: pgwalk knows.
 */
static bool walk_usual(struct cpu *c, gva_t at, enum tlb_access access, enum tlb_mode mode, struct pgwalk *out)
{
	const struct mem_range *r = &c->tlb.range;
	uint64_t address = c->tlb.address, v = c->s.cr3, rights = ~0ull, nx = 0;
	bool write = access == ACCESS_WRITE;
	uint64_t bad = 0x000fffffffffffffull & ~address & ~0xfffull; /* physical addresses that are none */
	unsigned shift = 39;

	if ((c->s.efer & (EFER_LMA | EFER_NXE)) != (EFER_LMA | EFER_NXE) || !address)
		return false;
	for (;; shift -= 9) {
		uint64_t entry = (v & address) - r->start + (at >> shift & 511) * 8;

		if (unlikely(entry >= r->size))
			return false;
		v = __atomic_load_n((const uint64_t *)(const void *)(r->host + entry), __ATOMIC_ACQUIRE);
		rights &= v;
		nx |= v;
		if (unlikely(v & bad))
			return false;
		if (shift == 12)
			break;
		if (v & PTE_PS) {
			if (shift != 21 || v & 0x1fe000)
				return false;
			break;
		}
	}
	if (!(rights & PTE_P) || !(rights & PTE_A) || (write && !(v & PTE_D)))
		return false;
	if (access == ACCESS_FETCH ? !fetch_allowed(c, rights, nx, mode) : !rights_allow(c, rights, write, mode))
		return false;
	out->size = 1ull << shift;
	out->page = ((v & address) & ~(out->size - 1)) | (at & (out->size - 1) & ~(GUEST_PAGE - 1));
	out->dirty = v & PTE_D;
	out->writable = rights_allow(c, rights, true, mode);
	out->global = (v & PTE_G) && (c->s.cr4 & CR4_PGE);
	return true;
}

bool tlb_fetch_leads(struct cpu *c, gva_t page, gpa_t to)
{
	struct pgwalk w;

	return walk_usual(c, page, ACCESS_FETCH, TLB_USER, &w) && w.page == to && w.size == GUEST_PAGE && !w.global;
}

int tlb_fill(struct cpu *c, gva_t at, enum tlb_access access, enum tlb_mode mode, gpa_t *where)
{
	gva_t page = at & ~(GUEST_PAGE - 1);
	bool write = access == ACCESS_WRITE;
	const struct mem_range *r;
	const struct tlb_table *t;
	struct pgwalk w;

	if (likely(access != ACCESS_FETCH) && second_fill(c, page, write, mode))
		return CPU_OK;
	if (!walk_usual(c, at, access, mode, &w)) {
		int rc = pgwalk_plain(c, at, access, mode, &w);

		if (rc) {
			*where = WHERE_UNKNOWN;
			return rc == PGWALK_ODD ? TLB_NOT_MEMORY : rc;
		}
	}
	c->tlb.fills++;
	*where = w.page | (at & (GUEST_PAGE - 1));
	r = tlb_range(c, w.page);
	if (unlikely(!r || r->kind == MEM_IO || !range_fits(w.page - r->start, GUEST_PAGE, r->size)))
		return TLB_NOT_MEMORY;
	if (watched(c, page))
		return TLB_NOT_MEMORY;
	walked(c, page, &w, r, mode, write);
	t = c->tlb.space->table[mode];
	if (write && unlikely(t->write_tag[tlb_index(t, at)] != page))
		return TLB_NOT_MEMORY;
	return CPU_OK;
}

int cpu_fetch_page(struct cpu *c, gva_t at, gpa_t *page)
{
	unsigned i = (at >> 12) & (TLB_FETCH_ENTRIES - 1);
	struct tlb_fetch *f = c->tlb.fetch;
	gva_t tag = at & ~(GUEST_PAGE - 1);
	enum tlb_mode mode = c->s.cpl == 3 ? TLB_USER : TLB_SUPER_AC;
	uint64_t bit, *fetched;
	struct pgwalk w;
	int rc;

	if (likely(f->tag[i] == tag)) {
		*page = f->page[i];
		return CPU_OK;
	}
	if (x86_64bit(&c->s) && (uint64_t)((int64_t)(at << 16) >> 16) != at)
		return cpu_raise_error(c, VEC_GP, 0);
	if (!walk_usual(c, at, ACCESS_FETCH, mode, &w)) {
		rc = pgwalk(c, at, ACCESS_FETCH, mode, &w);
		if (rc)
			return rc;
	}
	fetched = fetched_word(&c->tlb, tag, &bit);
	*fetched |= bit;
	/* as long as nothing is lost a flush can compare: tlb.c */
	if (f->tag[i] != TLB_NONE && (mode == TLB_USER || f->local[i / 64] >> (i % 64) & 1))
		c->tlb.space->code_lost = true;
	f->tag[i] = tag;
	f->page[i] = w.page;
	bit_set(&f->used[i / 64], i, true);
	bit_set(&f->local[i / 64], i, !w.global);
	c->tlb.global_low |= w.global && !(tag >> 63);
	c->tlb.super_low |= mode != TLB_USER && !(tag >> 63);
	large_remember(&c->tlb, tag, w.size);
	*page = w.page;
	return CPU_OK;
}
