/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What accesses of a block can share one check of the software TLB.
 *
 * Base and index registers are followed through the block as value + offset (PUSH and POP, ADD of constants, LEA, MOV), so that
 * accesses known to lie within some bytes of one another form a run: the first checks the range of all, the
 * others take the addend it found, from S1 if that still has it, else from hot->run[]. They need no flags either.
 *
 * Where the range crosses a page or cannot be had as a whole, the interpreter executes from the first to the last (and to the last of
 * other runs begun meanwhile, whose first it has executed). A block to which that happens often is translated again with
 * runs only where one access covers the others. Nobody can take a page away between check and access: writers to code pages are waited for until they
 * have been seen outside of the block.
 */
#include <string.h>
#include "engine/dbt/translate.h"

#define SPAN_OBJECT 64
#define SPAN_STACK 256
#define OFFSET_MAX (1 << 20)
#define DISP_MAX (1 << 30)
#define CANDIDATES 32u

struct value {
	uint32_t id;
	int32_t off;
};

struct access {
	struct value base, index; /* id 0: no index */
	unsigned scale, size;
	int64_t rel; /* distance from base + index */
	bool write, stack;
};

struct candidate {
	struct access key;
	unsigned side_exits, members, size;
	int64_t lo, hi;
	bool write;
};

struct plan {
	struct value reg[16];
	uint32_t ids;
	unsigned side_exits, count;
	bool stepwise;
	unsigned word;
	struct candidate c[CANDIDATES];
};

static bool spilled(unsigned g)
{
	return g >= GUEST_HOST_REGS;
}

/* What the instruction writes; false: who knows. */
static bool plain_writes(const struct insn *i, uint32_t *w)
{
	struct roles r;

	*w = 0;
	if (i->flags & INSN_VEX) {
		*w = (i->reg < 16 ? BIT(i->reg) : 0) | (i->vvvv < 16 ? BIT(i->vvvv) : 0);
		return i->reg < 16;
	}
	switch (i->op) {
	case OP_LEA:
	case OP_BSWAP:
		*w = BIT(i->reg & 15);
		return true;
	case OP_CBW:
	case OP_CWDE:
	case OP_CDQE:
	case OP_CWD:
	case OP_CDQ:
	case OP_CQO:
		*w = BIT(RAX) | BIT(RDX);
		return true;
	case OP_NOP:
	case OP_ENDBR64:
		return true;
	default:
		break;
	}
	if (!i->modrm_at) {
		if (i->op == OP_MOV && i->flags & INSN_MEM) { /* an absolute address */
			*w = i->form == FORM_REG_RM ? BIT(RAX) : 0;
			return true;
		}
		if (i->op == OP_INC || i->op == OP_DEC) {
			*w = BIT(i->reg);
			return true;
		}
		if (i->form != FORM_REG_IMM || i->flags & INSN_MEM)
			return false;
		*w = BIT(i->flags & INSN_HIGH_REG ? i->reg & 3 : i->reg & 15);
		return true;
	}
	if (!alu_roles(i, &r))
		return false;
	if (r.reg & ROLE_WRITE)
		*w |= BIT(i->flags & INSN_HIGH_REG ? i->reg & 3 : i->reg & 15);
	if (r.rm & ROLE_WRITE && !(i->flags & INSN_MEM))
		*w |= BIT(i->flags & INSN_HIGH_RM ? i->rm & 3 : i->rm & 15);
	if (i->form == FORM_RM && (i->op == OP_MUL || i->op == OP_IMUL || i->op == OP_DIV || i->op == OP_IDIV))
		*w |= BIT(RAX) | BIT(RDX);
	if (i->op == OP_CMPXCHG)
		*w |= BIT(RAX);
	return true;
}

static bool vector_writes(struct tr *t, unsigned idx, uint32_t *w)
{
	const struct insn *i = &t->insn[idx];
	const struct shape *s = vector_shape(t, idx);

	*w = 0;
	if (!s->known || s->other_write)
		return false;
	if (s->reg_gpr && s->reg_write)
		*w |= BIT(i->reg & 15);
	if (s->rm_gpr && s->rm_write && !(i->flags & INSN_MEM))
		*w |= BIT(i->rm & 15);
	return true;
}

static bool is_push(unsigned word, const struct insn *i)
{
	return i->op == OP_PUSH && i->opsize == word && !(i->flags & INSN_MEM) &&
	       (i->form == FORM_IMM || i->form == FORM_REG || i->form == FORM_RM);
}

static bool is_pop(unsigned word, const struct insn *i)
{
	return i->op == OP_POP && i->opsize == word && !(i->flags & INSN_MEM) && (i->form == FORM_REG || i->form == FORM_RM);
}

static struct value value_new(struct plan *p)
{
	return (struct value){ .id = ++p->ids };
}

static void forget_all(struct plan *p)
{
	for (unsigned n = 0; n < 16; n++)
		p->reg[n] = value_new(p);
}

static bool shift_value(struct plan *p, unsigned to, struct value from, int64_t by)
{
	if (by > OFFSET_MAX || by < -OFFSET_MAX || from.off > OFFSET_MAX || from.off < -OFFSET_MAX)
		return false;
	p->reg[to] = (struct value){ from.id, from.off + (int32_t)by };
	return true;
}

/* Copies and constant steps; false: something else. */
static bool follow_step(struct plan *p, const struct insn *i)
{
	const int word = (int)p->word;

	if (is_push(p->word, i))
		return shift_value(p, RSP, p->reg[RSP], -word);
	if (i->op == OP_PUSH_SREG && i->opsize == p->word)
		return shift_value(p, RSP, p->reg[RSP], -word);
	if (is_pop(p->word, i)) {
		unsigned to = i->form == FORM_RM ? i->rm : i->reg;

		if (!shift_value(p, RSP, p->reg[RSP], word))
			return false;
		p->reg[to] = value_new(p);
		return true;
	}
	if (i->opsize != p->word || (i->flags & INSN_MEM && i->op != OP_LEA) || i->class != CLASS_PLAIN)
		return false;
	if ((i->op == OP_ADD || i->op == OP_SUB) && i->form == FORM_RM_IMM)
		return shift_value(p, i->rm, p->reg[i->rm], i->op == OP_ADD ? (int32_t)i->imm : -(int64_t)(int32_t)i->imm);
	if ((i->op == OP_INC || i->op == OP_DEC) && i->form == FORM_REG) /* one byte, 32-bit code */
		return shift_value(p, i->reg, p->reg[i->reg], i->op == OP_INC ? 1 : -1);
	if ((i->op == OP_INC || i->op == OP_DEC) && i->form == FORM_RM)
		return shift_value(p, i->rm, p->reg[i->rm], i->op == OP_INC ? 1 : -1);
	if (i->op == OP_LEA && i->addrsize == p->word && i->index == REG_NONE && i->base < 16)
		return shift_value(p, i->reg, p->reg[i->base], i->disp);
	if (i->op == OP_MOV && i->modrm_at && i->form == FORM_RM_REG)
		return shift_value(p, i->rm, p->reg[i->reg], 0);
	if (i->op == OP_MOV && i->modrm_at && i->form == FORM_REG_RM)
		return shift_value(p, i->reg, p->reg[i->rm], 0);
	return false;
}

static void follow(struct plan *p, struct tr *t, unsigned idx)
{
	const struct insn *i = &t->insn[idx];
	uint32_t w = 0;
	bool known;

	if (follow_step(p, i))
		return;
	if (i->class == CLASS_PLAIN)
		known = plain_writes(i, &w);
	else if (i->class == CLASS_VECTOR || i->class == CLASS_X87)
		known = vector_writes(t, idx, &w);
	else
		known = i->class == CLASS_BRANCH && (i->flags & INSN_COND || i->op == OP_JMP);
	if (!known) {
		forget_all(p);
		return;
	}
	for (w &= 0xffff; w; w &= w - 1)
		p->reg[__builtin_ctz(w)] = value_new(p);
}

/* How the instruction uses the operand its ModRM names. */
static bool operand_use(struct tr *t, unsigned idx, unsigned *size, bool *write)
{
	const struct insn *i = &t->insn[idx];
	struct roles r;

	if (i->class == CLASS_VECTOR || i->class == CLASS_X87) {
		const struct shape *s = vector_shape(t, idx);

		*size = s->mem_size;
		*write = s->mem_write;
		return s->known && s->mem_size && s->mem_size <= 64 && !insn_masked(i);
	}
	if (i->class != CLASS_PLAIN || !i->modrm_at || i->flags & (INSN_HIGH_REG | INSN_HIGH_RM))
		return false;
	*size = i->memsize ? i->memsize : i->opsize;
	*write = false;
	if (i->flags & INSN_VEX)
		return true;
	if (!alu_roles(i, &r))
		return false;
	*write = r.rm & ROLE_WRITE;
	return true;
}

static bool access_of(const struct plan *p, struct tr *t, unsigned idx, struct access *a)
{
	const struct insn *i = &t->insn[idx];

	memset(a, 0, sizeof(*a));
	a->base = p->reg[RSP];
	a->size = p->word;
	a->stack = true;
	if (is_push(p->word, i) || (i->op == OP_CALL && i->opsize == p->word && !(i->flags & INSN_MEM))) {
		a->write = true;
		a->rel = a->base.off - (int)p->word;
		return true;
	}
	if (is_pop(p->word, i) || (i->op == OP_RET && i->opsize == p->word)) {
		a->rel = a->base.off;
		return true;
	}
	if (!(i->flags & INSN_MEM) || i->addrsize != p->word || i->seg >= SEG_FS || i->base >= 16 ||
	    i->disp > DISP_MAX || i->disp < -DISP_MAX)
		return false;
	if (i->index != REG_NONE && (i->index >= 16 || i->flags & INSN_VSIB || (spilled(i->index) && spilled(i->base))))
		return false;
	if (i->op == OP_LEA || i->op == OP_PUSH || i->op == OP_POP || !operand_use(t, idx, &a->size, &a->write))
		return false;
	a->base = p->reg[i->base];
	a->rel = a->base.off + i->disp;
	a->stack = a->base.id == p->reg[RSP].id;
	if (i->index != REG_NONE) {
		a->index = p->reg[i->index];
		a->scale = i->scale;
		a->rel += (int64_t)a->index.off * (1 << i->scale);
	}
	return a->size != 0;
}

static bool joins(const struct plan *p, struct candidate *c, const struct access *a)
{
	int64_t lo, hi;

	if (c->key.base.id != a->base.id || c->key.index.id != a->index.id || c->key.scale != a->scale)
		return false;
	lo = MIN(c->lo, a->rel);
	hi = MAX(c->hi, a->rel + a->size);
	if (p->stepwise && hi - lo > MAX(c->size, a->size))
		return false;
	if (hi - lo > (a->stack ? SPAN_STACK : SPAN_OBJECT))
		return false;
	/* a write that may not come to pass must not be asked for */
	if (a->write && !c->write && c->side_exits != p->side_exits)
		return false;
	c->lo = lo;
	c->hi = hi;
	c->write |= a->write;
	c->size = MAX(c->size, a->size);
	c->members++;
	return true;
}

static int candidate_for(struct plan *p, const struct access *a)
{
	for (unsigned n = p->count; n-- > 0;) {
		if (joins(p, &p->c[n], a))
			return (int)n;
	}
	if (p->count == CANDIDATES)
		return -1;
	p->c[p->count] = (struct candidate){ .key = *a, .side_exits = p->side_exits, .members = 1, .size = a->size,
					     .lo = a->rel,
					     .hi = a->rel + a->size, .write = a->write };
	return (int)p->count++;
}

/* Candidates with more than one member become runs. */
static void number_runs(struct tr *t, const struct plan *p)
{
	int8_t number[CANDIDATES];

	for (unsigned n = 0; n < p->count; n++) {
		const struct candidate *c = &p->c[n];

		number[n] = -1;
		if (c->members < 2 || t->nruns == BLOCK_RUNS)
			continue;
		number[n] = (int8_t)t->nruns;
		t->runs[t->nruns++] = (struct run){ .write = c->write, .span = (uint16_t)(c->hi - c->lo), .first = 0xff };
	}
	for (unsigned idx = 0; idx < t->n; idx++) {
		int from = t->run_of[idx];

		t->run_of[idx] = from < 0 ? -1 : number[from];
		if (t->run_of[idx] < 0)
			continue;
		t->run_at[idx] -= p->c[from].lo;
		t->runs[t->run_of[idx]].end = (uint8_t)(idx + 1);
		if (t->runs[t->run_of[idx]].first == 0xff)
			t->runs[t->run_of[idx]].first = (uint8_t)idx;
	}
}

/* Who interprets a run must not stop among the members of one it has begun thereby. */
static void close_ends(struct tr *t)
{
	for (unsigned n = 0; n < t->nruns; n++) {
		for (unsigned m = 0; m < t->nruns; m++) {
			if (t->runs[m].first > t->runs[n].first && t->runs[m].first < t->runs[n].end &&
			    t->runs[m].end > t->runs[n].end) {
				t->runs[n].end = t->runs[m].end;
				m = (unsigned)-1; /* once more */
			}
		}
	}
}

static bool vector_keeps(struct tr *t, unsigned idx)
{
	const struct insn *i = &t->insn[idx];
	const struct shape *s = vector_shape(t, idx);

	return s->known && !(i->flags & INSN_MEM) && !(s->reg_gpr && spilled(i->reg)) && !(s->rm_gpr && spilled(i->rm));
}

/* Does S1 survive the instruction's lowering, as it was (no member of a run) or with its addend (a member)? */
bool run_keeps_s1(struct tr *t, unsigned idx)
{
	const struct insn *i = &t->insn[idx];
	bool vector = i->class == CLASS_VECTOR || i->class == CLASS_X87;
	struct roles r;

	if (is_push(t->word, i) || is_pop(t->word, i))
		return t->run_of[idx] >= 0;
	if (t->run_of[idx] >= 0)
		return (i->base < GUEST_HOST_REGS && i->index == REG_NONE) || (!vector && !spilled(i->reg));
	if (vector)
		return vector_keeps(t, idx);
	if (i->class == CLASS_BRANCH)
		return i->flags & INSN_COND || (i->op == OP_JMP && i->form == FORM_IMM);
	if (i->class != CLASS_PLAIN || i->flags & (INSN_VEX | INSN_LOCK) || i->opsize == 2)
		return false;
	if (i->op == OP_LEA)
		return !spilled(i->reg) && i->addrsize == t->word && /* base and index both in memory: the index comes into S1 */
		       !(i->base != REG_NONE && i->base != REG_RIP && spilled(i->base) && i->index != REG_NONE && spilled(i->index));
	if (i->flags & INSN_MEM || spilled(i->reg) || spilled(i->rm))
		return false;
	if (i->op == OP_CDQE || i->op == OP_CQO || i->op == OP_CDQ || i->op == OP_CWDE || i->op == OP_NOP)
		return true;
	if (!i->modrm_at && i->form == FORM_REG && (i->op == OP_INC || i->op == OP_DEC))
		return true;
	return i->modrm_at ? alu_roles(i, &r) : i->form == FORM_REG_IMM;
}

/* Runs whose addend has to wait in memory. */
static void find_slots(struct tr *t)
{
	bool vec = false, x87 = false;
	int s1 = -1;

	for (unsigned idx = 0; idx < t->n; idx++) {
		const struct insn *i = &t->insn[idx];
		int k = t->run_of[idx];

		if ((i->class == CLASS_VECTOR && !vec) || (i->class == CLASS_X87 && !x87) || t->shape[idx].mmx)
			s1 = -1; /* may go through C */
		vec |= i->class == CLASS_VECTOR;
		x87 |= i->class == CLASS_X87;
		if (k >= 0 && idx != t->runs[k].first && s1 != k)
			t->runs[k].slot = true;
		if (!run_keeps_s1(t, idx))
			s1 = -1;
		else if (k >= 0)
			s1 = k;
	}
}

/* The index comes from a MOVZX of a byte or an AND with a constant just before. */
bool index_is_small(const struct tr *t, unsigned idx)
{
	const struct insn *i = &t->insn[idx];
	uint32_t w;

	if (i->index == REG_NONE || i->flags & INSN_VSIB)
		return false;
	for (unsigned n = idx; n-- > 0 && idx - n <= 8;) {
		const struct insn *by = &t->insn[n];

		if (by->class == CLASS_BRANCH && by->flags & INSN_COND)
			continue;
		if (by->class != CLASS_PLAIN || !plain_writes(by, &w))
			return false;
		if (!(w & BIT(i->index)))
			continue;
		if (by->op == OP_MOVZX)
			return by->opcode == 0xb6 && by->opsize >= 4;
		return by->op == OP_AND && (by->form == FORM_RM_IMM || by->form == FORM_REG_IMM) && by->opsize >= 4 &&
		       by->imm <= 4095u >> i->scale;
	}
	return false;
}

void plan_runs(struct tr *t)
{
	struct plan p;

	t->nruns = 0;
	t->runs_ready = 0;
	t->s1_run = -1;
	memset(t->run_of, -1, sizeof(t->run_of));
	if (t->n < 2)
		return;
	p.stepwise = t->stepwise;
	p.word = t->word;
	p.ids = p.side_exits = p.count = 0;
	forget_all(&p);
	for (unsigned idx = 0; idx < t->n; idx++) {
		struct access a;

		if (access_of(&p, t, idx, &a)) {
			t->run_of[idx] = (int8_t)candidate_for(&p, &a);
			t->run_at[idx] = a.rel;
			t->run_off[idx] = a.base.off;
		}
		follow(&p, t, idx);
		p.side_exits += t->insn[idx].class == CLASS_BRANCH && t->insn[idx].op != OP_JMP;
	}
	number_runs(t, &p);
	close_ends(t);
	find_slots(t);
}
