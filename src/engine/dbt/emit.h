/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x86-64 encodings into a buffer. Running out of room sets `full` and drops bytes; the translation is then given up as a whole.
 */
#ifndef ENGINE_DBT_EMIT_H
#define ENGINE_DBT_EMIT_H

#include "engine/dbt/abi.h"

struct emit {
	uint8_t *base, *p, *end; /* writable view */
	intptr_t exec;           /* executable view - writable view */
	bool full;
};

/* A register or memory operand of generated code. */
struct opnd {
	enum { OPND_REG, OPND_MEM } kind;
	uint8_t reg;
	uint8_t base, index, scale; /* REG_NONE (0xff) for none */
	bool gs;
	int32_t disp;
};

#define OPND_NONE 0xff

static inline struct opnd opnd_reg(unsigned r)
{
	return (struct opnd){ .kind = OPND_REG, .reg = (uint8_t)r };
}
static inline struct opnd opnd_gs(int32_t off)
{
	return (struct opnd){ .kind = OPND_MEM, .base = OPND_NONE, .index = OPND_NONE, .gs = true, .disp = off };
}
static inline struct opnd opnd_mem(unsigned base, int32_t disp)
{
	return (struct opnd){ .kind = OPND_MEM, .base = (uint8_t)base, .index = OPND_NONE, .disp = disp };
}
static inline struct opnd opnd_sib(unsigned base, unsigned index, unsigned scale, int32_t disp)
{
	return (struct opnd){ .kind = OPND_MEM, .base = (uint8_t)base, .index = (uint8_t)index,
			      .scale = (uint8_t)scale, .disp = disp };
}
static inline struct opnd opnd_guest(unsigned g) /* guest register: its host register or its place in memory */
{
	return g < GUEST_HOST_REGS ? opnd_reg(g) : opnd_gs(OFF_GPR(g));
}

static inline void emit8(struct emit *e, unsigned v)
{
	if (unlikely(e->p >= e->end)) {
		e->full = true;
		return;
	}
	*e->p++ = (uint8_t)v;
}
void emit32(struct emit *e, uint32_t v);
void emit64(struct emit *e, uint64_t v);
void emit_bytes(struct emit *e, const void *b, unsigned n);
void emit_align(struct emit *e, unsigned to); /* with NOPs */

/* Legacy encodings */
#define ENC_W 1u        /* REX.W */
#define ENC_66 2u
#define ENC_F2 4u
#define ENC_F3 8u
#define ENC_LOCK 16u
#define ENC_BYTE_REG 32u /* `reg` is a byte register that needs REX for SPL..DIL */
#define ENC_BYTE_RM 64u
#define ENC_0F 0x100u
#define ENC_0F38 0x200u
#define ENC_0F3A 0x400u
void enc(struct emit *e, unsigned flags, unsigned opcode, unsigned reg, const struct opnd *rm);
/* REX must not appear: AH..BH are meant. */
void enc_no_rex(struct emit *e, unsigned flags, unsigned opcode, unsigned reg, const struct opnd *rm);
/* ModRM, SIB, displacement alone; evex: no compressed one-byte displacement. */
void enc_modrm(struct emit *e, unsigned reg, const struct opnd *rm, bool evex);
unsigned opnd_rex(unsigned reg, const struct opnd *rm); /* R X B bits for these */

/* Opcodes used by name: op r, r/m. */
enum {
	X_ADD = 0x03, X_OR = 0x0b, X_AND = 0x23, X_SUB = 0x2b, X_XOR = 0x33, X_CMP = 0x3b,
	X_MOV_LOAD = 0x8b, X_MOV_STORE = 0x89, X_LEA = 0x8d,
};
enum { CC_O, CC_NO, CC_B, CC_AE, CC_E, CC_NE, CC_BE, CC_A, CC_S, CC_NS, CC_P, CC_NP, CC_L, CC_GE, CC_LE, CC_G };

static inline void emit_load(struct emit *e, unsigned reg, struct opnd m) /* 64 bits */
{
	enc(e, ENC_W, X_MOV_LOAD, reg, &m);
}
static inline void emit_store(struct emit *e, struct opnd m, unsigned reg)
{
	enc(e, ENC_W, X_MOV_STORE, reg, &m);
}
static inline void emit_mov(struct emit *e, unsigned to, unsigned from)
{
	struct opnd m = opnd_reg(from);

	if (to != from)
		enc(e, ENC_W, X_MOV_LOAD, to, &m);
}
static inline void emit_lea(struct emit *e, unsigned reg, struct opnd m)
{
	enc(e, ENC_W, X_LEA, reg, &m);
}
void emit_imm(struct emit *e, unsigned reg, uint64_t v); /* shortest MOV; flags untouched */
void emit_store_imm32(struct emit *e, struct opnd m, int32_t v); /* 64-bit store, sign-extended */
/* The 81/83 group: ext is 0 ADD 1 OR 4 AND 5 SUB 6 XOR 7 CMP. flags: ENC_W or 0. */
void emit_alu_imm(struct emit *e, unsigned flags, unsigned ext, struct opnd m, int32_t v);
void emit_bextr(struct emit *e, unsigned to, unsigned from, unsigned control); /* 64 bits */

/* Jumps. A label is filled in later; its field never crosses a cache line, so that it can be patched under way. */
typedef uint32_t label; /* offset of the rel32 field from e->base */
label emit_jcc(struct emit *e, unsigned cc);
label emit_jmp(struct emit *e);
void emit_label_here(struct emit *e, label l);
void emit_label_to(struct emit *e, label l, const uint8_t *writable_target);
void emit_jmp_to(struct emit *e, const uint8_t *target);
void emit_jcc_to(struct emit *e, unsigned cc, const uint8_t *target);
void emit_jmp_mem(struct emit *e, struct opnd m);
void emit_jmp_reg(struct emit *e, unsigned reg);

static inline uint32_t emit_offset(const struct emit *e)
{
	return (uint32_t)(e->p - e->base);
}

#endif
