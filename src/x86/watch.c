/* SPDX-License-Identifier: Apache-2.0 */
/* Data breakpoints and watchpoints: see watch.h. */
#include "x86/tlb-fill.h"
#include "x86/watch.h"

#define DR_EXECUTE 0
#define DR_WRITE 1
#define DR_IO 2
#define DR_ACCESS 3

static unsigned dr_kind(const struct cpu *c, unsigned i)
{
	return c->s.dr[7] >> (16 + 4 * i) & 3;
}

/* 1, 2, 8, 4 bytes, coded 0..3 */
static unsigned dr_length(const struct cpu *c, unsigned i)
{
	static const uint8_t length[] = { 1, 2, 8, 4 };

	return length[c->s.dr[7] >> (18 + 4 * i) & 3];
}

static bool dr_enabled(const struct cpu *c, unsigned i)
{
	return c->s.dr[7] >> (2 * i) & 3;
}

static bool overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a - b < b_len || b - a < a_len;
}

bool tlb_page_watched(const struct cpu *c, gva_t page)
{
	if (likely(!(c->s.dr[7] & 0xff) && !c->debug.nwatches))
		return false;
	for (unsigned i = 0; i < 4; i++)
		if (dr_enabled(c, i) && (dr_kind(c, i) == DR_WRITE || dr_kind(c, i) == DR_ACCESS) &&
		    overlap(page, GUEST_PAGE, c->s.dr[i] & ~(uint64_t)(dr_length(c, i) - 1), dr_length(c, i)))
			return true;
	for (unsigned i = 0; i < c->debug.nwatches; i++)
		if (overlap(page, GUEST_PAGE, c->debug.watches[i].at, c->debug.watches[i].len))
			return true;
	return false;
}

void watch_check_slow(struct cpu *c, gva_t at, unsigned size, enum tlb_access access)
{
	for (unsigned i = 0; i < 4; i++) {
		unsigned length = dr_length(c, i), kind = dr_kind(c, i);

		if (!dr_enabled(c, i) || !overlap(at, size, c->s.dr[i] & ~(uint64_t)(length - 1), length))
			continue;
		if (kind == DR_ACCESS || (kind == DR_WRITE && access == ACCESS_WRITE))
			c->data_hits |= BIT(i);
	}
	for (unsigned i = 0; i < c->debug.nwatches; i++) {
		if (!overlap(at, size, c->debug.watches[i].at, c->debug.watches[i].len))
			continue;
		if (access == ACCESS_WRITE ? c->debug.watches[i].on_write : c->debug.watches[i].on_read) {
			c->debug.hit = c->debug.watches[i].at;
			c->debug.was_hit = true;
		}
	}
	if (c->data_hits || c->debug.was_hit)
		atomic_fetch_or(&c->attention, ATT_DEBUG);
}

void watch_port_slow(struct cpu *c, uint16_t port, unsigned size)
{
	if (!(c->s.cr4 & CR4_DE))
		return;
	for (unsigned i = 0; i < 4; i++) {
		unsigned length = dr_length(c, i);

		if (dr_enabled(c, i) && dr_kind(c, i) == DR_IO &&
		    overlap(port, size, c->s.dr[i] & ~(uint64_t)(length - 1), length))
			c->data_hits |= BIT(i);
	}
	if (c->data_hits)
		atomic_fetch_or(&c->attention, ATT_DEBUG);
}
