/* SPDX-License-Identifier: Apache-2.0 */
/* Segment registers: limits and types of accesses, loads with every fault, LAR, LSL, VERR, VERW. */
#include "guest.h"

#define SEL(n) ((uint16_t)(S_FREE + 8 * (n)))

struct access_case {
	unsigned type;
	uint32_t limit, flags;
	uint64_t offset;
	unsigned size;
	bool read_ok, write_ok;
};

static void limits_and_types(void **state)
{
	static const struct access_case cases[] = {
		{ D_DATA, 0xfff, D_32, 0, 1, true, true },
		{ D_DATA, 0xfff, D_32, 0xfff, 1, true, true },
		{ D_DATA, 0xfff, D_32, 0xfff, 2, false, false },
		{ D_DATA, 0xfff, D_32, 0xffc, 4, true, true },
		{ D_DATA, 0xfff, D_32, 0xffd, 4, false, false },
		{ D_DATA, 0xfff, D_32, 0xffffffff, 2, false, false },
		{ D_DATA, 0xf, D_32 | D_G, 0xffff, 1, true, true },
		{ D_DATA, 0xf, D_32 | D_G, 0x10000, 1, false, false },
		{ D_DATA_RO, 0xfff, D_32, 4, 4, true, false },
		{ D_CODE, 0xfff, D_32, 4, 4, true, false },
		{ D_DOWN, 0xfff, D_32, 0xfff, 1, false, false },
		{ D_DOWN, 0xfff, D_32, 0x1000, 1, true, true },
		{ D_DOWN, 0xfff, D_32, 0xffffffff, 1, true, true },
		{ D_DOWN, 0xfff, D_32, 0xffffffff, 2, false, false },
		{ D_DOWN, 0xfff, 0, 0xffff, 1, true, true },
		{ D_DOWN, 0xfff, 0, 0x10000, 1, false, false },
		{ D_DOWN, 0xfff, 0, 0xffff, 2, false, false },
	};
	struct guest *g = *state;
	gva_t at;

	enter_protected(g);
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		const struct access_case *t = &cases[i];

		set_descriptor(g, SEL(0), descriptor(0x12340, t->limit, t->type, 0, t->flags));
		assert_int_equal(seg_load(g->c, SEG_ES, SEL(0)), CPU_OK);
		for (unsigned write = 0; write < 2; write++) {
			int r = seg_linear(g->c, SEG_ES, t->offset, t->size, write, &at);

			if (write ? t->write_ok : t->read_ok) {
				assert_int_equal(r, CPU_OK);
				assert_int_equal(at, (uint32_t)(0x12340 + t->offset));
			} else {
				assert_fault(r, g, VEC_GP, 0);
			}
		}
	}
	g->c->s.seg[SEG_SS].limit = 0xfff;
	assert_fault(seg_linear(g->c, SEG_SS, 0x1000, 1, false, &at), g, VEC_SS, 0);
	assert_int_equal(seg_load(g->c, SEG_DS, 3), CPU_OK); /* null: loads, cannot be used */
	assert_fault(seg_linear(g->c, SEG_DS, 0, 1, false, &at), g, VEC_GP, 0);
}

static void flat_ends_and_base_wraps(void **state)
{
	struct guest *g = *state;
	gva_t at;

	enter_protected(g);
	assert_int_equal(seg_linear(g->c, SEG_DS, 0xffffffff, 1, true, &at), CPU_OK);
	assert_int_equal(at, 0xffffffff);
	assert_fault(seg_linear(g->c, SEG_DS, 0xffffffff, 4, true, &at), g, VEC_GP, 0);
	g->c->s.seg[SEG_DS].base = 0x1000;
	assert_int_equal(seg_linear(g->c, SEG_DS, 0xfffff800, 4, true, &at), CPU_OK);
	assert_int_equal(at, 0x800);
}

/* Loads of SS and a data segment at CPL and RPL: what is expected. */
struct load_case {
	uint64_t d;
	unsigned rpl;
	int ss, ds; /* vector, or -1 */
};

static void loads_check(struct guest *g, const struct load_case *t, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		uint16_t selector = SEL(i) | (uint16_t)t[i].rpl;

		set_descriptor(g, SEL(i), t[i].d);
		for (unsigned ss = 0; ss < 2; ss++) {
			int want = ss ? t[i].ss : t[i].ds;
			int r = seg_load(g->c, ss ? SEG_SS : SEG_FS, selector);

			if (want < 0) {
				assert_int_equal(r, CPU_OK);
				assert_int_equal(g->c->s.seg[ss ? SEG_SS : SEG_FS].selector, selector);
				assert_int_equal(get(g, GDT + SEL(i) + 5, 1) & 1, 1);
			} else {
				assert_fault(r, g, want, SEL(i));
			}
		}
	}
}

static void loads_cpl0(void **state)
{
	const struct load_case t[] = {
		{ descriptor(0, 0xfffff, D_DATA, 0, FLAT32), 0, -1, -1 },
		{ descriptor(0, 0xfffff, D_DATA, 0, FLAT32), 1, VEC_GP, VEC_GP },
		{ descriptor(0, 0xfffff, D_DATA, 3, FLAT32), 0, VEC_GP, -1 },
		{ descriptor(0, 0xfffff, D_DATA, 3, FLAT32), 3, VEC_GP, -1 },
		{ descriptor(0, 0xfffff, D_DATA_RO, 0, FLAT32), 0, VEC_GP, -1 },
		{ descriptor(0, 0xfffff, D_CODE, 0, FLAT32), 0, VEC_GP, -1 },
		{ descriptor(0, 0xfffff, D_CODE_X, 0, FLAT32), 0, VEC_GP, VEC_GP },
		{ descriptor(0, 0xfffff, D_CONFORM, 0, FLAT32), 3, VEC_GP, -1 },
		{ descriptor(0, 0xfffff, 2, 0, 0), 0, VEC_GP, VEC_GP },
		{ descriptor(0, 0xfffff, D_DATA, 0, FLAT32) & ~BIT(47), 0, VEC_SS, VEC_NP },
	};
	struct guest *g = *state;

	enter_protected(g);
	loads_check(g, t, ARRAY_LEN(t));
	assert_fault(seg_load(g->c, SEG_SS, 0), g, VEC_GP, 0);
	assert_fault(seg_load(g->c, SEG_DS, 0x7f8 + 8), g, VEC_GP, 0x800);
	g->c->s.gdtr.limit = 0x706;
	assert_fault(seg_load(g->c, SEG_DS, 0x700), g, VEC_GP, 0x700);
	/* the local table */
	set_descriptor(g, 0xc, descriptor(0x5000, 0xff, D_DATA, 0, D_32));
	assert_int_equal(seg_load(g->c, SEG_GS, 0xc), CPU_OK);
	assert_int_equal(g->c->s.seg[SEG_GS].base, 0x5000);
	assert_fault(seg_load(g->c, SEG_GS, 0x104), g, VEC_GP, 0x104);
	assert_int_equal(seg_load_ldtr(g->c, 0), CPU_OK);
	assert_fault(seg_load(g->c, SEG_GS, 0xc), g, VEC_GP, 0xc);
}

static void loads_cpl3(void **state)
{
	const struct load_case t[] = {
		{ descriptor(0, 0xfffff, D_DATA, 3, FLAT32), 3, -1, -1 },
		{ descriptor(0, 0xfffff, D_DATA, 3, FLAT32), 0, VEC_GP, -1 },
		{ descriptor(0, 0xfffff, D_DATA, 0, FLAT32), 3, VEC_GP, VEC_GP },
		{ descriptor(0, 0xfffff, D_DATA, 0, FLAT32), 0, VEC_GP, VEC_GP },
		{ descriptor(0, 0xfffff, D_CONFORM, 0, FLAT32), 3, VEC_GP, -1 },
	};
	struct guest *g = *state;

	enter_protected(g);
	go_cpl(g, 3);
	loads_check(g, t, ARRAY_LEN(t));
}

static void loads_64bit(void **state)
{
	struct guest *g = *state;
	gva_t at;

	enter_long(g);
	assert_int_equal(seg_load(g->c, SEG_SS, 0), CPU_OK); /* null, at CPL 0 */
	assert_fault(seg_load(g->c, SEG_SS, 3), g, VEC_GP, 0);
	g->c->s.seg[SEG_FS].base = 0xffff888000000000;
	assert_int_equal(seg_linear(g->c, SEG_FS, 0x10, 8, true, &at), CPU_OK);
	assert_true(at == 0xffff888000000010);
	assert_int_equal(seg_linear(g->c, SEG_DS, 0x123456789abc, 8, true, &at), CPU_OK);
	assert_true(at == 0x123456789abc);
	go_cpl(g, 3);
	assert_fault(seg_load(g->c, SEG_SS, 3), g, VEC_GP, 0);
}

static void loads_real(void **state)
{
	struct guest *g = *state;
	gva_t at;

	enter_real(g);
	assert_int_equal(seg_load(g->c, SEG_DS, 0x1234), CPU_OK);
	assert_int_equal(seg_linear(g->c, SEG_DS, 0xffff, 1, true, &at), CPU_OK);
	assert_int_equal(at, 0x1234f + 0x10000 - 0x10);
	assert_fault(seg_linear(g->c, SEG_DS, 0xffff, 2, true, &at), g, VEC_GP, 0);
	g->c->s.seg[SEG_DS].limit = ~0u; /* as protected mode left it */
	assert_int_equal(seg_load(g->c, SEG_DS, 0), CPU_OK);
	assert_int_equal(seg_linear(g->c, SEG_DS, 0x100000, 4, true, &at), CPU_OK);
	enter_v86(g, 3);
	assert_int_equal(seg_load(g->c, SEG_ES, 0xffff), CPU_OK);
	assert_int_equal(seg_linear(g->c, SEG_ES, 0xffff, 1, true, &at), CPU_OK);
	assert_int_equal(at, 0x10ffef);
	assert_fault(seg_linear(g->c, SEG_ES, 0x10000, 1, true, &at), g, VEC_GP, 0);
}

static void system_registers(void **state)
{
	struct guest *g = *state;

	enter_protected(g);
	set_descriptor(g, SEL(0), descriptor(0x4000, 0x67, 9, 0, 0));
	assert_int_equal(seg_load_tr(g->c, SEL(0)), CPU_OK);
	assert_int_equal(get(g, GDT + SEL(0) + 5, 1), 0x8b);
	assert_int_equal(g->c->s.seg[SEG_TR].attr & 0xff, 0x8b);
	assert_fault(seg_load_tr(g->c, SEL(0)), g, VEC_GP, SEL(0)); /* busy */
	assert_fault(seg_load_tr(g->c, 0), g, VEC_GP, 0);
	assert_fault(seg_load_tr(g->c, S_DATA0), g, VEC_GP, S_DATA0);
	assert_fault(seg_load_tr(g->c, 0xc), g, VEC_GP, 0xc);
	set_descriptor(g, SEL(1), descriptor(0x4000, 0x67, 9, 0, 0) & ~BIT(47));
	assert_fault(seg_load_tr(g->c, SEL(1)), g, VEC_NP, SEL(1));
	assert_fault(seg_load_ldtr(g->c, SEL(1)), g, VEC_GP, SEL(1));
	set_descriptor(g, SEL(2), descriptor(0x4000, 0x67, 2, 0, 0) & ~BIT(47));
	assert_fault(seg_load_ldtr(g->c, SEL(2)), g, VEC_NP, SEL(2));
	enter_long(g);
	set_descriptor(g, SEL(4), descriptor(0x4000, 0x67, 9, 0, 0));
	put64(g, GDT + SEL(4) + 8, 0xffff8880);
	assert_int_equal(seg_load_tr(g->c, SEL(4)), CPU_OK);
	assert_true(g->c->s.seg[SEG_TR].base == 0xffff888000004000);
	put8(g, GDT + SEL(4) + 5, 0x89);
	put64(g, GDT + SEL(4) + 8, 0x12345678); /* not canonical */
	assert_fault(seg_load_tr(g->c, SEL(4)), g, VEC_GP, SEL(4));
	put64(g, GDT + SEL(4) + 8, 0x100ull << 32); /* a type in the second half */
	assert_fault(seg_load_tr(g->c, SEL(4)), g, VEC_GP, SEL(4));
}

static void queries(void **state)
{
	struct guest *g = *state;
	uint32_t v;
	bool ok;

	enter_protected(g);
	assert_int_equal(seg_lar(g->c, S_DATA0, &ok, &v), CPU_OK);
	assert_true(ok);
	assert_int_equal(v, 0xcf9200);
	assert_int_equal(seg_lsl(g->c, S_DATA0, &ok, &v), CPU_OK);
	assert_true(ok);
	assert_int_equal(v, 0xffffffff);
	assert_int_equal(seg_lsl(g->c, S_TSS, &ok, &v), CPU_OK);
	assert_true(ok);
	assert_int_equal(v, 0x3ff);
	set_descriptor(g, SEL(0), gate(S_CODE0, CODE, 12, 3, 0));
	assert_int_equal(seg_lar(g->c, SEL(0), &ok, &v), CPU_OK);
	assert_true(ok);
	assert_int_equal(seg_lsl(g->c, SEL(0), &ok, &v), CPU_OK);
	assert_false(ok);
	assert_int_equal(seg_verify(g->c, S_CODE0, true, &ok), CPU_OK);
	assert_false(ok);
	assert_int_equal(seg_verify(g->c, S_CODE0, false, &ok), CPU_OK);
	assert_true(ok);
	assert_int_equal(seg_verify(g->c, S_TSS, false, &ok), CPU_OK);
	assert_false(ok);
	assert_int_equal(seg_verify(g->c, 0, false, &ok), CPU_OK);
	assert_false(ok);
	assert_int_equal(seg_verify(g->c, 0xfff8, false, &ok), CPU_OK);
	assert_false(ok);
	go_cpl(g, 3);
	assert_int_equal(seg_lar(g->c, S_DATA0, &ok, &v), CPU_OK);
	assert_false(ok);
	assert_int_equal(seg_verify(g->c, S_DATA3, true, &ok), CPU_OK);
	assert_true(ok);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, guest_setup, guest_teardown)
	const struct CMUnitTest tests[] = { T(limits_and_types), T(flat_ends_and_base_wraps), T(loads_cpl0),	     T(loads_cpl3),
					    T(loads_64bit),	 T(loads_real), T(system_registers), T(queries) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
