/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measuring instead of trusting: /dev/kvm can exist without hardware virtualization behind it, and is then hundreds of times
 * slower than our translator. The loop runs in 64-bit mode, because that is what guests do and what the translator is made for.
 * Its length is found by doubling, so that a slow engine costs milliseconds too. What counts is the thread's own time, the best of
 * three: on a busy host 400 instructions may well be interrupted for milliseconds, and hardware would seem not to be there.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/clock.h"
#include "base/kick.h"
#include "vm/measure.h"
#include "x86/cpuid.h"

#define RAM (4ull << 20)
#define CODE 0x1000
#define TABLES 0x10000
#define ENOUGH_NS 3000000u     /* a run this long is exact enough for a figure */
#define ENOUGH_TO_TELL 300000u /* for 5 million instructions a second or 5000 */
#define LOOPS_MAX 20000000u

struct measured {
	struct machine machine;
	struct cpuid_model cpuid;
	struct cpu *cpu;
	struct kick_thread kick;
	sigset_t before; /* what the thread blocked */
	bool kicked, attached, created;
};

static int no_irq(void *ctx)
{
	return -1;
}
static uint64_t no_cr8(void *ctx)
{
	return 0;
}
static void set_cr8(void *ctx, uint64_t v)
{
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

/* On the thread that measured. */
static void bench_end(struct measured *b)
{
	if (b->kicked) {
		kick_detach(&b->kick);
		pthread_sigmask(SIG_SETMASK, &b->before, NULL); /* it is no CPU's thread, and makes others */
	}
	b->kicked = false;
}

void measured_dispose(struct measured *b)
{
	struct machine *m = b ? &b->machine : NULL;

	if (!b)
		return;
	if (b->created)
		m->engine->cpu_destroy(b->cpu);
	if (b->attached)
		m->engine->vm_detach(m);
	if (b->cpu)
		tlb_dispose(&b->cpu->tlb);
	free(b->cpu);
	if (m->ports)
		ports_destroy(m->ports);
	if (m->mem)
		mem_destroy(m->mem);
	if (m->clock)
		clock_destroy(m->clock);
	free(b);
}

static int bench_cpu(struct measured *b, struct err *e)
{
	size_t size = (sizeof(struct cpu) + 63) & ~63ul;
	struct cpu *c = aligned_alloc(64, size);

	if (!c)
		return err_set(e, ENOMEM, "no memory for a CPU");
	memset(c, 0, size);
	b->cpu = c;
	c->machine = &b->machine;
	c->mem = b->machine.mem;
	c->bus = &no_bus;
	c->thread = &b->kick;
	b->machine.cpus[0] = c;
	b->machine.ncpus = 1;
	x86_state_reset(&c->s, true);
	return tlb_init(&c->tlb, e);
}

static int bench_build(struct measured *b, const struct engine_ops *ops, struct err *e)
{
	struct machine *m = &b->machine;
	int r;

	m->engine = ops;
	m->cpuid = &b->cpuid;
	m->clock = clock_create_manual();
	m->ports = ports_create();
	m->mem = mem_create(RAM, e);
	if (!m->clock || !m->ports || !m->mem)
		return -ENOMEM;
	r = mem_map_ram(m->mem, 0, 0, RAM, "ram", e);
	if (!r)
		r = cpuid_build(&b->cpuid, "host", 1, clock_tsc_khz(m->clock), e);
	if (!r)
		r = bench_cpu(b, e);
	if (r)
		return r;
	r = ops->vm_attach(m, e);
	if (r)
		return r;
	b->attached = true;
	pthread_sigmask(SIG_SETMASK, NULL, &b->before);
	r = kick_attach(&b->kick, e);
	if (r)
		return r;
	b->kicked = true;
	r = ops->cpu_create(b->cpu, e);
	b->created = !r;
	return r;
}

/* mov ecx, loops; again: dec ecx; jnz again; hlt: in 64-bit mode, the first gigabyte mapped. */
static void place(struct measured *b, uint32_t loops)
{
	uint8_t code[] = { 0xb9, 0, 0, 0, 0, 0xff, 0xc9, 0x75, 0xfc, 0xf4 };
	uint64_t pml4 = TABLES + 0x1003, pdpt = TABLES + 0x2003, pd[512];
	struct x86_state *s = &b->cpu->s;
	struct mem *m = b->machine.mem;

	for (unsigned i = 0; i < 512; i++)
		pd[i] = (uint64_t)i << 21 | 0x83;
	memcpy(code + 1, &loops, 4);
	mem_load(m, TABLES, &pml4, sizeof(pml4));
	mem_load(m, TABLES + 0x1000, &pdpt, sizeof(pdpt));
	mem_load(m, TABLES + 0x2000, pd, sizeof(pd));
	mem_load(m, CODE, code, sizeof(code));
	s->cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE | CR0_WP;
	s->cr3 = TABLES;
	s->cr4 = CR4_PAE;
	s->efer = EFER_LME | EFER_LMA;
	s->seg[SEG_CS] = (struct x86_segment){ .selector = 8, .limit = ~0u, .attr = 0xa09b };
	for (unsigned i = 0; i < 6; i++)
		if (i != SEG_CS)
			s->seg[i] = (struct x86_segment){ .selector = 16, .limit = ~0u, .attr = 0xc093 };
	s->seg[SEG_TR] = (struct x86_segment){ .selector = 24, .limit = 0x67, .attr = 0x8b };
	s->rip = CODE;
	s->activity = ACTIVITY_RUN;
	tlb_flush_all(b->cpu);
	tlb_select(b->cpu);
	if (b->machine.engine->state_set)
		b->machine.engine->state_set(b->cpu);
}

static uint64_t thread_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int bench_once(struct measured *b, uint32_t loops, uint64_t *ns, struct err *e)
{
	uint64_t start;
	enum cpu_stop why;

	place(b, loops);
	start = thread_ns();
	atomic_store(&b->cpu->run_state, CPU_RUNNING);
	why = b->machine.engine->run(b->cpu);
	atomic_store(&b->cpu->run_state, CPU_READY);
	*ns = thread_ns() - start;
	return why == STOP_HLT ? 0 : err_set(e, EIO, "a loop of two instructions did not end in its halt");
}

static int bench_run(struct measured *b, uint64_t enough, double *mips, struct err *e)
{
	uint32_t loops = 200;
	uint64_t best, ns;
	int r;

	for (;; loops *= 4) { /* long enough, and again: the first run makes what the engine needs */
		r = bench_once(b, loops, &best, e);
		if (!r && best >= enough) {
			r = bench_once(b, loops, &ns, e);
			best = MIN(best, ns);
		}
		if (r || best >= enough || loops >= LOOPS_MAX)
			break;
	}
	if (!r) {
		r = bench_once(b, loops, &ns, e);
		best = MIN(best, ns);
	}
	*mips = r ? 0 : 2.0 * loops * 1000.0 / (double)MAX(best, 1u);
	return r;
}

static int measure(const struct engine_ops *ops, uint64_t enough, double *mips, struct measured **left, struct err *e)
{
	struct measured *b = *left = calloc(1, sizeof(*b));
	int r = b ? bench_build(b, ops, e) : err_set(e, ENOMEM, "no memory to measure an engine");

	if (!r)
		r = bench_run(b, enough, mips, e);
	if (b)
		bench_end(b);
	return r;
}

int measure_engine(const struct engine_ops *ops, double *mips, struct err *e)
{
	struct measured *left;
	int r = measure(ops, ENOUGH_NS, mips, &left, e);

	measured_dispose(left);
	return r;
}

bool measure_accelerated(const struct engine_ops *ops, struct verdict *v)
{
	struct err e = { 0 };
	double mips = v ? v->mips : 0;

	if (strcmp(ops->name, "kvm"))
		return false;
	if (!mips && measure_engine(ops, &mips, &e))
		return false;
	if (v && !v->mips)
		verdict_keep(v, mips);
	return mips >= MEASURE_ACCELERATED;
}

/* Is it to be taken? KVM as it was remembered: what is slow is not even opened. */
static int consider(const struct engine_ops *ops, struct verdict *v, struct measured **left, struct err *e)
{
	bool kvm = !strcmp(ops->name, "kvm");
	double mips = kvm && v ? v->mips : 0;
	bool known = mips > 0;
	int r = 0;

	if (!known || mips >= MEASURE_ACCELERATED)
		r = ops->probe(e);
	if (!r && kvm && !known)
		r = measure(ops, ENOUGH_TO_TELL, &mips, left, e);
	if (!r && mips && mips < MEASURE_ACCELERATED)
		r = err_set(e, ENOTSUP, "not accelerated, %.3g million instructions a second%s", mips, known ? " when last measured" : "");
	if (kvm && !known && mips && v)
		verdict_keep(v, mips);
	return r;
}

const struct engine_ops *measure_choose(char *why, size_t size, struct measured **left, struct verdict *v)
{
	const struct engine_ops *const *list;
	const struct engine_ops *found = NULL;
	size_t used = 0;

	why[0] = 0;
	*left = NULL;
	for (list = engine_list(); *list && !found; list++) {
		struct err e = { 0 };

		if (!consider(*list, v, left, &e))
			found = *list;
		else if (used < size)
			used += (size_t)snprintf(why + used, size - used, "%s%s: %s", used ? "; " : "", (*list)->name, e.text);
	}
	if (found && !used)
		snprintf(why, size, "the fastest that works here");
	return found;
}
