/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instructions in C that keep the guest's vector registers in the host's, for blocks to go on behind them (SLOW_QUICK). Each does all
 * of its instruction, or nothing and says false: then the interpreter has it. Built with general registers only.
 */
#ifndef ENGINE_DBT_QUICK_H
#define ENGINE_DBT_QUICK_H

#include "engine/dbt/dbt.h"

struct fp_was {
	bool vec, x87;
};

/* The guest's registers out of the host's for C that is not built for general registers only, and back as they were. */
static inline struct fp_was fp_put_by(struct cpu *c)
{
	const struct dbt_hot *h = dbt_hot(c);
	struct fp_was was = { h->vec_live, h->x87_live };

	if (was.vec || was.x87)
		fp_release(c);
	return was;
}

static inline void fp_take_up(struct cpu *c, struct fp_was was)
{
	if (was.vec)
		fp_load_vec(c);
	if (was.x87)
		fp_load_x87(c);
}

/* quick-system.c */
enum quick_result {
	QUICK_NOT,
	QUICK_DONE,
	QUICK_LEAVE, /* done, but a boundary is wanted */
	QUICK_MOVED, /* done, and what translated code knows of other pages has changed */
};
enum quick_result quick_wrmsr(struct cpu *c);
enum quick_result quick_invlpg(struct cpu *c, uint64_t ea);

/* quick-xsave.c. ea: linear address of the image */
bool quick_xsave(struct cpu *c, const struct insn *i, uint64_t ea);
bool quick_xrstor(struct cpu *c, const struct insn *i, uint64_t ea);

#endif
