/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the generator: a case being written. */
#ifndef DIFF_GEN_H
#define DIFF_GEN_H

#include <Zydis/Zydis.h>
#include "diff.h"

#define FLAGS_SIX 0x8d5
#define MAX_FIXUPS 24

struct fixup { /* a reference to an instruction not written yet */
	uint16_t patch_at; /* offset in code of the field */
	uint8_t size;      /* 1, 4: relative to its end; 0: absolute, 4 bytes */
	uint16_t target;   /* index of the instruction */
	uint16_t undefined;
};

struct gen {
	const struct generator *g;
	struct rng r;
	struct diff_case *c;
	ZydisDecoder decoder;
	uint64_t value[16]; /* of registers whose contents are known here */
	bool known[16];
	uint16_t undefined;
	struct fixup fixup[MAX_FIXUPS];
	unsigned nfixups;
	uint16_t keep; /* mask of registers that must not be written now (loop counters) */
	bool ended;    /* nothing may follow: the last result is approximate */
	bool refill_sp;
};

struct bytes {
	uint8_t b[32];
	unsigned n;
	bool exact;      /* memory operand's linear address is known */
	uint64_t target;
};

/* Where the next instruction will lie. */
static inline uint64_t gen_here(const struct gen *g)
{
	return ARENA_CODE + g->c->code_at + g->c->code_len;
}
static inline bool gen_64(const struct gen *g)
{
	return g->c->mode == DIFF_64;
}

/* gen-operand.c: random bytes of an encoding, with a memory operand that mostly lies in the arena */
bool gen_encode(struct gen *g, const struct encoding *e, struct bytes *out);
uint64_t gen_target(struct gen *g);

/* gen.c */
bool gen_emit(struct gen *g, const struct bytes *b); /* checks and appends one instruction */
bool gen_raw(struct gen *g, const uint8_t *b, unsigned n);
bool gen_load(struct gen *g, unsigned reg, uint64_t value); /* mov reg, value */

/* gen-flow.c: branches, calls, loops, returns */
bool gen_branch(struct gen *g);
bool gen_indirect(struct gen *g);
bool gen_loop(struct gen *g);
void gen_resolve(struct gen *g, bool all);
/* gen-attack.c */
bool gen_attack(struct gen *g);

const struct encoding *gen_pick(struct gen *g, uint16_t mnemonic);

#endif
