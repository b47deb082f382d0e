/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reference through a stretch: the same instructions by the interpreter's handlers, following the list of blocks that
 * the translated code has left behind. Decoded instructions are compared with memory at each use, so nothing has to be
 * told of written code.
 */
#include <string.h>
#include "engine/verify/verify.h"
#include "x86/access.h"

static bool stray(struct verify *v, const char *what)
{
	snprintf(v->why, sizeof(v->why), "%s", what);
	return false;
}

static bool faulted(struct verify *v)
{
	const struct cpu_fault *f = &v->ref->fault;

	snprintf(v->why, sizeof(v->why),
		 "the interpreter meets exception %u (error %#x, address %#llx) where the translator went on", f->vector,
		 f->error, (unsigned long long)f->cr2);
	return false;
}

static const uint8_t *page_host(struct verify *v, gpa_t page)
{
	const struct mem_range *r;

	if (likely(v->page == page))
		return v->host;
	r = mem_find(v->ref->mem, page);
	if (!r || r->kind == MEM_IO || !range_fits(page - r->start, GUEST_PAGE, r->size))
		return NULL;
	v->page = page;
	v->host = r->host + (page - r->start);
	return v->host;
}

static const struct insn *decode(struct verify *v, struct decoded *d, const uint8_t *bytes, unsigned room, gpa_t at)
{
	d->at = NO_PAGE;
	if (insn_decode(&d->insn, bytes, room, insn_mode_of(v)) != INSN_OK)
		return NULL;
	interp_bind(&d->insn);
	d->at = at;
	return &d->insn;
}

/* The instruction across the end of its page. */
static const struct insn *fetch_straddling(struct verify *v, const uint8_t *host, unsigned room)
{
	uint8_t bytes[MAX_INSN];
	gpa_t second;

	memcpy(bytes, host, room);
	if (cpu_fetch_page(v->ref, (v->ref->s.rip | 0xfff) + 1, &second))
		return NULL;
	host = page_host(v, second & ~0xfffull);
	if (!host)
		return NULL;
	memcpy(bytes + room, host, MAX_INSN - room);
	return decode(v, &v->decoded[0], bytes, MAX_INSN, NO_PAGE);
}

/* At the reference's rip. NULL: a fault, or nothing the translator could have translated. */
static const struct insn *fetch(struct verify *v)
{
	struct cpu *c = v->ref;
	unsigned at = (unsigned)(c->s.rip & 0xfff), room = MIN(4096 - at, MAX_INSN);
	const uint8_t *host;
	struct decoded *d;
	gpa_t page;

	c->fault.vector = 0xff;
	if (cpu_fetch_page(c, c->s.rip, &page))
		return NULL;
	page &= ~0xfffull;
	host = page_host(v, page);
	if (!host)
		return NULL;
	host += at;
	d = &v->decoded[((page | at) ^ page >> 12) & (DECODED - 1)];
	if (likely(d->at == (page | at) && d->insn.mode == insn_mode_of(v) && d->insn.len <= room && !memcmp(d->insn.bytes, host, d->insn.len)))
		return &d->insn;
	if (room == MAX_INSN)
		return decode(v, d, host, room, page | at);
	if (decode(v, d, host, room, page | at))
		return &d->insn;
	return fetch_straddling(v, host, room);
}

static bool string_repeats(const struct insn *i)
{
	return i->class == CLASS_STRING && i->flags & (INSN_REP | INSN_REPNE);
}

/* The machine was stopped in the middle of a repeated instruction: as many iterations here. */
static bool replay_partly(struct verify *v)
{
	struct cpu *c = v->ref;
	const struct insn *i = fetch(v);
	uint64_t tf = c->s.rflags & FLAG_TF;
	int r = CPU_OK;

	if (!i || !string_repeats(i) || c->s.gpr[RCX] == v->c->s.gpr[RCX])
		return true;
	c->s.rflags |= FLAG_TF; /* the handlers' way to do one iteration */
	while (c->s.gpr[RCX] != v->c->s.gpr[RCX] && c->s.rip == v->c->s.rip && r != CPU_FAULT)
		r = interp_exec(c, i);
	c->s.rflags = (c->s.rflags & ~FLAG_TF) | tf;
	return r == CPU_FAULT ? faulted(v) : true;
}

/* The instruction at which the machine has met an exception: the same one? */
static bool replay_fault(struct verify *v)
{
	struct cpu *c = v->ref;
	const struct cpu_fault *f = &v->c->fault, *g = &c->fault;
	const struct insn *i = fetch(v);

	if (i) {
		c->s.shadow = SHADOW_NONE;
		if (interp_exec(c, i) != CPU_FAULT)
			return stray(v, "the interpreter executes an instruction at which the translator met an exception");
	}
	if (f->vector != g->vector || f->has_error != g->has_error || f->error != g->error ||
	    (f->vector == VEC_PF && f->cr2 != g->cr2)) {
		snprintf(v->why, sizeof(v->why),
			 "exceptions differ: translator %u (error %#x, address %#llx), interpreter %u (%#x, %#llx)", f->vector,
			 f->error, (unsigned long long)f->cr2, g->vector, g->error, (unsigned long long)g->cr2);
		return false;
	}
	return true;
}

static bool at_stop(const struct verify *v, const struct block *b, unsigned idx, bool moved)
{
	if (v->stop_block)
		return idx == v->stop_idx;
	if (v->how == WATCH_KICK)
		return idx == v->watch.at;
	if (v->how == WATCH_BEHIND && v->behind >= 0)
		return (int)idx == v->behind + 1;
	return v->how != WATCH_LEFT && (moved || v->how != WATCH_BEHIND) && v->ref->s.rip == v->c->s.rip;
}

static void follow_flags(struct verify *v, const struct insn *i)
{
	uint64_t before = v->undefined;

	v->undefined = flags_undefined_after(i, before);
	if (likely(!before && !v->loose))
		return;
	if (i->op == OP_PUSHFQ || i->op == OP_PUSHFD || i->op == OP_PUSHF || i->class == CLASS_FAR) /* INT, SYSCALL */
		v->loose |= before;
	if (i->op == OP_POPFQ || i->op == OP_POPFD || i->op == OP_POPF || i->op == OP_IRETQ || i->op == OP_IRETD || i->op == OP_SYSRET)
		v->undefined |= v->loose;
}

/*
 * To what follows in any case: only the path says whether it was taken, and the translator leaves its block when it was. So
 * it is executed with another target.
 */
static int jump_to_next(struct verify *v, const struct insn *i)
{
	struct insn elsewhere = *i;
	uint64_t next = v->ref->s.rip + i->len;
	int r;

	elsewhere.imm = 64;
	r = interp_exec(v->ref, &elsewhere);
	v->jumped = v->ref->s.rip != next;
	v->ref->s.rip = next;
	return r;
}

static bool jumps_to_next(const struct insn *i)
{
	return i->class == CLASS_BRANCH && !i->imm && i->op != OP_CALL && i->op != OP_RET && i->op != OP_JMP;
}

static bool replay_insn(struct verify *v)
{
	struct cpu *c = v->ref;
	const struct insn *i = fetch(v);
	int r;

	if (!i)
		return c->fault.vector != 0xff ? faulted(v) : stray(v, "the interpreter finds no instruction here");
	if (unlikely(v->undefined) && flags_depend(i, v->undefined)) {
		v->depends = true;
		return false;
	}
	c->s.shadow = SHADOW_NONE;
	v->io = false;
	v->jumped = false;
	r = unlikely(jumps_to_next(i)) ? jump_to_next(v, i) : interp_exec(c, i);
	v->counters.insns++;
	follow_flags(v, i);
	if (r == CPU_FAULT)
		return faulted(v);
	if (v->io)
		return stray(v, "the interpreter reaches a device where the translator did not");
	if (r == CPU_STOP && (c->s.activity != ACTIVITY_SHUTDOWN || v->c->s.activity != ACTIVITY_SHUTDOWN)) /* both by a triple fault */
		return stray(v, "the interpreter stops the CPU where the translator went on");
	return true;
}

/* Through block n of the path from its instruction idx. *done: the machine's place has been reached. */
static bool replay_block(struct verify *v, unsigned n, unsigned idx, bool last)
{
	const struct block *b = path_block(v, n);
	struct cpu *c = v->ref;
	bool moved = false;

	v->at_block = b;
	v->at_place = n;
	for (;; moved = true) {
		v->at_idx = idx;
		if (last && at_stop(v, b, idx, moved))
			return v->stop_block || (replay_partly(v) && (v->how != WATCH_FAULT || replay_fault(v)));
		if (idx >= b->ninsns || c->s.rip != block_rip(b, idx) || (moved && v->jumped)) {
			if (!moved && idx < b->ninsns)
				return stray(v, "the translator entered another block than the interpreter's next");
			if (last && v->stop_block)
				return stray(v, "the interpreter leaves the block earlier");
			return true;
		}
		if (!replay_insn(v))
			return false;
		idx++;
	}
}

bool replay(struct verify *v)
{
	unsigned count = path_length(v);

	for (unsigned n = 0; n < count; n++) {
		if (!replay_block(v, n, n == 0 && v->start ? v->start_idx : 0, n + 1 == count))
			return false;
	}
	return true;
}
