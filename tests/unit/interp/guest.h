/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small machine for tests of software engines: RAM, no devices, CPUs in 64-bit (identity-mapped
 * by 2 MiB pages), flat 32-bit or real mode, code given as bytes, run until HLT.
 */
#ifndef TESTS_INTERP_GUEST_H
#define TESTS_INTERP_GUEST_H

#include "base/err.h"
#include "engine/engine.h"
#include "x86/cpuid.h"

#define GUEST_RAM (16ull << 20)
#define GUEST_CODE 0x10000ull /* where tests put their code */
#define GUEST_DATA 0x20000ull
#define GUEST_STACK 0x30000ull	 /* top */
#define GUEST_TABLES 0x100000ull /* page tables, IDT, GDT */
#define GUEST_FAULTS 0x40000ull	 /* handlers of vectors 0..31, 16 bytes each: HLT */

struct guest {
	struct machine machine;
	struct cpuid_model model;
	struct cpu *cpus;
	unsigned ncpus;
};

/* With CPU model v3, or another. */
int guest_create_as(struct guest *g, unsigned ncpus, const struct engine_ops *engine, const char *model, struct err *e);
int guest_create(struct guest *g, unsigned ncpus, const struct engine_ops *engine, struct err *e);
void guest_destroy(struct guest *g);
/* Reset CPU n and put it into a mode at GUEST_CODE with the stack at GUEST_STACK, IF clear. */
void guest_real(struct guest *g, unsigned n);
void guest_protected(struct guest *g, unsigned n); /* 32-bit, flat, ring 0 */
void guest_long(struct guest *g, unsigned n);	   /* 64-bit, ring 0, an IDT whose handlers halt */
void guest_load(struct guest *g, uint64_t at, const void *bytes, uint64_t count);
void guest_read(struct guest *g, uint64_t at, void *bytes, uint64_t count);
enum cpu_stop guest_run(struct guest *g, unsigned n);
/* After a halt in one of guest_long()'s handlers: the vector, or -1; the error code and rip are on
 * the stack. */
int guest_vector(const struct guest *g, unsigned n);

#endif
