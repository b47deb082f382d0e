/* SPDX-License-Identifier: Apache-2.0 */
/* CPUID: features come with what they depend on, levels hold what they are called for, leaves agree with each other. */
#include <errno.h>
#include <string.h>
#include "guest.h"

struct bit {
	uint32_t leaf, subleaf;
	unsigned reg, bit;
};
#define L1C(n) { 1, 0, 2, n }
#define L1D(n) { 1, 0, 3, n }
#define L7B(n) { 7, 0, 1, n }
#define L7C(n) { 7, 0, 2, n }
#define E1C(n) { 0x80000001, 0, 2, n }
#define E1D(n) { 0x80000001, 0, 3, n }

static const struct {
	struct bit what, needs;
} depends[] = {
	{ L1D(25), L1D(24) },			      /* SSE: FXSR */
	{ L1D(26), L1D(25) },			      /* SSE2: SSE */
	{ L1C(0), L1D(26) },			      /* SSE3: SSE2 */
	{ L1C(9), L1C(0) },			      /* SSSE3 */
	{ L1C(19), L1C(9) },			      /* SSE4.1 */
	{ L1C(20), L1C(19) },			      /* SSE4.2 */
	{ L1C(28), L1C(26) },			      /* AVX: XSAVE */
	{ L1C(28), L1C(20) },			      /* AVX: SSE4.2 */
	{ L1C(12), L1C(28) },			      /* FMA: AVX */
	{ L1C(29), L1C(28) },			      /* F16C: AVX */
	{ L7B(5), L1C(28) },			      /* AVX2: AVX */
	{ L7B(3), L1C(28) }, { L7B(8), L1C(28) },     /* BMI: VEX */
	{ L7C(9), L7B(5) },			      /* VAES: AVX2 */
	{ L7C(9), L1C(25) },			      /* VAES: AES */
	{ L7C(10), L1C(1) },			      /* VPCLMUL: PCLMUL */
	{ L7C(10), L7B(5) },			      /* VPCLMUL: AVX2 */
	{ L1C(25), L1D(26) }, { L1C(1), L1D(26) },    /* AES, PCLMUL: SSE2 */
	{ L7B(29), L1C(9) },			      /* SHA: SSSE3 */
	{ L7C(8), L1D(26) },			      /* GFNI */
	{ E1C(6), L1C(0) },			      /* SSE4A: SSE3 */
	{ L7B(10), L1C(17) },			      /* INVPCID: PCID */
	{ E1D(29), L1D(6) },			      /* long mode: PAE */
	{ E1D(26), E1D(29) },			      /* 1 GiB pages: long mode */
	{ L1C(13), L1D(8) },			      /* CX16: CX8 */
	{ { 0xd, 1, 0, 1 }, L1C(26) },		      /* XSAVEC: XSAVE */
	{ { 0xd, 1, 0, 3 }, { 0xd, 1, 0, 1 } },	      /* XSAVES: XSAVEC */
};

/* What a model must have by its name, and what every one needs for kernels. */
static const struct bit base[] = {
	L1C(0), L1C(9), L1C(13), L1C(19), L1C(20), L1C(23), E1C(0),		   /* x86-64-v2 */
	L1C(17), L1C(21), L1C(24), L1C(31), L7B(0), L7B(7), L7B(10), L7B(20), L7C(2), /* PCID x2APIC deadline ... UMIP */
	E1D(11), E1D(20), E1D(26), E1D(27), E1D(29), { 0x80000007, 0, 3, 8 }, { 6, 0, 0, 2 },
};
static const struct bit v3[] = { L1C(12), L1C(22), L1C(28), L1C(29), L7B(3), L7B(5), L7B(8), E1C(5) };

static bool has(struct guest *g, struct bit b)
{
	uint32_t r[4];

	cpuid_query(g->c, b.leaf, b.subleaf, r);
	return r[b.reg] >> b.bit & 1;
}

static bool build(struct guest *g, const char *model, unsigned ncpus)
{
	struct err e;

	return !cpuid_build(&g->cpuid, model, ncpus, 2000000, &e);
}

static void dependencies(void **state)
{
	static const char *const names[] = { "v2", "v3", "v4", "host" };
	struct guest *g = *state;

	for (unsigned n = 0; n < ARRAY_LEN(names); n++) {
		if (!build(g, names[n], 2))
			continue; /* this host cannot */
		for (unsigned i = 0; i < ARRAY_LEN(depends); i++)
			if (has(g, depends[i].what))
				assert_true(has(g, depends[i].needs));
		for (unsigned i = 0; i < ARRAY_LEN(base); i++)
			assert_true(has(g, base[i]));
		for (unsigned i = 0; n == 1 && i < ARRAY_LEN(v3); i++)
			assert_true(has(g, v3[i]));
		assert_false(has(g, (struct bit)L1C(3)));  /* MONITOR */
		assert_false(has(g, (struct bit)L1C(5)));  /* VMX */
		assert_false(has(g, (struct bit)E1C(2)));  /* SVM */
		assert_false(has(g, (struct bit)L7C(16))); /* LA57 */
		assert_false(has(g, (struct bit)L7C(3)));  /* protection keys */
		assert_int_equal(has(g, (struct bit)L7B(16)), g->cpuid.has_avx512);
		assert_true(n != 1 || !g->cpuid.has_avx512); /* v3 */
		assert_true(n != 2 || g->cpuid.has_avx512);  /* v4 */
		assert_int_equal(g->cpuid.xcr0_allowed >> 5 & 7, g->cpuid.has_avx512 ? 7 : 0);
	}
}

/* v2 and v3 are the same everywhere. */
static void v2_is_v2(void **state)
{
	struct guest *g = *state;

	assert_true(build(g, "v2", 1));
	for (unsigned i = 0; i < ARRAY_LEN(v3); i++)
		assert_false(has(g, v3[i]));
	assert_false(has(g, (struct bit)L1C(25)));
	assert_false(has(g, (struct bit)L1C(30)));
	assert_int_equal(g->cpuid.xcr0_allowed, 3);
}

/* No mitigations: the bits by which a kernel knows that it need not. */
static void flaws_absent(void **state)
{
	static const struct bit no[] = { { 0x80000008, 0, 1, 26 }, { 0x80000008, 0, 1, 29 }, { 0x80000021, 0, 0, 8 },
					 { 0x80000021, 0, 0, 29 }, { 0x80000021, 0, 2, 1 },  { 0x80000021, 0, 2, 2 } };
	struct guest *g = *state;

	for (unsigned i = 0; i < ARRAY_LEN(no); i++)
		assert_true(has(g, no[i]));
}

/* CPU `id` by leaves B, 1, 80000008 and 8000001E: all say the same. */
static void expect_place(struct guest *g, unsigned id, unsigned package, unsigned core, unsigned cores, unsigned threads)
{
	uint32_t b0[4], b1[4], r[4];

	g->c->id = id;
	cpuid_query(g->c, 0xb, 0, b0);
	cpuid_query(g->c, 0xb, 1, b1);
	assert_int_equal(b0[1], threads);
	assert_int_equal(b1[1], cores * threads);
	assert_int_equal(b1[3], id);
	assert_int_equal(b1[3] >> b1[0], package);
	assert_int_equal((b1[3] & ((1u << b1[0]) - 1)) >> b0[0], core);
	cpuid_query(g->c, 1, 0, r);
	assert_int_equal(r[1] >> 24, id);
	assert_int_equal(r[1] >> 16 & 0xff, cores * threads);
	assert_int_equal(r[3] >> 28 & 1, cores * threads > 1);
	cpuid_query(g->c, 0x80000008, 0, r);
	assert_int_equal(r[2] & 0xff, cores * threads - 1);
	assert_int_equal(r[2] >> 12 & 15, b1[0]);
	cpuid_query(g->c, 0x8000001e, 0, r);
	assert_int_equal(r[0], id);
	assert_int_equal(r[1], core | (threads - 1) << 8);
	assert_int_equal(r[2], package);
	for (unsigned i = 0; i < 4; i++) {
		cpuid_query(g->c, 0x8000001d, i, r);
		assert_int_equal((r[0] >> 14 & 0xfff) + 1, i == 3 ? cores * threads : threads);
	}
}

static void shapes(void **state)
{
	static const struct {
		unsigned sockets, cores, threads;
		bool fits;
	} shape[] = { { 1, 2, 2, true },  { 2, 2, 2, true },   { 4, 1, 1, true },  { 1, 3, 2, true }, { 2, 1, 2, true },
		      { 1, 8, 2, true },  { 2, 3, 1, false },  { 1, 2, 3, false }, { 1, 1, 3, true }, { 3, 2, 1, true },
		      { 1, 5, 1, true },  { 2, 1, 3, false } };
	struct guest *g = *state;
	struct err e;

	for (unsigned i = 0; i < ARRAY_LEN(shape); i++) {
		unsigned cores = shape[i].cores, threads = shape[i].threads, n = shape[i].sockets * cores * threads, c, t;

		assert_true(build(g, "v2", n));
		assert_int_equal(!cpuid_set_topology(&g->cpuid, n, cores, threads, &e), shape[i].fits);
		if (!shape[i].fits)
			continue;
		cpuid_get_topology(&g->cpuid, &c, &t);
		assert_int_equal(c, cores);
		assert_int_equal(t, threads);
		for (unsigned id = 0; id < n; id++)
			expect_place(g, id, id / (cores * threads), id % (cores * threads) / threads, cores, threads);
	}
}

static void topology(void **state)
{
	struct guest *g = *state;
	uint32_t r[4], shift;

	for (unsigned ncpus = 1; ncpus <= 64; ncpus++) {
		assert_true(build(g, "v2", ncpus));
		g->c->id = ncpus - 1;
		cpuid_query(g->c, 1, 0, r);
		assert_int_equal(r[1] >> 24, ncpus - 1);
		assert_int_equal(r[1] >> 16 & 0xff, ncpus);
		assert_int_equal(r[3] >> 28 & 1, ncpus > 1);
		cpuid_query(g->c, 0xb, 0, r);
		assert_int_equal(r[0], 0);
		assert_int_equal(r[1], 1);
		assert_int_equal(r[2], 0x100);
		assert_int_equal(r[3], ncpus - 1);
		cpuid_query(g->c, 0xb, 1, r);
		shift = r[0];
		assert_int_equal(r[1], ncpus);
		assert_true(1u << shift >= ncpus);
		assert_int_equal(r[3] >> shift, 0); /* all in one package */
		cpuid_query(g->c, 0xb, 2, r);
		assert_int_equal(r[1], 0);
		assert_int_equal(r[2] >> 8, 0);
		cpuid_query(g->c, 0x80000008, 0, r);
		assert_int_equal(r[2] & 0xff, ncpus - 1);
		assert_int_equal(r[2] >> 12 & 15, shift);
		cpuid_query(g->c, 0x8000001e, 0, r);
		assert_int_equal(r[0], ncpus - 1);
		assert_int_equal(r[1] >> 8 & 0xff, 0);
		cpuid_query(g->c, 0x8000001d, 3, r);
		assert_int_equal(r[0] >> 14 & 0xfff, ncpus - 1);
	}
}

static void dynamic_parts(void **state)
{
	struct guest *g = *state;
	uint32_t r[4];

	assert_true(build(g, "host", 1));
	cpuid_query(g->c, 1, 0, r);
	assert_false(r[2] >> 27 & 1);
	g->c->s.cr4 |= CR4_OSXSAVE;
	cpuid_query(g->c, 1, 0, r);
	assert_true(r[2] >> 27 & 1);
	g->c->s.xcr0 = 3;
	cpuid_query(g->c, 0xd, 0, r);
	assert_int_equal(r[1], 576);
	assert_int_equal(r[0], g->cpuid.xcr0_allowed);
	assert_int_equal(r[2], cpuid_xsave_size(&g->cpuid, g->cpuid.xcr0_allowed, false));
	g->c->s.xcr0 = g->cpuid.xcr0_allowed;
	cpuid_query(g->c, 0xd, 1, r);
	assert_int_equal(r[1], g->cpuid.has_avx512 ? 832 + 64 + 512 + 1024 : g->cpuid.has_avx ? 832 : 576);
	for (unsigned n = 5; n < XSAVE_COMPONENTS && g->cpuid.has_avx512; n++) {
		cpuid_query(g->c, 0xd, n, r);
		assert_int_equal(r[0], cpuid_xsave_bytes[n]);
		assert_true(r[1] >= 832);
	}
	cpuid_query(g->c, 0x80000008, 0, r);
	assert_int_equal(r[0] & 0xff, g->cpuid.phys_bits);
	cpuid_query(g->c, 0x40000000, 0, r);
	assert_memory_equal(&r[1], "KVMKVMKVM\0\0\0", 12);
	cpuid_query(g->c, 0x40000010, 0, r);
	assert_int_equal(r[0], 2000000);
	cpuid_query(g->c, 0x12345678, 0, r);
	assert_int_equal(r[0] | r[1] | r[2] | r[3], 0);
	/* RDX after reset is what leaf 1 says */
	cpuid_query(g->c, 1, 0, r);
	x86_state_reset(&g->c->s, true);
	assert_int_equal(g->c->s.gpr[RDX], r[0]);
}

static void bits_have_names(void **state)
{
	char text[64] = "", small[21] = "";

	cpuid_name_bits(text, sizeof(text), 7, 0, 1, 1u << 5 | 1u << 31 | 1u << 22);
	assert_string_equal(text, " avx2 7.ebx[22] avx512vl");
	cpuid_name_bits(text, sizeof(text), 0xd, 1, 0, 2);
	assert_string_equal(text, " avx2 7.ebx[22] avx512vl xsavec");
	cpuid_name_bits(text, sizeof(text), 1, 0, 2, 0);
	assert_string_equal(text, " avx2 7.ebx[22] avx512vl xsavec");
	/* no room for the third: cut at a name, once */
	for (unsigned i = 0; i < 2; i++) {
		cpuid_name_bits(small, sizeof(small), 7, 0, 1, 1u << 5 | 1u << 22 | 1u << 31);
		assert_string_equal(small, " avx2 7.ebx[22] ...");
	}
}

/* A saved machine's model is taken as it is, or refused with all that lacks. */
static void promises_are_kept(void **state)
{
	struct guest *g = *state;
	struct cpuid_model saved, here;
	struct err e = { 0 };

	assert_true(build(g, "v2", 2));
	saved = g->cpuid;
	assert_int_equal(cpuid_adopt(&here, &saved, &e), 0);
	assert_memory_equal(&here, &saved, sizeof(here));
	for (unsigned i = 0; i < saved.count; i++) {
		struct cpuid_entry *leaf = &saved.entry[i];

		if (leaf->leaf == 1)
			leaf->ecx |= 1u << 3; /* MONITOR, which no model has */
		if (leaf->leaf == 7 && !leaf->subleaf) {
			leaf->ebx |= 1u << 2;
			leaf->edx |= 1u << 31;
		}
		if (leaf->leaf == 0x80000001)
			leaf->ecx |= 1u << 16;
	}
	assert_int_equal(cpuid_adopt(&here, &saved, &e), -ENOTSUP);
	assert_non_null(strstr(e.text, "this host lacks: 1.ecx[3] 7.ebx[2] 7.edx[31] 80000001.ecx[16]"));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, guest_setup, guest_teardown)
	const struct CMUnitTest tests[] = { T(dependencies), T(v2_is_v2), T(flaws_absent), T(topology), T(shapes), T(dynamic_parts),
					   T(bits_have_names), T(promises_are_kept) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
