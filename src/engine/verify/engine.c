/* SPDX-License-Identifier: Apache-2.0 */
/* The engine around the translator: see verify.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "engine/verify/verify.h"
#include "x86/cpuid.h"

/* ---- the reference's surroundings: nothing is there, and whoever asks is noted */

static uint64_t no_read(void *opaque, uint64_t offset, unsigned size)
{
	((struct verify *)opaque)->io = true;
	return ~0ull;
}

static void no_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	((struct verify *)opaque)->io = true;
}

static const struct io_ops no_device = { .read = no_read, .write = no_write };

static int no_irq(void *ctx)
{
	return -1;
}
static uint64_t no_cr8(void *ctx)
{
	((struct verify *)ctx)->io = true;
	return 0;
}
static void set_cr8(void *ctx, uint64_t v)
{
	((struct verify *)ctx)->io = true;
}
static int no_msr_read(void *ctx, uint32_t index, uint64_t *value)
{
	return -1;
}
static int no_msr_write(void *ctx, uint32_t index, uint64_t value)
{
	return -1;
}
static const struct cpu_bus no_bus = { no_irq, no_irq, no_cr8, set_cr8, no_msr_read, no_msr_write };

/* ---- taking over */

static bool addressing_differs(const struct x86_state *a, const struct x86_state *b)
{
	return a->cr0 != b->cr0 || a->cr3 != b->cr3 || a->cr4 != b->cr4 || a->efer != b->efer;
}

static void take_state(struct verify *v)
{
	struct cpu *ref = v->ref;
	bool flush = v->flush || addressing_differs(&ref->s, &v->c->s);

	v->flush = false;
	memcpy(&ref->s, &v->c->s, sizeof(ref->s));
	memcpy(&v->before, &ref->s, sizeof(ref->s));
	if (flush) {
		tlb_flush_all(ref);
		v->counters.flushes++;
	}
	tlb_select(ref);
}

/*
 * Pages written are noted when they are first. The translator checks the accesses of several instructions at once, so in the
 * middle of a block all that were noted stay so: stores to them may follow without another look.
 */
static void written_clear(struct verify *v)
{
	mem_watch_clear(v->c->mem);
	tlb_revoke_writes(v->c);
}

/* What has been written since the last comparison. */
static void take_memory(struct verify *v)
{
	const uint8_t *from = mem_ram_base(v->c->mem);
	uint8_t *to = mem_ram_base(v->ref->mem);
	unsigned count;
	const uint32_t *page = mem_watch_pages(v->c->mem, &count);

	for (unsigned n = 0; n < count; n++)
		memcpy(to + page[n] * GUEST_PAGE, from + page[n] * GUEST_PAGE, GUEST_PAGE);
	v->counters.taken_over += count;
}

/* RAM stays where it is; ROMs may have come. */
static void take_map(struct verify *v)
{
	uint64_t used = mem_ram_size(v->ref->mem);

	v->page = NO_PAGE;
	v->flush = true;
	v->map_changed = false;
	if (mem_shadow_map(v->ref->mem, v->c->mem, &no_device, v)) {
		v->c->error = "out of memory";
		v->watch.failed = true;
	} else if (used < mem_ram_size(v->c->mem)) {
		v->taken = false;
	}
}

static void take_all(struct verify *v)
{
	written_clear(v);
	mem_shadow_copy(v->ref->mem, v->c->mem);
	v->flush = true;
	v->taken = true;
}

/* Give up the comparison: the machine's outcome it is. */
static void take_stretch(struct verify *v)
{
	const uint8_t *from = mem_ram_base(v->c->mem);
	uint8_t *to = mem_ram_base(v->ref->mem);
	unsigned count;
	const uint32_t *page = mem_watch_pages(v->ref->mem, &count);

	for (unsigned n = 0; n < count; n++)
		memcpy(to + page[n] * GUEST_PAGE, from + page[n] * GUEST_PAGE, GUEST_PAGE);
	take_memory(v);
	v->flush = true;
	v->counters.depends++;
}

static void begin(struct verify *v, const struct block *b, unsigned idx)
{
	mem_gate(v->c->mem, true); /* nor does the map change: every CPU would have to be stopped */
	if (v->map_changed)
		take_map(v);
	if (!v->taken)
		take_all(v);
	take_memory(v);
	if (!b)
		written_clear(v);
	take_state(v);
	v->undefined = v->loose = 0;
	v->start = b;
	v->start_idx = idx;
	v->behind = -1;
	dbt_hot(v->c)->log_left = WATCH_LOG;
	v->watch.begun++;
	v->watch.active = true;
}

static void fail(struct verify *v)
{
	if (v->watch.failed)
		return;
	v->watch.failed = true;
	report(v);
	dbt_hot(v->c)->log_left = 0; /* out of the translated code soon */
	v->c->error = "translator and interpreter differ: see the report";
}

/* The machine's CPU has its state in cpu->s and stands where stop_block, stop_idx, how say. */
static void end(struct verify *v)
{
	struct verify_counters *n = &v->counters;

	v->watch.active = false;
	n->stretches++;
	n->blocks += path_length(v);
	v->depends = false;
	if (!v->watch.failed && (!replay(v) || !compare_states(v) || !compare_memory(v))) {
		if (v->depends || v->loose)
			take_stretch(v);
		else
			fail(v);
	}
	if (!v->helped)
		written_clear(v);
	mem_watch_clear(v->ref->mem);
	tlb_revoke_writes(v->ref);
	mem_gate(v->c->mem, false);
}

/* ---- what the translator tells */

static void watch_enter(struct cpu *c)
{
	begin(verify_of(c), NULL, 0);
}

static void watch_stop(struct cpu *c, enum watch_how how)
{
	struct verify *v = verify_of(c);

	v->how = how;
	v->stop_block = NULL;
	end(v);
}

static void watch_foreign(struct cpu *c)
{
	verify_of(c)->flush = true;
}

/* Before instruction helped_idx of `helped`; the rest of cpu->s is untouched by it so far. */
static void end_before_helped(struct verify *v)
{
	struct x86_state *s = &v->c->s;
	uint64_t gpr[16], rip = s->rip, rflags = s->rflags;

	memcpy(gpr, s->gpr, sizeof(gpr));
	memcpy(s->gpr, v->gpr, sizeof(gpr));
	s->rip = v->rip;
	s->rflags = v->rflags;
	v->stop_block = v->helped;
	v->stop_idx = v->helped_idx;
	end(v);
	memcpy(s->gpr, gpr, sizeof(gpr));
	s->rip = rip;
	s->rflags = rflags;
	v->taking_over = true;
}

/* Does its outcome depend on more than the CPU and its memory, or on what we do not compare? */
static bool unrepeatable(const struct insn *i)
{
	if (i->class == CLASS_STRING) /* pauses when something asks for the CPU */
		return true;
	if (i->class == CLASS_X87 && i->flags & INSN_MEM) /* has its flags before it reaches a device */
		return true;
	if (i->flags & INSN_VSIB || (i->op == OP_AVX512 && i->opmask)) /* has moved some elements before it reaches a device */
		return true;
	switch (i->op) {
	case OP_MASKMOVQ:
	case OP_MASKMOVDQU:
	case OP_VMASKMOVDQU:
	case OP_VMASKMOVPS:
	case OP_VMASKMOVPD:
	case OP_VPMASKMOVD:
	case OP_VPMASKMOVQ:
	case OP_IN:
	case OP_OUT:
	case OP_RDTSC:
	case OP_RDTSCP:
	case OP_RDPMC:
	case OP_RDRAND:
	case OP_RDSEED:
	case OP_RDMSR:
	case OP_WRMSR:
	case OP_HLT:
	case OP_MWAIT:
	case OP_MOV_DR:
	case OP_FNSTENV: /* the last instruction's address, which translated code does not keep */
	case OP_FNSAVE:
	case OP_FXSAVE:
	case OP_FXSAVE64:
	case OP_XSAVE:
	case OP_XSAVE64:
	case OP_XSAVEC:
	case OP_XSAVEC64:
	case OP_XSAVES:
	case OP_XSAVES64:
	case OP_XSAVEOPT:
	case OP_XSAVEOPT64:
		return true;
	case OP_MOV_CR:
		return (i->modrm >> 3 & 7) == 0 && i->reg == 8;
	default:
		return false;
	}
}

static void watch_helper(struct cpu *c, const struct block *b, unsigned idx, const struct insn *i)
{
	struct verify *v = verify_of(c);

	if (!v->watch.active)
		return;
	v->helped = b;
	v->helped_idx = idx;
	v->taking_over = false;
	memcpy(v->gpr, c->s.gpr, sizeof(v->gpr));
	v->rip = c->s.rip;
	v->rflags = c->s.rflags;
	if (unrepeatable(i))
		end_before_helped(v);
}

static void watch_helped(struct cpu *c, const struct block *b, unsigned idx, bool goes_on)
{
	struct verify *v = verify_of(c);

	v->helped = NULL;
	v->behind = goes_on ? -1 : (int)idx;
	if (!v->taking_over)
		return;
	v->taking_over = false;
	v->behind = -1;
	if (goes_on)
		begin(v, b, idx + 1);
}

/* The machine is about to reach a device. */
static void watch_io(void *opaque)
{
	struct verify *v = opaque;

	if (v->watch.active && v->helped)
		end_before_helped(v);
}

static void map_changed(void *opaque)
{
	((struct verify *)opaque)->map_changed = true;
}

/* ---- the engine */

static int probe(struct err *e)
{
	return engine_dbt.probe(e);
}

static void ref_io(void *opaque)
{
	((struct verify *)opaque)->io = true;
}

static void verify_destroy(struct verify *v)
{
	struct machine *m = &v->machine;

	if (v->interp)
		interp_destroy(v->interp);
	if (v->ref)
		tlb_dispose(&v->ref->tlb);
	free(v->ref);
	if (m->ports)
		ports_destroy(m->ports);
	if (m->mem) {
		mem_unwatch(m->mem);
		mem_destroy(m->mem);
	}
	free(v);
}

static int reference_create(struct verify *v, struct machine *of, struct err *e)
{
	struct machine *m = &v->machine;

	m->clock = of->clock;
	m->cpuid = of->cpuid;
	m->engine = of->engine;
	m->ncpus = 1;
	m->ports = ports_create();
	v->ref = aligned_alloc(64, (sizeof(struct cpu) + 63) & ~63ul);
	if (!m->ports || !v->ref)
		return err_set(e, ENOMEM, "no memory for the machine to compare with");
	memset(v->ref, 0, sizeof(*v->ref));
	m->mem = mem_shadow_create(of->mem, &no_device, v, e);
	if (!m->mem || mem_watch(m->mem, ref_io, v, e))
		return -ENOMEM;
	m->cpus[0] = v->ref;
	v->ref->machine = m;
	v->ref->mem = m->mem;
	v->ref->bus = &no_bus;
	v->ref->ctx = v;
	x86_state_reset(&v->ref->s, true);
	if (tlb_init(&v->ref->tlb, e))
		return -ENOMEM;
	v->interp = interp_create(v->ref, e);
	return v->interp ? 0 : -ENOMEM;
}

static int vm_attach(struct machine *m, struct err *e)
{
	struct verify *v;
	struct dbt *d;
	int r;

	if (m->ncpus > 1)
		return err_set(e, EINVAL, "engine verify runs one CPU, not %u: give --cpus 1", m->ncpus);
	v = calloc(1, sizeof(*v));
	if (!v)
		return err_set(e, ENOMEM, "engine verify: out of memory");
	r = reference_create(v, m, e);
	if (!r)
		r = engine_dbt.vm_attach(m, e);
	if (r) {
		verify_destroy(v);
		return r;
	}
	d = m->engine_data;
	v->c = m->cpus[0];
	v->page = NO_PAGE;
	for (unsigned n = 0; n < DECODED; n++)
		v->decoded[n].at = NO_PAGE;
	v->map_changed = true;
	v->watch = (struct dbt_watch){ .opaque = v, .enter = watch_enter, .stop = watch_stop, .foreign = watch_foreign,
				       .helper = watch_helper, .helped = watch_helped };
	v->listener = (struct mem_listener){ .map_changed = map_changed, .opaque = v };
	r = mem_watch(m->mem, watch_io, v, e);
	if (r) {
		engine_dbt.vm_detach(m);
		verify_destroy(v);
		return r;
	}
	mem_listen(m->mem, &v->listener);
	d->watch = &v->watch;
	return 0;
}

static void vm_detach(struct machine *m)
{
	struct dbt *d = m->engine_data;
	struct verify *v = d && d->watch ? d->watch->opaque : NULL;

	engine_dbt.vm_detach(m);
	if (!v)
		return;
	mem_unlisten(m->mem, &v->listener);
	mem_unwatch(m->mem);
	verify_destroy(v);
}

static int cpu_create(struct cpu *c, struct err *e)
{
	verify_of(c)->c = c;
	return engine_dbt.cpu_create(c, e);
}

static void cpu_destroy(struct cpu *c)
{
	engine_dbt.cpu_destroy(c);
}

static enum cpu_stop run(struct cpu *c)
{
	return engine_dbt.run(c);
}

static void kick(struct cpu *c)
{
	engine_dbt.kick(c);
}

static void state_get(struct cpu *c)
{
	engine_dbt.state_get(c);
}

/* A reset, or another machine's state: memory may be another one altogether. */
static void state_set(struct cpu *c)
{
	verify_of(c)->taken = false;
	engine_dbt.state_set(c);
}

static void debug_set(struct cpu *c)
{
	engine_dbt.debug_set(c);
}

static void stats(struct machine *m, void (*line)(void *opaque, const char *name, uint64_t value), void *opaque)
{
	struct dbt *d = m->engine_data;
	const struct verify *v = d && d->watch ? d->watch->opaque : NULL;

	engine_dbt.stats(m, line, opaque);
	if (!v)
		return;
	line(opaque, "verify.stretches", v->counters.stretches);
	line(opaque, "verify.blocks", v->counters.blocks);
	line(opaque, "verify.instructions", v->counters.insns);
	line(opaque, "verify.pages-compared", v->counters.pages);
	line(opaque, "verify.pages-taken-over", v->counters.taken_over);
	line(opaque, "verify.words-taken-over", v->counters.words_taken);
	line(opaque, "verify.dead-flags", v->counters.flags_taken);
	line(opaque, "verify.flushes", v->counters.flushes);
	line(opaque, "verify.undefined-flags-used", v->counters.depends);
}

const struct engine_ops engine_verify = {
	.name = "verify",
	.probe = probe,
	.vm_attach = vm_attach,
	.vm_detach = vm_detach,
	.cpu_create = cpu_create,
	.cpu_destroy = cpu_destroy,
	.run = run,
	.kick = kick,
	.state_get = state_get,
	.state_set = state_set,
	.debug_set = debug_set,
	.stats = stats,
};
