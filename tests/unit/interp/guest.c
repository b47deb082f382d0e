/* SPDX-License-Identifier: Apache-2.0 */
/* See guest.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "guest.h"

#define PAGE_PRESENT 1ull
#define PAGE_WRITE 2ull
#define PAGE_USER 4ull
#define PAGE_LARGE 0x80ull
#define GDT GUEST_TABLES
#define IDT (GUEST_TABLES + 0x1000)
#define PML4 (GUEST_TABLES + 0x2000)
#define PDPT (GUEST_TABLES + 0x3000)
#define PD (GUEST_TABLES + 0x4000)

static int no_irq(void *ctx)
{
	return -1;
}
static uint64_t no_cr8(void *ctx)
{
	return 0;
}
static void ignore_cr8(void *ctx, uint64_t v)
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
static const struct cpu_bus bus = {
	.irq_pending = no_irq,
	.irq_take = no_irq,
	.cr8_read = no_cr8,
	.cr8_write = ignore_cr8,
	.msr_read = no_msr_read,
	.msr_write = no_msr_write,
};

static int cpu_prepare(struct guest *g, unsigned n, struct err *e)
{
	struct cpu *c = &g->cpus[n];
	int r = tlb_init(&c->tlb, e);

	if (r)
		return r;
	c->id = n;
	c->machine = &g->machine;
	c->mem = g->machine.mem;
	c->bus = &bus;
	g->machine.cpus[n] = c;
	x86_state_reset(&c->s, n == 0);
	tlb_select(c);
	return g->machine.engine->cpu_create(c, e);
}

int guest_create(struct guest *g, unsigned ncpus, const struct engine_ops *engine, struct err *e)
{
	return guest_create_as(g, ncpus, engine, "v3", e);
}

int guest_create_as(struct guest *g, unsigned ncpus, const struct engine_ops *engine, const char *model, struct err *e)
{
	int r;

	memset(g, 0, sizeof(*g));
	g->machine.mem = mem_create(GUEST_RAM, e);
	g->machine.ports = ports_create();
	g->machine.clock = clock_create_manual();
	g->machine.cpuid = &g->model;
	g->machine.engine = engine;
	g->machine.ncpus = g->ncpus = ncpus;
	g->cpus = aligned_alloc(64, (ncpus * sizeof(*g->cpus) + 63) & ~(size_t)63);
	if (!g->machine.mem || !g->machine.ports || !g->machine.clock || !g->cpus)
		return -ENOMEM;
	memset(g->cpus, 0, ncpus * sizeof(*g->cpus));
	r = cpuid_build(&g->model, model, ncpus, 1000000, e);
	if (!r)
		r = mem_map_ram(g->machine.mem, 0, 0, GUEST_RAM, "ram", e);
	if (!r)
		r = engine->vm_attach(&g->machine, e);
	for (unsigned n = 0; n < ncpus && !r; n++)
		r = cpu_prepare(g, n, e);
	return r;
}

void guest_destroy(struct guest *g)
{
	for (unsigned n = 0; n < g->ncpus; n++) {
		g->machine.engine->cpu_destroy(&g->cpus[n]);
		tlb_dispose(&g->cpus[n].tlb);
	}
	g->machine.engine->vm_detach(&g->machine);
	clock_destroy(g->machine.clock);
	ports_destroy(g->machine.ports);
	mem_destroy(g->machine.mem);
	free(g->cpus);
}

void guest_load(struct guest *g, uint64_t at, const void *bytes, uint64_t count)
{
	CHECK(!mem_dma_write(g->machine.mem, at, bytes, count));
}

void guest_read(struct guest *g, uint64_t at, void *bytes, uint64_t count)
{
	CHECK(!mem_dma_read(g->machine.mem, at, bytes, count));
}

static void put64(struct guest *g, uint64_t at, uint64_t v)
{
	guest_load(g, at, &v, 8);
}

static void segments_flat(struct cpu *c, uint16_t code_attr)
{
	for (unsigned n = 0; n < SEG_LDTR; n++)
		c->s.seg[n] =
			(struct x86_segment){ .limit = ~0u, .selector = 0x10, .attr = 0xc093 };
	c->s.seg[SEG_CS] = (struct x86_segment){ .limit = ~0u, .selector = 8, .attr = code_attr };
}

static struct cpu *restart(struct guest *g, unsigned n)
{
	struct cpu *c = &g->cpus[n];

	x86_state_reset(&c->s, true);
	c->s.activity = ACTIVITY_RUN;
	c->s.rip = GUEST_CODE;
	c->s.gpr[RSP] = GUEST_STACK;
	memset(&c->fault, 0, sizeof(c->fault));
	return c;
}

void guest_real(struct guest *g, unsigned n)
{
	struct cpu *c = restart(g, n);

	for (unsigned k = 0; k < SEG_LDTR; k++) {
		c->s.seg[k].selector = 0;
		c->s.seg[k].base = 0;
	}
	c->s.seg[SEG_CS].selector = GUEST_CODE >> 4;
	c->s.seg[SEG_CS].base = GUEST_CODE;
	c->s.rip = 0;
	c->s.gpr[RSP] = 0x8000;
	g->machine.engine->state_set(c);
}

void guest_protected(struct guest *g, unsigned n)
{
	struct cpu *c = restart(g, n);

	segments_flat(c, 0xc09b);
	c->s.cr0 |= CR0_PE;
	g->machine.engine->state_set(c);
}

void guest_long(struct guest *g, unsigned n)
{
	struct cpu *c = restart(g, n);
	uint8_t hlt[16] = { 0xf4 };

	put64(g, GDT, 0);
	put64(g, GDT + 8, 0x00af9b000000ffff);
	put64(g, GDT + 16, 0x00cf93000000ffff);
	put64(g, PML4, PDPT | PAGE_PRESENT | PAGE_WRITE | PAGE_USER);
	put64(g, PDPT, PD | PAGE_PRESENT | PAGE_WRITE | PAGE_USER);
	for (uint64_t k = 0; k < GUEST_RAM >> 21; k++)
		put64(g, PD + 8 * k, k << 21 | PAGE_PRESENT | PAGE_WRITE | PAGE_USER | PAGE_LARGE);
	for (unsigned k = 0; k < 32; k++) {
		uint64_t at = GUEST_FAULTS + 16 * k;

		guest_load(g, at, hlt, sizeof(hlt));
		put64(g, IDT + 16 * k, (at & 0xffff) | 8ull << 16 | 0x8eull << 40 | at >> 16 << 48);
		put64(g, IDT + 16 * k + 8, at >> 32);
	}
	segments_flat(c, 0xa09b);
	c->s.gdtr = (struct x86_dtable){ GDT, 23 };
	c->s.idtr = (struct x86_dtable){ IDT, 32 * 16 - 1 };
	c->s.cr0 |= CR0_PE | CR0_PG | CR0_WP | CR0_NE | CR0_MP;
	c->s.cr4 |= CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
	c->s.cr3 = PML4;
	c->s.efer |= EFER_LME | EFER_LMA | EFER_SCE;
	g->machine.engine->state_set(c);
}

enum cpu_stop guest_run(struct guest *g, unsigned n)
{
	return g->machine.engine->run(&g->cpus[n]);
}

int guest_vector(const struct guest *g, unsigned n)
{
	uint64_t at = g->cpus[n].s.rip - 1;

	return at >= GUEST_FAULTS && at < GUEST_FAULTS + 512 ? (int)((at - GUEST_FAULTS) / 16) : -1;
}
