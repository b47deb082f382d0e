/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The architectural state of one vCPU: one struct, the same for every engine, so that a machine saved
 * or migrated under one engine goes on under another. Nothing here is engine-private.
 */
#ifndef X86_STATE_H
#define X86_STATE_H

#include "base/base.h"

enum x86_gpr { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };
enum x86_seg { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, SEG_COUNT };

/* A segment register with its hidden part. */
struct x86_segment {
	uint64_t base;
	uint32_t limit; /* in bytes, granularity already applied */
	uint16_t selector;
	uint16_t attr; /* descriptor bits 40..55 moved to 0..15, without limit bits: see SEG_ATTR_* */
};
#define SEG_ATTR_TYPE 0x000f
#define SEG_ATTR_S 0x0010 /* code or data, not system */
#define SEG_ATTR_DPL 0x0060
#define SEG_ATTR_DPL_SHIFT 5
#define SEG_ATTR_P 0x0080
#define SEG_ATTR_AVL 0x1000
#define SEG_ATTR_L 0x2000
#define SEG_ATTR_DB 0x4000
#define SEG_ATTR_G 0x8000
/* A null selector was loaded: any use in legacy modes faults. Kept as P clear. */

struct x86_dtable {
	uint64_t base;
	uint16_t limit;
};

union x86_vreg { /* one vector register, up to ZMM */
	uint8_t b[64];
	uint16_t w[32];
	uint32_t d[16];
	uint64_t q[8];
	int8_t sb[64];
	int16_t sw[32];
	int32_t sd[16];
	int64_t sq[8];
	float ps[16];
	double pd[8];
};

struct x86_fpu { /* x87 and MMX; registers by physical number, as in ST(i) = reg[(top + i) & 7] */
	struct {
		uint64_t mantissa;
		uint16_t exponent; /* with sign */
		uint16_t pad[3];
	} reg[8];
	uint16_t cw, sw; /* TOP lives in sw */
	uint8_t tag;     /* FXSAVE form: bit set = register in use */
	uint16_t opcode;
	uint64_t ip, dp;
	uint16_t cs, ds;
};

/* What is being delivered or held back at an instruction boundary. */
enum x86_shadow { SHADOW_NONE, SHADOW_STI = 1, SHADOW_MOVSS = 2 };
enum x86_activity { ACTIVITY_RUN, ACTIVITY_HLT, ACTIVITY_WAIT_SIPI, ACTIVITY_SHUTDOWN };

struct x86_state {
	/* hot part: offsets are used by generated code */
	uint64_t gpr[16];
	uint64_t rip;
	uint64_t rflags; /* complete; bit 1 always set */
	struct x86_segment seg[SEG_COUNT];
	struct x86_dtable gdtr, idtr;
	uint64_t cr0, cr2, cr3, cr4;
	uint64_t efer, xcr0;
	uint64_t dr[8]; /* 0-3, 6, 7 */
	uint8_t cpl;
	uint8_t shadow;   /* enum x86_shadow bits */
	uint8_t nmi_mask; /* NMI blocked until IRET */
	uint8_t activity; /* enum x86_activity */

	/* MSRs held as plain values (x86/msr.c); those of the local APIC live in the device */
	uint64_t star, lstar, cstar, sfmask, kernel_gs_base, tsc_aux;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t pat, tsc_adjust, misc_enable, spec_ctrl, xss;
	int64_t tsc_offset; /* guest TSC = clock_tsc() + tsc_offset */
	uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_base[8], mtrr_mask[8];
	uint64_t mcg_status, mcg_ctl, mc_bank[4][4];
	uint64_t pv_clock, pv_wall_clock, pv_eoi, pv_steal, pv_async; /* KVM paravirtual MSRs */
	uint64_t pv_poll_control;

	uint32_t mxcsr;
	struct x86_fpu fpu;
	union x86_vreg v[32] __attribute__((aligned(64)));
	uint64_t k[8]; /* AVX-512 mask registers */
};

/* RFLAGS */
#define FLAG_CF 0x0001ull
#define FLAG_PF 0x0004ull
#define FLAG_AF 0x0010ull
#define FLAG_ZF 0x0040ull
#define FLAG_SF 0x0080ull
#define FLAG_TF 0x0100ull
#define FLAG_IF 0x0200ull
#define FLAG_DF 0x0400ull
#define FLAG_OF 0x0800ull
#define FLAG_IOPL 0x3000ull
#define FLAG_IOPL_SHIFT 12
#define FLAG_NT 0x4000ull
#define FLAG_RF 0x10000ull
#define FLAG_VM 0x20000ull
#define FLAG_AC 0x40000ull
#define FLAG_VIF 0x80000ull
#define FLAG_VIP 0x100000ull
#define FLAG_ID 0x200000ull
#define FLAGS_ARITH (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)

#define CR0_PE 0x1ull
#define CR0_MP 0x2ull
#define CR0_EM 0x4ull
#define CR0_TS 0x8ull
#define CR0_ET 0x10ull
#define CR0_NE 0x20ull
#define CR0_WP 0x10000ull
#define CR0_AM 0x40000ull
#define CR0_NW 0x20000000ull
#define CR0_CD 0x40000000ull
#define CR0_PG 0x80000000ull

#define CR4_VME BIT(0)
#define CR4_PVI BIT(1)
#define CR4_TSD BIT(2)
#define CR4_DE BIT(3)
#define CR4_PSE BIT(4)
#define CR4_PAE BIT(5)
#define CR4_MCE BIT(6)
#define CR4_PGE BIT(7)
#define CR4_PCE BIT(8)
#define CR4_OSFXSR BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_UMIP BIT(11)
#define CR4_LA57 BIT(12)
#define CR4_FSGSBASE BIT(16)
#define CR4_PCIDE BIT(17)
#define CR4_OSXSAVE BIT(18)
#define CR4_SMEP BIT(20)
#define CR4_SMAP BIT(21)

#define EFER_SCE BIT(0)
#define EFER_LME BIT(8)
#define EFER_LMA BIT(10)
#define EFER_NXE BIT(11)

enum x86_vector {
	VEC_DE, VEC_DB, VEC_NMI, VEC_BP, VEC_OF, VEC_BR, VEC_UD, VEC_NM, VEC_DF, VEC_CSO, VEC_TS, VEC_NP,
	VEC_SS, VEC_GP, VEC_PF, VEC_15, VEC_MF, VEC_AC, VEC_MC, VEC_XM,
};

/* Page-fault error code */
#define PF_P 1u
#define PF_W 2u
#define PF_U 4u
#define PF_RSVD 8u
#define PF_I 16u

void x86_state_reset(struct x86_state *s, bool bootstrap); /* as after power-on or INIT; keeps nothing */
void x86_state_init_signal(struct x86_state *s, bool bootstrap); /* INIT: FPU, MSRs, CR0.CD/NW survive */

static inline bool x86_long_mode(const struct x86_state *s)
{
	return s->efer & EFER_LMA;
}
static inline bool x86_64bit(const struct x86_state *s) /* executing 64-bit code */
{
	return (s->efer & EFER_LMA) && (s->seg[SEG_CS].attr & SEG_ATTR_L);
}

#endif
