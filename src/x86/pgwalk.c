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

struct step { /* an entry used on the way */
	gpa_t at;
	uint64_t value;
};

struct walk {
	struct cpu *c;
	gva_t at;
	unsigned entry_size; /* 4 or 8 */
	unsigned count;
	struct step step[LEVELS];
	bool debug;
	/* result */
	gpa_t page;
	uint64_t size;
	bool w, u, nx, g;
	uint32_t fail; /* 0, or PF_P | PF_RSVD of what was wrong; PF_P clear: not present */
	bool failed;
};

static uint64_t entry_read(struct walk *w, gpa_t at)
{
	const uint8_t *p = mem_ram_ptr(w->c->mem, at);

	if (unlikely(!p))
		return w->debug ? 0 : mem_read(w->c->mem, at, w->entry_size);
	if (w->entry_size == 4)
		return __atomic_load_n((const uint32_t *)p, __ATOMIC_ACQUIRE);
	return __atomic_load_n((const uint64_t *)p, __ATOMIC_ACQUIRE);
}

/* Give the entry these bits unless it has them. False: it was changed meanwhile. */
static bool entry_set(struct walk *w, struct step *s, uint64_t set)
{
	uint8_t *p;
	bool done;

	if ((s->value & set) == set)
		return true;
	p = mem_ram_ptr(w->c->mem, s->at);
	if (!p)
		return true; /* not RAM: nothing can be set */
	if (w->entry_size == 4) {
		uint32_t old = (uint32_t)s->value;

		done = __atomic_compare_exchange_n((uint32_t *)p, &old, old | (uint32_t)set, false,
						   __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
	} else {
		uint64_t old = s->value;

		done = __atomic_compare_exchange_n((uint64_t *)p, &old, old | set, false, __ATOMIC_ACQ_REL,
						   __ATOMIC_ACQUIRE);
	}
	if (!done)
		return false;
	s->value |= set;
	mem_written(w->c->mem, (uint64_t)(p - mem_ram_base(w->c->mem)), w->entry_size);
	return true;
}

static void not_mapped(struct walk *w, uint32_t why)
{
	w->failed = true;
	w->fail = why;
}

/* Follow one entry. True: it is present and well-formed; its permissions are gathered. */
static bool take(struct walk *w, gpa_t at, uint64_t reserved, bool has_rights)
{
	uint64_t v = entry_read(w, at);

	w->step[w->count++] = (struct step){ at, v };
	if (!(v & PTE_P)) {
		not_mapped(w, 0);
		return false;
	}
	if (v & reserved) {
		not_mapped(w, PF_P | PF_RSVD);
		return false;
	}
	if (has_rights) {
		w->w &= !!(v & PTE_W);
		w->u &= !!(v & PTE_U);
		w->nx |= !!(v & PTE_NX) && w->entry_size == 8;
	}
	return true;
}

static void leaf(struct walk *w, uint64_t base, uint64_t size)
{
	w->size = size;
	w->page = (base & ~(size - 1)) | (w->at & (size - 1) & ~(GUEST_PAGE - 1));
	w->g = (w->step[w->count - 1].value & PTE_G) && (w->c->s.cr4 & CR4_PGE);
}

static void walk_32(struct walk *w)
{
	struct cpu *c = w->c;
	uint64_t v;

	w->entry_size = 4;
	if (!take(w, (c->s.cr3 & 0xfffff000) + (w->at >> 22 & 0x3ff) * 4, 0, true))
		return;
	v = w->step[0].value;
	if ((v & PTE_PS) && (c->s.cr4 & CR4_PSE)) {
		if (v & BIT(21)) { /* PSE-36: bits 13..20 are address bits 32..39 */
			not_mapped(w, PF_P | PF_RSVD);
			return;
		}
		leaf(w, (v & 0xffc00000) | (v >> 13 & 0xff) << 32, 4 << 20);
		return;
	}
	if (take(w, (v & 0xfffff000) + (w->at >> 12 & 0x3ff) * 4, 0, true))
		leaf(w, w->step[1].value & 0xfffff000, GUEST_PAGE);
}

/* From a page directory on: the same in PAE and four-level paging. */
static void walk_directory(struct walk *w, uint64_t table, uint64_t reserved, uint64_t address)
{
	uint64_t v;

	if (!take(w, table + (w->at >> 21 & 0x1ff) * 8, reserved, true))
		return;
	v = w->step[w->count - 1].value;
	if (v & PTE_PS) {
		if (v & 0x1fe000)
			not_mapped(w, PF_P | PF_RSVD);
		else
			leaf(w, v & address, 2 << 20);
		return;
	}
	if (take(w, (v & address) + (w->at >> 12 & 0x1ff) * 8, reserved, true))
		leaf(w, w->step[w->count - 1].value & address, GUEST_PAGE);
}

static void walk_64(struct walk *w, bool pae)
{
	struct cpu *c = w->c;
	unsigned phys = c->machine->cpuid->phys_bits;
	uint64_t address = ((1ull << phys) - 1) & ~0xfffull;
	uint64_t reserved = ~((1ull << phys) - 1) & ((1ull << 52) - 1);
	uint64_t v;

	w->entry_size = 8;
	if (!(c->s.efer & EFER_NXE))
		reserved |= PTE_NX;
	if (pae) {
		/* The four top entries have no rights, and other reserved bits: they were checked when CR3 was loaded. */
		if (!take(w, (c->s.cr3 & 0xffffffe0) + (w->at >> 30 & 3) * 8, reserved | PTE_NX, false))
			return;
		walk_directory(w, w->step[0].value & address, reserved | 0x7ff0000000000000ull, address);
		return;
	}
	if (!take(w, (c->s.cr3 & address) + (w->at >> 39 & 0x1ff) * 8, reserved | PTE_PS, true))
		return;
	if (!take(w, (w->step[0].value & address) + (w->at >> 30 & 0x1ff) * 8, reserved, true))
		return;
	v = w->step[1].value;
	if (v & PTE_PS) {
		if (!c->machine->cpuid->has_1g_pages || (v & 0x3fffe000))
			not_mapped(w, PF_P | PF_RSVD);
		else
			leaf(w, v & address, 1 << 30);
		return;
	}
	walk_directory(w, v & address, reserved, address);
}

static void walk(struct walk *w, struct cpu *c, gva_t at)
{
	w->c = c;
	w->at = at;
	w->w = w->u = true;
	if (!(c->s.cr4 & CR4_PAE))
		walk_32(w);
	else
		walk_64(w, !(c->s.efer & EFER_LMA));
}

/* May this access use what the walk found? */
static bool allowed(const struct cpu *c, const struct walk *w, enum tlb_access access, enum tlb_mode mode)
{
	bool nx = w->nx && (c->s.efer & EFER_NXE);

	if (mode == TLB_USER) {
		if (!w->u)
			return false;
		return access == ACCESS_WRITE ? w->w : access == ACCESS_FETCH ? !nx : true;
	}
	if (access == ACCESS_FETCH)
		return !nx && !(w->u && (c->s.cr4 & CR4_SMEP));
	if (w->u && mode == TLB_SUPER && (c->s.cr4 & CR4_SMAP))
		return false;
	return access != ACCESS_WRITE || w->w || !(c->s.cr0 & CR0_WP);
}

static int page_fault(struct cpu *c, gva_t at, enum tlb_access access, enum tlb_mode mode, uint32_t error)
{
	if (access == ACCESS_WRITE)
		error |= PF_W;
	if (mode == TLB_USER)
		error |= PF_U;
	if (access == ACCESS_FETCH && (c->s.cr4 & CR4_PAE) && (c->s.efer & EFER_NXE))
		error |= PF_I;
	else if (access == ACCESS_FETCH && (c->s.cr4 & CR4_SMEP))
		error |= PF_I;
	cpu_raise_error(c, VEC_PF, error);
	c->fault.cr2 = at;
	return CPU_FAULT;
}

/* Accessed bits from the top, the dirty bit of the leaf. False: walk again. */
static bool mark_used(struct walk *w, bool pae, bool write)
{
	for (unsigned i = pae ? 1 : 0; i < w->count; i++) {
		bool last = i == w->count - 1;

		if (!entry_set(w, &w->step[i], PTE_A | (last && write ? PTE_D : 0)))
			return false;
	}
	return true;
}

int pgwalk(struct cpu *c, gva_t at, enum tlb_access access, enum tlb_mode mode, struct pgwalk *out)
{
	bool pae = (c->s.cr4 & CR4_PAE) && !(c->s.efer & EFER_LMA);

	if (!(c->s.cr0 & CR0_PG)) {
		*out = (struct pgwalk){ .page = at & 0xfffff000, .size = ~0ull, .writable = true, .user = true,
					.executable = true, .dirty = true };
		return CPU_OK;
	}
	for (unsigned i = 0; i < RETRIES; i++) {
		struct walk w = { 0 };

		walk(&w, c, at);
		if (w.failed)
			return page_fault(c, at, access, mode, w.fail);
		if (!allowed(c, &w, access, mode))
			return page_fault(c, at, access, mode, PF_P);
		if (!mark_used(&w, pae, access == ACCESS_WRITE))
			continue;
		*out = (struct pgwalk){
			.page = w.page,
			.size = w.size,
			.writable = allowed(c, &w, ACCESS_WRITE, mode),
			.user = w.u,
			.executable = allowed(c, &w, ACCESS_FETCH, mode),
			.global = w.g,
			.dirty = w.step[w.count - 1].value & PTE_D,
		};
		return CPU_OK;
	}
	/* Another CPU changes these tables without end; a real one would not notice more than a late walk either. */
	return page_fault(c, at, access, mode, 0);
}

bool pgwalk_debug(struct cpu *c, gva_t at, gpa_t *out)
{
	struct walk w = { .debug = true };

	if (!(c->s.cr0 & CR0_PG)) {
		*out = at & 0xffffffff;
		return true;
	}
	walk(&w, c, at);
	*out = w.page | (at & (GUEST_PAGE - 1));
	return !w.failed;
}
