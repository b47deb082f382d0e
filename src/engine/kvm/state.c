/* SPDX-License-Identifier: Apache-2.0 */
/*
 * struct x86_state to KVM's structures and back. Segments, tables and control registers go through SREGS, vectors and
 * x87 through the XSAVE area in its standard format, the rest through MSRs, debug registers and events. An
 * event that KVM had begun to deliver when it came back (a page of the guest's stack was MMIO, say) is delivered by
 * x86/event.c, so that the struct never holds a half-delivered one.
 */
#include <cpuid.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include "engine/kvm/kvm.h"
#include "x86/event.h"
#include "x86/pv.h"
#include "x86/segment.h"

#define XSTATE_X87 BIT(0)
#define XSTATE_SSE BIT(1)
#define XSTATE_AVX BIT(2)
#define XSTATE_OPMASK BIT(5)
#define XSTATE_ZMM_HIGH BIT(6)
#define XSTATE_HIGH_ZMM BIT(7)
#define XSTATE_OURS (XSTATE_X87 | XSTATE_SSE | XSTATE_AVX | XSTATE_OPMASK | XSTATE_ZMM_HIGH | XSTATE_HIGH_ZMM)

/* MSRs that are plain members of x86_state and kept by KVM while it runs. The TSC goes separately: it moves. */
#define M(index, member) { index, offsetof(struct x86_state, member) }
static const struct {
	uint32_t index;
	uint32_t offset;
} msr_fields[] = {
	M(0xc0000081, star), M(0xc0000082, lstar), M(0xc0000083, cstar), M(0xc0000084, sfmask),
	M(0xc0000102, kernel_gs_base), M(0xc0000103, tsc_aux), M(0x174, sysenter_cs), M(0x175, sysenter_esp),
	M(0x176, sysenter_eip), M(0x277, pat), M(0x1a0, misc_enable), M(0x48, spec_ctrl),
	M(0xda0, xss), M(0x2ff, mtrr_def_type), M(0x250, mtrr_fixed[0]), M(0x258, mtrr_fixed[1]),
	M(0x259, mtrr_fixed[2]), M(0x268, mtrr_fixed[3]), M(0x269, mtrr_fixed[4]), M(0x26a, mtrr_fixed[5]),
	M(0x26b, mtrr_fixed[6]), M(0x26c, mtrr_fixed[7]), M(0x26d, mtrr_fixed[8]), M(0x26e, mtrr_fixed[9]),
	M(0x26f, mtrr_fixed[10]), M(0x200, mtrr_base[0]), M(0x201, mtrr_mask[0]), M(0x202, mtrr_base[1]),
	M(0x203, mtrr_mask[1]), M(0x204, mtrr_base[2]), M(0x205, mtrr_mask[2]), M(0x206, mtrr_base[3]),
	M(0x207, mtrr_mask[3]), M(0x208, mtrr_base[4]), M(0x209, mtrr_mask[4]), M(0x20a, mtrr_base[5]),
	M(0x20b, mtrr_mask[5]), M(0x20c, mtrr_base[6]), M(0x20d, mtrr_mask[6]), M(0x20e, mtrr_base[7]),
	M(0x20f, mtrr_mask[7]), M(0x17a, mcg_status),
};
#undef M

struct msr_batch { /* struct kvm_msrs with its entries */
	uint32_t nmsrs, pad;
	struct kvm_msr_entry entry[ARRAY_LEN(msr_fields)];
};
_Static_assert(offsetof(struct msr_batch, entry) == sizeof(struct kvm_msrs), "as the kernel has it");

static bool msr_known(const struct kvm_vm *vm, uint32_t index)
{
	for (unsigned i = 0; i < vm->nmsrs; i++)
		if (vm->msrs[i] == index)
			return true;
	/* MTRRs are served but not listed by every KVM */
	return index >= 0x200 && index <= 0x2ff;
}

int kvm_state_probe(struct kvm_vm *vm, struct err *e)
{
	struct kvm_msr_list probe = { .nmsrs = 0 }, *list;
	uint32_t a, b, c, d;

	ioctl(vm->dev_fd, KVM_GET_MSR_INDEX_LIST, &probe); /* fails with E2BIG and says how many */
	list = calloc(1, sizeof(*list) + probe.nmsrs * sizeof(uint32_t));
	vm->msrs = calloc(probe.nmsrs + 1, sizeof(uint32_t));
	if (!list || !vm->msrs) {
		free(list);
		return err_set(e, ENOMEM, "no memory for the list of MSRs");
	}
	list->nmsrs = probe.nmsrs;
	if (ioctl(vm->dev_fd, KVM_GET_MSR_INDEX_LIST, list) < 0) {
		free(list);
		return err_errno(e, "KVM_GET_MSR_INDEX_LIST");
	}
	vm->nmsrs = MIN(list->nmsrs, probe.nmsrs);
	memcpy(vm->msrs, list->indices, vm->nmsrs * sizeof(uint32_t));
	free(list);
	for (unsigned i = 2; i < ARRAY_LEN(vm->xsave_offset); i++)
		if (__get_cpuid_count(0xd, i, &a, &b, &c, &d) && a && b + a <= sizeof(struct kvm_xsave))
			vm->xsave_offset[i] = b;
	return 0;
}

static struct kvm_segment segment_out(const struct x86_segment *s)
{
	return (struct kvm_segment){
		.base = s->base,
		.limit = s->limit,
		.selector = s->selector,
		.type = s->attr & SEG_ATTR_TYPE,
		.s = !!(s->attr & SEG_ATTR_S),
		.dpl = (s->attr & SEG_ATTR_DPL) >> SEG_ATTR_DPL_SHIFT,
		.present = !!(s->attr & SEG_ATTR_P),
		.avl = !!(s->attr & SEG_ATTR_AVL),
		.l = !!(s->attr & SEG_ATTR_L),
		.db = !!(s->attr & SEG_ATTR_DB),
		.g = !!(s->attr & SEG_ATTR_G),
		.unusable = !(s->attr & SEG_ATTR_P),
	};
}

static struct x86_segment segment_in(const struct kvm_segment *k)
{
	struct x86_segment s = { .base = k->base, .limit = k->limit, .selector = k->selector };

	s.attr = (uint16_t)(k->type | k->s << 4 | k->dpl << SEG_ATTR_DPL_SHIFT | (k->present && !k->unusable) << 7 |
			    k->avl << 12 | k->l << 13 | k->db << 14 | k->g << 15);
	return s;
}

static void sregs_out(const struct x86_state *s, struct kvm_sregs *k, uint64_t cr8)
{
	struct kvm_segment *seg[] = { &k->es, &k->cs, &k->ss, &k->ds, &k->fs, &k->gs, &k->ldt, &k->tr };

	for (unsigned i = 0; i < SEG_COUNT; i++)
		*seg[i] = segment_out(&s->seg[i]);
	/* The CPU takes its privilege from SS.DPL. */
	k->ss.dpl = s->cpl;
	k->gdt = (struct kvm_dtable){ .base = s->gdtr.base, .limit = s->gdtr.limit };
	k->idt = (struct kvm_dtable){ .base = s->idtr.base, .limit = s->idtr.limit };
	k->cr0 = s->cr0;
	k->cr2 = s->cr2;
	k->cr3 = s->cr3;
	k->cr4 = s->cr4;
	k->cr8 = cr8;
	k->efer = s->efer;
	memset(k->interrupt_bitmap, 0, sizeof(k->interrupt_bitmap));
}

static void sregs_in(const struct kvm_sregs *k, struct x86_state *s)
{
	const struct kvm_segment *seg[] = { &k->es, &k->cs, &k->ss, &k->ds, &k->fs, &k->gs, &k->ldt, &k->tr };

	for (unsigned i = 0; i < SEG_COUNT; i++)
		s->seg[i] = segment_in(seg[i]);
	s->cpl = k->ss.dpl;
	s->gdtr = (struct x86_dtable){ .base = k->gdt.base, .limit = k->gdt.limit };
	s->idtr = (struct x86_dtable){ .base = k->idt.base, .limit = k->idt.limit };
	s->cr0 = k->cr0;
	s->cr2 = k->cr2;
	s->cr3 = k->cr3;
	s->cr4 = k->cr4;
	s->efer = k->efer;
}

/* KVM's register names in our order */
#define GPRS(X) \
	X(RAX, rax) X(RCX, rcx) X(RDX, rdx) X(RBX, rbx) X(RSP, rsp) X(RBP, rbp) X(RSI, rsi) X(RDI, rdi) \
	X(R8, r8) X(R9, r9) X(R10, r10) X(R11, r11) X(R12, r12) X(R13, r13) X(R14, r14) X(R15, r15)

static void regs_out(const struct x86_state *s, struct kvm_regs *k)
{
#define X(n, m) k->m = s->gpr[n];
	GPRS(X)
#undef X
	k->rip = s->rip;
	k->rflags = s->rflags;
}

static void regs_in(const struct kvm_regs *k, struct x86_state *s)
{
#define X(n, m) s->gpr[n] = k->m;
	GPRS(X)
#undef X
	s->rip = k->rip;
	s->rflags = k->rflags;
}

/* The FXSAVE part: x87 registers by stack order, XMM, control words. */
static void legacy_out(const struct x86_state *s, uint8_t *a)
{
	const struct x86_fpu *f = &s->fpu;
	unsigned top = f->sw >> 11 & 7;

	memcpy(a, &f->cw, 2);
	memcpy(a + 2, &f->sw, 2);
	a[4] = f->tag;
	memcpy(a + 6, &f->opcode, 2);
	memcpy(a + 8, &f->ip, 8);
	memcpy(a + 16, &f->dp, 8);
	memcpy(a + 24, &s->mxcsr, 4);
	for (unsigned i = 0; i < 8; i++) {
		memcpy(a + 32 + 16 * i, &f->reg[(top + i) & 7].mantissa, 8);
		memcpy(a + 40 + 16 * i, &f->reg[(top + i) & 7].exponent, 2);
	}
	for (unsigned i = 0; i < 16; i++)
		memcpy(a + 160 + 16 * i, &s->v[i], 16);
}

static void legacy_in(const uint8_t *a, struct x86_state *s)
{
	struct x86_fpu *f = &s->fpu;
	unsigned top;

	memcpy(&f->cw, a, 2);
	memcpy(&f->sw, a + 2, 2);
	f->tag = a[4];
	memcpy(&f->opcode, a + 6, 2);
	memcpy(&f->ip, a + 8, 8);
	memcpy(&f->dp, a + 16, 8);
	memcpy(&s->mxcsr, a + 24, 4);
	top = f->sw >> 11 & 7;
	for (unsigned i = 0; i < 8; i++) {
		memcpy(&f->reg[(top + i) & 7].mantissa, a + 32 + 16 * i, 8);
		memcpy(&f->reg[(top + i) & 7].exponent, a + 40 + 16 * i, 2);
	}
	for (unsigned i = 0; i < 16; i++)
		memcpy(&s->v[i], a + 160 + 16 * i, 16);
}

/* One of the vector components: count registers' bytes [at, at+size) each. */
struct component {
	unsigned index, first, count, at, size;
};
static const struct component components[] = {
	{ 2, 0, 16, 16, 16 },  /* AVX: upper halves of YMM */
	{ 6, 0, 16, 32, 32 },  /* upper halves of ZMM0-15 */
	{ 7, 16, 16, 0, 64 }, /* ZMM16-31 */
};

static void xsave_out(const struct kvm_vm *vm, const struct x86_state *s, struct kvm_xsave *x)
{
	uint8_t *a = (uint8_t *)x->region;
	uint64_t present = XSTATE_X87 | XSTATE_SSE;

	memset(x, 0, sizeof(*x));
	legacy_out(s, a);
	for (unsigned i = 0; i < ARRAY_LEN(components); i++) {
		const struct component *p = &components[i];

		if (!vm->xsave_offset[p->index] || !(s->xcr0 & BIT(p->index)))
			continue;
		present |= BIT(p->index);
		for (unsigned n = 0; n < p->count; n++)
			memcpy(a + vm->xsave_offset[p->index] + n * p->size, s->v[p->first + n].b + p->at, p->size);
	}
	if (vm->xsave_offset[5] && (s->xcr0 & XSTATE_OPMASK)) {
		present |= XSTATE_OPMASK;
		memcpy(a + vm->xsave_offset[5], s->k, sizeof(s->k));
	}
	memcpy(a + 512, &present, 8);
}

static void xsave_in(const struct kvm_vm *vm, const struct kvm_xsave *x, struct x86_state *s)
{
	const uint8_t *a = (const uint8_t *)x->region;
	uint64_t present;

	memcpy(&present, a + 512, 8);
	legacy_in(a, s); /* KVM fills the legacy part with the initial values when a component is not present */
	for (unsigned i = 0; i < ARRAY_LEN(components); i++) {
		const struct component *p = &components[i];

		for (unsigned n = 0; n < p->count; n++)
			if (vm->xsave_offset[p->index] && (present & BIT(p->index)))
				memcpy(s->v[p->first + n].b + p->at, a + vm->xsave_offset[p->index] + n * p->size, p->size);
			else
				memset(s->v[p->first + n].b + p->at, 0, p->size);
	}
	if (vm->xsave_offset[5] && (present & XSTATE_OPMASK))
		memcpy(s->k, a + vm->xsave_offset[5], sizeof(s->k));
	else
		memset(s->k, 0, sizeof(s->k));
}

static int msrs_load(struct kvm_cpu *k, struct cpu *c, struct err *e)
{
	struct msr_batch b = { 0 };
	int done;

	for (unsigned i = 0; i < ARRAY_LEN(msr_fields); i++) {
		struct kvm_msr_entry m = { .index = msr_fields[i].index };

		memcpy(&m.data, (const char *)&c->s + msr_fields[i].offset, 8);
		if (msr_known(k->vm, m.index))
			b.entry[b.nmsrs++] = m;
	}
	done = ioctl(k->fd, KVM_SET_MSRS, &b);
	if (done == (int)b.nmsrs)
		return 0;
	/* KVM stops at the first it refuses; that matters only when the value means anything. */
	for (unsigned i = done < 0 ? 0 : (unsigned)done; i < b.nmsrs; i++) {
		struct msr_batch one = { .nmsrs = 1, .entry[0] = b.entry[i] };

		if (ioctl(k->fd, KVM_SET_MSRS, &one) != 1 && b.entry[i].data)
			return err_set(e, EINVAL, "this host's KVM refuses MSR 0x%x = 0x%llx", b.entry[i].index,
				       b.entry[i].data);
	}
	return 0;
}

static int msrs_store(struct kvm_cpu *k, struct cpu *c, struct err *e)
{
	for (unsigned i = 0; i < ARRAY_LEN(msr_fields); i++) {
		struct msr_batch one = { .nmsrs = 1, .entry[0].index = msr_fields[i].index };

		if (!msr_known(k->vm, msr_fields[i].index))
			continue;
		if (ioctl(k->fd, KVM_GET_MSRS, &one) == 1)
			memcpy((char *)&c->s + msr_fields[i].offset, &one.entry[0].data, 8);
	}
	return 0;
}

/* Says nothing wrong, does nothing: seen with a KVM that executes guests in software. */
void kvm_tsc_probe(struct kvm_cpu *k)
{
	int64_t offset = 1ll << 60;
	struct kvm_device_attr attr = { .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET,
					.addr = (uintptr_t)&offset };
	struct msr_batch now = { .nmsrs = 1, .entry[0] = { .index = MSR_TSC, .data = 1ull << 60 } };
	int r;

	k->vm->tsc_by_offset = ioctl(k->fd, KVM_HAS_DEVICE_ATTR, &attr) == 0;
	r = k->vm->tsc_by_offset ? ioctl(k->fd, KVM_SET_DEVICE_ATTR, &attr) : ioctl(k->fd, KVM_SET_MSRS, &now);
	if (r < 0 || ioctl(k->fd, KVM_GET_MSRS, &now) != 1)
		return;
	k->vm->tsc_fixed = now.entry[0].data < 1ull << 59;
}

/*
 * The guest's TSC is the machine's clock plus cpu->s.tsc_offset, here as everywhere: KVM is told, never asked. Where it takes the
 * offset to the host's counter, that is exact; else the value is set, which KVM may round to what another CPU was given.
 */
int kvm_tsc_load(struct cpu *c, struct err *e)
{
	struct kvm_cpu *k = c->engine_data;
	int64_t offset = clock_tsc_host_offset(c->machine->clock) + c->s.tsc_offset;
	struct kvm_device_attr attr = { .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET,
					.addr = (uintptr_t)&offset };
	struct msr_batch value = { .nmsrs = 1, .entry[0].index = MSR_TSC };

	if (!k->tsc_stale && offset == k->tsc_offset)
		return 0;
	if (k->vm->tsc_fixed) { /* then it is the guest that jumps; its clock page is right again at once */
		k->tsc_stale = false;
		k->tsc_offset = 0;
		c->s.tsc_offset = -clock_tsc_host_offset(c->machine->clock);
		pv_system_time_update(c);
		return 0;
	}
	value.entry[0].data = cpu_tsc(c);
	if (k->vm->tsc_by_offset ? ioctl(k->fd, KVM_SET_DEVICE_ATTR, &attr) < 0 : ioctl(k->fd, KVM_SET_MSRS, &value) != 1)
		return err_errno(e, "setting the TSC of vCPU %u", c->id);
	k->tsc_offset = offset;
	k->tsc_stale = false;
	if (k->vm->split && !k->lapic_dirty)
		kvm_lapic_deadline_again(k);
	return 0;
}

int kvm_state_load(struct cpu *c, struct err *e)
{
	struct kvm_cpu *k = c->engine_data;
	struct x86_state *s = &c->s;
	struct kvm_regs regs;
	struct kvm_sregs sregs = { 0 };
	struct kvm_xsave xsave;
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0] = { .xcr = 0, .value = s->xcr0 } };
	struct kvm_debugregs dr = { .db = { s->dr[0], s->dr[1], s->dr[2], s->dr[3] }, .dr6 = s->dr[6], .dr7 = s->dr[7] };
	struct kvm_mp_state mp = { .mp_state = kvm_mp_state(c) };
	struct kvm_vcpu_events ev = { .flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW };

	if (ioctl(k->fd, KVM_GET_SREGS, &sregs) < 0) /* for apic_base, which is not ours to change */
		return err_errno(e, "KVM_GET_SREGS");
	regs_out(s, &regs);
	sregs_out(s, &sregs, k->vm->split ? sregs.cr8 : c->bus ? c->bus->cr8_read(c->ctx) : 0);
	xsave_out(k->vm, s, &xsave);
	ev.interrupt.shadow = s->shadow & SHADOW_MOVSS ? KVM_X86_SHADOW_INT_MOV_SS :
			      s->shadow & SHADOW_STI   ? KVM_X86_SHADOW_INT_STI :
							 0;
	ev.nmi.masked = s->nmi_mask;
	if (ioctl(k->fd, KVM_SET_SREGS, &sregs) < 0)
		return err_errno(e, "KVM_SET_SREGS");
	if (ioctl(k->fd, KVM_SET_REGS, &regs) < 0)
		return err_errno(e, "KVM_SET_REGS");
	if (s->xcr0 && ioctl(k->fd, KVM_SET_XCRS, &xcrs) < 0)
		return err_errno(e, "KVM_SET_XCRS: XCR0 0x%llx", (unsigned long long)s->xcr0);
	if (ioctl(k->fd, KVM_SET_XSAVE, &xsave) < 0)
		return err_errno(e, "KVM_SET_XSAVE");
	if (ioctl(k->fd, KVM_SET_DEBUGREGS, &dr) < 0)
		return err_errno(e, "KVM_SET_DEBUGREGS");
	if (ioctl(k->fd, KVM_SET_VCPU_EVENTS, &ev) < 0)
		return err_errno(e, "KVM_SET_VCPU_EVENTS");
	if (k->vm->split && ioctl(k->fd, KVM_SET_MP_STATE, &mp) < 0)
		return err_errno(e, "KVM_SET_MP_STATE");
	k->mp_state = mp.mp_state;
	return msrs_load(k, c, e);
}

/* An event underway goes through the guest's IDT here, so that none is lost and none is saved half done. */
static void event_finish(struct cpu *c, const struct kvm_vcpu_events *ev)
{
	tlb_flush_all(c);
	tlb_select(c);
	if (ev->exception.injected || ev->exception.pending) {
		c->fault = (struct cpu_fault){ .vector = ev->exception.nr,
					       .has_error = ev->exception.has_error_code,
					       .error = ev->exception.error_code,
					       .cr2 = c->s.cr2 };
		event_deliver_fault(c);
	}
	if (ev->interrupt.injected)
		event_deliver_interrupt(c, ev->interrupt.nr);
	if (ev->nmi.injected)
		event_deliver_nmi(c);
	if (ev->nmi.pending)
		cpu_notify(c, ATT_NMI);
}

int kvm_state_store(struct cpu *c, struct err *e)
{
	struct kvm_cpu *k = c->engine_data;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_xsave xsave;
	struct kvm_xcrs xcrs;
	struct kvm_debugregs dr;
	struct kvm_vcpu_events ev;
	int r = k->vm->split ? kvm_mp_state_store(c, e) : 0;

	if (r)
		return r;
	if (ioctl(k->fd, KVM_GET_REGS, &regs) < 0 || ioctl(k->fd, KVM_GET_SREGS, &sregs) < 0 ||
	    ioctl(k->fd, KVM_GET_XSAVE, &xsave) < 0 || ioctl(k->fd, KVM_GET_XCRS, &xcrs) < 0 ||
	    ioctl(k->fd, KVM_GET_DEBUGREGS, &dr) < 0 || ioctl(k->fd, KVM_GET_VCPU_EVENTS, &ev) < 0)
		return err_errno(e, "reading the state of vCPU %u", c->id);
	regs_in(&regs, &c->s);
	sregs_in(&sregs, &c->s);
	xsave_in(k->vm, &xsave, &c->s);
	for (unsigned i = 0; i < xcrs.nr_xcrs && i < ARRAY_LEN(xcrs.xcrs); i++)
		if (xcrs.xcrs[i].xcr == 0)
			c->s.xcr0 = xcrs.xcrs[i].value;
	for (unsigned i = 0; i < 4; i++)
		c->s.dr[i] = dr.db[i];
	c->s.dr[6] = dr.dr6;
	c->s.dr[7] = dr.dr7;
	c->s.shadow = ev.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ? SHADOW_MOVSS :
		      ev.interrupt.shadow & KVM_X86_SHADOW_INT_STI    ? SHADOW_STI :
									 SHADOW_NONE;
	c->s.nmi_mask = ev.nmi.masked;
	r = msrs_store(k, c, e);
	if (r)
		return r;
	event_finish(c, &ev);
	kvm_lapic_fetch(c);
	return 0;
}
