/* SPDX-License-Identifier: Apache-2.0 */
/* The handler of all AVX-512 instructions: may it execute, its memory, its exceptions, its result. */
#include "engine/interp/evex.h"
#include "engine/interp/simd.h"
#include "x86/cpuid.h"

static int check(struct cpu *c, const struct insn *i, const struct evex *e)
{
	const uint64_t state = 0xe6; /* XCR0: SSE, AVX, opmask, upper halves, upper registers */

	if (i->flags & INSN_LOCK || !e->known || !evex_offered(c->machine->cpuid, e->need) || !(c->s.cr0 & CR0_PE) ||
	    c->s.rflags & FLAG_VM || !(c->s.cr4 & CR4_OSXSAVE) || (c->s.xcr0 & state) != state)
		return cpu_raise(c, VEC_UD);
	return c->s.cr0 & CR0_TS ? cpu_raise(c, VEC_NM) : CPU_OK;
}

/* Linear address of `size` bytes of the memory operand, the first of them `from` bytes behind its start. */
static int part_linear(struct cpu *c, const struct insn *i, unsigned from, unsigned size, bool write, gva_t *at)
{
	struct insn part = *i;

	part.disp = (int64_t)((uint64_t)i->disp + from);
	return operand_linear(c, &part, size, write, at);
}

/* The memory operand, cut into stretches that are accessed. */
struct stretches {
	unsigned count;
	struct {
		uint8_t from, size;
		gva_t at;
	} part[33];
};

static void stretch_add(struct stretches *s, unsigned from, unsigned size)
{
	if (s->count && s->part[s->count - 1].from + s->part[s->count - 1].size == from) {
		s->part[s->count - 1].size = (uint8_t)(s->part[s->count - 1].size + size);
		return;
	}
	s->part[s->count].from = (uint8_t)from;
	s->part[s->count++].size = (uint8_t)size;
}

static void stretch_elements(struct stretches *s, uint64_t active, unsigned count, unsigned size)
{
	for (unsigned n = 0; n < count; n++) {
		if (active >> n & 1)
			stretch_add(s, n * size, size);
	}
}

static void stretches_find(struct stretches *s, const struct cpu *c, const struct insn *i, const struct evex *e)
{
	unsigned count = e->element ? i->memsize / e->element : 0, lanes = e->lanes ? e->lanes : count;
	uint64_t active = i->opmask ? c->s.k[i->opmask] : ~0ull;

	s->count = 0;
	switch ((enum evex_masking)e->masking) {
	case EVEX_WHOLE:
		stretch_add(s, 0, i->memsize);
		break;
	case EVEX_ALL_OR_NONE:
		if (active & bits(~0ull, lanes - 1, 0))
			stretch_add(s, 0, i->memsize);
		break;
	case EVEX_PACKED:
		active &= bits(~0ull, count - 1, 0);
		if (active)
			stretch_add(s, 0, (unsigned)__builtin_popcountll(active) * e->element);
		break;
	case EVEX_REPEATED:
		active &= bits(~0ull, lanes - 1, 0);
		for (unsigned n = count; n < lanes; n += count)
			active |= active >> n;
		stretch_elements(s, active, count, e->element);
		break;
	case EVEX_ELEMENTS:
		stretch_elements(s, active, count, e->element);
		break;
	}
}

/* All addresses, then the data of a source; a target is only looked at. */
static int memory_begin(struct cpu *c, const struct insn *i, const struct evex *e, struct stretches *s,
			struct evex_frame *f)
{
	gva_t whole;
	int r = CPU_OK;

	stretches_find(s, c, i, e);
	if (e->aligned && s->count) {
		r = part_linear(c, i, 0, s->part[0].size, e->writes, &whole);
		if (!r && whole & (i->memsize - 1u))
			r = cpu_raise_error(c, VEC_GP, 0);
	}
	if (e->checks_all) {
		r = part_linear(c, i, 0, i->memsize, true, &whole);
		r = r ? r : cpu_probe(c, whole, i->memsize, ACCESS_WRITE);
	}
	for (unsigned n = 0; !r && n < s->count; n++) {
		r = part_linear(c, i, s->part[n].from, s->part[n].size, e->writes, &s->part[n].at);
		if (r)
			break;
		if (e->reads)
			r = cpu_read(c, s->part[n].at, &f->memory[s->part[n].from], s->part[n].size);
		if (!r && e->writes)
			r = cpu_probe(c, s->part[n].at, s->part[n].size, ACCESS_WRITE);
	}
	return r;
}

static int memory_end(struct cpu *c, const struct stretches *s, const struct evex_frame *f)
{
	int r = CPU_OK;

	for (unsigned n = 0; !r && n < s->count; n++)
		r = cpu_write(c, s->part[n].at, &f->memory[s->part[n].from], s->part[n].size);
	return r;
}

static void commit(struct cpu *c, const struct evex *e, const struct evex_frame *f)
{
	switch ((enum evex_result)e->result) {
	case RESULT_NONE:
		break;
	case RESULT_VECTOR:
		c->s.v[e->result_at] = f->vector;
		break;
	case RESULT_MASK:
		c->s.k[e->result_at] = f->mask;
		break;
	case RESULT_GENERAL:
		c->s.gpr[e->result_at] = f->general;
		break;
	}
	if (e->flags)
		c->s.rflags = (c->s.rflags & ~FLAGS_ARITH) | (f->flags & FLAGS_ARITH);
}

/* An element that has been moved loses its bit, so that after a fault the instruction goes on where it was. */
static int move_elements(struct cpu *c, const struct insn *i, const struct evex *e)
{
	unsigned step = MAX(e->element, e->index_size), count = i->vl / step;
	const union x86_vreg index = c->s.v[i->index];
	union x86_vreg *data = &c->s.v[i->reg];
	uint64_t *mask = &c->s.k[i->opmask];
	struct insn one = *i;
	gva_t at;
	int r;

	if (!i->opmask || (e->gather && i->reg == i->index))
		return cpu_raise(c, VEC_UD);
	one.index = REG_NONE;
	for (unsigned n = 0; n < count; n++) {
		int64_t offset = e->index_size == 4 ? index.sd[n] : index.sq[n];

		if (!(*mask >> n & 1))
			continue;
		one.disp = (int64_t)((uint64_t)i->disp + ((uint64_t)offset << i->scale));
		r = operand_linear(c, &one, e->element, e->scatter, &at);
		if (!r && e->gather)
			r = cpu_read(c, at, &data->b[n * e->element], e->element);
		else if (!r)
			r = cpu_write(c, at, &data->b[n * e->element], e->element);
		if (r)
			return r;
		*mask &= ~BIT(n);
	}
	*mask = 0;
	if (e->gather)
		memset(&data->b[count * e->element], 0, sizeof(*data) - count * e->element);
	return CPU_OK;
}

/* As fp_enter(): rounding and the rest are the guest's, nothing is unmasked. */
static uint32_t mxcsr_inside(const struct cpu *c)
{
	uint32_t csr = (c->s.mxcsr & MXCSR_VALID & ~MXCSR_FLAGS) | MXCSR_MASKS;

	return c->s.mxcsr & MXCSR_UM ? csr : csr & ~MXCSR_FTZ;
}

/*
 * Underflow that is not masked is any tiny result, exact ones too, which the host does not flag while it masks underflow: but it
 * does where it would flush them to zero.
 */
static unsigned tiny(struct cpu *c, const struct insn *i, struct evex *e, struct evex_frame *f)
{
	f->mxcsr |= MXCSR_FTZ;
	return evex_run(c->evex, e, i, &c->s, f) ? f->mxcsr & MXCSR_UE : 0;
}

static int execute(struct cpu *c, const struct insn *i, struct evex *e)
{
	struct evex_frame f = { .mxcsr = mxcsr_inside(c), .general = c->s.gpr[e->general_at] };
	struct stretches s = { 0 };
	struct evex_frame again;
	unsigned flags;
	int r = CPU_OK;

	if (i->flags & INSN_MEM)
		r = memory_begin(c, i, e, &s, &f);
	if (r)
		return r;
	if (unlikely(!(c->s.mxcsr & MXCSR_UM)))
		again = f;
	if (!evex_run(c->evex, e, i, &c->s, &f))
		return cpu_raise(c, VEC_UD);
	flags = f.mxcsr & MXCSR_FLAGS;
	if (unlikely(!(c->s.mxcsr & MXCSR_UM)))
		flags |= tiny(c, i, e, &again);
	r = fp_commit(c, flags);
	if (!r && e->writes)
		r = memory_end(c, &s, &f);
	if (!r)
		commit(c, e, &f);
	return r;
}

int evex_exec(struct cpu *c, const struct insn *i)
{
	struct evex *e;
	int r;

	if (!c->evex)
		return cpu_raise(c, VEC_UD);
	e = evex_find(c->evex, i);
	r = check(c, i, e);
	if (r)
		return r;
	return i->flags & INSN_VSIB ? move_elements(c, i, e) : execute(c, i, e);
}
