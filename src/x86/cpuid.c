/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPUID models.
 *
 * All models are AMD family 19h: the vendor decides which work-arounds a kernel enables, and none of the hardware flaws
 * behind them exists in a CPU made of software (what the host's own CPU leaks is the host's business). So the models
 * carry the bits that say so, and stock Linux then runs without page-table isolation (never on AMD), without
 * retpolines (automatic IBRS, EFER bit 21, costs nothing here), without SRSO, BTC, SSB and TSA mitigations:
 * 80000008.EBX BTC_NO and SSB_NO, 80000021.EAX AUTO_IBRS and SRSO_NO, 80000021.ECX TSA_SQ_NO and TSA_L1_NO.
 *
 * The system features (PCID, INVPCID, SMEP, SMAP, UMIP, FSGSBASE, 1 GiB pages, x2APIC, TSC deadline) are in all models:
 * the engines provide them. Those that are instructions for everybody are taken from the host, because the translator
 * runs them as they are. MONITOR/MWAIT is left out, as KVM does: a halted CPU should give its time back. So is FSRM: a REP
 * MOVSB costs the software engines a call, which pays for long copies (ERMS) but not for the shortest.
 */
#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "base/err.h"
#include "x86/cpu.h"
#include "x86/cpuid.h"

#define B(n) (1u << (n))
#define SIGNATURE 0x00a20f10u

/* CPUID.1:ECX */
#define SSE3 B(0)
#define PCLMUL B(1)
#define SSSE3 B(9)
#define FMA B(12)
#define CX16 B(13)
#define PCID B(17)
#define SSE41 B(19)
#define SSE42 B(20)
#define X2APIC B(21)
#define MOVBE B(22)
#define POPCNT B(23)
#define DEADLINE B(24)
#define AES B(25)
#define XSAVE B(26)
#define OSXSAVE B(27)
#define AVX B(28)
#define F16C B(29)
#define RDRAND B(30)
#define HYPERVISOR B(31)
/* CPUID.1:EDX: FPU VME DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 CLFSH MMX FXSR SSE SSE2 */
#define BASE_EDX 0x078bfbffu
#define HTT B(28)
/* CPUID.7:EBX */
#define FSGSBASE B(0)
#define TSC_ADJUST B(1)
#define BMI1 B(3)
#define AVX2 B(5)
#define SMEP B(7)
#define BMI2 B(8)
#define ERMS B(9)
#define INVPCID B(10)
#define RDSEED B(18)
#define ADX B(19)
#define SMAP B(20)
#define CLFLUSHOPT B(23)
#define CLWB B(24)
#define SHA B(29)
#define AVX512F B(16)
#define AVX512_V4 (AVX512F | B(17) | B(28) | B(30) | B(31)) /* F DQ CD BW VL */
#define AVX512_IFMA B(21)
/* CPUID.7:ECX, EDX */
#define UMIP B(2)
#define GFNI B(8)
#define VAES B(9)
#define VPCLMUL B(10)
#define RDPID B(22)
#define AVX512_ECX (B(1) | B(6) | B(11) | B(12) | B(14)) /* VBMI VBMI2 VNNI BITALG VPOPCNTDQ */
/* CPUID.80000001 */
#define LAHF B(0)
#define ABM B(5)
#define SSE4A B(6)
#define PREFETCHW B(8)
#define TOPOEXT B(22)
#define AMD_SHARED_EDX 0x0183f3ffu /* of BASE_EDX, repeated there */
#define AMD_EDX (B(11) | B(20) | B(22) | B(26) | B(27) | B(29)) /* SYSCALL NX MMXEXT 1G RDTSCP LM */
/* CPUID.D.1:EAX: XSAVEOPT XSAVEC XGETBV(1) XSAVES */
#define XSAVE_FORMS 0xfu

enum { REG_EAX, REG_EBX, REG_ECX, REG_EDX };

/* Instruction features of a model. */
struct features {
	uint32_t l1_ecx, l7_ebx, l7_ecx, l7_edx, a1_ecx;
};

#define V2_1C (SSE3 | SSSE3 | CX16 | SSE41 | SSE42 | POPCNT)
#define V3_1C (V2_1C | FMA | MOVBE | AVX | F16C)
#define V3_7B (BMI1 | AVX2 | BMI2)

static const struct {
	const char *name;
	struct features must; /* the host has to have these */
	struct features may;  /* these if it does */
} models[] = {
	{ "v2", { V2_1C, 0, 0, 0, LAHF }, { 0 } },
	{ "v3", { V3_1C, V3_7B, 0, 0, LAHF | ABM }, { 0 } },
	{ "v4", { V3_1C, V3_7B | AVX512_V4, 0, 0, LAHF | ABM }, { 0 } },
	{ "host",
	  { V2_1C, 0, 0, 0, LAHF },
	  { V3_1C | PCLMUL | AES | RDRAND, V3_7B | RDSEED | ADX | CLFLUSHOPT | CLWB | SHA | AVX512_V4 | AVX512_IFMA,
	    GFNI | VAES | VPCLMUL | RDPID | AVX512_ECX, 0, ABM | SSE4A | PREFETCHW } },
};

/* Components of the XSAVE area: x87, SSE, AVX, two of MPX, opmask, upper halves of ZMM0-15, ZMM16-31 */
const uint16_t cpuid_xsave_bytes[XSAVE_COMPONENTS] = { 160, 256, 256, 0, 0, 64, 512, 1024 };
#define AVX512_STATE 0xe0u
#define XSAVE_HEADER_END 576u
#define AVX_AT 576u

static bool place_valid(unsigned n, uint32_t size, uint32_t at)
{
	return size == cpuid_xsave_bytes[n] && at >= AVX_AT + cpuid_xsave_bytes[2] && at <= XSAVE_AREA_MAX - size;
}

/*
 * Does the host's kernel keep the AVX-512 registers? Their places are taken from the host, because hardware
 * uses its own whatever a guest is told.
 */
static bool host_keeps_avx512(void)
{
	uint32_t a, b, c, d, low, high;

	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	if ((low & (AVX512_STATE | 6)) != (AVX512_STATE | 6))
		return false;
	for (unsigned n = 5; n < XSAVE_COMPONENTS; n++) {
		if (!__get_cpuid_count(0xd, n, &a, &b, &c, &d) || !place_valid(n, a, b))
			return false;
	}
	return true;
}

static struct features host_features(void)
{
	struct features f = { 0 };
	uint32_t a, b, c, d;

	if (__get_cpuid(1, &a, &b, &c, &d))
		f.l1_ecx = c;
	if (!(f.l1_ecx & OSXSAVE)) /* no AVX state is kept: no AVX for anybody */
		f.l1_ecx &= ~(AVX | FMA | F16C);
	if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
		f.l7_ebx = b;
		f.l7_ecx = c;
		f.l7_edx = d;
	}
	if (!(f.l1_ecx & AVX)) {
		f.l7_ebx &= ~AVX2;
		f.l7_ecx &= ~(VAES | VPCLMUL);
	}
	if (!(f.l1_ecx & AVX) || (f.l7_ebx & AVX512_V4) != AVX512_V4 || !host_keeps_avx512()) {
		f.l7_ebx &= ~(AVX512_V4 | AVX512_IFMA);
		f.l7_ecx &= ~AVX512_ECX;
	}
	if (__get_cpuid(0x80000001, &a, &b, &c, &d))
		f.a1_ecx = c;
	return f;
}

static void add(struct cpuid_model *m, uint32_t leaf, uint32_t eax, uint32_t ebx, uint32_t ecx, uint32_t edx)
{
	m->entry[m->count++] = (struct cpuid_entry){ .leaf = leaf, .eax = eax, .ebx = ebx, .ecx = ecx, .edx = edx };
}

static void add_sub(struct cpuid_model *m, uint32_t leaf, uint32_t subleaf, uint32_t eax, uint32_t ebx, uint32_t ecx,
		    uint32_t edx)
{
	m->entry[m->count++] = (struct cpuid_entry){ leaf, subleaf, true, eax, ebx, ecx, edx };
}

static void add_text(struct cpuid_model *m, uint32_t leaf, const char *text)
{
	uint32_t r[12] = { 0 };

	memcpy(r, text, MIN(strlen(text), sizeof(r)));
	for (unsigned i = 0; i < 3; i++)
		add(m, leaf + i, r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3]);
}

/* Bits of the APIC id that number CPUs within the one package. */
static unsigned id_bits(unsigned ncpus)
{
	unsigned n = 0;

	while (1u << n < ncpus)
		n++;
	return n;
}

static void add_host_places(struct cpuid_model *m)
{
	uint32_t a, b, c, d;

	for (unsigned n = 5; n < XSAVE_COMPONENTS; n++) {
		if (__get_cpuid_count(0xd, n, &a, &b, &c, &d))
			add_sub(m, 0xd, n, a, b, 0, 0);
	}
}

static void add_basic(struct cpuid_model *m, const struct features *f, unsigned ncpus)
{
	bool avx = f->l1_ecx & AVX;

	add(m, 0, 0xd, 0x68747541, 0x444d4163, 0x69746e65); /* AuthenticAMD */
	add(m, 1, SIGNATURE, 8 << 8 | ncpus << 16, f->l1_ecx | PCID | X2APIC | DEADLINE | XSAVE | HYPERVISOR,
	    BASE_EDX | (ncpus > 1 ? HTT : 0));
	add(m, 6, 4, 0, 0, 0); /* the APIC timer never stops */
	add_sub(m, 7, 0, 0, f->l7_ebx | FSGSBASE | TSC_ADJUST | SMEP | ERMS | INVPCID | SMAP, f->l7_ecx | UMIP,
		f->l7_edx);
	add_sub(m, 0xb, 0, 0, 1, 0x100, 0);
	add_sub(m, 0xb, 1, id_bits(ncpus), ncpus, 0x201, 0);
	add_sub(m, 0xb, 2, 0, 0, 2, 0);
	m->xcr0_allowed = avx ? 7 : 3;
	if (f->l7_ebx & AVX512F)
		m->xcr0_allowed |= AVX512_STATE;
	add_sub(m, 0xd, 0, 0, 0, 0, 0); /* by state_leaf() */
	add_sub(m, 0xd, 1, XSAVE_FORMS, 0, 0, 0);
	if (avx)
		add_sub(m, 0xd, 2, cpuid_xsave_bytes[2], AVX_AT, 0, 0);
	if (f->l7_ebx & AVX512F)
		add_host_places(m);
}

/* KVM's leaves: what stock guests look for and can use here. */
static void add_hypervisor(struct cpuid_model *m)
{
	add(m, 0x40000000, 0x40000010, 0x4b4d564b, 0x564b4d56, 0x4d);
	/*
	 * Both kvm-clocks, no I/O delay, steal time, stable TSC. Halting to wait for a lock is left out: a storm of forks
	 * on four CPUs took 1.3 to 2.5 times as long with it as with waiters that give the host's CPU back (PAUSE).
	 */
	add(m, 0x40000001, B(0) | B(1) | B(3) | B(5) | B(24), 0, 0, 0);
	add(m, 0x40000010, (uint32_t)m->tsc_khz, 1000000, 0, 0);
}

static void add_extended(struct cpuid_model *m, const struct features *f, unsigned ncpus)
{
	add(m, 0x80000000, 0x80000021, 0x68747541, 0x444d4163, 0x69746e65);
	add(m, 0x80000001, SIGNATURE, 0, f->a1_ecx | PREFETCHW | TOPOEXT, (BASE_EDX & AMD_SHARED_EDX) | AMD_EDX);
	add_text(m, 0x80000002, "ospite virtual processor");
	add(m, 0x80000005, 0xff40ff40, 0xff40ff40, 0x20080140, 0x20080140);
	add(m, 0x80000006, 0, 0, 0x02006140, 0x00808140);
	add(m, 0x80000007, 0, 0, 0, B(8)); /* invariant TSC */
	m->phys_bits = 40;
	add(m, 0x80000008, m->phys_bits | 48 << 8, B(2) | B(26) | B(29), (ncpus - 1) | id_bits(ncpus) << 12, 0);
	add_sub(m, 0x8000001d, 0, 0x121, 7 << 22 | 63, 63, 0);			    /* L1 data, 32 KiB */
	add_sub(m, 0x8000001d, 1, 0x122, 7 << 22 | 63, 63, 0);			    /* L1 instruction */
	add_sub(m, 0x8000001d, 2, 0x143, 7 << 22 | 63, 1023, 0);		    /* L2, 512 KiB */
	add_sub(m, 0x8000001d, 3, 0x163 | (ncpus - 1) << 14, 15u << 22 | 63, 16383, 0); /* L3, 16 MiB, shared */
	add(m, 0x8000001e, 0, 0, 0, 0);
	/* no nested data breakpoints, LFENCE serialises, null selectors clear the base, automatic IBRS, SRSO_NO */
	add(m, 0x80000021, B(0) | B(2) | B(6) | B(8) | B(29), 0, B(1) | B(2), 0);
}

static const struct cpuid_entry *find_const(const struct cpuid_model *m, uint32_t leaf, uint32_t subleaf)
{
	for (unsigned i = 0; i < m->count; i++)
		if (m->entry[i].leaf == leaf && (!m->entry[i].has_subleaves || m->entry[i].subleaf == subleaf))
			return &m->entry[i];
	return NULL;
}

static struct cpuid_entry *find(struct cpuid_model *m, uint32_t leaf, uint32_t subleaf)
{
	return (struct cpuid_entry *)find_const(m, leaf, subleaf);
}

/* What is asked often, from the table. */
static void decode(struct cpuid_model *m)
{
	static const struct cpuid_entry none;
	const struct cpuid_entry *l1 = find(m, 1, 0), *l7 = find(m, 7, 0), *ld = find(m, 0xd, 1),
				 *a1 = find(m, 0x80000001, 0);

	ld = ld ? ld : &none;
	m->thread_bits = find(m, 0xb, 0) ? find(m, 0xb, 0)->eax & 31 : 0;
	m->package_bits = find(m, 0xb, 1) ? find(m, 0xb, 1)->eax & 31 : 0;
	m->has_avx = l1->ecx & AVX;
	m->has_fma = l1->ecx & FMA;
	m->has_f16c = l1->ecx & F16C;
	m->has_aes = l1->ecx & AES;
	m->has_pclmul = l1->ecx & PCLMUL;
	m->has_rdrand = l1->ecx & RDRAND;
	m->has_pcid = l1->ecx & PCID;
	m->has_xsave = l1->ecx & XSAVE;
	m->has_avx2 = l7->ebx & AVX2;
	m->has_sha = l7->ebx & SHA;
	m->has_rdseed = l7->ebx & RDSEED;
	m->has_invpcid = l7->ebx & INVPCID;
	m->has_smep = l7->ebx & SMEP;
	m->has_smap = l7->ebx & SMAP;
	m->has_fsgsbase = l7->ebx & FSGSBASE;
	m->has_umip = l7->ecx & UMIP;
	m->has_vaes = l7->ecx & VAES;
	m->has_vpclmul = l7->ecx & VPCLMUL;
	m->has_gfni = l7->ecx & GFNI;
	m->has_xsaveopt = ld->eax & B(0);
	m->has_xsavec = ld->eax & B(1);
	m->has_xsaves = ld->eax & B(3);
	m->has_sse4a = a1->ecx & SSE4A;
	m->has_1g_pages = a1->edx & B(26);
	m->has_rdtscp = a1->edx & B(27);
	m->has_avx512 = m->has_xsave && m->has_avx && l7->ebx & AVX512F;
	m->xsave_at[2] = AVX_AT;
	for (unsigned n = 5; n < XSAVE_COMPONENTS; n++) {
		const struct cpuid_entry *place = find(m, 0xd, n);

		m->has_avx512 &= place && place_valid(n, place->eax, place->ebx);
		m->xsave_at[n] = m->has_avx512 ? (uint16_t)place->ebx : 0;
	}
	m->avx512[0] = l7->ebx;
	m->avx512[1] = l7->ecx;
	m->avx512[2] = l7->edx;
	if (!m->has_xsave)
		m->xcr0_allowed = 1;
	else if (!m->has_avx)
		m->xcr0_allowed &= ~4ull;
	if (!m->has_avx512)
		m->xcr0_allowed &= ~(uint64_t)AVX512_STATE;
}

/* What XCR0 may have, and the room for all of it. */
static void state_leaf(struct cpuid_model *m)
{
	struct cpuid_entry *e = find(m, 0xd, 0);

	if (!e)
		return;
	e->eax = (uint32_t)m->xcr0_allowed;
	e->ecx = cpuid_xsave_size(m, m->xcr0_allowed, false);
}

unsigned cpuid_xsave_offset(const struct cpuid_model *m, uint64_t components, bool compact, unsigned n)
{
	unsigned at = XSAVE_HEADER_END;

	if (!compact)
		return m->xsave_at[n];
	for (unsigned k = 2; k < n; k++)
		at += components >> k & 1 ? cpuid_xsave_bytes[k] : 0;
	return at;
}

unsigned cpuid_xsave_size(const struct cpuid_model *m, uint64_t components, bool compact)
{
	unsigned size = XSAVE_HEADER_END;

	for (unsigned n = 2; n < XSAVE_COMPONENTS; n++) {
		if (components >> n & 1)
			size = MAX(size, cpuid_xsave_offset(m, components, compact, n) + cpuid_xsave_bytes[n]);
	}
	return size;
}

void cpuid_mask(struct cpuid_model *m, uint32_t leaf, uint32_t subleaf, const uint32_t keep[4])
{
	struct cpuid_entry *e = find(m, leaf, subleaf);

	if (!e)
		return;
	e->eax &= keep[0];
	e->ebx &= keep[1];
	e->ecx &= keep[2];
	e->edx &= keep[3];
	decode(m);
	state_leaf(m);
}

int cpuid_set_topology(struct cpuid_model *m, unsigned ncpus, unsigned cores, unsigned threads, struct err *e)
{
	unsigned n = cores * threads, thread_bits = id_bits(threads), bits = thread_bits + id_bits(cores);
	struct cpuid_entry *b0 = find(m, 0xb, 0), *b1 = find(m, 0xb, 1), *l1 = find(m, 1, 0), *size = find(m, 0x80000008, 0);

	if ((threads & (threads - 1) && cores > 1) || (n & (n - 1) && ncpus > n))
		return err_set(e, EINVAL, "threads of a core, and CPUs of a socket where there are several, must be 1, 2, 4, 8, ...");
	if (!b0 || !b1 || !size)
		return err_set(e, EINVAL, "this CPU model does not know about cores and threads");
	b0->eax = thread_bits;
	b0->ebx = threads;
	b1->eax = bits;
	b1->ebx = n;
	l1->ebx = (l1->ebx & ~0x00ff0000u) | n << 16;
	l1->edx = n > 1 ? l1->edx | HTT : l1->edx & ~HTT;
	size->ecx = (n - 1) | bits << 12;
	for (unsigned i = 0; i < 4; i++) {
		struct cpuid_entry *cache = find(m, 0x8000001d, i);

		if (cache) /* the last one is a package's, the others are a core's */
			cache->eax = (cache->eax & 0x3fff) | ((i == 3 ? n : threads) - 1) << 14;
	}
	decode(m);
	return 0;
}

void cpuid_get_topology(const struct cpuid_model *m, unsigned *cores, unsigned *threads)
{
	const struct cpuid_entry *b0 = find_const(m, 0xb, 0), *b1 = find_const(m, 0xb, 1);

	*threads = b0 ? MAX(b0->ebx, 1u) : 1;
	*cores = b1 ? MAX(b1->ebx / *threads, 1u) : 1;
}

/* What is wanted and not there, in words. */
static void lacking(char *text, size_t size, const struct features *want, const struct features *have)
{
	cpuid_name_bits(text, size, 1, 0, REG_ECX, want->l1_ecx & ~have->l1_ecx);
	cpuid_name_bits(text, size, 7, 0, REG_EBX, want->l7_ebx & ~have->l7_ebx);
	cpuid_name_bits(text, size, 7, 0, REG_ECX, want->l7_ecx & ~have->l7_ecx);
	cpuid_name_bits(text, size, 7, 0, REG_EDX, want->l7_edx & ~have->l7_edx);
	cpuid_name_bits(text, size, 0x80000001, 0, REG_ECX, want->a1_ecx & ~have->a1_ecx);
}

int cpuid_build(struct cpuid_model *m, const char *name, unsigned ncpus, uint64_t tsc_khz, struct err *e)
{
	struct features host = host_features(), f;
	char text[200] = "";
	unsigned i;

	for (i = 0; i < ARRAY_LEN(models) && strcmp(models[i].name, name); i++)
		;
	if (i == ARRAY_LEN(models))
		return err_set(e, EINVAL, "there is no CPU model %s; there are v2, v3, v4 and host", name);
	lacking(text, sizeof(text), &models[i].must, &host);
	if (text[0])
		return err_set(e, ENOTSUP, "this host's processor cannot be CPU model %s (try --cpu host); it lacks:%s", name, text);
	f = (struct features){
		.l1_ecx = models[i].must.l1_ecx | (models[i].may.l1_ecx & host.l1_ecx),
		.l7_ebx = models[i].must.l7_ebx | (models[i].may.l7_ebx & host.l7_ebx),
		.l7_ecx = models[i].must.l7_ecx | (models[i].may.l7_ecx & host.l7_ecx),
		.l7_edx = models[i].must.l7_edx | (models[i].may.l7_edx & host.l7_edx),
		.a1_ecx = models[i].must.a1_ecx | (models[i].may.a1_ecx & host.a1_ecx),
	};
	memset(m, 0, sizeof(*m));
	strncpy(m->name, name, sizeof(m->name) - 1);
	m->tsc_khz = tsc_khz;
	add_basic(m, &f, ncpus);
	add_hypervisor(m);
	add_extended(m, &f, ncpus);
	decode(m);
	state_leaf(m);
	return 0;
}

static bool features_of(struct features *f, const struct cpuid_model *m)
{
	const struct cpuid_entry *l1 = find_const(m, 1, 0), *l7 = find_const(m, 7, 0), *a1 = find_const(m, 0x80000001, 0);

	if (!l1 || !l7 || !a1)
		return false;
	*f = (struct features){ l1->ecx, l7->ebx, l7->ecx, l7->edx, a1->ecx };
	return true;
}

int cpuid_adopt(struct cpuid_model *m, const struct cpuid_model *saved, struct err *e)
{
	struct cpuid_model here;
	struct features want, have;
	char text[200] = "";
	int r = cpuid_build(&here, "host", 1, saved->tsc_khz, e);

	if (r)
		return r;
	*m = *saved;
	if (!features_of(&want, m) || !features_of(&have, &here))
		return err_set(e, EINVAL, "a CPU model without its feature leaves");
	lacking(text, sizeof(text), &want, &have);
	if (text[0])
		return err_set(e, ENOTSUP, "the machine was promised CPU features that this host lacks:%s", text);
	decode(m);
	return 0;
}

void cpuid_query(const struct cpu *c, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	const struct cpuid_model *m = c->machine->cpuid;
	const struct cpuid_entry *e = find_const(m, leaf, subleaf);

	memset(out, 0, 4 * sizeof(*out));
	if (!e) { /* as AMD processors do; only leaf B goes on naming the CPU */
		if (leaf == 0xb) {
			out[2] = subleaf & 0xff;
			out[3] = c->id;
		}
		return;
	}
	out[0] = e->eax;
	out[1] = e->ebx;
	out[2] = e->ecx;
	out[3] = e->edx;
	if (leaf == 1) {
		out[1] |= c->id << 24;
		if (c->s.cr4 & CR4_OSXSAVE)
			out[2] |= OSXSAVE;
	} else if (leaf == 0xb) {
		out[3] = c->id;
	} else if (leaf == 0xd && subleaf == 0) {
		out[1] = cpuid_xsave_size(m, c->s.xcr0, false);
	} else if (leaf == 0xd && subleaf == 1) {
		out[1] = cpuid_xsave_size(m, c->s.xcr0 | c->s.xss, true);
	} else if (leaf == 0x8000001e) {
		unsigned core = (c->id & ((1u << m->package_bits) - 1)) >> m->thread_bits;
		const struct cpuid_entry *b = find_const(m, 0xb, 0);

		out[0] = c->id;
		out[1] = (core & 0xff) | (b && b->ebx ? (b->ebx - 1) << 8 : 0);
		out[2] = c->id >> m->package_bits & 0xff;
	}
}
