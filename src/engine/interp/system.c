/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segment and control registers, descriptor tables, TLB, MSRs, halting: what only, or mostly, a
 * kernel uses. Privilege is checked here, effects are x86's.
 */
#include <time.h>
#include "engine/interp/private.h"
#include "engine/interp/xsave.h"
#include "x86/cpu-trace.h"
#include "x86/event.h"
#include "x86/msr.h"

/* Privileged: #GP(0) above ring 0 (v86 runs in ring 3). */
static int need_ring0(struct cpu *c)
{
	return c->s.cpl ? raise_gp0(c) : CPU_OK;
}
static int need_protected(struct cpu *c)
{
	return cpu_protected(c) ? CPU_OK : raise_ud(c);
}
/* UMIP: user mode may not see where the kernel's tables are. */
static int need_umip(struct cpu *c)
{
	return c->s.cr4 & CR4_UMIP && c->s.cpl ? raise_gp0(c) : CPU_OK;
}

/* 16 bits to memory, the operand size (zero-extended) to a register. */
static int store_selector(struct cpu *c, const struct insn *i, uint64_t v)
{
	return i->flags & INSN_MEM ? mem_store_operand(c, i, 2, v) : rm_set(c, i, i->opsize, v);
}
static int load_selector(struct cpu *c, const struct insn *i, uint16_t *v)
{
	uint64_t t = 0;
	int r = rm_get(c, i, 2, &t);

	*v = (uint16_t)t;
	return r;
}

int sys_mov_sreg(struct cpu *c, const struct insn *i)
{
	uint16_t selector;
	int r;

	if (i->form == FORM_RM_REG)
		return store_selector(c, i, c->s.seg[i->reg].selector);
	if (i->reg == SEG_CS)
		return raise_ud(c);
	r = load_selector(c, i, &selector);
	if (!r)
		r = seg_load(c, (enum x86_seg)i->reg, selector);
	if (r == CPU_FAULT)
		return r;
	if (i->reg == SEG_SS)
		c->s.shadow |= SHADOW_MOVSS;
	return segment_boundary(i, i->reg) ? CPU_BOUNDARY : r;
}

/* LDS LES LFS LGS LSS */
int sys_load_far(struct cpu *c, const struct insn *i)
{
	static const uint8_t segments[] = { SEG_DS, SEG_ES, SEG_FS, SEG_GS, SEG_SS };
	uint8_t bytes[10] = { 0 };
	int r = operand_read_parts(c, i, bytes, i->opsize + 2u, i->opsize);

	if (!r)
		r = seg_load(c, (enum x86_seg)segments[i->op - OP_LDS],
			     (uint16_t)host_load(bytes + i->opsize, 2));
	if (r == CPU_FAULT)
		return r;
	reg_set(c, i->reg, false, i->opsize, host_load(bytes, i->opsize));
	return segment_boundary(i, segments[i->op - OP_LDS]) ? CPU_BOUNDARY : r;
}

int sys_mov_cr(struct cpu *c, const struct insn *i)
{
	unsigned size = i->mode == MODE_64 ? 8 : 4;
	uint64_t v;
	int r = need_ring0(c);

	if (r)
		return r;
	if (i->form == FORM_REG_RM)
		return cr_write(c, i->reg, reg_get(c, i->rm, false, size));
	r = cr_read(c, i->reg, &v);
	if (r != CPU_FAULT)
		reg_set(c, i->rm, false, size, v);
	return r;
}

int sys_mov_dr(struct cpu *c, const struct insn *i)
{
	unsigned size = i->mode == MODE_64 ? 8 : 4;
	uint64_t v;
	int r = need_ring0(c);

	if (r)
		return r;
	if (i->form == FORM_REG_RM) {
		r = dr_write(c, i->reg, reg_get(c, i->rm, false, size));
		return r ? r : CPU_BOUNDARY;
	}
	r = dr_read(c, i->reg, &v);
	if (r != CPU_FAULT)
		reg_set(c, i->rm, false, size, v);
	return r;
}

int sys_clts(struct cpu *c, const struct insn *i)
{
	int r = need_ring0(c);

	if (r)
		return r;
	c->s.cr0 &= ~CR0_TS;
	return CPU_BOUNDARY;
}

/* PE can be set, not cleared. */
int sys_lmsw(struct cpu *c, const struct insn *i)
{
	uint16_t v;
	int r = need_ring0(c);

	if (!r)
		r = load_selector(c, i, &v);
	if (r)
		return r;
	return cr_write(c, 0,
			(c->s.cr0 & ~(CR0_MP | CR0_EM | CR0_TS)) |
				(v & (CR0_PE | CR0_MP | CR0_EM | CR0_TS)));
}
int sys_smsw(struct cpu *c, const struct insn *i)
{
	int r = need_umip(c);

	return r ? r : store_selector(c, i, c->s.cr0);
}

static int table_load(struct cpu *c, const struct insn *i, struct x86_dtable *t)
{
	unsigned base = i->mode == MODE_64 ? 8 : 4;
	uint8_t bytes[10];
	uint64_t at;
	int r = need_ring0(c);

	if (!r)
		r = operand_read(c, i, bytes, 2 + base);
	if (r)
		return r;
	at = host_load(bytes + 2, base);
	if (base == 8 && !canonical(c, at))
		return raise_gp0(c);
	if (base == 4 && i->opsize == 2)
		at &= 0xffffff;
	t->limit = (uint16_t)host_load(bytes, 2);
	t->base = at;
	return CPU_OK;
}
static int table_store(struct cpu *c, const struct insn *i, const struct x86_dtable *t)
{
	uint8_t bytes[10];
	int r = need_umip(c);

	if (r)
		return r;
	memcpy(bytes, &t->limit, 2);
	memcpy(bytes + 2, &t->base, 8);
	return operand_write(c, i, bytes, i->mode == MODE_64 ? 10 : 6);
}
int sys_lgdt(struct cpu *c, const struct insn *i)
{
	return table_load(c, i, &c->s.gdtr);
}
int sys_lidt(struct cpu *c, const struct insn *i)
{
	return table_load(c, i, &c->s.idtr);
}
int sys_sgdt(struct cpu *c, const struct insn *i)
{
	return table_store(c, i, &c->s.gdtr);
}
int sys_sidt(struct cpu *c, const struct insn *i)
{
	return table_store(c, i, &c->s.idtr);
}

static int system_segment_load(struct cpu *c, const struct insn *i,
			       int (*load)(struct cpu *, uint16_t))
{
	uint16_t selector;
	int r = need_protected(c);

	if (!r)
		r = need_ring0(c);
	if (!r)
		r = load_selector(c, i, &selector);
	return r ? r : load(c, selector);
}
int sys_lldt(struct cpu *c, const struct insn *i)
{
	return system_segment_load(c, i, seg_load_ldtr);
}
int sys_ltr(struct cpu *c, const struct insn *i)
{
	return system_segment_load(c, i, seg_load_tr);
}
static int system_segment_store(struct cpu *c, const struct insn *i, enum x86_seg seg)
{
	int r = need_protected(c);

	if (!r)
		r = need_umip(c);
	return r ? r : store_selector(c, i, c->s.seg[seg].selector);
}
int sys_sldt(struct cpu *c, const struct insn *i)
{
	return system_segment_store(c, i, SEG_LDTR);
}
int sys_str(struct cpu *c, const struct insn *i)
{
	return system_segment_store(c, i, SEG_TR);
}

static int descriptor_query(struct cpu *c, const struct insn *i,
			    int (*query)(struct cpu *, uint16_t, bool *, uint32_t *))
{
	uint16_t selector;
	uint32_t v = 0;
	bool ok = false;
	int r = need_protected(c);

	if (!r)
		r = load_selector(c, i, &selector);
	if (!r)
		r = query(c, selector, &ok, &v);
	if (r)
		return r;
	if (ok)
		reg_set(c, i->reg, false, i->opsize, v);
	flags_set_some(c, FLAG_ZF, ok ? FLAG_ZF : 0);
	return CPU_OK;
}
int sys_lar(struct cpu *c, const struct insn *i)
{
	return descriptor_query(c, i, seg_lar);
}
int sys_lsl(struct cpu *c, const struct insn *i)
{
	return descriptor_query(c, i, seg_lsl);
}
int sys_verify(struct cpu *c, const struct insn *i)
{
	uint16_t selector;
	bool ok = false;
	int r = need_protected(c);

	if (!r)
		r = load_selector(c, i, &selector);
	if (!r)
		r = seg_verify(c, selector, i->op == OP_VERW, &ok);
	if (r)
		return r;
	flags_set_some(c, FLAG_ZF, ok ? FLAG_ZF : 0);
	return CPU_OK;
}

int sys_arpl(struct cpu *c, const struct insn *i)
{
	uint16_t rpl = c->s.gpr[i->reg] & 3;
	struct rmw m = { .host = NULL };
	bool raise;
	int r = need_protected(c);

	if (r)
		return r;
	if (i->flags & INSN_MEM)
		r = operand_read(c, i, &m.old, 2); /* it is written only when it changes */
	else
		m.old = reg_get(c, i->rm, false, 2);
	if (r)
		return r;
	raise = (m.old & 3) < rpl;
	if (raise && i->flags & INSN_MEM)
		r = rmw_begin(c, i, 2, &m);
	if (r)
		return r;
	if (raise) {
		uint64_t v = (m.old & ~3ull) | rpl;

		if (i->flags & INSN_MEM)
			r = rmw_end(c, &m, 2, v);
		else
			reg_set(c, i->rm, false, 2, v);
		if (r)
			return r;
	}
	flags_set_some(c, FLAG_ZF, raise ? FLAG_ZF : 0);
	return CPU_OK;
}

int sys_swapgs(struct cpu *c, const struct insn *i)
{
	uint64_t base = c->s.seg[SEG_GS].base;
	int r = need_ring0(c);

	if (r)
		return r;
	c->s.seg[SEG_GS].base = c->s.kernel_gs_base;
	c->s.kernel_gs_base = base;
	return CPU_OK;
}

static int base_check(struct cpu *c)
{
	return c->s.cr4 & CR4_FSGSBASE ? CPU_OK : raise_ud(c);
}
int sys_rdbase(struct cpu *c, const struct insn *i)
{
	int r = base_check(c);

	if (r)
		return r;
	reg_set(c, i->rm, false, i->opsize, c->s.seg[i->op == OP_RDFSBASE ? SEG_FS : SEG_GS].base);
	return CPU_OK;
}
int sys_wrbase(struct cpu *c, const struct insn *i)
{
	uint64_t v = reg_get(c, i->rm, false, i->opsize);
	int r = base_check(c);

	if (r)
		return r;
	if (!canonical(c, v))
		return raise_gp0(c);
	c->s.seg[i->op == OP_WRFSBASE ? SEG_FS : SEG_GS].base = v;
	return CPU_OK;
}

/* The address is not accessed: no fault whatever it is. */
int sys_invlpg(struct cpu *c, const struct insn *i)
{
	uint64_t ea = operand_offset(c, i);
	int r = need_ring0(c);

	if (r)
		return r;
	if (i->mode != MODE_64)
		ea = (uint32_t)(ea + c->s.seg[i->seg].base);
	else if (i->seg >= SEG_FS)
		ea += c->s.seg[i->seg].base;
	if (canonical(c, ea))
		tlb_flush_page(c, ea);
	return CPU_BOUNDARY;
}

int sys_invpcid(struct cpu *c, const struct insn *i)
{
	uint64_t type = reg_get(c, i->reg, false, i->mode == MODE_64 ? 8 : 4), d[2];
	int r;

	if (!c->machine->cpuid->has_invpcid)
		return raise_ud(c);
	r = need_ring0(c);
	if (!r)
		r = operand_read(c, i, d, 16);
	if (r)
		return r;
	if (type > 3 || (type < 2 && d[0] >> 12))
		return raise_gp0(c);
	if (type < 2 && !(c->s.cr4 & CR4_PCIDE) && d[0])
		return raise_gp0(c);
	if (type == 0 && !canonical(c, d[1]))
		return raise_gp0(c);
	if (type == 0)
		tlb_flush_page_pcid(c, d[1], (unsigned)d[0]);
	else if (type == 1)
		tlb_flush_pcid(c, (unsigned)d[0], true);
	else
		tlb_flush_all(c);
	return CPU_BOUNDARY;
}

int sys_cpuid(struct cpu *c, const struct insn *i)
{
	uint32_t out[4];

	cpuid_query(c, (uint32_t)c->s.gpr[RAX], (uint32_t)c->s.gpr[RCX], out);
	if (cpu_traces(c, TRACE_cpuid))
		trace_cpuid(c, (uint32_t)c->s.gpr[RAX], (uint32_t)c->s.gpr[RCX], out);
	c->s.gpr[RAX] = out[0];
	c->s.gpr[RBX] = out[1];
	c->s.gpr[RCX] = out[2];
	c->s.gpr[RDX] = out[3];
	return CPU_OK;
}

static int tsc_check(struct cpu *c)
{
	return c->s.cr4 & CR4_TSD && c->s.cpl ? raise_gp0(c) : CPU_OK;
}
static void pair_out(struct cpu *c, uint64_t v)
{
	c->s.gpr[RAX] = (uint32_t)v;
	c->s.gpr[RDX] = v >> 32;
}
int sys_rdtsc(struct cpu *c, const struct insn *i)
{
	int r = tsc_check(c);

	if (!r)
		pair_out(c, cpu_tsc(c));
	return r;
}
int sys_rdtscp(struct cpu *c, const struct insn *i)
{
	int r;

	if (!c->machine->cpuid->has_rdtscp)
		return raise_ud(c);
	r = tsc_check(c);
	if (r)
		return r;
	pair_out(c, cpu_tsc(c));
	c->s.gpr[RCX] = (uint32_t)c->s.tsc_aux;
	return CPU_OK;
}
int sys_rdpid(struct cpu *c, const struct insn *i)
{
	if (!c->machine->cpuid->has_rdtscp)
		return raise_ud(c);
	reg_set(c, i->rm, false, i->mode == MODE_64 ? 8 : 4, (uint32_t)c->s.tsc_aux);
	return CPU_OK;
}
/* No performance counters are offered. */
int sys_rdpmc(struct cpu *c, const struct insn *i)
{
	return raise_gp0(c);
}

int sys_rdmsr(struct cpu *c, const struct insn *i)
{
	uint64_t v;
	int r = need_ring0(c);

	if (!r)
		r = msr_read(c, (uint32_t)c->s.gpr[RCX], &v);
	if (!r)
		pair_out(c, v);
	return r;
}
int sys_wrmsr(struct cpu *c, const struct insn *i)
{
	int r = need_ring0(c);

	if (r)
		return r;
	r = msr_write(c, (uint32_t)c->s.gpr[RCX], c->s.gpr[RDX] << 32 | (uint32_t)c->s.gpr[RAX]);
	return r ? r : CPU_BOUNDARY;
}

int sys_xgetbv(struct cpu *c, const struct insn *i)
{
	uint32_t index = (uint32_t)c->s.gpr[RCX];

	if (!(c->s.cr4 & CR4_OSXSAVE))
		return raise_ud(c);
	if (index > 1)
		return raise_gp0(c);
	pair_out(c, index ? c->s.xcr0 & xsave_in_use(&c->s) : c->s.xcr0);
	return CPU_OK;
}
int sys_xsetbv(struct cpu *c, const struct insn *i)
{
	int r;

	if (!(c->s.cr4 & CR4_OSXSAVE))
		return raise_ud(c);
	r = need_ring0(c);
	if (r)
		return r;
	if ((uint32_t)c->s.gpr[RCX])
		return raise_gp0(c);
	r = xcr0_write(c, c->s.gpr[RDX] << 32 | (uint32_t)c->s.gpr[RAX]);
	return r ? r : CPU_BOUNDARY;
}

int sys_hlt(struct cpu *c, const struct insn *i)
{
	int r = need_ring0(c);

	if (r)
		return r;
	c->s.activity = ACTIVITY_HLT;
	c->stop = STOP_HLT;
	return CPU_STOP;
}

/*
 * MONITOR checks its address and remembers nothing: MWAIT waits for a bounded time instead (which
 * the architecture allows: any event may end it), short enough that a waker's store is seen soon.
 */
#define MWAIT_NS 50000
int sys_monitor(struct cpu *c, const struct insn *i)
{
	uint64_t ea = c->s.gpr[RAX] & size_mask(i->addrsize), v;
	gva_t at = ea;
	int r;

	if (c->s.cpl)
		return raise_ud(c);
	if ((uint32_t)c->s.gpr[RCX])
		return raise_gp0(c);
	if (i->mode != MODE_64) {
		r = seg_linear(c, (enum x86_seg)i->seg, ea, 1, false, &at);
		if (r)
			return r;
	} else if (i->seg >= SEG_FS) {
		at += c->s.seg[i->seg].base;
	}
	return linear_load(c, at, 1, &v);
}
int sys_mwait(struct cpu *c, const struct insn *i)
{
	struct timespec wait = { .tv_nsec = MWAIT_NS };

	if (c->s.cpl)
		return raise_ud(c);
	if ((uint32_t)c->s.gpr[RCX] & ~1u)
		return raise_gp0(c);
	if (!atomic_load_explicit(&c->attention, memory_order_relaxed) &&
	    !event_interrupt_waiting(c))
		nanosleep(&wait, NULL);
	return CPU_BOUNDARY;
}

int sys_wbinvd(struct cpu *c, const struct insn *i)
{
	return need_ring0(c);
}

int sys_hypercall(struct cpu *c, const struct insn *i)
{
	return pv_hypercall(c);
}
