/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The slow ways of a memory access: a TLB miss, a page crossing, MMIO, a page that holds code, breakpoints on data, and
 * faults. Everything is checked before the first byte is written.
 */
#include <sched.h>
#include "x86/access.h"
#include "x86/pgwalk.h"
#include "x86/tlb-fill.h"
#include "x86/watch.h"

/* A piece of an access within one page: where it leads. */
struct piece {
	gva_t at;
	unsigned size;
	uint8_t *host; /* NULL: physical address `where`, through mem/ */
	gpa_t where;
};

static bool canonical(uint64_t at)
{
	return (uint64_t)((int64_t)(at << 16) >> 16) == at;
}

/* Is the range one that can be translated at all? In 64-bit mode addresses must be canonical. */
static int check_address(struct cpu *c, gva_t at, unsigned size)
{
	if (x86_long_mode(&c->s) && unlikely(!canonical(at) || !canonical(at + size - 1)))
		return cpu_raise_error(c, VEC_GP, 0);
	return CPU_OK;
}

/* #AC is for integers; vectors have alignment rules of their own. While it may happen, tlb_select keeps the fast way shut. */
static bool misaligned(const struct cpu *c, gva_t at, unsigned size, enum tlb_mode mode)
{
	if (likely(c->tlb.data != c->tlb.none) || mode != TLB_USER)
		return false;
	return size <= 8 && !(size & (size - 1)) && (at & (size - 1));
}

/* Page tables at odd places: only the full walk can use them. */
static int where_odd(struct cpu *c, struct piece *p, enum tlb_access access, enum tlb_mode mode)
{
	struct pgwalk w;
	int r = pgwalk(c, p->at, access, mode, &w);

	if (!r)
		p->where = w.page | (p->at & (GUEST_PAGE - 1));
	return r;
}

static int piece_find(struct cpu *c, struct piece *p, enum tlb_access access, enum tlb_mode mode)
{
	struct tlb_table *t = c->tlb.space->table[mode];
	int r;

	p->host = access == ACCESS_WRITE ? tlb_write_hit(t, p->at, p->size) : tlb_read_hit(t, p->at, p->size);
	if (p->host)
		return CPU_OK;
	r = tlb_fill(c, p->at, access, mode, &p->where);
	if (r == TLB_NOT_MEMORY)
		return p->where == WHERE_UNKNOWN ? where_odd(c, p, access, mode) : CPU_OK;
	if (!r)
		p->host = (uint8_t *)(p->at + t->addend[tlb_index(t, p->at)]);
	return r;
}

/* One or two pieces, each within a page. Gives their number, or -1 with the fault recorded. */
static int pieces_find(struct cpu *c, struct piece p[2], gva_t at, unsigned size, enum tlb_access access,
		       enum tlb_mode mode)
{
	unsigned first = (unsigned)MIN((uint64_t)size, GUEST_PAGE - (at & (GUEST_PAGE - 1)));
	bool wraps = !x86_long_mode(&c->s);

	p[0] = (struct piece){ .at = at, .size = first };
	if (piece_find(c, &p[0], access, mode))
		return -1;
	if (first == size)
		return 1;
	p[1] = (struct piece){ .at = wraps ? (uint32_t)(at + first) : at + first, .size = size - first };
	if (piece_find(c, &p[1], access, mode))
		return -1;
	return 2;
}

static void copy(void *to, const void *from, unsigned size)
{
	memcpy(to, from, size);
}

/* A piece through mem/, in accesses of at most 8 bytes: MMIO, ROM, nothing, code, tracked pages. */
static void piece_read_physical(struct cpu *c, const struct piece *p, uint8_t *buf)
{
	for (unsigned done = 0; done < p->size;) {
		unsigned n = MIN(p->size - done, 8u);
		uint64_t v;

		while (n & (n - 1))
			n &= n - 1;
		v = mem_read(c->mem, p->where + done, n);
		copy(buf + done, &v, n);
		done += n;
	}
}

static void store_plain(uint8_t *host, const uint8_t *buf, unsigned size)
{
	switch (size) {
	case 1:
		*host = *buf;
		break;
	case 2:
		__builtin_memcpy(host, buf, 2);
		break;
	case 4:
		__builtin_memcpy(host, buf, 4);
		break;
	case 8:
		__builtin_memcpy(host, buf, 8);
		break;
	default:
		copy(host, buf, size);
		break;
	}
}

/*
 * RAM that must not be written behind the engines' backs. On a page with code locked instructions are a read and a
 * write (see cpu_rmw), and no plain store may fall between the two.
 */
static void piece_write_ram(struct cpu *c, const struct piece *p, const uint8_t *buf, const struct mem_range *r)
{
	bool lock = atomic_load(&c->machine->exclusive) != c->id + 1;

	if (lock)
		cpu_exclusive_begin(c);
	store_plain(r->host + (p->where - r->start), buf, p->size);
	if (lock)
		cpu_exclusive_end(c);
	mem_written(c->mem, r->ram_offset + (p->where - r->start), p->size);
}

static void piece_write_physical(struct cpu *c, const struct piece *p, const uint8_t *buf)
{
	const struct mem_range *r = tlb_range(c, p->where);

	if (r && r->kind == MEM_RAM) { /* its ranges keep to pages */
		piece_write_ram(c, p, buf, r);
		return;
	}
	for (unsigned done = 0; done < p->size;) {
		unsigned n = MIN(p->size - done, 8u);
		uint64_t v = 0;

		while (n & (n - 1))
			n &= n - 1;
		copy(&v, buf + done, n);
		mem_write(c->mem, p->where + done, v, n);
		done += n;
	}
}

int access_read_slow(struct cpu *c, gva_t at, void *buf, unsigned size, enum tlb_mode mode)
{
	struct piece p[2];
	int n;

	if (!x86_long_mode(&c->s))
		at = (uint32_t)at;
	if (check_address(c, at, size))
		return CPU_FAULT;
	if (misaligned(c, at, size, mode))
		return cpu_raise_error(c, VEC_AC, 0);
	n = pieces_find(c, p, at, size, ACCESS_READ, mode);
	if (n < 0)
		return CPU_FAULT;
	for (int i = 0; i < n; i++) {
		if (p[i].host)
			copy((uint8_t *)buf + (i ? p[0].size : 0), p[i].host, p[i].size);
		else
			piece_read_physical(c, &p[i], (uint8_t *)buf + (i ? p[0].size : 0));
	}
	watch_check(c, at, size, ACCESS_READ);
	return CPU_OK;
}

int access_write_slow(struct cpu *c, gva_t at, const void *buf, unsigned size, enum tlb_mode mode)
{
	struct piece p[2];
	int n;

	if (!x86_long_mode(&c->s))
		at = (uint32_t)at;
	if (check_address(c, at, size))
		return CPU_FAULT;
	if (misaligned(c, at, size, mode))
		return cpu_raise_error(c, VEC_AC, 0);
	n = pieces_find(c, p, at, size, ACCESS_WRITE, mode);
	if (n < 0)
		return CPU_FAULT;
	/* a device first: engines that watch for accesses to devices find nothing stored yet */
	for (int i = 0; i < n; i++) {
		if (!p[i].host)
			piece_write_physical(c, &p[i], (const uint8_t *)buf + (i ? p[0].size : 0));
	}
	for (int i = 0; i < n; i++) {
		if (p[i].host)
			copy(p[i].host, (const uint8_t *)buf + (i ? p[0].size : 0), p[i].size);
	}
	watch_check(c, at, size, ACCESS_WRITE);
	return CPU_OK;
}

/* Implicit accesses are a supervisor's, and SMAP holds for them whatever AC says. */
static enum tlb_mode system_mode(const struct cpu *c)
{
	return c->s.cr4 & CR4_SMAP ? TLB_SUPER : TLB_SUPER_AC;
}

/* The sizes that descriptors and stack frames come in; others, and misses, take the slow way. */
static int read_in(struct cpu *c, gva_t at, void *buf, unsigned size, enum tlb_mode mode)
{
	const void *p = tlb_read_hit(c->tlb.space->table[mode], at, size);

	if (unlikely(!p || c->tlb.data == c->tlb.none))
		return access_read_slow(c, at, buf, size, mode);
	switch (size) {
	case 8:
		__builtin_memcpy(buf, p, 8);
		return CPU_OK;
	case 4:
		__builtin_memcpy(buf, p, 4);
		return CPU_OK;
	case 2:
		__builtin_memcpy(buf, p, 2);
		return CPU_OK;
	default:
		return access_read_slow(c, at, buf, size, mode);
	}
}

static int write_in(struct cpu *c, gva_t at, const void *buf, unsigned size, enum tlb_mode mode)
{
	void *p = tlb_write_hit(c->tlb.space->table[mode], at, size);

	if (unlikely(!p || c->tlb.data == c->tlb.none))
		return access_write_slow(c, at, buf, size, mode);
	switch (size) {
	case 8:
		__builtin_memcpy(p, buf, 8);
		return CPU_OK;
	case 4:
		__builtin_memcpy(p, buf, 4);
		return CPU_OK;
	case 2:
		__builtin_memcpy(p, buf, 2);
		return CPU_OK;
	default:
		return access_write_slow(c, at, buf, size, mode);
	}
}

int cpu_read_system(struct cpu *c, gva_t at, void *buf, unsigned size)
{
	return read_in(c, at, buf, size, system_mode(c));
}

int cpu_write_system(struct cpu *c, gva_t at, const void *buf, unsigned size)
{
	return write_in(c, at, buf, size, system_mode(c));
}

static enum tlb_mode mode_of(const struct cpu *c, unsigned cpl)
{
	if (cpl == 3)
		return TLB_USER;
	return (c->s.cr4 & CR4_SMAP) && !(c->s.rflags & FLAG_AC) ? TLB_SUPER : TLB_SUPER_AC;
}

int cpu_read_as(struct cpu *c, unsigned cpl, gva_t at, void *buf, unsigned size)
{
	return read_in(c, at, buf, size, mode_of(c, cpl));
}

int cpu_write_as(struct cpu *c, unsigned cpl, gva_t at, const void *buf, unsigned size)
{
	return write_in(c, at, buf, size, mode_of(c, cpl));
}

static int probe(struct cpu *c, gva_t at, unsigned size, enum tlb_access access, enum tlb_mode mode)
{
	struct piece p[2];

	if (!x86_long_mode(&c->s))
		at = (uint32_t)at;
	if (check_address(c, at, size))
		return CPU_FAULT;
	if (misaligned(c, at, size, mode))
		return cpu_raise_error(c, VEC_AC, 0);
	return pieces_find(c, p, at, size, access, mode) < 0 ? CPU_FAULT : CPU_OK;
}

int cpu_probe(struct cpu *c, gva_t at, unsigned size, enum tlb_access access)
{
	return probe(c, at, size, access, c->tlb.mode);
}

int cpu_probe_system(struct cpu *c, gva_t at, unsigned size, enum tlb_access access)
{
	return probe(c, at, size, access, system_mode(c));
}

int cpu_rmw(struct cpu *c, gva_t at, unsigned size, void **host)
{
	struct piece p[2];
	int n;

	*host = tlb_write_hit(c->tlb.data, at, size);
	if (likely(*host))
		return CPU_OK;
	if (!x86_long_mode(&c->s))
		at = (uint32_t)at;
	if (check_address(c, at, size))
		return CPU_FAULT;
	if (misaligned(c, at, size, c->tlb.mode))
		return cpu_raise_error(c, VEC_AC, 0);
	n = pieces_find(c, p, at, size, ACCESS_WRITE, c->tlb.mode);
	if (n < 0)
		return CPU_FAULT;
	if (n == 1)
		*host = p[0].host;
	return CPU_OK;
}

void cpu_exclusive_begin(struct cpu *c)
{
	uint32_t free = 0;

	for (unsigned n = 1; !atomic_compare_exchange_weak(&c->machine->exclusive, &free, c->id + 1); n++) {
		free = 0;
		__builtin_ia32_pause();
		if (n % 256 == 0)
			sched_yield(); /* who holds it may be waiting for this host CPU */
	}
}

void cpu_exclusive_end(struct cpu *c)
{
	atomic_store(&c->machine->exclusive, 0);
}

int cpu_translate(struct cpu *c, gva_t at, enum tlb_access access, enum tlb_mode mode, gpa_t *out)
{
	struct pgwalk w;
	int r = pgwalk(c, at, access, mode, &w);

	if (!r)
		*out = w.page | (at & (GUEST_PAGE - 1));
	return r;
}

bool cpu_translate_debug(struct cpu *c, gva_t at, gpa_t *out)
{
	return pgwalk_debug(c, at, out);
}
