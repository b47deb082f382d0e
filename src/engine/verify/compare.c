/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's state and memory against the reference's.
 *
 * Four differences are not errors: arithmetic flags that the code ahead overwrites before anything reads them, which the translator
 * does not compute; flags that no architecture defines, also where PUSHF has put them; the x87 unit's note of its last instruction, which it does not keep; accessed bits of page tables, which
 * a processor may set early (for code of the next page) or leave alone (while its TLB knows the page).
 */
#include <string.h>
#include "engine/verify/verify.h"
#include "x86/access.h"
#include "x86/cpuid.h"

#define AHEAD 96u /* instructions looked at for flags */
#define WAYS 24u
#define MXCSR_FLAGS 0x3fu

static bool differs(struct verify *v, const char *what)
{
	snprintf(v->why, sizeof(v->why), "%s", what);
	return false;
}

/* Where code lies, by the TLB if it is there: the tables may say something else by now. */
static bool code_translate(struct verify *v, gva_t rip, gpa_t *at)
{
	const struct tlb_fetch *f = v->ref->tlb.fetch;
	unsigned n = (rip >> 12) & (TLB_FETCH_ENTRIES - 1);

	if (f->tag[n] != (rip & ~0xfffull))
		return cpu_translate_debug(v->ref, rip, at);
	*at = (f->page[n] & ~0xfffull) | (rip & 0xfff);
	return true;
}

bool code_at(struct verify *v, gva_t rip, struct insn *i)
{
	uint8_t bytes[MAX_INSN];
	unsigned room = MIN(4096 - (unsigned)(rip & 0xfff), MAX_INSN);
	gpa_t at;
	const uint8_t *p;

	if (!code_translate(v, rip, &at))
		return false;
	p = mem_ram_ptr(v->ref->mem, at);
	if (!p)
		return false;
	memcpy(bytes, p, room);
	if (room < MAX_INSN) {
		p = code_translate(v, rip + room, &at) ? mem_ram_ptr(v->ref->mem, at) : NULL;
		if (p)
			memcpy(bytes + room, p, MAX_INSN - room);
		else if (insn_decode(i, bytes, room, insn_mode_of(v)) == INSN_OK)
			return true;
		else
			return false;
	}
	return insn_decode(i, bytes, MAX_INSN, insn_mode_of(v)) == INSN_OK;
}

/* Independent of the translator's own liveness on purpose. Looked at breadth first; what is too far ahead counts as read. */
bool flags_are_dead(struct verify *v, uint64_t differ)
{
	struct {
		gva_t rip;
		uint64_t flags;
	} way[WAYS] = { { v->ref->s.rip, differ } };
	unsigned ways = 1, left = AHEAD;

	for (unsigned n = 0; n < ways; n++) {
		gva_t rip = way[n].rip;
		uint64_t flags = way[n].flags;

		while (flags) {
			struct insn i;

			if (!left--)
				return false;
			if (!code_at(v, rip, &i)) /* a fault comes next, and what it pushes may differ: docs/quirks.md */
				break;
			if (i.flags_read & flags || i.class == CLASS_FAR)
				return false;
			flags &= ~(uint64_t)i.flags_written;
			rip += i.len;
			if (i.class != CLASS_BRANCH)
				continue;
			if (i.op == OP_RET || (i.op == OP_JMP && i.form != FORM_IMM) || (i.op == OP_CALL && i.form != FORM_IMM))
				return !flags;
			if (i.op == OP_JMP || i.op == OP_CALL) {
				rip += i.imm;
			} else if (flags) {
				if (ways == WAYS)
					return false;
				way[ways].rip = rip + i.imm;
				way[ways++].flags = flags;
			}
		}
	}
	return true;
}

static bool compare_flags(struct verify *v)
{
	struct x86_state *s = &v->c->s, *r = &v->ref->s;
	uint64_t differ = s->rflags ^ r->rflags;

	if (!differ)
		return true;
	if (differ & ~(uint64_t)FLAGS_ARITH)
		return differs(v, "RFLAGS differ");
	/* what the block has written over ahead of itself may read flags that the old code did not: docs/quirks.md */
	if (differ & ~v->undefined && !(v->how == WATCH_BEHIND && v->at_block->dead) && !flags_are_dead(v, differ & ~v->undefined))
		return differs(v, "arithmetic flags differ that will be read");
	v->counters.flags_taken++;
	r->rflags = s->rflags;
	return true;
}

static bool compare_x87(struct verify *v)
{
	const struct x86_fpu *a = &v->c->s.fpu, *b = &v->ref->s.fpu;

	if (a->cw != b->cw || a->sw != b->sw || a->tag != b->tag)
		return differs(v, "the x87 control, status or tag word differs");
	for (unsigned n = 0; n < 8; n++) {
		if (a->reg[n].mantissa != b->reg[n].mantissa || a->reg[n].exponent != b->reg[n].exponent)
			return differs(v, "x87 registers differ");
	}
	return true;
}

static bool compare_vectors(struct verify *v)
{
	const struct cpuid_model *m = v->machine.cpuid;
	const struct x86_state *a = &v->c->s, *b = &v->ref->s;
	unsigned bytes = m->has_avx512 ? 64 : m->has_avx ? 32 : 16, count = m->has_avx512 ? 32 : 16;

	/* the host's CPU notes an unmasked exception in MXCSR before it raises it; the interpreter will when it is its turn */
	if (a->mxcsr != b->mxcsr && (v->how != WATCH_STEP || (a->mxcsr ^ b->mxcsr) & ~(a->mxcsr & MXCSR_FLAGS)))
		return differs(v, "MXCSR differs");
	for (unsigned n = 0; n < count; n++) {
		if (memcmp(&a->v[n], &b->v[n], bytes))
			return differs(v, "vector registers differ");
	}
	if (m->has_avx512 && memcmp(a->k, b->k, sizeof(a->k)))
		return differs(v, "mask registers differ");
	return true;
}

/* All between the flags and MXCSR: segments, tables, control and debug registers, MSRs. */
static bool compare_system(struct verify *v)
{
	const struct x86_state *a = &v->c->s;
	struct x86_state *b = &v->ref->s;

	/* of STI the translator keeps no shadow: it sees to it that nothing can come between */
	if (v->stop_block || v->how == WATCH_STEP || v->how == WATCH_BRANCH || v->how == WATCH_FAULT)
		b->shadow = a->shadow;
	if (memcmp(a->seg, b->seg, offsetof(struct x86_state, mxcsr) - offsetof(struct x86_state, seg)))
		return differs(v, "system registers differ");
	return true;
}

bool compare_states(struct verify *v)
{
	struct x86_state *a = &v->c->s, *b = &v->ref->s;

	if (a->rip != b->rip)
		return differs(v, "RIP differs");
	for (unsigned n = 0; n < 16; n++) {
		if ((a->gpr[n] ^ b->gpr[n]) & ~v->loose)
			return differs(v, "general registers differ");
		b->gpr[n] = a->gpr[n];
	}
	if (!compare_flags(v) || !compare_system(v) || !compare_x87(v) || !compare_vectors(v))
		return false;
	return true;
}

#define PTE_P 1ull
#define PTE_A 0x20ull
#define PTE_D 0x40ull

/*
 * May both be the same entry? Accessed may be set early or late. An instruction of the machine's that has begun, when the
 * reference stands before it, may have marked its page dirty too: when its TLB was filled for a try that has not come to its end.
 */
static bool page_table_entry(const struct verify *v, uint64_t a, uint64_t b)
{
	return a & PTE_P && ((a ^ b) == PTE_A || ((v->helped || v->how != WATCH_LEFT) && !((a ^ b) & ~(PTE_A | PTE_D)) && (a & ~b) == (a ^ b)));
}

/* Of 32 bits, two to a word. */
static bool small_entries(const struct verify *v, uint64_t a, uint64_t b)
{
	uint32_t low = (uint32_t)(a ^ b), high = (uint32_t)((a ^ b) >> 32);

	return !(v->ref->s.cr4 & CR4_PAE) && (!low || page_table_entry(v, (uint32_t)a, (uint32_t)b)) &&
	       (!high || page_table_entry(v, a >> 32, b >> 32));
}

static bool compare_page(struct verify *v, uint64_t page)
{
	const uint64_t *a = (const uint64_t *)(const void *)(mem_ram_base(v->c->mem) + page * GUEST_PAGE);
	uint64_t *b = (uint64_t *)(void *)(mem_ram_base(v->ref->mem) + page * GUEST_PAGE);

	v->counters.pages++;
	if (likely(!memcmp(a, b, GUEST_PAGE)))
		return true;
	for (unsigned n = 0; n < GUEST_PAGE / 8; n++) {
		if (a[n] == b[n])
			continue;
		if (!((a[n] ^ b[n]) & ~v->loose) || page_table_entry(v, a[n], b[n]) || small_entries(v, a[n], b[n])) {
			v->counters.words_taken++;
			b[n] = a[n];
			continue;
		}
		snprintf(v->why, sizeof(v->why), "RAM at offset %#llx differs: translator %#018llx, interpreter %#018llx",
			 (unsigned long long)(page * GUEST_PAGE + n * 8), (unsigned long long)a[n],
			 (unsigned long long)b[n]);
		return false;
	}
	return true;
}

/* A call that is about to fault has left its return address behind, below the stack: see docs/quirks.md. */
static void take_pushed(struct verify *v)
{
	for (unsigned n = 1; n <= 8; n++) {
		gpa_t at;
		const uint8_t *from;
		uint8_t *to;

		if (!cpu_translate_debug(v->ref, v->ref->s.gpr[RSP] - n, &at))
			continue;
		from = mem_ram_ptr(v->c->mem, at);
		to = mem_ram_ptr(v->ref->mem, at);
		if (from && to)
			*to = *from;
	}
}

bool compare_memory(struct verify *v)
{
	_Atomic uint8_t *flags = mem_page_flags(v->c->mem);
	unsigned count;
	const uint32_t *page = mem_watch_pages(v->c->mem, &count);

	if (v->how == WATCH_BRANCH)
		take_pushed(v);
	for (unsigned n = 0; n < count; n++) {
		if (!compare_page(v, page[n]))
			return false;
	}
	page = mem_watch_pages(v->ref->mem, &count);
	for (unsigned n = 0; n < count; n++) {
		if (!(atomic_load_explicit(&flags[page[n]], memory_order_relaxed) & MEM_DIRTY) &&
		    !compare_page(v, page[n]))
			return false;
	}
	return true;
}
