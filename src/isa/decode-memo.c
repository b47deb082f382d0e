/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoding by memory: insn_decode() costs 200 ns, and programs say the same few thousand things with other
 * displacements and immediates. Here the bytes of an instruction up to its SIB byte find a decoded one, in which only
 * those two are to be replaced: 10 to 20 ns.
 *
 * What an entry may be used for is not reasoned out but tried: before it is used, its instruction is decoded with its
 * displacement and immediate all ones and all zeros as well. If anything else in the result changes, the entry says
 * that insn_decode() is to be asked each time. Immediates of one byte that are more than a number (shift counts,
 * selectors, predicates) are part of what is looked up. The length is found by the tables here and checked in the same way.
 *
 * One thread at a time.
 */
#include <string.h>
#include "base/huge.h"
#include "isa/insn.h"

/*
 * A compiler has 28000 kinds, which take 3 MiB. Twice as many places, of which each kind may have two: where they drive one
 * another out they are decoded again and again.
 */
#define MEMO_BITS 16
#define MEMO_KINDS 49152u

enum { M = 0x10, IB = 1, IBK = 2, IZ = 3, IV = 4, IW = 5, F3 = 6, NO = 0x80 };

/*
 * What follows an opcode: M ModRM; an immediate: IB one byte, IBK one that belongs to the key, IZ two or four, IV up to
 * eight, IW two, F3 as in groups F6 and F7; NO: not for us.
 */
#define ALU_ROW M, M, M, M, IB, IZ
static const uint8_t map0[256] = {
	ALU_ROW, NO, NO, ALU_ROW, NO, NO, ALU_ROW, NO, NO, ALU_ROW, NO, NO,
	ALU_ROW, NO, NO, ALU_ROW, NO, NO, ALU_ROW, NO, NO, ALU_ROW, NO, NO,
	[0x40 ... 0x4f] = 0, /* 32-bit code only */
	[0x50 ... 0x5f] = 0, [0x60 ... 0x62] = NO, [0x63] = M, [0x64 ... 0x67] = NO,
	[0x68] = IZ, [0x69] = M | IZ, [0x6a] = IB, [0x6b] = M | IB, [0x6c ... 0x6f] = 0,
	[0x70 ... 0x7f] = IB, [0x80] = M | IB, [0x81] = M | IZ, [0x82] = NO, [0x83] = M | IB,
	[0x84 ... 0x8f] = M, [0x90 ... 0x99] = 0, [0x9a] = NO, [0x9b ... 0x9f] = 0,
	[0xa0 ... 0xa3] = NO, [0xa4 ... 0xa7] = 0, [0xa8] = IB, [0xa9] = IZ, [0xaa ... 0xaf] = 0,
	[0xb0 ... 0xb7] = IB, [0xb8 ... 0xbf] = IV, [0xc0 ... 0xc1] = M | IBK, [0xc2] = IW, [0xc3] = 0,
	[0xc4 ... 0xc5] = NO, [0xc6] = M | IB, [0xc7] = M | IZ, [0xc8] = NO, [0xc9] = 0, [0xca] = NO, [0xcb ... 0xcc] = 0,
	[0xcd] = IBK, [0xce ... 0xcf] = 0, [0xd0 ... 0xd3] = M, [0xd4 ... 0xd5] = IBK, [0xd6] = NO, [0xd7] = 0,
	[0xd8 ... 0xdf] = M, [0xe0 ... 0xe3] = IB, [0xe4 ... 0xe7] = IBK, [0xe8 ... 0xe9] = IZ, [0xea] = NO, [0xeb] = IB,
	[0xec ... 0xf5] = 0, [0xf0] = NO, [0xf2 ... 0xf3] = NO, [0xf6 ... 0xf7] = M | F3, [0xf8 ... 0xfd] = 0,
	[0xfe ... 0xff] = M,
};

static const uint8_t map1[256] = {
	[0x00 ... 0x03] = M, [0x04] = NO, [0x05 ... 0x09] = 0, [0x0a ... 0x0c] = NO, [0x0d] = M, [0x0e ... 0x0f] = NO,
	[0x10 ... 0x1f] = M, [0x20 ... 0x27] = NO, [0x28 ... 0x2f] = M, [0x30 ... 0x35] = 0, [0x36 ... 0x3f] = NO,
	[0x40 ... 0x6f] = M, [0x70 ... 0x73] = M | IBK, [0x74 ... 0x76] = M, [0x77] = 0, [0x78 ... 0x79] = NO,
	[0x7a ... 0x7b] = NO, [0x7c ... 0x7f] = M, [0x80 ... 0x8f] = IZ, [0x90 ... 0x9f] = M, [0xa0 ... 0xa2] = 0,
	[0xa3] = M, [0xa4] = M | IBK, [0xa5] = M, [0xa6 ... 0xa7] = NO, [0xa8 ... 0xaa] = 0, [0xab] = M, [0xac] = M | IBK,
	[0xad ... 0xaf] = M, [0xb0 ... 0xb9] = M, [0xba] = M | IBK, [0xbb ... 0xc1] = M, [0xc2] = M | IBK, [0xc3] = M,
	[0xc4 ... 0xc6] = M | IBK, [0xc7] = M, [0xc8 ... 0xcf] = 0, [0xd0 ... 0xfe] = M, [0xff] = NO,
};

/* Many kinds are met only once: what it takes to trust an entry is done when it is met again. */
enum entry_state { ENTRY_NEW, ENTRY_TRUSTED, ENTRY_NEVER };

struct entry {
	uint64_t key;
	uint8_t imm; /* IBK's */
	uint8_t mode;
	uint8_t state; /* enum entry_state */
	bool imm_signed;
	struct insn insn;
};

/* Entries lie in the order in which they were met, so that a program with few kinds needs little memory. */
struct insn_memo {
	uint16_t place[1u << MEMO_BITS]; /* by hash: an entry's number + 1 */
	unsigned used;
	struct entry entry[MEMO_KINDS];
};

static bool entry_is(const struct entry *e, uint64_t key, uint8_t imm, enum insn_mode mode, unsigned len)
{
	return e->key == key && e->imm == imm && e->mode == mode && e->insn.len == len;
}

static struct entry *entry_new(struct insn_memo *m, uint16_t *place)
{
	if (unlikely(!*place && m->used == MEMO_KINDS)) { /* as good as any: begin anew: no program has so many */
		memset(m->place, 0, sizeof(m->place));
		m->used = 0;
	}
	if (!*place)
		*place = (uint16_t)++m->used;
	return &m->entry[*place - 1];
}

struct insn_memo *insn_memo_create(void)
{
	return huge_alloc(sizeof(struct insn_memo));
}

void insn_memo_destroy(struct insn_memo *m)
{
	huge_free(m, sizeof(*m));
}

size_t insn_memo_size(void)
{
	return sizeof(struct insn_memo);
}

/* Where the parts of an instruction are. */
struct layout {
	uint8_t disp_at; /* all before belongs to the key */
	uint8_t disp_len, imm_len;
	bool imm_in_key;
};

static unsigned modrm_layout(const uint8_t *b, unsigned at, struct layout *l)
{
	uint8_t mod = b[at] >> 6, rm = b[at] & 7;

	at++;
	l->disp_len = mod == 1 ? 1 : mod == 2 ? 4 : 0;
	if (mod == 3)
		return at;
	if (rm == 4) {
		if (!mod && (b[at] & 7) == 5)
			l->disp_len = 4;
		at++;
	} else if (!mod && rm == 5) {
		l->disp_len = 4;
	}
	return at;
}

/* False: not for us. Reads up to 9 bytes. */
static bool layout_of(const uint8_t *b, enum insn_mode mode, struct layout *l)
{
	bool word = false, wide = false;
	unsigned at = 0, kind;
	uint8_t op;

	while (b[at] == 0x66 || b[at] == 0xf2 || b[at] == 0xf3 || b[at] == 0xf0 || b[at] == 0x64 || b[at] == 0x65) {
		word |= b[at] == 0x66;
		if (++at == 3)
			return false;
	}
	if (mode == MODE_64 && (b[at] & 0xf0) == 0x40)
		wide = b[at++] & 8;
	op = b[at++];
	if (mode == MODE_64 && (op == 0xc5 || op == 0xc4)) {
		unsigned map = op == 0xc5 ? 1 : b[at] & 0x1f;

		at += op == 0xc5 ? 1 : 2;
		if (map < 1 || map > 3)
			return false;
		op = b[at++];
		kind = map == 1 ? map1[op] : map == 2 ? M : M | IBK;
		if (map == 1 && op >= 0x80 && op <= 0x8f)
			return false;
	} else if (op == 0x0f) {
		op = b[at++];
		kind = op == 0x38 ? M : op == 0x3a ? M | IBK : map1[op];
		at += op == 0x38 || op == 0x3a;
		if (word && op >= 0x80 && op <= 0x8f)
			return false; /* processors differ */
	} else {
		kind = map0[op];
		if (word && (op == 0xe8 || op == 0xe9 || op == 0xc2))
			return false;
		if ((kind & 15) == F3)
			kind = M | (b[at] & 0x38 ? 0 : op == 0xf6 ? IB : IZ);
		if (kind & M && (b[at] & 0x38) == 8 && op >= 0xf6 && op <= 0xf7)
			kind = M | (op == 0xf6 ? IB : IZ);
	}
	if (kind & NO)
		return false;
	*l = (struct layout){ 0 };
	if (kind & M)
		at = modrm_layout(b, at, l);
	l->disp_at = (uint8_t)at;
	switch (kind & 15) {
	case IB:
	case IBK:
		l->imm_len = 1;
		l->imm_in_key = (kind & 15) == IBK;
		break;
	case IW:
		l->imm_len = 2;
		break;
	case IZ:
		l->imm_len = word ? 2 : 4;
		break;
	case IV:
		l->imm_len = wide ? 8 : word ? 2 : 4;
		break;
	}
	return at <= 8;
}

static uint64_t number_at(const uint8_t *b, unsigned len, bool is_signed)
{
	uint64_t v = 0;

	memcpy(&v, b, len);
	if (is_signed && len && len < 8)
		v = (uint64_t)((int64_t)(v << (64 - 8 * len)) >> (64 - 8 * len));
	return v;
}

/* The instruction with other numbers must be the same but for these. */
static bool same_otherwise(const struct insn *i, const struct layout *l, uint8_t fill, bool *imm_signed)
{
	unsigned imm_at = l->disp_at + l->disp_len;
	uint8_t bytes[15];
	struct insn other;
	uint64_t imm;

	memcpy(bytes, i->bytes, sizeof(bytes));
	memset(bytes + l->disp_at, fill, l->disp_len);
	if (!l->imm_in_key)
		memset(bytes + imm_at, fill, l->imm_len);
	if (insn_decode(&other, bytes, sizeof(bytes), i->mode) != INSN_OK)
		return false;
	if (other.flags & INSN_MEM && l->disp_len && (uint64_t)other.disp != number_at(bytes + l->disp_at, l->disp_len, true))
		return false;
	if (l->imm_len && !l->imm_in_key) {
		imm = number_at(bytes + imm_at, l->imm_len, false);
		if (fill)
			*imm_signed = other.imm != imm;
		if (other.imm != number_at(bytes + imm_at, l->imm_len, *imm_signed))
			return false;
	}
	other.imm = i->imm;
	other.disp = i->disp;
	memcpy(other.bytes, i->bytes, sizeof(other.bytes));
	return !memcmp(&other, i, sizeof(other));
}

static void entry_try(struct entry *e, const struct layout *l)
{
	const struct insn *i = &e->insn;
	bool is_signed = false, good;

	good = i->len == l->disp_at + l->disp_len + l->imm_len && (!i->disp_len || i->disp_at == l->disp_at) &&
	       i->disp_len == l->disp_len && i->imm_len == l->imm_len && (!l->disp_len || i->flags & INSN_MEM) &&
	       same_otherwise(i, l, 0xff, &is_signed) && same_otherwise(i, l, 0, &is_signed);
	e->state = good ? ENTRY_TRUSTED : ENTRY_NEVER;
	e->imm_signed = is_signed;
}

enum insn_status insn_decode_memo(struct insn_memo *m, struct insn *out, const uint8_t *bytes, size_t available,
				  enum insn_mode mode)
{
	enum insn_status status;
	uint64_t key = 0;
	unsigned len, imm_at;
	struct entry *e;
	struct layout l;
	uint16_t *place;
	uint8_t imm;

	if (available < 15 || mode == MODE_16 || !layout_of(bytes, mode, &l))
		return insn_decode(out, bytes, available, mode);
	memcpy(&key, bytes, 8);
	key &= ~0ull >> (64 - 8 * l.disp_at);
	imm_at = l.disp_at + l.disp_len;
	len = imm_at + l.imm_len;
	imm = l.imm_in_key ? bytes[imm_at] : 0;
	place = &m->place[((key ^ (uint64_t)imm << 24 ^ mode) * 0x9e3779b97f4a7c15ull) >> (64 - MEMO_BITS)];
	e = &m->entry[*place ? *place - 1 : 0];
	if (unlikely(*place && !entry_is(e, key, imm, mode, len))) { /* the other place */
		place = &m->place[(uint64_t)(place - m->place) ^ 1];
		e = &m->entry[*place ? *place - 1 : 0];
	}
	if (unlikely(!*place || !entry_is(e, key, imm, mode, len))) {
		status = insn_decode(out, bytes, available, mode);
		if (status == INSN_OK)
			*entry_new(m, place) = (struct entry){ .key = key, .imm = imm, .mode = (uint8_t)mode, .insn = *out };
		return status;
	}
	if (unlikely(e->state == ENTRY_NEW))
		entry_try(e, &l);
	if (unlikely(e->state == ENTRY_NEVER))
		return insn_decode(out, bytes, available, mode);
	*out = e->insn;
	if (l.disp_len)
		out->disp = (int64_t)number_at(bytes + l.disp_at, l.disp_len, true);
	if (l.imm_len && !l.imm_in_key)
		out->imm = number_at(bytes + imm_at, l.imm_len, e->imm_signed);
	memcpy(out->bytes + l.disp_at, bytes + l.disp_at, len - l.disp_at);
	return INSN_OK;
}
