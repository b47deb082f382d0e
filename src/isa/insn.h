/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A decoded instruction: what the interpreter executes and the translator lowers. Decoding is
 * libzydis's; insn*.def add, for each mnemonic, what it lacks: our class and the interpreter's
 * handler.
 */
#ifndef ISA_INSN_H
#define ISA_INSN_H

#include "base/base.h"

struct cpu;
struct insn;
typedef int (*insn_fn)(struct cpu *c, const struct insn *i); /* enum cpu_result */

enum insn_class {
	CLASS_PLAIN,  /* registers, flags and memory only */
	CLASS_STRING, /* MOVS STOS LODS SCAS CMPS INS OUTS, REP or not */
	CLASS_BRANCH, /* near JMP Jcc CALL RET LOOP JRCXZ */
	CLASS_FAR,    /* far transfers, INT, IRET, SYSCALL and kin */
	CLASS_X87,    /* x87 and MMX: need CR0.TS/EM checks */
	CLASS_VECTOR, /* SSE .. AVX-512: need CR0/CR4/XCR0 checks */
	CLASS_SYSTEM, /* privileged or sensitive */
};

/*
 * One row per instruction; see insn.def for the columns. Names are libzydis's mnemonics but for
 * these, which it does not tell apart: MOV_SREG MOV_CR MOV_DR PUSH_SREG POP_SREG JMP_FAR CALL_FAR
 * RET_FAR (insn.def), and MOVSD_SSE CMPSD_SSE (insn-vector.def; plain MOVSD and CMPSD are the
 * string instructions). All of AVX-512 is one row.
 */
enum insn_op {
	OP_INVALID,
#define I(mnemonic, class, handler) OP_##mnemonic,
#include "isa/insn.def"
#include "isa/insn-x87.def"
#include "isa/insn-vector.def"
#undef I
	OP_COUNT
};

enum insn_mode { MODE_16, MODE_32, MODE_64 }; /* CS.D and long mode */

#define REG_NONE 0xff
#define REG_RIP 0xfe /* as base */

/* insn.flags */
#define INSN_MEM 0x01 /* ModRM names memory: base, index, scale, disp, seg are valid */
#define INSN_LOCK 0x02
#define INSN_REP 0x04 /* F3 in force as REP/REPE (not as a mandatory prefix) */
#define INSN_REPNE 0x08
#define INSN_HIGH_REG 0x10 /* reg 4..7 of a byte operand in `reg` means AH CH DH BH */
#define INSN_HIGH_RM 0x20  /* the same for `rm` */
#define INSN_VEX 0x40
#define INSN_EVEX 0x80
#define INSN_MMX 0x100	/* an explicit operand is an MMX register */
#define INSN_COND 0x200 /* cond is valid */
#define INSN_VSIB 0x400 /* index is a vector register */

/*
 * The explicit operands, destination first. RM is ModRM.rm: a register, or memory when INSN_MEM.
 * REG is ModRM.reg, the register in the opcode, or the accumulator (reg is filled so that this
 * needs no care). A MOV with an absolute address (A0..A3) is RM_REG or REG_RM with INSN_MEM and
 * neither base nor index. FORM_OTHER: the handler knows (vvvv, four operands, fixed registers).
 */
enum insn_form {
	FORM_OTHER,
	FORM_NONE,
	FORM_RM,
	FORM_REG,
	FORM_IMM,
	FORM_RM_REG,
	FORM_REG_RM,
	FORM_RM_IMM,
	FORM_REG_IMM,
	FORM_REG_RM_IMM,
	FORM_RM_REG_IMM,
	FORM_RM_CL,	/* shifts by CL */
	FORM_RM_REG_CL, /* SHLD, SHRD by CL */
	FORM_RM_1,	/* shifts by one: D0, D1 (imm is 1) */
};

struct insn {
	insn_fn exec; /* bound by the interpreter */
	uint64_t imm; /* first immediate, sign-extended to 64 bits as the instruction wants; branch
			 displacement; moffs address; far pointer as selector << 32 | offset */
	int64_t disp; /* of the memory operand */
	uint16_t op;  /* enum insn_op */
	uint16_t flags;
	uint8_t class; /* enum insn_class */
	uint8_t mode;  /* enum insn_mode it was decoded in */
	uint8_t len;
	uint8_t opsize;		    /* operand size in bytes; 1 for byte forms */
	uint8_t memsize;	    /* bytes of the memory operand, 0 if it varies (FXSAVE...) */
	uint8_t addrsize;	    /* 2, 4, 8 */
	uint8_t reg;		    /* ModRM.reg (+REX.R, EVEX.R'), or the register in the opcode */
	uint8_t rm;		    /* ModRM.rm (+REX.B, EVEX.X) when it is a register */
	uint8_t vvvv;		    /* VEX/EVEX second source */
	uint8_t base, index, scale; /* scale is a shift, 0..3; REG_NONE, REG_RIP */
	uint8_t seg; /* segment of the memory operand (of strings: the source), overrides applied */
	uint8_t imm2; /* ENTER's level, EXTRQ/INSERTQ; register number in imm8[7:4] (VBLENDV, FMA4)
		       */
	uint8_t vl;   /* vector length in bytes: 0, 16, 32, 64 */
	uint8_t cond; /* condition code 0..15 of Jcc, SETcc, CMOVcc */
	uint8_t form; /* enum insn_form */
	/* EVEX: rounding is 0 none, 1 nearest, 2 down, 3 up, 4 zero, 5 only suppress exceptions */
	uint8_t opmask;
	uint8_t zeroing : 1, broadcast : 1, rounding : 3;
	/*
	 * Arithmetic flags (FLAG_* | DF) read, and certainly or possibly written; undefined counts
	 * as written. Where the write may not happen (shift by CL, REP with count 0) the flag is in
	 * flags_read too: it passes through.
	 */
	uint16_t flags_read, flags_written;
	/* where things are in bytes[], for re-encoding; 0 when absent */
	uint8_t opcode_at, modrm_at, disp_at, disp_len, imm_at, imm_len;
	uint8_t rex;	/* 0 when there is none */
	uint8_t opmap;	/* 0 one-byte, 1 0F, 2 0F38, 3 0F3A */
	uint8_t opcode; /* the opcode byte */
	uint8_t modrm;
	uint8_t prefix; /* mandatory or repeat prefix: 0, 0x66, 0xf2, 0xf3 */
	uint8_t bytes[15];
	uint8_t slot; /* the engine's own */
};

/* Engines keep many thousands of them. */
_Static_assert(sizeof(struct insn) == 80, "struct insn has grown");

enum insn_status { INSN_OK, INSN_UD, INSN_TRUNCATED, INSN_TOO_LONG };
/*
 * Decode the instruction at bytes. INSN_UD: out->op is OP_INVALID, and len is set if it is known;
 * all other fields are those of an instruction without operands. `available` may be anything; 15
 * always suffice.
 */
enum insn_status insn_decode(struct insn *out, const uint8_t *bytes, size_t available,
			     enum insn_mode mode);
/* The same, quicker, from what a thread (or the holder of a lock) decoded before; see decode-memo.c. */
struct insn_memo;
struct insn_memo *insn_memo_create(void); /* NULL: no memory */
void insn_memo_destroy(struct insn_memo *m);
size_t insn_memo_size(void); /* who fills it with zeros empties it */
enum insn_status insn_decode_memo(struct insn_memo *m, struct insn *out, const uint8_t *bytes, size_t available,
				  enum insn_mode mode);
/* Intel syntax, for traces and debuggers. */
void insn_format(const struct insn *i, uint64_t rip, char *text, size_t size);
const char *insn_name(enum insn_op op);

#endif
