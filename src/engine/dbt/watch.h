/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Somebody looks over the translator's shoulder: engine=verify executes every stretch of translated code a second time,
 * by the interpreter on a copy of the machine.
 *
 * A stretch is what runs between two changes of guest state made by C code. Each block of it writes itself into hot->log
 * as it begins and leaves with EXIT_LOG when there is no room left, so the path is known however the blocks were
 * chained. C code tells before it changes guest state (stop) and, for an instruction interpreted within a block, before and after.
 * Whoever adds a way out of translated code, or a helper that changes guest state in a way the interpreter of a copied machine
 * cannot repeat, has to tell as well: dbt_watch_stop(), or the pair helper() and helped().
 *
 * The callbacks are ordinary C: the guest's vector registers must be in cpu->s.
 */
#ifndef ENGINE_DBT_WATCH_H
#define ENGINE_DBT_WATCH_H

#include "engine/dbt/abi.h"
#include "isa/insn.h"

struct block;

/* Where the stretch ended, relative to its last block. */
enum watch_how {
	WATCH_LEFT,   /* that was left by one of its exits */
	WATCH_KICK,   /* before its instruction number `at` */
	WATCH_BEHIND, /* where its instructions first lead to rip after one at least */
	WATCH_STEP,   /* where they first lead to rip; perhaps none was executed: the interpreter is to execute the instruction there */
	WATCH_BRANCH, /* the same; an indirect CALL or RET there leads to no canonical address, and may have pushed already */
	WATCH_FAULT,  /* as WATCH_STEP: the instruction there raises cpu->fault */
};

struct dbt_watch {
	bool active; /* within a stretch */
	uint64_t begun; /* stretches */
	unsigned at;
	bool failed; /* the engine is to stop with STOP_ERROR */
	void *opaque;
	void (*enter)(struct cpu *c); /* translated code is about to run, and not active */
	void (*stop)(struct cpu *c, enum watch_how how); /* active; ends the stretch, cpu->s is complete */
	void (*foreign)(struct cpu *c); /* C code executes instructions; after a stop */
	/* The interpreter does instruction idx of b; its result; goes on: in the block, with the one behind. */
	void (*helper)(struct cpu *c, const struct block *b, unsigned idx, const struct insn *i);
	void (*helped)(struct cpu *c, const struct block *b, unsigned idx, bool goes_on);
};

#endif
