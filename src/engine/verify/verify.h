/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine that checks the translator against the interpreter, on a real guest.
 *
 * The machine runs under dbt. Beside it stands a reference: a second CPU with a TLB of its own and a copy of the memory.
 * After each stretch of translated code (dbt/watch.h) the reference executes the same instructions, and both states and every page
 * either of them wrote are compared. What cannot be repeated (ports, device registers, time, randomness, deliveries of
 * interrupts, the interpreter's own work in the machine) is not: the reference is brought up to just before it and
 * compared, then takes over what came out. So all that is compared was done by translated code.
 *
 * One vCPU. Writes by other threads (devices) wait at the memory's gate while a stretch runs.
 */
#ifndef ENGINE_VERIFY_VERIFY_H
#define ENGINE_VERIFY_VERIFY_H

#include <stdio.h>
#include "engine/dbt/dbt.h"

#define DECODED 16384u

struct decoded {
	gpa_t at;
	struct insn insn;
};

struct verify_counters {
	uint64_t stretches, blocks, insns, pages, words_taken, flags_taken, taken_over, flushes,
		depends;
};

struct verify {
	struct dbt_watch watch;
	struct cpu *c; /* the machine's */
	struct machine machine; /* the reference's */
	struct cpu *ref;
	struct interp *interp;
	struct mem_listener listener;
	bool map_changed; /* by any thread, while the CPU is stopped */
	bool taken; /* the reference has a state and memory at all */
	bool flush; /* its TLB may be out of date */
	bool watching;

	/* Where the stretch began: within a block, or NULL: with the first of the log. */
	const struct block *start;
	unsigned start_idx;
	/* An instruction is being interpreted in the machine: its block, and what it found. */
	const struct block *helped;
	unsigned helped_idx;
	bool taking_over; /* its outcome */
	uint64_t gpr[16], rip, rflags;
	uint64_t undefined; /* flags of the reference that hold nothing defined, */
	uint64_t loose; /* and those that it has stored so in this stretch */
	bool depends;
	bool jumped; /* by a conditional jump whose target is what follows it anyway */
	bool io; /* the reference wanted to reach a device */

	/* Where the machine is after the stretch. */
	enum watch_how how;
	const struct block *stop_block; /* exactly before this instruction of it; or NULL: as `how` says */
	unsigned stop_idx;
	int behind; /* the instruction after which translated code was left, if that is known; -1 */

	/* For the report: the path, and the state before the stretch. */
	struct x86_state before;
	const struct block *at_block;
	unsigned at_idx;
	unsigned at_place; /* in the log */
	char why[200];
	struct verify_counters counters;
	gpa_t page; /* of code, found last; NO_PAGE */
	const uint8_t *host;
	struct decoded decoded[DECODED];
};

static inline enum insn_mode insn_mode_of(const struct verify *v) /* of the code at the reference's rip */
{
	return x86_64bit(&v->ref->s) ? MODE_64 : MODE_32;
}

static inline struct verify *verify_of(struct cpu *c)
{
	return dbt_of(c)->watch->opaque;
}

/* The blocks of the stretch, in the order executed; the first may be that of `start`. */
static inline unsigned path_length(const struct verify *v)
{
	return (v->start ? 1 : 0) + WATCH_LOG - (unsigned)dbt_hot(v->c)->log_left;
}
static inline const struct block *path_block(const struct verify *v, unsigned n)
{
	if (v->start && !n--)
		return v->start;
	return (const struct block *)(uintptr_t)dbt_hot(v->c)->log[WATCH_LOG - 1 - n];
}

/*
 * replay.c: the reference through the stretch. False: it went elsewhere; v->why, or v->depends: the code makes use of a flag
 * that no architecture defines, so that no reference can say what comes out.
 */
bool replay(struct verify *v);

/* compare.c: false: they differ; v->why. */
bool compare_states(struct verify *v);
bool compare_memory(struct verify *v);
/* The flags in `differ` are overwritten before they are read, whatever way the code at the reference's rip takes. */
bool flags_are_dead(struct verify *v, uint64_t differ);
/* An instruction of the reference's code, without effects on its TLB. False: nothing there. */
bool code_at(struct verify *v, gva_t rip, struct insn *i);

/* flags.c */
uint64_t flags_undefined_after(const struct insn *i, uint64_t before);
bool flags_depend(const struct insn *i, uint64_t flags);

/* report.c */
void report(struct verify *v);

#endif
