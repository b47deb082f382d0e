/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Code that is not translated: real mode, 16 and 32 bits. The interpreter's handlers on a cache of decoded instructions by
 * physical address. Nothing is marked or invalidated: the bytes are compared each time, which costs little against the
 * handler and is right whoever writes them.
 */
#include <stdlib.h>
#include <string.h>
#include "engine/dbt/dbt.h"
#include "x86/access.h"
#include "x86/event.h"

#define LEGACY_ENTRIES 4096u
#define LEGACY_RUN 200000u /* instructions before the loop looks around */

struct legacy {
	gpa_t page; /* found last, and where it lies */
	const uint8_t *host;
	struct {
		gpa_t at;
		struct insn insn;
	} entry[LEGACY_ENTRIES];
};

static bool exact(const struct cpu *c)
{
	return c->s.shadow || c->s.rflags & (FLAG_TF | FLAG_RF) || c->s.dr[7] & 0xff || c->debug.active;
}

static const uint8_t *page_host(struct cpu *c, struct legacy *l, gpa_t page)
{
	const struct mem_range *r;

	if (likely(l->host && l->page == page))
		return l->host;
	r = mem_find(c->mem, page);
	if (!r || r->kind == MEM_IO || !range_fits(page - r->start, 4096, r->size))
		return NULL;
	l->page = page;
	l->host = r->host + (page - r->start);
	return l->host;
}

/* The instruction at rip, decoded. NULL with CPU_OK: not for this loop. */
static const struct insn *fetch(struct cpu *c, struct legacy *l, int *r)
{
	const struct x86_segment *cs = &c->s.seg[SEG_CS];
	unsigned mode = cs->attr & SEG_ATTR_DB ? MODE_32 : MODE_16, n;
	uint32_t linear = (uint32_t)(cs->base + c->s.rip), offset = linear & 0xfff;
	const uint8_t *host;
	gpa_t page;

	*r = CPU_OK;
	if (offset > 4096 - MAX_INSN || c->s.rip + MAX_INSN < c->s.rip || c->s.rip + MAX_INSN > cs->limit)
		return NULL;
	*r = cpu_fetch_page(c, linear, &page);
	if (*r)
		return NULL;
	page &= ~0xfffull;
	host = page_host(c, l, page);
	if (!host)
		return NULL;
	host += offset;
	n = (unsigned)((page | offset) ^ page >> 12) & (LEGACY_ENTRIES - 1);
	if (unlikely(l->entry[n].at != (page | offset) || l->entry[n].insn.mode != mode ||
		     memcmp(l->entry[n].insn.bytes, host, l->entry[n].insn.len))) {
		l->entry[n].at = NO_PAGE;
		if (insn_decode(&l->entry[n].insn, host, MAX_INSN, (enum insn_mode)mode) != INSN_OK)
			return NULL;
		interp_bind(&l->entry[n].insn);
		l->entry[n].at = page | offset;
	}
	return &l->entry[n].insn;
}

/* Until something needs a boundary. The caller has put the vector registers by. CPU_BOUNDARY or CPU_STOP. */
int legacy_run(struct cpu *c)
{
	struct dbt_cpu *dc = dbt_cpu(c);
	const struct dbt_hot *h = dbt_hot(c);

	if (!dc->legacy)
		dc->legacy = calloc(1, sizeof(*dc->legacy));
	if (!dc->legacy || exact(c) || x86_64bit(&c->s))
		return interp_step(dc->interp, c);
	dc->legacy->host = NULL; /* the map may have changed */
	for (unsigned n = 0; n < LEGACY_RUN; n++) {
		const struct insn *i;
		int r;

		if (__atomic_load_n(&h->kick, __ATOMIC_RELAXED) ||
		    atomic_load_explicit(&c->attention, memory_order_relaxed) & ~dc->unserved)
			return CPU_BOUNDARY;
		i = fetch(c, dc->legacy, &r);
		if (!i)
			return r ? event_deliver_fault(c) : interp_step(dc->interp, c);
		r = interp_exec(c, i);
		if (r == CPU_FAULT)
			return event_deliver_fault(c);
		if (r)
			return r;
	}
	return CPU_BOUNDARY;
}
