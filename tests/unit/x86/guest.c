/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "guest.h"

struct guest *guest_create(void)
{
	struct guest *g = calloc(1, sizeof(*g));
	struct err e = { 0 };

	assert_non_null(g);
	g->mem = mem_create(RAM_SIZE, &e);
	assert_non_null(g->mem);
	assert_int_equal(mem_map_ram(g->mem, 0, 0, RAM_SIZE, "ram", &e), 0);
	g->machine.mem = g->mem;
	g->machine.clock = clock_create_manual();
	assert_int_equal(cpuid_build(&g->cpuid, "host", 1, 2000000, &e), 0);
	g->machine.cpuid = &g->cpuid;
	g->c = aligned_alloc(64, (sizeof(*g->c) + 63) & ~63ul);
	assert_non_null(g->c);
	memset(g->c, 0, sizeof(*g->c));
	g->c->machine = &g->machine;
	g->c->mem = g->mem;
	g->machine.cpus[0] = g->c;
	g->machine.ncpus = 1;
	x86_state_reset(&g->c->s, true);
	assert_int_equal(tlb_init(&g->c->tlb, &e), 0);
	tlb_select(g->c);
	return g;
}

void guest_destroy(struct guest *g)
{
	tlb_dispose(&g->c->tlb);
	free(g->c);
	clock_destroy(g->machine.clock);
	mem_destroy(g->mem);
	free(g);
}

int guest_setup(void **state)
{
	*state = guest_create();
	return 0;
}

int guest_teardown(void **state)
{
	guest_destroy(*state);
	return 0;
}

void put8(struct guest *g, uint64_t at, uint8_t v)
{
	mem_write(g->mem, at, v, 1);
}
void put16(struct guest *g, uint64_t at, uint16_t v)
{
	mem_write(g->mem, at, v, 2);
}
void put32(struct guest *g, uint64_t at, uint32_t v)
{
	mem_write(g->mem, at, v, 4);
}
void put64(struct guest *g, uint64_t at, uint64_t v)
{
	mem_write(g->mem, at, v, 8);
}
uint64_t get(struct guest *g, uint64_t at, unsigned size)
{
	return mem_read(g->mem, at, size);
}

uint64_t descriptor(uint32_t base, uint32_t limit, unsigned type, unsigned dpl, uint32_t flags)
{
	uint32_t low = (base & 0xffff) << 16 | (limit & 0xffff);
	uint32_t high = (base & 0xff000000) | (limit & 0xf0000) | flags | 1u << 15 | dpl << 13 | type << 8 |
			(base >> 16 & 0xff);

	return low | (uint64_t)high << 32;
}

void set_descriptor(struct guest *g, uint16_t selector, uint64_t d)
{
	put64(g, (selector & 4 ? LDT : GDT) + (selector & 0xfff8u), d);
}

uint64_t gate(uint16_t selector, uint32_t offset, unsigned type, unsigned dpl, unsigned count)
{
	uint32_t low = (uint32_t)selector << 16 | (offset & 0xffff);
	uint32_t high = (offset & 0xffff0000) | 1u << 15 | dpl << 13 | type << 8 | count;

	return low | (uint64_t)high << 32;
}

void set_gate64(struct guest *g, uint64_t at, uint16_t selector, uint64_t offset, unsigned type, unsigned dpl,
		unsigned ist)
{
	put64(g, at, gate(selector, (uint32_t)offset, type, dpl, ist));
	put64(g, at + 8, offset >> 32);
}

void set_idt(struct guest *g, unsigned vector, uint64_t gate_)
{
	put64(g, IDT + 8 * vector, gate_);
}

static struct x86_segment segment(uint16_t selector, unsigned type, unsigned dpl, uint16_t attr, uint32_t limit)
{
	return (struct x86_segment){ .limit = limit,
				     .selector = selector,
				     .attr = (uint16_t)(type | 1 | SEG_ATTR_P | dpl << 5 | attr) };
}

static void descriptors(struct guest *g)
{
	set_descriptor(g, S_CODE0, descriptor(0, 0xfffff, D_CODE, 0, FLAT32));
	set_descriptor(g, S_DATA0, descriptor(0, 0xfffff, D_DATA, 0, FLAT32));
	set_descriptor(g, S_CODE3, descriptor(0, 0xfffff, D_CODE, 3, FLAT32));
	set_descriptor(g, S_DATA3, descriptor(0, 0xfffff, D_DATA, 3, FLAT32));
	set_descriptor(g, S_TSS, descriptor(TSS, 0x3ff, 9, 0, 0));
	put64(g, GDT + S_TSS + 8, 0);
	set_descriptor(g, S_LDT, descriptor(LDT, 0xff, 2, 0, 0));
	put64(g, GDT + S_LDT + 8, 0);
	set_descriptor(g, S_CODE64, descriptor(0, 0xfffff, D_CODE, 0, D_64 | D_G));
	set_descriptor(g, S_CODE64_3, descriptor(0, 0xfffff, D_CODE, 3, D_64 | D_G));
	g->c->s.gdtr = (struct x86_dtable){ GDT, 0x7ff };
	g->c->s.idtr = (struct x86_dtable){ IDT, 0xfff };
}

void enter_real(struct guest *g)
{
	struct x86_state *s = &g->c->s;

	s->seg[SEG_CS].selector = CODE >> 4;
	s->seg[SEG_CS].base = CODE & ~15u;
	s->rip = 0x10;
	s->gpr[RSP] = STACK0;
	s->idtr = (struct x86_dtable){ 0, 0x3ff };
	tlb_flush_all(g->c);
	tlb_select(g->c);
}

static void flat(struct x86_state *s)
{
	static const uint8_t data[] = { SEG_ES, SEG_SS, SEG_DS, SEG_FS, SEG_GS };

	for (unsigned i = 0; i < ARRAY_LEN(data); i++)
		s->seg[data[i]] = segment(S_DATA0, D_DATA, 0, SEG_ATTR_DB | SEG_ATTR_G, ~0u);
	s->seg[SEG_CS] = segment(S_CODE0, D_CODE, 0, SEG_ATTR_DB | SEG_ATTR_G, ~0u);
	s->seg[SEG_TR] = (struct x86_segment){ TSS, 0x3ff, S_TSS, SEG_ATTR_P | 11 };
	s->seg[SEG_LDTR] = (struct x86_segment){ LDT, 0xff, S_LDT, SEG_ATTR_P | 2 };
	s->rip = CODE;
	s->gpr[RSP] = STACK0;
}

void enter_protected(struct guest *g)
{
	struct x86_state *s = &g->c->s;

	descriptors(g);
	flat(s);
	put8(g, GDT + S_TSS + 5, 0x8b);
	put32(g, TSS + 4, STACK0);
	put16(g, TSS + 8, S_DATA0);
	s->cr0 |= CR0_PE;
	tlb_flush_all(g->c);
	tlb_select(g->c);
}

void enter_long(struct guest *g)
{
	struct x86_state *s = &g->c->s;

	descriptors(g);
	flat(s);
	put64(g, TABLES, (TABLES + 0x1000) | 7);
	put64(g, TABLES + 0x1000, (TABLES + 0x2000) | 7);
	for (unsigned i = 0; i < RAM_SIZE >> 21; i++)
		put64(g, TABLES + 0x2000 + 8 * i, (uint64_t)i << 21 | 0x87);
	put8(g, GDT + S_TSS + 5, 0x8b);
	put64(g, TSS + 4, STACK0);
	put64(g, TSS + 36, STACK1);
	s->seg[SEG_CS] = segment(S_CODE64, D_CODE, 0, SEG_ATTR_L | SEG_ATTR_G, ~0u);
	s->cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_WP | CR0_NE;
	s->cr3 = TABLES;
	s->cr4 = CR4_PAE | CR4_PGE;
	s->efer = EFER_LMA | EFER_LME | EFER_SCE | EFER_NXE;
	tlb_flush_all(g->c);
	tlb_switch(g->c, s->cr3, false);
}

void enter_v86(struct guest *g, unsigned iopl)
{
	struct x86_state *s = &g->c->s;

	enter_protected(g);
	for (unsigned i = SEG_ES; i <= SEG_GS; i++)
		s->seg[i] = (struct x86_segment){ 0, 0xffff, 0, SEG_ATTR_P | SEG_ATTR_S | 3 << 5 | 3 };
	s->rflags = 2 | FLAG_VM | (uint64_t)iopl << FLAG_IOPL_SHIFT;
	s->gpr[RSP] = 0xa000;
	cpu_set_cpl(g->c, 3);
}

void go_cpl(struct guest *g, unsigned cpl)
{
	struct x86_state *s = &g->c->s;
	bool lng = x86_64bit(s);

	assert_int_equal(cpl, 3);
	s->seg[SEG_CS] = lng ? segment(S_CODE64_3, D_CODE, 3, SEG_ATTR_L | SEG_ATTR_G, ~0u) :
			       segment(S_CODE3, D_CODE, 3, SEG_ATTR_DB | SEG_ATTR_G, ~0u);
	s->seg[SEG_SS] = segment(S_DATA3, D_DATA, 3, SEG_ATTR_DB | SEG_ATTR_G, ~0u);
	s->seg[SEG_DS] = s->seg[SEG_ES] = s->seg[SEG_SS];
	s->gpr[RSP] = STACK3;
	cpu_set_cpl(g->c, 3);
}
