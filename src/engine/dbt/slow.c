/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where translated code goes when its inline way does not do: TLB misses, and whole instructions through the interpreter.
 * Built with general registers only, and careful to save the guest's vector and x87 registers before calling what is not.
 */
#include "engine/dbt/quick.h"
#include "engine/dbt/translate.h"
#include "x86/event.h"
#include "x86/tlb-fill.h"

static uint64_t leave(struct cpu *c, enum dbt_exit why)
{
	dbt_hot(c)->exit_code = why;
	return 0;
}

/* The instruction decoded, from a small cache: guest code of a live block has not changed since its translation. */
static unsigned insn_slot(const struct block *b, unsigned idx)
{
	return (unsigned)((uintptr_t)b / 64 + idx * 7) % INSN_CACHE;
}

static const struct insn *insn_of(struct dbt_cpu *dc, const struct block *b, unsigned idx)
{
	unsigned n = insn_slot(b, idx);
	uint64_t rip = block_rip(b, idx);

	if (dc->insns[n].serial != b->serial || dc->insns[n].rip != rip) {
		unsigned at = (unsigned)(rip & 0xfff);

		bool straddles = b->page2 != NO_PAGE;

		if (insn_decode(&dc->insns[n].insn, straddles ? b->bytes : b->code + at,
				straddles ? MAX_INSN : 4096 - at, mode_insns(b->mode)) != INSN_OK)
			return NULL;
		interp_bind(&dc->insns[n].insn);
		dc->insns[n].serial = b->serial;
		dc->insns[n].rip = rip;
	}
	return &dc->insns[n].insn;
}

/* The same with the guest's vector registers in the host's: decoding may use those. */
static const struct insn *insn_of_live(struct cpu *c, const struct block *b, unsigned idx)
{
	struct dbt_cpu *dc = dbt_cpu(c);
	unsigned n = insn_slot(b, idx);
	const struct insn *i = &dc->insns[n].insn;

	if (unlikely(dc->insns[n].serial != b->serial || dc->insns[n].rip != block_rip(b, idx))) {
		struct fp_was was = fp_put_by(c);

		i = insn_of(dc, b, idx);
		fp_take_up(c, was);
	}
	return i;
}

/* Translated code is to go on with instruction idx: unless there has been a kick. */
static uint64_t resume_at(struct cpu *c, const struct block *b, unsigned idx)
{
	struct dbt_watch *w = dbt_cpu(c)->d->watch;

	if (unlikely(w)) {
		w->at = idx;
		dbt_hot(c)->exit_arg = 0;
	}
	return (uint64_t)(uintptr_t)dbt_exec(dbt_cpu(c)->d, b->map[idx].host);
}

/* After an instruction of 32-bit code. A segment register loaded: does the block's mode still hold? */
static int settle_32(struct cpu *c, const struct block *b, const struct insn *i, int r)
{
	bool loads = (i->op == OP_MOV_SREG && i->form == FORM_REG_RM) || i->op == OP_POP_SREG || (i->op >= OP_LDS && i->op <= OP_LSS);

	if (!x86_64bit(&c->s)) /* an interrupt gate may have led there */
		gpr_narrow(c);
	if (!loads || (r != CPU_OK && r != CPU_BOUNDARY))
		return r;
	return c->s.shadow || mode_of(c) != b->mode ? CPU_BOUNDARY : CPU_OK;
}

static uint64_t slow_interp(struct cpu *c, const struct block *b, unsigned idx)
{
	struct dbt_cpu *dc = dbt_cpu(c);
	struct dbt_hot *h = dbt_hot(c);
	struct fp_was was = fp_put_by(c);
	const struct insn *i = insn_of(dc, b, idx);
	struct dbt_watch *watch = dc->d->watch;
	bool goes_on;
	int r;

	dc->counters.interp_helpers++;
	if (!i) /* just been overwritten */
		return leave(c, EXIT_STEP);
	dc->helped[i->op]++;
	c->s.rflags = flags_from_m(c->s.rflags, h->flags);
	if (unlikely(watch))
		watch->helper(c, b, idx, i);
	dc->calling = true;
	r = interp_exec(c, i);
	dc->calling = false;
	if (mode_32bit(b->mode))
		r = settle_32(c, b, i, r);
	h->flags = flags_to_m(c->s.rflags);
	goes_on = r == CPU_OK && i->class != CLASS_FAR && i->op != OP_HLT && !b->dead && i->class != CLASS_BRANCH;
	if (unlikely(watch))
		watch->helped(c, b, idx, goes_on);
	if (!(c->s.rflags & FLAG_IF) && (i->class == CLASS_SYSTEM || i->flags & INSN_MEM))
		h->irq_check = 1; /* an end of interrupt, a priority: look again before interrupts are let in */
	switch (r) {
	case CPU_OK:
		break;
	case CPU_FAULT:
		return leave(c, EXIT_FAULT);
	case CPU_STOP:
		return leave(c, EXIT_STOP);
	default:
		return leave(c, EXIT_BOUNDARY);
	}
	if (i->class == CLASS_FAR || i->op == OP_HLT)
		return leave(c, EXIT_BOUNDARY);
	if (b->dead || i->class == CLASS_BRANCH)
		return leave(c, EXIT_LOOKUP);
	fp_take_up(c, was);
	return resume_at(c, b, idx + 1);
}

/* The way without putting registers by, else the usual one. */
static uint64_t slow_quick(struct cpu *c, const struct block *b, unsigned idx, uint64_t ea, enum quick_kind kind)
{
	const struct insn *i = insn_of_live(c, b, idx);
	enum quick_result done = QUICK_NOT;

	if (!i || dbt_cpu(c)->d->watch)
		return slow_interp(c, b, idx);
	switch (kind) {
	case QUICK_XSAVE:
		done = quick_xsave(c, i, ea) ? QUICK_DONE : QUICK_NOT;
		break;
	case QUICK_XRSTOR:
		done = quick_xrstor(c, i, ea) ? QUICK_DONE : QUICK_NOT;
		break;
	case QUICK_WRMSR:
		done = quick_wrmsr(c);
		break;
	case QUICK_INVLPG:
		done = quick_invlpg(c, mode_32bit(b->mode) ? (uint32_t)ea : ea);
		break;
	}
	if (done == QUICK_NOT)
		return slow_interp(c, b, idx);
	c->s.rip += i->len;
	if (done == QUICK_LEAVE || b->dead)
		return leave(c, EXIT_BOUNDARY);
	if (done == QUICK_DONE)
		return resume_at(c, b, idx + 1);
	c->s.rflags = flags_from_m(c->s.rflags, dbt_hot(c)->flags);
	dbt_cpu(c)->elsewhere = true;
	return far_go_on(c);
}

/* Make the inline check succeed. Not CPU_OK: it cannot, or (CPU_FAULT) the access faults. */
static int fill(struct cpu *c, uint32_t mode, uint64_t ea, unsigned size, bool write, bool low)
{
	int r;

	gpa_t where;

	if ((mode_32bit(mode) && ea > UINT32_MAX) || (ea & 0xfff) > 4096 - size || (uint64_t)((int64_t)(ea << 16) >> 16) != ea)
		return TLB_NOT_MEMORY;
	if (low && tlb_low(c, ea, write))
		return CPU_OK;
	r = tlb_fill(c, ea, write ? ACCESS_WRITE : ACCESS_READ, c->tlb.mode, &where);
	if (low && r == CPU_OK)
		tlb_low(c, ea, write);
	return r;
}

/* Does it make all of its access, and raises nothing else first? What the interpreter is to find out: false. */
static bool faults_plainly(struct cpu *c, const struct block *b, unsigned idx, uint64_t ea, unsigned size)
{
	const struct insn *i = insn_of_live(c, b, idx);

	if (!i || i->class == CLASS_X87 || i->flags & (INSN_MMX | INSN_VSIB) || (size >= 16 && ea & (size - 1)))
		return false;
	switch (i->op) {
	case OP_MASKMOVDQU:
	case OP_MASKMOVQ:
	case OP_VMASKMOVDQU:
	case OP_VMASKMOVPS:
	case OP_VMASKMOVPD:
	case OP_VPMASKMOVD:
	case OP_VPMASKMOVQ:
		return false;
	default:
		return !insn_masked(i);
	}
}

/*
 * cpu->fault is that of the only access which the instruction makes there, none of it has happened: to the handler, with the vector
 * registers where they are. False: not done.
 */
static bool slow_fault(struct cpu *c, const struct block *b, unsigned idx, uint64_t ea, unsigned size, uint64_t *resume)
{
	const struct cpu_fault f = c->fault;
	struct dbt_cpu *dc = dbt_cpu(c);

	if (dc->d->watch || !faults_plainly(c, b, idx, ea, size))
		return false;
	c->fault = f;
	c->s.rflags = flags_from_m(c->s.rflags, dbt_hot(c)->flags);
	if (!event_fault_quick(c))
		return false;
	dc->counters.quick_faults++;
	dc->elsewhere = true;
	*resume = far_go_on(c);
	return true;
}

/* Where the guest's page may be read; fill: or make it so. */
static const uint64_t *page_read(struct cpu *c, uint64_t page, bool fill)
{
	const struct tlb_table *t = c->tlb.data;
	unsigned i = tlb_index(t, page);
	gpa_t where;

	if ((uint64_t)((int64_t)(page << 16) >> 16) != page)
		return NULL;
	if (t->read_tag[i] != page && (!fill || t == c->tlb.none || tlb_fill(c, page, ACCESS_READ, c->tlb.mode, &where)))
		return NULL;
	return (const uint64_t *)(uintptr_t)(page + t->addend[i]);
}

/*
 * A load that crosses a page: from a copy of both pages' ends, laid out as the guest has them (alignment is the instruction's
 * business). The instruction goes on behind its check with an addend that leads there. Copies of unaligned blocks do this at
 * every page; through the interpreter it took 100 ns, most of it for the vector registers. What may leave out parts must not have
 * pages walked to (and marked) for their sake: both are in the TLB, or the interpreter sees to it. In 32-bit code an address that has
 * not been wrapped, or wraps within the operand, is the interpreter's.
 */
static uint64_t read_split(struct cpu *c, const struct block *b, unsigned idx, uint64_t ea, bool fill)
{
	struct dbt_hot *h = dbt_hot(c);
	const struct dbt *d = dbt_cpu(c)->d;
	uint64_t second = (ea | 0xfff) + 1;
	const uint64_t *from[2];

	if (b->nswaps || d->watch || !b->map[idx].behind)
		return 0;
	if (mode_32bit(b->mode) && (ea > UINT32_MAX || second > UINT32_MAX))
		return 0;
	from[0] = page_read(c, ea & ~0xfffull, fill);
	from[1] = page_read(c, second, fill);
	if (!from[0] || !from[1])
		return 0;
	for (unsigned n = 0; n < 8; n++) {
		h->split[n] = __atomic_load_n(&from[0][504 + n], __ATOMIC_RELAXED);
		h->split[8 + n] = __atomic_load_n(&from[1][n], __ATOMIC_RELAXED);
	}
	h->s1 = (uintptr_t)&h->split[8] - second;
	dbt_cpu(c)->counters.split_reads++;
	return (uint64_t)(uintptr_t)dbt_exec(d, b->map[idx].host + b->map[idx].behind);
}

/* The block goes on as if they had been loaded for this instruction. */
static void fp_assume(struct fp_was *was, const struct insn *i)
{
	was->vec |= i && i->class == CLASS_VECTOR;
	was->x87 |= i && (i->class == CLASS_X87 || i->flags & INSN_MMX);
}

/* An instruction that must not be tried again after a look at hot->kick. */
static uint64_t slow_once(struct cpu *c, const struct block *b, unsigned idx)
{
	struct fp_was was = fp_put_by(c);
	const struct insn *i = insn_of(dbt_cpu(c), b, idx);
	uint64_t resume = slow_interp(c, b, idx);

	fp_assume(&was, i);
	if (resume)
		fp_take_up(c, was);
	return resume;
}

/* After so many the block is made again without runs: a walk over small structures crosses a page now and then. */
#define CROSSINGS 32u

static void crossed(struct cpu *c, struct block *b)
{
	struct dbt *d = dbt_cpu(c)->d;
	unsigned bit = stepwise_bit(b->page, b->va);

	if (__atomic_add_fetch(&b->crossings, 1, __ATOMIC_RELAXED) != CROSSINGS)
		return;
	pthread_mutex_lock(&d->lock);
	d->stepwise[bit / 64] |= BIT(bit % 64);
	block_kill(d, b);
	pthread_mutex_unlock(&d->lock);
}

/* The accesses of a run are not in one page, or not all in plain memory: one by one. */
static uint64_t slow_run(struct cpu *c, struct block *b, unsigned idx, uint64_t ea, const struct run *r)
{
	struct fp_was was = fp_put_by(c);
	uint64_t resume = 0;

	if ((ea & 0xfff) > 4096u - r->span)
		crossed(c, b);
	for (unsigned n = idx; n < r->end; n++) {
		const struct insn *i = insn_of(dbt_cpu(c), b, n);

		if (n > idx && i && i->class == CLASS_BRANCH) { /* may lead elsewhere: a block of its own */
			c->s.rip = block_rip(b, n);
			if (likely(!dbt_cpu(c)->d->watch))
				return leave(c, EXIT_LOOKUP);
			resume_at(c, b, n); /* says where we are, also if a stretch began just here */
			return leave(c, EXIT_KICK);
		}
		resume = slow_interp(c, b, n);
		if (!resume)
			return 0;
		fp_assume(&was, i);
	}
	fp_take_up(c, was);
	return resume;
}

static void load_fp(struct cpu *c, unsigned what)
{
	if (what & 1 && !dbt_hot(c)->vec_live)
		fp_load_vec(c);
	if (what & 2 && !dbt_hot(c)->x87_live)
		fp_load_x87(c);
}

static uint64_t slow(struct cpu *c, uint64_t ea, uint64_t param)
{
	static const uint8_t low_of[16] = { SLOW_READ, SLOW_WRITE, SLOW_MASKED, SLOW_INTERP };
	struct block *b = (struct block *)(uintptr_t)(param & 0xffffffffffffull);
	unsigned idx = param >> 48 & 0xff, kind = param >> 56 & 15, code = (unsigned)(param >> 60);
	unsigned size = code == 7 ? 10 : 1u << code;
	struct dbt_cpu *dc = dbt_cpu(c);
	uint64_t resume;
	bool once, low = kind >= SLOW_READ_LOW;
	int r;

	if (low)
		kind = low_of[kind - SLOW_READ_LOW];

	c->s.rip = block_rip(b, idx);
	/* behind STI a kick must not be answered before this instruction: it is not tried again */
	once = b->map[idx].shadowed;
	if (kind == SLOW_FAR) {
		if (far_quick(c, (enum far_kind)(code & 3), c->s.rip + 2 + (code >> 2), ea, &resume))
			return resume;
		return slow_interp(c, b, idx);
	}
	if (kind == SLOW_QUICK)
		return slow_quick(c, b, idx, ea, (enum quick_kind)code);
	if (kind == SLOW_FP) {
		if (once)
			return slow_once(c, b, idx);
		load_fp(c, code);
	} else if (kind == SLOW_RUN) {
		const struct run *run = &b->runs[code];

		dc->counters.slow_paths++;
		if (once || fill(c, b->mode, ea, run->span, run->write, false) != CPU_OK)
			return slow_run(c, b, idx, ea, run);
		dc->counters.slow_fills++;
	} else {
		dc->counters.slow_paths++;
		if (once && kind != SLOW_INTERP)
			return slow_once(c, b, idx);
		if ((kind == SLOW_READ || kind == SLOW_MASKED) && (ea & 0xfff) > 4096 - size) {
			resume = read_split(c, b, idx, ea, kind == SLOW_READ);
			if (resume)
				return resume;
		}
		if (kind == SLOW_INTERP || kind == SLOW_MASKED) {
			if (low) /* for the next time */
				tlb_low(c, ea, false);
			return slow_interp(c, b, idx);
		}
		r = fill(c, b->mode, ea, size, kind == SLOW_WRITE, low);
		if (r == CPU_FAULT && slow_fault(c, b, idx, ea, size, &resume))
			return resume;
		if (r != CPU_OK)
			return slow_interp(c, b, idx);
		dc->counters.slow_fills++;
	}
	return resume_at(c, b, idx);
}

__attribute__((used)) uint64_t dbt_slow(struct cpu *c, uint64_t ea, uint64_t param)
{
	const struct block *b = (const struct block *)(uintptr_t)(param & 0xffffffffffffull);
	uint64_t resume;

	if (likely(!b->nswaps))
		return slow(c, ea, param);
	block_swap(c, b);
	dbt_cpu(c)->elsewhere = false;
	resume = slow(c, ea, param);
	if (!resume || dbt_cpu(c)->elsewhere || (param >> 56 & 15) == SLOW_FAR)
		return resume;
	dbt_hot(c)->reenter = resume;
	return (uint64_t)(uintptr_t)dbt_exec(dbt_cpu(c)->d, b->swap_in);
}

/* Where an indirect jump goes on that missed the jump cache; 0: out of translated code. */
__attribute__((used)) uint64_t dbt_indirect(struct cpu *c)
{
	return unlikely(dbt_cpu(c)->d->watch) ? 0 : jc_find(c, c->s.rip);
}
