/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's vector and x87 registers between cpu->s and the host's own. They stay in the host's while guest code runs,
 * also guest code that knows nothing of them (a kernel), and go back to cpu->s before C code that might use them is called.
 * Built with general registers only: the compiler's code here must not touch what is being moved.
 *
 * MXCSR and the x87 control word are the guest's too; C code gets the ABI's defaults back.
 */
#include "engine/dbt/dbt.h"
#include "x86/cpuid.h"

#define MXCSR_DEFAULT 0x1f80u

struct fx {
	uint16_t cw, sw;
	uint8_t tag, reserved;
	uint16_t opcode;
	uint64_t ip, dp;
	uint32_t mxcsr, mxcsr_mask;
	struct {
		uint64_t mantissa;
		uint16_t exponent, pad[3];
	} st[8];
	uint8_t xmm[256], rest[96];
};
_Static_assert(sizeof(struct fx) == 512, "layout of FXSAVE");

#define XMM_ALL(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) op(14) op(15)
#define ZMM_HIGH(op) op(16) op(17) op(18) op(19) op(20) op(21) op(22) op(23) op(24) op(25) op(26) op(27) op(28) op(29) \
	op(30) op(31)
#define SAVE_XMM(n) "movups %%xmm" #n ", 64*" #n "(%0)\n\t"
#define LOAD_XMM(n) "movups 64*" #n "(%0), %%xmm" #n "\n\t"
#define LOAD_XMM_ONLY(n) "vmovdqu 64*" #n "(%0), %%xmm" #n "\n\t" /* zeros above */
#define SAVE_YMM(n) "vmovdqu %%ymm" #n ", 64*" #n "(%0)\n\t"
#define LOAD_YMM(n) "vmovdqu 64*" #n "(%0), %%ymm" #n "\n\t"
#define SAVE_ZMM(n) "vmovdqu64 %%zmm" #n ", 64*" #n "(%0)\n\t"
#define LOAD_ZMM(n) "vmovdqu64 64*" #n "(%0), %%zmm" #n "\n\t"
#define MASK_ALL(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7)
#define SAVE_K(n) "kmovq %%k" #n ", 8*" #n "(%1)\n\t"
#define LOAD_K(n) "kmovq 8*" #n "(%1), %%k" #n "\n\t"

static void vec_save(struct cpu *c)
{
	const struct cpuid_model *m = c->machine->cpuid;
	union x86_vreg *v = c->s.v;
	uint32_t mxcsr = MXCSR_DEFAULT;

	if (m && m->has_avx512)
		__asm__ volatile(XMM_ALL(SAVE_ZMM) ZMM_HIGH(SAVE_ZMM) MASK_ALL(SAVE_K)
				 "vzeroupper" ::"r"(v), "r"(c->s.k) : "memory");
	else if (m && m->has_avx)
		__asm__ volatile(XMM_ALL(SAVE_YMM) "vzeroupper" ::"r"(v) : "memory");
	else
		__asm__ volatile(XMM_ALL(SAVE_XMM)::"r"(v) : "memory");
	__asm__ volatile("stmxcsr %0" : "=m"(c->s.mxcsr));
	__asm__ volatile("ldmxcsr %0" ::"m"(mxcsr));
	dbt_hot(c)->vec_live = 0;
}

/* Is there anything in registers 0..15 beyond the lowest 128 bits? */
static bool uppers_in_use(const union x86_vreg *v, unsigned bytes)
{
	uint64_t all = 0;

	for (unsigned n = 0; n < 16; n++) {
		for (unsigned at = 2; at < bytes / 8; at++)
			all |= v[n].q[at];
	}
	return all;
}

/*
 * Registers whose upper parts were loaded, if only with zeros, make every SSE instruction that writes them wait for what they held
 * before: a loop of independent ones ran 2.7 times slower so.
 */
void fp_load_vec(struct cpu *c)
{
	const struct cpuid_model *m = c->machine->cpuid;
	const union x86_vreg *v = c->s.v;

	if (m && m->has_avx512 && !uppers_in_use(v, 64))
		__asm__ volatile("vzeroupper\n\t" XMM_ALL(LOAD_XMM_ONLY) ZMM_HIGH(LOAD_ZMM) MASK_ALL(LOAD_K)::"r"(v), "r"(c->s.k)
				 : "memory");
	else if (m && m->has_avx && !m->has_avx512 && !uppers_in_use(v, 32))
		__asm__ volatile("vzeroupper\n\t" XMM_ALL(LOAD_XMM_ONLY)::"r"(v) : "memory");
	else if (m && m->has_avx512)
		__asm__ volatile(XMM_ALL(LOAD_ZMM) ZMM_HIGH(LOAD_ZMM) MASK_ALL(LOAD_K)::"r"(v), "r"(c->s.k) : "memory");
	else if (m && m->has_avx)
		__asm__ volatile(XMM_ALL(LOAD_YMM)::"r"(v) : "memory");
	else
		__asm__ volatile(XMM_ALL(LOAD_XMM)::"r"(v) : "memory");
	__asm__ volatile("ldmxcsr %0" ::"m"(c->s.mxcsr));
	dbt_hot(c)->vec_live = 1;
	dbt_cpu(c)->counters.fp_loads++;
}

/* Host instruction and data pointers are the host's own business: cpu->s keeps what it has. */
static void x87_take(struct x86_fpu *f, const struct fx *fx)
{
	unsigned top = fx->sw >> 11 & 7;

	f->cw = fx->cw;
	f->sw = fx->sw;
	f->tag = fx->tag;
	for (unsigned n = 0; n < 8; n++) {
		f->reg[(top + n) & 7].mantissa = fx->st[n].mantissa;
		f->reg[(top + n) & 7].exponent = fx->st[n].exponent;
	}
}

static void x87_save(struct cpu *c)
{
	struct fx fx __attribute__((aligned(16)));

	__asm__ volatile("fxsave64 %0\n\tfninit" : "=m"(fx));
	x87_take(&c->s.fpu, &fx);
	dbt_hot(c)->x87_live = 0;
}

void fp_peek_x87(struct cpu *c)
{
	struct fx fx __attribute__((aligned(16)));

	__asm__ volatile("fxsave64 %0" : "=m"(fx));
	x87_take(&c->s.fpu, &fx);
}

void fp_drop_x87(struct cpu *c)
{
	if (!dbt_hot(c)->x87_live)
		return;
	__asm__ volatile("fninit");
	dbt_hot(c)->x87_live = 0;
}

void fp_load_x87(struct cpu *c)
{
	struct fx fx __attribute__((aligned(16)));
	const struct x86_fpu *f = &c->s.fpu;
	unsigned top = f->sw >> 11 & 7;

	__asm__ volatile("fxsave64 %0" : "=m"(fx)); /* MXCSR and the vector registers as they are */
	fx.cw = f->cw;
	fx.sw = f->sw;
	fx.tag = f->tag;
	fx.opcode = 0;
	fx.ip = fx.dp = 0;
	for (unsigned n = 0; n < 8; n++) {
		fx.st[n].mantissa = f->reg[(top + n) & 7].mantissa;
		fx.st[n].exponent = f->reg[(top + n) & 7].exponent;
	}
	__asm__ volatile("fxrstor64 %0" ::"m"(fx));
	dbt_hot(c)->x87_live = 1;
	dbt_cpu(c)->counters.fp_loads++;
}

void fp_release(struct cpu *c)
{
	struct dbt_hot *h = dbt_hot(c);

	if (h->vec_live)
		vec_save(c);
	if (h->x87_live)
		x87_save(c);
	dbt_cpu(c)->counters.fp_saves++;
}
