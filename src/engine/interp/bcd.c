/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decimal adjustment, only outside 64-bit mode (the decoder refuses them there). Undefined flags
 * are as on AMD's processors (Zen): those of the additions and subtractions that are made.
 */
#include "engine/interp/private.h"

static void al_set(struct cpu *c, uint8_t al)
{
	reg_set(c, RAX, false, 1, al);
}

/* DAA and DAS: both corrections as one addition or subtraction. */
static int decimal_adjust(struct cpu *c, bool subtract)
{
	uint8_t al = (uint8_t)c->s.gpr[RAX], by = 0, result;
	uint64_t f = c->s.rflags, flags;
	bool low = (al & 15) > 9 || f & FLAG_AF, high = al > 0x99 || f & FLAG_CF;
	bool borrows = subtract && low && al < 6;

	if (low)
		by = 6;
	if (high)
		by += 0x60;
	result = (uint8_t)(subtract ? al - by : al + by);
	al_set(c, result);
	flags = subtract ? flags_sub(al, by, result, 1) : flags_add(al, by, result, 0, 1);
	flags_set(c, (flags & ~(FLAG_CF | FLAG_AF)) | (low ? FLAG_AF : 0) |
			     (high || borrows ? FLAG_CF : 0));
	return CPU_OK;
}
int bcd_daa(struct cpu *c, const struct insn *i)
{
	return decimal_adjust(c, false);
}
int bcd_das(struct cpu *c, const struct insn *i)
{
	return decimal_adjust(c, true);
}

/* AAA and AAS: SF, ZF, PF and OF are those of AX before its middle is cleared. */
static int ascii_adjust(struct cpu *c, bool subtract)
{
	uint16_t ax = (uint16_t)c->s.gpr[RAX], by = 0, result;
	uint64_t flags;

	if ((ax & 15) > 9 || c->s.rflags & FLAG_AF)
		by = 0x106;
	result = (uint16_t)(subtract ? ax - by : ax + by);
	flags = subtract ? flags_sub(ax, by, result, 2) : flags_add(ax, by, result, 0, 2);
	reg_set(c, RAX, false, 2, result & 0xff0f);
	flags_set(c, (flags & ~(FLAG_CF | FLAG_AF)) | (by ? FLAG_CF | FLAG_AF : 0));
	return CPU_OK;
}
int bcd_aaa(struct cpu *c, const struct insn *i)
{
	return ascii_adjust(c, false);
}
int bcd_aas(struct cpu *c, const struct insn *i)
{
	return ascii_adjust(c, true);
}

int bcd_aam(struct cpu *c, const struct insn *i)
{
	uint8_t al = (uint8_t)c->s.gpr[RAX], base = (uint8_t)i->imm;

	if (!base)
		return cpu_raise(c, VEC_DE);
	reg_set(c, RAX, false, 2, (uint64_t)(al / base) << 8 | al % base);
	flags_set(c, flags_szp(al % base, 1));
	return CPU_OK;
}

int bcd_aad(struct cpu *c, const struct insn *i)
{
	uint8_t al = (uint8_t)c->s.gpr[RAX], by = (uint8_t)((c->s.gpr[RAX] >> 8) * i->imm);
	uint8_t result = (uint8_t)(al + by);

	reg_set(c, RAX, false, 2, result);
	flags_set(c, flags_add(al, by, result, 0, 1));
	return CPU_OK;
}
