/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page walks: every permission in every mode against the manual's rules written down a second time, all paging modes,
 * reserved bits, accessed and dirty bits, tables in odd places.
 */
#include <string.h>
#include "guest.h"
#include "x86/pgwalk.h"

#define P 1u
#define W 2u
#define U 4u
#define A 0x20u
#define D 0x40u
#define PS 0x80u
#define G 0x100u
#define NX BIT(63)
#define VA 0x40000000ull /* of its own page tables: PML4 0, PDPT 1 */
#define PAGE 0x200000ull /* physical */
#define PT (TABLES + 0x4000)
#define PD (TABLES + 0x3000)

/* A 4 KiB mapping of VA. */
static void map(struct guest *g, uint64_t pd_flags, uint64_t pt_flags)
{
	put64(g, TABLES + 0x1000 + 8, PD | P | W | U);
	put64(g, PD, PT | pd_flags);
	put64(g, PT, PAGE | pt_flags);
	tlb_flush_all(g->c);
}

struct setting {
	bool wp, smep, smap, ac, nxe, user;
};

/* The rules: SDM 3A, 4.6. */
static bool permitted(const struct setting *s, bool w, bool u, bool nx, enum tlb_access access)
{
	if (s->user) {
		if (!u)
			return false;
		return access == ACCESS_READ || (access == ACCESS_WRITE ? w : !(nx && s->nxe));
	}
	if (access == ACCESS_FETCH)
		return !(nx && s->nxe) && !(u && s->smep);
	if (u && s->smap && !s->ac)
		return false;
	return access == ACCESS_READ || w || !s->wp;
}

static uint32_t error_code(const struct setting *s, enum tlb_access access)
{
	return P | (access == ACCESS_WRITE ? W : 0) | (s->user ? U : 0) |
	       (access == ACCESS_FETCH && (s->nxe || s->smep) ? PF_I : 0);
}

static void apply(struct guest *g, const struct setting *s)
{
	struct x86_state *st = &g->c->s;

	st->cr0 = (st->cr0 & ~CR0_WP) | (s->wp ? CR0_WP : 0);
	st->cr4 = (st->cr4 & ~(CR4_SMEP | CR4_SMAP)) | (s->smep ? CR4_SMEP : 0) | (s->smap ? CR4_SMAP : 0);
	st->efer = (st->efer & ~EFER_NXE) | (s->nxe ? EFER_NXE : 0);
	st->rflags = 2 | (s->ac ? FLAG_AC : 0);
	st->cpl = s->user ? 3 : 0;
	tlb_flush_all(g->c);
	tlb_select(g->c);
}

static int access_do(struct guest *g, enum tlb_access access)
{
	uint64_t v = 0;
	gpa_t page;

	switch (access) {
	case ACCESS_READ:
		return cpu_read(g->c, VA + 8, &v, 8);
	case ACCESS_WRITE:
		return cpu_write(g->c, VA + 8, &v, 8);
	default:
		return cpu_fetch_page(g->c, VA, &page);
	}
}

/* marked: accessed and dirty bits are set already (another path through the walk). */
static void check_one(struct guest *g, const struct setting *s, unsigned pd, unsigned pt, bool marked)
{
	uint64_t mark = marked ? A | D : 0;
	bool w = pd & pt & 1, u = pd & pt & 2, nx = (pd | pt) & 4;
	uint64_t pdf = P | (pd & 1 ? W : 0) | (pd & 2 ? U : 0) | (pd & 4 && s->nxe ? NX : 0);
	uint64_t ptf = P | (pt & 1 ? W : 0) | (pt & 2 ? U : 0) | (pt & 4 && s->nxe ? NX : 0);

	pdf |= mark & A;
	ptf |= mark;
	for (enum tlb_access access = ACCESS_READ; access <= ACCESS_FETCH; access++) {
		map(g, pdf, ptf);
		put64(g, TABLES, (get(g, TABLES, 8) & ~(uint64_t)A) | (mark & A));
		put64(g, TABLES + 0x1008, get(g, TABLES + 0x1008, 8) | (mark & A));
		apply(g, s);
		if (permitted(s, w, u, nx, access)) {
			assert_int_equal(access_do(g, access), CPU_OK);
			assert_int_equal(get(g, PD, 1) & (A | D), A);
			assert_int_equal(get(g, PT, 1) & (A | D), marked || access == ACCESS_WRITE ? A | D : A);
		} else {
			assert_fault(access_do(g, access), g, VEC_PF, error_code(s, access));
			assert_true(g->c->fault.cr2 == (access == ACCESS_FETCH ? VA : VA + 8));
			assert_int_equal(get(g, PT, 1) & D, mark & D);
		}
	}
	/* after a permitted read the TLB must not let a forbidden write pass, nor the other way round */
	map(g, pdf, ptf);
	if (permitted(s, w, u, nx, ACCESS_READ))
		assert_int_equal(access_do(g, ACCESS_READ), CPU_OK);
	assert_int_equal(access_do(g, ACCESS_WRITE) == CPU_OK, permitted(s, w, u, nx, ACCESS_WRITE));
	assert_int_equal(access_do(g, ACCESS_READ) == CPU_OK, permitted(s, w, u, nx, ACCESS_READ));
	assert_int_equal(access_do(g, ACCESS_FETCH) == CPU_OK, permitted(s, w, u, nx, ACCESS_FETCH));
}

static void permissions(void **state)
{
	struct guest *g = *state;

	enter_long(g);
	for (unsigned n = 0; n < 64; n++) {
		struct setting s = { n & 1, n & 2, n & 4, n & 8, n & 16, n & 32 };

		for (unsigned pd = 0; pd < 8; pd++)
			for (unsigned pt = 0; pt < 8; pt++)
				for (unsigned marked = 0; marked < 2; marked++)
					check_one(g, &s, pd, pt, marked);
	}
}

/* STAC and CLAC between accesses: the tables change, not the entries. */
static void smap_switches(void **state)
{
	struct guest *g = *state;
	uint64_t v = 0;

	enter_long(g);
	map(g, P | W | U, P | W | U);
	g->c->s.cr4 |= CR4_SMAP;
	cpu_set_rflags(g->c, 2 | FLAG_AC);
	assert_int_equal(cpu_write(g->c, VA, &v, 8), CPU_OK);
	cpu_set_rflags(g->c, 2);
	assert_fault(cpu_write(g->c, VA, &v, 8), g, VEC_PF, P | W);
	cpu_set_rflags(g->c, 2 | FLAG_AC);
	assert_int_equal(cpu_write(g->c, VA, &v, 8), CPU_OK);
	/* implicit accesses are never helped by AC, nor stopped by the privilege of the program */
	assert_fault(cpu_read_system(g->c, VA, &v, 8), g, VEC_PF, P);
	map(g, P | W, P | W);
	g->c->s.cpl = 3;
	tlb_select(g->c);
	assert_fault(cpu_read(g->c, VA, &v, 8), g, VEC_PF, P | U);
	assert_int_equal(cpu_read_system(g->c, VA, &v, 8), CPU_OK);
}

/* Level of an entry, bits in it, error expected. */
static void reserved_bits(void **state)
{
	static const struct {
		unsigned level; /* 3 PDPTE, 2 PDE, 1 PTE */
		uint64_t bits;
		uint32_t error;
	} t[] = {
		{ 1, 0, 0 },		{ 1, BIT(51), 9 },	{ 1, BIT(52), 0 }, { 2, BIT(45), 9 },
		{ 3, BIT(48), 9 },	{ 2, PS | BIT(13), 9 }, { 2, PS | BIT(20), 9 }, { 2, PS, 0 },
		{ 3, PS | BIT(13), 9 }, { 3, PS | BIT(29), 9 }, { 3, PS, 0 },
	};
	struct guest *g = *state;
	uint64_t v;

	enter_long(g);
	for (unsigned i = 0; i < ARRAY_LEN(t); i++) {
		map(g, P | W | U, P | W | U);
		if (t[i].level == 3)
			put64(g, TABLES + 0x1008, (t[i].bits & PS ? 0 : PD) | P | W | U | t[i].bits);
		else if (t[i].level == 2)
			put64(g, PD, (t[i].bits & PS ? 0 : PT) | P | W | U | t[i].bits);
		else
			put64(g, PT, PAGE | P | W | U | t[i].bits);
		if (t[i].error)
			assert_fault(cpu_read(g->c, VA, &v, 8), g, VEC_PF, t[i].error);
		else
			assert_int_equal(cpu_read(g->c, VA, &v, 8), CPU_OK);
	}
	/* NX is reserved while EFER.NXE is clear; PS in the top level always */
	map(g, P | W | U, P | W | U | NX);
	g->c->s.efer &= ~EFER_NXE;
	assert_fault(cpu_read(g->c, VA, &v, 8), g, VEC_PF, 9);
	map(g, P | W | U, P | W | U);
	put64(g, TABLES, (TABLES + 0x1000) | P | W | U | PS);
	assert_fault(cpu_read(g->c, VA, &v, 8), g, VEC_PF, 9);
	put64(g, TABLES, (TABLES + 0x1000) | W | U); /* reserved bits count only in what is present */
	assert_fault(cpu_read(g->c, VA, &v, 8), g, VEC_PF, 0);
}

static void canonical(void **state)
{
	struct guest *g = *state;
	gpa_t page;
	uint64_t v;

	enter_long(g);
	assert_fault(cpu_read(g->c, 0x800000000000, &v, 8), g, VEC_GP, 0);
	assert_fault(cpu_read(g->c, 0x7ffffffffffc, &v, 8), g, VEC_GP, 0);
	assert_fault(cpu_write(g->c, 0xffff7fffffffffff, &v, 1), g, VEC_GP, 0);
	assert_fault(cpu_fetch_page(g->c, 0x800000000000, &page), g, VEC_GP, 0);
	assert_fault(cpu_read(g->c, 0xffff800000000000, &v, 8), g, VEC_PF, 0);
}

static void translates(struct guest *g, uint64_t at, uint64_t want)
{
	gpa_t to;

	assert_int_equal(cpu_translate(g->c, at, ACCESS_READ, TLB_SUPER_AC, &to), CPU_OK);
	assert_true(to == want);
	assert_true(cpu_translate_debug(g->c, at, &to));
	assert_true(to == want);
}

static void large_pages(void **state)
{
	struct guest *g = *state;

	enter_long(g);
	put64(g, TABLES + 0x1008, 0xc0000000 | P | W | PS);
	translates(g, 0x40000000 + 0x3fffefff, 0xc0000000 + 0x3fffefff);
	map(g, 0x600000 | P | W | PS, 0);
	put64(g, PD, 0x600000 | P | W | PS);
	translates(g, VA + 0x1ffabc, 0x7ffabc);
	assert_true(get(g, PD, 8) & A);
	map(g, P, P);
	translates(g, VA + 0xabc, PAGE + 0xabc);
}

static void legacy_32(void **state)
{
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;
	gpa_t to;

	enter_protected(g);
	put32(g, TABLES + 4 * 1, (TABLES + 0x1000) | P | W | U);
	put32(g, TABLES + 0x1000 + 4 * 5, 0x345000 | P | W);
	put32(g, TABLES + 4 * 2, 0x00c00000 | P | W | PS);	    /* 4 MiB */
	put32(g, TABLES + 4 * 3, 0x00c00000 | P | W | PS | 3 << 13); /* PSE-36 */
	put32(g, TABLES + 4 * 4, 0x00c00000 | P | W | PS | 1 << 21);
	put32(g, TABLES, 0x00000000 | P | W | PS);
	s->cr3 = TABLES;
	s->cr4 = CR4_PSE;
	s->cr0 |= CR0_PG;
	tlb_flush_all(g->c);
	translates(g, 0x405678, 0x345678);
	assert_int_equal(get(g, TABLES + 0x1000 + 20, 4), 0x345000 | P | W | A);
	translates(g, 0x8abcde, 0xcabcde);
	translates(g, 0xcabcde, 0x300cabcde);
	assert_fault(cpu_translate(g->c, 0x1000000, ACCESS_READ, TLB_SUPER, &to), g, VEC_PF, 9);
	assert_fault(cpu_translate(g->c, 0x405678, ACCESS_READ, TLB_USER, &to), g, VEC_PF, 5);
	assert_fault(cpu_translate(g->c, 0x407000, ACCESS_WRITE, TLB_USER, &to), g, VEC_PF, 6);
	/* no PI in the error code of fetches without NX and SMEP */
	assert_fault(cpu_translate(g->c, 0x407000, ACCESS_FETCH, TLB_USER, &to), g, VEC_PF, 4);
	/* without PSE the bit means nothing: a table */
	s->cr4 = 0;
	tlb_flush_all(g->c);
	put32(g, 0xc00000 + 4 * 0xab, 0x111000 | P);
	translates(g, 0x8abcde, 0x111cde);
}

static void pae(void **state)
{
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;
	gpa_t to;

	enter_protected(g);
	memset(mem_ram_ptr(g->mem, TABLES), 0, 4096);
	put64(g, TABLES + 0x20, (TABLES + 0x1000) | P); /* at a multiple of 32 */
	put64(g, TABLES + 0x28, (TABLES + 0x2000) | P);
	put64(g, TABLES + 0x1000, 0x0 | P | W | PS);
	put64(g, TABLES + 0x2000 + 8 * 3, (TABLES + 0x3000) | P | W | U);
	put64(g, TABLES + 0x3000 + 8 * 7, 0x234000 | P | W | U);
	put64(g, TABLES + 0x3000 + 8 * 8, 0x234000 | P | W | U | NX);
	put64(g, TABLES + 0x3000 + 8 * 9, 0x234000 | P | W | U | BIT(55));
	s->cr3 = TABLES + 0x20;
	s->cr4 = CR4_PAE;
	s->efer = EFER_NXE;
	assert_int_equal(cr_write(g->c, 0, s->cr0 | CR0_PG), CPU_BOUNDARY);
	translates(g, 0x40607123, 0x234123);
	assert_int_equal(get(g, TABLES + 0x28, 8), (TABLES + 0x2000) | P); /* never marked accessed */
	assert_fault(cpu_translate(g->c, 0x40608000, ACCESS_FETCH, TLB_USER, &to), g, VEC_PF, 0x15);
	assert_fault(cpu_translate(g->c, 0x40609000, ACCESS_READ, TLB_USER, &to), g, VEC_PF, 0xd);
	assert_fault(cpu_translate(g->c, 0x80000000, ACCESS_READ, TLB_USER, &to), g, VEC_PF, 4);
	/* reserved bits of the top entries are refused with CR3 */
	put64(g, TABLES + 0x60 + 8, (TABLES + 0x2000) | P | W);
	assert_fault(cr_write(g->c, 3, TABLES + 0x60), g, VEC_GP, 0);
	assert_int_equal(s->cr3, TABLES + 0x20);
}

/* Tables in ROM, in a device, and where nothing is: a translation or a fault, and nothing breaks. */
static uint64_t io_read(void *opaque, uint64_t offset, unsigned size)
{
	return PAGE | P | W | U;
}
static void io_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
}

static void odd_tables(void **state)
{
	static const struct io_ops ops = { .read = io_read, .write = io_write };
	static uint64_t rom[512];
	struct guest *g = *state;
	uint64_t v = 5;
	struct err e;

	enter_long(g);
	rom[0] = PAGE | P | W | U;
	assert_int_equal(mem_map_rom(g->mem, 0x10000000, rom, sizeof(rom), "rom", &e), 0);
	assert_int_equal(mem_map_io(g->mem, 0x20000000, 4096, &ops, NULL, "io", &e), 0);
	map(g, P | W | U, 0);
	put64(g, PD, 0x10000000 | P | W | U);
	tlb_flush_all(g->c);
	assert_int_equal(cpu_write(g->c, VA, &v, 8), CPU_OK);
	assert_int_equal(get(g, PAGE, 8), 5);
	assert_int_equal(rom[0], PAGE | P | W | U);
	put64(g, PD, 0x20000000 | P | W | U);
	tlb_flush_all(g->c);
	v = 6;
	assert_int_equal(cpu_write(g->c, VA, &v, 8), CPU_OK);
	assert_int_equal(get(g, PAGE, 8), 6);
	put64(g, PD, 0x30000000 | P | W | U); /* all ones: reserved bits */
	tlb_flush_all(g->c);
	assert_fault(cpu_write(g->c, VA, &v, 8), g, VEC_PF, 0xb);
	g->c->s.cr3 = 0x30000000;
	tlb_flush_all(g->c);
	assert_fault(cpu_write(g->c, VA, &v, 8), g, VEC_PF, 0xb);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, guest_setup, guest_teardown)
	const struct CMUnitTest tests[] = { T(permissions), T(smap_switches), T(reserved_bits), T(canonical), T(large_pages),
					    T(legacy_32),   T(pae),	      T(odd_tables) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
