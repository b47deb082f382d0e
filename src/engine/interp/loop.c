/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interpreter's loop. The quick way runs blocks of decoded instructions and looks at the
 * attention word between them. Whatever needs exactness by the instruction (interrupt shadow, TF,
 * RF, hardware and debugger's breakpoints, traces) takes step_exact(), one instruction at a time;
 * handlers return CPU_BOUNDARY when they may have changed which way is right, or mode, paging, or
 * code.
 */
#include <errno.h>
#include <stdlib.h>
#include "base/err.h"
#include "engine/interp/cache.h"
#include "engine/interp/evex.h"
#include "engine/interp/loop.h"
#include "engine/interp/private.h"
#include "x86/cpu-trace.h"
#include "x86/event.h"

#define DR6_BS BIT(14)

/* Where and how the CPU executes, fixed between boundaries. */
struct where {
	enum insn_mode mode;
	uint64_t base, limit; /* of CS; 64-bit: 0 and all */
};

static struct where where_now(const struct cpu *c)
{
	const struct x86_segment *cs = &c->s.seg[SEG_CS];

	if (x86_64bit(&c->s))
		return (struct where){ MODE_64, 0, ~0ull };
	return (struct where){ cs->attr & SEG_ATTR_DB ? MODE_32 : MODE_16, cs->base, cs->limit };
}

INLINE gva_t linear_of(const struct where *w, uint64_t rip)
{
	return w->mode == MODE_64 ? rip : (uint32_t)(w->base + rip);
}

/* Physical address of code at `at`. */
INLINE int fetch_translate(struct cpu *c, gva_t at, gpa_t *out)
{
	const struct tlb_fetch *f = c->tlb.fetch;
	unsigned k = (at >> 12) & (TLB_FETCH_ENTRIES - 1);
	gpa_t page;
	int r;

	if (likely(f->tag[k] == (at & ~0xfffull))) {
		*out = f->page[k] | (at & 0xfff);
		return CPU_OK;
	}
	r = cpu_fetch_page(c, at, &page);
	*out = (page & ~0xfffull) | (at & 0xfff);
	return r;
}

/* Host bytes of a physical page, RAM or ROM; NULL for anything else. */
static const uint8_t *page_host(struct cpu *c, gpa_t page, uint64_t *ram_page)
{
	const struct mem_range *range = mem_find(c->mem, page);

	if (!range || range->kind == MEM_IO || range->size - (page - range->start) < 4096)
		return NULL;
	*ram_page = (range->ram_offset + (page - range->start)) >> 12;
	return range->host + (page - range->start);
}

/* Code bytes without any cache: up to 15, fetching the second page only if `room` bytes do not
 * suffice. */
static void fetch_bytes(struct cpu *c, gpa_t at, uint8_t *bytes, unsigned count)
{
	uint64_t ram_page;
	const uint8_t *host = page_host(c, at & ~0xfffull, &ram_page);

	if (host) {
		memcpy(bytes, host + (at & 0xfff), count);
		return;
	}
	for (unsigned n = 0; n < count; n++) /* executing from a device, or from nothing */
		bytes[n] = (uint8_t)mem_read(c->mem, at + n, 1);
}

/* The bytes at rip. *room: how many are on the first page; *second: the next page's address, if
 * fetched. */
static int fetch_both(struct cpu *c, const struct where *w, gpa_t at, uint8_t bytes[15],
		      unsigned room, gpa_t *second)
{
	gva_t next = linear_of(w, c->s.rip + room);
	int r = fetch_translate(c, next, second);

	if (r)
		return r;
	fetch_bytes(c, at, bytes, room);
	fetch_bytes(c, *second, bytes + room, 15 - room);
	return CPU_OK;
}

/* Fetch and decode one instruction at rip into *i, keeping nothing. */
static int fetch_one(struct cpu *c, const struct where *w, struct insn *i)
{
	uint8_t bytes[15];
	unsigned room;
	gpa_t at, second;
	int r = fetch_translate(c, linear_of(w, c->s.rip), &at);

	if (r)
		return r;
	room = MIN(4096 - (unsigned)(at & 0xfff), 15u);
	fetch_bytes(c, at, bytes, room);
	if (insn_prepare(i, bytes, room, w->mode) == INSN_TRUNCATED) {
		r = fetch_both(c, w, at, bytes, room, &second);
		if (r)
			return r;
		insn_prepare(i, bytes, 15, w->mode);
	}
	if (w->mode != MODE_64 && c->s.rip + i->len - 1 > w->limit)
		return raise_gp0(c);
	return CPU_OK;
}

/* Does the instruction's own push or pop (of about 8 bytes) touch a non-canonical address? */
static bool stack_astray(const struct cpu *c, const struct insn *i)
{
	uint64_t sp = c->s.gpr[RSP];
	bool pops = i->op == OP_POP || i->op == OP_RET || (i->op >= OP_POPF && i->op <= OP_POPFQ);

	if ((i->op < OP_PUSH || i->op > OP_LEAVE) && i->op != OP_CALL && i->op != OP_RET)
		return false;
	return pops ? !canonical(c, sp) || !canonical(c, sp + 7)
		    : !canonical(c, sp - 8) || !canonical(c, sp - 1);
}

/* An instruction this ring may not execute at all: its #GP says nothing of its operand. */
static bool forbidden(const struct cpu *c, const struct insn *i)
{
	switch (i->op) {
	case OP_LGDT:
	case OP_LIDT:
	case OP_LLDT:
	case OP_LTR:
	case OP_LMSW:
	case OP_INVLPG:
	case OP_INVPCID:
	case OP_XSAVES:
	case OP_XSAVES64:
	case OP_XRSTORS:
	case OP_XRSTORS64:
		return c->s.cpl != 0;
	case OP_SGDT:
	case OP_SIDT:
	case OP_SLDT:
	case OP_STR:
	case OP_SMSW:
		return c->s.cpl != 0 && c->s.cr4 & CR4_UMIP;
	default:
		return false;
	}
}

/* 64-bit mode: a non-canonical address of the stack is #SS, not #GP. */
static void fault_refine(struct cpu *c, const struct insn *i)
{
	bool operand = false;

	if (c->fault.vector != VEC_GP || c->fault.error || i->mode != MODE_64 || forbidden(c, i))
		return;
	if (i->op == OP_ENTER || i->op == OP_LEAVE) { /* nothing else about them can be #GP */
		c->fault.vector = VEC_SS;
		return;
	}
	if (i->flags & INSN_MEM && i->op != OP_LEA) {
		uint64_t at = operand_offset(c, i);

		operand = !canonical(c, at) || !canonical(c, at + MAX(i->memsize, 1u) - 1) ||
			  (i->op >= OP_BT && i->op <= OP_BTC) || /* by the bit offset */
			  i->flags & INSN_VSIB;			 /* by an element's index */
	}
	if (operand ? i->seg == SEG_SS : stack_astray(c, i))
		c->fault.vector = VEC_SS;
}

int interp_exec(struct cpu *c, const struct insn *i)
{
	uint64_t rip = c->s.rip;
	int r;

	c->s.rip = rip + i->len;
	if (i->mode != MODE_64)
		c->s.rip = (uint32_t)c->s.rip;
	r = i->exec(c, i);
	if (likely(!r))
		return r;
	if (r == INTERP_TAKEN)
		return CPU_OK;
	if (r == CPU_FAULT) {
		c->s.rip = rip;
		fault_refine(c, i);
	}
	return r;
}

/* Instruction breakpoints: the debugger's stop before, DR0..3's are faults that RF holds off. */
static int breakpoints(struct interp *in, struct cpu *c, gva_t at)
{
	if (c->debug.active && !(in->resumed && c->s.rip == in->resumed_rip)) {
		for (unsigned n = 0; n < c->debug.nbreaks; n++) {
			if (c->debug.breaks[n] != at)
				continue;
			c->stop = STOP_DEBUG;
			return CPU_STOP;
		}
	}
	in->resumed = false;
	if (!(c->s.dr[7] & 0xff) || c->s.rflags & FLAG_RF)
		return CPU_OK;
	for (unsigned n = 0; n < 4; n++) {
		if (!(c->s.dr[7] >> (2 * n) & 3) || c->s.dr[7] >> (16 + 4 * n) & 15 ||
		    c->s.dr[n] != at)
			continue;
		c->fault = (struct cpu_fault){ .vector = VEC_DB, .dr6 = BIT(n) };
		return CPU_FAULT;
	}
	return CPU_OK;
}

/* Does the instruction, executed with TF set, end in a single-step trap? Events and SYSCALL take TF
 * away. */
static bool step_traps(const struct cpu *c, const struct insn *i)
{
	if (c->s.shadow & SHADOW_MOVSS)
		return false;
	if (i->class != CLASS_FAR || (i->op >= OP_JMP_FAR && i->op <= OP_IRETQ))
		return true;
	return c->s.rflags & FLAG_TF;
}

/* A trap after the instruction: data breakpoints met (DR6 bits noted by watch.c) and single step.
 */
static int step_trap(struct cpu *c, const struct insn *i, uint64_t flags)
{
	uint64_t dr6 = c->data_hits;
	int r;

	if (c->s.shadow & SHADOW_MOVSS) /* MOV SS holds its own data breakpoint back too */
		return CPU_OK;
	c->data_hits = 0;
	atomic_fetch_and(&c->attention, ~(uint32_t)ATT_DEBUG);
	if (flags & FLAG_TF && step_traps(c, i))
		dr6 |= DR6_BS;
	if (!dr6)
		return CPU_OK;
	r = event_debug_trap(c, dr6);
	return r == CPU_FAULT ? event_deliver_fault(c) : r;
}

static int step_finish(struct cpu *c, const struct insn *i, int r, uint64_t start, uint64_t flags)
{
	/* a repeated string instruction that pauses has not been completed: RF holds until it is */
	if (i->class == CLASS_STRING && c->s.rip == start && flags & FLAG_RF)
		c->s.rflags |= FLAG_RF;
	if (r == CPU_STOP)
		return r;
	if (step_trap(c, i, flags) == CPU_STOP)
		return CPU_STOP;
	if (c->debug.active && (c->debug.step || c->debug.was_hit)) {
		c->debug.was_hit = false;
		c->stop = STOP_DEBUG;
		return CPU_STOP;
	}
	return CPU_BOUNDARY; /* what had to be exact may be over */
}

static bool needs_exact(const struct interp *in, const struct cpu *c)
{
	return c->s.shadow || c->s.rflags & (FLAG_TF | FLAG_RF) || c->s.dr[7] & 0xff ||
	       c->debug.active || cpu_traces(c, TRACE_insn);
}

/* The block at rip's instruction crosses the page: NULL when it cannot be kept, or on a fault (*r).
 */
static struct block *block_crossing(struct interp *in, struct cpu *c, const struct where *w,
				    gpa_t at, int *r)
{
	unsigned room = 4096 - (unsigned)(at & 0xfff);
	uint8_t bytes[15];
	const uint8_t *first, *next;
	uint64_t ram_first, ram_next;
	struct block *b;
	gpa_t second;

	*r = fetch_both(c, w, at, bytes, room, &second);
	if (*r)
		return NULL;
	first = page_host(c, at & ~0xfffull, &ram_first);
	next = page_host(c, second, &ram_next);
	if (!first || !next)
		return NULL;
	b = cache_build_crossing(in->cache, at, w->mode, bytes, room, second);
	if (!b || b->page[1] == PAGE_NONE)
		return NULL;
	if (!code_register(in->registry, c, ram_first, first, (unsigned)(at & 0xfff), room) ||
	    !code_register(in->registry, c, ram_next, next, 0, b->bytes - room) ||
	    memcmp(first + (at & 0xfff), bytes, room) ||
	    memcmp(next, bytes + room, b->bytes - room))
		return NULL;
	cache_insert(in->cache, b);
	return b;
}

static bool block_unchanged(const struct block *b, const uint8_t *host)
{
	for (unsigned n = 0; n < b->count; n++) {
		if (memcmp(b->insns[n].bytes, host, b->insns[n].len))
			return false;
		host += b->insns[n].len;
	}
	return true;
}

/* Decode what is at physical address `at`, for keeping. NULL: execute uncached; *r is set on a
 * fault. */
static struct block *block_new(struct interp *in, struct cpu *c, const struct where *w, gpa_t at,
			       int *r)
{
	unsigned offset = (unsigned)(at & 0xfff);
	const uint8_t *host;
	uint64_t ram_page;
	struct block *b;

	*r = CPU_OK;
	if (!in->cache)
		return NULL;
	host = page_host(c, at & ~0xfffull, &ram_page);
	if (!host)
		return NULL;
	b = cache_build(in->cache, at, w->mode, host + offset, 4096 - offset);
	if (!b)
		return block_crossing(in, c, w, at, r);
	if (!b->bytes) /* one instruction that is too long */
		return NULL;
	if (!code_register(in->registry, c, ram_page, host, offset, b->bytes) ||
	    !block_unchanged(b, host + offset))
		return NULL;
	cache_insert(in->cache, b);
	return b;
}

/* A block that crosses is right only while the second page is where it was. */
static bool crossing_holds(struct cpu *c, const struct where *w, const struct block *b, int *r)
{
	gpa_t second;

	*r = fetch_translate(c, (linear_of(w, c->s.rip) | 0xfff) + 1, &second);
	return !*r && second == b->page[1];
}

/*
 * The block at rip, or NULL: to be executed uncached, or *r is a fault. guess, which may be NULL,
 * is of the same mode: it saves the search, whose tables rarely are in the processor's cache.
 */
INLINE struct block *block_at(struct interp *in, struct cpu *c, const struct where *w,
			      struct block *guess, int *r)
{
	struct block *b;
	gpa_t at;

	*r = fetch_translate(c, linear_of(w, c->s.rip), &at);
	if (unlikely(*r))
		return NULL;
	if (guess && guess->at == at && !guess->dead)
		b = guess;
	else
		b = in->cache ? cache_find(in->cache, at, w->mode) : NULL;
	if (unlikely(!b))
		b = block_new(in, c, w, at, r);
	if (unlikely(b && b->page[1] != PAGE_NONE && !crossing_holds(c, w, b, r)))
		return NULL;
	if (unlikely(b && w->mode != MODE_64 && c->s.rip + b->bytes - 1 > w->limit))
		return NULL;
	return b;
}

/*
 * The instruction at rip: from the cache where only a shadow ends up here (STI and what follows it
 * recur), else fresh, so that stepping through code does not fill the cache with a block for each
 * instruction.
 */
static int step_fetch(struct interp *in, struct cpu *c, const struct where *w,
		      const struct insn **i, struct insn *fresh)
{
	if (c->s.shadow && !(c->s.rflags & FLAG_TF) && !c->debug.active &&
	    !cpu_traces(c, TRACE_insn)) {
		int r;
		const struct block *b = block_at(in, c, w, NULL, &r);

		if (r)
			return r;
		if (b) {
			*i = b->insns;
			return CPU_OK;
		}
	}
	return fetch_one(c, w, fresh);
}

/* One instruction, with everything that belongs to it. CPU_BOUNDARY or CPU_STOP. */
static int step_exact(struct interp *in, struct cpu *c)
{
	struct where w = where_now(c);
	uint64_t start = c->s.rip, flags = c->s.rflags;
	struct insn fresh;
	const struct insn *i = &fresh;
	int r = breakpoints(in, c, linear_of(&w, start));

	if (r == CPU_STOP)
		return r;
	if (!r)
		r = step_fetch(in, c, &w, &i, &fresh);
	if (!r) {
		if (cpu_traces(c, TRACE_insn))
			trace_insn(c, i);
		c->s.shadow = SHADOW_NONE;
		c->s.rflags &= ~FLAG_RF; /* IRET may set it anew, for what follows */
		c->insns++;
		r = interp_exec(c, i);
		if (r != CPU_FAULT)
			return step_finish(c, i, r, start, flags);
		c->s.rflags |= flags & FLAG_RF;
	}
	return event_deliver_fault(c);
}

int interp_step(struct interp *in, struct cpu *c)
{
	return step_exact(in, c);
}

/*
 * The block that follows b, when it was found before and lies in the same page: between boundaries
 * the translation of a page does not change, so its physical place follows from b's.
 */
INLINE struct block *block_linked(const struct block *b, gva_t from, gva_t to)
{
	unsigned offset = (unsigned)(to & 0xfff);

	if ((from ^ to) >> 12)
		return NULL;
	if (b->link_offset[0] == offset)
		return b->link[0];
	return b->link_offset[1] == offset ? b->link[1] : NULL;
}

static void block_link(struct block *b, gva_t from, gva_t to, struct block *next)
{
	if ((from ^ to) >> 12) {
		b->guess = next;
		return;
	}
	if (next->page[0] != b->page[0] || b->page[1] != PAGE_NONE || next->page[1] != PAGE_NONE)
		return;
	b->link[1] = b->link[0];
	b->link_offset[1] = b->link_offset[0];
	b->link[0] = next;
	b->link_offset[0] = (uint16_t)(to & 0xfff);
}

/* Execute a block; rip is its start. CPU_OK: rip is where to go on. */
INLINE int block_run(struct cpu *c, const struct block *b, const struct insn **stopped,
		     uint64_t *at)
{
	const struct insn *i = b->insns, *end = i + b->count;
	uint64_t rip = c->s.rip;

	do {
		uint64_t next = rip + i->len;
		int r;

		c->s.rip = next;
		r = i->exec(c, i);
		if (unlikely(r)) {
			c->insns += i->slot;
			if (likely(r == INTERP_TAKEN))
				return CPU_OK;
			*stopped = i;
			*at = rip;
			return r;
		}
		rip = next;
	} while (++i != end);
	c->insns += b->count;
	return CPU_OK;
}

/* Blocks until something ends the quick way. Faults are delivered here. CPU_BOUNDARY or CPU_STOP.
 */
static int run_blocks(struct interp *in, struct cpu *c)
{
	const struct where w = where_now(c);
	const uint32_t watched = in->watched;
	struct block *b = NULL;
	gva_t from = 0;

	while (!(atomic_load_explicit(&c->attention, memory_order_relaxed) & watched)) {
		const struct insn *i;
		struct block *next;
		uint64_t rip;
		gva_t to;
		int r;

		if (w.mode != MODE_64)
			c->s.rip = (uint32_t)c->s.rip;
		to = linear_of(&w, c->s.rip);
		next = b ? block_linked(b, from, to) : NULL;
		if (unlikely(!next || next->dead ||
			     (w.mode != MODE_64 && c->s.rip + next->bytes - 1 > w.limit))) {
			next = block_at(in, c, &w, b ? b->guess : NULL, &r);
			if (unlikely(!next))
				return r ? event_deliver_fault(c) : step_exact(in, c);
			if (b && !b->dead)
				block_link(b, from, to, next);
		}
		b = next;
		from = to;
		r = block_run(c, b, &i, &rip);
		if (unlikely(r)) {
			if (r != CPU_FAULT)
				return r;
			c->s.rip = rip;
			fault_refine(c, i);
			return event_deliver_fault(c);
		}
	}
	return CPU_BOUNDARY;
}

/* At a boundary: what others asked for. CPU_OK goes on, CPU_STOP leaves. */
static int boundary(struct interp *in, struct cpu *c)
{
	for (;;) {
		uint32_t attention = atomic_load(&c->attention);
		int r;

		if (attention & ATT_FLUSH && in->registry)
			registry_boundary(in->registry, c);
		attention &= ~(uint32_t)ATT_FLUSH;
		in->watched = ~0u;
		if (!attention && c->s.activity == ACTIVITY_RUN &&
		    !(c->s.rflags & FLAG_IF && event_interrupt_waiting(c)))
			return CPU_OK;
		r = event_attend(c);
		if (r == CPU_STOP)
			return r;
		if (r == CPU_BOUNDARY)
			continue;
		/*
		 * A masked NMI is the one request that stays and must not hold us up. Any other bit
		 * that is set by now is new, and is looked at before the first instruction.
		 */
		in->watched = ~(atomic_load(&c->attention) & ATT_NMI);
		return CPU_OK;
	}
}

void interp_resume(struct interp *in, const struct cpu *c)
{
	/* after a halt or a kick the first instruction's breakpoint has not been reported yet */
	in->resumed = c->debug.active && c->stop == STOP_DEBUG;
	in->resumed_rip = c->s.rip; /* an interrupt taken first goes elsewhere */
}

int interp_run_on(struct interp *in, struct cpu *c, uint32_t unserved)
{
	in->watched = ~unserved;
	return needs_exact(in, c) ? step_exact(in, c) : run_blocks(in, c);
}

enum cpu_stop interp_run(struct interp *in, struct cpu *c)
{
	int r;

	interp_resume(in, c);
	c->stop = STOP_NONE;
	if (in->registry)
		registry_enter(in->registry, c);
	for (;;) {
		r = boundary(in, c);
		if (r == CPU_STOP)
			break;
		r = needs_exact(in, c) ? step_exact(in, c) : run_blocks(in, c);
		/* halted: an interrupt may be there already */
		if (r == CPU_STOP && (c->stop != STOP_HLT || c->s.activity == ACTIVITY_RUN))
			break;
	}
	if (in->registry)
		registry_exit(in->registry, c);
	return c->stop;
}

struct interp *interp_create(struct cpu *c, struct err *e)
{
	struct interp *in = calloc(1, sizeof(*in));

	if (!in) {
		err_set(e, ENOMEM, "interpreter: out of memory");
		return NULL;
	}
	in->cpu = c;
	if (c->machine->cpuid && c->machine->cpuid->has_avx512 && !c->evex)
		c->evex = evex_unit_create(e);
	if (c->machine->cpuid && c->machine->cpuid->has_avx512 && !c->evex) {
		free(in);
		return NULL;
	}
	c->evex_users++;
	return in;
}

struct interp *interp_create_keeping(struct cpu *c, struct code_registry *r, struct err *e)
{
	struct interp *in = interp_create(c, e);

	if (!in)
		return NULL;
	in->cache = cache_create(c->machine->ncpus);
	if (!in->cache) {
		free(in);
		err_set(e, ENOMEM, "interpreter: no memory for decoded instructions");
		return NULL;
	}
	in->registry = r;
	registry_join(r, in->cache, c);
	return in;
}

void interp_forget(struct interp *in)
{
	cache_drop_all(in->cache);
}

void interp_give_back(struct interp *in)
{
	cache_give_back(in->cache);
}

void interp_destroy(struct interp *in)
{
	if (!in)
		return;
	if (in->cache) {
		registry_leave(in->registry, in->cpu);
		cache_destroy(in->cache);
	}
	if (!--in->cpu->evex_users) {
		evex_unit_destroy(in->cpu->evex);
		in->cpu->evex = NULL;
	}
	free(in);
}
