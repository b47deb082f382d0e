/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instructions in C that keep the guest's vector registers in the host's, for blocks to go on behind them (SLOW_QUICK). Each does all
 * of its instruction, or nothing and says false: then the interpreter has it. Built with general registers only.
 */
#ifndef ENGINE_DBT_QUICK_H
#define ENGINE_DBT_QUICK_H

#include "engine/dbt/dbt.h"

/* quick-xsave.c. ea: linear address of the image */
bool quick_xsave(struct cpu *c, const struct insn *i, uint64_t ea);
bool quick_xrstor(struct cpu *c, const struct insn *i, uint64_t ea);

#endif
