// SPDX-License-Identifier: Apache-2.0
/*
 * An engine under test: a machine with one CPU, the arena mapped for user mode at the same linear addresses, and
 * a kernel that consists of 256 HLT instructions. A case runs in ring 3 as it does under Linux (same selectors, CR0.AM,
 * CR4, IOPL 0); whatever ends it goes through the IDT and halts, and the frame on the
 * kernel's stack says where it was. So exception delivery is tested along, and any engine can be.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include "diff.h"
#include "base/err.h"
#include "base/kick.h"
#include "engine/engine.h"
#include "x86/cpuid.h"
#include "x86/segment.h"

#define RAM_SIZE (2u << 20)
#define KERNEL 0xffffffff80000000ull /* GDT, IDT, TSS, stack and stubs */
#define PHYS_PML4 0x1000
#define PHYS_PDPT_LOW 0x2000
#define PHYS_PD_LOW 0x3000
#define PHYS_PT_ARENA 0x4000
#define PHYS_PDPT_HIGH 0x5000
#define PHYS_PD_HIGH 0x6000
#define PHYS_PT_KERNEL 0x7000
#define PHYS_KERNEL 0x10000 /* 8 pages: GDT, IDT, TSS, stubs, stack (2), spare */
#define KERNEL_PAGES 8
#define OFF_GDT 0x0000
#define OFF_IDT 0x1000
#define OFF_TSS 0x2000
#define OFF_STUBS 0x3000
#define OFF_STACK_TOP 0x6000
#define PHYS_ARENA 0x20000
#define TIMEOUT_US 300000

struct guest {
	struct machine machine;
	struct cpuid_model cpuid;
	struct cpu *cpu;
	uint8_t *images;
	uint8_t *ram;
	uint64_t xcr0;
	struct kick_thread thread;
};

static int no_irq(void *ctx)
{
	return -1;
}
static uint64_t no_cr8(void *ctx)
{
	return 0;
}
static void no_cr8_write(void *ctx, uint64_t v)
{
}
static int no_msr(void *ctx, uint32_t index, uint64_t *value)
{
	return -1;
}
static int no_msr_write(void *ctx, uint32_t index, uint64_t value)
{
	return -1;
}
static const struct cpu_bus bus = { no_irq, no_irq, no_cr8, no_cr8_write, no_msr, no_msr_write };

static void no_wake(struct cpu *c)
{
}

/* An engine that loops is stopped by a signal; the handler must find the CPU somewhere. */
static struct cpu *running;
static void on_alarm(int sig)
{
	if (running)
		cpu_notify(running, ATT_CALLER);
}

static void put64(struct guest *g, uint64_t at, uint64_t v)
{
	CHECK(mem_load(g->machine.mem, at, &v, 8) == 0);
}

static void map_page(struct guest *g, uint64_t table, unsigned index, uint64_t page, uint64_t flags)
{
	put64(g, table + index * 8, page | flags);
}

static void build_paging(struct guest *g)
{
	const uint64_t link = 7, nx = BIT(63);
	unsigned arena = ARENA_CODE >> 12 & 511;

	map_page(g, PHYS_PML4, 0, PHYS_PDPT_LOW, link);
	map_page(g, PHYS_PDPT_LOW, ARENA_CODE >> 30, PHYS_PD_LOW, link);
	map_page(g, PHYS_PD_LOW, ARENA_CODE >> 21 & 511, PHYS_PT_ARENA, link);
	for (unsigned i = 0; i < CODE_PAGES; i++)
		map_page(g, PHYS_PT_ARENA, arena + i, PHYS_ARENA + i * PAGE, 5);
	for (unsigned i = 0; i < IMAGE_PAGES; i++)
		map_page(g, PHYS_PT_ARENA, arena_pages[i].at >> 12 & 511, PHYS_ARENA + (CODE_PAGES + i) * PAGE,
			 nx | 5 | (arena_pages[i].writable ? 2 : 0));
	map_page(g, PHYS_PML4, 511, PHYS_PDPT_HIGH, 3);
	map_page(g, PHYS_PDPT_HIGH, 510, PHYS_PD_HIGH, 3);
	map_page(g, PHYS_PD_HIGH, 0, PHYS_PT_KERNEL, 3);
	for (unsigned i = 0; i < KERNEL_PAGES; i++)
		map_page(g, PHYS_PT_KERNEL, i, PHYS_KERNEL + i * PAGE, 3);
}

static void build_kernel(struct guest *g)
{
	/* as Linux has it: 32-bit kernel code, code, data; 32-bit user code, user data, user code; TSS */
	static const uint64_t gdt[] = { 0, 0x00cf9b000000ffff, 0x00af9b000000ffff, 0x00cf93000000ffff,
					0x00cffb000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff, 0 };
	const uint64_t cpu_node = 0x0040f50000000000; /* 0x78: Linux keeps the CPU's number in its limit */
	uint64_t tss = KERNEL + OFF_TSS, top = KERNEL + OFF_STACK_TOP;
	uint8_t hlt[256];

	for (unsigned i = 0; i < ARRAY_LEN(gdt); i++)
		put64(g, PHYS_KERNEL + OFF_GDT + i * 8, gdt[i]);
	put64(g, PHYS_KERNEL + OFF_GDT + 0x78, cpu_node);
	put64(g, PHYS_KERNEL + OFF_GDT + 0x40,
	      0x67 | (tss & 0xffffff) << 16 | 0x8bull << 40 | (tss >> 24 & 0xff) << 56);
	put64(g, PHYS_KERNEL + OFF_GDT + 0x48, tss >> 32);
	for (unsigned v = 0; v < 256; v++) {
		uint64_t at = KERNEL + OFF_STUBS + v;
		uint64_t dpl = v == 3 || v == 4 || v == 0x80 ? 3 : 0;

		put64(g, PHYS_KERNEL + OFF_IDT + v * 16,
		      (at & 0xffff) | 0x10 << 16 | (0x8e | dpl << 5) << 40 | (at >> 16 & 0xffff) << 48);
		put64(g, PHYS_KERNEL + OFF_IDT + v * 16 + 8, at >> 32);
	}
	CHECK(mem_load(g->machine.mem, PHYS_KERNEL + OFF_TSS + 4, &top, 8) == 0);
	put64(g, PHYS_KERNEL + OFF_TSS + 0x60, 0x68ull << 48); /* no I/O bitmap */
	memset(hlt, 0xf4, sizeof(hlt));
	CHECK(mem_load(g->machine.mem, PHYS_KERNEL + OFF_STUBS, hlt, sizeof(hlt)) == 0);
}

static int open_machine(struct guest *g, const struct engine_ops *engine, struct err *e)
{
	struct machine *m = &g->machine;
	struct cpu *c;
	int r;

	m->mem = mem_create(RAM_SIZE, e);
	if (!m->mem)
		return -1;
	r = mem_map_ram(m->mem, 0, 0, RAM_SIZE, "ram", e);
	if (r)
		return r;
	m->ports = ports_create();
	m->clock = clock_create_manual();
	m->cpuid = &g->cpuid;
	m->engine = engine;
	m->ncpus = 1;
	r = cpuid_build(&g->cpuid, "host", 1, 2000000, e);
	if (r)
		return r;
	if (posix_memalign((void **)&c, 64, sizeof(*c)))
		return -1;
	memset(c, 0, sizeof(*c));
	m->cpus[0] = g->cpu = c;
	c->machine = m;
	c->mem = m->mem;
	c->bus = &bus;
	c->wake = no_wake;
	c->thread = &g->thread;
	r = kick_attach(&g->thread, e);
	if (r)
		return r;
	r = tlb_init(&c->tlb, e);
	if (r)
		return r;
	r = engine->probe ? engine->probe(e) : 0;
	if (!r)
		r = engine->vm_attach(m, e);
	if (!r)
		r = engine->cpu_create(c, e);
	return r;
}

static void *guest_create(const char *name)
{
	const struct engine_ops *engine = engine_find(name);
	struct sigaction sa = { .sa_handler = on_alarm, .sa_flags = SA_RESTART | SA_ONSTACK };
	struct guest *g;
	struct err e = { 0 };
	sigset_t alarm_only;

	if (!engine)
		return NULL;
	g = calloc(1, sizeof(*g));
	CHECK(g);
	if (open_machine(g, engine, &e)) {
		fprintf(stderr, "%s: %s\n", name, e.text);
		free(g);
		return NULL;
	}
	g->images = images_create();
	g->ram = mem_ram_base(g->machine.mem);
	g->xcr0 = 7 & (g->cpuid.xcr0_allowed | 3);
	build_paging(g);
	build_kernel(g);
	sigaction(SIGVTALRM, &sa, NULL);
	sigemptyset(&alarm_only);
	sigaddset(&alarm_only, SIGVTALRM);
	pthread_sigmask(SIG_UNBLOCK, &alarm_only, NULL);
	return g;
}

static void guest_destroy(void *data)
{
	struct guest *g = data;

	g->machine.engine->cpu_destroy(g->cpu);
	g->machine.engine->vm_detach(&g->machine);
	kick_detach(&g->thread);
	tlb_dispose(&g->cpu->tlb);
	free(g->cpu);
	clock_destroy(g->machine.clock);
	ports_destroy(g->machine.ports);
	mem_destroy(g->machine.mem);
	free(g->images);
	free(g);
}

static struct x86_segment flat(uint16_t selector, uint16_t attr)
{
	return (struct x86_segment){ .limit = 0xffffffff, .selector = selector, .attr = attr };
}

static void put_fpu(struct x86_state *s, const struct diff_regs *r)
{
	unsigned top = r->fsw >> 11 & 7;

	s->fpu.cw = r->fcw;
	s->fpu.sw = r->fsw;
	s->fpu.tag = r->ftw;
	for (unsigned i = 0; i < 8; i++) {
		s->fpu.reg[(top + i) & 7].mantissa = r->st[i].mantissa;
		s->fpu.reg[(top + i) & 7].exponent = r->st[i].exponent;
	}
	s->mxcsr = r->mxcsr;
	for (unsigned i = 0; i < 16; i++) {
		memset(&s->v[i], 0, sizeof(s->v[i]));
		memcpy(s->v[i].q, r->ymm[i], 32);
	}
}

static void put_state(struct guest *g, const struct diff_case *c)
{
	struct x86_state *s = &g->cpu->s;
	const struct diff_regs *r = &c->in;

	x86_state_reset(s, true);
	memcpy(s->gpr, r->gpr, sizeof(s->gpr));
	s->rip = r->rip;
	s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
	s->cr3 = PHYS_PML4;
	s->cr4 = CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_UMIP |
		 CR4_FSGSBASE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP;
	s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	s->xcr0 = g->xcr0;
	s->seg[SEG_ES] = s->seg[SEG_SS] = s->seg[SEG_DS] = flat(0x2b, 0xc0f3);
	s->seg[SEG_CS] = c->mode == DIFF_64 ? flat(0x33, 0xa0fb) : flat(0x23, 0xc0fb);
	s->seg[SEG_FS] = s->seg[SEG_GS] = (struct x86_segment){ 0 };
	s->seg[SEG_FS].base = r->fs_base;
	s->seg[SEG_GS].base = r->gs_base;
	s->seg[SEG_LDTR] = (struct x86_segment){ 0 };
	s->seg[SEG_TR] = (struct x86_segment){ .base = KERNEL + OFF_TSS, .limit = 0x67, .selector = 0x40,
					       .attr = 0x8b };
	s->gdtr = (struct x86_dtable){ KERNEL + OFF_GDT, 0x7f };
	s->idtr = (struct x86_dtable){ KERNEL + OFF_IDT, 0xfff };
	put_fpu(s, r);
	s->activity = ACTIVITY_RUN;
	s->rflags = r->rflags;
	cpu_set_cpl(g->cpu, 3);
	cpu_set_rflags(g->cpu, r->rflags);
	tlb_select(g->cpu);
}

static void put_memory(struct guest *g, const struct diff_case *c)
{
	const uint8_t *image = g->images + (size_t)c->image * IMAGE_BYTES;
	uint8_t code[CODE_PAGES * PAGE];
	bool writable = c->writable;

	memset(code, 0xcc, sizeof(code));
	memcpy(code + c->code_at, c->code, c->code_len);
	/* as a device would write it, so that the engine drops what it has translated */
	CHECK(mem_dma_write(g->machine.mem, PHYS_ARENA, code, sizeof(code)) == 0);
	memcpy(g->ram + PHYS_ARENA + CODE_PAGES * PAGE, image, IMAGE_BYTES);
	for (unsigned i = 0; i < CODE_PAGES; i++)
		map_page(g, PHYS_PT_ARENA, (ARENA_CODE >> 12 & 511) + i, PHYS_ARENA + i * PAGE, writable ? 7 : 5);
	tlb_flush_page(g->cpu, ARENA_CODE);
	tlb_flush_page(g->cpu, ARENA_CODE + PAGE);
}

static void get_state(struct guest *g, struct diff_result *out)
{
	const struct x86_state *s = &g->cpu->s;
	struct diff_regs *r = &out->out;
	uint64_t frame[6], *f = frame;
	unsigned top = s->fpu.sw >> 11 & 7;

	out->vector = (uint8_t)(s->rip - 1 - KERNEL - OFF_STUBS);
	out->has_error = out->vector == 8 || (out->vector >= 10 && out->vector <= 14) || out->vector == 17;
	memcpy(frame, g->ram + PHYS_KERNEL + (s->gpr[RSP] - KERNEL), sizeof(frame));
	out->error = out->has_error ? (uint32_t)*f++ : 0;
	out->cr2 = out->vector == 14 ? s->cr2 : 0;
	memcpy(r->gpr, s->gpr, sizeof(r->gpr));
	r->rip = f[0];
	r->sel[1] = (uint16_t)f[1];
	r->rflags = f[2];
	r->gpr[RSP] = f[3];
	r->sel[2] = (uint16_t)f[4];
	r->sel[0] = s->seg[SEG_ES].selector;
	r->sel[3] = s->seg[SEG_DS].selector;
	r->sel[4] = s->seg[SEG_FS].selector;
	r->sel[5] = s->seg[SEG_GS].selector;
	r->fs_base = s->seg[SEG_FS].base;
	r->gs_base = s->seg[SEG_GS].base;
	r->fcw = s->fpu.cw;
	r->fsw = s->fpu.sw;
	r->ftw = s->fpu.tag;
	for (unsigned i = 0; i < 8; i++) {
		r->st[i].mantissa = s->fpu.reg[(top + i) & 7].mantissa;
		r->st[i].exponent = s->fpu.reg[(top + i) & 7].exponent;
	}
	r->mxcsr = s->mxcsr;
	for (unsigned i = 0; i < 16; i++)
		memcpy(r->ymm[i], s->v[i].q, 32);
	memcpy(out->memory, g->ram + PHYS_ARENA + CODE_PAGES * PAGE, IMAGE_BYTES);
	memcpy(out->code, g->ram + PHYS_ARENA, CODE_PAGES * PAGE);
}

/* The frame must lie on the kernel's stack and the CPU in one of the stubs; else the engine went astray. */
static bool halted_properly(const struct guest *g)
{
	const struct x86_state *s = &g->cpu->s;

	return s->rip - 1 - KERNEL - OFF_STUBS < 256 && s->cpl == 0 && s->gpr[RSP] >= KERNEL + OFF_STACK_TOP - 48 &&
	       s->gpr[RSP] <= KERNEL + OFF_STACK_TOP - 40;
}

static void guest_run(void *data, const struct diff_case *cases, struct diff_result *results, unsigned n,
		      const bool *skip)
{
	struct guest *g = data;
	const struct engine_ops *engine = g->machine.engine;
	struct itimerval limit = { { 0, TIMEOUT_US }, { 0, TIMEOUT_US } }, none = { 0 };

	for (unsigned i = 0; i < n; i++) {
		enum cpu_stop stop;

		if (skip && skip[i])
			continue;
		put_memory(g, &cases[i]);
		put_state(g, &cases[i]);
		engine->state_set(g->cpu);
		running = g->cpu;
		atomic_store(&g->cpu->run_state, CPU_RUNNING);
		setitimer(ITIMER_VIRTUAL, &limit, NULL);
		stop = engine->run(g->cpu);
		setitimer(ITIMER_VIRTUAL, &none, NULL);
		running = NULL;
		atomic_store(&g->cpu->run_state, CPU_READY);
		engine->state_get(g->cpu);
		atomic_store(&g->cpu->attention, 0);
		if (stop == STOP_HLT && halted_properly(g)) {
			results[i].status = DIFF_DONE;
			get_state(g, &results[i]);
		} else {
			results[i].status = stop == STOP_KICK ? DIFF_TIMEOUT : DIFF_CRASH;
		}
	}
}

const struct diff_engine diff_guest = { "guest", guest_create, guest_destroy, guest_run };
