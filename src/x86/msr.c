/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MSRs: one table of rows sorted by index. A row holds a plain value of x86_state, or a constant, or functions for what
 * does something. What is in no row belongs to a device (the local APIC) or faults.
 */
#include "x86/cpu-trace.h"
#include "x86/cpuid.h"
#include "x86/msr.h"
#include "x86/pv.h"
#include "x86/segment.h"

enum kind {
	PLAIN,	   /* a member; writes may set only the bits of mask */
	CANONICAL, /* a member that is an address */
	CONSTANT,  /* reads as mask; writes fault */
	IGNORED,   /* reads as mask; writes vanish */
	MEMORY_TYPE,  /* PLAIN, and the low byte is a memory type */
	MEMORY_TYPES, /* eight memory types */
	FUNCTION,
};

struct row {
	uint32_t index;
	uint8_t kind;
	uint16_t offset;
	uint64_t mask;
	int (*read)(struct cpu *c, uint64_t *value);
	int (*write)(struct cpu *c, uint64_t value);
};

static int tsc_read(struct cpu *c, uint64_t *value)
{
	*value = cpu_tsc(c);
	return CPU_OK;
}

/* A write to the TSC moves TSC_ADJUST by as much. */
static int tsc_write(struct cpu *c, uint64_t value)
{
	uint64_t by = value - cpu_tsc(c);

	c->s.tsc_offset += (int64_t)by;
	c->s.tsc_adjust += by;
	pv_system_time_update(c);
	return CPU_OK;
}

static int tsc_adjust_read(struct cpu *c, uint64_t *value)
{
	*value = c->s.tsc_adjust;
	return CPU_OK;
}

static int tsc_adjust_write(struct cpu *c, uint64_t value)
{
	c->s.tsc_offset += (int64_t)(value - c->s.tsc_adjust);
	c->s.tsc_adjust = value;
	pv_system_time_update(c);
	return CPU_OK;
}

static int efer_read(struct cpu *c, uint64_t *value)
{
	*value = c->s.efer;
	return CPU_OK;
}

#define EFER_AUTOIBRS BIT(21)
static int efer_write(struct cpu *c, uint64_t value)
{
	uint64_t changed = value ^ c->s.efer;

	if (value & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | EFER_AUTOIBRS))
		return cpu_raise_error(c, VEC_GP, 0);
	if ((changed & EFER_LME) && (c->s.cr0 & CR0_PG))
		return cpu_raise_error(c, VEC_GP, 0);
	c->s.efer = (value & ~EFER_LMA) | (c->s.efer & EFER_LMA);
	if (changed & EFER_NXE)
		tlb_flush_all(c);
	return CPU_BOUNDARY;
}

/* FS and GS bases, as MSRs: the hidden parts of the segments. */
static int fs_base_read(struct cpu *c, uint64_t *value)
{
	*value = c->s.seg[SEG_FS].base;
	return CPU_OK;
}

static int gs_base_read(struct cpu *c, uint64_t *value)
{
	*value = c->s.seg[SEG_GS].base;
	return CPU_OK;
}

static bool canonical(uint64_t v)
{
	return (uint64_t)((int64_t)(v << 16) >> 16) == v;
}

static int base_write(struct cpu *c, enum x86_seg seg, uint64_t value)
{
	if (!canonical(value))
		return cpu_raise_error(c, VEC_GP, 0);
	c->s.seg[seg].base = value;
	return CPU_OK;
}

static int fs_base_write(struct cpu *c, uint64_t value)
{
	return base_write(c, SEG_FS, value);
}

static int gs_base_write(struct cpu *c, uint64_t value)
{
	return base_write(c, SEG_GS, value);
}

/* The first `count` bytes: uncacheable, write-combining, -through, -protected, -back; with `pat` also UC-. */
static bool memory_types_valid(uint64_t value, unsigned count, bool pat)
{
	const unsigned valid = pat ? 0xf3 : 0x73;

	for (unsigned i = 0; i < count; i++) {
		unsigned type = value >> (8 * i) & 0xff;

		if (type > 7 || !(valid >> type & 1))
			return false;
	}
	return true;
}

static int pat_read(struct cpu *c, uint64_t *value)
{
	*value = c->s.pat;
	return CPU_OK;
}

static int pat_write(struct cpu *c, uint64_t value)
{
	if (!memory_types_valid(value, 8, true))
		return cpu_raise_error(c, VEC_GP, 0);
	c->s.pat = value;
	return CPU_OK;
}

static int apic_read_shared(struct cpu *c, uint64_t *value)
{
	*value = c->s.pv_clock;
	return CPU_OK;
}

static int wall_read(struct cpu *c, uint64_t *value)
{
	*value = c->s.pv_wall_clock;
	return CPU_OK;
}

static int steal_read(struct cpu *c, uint64_t *value)
{
	*value = c->s.pv_steal;
	return CPU_OK;
}

static int xss_read(struct cpu *c, uint64_t *value)
{
	*value = c->s.xss;
	return CPU_OK;
}

static int xss_write(struct cpu *c, uint64_t value)
{
	if (value) /* no supervisor components are offered */
		return cpu_raise_error(c, VEC_GP, 0);
	return CPU_OK;
}

#define P(i, member, m) { i, PLAIN, offsetof(struct x86_state, member), m, NULL, NULL }
#define T(i, member, m) { i, MEMORY_TYPE, offsetof(struct x86_state, member), m, NULL, NULL }
#define TT(i, member) { i, MEMORY_TYPES, offsetof(struct x86_state, member), 0, NULL, NULL }
#define C(i, member) { i, CANONICAL, offsetof(struct x86_state, member), 0, NULL, NULL }
#define K(i, value) { i, CONSTANT, 0, value, NULL, NULL }
#define N(i, value) { i, IGNORED, 0, value, NULL, NULL }
#define X(i, r, w) { i, FUNCTION, 0, 0, r, w }
#define ANY ~0ull
#define BANK(n) P(0x400 + 4 * (n), mc_bank[n][0], ANY), P(0x401 + 4 * (n), mc_bank[n][1], 0), \
		P(0x402 + 4 * (n), mc_bank[n][2], 0), P(0x403 + 4 * (n), mc_bank[n][3], 0)

static const struct row rows[] = {
	X(0x10, tsc_read, tsc_write),
	X(MSR_KVM_WALL_CLOCK_OLD, wall_read, pv_wall_clock_write),
	X(MSR_KVM_SYSTEM_TIME_OLD, apic_read_shared, pv_system_time_write),
	X(0x3b, tsc_adjust_read, tsc_adjust_write),
	P(0x48, spec_ctrl, 0x7),
	N(0x49, 0),		       /* prediction command */
	N(0x79, 0),		       /* microcode update */
	N(0x8b, 0x0a201016),	       /* patch level */
	K(0xfe, 0x508),		       /* MTRRs: 8 variable, fixed, write-combining */
	P(0x174, sysenter_cs, 0xffffffff),
	C(0x175, sysenter_esp),
	C(0x176, sysenter_eip),
	K(0x179, 4),		       /* machine check: 4 banks */
	P(0x17a, mcg_status, 7),
	P(0x17b, mcg_ctl, ANY),
	P(0x1a0, misc_enable, ANY),
	N(0x1d9, 0),		       /* debug control */
	K(0x1db, 0), K(0x1dc, 0), K(0x1dd, 0), K(0x1de, 0), /* last branch */
	T(0x200, mtrr_base[0], 0xfffffff0ffull), P(0x201, mtrr_mask[0], 0xfffffff800ull),
	T(0x202, mtrr_base[1], 0xfffffff0ffull), P(0x203, mtrr_mask[1], 0xfffffff800ull),
	T(0x204, mtrr_base[2], 0xfffffff0ffull), P(0x205, mtrr_mask[2], 0xfffffff800ull),
	T(0x206, mtrr_base[3], 0xfffffff0ffull), P(0x207, mtrr_mask[3], 0xfffffff800ull),
	T(0x208, mtrr_base[4], 0xfffffff0ffull), P(0x209, mtrr_mask[4], 0xfffffff800ull),
	T(0x20a, mtrr_base[5], 0xfffffff0ffull), P(0x20b, mtrr_mask[5], 0xfffffff800ull),
	T(0x20c, mtrr_base[6], 0xfffffff0ffull), P(0x20d, mtrr_mask[6], 0xfffffff800ull),
	T(0x20e, mtrr_base[7], 0xfffffff0ffull), P(0x20f, mtrr_mask[7], 0xfffffff800ull),
	TT(0x250, mtrr_fixed[0]), TT(0x258, mtrr_fixed[1]), TT(0x259, mtrr_fixed[2]),
	TT(0x268, mtrr_fixed[3]), TT(0x269, mtrr_fixed[4]), TT(0x26a, mtrr_fixed[5]),
	TT(0x26b, mtrr_fixed[6]), TT(0x26c, mtrr_fixed[7]), TT(0x26d, mtrr_fixed[8]),
	TT(0x26e, mtrr_fixed[9]), TT(0x26f, mtrr_fixed[10]),
	X(0x277, pat_read, pat_write),
	T(0x2ff, mtrr_def_type, 0xcff),
	BANK(0), BANK(1), BANK(2), BANK(3),
	X(0xda0, xss_read, xss_write),
	X(MSR_KVM_WALL_CLOCK, wall_read, pv_wall_clock_write),
	X(MSR_KVM_SYSTEM_TIME, apic_read_shared, pv_system_time_write),
	X(MSR_KVM_STEAL_TIME, steal_read, pv_steal_write),
	X(0xc0000080, efer_read, efer_write),
	P(0xc0000081, star, ANY),
	C(0xc0000082, lstar),
	C(0xc0000083, cstar),
	P(0xc0000084, sfmask, 0xffffffff),
	X(0xc0000100, fs_base_read, fs_base_write),
	X(0xc0000101, gs_base_read, gs_base_write),
	C(0xc0000102, kernel_gs_base),
	P(0xc0000103, tsc_aux, 0xffffffff),
	/* AMD's own, that kernels look at whatever CPUID says */
	N(0xc0010000, 0), N(0xc0010001, 0), N(0xc0010002, 0), N(0xc0010003, 0), /* performance events */
	N(0xc0010004, 0), N(0xc0010005, 0), N(0xc0010006, 0), N(0xc0010007, 0),
	N(0xc0010010, 0),	       /* SYSCFG */
	N(0xc0010015, 0x1000000),      /* HWCR: TSC runs at P0 */
	K(0xc001001d, 0),	       /* top of memory 2 */
	N(0xc001001f, 0),	       /* north bridge */
	N(0xc0010055, 0),	       /* interrupt pending */
	K(0xc0010114, 0x18),	       /* SVM: locked and off */
	K(0xc0010140, 0), K(0xc0010141, 0), /* known flaws: none */
	N(0xc0011020, 0), N(0xc0011021, 0), N(0xc0011022, 0), N(0xc0011023, 0),
	N(0xc0011029, 2),	       /* DE_CFG: LFENCE serialises */
	N(0xc001102a, 0), N(0xc001102d, 0),
};

static const struct row *find(uint32_t index)
{
	size_t low = 0, high = ARRAY_LEN(rows);

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (rows[mid].index == index)
			return &rows[mid];
		if (rows[mid].index < index)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}

static int row_read(struct cpu *c, uint32_t index, uint64_t *value)
{
	const struct row *r = find(index);

	if (!r)
		return c->bus && c->bus->msr_read && !c->bus->msr_read(c->ctx, index, value) ?
			       CPU_OK :
			       cpu_raise_error(c, VEC_GP, 0);
	switch (r->kind) {
	case FUNCTION:
		return r->read(c, value);
	case CONSTANT:
	case IGNORED:
		*value = r->mask;
		return CPU_OK;
	default:
		*value = *(const uint64_t *)((const char *)&c->s + r->offset);
		return CPU_OK;
	}
}

static int row_write(struct cpu *c, uint32_t index, uint64_t value)
{
	const struct row *r = find(index);

	if (!r)
		return c->bus && c->bus->msr_write && !c->bus->msr_write(c->ctx, index, value) ?
			       CPU_BOUNDARY :
			       cpu_raise_error(c, VEC_GP, 0);
	switch (r->kind) {
	case FUNCTION:
		return r->write(c, value);
	case CONSTANT:
		return cpu_raise_error(c, VEC_GP, 0);
	case IGNORED:
		return CPU_OK;
	case CANONICAL:
		if (!canonical(value))
			return cpu_raise_error(c, VEC_GP, 0);
		break;
	case MEMORY_TYPES:
		if (!memory_types_valid(value, 8, false))
			return cpu_raise_error(c, VEC_GP, 0);
		break;
	default:
		if (r->kind == MEMORY_TYPE && !memory_types_valid(value, 1, false))
			return cpu_raise_error(c, VEC_GP, 0);
		if (value & ~r->mask)
			return cpu_raise_error(c, VEC_GP, 0);
		break;
	}
	*(uint64_t *)((char *)&c->s + r->offset) = value;
	return CPU_OK;
}

int msr_read(struct cpu *c, uint32_t index, uint64_t *value)
{
	int r = row_read(c, index, value);

	if (cpu_traces(c, TRACE_msr))
		trace_msr(c, false, index, r ? 0 : *value, r == CPU_FAULT);
	return r;
}

int msr_write(struct cpu *c, uint32_t index, uint64_t value)
{
	int r = row_write(c, index, value);

	if (cpu_traces(c, TRACE_msr))
		trace_msr(c, true, index, value, r == CPU_FAULT);
	return r;
}
