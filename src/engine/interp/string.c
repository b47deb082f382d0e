/* SPDX-License-Identifier: Apache-2.0 */
/*
 * String instructions. A repeated one commits iteration by iteration; when the attention word or TF
 * asks for a pause rip is put back on the instruction and CPU_BOUNDARY returned, so that it goes on
 * later with what is left in the registers. REP MOVS and STOS work in pieces: up to the end of a
 * page, through host pointers, when DF is clear.
 */
#include "engine/interp/private.h"
#include "x86/watch.h"

/* One string instruction underway. */
struct string {
	unsigned size, addrsize;
	uint64_t mask;	/* of the address size */
	int64_t step;	/* +-size */
	uint8_t source; /* segment */
	bool repeats, flat;
};

static struct string string_begin(const struct cpu *c, const struct insn *i)
{
	return (struct string){
		.size = i->opsize,
		.addrsize = i->addrsize,
		.mask = size_mask(i->addrsize),
		.step = c->s.rflags & FLAG_DF ? -(int64_t)i->opsize : i->opsize,
		.source = i->seg,
		.repeats = i->flags & (INSN_REP | INSN_REPNE),
		.flat = i->mode == MODE_64,
	};
}

static int string_linear(struct cpu *c, const struct string *s, enum x86_seg seg, uint64_t offset,
			 unsigned size, bool write, gva_t *at)
{
	offset &= s->mask;
	if (!s->flat)
		return operand_segment(c, seg, offset, size, write, at);
	*at = seg >= SEG_FS ? offset + c->s.seg[seg].base : offset;
	return CPU_OK;
}

static void index_add(struct cpu *c, const struct string *s, unsigned reg, int64_t by)
{
	reg_set(c, reg, false, s->addrsize, c->s.gpr[reg] + (uint64_t)by);
}

static uint64_t count_get(const struct cpu *c, const struct string *s)
{
	return s->repeats ? c->s.gpr[RCX] & s->mask : 1;
}

static void count_sub(struct cpu *c, const struct string *s, uint64_t by)
{
	if (s->repeats)
		reg_set(c, RCX, false, s->addrsize, c->s.gpr[RCX] - by);
}

/*
 * After an iteration (or a piece): is the instruction to be left, to be resumed? True: rip is back
 * on it and the handler returns CPU_BOUNDARY.
 */
static bool string_pauses(struct cpu *c, const struct insn *i, const struct string *s)
{
	if (likely(!atomic_load_explicit(&c->attention, memory_order_relaxed) &&
		   !(c->s.rflags & (FLAG_TF | FLAG_RF)) && !c->debug.active))
		return false;
	if (!count_get(c, s))
		return false;
	c->s.rip -= i->len;
	return true;
}

/* Bytes that can be handled at once at `at`: to the end of its page, of the index's range, of the
 * count. */
static uint64_t piece_limit(const struct string *s, gva_t at, uint64_t offset, uint64_t bytes)
{
	uint64_t page = 4096 - (at & 4095), range = s->mask - (offset & s->mask);

	return MIN(MIN(bytes, page), range == ~0ull ? range : range + 1);
}

static uint64_t bytes_left(const struct cpu *c, const struct string *s)
{
	uint64_t count = count_get(c, s);

	return MIN(count, 4096u) * s->size;
}

/*
 * Host addresses of plain memory within a page, the TLB filled if need be; NULL: not plain, or a fault, which the slow
 * way meets again.
 */
static uint8_t *plain_source(struct cpu *c, gva_t at, unsigned n)
{
	uint8_t *p = tlb_read_hit(c->tlb.data, at, n);

	return p || cpu_probe(c, at, n, ACCESS_READ) ? p : tlb_read_hit(c->tlb.data, at, n);
}

static uint8_t *plain_target(struct cpu *c, gva_t at, unsigned n)
{
	uint8_t *p = tlb_write_hit(c->tlb.data, at, n);

	return p || cpu_probe(c, at, n, ACCESS_WRITE) ? p : tlb_write_hit(c->tlb.data, at, n);
}

/* MOVS: as much as possible through two host pointers. Bytes done, 0: take the slow way for one
 * iteration. */
static uint64_t movs_piece(struct cpu *c, const struct string *s)
{
	uint64_t n = bytes_left(c, s), si = c->s.gpr[RSI] & s->mask, di = c->s.gpr[RDI] & s->mask;
	uint8_t *from, *to;
	gva_t a, b;

	if (string_linear(c, s, (enum x86_seg)s->source, si, s->size, false, &a) ||
	    string_linear(c, s, SEG_ES, di, s->size, true, &b))
		return 0;
	n = piece_limit(s, a, si, n);
	n = piece_limit(s, b, di, n);
	n -= n % s->size;
	if (!n || string_linear(c, s, (enum x86_seg)s->source, si, (unsigned)n, false, &a) ||
	    string_linear(c, s, SEG_ES, di, (unsigned)n, true, &b))
		return 0;
	/*
	 * The target last: both may want the same entry of the TLB, and while we write the entry must be there, for others
	 * to find that we do (tlb_revoke_page).
	 */
	from = plain_source(c, a, (unsigned)n);
	to = from ? plain_target(c, b, (unsigned)n) : NULL;
	if (!to)
		return 0;
	if (to > from &&
	    (uint64_t)(to - from) < n) { /* each byte is copied before it is overwritten */
		n = (uint64_t)(to - from);
		n -= n % s->size;
		if (!n)
			return 0;
	}
	memmove(to, from, n);
	return n;
}

static int movs_one(struct cpu *c, const struct string *s)
{
	gva_t a, b;
	uint64_t v;
	int r = string_linear(c, s, (enum x86_seg)s->source, c->s.gpr[RSI], s->size, false, &a);

	if (!r)
		r = linear_load(c, a, s->size, &v);
	if (!r)
		r = string_linear(c, s, SEG_ES, c->s.gpr[RDI], s->size, true, &b);
	return r ? r : linear_store(c, b, s->size, v);
}

int str_movs(struct cpu *c, const struct insn *i)
{
	struct string s = string_begin(c, i);

	while (count_get(c, &s)) {
		uint64_t n =
			s.repeats && s.step > 0 && !(c->s.rflags & FLAG_TF) ? movs_piece(c, &s) : 0;

		if (!n) {
			int r = movs_one(c, &s);

			if (r)
				return r;
			n = s.size;
		}
		index_add(c, &s, RSI, s.step > 0 ? (int64_t)n : s.step);
		index_add(c, &s, RDI, s.step > 0 ? (int64_t)n : s.step);
		count_sub(c, &s, n / s.size);
		if (!s.repeats)
			break;
		if (string_pauses(c, i, &s))
			return CPU_BOUNDARY;
	}
	return CPU_OK;
}

static void fill(uint8_t *p, uint64_t v, uint64_t n, unsigned size)
{
	if (size == 1) {
		memset(p, (int)v, n);
		return;
	}
	for (uint64_t k = 0; k < n; k += size)
		memcpy(p + k, &v, size);
}

static uint64_t stos_piece(struct cpu *c, const struct string *s)
{
	uint64_t n = bytes_left(c, s), di = c->s.gpr[RDI] & s->mask;
	uint8_t *to;
	gva_t b;

	if (string_linear(c, s, SEG_ES, di, s->size, true, &b))
		return 0;
	n = piece_limit(s, b, di, n);
	n -= n % s->size;
	if (!n || string_linear(c, s, SEG_ES, di, (unsigned)n, true, &b))
		return 0;
	to = plain_target(c, b, (unsigned)n);
	if (!to)
		return 0;
	switch (s->size) { /* constant sizes: the loops become vector stores */
	case 1:
		fill(to, c->s.gpr[RAX], n, 1);
		break;
	case 2:
		fill(to, c->s.gpr[RAX], n, 2);
		break;
	case 4:
		fill(to, c->s.gpr[RAX], n, 4);
		break;
	default:
		fill(to, c->s.gpr[RAX], n, 8);
		break;
	}
	return n;
}

int str_stos(struct cpu *c, const struct insn *i)
{
	struct string s = string_begin(c, i);
	gva_t b;

	while (count_get(c, &s)) {
		uint64_t n =
			s.repeats && s.step > 0 && !(c->s.rflags & FLAG_TF) ? stos_piece(c, &s) : 0;

		if (!n) {
			int r = string_linear(c, &s, SEG_ES, c->s.gpr[RDI], s.size, true, &b);

			if (!r)
				r = linear_store(c, b, s.size, c->s.gpr[RAX]);
			if (r)
				return r;
			n = s.size;
		}
		index_add(c, &s, RDI, s.step > 0 ? (int64_t)n : s.step);
		count_sub(c, &s, n / s.size);
		if (!s.repeats)
			break;
		if (string_pauses(c, i, &s))
			return CPU_BOUNDARY;
	}
	return CPU_OK;
}

int str_lods(struct cpu *c, const struct insn *i)
{
	struct string s = string_begin(c, i);
	uint64_t v;
	gva_t a;

	while (count_get(c, &s)) {
		int r = string_linear(c, &s, (enum x86_seg)s.source, c->s.gpr[RSI], s.size, false,
				      &a);

		if (!r)
			r = linear_load(c, a, s.size, &v);
		if (r)
			return r;
		reg_set(c, RAX, false, s.size, v);
		index_add(c, &s, RSI, s.step);
		count_sub(c, &s, 1);
		if (!s.repeats)
			break;
		if (string_pauses(c, i, &s))
			return CPU_BOUNDARY;
	}
	return CPU_OK;
}

/* REPE goes on while equal, REPNE while not. */
static bool compare_ends(const struct cpu *c, const struct insn *i)
{
	bool equal = c->s.rflags & FLAG_ZF;

	return i->flags & INSN_REPNE ? equal : !equal;
}

static void compare(struct cpu *c, uint64_t a, uint64_t b, unsigned size)
{
	flags_set(c, flags_sub(a, b, (a - b) & size_mask(size), size));
}

int str_scas(struct cpu *c, const struct insn *i)
{
	struct string s = string_begin(c, i);
	uint64_t v;
	gva_t b;

	while (count_get(c, &s)) {
		int r = string_linear(c, &s, SEG_ES, c->s.gpr[RDI], s.size, false, &b);

		if (!r)
			r = linear_load(c, b, s.size, &v);
		if (r)
			return r;
		compare(c, c->s.gpr[RAX] & size_mask(s.size), v, s.size);
		index_add(c, &s, RDI, s.step);
		count_sub(c, &s, 1);
		if (!s.repeats || compare_ends(c, i))
			break;
		if (string_pauses(c, i, &s))
			return CPU_BOUNDARY;
	}
	return CPU_OK;
}

int str_cmps(struct cpu *c, const struct insn *i)
{
	struct string s = string_begin(c, i);
	uint64_t v, w;
	gva_t a, b;

	while (count_get(c, &s)) {
		int r = string_linear(c, &s, (enum x86_seg)s.source, c->s.gpr[RSI], s.size, false,
				      &a);

		if (!r)
			r = linear_load(c, a, s.size, &v);
		if (!r)
			r = string_linear(c, &s, SEG_ES, c->s.gpr[RDI], s.size, false, &b);
		if (!r)
			r = linear_load(c, b, s.size, &w);
		if (r)
			return r;
		compare(c, v, w, s.size);
		index_add(c, &s, RSI, s.step);
		index_add(c, &s, RDI, s.step);
		count_sub(c, &s, 1);
		if (!s.repeats || compare_ends(c, i))
			break;
		if (string_pauses(c, i, &s))
			return CPU_BOUNDARY;
	}
	return CPU_OK;
}

/* INS and OUTS of as much as the device takes at once, within a page of plain memory. Bytes done, 0: one by one. */
static uint64_t port_piece(struct cpu *c, const struct string *s, uint16_t port, bool in)
{
	enum x86_seg seg = in ? SEG_ES : (enum x86_seg)s->source;
	uint64_t n = bytes_left(c, s), at = c->s.gpr[in ? RDI : RSI] & s->mask;
	uint8_t *p;
	gva_t a;

	if (!s->repeats || s->step < 0 || c->s.rflags & FLAG_TF || c->s.dr[7] & 0xff || c->debug.active ||
	    string_linear(c, s, seg, at, s->size, in, &a))
		return 0;
	n = piece_limit(s, a, at, n) / s->size;
	if (n < 2 || string_linear(c, s, seg, at, (unsigned)n * s->size, in, &a))
		return 0;
	p = in ? plain_target(c, a, (unsigned)n * s->size) : plain_source(c, a, (unsigned)n * s->size);
	if (!p)
		return 0;
	n = in ? ports_in_many(c->machine->ports, port, s->size, p, (unsigned)n) :
		 ports_out_many(c->machine->ports, port, s->size, p, (unsigned)n);
	return n * s->size;
}

/* The destination is tried before the port is read: a read of a port can have effects. */
static int ins_one(struct cpu *c, const struct string *s, uint16_t port)
{
	gva_t b;
	int r = string_linear(c, s, SEG_ES, c->s.gpr[RDI], s->size, true, &b);

	if (!r)
		r = cpu_probe(c, b, s->size, ACCESS_WRITE);
	if (!r)
		r = linear_store(c, b, s->size, ports_in(c->machine->ports, port, s->size));
	if (!r)
		watch_port(c, port, s->size);
	return r;
}

static int outs_one(struct cpu *c, const struct string *s, uint16_t port)
{
	uint64_t v;
	gva_t a;
	int r = string_linear(c, s, (enum x86_seg)s->source, c->s.gpr[RSI], s->size, false, &a);

	if (!r)
		r = linear_load(c, a, s->size, &v);
	if (r)
		return r;
	ports_out(c->machine->ports, port, (uint32_t)v, s->size);
	watch_port(c, port, s->size);
	return CPU_OK;
}

static int string_port(struct cpu *c, const struct insn *i, bool in)
{
	struct string s = string_begin(c, i);
	uint16_t port = (uint16_t)c->s.gpr[RDX];
	int r;

	if (s.size == 8)
		s.size = 4, s.step /= 2;
	r = io_permitted(c, port, s.size);
	if (r)
		return r;
	while (count_get(c, &s)) {
		uint64_t n = port_piece(c, &s, port, in);

		if (!n) {
			r = in ? ins_one(c, &s, port) : outs_one(c, &s, port);
			if (r)
				return r;
			n = s.size;
		}
		index_add(c, &s, in ? RDI : RSI, s.step > 0 ? (int64_t)n : s.step);
		count_sub(c, &s, n / s.size);
		if (!s.repeats)
			break;
		if (string_pauses(c, i, &s))
			return CPU_BOUNDARY;
	}
	return CPU_BOUNDARY;
}

int str_ins(struct cpu *c, const struct insn *i)
{
	return string_port(c, i, true);
}

int str_outs(struct cpu *c, const struct insn *i)
{
	return string_port(c, i, false);
}
