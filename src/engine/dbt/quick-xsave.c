/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XSAVE, XRSTOR and their kin of 64-bit code between the host's vector registers, where the guest's are, and guest memory: a context
 * switch of a kernel is one of each. The image has to lie in pages that the TLB knows; it comes out as the interpreter's
 * (engine/interp/xsave.c), which has everything else: faults, components singly, exceptions of the x87 waiting.
 * What lies across the end of a page goes by way of a buffer.
 *
 * The host's own XSAVE takes 90 cycles and its XRSTOR 175 to 230, and the host counts what was in use once as in use until
 * the next XRSTOR. Looking at the registers takes less, and saves storing 2 KiB of zeros.
 *
 * Built with general registers only: the compiler's code here must not touch what is being moved. Nor must a sanitizer's library,
 * which marks large objects on the stack by memset(): functions that have some are UNCHECKED.
 */
#include "engine/dbt/quick.h"
#include "engine/interp/xsave.h"
#include "x86/access.h"
#include "x86/cpuid.h"
#include "x86/tlb-fill.h"

/* Offsets in the image */
#define AT_MXCSR 24u
#define AT_ST 32u
#define AT_XMM 160u
#define AT_HEADER XSAVE_LEGACY_SIZE
#define AT_PLACED (XSAVE_LEGACY_SIZE + XSAVE_HEADER_SIZE)
#define COMPACT BIT(63)
#define SW_ES 0x80u
#define CW_EXCEPTIONS 0x3fu
#define MXCSR_DEFAULT 0x1f80u
#define MXCSR_VALID 0xffffu
#define UPPER (XSTATE_AVX | XSTATE_OPMASK | XSTATE_ZMM_UPPER | XSTATE_ZMM_16)

enum { AVX, OPMASK, ZMM_UPPER, ZMM_16, PLACED };
static const uint8_t placed_component[PLACED] = { 2, 5, 6, 7 };

#define ALL(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) op(14) op(15)
#define ZMM_ALL(op) op(16, 0) op(17, 1) op(18, 2) op(19, 3) op(20, 4) op(21, 5) op(22, 6) op(23, 7) op(24, 8) op(25, 9) \
	op(26, 10) op(27, 11) op(28, 12) op(29, 13) op(30, 14) op(31, 15)
#define MASK_ALL(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7)
#define SAVE_XMM(n) "movups %%xmm" #n ", 16*" #n "(%0)\n\t"
#define LOAD_XMM(n) "movups 16*" #n "(%0), %%xmm" #n "\n\t"
#define LOAD_XMM_VEX(n) "vmovdqu 16*" #n "(%0), %%xmm" #n "\n\t"
#define SAVE_UPPER(n) "vextractf128 $1, %%ymm" #n ", 16*" #n "(%0)\n\t"
#define LOAD_UPPER(n) "vinsertf128 $1, 16*" #n "(%0), %%ymm" #n ", %%ymm" #n "\n\t"
#define SAVE_ZUPPER(n) "vextractf64x4 $1, %%zmm" #n ", 32*" #n "(%0)\n\t"
#define LOAD_ZUPPER(n) "vinsertf64x4 $1, 32*" #n "(%0), %%zmm" #n ", %%zmm" #n "\n\t"
#define SAVE_ZMM(n, at) "vmovdqu64 %%zmm" #n ", 64*" #at "(%0)\n\t"
#define LOAD_ZMM(n, at) "vmovdqu64 64*" #at "(%0), %%zmm" #n "\n\t"
#define ZERO_ZMM(n, at) "vpxord %%zmm" #n ", %%zmm" #n ", %%zmm" #n "\n\t"
#define SAVE_K(n) "kmovq %%k" #n ", 8*" #n "(%0)\n\t"
#define LOAD_K(n) "kmovq 8*" #n "(%0), %%k" #n "\n\t"
#define ZERO_K(n) "kxorq %%k" #n ", %%k" #n ", %%k" #n "\n\t"
#define YMM_OUT(n) "vmovdqu %%ymm" #n ", 64*" #n "(%0)\n\t"
#define XMM_OUT(n) "movups %%xmm" #n ", 64*" #n "(%0)\n\t"

#define PIECE_MAX 1024u
#define UNCHECKED __attribute__((no_sanitize("address", "undefined")))

/* The instruction, checked: what it is about. */
struct image {
	uint8_t *page[2]; /* host addresses: of the image, and of the page behind that it reaches into */
	unsigned room;    /* bytes in the first */
	uint64_t requested;
	bool compact, optimized, supervisor;
};

UNCHECKED static uint8_t *host_page(struct cpu *c, uint64_t at, bool write)
{
	gpa_t where;

	for (unsigned tries = 0; tries < 2; tries++) {
		uint8_t *p = write ? tlb_write_hit(c->tlb.data, at, 64) : (uint8_t *)tlb_read_hit(c->tlb.data, at, 64);

		if (p)
			return p;
		if (tries || (uint64_t)((int64_t)(at << 16) >> 16) != at ||
		    tlb_fill(c, at, write ? ACCESS_WRITE : ACCESS_READ, c->tlb.mode, &where) != CPU_OK)
			break;
	}
	return NULL;
}

UNCHECKED static bool image_find(struct cpu *c, const struct insn *i, uint64_t at, bool write, struct image *m)
{
	const struct cpuid_model *model = c->machine->cpuid;

	*m = (struct image){ .room = 4096 - (at & 4095) };
	switch (i->op) {
	case OP_XSAVEOPT:
	case OP_XSAVEOPT64:
		m->optimized = true;
		break;
	case OP_XSAVEC:
	case OP_XSAVEC64:
		m->compact = true;
		break;
	case OP_XSAVES:
	case OP_XSAVES64:
	case OP_XRSTORS:
	case OP_XRSTORS64:
		m->compact = m->supervisor = true;
		break;
	default:
		break;
	}
	if (i->flags & INSN_LOCK || !(c->s.cr4 & CR4_OSXSAVE) || c->s.cr0 & CR0_TS || !model || !model->has_xsave || at & 63 ||
	    (m->optimized && !model->has_xsaveopt) || (m->compact && !model->has_xsavec) ||
	    (m->supervisor && (!model->has_xsaves || c->s.cpl || c->s.xss)))
		return false;
	m->requested = c->s.xcr0 & (c->s.gpr[RDX] << 32 | (uint32_t)c->s.gpr[RAX]);
	m->page[0] = host_page(c, at, write);
	return m->page[0];
}

/* Where components are, and that all there is of `needed` can be had. */
UNCHECKED static bool place(struct cpu *c, struct image *m, uint64_t ea, bool write, bool compact, uint64_t layout, uint64_t needed,
		  uint16_t at[PLACED])
{
	const struct cpuid_model *model = c->machine->cpuid;
	unsigned next = AT_PLACED, end = AT_PLACED;

	for (unsigned k = 0; k < PLACED; k++) {
		unsigned n = placed_component[k], size = cpuid_xsave_bytes[n];

		at[k] = (uint16_t)(compact ? next : model->xsave_at[n]);
		next += layout >> n & 1 ? size : 0;
		if (needed >> n & 1)
			end = MAX(end, at[k] + size);
	}
	if (end > m->room && !m->page[1])
		m->page[1] = host_page(c, ea + m->room, write);
	return end <= m->room || m->page[1];
}

UNCHECKED static uint8_t *image_at(const struct image *m, unsigned at)
{
	return at < m->room ? m->page[0] + at : m->page[1] + (at - m->room);
}

UNCHECKED static bool piece_split(const struct image *m, unsigned at, unsigned size)
{
	return at < m->room && at + size > m->room;
}

UNCHECKED static void bytes_copy(void *to, const void *from, size_t size)
{
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size)::"memory");
}

/* Of a piece that is split. */
UNCHECKED static void piece_copy(const struct image *m, unsigned at, unsigned size, void *buffer, bool out)
{
	unsigned first = m->room - at;
	uint8_t *rest = (uint8_t *)buffer + first;

	if (out) {
		bytes_copy(m->page[0] + at, buffer, first);
		bytes_copy(m->page[1], rest, size - first);
	} else {
		bytes_copy(buffer, m->page[0] + at, first);
		bytes_copy(rest, m->page[1], size - first);
	}
}

/* ---- x87, by way of cpu->s */

static bool x87_initial(const struct x86_fpu *f)
{
	uint64_t any = (uint64_t)(f->cw ^ 0x37f) | f->sw | f->tag | f->opcode | f->ip | f->dp | f->cs | f->ds;

	for (unsigned k = 0; k < 8; k++)
		any |= f->reg[k].mantissa | f->reg[k].exponent;
	return !any;
}

UNCHECKED static void x87_pack(const struct x86_fpu *f, const struct image *m)
{
	uint64_t *to = (uint64_t *)m->page[0];

	to[0] = f->cw | (uint64_t)f->sw << 16 | (uint64_t)f->tag << 32;
	to[1] = 0;
	to[2] = 0; /* no pointers: see xsave_x87_pack() */
	for (unsigned k = 0; k < 8; k++) {
		unsigned n = ((f->sw >> 11) + k) & 7;

		to = (uint64_t *)image_at(m, AT_ST + 16 * k);
		to[0] = f->reg[n].mantissa;
		to[1] = f->reg[n].exponent;
	}
}

/* NULL: the initial configuration. */
UNCHECKED static void x87_take(struct cpu *c, const struct image *m, bool wide)
{
	const uint64_t *from = m ? (const uint64_t *)m->page[0] : NULL;
	struct x86_fpu *f = &c->s.fpu;
	uint64_t head = m ? from[0] : 0x37f, ip = m ? from[1] : 0, dp = m ? from[2] : 0;

	fp_drop_x87(c);
	f->cw = (uint16_t)((head & 0x1f3f) | 0x40);
	f->sw = (uint16_t)(head >> 16 & ~0x8080ull);
	f->tag = (uint8_t)(head >> 32);
	f->opcode = head >> 48 & 0x7ff;
	f->ip = wide ? (uint64_t)((int64_t)(ip << 7) >> 7) : (uint32_t)ip;
	f->dp = wide ? (uint64_t)((int64_t)(dp << 7) >> 7) : (uint32_t)dp;
	f->cs = wide ? 0 : (uint16_t)(ip >> 32);
	f->ds = wide ? 0 : (uint16_t)(dp >> 32);
	for (unsigned k = 0; k < 8; k++) {
		unsigned n = ((f->sw >> 11) + k) & 7;

		if (m)
			from = (const uint64_t *)image_at(m, AT_ST + 16 * k);
		f->reg[n].mantissa = m ? from[0] : 0;
		f->reg[n].exponent = m ? (uint16_t)from[1] : 0;
	}
}

/* ---- saving */

/* Bits of eight: quadwords of ZMM0-15 or ZMM16-31 in which anything is set. ZMM16 is what SSE instructions never wait for. */
UNCHECKED static uint64_t in_use_zmm(struct cpu *c)
{
	uint64_t k1, low, high, masks = 0;

	__asm__ volatile("vmovdqu64 %%zmm16, %[v16]\n\t"
			 "kmovq %%k1, %[k1]\n\t"
			 "vpternlogq $0xfe, %%zmm18, %%zmm17, %%zmm16\n\t"
			 "vpternlogq $0xfe, %%zmm20, %%zmm19, %%zmm16\n\t"
			 "vpternlogq $0xfe, %%zmm22, %%zmm21, %%zmm16\n\t"
			 "vpternlogq $0xfe, %%zmm24, %%zmm23, %%zmm16\n\t"
			 "vpternlogq $0xfe, %%zmm26, %%zmm25, %%zmm16\n\t"
			 "vpternlogq $0xfe, %%zmm28, %%zmm27, %%zmm16\n\t"
			 "vpternlogq $0xfe, %%zmm30, %%zmm29, %%zmm16\n\t"
			 "vporq %%zmm31, %%zmm16, %%zmm16\n\t"
			 "vptestmq %%zmm16, %%zmm16, %%k1\n\t"
			 "kmovw %%k1, %k[high]\n\t"
			 "vporq %%zmm0, %%zmm1, %%zmm16\n\t"
			 "vpternlogq $0xfe, %%zmm2, %%zmm3, %%zmm16\n\t"
			 "vpternlogq $0xfe, %%zmm4, %%zmm5, %%zmm16\n\t"
			 "vpternlogq $0xfe, %%zmm6, %%zmm7, %%zmm16\n\t"
			 "vpternlogq $0xfe, %%zmm8, %%zmm9, %%zmm16\n\t"
			 "vpternlogq $0xfe, %%zmm10, %%zmm11, %%zmm16\n\t"
			 "vpternlogq $0xfe, %%zmm12, %%zmm13, %%zmm16\n\t"
			 "vpternlogq $0xfe, %%zmm14, %%zmm15, %%zmm16\n\t"
			 "vptestmq %%zmm16, %%zmm16, %%k1\n\t"
			 "kmovw %%k1, %k[low]\n\t"
			 "kmovq %[k1], %%k1\n\t"
			 "vmovdqu64 %[v16], %%zmm16"
			 : [v16] "=m"(c->s.v[16]), [k1] "=&r"(k1), [low] "=&r"(low), [high] "=&r"(high)::"memory");
	__asm__ volatile(MASK_ALL(SAVE_K)::"r"(c->s.k) : "memory");
	for (unsigned n = 0; n < 8; n++)
		masks |= c->s.k[n];
	return (low & 3 ? XSTATE_SSE : 0) | (low & 0xc ? XSTATE_AVX : 0) | (low & 0xf0 ? XSTATE_ZMM_UPPER : 0) |
	       (high ? XSTATE_ZMM_16 : 0) | (masks ? XSTATE_OPMASK : 0);
}

UNCHECKED static uint64_t in_use(struct cpu *c)
{
	const struct cpuid_model *model = c->machine->cpuid;
	uint64_t sse = 0, avx = 0;

	if (model->has_avx512)
		return in_use_zmm(c);
	if (model->has_avx)
		__asm__ volatile(ALL(YMM_OUT)::"r"(c->s.v) : "memory");
	else
		__asm__ volatile(ALL(XMM_OUT)::"r"(c->s.v) : "memory");
	for (unsigned n = 0; n < 16; n++) {
		sse |= c->s.v[n].q[0] | c->s.v[n].q[1];
		avx |= c->s.v[n].q[2] | c->s.v[n].q[3];
	}
	return (sse ? XSTATE_SSE : 0) | (avx ? XSTATE_AVX : 0);
}

static void component_store(unsigned k, uint8_t *to)
{
	switch (k) {
	case AVX:
		__asm__ volatile(ALL(SAVE_UPPER)::"r"(to) : "memory");
		break;
	case OPMASK:
		__asm__ volatile(MASK_ALL(SAVE_K)::"r"(to) : "memory");
		break;
	case ZMM_UPPER:
		__asm__ volatile(ALL(SAVE_ZUPPER)::"r"(to) : "memory");
		break;
	case ZMM_16:
		__asm__ volatile(ZMM_ALL(SAVE_ZMM)::"r"(to) : "memory");
		break;
	default:
		__asm__ volatile(ALL(SAVE_XMM)::"r"(to) : "memory");
		break;
	}
}

UNCHECKED static void vec_store(const struct image *m, uint64_t saved, const uint16_t at[PLACED])
{
	uint64_t buffer[PIECE_MAX / 8];

	for (unsigned k = 0; k <= PLACED; k++) {
		unsigned n = k == PLACED ? 1 : placed_component[k], from = k == PLACED ? AT_XMM : at[k], size = cpuid_xsave_bytes[n];

		if (!(saved >> n & 1))
			continue;
		if (likely(!piece_split(m, from, size))) {
			component_store(k, image_at(m, from));
		} else {
			component_store(k, (uint8_t *)buffer);
			piece_copy(m, from, size, buffer, true);
		}
	}
}

UNCHECKED bool quick_xsave(struct cpu *c, const struct insn *i, uint64_t ea)
{
	uint64_t used, saved, *header;
	uint16_t at[PLACED];
	struct image m;
	uint32_t mxcsr;

	if (!image_find(c, i, ea, true, &m) || !place(c, &m, ea, true, m.compact, m.requested, m.requested, at))
		return false;
	if (dbt_hot(c)->x87_live)
		fp_peek_x87(c);
	if (m.requested & XSTATE_X87 && c->s.fpu.sw & SW_ES)
		return false;
	if (!dbt_hot(c)->vec_live)
		fp_load_vec(c);
	used = in_use(c) | (x87_initial(&c->s.fpu) ? 0 : XSTATE_X87);
	saved = m.requested & (m.compact || m.optimized ? used : ~0ull);
	__asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
	if (m.compact && mxcsr != MXCSR_DEFAULT)
		saved |= m.requested & XSTATE_SSE;
	if (saved & XSTATE_X87)
		x87_pack(&c->s.fpu, &m);
	if (m.compact ? saved & XSTATE_SSE : m.requested & (XSTATE_SSE | XSTATE_AVX))
		*(uint64_t *)(m.page[0] + AT_MXCSR) = mxcsr | (uint64_t)MXCSR_VALID << 32;
	vec_store(&m, saved, at);
	header = (uint64_t *)image_at(&m, AT_HEADER);
	if (m.compact) {
		header[0] = saved;
		header[1] = m.requested | COMPACT;
	} else {
		header[0] = (header[0] & ~m.requested) | (m.requested & used);
	}
	return true;
}

/* ---- restoring */

/* False: not a header that XRSTOR takes. h: XSTATE_BV, XCOMP_BV. */
UNCHECKED static bool header_good(const struct cpu *c, const struct image *m, const uint64_t h[8])
{
	uint64_t rest = 0;

	for (unsigned k = 2; k < 8; k++)
		rest |= h[k];
	if (!(h[1] & COMPACT))
		return !m->supervisor && !h[1] && !h[2] && !(h[0] & ~c->s.xcr0);
	return c->machine->cpuid->has_xsavec && !rest && !(h[1] & ~COMPACT & ~c->s.xcr0) && !(h[0] & ~h[1]);
}

static void component_load(unsigned k, const uint8_t *from, bool vex)
{
	switch (k) {
	case AVX:
		__asm__ volatile(ALL(LOAD_UPPER)::"r"(from) : "memory");
		break;
	case OPMASK:
		__asm__ volatile(MASK_ALL(LOAD_K)::"r"(from) : "memory");
		break;
	case ZMM_UPPER:
		__asm__ volatile(ALL(LOAD_ZUPPER)::"r"(from) : "memory");
		break;
	case ZMM_16:
		__asm__ volatile(ZMM_ALL(LOAD_ZMM)::"r"(from) : "memory");
		break;
	default:
		if (vex) /* what is above is zero, and not waited for: see fp_load_vec() */
			__asm__ volatile("vzeroupper\n\t" ALL(LOAD_XMM_VEX)::"r"(from) : "memory");
		else
			__asm__ volatile(ALL(LOAD_XMM)::"r"(from) : "memory");
		break;
	}
}

/* Of a component in its initial configuration; XMM registers take what lies above with them. */
static void component_clear(unsigned k, bool vex)
{
	static const uint8_t zeros[256];

	switch (k) {
	case OPMASK:
		__asm__ volatile(MASK_ALL(ZERO_K)::: "memory");
		break;
	case ZMM_16:
		__asm__ volatile(ZMM_ALL(ZERO_ZMM)::: "memory");
		break;
	case PLACED:
		if (vex)
			__asm__ volatile("vzeroall");
		else
			__asm__ volatile(ALL(LOAD_XMM)::"r"(zeros) : "memory");
		break;
	default:
		break;
	}
}

UNCHECKED static void vec_load(const struct cpuid_model *model, const struct image *m, uint64_t load, const uint16_t at[PLACED])
{
	static const uint8_t order[] = { PLACED, AVX, OPMASK, ZMM_UPPER, ZMM_16 };
	uint64_t buffer[PIECE_MAX / 8];

	for (unsigned j = 0; j < sizeof(order); j++) {
		unsigned k = order[j], n = k == PLACED ? 1 : placed_component[k], from = k == PLACED ? AT_XMM : at[k];
		unsigned size = cpuid_xsave_bytes[n];

		if (!(model->xcr0_allowed >> n & 1))
			continue;
		if (!(load >> n & 1)) {
			component_clear(k, model->has_avx);
		} else if (likely(!piece_split(m, from, size))) {
			component_load(k, image_at(m, from), model->has_avx);
		} else {
			piece_copy(m, from, size, buffer, false);
			component_load(k, (const uint8_t *)buffer, model->has_avx);
		}
	}
}

/* All of the vector registers at once or none. */
UNCHECKED bool quick_xrstor(struct cpu *c, const struct insn *i, uint64_t ea)
{
	const struct cpuid_model *model = c->machine->cpuid;
	uint64_t h[8], load, vec, x87;
	uint16_t at[PLACED];
	struct image m;
	uint32_t mxcsr = MXCSR_DEFAULT;

	if (!image_find(c, i, ea, false, &m) || !place(c, &m, ea, false, false, 0, 0, at))
		return false;
	for (unsigned k = 0; k < 8; k++)
		h[k] = __atomic_load_n((const uint64_t *)image_at(&m, AT_HEADER) + k, __ATOMIC_RELAXED);
	if (!header_good(c, &m, h))
		return false;
	load = m.requested & h[0];
	vec = model->xcr0_allowed & ~XSTATE_X87;
	if ((m.requested & vec) != vec || (load & UPPER && !(load & XSTATE_SSE)) || (load & XSTATE_ZMM_UPPER && !(load & XSTATE_AVX)) ||
	    !place(c, &m, ea, false, h[1] & COMPACT, h[1], load, at))
		return false;
	if (!(h[1] & COMPACT) || load & XSTATE_SSE)
		mxcsr = __atomic_load_n((const uint32_t *)(m.page[0] + AT_MXCSR), __ATOMIC_RELAXED);
	x87 = load & XSTATE_X87 ? *(const uint64_t *)m.page[0] : 0x37f;
	if (mxcsr & ~MXCSR_VALID || (x87 >> 16 & ~x87 & CW_EXCEPTIONS)) /* an exception waits */
		return false;
	if (m.requested & XSTATE_X87)
		x87_take(c, load & XSTATE_X87 ? &m : NULL, i->rex & 8);
	vec_load(model, &m, load, at);
	__asm__ volatile("ldmxcsr %0" ::"m"(mxcsr));
	dbt_hot(c)->vec_live = 1;
	return true;
}
