/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page walk. Compiled for general registers only: translated code comes here with its vector registers live.
 *
 * Permissions are gathered from all levels and judged at the end, as processors do; then accessed bits are set from the top
 * down, and the dirty bit of the leaf, each with a compare-and-swap, so that a table changed meanwhile by another CPU
 * makes us walk again instead of writing into what is no longer an entry. Tables outside RAM read as MMIO does and
 * are never written.
 */
#include "x86/cpuid.h"
#include "x86/pgwalk.h"
#include "x86/tlb-fill.h"

#define PTE_P BIT(0)
#define PTE_W BIT(1)
#define PTE_U BIT(2)
#define PTE_A BIT(5)
#define PTE_D BIT(6)
#define PTE_PS BIT(7)
#define PTE_G BIT(8)
#define PTE_NX BIT(63)
#define LEVELS 4
#define RETRIES 16

enum walk_kind { WALK_PLAIN, WALK_FULL, WALK_DEBUG };
enum { WALK_OK, WALK_FAULT, WALK_ODD, WALK_AGAIN };

struct step {	   /* an entry used on the way */
	uint8_t *host; /* NULL: not in RAM */
	uint64_t value;
	uint64_t ram_offset;
};

struct walk {
	struct cpu *c;
	gva_t at;
	enum walk_kind kind;
	bool wide; /* entries of 8 bytes */
	unsigned count;
	struct step step[LEVELS];
	/* result */
	gpa_t page;
	uint64_t size;
	uint64_t rights; /* W and U of all levels */
	bool nx;
	uint32_t error; /* of WALK_FAULT: PF_P | PF_RSVD */
};

/* Read the entry at a physical address. */
static int entry_read(struct walk *w, gpa_t at)
{
	const struct mem_range *r = w->kind == WALK_DEBUG ? mem_find(w->c->mem, at) : tlb_range(w->c, at);
	struct step *s = &w->step[w->count++];
	uint8_t *p;

	if (unlikely(!r || r->kind == MEM_IO)) {
		if (w->kind == WALK_PLAIN)
			return WALK_ODD;
		*s = (struct step){ .value = w->kind == WALK_DEBUG ? 0 : mem_read(w->c->mem, at, w->wide ? 8 : 4) };
		return WALK_OK;
	}
	p = r->host + (at - r->start);
	s->value = w->wide ? __atomic_load_n((const uint64_t *)(void *)p, __ATOMIC_ACQUIRE) :
			     __atomic_load_n((const uint32_t *)(void *)p, __ATOMIC_ACQUIRE);
	s->host = r->kind == MEM_RAM ? p : NULL;
	s->ram_offset = r->ram_offset + (at - r->start);
	return WALK_OK;
}

static int fail(struct walk *w, uint32_t error)
{
	w->error = error;
	return WALK_FAULT;
}

/* Follow one entry: it is present and well-formed, its permissions are gathered. */
static int take(struct walk *w, gpa_t at, uint64_t reserved, bool has_rights)
{
	int r = entry_read(w, at);
	uint64_t v = w->step[w->count - 1].value;

	if (unlikely(r))
		return r;
	if (!(v & PTE_P))
		return fail(w, 0);
	if (unlikely(v & reserved))
		return fail(w, PF_P | PF_RSVD);
	if (has_rights) {
		w->rights &= v;
		w->nx |= v >> 63;
	}
	return WALK_OK;
}

static int leaf(struct walk *w, uint64_t base, uint64_t size)
{
	w->size = size;
	w->page = (base & ~(size - 1)) | (w->at & (size - 1) & ~(GUEST_PAGE - 1));
	return WALK_OK;
}

static int walk_32(struct walk *w)
{
	struct cpu *c = w->c;
	int r = take(w, (c->s.cr3 & 0xfffff000) + (w->at >> 22 & 0x3ff) * 4, 0, true);
	uint64_t v = w->step[0].value;

	if (r)
		return r;
	if ((v & PTE_PS) && (c->s.cr4 & CR4_PSE)) {
		if (v & BIT(21)) /* PSE-36: bits 13..20 are address bits 32..39 */
			return fail(w, PF_P | PF_RSVD);
		return leaf(w, (v & 0xffc00000) | (v >> 13 & 0xff) << 32, 4 << 20);
	}
	r = take(w, (v & 0xfffff000) + (w->at >> 12 & 0x3ff) * 4, 0, true);
	return r ? r : leaf(w, w->step[1].value & 0xfffff000, GUEST_PAGE);
}

/* From a page directory on: the same in PAE and four-level paging. */
static int walk_directory(struct walk *w, uint64_t table, uint64_t reserved, uint64_t address)
{
	int r = take(w, table + (w->at >> 21 & 0x1ff) * 8, reserved, true);
	uint64_t v = w->step[w->count - 1].value;

	if (r)
		return r;
	if (v & PTE_PS)
		return v & 0x1fe000 ? fail(w, PF_P | PF_RSVD) : leaf(w, v & address, 2 << 20);
	r = take(w, (v & address) + (w->at >> 12 & 0x1ff) * 8, reserved, true);
	return r ? r : leaf(w, w->step[w->count - 1].value & address, GUEST_PAGE);
}

static int walk_64(struct walk *w, bool pae)
{
	struct cpu *c = w->c;
	uint64_t physical = (1ull << c->machine->cpuid->phys_bits) - 1, address = physical & ~0xfffull;
	uint64_t reserved = ~physical & ((1ull << 52) - 1);
	uint64_t v;
	int r;

	w->wide = true;
	if (!(c->s.efer & EFER_NXE))
		reserved |= PTE_NX;
	if (pae) {
		/* The four top entries have no rights, and other reserved bits: they were checked when CR3 was loaded. */
		r = take(w, (c->s.cr3 & 0xffffffe0) + (w->at >> 30 & 3) * 8, reserved | PTE_NX, false);
		if (r)
			return r;
		return walk_directory(w, w->step[0].value & address, reserved | 0x7ff0000000000000ull, address);
	}
	r = take(w, (c->s.cr3 & address) + (w->at >> 39 & 0x1ff) * 8, reserved | PTE_PS, true);
	if (!r)
		r = take(w, (w->step[0].value & address) + (w->at >> 30 & 0x1ff) * 8, reserved, true);
	if (r)
		return r;
	v = w->step[1].value;
	if (!(v & PTE_PS))
		return walk_directory(w, v & address, reserved, address);
	if (!c->machine->cpuid->has_1g_pages || (v & 0x3fffe000))
		return fail(w, PF_P | PF_RSVD);
	return leaf(w, v & address, 1 << 30);
}

static int walk(struct walk *w)
{
	const struct x86_state *s = &w->c->s;

	w->rights = ~0ull;
	return s->cr4 & CR4_PAE ? walk_64(w, !(s->efer & EFER_LMA)) : walk_32(w);
}

/* May this access use what the walk found? */
static bool allowed(const struct cpu *c, const struct walk *w, enum tlb_access access, enum tlb_mode mode)
{
	bool user = w->rights & PTE_U, write = w->rights & PTE_W;
	bool nx = w->nx && (c->s.efer & EFER_NXE);

	if (mode == TLB_USER)
		return user && (access == ACCESS_WRITE ? write : access == ACCESS_FETCH ? !nx : true);
	if (access == ACCESS_FETCH)
		return !nx && !(user && (c->s.cr4 & CR4_SMEP));
	if (user && mode == TLB_SUPER && (c->s.cr4 & CR4_SMAP))
		return false;
	return access != ACCESS_WRITE || write || !(c->s.cr0 & CR0_WP);
}

static int page_fault(struct cpu *c, gva_t at, enum tlb_access access, enum tlb_mode mode, uint32_t error)
{
	if (access == ACCESS_WRITE)
		error |= PF_W;
	if (mode == TLB_USER)
		error |= PF_U;
	if (access == ACCESS_FETCH && ((c->s.cr4 & CR4_SMEP) || ((c->s.cr4 & CR4_PAE) && (c->s.efer & EFER_NXE))))
		error |= PF_I;
	cpu_raise_error(c, VEC_PF, error);
	c->fault.cr2 = at;
	return CPU_FAULT;
}

static bool entry_exchange(const struct walk *w, struct step *s, uint64_t set)
{
	uint64_t old = s->value;
	uint32_t old32 = (uint32_t)old;

	if (w->wide)
		return __atomic_compare_exchange_n((uint64_t *)(void *)s->host, &old, old | set, false,
						   __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE);
	return __atomic_compare_exchange_n((uint32_t *)(void *)s->host, &old32, old32 | (uint32_t)set, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE);
}

/* Give the entry these bits unless it has them. */
static int entry_set(struct walk *w, struct step *s, uint64_t set)
{
	struct mem *m = w->c->mem;
	_Atomic uint8_t *flags;

	if ((s->value & set) == set || !s->host)
		return WALK_OK;
	flags = &mem_page_flags(m)[s->ram_offset >> 12];
	/* Who is told of written code is not built for this; a page that becomes code after this look is decoded later. */
	if (w->kind == WALK_PLAIN && unlikely(atomic_load_explicit(flags, memory_order_relaxed) & MEM_HAS_CODE))
		return WALK_ODD;
	if (!entry_exchange(w, s, set))
		return WALK_AGAIN;
	s->value |= set;
	if (w->kind == WALK_FULL)
		mem_written(m, s->ram_offset, w->wide ? 8 : 4);
	else if (mem_dirty_tracking(m) && !(atomic_load_explicit(flags, memory_order_relaxed) & MEM_DIRTY))
		mem_mark_dirty(m, s->ram_offset >> 12);
	return WALK_OK;
}

/* Accessed bits from the top, the dirty bit of the leaf. */
static int mark_used(struct walk *w, bool pae, bool write)
{
	for (unsigned i = pae ? 1 : 0; i < w->count; i++) {
		int r = entry_set(w, &w->step[i], PTE_A | (i == w->count - 1 && write ? PTE_D : 0));

		if (r)
			return r;
	}
	return WALK_OK;
}

static int translate(struct cpu *c, gva_t at, enum tlb_access access, enum tlb_mode mode, struct pgwalk *out,
		     enum walk_kind kind)
{
	bool pae = (c->s.cr4 & CR4_PAE) && !(c->s.efer & EFER_LMA);

	if (!(c->s.cr0 & CR0_PG)) {
		*out = (struct pgwalk){ .page = at & 0xfffff000, .size = ~0ull, .writable = true, .user = true,
					.executable = true, .dirty = true };
		return CPU_OK;
	}
	for (unsigned i = 0; i < RETRIES; i++) {
		struct walk w;
		uint64_t last;
		int r;

		w.c = c;
		w.at = at;
		w.kind = kind;
		w.wide = w.nx = false;
		w.count = 0;
		r = walk(&w);
		if (r == WALK_FAULT)
			return page_fault(c, at, access, mode, w.error);
		if (!r && !allowed(c, &w, access, mode))
			return page_fault(c, at, access, mode, PF_P);
		if (!r)
			r = mark_used(&w, pae, access == ACCESS_WRITE);
		if (r == WALK_ODD)
			return PGWALK_ODD;
		if (r)
			continue;
		last = w.step[w.count - 1].value;
		*out = (struct pgwalk){
			.page = w.page,
			.size = w.size,
			.writable = allowed(c, &w, ACCESS_WRITE, mode),
			.user = w.rights & PTE_U,
			.executable = allowed(c, &w, ACCESS_FETCH, mode),
			.global = (last & PTE_G) && (c->s.cr4 & CR4_PGE),
			.dirty = last & PTE_D,
		};
		return CPU_OK;
	}
	/* Another CPU changes these tables without end; a real one would not notice more than a late walk either. */
	return page_fault(c, at, access, mode, 0);
}

int pgwalk(struct cpu *c, gva_t at, enum tlb_access access, enum tlb_mode mode, struct pgwalk *out)
{
	return translate(c, at, access, mode, out, WALK_FULL);
}

int pgwalk_plain(struct cpu *c, gva_t at, enum tlb_access access, enum tlb_mode mode, struct pgwalk *out)
{
	return translate(c, at, access, mode, out, WALK_PLAIN);
}

bool pgwalk_debug(struct cpu *c, gva_t at, gpa_t *out)
{
	struct walk w = { .c = c, .at = at, .kind = WALK_DEBUG };

	if (!(c->s.cr0 & CR0_PG)) {
		*out = at & 0xffffffff;
		return true;
	}
	if (walk(&w))
		return false;
	*out = w.page | (at & (GUEST_PAGE - 1));
	return true;
}
