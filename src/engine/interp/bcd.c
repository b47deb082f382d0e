/* SPDX-License-Identifier: Apache-2.0 */
/* Decimal adjustment, only outside 64-bit mode (the decoder refuses them there). */
#include "engine/interp/private.h"

static void al_set(struct cpu *c, uint8_t al)
{
	reg_set(c, RAX, false, 1, al);
}

/* DAA and DAS: `sign` is +1 or -1. OF is undefined and cleared. */
static int decimal_adjust(struct cpu *c, int sign)
{
	uint8_t old = (uint8_t)c->s.gpr[RAX], al = old;
	uint64_t f = c->s.rflags;
	bool af = f & FLAG_AF, cf = f & FLAG_CF, high = old > 0x99 || cf;

	if ((al & 15) > 9 || af) {
		if (sign < 0)
			cf = cf || al < 6;
		al = (uint8_t)(al + 6 * sign);
		af = true;
	} else {
		af = false;
	}
	if (high) {
		al = (uint8_t)(al + 0x60 * sign);
		cf = true;
	} else if (sign > 0) {
		cf = false;
	}
	al_set(c, al);
	flags_set(c, flags_szp(al, 1) | (af ? FLAG_AF : 0) | (cf ? FLAG_CF : 0));
	return CPU_OK;
}
int bcd_daa(struct cpu *c, const struct insn *i)
{
	return decimal_adjust(c, 1);
}
int bcd_das(struct cpu *c, const struct insn *i)
{
	return decimal_adjust(c, -1);
}

static int ascii_adjust(struct cpu *c, int sign)
{
	uint16_t ax = (uint16_t)c->s.gpr[RAX];
	uint64_t f = 0;

	if ((ax & 15) > 9 || c->s.rflags & FLAG_AF) {
		ax = (uint16_t)(ax + 0x106 * sign);
		f = FLAG_AF | FLAG_CF;
	}
	ax &= 0xff0f;
	reg_set(c, RAX, false, 2, ax);
	flags_set(c, flags_szp((uint8_t)ax, 1) | f);
	return CPU_OK;
}
int bcd_aaa(struct cpu *c, const struct insn *i)
{
	return ascii_adjust(c, 1);
}
int bcd_aas(struct cpu *c, const struct insn *i)
{
	return ascii_adjust(c, -1);
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
	uint8_t al = (uint8_t)(c->s.gpr[RAX] + (c->s.gpr[RAX] >> 8) * (uint8_t)i->imm);

	reg_set(c, RAX, false, 2, al);
	flags_set(c, flags_szp(al, 1));
	return CPU_OK;
}
