/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A decoded instruction: what the interpreter executes and the translator lowers. Decoding is libzydis's;
 * insn*.def add, for each mnemonic, what it lacks: our class and the interpreter's handler.
 */
#ifndef ISA_INSN_H
#define ISA_INSN_H

#include "base/base.h"

struct cpu;
struct insn;
typedef int (*insn_fn)(struct cpu *c, const struct insn *i); /* enum cpu_result */

enum insn_class {
	CLASS_PLAIN,      /* registers, flags and memory only */
	CLASS_STRING,     /* MOVS STOS LODS SCAS CMPS INS OUTS, REP or not */
	CLASS_BRANCH,     /* near JMP Jcc CALL RET LOOP JRCXZ */
	CLASS_FAR,        /* far transfers, INT, IRET, SYSCALL and kin */
	CLASS_X87,        /* x87 and MMX: need CR0.TS/EM checks */
	CLASS_VECTOR,     /* SSE .. AVX-512: need CR0/CR4/XCR0 checks */
	CLASS_SYSTEM,     /* privileged or sensitive */
};

/* One row per instruction; see insn.def for the columns. */
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
#define INSN_MEM 0x01   /* ModRM names memory: base, index, scale, disp, seg are valid */
#define INSN_LOCK 0x02
#define INSN_REP 0x04   /* F3 in force as REP/REPE (not as a mandatory prefix) */
#define INSN_REPNE 0x08
#define INSN_HIGH_REG 0x10 /* reg 4..7 of a byte operand in `reg` means AH CH DH BH */
#define INSN_HIGH_RM 0x20  /* the same for `rm` */
#define INSN_VEX 0x40
#define INSN_EVEX 0x80

struct insn {
	insn_fn exec;   /* bound by the interpreter */
	uint64_t imm;   /* first immediate, sign-extended to 64 bits as the instruction wants; branch
			   displacement; moffs address */
	int64_t disp;   /* of the memory operand */
	uint16_t op;    /* enum insn_op */
	uint16_t flags;
	uint8_t class;  /* enum insn_class */
	uint8_t mode;   /* enum insn_mode it was decoded in */
	uint8_t len;
	uint8_t opsize; /* operand size in bytes; 1 for byte forms */
	uint8_t memsize; /* bytes of the memory operand, 0 if it varies (FXSAVE...) */
	uint8_t addrsize; /* 2, 4, 8 */
	uint8_t reg;    /* ModRM.reg (+REX.R, EVEX.R'), or the register in the opcode */
	uint8_t rm;     /* ModRM.rm (+REX.B, EVEX.X) when it is a register */
	uint8_t vvvv;   /* VEX/EVEX second source */
	uint8_t base, index, scale; /* scale is a shift, 0..3; REG_NONE, REG_RIP */
	uint8_t seg;    /* segment of the memory operand, overrides applied */
	uint8_t imm2;   /* ENTER's level, EXTRQ/INSERTQ */
	uint8_t vl;     /* vector length in bytes: 0, 16, 32, 64 */
	uint8_t cond;   /* condition code 0..15 of Jcc, SETcc, CMOVcc */
	/* EVEX */
	uint8_t opmask, zeroing, broadcast, rounding;
	/* arithmetic flags (FLAG_* | DF) read, and certainly or possibly written; undefined counts as written */
	uint16_t flags_read, flags_written;
	/* where things are in bytes[], for re-encoding; 0 when absent */
	uint8_t opcode_at, modrm_at, disp_at, disp_len, imm_at, imm_len;
	uint8_t rex;    /* 0 when there is none */
	uint8_t opmap;  /* 0 one-byte, 1 0F, 2 0F38, 3 0F3A */
	uint8_t opcode; /* the opcode byte */
	uint8_t modrm;
	uint8_t prefix; /* mandatory or repeat prefix: 0, 0x66, 0xf2, 0xf3 */
	uint8_t bytes[15];
};

enum insn_status { INSN_OK, INSN_UD, INSN_TRUNCATED, INSN_TOO_LONG };
enum insn_status insn_decode(struct insn *out, const uint8_t *bytes, size_t available,
			     enum insn_mode mode);
/* Intel syntax, for traces and debuggers. */
void insn_format(const struct insn *i, uint64_t rip, char *text, size_t size);
const char *insn_name(enum insn_op op);

#endif
