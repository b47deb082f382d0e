/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A translation underway, and the lowerings that take part in it.
 *
 * For each guest instruction the driver (translate.c) makes sure that flags which are live survive what the lowering
 * clobbers, notes where the instruction's host code begins, and calls one lowering. Until the lowering says
 * tr_commit() its code must leave guest state alone but for the host flags and scratch registers: a kick or a fault there
 * goes back to the instruction's start.
 */
#ifndef ENGINE_DBT_TRANSLATE_H
#define ENGINE_DBT_TRANSLATE_H

#include "engine/dbt/dbt.h"
#include "engine/dbt/emit.h"

struct tr;

/* What an integer instruction does with its ModRM.rm and ModRM.reg operands. */
enum { ROLE_NONE = 0, ROLE_READ = 1, ROLE_WRITE = 2, ROLE_BOTH = 3 };
struct roles {
	uint8_t rm, reg;
};
bool alu_roles(const struct insn *i, struct roles *r);

/* The same of x87 and vector instructions. */
struct shape {
	bool seen, known;	       /* looked at; we do it */
	bool reg_gpr, rm_gpr, vvvv_gpr; /* general registers there */
	bool reg_read, reg_write, rm_read, rm_write;
	bool other_write; /* of a general register not named */
	bool mem_read, mem_write;
	bool mmx;
	uint8_t mem_size;
};
const struct shape *vector_shape(struct tr *t, unsigned idx);

/* Code that belongs behind the block: run when a jump at `from` is taken. */
struct cold {
	void (*fn)(struct tr *t, const struct cold *k);
	label from;
	uint8_t idx;   /* instruction */
	uint8_t kind, size;
	bool stack, rbp; /* the address is rsp + arg, rbp; else the instruction's own */
	bool low; /* the check is of the TLB's low entries */
	uint64_t arg;
	struct exit *exit;
};

/* Places in host code that hold the guest's addresses or the block's own; clone.c. */
enum reloc {
	RELOC_VA64,  /* a guest address: 64 bits, */
	RELOC_VA32,  /* or 32 of it, zero-extended or positive */
	RELOC_BLOCK, /* pointer to the block in the lower 48 bits of 64 */
	RELOC_EXIT,  /* pointer into its exits */
	RELOC_ROW,   /* displacement of a TLB entry */
	RELOC_OUT,   /* rel32 out of the block */
};
#define RELOC_SHIFT 24
#define RELOC_AT ((1u << RELOC_SHIFT) - 1)
#define RELOCS 384u

#define COLD_EACH 8u /* one instruction makes at most */

struct tr {
	struct dbt *d;
	struct cpu *c;
	struct block *b;
	struct emit e;
	uint32_t mode;
	bool m32;         /* 32-bit code */
	unsigned word;    /* bytes that PUSH, POP, CALL and RET move: 8, 4 */
	unsigned wide;    /* ENC_W, or 0 in 32-bit code */
	uint64_t page_va; /* guest-virtual page */
	unsigned n;       /* instructions decoded */
	unsigned idx;     /* the one being lowered */
	enum flags_state fl;
	bool committed;
	bool vec_known, x87_known; /* residency checked in this block already */
	bool shadow;      /* the instruction before is STI */
	bool swapped;     /* code emitted now runs with registers exchanged */
	bool ended;       /* control flow does not run on */
	uint16_t lo, hi;  /* guest bytes used, within the page */
	const uint8_t *code;
	const struct code_page *page;
	unsigned ncold, nexits;
	bool fixed; /* no copies of this one */
	unsigned nrelocs;
	uint32_t relocs[RELOCS];
	struct insn insn[BLOCK_INSNS];
	uint16_t at[BLOCK_INSNS]; /* offset in the guest page */
	uint16_t live[BLOCK_INSNS + 1]; /* flags live before each instruction */
	struct shape shape[BLOCK_INSNS];
	/* plan.c */
	bool stepwise; /* no range wider than one access */
	unsigned nruns;
	struct run runs[BLOCK_RUNS];
	int8_t run_of[BLOCK_INSNS];  /* or -1 */
	int64_t run_at[BLOCK_INSNS]; /* distance from the run's first byte */
	int32_t run_off[BLOCK_INSNS]; /* how far the base register has been stepped there */
	int32_t run_checked[BLOCK_RUNS]; /* and where the check was made, last */
	uint32_t runs_ready;         /* bit: checked above */
	int s1_run, s1_next;         /* the run whose addend S1 is, -1: none; what this instruction made it */
	struct insn_map map[BLOCK_INSNS + 1];
	struct cold cold[BLOCK_INSNS * 3 + COLD_EACH];
	struct exit exits[BLOCK_EXITS];
	struct exit *exits_final; /* where they will live */
};

enum lowered { LOWERED, LOWERED_CALL /* by way of C, flags then in H */, LOWER_HELPER, LOWER_LEAVE };

static inline uint64_t tr_rip(const struct tr *t) /* of the instruction being lowered */
{
	return t->page_va | t->at[t->idx];
}
static inline uint64_t tr_next_rip(const struct tr *t)
{
	return tr_rip(t) + t->insn[t->idx].len;
}
/* Of a direct branch, at the instruction being lowered. */
static inline uint64_t tr_target(const struct tr *t, const struct insn *i)
{
	uint64_t target = tr_next_rip(t) + i->imm;

	return t->m32 ? (uint32_t)target : target;
}

/* From here on guest state changes; restores flags into H if the instruction wants them there. */
void tr_commit(struct tr *t, const struct insn *i);
struct cold *tr_cold(struct tr *t, void (*fn)(struct tr *t, const struct cold *k), label from);
/* Flags from H to M; from M to H. State tracked by the caller of these. */
void tr_flags_save(struct tr *t);
void tr_flags_restore(struct tr *t);

/* lower-mem.c: the one place that knows how guest memory is reached */
void mem_operand(struct tr *t, const struct insn *i, unsigned size, unsigned kind, struct opnd *out);
/* Of BT, BTS, BTR, BTC of a bit that i->reg numbers. */
void mem_bits(struct tr *t, const struct insn *i, bool write, struct opnd *out);
/* A scratch register the operand does not use; may change the operand. */
unsigned mem_scratch(struct tr *t, struct opnd *m);
/* Offset within the segment into `reg`; LEA's own, and the first half of an address. */
void mem_lea(struct tr *t, const struct insn *i, unsigned reg, unsigned enc_flags);
/* Linear address of the operand into S0, unchecked; flags are lost. */
void mem_linear(struct tr *t, const struct insn *i);
/* The stack at rsp + offset. kind as above; `second`: another access of this instruction came before. */
void mem_stack(struct tr *t, int32_t offset, unsigned size, unsigned kind, bool second, struct opnd *out);

bool mem_run_usable(const struct tr *t); /* the access of this instruction is checked already */

/*
 * [reg, reg + (RCX << shift)), or one element of that size, within one page; S1 is its addend. Otherwise the interpreter
 * has the instruction.
 */
void mem_span(struct tr *t, unsigned reg, bool counted, unsigned shift, unsigned kind);

/* lower-32.c */
bool lower_unfit(const struct tr *t, const struct insn *i); /* 32-bit code that the lowerings do not know */
enum lowered lower_only32(struct tr *t, const struct insn *i); /* without ModRM */
enum lowered lower_simple(struct tr *t, const struct insn *i);

/* lower-*.c */
enum lowered lower_alu(struct tr *t, const struct insn *i);
enum lowered lower_stack(struct tr *t, const struct insn *i);
enum lowered lower_branch(struct tr *t, const struct insn *i);
enum lowered lower_vector(struct tr *t, const struct insn *i);
enum lowered lower_system(struct tr *t, const struct insn *i);
enum lowered lower_string(struct tr *t, const struct insn *i);
/* C that keeps the vector registers where they are; it gets the linear address of a memory operand. */
enum lowered lower_quick(struct tr *t, const struct insn *i, enum quick_kind kind);
bool lower_clobbers_flags(const struct tr *t, const struct insn *i); /* does its lowering need the host flags for itself? */
/* The instruction again with other registers: its prefixes, opcode and immediate as they were. */
void lower_encode(struct tr *t, const struct insn *i, unsigned reg, const struct opnd *rm);

/* clone.c */
void tr_reloc(struct tr *t, enum reloc kind); /* of what ends here */
void tr_emit_va(struct tr *t, unsigned reg, uint64_t v);
void tr_emit_block(struct tr *t, unsigned reg, uint64_t v); /* t->b and something in the upper bits */
void tr_jump_out(struct tr *t, uint32_t trampoline);
void clone_remember(struct tr *t, struct block *b);

/* plan.c */
void plan_runs(struct tr *t);
bool run_keeps_s1(struct tr *t, unsigned idx);
bool index_is_small(const struct tr *t, unsigned idx); /* what it indexes surely fits a page */

/* swap.c */
void plan_swaps(struct tr *t);
void swap_emit(struct tr *t);
void swap_out(struct tr *t); /* if swapped */

/* lower-branch.c */
void lower_exit_direct(struct tr *t, uint64_t target); /* unconditional, ends the block */
void lower_exit_indirect(struct tr *t); /* to the address in S0; flags in M or dead */
void lower_leave(struct tr *t, enum dbt_exit why, uint64_t rip);

/* May leave out part of its memory operand: no page is asked for, or marked as used, because of what is left out. */
static inline bool insn_masked(const struct insn *i)
{
	return i->op == OP_AVX512 && i->opmask;
}

#endif
