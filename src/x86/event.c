/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events through the IDT or IVT. An event underway is a struct event; event_once() tries to deliver it with the
 * stack frame its mode wants, and gives CPU_FAULT when that meets an exception of its own, which event_deliver()
 * then combines with it: the second alone, a double fault, or shutdown.
 */
#include "x86/cpu-trace.h"
#include "x86/event.h"
#include "x86/private.h"
#include "x86/pv.h"

#define IVT_ENTRY 4u
#define DR6_BS BIT(14)
#define DR7_GD BIT(13)

enum event_kind { EVENT_FAULT, EVENT_TRAP, EVENT_SOFT, EVENT_INTERRUPT, EVENT_NMI };

struct event {
	enum event_kind kind;
	uint8_t vector;
	bool has_error;
	uint32_t error;
	bool int_n; /* the INT n instruction: what v86 mode treats apart */
	uint8_t len; /* of the instruction that rip has passed already */
};

/* EXT bit of error codes: the event did not come from an instruction that asked for it. */
static unsigned event_ext(const struct event *e)
{
	return e->kind != EVENT_SOFT;
}

static int raise_idt(struct cpu *c, enum x86_vector vector, const struct event *e)
{
	return cpu_raise_error(c, vector, (uint32_t)e->vector << 3 | 2 | event_ext(e));
}

/* RF in the frame, so that the instruction is not stopped again by its own breakpoint when it is restarted. */
static uint64_t frame_flags(const struct cpu *c, const struct event *e)
{
	return c->s.rflags | (e->kind == EVENT_FAULT && e->vector != VEC_DB ? FLAG_RF : 0);
}

static void enter(struct cpu *c, uint64_t clear)
{
	cpu_set_rflags(c, c->s.rflags & ~(FLAG_TF | FLAG_NT | FLAG_VM | FLAG_RF | clear));
}

/* ---- real mode, and v86 programs' own interrupt tables */

static int vector_through_ivt(struct cpu *c, const struct event *e, uint64_t table, uint64_t flags, uint64_t clear)
{
	struct stack k = stack_current(c);
	uint16_t entry[2];
	int r = mode_v86(c) ? cpu_read_as(c, 3, table + e->vector * IVT_ENTRY, entry, 4) :
			      cpu_read_system(c, table + e->vector * IVT_ENTRY, entry, 4);

	if (!r)
		r = stack_push(&k, 2, flags);
	if (!r)
		r = stack_push(&k, 2, c->s.seg[SEG_CS].selector);
	if (!r)
		r = stack_push(&k, 2, c->s.rip);
	if (r)
		return r;
	stack_commit(&k);
	if (mode_v86(c)) {
		segment_load_v86(c, SEG_CS, entry[1]);
	} else {
		c->s.seg[SEG_CS].selector = entry[1];
		c->s.seg[SEG_CS].base = (uint32_t)entry[1] << 4;
	}
	c->s.rip = entry[0];
	cpu_set_rflags(c, c->s.rflags & ~clear);
	return CPU_OK;
}

static int event_real(struct cpu *c, const struct event *e)
{
	if (e->vector * IVT_ENTRY + IVT_ENTRY - 1 > c->s.idtr.limit)
		return cpu_raise_error(c, VEC_GP, (uint32_t)e->vector << 3 | 2);
	return vector_through_ivt(c, e, c->s.idtr.base, c->s.rflags, FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF);
}

/* Does the TSS's bitmap leave this INT n to the v86 program's own table? */
static int vme_redirects(struct cpu *c, uint8_t vector, bool *yes)
{
	const struct x86_segment *tr = &c->s.seg[SEG_TR];
	uint16_t io_map;
	uint8_t byte;
	int r;

	*yes = false;
	if (!(c->s.cr4 & CR4_VME) || !(tr->attr & SEG_ATTR_P) || tr->limit < 103)
		return CPU_OK;
	r = cpu_read_system(c, tr->base + 102, &io_map, 2);
	if (r)
		return r;
	if (io_map < 32 || io_map - 32u + vector / 8 > tr->limit)
		return raise_gp0(c);
	r = cpu_read_system(c, tr->base + io_map - 32 + vector / 8, &byte, 1);
	*yes = !r && !(byte >> (vector & 7) & 1);
	return r;
}

/* INT n in v86 mode. *done: the program's own handler has it; otherwise it goes on through the IDT. */
static int event_v86_int(struct cpu *c, const struct event *e, bool *done)
{
	uint64_t flags = c->s.rflags, clear = FLAG_TF;
	int r = vme_redirects(c, e->vector, done);

	if (r || !*done)
		return r ? r : mode_iopl(c) < 3 ? raise_gp0(c) : CPU_OK;
	if (mode_iopl(c) == 3) {
		clear |= FLAG_IF;
	} else {
		flags = (flags & ~FLAG_IF) | FLAG_IOPL | (flags & FLAG_VIF ? FLAG_IF : 0);
		clear |= FLAG_VIF;
	}
	return vector_through_ivt(c, e, 0, flags, clear);
}

/* ---- through gates */

struct idt_gate {
	unsigned type, ist;
	uint16_t selector;
	uint64_t offset;
	unsigned size; /* of what is pushed */
};

static int gate_read(struct cpu *c, const struct event *e, struct idt_gate *g)
{
	bool lma = x86_long_mode(&c->s);
	unsigned entry = lma ? 16 : 8;
	uint64_t low, high = 0;
	int r;

	if (e->vector * entry + entry - 1 > c->s.idtr.limit)
		return raise_idt(c, VEC_GP, e);
	r = cpu_read_system(c, c->s.idtr.base + e->vector * entry, &low, 8);
	if (!r && lma)
		r = cpu_read_system(c, c->s.idtr.base + e->vector * entry + 8, &high, 8);
	if (r)
		return r;
	g->type = low >> 40 & 31;
	g->ist = lma ? low >> 32 & 7 : 0;
	g->selector = (uint16_t)(low >> 16);
	g->offset = (low & 0xffff) | (low >> 32 & 0xffff0000) | high << 32;
	g->size = lma ? 8 : g->type >= DESC_INT32 ? 4 : 2;
	if (g->size == 2)
		g->offset &= 0xffff;
	if (g->type != DESC_INT32 && g->type != DESC_TRAP32 &&
	    (lma || (g->type != DESC_INT16 && g->type != DESC_TRAP16 && g->type != DESC_TASK)))
		return raise_idt(c, VEC_GP, e);
	if (e->kind == EVENT_SOFT && (low >> 45 & 3) < c->s.cpl)
		return raise_idt(c, VEC_GP, e);
	return low >> 47 & 1 ? CPU_OK : raise_idt(c, VEC_NP, e);
}

static int gate_target(struct cpu *c, const struct idt_gate *g, unsigned ext, struct desc *code)
{
	int r;

	if (!(g->selector & 0xfffc))
		return cpu_raise_error(c, VEC_GP, ext);
	r = desc_read(c, g->selector, VEC_GP, ext, code);
	if (r)
		return r;
	if (!desc_is_code(code) || desc_dpl(code) > c->s.cpl)
		return raise_selector(c, VEC_GP, g->selector, ext);
	if (x86_long_mode(&c->s) && (!(code->low >> 53 & 1) || code->low >> 54 & 1))
		return raise_selector(c, VEC_GP, g->selector, ext);
	if (!desc_present(code))
		return raise_selector(c, VEC_NP, g->selector, ext);
	if (mode_v86(c) && (desc_is_conforming(code) || desc_dpl(code)))
		return raise_selector(c, VEC_GP, g->selector, ext);
	return CPU_OK;
}

/* SS and SP of the level left (and a v86 program's data segments), flags, CS, IP, error code. */
static int frame_push(struct cpu *c, struct stack *k, const struct event *e, unsigned size, bool with_stack)
{
	static const uint8_t order[] = { SEG_GS, SEG_FS, SEG_DS, SEG_ES };
	int r = CPU_OK;

	for (unsigned i = 0; mode_v86(c) && i < ARRAY_LEN(order) && !r; i++)
		r = stack_push(k, size, c->s.seg[order[i]].selector);
	if (with_stack && !r)
		r = stack_push(k, size, c->s.seg[SEG_SS].selector);
	if (with_stack && !r)
		r = stack_push(k, size, c->s.gpr[RSP]);
	if (!r)
		r = stack_push(k, size, frame_flags(c, e));
	if (!r)
		r = stack_push(k, size, c->s.seg[SEG_CS].selector);
	if (!r)
		r = stack_push(k, size, c->s.rip);
	if (!r && e->has_error)
		r = stack_push(k, size, e->error);
	return r;
}

static void commit_stack(struct cpu *c, const struct stack *k, bool switched)
{
	static const uint8_t data[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };

	if (switched)
		c->s.seg[SEG_SS] = k->ss;
	for (unsigned i = 0; mode_v86(c) && i < ARRAY_LEN(data); i++)
		c->s.seg[data[i]] = (struct x86_segment){ 0 };
	stack_commit(k);
}

static int event_gate(struct cpu *c, const struct event *e)
{
	unsigned ext = event_ext(e), cpl;
	struct idt_gate g;
	struct desc code, ss;
	struct stack k;
	bool inner, lma = x86_long_mode(&c->s);
	int r = gate_read(c, e, &g);

	if (r)
		return r;
	if (g.type == DESC_TASK)
		return task_switch(c, g.selector, TASK_INTERRUPT, e->has_error, e->error);
	r = gate_target(c, &g, ext, &code);
	if (r)
		return r;
	cpl = desc_is_conforming(&code) ? c->s.cpl : desc_dpl(&code);
	inner = cpl < c->s.cpl;
	if (inner || g.ist) {
		r = stack_from_tss(c, cpl, g.ist, ext, &k, &ss);
	} else {
		k = stack_current(c);
		k.error = ext;
	}
	if (r)
		return r;
	if (lma) {
		k.width = 8;
		k.sp &= ~15ull;
	}
	r = frame_push(c, &k, e, g.size, inner || lma);
	if (!r)
		r = code_check_offset(c, &code, g.offset);
	if (!r)
		r = desc_set_accessed(c, &code);
	if (r)
		return r;
	commit_stack(c, &k, inner);
	enter(c, g.type & 1 ? 0 : FLAG_IF);
	return code_load(c, &code, cpl, g.offset);
}

static int event_once(struct cpu *c, const struct event *e)
{
	if (mode_real(c))
		return event_real(c, e);
	if (mode_v86(c) && e->int_n) {
		bool done;
		int r = event_v86_int(c, e, &done);

		if (r || done)
			return r;
	}
	return event_gate(c, e);
}

/* ---- exceptions during delivery */

static bool contributory(uint8_t vector)
{
	return vector == VEC_DE || (vector >= VEC_TS && vector <= VEC_GP);
}

static bool double_fault(const struct event *first, uint8_t second)
{
	if (first->kind != EVENT_FAULT)
		return false;
	if (first->vector == VEC_PF)
		return second == VEC_PF || contributory(second);
	return contributory(first->vector) && contributory(second);
}

/* What an exception does besides going to its handler. */
static void fault_effects(struct cpu *c)
{
	if (cpu_traces(c, TRACE_exc))
		trace_exception(c);
	if (c->fault.vector == VEC_PF)
		c->s.cr2 = c->fault.cr2;
	if (c->fault.vector != VEC_DB)
		return;
	c->s.dr[6] |= c->fault.dr6;
	c->s.dr[7] &= ~DR7_GD;
}

static int shutdown(struct cpu *c)
{
	if (cpu_traces(c, TRACE_exc))
		trace_line(c->machine->trace, TRACE_exc, "cpu %u triple fault: shutdown", c->id);
	c->s.activity = ACTIVITY_SHUTDOWN;
	c->stop = STOP_SHUTDOWN;
	return CPU_STOP;
}

static int event_deliver(struct cpu *c, struct event e)
{
	int r;

	c->s.shadow = SHADOW_NONE;
	if (c->s.activity == ACTIVITY_HLT)
		c->s.activity = ACTIVITY_RUN;
	for (;;) {
		r = event_once(c, &e);
		if (r != CPU_FAULT)
			return r == CPU_STOP ? r : CPU_BOUNDARY;
		if (e.kind == EVENT_FAULT && e.vector == VEC_DF)
			return shutdown(c);
		c->s.rip -= e.len;
		fault_effects(c);
		if (double_fault(&e, c->fault.vector))
			e = (struct event){ .vector = VEC_DF, .has_error = true };
		else
			e = (struct event){ .vector = c->fault.vector,
					    .has_error = c->fault.has_error,
					    .error = c->fault.error };
		e.kind = EVENT_FAULT;
	}
}

int event_deliver_fault(struct cpu *c)
{
	struct event e = { .vector = c->fault.vector, .has_error = c->fault.has_error, .error = c->fault.error };

	c->data_hits = 0; /* of an instruction that has not happened */
	if (c->fault.soft) {
		e.kind = EVENT_SOFT;
		e.int_n = c->fault.len > 1;
		e.len = c->fault.len;
	}
	fault_effects(c);
	return event_deliver(c, e);
}

int event_deliver_interrupt(struct cpu *c, uint8_t vector)
{
	if (cpu_traces(c, TRACE_irq))
		trace_interrupt(c, "irq", vector);
	c->fault.soft = false;
	return event_deliver(c, (struct event){ .kind = EVENT_INTERRUPT, .vector = vector });
}

int event_deliver_nmi(struct cpu *c)
{
	if (cpu_traces(c, TRACE_irq))
		trace_interrupt(c, "nmi", VEC_NMI);
	c->fault.soft = false;
	c->s.nmi_mask = 1;
	return event_deliver(c, (struct event){ .kind = EVENT_NMI, .vector = VEC_NMI });
}

int event_debug_trap(struct cpu *c, uint64_t dr6)
{
	c->fault = (struct cpu_fault){ .vector = VEC_DB, .dr6 = dr6 | c->data_hits };
	c->data_hits = 0;
	fault_effects(c);
	return event_deliver(c, (struct event){ .kind = EVENT_TRAP, .vector = VEC_DB });
}

/* ---- between instructions */

bool event_interrupt_waiting(struct cpu *c)
{
	return c->bus && c->bus->irq_pending && c->bus->irq_pending(c->ctx) >= 0;
}

static int stop(struct cpu *c, enum cpu_stop why)
{
	c->stop = why;
	return CPU_STOP;
}

static void attention_clear(struct cpu *c, uint32_t what)
{
	atomic_fetch_and(&c->attention, ~what);
}

/* INIT and SIPI. CPU_OK: nothing of the kind. */
static int attend_startup(struct cpu *c, uint32_t attention)
{
	if (attention & ATT_INIT) {
		attention_clear(c, ATT_INIT);
		if (cpu_traces(c, TRACE_irq))
			trace_interrupt(c, "init", 0);
		x86_state_init_signal(&c->s, c->id == 0);
		if (c->bus && c->bus->init)
			c->bus->init(c->ctx);
		tlb_flush_all(c);
		tlb_select(c);
		return CPU_BOUNDARY;
	}
	if (!(attention & ATT_SIPI))
		return CPU_OK;
	attention_clear(c, ATT_SIPI);
	if (c->s.activity != ACTIVITY_WAIT_SIPI)
		return CPU_OK;
	if (cpu_traces(c, TRACE_irq))
		trace_interrupt(c, "sipi", c->sipi_vector);
	c->s.seg[SEG_CS].selector = (uint16_t)(c->sipi_vector << 8);
	c->s.seg[SEG_CS].base = (uint32_t)c->sipi_vector << 12;
	c->s.rip = 0;
	c->s.activity = ACTIVITY_RUN;
	return CPU_BOUNDARY;
}

/* A debugger's watchpoint, or data breakpoints of the instruction before. */
static int attend_debug(struct cpu *c)
{
	attention_clear(c, ATT_DEBUG);
	if (c->debug.was_hit) {
		c->debug.was_hit = false;
		atomic_fetch_or(&c->attention, c->data_hits ? ATT_DEBUG : 0);
		return stop(c, STOP_DEBUG);
	}
	/* after MOV SS it waits for the next instruction, which an exact step ends with it */
	return c->data_hits && !(c->s.shadow & SHADOW_MOVSS) ? event_debug_trap(c, 0) : CPU_OK;
}

static int attend_interrupts(struct cpu *c, uint32_t attention)
{
	int vector;

	if (attention & ATT_NMI && !c->s.nmi_mask && !c->s.shadow) {
		attention_clear(c, ATT_NMI);
		return event_deliver_nmi(c);
	}
	if (attention & ATT_IRQ)
		attention_clear(c, ATT_IRQ); /* the interrupt controller remembers */
	if (!(c->s.rflags & FLAG_IF) || c->s.shadow || !event_interrupt_waiting(c))
		return CPU_OK;
	pv_steal_tick(c);
	vector = c->bus->irq_take(c->ctx);
	if (vector < 0)
		return CPU_OK;
	return event_interrupt_quick(c, (uint8_t)vector) ? CPU_BOUNDARY : event_deliver_interrupt(c, (uint8_t)vector);
}

int event_attend(struct cpu *c)
{
	uint32_t attention = atomic_load(&c->attention);
	int r;

	if (attention & ATT_CALLER)
		return stop(c, STOP_KICK);
	r = attend_startup(c, attention);
	if (r)
		return r;
	if (c->s.activity == ACTIVITY_WAIT_SIPI)
		return stop(c, STOP_HLT);
	if (c->s.activity == ACTIVITY_SHUTDOWN)
		return stop(c, STOP_SHUTDOWN);
	if (attention & ATT_SMI)
		attention_clear(c, ATT_SMI); /* there is no system management mode */
	if (attention & ATT_DEBUG) {
		r = attend_debug(c);
		if (r)
			return r;
	}
	r = attend_interrupts(c, attention);
	if (r)
		return r;
	return c->s.activity == ACTIVITY_HLT ? stop(c, STOP_HLT) : CPU_OK;
}
