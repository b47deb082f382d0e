/* SPDX-License-Identifier: Apache-2.0 */
/* Encodings of x86-64: see emit.h. Manual: Intel SDM volume 2, chapter 2. */
#include <string.h>
#include "engine/dbt/emit.h"

void emit_bytes(struct emit *e, const void *b, unsigned n)
{
	if (unlikely((size_t)(e->end - e->p) < n)) {
		e->full = true;
		e->p = e->end;
		return;
	}
	memcpy(e->p, b, n);
	e->p += n;
}

void emit32(struct emit *e, uint32_t v)
{
	emit_bytes(e, &v, 4);
}

void emit64(struct emit *e, uint64_t v)
{
	emit_bytes(e, &v, 8);
}

/* The recommended multi-byte NOPs. */
static void emit_nop(struct emit *e, unsigned n)
{
	static const uint8_t nops[9][9] = {
		{ 0x90 },
		{ 0x66, 0x90 },
		{ 0x0f, 0x1f, 0x00 },
		{ 0x0f, 0x1f, 0x40, 0x00 },
		{ 0x0f, 0x1f, 0x44, 0x00, 0x00 },
		{ 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00 },
		{ 0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00 },
		{ 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00 },
		{ 0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00 },
	};

	while (n) {
		unsigned now = MIN(n, 9u);

		emit_bytes(e, nops[now - 1], now);
		n -= now;
	}
}

void emit_align(struct emit *e, unsigned to)
{
	emit_nop(e, (unsigned)-(uintptr_t)e->p & (to - 1));
}

unsigned opnd_rex(unsigned reg, const struct opnd *rm)
{
	unsigned rex = reg & 8 ? 4 : 0;

	if (rm->kind == OPND_REG)
		return rex | (rm->reg & 8 ? 1 : 0);
	if (rm->base != OPND_NONE && rm->base & 8)
		rex |= 1;
	if (rm->index != OPND_NONE && rm->index & 8)
		rex |= 2;
	return rex;
}

void enc_modrm(struct emit *e, unsigned reg, const struct opnd *rm, bool evex)
{
	unsigned r = (reg & 7) << 3, mod;

	if (rm->kind == OPND_REG) {
		emit8(e, 0xc0 | r | (rm->reg & 7));
		return;
	}
	if (rm->base == OPND_NONE) { /* absolute, or index without base: SIB with base 101, mod 00 */
		emit8(e, 0x04 | r);
		emit8(e, (unsigned)rm->scale << 6 | (rm->index == OPND_NONE ? 4u : rm->index & 7u) << 3 | 5);
		emit32(e, (uint32_t)rm->disp);
		return;
	}
	if (!rm->disp && (rm->base & 7) != 5)
		mod = 0;
	else if (rm->disp == (int8_t)rm->disp && !evex)
		mod = 0x40;
	else
		mod = 0x80;
	if (rm->index == OPND_NONE && (rm->base & 7) != 4) {
		emit8(e, mod | r | (rm->base & 7));
	} else {
		emit8(e, mod | r | 4);
		emit8(e, (unsigned)rm->scale << 6 | (rm->index == OPND_NONE ? 4u : rm->index & 7u) << 3 |
				 (rm->base & 7));
	}
	if (mod == 0x40)
		emit8(e, (uint8_t)rm->disp);
	else if (mod == 0x80)
		emit32(e, (uint32_t)rm->disp);
}

static void enc_prefixes(struct emit *e, unsigned flags, const struct opnd *rm)
{
	if (rm->kind == OPND_MEM && rm->gs)
		emit8(e, 0x65);
	if (flags & ENC_LOCK)
		emit8(e, 0xf0);
	if (flags & ENC_66)
		emit8(e, 0x66);
	if (flags & ENC_F2)
		emit8(e, 0xf2);
	if (flags & ENC_F3)
		emit8(e, 0xf3);
}

static void enc_opcode(struct emit *e, unsigned flags, unsigned opcode)
{
	if (flags & (ENC_0F | ENC_0F38 | ENC_0F3A))
		emit8(e, 0x0f);
	if (flags & ENC_0F38)
		emit8(e, 0x38);
	if (flags & ENC_0F3A)
		emit8(e, 0x3a);
	emit8(e, opcode);
}

void enc(struct emit *e, unsigned flags, unsigned opcode, unsigned reg, const struct opnd *rm)
{
	unsigned rex = opnd_rex(reg, rm) | (flags & ENC_W ? 8 : 0);

	enc_prefixes(e, flags, rm);
	if (rex || (flags & ENC_BYTE_REG && reg >= 4) ||
	    (flags & ENC_BYTE_RM && rm->kind == OPND_REG && rm->reg >= 4))
		emit8(e, 0x40 | rex);
	enc_opcode(e, flags, opcode);
	enc_modrm(e, reg, rm, false);
}

void enc_no_rex(struct emit *e, unsigned flags, unsigned opcode, unsigned reg, const struct opnd *rm)
{
	DCHECK(!opnd_rex(reg, rm) && !(flags & ENC_W));
	enc_prefixes(e, flags, rm);
	enc_opcode(e, flags, opcode);
	enc_modrm(e, reg, rm, false);
}

void emit_imm(struct emit *e, unsigned reg, uint64_t v)
{
	if (v == (uint32_t)v) {
		if (reg & 8)
			emit8(e, 0x41);
		emit8(e, 0xb8 | (reg & 7));
		emit32(e, (uint32_t)v);
	} else if (v == (uint64_t)(int64_t)(int32_t)v) {
		emit8(e, 0x48 | (reg >> 3));
		emit8(e, 0xc7);
		emit8(e, 0xc0 | (reg & 7));
		emit32(e, (uint32_t)v);
	} else {
		emit8(e, 0x48 | (reg >> 3));
		emit8(e, 0xb8 | (reg & 7));
		emit64(e, v);
	}
}

void emit_store_imm32(struct emit *e, struct opnd m, int32_t v)
{
	enc(e, ENC_W, 0xc7, 0, &m);
	emit32(e, (uint32_t)v);
}

void emit_alu_imm(struct emit *e, unsigned flags, unsigned ext, struct opnd m, int32_t v)
{
	if (v == (int8_t)v) {
		enc(e, flags, 0x83, ext, &m);
		emit8(e, (uint8_t)v);
	} else {
		enc(e, flags, 0x81, ext, &m);
		emit32(e, (uint32_t)v);
	}
}

void emit_bextr(struct emit *e, unsigned to, unsigned from, unsigned control)
{
	emit8(e, 0xc4);
	emit8(e, (to & 8 ? 0 : 0x80) | 0x40 | (from & 8 ? 0 : 0x20) | 2); /* 0F38 */
	emit8(e, 0x80 | (~control & 15) << 3); /* W1, L0, no prefix */
	emit8(e, 0xf7);
	emit8(e, 0xc0 | (to & 7) << 3 | (from & 7));
}

static void align_field(struct emit *e, unsigned before)
{
	uintptr_t field = (uintptr_t)e->p + before;

	if ((field & 63) > 60)
		emit_nop(e, 64 - (unsigned)(field & 63));
}

label emit_jcc(struct emit *e, unsigned cc)
{
	align_field(e, 2);
	emit8(e, 0x0f);
	emit8(e, 0x80 | cc);
	emit32(e, 0);
	return emit_offset(e) - 4;
}

label emit_jmp(struct emit *e)
{
	align_field(e, 1);
	emit8(e, 0xe9);
	emit32(e, 0);
	return emit_offset(e) - 4;
}

void emit_label_to(struct emit *e, label l, const uint8_t *target)
{
	int32_t rel = (int32_t)(target - (e->base + l + 4));

	if (!e->full)
		memcpy(e->base + l, &rel, 4);
}

void emit_label_here(struct emit *e, label l)
{
	emit_label_to(e, l, e->p);
}

void emit_jmp_to(struct emit *e, const uint8_t *target)
{
	emit_label_to(e, emit_jmp(e), target);
}

void emit_jcc_to(struct emit *e, unsigned cc, const uint8_t *target)
{
	emit_label_to(e, emit_jcc(e, cc), target);
}

void emit_jmp_mem(struct emit *e, struct opnd m)
{
	enc(e, 0, 0xff, 4, &m);
}

void emit_jmp_reg(struct emit *e, unsigned reg)
{
	struct opnd m = opnd_reg(reg);

	enc(e, 0, 0xff, 4, &m);
}
