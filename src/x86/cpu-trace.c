/* SPDX-License-Identifier: Apache-2.0 */
/* Trace lines about a CPU. They hold no times and no host addresses, so that those of two runs can be compared. */
#include <inttypes.h>
#include <stdio.h>
#include "isa/insn.h"
#include "x86/cpu-trace.h"

void trace_insn(struct cpu *c, const struct insn *i)
{
	char text[128], bytes[2 * sizeof(i->bytes) + 1] = "";
	unsigned k;

	for (k = 0; k < i->len && k < sizeof(i->bytes); k++)
		snprintf(bytes + 2 * k, 3, "%02x", i->bytes[k]);
	insn_format(i, c->s.rip, text, sizeof(text));
	trace_line(c->machine->trace, TRACE_insn, "%u %04x:%016" PRIx64 " %-30s %s", c->id, c->s.seg[SEG_CS].selector,
		   c->s.rip, bytes, text);
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
