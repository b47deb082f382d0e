/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contract between generated code and C: which host register holds what, and the data reached through GS.
 *
 * In translated code GS points at struct cpu. Guest RAX..R12 (RSP included) are in the host registers of the same
 * name; guest R13..R15 are in cpu->s.gpr[]. The host's R13 and R14 are scratch (S0, S1), R15 is the TLB table of the
 * current privilege (cpu->tlb.data) + TB_BIAS. Arithmetic flags are in the host's flags ("H") or, where the lowering had
 * to clobber those, in hot->flags ("M"), as LAHF and SETO left them in AX. The other RFLAGS bits, DF too, are in
 * cpu->s.rflags. Vector and x87 registers are in the host's when hot->vec_live, hot->x87_live say so.
 */
#ifndef ENGINE_DBT_ABI_H
#define ENGINE_DBT_ABI_H

#include "x86/cpu.h"

enum { S0 = R13, S1 = R14, TB = R15, GUEST_HOST_REGS = 13 };

#define JC_BITS 16 /* what MOVZX takes from an address */
#define JC_ENTRIES (1u << JC_BITS)
#define JC2_BITS 14
#define LINK_SLOTS 131072u
#define WATCH_LOG 1024u
#define BLOCK_RUNS 16u
#define GUESSES 512u

/* What the jump cache had no place for any more, found by C: two functions 64 KiB apart would else drive each other out for ever. */
struct jc2_entry {
	uint64_t key; /* low 48 bits of rip, above them the id */
	uint64_t host;
};

/* Per-vCPU data of the engine that generated code touches: cpu->hot. */
struct dbt_hot {
	uint64_t host_rsp;  /* C stack while in translated code */
	uint64_t self;      /* struct cpu * */
	uint64_t flags;     /* M: AL = OF, AH = SF ZF AF PF CF */
	uint64_t exit_code; /* enum dbt_exit */
	uint64_t exit_arg;
	uint64_t resume;    /* where the slow path goes on */
	uint64_t jc_id;     /* 1..65534: address space, mode and their generation */
	uint64_t tmp;       /* a value between two accesses of one instruction */
	uint64_t from;      /* indirect branch not in the jump cache: its own rip, */
	int64_t undo;       /* and what it takes to put RSP back */
	uint64_t rax;       /* RAX while flags are restored */
	uint64_t stack_addend; /* host - guest of the checked stack page of the running block */
	uint32_t epoch;     /* odd: may hold pointers to blocks or execute them; see cache.c */
	uint32_t kick;      /* set by the kick signal: leave at the next instruction boundary */
	uint32_t irq_check; /* with IF clear: the interrupt controller may have one for us */
	int64_t tsc_host;   /* the guest's TSC before its own offset - the host's */
	uint64_t reenter;   /* where b->swap_in goes on */
	uint64_t s1;        /* S1 when translated code goes on behind the slow path */
	uint64_t split[16] __attribute__((aligned(64))); /* the end of a page and the beginning of the next: slow.c */
	uint32_t guess[GUESSES]; /* TLB index that an access had last */
	uint64_t run[BLOCK_RUNS]; /* addends of runs */
	uint8_t vec_live, x87_live;
	uint8_t pad[6];
	/*
	 * Jump cache: where translated code of a guest address begins (entry for flags state M). The key is the guest's rip with jc_id
	 * in place of its low 16 bits, which are the index: so it takes one instruction to get each of them from the address. Two
	 * arrays, because no addressing scales by 16.
	 */
	uint64_t jc_key[JC_ENTRIES], jc_host[JC_ENTRIES];
	struct jc2_entry jc2[1u << JC2_BITS];
	uint64_t slot[LINK_SLOTS]; /* cross-page links: host address to jump to */
	uint64_t ran, reached; /* under --stats: blocks executed, and accesses to memory in them if they ran to their end */
	uint64_t log_left; /* under engine=verify: the blocks executed, from the end of log[] down */
	uint64_t log[WATCH_LOG];
};
_Static_assert(sizeof(struct dbt_hot) <= CPU_HOT_SIZE, "cpu->hot is too small");

static inline struct dbt_hot *dbt_hot(struct cpu *c)
{
	return (struct dbt_hot *)c->hot;
}

/* Why translated code came back to C. */
enum dbt_exit {
	EXIT_LINK,     /* a direct exit that is not linked yet; argument: its number */
	EXIT_INDIRECT, /* rip was not in the jump cache */
	EXIT_LOOKUP,   /* rip is set, nothing else to be done */
	EXIT_FAULT,    /* cpu->fault is to be delivered */
	EXIT_STOP,     /* cpu->stop says why */
	EXIT_BOUNDARY, /* mode, paging, IF or code may have changed */
	EXIT_KICK,
	EXIT_STEP,     /* execute the instruction at rip by the interpreter */
	EXIT_LOG,      /* hot->log is full */
};

/* Offsets from GS */
#define OFF_GPR(n) ((int32_t)(offsetof(struct cpu, s.gpr) + 8 * (unsigned)(n)))
#define OFF_RIP ((int32_t)offsetof(struct cpu, s.rip))
#define OFF_RFLAGS ((int32_t)offsetof(struct cpu, s.rflags))
#define OFF_SEG_BASE(n) ((int32_t)(offsetof(struct cpu, s.seg) + sizeof(struct x86_segment) * (n) + \
				   offsetof(struct x86_segment, base)))
#define OFF_TLB_DATA ((int32_t)offsetof(struct cpu, tlb.data))
#define OFF_ATTENTION ((int32_t)offsetof(struct cpu, attention))
#define OFF_HOT(f) ((int32_t)(offsetof(struct cpu, hot) + offsetof(struct dbt_hot, f)))
#define OFF_SLOT(n) ((int32_t)(OFF_HOT(slot) + 8 * (int32_t)(n)))

/*
 * TB's low 16 bits are what BEXTR wants to be told to take the TLB's index from an address: TLB_BITS bits from bit 12 on. That
 * is one instruction and a cycle less for every access than to shift and mask.
 */
#define TB_BIAS ((int32_t)(TLB_BITS << 8 | 12))
_Static_assert(TLB_TABLE_ALIGN == 0x10000, "TB's low 16 bits are TB_BIAS");

/* Offsets in the TLB table, from TB */
#define OFF_READ_TAG ((int32_t)offsetof(struct tlb_table, read_tag) - TB_BIAS)
#define OFF_WRITE_TAG ((int32_t)offsetof(struct tlb_table, write_tag) - TB_BIAS)
#define OFF_ADDEND ((int32_t)offsetof(struct tlb_table, addend) - TB_BIAS)

_Static_assert(offsetof(struct cpu, s) == 0, "generated code uses small offsets to the state");
_Static_assert(OFF_GPR(15) < 128, "guest R13..R15 take one-byte displacements");
_Static_assert(sizeof(struct cpu) < INT32_MAX, "everything is in reach of a 32-bit displacement");

#endif
