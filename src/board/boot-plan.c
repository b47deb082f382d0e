/* SPDX-License-Identifier: Apache-2.0 */
/* Room in guest memory for what a loader wants there, and putting it there. See board/private.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "board/boot-source.h"

void boot_space_init(struct boot_space *s, const struct boot_map *map)
{
	*s = (struct boot_space){ .map = map };
}

/* The taken range that overlaps [at, at+size), or -1. */
static int space_conflict(const struct boot_space *s, uint64_t at, uint64_t size)
{
	for (unsigned i = 0; i < s->ntaken; i++) {
		if (at < s->taken[i].start + s->taken[i].size && s->taken[i].start < at + size)
			return (int)i;
	}
	return -1;
}

static bool space_record(struct boot_space *s, uint64_t at, uint64_t size)
{
	if (s->ntaken == BOOT_SPACE_MAX)
		return false;
	s->taken[s->ntaken].start = at;
	s->taken[s->ntaken].size = size;
	s->ntaken++;
	return true;
}

int boot_space_take(struct boot_space *s, uint64_t at, uint64_t size)
{
	for (unsigned i = 0; i < s->map->count; i++) {
		const struct boot_range *r = &s->map->range[i];

		if (r->type != E820_RAM || at < r->start || !range_fits(at - r->start, size, r->size))
			continue;
		if (!size)
			return 0;
		if (space_conflict(s, at, size) >= 0)
			return -EBUSY;
		return space_record(s, at, size) ? 0 : -EBUSY;
	}
	return -EFAULT;
}

/* Ends of the search window within one RAM range; false when the piece cannot fit at all. */
static bool space_window(const struct boot_range *r, uint64_t size, uint64_t min, uint64_t max,
			 uint64_t *lo, uint64_t *hi)
{
	*lo = MAX(r->start, min);
	*hi = MIN(r->start + r->size, max);
	return r->type == E820_RAM && *lo < *hi && size <= *hi - *lo;
}

bool boot_space_low(struct boot_space *s, uint64_t size, uint64_t align, uint64_t min, uint64_t max,
		    uint64_t *at)
{
	uint64_t lo, hi;

	for (unsigned i = 0; i < s->map->count; i++) {
		if (!space_window(&s->map->range[i], size, min, max, &lo, &hi))
			continue;
		lo = (lo + align - 1) & ~(align - 1);
		while (range_fits(lo, size, hi)) {
			int c = space_conflict(s, lo, size);

			if (c < 0) {
				*at = lo;
				return space_record(s, lo, size);
			}
			lo = (s->taken[c].start + s->taken[c].size + align - 1) & ~(align - 1);
		}
	}
	return false;
}

bool boot_space_high(struct boot_space *s, uint64_t size, uint64_t align, uint64_t min, uint64_t max,
		     uint64_t *at)
{
	uint64_t lo, hi;

	for (unsigned i = s->map->count; i-- > 0;) {
		if (!space_window(&s->map->range[i], size, min, max, &lo, &hi))
			continue;
		while (hi >= size && hi - size >= lo) {
			uint64_t a = (hi - size) & ~(align - 1);
			int c;

			if (a < lo)
				break;
			c = space_conflict(s, a, size);
			if (c < 0) {
				*at = a;
				return space_record(s, a, size);
			}
			hi = s->taken[c].start;
		}
	}
	return false;
}

uint64_t boot_map_mib(const struct boot_map *map)
{
	uint64_t end = 0;

	for (unsigned i = 0; i < map->count; i++) {
		const struct boot_range *r = &map->range[i];

		if (r->type == E820_RAM)
			end += r->size;
	}
	return (end + (1 << 20) - 1) >> 20;
}

void boot_plan_dispose(struct boot_plan *p)
{
	while (p->nowned)
		free(p->owned[--p->nowned]);
	*p = (struct boot_plan){ 0 };
}

void *boot_plan_alloc(struct boot_plan *p, size_t size)
{
	void *m;

	if (p->nowned == ARRAY_LEN(p->owned))
		return NULL;
	m = calloc(1, size ? size : 1);
	if (m)
		p->owned[p->nowned++] = m;
	return m;
}

int boot_plan_add(struct boot_plan *p, uint64_t at, const void *data, uint64_t len, uint64_t zero,
		  struct err *e)
{
	if (p->nchunks == BOOT_CHUNKS)
		return err_set(e, E2BIG, "too many pieces to load");
	p->chunk[p->nchunks++] = (struct boot_chunk){ at, len, zero, data };
	return 0;
}

static struct x86_segment flat_segment(uint16_t selector, uint16_t type, bool code64)
{
	return (struct x86_segment){
		.base = 0,
		.limit = 0xffffffff,
		.selector = selector,
		.attr = (uint16_t)(SEG_ATTR_P | SEG_ATTR_S | SEG_ATTR_G | type |
				   (code64 ? SEG_ATTR_L : SEG_ATTR_DB)),
	};
}

/* The state both Linux protocols and Multiboot ask for: flat segments, interrupts off, A20 open. */
static void plan_state(const struct boot_plan *p, struct x86_state *s)
{
	bool longmode = p->entry == ENTRY_LONG;

	s->cr0 = CR0_PE | CR0_ET | (longmode ? CR0_PG | CR0_NE : 0);
	s->cr3 = p->cr3;
	s->cr4 = longmode ? CR4_PAE : 0;
	s->efer = longmode ? EFER_LME | EFER_LMA : 0;
	s->rflags = 2;
	s->cpl = 0;
	s->seg[SEG_CS] = flat_segment(p->cs, 0xb, longmode);
	for (unsigned i = SEG_ES; i <= SEG_GS; i++) {
		if (i != SEG_CS)
			s->seg[i] = flat_segment(p->ds, 0x3, false);
	}
	s->seg[SEG_TR] = (struct x86_segment){ .limit = 0x67, .attr = SEG_ATTR_P | 0xb };
	s->seg[SEG_LDTR] = (struct x86_segment){ .limit = 0, .attr = 0 };
	s->gdtr = (struct x86_dtable){ p->gdt, p->gdt_limit };
	s->idtr = (struct x86_dtable){ 0, 0 };
	memset(s->gpr, 0, sizeof(s->gpr));
	s->gpr[RAX] = p->rax;
	s->gpr[RBX] = p->rbx;
	s->gpr[RSI] = p->rsi;
	s->rip = p->rip;
}

int boot_plan_apply(const struct boot_plan *p, struct boot_bytes *const *sources, unsigned nsources, struct mem *mem,
		    uint64_t acpi_rsdp, struct x86_state *cpu0, struct err *e)
{
	int r;

	if (p->rsdp_slot)
		put64(p->rsdp_slot, acpi_rsdp);
	r = boot_chunks_load(p, sources, nsources, mem, e);
	if (!r && p->entry != ENTRY_RESET)
		plan_state(p, cpu0);
	return r;
}
