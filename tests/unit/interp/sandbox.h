/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A CPU for handler tests: 64-bit user state without paging, one page of memory at its host address
 * and an unmapped one behind it, every feature offered; and random register contents for it and for
 * the host CPU.
 */
#ifndef TEST_SANDBOX_H
#define TEST_SANDBOX_H

#include "engine/interp/operand.h"
#include "native.h"
#include "x86/cpuid.h"

#define PAGE 4096u

struct sandbox {
	struct native *native;
	struct cpu *cpu;
	struct machine machine;
	struct cpuid_model model;
	struct tlb_table *table;
	uint8_t *memory; /* PAGE bytes */
	uint64_t seed;
};

/* low: memory below 4 GiB. False: the host cannot run the native side (it moves state by XSAVE with
 * AVX). */
bool sandbox_create(struct sandbox *s, uint64_t seed, bool low);
void sandbox_destroy(struct sandbox *s);

uint64_t sandbox_random(struct sandbox *s);
unsigned sandbox_pick(struct sandbox *s, unsigned n); /* 0..n-1 */
/* Fill with values of one of several kinds: bits, special floats and doubles, text, counts... */
void sandbox_fill(struct sandbox *s, uint8_t *to, unsigned size);
/* All registers, and the memory. */
void sandbox_randomize(struct sandbox *s, struct native_state *n);

void sandbox_load(struct sandbox *s, const struct native_state *n); /* into the CPU */
void sandbox_store(const struct sandbox *s, struct native_state *n);
/* What the fault the CPU holds would be on the host. */
enum native_result sandbox_fault(const struct sandbox *s);

/* The handler of a decoded instruction, and its row's name; NULL: not a row of the two tables under
 * test. */
insn_fn sandbox_handler(enum insn_op op);
const char *sandbox_name(enum insn_op op);

#endif
