/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One translation: decode from an address to the end of a superblock (within a page, past conditional jumps, through
 * unconditional ones), find out backwards which flags are live where, lower forwards, then the out-of-line parts.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "engine/dbt/translate.h"

#define BLOCK_ROOM 16384u /* more than a block ever takes */
#define COLD_BYTES 48u /* of one piece of out-of-line code, about */
#define INSN_ROOM 2048u
#define SIDE_EXITS 4u /* conditional jumps a block runs on after */

void tr_flags_save(struct tr *t)
{
	struct emit *e = &t->e;
	struct opnd m = opnd_gs(OFF_HOT(flags));

	emit_mov(e, S0, RAX);
	emit8(e, 0x9f); /* lahf */
	emit_bytes(e, "\x0f\x90\xc0", 3); /* seto al */
	enc(e, ENC_66, X_MOV_STORE, RAX, &m);
	emit_mov(e, RAX, S0);
}

/* Scratch registers may hold an address: RAX rests in memory meanwhile. */
void tr_flags_restore(struct tr *t)
{
	struct emit *e = &t->e;
	struct opnd m = opnd_gs(OFF_HOT(flags));

	emit_store(e, opnd_gs(OFF_HOT(rax)), RAX);
	enc(e, ENC_0F, 0xb7, RAX, &m);
	emit_bytes(e, "\x04\x7f", 2); /* add al, 127: OF */
	emit8(e, 0x9e); /* sahf */
	emit_load(e, RAX, opnd_gs(OFF_HOT(rax)));
}

void tr_commit(struct tr *t, const struct insn *i)
{
	struct insn_map *m = &t->map[t->idx];
	unsigned writes = i->flags_written & FLAGS_ARITH;
	unsigned needs = i->flags_read & FLAGS_ARITH;
	uint32_t host = emit_offset(&t->e);

	if (!t->committed) {
		m->zone = MIN(host - m->host, 255u) & 255;
		t->committed = true;
	}
	if (writes)
		needs |= t->live[t->idx + 1] & ~writes;
	if (t->fl == FL_M && needs) {
		tr_flags_restore(t);
		t->fl = FL_H;
	}
}

struct cold *tr_cold(struct tr *t, void (*fn)(struct tr *t, const struct cold *k), label from)
{
	struct cold *k = &t->cold[t->ncold++];

	CHECK(t->ncold <= ARRAY_LEN(t->cold));
	*k = (struct cold){ .fn = fn, .from = from, .idx = (uint8_t)t->idx };
	return k;
}

bool lower_clobbers_flags(const struct tr *t, const struct insn *i)
{
	bool memory = i->flags & INSN_MEM && !mem_run_usable(t);

	if (i->class == CLASS_X87)
		return !t->x87_known || memory;
	if (i->class == CLASS_VECTOR)
		return !t->vec_known || (i->flags & INSN_MMX && !t->x87_known) || memory;
	if (i->op >= OP_NOP && i->op <= OP_PREFETCHWT1)
		return false;
	if (i->flags & INSN_MEM && i->class == CLASS_PLAIN && mem_run_usable(t))
		return false;
	if (i->flags & INSN_MEM)
		return i->op != OP_LEA;
	switch (i->op) {
	case OP_PUSH:
	case OP_POP:
		return !mem_run_usable(t);
	case OP_CALL:
		return i->form != FORM_IMM || !mem_run_usable(t);
	case OP_LEAVE:
	case OP_PUSH_SREG:
	case OP_RET:
	case OP_CLD:
	case OP_STD:
		return true;
	case OP_JMP:
		return i->form != FORM_IMM;
	default:
		return i->class == CLASS_SYSTEM || i->class == CLASS_STRING;
	}
}

static bool ends_block(const struct insn *i)
{
	if (i->class == CLASS_FAR)
		return true;
	return i->op == OP_JMP || i->op == OP_CALL || i->op == OP_RET || i->op == OP_HLT;
}

static bool seen(const struct tr *t, unsigned at)
{
	for (unsigned n = 0; n < t->n; n++) {
		if (t->at[n] == at)
			return true;
	}
	return false;
}

/* The next instruction's offset in the page, or -1 at the end of the block. */
static int next_at(const struct tr *t, const struct insn *i, unsigned at, unsigned *side_exits)
{
	if (i->op == OP_JMP && i->form == FORM_IMM && i->opsize == t->word) {
		uint64_t target = (t->page_va | at) + i->len + i->imm;

		if ((target & ~0xfffull) == t->page_va && !seen(t, target & 0xfff))
			return (int)(target & 0xfff);
	}
	if (ends_block(i) || at + i->len >= 4096)
		return -1;
	if (i->class == CLASS_BRANCH && ++*side_exits > SIDE_EXITS)
		return -1;
	return (int)(at + i->len);
}

static void decode(struct tr *t, unsigned at)
{
	unsigned side_exits = 0;
	int next = (int)at;

	while (next >= 0 && t->n < BLOCK_INSNS) {
		struct insn *i = &t->insn[t->n];
		enum insn_status s;

		at = (unsigned)next;
		if (t->n && at == (t->b->va & 0xfff))
			break; /* round a loop: link to our own start */
		/* Or into what is here already: an address stands for one instruction of a block (engine=verify counts on it). */
		if (at >= t->lo && at < t->hi && seen(t, at))
			break;
		if (t->n && t->insn[t->n - 1].class == CLASS_BRANCH && block_may_begin(t->page, at) &&
		    block_find(t->d, t->b->page, NO_PAGE, t->page_va | at, t->mode))
			break;
		s = insn_decode_memo(t->d->memo, i, t->code + at, 4096 - at, mode_insns(t->mode));
		if (s == INSN_TRUNCATED)
			break;
		if (s != INSN_OK) {
			i->op = OP_INVALID;
			i->class = CLASS_FAR;
			i->len = MAX(i->len, 1);
		}
		t->at[t->n++] = (uint16_t)at;
		t->lo = (uint16_t)MIN(t->lo, at);
		t->hi = (uint16_t)MAX(t->hi, MIN(at + i->len, 4096u));
		next = next_at(t, i, at, &side_exits);
	}
}

/* The one instruction of a block that begins on this page and ends on the next. */
static bool decode_straddling(struct tr *t, unsigned at, const uint8_t *second)
{
	struct block *b = t->b;
	unsigned room = 4096 - at;

	memcpy(b->bytes, t->code + at, room);
	memcpy(b->bytes + room, second, MAX_INSN - room);
	if (insn_decode(&t->insn[0], b->bytes, MAX_INSN, mode_insns(t->mode)) != INSN_OK)
		return false;
	b->shadow = dbt_cache_alloc(t->d, sizeof(*b->shadow));
	if (!b->shadow)
		return false;
	memset(b->shadow, 0, sizeof(*b->shadow));
	b->shadow->hi = (uint16_t)(t->insn[0].len - room);
	t->at[0] = (uint16_t)at;
	t->n = 1;
	t->lo = (uint16_t)at;
	t->hi = 4096;
	return true;
}

static void liveness(struct tr *t)
{
	t->live[t->n] = FLAGS_ARITH;
	for (unsigned n = t->n; n-- > 0;) {
		const struct insn *i = &t->insn[n];
		unsigned reads = i->flags_read & FLAGS_ARITH, writes = i->flags_written & FLAGS_ARITH;

		t->live[n] = (uint16_t)((t->live[n + 1] & ~writes) | reads);
		if (i->class == CLASS_BRANCH || i->class == CLASS_FAR)
			if (i->op != OP_JMP || i->form != FORM_IMM)
				t->live[n] = FLAGS_ARITH;
	}
}

static enum lowered lower(struct tr *t, const struct insn *i)
{
	if (unlikely(t->m32) && lower_unfit(t, i))
		return i->class == CLASS_BRANCH ? LOWER_LEAVE : LOWER_HELPER;
	switch (i->class) {
	case CLASS_PLAIN:
		if (i->op >= OP_PUSH && i->op <= OP_LEAVE)
			return lower_stack(t, i);
		return lower_alu(t, i);
	case CLASS_BRANCH:
		return lower_branch(t, i);
	case CLASS_X87:
	case CLASS_VECTOR:
		return lower_vector(t, i);
	case CLASS_SYSTEM:
		return lower_system(t, i);
	case CLASS_STRING:
		return lower_string(t, i);
	default:
		return lower_system(t, i);
	}
}

/* The interpreter does this one; the slow path comes back to the next. */
static void lower_helper(struct tr *t)
{
	if (t->fl == FL_H) {
		tr_flags_save(t);
		t->fl = FL_M;
	}
	tr_emit_block(t, S1, SLOW_PARAM(t->b, t->idx, SLOW_INTERP, 1));
	tr_jump_out(t, t->d->tramp_slow);
	t->fl = FL_H; /* both ways */
}

enum lowered lower_quick(struct tr *t, const struct insn *i, enum quick_kind kind)
{
	if (t->fl == FL_H) {
		tr_flags_save(t);
		t->fl = FL_M;
	}
	if (i->flags & INSN_MEM)
		mem_linear(t, i);
	tr_emit_block(t, S1, SLOW_PARAM(t->b, t->idx, SLOW_QUICK, 1) | (uint64_t)kind << 60);
	tr_jump_out(t, t->d->tramp_slow);
	t->fl = FL_H; /* both ways */
	return LOWERED_CALL;
}

/* Room for another instruction and what is yet to come behind the block. */
static bool room_left(const struct tr *t)
{
	return t->ncold + COLD_EACH <= ARRAY_LEN(t->cold) &&
	       (size_t)(t->e.p - t->d->rw) - t->b->start + t->ncold * COLD_BYTES < BLOCK_ROOM - INSN_ROOM;
}

static void log_full_emit(struct tr *t, const struct cold *k)
{
	struct emit *e = &t->e;

	emit_label_here(e, k->from);
	swap_out(t);
	tr_emit_va(t, S0, t->b->va);
	emit_store(e, opnd_gs(OFF_RIP), S0);
	emit_imm(e, S0, EXIT_LOG);
	tr_jump_out(t, k->kind == FL_H ? t->d->tramp_exit_h : t->d->tramp_exit_m);
}

/* Under engine=verify: put the block into the log, or leave when that is full. Flags must not change. */
static void log_entry(struct tr *t)
{
	struct emit *e = &t->e;
	struct opnd left = opnd_gs(OFF_HOT(log_left)), at = opnd_sib(OPND_NONE, RCX, 3, OFF_HOT(log));
	uint8_t *over;
	label on;

	at.gs = true;
	tr_emit_block(t, S0, (uint64_t)(uintptr_t)t->b);
	emit_mov(e, S1, RCX);
	emit_load(e, RCX, left);
	emit_bytes(e, "\xe3\x02\xeb\x00", 4); /* jrcxz, over a jump */
	over = e->p;
	emit_mov(e, RCX, S1);
	on = emit_jmp(e);
	if (!e->full)
		over[-1] = (uint8_t)(e->p - over);
	emit_lea(e, RCX, opnd_mem(RCX, -1));
	emit_store(e, left, RCX);
	emit_store(e, at, S0);
	emit_mov(e, RCX, S1);
	tr_cold(t, log_full_emit, on)->kind = (uint8_t)t->fl;
}

static void count_add(struct emit *e, int32_t where, unsigned by)
{
	emit_load(e, S0, opnd_gs(where));
	emit_lea(e, S0, opnd_mem(S0, (int32_t)by));
	emit_store(e, opnd_gs(where), S0);
}

/* Under --stats: what misses of the TLB and of chaining are to be compared with. Flags must not change. */
static void count_entry(struct tr *t)
{
	unsigned accesses = 0;

	for (unsigned n = 0; n < t->n; n++) {
		const struct insn *i = &t->insn[n];

		accesses += (i->flags & INSN_MEM && i->op != OP_LEA) || i->op == OP_PUSH || i->op == OP_POP || i->op == OP_CALL ||
			    i->op == OP_RET || i->op == OP_LEAVE;
	}
	count_add(&t->e, OFF_HOT(ran), 1);
	if (accesses)
		count_add(&t->e, OFF_HOT(reached), accesses);
}

/* The slow path comes back to where a check of what registers are live begins, without S1. */
static bool live_check_due(const struct tr *t, const struct insn *i)
{
	return (i->class == CLASS_VECTOR && !t->vec_known) ||
	       ((i->class == CLASS_X87 || i->flags & INSN_MMX) && !t->x87_known);
}

static void s1_after(struct tr *t, enum lowered r, bool live_checked)
{
	bool member = t->run_of[t->idx] >= 0;

	if (r != LOWERED || !run_keeps_s1(t, t->idx) || (member && t->s1_next < 0))
		t->s1_run = -1;
	else if (member)
		t->s1_run = t->s1_next;
	else if (live_checked)
		t->s1_run = -1;
}

static void lower_all(struct tr *t)
{
	t->fl = t->live[0] ? FL_H : FL_DEAD;
	t->shadow = false;
	t->swapped = t->b->nswaps;
	if (t->swapped) {
		swap_emit(t);
		emit_align(&t->e, 32);
		t->b->inner = (uint32_t)(t->e.p - t->d->rw);
	}
	if (unlikely(t->d->watch))
		log_entry(t); /* each time round */
	if (unlikely(t->d->machine->sample))
		count_entry(t);
	for (t->idx = 0; t->idx < t->n && !t->ended && (!t->idx || room_left(t)); t->idx++) {
		const struct insn *i = &t->insn[t->idx];
		bool followed = i->op == OP_JMP && t->idx + 1 < t->n;
		bool vec_known = t->vec_known, x87_known = t->x87_known;
		enum lowered r;

		t->s1_next = -1;
		if (live_check_due(t, i))
			t->s1_run = -1;
		if (!followed && lower_clobbers_flags(t, i)) {
			if (!t->live[t->idx]) {
				t->fl = FL_DEAD;
			} else if (t->fl == FL_H) {
				tr_flags_save(t);
				t->fl = FL_M;
			}
		}
		t->map[t->idx] = (struct insn_map){ .host = emit_offset(&t->e), .guest = t->at[t->idx] & 0xfff,
						    .flags = (unsigned)t->fl & 3, .shadowed = t->shadow };
		t->shadow = i->op == OP_STI;
		t->committed = false;
		if (followed)
			continue;
		r = lower(t, i);
		if (r == LOWER_HELPER)
			lower_helper(t);
		else if (r == LOWER_LEAVE)
			lower_leave(t, EXIT_STEP, tr_rip(t));
		else if (r == LOWERED && i->flags_written & FLAGS_ARITH && i->op != OP_POPFQ && i->op != OP_POPFD)
			t->fl = FL_H;
		s1_after(t, r, vec_known != t->vec_known || x87_known != t->x87_known);
	}
	t->n = t->idx;
	if (t->ended) {
		t->map[t->n] = (struct insn_map){ .host = emit_offset(&t->e) };
	} else {
		const struct insn *last = &t->insn[t->n - 1];
		uint64_t next = (t->page_va | t->at[t->n - 1]) + last->len;

		if (last->op == OP_JMP && last->form == FORM_IMM)
			next += last->imm;
		t->map[t->n] = (struct insn_map){ .host = emit_offset(&t->e), .guest = next & 0xfff,
						  .flags = (unsigned)t->fl & 3 };
		lower_exit_direct(t, next);
	}
}

static void entry_for_m(struct tr *t, struct block *b)
{
	if (!t->live[0]) {
		b->entry_m = b->start;
		return;
	}
	emit_align(&t->e, 16);
	b->entry_m = (uint32_t)(t->e.p - t->d->rw);
	tr_flags_restore(t);
	emit_jmp_to(&t->e, t->d->rw + b->start);
}

static void swap_in(struct tr *t, struct block *b)
{
	if (!b->nswaps)
		return;
	b->swap_in = (uint32_t)(t->e.p - t->d->rw);
	swap_emit(t);
	emit_jmp_mem(&t->e, opnd_gs(OFF_HOT(reenter)));
}

static bool finish(struct tr *t, struct block *b)
{
	unsigned n = t->n;

	t->exits_final = dbt_cache_alloc(t->d, t->nexits * sizeof(*b->exits));
	b->map = dbt_cache_alloc(t->d, (n + 1) * sizeof(*b->map));
	b->runs = dbt_cache_alloc(t->d, t->nruns * sizeof(*b->runs));
	if (!t->exits_final || !b->map || !b->runs)
		return false;
	for (unsigned k = 0; k < t->nruns; k++) {
		b->runs[k] = t->runs[k];
		b->runs[k].end = (uint8_t)MIN(t->runs[k].end, n);
	}
	for (unsigned k = 0; k < t->ncold; k++) {
		t->idx = t->cold[k].idx;
		t->cold[k].fn(t, &t->cold[k]);
	}
	entry_for_m(t, b);
	swap_in(t, b);
	b->exits = t->exits_final;
	b->nexits = (uint8_t)t->nexits;
	b->nruns = (uint8_t)t->nruns;
	memcpy(b->exits, t->exits, t->nexits * sizeof(*b->exits));
	memcpy(b->map, t->map, (n + 1) * sizeof(*b->map));
	return true;
}

static void give_back_slots(struct tr *t)
{
	for (unsigned n = 0; n < t->nexits; n++) {
		int32_t s = t->exits[n].slot;

		if (s >= 0) {
			slot_give_back(t->d, s);
		}
	}
}

static struct block *block_new(struct dbt *d, uint64_t va, uint64_t page, uint32_t mode,
			       const uint8_t *code, uint64_t ram_page)
{
	struct block *b = dbt_cache_alloc_line(d, sizeof(*b));

	if (!b)
		return NULL;
	memset(b, 0, sizeof(*b));
	b->va = va;
	b->page = page;
	b->page2 = ~0ull;
	b->mode = mode;
	b->code = code;
	b->ram_page = ram_page;
	b->serial = ++d->serial;
	return b;
}

static void tr_begin(struct tr *t, struct dbt *d, struct cpu *c, struct block *b, const struct code_page *page,
		     uint64_t va, uint32_t mode)
{
	t->d = d;
	t->c = c;
	t->b = b;
	t->mode = mode;
	t->m32 = mode_32bit(mode);
	t->word = t->m32 ? 4 : 8;
	t->wide = t->m32 ? 0 : ENC_W;
	t->page_va = va & ~0xfffull;
	t->code = b->code;
	t->page = page;
	t->n = t->idx = t->ncold = t->nexits = t->nrelocs = 0;
	t->fixed = t->m32; /* addresses in 32-bit code wrap */
	t->vec_known = t->x87_known = t->ended = false;
	t->stepwise = d->stepwise[stepwise_bit(b->page, va) / 64] & BIT(stepwise_bit(b->page, va) % 64);
	memset(t->shape, 0, sizeof(t->shape));
	t->lo = 0xffff;
	t->hi = 0;
}

static bool emit_block(struct tr *t, struct block *b, size_t room)
{
	struct dbt *d = t->d;

	t->e = (struct emit){ .base = d->rw, .p = d->rw + b->start, .end = d->rw + b->start + room };
	lower_all(t);
	if (!finish(t, b) || t->e.full) {
		give_back_slots(t);
		return false;
	}
	b->ninsns = (uint8_t)t->n;
	b->lo = t->lo;
	b->hi = t->hi;
	b->end = (uint32_t)(t->e.p - d->rw);
	for (unsigned n = 0; n < b->nexits; n++)
		exit_slot_attach(d, &b->exits[n]);
	return true;
}

/* Where code of a guest page lies, and which RAM page that is; NULL: nothing to translate. */
static const uint8_t *page_code(struct cpu *c, uint64_t page, uint64_t *ram_page)
{
	const struct mem_range *r = page == NO_PAGE ? NULL : mem_find(c->mem, page);

	if (!r || r->kind == MEM_IO || !range_fits(page - r->start, 4096, r->size) ||
	    (r->ram_offset + (page - r->start)) & 0xfff)
		return NULL;
	*ram_page = (r->ram_offset + (page - r->start)) >> 12;
	return r->host + (page - r->start);
}

/* Room, and the pages' stores seen, with the lock held without a break since. */
static uint8_t *prepare(struct dbt *d, struct cpu *c, const uint64_t ram_page[2], unsigned pages, size_t *room)
{
	for (unsigned tries = 0; tries < 4; tries++) {
		uint64_t drops = d->drops;
		uint8_t *at;

		for (unsigned n = 0; n < pages; n++)
			smc_protect(d, c, ram_page[n]);
		at = dbt_cache_room(d, c, BLOCK_ROOM, room);
		if (!at || d->drops == drops)
			return at;
	}
	return NULL; /* somebody keeps writing there */
}

/* Decoded and lowered. False: there is nothing here that could be, or no memory. */
static bool block_make(struct dbt *d, struct cpu *c, struct block *b, uint64_t page2, const uint8_t *second, size_t room)
{
	const struct code_page *begun = code_page_of(d, b->ram_page);
	unsigned at = b->va & 0xfff;
	struct tr *t = d->tr;

	if (!begun)
		return false;
	tr_begin(t, d, c, b, begun, b->va, b->mode);
	decode(t, at);
	if (!t->n && second && decode_straddling(t, at, second))
		b->page2 = page2;
	if (!t->n)
		return false;
	liveness(t);
	plan_swaps(t);
	plan_runs(t);
	if (!emit_block(t, b, room))
		return false;
	clone_remember(t, b);
	return true;
}

struct block *translate(struct dbt *d, struct cpu *c, uint64_t va, uint64_t page, uint64_t page2, uint32_t mode)
{
	uint64_t ram_page[2];
	const uint8_t *code = page_code(c, page, &ram_page[0]), *second = page_code(c, page2, &ram_page[1]);
	uint64_t drops = d->drops;
	struct cache_mark before;
	struct block *b;
	uint8_t *at;
	size_t room;

	if (!code || (mode_32bit(mode) && va >= LAST_PAGE_32))
		return NULL;
	at = prepare(d, c, ram_page, second ? 2 : 1, &room);
	if (!at)
		return NULL;
	blocks_fit(d);
	b = d->drops == drops ? NULL : block_find(d, page, page2, va, mode); /* another vCPU was faster? */
	if (b)
		return b;
	before = dbt_cache_mark(d);
	b = block_new(d, va, page, mode, code, ram_page[0]);
	if (!b)
		return NULL;
	b->start = (uint32_t)(at - d->rw);
	if (!clone_block(d, b, room) && !block_make(d, c, b, page2, second, room)) {
		dbt_cache_undo(d, before);
		return NULL;
	}
	dbt_cache_commit(d, b, b->end);
	block_insert(d, b, ram_page[1]);
	d->counters.blocks++;
	d->counters.guest_insns += b->ninsns;
	d->counters.host_bytes += b->end - b->start;
	return b;
}
