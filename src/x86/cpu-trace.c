/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trace lines about a CPU. They hold no times and no host addresses, so that those of two runs can be compared.
 *
 * A line of the instruction trace is written before the instruction is executed. Behind it stand the registers that have
 * changed since the CPU's line before: what the previous instruction, or an event after it, has done. The first line
 * has them all.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "isa/insn.h"
#include "x86/cpu-trace.h"

struct trace_last {
	uint64_t gpr[16], rflags;
	union x86_vreg v[16]; /* the low 32 bytes are looked at */
};

struct trace_text {
	char data[400];
	size_t len;
};

static void __attribute__((format(printf, 2, 3))) text_add(struct trace_text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->data + t->len, sizeof(t->data) - t->len, fmt, ap);
	va_end(ap);
	t->len = MIN(t->len + (size_t)MAX(n, 0), sizeof(t->data) - 1);
}

static void registers_changed(struct cpu *c, struct trace_text *t)
{
	static const char *const names[] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					     "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };
	struct trace_last *last = c->trace_data;
	bool all = !last;
	unsigned k;

	if (!last)
		last = c->trace_data = aligned_alloc(64, sizeof(*last));
	if (!last)
		return;
	for (k = 0; k < 16; k++)
		if (all || last->gpr[k] != c->s.gpr[k])
			text_add(t, " %s=%" PRIx64, names[k], c->s.gpr[k]);
	if (all || last->rflags != c->s.rflags)
		text_add(t, " rflags=%" PRIx64, c->s.rflags);
	for (k = 0; k < 16 && !all; k++)
		if (memcmp(&last->v[k], &c->s.v[k], 32))
			text_add(t, " v%u=%016" PRIx64 "%016" PRIx64 ":%016" PRIx64 "%016" PRIx64, k, c->s.v[k].q[3],
				 c->s.v[k].q[2], c->s.v[k].q[1], c->s.v[k].q[0]);
	memcpy(last->gpr, c->s.gpr, sizeof(last->gpr));
	memcpy(last->v, c->s.v, sizeof(last->v));
	last->rflags = c->s.rflags;
}

void trace_insn(struct cpu *c, const struct insn *i)
{
	char text[128], bytes[2 * sizeof(i->bytes) + 1] = "";
	struct trace_text changed = { .len = 0 };
	unsigned k;

	for (k = 0; k < i->len && k < sizeof(i->bytes); k++)
		snprintf(bytes + 2 * k, 3, "%02x", i->bytes[k]);
	insn_format(i, c->s.rip, text, sizeof(text));
	changed.data[0] = 0;
	registers_changed(c, &changed);
	trace_line(c->machine->trace, TRACE_insn, "%u %04x:%016" PRIx64 " %-20s %-40s%s", c->id,
		   c->s.seg[SEG_CS].selector, c->s.rip, bytes, text, changed.data);
}

void trace_forget(struct cpu *c)
{
	free(c->trace_data);
	c->trace_data = NULL;
}

void trace_exception(struct cpu *c)
{
	static const char *const names[] = { "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "CSO",
					     "#TS", "#NP", "#SS", "#GP", "#PF", "15", "#MF", "#AC", "#MC", "#XM" };
	const struct cpu_fault *f = &c->fault;
	char name[16], extra[80] = "";

	if (f->vector < ARRAY_LEN(names))
		snprintf(name, sizeof(name), "%s", names[f->vector]);
	else
		snprintf(name, sizeof(name), "vector %#x", f->vector);
	if (f->vector == VEC_PF)
		snprintf(extra, sizeof(extra), " error %#x cr2 %#" PRIx64, f->error, f->cr2);
	else if (f->has_error)
		snprintf(extra, sizeof(extra), " error %#x", f->error);
	trace_line(c->machine->trace, TRACE_exc, "%u %s%s%s at %04x:%#" PRIx64 " cpl %u", c->id, name,
		   f->soft ? " (int)" : "", extra, c->s.seg[SEG_CS].selector, c->s.rip, c->s.cpl);
}

void trace_interrupt(struct cpu *c, const char *what, uint8_t vector)
{
	trace_line(c->machine->trace, TRACE_irq, "%u %s %#x at %04x:%#" PRIx64, c->id, what, vector,
		   c->s.seg[SEG_CS].selector, c->s.rip);
}

void trace_msr(struct cpu *c, bool write, uint32_t index, uint64_t value, bool fault)
{
	trace_line(c->machine->trace, TRACE_msr, "%u %#x %s %#" PRIx64 "%s", c->id, index, write ? "<-" : "->", value,
		   fault ? " #GP" : "");
}

void trace_cpuid(struct cpu *c, uint32_t leaf, uint32_t subleaf, const uint32_t out[4])
{
	trace_line(c->machine->trace, TRACE_cpuid, "%u %#x.%#x -> %08x %08x %08x %08x", c->id, leaf, subleaf, out[0],
		   out[1], out[2], out[3]);
}

void trace_control(struct cpu *c, const char *name, uint64_t value)
{
	trace_line(c->machine->trace, TRACE_cr, "%u %s <- %#" PRIx64, c->id, name, value);
}
